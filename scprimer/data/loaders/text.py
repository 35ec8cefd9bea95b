"""Plain-text formats of the field: GMT gene sets and position frequency matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scprimer.data.errors import FormatError


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Gene sets of a GMT file: name -> genes, in the file's order (fields: name, description, genes, tab-separated).

    Raises:
        FormatError: a line has no genes, or a name occurs twice.
    """
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, *rest = line.split("\t")
        genes = [g.strip() for g in rest[1:] if g.strip()]
        if not genes or name in sets:
            raise FormatError(
                f"{Path(path).name}, line {number}: {'no genes' if not genes else f'{name!r} occurs twice'}"
            )
        sets[name] = genes
    return sets


def read_pfm(path: Path) -> dict[str, np.ndarray]:
    """Position frequency matrices: name -> counts, positions x 4 (A, C, G, T).

    Each matrix is a line ``>name`` followed by one line a position; lines with ``#`` are comments.

    Raises:
        FormatError: a position does not have four numbers, or a matrix is empty.
    """
    found: dict[str, list[list[float]]] = {}
    rows: list[list[float]] | None = None
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(">"):
            rows = found.setdefault(line[1:].strip(), [])
            continue
        values = line.split()
        if rows is None or len(values) != 4:
            raise FormatError(f"{Path(path).name}, line {number}: four numbers (A, C, G, T) below a name were expected")
        rows.append([float(v) for v in values])
    if not found or not all(found.values()):
        raise FormatError(f"{Path(path).name} holds no matrices, or an empty one")
    return {name: np.array(rows) for name, rows in found.items()}
