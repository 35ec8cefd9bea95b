"""Stand-ins have the shape of the real data sets and carry their truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

from scprimer import data
from scprimer.data.simulate import STANDINS, standin

PARTS = [(name, part) for name in STANDINS for part in (data.describe(name).parts or (None,))]
IDS = [f"{name}:{part}" if part else name for name, part in PARTS]
KEPT: dict = {}


def cached(name: str, part: str | None = None):
    """Each stand-in once, as they are only read."""
    if (name, part) not in KEPT:
        KEPT[name, part] = standin(name, part=part)
    return KEPT[name, part]


def totals(x) -> np.ndarray:
    return np.asarray(getattr(x, "X", x).sum(axis=1), dtype=float).ravel()


def table_schema(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [(column, str(table[column].dtype)) for column in table]


def schema(found) -> dict:
    """What a chapter's code may rely on: columns in their order with dtypes, slots, keys."""
    if isinstance(found, pd.DataFrame):
        return {"table": table_schema(found), "attrs": sorted(found.attrs["scprimer"]), "index": found.index.dtype}
    slots = {
        key: (value.shape[1], table_schema(value)) if isinstance(value, pd.DataFrame) else (value.shape[1], value.dtype)
        for key, value in found.obsm.items()
    }
    return {
        "obs": table_schema(found.obs),
        "var": table_schema(found.var),
        "names": (found.obs_names.dtype, found.var_names.dtype),
        "X": (type(found.X), found.X.dtype),
        "obsm": slots,
        "layers": sorted(found.layers),
        "uns": {
            k: table_schema(v) if isinstance(v, pd.DataFrame) else type(v) for k, v in found.uns.items() if k != "truth"
        },
        "provenance": sorted(found.uns["scprimer"]),
    }


# ---- every stand-in --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "part"), PARTS, ids=IDS)
def test_schema_is_that_of_the_real_loader(name, part, mirror):
    simulated, real = cached(name, part), data.load(name, part=part)
    assert schema(simulated) == schema(real)
    tables = (
        [(simulated, real)]
        if isinstance(real, pd.DataFrame)
        else [(simulated.obs, real.obs), (simulated.var, real.var)]
    )
    for ours, theirs in tables:
        for column in theirs.select_dtypes("category"):
            values = set(ours[column].dropna().astype(str))
            assert values <= set(theirs[column].dropna().astype(str)), column
            ordered = [str(c) for c in theirs[column].cat.categories if str(c) in values]
            assert [str(c) for c in ours[column].cat.categories if str(c) in values] == ordered, column


@pytest.mark.parametrize(("name", "part"), PARTS, ids=IDS)
def test_a_stand_in_is_small_simulated_and_holds_counts(name, part):
    found = cached(name, part)
    if isinstance(found, pd.DataFrame):
        assert found.attrs["scprimer"]["simulated"] is True
        assert 100 <= len(found) <= 1000
        return
    assert isinstance(found, AnnData)
    record = found.uns["scprimer"]
    assert record["simulated"] is True
    assert (record["dataset"], record["part"]) == (name, part or "")
    assert found.n_obs * found.n_vars <= 12_000 * 1_500
    assert found.X.data.min() > 0
    assert np.array_equal(found.X.data, np.rint(found.X.data))
    assert found.obs_names.is_unique
    assert found.var_names.is_unique
    assert "truth" in found.uns
    assert list(found.uns["truth"]["cells"].index) == list(found.obs_names)
    for key in {"profiles", "genes", "soup"} & set(found.uns["truth"]):  # under the names that the reader sees
        assert set(found.uns["truth"][key].index) <= set(found.var_names)


@pytest.mark.parametrize(("name", "part"), PARTS, ids=IDS)
def test_a_stand_in_survives_a_file(name, part, tmp_path):
    found = cached(name, part)
    if isinstance(found, pd.DataFrame):
        pytest.skip("a table, not AnnData")
    found.write_h5ad(tmp_path / "standin.h5ad")
    back = read_h5ad(tmp_path / "standin.h5ad")
    assert (back.X != found.X).nnz == 0
    assert set(back.uns["truth"]) == set(found.uns["truth"])
    assert schema(back) == schema(found)


@pytest.mark.parametrize("name", STANDINS)
def test_the_seed_decides_the_cells(name):
    one, same, other = standin(name, seed=3), standin(name, seed=3), standin(name, seed=4)
    if isinstance(one, pd.DataFrame):
        assert one.equals(same)
        assert not one.reset_index(drop=True).equals(other.reset_index(drop=True))
        return
    assert (one.X != same.X).nnz == 0
    assert one.obs.equals(same.obs)
    assert one.shape == other.shape
    assert (one.X != other.X).nnz > 0


# ---- mistakes --------------------------------------------------------------------------------------------------
def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(data.DataError, match="did you mean 'pbmc3k'"):
        standin("pbmc3")


def test_a_data_set_without_a_stand_in_says_which_have_one():
    without = next(n for n in data.names() if n not in STANDINS)
    with pytest.raises(data.DataError, match=f"no simulated stand-in for '{without}'.*standard.*pbmc3k"):
        standin(without)


def test_a_wrong_part_option_or_seed_is_an_error():
    with pytest.raises(data.DataError, match="did you mean 'cellmix1'"):
        standin("cell-mixology", part="celmix1")
    with pytest.raises(data.DataError, match=r"option of the stand-in.*n_cells"):
        standin("pbmc3k", n_cell=5)
    with pytest.raises(ValueError, match="seed=-1"):
        standin("pbmc3k", seed=-1)
    with pytest.raises(ValueError, match="n_barcodes"):
        standin("barnyard", n_barcodes=100)


def test_a_run_in_the_smoke_profile_gets_the_stand_in(monkeypatch):
    import scprimer

    monkeypatch.setenv("SCPRIMER_PROFILE", "smoke")
    run = scprimer.start("qc", dataset="pbmc3k")
    assert run.load().uns["scprimer"]["simulated"]
    assert run.load("cell-mixology", part="cellmix2").uns["scprimer"]["part"] == "cellmix2"


# ---- what chapters rely on -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("gene", "label"),
    [("MS4A1", "B"), ("CD8A", "CD8 T"), ("CD14", "CD14+ Mono"), ("GNLY", "NK"), ("PPBP", "Platelet"), ("FCER1A", "DC"),
     ("FCGR3A", "FCGR3A+ Mono"), ("CCR7", "Naive CD4 T")],
)  # fmt: skip
def test_canonical_markers_are_highest_where_they_belong(gene, label):
    adata = cached("pbmc3k")
    shares = adata[:, gene].X.toarray().ravel() / totals(adata)
    assert pd.Series(shares).groupby(adata.obs["cell_type"].to_numpy(), observed=True).mean().idxmax() == label


def test_pbmc3k_has_damaged_cells_without_labels_and_doublets():
    adata = cached("pbmc3k")
    truth = adata.uns["truth"]["cells"]
    mito = totals(adata[:, adata.var_names.str.startswith("MT-")]) / totals(adata)
    hurt = truth["damaged"].to_numpy()
    assert adata.obs["cell_type"].isna().to_numpy().tolist() == hurt.tolist()
    assert np.median(mito[hurt]) > 2 * np.median(mito[~hurt])
    assert np.median(totals(adata)[hurt]) < 0.6 * np.median(totals(adata)[~hurt])
    assert truth["doublet"].sum() == pytest.approx(0.03 * adata.n_obs, abs=4)
    assert 1500 < np.median(totals(adata)) < 2600
    assert adata.obs["cell_type"].value_counts().min() >= 4


def test_blood_sets_share_their_genes_and_differ_by_an_experiment():
    small, large = cached("pbmc3k"), cached("pbmc4k")
    assert list(small.var_names) == list(large.var_names)
    share = {n: np.asarray(a.X.sum(axis=0)).ravel() / a.X.sum() for n, a in (("3k", small), ("4k", large))}
    seen = (share["3k"] > 2e-4) & (share["4k"] > 2e-4)
    assert np.log2(share["3k"][seen] / share["4k"][seen]).std() > 0.4
    assert len(set(cached("kang").var_names) & set(small.var_names)) > 1000
    assert len(set(cached("kang-donors").var_names) & set(cached("pbmc-chemistries").var_names)) > 200


def test_pbmc4k_has_a_knee_and_its_ambient_profile_is_the_soup():
    adata = cached("pbmc4k")
    sizes = adata.uns["droplets"]["n_umi"]
    assert sizes[adata.obs_names].to_numpy().tolist() == totals(adata).astype(int).tolist()
    ordered = np.sort(sizes)[::-1]
    n_cells = 2 * adata.n_obs
    assert ordered[n_cells // 2] > 20 * ordered[2 * n_cells]
    assert (sizes == 0).mean() > 0.2
    ambient, soup = adata.uns["ambient"], adata.uns["truth"]["soup"]["share"]
    assert list(ambient.index) == list(adata.var_names)
    assert ambient["fraction"].sum() == pytest.approx(1)
    assert np.corrcoef(ambient["fraction"], soup)[0, 1] > 0.99
    assert adata.uns["truth"]["cells"]["ambient_fraction"].median() == pytest.approx(0.05, abs=0.02)


def test_barnyard_droplets_are_of_one_species_but_for_the_soup():
    adata = cached("barnyard")
    truth, size = adata.uns["truth"]["cells"], totals(adata)
    human = totals(adata[:, (adata.var["species"] == "human").to_numpy()])
    large = truth["is_cell"].to_numpy() & (size > 1000)
    foreign = np.where(truth["cell_type"] == "human", size - human, human)[large] / size[large]
    assert 0.0005 < foreign.mean() < 0.01
    empty = ~truth["is_cell"].to_numpy()
    assert empty.sum() > 5000
    assert (size[empty] > 0).sum() > 1000
    assert size[empty].max() > size[truth["is_cell"]].min()  # size alone does not tell them
    mixed = human[empty & (size > 20)] / size[empty & (size > 20)]
    assert 0.2 < mixed.mean() < 0.8


def test_cell_mixology_wells_with_two_cells_are_larger_and_dbl_wells_smaller():
    adata = cached("cell-mixology", "sc_celseq2_5cl")
    size = pd.Series(totals(adata), index=adata.obs_names)
    two = adata.obs["cell_number"] == 2
    assert 30 <= two.sum() <= 100
    assert size[two].median() > 1.2 * size[~two].median()
    one = adata.obs[~two]
    assert size[one.index[one["demuxlet"] == "DBL"]].median() < size[one.index[one["demuxlet"] == "SNG"]].median()
    cells = adata.uns["truth"]["cells"]
    assert cells["doublet"].tolist() == two.tolist()
    assert set(adata.obs["plate"]) == {"p1", "p2", "p3"}


def test_cell_mixology_spike_ins_and_read_statistics_agree_with_the_counts():
    for part, spiked in (("sc_celseq2", True), ("sc_dropseq", False), ("RNAmix_sortseq", True)):
        adata = cached("cell-mixology", part)
        assert adata.var["spike_in"].any() == spiked
        assert adata.obs["total_count_per_cell"].tolist() == totals(adata).astype(int).tolist()
        assert adata.obs["number_of_genes"].tolist() == np.diff(adata.X.indptr).tolist()
        if spiked:
            mean = np.asarray(adata.X[:, adata.var["spike_in"].to_numpy()].mean(axis=0)).ravel()
            assert 10 <= (mean > 1).sum() <= 25
            assert adata.uns["truth"]["spike_ins"]["molecules"].idxmax() == "ERCC-00130"


def test_mixtures_of_rna_follow_their_proportions():
    adata = cached("cell-mixology", "RNAmix_celseq2")
    profile = adata.uns["truth"]["profiles"]
    line = profile.columns[0]
    ratio = profile[line] / profile.drop(columns=line).max(axis=1)
    genes = [g for g in ratio.index[ratio > 4] if g in adata.var_names]
    share = totals(adata[:, genes]) / totals(adata)
    assert np.corrcoef(share, adata.obs[f"proportion_{line}"])[0, 1] > 0.9
    by_amount = pd.Series(totals(adata)).groupby(adata.obs["mrna_amount"].to_numpy()).median()
    assert by_amount.is_monotonic_increasing
    assert adata.obs["mix"].nunique() == 8


def test_tags_call_what_the_truth_says():
    adata = cached("cell-hashing")
    truth = adata.uns["truth"]["cells"]
    counts = adata.to_df()
    single = truth["hashtag_class"] == "singlet"
    assert (counts.idxmax(axis=1) == truth["hashtag"])[single].mean() > 0.97
    ordered = np.sort(counts.to_numpy(), axis=1)
    double = (truth["hashtag_class"] == "doublet").to_numpy()
    assert np.median(ordered[double, -2]) > 10 * np.median(ordered[single.to_numpy(), -2])
    assert 0.06 < double.mean() < 0.15
    table = cached("csf-hashing")
    medians = table.groupby("genotype", observed=True)["hto"].median()
    assert medians["0"] > 3 * medians["1"]


def test_isotype_controls_follow_the_droplets_factor():
    adata = cached("pbmc-adt-background", "droplets")
    truth = adata.uns["truth"]["cells"]
    isotypes = adata[:, adata.var["isotype_control"].to_numpy()]
    assert isotypes.n_vars == 4
    assert np.corrcoef(np.log1p(totals(isotypes)), np.log(truth["stickiness"]))[0, 1] > 0.3
    cd3 = pd.Series(adata[:, "CD3"].X.toarray().ravel()).groupby(truth["cell_type"].to_numpy()).median()
    assert cd3["Naive CD4 T"] > 4 * cd3["empty"]
    assert cd3["B"] < 2 * cd3["empty"] + 2
    cells = cached("pbmc-adt-background", "cells")
    assert set(cells.obs["droplet"]) == {"cell"}


def test_interferon_raises_its_genes():
    for name in ("kang", "kang-donors"):
        adata = cached(name)
        stimulated = (adata.obs["condition"] == "stimulated").to_numpy()
        shares = adata[:, "ISG15"].X.toarray().ravel() / totals(adata)
        assert shares[stimulated].mean() > 10 * shares[~stimulated].mean()
        log2fc = adata.uns["truth"]["genes"]["interferon_log2fc"]
        up = [g for g in log2fc.index[log2fc > 2] if g in adata.var_names]
        assert len(up) > 15
        down = totals(adata[~stimulated][:, up]) / totals(adata[~stimulated])
        assert (totals(adata[stimulated][:, up]) / totals(adata[stimulated])).mean() > 5 * down.mean()


def test_proteins_follow_the_types():
    adata = cached("cbmc-citeseq")
    protein = adata.obsm["protein"]
    assert np.allclose(protein.mean(), 0, atol=1e-4)
    median = protein.groupby(adata.obs["cell_type"].to_numpy()).median()
    assert median["CD19"].idxmax() == "B"
    assert median["CD34"].idxmax() == "CD34+"
    assert median.loc["CD4 T", "CD4"] > median.loc["CD8 T", "CD4"] + 1
    citeseq = cached("pbmc-citeseq", "10k")
    types = citeseq.uns["truth"]["cells"]["cell_type"].astype(str).to_numpy()
    assert citeseq.obsm["protein"]["CD19"].groupby(types).median().idxmax() == "B"


def test_chemistries_shift_genes():
    adata = cached("pbmc-chemistries")
    assert adata.obs["batch"].astype(str).equals(adata.obs["donor"].astype(str))
    assert (totals(adata) <= adata.obs["n_umi"]).all()
    shift = adata.uns["truth"]["batch_log2fc"]
    one, two = (np.asarray(adata.X[(adata.obs["batch"] == b).to_numpy()].sum(axis=0)).ravel() for b in ("3pv2", "5p"))
    seen = (one > 100) & (two > 100)
    found = np.log2(one[seen] / one.sum()) - np.log2(two[seen] / two.sum())
    assert np.corrcoef(found, (shift["3pv2"] - shift["5p"]).to_numpy()[seen])[0, 1] > 0.8


def test_patients_of_the_tumours_differ_more_than_the_treatment_does():
    adata = cached("glioblastoma")
    sums = pd.DataFrame(adata.X.toarray()).groupby(adata.obs["sample"].to_numpy()).sum()
    log = np.log2(sums.T / sums.sum(1) + 1e-4)  # genes x samples
    of = adata.obs.drop_duplicates("sample").set_index("sample").loc[log.columns]
    control = log.loc[:, (of["condition"] == "control").to_numpy()]
    change = adata.uns["truth"]["genes"]["treatment_log2fc"].to_numpy()
    assert control.shape[1] == 5
    assert 0.5 < control.std(axis=1).median() < 1.1
    treated = log.loc[:, (of["condition"] == "panobinostat").to_numpy()]
    assert np.corrcoef(treated.mean(axis=1) - control.mean(axis=1), change)[0, 1] > 0.8


def test_layers_of_cortex_lie_together_and_types_of_cells_do_not():
    from scipy.spatial import cKDTree

    def alike(xy, labels):
        near = cKDTree(xy).query(xy, k=7)[1][:, 1:]
        return float(np.mean(labels[near] == labels[:, None]))

    spots, cells = cached("dlpfc"), cached("starmap")
    layer = spots.uns["truth"]["cells"]["layer"].to_numpy()
    assert alike(spots.obsm["spatial"], layer) > 0.8
    named = spots.obs["layer"].notna().to_numpy()
    assert 1 <= (~named).sum() <= 20 and (spots.obs["layer"][named].astype(str) == layer[named]).all()
    for section in ("BZ5", "BZ9", "BZ14"):
        at = (cells.obs["section"] == section).to_numpy()
        xy = cells.obsm["spatial"][at]
        assert alike(xy, cells.obs["layer"][at].astype(str).to_numpy()) > 0.8
        assert alike(xy, cells.obs["cell_type"][at].astype(str).to_numpy()) < 0.45
