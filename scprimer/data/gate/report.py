"""What the gate has to say about a file: problems, each with a code, plain words and what to do, and one report of them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

from scprimer.data.errors import DataError


@dataclass(frozen=True)
class Problem:
    """One thing about a file that its reader should know.

    Attributes:
        code: short and stable, such as ``"log-values"``.
        words: what is wrong, in plain words with the numbers that show it.
        fix: what to do about it; for a mended problem, what was done.
        fatal: the file cannot be used before this is put right.
        mended: put right in memory by :func:`scprimer.data.gate.read`; the file itself is never written to.
    """

    code: str
    words: str
    fix: str
    fatal: bool = False
    mended: bool = False


@dataclass
class Report:
    """Everything that the gate found in one data set.

    Attributes:
        source: the file's name, or ``"this AnnData"``.
        path: how the file was named by the caller, for lines of code that can be copied.
        shape: cells and genes after mending, or None when the file could not be opened.
        problems: in the order in which they were found.
        counts: where the raw counts were: ``"X"``, ``"layers['counts']"``, ``"raw.X"``, or None.
        x: what ``X`` holds now, such as ``"raw counts"``.
        labels: plain name of a label (``"cell_type"``, ``"batch"``, ``"donor"``) -> the column of ``obs`` it comes from.
    """

    source: str
    path: str = "mine.h5ad"
    shape: tuple[int, int] | None = None
    problems: list[Problem] = field(default_factory=list)
    counts: str | None = None
    x: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the data can be used, after mending."""
        return not self.fatal

    @property
    def fatal(self) -> list[Problem]:
        """The problems that stand in the way."""
        return [p for p in self.problems if p.fatal]

    @property
    def codes(self) -> list[str]:
        """The codes of all problems, in order."""
        return [p.code for p in self.problems]

    def find(self, code: str) -> Problem:
        """The first problem with this code; KeyError when there is none."""
        for problem in self.problems:
            if problem.code == code:
                return problem
        raise KeyError(f"no problem {code!r} among {self.codes}")

    def add(self, code: str, words: str, fix: str, *, fatal: bool = False, mended: bool = False) -> None:
        """Append a :class:`Problem`."""
        self.problems.append(Problem(code, words, fix, fatal, mended))

    def __str__(self) -> str:
        verdict = "can be used" if self.ok else "cannot be used as it is"
        size = f": {self.shape[0]:,} cells × {self.shape[1]:,} genes" if self.shape else ""
        lines = [f"{self.source} {verdict}{size}"]
        if self.ok and self.counts:
            lines.append(f"  raw counts from {self.counts}")
        elif self.ok and self.x:
            lines.append(f"  X holds {self.x}")
        if self.ok:
            lines += [f"  obs[{name!r}] from obs[{column!r}]" for name, column in self.labels.items() if name != column]
        for heading, chosen in (
            ("Stands in the way:", self.fatal),
            ("Mended in memory (the file is untouched):", [p for p in self.problems if p.mended]),
            ("Worth knowing:", [p for p in self.problems if not p.fatal and not p.mended]),
        ):
            if chosen:
                lines.append(heading)
            for p in chosen:
                lines += _wrapped(f"[{p.code}] {p.words}", "  ", "    ")
                lines += _wrapped(p.fix, "    -> ", "       ")
        return "\n".join(lines)


class GateError(DataError):
    """A file did not pass the gate. Its text is the whole report; ``.report`` holds it as data."""

    def __init__(self, report: Report):
        super().__init__(str(report))
        self.report = report


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    # Lines of code in a fix are never broken: they are there to be copied.
    lines = []
    for i, part in enumerate(text.split("\n")):
        before = rest if i else first
        lines += textwrap.wrap(
            part, 110, initial_indent=before, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
        ) if not part.startswith("    ") else [rest + part]  # fmt: skip
    return lines
