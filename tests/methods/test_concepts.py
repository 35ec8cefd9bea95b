"""What the chapter on concepts exports: planted programmes, Top-K dictionaries, attribution in two models, enrichment, steering."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from scprimer.methods import concepts as c
from scprimer.methods import foundation_models as fm
from scprimer.methods import transformers as tf
from scprimer.methods.differential import ranks
from scprimer.methods.scvi import CountVAE


def random_vae(n_genes=20, n_hidden=7, seed=0, **options):
    """An untrained model whose batch normalisation has seen something: folding must not work by accident."""
    torch.manual_seed(seed)
    model = CountVAE(n_genes, n_hidden=n_hidden, **options)
    norm = model.encoder.layers[0].norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    return model.eval()


def counts(n, genes=20, seed=0):
    x = np.random.default_rng(seed).poisson(0.8, (n, genes)).astype(np.float32)
    x[:, 0] += 1
    return x


# ---- planted programmes ------------------------------------------------------------------------------------------------
def test_drivers_follow_the_programme_and_passengers_the_type():
    cells = c.planted(3000, confounded=False, biology=3, seed=1)
    share = np.asarray(cells.X.multiply(1 / cells.X.sum(1)).todense())
    on, kind = cells.obsm["on"][:, 0], (cells.obs["cell_type"] == "type 0").to_numpy()
    driver, passenger = (cells.var[x].to_numpy() == 0 for x in ("driver", "passenger"))
    assert driver.sum() == passenger.sum() == 8 and not (driver & passenger).any()
    assert share[on][:, driver].mean() > 2.5 * share[~on][:, driver].mean()
    assert share[kind][:, passenger].mean() > 4 * share[~kind][:, passenger].mean()
    # in the corpus a passenger tells nothing about the programme
    assert abs(share[on][:, passenger].mean() / share[~on][:, passenger].mean() - 1) < 0.35


def test_the_study_is_confounded_and_shares_its_biology_with_the_corpus():
    corpus, study = (c.planted(2000, confounded=x, biology=5, seed=s) for x, s in ((False, 1), (True, 2)))
    assert (corpus.var == study.var).all().all()
    on, kind = study.obsm["on"][:, 1], (study.obs["cell_type"] == "type 1").to_numpy()
    assert on[kind].mean() > 0.8 and on[~kind].mean() < 0.1
    assert abs(corpus.obsm["on"][:, 1].mean() - 0.15) < 0.05
    deep = (study.obs["batch"] == "1").to_numpy()
    assert study.X[deep].sum() / deep.sum() > 1.6 * study.X[~deep].sum() / (~deep).sum()
    with pytest.raises(ValueError, match="need more than"):
        c.planted(10, confounded=True, genes=60)


# ---- dictionaries -------------------------------------------------------------------------------------------------------
def test_top_k_keeps_the_k_largest_where_they_stand():
    x = torch.tensor([[0.5, 2.0, 1.0, 3.0], [0.0, 0.0, 0.3, 0.0]])
    assert torch.equal(c.top_k(x, 2), torch.tensor([[0, 2.0, 0, 3.0], [0, 0, 0.3, 0]]))
    assert torch.equal(c.top_k(x, 4), x)


def test_an_autoencoder_by_the_equations():
    model = c.TopKSAE(np.array([1.0, 2.0, 3.0]), 2.0, 5, 2, seed=1)
    model.pre_bias.data.normal_()
    model.bias.data.normal_()
    x = torch.randn(6, 3)
    scaled = (x - torch.tensor([1.0, 2.0, 3.0])) / 2 - model.pre_bias
    evidence = torch.relu(scaled @ model.encoder + model.bias)
    assert torch.allclose(model.evidence(x), evidence)
    a = model.encode(x)
    assert ((a > 0).sum(1) <= 2).all()
    atoms = model.atoms / model.atoms.norm(dim=1, keepdim=True)
    for i in range(6):
        by_hand = sum(a[i, j] * atoms[j] for j in range(5)) + model.pre_bias
        assert torch.allclose(model.decode(a)[i], by_hand * 2 + torch.tensor([1.0, 2.0, 3.0]), atol=1e-6)
    assert torch.allclose(model.dictionary().norm(dim=1), torch.ones(5))
    for k in (0, 6):
        with pytest.raises(ValueError, match="between 1 and"):
            c.TopKSAE(np.zeros(3), 1.0, 5, k)


def sparse_vectors(n=1500, atoms=8, width=16, k=2, seed=0):
    """Vectors that are sums of ``k`` of a few true atoms."""
    rng = np.random.default_rng(seed)
    truth = np.linalg.qr(rng.normal(size=(width, width)))[0][:atoms]
    code = np.zeros((n, atoms))
    for row in code:
        row[rng.permutation(atoms)[:k]] = rng.uniform(1, 2, k)
    return (code @ truth + 0.02 * rng.normal(size=(n, width)) + 3).astype(np.float32), truth, code


def test_training_finds_the_atoms_that_made_the_data():
    x, truth, _ = sparse_vectors()
    model, history = c.train_sae(x, 8, 3, steps=400, learning_rate=1e-2, seed=1)
    assert history.train[-1] < 0.35 * history.train[0]
    assert c.explained(x, c.rebuilt(model, x), x.mean(0)) > 0.9
    found = (model.dictionary().detach().numpy() @ truth.T).max(0)
    assert np.mean(found > 0.8) >= 0.75
    shuffled = np.random.default_rng(0).permuted(x, axis=0)
    mixed, _ = c.train_sae(shuffled, 8, 3, steps=400, learning_rate=1e-2, seed=1)
    assert c.explained(shuffled, c.rebuilt(mixed, shuffled), shuffled.mean(0)) < 0.85


def test_dead_atoms_are_counted_and_asked_to_help():
    x, *_ = sparse_vectors(200)
    model = c.TopKSAE(x.mean(0), np.sqrt(((x - x.mean(0)) ** 2).mean()), 8, 1, seed=0).train()
    model.bias.data[:4] = -100.0  # nobody will choose these
    for _ in range(3):
        c.sae_loss(model, torch.as_tensor(x))
    assert (model.quiet[:4] == 600).all() and (model.quiet == 0).any()
    before = c.sae_loss(model, torch.as_tensor(x))["loss"].item()
    model.quiet[:4] = c.DEAD
    model.bias.data[:4] = -0.5
    result = c.sae_loss(model, torch.as_tensor(x))
    assert result["loss"].item() != before
    assert result["loss"].item() > result["error"].item(), "what dead atoms leave is added"
    assert torch.equal(*(c.sae_loss(model.eval(), torch.as_tensor(x))[k] for k in ("loss", "error")))


@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.zeros((9, 4)), np.full((9, 4), np.nan)])
def test_vectors_that_cannot_be_learnt_from_are_refused(bad):
    with pytest.raises(ValueError, match="finite and not all the same"):
        c.train_sae(bad, 4, 2)


def test_explained_is_one_for_the_truth_and_zero_for_the_mean():
    x = np.random.default_rng(0).normal(size=(50, 3))
    assert c.explained(x, x, x.mean(0)) == 1
    assert abs(c.explained(x, np.tile(x.mean(0), (50, 1)), x.mean(0))) < 1e-12


# ---- attribution in scVI ------------------------------------------------------------------------------------------------
def test_the_first_layer_is_one_affine_map():
    model, x = random_vae(), counts(9)
    A, bias = c.first_layer(model)
    by_map = torch.relu(torch.as_tensor(np.log1p(x)) @ A + bias)
    assert np.allclose(c.vae_neurons(model, x), by_map.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="told the batch"):
        c.first_layer(random_vae(n_batches=2, encode_batch=True))


def test_a_readout_is_the_evidence_of_the_dictionary():
    x = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)
    model = c.TopKSAE(x.mean(0), 1.7, 5, 2, seed=3)
    model.pre_bias.data.normal_()
    model.bias.data.normal_()
    w, b = c.readout(model, [4, 1])
    mine = np.maximum(x @ w.numpy().T + b.numpy(), 0)
    assert np.allclose(mine, c.concepts_of(model, x, chosen=False)[:, [4, 1]], atol=1e-5)
    w, b = c.unit_readout(7, [2, 5])
    assert np.allclose(x @ w.numpy().T + b.numpy(), x[:, [2, 5]])


@pytest.mark.parametrize("chunk", [5, 32_768])
def test_the_rank_one_update_equals_one_forward_pass_a_gene(chunk):
    model, x, y = random_vae(), counts(4), counts(4, seed=1)
    w, b = torch.randn(4, 7), torch.randn(4)
    fast = c.gene_by_gene(model, w, b, sp.csr_matrix(x), sp.csr_matrix(y), chunk=chunk)
    slow = c.gene_by_gene_naive(model, w, b, x, y)
    assert np.abs(slow).max() > 0.05
    assert np.allclose(fast.toarray(), slow, atol=1e-5)
    assert (fast.toarray()[x == y] == 0).all()
    assert c.gene_by_gene(model, w, b, x, x).nnz == 0
    few = c.gene_by_gene_naive(model, w, b, x, y, genes=[3])
    assert np.allclose(few[:, 3], slow[:, 3]) and not few[:, :3].any()


def test_attribution_finds_what_the_network_uses_and_nothing_else():
    """Truth by construction: only three genes reach the units. A fourth goes along with them in every cell."""
    model = random_vae()
    model.encoder.layers[0].weight.data[3:] = 0
    rng = np.random.default_rng(0)
    on = rng.random(300) < 0.3
    x = rng.poisson(np.where(on[:, None], 6.0, 1.0), (300, 20)).astype(np.float32)  # every gene is correlated
    units = c.vae_neurons(model, x)
    w, b = torch.as_tensor(units[on].mean(0) - units[~on].mean(0)), torch.tensor(0.0)
    active = np.where(on, units @ w.numpy(), 0)[:, None]
    pairs = c.pairs_of([0], active, units, n=40)
    many = (w.expand(len(pairs), -1), b.expand(len(pairs)), x[pairs["cell"]], x[pairs["other"]])
    for method in (c.gene_by_gene, c.integrated_gradients):
        score = np.abs(method(model, *many).toarray()).mean(0)
        assert (score[:3] > 1e-3).all() and (score[3:] == 0).all(), method.__name__
    by_correlation = np.abs(c.auc_of_genes(ranks(x), on[:, None])[0] - 0.5)
    assert by_correlation[3:].max() > 0.4, "correlation cannot tell them"


def test_integrated_gradients_add_up():
    model, x, y = random_vae(), counts(5), counts(5, seed=2)
    w, b = torch.rand(5, 7), torch.rand(5)
    total = np.asarray(c.integrated_gradients(model, w, b, x, y, steps=500).sum(1)).ravel()
    a, e = (np.maximum((c.vae_neurons(model, m) * w.numpy()).sum(1) + b.numpy(), 0) for m in (x, y))
    assert np.allclose(total, a - e, atol=0.02 * np.abs(a - e).max())


def test_what_is_left_when_genes_move_together():
    model, x, y = random_vae(), counts(5), counts(5, seed=2)
    w, b = torch.rand(5, 7), torch.rand(5) + 0.1
    a, e = ((c.vae_neurons(model, m) * w.numpy()).sum(1) + b.numpy() for m in (x, y))
    nothing, everything = np.zeros(x.shape, bool), np.ones(x.shape, bool)
    assert np.isclose(c.left_after(model, w, b, x, y, nothing), 1)
    assert np.isclose(c.left_after(model, w, b, x, y, everything), (e / a).mean(), rtol=1e-4)


# ---- counterfactuals ----------------------------------------------------------------------------------------------------
def test_the_nearest_silent_cell_in_the_same_batch_and_depth():
    at = np.array([[0.0], [0.1], [0.2], [0.3], [5.0]])
    active = np.array([True, True, False, False, False])
    assert list(c.nearest_without(at, [0, 1], active)) == [2, 2]
    like = np.array(["a", "a", "b", "a", "a"])
    assert list(c.nearest_without(at, [0], active, like=like)) == [3]
    depth = np.array([1000, 1000, 1000, 2000, 1100])
    assert list(c.nearest_without(at, [0], active, like=like, depth=depth)) == [4]
    assert list(c.nearest_without(at, [0], active, like=np.array(["a", "a", "b", "b", "b"]))) == [-1]
    assert list(c.nearest_without(at, [0], np.ones(5, bool))) == [-1]


def test_pairs_take_strong_cells_and_skip_what_has_no_partner():
    active = np.array([[4.0, 0, 1], [3, 0, 1], [2, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]])
    at = np.arange(6.0)[:, None]
    pairs = c.pairs_of([0, 1, 2], active, at)
    assert set(pairs["concept"]) == {0}, "nobody activates 1, everybody 2"
    assert set(pairs["cell"]) == {0, 1} and set(pairs["other"]) == {4}


def test_means_over_groups_of_sparse_rows():
    values = sp.csr_matrix(np.array([[1.0, 0], [3, 2], [5, 5]]))
    assert np.allclose(c.mean_by(values, [7, 7, 9], [7, 8, 9]), [[2, 1], [0, 0], [5, 5]])


# ---- attribution in a transformer ---------------------------------------------------------------------------------------
GENES = [f"G{i}" for i in range(12)]


@pytest.fixture(params=[1, 2, 3])
def mini(request):
    made = fm.new_mini("scgpt", tf.Vocabulary(GENES), np.ones(12), width=16, heads=2, layers=request.param, length=8)
    made.model.eval()
    return made


@pytest.fixture
def tokens(mini):
    x = np.random.default_rng(0).poisson(1.2, (10, 12)).astype(np.float32)
    x[:, 0] += 1
    return mini.tokens(tf.align(x, GENES, mini.vocabulary))


def test_units_are_those_of_the_middle_layer(mini, tokens):
    gene, value = (torch.as_tensor(tokens[k]) for k in ("gene", "value"))
    seen = {}
    layer = mini.model.encoder.layers[c.middle(mini.model)]
    hook = layer.network[1].register_forward_hook(lambda m, i, o: seen.update(units=o))
    with torch.no_grad():
        whole = mini.model(gene, value)
        x, units = c.token_units(mini.model, gene, value)
    hook.remove()
    assert torch.allclose(seen["units"], units)
    there = gene != tf.PAD
    mean = np.stack([u[t].mean(0) for u, t in zip(units.numpy(), there.numpy())])
    assert np.allclose(c.mini_neurons(mini, tokens), mean, atol=1e-5)
    cell = torch.nn.functional.normalize(whole[:, 0], dim=1)
    assert torch.allclose(c.cell_from_units(mini.model, x, units, gene), cell, atol=1e-5)


def test_units_of_single_tokens(mini, tokens):
    units, gene, cell = c.token_neurons(mini, tokens, n=15, batch_size=4)
    assert units.shape == (15, 64) and gene.min() >= 0
    with torch.no_grad():
        every = c.token_units(mini.model, *(torch.as_tensor(tokens[k]) for k in ("gene", "value")))[1].numpy()
    for u, g, i in zip(units, gene, cell):
        place = int(np.flatnonzero(tokens["gene"][i] == g + tf.FIRST)[0])
        assert np.allclose(u, every[i, place], atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 16])
def test_moving_tokens_one_at_a_time(mini, tokens, at_once):
    here, there = ({k: v[i] for k, v in tokens.items()} for i in (slice(0, 3), slice(3, 6)))
    w, b = torch.randn(3, 64), torch.randn(3) + 1
    fast = c.token_by_token(mini, w, b, here, there, pairs_at_once=at_once).toarray()

    def evidence(gene, value, i):
        units = c.token_units(mini.model, torch.as_tensor(gene)[None], torch.as_tensor(value)[None])[1][0]
        return max(float(units.mean(0) @ w[i] + b[i]), 0)

    slow = np.zeros_like(fast)
    with torch.no_grad():
        for i in range(3):
            kept = here["gene"][i] != tf.PAD
            gene, value = here["gene"][i][kept], here["value"][i][kept]
            over = dict(zip(there["gene"][i], there["value"][i]))
            for t in range(1, len(gene)):
                new = over.get(gene[t], 0.0)
                if new == 0:
                    moved = (np.delete(gene, t), np.delete(value, t))
                else:
                    moved = (gene, np.where(np.arange(len(gene)) == t, new, value).astype(np.float32))
                slow[i, gene[t] - tf.FIRST] = evidence(gene, value, i) - evidence(*moved, i)
    assert np.abs(slow).max() > 1e-3
    assert np.allclose(fast, slow, atol=1e-5)


# ---- reading ------------------------------------------------------------------------------------------------------------
def test_auc_of_all_genes_and_items_is_scikit_learns():
    rng = np.random.default_rng(0)
    x, active = rng.poisson(1.0, (60, 5)).astype(float), rng.random((60, 3)) < 0.3
    active[:, 2] = False
    mine = c.auc_of_genes(ranks(x), active)
    for i in range(2):
        assert np.allclose(mine[i], [roc_auc_score(active[:, i], g) for g in x.T])
    assert (mine[2] == 0.5).all()


def test_a_concept_is_stable_when_it_comes_back():
    x, *_ = sparse_vectors()
    first = c.train_sae(x, 8, 3, steps=300, learning_rate=1e-2, seed=1)[0]
    second = c.train_sae(x, 8, 3, steps=300, learning_rate=1e-2, seed=2)[0]
    assert c.matched(first, first, x).mean() > 0.9
    fresh = c.TopKSAE(x.mean(0), float(first.scale), 8, 3, seed=5)
    assert c.matched(first, second, x).mean() > c.matched(first, fresh, x).mean() + 0.3
    assert np.array_equal(
        c.stable_concepts([first, fresh, second], x), c.matched(first, second, x) | c.matched(first, fresh, x)
    )


def test_sets_are_cut_to_what_was_measured():
    matrix, names = c.membership({"a": ["x", "y", "q"], "small": ["x", "q"], "big": list("xyzuv")}, list("xyzuv"), 2, 4)
    assert names == ["a"] and list(matrix[:, 0]) == [1, 1, 0, 0, 0]


def test_enrichment_is_the_hypergeometric_tail():
    rng = np.random.default_rng(1)
    scores, member = rng.normal(size=(4, 200)), (rng.random((200, 6)) < 0.1).astype(np.float32)
    member[np.argsort(-scores[0])[:9], 0] = 1
    p, q = c.enrich_items(scores, member, 20)
    chosen = c.top_genes(scores, 20)
    assert (chosen.sum(1) == 20).all()
    for i in range(4):
        for j in range(6):
            k = int(member[chosen[i], j].sum())
            wanted = stats.hypergeom.sf(k - 1, 200, int(member[:, j].sum()), 20) if k >= 2 else 1.0
            assert np.isclose(p[i, j], wanted)
    assert (q >= p - 1e-12).all() and q[0, 0] < 0.01
    assert c.annotated(q) == (1 / 4, 1 / 4)
    every = np.zeros((10, 2)) + np.array([0.001, 1.0])
    assert c.annotated(every) == (1.0, 0.0), "a term of all items is not specific"


def test_genes_without_a_positive_score_are_not_listed():
    assert list(c.top_genes(np.array([[3.0, -1, 2, 0]]), 3)[0]) == [True, False, True, False]


def test_the_null_keeps_scores_and_expression():
    rng = np.random.default_rng(0)
    scores, level = rng.normal(size=(3, 100)), np.arange(100.0)
    mixed = c.permuted_scores(scores, level, seed=1, bins=10)
    assert not np.allclose(mixed, scores)
    for part in np.array_split(np.arange(100), 10):
        assert np.allclose(np.sort(mixed[:, part]), np.sort(scores[:, part]))


# ---- steering -----------------------------------------------------------------------------------------------------------
def test_switching_off_takes_the_concepts_share_and_nothing_else():
    x, *_ = sparse_vectors(100)
    model = c.train_sae(x, 8, 3, steps=100, seed=1)[0]
    change = c.removal(model, x, [2]).numpy()
    code = model.encode(torch.as_tensor(x)).detach()
    without = code.clone()
    without[:, 2] = 0
    by_decoder = (model.decode(without) - model.decode(code)).detach().numpy()
    assert np.allclose(change, by_decoder, atol=1e-4) and np.abs(change).max() > 0.01
    other = c.removal(model, x, [2], instead=[5]).numpy()
    assert np.allclose(np.linalg.norm(other, axis=1), np.linalg.norm(change, axis=1), atol=1e-4)


def test_the_gap_is_closed_by_going_there():
    rng = np.random.default_rng(0)
    start, goal, kind = rng.normal(size=(40, 3)) + 5, rng.normal(size=(40, 3)), np.repeat(["a", "b"], 20)
    groups = (kind, kind)
    there = start - start.reshape(2, 20, 3).mean(1).repeat(20, 0) + goal.reshape(2, 20, 3).mean(1).repeat(20, 0)
    assert np.isclose(c.gap_closed(there, start, goal, groups), 1)
    assert np.isclose(c.gap_closed(start, start, goal, groups), 0)
    assert c.gap_closed(start + 5, start, goal, groups) < 0
    assert np.isnan(c.gap_closed(start, start, goal, (kind, np.repeat("c", 40))))


def test_presence_keeps_genes_of_which_the_cell_has_more():
    found = sp.csr_matrix(np.array([[1.0, 2, 3]]))
    kept = c.held_by_presence(found, np.array([[5, 0, 2]]), np.array([[0, 5, 2]])).toarray()
    assert np.allclose(kept, [[1, 0, 0]])
    tokens = {"gene": np.array([[tf.CELL, tf.FIRST + 2, tf.PAD]]), "value": np.array([[0.0, 0.7, 0.0]], np.float32)}
    assert np.allclose(c.token_values(tokens, 3).toarray(), [[0, 0, 0.7]])


def test_names_are_made_coarse():
    assert list(c.coarse(["Naive CD4 T", "MNP", "?", "Neuron"])) == ["CD4 T", "Monocytes", "", "Neuron"]
