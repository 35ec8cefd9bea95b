"""The registry's rows are complete, and names are found or answered with the nearest."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib

import pytest

from scprimer import data
from scprimer.data import registry


def test_every_row_is_complete():
    for name in data.names():
        entry = data.describe(name)
        assert entry.name == name
        for field in ("title", "organism", "x", "licence", "citation", "loader"):
            assert getattr(entry, field).strip(), (name, field)
        assert entry.files
        assert entry.bytes == sum(f.bytes for f in entry.files)


def test_files_can_be_recognised_and_fetched():
    seen = set()
    for name in data.names():
        for f in data.describe(name).files:
            assert re.fullmatch(r"[0-9a-f]{64}", f.sha256), (name, f.file)
            assert f.bytes > 0
            # pinned: the address holds a commit, so that the bytes behind it cannot change
            assert re.match(r"https://github\.com/[^/]+/[^/]+/raw/[0-9a-f]{40}/", f.url), (name, f.url)
            assert not f.file.startswith("/") and ".." not in f.file.split("/") and "\\" not in f.file
            assert (name, f.file) not in seen
            seen.add((name, f.file))


def test_every_loader_exists_and_takes_what_the_registry_says():
    for name in data.names():
        entry = data.describe(name)
        module, function = entry.loader.split(":")
        loader = getattr(importlib.import_module(f"scprimer.data.loaders.{module}"), function)
        parameters = list(inspect.signature(loader).parameters)
        assert parameters[0] == "folder"
        assert ("part" in parameters) == bool(entry.parts), name
        assert loader.__doc__


def test_parts_cover_the_files_and_every_part_has_some():
    for name in data.names():
        entry = data.describe(name)
        for f in entry.files:
            assert set(f.parts) <= set(entry.parts), (name, f.file)
        for part in entry.parts:
            assert entry.files_for(part), (name, part)
        assert entry.files_for(None) == entry.files


def test_hash_of_a_data_set_changes_with_any_of_its_files():
    entry = data.describe("pbmc4k")
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    first, *rest = entry.files
    other = registry.File(first.file, first.bytes, "0" * 64, first.url)
    changed = registry.DataSet(**{**vars(entry), "files": (other, *rest)})
    assert changed.sha256 != entry.sha256
    reordered = registry.DataSet(**{**vars(entry), "files": (*rest, first)})
    assert reordered.sha256 == entry.sha256


@pytest.mark.parametrize(
    ("typed", "meant"), [("pbmc3", "pbmc3k"), ("PBMC3k", "pbmc3k"), ("cell_mixology", "cell-mixology"), ("kangdonors", "kang-donors")]
)  # fmt: skip
def test_an_unknown_name_suggests_the_nearest(typed, meant):
    with pytest.raises(data.UnknownData, match=f"did you mean '{meant}'"):
        data.load(typed)
    assert not data.is_registered(typed)


def test_an_unknown_name_without_a_neighbour_lists_the_known():
    with pytest.raises(data.DataError, match=r"Known are: .*pbmc3k") as caught:
        data.describe("zzzz")
    assert "did you mean" not in str(caught.value)


def test_an_unknown_part_or_option_is_named():
    with pytest.raises(data.UnknownData, match="did you mean 'sc_celseq2_5cl'"):
        data.load("cell-mixology", part="celseq2_5cl")
    with pytest.raises(data.UnknownData, match=r"no part of .*leave it out"):
        data.load("pbmc3k", part="a")
    with pytest.raises(data.UnknownData, match=r"no option of the data set 'pbmc3k' called 'filtered', nor any other"):
        data.load("pbmc3k", filtered=True)


def test_names_are_only_names():
    assert data.is_registered("pbmc3k")
    assert not data.is_registered("folder/pbmc3k")
    assert not data.is_registered(None)
    for name in data.names():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)


def test_the_file_is_plain_toml_without_surprises():
    table = tomllib.loads(registry.REGISTRY.read_text(encoding="utf-8"))
    assert list(table) == data.names()
    known = set(registry.DataSet.__dataclass_fields__) - {"name"}
    for name, row in table.items():
        assert set(row) <= known, name


def test_importing_the_room_imports_no_science():
    code = (
        "import sys, scprimer.data, scprimer.data.commands; scprimer.data.names();"
        "print([m for m in ('numpy', 'pandas', 'anndata', 'pooch', 'rdata', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
