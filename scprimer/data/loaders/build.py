"""From matrices and tables to AnnData, with the checks that every loader owes its readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import FormatError


def counts(
    x: Any,
    obs: pd.DataFrame | Sequence[str],
    var: pd.DataFrame | Sequence[str],
    **slots: Any,
) -> ad.AnnData:
    """AnnData with raw counts in ``X``.

    Args:
        x: counts, cells x features, sparse or dense.
        obs: a table with one row a cell (index: barcodes), or only the barcodes.
        var: a table with one row a feature (index: names), or only the names. Names that occur twice get ``-1``, ``-2``
            appended and the name as it was is kept in ``var["name"]``.
        slots: ``obsm``, ``layers``, ``uns``, ... of AnnData.

    Raises:
        FormatError: the shapes do not fit, or the values are no counts.
    """
    return build(as_counts(x), obs, var, **slots)


def build(x: Any, obs: pd.DataFrame | Sequence[str], var: pd.DataFrame | Sequence[str], **slots: Any) -> ad.AnnData:
    """AnnData with whatever ``x`` holds; names are made unique as :func:`counts` says."""
    obs, var = _table(obs), _table(var)
    if x.shape != (len(obs), len(var)):
        raise FormatError(f"the matrix is {x.shape} and the names are {len(obs)} x {len(var)}: rows do not fit")
    for table in (obs, var):
        if not table.index.is_unique:
            table["name"] = table.index.to_numpy()
            table.index = ad.utils.make_index_unique(table.index)
    return ad.AnnData(x, obs=obs, var=var, **slots)


def as_counts(x: Any) -> sp.csr_matrix:
    """``x`` as csr of float32 without stored zeros.

    Raises:
        FormatError: a value is negative, not whole, not finite, or too large to be exact in float32.
    """
    found = sp.csr_matrix(x)
    values = found.data
    if values.size:
        whole = np.isfinite(values).all() and (values >= 0).all() and (values == np.rint(values)).all()
        if not whole or values.max() >= 2**24:
            raise FormatError(
                "the file was expected to hold raw counts, and some values are not whole numbers from 0 up"
            )
    found = found.astype(np.float32)
    found.eliminate_zeros()
    found.sort_indices()
    return found


def restore_counts(logs: Any, *, undo=np.expm1, totals: Any = None) -> tuple[sp.csr_matrix, float]:
    """Counts behind values that were scaled per cell and mostly also logged.

    Within a cell such a value is ``log(1 + scale * count)``, so that counts are ``expm1(value) / scale``. The scale is
    known where the cell's total is; else it is the cell's smallest value, which belongs to a count of one in almost
    every cell (in a cell without a one, all counts come out too small by a common factor).

    Args:
        logs: cells x genes, sparse.
        undo: what leads from the values to ``scale * count``: ``np.expm1``, or the identity for values that were not logged.
        totals: one number a cell to which the scale is inversely proportional up to a few per cent, such as the
            cell's UMIs when ``scale = 10,000 / total``; NaN for cells where it is unknown, None when it is for all.

    Returns:
        The counts (rounded), and the share of cells in which every value was a whole number before rounding.
    """
    found = sp.csr_matrix(logs, dtype=np.float64, copy=True)
    found.eliminate_zeros()
    found.data = undo(found.data)
    row = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    smallest = np.full(found.shape[0], np.inf)
    np.minimum.at(smallest, row, found.data)
    if totals is not None:
        # How many counts the smallest value stands for: a whole number near smallest / scale.
        expected = smallest * np.asarray(totals, dtype=float) / 1e4
        smallest = smallest / np.where(np.isnan(expected), 1, np.maximum(np.rint(expected), 1))
    values = found.data / smallest[row]
    whole = np.rint(values)
    off = np.abs(values - whole) > 1e-3 * np.maximum(values, 1)
    found.data = whole
    bad = np.unique(row[off])
    return found, 1 - len(bad) / found.shape[0]


def categorical(values: Any, order: Sequence[str] | None = None) -> pd.Categorical:
    """Labels as a Categorical with plain string categories; missing values stay missing."""
    series = pd.Series(np.asarray(values, dtype=object))
    missing = series.isna()
    text = series.astype(str).where(~missing, None)
    return pd.Categorical(text, categories=order)


def _table(names: pd.DataFrame | Sequence[str]) -> pd.DataFrame:
    if isinstance(names, pd.DataFrame):
        table = names.copy()
        table.index = table.index.astype(str)
        return table
    return pd.DataFrame(index=pd.Index([str(n) for n in names], dtype=object))
