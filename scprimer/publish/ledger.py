"""What the book measured, as rows: claims, methods, reported figures, pitfalls and costs.

Everything is read from the notebooks' metadata, ``book/methods.csv``, ``book/reported.csv`` and ``book/records/``. Nothing
here draws or formats a page; :mod:`scprimer.publish.sphinxext` does that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scprimer.publish import book

PART_TITLES = {
    "data": "From molecules to counts",
    "learning": "How machines learn from cells",
    "tasks": "The core tasks",
    "networks": "Networks and foundation models",
    "dynamics": "Cells in time",
    "modalities": "More than RNA",
    "therapies": "Towards therapies",
    "frontiers": "Frontiers",
    "practice": "Good practice",
}
_NAMES = {
    "anndata": "AnnData", "qc": "Quality control", "scvi": "scVI", "cite-seq": "CITE-seq", "dna-models": "DNA models",
    "neural-ode": "Neural ODEs", "self-supervised": "Self-supervised",
}  # fmt: skip

# Whether a figure of the literature and ours may be compared at all.
COMPARABILITY = {
    "comparable": "comparable setting",
    "other": "other setting",
    "cannot": "cannot be measured here",
    "": "not judged yet",
}
PROFILES = ("smoke", "standard", "full")


def chapter_name(slug: str) -> str:
    """A short name of a chapter, written or planned: ``"neural-ode"`` -> ``"Neural ODEs"``."""
    return _NAMES.get(slug) or slug.replace("-", " ").capitalize()


@dataclass(frozen=True)
class Measured:
    """A claim as it was measured in one profile.

    Attributes:
        profile: ``"standard"`` (the notebook's own), ``"smoke"`` or ``"full"`` (from ``book/records``).
        values: one number a repeat; several kinds of repeats are never pooled.
        resample: what each repeat drew anew (``"seed"``, ``"cells"``, ``"donors"``, ``"simulation"``), or None.
        baseline: the trivial baseline's value of the same measure, or None.
        control: the negative control's value, or None.
        device: where it ran.
    """

    profile: str
    values: tuple[float, ...]
    resample: str | None = None
    baseline: float | None = None
    control: float | None = None
    device: str | None = None

    @property
    def mean(self) -> float | None:
        """Mean over the repeats, None without values."""
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over the repeats, None for fewer than two."""
        if len(self.values) < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((v - mean) ** 2 for v in self.values) / (len(self.values) - 1))


@dataclass(frozen=True)
class ClaimRow:
    """One claim of one chapter.

    Attributes:
        chapter: the chapter that makes it.
        id: its name in the chapter.
        text: the claim in words.
        kind: ``"result"``, ``"reference"``, ``"baseline"``, ``"control"`` or ``"pitfall"``.
        method: id in ``methods.csv``, or None.
        bound: ``("at_least" | "at_most", number)`` in the notebook's own profile, or None.
        reported: id in ``reported.csv`` of the figure that it re-measures, or None.
        source: key of its source in ``references.bib``, or None.
        state: ``"fresh"``, ``"aged"``, ``"stale"`` or ``"never run"``, that of its chapter.
        measured: in the notebook's own profile.
        elsewhere: in the other profiles, as far as there are records.
    """

    chapter: book.Chapter
    id: str
    text: str
    kind: str
    method: str | None
    bound: tuple[str, float] | None
    reported: str | None
    source: str | None
    state: str
    measured: Measured
    elsewhere: tuple[Measured, ...] = ()

    @property
    def anchor(self) -> str:
        """Its name in the ledger's page and in the chapter's page."""
        return f"claim-{self.chapter.slug}-{self.id}"


@dataclass(frozen=True)
class MethodRow:
    """One row of ``methods.csv`` and how far the book has come with it.

    ``status`` is ``"working"`` (a fresh or aged stamped notebook holds a result claim for it), ``"stale"`` (its chapter's
    outputs are), ``"written"`` (the chapter exists and has no result claim for it yet) or ``"planned"``.
    """

    row: Mapping[str, str]
    chapter: book.Chapter
    status: str
    claims: tuple[ClaimRow, ...] = ()


@dataclass(frozen=True)
class ReportedRow:
    """One figure of the literature, with ours beside it.

    Attributes:
        row: the row of ``reported.csv``.
        chapter: the chapter that is to re-measure it.
        ours: the claims that name it.
        comparability: a key of :data:`COMPARABILITY`.
        remark: what differs, or why it cannot be measured.
        waived: the chapter's reason for not re-measuring it, or None.
    """

    row: Mapping[str, str]
    chapter: book.Chapter
    ours: tuple[ClaimRow, ...]
    comparability: str
    remark: str
    waived: str | None = None


@dataclass(frozen=True)
class Pitfall:
    """One entry of the failure gallery."""

    chapter: book.Chapter
    id: str
    title: str
    symptom: str
    notice: str
    mend: str

    @property
    def anchor(self) -> str:
        """Its name in its chapter's page."""
        return f"pitfall-{self.id}"


@dataclass(frozen=True)
class Cost:
    """What a chapter took.

    Attributes:
        chapter: the chapter.
        state: one of :data:`scprimer.publish.stamp.STATES`.
        reasons: why it is in that state, in words.
        profile: profile of the notebook's own run (``"standard"`` in the repository; an edition may have another).
        stamps: stamps by profile: the notebook's own, and those of ``book/records``.
    """

    chapter: book.Chapter
    state: str
    reasons: tuple[str, ...]
    profile: str = "standard"
    stamps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def stamp(self) -> Mapping[str, Any]:
        """The stamp of the notebook's own run, empty when it has none."""
        return self.stamps.get(self.profile, {})


StateOf = Callable[[book.Chapter], tuple[str, Sequence[str]]]


def unknown_state(chapter: book.Chapter) -> tuple[str, Sequence[str]]:
    """The state as far as the notebook itself tells it: recorded or not."""
    return ("fresh", ()) if chapter.meta.get("stamp") else ("never run", ("it has not been recorded",))


@dataclass(frozen=True)
class Ledger:
    """All rows of the book."""

    claims: tuple[ClaimRow, ...]
    methods: tuple[MethodRow, ...]
    reported: tuple[ReportedRow, ...]
    pitfalls: tuple[Pitfall, ...]
    costs: tuple[Cost, ...]

    def cost(self, slug: str) -> Cost | None:
        """The cost of one chapter, None when it is not written."""
        return next((c for c in self.costs if c.chapter.slug == slug), None)


def read(top: Path, state_of: StateOf = unknown_state) -> Ledger:
    """Read the whole book.

    Args:
        top: top folder of the clone.
        state_of: gives a chapter's state and its reasons; the default looks at the notebook alone.

    Raises:
        BookError: a notebook, a record or a table is unreadable, names a chapter that is not planned, or repeats an id.
    """
    written = book.chapters(top)
    every = {c.slug: c for c in book.chapters(top, planned=True)}
    costs = tuple(_cost(chapter, top, state_of) for chapter in written)
    claims = tuple(claim for cost in costs for claim in _claims(cost, top))
    return Ledger(
        claims=claims,
        methods=tuple(_method(row, every, claims) for row in _unique(book.table("methods", top), "methods.csv")),
        reported=tuple(_reported(row, every, claims) for row in _unique(book.table("reported", top), "reported.csv")),
        pitfalls=tuple(pitfall for chapter in written for pitfall in pitfalls(chapter)),
        costs=costs,
    )


def record(top: Path, profile: str, slug: str) -> dict | None:
    """The record of one chapter in another profile than ``standard`` (``book/records/<profile>/<slug>.json``), or None.

    Raises:
        BookError: the file is there and is no record.
    """
    path = top / "book" / "records" / profile / f"{slug}.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise book.BookError(
            f"{path} is not readable ({error}): run the chapter again in the profile {profile}"
        ) from None
    if not isinstance(found, dict):
        raise book.BookError(f"{path} holds no record: run the chapter again in the profile {profile}")
    return found


def pitfalls(chapter: book.Chapter) -> list[Pitfall]:
    """The pitfalls that the chapter's sections hold, in their order."""
    found = []
    for cell in chapter.notebook["cells"]:
        entry = cell["metadata"].get("scprimer", {}).get("pitfall")
        if entry:
            words = {key: str(entry.get(key, "")) for key in ("id", "title", "symptom", "notice", "mend")}
            found.append(Pitfall(chapter=chapter, **words))
    return found


def number(value: Any) -> float | None:
    """A JSON value as a finite or infinite float; None for anything that is not a number (booleans neither)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if math.isnan(value) else float(value)


def stamps(chapter: book.Chapter, top: Path) -> dict[str, dict]:
    """The chapter's stamps by profile: its notebook's own, and those of ``book/records``."""
    found = {p: (record(top, p, chapter.slug) or {}).get("stamp") for p in PROFILES}
    own = chapter.meta.get("stamp")
    if own:
        found[own.get("profile", "standard")] = own
    return {profile: stamp for profile, stamp in found.items() if stamp}


def _cost(chapter: book.Chapter, top: Path, state_of: StateOf) -> Cost:
    state, reasons = state_of(chapter)
    own = chapter.meta.get("stamp") or {}
    profile = str(own.get("profile", "standard"))
    stamps = {p: found.get("stamp", {}) for p, found in _records(chapter, top, profile).items()}
    if own:
        stamps[profile] = own
    return Cost(chapter=chapter, state=state, reasons=tuple(reasons), profile=profile, stamps=stamps)


def _records(chapter: book.Chapter, top: Path, own_profile: str) -> dict[str, dict]:
    """The chapter's records in other profiles than its notebook's own."""
    found = {p: record(top, p, chapter.slug) for p in PROFILES if p != own_profile}
    return {p: entry for p, entry in found.items() if entry}


def _claims(cost: Cost, top: Path) -> list[ClaimRow]:
    chapter = cost.chapter
    others = _records(chapter, top, cost.profile)
    rows = []
    for claim in chapter.meta.get("claims", []):
        direction, bound = (claim.get("bounds", {}).get(cost.profile) or (None, None))[:2]
        elsewhere = [
            _measured(entry, profile, found.get("stamp", {}))
            for profile, found in others.items()
            for entry in found.get("claims", [])
            if entry.get("id") == claim.get("id")
        ]
        rows.append(
            ClaimRow(
                chapter=chapter,
                id=str(claim["id"]),
                text=str(claim.get("text", "")),
                kind=str(claim.get("kind", "result")),
                method=claim.get("method"),
                bound=(direction, float(bound)) if direction and number(bound) is not None else None,
                reported=claim.get("reported"),
                source=claim.get("source"),
                state=cost.state,
                measured=_measured(claim, cost.profile, cost.stamp),
                elsewhere=tuple(elsewhere),
            )
        )
    return rows


def _measured(claim: Mapping, profile: str, stamp: Mapping) -> Measured:
    values = claim.get("values") or []
    return Measured(
        profile=profile,
        values=tuple(v for v in map(number, values) if v is not None),
        resample=claim.get("resample"),
        baseline=number(claim.get("baseline")),
        control=number(claim.get("control")),
        device=stamp.get("device"),
    )


def _method(row: dict[str, str], every: Mapping[str, book.Chapter], claims: Sequence[ClaimRow]) -> MethodRow:
    chapter = _chapter(row, every, "methods.csv")
    ours = tuple(c for c in claims if c.method == row["id"] and c.kind == "result")
    if ours:
        # One fresh chapter is enough: a method that a later chapter uses again is not undone by that one.
        status = "working" if any(c.state in ("fresh", "aged") for c in ours) else "stale"
    else:
        status = "written" if chapter.exists else "planned"
    return MethodRow(row=row, chapter=chapter, status=status, claims=ours)


def _reported(row: dict[str, str], every: Mapping[str, book.Chapter], claims: Sequence[ClaimRow]) -> ReportedRow:
    chapter = _chapter(row, every, "reported.csv")
    comparability = row.get("comparability", "")
    if comparability not in COMPARABILITY:
        known = ", ".join(repr(k) for k in COMPARABILITY)
        raise book.BookError(f"book/reported.csv, {row['id']}: comparability {comparability!r} is not one of {known}")
    waived = chapter.meta.get("not_applicable", {}).get(f"reported:{row['id']}") if chapter.exists else None
    return ReportedRow(
        row=row,
        chapter=chapter,
        ours=tuple(c for c in claims if c.reported == row["id"]),
        comparability=comparability,
        remark=row.get("remark", ""),
        waived=waived,
    )


def _chapter(row: Mapping[str, str], every: Mapping[str, book.Chapter], where: str) -> book.Chapter:
    if row["chapter"] not in every:
        raise book.BookError(f"book/{where}, {row['id']}: no chapter {row['chapter']!r} is planned (book.PARTS)")
    return every[row["chapter"]]


def _unique(rows: list[dict[str, str]], where: str) -> list[dict[str, str]]:
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise book.BookError(f"book/{where}: the id {row['id']!r} stands twice")
        seen.add(row["id"])
    return rows
