# Exported by `scprimer export` from notebooks/learning/autoencoders.ipynb. Edit the notebook, not this file.
"""What the chapter "Autoencoders, from a bottleneck to the ELBO" builds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyro
import pyro.distributions as dist
import scanpy as sc
import torch
from scipy.spatial import procrustes
from sklearn.neighbors import NearestNeighbors
from torch import nn

from scprimer import metrics

__all__ = [
    "Autoencoder",
    "GaussianVAE",
    "active_units",
    "bounds",
    "held_out_r2",
    "invented",
    "kl_normal",
    "layout_stability",
    "log_expression",
    "log_normal",
    "mlp",
    "negative_elbo",
    "neighbour_vote",
    "ppca",
    "ppca_log_density",
    "pyro_elbo",
    "reparameterise",
    "share_in_holes",
    "spectrum",
    "squared_error",
    "surviving_kl",
]


def log_expression(counts, train, n_genes=1000):
    """Centred log-CP10K values of the genes that vary most in the training cells.

    Args:
        counts: AnnData, cells x genes, raw counts in ``X``.
        train: positions of the training cells; genes and means are taken from these alone.
        n_genes: number of variable genes; all that are found in three training cells, where there are fewer.

    Returns:
        ``(X, means, genes)``: cells x genes, float32, centred; the means that were subtracted; the genes' names.
    """
    logged = counts.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    seen = logged[train].copy()
    sc.pp.filter_genes(seen, min_cells=3)
    sc.pp.highly_variable_genes(seen, n_top_genes=min(n_genes, seen.n_vars))
    genes = seen.var_names[seen.var["highly_variable"]]
    X = logged[:, genes].X.toarray()
    means = X[train].mean(0)
    return (X - means).astype(np.float32), means.astype(np.float32), list(genes)


def mlp(sizes, dropout=0.0):
    """A network of linear layers with LayerNorm, ReLU and dropout between them.

    Args:
        sizes: widths from input to output, such as ``(1000, 128, 10)``; two widths give a linear map.
        dropout: share of hidden units that is silenced in training, 0 to below 1.

    Returns:
        ``nn.Sequential``, rows x ``sizes[0]`` -> rows x ``sizes[-1]``; nothing follows the last linear layer.

    Raises:
        ValueError: fewer than two widths, a width below 1, or an impossible dropout.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes={tuple(sizes)}: give two or more widths from input to output, each at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: it is a share, from 0 to below 1")
    layers = []
    for before, after in pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class Autoencoder(nn.Module):
    """Encoder, bottleneck, decoder.

    Args:
        n_genes: genes, cells come as rows x ``n_genes``.
        n_latent: width of the bottleneck.
        hidden: widths of the hidden layers from the genes inwards; ``()`` makes both halves linear.
        dropout: see :func:`mlp`.

    Source: Hinton and Salakhutdinov (2006), without their layerwise pretraining.
    """

    def __init__(self, n_genes, n_latent=10, hidden=(128,), dropout=0.1):
        super().__init__()
        self.encode = mlp((n_genes, *hidden, n_latent), dropout)
        self.decode = mlp((n_latent, *reversed(hidden), n_genes), dropout)

    def forward(self, x):
        """Restored cells, rows x genes."""
        return self.decode(self.encode(x))


def squared_error(model, x, epoch):
    """Loss for :func:`scprimer.train.fit`: squared error, summed over genes, mean over cells."""
    return ((x - model(x)) ** 2).sum(1).mean()


def held_out_r2(X, predicted):
    """Share of the sum of squares that is restored: 1 is perfect, 0 is the mean, below 0 is worse than the mean.

    Args:
        X: cells x genes that the model was not trained on, centred with the training cells' means.
        predicted: the restored cells, of the same shape.

    Raises:
        ValueError: different shapes.
    """
    X, predicted = np.asarray(X, dtype=float), np.asarray(predicted, dtype=float)
    if X.shape != predicted.shape:
        raise ValueError(f"{X.shape} values cannot be compared with {predicted.shape} restored ones")
    return float(1 - ((X - predicted) ** 2).sum() / (X**2).sum())


def kl_normal(mean, log_var):
    """KL divergence of N(mean, exp(log_var)) from N(0, 1), element by element, in nats."""
    return 0.5 * (log_var.exp() + mean**2 - 1 - log_var)


def reparameterise(mean, log_var):
    """A draw from N(mean, exp(log_var)) through which gradients pass to both."""
    return mean + (log_var / 2).exp() * torch.randn_like(mean)


def log_normal(x, mean, log_sd):
    """Log density of N(mean, exp(log_sd)), summed over the last axis, in nats."""
    scaled = (x - mean) / log_sd.exp()
    return (-0.5 * (scaled**2 + math.log(2 * math.pi)) - log_sd).sum(-1)


class GaussianVAE(nn.Module):
    """Variational autoencoder with normal noise of one size on all genes.

    Args:
        n_genes: genes, cells come as rows x ``n_genes``, centred.
        n_latent: latent dimensions.
        hidden: widths of the hidden layers from the genes inwards; ``()`` gives the linear VAE, which is probabilistic PCA.
        dropout: of the encoder.
        sd: standard deviation of the noise; None learns it.

    Source: Kingma and Welling (2014).
    """

    def __init__(self, n_genes, n_latent=10, hidden=(128,), dropout=0.1, sd=None):
        super().__init__()
        self.n_latent = n_latent
        self.encoder = mlp((n_genes, *hidden, 2 * n_latent), dropout)
        self.decode = mlp((n_latent, *reversed(hidden), n_genes))
        log_sd = torch.tensor(0.0 if sd is None else math.log(sd))
        self.log_sd = nn.Parameter(log_sd, requires_grad=sd is None)

    def encode(self, x):
        """``(mean, log_var)`` of the posterior, each rows x latent."""
        return self.encoder(x).chunk(2, dim=-1)

    def terms(self, x):
        """``(log_likelihood, kl)``: rows, with one draw of z; rows x latent, exact."""
        mean, log_var = self.encode(x)
        z = reparameterise(mean, log_var)
        return log_normal(x, self.decode(z), self.log_sd), kl_normal(mean, log_var)

    def model(self, x, beta=1.0):
        """The story of a cell, for Pyro; ``beta`` weights the density of z."""
        with pyro.plate("cells", len(x)):
            with pyro.poutine.scale(scale=beta):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), self.n_latent), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decode(z), self.log_sd.exp()).to_event(1), obs=x)

    def guide(self, x, beta=1.0):
        """The posterior of each cell, for Pyro."""
        with pyro.plate("cells", len(x)), pyro.poutine.scale(scale=beta):
            mean, log_var = self.encode(x)
            pyro.sample("z", dist.Normal(mean, (log_var / 2).exp()).to_event(1))


def negative_elbo(beta=1.0, warm_up=0):
    """Loss for :func:`scprimer.train.fit`: minus the ELBO, mean over cells, in nats.

    Args:
        beta: weight of the KL term; 1 is the ELBO.
        warm_up: the weight grows linearly from 0 to ``beta`` over so many epochs.
    """

    def loss(model, x, epoch):
        log_likelihood, kl = model.terms(x)
        weight = beta * min(1.0, epoch / warm_up) if warm_up else beta
        return {"loss": (weight * kl.sum(1) - log_likelihood).mean(), "kl": kl.sum(1).mean()}

    return loss


def pyro_elbo(model, x, epoch):
    """The same loss by Pyro: exact KL where it is known, one draw for the rest."""
    elbo = pyro.infer.TraceMeanField_ELBO(max_plate_nesting=1)
    return elbo.differentiable_loss(model.model, model.guide, x) / len(x)


def bounds(model, x, draws=64):
    """Two lower bounds on the log evidence of each cell, in nats.

    Args:
        model: a :class:`GaussianVAE` in evaluation mode.
        x: rows x genes, tensor on the model's device.
        draws: draws of z for a cell.

    Returns:
        ``(elbo, tighter)``: rows each; the ELBO averaged over the draws, and the importance-weighted bound.

    Source: Burda et al. (2016), equation 8.
    """
    with torch.no_grad():
        mean, log_var = model.encode(x)
        weights, zero = [], torch.zeros_like(mean)
        for _ in range(draws):  # one at a time: draws x rows x genes would not fit
            z = reparameterise(mean, log_var)
            w = log_normal(x, model.decode(z), model.log_sd) + log_normal(z, zero, zero)
            weights.append(w - log_normal(z, mean, log_var / 2))
        weights = torch.stack(weights)  # draws x rows
        return weights.mean(0), torch.logsumexp(weights, 0) - math.log(draws)


def spectrum(X):
    """Mean, eigenvalues of the covariance (over n, falling) and eigenvectors (columns) of cells x features."""
    X = np.asarray(X, dtype=float)
    mu = X.mean(0)
    eigenvalues, U = np.linalg.eigh((X - mu).T @ (X - mu) / len(X))
    return mu, eigenvalues[::-1], U[:, ::-1]


def ppca(X, k, known=None):
    """Probabilistic PCA with the greatest likelihood, in closed form.

    Args:
        X: cells x features.
        k: latent dimensions, 0 to fewer than features; 0 is independent noise of one size.
        known: what :func:`spectrum` gives for ``X``, where it is there already.

    Returns:
        dict with ``mu`` (features), ``W`` (features x k, orthogonal columns), ``variance`` (of the noise), ``eigenvalues``
        (of the covariance, falling), and ``log_likelihood`` (mean over the cells, nats).

    Raises:
        ValueError: k is negative, or leaves no direction for the noise.

    Source: Tipping and Bishop (1999), equations 7 and 8.
    """
    d = X.shape[1]
    if not 0 <= k < d:
        raise ValueError(f"k={k} latent dimensions of {d} features: at least one direction must be left for the noise")
    mu, eigenvalues, U = known or spectrum(X)
    variance = eigenvalues[k:].mean()
    logs = np.log(eigenvalues[:k]).sum() + (d - k) * math.log(variance)
    W = U[:, :k] * np.sqrt(eigenvalues[:k] - variance)
    best = -0.5 * (logs + d * math.log(2 * math.pi) + d)
    return {"mu": mu, "W": W, "variance": variance, "eigenvalues": eigenvalues, "log_likelihood": best}


def ppca_log_density(X, mu, W, variance):
    """Log density of each cell under N(mu, W W' + variance I), in nats: cells.

    Never forms the features x features covariance: the determinant and the inverse go through the k x k matrix M.
    """
    X, W = np.asarray(X, dtype=float) - mu, np.asarray(W, dtype=float)
    d, k = W.shape
    M = W.T @ W + variance * np.eye(k)
    inside = X @ W
    squares = ((X**2).sum(1) - (inside * np.linalg.solve(M, inside.T).T).sum(1)) / variance
    log_det = np.linalg.slogdet(M)[1] + (d - k) * math.log(variance)
    return -0.5 * (squares + log_det + d * math.log(2 * math.pi))


def share_in_holes(codes, held, draws, quantile=0.95):
    """Share of draws that lie farther from all codes than held-out codes do.

    Args:
        codes: codes of training cells, cells x latent.
        held: codes of other cells.
        draws: invented codes.
        quantile: a draw lies in a hole when its distance to the nearest code exceeds this quantile of the held-out codes'.

    Returns:
        0 to 1; ``1 - quantile`` is what real cells have.
    """
    near = NearestNeighbors(n_neighbors=1).fit(codes)
    usual, distance = (near.kneighbors(Z)[0].ravel() for Z in (held, draws))
    return float((distance > np.quantile(usual, quantile)).mean())


def invented(model, codes, n, seed):
    """New codes: from the prior of a VAE, or from a normal distribution fitted to an autoencoder's codes."""
    rng = np.random.default_rng(seed)
    if isinstance(model, GaussianVAE):
        return rng.normal(size=(n, codes.shape[1]))
    return rng.multivariate_normal(codes.mean(0), np.cov(codes.T), n)


def layout_stability(A, B, k=15, seed=0):
    """How far two layouts of the same cells agree.

    Args:
        A, B: cells x 2, the same cells in the same order.
        k: size of a neighbourhood.
        seed: draws the pairs of cells whose distances are compared.

    Returns:
        ``neighbours`` (share of the ``k`` nearest cells that stay, 0 to 1), ``distances`` (rank correlation) and
        ``procrustes`` (share of the variance after the best rotation, reflection and scaling, 0 to 1).

    Raises:
        ValueError: different shapes.
    """
    A, B = np.asarray(A, dtype=float), np.asarray(B, dtype=float)
    if A.shape != B.shape:
        raise ValueError(f"layouts of {A.shape} and {B.shape}: give the same cells in the same order")
    return {
        "neighbours": metrics.neighbour_overlap(A, B, k),
        "distances": metrics.distance_correlation(A, B, seed=seed),
        "procrustes": 1 - procrustes(A, B)[2],
    }


def neighbour_vote(Y, labels, k=15):
    """Share of cells whose ``k`` nearest other cells in ``Y`` vote for their label (a tie goes to the first in order)."""
    names, found = np.unique(np.asarray(labels), return_inverse=True)
    votes = np.stack([(found[metrics.neighbours(Y, k)] == c).sum(1) for c in range(len(names))], axis=1)
    return float((votes.argmax(1) == found).mean())


def surviving_kl(eigenvalues, variance, beta=1.0):
    """Price of each latent direction at the optimum of a linear VAE: nats, averaged over the cells.

    Args:
        eigenvalues: of the covariance of the data.
        variance: of the noise, held fixed.
        beta: weight of the KL term.

    Returns:
        Same length; 0 for directions that are not used.

    Source: from the optimum of probabilistic PCA (Tipping and Bishop 1999) with noise beta * variance; see Lucas et al. (2019).
    """
    return np.maximum(0.0, 0.5 * np.log(np.asarray(eigenvalues, dtype=float) / (beta * variance)))


def active_units(means, least=0.01):
    """Number of latent dimensions whose posterior mean varies over the cells by more than ``least`` (Burda et al. 2016)."""
    return int((np.asarray(means).var(0) > least).sum())
