"""One chapter, executed once: papermill in a process of its own, with its time and its memory watched.

:func:`run_job` is what a Dask worker runs. It takes and returns plain dicts (the notebook's text included), so that the
worker needs no clone of the book. Run as a program (``python -m scprimer.publish.job FOLDER``) this module is the
process that it starts: it executes the notebook in the folder and exits.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

KERNEL = "scprimer"
POLL_SECONDS = 0.2
TELL_SECONDS = 1.0
START_ATTEMPTS = 3

# Every library that brings its own threads reads one of these.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

# glibc's allocator keeps what is freed, up to a gibibyte. In a kernel with large data it otherwise gives memory back and fetches
# it again at every training step, page by page: a third of the time, measured in the chapter on integration. (32 MiB is the
# largest threshold that older versions take.)
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def run_job(
    job: dict,
    tell: Callable[[dict], None] = lambda event: None,
    wanted: Callable[[], bool] = lambda: True,
) -> dict:
    """Execute one notebook once and say how it went; nothing is raised for what goes wrong in the chapter.

    Args:
        job: ``slug``; ``notebook`` (text of the .ipynb); ``profile``; ``parameters`` (dict, may be empty); ``threads``;
            ``time_limit`` (seconds or None); ``memory_limit`` (bytes of the kernel's process tree, or None);
            ``environment`` (further variables).
        tell: called about once a second with ``{"cell", "of", "seconds", "mb"}``.
        wanted: asked several times a second; when it says no the processes are killed and the job fails as ``stopped``.

    Returns:
        dict with ``ok``; ``seconds`` (wall clock); ``peak_mb`` (largest memory of the kernel and its children);
        ``notebook`` (text of the executed notebook, None unless ok); ``record`` (what ``Run.report`` wrote, or None);
        ``environment`` (versions, hardware); ``failure``: None, or ``{"kind", "words", "cell", "error"}`` where ``kind``
        is ``"cell"``, ``"claims"``, ``"died"``, ``"time"``, ``"memory"``, ``"disk"``, ``"stopped"`` or ``"start"``.
    """
    began = time.monotonic()
    result = {"ok": False, "peak_mb": 0, "notebook": None, "record": None, "environment": {}, "failure": None}
    folder = None
    try:
        # The real path: macOS hands out a symbolic link, and paths in outputs are compared with this one.
        folder = Path(tempfile.mkdtemp(prefix="scprimer-")).resolve()
        _prepare(folder, job)
        result |= _watch(folder, job, began, tell, wanted)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        result["failure"] = _disk_full(folder or Path(tempfile.gettempdir()))
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return result | {"ok": result["failure"] is None, "seconds": time.monotonic() - began}


# ---- the side of the worker ------------------------------------------------------------------------------------------
def _prepare(folder: Path, job: dict) -> None:
    """Lay out the folder: the notebook, the kernel's description, an empty working folder, a temporary folder."""
    for name in ("work", "tmp", "ipython", "runtime", f"jupyter/kernels/{KERNEL}"):
        (folder / name).mkdir(parents=True)
    (folder / "in.ipynb").write_text(job["notebook"], encoding="utf-8")
    # A kernel of our own: the user's "python3" may belong to another environment.
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": KERNEL, "language": "python", "metadata": {"debugger": False}}
    (folder / "jupyter" / "kernels" / KERNEL / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    (folder / "job.json").write_text(json.dumps({"parameters": job["parameters"]}), encoding="utf-8")


def _environment(folder: Path, job: dict) -> dict[str, str]:
    """Environment of the process: the caller's, with what makes a run quiet, repeatable and alone."""
    env = {**KEEP_MEMORY, **os.environ, **job.get("environment", {})}
    threads = str(job["threads"])
    return env | {
        **dict.fromkeys(THREAD_VARIABLES, threads),
        "SCPRIMER_PROFILE": job["profile"],
        "SCPRIMER_RECORD": str(folder / "record.json"),
        "SCPRIMER_QUIET": "1",
        "TQDM_DISABLE": "1",
        "PYTHONHASHSEED": "0",
        "TMPDIR": str(folder / "tmp"),
        "JUPYTER_PATH": str(folder / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(folder / "ipython"),  # side by side, kernels would wait for each other's history
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _watch(folder: Path, job: dict, began: float, tell: Callable, wanted: Callable) -> dict:
    """Start the process, poll its tree until it ends or breaks a limit, and gather what it left in the folder."""
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "scprimer.publish.job", str(folder)],
            stdin=subprocess.PIPE,  # stays open as long as this process lives: see _die_with_parent
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder / "work",
            env=_environment(folder, job),
            start_new_session=True,  # Ctrl-C in the terminal is for the command, which stops us in its own way
        )
    tree = Tree(child.pid)
    failure, told = None, 0.0
    try:
        while child.poll() is None:
            tree.look()
            seconds = time.monotonic() - began
            failure = _limit_broken(job, seconds, tree, wanted)
            if failure:
                break
            if seconds - told >= TELL_SECONDS:
                told = seconds
                tell({**_progress(folder), "seconds": seconds, "mb": round(tree.now / 1e6)})
            time.sleep(POLL_SECONDS)
    finally:
        tree.kill()
        child.kill()
        child.wait()
        child.stdin.close()
    outcome = _read_json(folder / "outcome.json") or {}
    if failure is None and child.returncode != 0:
        failure = outcome.get("failure") or _died(folder, child.returncode)
    if failure is not None:
        failure["cell"] = _current_cell(folder) or failure.get("cell")
    return {
        "peak_mb": round(tree.peak / 1e6),
        "notebook": None if failure else (folder / "out.ipynb").read_text(encoding="utf-8"),
        "record": _read_json(folder / "record.json"),
        "environment": outcome.get("environment", {}),
        "folder": str(folder),
        "failure": failure,
    }


class Tree:
    """Memory of the processes below one process, and their end.

    Attributes:
        now: bytes held at the last look.
        peak: the most ever seen, bytes.
    """

    def __init__(self, pid: int):
        import psutil

        self._psutil = psutil
        self._root = psutil.Process(pid)
        self._seen: dict[int, object] = {}
        self.now = self.peak = 0

    def look(self) -> int:
        """Add up the resident memory of the tree (without its root, which is only papermill)."""
        self._collect()
        resident, high = 0, 0
        for process in list(self._seen.values()):
            try:
                if process.is_running():
                    resident += process.memory_info().rss
                    high = max(high, _high_water(process.pid))
            except self._psutil.Error:
                continue
        self.now = resident
        self.peak = max(self.peak, resident, high)
        return resident

    def unshared(self) -> int:
        """Memory of the tree with shared pages counted once (slow: asked only when a limit seems to be broken)."""
        total = 0
        for process in self._seen.values():
            try:
                info = process.memory_full_info()
                total += getattr(info, "pss", info.uss)
            except self._psutil.Error:
                continue
        return total

    def kill(self) -> None:
        """Kill every process of the tree, and those that left it while we looked (the children of a dead kernel)."""
        self._collect()
        for process in self._seen.values():
            # is_running() compares the start times as well: a number used again by another process is left alone.
            with contextlib.suppress(self._psutil.Error):
                if process.is_running():
                    process.kill()

    def _collect(self) -> None:
        """Note the processes below the root, and below those that once were (orphans of a dead kernel)."""
        below = self._below(self._root)
        known = {child.pid for child in below}
        for orphan in [p for pid, p in self._seen.items() if pid not in known and p.is_running()]:
            below += self._below(orphan)
        for child in below:
            self._seen.setdefault(child.pid, child)
        self._seen = {pid: p for pid, p in self._seen.items() if pid in known or p.is_running()}

    def _below(self, process) -> list:
        try:
            return process.children(recursive=True)
        except self._psutil.Error:
            return []


def _high_water(pid: int) -> int:
    """The most memory that one process ever held, in bytes, where the system tells (Linux); else 0."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _limit_broken(job: dict, seconds: float, tree: Tree, wanted: Callable[[], bool]) -> dict | None:
    if not wanted():
        return {"kind": "stopped", "words": "stopped before it was done"}
    limit = job["time_limit"]
    if limit is not None and seconds > limit:
        return {"kind": "time", "words": f"stopped at its time limit of {limit:g} s (--time-limit)"}
    limit = job["memory_limit"]
    # Resident memory counts shared pages once per process: only a tree that exceeds the limit without them is stopped.
    if limit is not None and tree.now > limit and tree.unshared() > limit:
        return {
            "kind": "memory",
            "words": f"stopped at its memory limit: held {tree.now / 1e9:.2f} GB of {limit / 1e9:.2f} GB (--memory-limit)",
        }
    return None


def _died(folder: Path, code: int) -> dict:
    """The process is gone without a word: disk, or killed from outside."""
    if code in _DISK_ERRORS:
        return _disk_full(folder)
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return {"kind": "died", "words": f"the process that executes the chapter ended ({how})", "error": _log(folder)}


def _log(folder: Path) -> str:
    """The end of what the process and the kernel printed outside the notebook."""
    lines = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line for line in lines if "TCP without encryption" not in line)[-2000:].strip()


def _disk_full(folder: Path) -> dict:
    return {
        "kind": "disk",
        "words": f"no space left in {folder.parent}, where chapters are executed: free some, or set TMPDIR to another disk",
        "cell": None,
        "error": "",
    }


def _progress(folder: Path) -> dict:
    return _read_json(folder / "progress.json") or {"cell": 0, "of": 0}


def _current_cell(folder: Path) -> dict | None:
    """The cell that was running when the process ended, from its progress note and the notebook."""
    at = _progress(folder).get("id")
    notebook = _read_json(folder / "in.ipynb") or {"cells": []}
    for number, cell in enumerate(notebook["cells"], 1):
        if at is not None and cell.get("id") == at:
            return {"number": number, "id": at, "source": "".join(cell["source"])}
    return None


def _read_json(path: Path) -> dict | None:
    """A small JSON file, or None when it is not there or was cut short by the end of its writer."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


# ---- the side of the process -----------------------------------------------------------------------------------------
def main(folder: Path) -> int:
    """Execute ``in.ipynb`` of the folder with papermill; leave ``out.ipynb`` and ``outcome.json`` in it."""
    _die_with_parent(folder)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a worker that ignores it would hand that on to the kernel
    from scprimer.run import environment

    outcome = {"failure": None, "environment": environment() | {"hardware": hardware()}}
    try:
        outcome["failure"] = _execute(folder)
        (folder / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        return error.errno
    return 1 if outcome["failure"] else 0


def _execute(folder: Path) -> dict | None:
    """Run papermill and put what went wrong into words; None when nothing did."""
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    papermill.engines.papermill_engines.register(KERNEL, _engine(folder))
    options = {
        "parameters": job["parameters"], "engine_name": KERNEL, "kernel_name": KERNEL, "language": "python",
        "progress_bar": False, "start_timeout": 120, "request_save_on_cell_execute": False,
    }  # fmt: skip
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            notebook = papermill.execute_notebook(folder / "in.ipynb", None, **options)
            break
        except papermill.PapermillExecutionError as error:
            return _cell_failed(error)
        except DeadKernelError:
            words = "the kernel died: a crash in compiled code, or the system killed it because memory ran out"
            return {"kind": "died", "words": words, "error": _log(folder)}
        except (CellTimeoutError, RuntimeError) as error:  # RuntimeError: the kernel did not start
            # A kernel is told its ports before it opens them. Another program may take one in between: the kernel ends
            # at once, before the first cell, and finds free ports the next time.
            if attempt == START_ATTEMPTS or (folder / "progress.json").exists():
                return {"kind": "start", "words": f"the kernel could not be used: {error}", "error": _log(folder)}
    for cell in notebook.cells:
        cell.outputs = cell.metadata.pop("expected", cell.outputs) if cell.cell_type == "code" else None
        if cell.outputs is None:
            del cell["outputs"]
    (folder / "out.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    return None


def _engine(folder: Path):
    """papermill's engine, with a note of the running cell, and with errors allowed where a cell's tag says so."""
    from papermill.engines import NBClientEngine

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, manager, kernel_name, **options):
            begin, complete = manager.cell_start, manager.cell_complete
            used = [0.0]  # processor seconds of the kernel up to the end of each cell

            def cell_start(cell, cell_index=None, **more):
                note = {"cell": cell_index + 1, "of": len(manager.nb.cells), "id": cell.get("id")}
                temporary = folder / "progress.part"
                temporary.write_text(json.dumps(note), encoding="utf-8")
                temporary.replace(folder / "progress.json")
                begin(cell, cell_index, **more)

            def cell_complete(cell, cell_index=None, **more):
                complete(cell, cell_index, **more)
                used.append(max(processor_seconds(), used[-1]))
                cell.metadata["papermill"]["processor"] = used[-1] - used[-2]

            manager.cell_start, manager.cell_complete = cell_start, cell_complete
            super().execute_managed_notebook(manager, kernel_name, **options)
            manager.nb.metadata.setdefault("papermill", {})["processor"] = used[-1]
            for cell in manager.nb.cells:
                # papermill takes every error output for a failure; a cell that shows one on purpose says so by its tag.
                if "raises-exception" in cell.metadata.get("tags", []):
                    cell.metadata["expected"], cell.outputs = cell.outputs, []

    return Engine


def processor_seconds() -> float:
    """Processor time of all processes below this one, those that have ended included."""
    import psutil

    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended, and its parent has its time
            total += sum(process.cpu_times()[:4])  # of itself and of its ended children, user and system
    return total


def _cell_failed(error) -> dict:
    """What papermill found in a cell's outputs, in words."""
    claims = error.ename == "ClaimFailed"
    return {
        "kind": "claims" if claims else "cell",
        "words": "claims do not hold"
        if claims
        else f"{error.ename}: {_ANSI.sub('', error.evalue).splitlines()[0]}"
        if error.evalue
        else error.ename,
        "cell": {"number": error.cell_index + 1, "id": None, "source": error.source},
        "error": error.evalue if claims else _ANSI.sub("", "\n".join(error.traceback))[-4000:],
    }


def hardware() -> str:
    """What this machine computes with, in a few words: the GPU where there is one, and the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = f"{cores} CPU core{'s' if cores != 1 else ''}"
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return words
    return f"{found.strip()}, {words}"


def _die_with_parent(folder: Path) -> None:
    """End the kernel and this process when the worker is gone: its end of our standard input closes then."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: its lock, held by this thread, would abort the interpreter at its end
        tree = Tree(os.getpid())
        tree.kill()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
