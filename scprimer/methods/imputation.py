# Exported by `scprimer export` from notebooks/tasks/imputation.ipynb. Edit the notebook, not this file.
"""What the chapter "Imputation: filling in what was not seen" builds."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from scprimer.methods.scvi import gain_over_mean
from scprimer.methods.scvi import raw_counts
from scprimer.methods.scvi import zinb_log_prob
from scprimer.methods.unsupervised import nearest
from scprimer.methods.unsupervised import neighbour_matrix
from scprimer.train import fit
from scprimer.train import predict

__all__ = [
    "DCA",
    "alra",
    "as_shares",
    "cell_sizes",
    "choose_rank",
    "components",
    "correlation_recovery",
    "coverage",
    "dca",
    "dca_input",
    "depth_scaled",
    "diffuse",
    "diffusion_operator",
    "expected_gain",
    "gene_correlations",
    "magic",
    "molecule_gain",
    "moments_of_positive",
    "randomised_svd",
    "rescaled",
    "strong_pairs",
    "train_dca",
    "zinb_total",
]


def cell_sizes(counts):
    """Molecules of each cell over the median of all cells: one number a cell."""
    total = np.asarray(counts.sum(1)).ravel().astype(float)
    return total / np.median(total)


def depth_scaled(counts):
    """Counts divided by each cell's size, so that all cells have the median number of molecules.

    Args:
        counts: cells x genes, raw counts (array, sparse matrix or AnnData).

    Returns:
        cells x genes, dense float. Genes without a molecule are zero.

    Raises:
        ValueError: negative, NaN or fractional values; cells without a molecule.
    """
    counts = raw_counts(counts)
    return (sp.diags(1 / cell_sizes(counts)) @ counts).toarray().astype(float)


def randomised_svd(A, rank, *, extra=10, rounds=7, seed=0):
    """The ``rank`` leading singular vectors and values of a matrix.

    Args:
        A: rows x columns, dense, finite.
        rank: at least 1 and at most the smaller side of ``A``.
        extra: random vectors beyond ``rank``.
        rounds: of multiplying by the transpose and back; more are more accurate.
        seed: of the random vectors.

    Returns:
        ``(U, S, Vt)``: rows x rank, rank, rank x columns.

    Raises:
        ValueError: an impossible rank; NaN or infinite values.

    Source: Halko, Martinsson and Tropp (2011), algorithms 4.4 and 5.1.
    """
    if not 1 <= rank <= min(A.shape):
        raise ValueError(f"rank={rank} of a {A.shape[0]} x {A.shape[1]} matrix: use 1 to {min(A.shape)}")
    if not np.isfinite(A).all():
        raise ValueError("some values are NaN or infinite: a singular value decomposition needs numbers")
    start = np.random.default_rng(seed).standard_normal((A.shape[1], min(rank + extra, *A.shape)))
    Q = np.linalg.qr(A @ start)[0]  # rows x (rank + extra)
    for _ in range(rounds):
        Q = np.linalg.qr(A @ np.linalg.qr(A.T @ Q)[0])[0]
    U, S, Vt = np.linalg.svd(Q.T @ A, full_matrices=False)
    return (Q @ U)[:, :rank], S[:rank], Vt[:rank]


def components(values, n, seed=0):
    """Scores of the cells on the first ``n`` principal components (fewer where the matrix has fewer): cells x n."""
    U, S, _ = randomised_svd(values - values.mean(0), min(n, *values.shape), rounds=4, seed=seed)
    return U * S


def diffusion_operator(Z, knn=5, decay=1.0, threshold=1e-4):
    """MAGIC's Markov matrix between cells.

    Args:
        Z: cells x features, such as principal components.
        knn: the neighbour whose distance is a cell's kernel width; three times as many neighbours are kept.
        decay: exponent of the kernel.
        threshold: smaller affinities are dropped.

    Returns:
        sparse, cells x cells; rows sum to 1.

    Raises:
        ValueError: fewer cells than neighbours.

    Source: van Dijk et al. (2018), with the kernel of magic-impute 3.
    """
    if knn < 1 or 3 * knn >= len(Z):
        raise ValueError(f"knn={knn} needs more than {3 * knn} cells (three times as many neighbours), not {len(Z)}")
    index, distance = nearest(Z, 3 * knn)  # cells x 3 knn, not the cell itself
    width = np.maximum(distance[:, [knn - 1]], np.finfo(float).eps)
    affinity = np.exp(-((distance / width) ** decay))
    K = neighbour_matrix(index, np.where(affinity < threshold, 0, affinity)) + sp.identity(len(Z))
    K = (K + K.T) / 2
    return (sp.diags(1 / np.asarray(K.sum(1)).ravel()) @ K).tocsr()


def diffuse(P, values, t):
    """``P`` to the power ``t``, times ``values`` (cells x genes); one step after the other, so that P stays sparse."""
    if t < 0 or int(t) != t:
        raise ValueError(f"t={t}: a whole number of steps, 0 or more")
    for _ in range(int(t)):
        values = P @ values
    return values


def magic(counts, *, t=3, knn=5, decay=1.0, n_components=50, seed=0):
    """Impute by averaging over the cells that a random walk reaches in ``t`` steps.

    Args:
        counts: cells x genes, raw counts (array, sparse matrix or AnnData).
        t: steps; 0 gives the depth-scaled counts.
        knn, decay: see :func:`diffusion_operator`.
        n_components: principal components of the square roots, in which distances are measured.
        seed: of the randomised decomposition.

    Returns:
        cells x genes, depth-scaled counts on the linear scale. Genes without a molecule stay zero.

    Raises:
        ValueError: values that are no counts, empty cells, too few cells for ``knn``, an impossible ``t``.

    Source: van Dijk et al. (2018).
    """
    values = depth_scaled(counts)
    P = diffusion_operator(components(np.sqrt(values), n_components, seed), knn, decay)
    return diffuse(P, values, t)


def choose_rank(A, *, most=100, noise=80, sds=6.0, seed=0):
    """The last gap between singular values that stands out of the gaps of noise.

    Args:
        A: cells x genes, log-normalised, dense.
        most: singular values that are looked at (fewer where the matrix has fewer).
        noise: from this one on they are taken for noise (the last fifth where ``most`` had to be reduced).
        sds: how many standard deviations above the mean of the noise a gap must be.
        seed: of the randomised decomposition.

    Returns:
        rank, at least 1.

    Source: Linderman et al. (2022), methods.
    """
    reduced = min(most, min(A.shape))
    noise = min(noise, int(0.8 * reduced))
    S = randomised_svd(A, reduced, rounds=2, seed=seed)[1]
    gap = S[:-1] - S[1:]
    tail = gap[noise - 1 :]
    out = np.flatnonzero(gap[: noise - 1] > tail.mean() + sds * tail.std(ddof=1))
    return int(out[-1]) + 1 if len(out) else 1


def moments_of_positive(M):
    """Mean and standard deviation of each column's positive values; 0 where there are none (or a single one)."""
    on = M > 0
    n = on.sum(0)
    mean = np.where(on, M, 0).sum(0) / np.maximum(n, 1)
    squares = (np.where(on, M - mean, 0) ** 2).sum(0)
    return mean, np.sqrt(squares / np.maximum(n - 1, 1))


def rescaled(kept, A):
    """Give each gene's surviving values the mean and standard deviation of its observed positive values."""
    (mean, sd), (wanted, wanted_sd) = moments_of_positive(kept), moments_of_positive(A)
    can = (sd > 0) & (wanted_sd > 0)
    factor = np.divide(wanted_sd, sd, out=np.ones_like(sd), where=can)
    moved = np.where(can, (kept - mean) * factor + wanted, kept)
    return np.where(kept > 0, np.maximum(moved, 0), 0)


def alra(A, rank=None, *, quantile=0.001, seed=0):
    """Impute by a low rank, with small values set back to zero gene by gene.

    Args:
        A: cells x genes, log-normalised (non-negative), dense.
        rank: of the approximation; default: :func:`choose_rank`.
        quantile: the threshold is the absolute value of this quantile of a gene's approximated values; 0 takes the most
            negative value itself.
        seed: of the randomised decomposition.

    Returns:
        cells x genes, on the scale of ``A``. Observed values whose approximation falls below the threshold are kept as they were;
        genes that are zero everywhere stay so.

    Raises:
        ValueError: negative or NaN values, an impossible rank or quantile.

    Source: Linderman et al. (2022).
    """
    A = np.asarray(A, float)
    if not np.isfinite(A).all() or (A < 0).any():
        raise ValueError("ALRA takes log-normalised values, finite and not negative: not scaled ones, and no NaN")
    if not 0 <= quantile < 0.5:
        raise ValueError(f"quantile={quantile}: the threshold is a low quantile, such as 0.001")
    U, S, Vt = randomised_svd(A, choose_rank(A, seed=seed) if rank is None else rank, seed=seed)
    low = (U * S) @ Vt  # cells x genes
    threshold = np.abs(np.quantile(low, quantile, axis=0))
    full = rescaled(np.where((low > threshold) & (A > 0).any(0), low, 0), A)
    return np.where((A > 0) & (full == 0), A, full)


def zinb_total(x, mu, theta, dropout_logits):
    """Sum of the log ZINB probabilities of all entries, in nats; the gamma function is called for counts above zero only."""
    zero = torch.logaddexp(
        F.logsigmoid(dropout_logits), F.logsigmoid(-dropout_logits) - theta * torch.log1p(mu / theta)
    )
    at = x > 0
    return zero.sum() + (zinb_log_prob(x[at], mu[at], theta[at], dropout_logits[at]) - zero[at]).sum()


class DCA(nn.Module):
    """The deep count autoencoder: standardised log counts -> mean, inverse dispersion and log odds of loss.

    Args:
        n_genes: genes.
        hidden: widths of the layers; the middle one is the bottleneck.

    Source: Eraslan et al. (2019).
    """

    def __init__(self, n_genes, hidden=(64, 32, 64)):
        super().__init__()
        sizes = (n_genes, *hidden)
        blocks = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(*(layer for block in blocks for layer in block))
        self.log_mean, self.log_theta, self.dropout_logits = (nn.Linear(hidden[-1], n_genes) for _ in range(3))

    def forward(self, x):
        """``(mean, theta, dropout_logits)``, cells x genes each, for a cell of median size."""
        h = self.layers(x)
        mean = self.log_mean(h).clamp(-12, 12).exp()
        return mean, F.softplus(self.log_theta(h)).clamp(1e-4, 1e4), self.dropout_logits(h)


def dca_input(counts):
    """``{"x", "size", "counts"}``: log depth-scaled counts with mean 0 and sd 1 a gene, sizes, and the counts themselves."""
    counts = raw_counts(counts)
    x = np.log1p(depth_scaled(counts))
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    return {"x": x.astype(np.float32), "size": cell_sizes(counts).astype(np.float32), "counts": counts}


def train_dca(model, counts, *, epochs=20, batch_size=64, learning_rate=2e-3, ridge=0.0, weight_decay=1e-4, seed=0,
              device="auto", label=""):  # fmt: skip
    """Train a :class:`DCA` in place, by RMSprop as in the paper.

    Args:
        model: :class:`DCA`.
        counts: cells x genes, raw counts.
        epochs: passes over the cells.
        batch_size: cells a step, at most all of them.
        learning_rate, weight_decay: of RMSprop.
        ridge: weight of the mean squared probability of loss.
        seed, device, label: see :func:`scprimer.train.fit`.

    Returns:
        :class:`scprimer.train.History`; the loss is in nats an entry.

    Raises:
        ValueError: values that are no counts, empty cells, a negative ridge.
    """
    if ridge < 0:
        raise ValueError(f"ridge={ridge}: a penalty cannot be negative")

    def loss(model, batch, epoch):
        mean, theta, lost = model(batch["x"])
        total = zinb_total(batch["counts"], mean * batch["size"][:, None], theta, lost)
        return ridge * torch.sigmoid(lost).square().mean() - total / mean.numel()

    data = dca_input(counts)
    rmsprop = partial(torch.optim.RMSprop, lr=learning_rate, weight_decay=weight_decay)
    return fit(
        model, data, loss, epochs=epochs, batch_size=min(batch_size, len(data["x"])), optimiser=rmsprop, seed=seed,
        device=device, clip=5.0, amp=False, label=label,
    )  # fmt: skip


def dca(counts, *, seed=0, device="auto", **options):
    """Impute by the mean of a trained :class:`DCA`.

    Args:
        counts: cells x genes, raw counts (array, sparse matrix or AnnData).
        seed: of the initial weights and of the training.
        device: as for :func:`scprimer.train.fit`.
        options: of :func:`train_dca`.

    Returns:
        cells x genes, means for a cell of median size. Genes without a molecule are set to zero.

    Raises:
        ValueError: values that are no counts, empty cells.

    Source: Eraslan et al. (2019).
    """
    counts = raw_counts(counts)
    torch.manual_seed(seed)
    model = DCA(counts.shape[1])
    train_dca(model, counts, seed=seed, device=device, **options)
    x = dca_input(counts)["x"]
    mean = predict(lambda batch: model(batch)[0], x, device=next(model.parameters()).device)
    return np.where(np.asarray(counts.sum(0)).ravel() > 0, mean.astype(float), 0.0)


def as_shares(values, size, total, rounds=3):
    """Shares of the genes in each cell, with every gene's expected total brought to the total given.

    Args:
        values: cells x genes, not negative, any scale.
        size: molecules of each cell.
        total: molecules of each gene over all cells.
        rounds: of rescaling genes and then cells.

    Returns:
        cells x genes; rows sum to 1.
    """
    p = np.maximum(values, 0) + 1e-12
    p = p / p.sum(1, keepdims=True)
    for _ in range(rounds):
        p = p * (total / np.maximum(size @ p, 1e-12))
        p = p / p.sum(1, keepdims=True)
    return p


def molecule_gain(shares, other, mean):
    """Nats for a thousand held-back molecules (``other``: csr, cells x genes) above the shares ``mean`` of the average cell."""
    return 1000 * gain_over_mean(shares, other, mean) * other.shape[0] / other.sum()


def expected_gain(shares, truth, mean):
    """The same where the true shares are known (cells x genes): its expectation, all cells counting alike."""
    return 1000 * float((truth * np.log(np.maximum(shares, 1e-12) / np.maximum(mean, 1e-12))).sum(1).mean())


def gene_correlations(values):
    """Correlations of all pairs of genes over the cells of log(1 + values): one vector, pairs in the order of triu.

    A pair with a gene that does not vary has correlation 0.
    """
    logged = np.log1p(values)
    centred = logged - logged.mean(0)
    length = np.sqrt((centred**2).sum(0))
    unit = centred / np.where(length > 1e-9, length, np.inf)
    return (unit.T @ unit)[np.triu_indices(values.shape[1], 1)]


def correlation_recovery(values, truth):
    """Spearman correlation between imputed and true gene-gene correlations, over all pairs of genes.

    Args:
        values, truth: cells x genes, on the linear scale, of the same genes and cells.
    """
    return float(spearmanr(gene_correlations(values), gene_correlations(truth)).statistic)


def strong_pairs(values, limit):
    """Share of the pairs of genes whose correlation is beyond ``limit`` in size."""
    return float((np.abs(gene_correlations(values)) > limit).mean())


def coverage(draws, observed, levels, seed=0):
    """How often central intervals of predictive draws hold what was observed.

    Args:
        draws: draws x ... , from the predictive distribution of each entry.
        observed: ..., what came.
        levels: nominal coverages between 0 and 1.
        seed: ties are broken at random, so that counts (which a discrete interval covers too often) are judged exactly.

    Returns:
        one share a level; equal to the level when the distribution is right.

    Source: the randomised probability integral transform (Czado et al. 2009).
    """
    if draws.shape[1:] != observed.shape:
        raise ValueError(f"draws of shape {draws.shape} do not fit observations of shape {observed.shape}")
    below, equal = (draws < observed).sum(0), (draws == observed).sum(0)
    u = np.random.default_rng(seed).random(observed.shape)
    rank = (below + u * (equal + 1)) / (len(draws) + 1)
    return np.array([(np.abs(rank - 0.5) <= level / 2).mean() for level in levels])
