"""Stand-ins of the 10x blood sets."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ..counts import library_sizes, totals
from ..layers import add_ambient, add_doublets, add_jackpots, damage
from ..populations import populations
from . import blood
from .common import as_loaded, barcodes, categorical, ensembl_ids

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

    ``jackpots``: entries blown up a cell (see :func:`add_jackpots`). With ``n_cells=2700, n_genes=13_714, jackpots=3`` the stand-in
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


# ---- three chemistries -----------------------------------------------------------------------------------------
CHEMISTRIES = {"3pv1": ("threepv1", 0.24, 600), "3pv2": ("threepfresh", 0.40, 1_150), "5p": ("fivePrime", 0.36, 1_400)}
CHEMISTRY_TYPES = {  # label -> (share, types behind it)
    "B": (0.14, {"B": 1.0}), "DC": (0.025, {"DC": 1.0}), "HSC": (0.01, {"HSC": 1.0}), "MK": (0.012, {"Platelet": 1.0}),
    "Mono_CD14": (0.22, {"CD14+ Mono": 1.0}), "Mono_CD16": (0.05, {"FCGR3A+ Mono": 1.0}), "NK": (0.053, {"NK": 1.0}),
    "T_CD4": (0.30, {"Naive CD4 T": 0.6, "Memory CD4 T": 0.4}), "T_CD8": (0.19, {"CD8 T": 1.0}),
}  # fmt: skip


def pbmc_chemistries(seed: int, part: str | None, *, n_cells: int = 500, n_genes: int = 1200) -> ad.AnnData:
    """Nine types of blood cells in three chemistries, each of which shifts every gene by a factor of its own.

    The factors are in ``uns["truth"]["batch_log2fc"]``. ``n_umi``, ``n_genes`` and ``pct_mito`` are, as in the data, of more genes than
    the ones here.
    """
    table, genes = blood.biology(max(n_genes, 1500))
    rng = np.random.default_rng([seed, 23])
    profile = blood.merged(table, {label: types for label, (_, types) in CHEMISTRY_TYPES.items()})
    nuclear = profile.index[~profile.index.str.startswith("MT-")]
    most = profile.loc[nuclear].max(axis=1).sort_values(ascending=False, kind="stable").index[:n_genes]
    kept = profile.index[profile.index.isin(most)]  # the set holds variable genes, without mitochondrial ones
    shift = np.random.default_rng([blood.BIOLOGY_SEED, 3]).normal(0, 0.6, (len(kept), 3))
    parts = []
    for i, (batch, (prefix, share, umis)) in enumerate(CHEMISTRIES.items()):
        cells = populations(
            round(share * n_cells), biology=(profile.loc[kept].mul(2.0 ** shift[:, i], axis=0), genes.loc[kept]),
            proportions=[s for s, _ in CHEMISTRY_TYPES.values()], library_size=(umis, 0.45), mito=None, seed=3 * seed + i + 3_000_000,
        )  # fmt: skip
        cells.obs["batch"] = batch
        cells.obs_names = [f"{prefix}_{code}" for code in barcodes(rng, cells.n_obs)]
        parts.append(cells)
    cells = ad.concat(parts)
    cells = cells[rng.permutation(cells.n_obs)].copy()
    cells.uns["truth"] = {
        "profiles": profile.loc[kept], "genes": parts[0].uns["truth"]["genes"],
        "batch_log2fc": pd.DataFrame(shift, index=kept, columns=list(CHEMISTRIES)),
    }  # fmt: skip
    labels = cells.obs["cell_type"].astype(str)
    broad = labels.replace({"T_CD4": "T", "T_CD8": "T", "Mono_CD14": "Mono", "Mono_CD16": "Mono"})
    umis = totals(cells.X)
    obs = pd.DataFrame(
        {
            "cell_type": categorical(labels), "cell_type_broad": categorical(broad), "batch": categorical(cells.obs["batch"]),
            "donor": categorical(cells.obs["batch"]), "n_umi": (umis * rng.uniform(3.2, 4.2, cells.n_obs)).astype("int32"),
            "n_genes": (np.diff(cells.X.indptr) * rng.uniform(5.0, 6.5, cells.n_obs)).astype("int32"),
            "pct_mito": np.exp(rng.normal(1.15, 0.45, cells.n_obs)),
        }
    )  # fmt: skip
    adata = as_loaded(cells, "pbmc-chemistries", part, seed=seed, obs=obs)
    adata.uns["scprimer"]["recovered"] = 1.0
    return adata


# ---- interferon ------------------------------------------------------------------------------------------------
KANG_TYPES = {
    "CD14+ Monocytes": (0.26, {"CD14+ Mono": 1.0}), "CD4 T cells": (0.26, {"Naive CD4 T": 0.6, "Memory CD4 T": 0.4}),
    "B cells": (0.19, {"B": 1.0}), "FCGR3A+ Monocytes": (0.16, {"FCGR3A+ Mono": 1.0}), "CD8 T cells": (0.13, {"CD8 T": 1.0}),
}  # fmt: skip


def kang(seed: int, part: str | None, *, n_cells: int = 500, n_genes: int = 1500) -> ad.AnnData:
    """Blood with and without interferon beta, half each, without labels; the types are in ``uns["truth"]["cells"]``.

    ``uns["truth"]["genes"]["interferon_log2fc"]``: what the stimulation does to each gene.
    """
    shares = {"NK": 0.08, "DC": 0.02, **{t: 0.9 * s * w for s, types in KANG_TYPES.values() for t, w in types.items()}}
    table, genes = blood.shifted(n_genes, 0.45, 7)
    cells = _stimulated(seed + 8_000_000, n_cells, table[list(shares)], genes, list(shares.values()), n_donors=8)
    obs = pd.DataFrame({"condition": categorical(cells.obs["condition"])})
    names = barcodes(np.random.default_rng([seed, 24]), cells.n_obs, 14, "-1")
    return as_loaded(cells, "kang", part, seed=seed, obs=obs, names=names)


def kang_donors(seed: int, part: str | None, *, n_cells: int = 500, n_genes: int = 1200) -> ad.AnnData:
    """The same with five labelled types and two donors. (The real sets share 114 cells; these stand-ins share none.)"""
    table, genes = blood.shifted(max(n_genes, 1500), 0.45, 7)
    profile = blood.merged(table, {label: types for label, (_, types) in KANG_TYPES.items()})
    nuclear = profile.index[~profile.index.str.startswith("MT-")]
    kept = profile.index[profile.index.isin(profile.loc[nuclear].max(axis=1).nlargest(n_genes).index)]
    cells = _stimulated(
        seed + 5_000_000, n_cells, profile.loc[kept], genes.loc[kept], [s for s, _ in KANG_TYPES.values()], n_donors=2
    )
    rng = np.random.default_rng([seed, 25])
    donor = cells.obs["donor"].map({"donor_1": "101", "donor_2": "107"}).astype(str)
    short = cells.obs["condition"].map({"control": "ctrl", "stimulated": "stim"}).astype(str)
    obs = pd.DataFrame(
        {
            "cell_type": categorical(cells.obs["cell_type"].astype(str)), "condition": categorical(cells.obs["condition"]),
            "donor": categorical(donor), "sample": categorical(short + donor),
        }
    )  # fmt: skip
    names = np.array(kept, dtype=object)
    ids = np.array(ensembl_ids(len(kept)), dtype=object)
    var = pd.DataFrame(
        {"ensembl": ids, "name": np.where(np.arange(len(kept)) % 14, names, names + "_" + ids)}, index=names
    )
    codes = barcodes(rng, cells.n_obs, 14, "-1")
    adata = as_loaded(cells, "kang-donors", part, seed=seed, obs=obs, var=var, names=codes)
    centres = np.random.default_rng(blood.BIOLOGY_SEED).uniform(-30, 30, (10, 2))
    group = pd.factorize(obs["cell_type"].astype(str) + obs["condition"].astype(str), sort=True)[0]
    adata.obsm["X_tsne"] = centres[group] + rng.normal(0, 3, (cells.n_obs, 2))
    return adata


def _stimulated(
    seed: int, n_cells: int, table: pd.DataFrame, genes: pd.DataFrame, shares: list, n_donors: int
) -> ad.AnnData:
    """Half of the cells as they are, half after interferon; the same donors in both."""
    nuclear = ~table.index.str.startswith("MT-")  # the set was published without mitochondrial genes
    table, genes = table[nuclear], genes[nuclear]
    after, log2fc = blood.with_interferon(table)
    both = pd.concat([table.add_suffix("|control"), after.add_suffix("|stimulated")], axis=1)
    cells = populations(
        n_cells, biology=(both, genes.assign(interferon_log2fc=log2fc)), proportions=[*shares, *shares], n_donors=n_donors,
        donor_strength=0.25, library_size=(1_400, 0.5), mito=None, seed=seed,
    )  # fmt: skip
    split = cells.obs["cell_type"].astype(str).str.split("|", expand=True)
    cells.obs["cell_type"], cells.obs["condition"] = split[0].to_numpy(), split[1].to_numpy()
    order = np.argsort(cells.obs["condition"].to_numpy(), kind="stable")  # control first, as in the files
    return cells[order].copy()
