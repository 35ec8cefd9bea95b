"""Where the cells are: spots and cells with coordinates in ``obsm["spatial"]``."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import FormatError
from scprimer.data.loaders import build, rfiles


def olfactory_bulb(folder: Path) -> ad.AnnData:
    """Olfactory bulb of the mouse by spatial transcriptomics, raw: 262 spots x 15,928 genes.

    ``obs["layer"]``: 5 layers, missing for two spots. ``obsm["spatial"]``: array coordinates (one unit is the distance of spots).
    """
    held = rfiles.only(folder / "mOB.rda")
    x, genes, spots = rfiles.matrix(held["counts"])
    layers, order = rfiles.labels(held["annot"])
    # "1: Granular Cell Layer": the number is the order from inside out.
    names = {level: level.split(": ", 1)[1] for level in order}
    obs = pd.DataFrame(
        {"layer": build.categorical(layers.reindex(spots).map(names), [names[level] for level in order])}, index=spots
    )
    return build.counts(x.T, obs, genes, obsm={"spatial": _places(held["pos"], spots)})


def olfactory_bulb_he(folder: Path) -> ad.AnnData:
    """Olfactory bulb of the mouse with its histology, raw: 950 spots x 500 genes and an H&E picture.

    ``obsm["spatial"]``: pixels (x, y) in the picture, ``obsm["array"]``: columns and rows of the array (33 x 35). The picture
    (589 x 550 x 3, bytes) is where scanpy and squidpy look: ``uns["spatial"]["olfactory-bulb"]["images"]["hires"]``. The six columns of
    the file without coordinates are left out. Spots lie on and off the tissue: counts off it have diffused there.
    """
    from matplotlib.image import imread

    counts = rfiles.frame(rfiles.read_r(folder / "counts.rds"))
    array = pd.read_csv(folder / "1000L2_barcodes.txt", sep="\t", header=None, names=["x", "y"], index_col=0)
    counts = counts.loc[:, counts.columns.isin(array.index)]
    places = array.loc[counts.columns].to_numpy(dtype=float)
    picture = imread(folder / "HE_Rep1_resized.jpg")
    height, width = picture.shape[:2]
    pixels = (places - 1) / np.array([32, 34]) * np.array([width, height])
    library = {
        "images": {"hires": np.array(picture)},
        # One array unit in pixels; the spots' diameter is half the distance of their centres (100 and 200 micrometres).
        "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": width / 32 / 2},
    }
    return build.counts(
        counts.to_numpy().T,
        list(counts.columns),
        list(counts.index),
        obsm={"spatial": pixels, "array": places},
        uns={"spatial": {"olfactory-bulb": library}},
    )


def dlpfc(folder: Path) -> ad.AnnData:
    """Human prefrontal cortex by Visium, section 151510, raw: 4,634 spots x 500 genes (Ensembl ids).

    ``obs``: ``layer`` (Layer1 ... Layer6, WM; missing for 39 spots), ``row`` and ``column`` of the array. ``obsm["spatial"]``: the
    same on an even grid: neighbouring spots are two units apart in every direction.
    """
    held = rfiles.only(folder / "dlpfc151510.rda")
    x, genes, spots = rfiles.matrix(held.assays["RNA"].counts)
    meta = rfiles.frame(getattr(held, "meta.data"))
    if list(meta.index) != spots:
        raise FormatError("counts and spot table do not list the same spots")
    order = [f"Layer{i}" for i in range(1, 7)] + ["WM"]
    obs = pd.DataFrame(
        {"layer": build.categorical(meta["annotation"], order), "row": meta["row"], "column": meta["col"]}, index=spots
    )
    # Visium's spots form a hexagonal grid: columns count half distances, and rows lie sqrt(3) of these apart.
    places = np.column_stack([meta["col"], meta["row"] * np.sqrt(3)]).astype(float)
    var = pd.DataFrame({"ensembl": genes}, index=genes)
    return build.counts(x.T, obs, var, obsm={"spatial": places})


def lymph_node(folder: Path, part: str) -> ad.AnnData:
    """A human lymph node by Visium, raw, and single cells to explain it by.

    ``part="spots"``: 1,000 spots x 2,000 genes, ``obsm["spatial"]`` in pixels. ``part="reference"``: 330 single cells x 10,237
    genes, ``obs["cell_type"]`` (11 x 30); 558 genes are in both.
    """
    if part == "spots":
        x, genes, spots = rfiles.matrix(rfiles.read_r(folder / "expr.rds"))
        places = _places(rfiles.read_r(folder / "coords.rds"), spots)
        return build.counts(x.T, spots, genes, obsm={"spatial": places})
    held = rfiles.read_r(folder / "ref_downsampled.rds")
    x, genes, cells = rfiles.matrix(held.counts)
    types, order = rfiles.labels(held.cell_types)
    if list(types.index) != cells:
        raise FormatError("counts and labels of the reference do not list the same cells")
    obs = pd.DataFrame({"cell_type": build.categorical(types, order), "n_umi": held.nUMI.values}, index=cells)
    return build.counts(x.T, obs, genes)


def breast_cancer_st(folder: Path) -> ad.AnnData:
    """A breast cancer by spatial transcriptomics, raw: 1,031 spots x 13,360 genes in four sections.

    ``obs["section"]`` (1 to 4, also as ``batch``). ``obsm["spatial"]``: coordinates, each section centred on the origin.
    """
    held = rfiles.only(folder / "BCL.rda")
    x, genes, spots = rfiles.matrix(held["counts"])
    places = rfiles.frame(held["pos"]).loc[spots]
    section = build.categorical(places["slice"].astype(int))
    obs = pd.DataFrame({"section": section, "batch": section}, index=spots)
    return build.counts(x.T, obs, genes, obsm={"spatial": places[["x", "y"]].to_numpy()})


def starmap(folder: Path) -> ad.AnnData:
    """Medial prefrontal cortex of the mouse by STARmap, raw: 3,190 cells x 166 genes in three sections.

    ``obs``: ``cell_type`` (15), ``layer`` (1 to 4, the source's code), ``section`` (BZ5, BZ9, BZ14, one mouse each, also as ``batch``).
    ``obsm["spatial"]``: pixels.
    """
    held = rfiles.read_r(folder / "starmap_mpfc.RData")
    blocks, tables, genes = [], [], None
    for key, counts in held["starmap_cnts"].items():
        x, rows, cells = rfiles.matrix(counts)
        info = rfiles.frame(held["starmap_info"][key])
        if (genes is not None and rows != genes) or list(info.index) != cells:
            raise FormatError("the sections do not list the same genes, or counts and cell table other cells")
        genes = rows
        section = str(key).split("_")[1]
        blocks.append(x.T)
        tables.append(info.astype({"z": str}).assign(section=section).set_index(section + "_" + info.index))
    cells = pd.concat(tables)
    section = build.categorical(cells["section"], ["BZ5", "BZ9", "BZ14"])
    obs = pd.DataFrame(
        {
            "cell_type": build.categorical(cells["c"]),
            "layer": build.categorical(cells["z"]),
            "section": section,
            "batch": section,
        },
        index=cells.index,
    )
    return build.counts(sp.vstack(blocks), obs, genes, obsm={"spatial": cells[["x", "y"]].to_numpy()})


def _places(table: pd.DataFrame, spots: list[str]) -> np.ndarray:
    """Columns ``x`` and ``y`` of a table in the order of ``spots``, as floats."""
    return rfiles.frame(table).loc[spots, ["x", "y"]].to_numpy(dtype=float)
