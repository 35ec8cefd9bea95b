"""How far raters agree: Cohen's kappa for two, Fleiss' kappa for any number, from the sheets that they saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from scprimer.explorer.sheet import COLUMNS, SCALE, read_sheet


def cohen_kappa(a: Sequence, b: Sequence, *, weights: str | None = None, categories: Sequence | None = None) -> float:
    """Agreement of two raters beyond chance (Cohen 1960; weighted: Cohen 1968).

    Args:
        a: the first rater's category for each item.
        b: the second rater's, in the same order.
        weights: None counts every disagreement alike; ``"linear"`` or ``"quadratic"`` counts it by its distance.
        categories: all categories in order; default: those that occur, sorted.

    Returns:
        1 for perfect agreement, 0 for what chance gives with these raters' habits; NaN where chance alone would make them
        agree always (both use one and the same category), because there is nothing to measure.

    Raises:
        ValueError: no items, different lengths, a category that is not listed, or unknown weights.
    """
    a, b = list(a), list(b)
    if len(a) != len(b) or not a:
        raise ValueError(
            f"the raters judged {len(a)} and {len(b)} items: give the same items, at least one, in the same order"
        )
    if weights not in (None, "linear", "quadratic"):
        raise ValueError(f"weights={weights!r} is not None, 'linear' or 'quadratic'")
    categories = sorted({*a, *b}) if categories is None else list(categories)
    at = _positions([*a, *b], categories)
    k = len(categories)
    observed = np.zeros((k, k))
    np.add.at(observed, (at[: len(a)], at[len(a) :]), 1 / len(a))
    expected = np.outer(observed.sum(1), observed.sum(0))
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))).astype(float)
    cost = {None: (distance > 0).astype(float), "linear": distance, "quadratic": distance**2}[weights]
    chance = (cost * expected).sum()
    return float(1 - (cost * observed).sum() / chance) if chance > 0 else float("nan")


def fleiss_kappa(ratings: np.ndarray, *, categories: Sequence | None = None) -> float:
    """Agreement of any number of raters beyond chance (Fleiss 1971).

    Args:
        ratings: items x raters, each a category; every rater judged every item.
        categories: all categories; default: those that occur.

    Returns:
        1 for perfect agreement, 0 for chance; NaN where everybody always uses the same category.

    Raises:
        ValueError: the table is not items x raters with at least two raters, or a category is not listed.
    """
    ratings = np.asarray(ratings)
    if ratings.ndim != 2 or not len(ratings) or ratings.shape[1] < 2:
        raise ValueError(f"ratings has shape {ratings.shape}; wanted is items x raters, with two raters or more")
    categories = np.unique(ratings) if categories is None else list(categories)
    at = _positions(ratings.ravel().tolist(), list(categories)).reshape(ratings.shape)
    n = ratings.shape[1]
    counts = np.stack([(at == c).sum(1) for c in range(len(categories))], axis=1)  # items x categories
    observed = ((counts * (counts - 1)).sum(1) / (n * (n - 1))).mean()
    expected = ((counts.sum(0) / counts.sum()) ** 2).sum()
    return float((observed - expected) / (1 - expected)) if expected < 1 else float("nan")


@dataclass(frozen=True)
class Agreement:
    """What several raters' sheets say together; only items that everybody rated count.

    Attributes:
        ratings: items x raters, a pandas table (index: item).
        fleiss: Fleiss' kappa over all raters.
        cohen: raters x raters, quadratically weighted Cohen's kappa (1 on the diagonal).
        kinds: one row for ``concept`` and ``neuron`` each: number of items, mean rating over items and raters, and Fleiss'
            kappa within the kind.
    """

    ratings: object
    fleiss: float
    cohen: object
    kinds: object


def agreement(sheets: Sequence, *, blind_only: bool = True) -> Agreement:
    """Read the sheets of several raters and measure how far they agree.

    Args:
        sheets: paths of saved CSV files (or tables as :func:`scprimer.explorer.read_sheet` returns them), one a rater.
        blind_only: count only ratings that were given in blind mode.

    Raises:
        ValueError: fewer than two sheets, a malformed sheet, the same rater twice, sheets that call the same item a concept
            and a neuron, or no item that all raters rated.
    """
    import pandas as pd

    tables = [read_sheet(s) if isinstance(s, str | Path) else s for s in sheets]
    if len(tables) < 2:
        raise ValueError(f"agreement takes two raters or more, and got {len(tables)} sheet: give one CSV file a rater")
    columns, kinds = {}, {}
    for number, sheet in enumerate(tables, start=1):
        missing = [c for c in COLUMNS if c not in sheet]
        if missing or sheet.empty:
            raise ValueError(f"sheet {number} " + (f"lacks the columns {missing}" if missing else "holds no rating"))
        rater = str(sheet["rater"].iloc[0])
        if rater in columns:
            raise ValueError(f"two sheets are signed {rater!r}: each rater gives one sheet, under a name of their own")
        for item, kind in zip(sheet["item"], sheet["kind"]):
            if kinds.setdefault(item, kind) != kind:
                raise ValueError(
                    f"{item!r} is a {kinds[item]} in one sheet and a {kind} in another: are they of one bundle?"
                )
        counted = sheet[sheet["rating"].notna() & (sheet["blind"] | (not blind_only))]
        columns[rater] = counted.set_index("item")["rating"].astype(int)
    ratings = pd.DataFrame(columns).dropna().astype(int).sort_index()
    if ratings.empty:
        how = " in blind mode (blind_only=False counts the others too)" if blind_only else ""
        raise ValueError(f"no item was rated by all of {', '.join(columns)}{how}")
    cohen = pd.DataFrame(1.0, index=ratings.columns, columns=ratings.columns)
    for a, b in combinations(ratings.columns, 2):
        kappa = cohen_kappa(ratings[a], ratings[b], weights="quadratic", categories=SCALE)
        cohen.loc[a, b] = cohen.loc[b, a] = kappa
    return Agreement(ratings, fleiss_kappa(ratings.to_numpy(), categories=SCALE), cohen, _by_kind(ratings, kinds))


def _by_kind(ratings, kinds: dict[str, str]):
    import pandas as pd

    rows = {}
    for kind, group in ratings.groupby(ratings.index.map(kinds)):
        values = group.to_numpy()
        rows[kind] = {
            "items": len(group),
            "mean rating": values.mean(),
            "fleiss": fleiss_kappa(values, categories=SCALE),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _positions(values: list, categories: list) -> np.ndarray:
    at = {c: i for i, c in enumerate(categories)}
    strange = next((v for v in values if v not in at), None)
    if strange is not None:
        raise ValueError(f"{strange!r} is not one of the categories {categories}")
    return np.array([at[v] for v in values])
