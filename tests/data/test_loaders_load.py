"""``load`` from end to end: a tiny registry with a mirror of its own, and the reader's own files."""

from __future__ import annotations

import hashlib
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scprimer import data
from scprimer.data import registry
from scprimer.data.registry import DataSet, File


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A registry of two sets whose files lie in a mirror."""
    screen = b"sgRNA,Gene,HL60.initial\ng1,A1CF,213\ng2,A1CF,294\n"
    genes = b"ONE\t\tA\tB\n"
    rows = {}
    for name, file, content, more in (
        ("screen", "leukemia.new.csv", screen, {"loader": "perturbation:leukemia_screen"}),
        ("sets", "h.all.v7.0.symbols.gmt", genes, {"loader": "knowledge:gene_sets", "parts": ("hallmark", "go-bp")}),
    ):
        (tmp_path / "mirror" / name).mkdir(parents=True)
        (tmp_path / "mirror" / name / file).write_bytes(content)
        f = File(
            file,
            len(content),
            hashlib.sha256(content).hexdigest(),
            "https://nowhere.invalid/f",
            more.get("parts", ())[:1],
        )
        words = dict.fromkeys(("title", "licence_note", "organism", "labels", "remark"), "")
        rows[name] = DataSet(
            name=name, files=(f,), licence="CC0-1.0", citation="somebody", x="raw counts", **words, **more
        )
    monkeypatch.setattr(registry, "_registry", lambda: rows)
    monkeypatch.setenv("SCPRIMER_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("SCPRIMER_CACHE", str(tmp_path / "cache"))
    return rows


def test_provenance_comes_with_the_data(tiny):
    table = data.load("screen")
    assert table["gene"].tolist() == ["A1CF", "A1CF"] and "HL60_initial" in table
    assert table.attrs["scprimer"] == {
        "dataset": "screen", "part": "", "sha256": tiny["screen"].sha256, "licence": "CC0-1.0",
        "citation": "somebody", "x": "raw counts", "simulated": False,
    }  # fmt: skip


def test_the_first_part_is_the_default(tiny):
    assert data.load("sets") == data.load("sets", part="hallmark") == {"ONE": ["A", "B"]}


def test_fetch_gives_the_folder(tiny, tmp_path):
    assert data.fetch("screen") == tmp_path / "mirror" / "screen"


def test_a_damaged_mirror_stops_the_load(tiny, tmp_path):
    (tmp_path / "mirror/screen/leukemia.new.csv").write_text("sgRNA,Gene\n")
    with pytest.raises(data.MirrorError, match="cut short"):
        data.load("screen")


def test_a_part_that_cannot_be_had_says_where_it_was_looked_for(tiny, monkeypatch):
    from scprimer.data import download

    monkeypatch.setattr(download, "PATIENCE", 0.001)
    monkeypatch.setenv("SCPRIMER_QUIET", "1")
    rows = {
        **tiny,
        "screen": DataSet(
            **{**vars(tiny["screen"]), "files": (File("x.csv", 3, "0" * 64, "http://127.0.0.1:9/x.csv"),)}
        ),
    }
    monkeypatch.setattr(registry, "_registry", lambda: rows)
    with pytest.raises(data.DownloadError, match=r"127\.0\.0\.1:9/x\.csv cannot be reached.*SCPRIMER_MIRROR"):
        data.load("screen")


def test_the_readers_own_file_goes_through_the_gate(tmp_path):
    rng = np.random.default_rng(0)
    own = ad.AnnData(
        sp.csr_matrix(rng.poisson(1.0, (30, 40)).astype("f4")),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(30)]),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(40)]),
    )
    own.write_h5ad(tmp_path / "own.h5ad")
    for path in (tmp_path / "own.h5ad", str(tmp_path / "own.h5ad")):
        found = data.load(path)
        assert (found.X != own.X).nnz == 0
    with pytest.raises(data.UnknownData, match="has no parts"):
        data.load(tmp_path / "own.h5ad", part="a")
    own.X.data[:] = -1
    own.write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(data.DataError):
        data.load(tmp_path / "bad.h5ad")


def test_a_file_that_is_not_there_is_no_unknown_name(tmp_path):
    with pytest.raises(data.DataError) as caught:
        data.load(str(tmp_path / "nothing.h5ad"))
    assert not isinstance(caught.value, data.UnknownData)
    assert "nothing.h5ad" in str(caught.value)


def test_loading_warns_of_nothing(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load("screen")
