"""One rater's sheet: the table of names, notes and ratings, as CSV.

The protocol for more than one rater: everybody gets the same bundle, writes their own name as *rater*, rates in blind mode
without talking to the others, and saves a sheet. A sheet belongs to one rater. Blind mode hides ids, kinds, stability, nearest
concepts and the absolute size of attributions. It cannot hide the pattern itself: a dictionary's concepts are active in few
cells, and a rater who knows that may guess.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

COLUMNS = ("rater", "item", "kind", "rating", "name", "note", "seconds", "blind")
SCALE = (1, 2, 3, 4, 5)


def write_sheet(rows: Iterable[Mapping], rater: str) -> str:
    """The sheet as CSV text; lines end with a line feed, on every system and in the browser alike.

    Args:
        rows: one mapping an item: ``item``, ``kind``, ``rating`` (1 to 5 or None), ``name``, ``note``, ``seconds``
            (how long the item was looked at), ``blind`` (whether it was rated without knowing its kind).
        rater: who rated.

    Raises:
        ValueError: the rater has no name.
    """
    if not rater.strip():
        raise ValueError("the sheet has no rater: write your name or initials first, so that sheets can be told apart")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        rating = "" if row["rating"] is None else int(row["rating"])
        blind = "yes" if row["blind"] else "no"
        seconds = f"{row['seconds']:.1f}"
        writer.writerow([rater.strip(), row["item"], row["kind"], rating, row["name"], row["note"], seconds, blind])
    return out.getvalue()


def parse_sheet(text: str, origin: str = "the sheet") -> tuple[str, list[dict]]:
    """Rater and rows of a sheet.

    Args:
        text: CSV as :func:`write_sheet` writes it.
        origin: what messages call it, such as the file's name.

    Raises:
        ValueError: the text is not such a sheet; the message says where.
    """
    lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=False))
    lines = [line for line in lines if line]
    if not lines or tuple(lines[0]) != COLUMNS:
        found = ",".join(lines[0])[:80] if lines else "nothing"
        raise ValueError(
            f"{origin}: the first line is {found!r}, and should be {','.join(COLUMNS)!r}: is this a sheet of the explorer, "
            "saved with commas?"
        )
    rows, raters = [], set()
    for number, line in enumerate(lines[1:], start=2):
        at = f"{origin}, row {number}"
        if len(line) != len(COLUMNS):
            raise ValueError(f"{at} has {len(line)} fields instead of {len(COLUMNS)}")
        row = dict(zip(COLUMNS, line))
        raters.add(row.pop("rater").strip())
        if not row["item"]:
            raise ValueError(f"{at} names no item")
        if row["rating"] not in ("", *map(str, SCALE)):
            raise ValueError(f"{at}: the rating is {row['rating']!r}; it is a whole number from 1 to 5, or empty")
        if row["kind"] not in ("concept", "neuron"):
            raise ValueError(f"{at}: the kind is {row['kind']!r}; it is concept or neuron")
        if row["blind"] not in ("yes", "no"):
            raise ValueError(f"{at}: blind is {row['blind']!r}; it is yes or no")
        try:
            seconds = float(row["seconds"])
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"{at}: seconds is {row['seconds']!r}; it is a number, not below 0")
        rating = int(row["rating"]) if row["rating"] else None
        rows.append(row | {"rating": rating, "seconds": seconds, "blind": row["blind"] == "yes"})
    items = [row["item"] for row in rows]
    double = next((item for item in items if items.count(item) > 1), None)
    if double is not None:
        raise ValueError(f"{origin}: {double!r} has more than one row: a sheet holds each item once")
    if len(raters) > 1:
        raise ValueError(f"{origin} holds several raters ({', '.join(sorted(raters))}): a sheet belongs to one rater")
    if rows and raters == {""}:
        raise ValueError(f"{origin} names no rater: fill in the first column")
    return next(iter(raters), ""), rows


def check_items(rows: Iterable[Mapping], items: Mapping[str, str], origin: str = "the sheet") -> None:
    """Refuse a sheet of another bundle.

    Raises:
        ValueError: an item is unknown, or has another kind here.
    """
    strange = [row["item"] for row in rows if items.get(row["item"]) != row["kind"]]
    if strange:
        raise ValueError(
            f"{origin}: {len(strange)} items are not in this explorer, such as {strange[0]!r}: the sheet belongs to another one"
        )


def read_sheet(path: str | Path):
    """A sheet as a pandas table with the columns ``COLUMNS``; ratings are whole numbers or missing.

    Raises:
        ValueError: the file is not a sheet; the message says where.
    """
    path = Path(path)
    rater, rows = parse_sheet(path.read_text(encoding="utf-8"), path.name)
    return table(rater, rows)


def table(rater: str, rows: Iterable[Mapping]):
    """Rows as a pandas table with the columns ``COLUMNS``."""
    import pandas as pd

    frame = pd.DataFrame([{"rater": rater.strip(), **row} for row in rows], columns=list(COLUMNS))
    return frame.astype({"rating": "Int64", "seconds": float, "blind": bool})
