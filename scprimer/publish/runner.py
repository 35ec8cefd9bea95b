"""Running chapters: side by side on Dask, each in a process of its own; what fails is reported, and the rest goes on.

:func:`run` does everything that ``scprimer run`` does. Nothing is written into the clone but what was asked for
(``record``, ``keep_record``) and the journal in ``.scprimer/``, which git ignores.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import hashlib
import json
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from scprimer.publish import book, job, journal, record, stamp, timing
from scprimer.publish.screen import Screen, bar, clock

PARAMETERS_TAG = "parameters"
# Seconds that one execution may take before it is taken to hang; far above what a chapter may take by the book's rules.
TIME_LIMITS = {"smoke": 300.0, "standard": 3600.0, "full": 3600.0}
POLL_SECONDS = 0.5
CONNECT_SECONDS = 15
ATTEMPTS = 3  # for a chapter that never began because its worker died


@dataclass(frozen=True)
class Request:
    """What to run, and how.

    Attributes:
        chapters: slugs, in the order in which they start.
        profile: ``"smoke"``, ``"standard"`` or ``"full"``.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"`` for the chapters that use torch; ``"auto"``: the best that is there.
        parameters: changed parameters; empty for a run as written.
        record: write outputs, claims and stamp into the notebooks (``standard`` only).
        keep_record: write the claims of a run at ``full`` to ``book/records/full``.
        force: with ``record``: replace outputs even where nothing moved.
        out: folder that keeps the executed notebooks, or None.
        workers: how many chapters run side by side on the local cluster.
        scheduler: address of an existing Dask scheduler, or None for a local cluster.
        threads: threads of numerical libraries in each chapter; None: one when several run side by side, else what the
            environment says, else all cores.
        time_limit: seconds for each execution; None: :data:`TIME_LIMITS`; infinity: none.
        memory_limit: bytes for each execution; None: a fair share of this machine; infinity: none.
    """

    chapters: tuple[str, ...]
    profile: str = "standard"
    device: str = "auto"
    parameters: dict = field(default_factory=dict)
    record: bool = False
    keep_record: bool = False
    force: bool = False
    out: str | None = None
    workers: int = 1
    scheduler: str | None = None
    threads: int | None = None
    time_limit: float | None = None
    memory_limit: float | None = None


@dataclass
class Outcome:
    """How one chapter went: ``"done"``, ``"failed"`` or ``"stopped"`` (before it was done), with what there is to say."""

    slug: str
    state: str
    words: str
    seconds: float = 0.0
    peak_mb: int = 0
    stage: str = ""
    cell: dict | None = None
    error: str = ""


@dataclass(frozen=True)
class _Work:
    """One execution: a chapter's run itself, or one of the smoke repeats that go before a record."""

    slug: str
    profile: str
    seed: int | None = None
    attempt: int = 0

    @property
    def stage(self) -> str:
        return self.profile if self.seed is None else f"smoke, seed {self.seed}"


class Interrupted(KeyboardInterrupt):
    """The run was stopped from the keyboard (or by a signal); everything that it had started is gone."""


def run(
    request: Request, top: Path | None = None, *, resume: bool = False, screen: Screen | None = None
) -> list[Outcome]:
    """Run chapters and report.

    Args:
        request: what to run.
        top: top folder of the clone; default: the clone here.
        resume: leave out what an earlier run with the same settings has done with the same code.
        screen: where the live table and the report go; default: standard output.

    Returns:
        One outcome a chapter (those left out by ``resume`` are not among them).

    Raises:
        BookError: the request makes no sense; nothing was run.
        Interrupted: after Ctrl-C. The journal knows what is left.
    """
    top = top or book.root()
    screen = screen or Screen()
    chapters = check(request, top)
    _check_tools()
    folder = journal.folder_of(top)
    prints = {slug: _fingerprint(request, chapter) for slug, chapter in chapters.items()}
    done = _done_before(request, folder, prints) if resume else {}
    log = journal.Journal.begin(folder, dataclasses.asdict(request), prints)
    for slug in done:
        log.mark(slug, "done", resumed=True)
    todo = {slug: chapter for slug, chapter in chapters.items() if slug not in done}
    if done:
        screen.line(f"done before: {', '.join(done)}")
    if not todo:
        log.finish()
        screen.line("nothing is left to run")
        return []
    session = _Session(request, top, todo, log, screen)
    try:
        with _dask(request, screen) as client:
            try:
                session.run(client)
            except KeyboardInterrupt:
                session.stop(client)
                raise
    except KeyboardInterrupt:
        session.report()
        raise Interrupted from None
    finally:
        screen.table([])
    log.finish()
    session.report()
    return session.outcomes


# ---- before ----------------------------------------------------------------------------------------------------------
def check(request: Request, top: Path) -> dict[str, book.Chapter]:
    """The chapters of a request, after checking that it makes sense.

    Raises:
        BookError: no chapter, an unknown chapter or parameter, a value of the wrong kind, or a record that cannot be.
    """
    if not request.chapters:
        raise book.BookError("nothing to run: name chapters, or use --all or --stale; `scprimer list` shows them")
    if request.record:
        if request.profile != "standard":
            raise book.BookError(
                f"--record writes runs of the profile standard into the notebooks, and this is {request.profile}"
                + ("; --keep-record writes book/records/full" if request.profile == "full" else "")
            )
        if request.parameters:
            raise book.BookError(
                f"--record keeps what the chapter does as written: leave -p {' -p '.join(request.parameters)} out"
            )
    if request.keep_record and (request.profile != "full" or request.parameters):
        raise book.BookError("--keep-record keeps runs of --profile full with the parameters as written")
    if request.out and Path(request.out).resolve() in ((top / "notebooks").resolve(), top.resolve()):
        raise book.BookError("--out is for an edition beside the clone's notebooks; --record writes into them")
    chapters = {chapter.slug: chapter for chapter in (book.find(name, top) for name in request.chapters)}
    for chapter in chapters.values():
        known = parameters(chapter)
        for name, value in request.parameters.items():
            _check_parameter(chapter, known, name, value)
        if request.record and "seed" not in known and not chapter.meta.get("not_applicable", {}).get("seed"):
            raise book.BookError(
                f"{chapter.slug}: its parameters cell has no `seed`, which the smoke repeats change; where seeds make no "
                'sense, the notebook\'s metadata says why in not_applicable["seed"]'
            )
    return chapters


def _check_tools() -> None:
    """The packages that running needs; an environment that only renders the book has none of them."""
    missing = [name for name in ("distributed", "ipykernel", "nbclient", "papermill", "psutil") if not find_spec(name)]
    if missing:
        raise book.BookError(f"running chapters needs {', '.join(missing)}: pip install 'scprimer[run]'")


def parameters(chapter: book.Chapter) -> dict:
    """The chapter's parameters and their values as written (``...`` for one that is no literal)."""
    found = {}
    for cell in chapter.notebook["cells"]:
        if cell["cell_type"] == "code" and PARAMETERS_TAG in book.tags(cell):
            for node in ast.parse(book.source(cell)).body:
                if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                    try:
                        found[node.targets[0].id] = ast.literal_eval(node.value)
                    except ValueError:
                        found[node.targets[0].id] = ...
    return found


def _check_parameter(chapter: book.Chapter, known: dict, name: str, value: object) -> None:
    if name in ("profile", "device"):
        raise book.BookError(f"a request has the {name} in a field of its own, not among the parameters")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        there = ", ".join(known) or "none"
        raise book.BookError(
            f"{chapter.slug} has no parameter {name!r}"
            + (f": did you mean {near[0]!r}?" if near else "")
            + f" Its parameters: {there}"
        )
    written = known[name]
    numbers = (int, float)
    if isinstance(written, numbers) and not isinstance(written, bool) and not isinstance(value, numbers):
        raise book.BookError(f"{chapter.slug}: the parameter {name} is a number ({written!r}), and {value!r} is none")


def parse_parameters(pairs: list[tuple[str, str]], cwd: Path | None = None) -> dict:
    """``-p name value`` pairs as Python values: literals where they are some, else text.

    ``dataset`` is a registered name or a file; a file is looked for in the caller's folder ``cwd``.

    Raises:
        BookError: a parameter given twice, or a data set that is neither registered nor a file.
    """
    found: dict = {}
    for name, text in pairs:
        if name in found:
            raise book.BookError(f"the parameter {name} is given twice")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
        if name == "dataset":
            found[name] = _data_set(text, cwd or Path.cwd())
    return found


def _data_set(text: str, cwd: Path) -> str:
    from scprimer import data

    if data.is_registered(text):
        return text
    path = (cwd / Path(text).expanduser()).resolve()
    if path.exists():
        return str(path)
    if "/" in text or os.sep in text or Path(text).suffix:
        raise book.BookError(f"no file at {path}")
    data.describe(text)  # raises, with the nearest name
    return text


def _fingerprint(request: Request, chapter: book.Chapter) -> str:
    """What must be the same for an earlier run to count: the chapter's cells and the request's settings."""
    cells = [c for c in chapter.notebook["cells"] if c["cell_type"] == "code"]
    code = "\n\n".join(map(book.source, cells))
    return stamp.symbols.digest(json.dumps([_settings(request), stamp.content_hash(chapter), code]))


def _settings(request: Request) -> list:
    out = str(Path(request.out).resolve()) if request.out else None
    parameters = sorted(map(repr, request.parameters.items()))
    return [request.profile, request.device, parameters, request.record, request.keep_record, out]


def _done_before(request: Request, folder: Path, prints: dict[str, str]) -> dict[str, str]:
    """Chapters that the newest run that knows them, with the same code and settings, has done."""
    verdict: dict[str, bool] = {}
    for old in journal.past(folder):
        for slug, entry in old.data["chapters"].items():
            if entry.get("fingerprint") == prints.get(slug):
                verdict.setdefault(slug, entry["state"] == "done")
    if request.out:
        for slug in verdict:
            verdict[slug] = verdict[slug] and edition_path(Path(request.out), slug).is_file()
    return {slug: prints[slug] for slug in prints if verdict.get(slug)}


def last_request(top: Path) -> Request:
    """What the last run that ended before it was done was asked for (``--resume`` without chapters).

    Raises:
        BookError: there is none.
    """
    for old in journal.past(journal.folder_of(top)):
        if old.alive:
            continue
        if not old.left():
            break
        asked = old.data["request"]
        return Request(**asked | {"chapters": tuple(asked["chapters"])})
    raise book.BookError("nothing is left of the last run: name the chapters to run, or use --all")


def edition_path(out: Path, slug: str) -> Path:
    """Where ``--out`` keeps a chapter: the folder takes the place of ``notebooks/``."""
    part = next(part for part, slugs in book.PARTS.items() if slug in slugs)
    return out / part / f"{slug}.ipynb"


# ---- Dask ------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _dask(request: Request, screen: Screen) -> Iterator:
    """A client of the local cluster or of the scheduler that was named; closed, with all that runs, at the end."""
    import dask
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if request.scheduler is None:
        settings = {
            "distributed.scheduler.allowed-failures": 1,  # a worker that dies twice with the same chapter
            "distributed.scheduler.worker-saturation": 1.0,  # no chapter waits on a worker, and dies with it
            "distributed.worker.daemon": True,
            # Nobody looks at Dask's own statistics, and taking them costs a tenth of a core beside each chapter
            "distributed.worker.profile.enabled": False,
            "distributed.admin.tick.interval": "1s",
            "distributed.admin.system-monitor.interval": "5s",
            "distributed.admin.log-format": "%(message)s",
        }
        with (
            tempfile.TemporaryDirectory(prefix="scprimer-dask-", ignore_cleanup_errors=True) as scratch,
            dask.config.set(settings),
            LocalCluster(
                n_workers=request.workers, processes=True, threads_per_worker=1, memory_limit=0,
                dashboard_address=None, local_directory=scratch, silence_logs=logging.CRITICAL + 1,
                # None still opens the scheduler's health page on 8787, and complains when another run has that port
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            client.run(_ignore_interrupts)
            yield client
        return
    try:
        client = Client(request.scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise book.BookError(f"no Dask scheduler answers at {request.scheduler}: {error}") from None
    with client:
        _check_workers(client, request, screen)
        yield client


def _ignore_interrupts() -> None:
    """Ctrl-C in a terminal reaches the workers, too; what it means is for the command to decide."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check_workers(client, request: Request, screen: Screen) -> None:
    """The workers of an existing cluster must have this very scprimer."""
    if not client.scheduler_info(n_workers=-1)["workers"]:
        screen.line(f"waiting for workers at {request.scheduler} ...")
    try:
        client.wait_for_workers(1, timeout=60)
        theirs = client.run(package_digest)
    except TimeoutError:
        raise book.BookError(f"the scheduler at {request.scheduler} has no workers: start some and try again") from None
    except ModuleNotFoundError as error:
        raise book.BookError(
            f"a worker at {request.scheduler} misses {error.name}: install the same scprimer there"
        ) from None
    others = [address for address, found in theirs.items() if found != package_digest()]
    if others and (request.record or request.keep_record):
        raise book.BookError(f"{others[0]} has another scprimer than this clone, so its runs cannot be recorded here")
    if others:
        screen.line(f"note: {len(others)} of {len(theirs)} workers have another scprimer than this one")


def package_digest() -> str:
    """One hash over the source of the installed scprimer (its generated files included)."""
    folder = Path(__file__).resolve().parents[1]
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        hashed.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return hashed.hexdigest()


def execute(work: dict, topic: str, key: str) -> dict:
    """What a Dask worker does: :func:`scprimer.publish.job.run_job`, telling the client, as long as the client wants it."""
    from distributed import get_worker

    worker = get_worker()

    def tell(event: dict) -> None:
        worker.log_event(topic, {**event, "key": key})

    def wanted() -> bool:
        # Cancelled by the client, or the client is gone: either way the scheduler takes the task back.
        task = worker.state.tasks.get(key)
        return task is not None and task.state in ("executing", "long-running")

    tell({"cell": 0, "of": 0, "seconds": 0.0, "mb": 0})
    return job.run_job(work, tell, wanted)


# ---- during ----------------------------------------------------------------------------------------------------------
class _Session:
    """The state of a run while it goes on."""

    def __init__(self, request: Request, top: Path, todo: dict, log: journal.Journal, screen: Screen):
        self.request, self.top, self.todo, self.log, self.screen = request, top, todo, log, screen
        self.outcomes: list[Outcome] = []
        self.id = f"scprimer-{os.getpid()}-{time.time_ns()}"
        self.began = time.monotonic()
        self.works: dict = {}  # future -> _Work
        self.live: dict[str, dict] = {}  # key -> last event
        self.smoke: dict[str, dict[int, dict]] = {slug: {} for slug in todo}
        self.warned = False
        self.threads = _threads(request)
        self.memory = _memory_limit(request)

    def run(self, client) -> None:
        """Submit, wait, and take in what comes back until nothing is left."""
        from distributed import CancelledError, wait

        client.subscribe_topic(self.id, self._heard)
        for chapter in self.todo.values():
            for work in self._first(chapter):
                self._submit(client, work)
        while self.works:
            try:
                finished = wait(list(self.works), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                finished = []
            except CancelledError:  # not by us: the scheduler is gone, or somebody cleared it
                finished = [f for f in self.works if f.status in ("cancelled", "lost")]
            for future in finished:
                work = self.works.pop(future, None)
                if work is None:  # its chapter was refused by another that finished at the same moment
                    continue
                began = self.live.pop(self._key(work), None) is not None
                result = _result(future)
                if (
                    result["failure"]
                    and result["failure"]["kind"] == "worker"
                    and not began
                    and work.attempt < ATTEMPTS
                ):
                    # It only waited where another chapter brought the worker down.
                    self._submit(client, dataclasses.replace(work, attempt=work.attempt + 1))
                else:
                    self._take(client, work, result)
            self.screen.table(self._rows())

    def stop(self, client) -> None:
        """Call everything back; the workers kill their kernels when they notice."""
        self.screen.table([])
        self.screen.line("stopping ...")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C would leave kernels behind
        client.cancel(list(self.works), force=True)
        time.sleep(4 * job.POLL_SECONDS)

    def _first(self, chapter: book.Chapter) -> list[_Work]:
        """What runs first: before a record the smoke repeats, which may refuse it in minutes."""
        if not self.request.record:
            return [_Work(chapter.slug, self.request.profile)]
        seeds = record.SMOKE_SEEDS if "seed" in parameters(chapter) else record.SMOKE_SEEDS[:1]
        return [_Work(chapter.slug, "smoke", seed) for seed in seeds]

    def _submit(self, client, work: _Work) -> None:
        chapter, smoke = self.todo[work.slug], work.seed is not None
        changed = {"seed": work.seed} if smoke and "seed" in parameters(chapter) else {}
        limit = self.request.time_limit or TIME_LIMITS[work.profile]
        what = {
            "slug": work.slug,
            "notebook": json.dumps(chapter.notebook),
            "profile": work.profile,
            "parameters": changed if smoke else self.request.parameters,
            "threads": 1 if smoke else self.threads,
            "time_limit": None if limit == float("inf") else limit,
            "memory_limit": self.memory,
            "environment": _variables() | _device(self.request),
        }
        key = self._key(work)
        # A later stage goes first: a chapter is finished before the next is begun.
        future = client.submit(execute, what, self.id, key, key=key, pure=False, retries=1, priority=0 if smoke else 10)
        self.works[future] = work

    def _key(self, work: _Work) -> str:
        return f"{self.id}-{work.slug}-{work.stage}-{work.attempt}"

    def _heard(self, event: tuple) -> None:
        """An event from a worker; runs in the client's own thread."""
        said = event[1]
        if said["key"] not in self.live and not self.screen.live:
            slug, stage = next(
                ((w.slug, w.stage) for w in list(self.works.values()) if self._key(w) == said["key"]), ("", "")
            )
            self.screen.line(f"{slug}: started ({stage})")
        self.live[said["key"]] = {**said, "heard": time.monotonic()}

    def _take(self, client, work: _Work, result: dict) -> None:
        """One execution came back."""
        slug, failure = work.slug, result["failure"]
        smoke = work.seed is not None
        if failure and not (smoke and failure["kind"] == "claims" and result["record"]):
            self._end(client, Outcome(
                slug, "failed", failure["words"], result["seconds"], result["peak_mb"], work.stage,
                failure.get("cell"), failure.get("error", ""),
            ))  # fmt: skip
            return
        try:
            if smoke:
                self._smoke_done(client, work, result)
            else:
                self._end(client, self._finish(work, result))
        except record.Refused as refused:
            words = "refused: " + ("; ".join(r.split(":")[0] for r in refused.reasons))
            self._end(client, Outcome(slug, "failed", words, result["seconds"], result["peak_mb"], work.stage,
                                      None, "\n".join(refused.reasons)))  # fmt: skip
        except OSError as error:
            words = (
                f"it ran, but could not be written: {error.strerror} ({error.filename or self.request.out or self.top})"
            )
            self._end(client, Outcome(slug, "failed", words, result["seconds"], result["peak_mb"], work.stage))

    def _smoke_done(self, client, work: _Work, result: dict) -> None:
        chapter, results = self.todo[work.slug], self.smoke[work.slug]
        # Found now, they do not cost a long run. (One whose claims fail has left no outputs; the claims are judged below.)
        reasons = record.output_faults(chapter, result) if result["notebook"] else []
        if reasons:
            raise record.Refused(reasons)
        results[work.seed] = result
        seeds = sorted(results)
        if any(w.slug == work.slug for w in self.works.values()):
            return
        no_record = [s for s in seeds if not results[s]["record"]]
        if no_record:
            raise record.Refused([f"{work.slug} wrote no record: its last code cell must be run.report()"])
        not_applicable = chapter.meta.get("not_applicable", {})
        claims = [results[s]["record"]["claims"] for s in seeds]
        reasons = record.judge_smoke(claims, seeds, not_applicable)
        if reasons:
            raise record.Refused(reasons)
        self._submit(client, _Work(work.slug, self.request.profile))

    def _finish(self, work: _Work, result: dict) -> Outcome:
        """A chapter's run came to a good end: write what was asked for."""
        chapter, said = self.todo[work.slug], []
        if (self.request.record or self.request.keep_record) and not result["record"]:
            raise record.Refused([f"{work.slug} wrote no record: its last code cell must be run.report()"])
        if self.request.record:
            reasons = record.judge_run(result["record"]["claims"], work.profile, chapter.meta.get("not_applicable", {}))
            if reasons:
                raise record.Refused(reasons)
            said.append(record.write_back(chapter, result, self.request.force))
            seeds = sorted(self.smoke[work.slug])
            repeats = [self.smoke[work.slug][s] for s in seeds]
            record.keep(self.top, record.smoke_record(chapter, repeats, seeds, result["record"]["data"]))
            timing.write(self.top, [book.find(work.slug, self.top)])
        if self.request.keep_record:
            kept = record.keep(self.top, record.full_record(chapter, result))
            said.append(f"book/records/{work.profile}/{work.slug}.json {'written' if kept else 'stands'}")
            timing.write(self.top, [book.find(work.slug, self.top)])
        if self.request.out:
            path = edition_path(Path(self.request.out), work.slug)
            book.write_notebook(path, record.edition(chapter, result, bool(self.request.parameters)))
        return Outcome(work.slug, "done", "; ".join(said) or "done", result["seconds"], result["peak_mb"], work.stage)

    def _end(self, client, outcome: Outcome) -> None:
        """A chapter is over; what else was submitted for it is called back."""
        self.outcomes.append(outcome)
        others = [f for f, w in self.works.items() if w.slug == outcome.slug]
        client.cancel(others)
        for future in others:
            del self.works[future]
        facts = {"words": outcome.words, "seconds": round(outcome.seconds, 1), "peak_mb": outcome.peak_mb}
        self.log.mark(outcome.slug, outcome.state, **facts)
        word = outcome.words if outcome.state == "done" else f"FAILED, {outcome.words.splitlines()[0]}"
        cost = f"{clock(outcome.seconds)}, {outcome.peak_mb:,} MB"
        self.screen.line(f"[{len(self.outcomes)}/{len(self.todo)}] {outcome.slug}: {word} ({cost})")
        if self.log.broken and not self.warned:
            self.warned = True
            self.screen.line(f"note: the journal cannot be written ({self.log.broken}); --resume will not know of this")

    def _rows(self) -> list[str]:
        """The live table: one row a running execution, and a last one for the whole."""
        rows, running = [], {self._key(w): w for w in self.works.values()}
        for key, said in sorted(self.live.items()):
            if key not in running:
                continue
            work = running[key]
            seconds = said["seconds"] + time.monotonic() - said["heard"]
            cells = f"{bar(said['cell'] - 1, said['of'])} cell {said['cell']:>3}/{said['of']:<3}" if said["of"] else ""
            rows.append(f"{work.slug:<18} {work.stage:<13} {cells:<36} {clock(seconds):>8} {said['mb']:>7,} MB")
        failed = sum(o.state != "done" for o in self.outcomes)
        over, total = len(self.outcomes), len(self.todo)
        words = f"{over} of {total} chapters" + (f", {failed} failed" if failed else "")
        return [*rows, f"{bar(over, total)} {words}  {clock(time.monotonic() - self.began)}"]

    # ---- after -------------------------------------------------------------------------------------------------------
    def report(self) -> None:
        """Say at the end what happened: every chapter's cost, every failure with its cell and its error."""
        line = self.screen.line
        over = {o.slug for o in self.outcomes}
        failed = [o for o in self.outcomes if o.state == "failed"]
        for outcome in failed:
            line()
            line(f"---- {outcome.slug} ({outcome.stage}): {outcome.words}")
            line(f"     after {outcome.seconds:.0f} s, peak memory {outcome.peak_mb:,} MB")
            if outcome.cell:
                line(f"     in cell {outcome.cell['number']} ({outcome.cell['id']}):")
                line("\n".join(f"     | {text}" for text in outcome.cell["source"].splitlines()))
            if outcome.error:
                line("\n".join(f"     {text}" for text in outcome.error.splitlines()))
        left = [slug for slug in self.todo if slug not in over]
        line()
        line(f"{len(over) - len(failed)} of {len(self.todo)} chapters done in {clock(time.monotonic() - self.began)}"
             + (f", {len(failed)} failed: {', '.join(o.slug for o in failed)}" if failed else "")
             + (f", {len(left)} not done: {', '.join(left)}" if left else ""))  # fmt: skip
        if failed or left:
            line("`scprimer run --resume` does what is left")


def _result(future) -> dict:
    """What a task returned; a task that did not is a failure of its chapter."""
    result = {"ok": False, "seconds": 0.0, "peak_mb": 0, "notebook": None, "record": None, "environment": {}}
    if future.status == "finished":
        return future.result()
    if future.status in ("cancelled", "lost"):
        return result | {"failure": {"kind": "stopped", "words": "the scheduler took it back before it was done"}}
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        words = "the Dask worker that ran it died: killed from outside, or out of memory"
        return result | {"failure": {"kind": "worker", "words": words}}
    return result | {"failure": {"kind": "start", "words": f"{type(error).__name__}: {error}"}}


def _threads(request: Request) -> int:
    if request.threads:
        return request.threads
    if request.workers > 1 or request.scheduler:
        return 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_limit(request: Request) -> float | None:
    """Bytes for one execution: as asked, or nine tenths of this machine shared by those that run side by side."""
    if request.memory_limit is not None:
        return None if request.memory_limit == float("inf") else request.memory_limit
    if request.scheduler:
        return None  # its machines are not this one; its own limits hold
    from scprimer.publish import doctor

    return 0.9 * doctor.memory_total() / request.workers


def _device(request: Request) -> dict[str, str]:
    """The device as a variable for the workers; unset where it is left to them, whose machines may be others."""
    return {} if request.device == "auto" else {"SCPRIMER_DEVICE": request.device}


def _variables() -> dict[str, str]:
    """The caller's SCPRIMER_ variables for the workers, with folders made absolute: a chapter runs in another folder."""
    found = {}
    for name, value in os.environ.items():
        if name.startswith("SCPRIMER_"):
            folder = name in ("SCPRIMER_MIRROR", "SCPRIMER_CACHE") and value
            found[name] = str(Path(value).expanduser().resolve()) if folder else value
    return found
