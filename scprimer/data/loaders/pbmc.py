"""Blood cells: the 10x PBMC sets."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import FormatError
from scprimer.data.loaders import build, rfiles


def pbmc3k(folder: Path) -> ad.AnnData:
    """10x PBMC 3k, raw and before cell filtering: 2,700 cells x 13,714 genes.

    ``obs["cell_type"]``: the nine cluster names of the well-known tutorial, made from the same counts; missing for the
    62 cells that the tutorial filtered out.
    """
    held = rfiles.read_r(folder / "pbmc3k.RData")["pbmc3k"]
    genes, cells = (rfiles.strings(names) for names in held["Dimnames"])
    x = sp.csc_matrix((rfiles.undo_run_lengths(held["x"]), held["i"], held["p"]), shape=tuple(held["Dim"]))
    types, order = rfiles.labels(held["cell_type"])
    obs = pd.DataFrame({"cell_type": build.categorical(types, order)}, index=cells)
    return build.counts(x.T, obs, genes)


def pbmc4k(folder: Path) -> ad.AnnData:
    """10x PBMC 4k, raw: 2,170 cells x 33,694 genes, with what the empty droplets hold.

    ``obs``: ``cell_type`` (coarse labels made from the same counts; ``"?"`` is the source's own word for unresolved
    cells), ``cluster``. ``obsm["X_tsne"]``: the source's layout. ``uns["droplets"]``: a table with ``n_umi`` of all
    737,280 barcodes, cells included. ``uns["ambient"]``: a table with one row a gene (in the order of ``var``):
    ``counts`` summed over the droplets that the source took for empty, and their ``fraction``.
    """
    held = rfiles.read_r(folder / "PBMC_sc.RData")["PBMC_sc"]
    cells = rfiles.frame(rfiles.read_r(folder / "PBMC_metaData.RData")["PBMC_metaData"])
    x, genes, barcodes = rfiles.matrix(held["toc"])
    cells = cells.loc[barcodes]
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(cells["Annotation"]),
            "cluster": build.categorical(cells["Cluster"], [str(i) for i in range(12)]),
        },
        index=barcodes,
    )
    adata = build.counts(x.T, obs, genes, obsm={"X_tsne": cells[["RD1", "RD2"]].to_numpy()})
    totals = held["nDropUMIs"]
    adata.uns["droplets"] = pd.DataFrame(
        {"n_umi": totals.values.astype("int32")}, index=pd.Index(totals.coords[totals.dims[0]].values, dtype=object)
    )
    soup = rfiles.frame(held["soupProfile"])
    adata.uns["ambient"] = pd.DataFrame(
        {"counts": soup["counts"].to_numpy(), "fraction": soup["est"].to_numpy()}, index=adata.var_names
    )
    return adata


def pbmc_chemistries(folder: Path) -> ad.AnnData:
    """Blood cells in three 10x chemistries: 1,200 cells x 1,767 variable genes.

    ``X`` is restored exactly: the file holds ``log(1 + 10,000 * count / nUMI)`` and ``nUMI``. ``obs``: ``cell_type``
    (9, made from the same RNA), ``cell_type_broad``, ``batch`` (3pv1, 3pv2, 5p: a chemistry, and also a donor of its
    own), ``donor`` (the same, as the source calls it), ``n_umi``, ``n_genes``, ``pct_mito`` (of all genes, not only those here).
    """
    logs, genes, barcodes = rfiles.matrix(rfiles.only(folder / "pbmcs_exprs_small.rda"))
    cells = rfiles.frame(rfiles.only(folder / "pbmcs_meta_small.rda"))
    if list(cells["cell_id"]) != barcodes:
        raise FormatError("expression and cell table do not list the same cells")
    total = cells["nUMI"].to_numpy()
    x = sp.csr_matrix(logs.T)
    x.data = np.expm1(x.data) * np.repeat(total, np.diff(x.indptr)) / 1e4
    whole = np.abs(x.data - np.rint(x.data)) < 1e-3
    x.data = np.rint(x.data)
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(cells["cell_type"]),
            "cell_type_broad": build.categorical(cells["cell_type_broad"]),
            "batch": build.categorical(cells["donor"]),
            "donor": build.categorical(cells["donor"]),
            "n_umi": total,
            "n_genes": cells["nGene"].to_numpy(),
            "pct_mito": 100 * cells["percent_mito"].to_numpy(),
        },
        index=barcodes,
    )
    return build.counts(x, obs, genes, uns={"scprimer": {"recovered": float(whole.mean())}})


def kang(folder: Path) -> ad.AnnData:
    """Blood cells with and without interferon beta, raw: 2,000 cells x 9,015 genes.

    ``obs["condition"]``: control, stimulated. There are no cell types here; ``kang-donors`` has some for 114 of these cells.
    """
    held = rfiles.read_r(folder / "pbmc_stim.RData")
    blocks, barcodes, conditions, genes = [], [], [], None
    for name, condition in (("pbmc.ctrl", "control"), ("pbmc.stim", "stimulated")):
        x, rows, columns = rfiles.matrix(held[name])
        if genes is not None and rows != genes:
            raise FormatError("the two conditions do not list the same genes")
        genes = rows
        blocks.append(x.T)
        barcodes += columns
        conditions += [condition] * len(columns)
    obs = pd.DataFrame({"condition": build.categorical(conditions)}, index=barcodes)
    return build.counts(sp.vstack(blocks), obs, genes)


def kang_donors(folder: Path) -> ad.AnnData:
    """The same study with labels: 1,556 cells x 1,267 genes, raw.

    ``obs``: ``cell_type`` (5), ``condition`` (control, stimulated), ``donor`` (101, 107), ``sample``. ``obsm["X_tsne"]``.
    Genes carry their symbols (``var["name"]`` keeps the names of the file, 91 of which have the id appended), ``var["ensembl"]``.
    """
    sce = rfiles.only(folder / "example_sce.rda")
    assays, genes, cells = rfiles.experiment(sce)
    var = pd.DataFrame({"ensembl": genes["ENSEMBL"], "name": genes.index}).set_index(genes["SYMBOL"].to_numpy())
    sample = cells["sample_id"].astype(str)
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(cells["cluster_id"]),
            "condition": build.categorical(cells["group_id"].map({"ctrl": "control", "stim": "stimulated"})),
            "donor": build.categorical(sample.str[-3:]),
            "sample": build.categorical(sample),
        },
        index=cells.index,
    )
    tsne = sce.int_colData.listData["reducedDims"].listData["TSNE"].values
    return build.counts(assays["counts"].T, obs, var, obsm={"X_tsne": tsne})
