"""Labels under plain names: which column of ``obs`` says the cell type, the batch, the donor, the condition."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import anndata as ad
import numpy as np
import pandas as pd

from scprimer.data.gate import genes
from scprimer.data.gate.report import Report
from scprimer.data.gate.words import some

# Columns of obs that say plainly what they are, best first. Clusters (louvain, leiden, ...) are no truth and not here.
USUAL = {
    "cell_type": (
        "cell_type", "celltype", "cell_types", "cell_type__ontology_label", "author_cell_type", "cell_ontology_class",
        "cell_type_label", "cell_label", "cell_annotation", "annotated_cell_type", "cell_identity", "bulk_labels",
        "major_cell_type", "celltype_major", "celltype_l2", "celltype_l1", "annotation", "annotations",
    ),
    "batch": (
        "batch", "batch_id", "sample_batch", "sample", "sample_id", "library", "library_id", "orig.ident", "channel",
        "lane", "plate",
    ),
    "donor": ("donor", "donor_id", "individual", "patient", "patient_id", "subject", "subject_id", "mouse_id"),
    "condition": ("condition", "treatment", "stim", "disease"),
}  # fmt: skip
_CLUSTERS = re.compile(r"louvain|leiden|cluster|seurat|snn_res|phenograph|predicted", re.IGNORECASE)
_NO_LABEL = {"", "nan", "NaN", "NA", "N/A", "None", "none", "null", "<NA>"}


def find_labels(adata: ad.AnnData, columns: Mapping[str, str], needed: Collection[str], report: Report) -> None:
    """Put labels under their plain names, from the columns that are named for them or usually hold them."""
    for name in dict.fromkeys([*USUAL, *columns, *needed]):
        least = 1 if name == "cell_type" else 2  # a batch or donor that all cells share is not worth a column
        usual = [c for c in genes.columns_named(adata.obs, USUAL.get(name, (name,))) if _groups(adata.obs[c], least)]
        column = columns.get(name) or (name if name in adata.obs else next(iter(usual), None))
        if column is not None and column not in adata.obs:
            words = f"obs has no column {column!r}, which was named for {name!r}. It has: {some(adata.obs, 12)}."
            report.add("no-such-column", words, "Correct the name in `columns`.", fatal=True)
        elif column is not None:
            _take(adata, name, column, name in needed, report)
            others = [c for c in usual if c not in (column, name)]
            if others and name == "cell_type":
                words = f"Cell types are taken from obs[{column!r}]; {some(others)} hold such labels too."
                report.add("several-labels", words, f"To use another: columns={{'cell_type': {others[0]!r}}}.")
        elif name in needed or name == "cell_type":
            _say_none(adata, name, name in needed, report)


def _take(adata: ad.AnnData, name: str, column: str, needed: bool, report: Report) -> None:
    given = adata.obs[column]
    missing = given.isna() | given.astype(str).isin(_NO_LABEL)
    if column != name or (missing & given.notna()).any():
        text = given.astype(object).where(~missing, np.nan).map(str, na_action="ignore")
        adata.obs[name] = pd.Categorical(text)
    report.labels[name] = column
    classes = list(adata.obs[name].dropna().astype(str).unique())
    if missing.all():
        words = f"obs[{column!r}] holds no label: every entry is missing."
        fix = f"Name the column that holds them: columns={{{name!r}: ...}}."
        report.add("labels-missing", words, fix, fatal=needed)
    elif missing.any():
        words = f"Cells without a {name} in obs[{column!r}]: {missing.sum():,} of {len(given):,}."
        report.add("labels-missing", words, "They stay, and count as unlabelled.")
    if len(classes) == 1 and (needed or name == "cell_type"):
        words = f"obs[{column!r}] gives every cell the same {name}, {classes[0]!r}."
        report.add("one-class", words, "Scores against labels need at least two classes.", fatal=needed)
    if name != "cell_type" or len(classes) < 2:
        return
    if pd.api.types.is_numeric_dtype(given):
        words = f"The cell types in obs[{column!r}] are numbers ({some(classes)}), as clusters have."
        fix = "Clusters of the same RNA are no truth to judge by: use names that somebody gave."
        report.add("numbered-labels", words, fix)
    spellings: dict[str, list[str]] = {}
    for label in classes:
        spellings.setdefault(genes.plain(label), []).append(label)
    twice = [" and ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]
    if twice:
        words = f"Labels in obs[{column!r}] differ in their spelling only: {some(twice)}."
        report.add("label-spelling", words, "Bring them to one spelling, or they count as different cell types.")


def _say_none(adata: ad.AnnData, name: str, needed: bool, report: Report) -> None:
    clusters = [c for c in adata.obs if _CLUSTERS.search(str(c))]
    possible = [c for c in adata.obs if c not in clusters and _groups(adata.obs[c]) and not _is_number(adata.obs[c])]
    words = f"No column of obs is plainly the {name.replace('_', ' ')}."
    if clusters and name == "cell_type":
        words += f" Clusters or predictions ({some(clusters)}) are no truth to judge by."
    fix = f"Add a column obs[{name!r}]." if needed else "Scores against labels are left out."
    if possible:
        fix += f" If one of these holds them ({some(possible)}), say so: columns={{{name!r}: {possible[0]!r}}}."
    report.add("no-labels", words, fix, fatal=needed)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _groups(column: pd.Series, least: int = 2) -> bool:
    """Whether the column sorts cells into groups: at least so many, and not nearly one for each cell."""
    return least <= column.nunique() <= max(2, len(column) // 2)
