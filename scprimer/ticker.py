"""A line below a cell that takes long: for how long it has run, and how long it will take where that is known.

The line is there while the cell runs and leaves no trace. A front end can be asked to clear all outputs of a cell, but not
one of them (an output whose data are emptied stays, and would be saved with the notebook). So the line is shown only while
everything else that the cell has shown can be shown again, and it is cleared before whatever the cell shows next. All
outputs of a kernel pass through one method, ``Session.send``, which is where this listens.
"""

from __future__ import annotations

import contextlib
import html
import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scprimer import times
from scprimer.kernel import attended

if TYPE_CHECKING:
    from scprimer.run import Run

PATIENCE = 2.0  # seconds without a word before the line appears
PATIENCE_AFTER = 5.0  # the same, once the cell has shown something itself
BEAT = 1.0  # seconds between two updates
LONG = 60.0  # a cell that is known to take longer says so at once
FIRM = 2.0  # recorded seconds from which on a cell tells how fast this machine is
ENOUGH = 3  # cells that must have told before they are believed

OUTPUTS = ("stream", "display_data", "execute_result", "error", "clear_output")
WIDGET = "application/vnd.jupyter.widget-view+json"
MOST_OUTPUTS, LARGEST = 20, 2_000_000  # more outputs, or more characters of them, are not shown again

_ticker: Ticker | None = None


def begin(run: Run) -> None:
    """Give every cell of this kernel from the next one on its line; nothing where nobody sits at the kernel.

    Args:
        run: the chapter's run. Its cells' times are known when it was recorded in this profile, on the same data.
    """
    global _ticker
    if not attended():
        return
    from IPython import get_ipython

    found = None if run.own_data else times.recorded(run.chapter, run.profile)
    _ticker = _ticker or Ticker(get_ipython())
    _ticker.recorded = found.cells if found else {}
    _ticker.ratios = []


class Cell:
    """The cell that is running, and what it has shown so far.

    Attributes:
        parent: the request that runs it; outputs that name it go below this cell.
        began, last: when it began, and when it last showed something (monotonic seconds).
        recorded: seconds that it took when the chapter was recorded, or None.
        expected: the same for this machine.
        shown: id of the line's display while it is there, else None.
        own: outputs of its own, as kind and content; None when they cannot be shown again.
        bars: how many progress bars there were when it began.
        nested: how deep it is in running other cells.
        done: set when it has ended.
    """

    def __init__(self, parent: Mapping, recorded: float | None, scale: float):
        self.parent = parent
        self.began = self.last = time.monotonic()
        self.recorded = recorded
        self.expected = None if recorded is None else recorded * scale
        self.shown: str | None = None
        self.own: list[tuple[str, dict]] | None = []
        self.bars = _bars()
        self.nested = 0
        self.done = threading.Event()

    @property
    def seconds(self) -> float:
        """For how long it has run."""
        return time.monotonic() - self.began

    @property
    def patience(self) -> float:
        """Seconds to wait in silence before the line appears."""
        if self.own:
            return PATIENCE_AFTER
        return 0.0 if (self.expected or 0.0) > LONG else PATIENCE

    def note(self, kind: str, content: Mapping) -> None:
        """Remember an output of the cell's own, if it can be shown again."""
        self.last = time.monotonic()
        if self.own is None:
            return
        if kind == "stream" and self.own and self.own[-1][1].get("name") == content["name"]:
            content = {"name": content["name"], "text": self.own.pop()[1]["text"] + content["text"]}
        self.own.append((kind, dict(content)))
        if not _repeatable(self.own):
            self.own = None

    def holds(self, content: Mapping) -> bool:
        """Whether one of the remembered outputs is the display that ``content`` brings up to date."""
        return any(_display_id(other) == _display_id(content) for _, other in self.own or ())

    def again(self) -> list[tuple[str, dict]] | None:
        """What to show again in place of what is there now; None when that cannot be done.

        A bar that has been closed is invisible already, and is left out.
        """
        if self.own is None:
            return None
        models = [(output, output[1].get("data", {}).get(WIDGET)) for output in self.own]
        if any(model and not _closed(model["model_id"]) for _, model in models):
            return None
        return [output for output, model in models if not model]


class Ticker:
    """Shows the line in one kernel.

    Attributes:
        recorded: key of a cell's source -> seconds when the chapter was recorded.
        ratios: seconds here over seconds then, one for each longer cell that was run.
    """

    def __init__(self, shell: Any):
        self.recorded: Mapping[str, float] = {}
        self.ratios: list[float] = []
        self._shell = shell
        self._cell: Cell | None = None
        self._lock = threading.RLock()  # taken for the time that it takes to hand messages over, never longer
        self._pid = os.getpid()
        session = shell.kernel.session
        self._forward, session.send = session.send, self._send
        shell.events.register("pre_run_cell", self._begun)
        shell.events.register("post_run_cell", self._ended)

    @property
    def scale(self) -> float:
        """How many times as long as the recorded run this machine takes: the median over its longer cells."""
        return statistics.median(self.ratios) if len(self.ratios) >= ENOUGH else 1.0

    # ---- in the kernel's thread ----------------------------------------------------------------------------------
    def _begun(self, info: Any) -> None:
        if not attended():
            return
        parent = self._shell.kernel.get_parent()
        if self._cell is not None and _request(self._cell.parent) == _request(parent):  # code that runs code
            self._cell.nested += 1
            return
        recorded = self.recorded.get(times.cell_key(info.raw_cell or ""))
        self._cell = Cell(parent, recorded, self.scale)
        threading.Thread(target=self._watch, args=(self._cell,), name="scprimer-ticker", daemon=True).start()

    def _ended(self, result: Any) -> None:
        cell = self._cell
        if cell is None:
            return
        if cell.nested:
            cell.nested -= 1
            return
        with self._lock:
            cell.done.set()
            self._wipe(cell)
            self._cell = None
        if result.success and (cell.recorded or 0.0) >= FIRM:
            self.ratios.append(cell.seconds / cell.recorded)

    # ---- in any thread -------------------------------------------------------------------------------------------
    def _send(self, stream: Any, message: Any, content: Any = None, parent: Any = None, *args, **more) -> Any:
        """``Session.send``, which clears the line before the cell shows something itself."""
        with self._lock if os.getpid() == self._pid else contextlib.nullcontext():  # a fork may find it taken
            if os.getpid() == self._pid and self._cell is not None:
                if isinstance(message, dict):
                    self._before(self._cell, message["msg_type"], message["content"], message["parent_header"])
                else:
                    self._before(self._cell, message, content, parent)
            return self._forward(stream, message, content, parent, *args, **more)

    def _before(self, cell: Cell, kind: str, content: Any, parent: Any) -> None:
        """A message is about to leave: clear the line, and remember the message, if it is an output of this cell."""
        if kind not in (*OUTPUTS, "update_display_data") or _request(parent) != _request(cell.parent):
            return
        if kind == "clear_output":  # takes the line along; a cell that draws over and over needs none
            cell.shown = cell.own = None
        elif kind != "update_display_data":
            self._wipe(cell, more_follows=True)
            cell.note(kind, content)
        elif cell.holds(content):  # what is remembered of it would be out of date
            self._wipe(cell)
            cell.own = None

    # ---- in the ticker's thread ----------------------------------------------------------------------------------
    def _watch(self, cell: Cell) -> None:
        wait = cell.patience
        while not cell.done.wait(wait):
            wait = BEAT
            with self._lock:
                if self._cell is not cell:
                    return
                if _bars() > cell.bars:
                    cell.last = time.monotonic()
                elif cell.shown or time.monotonic() - cell.last >= cell.patience:
                    self._show(cell)

    # ---- with the lock held --------------------------------------------------------------------------------------
    def _show(self, cell: Cell) -> None:
        """Put the line below what the cell has shown, or bring it up to date."""
        kind = "update_display_data"
        if cell.shown is None:
            if cell.again() is None:
                return
            kind, cell.shown = "display_data", uuid.uuid4().hex
        data = line(cell.seconds, cell.expected)
        self._publish(cell, kind, {"data": data, "metadata": {}, "transient": {"display_id": cell.shown}})

    def _wipe(self, cell: Cell, more_follows: bool = False) -> None:
        """Take the line away, and show again what stood above it.

        Clearing may wait for the output that follows, so that the page does not jump.
        """
        if cell.shown is None:
            return
        cell.shown = None
        cell.own = cell.again() or []
        self._publish(cell, "clear_output", {"wait": more_follows or bool(cell.own)})
        for kind, content in cell.own:
            self._publish(cell, kind, content)

    def _publish(self, cell: Cell, kind: str, content: dict) -> None:
        publisher = self._shell.display_pub
        self._forward(publisher.pub_socket, kind, content, parent=cell.parent, ident=publisher.topic)


# ---- words -----------------------------------------------------------------------------------------------------------
def line(seconds: float, expected: float | None) -> dict[str, str]:
    """The line as a mime bundle.

    Args:
        seconds: for how long the cell has run.
        expected: how long it is expected to take, or None.
    """
    share = "" if expected is None or seconds >= expected else f' value="{seconds / expected:.3f}"'
    if expected is None:
        words = f"running for {elapsed(seconds)}"
    elif seconds < PATIENCE:
        words = f"about {times.about(expected)} here"
    elif seconds < expected:
        words = f"{elapsed(seconds)} of about {times.about(expected)}"
    else:
        words = f"{elapsed(seconds)}, longer than the expected {times.about(expected)}"
    bar = f'<progress max="1"{share} aria-label="time of this cell"></progress>'
    page = f'<div class="scprimer-ticker" style="font-size: 90%; opacity: 0.8">{bar} {html.escape(words)}</div>'
    return {"text/plain": words, "text/html": page}


def elapsed(seconds: float) -> str:
    """A duration to the second: ``"12 s"``, ``"4 min 10 s"``, ``"1 h 2 min"``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# ---- what is there ---------------------------------------------------------------------------------------------------
def _bars() -> int:
    """How many bars of tqdm are there now."""
    tqdm = sys.modules.get("tqdm")
    return len(tqdm.tqdm._instances) if tqdm else 0


def _closed(model_id: str) -> bool:
    """Whether a widget has been closed, as a finished bar is."""
    widgets = sys.modules.get("ipywidgets.widgets.widget")
    return hasattr(widgets, "_instances") and model_id not in widgets._instances


def _repeatable(outputs: list[tuple[str, dict]]) -> bool:
    """Whether outputs can be shown a second time: few, not large, and without scripts, which would run twice."""
    if len(outputs) > MOST_OUTPUTS:
        return False
    size = 0
    for kind, content in outputs:
        data = {"text/plain": content["text"]} if kind == "stream" else content.get("data", {})
        size += sum(len(str(value)) for value in data.values())
        if "application/javascript" in data or "<script" in str(data.get("text/html", "")):
            return False
    return size <= LARGEST


def _request(parent: Mapping | None) -> str | None:
    """Id of the request that a message answers, from the request or from its header."""
    header = (parent or {}).get("header", parent)
    return header.get("msg_id") if header else None


def _display_id(content: Mapping) -> str | None:
    return content.get("transient", {}).get("display_id")
