"""Tissues across species."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pandas as pd

from scprimer.data.errors import FormatError
from scprimer.data.loaders import build, rfiles


def pancreas_species(folder: Path) -> ad.AnnData:
    """Pancreas of human and mouse on one-to-one orthologues, raw: 350 cells x 12,474 genes (human symbols).

    ``obs``: ``cell_type`` (5 x 70), ``species`` (175 each, also as ``batch``), ``donor`` (4 humans, 2 mice), ``duplicate``: True for
    22 rows that repeat an earlier one, since rare mouse types were drawn with replacement. Leave them out before any
    split or graph of neighbours: ``adata[~adata.obs["duplicate"]]`` has 328 cells.
    """
    held = rfiles.only(folder / "pancreas.RData")
    x, genes, cells = rfiles.matrix(held.assays["RNA"].counts)
    meta = rfiles.frame(getattr(held, "meta.data"))
    # The table appends .1, .2, ... to a cell's name where the cell occurs again.
    known = set(cells)
    if [name if name in known else name.rpartition(".")[0] for name in meta.index] != cells:
        raise FormatError("counts and cell table do not list the same cells")
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(meta["Group"]),
            "species": build.categorical(meta["Batch"]),
            "batch": build.categorical(meta["Batch"]),
            "donor": build.categorical(meta["Sample"]),
            "duplicate": pd.Series(cells).duplicated().to_numpy(),
        },
        index=list(meta.index),
    )
    return build.counts(x.T, obs, genes)
