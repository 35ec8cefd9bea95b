"""Small measures that several chapters share, on top of scikit-learn and SciPy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def overlap(a: Iterable, b: Iterable) -> float:
    """Share of the smaller set that is also in the other: ``|a & b| / min(|a|, |b|)``; NaN when one is empty."""
    a, b = set(a), set(b)
    return len(a & b) / min(len(a), len(b)) if a and b else float("nan")


def jaccard(a: Iterable, b: Iterable) -> float:
    """Jaccard index ``|a & b| / |a | b|``; NaN when both are empty."""
    a, b = set(a), set(b)
    return len(a & b) / len(a | b) if a | b else float("nan")


def neighbours(X: np.ndarray, k: int) -> np.ndarray:
    """Indices of the ``k`` nearest other rows of ``X`` (cells x features), cells x k, Euclidean."""
    from sklearn.neighbors import NearestNeighbors

    if not 0 < k < len(X):
        raise ValueError(f"k={k} neighbours were asked for among {len(X)} cells: k must lie between 1 and {len(X) - 1}")
    return NearestNeighbors(n_neighbors=k).fit(X).kneighbors(return_distance=False)


def neighbour_overlap(X: np.ndarray, Y: np.ndarray, k: int = 15) -> float:
    """Mean share of each cell's ``k`` nearest neighbours in ``X`` that are among its ``k`` nearest in ``Y`` (0 to 1)."""
    a, b = neighbours(X, k), neighbours(Y, k)
    return float(np.mean([len(set(i) & set(j)) / k for i, j in zip(a, b)]))


def distance_correlation(X: np.ndarray, Y: np.ndarray, *, n_pairs: int = 50_000, seed: int = 0) -> float:
    """Spearman correlation of the distances between random pairs of cells in ``X`` and in ``Y``: global structure."""
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    i, j = rng.integers(len(X), size=(2, n_pairs))
    keep = i != j
    i, j = i[keep], j[keep]
    return float(spearmanr(np.linalg.norm(X[i] - X[j], axis=1), np.linalg.norm(Y[i] - Y[j], axis=1)).statistic)


def matched_accuracy(truth: Sequence, clusters: Sequence) -> float:
    """Accuracy after the best one-to-one matching of clusters to labels (Hungarian algorithm)."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(np.asarray(truth), np.asarray(clusters))
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / table.sum())


def bootstrap(measure, *arrays: np.ndarray, n: int = 200, seed: int = 0) -> np.ndarray:
    """``measure(*arrays)`` on ``n`` draws of the rows with replacement (the same rows of every array); n values."""
    rng = np.random.default_rng(seed)
    size = len(arrays[0])
    draws = (rng.integers(size, size=size) for _ in range(n))
    return np.array([measure(*(np.asarray(a)[rows] for a in arrays)) for rows in draws])
