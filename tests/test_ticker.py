"""The line below a cell that takes long: when it comes, what it says, and that nothing of it stays."""

from __future__ import annotations

import os
import time
from queue import Empty

import pytest

from scprimer import run as rooms
from scprimer import ticker, times

START = """\
import time
import scprimer
from scprimer import ticker, times
times.recorded = lambda chapter, profile: times.Times(540, cells={times.cell_key("time.sleep(0.8)  # known"): 90.0})
run = scprimer.start("qc", dataset="pbmc3k", written_for="pbmc3k")
"""


# ---- in a real kernel ------------------------------------------------------------------------------------------------
class Page:
    """What a front end shows below one cell, from the messages of its kernel.

    Attributes:
        outputs: what is there now.
        seen: (seconds, text) of the line, each time that it came or changed.
    """

    def __init__(self):
        self.outputs, self.seen, self.clear_next, self.began = [], [], False, time.monotonic()

    def take(self, kind: str, content: dict) -> None:
        if kind == "clear_output":
            self.clear_next = content["wait"]
            self.outputs = self.outputs if content["wait"] else []
        elif kind in ("stream", "display_data", "execute_result", "error"):
            if self.clear_next:
                self.outputs, self.clear_next = [], False
            self.outputs.append((kind, content))
            self._look(content)
        elif kind == "update_display_data":
            ids = [c.get("transient", {}).get("display_id") for _, c in self.outputs]
            at = ids.index(content["transient"]["display_id"])
            self.outputs[at] = ("display_data", content)
            self._look(content)

    def _look(self, content: dict) -> None:
        if "scprimer-ticker" in content.get("data", {}).get("text/html", ""):
            assert sum("scprimer-ticker" in str(c) for _, c in self.outputs) == 1
            self.seen.append((time.monotonic() - self.began, content["data"]["text/plain"]))

    @property
    def texts(self) -> list[str]:
        """The outputs that are there now, as text."""
        return [c.get("text") or c.get("ename") or c["data"]["text/plain"] for _, c in self.outputs]


class Kernel:
    """A kernel with a person in front of it."""

    def __init__(self, manager, client):
        self.manager, self.client = manager, client

    def run(self, code: str, interrupt_after: float | None = None, allow_stdin: bool = True) -> Page:
        request, page, idle = self.client.execute(code, allow_stdin=allow_stdin), Page(), False
        while not idle:
            if interrupt_after and time.monotonic() - page.began > interrupt_after:
                self.manager.interrupt_kernel()
                interrupt_after = None
            try:
                message = self.client.get_iopub_msg(timeout=0.1)
            except Empty:
                assert time.monotonic() - page.began < 60, code
                continue
            if message["parent_header"].get("msg_id") == request:
                idle = message["content"].get("execution_state") == "idle"
                page.take(message["msg_type"], message["content"])
        self.client.get_shell_msg(timeout=10)
        return page


@pytest.fixture(scope="module")
def started():
    manager = pytest.importorskip("jupyter_client.manager")
    env = {k: v for k, v in os.environ.items() if not k.startswith("SCPRIMER_")}
    kernel_manager, client = manager.start_new_kernel(kernel_name="python3", env=env)
    kernel = Kernel(kernel_manager, client)
    page = kernel.run(START)
    assert "takes    about 9 min" in page.texts[0]
    kernel.run("from tqdm.auto import tqdm\ntqdm(range(1), leave=False).close()")  # the first one imports the widgets
    yield kernel
    client.stop_channels()
    kernel_manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(started):
    """The kernel, with less patience than a reader's, so that the tests need not wait."""
    started.run("ticker.PATIENCE, ticker.PATIENCE_AFTER, ticker.BEAT = 0.4, 0.6, 0.2")
    return started


def test_it_comes_after_two_seconds_and_goes_with_the_cell(started):
    started.run("ticker.PATIENCE, ticker.PATIENCE_AFTER, ticker.BEAT = 2.0, 5.0, 1.0")
    assert started.run("time.sleep(1)").seen == []
    page = started.run("time.sleep(4)")
    assert page.seen[0][0] > 1.9
    assert len({text for _, text in page.seen}) > 1  # it goes on
    assert page.outputs == []


def test_the_outputs_are_those_of_the_cell_alone(kernel):
    page = kernel.run("time.sleep(0.8); print('one'); time.sleep(1.5); print('two'); time.sleep(1.2); 3")
    assert len(page.seen) > 3  # before the first word, between the two, and after
    assert "".join(page.texts) == "one\ntwo\n3"
    assert page.outputs[-1][0] == "execute_result"


@pytest.mark.parametrize(
    ("code", "after", "name"), [("1 / 0", None, "ZeroDivisionError"), ("time.sleep(30)", 1.5, "KeyboardInterrupt")]
)
def test_an_error_and_an_interrupt_leave_only_themselves(kernel, code, after, name):
    page = kernel.run(f"time.sleep(0.8)\n{code}", interrupt_after=after)
    assert page.seen
    assert [kind for kind, _ in page.outputs] == ["error"]
    assert page.texts == [name]
    assert kernel.run("time.sleep(0.8)").seen  # and the next cell has its line


def test_a_cell_that_is_known_to_take_long_says_so_at_once(kernel):
    kernel.run("ticker.PATIENCE = 5.0")
    page = kernel.run("time.sleep(0.8)  # another comment")
    assert page.seen[0][1] == "about 1.5 min here"
    assert page.outputs == []


def test_a_bar_takes_the_place_of_the_line(kernel):
    bar = "for _ in tqdm(range(4), leave=False): time.sleep(0.4)\n"
    assert kernel.run(bar).seen == []
    page = kernel.run(f"{bar}\ntime.sleep(1.5)")
    assert page.seen[0][0] > 2.2  # the bar took 1.6 s
    assert page.outputs == []  # nothing of the bar, either


def test_displays_that_change_in_place_keep_doing_so(kernel):
    page = kernel.run("h = display('old', display_id='mine')\ntime.sleep(1.2)\nh.update('new')\ntime.sleep(1)")
    assert page.seen
    assert page.texts == ["'new'"]


def test_what_cannot_be_shown_twice_is_left_alone(kernel):
    script = "from IPython.display import HTML\ndisplay(HTML('<script>n = 1</script>'))\ntime.sleep(1.5)"
    assert kernel.run(script).seen == []
    redrawn = "from IPython.display import clear_output\nprint(1)\nclear_output(wait=True)\ntime.sleep(1.5)\nprint(2)"
    page = kernel.run(redrawn)
    assert page.seen == []
    assert page.texts == ["2\n"]


def test_it_is_silent_where_nobody_waits(kernel):
    assert kernel.run("time.sleep(1)", allow_stdin=False).seen == []
    kernel.run("import os; os.environ['SCPRIMER_QUIET'] = '1'")
    try:
        assert kernel.run("time.sleep(1)").seen == []
    finally:
        kernel.run("del os.environ['SCPRIMER_QUIET']")
    assert kernel.run("time.sleep(1)").seen


def test_there_is_one_ticker_however_often_a_chapter_is_started(kernel):
    kernel.run('run = scprimer.start("qc", dataset="pbmc3k", written_for="pbmc3k")')
    page = kernel.run("time.sleep(1)")  # of two, both would show a line
    assert page.seen
    assert page.outputs == []
    kernel.run('run = scprimer.start("qc", dataset="my.h5ad", written_for="pbmc3k")')
    assert kernel.run("print(ticker._ticker.recorded)").texts == ["{}\n"]  # own data: nothing is known of the cells
    kernel.run('run = scprimer.start("qc", dataset="pbmc3k", written_for="pbmc3k")')


def test_an_executed_notebook_holds_neither_line_nor_estimate(tmp_path, monkeypatch):
    """As papermill, nbval and the book's own runs execute it."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.delenv("SCPRIMER_QUIET", raising=False)
    cells = [START, "ticker.PATIENCE = 0.2\nassert ticker._ticker is None", "time.sleep(1)"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    (card,) = book.cells[0].outputs
    assert "takes" not in card["data"]["text/plain"]
    assert book.cells[1].outputs == book.cells[2].outputs == []


# ---- without one -----------------------------------------------------------------------------------------------------
def test_outside_a_notebook_nothing_happens(monkeypatch):
    monkeypatch.delenv("SCPRIMER_QUIET", raising=False)
    run = rooms.start("qc", dataset="pbmc3k", written_for="pbmc3k")
    assert ticker._ticker is None
    assert "takes" not in repr(run)


@pytest.mark.parametrize(
    ("seconds", "expected", "words"),
    [
        (12.3, None, "running for 12 s"),
        (130.0, None, "running for 2 min 10 s"),
        (3725.0, None, "running for 1 h 2 min"),
        (0.1, 182.0, "about 3 min here"),
        (45.0, 182.0, "45 s of about 3 min"),
        (200.0, 182.0, "3 min 20 s, longer than the expected 3 min"),
    ],
)
def test_the_line_in_words(seconds, expected, words):
    shown = ticker.line(seconds, expected)
    assert shown["text/plain"] == words
    assert words in shown["text/html"]
    determinate = expected is not None and seconds < expected
    assert ("value=" in shown["text/html"]) is determinate


def test_the_bar_is_at_the_share_of_the_time_that_has_passed():
    assert 'value="0.250"' in ticker.line(45.0, 180.0)["text/html"]


def test_a_machine_is_judged_by_the_median_of_enough_cells():
    judged = object.__new__(ticker.Ticker)
    judged.ratios = [9.0, 2.0]
    assert judged.scale == 1.0
    judged.ratios = [9.0, 2.0, 1.5]
    assert judged.scale == 2.0
    assert ticker.Cell({}, 60.0, judged.scale).expected == 120.0
    assert ticker.Cell({}, None, judged.scale).expected is None


# ---- what is known ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"), (8.4, "8 s"), (43, "45 s"), (57, "55 s"), (58, "1 min"), (148, "2.5 min"), (284, "4.5 min"),
        (547, "9 min"), (3560, "59 min"), (3580, "1 h"), (4800, "1 h 20 min"), (7190, "2 h"),
    ],
)  # fmt: skip
def test_a_duration_as_one_would_say_it(seconds, words):
    assert times.about(seconds) == words


def test_what_a_chapter_takes_in_words():
    found = times.Times(547.0, 1357, "2 CPU cores", "2026-11-30")
    assert str(found) == "about 9 min and 1.4 GB on 2 CPU cores, measured 2026-11-30"
    assert str(times.Times(37.1, 590)) == "about 35 s and 590 MB"
    assert str(times.Times(60.0, checkpoints=True)).endswith("with models trained before; the first time takes longer")


def test_a_chapter_or_a_profile_without_a_record_has_no_estimate():
    assert times.recorded("no-such-chapter", "standard") is None
    assert times.recorded("qc", "no-such-profile") is None
    assert times.words("no-such-chapter", "standard") is None


def test_the_shipped_times_are_read_by_profile(monkeypatch):
    smoke, standard = times.recorded("qc", "smoke"), times.recorded("qc", "standard")
    assert smoke.seconds < standard.seconds
    assert times.words("qc", "standard") == str(standard)
    assert times.words("qc", "standard", own_data=True) == f"on the book's data {standard}"
    monkeypatch.setattr(rooms, "attended", lambda: True)
    run = rooms.Run("qc", "standard", 0, "pbmc3k", "pbmc3k")
    assert f"<dt>takes</dt><dd>{standard}</dd>" in run._repr_html_()
    monkeypatch.setattr(rooms, "attended", lambda: False)
    assert "takes" not in run._repr_html_()


def test_the_key_of_a_cell_is_its_code():
    key = times.cell_key("x = fit(a)\ny = 2")
    assert times.cell_key("# why\nx = fit( a )  # here\n\ny = 2\n") == key
    assert times.cell_key("x = fit(b)\ny = 2") != key
