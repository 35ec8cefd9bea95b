# Exported by `scprimer export` from notebooks/data/normalisation.ipynb. Edit the notebook, not this file.
"""What the chapter "Counts that can be compared" builds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import optimize
from scipy import sparse
from scipy import stats

__all__ = [
    "above_noise",
    "consensus",
    "fit_noise",
    "log_cp10k",
    "m3drop",
    "mean_cv2",
    "pearson_residuals",
    "thin",
]


def log_cp10k(X: sparse.csr_matrix, target: float = 1e4) -> sparse.csr_matrix:
    """Scale every cell to the same depth and take log(1 + x).

    Args:
        X: raw counts, cells x genes.
        target: molecules that every cell is scaled to.

    Returns:
        cells x genes, as sparse as the counts: zeros stay zero.

    Raises:
        ValueError: a cell without any molecule cannot be scaled.
    """
    depth = np.asarray(X.sum(axis=1)).ravel()
    if (depth == 0).any():
        raise ValueError(f"{(depth == 0).sum()} cells hold no molecule: remove them first (sc.pp.filter_cells)")
    scaled = (sparse.diags(target / depth) @ X).tocsr()
    return scaled.log1p()


def pearson_residuals(X: sparse.csr_matrix, theta: float = 100.0, clip: float | None = None) -> np.ndarray:
    """Analytic Pearson residuals of a negative binomial model in which cells differ in depth alone (Lause et al. 2021).

    Args:
        X: raw counts, cells x genes; every gene must occur at least once.
        theta: overdispersion, positive; ``numpy.inf`` gives Poisson residuals.
        clip: residuals beyond plus or minus this are cut off; default: the square root of the number of cells.

    Returns:
        cells x genes, dense.
    """
    counts = X.toarray().astype(np.float64)
    depth, share = counts.sum(axis=1, keepdims=True), counts.sum(axis=0, keepdims=True) / counts.sum()
    mu = depth * share  # cells x genes
    residuals = (counts - mu) / np.sqrt(mu + mu**2 / theta)
    clip = np.sqrt(len(counts)) if clip is None else clip
    return np.clip(residuals, -clip, clip)


def thin(X: sparse.csr_matrix, keep: float, seed: int) -> sparse.csr_matrix:
    """Binomial thinning: keep each molecule with probability ``keep``; the same cells, less deeply measured.

    Args:
        X: raw counts, cells x genes.
        keep: between 0 and 1.
        seed: of the draw.

    Returns:
        counts of the same shape. What was thrown away, ``X - thin(X, ...)``, is independent of it for Poisson counts.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep={keep}: a probability lies between 0 and 1")
    thinned = X.copy()
    thinned.data = np.random.default_rng(seed).binomial(X.data.astype(np.int64), keep).astype(X.dtype)
    thinned.eliminate_zeros()
    return thinned


def m3drop(values: np.ndarray) -> np.ndarray:
    """How far each gene has more zeros than its mean suggests (M3Drop, Andrews and Hemberg 2019).

    Args:
        values: depth-scaled expression on the linear scale, cells x genes, dense.

    Returns:
        one z score a gene, larger for more surplus zeros; minus infinity for genes seen in no cell or in all.
    """
    n, S, P = len(values), values.mean(axis=0), (values == 0).mean(axis=0)
    tested = (P > 0) & (P < 1)
    S, P, sd = S[tested], P[tested], values[:, tested].std(axis=0)
    misfit = lambda log_k: np.sum((P - np.exp(log_k) / (np.exp(log_k) + S)) ** 2)  # noqa: E731
    log_k = optimize.minimize_scalar(misfit, bounds=(-10, 10), method="bounded").x
    own = np.log(P * S / (1 - P))  # the constant that each gene would need, as a logarithm
    error = np.sqrt(sd**2 / n / S**2 + P * (1 - P) / n / P**2)  # propagated from mean and share of zeros
    z = np.full(len(tested), -np.inf)
    z[tested] = (own - log_k) / np.sqrt(error**2 + own.var() / len(own))
    return z


def consensus(scores: Mapping[str, np.ndarray], k: int) -> np.ndarray:
    """The ``k`` genes that most methods have among their own best ``k``; ties go to the better mean rank.

    Args:
        scores: method -> one score a gene, larger is better.
        k: how many genes to choose.

    Returns:
        indices of the ``k`` genes, best first.
    """
    ranks = np.array([stats.rankdata(-np.asarray(s), method="ordinal") for s in scores.values()])  # methods x genes
    votes = (ranks <= k).sum(axis=0)
    return np.lexsort((ranks.mean(axis=0), -votes))[:k]


def mean_cv2(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and squared coefficient of variation of every column; cells x genes in, two vectors of genes out."""
    mean = values.mean(axis=0)
    return mean, values.var(axis=0, ddof=1) / mean**2


def fit_noise(mean: np.ndarray, cv2: np.ndarray, steps: int = 200) -> tuple[float, float]:
    """Fit ``cv2 = a1 / mean + a0`` by a gamma regression with identity link (Brennecke et al. 2013).

    Args:
        mean, cv2: of the spike-ins, each a vector.
        steps: rounds of iteratively reweighted least squares.

    Returns:
        ``(a1, a0)``, neither negative.
    """
    design, weight = np.column_stack([1 / mean, np.ones_like(mean)]), 1 / cv2
    for _ in range(steps):
        a = optimize.nnls(design * weight[:, None], cv2 * weight)[0]
        weight = 1 / (design @ a)  # the standard deviation of a gamma variable is proportional to its mean
    return float(a[0]), float(a[1])


def above_noise(mean: np.ndarray, cv2: np.ndarray, curve: tuple[float, float], cells: int) -> np.ndarray:
    """P value of each gene for "varies no more than the technical curve" (chi-squared with ``cells - 1`` degrees)."""
    expected = curve[0] / mean + curve[1]
    return stats.chi2.sf((cells - 1) * cv2 / expected, cells - 1)
