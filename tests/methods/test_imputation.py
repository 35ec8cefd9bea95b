"""What the chapter on imputation exports: equality with the reference package, invariants, and clear errors."""

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import nbinom

from scprimer.methods import imputation as im


@pytest.fixture(scope="module")
def counts():
    """120 cells of three kinds x 60 genes, sparse; the last gene has no molecule."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(60, 0.3), 3)[np.arange(120) % 3]
    X = rng.poisson(share * rng.lognormal(5, 0.3, (120, 1)))
    X[:, -1] = 0
    return sp.csr_matrix(X)


@pytest.fixture(scope="module")
def logged(counts):
    return np.log1p(im.depth_scaled(counts))


# ---- input -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [im.depth_scaled, im.magic, im.dca])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda X: X * -1, "negative"),
        (lambda X: X + 0.5 * (X > 0), "whole numbers"),
        (lambda X: np.where(X > 3, np.nan, X), "NaN"),
        (lambda X: X * (np.arange(len(X)) > 1)[:, None], "2 cells"),
    ],
)
def test_values_that_are_no_counts_are_refused(counts, method, spoil, words):
    with pytest.raises(ValueError, match=words):
        method(spoil(counts.toarray().astype(float)))


def test_arrays_sparse_matrices_and_anndata_are_taken_alike(counts):
    forms = (counts, counts.toarray(), counts.tocsc(), ad.AnnData(counts.astype(np.float32)))
    results = [im.magic(form, t=2, knn=4) for form in forms]
    assert all(np.allclose(r, results[0], atol=1e-6) for r in results)


def test_depth_scaling_gives_all_cells_the_median_depth(counts):
    assert np.allclose(im.depth_scaled(counts).sum(1), np.median(counts.toarray().sum(1)))
    assert np.isclose(np.median(im.cell_sizes(counts)), 1)


# ---- the decomposition -------------------------------------------------------------------------------------------------
def test_randomised_svd_equals_the_full_one(logged):
    U, S, Vt = im.randomised_svd(logged, 5, seed=1)
    full = np.linalg.svd(logged, full_matrices=False)
    assert U.shape == (120, 5) and S.shape == (5,) and Vt.shape == (5, 60)
    assert np.allclose(S[:3], full[1][:3], rtol=1e-8)  # three stand out; the others lie close together
    assert np.allclose(S, full[1][:5], rtol=1e-3)
    assert np.allclose(U.T @ U, np.eye(5)) and np.allclose(Vt @ Vt.T, np.eye(5))
    assert im.randomised_svd(logged, 60)[0].shape == (120, 60)


@pytest.mark.parametrize("rank", [0, 61])
def test_an_impossible_rank_is_refused(logged, rank):
    with pytest.raises(ValueError, match="use 1 to 60"):
        im.randomised_svd(logged, rank)


# ---- MAGIC -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("knn", "decay"), [(5, 1), (3, 2.5)])
def test_the_operator_equals_that_of_magic_impute(logged, knn, decay):
    graphtools = pytest.importorskip("graphtools")
    Z = im.components(logged, 10)
    graph = graphtools.Graph(
        Z, knn=knn, knn_max=3 * knn, decay=decay, thresh=1e-4, n_pca=None, use_pygsp=False, verbose=0
    )
    P = im.diffusion_operator(Z, knn, decay)
    assert abs(P - graph.P).max() < 1e-6
    assert np.allclose(np.asarray(P.sum(1)).ravel(), 1) and P.min() >= 0


def test_steps_are_powers_of_the_operator(counts, logged):
    P = im.diffusion_operator(im.components(logged, 10))
    assert np.allclose(im.diffuse(P, logged, 3), np.linalg.matrix_power(P.toarray(), 3) @ logged)
    assert np.allclose(im.magic(counts, t=0), im.depth_scaled(counts))
    assert (im.magic(counts, t=2)[:, -1] == 0).all()
    with pytest.raises(ValueError, match="whole number"):
        im.magic(counts, t=1.5)


def test_more_neighbours_than_cells_are_refused(counts):
    with pytest.raises(ValueError, match="needs more than 120 cells"):
        im.magic(counts, knn=40)


# ---- ALRA --------------------------------------------------------------------------------------------------------------
def test_the_rank_of_planted_factors_is_found():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(300, 7)) @ rng.normal(size=(7, 200)) * 2 + rng.normal(size=(300, 200))
    assert im.choose_rank(A) == 7
    assert im.choose_rank(rng.normal(size=(300, 200))) < 3


def test_alra_equals_the_procedure_written_out_gene_by_gene(logged):
    """An independent transcription of the paper's steps, with the full decomposition."""
    got = im.alra(logged, 3, quantile=0.0)
    U, S, Vt = np.linalg.svd(logged, full_matrices=False)
    low = (U[:, :3] * S[:3]) @ Vt[:3]
    for g in range(60):
        column, seen = low[:, g].copy(), logged[:, g]
        column[column <= abs(column.min())] = 0
        on, observed = column > 0, seen[seen > 0]
        if on.sum() > 1 and len(observed) > 1:
            scaled = (column[on] - column[on].mean()) / column[on].std(ddof=1) * observed.std(ddof=1) + observed.mean()
            column[on] = np.maximum(scaled, 0)
        back = (seen > 0) & (column == 0)
        column[back] = seen[back]
        assert np.allclose(got[:, g], column, atol=1e-4), f"gene {g}"


def test_alra_keeps_what_was_seen_and_empty_genes(logged):
    out = im.alra(logged, 3)
    assert (out[logged > 0] > 0).all() and (out[:, -1] == 0).all()
    assert (out == 0).any() and ((out > 0) & (logged == 0)).any()


def test_alra_refuses_what_is_not_log_normalised(logged):
    with pytest.raises(ValueError, match="not negative"):
        im.alra(logged - logged.mean(0), 3)
    with pytest.raises(ValueError, match="NaN"):
        im.alra(np.where(logged > 1, np.nan, logged), 3)
    with pytest.raises(ValueError, match="quantile"):
        im.alra(logged, 3, quantile=0.7)


# ---- DCA ---------------------------------------------------------------------------------------------------------------
def test_the_likelihood_is_scipys_with_zeros_mixed_in():
    rng = np.random.default_rng(3)
    x = rng.poisson(0.8, (20, 30)).astype(float)
    mu, theta, lost = rng.gamma(1, 1, x.shape), rng.gamma(2, 1, x.shape), rng.normal(size=x.shape)
    pi = 1 / (1 + np.exp(-lost))
    whole = np.log(pi * (x == 0) + (1 - pi) * nbinom.pmf(x, theta, theta / (theta + mu))).sum()
    tensors = [torch.as_tensor(v).requires_grad_(i > 0) for i, v in enumerate((x, mu, theta, lost))]
    total = im.zinb_total(*tensors)
    assert np.isclose(total.item(), whole, rtol=1e-10)
    total.backward()
    assert all(torch.isfinite(v.grad).all() for v in tensors[1:])


def test_dca_learns_the_kinds_of_cells(counts):
    values = im.dca(counts, epochs=40, batch_size=32, learning_rate=5e-3, device="cpu")
    untrained = im.dca(counts, epochs=1, batch_size=120, learning_rate=1e-9, device="cpu")
    assert values.shape == (120, 60) and (values[:, :-1] > 0).all() and (values[:, -1] == 0).all()
    kind = np.arange(120) % 3
    own = np.stack([im.depth_scaled(counts)[kind == k].mean(0) for k in range(3)])[kind]
    fit, before = (np.corrcoef(np.log1p(v).ravel(), np.log1p(own).ravel())[0, 1] for v in (values, untrained))
    assert fit > 0.8 > before


def test_a_ridge_holds_the_probability_of_loss_down(counts):
    def lost(ridge):
        torch.manual_seed(0)
        model = im.DCA(60)
        im.train_dca(model, counts, epochs=20, batch_size=32, ridge=ridge, device="cpu")
        with torch.no_grad():
            return torch.sigmoid(model(torch.as_tensor(im.dca_input(counts)["x"]))[2]).mean().item()

    assert lost(10.0) < 0.7 * lost(0.0)
    with pytest.raises(ValueError, match="ridge"):
        im.train_dca(im.DCA(60), counts, ridge=-1)


# ---- measures ----------------------------------------------------------------------------------------------------------
def test_shares_keep_the_totals_of_cells_and_genes(counts):
    size, total = (np.asarray(counts.sum(a)).ravel().astype(float) for a in (1, 0))
    p = im.as_shares(np.random.default_rng(0).gamma(1, 1, counts.shape), size, total, rounds=20)
    assert np.allclose(p.sum(1), 1) and np.allclose(size @ p, total, atol=1e-3 * total.max())


def test_the_truth_gains_most_and_the_mean_nothing():
    rng = np.random.default_rng(4)
    truth = rng.dirichlet(np.full(20, 0.5), 200)
    mean = truth.mean(0)
    other = sp.csr_matrix(np.stack([rng.multinomial(300, p) for p in truth]))
    everywhere = np.broadcast_to(mean, truth.shape)
    assert (
        np.isclose(im.expected_gain(everywhere, truth, mean), 0)
        and abs(im.molecule_gain(everywhere, other, mean)) < 1e-9
    )
    assert np.isclose(im.molecule_gain(truth, other, mean), im.expected_gain(truth, truth, mean), rtol=0.05)
    assert im.expected_gain(truth, truth, mean) > im.expected_gain(0.5 * (truth + mean), truth, mean) > 0


def test_correlations_of_pairs():
    x = np.random.default_rng(5).gamma(2, 1, (500, 3))
    x[:, 2] = 7.0
    r = im.gene_correlations(x)
    assert r.shape == (3,) and r[1] == r[2] == 0, "a gene that does not vary correlates with nothing"
    assert np.isclose(r[0], np.corrcoef(np.log1p(x[:, :2]).T)[0, 1])
    assert im.strong_pairs(np.stack([x[:, 0], x[:, 0], x[:, 1]], 1), 0.5) == pytest.approx(1 / 3)
    y = np.random.default_rng(6).gamma(2, 1, (500, 12))
    assert im.correlation_recovery(y, y) == pytest.approx(1)


def test_coverage_of_right_and_wrong_intervals():
    rng = np.random.default_rng(7)
    rate = rng.gamma(1, 1, (100, 50))
    observed = rng.poisson(rate)
    levels = [0.5, 0.9]
    assert np.allclose(im.coverage(rng.poisson(rate, (100, 100, 50)), observed, levels), levels, atol=0.03)
    assert im.coverage(rng.poisson(rate * 3, (100, 100, 50)), observed, levels)[1] < 0.8
    with pytest.raises(ValueError, match="do not fit"):
        im.coverage(np.zeros((10, 3)), np.zeros(4), levels)
