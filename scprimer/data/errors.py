"""What can go wrong with data, each as an exception whose text says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(Exception):
    """Base of everything that goes wrong with data; the text says what is wrong and what to do."""


class UnknownData(DataError):
    """No data set, part or option of that name."""


class DownloadError(DataError):
    """A file could not be fetched: no network, the server refused, the file is gone or came incomplete."""


class WrongHash(DataError):
    """A file's bytes are not those of the registry."""


class CacheError(DataError):
    """The cache folder cannot be written, or the disk is full."""


class MirrorError(DataError):
    """The mirror folder is absent, or a file in it is missing or damaged."""


class FormatError(DataError):
    """A file that passed its hash does not hold what its loader expects: the loader and the file disagree."""


def nearest(what: str, name: str, known: Iterable[str]) -> UnknownData:
    """The error for an unknown ``name`` of kind ``what``, suggesting the nearest of the ``known`` ones."""
    known = sorted(known)
    if not known:
        return UnknownData(f"there is no {what} called {name!r}, nor any other: leave it out")
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UnknownData(f"there is no {what} called {name!r}: {hint}Known are: {', '.join(known)}")
