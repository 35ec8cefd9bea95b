"""More than RNA: proteins, open chromatin, several at once."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import FormatError
from scprimer.data.loaders import build, hdf5, rfiles

# The file names no proteins; their order follows from the markers of the labelled cells.
CBMC_PROTEINS = ("CD3", "CD4", "CD8", "CD45RA", "CD56", "CD16", "CD11c", "CD14", "CD19", "CD34")


def ctcl_citeseq(folder: Path) -> ad.AnnData:
    """A cutaneous T-cell lymphoma by CITE-seq, raw: 500 cells x 19,521 genes.

    ``obsm["protein"]``: counts of 49 antibodies (IgG1 and IgG2a are isotype controls); ``obsm["hashtag"]``: counts of 4
    hashtags. Both are tables. Genes are without the file's prefix ``hg19_``.
    """
    held = rfiles.only(folder / "CITEseq_example.rda")
    x, genes, cells = rfiles.matrix(held["RNA"])
    tables = {"protein": _table(held["ADT"], cells), "hashtag": _table(held["HTO"], cells)}
    return build.counts(x.T, cells, [g.removeprefix("hg19_") for g in genes], obsm=tables)


def pbmc_citeseq(folder: Path, part: str) -> ad.AnnData:
    """Blood cells with proteins, raw: ``part="10k"`` (200 cells x 16,727 genes, 14 proteins) or ``"5k"`` (16,581, 29).

    ``obsm["protein"]``: counts of the antibodies as a table, names without ``_TotalSeqB``.
    """
    held = hdf5.read_h5ad(folder / f"pbmc_{part}_protein_v3.h5ad")
    names = [str(n).removesuffix("_TotalSeqB") for n in held.uns["protein_names"]]
    values = np.asarray(held.obsm["protein_expression"])
    build.as_counts(values)
    protein = pd.DataFrame(values.astype(np.float32), index=list(held.obs_names), columns=names)
    return build.counts(held.X, list(held.obs_names), list(held.var_names), obsm={"protein": protein})


def cbmc_citeseq(folder: Path) -> ad.AnnData:
    """Cord blood by CITE-seq: 8,617 cells x 2,000 variable genes (raw, without names) and 10 proteins (scaled).

    ``obs``: ``cell_type`` (13 names, mouse cells among them), ``cluster`` (the file's own 15 codes). ``obsm["protein"]``: a table,
    each protein centred and scaled over the cells: no counts. Which column is which protein was inferred from the markers
    of the labelled cells. Genes are called ``gene_0`` ... since the file has no names.
    """
    import h5py

    with h5py.File(folder / "CITE_CBMC_counts_top2000.h5") as held:
        x, protein, codes = held["X"][()], held["ADT_X"][()], held["Y"][()]
    # No header line: reading this file with one shifts every label.
    labels = pd.read_csv(folder / "cbmc_clusters.csv.gz", header=None, names=["barcode", "cell_type"])
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(labels["cell_type"]),
            "cluster": build.categorical(codes.astype(int)),
        },
        index=labels["barcode"].to_numpy(),
    )
    table = pd.DataFrame(protein.astype(np.float32), index=obs.index, columns=list(CBMC_PROTEINS))
    genes = [f"gene_{i}" for i in range(x.shape[1])]
    return build.counts(x, obs, genes, obsm={"protein": table})


def hematopoiesis_atac(folder: Path) -> ad.AnnData:
    """Bone marrow by scATAC-seq, raw: 600 cells x 5,000 peaks.

    ``obs``: ``cell_type`` (6 x 100: HSC, CMP.LMPP, GMP, CLP.2, B, CD8.N), ``batch`` (two runs), ``frip``, ``n_reads`` (over all peaks).
    ``obsm["X_umap"]``: the source's layout. ``var``: ``chromosome``, ``start``, ``end`` (hg19, first and last base), ``gc``.
    """
    held = rfiles.only(folder / "hemato_atac.rda")
    x, _, cells = rfiles.matrix(held["counts"])
    meta = rfiles.dframe(held["meta"])
    ranges = held["ranges"]
    peaks = rfiles.strings(ranges.ranges.NAMES)
    var = pd.DataFrame(
        {
            "chromosome": build.categorical([p.rsplit("_", 2)[0] for p in peaks]),
            "start": np.asarray(ranges.ranges.start),
            "end": np.asarray(ranges.ranges.start) + np.asarray(ranges.ranges.width) - 1,
            "gc": np.asarray(ranges.elementMetadata.listData["GC"]),
        },
        index=peaks,
    )
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(meta["BioClassification"].str.replace(r"^\d+_", "", regex=True)),
            "batch": build.categorical(meta["Group"]),
            "frip": meta["FRIP"].to_numpy(),
            "n_reads": meta["TotalReads"].to_numpy(),
        },
        index=cells,
    )
    return build.counts(x.T, obs, var, obsm={"X_umap": meta[["UMAP1", "UMAP2"]].to_numpy()})


def snare_scgem(folder: Path, part: str) -> ad.AnnData:
    """Paired features for aligning modalities as if they were not paired.

    ``part="snare"``: 1,047 cells of four lines; no ``X``, but ``obsm["X_atac"]`` (19 topics) and ``obsm["X_rna"]`` (10 principal
    components) of the same cells in the same order; ``obs["cell_line"]``.
    ``part="scgem"``: 177 cells on the way from fibroblast to stem cell, ``X``: log expression of 34 genes (dense, without names);
    ``obs["cell_type"]`` (BJ, d8, d16T+, d24T+, iPS), ``obs["time"]`` (their order, 0 to 4). The methylation values are not in the hosting
    repository's files that the registry holds.
    """
    if part == "snare":
        meta = pd.read_csv(folder / "SNAREseq_metadata.txt", sep="\t")
        codes = np.loadtxt(folder / "SNAREseq_rna_types.txt")
        features = {key: np.load(folder / f"SNAREseq_{key}_feat.npy", allow_pickle=False) for key in ("atac", "rna")}
        if not np.array_equal(codes, meta["LabelID"]) or any(len(f) != len(meta) for f in features.values()):
            raise FormatError("features, labels and cell table do not fit")
        obs = pd.DataFrame({"cell_line": build.categorical(meta["CellType"])}, index=meta["Barcode"].to_numpy())
        obsm = {f"X_{key}": values.astype(np.float32) for key, values in features.items()}
        return ad.AnnData(obs=obs, obsm=obsm)
    x = np.loadtxt(folder / "scGEM_expression.csv", delimiter=",", dtype=np.float32)
    codes = np.loadtxt(folder / "scGEM_typeExpression.txt").astype(int) - 1
    stages = ["BJ", "d8", "d16T+", "d24T+", "iPS"]
    obs = pd.DataFrame(
        {"cell_type": build.categorical([stages[c] for c in codes], stages), "time": codes},
        index=[f"cell_{i}" for i in range(len(x))],
    )
    return build.build(x, obs, [f"gene_{i}" for i in range(x.shape[1])])


def sci_car(folder: Path):
    """RNA and open chromatin of the same 2,641 A549 cells: a MuData with ``rna`` and ``atac``.

    ``rna``: 1,185 genes, counts restored from log-normalised values (each cell's smallest value is a count of one). ``atac``:
    52,761 peaks as open (1) or closed (0); the file's weighted values cannot be taken back to counts; ``var``: ``chromosome``,
    ``start``, ``end``. ``obs["time"]`` (in both): 0, 1 or 3 hours of dexamethasone.
    """
    import mudata

    held = rfiles.only(folder / "data_A549.rda")
    hours = rfiles.frame(held["labels"])["Time"]
    logs, genes, cells = rfiles.matrix(held["data"]["RNA"])
    weights, peaks, same = rfiles.matrix(held["data"]["ATAC"])
    if cells != same or list(hours.index) != cells:
        raise FormatError("RNA, ATAC and labels do not list the same cells")
    obs = pd.DataFrame({"time": hours.to_numpy()}, index=cells)
    x, share = build.restore_counts(logs.T)
    rna = build.counts(x, obs, genes, uns={"scprimer": {"recovered": float(share)}})
    places = [p.split("-") for p in peaks]
    var = pd.DataFrame(
        {
            "chromosome": build.categorical(["chr" + "-".join(p[:-2]) for p in places]),
            "start": [int(p[-2]) for p in places],
            "end": [int(p[-1]) for p in places],
        },
        index=peaks,
    )
    opened = sp.csr_matrix(weights.T > 0, dtype=np.float32)
    with mudata.set_options(pull_on_update=False):
        paired = mudata.MuData({"rna": rna, "atac": build.counts(opened, obs, var)})
        paired.obs["time"] = obs["time"]
    paired.uns["scprimer"] = {"recovered": float(share)}
    return paired


def _table(matrix, cells: list[str]) -> pd.DataFrame:
    """A sparse R matrix of counts, features x cells, as a table of cells x features."""
    x, names, same = rfiles.matrix(matrix)
    if same != cells:
        raise FormatError("the modalities do not list the same cells")
    return pd.DataFrame(build.as_counts(x.T).toarray(), index=cells, columns=names)
