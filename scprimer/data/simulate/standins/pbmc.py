"""Stand-ins of the 10x blood sets."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ..layers import add_ambient, add_doublets, damage
from ..populations import populations
from . import blood
from .common import as_loaded, barcodes, categorical

# Proportions as in the data set, but platelets and dendritic cells raised so that a small stand-in has some of each.
PBMC3K = {
    "Naive CD4 T": 0.26, "Memory CD4 T": 0.18, "CD14+ Mono": 0.18, "B": 0.13, "CD8 T": 0.10, "FCGR3A+ Mono": 0.06,
    "NK": 0.06, "DC": 0.02, "Platelet": 0.015, "HSC": 0.0,
}  # fmt: skip
TYPE_ORDER = [t for t in PBMC3K if t != "HSC"]


def pbmc3k(seed: int, part: str | None, *, n_cells: int = 500, n_genes: int = 1500) -> ad.AnnData:
    """Nine cell types with canonical markers; about 3 % doublets, 3 % ambient RNA, 3 % damaged cells.

    As in the data set, cells that the tutorial's filter would remove carry no label: here the damaged ones.
    """
    cells = populations(
        round(n_cells * 1.031), biology=blood.biology(n_genes), proportions=PBMC3K, type_size=blood.TYPE_SIZE,
        library_size=(2000, 0.32), seed=seed,
    )  # fmt: skip
    cells = damage(cells, 0.03, loss=(0.55, 0.9), seed=seed)
    cells = add_doublets(cells, 0.03, seed=seed)[:n_cells].copy()
    cells = add_ambient(cells, 0.03, seed=seed)
    labels = cells.obs["cell_type"].astype(object).where(~cells.obs["damaged"], None)
    obs = pd.DataFrame({"cell_type": categorical(labels, TYPE_ORDER)})
    rng = np.random.default_rng([seed, 21])
    return as_loaded(cells, "pbmc3k", part, seed=seed, obs=obs, names=barcodes(rng, cells.n_obs, 14))
