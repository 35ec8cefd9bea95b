"""Self-checks: their form, and the rule that chapters will keep."""

from __future__ import annotations

import hostile
import minibook
import pytest

from scprimer.publish import book, course, selfcheck
from scprimer.publish.course import deck

GOOD = """**Check yourself.** Which is larger?

- A. The first.
- B. Neither.

<details>
<summary>Answer</summary>

**B.** Both are divided by their totals, so depth goes out. A would be right for the counts.

</details>
"""


def chapter(top, *texts, section="idea", tags=("self-check",)):
    notebook = hostile.chapter_notebook()
    at = next(i for i, c in enumerate(notebook["cells"]) if "build" in c["metadata"].get("tags", []))
    cells = [hostile.markdown(f"## {section}", section)]
    cells += [hostile.markdown(text, *tags) | {"id": f"check-{n}"} for n, text in enumerate(texts)]
    notebook["cells"][at:at] = cells
    minibook.make(top, qc=notebook)
    return book.find("qc", top)


def found(top, *texts, **more):
    return [words for _, words, _ in selfcheck.self_checks(chapter(top, *texts, **more))]


def test_question_and_answer_are_told_apart():
    question, answer = selfcheck.split(GOOD)
    assert question.startswith("Which is larger?") and question.endswith("B. Neither.")
    assert answer.startswith("**B.** Both") and answer.endswith("counts.")


def test_good_ones_keep_the_rule(tmp_path):
    assert found(tmp_path, GOOD, GOOD) == []


@pytest.mark.parametrize(
    "old, new",
    [
        ("**Check yourself.** ", ""),
        ("<details>", "<details open>"),
        ("<summary>Answer</summary>", "<summary>Click here</summary>"),
        ("<summary>Answer</summary>\n\n", "<summary>Answer</summary>\n"),  # its markdown would be shown as it is
        ("</details>", "</details>\n\nMore."),
        ("Which is larger?", "Which?\n\n<details>\n<summary>Answer</summary>\n\nx\n\n</details>"),
    ],
)
def test_another_form_is_named(tmp_path, old, new):
    assert found(tmp_path, GOOD, GOOD.replace(old, new)) == ["the self-check does not have its form"]


def test_what_else_is_wrong_is_named(tmp_path):
    bare = GOOD.split("**B.**")[0] + "B.\n\n</details>"
    assert found(tmp_path / "a", GOOD, bare) == ["the answer gives no reasons"]
    assert found(tmp_path / "b", GOOD) == ["1 self-checks"]
    assert found(tmp_path / "c", GOOD, GOOD, section="exercises") == ["the self-check stands in 'exercises'"] * 2


def test_on_a_slide_the_answer_is_in_the_notes(tmp_path):
    made = list(deck.slides(course.Session(1, chapter(tmp_path, GOOD), ()), {}))
    (slide,) = [s for s in made if s.title == "Check yourself"]
    assert "Which is larger?" in slide.body and "divided" not in slide.body
    assert "divided" in slide.notes and "details" not in slide.body + slide.notes
