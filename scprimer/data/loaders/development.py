"""Cells on their way: velocity, real time, lineage."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import FormatError
from scprimer.data.loaders import build, hdf5, rfiles

# The cluster codes of the full data set, named by the 739 cells that both files hold (all 739 agree).
PANCREAS_STATES = (
    "Ductal", "Ngn3 low EP", "Ngn3 high EP", "Pre-endocrine", "Beta", "Alpha", "Delta", "Epsilon",
)  # fmt: skip


def pancreas_velocity(folder: Path, part: str) -> ad.AnnData | dict[str, pd.DataFrame]:
    """Mouse pancreas at day 15.5, spliced and unspliced counts: 739 cells x 7,192 genes.

    ``part="cells"``: ``X`` and ``layers["spliced"]`` hold spliced counts, ``layers["unspliced"]`` unspliced ones;
    ``obs["cell_type"]`` (8 states), ``obsm["X_pca"]`` (the source's 50 components).
    ``part="merfish-velocity"``: another experiment in the same package, 40 U-2 OS cells by MERFISH x 5,084 genes: a dict
    of two tables, genes x cells, ``current`` and ``projected``, as velocyto estimated them.
    """
    if part == "merfish-velocity":
        held = rfiles.only(folder / "vel.rda")
        return {
            str(name): pd.DataFrame(
                table.values,
                index=rfiles.strings(table.coords[table.dims[0]].values),
                columns=rfiles.strings(table.coords[table.dims[1]].values),
            )
            for name, table in held.items()
        }
    held = rfiles.only(folder / "pancreas.rda")
    spliced, genes, cells = rfiles.matrix(held["spliced"])
    unspliced, *names = rfiles.matrix(held["unspliced"])
    states, order = rfiles.labels(held["clusters"])
    if names != [genes, cells] or list(states.index) != cells:
        raise FormatError("spliced, unspliced and labels do not list the same genes and cells")
    obs = pd.DataFrame({"cell_type": build.categorical(states, order)}, index=cells)
    return _velocity(spliced, unspliced, obs, genes, held["pcs"].values)


def pancreas_velocity_full(folder: Path) -> ad.AnnData:
    """The same tissue, all 3,696 cells x 2,000 variable genes: spliced (``X`` and layer) and unspliced counts.

    ``obs``: ``cell_type`` (8; the file holds codes, named here through the 739 cells shared with ``pancreas-velocity``),
    ``cluster`` and ``cluster_coarse`` (the codes), ``s_score``, ``g2m_score``, ``n_spliced``, ``n_unspliced`` (totals over all genes).
    """
    held = rfiles.only(folder / "pancreas.rda")
    spliced, genes, cells = rfiles.matrix(held["emat"])
    unspliced, *names = rfiles.matrix(held["nmat"])
    meta = rfiles.frame(held["meta"])
    if names != [genes, cells] or list(meta.index) != cells:
        raise FormatError("spliced, unspliced and cell table do not list the same genes and cells")
    codes = meta["clusters"].to_numpy()
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical([PANCREAS_STATES[c] for c in codes], PANCREAS_STATES),
            "cluster": build.categorical(codes),
            "cluster_coarse": build.categorical(meta["clusters.coarse"]),
            "s_score": meta["S.score"],
            "g2m_score": meta["G2M.score"],
            "n_spliced": meta["nCount.spliced"],
            "n_unspliced": meta["nCount.unspliced"],
        },
        index=cells,
    )
    return _velocity(spliced, unspliced, obs, genes)


def _velocity(spliced, unspliced, obs: pd.DataFrame, genes: list[str], pca: np.ndarray | None = None) -> ad.AnnData:
    x = build.as_counts(spliced.T)
    layers = {"spliced": x.copy(), "unspliced": build.as_counts(unspliced.T)}
    return build.build(x, obs, genes, layers=layers, obsm={} if pca is None else {"X_pca": pca})


def worm_embryo(folder: Path) -> ad.AnnData:
    """Ciliated amphid neurons of the *C. elegans* embryo, raw: 1,805 cells x 10,000 genes.

    ``obs``: ``cell_type`` (9), ``time`` (estimated embryo time in minutes, 210 to 780), ``time_bin``, ``time_point`` (when the
    embryos were taken), ``lineage`` (name in the known lineage; missing for 106 cells, ``/`` between two possible ones),
    ``batch`` (7), ``n_umi``, and ``background_*``: the source's scores for ambient RNA of each batch. ``var["ensembl"]``:
    WormBase ids; names are symbols.
    """
    x, ids, cells = rfiles.matrix(rfiles.read_r(folder / "worm_embryo_expression_matrix.rds"))
    meta = rfiles.dframe(rfiles.read_r(folder / "worm_embryo_coldata.rds"))
    genes = rfiles.dframe(rfiles.read_r(folder / "worm_embryo_rowdata.rds"))
    if list(meta["cell"]) != cells or list(genes["id"]) != ids:
        raise FormatError("matrix, cell table and gene table do not fit")
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(meta["cell.type"]),
            "time": meta["embryo.time"].to_numpy(),
            "time_bin": build.categorical(*_levels(meta["embryo.time.bin"])),
            "time_point": build.categorical(*_levels(meta["time.point"])),
            "lineage": build.categorical(meta["lineage"]),
            "batch": build.categorical(*_levels(meta["batch"])),
            "n_umi": meta["n.umi"].astype("int64").to_numpy(),
        },
        index=cells,
    )
    for column in meta:
        if column.startswith("bg."):
            obs["background_" + column[3:].removesuffix(".loading").replace(".", "_")] = meta[column].to_numpy()
    var = pd.DataFrame({"ensembl": ids}, index=genes["gene_short_name"].to_numpy())
    return build.counts(x.T, obs, var)


def larry(folder: Path) -> ad.AnnData:
    """Blood formation with lineage barcodes (LARRY): 781 cells x 2,481 genes.

    ``X``: counts, restored from values scaled to 10,000 a cell (every value is a whole multiple of its cell's smallest); the
    values as they were are in ``layers["scaled"]``. ``obs``: ``time`` (day 2, 4, 6), ``cell_type`` (12 states), ``clone``.
    ``obsm``: ``X_clone`` (cells x 339 clones, one a cell), ``X_emb`` (the source's layout), ``X_pca``, ``X_umap``.
    """
    held = hdf5.read_h5ad(folder / "test_adata_preprocessed.h5ad")
    scaled = sp.csr_matrix(held.X)
    x, share = build.restore_counts(scaled, undo=lambda v: v)
    clones = sp.csr_matrix(held.obsm["X_clone"], dtype=np.float32)
    table = pd.read_csv(folder / "clonal_data_in_table_format.txt")
    clone = table["Clone_ID"].str.removeprefix("clone_").to_numpy()
    if not (clones.sum(axis=1) == 1).all() or (np.asarray(clones.argmax(axis=1)).ravel() != clone.astype(int)).any():
        raise FormatError("the clone matrix and the clone table disagree")
    obs = pd.DataFrame(
        {
            "time": held.obs["time_info"].astype(int).to_numpy(),
            "cell_type": build.categorical(held.obs["state_info"]),
            "clone": build.categorical(clone),
        },
        index="cell_" + held.obs_names,
    )
    obsm = {"X_clone": clones, **{key: held.obsm[key] for key in ("X_emb", "X_pca", "X_umap")}}
    uns = {"scprimer": {"recovered": float(share)}}
    return build.counts(x, obs, list(held.var_names), layers={"scaled": scaled.astype(np.float32)}, obsm=obsm, uns=uns)


def paul(folder: Path) -> ad.AnnData:
    """Blood progenitors of the mouse, raw: 2,660 cells x 240 genes.

    ``obs``: ``cell_type`` (7), ``slingshot_cluster``, ``pseudotime_1`` and ``pseudotime_2`` (Slingshot's two lineages, missing for
    cells off the lineage). ``obsm["X_reduced"]``: the two dimensions in which the source ran Slingshot.
    """
    x, genes, cells = rfiles.matrix(rfiles.only(folder / "countMatrix.rda"))
    types = rfiles.strings(rfiles.only(folder / "celltype.rda"))
    curves = rfiles.only(folder / "crv.rda")
    memberships = curves.clusterLabels
    clusters = np.asarray(rfiles.strings(memberships.coords[memberships.dims[1]].values))
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(types),
            "slingshot_cluster": build.categorical(clusters[memberships.values.argmax(axis=1)]),
        },
        index=cells,
    )
    for number, curve in enumerate(curves.curves.values(), start=1):
        on = curve["w"].values > 0
        obs[f"pseudotime_{number}"] = np.where(on, curve["lambda"].values, np.nan)
    return build.counts(x.T, obs, genes, obsm={"X_reduced": curves.reducedDim.values})


def guo(folder: Path) -> ad.AnnData:
    """Mouse embryos from two to 64 cells by quantitative PCR: 428 cells x 48 genes.

    ``X`` holds normalised expression on a log2 scale (dense, no counts). ``obs``: ``stage`` (2C ... 64C), ``n_cells`` (2 ... 64,
    the number of cells of the embryo), ``time`` (number of divisions, 1 to 6), ``embryo``.
    """
    held = rfiles.only(folder / "guo.rda")
    values = held.assayData["exprs"]
    cells = rfiles.frame(held.phenoData.data)
    name = cells["Cell"].astype(str)
    stage, position = name.str.split(" ").str[0], name.str.split(" ").str[1]
    order = ["2C", "4C", "8C", "16C", "32C", "64C"]
    obs = pd.DataFrame(
        {
            "stage": build.categorical(stage, order),
            "n_cells": cells["num_cells"].to_numpy(),
            "time": np.log2(cells["num_cells"].to_numpy()).astype(int),
            "embryo": build.categorical(stage + "_" + position.str.split(".").str[0]),
        }
    ).set_index(name.str.replace(" ", "_").to_numpy())
    genes = rfiles.strings(values.coords[values.dims[0]].values)
    return build.build(values.values.T.astype(np.float32), obs, genes)


def _levels(factor: pd.Series) -> tuple[np.ndarray, list[str]]:
    """A factor column as what :func:`build.categorical` takes: values, and those levels that occur, in R's order."""
    there = set(factor.dropna().astype(str))
    return factor.to_numpy(), [str(c) for c in factor.cat.categories if str(c) in there]
