"""Benchmarks: what `benchmarks/*.py` measured, read from their result files, as tables for the book and the README.

A result file (`benchmarks/results/NAME.json`) holds the columns of its table and its runs: one a machine, each with the hardware,
the versions, the settings and a row a contender. Nothing is typed: the README's table stands between two comments, `python -m scprimer.publish.benchmarks` writes it,
and a test compares.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from importlib.metadata import version
from pathlib import Path

from scprimer.publish import book

GPU = "NVIDIA GPU"
ON_GPU = ("countvae",)  # benchmarks that a GPU can run, too
FORMATS = ("text", "count", "seconds", "memory", "value", "ratio")


def read(name: str, top: Path | None = None) -> dict:
    """One benchmark: ``{"columns": {key: [heading, format]}, "runs": [...]}``, the CPU's runs first; no runs when none is recorded.

    Raises:
        BookError: a result file that cannot be read, an unknown format, or rows that lack a column.
    """
    path = (top or book.root()) / "benchmarks" / "results" / f"{name}.json"
    if not path.is_file():
        return {"columns": {}, "runs": []}
    again = f"run `python benchmarks/{name}.py --record`"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        columns, runs = found["columns"], found["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise book.BookError(f"{path} is no result file ({error}): {again}") from error
    if wrong := [kind for _, kind in columns.values() if kind not in FORMATS]:
        raise book.BookError(f"{path} has the format {wrong[0]!r}, which is none of {', '.join(FORMATS)}: {again}")
    for row in (row for run in runs for row in run["rows"]):
        if missing := [c for c in columns if c not in row]:
            raise book.BookError(f"{path}: a row lacks {', '.join(missing)}: {again}")
    return {"columns": columns, "runs": sorted(runs, key=lambda run: (run["device"] != "cpu", run["hardware"]))}


def on_cpu(
    rows: list[dict], setting: str, packages: tuple[str, ...], threads: int, hardware: str | None = None
) -> dict:
    """A run on this machine's processor, as :func:`record` takes it, with today's date and the packages' versions.

    Args:
        rows: a row a contender.
        setting: what was measured, in words.
        packages: whose versions matter.
        threads: of each contender.
        hardware: words for the table; default: the number of cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "hardware": hardware or f"{cores} CPU cores", "device": "cpu", "threads": threads,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "setting": setting,
        "versions": {name: version(name) for name in packages}, "rows": rows,
    }  # fmt: skip


def record(name: str, columns: dict, run: dict, top: Path | None = None) -> Path:
    """Put a run into the result file, in the place of an older one of the same hardware, and return its path.

    Args:
        name: of the benchmark.
        columns: key of a row -> [heading, format], in the order of the table; formats are :data:`FORMATS`.
        run: ``hardware``, ``device``, ``threads``, ``date``, ``setting``, ``versions`` and ``rows``. A row may hold
            ``<key>_sd``, the spread of a value.
        top: top folder of the clone; default: the clone here.
    """
    path = (top or book.root()) / "benchmarks" / "results" / f"{name}.json"
    others = [r for r in read(name, top)["runs"] if (r["hardware"], r["device"]) != (run["hardware"], run["device"])]
    found = {"name": name, "columns": columns, "runs": [*others, run]}
    book.write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return path


def shown(row: dict, key: str, kind: str) -> str:
    """One value of a row as the tables show it: ``kind`` is one of :data:`FORMATS`."""
    value, spread = row[key], row.get(f"{key}_sd")
    if value is None:
        return "–"
    if kind == "text":
        return str(value)
    if kind == "memory":
        return f"{value / 1000:.2f} GB"
    digits = {"count": 0, "value": 1, "ratio": 1, "seconds": 3 if value < 0.1 else 2 if value < 10 else 1}[kind]
    beside = f" ± {spread:,.{digits}f}" if spread is not None else ""
    return f"{value:,.{digits}f}{beside}".replace("-", "−")


def caption(run: dict) -> str:
    """Where, when and with what a run was measured, in one sentence."""
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    threads = "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"
    return f"{run['hardware']}, {threads}, {run['date']}; {run['setting']} ({versions})."


def markdown(name: str, top: Path | None = None) -> str:
    """The tables of a benchmark as Markdown, one a machine; a machine that has not been at hand is said to be missing."""
    found = read(name, top)
    columns, parts = found["columns"], []
    for run in found["runs"]:
        lines = [
            [heading for heading, _ in columns.values()],
            ["---" if k == "text" else "--:" for _, k in columns.values()],
        ]
        lines += [[shown(row, key, kind) for key, (_, kind) in columns.items()] for row in run["rows"]]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption(run)}")
    return "\n\n".join([*parts, *missing(name, found["runs"])])


def missing(name: str, runs: list[dict]) -> list[str]:
    """What has not been measured, in words: nothing, or one sentence."""
    if name in ON_GPU:
        return [] if any(run["device"] == "cuda" for run in runs) else [f"{GPU}: not measured yet."]
    return [] if runs else [f"Not measured yet: run `python benchmarks/{name}.py --record`."]


def readme(text: str, top: Path | None = None) -> str:
    """A README with every block `<!-- benchmark: NAME -->` ... `<!-- /benchmark -->` filled from the result files."""
    return re.sub(
        r"(<!-- benchmark: ([\w-]+) -->\n).*?(<!-- /benchmark -->)",
        lambda found: f"{found[1]}{markdown(found[2], top)}\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    path = book.root() / "README.md"
    book.write_text(path, readme(path.read_text(encoding="utf-8")))
    print(f"{path.name}: tables of the benchmarks written")
