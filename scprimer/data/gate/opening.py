"""Opening an ``.h5ad``: what it will take in memory, and reading it, part by part when the whole cannot be read."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np

from scprimer.data.gate import filetype
from scprimer.data.gate.report import Problem, Report
from scprimer.data.gate.words import first_line, size, some

_GIANT = 2 * 10**9  # bytes of a dense matrix from which it is worth a word
_UPDATE = "A newer anndata may read it: `pip install --upgrade anndata`."
_SMALLER = """Make it smaller: fewer cells, sparse instead of dense matrices, without layers that are not needed:
    adata = anndata.read_h5ad("FILE", backed="r"); adata[::10].to_memory().write_h5ad("mine-small.h5ad")"""


def check_memory(path: Path) -> list[Problem]:
    """Compare what the file takes in memory with what is free, before anything is loaded."""
    dense: dict[str, int] = {}
    total = 0

    def visit(name: str, item) -> None:
        nonlocal total
        if isinstance(item, h5py.Dataset) and item.size and item.dtype.kind in "biufc":
            total += item.size * item.dtype.itemsize
            if item.ndim == 2 and name.split("/")[0] in ("X", "layers", "raw"):
                dense[name] = item.size * item.dtype.itemsize

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
            name = max(dense, key=dense.get, default=None)
            giant = name is not None and dense[name] >= _GIANT
            filled = _share_filled(file[name]) if giant else 1.0
            width = file[name].dtype.itemsize if giant else 1
    except filetype.HDF5_ERRORS as error:
        return [filetype.hdf5_error(path, error)]
    free = free_memory()
    if total > free:
        words = f"Loading {path.name} takes about {size(total)}, and {size(free)} of memory are free."
        return [Problem("too-big", words, _SMALLER.replace("FILE", str(path)), fatal=True)]
    if giant:
        sparse = dense[name] / width * filled * (width + 4)  # each value beside its column's number
        words = (
            f"{name} is stored as a dense matrix of {size(dense[name])}, of which {filled:.0%} is not zero "
            f"(sparse it would take {size(sparse)})."
        )
        fix = "It works, and takes that memory for a moment. Saved sparse it opens faster:\n    adata.X = scipy.sparse.csr_matrix(adata.X)"
        return [Problem("dense-giant", words, fix)]
    if total > free / 2:
        words = f"Loading {path.name} takes about {size(total)} of the {size(free)} of memory that are free."
        return [Problem("much-memory", words, "Close other notebooks, or work on a part of the cells.")]
    return []


def free_memory() -> int:
    """Bytes of memory that can be had."""
    import psutil

    return psutil.virtual_memory().available


def open_h5ad(path: Path, report: Report) -> ad.AnnData | None:
    """Read the file. Parts that the rest does without (uns, embeddings, graphs) may be broken and are then left out."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adata = ad.read_h5ad(path)
    except MemoryError:
        words = f"{path.name} does not fit into memory."
        report.add("too-big", words, _SMALLER.replace("FILE", str(path)), fatal=True)
        return None
    except Exception as error:  # whatever the libraries raise is looked into part by part and said in words
        return _open_by_parts(path, report, error)
    if any(w.category.__name__ == "OldFormatWarning" for w in caught):
        words = "The file was written by an old version of anndata, and could be read."
        report.add("old-format", words, "Nothing needs doing; saving it again with write_h5ad brings it up to date.")
    return adata


def _open_by_parts(path: Path, report: Report, error: Exception) -> ad.AnnData | None:
    parts = {"X": None, "obs": None, "var": None, "raw": None}
    groups = {name: {} for name in ("layers", "obsm", "varm", "obsp", "varp", "uns")}
    failed: dict[str, Exception] = {}

    def attempt(target: dict, key: str, item, name: str) -> None:
        try:
            target[key] = ad.io.read_elem(item)
        except Exception as trouble:
            failed[name] = trouble

    with h5py.File(path, "r") as file:
        version = file.attrs.get("encoding-version", "")
        if file.attrs.get("encoding-type") == "anndata" and version not in ("", "0.1.0"):
            words = (
                f"The file is in version {version} of the .h5ad format, newer than the anndata installed here reads."
            )
            fix = f"{_UPDATE} Or save it with an older anndata where it was made."
            report.add("newer-format", words, fix, fatal=True)
            return None
        for key in parts:
            if key in file:
                attempt(parts, key, file[key], key)
        for name, group in groups.items():
            for key in file[name] if name in file and hasattr(file[name], "keys") else ():
                attempt(group, key, file[name][key], f"{name}[{key!r}]")
    vital = {name: e for name, e in failed.items() if name in parts or name.startswith("layers")}
    for name, trouble in vital.items():
        _say_unreadable(report, path, name, trouble)
    if vital:
        return None
    try:
        adata = ad.AnnData(**parts, **groups)
    except Exception as trouble:
        words = f"The parts of {path.name} do not fit together: {first_line(trouble)}."
        fix = "It was put together by hand, or its saving was interrupted: write it again with write_h5ad."
        report.add("inconsistent", words, fix, fatal=True)
        return None
    if not failed:  # every part can be read, and yet the whole could not be
        _say_unreadable(report, path, "The whole", error)
        return None
    words = f"These parts could not be read: {some(failed)} ({first_line(next(iter(failed.values())))})."
    report.add("unreadable-part", words, f"Left out: nothing here needs them. {_UPDATE}", mended=True)
    return adata


def _say_unreadable(report: Report, path: Path, name: str, error: Exception) -> None:
    if type(error).__name__ == "IORegistryError":
        code = "newer-format"
        stored = re.search(r"encoding_type='(.*?)', encoding_version='(.*?)'", str(error))
        how = f"as {stored[1]!r} of version {stored[2]}" if stored else "in a way"
        words = f"{name} is stored {how}, which the anndata installed here does not know."
        fix = f"{_UPDATE} Or save it with an older anndata where it was made."
    elif isinstance(error, OSError):
        code = "damaged"
        words = f"{name} of {path.name} is damaged: {first_line(error)}."
        fix = "Get the file again, and compare its size and checksum with the source's."
    else:
        code = "unreadable-part"
        words = f"{name} of {path.name} cannot be read: {type(error).__name__}: {first_line(error)}."
        fix = "Write the file again with write_h5ad where it was made."
    report.add(code, words, fix, fatal=True)


def _share_filled(matrix) -> float:
    rows = np.unique(np.linspace(0, matrix.shape[0] - 1, 20).astype(int))
    return float(np.mean([np.count_nonzero(matrix[i]) / max(matrix.shape[1], 1) for i in rows]))
