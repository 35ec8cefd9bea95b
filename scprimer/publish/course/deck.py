"""Slides of a chapter, from its cells: one HTML file that needs no network and no other file.

What becomes a slide follows from the tags that every chapter has: the headings of its sections with the gist of their
prose, its figures, the first code cell after a text of *Build it*, the failure that it shows, its claims, exercises and
take-aways. The whole prose of a slide is in its notes. A cell tagged ``slide`` is shown in any case, one tagged
``no-slide`` never.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from scprimer.publish import book, ledger, selfcheck, status
from scprimer.publish.course import markdown, prose
from scprimer.publish.course.session import POINTS, Session
from scprimer.publish.sphinxext import stills, words

HERE = Path(__file__).parent
SHOWN, LEFT_OUT = "slide", "no-slide"
LONGEST_TASK = 1100  # characters of an exercise's task that fit on its slide
CODE_LINES = 20  # longer cells are read in the notebook, not on a wall
CLAIMS = 6  # on one slide
CAPACITY = 13.0  # lines of text that fill a slide
LETTERS = 78  # in a line
FEW = 2.5  # lines that fit above a figure

# Sections whose prose makes slides; the claims, the exercises and the take-aways have slides of their own.
SECTIONS = ("objectives", "data", "idea", "build", "run", "look", "check", "compare", "break")
SECTION_WORDS = {
    "objectives": "What you will learn", "data": "The data", "idea": "The idea", "build": "Build it", "run": "Run it",
    "look": "Look", "check": "Check it", "compare": "Compare", "break": "Break it", "claims": "What was measured",
    "exercises": "Exercises", "takeaways": "Take-aways",
}  # fmt: skip

_LIST = re.compile(r"(?:[-*+]|\d+\.) ")
# How tasks begin: a heading, or **1. Title.** (level).
_HEAD = re.compile(r"\A\s*(?:#+ [^\n]*\n|\*\*\d+\. [^*]+\*\*\s*(?:\(\w+\)\s*)?)")


@dataclass(frozen=True)
class Slide:
    """One slide: its heading as markdown, its content as HTML, the words above its heading, its kind, and its notes.

    ``lines`` says about how full a slide of text is.
    """

    title: str
    body: str
    above: str = ""
    kind: str = "text"
    notes: str = ""
    lines: float = 0.0


def page(session: Session, sources: prose.Sources) -> str:
    """The slides of one session as one HTML page."""
    chapter = session.chapter
    every = list(slides(session, sources))
    body = "\n".join(_section(slide, n, len(every)) for n, slide in enumerate(every, 1))
    style = (HERE / "deck.css").read_text(encoding="utf-8")
    script = (HERE / "deck.js").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(chapter.title)}: slides</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<nav aria-label="Slides">
<button type="button" data-go="-1" aria-label="Previous slide">←</button>
<output aria-live="polite">1 of {len(every)}</output>
<button type="button" data-go="1" aria-label="Next slide">→</button>
<small>← → turn · Home, End · N notes · F full screen · print for a PDF</small>
</nav>
<script>
{script}</script>
</body>
</html>
"""


def slides(session: Session, sources: prose.Sources) -> Iterator[Slide]:
    """The slides of a session in order."""
    chapter = session.chapter
    glued = prose.glued(chapter.notebook)

    def plain(text: str) -> str:
        return prose.linked(prose.plain(text, glued, sources), {})

    yield _cover(session, plain(status.promise(chapter)))
    yield from _together(_chapter(chapter.notebook, plain))
    yield from _claims(chapter)
    for number, e in enumerate(session.exercises, 1):
        points = f"{POINTS[e.level]} point{'s' if POINTS[e.level] > 1 else ''}"
        task = _fitting(_HEAD.sub("", plain(e.task)))  # the title stands above it
        yield Slide(e.title, markdown.html(task), f"Exercise {number} · {e.level} · {points}", "exercise")
    yield from _takeaways(chapter.notebook, plain)


def _fitting(task: str) -> str:
    """The part of a task that a slide has room for: no hint, and whole paragraphs; the notebook has the rest."""
    task = task.split("<details>")[0].strip()
    shown, *rest = task.split("\n\n")
    while rest and len(shown) + len(rest[0]) < LONGEST_TASK:
        shown += f"\n\n{rest.pop(0)}"
    return f"{shown}\n\n*The notebook says more.*" if rest else shown


def _cover(session: Session, promise: str) -> Slide:
    chapter = session.chapter
    stamp = session.stamps.get("standard", {})
    cost = [
        f"{words.minutes(s)} at <i>{p}</i>" for p in ledger.PROFILES if (s := session.stamps.get(p, {}).get("seconds"))
    ]
    cost += [f"{words.memory(stamp['peak_mb'])} of memory"] if "peak_mb" in stamp else []
    when = f"Session {session.number}" + (f" · {words.day(session.day.isoformat())}" if session.day else "")
    costs = f'<p class="cost">To run it: {", ".join(cost)}.</p>' if cost else ""
    return Slide(chapter.title, markdown.html(promise) + costs, when, "cover")


def _chapter(notebook: dict, plain) -> Iterator[Slide]:
    """Slides of the sections up to the claims."""
    section, title, first_code = "", "", False
    for cell in notebook["cells"]:
        tags = book.tags(cell)
        section = next((t for t in tags if t in book.ANATOMY), section)
        if (
            LEFT_OUT in tags
            or (section not in SECTIONS and SHOWN not in tags)
            or any(t.startswith("exercise") for t in tags)
        ):
            continue
        above = SECTION_WORDS.get(section, "")
        if selfcheck.TAG in tags and (parts := selfcheck.split(plain(book.source(cell)))):
            yield Slide("Check yourself", markdown.html(parts[0]), above, "exercise", markdown.html(parts[1]))
            continue
        if cell["cell_type"] == "markdown":
            for heading, text in _blocks(plain(book.source(cell))):
                title = heading or title
                yield from _texts(title, text, "" if title == above else above)
            yield from _pitfall(cell, above)
            first_code = section == "build"
            continue
        yield from _figures(cell, notebook, title, above, plain)
        source = shown_code(book.source(cell))
        if SHOWN in tags or (first_code and len(source.splitlines()) <= CODE_LINES):
            yield Slide(title, markdown.code(source), above, "code", lines=0.7 * len(source.splitlines()) + 1)
        first_code = False


def _together(slides: Iterator[Slide]) -> Iterator[Slide]:
    """A few lines of text share a slide with the figure or the code that follows them."""
    before: Slide | None = None
    for slide in slides:
        few = before is not None and before.kind == "text" and before.title == slide.title
        if (
            few
            and before.lines <= (FEW if slide.kind == "figure" else CAPACITY - slide.lines)
            and slide.kind in ("figure", "code")
        ):
            body = f"<div>{before.body}</div>{slide.body}"
            before = dataclasses.replace(slide, body=body, notes=before.notes, above=before.above or slide.above)
            continue
        if before is not None:
            yield before
        before = slide
    if before is not None:
        yield before


def shown_code(source: str) -> str:
    """Code for a wall: of each docstring the first line, and no remarks to linters."""
    lines, drop = source.splitlines(), set()
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # a cell with IPython's magic
        return source
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            text = node.body[0]
            if text.end_lineno > text.lineno:
                first = lines[text.lineno - 1]
                lines[text.lineno - 1] = first + ('"""' if '"""' in first else "'''")
                drop |= set(range(text.lineno, text.end_lineno))
    kept = [line for n, line in enumerate(lines) if n not in drop]
    return "\n".join(re.sub(r"\s*# (?:noqa|fmt:).*$", "", line) for line in kept)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """``(heading, text below it)`` of a markdown cell; the first heading may be empty."""
    heading, lines, fenced = "", [], False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        found = None if fenced else re.match(r"#{1,4} +(.*)", line)
        if found:
            if "\n".join(lines).strip():
                yield heading, "\n".join(lines).strip()
            heading, lines = found[1].strip(), []
        else:
            lines.append(line)
    yield heading, "\n".join(lines).strip()


def _texts(title: str, text: str, above: str) -> Iterator[Slide]:
    """One slide of a text, or more where its formulas, lists and tables need them; the whole text is in the first one's notes."""
    notes = markdown.html(text) if text else ""
    for body in filter(None, flow(text)):
        yield Slide(title, markdown.html(body), above, "text", notes, lines(body))
        notes = ""


def flow(text: str) -> list[str]:
    """The text as slides show it, one string a slide.

    Of each paragraph as many first sentences as fit on one slide (three at most); formulas, tables and code whole. What is
    too much with one sentence a paragraph goes on to further slides.
    """
    blocks = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    for number in (3, 2, 1):
        parts = [part for block in blocks for part in _shortened(block, number)]
        if sum(map(lines, parts)) <= CAPACITY:
            return ["\n\n".join(parts)]
    total = sum(map(lines, parts))
    share = total / math.ceil(total / CAPACITY)  # no slide with one line that was left over
    slides, used = [[]], 0.0
    for part in _with_lead_ins(parts):
        if slides[-1] and (used + lines(part) / 2 > share or used + lines(part) > CAPACITY):
            slides.append([])
            used = 0.0
        slides[-1].append(part)
        used += lines(part)
    return ["\n\n".join(slide) for slide in slides]


def _with_lead_ins(parts: list[str]) -> list[str]:
    """Words that lead to what follows them ("At the end you can") stay on its slide."""
    joined: list[str] = []
    for part in parts:
        if joined and re.search(r"[\w:,]\Z", joined[-1]) and not _LIST.match(joined[-1]):
            joined[-1] += f"\n\n{part}"
        else:
            joined.append(part)
    return joined


def lines(block: str) -> float:
    """About how many lines of a slide a block of markdown takes (or several, with blank lines between them)."""
    if "\n\n" in block and not block.startswith("```"):
        return sum(map(lines, block.split("\n\n")))
    if block.startswith("$$"):
        return 1.0 + 1.4 * (block.count(r"\\") + 1)
    rows = block.splitlines()
    if block.startswith("|"):
        return sum(1.1 * math.ceil(len(row) / (1.7 * LETTERS)) for row in rows)
    if block.startswith("```"):
        return 0.65 * len(rows)
    return sum(math.ceil(len(row) / LETTERS) for row in rows) + 0.5


def _shortened(block: str, number: int) -> list[str]:
    if re.match(r"\||```|~~~|>|!\[", block):
        return [block]
    if _LIST.match(block):
        items = [item for item in re.split(r"(?m)^(?=(?:[-*+]|\d+\.) )", block) if item.strip()]
        marked = [re.match(r"((?:[-*+]|\d+\.) )(.*)", item, re.DOTALL).groups() for item in items]
        return ["\n".join(mark + prose.gist(content, min(number, 2)) for mark, content in marked)]
    pieces = [piece.strip() for piece in re.split(r"(\$\$.*?\$\$)", block, flags=re.DOTALL)]
    # The words after a formula explain its letters: they are in the notes.
    return [
        piece if piece.startswith("$$") else prose.gist(piece, number) for piece in (pieces[:1] + pieces[1::2]) if piece
    ]


def _figures(cell: dict, notebook: dict, title: str, above: str, plain) -> Iterator[Slide]:
    about = cell["metadata"].get("mystnb", {})
    caption = plain(str(about.get("figure", {}).get("caption", "")))
    alt = str(about.get("image", {}).get("alt", ""))
    for output in stills.outputs(cell.get("outputs", []), notebook["metadata"]):
        picture = _picture(output.get("data", {}), alt)
        if picture:
            below = f"<figcaption>{markdown.inline(caption)}</figcaption>" if caption else ""
            yield Slide(title, f"<figure>{picture}{below}</figure>", above, "figure")


def _picture(data: dict, alt: str) -> str:
    if "image/png" in data:
        png = "".join(data["image/png"]).replace("\n", "")
        return f'<img alt="{escape(alt)}" src="data:image/png;base64,{escape(png)}">'
    return ""


def _pitfall(cell: dict, above: str) -> Iterator[Slide]:
    found = cell["metadata"].get("scprimer", {}).get("pitfall")
    if found:
        rows = (("Symptom", "symptom"), ("How to notice", "notice"), ("How to mend", "mend"))
        body = "".join(
            f"<dt>{name}</dt><dd>{words.prose(str(found.get(key, '')))}</dd>" for name, key in rows if found.get(key)
        )
        yield Slide(str(found.get("title", "")), f"<dl>{body}</dl>", above, "pitfall")


def _claims(chapter: book.Chapter) -> Iterator[Slide]:
    """What the recorded run measured, as its metadata say: claims of kind result first."""
    every = [c for c in chapter.meta.get("claims", []) if c.get("values")]
    every.sort(key=lambda c: c.get("kind") != "result")
    for first in range(0, len(every), CLAIMS):
        rows = "".join(_claim_row(c) for c in every[first : first + CLAIMS])
        head = "<tr><th>Claim</th><th>Measured</th><th>Baseline</th><th>Control</th></tr>"
        yield Slide(
            "What was measured", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>", "Claims", "claims"
        )


def _claim_row(claim: dict) -> str:
    values = tuple(v for v in map(ledger.number, claim["values"]) if v is not None)
    measured = ledger.Measured("standard", values, claim.get("resample"))
    beside = "".join(f"<td>{words.figure(ledger.number(claim.get(key)))}</td>" for key in ("baseline", "control"))
    return f"<tr><td>{escape(str(claim.get('text', '')))}</td><td>{words.spread(measured)}</td>{beside}</tr>"


def _takeaways(notebook: dict, plain) -> Iterator[Slide]:
    section = ""
    for cell in notebook["cells"]:
        section = next((t for t in book.tags(cell) if t in book.ANATOMY), section)
        if section == "takeaways" and cell["cell_type"] == "markdown" and LEFT_OUT not in book.tags(cell):
            for heading, text in _blocks(plain(book.source(cell))):
                yield from _texts(heading or SECTION_WORDS["takeaways"], text, "")


def _section(slide: Slide, number: int, total: int) -> str:
    level = "h1" if slide.kind == "cover" else "h2"
    above = f'<p class="above">{escape(slide.above)}</p>' if slide.above and slide.above != slide.title else ""
    title = f"<{level}>{markdown.inline(slide.title)}</{level}>" if slide.title else ""
    notes = f"<details><summary>Notes</summary>{slide.notes}</details>" if slide.notes else ""
    return (
        f'<section class="{slide.kind}" id="s{number}" aria-label="Slide {number} of {total}">'
        f'<div class="fit"><header>{above}{title}</header><div class="body">{slide.body}</div></div>{notes}</section>'
    )
