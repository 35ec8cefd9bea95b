"""Checks of arguments that every simulator makes, in words that say what to change."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def whole(name: str, value, least: int = 1) -> int:
    """``value`` as an int of at least ``least``.

    Raises:
        ValueError: it is not a whole number, or too small.
    """
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name}={value!r}: use a whole number of at least {least}")
    return int(value)


def within(name: str, value, low: float, high: float, *, open_high: bool = False) -> float:
    """``value`` as a float in [low, high], or in [low, high) when ``open_high``.

    Raises:
        ValueError: it lies outside.
    """
    number = float(value)
    if not (low <= number < high if open_high else low <= number <= high):
        raise ValueError(f"{name}={value!r}: use a number from {low:g} to {'below ' if open_high else ''}{high:g}")
    return number


def pair(name: str, value, words: str) -> tuple[float, float]:
    """``value`` as (median, sd of the logarithm): the first above 0, the second at least 0.

    Raises:
        ValueError: it is not such a pair.
    """
    try:
        median, log_sd = (float(v) for v in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: use a pair, (median, sd of the logarithm), of {words}") from None
    if not median > 0 or not log_sd >= 0:
        raise ValueError(f"{name}={value!r}: the median {words} must be above 0 and the log sd at least 0")
    return median, log_sd


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """``value``, if it is one of ``allowed``.

    Raises:
        ValueError: it is not; the nearest allowed word is suggested.
    """
    allowed = list(allowed)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}{hint}")
    return value
