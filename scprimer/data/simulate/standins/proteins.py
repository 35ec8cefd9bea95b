"""Stand-ins of the sets with RNA and proteins in the same cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ..layers import add_ambient
from ..mixtures import antibody_counts
from ..populations import populations, profiles
from . import blood
from .common import as_loaded, barcodes, categorical
from .droplets import CARRIED

BIOLOGY_SEED = 8_617
PANELS = {
    "10k": "CD3 CD4 CD8a CD14 CD15 CD16 CD56 CD19 CD25 CD45RA CD45RO PD-1 TIGIT CD127",
    "5k": "CD3 CD4 CD8a CD11b CD14 CD15 CD16 CD19 CD20 CD25 CD27 CD28 CD34 CD45RA CD45RO CD56 CD62L CD69 CD80 CD86 CD127 CD137 "
    "CD197 CD274 CD278 CD335 PD-1 HLA-DR TIGIT",
}
SHARES = {
    "Naive CD4 T": 0.25, "Memory CD4 T": 0.2, "CD8 T": 0.12, "NK": 0.1, "B": 0.11, "CD14+ Mono": 0.17, "FCGR3A+ Mono": 0.03,
    "DC": 0.02,
}  # fmt: skip


def pbmc_citeseq(seed: int, part: str | None, *, n_cells: int = 300, n_genes: int = 1500) -> ad.AnnData:
    """Blood cells with antibody counts, without labels; the types are in ``uns["truth"]["cells"]``."""
    table, genes = blood.shifted(n_genes, 0.4, 10 if part == "10k" else 5)
    cells = populations(
        n_cells, biology=(table[list(SHARES)], genes), proportions=list(SHARES.values()), mito=(0.06, 0.4),
        library_size=(3_000, 0.45), seed=seed + (6_000_000 if part == "10k" else 7_000_000),
    )  # fmt: skip
    cells = add_ambient(cells, 0.04, seed=seed)
    panel = PANELS[part].split()
    levels = 2.5 * pd.DataFrame({p: {t: CARRIED[t].get(p.removesuffix("a"), 0.0) for t in SHARES} for p in panel})
    background = pd.Series(
        np.exp(np.random.default_rng([BIOLOGY_SEED, len(panel)]).normal(2, 0.8, len(panel))), index=panel
    )
    counts, truth = antibody_counts(cells.obs["cell_type"].astype(str), levels, background, seed=seed)
    cells.obs["stickiness"] = truth["stickiness"].to_numpy()
    cells.uns["truth"]["protein_levels"] = levels.T
    codes = barcodes(np.random.default_rng([seed, 41]), n_cells, 16, "-1")
    adata = as_loaded(cells, "pbmc-citeseq", part, seed=seed, obs=pd.DataFrame(index=range(n_cells)), names=codes)
    adata.obsm["protein"] = counts.set_axis(adata.obs_names)
    return adata


# Cord blood: label -> (share, blood type whose profile it takes or None for one of its own, clusters, proteins carried)
CORD = {
    "B": (0.06, "B", ["6"], {"CD19": 150, "CD45RA": 150}),
    "CD14+ Mono": (0.27, "CD14+ Mono", ["2", "9"], {"CD14": 60, "CD11c": 200, "CD4": 25}),
    "CD16+ Mono": (0.04, "FCGR3A+ Mono", ["8"], {"CD16": 150, "CD11c": 250}),
    "CD34+": (0.03, "HSC", ["10", "12"], {"CD34": 150}),
    "CD4 T": (0.30, "Naive CD4 T", ["1", "3"], {"CD3": 150, "CD4": 150, "CD45RA": 40}),
    "CD8 T": (0.05, "CD8 T", ["7"], {"CD3": 130, "CD8": 250, "CD45RA": 70}),
    "DC": (0.02, "DC", ["14"], {"CD11c": 180, "CD4": 15}),
    "Eryth": (0.02, None, ["12"], {}),
    "Mk": (0.02, "Platelet", ["13"], {}),
    "Mouse": (0.07, None, ["5"], {}),
    "NK": (0.09, "NK", ["4"], {"CD56": 90, "CD16": 130, "CD45RA": 130, "CD8": 15}),
    "Unknown": (0.015, "NK", ["4"], {"CD3": 60, "CD8": 150, "CD45RA": 120, "CD56": 90, "CD16": 150, "CD11c": 100, "CD14": 60, "CD19": 60}),
    "pDC": (0.015, None, ["15"], {"CD4": 70, "CD45RA": 60}),
}  # fmt: skip
CORD_PROTEINS = ("CD3", "CD4", "CD8", "CD45RA", "CD56", "CD16", "CD11c", "CD14", "CD19", "CD34")


def cbmc_citeseq(seed: int, part: str | None, *, n_cells: int = 600, n_genes: int = 1500) -> ad.AnnData:
    """Cord blood with ten proteins, centred and scaled as in the file; mouse cells among them; genes without names."""
    table = _cord(n_genes)
    types = list(CORD)
    cells = populations(
        n_cells, biology=table, proportions=[CORD[t][0] for t in types], type_size={"Mouse": 8.0, "Eryth": 5.0, "CD34+": 2.0},
        library_size=(900, 0.4), mito=None, seed=seed + 9_000_000,
    )  # fmt: skip
    cells = add_ambient(cells, 0.04, seed=seed)
    label = cells.obs["cell_type"].astype(str)
    levels = pd.DataFrame({p: {t: float(CORD[t][3].get(p, 0.0)) for t in types} for p in CORD_PROTEINS})
    background = pd.Series([12, 14, 10, 12, 8, 10, 12, 16, 6, 10], index=CORD_PROTEINS, dtype=float)
    counts, truth = antibody_counts(label, levels, background, stickiness=0.3, seed=seed)
    logged = np.log1p(counts)
    centred = logged.sub(logged.mean(axis=1), axis=0)
    cells.obs["stickiness"] = truth["stickiness"].to_numpy()
    cells.uns["truth"]["protein_levels"] = levels.T
    rng = np.random.default_rng([seed, 42])
    cluster = [CORD[t][2][rng.integers(len(CORD[t][2]))] for t in label]
    cluster = [
        "11" if u < 0.015 else c for u, c in zip(rng.random(n_cells), cluster)
    ]  # the source's cluster of doublets
    obs = pd.DataFrame(
        {"cell_type": categorical(label), "cluster": categorical(np.array([int(c) for c in cluster], dtype=int))}
    )
    adata = as_loaded(cells, "cbmc-citeseq", part, seed=seed, obs=obs, names=barcodes(rng, n_cells))
    adata.obsm["protein"] = ((centred - centred.mean()) / centred.std()).astype(np.float32).set_axis(adata.obs_names)
    adata.uns["truth"]["protein_counts"] = counts.set_axis(adata.obs_names)
    return adata


def _cord(n_genes: int) -> pd.DataFrame:
    """Profiles of the labels: blood types, types of their own, and mouse cells that express other genes."""
    mouse_genes = n_genes // 6
    table, _ = blood.biology(max(n_genes - mouse_genes, 1300))
    table = table.iloc[: n_genes - mouse_genes]
    own, _ = profiles(
        len(table), type_names=["Eryth", "pDC"], markers_per_type=40, marker_log2fc=5, mito=False, seed=BIOLOGY_SEED,
        gene_names=list(table.index), log_sd=1.9,
    )  # fmt: skip
    mouse, _ = profiles(mouse_genes, type_names=["Mouse"], markers_per_type=0, mito=False, seed=BIOLOGY_SEED + 1)
    human = pd.DataFrame(
        {t: table[source] if source else own.get(t) for t, (_, source, _, _) in CORD.items() if t != "Mouse"}
    )
    both = pd.concat([human / human.sum(), mouse.set_axis([f"mouse_{g}" for g in mouse.index])]).fillna(0.0)[list(CORD)]
    return both.set_axis([f"gene_{i}" for i in range(len(both))])
