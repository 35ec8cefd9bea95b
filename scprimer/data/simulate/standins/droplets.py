"""Stand-ins of droplet sets: species mixtures, hashtags, antibodies with empty droplets."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.loaders import build

from ..counts import library_sizes
from ..layers import add_ambient, add_doublets, add_hashtags, empty_droplets, with_empty_droplets
from ..mixtures import antibody_counts
from ..populations import populations, profiles
from .common import as_loaded, barcodes, categorical, ensembl_ids, provenance

BIOLOGY_SEED = 1_100


def barnyard(
    seed: int, part: str | None, *, n_cells: int = 120, n_barcodes: int = 12_000, n_genes: int = 1_500
) -> ad.AnnData:
    """A human and a mouse line, unfiltered: cells (large and small), empty droplets, and barcodes with nothing at all.

    As in the data, few molecules of a cell come from the other species (ambient RNA, below 1 %), cell sizes are wide, and the
    largest empty droplets hold as much as the smallest cells: those can only be told by *what* they hold.
    ``uns["truth"]["cells"]``: ``is_cell``, ``cell_type`` (species), ``ambient_fraction``.
    """
    biology = _two_species(n_genes)
    small = max(n_cells // 6, 1)
    large = populations(
        n_cells - small, biology=biology, proportions=[0.53, 0.47], library_size=(6_000, 0.8), seed=seed
    )
    tiny = populations(
        small, biology=biology, proportions=[0.53, 0.47], library_size=(130, 0.35), seed=seed + 1_000_003
    )
    tiny.obs_names = [f"small_{name}" for name in tiny.obs_names]
    cells = ad.concat([large, tiny])
    cells.var, cells.uns = large.var, dict(large.uns)
    cells = add_ambient(cells, 0.004, spread=0.4, seed=seed)
    n_empty = n_barcodes - cells.n_obs
    if n_empty < 1:
        raise ValueError(f"n_barcodes={n_barcodes}: more than the {n_cells} cells are needed")
    seen = empty_droplets(cells, max(round(0.2 * n_empty), 1), umis=(5, 1.1), seed=seed)
    nothing = ad.AnnData(
        sp.csr_matrix((n_empty - seen.n_obs, cells.n_vars), dtype=np.float32), var=cells.var,
        obs=pd.DataFrame({"is_cell": False, "ambient_fraction": 1.0}, index=[f"blank_{i}" for i in range(n_empty - seen.n_obs)]),
    )  # fmt: skip
    drops = with_empty_droplets(cells, ad.concat([seen, nothing]), seed=seed)
    del drops.layers["native"]  # its truth is ambient_fraction; as a layer it would double a matrix of empty rows

    var = biology[1].drop(columns=["marker_of", "log2fc", "housekeeping", "mito"])
    adata = as_loaded(
        drops, "barnyard", part, seed=seed, obs=pd.DataFrame(index=range(drops.n_obs)),
        var=build.build(sp.csr_matrix((0, drops.n_vars)), [], _species_table(var)).var,
        names=sorted(barcodes(np.random.default_rng([seed, 31]), drops.n_obs, 16, "-1")),
    )  # fmt: skip
    return adata


def _two_species(n_genes: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Profiles of one human and one mouse line: each species' genes are expressed in its line alone."""
    tables, genes = [], []
    for i, (species, genome, share) in enumerate((("human", "hg19", 0.54), ("mouse", "mm10", 0.46))):
        n = round(share * n_genes)
        table, planted = profiles(n, type_names=[species], markers_per_type=0, log_sd=1.5, seed=BIOLOGY_SEED + i)
        symbols = table.index if species == "human" else [_mouse_symbol(s) for s in table.index]
        names = [f"{genome}_{s}" for s in symbols]
        tables.append(table.set_axis(names))
        prefix = "ENSG" if species == "human" else "ENSMUSG"
        planted = planted.assign(species=species, symbol=symbols, ensembl=ensembl_ids(n, prefix=prefix))
        genes.append(planted.set_axis(names))
    return pd.concat(tables).fillna(0.0), pd.concat(genes)


def _mouse_symbol(symbol: str) -> str:
    return f"mt-{symbol[3:].capitalize()}" if symbol.startswith("MT-") else symbol.capitalize()


def _species_table(genes: pd.DataFrame) -> pd.DataFrame:
    """The loader's columns. Two genes of each species share their symbol, as some do in the data: the names are made unique."""
    table = pd.DataFrame(
        {
            "species": categorical(genes["species"]),
            "symbol": genes["symbol"].astype(object),
            "ensembl": genes["ensembl"].astype(object),
        }
    )
    names = np.array(genes.index, dtype=object)
    for species in ("human", "mouse"):
        first, second = np.flatnonzero(genes["species"] == species)[:2]
        names[second] = names[first]
        table.iloc[second, table.columns.get_loc("symbol")] = table["symbol"].iloc[first]
    return table.set_axis(names)


# ---- hashtags --------------------------------------------------------------------------------------------------
def cell_hashing(seed: int, part: str | None, *, n_cells: int = 1_200, doublet_rate: float = 0.12) -> ad.AnnData:
    """Eight pooled samples, one hashtag each; doublets, and droplets without a stained cell.

    ``uns["truth"]["cells"]``: ``hashtag``, ``hashtag_class``, ``doublet``.
    """
    rng = np.random.default_rng([seed, 32])
    n = round(n_cells * (1 + doublet_rate))
    pool = ad.AnnData(
        sp.csr_matrix((n, 1), dtype=np.float32), obs=pd.DataFrame(index=[f"cell_{i + 1:05d}" for i in range(n)])
    )
    pool = add_doublets(pool, doublet_rate, seed=seed)[:n_cells].copy()
    pool = add_hashtags(pool, 8, signal=(1_150, 0.65), background=(12, 0.7), unstained=0.06, dispersion=0.12, seed=seed)
    tags = [f"HTO_{letter}" for letter in "ABCDEFGH"]
    rename = dict(zip(pool.obsm["hashtags"].columns, tags))
    pool.obs["hashtag"] = ["+".join(rename.get(t, t) for t in value.split("+")) for value in pool.obs["hashtag"]]
    pool.uns["truth"]["hashtags"] = pool.uns["truth"]["hashtags"].rename(index=rename)
    counts = ad.AnnData(sp.csr_matrix(pool.obsm["hashtags"].to_numpy()), obs=pool.obs, var=pd.DataFrame(index=tags))
    counts.uns = pool.uns
    var = pd.DataFrame({"feature_type": categorical(["hashtag"] * 8)}, index=pd.Index(tags, dtype=object))
    empty = pd.DataFrame(index=range(pool.n_obs))
    return as_loaded(
        counts, "cell-hashing", part, seed=seed, obs=empty, var=var, names=sorted(barcodes(rng, pool.n_obs))
    )


def csf_hashing(seed: int, part: str | None, *, n_cells: int = 600) -> pd.DataFrame:
    """Two genotypes, the first stained with one tag; droplets of both genotypes are poor ones, as in the data.

    So the tag tells the genotypes apart and says little about doublets. Truth in ``.attrs["truth"]``: the shares drawn from.
    """
    rng = np.random.default_rng([seed, 33])
    kinds = rng.permutation(
        np.repeat(
            ["0", "1", "doublet"],
            [n_cells - 2 * (n_cells // 26) - n_cells // 2 + n_cells // 26, n_cells // 2, n_cells // 26],
        )
    )
    tag = {"0": (4_500, 0.6), "1": (780, 0.5), "doublet": (1_000, 0.9)}
    genes = {"0": (1_850, 0.45), "1": (2_100, 0.35), "doublet": (700, 0.8)}
    hto, n_genes = np.zeros(n_cells), np.zeros(n_cells)
    for kind in tag:
        at = kinds == kind
        hto[at] = rng.poisson(library_sizes(rng, at.sum(), *tag[kind]))
        n_genes[at] = np.maximum(library_sizes(rng, at.sum(), *genes[kind]), 25)
    sure = rng.random(n_cells) < 0.92
    table = pd.DataFrame(
        {
            "hto": hto.astype("int64"),
            "n_genes": n_genes.astype("int64"),
            "genotype": categorical(kinds),
            "freemuxlet": categorical(np.select([kinds == "0", kinds == "1"], ["0,0", "1,1"], "1,0")),
            "log_probability": np.where(sure, 0.0, -rng.exponential(0.4, n_cells)),
        },
        index=pd.Index(barcodes(rng, n_cells, 16, "-1"), dtype=object),
    ).sort_index()
    table.attrs["scprimer"] = provenance("csf-hashing", part, seed)
    table.attrs["truth"] = {
        "tag_median": {k: v[0] for k, v in tag.items()},
        "genes_median": {k: v[0] for k, v in genes.items()},
    }
    return table


# ---- antibodies ------------------------------------------------------------------------------------------------
PROTEINS = """
AnnexinV BTLA CD117 CD123 CD13 CD133 CD134 CD137 CD141 CD152 CD161 CD163 CD18 CD184 CD19 CD1c CD1d CD2 CD206 CD21 CD223
CD24 CD244 CD273 CD294 CD3 CD303 CD32 CD357 CD366 CD39 CD40 CD57 CD62L CD64 CD69 CD70 CD71 HLA-ABC HLA-DR IgA KLRG1 TCRgd
CX3CR1 CD10 CD11c CD138 CD14 CD16 CD185 CD195 CD196 CD197 CD25 CD27 CD278 CD279 CD31 CD314 CD38 CD4 CD45RA CD56 CD8 IgD
IgM MouseIgG1kappaisotype MouseIgG2akappaisotype Mouse_IgG2bkIsotype RatIgG2bkIsotype CD103 CD275 CD28 CD45RO CD5 CD90
CD11b CD127 CD194 CD274 CD33 CD7 CD80 CD86 CD183 CD34 CD20
"""
# What cells of a type carry: median count on top of the background.
CARRIED = {
    "Naive CD4 T": {"CD3": 60, "CD4": 350, "CD2": 40, "CD5": 90, "CD7": 40, "CD27": 60, "CD28": 30, "CD45RA": 120, "CD62L": 120, "CD127": 40, "CD197": 20},
    "Memory CD4 T": {"CD3": 60, "CD4": 350, "CD2": 80, "CD5": 90, "CD7": 25, "CD27": 40, "CD28": 35, "CD45RO": 160, "CD127": 40, "CD194": 10},
    "CD8 T": {"CD3": 55, "CD8": 700, "CD2": 70, "CD5": 60, "CD7": 40, "CD27": 40, "CD28": 15, "CD45RA": 60, "CD45RO": 60, "KLRG1": 15, "CD314": 15},
    "NK": {"CD56": 15, "CD16": 160, "CD7": 60, "CD2": 30, "CD161": 25, "CD244": 40, "CD314": 20, "CD45RA": 130, "CD57": 30, "CX3CR1": 30},
    "B": {"CD19": 150, "CD20": 60, "CD21": 60, "CD24": 50, "CD40": 30, "HLA-DR": 400, "CD45RA": 170, "IgD": 150, "IgM": 60, "CD185": 15, "CD32": 40},
    "CD14+ Mono": {"CD14": 50, "CD11b": 200, "CD11c": 350, "CD33": 80, "CD64": 50, "HLA-DR": 200, "CD13": 60, "CD86": 30, "CD4": 60, "CD32": 90},
    "FCGR3A+ Mono": {"CD16": 300, "CD11c": 400, "CD11b": 80, "HLA-DR": 250, "CX3CR1": 60, "CD86": 40, "CD4": 50, "CD14": 6},
    "DC": {"CD1c": 40, "CD11c": 300, "HLA-DR": 700, "CD33": 60, "CD86": 30, "CD4": 40, "CD39": 30},
}  # fmt: skip
EVERYWHERE = {"HLA-ABC": 500, "CD18": 150, "CD31": 90, "CD39": 5, "CD38": 25}
SHARES = {
    "Naive CD4 T": 0.24,
    "Memory CD4 T": 0.2,
    "CD8 T": 0.16,
    "NK": 0.1,
    "B": 0.1,
    "CD14+ Mono": 0.14,
    "FCGR3A+ Mono": 0.04,
    "DC": 0.02,
}


def pbmc_adt_background(seed: int, part: str | None, *, n_cells: int = 500, n_empty: int = 900) -> ad.AnnData:
    """87 antibodies on blood cells and in empty droplets: every droplet has a background that all antibodies share.

    ``uns["truth"]["cells"]``: ``cell_type`` and ``stickiness``, the droplet's factor on all backgrounds, which isotype
    controls and cells' negative markers follow. ``uns["truth"]["background"]``: median background of each antibody.
    """
    rng = np.random.default_rng([seed, 34])
    proteins = [p.replace("Mouse_IgG", "Mouse IgG") for p in PROTEINS.split()]
    fixed = np.random.default_rng(BIOLOGY_SEED)
    background = pd.Series(np.exp(fixed.normal(1.5, 0.8, len(proteins))), index=proteins)
    isotype = ["sotype" in p for p in proteins]
    background[isotype] = [0.6, 1.0, 0.9, 0.6]
    background["CD8"] = 19.0  # as in the data, the antibody with a strong background is one that one wants to gate
    levels = pd.DataFrame(
        {p: {t: row.get(p, 0.0) + EVERYWHERE.get(p, 0.0) for t, row in CARRIED.items()} for p in proteins}
    )
    types = rng.choice(list(SHARES), n_cells, p=np.array(list(SHARES.values())) / sum(SHARES.values()))
    droplet = {"droplets": ("cell", "empty"), "cells": ("cell",), "empty": ("empty",)}[part]
    both = np.concatenate([types, np.full(n_empty, "empty")])
    counts, truth = antibody_counts(both, levels, background, stickiness=0.35, seed=seed)
    kind = np.where(both == "empty", "empty", "cell")
    codes, lanes = barcodes(rng, len(both)), rng.integers(1, 7, len(both))
    names = [f"{code}_H1B1ln{lane}" for code, lane in zip(codes, lanes)]
    keep = np.isin(kind, droplet)
    held = ad.AnnData(sp.csr_matrix(counts.to_numpy()), obs=truth.set_axis(names), var=pd.DataFrame(index=proteins))[
        keep
    ].copy()
    held.uns["truth"] = {"background": background.to_frame("median"), "levels": levels.T}
    obs = pd.DataFrame(
        {
            "droplet": categorical(kind[keep], ["cell", "empty"]),
            "lane": categorical([n.rsplit("_", 1)[1] for n in held.obs_names]),
        }
    )
    var = pd.DataFrame(
        {"isotype_control": isotype, "feature_type": categorical(["protein"] * len(proteins))},
        index=pd.Index(proteins, dtype=object),
    )
    return as_loaded(held, "pbmc-adt-background", part, seed=seed, obs=obs, var=var)
