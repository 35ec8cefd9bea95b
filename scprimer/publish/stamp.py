"""Stamps: what a recorded run depended on, and whether that still holds.

A chapter's stored outputs are **fresh**; **stale** when its code, the exported methods that it imports, or its data have
changed since; **aged** when only what stands around it has (metrics, training loop, run, simulators, loaders, pinned
versions of what it imports); or it was **never run**. Comments, docstrings, prose, exercises and figures' style cost no run.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from scprimer.publish import book, symbols

STATES = ("fresh", "aged", "stale", "never run")
SHORTEST = 1.0  # seconds of a cell that are worth a line in the stamp

_SURROUNDINGS = {
    "metrics": "metrics that it uses",
    "train": "the training loop",
    "run": "scprimer.run",
    "simulators": "simulators that it uses",
    "loaders": "loaders of its data",
    "pins": "pinned versions",
}


class State(NamedTuple):
    """A chapter's state, one of :data:`STATES`, and the reasons for it in words."""

    state: str
    reasons: tuple[str, ...] = ()


def judge(chapter: book.Chapter, stamp: dict | None = None) -> State:
    """Whether what was recorded for a chapter still holds.

    Args:
        chapter: a written chapter.
        stamp: the stamp to judge; default: the notebook's own. (The records of other profiles hold one, too.)
    """
    own = stamp is None
    stamp = chapter.meta.get("stamp") if own else stamp
    if not stamp:
        return State("never run", ("it has not been recorded",))
    reasons = _code_reasons(chapter, stamp) + _data_reasons(stamp)
    if own:
        reasons += _output_reasons(chapter)
    if reasons:
        return State("stale", tuple(reasons))
    before, now = stamp.get("surroundings") or {}, surroundings(chapter, stamp.get("data", {}))
    changed = [words for room, words in _SURROUNDINGS.items() if before.get(room) != now.get(room)]
    return State("aged", (f"changed since: {', '.join(changed)}",)) if changed else State("fresh")


def state(chapter: book.Chapter) -> str:
    """``"fresh"``, ``"aged"``, ``"stale"`` or ``"never run"``; :func:`judge` gives the reasons as well."""
    return judge(chapter).state


def reasons(chapter: book.Chapter) -> tuple[str, ...]:
    """Why a chapter is in its state, in words; empty when it is fresh."""
    return judge(chapter).reasons


def content_hash(chapter: book.Chapter) -> str:
    """Hash of what a chapter computes: ``"<its code>.<the exported methods that it imports, with all that they need>"``.

    Code cells outside exercises count (the one that installs on Colab does not), without comments and docstrings, and
    without the device that the parameters choose: where a run took place is a field of its own in the stamp.
    """
    nodes, unparsed = _code(chapter)
    code = "\n".join([*map(symbols.canonical, nodes), *unparsed])
    needed = _closure(chapter).get("methods", {})
    return f"{symbols.digest(code)}.{_digest(needed)}"


def surroundings(chapter: book.Chapter, data: dict) -> dict[str, str]:
    """Hashes of what stands around a chapter, by room: only what this chapter uses of each.

    Args:
        chapter: a written chapter.
        data: names of the registered data sets that it loaded (as keys).
    """
    further = [name for d in data for name in _of_data_set(d, _package(chapter))]
    rooms = _closure(chapter, further)
    found = {room: _digest(rooms[room]) for room in _SURROUNDINGS if rooms.get(room)}
    pins = _pins(chapter)
    if pins:
        found["pins"] = symbols.digest(pins)
    return found


def make(chapter: book.Chapter, result: dict) -> dict:
    """The stamp of a run.

    Args:
        chapter: the chapter that ran.
        result: what :func:`scprimer.publish.job.run_job` returned, with a record.
    """
    record, environment = result["record"], dict(result["environment"])
    data = record["data"]
    return {
        "profile": record["profile"],
        "seed": record["seed"],
        "device": record["device"] or "cpu",
        "hardware": environment.pop("hardware", None),
        "threads": record["threads"],
        "python": environment.pop("python", None),
        "versions": environment,
        "date": datetime.now(UTC).date().isoformat(),
        **clocked(result),
        "peak_mb": result["peak_mb"],
        "downloaded_mb": round(sum(d["bytes"] for d in data.values()) / 1e6, 1),
        "checkpoints": record["checkpoints"],
        "data": {name: entry["sha256"] for name, entry in sorted(data.items())},
        "hash": content_hash(chapter),
        "surroundings": surroundings(chapter, data),
    }


def clocked(result: dict) -> dict:
    """What a run took: ``{"clock", "seconds", "cells"}``, the seconds of the longer cells by cell id.

    One thread on a processor is clocked by the processor's time: what an idle machine would take, whatever else this one
    did. Otherwise the clock is the wall's. Both were left in the metadata of the executed notebook.
    """
    record, executed = result["record"], json.loads(result["notebook"])
    whole = executed["metadata"].get("papermill", {}).get("processor")
    by_processor = whole and record.get("threads") == 1 and record.get("device") in (None, "cpu")
    key = "processor" if by_processor else "duration"
    took = {c.get("id"): c["metadata"].get("papermill", {}).get(key) or 0.0 for c in executed["cells"]}
    return {
        "clock": "processor" if by_processor else "wall",
        "seconds": round(whole if by_processor else result["seconds"], 1),
        "cells": {id: round(seconds, 1) for id, seconds in took.items() if seconds >= SHORTEST},
    }


# ---- what a chapter consists of --------------------------------------------------------------------------------------
def counts(cell: dict) -> bool:
    """Whether a cell's code bears on the results: not in an exercise, and not what installs packages on Colab."""
    tags = book.tags(cell)
    return cell["cell_type"] == "code" and "colab" not in tags and not any(t.startswith("exercise") for t in tags)


def _code(chapter: book.Chapter) -> tuple[list, list[str]]:
    """Syntax trees of the cells that count, and the text of those that are no Python."""
    nodes, unparsed = [], []
    for cell in chapter.notebook["cells"]:
        if counts(cell):
            tree = symbols.parse(book.source(cell))
            if tree is None:
                unparsed.append(book.source(cell))
            else:
                nodes.append(_without_device(tree, parameters="parameters" in book.tags(cell)))
    return nodes, unparsed


def _without_device(tree: ast.Module, parameters: bool) -> ast.Module:
    """A cell's code as it reads when the device is left to the machine: no parameter ``device``, ``start(device="auto")``."""
    if parameters:
        tree.body = [node for node in tree.body if not _assigns(node, "device")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "scprimer.start":
            for keyword in node.keywords:
                if keyword.arg == "device":
                    keyword.value = ast.Constant("auto")
    return tree


def _assigns(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]


def _closure(chapter: book.Chapter, further: list[str] | None = None) -> dict[str, dict[str, str]]:
    return symbols.closure([*symbols.uses(_code(chapter)[0]), *(further or [])], _package(chapter))


def _digest(definitions: dict[str, str]) -> str:
    return symbols.digest("\n".join(f"{name}\n{text}" for name, text in sorted(definitions.items())))


def _top(chapter: book.Chapter) -> Path:
    return chapter.path.parents[2]


def _package(chapter: book.Chapter) -> Path:
    """Folder of the package that belongs to the chapter's clone; the installed one where the clone has none."""
    folder = _top(chapter) / "scprimer"
    return folder if (folder / "__init__.py").is_file() else Path(__file__).resolve().parents[1]


def _of_data_set(name: str, package: Path) -> list[str]:
    """Dotted names of the loader and of the stand-in of a registered data set."""
    from scprimer import data

    if not data.is_registered(name):
        return []
    found = ["scprimer.data.loaders." + data.describe(name).loader.replace(":", ".")]
    standins = symbols.module("scprimer.data.simulate.standins", package)
    for node in standins.definitions.get("STANDINS", []) if standins else []:
        where = ast.literal_eval(node.value).get(name)
        if where:
            found.append("scprimer.data.simulate.standins." + where.replace(":", "."))
    return found


def _pins(chapter: book.Chapter) -> str:
    """Pinned versions that bear on a chapter: lines of constraints.txt for the project's packages and the peers it imports."""
    top = _top(chapter)
    try:
        project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = (top / "constraints.txt").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, KeyError):
        return ""
    names = {_name(need) for need in project.get("dependencies", [])}
    peers = {_name(need) for need in project.get("optional-dependencies", {}).get("reference", [])}
    imported = _imported(_code(chapter)[0])
    names |= {peer for peer in peers if _module(peer) is None or _module(peer) in imported}
    return "\n".join(sorted(line.split("#")[0].strip() for line in lines if _name(line) in names))


# Peers whose import name is not that of the package; None: imported by scanpy rather than by chapters.
_MODULES = {
    "magic-impute": "magic", "pot": "ot", "scikit-image": "skimage", "scikit-misc": None, "scvi-tools": "scvi",
    "xgboost-cpu": "xgboost",
}  # fmt: skip


def _module(package: str) -> str | None:
    return _MODULES.get(package, package.replace("-", "_"))


def _imported(nodes: list[ast.AST]) -> set[str]:
    """Top-level names of the packages that code imports."""
    found = set()
    for node in (inner for tree in nodes for inner in ast.walk(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


# ---- reasons ---------------------------------------------------------------------------------------------------------
def _code_reasons(chapter: book.Chapter, stamp: dict) -> list[str]:
    before, now = str(stamp.get("hash")).split("."), content_hash(chapter).split(".")
    if len(before) != 2:
        return ["its stamp has no hash of the code"]
    said = ("its code has changed", "methods that it imports from scprimer.methods have changed")
    return [words for words, old, new in zip(said, before, now) if old != new]


def _data_reasons(stamp: dict) -> list[str]:
    from scprimer import data

    found = []
    for name, sha256 in stamp.get("data", {}).items():
        if not data.is_registered(name):
            found.append(f"its data set {name} is not in the registry any more")
        elif data.describe(name).sha256 != sha256:
            found.append(f"the registry's hash of its data set {name} has changed")
    return found


def _output_reasons(chapter: book.Chapter) -> list[str]:
    """Cells that have lost their outputs since: a figure would be missing in the page."""
    lost = [
        f"cell {number} ({cell.get('id')}) has not been executed since it was edited"
        for number, cell in enumerate(chapter.notebook["cells"], 1)
        if counts(cell) and book.source(cell).strip() and cell.get("execution_count") is None
    ]
    return lost if len(lost) < 4 else [*lost[:3], f"and {len(lost) - 3} more"]
