"""What every chapter must keep to, as small functions over the parsed notebook.

Each rule takes a chapter (and the top folder of the clone) and returns a list of :class:`Violation`, empty when the
chapter keeps it. :data:`RULES` holds them all by name, :func:`check` runs them.

A chapter for which a part makes no sense says so in ``scprimer.not_applicable`` of its notebook's metadata:
``{what: reason}``, the reason a sentence that the book shows. See :mod:`scprimer.publish.rules.common` for the keys.
"""

from __future__ import annotations

from pathlib import Path

from scprimer.publish import book
from scprimer.publish.rules import anatomy, cells, claims, outputs, prose
from scprimer.publish.rules.common import RULES, Violation

__all__ = ["RULES", "Violation", "anatomy", "cells", "check", "claims", "outputs", "prose"]


def check(chapter: book.Chapter, top: Path | None = None) -> list[Violation]:
    """Every violation of every rule in one chapter.

    Raises:
        BookError: the notebook cannot be read.
    """
    return [violation for rule in RULES.values() for violation in rule(chapter, top)]
