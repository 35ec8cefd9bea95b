"""A search that knows the methods by their other names.

Sphinx finds a page by the words that stand in it, and ranks all of these pages alike. The book adds the names under which
readers know a subject (``book/names.csv``, and the methods of ``book/methods.csv``): as keywords, so that the page is found,
and in the scoring, so that it stands before pages that only mention the word.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from scprimer.publish import book
from scprimer.publish.sphinxext.blocks import docname

_SEPARATORS = re.compile(r"[()/;,:+]| and | or |'s idea")
# Sphinx puts this before its own script, which then leaves its stock scorer alone; the numbers below `score` are its own.
_SCORER = """\
const scprimerNames = NAMES;
const scprimerAsked = ` ${(new URLSearchParams(location.search).get("q") || "").toLowerCase().replace(/[^a-z0-9]+/g, " ").trim()} `;
const scprimerMeant = new Set(Object.entries(scprimerNames).filter(([name]) => scprimerAsked.includes(` ${name} `)).flatMap(([, pages]) => pages));
var Scorer = {
  score: ([page, , anchor, , score]) => score + (scprimerMeant.has(page) && !anchor ? 60 : 0),
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
"""


def names(top: Path) -> dict[str, list[str]]:
    """The names under which each written page is also known, as words between single blanks: page -> names.

    Raises:
        BookError: ``book/names.csv`` names a page that the book neither has nor plans.
    """
    written = {c.slug: docname(c) for c in book.chapters(top)}
    found: dict[str, set[str]] = {}
    for row in book.table("methods", top):
        if row["chapter"] in written:
            found.setdefault(written[row["chapter"]], set()).update(_SEPARATORS.split(row["method"]))
    for row in read(top):
        page = row["page"] if row["page"].startswith("book/") else written.get(row["page"])
        if page:
            found.setdefault(page, set()).update(row["names"].split(";"))
    return {page: sorted({_plain(name) for name in given} - {""}) for page, given in found.items()}


def read(top: Path) -> list[dict[str, str]]:
    """Rows of ``book/names.csv``: ``page`` (a chapter's slug, or ``book/NAME``) and ``names`` with semicolons between them.

    Raises:
        BookError: it names a page that the book neither has nor plans.
    """
    rows = book.table("names", top)
    known = {c.slug for c in book.chapters(top, planned=True)}
    for row in rows:
        page = row["page"]
        if page not in known and not (page.startswith("book/") and (top / f"{page}.md").is_file()):
            raise book.BookError(f"book/names.csv: {page!r} is neither a chapter nor a page of book/ (book/NAME)")
    return rows


def _plain(name: str) -> str:
    """A name as the scorer compares it: small letters and digits, single blanks."""
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def prepare(app: Sphinx) -> None:
    """Read the names, and hand Sphinx the scorer that holds them."""
    app.scprimer_names = names(Path(app.srcdir))
    by_name: dict[str, list[str]] = {}
    for page, given in app.scprimer_names.items():
        for name in given:
            by_name.setdefault(name, []).append(page)
    scorer = Path(app.doctreedir) / "scorer.js"
    scorer.parent.mkdir(parents=True, exist_ok=True)
    scorer.write_text(_SCORER.replace("NAMES", json.dumps(by_name, sort_keys=True)), encoding="utf-8")
    app.config.html_search_scorer = str(scorer)


def add_names(app: Sphinx, doctree: nodes.document) -> None:
    """Put a page's names among its keywords, which Sphinx's index takes one word each."""
    given = app.scprimer_names.get(app.env.docname)
    if given:
        words = sorted({word for name in given for word in name.split()})
        doctree.insert(0, nodes.meta("", name="keywords", content=",".join(words), lang="en"))
