"""Short questions between the sections, with an explained answer that unfolds without a script.

A self-check is one markdown cell with the tag ``self-check``::

    **Check yourself.** Two cells have the same counts, and one was read twice as deeply. Which is larger after ...?

    - A. The first.
    - B. Neither.

    <details>
    <summary>Answer</summary>

    **B.** The normalisation divides by ... A would be right for ..., where nothing is divided.

    </details>

The element ``details`` is HTML's own: it unfolds in the book, in Jupyter, on Colab and on GitHub, by mouse and keyboard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scprimer.publish import book
from scprimer.publish.rules.common import Finding

TAG = "self-check"
HEAD = "**Check yourself.**"
NUMBER = (2, 5)  # in a chapter, at least and at most
WORDS = 12  # of an answer, at least: it gives reasons
_FORM = re.compile(
    rf"{re.escape(HEAD)} (?P<question>\S.*?)\n\n<details>\n<summary>Answer</summary>\n\n(?P<answer>\S.*?)\n\n</details>\s*",
    re.DOTALL,
)


def split(text: str) -> tuple[str, str] | None:
    """Question and answer of a self-check, as markdown; None when the text does not have its form."""
    found = _FORM.fullmatch(text.strip())
    if found is None or "<details" in found["question"] + found["answer"]:
        return None
    return found["question"].strip(), found["answer"].strip()


def self_checks(chapter: book.Chapter) -> Iterator[Finding]:
    """Each self-check has a question and an explained answer, and stands before the exercises; a chapter has some.

    :func:`scprimer.publish.rules.anatomy.self_checks` is the rule that chapters must keep.
    """
    found, section = 0, ""
    for cell in chapter.notebook["cells"]:
        section = next((t for t in book.tags(cell) if t in book.ANATOMY), section)
        if TAG not in book.tags(cell):
            continue
        found += 1
        parts = split(book.source(cell)) if cell["cell_type"] == "markdown" else None
        if parts is None:
            fix = f"a markdown cell: {HEAD}, a question, and one <details> with <summary>Answer</summary>, blank lines between"
            yield cell["id"], "the self-check does not have its form", fix
        elif len(parts[1].split()) < WORDS:
            yield cell["id"], "the answer gives no reasons", "say why it is right, and why the others tempt"
        if section in ("exercises", "takeaways"):
            yield cell["id"], f"the self-check stands in {section!r}", "put it behind what it asks about"
    if not NUMBER[0] <= found <= NUMBER[1]:
        yield None, f"{found} self-checks", f"a chapter has {NUMBER[0]} to {NUMBER[1]}"
