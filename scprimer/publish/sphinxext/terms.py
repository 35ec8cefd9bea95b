"""Words of the glossary that explain themselves.

The first time that a chapter uses a word of the glossary, its page links it there. The explanations travel with the page:
``scprimer.js`` makes each the description of its link, which screen readers say, and shows it to whoever rests on the link or
reaches it with the keyboard. Nothing is fetched, and without a script the link leads to the glossary. Writers need not mark
anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape

from docutils import nodes
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

GLOSSARY = "book/glossary"
_ACRONYM = re.compile(r"^(?P<long>.+) \((?P<short>[^)]+)\)$")
# What an entry is called in running text where its heading is no such name. An empty tuple: the word is too common, or has
# a second meaning in this book (dropout in a network), and only a writer's own {term} links it.
CALLED = {
    "anchor": (),
    "benchmark": (),
    "calibration": (),
    "control (negative)": ("negative control",),
    "dropout": ("dropouts",),
    "fine-tuning": (),
    "integration": (),
    "ligand and receptor": ("ligand", "receptor"),
    "loss": (),
    "normalisation": (),
    "padding": (),
    "principal components (PCA)": ("principal component", "PCA"),
    "recall and precision": ("precision and recall", "recall and precision"),
    "resolution": (),
    "transformer": (),
    "validation set and test set": ("validation set", "test set"),
}
# Where a word means something else: followed or preceded by one of these.
_NOT_BEFORE = {
    "batch": r"(?:[ -](?:siz|norm|of\b|gradient))",
    "attention": r"(?: to\b)",
}
_NOT_AFTER = {"attention": r"(?<!pay )(?<!pays )", "batch": r"(?<!mini-)(?<!each )(?<!large )"}
_SILENT = (nodes.reference, nodes.title, nodes.literal, nodes.math, nodes.math_block, nodes.caption, nodes.raw, nodes.rubric,
           nodes.literal_block, nodes.table, nodes.pending, nodes.Invisible, nodes.citation, nodes.footnote)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One entry of the glossary: its heading, its anchor, its explanation as HTML, and what text may call it."""

    heading: str
    anchor: str
    html: str
    called: tuple[str, ...]


def called(heading: str) -> tuple[str, ...]:
    """The names of an entry in running text: ``"unique molecular identifier (UMI)"`` is called by both."""
    if heading in CALLED:
        return CALLED[heading]
    match = _ACRONYM.match(heading)
    return (match["long"], match["short"]) if match else (heading,)


def pattern(name: str) -> str:
    """A regular expression for a name and its plural: a word of small letters may begin a sentence, ``UMI`` stays as it is."""
    first = re.escape(name[0])
    if name[0].islower():
        first = f"[{first}{first.upper()}]"
    ending = "(?:s|es)?" if name[-1].isalpha() and not name.endswith("s") else ""
    stem = name
    if name.endswith("y") and name[-2] not in "aeou":
        stem, ending = name[:-1], "(?:y|ies)"
    body = first + re.escape(stem[1:]).replace(r"\ ", r"\s+") + ending
    return rf"(?<![\w-]){_NOT_AFTER.get(name, '')}{body}(?![\w]|-\w){f'(?!{_NOT_BEFORE[name]})' if name in _NOT_BEFORE else ''}"


def entries(env: BuildEnvironment) -> list[Entry]:
    """The entries of the glossary in their order; empty without a glossary."""
    if GLOSSARY not in env.found_docs:
        return []
    found = []
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        head = item.next_node(nodes.term)
        if head is None or not head["ids"]:
            continue
        heading = head.astext()
        definition = " ".join(_html(child) for child in item.next_node(nodes.definition).children)
        found.append(Entry(heading, head["ids"][0], definition, called(heading)))
    return found


def _html(node: nodes.Node) -> str:
    """An explanation as it may stand inside a tooltip: words, emphasis and code, no links."""
    if isinstance(node, nodes.Text):
        return escape(node.astext())
    inner = "".join(_html(child) for child in node.children)
    if isinstance(node, nodes.emphasis):
        return f"<em>{inner}</em>"
    return f"<code>{inner}</code>" if isinstance(node, nodes.literal) else inner


@cache
def _searcher(names: tuple[str, ...]) -> re.Pattern:
    """One expression for all names, the longest first."""
    ordered = sorted(names, key=len, reverse=True)
    return re.compile("|".join(f"(?P<n{names.index(name)}>{pattern(name)})" for name in ordered))


class ExplainTerms(SphinxPostTransform):
    """Link the first use of each word of the glossary, and give links to the glossary their explanation."""

    default_priority = 15  # after Sphinx has resolved what writers linked themselves
    formats = ("html",)

    def run(self, **kwargs) -> None:
        """Chapters and introductions of parts are linked; other pages have what their writers marked."""
        every = _entries(self.app)
        name, used = self.env.docname, {}
        by_anchor = {entry.anchor: entry for entry in every}
        if name != GLOSSARY:
            for link in self.document.findall(nodes.reference):
                target = link.get("refuri", "").partition("glossary.html#")[2]
                if target in by_anchor:
                    self.describe(link, by_anchor[target], used)
        if name.startswith(("notebooks/", "book/parts/")):
            for text in list(texts(self.document)):
                self.link(text, every, used)
        if used:
            items = "".join(
                f'<div id="about-{e.anchor}"><b>{escape(e.heading)}</b> {e.html}</div>' for e in used.values()
            )
            self.document.append(nodes.raw("", f'<div class="scp-terms" hidden>{items}</div>', format="html"))

    def link(self, text: nodes.Text, every: list[Entry], used: dict[str, Entry]) -> None:
        """Replace one piece of text by itself with the words linked that the page has not used before."""
        words, pieces, done = text.astext(), [], 0
        owners = [(called, entry) for entry in every for called in entry.called]
        for match in _searcher(tuple(called for called, _ in owners)).finditer(words):
            entry = owners[int(match.lastgroup[1:])][1]
            if entry.anchor in used:
                continue
            link = make_refnode(self.app.builder, self.env.docname, GLOSSARY, entry.anchor, nodes.inline("", match[0]))
            self.describe(link, entry, used)
            pieces += [nodes.Text(words[done : match.start()]), link]
            done = match.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(words[done:])])

    def describe(self, link: nodes.reference, entry: Entry, used: dict[str, Entry]) -> None:
        """Mark a link as a word that explains itself."""
        used[entry.anchor] = entry
        link["classes"].append("scp-term")


def _entries(app) -> list[Entry]:
    if not hasattr(app, "scprimer_terms"):
        app.scprimer_terms = entries(app.env)
    return app.scprimer_terms


def texts(document: nodes.document) -> Iterator[nodes.Text]:
    """The running text of a page: that of paragraphs, without links, code, equations, tables and headings."""
    for text in document.findall(nodes.Text):
        up = text.parent
        in_paragraph = False
        while up is not None and not isinstance(up, _SILENT):
            in_paragraph = in_paragraph or isinstance(up, nodes.paragraph)
            up = up.parent
        if up is None and in_paragraph:
            yield text
