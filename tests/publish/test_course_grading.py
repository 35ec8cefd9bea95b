"""nbgrader itself on the course kit: it makes the students' version, marks what they hand in, and says what was wrong."""

from __future__ import annotations

import copy
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scprimer.publish import book, course
from scprimer.publish.course.session import POINTS
from scprimer.publish.exercises import exercises, run_exercise

COURSE = ("normalisation", "differential")  # two chapters whose exercises need NumPy alone
WRITTEN = [c.slug for c in book.chapters()]


def nbgrader(folder: Path, *arguments: str) -> str:
    """``nbgrader ARGUMENTS`` in the kit's folder, as a teacher types it; what it said."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SCPRIMER_", "JUPYTER_"))}
    # Settings of whoever runs the tests must not matter.
    environment = kept | {
        name: str(folder / ".jupyter") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    }
    # nbgrader calls alembic by its name.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    call = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    assert "not recognized" not in done.stderr, f"a setting that nbgrader does not know:\n{done.stderr}"
    return done.stdout + done.stderr


def good(exercise, cell):
    cell["source"] = exercise.solution


def wrong(exercise, cell):
    """The first exercises are solved, the others as somebody might get them wrong."""
    cell["source"] = exercise.solution if exercise.level == "recall" else exercise.wrong_answers[0]


def empty(exercise, cell):
    """As it was released."""


def hand_in(folder: Path, slug: str, student: str, answer) -> None:
    """Write what a student hands in: the released notebook with other answers."""
    notebook = json.loads((folder / "release" / slug / f"{slug}.ipynb").read_text(encoding="utf-8"))
    every = {f"{e.id}-answer": e for e in exercises(book.find(slug))}
    for cell in copy.deepcopy(notebook)["cells"]:
        mark = cell["metadata"]["nbgrader"]["grade_id"]
        at = next(c for c in notebook["cells"] if c["id"] == cell["id"])
        if mark in every:
            answer(every.pop(mark), at)
        elif answer is wrong and mark.endswith("-check"):
            at["source"] = "pass  # a student who takes the tests away"
    assert not every, "an answer's cell is missing in the released version"
    book.write_notebook(folder / "submitted" / student / slug / f"{slug}.ipynb", notebook)


def marks(folder: Path, slug: str) -> dict[str, dict[str, float]]:
    """Points of each student for each exercise."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook:
        found = {}
        for submission in gradebook.assignment_submissions(slug):
            assert submission.max_score == sum(POINTS[e.level] for e in exercises(book.find(slug)))
            grades = [g for notebook in submission.notebooks for g in notebook.grades]
            assert not any(g.needs_manual_grade for g in grades)
            found[submission.student.id] = {g.name.removesuffix("-check"): g.score for g in grades}
        return found


def expected(slug: str, levels) -> dict[str, float]:
    return {e.id: float(POINTS[e.level] if e.level in levels else 0) for e in exercises(book.find(slug))}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The folder of a course of two chapters, after three students have handed in both assignments."""
    out = tmp_path_factory.mktemp("course")
    course.make(book.root(), out, COURSE)
    folder = out / "nbgrader"
    for slug in COURSE:
        nbgrader(folder, "generate_assignment", slug)
        for answer in (good, wrong, empty):
            hand_in(folder, slug, answer.__name__, answer)
        nbgrader(folder, "autograde", slug)
        nbgrader(folder, "generate_feedback", slug)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("slug", COURSE)
class TestCourse:
    def test_students_get_stubs_and_no_tests(self, graded, slug):
        released = json.loads((graded / "release" / slug / f"{slug}.ipynb").read_text(encoding="utf-8"))
        cells = {c["metadata"]["nbgrader"]["grade_id"]: book.source(c) for c in released["cells"]}
        for e in exercises(book.find(slug)):
            assert cells[f"{e.id}-answer"] == e.stub
            assert "assert" not in cells[f"{e.id}-check"]

    def test_the_marks_are_full_part_and_none(self, graded, slug):
        assert marks(graded, slug) == {
            "good": expected(slug, POINTS),
            "wrong": expected(slug, ["recall"]),
            "empty": expected(slug, []),
        }

    def test_the_feedback_says_what_was_wrong(self, graded, slug):
        every, total = exercises(book.find(slug)), sum(expected(slug, POINTS).values())
        for student, levels in (("good", POINTS), ("wrong", ["recall"]), ("empty", [])):
            page = (graded / "feedback" / student / slug / f"{slug}.html").read_text(encoding="utf-8")
            assert f"(Score: {sum(expected(slug, levels).values())} / {total})" in page
            failed = [e for e in every if e.level not in levels]
            assert page.count("output_error") == len(failed)
            if student == "wrong":
                for e in failed:
                    told = run_exercise(e, e.wrong_answers[0]).message
                    assert told in html.unescape(re.sub(r"<[^>]+>", "", page.split(f"{e.id}-check")[-1]))


@pytest.mark.course
@pytest.mark.slow
@pytest.mark.parametrize("slug", [s for s in WRITTEN if s not in COURSE])
def test_every_chapter_is_graded(tmp_path, slug):
    course.make(book.root(), tmp_path / "course", [slug])
    folder = tmp_path / "course" / "nbgrader"
    nbgrader(folder, "generate_assignment", slug)
    for answer in (good, empty):
        hand_in(folder, slug, answer.__name__, answer)
    nbgrader(folder, "autograde", slug)
    assert marks(folder, slug) == {"good": expected(slug, POINTS), "empty": expected(slug, [])}
