"""The sessions of a course: which chapter on which day, and what its exercises are worth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from scprimer.publish import book, exercises, ledger

POINTS = {"recall": 1, "apply": 2, "project": 4}
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Session:
    """One session: one chapter and its exercises.

    Attributes:
        number: 1, 2, ...
        chapter: the chapter that is taught.
        exercises: its exercises, in order.
        day: when it is taught, or None.
        due: when its exercises are handed in, a week later, or None.
        stamps: what runs of the chapter took, by profile, as far as they were recorded.
        needs: chapters (slugs) whose methods its code imports.
    """

    number: int
    chapter: book.Chapter
    exercises: tuple[exercises.Exercise, ...]
    day: date | None = None
    due: date | None = None
    stamps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Stem of its files: ``"03-scvi"``."""
        return f"{self.number:02d}-{self.chapter.slug}"

    @property
    def points(self) -> int:
        """What all its exercises are worth together."""
        return sum(POINTS[e.level] for e in self.exercises)


def plan(top: Path, chapters: Sequence[str], start: str | None = None) -> list[Session]:
    """One session a chapter, in the order given.

    Args:
        top: top folder of the clone.
        chapters: names of written chapters.
        start: ISO date of the first session, or None.

    Raises:
        BookError: no chapters, or one that is unknown, not written, named twice or without (well-formed) exercises; a day
            that does not exist.
    """
    if not chapters:
        raise book.BookError(
            "a course needs chapters: name them after --chapters; `scprimer list` shows those there are"
        )
    found = [book.find(name, top) for name in chapters]
    slugs = [c.slug for c in found]
    twice = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    if twice:
        raise book.BookError(f"named twice: {', '.join(twice)}; a chapter is one session")
    first = None if start is None else day(start)
    sessions = []
    for number, chapter in enumerate(found, 1):
        every = tuple(exercises.exercises(chapter))
        _check(chapter, every)
        when = (first + (number - 1) * WEEK, first + number * WEEK) if first else (None, None)
        needs = tuple(s for s in _imported(chapter) if s != chapter.slug)
        sessions.append(Session(number, chapter, every, *when, stamps=ledger.stamps(chapter, top), needs=needs))
    return sessions


def day(text: str) -> date:
    """``"2026-10-05"`` as a date.

    Raises:
        BookError: not written so, not in the calendar, or so late that a course could not end.
    """
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise book.BookError(f"{text!r} is not a date: write year-month-day, such as 2026-10-05")
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise book.BookError(f"{text} is not in the calendar: write year-month-day, such as 2026-10-05") from None
    if found.year > 9000:
        raise book.BookError(f"{text} is too far away to plan for")
    return found


def _check(chapter: book.Chapter, every: Sequence[exercises.Exercise]) -> None:
    if not every:
        raise book.BookError(
            f"the chapter {chapter.slug!r} has no exercises, so there is nothing to hand in: leave it out"
        )
    for e in every:
        name = f"the exercise {e.id!r} of {chapter.slug!r}"
        if e.level not in POINTS:
            raise book.BookError(f"{name} has the level {e.level!r}, which is none of {', '.join(POINTS)}")
        if bool(e.solution) != bool(e.check):
            raise book.BookError(
                f"{name} has a solution or a check but not both: give both, or neither to mark it by hand"
            )
        if e.solution:
            _ = e.stub  # raises when its markers are not in order


def _imported(chapter: book.Chapter) -> list[str]:
    """Chapters whose exported methods this one imports, in reading order."""
    code = "\n".join(book.source(c) for c in chapter.notebook["cells"] if c["cell_type"] == "code")
    modules = set(re.findall(r"(?m)^\s*(?:from|import) scprimer\.methods\.(\w+)", code))
    return [slug for slugs in book.PARTS.values() for slug in slugs if slug.replace("-", "_") in modules]
