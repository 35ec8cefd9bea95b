# Exported by `scprimer export` from notebooks/learning/self-supervised.ipynb. Edit the notebook, not this file.
"""What the chapter "Self-supervised learning" builds."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

__all__ = [
    "AUGMENTATIONS",
    "Encoder",
    "GATES",
    "MoCo",
    "WithHead",
    "alignment",
    "as_features",
    "barlow_task",
    "barlow_twins",
    "check_views",
    "choose_hidden",
    "count_task",
    "crossed",
    "denoising_task",
    "effective_rank",
    "gate",
    "info_nce",
    "labelled_split",
    "linear_probe",
    "log_features",
    "masked",
    "masked_error",
    "masked_task",
    "mlp",
    "moco_task",
    "nb_nll",
    "noisy",
    "nt_xent",
    "otsu",
    "probe",
    "readable",
    "simclr_task",
    "swapped",
    "thinned",
    "uniformity",
    "unit_rows",
    "view",
]


GATES = {  # cell type: (proteins above their cut, proteins below it)
    "CD4 T": ("CD3 CD4", "CD8 CD19 CD34"),
    "CD8 T": ("CD3 CD8", "CD4 CD19 CD34"),
    "B": ("CD19", "CD3 CD34"),
    "NK": ("CD56 CD16", "CD3 CD19 CD11c CD34"),
    "CD14+ Mono": ("CD14 CD11c", "CD3 CD19 CD16 CD34"),
    "FCGR3A+ Mono": ("CD16 CD11c", "CD3 CD19 CD56 CD34"),
}


def otsu(values):
    """The cut between two groups with the largest variance between their means (Otsu 1979); values above it are high."""
    v = np.sort(np.asarray(values, dtype=float))
    n, total, k = len(v), v.cumsum(), np.arange(1, len(v))
    between = k * (n - k) * (total[:-1] / k - (total[-1] - total[:-1]) / (n - k)) ** 2
    return float(v[between.argmax()])


def gate(proteins, rules=GATES):
    """Cell types from surface proteins.

    Args:
        proteins: DataFrame, cells x proteins.
        rules: type -> (names of the proteins above their cut, names of those below it), each in one string.

    Returns:
        One name a cell, ``""`` where no rule or more than one holds.
    """
    high = {p: proteins[p].to_numpy() > otsu(proteins[p]) for p in proteins}
    fits = [
        np.all([high[p] for p in up.split()], axis=0) & ~np.any([high[p] for p in down.split()], axis=0)
        for up, down in rules.values()
    ]
    names = np.array(["", *rules])
    return names[np.where(np.sum(fits, 0) == 1, 1 + np.argmax(fits, 0), 0)]


def log_features(counts, size):
    """log(1 + counts per ten thousand): counts cells x genes, size one a cell; a tensor cells x genes."""
    return torch.log1p(1e4 * counts / size[:, None])


class Encoder(nn.Module):
    """Counts to a representation: log-normalise, centre, two layers.

    Args:
        mean: mean log-normalised value of each gene in the training cells (genes).
        scale: one number that all values are divided by, such as the mean of the genes' standard deviations.
        n_hidden, n_latent: widths of the hidden layer and of the representation.
    """

    def __init__(self, mean, scale, n_hidden=128, n_latent=64):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(np.asarray(mean), dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(float(scale)))
        self.layers = mlp(len(self.mean), n_hidden, n_latent)

    def features(self, counts, size):
        """What the layers see, and what reconstructions are compared with: cells x genes."""
        if counts.shape[1] != len(self.mean):
            raise ValueError(
                f"{counts.shape[1]} genes were given to an encoder of {len(self.mean)}: give it the genes it was trained on"
            )
        return (log_features(counts, size) - self.mean) / self.scale

    def forward(self, counts, size):
        """The representation: counts cells x genes, size one a cell -> cells x n_latent."""
        return self.layers(self.features(counts, size))


def mlp(n_in, n_hidden, n_out):
    """Two layers with batch normalisation and a rectifier between them."""
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.BatchNorm1d(n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_out))


def thinned(counts, size, low=0.3):
    """Binomial thinning: keep each molecule with a probability that is drawn for each cell between ``low`` and 1."""
    keep = low + (1 - low) * torch.rand(len(counts), device=counts.device)
    cell, gene = counts.nonzero(as_tuple=True)
    n, p = counts[cell, gene], keep[cell]
    if counts.device.type == "mps":  # has no binomial of its own
        n, p = n.cpu(), p.cpu()
    kept = torch.zeros_like(counts)
    kept[cell, gene] = torch.binomial(n, p).to(counts.device)
    return kept, size * keep


def masked(counts, size, share=0.2):
    """Set a random share of the genes of each cell to zero."""
    return counts * (torch.rand_like(counts) >= share), size


def noisy(counts, size, sd=0.5):
    """Multiply each count by a log-normal factor."""
    return counts * torch.exp(sd * torch.randn_like(counts)), size


def swapped(counts, size, share=0.1):
    """Give a random share of the entries the value of another gene of the same cell."""
    other = counts[:, torch.randperm(counts.shape[1], device=counts.device)]
    return torch.where(torch.rand_like(counts) < share, other, counts), size


def crossed(counts, size, share=0.2):
    """Take a random share of the genes from another cell of the batch, brought to this cell's depth."""
    other = torch.randperm(len(counts), device=counts.device)
    theirs = counts[other] * (size / size[other])[:, None]
    return torch.where(torch.rand_like(counts) < share, theirs, counts), size


AUGMENTATIONS = {"thinning": thinned, "masking": masked, "noise": noisy, "swap": swapped, "crossover": crossed}


def view(batch, names):
    """One augmented view of a batch ``(counts, size)``: the named augmentations, in their order in ``AUGMENTATIONS``."""
    if unknown := sorted(set(names) - set(AUGMENTATIONS)):
        raise ValueError(f"no augmentation is called {unknown[0]!r}; there are {', '.join(AUGMENTATIONS)}")
    counts, size = batch
    for name, augment in AUGMENTATIONS.items():
        counts, size = augment(counts, size) if name in names else (counts, size)
    return counts, size


def nt_xent(a, b, temperature=0.5):
    """SimCLR's loss, the normalised temperature-scaled cross-entropy.

    Args:
        a, b: projections of two views of the same cells, cells x features; row i of both is the same cell.
        temperature: what cosines are divided by, above 0.

    Returns:
        Scalar, the mean over all 2 x cells views. All projections equal: log(2 x cells - 1).

    Source: Chen et al. (2020), equation 1.
    """
    check_views(a, b)
    h = F.normalize(torch.cat([a, b]), dim=1)  # 2N x features
    s = h @ h.T / temperature  # 2N x 2N
    s = s.masked_fill(torch.eye(len(h), dtype=torch.bool, device=h.device), -torch.inf)  # not oneself
    partner = torch.arange(len(h), device=h.device).roll(len(a))
    return F.cross_entropy(s, partner)


def check_views(a, b):
    """Raise ValueError unless ``a`` and ``b`` are the same size, with two cells or more."""
    if a.shape != b.shape or a.ndim != 2 or len(a) < 2:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(
            f"two views of the same cells are needed, cells x features with two cells or more: got {shapes}"
        )


def barlow_twins(a, b, redundancy=0.005):
    """Barlow Twins' loss: how far the cross-correlation of two views is from the unit matrix.

    Args:
        a, b: projections of two views of the same cells, cells x features.
        redundancy: weight of the entries off the diagonal.

    Returns:
        Scalar, summed over features.

    Source: Zbontar et al. (2021), equation 1.
    """
    check_views(a, b)
    a, b = ((h - h.mean(0)) / h.std(0, correction=0).clamp(min=1e-6) for h in (a, b))
    C = a.T @ b / len(a)  # features x features
    on = torch.diagonal(C)
    return ((1 - on) ** 2).sum() + redundancy * ((C**2).sum() - (on**2).sum())


def info_nce(query, key, queue, temperature=0.5):
    """MoCo's loss: find each query's key among the strangers of the queue.

    Args:
        query, key: projections of two views, cells x features. No gradient should flow into ``key``.
        queue: keys of past cells, strangers x features.
        temperature: what cosines are divided by.

    Source: He et al. (2020), equation 1.
    """
    check_views(query, key)
    q, k, strangers = (F.normalize(h, dim=1) for h in (query, key, queue))
    scores = torch.cat([(q * k).sum(1, keepdim=True), q @ strangers.T], dim=1) / temperature
    return F.cross_entropy(scores, torch.zeros(len(q), dtype=torch.long, device=q.device))


def choose_hidden(counts, share=0.15, zeros=False):
    """Which entries to hide: a random ``share`` of the non-zero ones, or with ``zeros`` of all (bool, cells x genes)."""
    hidden = torch.rand_like(counts) < share
    return hidden if zeros else hidden & (counts > 0)


def masked_error(guess, x, hidden):
    """Mean squared error over the hidden entries alone (all cells x genes); what was visible does not count."""
    return ((guess - x)[hidden] ** 2).sum() / hidden.sum().clamp(min=1)


def nb_nll(counts, mean, theta):
    """Negative log-likelihood of counts under a negative binomial, summed over genes, averaged over cells.

    Args:
        counts, mean: cells x genes.
        theta: inverse dispersion of each gene; variance = mean + mean^2 / theta.
    """
    at_zero = torch.log(theta / (theta + mean))
    log_p = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
    log_p = log_p + theta * at_zero + torch.xlogy(counts, mean / (theta + mean))
    return -log_p.sum(1).mean()


class WithHead(nn.Module):
    """An encoder and what comes after it in pretraining: a projection, or a decoder.

    Args:
        encoder: maps ``(counts, size)`` to cells x latent.
        n_latent, n_hidden, n_out: widths of the head.
    """

    def __init__(self, encoder, n_latent=64, n_hidden=64, n_out=64):
        super().__init__()
        self.encoder, self.head = encoder, mlp(n_latent, n_hidden, n_out)
        self.log_theta = nn.Parameter(torch.zeros(n_out))  # only the count autoencoder uses it

    def forward(self, counts, size):
        """What the head makes of the representation: cells x n_out."""
        return self.head(self.encoder(counts, size))


class MoCo(WithHead):
    """Momentum contrast (He et al. 2020): a second, slow encoder that gets no gradient, and a queue of its outputs."""

    def __init__(self, encoder, n_latent=64, n_hidden=64, n_out=64, n_queue=1024, momentum=0.9):
        super().__init__(encoder, n_latent, n_hidden, n_out)
        self.momentum = momentum
        self.slow = deepcopy(nn.Sequential(encoder.layers, self.head)).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(n_queue, n_out), dim=1))

    @torch.no_grad()
    def keys(self, counts, size):
        """Projections by the slow encoder, after it has followed the fast one by a step: cells x n_out."""
        fast = [*self.encoder.layers.parameters(), *self.head.parameters()]
        for key, query in zip(self.slow.parameters(), fast):
            key.mul_(self.momentum).add_(query, alpha=1 - self.momentum)
        return F.normalize(self.slow(self.encoder.features(counts, size)), dim=1)

    @torch.no_grad()
    def enqueue(self, keys):
        """The newest keys first; the oldest fall out."""
        self.queue = torch.cat([keys, self.queue])[: len(self.queue)]


def simclr_task(model, batch, epoch, views=("thinning", "masking"), temperature=0.5):
    """Recognise the other view of each cell among the views of the batch."""
    return nt_xent(model(*view(batch, views)), model(*view(batch, views)), temperature)


def barlow_task(model, batch, epoch, views=("thinning", "masking"), redundancy=0.02):
    """Make the features of two views agree, each with itself alone."""
    return barlow_twins(model(*view(batch, views)), model(*view(batch, views)), redundancy)


def moco_task(model, batch, epoch, views=("thinning", "masking"), temperature=0.5):
    """Recognise the other view of each cell among the cells of past batches."""
    keys = model.keys(*view(batch, views))
    loss = info_nce(model(*view(batch, views)), keys, model.queue, temperature)
    model.enqueue(keys)
    return loss


def masked_task(model, batch, epoch, share=0.15, zeros=False):
    """Guess the hidden genes from the others."""
    counts, size = batch
    hidden = choose_hidden(counts, share, zeros)
    return masked_error(model(counts * ~hidden, size), model.encoder.features(counts, size), hidden)


def denoising_task(model, batch, epoch, views=("thinning", "masking")):
    """Restore the whole cell from a damaged copy."""
    return F.mse_loss(model(*view(batch, views)), model.encoder.features(*batch))


def count_task(model, batch, epoch):
    """Restore the counts of the undamaged cell, by a negative binomial: an autoencoder after DCA, without sampling."""
    counts, size = batch
    mean = torch.softmax(model(counts, size), dim=1) * counts.sum(1, keepdim=True)
    return nb_nll(counts, mean + 1e-8, model.log_theta.exp())


def labelled_split(truth, per_class=None, seed=0, most=2000):
    """Cells to train a probe on and cells to judge it on.

    Args:
        truth: a name a cell, ``""`` where it is not known.
        per_class: at most so many labels of each class to train on; None: half of the class.
        seed: draws the cells.
        most: use about so many cells in all, with the classes in proportion.

    Returns:
        ``(train, test)``, indices. Half of each class is kept for testing whatever ``per_class`` is. Classes with fewer than
        four cells are left out.

    Raises:
        ValueError: fewer than two classes are left.
    """
    truth, rng = np.asarray(truth), np.random.default_rng(seed)
    names, sizes = np.unique(truth[truth != ""], return_counts=True)
    share = min(1.0, most / max(1, sizes.sum()))
    train, test = [], []
    for name, size in zip(names, sizes):
        if size >= 4:
            rows = rng.permutation(np.flatnonzero(truth == name))[: max(4, int(share * size))]
            test.append(rows[: len(rows) // 2])
            train.append(rows[len(rows) // 2 :][:per_class])
    if len(train) < 2:
        raise ValueError(f"{len(train)} class(es) with four labelled cells or more: a probe needs at least two")
    return np.concatenate(train), np.concatenate(test)


def linear_probe(Z, y, Z_test, C=1.0):
    """Multinomial logistic regression with an L2 penalty, as in scikit-learn.

    Args:
        Z: representations of the labelled cells, cells x features.
        y: their labels, two classes or more.
        Z_test: cells x features.
        C: inverse strength of the penalty; the intercept is free.

    Returns:
        ``(probabilities, classes)``: test cells x classes, and the classes' names in order.
    """
    classes, code = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("a probe needs labels of at least two classes")
    Z, Y = np.hstack([np.asarray(Z, float), np.ones((len(Z), 1))]), np.eye(len(classes))[code]

    def loss(w):
        W = w.reshape(Z.shape[1], -1)  # (features + 1) x classes
        log_p, penalised = log_softmax(Z @ W, axis=1), np.vstack([W[:-1], np.zeros(len(classes))])
        gradient = C * Z.T @ (np.exp(log_p) - Y) + penalised
        return -C * (log_p * Y).sum() + (penalised**2).sum() / 2, gradient.ravel()

    W = minimize(loss, np.zeros(Z.shape[1] * len(classes)), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    Z_test = np.hstack([np.asarray(Z_test, float), np.ones((len(Z_test), 1))])
    return np.exp(log_softmax(Z_test @ W.reshape(Z.shape[1], -1), axis=1)), classes


def as_features(Z):
    """Centred, and divided by one number so that the features have variance one on average."""
    Z = np.asarray(Z, dtype=float) - np.mean(Z, axis=0)
    return Z / max(np.sqrt((Z**2).mean()), 1e-12)


def probe(Z, truth, per_class=None, seed=0):
    """How well classes can be read off a representation with few labels.

    Args:
        Z: cells x features.
        truth: a name a cell, ``""`` where it is not known.
        per_class: labels of each class, None for all (half of the class; the other half is for testing).
        seed: draws the cells.

    Returns:
        ``linear`` and ``knn``: mean recall over the classes (balanced accuracy) of both probes; ``auc``: area under the
        curve of the linear probe, each class against the rest, mean over classes. k is half of ``per_class``, at most 15.
    """
    truth = np.asarray(truth)
    train, test = labelled_split(truth, per_class, seed)
    Z = as_features(Z)
    p, classes = linear_probe(Z[train], truth[train], Z[test])
    k = min(15, len(train)) if per_class is None else min(15, max(1, per_class // 2), len(train))
    near = KNeighborsClassifier(k).fit(Z[train], truth[train]).predict(Z[test])
    return {
        "linear": balanced_accuracy_score(truth[test], classes[p.argmax(1)]),
        "knn": balanced_accuracy_score(truth[test], near),
        "auc": np.mean([roc_auc_score(truth[test] == name, p[:, i]) for i, name in enumerate(classes)]),
    }


def readable(Z, value, seed=0):
    """Share of the variance of a number that a linear regression reads off a representation, on unseen cells.

    Args:
        Z: cells x features.
        value: a number a cell, such as the logarithm of its molecules.
        seed: draws the half of the cells that is fitted.

    Returns:
        R squared on the other half: 1 at best, 0 or below when nothing can be read.
    """
    order = np.random.default_rng(seed).permutation(len(Z))
    fitted, unseen = order[: len(Z) // 2], order[len(Z) // 2 :]
    Z = np.hstack([as_features(Z), np.ones((len(Z), 1))])
    penalty = np.diag([1.0] * (Z.shape[1] - 1) + [0.0])
    w = np.linalg.solve(Z[fitted].T @ Z[fitted] + penalty, Z[fitted].T @ value[fitted])
    return 1 - ((value[unseen] - Z[unseen] @ w) ** 2).sum() / ((value[unseen] - value[unseen].mean()) ** 2).sum()


def effective_rank(Z):
    """How many directions a representation uses: exp of the entropy of its singular values' shares, after centring.

    Args:
        Z: cells x features, not constant.

    Returns:
        Between 1 and the number of features. Source: Roy and Vetterli (2007).
    """
    s = np.linalg.svd(Z - np.mean(Z, axis=0), compute_uv=False)
    p = s / s.sum()
    return float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()))


def unit_rows(Z):
    """Every row (cells x features) divided by its length."""
    return Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), 1e-12)


def alignment(a, b):
    """Mean squared distance of two views (cells x features) on the unit sphere; 0 is best. Source: Wang and Isola (2020)."""
    return float(((unit_rows(a) - unit_rows(b)) ** 2).sum(1).mean())


def uniformity(Z, t=2.0):
    """Log of the mean of exp(-t d^2) over pairs of cells on the unit sphere; 0 when all are one point, lower when spread."""
    h = unit_rows(np.asarray(Z, dtype=float))
    d2 = np.clip(2 - 2 * h @ h.T, 0, None)[np.triu_indices(len(h), 1)]
    return float(np.log(np.exp(-t * d2).mean()))
