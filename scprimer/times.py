"""How long chapters and their cells took when the book was made: what a kernel, which sees no notebook, can know.

One small file a chapter, ``scprimer/records/<chapter>.json``, is shipped with the package; ``scprimer run --record`` and
``scprimer export`` write it (see :mod:`scprimer.publish.timing`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

FOLDER = "records"


@dataclass(frozen=True)
class Times:
    """One recorded run of a chapter in one profile.

    Attributes:
        seconds: of the whole chapter, the start of its kernel included.
        peak_mb: the most memory that it held.
        hardware: what it ran on, in a few words.
        date: day of the run, as in ``"2026-01-09"``.
        checkpoints: whether trained models of an earlier run were used.
        cells: key of a cell's source (:func:`cell_key`) -> seconds; cells of less than a second are left out.
    """

    seconds: float
    peak_mb: float | None = None
    hardware: str | None = None
    date: str = ""
    checkpoints: bool = False
    cells: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        words = f"about {about(self.seconds)}"
        if self.peak_mb:
            words += f" and {self.peak_mb / 1000:.1f} GB" if self.peak_mb >= 1000 else f" and {self.peak_mb:.0f} MB"
        words += f" on {self.hardware}" if self.hardware else ""
        words += f", measured {self.date}" if self.date else ""
        return words + (" with models trained before; the first time takes longer" if self.checkpoints else "")


def recorded(chapter: str, profile: str) -> Times | None:
    """What the chapter took in this profile when it was recorded; None when it never was."""
    file = resources.files("scprimer") / FOLDER / f"{chapter}.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8")).get(profile)
    return Times(**found) if found else None


def words(chapter: str, profile: str, own_data: bool = False) -> str | None:
    """What the chapter takes, in words for the start card; None when it was never recorded in this profile."""
    found = recorded(chapter, profile)
    if found is None:
        return None
    return f"on the book's data {found}" if own_data else str(found)


def cell_key(source: str) -> str:
    """A key of a cell's code that comments and layout do not change.

    A front end tells the kernel the code of a cell, and only some tell its id.
    """
    code = re.sub(r"#.*|\s", "", source)  # what looks like a comment in a text goes, too: no harm in a key
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def about(seconds: float) -> str:
    """A duration as one would say it: ``"8 s"``, ``"40 s"``, ``"2.5 min"``, ``"9 min"``, ``"1 h 20 min"``."""
    if seconds < 57.5:
        return f"{max(seconds, 1):.0f} s" if seconds < 20 else f"{round(seconds / 5) * 5} s"
    minutes = seconds / 60
    if minutes < 4.75:
        return f"{round(minutes * 2) / 2:g} min"
    hours, rest = divmod(round(minutes) if minutes < 59.5 else round(minutes / 5) * 5, 60)
    if not hours:
        return f"{rest} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"
