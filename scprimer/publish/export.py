"""Write the methods that the chapters define to :mod:`scprimer.methods`: one module a chapter, from its `export` cells."""

from __future__ import annotations

import ast
import builtins
import difflib
import symtable
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scprimer.publish import book

# The first words of every exported module: only files that begin so are ever overwritten or removed.
BANNER = "# Exported by `scprimer export` from"


@dataclass(frozen=True)
class Change:
    """A module of :mod:`scprimer.methods` that differs from what the chapters say.

    Attributes:
        path: the module.
        what: ``"new"``, ``"changed"`` or ``"gone"`` (its chapter exports nothing any more).
        diff: unified diff from the file to what it should hold.
    """

    path: Path
    what: str
    diff: str


def export(top: Path | None = None, check: bool = False) -> list[Change]:
    """Bring ``scprimer/methods/`` up to date with the notebooks.

    All chapters are read and checked before the first file is written, and each file is replaced as a whole.

    Args:
        top: top folder of the clone; default: the clone here.
        check: write and remove nothing, only say what differs.

    Returns:
        The modules that differed (and, unless ``check``, no longer do); empty when all agreed.

    Raises:
        BookError: an exported cell is not valid Python (with notebook, cell and line), uses a name that no exported
            cell defines, or would overwrite a module that was written by hand.
    """
    top = top or book.root()
    folder = top / "scprimer" / "methods"
    wanted = {folder / f"{c.module}.py": text for c in book.chapters(top) if (text := module_text(c, top)) is not None}
    present = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    changes = []
    for path, text in wanted.items():
        old = present.get(path)
        if old is not None and not old.startswith(BANNER):
            raise book.BookError(f"{path} was written by hand (no banner of `scprimer export`): move it elsewhere")
        if old != text:
            changes.append(Change(path, "new" if old is None else "changed", difference(path, top, old or "", text)))
    for path, old in present.items():
        if path not in wanted and old.startswith(BANNER):
            changes.append(Change(path, "gone", difference(path, top, old, "")))
    if not check:
        for change in changes:
            if change.what == "gone":
                change.path.unlink()
            else:
                book.write_text(change.path, wanted[change.path])
    return changes


def export_cells(chapter: book.Chapter) -> list[dict]:
    """The chapter's code cells tagged ``export``, in order."""
    return [c for c in chapter.notebook["cells"] if c["cell_type"] == "code" and book.EXPORT_TAG in book.tags(c)]


def module_text(chapter: book.Chapter, top: Path) -> str | None:
    """Text of the module that the chapter's exported cells make; None when it exports nothing.

    Imports are gathered at the top, each once; the rest is the text of the cells in order.

    Raises:
        BookError: see :func:`export`.
    """
    cells = export_cells(chapter)
    if not cells:
        return None
    where = chapter.path.relative_to(top).as_posix()
    imports: set[str] = set()
    bodies, names = [], []
    for cell in cells:
        tree = parse(chapter, cell)
        lines = book.source(cell).splitlines()
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports.update(_one_each(node))
                lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
        bodies.append("\n".join(line for line in lines if line is not None).strip("\n"))
        names += defined_names(tree)
    imports.discard("from __future__ import annotations")
    title = chapter.title.replace("\\", "").replace('"', "'")
    parts = [
        f"{BANNER} {where}. Edit the notebook, not this file.\n"
        f'"""What the chapter "{title}" builds."""\n\nfrom __future__ import annotations',
        *_groups(imports),
    ]
    listed = "".join(f'    "{name}",\n' for name in sorted(set(names)))
    parts.append(f"__all__ = [\n{listed}]")
    text = "\n\n".join(parts) + "\n\n\n" + "\n\n\n".join(body for body in bodies if body) + "\n"
    missing = undefined_names(text)
    if missing:
        raise book.BookError(
            f"{where}: exported cells use {', '.join(f'`{n}`' for n in sorted(missing))}, which no exported cell "
            "defines or imports: tag the cell that does with `export`, or pass it as an argument"
        )
    return text


def parse(chapter: book.Chapter, cell: dict) -> ast.Module:
    """The syntax tree of a cell.

    Raises:
        BookError: not valid Python; names the notebook, the cell and the line.
    """
    try:
        return ast.parse(book.source(cell))
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise book.BookError(
            f"{chapter.path}, cell {cell.get('id')!r}, line {error.lineno}: {error.msg}: {line}"
        ) from None


def defined_names(tree: ast.Module) -> list[str]:
    """Public names that a module's top level defines: functions, classes and constants, no imports."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def undocumented(chapter: book.Chapter) -> list[tuple[str, str]]:
    """Exported public functions and classes without a docstring, as ``(cell id, name)``."""
    found = []
    for cell in export_cells(chapter):
        for node in parse(chapter, cell).body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not (ast.get_docstring(node) or "").strip()
            ):
                found.append((cell["id"], node.name))
    return found


def undefined_names(text: str) -> set[str]:
    """Names that the code of a module reads and neither it nor Python defines."""
    table = symtable.symtable(text, "<module>", "exec")
    known = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    known |= {name for inner in _scopes(table) for name in _declared_global(inner)}
    known |= set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
    return {
        symbol.get_name()
        for scope in _scopes(table)
        for symbol in scope.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or scope is table) and symbol.get_name() not in known
    }


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)


def _declared_global(table: symtable.SymbolTable) -> list[str]:
    return [s.get_name() for s in table.get_symbols() if s.is_declared_global() and s.is_assigned()]


def _one_each(node: ast.Import | ast.ImportFrom) -> list[str]:
    """An import statement as one line a name, so that the same name imported twice is one line."""
    return [
        ast.unparse(
            ast.Import([alias])
            if isinstance(node, ast.Import)
            else ast.ImportFrom(node.module, [alias], level=node.level)
        )
        for alias in node.names
    ]


def _groups(imports: set[str]) -> list[str]:
    """Import lines, sorted, in three groups: Python's own, others', the book's."""
    groups: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for line in sorted(imports, key=lambda x: (x.startswith("from"), x)):
        package = line.split()[1].split(".")[0]
        groups[2 if package == "scprimer" else 0 if package in sys.stdlib_module_names else 1].append(line)
    return ["\n".join(lines) for lines in groups.values() if lines]


def difference(path: Path, top: Path, old: str, new: str) -> str:
    """Unified diff from what a generated file holds to what it should hold."""
    name = path.relative_to(top).as_posix()
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), name, f"{name} (from the notebook)", lineterm="")
    return "\n".join(lines)
