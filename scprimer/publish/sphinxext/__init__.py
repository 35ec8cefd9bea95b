"""The book's Sphinx extension: what the pages show beyond their sources.

It adds one directive, ``{scprimer}``, for the blocks that are generated from the notebooks' metadata; pages ask for one with
a MyST comment (``% scprimer: ledger``), so that they stay plain MyST. It renders equations as MathML, and takes from the
stock pages what they do not need: scripts of other hosts, of thebe and of Font Awesome.
"""

from __future__ import annotations

import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.math import get_node_equation_number

from scprimer.publish import benchmarks, book, ledger, stamp
from scprimer.publish.sphinxext import blocks, bookmap, maths, pages, search, spreads, terms, view

HERE = Path(__file__).parent
_CHAPTER = re.compile(r"notebooks/[\w-]+/([\w-]+)")
_PLACEHOLDER = re.compile(r"^% scprimer: *([\w -]+?) *$", re.MULTILINE)
_LOG = logging.getLogger(__name__)


class Scprimer(SphinxDirective):
    """``{scprimer} KIND [ARGUMENT]``: one generated block."""

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The block as raw HTML."""
        kind, argument = self.arguments[0], "".join(self.arguments[1:])
        top, rows = Path(self.env.srcdir), self.env.app.scprimer_ledger
        chapters = {c.slug: c for c in book.chapters(top, planned=True)}
        if kind in ("cost", "beside", "exempt") and rows.cost(argument) is None:
            raise self.error(f"{{scprimer}} {kind}: no chapter {argument!r} is written")
        made = {
            "anchor": lambda: f'<span class="scp-anchor" id="{view.anchor(argument)}"></span>',
            "cost": lambda: blocks.cost_box(rows.cost(argument)),
            "beside": lambda: blocks.beside(argument, rows, self.link),
            "exempt": lambda: blocks.exempt(chapters[argument]),
            "path": lambda: blocks.path([chapters[slug] for slug in argument.split()], self.link),
            "map": lambda: bookmap.bookmap(rows, list(chapters.values()), self.link),
            "methods": lambda: blocks.methods_table(rows.methods, self.link),
            "claims": lambda: blocks.claims_table(rows.claims, self.link),
            "literature": lambda: blocks.reported_table(sorted(rows.reported, key=lambda r: not r.ours), self.link),
            "failures": lambda: blocks.failures(rows.pitfalls, self.link),
            "status": lambda: blocks.status_table(rows.costs, self.link),
            "spreads": lambda: spreads.spreads(rows.claims, self.link),
            "single": lambda: spreads.single(rows.claims),
            "devices": lambda: spreads.devices(rows.claims, self.link),
            "surroundings": lambda: spreads.surroundings(rows.costs),
            "benchmark": lambda: blocks.benchmark(argument, benchmarks.read(argument, top)),
        }
        if kind not in made:
            raise self.error(f"{{scprimer}} {kind}: no such block; there are {', '.join(sorted(made))}")
        if kind == "beside":
            self.env.note_dependency(str(top / "book" / "reported.csv"))
        return [nodes.raw("", made[kind](), format="html")]

    def link(self, docname: str, name: str) -> str:
        """Address of an anchor, as seen from this page."""
        here = posixpath.dirname(self.env.docname)
        return posixpath.relpath(docname, here or ".") + ".html" + (f"#{name}" if name else "")


def read_ledger(app: Sphinx) -> None:
    """Read all rows once, before any page."""
    try:
        app.scprimer_ledger = ledger.read(Path(app.srcdir), stamp.judge)
    except book.BookError as error:
        raise ExtensionError(str(error)) from error


def prepare_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Chapters as their pages show them; placeholders of pages as directives."""
    if (chapter := _CHAPTER.fullmatch(docname)) is not None:
        slug = chapter[1]
        source[0] = view.page_text(source[0], slug, literature=bool(blocks.beside_rows(slug, app.scprimer_ledger)))
    else:
        source[0] = _PLACEHOLDER.sub(r"```{scprimer} \1\n```", source[0])


def outdated(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages with generated blocks are read again in every build: any notebook may have changed them."""
    return [d for d in env.found_docs if d.startswith("book/")]


def visit_math(self: Any, node: nodes.math) -> None:
    """An equation in a line of text."""
    self.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.math_block) -> None:
    """An equation on its own, in a box that scrolls when it is wider than the page."""
    self.body.append(self.starttag(node, "div", CLASS="math scp-equation"))
    self.body.append(f'<div class="scp-formula">{_mathml(node, block=True)}</div>')
    if node.get("number"):
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def _mathml(node: nodes.Node, *, block: bool) -> str:
    latex = node.astext()
    try:
        return maths.mathml(latex, block=block)
    except MathError as error:
        _LOG.warning("this equation cannot be shown: %s In: %s", error, " ".join(latex.split()), location=node)
        return f"<code>{nodes.unescape(latex)}</code>"


def visit_fold(self: Any, node: nodes.Element) -> None:
    """A folded cell. MyST-NB names every one "Toggle hidden content" for screen readers; what one sees is a better name."""
    self.body.append(f'<details class="admonition hide {" ".join(node["classes"])}">\n<summary>\n')
    self.body.append(f'<p class="collapsed admonition-title">{escape(node["prompt_show"])}</p>\n')
    self.body.append(f'<p class="expanded admonition-title">{escape(node["prompt_hide"])}</p>\n</summary>\n')


def depart_fold(self: Any, node: nodes.Element) -> None:
    """The end of a folded cell."""
    self.body.append("</details>\n")


def prepare(app: Sphinx, config: Any) -> None:
    """Put the extension's templates before the theme's, and its folds in place of MyST-NB's."""
    # Here and not above: it brings what executes notebooks, which only a build needs.
    from myst_nb.sphinx_ import HideCodeCellNode

    config.templates_path.insert(0, str(HERE / "templates"))
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, depart_fold))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything with Sphinx."""
    app.add_directive("scprimer", Scprimer)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.add_post_transform(terms.ExplainTerms)
    app.connect("config-inited", prepare)
    app.connect("builder-inited", read_ledger)
    app.connect("builder-inited", search.prepare)
    app.connect("env-get-outdated", outdated)
    app.connect("source-read", prepare_source)
    app.connect("doctree-read", search.add_names)
    app.connect("doctree-read", pages.box_further)
    app.connect("html-page-context", pages.context, priority=900)
    app.connect("build-finished", pages.drop_unused)
    app.add_css_file("scprimer.css", priority=900)
    app.add_js_file("scprimer.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
