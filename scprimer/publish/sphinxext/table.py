"""A table as HTML: whole without a script, in a scrolling box of its own, a stack of cards on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from scprimer.publish.sphinxext.words import figure


@dataclass(frozen=True)
class Column:
    """A column: its heading, whether it holds numbers, and whether readers may filter by its values."""

    heading: str
    numeric: bool = False
    filtered: bool = False

    @property
    def mark(self) -> str:
        """What tells ``scprimer.js`` to offer a filter."""
        return ' data-filter=""' if self.filtered else ""


@dataclass(frozen=True)
class Cell:
    """A cell: HTML to show, and the plain value to sort and filter by (default: the text that is shown)."""

    html: str
    value: str | float | None = None


@dataclass(frozen=True)
class Row:
    """A row with its anchor."""

    cells: Sequence[Cell]
    id: str = ""


def table(
    columns: Sequence[Column], rows: Iterable[Row], *, name: str, label: str, empty: str, sortable: bool = True
) -> str:
    """A table in its own scrolling box; on a phone each row becomes a card.

    Args:
        columns: its columns; the first names the row.
        rows: their cells in the order of the columns.
        name: its ``id``.
        label: what it is, for screen readers.
        empty: the sentence that stands there when there are no rows.
        sortable: let ``scprimer.js`` add sorting and filtering.
    """
    body = "".join(_row(columns, row) for row in rows)
    if not body:
        return f'<p class="scp-empty">{escape(empty)}</p>'
    head = "".join(f'<th scope="col"{_classes(c)}{c.mark}>{escape(c.heading)}</th>' for c in columns)
    mark = ' data-sortable=""' if sortable else ""
    return (
        f'<div class="scp-box" role="region" tabindex="0" aria-label="{escape(label)}">'
        f'<table class="scp-table" id="{escape(name)}"{mark}>'
        f'<caption class="scp-hidden">{escape(label)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(columns: Sequence[Column], row: Row) -> str:
    cells = []
    for i, (column, cell) in enumerate(zip(columns, row.cells)):
        tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
        value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
        label = f'data-label="{escape(column.heading)}"{value}'
        classes = _classes(column, "scp-void" if cell.html == figure(None) else "")
        cells.append(f"<{tag}{scope}{classes} {label}><div>{cell.html}</div></{tag}>")
    name = f' id="{escape(row.id)}"' if row.id else ""
    return f"<tr{name}>{''.join(cells)}</tr>"


def _classes(column: Column, more: str = "") -> str:
    classes = " ".join(name for name in ("scp-number" if column.numeric else "", more) if name)
    return f' class="{classes}"' if classes else ""
