"""The rows that the book's tables are made of."""

from __future__ import annotations

import json
import math

import pytest

from scprimer.publish import book, ledger

METHODS = """id,family,method,source,chapter,how,show
kept,quality control,Kept,review,qc,scanpy,cells kept
lost,quality control,Lost,review,qc,by hand,cells lost
later,learning,Later,review,scvi,by hand,something
"""
REPORTED = """id,chapter,method,where,setting,metric,reported,compare,comparability,remark
r-kept,qc,kept,review,PBMC,share,0.9,,other,other cells
r-never,qc,lost,review,PBMC,share,0.5,,cannot,no data
r-later,scvi,later,review,PBMC,ARI,0.85,plus or minus 0.05,,
"""


def claim(id="kept-share", **fields):
    return {
        "id": id, "text": "Most cells are kept", "kind": "result", "method": "kept", "values": [0.5, 0.7], "resample": "cells",
        "bounds": {"smoke": ["at_least", 0.1], "standard": ["at_least", 0.4]}, "baseline": 0.2, "control": None,
        "source": None, "reported": "r-kept", "holds": True,
    } | fields  # fmt: skip


def write(top, claims, *, stamp=None, cells=(), not_applicable=None, slug="qc", part="data"):
    meta = {"chapter": slug, "claims": claims, "not_applicable": not_applicable or {}}
    if stamp:
        meta["stamp"] = stamp
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Which cells to keep\n\nA promise."}
    notebook = {"cells": [title, *cells], "metadata": {"scprimer": meta}, "nbformat": 4, "nbformat_minor": 5}
    book.write_notebook(top / "notebooks" / part / f"{slug}.ipynb", notebook)


@pytest.fixture
def top(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book" / "methods.csv").write_text(METHODS, encoding="utf-8")
    (tmp_path / "book" / "reported.csv").write_text(REPORTED, encoding="utf-8")
    return tmp_path


STAMP = {"profile": "standard", "device": "cpu", "seconds": 60.0, "peak_mb": 900}


def status(rows):
    return {m.row["id"]: m.status for m in rows.methods}


def test_a_claim_keeps_mean_spread_and_what_was_drawn_anew(top):
    write(top, [claim()], stamp=STAMP)
    (row,) = ledger.read(top).claims
    assert row.measured.mean == pytest.approx(0.6)
    assert row.measured.sd == pytest.approx(math.sqrt(0.02))
    assert (row.measured.resample, row.measured.baseline, row.measured.control) == ("cells", 0.2, None)
    assert row.bound == ("at_least", 0.4)  # that of the profile which the notebook was run in
    assert row.anchor == "claim-qc-kept-share"


def test_one_value_has_no_spread_and_none_has_no_mean(top):
    write(top, [claim(values=[3.0]), claim(id="nothing", values=[])], stamp=STAMP)
    one, nothing = ledger.read(top).claims
    assert (one.measured.mean, one.measured.sd) == (3.0, None)
    assert (nothing.measured.mean, nothing.measured.sd) == (None, None)


@pytest.mark.parametrize(
    "state, expected", [("fresh", "working"), ("aged", "working"), ("stale", "stale"), ("never run", "stale")]
)
def test_a_method_works_only_while_its_chapter_holds(top, state, expected):
    write(top, [claim()], stamp=STAMP)
    assert status(ledger.read(top, lambda chapter: (state, ()))) == {
        "kept": expected,
        "lost": "written",
        "later": "planned",
    }


@pytest.mark.parametrize("kind", ["reference", "baseline", "control", "pitfall"])
def test_only_a_result_makes_a_method_work(top, kind):
    write(top, [claim(kind=kind)], stamp=STAMP)
    assert status(ledger.read(top))["kept"] == "written"


def test_a_later_chapter_does_not_undo_a_method(top):
    write(top, [claim()], stamp=STAMP)
    write(top, [claim(id="again")], slug="scvi", part="learning")
    found = ledger.read(top, lambda chapter: ("fresh" if chapter.slug == "qc" else "stale", ()))
    assert status(found)["kept"] == "working"


def test_reported_figures_stand_beside_ours(top):
    write(top, [claim()], stamp=STAMP, not_applicable={"reported:r-never": "the source names no data"})
    kept, never, later = ledger.read(top).reported
    assert [c.id for c in kept.ours] == ["kept-share"] and kept.remark == "other cells"
    assert never.ours == () and never.waived == "the source names no data"
    assert (later.ours, later.comparability, later.chapter.exists) == ((), "", False)


def test_records_of_other_profiles_are_read(top):
    write(top, [claim()], stamp=STAMP)
    record = {
        "chapter": "qc", "profile": "full", "stamp": {"device": "cuda", "hardware": "H200", "seconds": 30.0},
        "claims": [claim(values=[0.9, 0.9])],
    }  # fmt: skip
    book.write_text(top / "book" / "records" / "full" / "qc.json", json.dumps(record))
    found = ledger.read(top)
    (elsewhere,) = found.claims[0].elsewhere
    assert (elsewhere.profile, elsewhere.mean, elsewhere.device) == ("full", 0.9, "cuda")
    assert found.cost("qc").stamps["full"]["seconds"] == 30.0
    assert found.cost("qc").stamp["seconds"] == 60.0


def test_an_edition_is_read_in_its_own_profile(top):
    write(top, [claim()], stamp=STAMP | {"profile": "smoke"})
    found = ledger.read(top)
    assert found.cost("qc").profile == "smoke"
    assert found.claims[0].bound == ("at_least", 0.1)


def test_pitfalls_come_in_the_order_of_their_sections(top):
    cells = [
        {"cell_type": "markdown", "id": f"c{i}", "metadata": {"scprimer": {"pitfall": {"id": f"p{i}", "title": "T"}}}, "source": ""}
        for i in range(2)
    ]  # fmt: skip
    write(top, [], cells=cells)
    assert [(p.id, p.anchor, p.symptom) for p in ledger.read(top).pitfalls] == [
        ("p0", "pitfall-p0", ""),
        ("p1", "pitfall-p1", ""),
    ]


def test_a_chapter_without_a_run_is_told_so(top):
    write(top, [])
    assert ledger.read(top).cost("qc").state == "never run"
    assert ledger.read(top).cost("scvi") is None


@pytest.mark.parametrize(
    "name, old, new, says",
    [
        ("methods", "kept,quality control", "lost,quality control", "'lost' stands twice"),
        ("methods", ",qc,scanpy", ",cooking,scanpy", "no chapter 'cooking' is planned"),
        ("reported", ",other,", ",similar,", "comparability 'similar' is not one of"),
    ],
)
def test_a_faulty_table_is_an_error_that_names_the_row(top, name, old, new, says):
    path = top / "book" / f"{name}.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(book.BookError, match=says):
        ledger.read(top)


def test_a_broken_record_is_an_error_that_says_what_to_do(top):
    write(top, [claim()], stamp=STAMP)
    book.write_text(top / "book" / "records" / "smoke" / "qc.json", "{")
    with pytest.raises(book.BookError, match=r"qc\.json is not readable.*run the chapter again in the profile smoke"):
        ledger.read(top)


@pytest.mark.parametrize("value", [True, "1", None, [1.0], math.nan])
def test_what_is_no_number_is_none(value):
    assert ledger.number(value) is None


def test_every_part_and_chapter_has_a_name(root):
    assert list(ledger.PART_TITLES) == list(book.PARTS)
    names = [ledger.chapter_name(c.slug) for c in book.chapters(root, planned=True)]
    assert len(set(names)) == len(names) and ledger.chapter_name("cite-seq") == "CITE-seq"


def test_the_book_itself_can_be_read(root):
    found = ledger.read(root)
    assert len(found.methods) == len(book.table("methods", root)) > 100
    assert len(found.reported) == len(book.table("reported", root)) > 50
