"""Results of benchmarks: read, recorded, shown in the book and in the README; the scripts still run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scprimer.publish import benchmarks, book
from scprimer.publish.sphinxext import blocks

COLUMNS = {
    "cells": ("Cells", "count"), "contender": ("Contender", "text"), "seconds": ("Seconds", "seconds"), "peak_mb": ("Peak memory", "memory"),
    "elbo": ("Held-out ELBO", "value"), "ratio": ("Times as fast", "ratio"),
}  # fmt: skip
ROW = {
    "cells": 5000, "contender": "CountVAE", "seconds": 0.25, "peak_mb": 640, "elbo": -700.25, "elbo_sd": 0.5, "ratio": 3.96,
}  # fmt: skip
RUN = {
    "hardware": "2 CPU cores", "device": "cpu", "threads": 2, "date": "2026-01-02", "setting": "6.7% not zero",
    "versions": {"torch": "2.0"}, "rows": [ROW],
}  # fmt: skip


def test_a_run_replaces_the_older_one_of_its_machine_only(tmp_path):
    gpu = {**RUN, "hardware": "A GPU", "device": "cuda"}
    for run in (gpu, RUN, {**RUN, "rows": [{**ROW, "ratio": 5.0}]}):
        benchmarks.record("countvae", COLUMNS, run, tmp_path)
    cpu, other = benchmarks.read("countvae", tmp_path)["runs"]
    assert (cpu["device"], cpu["rows"][0]["ratio"], other["hardware"]) == ("cpu", 5.0, "A GPU")


def test_the_tables_show_what_was_measured_and_what_was_not(tmp_path):
    assert benchmarks.markdown("countvae", tmp_path) == "NVIDIA GPU: not measured yet."
    benchmarks.record("countvae", COLUMNS, RUN, tmp_path)
    text = benchmarks.markdown("countvae", tmp_path)
    assert "| 5,000 | CountVAE | 0.25 | 0.64 GB | −700.2 ± 0.5 | 4.0 |" in text
    assert "2 CPU cores, 2 threads, 2026-01-02; 6.7% not zero (torch 2.0)." in text and "not measured yet" in text
    page = blocks.benchmark("countvae", benchmarks.read("countvae", tmp_path))
    assert "−700.2 ± 0.5" in page and "not measured yet" in page
    gpu = {**RUN, "device": "cuda", "hardware": "A <GPU>"}
    page = blocks.benchmark("countvae", {"columns": COLUMNS, "runs": [RUN, gpu]})
    assert "not measured yet" not in page and "A &lt;GPU&gt;" in page and "<GPU>" not in page


def test_only_what_runs_on_a_gpu_is_missing_there(tmp_path):
    assert benchmarks.markdown("metrics", tmp_path) == "Not measured yet: run `python benchmarks/metrics.py --record`."
    assert "Not measured yet" in blocks.benchmark("metrics", benchmarks.read("metrics", tmp_path))
    benchmarks.record("metrics", COLUMNS, RUN, tmp_path)
    assert "measured yet" not in benchmarks.markdown("metrics", tmp_path)


def test_a_value_that_is_missing_is_a_dash():
    assert benchmarks.shown({"peak_mb": None}, "peak_mb", "memory") == "–"
    assert benchmarks.shown({"s": 0.0123}, "s", "seconds") == "0.012"
    assert benchmarks.shown({"s": 12.34}, "s", "seconds") == "12.3"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        json.dumps({"columns": COLUMNS, "runs": [{**RUN, "rows": [{"cells": 1}]}]}),
        json.dumps({"columns": {"x": ["X", "colour"]}, "runs": []}),
    ],
)
def test_a_broken_result_file_says_how_to_mend_it(tmp_path, content):
    path = tmp_path / "benchmarks" / "results" / "countvae.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(book.BookError, match="run "):
        benchmarks.read("countvae", tmp_path)


def test_the_readme_shows_the_tables_as_they_were_measured(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert "<!-- benchmark: countvae -->" in text
    assert benchmarks.readme(text) == text, "run `python -m scprimer.publish.benchmarks`"


def test_the_readme_keeps_what_stands_around_a_table(tmp_path):
    benchmarks.record("countvae", COLUMNS, RUN, tmp_path)
    text = "a\n<!-- benchmark: countvae -->\nold\n<!-- /benchmark -->\nb\n"
    made = benchmarks.readme(text, tmp_path)
    assert made.startswith("a\n<!-- benchmark: countvae -->\n| Cells") and made.endswith("<!-- /benchmark -->\nb\n")
    assert "old" not in made and benchmarks.readme(made, tmp_path) == made


@pytest.mark.slow
def test_the_benchmark_of_countvae_runs(root):
    """Small enough for a test, so nothing is asserted of its times."""
    command = [
        sys.executable, str(root / "benchmarks" / "countvae.py"), "--cells", "300", "--epochs", "1", "--repeats", "1",
        "--likelihood", "nb", "--threads", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("s an epoch, ELBO -") == 4


def test_a_run_on_the_processor_says_where_and_when_it_was_made():
    rows = [{"contender": "a", "seconds": 1.0}]
    run = benchmarks.on_cpu(rows, "some cells", ("pytest",), threads=1)
    assert run["rows"] is rows and run["setting"] == "some cells" and run["device"] == "cpu" and run["threads"] == 1
    assert run["hardware"].endswith("CPU cores") and run["versions"] == {"pytest": pytest.__version__}
    assert benchmarks.on_cpu(rows, "some cells", (), threads=1, hardware="a laptop")["hardware"] == "a laptop"
