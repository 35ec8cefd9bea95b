"""A parameter means the same in the parameters cell, on the command line, through papermill and in the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import minibook
import nbclient
import nbformat
import numpy as np
import papermill
import pytest

from scprimer.publish import book

PARAMETERS = 'profile = None\nseed = 0\ndataset = "pbmc3k"\ndevice = "auto"'
START = """\
import scprimer
run = scprimer.start(
    "qc", profile=profile, seed=seed, dataset=dataset, written_for="pbmc3k", device=device
)
"""
# What is drawn says that the seed reached torch; what is counted says that the file was read.
CLAIM = """\
import torch
adata = run.load()
run.claim("drawn", "A number was drawn", float(torch.rand(1, device=run.device)), at_least=0)
run.claim("cells", "Cells were read", adata.n_obs, at_least=1)
"""
WANTED = {"profile": "smoke", "seed": 7, "device": "cpu"}


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A book of one chapter."""
    cells = ("# Parameters\n\nYou will see them.", (PARAMETERS, "parameters"), START, CLAIM, minibook.REPORT)
    return minibook.make(tmp_path_factory.mktemp("parameters"), qc=minibook.notebook(*cells))


@pytest.fixture
def mine(tmp_path) -> str:
    """The reader's own file."""
    import anndata as ad

    rng = np.random.default_rng(0)
    counts = ad.AnnData(rng.poisson(1.0, size=(60, 300)).astype(np.float32))
    counts.obs_names = [f"cell{i}" for i in range(counts.n_obs)]
    counts.var_names = [f"GENE{i}" for i in range(counts.n_vars)]
    counts.write_h5ad(tmp_path / "mine.h5ad")
    return str(tmp_path / "mine.h5ad")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("SCPRIMER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SCPRIMER_QUIET", "1")
    monkeypatch.setenv("SCPRIMER_RECORD", str(tmp_path / "record.json"))


def chapter(top):
    return top / "notebooks" / "data" / "qc.ipynb"


def by_editing(top, **values) -> None:
    """The reader edits the parameters cell and runs all cells."""
    notebook = nbformat.read(chapter(top), as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()


def by_papermill(top, **values) -> None:
    papermill.execute_notebook(chapter(top), None, parameters=values, progress_bar=False, kernel_name="python3")


def by_command(top, **values) -> None:
    """``scprimer run qc -p NAME VALUE ...``; its record stays inside, so the edition's metadata gives it back."""
    out = top / "edition"
    given = [word for name, value in values.items() for word in ("-p", name, str(value))]
    done = minibook.command(top, "run", "qc", "--out", str(out), *given, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    meta = book.read_notebook(out / "data" / "qc.ipynb")["metadata"]["scprimer"]
    kept = {name: meta["stamp"][name] for name in WANTED} | {"claims": meta["claims"]}
    book.write_text(Path(os.environ["SCPRIMER_RECORD"]), json.dumps(kept))


def by_environment(top, *, profile, device, **values) -> None:
    """Profile and device from outside, into a notebook whose cell leaves them open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCPRIMER_PROFILE", profile)
        patch.setenv("SCPRIMER_DEVICE", device)
        by_editing(top, **values)


WAYS = [by_editing, by_papermill, by_command, by_environment]


def record_of(way, top, **values) -> dict:
    way(top, **values)
    found = json.loads(Path(os.environ["SCPRIMER_RECORD"]).read_text(encoding="utf-8"))
    return {name: found[name] for name in (*WANTED, "claims")}


@pytest.mark.slow
def test_every_way_gives_the_same_record(top, mine):
    records = {way.__name__: record_of(way, top, dataset=mine, **WANTED) for way in WAYS}
    first = records["by_editing"]
    assert {name: first[name] for name in WANTED} == WANTED
    assert [claim["values"][0] for claim in first["claims"]][1] == 60  # the reader's cells, not the stand-in's
    assert [claim["holds"] for claim in first["claims"]] == [None, None]  # measured, not judged
    for way, found in records.items():
        assert found == first, way
    other = record_of(by_papermill, top, dataset=mine, **WANTED | {"seed": 8})
    assert other["claims"][0]["values"] != first["claims"][0]["values"]


@pytest.mark.slow
@pytest.mark.parametrize("way", [by_editing, by_papermill, by_command], ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"profile": "smok"}, "='smok' is not one of 'smoke', 'standard', 'full' (did you mean 'smoke'?)"),
        ({"device": "gpu"}, "='gpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
        ({"profile": "smoke", "seed": -1}, "seed=-1: use a non-negative whole number"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_every_way_refuses_a_wrong_value_in_the_same_words(top, way, wrong, words):
    with pytest.raises(Exception) as refused:
        way(top, **wrong)
    assert words in str(refused.value)


@pytest.mark.slow
def test_the_command_line_has_options_for_what_every_chapter_has(top):
    done = minibook.command(
        top, "run", "qc", "--profile", "smoke", "--device", "cpu", "--out", str(top / "options"),
        env=minibook.environment(SCPRIMER_DEVICE="cpu"), timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    meta = book.read_notebook(top / "options" / "data" / "qc.ipynb")["metadata"]["scprimer"]
    assert (meta["stamp"]["profile"], meta["stamp"]["device"]) == ("smoke", "cpu")
