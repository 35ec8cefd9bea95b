"""What the loaders return from the real files, against what is said about them. Skipped without a mirror."""

from __future__ import annotations

import re
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData

from scprimer import data

EVERY = [(name, part) for name in data.names() for part in (data.describe(name).parts or (None,))]
_held = {}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, mirror):
    patch = pytest.MonkeyPatch()
    patch.setenv("SCPRIMER_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
    _held.clear()


@pytest.fixture
def load(cache):
    """``load(name, part)``, each set read once a module, with warnings as errors."""

    def loading(name, part=None):
        if (name, part) not in _held:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                _held[name, part] = data.load(name, part=part)
        return _held[name, part]

    return loading


def share(mask) -> float:
    return float(np.mean(np.asarray(mask)))


def sizes(labels) -> dict:
    return pd.Series(labels).value_counts().to_dict()


def dense_sum(x, axis):
    return np.asarray(x.sum(axis=axis)).ravel()


# ---- what holds for all --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "part"), EVERY)
def test_every_part_is_what_the_contract_says(load, tmp_path, name, part):
    found = load(name, part)
    entry = data.describe(name)
    modalities = found.mod.values() if isinstance(found, MuData) else [found] if isinstance(found, ad.AnnData) else []
    for adata in modalities:
        assert adata.obs_names.is_unique and adata.var_names.is_unique
        assert all(isinstance(n, str) for n in [*adata.obs_names[:3], *adata.var_names[:3]])
        for table in (adata.obs, adata.var):
            for column in table:
                assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", column), column
                assert not isinstance(table[column].dtype, pd.StringDtype), column
                assert not table[column].isna().all(), column
                if isinstance(table[column].dtype, pd.CategoricalDtype):
                    assert all(isinstance(c, str) for c in table[column].cat.categories), column
        if "raw" in entry.x or "open" in entry.x:
            assert isinstance(adata.X, sp.csr_matrix | sp.csr_array) and adata.X.dtype == np.float32
            values = adata.X.data
            assert (values > 0).all() and (values == np.rint(values)).all()
            assert adata.X.has_sorted_indices
    if hasattr(found, "uns"):
        record = found.uns["scprimer"]
        assert record["dataset"] == name and record["part"] == (part or "")
        assert record["sha256"] == entry.sha256 and record["simulated"] is False
        assert record["licence"] == entry.licence and record["citation"] == entry.citation
    if isinstance(found, pd.DataFrame):
        assert found.attrs["scprimer"]["dataset"] == name
    if isinstance(found, ad.AnnData) and found.n_obs < 100_000:
        found.write_h5ad(tmp_path / "copy.h5ad")
        again = ad.read_h5ad(tmp_path / "copy.h5ad")
        pd.testing.assert_frame_equal(again.obs, found.obs, check_categorical=False)
        assert again.uns["scprimer"]["dataset"] == name


def test_the_mirror_holds_what_the_registry_says(cache):
    from scprimer.data import download

    for name in data.names():
        assert download.damaged(data.describe(name)) == [], name


# ---- blood ---------------------------------------------------------------------------------------------------------
def test_pbmc3k(load):
    adata = load("pbmc3k")
    assert adata.shape == (2700, 13714)
    assert adata.X.nnz == 2_282_976
    assert np.median(dense_sum(adata.X, 1)) == 2196
    assert adata.obs["cell_type"].isna().sum() == 62
    assert len(adata.obs["cell_type"].cat.categories) == 9
    assert sizes(adata.obs["cell_type"])["Naive CD4 T"] == 697


def test_the_quality_thresholds_of_the_source_on_pbmc3k(load):
    adata = load("pbmc3k")
    kept = (np.diff(adata.X.indptr) >= 1000) & (dense_sum(adata.X, 1) >= 2000)
    assert kept.sum() == 529
    assert (adata.obs["cell_type"][kept] == "Naive CD4 T").sum() == 15


def test_pbmc4k(load):
    adata = load("pbmc4k")
    assert adata.shape == (2170, 33694)
    assert set(adata.obs["cell_type"]) == {"T_CD4", "T_CD8", "B", "NK", "MNP", "?"}
    assert adata.obs["cluster"].nunique() == 12
    droplets, ambient = adata.uns["droplets"]["n_umi"], adata.uns["ambient"]
    assert len(droplets) == 737_280
    totals = dense_sum(adata.X, 1)
    assert (droplets.loc[adata.obs_names].to_numpy() == totals).all()
    assert list(ambient.index) == list(adata.var_names)
    assert ambient["fraction"].sum() == pytest.approx(1)
    assert (ambient["counts"] / ambient["counts"].sum()).to_numpy() == pytest.approx(ambient["fraction"].to_numpy())
    assert ambient["fraction"].idxmax() in {"MALAT1", "B2M", "TMSB4X", "RPL10", "EEF1A1", "MT-CO1", "HBB"}


def test_the_two_10x_sets_share_genes(load):
    shared = load("pbmc3k").var_names.intersection(load("pbmc4k").var_names)
    assert len(shared) == 13_177


def test_pbmc_chemistries(load):
    adata = load("pbmc-chemistries")
    assert adata.shape == (1200, 1767)
    assert sizes(adata.obs["batch"]) == {"3pv2": 480, "5p": 430, "3pv1": 290}
    assert adata.obs["cell_type"].nunique() == 9
    assert adata.uns["scprimer"]["recovered"] == 1
    assert (dense_sum(adata.X, 1) <= adata.obs["n_umi"]).all()  # a part of the genes holds a part of the counts


def test_kang_and_its_donors(load):
    kang, donors = load("kang"), load("kang-donors")
    assert kang.shape == (2000, 9015)
    assert sizes(kang.obs["condition"]) == {"control": 1000, "stimulated": 1000}
    isg15 = kang[:, "ISG15"].X.toarray().ravel()
    stimulated = (kang.obs["condition"] == "stimulated").to_numpy()
    assert isg15[stimulated].mean() > 10 * isg15[~stimulated].mean()  # the right label on the right cells

    assert donors.shape == (1556, 1267)
    assert donors.obs["cell_type"].nunique() == 5
    assert sizes(donors.obs["sample"]) == {"stim101": 500, "ctrl101": 454, "stim107": 306, "ctrl107": 296}
    assert set(donors.obs["donor"]) == {"101", "107"}
    both = donors.obs_names.intersection(kang.obs_names)
    assert len(both) == 114
    assert (donors.obs.loc[both, "condition"].astype(str) == kang.obs.loc[both, "condition"].astype(str)).all()
    genes = donors.var_names.intersection(kang.var_names)
    a, b = donors[both, genes].X.toarray(), kang[both, genes].X.toarray()
    assert share(a == b) > 0.999  # the same counts: truth for a transfer


def test_shared_genes_of_the_blood_sets(load):
    genes = {n: set(load(n).var_names) for n in ("pbmc3k", "pbmc4k", "pbmc-chemistries", "kang", "kang-donors")}
    assert len(genes["kang"] & genes["pbmc3k"]) == 8940
    assert len(genes["kang"] & genes["pbmc-chemistries"]) == 778
    assert len(genes["kang-donors"] & genes["pbmc-chemistries"]) == 261
    assert len(set.intersection(*genes.values())) == 259


# ---- droplets ------------------------------------------------------------------------------------------------------
def test_barnyard(load):
    adata = load("barnyard")
    assert adata.shape == (737_280, 32_738 + 27_998)
    assert sizes(adata.var["species"]) == {"human": 32_738, "mouse": 27_998}
    human = dense_sum(adata.X[:, (adata.var["species"] == "human").to_numpy()], 1)
    mouse = dense_sum(adata.X[:, (adata.var["species"] == "mouse").to_numpy()], 1)
    big = human + mouse > 3000  # the knee is not sharp: 110 barcodes at 3,000, 122 at 1,000
    assert ((big & (human > 9 * mouse)).sum(), (big & (mouse > 9 * human)).sum()) == (58, 52)
    foreign = np.minimum(human, mouse)[big].sum() / (human + mouse)[big].sum()
    assert foreign < 0.005
    assert adata.var_names[0] == "hg19_MIR1302-10" and adata.var["symbol"].iloc[0] == "MIR1302-10"
    assert adata.var["ensembl"].str.match(r"ENS(MUS)?G\d+").all()


def test_cell_hashing(load):
    adata = load("cell-hashing")
    assert adata.shape == (15_113, 8)
    assert list(adata.var_names) == [f"HTO_{c}" for c in "ABCDEFGH"]


def test_csf_hashing(load):
    table = load("csf-hashing")
    assert table.shape == (2590, 5)
    assert sizes(table["genotype"]) == {"1": 1252, "0": 1237, "doublet": 101}
    from sklearn.metrics import roc_auc_score

    single = table[table["genotype"] != "doublet"]
    auc = roc_auc_score(single["genotype"].astype(str) == "0", single["hto"])
    assert max(auc, 1 - auc) == pytest.approx(0.95, abs=0.01)


def test_pbmc_adt_background(load):
    adata = load("pbmc-adt-background", "droplets")
    assert adata.shape == (2872 + 8005, 87)
    assert sizes(adata.obs["droplet"]) == {"empty": 8005, "cell": 2872}
    assert adata.var["isotype_control"].sum() == 4
    assert load("pbmc-adt-background", "cells").shape == (2872, 87)
    assert load("pbmc-adt-background", "empty").shape == (8005, 87)
    totals = pd.Series(dense_sum(adata.X, 1)).groupby(adata.obs["droplet"].to_numpy(), observed=True).median()
    assert totals["cell"] > 2 * totals["empty"]


# ---- cell-mixology -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("part", "shape", "spikes"),
    [
        ("sc_celseq2", (274, 28204), 62),
        ("sc_dropseq", (225, 15127), 0),
        ("sc_celseq2_5cl", (909, 12653), 26),
        ("RNAmix_celseq2", (340, 14804), 27),
        ("RNAmix_sortseq", (296, 15571), 44),
        ("cellmix", (1107, 10980), None),
        ("cellmix5", (21, 29858), 33),
    ],
)
def test_cell_mixology_shapes(load, part, shape, spikes):
    adata = load("cell-mixology", part)
    assert adata.shape == shape
    if spikes is not None:
        assert adata.var["spike_in"].sum() == spikes
    assert adata.var_names[adata.var["spike_in"]].str.startswith("ERCC-").all()
    assert adata.var_names[~adata.var["spike_in"]].str.match(r"ENSG\d+").all()
    # counts and cell table fit: the source wrote each cell's total (of the genes before filtering) beside it
    assert np.corrcoef(dense_sum(adata.X, 1), adata.obs["total_count_per_cell"])[0, 1] > 0.99


def test_cell_mixology_plates(load):
    adata = load("cell-mixology", "sc_celseq2_5cl")
    assert sizes(adata.obs["plate"]) == {"p1": 297, "p2": 307, "p3": 305}
    assert (adata.obs["cell_number"] == 2).sum() == 116
    assert set(adata.obs["cell_line"]) == {"A549", "H838", "H1975", "H2228", "HCC827"}
    damaged = adata.obs["demuxlet"] == "DBL"
    first_two = adata.obs["plate"].isin(["p1", "p2"])
    assert share(damaged[first_two]) == pytest.approx(0.47, abs=0.01)
    wells = load("cell-mixology", "sc_celseq2").obs
    totals = wells.groupby("demuxlet", observed=True)["total_count_per_cell"].median()
    assert totals.to_dict() == {"DBL": 16_201, "SNG": 37_438}  # a "doublet" with fewer molecules is a damaged well
    one = load("cell-mixology", "sc_celseq2_5cl_p2")
    assert one.n_vars == 14078
    shared = adata.var_names
    joined = adata[adata.obs["plate"] == "p2"]
    assert (joined.X != one[joined.obs_names, shared].X).nnz == 0


def test_cell_mixology_lines(load):
    for part, lines in (
        ("sc_celseq2", {"H1975": 114, "H2228": 81, "HCC827": 79}),
        ("sc_dropseq", {"H1975": 92, "HCC827": 68, "H2228": 65}),
        ("sc_10x", {"H2228": 315, "H1975": 313, "HCC827": 274}),
    ):
        found = load("cell-mixology", part)
        assert sizes(getattr(found, "obs", found)["cell_line"]) == lines
    assert isinstance(load("cell-mixology", "sc_10x_5cl"), pd.DataFrame)


def test_cell_mixology_mixtures(load):
    adata = load("cell-mixology", "RNAmix_celseq2")
    columns = [f"proportion_{line}" for line in ("H2228", "H1975", "HCC827")]
    assert set(np.unique(adata.obs[columns])) == {0, 0.16, 0.33, 0.68, 1}
    assert adata.obs[columns].sum(axis=1).between(0.98, 1.01).all()
    assert set(adata.obs["mrna_amount"]) == {3.75, 7.5, 15, 30}
    assert adata.obs["mix"].nunique() == 8
    assert adata.obs["mrna_amount"].corr(adata.obs["number_of_genes"], method="spearman") > 0.5
    wells = load("cell-mixology", "cellmix")
    assert set(wells.obs["plate"]) == {"cellmix1", "cellmix2", "cellmix3", "cellmix4"}
    assert wells.obs["cell_number"].max() <= 10 and wells.obs["cell_number"].median() == 9
    assert wells.obs[columns].sum(axis=1).to_numpy() == pytest.approx(1)
    assert set(load("cell-mixology", "cellmix5").obs["cell_number"]) == {90}


# ---- development ---------------------------------------------------------------------------------------------------
def test_pancreas_species(load):
    adata = load("pancreas-species")
    assert adata.shape == (350, 12474)
    assert sizes(adata.obs["species"]) == {"human": 175, "mouse": 175}
    assert set(sizes(adata.obs["cell_type"]).values()) == {70} and adata.obs["cell_type"].nunique() == 5
    assert adata.obs["donor"].nunique() == 6
    assert adata.obs["duplicate"].sum() == 22
    rows = {row.tobytes() for row in adata.X.toarray()}
    assert len(rows) == 328  # what is flagged is exactly what occurs twice
    alpha = (adata.obs["cell_type"] == "alpha").to_numpy()
    glucagon = adata[:, "GCG"].X.toarray().ravel()
    assert glucagon[alpha].mean() > 10 * glucagon[~alpha].mean()


def test_pancreas_velocity(load):
    small, full = load("pancreas-velocity", "cells"), load("pancreas-velocity-full")
    assert small.shape == (739, 7192) and full.shape == (3696, 2000)
    assert sizes(full.obs["cluster"]) == {
        "0": 916, "1": 262, "2": 642, "3": 592, "4": 591, "5": 481, "6": 70, "7": 142
    }  # fmt: skip
    assert small.obsm["X_pca"].shape == (739, 50)
    for adata in (small, full):
        assert adata.obs["cell_type"].nunique() == 8
        for layer in ("spliced", "unspliced"):
            values = adata.layers[layer].data
            assert (values == np.rint(values)).all() and (values > 0).all()
        assert (adata.layers["spliced"] != adata.X).nnz == 0
    # all 739 cells are in both, and their names for the states agree
    assert small.obs_names.isin(full.obs_names).all()
    assert (full.obs.loc[small.obs_names, "cell_type"].astype(str) == small.obs["cell_type"].astype(str)).all()
    genes = small.var_names.intersection(full.var_names)
    assert (small[:, genes].layers["unspliced"] != full[small.obs_names, genes].layers["unspliced"]).nnz == 0
    tables = load("pancreas-velocity", "merfish-velocity")
    assert tables["current"].shape == tables["projected"].shape == (5084, 40)


def test_worm_embryo(load):
    adata = load("worm-embryo")
    assert adata.shape == (1805, 10_000)
    assert (adata.obs["time"].min(), adata.obs["time"].max()) == (210, 780)
    assert adata.obs["cell_type"].nunique() == 9 and adata.obs["batch"].nunique() == 7
    assert adata.obs["lineage"].isna().sum() == 106
    assert (dense_sum(adata.X, 1) <= adata.obs["n_umi"]).all()
    assert adata.var["ensembl"].str.startswith("WBGene").all()
    parents = adata.obs.groupby("cell_type", observed=True)["time"].median()
    assert parents["ADL_parent"] < parents["ADL"]


def test_larry(load):
    adata = load("larry")
    assert adata.shape == (781, 2481)
    assert sizes(adata.obs["time"]) == {6: 431, 4: 316, 2: 34}
    assert adata.obs["cell_type"].nunique() == 12
    assert adata.obsm["X_clone"].shape == (781, 339)
    assert (dense_sum(adata.obsm["X_clone"], 1) == 1).all()
    assert adata.uns["scprimer"]["recovered"] == 1
    scaled = adata.layers["scaled"]
    assert dense_sum(scaled, 1) == pytest.approx(np.full(781, 1e4), rel=1e-5)
    back = sp.diags(1e4 / dense_sum(adata.X, 1)) @ adata.X
    assert np.abs(back - scaled).max() < 0.05  # counts scaled to 10,000 are the values of the file


def test_paul(load):
    adata = load("paul")
    assert adata.shape == (2660, 240)
    assert adata.obs["cell_type"].nunique() == 7 and sizes(adata.obs["cell_type"])["Erythrocyte"] == 1095
    early = adata.obs.groupby("cell_type", observed=True)["pseudotime_2"].median()
    assert early["Multipotent progenitors"] < early["Erythrocyte"]


def test_guo(load):
    adata = load("guo")
    assert adata.shape == (428, 48)
    assert sizes(adata.obs["stage"]) == {"64C": 159, "32C": 109, "16C": 75, "8C": 43, "4C": 23, "2C": 19}
    assert (adata.obs["stage"].astype(str).str.removesuffix("C").astype(int) == adata.obs["n_cells"]).all()
    assert (2 ** adata.obs["time"] == adata.obs["n_cells"]).all()


# ---- interventions -------------------------------------------------------------------------------------------------
def test_papalexi(load):
    adata = load("papalexi")
    assert adata.shape == (20_729, 299)
    guides = adata.uns["guides"]
    assert adata.obsm["guides"].shape == (20_729, 110) and len(guides) == 110
    assert (guides["target"] == "non-targeting").sum() == 9
    assert guides["target"].nunique() == 27
    assert set(adata.obs["replicate"]) == {"rep_1", "rep_2", "rep_3"}
    # the call does what it says, and it means something: JAK2's knock-out loses its own transcript's partners
    row = np.argmax(adata.obsm["guides"][7].toarray())
    assert adata.obs["guide"].iloc[7] == guides.index[row]
    totals = dense_sum(adata.X, 1)
    rate = adata[:, "STAT1"].X.toarray().ravel() / totals
    assert rate[adata.obs["target"] == "STAT1"].mean() < 0.7 * rate[adata.obs["target"] == "non-targeting"].mean()


def test_perturbench(load):
    adata = load("perturbench")
    assert adata.shape == (5961, 500)
    norman = adata.obs[adata.obs["study"] == "norman19"]
    assert norman["perturbation"][norman["n_perturbed"] == 1].nunique() == 18
    assert norman["perturbation"][norman["n_perturbed"] == 2].nunique() == 15
    assert set(adata.obs["cell_line"]) == {"K562", "A172", "T98G", "U87MG"}
    mcfaline = adata.obs[(adata.obs["study"] == "mcfaline23") & (adata.obs["n_perturbed"] > 0)]
    assert mcfaline["perturbation"].nunique() == 9
    assert adata.uns["scprimer"]["recovered"] > 0.999
    genes = {g for p in adata.obs["perturbation"].cat.categories if p != "control" for g in p.split("+")}
    assert len(genes & set(adata.var_names)) == 1


def test_the_restored_counts_of_perturbench_log_normalise_back(load):
    adata = load("perturbench")
    norman = (adata.obs["study"] == "norman19").to_numpy()
    x, target = adata.X[norman], adata.layers["lognorm"][norman].sorted_indices()
    scale = np.expm1(target.data) / x.data  # 10,000 / total, one value a cell
    row = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    spread = pd.Series(scale).groupby(row).agg(lambda v: v.max() / v.min() - 1)
    assert spread.max() < 1e-3
    total = 1e4 / pd.Series(scale).groupby(row).median()
    known = adata.obs["n_umi"][norman].to_numpy()[total.index]
    assert total.to_numpy() / known == pytest.approx(1, abs=0.03)  # no cell is off by a whole factor


def test_glioblastoma(load):
    adata = load("glioblastoma")
    assert adata.shape == (5000, 300)
    assert pd.crosstab(adata.obs["donor"], adata.obs["condition"]).to_numpy().tolist() == [[500, 500]] * 5
    assert set(adata.obs) == {"donor", "condition", "sample", "batch"}  # nothing about the person


def test_screens(load):
    hap1, leukemia, efficacy = load("hap1-screen"), load("leukemia-screen"), load("guide-efficacy")
    counts = hap1["counts"]
    assert counts.shape == (71_090, 6)
    assert (len(hap1["essential"]), len(hap1["nonessential"])) == (684, 927)
    assert counts["gene"][counts["gene"].isin(hap1["essential"])].nunique() == 646
    assert counts["gene"][counts["gene"].isin(hap1["nonessential"])].nunique() == 797
    change = np.log2((counts[["T18A", "T18B", "T18C"]].mean(axis=1) + 1) / (counts["T0"] + 1))
    essential, other = (change[counts["gene"].isin(hap1[k])].median() for k in ("essential", "nonessential"))
    assert essential < other - 1
    assert leukemia.shape == (9999, 6) and leukemia["gene"].nunique() == 1000
    assert len(efficacy) == 5310 and efficacy["sequence"].nunique() == 4379
    assert efficacy["sequence"].str.fullmatch("[ACGT]{30}").all()
    assert efficacy["gene"].nunique() == 17
    assert efficacy["score"].between(0, 1).all()


# ---- modalities ----------------------------------------------------------------------------------------------------
def test_cite_seq(load):
    ctcl = load("ctcl-citeseq")
    assert ctcl.shape == (500, 19_521)
    assert ctcl.obsm["protein"].shape == (500, 49) and ctcl.obsm["hashtag"].shape == (500, 4)
    assert not ctcl.var_names.str.startswith("hg19_").any()
    for part, genes, proteins in (("10k", 16_727, 14), ("5k", 16_581, 29)):
        adata = load("pbmc-citeseq", part)
        assert adata.shape == (200, genes) and adata.obsm["protein"].shape == (200, proteins)
        cd3 = adata[:, "CD3E"].X.toarray().ravel()
        assert np.corrcoef(np.log1p(cd3), np.log1p(adata.obsm["protein"]["CD3"]))[0, 1] > 0.5


def test_cbmc(load):
    adata = load("cbmc-citeseq")
    assert adata.shape == (8617, 2000)
    assert adata.obs["cell_type"].nunique() == 13 and sizes(adata.obs["cell_type"])["CD4 T"] == 3086
    protein = adata.obsm["protein"]
    assert protein.mean().abs().max() < 1e-3 and protein.std().sub(1).abs().max() < 1e-2
    best = protein.groupby(adata.obs["cell_type"].to_numpy()).mean()
    # each protein is highest where it should be: names and label rows are in the right order
    named = best.drop(index=["Mouse", "Unknown"])
    expected = {
        "CD4": "CD4 T",
        "CD8": "CD8 T",
        "CD19": "B",
        "CD14": "CD14+ Mono",
        "CD34": "CD34+",
        "CD3": "CD4 T",
        "CD56": "NK",
    }
    assert {p: named[p].idxmax() for p in expected} == expected
    codes = pd.crosstab(adata.obs["cell_type"], adata.obs["cluster"])
    assert codes.loc["Mouse"].max() == 607 and (codes.loc["Mouse"] > 0).sum() == 1


def test_hematopoiesis_atac(load):
    adata = load("hematopoiesis-atac")
    assert adata.shape == (600, 5000)
    assert sizes(adata.obs["cell_type"]) == dict.fromkeys(["HSC", "CMP.LMPP", "GMP", "CLP.2", "B", "CD8.N"], 100)
    assert (adata.var["end"] - adata.var["start"] == 500).all()
    name = (
        adata.var["chromosome"].astype(str) + "_" + adata.var["start"].astype(str) + "_" + adata.var["end"].astype(str)
    )
    assert (name == adata.var_names).all()


def test_snare_and_scgem(load):
    snare, scgem = load("snare-scgem", "snare"), load("snare-scgem", "scgem")
    assert snare.obsm["X_atac"].shape == (1047, 19) and snare.obsm["X_rna"].shape == (1047, 10)
    assert sizes(snare.obs["cell_line"]) == {"H1": 379, "GM": 324, "BJ": 201, "K562": 143}
    from sklearn.metrics import silhouette_score

    assert silhouette_score(snare.obsm["X_rna"], snare.obs["cell_line"]) > 0.3  # labels are on the right rows
    assert scgem.shape == (177, 34) and scgem.obs["cell_type"].nunique() == 5


def test_sci_car(load):
    paired = load("sci-car")
    rna, atac = paired["rna"], paired["atac"]
    assert rna.shape == (2641, 1185) and atac.shape == (2641, 52_761)
    assert list(rna.obs_names) == list(atac.obs_names)
    assert sizes(rna.obs["time"]) == {3: 1075, 1: 983, 0: 583}
    assert paired.uns["scprimer"]["recovered"] == 1
    assert (atac.X.data == 1).all()
    assert (atac.var["end"] > atac.var["start"]).all()


# ---- space ---------------------------------------------------------------------------------------------------------
def test_olfactory_bulb(load):
    adata = load("olfactory-bulb")
    assert adata.shape == (262, 15_928)
    assert adata.obs["layer"].nunique() == 5 and adata.obs["layer"].isna().sum() == 2
    # the outermost layer lies further from the centre than the innermost
    distance = np.linalg.norm(adata.obsm["spatial"] - adata.obsm["spatial"].mean(axis=0), axis=1)
    away = pd.Series(distance).groupby(adata.obs["layer"].to_numpy(), observed=True).median()
    assert away["Olfactory Nerve Layer"] > 1.5 * away["Granular Cell Layer"]


def test_olfactory_bulb_he(load):
    adata = load("olfactory-bulb-he")
    assert adata.shape == (950, 500)
    picture = adata.uns["spatial"]["olfactory-bulb"]["images"]["hires"]
    assert picture.shape == (589, 550, 3) and picture.dtype == np.uint8
    assert (adata.obsm["spatial"] >= 0).all() and (adata.obsm["spatial"] <= [550, 589]).all()
    # spots on dark tissue hold more than spots on the bright glass beside it: picture and spots are in one frame
    x, y = np.clip(adata.obsm["spatial"].round().astype(int), 0, [549, 588]).T
    brightness = picture[y, x].mean(axis=1)
    total = dense_sum(adata.X, 1)
    assert np.median(total[brightness < 200]) > 2 * np.median(total[brightness > 230])


def test_dlpfc(load):
    adata = load("dlpfc")
    assert adata.shape == (4634, 500)
    assert adata.obs["layer"].nunique() == 7 and adata.obs["layer"].isna().sum() == 39
    assert adata.var_names.str.match(r"ENSG\d+").all()
    from scipy.spatial import cKDTree

    nearest = cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], k=7)[0][:, 1:]
    assert np.median(nearest) == pytest.approx(2, abs=1e-6)


def test_lymph_node(load):
    spots, reference = load("lymph-node", "spots"), load("lymph-node", "reference")
    assert spots.shape == (1000, 2000) and spots.obsm["spatial"].shape == (1000, 2)
    assert reference.shape == (330, 10_237)
    assert set(sizes(reference.obs["cell_type"]).values()) == {30} and reference.obs["cell_type"].nunique() == 11
    assert len(spots.var_names.intersection(reference.var_names)) == 558
    cd79a = reference[:, "CD79A"].X.toarray().ravel()
    b = reference.obs["cell_type"].isin(["B", "B_Plasma"]).to_numpy()
    assert cd79a[b].mean() > 5 * cd79a[~b].mean()


def test_breast_cancer_st(load):
    adata = load("breast-cancer-st")
    assert adata.shape == (1031, 13_360)
    assert sizes(adata.obs["section"]) == {"3": 264, "4": 262, "1": 254, "2": 251}


def test_starmap(load):
    adata = load("starmap")
    assert adata.shape == (3190, 166)
    assert sizes(adata.obs["section"]) == {"BZ14": 1088, "BZ9": 1053, "BZ5": 1049}
    assert adata.obs["cell_type"].nunique() == 15 and adata.obs["layer"].nunique() == 4


# ---- what is known beforehand --------------------------------------------------------------------------------------
def test_gene_sets(load):
    hallmark, go = load("gene-sets", "hallmark"), load("gene-sets", "go-bp")
    assert (len(hallmark), len(go)) == (50, 6036)
    assert "ISG15" in hallmark["HALLMARK_INTERFERON_ALPHA_RESPONSE"]
    cycle = load("cell-cycle-genes")
    assert (len(cycle["s"]), len(cycle["g2m"])) == (43, 54)
    assert "PCNA" in cycle["s"] and "TOP2A" in cycle["g2m"]


def test_regulators_and_pathways(load):
    trrust, pathways = load("trrust"), load("pathways")
    assert len(trrust) == 9396 and trrust["tf"].nunique() == 795
    assert set(trrust["mode"]) == {"Activation", "Repression", "Unknown"}
    assert sizes(pathways["source"]) == {"reactome": 1341, "wikipathways": 298, "pid": 223}
    assert pathways["genes"].map(len).min() > 0


def test_gene_annotation(load):
    human, mouse = load("gene-annotation", "human"), load("gene-annotation", "mouse")
    assert human.index.str.startswith("ENSG").all() and mouse.index.str.startswith("ENSMUSG").all()
    actb = human.loc["ENSG00000075624"]
    assert (actb["symbol"], actb["entrez"], actb["chromosome"], actb["strand"]) == ("ACTB", 60, "7", -1)
    # Entrez ids of the pathways find their symbols here
    known = set(human["entrez"].dropna())
    genes = {g for row in load("pathways")["genes"] for g in row}
    assert share([g in known for g in genes]) > 0.95


def test_ligand_receptor(load):
    for part, rows in (("cellchat-human", 3233), ("cellchat-mouse", 3379), ("cellphonedb", 2911)):
        assert len(load("ligand-receptor", part)["interaction"]) == rows


def test_motifs(load):
    held = load("motifs")
    matrices, factors = held["matrices"], held["factors"]
    assert len(matrices) == 838
    consensus = "".join("ACGT"[i] for i in matrices["MA0004.1.Arnt"].argmax(axis=1))
    assert consensus == "CACGTG"
    assert "Arnt" in set(factors["factor"])


def test_promoters(load):
    table = load("promoters")
    assert sizes(table["organism"]) == {"mouse": 3086, "human": 2929}
    assert (table["sequence"].str.len() == 300).all()
    human = table["sequence"][table["organism"] == "human"]
    mouse = {s[i : i + 30] for s in table["sequence"][table["organism"] == "mouse"] for i in range(271)}
    assert share([any(s[i : i + 30] in mouse for i in range(271)) for s in human]) == pytest.approx(0.12, abs=0.01)
