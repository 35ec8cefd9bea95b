"""The command line: quick, clear, and with exit codes that hooks can use."""

from __future__ import annotations

import errno
import subprocess
import sys

import minibook
import pytest

from scprimer import cli
from scprimer.publish import book, screen


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def clone(tmp_path, monkeypatch):
    minibook.make(tmp_path, qc=["x = 1"], unsupervised=["x = 1"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_starting_imports_no_science():
    code = (
        "import sys\nfrom scprimer import cli\n"
        "try:\n    cli.main(['--version'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'pandas', 'torch', 'dask', 'distributed', 'papermill', 'nbclient', 'psutil', 'IPython'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_publishing_room_needs_no_science_stack():
    """`make book` installs neither numpy nor dask: these modules must import, and judge stamps, without."""
    code = (
        "import sys\n"
        "for name in ('numpy', 'pandas', 'torch', 'anndata', 'dask', 'distributed', 'papermill', 'nbclient', 'psutil'):\n"
        "    sys.modules[name] = None\n"
        "from scprimer.publish import book, course, doctor, job, journal, record, runner, screen, stamp, status, symbols\n"
        "from pathlib import Path\nprint(status.table(Path.cwd()), status.listing(Path.cwd(), planned=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=book.root())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["list", "run", "status", "doctor", "data", "export", "new", "build", "course"])
def test_every_command_explains_itself(capsys, name):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out) > 150


def test_list(clone, capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert "data/  1 of 5 chapters written" in out
    assert "  qc                 never run            You will see qc." in out
    assert "anndata" not in out
    assert "  anndata            planned" in run(capsys, "list", "--planned")[1]


def test_list_shows_what_a_recorded_run_took(clone, capsys):
    notebook = book.read_notebook(book.find("qc", clone).path)
    notebook["metadata"]["scprimer"]["stamp"] = {"seconds": 150.0, "peak_mb": 1234, "date": "2025-01-01"}
    book.write_notebook(book.find("qc", clone).path, notebook)
    assert "2.5 min" in run(capsys, "list")[1]
    out = run(capsys, "status")[1]
    assert "2025-01-01" in out
    assert "1,234 MB" in out
    assert "- its stamp has no hash of the code" in out


def test_status_is_silent_when_nothing_is_stale(tmp_path, monkeypatch, capsys):
    minibook.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "status", "--stale") == (0, "", "")
    minibook.make(tmp_path, qc=["x = 1"])
    assert run(capsys, "status", "--stale") == (1, "qc: never run: it has not been recorded\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "normalization"], "did you mean 'normalisation'"),
        (["run"], "name chapters"),
        (["run", "qc", "--all"], "one of them"),
        (["run", "qc", "-p", "neighbors", "3"], "did you mean 'neighbours'"),
        (["run", "qc", "-p", "dataset", "missing.h5ad"], "no file at"),
        (["run", "qc", "-p", "dataset", "pbmc3"], "pbmc3k"),
        (["run", "qc", "--record", "-p", "seed", "1"], "leave -p seed out"),
        (["run", "qc", "--force"], "belongs to --record"),
        (["run", "--resume"], "nothing is left of the last run"),
        (["run", "--resume", "--profile", "full"], "name chapters to change that"),
        (["new", "qc"], "exists"),
        (["data", "pull", "pbmc3"], "pbmc3k"),
    ],
)
def test_errors_are_one_message_without_traceback(clone, capsys, arguments, words):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in err
    assert err.startswith("scprimer: ")
    assert "Traceback" not in err + out


def test_without_the_tools_to_run(clone, capsys, monkeypatch):
    monkeypatch.setattr("scprimer.publish.runner.find_spec", lambda name: None if name == "papermill" else name)
    code, _, err = run(capsys, "run", "qc")
    assert code == 2
    assert "running chapters needs papermill: pip install 'scprimer[run]'" in err


def test_a_full_disk_is_said_in_words(clone, capsys, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/file")

    monkeypatch.setattr("scprimer.publish.template.new", full)
    code, _, err = run(capsys, "new", "anndata")
    assert code == 1
    assert "no space left on the disk of /somewhere/file" in err


def test_outside_a_clone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(book, "__file__", str(tmp_path / "book.py"))
    code, _, err = run(capsys, "list")
    assert code == 2
    assert "no clone of the book here" in err


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("--time-limit", "90", 90), ("--time-limit", "20m", 1200), ("--time-limit", "1.5h", 5400),
        ("--time-limit", "none", float("inf")), ("--memory-limit", "500MB", 5e8), ("--memory-limit", "8g", 8e9),
        ("--memory-limit", "none", float("inf")),
    ],
)  # fmt: skip
def test_limits(option, text, value):
    args = cli.parser(["run"]).parse_args(["run", "qc", option, text])
    assert getattr(args, option[2:].replace("-", "_")) == value


@pytest.mark.parametrize(
    "wrong", [["--time-limit", "soon"], ["--time-limit", "0"], ["--memory-limit", "8"], ["--workers", "0"]]
)
def test_limits_that_are_none(capsys, wrong):
    with pytest.raises(SystemExit) as stopped:
        cli.parser(["run"]).parse_args(["run", "qc", *wrong])
    assert stopped.value.code == 2
    assert repr(wrong[1]) in capsys.readouterr().err


def request(clone, *arguments):
    return cli._request(cli.parser(["run"]).parse_args(["run", "qc", *arguments]), clone)


@pytest.mark.parametrize(
    ("name", "open", "value", "other"), [("profile", "standard", "smoke", "full"), ("device", "auto", "cpu", "cuda")]
)
def test_profile_and_device_are_said_by_option_parameter_or_environment(clone, monkeypatch, name, open, value, other):
    variable = f"SCPRIMER_{name.upper()}"
    monkeypatch.delenv(variable, raising=False)

    def asked(*arguments):
        return getattr(request(clone, *arguments), name)

    assert asked() == open
    assert asked(f"--{name}", value) == asked("-p", name, value) == value
    assert name not in request(clone, "-p", name, value).parameters
    with pytest.raises(book.BookError, match=f"--{name}='{value}' contradicts -p {name}='{other}'"):
        asked(f"--{name}", value, "-p", name, other)
    monkeypatch.setenv(variable, value)
    assert asked() == asked(f"--{name}", value) == asked("-p", name, value) == asked("-p", name, "None") == value
    with pytest.raises(book.BookError, match=f"--{name}='{other}' contradicts {variable}='{value}'"):
        asked(f"--{name}", other)
    monkeypatch.setenv(variable, "huge")
    with pytest.raises(book.BookError, match=f"{variable}='huge' is not one of"):
        asked()


def test_auto_is_no_wish(clone, monkeypatch):
    monkeypatch.setenv("SCPRIMER_DEVICE", "cpu")
    assert request(clone, "--device", "auto").device == "cpu"


def test_run_stale_takes_what_is_stale(clone, monkeypatch):
    monkeypatch.delenv("SCPRIMER_PROFILE", raising=False)
    monkeypatch.setattr(cli.book, "root", lambda: clone)
    judged = {"qc": "aged", "unsupervised": "never run"}
    monkeypatch.setattr(
        "scprimer.publish.stamp.judge",
        lambda c: __import__("scprimer.publish.stamp").publish.stamp.State(judged[c.slug]),
    )

    def chapters(*arguments):
        return cli._request(cli.parser(["run"]).parse_args(["run", *arguments]), clone).chapters

    assert chapters("--stale") == ("unsupervised",)
    assert chapters("--aged") == ("qc",)
    assert chapters("--stale", "--aged") == ("qc", "unsupervised")
    assert chapters("--all") == ("qc", "unsupervised")
    assert chapters("qc", "notebooks/data/qc.ipynb") == ("qc",)


def test_export_and_new_are_handed_on(clone, capsys):
    (clone / "book").mkdir()
    for name, header in (
        ("methods", "id,chapter,method,how,show"),
        ("reported", "id,chapter,metric,reported,setting,where"),
    ):
        (clone / "book" / f"{name}.csv").write_text(header + "\n")
    code, out, _ = run(capsys, "new", "anndata")
    assert code == 0
    assert out.strip().endswith("anndata.ipynb")
    code, out, _ = run(capsys, "export", "--check")
    assert code == 1
    assert "new: scprimer/methods/anndata.py" in out
    assert run(capsys, "export")[0] == 0
    assert run(capsys, "export", "--check") == (0, "", "")


# ---- the live table --------------------------------------------------------------------------------------------------
class Terminal:
    """Keeps what a terminal would show: lines, the cursor moved up, the rest erased."""

    def __init__(self):
        self.lines = [""]

    def write(self, text: str) -> None:
        import re

        for piece in re.split(r"(\x1b\[\d+F\x1b\[J|\n)", text):
            moved = re.fullmatch(r"\x1b\[(\d+)F\x1b\[J", piece)
            if moved:
                self.lines = [*self.lines[: len(self.lines) - 1 - int(moved[1])], ""]
            elif piece == "\n":
                self.lines.append("")
            else:
                self.lines[-1] += piece

    def flush(self) -> None: ...


def test_a_live_table_is_redrawn_below_the_lines_that_stay():
    terminal = Terminal()
    shown = screen.Screen(terminal, live=True)
    shown.line("first")
    shown.table(["qc 1", "all 0"])
    shown.table(["qc 2", "all 0"])
    shown.line("second")
    shown.table(["all 1"])
    assert terminal.lines == ["first", "second", "all 1", ""]
    shown.table([])
    assert terminal.lines == ["first", "second", ""]


def test_away_from_a_terminal_only_lines_are_written(capsys):
    shown = screen.Screen()
    shown.line("first")
    shown.table(["qc 1"])
    assert capsys.readouterr().out == "first\n"


def test_bars_and_clocks():
    assert screen.bar(1, 4, 8) == "[##......]"
    assert screen.bar(9, 4, 8) == "[########]"
    assert screen.bar(0, 0, 4) == "[....]"
    assert screen.clock(75) == "1:15"
    assert screen.clock(3675) == "1:01:15"
