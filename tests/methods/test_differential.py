"""Tests between groups: equal to the references, right where the truth is known, clear about bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import special, stats

from scprimer.methods import differential as de


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.7, 2.0, 120)
    return sp.csr_matrix(rng.poisson(mean * rng.gamma(2, 0.5, (90, 120))))


@pytest.fixture
def group():
    return np.random.default_rng(1).permutation(["a"] * 40 + ["b"] * 50)


# ---- input -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 6, r"1 groups \(a\): a comparison needs two"),
        (["a", "b", "c"] * 2, "3 groups"),
        (["a"] * 5 + ["b"], "group 'b' has one member"),
        (["a", "b", None] * 2, "labels are missing"),
        (["a", "b", ""] * 2, "labels are missing"),
        (["a", "b"], "2 labels for 6 rows"),
    ],
)
def test_two_groups_says_what_is_wrong(labels, words):
    with pytest.raises(ValueError, match=words):
        de.two_groups(labels, 6)


def test_two_groups_takes_the_second_name_in_order():
    inside, names = de.two_groups(["stim", "ctrl", "stim", "ctrl"], 4)
    assert list(names) == ["ctrl", "stim"]
    assert inside.tolist() == [True, False, True, False]
    assert de.two_groups(np.array([True, False, True, False]), 4)[0].tolist() == [True, False, True, False]


@pytest.mark.parametrize("bad", [[[0.5, 1]], [[-1, 2]], [[np.nan, 1]]])
def test_counts_must_be_counts(bad):
    for use in (de.whole_counts, de.expression, de.dispersions, de.count_split):
        with pytest.raises(ValueError, match="raw counts"):
            use(np.array(bad))


def test_expression_of_an_empty_cell_is_zero():
    values = de.expression(np.array([[1, 3], [0, 0]]))
    assert np.allclose(values, [[np.log2(2501), np.log2(7501)], [0, 0]])


def test_values_must_be_a_finite_table(group):
    with pytest.raises(ValueError, match="cells x genes"):
        de.wilcoxon(np.ones(90), group)
    with pytest.raises(ValueError, match="without missing values"):
        de.mast(np.full((90, 2), np.nan), group)


# ---- Wilcoxon --------------------------------------------------------------------------------------------------
def test_ranks_equal_scipy_with_ties(counts):
    dense = counts.toarray()
    assert np.array_equal(de.ranks(dense), stats.rankdata(dense, axis=0))


def test_wilcoxon_equals_scipy(counts, group):
    ours, dense = de.wilcoxon(counts, group), counts.toarray()
    theirs = stats.mannwhitneyu(dense[group == "b"], dense[group == "a"], method="asymptotic", use_continuity=False)
    assert np.allclose(ours["p"], theirs.pvalue, equal_nan=True)
    assert np.allclose(ours["auc"], theirs.statistic / (40 * 50))


def test_wilcoxon_is_higher_in_the_second_group_and_nan_without_spread():
    found = de.wilcoxon(np.array([[0, 0, 5], [1, 0, 4], [2, 0, 1], [3, 0, 0]]), ["a", "a", "b", "b"])
    assert found["z"][0] > 0 > found["z"][2]
    assert found["auc"].tolist() == [1, 0.5, 0]
    assert np.isnan(found["p"][1])


# ---- MAST ------------------------------------------------------------------------------------------------------
def loss(a, X, on):
    return -np.sum(on * (X @ a) - np.logaddexp(0, X @ a))


def slope(a, X, on):
    return -X.T @ (on - special.expit(X @ a))


def test_both_parts_equal_independent_fits(counts, group):
    from scipy.optimize import minimize

    values = de.expression(counts)
    found = de.mast(values, group, shrink=False)
    reduced, full = de.mast_design((values > 0).astype(float), group == "b")
    seen = (values > 0).mean(0)
    for j in np.flatnonzero((seen > 0.2) & (seen < 0.8))[:12]:
        on = values[:, j] > 0
        logit, rss = [], []
        for X in (reduced, full):
            logit.append(-minimize(loss, np.zeros(X.shape[1]), args=(X, on), jac=slope, method="BFGS").fun)
            rss.append(np.linalg.lstsq(X[on], values[on, j], rcond=None)[1][0])
        assert np.isclose(found["lr_on"][j], 2 * (logit[1] - logit[0]), atol=1e-5)
        assert np.isclose(found["lr_level"][j], on.sum() * np.log(rss[0] / rss[1]), atol=1e-8)
        assert np.isclose(found["p"][j], stats.chi2.sf(found["lr_on"][j] + found["lr_level"][j], 2))


def test_shrinking_follows_its_formula(counts, group):
    values = de.expression(counts)
    found, n = de.mast(values, group), (values > 0).sum(0)
    reduced, full = de.mast_design((values > 0).astype(float), group == "b")
    (_, rss0, _), (_, rss1, rank) = de.levels(reduced, values), de.levels(full, values)
    ok = n > rank
    d, s2 = de.variance_prior(rss1[ok], (n - rank)[ok])
    j = int(np.argmin(np.where(ok & (found["lr_level"] > 0), n, 10**6)))
    assert np.isclose(found["lr_level"][j], n[j] * np.log((rss0[j] + d * s2) / (rss1[j] + d * s2)))


def test_the_variance_prior_is_found_again():
    rng, df = np.random.default_rng(0), 8
    variance = 6 * 2.0 / rng.chisquare(6, 20_000)  # worth six observations of variance 2
    d, s2 = de.variance_prior(variance * rng.chisquare(df, 20_000), np.full(20_000, float(df)))
    assert np.isclose(d, 6, rtol=0.1)
    assert np.isclose(s2, 2, rtol=0.05)


def test_genes_that_cannot_be_fitted_are_nan(group):
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 1, (90, 6)) * (rng.random((90, 6)) < 0.5)
    values[:, 0] = 0
    values[:, 1] = rng.gamma(2, 1, 90)  # in every cell
    values[:, 2] = 0
    values[0, 2] = 1.0  # in one cell
    found = de.mast(values, group)
    assert found.loc[0, ["p", "p_on", "p_level", "level"]].isna().all()
    assert np.isnan(found["p_on"][1])
    assert found["p"][1] == found["p_level"][1]
    assert np.isnan(found["p_level"][2])
    assert found["p"][2] == found["p_on"][2]


def test_a_gene_on_in_one_group_only_is_found(group):
    values = np.random.default_rng(0).gamma(2, 1, (90, 8)) * (np.random.default_rng(1).random((90, 8)) < 0.6)
    values[group == "a", 0] = 0
    found = de.mast(values, group)
    assert found["p"][0] < 1e-6
    assert found["p"][0] == found["p"].min()


def test_donors_within_groups_cannot_be_covariates(counts, group):
    donor = (group == "b").astype(float)  # one donor a group
    with pytest.raises(ValueError, match="sum over donors"):
        de.mast(de.expression(counts), group, donor)


# ---- pseudobulk ------------------------------------------------------------------------------------------------
def people(n_cells=12, per_group=3):
    donor = np.repeat([f"d{i}" for i in range(2 * per_group)], n_cells)
    return donor, np.where(np.isin(donor, [f"d{i}" for i in range(per_group)]), "a", "b")


def test_pseudobulk_sums_and_drops_small_samples():
    donor, group = people()
    X = np.random.default_rng(0).poisson(2.0, (len(donor), 5))
    table, samples = de.pseudobulk(X, donor, group, genes=list("vwxyz"))
    assert list(table.columns) == list("vwxyz")
    assert (samples["cells"] == 12).all()
    for unit, row in samples.iterrows():
        assert table.loc[unit].tolist() == X[(donor == row["donor"]) & (group == row["group"])].sum(0).tolist()
    rows = np.r_[0:5, 12 : len(donor)]  # five cells of the first donor
    table, samples = de.pseudobulk(X[rows], donor[rows], group[rows])
    assert "d0" not in set(samples["donor"])
    assert len(table) == 5


def test_pseudobulk_refuses_what_cannot_be_tested():
    donor, group = people(per_group=1)
    X = np.ones((len(donor), 3), dtype=int)
    with pytest.raises(ValueError, match=r"'a' has 1 donors .* no number of cells replaces them"):
        de.pseudobulk(X, donor, group)
    donor, group = people()
    X = np.ones((len(donor), 3), dtype=int)
    with pytest.raises(ValueError, match="0 donors with 50 cells"):
        de.pseudobulk(X, donor, group, min_cells=50)
    with pytest.raises(ValueError, match="name the donor of each cell"):
        de.pseudobulk(X, np.where(donor == "d0", None, donor), group)
    with pytest.raises(ValueError, match="raw counts"):
        de.pseudobulk(X / 2, donor, group)


def test_designs():
    samples = pd.DataFrame({"donor": ["x", "y", "z"] * 2, "group": ["a"] * 3 + ["b"] * 3})
    assert de.design_matrix(samples).to_numpy().tolist() == [[1, 0]] * 3 + [[1, 1]] * 3
    paired = de.design_matrix(samples, paired=True)
    assert paired.shape == (6, 4)
    assert paired.columns[-1] == "b"
    with pytest.raises(ValueError, match="paired=False"):
        de.design_matrix(samples.assign(donor=list("uvwxyz")), paired=True)
    nested = pd.DataFrame({"donor": ["x", "x", "y", "y"], "group": ["a", "a", "b", "b"]})
    with pytest.raises(ValueError, match="no donor is in both groups"):
        de.design_matrix(nested, paired=True)


def test_size_factors():
    table = np.array([[10, 100, 7], [20, 200, 0], [40, 400, 3]])
    assert np.allclose(de.size_factors(table), [0.5, 1, 2])
    with pytest.raises(ValueError, match="counts in every sample"):
        de.size_factors(np.eye(3))


@pytest.mark.parametrize("paired", [False, True])
def test_regression_and_wald_equal_pydeseq2(paired):
    rng = np.random.default_rng(3)
    mean = rng.gamma(1, 80, 60) + 1
    counts = rng.poisson(mean * rng.gamma(6, 1 / 6, (8, 60)) * rng.uniform(0.5, 2, (8, 1)))
    names = [f"s{i}" for i in range(8)]
    table = pd.DataFrame(counts, index=names, columns=[f"g{j}" for j in range(60)])
    table["silent"] = 0
    samples = pd.DataFrame({"donor": list("wxyz") * 2, "group": ["a"] * 4 + ["b"] * 4}, index=names)
    found = de.deseq(table, samples, paired=paired)
    assert found.loc["silent"].isna().all()
    seen, X = found.drop("silent"), de.design_matrix(samples, paired)
    size, spread = de.size_factors(table), seen["dispersion"].to_numpy()
    beta = de.nb_glm(table.drop(columns="silent"), X, size, spread)
    z, p = de.wald(beta, X, size, spread)
    assert np.allclose(beta[:, -1] / np.log(2), seen["log2fc"], atol=5e-4)
    assert np.allclose(z, seen["z"], atol=1e-3)
    assert np.allclose(p, seen["p"], atol=1e-3)


# ---- truth -----------------------------------------------------------------------------------------------------
def test_planted_changes_have_their_size():
    X, inside = np.full((4000, 3), 40), np.arange(4000) % 2 == 0
    planted = de.plant(X, inside, [1.0, -0.5, 0.0], seed=1).toarray()
    ratio = np.log2(planted[inside].mean(0) / planted[~inside].mean(0))
    assert np.allclose(ratio, [1.0, -0.5, 0.0], atol=0.02)
    assert (planted <= 40).all()
    assert (planted[:, 2] == 40).all()


def test_adjusted_leaves_missing_values_out():
    p = np.array([0.01, np.nan, 0.04, 0.03])
    assert np.allclose(de.adjusted(p), [0.03, np.nan, 0.04, 0.04], equal_nan=True)
    assert np.allclose(de.adjusted(p[[0, 2, 3]]), stats.false_discovery_control(p[[0, 2, 3]]))


def test_power_at_fdr():
    truth = np.array([1, 1, 0, 1, 0, 0], bool)
    p = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert de.power_at_fdr(p, truth) == pytest.approx(2 / 3)
    assert de.power_at_fdr(p, truth, 0.25) == 1
    assert de.power_at_fdr(np.where(truth, np.nan, p), truth) == 0
    assert de.power_at_fdr(np.full(6, 0.5), truth) == 0  # a test that cannot tell genes apart has no power
    with pytest.raises(ValueError, match="no gene is true"):
        de.power_at_fdr(p, np.zeros(6, bool))


# ---- count splitting -------------------------------------------------------------------------------------------
def correlation(a, b):
    return np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a.toarray().T, b.toarray().T)])


@pytest.mark.parametrize("keep", [0.3, 0.5])
def test_parts_add_up_and_are_independent_under_the_right_model(keep):
    rng = np.random.default_rng(0)
    poisson = rng.poisson(10.0, (3000, 6))
    loose = rng.poisson(10.0 * rng.gamma(2, 0.5, (3000, 6)))  # dispersion 0.5
    for X, phi in ((poisson, None), (poisson, 0.0), (loose, 0.5), (loose, np.full(6, 0.5))):
        first, second = de.count_split(X, keep, dispersion=phi, seed=1)
        assert ((first + second) != sp.csr_matrix(X)).nnz == 0
        assert np.isclose(first.sum() / X.sum(), keep, atol=0.01)
        assert abs(correlation(first, second)) < 0.03
    assert correlation(*de.count_split(loose, keep, seed=1)) > 0.4
    assert correlation(*de.count_split(poisson, keep, dispersion=0.5, seed=1)) < -0.3


def test_both_parts_keep_the_family():
    X = np.random.default_rng(0).poisson(20.0 * np.random.default_rng(1).gamma(2, 0.5, (40_000, 1)))
    for part, keep in zip(de.count_split(X, 0.25, dispersion=0.5, seed=2), (0.25, 0.75)):
        mean, variance = part.toarray().mean(), part.toarray().var()
        assert np.isclose((variance - mean) / mean**2, 0.5 / keep, rtol=0.06)


def test_dispersions_are_found_again():
    rng = np.random.default_rng(0)
    depth, phi = rng.uniform(0.5, 2, (6000, 1)), np.array([0.2, 0.5, 1.0, 0.0] * 20)
    rate = np.where(phi > 0, rng.gamma(1 / np.maximum(phi, 1e-9), np.maximum(phi, 1e-9), (6000, 80)), 1.0)
    found = de.dispersions(rng.poisson(8.0 * depth * rate))
    for value in (0.2, 0.5, 1.0, 0.0):
        assert np.isclose(found[phi == value].mean(), value, atol=0.05)


def test_splitting_refuses_bad_settings():
    X = np.ones((3, 2), dtype=int)
    for keep in (0, 1, 1.5):
        with pytest.raises(ValueError, match="lies between 0 and 1"):
            de.count_split(X, keep)
    for phi in (-0.1, [0.1, np.nan]):
        with pytest.raises(ValueError, match="dispersions must not be negative or missing"):
            de.count_split(X, dispersion=phi)
