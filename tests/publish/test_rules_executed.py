"""Notebooks executed for real under nbval: a good one passes, a claim that fails fails the tests, the template runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from fixtures import good_chapter as fixture

from scprimer.publish import book, rules, stamp
from scprimer.publish.template import new

SMOKE = {
    "SCPRIMER_PROFILE": "smoke",
    "SCPRIMER_QUIET": "1",
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}


def failing() -> dict:
    """The good chapter with a bound that no measure reaches."""
    notebook = fixture.good()
    claims = fixture.cell(notebook, "make-claims")
    claims["source"] = claims["source"].replace("at_least=0.9", "at_least=1.1")
    return notebook


def moved() -> dict:
    """The good chapter with another claim than the one that was stored: its report is not the stored one."""
    notebook = fixture.good()
    claims = fixture.cell(notebook, "make-claims")
    claims["source"] = claims["source"].replace("a second time", "once more")
    return notebook


def executed_template(top):
    """The template of a chapter after a run at smoke, with what recording would have added."""
    import nbclient
    import nbformat

    path = new("diffusion", top)
    notebook = nbformat.read(path, as_version=4)
    record = top / "record.json"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (SMOKE | {"SCPRIMER_RECORD": str(record)}).items():
            patch.setenv(name, value)
        nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", record_timing=False).execute()
    plain = json.loads(nbformat.writes(notebook))
    plain["metadata"]["scprimer"]["claims"] = json.loads(record.read_text())["claims"]
    return fixture.write(top, plain, slug="diffusion")


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A clone with four notebooks, and what nbval said of them."""
    top = tmp_path_factory.mktemp("clone")
    fixture.clone(top)
    executed_template(top)
    fixture.write(top, fixture.good())
    for name, make in (("failing", failing), ("moved", moved)):
        book.write_notebook(top / "notebooks" / f"{name}.ipynb", make())
    return top


@pytest.fixture(scope="module")
def outcome(top):
    (top / "empty.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=60"]
    command += ["-p", "no:cacheprovider", "-c", "empty.ini", "-q", "--color=no", "notebooks"]
    return subprocess.run(command, cwd=top, env=os.environ | SMOKE, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_good_chapter_and_the_template_pass_and_the_failing_claim_fails(outcome):
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    failed = dict(re.findall(r"(?m)^FAILED (\S+\.ipynb)::(.+)$", outcome.stdout))
    assert {name.rpartition("/")[2] for name in failed} == {"failing.ipynb", "moved.ipynb"}, outcome.stdout
    assert "ClaimFailed" in outcome.stdout and "5 of 7 claims do not hold (smoke)" in outcome.stdout


@pytest.mark.slow
def test_a_run_template_breaks_the_rules_only_where_words_must_be_replaced(top):
    found = rules.check(book.find("diffusion", top))
    assert {v.rule for v in found} == {"placeholders", "citations"}, [str(v) for v in found]
    assert stamp.state(book.find("diffusion", top)) in ("fresh", "aged")
