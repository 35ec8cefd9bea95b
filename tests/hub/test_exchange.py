"""nbgrader's exchange on the hub, with the settings and the commands of the sheet: from the teacher to students and back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import labpage
import pytest
from conftest import COURSE, clean_environment

from scprimer.publish import book, exercises

NBGRADER = Path(__file__).with_name("as_jovyan.py")
SLUG = COURSE[0]
HANDED_IN = f"{SLUG}/{SLUG}.ipynb"


def in_a_cell(*arguments: str) -> str:
    """The source of a cell that calls nbgrader, as a student does in a terminal."""
    call = f"[sys.executable, {str(NBGRADER)!r}, *{arguments!r}]"
    return f"import subprocess, sys\nprint(subprocess.run({call}, text=True, stdout=-1, stderr=-2, check=False).stdout)"


@pytest.fixture(scope="module")
def teacher(hub, kit, tmp_path_factory):
    """Calls nbgrader in the kit's folder on a server of the same image: ``teacher("collect", "qc")``."""
    home = tmp_path_factory.mktemp("teacher")
    env = clean_environment(HOME=home, JUPYTER_CONFIG_PATH=hub.etc, JUPYTERHUB_USER="teacher")

    def call(*arguments: str) -> str:
        command = [sys.executable, str(NBGRADER), *arguments]
        done = subprocess.run(command, cwd=kit / "nbgrader", env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"nbgrader {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return call


def solve(notebook: Path) -> None:
    """Write the right answers into what a student has fetched."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    answers = {f"{e.id}-answer": e.solution for e in exercises.exercises(book.find(SLUG))}
    for cell in content["cells"]:
        cell["source"] = answers.get(cell["metadata"].get("nbgrader", {}).get("grade_id"), cell["source"])
    notebook.write_text(json.dumps(content), encoding="utf-8")


def test_an_assignment_goes_to_two_students_and_comes_back_under_their_names(sheet, kit, teacher, ada, bob):
    commands = re.findall(r"`nbgrader (\w+)(?: \w+)?`", sheet.split("| who | where | what |")[1])
    assert commands[:6] == [
        "generate_assignment",
        "release_assignment",
        "list",
        "fetch_assignment",
        "submit",
        "collect",
    ]
    teacher("generate_assignment", SLUG)
    teacher("release_assignment", SLUG)
    for student in (ada, bob):
        student.arrive()
        listed, fetched = student.run("fetch.ipynb", in_a_cell("list"), in_a_cell("fetch_assignment", SLUG))
        assert re.search(rf"\[I?.*\bscprimer {SLUG}", labpage.text(listed)), labpage.text(listed)
        assert (student.home / HANDED_IN).is_file(), labpage.text(fetched)
    solve(ada.home / HANDED_IN)
    for student in (ada, bob):
        (said,) = student.run("submit.ipynb", in_a_cell("submit", SLUG))
        assert "Submitted as: scprimer" in labpage.text(said), labpage.text(said)
    said = teacher("collect", SLUG)
    assert "cheating" not in said
    submitted = kit / "nbgrader" / "submitted"
    assert {p.name for p in submitted.iterdir()} == {"ada", "bob"}
    for student in (ada, bob):
        assert (submitted / student.name / HANDED_IN).read_bytes() == (student.home / HANDED_IN).read_bytes()
    assert (submitted / "ada" / HANDED_IN).read_bytes() != (submitted / "bob" / HANDED_IN).read_bytes()
