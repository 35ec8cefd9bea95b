# Exported by `scprimer export` from notebooks/tasks/novel-states.ipynb. Edit the notebook, not this file.
"""What the chapter "Cells that nobody has named" builds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import scipy.sparse as sp
import torch
from scipy import optimize
from scipy import special
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from torch import nn

from scprimer import train
from scprimer.methods.differential import adjusted
from scprimer.methods.differential import expression
from scprimer.methods.differential import wilcoxon
from scprimer.methods.supervised import LogCP10K
from scprimer.methods.supervised import Scale
from scprimer.methods.supervised import VariableGenes
from scprimer.methods.supervised import features
from scprimer.methods.supervised import probabilities
from scprimer.methods.unsupervised import fuzzy_graph
from scprimer.methods.unsupervised import leiden

__all__ = [
    "Reference",
    "TopicModel",
    "candidates",
    "checked_labels",
    "distances",
    "enrich",
    "fit_topics",
    "groups",
    "grow",
    "hold_out",
    "hypergeometric_tail",
    "markers",
    "mixing",
    "nmf",
    "project",
    "recovered",
    "sccaf",
    "self_projection",
    "temperature",
    "topic_loss",
    "type_scores",
    "without_lonely",
]


def checked_labels(labels, n, least=4):
    """Labels as text; ValueError unless there is one a cell and two types or more have ``least`` cells."""
    labels = np.asarray(labels, dtype=object)
    if len(labels) != n or any(x is None or x != x or x == "" for x in labels):
        raise ValueError(f"{len(labels)} labels for {n} cells, none may be missing: leave unnamed cells out")
    names, size = np.unique(labels.astype(str), return_counts=True)
    if (size >= least).sum() < 2:
        raise ValueError(f"{(size >= least).sum()} types have {least} cells or more: a reference needs two, "
                         "or its classifier has nothing to choose from")  # fmt: skip
    return labels.astype(str), names[size >= least]


def distances(Z, others, k, own=False):
    """Mean distance of each row of ``Z`` to its ``k`` nearest rows of ``others``; ``own``: Z is others, oneself left out."""
    k = min(k, len(others) - 1)
    d = np.sort(NearestNeighbors(n_neighbors=k + 1).fit(others).kneighbors(Z)[0], axis=1)
    return (d[:, 1:] if own else d[:, :-1]).mean(1)


def type_scores(classifier, Z):
    """cells x components -> cells x types; two types get two columns as well."""
    s = classifier.decision_function(Z)
    return np.column_stack([-s, s]) / 2 if s.ndim == 1 else s


def temperature(scores, code):
    """The temperature with the highest likelihood.

    Args:
        scores: held-out cells x types.
        code: the number of each cell's type.

    Source: Guo et al. (2017).
    """
    loss = lambda t: -special.log_softmax(scores / np.exp(t), axis=1)[np.arange(len(code)), code].mean()  # noqa: E731
    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def hold_out(counts, labels, query, seed=0):
    """Labels as text, rows to learn from and rows held out (a quarter, type by type) of a reference; see :class:`Reference`."""
    labels, kept = checked_labels(labels, counts.shape[0])
    if counts.shape[1] != query.shape[1] or query.shape[0] < 10:
        raise ValueError(f"query of {query.shape[0]} cells x {query.shape[1]} genes, reference with {counts.shape[1]} genes: give "
                         "ten cells or more and the same genes in the same order")  # fmt: skip
    rows = np.flatnonzero(np.isin(labels, kept))
    share = max(0.25, len(kept) / len(rows))
    return labels, *train_test_split(rows, test_size=share, random_state=seed, stratify=labels[rows])


class Reference:
    """Named cells that say of other cells what they are, how sure that is, and how far they lie from anything known.

    Args:
        n_genes, n_components: of the space.
        k: nearest cells that a distance averages over.
        flagged: share of cells of known types that may be flagged, half by confidence, half by distance.
        joint: learn genes and components from reference and query together (without labels), not from the reference alone.
        seed: of the split.

    Thresholds are quantiles of held-out reference cells.
    """

    def __init__(self, n_genes=1000, n_components=30, *, k=4, flagged=0.05, joint=True, seed=0):
        if not 0 < flagged < 1:
            raise ValueError(f"flagged={flagged}: a share between 0 and 1 of the known cells may be flagged")
        self.n_genes, self.n_components, self.k = n_genes, n_components, k
        self.flagged, self.joint, self.seed = flagged, joint, seed

    def fit(self, counts, labels, query):
        """Learn from reference counts (cells x genes), a label a cell, and the counts of the query (cells x the same genes).

        Types with fewer than four cells are left out: they cannot be held out. Sets ``space_``, ``Z_`` and ``query_`` (components),
        ``classifier_``, ``temperature_``, ``least_confidence_``, ``most_distance_``, and ``found_``: a row a query cell with
        ``type``, ``confidence``, ``distance``, ``low``, ``far``, ``flag``.

        Raises:
            ValueError: other genes, missing labels, fewer than two types with four cells, or a query of fewer than ten cells.
        """
        counts, query = sp.csr_matrix(counts), sp.csr_matrix(query)
        labels, self.learn_, held = hold_out(counts, labels, query, self.seed)
        seen = sp.vstack([counts, query]).tocsr() if self.joint else counts[self.learn_]
        self.space_ = features(self.n_genes, self.n_components, self.seed).fit(seen)
        self.Z_, self.query_ = self.space_.transform(counts), self.space_.transform(query)
        self.classifier_ = LogisticRegression(C=0.01, max_iter=2000).fit(self.Z_[self.learn_], labels[self.learn_])
        code = np.searchsorted(self.classifier_.classes_, labels[held])
        self.temperature_ = temperature(type_scores(self.classifier_, self.Z_[held]), code)
        known, self.found_ = self.look(self.Z_[held]), self.look(self.query_, own=True)
        self.least_confidence_ = float(known["confidence"].quantile(self.flagged / 2))
        self.most_distance_ = float(known["distance"].quantile(1 - self.flagged / 2))
        low, far = self.found_["confidence"] < self.least_confidence_, self.found_["distance"] > self.most_distance_
        self.found_ = self.found_.assign(low=low, far=far, flag=low | far)
        return self

    def look(self, Z, own=False):
        """Type, confidence and distance ratio of cells given as components; ``own``: these are the query cells."""
        p = probabilities(type_scores(self.classifier_, Z) / self.temperature_)
        ratio = distances(Z, self.Z_[self.learn_], self.k) / distances(Z, self.query_, self.k, own)
        return pd.DataFrame({"type": self.classifier_.classes_[p.argmax(1)], "confidence": p.max(1), "distance": ratio})


def groups(Z, flag, *, least=5, k=10, resolution=1.0, seed=0):
    """Leiden clusters of the flagged cells.

    Args:
        Z: cells x components.
        flag: bool, a value a cell.
        least: smaller clusters are given up.

    Returns:
        Integers, one a cell: the cluster from 0, or -1 for cells that are not flagged or in too small a cluster. All are -1
        when fewer than ``least`` cells are flagged: nothing stands out, which is an answer and no error.
    """
    flag = np.asarray(flag, dtype=bool)
    if len(flag) != len(Z):
        raise ValueError(f"{len(flag)} flags for {len(Z)} cells: give one a cell")
    group, n = np.full(len(flag), -1), int(flag.sum())
    if n < max(least, 2):
        return group
    found = leiden(fuzzy_graph(Z[flag], min(k, n - 1)), resolution, seed) if n > 4 else np.zeros(n, dtype=int)
    group[flag] = np.where(np.bincount(found)[found] >= least, found, -1)
    return group


def mixing(Z, old, inside, k=10):
    """Reference cells among the neighbours of a group, against their share among all cells.

    Args:
        Z: cells x components, reference and query together.
        old: bool, is the cell of the reference.
        inside: bool, is the cell of the group; two cells or more.

    Returns:
        ``(ratio, p)``: 1 when mixed, 0 when apart; and the probability of so few if neighbours were drawn from all cells.
    """
    k = min(k, int(np.sum(inside)) - 1)
    if k < 1 or not 0 < np.mean(old) < 1:
        raise ValueError("mixing needs a group of two cells or more, and cells of both reference and query")
    near = NearestNeighbors(n_neighbors=k + 1).fit(Z).kneighbors(Z[inside], return_distance=False)[:, 1:]
    few = stats.binom.cdf(int(old[near].sum()), near.size, old.mean())
    return float(old[near].mean() / old.mean()), float(few)


def grow(Z, inside, may, k=10, rounds=10):
    """Let in cells that ``may`` join and most of whose ``k`` nearest neighbours are inside, until none is left."""
    k = max(1, min(k, int(np.sum(inside))))
    near = NearestNeighbors(n_neighbors=k + 1).fit(Z).kneighbors(Z, return_distance=False)[:, 1:]
    inside = np.asarray(inside, dtype=bool).copy()
    for _ in range(rounds):
        more = inside | (may & (inside[near].mean(1) > 0.5))
        if (more == inside).all():
            break
        inside = more
    return inside


def candidates(reference, *, least=5, foreign=0.3, seed=0):
    """The groups of flagged query cells, and which of them the reference lacks.

    Args:
        reference: a fitted :class:`Reference`.
        least: smallest group.
        foreign: largest :func:`mixing` of an accepted group. Its p-value must be below 0.01 over the number of groups, too:
            where the reference is small, a small group lacks reference cells by chance.

    Returns:
        ``(cells, table)``: a row a query cell with ``group`` and ``new``; a row a group with ``cells``, ``mixing``, ``p``, ``accepted``.
    """
    Z = np.vstack([reference.Z_, reference.query_])
    n, old = len(reference.Z_), np.arange(len(Z)) < len(reference.Z_)
    cells, rows = reference.found_.copy(), []
    cells["group"] = groups(reference.query_, cells["flag"], least=least, seed=seed)
    cells["new"] = False
    there = np.setdiff1d(cells["group"], [-1])
    for g in there:
        inside = np.r_[np.zeros(n, dtype=bool), (cells["group"] == g).to_numpy()]
        m, p = mixing(Z, old, inside)
        lacks = m <= foreign and p < 0.01 / len(there)
        rows.append({"group": g, "cells": int(inside.sum()), "mixing": m, "p": p, "accepted": lacks})
        if lacks:
            cells["new"] |= grow(Z, inside, ~old)[n:]
    return cells, pd.DataFrame(rows, columns=["group", "cells", "mixing", "p", "accepted"])


def markers(counts, inside, types, Z, *, neighbours=2, level=0.05, auc=0.7):
    """Genes that are higher in a group than in each of its nearest types.

    Args:
        counts: raw counts of the query, cells x genes.
        inside: bool, the group; two cells or more.
        types: the known type that each cell was given.
        Z: cells x components; types whose centres are nearest are the neighbours.

    Returns:
        DataFrame, a row a gene of ``counts`` that is found in five cells or more: ``gene`` (column number), ``auc`` and ``p`` (adjusted),
        the worst over the neighbours, and ``marker``; best first. ``.attrs["neighbours"]`` names them.

    Raises:
        ValueError: a group of fewer than two cells, or no type with two cells outside of it.
    """
    inside, types, X = np.asarray(inside, dtype=bool), np.asarray(types, dtype=str), sp.csr_matrix(counts)
    size = pd.Series(types[~inside]).value_counts()
    if inside.sum() < 2 or not (size >= 2).any():
        words = f"{inside.sum()} cells inside and {len(size)} types outside"
        raise ValueError(f"{words}: a comparison needs two cells on either side")
    centre = {t: Z[~inside & (types == t)].mean(0) for t in size.index[size >= 2]}
    near = sorted(centre, key=lambda t: np.linalg.norm(Z[inside].mean(0) - centre[t]))[:neighbours]
    genes = np.flatnonzero(X.getnnz(axis=0) >= 5)
    table = pd.DataFrame({"gene": genes, "auc": 1.0, "p": 0.0})
    for t in near:
        rows = np.flatnonzero(inside | (types == t))
        test = wilcoxon(expression(X[rows])[:, genes], inside[rows].astype(int))
        table["auc"] = np.minimum(table["auc"], test["auc"])
        table["p"] = np.maximum(table["p"], pd.Series(adjusted(test["p"])).fillna(1))
    table["marker"] = (table["p"] < level) & (table["auc"] > auc)
    table.attrs["neighbours"] = near
    return table.sort_values(["marker", "auc"], ascending=False, ignore_index=True)


def hypergeometric_tail(k, n, M, N):
    """P(X >= k) for X hypergeometric: ``n`` drawn of ``N``, of which ``M`` are in the set. Whole numbers; k and M may be arrays."""
    k, M = np.broadcast_arrays(np.asarray(k, dtype=int), np.asarray(M, dtype=int))
    choose = lambda a, b: special.gammaln(a + 1) - special.gammaln(b + 1) - special.gammaln(a - b + 1)  # noqa: E731
    i = np.arange(n + 1)
    possible = (i >= k[..., None]) & (i <= M[..., None]) & (n - i <= N - M[..., None])  # ... x (n + 1)
    with np.errstate(all="ignore"):  # impossible terms are masked below
        log_p = choose(M[..., None], i) + choose(N - M[..., None], n - i) - choose(N, n)
    return np.exp(np.where(possible, log_p, -np.inf)).sum(-1).clip(0, 1)


def enrich(found, sets, background, least=3):
    """Test gene sets for more members in a list than chance gives.

    Args:
        found: names of the genes in the list.
        sets: name -> names of its genes.
        background: names of all genes that could have been in the list.
        least: sets with fewer measured genes are left out (``.attrs["left_out"]`` says how many).

    Returns:
        DataFrame, a row a set, best first: ``set``, ``overlap``, ``size`` (measured genes), ``p``, ``adjusted`` (Benjamini-Hochberg), ``genes``.

    Raises:
        ValueError: an empty list, names that are not in the background, or no set with measured genes.
    """
    found, background = set(map(str, found)), set(map(str, background))
    if not found:
        raise ValueError("the list of genes is empty: without markers there is nothing to look up")
    if unknown := sorted(found - background):
        raise ValueError(f"{len(unknown)} genes of the list are not in the background ({', '.join(unknown[:3])}): "
                         "the background holds every gene that was tested, under the same names")  # fmt: skip
    measured = {name: set(map(str, genes)) & background for name, genes in sets.items()}
    kept = {name: genes for name, genes in measured.items() if len(genes) >= least}
    if not kept:
        words = f"none of {len(sets)} gene sets has {least} measured genes"
        raise ValueError(f"{words}: are both named by symbols of one organism?")
    hits = {name: sorted(genes & found) for name, genes in kept.items()}
    table = pd.DataFrame({"set": list(kept), "overlap": [len(h) for h in hits.values()]})
    table["size"] = [len(g) for g in kept.values()]
    table["p"] = hypergeometric_tail(table["overlap"], len(found), table["size"], len(background))
    table["adjusted"], table["genes"] = adjusted(table["p"]), list(hits.values())
    table.attrs["left_out"] = len(sets) - len(kept)
    return table.sort_values("p", kind="stable", ignore_index=True)


def project(query, atlas, labels, inside, *, n_genes=1000, n_components=20, k=15):
    """Shares of an atlas's types among the nearest atlas cells of a group.

    Args:
        query, atlas: counts, cells x the same genes. Each is scaled by itself, so give all cells of the query.
        labels: a label an atlas cell.
        inside: bool, the group among the query's cells.

    Returns:
        DataFrame, a row a cell of the group, a column a type: votes that sum to 1.

    Raises:
        ValueError: different genes, or a group without cells.
    """
    query, atlas, inside = sp.csr_matrix(query), sp.csr_matrix(atlas), np.asarray(inside, dtype=bool)
    if query.shape[1] != atlas.shape[1] or not inside.any():
        words = f"{query.shape[1]} and {atlas.shape[1]} genes, {inside.sum()} cells"
        raise ValueError(f"{words}: give the same genes and a group with cells")
    logs = [LogCP10K().fit(X).transform(X) for X in (query, atlas)]
    chosen = VariableGenes(n_genes).fit(logs[1])
    query, atlas = (Scale().fit_transform(chosen.transform(X)) for X in logs)  # each by its own
    axes = np.linalg.svd(atlas, full_matrices=False)[2][:n_components].T  # genes x components
    near = NearestNeighbors(n_neighbors=min(k, len(atlas))).fit(atlas @ axes)
    votes = np.asarray(labels, dtype=str)[near.kneighbors(query[inside] @ axes, return_distance=False)]
    return pd.DataFrame({t: (votes == t).mean(1) for t in np.unique(labels)})


def self_projection(Z, clusters, seed=0):
    """Confusion matrix of clusters with themselves, rows sum to 1: half of each cluster trains, the other half is named.

    Args:
        Z: cells x features.
        clusters: whole numbers from 0, each with two cells or more.

    Raises:
        ValueError: one cluster only, or one with a single cell.

    Source: Miao et al. (2020).
    """
    clusters = np.asarray(clusters)
    names, code, size = np.unique(clusters, return_inverse=True, return_counts=True)
    if len(names) < 2 or size.min() < 2:
        words = f"{len(names)} clusters, the smallest of {size.min()}"
        raise ValueError(f"{words}: self-projection needs two, of two cells or more")
    order = np.random.default_rng(seed).permutation(len(code))
    turn = pd.Series(code[order]).groupby(code[order]).cumcount().to_numpy()
    learn, test = order[turn % 2 == 0], order[turn % 2 == 1]
    weight = {"class_weight": "balanced", "C": 0.1, "max_iter": 1000}
    named = LogisticRegression(**weight).fit(Z[learn], code[learn]).predict(Z[test])
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (code[test], named), 1)
    return table / table.sum(1, keepdims=True)


def without_lonely(Z, clusters):
    """Clusters as integers from 0; a cell alone in its cluster joins the cluster of its nearest cell."""
    found = np.unique(clusters, return_inverse=True)[1]
    lonely = np.bincount(found)[found] < 2
    if lonely.any() and not lonely.all():
        near = NearestNeighbors(n_neighbors=1).fit(Z[~lonely]).kneighbors(Z[lonely], return_distance=False)[:, 0]
        found[lonely] = found[~lonely][near]
    return np.unique(found, return_inverse=True)[1]


def sccaf(Z, clusters, *, least=0.95, judge=None, seed=0):
    """Merge the most confused clusters until the balanced accuracy of their self-projection is at least ``least``.

    Args:
        Z: cells x features.
        clusters: fine clusters to begin with, whole numbers from 0.
        least: balanced accuracy at which to stop.
        judge: features for the self-projection; default ``Z``. Give features of counts that the clustering did not see.

    Returns:
        ``(clusters, path)``: integers from 0; and a list of (number of clusters, balanced accuracy). One cluster is possible.
    """
    if not 0 < least <= 1:
        raise ValueError(f"least={least}: a balanced accuracy lies between 0 and 1")
    found, path, judge = without_lonely(Z, clusters), [], Z if judge is None else judge
    while found.max() > 0:
        table = self_projection(judge, found, seed)
        path.append((len(table), float(np.diag(table).mean())))
        if path[-1][1] >= least:
            return found, path
        confused = table + table.T - 2 * np.diag(np.diag(table))
        a, b = np.unravel_index(np.argmax(confused), confused.shape)
        found = np.unique(np.where(found == b, a, found), return_inverse=True)[1]
    return found, [*path, (1, 1.0)]


class TopicModel(nn.Module):
    """Latent Dirichlet allocation with an encoder.

    Args:
        shares: mean share of each gene, where the topics begin.
        K: number of topics.
        alpha: Dirichlet prior of a cell's mixture; small values ask for few topics a cell.

    Source: Blei et al. (2003); amortised inference as in autoencoders.
    """

    def __init__(self, shares, K=10, *, alpha=0.1, hidden=64):
        super().__init__()
        self.K, self.alpha = K, alpha
        self.encoder = nn.Sequential(nn.Linear(len(shares), hidden), nn.Softplus(), nn.Linear(hidden, K))
        self.logits = nn.Parameter(torch.log(torch.as_tensor(shares)).float() + 0.5 * torch.randn(K, len(shares)))

    def topics(self):
        """topics x genes, rows sum to 1."""
        return torch.softmax(self.logits, -1)

    def concentration(self, x):
        """cells x genes -> cells x topics, above 0."""
        return 10 * nn.functional.softplus(self.encoder(torch.log1p(x))) + 0.02

    def model(self, x):
        """Mixture, then molecules."""
        with pyro.plate("cells", len(x)):
            prior = dist.Dirichlet(torch.full((self.K,), self.alpha, device=x.device))
            theta = pyro.sample("theta", prior)  # cells x topics
            pyro.factor("molecules", (x * torch.log(theta @ self.topics() + 1e-12)).sum(-1))

    def guide(self, x):
        """What the encoder makes of the cells."""
        with pyro.plate("cells", len(x)):
            pyro.sample("theta", dist.Dirichlet(self.concentration(x)))


def topic_loss(model, x, epoch):
    """Minus the ELBO a cell, in nats, up to a constant."""
    elbo = pyro.infer.TraceMeanField_ELBO(max_plate_nesting=1)
    return elbo.differentiable_loss(model.model, model.guide, x) / len(x)


def fit_topics(counts, K=10, *, epochs=40, alpha=0.1, seed=0, device="auto", label=""):
    """Fit a topic model.

    Args:
        counts: cells x genes, raw counts; each cell with a molecule.
        K: topics, two or more.

    Returns:
        ``(theta, topics)``: cells x K and K x genes, rows sum to 1.

    Raises:
        ValueError: fewer than two topics or cells, negative counts, or cells without molecules.
    """
    X = sp.csr_matrix(counts, dtype=np.float32)
    if K < 2 or X.shape[0] < 2 or (X.data < 0).any() or (np.asarray(X.sum(1)) <= 0).any():
        raise ValueError("a topic model needs two topics, two cells, and counts with a molecule in each cell")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TopicModel(np.asarray(X.sum(0)).ravel() / X.sum() + 1e-6, K, alpha=alpha)
    how = {"batch_size": min(64, X.shape[0]), "optimiser": lambda p: torch.optim.Adam(p, lr=0.01), "seed": seed}
    train.fit(model, X, topic_loss, epochs=epochs, device=device, amp=False, label=label, **how)
    theta = train.predict(model.concentration, X, device=device)
    return theta / theta.sum(1, keepdims=True), model.topics().detach().cpu().numpy()


def nmf(X, W, H, rounds=200):
    """Non-negative matrix factorisation by multiplicative updates of the squared error.

    Args:
        X: cells x genes, not negative.
        W, H: where to start, cells x K and K x genes, above 0.

    Returns:
        ``(W, H)``.

    Raises:
        ValueError: negative or missing values.

    Source: Lee and Seung (1999, 2001).
    """
    X = X.toarray() if sp.issparse(X) else np.asarray(X, dtype=float)
    if not np.isfinite(X).all() or min(X.min(), W.min(), H.min()) < 0:
        raise ValueError("NMF needs finite values of at least 0: give log expression, not centred or scaled to mean 0")
    tiny = np.finfo(np.float32).eps
    for _ in range(rounds):
        W = W * (X @ H.T) / np.maximum(W @ (H @ H.T), tiny)
        H = H * (W.T @ X) / np.maximum((W.T @ W) @ H, tiny)
    return W, H


def recovered(weights, planted):
    """Share of each planted programme's genes among the strongest of its component, after the best matching; mean.

    Args:
        weights: components x genes, larger is stronger.
        planted: list of arrays of gene numbers.
    """
    top = [[set(np.argsort(-row, kind="stable")[: len(p)]) for p in planted] for row in weights]
    share = np.array([[len(own & set(p)) / len(p) for own, p in zip(row, planted)] for row in top])
    rows, columns = optimize.linear_sum_assignment(-share)
    return float(share[rows, columns].sum() / len(planted))
