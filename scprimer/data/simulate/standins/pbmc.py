"""Stand-ins of the 10x blood sets."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ..counts import library_sizes, totals
from ..layers import add_ambient, add_doublets, add_jackpots, damage
from ..populations import populations
from . import blood
from .common import as_loaded, barcodes, categorical

# Proportions as in the data set, but platelets and dendritic cells raised so that a small stand-in has some of each.
PBMC3K = {
    "Naive CD4 T": 0.26, "Memory CD4 T": 0.18, "CD14+ Mono": 0.18, "B": 0.13, "CD8 T": 0.10, "FCGR3A+ Mono": 0.06,
    "NK": 0.06, "DC": 0.02, "Platelet": 0.015, "HSC": 0.0,
}  # fmt: skip
TYPE_ORDER = [t for t in PBMC3K if t != "HSC"]


def pbmc3k(
    seed: int, part: str | None, *, n_cells: int = 500, n_genes: int = 1500, jackpots: float = 0.0
) -> ad.AnnData:
    """Nine cell types with canonical markers; about 3 % doublets, 3 % ambient RNA, 3 % damaged cells.

    ``jackpots``: entries blown up a cell (see :func:`add_jackpots`). With ``n_cells=2700, n_genes=13_714, jackpots=1`` the stand-in
    has the size and about the statistics of the data set, for :func:`draw_realism`.

    As in the data set, cells that the tutorial's filter would remove carry no label: here the damaged ones.
    """
    cells = populations(
        round(n_cells * 1.031), biology=blood.biology(n_genes), proportions=PBMC3K, type_size=blood.TYPE_SIZE, programs=blood.programs(n_genes),
        library_size=(2000, 0.33), seed=seed,
    )  # fmt: skip
    cells = damage(cells, 0.03, loss=(0.55, 0.9), seed=seed)
    cells = add_doublets(cells, 0.03, seed=seed)[:n_cells].copy()
    cells = add_ambient(cells, 0.03, seed=seed)
    if jackpots:
        cells = add_jackpots(cells, jackpots, seed=seed)
    labels = cells.obs["cell_type"].astype(object).where(~cells.obs["damaged"], None)
    obs = pd.DataFrame({"cell_type": categorical(labels, TYPE_ORDER)})
    rng = np.random.default_rng([seed, 21])
    return as_loaded(cells, "pbmc3k", part, seed=seed, obs=obs, names=barcodes(rng, cells.n_obs, 14))


# pbmc4k: coarse labels, and the clusters behind each of them as (name, blood type, share of the label)
PBMC4K = {
    "T_CD4": (0.295, {"Naive CD4 T": 0.62, "Memory CD4 T": 0.38}),
    "MNP": (0.275, {"CD14+ Mono": 0.76, "FCGR3A+ Mono": 0.12, "DC": 0.12}),
    "T_CD8": (0.185, {"CD8 T": 1.0}),
    "B": (0.14, {"B": 1.0}),
    "NK": (0.095, {"NK": 1.0}),
    "?": (0.01, {"Platelet": 1.0}),
}
CLUSTERS = {  # type -> the source's cluster numbers
    "CD14+ Mono": ["0"], "Naive CD4 T": ["1"], "Memory CD4 T": ["2"], "CD8 T": ["3", "5"], "B": ["4", "7"], "NK": ["6", "8"],
    "FCGR3A+ Mono": ["9"], "DC": ["10"], "Platelet": ["11"],
}  # fmt: skip


def pbmc4k(
    seed: int, part: str | None, *, n_cells: int = 500, n_genes: int = 1500, n_barcodes: int = 30_000
) -> ad.AnnData:
    """The same blood as the stand-in of pbmc3k, deeper and by another chemistry, with the totals of all barcodes.

    Every gene is shifted by a factor of its own against pbmc3k (``uns["truth"]["genes"]["experiment_log2fc"]``). About 5 %
    of a cell's molecules are ambient; the soup in ``uns["ambient"]`` is counted in the empty droplets.
    """
    shares = {t: share * within for share, types in PBMC4K.values() for t, within in types.items()}
    proportions = [shares.get(t, 0.0) for t in blood.TYPES]
    cells = populations(
        2 * n_cells, biology=blood.shifted(n_genes, 0.5, 4), proportions=proportions, type_size=blood.TYPE_SIZE, programs=blood.programs(n_genes),
        library_size=(3_500, 0.35), seed=seed + 4_000_000,
    )  # fmt: skip
    cells = damage(cells, 0.02, seed=seed)
    cells = add_doublets(cells, 0.03, seed=seed)
    cells = add_ambient(cells, 0.05, seed=seed)
    # as in the data, half of the cells are in the matrix and all of them among the barcodes
    rng = np.random.default_rng([seed, 22])
    all_totals = totals(cells.X).astype("int32")
    cells = cells[:n_cells].copy()
    n_empty = n_barcodes - len(all_totals)
    if n_empty < 100:
        raise ValueError(f"n_barcodes={n_barcodes}: at least {len(all_totals) + 100} are needed")
    wet = rng.random(n_empty) < 0.06  # droplets with a full share of soup; the other barcodes are errors and splinters
    empty = rng.poisson(np.where(wet, library_sizes(rng, n_empty, 70, 0.4), rng.gamma(0.25, 6.0, n_empty))).astype(
        "int32"
    )
    names = barcodes(rng, n_barcodes)
    droplets = pd.DataFrame({"n_umi": np.concatenate([all_totals, empty])}, index=pd.Index(names, dtype=object))

    types = cells.obs["cell_type"].astype(str).to_numpy()
    label = {t: name for name, (_, held) in PBMC4K.items() for t in held}
    cluster = [CLUSTERS[t][rng.integers(len(CLUSTERS[t]))] for t in types]
    obs = pd.DataFrame(
        {
            "cell_type": categorical([label[t] for t in types]),
            "cluster": categorical(cluster, [str(i) for i in range(12)]),
        }
    )
    adata = as_loaded(cells, "pbmc4k", part, seed=seed, obs=obs, names=names[:n_cells])
    centres = np.random.default_rng(blood.BIOLOGY_SEED).uniform(-35, 35, (12, 2))
    adata.obsm["X_tsne"] = centres[[int(c) for c in cluster]] + rng.normal(0, 3, (n_cells, 2))
    counts = rng.multinomial(int(empty[empty < 100].sum()), adata.uns["truth"]["soup"]["share"]).astype(float)
    adata.uns["droplets"] = droplets.sort_index()
    adata.uns["ambient"] = pd.DataFrame({"counts": counts, "fraction": counts / counts.sum()}, index=adata.var_names)
    return adata
