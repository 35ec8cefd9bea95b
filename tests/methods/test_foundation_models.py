"""What the chapter on foundation models exports: three objectives, miniatures and their files, published checkpoints."""

from __future__ import annotations

import json
import pickle

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import save_file
from torch import nn

from scprimer.methods import foundation_models as fm
from scprimer.methods import transformers as tf

GENES = [f"G{i}" for i in range(12)]
SIZES = {"width": 16, "heads": 2, "layers": 2, "length": 8}
NAMES = ["scgpt", "geneformer", "cell2sentence"]


@pytest.fixture
def vocabulary():
    return tf.Vocabulary(GENES)


@pytest.fixture
def panel(vocabulary):
    counts = np.random.default_rng(0).poisson(1.2, (30, 12)).astype(np.float32)
    counts[:, 0] += 1
    return tf.align(counts, GENES, vocabulary)


def mini(vocabulary, name, **options):
    made = fm.new_mini(name, vocabulary, np.ones(12), prompts=("<a>", "<b>"), **{**SIZES, **options})
    made.model.eval()
    return made


def batch_of(made, panel, **options):
    return {k: torch.as_tensor(v) for k, v in made.tokens(panel, **options).items()}


# ---- the generative mask -----------------------------------------------------------------------------------------------
def test_the_mask_is_the_rule_written_out():
    known = torch.tensor([[True, False, True, False, False]])
    padding = torch.tensor([[False, False, False, False, True]])
    mask = fm.generative_mask(known, padding)
    assert mask.shape == (1, 1, 5, 5)
    for i in range(5):
        for j in range(5):
            assert bool(mask[0, 0, i, j]) == (not (known[0, j] or i == j) or bool(padding[0, j])), (i, j)
    with pytest.raises(ValueError, match="both are cells x length"):
        fm.generative_mask(known, padding[:, :4])


def test_unknown_values_are_not_seen_and_questions_do_not_disturb_each_other(vocabulary, panel):
    made = mini(vocabulary, "scgpt")
    b = batch_of(made, panel)
    torch.manual_seed(1)
    known = torch.rand(b["gene"].shape) < 0.5
    asked = ~known & (b["gene"] >= tf.FIRST)
    one = asked & (asked.cumsum(1) == 1)
    with torch.no_grad():
        x = made.model.generative(b["gene"], b["value"], known)
        other = made.model.generative(b["gene"], torch.where(asked, 9.0, b["value"]), known)
        alone = made.model.generative(b["gene"].masked_fill(asked & ~one, tf.PAD), b["value"], known)
    assert torch.allclose(x, other, atol=1e-6)
    assert torch.allclose(x[one], alone[one], atol=1e-5)
    changed = torch.where(known & (b["gene"] >= tf.FIRST), b["value"] / 2, b["value"])
    with torch.no_grad():
        assert not torch.allclose(x, made.model.generative(b["gene"], changed, known), atol=1e-4)


def test_the_generative_loss_counts_unknown_values_only(vocabulary, panel):
    made = mini(vocabulary, "scgpt")
    b = batch_of(made, panel)
    torch.manual_seed(0)
    loss = fm.generative_loss(made.model, b, share=0.5)
    assert torch.isclose(loss["loss"], loss["tokens"] + loss["cell"])
    loss["loss"].backward()
    assert made.model.of_cell.weight.grad.abs().sum() > 0 and made.model.gene.weight.grad.abs().sum() > 0
    with torch.no_grad():
        made.model.guess.weight.zero_(), made.model.guess.bias.fill_(0.25)
    torch.manual_seed(0)
    again = fm.generative_loss(made.model, b, share=0.5)["tokens"]
    torch.manual_seed(0)
    unknown = (torch.rand(b["gene"].shape) < 0.5) & (b["gene"] >= tf.FIRST)
    assert torch.isclose(again, ((0.25 - b["value"][unknown]) ** 2).mean())


def test_completion_fills_every_unknown_value_and_keeps_the_known(vocabulary, panel):
    made = mini(vocabulary, "scgpt")
    b = batch_of(made, panel)
    known = torch.rand(b["gene"].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    filled = fm.complete(made.model, b["gene"], b["value"], known, rounds=3)
    keep = known | (b["gene"] < tf.FIRST)
    assert torch.equal(filled[keep], b["value"][keep])
    assert (
        (filled[~keep] >= 0).all() and (filled[~keep] <= 1).all() and not torch.equal(filled[~keep], b["value"][~keep])
    )
    hidden = torch.where(keep, b["value"], 0.5)
    assert torch.allclose(filled, fm.complete(made.model, b["gene"], hidden, known, rounds=3), atol=1e-6)


# ---- sentences ---------------------------------------------------------------------------------------------------------
def test_a_sentence_lists_genes_by_expression_and_ends(vocabulary):
    made = mini(vocabulary, "cell2sentence")
    panel = tf.align(np.array([[0, 5, 2, 0, 9, 0, 0, 0, 0, 0, 0, 0.0], [1.0] * 12]), GENES, vocabulary)
    t = made.tokens(panel, prompt=made.token("<b>"))
    g, end = t["gene"], made.token("<end>")
    assert list(g[0]) == [made.token("<b>"), tf.FIRST + 4, tf.FIRST + 1, tf.FIRST + 2, end, 0, 0, 0, 0]
    assert list(t["value"][0]) == [0, 1, 2, 3, 4, 0, 0, 0, 0]
    assert end not in g[1] and (g[1] >= tf.FIRST).sum() == 9  # no room for an end


def test_ties_are_drawn_and_not_read_off_the_columns(vocabulary):
    made = mini(vocabulary, "cell2sentence")
    panel = tf.align(np.ones((200, 12)), GENES, vocabulary)
    first = made.tokens(panel)["gene"][:, 1]
    assert len(np.unique(first)) == 12
    assert np.array_equal(made.tokens(panel)["gene"], made.tokens(panel)["gene"])
    assert not np.array_equal(made.tokens(panel)["gene"], made.tokens(panel, seed=1)["gene"])


def test_a_sentence_is_scored_word_by_word(vocabulary, panel):
    made = mini(vocabulary, "cell2sentence")
    b = batch_of(made, panel)
    with torch.no_grad():
        score = fm.sentence_scores(made.model, b)
        one = torch.zeros(len(score))
        for i in range(1, b["gene"].shape[1]):
            p = made.model.guess(made.model(b["gene"][:, :i], b["value"][:, :i])[:, -1]).log_softmax(-1)
            one += p.gather(1, b["gene"][:, i : i + 1])[:, 0] * (b["gene"][:, i] != tf.PAD)
        loss = fm.next_word_loss(made.model, b)["loss"]
    assert torch.allclose(score, one, atol=1e-4)
    assert torch.isclose(-score.sum() / (b["gene"][:, 1:] != tf.PAD).sum(), loss, atol=1e-5)


def test_written_cells_are_sentences(vocabulary):
    made = mini(vocabulary, "cell2sentence")
    gene = fm.write_cells(made, ["<a>"] * 20 + ["<b>"] * 20, seed=3)
    assert gene.shape == (40, 9) and (gene[:20, 0] == made.token("<a>")).all()
    end = made.token("<end>")
    for row in gene[:, 1:]:
        genes = row[(row >= tf.FIRST) & (row < end)]
        assert len(genes) >= 1 and len(set(genes)) == len(genes)
        after = row[np.argmax(row == end) + 1 :] if end in row else []
        assert (
            (np.asarray(after) == tf.PAD).all() and not (row > end).any() and not np.isin(row, (tf.CELL, tf.MASK)).any()
        )
    assert np.array_equal(gene, fm.write_cells(made, ["<a>"] * 20 + ["<b>"] * 20, seed=3))
    with pytest.raises(ValueError, match="has no word '<c>'"):
        fm.write_cells(made, ["<c>"])


def test_a_writer_learns_its_prompts(vocabulary):
    rng, kind = np.random.default_rng(0), np.repeat([0, 1], 60)
    rate = np.where((np.arange(12) < 6)[None] == (kind == 0)[:, None], 6.0, 0.02)
    panel = tf.align(rng.poisson(rate) + (np.arange(12) == 5 * kind[:, None] + 3), GENES, vocabulary)
    prompts = np.array(["<a>", "<b>"])[kind]
    untaught = mini(vocabulary, "cell2sentence")
    before = untaught.model.gene.weight.clone()
    taught = fm.teach_prompts(untaught, panel, prompts, steps=120, learning_rate=5e-3, device="cpu")
    assert torch.equal(before, untaught.model.gene.weight)

    def right(made):
        gene = fm.write_cells(made, prompts, seed=0)[:, 1:4] - tf.FIRST
        low = ((gene < 6) & (gene >= 0)).sum(1) > ((gene >= 6) & (gene < 12)).sum(1)
        return (low == (kind == 0)).mean()

    assert right(taught) > 0.9 > right(untaught)


def test_ranks_are_read_back_by_a_line(vocabulary):
    gene = np.array([[tf.CELL, tf.FIRST + 2, tf.FIRST + 7, tf.FIRST + 12, 0]])  # the last word is no gene
    levels = fm.from_sentences(gene, 12, -1.0, 3.0)
    assert levels.shape == (1, 12) and levels[0, 2] == 3 and np.isclose(levels[0, 7], 3 - np.log10(2))
    assert levels.sum() == levels[0, 2] + levels[0, 7]
    place = np.arange(1, 9)
    counts = np.zeros((50, 12))
    counts[:, :8] = np.round(1000 / place)
    slope, _, r2 = fm.rank_line(tf.align(counts, GENES, vocabulary), length=8)
    assert slope < 0 and r2 > 0.95


# ---- miniatures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_reads_cells_saves_and_loads(vocabulary, panel, name, tmp_path):
    made = mini(vocabulary, name)
    made.losses = (2.5, 1.25)
    Z = made.vectors(panel)
    assert Z.shape == (30, 16) and np.isfinite(Z).all()
    if name == "scgpt":
        assert np.allclose(np.linalg.norm(Z, axis=1), 1, atol=1e-5)
    fm.save_mini(made, tmp_path / "deep" / "mini.safetensors")
    again = fm.load_mini(tmp_path / "deep" / "mini.safetensors")
    assert (
        again.name == name
        and again.vocabulary.genes == GENES
        and again.words == made.words
        and again.sizes == made.sizes
        and again.losses == made.losses
    )
    assert np.allclose(Z, again.vectors(panel), atol=1e-6)
    assert not list((tmp_path / "deep").glob(".*"))


def test_other_files_are_no_miniatures(vocabulary, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not written by save_mini"):
        fm.load_mini(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is damaged"):
        fm.load_mini(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="name='bert'"):
        mini(vocabulary, "bert")
    with pytest.raises(ValueError, match="has no word"):
        mini(vocabulary, "scgpt").token("<end>")


def test_weights_of_another_vocabulary_are_refused(vocabulary, tmp_path):
    fm.save_mini(mini(vocabulary, "scgpt"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="another vocabulary"):
        mini(tf.Vocabulary(GENES[::-1]), "scgpt").model.load_state_dict(
            fm.load_mini(tmp_path / "a.safetensors").model.state_dict()
        )


@pytest.mark.parametrize("name", NAMES)
def test_each_learns_its_own_exercise(vocabulary, name):
    rng, kind = np.random.default_rng(0), np.random.default_rng(1).integers(0, 2, 240)
    rate = np.where((np.arange(12) < 6)[None] == (kind == 0)[:, None], 8.0, 0.3)
    panel = tf.align(rng.poisson(rate) + (np.arange(12) == 0), GENES, vocabulary)
    made = mini(vocabulary, name)
    base = made.tokens(panel)
    before = fm.exam(made, base, base)
    fm.pretrain_mini(made, panel, steps=200, learning_rate=5e-3, device="cpu")
    after = fm.exam(made, base, base)
    assert after > before + 0.1 and after > 0.05


def test_the_last_layer_is_not_read_by_geneformer(vocabulary, panel):
    made = mini(vocabulary, "geneformer")
    Z = made.vectors(panel)
    with torch.no_grad():
        made.model.encoder.layers[1].network[0].weight.add_(1.0)
    assert np.allclose(Z, made.vectors(panel))


# ---- responses ---------------------------------------------------------------------------------------------------------
def test_a_response_starts_at_the_usual_change_and_learns_what_differs(vocabulary):
    rng, kind = np.random.default_rng(0), np.repeat([0, 1], 60)
    rate = np.where((np.arange(12) < 6)[None] == (kind == 0)[:, None], 6.0, 0.05)
    made = mini(vocabulary, "scgpt")
    tokens = made.tokens(tf.align(rng.poisson(rate) + (np.arange(12) == 0), GENES, vocabulary))
    change = np.stack([np.eye(12)[1], -np.eye(12)[8]])[kind]
    start = fm.Response(made.model, change.mean(0))
    b = {k: torch.as_tensor(v) for k, v in tokens.items()}
    assert torch.allclose(start(b), torch.as_tensor(change.mean(0), dtype=torch.float32).expand(120, -1))
    model = fm.fit_response(made.model, tokens, change, steps=150, learning_rate=5e-3, device="cpu")
    with torch.no_grad():
        error = ((model(b).numpy() - change) ** 2).mean()
    assert error < 0.3 * ((change.mean(0) - change) ** 2).mean()


# ---- the pool ----------------------------------------------------------------------------------------------------------
def cells(names, n=120, seed=0):
    rng = np.random.default_rng(seed)
    return ad.AnnData(
        sp.csr_matrix(rng.poisson(rng.lognormal(0, 1, len(names)), (n, len(names))).astype(np.float32)),
        var={"x": names},
    )


def test_the_vocabulary_holds_only_what_the_held_out_study_measured():
    names = [f"N{i}" for i in range(120)]
    studies = [cells(names, seed=i) for i in range(3)]
    for a in studies:
        a.var_names = names
    found = fm.vocabulary_for(studies, [*names[:80], "other"], 40)
    assert len(found) == 40 and set(found.genes) <= set(names[:80])
    with pytest.raises(ValueError, match="shares only 10 genes"):
        fm.vocabulary_for(studies, names[:10], 40)


def test_ready_keeps_cells_with_molecules():
    a = cells([f"N{i}" for i in range(60)])
    keep = np.ones((120, 1), dtype=np.float32)
    keep[3] = 0  # an empty cell
    a.X = sp.csr_matrix(a.X.multiply(keep))
    b = fm.ready(a, 50, seed=1)
    assert (
        b.n_obs == 50
        and fm.ready(a, 500).n_obs == 119
        and (b.obs["size"] > 0).all()
        and np.allclose(b.obs["size"], np.asarray(b.X.sum(1)).ravel())
    )


# ---- published layouts -------------------------------------------------------------------------------------------------
def post_norm(width=16, hidden=24, epsilon=1e-5):
    layer = nn.TransformerEncoderLayer(width, 2, hidden, 0.0, batch_first=True, layer_norm_eps=epsilon)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()


def test_a_missing_file_is_named_with_where_it_is_published(tmp_path):
    for name, (where, files) in fm.PUBLIC.items():
        with pytest.raises(FileNotFoundError) as error:
            getattr(fm, f"open_{name}")(tmp_path)
        assert where in str(error.value) and all(f in str(error.value) for f in files)


@pytest.mark.parametrize("flash", [True, False])
def test_scgpts_layout_is_opened_and_gives_torchs_numbers(tmp_path, flash):
    torch.manual_seed(0)
    encoder, gene, norm = post_norm(), nn.Embedding(20, 16), nn.LayerNorm(16)
    one, two, value_norm = nn.Linear(1, 16), nn.Linear(16, 16), nn.LayerNorm(16)
    state = {f"transformer_encoder.{k}": v for k, v in encoder.state_dict().items()}
    if flash:
        state = {k.replace("in_proj_", "Wqkv."): v for k, v in state.items()}
    for name, module in {"encoder.embedding": gene, "encoder.enc_norm": norm, "value_encoder.linear1": one,
                         "value_encoder.linear2": two, "value_encoder.norm": value_norm}.items():  # fmt: skip
        state |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    torch.save(state | {"decoder.fc.0.weight": torch.zeros(3)}, tmp_path / "best_model.pt")
    vocabulary = (
        {"<pad>": 0, "<cls>": 1, "<eoc>": 2}
        | {g: 3 + i for i, g in enumerate(GENES)}
        | {f"X{i}": 15 + i for i in range(5)}
    )
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    args = {"embsize": 16, "nheads": 2, "d_hid": 24, "nlayers": 3, "dropout": 0.2}
    (tmp_path / "args.json").write_text(json.dumps(args))
    model, names = fm.open_scgpt(tmp_path)
    g, v = torch.randint(0, 20, (4, 6)), torch.rand(4, 6) * 50
    padding = torch.arange(6) >= torch.tensor([[6], [3], [1], [5]])
    with torch.no_grad():
        wanted = encoder(norm(gene(g)) + value_norm(two(torch.relu(one(v[..., None])))), src_key_padding_mask=padding)
        assert torch.allclose(model(g, v, padding)[~padding], wanted[~padding], atol=1e-5)
    counts = np.random.default_rng(0).poisson(1.0, (5, 13)).astype(float)
    Z = fm.public_scgpt_vectors(model, names, counts, [*GENES, "unknown"])
    assert Z.shape == (5, 16) and np.allclose(np.linalg.norm(Z, axis=1), 1, atol=1e-5)
    order = np.random.default_rng(1).permutation(13)
    turned = fm.public_scgpt_vectors(model, names, 3 * counts[:, order], np.array([*GENES, "unknown"])[order])
    assert np.abs(Z - turned).max() < 0.2  # ties may fall into other bins, nothing else changes
    (tmp_path / "args.json").write_text(json.dumps(args | {"nlayers": 4}))
    with pytest.raises(ValueError, match="tensors are missing or of another shape"):
        fm.open_scgpt(tmp_path)


class Evil:
    def __reduce__(self):
        return (print, ("this code was run",))


def test_weights_that_are_programs_are_refused(tmp_path, capsys):
    for f in ("vocab.json", "args.json"):
        (tmp_path / f).write_text("{}")
    torch.save({"a": Evil()}, tmp_path / "best_model.pt")
    with pytest.raises(pickle.UnpicklingError):
        fm.open_scgpt(tmp_path)
    (tmp_path / "d.pkl").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        fm.plain_dictionary(tmp_path / "d.pkl")
    assert "this code was run" not in capsys.readouterr().out


def test_plain_dictionaries_are_read(tmp_path):
    plain = {"ENSG1": np.float64(1.5), "ENSG2": 2.0}
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(plain))
    assert fm.plain_dictionary(tmp_path / "d.pkl") == plain
    (tmp_path / "d.json").write_text(json.dumps({"ENSG1": 1.5}))
    assert fm.plain_dictionary(tmp_path / "d.json") == {"ENSG1": 1.5}
    (tmp_path / "l.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="holds a list"):
        fm.plain_dictionary(tmp_path / "l.pkl")


def bert_layout(folder, encoder, gene, place, kind, norm):
    state, old = {}, encoder.state_dict()
    for i in range(3):
        to, base = f"bert.encoder.layer.{i}.", f"layers.{i}."
        for part in ("weight", "bias"):
            for name, piece in zip(("query", "key", "value"), old[f"{base}self_attn.in_proj_{part}"].chunk(3)):
                state[f"{to}attention.self.{name}.{part}"] = piece.clone()
            for theirs, mine in {"attention.output.dense": "self_attn.out_proj", "attention.output.LayerNorm": "norm1",
                                 "intermediate.dense": "linear1", "output.dense": "linear2", "output.LayerNorm": "norm2"}.items():  # fmt: skip
                state[f"{to}{theirs}.{part}"] = old[f"{base}{mine}.{part}"]
    state |= {"bert.embeddings.word_embeddings.weight": gene.weight.data, "bert.embeddings.position_embeddings.weight": place.weight.data,
              "bert.embeddings.token_type_embeddings.weight": kind.weight.data, "bert.embeddings.LayerNorm.weight": norm.weight.data,
              "bert.embeddings.LayerNorm.bias": norm.bias.data, "cls.predictions.bias": torch.zeros(20)}  # fmt: skip
    save_file(state, folder / "model.safetensors")
    config = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 3, "vocab_size": 20,
              "max_position_embeddings": 10, "hidden_act": "relu", "layer_norm_eps": 1e-12}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return config


@pytest.mark.parametrize("as_json", [True, False])
def test_geneformers_layout_is_opened_and_gives_torchs_numbers(tmp_path, as_json):
    torch.manual_seed(0)
    encoder, norm = post_norm(epsilon=1e-12), nn.LayerNorm(16, 1e-12)
    gene, place, kind = nn.Embedding(20, 16), nn.Embedding(10, 16), nn.Embedding(2, 16)
    config = bert_layout(tmp_path, encoder, gene, place, kind, norm)
    tokens = {"<pad>": 0, "<mask>": 1} | {f"ENSG{i}": 2 + i for i in range(12)}
    medians = {f"ENSG{i}": 1.0 + i for i in range(12)}
    for name, plain in {"token_dictionary": tokens, "gene_median_dictionary": medians}.items():
        if as_json:
            (tmp_path / f"{name}.json").write_text(json.dumps(plain))
        else:
            (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(plain))
    model, found, middle = fm.open_geneformer(tmp_path)
    assert found == tokens and middle == medians
    g = torch.randint(0, 20, (4, 6))
    padding = torch.arange(6) >= torch.tensor([[6], [3], [1], [5]])
    with torch.no_grad():
        wanted = encoder(norm(gene(g) + place(torch.arange(6)) + kind.weight[0]), src_key_padding_mask=padding)
        assert torch.allclose(model(g, padding)[~padding], wanted[~padding], atol=1e-5)
    counts = np.zeros((1, 12))
    counts[0, [2, 5, 9]] = [9, 12, 10]  # over the medians 3, 6 and 10: 3, 2, 1
    ids = [f"ENSG{i}" for i in range(12)]
    Z = fm.public_geneformer_vectors(model, tokens, medians, counts, ids, counts.sum(1), length=10)
    with torch.no_grad():
        direct = model(torch.tensor([[4, 7, 11]]), layers=-1).mean(1).numpy()
    assert np.allclose(Z, direct, atol=1e-5)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    with pytest.raises(ValueError, match="hidden_act='gelu'"):
        fm.open_geneformer(tmp_path)


def neox_layout(folder, width=16, heads=2, layers=2, words=300):
    torch.manual_seed(0)
    config = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 32, "num_hidden_layers": layers,
              "vocab_size": words, "rotary_pct": 0.5, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5,
              "use_parallel_residual": True}  # fmt: skip
    shapes = {"gpt_neox.embed_in.weight": (words, width), "embed_out.weight": (words, width),
              "gpt_neox.final_layer_norm.weight": (width,), "gpt_neox.final_layer_norm.bias": (width,)}  # fmt: skip
    for i in range(layers):
        parts = {"input_layernorm": (width,), "post_attention_layernorm": (width,), "attention.query_key_value": (3 * width, width),
                 "attention.dense": (width, width), "mlp.dense_h_to_4h": (32, width), "mlp.dense_4h_to_h": (width, 32)}  # fmt: skip
        for name, shape in parts.items():
            shapes |= {f"gpt_neox.layers.{i}.{name}.weight": shape, f"gpt_neox.layers.{i}.{name}.bias": shape[:1]}
    state = {k: 0.3 * torch.randn(s) + (1.0 if "norm.weight" in k else 0.0) for k, s in shapes.items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    names = fm.byte_names()
    vocab = {c: i for i, c in enumerate(names)} | {"CD": 256, "CD3": 257, "ĠC": 258}
    merges = ["C D", "CD 3", "Ġ C"]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": merges}}))
    return config, state


def literal_neox(config, state, words):
    """GPT-NeoX written out head by head and place by place."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    d, turn = width // heads, int(width // heads * config["rotary_pct"])
    norm = lambda x, n: nn.functional.layer_norm(x, (width,), state[n + ".weight"], state[n + ".bias"])  # noqa: E731
    line = lambda x, n: x @ state[n + ".weight"].T + state[n + ".bias"]  # noqa: E731

    def rotate(v, place):
        out = v.clone()
        for k in range(turn // 2):
            a = torch.tensor(place / config["rotary_emb_base"] ** (2 * k / turn))
            x, y = v[k], v[k + turn // 2]
            out[k], out[k + turn // 2] = x * a.cos() - y * a.sin(), y * a.cos() + x * a.sin()
        return out

    x = state["gpt_neox.embed_in.weight"][words]
    for i in range(config["num_hidden_layers"]):
        base = f"gpt_neox.layers.{i}."
        qkv = line(norm(x, base + "input_layernorm"), base + "attention.query_key_value").view(len(words), heads, 3, d)
        heads_out = []
        for h in range(heads):
            q, k, v = (qkv[:, h, j] for j in range(3))
            q, k = (torch.stack([rotate(row, p) for p, row in enumerate(m)]) for m in (q, k))
            s = (q @ k.T / d**0.5).masked_fill(torch.ones(len(words), len(words), dtype=torch.bool).triu(1), -torch.inf)
            heads_out.append(s.softmax(-1) @ v)
        small = nn.functional.gelu(line(norm(x, base + "post_attention_layernorm"), base + "mlp.dense_h_to_4h"))
        x = x + line(torch.cat(heads_out, -1), base + "attention.dense") + line(small, base + "mlp.dense_4h_to_h")
    return norm(x, "gpt_neox.final_layer_norm") @ state["embed_out.weight"].T


def test_cell2sentences_layout_is_opened_and_gives_the_numbers_written_out(tmp_path):
    config, state = neox_layout(tmp_path)
    model, text = fm.open_cell2sentence(tmp_path)
    words = torch.randint(0, 300, (7,))
    with torch.no_grad():
        assert torch.allclose(model(words[None])[0], literal_neox(config, state, words), atol=1e-4)
    Z = fm.public_sentence_vectors(model, text, np.array([[3.0, 0, 1], [0, 2, 0]]), ["CD3", "LYZ", "B2M"])
    assert Z.shape == (2, 16)
    (tmp_path / "config.json").write_text(json.dumps(config | {"use_parallel_residual": False}))
    with pytest.raises(ValueError, match="no Pythia"):
        fm.open_cell2sentence(tmp_path)


def test_byte_pairs_join_the_earliest_pair_first_and_come_back(tmp_path):
    neox_layout(tmp_path)
    text = fm.BytePairs(tmp_path / "tokenizer.json")
    assert text.encode("CD3") == [256, text.ids["3"]]  # letters and digits are pieces of their own, as in GPT-2
    assert text.encode("X CD")[1:] == [text.ids["Ġ"], 256]  # C and D were learnt to be joined before the space and C
    for words in ("CD3E HLA-DRA", "IL2 — naïve β", "a  b"):
        assert text.decode(text.encode(words)) == words
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": {}, "merges": []}}))
    with pytest.raises(ValueError, match="Unigram"):
        fm.BytePairs(tmp_path / "tokenizer.json")


def test_turning_depends_on_the_distance_only():
    torch.manual_seed(0)
    q, k = torch.randn(1, 8).expand(12, 8), torch.randn(1, 8).expand(12, 8)
    s = fm.rotated(q, 0.5) @ fm.rotated(k, 0.5).T
    for distance in range(5):
        diagonal = s.diagonal(distance)
        assert (diagonal - diagonal[0]).abs().max() < 1e-4
    assert torch.equal(fm.rotated(q, 0.5)[:, 4:], q[:, 4:])


# ---- beside Hugging Face's own code, where it is installed -------------------------------------------------------------
def test_geneformers_encoder_equals_hugging_faces(tmp_path):
    hub = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = hub.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, hidden_act="relu",
        max_position_embeddings=20, pad_token_id=0,
    )  # fmt: skip
    theirs = hub.BertForMaskedLM(config).eval()
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    for name in ("token_dictionary", "gene_median_dictionary"):
        (tmp_path / f"{name}.json").write_text("{}")
    ours, _, _ = fm.open_geneformer(tmp_path)
    padding = torch.arange(9) >= torch.tensor([[9], [4], [1], [7]])
    gene = torch.randint(1, 40, (4, 9)).masked_fill(padding, 0)
    with torch.no_grad():
        states = theirs(gene, attention_mask=(~padding).long(), output_hidden_states=True).hidden_states
        for layers, wanted in {None: states[-1], -1: states[-2]}.items():
            assert (ours(gene, padding, layers) - wanted)[~padding].abs().max() < 1e-5


def test_cell2sentences_network_equals_hugging_faces(tmp_path):
    hub = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = hub.GPTNeoXConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, rotary_pct=0.25,
        max_position_embeddings=64,
    )  # fmt: skip
    theirs = hub.GPTNeoXForCausalLM(config).eval()
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}))
    ours, _ = fm.open_cell2sentence(tmp_path)
    words = torch.randint(0, 60, (3, 11))
    with torch.no_grad():
        assert (ours(words) - theirs(words).logits).abs().max() < 1e-4


def test_byte_pairs_equal_the_tokenizers_librarys(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    text = ["MALAT1 CD3D CD3E HLA-DRA LYZ S100A8 NKG7 don't we'll  two spaces naïve β-cell a_b"] * 50
    theirs.train_from_iterator(text, tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = fm.BytePairs(tmp_path / "tokenizer.json")
    for line in (text[0], "CD8A  CD4\nIL2RA we're __init__ 3.14 (CD3) MT-CO1", " a  b ", "HLA-A,HLA-B; T-cell's"):
        assert ours.encode(line) == theirs.encode(line).ids and ours.decode(ours.encode(line)) == line
