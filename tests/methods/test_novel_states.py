"""Novel states: equal to the references, right where the truth is known, clear about bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats

from scprimer.data.simulate import populations, profiles
from scprimer.methods import novel_states as ns


@pytest.fixture(scope="module")
def world():
    """Reference of three types, and a query that holds a fourth (20 cells)."""
    biology = profiles(300, 4, markers_per_type=15, marker_log2fc=3, mito=False, seed=1)
    how = {"biology": biology, "mito": None, "library_size": (1500, 0.2)}
    old = populations(180, proportions=[1, 1, 1, 0], seed=1, **how)
    query = populations(200, proportions=[0.3, 0.3, 0.3, 0.1], seed=2, **how)
    return old.X, old.obs["cell_type"].to_numpy(str), query.X, query.obs["cell_type"].to_numpy(str)


@pytest.fixture(scope="module")
def fitted(world):
    return ns.Reference(300, 10, seed=0).fit(*world[:3])


# ---- reference and candidates ----------------------------------------------------------------------------------
def test_a_new_type_is_found_and_known_ones_are_not(world, fitted):
    cells, table = ns.candidates(fitted)
    new, truth = cells["new"].to_numpy(), world[3] == "type_4"
    assert 2 * (new & truth).sum() / (new.sum() + truth.sum()) > 0.8
    assert table["accepted"].any()
    assert (cells["type"][~truth] == world[3][~truth]).mean() > 0.9


def test_nothing_is_new_when_the_reference_has_all(world):
    old, y, query, truth = world
    known = truth != "type_4"
    cells, _ = ns.candidates(ns.Reference(300, 10, seed=0).fit(old, y, query[known]))
    assert cells["new"].mean() < 0.05
    assert cells["flag"].mean() < 0.2


def test_the_temperature_is_the_most_likely_one(fitted):
    scores = ns.type_scores(fitted.classifier_, fitted.Z_[fitted.learn_])
    labels = fitted.classifier_.predict(fitted.Z_[fitted.learn_])
    code = np.searchsorted(fitted.classifier_.classes_, labels)
    code[::9] = (code[::9] + 1) % 3  # some are wrong, or the best temperature would be zero
    t = ns.temperature(scores, code)

    def loss(t):
        p = np.exp(scores / t - (scores / t).max(1, keepdims=True))
        return -np.log((p / p.sum(1, keepdims=True))[np.arange(len(code)), code]).mean()

    assert loss(t) <= min(loss(1.2 * t), loss(0.8 * t)) + 1e-9


def test_two_types_make_a_reference(world):
    old, y, query, _ = world
    two = y != "type_3"
    found = ns.Reference(300, 10).fit(old[two], y[two], query).found_
    assert set(found["type"]) == {"type_1", "type_2"}
    assert found["confidence"].between(0.5, 1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda X, y, q: (X, np.repeat("a", len(y)), q), "1 types have 4 cells or more"),
        (lambda X, y, q: (X, y[:-1], q), "179 labels for 180 cells"),
        (lambda X, y, q: (X, np.where(y == "type_1", "", y), q), "none may be missing"),
        (lambda X, y, q: (X, y, q[:, :-1]), "299 genes, reference with 300 genes"),
        (lambda X, y, q: (X, y, q[:4]), "query of 4 cells"),
    ],
)
def test_a_reference_says_what_is_wrong(world, change, words):
    with pytest.raises(ValueError, match=words):
        ns.Reference(300, 10).fit(*change(*world[:3]))


def test_a_share_of_flags_must_be_a_share():
    with pytest.raises(ValueError, match="between 0 and 1"):
        ns.Reference(flagged=0)


def test_no_flagged_cells_give_no_groups_and_no_candidates(fitted):
    assert (ns.groups(fitted.query_, np.zeros(len(fitted.query_), bool)) == -1).all()
    quiet = ns.Reference(300, 10)
    quiet.__dict__.update(fitted.__dict__)
    quiet.found_ = fitted.found_.assign(flag=False)
    cells, table = ns.candidates(quiet)
    assert not cells["new"].any()
    assert table.empty
    assert list(table.columns) == ["group", "cells", "mixing", "p", "accepted"]


def test_groups_are_of_flagged_cells_and_large_enough():
    rng = np.random.default_rng(0)
    Z = np.vstack([rng.normal(0, 0.1, (20, 2)), rng.normal(9, 0.1, (20, 2)), rng.normal(50, 0.1, (3, 2))])
    flag = np.arange(43) != 0
    found = ns.groups(Z, flag, k=2, least=5)
    assert found[0] == -1
    assert set(found[1:20]).isdisjoint(set(found[20:40]) - {-1})
    with pytest.raises(ValueError, match="2 flags for 43 cells"):
        ns.groups(Z, [True, False])


def test_mixing_is_one_for_mixed_cells_and_zero_for_cells_apart():
    rng = np.random.default_rng(0)
    Z = np.vstack([rng.normal(size=(400, 3)), rng.normal(30, 1, (20, 3))])
    old = np.r_[np.arange(400) % 2 == 0, np.zeros(20, bool)]
    apart = np.arange(420) >= 400
    some = ~old & (np.arange(420) < 400)
    ratio, p = ns.mixing(Z, old, apart)
    assert ratio == 0
    assert p < 1e-6
    assert 0.8 < ns.mixing(Z, old, some)[0] < 1.2
    with pytest.raises(ValueError, match="two cells or more"):
        ns.mixing(Z, old, np.arange(420) == 3)


def test_growing_lets_in_neighbours_that_may():
    Z = np.r_[np.linspace(0, 1, 30), np.linspace(100, 101, 30)][:, None]
    inside, may = np.arange(60) % 2 == 0, np.arange(60) < 29
    inside[30:] = False
    grown = ns.grow(Z, inside, may, k=4)
    assert grown[:28].mean() > 0.8
    assert not grown[29:].any()


# ---- markers ---------------------------------------------------------------------------------------------------
def test_markers_are_those_that_were_planted(world, fitted):
    table = ns.markers(world[2], world[3] == "type_4", fitted.found_["type"], fitted.query_)
    biology = profiles(300, 4, markers_per_type=15, marker_log2fc=3, mito=False, seed=1)[1]
    planted = set(np.flatnonzero((biology["marker_of"] == "type_4").to_numpy()))
    assert len(set(table["gene"][:12]) & planted) >= 10
    assert len(table.attrs["neighbours"]) == 2


def test_markers_need_cells_on_both_sides(world, fitted):
    types = fitted.found_["type"]
    with pytest.raises(ValueError, match="0 cells inside"):
        ns.markers(world[2], np.zeros(200, bool), types, fitted.query_)
    with pytest.raises(ValueError, match="0 types outside"):
        ns.markers(world[2], np.ones(200, bool), types, fitted.query_)


# ---- enrichment ------------------------------------------------------------------------------------------------
def test_the_tail_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(50):
        N = int(rng.integers(5, 3000))
        M, n = int(rng.integers(0, N + 1)), int(rng.integers(1, min(N, 200) + 1))
        k = int(rng.integers(0, min(M, n) + 2))
        assert np.isclose(ns.hypergeometric_tail(k, n, M, N), stats.hypergeom.sf(k - 1, N, M, n), rtol=1e-8, atol=1e-13)


def test_enrichment_equals_gseapy():
    gseapy = pytest.importorskip("gseapy")
    rng = np.random.default_rng(0)
    pool = [f"G{i}" for i in range(500)]
    sets = {f"s{i}": list(rng.choice(pool, rng.integers(5, 60), replace=False)) for i in range(40)}
    found = list(rng.choice(pool, 50, replace=False))
    ours = ns.enrich(found, sets, pool).query("overlap > 0").set_index("set")
    theirs = gseapy.enrich(gene_list=found, gene_sets=sets, background=pool, outdir=None, no_plot=True)
    theirs = theirs.results.set_index("Term")
    assert np.allclose(ours["p"], theirs.loc[ours.index, "P-value"].astype(float), rtol=1e-8)


def test_enrichment_says_what_is_wrong_and_what_it_left_out():
    pool, sets = [f"G{i}" for i in range(50)], {"a": ["G1", "G2", "G3", "G4"], "b": ["X1", "X2", "X3"]}
    table = ns.enrich(["G1", "G2"], sets, pool)
    assert table.attrs["left_out"] == 1
    assert list(table["set"]) == ["a"]
    assert table["genes"][0] == ["G1", "G2"]
    with pytest.raises(ValueError, match="none of 1 gene sets has 3 measured genes"):
        ns.enrich(["G1"], {"b": sets["b"]}, pool)
    with pytest.raises(ValueError, match=r"1 genes of the list are not in the background \(Q9\)"):
        ns.enrich(["G1", "Q9"], sets, pool)
    with pytest.raises(ValueError, match="list of genes is empty"):
        ns.enrich([], sets, pool)


# ---- projection ------------------------------------------------------------------------------------------------
def test_projected_cells_land_on_their_type(world):
    old, y, query, truth = world
    votes = ns.project(query, old, y, truth == "type_2", n_genes=300, n_components=10)
    assert votes["type_2"].mean() > 0.9
    assert np.allclose(votes.sum(1), 1)
    with pytest.raises(ValueError, match="299 and 300 genes"):
        ns.project(query[:, :-1], old, y, truth == "type_2")
    with pytest.raises(ValueError, match="0 cells"):
        ns.project(query, old, y, truth == "nothing")


# ---- SCCAF -----------------------------------------------------------------------------------------------------
def test_clusters_of_one_group_are_merged_and_groups_stay():
    rng = np.random.default_rng(0)
    Z = np.vstack([rng.normal(m, 1, (90, 3)) for m in (0, 20, 40)])
    fine = np.r_[rng.integers(0, 2, 90), rng.integers(2, 4, 90), np.full(90, 4)]
    found, path = ns.sccaf(Z, fine)
    assert found.max() == 2
    assert len(pd.unique(pd.Series(list(zip(found, np.repeat([0, 1, 2], 90)))))) == 3
    assert path[0][0] == 5
    assert path[-1][1] >= 0.95


def test_random_clusters_are_merged_into_one():
    rng = np.random.default_rng(0)
    found, path = ns.sccaf(rng.normal(size=(200, 4)), rng.integers(0, 4, 200))
    assert found.max() == 0
    assert path[-1] == (1, 1.0)


def test_a_cell_alone_joins_a_cluster():
    Z = np.r_[np.zeros((10, 1)), np.full((10, 1), 9.0), [[9.1]]] + np.random.default_rng(0).normal(0, 0.01, (21, 1))
    found, _ = ns.sccaf(Z, np.r_[np.repeat([0, 1], 10), 2])
    assert found[-1] == found[15] != found[0]


def test_self_projection_says_what_is_wrong():
    with pytest.raises(ValueError, match="1 clusters, the smallest of 5"):
        ns.self_projection(np.zeros((5, 2)), np.zeros(5, int))
    with pytest.raises(ValueError, match="2 clusters, the smallest of 1"):
        ns.self_projection(np.zeros((5, 2)), [0, 0, 0, 0, 1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        ns.sccaf(np.zeros((5, 2)), np.zeros(5, int), least=2)


# ---- topics and programmes -------------------------------------------------------------------------------------
def test_planted_topics_are_found():
    rng = np.random.default_rng(0)
    topics = np.zeros((2, 40))
    topics[0, :20] = topics[1, 20:] = 1 / 20
    mix = np.r_[np.tile([0.95, 0.05], (60, 1)), np.tile([0.05, 0.95], (60, 1))]
    X = sp.csr_matrix(np.array([rng.multinomial(300, m @ topics) for m in mix]))
    theta, found = ns.fit_topics(X, 2, epochs=40, device="cpu")
    assert np.allclose(theta.sum(1), 1, atol=1e-5)
    assert np.allclose(found.sum(1), 1, atol=1e-5)
    first = found[:, :20].sum(1).argmax()
    assert theta[:60, first].mean() > 0.85
    assert theta[60:, first].mean() < 0.15


@pytest.mark.parametrize(
    ("X", "K"), [(np.ones((5, 4)), 1), (-np.ones((5, 4)), 2), (np.zeros((5, 4)), 2), (np.ones((1, 4)), 2)]
)
def test_topics_say_what_is_wrong(X, K):
    with pytest.raises(ValueError, match="a topic model needs"):
        ns.fit_topics(X, K, epochs=1, device="cpu")


def test_nmf_equals_scikit_learn_and_lowers_the_error():
    from sklearn.decomposition import NMF

    rng = np.random.default_rng(0)
    X, W0, H0 = rng.gamma(1, 1, (30, 20)), rng.uniform(0.1, 1, (30, 4)), rng.uniform(0.1, 1, (4, 20))
    W, H = ns.nmf(X, W0, H0, rounds=15)
    model = NMF(4, solver="mu", init="custom", max_iter=15, tol=0)
    theirs = model.fit_transform(X, W=W0.copy(), H=H0.copy())
    assert np.allclose(W @ H, theirs @ model.components_, atol=1e-8)
    assert np.linalg.norm(X - W @ H) < np.linalg.norm(X - W0 @ H0)
    with pytest.raises(ValueError, match="at least 0"):
        ns.nmf(X - 5, W0, H0)


def test_recovered_matches_each_programme_once():
    weights = np.zeros((3, 9))
    weights[0, :3] = weights[1, 3:6] = 1
    assert ns.recovered(weights, [[3, 4, 5], [0, 1, 2]]) == 1
    assert ns.recovered(weights[:1], [[3, 4, 5], [0, 1, 2]]) == 0.5
    assert ns.recovered(weights, [[0, 1, 8], [3, 7, 8]]) == pytest.approx(0.5)
