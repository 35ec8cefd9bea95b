"""Cells drawn by the simulator have the statistics that were asked for; tolerances are four standard errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad

from scprimer.data.simulate import populations, profiles
from scprimer.data.simulate.counts import allocate, dispersion_trend, gamma_poisson

PLAIN = {"n_types": 1, "markers_per_type": 0, "mito": None, "dispersion_spread": 0.0}


def totals(adata) -> np.ndarray:
    return np.asarray(adata.X.sum(axis=1)).ravel()


def pseudobulk(adata, column: str) -> pd.DataFrame:
    """Share of each gene in the molecules of each group: groups x genes."""
    groups = adata.obs[column].cat.categories
    sums = np.vstack([np.asarray(adata.X[(adata.obs[column] == g).to_numpy()].sum(axis=0)).ravel() for g in groups])
    return pd.DataFrame(sums / sums.sum(axis=1, keepdims=True), index=list(groups), columns=adata.var_names)


# ---- library sizes, dispersion, sparsity -----------------------------------------------------------------------
@pytest.mark.parametrize(("median", "log_sd"), [(500, 0.2), (3000, 0.6)])
def test_library_sizes_have_the_median_and_spread_asked_for(median, log_sd):
    n = 3000
    logs = np.log(totals(populations(n, 200, **PLAIN, library_size=(median, log_sd), dispersion=0.0, seed=1)))
    counting = 1 / median  # variance of the log of a Poisson total
    assert np.median(logs) == pytest.approx(np.log(median), abs=4 * 1.2533 * log_sd / np.sqrt(n))
    assert logs.std() == pytest.approx(np.sqrt(log_sd**2 + counting), abs=4 * log_sd / np.sqrt(2 * n))


@pytest.mark.parametrize("phi", [0.0, 0.2, 0.8])
def test_dispersion_is_found_again_in_the_counts(phi):
    adata = populations(1500, 150, **PLAIN, library_size=(6000, 0.0), dispersion=phi, seed=2)
    counts = adata.X.toarray()
    mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
    found = ((variance - mean) / mean**2)[mean > 3]
    assert len(found) > 40
    # The draw keeps each cell's expectation, not its total: genes are independent and their scatter gives the error.
    assert found.mean() == pytest.approx(phi, abs=4 * max(found.std() / np.sqrt(len(found)), 1e-3))


def test_dispersion_follows_its_trend():
    trend = (0.1, 0.6, 2.0)
    adata = populations(4000, 300, **PLAIN, library_size=(4000, 0.0), dispersion=trend, seed=3)
    counts = adata.X.toarray()
    mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
    ratio = ((variance - mean) / mean**2) / dispersion_trend(mean, *trend)
    for low, high in ((0.5, 2), (2, 8), (8, np.inf)):
        found = ratio[(mean >= low) & (mean < high)]
        assert found.mean() == pytest.approx(1, abs=4 * found.std() / np.sqrt(len(found)))
    assert np.all(adata.uns["truth"]["genes"]["dispersion"] > 0.1)


def test_gamma_poisson_without_dispersion_is_poisson_and_per_gene_dispersion_is_used():
    rng = np.random.default_rng(0)
    counts = gamma_poisson(rng, np.full((20_000, 3), 5.0), np.array([0.0, 0.5, 2.0]))
    assert counts.mean(axis=0) == pytest.approx([5, 5, 5], rel=0.06)
    assert counts.var(axis=0) == pytest.approx([5, 5 + 0.5 * 25, 5 + 2 * 25], rel=0.1)


def test_the_default_is_as_sparse_as_10x_data_with_as_many_genes():
    adata = populations(400, 13_000, 6, seed=4)
    zeros = 1 - adata.X.nnz / np.prod(adata.shape)
    assert 0.93 <= zeros <= 0.97
    assert np.median(totals(adata)) == pytest.approx(2000, rel=4 * 1.2533 * 0.4 / np.sqrt(400))
    mean = np.asarray(adata.X.mean(axis=0)).ravel()
    top = np.sort(mean)[::-1][: len(mean) // 100].sum() / mean.sum()
    assert 0.35 < top < 0.65  # one gene in a hundred holds about half of the molecules


def test_dropout_removes_the_stated_share_of_entries_and_keeps_the_complete_counts():
    half = 0.5
    adata = populations(800, 200, **PLAIN, library_size=(3000, 0.0), dispersion=0.0, dropout=half, seed=5)
    complete, counts = adata.layers["complete"].toarray(), adata.X.toarray()
    assert np.all((counts == complete) | (counts == 0))
    expected = 3000 * adata.uns["truth"]["profiles"].to_numpy().ravel()
    there = (complete > 0).sum(axis=0)
    lost = ((complete > 0) & (counts == 0)).sum(axis=0)
    p = half / (half + expected)
    z = (lost - there * p) / np.sqrt(np.maximum(there * p * (1 - p), 1e-9))
    z = z[there * p * (1 - p) > 5]
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert z.std() == pytest.approx(1, abs=4 / np.sqrt(2 * len(z)))
    assert "complete" not in populations(50, 100, n_types=2, markers_per_type=2).layers


def test_mitochondrial_share_has_the_median_asked_for():
    adata = populations(2000, 300, 2, markers_per_type=5, mito=(0.08, 0.3), library_size=(5000, 0.1), seed=6)
    mito = adata[:, adata.var_names.str.startswith("MT-")]
    assert mito.n_vars == 13
    share = totals(mito) / totals(adata)
    assert np.median(share) == pytest.approx(0.08, rel=4 * 1.2533 * 0.35 / np.sqrt(2000))
    assert not populations(50, 100, 2, markers_per_type=3, mito=None).var_names.str.startswith("MT-").any()


# ---- types, batches, donors ------------------------------------------------------------------------------------
def test_types_come_in_the_proportions_asked_for():
    shares = {"a": 0.6, "b": 0.3, "c": 0.1}
    adata = populations(1000, 200, type_names=list(shares), proportions=shares, markers_per_type=5, seed=1)
    assert adata.obs["cell_type"].value_counts().to_dict() == {"a": 600, "b": 300, "c": 100}
    assert adata.obs["cell_type"].iloc[:100].eq("a").sum() < 100  # in random order
    assert sorted(allocate(10, [0.5, 0.49, 0.01], least=1)) == [1, 4, 5]
    assert allocate(10, [0.5, 0.49, 0.01]).tolist() == [5, 5, 0]


@pytest.mark.parametrize("log2fc", [0.0, 1.0, 3.0])
def test_markers_are_as_strong_as_planted(log2fc):
    adata = populations(1500, 600, 4, markers_per_type=20, marker_log2fc=log2fc, library_size=(6000, 0.3), seed=7)
    genes, bulk = adata.uns["truth"]["genes"], pseudobulk(adata, "cell_type")
    for name in bulk.index:
        markers = genes.index[genes["marker_of"] == name]
        assert len(markers) == 20
        found = np.log2(bulk.loc[name, markers] / bulk.drop(index=name)[markers].mean())
        error = found - genes.loc[markers, "log2fc"]
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(20) + 0.02  # 0.02: the curvature of the logarithm
        # the truth itself is what was asked for, but for the markers' own share of the molecules
        assert genes.loc[markers, "log2fc"].mean() == pytest.approx(log2fc, abs=0.35)
    plain = genes.index[(genes["marker_of"] == "") & ~genes["mito"]]
    assert genes.loc[plain, "log2fc"].eq(0).all()


def test_a_hierarchy_gives_families_their_own_markers():
    tree = {"T": ["CD4", "CD8"], "Myeloid": ["Mono", "DC"]}
    table, genes = profiles(800, hierarchy=tree, markers_per_type=15, marker_log2fc=2, seed=3)
    assert set(genes["marker_of"]) == {"", "T", "Myeloid", "CD4", "CD8", "Mono", "DC"}
    shared = genes.index[genes["marker_of"] == "T"]
    ratio = np.log2(table.loc[shared, ["CD4", "CD8"]].min(axis=1) / table.loc[shared, ["Mono", "DC"]].max(axis=1))
    assert ratio.min() > 1.5
    adata = populations(100, 800, hierarchy=tree, markers_per_type=15, seed=3)
    assert set(adata.obs["family"]) == {"T", "Myeloid"}
    assert (adata.obs["family"] == "T").equals(adata.obs["cell_type"].isin(["CD4", "CD8"]))


def test_noise_of_types_and_families_has_the_size_asked_for():
    tree = {"x": ["a", "b"], "y": ["c", "d"]}
    kwargs = {"hierarchy": tree, "markers_per_type": 0, "mito": False, "seed": 1}
    table, _ = profiles(3000, type_noise=0.3, family_noise=0.8, **kwargs)
    log = np.log2(table)
    error = 4 / np.sqrt(2 * 3000)
    assert (log["a"] - log["b"]).std() == pytest.approx(0.3 * np.sqrt(2), rel=error)
    assert (log["a"] - log["c"]).std() == pytest.approx(np.sqrt(2 * (0.3**2 + 0.8**2)), rel=error)
    assert np.allclose(*profiles(500, **kwargs)[0][["a", "c"]].T.to_numpy())


@pytest.mark.parametrize(("what", "strength"), [("batch", 0.0), ("batch", 0.6), ("donor", 0.6)])
def test_batches_and_donors_shift_genes_by_the_strength_asked_for(what, strength):
    kwargs = {f"n_{what}es" if what == "batch" else "n_donors": 2, f"{what}_strength": strength}
    adata = populations(1600, 400, **PLAIN, library_size=(8000, 0.2), dispersion=0.05, seed=8, **kwargs)
    bulk = pseudobulk(adata, what)
    mean = adata.X.mean(axis=0)
    seen = np.asarray(mean).ravel() > 1
    first, second = bulk.to_numpy()[:, seen]
    found = np.log2(first / second)
    counting = np.sqrt(2 * (1 / 800 * (1 + 0.05))) / np.log(2)  # at a mean of 1; less for all others
    k = seen.sum()
    assert k > 100
    assert found.std() == pytest.approx(strength * np.sqrt(2), abs=4 * strength / np.sqrt(k) + counting)
    truth = adata.uns["truth"][f"{what}_log2fc"].to_numpy()[seen]
    if strength:
        assert np.corrcoef(found, truth[:, 0] - truth[:, 1])[0, 1] > 0.98
    else:
        assert not truth.any()


def test_batches_and_donors_are_crossed_and_do_not_follow_the_types():
    adata = populations(1200, 100, 3, markers_per_type=3, n_batches=2, n_donors=4, seed=2)
    assert adata.obs["batch"].value_counts().tolist() == [600, 600]
    assert adata.obs["donor"].value_counts().tolist() == [300] * 4
    table = pd.crosstab(adata.obs["batch"], adata.obs["cell_type"])
    assert (table - 200).abs().to_numpy().max() < 4 * np.sqrt(1200 * (1 / 6) * (5 / 6))


def test_types_may_differ_in_size():
    adata = populations(1000, 200, type_names=["small", "large"], type_size={"large": 4}, markers_per_type=3, seed=1)
    median = pd.Series(totals(adata)).groupby(adata.obs["cell_type"].to_numpy(), observed=True).median()
    assert median["large"] / median["small"] == pytest.approx(4, rel=4 * 1.2533 * 0.4 * np.sqrt(2 / 500))


def test_programmes_make_their_genes_correlate_within_a_type():
    adata = populations(1500, 900, **PLAIN, programs=(2, 15, 1.0), library_size=(20_000, 0.1), dispersion=0.05, seed=9)
    loadings = adata.uns["truth"]["programs"]
    assert (loadings != 0).sum().tolist() == [15, 15]
    log = np.log1p(adata.X.toarray() / totals(adata)[:, None] * 20_000)
    correlation = pd.DataFrame(np.corrcoef(log, rowvar=False), index=adata.var_names, columns=adata.var_names)
    first, second = (loadings.index[loadings[c] > 0] for c in loadings)
    strong = [g for g in first if adata[:, g].X.mean() > 3]
    within = correlation.loc[strong, strong].to_numpy()[np.triu_indices(len(strong), 1)]
    across = correlation.loc[strong, second].to_numpy()
    assert within.mean() > 0.4
    assert abs(across.mean()) < 0.1  # a little below 0: what one programme takes, all other genes lack
    scores = log[:, adata.var_names.get_indexer(strong)].mean(axis=1)
    assert np.corrcoef(scores, adata.obs["program_1"])[0, 1] > 0.8
    table = loadings[["program_1"]].rename(columns={"program_1": "cycle"})
    assert "cycle" in populations(50, 900, **PLAIN, programs=table, seed=9).obs


# ---- seeds, shared biology, files, mistakes --------------------------------------------------------------------
def test_a_seed_gives_the_same_cells_and_another_seed_others():
    kwargs = {
        "n_cells": 120,
        "n_genes": 150,
        "n_types": 3,
        "markers_per_type": 5,
        "n_batches": 2,
        "batch_strength": 0.5,
    }
    one, same, other = populations(**kwargs, seed=5), populations(**kwargs, seed=5), populations(**kwargs, seed=6)
    assert (one.X != same.X).nnz == 0
    assert one.obs.equals(same.obs)
    assert (one.X != other.X).nnz > 0
    assert not np.allclose(one.uns["truth"]["profiles"], other.uns["truth"]["profiles"])


def test_two_experiments_can_share_one_biology():
    biology = profiles(300, 3, markers_per_type=10, seed=1)
    one, two = (populations(200, biology=biology, seed=s) for s in (1, 2))
    assert np.allclose(one.uns["truth"]["profiles"], two.uns["truth"]["profiles"])
    assert (one.X != two.X).nnz > 0
    assert populations(50, biology=biology[0], seed=1).n_vars == 300


def test_what_is_returned_survives_a_file(tmp_path):
    adata = populations(
        60, 120, hierarchy={"f": ["a", "b"], "g": ["c"]}, markers_per_type=4, n_batches=2, batch_strength=0.5, n_donors=2,
        donor_strength=0.3, dropout=0.2, programs=(1, 5, 0.5), seed=1,
    )  # fmt: skip
    adata.write_h5ad(tmp_path / "cells.h5ad")
    back = read_h5ad(tmp_path / "cells.h5ad")
    assert (back.X != adata.X).nnz == 0
    assert (back.layers["complete"] != adata.layers["complete"]).nnz == 0
    assert set(back.uns["truth"]) == set(adata.uns["truth"])
    for key, value in adata.uns["truth"].items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(back.uns["truth"][key], value, check_names=False, check_dtype=False)
        else:
            assert back.uns["truth"][key] == value
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert adata.uns["scprimer"]["simulated"]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"n_cells": 0}, "n_cells=0: use a whole number of at least 1"),
        ({"n_genes": 5}, "n_genes=5"),
        ({"n_cells": 2.5}, "n_cells=2.5"),
        ({"n_types": 0}, "n_types=0"),
        ({"markers_per_type": -1}, "markers_per_type=-1"),
        ({"markers_per_type": 500}, "do not fit into"),
        ({"proportions": [0.5, 0.5]}, "one non-negative number for each of 3 types"),
        ({"proportions": [1, 1, -1]}, "non-negative"),
        ({"proportions": {"a": 1}}, "the types are"),
        ({"type_names": ["a", "a"]}, "given twice"),
        ({"hierarchy": {"f": ["z"]}, "type_names": ["a"]}, "hierarchy names types"),
        ({"library_size": 2000}, r"use a pair, \(median, sd"),
        ({"library_size": (0, 0.3)}, "must be above 0"),
        ({"dispersion": -0.1}, "dispersion=-0.1"),
        ({"dispersion": (0.1, 0.2)}, "high, low, half"),
        ({"batch_strength": -1}, "batch_strength"),
        ({"dropout": -0.1}, "dropout"),
        ({"gene_names": ["a", "b"]}, "different names are needed"),
        ({"type_size": {"nobody": 2}}, "unknown types: nobody"),
        ({"programs": (1, 10_000, 0.5)}, "do not fit"),
        ({"programs": 3}, "programs=3"),
        ({"mito": (0.0, 0.1)}, "must be above 0"),
    ],
)
def test_impossible_arguments_are_explained(kwargs, words):
    with pytest.raises(ValueError, match=words):
        populations(**{"n_cells": 30, "n_genes": 200, "n_types": 3, "markers_per_type": 5, **kwargs})
