# Exported by `scprimer export` from notebooks/learning/supervised.ipynb. Edit the notebook, not this file.
"""What the chapter "Learning from labelled cells" builds."""

from __future__ import annotations

from itertools import product

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import torch
from scipy.stats import binomtest
from sklearn.base import BaseEstimator
from sklearn.base import ClassifierMixin
from sklearn.base import TransformerMixin
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from scprimer import train
from scprimer.methods.normalisation import log_cp10k

__all__ = [
    "BoostedTrees",
    "Components",
    "Forest",
    "LogCP10K",
    "MostProbable",
    "NeuralNet",
    "Scale",
    "SoftmaxRegression",
    "VariableGenes",
    "best_split",
    "candidates",
    "checked_counts",
    "cross_entropy",
    "features",
    "leaf_value",
    "macro_f1",
    "network",
    "per_class",
    "probabilities",
    "shared_genes",
    "split_70_15_15",
    "split_gain",
    "svm_objectives",
    "tune",
]


def split_70_15_15(labels, seed=0):
    """Deal cells to a training, a validation and a test set, type by type.

    Of a type with n >= 3 cells, ``max(1, round(0.15 n))`` go to validation and as many to the test set, the rest to training.
    Types with one or two cells stay in training: they can be predicted, wrongly or not, and never be tested.

    Args:
        labels: one label a cell, without missing ones.
        seed: of the draw.

    Returns:
        ``(training, validation, test)``: three sorted arrays of positions, disjoint, together all cells.

    Raises:
        ValueError: labels are missing, there is only one type, or no type has three cells.
    """
    labels = np.asarray(labels, dtype=object)
    if any(x is None or x != x or x == "" for x in labels):
        raise ValueError("some cells have no label: leave them out first, or name them `unknown` if that is a class")
    types, code = np.unique(labels.astype(str), return_inverse=True)
    if len(types) < 2 or np.bincount(code).max() < 3:
        raise ValueError(f"{len(types)} types, the largest with {np.bincount(code).max() if len(code) else 0} cells: "
                         "a split in three needs two types or more, and one of them with three cells")  # fmt: skip
    rng, parts = np.random.default_rng(seed), ([], [], [])
    for k in range(len(types)):
        rows = rng.permutation(np.flatnonzero(code == k))
        held = max(1, round(0.15 * len(rows))) if len(rows) >= 3 else 0
        for part, some in zip(parts, (rows[2 * held :], rows[:held], rows[held : 2 * held])):
            part.extend(some)
    return tuple(np.sort(np.array(part, dtype=int)) for part in parts)


def checked_counts(X, n_genes=None):
    """Counts as csr, cells x genes; ValueError for negative values, NaN, or another number of genes than was learnt from."""
    X = sp.csr_matrix(X, dtype=float)
    if X.shape[0] == 0 or not np.isfinite(X.data).all() or (X.data < 0).any():
        raise ValueError(
            "counts must be finite and not negative, with at least one cell: give raw counts, cells x genes"
        )
    if n_genes is not None and X.shape[1] != n_genes:
        raise ValueError(f"{X.shape[1]:,} genes, but the training cells had {n_genes:,}: "
                         "bring both to the same genes in the same order (see shared_genes)")  # fmt: skip
    return X


class LogCP10K(TransformerMixin, BaseEstimator):
    """log(1 + counts per ten thousand) of each cell, from that cell alone: nothing is learnt but the number of genes."""

    def fit(self, X, y=None):
        """Remember the number of genes of ``X`` (counts, cells x genes)."""
        self.n_features_in_ = checked_counts(X).shape[1]
        return self

    def transform(self, X):
        """Counts, cells x genes -> csr of the same shape; ValueError for cells without molecules."""
        return log_cp10k(checked_counts(X, self.n_features_in_))


class VariableGenes(TransformerMixin, BaseEstimator):
    """The most variable genes for their mean, chosen on the cells that it is fitted on (scanpy's ``seurat`` flavour).

    Args:
        n: how many genes; all that are seen often enough, where there are fewer.
        min_cells: genes found in fewer training cells are never chosen.
    """

    def __init__(self, n=2000, min_cells=3):
        self.n = n
        self.min_cells = min_cells

    def fit(self, X, y=None):
        """Choose genes on log-normalised cells x genes; ``genes_`` holds their columns."""
        X = sp.csr_matrix(X)
        self.genes_ = np.flatnonzero(X.getnnz(axis=0) >= self.min_cells)
        if len(self.genes_) == 0:
            raise ValueError(f"no gene is found in {self.min_cells} of the {X.shape[0]} cells: give more cells")
        if len(self.genes_) > self.n:
            table = sc.pp.highly_variable_genes(ad.AnnData(X[:, self.genes_]), n_top_genes=self.n, inplace=False)
            self.genes_ = self.genes_[table["highly_variable"].to_numpy()]
        return self

    def transform(self, X):
        """cells x genes -> dense cells x chosen genes."""
        return sp.csr_matrix(X)[:, self.genes_].toarray()


class Scale(TransformerMixin, BaseEstimator):
    """Centre each gene and divide by its standard deviation, both of the training cells; values beyond ``cut`` are cut off."""

    def __init__(self, cut=10.0):
        self.cut = cut

    def fit(self, X, y=None):
        """Estimate ``mean_`` and ``sd_`` (1 for a gene that does not vary) from dense cells x genes."""
        sd = X.std(axis=0, ddof=1) if len(X) > 1 else np.zeros(X.shape[1])
        self.mean_, self.sd_ = X.mean(axis=0), np.where(sd > 0, sd, 1.0)
        return self

    def transform(self, X):
        """cells x genes -> scaled, the same shape."""
        return np.clip((X - self.mean_) / self.sd_, -self.cut, self.cut)


class Components(TransformerMixin, BaseEstimator):
    """The first ``n`` principal components of the training cells, or as many as these can give."""

    def __init__(self, n=50, seed=0):
        self.n = n
        self.seed = seed

    def fit(self, X, y=None):
        """Find the axes from dense cells x genes."""
        n = max(1, min(self.n, X.shape[0] - 1, X.shape[1] - 1))
        self.pca_ = PCA(n, svd_solver="arpack" if n < min(X.shape) else "full", random_state=self.seed).fit(X)
        return self

    def transform(self, X):
        """cells x genes -> cells x components."""
        return self.pca_.transform(X)


def features(n_genes=2000, n_components=50, seed=0):
    """The protocol from counts to components as one pipeline: fit it on training cells, transform any cells.

    Args:
        n_genes: variable genes.
        n_components: principal components; None leaves the scaled genes.
        seed: of the decomposition's start.

    Returns:
        An unfitted ``sklearn.pipeline.Pipeline``: counts (cells x genes) -> cells x components.

    Source: log-CP10K, variable genes, scaling, PCA; the chapters on normalisation and on unsupervised learning.
    """
    steps = [("log", LogCP10K()), ("genes", VariableGenes(n_genes)), ("scale", Scale())]
    return Pipeline(steps + ([("pca", Components(n_components, seed))] if n_components else []))


def shared_genes(*datasets, least=50):
    """Data sets cut to the genes that all of them have, in the order of the first.

    Args:
        datasets: AnnData with unique gene names.
        least: fewer shared genes than these are an error.

    Returns:
        A list of AnnData, each with the same genes in the same order.

    Raises:
        ValueError: too few genes in common; the message shows names of both sides.
    """
    names = [set(a.var_names) for a in datasets]
    genes = [g for g in datasets[0].var_names if all(g in other for other in names)]
    if len(genes) < least:
        shown = "; ".join(", ".join(map(str, a.var_names[:3])) for a in datasets)
        raise ValueError(
            f"{len(genes)} genes are shared, {least} are needed: do all use the same kind of name? ({shown})"
        )
    return [a[:, genes].copy() for a in datasets]


def per_class(truth, predicted):
    """Recall, precision and F1 of every type that occurs in ``truth``, with the number of its cells.

    Args:
        truth, predicted: one label a cell.

    Returns:
        DataFrame, a row a type: ``cells``, ``found``, ``recall``, ``low`` and ``high`` (95 % Wilson interval of the recall),
        ``precision`` (0 where the type is never predicted), ``f1``.
    """
    truth, predicted = np.asarray(truth, dtype=str), np.asarray(predicted, dtype=str)
    if truth.shape != predicted.shape or truth.size == 0:
        raise ValueError(f"{truth.size} true and {predicted.size} predicted labels: one of each a cell is needed")
    rows = {}
    for k in np.unique(truth):
        n, named, found = (truth == k).sum(), (predicted == k).sum(), ((truth == k) & (predicted == k)).sum()
        interval = binomtest(int(found), int(n)).proportion_ci(method="wilson")
        rows[k] = {"cells": n, "found": found, "recall": found / n, "low": interval.low, "high": interval.high,
                   "precision": found / named if named else 0.0, "f1": 2 * found / (n + named)}  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").astype({"cells": int, "found": int})


def macro_f1(truth, predicted):
    """Mean of the F1 over the types that occur in ``truth``, each with the same weight."""
    return float(per_class(truth, predicted)["f1"].mean())


class MostProbable(ClassifierMixin, BaseEstimator):
    """What the classifiers below share: the answer is the type with the highest probability."""

    def predict(self, X):
        """cells x features -> the most probable type of each cell, a name of ``classes_``."""
        return self.classes_[self.predict_proba(X).argmax(1)]


def probabilities(scores):
    """Scores, cells x types, to probabilities of the same shape: rows sum to 1, and large scores do not overflow."""
    p = np.exp(scores - scores.max(1, keepdims=True))  # the largest score of a cell becomes 0
    return p / p.sum(1, keepdims=True)


class SoftmaxRegression(MostProbable):
    """Multinomial logistic regression with a ridge penalty, by L-BFGS in double precision on the CPU.

    Minimises ``C * sum_i -log p(y_i | x_i) + |W|^2 / 2``; offsets are not penalised (as in scikit-learn).
    """

    def __init__(self, C=1.0, steps=1000):
        self.C = C
        self.steps = steps

    def fit(self, X, y):
        """Learn from cells x features and a label a cell; sets ``classes_``, ``coef_`` (types x features), ``intercept_``."""
        self.classes_, code = np.unique(y, return_inverse=True)
        X, code = torch.as_tensor(np.array(X, dtype=float)), torch.as_tensor(code)
        W = torch.zeros(X.shape[1], len(self.classes_), dtype=X.dtype, requires_grad=True)
        b = torch.zeros(len(self.classes_), dtype=X.dtype, requires_grad=True)
        settings = {"max_iter": self.steps, "tolerance_grad": 1e-8, "tolerance_change": 1e-13, "history_size": 30}
        optimiser = torch.optim.LBFGS([W, b], line_search_fn="strong_wolfe", **settings)

        def closure():
            optimiser.zero_grad()
            logits = X @ W + b  # cells x types
            loss = self.C * torch.nn.functional.cross_entropy(logits, code, reduction="sum") + W.square().sum() / 2
            loss.backward()
            return loss

        optimiser.step(closure)
        self.coef_, self.intercept_ = W.detach().T.numpy(), b.detach().numpy()
        return self

    def predict_proba(self, X):
        """cells x features -> cells x types, rows sum to 1."""
        return probabilities(X @ self.coef_.T + self.intercept_)


def best_split(x, y):
    """The threshold on one feature that lowers Gini's impurity most.

    Args:
        x: one value a cell.
        y: one label a cell.

    Returns:
        ``(threshold, decrease)``: left are the cells with ``x <= threshold``; (nan, 0.0) when all values are equal.

    Source: Breiman et al. (1984), CART; the impurity decrease of the chapter's text.
    """
    order = np.argsort(x, kind="stable")
    x, code = np.asarray(x, dtype=float)[order], np.unique(y, return_inverse=True)[1][order]
    left = np.cumsum(np.eye(code.max() + 1)[code], axis=0)[:-1]  # splits x types: counts left of each split
    right = np.bincount(code) - left
    n_left, n = left.sum(1), len(x)

    def gini(count):
        share = count / count.sum(-1, keepdims=True)
        return 1 - (share**2).sum(-1)

    decrease = gini(np.bincount(code)[None]) - (n_left * gini(left) + (n - n_left) * gini(right)) / n
    decrease = np.where(x[1:] > x[:-1], decrease, -np.inf)  # equal values cannot be parted
    best = int(np.argmax(decrease)) if n > 1 else 0
    if n < 2 or not np.isfinite(decrease[best]):
        return float("nan"), 0.0
    return float((x[best] + x[best + 1]) / 2), float(decrease[best])


class Forest(MostProbable):
    """A random forest by hand: trees on bootstrap draws, a random few features at each node, averaged probabilities.

    Args:
        trees: how many.
        seed: of the draws.

    Source: Breiman (2001); soft voting as in scikit-learn.
    """

    def __init__(self, trees=100, seed=0):
        self.trees = trees
        self.seed = seed

    def fit(self, X, y):
        """Grow the trees on cells x features and a label a cell."""
        rng, self.classes_ = np.random.default_rng(self.seed), np.unique(y)
        self.trees_ = []
        for _ in range(self.trees):
            rows = rng.integers(len(X), size=len(X))  # with replacement
            tree = DecisionTreeClassifier(max_features="sqrt", random_state=int(rng.integers(2**31)))
            self.trees_.append(tree.fit(X[rows], np.asarray(y)[rows]))
        return self

    def predict_proba(self, X):
        """cells x features -> cells x types. A tree that never saw a type gives it the probability 0."""
        p = np.zeros((len(X), len(self.classes_)))
        for tree in self.trees_:
            p[:, np.searchsorted(self.classes_, tree.classes_)] += tree.predict_proba(X) / len(self.trees_)
        return p


def leaf_value(g, h, penalty=1.0):
    """The best value of a leaf, ``-G / (H + penalty)``, for the derivatives ``g``, ``h`` of the loss at its cells."""
    return float(-np.sum(g) / (np.sum(h) + penalty))


def split_gain(g, h, left, penalty=1.0):
    """What a question is worth to gradient boosting: twice the drop of the quadratic loss (as XGBoost counts it).

    Args:
        g, h: first and second derivative of the loss at each cell of the node.
        left: bool, which cells answer yes.
        penalty: on the squares of the leaves' values (XGBoost's ``lambda``).

    Source: Chen and Guestrin (2016), equation 7, without the factor 1/2 and the cost of a leaf.
    """
    worth = lambda rows: np.sum(g[rows]) ** 2 / (np.sum(h[rows]) + penalty)  # noqa: E731
    left = np.asarray(left, dtype=bool)
    return float(worth(left) + worth(~left) - worth(np.ones_like(left)))


class BoostedTrees(MostProbable):
    """XGBoost with labels as text, on one thread.

    Args:
        rounds: rounds of boosting (each adds a tree a type).
        depth: of a tree.
        learning_rate: factor on each tree's contribution.
        seed: of XGBoost; without subsampling nothing is random.

    Source: Chen and Guestrin (2016); needs the package ``xgboost`` or ``xgboost-cpu``.
    """

    def __init__(self, rounds=60, depth=3, learning_rate=0.3, seed=0):
        self.rounds = rounds
        self.depth = depth
        self.learning_rate = learning_rate
        self.seed = seed

    def fit(self, X, y):
        """Learn from cells x features and a label a cell."""
        from xgboost import XGBClassifier

        self.classes_, code = np.unique(y, return_inverse=True)
        settings = {"max_depth": self.depth, "learning_rate": self.learning_rate, "tree_method": "hist"}
        self.model_ = XGBClassifier(n_estimators=self.rounds, n_jobs=1, random_state=self.seed, **settings)
        self.model_.fit(X, code)
        return self

    def predict_proba(self, X):
        """cells x features -> cells x types."""
        return self.model_.predict_proba(X)


def svm_objectives(X, side, C, alpha):
    """What a linear support vector machine minimises, and its dual, for weights of the cells.

    Args:
        X: cells x features.
        side: +1 or -1 for each cell.
        C: weight of the hinge loss.
        alpha: weight of each cell, from 0 to ``C``, with ``sum(alpha * side) == 0``.

    Returns:
        ``(primal, dual)``. The primal takes the offset that is best for ``w = sum(alpha * side * x)``. The dual is never the larger of the two, and equal at
        the optimum.

    Source: Cortes and Vapnik (1995).
    """
    w = (alpha * side) @ X
    score = X @ w
    edges = side - score  # the hinge loss is piecewise linear in the offset, with a corner for each cell
    hinge = np.maximum(0, 1 - side[:, None] * (score[:, None] + edges)).sum(0)  # cells x offsets -> offsets
    return float(w @ w / 2 + C * hinge.min()), float(alpha.sum() - w @ w / 2)


class NeuralNet(MostProbable):
    """A feed-forward network with two hidden layers, trained with :func:`scprimer.train.fit`; labels may be text.

    Args:
        hidden: units of each hidden layer.
        dropout: share of hidden units silenced at each step of the training.
        epochs: passes over the training cells (batches of 128, AdamW with learning rate 2e-3 and weight decay 1e-2); the length is fixed.
        seed: of the weights, the order of cells and dropout.
        device: as for :func:`scprimer.train.fit`.
    """

    def __init__(self, hidden=64, dropout=0.0, epochs=25, seed=0, device="auto"):
        self.hidden = hidden
        self.dropout = dropout
        self.epochs = epochs
        self.seed = seed
        self.device = device

    def _batch(self, X, y=None):
        x = ((np.asarray(X) - self.centre_) / self.spread_).astype(np.float32)
        return x if y is None else {"x": x, "y": np.searchsorted(self.classes_, y)}

    def fit(self, X, y, validation=None):
        """Learn from cells x features and a label a cell; ``validation=(X, y)`` is watched and changes nothing."""
        self.classes_ = np.unique(y)
        self.centre_, self.spread_ = np.mean(X, axis=0), np.std(X) or 1.0
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.layers_ = network(X.shape[1], self.hidden, len(self.classes_), self.dropout)
        self.history_ = train.fit(
            self.layers_, self._batch(X, y), cross_entropy, epochs=self.epochs, batch_size=min(128, len(X)),
            optimiser=lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=1e-2),
            validation=None if validation is None else self._batch(*validation), seed=self.seed, device=self.device,
        )  # fmt: skip
        return self

    def predict_proba(self, X):
        """cells x features -> cells x types, rows sum to 1."""
        return train.predict(lambda x: self.layers_(x).float().softmax(1), self._batch(X), device=self.device)


def network(n_in, hidden, n_out, dropout):
    """Two hidden layers of ``hidden`` units: cells x ``n_in`` -> scores (logits), cells x ``n_out``."""
    nn, layers = torch.nn, []
    for wide in (n_in, hidden):
        layers += [nn.Linear(wide, hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden, n_out))


def cross_entropy(model, batch, epoch):
    """Mean of ``-log p`` of the true types of a batch ``{"x", "y"}``."""
    return torch.nn.functional.cross_entropy(model(batch["x"]).float(), batch["y"])


def candidates(trees=100, rounds=60, epochs=25, seed=0, device="auto"):
    """The chapter's classifiers, unfitted: name -> list of candidates for a grid search, the plainer ones first.

    Args:
        trees: of a forest. rounds: of boosting. epochs: of the network's training.
        seed: of everything that is random in fitting.
        device: of the network.
    """
    forest = {"n_estimators": trees, "random_state": seed, "n_jobs": 1}
    net = {"epochs": epochs, "seed": seed, "device": device}
    return {
        "logistic regression": [LogisticRegression(C=c, max_iter=3000) for c in (1e-3, 1e-2, 1e-1, 1.0)],
        "random forest": [RandomForestClassifier(max_depth=d, min_samples_leaf=m, **forest) for d, m in product((10, None), (5, 1))],
        "XGBoost": [BoostedTrees(rounds, d, eta, seed) for d, eta in product((2, 4), (0.1, 0.3))],
        "SVM": [SVC(kernel="linear", C=c) for c in (1e-3, 1e-2)] + [SVC(C=c) for c in (1.0, 10.0)],
        "DNN": [NeuralNet(h, d, **net) for h, d in product((64, 128), (0.3, 0.0))],
        "nearest centroid": [NearestCentroid(shrink_threshold=t) for t in (None, 0.1, 0.3, 1.0)],
        "majority": [DummyClassifier()],
    }  # fmt: skip


def tune(models, training, validation):
    """Fit every candidate on the training cells and keep the one with the highest accuracy on the validation cells.

    Args:
        models: unfitted classifiers; on a tie the first wins.
        training, validation: ``(X, y)`` each: cells x features and a label a cell.

    Returns:
        ``(model, accuracies)``: the fitted winner, and the validation accuracy of every candidate.

    Raises:
        ValueError: no candidates, fewer than two types to learn, or no validation cells.
    """
    if not models or len(np.unique(training[1])) < 2 or len(validation[1]) == 0:
        raise ValueError(f"{len(models)} candidates, {len(np.unique(training[1]))} types, {len(validation[1])} validation cells: "
                         "give at least one candidate, two types and one validation cell")  # fmt: skip
    fitted = [clone(model).fit(*training) for model in models]
    accuracies = np.array([np.mean(model.predict(validation[0]) == validation[1]) for model in fitted])
    return fitted[int(accuracies.argmax())], accuracies
