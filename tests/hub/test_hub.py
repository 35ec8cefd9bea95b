"""Readers and students on a real JupyterHub: the links lead into a chapter, it runs there, and everybody keeps their own work."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import labpage
import nbformat
import pytest
from conftest import COURSE, link

from scprimer.publish import book, exercises
from scprimer.publish.sphinxext.pages import hub_query

NOTE = "# my own note: keep this"
CORRECTION = "A sentence that the teacher has added."


def chapter_link(hub, repository, slug: str) -> str:
    """What the *JupyterHub* entry under a chapter's rocket opens."""
    page = str(book.find(slug).path.relative_to(book.root()).with_suffix(""))
    return f"{hub.address}hub/user-redirect/git-pull?{hub_query(repository.address, 'main', page)}"


def notebook_of(slug: str) -> str:
    return f"scprimer/{book.find(slug).path.relative_to(book.root())}"


def student_link(sheet: str, number: int) -> str:
    """The sheet's link of a session, placeholders and all."""
    return re.findall(r"`(https://YOUR-HUB/\S+)`", sheet)[number - 1]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file of a folder with the hash of its bytes, git's own files aside."""
    files = [p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def assert_the_report_is_shown(cells, slug: str) -> None:
    """Every claim of the chapter, and that those hold which are judged at `smoke`."""
    report = labpage.text(cells[labpage.number_of(cells, "run.report()")])
    claims = book.find(slug).meta["claims"]
    assert len(claims) > 3 and [c["text"] for c in claims if f"] {c['text']}\n" not in report] == []
    judged = [f"holds: [{c['kind']}] {c['text']}" for c in claims if "smoke" in c["bounds"]]
    assert judged and [line for line in judged if line not in report.splitlines()] == []


# ---- a reader ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def adas_chapter(hub, ada, book_repository):
    return ada.follow(chapter_link(hub, book_repository, "anndata"), opens=notebook_of("anndata"))


def test_a_reader_follows_a_chapters_link_and_runs_it(ada, adas_chapter):
    cells = adas_chapter.run_all()
    assert labpage.errors(cells) == []
    assert all(cell.execution_count for cell in cells if cell.source), "a cell has not run"
    assert_the_report_is_shown(cells, "anndata")
    start = cells[labpage.number_of(cells, "scprimer.start(")]
    assert "smoke" in json.dumps(start.outputs), "the hub's SCPRIMER_PROFILE did not reach the kernel"
    assert ada.foreign_requests() == []


# ---- a student ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bobs_session(hub, bob, adas_chapter, sheet, course_repository):
    opens = f"autumn/students/01-{COURSE[0]}.ipynb"
    return bob.follow(link(student_link(sheet, 1), hub, course_repository), opens=opens)


def test_a_student_runs_a_session_up_to_the_first_exercise(bob, bobs_session):
    cells = bobs_session.run_all()
    assert_the_report_is_shown(cells, COURSE[0])
    check = exercises.exercises(book.find(COURSE[0]))[0].check
    assert labpage.errors(cells) == [(labpage.number_of(cells, check), "NotImplementedError: ")]
    assert bob.foreign_requests() == []


def test_a_second_pull_brings_changes_and_keeps_what_a_student_wrote(
    hub, ada, bob, bobs_session, sheet, course_repository
):
    adas_work, own = snapshot(ada.home / "scprimer"), bob.home / "autumn" / "mine.txt"
    own.write_text("mine")
    cells = bobs_session.on_disk()
    stub = labpage.number_of(cells, exercises.exercises(book.find(COURSE[0]))[0].stub)
    bobs_session.type_below(stub, NOTE)
    assert NOTE in [c.source for c in bobs_session.saved()]

    published = course_repository.checkout / bobs_session.path.relative_to(bob.home / "autumn")
    notebook = nbformat.read(published, as_version=4)
    notebook.cells[0].source += f"\n\n{CORRECTION}"
    nbformat.write(notebook, published)
    (course_repository.checkout / "students" / "new.md").write_text("new")
    course_repository.publish("a correction and a new file")

    opens = str(bobs_session.path.relative_to(bob.home))
    bob.follow(link(student_link(sheet, 1), hub, course_repository), opens=opens)
    merged = nbformat.read(bobs_session.path, as_version=4)
    assert NOTE in [c.source for c in merged.cells], "the student's cell is gone"
    assert CORRECTION in merged.cells[0].source, "the teacher's correction has not come"
    assert (bob.home / "autumn" / "students" / "new.md").read_text() == "new" and own.read_text() == "mine"
    assert snapshot(ada.home / "scprimer") == adas_work and not (ada.home / "autumn").exists()


# ---- one copy of the data ----------------------------------------------------------------------------------------------
SHELF = """
import dataclasses, hashlib, os
from pathlib import Path
from scprimer import data
from scprimer.data import download

text = Path(os.environ["SCPRIMER_MIRROR"], "made-up", "cells.csv").read_bytes()
file = data.File("cells.csv", len(text), hashlib.sha256(text).hexdigest(), "https://example.org/cells.csv")
made_up = dataclasses.replace(data.describe("pbmc3k"), name="made-up", files=(file,), parts=())
print(download.fetch_files(made_up))
"""
MISSING = """
os.environ |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}  # no network
data.load("pbmc3k")
"""


def test_a_students_kernel_reads_the_one_copy_and_says_what_is_not_there(hub, bob, bobs_session):
    made_up = hub.shelf / "made-up"
    made_up.mkdir()
    (made_up / "cells.csv").write_text("cell,counts\nA,3\n")
    made_up.chmod(0o555)
    cells = bob.run("data.ipynb", SHELF, MISSING)
    assert labpage.text(cells[0]).strip() == str(made_up), "the file is not read in place"
    ((number, words),) = labpage.errors(cells)
    assert number == 1 and words.startswith("DownloadError: ")
    assert all(said in words for said in ("pbmc3k.RData", "https://", "SCPRIMER_MIRROR", "scprimer data pull"))
    assert snapshot(made_up).keys() == {"cells.csv"}


# ---- the widget --------------------------------------------------------------------------------------------------------
def test_what_is_clicked_in_the_explorer_reaches_the_kernel(hub, ada, adas_chapter, book_repository):
    lab = ada.follow(chapter_link(hub, book_repository, "concepts"), opens=notebook_of("concepts"))
    cells = lab.run_all()
    assert labpage.errors(cells) == []
    assert_the_report_is_shown(cells, "concepts")
    explorer = ada.page.locator(".jp-OutputArea-output .ex")
    explorer.get_by_label("Rater").fill("Ada")
    explorer.locator(".ex-scale label", has_text="4").click()
    shown = labpage.number_of(cells, "explorer.explore(bundle")
    lab.type_below(shown, 'print(view.sheet[["rater", "rating"]].dropna().to_numpy().tolist())')
    assert labpage.text(lab.saved()[shown + 1]).strip() == "[['Ada', 4]]"
    assert ada.foreign_requests() == []
