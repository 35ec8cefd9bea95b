"""The pages of the book that the browser tests open."""

from __future__ import annotations

from pathlib import Path

from scprimer.publish import book, build

ROOT = book.root(Path(__file__).parent)
PAGES = [*(f"{name}.html" for name in build.contents(ROOT)), "search.html", "genindex.html"]
CHAPTERS = [f"notebooks/{c.part}/{c.slug}.html" for c in book.chapters(ROOT)]
