"""Rules about cells: plain Python, short, executed in order, with stable ids, in a small file."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from scprimer.publish import book
from scprimer.publish.rules.common import Finding, cells, rule, trees

LONGEST, MEDIAN = 25, 15  # lines of a code cell
LARGEST = 1_000_000  # bytes of a notebook


@rule
def plain_python(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Code cells are plain Python: no magics, no shell lines, nothing captured out of sight, none empty."""
    for cell in cells(chapter, "code"):
        source = book.source(cell)
        magic = re.search(r"(?m)^\s*(%%?[a-z]\w*|![a-z]\w*)", source)
        if magic:
            yield cell["id"], f"the cell uses `{magic[1]}`", "write it in Python; only the install cell installs"
            continue
        if re.search(r"(?m)^\s*#\s*%%capture\b", source):
            yield cell["id"], "the cell mentions %%capture", "let the output show, or do not make it"
        if not source.strip():
            yield cell["id"], "the cell is empty", "delete it"
        try:
            ast.parse(source)
        except SyntaxError as error:
            yield cell["id"], f"line {error.lineno} is not valid Python ({error.msg})", "mend it and run the chapter"


@rule
def cell_length(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """One idea a cell: at most 25 lines, with a median of at most 15 (blank lines and docstrings do not count)."""
    lengths = []
    for cell, tree in trees(chapter):
        if "colab" in book.tags(cell):
            continue
        length = _lines(book.source(cell), tree)
        lengths.append(length)
        if length > LONGEST:
            yield (
                cell["id"],
                f"the cell has {length} lines",
                f"split it: {LONGEST} at most, 5 to 20 as a rule, one idea each",
            )
    if lengths and statistics.median(lengths) > MEDIAN:
        yield None, f"the median code cell has {statistics.median(lengths):g} lines", f"split cells: {MEDIAN} at most"


@rule
def execution_order(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every code cell has been executed, from top to bottom, in one go."""
    for expected, cell in enumerate(cells(chapter, "code"), 1):
        count = cell.get("execution_count")
        if count != expected:
            words = "was not executed" if count is None else f"was executed as number {count}, not {expected}"
            yield cell["id"], f"the cell {words}", f"run the whole chapter: `scprimer run {chapter.slug} --record`"
            return  # one cell out of place moves all that follow


@rule
def cell_ids(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every cell has a stable id of its own: outputs are written back by it."""
    seen: set[str] = set()
    for cell in chapter.notebook["cells"]:
        id = cell.get("id")
        if not isinstance(id, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id):
            yield id, f"the id {id!r} is missing or malformed", "letters, digits and hyphens, 64 at most (nbformat 4.5)"
        elif id in seen:
            yield id, f"the id {id!r} is used twice", "give the copy an id of its own"
        seen.add(id)
    if chapter.notebook.get("nbformat_minor", 0) < 5:
        yield None, "the notebook is older than format 4.5, which has cell ids", "save it with a current Jupyter"


@rule
def size(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """A notebook stays under a megabyte: the repository's history must stay small."""
    weight = chapter.path.stat().st_size
    if weight >= LARGEST:
        heaviest = max(cells(chapter, "code"), key=lambda c: len(str(c.get("outputs"))), default={"id": None})
        yield (
            heaviest["id"],
            f"the notebook has {weight / 1e6:.2f} MB",
            "make figures smaller (lower dpi, fewer points)",
        )


def _lines(source: str, tree: ast.Module) -> int:
    """Lines of a cell that are neither blank nor part of a docstring."""
    blank = {i for i, line in enumerate(source.splitlines(), 1) if not line.strip()}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            blank |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(source.splitlines()) - len(blank)
