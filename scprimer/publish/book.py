"""The book as data: its parts, its chapters, where their notebooks lie, and what a notebook's metadata says.

Everything in :mod:`scprimer.publish` goes through this module, so that the layout is known in one place.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# The parts and their chapters in reading order. A chapter exists once its notebook does.
PARTS: dict[str, tuple[str, ...]] = {
    "data": ("anndata", "reads-to-counts", "qc", "normalisation", "simulation"),
    "learning": ("unsupervised", "supervised", "autoencoders", "scvi", "self-supervised", "diffusion"),
    "tasks": ("metrics", "annotation", "calibration", "integration", "imputation", "differential", "novel-states"),
    "networks": ("graph-networks", "transformers", "foundation-models", "concepts"),
    "dynamics": ("trajectories", "velocity", "neural-ode", "spatiotemporal"),
    "modalities": ("cite-seq", "multiome", "spatial", "communication", "gene-networks", "dna-models"),
    "therapies": ("perturbation", "drug-response", "targets"),
    "frontiers": ("causal", "prior-knowledge", "continual", "closed-loop"),
    "practice": (
        "interpretability",
        "tuning",
        "generalisation",
        "benchmarking",
        "reproducibility",
        "scale",
        "pipeline",
    ),
}

# The anatomy of a chapter: tags of the markdown cells that open its sections, in the order in which they first occur.
ANATOMY = (
    "objectives", "data", "idea", "build", "run", "look", "check", "compare", "break", "claims", "exercises", "takeaways",
)  # fmt: skip

EXPORT_TAG = "export"
REPORT_TAG = "nbval-check-output"


class BookError(Exception):
    """Something about the book's sources is wrong; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Chapter:
    """One chapter of the book.

    Attributes:
        slug: the chapter's name, such as ``"self-supervised"``.
        part: folder of its part, such as ``"learning"``.
        path: where its notebook lies (it need not exist yet).
    """

    slug: str
    part: str
    path: Path

    @property
    def exists(self) -> bool:
        """Whether the chapter has been written."""
        return self.path.is_file()

    @property
    def module(self) -> str:
        """Name of the module in :mod:`scprimer.methods` that its exported cells make."""
        return self.slug.replace("-", "_")

    @cached_property
    def notebook(self) -> dict:
        """The notebook as parsed JSON (not to be changed: read it again with :func:`read_notebook` for that)."""
        return read_notebook(self.path)

    @property
    def meta(self) -> dict:
        """``metadata["scprimer"]`` of the notebook: chapter, methods, stamp, claims, not_applicable."""
        return self.notebook["metadata"].get("scprimer", {})

    @property
    def title(self) -> str:
        """The notebook's first level-one heading, or the slug."""
        for cell in self.notebook["cells"]:
            if cell["cell_type"] == "markdown":
                for line in source(cell).splitlines():
                    if line.startswith("# "):
                        return line[2:].strip()
        return self.slug


def root(start: Path | None = None) -> Path:
    """Top folder of the clone: the nearest folder at or above ``start`` (default: here, then this package) with a ``_toc.yml``.

    Raises:
        BookError: there is none, as in an installation without the book's sources.
    """
    here = Path.cwd() if start is None else Path(start)
    for base in (here, Path(__file__)):
        for folder in (base, *base.parents):
            if (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
                return folder
    raise BookError("no clone of the book here: run this inside a clone of the repository (the folder with _toc.yml)")


def chapters(top: Path | None = None, *, planned: bool = False) -> list[Chapter]:
    """The written chapters in reading order; with ``planned`` also those without a notebook."""
    top = top or root()
    every = [Chapter(s, part, top / "notebooks" / part / f"{s}.ipynb") for part, slugs in PARTS.items() for s in slugs]
    return [c for c in every if planned or c.exists]


def find(name: str, top: Path | None = None) -> Chapter:
    """The written chapter called ``name`` (a slug, or the path of its notebook).

    Raises:
        BookError: no such chapter, with the nearest name; or planned and not written yet.
    """
    every = {c.slug: c for c in chapters(top, planned=True)}
    slug = Path(name).stem if name.endswith(".ipynb") else name
    if slug not in every:
        near = difflib.get_close_matches(slug, every, n=1)
        raise BookError(
            f"no chapter is called {name!r}" + (f": did you mean {near[0]!r}?" if near else "; see `scprimer list`")
        )
    if not every[slug].exists:
        raise BookError(f"the chapter {slug!r} is planned and not written yet; `scprimer list` shows those that are")
    return every[slug]


def read_notebook(path: Path) -> dict:
    """Parse a notebook.

    Raises:
        BookError: missing, not JSON, or not a notebook of format 4.
    """
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BookError(f"no notebook at {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BookError(
            f"{path} is not a readable notebook ({error}): restore it with `git checkout -- {path}`"
        ) from error
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4 or "cells" not in notebook:
        raise BookError(f"{path} is JSON but no notebook of format 4")
    return notebook


def write_notebook(path: Path, notebook: dict) -> None:
    """Write a notebook in nbformat's canonical text, atomically: a full disk or an interrupt leaves the old file whole."""
    write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (a temporary file beside it, then ``os.replace``)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def source(cell: dict) -> str:
    """A cell's source as one string."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def tags(cell: dict) -> list[str]:
    """A cell's tags."""
    return cell.get("metadata", {}).get("tags", [])


def table(name: str, top: Path | None = None) -> list[dict[str, str]]:
    """Rows of ``book/<name>.csv`` (``"methods"`` or ``"reported"``) as dicts."""
    with ((top or root()) / "book" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
