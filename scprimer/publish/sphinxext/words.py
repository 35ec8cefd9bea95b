"""Numbers, durations and days as a reader would say them; each function returns HTML, with what it was given escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from html import escape

from scprimer.publish import ledger

RESAMPLE_WORDS = {
    "seed": "seeds",
    "cells": "draws of cells",
    "donors": "draws of donors",
    "simulation": "simulations",
}


def figure(value: float | None, digits: int = 3) -> str:
    """A number as HTML, to so many significant digits: ``1,234``, ``0.871``, ``2.1 × 10⁻⁷``; a dash for None."""
    if value is None:
        return '<span class="scp-none"><span aria-hidden="true">–</span><span class="scp-hidden">none</span></span>'
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e7):
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return f"{_minus(mantissa)}&thinsp;×&thinsp;10<sup>{_minus(str(int(exponent)))}</sup>"
    if size >= 1000:
        return _minus(f"{value:,.0f}")
    return _minus(f"{value:.{digits}g}")


def spread(measured: ledger.Measured) -> str:
    """Mean, spread, and what the repeats drew anew."""
    if measured.mean is None:
        return '<span class="scp-none">not measured</span>'
    if measured.sd is None:
        return figure(measured.mean)
    what = f"{len(measured.values)} {RESAMPLE_WORDS.get(measured.resample or '', 'repeats')}"
    if measured.sd == 0:
        return f'{figure(measured.mean)} <span class="scp-of">in all {what}</span>'
    return f'{figure(measured.mean)} ± {figure(measured.sd, 2)} <span class="scp-of">over {what}</span>'


def prose(text: str) -> str:
    """Words from a table as HTML: escaped, with `code` between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def minutes(seconds: float | None) -> str:
    """A duration in the unit that one would say it in."""
    if seconds is None:
        return figure(None)
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"


def memory(megabytes: float | None) -> str:
    """Megabytes or gigabytes."""
    if megabytes is None:
        return figure(None)
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def day(text: object) -> str:
    """``"2026-01-09"`` as ``9 January 2026``; anything else as it is."""
    try:
        found = date.fromisoformat(str(text)[:10])
    except ValueError:
        return escape(str(text))
    return f"{found.day} {found:%B %Y}"


def device(stamp: Mapping) -> str:
    """Where a run took place, in words, as HTML."""
    name = str(stamp.get("device") or "cpu")
    words = [str(stamp["hardware"])] if stamp.get("hardware") else ["CPU" if name == "cpu" else name]
    threads = stamp.get("threads")
    if threads and name == "cpu":
        words.append(f"{threads} thread{'s' if threads != 1 else ''}")
    return escape(", ".join(words))


def _minus(text: str) -> str:
    return text.replace("-", "−")
