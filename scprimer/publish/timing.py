"""What the recorded runs took, written for readers' kernels: ``scprimer/records/<chapter>.json``, shipped with the package.

Everything in these files is in the notebooks' stamps and in ``book/records`` already; :func:`scprimer.times.recorded` reads
them where there is no notebook to look into.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from scprimer import times
from scprimer.publish import book, ledger
from scprimer.publish.export import Change, difference


def write(top: Path, chapters: Iterable[book.Chapter], check: bool = False) -> list[Change]:
    """Bring the files of these chapters up to date with their stamps.

    Args:
        top: top folder of the clone. A book without a package of its own (an edition) keeps no such files.
        chapters: the chapters.
        check: write and remove nothing, only say what differs.

    Returns:
        The files that differed; empty when all agreed.
    """
    if not (top / "scprimer" / "__init__.py").is_file():
        return []
    changes = []
    for chapter in chapters:
        path = top / "scprimer" / times.FOLDER / f"{chapter.slug}.json"
        old = path.read_text(encoding="utf-8") if path.is_file() else None
        new = text(chapter, top)
        if new == old:
            continue
        what = "new" if old is None else "changed" if new else "gone"
        changes.append(Change(path, what, difference(path, top, old or "", new or "")))
        if check:
            continue
        if new:
            book.write_text(path, new)
        else:
            path.unlink()
    return changes


def write_all(top: Path, check: bool = False) -> list[Change]:
    """:func:`write` for all chapters, written and planned: a chapter that is gone takes its file along."""
    return write(top, book.chapters(top, planned=True), check)


def text(chapter: book.Chapter, top: Path) -> str | None:
    """What the chapter's file is to hold; None when it has no recorded run."""
    if not chapter.exists:
        return None
    found = {profile: _times(chapter, stamp) for profile, stamp in sorted(ledger.stamps(chapter, top).items())}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n" if found else None


def _times(chapter: book.Chapter, stamp: dict) -> dict:
    """One profile's entry, with the fields of :class:`scprimer.times.Times`."""
    found = {key: stamp.get(key) for key in ("seconds", "peak_mb", "hardware", "date")}
    found["checkpoints"] = bool(stamp.get("checkpoints"))
    by_id = stamp.get("cells", {})
    cells = [c for c in chapter.notebook["cells"] if c["cell_type"] == "code" and c.get("id") in by_id]
    return found | {"cells": {times.cell_key(book.source(c)): by_id[c["id"]] for c in cells}}
