"""What the numbers in a matrix are: raw counts, log values, scaled values, something else. Used by the gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from scprimer.data.gate.words import number_of

EXACT_FLOAT32 = 2**24  # beyond this not every whole number is a float32
_ROUNDING = 1e-3  # counts that went through float arithmetic differ from whole numbers by less than this
_SAMPLE = 300  # cells looked at where a sample tells enough
_BLOCK = 10_000_000  # values looked at in one go: keeps the memory that a check needs small


@dataclass(frozen=True)
class Values:
    """What :func:`look_at` found in a matrix.

    Attributes:
        kind: ``"counts"``, ``"binary"``, ``"log"``, ``"normalised"``, ``"scaled"``, ``"residuals"``, ``"fractional"``,
            ``"zero"`` (nothing but zeros), ``"broken"`` (a damaged sparse matrix) or ``"not numbers"``.
        words: the same in plain words, fit to follow "X holds".
        n_nan, n_infinite, n_negative, n_fraction: how many stored values are such; a fraction is not a whole number.
        n_off: whole numbers up to a rounding error, which :func:`as_counts` rounds.
        low, high: smallest and largest finite stored value.
        base: base of the logarithm, when ``kind`` is ``"log"``; 0.0 when it could not be told.
        recoverable: whether :func:`recover_counts` gives the counts back.
    """

    kind: str
    words: str
    n_nan: int = 0
    n_infinite: int = 0
    n_negative: int = 0
    n_fraction: int = 0
    n_off: int = 0
    low: float = 0.0
    high: float = 0.0
    base: float = 0.0
    recoverable: bool = False

    @property
    def are_counts(self) -> bool:
        """Raw counts without a single bad value."""
        return self.kind == "counts" and not (self.n_nan or self.n_infinite or self.n_negative)


def look_at(X, *, log_base: float | None = None) -> Values:
    """Say what a cells x genes matrix holds, from all of its stored values.

    Args:
        X: NumPy array or SciPy sparse matrix.
        log_base: base of the logarithm that the file declares (``uns["log1p"]["base"]``), if it does.
    """
    if X.dtype == bool:
        return Values("binary", "only yes and no (a boolean matrix)", high=1.0)
    if X.dtype.kind not in "iuf":
        name = {"c": "complex numbers", "O": "Python objects", "U": "text", "S": "text"}.get(X.dtype.kind, str(X.dtype))
        if X.dtype == object and not sp.issparse(X) and X.size and isinstance(X.flat[0], str):
            name = f"text (such as {X.flat[0]!r})"
        return Values("not numbers", f"{name} instead of real numbers")
    if sp.issparse(X):
        damage = _sparse_damage(X)
        if damage:
            return Values("broken", f"a damaged sparse matrix ({damage})")
    tally = _tally(X)
    if tally["high"] == tally["low"] == 0:
        return Values("zero", "nothing but zeros", **tally)
    kind, words, base, recoverable = _kind(X, tally, log_base)
    for n, what in ((tally["n_nan"], "NaN"), (tally["n_infinite"], "infinite")):
        words += f", {n:,} of them {what}" if n else ""
    return Values(kind, words, **tally, base=base, recoverable=recoverable)


def as_counts(X) -> sp.csr_matrix:
    """Counts as canonical csr float32 (float64 where a count exceeds 2**24), rounded where they were off by a hair.

    A matrix that is so already comes back as it is, without a copy.
    """
    exact = np.float32 if not X.size or X.max() <= EXACT_FLOAT32 else np.float64
    if (
        isinstance(X, sp.csr_matrix)
        and X.dtype == exact
        and X.has_canonical_format
        and X.data.all()
        and all(np.array_equal(block, np.rint(block)) for block in _blocks(X))
    ):
        return X
    wide = X.astype(np.float32) if X.dtype == np.float16 else X  # SciPy has no half precision
    counts = sp.csr_matrix(wide, dtype=exact, copy=True)
    np.rint(counts.data, out=counts.data)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def recover_counts(X, base: float) -> tuple[sp.csr_matrix, np.ndarray]:
    """Undo ``log_base(1 + scale * count)`` (or only ``scale * count`` for ``base=0``), cell by cell.

    The scale of a cell is unknown, and its smallest value is taken for a count of one: almost every cell holds one. It
    is checked: all values of the cell must then be whole numbers.

    Returns:
        The counts (csr float32), and for each cell whether its values came out whole (True for an empty cell).
    """
    linear = _rows(X, np.arange(X.shape[0]))
    linear.data = _unlogged(linear.data, base)
    smallest = np.ones(linear.shape[0])
    filled = np.diff(linear.indptr) > 0
    if filled.any():
        smallest[filled] = np.minimum.reduceat(linear.data, linear.indptr[:-1][filled])
    counts = linear.data / np.repeat(smallest, np.diff(linear.indptr))
    whole = np.rint(counts)
    off = np.abs(counts - whole) > np.maximum(0.02, 2e-5 * whole)
    bad = np.zeros(linear.shape[0], bool)
    bad[np.repeat(np.arange(linear.shape[0]), np.diff(linear.indptr))[off]] = True
    return sp.csr_matrix((whole.astype(np.float32), linear.indices, linear.indptr), shape=linear.shape), ~bad


def totals(X) -> tuple[np.ndarray, np.ndarray]:
    """Sums over genes (one a cell) and over cells (one a gene), both float64."""
    return (np.asarray(X.sum(axis=axis, dtype=np.float64)).ravel() for axis in (1, 0))


def where(X, what: str, n: int = 3) -> list[tuple[int, int]]:
    """Row and column of the first few values that are ``"nan"``, ``"infinite"``, ``"negative"`` or ``"fraction"``."""
    test = {
        "nan": np.isnan,
        "infinite": np.isinf,
        "negative": lambda v: v < 0,
        "fraction": lambda v: np.isfinite(v) & (np.abs(v - np.rint(v)) > _ROUNDING),
    }[what]
    if not sp.issparse(X):
        step = max(1, _BLOCK // max(X.shape[1], 1))
        for start in range(0, X.shape[0], step):
            found = np.argwhere(test(X[start : start + step]))[:n]
            if len(found):
                return [(int(i) + start, int(j)) for i, j in found]
        return []
    at = np.flatnonzero(test(X.data))[:n]
    major = np.searchsorted(X.indptr, at, side="right") - 1
    minor = X.indices[at]
    pairs = zip(minor, major) if X.format == "csc" else zip(major, minor)
    return [(int(i), int(j)) for i, j in pairs]


def _blocks(X) -> Iterator[np.ndarray]:
    """All stored values of a matrix, in pieces."""
    if sp.issparse(X):
        for start in range(0, len(X.data), _BLOCK):
            yield X.data[start : start + _BLOCK]
    else:
        step = max(1, _BLOCK // max(X.shape[1], 1))
        for start in range(0, X.shape[0], step):
            yield np.asarray(X[start : start + step]).ravel()


def _tally(X) -> dict:
    n = dict.fromkeys(("n_nan", "n_infinite", "n_negative", "n_fraction", "n_off"), 0)
    low, high = 0.0, 0.0
    for block in _blocks(X):
        if block.dtype.kind == "f":
            finite = np.isfinite(block)
            if not finite.all():
                nan = int(np.isnan(block).sum())
                n["n_nan"] += nan
                n["n_infinite"] += int((~finite).sum()) - nan
                block = block[finite]
            if block.dtype.itemsize < 4:
                block = block.astype(np.float32)
            off = np.abs(block - np.rint(block))
            n["n_fraction"] += int((off > _ROUNDING).sum())
            n["n_off"] += int(((off > 0) & (off <= _ROUNDING)).sum())
        if block.size:
            n["n_negative"] += int((block < 0).sum())
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    return {**n, "low": low, "high": high}


def _kind(X, tally: dict, log_base: float | None) -> tuple[str, str, float, bool]:
    """Kind, words, base of the logarithm, and whether counts can be recovered."""
    # A few fractions among whole numbers are damage to counts, not another kind of value.
    mostly_whole = tally["n_fraction"] <= 0.001 * _stored(X)
    if tally["n_negative"]:
        if mostly_whole:
            return "counts", "whole numbers, some of them negative", 0.0, False
        if _looks_scaled(X):
            return "scaled", "values scaled to mean 0 and standard deviation 1 for each gene", 0.0, False
        return "residuals", "negative and fractional values, as residuals or batch correction leave them", 0.0, False
    if tally["n_fraction"] == 0:
        return "counts", "raw counts", 0.0, False
    if mostly_whole:
        return "fractional", f"counts, and fractions in {number_of(tally['n_fraction'], 'place')}", 0.0, False
    sample = _finite_rows(X)
    for base in dict.fromkeys(filter(None, (log_base, np.e, 2.0, 10.0))):
        linear = sample.copy()
        if tally["high"] * np.log(base) > 50:  # no logarithm of a count is that large
            break
        linear.data = _unlogged(linear.data, base)
        target = _constant_total(linear)
        recoverable = _recoverable(sample, base)
        name = {np.e: "natural logarithm", 2.0: "logarithm to base 2", 10.0: "logarithm to base 10"}.get(
            base, f"logarithm to base {base:g}"
        )
        if target:
            words = f"log-normalised values ({name} of 1 + counts scaled to {target:,.0f} a cell)"
            return "log", words, base, recoverable
        if recoverable:
            return "log", f"log-normalised values ({name} of 1 + scaled counts)", base, True
    target = _constant_total(sample)
    if target:
        name = (
            "counts per million" if round(target) == 1_000_000 else f"values scaled to a total of {target:,.0f} a cell"
        )
        return "normalised", f"normalised values ({name}), not logged", 0.0, _recoverable(sample, 0.0)
    if _recoverable(sample, 0.0):
        return "normalised", "normalised values (counts times a factor of each cell), not logged", 0.0, True
    if log_base or tally["high"] < 20:
        return "log", f"what look like log values (fractions up to {tally['high']:.3g})", log_base or 0.0, False
    words = (
        "fractional values, as estimated (RSEM, salmon), corrected (SoupX, CellBender, DecontX) or averaged counts are"
    )
    return "fractional", words, 0.0, False


def _unlogged(values: np.ndarray, base: float) -> np.ndarray:
    return np.expm1(values * np.log(base)) if base else values


def _stored(X) -> int:
    return X.nnz if sp.issparse(X) else int(np.count_nonzero(X))


def _rows(X, rows: np.ndarray) -> sp.csr_matrix:
    part = sp.csr_matrix(X[rows], dtype=np.float64)
    part.eliminate_zeros()
    return part


def _finite_rows(X) -> sp.csr_matrix:
    """A sample of the cells, evenly spread, that hold something and hold it finite."""
    sample = _rows(X, np.unique(np.linspace(0, X.shape[0] - 1, _SAMPLE).astype(int)))
    bad = np.add.reduceat(np.append(~np.isfinite(sample.data), False), sample.indptr[:-1]) > 0
    return sample[~(bad & (np.diff(sample.indptr) > 0)) & (np.diff(sample.indptr) > 0)]


def _constant_total(sample: sp.csr_matrix) -> float | None:
    """The total that all cells share to within one per cent, or None. It takes more than two cells to tell."""
    sums = np.asarray(sample.sum(axis=1)).ravel()
    if len(sums) < 3 or not np.isfinite(sums).all() or sums.mean() == 0 or sums.std() / sums.mean() > 0.01:
        return None
    return float(np.median(sums))


def _recoverable(sample: sp.csr_matrix, base: float) -> bool:
    """Whether 99 % of the cells come out whole. One value in a cell always does, so those say nothing."""
    told = np.diff(sample.indptr) >= 5
    if not told.any():
        return False
    counts, whole = recover_counts(sample, base)
    return bool(whole[told].mean() >= 0.99 and counts.data.max() > 1)


def _looks_scaled(X) -> bool:
    rows = np.unique(np.linspace(0, X.shape[0] - 1, 2000).astype(int))
    columns = np.unique(np.linspace(0, X.shape[1] - 1, 200).astype(int))
    part = X[rows][:, columns]
    part = (part.toarray() if sp.issparse(part) else np.asarray(part)).astype(np.float64)
    part[~np.isfinite(part)] = 0
    # A subset of scaled cells, or values clipped at 10, no longer has mean 0 and deviation 1 exactly.
    return bool(np.median(np.abs(part.mean(axis=0))) < 0.25 and abs(np.median(part.std(axis=0)) - 1) < 0.3)


def _sparse_damage(X) -> str | None:
    if X.format not in ("csr", "csc"):
        return None
    try:
        X.check_format(full_check=True)  # cheap, and an index out of range would crash the process later
    except ValueError as error:
        return str(error)
    return None
