"""The doctor says what is missing, and never falls ill itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from scprimer.publish import doctor


def by_name(found) -> dict[str, doctor.Finding]:
    return {f.what: f for f in found}


def test_this_machine_can_run_the_book():
    found = doctor.examine()
    text, able = doctor.report(found)
    assert able, text
    assert by_name(found)["kernel"].state == "fine"
    assert by_name(found)["Python"].words.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert "This machine can run the book" in text


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 9, 0), "stops"), ((3, 11, 4), "stops"), ((3, 11, 5), "fine"), ((3, 13, 9), "fine"), ((3, 14, 0), "stops")],
)
def test_the_version_of_python(monkeypatch, version, state):
    monkeypatch.setattr(sys, "version_info", version)
    finding = doctor._python()
    assert finding.state == state
    assert state == "fine" or "3.11 (3.11.5 or newer), 3.12 or 3.13" in finding.words


def test_missing_packages_stop_and_peers_do_not(monkeypatch):
    needs = ["numpy>=1.26", "no-such-thing>=1", "papermill>=99; extra == 'run'", "no-such-peer; extra == 'reference'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needs)
    found = by_name(doctor._packages())
    assert found["packages"].state == "stops"
    assert "missing: no-such-thing" in found["packages"].words
    assert found["packages to run"].state == "note"
    assert "papermill" in found["packages to run"].words
    assert ">=99" in found["packages to run"].words
    assert found["peers"].state == "note"
    assert "pip install 'scprimer[reference]'" in found["peers"].words


@pytest.mark.parametrize(
    ("installed", "specifier", "fits"),
    [
        ("1.11.5", ">=1.10,<1.12", True),
        ("1.12.0", ">=1.10,<1.12", False),
        ("2.13.0+cpu", ">=2.2", True),
        ("3", "", True),
    ],
)
def test_ranges(installed, specifier, fits):
    assert doctor._satisfies(installed, specifier) == fits


def test_nothing_that_is_missing_makes_it_crash(monkeypatch, tmp_path):
    for name in ("torch", "psutil", "numpy", "packaging", "packaging.specifiers", "pooch", "scprimer.data"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    found = doctor.examine()
    text, able = doctor.report(found)
    assert not able
    assert by_name(found)["torch"].state == "stops"
    assert "could not be looked at" in by_name(found)["memory"].words
    assert "cannot run the book yet: " in text


def test_little_memory_and_a_container_s_limit(monkeypatch):
    monkeypatch.setattr(doctor, "_container_limits", lambda: [3 * 10**9])
    assert doctor.memory_total() == 3 * 10**9
    finding = doctor._memory()
    assert finding.state == "note"
    assert "3.0 GB" in finding.words


def test_a_folder_that_cannot_be_written_stops(monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = by_name(doctor._disk())
    assert found["disk for data"].state == "stops"
    assert "SCPRIMER_CACHE" in found["disk for data"].words
    assert "TMPDIR" in found["disk for runs"].words


def test_little_disk(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**8))
    assert {f.state for f in doctor._disk()} == {"note"}


def test_a_mirror_that_is_not_there_stops(monkeypatch, tmp_path):
    monkeypatch.setenv("SCPRIMER_MIRROR", str(tmp_path / "none"))
    finding = doctor._data()
    assert finding.state == "stops"
    assert "SCPRIMER_MIRROR" in finding.words


def test_a_kernel_that_does_not_start_stops(monkeypatch):
    failure = {"kind": "start", "words": "no kernel", "error": "because"}
    monkeypatch.setattr("scprimer.publish.job.run_job", lambda job: {"failure": failure})
    finding = doctor._kernel()
    assert finding.state == "stops"
    assert "no kernel" in finding.words


def test_other_versions_than_pinned_are_noted(monkeypatch):
    monkeypatch.setattr("scprimer.publish.stamp._pins", lambda top: "numpy==0.0.1\nno-such-thing==1.0")
    finding = doctor._pins()
    assert finding.state == "note"
    assert "(tested: 0.0.1)" in finding.words
