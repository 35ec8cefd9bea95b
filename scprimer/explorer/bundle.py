"""What the explorer shows, as arrays in Python and as one short text for the browser."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scprimer import plots

KINDS = ("concept", "neuron")
UNLABELLED = "not labelled"
GRID = 4095  # an embedding is drawn on a square of this many steps: finer than any screen
TOP_GENES, TOP_PATHWAYS, TOP_CELLS, NEAREST = 12, 6, 8, 3
ENOUGH_GENES = 20  # below this many shared genes the cosine between two pairs says nothing


@dataclass
class Bundle:
    """Everything that one explorer shows: several pairs of a model and a data set, each with its cells and its items.

    A pair is added with :meth:`add_pair`, from NumPy arrays. An *item* is a concept (a feature of a sparse dictionary) or a
    neuron of the model itself; both have the same fields, so that a rater who is not told cannot see which is which.

    What is kept of a pair, and how precisely:

    ================  =======================================================================================================
    embedding         cells x 2, on a grid of 4,096 x 4,096 steps; both axes share one scale
    cell type         one label a cell, in the book's colours (:func:`scprimer.plots.colours`); missing labels are allowed
    condition         one label a cell, or none
    activations       cells x items, 8 bits each, from each item's own minimum (0 for what is never negative) to its
                      maximum. An error of at most one step of 255; what is positive never becomes 0
    genes             the 12 genes with the largest attribution by absolute value, three digits each
    pathways          up to 6 terms with adjusted p
    top cells         the 8 cells with the largest activation
    nearest concepts  by the cosine of attributions over shared genes: 3 within the pair, and the best of every other pair
    stable            whether the item came back over seeds; shown, and hidden in blind mode
    ================  =======================================================================================================

    Args:
        title: what the explorer is called, shown above it.

    Example:
        >>> bundle = Bundle("Concepts of immune cells")
        >>> bundle.add_pair("scVI", "pbmc", embedding=xy, cell_type=adata.obs["cell_type"], condition=None,
        ...     ids=["C0", "C1", "N7"], kinds=["concept", "concept", "neuron"],
        ...     activations=z,              # cells x 3
        ...     genes=adata.var_names, attributions=g,      # 3 x genes
        ...     pathways=[[("Interferon alpha response", 1e-9)], [], []], stable=[True, False, False])
        ... # doctest: +SKIP
    """

    title: str = "Concept explorer"
    pairs: list[dict] = field(default_factory=list)

    def add_pair(
        self,
        model: str,
        data: str,
        *,
        embedding: np.ndarray,
        cell_type: Sequence,
        ids: Sequence[str],
        kinds: Sequence[str],
        activations: np.ndarray,
        genes: Sequence[str],
        attributions: np.ndarray,
        condition: Sequence | None = None,
        pathways: Sequence[Sequence[tuple[str, float]]] | None = None,
        stable: Sequence[bool | None] | None = None,
    ) -> None:
        """Add one model on one data set.

        Args:
            model: the model's name, such as ``"scVI"``.
            data: the data set's name.
            embedding: cells x 2, such as a UMAP. Show at most about 1,500 cells: draw them before calling this.
            cell_type: one label a cell; missing ones (None, NaN) are shown as such.
            ids: one short name an item, unique within the pair, such as ``"C12"`` or ``"N7"``.
            kinds: ``"concept"`` or ``"neuron"``, one an item.
            activations: cells x items, finite.
            genes: names of the genes, unique.
            attributions: items x genes, positive where a gene raises the activation. A row of NaN says that no
                attribution was computed for this item.
            condition: one label a cell, or None.
            pathways: for each item its significant terms as ``(term, adjusted p)``; an empty list where there are none.
            stable: for each item whether it came back over seeds; None where this was not asked.

        Raises:
            ValueError: shapes, names or numbers that do not fit; the message says which.
        """
        where = f"pair {model!r} on {data!r}"
        if any(p["model"] == model and p["data"] == data for p in self.pairs):
            raise ValueError(f"{where} is in the bundle already: give each pair once")
        ids, kinds, genes = [str(i) for i in ids], [str(k) for k in kinds], [str(g) for g in genes]
        _unique(ids, f"{where}: ids")
        _unique(genes, f"{where}: genes")
        if not ids:
            raise ValueError(f"{where}: there is no item: give at least one concept or neuron")
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown:
            raise ValueError(f"{where}: kinds holds {unknown}; each is one of {KINDS}")
        xy = _array(embedding, (None, 2), f"{where}: embedding", "cells x 2")
        n = len(xy)
        a = _array(activations, (n, len(ids)), f"{where}: activations", "cells x items")
        g = _array(attributions, (len(ids), len(genes)), f"{where}: attributions", "items x genes", rows_of_nan=True)
        _length(kinds, len(ids), f"{where}: kinds", "item")
        types = _labels(cell_type, n, f"{where}: cell_type")
        conditions = None if condition is None else _labels(condition, n, f"{where}: condition")
        terms = [[] for _ in ids] if pathways is None else [_terms(t, where) for t in pathways]
        _length(terms, len(ids), f"{where}: pathways", "item")
        marks = [None] * len(ids) if stable is None else [None if s is None else bool(s) for s in stable]
        _length(marks, len(ids), f"{where}: stable", "item")
        levels, low, high = quantise(a)
        self.pairs.append(
            {
                "model": model, "data": data, "genes": genes, "attributions": g, "grid": grid(xy),
                "types": types, "conditions": conditions, "levels": levels, "low": low, "high": high,
                "top_cells": np.argsort(-a, axis=0, kind="stable")[:TOP_CELLS].T,
                "ids": ids, "kinds": kinds, "pathways": terms, "stable": marks,
            }
        )  # fmt: skip

    def items(self) -> dict[str, str]:
        """Every item's full name, ``model/data/id``, and its kind."""
        return {f"{p['model']}/{p['data']}/{i}": k for p in self.pairs for i, k in zip(p["ids"], p["kinds"])}

    def packed(self, limit_kb: float = 350) -> str:
        """The bundle as one base64 text, as the browser reads it: a JSON head and the bytes of all arrays, deflated.

        Args:
            limit_kb: the largest length in thousands of characters; a page should not weigh more.

        Raises:
            ValueError: there is no pair, or the text is longer than the limit.
        """
        if not self.pairs:
            raise ValueError("the bundle is empty: call add_pair at least once")
        head, arrays = self._head()
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        raw = len(text).to_bytes(4, "little") + text + b"".join(arrays)
        packed = base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
        if len(packed) > 1000 * limit_kb:
            sizes = ", ".join(f"{len(p['grid'])} cells x {len(p['ids'])} items" for p in self.pairs)
            raise ValueError(
                f"the bundle has {len(packed) / 1000:.0f} kB, more than the limit of {limit_kb:g} kB ({sizes}): "
                "give fewer cells or fewer items (neurons that are active in every cell cost most)"
            )
        return packed

    def _head(self) -> tuple[dict, list[bytes]]:
        """What goes into JSON, and the arrays that follow it."""
        arrays, at = [], 0

        def place(array: np.ndarray) -> int:
            nonlocal at
            arrays.append(array.tobytes())
            at += array.nbytes
            return at - array.nbytes

        terms = {
            t: i for i, t in enumerate(dict.fromkeys(t for p in self.pairs for ts in p["pathways"] for t, _ in ts))
        }
        links = nearest(self.pairs)
        pairs = []
        for n, p in enumerate(self.pairs):
            types, type_codes, type_colours = _coded(p["types"])
            pair = {
                "model": p["model"], "data": p["data"], "cells": len(p["grid"]),
                "xy": place(p["grid"].astype("<u2")),
                "types": types, "typeColours": type_colours, "type": place(type_codes),
                "genes": [], "items": [],
            }  # fmt: skip
            if p["conditions"] is not None:
                names, codes, colours = _coded(p["conditions"])
                pair |= {"conditions": names, "conditionColours": colours, "condition": place(codes)}
            used: dict[str, int] = {}
            for i, id in enumerate(p["ids"]):
                best = top_genes(p["attributions"][i])
                pair["items"].append(
                    {
                        "id": id, "kind": p["kinds"][i], "levels": place(p["levels"][:, i]),
                        "low": _short(p["low"][i]), "high": _short(p["high"][i]),
                        "attributed": bool(np.isfinite(p["attributions"][i]).all()),
                        "genes": [[used.setdefault(p["genes"][j], len(used)), _short(p["attributions"][i, j])] for j in best],
                        "pathways": [[terms[t], _short(q)] for t, q in p["pathways"][i]],
                        "cells": [int(c) for c in p["top_cells"][i]],
                        "near": links[n][i], "stable": p["stable"][i],
                    }
                )  # fmt: skip
            pair["genes"] = list(used)
            pairs.append(pair)
        head = {"title": self.title, "grid": GRID, "terms": list(terms), "pairs": pairs}
        # Ratings belong to exactly these items: what a browser remembers goes by this key.
        head["key"] = hashlib.sha256(repr([*self.items()]).encode() + b"".join(arrays)).hexdigest()[:16]
        return head, arrays


def unpack(text: str) -> tuple[dict, bytes]:
    """The head and the bytes of a packed bundle: what the browser sees."""
    raw = zlib.decompress(base64.b64decode(text))
    end = 4 + int.from_bytes(raw[:4], "little")
    return json.loads(raw[4:end]), raw[end:]


def quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eight bits a number, column by column.

    Args:
        values: cells x items.

    Returns:
        Levels (uint8, cells x items); each column's number at level 0 (its minimum, or 0 where that is not negative) and at
        level 255 (its maximum). A number above the lowest is at least level 1, so that active cells stay active.
    """
    low = np.minimum(values.min(0), 0.0)
    high = np.maximum(values.max(0), low)
    width = np.where(high > low, high - low, 1.0)
    levels = np.rint((values - low) / width * 255)
    levels = np.where(values > low, np.maximum(levels, 1), levels)
    return levels.astype(np.uint8), low, high


def grid(xy: np.ndarray) -> np.ndarray:
    """cells x 2 as whole numbers from 0 to ``GRID``; one scale for both axes, the shorter one centred."""
    low, high = xy.min(0), xy.max(0)
    width = max(float((high - low).max()), np.finfo(float).tiny)
    centred = (xy - (low + high) / 2) / width + 0.5
    return np.clip(np.rint(centred * GRID), 0, GRID).astype(np.uint16)


def top_genes(row: np.ndarray) -> list[int]:
    """Positions of the largest attributions by absolute value; none where no attribution was computed or all are 0."""
    if not np.isfinite(row).all():
        return []
    order = np.argsort(-np.abs(row), kind="stable")[:TOP_GENES]
    return [int(j) for j in order if row[j] != 0]


def nearest(pairs: Sequence[dict]) -> list[list[list]]:
    """For each pair and item: its nearest concepts as ``[pair, item, cosine of attributions]``, best first.

    Up to three within the pair, then the best of every other pair that shares at least 20 genes.
    """
    found = [[[] for _ in p["ids"]] for p in pairs]
    for m, here in enumerate(pairs):
        for n, there in enumerate(pairs):
            cosine = _cosines(here, there)
            if cosine is None:
                continue
            cosine[:, [k != "concept" for k in there["kinds"]]] = -np.inf
            if m == n:
                np.fill_diagonal(cosine, -np.inf)
            for i, row in enumerate(cosine):
                for j in np.argsort(-row, kind="stable")[: NEAREST if m == n else 1]:
                    if row[j] > 0:
                        found[m][i].append([n, int(j), round(float(row[j]), 2)])
    for m, items in enumerate(found):
        for links in items:
            links.sort(key=lambda link, m=m: (link[0] != m, -link[2]))
    return found


def _cosines(here: dict, there: dict) -> np.ndarray | None:
    """Items x items; None where the two pairs share too few genes."""
    at = {g: j for j, g in enumerate(there["genes"])}
    shared = [(i, at[g]) for i, g in enumerate(here["genes"]) if g in at]
    if here is not there and len(shared) < ENOUGH_GENES:
        return None
    a, b = (np.nan_to_num(p["attributions"][:, list(c)]) for p, c in zip((here, there), zip(*shared)))
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return np.divide(a @ b.T, lengths, out=np.zeros((len(a), len(b))), where=lengths > 0)


# ---- checks ----------------------------------------------------------------------------------------------------------
def _array(value, shape: tuple, what: str, words: str, rows_of_nan: bool = False) -> np.ndarray:
    array = np.asarray(value, dtype=float)
    if array.ndim != 2 or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        wanted = " x ".join("n" if s is None else str(s) for s in shape)
        raise ValueError(f"{what} has shape {array.shape}; wanted is {words}: {wanted}")
    if not len(array):
        raise ValueError(f"{what} is empty")
    bad = ~np.isfinite(array)
    if rows_of_nan:
        bad[np.isnan(array).all(1)] = False
    if bad.any():
        raise ValueError(f"{what} holds {int(bad.sum())} numbers that are not finite, the first at {tuple(int(i) for i in np.argwhere(bad)[0])}")  # fmt: skip
    return array


def _length(values: Sequence, n: int, what: str, of: str) -> None:
    if len(values) != n:
        raise ValueError(
            f"{what} has {len(values)} entries; wanted is one a{'n' if of[0] in 'aeiou' else ''} {of}: {n}"
        )


def _labels(values: Sequence, n: int, what: str) -> list[str]:
    import pandas as pd

    values = list(values)
    _length(values, n, what, "cell")
    labels = [UNLABELLED if pd.isna(v) or str(v) == "" else str(v) for v in values]
    if len(set(labels)) > 256:
        raise ValueError(
            f"{what} has {len(set(labels))} different labels; at most 256 can be shown: is it a label at all?"
        )
    return labels


def _unique(names: list[str], what: str) -> None:
    double = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if double:
        raise ValueError(f"{what} are not unique: {', '.join(map(repr, double[:3]))} occur more than once")


def _terms(terms: Sequence[tuple[str, float]], where: str) -> list[tuple[str, float]]:
    checked = []
    for term, p in terms:
        if not 0 <= float(p) <= 1:
            raise ValueError(f"{where}: pathways gives {term!r} the adjusted p {p}; it lies between 0 and 1")
        checked.append((str(term), float(p)))
    return sorted(checked, key=lambda t: t[1])[:TOP_PATHWAYS]


def _coded(labels: list[str]) -> tuple[list[str], np.ndarray, list[str]]:
    """Names in order, one byte a cell, and the names' colours."""
    known = sorted(set(labels) - {UNLABELLED})
    names = known + [UNLABELLED] * (UNLABELLED in labels)
    palette = plots.colours(known) | {UNLABELLED: plots.MISSING}
    at = {name: i for i, name in enumerate(names)}
    return names, np.array([at[x] for x in labels], dtype=np.uint8), [palette[name] for name in names]


def _short(x: float) -> float:
    return float(f"{x:.3g}")
