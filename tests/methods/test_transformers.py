"""What the chapter on transformers exports: attention, encoder, vocabulary, tokenisers, pretraining, fine-tuning."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from scprimer.checkpoint import CheckpointError
from scprimer.methods import transformers as tf

GENES = [f"G{i}" for i in range(12)]


@pytest.fixture
def vocabulary():
    return tf.Vocabulary(GENES)


@pytest.fixture
def panel(vocabulary):
    counts = np.random.default_rng(0).poisson(1.5, (20, 12)).astype(np.float32)
    counts[:, 0] += 1
    return tf.align(counts, GENES, vocabulary)


def tensors(tokens):
    return torch.as_tensor(tokens["gene"]), torch.as_tensor(tokens["value"])


def small(vocabulary, kind="bins", **options):
    torch.manual_seed(0)
    return tf.GeneTransformer(vocabulary, kind, width=16, heads=2, layers=2, **options).eval()


# ---- attention ---------------------------------------------------------------------------------------------------------
def test_attention_is_the_formula_written_out():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(5, 4)) for _ in range(3))
    literal = np.zeros((5, 4))
    for i in range(5):
        w = np.exp([q[i] @ k[j] / 2 for j in range(5)])
        literal[i] = sum(w[j] / w.sum() * v[j] for j in range(5))
    y, w = tf.attention(*(torch.as_tensor(t) for t in (q, k, v)))
    assert np.allclose(y, literal, atol=1e-12)
    assert torch.allclose(w.sum(-1), torch.ones(5, dtype=w.dtype))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_multi_head_attention_equals_torchs(fused, causal, padded):
    torch.manual_seed(0)
    ours, x = tf.MultiHeadAttention(24, 3), torch.randn(4, 7, 24)
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    padding = torch.arange(7) >= torch.tensor([[7], [3], [1], [5]]) if padded else None
    later = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    there = 1.0 if padding is None else ~padding[..., None]
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = ours(a, padding, causal, fused) * there
    z = theirs(b, b, b, key_padding_mask=padding, attn_mask=later, need_weights=False)[0] * there
    assert (y - z).abs().max() < 1e-5
    (y**2).sum().backward()
    (z**2).sum().backward()
    assert (a.grad - b.grad).abs().max() < 1e-5
    assert (ours.qkv.weight.grad - theirs.in_proj_weight.grad).abs().max() < 1e-4


def test_the_layer_equals_torchs_pre_norm_layer():
    torch.manual_seed(0)
    ours = tf.EncoderLayer(24, 3, hidden=40).eval()
    theirs = nn.TransformerEncoderLayer(24, 3, 40, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    names = {
        "self_attn.in_proj_weight": "attention.qkv.weight", "self_attn.in_proj_bias": "attention.qkv.bias",
        "self_attn.out_proj.weight": "attention.out.weight", "self_attn.out_proj.bias": "attention.out.bias",
        "linear1.weight": "network.0.weight", "linear1.bias": "network.0.bias", "linear2.weight": "network.2.weight",
        "linear2.bias": "network.2.bias",
    }  # fmt: skip
    mine = ours.state_dict()
    theirs.load_state_dict({k: mine[names.get(k, k)] for k in theirs.state_dict()})
    x, padding = torch.randn(4, 7, 24), torch.arange(7) >= torch.tensor([[7], [3], [1], [5]])
    gap = (ours(x, padding) - theirs(x, src_key_padding_mask=padding))[~padding]
    assert gap.abs().max() < 1e-5


def test_causal_attention_does_not_see_the_future():
    torch.manual_seed(0)
    model, x = tf.TransformerEncoder(16, 2, 2).eval(), torch.randn(2, 6, 16)
    changed = x.clone()
    changed[:, 4:] = torch.randn(2, 2, 16)
    assert torch.allclose(model(x, causal=True)[:, :4], model(changed, causal=True)[:, :4], atol=1e-6)
    assert not torch.allclose(model(x)[:, :4], model(changed)[:, :4], atol=1e-3)


def test_weights_are_shares_and_padding_gets_none():
    torch.manual_seed(0)
    padding = torch.arange(6) >= torch.tensor([[6], [2]])
    for w in tf.TransformerEncoder(16, 4, 3).eval().weights(torch.randn(2, 6, 16), padding):
        assert w.shape == (2, 4, 6, 6)
        assert torch.allclose(w.sum(-1), torch.ones(2, 4, 6))
        assert w[1, :, :, 2:].abs().max() == 0


@pytest.mark.parametrize("width, heads", [(64, 5), (8, 16), (8, 0)])
def test_heads_must_divide_the_width(width, heads):
    with pytest.raises(ValueError, match=f"{heads} heads do not divide a width of {width}"):
        tf.MultiHeadAttention(width, heads)


def test_a_mask_of_another_shape_is_named():
    with pytest.raises(ValueError, match="padding mask of"):
        tf.MultiHeadAttention(8, 2)(torch.randn(2, 5, 8), torch.zeros(2, 4, dtype=torch.bool))


def test_dropout_is_off_in_evaluation_and_on_in_training():
    torch.manual_seed(0)
    layer, x = tf.EncoderLayer(16, 2, dropout=0.5), torch.randn(2, 5, 16)
    assert not torch.allclose(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


# ---- vocabulary and panel ----------------------------------------------------------------------------------------------
def test_tokens_of_genes_by_name(vocabulary):
    assert list(vocabulary.tokens(["G0", "G3"])) == [tf.FIRST, tf.FIRST + 3]


def test_an_unknown_gene_is_named_with_its_neighbours():
    with pytest.raises(ValueError, match=r"'CD3' is not in the vocabulary of 2 genes .near: CD3D"):
        tf.Vocabulary(["CD3D", "LYZ"]).tokens(["LYZ", "CD3"])


@pytest.mark.parametrize("genes", [[], ["A", "A"]])
def test_a_vocabulary_has_unique_genes(genes):
    with pytest.raises(ValueError, match="unique gene names"):
        tf.Vocabulary(genes)


def test_the_fingerprint_knows_names_and_order():
    prints = {tf.Vocabulary(g).fingerprint for g in (["A", "B"], ["B", "A"], ["A", "C"], ["AB"])}
    assert len(prints) == 4
    assert tf.Vocabulary(["A", "B"]).fingerprint == tf.Vocabulary(["A", "B"]).fingerprint


def test_align_orders_genes_and_tells_absent_from_silent(vocabulary):
    counts = np.array([[4.0, 0.0, 7.0, 9.0]])
    for given in (counts, sp.csr_matrix(counts)):
        panel = tf.align(given, ["G2", "G1", "G0", "other"], vocabulary)
        assert list(panel.counts[0, :3]) == [7, 0, 4] and panel.size[0] == 20
        assert panel.measured[0, :3].all() and not panel.measured[0, 3:].any()
    assert tf.align(counts, ["G2", "G1", "G0", "other"], vocabulary, size=[40]).size[0] == 40


@pytest.mark.parametrize("counts, words", [
    (np.array([[1.0, 0.0], [0.0, 0.0]]), "1 of 2 cells have no expressed gene"),
    (np.array([[1.0, -1.0]]), "not negative"),
    (np.array([[1.0, np.nan]]), "finite"),
])  # fmt: skip
def test_align_refuses_what_is_no_cell(counts, words):
    with pytest.raises(ValueError, match=words):
        tf.align(counts, ["G0", "G1"], tf.Vocabulary(["G0", "G1"]))


def test_align_says_when_the_names_are_of_another_kind(vocabulary):
    with pytest.raises(ValueError, match=r"0 of the vocabulary's 12 genes .*vocabulary: G0.*given: ENSG1"):
        tf.align(np.ones((1, 2)), ["ENSG1", "ENSG2"], vocabulary)


def test_panels_are_pooled_and_indexed(panel):
    both = tf.pool(panel, panel[:5])
    assert len(both) == 25 and np.array_equal(both.counts[20:], panel.counts[:5])


# ---- tokenisers --------------------------------------------------------------------------------------------------------
def test_bins_are_levels_of_the_logarithm():
    vocabulary = tf.Vocabulary(["A", "B", "C", "D"])
    panel = tf.align(np.array([[0.0, 1.0, 3.0, 9996.0]]), ["A", "B", "C", "D"], vocabulary)
    t = tf.bin_tokens(panel)
    level = dict(zip(t["gene"][0], t["value"][0]))
    assert t["gene"][0, 0] == tf.CELL
    # log2(1 + 1) = 1, log2(1 + 3) = 2, the highest level for the rest
    assert [level[tf.FIRST + i] for i in range(4)] == [0, 1, 2, 6]


def test_bins_leave_out_what_was_not_measured(vocabulary):
    panel = tf.align(np.array([[5.0, 0.0, 2.0]]), ["G0", "G1", "G2"], vocabulary)
    gene = tf.bin_tokens(panel)["gene"][0]
    assert set(gene) == {tf.CELL, tf.PAD, tf.FIRST, tf.FIRST + 1, tf.FIRST + 2}
    assert (gene == tf.PAD).sum() == 9


def test_a_short_sequence_keeps_expressed_genes_before_silent_ones(panel):
    t = tf.bin_tokens(panel, length=6, seed=1)
    assert t["gene"].shape == (20, 7)
    for i, row in enumerate(t["value"][:, 1:]):
        assert (row > 0).sum() == min(6, (panel.counts[i] > 0).sum())
        assert (np.diff(row) <= 0).all()


def test_ranks_are_relative_to_the_gene_and_leave_silent_genes_out():
    vocabulary = tf.Vocabulary(["A", "B", "C"])
    panel = tf.align(np.array([[10.0, 4.0, 0.0], [10.0, 1.0, 1.0]]), ["A", "B", "C"], vocabulary)
    t = tf.rank_tokens(panel, np.array([1000.0, 100.0, 10.0]))
    a, b, c = (tf.FIRST + i for i in range(3))
    assert list(t["gene"][0]) == [tf.CELL, b, a, tf.PAD] and list(t["value"][0]) == [0, 1, 2, 0]
    assert t["gene"][1, 1] == c


def test_usual_is_the_median_of_expressed_cells():
    panel = tf.Panel(np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]]), np.ones((3, 2), bool), np.full(3, 10.0))
    assert list(tf.usual(panel)) == [2000.0, 1.0]


def test_ranks_say_how_many_medians_they_want(panel):
    with pytest.raises(ValueError, match="3 medians for a vocabulary of 12"):
        tf.rank_tokens(panel, np.ones(3))


def test_values_are_quantiles_within_the_cell_and_do_not_depend_on_depth(panel):
    t = tf.value_tokens(panel)
    assert t["value"].dtype == np.float32
    assert np.array_equal(t["value"], tf.value_tokens(tf.Panel(3 * panel.counts, panel.measured, panel.size))["value"])
    inside = t["value"][t["gene"] >= tf.FIRST]
    assert (inside > 0).all() and (inside <= 1).all()


@pytest.mark.parametrize("kind", ["bins", "ranks", "values"])
def test_a_cell_without_a_gene_of_the_vocabulary_gives_finite_numbers(vocabulary, kind):
    panel = tf.align(np.r_[[np.r_[np.zeros(12), 5.0]]], [*GENES, "other"], vocabulary)
    make = {"bins": tf.bin_tokens, "values": tf.value_tokens, "ranks": lambda p: tf.rank_tokens(p, np.ones(12))}
    gene, value = tensors(make[kind](panel))
    if kind != "bins":
        assert (gene[0, 1:] == tf.PAD).all()
    assert torch.isfinite(tf.pooled(small(vocabulary, kind)(gene, value), gene)).all()


# ---- the model ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["bins", "ranks", "values"])
def test_a_cell_is_a_set_and_padding_is_absence(vocabulary, panel, kind):
    make = {"bins": tf.bin_tokens, "values": tf.value_tokens, "ranks": lambda p: tf.rank_tokens(p, np.ones(12))}
    gene, value = tensors(make[kind](panel))
    model, order = small(vocabulary, kind, max_length=20), torch.randperm(gene.shape[1])
    with torch.no_grad():
        straight = tf.pooled(model(gene, value), gene)
        turned = tf.pooled(model(gene[:, order], value[:, order]), gene[:, order])
        more = [nn.functional.pad(t, (0, 4)) for t in (gene, value)]
        padded = tf.pooled(model(*more), more[0])
        plain = tf.pooled(model(gene, value, fused=False), gene)
    for other in (turned, padded, plain):
        assert (straight - other).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["bins", "values"])
def test_the_hidden_value_cannot_be_seen(vocabulary, panel, kind):
    gene, value = tensors((tf.bin_tokens if kind == "bins" else tf.value_tokens)(panel))
    hidden = tf.choose_tokens(gene, 0.5)
    other = torch.where(hidden, (value + 1) % 2, value)
    model = small(vocabulary, kind)
    with torch.no_grad():
        assert torch.equal(model(gene, value, hidden), model(gene, other, hidden))
        assert not torch.equal(model(gene, value), model(gene, other))


def test_the_hidden_gene_of_a_rank_cannot_be_seen(vocabulary, panel):
    gene, value = tensors(tf.rank_tokens(panel, np.ones(12)))
    hidden = torch.zeros_like(gene, dtype=torch.bool)
    hidden[:, 1] = True
    other = gene.clone()
    other[:, 1] = tf.FIRST + 5
    model = small(vocabulary, "ranks")
    with torch.no_grad():
        assert torch.equal(model(gene, value, hidden), model(other, value, hidden))


def test_only_genes_are_hidden(panel):
    gene, _ = tensors(tf.rank_tokens(panel, np.ones(12)))
    torch.manual_seed(0)
    hidden = tf.choose_tokens(gene, 0.9)
    assert hidden.any() and not hidden[gene < tf.FIRST].any()
    with pytest.raises(ValueError, match="share=0: hide a share between"):
        tf.choose_tokens(gene, 0)


def test_the_loss_counts_hidden_tokens_only(vocabulary, panel):
    gene, value = tensors(tf.bin_tokens(panel))
    model, hidden = small(vocabulary), torch.zeros_like(gene, dtype=torch.bool)
    hidden[:, 3] = True
    x = model(gene, value, hidden)
    before = tf.score_hidden(model, x, gene, value, hidden)["loss"]
    nonsense = torch.where(hidden, value, (value + 3) % tf.N_BINS)
    assert torch.equal(before, tf.score_hidden(model, x, gene, nonsense, hidden)["loss"])


def test_a_sequence_that_is_too_long_is_an_error(vocabulary, panel):
    with pytest.raises(ValueError, match="13 tokens, and the model was made for 8"):
        small(vocabulary, max_length=8)(*tensors(tf.bin_tokens(panel)))


def test_an_unknown_kind_of_token_is_an_error(vocabulary):
    with pytest.raises(ValueError, match="kind='words'"):
        small(vocabulary, "words")


def test_weights_of_another_vocabulary_are_refused(vocabulary, panel, tmp_path):
    other = small(tf.Vocabulary(GENES[::-1]))  # the same genes, the same shapes, another order
    with pytest.raises(ValueError, match="trained with another vocabulary"):
        small(vocabulary).load_state_dict(other.state_dict())
    small(vocabulary).load_state_dict(small(vocabulary).state_dict())
    file, tokens = tmp_path / "model.safetensors", tf.bin_tokens(panel)
    tf.pretrain(other, tokens, epochs=1, batch_size=10, device="cpu", checkpoint=file)
    with pytest.raises(ValueError, match="trained with another vocabulary"):
        tf.pretrain(small(vocabulary), tokens, epochs=1, batch_size=10, device="cpu", checkpoint=file)
    with pytest.raises(CheckpointError, match="another shape"):
        tf.pretrain(small(tf.Vocabulary(GENES[:5])), tokens, epochs=1, batch_size=10, device="cpu", checkpoint=file)


# ---- training ----------------------------------------------------------------------------------------------------------
def linked(n=240):
    """Cells of two types in which genes come in two blocks: a hidden gene can be guessed from its block."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, n)
    rate = np.where((np.arange(12) < 6)[None] == (kind == 0)[:, None], 8.0, 0.05)
    return rng.poisson(rate).astype(np.float32) + (np.arange(12) == 0), kind


def test_pretraining_learns_what_belongs_together_and_resumes(vocabulary, tmp_path):
    counts, _ = linked()
    tokens = tf.bin_tokens(tf.align(counts, GENES, vocabulary))
    model, file = small(vocabulary), tmp_path / "a.safetensors"
    history = tf.pretrain(model, tokens, epochs=12, batch_size=24, learning_rate=5e-3, device="cpu", checkpoint=file)
    assert history.parts["right"][-1] > history.parts["right"][0] + 0.1
    again = small(vocabulary)
    assert tf.pretrain(again, tokens, epochs=12, batch_size=24, device="cpu", checkpoint=file).resumed_at == 12
    assert torch.equal(again.gene.weight, model.gene.weight)


@pytest.mark.parametrize("kind", ["ranks", "values"])
def test_the_other_tokens_can_be_pretrained_too(vocabulary, panel, kind):
    tokens = tf.value_tokens(panel) if kind == "values" else tf.rank_tokens(panel, tf.usual(panel))
    history = tf.pretrain(small(vocabulary, kind), tokens, epochs=8, batch_size=10, learning_rate=5e-3, device="cpu")
    assert history.train[-1] < history.train[0]


def test_finetuning_learns_and_leaves_the_body_alone(vocabulary):
    counts, kind = linked()
    tokens, labels = tf.bin_tokens(tf.align(counts, GENES, vocabulary)), np.array(["a", "b"])[kind]
    body = small(vocabulary)
    before = body.gene.weight.clone()
    model = tf.finetune(body, tokens, labels, steps=40, learning_rate=5e-3, device="cpu")
    p = model.probabilities(tokens)
    assert p.shape == (240, 2) and np.allclose(p.sum(1), 1, atol=1e-5)
    assert (model.classes[p.argmax(1)] == labels).mean() > 0.95
    assert torch.equal(before, body.gene.weight)
    mixed = tf.finetune(body, tokens, np.random.default_rng(0).permutation(labels), steps=5, device="cpu")
    assert (mixed.classes[mixed.probabilities(tokens).argmax(1)] == labels).mean() < 0.9


@pytest.mark.parametrize("labels", [["a"] * 20, ["a", "b"]])
def test_finetuning_says_what_labels_it_wants(vocabulary, panel, labels):
    with pytest.raises(ValueError, match="give a label"):
        tf.finetune(small(vocabulary), tf.bin_tokens(panel), labels, device="cpu")


# ---- explanations and cost ---------------------------------------------------------------------------------------------
@pytest.fixture
def explained(vocabulary, panel):
    torch.manual_seed(0)
    model = tf.Annotator(small(vocabulary), ["a", "b", "c"]).eval()
    nn.init.normal_(model.head.weight)
    gene, value = tensors(tf.rank_tokens(panel, np.ones(12)))
    value = torch.where(gene >= tf.FIRST, 1, 0)
    return model, gene, value, model.body.encoder.weights(model.body.embed_tokens(gene, value), gene == tf.PAD)


@pytest.mark.parametrize("score", ["received", "rollout"])
def test_attention_scores_share_one_cell_among_its_tokens(explained, score):
    _, gene, _, weights = explained
    s = getattr(tf, score)(weights, gene)
    assert torch.allclose(s.sum(1), torch.ones(len(gene)), atol=1e-5)
    assert s[gene == tf.PAD].abs().max() < 1e-6


def test_gradients_are_the_slope_of_small_steps(explained):
    model, gene, value, _ = explained
    length, product = tf.gradients(model, gene, value)
    assert length.shape == product.shape == gene.shape and (length >= 0).all()
    x = model.body.embed_tokens(gene, value).detach()

    def score(x):
        return model.head(tf.pooled(model.body.encoder(x, gene == tf.PAD), gene)).log_softmax(1)

    with torch.no_grad():
        best, step = score(x).argmax(1), 1e-2
        way = torch.randn(16)
        up, down = x.clone(), x.clone()
        up[:, 1] += step * way
        down[:, 1] -= step * way
        slope = (score(up) - score(down)).gather(1, best[:, None])[:, 0] / (2 * step)
        up[:, 1], down[:, 1] = (1 + step) * x[:, 1], (1 - step) * x[:, 1]
        fading = (score(up) - score(down)).gather(1, best[:, None])[:, 0] / (2 * step)
    assert torch.allclose(fading, product[:, 1], atol=1e-3)
    assert (slope.abs() <= length[:, 1] * way.norm() + 1e-3).all()  # no direction is steeper than the gradient


def test_removal_takes_the_highest_genes_and_never_the_cell_token(explained):
    _, gene, _, _ = explained
    score = torch.arange(gene.shape[1]).float().flip(0).expand(gene.shape)  # the cell token has the highest
    fewer = tf.without(gene, score, 2)
    assert (fewer[:, 0] == tf.CELL).all()
    assert (fewer[:, 1:3] == tf.PAD).all() and torch.equal(fewer[:, 3:], gene[:, 3:])


def test_predictions_move_only_when_something_is_removed(explained):
    model, gene, value, _ = explained
    assert tf.moved(model, gene, value, gene).abs().max() < 1e-6
    alone = tf.one_by_one(model, gene, value)
    assert alone.shape == gene.shape and alone[gene < tf.FIRST].abs().max() < 1e-6
    fewer = gene.clone()
    fewer[:, 1] = tf.PAD
    assert torch.allclose(alone[:, 1], tf.moved(model, gene, value, fewer), atol=1e-6)


def test_kept_bytes_counts_what_the_backward_pass_needs():
    x = torch.randn(1000, requires_grad=True)
    assert tf.kept_bytes(lambda: x.exp()) == 4000  # the result, once
    assert tf.kept_bytes(lambda: x + 1) == 0
    layer, short, long = tf.MultiHeadAttention(16, 2), torch.randn(1, 64, 16), torch.randn(1, 256, 16)
    growth = {
        f: tf.kept_bytes(lambda f=f: layer(long, fused=f)) / tf.kept_bytes(lambda f=f: layer(short, fused=f))
        for f in (True, False)
    }
    assert growth[True] < 5 < 9 < growth[False]


def test_best_seconds_names_every_function():
    assert set(tf.best_seconds({"a": lambda: 1, "b": lambda: 2})) == {"a", "b"}


# ---- genes -------------------------------------------------------------------------------------------------------------
def test_chosen_genes_vary_in_several_studies():
    rng = np.random.default_rng(0)
    names = [f"V{i}" for i in range(6)] + [f"N{i}" for i in range(200)]
    level = np.r_[np.full(6, 2.0), rng.lognormal(0.5, 0.8, 200)]
    studies = []
    for first in ("N0", "N0", "N0-other"):
        kind = rng.integers(0, 2, (150, 1))
        factor = np.where(np.arange(206) < 6, 0.1 + 1.9 * kind, 1.0)
        study = ad.AnnData(sp.csr_matrix(rng.poisson(level * factor).astype(np.float32)))
        study.var_names = [first if n == "N0" else n for n in names]
        studies.append(study)
    genes = tf.choose_genes(studies, 12, top=40)
    assert len(genes) == 12 and {n for n in names if n[0] == "V"} <= set(genes)
    everything = tf.choose_genes(studies, 1000, top=205)
    assert "N5" in everything and not {"N0", "N0-other"} & set(everything)  # measured in too few studies
