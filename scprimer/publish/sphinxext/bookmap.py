"""The picture of the whole book: its parts as lines, chapters as stations, methods as dots.

Drawn twice as SVG, wide for a desk and narrow for a phone; the style sheet shows the one that fits. Colours come from the
style sheet too, so that the map follows the light and the dark theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from scprimer.publish import book, ledger
from scprimer.publish.sphinxext.blocks import STATUS_WORDS, Link, docname

_DOT = 8.5  # distance of two dots
_RADIUS = 2.9


def bookmap(book_ledger: ledger.Ledger, chapters: Sequence[book.Chapter], link: Link) -> str:
    """The map as HTML.

    Args:
        book_ledger: gives each method's status.
        chapters: every chapter, written and planned, in reading order.
        link: gives the address of a page.
    """
    methods: dict[str, list[ledger.MethodRow]] = {c.slug: [] for c in chapters}
    for method in book_ledger.methods:
        methods[method.chapter.slug].append(method)
    parts: dict[str, list[book.Chapter]] = {}
    for chapter in chapters:
        parts.setdefault(chapter.part, []).append(chapter)
    written = sum(c.exists for c in chapters)
    working = sum(m.status == "working" for m in book_ledger.methods)
    words = f"{written} of {len(chapters)} chapters are written, and {working} of {len(book_ledger.methods)} methods are working."
    legend = (
        '<p class="scp-legend"><span><i class="scp-key scp-key-written"></i>chapter you can read now</span>'
        '<span><i class="scp-key scp-key-planned"></i>chapter planned</span>'
        '<span><i class="scp-key scp-key-working"></i>method working</span>'
        '<span><i class="scp-key scp-key-method"></i>method planned</span></p>'
    )
    return (
        f'<figure class="scp-map">{_wide(parts, methods, link)}{_narrow(parts, methods, link)}'
        f"<figcaption>{escape(words)}</figcaption>{legend}</figure>"
    )


def _wide(parts: dict[str, list[book.Chapter]], methods: dict[str, list[ledger.MethodRow]], link: Link) -> str:
    left, step, lane, top = 172, 90, 82, 34
    width = left + step * 7
    pieces = []
    for row, (part, chapters) in enumerate(parts.items()):
        y = top + row * lane
        end = left + step * (len(chapters) - 1) + step / 2
        pieces.append(f'<g class="scp-part scp-part-{row}">')
        pieces.append(f'<path class="scp-line" d="M{left - 24} {y}H{end + 8:.0f}"/>')
        for n, line in enumerate(_wrap(ledger.PART_TITLES[part], 20)):
            pieces.append(f'<text class="scp-title" x="0" y="{y - 2 + 16 * n}">{escape(line)}</text>')
        for column, chapter in enumerate(chapters):
            pieces.append(_station(chapter, methods[chapter.slug], left + step * column + step / 2, y, link))
        pieces.append("</g>")
    height = top + lane * len(parts) - 8
    return f'<svg class="scp-wide" viewBox="0 0 {width} {height}" role="group" aria-label="Map of the book">{"".join(pieces)}</svg>'


def _station(chapter: book.Chapter, methods: list[ledger.MethodRow], x: float, y: float, link: Link) -> str:
    lines = _wrap(ledger.chapter_name(chapter.slug), 12)
    label = "".join(f'<text x="{x:.0f}" y="{y + 23 + 13 * n:.0f}" text-anchor="middle">{escape(t)}</text>' for n, t in enumerate(lines))  # fmt: skip
    dots = _dots(methods, x - _DOT * (min(len(methods), 8) - 1) / 2, y - 15, per_row=8, up=True)
    return _linked(chapter, f"{_stop(x, y)}{label}{dots}", link)


def _narrow(parts: dict[str, list[book.Chapter]], methods: dict[str, list[ledger.MethodRow]], link: Link) -> str:
    width, row_height, y = 350, 30, 22
    pieces = []
    for row, (part, chapters) in enumerate(parts.items()):
        first, last = y + 32, y + 32 + row_height * (len(chapters) - 1)
        pieces.append(f'<g class="scp-part scp-part-{row}">')
        pieces.append(f'<text class="scp-title" x="2" y="{y}">{escape(ledger.PART_TITLES[part])}</text>')
        pieces.append(f'<path class="scp-line" d="M11 {first}V{last}"/>')
        for n, chapter in enumerate(chapters):
            at = first + row_height * n
            label = f'<text x="30" y="{at + 5}">{escape(ledger.chapter_name(chapter.slug))}</text>'
            found = methods[chapter.slug]
            dots = _dots(found, width - 4 - _DOT * (len(found) - 1), at, per_row=99, up=False)
            pieces.append(_linked(chapter, f"{_stop(11, at)}{label}{dots}", link))
        pieces.append("</g>")
        y = last + 46
    return f'<svg class="scp-narrow" viewBox="0 0 {width} {y - 30}" role="group" aria-label="Map of the book">{"".join(pieces)}</svg>'


def _stop(x: float, y: float) -> str:
    return f'<circle class="scp-stop" cx="{x:.0f}" cy="{y:.0f}" r="7"/>'


def _dots(methods: list[ledger.MethodRow], x: float, y: float, *, per_row: int, up: bool) -> str:
    """One dot a method, with its name and status for whoever rests on it."""
    dots = []
    for i, method in enumerate(methods):
        row, column = divmod(i, per_row)
        at = y - _DOT * row if up else y
        words = f"{method.row['method']}: {STATUS_WORDS[method.status]}"
        dots.append(
            f'<circle class="scp-dot scp-{method.status}" cx="{x + _DOT * column:.1f}" cy="{at:.1f}" r="{_RADIUS}">'
            f"<title>{escape(words)}</title></circle>\n"
        )
    return "".join(dots)


def _linked(chapter: book.Chapter, drawing: str, link: Link) -> str:
    if chapter.exists:
        # Its name is what it shows, the chapter and the methods behind the dots: voice controls and screen readers read the same.
        return f'<a class="scp-chapter scp-written" href="{escape(link(docname(chapter), ""))}">{drawing}</a>'
    return f'<g class="scp-chapter scp-planned">{drawing}</g>'


def _wrap(words: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, broken at spaces and after hyphens."""
    lines = [""]
    for piece in words.replace("-", "-\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]
