"""What of a chapter's notebook its page shows, and what the book adds to it.

The file on disk is what a reader downloads and runs. Its page folds the set-up, shows the cost box, the anchors that the
ledger and the failure gallery point to, the figures of the literature beside the chapter's claims, and stills of its
controls. The notebook itself stays plain MyST.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable

from scprimer.publish import book
from scprimer.publish.sphinxext import stills

_HIDDEN = "remove-cell"
_SOLUTION_PROMPTS = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}
_LONG = 40  # lines of code that fill a screen
_PARAMETER_PROMPTS = {"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
# Take-aways link to the section that they come from by its tag: [Build it](#build).
_SECTION_LINK = re.compile(rf"\]\(#({'|'.join(book.ANATOMY)})\)")
# The name of a row that is a sentence, such as a claim's.
_SENTENCE = re.compile(r"<th>(?=[^<]{40})")
_GLUED = "application/papermill.record/"


def page(notebook: dict, slug: str, claim_ids: Iterable[str] = (), *, literature: bool = False) -> dict:
    """The notebook as its page shows it.

    Args:
        notebook: a chapter's notebook; it is not changed.
        slug: the chapter.
        claim_ids: ids of the claims that its metadata holds: each gets an anchor where it was measured.
        literature: the chapter has figures of the literature to stand beside: they get a section of their own.
    """
    shown = copy.deepcopy(notebook)
    for cell in shown["cells"]:
        if cell["cell_type"] == "code":
            _fold(cell)
            cell["outputs"] = stills.outputs(cell.get("outputs", []), notebook["metadata"])
            _make_room_for_words(cell["outputs"])
        else:
            cell["source"] = _SECTION_LINK.sub(rf"](#{slug}-\1)", book.source(cell))
    cells: list[dict] = []
    waiting, labelled = set(claim_ids), set()
    anatomy = None
    for i, cell in enumerate(shown["cells"]):
        opens = next((tag for tag in book.tags(cell) if tag in book.ANATOMY), None)
        if anatomy == "claims" and opens not in (None, "claims"):
            cells += _after_claims(slug, literature)
            anatomy = None
        anatomy = opens or anatomy
        if opens and opens not in labelled:
            labelled.add(opens)
            cell["source"] = f"({slug}-{opens})=\n{book.source(cell)}"
        cells += [directive("anchor", name) for name in _anchors(cell, slug, waiting)]
        if opens == "claims":
            # What could not be found where it was measured (a claim of a run without outputs) is found at least here.
            cells += [
                directive("anchor", f"claim-{slug}-{name}") for name in sorted(_left(shown["cells"][i:], waiting))
            ]
        cells.append(cell)
        if i == 0:
            cells.append(directive("cost", slug))
    if anatomy == "claims":
        cells += _after_claims(slug, literature)
    shown["cells"] = cells
    shown["metadata"].pop("widgets", None)
    return shown


def page_text(text: str, slug: str, *, literature: bool = False) -> str:
    """:func:`page` on the text of a notebook file."""
    notebook = json.loads(text)
    claims = notebook["metadata"].get("scprimer", {}).get("claims", [])
    return json.dumps(page(notebook, slug, (c["id"] for c in claims), literature=literature))


def directive(kind: str, argument: str = "", before: str = "") -> dict:
    """A markdown cell that holds one directive of this extension, with markdown before it."""
    argument = anchor(argument)
    return {
        "cell_type": "markdown",
        "id": f"{kind}-{hashlib.sha256(argument.encode()).hexdigest()[:12]}",
        "metadata": {},
        "source": f"{before}```{{scprimer}} {kind} {argument}\n```",
    }


def anchor(name: str) -> str:
    """A name as it may stand in an ``id`` and after ``#``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def _after_claims(slug: str, literature: bool) -> list[dict]:
    heading = "### Beside the literature\n\n"
    return ([directive("beside", slug, heading)] if literature else []) + [directive("exempt", slug)]


def _fold(cell: dict) -> None:
    tags = cell["metadata"].setdefault("tags", [])
    if "colab" in tags:
        tags.append(_HIDDEN)
    elif "parameters" in tags:
        tags.append("hide-input")
        cell["metadata"].setdefault("mystnb", {}).update(_PARAMETER_PROMPTS)
    elif "exercise-solution" in tags:
        cell["metadata"].setdefault("mystnb", {}).update(_SOLUTION_PROMPTS)
    elif (lines := len(book.source(cell).splitlines())) > _LONG and not any(tag.startswith("hide-") for tag in tags):
        tags.append("hide-input")
        prompts = {"code_prompt_show": f"Show the code ({lines} lines)", "code_prompt_hide": "Hide the code"}
        cell["metadata"].setdefault("mystnb", {}).update(prompts)


def _make_room_for_words(outputs: list[dict]) -> None:
    """Mark the rows of tables that are named by sentences: their names get a wider column."""
    for output in outputs:
        made = "".join(output.get("data", {}).get("text/html", ""))  # one string, or one a line
        if 'class="dataframe"' in made:
            output["data"] = output["data"] | {"text/html": _SENTENCE.sub('<th class="scp-sentence">', made)}


def _anchors(cell: dict, slug: str, waiting: set[str]) -> list[str]:
    """Names of the anchors that go before a cell; claims found are taken from ``waiting``."""
    pitfall = cell["metadata"].get("scprimer", {}).get("pitfall")
    names = [f"pitfall-{pitfall['id']}"] if pitfall else []
    here = sorted(_measured_in(cell) & waiting)
    waiting.difference_update(here)
    return names + [f"claim-{slug}-{name}" for name in here]


def _measured_in(cell: dict) -> set[str]:
    """Claims measured in a cell: those that its outputs glue, and those whose id its code spells out."""
    if cell["cell_type"] != "code":
        return set()
    glued = {
        output.get("metadata", {}).get("scrapbook", {}).get("name")
        for output in cell["outputs"]
        if any(kind.startswith(_GLUED) for kind in output.get("data", {}))
    }
    return (glued - {None}) | set(re.findall(r"""\.claim\(\s*["']([^"']+)["']""", book.source(cell)))


def _left(rest: list[dict], waiting: set[str]) -> set[str]:
    """Take those claims from ``waiting`` that no later cell measures."""
    later = set().union(*(_measured_in(cell) for cell in rest))
    left = waiting - later
    waiting -= left
    return left
