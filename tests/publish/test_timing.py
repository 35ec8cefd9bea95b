"""What chapters and cells took is kept by cell, in step with the stamps, and by profile."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import minibook
import pytest

from scprimer import times
from scprimer.publish import book, job, record, stamp, timing

LONG = "fit(model)  # a while"


def stamped(seconds: float, cells: dict, **more) -> dict:
    return {"seconds": seconds, "peak_mb": 900, "hardware": "2 CPU cores", "date": "2026-01-09", "cells": cells} | more


@pytest.fixture
def top(tmp_path):
    """A book with a package, and one chapter that was recorded in two profiles."""
    made = minibook.notebook("# qc", LONG, "short()", stamp=stamped(540.0, {"c1": 200.0}, profile="standard"))
    minibook.make(tmp_path, qc=made)
    book.write_text(tmp_path / "scprimer" / "__init__.py", "")
    kept = {"chapter": "qc", "profile": "smoke", "stamp": stamped(30.0, {"c1": 5.0, "c2": 2.0}, profile="smoke")}
    book.write_text(tmp_path / "book" / "records" / "smoke" / "qc.json", json.dumps(kept))
    return tmp_path


def kept(top) -> dict:
    return json.loads((top / "scprimer" / "records" / "qc.json").read_text())


def ran(threads, device, processor=70.04) -> dict:
    executed = minibook.notebook("# Title", "a", "b", "c")
    for cell, wall, own in zip(executed["cells"], (None, 0.99, 3.0, 61.26), (None, 0.5, 1.0, 55.0)):
        cell["metadata"]["papermill"] = {"duration": wall, "processor": own}
    executed["metadata"]["papermill"] = {"processor": processor}
    record = {"threads": threads, "device": device}
    return {"notebook": json.dumps(executed), "record": record, "seconds": 99.96}


@pytest.mark.parametrize("device", [None, "cpu"])
def test_one_thread_is_clocked_by_the_processor(device):
    found = stamp.clocked(ran(1, device))
    assert found == {"clock": "processor", "seconds": 70.0, "cells": {"c2": 1.0, "c3": 55.0}}


@pytest.mark.parametrize(
    "threads, device, processor", [(2, "cpu", 70.0), (None, None, 70.0), (1, "cuda", 70.0), (1, "cpu", None)]
)
def test_everything_else_is_clocked_by_the_wall(threads, device, processor):
    found = stamp.clocked(ran(threads, device, processor))
    assert found == {"clock": "wall", "seconds": 100.0, "cells": {"c2": 3.0, "c3": 61.3}}


def test_processor_time_counts_the_processes_below_this_one_and_not_their_sleep():
    work = "import time\nbegun = time.process_time()\nwhile time.process_time() - begun < 0.4: pass\nprint(flush=True)\ntime.sleep(60)"
    before = job.processor_seconds()
    with subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert 0.4 <= job.processor_seconds() - before < 20
        child.kill()


def test_a_record_of_smoke_repeats_keeps_the_mean_of_each_cell():
    assert record._mean_cells([{"a": 2.0, "b": 1.2}, {"a": 4.0}]) == {"a": 3.0}


def test_each_profile_has_its_own_cells(top):
    (change,) = timing.write_all(top)
    assert change.what == "new"
    found = kept(top)
    assert found["standard"]["seconds"] == 540.0
    assert found["standard"]["cells"] == {times.cell_key(LONG): 200.0}
    assert found["smoke"]["cells"] == {times.cell_key(LONG): 5.0, times.cell_key("short()"): 2.0}
    assert timing.write_all(top) == []


def test_a_check_says_what_differs_and_writes_nothing(top):
    timing.write_all(top)
    chapter = book.find("qc", top)
    notebook = copy.deepcopy(chapter.notebook)
    notebook["metadata"]["scprimer"]["stamp"]["seconds"] = 77.0
    book.write_notebook(chapter.path, notebook)
    before = kept(top)
    (change,) = timing.write_all(top, check=True)
    assert change.what == "changed"
    assert '+  "seconds": 77.0,' in change.diff
    assert kept(top) == before
    timing.write_all(top)
    assert kept(top)["standard"]["seconds"] == 77.0


def test_a_comment_changes_nothing_and_code_does(top):
    timing.write_all(top)
    chapter = book.find("qc", top)
    notebook = copy.deepcopy(chapter.notebook)
    notebook["cells"][1]["source"] = "# The model learns here.\nfit( model )\n"
    book.write_notebook(chapter.path, notebook)
    assert timing.write_all(top, check=True) == []
    notebook["cells"][1]["source"] = "fit(models)"
    book.write_notebook(chapter.path, notebook)
    assert len(timing.write_all(top, check=True)) == 1


def test_a_chapter_that_is_gone_takes_its_file_along(top):
    timing.write_all(top)
    book.find("qc", top).path.unlink()
    assert [c.what for c in timing.write_all(top)] == ["gone"]
    assert not (top / "scprimer" / "records" / "qc.json").exists()


def test_a_book_without_a_package_keeps_no_times(tmp_path):
    made = minibook.notebook("# qc", stamp=stamped(540.0, {}, profile="standard"))
    assert timing.write_all(minibook.make(tmp_path, qc=made)) == []
    assert not (tmp_path / "scprimer").exists()
