"""Stand-ins of ``dlpfc`` and ``starmap``: a cortex in layers, as spots that belong to a layer and as cells of types that mix."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ..counts import allocate
from ..populations import populations, profiles
from .common import as_loaded, barcodes, categorical, ensembl_ids

BIOLOGY_SEED = 15_151
LAYERS = {  # layer -> share of the spots, from the surface down
    "Layer1": 0.25, "Layer2": 0.14, "Layer3": 0.38, "Layer4": 0.07, "Layer5": 0.07, "Layer6": 0.04, "WM": 0.05,
}  # fmt: skip
DEPTHS = {"1": 0.07, "2": 0.14, "3": 0.43, "4": 0.36}  # the layers of starmap and their shares of the cells
TYPES = {  # cell type -> share of the cells of each of the four layers
    "Astro": (0.24, 0.06, 0.06, 0.06), "Endo": (0.17, 0.05, 0.05, 0.04), "L5-1": (0.00, 0.06, 0.19, 0.02),
    "Lhx6": (0.01, 0.03, 0.04, 0.03), "NPY": (0.02, 0.02, 0.02, 0.02),
    "Oligo": (0.02, 0.01, 0.02, 0.08), "Reln": (0.12, 0.02, 0.01, 0.01), "SST": (0.01, 0.03, 0.03, 0.03),
    "Smc": (0.35, 0.05, 0.04, 0.03), "VIP": (0.02, 0.03, 0.01, 0.01),
    "eL2/3": (0.04, 0.57, 0.03, 0.00), "eL5-2": (0.00, 0.03, 0.14, 0.02),
    "eL5-3": (0.00, 0.04, 0.31, 0.05), "eL6-1": (0.00, 0.00, 0.03, 0.39), "eL6-2": (0.00, 0.00, 0.02, 0.21),
}  # fmt: skip
SECTIONS = ("BZ5", "BZ9", "BZ14")


def dlpfc(seed: int, part: str | None, *, n_rows: int = 30, n_columns: int = 60, n_genes: int = 150) -> ad.AnnData:
    """Spots on a hexagonal grid in seven bent layers; all spots of a layer are of one kind. One spot in a hundred has no label.

    ``uns["truth"]["cells"]["layer"]``: the layer of every spot, the unlabelled ones included.
    """
    rng = np.random.default_rng([seed, 41])
    row, column = (grid.ravel() for grid in np.mgrid[:n_rows, :n_columns])
    on = (row + column) % 2 == 0
    row, column = row[on], column[on]
    places = np.column_stack([column, row * np.sqrt(3)]).astype(float)
    x, y = (places / places.max(axis=0)).T
    depth = 0.7 * x + 0.6 * y + 0.5 * np.sin(3 * x) * y + rng.normal(0, 0.012, len(x))
    layer = _banded(depth, LAYERS)
    biology = profiles(
        n_genes, type_names=list(LAYERS), markers_per_type=5, marker_log2fc=0.7, type_noise=0.32, log_sd=1.3, mito=False,
        gene_names=ensembl_ids(n_genes), seed=BIOLOGY_SEED,
    )  # fmt: skip
    spots = _cells_of(layer, list(LAYERS), biology, library_size=(300, 0.55), seed=seed + 15_000_000)
    spots.obs["layer"] = layer
    named = np.where(rng.random(len(layer)) < 0.01, None, layer)
    obs = pd.DataFrame(
        {"layer": categorical(named, list(LAYERS)), "row": row.astype("int32"), "column": column.astype("int32")}
    )
    var = pd.DataFrame(
        {"ensembl": np.array(spots.var_names, dtype=object)}, index=np.array(spots.var_names, dtype=object)
    )
    names = barcodes(rng, len(layer), 16, "-1")
    adata = as_loaded(spots, "dlpfc", part, seed=seed, obs=obs, var=var, names=names)
    adata.obsm["spatial"] = places
    return adata


def starmap(seed: int, part: str | None, *, n_cells: int = 300, n_genes: int = 150) -> ad.AnnData:
    """Three sections of ``n_cells`` cells. Each layer has its own mixture of cell types, whose cells lie among each other."""
    rng = np.random.default_rng([seed, 42])
    profile, genes = profiles(
        n_genes, type_names=list(TYPES), markers_per_type=4, marker_log2fc=2.5, type_noise=0.4, log_sd=1.2, mito=False,
        gene_names=[f"Gene{i + 1}" for i in range(n_genes)], seed=BIOLOGY_SEED + 1,
    )  # fmt: skip
    shift = np.random.default_rng([BIOLOGY_SEED, 2]).normal(0, 0.2, (n_genes, len(SECTIONS)))
    parts, tables = [], []
    for i, section in enumerate(SECTIONS):
        places = rng.uniform([50, 30], [12_000, 6_500], (n_cells, 2))
        bend = 500 * np.sin(places[:, 1] / 6_500 * np.pi + i)
        layer = _banded(places[:, 0] + bend + rng.normal(0, 150, n_cells), DEPTHS)
        kind = np.empty(n_cells, dtype=object)
        for code, name in enumerate(DEPTHS):
            at = np.flatnonzero(layer == name)
            share = np.array([shares[code] for shares in TYPES.values()])
            kind[at] = rng.permutation(np.repeat(list(TYPES), allocate(len(at), share / share.sum())))
        parts.append(
            _cells_of(
                kind, list(TYPES), (profile.mul(2.0 ** shift[:, i], axis=0), genes), library_size=(230, 0.6),
                seed=3 * seed + i + 16_000_000,
            )
        )  # fmt: skip
        tables.append(
            pd.DataFrame({"x": places[:, 0], "y": places[:, 1], "layer": layer, "type": kind, "section": section})
        )
    cells, table = ad.concat(parts, index_unique="-"), pd.concat(tables, ignore_index=True)
    cells.obs["layer"] = table["layer"].to_numpy()
    cells.uns["truth"] = {
        "profiles": profile, "genes": parts[0].uns["truth"]["genes"],
        "section_log2fc": pd.DataFrame(shift, index=profile.index, columns=list(SECTIONS)),
    }  # fmt: skip
    section = categorical(table["section"], SECTIONS)
    obs = pd.DataFrame(
        {
            "cell_type": categorical(table["type"]),
            "layer": categorical(table["layer"]),
            "section": section,
            "batch": section,
        }
    )
    names = [
        f"{s}_{round(x)}x{round(y)}-{i}" for i, (s, x, y) in enumerate(zip(table["section"], table["x"], table["y"]))
    ]
    adata = as_loaded(cells, "starmap", part, seed=seed, obs=obs, names=names)
    adata.obsm["spatial"] = table[["x", "y"]].to_numpy()
    return adata


def _banded(depth: np.ndarray, shares: dict[str, float]) -> np.ndarray:
    """The layer of each place, from its depth: the shallowest places are of the first layer, and so on in the given shares."""
    sizes = allocate(len(depth), np.array(list(shares.values())) / sum(shares.values()))
    layer = np.empty(len(depth), dtype=object)
    layer[np.argsort(depth, kind="stable")] = np.repeat(list(shares), sizes)
    return layer


def _cells_of(
    kind: np.ndarray, kinds: list[str], biology, *, library_size: tuple[float, float], seed: int
) -> ad.AnnData:
    """Cells of the given kinds, one a place, in the order of the places."""
    numbers = np.array([(kind == name).sum() for name in kinds])
    cells = populations(
        len(kind),
        biology=biology,
        proportions=list(numbers / len(kind)),
        library_size=library_size,
        mito=None,
        seed=seed,
    )
    drawn = np.argsort(cells.obs["cell_type"].cat.codes.to_numpy(), kind="stable")
    places = np.argsort([kinds.index(name) for name in kind], kind="stable")
    order = np.empty(len(kind), dtype=int)
    order[places] = drawn
    out = cells[order].copy()
    out.obs_names = [f"place_{i + 1}" for i in range(len(kind))]
    return out
