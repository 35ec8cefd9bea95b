"""Code as meaning: what a piece of Python says without its comments, docstrings and layout, and what of scprimer it uses.

Nothing is imported or run: everything is read off the syntax trees, so that a stamp can be checked without the science
stack.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

# Rooms of the package whose definitions bear on a chapter's results, by the module's name. What is in no room (plots,
# publishing, downloads) does not, and is not followed either.
ROOMS = {
    "scprimer.methods": "methods",
    "scprimer.metrics": "metrics",
    "scprimer.train": "train",
    "scprimer.run": "run",
    "scprimer.data.simulate": "simulators",
    "scprimer.data.loaders": "loaders",
    "scprimer.data.gate": "loaders",
}
# A table with a row a data set: a new row is no change for the chapters that do not use it.
_TABLES = ("scprimer.data.simulate.standins.STANDINS",)

_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MAGIC = re.compile(r"^(\s*)([%!].*)$", re.MULTILINE)


def digest(text: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse(code: str) -> ast.Module | None:
    """The syntax tree of a notebook cell; IPython's magics become strings. None when it is no Python even then."""
    for text in (code, _MAGIC.sub(lambda found: f"{found[1]}{found[2]!r}", code)):
        try:
            return ast.parse(text)
        except SyntaxError:
            continue
    return None


def canonical(node: ast.AST) -> str:
    """A syntax tree as text, without docstrings, the same for every version of Python.

    (:func:`ast.dump` names fields that only newer versions have, and shows empty ones or not.)
    """
    parts = []
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            if name == "body" and isinstance(node, _DOCUMENTED):
                value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
            if isinstance(node, ast.JoinedStr):  # some versions put empty text beside nested formats
                value = [v for v in value if not (isinstance(v, ast.Constant) and v.value == "")]
            value = "[" + ",".join(canonical(v) if isinstance(v, ast.AST) else repr(v) for v in value) + "]"
            value = None if value == "[]" else value
        elif isinstance(value, ast.AST):
            value = canonical(value)
        elif value is not None:
            value = repr(value)
        if value is not None and name not in ("kind", "type_comment"):
            parts.append(f"{name}={value}")
    return f"{type(node).__name__}({','.join(parts)})"


def uses(nodes: Iterable[ast.AST], names: dict[str, str] | None = None, package: str = "") -> set[str]:
    """Dotted names of scprimer that some code mentions, such as ``"scprimer.methods.scvi.CountVAE"``.

    Args:
        nodes: syntax trees; imports anywhere in them count.
        names: what bare names mean around them (the module's own definitions and imports).
        package: the package that relative imports start from.
    """
    nodes = list(nodes)
    known = dict(names or {})
    found: set[str] = set()
    for node in nodes:
        for inner in ast.walk(node):
            imported = _imports(inner, package)
            known |= imported
            if isinstance(inner, ast.ImportFrom):  # a symbol is used by being imported; a module only by its attributes
                found |= set(imported.values())
    finder = _Finder(known)
    for node in nodes:
        finder.visit(node)
    # "scprimer.metrics" from an import is implied by "scprimer.metrics.ari" where the code goes on to name that.
    found = {f for f in found if f in finder.found or not any(other.startswith(f + ".") for other in finder.found)}
    return {name for name in found | finder.found if name.split(".")[0] == "scprimer"}


class _Finder(ast.NodeVisitor):
    """Collects the dotted names that resolve to something imported; a chain ``a.b.c`` counts once, at its full length."""

    def __init__(self, known: dict[str, str]):
        self.known = known
        self.found: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in self.known:
            self.found.add(".".join([self.known[inner.id], *reversed(chain)]))
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.known:
            self.found.add(self.known[node.id])


def _imports(node: ast.AST, package: str) -> dict[str, str]:
    """What an import statement binds: name here -> dotted name there."""
    if isinstance(node, ast.Import):
        return {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        return {a.asname or a.name: base if a.name == "*" else f"{base}.{a.name}" for a in node.names}
    return {}


# ---- the package -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Module:
    """One module's top level: what it defines, what it imports, and what it merely does."""

    name: str
    package: str
    definitions: dict[str, list[ast.AST]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    statements: list[ast.AST] = field(default_factory=list)

    @property
    def names(self) -> dict[str, str]:
        """What its bare names mean."""
        return {**{d: f"{self.name}.{d}" for d in self.definitions}, **self.imports}


def module(name: str, folder: Path) -> Module | None:
    """The module ``name`` below the package's folder (``.../scprimer``), or None when there is no such file."""
    path = folder.joinpath(*name.split(".")[1:])
    for file, package in ((path / "__init__.py", name), (path.with_name(path.name + ".py"), name.rpartition(".")[0])):
        if name != "scprimer" or file.name == "__init__.py":
            try:
                found = file.stat()
            except OSError:
                continue
            return _read(file, found.st_mtime_ns, found.st_size, name, package)
    return None


@cache
def _read(file: Path, changed: int, size: int, name: str, package: str) -> Module:
    result = Module(name=name, package=package)
    for node in _top_level(ast.parse(file.read_text(encoding="utf-8"))):
        imported = _imports(node, package)
        targets = _targets(node)
        if imported:
            result.imports.update(imported)
        elif targets:
            for target in targets:
                result.definitions.setdefault(target, []).append(node)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):  # a docstring
            result.statements.append(node)
    return result


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements of a module, those under a top-level ``if`` included."""
    for node in tree.body:
        if isinstance(node, ast.If):
            yield from _top_level(ast.Module(body=[*node.body, *node.orelse], type_ignores=[]))
        else:
            yield node


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, _DOCUMENTED):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)]


def closure(names: Iterable[str], folder: Path) -> dict[str, dict[str, str]]:
    """Everything of scprimer that some names need, as far as it bears on results.

    Args:
        names: dotted names, such as ``"scprimer.methods.scvi.CountVAE"``; a module's name stands for all of it.
        folder: folder of the package, ``.../scprimer``.

    Returns:
        Room (see :data:`ROOMS`) -> dotted name of a definition -> its canonical text (``"missing"`` when there is none).
    """
    found: dict[str, dict[str, str]] = {}
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in _TABLES:
            continue
        seen.add(name)
        home, symbol = _locate(name, folder)
        if home is None:
            continue
        room = _room(home.name)
        if symbol in home.imports:  # passed on from elsewhere
            waiting.append(home.imports[symbol])
            continue
        if room is None:
            continue
        if symbol is None:
            waiting += [f"{home.name}.{d}" for d in home.definitions]
            nodes, label = home.statements, f"{home.name}.*"
        else:
            nodes, label = home.definitions.get(symbol), f"{home.name}.{symbol}"
        if nodes is None:
            found.setdefault(room, {})[label] = "missing"
            continue
        found.setdefault(room, {})[label] = "\n".join(map(canonical, nodes))
        further = uses(nodes, home.names, home.package)
        # A run can load anything: what a chapter does load, its stamp says, so the run itself is not followed.
        waiting += [f for f in further if room != "run" or f.startswith("scprimer.run.")]
    return found


def _locate(name: str, folder: Path) -> tuple[Module | None, str | None]:
    """The module of a dotted name, and the symbol in it (None: the module itself)."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        home = module(".".join(parts[:length]), folder)
        if home is not None:
            return home, parts[length] if length < len(parts) else None
    return None, None


def _room(module_name: str) -> str | None:
    """The room of a module, None when it has no bearing on results."""
    parts = module_name.split(".")
    for length in range(len(parts), 0, -1):
        room = ROOMS.get(".".join(parts[:length]))
        if room:
            return room
    return None
