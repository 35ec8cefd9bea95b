"""The explorer in a notebook: a live widget where somebody sits at it, a piece of HTML where a notebook is only executed."""

from __future__ import annotations

import html
import re
from functools import cached_property
from importlib import resources
from pathlib import Path

from scprimer.explorer import sheet as sheets
from scprimer.explorer.bundle import Bundle
from scprimer.kernel import attended

FALLBACK = (
    "Here is an interactive explorer. It needs JavaScript: open this page in a browser, or run this cell in JupyterLab."
)


def explore(bundle: Bundle, *, rater: str = "", seed: int = 0, limit_kb: float = 350) -> Explorer:
    """The explorer of a bundle; put it on the last line of a cell.

    Args:
        bundle: what to show.
        rater: who rates; can be written in the explorer too.
        seed: of the order in which blind mode shows the items; can be changed in the explorer.
        limit_kb: see :meth:`Bundle.packed`.

    Raises:
        ValueError: the bundle is empty or too large, or the seed is negative.
    """
    return Explorer(bundle, rater=rater, seed=seed, limit_kb=limit_kb)


class Explorer:
    """A bundle with what a rater has written about it.

    Attributes:
        bundle: what is shown.
        sheet: names, notes and ratings so far, a pandas table with the columns ``scprimer.explorer.COLUMNS``.
    """

    def __init__(self, bundle: Bundle, *, rater: str = "", seed: int = 0, limit_kb: float = 350):
        if isinstance(seed, bool) or int(seed) != seed or not 0 <= seed < 2**31:
            raise ValueError(f"seed={seed!r}: use a whole number from 0 to 2**31 - 1")
        self.bundle, self.seed = bundle, int(seed)
        self._packed = bundle.packed(limit_kb)
        self._rater, self._rows = rater, []

    @cached_property
    def widget(self):
        """The live form, an anywidget; made when it is first asked for."""
        return _widget_class()(packed=self._packed, seed=self.seed, rater=self._rater, rows=self._rows)

    @property
    def rater(self) -> str:
        """Who rates."""
        return self.widget.rater if "widget" in self.__dict__ else self._rater

    @property
    def sheet(self):
        """Names, notes and ratings so far."""
        return sheets.table(self.rater, self._current())

    def save(self, path: str | Path) -> None:
        """Write the sheet as CSV.

        Raises:
            ValueError: the rater has no name.
        """
        Path(path).write_text(sheets.write_sheet(self._current(), self.rater), encoding="utf-8", newline="\n")

    def load(self, path: str | Path) -> None:
        """Take names, notes, ratings and the rater from a saved sheet; what was here before is replaced.

        Raises:
            ValueError: the file is not a sheet, or belongs to another bundle; nothing is replaced then.
        """
        path = Path(path)
        rater, rows = sheets.parse_sheet(path.read_text(encoding="utf-8"), path.name)
        sheets.check_items(rows, self.bundle.items(), path.name)
        self._rater, self._rows = rater, rows
        if "widget" in self.__dict__:
            self.widget.rater, self.widget.rows = rater, rows

    def to_html(self) -> str:
        """The static form: style, module and bundle in one piece of HTML, the same for the same bundle."""
        return _page(self._packed, self.seed, html.escape(self._rater))

    def __repr__(self) -> str:
        return f"Explorer of {len(self.bundle.pairs)} pairs of a model and a data set, {len(self.bundle.items())} items"

    def _repr_mimebundle_(self, **kwargs):
        if attended():
            return self.widget._repr_mimebundle_(**kwargs)
        return {"text/plain": repr(self), "text/html": self.to_html()}

    def _current(self) -> list[dict]:
        return self.widget.rows if "widget" in self.__dict__ else self._rows


def renewed(page: str) -> str:
    """A stored static form with the style and the module of today, and the bundle, seed and rater as they were.

    So that a change of the explorer's looks costs no new run of the chapter that shows it.

    Raises:
        ValueError: the text is no static form of the explorer.
    """
    head = re.match(r'<div class="scp-explorer" data-static data-seed="(\d+)" data-rater="([^"]*)">', page)
    packed = re.search(r'<script type="text/plain">([\w+/=]*)</script>', page)
    if head is None or packed is None:
        raise ValueError("this is no page of the explorer: give the text/html output of a cell that shows one")
    return _page(packed[1], int(head[1]), head[2])


def _page(packed: str, seed: int, rater: str) -> str:
    return (
        f'<div class="scp-explorer" data-static data-seed="{seed}" data-rater="{rater}">'
        f'<style>{_asset("explorer.css")}</style><p class="scp-explorer-fallback">{FALLBACK}</p>'
        f'<script type="text/plain">{packed}</script>'
        f'<script type="module">{_asset("explorer.js")}\nstart(document);\n</script></div>'
    )


def _asset(name: str) -> str:
    return (resources.files("scprimer.explorer") / name).read_text(encoding="utf-8")


def _widget_class():
    import anywidget
    import traitlets

    class ExplorerWidget(anywidget.AnyWidget):
        """The browser's side of an explorer: the packed bundle goes there, rows and rater go both ways."""

        _esm = _asset("explorer.js")
        _css = _asset("explorer.css")
        packed = traitlets.Unicode().tag(sync=True)
        seed = traitlets.Int(0).tag(sync=True)
        rater = traitlets.Unicode("").tag(sync=True)
        rows = traitlets.List(traitlets.Dict()).tag(sync=True)

    return ExplorerWidget
