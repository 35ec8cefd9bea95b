"""What the rules share: violations, exemptions, and ways to look at a notebook."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scprimer.publish import book

# Keys of `not_applicable` beside the anatomy's tags and the kinds of claims. "seed" exempts from that parameter, "spread"
# from repeats, "symbols" from the table of symbols, "self-check" from those; "control:<claim>" and "reported:<id>" exempt one claim or one
# reported figure.
FURTHER_EXEMPTIONS = ("seed", "spread", "symbols", "self-check")
EXEMPTION_PREFIXES = ("control:", "reported:")
KINDS = ("result", "reference", "baseline", "control", "pitfall")


@dataclass(frozen=True)
class Violation:
    """One breach of one rule.

    Attributes:
        rule: the rule's name, such as ``"alt-text"``.
        cell_id: the cell at fault, or None when it is the notebook as a whole.
        words: what is wrong.
        fix: what to do about it.
    """

    rule: str
    cell_id: str | None
    words: str
    fix: str

    def __str__(self) -> str:
        where = f" (cell {self.cell_id})" if self.cell_id else ""
        return f"[{self.rule}]{where} {self.words}: {self.fix}"


Finding = tuple[str | None, str, str]  # cell id, words, fix
RULES: dict[str, Callable[..., list[Violation]]] = {}


def rule(function: Callable[[book.Chapter, Path], Iterable[Finding]]) -> Callable[..., list[Violation]]:
    """Make a rule, named after the function, of a generator of findings, and put it into :data:`RULES`."""
    name = function.__name__.replace("_", "-")

    @functools.wraps(function)
    def checked(chapter: book.Chapter, top: Path | None = None) -> list[Violation]:
        return [Violation(name, *finding) for finding in function(chapter, top or chapter.path.parents[2])]

    RULES[name] = checked
    return checked


def exempt(chapter: book.Chapter, what: str) -> bool:
    """Whether the chapter says that ``what`` is not applicable to it."""
    return what in chapter.meta.get("not_applicable", {})


def cells(chapter: book.Chapter, kind: str) -> list[dict]:
    """The chapter's ``"code"`` or ``"markdown"`` cells."""
    return [c for c in chapter.notebook["cells"] if c["cell_type"] == kind]


def cells_of_others(chapter: book.Chapter, top: Path) -> list[dict]:
    """The cells of the book's other chapters, for what must be unique over the book."""
    others = [c.path for c in book.chapters(top) if c.path != chapter.path]
    return [cell for path in others for cell in _cells_at(path, path.stat().st_mtime_ns)]


@functools.lru_cache(maxsize=128)
def _cells_at(path: Path, changed: int) -> list[dict]:
    """The cells of one notebook, without outputs, read once as long as the file does not change."""
    return [{k: v for k, v in cell.items() if k != "outputs"} for cell in book.read_notebook(path)["cells"]]


def sections(chapter: book.Chapter) -> list[tuple[str | None, dict]]:
    """Every cell with the anatomy tag of the section that it lies in (None before the first)."""
    found, current = [], None
    for cell in chapter.notebook["cells"]:
        if cell["cell_type"] == "markdown":
            current = next((t for t in book.tags(cell) if t in book.ANATOMY), current)
        found.append((current, cell))
    return found


def trees(chapter: book.Chapter) -> Iterator[tuple[dict, ast.Module]]:
    """Code cells that are plain Python, with their syntax trees (the rule `plain-python` names the others)."""
    for cell in cells(chapter, "code"):
        try:
            yield cell, ast.parse(book.source(cell))
        except SyntaxError:
            continue


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """The calls of ``name`` (such as ``"run.claim"``) in a syntax tree, in order."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == name]
    return sorted(found, key=lambda n: (n.lineno, n.col_offset))


def texts(output: dict) -> Iterator[str]:
    """The text that an output shows: streams, plain text and HTML, without embedded images."""
    if "text" in output:
        yield _joined(output["text"])
    for kind, value in output.get("data", {}).items():
        if kind in ("text/plain", "text/html", "text/markdown", "text/latex"):
            yield re.sub(r"data:[\w/+.-]+;base64,[\w+/=\s]+", "", _joined(value))


def images(cell: dict) -> list[dict]:
    """The outputs of a code cell that show a picture."""
    return [o for o in cell.get("outputs", []) if any(k.startswith("image/") for k in o.get("data", {}))]


def glued(chapter: book.Chapter) -> dict[str, str]:
    """What the chapter's stored outputs glue: key -> its text."""
    found = {}
    for cell in cells(chapter, "code"):
        for output in cell["outputs"]:
            book_of = output.get("metadata", {}).get("scrapbook", {})
            if "name" in book_of:
                plain = output["data"].get(book_of.get("mime_prefix", "") + "text/plain", "")
                found[book_of["name"]] = _joined(plain)
    return found


def glued_again(notebook: dict) -> Iterator[tuple[str, str]]:
    """``(cell id, key)`` of each output that glues a key which stands in an output before it."""
    seen = set()
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            key = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if key in seen:
                yield cell.get("id"), key
            seen |= {key} - {None}


def without_code(markdown: str) -> str:
    """Markdown with code, mathematics, roles, link targets, citations and comments blanked: the words that are read."""
    for pattern in (
        r"(?ms)^\s*(`{3,}|:{3,}).*?^\s*\1\s*$",  # fenced code and directives
        r"(?s)<!--.*?-->",
        r"(?s)\$\$.*?\$\$",
        r"(?s)(`+).*?\1",  # code spans, and with them the text of roles
        r"\$[^$\n]+\$",
        r"\]\([^)]*\)",
        r"https?://\S+",
        r"(?i)\b(doi|arxiv)[: ]\s*\S+",
        r"\b10\.\d{4,}/\S+",
    ):
        markdown = re.sub(pattern, " ", markdown)
    return markdown


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
