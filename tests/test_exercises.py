"""Every exercise of every written chapter: the solution and other right answers pass its check, the stub and wrong answers fail it."""

from __future__ import annotations

import pytest

from scprimer.publish import book
from scprimer.publish.exercises import LIMIT, exercises, run_exercise

EXERCISES = {e.id: e for chapter in book.chapters() for e in exercises(chapter) if not e.open}
RIGHT = {f"{e.id}-{n}": (e, answer) for e in EXERCISES.values() for n, answer in enumerate(e.right_answers, 1)}
WRONG = {f"{e.id}-{n}": (e, answer) for e in EXERCISES.values() for n, answer in enumerate(e.wrong_answers, 1)}


@pytest.mark.parametrize("id", EXERCISES)
def test_the_solution_passes(id):
    outcome = run_exercise(EXERCISES[id])
    assert outcome.passed, f"{outcome.stage}: {outcome.error}: {outcome.message}"
    assert outcome.seconds < LIMIT


@pytest.mark.parametrize("id", EXERCISES)
def test_the_stub_fails_its_check(id):
    outcome = run_exercise(EXERCISES[id], EXERCISES[id].stub)
    assert not outcome.passed, "the check passes without an answer"
    assert outcome.error in ("NotImplementedError", "AssertionError"), (
        f"{outcome.stage}: {outcome.error}: {outcome.message}"
    )


@pytest.mark.parametrize("id", WRONG)
def test_the_wrong_answer_is_told_what_is_wrong(id):
    exercise, answer = WRONG[id]
    outcome = run_exercise(exercise, answer)
    assert not outcome.passed, f"the check passes this wrong answer:\n{answer}"
    # An error elsewhere would mean that the listed answer is broken, and then it would test nothing.
    assert (outcome.stage, outcome.error) == ("check", "AssertionError"), (
        f"{outcome.error}: {outcome.message}\n{answer}"
    )
    assert outcome.message.strip()


@pytest.mark.parametrize("id", RIGHT)
def test_another_right_answer_passes(id):
    exercise, answer = RIGHT[id]
    outcome = run_exercise(exercise, answer)
    assert outcome.passed, f"{outcome.stage}: {outcome.error}: {outcome.message}\n{answer}"


@pytest.mark.parametrize("id", EXERCISES)
def test_it_lists_a_wrong_answer(id):
    assert EXERCISES[id].wrong
