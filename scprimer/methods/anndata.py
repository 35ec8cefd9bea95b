# Exported by `scprimer export` from notebooks/data/anndata.ipynb. Edit the notebook, not this file.
"""What the chapter "One container for a million cells" builds."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

__all__ = [
    "SLOTS",
    "csr",
    "differ",
    "differences",
    "read_rows",
    "same_array",
    "stream",
]


def csr(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compress a dense matrix by rows.

    Args:
        dense: n x g.

    Returns:
        ``data`` (m values that are not zero, row by row), ``indices`` (their m columns), ``indptr`` (n + 1 row starts).
    """
    rows, columns = np.nonzero(dense)  # in row order
    starts = np.zeros(len(dense) + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=len(dense)), out=starts[1:])
    return dense[rows, columns], columns.astype(np.int32), starts


def same_array(a, b) -> bool:
    """Whether two arrays, both dense or both sparse, agree in shape, kind of number, and every value (NaN equals NaN)."""
    if sparse.issparse(a) != sparse.issparse(b) or a.shape != b.shape:
        return False
    if sparse.issparse(a):
        a, b = a.tocsr().sorted_indices(), b.tocsr().sorted_indices()
        return all(same_array(getattr(a, part), getattr(b, part)) for part in ("indptr", "indices", "data"))
    text = a.dtype.kind in "OUST" and b.dtype.kind in "OUST"  # Python strings and fixed-width ones hold the same text
    if not text and (a.dtype.kind, a.dtype.itemsize) != (b.dtype.kind, b.dtype.itemsize):
        return False
    return bool(np.all((a == b) | (pd.isna(a) & pd.isna(b))))


def differ(where: str, a, b) -> list[str]:
    """Differences between two pieces of a container (mapping, table, column, array or scalar), each in words."""
    if isinstance(a, pd.DataFrame) and isinstance(b, pd.DataFrame):
        named = differ(f"names of {where}", a.index.to_numpy(), b.index.to_numpy())
        return named + differ(where, {c: a[c] for c in a}, {c: b[c] for c in b})
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        lost = [f"{where}[{key!r}] {'is new' if key in b else 'is gone'}" for key in sorted(set(a) ^ set(b))]
        return lost + [d for key in a if key in b for d in differ(f"{where}[{key!r}]", a[key], b[key])]
    if isinstance(a, pd.Series) and isinstance(b, pd.Series):
        if str(a.dtype) != str(b.dtype):
            return [f"{where}: {a.dtype} became {b.dtype}"]
        return [] if a.array.equals(b.array) else [f"{where}: values differ"]
    arrays = (a, b) if sparse.issparse(a) or sparse.issparse(b) else (np.asarray(a), np.asarray(b))
    return [] if same_array(*arrays) else [f"{where}: values differ"]


SLOTS = ("obs", "var", "layers", "obsm", "varm", "obsp", "varp", "uns")


def differences(before: ad.AnnData, after: ad.AnnData) -> list[str]:
    """Everything in which two containers differ, in words; an empty list means that nothing was lost or changed."""
    found = differ("X", before.X, after.X)
    for slot in SLOTS:
        a, b = getattr(before, slot), getattr(after, slot)
        found += differ(slot, a, b) if isinstance(a, pd.DataFrame) else differ(slot, dict(a), dict(b))
    if (before.raw is None) != (after.raw is None):
        return [*found, "raw is " + ("new" if before.raw is None else "gone")]
    if before.raw is not None:
        found += differ("raw.X", before.raw.X, after.raw.X) + differ("raw.var", before.raw.var, after.raw.var)
    return found


def read_rows(path: Path, start: int, stop: int) -> sparse.csr_matrix:
    """Rows ``start`` to ``stop`` of ``X`` in an ``.h5ad`` with sparse rows, reading nothing else of the matrix.

    Returns:
        (stop - start) x genes; the values keep the type they have in the file.
    """
    with h5py.File(path) as file:
        X = file["X"]
        indptr = X["indptr"][start : stop + 1]
        stretch = slice(indptr[0], indptr[-1])
        parts = X["data"][stretch], X["indices"][stretch], indptr - indptr[0]
        return sparse.csr_matrix(parts, shape=(stop - start, X.attrs["shape"][1]))


def stream(path: Path, chunk: int) -> Iterator[sparse.csr_matrix]:
    """The rows of ``X`` in an ``.h5ad``, ``chunk`` cells at a time (the last piece may be shorter)."""
    with h5py.File(path) as file:
        cells = int(file["X"].attrs["shape"][0])
    for start in range(0, cells, chunk):
        yield read_rows(path, start, min(start + chunk, cells))
