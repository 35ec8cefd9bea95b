"""``cell-mixology``: benchmark experiments with cell lines, where the truth is known from the bench."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pandas as pd

from scprimer.data.errors import FormatError
from scprimer.data.loaders import build

LINES = ("H2228", "H1975", "HCC827")
PLATES = ("sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3")
MIXTURES = ("cellmix1", "cellmix2", "cellmix3", "cellmix4")
TABLES = ("sc_10x", "sc_10x_5cl")  # their counts are not in the registry, only what is known about each cell


def cell_mixology(folder: Path, part: str) -> ad.AnnData | pd.DataFrame:
    """Raw counts of one experiment; genes are Ensembl ids, ``var["spike_in"]`` marks the ERCC molecules.

    ``part``:

    - ``"sc_celseq2"`` (274 cells), ``"sc_dropseq"`` (225): single cells of three lines; ``obs["cell_line"]``.
    - ``"sc_celseq2_5cl"``: single cells of five lines in three plates, joined on the 12,653 genes that all plates list;
      ``"sc_celseq2_5cl_p1"``, ``_p2``, ``_p3``: one plate with all its genes. ``obs``: ``cell_line`` (the genotype's),
      ``cell_number`` (how many cells the sorter put into the well), ``plate``.
    - ``"RNAmix_celseq2"`` (340), ``"RNAmix_sortseq"`` (296): RNA of three lines in known proportions
      (``proportion_H2228``, ...) and amounts (``mrna_amount``, pg); ``mix`` numbers the eight mixtures.
    - ``"cellmix1"`` ... ``"cellmix4"``: nine cells a well in known numbers (``cells_H2228``, ...; ``proportion_*``), of which about one
      cell's RNA was sequenced; ``"cellmix"`` joins the four; ``"cellmix5"``: 21 wells of 90 cells, the population control.
      ``poor_quality`` and ``trajectory`` (meant for it by the source) are booleans.
    - ``"sc_10x"``, ``"sc_10x_5cl"``: a DataFrame of what is known about each cell, without counts.

    Everywhere: ``obs["demuxlet"]`` (``"SNG"``, ``"DBL"``: damaged wells more than doublets, see the data set's remark),
    ``cell_line_demuxlet``, ``plate``, ``well``, ``technology`` where they apply, and the source's read statistics.
    """
    if part in TABLES:
        return _cells(folder, part)
    if part == "sc_celseq2_5cl":
        return _join([_one(folder, p) for p in PLATES])
    if part == "cellmix":
        return _join([_one(folder, p) for p in MIXTURES])
    return _one(folder, part)


def _one(folder: Path, part: str) -> ad.AnnData:
    table = pd.read_csv(folder / f"{part}.count.csv.gz", index_col=0)  # genes x cells
    cells = _cells(folder, part)
    if list(table.columns) != list(cells.index):
        raise FormatError(f"{part}: counts and cell table do not list the same cells in the same order")
    if "plate" in cells:  # wells are called alike on every plate
        cells.index = (cells["plate"].astype(str) + "_" + cells["well"]).to_numpy()
    genes = table.index.astype(str)
    var = pd.DataFrame({"ensembl": genes, "spike_in": genes.str.startswith("ERCC-")}, index=genes)
    var["ensembl"] = var["ensembl"].where(~var["spike_in"], "")
    return build.counts(table.to_numpy().T, cells, var)


def _cells(folder: Path, part: str) -> pd.DataFrame:
    cells = pd.read_csv(folder / f"{part}.metadata.csv.gz", index_col=0)
    cells.index = cells.index.astype(str)
    cells = cells.rename(columns={"demuxlet_cls": "demuxlet", "mRNA_amount": "mrna_amount", "traj": "trajectory"})
    cells = cells.drop(columns=["cell_name"], errors="ignore")
    for column in ("poor_quality", "trajectory"):
        if column in cells:
            cells[column] = cells[column] == "YES"
    cells["technology"] = _technology(part)
    if part in PLATES:
        # No label from the bench: the line is the one whose genotype the reads carry.
        cells["cell_line"] = cells["cell_line_demuxlet"]
        cells["plate"] = part.rsplit("_", 1)[1]
        cells["well"] = cells.index.str.removeprefix("p1_")  # all three plates' files say p1
        cells["batch"] = cells["plate"]
    elif part.startswith("RNAmix"):
        cells = cells.rename(columns={f"{line}_prop": f"proportion_{line}" for line in LINES})
        cells["well"] = cells["p_column"].astype(str) + cells["p_row"].astype(str)
        cells = cells.drop(columns=["p_column", "p_row"])
        cells["mix"] = cells["mix"].astype(str)
        cells["batch"] = part
    elif part.startswith("cellmix"):
        numbers = cells[list(LINES)]
        cells = cells.rename(columns={line: f"cells_{line}" for line in LINES})
        for line in LINES:
            cells[f"proportion_{line}"] = numbers[line] / numbers.sum(axis=1)
        cells["cell_number"] = numbers.sum(axis=1)
        cells["plate"] = part
        cells["well"] = cells.index
        cells["batch"] = part
    else:
        cells["batch"] = part
    for column in ("cell_line", "cell_line_demuxlet", "demuxlet", "plate", "batch", "technology", "mix"):
        if column in cells:
            cells[column] = build.categorical(cells[column])
    return cells


def _technology(part: str) -> str:
    for mark, name in (("10x", "10x"), ("dropseq", "Drop-seq"), ("sortseq", "SORT-seq")):
        if mark in part:
            return name
    return "CEL-seq2"


def _join(plates: list[ad.AnnData]) -> ad.AnnData:
    """The plates below each other, on the genes that all of them list: a gene that a file lacks was not measured as zero."""
    joined = ad.concat(plates, join="inner", merge="same")
    joined.X.sort_indices()
    for column in plates[0].obs.select_dtypes("category"):
        joined.obs[column] = build.categorical(joined.obs[column])
    return joined
