"""What the chapter `integration` builds: equal to the references where there are any, and clear about bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from scprimer.methods import integration as m


@pytest.fixture(scope="module")
def cells():
    """200 cells in 8 dimensions: four types, two batches that differ by a shift; ``(Z, batch, label)``."""
    rng = np.random.default_rng(0)
    label, batch = np.repeat(["a", "b", "c", "d"], 50), np.tile(["x", "x", "y", "x", "y"], 40)
    Z = rng.normal(0, 0.5, (200, 8)) + 5 * np.eye(4, 8)[np.repeat(range(4), 50)]
    Z[batch == "y", 4:] += 2.0
    return Z, batch, label


def gap(Z, batch, label):
    """Mean distance between the batches' centres within types."""
    return np.mean(
        [
            np.linalg.norm(Z[(label == t) & (batch == "x")].mean(0) - Z[(label == t) & (batch == "y")].mean(0))
            for t in set(label)
        ]
    )


# ---- Harmony ---------------------------------------------------------------------------------------------------------
def test_harmony_correction_equals_harmonypy(cells):
    harmonypy = pytest.importorskip("harmonypy")
    Z, batch, _ = cells
    found = harmonypy.run_harmony(Z, pd.DataFrame({"b": batch}), "b", lamb=1, nclust=6, verbose=False, ncores=1)
    ours = m.ridge_correct(Z, np.asarray(found.R, dtype=float), np.eye(2)[(batch == "y").astype(int)])
    assert np.abs(ours - found.Z_corr).max() < 1e-4 * np.abs(ours).max()
    assert np.abs(ours - Z).max() > 0.5


def test_harmony_removes_the_shift_and_keeps_the_types(cells):
    Z, batch, label = cells
    E = m.harmony(Z, batch, n_clusters=6)
    assert gap(E, batch, label) < 0.35 * gap(Z, batch, label)
    centres = np.stack([E[label == t].mean(0) for t in "abcd"])
    assert np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(4, 1)].min() > 4
    assert np.array_equal(E, m.harmony(Z, batch, n_clusters=6))


# ---- neighbours --------------------------------------------------------------------------------------------------------
def test_mutual_pairs_are_mutual():
    A, B = np.array([[0.0], [1.0], [5.0]]), np.array([[0.1], [1.2]])
    pairs = set(zip(*(map(int, x) for x in m.mutual_pairs(A, B, 1))))
    assert pairs == {(0, 0), (1, 1)}


def test_mnn_removes_the_shift(cells):
    Z, batch, label = cells
    E = m.mnn_correct(Z, batch, k=10)
    assert gap(E, batch, label) < 0.4 * gap(m.unit(Z), batch, label)
    assert np.allclose(E[batch == "x"], m.unit(Z)[batch == "x"])  # the largest batch stays


def test_balanced_neighbours_come_from_every_batch(cells):
    Z, batch, _ = cells
    index, distance = m.balanced_neighbours(Z, batch, 4)
    assert index.shape == (200, 8)
    assert (batch[index[:, :4]] == "x").all()
    assert (batch[index[:, 4:]] == "y").all()
    assert np.allclose(np.linalg.norm(Z[index[7]] - Z[7], axis=1), distance[7])
    graph = m.fuzzy_weights(index, distance)
    assert abs(graph - graph.T).max() < 1e-12
    assert graph.diagonal().max() == 0
    assert m.graph_embedding(graph, 5).shape == (200, 5)


# ---- networks ----------------------------------------------------------------------------------------------------------
def test_the_reversal_reverses():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = m.reverse_gradient(x, 3.0)
    assert torch.equal(y, x)
    (y * torch.tensor([1.0, 5.0])).sum().backward()
    assert torch.equal(x.grad, torch.tensor([-3.0, -15.0]))


def test_mmd_equals_kernels_and_is_zero_for_equal_samples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(0, 2, size=(30, 3))
    both = np.vstack([x, y])
    scale = ((both[:, None] - both) ** 2).sum() / (50 * 49)
    k = [[rbf_kernel(a, b, 1 / (w * scale)).mean() for a, b in ((x, x), (y, y), (x, y))] for w in (0.5, 2.0)]
    expected = np.mean([a + b - 2 * c for a, b, c in k])
    assert float(m.mmd(torch.tensor(x), torch.tensor(y), (0.5, 2.0))) == pytest.approx(expected, abs=1e-12)
    assert float(m.mmd(torch.tensor(x), torch.tensor(x))) == pytest.approx(0, abs=1e-12)


def test_domain_norm_has_statistics_of_its_own_and_takes_a_single_cell():
    torch.manual_seed(0)
    norm, code = m.DomainNorm(3, 2), torch.tensor([0] * 20 + [1] * 20)
    x = torch.randn(40, 3) + 5.0 * code[:, None]
    out = norm(x, code)
    assert out[code == 0].mean(0).abs().max() < 1e-5
    assert out[code == 1].mean(0).abs().max() < 1e-5
    alone = norm(x[:21], code[:21])  # one cell of batch 1: by running statistics
    assert torch.isfinite(alone).all()
    assert float(alone[20].detach().abs().sum()) > 0


@pytest.mark.parametrize("align", [None, "adversary", "mmd"])
def test_a_batch_vae_trains_and_encodes(cells, align):
    Z, batch, _ = cells
    torch.manual_seed(0)
    model = m.BatchVAE(8, 2, n_latent=3, n_hidden=16, align=align)
    history = m.train_network(model, Z, (batch == "y").astype(int), epochs=8, batch_size=50, device="cpu")
    assert history.train[-1] < history.train[0]
    assert m.encode(model, Z).shape == (200, 3)
    assert align is None or align in history.parts


def test_scalex_encodes_a_new_batch_without_changing(cells):
    Z, batch, _ = cells
    X = m.scale_to_one(np.maximum(Z, 0), batch)
    assert X.min() >= 0 and X.max() <= 1
    model = m.SCALEX(8, 1, n_latent=3, n_hidden=16)
    old = batch == "x"
    m.train_network(model, X[old], np.zeros(old.sum()), epochs=3, batch_size=50, device="cpu")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = m.encode(model, X[old])
    assert np.isfinite(m.encode(model, X[~old])).all()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert np.array_equal(first, m.encode(model, X[old]))


# ---- scGen -------------------------------------------------------------------------------------------------------------
def test_match_means_moves_shared_types_and_leaves_types_of_one_batch(cells):
    Z, batch, label = cells
    label = np.where((label == "d") & (batch == "y"), "e", label)  # d in x only, e in y only
    E = m.match_means(Z, batch, label)
    for t in "abc":
        x, y = (E[(label == t) & (batch == b)].mean(0) for b in "xy")
        assert np.allclose(x, y)
    assert np.array_equal(E[label == "d"], Z[label == "d"])
    assert np.array_equal(E[label == "e"], Z[label == "e"])


def test_missing_labels_are_filled_within_the_batch(cells):
    Z, batch, label = cells
    some = np.where(np.arange(200) % 3 == 0, label, "")
    assert (m.fill_labels(Z, batch, some) == label).mean() > 0.98
    with pytest.raises(ValueError, match="no cell has a label"):
        m.match_means(Z, batch, np.full(200, ""))


def test_latent_arithmetic_moves_cells_towards_the_condition(cells):
    Z, batch, label = cells
    torch.manual_seed(0)
    model = m.SCGen(8, n_latent=4, n_hidden=32)
    m.train_network(model, Z, epochs=60, batch_size=50, learning_rate=1e-2, device="cpu")
    a = label == "a"
    found = m.predict_shift(model, Z[~a & (batch == "x")], Z[~a & (batch == "y")], Z[a & (batch == "x")])
    there, here = Z[a & (batch == "y")].mean(0), Z[a & (batch == "x")].mean(0)
    assert np.linalg.norm(found.mean(0) - there) < 0.6 * np.linalg.norm(here - there)
    with pytest.raises(ValueError, match="0 cells before"):
        m.predict_shift(model, Z[:0], Z, Z)


# ---- alignment without features ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def two_sides():
    """The same 45 cells seen by two sets of features: three groups in a row at unequal distances."""
    rng = np.random.default_rng(1)
    label = np.repeat(["p", "q", "r"], 15)
    place = np.repeat([0.0, 2.0, 7.0], 15)
    A = np.stack([place, rng.normal(0, 0.3, 45)], 1)
    angle = place / 9
    return A, np.stack([np.cos(angle), np.sin(angle), rng.normal(0, 0.03, 45)], 1), label


def test_gromov_wasserstein_finds_the_groups_and_equals_pot(two_sides):
    A, B, label = two_sides
    C, D = (np.linalg.norm(X[:, None] - X, axis=2) for X in (A, B))
    C, D = C / C.max(), D / D.max()
    T, cost = m.gromov_wasserstein(C, D, 2e-2, rounds=200)
    assert T.sum() == pytest.approx(1)
    assert (m.carried_labels(T, label) == label).mean() > 0.9
    assert cost < m.gromov_wasserstein(C, np.random.default_rng(0).random((45, 45)), 2e-2)[1]
    ot = pytest.importorskip("ot")
    p = np.full(45, 1 / 45)
    theirs = ot.gromov.entropic_gromov_wasserstein(C, D, p, p, "square_loss", epsilon=2e-2, max_iter=200, tol=1e-12)
    assert np.abs(T - theirs).max() < 0.02 * theirs.max()


def test_unioncom_matching_lowers_its_objective_and_keeps_its_margins(two_sides):
    A, B, label = two_sides
    C, D = (np.linalg.norm(X[:, None] - X, axis=2) for X in (A, B))
    C, D = C / C.max(), D / D.max()
    F, uniform = m.unioncom_matching(C, D), np.full((45, 45), 1 / 45)
    assert np.allclose(F.sum(1), 1)
    loss = [np.linalg.norm(C - G @ D @ G.T) for G in (F, uniform)]
    assert loss[0] < 0.7 * loss[1]
    assert (m.carried_labels(F, label) == label).mean() > 0.9


def test_graph_distances_join_pieces_at_the_largest_distance():
    X = np.array([[0.0], [0.1], [0.2], [50.0], [50.1], [50.2]])
    D = m.graph_distances(X, 2)
    assert D.max() == 1
    assert (D[:3, 3:] == 1).all()
    assert np.allclose(np.diag(D), 0)


# ---- bad input ---------------------------------------------------------------------------------------------------------
CORRECTIONS = {
    "harmony": m.harmony,
    "mnn": m.mnn_correct,
    "bbknn": m.balanced_neighbours,
    "scgen": lambda Z, batch: m.match_means(Z, batch, np.repeat(["a", "b"], len(Z) // 2)),
}


@pytest.mark.parametrize("name", CORRECTIONS)
def test_one_batch_only_is_an_error_that_says_so(cells, name):
    with pytest.raises(ValueError, match="all cells are in one group"):
        CORRECTIONS[name](cells[0], np.full(200, "x"))


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_batch_with_one_cell_is_an_error_that_names_it(cells, name):
    batch = np.where(np.arange(200) == 3, "lonely", "x")
    with pytest.raises(ValueError, match="'lonely' has 1 cell"):
        CORRECTIONS[name](cells[0], batch)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_missing_values_and_missing_batches_are_errors(cells, name):
    Z, batch, _ = cells
    broken = Z.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        CORRECTIONS[name](broken, batch)
    with pytest.raises(ValueError, match="no label"):
        CORRECTIONS[name](Z, np.where(np.arange(200) < 5, "", batch))


def test_other_mistakes_are_errors():
    with pytest.raises(ValueError, match="align"):
        m.BatchVAE(5, 2, align="wish")
    with pytest.raises(ValueError, match="1 batch"):
        m.BatchVAE(5, 1, align="mmd")
    with pytest.raises(ValueError, match="cells x cells"):
        m.gromov_wasserstein(np.zeros((3, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="same number of rows"):
        m.train_network(m.BatchVAE(5), np.zeros((9, 5)), np.zeros(8), epochs=1)
