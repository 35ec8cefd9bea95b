"""Data: real data sets by name, the reader's own files, and simulators with known truth.

>>> adata = scprimer.data.load("pbmc3k")

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
import inspect
from os import PathLike
from pathlib import Path

from scprimer.data.errors import (
    CacheError,
    DataError,
    DownloadError,
    FormatError,
    MirrorError,
    UnknownData,
    WrongHash,
    nearest,
)
from scprimer.data.registry import DataSet, File, describe, is_registered, names

__all__ = [
    "CacheError",
    "DataError",
    "DataSet",
    "DownloadError",
    "File",
    "FormatError",
    "MirrorError",
    "UnknownData",
    "WrongHash",
    "describe",
    "fetch",
    "is_registered",
    "load",
    "names",
]

_ROOMS = ("commands", "gate", "loaders", "simulate")


def load(name: str | PathLike, *, part: str | None = None, **options):
    """Load a registered data set, or the reader's own ``.h5ad``.

    Args:
        name: a registered name (:func:`names` lists them) or a path of an ``.h5ad``.
        part: which piece of a set of several, such as ``"sc_dropseq"`` of ``"cell-mixology"``; default: the first of
            ``describe(name).parts``.
        options: what the data set's loader takes beside (see its docstring in :mod:`scprimer.data.loaders`), or, for
            a path, what :func:`scprimer.data.gate.read` takes.

    Returns:
        Mostly AnnData (cells x genes) with raw counts in ``X`` (csr, float32), labels under plain names in ``obs`` and
        provenance in ``uns["scprimer"]``; tables, gene sets and motifs come as DataFrame or dict (their provenance is
        in ``describe(name)``, and in ``.attrs["scprimer"]`` of a DataFrame).

    Raises:
        DataError: unknown name, part or option; files that cannot be had; a file that fails its hash or the gate.
    """
    if not is_registered(name):
        if not _is_path(name):
            describe(name)  # raises with the nearest name
        from scprimer.data import gate

        if part is not None:
            raise UnknownData(f"{name} is a file of your own and has no parts: leave `part` out")
        return gate.read(name, **options)

    entry = describe(name)
    part = entry.check_part(part)
    loader = _loader(entry)
    accepted = [p for p in inspect.signature(loader).parameters if p not in ("folder", "part")]
    for option in options:
        if option not in accepted:
            raise nearest(f"option of the data set {name!r}", option, accepted)
    folder = fetch(name, part)
    result = loader(folder, **({"part": part} if entry.parts else {}), **options)
    return _with_provenance(result, entry, part)


def fetch(name: str, part: str | None = None) -> Path:
    """Folder with the verified files of a data set, downloaded if need be.

    Args:
        name: a registered name.
        part: only the files that this part needs; None for all.

    Raises:
        DataError: what is wrong (network, hash, disk, mirror) and what to do.
    """
    from scprimer.data.download import fetch_files

    return fetch_files(describe(name), part)


def _is_path(name: object) -> bool:
    """Whether this is meant as a file: a path object, something with a folder or a suffix, or something that is there."""
    if isinstance(name, PathLike):
        return True
    if not isinstance(name, str):
        return False
    return "/" in name or "\\" in name or bool(Path(name).suffix) or Path(name).exists()


def _loader(entry: DataSet):
    module, function = entry.loader.split(":")
    return getattr(importlib.import_module(f"scprimer.data.loaders.{module}"), function)


def _with_provenance(result, entry: DataSet, part: str | None):
    """Write where the data came from into it; a loader may have said more (or other) in the same place."""
    record = {
        "dataset": entry.name,
        "part": part or "",
        "sha256": entry.sha256,
        "licence": entry.licence,
        "citation": entry.citation,
        "x": entry.x,
        "simulated": False,
    }
    if hasattr(result, "uns"):
        result.uns["scprimer"] = {**record, **result.uns.get("scprimer", {})}
    elif hasattr(result, "attrs"):
        result.attrs["scprimer"] = {**record, **result.attrs.get("scprimer", {})}
    return result


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"scprimer.data.{name}")
    raise AttributeError(f"module 'scprimer.data' has no attribute {name!r}")
