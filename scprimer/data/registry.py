"""The registry: what each data set is, where its files come from, and how to recognise their bytes.

``registry.toml`` beside this module holds one table a data set. Only files whose bytes were opened and hashed are in it.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scprimer.data.errors import nearest

REGISTRY = Path(__file__).with_name("registry.toml")


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        file: its path below the data set's folder, with forward slashes.
        bytes: its size.
        sha256: hash of its bytes, 64 hexadecimal digits.
        url: where a reader fetches it, pinned to a commit.
        parts: the parts of the data set that need it; empty when all do.
    """

    file: str
    bytes: int
    sha256: str
    url: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """One row of the registry.

    Attributes:
        name: the name that :func:`scprimer.data.load` takes.
        title: one line in plain words.
        files: its files.
        licence: SPDX identifier or the words of the hosting repository.
        licence_note: what else there is to know about the licence, or ``""``.
        citation: publication and accession where they could be confirmed, else who hosts the files.
        organism: ``"human"``, ``"mouse"``, ...
        x: what ``X`` holds, such as ``"raw counts"``; for sets that are no AnnData what the values are.
        labels: what is known about the cells, and where it comes from.
        remark: what a user must know before drawing conclusions.
        loader: ``"module:function"`` below :mod:`scprimer.data.loaders`.
        parts: names that ``load(name, part=...)`` takes, the first being the default; empty for sets of one piece.
    """

    name: str
    title: str
    files: tuple[File, ...]
    licence: str
    licence_note: str
    citation: str
    organism: str
    x: str
    labels: str
    remark: str
    loader: str
    parts: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """One hash for the data set: over its files' names and hashes, in the order of their names."""
        lines = sorted(f"{f.sha256}  {f.file}\n" for f in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all its files together."""
        return sum(f.bytes for f in self.files)

    def check_part(self, part: str | None) -> str | None:
        """The part that ``part`` means: itself, or the default when it is None.

        Raises:
            scprimer.data.DataError: the data set has no such part.
        """
        if part is None:
            return self.parts[0] if self.parts else None
        if part not in self.parts:
            raise nearest(f"part of {self.name!r}", part, self.parts)
        return part

    def files_for(self, part: str | None) -> tuple[File, ...]:
        """The files that a part needs; all of them when ``part`` is None."""
        if part is None:
            return self.files
        part = self.check_part(part)
        return tuple(f for f in self.files if not f.parts or part in f.parts)


def names() -> list[str]:
    """Names of all registered data sets, in the order of the registry."""
    return list(_registry())


def is_registered(name: object) -> bool:
    """Whether ``name`` is a registered data set (a path of the reader's own file is not)."""
    return isinstance(name, str) and name in _registry()


def describe(name: str) -> DataSet:
    """The registry's row for ``name``.

    Raises:
        scprimer.data.DataError: there is no such data set; the nearest name is suggested.
    """
    try:
        return _registry()[name]
    except (KeyError, TypeError):
        raise nearest("data set", name, _registry()) from None


@lru_cache(maxsize=1)
def _registry() -> dict[str, DataSet]:
    with REGISTRY.open("rb") as handle:
        table = tomllib.load(handle)
    return {name: _row(name, row) for name, row in table.items()}


def _row(name: str, row: dict) -> DataSet:
    files = tuple(File(**{**f, "parts": tuple(f.get("parts", ()))}) for f in row.pop("files"))
    return DataSet(name=name, files=files, parts=tuple(row.pop("parts", ())), **row)
