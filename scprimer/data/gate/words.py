"""Small helpers for saying things in plain words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def some(names: Iterable, n: int = 3) -> str:
    """The first few names, with dots when there are more."""
    names = list(names)
    return ", ".join(str(x) for x in names[:n]) + (", ..." if len(names) > n else "")


def some_of(names: Iterable, n: int = 5000) -> list[str]:
    """At most ``n`` of the names, evenly spread."""
    names = list(names)
    return names if len(names) <= n else [names[i] for i in np.linspace(0, len(names) - 1, n).astype(int)]


def number_of(n: int, noun: str) -> str:
    """``"1 file"``, ``"1,200 files"``."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def first_line(error: Exception) -> str:
    """The first line of what an error says, without its full stop."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def size(n: float) -> str:
    """A number of bytes: ``"3.2 GB"``."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if n < 1000:
            break
        n, unit = n / 1000, larger
    return f"{n:.1f} {unit}" if n < 10 and unit != "bytes" else f"{n:,.0f} {unit}"
