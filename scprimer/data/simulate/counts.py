"""The noise of counts: library sizes, overdispersion, gamma-Poisson draws, molecules lost and kept.

All simulators draw their counts here, so that "overdispersion 0.2" means the same thing in each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

ROWS = 512  # cells drawn at a time: a chunk of 512 x 20,000 genes takes 80 MB


def gamma_poisson(rng: np.random.Generator, mean: np.ndarray, dispersion: np.ndarray | float) -> np.ndarray:
    """Negative binomial counts as a Poisson whose rate is gamma distributed: variance = mean + dispersion * mean².

    Args:
        rng: NumPy generator.
        mean: expected counts, cells x genes.
        dispersion: one number, or one a gene; 0 gives Poisson counts.
    """
    mean = np.asarray(mean, dtype=float)
    dispersion = np.broadcast_to(np.asarray(dispersion, dtype=float), mean.shape[-1:])
    noisy = dispersion > 1e-9
    rate = mean.copy()
    # gamma with mean 1 and variance `dispersion`
    rate[..., noisy] *= rng.gamma(1 / dispersion[noisy], dispersion[noisy], size=(*mean.shape[:-1], int(noisy.sum())))
    return rng.poisson(rate)


def draw(
    rng: np.random.Generator, n: int, mean: Callable[[slice], np.ndarray], dispersion: np.ndarray | float
) -> sp.csr_matrix:
    """Gamma-Poisson counts of ``n`` cells as a sparse matrix (csr, float32 holding integers), a chunk of cells at a time.

    Args:
        rng: NumPy generator.
        n: number of cells.
        mean: gives the expected counts (chunk x genes) of the cells in a slice.
        dispersion: one number, or one a gene.
    """
    chunks = []
    for start in range(0, n, ROWS):
        counts = gamma_poisson(rng, mean(slice(start, min(start + ROWS, n))), dispersion)
        chunks.append(sp.csr_matrix(counts.astype(np.float32)))
    return sp.vstack(chunks, format="csr")


def library_sizes(rng: np.random.Generator, n: int, median: float, log_sd: float) -> np.ndarray:
    """Log-normal expected UMIs a cell. ``log_sd`` is the standard deviation of their natural logarithm."""
    return median * np.exp(rng.normal(0.0, log_sd, n))


def dispersion_trend(mean: np.ndarray, high: float, low: float, half: float) -> np.ndarray:
    """Overdispersion of genes against their mean count: ``high + low / (1 + mean / half)``.

    Within one cell type of 10x data the dispersion is about 0.1 for genes with a mean above 10 and levels off near
    0.7 for rare ones; the usual ``a + b / mean`` would grow without bound there.

    Args:
        mean: mean counts of the genes in a cell of median library size.
        high: dispersion that highly expressed genes approach.
        low: what rare genes have on top of it.
        half: mean at which half of ``low`` is left.
    """
    return high + low / (1 + np.asarray(mean) / half)


def thin(rng: np.random.Generator, counts: sp.csr_matrix, keep: np.ndarray | float) -> sp.csr_matrix:
    """Keep each molecule with probability ``keep`` (one number, one a cell, or one a stored entry): binomial thinning."""
    counts = counts.tocsr()
    keep = np.asarray(keep, dtype=float)
    if keep.ndim and len(keep) == counts.shape[0] and len(keep) != counts.nnz:
        keep = np.repeat(keep, np.diff(counts.indptr))
    kept = counts.copy()
    kept.data = rng.binomial(counts.data.astype(np.int64), np.clip(keep, 0, 1)).astype(np.float32)
    kept.eliminate_zeros()
    return kept


def totals(counts) -> np.ndarray:
    """Sum of each row as a flat float array."""
    return np.asarray(counts.sum(axis=1), dtype=float).ravel()


def allocate(n: int, proportions: np.ndarray, least: int = 0) -> np.ndarray:
    """Split ``n`` into whole parts near ``n * proportions`` (largest remainders), each at least ``least``."""
    wanted = n * np.asarray(proportions, dtype=float) / np.sum(proportions)
    parts = np.floor(wanted).astype(int)
    parts[np.argsort(parts - wanted, kind="stable")[: n - parts.sum()]] += 1
    while (parts < least).any():
        parts[parts.argmax()] -= 1
        parts[parts.argmin()] += 1
    return parts
