"""Chapters are run for real here: kernels are killed, disks filled, limits broken, commands interrupted."""

from __future__ import annotations

import copy
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import minibook
import pytest

from scprimer.publish import book, job, journal, runner
from scprimer.publish.screen import Screen

JOB = {"slug": "qc", "profile": "smoke", "parameters": {}, "threads": 1, "time_limit": 60, "memory_limit": None}


def alive(pid: int) -> bool:
    """Whether a process runs (one that is dead and not yet reaped does not)."""
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for(condition, seconds: float = 30.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def text_of(path: Path) -> str:
    notebook = book.read_notebook(path)
    return "".join("".join(o.get("text", [])) for c in notebook["cells"] for o in c.get("outputs", []))


# ---- one chapter -----------------------------------------------------------------------------------------------------
def test_a_chapter_runs_in_a_folder_of_its_own_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = (
        "import os, tempfile\nopen('left.txt', 'w').write('x')\nopen(tempfile.mkstemp()[1], 'w').write('y')\n"
        "print(os.environ['SCPRIMER_PROFILE'], os.environ['OMP_NUM_THREADS'], sorted(os.listdir()))"
    )
    meant = ("1 / 0", "raises-exception")
    result = job.run_job(JOB | {"notebook": json.dumps(minibook.notebook(code, meant, "print('after')"))})
    assert result["failure"] is None
    assert result["ok"]
    cells = json.loads(result["notebook"])["cells"]
    assert "".join(cells[0]["outputs"][0]["text"]) == "smoke 1 ['left.txt']\n"
    assert cells[1]["outputs"][0]["ename"] == "ZeroDivisionError"  # shown on purpose, and the rest ran
    assert "".join(cells[2]["outputs"][0]["text"]) == "after\n"
    assert 20 < result["peak_mb"] < 400
    assert 0 < result["seconds"] < 60
    assert result["environment"]["python"].startswith("3.")
    assert list(tmp_path.iterdir()) == []


def test_a_chapter_over_its_time_limit_is_stopped_with_all_its_processes(tmp_path):
    note = tmp_path / "pids"
    code = (
        "import subprocess, os, time\nchild = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(60)"
    )
    result = job.run_job(JOB | {"notebook": json.dumps(minibook.notebook("x = 1", code)), "time_limit": 6.5})
    assert result["failure"]["kind"] == "time"
    assert "6.5 s" in result["failure"]["words"]
    assert result["failure"]["cell"]["id"] == "c1"
    assert result["seconds"] < 15
    for pid in map(int, note.read_text().split()):
        wait_for(lambda pid=pid: not alive(pid), 5)


def test_a_chapter_over_its_memory_limit_is_stopped():
    code = "import time\nblock = bytearray(700_000_000)\ntime.sleep(60)"
    result = job.run_job(JOB | {"notebook": json.dumps(minibook.notebook(code)), "memory_limit": 400e6})
    assert result["failure"]["kind"] == "memory"
    assert "0.40 GB" in result["failure"]["words"]
    assert result["peak_mb"] > 400
    assert result["seconds"] < 20


def test_memory_of_children_counts(tmp_path):
    code = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import time; x = bytearray(300_000_000); time.sleep(1.5)'], check=True)"
    )
    result = job.run_job(JOB | {"notebook": json.dumps(minibook.notebook(code))})
    assert result["ok"]
    assert result["peak_mb"] > 320


def test_processor_time_is_kept_beside_the_walls():
    work = "import time\nbegun = time.process_time()\nwhile time.process_time() - begun < 0.5: pass"
    result = job.run_job(JOB | {"notebook": json.dumps(minibook.notebook("import time\ntime.sleep(1.5)", work))})
    executed = json.loads(result["notebook"])
    slept, worked = (cell["metadata"]["papermill"] for cell in executed["cells"])
    assert slept["duration"] >= 1.5 and slept["processor"] < 1.0
    assert worked["processor"] >= 0.5
    whole = executed["metadata"]["papermill"]["processor"]
    assert slept["processor"] + worked["processor"] <= whole <= result["seconds"] + 0.1


# ---- the command: what fails, fails alone ------------------------------------------------------------------------
@pytest.mark.parametrize("deaths", [1, 99])
def test_a_kernel_that_dies_before_the_first_cell_is_started_again(monkeypatch, tmp_path, deaths):
    starts = tmp_path / "starts"
    launch = (
        f"import pathlib, runpy, sys\nstarts = pathlib.Path({str(starts)!r})\n"
        "n = len(starts.read_text()) if starts.exists() else 0\nstarts.write_text('x' * (n + 1))\n"
        f"if n < {deaths}: sys.exit('Address already in use')\n"
        "runpy.run_module('ipykernel_launcher', run_name='__main__', alter_sys=True)"
    )
    prepare = job._prepare

    def unlucky(folder, request):
        prepare(folder, request)
        path = folder / "jupyter" / "kernels" / job.KERNEL / "kernel.json"
        spec = json.loads(path.read_text())
        path.write_text(json.dumps(spec | {"argv": [sys.executable, "-c", launch, "-f", "{connection_file}"]}))

    monkeypatch.setattr(job, "_prepare", unlucky)
    result = job.run_job(JOB | {"notebook": json.dumps(minibook.notebook("print(6 * 7)"))})
    if deaths < job.START_ATTEMPTS:
        assert result["ok"] and "42" in result["notebook"]
        assert len(starts.read_text()) == 2
    else:
        assert result["failure"]["kind"] == "start" and "Address already in use" in result["failure"]["error"]
        assert len(starts.read_text()) == job.START_ATTEMPTS


def test_a_killed_kernel_and_a_failing_cell_stop_nothing_else(tmp_path):
    """Also: two run side by side (each waits for the other), the edition is kept, the clone stays clean."""

    def meet(me: str, other: str) -> str:
        return (
            f"import pathlib, time\nhere = pathlib.Path({str(tmp_path)!r})\n(here / '{me}').touch()\n"
            f"end = time.time() + 30\nwhile not (here / '{other}').exists():\n"
            "    assert time.time() < end, 'alone'\n    time.sleep(0.05)\nprint('met')"
        )

    top = minibook.make(
        tmp_path / "book",
        anndata=[meet("one", "two")],
        qc=[meet("two", "one")],
        normalisation=["x = 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
        simulation=["def f(x):\n    return 1 / x\n\nf(0)"],
        unsupervised=[minibook.start("unsupervised"), minibook.CLAIM, minibook.REPORT],
    )
    before = minibook.snapshot(top)
    out = tmp_path / "edition"
    done = minibook.command(top, "run", "--all", "--workers", "2", "--profile", "smoke", "--out", str(out))
    assert done.returncode == 1, done.stdout + done.stderr
    assert minibook.snapshot(top) == before
    states = {slug: entry["state"] for slug, entry in minibook.journal(top).items()}
    assert states == {
        "anndata": "done", "qc": "done", "unsupervised": "done", "normalisation": "failed", "simulation": "failed",
    }  # fmt: skip
    assert "the kernel died" in done.stdout
    assert "| os.kill(os.getpid(), signal.SIGKILL)" in done.stdout  # the cell that did it
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "in cell 3 (c2)" in done.stdout
    assert "3 of 5 chapters done" in done.stdout
    assert done.stderr == ""
    assert sorted(p.name for p in out.rglob("*.ipynb")) == ["anndata.ipynb", "qc.ipynb", "unsupervised.ipynb"]
    kept = book.read_notebook(out / "learning" / "unsupervised.ipynb")
    assert kept["metadata"]["scprimer"]["stamp"]["profile"] == "smoke"
    assert kept["metadata"]["scprimer"]["stamp"]["threads"] == 1
    assert kept["metadata"]["scprimer"]["claims"][0]["id"] == "score"
    assert "holds: [result] The method works" in text_of(out / "learning" / "unsupervised.ipynb")


def test_interrupted_run_leaves_no_kernel_and_resume_does_what_is_left(tmp_path):
    note, gate = tmp_path / "pid", tmp_path / "gate"
    slow = (
        f"import os, pathlib, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\n"
        f"while not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.1)"
    )
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    top = minibook.make(tmp_path / "book", anndata=[count], qc=[slow], normalisation=[count])
    before = minibook.snapshot(top)
    call = [sys.executable, "-m", "scprimer.cli", "run", "--all", "--profile", "smoke"]
    running = subprocess.Popen(
        call, cwd=top, env=minibook.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    pid = int(wait_for(lambda: note.exists() and note.read_text()))
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the command and to its workers
    said, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "2 not done: qc, normalisation" in said
    assert errors.strip() == "scprimer: stopped"
    wait_for(lambda: not alive(pid), 5)
    assert minibook.snapshot(top) == before

    gate.touch()
    done = minibook.command(top, "run", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done before: anndata" in done.stdout
    assert "2 of 2 chapters done" in done.stdout
    assert (tmp_path / "count").read_text() == "xx"  # anndata once, normalisation once
    again = minibook.command(top, "run", "--resume")
    assert again.returncode == 2
    assert "nothing is left of the last run" in again.stderr
    assert {e["state"] for e in minibook.journal(top).values()} == {"done"}


def test_a_killed_worker_fails_its_chapter_alone(tmp_path):
    """The Dask worker itself is killed, as the system does when memory runs out; its chapter is tried once more."""
    kill = (
        f"import os, psutil, signal\nopen({str(tmp_path / 'tries')!r}, 'a').write('x')\n"
        "os.kill(psutil.Process().parent().ppid(), signal.SIGKILL)\nimport time\ntime.sleep(60)"
    )
    top = minibook.make(tmp_path / "book", anndata=[kill], qc=["print('well')"])
    done = minibook.command(top, "run", "anndata", "qc", "--profile", "smoke")
    assert done.returncode == 1
    assert "the Dask worker that ran it died: killed from outside" in done.stdout
    assert minibook.journal(top)["qc"]["state"] == "done"
    assert (tmp_path / "tries").read_text() == "xx"


# ---- a full disk -----------------------------------------------------------------------------------------------------
BIG = "import os, base64\nprint(base64.b64encode(os.urandom(600_000)).decode())"


@pytest.fixture
def recording(tmp_path):
    """A session that records one chapter, and the five executions that it has submitted."""
    cells = [minibook.start("qc"), minibook.CLAIM, minibook.REPORT]
    top = minibook.make(tmp_path, qc=cells)
    request, chapter = runner.Request(("qc",), record=True), book.find("qc", top)
    log = journal.Journal.begin(tmp_path / "journal", {}, {"qc": ""})
    session = runner._Session(request, top, {"qc": chapter}, log, Screen(io.StringIO()))
    works = {f"future {work.seed}": work for work in session._first(chapter)}
    session.works = dict(works)
    return session, works


def result_of(chapter: book.Chapter, value: float, words: str = "", failure: dict | None = None) -> dict:
    """What an execution returns: with outputs, or with a failure and none."""
    bounds = {"smoke": ["at_least", 0.5]}
    claim = {"id": "score", "kind": "result", "values": [value], "bounds": bounds, "control": 0.1, "resample": "seed"}
    executed = copy.deepcopy(chapter.notebook)
    executed["cells"][3]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": words}]
    return {
        "ok": failure is None, "seconds": 1.0, "peak_mb": 100, "failure": failure, "record": {"claims": [claim]},
        "notebook": None if failure else json.dumps(executed), "environment": {},
    }  # fmt: skip


def test_two_runs_of_a_refused_chapter_may_end_at_the_same_moment(recording, monkeypatch):
    session, _ = recording
    chapter = session.todo["qc"]
    result = result_of(chapter, 0.8, words="<object object at 0x7f00aa11bb22>")
    monkeypatch.setattr(session, "_first", lambda chapter: [])
    monkeypatch.setattr(runner, "_result", lambda future: result)
    monkeypatch.setattr("distributed.wait", lambda futures, **more: SimpleNamespace(done=list(futures)))
    client = SimpleNamespace(subscribe_topic=lambda *_: None, cancel=lambda futures: None)
    session.run(client)
    (outcome,) = session.outcomes
    assert outcome.words.startswith("refused: cell 4 (c3) shows the address of an object")


def test_a_claim_that_fails_in_a_short_run_is_said_with_its_seed(recording):
    session, works = recording
    chapter, client = session.todo["qc"], SimpleNamespace(cancel=lambda futures: None)
    failure = {"kind": "claims", "words": "claims do not hold"}
    for future, work in works.items():
        del session.works[future]
        failed = work.seed == 2
        session._take(client, work, result_of(chapter, 0.4 if failed else 0.8, failure=failure if failed else None))
    (outcome,) = session.outcomes
    assert outcome.state == "failed"
    assert "score (smoke): does not hold (at least 0.5) for seed 2: 0.4" in outcome.error


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 500 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)], capture_output=True, check=False
    ) if sys.platform == "linux" and os.geteuid() == 0 else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_the_edition(tmp_path, small_disk):
    top = minibook.make(tmp_path / "book", qc=[BIG], normalisation=["print('small')"])
    done = minibook.command(top, "run", "--all", "--profile", "smoke", "--out", str(small_disk / "out"))
    assert done.returncode == 1
    assert "it ran, but could not be written: No space left on device" in done.stdout
    files = sorted(p.name for p in (small_disk / "out").rglob("*") if p.is_file())
    assert files == ["normalisation.ipynb"]  # whole, and nothing half-written beside them
    for path in (small_disk / "out").rglob("*.ipynb"):
        assert "small" in text_of(path)

    subprocess.run(["mount", "-o", "remount,size=5m", str(small_disk)], check=True)  # space is made
    done = minibook.command(top, "run", "--resume")
    assert done.returncode == 0, done.stdout
    assert "1 of 1 chapters done" in done.stdout
    assert (small_disk / "out" / "data" / "qc.ipynb").stat().st_size > 600_000


def test_a_full_disk_under_the_execution(small_disk, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(small_disk))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = job.run_job(JOB | {"notebook": json.dumps(minibook.notebook(BIG))})
    assert result["failure"]["kind"] == "disk"
    assert f"no space left in {small_disk}" in result["failure"]["words"]
    assert list(small_disk.iterdir()) == []


def test_a_quota_under_the_clone_leaves_the_notebook_whole(tmp_path):
    """No file may grow beyond 300 kB, as under a quota: the chapter that needs more fails, the other is done."""
    top = minibook.make(tmp_path / "book", qc=[BIG], anndata=["print('well')"])
    before = minibook.snapshot(top)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = minibook.command(top, "run", "anndata", "qc", "--profile", "smoke", preexec_fn=limit)
    assert done.returncode == 1
    assert "no space left" in done.stdout
    states = {slug: entry["state"] for slug, entry in minibook.journal(top).items()}
    assert states == {"anndata": "done", "qc": "failed"}
    assert minibook.snapshot(top) == before


def test_a_journal_that_cannot_be_written_is_said_and_stops_nothing(tmp_path, capsys, monkeypatch):
    top = minibook.make(tmp_path, qc=["x = 1"])
    (top / ".scprimer").write_text("a file where the folder should be")
    outcomes = runner.run(runner.Request(("qc",), "smoke"), top)
    assert [o.state for o in outcomes] == ["done"]
    assert "the journal cannot be written" in capsys.readouterr().out


# ---- an existing cluster ---------------------------------------------------------------------------------------------
def test_an_existing_scheduler_does_the_work_and_is_left_running(tmp_path, capsys):
    from distributed import Client, LocalCluster

    top = minibook.make(tmp_path, qc=["import psutil\nprint(psutil.Process().parent().ppid())"])
    with LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit=0, local_directory=str(tmp_path / "dask"),
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:  # fmt: skip
        request = runner.Request(
            ("qc",), "smoke", scheduler=cluster.scheduler_address, out=str(tmp_path / "out"), workers=3
        )
        outcomes = runner.run(request, top)
        assert [o.state for o in outcomes] == ["done"], capsys.readouterr().out
        with Client(cluster) as client:
            worker = client.submit(os.getpid).result()  # still there
    assert int(text_of(tmp_path / "out" / "data" / "qc.ipynb")) == worker


def test_what_a_client_calls_back_or_leaves_behind_is_killed_on_the_cluster(tmp_path):
    from distributed import Client, LocalCluster

    note = tmp_path / "pids"
    code = f"import os, time\nopen({str(note)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(60)"
    work = JOB | {"notebook": json.dumps(minibook.notebook(code))}
    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, local_directory=str(tmp_path / "dask"),
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:  # fmt: skip
        client, other = Client(cluster), Client(cluster)
        called_back = client.submit(runner.execute, work, "topic", "one", key="one")
        left = other.submit(runner.execute, work, "topic", "two", key="two")
        pids = wait_for(lambda: note.exists() and len(note.read_text().split()) == 2 and note.read_text().split())
        client.cancel([called_back])
        other.close()
        assert left.status == "cancelled"
        for pid in map(int, pids):
            wait_for(lambda pid=pid: not alive(pid), 10)
        client.close()


def test_a_worker_of_an_existing_cluster_that_dies_takes_no_waiting_chapter_with_it(tmp_path, capsys):
    """By its defaults Dask sends a worker more than it can begin, and blames all of it for the worker's death."""
    import dask
    from distributed import LocalCluster

    kill = "import os, psutil, signal\nos.kill(psutil.Process().parent().ppid(), signal.SIGKILL)\nimport time\ntime.sleep(60)"
    top = minibook.make(tmp_path / "book", anndata=[kill], qc=["print('well')"])
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-saturation": "inf"}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit=0, local_directory=str(tmp_path / "dask"),
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"}, silence_logs=60,
        ) as cluster,
    ):  # fmt: skip
        outcomes = runner.run(runner.Request(("anndata", "qc"), "smoke", scheduler=cluster.scheduler_address), top)
    assert {o.slug: o.state for o in outcomes} == {"anndata": "failed", "qc": "done"}, capsys.readouterr().out


def test_no_scheduler_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CONNECT_SECONDS", 1)
    top = minibook.make(tmp_path, qc=["x = 1"])
    with pytest.raises(book.BookError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        runner.run(runner.Request(("qc",), "smoke", scheduler="tcp://127.0.0.1:9"), top)


# ---- parameters ------------------------------------------------------------------------------------------------------
def test_a_data_file_is_looked_for_in_the_callers_folder(tmp_path):
    top = minibook.make(tmp_path / "book", qc=["print(dataset, neighbours, seed)"])
    caller = top / "elsewhere"
    caller.mkdir()
    (caller / "mine.h5ad").write_bytes(b"x")
    out = tmp_path / "out"
    arguments = ("-p", "dataset", "mine.h5ad", "-p", "neighbours", "7", "--profile", "smoke", "--out", str(out))
    done = minibook.command(top, "run", "qc", *arguments, cwd=caller)
    assert done.returncode == 0, done.stdout + done.stderr
    assert text_of(out / "data" / "qc.ipynb") == f"{caller / 'mine.h5ad'} 7 0\n"
    kept = book.read_notebook(out / "data" / "qc.ipynb")  # an edition says which parameters were changed
    assert kept["cells"][2]["metadata"]["tags"] == ["injected-parameters"]
    assert "neighbours = 7" in book.source(kept["cells"][2])


def test_values_of_parameters(tmp_path):
    (tmp_path / "pbmc3k").touch()  # a registered name wins over a file of that name
    pairs = [("a", "3"), ("b", "0.5"), ("c", "[1, 2]"), ("d", "None"), ("e", "some words"), ("dataset", "pbmc3k")]
    found = runner.parse_parameters(pairs, tmp_path)
    assert found == {"a": 3, "b": 0.5, "c": [1, 2], "d": None, "e": "some words", "dataset": "pbmc3k"}
    with pytest.raises(book.BookError, match=r"no file at .*mine\.h5ad"):
        runner.parse_parameters([("dataset", "mine.h5ad")], tmp_path)
    with pytest.raises(Exception, match="pbmc3k"):  # the nearest name
        runner.parse_parameters([("dataset", "pbmc3")], tmp_path)
    with pytest.raises(book.BookError, match="twice"):
        runner.parse_parameters([("a", "1"), ("a", "2")], tmp_path)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (runner.Request(("normalization",)), "did you mean 'normalisation'"),
        (runner.Request(("scvi",)), "planned and not written yet"),
        (runner.Request(()), "name chapters"),
        (runner.Request(("qc",), parameters={"neighbors": 3}), "did you mean 'neighbours'.*seed, neighbours, dataset"),
        (runner.Request(("qc",), parameters={"neighbours": "many"}), "neighbours is a number"),
        (runner.Request(("qc",), parameters={"profile": "full"}), "the profile in a field of its own"),
        (runner.Request(("qc",), parameters={"device": "cpu"}), "the device in a field of its own"),
        (runner.Request(("qc",), record=True, parameters={"seed": 3}), "leave -p seed out"),
        (runner.Request(("qc",), "smoke", record=True), "and this is smoke"),
        (runner.Request(("qc",), "full", record=True), "--keep-record"),
        (runner.Request(("qc",), "standard", keep_record=True), "--profile full"),
        (runner.Request(("qc",), "full", keep_record=True, parameters={"seed": 3}), "as written"),
    ],
)
def test_requests_that_make_no_sense(tmp_path, request_, words):
    top = minibook.make(tmp_path, qc=["x = 1"])
    with pytest.raises(book.BookError, match=words):
        runner.run(request_, top)
    assert not (top / ".scprimer").exists()  # nothing was begun


def test_an_edition_does_not_overwrite_the_clone(tmp_path):
    top = minibook.make(tmp_path, qc=["x = 1"])
    with pytest.raises(book.BookError, match="--record writes into them"):
        runner.run(runner.Request(("qc",), "smoke", out=str(top / "notebooks")), top)


def test_resume_counts_only_the_same_code_and_settings(tmp_path):
    top = minibook.make(tmp_path, qc=["x = 1"], anndata=["x = 1"])
    request = runner.Request(("qc", "anndata"), "smoke")
    prints = {s: runner._fingerprint(request, c) for s, c in runner.check(request, top).items()}
    log = runner.journal.Journal.begin(tmp_path / ".scprimer" / "runs", {}, prints)
    log.mark("qc", "done")
    log.mark("anndata", "failed")

    def done(request):
        now = {s: runner._fingerprint(request, c) for s, c in runner.check(request, top).items()}
        return sorted(runner._done_before(request, tmp_path / ".scprimer" / "runs", now))

    assert done(request) == ["qc"]
    assert done(runner.Request(("qc", "anndata"), "standard")) == []
    assert done(runner.Request(("qc", "anndata"), "smoke", parameters={"neighbours": 3})) == []
    assert done(runner.Request(("qc", "anndata"), "smoke", device="cuda")) == []
    assert done(runner.Request(("qc", "anndata"), "smoke", out=str(tmp_path / "out"))) == []
    minibook.make(tmp_path, qc=["x = 2"])
    assert done(request) == []


def test_a_kernel_keeps_freed_memory_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "12345")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    env = job._environment(tmp_path, {"threads": 1, "profile": "smoke"})
    assert env["MALLOC_TRIM_THRESHOLD_"] == "12345"
    assert env["MALLOC_MMAP_THRESHOLD_"] == job.KEEP_MEMORY["MALLOC_MMAP_THRESHOLD_"]
