"""A small book in a temporary folder, for tests that run chapters for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from scprimer.publish import book

PARAMETERS = ("profile = None\nseed = 0\nneighbours = 15\ndataset = 'pbmc3k'", "parameters")
REPORT = ("run.report()", "nbval-check-output")


def start(slug: str) -> str:
    return f"import scprimer\nrun = scprimer.start('{slug}', profile=profile, seed=seed, dataset=dataset)"


# A claim that holds over five smoke repeats, with a control that fails its bound.
CLAIM = """\
import random

def measure(seed):
    return 0.8 + 0.01 * random.Random(seed).random()

run.claim("score", "The method works", run.repeat(measure, 3), at_least=0.5, control=0.1, method="pca")
"""


def notebook(*cells: str | tuple[str, str], **meta) -> dict:
    """Cells are code, or markdown when they begin with ``#`` and a blank; a pair adds a tag. Ids are c0, c1, ..."""
    made = []
    for number, entry in enumerate(cells):
        text, *tags = (entry,) if isinstance(entry, str) else entry
        markdown = text.startswith("# ")
        cell = {"cell_type": "markdown" if markdown else "code", "id": f"c{number}", "metadata": {}, "source": text}
        if tags:
            cell["metadata"]["tags"] = tags
        if not markdown:
            cell |= {"outputs": [], "execution_count": None}
        made.append(cell)
    return {
        "cells": made,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "scprimer": {"methods": [], "not_applicable": {}, **meta},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def make(top: Path, **chapters: tuple | list | dict) -> Path:
    """A book with these chapters: slug -> cells (title and parameters are added), or a whole notebook."""
    (top / "notebooks").mkdir(parents=True, exist_ok=True)
    (top / "_toc.yml").touch()
    for slug, cells in chapters.items():
        found = cells if isinstance(cells, dict) else notebook(f"# {slug}\n\nYou will see {slug}.", PARAMETERS, *cells)
        found["metadata"]["scprimer"].setdefault("chapter", slug)
        part = next(part for part, slugs in book.PARTS.items() if slug in slugs)
        book.write_notebook(top / "notebooks" / part / f"{slug}.ipynb", found)
    return top


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SCPRIMER_")}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def command(top: Path, *arguments: str, **more) -> subprocess.CompletedProcess:
    """``scprimer ARGUMENTS`` in the book's folder (or in ``cwd``), as a reader types it."""
    call = [sys.executable, "-m", "scprimer.cli", *arguments]
    more = {"cwd": top, "env": environment(), "timeout": 300, "preexec_fn": None} | more
    return subprocess.run(call, capture_output=True, text=True, check=False, **more)


def snapshot(top: Path) -> dict[str, bytes]:
    """Every file of the book but the journals, which git ignores."""
    files = (p for p in top.rglob("*") if p.is_file() and ".scprimer" not in p.parts)
    return {str(p.relative_to(top)): p.read_bytes() for p in files}


def journal(top: Path) -> dict:
    """The chapters' entries of the newest journal."""
    newest = max((top / ".scprimer" / "runs").glob("*.json"))
    return json.loads(newest.read_text(encoding="utf-8"))["chapters"]
