"""Rules about stored outputs: no errors, no clutter, and figures that everyone can read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scprimer.publish import book
from scprimer.publish.rules.common import Finding, cells, cells_of_others, images, rule, texts

# What has no place on a page, and what to do about it.
CLUTTER = {
    r"\bat 0x[0-9A-Fa-f]{6,}": ("an object's address", "end the line with `;`, or show something a reader can use"),
    r"\b[A-Z]\w*Warning\b": ("a warning", "mend its cause"),
    r"(?m)^(?:\S+ )?\[?(?:DEBUG|INFO|WARNING)\]?[ :]": ("a log line", "set the library's verbosity lower"),
    r"\d+%\|": ("a progress bar", "use run.repeat or scprimer.run.progress, whose bars leave no trace"),
    r"(?<![\w.:/-])/(?:home|work|tmp|root|Users|mnt|content|var/folders)/[\w.]": (
        "a path of one machine",
        "show the file's name only",
    ),
    r"\b[A-Z]:\\+Users\b": ("a path of one machine", "show the file's name only"),
}


@rule
def stderr(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """No output is an error, and nothing went to stderr."""
    for cell in cells(chapter, "code"):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                words = f"the cell ended with {output.get('ename')}: {output.get('evalue')}"
                yield cell["id"], words, "mend it and run the chapter"
            elif output.get("name") == "stderr":
                line = "".join(output["text"]).strip().splitlines() or [""]
                yield cell["id"], f"the cell wrote to stderr: {line[0][:80]!r}", "mend what it complains about"


@rule
def clean_outputs(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """No addresses, warnings, logs, left-over progress bars or paths of one machine in what a page shows."""
    for cell in cells(chapter, "code"):
        shown = "\n".join(
            text for output in cell["outputs"] if output.get("name") != "stderr" for text in texts(output)
        )
        for pattern, (what, fix) in CLUTTER.items():
            found = re.search(pattern, shown)
            if found:
                line = shown[shown.rfind("\n", 0, found.start()) + 1 :].splitlines()[0].strip()
                yield cell["id"], f"the output shows {what}: {line[:80]!r}", fix


@rule
def alt_text(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every figure says in words what it shows (alt text), has a caption, and a name to refer to."""
    fix = 'metadata mystnb: {"image": {"alt": ...}, "figure": {"caption": ..., "name": "fig-..."}}'
    for cell in cells(chapter, "code"):
        pictures = images(cell)
        if not pictures:
            continue
        mystnb = cell["metadata"].get("mystnb", {})
        alt = str(mystnb.get("image", {}).get("alt") or "").strip()
        caption = str(mystnb.get("figure", {}).get("caption") or "").strip()
        name = str(mystnb.get("figure", {}).get("name") or "")
        if len(alt) <= 20:
            yield cell["id"], f"the figure's alt text is missing or says little: {alt!r}", fix
        elif re.match(r"(?i)(an? )?(image|figure|picture|plot) (of|show)|figure\b", alt):
            yield cell["id"], f"the alt text begins {alt[:12]!r}", "begin with what is drawn: `Scatter plot of ...`"
        if len(caption) < 10:
            yield cell["id"], "the figure has no caption", fix
        elif caption == alt:
            yield (
                cell["id"],
                "caption and alt text are the same",
                "the alt text describes, the caption says what to see",
            )
        if not re.fullmatch(rf"fig-{re.escape(chapter.slug)}-[a-z0-9-]+", name):
            yield (
                cell["id"],
                f"the figure's name is {name!r}",
                f"call it `fig-{chapter.slug}-...` (lower case, hyphens)",
            )
        if len(pictures) > 1:
            yield cell["id"], f"the cell shows {len(pictures)} figures", "one figure a cell: each has its own caption"
    for cell in cells(chapter, "markdown"):
        source = book.source(cell)
        if re.search(r"!\[\s*\]\(", source) or re.search(r"<img(?![^>]*\balt=[\"'][^\"']{5})[^>]*>", source):
            yield cell["id"], "an image in the text has no alt text", "write `![what it shows](file)`"


@rule
def figure_only(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """A cell that draws shows the figure and no left-over value of its last line."""
    for cell in cells(chapter, "code"):
        if images(cell) and any(
            o["output_type"] == "execute_result" and o not in images(cell) for o in cell["outputs"]
        ):
            yield cell["id"], "beside the figure the value of the last line is shown", "end with `plt.show()` or a `;`"


@rule
def figure_names(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Names of figures are unique over the book."""
    own = [(c["id"], n) for c in cells(chapter, "code") if (n := _figure_name(c))]
    times = Counter(name for _, name in own)
    elsewhere = {_figure_name(c) for c in cells_of_others(chapter, top)}
    for id, name in own:
        if times[name] > 1 or name in elsewhere:
            yield id, f"the figure name {name!r} is used twice", "rename one: references go by it"


def _figure_name(cell: dict) -> str | None:
    return cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
