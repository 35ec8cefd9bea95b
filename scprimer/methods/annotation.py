# Exported by `scprimer export` from notebooks/tasks/annotation.ipynb. Edit the notebook, not this file.
"""What the chapter "Naming cells from a reference" builds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import scipy.sparse as sp
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from scipy.special import expit
from scipy.special import logsumexp
from scipy.stats import norm
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.extmath import randomized_svd
from torch import nn

from scprimer.methods.normalisation import log_cp10k
from scprimer.methods.scvi import CountVAE
from scprimer.methods.scvi import count_data
from scprimer.methods.scvi import log_likelihood
from scprimer.methods.scvi import over_cells
from scprimer.methods.scvi import train_count_vae
from scprimer.methods.supervised import Components
from scprimer.methods.supervised import MostProbable
from scprimer.methods.supervised import Scale
from scprimer.methods.supervised import VariableGenes
from scprimer.methods.supervised import checked_counts
from scprimer.methods.supervised import shared_genes
from scprimer.methods.unsupervised import rank_sum
from scprimer.train import fit

__all__ = [
    "Annotator",
    "CONFIDENCE",
    "CellTypist",
    "Cells",
    "Gaussian",
    "LabelledNetworks",
    "LabelledVAE",
    "SCINA",
    "ScANVI",
    "ScArches",
    "ScPred",
    "SeuratCCA",
    "SingleCellNet",
    "SingleR",
    "TRANSFERRED",
    "UNKNOWN",
    "add_batch",
    "add_transferred",
    "anchor_scores",
    "anchor_votes",
    "calibration_error",
    "canonical",
    "fine_tuned",
    "learnable",
    "levels",
    "mutual_neighbours",
    "on_shared_genes",
    "only_last",
    "platt_svm",
    "quantile_scores",
    "ranked",
    "reliability",
    "scanvi_loss",
    "scina_em",
    "separating",
    "signature_table",
    "signatures",
    "top_pairs",
    "train_labelled",
    "transfer_labels",
    "type_probabilities",
    "unit",
]


@dataclass
class Cells:
    """Cells as the annotators see them.

    Attributes:
        counts: csr, cells x chosen genes.
        depth: molecules of each cell over all shared genes.
        genes: names of the chosen genes.
    """

    counts: sp.csr_matrix
    depth: np.ndarray
    genes: np.ndarray

    def __len__(self):
        return self.counts.shape[0]

    def __getitem__(self, rows):
        return Cells(self.counts[rows], self.depth[rows], self.genes)

    @cached_property
    def log(self):
        """log(1 + counts per ten thousand), dense, cells x genes; a cell without molecules has zeros."""
        return np.log1p(self.counts.toarray() * (1e4 / np.maximum(self.depth, 1))[:, None])


def on_shared_genes(reference, query, n_genes=1000, least=50):
    """Reference and query on the genes that both have measured.

    Args:
        reference, query: AnnData with raw counts in ``X`` and gene names.
        n_genes: how many of the shared genes to keep: those that vary most among the reference cells.
        least: fewer shared genes than these are an error.

    Returns:
        ``(reference, query)`` as :class:`Cells`. Genes that one side lacks are in neither: nothing is filled with zeros.

    Raises:
        ValueError: too few genes in common (the message shows names of both sides), or counts that are none.
    """
    pair = shared_genes(reference, query, least=least)
    counts = [checked_counts(a.X) for a in pair]
    depth = [np.asarray(X.sum(1)).ravel() for X in counts]
    if not (depth[0] > 0).any():
        raise ValueError("no reference cell has a molecule of a shared gene: check that both hold raw counts")
    chosen = VariableGenes(n_genes).fit(log_cp10k(counts[0][depth[0] > 0])).genes_
    names = np.asarray(pair[0].var_names, dtype=str)[chosen]
    return tuple(Cells(X[:, chosen].tocsr(), d, names) for X, d in zip(counts, depth))


def learnable(labels, least=3):
    """Which reference cells a type can be learnt from.

    Args:
        labels: one label a cell; empty or missing where there is none.
        least: cells that a type needs. No method can estimate a spread from one cell, so smaller types are left out: cells of
            such a type can be flagged in a query, not named.

    Returns:
        ``(keep, dropped)``: bool a cell, and the names of the types that were left out.

    Raises:
        ValueError: fewer than two types have enough cells.
    """
    of = pd.Series(np.asarray(labels, dtype=object))
    of = of.where(of.notna(), "").astype(str).to_numpy()
    names, sizes = np.unique(of[of != ""], return_counts=True)
    good = names[sizes >= least]
    if len(good) < 2:
        raise ValueError(f"{len(good)} types have {least} or more labelled cells, and a choice needs two: "
                         "give a reference with more types, or more cells of each")  # fmt: skip
    return np.isin(of, good), sorted(set(names) - set(good))


class Annotator(MostProbable):
    """What the methods of this chapter share.

    ``probabilistic`` says whether the confidence claims to be a probability; an answer below ``threshold`` is rejected by default.
    """

    probabilistic, threshold = True, 0.5

    def answer(self, query):
        """``(labels, confidence)`` of query :class:`Cells`: the best type of each, and its number between 0 and 1.

        All the numbers, cells x types, stay in ``probability_`` until the next question.
        """
        p = self.probability_ = self.predict_proba(query)
        return self.classes_[p.argmax(1)], p.max(1)

    def _types(self, labels):
        """Remember the types in order; return the code of each cell."""
        self.classes_, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"all reference cells are of the type {', '.join(self.classes_)}: nothing can be told apart"
            )
        return code


def signatures(cells, labels, n=15):
    """Marker genes read off a labelled reference.

    Args:
        cells: :class:`Cells`.
        labels: one a cell.
        n: genes a type at most.

    Returns:
        type -> names of genes, best first: those whose mean log value is furthest above the runner-up type's. No gene twice.
    """
    types, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    mean = np.stack([cells.log[code == k].mean(0) for k in range(len(types))])  # types x genes
    top = np.sort(mean, axis=0)
    gap = np.where(mean == top[-1], top[-1] - top[-2], 0)
    best = {t: np.argsort(-gap[k], kind="stable")[:n] for k, t in enumerate(types)}
    return {t: [str(cells.genes[j]) for j in rows if gap[k, j] > 0] for k, (t, rows) in enumerate(best.items())}


def signature_table(signatures, query):
    """What the mixture needs to know.

    Args:
        signatures: type -> gene names.
        query: :class:`Cells`.

    Returns:
        ``(x, high)``: log values of the signature genes that the query has, cells x genes; and 1 where a gene is in a type's
        signature, types (sorted) x genes.

    Raises:
        ValueError: the query has no signature gene.
    """
    there = set(query.genes.tolist())
    wanted = sorted({g for genes in signatures.values() for g in genes} & there)
    if not wanted:
        raise ValueError("no signature gene is among the query's genes: do both use the same kind of gene name?")
    column = {g: i for i, g in enumerate(query.genes.tolist())}
    high = np.array([[g in signatures[t] for g in wanted] for t in sorted(signatures)], dtype=float)
    return query.log[:, [column[g] for g in wanted]], high


def scina_em(x, high, steps=100):
    """EM for the mixture: each gene is N(upper, variance) in the types whose signature it is in, N(lower, variance) elsewhere.

    Args:
        x: cells x signature genes.
        high: types x genes, 1 where a gene is in the signature of a type.
        steps: at most.

    Returns:
        ``(trace, p)``: mean log-likelihood after each step, never falling; probabilities, cells x (types, and none of them).
    """
    score = ((x - x.mean(0)) / (x.std(0) + 1e-9)) @ high.T / np.maximum(high.sum(1), 1)  # the start: the best mean z
    p = np.eye(len(high) + 1)[score.argmax(1)]  # cells x (types + 1)
    high = np.vstack([high, np.zeros(x.shape[1])])  # the last type has no signature
    upper, lower, trace = x.mean(0) + 0.5, x.mean(0) / 2, []
    for _ in range(steps):
        upper, lower, variance = levels(x, p @ high, upper, lower)
        share = np.maximum(p.mean(0), 1e-3) / np.maximum(p.mean(0), 1e-3).sum()
        up, low = (-0.5 * ((x - m) ** 2 / variance + np.log(2 * np.pi * variance)) for m in (upper, lower))
        joint = low.sum(1)[:, None] + (up - low) @ high.T + np.log(share)
        total = logsumexp(joint, axis=1)
        p = np.exp(joint - total[:, None])
        trace.append(float(total.mean()))
        if len(trace) > 1 and abs(trace[-1] - trace[-2]) < 1e-5:
            break
    return trace, p


def levels(x, is_up, upper, lower, least=0.05):
    """M step: where high and low lie for each gene, and the variance around them (at least ``least``).

    A gene that would come out lower in its own type keeps its former levels: a signature must mean *more*.
    """
    n_up, n_low = is_up.sum(0) + 1e-9, (1 - is_up).sum(0) + 1e-9
    new_upper, new_lower = (is_up * x).sum(0) / n_up, ((1 - is_up) * x).sum(0) / n_low
    keep = (new_upper <= new_lower) | (n_up < 1e-3)
    upper, lower = np.where(keep, upper, new_upper), np.where(keep, lower, new_lower)
    spread = (is_up * (x - upper) ** 2 + (1 - is_up) * (x - lower) ** 2).mean(0)
    return upper, lower, np.maximum(spread, least)


class SCINA(Annotator):
    """A mixture of normal distributions on signature genes, fitted to the query by EM.

    Args:
        signatures: type -> gene names; None reads them off the reference cells.
        n: genes of a signature that is read off.
        steps: EM steps at most.

    Source: Zhang et al. (2019), with one variance for each gene and no correlations.
    """

    def __init__(self, signatures=None, n=5, steps=100):
        self.signatures, self.n, self.steps = signatures, n, steps

    def fit(self, reference, labels=None):
        """Settle the signatures; ``labels`` are needed only where they are to be read off."""
        if self.signatures is None:
            self._types(labels)
        self.signatures_ = self.signatures or signatures(reference, labels, self.n)
        self.classes_ = np.array(sorted(self.signatures_))
        return self

    def predict_proba(self, query):
        """cells x types; what is missing to 1 is the probability of none. ValueError: no signature gene in the query."""
        self.trace_, p = scina_em(*signature_table(self.signatures_, query), self.steps)
        return p[:, :-1]


def ranked(x):
    """Ranks within each row, centred, of length 1: the product of two such rows is Spearman's correlation."""
    r = rankdata(x, axis=1)
    r -= r.mean(1, keepdims=True)
    return r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), 1e-12)


def separating(mean, among, n):
    """Positions of genes that separate types: for each ordered pair of ``among`` the ``n`` with the largest difference of means."""
    found = {int(j) for a in among for b in among if a != b for j in np.argsort(mean[b] - mean[a], kind="stable")[:n]}
    return np.array(sorted(found))


def quantile_scores(x, cells, code, among, quantile=0.8):
    """SingleR's score: the quantile of the correlations with the reference cells of each type.

    Args:
        x: query cells x genes.
        cells, code: reference cells x genes, and the type of each.
        among: codes of the types that compete.

    Returns:
        cells x len(among).
    """
    r = ranked(x) @ ranked(cells).T  # query cells x reference cells
    return np.stack([np.quantile(r[:, code == t], quantile, axis=1) for t in among], axis=1)


def fine_tuned(model, x):
    """SingleR's rounds: score all types, keep those near the best, score these again on their own genes, until one is left.

    Args:
        model: a fitted :class:`SingleR`.
        x: query cells x genes, log values.
    """

    def compete(x, among):
        genes, there = separating(model.mean_, among, model.n_), np.isin(model.code_, among)
        return quantile_scores(x[:, genes], model.cells_[there][:, genes], model.code_[there], among, model.quantile)

    first = compete(x, np.arange(len(model.classes_)))
    margin = np.clip(first.max(1) - np.median(first, axis=1), 0, 1)
    alive = first >= first.max(1, keepdims=True) - model.near  # cells x types
    winner = first.argmax(1)
    for _ in range(len(model.classes_)):
        sets, which = np.unique(alive, axis=0, return_inverse=True)
        for s in np.flatnonzero(sets.sum(1) > 1):
            rows, among = np.flatnonzero(which.ravel() == s), np.flatnonzero(sets[s])
            again = compete(x[rows], among)
            winner[rows] = among[again.argmax(1)]
            near = again >= again.max(1, keepdims=True) - model.near
            near[near.all(1)] = False  # nobody dropped out: the best has won
            alive[np.ix_(rows, among)] = near
    return model.classes_[winner], margin


class SingleR(Annotator):
    """Spearman correlation with labelled cells, with fine-tuning. Its confidence is a margin, not a probability.

    Args:
        n: genes for each ordered pair of types; None: 250 (2/3)^log2(types), half of SingleR's default.
        per_type: reference cells of each type at most, drawn at random.
        quantile: of the correlations with the cells of a type.
        near: types within this distance of the best score meet again.
        seed: of the draw.

    Source: Aran et al. (2019); with differences of means in place of medians, which are zero in most genes of single cells.
    """

    probabilistic, threshold = False, 0.05

    def __init__(self, n=None, per_type=60, quantile=0.8, near=0.05, seed=0):
        self.n, self.per_type, self.quantile, self.near, self.seed = n, per_type, quantile, near, seed

    def fit(self, reference, labels):
        """Keep some cells of each type, and the mean of each type."""
        code, rng = self._types(labels), np.random.default_rng(self.seed)
        k = len(self.classes_)
        rows = [rng.permutation(np.flatnonzero(code == t))[: self.per_type] for t in range(k)]
        self.cells_, self.code_ = reference.log[np.concatenate(rows)], np.repeat(np.arange(k), [len(r) for r in rows])
        self.mean_ = np.stack([reference.log[code == t].mean(0) for t in range(k)])
        self.n_ = self.n or max(5, round(250 * (2 / 3) ** np.log2(k)))
        return self

    def answer(self, query):
        """``(labels, confidence)``: the type left after fine-tuning; how far the best first score is above the median type's."""
        return fine_tuned(self, query.log)


def platt_svm(Z, inside, seed=0):
    """``(machine, curve)``: an SVM for cells ``inside`` a type, and a logistic curve on held-out distances."""
    folds = StratifiedKFold(min(5, int(inside.sum())), shuffle=True, random_state=seed)
    held = cross_val_predict(SVC(), Z, inside, cv=folds, method="decision_function")
    return SVC().fit(Z, inside), LogisticRegression(C=1e3).fit(held[:, None], inside)


class ScPred(Annotator):
    """Informative principal components, one SVM a type against the rest, Platt's probabilities.

    Args:
        n_components: components to begin with.
        level: a component stays when a type differs on it with a p-value below this, all tests counted (Bonferroni).
        seed: of the folds.

    Source: Alquicira-Hernandez et al. (2019).
    """

    def __init__(self, n_components=30, level=0.05, seed=0):
        self.n_components, self.level, self.seed = n_components, level, seed

    def fit(self, reference, labels):
        """Fit components, machines and curves on reference cells; each type needs two cells or more."""
        code = self._types(labels)
        self.space_ = make_pipeline(Scale(), Components(self.n_components, self.seed))
        Z = self.space_.fit_transform(reference.log)
        z = np.array(
            [[rank_sum(column, code == k) for column in Z.T] for k in range(len(self.classes_))]
        )  # types x components
        good = np.flatnonzero(np.abs(z).max(0) > norm.isf(self.level / 2 / z.size))
        self.kept_ = good if len(good) > 1 else np.arange(Z.shape[1])
        self.machines_ = [platt_svm(Z[:, self.kept_], code == k, self.seed) for k in range(len(self.classes_))]
        return self

    def predict_proba(self, query):
        """cells x types; each column is a probability against the rest, and rows need not sum to 1."""
        Z = self.space_.transform(query.log)[:, self.kept_]
        return np.stack([c.predict_proba(m.decision_function(Z)[:, None])[:, 1] for m, c in self.machines_], axis=1)


def top_pairs(x, code, n_genes=12, n_pairs=20):
    """Gene pairs whose order tells a type from the rest.

    Args:
        x: cells x genes.
        code: type of each cell, 0 .. K - 1.
        n_genes: genes that are highest in a type for the rest, and as many that are lowest, to pair.
        n_pairs: pairs a type.

    Returns:
        pairs x 2, positions of genes (A, B), no pair twice.
    """
    found = {}
    for k in range(code.max() + 1):
        inside = code == k
        gap = x[inside].mean(0) - x[~inside].mean(0)
        order = np.argsort(gap, kind="stable")
        a, b = (g.ravel() for g in np.meshgrid(order[-n_genes:], order[:n_genes]))
        a, b = a[a != b], b[a != b]
        above = x[:, a] > x[:, b]
        score = np.abs(above[inside].mean(0) - above[~inside].mean(0))
        found |= {(int(a[j]), int(b[j])): None for j in np.argsort(-score, kind="stable")[:n_pairs]}
    return np.array(list(found))


class SingleCellNet(Annotator):
    """Random forest on the order of gene pairs, with a class of shuffled cells.

    Args:
        n_genes, n_pairs: as for :func:`top_pairs`.
        trees: of the forest.
        n_random: shuffled cells to learn "none of them" from.
        seed: of the forest and the shuffling.

    Source: Tan and Cahan (2019).
    """

    def __init__(self, n_genes=12, n_pairs=20, trees=200, n_random=70, seed=0):
        self.n_genes, self.n_pairs, self.trees, self.n_random, self.seed = n_genes, n_pairs, trees, n_random, seed

    def fit(self, reference, labels):
        """Choose the pairs and grow the forest on reference cells."""
        code, rng = self._types(labels), np.random.default_rng(self.seed)
        x = reference.log
        self.pairs_ = top_pairs(x, code, self.n_genes, self.n_pairs)
        noise = rng.permuted(x[rng.integers(len(x), size=self.n_random)], axis=1)
        asked = np.concatenate([self._ask(x), self._ask(noise)])
        forest = RandomForestClassifier(self.trees, class_weight="balanced", random_state=self.seed)
        self.forest_ = forest.fit(asked, np.concatenate([code, np.full(len(noise), len(self.classes_))]))
        return self

    def _ask(self, x):
        return x[:, self.pairs_[:, 0]] > x[:, self.pairs_[:, 1]]

    def predict_proba(self, query):
        """cells x types: shares of the votes; what is missing to 1 went to the shuffled cells."""
        return self.forest_.predict_proba(self._ask(query.log))[:, : len(self.classes_)]


class CellTypist(Annotator):
    """Logistic regression on scaled log values, each type against the rest.

    Args:
        C: inverse strength of the penalty.
        steps: of the optimiser.

    Source: Dominguez Conde et al. (2022); the package's defaults.
    """

    def __init__(self, C=1.0, steps=200):
        self.C, self.steps = C, steps

    def fit(self, reference, labels):
        """Fit one regression a type on reference cells."""
        code, x = self._types(labels), reference.log
        self.mean_, sd = x.mean(0), x.std(0)
        self.sd_ = np.where(sd > 0, sd, 1.0)
        z = np.minimum((x - self.mean_) / self.sd_, 10)  # the package cuts off above, not below
        fits = [LogisticRegression(C=self.C, max_iter=self.steps).fit(z, code == k) for k in range(len(self.classes_))]
        self.weight_, self.bias_ = np.concatenate([f.coef_ for f in fits]), np.concatenate([f.intercept_ for f in fits])
        return self

    def predict_proba(self, query):
        """cells x types, each column against the rest."""
        z = np.minimum((query.log - self.mean_) / self.sd_, 10)
        return expit(z @ self.weight_.T + self.bias_)


def canonical(x, y, n=20, seed=0):
    """Canonical vectors of two data sets on the same genes.

    Args:
        x, y: cells x genes of each; genes are scaled here, within each set.
        n: vectors.
        seed: of the randomised decomposition.

    Returns:
        ``(u, v, s)``: cells x n of each set, and the singular values of ``x @ y.T``.
    """
    x, y = (Scale().fit(a).transform(a) for a in (x, y))
    n = min(n, len(x) - 1, len(y) - 1, x.shape[1] - 1)
    u, s, vt = randomized_svd(x @ y.T, n, n_iter=7, random_state=seed)
    return u, vt.T, s


def unit(z):
    """Rows scaled to length 1."""
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def mutual_neighbours(a, b, k=5):
    """Pairs (row of a, row of b) that are among each other's ``k`` nearest; rows of length 1 in both. Pairs x 2."""
    similar = a @ b.T
    ka, kb = min(k, len(b)), min(k, len(a))
    near_a, near_b = np.zeros(similar.shape, bool), np.zeros(similar.shape, bool)
    np.put_along_axis(near_a, np.argpartition(-similar, ka - 1, axis=1)[:, :ka], True, 1)
    np.put_along_axis(near_b, np.argpartition(-similar, kb - 1, axis=0)[:kb], True, 0)
    return np.argwhere(near_a & near_b)


def anchor_scores(a, b, pairs, k=30):
    """How many neighbours the two cells of each anchor share, between 0 and 1 (by the 0.01 and 0.9 quantiles, as in Seurat)."""
    if not len(pairs):
        return np.zeros(0)
    both = np.concatenate([a, b])
    k = min(k, len(a), len(b))
    near = np.zeros((len(both), len(both)), bool)
    for columns in (slice(0, len(a)), slice(len(a), None)):  # each cell's neighbours in either set
        s = both @ both[columns].T
        np.put_along_axis(near[:, columns], np.argpartition(-s, k - 1, axis=1)[:, :k], True, 1)
    shared = (near[pairs[:, 0]] & near[len(a) + pairs[:, 1]]).sum(1).astype(float)
    low, high = np.quantile(shared, [0.01, 0.9])
    return np.clip((shared - low) / max(high - low, 1e-9), 0, 1)


def anchor_votes(v, pairs, score, code, n_types, k=50):
    """Weighted votes of each query cell's nearest anchors.

    Args:
        v: canonical coordinates of the query cells, rows of length 1.
        pairs, score: anchors (reference row, query row) and their scores.
        code: type of each reference cell.
        k: anchors that vote.

    Returns:
        cells x types; rows sum to 1, or to 0 where there is no anchor at all.
    """
    if not len(pairs):
        return np.zeros((len(v), n_types))
    k = min(k, len(pairs))
    distance = 1 - v @ v[pairs[:, 1]].T  # to the query's end of each anchor
    near = np.argpartition(distance, k - 1, axis=1)[:, :k]
    d = np.take_along_axis(distance, near, 1)
    weight = (1 - d / np.maximum(d.max(1, keepdims=True), 1e-12)) * score[near] + 1e-9
    weight = 1 - np.exp(-weight)  # Seurat's kernel, with the bandwidth 1
    weight /= weight.sum(1, keepdims=True)
    return np.einsum("ij,ijk->ik", weight, np.eye(n_types)[code[pairs[:, 0]]][near])


class SeuratCCA(Annotator):
    """Label transfer by canonical correlation and anchors.

    Args:
        n: canonical vectors.
        k_anchor, k_filter, k_score, k_weight: neighbours to be mutual, to filter, to score, and to vote (Seurat's defaults).
        seed: of the decomposition.

    Source: Stuart et al. (2019). (Seurat's own default for transfer projects the query on the reference's components instead.)
    """

    def __init__(self, n=20, k_anchor=5, k_filter=200, k_score=30, k_weight=50, seed=0):
        self.n, self.k_anchor, self.k_filter, self.k_score = n, k_anchor, k_filter, k_score
        self.k_weight, self.seed = k_weight, seed

    def fit(self, reference, labels):
        """Keep the reference; the work is done when the query is known."""
        self.reference_, self.code_ = reference, self._types(labels)
        return self

    def anchors(self, query):
        """``(pairs, score, v)``: anchors (reference row, query row), their scores, and the query's canonical coordinates."""
        u, v, _ = canonical(self.reference_.log, query.log, self.n, self.seed)
        u, v = unit(u), unit(v)
        pairs = mutual_neighbours(u, v, self.k_anchor)
        if self.k_filter < len(u):  # near in gene space, too
            s = unit(query.log) @ unit(self.reference_.log).T
            least = np.partition(s, -self.k_filter, axis=1)[:, -self.k_filter]
            pairs = pairs[s[pairs[:, 1], pairs[:, 0]] >= least[pairs[:, 1]]]
        return pairs, anchor_scores(u, v, pairs, self.k_score), v

    def predict_proba(self, query):
        """cells x types."""
        pairs, score, v = self.anchors(query)
        return anchor_votes(v, pairs, score, self.code_, len(self.classes_), self.k_weight)


class Gaussian(nn.Module):
    """A position and a type -> mean and standard deviation of another position."""

    def __init__(self, n_latent, n_types, n_hidden):
        super().__init__()
        self.n_types = n_types
        self.hidden = nn.Sequential(nn.Linear(n_latent + n_types, n_hidden), nn.ReLU())
        self.mean, self.log_sd = nn.Linear(n_hidden, n_latent), nn.Linear(n_hidden, n_latent)

    def forward(self, z, y):
        """``z``: ... x n_latent; ``y``: types, of a shape that broadcasts with ``z``'s. A normal distribution over positions."""
        one_hot = nn.functional.one_hot(y, self.n_types).to(z.dtype)
        shape = torch.broadcast_shapes(z.shape[:-1], y.shape)
        h = self.hidden(torch.cat([z.expand(*shape, -1), one_hot.expand(*shape, -1)], -1))
        return dist.Normal(self.mean(h), self.log_sd(h).clamp(-5, 3).exp()).to_event(1)


class LabelledNetworks(CountVAE):
    """The networks of :class:`LabelledVAE`.

    Args:
        n_genes, n_types, n_batches: sizes.
        alpha: weight of the classifier's loss on labelled cells.
        options: of :class:`~scprimer.methods.scvi.CountVAE`.
    """

    frozen = False  # True after surgery: normalisation and dropout stay as in evaluation

    def __init__(self, n_genes, n_types, n_batches=1, *, alpha=20.0, **options):
        super().__init__(n_genes, n_batches, encode_batch=True, **options)
        n, hidden = self.n_latent, options.get("n_hidden", 128)
        self.n_types, self.alpha, self.options = n_types, alpha, options
        self.classifier = nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, n_types))
        self.z1_given, self.z2_given = Gaussian(n, n_types, hidden), Gaussian(n, n_types, hidden)

    def train(self, mode=True):
        """As ever, but a frozen model stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def believed(self, z1, label):
        """log q(y | z1): the classifier's belief; a certainty for cells with a label. cells x types."""
        certain = 1e3 * nn.functional.one_hot(label.clamp(min=0), self.n_types).to(z1.dtype)
        return torch.where(label[:, None] >= 0, certain, self.classifier(z1)).log_softmax(-1)


class LabelledVAE(LabelledNetworks):
    """scANVI in Pyro: a count VAE with a type for each cell, known or not. Arguments: see :class:`LabelledNetworks`.

    A minibatch is ``{"counts": SparseRows, "batch": codes, "label": codes, -1 where unknown}``.

    Source: Xu et al. (2021), figure 1 and methods.
    """

    def model(self, m, weight=1.0):
        """p(y) p(z2) p(z1 | z2, y) p(counts | z1, batch), and the classifier's loss on known labels."""
        rows, label, zero = m["counts"], m["label"], self.encoder.mean.bias.new_zeros(1)
        with pyro.plate("cells", len(rows)):
            with poutine.scale(scale=weight):
                y = pyro.sample("y", dist.Categorical(logits=zero.expand(self.n_types)))
                z2 = pyro.sample("z2", dist.Normal(zero.expand(self.n_latent), 1.0).to_event(1))
                z1 = pyro.sample("z1", self.z1_given(z2, y))
            pyro.factor("counts", log_likelihood(rows, **self.generative(z1, rows.sum(), m["batch"])))
            named = self.classifier(z1).log_softmax(-1).gather(-1, label.clamp(min=0)[:, None])[:, 0]
            pyro.factor("labels", self.alpha * named * (label >= 0))

    def guide(self, m, weight=1.0):
        """q(z1 | counts) q(y | z1) q(z2 | z1, y); Pyro sums over the types of each cell instead of drawing one."""
        with pyro.plate("cells", len(m["counts"])), poutine.scale(scale=weight):
            q = self.inference(m["counts"], m["batch"])
            z1 = pyro.sample("z1", dist.Normal(q["mean"], q["variance"].sqrt()).to_event(1))
            belief = dist.Categorical(logits=self.believed(z1, m["label"]))
            y = pyro.sample("y", belief, infer={"enumerate": "parallel"})  # types x 1
            pyro.sample("z2", self.z2_given(z1, y))  # types x cells x n_latent


def scanvi_loss(model, minibatch, weight=1.0):
    """Negative ELBO of a minibatch, mean over cells, minus alpha times the log probability of known labels.

    Args:
        model: :class:`LabelledVAE`.
        minibatch: see there.
        weight: of all terms but those of counts and labels (the KL terms), for a warm-up.
    """
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    with pyro.validation_enabled(False):
        loss = elbo.differentiable_loss(model.model, model.guide, minibatch, weight)
    return loss / len(minibatch["counts"])


def train_labelled(model, counts, label, batch, *, epochs, learning_rate=5e-3, batch_size=128, seed=0, device="auto",
                   weight_decay=1e-6, bar="scANVI"):  # fmt: skip
    """Train in place whatever of a :class:`LabelledVAE` may be trained.

    Args:
        counts: raw counts, cells x genes.
        label: code of each cell's type, -1 where unknown.
        batch: code of each cell's batch.

    Returns:
        :class:`scprimer.train.History`.
    """
    data = count_data(model, counts, batch) | {"label": np.asarray(label, dtype=np.int64)}
    rise = max(1, epochs // 3)

    def loss(model, minibatch, epoch):
        return scanvi_loss(model, minibatch, 1.0 if model.frozen else min(1.0, (1 + int(epoch)) / rise))

    adam = partial(torch.optim.Adam, lr=learning_rate, weight_decay=weight_decay, fused=True)
    history = fit(model, data, loss, epochs=epochs, batch_size=min(batch_size, len(data["label"])), optimiser=adam,
                  seed=seed, device=device, amp=False, clip=10.0, label=bar)  # fmt: skip
    return history


def type_probabilities(model, counts, batch):
    """The classifier at the posterior mean of z1: cells x types."""

    def one(m):
        return model.classifier(model.inference(m["counts"], m["batch"])["mean"]).softmax(-1)

    return over_cells(model, one, count_data(model, counts, batch))


class ScANVI(Annotator):
    """scANVI: trained on reference and query together, the query without labels.

    Args:
        epochs: passes over all cells with labels.
        pretrain: passes before these that see no label (scVI's objective); default: twice as many.
        n_hidden, n_latent: sizes of the networks.
        rate: learning rate.
        seed, device: of the training.
    """

    def __init__(self, epochs=30, pretrain=None, n_hidden=64, n_latent=10, rate=5e-3, seed=0, device="auto"):
        self.epochs, self.pretrain, self.n_hidden, self.n_latent = epochs, pretrain, n_hidden, n_latent
        self.rate, self.seed, self.device = rate, seed, device

    def fit(self, reference, labels):
        """Keep the reference; the model is trained when the query is known."""
        self.reference_, self.code_ = reference, self._types(labels)
        return self

    def _model(self, n_batches):
        torch.manual_seed(self.seed)
        sizes = {"n_hidden": self.n_hidden, "n_latent": self.n_latent}
        return LabelledVAE(len(self.reference_.genes), len(self.classes_), n_batches, **sizes)

    def _trained(self, counts, label, batch):
        """A model trained without labels first, and with them after that."""
        model = self._model(batch.max() + 1)
        both = {"learning_rate": self.rate, "seed": self.seed, "device": self.device}
        first = 2 * self.epochs if self.pretrain is None else self.pretrain
        if first:
            train_count_vae(model, counts, batch, epochs=first, validation=None, label="scVI", **both)
        train_labelled(model, counts, label, batch, epochs=self.epochs, **both)
        return model

    def predict_proba(self, query):
        """cells x types. ValueError for cells without a molecule in these genes."""
        counts = sp.vstack([self.reference_.counts, query.counts]).tocsr()
        batch = np.repeat([0, 1], [len(self.code_), len(query)])
        label = np.concatenate([self.code_, np.full(len(query), -1)])
        self.model_ = self._trained(counts, label, batch)
        return type_probabilities(self.model_, query.counts, np.ones(len(query), dtype=int))


def add_batch(model):
    """Architectural surgery: a copy of a :class:`LabelledVAE` that knows one batch more, frozen but for the new rows.

    The copy gives every cell of the old batches the same position as before, bit for bit. The new rows start at the mean of the old ones.
    """
    grown = LabelledVAE(model.n_genes, model.n_types, model.n_batches + 1, alpha=model.alpha, **model.options)
    old, new = model.state_dict(), grown.state_dict()
    for name, value in new.items():
        if name in old and old[name].shape == value.shape:
            new[name] = old[name]
        else:  # a shift, one row a batch; a model of one batch has none, which is a row of zeros
            rows = old.get(name, torch.zeros_like(value[:1]))
            new[name] = torch.cat([rows, rows.mean(0, keepdim=True)])
    grown.load_state_dict(new)
    grown.batches = [*model.batches, f"query {model.n_batches}"]
    for name, parameter in grown.named_parameters():
        parameter.requires_grad = name.endswith(".shift")
        if parameter.requires_grad:
            parameter.register_hook(only_last)
    grown.frozen = True
    return grown.to(next(model.parameters()).device).eval()


def only_last(gradient):
    """The gradient of the new batch alone: older rows get none, and Adam without weight decay leaves them as they are."""
    kept = torch.zeros_like(gradient)
    kept[-1] = gradient[-1]
    return kept


class ScArches(ScANVI):
    """scANVI trained on the reference alone, then surgery for the query.

    Args:
        epochs, pretrain: for the reference.
        surgery_epochs: for the new rows, on the query; default: ``epochs``.
        n_hidden, n_latent, rate, seed, device: as for :class:`ScANVI`.
    """

    def __init__(self, epochs=30, pretrain=None, surgery_epochs=None, n_hidden=64, n_latent=10, rate=5e-3, seed=0,
                 device="auto"):  # fmt: skip
        super().__init__(epochs, pretrain, n_hidden, n_latent, rate, seed, device)
        self.surgery_epochs = surgery_epochs

    def fit(self, reference, labels):
        """Train the reference model."""
        super().fit(reference, labels)
        self.model_ = self._trained(reference.counts, self.code_, np.zeros(len(self.code_), dtype=int))
        return self

    def predict_proba(self, query):
        """cells x types: surgery, training of the new rows without labels, and the frozen classifier."""
        self.grown_ = add_batch(self.model_)
        batch = np.ones(len(query), dtype=int)
        train_labelled(self.grown_, query.counts, np.full(len(query), -1), batch, weight_decay=0.0, learning_rate=1e-2,
                       epochs=self.surgery_epochs or self.epochs, seed=self.seed, device=self.device, bar="surgery")  # fmt: skip
        return type_probabilities(self.grown_, query.counts, batch)


UNKNOWN = "unknown"


def transfer_labels(reference, labels, query, method, *, n_genes=1000, reject=None, least=50):
    """Names for query cells from labelled reference cells.

    Args:
        reference, query: AnnData with raw counts; only genes that both have are used.
        labels: a label for each reference cell, empty or missing where there is none; or the name of a column of its ``obs``.
        method: an annotator that is not fitted yet, such as :class:`SeuratCCA`.
        n_genes: as for :func:`on_shared_genes`.
        reject: answers with a confidence below this are called ``"unknown"``; default: the method's own ``threshold``.
        least: shared genes that are needed.

    Returns:
        DataFrame, a row a query cell: ``label`` (the best type), ``confidence``, ``called`` (label or ``"unknown"``). Cells without a
        molecule in the chosen genes get no label and the confidence 0. ``attrs["not_learnt"]``: types with too few reference cells.

    Raises:
        ValueError: no genes in common, fewer than two types that can be learnt, labels missing.
    """
    labels = reference.obs[labels] if isinstance(labels, str) else labels
    if len(labels) != reference.n_obs:
        raise ValueError(
            f"{len(labels)} labels for {reference.n_obs} reference cells: give one a cell, empty where unknown"
        )
    known, query_cells = on_shared_genes(reference, query, n_genes, least)
    known_rows, dropped = learnable(np.where(known.counts.getnnz(axis=1) > 0, np.asarray(labels, dtype=object), ""))
    there = query_cells.counts.getnnz(axis=1) > 0
    name, confidence = np.full(query.n_obs, "", dtype=object), np.zeros(query.n_obs)
    if there.any():
        method.fit(known[known_rows], np.asarray(labels, dtype=str)[known_rows])
        name[there], confidence[there] = method.answer(query_cells[there])
    table = pd.DataFrame({"label": name, "confidence": confidence}, index=query.obs_names)
    limit = method.threshold if reject is None else reject
    table["called"] = table["label"].where((table["confidence"] >= limit) & (table["label"] != ""), UNKNOWN)
    table.attrs["not_learnt"] = dropped
    return table


TRANSFERRED, CONFIDENCE = "cell_type_transferred", "cell_type_confidence"


def add_transferred(query, reference, labels, method=None, *, file=None, **options):
    """A copy of the query with transferred types in ``obs``, under names that say where they come from.

    Args:
        query, reference, labels, options: as for :func:`transfer_labels`.
        method: an annotator; default: :class:`SeuratCCA`.
        file: CSV to read the types from if it was made from the same cells, labels and method, and to write otherwise.

    Returns:
        AnnData with ``obs["cell_type_transferred"]`` (never empty; ``"unknown"`` where rejected) and ``obs["cell_type_confidence"]``.
    """
    method = method or SeuratCCA()
    of = reference.obs[labels] if isinstance(labels, str) else labels
    said = [
        list(query.obs_names),
        list(reference.obs_names),
        list(map(str, of)),
        type(method).__name__,
        sorted(options.items()),
    ]
    key = hashlib.sha256(repr([said, sorted(method.get_params().items())]).encode()).hexdigest()[:16]
    table = pd.read_csv(file, index_col=0) if file and Path(file).exists() else None
    if table is None or table["key"].iloc[0] != key:
        table = transfer_labels(reference, of, query, method, **options).assign(key=key)
        if file:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(file)
    out = query.copy()
    out.obs[TRANSFERRED] = pd.Categorical(table["called"].astype(str))
    out.obs[CONFIDENCE] = table["confidence"].to_numpy()
    return out


def reliability(confidence, right, bins=10):
    """How often answers are right, by their confidence.

    Args:
        confidence: between 0 and 1, one an answer.
        right: bool, one an answer.

    Returns:
        DataFrame, a row a bin that is not empty: ``confidence`` (mean), ``accuracy``, ``n``.
    """
    bin_ = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    table = pd.DataFrame({"confidence": confidence, "accuracy": np.asarray(right, float), "n": 1.0})
    return table.groupby(bin_).agg({"confidence": "mean", "accuracy": "mean", "n": "sum"})


def calibration_error(confidence, right, bins=10):
    """Expected calibration error (ECE): mean distance of accuracy and confidence over bins, weighted by their answers."""
    t = reliability(confidence, right, bins)
    return float((t["n"] * (t["accuracy"] - t["confidence"]).abs()).sum() / t["n"].sum())
