"""Blood cells: the 10x PBMC sets."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pandas as pd
import scipy.sparse as sp

from scprimer.data.loaders import build, rfiles


def pbmc3k(folder: Path) -> ad.AnnData:
    """10x PBMC 3k, raw and before cell filtering: 2,700 cells x 13,714 genes.

    ``obs["cell_type"]``: the nine cluster names of the well-known tutorial, made from the same counts; missing for the
    62 cells that the tutorial filtered out.
    """
    held = rfiles.read_r(folder / "pbmc3k.RData")["pbmc3k"]
    genes, cells = (rfiles.strings(names) for names in held["Dimnames"])
    x = sp.csc_matrix((rfiles.undo_run_lengths(held["x"]), held["i"], held["p"]), shape=tuple(held["Dim"]))
    types = held["cell_type"]
    obs = pd.DataFrame({"cell_type": build.categorical(types, [str(c) for c in types.categories])}, index=cells)
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
