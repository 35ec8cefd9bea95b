"""How far measured numbers move when something is drawn anew: the tables of the page on reproducibility.

Pure functions from the ledger's rows to HTML, as in :mod:`scprimer.publish.sphinxext.blocks`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from scprimer.publish import ledger
from scprimer.publish.sphinxext.blocks import Link, docname
from scprimer.publish.sphinxext.table import Cell, Column, Row, table
from scprimer.publish.sphinxext.view import anchor
from scprimer.publish.sphinxext.words import RESAMPLE_WORDS, figure, spread

Measurement = tuple[ledger.ClaimRow, ledger.Measured]


def relative(measured: ledger.Measured) -> float | None:
    """Standard deviation over repeats as a share of the mean; None without repeats, or where the mean is zero."""
    if measured.sd is None or not measured.mean:
        return None
    return measured.sd / abs(measured.mean)


def by_draw(claims: Sequence[ledger.ClaimRow]) -> list[tuple[str, str, list[Measurement]]]:
    """Measurements with repeats, by profile and by what each repeat drew anew: seeds and data are never pooled."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for claim in claims:
        for measured in (claim.measured, *claim.elsewhere):
            if measured.resample and measured.sd is not None:
                groups.setdefault((measured.profile, measured.resample), []).append((claim, measured))
    order = list(RESAMPLE_WORDS)
    return [
        (p, r, groups[p, r]) for p, r in sorted(groups, key=lambda k: (k[0] != "standard", k[0], order.index(k[1])))
    ]


def spreads(claims: Sequence[ledger.ClaimRow], link: Link) -> str:
    """One row for each profile and each thing that repeats drew anew: how far claims moved."""
    columns = [Column("What was drawn anew"), Column("Profile"), Column("Claims", numeric=True), Column("Did not move", numeric=True),
               Column("Middle spread", numeric=True), Column("Nine of ten below", numeric=True), Column("Widest")]  # fmt: skip
    rows = []
    for profile, resample, found in by_draw(claims):
        shares = _shares(found)
        if not shares:
            continue
        values = [share for share, *_ in shares]
        still, nine, (widest, moved) = (
            sum(m.sd == 0 for _, m in found),
            values[math.ceil(0.9 * len(values)) - 1],
            shares[-1][1:],
        )
        rows.append(Row([
            Cell(escape(RESAMPLE_WORDS[resample])), Cell(escape(profile)), Cell(str(len(found)), len(found)),
            Cell(str(still), still), Cell(_percent(median(values)), median(values)), Cell(_percent(nine), nine),
            Cell(f'<a href="{escape(link("book/ledger", anchor(widest.anchor)))}">{escape(widest.text)}</a> {spread(moved)}', values[-1]),
        ]))  # fmt: skip
    return table(columns, rows, name="spreads", label="How far claims move when something is drawn anew", empty="No chapter has recorded a repeated claim yet.")  # fmt: skip


def _shares(found: Iterable[Measurement]) -> list[tuple[float, ledger.ClaimRow, ledger.Measured]]:
    """Relative spreads in ascending order, each with its claim and measurement."""
    pairs = [(share, claim, measured) for claim, measured in found if (share := relative(measured)) is not None]
    return sorted(pairs, key=lambda pair: pair[0])


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{figure(100 * share, 2)} %"


def single(claims: Sequence[ledger.ClaimRow]) -> str:
    """How many claims were measured once, by their kind."""
    once = [claim for claim in claims if claim.measured.mean is not None and claim.measured.sd is None]
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(claim.kind for claim in once).most_common())
    if not once:
        return "<p>Every claim was measured more than once.</p>"
    return f"<p>{len(once)} of {len(claims)} claims were measured once and carry no spread ({escape(kinds)}).</p>"


def devices(claims: Sequence[ledger.ClaimRow], link: Link) -> str:
    """Claims that were measured on another kind of device too, both values side by side; a sentence where there are none."""
    columns = [
        Column("Claim"),
        Column("Here", numeric=True),
        Column("There", numeric=True),
        Column("Device"),
        Column("Profile"),
    ]
    rows = []
    for claim in claims:
        for other in claim.elsewhere:
            if (other.device or "cpu") == (claim.measured.device or "cpu"):
                continue
            there = link(docname(claim.chapter), anchor(claim.anchor))
            rows.append(Row([
                Cell(f'<a href="{escape(there)}">{escape(claim.text)}</a>', claim.text), Cell(spread(claim.measured)), Cell(spread(other)),
                Cell(escape(str(other.device))), Cell(escape(other.profile)),
            ]))  # fmt: skip
    empty = "Every record of this edition was made on a CPU: how far a GPU moves the claims has not been measured yet."
    return table(columns, rows, name="devices", label="Claims measured on two kinds of device", empty=empty)


def surroundings(costs: Sequence[ledger.Cost]) -> str:
    """On what the recorded runs were made: hardware, threads, Python and versions, with the number of runs of each."""
    seen: dict[str, Counter[str]] = {}
    for cost in costs:
        for profile, stamp in cost.stamps.items():
            entries = {"profile": profile, "hardware": stamp.get("hardware"), "device": stamp.get("device"), "threads": stamp.get("threads"),
                       "Python": stamp.get("python"), **(stamp.get("versions") or {})}  # fmt: skip
            for name, value in entries.items():
                if value is not None:
                    seen.setdefault(str(name), Counter())[str(value)] += 1
    columns = [Column("What"), Column("In the recorded runs")]
    rows = [
        Row([Cell(escape(name)), Cell("; ".join(f"{escape(value)} ({n})" for value, n in counts.most_common()))])
        for name, counts in seen.items()
    ]
    return table(columns, rows, name="surroundings", label="On what the recorded runs were made", empty="No run is recorded yet.", sortable=False)  # fmt: skip
