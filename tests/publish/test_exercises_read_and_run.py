"""Exercises are read from the notebook, stubs are derived, answers are run."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from fixtures import good_chapter as fixture

from scprimer.publish import book
from scprimer.publish.exercises import exercises, problems, run_exercise, with_body


@pytest.fixture
def chapter(tmp_path):
    return fixture.write(tmp_path, fixture.good(), stamped=False)


@pytest.fixture
def centre(chapter):
    return exercises(chapter)[0]


def test_they_are_read_in_order(chapter):
    found = exercises(chapter)
    assert [(e.id, e.level) for e in found] == [
        ("unsupervised-1", "recall"),
        ("unsupervised-2", "apply"),
        ("unsupervised-3", "project"),
    ]
    first = found[0]
    assert first.title == "Centre every gene" and first.task == "### Centre every gene"
    assert first.setup.startswith("import numpy") and first.check.startswith("assert")
    assert first.cells == ("e1-task", "e1-setup", "e1-solution", "e1-check") and not first.open
    assert problems(chapter) == []


def test_the_stub_is_the_solution_without_its_lines(centre):
    assert centre.stub == "def centre(X):\n    # your code here\n    raise NotImplementedError"
    assert centre.wrong_answers == ("def centre(X):\n    return X - X.mean()",)


def test_a_body_of_several_lines_is_indented_as_the_marker_is():
    solution = (
        "class A:\n    def f(self):\n        ### BEGIN SOLUTION\n        return 1\n        ### END SOLUTION\n\n\nA()"
    )
    body = "if True:\n    return 2\n"
    expected = "class A:\n    def f(self):\n        if True:\n            return 2\n\n\nA()"
    assert with_body(solution, body) == expected


@pytest.mark.parametrize("solution", ["x = 1", "### BEGIN SOLUTION\nx = 1", "### END SOLUTION\n### BEGIN SOLUTION"])
def test_markers_that_do_not_pair(solution):
    with pytest.raises(book.BookError, match="exactly one"):
        with_body(solution, "pass")


def test_the_solution_passes_and_the_stub_fails(centre):
    assert run_exercise(centre).passed
    outcome = run_exercise(centre, centre.stub)
    assert (outcome.passed, outcome.stage, outcome.error) == (False, "check", "NotImplementedError")


def test_a_wrong_answer_hears_what_is_wrong(centre):
    outcome = run_exercise(centre, centre.wrong_answers[0])
    assert (outcome.stage, outcome.error, outcome.message) == ("check", "AssertionError", "look at the axis")


@pytest.mark.parametrize(
    "answer, stage, error",
    [
        ("def centre(X:", "answer", "SyntaxError"),
        ("1 / 0", "answer", "ZeroDivisionError"),
        ("import sys\nsys.exit(0)", "answer", "SystemExit"),
        ("pass", "check", "NameError"),
    ],
)
def test_whatever_an_answer_does_is_an_outcome(centre, answer, stage, error):
    outcome = run_exercise(centre, answer)
    assert (outcome.passed, outcome.stage, outcome.error) == (False, stage, error)


def test_an_answer_that_never_ends(centre):
    endless = "try:\n    while True:\n        pass\nexcept Exception:\n    pass"
    outcome = run_exercise(centre, endless, limit=0.2)
    assert (outcome.passed, outcome.stage, outcome.error) == (False, "answer", "TimeLimit")
    assert "0.2 s" in outcome.message and outcome.seconds < 2


def test_a_slow_answer_fails_in_any_thread(centre):
    outcomes = []
    slow = "import time\ntime.sleep(0.3)\n" + centre.solution
    thread = threading.Thread(target=lambda: outcomes.append(run_exercise(centre, slow, limit=0.2)))
    thread.start()
    thread.join()
    assert outcomes[0].error == "TimeLimit" and not outcomes[0].passed


def test_namespaces_are_fresh_and_prints_are_dropped(centre, capsys):
    assert run_exercise(centre, "print('hello')\nsecret = 1\n" + centre.solution).passed
    assert run_exercise(centre, "secret").error == "NameError"
    assert capsys.readouterr().out == ""


def test_the_exercise_needs_nothing_of_the_chapter(chapter):
    needy = dataclasses.replace(exercises(chapter)[0], setup="")
    assert run_exercise(needy).error == "NameError"


def test_an_open_exercise_needs_no_check(tmp_path):
    notebook = fixture.good()
    notebook["cells"] = [c for c in notebook["cells"] if c["id"] not in ("e3-setup", "e3-solution", "e3-check")]
    chapter = fixture.write(tmp_path, notebook, stamped=False)
    assert exercises(chapter)[-1].open and problems(chapter) == []


def broken(tmp_path, edit):
    notebook = fixture.good()
    edit(notebook)
    return " / ".join(p.words for p in problems(fixture.write(tmp_path, notebook, stamped=False)))


@pytest.mark.parametrize(
    "id, change, words",
    [
        ("e1-task", {"metadata": {"tags": ["exercise"], "scprimer": {"exercise": {"id": "E 1", "level": "recall", "title": "t"}}}}, "hyphens"),
        ("e2-check", {"metadata": {"tags": ["exercise-check"]}}, "names none"),
        ("e2-check", {"source": "assert"}, "not valid Python"),
        ("e2-check", {"source": "variance(X)"}, "no assert"),
        ("e2-task", {"source": " "}, "sets no task"),
        ("e2-task", {"metadata": {"tags": ["exercise"], "scprimer": {"exercise": {"id": "unsupervised-2", "level": "hard", "title": "t"}}}}, "level 'hard'"),
        ("e2-task", {"metadata": {"tags": ["exercise"], "scprimer": {"exercise": {"id": "unsupervised-1", "level": "apply", "title": "t"}}}}, "used twice"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_named(tmp_path, id, change, words):
    assert words in broken(tmp_path, lambda nb: fixture.cell(nb, id).update(change))


def test_loading_a_library_is_not_on_the_clock(centre, tmp_path, monkeypatch):
    (tmp_path / "slow_to_load.py").write_text("import time\n\ntime.sleep(0.6)\n")
    monkeypatch.syspath_prepend(tmp_path)
    slow = dataclasses.replace(centre, setup=f"import slow_to_load\n{centre.setup}")
    assert run_exercise(slow, limit=0.5).passed


def test_a_library_that_is_not_there_is_an_outcome(centre):
    outcome = run_exercise(dataclasses.replace(centre, setup="import no_such_library"))
    assert (outcome.passed, outcome.stage, outcome.error) == (False, "setup", "ModuleNotFoundError")
