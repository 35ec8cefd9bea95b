# Exported by `scprimer export` from notebooks/tasks/integration.ipynb. Edit the notebook, not this file.
"""What the chapter "Many batches, one tissue" builds."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy.sparse import diags
from scipy.sparse.csgraph import shortest_path
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.nn import functional as F

from scprimer.methods.metrics import checked
from scprimer.methods.metrics import coded
from scprimer.methods.unsupervised import neighbour_matrix
from scprimer.train import fit
from scprimer.train import predict

__all__ = [
    "BatchVAE",
    "DomainNorm",
    "Encoder",
    "GradientReversal",
    "SCALEX",
    "SCGen",
    "balanced_neighbours",
    "carried_labels",
    "encode",
    "fill_labels",
    "fuzzy_weights",
    "graph_distances",
    "graph_embedding",
    "gromov_wasserstein",
    "harmony",
    "match_means",
    "mmd",
    "mnn_correct",
    "mutual_pairs",
    "pairwise_mmd",
    "predict_shift",
    "reverse_gradient",
    "ridge_correct",
    "sample",
    "scale_to_one",
    "shift_field",
    "sinkhorn",
    "soft_clusters",
    "train_network",
    "unioncom_matching",
    "unit",
    "vae_loss",
]


def unit(X):
    """Rows scaled to length 1."""
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


def soft_clusters(U, R, batches, theta, sigma, rounds, rng, blocks=20):
    """Harmony's clustering: soft k-means with a penalty on clusters that a batch fills beyond its share.

    Args:
        U: cells x dimensions, rows of length 1.
        R: cells x clusters, where to start; changed in place.
        batches: cells x batches, one-hot.
        theta: weight of the penalty. sigma: softness. rounds: how often each cell is assigned. rng: order of cells.
    """
    share = batches.mean(0)
    for _ in range(rounds):
        near = np.exp(-2 * (1 - U @ unit(R.T @ U).T) / sigma)
        seen, expected = R.T @ batches, np.outer(R.sum(0), share)  # clusters x batches
        for rows in np.array_split(rng.permutation(len(U)), blocks):
            seen -= R[rows].T @ batches[rows]  # without the cells that are about to move
            expected -= np.outer(R[rows].sum(0), share)
            penalty = ((expected + 1) / (seen + 1)) ** theta
            R[rows] = near[rows] * (batches[rows] @ penalty.T)
            R[rows] /= R[rows].sum(1, keepdims=True)
            seen += R[rows].T @ batches[rows]
            expected += np.outer(R[rows].sum(0), share)


def ridge_correct(Z, R, batches, ridge=1.0):
    """Take away, cluster by cluster, what a ridge regression on the batch explains.

    Args:
        Z: cells x dimensions, uncorrected.
        R: cells x clusters, soft assignment.
        batches: cells x batches, one-hot.
        ridge: penalty on the batches' effects.

    Returns:
        cells x dimensions, corrected.
    """
    design = np.hstack([np.ones((len(Z), 1)), batches])
    penalty = np.diag([0.0] + [ridge] * batches.shape[1])
    corrected = Z.copy()
    for r in R.T:
        weighted = design * r[:, None]
        W = np.linalg.solve(weighted.T @ design + penalty, weighted.T @ Z)  # (1 + batches) x dimensions
        W[0] = 0  # the intercept stays
        corrected -= weighted @ W
    return corrected


def harmony(Z, batch, *, theta=2.0, sigma=0.1, ridge=1.0, n_clusters=None, rounds=10, inner=4, seed=0):
    """Harmony: components without the batch.

    Args:
        Z: cells x components.
        batch: one label a cell; two batches or more, each with two cells or more.
        theta: 0 lets clusters be of one batch; larger mixes more.
        sigma: softness of clusters.
        ridge: penalty on batch effects; larger corrects less, above all in small clusters.
        n_clusters: default: one for 30 cells, from 2 to 100.
        rounds: of clustering and correcting, at most; it stops when cells turn by less than a thousandth.
        inner: assignments of each cell in a round.
        seed: of k-means and the order of cells.

    Returns:
        cells x components, corrected.

    Raises:
        ValueError: NaN, missing labels, a single batch, or a batch with one cell.

    Source: Korsunsky et al. (2019).
    """
    Z = checked(Z)
    _, code, size = coded(len(Z), batch=batch, least=2)
    batches, rng = np.eye(len(size))[code], np.random.default_rng(seed)
    k = n_clusters or int(np.clip(round(len(Z) / 30), 2, 100))
    U = unit(Z)
    centres = unit(KMeans(min(k, len(Z)), n_init=1, random_state=seed).fit(U).cluster_centers_)
    R = np.exp(-2 * (1 - U @ centres.T) / sigma)
    R /= R.sum(1, keepdims=True)
    for _ in range(rounds):
        soft_clusters(U, R, batches, theta, sigma, inner, rng)
        corrected = ridge_correct(Z, R, batches, ridge)
        turned, U = np.linalg.norm(unit(corrected) - U) / np.sqrt(len(U)), unit(corrected)
        if turned < 1e-3:
            break
    return corrected


def mutual_pairs(A, B, k=20):
    """Pairs of rows that are among each other's ``k`` nearest: ``(rows of A, rows of B)``."""
    near_a = NearestNeighbors(n_neighbors=min(k, len(A))).fit(A).kneighbors_graph(B)  # B x A
    near_b = NearestNeighbors(n_neighbors=min(k, len(B))).fit(B).kneighbors_graph(A)  # A x B
    of_b, of_a = near_a.multiply(near_b.T).nonzero()
    return of_a, of_b


def mnn_correct(Z, batch, k=20):
    """Each batch moved onto the larger ones by the differences of mutual nearest neighbours.

    Args:
        Z: cells x dimensions.
        batch: one label a cell; two batches or more, each with two cells or more.
        k: neighbours; a cell is moved by pairs about as far away as its ``k`` nearest matched cells.

    Returns:
        cells x dimensions, with rows of about length 1.

    Source: Haghverdi et al. (2018).
    """
    Z = unit(checked(Z))
    _, code, size = coded(len(Z), batch=batch, least=2)
    order = np.argsort(-size, kind="stable")
    done = code == order[0]
    for b in order[1:]:
        here = np.flatnonzero(code == b)
        Z[here] += shift_field(Z[done], Z[here], k)
        done |= code == b
    return Z


def shift_field(A, B, k=20):
    """By how much each row of ``B`` has to move to lie on ``A``: a smooth field through the mutual neighbours' differences."""
    of_a, of_b = mutual_pairs(A, B, k)
    matched, place, times = np.unique(of_b, return_inverse=True, return_counts=True)
    gap = np.zeros((len(matched), B.shape[1]))
    np.add.at(gap, place, A[of_a] - B[of_b])
    gap /= times[:, None]
    d2 = ((B[:, None] - B[matched]) ** 2).sum(2) if len(B) * len(matched) < 2e6 else _squares(B, B[matched])
    width = np.partition(d2, min(k, len(matched)) - 1, axis=1)[:, : min(k, len(matched))].mean(1, keepdims=True)
    weight = np.exp(-d2 / np.maximum(width, 1e-12))
    return (weight / weight.sum(1, keepdims=True)) @ gap


def _squares(A, B):
    """Squared distances of rows without a large intermediate array."""
    return np.maximum((A**2).sum(1)[:, None] + (B**2).sum(1) - 2 * A @ B.T, 0)


def balanced_neighbours(Z, batch, k=5):
    """The ``k`` nearest cells *in each batch*, itself included in its own: ``(index, distance)``, cells x (k * batches).

    Args:
        Z: cells x dimensions.
        batch: one label a cell; a batch with fewer than ``k`` cells is an error.

    Source: Polanski et al. (2020).
    """
    Z = checked(Z)
    names, code, _ = coded(len(Z), batch=batch, least=k)
    index, distance = [], []
    for b in range(len(names)):
        there = np.flatnonzero(code == b)
        d, i = NearestNeighbors(n_neighbors=k).fit(Z[there]).kneighbors(Z)
        index.append(there[i])
        distance.append(d)
    return np.hstack(index), np.hstack(distance)


def fuzzy_weights(index, distance, rounds=64):
    """UMAP's weights for given neighbours: a symmetric csr matrix, cells x cells, weights between 0 and 1."""
    distance = np.where(index == np.arange(len(index))[:, None], np.inf, distance)  # not oneself
    beyond = np.maximum(distance - distance.min(1, keepdims=True), 0)
    low, high, wide = (np.full((len(index), 1), v) for v in (0.0, np.inf, 1.0))
    for _ in range(rounds):
        too_wide = np.exp(-beyond / wide).sum(1, keepdims=True) > np.log2(index.shape[1])
        low, high = np.where(too_wide, low, wide), np.where(too_wide, wide, high)
        wide = np.where(np.isinf(high), 2 * low, (low + high) / 2)
    w = neighbour_matrix(index, np.exp(-beyond / np.maximum(wide, 1e-9)))
    return (w + w.T - w.multiply(w.T)).tocsr()


def graph_embedding(graph, n=15):
    """Leading eigenvectors of the normalised graph, times their eigenvalues: cells x ``n`` (a diffusion map)."""
    scale = 1 / np.sqrt(np.maximum(np.asarray(graph.sum(1)).ravel(), 1e-12))
    n = max(1, min(n, graph.shape[0] - 2))
    value, vector = eigsh(diags(scale) @ graph @ diags(scale), n + 1, which="LA", v0=np.ones(len(scale)))
    order = np.argsort(-value)[1:]  # the first is constant
    return np.sqrt(len(scale)) * vector[:, order] * value[order]


class GradientReversal(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ``-strength``. Source: Ganin et al. (2016)."""

    @staticmethod
    def forward(ctx, x, strength):
        """``x`` as it is."""
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        """The gradient, reversed; none in ``strength``."""
        return -ctx.strength * gradient, None


def reverse_gradient(x, strength=1.0):
    """``x`` unchanged; on the way back its gradient is multiplied by ``-strength``."""
    return GradientReversal.apply(x, strength)


def mmd(x, y, widths=(0.25, 0.5, 1.0, 2.0, 4.0)):
    """Squared maximum mean discrepancy of two samples, with a mean of Gaussian kernels: 0 for equal samples, at most 2.

    Args:
        x, y: cells x dimensions each, one cell or more.
        widths: of the kernels ``exp(-d**2 / (width * mean d**2))``.

    Source: Gretton et al. (2012), the biased estimate.
    """
    both = torch.cat([x, y])
    d2 = torch.cdist(both, both).square()
    scale = (d2.detach().sum() / max(len(both) * (len(both) - 1), 1)).clamp(min=1e-12)
    K = torch.stack([torch.exp(-d2 / (w * scale)) for w in widths]).mean(0)
    n = len(x)
    return K[:n, :n].mean() + K[n:, n:].mean() - 2 * K[:n, n:].mean()


class Encoder(nn.Module):
    """x (cells x features) -> mean and log variance of z, cells x n_latent each."""

    def __init__(self, n_features, n_latent=10, n_hidden=64):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_features, n_hidden), nn.BatchNorm1d(n_hidden), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(n_hidden, n_latent), nn.Linear(n_hidden, n_latent)

    def forward(self, x):
        """``(mean, log_variance)``."""
        h = self.body(x)
        return self.mean(h), self.log_variance(h).clamp(-10, 10)


def sample(mean, log_variance):
    """A draw of z, and KL(q(z | x) || N(0, I)) of each cell."""
    z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
    return z, 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)


class BatchVAE(nn.Module):
    """A VAE whose latent state should not hold the batch.

    Args:
        n_features: values a cell.
        n_batches: batches that the decoder is told; 1: none.
        align: None, ``"adversary"`` or ``"mmd"``.
        strength: of the reversed gradient, or of the MMD for each feature.
        kl_weight: of the KL term.

    Raises:
        ValueError: an unknown ``align``, or one for a single batch.

    Source: Ganin et al. (2016); trVAE: Lotfollahi et al. (2020).
    """

    def __init__(self, n_features, n_batches=1, *, n_latent=10, n_hidden=64, align=None, strength=1.0, kl_weight=1.0):
        super().__init__()
        if align not in (None, "adversary", "mmd") or (align and n_batches < 2):
            raise ValueError(
                f"align={align!r} with {n_batches} batch(es): None, or 'adversary' or 'mmd' for two or more"
            )
        self.n_batches, self.align, self.strength, self.kl_weight = n_batches, align, strength, kl_weight
        self.encoder = Encoder(n_features, n_latent, n_hidden)
        told = n_batches if n_batches > 1 else 0
        self.decoder = nn.Sequential(
            nn.Linear(n_latent + told, n_hidden), nn.BatchNorm1d(n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_features)
        )  # fmt: skip
        if align == "adversary":
            self.adversary = nn.Sequential(nn.Linear(n_latent, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_batches))

    def decode(self, z, code):
        """z (cells x n_latent) and batch codes -> cells x features."""
        told = [F.one_hot(code, self.n_batches).to(z.dtype)] if self.n_batches > 1 else []
        return self.decoder(torch.cat([z, *told], 1))

    def loss(self, cells):
        """``{"loss", "reconstruction", "kl", align}`` of ``{"x": cells x features, "batch": codes}``."""
        return vae_loss(self, cells)


def vae_loss(model, cells):
    """Squared error / 2 + KL + what aligns the batches; means over the cells."""
    x, code = cells["x"], cells["batch"]
    z, kl = sample(*model.encoder(x))
    reconstruction = (model.decode(z, code) - x).square().sum(1).mean() / 2
    parts = {"reconstruction": reconstruction.detach(), "kl": kl.detach().mean()}
    loss = reconstruction + model.kl_weight * kl.mean()
    if model.align == "adversary":
        penalty = F.cross_entropy(model.adversary(reverse_gradient(z, model.strength)), code)
        loss = loss + penalty  # minimised by the adversary, maximised by the encoder
    elif model.align == "mmd":
        penalty = pairwise_mmd(z, code, model.n_batches)
        loss = loss + model.strength * x.shape[1] * penalty
    return {"loss": loss, **parts} | ({model.align: penalty.detach()} if model.align else {})


def pairwise_mmd(z, code, n_batches):
    """Mean MMD over pairs of batches with two cells or more in this minibatch; 0 where there is no such pair."""
    parts = [z[code == b] for b in range(n_batches)]
    parts = [part for part in parts if len(part) > 1]
    pairs = [mmd(p, q) for i, p in enumerate(parts) for q in parts[:i]]
    return torch.stack(pairs).mean() if pairs else z.sum() * 0


def train_network(
    model, X, code=None, *, epochs=40, batch_size=128, learning_rate=3e-3, seed=0, device="auto", label=""
):
    """Train a network of this chapter: ``X`` is cells x features, ``code`` the number of each cell's batch.

    Returns:
        :class:`scprimer.train.History`.

    Raises:
        ValueError: other numbers of cells and codes.
    """
    code = np.zeros(len(X), dtype=np.int64) if code is None else np.asarray(code, dtype=np.int64)
    cells = {"x": np.asarray(X, dtype=np.float32), "batch": code}
    return fit(
        model, cells, lambda m, batch, _: m.loss(batch), epochs=epochs, batch_size=min(batch_size, len(X)), seed=seed,
        device=device, amp=False, optimiser=partial(torch.optim.Adam, lr=learning_rate), label=label,
    )  # fmt: skip


def encode(model, X):
    """Latent means, cells x n_latent, of cells x features; nothing of the model changes."""
    device = next(model.parameters()).device
    model.eval()
    return predict(lambda x: model.encoder(x)[0], np.asarray(X, dtype=np.float32), device=device)


class DomainNorm(nn.Module):
    """Batch normalisation with mean, variance, scale and offset of its own for each batch of cells."""

    def __init__(self, n_features, n_batches):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(n_features) for _ in range(n_batches))

    def forward(self, x, code):
        """cells x features and batch codes -> cells x features."""
        out = torch.empty_like(x)
        for b, norm in enumerate(self.norms):
            rows = code == b
            if rows.sum() == 1 and self.training:  # one cell has no variance
                out[rows] = F.batch_norm(
                    x[rows], norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
                )
            elif rows.any():
                out[rows] = norm(x[rows])
        return out


def scale_to_one(L, batch):
    """Each gene of cells x genes divided by its largest value within the cell's batch: 0 to 1; genes without values stay 0."""
    L, batch = np.array(L, dtype=np.float32), np.asarray(batch)
    for b in np.unique(batch):
        L[batch == b] /= np.maximum(L[batch == b].max(0), 1e-9)
    return L


class SCALEX(nn.Module):
    """A VAE with a batch-free encoder and a decoder that ends in :class:`DomainNorm`; values between 0 and 1.

    Args:
        n_features: values a cell.
        n_batches: batches of the decoder. The encoder takes any batch, also one that it was not trained on.
        kl_weight: of the KL term; the paper has 0.5.

    Source: Xiong et al. (2022).
    """

    def __init__(self, n_features, n_batches, *, n_latent=10, n_hidden=64, kl_weight=0.5):
        super().__init__()
        self.encoder = Encoder(n_features, n_latent, n_hidden)
        self.decoder, self.norm = nn.Linear(n_latent, n_features), DomainNorm(n_features, n_batches)
        self.kl_weight = kl_weight

    def loss(self, cells):
        """``{"loss", "reconstruction", "kl"}`` of ``{"x": cells x features in [0, 1], "batch": codes}``."""
        z, kl = sample(*self.encoder(cells["x"]))
        logits = self.norm(self.decoder(z), cells["batch"])
        error = F.binary_cross_entropy_with_logits(logits, cells["x"], reduction="none").sum(1).mean()
        loss = error + self.kl_weight * kl.mean()
        return {"loss": loss, "reconstruction": error.detach(), "kl": kl.detach().mean()}


class SCGen(BatchVAE):
    """scGen's model: a plain VAE of log-normalised values, with a weak KL term. Source: Lotfollahi et al. (2019)."""

    def __init__(self, n_features, *, n_latent=10, n_hidden=64, kl_weight=0.1):
        super().__init__(n_features, 1, n_latent=n_latent, n_hidden=n_hidden, kl_weight=kl_weight)


def predict_shift(model, before, after, query):
    """Values of ``query`` cells as if they had undergone what turned ``before`` into ``after``: latent arithmetic.

    Args:
        model: trained :class:`SCGen`.
        before, after, query: cells x features each; the first two need not hold the same cells.

    Returns:
        query cells x features, decoded from ``z + mean z(after) - mean z(before)``.

    Raises:
        ValueError: no cells before or after.
    """
    if not len(before) or not len(after):
        raise ValueError(f"{len(before)} cells before and {len(after)} after: both are needed to see what changes")
    z = encode(model, query) + encode(model, after).mean(0) - encode(model, before).mean(0)
    code = np.zeros(len(z), dtype=np.int64)
    device = next(model.parameters()).device
    return predict(lambda m: model.decode(m["z"], m["batch"]), {"z": z, "batch": code}, device=device)


def fill_labels(Z, batch, label, k=5):
    """Labels for cells without one: the commonest among the ``k`` nearest labelled cells of the same batch, or of all batches."""
    batch, label = np.asarray(batch).astype(str), np.asarray(label).astype(str)
    filled, known = label.copy(), label != ""
    for b in np.unique(batch):
        ask = (batch == b) & ~known
        have = np.flatnonzero(known & (batch == b)) if (known & (batch == b)).any() else np.flatnonzero(known)
        if ask.any():
            near = (
                NearestNeighbors(n_neighbors=min(k, len(have))).fit(Z[have]).kneighbors(Z[ask], return_distance=False)
            )
            names, code = np.unique(label[have], return_inverse=True)
            filled[ask] = names[(code[near][:, :, None] == np.arange(len(names))).sum(1).argmax(1)]
    return filled


def match_means(Z, batch, label):
    """Each type of each batch moved to the mean that the type has in the batch with most of its cells.

    Args:
        Z: cells x latent dimensions.
        batch, label: one each a cell; an empty label is filled by :func:`fill_labels`. Types in one batch only stay.

    Raises:
        ValueError: a single batch, or no label at all.
    """
    Z, moved = checked(Z), np.array(Z, dtype=float)
    coded(len(Z), batch=batch, least=2)
    if not (np.asarray(label).astype(str) != "").any():
        raise ValueError("no cell has a label, and scGen moves types: label some cells, or use a method without labels")
    batch, label = np.asarray(batch).astype(str), fill_labels(Z, batch, label)
    for name in np.unique(label):
        names, size = np.unique(batch[label == name], return_counts=True)
        home = Z[(label == name) & (batch == names[size.argmax()])].mean(0)
        for b in names:
            rows = (label == name) & (batch == b)
            moved[rows] += home - Z[rows].mean(0)
    return moved


def graph_distances(X, k=20):
    """Steps between cells along the k-nearest-neighbour graph, divided by the largest: cells x cells, 0 to 1.

    Cells in different pieces of the graph get the largest distance that occurs.
    """
    X = checked(X)
    graph = NearestNeighbors(n_neighbors=min(k, len(X) - 1)).fit(X).kneighbors_graph()
    steps = shortest_path(graph.maximum(graph.T), directed=False, unweighted=True)
    steps[np.isinf(steps)] = steps[np.isfinite(steps)].max()
    return steps / max(steps.max(), 1)


def sinkhorn(cost, epsilon, rounds=100):
    """The coupling of uniform margins with least cost, plus ``epsilon`` times its negative entropy: rows x columns, sum 1."""
    n, m = cost.shape
    K = np.maximum(np.exp(-(cost - cost.min(1, keepdims=True)) / epsilon), 1e-300)
    v = np.ones(m)
    for _ in range(rounds):
        u = (1 / n) / (K @ v)
        v = (1 / m) / (K.T @ u)
    return u[:, None] * K * v


def gromov_wasserstein(C, D, epsilon=5e-3, rounds=60):
    """Entropic Gromov-Wasserstein coupling of two sets of cells.

    Args:
        C, D: distances within each set, n x n and m x m, symmetric.
        epsilon: weight of the entropy; small is sharp and slow.
        rounds: linearisations, at most.

    Returns:
        ``(T, cost)``: n x m with sum 1, and the squared difference of distances under it. A local optimum.

    Raises:
        ValueError: matrices that are not square.

    Source: Peyre et al. (2016); for single cells SCOT, Demetci et al. (2022).
    """
    C, D = checked(C), checked(D)
    if C.shape[0] != C.shape[1] or D.shape[0] != D.shape[1]:
        raise ValueError(f"distances of the shapes {C.shape} and {D.shape}: each set needs cells x cells")
    T = np.full((len(C), len(D)), 1 / (len(C) * len(D)))
    fixed = (C**2).mean(1)[:, None] + (D**2).mean(1)  # margins are uniform
    for _ in range(rounds):
        before, T = T, sinkhorn(2 * (fixed - 2 * C @ T @ D), epsilon)
        if np.abs(T - before).max() < 1e-9:
            break
    return T, float(((fixed - 2 * C @ T @ D) * T).sum())


def unioncom_matching(C, D, rounds=150, rate=0.5):
    """A soft matching that carries the distances of one set into those of the other: rows sum to 1, columns to n / m.

    Minimises ``|C - F D F'|**2`` by mirror descent from the uniform matching; a local optimum.

    Args:
        C, D: distances within each set, n x n and m x m.
        rounds, rate: steps, and how much the largest entry may grow in one (in logs).

    Source: the objective of UnionCom, Cao et al. (2020).
    """
    C, D = checked(C), checked(D)
    matching = np.full((len(C), len(D)), 1 / len(D))
    for _ in range(rounds):
        carried = matching @ D
        gradient = carried @ (matching.T @ carried) - C @ carried
        matching = matching * np.exp(-rate * gradient / np.maximum(np.abs(gradient).max(), 1e-12))
        for _ in range(10):  # back to the margins
            matching *= (len(C) / len(D)) / np.maximum(matching.sum(0), 1e-300)
            matching /= np.maximum(matching.sum(1, keepdims=True), 1e-300)
    return matching


def carried_labels(coupling, label):
    """The label that receives most weight for each row of ``coupling`` (rows x labelled cells), classes weighted alike."""
    names, code = np.unique(np.asarray(label).astype(str), return_inverse=True)
    share = coupling / np.maximum(coupling.sum(1, keepdims=True), 1e-300) @ np.eye(len(names))[code]
    return names[(share / np.bincount(code)).argmax(1)]
