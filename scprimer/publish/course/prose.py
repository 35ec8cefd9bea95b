"""The chapters' prose outside the book: roles become plain words, and paragraphs are shortened for slides."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from scprimer.publish import book

Sources = Mapping[str, tuple[str, str]]  # key of a reference -> (authors, year)

_ROLE = re.compile(r"\{([\w:+-]+)\}`([^`]+)`")
_ANCHOR_LINK = re.compile(r"\[([^\]]+)\]\(#[^)]*\)")
_CHAPTER_LINK = re.compile(r"\[([^\]]*)\]\((?:\.\./[\w-]+/)?([\w-]+)\.ipynb(?:#[^)]*)?\)")
_LABEL = re.compile(r"(?m)^\([\w-]+\)=\n")
# What must not be cut in two: formulas, code, links, emphasis that spans a full stop.
_WHOLE = re.compile(r"\$\$.*?\$\$|\$[^$]+\$|`[^`]+`|\[[^\]]*\]\([^)]*\)|\*\*[^*]+\*\*|\([^()]*\)", re.DOTALL)
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|cf|vs|et al|Fig|Dr|approx|resp)\.$")


def references(top: Path) -> dict[str, tuple[str, str]]:
    """Authors and year of every reference of the book, by key: ``("Luecken and others", "2019")``.

    Raises:
        BookError: the packages that read a bibliography are not installed.
    """
    path = top / "book" / "references.bib"
    if not path.is_file():
        return {}
    try:
        from pybtex.database import parse_file
    except ImportError:
        raise book.BookError("pybtex is not installed here; `make book` installs what making slides needs") from None
    found = {}
    for key, entry in parse_file(str(path)).entries.items():
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        names = [" ".join(_letters(part) for part in person.prelast_names + person.last_names) for person in people]
        who = {0: _letters(entry.fields.get("title", key)), 1: names[0] if names else "", 2: " and ".join(names)}
        found[key] = (who.get(len(names)) or f"{names[0]} and others", entry.fields.get("year", ""))
    return found


def _letters(text: str) -> str:
    """LaTeX as plain letters."""
    from pybtex.richtext import Text

    return str(Text.from_latex(text))


def glued(notebook: Mapping) -> dict[str, object]:
    """The numbers and words that a notebook glued, by key."""
    found: dict[str, object] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            key = output.get("metadata", {}).get("scrapbook", {}).get("name")
            text = output.get("data", {}).get("application/papermill.record/text/plain")
            if key and text is not None:
                found[key] = _value(text if isinstance(text, str) else "".join(text))
    return found


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return float(text) if text in ("nan", "inf", "-inf") else text


def plain(text: str, glue: Mapping[str, object], sources: Sources) -> str:
    """Markdown without MyST: glued numbers and citations as words, links within the page as their text."""
    text = _LABEL.sub("", text)
    text = _ROLE.sub(lambda m: _role(m[1], m[2], glue, sources), text)
    return _ANCHOR_LINK.sub(r"\1", text)


def linked(text: str, names: Mapping[str, str]) -> str:
    """Links to chapters lead to their files (``names``: slug -> file); those without one become plain words."""
    return _CHAPTER_LINK.sub(lambda m: f"[{m[1]}]({names[m[2]]})" if m[2] in names else m[1], text)


def _role(name: str, content: str, glue: Mapping[str, object], sources: Sources) -> str:
    if name.startswith("glue"):
        key, _, spec = content.partition(":")
        if key not in glue:
            return "…"
        return format(glue[key], spec) if spec else str(glue[key])
    if name.startswith("cite"):
        works = [sources.get(key.strip(), (key.strip(), "")) for key in content.split(",")]
        if name == "cite:t":
            return " and ".join(f"{who} ({year})" if year else who for who, year in works)
        return "(" + "; ".join(f"{who} {year}".strip() for who, year in works) + ")"
    shown = re.fullmatch(r"(.*?)\s*<[^>]*>", content)  # {term}`shown <target>`
    return shown[1] if shown else content


def sentences(text: str) -> list[str]:
    """A paragraph of markdown in its sentences; formulas, code and brackets stay whole."""
    kept: list[str] = []

    def hide(match: re.Match) -> str:
        kept.append(match[0])
        return f"\x00{len(kept) - 1}\x00"

    hidden = re.sub(r"\s+", " ", _WHOLE.sub(hide, text)).strip()
    parts: list[str] = []
    for part in re.split(r"(?<=[.!?:])\s+(?=[A-Z\x00“\"'(*])", hidden):
        if parts and (_ABBREVIATION.search(parts[-1]) or parts[-1].endswith(":")):
            parts[-1] += f" {part}"
        else:
            parts.append(part)
    return [_shown(part, kept) for part in parts]


def _shown(text: str, kept: list[str]) -> str:
    while "\x00" in text:
        text = re.sub(r"\x00(\d+)\x00", lambda m: kept[int(m[1])], text)
    return text


def gist(paragraph: str, number: int = 1) -> str:
    """The first sentences of a paragraph: ``number`` of them, and one more where the first only names the subject."""
    found = sentences(paragraph)
    if not found:
        return ""
    short = len(re.sub(r"\([^)]*\)|[^\w ]", "", found[0]).split()) < 5
    return " ".join(found[: number + short])
