"""The course kit: one folder with all that a teacher needs to give some chapters as a course.

Everything in it is made from the chapters' notebooks: notebooks for students and for the teacher, nbgrader assignments,
slides, a schedule with what each session needs, and a sheet for a JupyterHub. Nothing is executed and nothing downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from scprimer.publish import book
from scprimer.publish.course import assignments, deck, folder, notebooks, prose, sheets
from scprimer.publish.course.session import Session, plan

__all__ = ["Session", "make", "plan"]


def make(top: Path, out: Path, chapters: Sequence[str], start: str | None = None, force: bool = False) -> list[Session]:
    """Write the kit.

    Args:
        top: top folder of the clone.
        out: folder that receives the kit; it must be empty or not exist yet.
        chapters: names of the chapters, one a session, in the order in which they are taught.
        start: day of the first session, such as ``"2026-10-05"``; the others follow weekly. None: numbers instead of days.
        force: replace what an earlier call wrote to ``out``; everything else in it is left alone.

    Returns:
        The sessions.

    Raises:
        BookError: a chapter that is unknown, not written, named twice or without exercises; no such day; or ``out`` holds
            files that this call may not replace.
    """
    sessions = plan(top, chapters, start)
    folder.refuse(Path(out), force)  # before the work, not after it
    files = contents(top, sessions)
    folder.write(Path(out), files, force, chapters=[s.chapter.slug for s in sessions], start=start)
    return sessions


def contents(top: Path, sessions: Sequence[Session]) -> dict[str, str]:
    """All files of the kit: path in the folder -> text."""
    files = {"README.md": sheets.readme(sessions), "schedule.md": sheets.schedule(sessions)}
    files["nbgrader/nbgrader_config.py"] = assignments.config()
    names = {s.chapter.slug: f"{s.name}.ipynb" for s in sessions}
    sources = prose.references(top)
    for s in sessions:
        slug = s.chapter.slug
        files[f"students/{s.name}.ipynb"] = text(notebooks.student(s.chapter, names, sources))
        files[f"teacher/{s.name}.ipynb"] = text(notebooks.teacher(s.chapter, names, sources))
        files[f"nbgrader/source/{slug}/{slug}.ipynb"] = text(assignments.assignment(s.chapter, sources))
        files[f"slides/{s.name}.html"] = deck.page(s, sources)
    given = sum(len(text.encode()) for path, text in files.items() if path.startswith(("students/", "slides/")))
    files["jupyterhub.md"] = sheets.hub(sessions, given)
    return files


def text(notebook: dict) -> str:
    """A notebook in nbformat's canonical text, in which a source is a list of lines.

    JupyterLab saves in the same form. So git, line by line, sees only what a student has changed, and a correction of the
    teacher's elsewhere in the notebook reaches them.
    """
    cells = [cell | {"source": book.source(cell).splitlines(keepends=True)} for cell in notebook["cells"]]
    return json.dumps(notebook | {"cells": cells}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
