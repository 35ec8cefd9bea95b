"""Exercises: read them from a chapter, derive what the student gets, and run an answer against its check.

An exercise is a markdown cell (tag ``exercise``) and code cells (``exercise-setup``, ``exercise-solution``,
``exercise-check``), all with ``scprimer.exercise`` in their metadata. Only the solution is written; the stub is derived.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from scprimer.publish import book

LEVELS = ("recall", "apply", "project")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = "# your code here\nraise NotImplementedError"
LIMIT = 5.0  # seconds for set-up, answer and check together


@dataclass(frozen=True)
class Exercise:
    """One exercise of one chapter.

    Attributes:
        chapter: slug of the chapter.
        id: unique in the book, such as ``"qc-mitochondria"``.
        level: one of :data:`LEVELS`.
        title: a few words.
        task: the markdown that sets it.
        setup: source that runs before the answer (may be empty).
        solution: source of the committed solution, with its markers; empty for an open exercise.
        check: source of the asserts; empty for an open exercise.
        wrong: plausible wrong solution bodies; the check must fail on each.
        right: other right solution bodies, written as other people would; the check must pass on each.
        cells: ids of its cells, the task's first.
    """

    chapter: str
    id: str
    level: str
    title: str
    task: str
    setup: str
    solution: str
    check: str
    wrong: tuple[str, ...]
    right: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def open(self) -> bool:
        """True when there is nothing to check: a question for thought or a free project."""
        return not self.check and not self.solution

    @property
    def stub(self) -> str:
        """What the student gets: the solution with what stands between the markers taken out."""
        return with_body(self.solution, STUB)

    @property
    def wrong_answers(self) -> tuple[str, ...]:
        """The solution cell with each plausible wrong body in place of the right one."""
        return tuple(with_body(self.solution, body) for body in self.wrong)

    @property
    def right_answers(self) -> tuple[str, ...]:
        """The solution cell with each other right body in place of the committed one."""
        return tuple(with_body(self.solution, body) for body in self.right)


@dataclass(frozen=True)
class Outcome:
    """What happened to an answer.

    Attributes:
        passed: the check passed within the time limit.
        stage: where it ended: ``"setup"``, ``"answer"``, ``"check"``, or ``"passed"``.
        error: name of the exception's class (``"AssertionError"``, ``"TimeLimit"``, ...), or None.
        message: the exception's words.
        seconds: wall-clock time of all three together.
    """

    passed: bool
    stage: str
    error: str | None
    message: str
    seconds: float


@dataclass(frozen=True)
class Problem:
    """Something about an exercise that its author must mend; ``cell_id`` is None when no one cell is at fault."""

    cell_id: str | None
    words: str
    fix: str


class TimeLimit(BaseException):
    """The answer ran for too long. Not an Exception, so that an answer's own ``except`` cannot swallow it."""


def with_body(solution: str, body: str) -> str:
    """``solution`` with ``body`` (indented as the opening marker is) in place of the markers and what they enclose.

    Raises:
        BookError: not exactly one pair of markers.
    """
    lines = solution.splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip() == BEGIN]
    ends = [i for i, line in enumerate(lines) if line.strip() == END]
    if len(starts) != 1 or len(ends) != 1 or starts[0] > ends[0]:
        raise book.BookError(f"a solution has exactly one `{BEGIN}` and, below it, one `{END}`, each on its own line")
    indent = lines[starts[0]][: len(lines[starts[0]]) - len(lines[starts[0]].lstrip())]
    filled = textwrap.indent(textwrap.dedent(body).strip("\n"), indent)
    return "\n".join([*lines[: starts[0]], *filled.splitlines(), *lines[ends[0] + 1 :]])


def exercises(chapter: book.Chapter) -> list[Exercise]:
    """The exercises of a chapter, in order; what is malformed is left to :func:`problems`."""
    groups: dict[str, list[dict]] = {}
    for cell in chapter.notebook["cells"]:
        id = _exercise_id(cell)
        if id:
            groups.setdefault(id, []).append(cell)
    found = []
    for id, cells in groups.items():
        heads = [m for c in cells if isinstance(m := _exercise_meta(c), dict) and "level" in m]
        head = heads[0] if heads else {}
        wrong, right = (
            tuple(b for c in cells for b in c["metadata"]["scprimer"].get(k, [])) for k in ("wrong", "right")
        )
        found.append(
            Exercise(
                chapter=chapter.slug,
                id=id,
                level=head.get("level", ""),
                title=head.get("title", ""),
                task="\n\n".join(book.source(c) for c in cells if c["cell_type"] == "markdown"),
                setup=_joined(cells, "exercise-setup"),
                solution=_joined(cells, "exercise-solution"),
                check=_joined(cells, "exercise-check"),
                wrong=wrong,
                right=right,
                cells=tuple(c["id"] for c in cells),
            )
        )
    return found


def run_exercise(exercise: Exercise, answer: str | None = None, limit: float = LIMIT) -> Outcome:
    """Run set-up, ``answer`` and check in a fresh namespace of this process; what they print is dropped.

    The libraries that the exercise imports are loaded before the clock starts.

    Args:
        exercise: the exercise.
        answer: source in place of the solution cell; default: the committed solution.
        limit: seconds for all three together.

    Returns:
        The :class:`Outcome`; whatever the code raises is in it, except ``KeyboardInterrupt``.
    """
    namespace = {"__name__": "exercise"}
    stages = {
        "setup": exercise.setup,
        "answer": exercise.solution if answer is None else answer,
        "check": exercise.check,
    }
    _load_libraries(exercise)
    began = time.perf_counter()
    stage, error, message = "setup", None, ""
    try:
        with _time_limit(limit), contextlib.redirect_stdout(io.StringIO()):
            for stage, source in stages.items():
                exec(compile(source, f"<{exercise.id}: {stage}>", "exec", dont_inherit=True), namespace)
    except (Exception, SystemExit, TimeLimit) as raised:
        error, message = type(raised).__name__, str(raised)
    seconds = time.perf_counter() - began
    if error is None and seconds > limit:  # where no alarm could be set
        error, message = "TimeLimit", _too_long(limit)
    return Outcome(error is None, stage if error else "passed", error, message, seconds)


def problems(chapter: book.Chapter) -> list[Problem]:
    """What is wrong with the form of a chapter's exercises (running them is the tests' part)."""
    found = [*_cell_problems(chapter)]
    every = exercises(chapter)
    if not 3 <= len(every) <= 5:
        found.append(Problem(None, f"{len(every)} exercises", "a chapter has three to five, from recall to project"))
    ranks = [LEVELS.index(e.level) for e in every if e.level in LEVELS]
    if every and (ranks != sorted(ranks) or not ranks or ranks[0] != 0 or ranks[-1] != len(LEVELS) - 1):
        levels = ", ".join(e.level or "none" for e in every)
        found.append(Problem(None, f"levels are {levels}", "begin with recall, then apply, end with project"))
    if every and all(e.open for e in every):
        found.append(Problem(None, "no exercise is checked", "give at least one a solution and a check"))
    for exercise in every:
        found += _problems_of(exercise)
    return found


def _problems_of(exercise: Exercise) -> Iterator[Problem]:
    at, name = exercise.cells[0], f"exercise {exercise.id!r}"
    if exercise.level not in LEVELS or not exercise.title:
        yield Problem(
            at,
            f"{name} has level {exercise.level!r} and title {exercise.title!r}",
            f'metadata of its markdown cell: scprimer: {{"exercise": {{"id", "level" ({", ".join(LEVELS)}), "title"}}}}',
        )
    if not exercise.task.strip():
        yield Problem(at, f"{name} sets no task", "open it with a markdown cell tagged `exercise`")
    if exercise.open:
        return
    if not exercise.solution or not exercise.check:
        yield Problem(
            at, f"{name} has a solution or a check but not both", "give both, or neither for an open question"
        )
        return
    try:
        _ = exercise.stub
    except book.BookError as error:
        yield Problem(at, f"{name}: {error}", "put the markers around the lines that the student writes")
    if not exercise.wrong:
        yield Problem(
            at,
            f"{name} lists no wrong answer",
            'give at least one plausible wrong body in the solution cell: scprimer: {"wrong": ["..."]}',
        )
    if not exercise.right:
        yield Problem(
            at,
            f"{name} lists no other right answer",
            'give at least one right body that is written differently: scprimer: {"right": ["..."]}',
        )
    try:
        asserts = [n for n in ast.walk(ast.parse(exercise.check)) if isinstance(n, ast.Assert)]
    except SyntaxError as error:
        yield Problem(at, f"the check of {name} is not valid Python: {error}", "mend it")
        return
    if not asserts or any(node.msg is None for node in asserts):
        yield Problem(
            at, f"the check of {name} has no assert, or one without words", 'write `assert ..., "what is wrong"`'
        )


def _cell_problems(chapter: book.Chapter) -> Iterator[Problem]:
    """Cells that carry a tag of an exercise but do not say of which, or solutions that are not folded."""
    heads: set[str] = set()
    for cell in chapter.notebook["cells"]:
        tags, id = book.tags(cell), _exercise_id(cell)
        if any(t == "exercise" or t.startswith("exercise-") for t in tags) and not id:
            yield Problem(
                cell["id"], "the cell is tagged as an exercise's but names none", "add scprimer.exercise: its id"
            )
        if "exercise-solution" in tags and "hide-cell" not in tags:
            yield Problem(cell["id"], "the solution is not folded in the page", "add the tag `hide-cell`")
        if (
            cell["cell_type"] == "markdown"
            and isinstance(_exercise_meta(cell), dict)
            and "level" in _exercise_meta(cell)
        ):
            if id in heads:
                yield Problem(cell["id"], f"the exercise id {id!r} is used twice", "ids are unique")
            if not id or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", id):
                yield Problem(cell["id"], f"the exercise id {id!r} is not lower-case words and hyphens", "rename it")
            heads.add(id)


def _load_libraries(exercise: Exercise) -> None:
    """Import what the exercise's own code imports; what cannot be imported fails where the code asks for it."""
    names = set()
    for source in (exercise.setup, exercise.solution, exercise.check):
        with contextlib.suppress(SyntaxError):
            for node in ast.walk(ast.parse(source)):
                names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
                names |= {node.module} if isinstance(node, ast.ImportFrom) and node.module else set()
    for name in sorted(names):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _exercise_meta(cell: dict) -> dict | str | None:
    return cell.get("metadata", {}).get("scprimer", {}).get("exercise")


def _exercise_id(cell: dict) -> str | None:
    meta = _exercise_meta(cell)
    return meta.get("id") if isinstance(meta, dict) else meta


def _joined(cells: list[dict], tag: str) -> str:
    return "\n\n".join(book.source(c) for c in cells if tag in book.tags(c))


def _too_long(limit: float) -> str:
    return f"set-up, answer and check took more than {limit:g} s together"


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeLimit` after so many seconds, where Python can set an alarm (the main thread, not on Windows)."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum, frame):
        raise TimeLimit(_too_long(seconds))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
