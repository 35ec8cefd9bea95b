"""The written chapters: each keeps every rule, its methods are exported as they stand, and the tables agree with it."""

from __future__ import annotations

import re

import pytest

from scprimer.publish import book, export, ledger, rules, timing
from scprimer.publish.exercises import exercises

CHAPTERS = {c.slug: c for c in book.chapters()}
PLANNED = {c.slug for c in book.chapters(planned=True)}
CLAIMS = [claim for chapter in CHAPTERS.values() for claim in chapter.meta.get("claims", [])]
METHODS, REPORTED = book.table("methods"), book.table("reported")


@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("slug", CHAPTERS)
def test_the_chapter_keeps_the_rule(slug, rule):
    found = rules.RULES[rule](CHAPTERS[slug])
    assert not found, "\n" + "\n".join(map(str, found))


def test_the_exported_methods_are_those_of_the_notebooks():
    differing = export.export(check=True)
    assert not differing, "run `scprimer export`:\n" + "\n\n".join(change.diff for change in differing)


def test_what_readers_are_told_that_chapters_take_is_what_was_recorded(root):
    differing = timing.write_all(root, check=True)
    assert not differing, "run `scprimer export`:\n" + "\n\n".join(change.diff for change in differing)


def test_every_notebook_is_a_chapter(root):
    """A notebook that no part of the book names would never be run, ruled or rendered."""
    found = {p.relative_to(root / "notebooks").as_posix() for p in (root / "notebooks").rglob("*.ipynb")}
    assert {p for p in found if ".ipynb_checkpoints" not in p} == {
        f"{c.part}/{c.slug}.ipynb" for c in CHAPTERS.values()
    }


@pytest.mark.parametrize("name, columns", [
    ("methods", {"id", "family", "method", "source", "chapter", "how", "show"}),
    ("reported", {"id", "chapter", "method", "where", "setting", "metric", "reported", "compare", "comparability", "remark"}),
])  # fmt: skip
def test_the_table_is_well_formed(name, columns):
    rows = book.table(name)
    assert rows and set(rows[0]) == columns
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    for row in rows:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", row["id"]), row
        assert None not in row and None not in row.values(), f"{row['id']}: a comma too many or too few"
        assert row["chapter"] in PLANNED, f"{row['id']}: no chapter {row['chapter']!r} in scprimer/publish/book.py"
        required = columns - {"compare", "comparability", "remark"}
        assert all(row[column].strip() for column in required), f"{row['id']} leaves a column empty"


def test_reported_figures_name_methods_of_the_table():
    known = {row["id"] for row in METHODS}
    unknown = {row["id"]: row["method"] for row in REPORTED if row["method"] not in known}
    assert not unknown


@pytest.mark.parametrize("row", [pytest.param(r, id=r["id"]) for r in REPORTED if r["chapter"] in CHAPTERS])
def test_a_reported_figure_of_a_written_chapter_has_been_judged(row):
    judged, measured = row["comparability"], row["id"] in {c.get("reported") for c in CLAIMS}
    assert judged and judged in ledger.COMPARABILITY, "say in book/reported.csv whether the settings compare"
    assert judged == "comparable" or len(row["remark"].split()) > 3, (
        "say in the remark what differs, or why it cannot be measured"
    )
    assert measured == (judged != "cannot"), "what cannot be measured here has no claim, and what can has one"


@pytest.mark.parametrize("id", [row["id"] for row in METHODS if row["chapter"] in CHAPTERS])
def test_a_method_of_a_written_chapter_has_a_result(id):
    assert id in {c["method"] for c in CLAIMS if c["kind"] == "result"}


def test_exercise_ids_are_unique_over_the_book():
    ids = [e.id for chapter in CHAPTERS.values() for e in exercises(chapter)]
    assert len(set(ids)) == len(ids)
