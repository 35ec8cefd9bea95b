"""What stands in the book: lists of chapters with their state, as plain text."""

from __future__ import annotations

from pathlib import Path

from scprimer.publish import book, stamp


def listing(top: Path, planned: bool = False) -> str:
    """The parts and their chapters: state, minutes of the recorded run, the promise of each in one line."""
    lines = []
    every = book.chapters(top, planned=True)
    for part in book.PARTS:
        chapters = [c for c in every if c.part == part]
        written = [c for c in chapters if c.exists]
        if not written and not planned:
            continue
        lines.append(f"{part}/  {len(written)} of {len(chapters)} chapters written")
        for chapter in chapters if planned else written:
            if chapter.exists:
                costs = minutes(chapter.meta.get("stamp") or {})
                lines.append(f"  {chapter.slug:<18} {stamp.state(chapter):<10} {costs:>8}  {promise(chapter)}")
            else:
                lines.append(f"  {chapter.slug:<18} planned")
        lines.append("")
    return "\n".join(lines).rstrip() or "no chapter has been written yet"


def promise(chapter: book.Chapter) -> str:
    """The first sentence below the chapter's title: what the reader will be able to do."""
    for cell in chapter.notebook["cells"]:
        if cell["cell_type"] == "markdown":
            paragraphs = [p.strip() for p in book.source(cell).split("\n\n")]
            text = next((p for p in paragraphs if p and not p.startswith("#")), "")
            return " ".join(text.split())
    return ""


def minutes(found: dict) -> str:
    """The time of a stamped run: ``"2.5 min"``, ``"40 s"``, or nothing."""
    seconds = found.get("seconds")
    if seconds is None:
        return ""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def table(top: Path) -> str:
    """State, date, time and memory of every chapter, with the reasons where the state is not fresh."""
    lines = []
    for chapter in book.chapters(top):
        found, judged = chapter.meta.get("stamp") or {}, stamp.judge(chapter)
        memory = f"{found['peak_mb']:,} MB" if "peak_mb" in found else ""
        lines.append(
            f"{chapter.slug:<18} {judged.state:<10} {found.get('date', ''):<11} {minutes(found):>8} {memory:>9}".rstrip()
        )
        lines += [f"{'':<18} - {reason}" for reason in judged.reasons]
    return "\n".join(lines) or "no chapter has been written yet"


def stale(top: Path, aged: bool = False) -> list[tuple[str, stamp.State]]:
    """Chapters whose outputs are stale or were never recorded (with ``aged`` also those that have aged)."""
    wanted = ("stale", "never run", *(["aged"] if aged else []))
    judged = [(chapter.slug, stamp.judge(chapter)) for chapter in book.chapters(top)]
    return [(slug, found) for slug, found in judged if found.state in wanted]
