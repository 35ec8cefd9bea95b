"""nbgrader assignments: a chapter's exercises alone, their own checks as hidden tests.

What is written is nbgrader's *source* version. ``nbgrader generate_assignment`` makes the students' version from it, with
the same stubs as everywhere in the book, since the configuration written beside it says so.
"""

from __future__ import annotations

import ast

from scprimer.publish import book, exercises
from scprimer.publish.course import prose
from scprimer.publish.course.session import POINTS

TESTS = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
OPEN = "Write your answer here."

CONFIG = """\
# nbgrader's settings for this course, written by `scprimer course`. Call nbgrader in this folder:
#   nbgrader generate_assignment NAME    source/ -> release/      what the students get
#   nbgrader autograde NAME              submitted/ -> autograded/
#   nbgrader generate_feedback NAME      autograded/ -> feedback/
c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "{course}"
c.ClearSolutions.code_stub = {{"python": {stub!r}}}
c.ClearSolutions.text_stub = {text!r}
c.Execute.timeout = {seconds}  # seconds a cell may take; an answer that never ends has failed
c.Execute.interrupt_on_timeout = True
"""
COURSE = "scprimer"  # the course's name in nbgrader
CELL_SECONDS = 60  # exercises take seconds; a busy server may need more


def config() -> str:
    """Text of ``nbgrader_config.py``."""
    return CONFIG.format(course=COURSE, stub=exercises.STUB, text=OPEN, seconds=CELL_SECONDS)


def assignment(chapter: book.Chapter, sources: prose.Sources) -> dict:
    """The source version of a chapter's assignment.

    Each exercise is its task, its set-up (both locked), the answer with the committed solution, and one graded cell whose
    hidden tests are the check. An exercise without a check is a text to be marked by hand.

    Args:
        chapter: a written chapter with exercises.
        sources: the references that tasks may cite.

    Raises:
        BookError: two exercises define the same name, so that one answer could pass for the other.
    """
    every = exercises.exercises(chapter)
    _one_name_one_exercise(chapter, every)
    total = sum(POINTS[e.level] for e in every)
    cells = [
        _cell(
            "markdown",
            f"{chapter.slug}-head",
            f"# {chapter.title}: exercises\n\n{len(every)} exercises, {total} points. Each stands alone. Replace the lines "
            "`# your code here` and `raise NotImplementedError`; leave the names of functions and the other cells as they are. "
            "The tests are hidden, and their words come back to you with the marks.",
            locked=True,
        )
    ]
    glued = prose.glued(chapter.notebook)
    for number, e in enumerate(every, 1):
        task = prose.plain(e.task, glued, sources)
        points = POINTS[e.level]
        cells.append(
            _cell("markdown", f"{e.id}-task", f"{task}\n\n*{points} point{'s' if points > 1 else ''}*", locked=True)
        )
        if e.setup:
            cells.append(_cell("code", f"{e.id}-setup", e.setup, locked=True))
        if e.open:
            cells.append(_cell("markdown", f"{e.id}-answer", OPEN, solution=True, grade=True, points=points))
            continue
        tests = "\n".join([f"# Hidden tests of exercise {number} run here.", TESTS[0], e.check, TESTS[1]])
        cells.append(_cell("code", f"{e.id}-answer", e.solution, solution=True))
        cells.append(_cell("code", f"{e.id}-check", tests, grade=True, locked=True, points=points))
    kept = {
        key: chapter.notebook["metadata"][key]
        for key in ("kernelspec", "language_info")
        if key in chapter.notebook["metadata"]
    }
    return {"cells": cells, "metadata": kept, "nbformat": 4, "nbformat_minor": 5}


def _cell(
    kind: str,
    id: str,
    source: str,
    *,
    grade: bool = False,
    solution: bool = False,
    locked: bool = False,
    points: int | None = None,
) -> dict:
    marks = {"grade_id": id, "grade": grade, "solution": solution, "locked": locked, "task": False, "schema_version": 3}
    if points is not None:
        marks["points"] = points
    cell = {"cell_type": kind, "id": id[:64], "metadata": {"nbgrader": marks}, "source": source}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def _one_name_one_exercise(chapter: book.Chapter, every: list[exercises.Exercise]) -> None:
    """In an assignment all exercises share one kernel: what one defines must not stand in for what another leaves out."""
    seen: dict[str, str] = {}
    for e in every:
        for name in sorted(_defined(e.solution)):
            if name in seen:
                raise book.BookError(
                    f"{chapter.slug}: the exercises {seen[name]!r} and {e.id!r} both define {name}: rename it in one of them, "
                    "or an answer to the first could pass for the second"
                )
        for source in (e.setup, e.solution, e.check):
            seen |= dict.fromkeys(_defined(source) - set(seen), e.id)


def _defined(source: str) -> set[str]:
    """Names that a cell binds at its top level, imports aside."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found
