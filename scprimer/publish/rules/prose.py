"""Rules about the text: results are computed, glued keys exist, sources are in the bibliography."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

from scprimer.publish import book
from scprimer.publish.rules.common import Finding, calls, cells, glued, glued_again, rule, sections, trees, without_code

TYPED_OK = "typed-numbers-ok"  # tag of a cell whose numbers are not results
RESULTS = ("look", "check", "compare", "claims", "takeaways")  # sections whose prose speaks of results


@rule
def typed_numbers(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """No result is typed into the prose: decimals and percentages come from glue.

    Settings may be typed: a number that the code holds as a literal. So may figures that a source reports, when they
    stand in `reported.csv`, and whatever is in a cell tagged ``typed-numbers-ok``.
    """
    code = [tree for cell, tree in trees(chapter) if not any(t.startswith("exercise") for t in book.tags(cell))]
    settings = {n.value for tree in code for n in ast.walk(tree) if _is_number(n)}
    for row in book.table("reported", top):
        if row["chapter"] == chapter.slug:
            settings |= {float(n) for n in re.findall(r"\d+(?:\.\d+)?", row["reported"] + " " + row["compare"])}
    for section, cell in sections(chapter):
        if cell["cell_type"] != "markdown" or section not in RESULTS or TYPED_OK in book.tags(cell):
            continue
        for found in re.finditer(
            r"(?<![\w./])\d[\d,]*(\.\d+)?\s?(%|per cent)?(?![\w/])", without_code(book.source(cell))
        ):
            value = float(re.match(r"[\d,]+(\.\d+)?", found[0])[0].replace(",", ""))
            is_result = found[1] or found[2]
            if is_result and not any(math.isclose(value, n) or math.isclose(value / 100, n) for n in settings):
                yield (
                    cell["id"],
                    f"the number {found[0].strip()!r} is typed",
                    f"glue it: run.glue(key=...) and {{glue:text}}`key:.2f`, or tag the cell `{TYPED_OK}` if it is no result",
                )


@rule
def glue_keys(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every glued key in the text is in the stored outputs, once, with a format that fits it."""
    own = glued(chapter)
    for cell_id, key in glued_again(chapter.notebook):
        yield cell_id, f"the key {key!r} is glued a second time", "rename one of the two: a text could show either"
    for cell in cells(chapter, "markdown"):
        used = re.findall(r"\{glue(?::\w+)?\}`([^`:]+)(?::([^`:]*))?`", book.source(cell))
        used += [(key, "") for key in re.findall(r"(?m)^\s*(?:```+|:::+)\{glue(?::\w+)?\} *(\S+)", book.source(cell))]
        for key, spec in used:
            if key.strip() not in own:
                fix = "glue it with run.claim or run.glue, and record the chapter"
                yield cell["id"], f"the key {key!r} is glued nowhere in this chapter", fix
            elif spec and not _formats(own[key.strip()], spec):
                yield cell["id"], f"{own[key.strip()]!r} does not fit the format {spec!r}", "use a number, or no format"
        for other, key in re.findall(r"\{glue(?::\w+)?\}`([^`]+?\.ipynb)::([^`:]+)", book.source(cell)):
            path = (chapter.path.parent / other).resolve()
            if not path.is_file() or key not in glued(book.Chapter(path.stem, path.parent.name, path)):
                yield (
                    cell["id"],
                    f"{other} glues no {key!r}",
                    "give the path of the notebook from this one, and its key",
                )


@rule
def citations(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The chapter cites its sources, and every key is in `book/references.bib`."""
    bibliography = top / "book" / "references.bib"
    entries = bibliography.read_text(encoding="utf-8") if bibliography.is_file() else ""
    known = set(re.findall(r"(?m)^\s*@\w+\{\s*([^,\s]+)", entries))
    cited = [
        (cell["id"], key.strip())
        for cell in cells(chapter, "markdown")
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", book.source(cell))
        for key in keys.split(",")
    ]
    if not cited:
        yield None, "the chapter cites nothing", "cite its sources: `` {cite}`key` ``"
    for cell, tree in trees(chapter):
        for call in calls(tree, "run.claim"):
            cited += [
                (cell["id"], k.value.value)
                for k in call.keywords
                if k.arg == "source" and isinstance(k.value, ast.Constant)
            ]
    cited += [(None, c["source"]) for c in chapter.meta.get("claims", []) if c.get("source")]
    for id, key in dict.fromkeys((id, key) for id, key in cited if key is not None and key not in known):
        yield id, f"the source {key!r} is not in book/references.bib", "add it, with its DOI"


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def _formats(text: str, spec: str) -> bool:
    """Whether a glued text can be shown with a format such as ``.2f``, as MyST-NB does: text of quotes stays text."""
    try:
        format(ast.literal_eval(text), spec)
    except (ValueError, SyntaxError, TypeError):
        return False
    return True
