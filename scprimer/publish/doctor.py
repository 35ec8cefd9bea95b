"""Can this machine run the book? In words, with what to do about each thing that is missing.

Nothing here may crash because something is missing: that is what it is there to say.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OLDEST_PYTHON, BELOW_PYTHON = (3, 11, 5), (3, 14)  # as in pyproject.toml, which an installed package has not
GB = 1e9
MEMORY_NEEDED, MEMORY_GOOD = 4 * GB, 8 * GB  # a chapter may take 8 GB at `standard`; most take far less
DISK_NEEDED = 2 * GB


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: a word or two.
        state: ``"fine"``, ``"note"`` (the book runs, something is less good) or ``"stops"`` (it cannot run).
        words: what was found, and what to do.
    """

    what: str
    state: str
    words: str


def examine(kernel: bool = True) -> list[Finding]:
    """Look at everything; with ``kernel`` also start one and let it compute (some seconds)."""
    looks: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("Python", _python), ("packages", _packages), ("pins", _pins), ("torch", _torch), ("memory", _memory),
        ("disk", _disk), ("data", _data), ("clone", _clone),
    ]  # fmt: skip
    if kernel:
        looks.append(("kernel", _kernel))
    found: list[Finding] = []
    for what, look in looks:
        try:
            result = look()
        except Exception as error:  # a broken installation can fail in any way, and the rest is still worth saying
            result = Finding(what, "note", f"could not be looked at: {type(error).__name__}: {error}")
        found += result if isinstance(result, list) else [result]
    return found


def report(found: list[Finding]) -> tuple[str, bool]:
    """The findings as text, and whether the book can run here."""
    marks = {"fine": "ok  ", "note": "note", "stops": "STOP"}
    width = max(len(f.what) for f in found)
    lines = [f"{marks[f.state]}  {f.what:<{width}}  {f.words}" for f in found]
    stops = [f for f in found if f.state == "stops"]
    notes = sum(f.state == "note" for f in found)
    if stops:
        verdict = f"This machine cannot run the book yet: {', '.join(f.what for f in stops)}."
    elif notes:
        verdict = f"This machine can run the book; {notes} thing{'s' if notes > 1 else ''} could be better."
    else:
        verdict = "This machine can run the book."
    return "\n".join([*lines, "", verdict]), not stops


# ---- what the machine has --------------------------------------------------------------------------------------------
def memory_total() -> int:
    """Bytes of memory that processes here may use: the machine's, or the container's limit if that is lower."""
    import psutil

    return min([psutil.virtual_memory().total, *_container_limits()])


def _container_limits() -> list[int]:
    found = []
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return found


# ---- the looks -------------------------------------------------------------------------------------------------------
def _python() -> Finding:
    here = platform.python_version()
    words = f"{here} on {platform.system()} {platform.machine()} ({sys.executable})"
    if not OLDEST_PYTHON <= sys.version_info[:3] < BELOW_PYTHON:
        needed = "3.11 (3.11.5 or newer), 3.12 or 3.13"
        return Finding("Python", "stops", f"{words}: the book needs {needed}; make a new environment with one")
    return Finding("Python", "fine", words)


def _packages() -> list[Finding]:
    """The project's requirements against what is installed, the extras that running needs and the peers included."""
    from importlib.metadata import requires

    needs: dict[str, list[str]] = {"": [], "run": [], "reference": []}
    for line in requires("scprimer") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if (extra[1] if extra else "") in needs:
            needs[extra[1] if extra else ""].append(requirement.strip())
    found = []
    groups = (
        ("", "packages", "stops", "pip install scprimer"),
        ("run", "packages to run", "stops", "pip install 'scprimer[run]'"),
        ("reference", "peers", "note", "pip install 'scprimer[reference]'"),
    )
    for extra, what, state, cure in groups:
        missing, wrong = _unmet(needs[extra])
        if missing or wrong:
            words = [f"missing: {', '.join(missing)}"] if missing else []
            words += [f"outside the range: {', '.join(wrong)}"] if wrong else []
            # A version outside the range may still work; one that is missing cannot.
            found.append(Finding(what, state if missing else "note", f"{'; '.join(words)}. Cure: {cure}"))
        else:
            found.append(Finding(what, "fine", f"all {len(needs[extra])} are there, in their ranges"))
    return found


def _unmet(requirements: list[str]) -> tuple[list[str], list[str]]:
    """Requirements whose package is missing, and those that are installed in another version."""
    from importlib.metadata import PackageNotFoundError, version

    missing, wrong = [], []
    for text in requirements:
        name = re.match(r"[\w.-]+", text)[0]
        try:
            installed = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if not _satisfies(installed, text[len(name) :]):
            wrong.append(f"{name} {installed} ({text})")
    return missing, wrong


def _satisfies(installed: str, specifier: str) -> bool:
    """Whether a version lies in a range such as ``>=1.10,<1.12`` (pre-releases and local parts by their numbers)."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True  # nothing to compare with; that the package is there is all that can be said
    return SpecifierSet(re.sub(r"^\[.*?\]", "", specifier.strip())).contains(installed, prereleases=True)


def _pins() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    from scprimer.publish import book, stamp

    try:
        lines = stamp._pins(book.root()).splitlines()
    except book.BookError:
        return Finding("pins", "fine", "no clone here to compare with")
    differ = []
    for line in lines:
        name, _, pinned = line.partition("==")
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        if installed.split("+")[0] != pinned.split("+")[0]:
            differ.append(f"{name} {installed} (tested: {pinned})")
    if not differ:
        return Finding("pins", "fine", "the versions that are installed are those that were tested together")
    return Finding("pins", "note", f"other versions than those tested together: {', '.join(differ)}")


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", "stops", f"cannot be imported ({error}). Cure: see https://pytorch.org/get-started")
    from scprimer.run import find_device

    device = find_device("auto")
    words = f"{torch.__version__}, device {device}"
    if device == "cuda":
        words += f": {torch.cuda.get_device_name(0)}, {torch.cuda.get_device_properties(0).total_memory / GB:.0f} GB"
    if device == "cpu" and shutil.which("nvidia-smi"):
        return Finding("torch", "note", f"{words}, though there is an NVIDIA driver: this torch was built without CUDA")
    if device == "cpu":
        words += f" with {os.cpu_count()} cores; chapters are made for that, the profile `full` wants a GPU"
    return Finding("torch", "fine", words)


def _memory() -> Finding:
    import psutil

    total, free = memory_total(), psutil.virtual_memory().available
    words = f"{total / GB:.1f} GB, {min(free, total) / GB:.1f} GB of it free"
    if total < MEMORY_NEEDED:
        return Finding("memory", "note", f"{words}: the profile smoke runs; at standard some chapters need more")
    if total < MEMORY_GOOD:
        return Finding("memory", "note", f"{words}: enough for most chapters; the largest take up to 8 GB")
    return Finding("memory", "fine", words)


def _disk() -> list[Finding]:
    found = []
    for what, folder in (("disk for runs", Path(tempfile.gettempdir())), ("disk for data", _cache())):
        there = next(f for f in (folder, *folder.parents) if f.exists())
        free = shutil.disk_usage(there).free
        words = f"{free / GB:.1f} GB free in {folder}"
        if not os.access(there, os.W_OK):
            variable = "TMPDIR" if what == "disk for runs" else "SCPRIMER_CACHE"
            found.append(Finding(what, "stops", f"{folder} cannot be written: set {variable} to a folder that can"))
        elif free < DISK_NEEDED:
            found.append(Finding(what, "note", f"{words}: little; the data sets of all chapters take about 1 GB"))
        else:
            found.append(Finding(what, "fine", words))
    return found


def _cache() -> Path:
    from scprimer.data.download import cache_folder

    return cache_folder()


def _data() -> Finding:
    from scprimer import data
    from scprimer.data.download import mirror_folder, whereabouts

    try:
        mirror = mirror_folder()
    except data.DataError as error:
        return Finding("data", "stops", str(error))
    states = [whereabouts(data.describe(name)) for name in data.names()]
    here = sum(s in ("mirror", "cached") for s in states)
    words = f"{here} of {len(states)} data sets are here" + (f" (mirror: {mirror})" if mirror else "")
    if here < len(states):
        words += "; the rest is downloaded when a chapter asks for it, or now by `scprimer data pull`"
    return Finding("data", "fine", words)


def _clone() -> Finding:
    from scprimer.publish import book

    try:
        top = book.root()
    except book.BookError as error:
        return Finding(
            "clone", "note", f"{error}. The package works; chapters and the commands that run them need a clone"
        )
    return Finding("clone", "fine", f"{len(book.chapters(top))} written chapters in {top}")


def _kernel() -> Finding:
    """Start a kernel and let it compute, in the way that chapters are run."""
    import json

    from scprimer.publish import job

    source = "import scprimer, sys\nassert sum(range(10)) == 45"
    cell = {
        "cell_type": "code",
        "id": "compute",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    result = job.run_job(
        {"slug": "doctor", "notebook": json.dumps(notebook), "profile": "smoke", "parameters": {}, "threads": 1,
         "time_limit": 120, "memory_limit": None}
    )  # fmt: skip
    if result["failure"]:
        failure = result["failure"]
        return Finding(
            "kernel", "stops", f"a Jupyter kernel does not run: {failure['words']}\n{failure.get('error', '')}".strip()
        )
    return Finding("kernel", "fine", f"a Jupyter kernel starts and computes ({result['seconds']:.1f} s)")
