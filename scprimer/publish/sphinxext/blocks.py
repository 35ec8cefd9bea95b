"""The book's generated blocks as HTML: cost boxes, tables, cards. Pure functions from rows to text.

Everything that comes from a notebook or a table is escaped here and nowhere else: functions take plain text and return
HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from scprimer.publish import benchmarks, book, ledger
from scprimer.publish.sphinxext.table import Cell, Column, Row, table
from scprimer.publish.sphinxext.view import anchor
from scprimer.publish.sphinxext.words import day, device, figure, memory, minutes, prose, spread

# Gives the address of an anchor in a page: link("book/ledger", "claim-qc-kept").
Link = Callable[[str, str], str]

KIND_WORDS = {
    "result": "result",
    "reference": "reference check",
    "baseline": "baseline",
    "control": "negative control",
    "pitfall": "pitfall",
}
STATUS_WORDS = {"working": "working", "stale": "to be re-run", "written": "not measured yet", "planned": "planned"}


def docname(chapter: book.Chapter) -> str:
    """The name of a chapter's page in Sphinx."""
    return f"notebooks/{chapter.part}/{chapter.slug}"


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
        f"<li><b>{minutes(number(cost.stamps[p].get('seconds')))}</b> {p}{_on(cost.stamps[p]) if p == 'full' else ''}"
        f"{', processor time' if cost.stamps[p].get('clock') == 'processor' else ''}</li>"
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
            f"{day(stamp.get('date', ''))} {_badge(cost.state, cost.state)}",
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
        Column("Other profiles"), Column("State", filtered=True),
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
                    Cell(_a(there, c.text) + _own_link(anchor(c.anchor), "claim") + _beside_mark(c, link), c.text),
                    Cell(_chapter_link(c.chapter, link), ledger.chapter_name(c.chapter.slug)),
                    Cell(escape(KIND_WORDS.get(c.kind, c.kind)), KIND_WORDS.get(c.kind, c.kind)),
                    Cell(spread(c.measured), _sort(c.measured.mean)),
                    Cell(_bound(c.bound), _sort(c.bound[1] if c.bound else None)),
                    Cell(figure(c.measured.baseline), _sort(c.measured.baseline)),
                    Cell(figure(c.measured.control), _sort(c.measured.control)),
                    Cell(others or figure(None)),
                    Cell(_badge(c.state, c.state), c.state),
                ],
                id=anchor(c.anchor),
            )
        )
    return table(
        columns, rows, name="claims", label="Every claim of the book, with what was measured",
        empty="No chapter has recorded a claim yet.",
    )  # fmt: skip


def _own_link(name: str, what: str) -> str:
    """The address of a row, to be shared; the style sheet shows it on the row that one rests on."""
    return f'<a class="scp-own" href="#{escape(name)}" aria-label="Link to this {what}">#</a>'


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
    columns = [
        Column("What was reported"), *([Column("Chapter", filtered=True)] if chapters else []),
        Column("Reported", numeric=True), Column("Ours", numeric=True), Column("How they compare", filtered=True),
    ]  # fmt: skip
    out = []
    for r in rows:
        what = (
            f'{escape(r.row["setting"])}<span class="scp-of">{escape(r.row["metric"])}; {escape(r.row["where"])}</span>'
        )
        note = f' <span class="scp-of">{escape(r.row["compare"])}</span>' if r.row.get("compare") else ""
        words = ledger.COMPARABILITY[r.comparability]
        remark = f" {prose(str(r.waived or r.remark))}" if r.waived or r.remark else ""
        own = _own_link(anchor("reported-" + r.row["id"]), "figure") if chapters else ""
        cells = [Cell(what + own, r.row["setting"])]
        if chapters:
            cells.append(Cell(_chapter_link(r.chapter, link), ledger.chapter_name(r.chapter.slug)))
        cells += [
            Cell(_reported_value(r.row["reported"]) + note, r.row["reported"]),
            Cell(_ours(r, link), _sort(r.ours[0].measured.mean if r.ours else None)),
            Cell(_badge(r.comparability or "open", words) + remark, words),
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
            f"<div><dt>{name}</dt><dd>{prose(words)}</dd></div>"
            for name, words in (("Symptom", p.symptom), ("How to notice", p.notice), ("How to mend", p.mend))
            if words
        )
        cards.append(
            f'<article class="scp-pitfall" id="{escape(anchor(p.anchor))}"><h2>{_a(there, p.title)}</h2><dl>{lines}</dl>'
            f'<p class="scp-of">See it happen in {_a(there, ledger.chapter_name(p.chapter.slug))}.</p></article>'
        )
    return f'<div class="scp-gallery">{"".join(cards)}</div>'


def status_table(costs: Sequence[ledger.Cost], link: Link) -> str:
    """Time, memory and freshness of every written chapter, and where it was run."""
    columns = [
        Column("Chapter"), Column("State", filtered=True), Column("Verified on"), Column("Time, standard", numeric=True),
        Column("Time, smoke", numeric=True), Column("Time, full", numeric=True), Column("Peak memory", numeric=True),
        Column("Download", numeric=True), Column("Hardware and versions"),
    ]  # fmt: skip
    rows = []
    for cost in costs:
        stamp, number = cost.stamp, ledger.number
        seconds = {p: number(cost.stamps.get(p, {}).get("seconds")) for p in ("standard", "smoke", "full")}
        peak, mb = number(stamp.get("peak_mb")), number(stamp.get("downloaded_mb"))
        reasons = "; ".join(str(r) for r in cost.reasons)
        rows.append(
            Row(
                [
                    Cell(_chapter_link(cost.chapter, link)),
                    Cell(
                        _badge(cost.state, cost.state)
                        + (f' <span class="scp-of">{escape(reasons)}</span>' if reasons else ""),
                        cost.state,
                    ),
                    Cell(day(stamp["date"]) if stamp.get("date") else figure(None), str(stamp.get("date", ""))),
                    *(Cell(minutes(seconds[p]), _sort(seconds[p])) for p in ("standard", "smoke", "full")),
                    Cell(memory(peak), _sort(peak)),
                    Cell(memory(mb), _sort(mb)),
                    Cell(_surroundings(stamp) if stamp else figure(None)),
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


def _surroundings(stamp: Mapping) -> str:
    python = escape(f"Python {stamp.get('python', '')}")
    versions = escape(", ".join(f"{k} {v}" for k, v in sorted(stamp.get("versions", {}).items())))
    return f"{device(stamp)}<details><summary>{python}</summary>{versions}</details>"


def benchmark(name: str, found: Mapping) -> str:
    """The tables of one benchmark, one a machine, and what has not been measured."""
    columns, parts = found["columns"], []
    headings = [Column(heading, numeric=kind != "text") for heading, kind in columns.values()]
    for i, run in enumerate(found["runs"]):
        rows = [
            Row([Cell(escape(benchmarks.shown(row, key, kind)), _sort(row[key])) for key, (_, kind) in columns.items()])
            for row in run["rows"]
        ]
        label = f"{name} on {run['hardware']}"
        made = table(headings, rows, name=f"benchmark-{anchor(name)}-{i}", label=label, empty="No row was measured.")
        parts.append(f'{made}<p class="scp-of">{escape(benchmarks.caption(run))}</p>')
    parts += [f'<p class="scp-empty">{escape(words)}</p>' for words in benchmarks.missing(name, found["runs"])]
    return "".join(parts)
