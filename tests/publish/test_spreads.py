"""The tables of the page on reproducibility."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hostile import HOSTILE

from scprimer.publish import book, ledger
from scprimer.publish.sphinxext import spreads


def link(docname, name):
    return f"{docname}.html#{name}"


def claim(name, values, resample=None, elsewhere=(), device="cpu"):
    chapter = book.Chapter("qc", "data", None)
    return ledger.ClaimRow(
        chapter=chapter, id=name, text=f"{name} {HOSTILE}", kind="result", method=None, bound=None, reported=None, source=None,
        state="fresh", measured=ledger.Measured("standard", values, resample, device=device), elsewhere=elsewhere,
    )  # fmt: skip


CLAIMS = [
    claim("steady", (1.0, 1.0), "seed"),
    claim("narrow", (0.9, 1.1), "cells"),
    claim("wide", (1.0, 3.0), "cells", (ledger.Measured("smoke", (1.0, 1.5), "simulation", device="cpu"),)),
    claim("once", (1.0,)),
]


def text(html: str) -> str:
    return " ".join(" ".join(ET.fromstring(f"<x>{html}</x>").itertext()).split())


def test_a_spread_is_a_share_of_the_mean():
    assert spreads.relative(ledger.Measured("standard", (1.0, 3.0))) == pytest.approx(2**0.5 / 2)
    assert spreads.relative(ledger.Measured("standard", (-1.0, -3.0))) == pytest.approx(2**0.5 / 2)
    assert spreads.relative(ledger.Measured("standard", (1.0,))) is None
    assert spreads.relative(ledger.Measured("standard", (-1.0, 1.0))) is None


def test_seeds_and_data_are_never_pooled():
    groups = [(profile, resample, len(found)) for profile, resample, found in spreads.by_draw(CLAIMS)]
    assert groups == [("standard", "seed", 1), ("standard", "cells", 2), ("smoke", "simulation", 1)]


def test_the_table_names_the_widest_claim_and_escapes_it():
    html = spreads.spreads(CLAIMS, link)
    assert 'href="book/ledger.html#claim-qc-wide"' in html and "claim-qc-narrow" not in html
    assert "2 ± 1.4 over 2 draws of cells" in text(html) and "42 % 71 %" in text(html)
    assert not re.search(r"<(script|img)", html)
    assert "1 of 4 claims were measured once" in spreads.single(CLAIMS)


def test_what_no_gpu_has_measured_is_said():
    assert "has not been measured yet" in spreads.devices(CLAIMS, link)
    other = claim("moved", (0.5, 0.7), "cells", (ledger.Measured("full", (0.6, 0.6), "cells", device="cuda"),))
    shown = text(spreads.devices([other], link))
    assert "cuda" in shown and "0.6 ± 0.14" in shown and "not been measured" not in shown


def test_surroundings_are_counted_and_escaped():
    stamp = {"hardware": HOSTILE, "threads": 1, "versions": {"numpy": "2.0"}}
    costs = [ledger.Cost(chapter=None, state="fresh", reasons=(), stamps={"standard": stamp, "smoke": stamp})]
    html = spreads.surroundings(costs)
    assert "2.0 (2)" in text(html) and not re.search(r"<(script|img)", html)


def test_without_records_the_page_says_so():
    assert "No chapter has recorded" in spreads.spreads([], link)
    assert "No run is recorded" in spreads.surroundings([])
