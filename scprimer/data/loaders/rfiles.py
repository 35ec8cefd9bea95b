"""R's files (``.rda``, ``.RData``, ``.rds``) without R, through the package rdata.

rdata turns vectors into NumPy arrays, factors into Categoricals, data frames into pandas, named arrays into xarray, and
S4 objects into namespaces with one attribute a slot. Here are the few things on top that single-cell files need.
"""

from __future__ import annotations

import lzma
import struct
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import FormatError
from scprimer.data.loaders import quick

# What decompression, rdata's parser and its converter raise on bytes that make no sense.
_UNREADABLE = (
    EOFError, OSError, ValueError, TypeError, IndexError, KeyError, AssertionError, NotImplementedError,
    lzma.LZMAError, zlib.error, struct.error,
)  # fmt: skip


def read_r(path: Path) -> Any:
    """What an R file holds: a dict name -> object for ``.rda`` and ``.RData``, one object for ``.rds``.

    Raises:
        FormatError: the file is not R's serialisation, or ends early.
    """
    path = Path(path)
    with warnings.catch_warnings():
        # "Missing constructor for R class ...": the underlying object comes back instead, which is what we want.
        warnings.simplefilter("ignore")
        try:
            return quick.convert(quick.parse(path.read_bytes()))
        except _UNREADABLE as error:
            raise FormatError(f"{path.name} cannot be read as an R file ({error}): fetch it again") from error


def only(path: Path) -> Any:
    """The one object of an ``.rda`` file that holds one."""
    held = read_r(path)
    if not isinstance(held, dict) or len(held) != 1:
        raise FormatError(f"{Path(path).name} was expected to hold one R object")
    return next(iter(held.values()))


def strings(vector: Any) -> list[str]:
    """An R character vector as plain Python strings (rdata gives NumPy's)."""
    return [str(v) for v in vector]


def matrix(obj: Any) -> tuple[sp.csc_matrix, list[str] | None, list[str] | None]:
    """An R matrix as (csc, row names, column names), rows and columns as in R; names are None where it has none.

    Takes what rdata gives for a dense matrix (with or without names) and for the Matrix package's ``dgCMatrix`` and
    ``dgTMatrix``.
    """
    if isinstance(obj, np.ndarray) and obj.ndim == 2:
        return sp.csc_matrix(obj), None, None
    if hasattr(obj, "dims") and hasattr(obj, "coords"):  # xarray: a matrix with dimnames
        names = [strings(obj.coords[d].values) if d in obj.coords else None for d in obj.dims]
        return sp.csc_matrix(obj.values), names[0], names[1]
    slots = vars(obj) if isinstance(obj, SimpleNamespace) else obj
    if not isinstance(slots, dict) or "Dim" not in slots or "x" not in slots:
        raise FormatError(f"an R object of type {type(obj).__name__} was expected to be a matrix")
    shape = tuple(int(d) for d in slots["Dim"])
    x, i = np.asarray(slots["x"]), np.asarray(slots["i"])
    if "j" in slots:
        found = sp.coo_matrix((x, (i, np.asarray(slots["j"]))), shape=shape).tocsc()
    else:
        found = sp.csc_matrix((x, i, np.asarray(slots["p"])), shape=shape)
    rows, columns = slots.get("Dimnames") or (None, None)
    return found, None if rows is None else strings(rows), None if columns is None else strings(columns)


def undo_run_lengths(rle: Any) -> np.ndarray:
    """The vector behind R's ``rle``, a pair of ``lengths`` and ``values``."""
    return np.repeat(np.asarray(rle["values"]), np.asarray(rle["lengths"]))


def labels(factor: Any) -> tuple[pd.Series, list[str]]:
    """An R factor as (labels, levels in R's order); the labels' index is the factor's names, or 0, 1, ..."""
    series = factor if isinstance(factor, pd.Series) else pd.Series(factor)
    levels = [str(c) for c in series.cat.categories]
    return series.astype(object), levels


def frame(obj: Any) -> pd.DataFrame:
    """A data frame with plain column names and dtypes: no pandas ``string``, nullable integers only where one is missing."""
    table = obj if isinstance(obj, pd.DataFrame) else pd.DataFrame(obj)
    table = table.copy()
    table.columns = [str(c) for c in table.columns]
    table.index = [str(i) for i in table.index]
    for column in table:
        values = table[column]
        if isinstance(values.dtype, pd.StringDtype):
            table[column] = values.astype(object).where(values.notna(), np.nan)
        elif pd.api.types.is_extension_array_dtype(values.dtype) and not isinstance(values.dtype, pd.CategoricalDtype):
            missing = values.isna().any()
            table[column] = values.astype(float) if missing else values.astype(values.dtype.numpy_dtype)
    return table


def dframe(obj: Any) -> pd.DataFrame:
    """Bioconductor's ``DFrame`` (``DataFrame`` in older files) as a plain data frame."""
    columns = {str(k): getattr(v, "values", v) for k, v in dict(obj.listData).items()}
    table = pd.DataFrame({k: v for k, v in columns.items() if not isinstance(v, SimpleNamespace)})
    if obj.rownames is not None and not isinstance(obj.rownames, str):  # R's NULL in a slot comes as the string "NULL"
        table.index = strings(obj.rownames)
    return frame(table)


def experiment(sce: Any) -> tuple[dict[str, sp.csc_matrix], pd.DataFrame, pd.DataFrame]:
    """A ``SingleCellExperiment`` as (assays by name: genes x cells, table of genes, table of cells)."""
    assays, names = {}, None
    for name, assay in sce.assays.data.listData.items():
        assays[str(name)], rows, _ = matrix(assay)
        names = names or rows
    genes = dframe(sce.rowRanges.elementMetadata)
    genes.index = names if names is not None else strings(sce.rowRanges.partitioning.NAMES)
    return assays, genes, dframe(sce.colData)
