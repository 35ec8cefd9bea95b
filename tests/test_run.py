"""The Run that a chapter starts: profiles, seeds, repeats, claims, and the report that fails a notebook."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest

from scprimer import run as rooms
from scprimer.run import ClaimFailed, Repeats, bound_holds, find_device, start


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for variable in (rooms.PROFILE_VARIABLE, rooms.DEVICE_VARIABLE, rooms.RECORD_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(rooms.QUIET_VARIABLE, "1")


def begin(**options):
    return start("qc", dataset="pbmc3k", written_for="pbmc3k", **options)


# ---- threads -----------------------------------------------------------------------------------------------------
THREADS = """
import scprimer
scprimer.start("qc")
import numba
import torch

@numba.njit(parallel=True)
def total(n):
    found = 0
    for i in numba.prange(n):
        found += i
    return found

assert total(1000) == 499500
print(torch.get_num_threads(), numba.get_num_threads())
"""


@pytest.mark.parametrize("given, found", [({"OMP_NUM_THREADS": "1"}, "1 1"), ({"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "1"}, "1 1")])  # fmt: skip
def test_numba_uses_as_many_threads_as_openmp_was_given_unless_it_was_told_otherwise(given, found):
    """Once Numba has started its threads, torch has as many."""
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | given
    done = subprocess.run([sys.executable, "-c", THREADS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == found


# ---- profile, seed, device ---------------------------------------------------------------------------------------
def test_profile_is_standard_unless_the_environment_or_the_notebook_says_otherwise(monkeypatch):
    assert begin().profile == "standard"
    assert begin(profile="full").profile == "full"
    monkeypatch.setenv(rooms.PROFILE_VARIABLE, "smoke")
    assert begin().profile == "smoke"
    assert begin(profile="smoke").profile == "smoke"


def test_two_explicit_profiles_that_differ_are_an_error(monkeypatch):
    monkeypatch.setenv(rooms.PROFILE_VARIABLE, "smoke")
    with pytest.raises(ValueError, match="contradicts SCPRIMER_PROFILE='smoke'"):
        begin(profile="full")


@pytest.mark.parametrize(("options", "words"), [
    ({"profile": "smok"}, "did you mean 'smoke'"),
    ({"seed": -1}, "non-negative whole number"),
    ({"seed": 1.5}, "non-negative whole number"),
    ({"seed": True}, "non-negative whole number"),
    ({"seed": "lucky"}, "seed='lucky': use a non-negative whole number"),
    ({"seed": None}, "non-negative whole number"),
    ({"device": "gpu"}, "device='gpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
])  # fmt: skip
def test_bad_parameters_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        begin(**options)


@pytest.mark.parametrize("open", ["auto", None])
def test_the_device_is_left_to_the_environment_unless_the_notebook_says_one(monkeypatch, open):
    monkeypatch.setattr(rooms, "find_device", lambda wanted="auto": f"found {wanted}")
    assert begin(device=open).device == "found auto"
    monkeypatch.setenv(rooms.DEVICE_VARIABLE, "mps")
    assert begin(device=open).device == "found mps"
    assert begin(device="mps").device == "found mps"
    monkeypatch.setenv(rooms.DEVICE_VARIABLE, "auto")  # no wish either
    assert begin(device=open).device == "found auto"
    assert begin(device="cpu").device == "found cpu"


def test_two_explicit_devices_that_differ_are_an_error(monkeypatch):
    monkeypatch.setenv(rooms.DEVICE_VARIABLE, "cuda")
    with pytest.raises(ValueError, match=r"device='cpu' contradicts SCPRIMER_DEVICE='cuda': .*device = 'auto'"):
        begin(device="cpu")
    monkeypatch.setenv(rooms.DEVICE_VARIABLE, "gpu")
    with pytest.raises(ValueError, match="SCPRIMER_DEVICE='gpu' is not one of"):
        begin(device="auto")


def test_a_chapter_without_torch_has_no_device(monkeypatch):
    monkeypatch.setenv(rooms.DEVICE_VARIABLE, "cuda")  # meant for the others
    monkeypatch.setattr(rooms, "seed_everything", lambda seed, torch: seeded.append(torch))
    seeded = []
    run = begin()
    assert seeded == [False]
    assert run.record()["device"] is None
    assert "device" not in repr(run)
    monkeypatch.delenv(rooms.DEVICE_VARIABLE)
    assert (
        begin(device=None).record()["device"] == find_device()
    )  # a reader's None: the machine decides, torch is seeded
    assert seeded == [False, True]


def test_pick_takes_the_profile_and_full_falls_back_to_standard():
    assert begin(profile="smoke").pick(smoke=1, standard=2, full=3) == 1
    assert begin(profile="standard").pick(smoke=1, standard=2, full=3) == 2
    assert begin(profile="full").pick(smoke=1, standard=2, full=3) == 3
    assert begin(profile="full").pick(smoke=1, standard=2) == 2


def test_the_seed_reaches_python_numpy_and_torch():
    import random

    import numpy as np
    import torch

    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    begin(seed=3, device="cpu")
    first = draw()
    begin(seed=3, device="cpu")
    assert draw() == first
    begin(seed=4, device="cpu")
    assert all(a != b for a, b in zip(draw(), first))


def test_find_device_finds_one_that_works_and_refuses_one_that_is_not_there():
    import torch

    assert torch.zeros(1, device=find_device("auto")).sum() == 0
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda' was asked for"):
            find_device("cuda")


# ---- data --------------------------------------------------------------------------------------------------------
def test_smoke_loads_a_stand_in_that_says_it_is_simulated():
    adata = begin(profile="smoke").load()
    assert adata.uns["scprimer"]["simulated"]
    assert "truth" in adata.uns


def test_own_data_is_another_data_set_than_the_chapter_was_written_for():
    assert not begin().own_data
    assert start("qc", dataset="mine.h5ad", written_for="pbmc3k").own_data
    with pytest.raises(ValueError, match="no `dataset` parameter"):
        start("anndata").load()


# ---- repeats -----------------------------------------------------------------------------------------------------
def test_repeats_have_distinct_seeds_that_follow_the_run_seed():
    run = begin(seed=2)
    assert run.repeat(lambda seed: seed, 3).values == (2000.0, 2001.0, 2002.0)
    both = run.repeat(lambda seed: {"a": seed, "b": -seed}, 2, resample="simulation")
    assert both["b"] == Repeats((-2000.0, -2001.0), "simulation")
    with pytest.raises(ValueError, match="resample='dice'"):
        run.repeat(lambda seed: seed, 1, resample="dice")


def test_mean_and_spread_of_repeats():
    r = Repeats((1.0, 2.0, 4.0), "seed")
    assert r.mean == pytest.approx(7 / 3)
    assert r.sd == pytest.approx(math.sqrt(7 / 3))
    assert Repeats((1.0,)).sd == 0.0
    assert float(r) == r.mean
    assert str(r) == "2.33 ± 1.5 (3 × seed)"


# ---- claims ------------------------------------------------------------------------------------------------------
def test_a_claim_that_holds_and_one_that_does_not():
    run = begin()
    assert run.claim("good", "It works", 0.8, at_least=0.6, baseline=0.5, control=0.0).holds
    assert not run.claim("bad", "It works better", [0.5, 0.6], at_least=0.6, resample="seed").holds
    assert not run.claim("nan", "It is a number", float("nan"), at_least=0).holds
    with pytest.raises(ClaimFailed, match=r"2 of 3 claims do not hold") as failure:
        run.report()
    assert "bad: It works better\n    measured 0.55, at least 0.6" in str(failure.value)
    assert "good" not in str(failure.value)


def test_the_mean_over_repeats_is_judged():
    run = begin()
    assert run.claim("mean", "On average", Repeats((0.5, 0.9), "seed"), at_least=0.7).holds


def test_the_report_says_the_same_in_every_profile(capsys):
    texts = []
    for profile in rooms.PROFILES:
        run = begin(profile=profile)
        run.claim("a", "It works", 0.8, at_least={"smoke": 0.1, "standard": 0.2})
        run.report()
        texts.append(capsys.readouterr().out)
    assert texts == ["holds: [result] It works\n"] * 3


def test_bounds_differ_by_profile_and_full_takes_those_of_standard():
    bounds = {"smoke": 0.1, "standard": 0.5}
    assert begin(profile="smoke").claim("a", "x", 0.3, at_least=bounds).holds
    assert not begin(profile="standard").claim("a", "x", 0.3, at_least=bounds).holds
    assert not begin(profile="full").claim("a", "x", 0.3, at_least=bounds).holds


def test_own_data_is_measured_and_not_judged_but_equalities_still_are(capsys):
    run = start("qc", dataset="mine.h5ad", written_for="pbmc3k")
    assert run.claim("a", "It works", 0.1, at_least=0.6).holds is None
    assert run.claim("b", "It needs labels", None, at_least=0.6).holds is None
    assert run.claim("c", "Equal to the reference", 1e-9, at_most=1e-6, kind="reference").holds
    run.report()
    assert "not judged" in capsys.readouterr().out
    assert run.claim("d", "Equal to the other reference", 1.0, at_most=1e-6, kind="reference").holds is False


@pytest.mark.parametrize(("options", "words"), [
    ({"at_least": 1, "at_most": 2}, "exactly one of"),
    ({}, "exactly one of"),
    ({"at_least": 1, "kind": "resuls"}, "did you mean 'result'"),
    ({"at_least": {"smok": 1}}, "profile of a bound"),
    ({"at_least": 1, "resample": "dice"}, "resample='dice'"),
])  # fmt: skip
def test_malformed_claims_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        begin().claim("x", "A claim", 1.0, **options)


def test_claim_ids_are_unique_and_values_are_required():
    run = begin()
    run.claim("x", "A claim", 1.0, at_least=0)
    with pytest.raises(ValueError, match="used twice"):
        run.claim("x", "Another claim", 1.0, at_least=0)
    with pytest.raises(ValueError, match="a value is required"):
        run.claim("y", "A claim", None, at_least=0)


@pytest.mark.parametrize(("value", "direction", "bound", "holds"), [
    (1.0, "at_least", 1.0, True), (0.99, "at_least", 1.0, False), (1.0, "at_most", 1.0, True),
    (1.01, "at_most", 1.0, False), (float("nan"), "at_most", 1.0, False), (None, "at_least", 0.0, False),
])  # fmt: skip
def test_bounds(value, direction, bound, holds):
    assert bound_holds(value, direction, bound) is holds


# ---- what is left behind -----------------------------------------------------------------------------------------
def test_the_record_holds_what_the_ledger_needs(tmp_path, monkeypatch):
    target = tmp_path / "record.json"
    monkeypatch.setenv(rooms.RECORD_VARIABLE, str(target))
    run = begin(profile="smoke", seed=1)
    run.claim("a", "It works", Repeats((0.8, 0.9), "cells"), at_least=0.5, method="doublets", baseline=0.4, control=0.1,
              source="wolock2019", reported="r-x")  # fmt: skip
    run.report()
    record = json.loads(target.read_text())
    (claim,) = record["claims"]
    assert record["profile"] == "smoke"
    assert record["seed"] == 1
    assert claim["values"] == [0.8, 0.9]
    assert claim["resample"] == "cells"
    assert claim["bounds"]["standard"] == ["at_least", 0.5]
    assert (claim["baseline"], claim["control"], claim["holds"]) == (0.4, 0.1, True)


def test_the_record_is_written_even_when_a_claim_fails(tmp_path, monkeypatch):
    target = tmp_path / "record.json"
    monkeypatch.setenv(rooms.RECORD_VARIABLE, str(target))
    run = begin()
    run.claim("a", "It works", 0.0, at_least=0.5)
    with pytest.raises(ClaimFailed):
        run.report()
    assert json.loads(target.read_text())["claims"][0]["holds"] is False


def test_the_table_shows_value_bound_baseline_and_control():
    run = begin()
    run.claim("a", "It works", Repeats((0.8, 0.9), "seed"), at_least=0.5, baseline=0.4, control=0.1)
    row = run.table().loc["It works"]
    assert list(row) == ["result", "0.85 ± 0.071 (2 × seed)", "≥ 0.5", "0.4", "0.1"]


def test_a_claim_shows_what_it_measured_and_escapes_its_text():
    claim = begin().claim("a", "Fewer than <5", Repeats((1.0, 2.0), "seed"), at_most=5, baseline=7)
    assert repr(claim) == "Fewer than <5: 1.5 ± 0.71 (2 × seed); baseline 7 [result, holds]"
    assert "Fewer than &lt;5" in claim.to_html()
    assert "fails" in begin().claim("a", "No", 9.0, at_most=5).to_html()


def test_the_start_card_escapes_what_it_shows():
    run = start("qc", dataset="<script>.h5ad", written_for="pbmc3k")
    assert "<script>" not in run._repr_html_()
    assert "&lt;script&gt;" in run._repr_html_()
