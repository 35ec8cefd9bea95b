"""The book's generated blocks as HTML: cost boxes, tables, cards. Pure functions from rows to text.

Everything that comes from a notebook or a table is escaped here and nowhere else: functions take plain text and return
HTML. Tables are whole without a script; ``scprimer.js`` adds sorting and filtering to those marked ``data-sortable``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

from scprimer.publish import book, ledger
from scprimer.publish.sphinxext.view import anchor

# Gives the address of an anchor in a page: link("book/ledger", "claim-qc-kept").
Link = Callable[[str, str], str]

KIND_WORDS = {
    "result": "result",
    "reference": "reference check",
    "baseline": "baseline",
    "control": "negative control",
    "pitfall": "pitfall",
}
RESAMPLE_WORDS = {
    "seed": "seeds",
    "cells": "draws of cells",
    "donors": "draws of donors",
    "simulation": "simulations",
}
STATUS_WORDS = {"working": "working", "stale": "to be re-run", "written": "not measured yet", "planned": "planned"}
STATE_WORDS = {"fresh": "fresh", "aged": "aged", "stale": "stale", "never run": "never run"}


def docname(chapter: book.Chapter) -> str:
    """The name of a chapter's page in Sphinx."""
    return f"notebooks/{chapter.part}/{chapter.slug}"


# ---- words and numbers -------------------------------------------------------------------------------------------------
def figure(value: float | None, digits: int = 3) -> str:
    """A number as HTML, to so many significant digits: ``1,234``, ``0.871``, ``2.1 × 10⁻⁷``; a dash for None."""
    if value is None:
        return '<span class="scp-none" aria-label="none">–</span>'
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e7):
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return f"{_minus(mantissa)}&thinsp;×&thinsp;10<sup>{_minus(str(int(exponent)))}</sup>"
    if size >= 1000:
        return _minus(f"{value:,.0f}")
    return _minus(f"{value:.{digits}g}")


def spread(measured: ledger.Measured) -> str:
    """Mean, spread, and what the repeats drew anew."""
    if measured.mean is None:
        return '<span class="scp-none">not measured</span>'
    if measured.sd is None:
        return figure(measured.mean)
    what = RESAMPLE_WORDS.get(measured.resample or "", "repeats")
    return (
        f"{figure(measured.mean)} ± {figure(measured.sd, 2)}"
        f' <span class="scp-of">over {len(measured.values)} {what}</span>'
    )


def prose(text: str) -> str:
    """Words from a table as HTML: escaped, with `code` between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def minutes(seconds: float | None) -> str:
    """A duration in the unit that one would say it in."""
    if seconds is None:
        return figure(None)
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"


def memory(megabytes: float | None) -> str:
    """Megabytes or gigabytes."""
    if megabytes is None:
        return figure(None)
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def day(text: object) -> str:
    """``"2026-01-09"`` as ``9 January 2026``; anything else as it is."""
    try:
        found = date.fromisoformat(str(text)[:10])
    except ValueError:
        return escape(str(text))
    return f"{found.day} {found:%B %Y}"


def device(stamp: Mapping) -> str:
    """Where a run took place, in words, as HTML."""
    name = str(stamp.get("device") or "cpu")
    words = [str(stamp["hardware"])] if stamp.get("hardware") else ["CPU" if name == "cpu" else name]
    threads = stamp.get("threads")
    if threads and name == "cpu":
        words.append(f"{threads} thread{'s' if threads != 1 else ''}")
    return escape(", ".join(words))


def _minus(text: str) -> str:
    return text.replace("-", "−")


# ---- tables --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Column:
    """A column: its heading, whether it holds numbers, and whether readers may filter by its values."""

    heading: str
    numeric: bool = False
    filtered: bool = False

    @property
    def mark(self) -> str:
        """What tells ``scprimer.js`` to offer a filter."""
        return ' data-filter=""' if self.filtered else ""


@dataclass(frozen=True)
class Cell:
    """A cell: HTML to show, and the plain value to sort and filter by (default: the text that is shown)."""

    html: str
    value: str | float | None = None


@dataclass(frozen=True)
class Row:
    """A row with its anchor."""

    cells: Sequence[Cell]
    id: str = ""


def table(
    columns: Sequence[Column], rows: Iterable[Row], *, name: str, label: str, empty: str, sortable: bool = True
) -> str:
    """A table in its own scrolling box; on a phone each row becomes a card.

    Args:
        columns: its columns; the first names the row.
        rows: their cells in the order of the columns.
        name: its ``id``.
        label: what it is, for screen readers.
        empty: the sentence that stands there when there are no rows.
        sortable: let ``scprimer.js`` add sorting and filtering.
    """
    body = "".join(_row(columns, row) for row in rows)
    if not body:
        return f'<p class="scp-empty">{escape(empty)}</p>'
    head = "".join(f'<th scope="col"{_classes(c)}{c.mark}>{escape(c.heading)}</th>' for c in columns)
    mark = ' data-sortable=""' if sortable else ""
    return (
        f'<div class="scp-box" role="region" tabindex="0" aria-label="{escape(label)}">'
        f'<table class="scp-table" id="{escape(name)}"{mark}>'
        f'<caption class="scp-hidden">{escape(label)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(columns: Sequence[Column], row: Row) -> str:
    cells = []
    for i, (column, cell) in enumerate(zip(columns, row.cells)):
        tag = "th" if i == 0 else "td"
        scope = ' scope="row"' if i == 0 else ""
        value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
        cells.append(
            f'<{tag}{scope}{_classes(column)} data-label="{escape(column.heading)}"{value}>{cell.html}</{tag}>'
        )
    name = f' id="{escape(row.id)}"' if row.id else ""
    return f"<tr{name}>{''.join(cells)}</tr>"


def _classes(column: Column) -> str:
    return ' class="scp-number"' if column.numeric else ""


def _a(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def _chapter_link(chapter: book.Chapter, link: Link) -> str:
    name = ledger.chapter_name(chapter.slug)
    return _a(link(docname(chapter), ""), name) if chapter.exists else escape(name)


def _badge(kind: str, words: str) -> str:
    return f'<span class="scp-badge scp-{anchor(kind)}">{escape(words)}</span>'


def _bound(bound: tuple[str, float] | None) -> str:
    if bound is None:
        return figure(None)
    return f"{'≥' if bound[0] == 'at_least' else '≤'} {figure(bound[1])}"


# ---- what the pages show ----------------------------------------------------------------------------------------------------
def cost_box(cost: ledger.Cost) -> str:
    """The box under a chapter's title: minutes, memory, GPU, megabytes, last verified."""
    stamp = cost.stamp
    if not stamp:
        return (
            '<aside class="scp-cost" aria-label="What this chapter costs"><p>Not measured yet: this chapter has no recorded '
            "run, so its time and memory are unknown.</p></aside>"
        )
    number = ledger.number
    times = [
        f"<li><b>{minutes(number(cost.stamps[p].get('seconds')))}</b> {p}{_on(cost.stamps[p]) if p == 'full' else ''}</li>"
        for p in ledger.PROFILES
        if p in cost.stamps
    ]
    gpu = "used" if str(stamp.get("device", "cpu")) not in ("cpu", "None") else "not needed"
    if gpu == "not needed" and str(cost.stamps.get("full", {}).get("device") or "cpu") != "cpu":
        gpu = "only for the profile full"
    megabytes = number(stamp.get("downloaded_mb"))
    versions = "".join(
        f"<li>{escape(str(k))} {escape(str(v))}</li>" for k, v in sorted(stamp.get("versions", {}).items())
    )
    entries = [
        ("Time", f'<ul class="scp-inline">{"".join(times)}</ul>'),
        ("Peak memory", memory(number(stamp.get("peak_mb")))),
        ("GPU", gpu),
        ("Download", "nothing" if not megabytes else memory(megabytes)),
        (
            "Last verified",
            f"{day(stamp.get('date', ''))} {_badge(cost.state, STATE_WORDS.get(cost.state, cost.state))}",
        ),
    ]
    body = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in entries)
    how = f"Python {escape(str(stamp.get('python', '')))}, {device(stamp)}, seed {escape(str(stamp.get('seed', '')))}"
    if stamp.get("checkpoints"):
        how += "; stored checkpoints were used, so a first run takes longer"
    reasons = "".join(f"<p>{escape(str(r))}</p>" for r in cost.reasons)
    return (
        f'<aside class="scp-cost" aria-label="What this chapter costs"><dl>{body}</dl>'
        f"<details><summary>How this was measured</summary><p>{how}</p>{reasons}"
        f'<ul class="scp-inline">{versions}</ul></details></aside>'
    )


def _on(stamp: Mapping) -> str:
    name = stamp.get("hardware") or stamp.get("device")
    return f" on {escape(str(name))}" if name else ""


def beside_rows(slug: str, book_ledger: ledger.Ledger) -> list[ledger.ReportedRow]:
    """The figures of the literature that a chapter is to re-measure, or does."""
    return [r for r in book_ledger.reported if r.chapter.slug == slug or any(c.chapter.slug == slug for c in r.ours)]


def beside(slug: str, book_ledger: ledger.Ledger, link: Link) -> str:
    """The table "Beside the literature" of one chapter."""
    rows = beside_rows(slug, book_ledger)
    return reported_table(rows, link, name=f"beside-{anchor(slug)}", chapters=False, sortable=False)


def exempt(chapter: book.Chapter) -> str:
    """What of a chapter's anatomy does not apply to it, with the reasons that its author gives; empty when all does."""
    reasons = chapter.meta.get("not_applicable", {})
    items = "".join(
        f"<li><b>{escape(str(name))}</b>: {escape(str(reason))}</li>"
        for name, reason in reasons.items()
        if not str(name).startswith("reported:")
    )
    return (
        f'<div class="scp-exempt"><p>What this chapter leaves out, and why:</p><ul>{items}</ul></div>' if items else ""
    )


def claims_table(claims: Sequence[ledger.ClaimRow], link: Link) -> str:
    """Every claim of the book."""
    columns = [
        Column("Claim"), Column("Chapter", filtered=True), Column("Kind", filtered=True), Column("Measured", numeric=True),
        Column("Bound", numeric=True), Column("Baseline", numeric=True), Column("Control", numeric=True),
        Column("Other profiles"), Column("Run", filtered=True),
    ]  # fmt: skip
    rows = []
    for c in claims:
        there = link(docname(c.chapter), anchor(c.anchor))
        others = "; ".join(
            f"{escape(m.profile)} {spread(m)}{f' ({escape(str(m.device))})' if m.device not in (None, 'cpu') else ''}"
            for m in c.elsewhere
        )
        rows.append(
            Row(
                [
                    Cell(_a(there, c.text) + _beside_mark(c, link), c.text),
                    Cell(_chapter_link(c.chapter, link), ledger.chapter_name(c.chapter.slug)),
                    Cell(escape(KIND_WORDS.get(c.kind, c.kind)), KIND_WORDS.get(c.kind, c.kind)),
                    Cell(spread(c.measured), _sort(c.measured.mean)),
                    Cell(_bound(c.bound), _sort(c.bound[1] if c.bound else None)),
                    Cell(figure(c.measured.baseline), _sort(c.measured.baseline)),
                    Cell(figure(c.measured.control), _sort(c.measured.control)),
                    Cell(others or figure(None)),
                    Cell(_badge(c.state, STATE_WORDS.get(c.state, c.state)), c.state),
                ],
                id=anchor(c.anchor),
            )
        )
    return table(
        columns, rows, name="claims", label="Every claim of the book, with what was measured",
        empty="No chapter has recorded a claim yet.",
    )  # fmt: skip


def _beside_mark(claim: ledger.ClaimRow, link: Link) -> str:
    if not claim.reported:
        return ""
    return f' <span class="scp-of">{_a(link("book/ledger", anchor("reported-" + claim.reported)), "beside the literature")}</span>'


def reported_table(
    rows: Sequence[ledger.ReportedRow],
    link: Link,
    *,
    name: str = "literature",
    chapters: bool = True,
    sortable: bool = True,
) -> str:
    """Figures of the literature with ours beside them. No verdict: where settings differ, the remark says how."""
    columns = [Column("What was reported")]
    if chapters:
        columns.append(Column("Chapter", filtered=True))
    columns += [
        Column("Metric"), Column("Reported", numeric=True), Column("Ours", numeric=True),
        Column("Comparability", filtered=True), Column("Remark"),
    ]  # fmt: skip
    out = []
    for r in rows:
        what = f'{escape(r.row["setting"])} <span class="scp-of">{escape(r.row["method"])}; {escape(r.row["where"])}</span>'
        note = f' <span class="scp-of">{escape(r.row["compare"])}</span>' if r.row.get("compare") else ""
        cells = [Cell(what, r.row["setting"])]
        if chapters:
            cells.append(Cell(_chapter_link(r.chapter, link), ledger.chapter_name(r.chapter.slug)))
        words = ledger.COMPARABILITY[r.comparability]
        remark = r.waived or r.remark
        cells += [
            Cell(escape(r.row["metric"])),
            Cell(_reported_value(r.row["reported"]) + note, r.row["reported"]),
            Cell(_ours(r, link), _sort(r.ours[0].measured.mean if r.ours else None)),
            Cell(_badge(r.comparability or "open", words), words),
            Cell(prose(str(remark)) if remark else figure(None)),
        ]
        # The row has its anchor in the ledger alone: an id stands once in a page, and links point there.
        out.append(Row(cells, id=anchor("reported-" + r.row["id"]) if chapters else ""))
    return table(
        columns, out, name=name, label="Figures of the literature, with ours beside them", sortable=sortable,
        empty="The literature reports no figure for this.",
    )  # fmt: skip


def _ours(row: ledger.ReportedRow, link: Link) -> str:
    if row.ours:
        return "<br>".join(
            f'<a href="{escape(link(docname(c.chapter), anchor(c.anchor)))}" title="{escape(c.text)}">{spread(c.measured)}</a>'
            for c in row.ours
        )
    if row.waived or row.comparability == "cannot":
        return '<span class="scp-none">not measured</span>'
    words = "not measured yet" if row.chapter.exists else "chapter planned"
    return f'<span class="scp-none">{words}</span>'


def _reported_value(text: str) -> str:
    try:
        return figure(float(text))
    except ValueError:
        return escape(text)


def _sort(value: float | None) -> str | float:
    return "" if value is None else value


def path(chapters: Sequence[book.Chapter], link: Link) -> str:
    """A way through the book: chapters in an order, those that are written as links."""
    steps = "".join(
        f'<li class="{"scp-written" if c.exists else "scp-planned"}">{_chapter_link(c, link)}</li>' for c in chapters
    )
    return f'<ol class="scp-path">{steps}</ol>'


def methods_table(methods: Sequence[ledger.MethodRow], link: Link) -> str:
    """Every method that the book walks through, with its honest status."""
    columns = [
        Column("Method"), Column("Family", filtered=True), Column("Chapter", filtered=True), Column("How it is built"),
        Column("Status", filtered=True), Column("Must show, and measured"),
    ]  # fmt: skip
    rows = []
    for m in methods:
        found = "".join(
            f'<li><a href="{escape(link("book/ledger", anchor(c.anchor)))}">{escape(c.text)}</a>: {spread(c.measured)}</li>'
            for c in m.claims
        )
        show = f"<p>{prose(m.row['show'])}</p>" + (f"<ul>{found}</ul>" if found else "")
        rows.append(
            Row(
                [
                    Cell(escape(m.row["method"])),
                    Cell(escape(m.row["family"])),
                    Cell(_chapter_link(m.chapter, link), ledger.chapter_name(m.chapter.slug)),
                    Cell(prose(m.row["how"])),
                    Cell(_badge(m.status, STATUS_WORDS[m.status]), STATUS_WORDS[m.status]),
                    Cell(show),
                ],
                id=anchor("method-" + m.row["id"]),
            )
        )
    counts = {s: sum(m.status == s for m in methods) for s in STATUS_WORDS}
    tally = ", ".join(f"{n} {STATUS_WORDS[s]}" for s, n in counts.items() if n)
    return f'<p class="scp-tally">{len(methods)} methods: {escape(tally)}.</p>' + table(
        columns, rows, name="methods", label="Every method of the book", empty="The book names no method yet."
    )


def failures(pitfalls: Sequence[ledger.Pitfall], link: Link) -> str:
    """The failure gallery: one card a pitfall."""
    if not pitfalls:
        return '<p class="scp-empty">No chapter has broken anything on purpose yet.</p>'
    cards = []
    for p in pitfalls:
        there = link(docname(p.chapter), anchor(p.anchor))
        lines = "".join(
            f"<div><dt>{name}</dt><dd>{escape(words)}</dd></div>"
            for name, words in (("Symptom", p.symptom), ("How to notice", p.notice), ("How to mend", p.mend))
            if words
        )
        cards.append(
            f'<article class="scp-pitfall" id="{escape(anchor(p.anchor))}"><h3>{_a(there, p.title)}</h3><dl>{lines}</dl>'
            f'<p class="scp-of">See it happen in {_a(there, ledger.chapter_name(p.chapter.slug))}.</p></article>'
        )
    return f'<div class="scp-gallery">{"".join(cards)}</div>'


def status_table(costs: Sequence[ledger.Cost], link: Link) -> str:
    """Time, memory and freshness of every written chapter, and where it was run."""
    columns = [
        Column("Chapter"), Column("State", filtered=True), Column("Verified on"), Column("standard", numeric=True),
        Column("smoke", numeric=True), Column("full", numeric=True), Column("Peak memory", numeric=True),
        Column("Download", numeric=True), Column("Hardware"), Column("Versions"),
    ]  # fmt: skip
    rows = []
    for cost in costs:
        stamp, number = cost.stamp, ledger.number
        seconds = {p: number(cost.stamps.get(p, {}).get("seconds")) for p in ("standard", "smoke", "full")}
        peak, mb = number(stamp.get("peak_mb")), number(stamp.get("downloaded_mb"))
        reasons = "; ".join(str(r) for r in cost.reasons)
        versions = ", ".join(f"{k} {v}" for k, v in sorted(stamp.get("versions", {}).items()))
        python = f"Python {stamp['python']}" if stamp.get("python") else ""
        rows.append(
            Row(
                [
                    Cell(_chapter_link(cost.chapter, link)),
                    Cell(
                        _badge(cost.state, STATE_WORDS.get(cost.state, cost.state))
                        + (f' <span class="scp-of">{escape(reasons)}</span>' if reasons else ""),
                        cost.state,
                    ),
                    Cell(day(stamp["date"]) if stamp.get("date") else figure(None), str(stamp.get("date", ""))),
                    *(Cell(minutes(seconds[p]), _sort(seconds[p])) for p in ("standard", "smoke", "full")),
                    Cell(memory(peak), _sort(peak)),
                    Cell(memory(mb), _sort(mb)),
                    Cell(device(stamp) if stamp else figure(None)),
                    Cell(
                        f"<details><summary>{escape(python) or 'versions'}</summary>{escape(versions)}</details>"
                        if stamp
                        else figure(None)
                    ),
                ]
            )
        )
    total = sum(ledger.number(c.stamp.get("seconds")) or 0 for c in costs)
    tally = (
        f'<p class="scp-tally">All written chapters together: {minutes(total)} at the size of this edition.</p>'
        if total
        else ""
    )
    return tally + table(
        columns,
        rows,
        name="status",
        label="Time, memory and freshness of every chapter",
        empty="No chapter is written yet.",
    )
