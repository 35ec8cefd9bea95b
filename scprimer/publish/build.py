"""Rendering the book: ``jupyter-book build`` with warnings as errors, of the repository or of an edition executed afresh.

Nothing but PyPI's packages is needed: equations become MathML, and fonts and scripts are the book's own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scprimer.publish import book

EDITIONS = ("standard", "smoke", "full")


def build(top: Path, edition: str = "standard", strict: bool = True, out: Path | None = None, workers: int = 1) -> Path:
    """Render the book as a web site.

    Args:
        top: top folder of the clone.
        edition: ``"standard"`` renders the outputs that the notebooks hold. ``"smoke"`` and ``"full"`` execute every chapter
            in that profile into a copy first and render the copy, which says on every page what it is.
        strict: fail on any warning, such as a broken reference or a missing glue key.
        out: folder that receives ``html/``; default: ``_build``, or ``_build/<edition>`` for an edition.
        workers: how many chapters are executed side by side.

    Returns:
        Folder of the site; ``index.html`` lies in it.

    Raises:
        BookError: an unknown edition, no jupyter-book or one that cannot build this book, a table of contents that does not
            name the written chapters, a chapter that failed, or a build with warnings.
    """
    if edition not in EDITIONS:
        raise book.BookError(f"no edition is called {edition!r}: there are {', '.join(EDITIONS)}")
    _check_jupyter_book()
    check_contents(top)
    out = Path(out) if out else top / "_build" / ("" if edition == "standard" else edition)
    if edition == "standard":
        return _render(top, out, strict)
    with tempfile.TemporaryDirectory(prefix="scprimer-edition-") as folder:
        return _render(_edition(top, Path(folder), edition, workers), out, strict)


def contents(top: Path) -> list[str]:
    """Files that ``_toc.yml`` names, in reading order.

    Raises:
        BookError: it is missing or no table of contents.
    """
    import yaml

    path = top / "_toc.yml"
    try:
        toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise book.BookError(f"{path} is missing: restore it with `git checkout -- {path}`") from None
    except yaml.YAMLError as error:
        raise book.BookError(f"{path} is not readable: {error}") from error
    if not isinstance(toc, dict) or "root" not in toc:
        raise book.BookError(f"{path} is no table of contents: it names no root")
    return list(_files(toc))


def _files(entry: dict):
    if "root" in entry or "file" in entry:
        yield entry.get("root") or entry["file"]
    for key in ("parts", "chapters", "sections"):
        for child in entry.get(key) or []:
            yield from _files(child)


def check_contents(top: Path) -> None:
    """Compare the table of contents with the written chapters.

    Raises:
        BookError: a chapter is missing from it, is not written, or stands out of the reading order.
    """
    named = [name for name in contents(top) if name.startswith("notebooks/")]
    written = [f"notebooks/{c.part}/{c.slug}" for c in book.chapters(top)]
    if named == written:
        return
    missing = [n for n in written if n not in named]
    extra = [n for n in named if n not in written]
    said = [f"it does not name {', '.join(missing)}"] if missing else []
    said += [f"it names {', '.join(extra)}, which is not written"] if extra else []
    order = f"the reading order is {', '.join(written)}"
    raise book.BookError(f"_toc.yml does not fit the notebooks: {'; '.join(said) or order}. Edit {top / '_toc.yml'}")


def _check_jupyter_book() -> None:
    wanted = "`make book` installs what is needed, with the versions that fit"
    try:
        found = version("jupyter-book")
    except PackageNotFoundError:
        raise book.BookError(f"jupyter-book is not installed here; {wanted}") from None
    if int(found.split(".")[0]) != 1:
        raise book.BookError(f"this book is built with jupyter-book 1, and {found} is installed; {wanted}")


def _render(source: Path, out: Path, strict: bool) -> Path:
    """Run jupyter-book on a folder and move the site to ``out/html``; a build that fails leaves an earlier site alone."""
    out.mkdir(parents=True, exist_ok=True)
    # A folder of its own for each build: an incremental one would keep pages of what has changed elsewhere.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=out) as folder:
        tool = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]  # it has no __main__
        options = ["--path-output", folder, "-n", "--keep-going", "-q"] + (["-W"] if strict else [])
        # Warnings go to standard error as they come; the rest names folders that are gone when one reads it.
        done = subprocess.run([*tool, "build", str(source), *options], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout[-4000:], file=sys.stderr)
            raise book.BookError(
                "the book was not built: jupyter-book's warnings and errors stand above"
                + ("; warnings are errors here" if strict else "")
            )
        site = out / "html"
        shutil.rmtree(site, ignore_errors=True)
        (Path(folder) / "_build" / "html").rename(site)
    return site


def _edition(top: Path, folder: Path, profile: str, workers: int) -> Path:
    """A copy of the book's sources whose notebooks were executed afresh in ``profile``."""
    from scprimer.publish import runner  # needs the running tools, which rendering alone does not

    shutil.copytree(top / "book", folder / "book")
    for name in ("_toc.yml", "_config.yml", "pyproject.toml", "constraints.txt"):  # the last two for the stamps' pins
        shutil.copy2(top / name, folder / name)
    slugs = tuple(c.slug for c in book.chapters(top))
    request = runner.Request(chapters=slugs, profile=profile, out=str(folder / "notebooks"), workers=workers)
    failed = [o.slug for o in runner.run(request, top) if o.state != "done"]
    if failed:
        raise book.BookError(
            f"the {profile} edition was not rendered, because these chapters failed: {', '.join(failed)}"
        )
    _announce(folder / "_config.yml", profile)
    return folder


def _announce(config: Path, profile: str) -> None:
    """Say on every page of an edition what it is."""
    import yaml

    words = {
        "smoke": "Smoke edition: every chapter was executed afresh on small simulated data. "
        "Its numbers say nothing about real cells.",
        "full": "Full edition: every chapter was executed afresh at full size.",
    }
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["title"] = f"{settings['title']} ({profile} edition)"
    settings.setdefault("html", {})["announcement"] = words[profile]
    # JSON is YAML, and keeps strings such as "off" what they are.
    config.write_text(json.dumps(settings, indent=1), encoding="utf-8")
