"""Finding the raw counts where they hide (``X``, layers, ``raw``) and putting them into ``X``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.gate import genes, values
from scprimer.data.gate.report import Report
from scprimer.data.gate.values import Values
from scprimer.data.gate.words import number_of, some

_CODES = {  # kind of values -> code of the problem where counts are needed
    "binary": "binary", "log": "log-values", "normalised": "normalised", "scaled": "scaled", "residuals": "negative",
    "fractional": "not-integer", "zero": "all-zero", "broken": "broken-matrix", "not numbers": "not-numbers",
}  # fmt: skip
_VELOCITY = {"spliced", "unspliced", "ambiguous"}  # parts of the counts, never all of them
_NAMED_COUNTS = re.compile(r"count|umi|raw", re.IGNORECASE)
_CORRECTED = re.compile(r"ambient|soup|decont|bender|correct|denois|magic|impute|smooth|scvi", re.IGNORECASE)

_KEEP_COUNTS = """Give a file with the raw counts in X, in a layer or in raw. Before normalising they are kept so:
    adata.layers["counts"] = adata.X.copy()"""
_REBUILD = """Here the counts can be rebuilt from the normalised values, each cell's smallest one taken for one count:
    from scprimer.data import gate
    gate.read("FILE", recover=True).write_h5ad("mine-counts.h5ad")"""
_SUM_VELOCITY = """Layers for RNA velocity are there, and their sum is the counts:
    adata.X = adata.layers["spliced"] + adata.layers["unspliced"]; adata.write_h5ad("mine.h5ad")"""
_ROUND = """Take the counts before that step. If there are none, round these, knowing that you do:
    adata.X.data = adata.X.data.round()   # for a dense matrix: adata.X = adata.X.round()"""
_DAMAGED = "The file was damaged or put together by hand: write it again from the original matrix."
_ALL_ZERO = "Use the file before the step that emptied it."


def settle(adata: ad.AnnData, recover: bool, report: Report) -> ad.AnnData:
    """Find the raw counts and return the data with them in ``X``; ``report.counts`` says where they were.

    Without counts the data come back as they are, and the report says what each place holds instead.
    """
    _as_arrays(adata, report)
    base = _log_base(adata)
    looked = {} if adata.X is None else {"X": values.look_at(adata.X, log_base=base)}
    found = "X" if looked and looked["X"].are_counts else None
    if found is None or looked["X"].high <= 1:  # a matrix of 0 and 1 is counts only where there is no better one
        for place in _hiding_places(adata):
            looked[place] = values.look_at(_matrix(adata, place), log_base=base)
            if looked[place].are_counts and (found is None or looked[place].high > 1):
                found = place
                break
    if found is not None:
        _say_found(adata, found, looked, report)
        return _with_counts(adata, found, values.as_counts(_matrix(adata, found)), report)
    if recover and (place := _where_recoverable(adata, looked)):
        return _with_counts(adata, place, _recovered(adata, place, looked[place], report), report)
    _say_no_counts(adata, looked, report)
    return adata


def check_any(adata: ad.AnnData, report: Report) -> None:
    """``X`` may hold anything that is a finite number."""
    _as_arrays(adata, report)
    if adata.X is None:
        report.add(
            "no-matrix", "X is empty: there is no main matrix.", "Set adata.X to the matrix to be used.", fatal=True
        )
        return
    found = values.look_at(adata.X, log_base=_log_base(adata))
    report.x = found.words
    if found.kind in ("broken", "not numbers"):
        report.add(_CODES[found.kind], f"X holds {found.words}.", _DAMAGED, fatal=True)
    _say_not_finite(adata, "X", found, report)


def genes_only(adata: ad.AnnData, report: Report) -> ad.AnnData:
    """Leave proteins, guides and peaks that were counted beside genes out of ``X``; proteins go to ``obsm``."""
    column = next(iter(genes.columns_named(adata.var, ("feature_types", "feature_type"))), None)
    kinds = None if column is None else adata.var[column].astype(str).str.lower()
    if kinds is None:
        return adata
    is_gene, is_protein = ((kinds == kind).to_numpy() for kind in ("gene expression", "antibody capture"))
    if is_gene.all() or not is_gene.any():
        return adata
    others = ", ".join(f"{n:,} × {kind}" for kind, n in kinds[~is_gene].value_counts().items())
    done = "Only genes are in X."
    if is_protein.any() and "protein" not in adata.obsm:
        adata.obsm["protein"] = pd.DataFrame(
            adata.X[:, is_protein].toarray(), index=adata.obs_names, columns=list(adata.var_names[is_protein])
        )
        done += " The counts of proteins are in obsm['protein']."
    report.add("mixed-features", f"X holds other features beside genes: {others}.", done, mended=True)
    return adata[:, is_gene].copy()


def without_empty(adata: ad.AnnData, report: Report) -> ad.AnnData:
    """Leave out cells without a single count; mention genes without one."""
    per_cell, per_gene = values.totals(adata.X)
    what = "spots" if "spatial" in adata.obsm or "spatial" in adata.uns else "cells"
    empty = per_cell == 0
    if empty.all():
        report.add("all-zero", "Every value is zero: there is not one count.", _ALL_ZERO, fatal=True)
        return adata
    if empty.any():
        words = f"Empty {what} (a total of 0): {empty.sum():,} of {len(empty):,} ({some(adata.obs_names[empty])})."
        report.add("empty-cells", words, f"These {what} were left out.", mended=True)
        adata = adata[~empty].copy()
    if (per_gene == 0).any():
        words = f"Empty genes (found in none of the {what}): {(per_gene == 0).sum():,} of {len(per_gene):,}."
        report.add("empty-genes", words, "They are kept; sc.pp.filter_genes(adata, min_cells=1) leaves them out.")
    depth = per_cell[~empty]
    if len(depth) > 20 and np.ptp(depth) <= 0.01 * depth.mean():
        words = (
            f"All {what} have the same total, about {depth.mean():,.0f}: these whole numbers may be rounded "
            "normalised values."
        )
        fix = "Fine if the counts were downsampled on purpose; otherwise take those before normalisation."
        report.add("same-totals", words, fix)
    return adata


# ---- where counts may be ------------------------------------------------------------------------------------------------
def _hiding_places(adata: ad.AnnData) -> list[str]:
    """Where counts may hide beside ``X``, likeliest first: layers named for counts, then ``raw``, then other layers."""
    layers = [name for name in adata.layers if name.lower() not in _VELOCITY]
    named = [name for name in layers if _NAMED_COUNTS.search(name) and not _CORRECTED.search(name)]
    named.sort(key=lambda name: (name.lower() not in ("counts", "raw_counts", "raw", "count", "umi"), name))
    others = sorted((name for name in layers if name not in named), key=lambda name: bool(_CORRECTED.search(name)))
    raw = [] if adata.raw is None else ["raw.X"]
    return [f"layers[{n!r}]" for n in named] + raw + [f"layers[{n!r}]" for n in others]


def _matrix(adata: ad.AnnData, place: str):
    """The matrix at ``"X"``, ``"raw.X"`` or ``"layers['name']"``."""
    if place in ("X", "raw.X"):
        matrix = adata.X if place == "X" else adata.raw.X
    else:
        matrix = next(layer for name, layer in adata.layers.items() if place == f"layers[{name!r}]")
    return matrix.compute() if hasattr(matrix, "compute") else matrix  # dask


def _as_arrays(adata: ad.AnnData, report: Report) -> None:
    """Bring unusual containers of ``X`` to NumPy or SciPy."""
    if hasattr(adata.X, "compute"):
        adata.X = adata.X.compute()
    if adata.X is None or adata.X.dtype != object:
        return
    try:
        adata.X = adata.X.astype(np.float64)
    except (TypeError, ValueError):
        return  # what it holds is said by look_at
    report.add("object-dtype", "X holds Python objects instead of numbers.", "Turned into numbers.", mended=True)


def _log_base(adata: ad.AnnData) -> float | None:
    """Base of the logarithm that scanpy noted in ``uns["log1p"]`` (where None stands for the natural one)."""
    note = adata.uns.get("log1p")
    if note is None:
        return None
    base = note.get("base") if isinstance(note, Mapping) else None
    return np.e if base is None else float(base)


def _with_counts(adata: ad.AnnData, place: str, counts: sp.csr_matrix, report: Report) -> ad.AnnData:
    """The data with the counts of ``place`` in ``X``; the genes are those of that place."""
    if "log1p" in adata.uns:
        del adata.uns["log1p"]  # scanpy would warn at each log1p that the values are logged already
        if place == "X" and report.counts == "X":
            words = "uns['log1p'] says that X is logged, and X holds raw counts."
            report.add("log1p-mark", words, "The mark was taken off.", mended=True)
    if place != "raw.X" or adata.raw.var_names.equals(adata.var_names):
        adata.X = counts
        return adata
    words = f"raw holds {adata.raw.n_vars:,} genes where X held {adata.n_vars:,}."
    done = "All of raw's genes are used; layers and what else went with X's genes were left out."
    report.add("genes-of-raw", words, done, mended=True)
    return ad.AnnData(
        X=counts,
        obs=adata.obs,
        var=adata.raw.var.copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
    )


def _where_recoverable(adata: ad.AnnData, looked: Mapping[str, Values]) -> str | None:
    """The place from which counts can be rebuilt, the one with most genes if there are several."""
    places = [place for place, v in looked.items() if v.recoverable and not (v.n_nan or v.n_infinite)]
    return max(places, key=lambda place: _matrix(adata, place).shape[1], default=None)


def _recovered(adata: ad.AnnData, place: str, found: Values, report: Report) -> sp.csr_matrix:
    counts, whole = values.recover_counts(_matrix(adata, place), found.base)
    words = f"There are no raw counts; {place} holds {found.words}."
    done = "Counts were rebuilt from these: each cell's smallest value is one count, and all others came out whole."
    if not whole.all():
        done += f" Cells in which they did not ({(~whole).sum():,}) are left out with the empty ones."
        counts = sp.csr_matrix(sp.diags(whole.astype(np.float32)) @ counts)
        counts.eliminate_zeros()
    report.add("counts-rebuilt", words, done, mended=True)
    report.counts, report.x = f"{place} (rebuilt)", "raw counts, rebuilt from normalised values"
    return counts


# ---- saying what was found ----------------------------------------------------------------------------------------------
def _say_found(adata: ad.AnnData, place: str, looked: Mapping[str, Values], report: Report) -> None:
    report.counts, report.x = place, "raw counts"
    found = looked[place]
    if found.n_off:
        words = f"Counts in {place} are off whole numbers by a rounding error, in {number_of(found.n_off, 'place')}."
        report.add("rounding", words, "Rounded.", mended=True)
    if found.high > values.EXACT_FLOAT32:
        words = f"Counts reach {found.high:,.0f}; beyond {values.EXACT_FLOAT32:,} single precision is not exact."
        fix = "Kept in double precision. Make sure that these are counts, and not intensities."
        report.add("huge-counts", words, fix)
    if place != "X":
        held = f"held {looked['X'].words}" if "X" in looked else "was empty"
        words = f"X {held}; the raw counts were in {place}."
        report.add("counts-elsewhere", words, "They were put into X in place of what it held.", mended=True)
    elif adata.raw is not None and adata.raw.n_vars > adata.n_vars:
        words = f"X holds {adata.n_vars:,} genes and raw {adata.raw.n_vars:,}. Those of X are used."
        fix = "If raw holds raw counts, adata.raw.to_adata() saved to a file of its own brings the other genes."
        report.add("more-genes-in-raw", words, fix)


def _say_no_counts(adata: ad.AnnData, looked: Mapping[str, Values], report: Report) -> None:
    """Raw counts are needed and there are none: say what each place holds and what can be done."""
    if "X" not in looked:
        report.add("no-matrix", "X is empty, and no layer holds raw counts.", _KEEP_COUNTS, fatal=True)
    for place, found in looked.items():
        if place == "X" or found.kind == "counts":
            _say_not_finite(adata, place, found, report)
            _say_negative_counts(adata, place, found, report)
    if "X" in looked and looked["X"].kind != "counts":
        words = f"X holds {looked['X'].words}, where raw counts are needed."
        words += _examples(adata, "X", looked["X"])
        elsewhere = "; ".join(f"{place} holds {found.words}" for place, found in looked.items() if place != "X")
        words += f" Elsewhere: {elsewhere}." if elsewhere else " There is no raw, and no layer with counts."
        fix = _way_out(adata, looked).replace("FILE", report.path)
        report.add(_CODES[looked["X"].kind], words, fix, fatal=True)
    if "raw.X" in looked and looked["raw.X"].kind in ("log", "normalised", "scaled"):
        words = f"raw.X holds {looked['raw.X'].words}, not the raw counts that its name promises."
        fix = "scanpy's tutorials set adata.raw after log1p: keep the counts before normalisation in a layer."
        report.add("raw-not-counts", words, fix)
    for place, found in looked.items():
        if place.startswith("layers") and "count" in place.lower() and found.kind != "counts":
            words = f"{place} is named for counts and holds {found.words}."
            report.add(
                "layer-not-counts", words, "Fill it before normalising: adata.layers['counts'] = adata.X.copy()."
            )


def _way_out(adata: ad.AnnData, looked: Mapping[str, Values]) -> str:
    if {"spliced", "unspliced"} <= {name.lower() for name in adata.layers}:
        return _SUM_VELOCITY
    if _where_recoverable(adata, looked):
        return _REBUILD
    kind = looked["X"].kind
    return {"zero": _ALL_ZERO, "broken": _DAMAGED, "fractional": _ROUND}.get(kind, _KEEP_COUNTS)


def _say_not_finite(adata: ad.AnnData, place: str, found: Values, report: Report) -> None:
    for code, n, what, fix in (
        ("nan", found.n_nan, "NaN (not a number)", "NaN comes from joining tables with different genes, or from 0/0 in a "
         "normalisation: take the values before that step, or leave these cells or genes out."),
        ("infinite", found.n_infinite, "infinite values", "Infinity comes from a division by zero or the logarithm of zero: "
         "take the values before that step."),
    ):  # fmt: skip
        if n:
            words = f"{place} holds {what} in {number_of(n, 'place')}: {_cells_and_genes(adata, place, code)}."
            report.add(code, words, fix, fatal=True)


def _say_negative_counts(adata: ad.AnnData, place: str, found: Values, report: Report) -> None:
    if found.kind != "counts" or not found.n_negative:
        return
    words = f"{place} holds negative values in {number_of(found.n_negative, 'place')}: "
    words += f"{_cells_and_genes(adata, place, 'negative')}."
    fix = "Counts start at zero: take those before the subtraction (of background or batch) that made them negative."
    dtype = _matrix(adata, place).dtype
    if dtype.kind == "i":
        fix = f"Counts start at zero. {dtype} holds numbers up to {np.iinfo(dtype).max:,}, and larger ones become negative: save the counts again as int32."
    report.add("negative", words, fix, fatal=True)


def _examples(adata: ad.AnnData, place: str, found: Values) -> str:
    what = "negative" if found.n_negative else "fraction" if found.n_fraction else None
    return f" For example {_cells_and_genes(adata, place, what)}." if what else ""


def _cells_and_genes(adata: ad.AnnData, place: str, what: str) -> str:
    matrix = _matrix(adata, place)
    names = adata.raw.var_names if place == "raw.X" else adata.var_names
    at = values.where(matrix, what)
    return ", ".join(f"{_value(matrix[i, j])} in cell {adata.obs_names[i]} for gene {names[j]}" for i, j in at)


def _value(x) -> str:
    return "NaN" if np.isnan(x) else f"{x:.4g}"
