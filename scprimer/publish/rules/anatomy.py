"""Rules about a chapter's parts: that they are there, in order, and hold what they must."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator
from pathlib import Path

from scprimer.publish import book, exercises, export, selfcheck, template
from scprimer.publish.rules.common import (
    EXEMPTION_PREFIXES,
    FURTHER_EXEMPTIONS,
    KINDS,
    Finding,
    calls,
    cells,
    cells_of_others,
    exempt,
    rule,
    sections,
    trees,
)


@rule
def anatomy(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every section of the anatomy, first occurrences in order, each opened by a markdown cell with a heading."""
    firsts: list[str] = []
    for cell in chapter.notebook["cells"]:
        found = [t for t in book.tags(cell) if t in book.ANATOMY]
        if cell["cell_type"] != "markdown":
            # `run`, `check`, ... on a code cell would be an author's slip: tags of sections go on headings
            for tag in found:
                yield (
                    cell["id"],
                    f"the code cell has the tag {tag!r}",
                    "put it on the markdown cell that opens the section",
                )
            continue
        if len(found) > 1:
            yield cell["id"], f"the cell opens {' and '.join(found)} at once", "give each section its own cell"
        if found and not re.search(r"(?m)^#{2,4} \S", book.source(cell)):
            yield cell["id"], f"the section {found[0]!r} opens without a heading", "begin the cell with `## ...`"
        firsts += [t for t in found if t not in firsts]
    for tag in book.ANATOMY:
        if tag not in firsts and not exempt(chapter, tag):
            yield None, f"the part {tag!r} is missing", f"add a section whose markdown cell has the tag {tag!r}"
    right = [t for t in book.ANATOMY if t in firsts]
    for is_there, belongs in zip(firsts, right):
        if is_there != belongs:
            yield None, f"{is_there!r} stands where {belongs!r} belongs", f"the order is {', '.join(right)}"
            break


@rule
def exemptions(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """What is not applicable is a known part, is truly absent, and has a sentence for a reason."""
    known = (*book.ANATOMY, *KINDS, *FURTHER_EXEMPTIONS)
    present = {t for c in cells(chapter, "markdown") for t in book.tags(c)}
    present |= {c.get("kind") for c in chapter.meta.get("claims", [])}
    for what, reason in chapter.meta.get("not_applicable", {}).items():
        if what not in known and not what.startswith(EXEMPTION_PREFIXES):
            yield (
                None,
                f"not_applicable names {what!r}, which is no part",
                f"known are {', '.join(known)}, control:<claim>, reported:<id>",
            )
        if not isinstance(reason, str) or len(reason.split()) < 5 or not reason.strip().endswith("."):
            yield (
                None,
                f"the reason for leaving out {what!r} is no sentence",
                "say why in a sentence that the book can show",
            )
        if what in present:
            yield None, f"{what!r} is said not to apply and is there", "delete the exemption"


@rule
def metadata(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The notebook says which chapter it is and runs in the plain Python kernel."""
    if chapter.meta.get("chapter") != chapter.slug:
        yield (
            None,
            f"metadata says chapter {chapter.meta.get('chapter')!r}",
            f"set scprimer.chapter to {chapter.slug!r}",
        )
    kernel = chapter.notebook["metadata"].get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield None, f"the kernel is {kernel!r}", "save it with the kernel `python3`, which every installation has"


@rule
def title(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The first cell: a title and one sentence that promises what the reader will be able to do."""
    first = (
        chapter.notebook["cells"][0] if chapter.notebook["cells"] else {"cell_type": "none", "source": "", "id": None}
    )
    lines = [line for line in book.source(first).splitlines() if line.strip()]
    if first["cell_type"] != "markdown" or not lines or not re.match(r"# \S", lines[0]):
        yield (
            first["id"],
            "the first cell is no title",
            "open the notebook with a markdown cell `# Title` and the promise",
        )
        return
    promise = " ".join(lines[1:]).strip()
    if not promise.endswith(".") or len(promise.split()) < 6:
        yield first["id"], "the title is not followed by a promise", "say in one sentence what one will be able to do"
    elif re.search(r"[.!?]\s+[A-Z]", promise) or len(promise.split()) > 60:
        yield first["id"], "the promise is longer than one sentence", "keep one, and move the rest to the objectives"
    for cell in cells(chapter, "markdown")[1:]:
        if re.search(r"(?m)^# \S", re.sub(r"(?ms)^```.*?^```", "", book.source(cell))):
            yield cell["id"], "a second level-one heading", "sections begin with `##`"


@rule
def install_cell(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The second cell is the install cell, the same in every chapter."""
    fix = "put scprimer.publish.template.INSTALL_CELL into the second cell, tagged `colab`"
    tagged = [i for i, c in enumerate(chapter.notebook["cells"]) if "colab" in book.tags(c)]
    if tagged != [1] or chapter.notebook["cells"][1]["cell_type"] != "code":
        yield None, "the install cell is not the second cell, or not the only one", fix
    elif book.source(chapter.notebook["cells"][1]).strip() != template.INSTALL_CELL:
        yield chapter.notebook["cells"][1]["id"], "the install cell differs from the template's", fix


@rule
def parameters(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The third cell holds the parameters: plain constants, with profile None, seed and dataset among them.

    A chapter that asks for `run.device` has the parameter device, which is left to the machine.
    """
    tagged = [i for i, c in enumerate(chapter.notebook["cells"]) if "parameters" in book.tags(c)]
    if tagged != [2] or chapter.notebook["cells"][2]["cell_type"] != "code":
        yield None, "the parameters cell is not the third cell, or not the only one", "tag the third cell `parameters`"
        return
    cell = chapter.notebook["cells"][2]
    values = _parameters(cell)
    if values is None:
        yield cell["id"], "the parameters are not plain constants", "one `name = literal` a line and nothing else"
        return
    if "profile" not in values or values["profile"] is not None:
        yield cell["id"], "profile is not None", "write `profile = None`: the environment decides"
    if not exempt(chapter, "seed") and (type(values.get("seed")) is not int or values["seed"] < 0):
        yield cell["id"], "seed is missing or no whole number", "write `seed = 0`"
    if not isinstance(values.get("dataset", 0), str | None):
        yield cell["id"], "dataset is missing", "give the name of a registered data set (None if the chapter has none)"
    if values.get("device", "auto") != "auto":
        yield cell["id"], f"device is {values['device']!r}", 'write `device = "auto"`: the reader\'s machine decides'
    if "device" not in values and _asks_device(chapter):
        yield cell["id"], "device is missing, and the chapter uses run.device", 'write `device = "auto"`'


@rule
def start(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The fourth cell starts the run with the parameters, and says which data set the claims were written for."""
    every = chapter.notebook["cells"]
    fix = f'`run = scprimer.start("{chapter.slug}", profile=profile, seed=seed, dataset=dataset, written_for=...)`'
    found = [(cell, call) for cell, tree in trees(chapter) for call in calls(tree, "scprimer.start")]
    if len(found) != 1 or len(every) < 4 or found[0][0] is not every[3]:
        yield None, "the run is not started in the fourth cell, once", fix
        return
    cell, call = found[0]
    if not re.search(r"(?m)^run = scprimer\.start\(", book.source(cell)):
        yield cell["id"], "the result of start() is not called `run`", fix
    first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if first != chapter.slug:
        yield cell["id"], f"start() is told the chapter {first!r}", f"it is {chapter.slug!r}"
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    values = _parameters(every[2]) or {}
    passed_on = ["profile", "dataset"]
    passed_on += [] if exempt(chapter, "seed") else ["seed"]
    passed_on += ["device"] if "device" in values else []
    for name in passed_on:
        if given.get(name) != name:
            yield cell["id"], f"start() does not get the parameter {name}", fix
    if "device" in given and "device" not in values:
        yield cell["id"], "start() gets a device that is no parameter", 'write `device = "auto"` among the parameters'
    if given.get("written_for", "None") != repr(values.get("dataset")):
        yield cell["id"], "written_for is not the default data set", f"set it to {values.get('dataset')!r}"


@rule
def ask_run(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """After start() code asks `run`, never the raw parameters profile, seed, dataset and device."""
    first = chapter.notebook["cells"][:4]  # install, parameters, start
    after = [
        (cell, tree)
        for cell, tree in trees(chapter)
        if cell not in first
        and not calls(tree, "scprimer.start")
        and not any(t.startswith("exercise") for t in book.tags(cell))
    ]
    bound = {
        n.id for _, tree in after for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    for cell, _ in after:
        for name in sorted({"profile", "seed", "dataset", "device"} - bound):
            if _reads_global(symtable.symtable(book.source(cell), "cell", "exec"), name):
                yield (
                    cell["id"],
                    f"the code reads the parameter {name}",
                    f"ask `run.{name}` (or run.load(), run.pick())",
                )


@rule
def symbols(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The idea has a table of symbols: symbol, meaning, name in the code."""
    if exempt(chapter, "symbols") or exempt(chapter, "idea"):
        return
    text = "\n".join(
        book.source(c) for s, c in sections(chapter) if s in ("idea", "build") and c["cell_type"] == "markdown"
    )
    if not re.search(r"(?im)^\s*\|.*symbol.*\|.*code.*\|\s*$", text):
        yield None, "the idea has no table of symbols", "add `| symbol | meaning | name in the code |`"


@rule
def pitfall(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The section `break` describes at least one misuse for the failure gallery."""
    if exempt(chapter, "break"):
        return
    fix = 'metadata of the markdown cell: scprimer: {"pitfall": {"id", "title", "symptom", "notice", "mend"}}'
    found = [(c, _pitfall(c)) for s, c in sections(chapter) if s == "break" and _pitfall(c) is not None]
    if not found:
        yield None, "the section `break` has no entry for the failure gallery", fix
    seen = {entry.get("id") for c in cells_of_others(chapter, top) if (entry := _pitfall(c))}
    for cell, entry in found:
        empty = [k for k in ("id", "title", "symptom", "notice", "mend") if not str(entry.get(k) or "").strip()]
        if empty:
            yield cell["id"], f"the pitfall does not say its {', '.join(empty)}", fix
        if entry.get("id") in seen:
            yield cell["id"], f"the pitfall id {entry['id']!r} is used twice", "ids are unique over the book"
        seen.add(entry.get("id"))


@rule
def report(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The claims end with `run.table()` and then `run.report()`, whose output the tests compare; no claim comes after."""
    code = [(s, c) for s, c in sections(chapter) if c["cell_type"] == "code"]
    at = [i for i, (_, c) in enumerate(code) if book.source(c).strip() == "run.report()"]
    fix = f"`run.table()` and `run.report()` (tag `{book.REPORT_TAG}`) are the last code cells of the section `claims`"
    if len(at) != 1:
        yield None, f"{len(at)} cells that are just `run.report()`", fix
        return
    section, cell = code[at[0]]
    if section != "claims" or book.REPORT_TAG not in book.tags(cell):
        yield cell["id"], "run.report() is not in the section `claims`, or has not its tag", fix
    if at[0] == 0 or book.source(code[at[0] - 1][1]).strip() != "run.table()":
        yield cell["id"], "the cell before run.report() is not `run.table()`", fix
    for section, later in code[at[0] + 1 :]:
        if section == "claims" or re.search(r"\brun\.(claim|glue|report)\(", book.source(later)):
            yield later["id"], "code of the claims comes after run.report()", fix


@rule
def exercise_form(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Three to five exercises from recall to project, each complete, inside the section `exercises`."""
    if exempt(chapter, "exercises"):
        return
    for problem in exercises.problems(chapter):
        yield problem.cell_id, problem.words, problem.fix
    inside = {c["id"] for s, c in sections(chapter) if s == "exercises"}
    for exercise in exercises.exercises(chapter):
        for id in exercise.cells:
            if id not in inside:
                yield id, f"a cell of exercise {exercise.id!r} lies outside the section", "move it into `exercises`"


@rule
def self_checks(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """A few self-checks, each a question with an explained answer, before the exercises."""
    if not exempt(chapter, selfcheck.TAG):
        yield from selfcheck.self_checks(chapter)


@rule
def takeaways(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The last section says what would change our mind, what to read, and how to go on."""
    if exempt(chapter, "takeaways"):
        return
    text = "\n".join(book.source(c) for s, c in sections(chapter) if s == "takeaways").lower()
    for words in ("what would change our mind", "further reading", "take it further"):
        if not re.search(rf"(?m)^(#+ .*|\*\*){words}", text):
            fix = f"add `### {words.capitalize()}`, with what belongs under it"
            yield None, f"the take-aways do not say {words!r}", fix


@rule
def placeholders(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Nothing of the template is left to replace."""
    for cell in chapter.notebook["cells"]:
        if re.search(rf"\b{template.REPLACE}\b", book.source(cell) + str(cell["metadata"])):
            yield (
                cell["id"],
                f"the template's {template.REPLACE} is still there",
                "put the chapter's own words in its place",
            )


@rule
def exports(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Exported cells make a module that stands by itself, and what they define is documented."""
    try:
        export.module_text(chapter, top)
    except book.BookError as error:
        yield None, str(error), "then run `scprimer export`"
        return
    for id, name in export.undocumented(chapter):
        yield (
            id,
            f"`{name}` is exported without a docstring",
            "give shapes, units, errors and the source (paper, equation)",
        )


def _parameters(cell: dict) -> dict | None:
    """The constants that a cell assigns, or None when it does anything else."""
    values = {}
    try:
        for node in ast.parse(book.source(cell)).body:
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                return None
            values[node.targets[0].id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError):
        return None
    return values


def _asks_device(chapter: book.Chapter) -> bool:
    """Whether code outside exercises uses ``run.device``."""
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "run.device"
        for cell, tree in trees(chapter)
        if not any(tag.startswith("exercise") for tag in book.tags(cell))
        for node in ast.walk(tree)
    )


def _reads_global(scope: symtable.SymbolTable, name: str) -> bool:
    """Whether the code of a scope, or of one inside it, reads a global of that name."""
    if name in scope.get_identifiers():
        symbol = scope.lookup(name)
        if symbol.is_referenced() and (symbol.is_global() or scope.get_type() == "module"):
            return True
    return any(_reads_global(inner, name) for inner in scope.get_children())


def _pitfall(cell: dict) -> dict | None:
    return cell.get("metadata", {}).get("scprimer", {}).get("pitfall")
