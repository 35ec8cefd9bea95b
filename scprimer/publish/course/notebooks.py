"""A chapter's notebook as students get it, and as their teacher does."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Mapping

from scprimer.publish import book, exercises
from scprimer.publish.course import prose
from scprimer.publish.course.session import POINTS

ANSWER = "exercise-answer"  # tag of the cell that a student fills in


def student(chapter: book.Chapter, names: Mapping[str, str], sources: prose.Sources) -> dict:
    """The chapter with stubs in place of its solutions; all outputs outside exercises are kept.

    Args:
        chapter: a written chapter.
        names: file names of the course's chapters by slug, for the links between them.
        sources: the references that it cites.
    """
    notebook = _readable(chapter.notebook, names, sources)
    stubs = {e.id: e.stub for e in exercises.exercises(chapter) if not e.open}
    for cell in notebook["cells"]:
        tags = book.tags(cell)
        if "exercise-solution" in tags:
            id = cell["metadata"]["scprimer"]["exercise"]
            cell["source"] = stubs[id]
            cell["metadata"] = {"scprimer": {"exercise": id}, "tags": [ANSWER]}  # not the list of wrong answers
        if {"exercise-solution", "exercise-check"} & set(tags):
            cell |= {"outputs": [], "execution_count": None}
    return notebook


def teacher(chapter: book.Chapter, names: Mapping[str, str], sources: prose.Sources) -> dict:
    """The chapter with its solutions open, and after each exercise what its check asks for and what it refuses."""
    notebook = _readable(chapter.notebook, names, sources)
    last = {e.cells[-1]: e for e in exercises.exercises(chapter)}
    cells = []
    for cell in notebook["cells"]:
        if "exercise-solution" in book.tags(cell):
            cell["metadata"]["tags"] = [t for t in book.tags(cell) if t != "hide-cell"]
        cells.append(cell)
        if cell["id"] in last:
            e = last[cell["id"]]
            cells.append(
                {
                    "cell_type": "markdown",
                    "id": f"{cell['id'][:56]}-teacher",
                    "metadata": {"tags": ["teacher"]},
                    "source": explanation(e),
                }
            )
    notebook["cells"] = cells
    return notebook


def explanation(exercise: exercises.Exercise) -> str:
    """What a teacher should know about the check of an exercise, as markdown."""
    points = POINTS[exercise.level]
    head = f"**For the teacher.** {exercise.level.capitalize()}, {points} point{'s' if points > 1 else ''}."
    if exercise.open:
        return f"{head} There is no check: read the answers, and mark them by hand."
    asked = "\n".join(
        f"- {_plain(words) or 'an assertion without words'}\n\n  ```python\n{_indented(test)}\n  ```"
        for words, test in assertions(exercise.check)
    )
    text = f"{head} Any answer that meets these passes:\n\n{asked}"
    if exercise.wrong:
        bodies = "\n\n".join(f"```python\n{body.strip()}\n```" for body in exercise.wrong)
        text += f"\n\nPlausible answers that the check refuses (a test of the book sees that it does):\n\n{bodies}"
    return text


def assertions(check: str) -> list[tuple[str, str]]:
    """``(words, condition)`` of each assert of a check, in order; values that the words quote appear as ``{name}``."""
    found = [node for node in ast.walk(ast.parse(check)) if isinstance(node, ast.Assert)]
    return [(_words(node.msg), ast.unparse(node.test)) for node in sorted(found, key=lambda n: n.lineno)]


def _words(message: ast.expr | None) -> str:
    if message is None:
        return ""
    if isinstance(message, ast.Constant):
        return str(message.value)
    if isinstance(message, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
            for part in message.values
        )
    return ast.unparse(message)


def _plain(words: str) -> str:
    """Words as markdown that shows them as they are."""
    return re.sub(r"([\\`*_$<\[\]|])", r"\\\1", " ".join(words.split()))


def _indented(code: str) -> str:
    return "\n".join(f"  {line}" for line in code.splitlines())


def _readable(notebook: dict, names: Mapping[str, str], sources: prose.Sources) -> dict:
    """A copy whose text Jupyter shows as it is meant: glued numbers and citations as words, links that lead somewhere.

    Links to other chapters lead to their files in this folder, or become plain words where the course leaves them out.
    """
    copied, glued = copy.deepcopy(notebook), prose.glued(notebook)
    for cell in copied["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = prose.linked(prose.plain(book.source(cell), glued, sources), names)
    return copied
