# Exported by `scprimer export` from notebooks/tasks/differential.ipynb. Edit the notebook, not this file.
"""What the chapter "What differs, and between whom" builds."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy import optimize
from scipy import special
from scipy import stats

from scprimer.data.simulate.counts import thin as thin_entries
from scprimer.methods.normalisation import log_cp10k
from scprimer.methods.normalisation import thin
from scprimer.methods.qc import benjamini_hochberg
from scprimer.methods.qc import sum_by

__all__ = [
    "adjusted",
    "as_values",
    "count_split",
    "deseq",
    "design_matrix",
    "dispersions",
    "expression",
    "levels",
    "logistic",
    "mast",
    "mast_design",
    "nb_glm",
    "outer",
    "plant",
    "power_at_fdr",
    "pseudobulk",
    "ranks",
    "size_factors",
    "two_groups",
    "variance_prior",
    "wald",
    "whole_counts",
    "wilcoxon",
]


def two_groups(group, n):
    """Check the labels of two groups of cells or samples.

    Args:
        group: one label each (text, bool or number), without missing ones.
        n: how many there must be.

    Returns:
        ``(inside, names)``: bool, True for the group whose name comes second in order; and both names as text.

    Raises:
        ValueError: another number of labels, a missing label, one group only or more than two, or a group of one.
    """
    of = pd.Series(np.asarray(group, dtype=object))
    if len(of) != n:
        raise ValueError(f"{len(of)} labels for {n} rows: give one label a row")
    if of.isna().any() or (of.astype(str) == "").any():
        raise ValueError("some labels are missing: leave these rows out first")
    names, code, sizes = np.unique(of.to_numpy(dtype=str), return_inverse=True, return_counts=True)
    if len(names) != 2:
        raise ValueError(f"{len(names)} groups ({', '.join(names[:5])}): a comparison needs two, so keep two")
    if sizes.min() < 2:
        raise ValueError(f"group '{names[sizes.argmin()]}' has one member: without a second its spread is unknown")
    return code == 1, names


def whole_counts(counts):
    """Counts as csr, rows x genes; ValueError when they are negative, missing, or not whole numbers."""
    X = sp.csr_matrix(counts)
    if not np.isfinite(X.data).all() or (X.data < 0).any() or (X.data != np.rint(X.data)).any():
        raise ValueError("counts must be whole numbers of at least 0: give raw counts, not normalised values")
    return X


def expression(counts):
    """log2(1 + counts per ten thousand), dense cells x genes; a cell without any molecule has zeros."""
    X = whole_counts(counts).astype(float)
    values = np.zeros(X.shape)
    there = np.asarray(X.sum(1)).ravel() > 0
    values[there] = log_cp10k(X[there]).toarray() / np.log(2)
    return values


def as_values(values):
    """A dense float table, cells x genes; ValueError for another shape or for missing values."""
    values = values.toarray() if sp.issparse(values) else np.asarray(values)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"values of shape {values.shape}: give a table, cells x genes, without missing values")
    return values.astype(float)


def ranks(values):
    """Rank every column from 1, ties sharing their mean rank: cells x genes in, the same shape out."""
    n, order = len(values), np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, 0)
    begins, ends = np.ones((2, *values.shape), dtype=bool)
    begins[1:] = ends[:-1] = ordered[1:] > ordered[:-1]  # where a run of ties begins and where one ends
    place = np.arange(n)[:, None]
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=0)
    last = np.minimum.accumulate(np.where(ends, place, n - 1)[::-1], axis=0)[::-1]
    r = np.empty(values.shape)
    np.put_along_axis(r, order, (first + last) / 2 + 1, 0)
    return r


def wilcoxon(values, group):
    """Wilcoxon's rank-sum test of every gene, two-sided, corrected for ties, normal approximation.

    Args:
        values: cells x genes, any scale on which larger is more; dense or sparse.
        group: one label a cell, two different ones.

    Returns:
        DataFrame, a row a gene: ``z`` (above 0: higher in the second group), ``p``, ``auc``. ``z`` and ``p`` are NaN for a gene
        with the same value in all cells, such as one without counts.

    Raises:
        ValueError: see :func:`two_groups`; missing values.

    Source: Wilcoxon (1945); Mann and Whitney (1947).
    """
    values = as_values(values)
    inside, _ = two_groups(group, len(values))
    n, n1, r = len(values), int(inside.sum()), ranks(values)
    total = r[inside].sum(0)
    sd = np.sqrt(n1 * (n - n1) / n * r.var(0, ddof=1))
    z = np.full(len(sd), np.nan)
    np.divide(total - n1 * (n + 1) / 2, sd, out=z, where=sd > 0)
    auc = (total - n1 * (n1 + 1) / 2) / (n1 * (n - n1))
    return pd.DataFrame({"z": z, "p": 2 * stats.norm.sf(np.abs(z)), "auc": auc})


def outer(X):
    """Outer product of every row with itself, flattened: rows x p in, rows x p² out."""
    return (X[:, :, None] * X[:, None]).reshape(len(X), -1)


def logistic(X, on, steps=40):
    """Maximum-likelihood logistic regression of every column of ``on`` on the same ``X``.

    Args:
        X: cells x p.
        on: cells x genes, 0 or 1.

    Returns:
        ``(alpha, loglik)``: genes x p, and a value a gene.
    """
    p, todo = X.shape[1], np.arange(on.shape[1])
    likelihood = lambda a, j: (on[:, j] * (X @ a.T) - np.logaddexp(0, X @ a.T)).sum(0)  # noqa: E731
    alpha = np.zeros((on.shape[1], p))
    loglik = likelihood(alpha, todo)
    for _ in range(steps):
        share = special.expit(X @ alpha[todo].T)  # cells x genes that still move
        curve = (outer(X).T @ (share * (1 - share))).T.reshape(-1, p, p) + 1e-6 * np.eye(p)
        step = np.linalg.solve(curve, ((on[:, todo] - share).T @ X)[..., None])[..., 0]
        step *= np.minimum(1, 5 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-12))
        for _ in range(8):
            found = likelihood(alpha[todo] + step, todo)
            step[found < loglik[todo] - 1e-9] /= 2
        gain, alpha[todo], loglik[todo] = found - loglik[todo], alpha[todo] + step, found
        todo = todo[gain > 1e-7]
        if not len(todo):
            break
    return alpha, loglik


def levels(X, values):
    """Least squares of every gene on ``X`` over the cells with a value above 0.

    Args:
        X: cells x p.
        values: cells x genes, 0 where the gene is not expressed.

    Returns:
        ``(beta, rss, rank)``: genes x p, residual sum of squares, and how many coefficients the cells can tell apart.
    """
    p, Xy = X.shape[1], values.T @ X
    XX = (outer(X).T @ (values > 0)).T.reshape(-1, p, p)
    beta = (np.linalg.pinv(XX, rcond=1e-9, hermitian=True) @ Xy[..., None])[..., 0]
    rss = np.maximum((values**2).sum(0) - (beta * Xy).sum(1), 0)
    size = np.linalg.eigvalsh(XX)
    return beta, rss, (size > 1e-9 * np.maximum(size[:, -1:], 1e-300)).sum(1)


def variance_prior(rss, df):
    """The prior of the genes' variances: weight ``d`` in observations and value ``s2``, by maximum likelihood.

    Args:
        rss: residual sum of squares of each gene.
        df: its residual degrees of freedom.

    Source: MAST's empirical Bayes step; variances are inverse gamma with shape d/2 and scale d s2/2.
    """

    def loss(log_ab):
        a, b = np.exp(log_ab)
        return np.sum(special.betaln(df / 2, a) + df / 2 * np.log(b) + np.log1p(rss / (2 * b)) * (df / 2 + a))

    start = np.log([2.0, 2.0 * np.median(rss / df)])
    a, b = np.exp(optimize.minimize(loss, start, method="L-BFGS-B", bounds=[(-7, 12)] * 2).x)
    return 2 * a, b / a


def mast_design(on, inside, covariates=None, detection=True):
    """The columns of MAST's regressions: without the group, and with it as the last column.

    Args:
        on: cells x genes, is the gene expressed.
        inside: bool, a value a cell.
        covariates: cells x k, such as an indicator of each donor but one; or None.
        detection: add the cellular detection rate, standardised (left out when it does not vary).

    Raises:
        ValueError: the group can be computed from the other columns, as when each donor is in one group only.
    """
    columns, rate = [np.ones(len(on))], on.mean(1)
    if detection and rate.std() > 1e-12:
        columns.append((rate - rate.mean()) / rate.std())
    if covariates is not None:
        columns += list(np.asarray(covariates, dtype=float).reshape(len(on), -1).T)
    reduced = np.column_stack(columns)
    full = np.column_stack([reduced, inside.astype(float)])
    if np.linalg.matrix_rank(full) < full.shape[1]:
        raise ValueError("the group cannot be told from the covariates: with donors as covariates each group needs cells of "
                         "the same donors. If donors lie within groups, sum over donors (pseudobulk) instead")  # fmt: skip
    return reduced, full


def mast(values, group, covariates=None, *, detection=True, shrink=True):
    """MAST's hurdle model: likelihood-ratio test of every gene for a difference between two groups of cells.

    Args:
        values: cells x genes, log expression, 0 where the gene is not expressed (see :func:`expression`).
        group: one label a cell, two different ones.
        covariates, detection: see :func:`mast_design`.
        shrink: shrink the variance of the expressed levels.

    Returns:
        DataFrame, a row a gene: ``p``, ``p_on`` and ``p_level`` (both parts, each part alone), ``lr_on``, ``lr_level`` (twice the gains),
        ``level`` (difference of the mean log level of expressing cells). NaN where a part cannot be fitted: a gene in no cell or in all
        has no ``p_on``, a gene with too few expressing cells no ``p_level``, a gene without counts no ``p``.

    Source: Finak et al. (2015). The logistic part is plain maximum likelihood; MAST's default adds a weak prior.
    """
    values = as_values(values)
    inside, _ = two_groups(group, len(values))
    on, n = (values > 0).astype(float), (values > 0).sum(0)
    reduced, full = mast_design(on, inside, covariates, detection)
    mixed = (n > 0) & (n < len(values))
    gain = [logistic(X, on[:, mixed])[1] for X in (reduced, full)]
    lr_on, lr_level = np.zeros((2, values.shape[1]))
    lr_on[mixed] = 2 * np.maximum(gain[1] - gain[0], 0)
    (_, rss0, rank0), (beta, rss1, rank1) = levels(reduced, values), levels(full, values)
    fitted = (n > rank1) & (rss1 > 1e-12 * np.maximum(n, 1)) & (rank1 > rank0)
    enough = shrink and fitted.sum() > 2
    d, s2 = variance_prior(rss1[fitted], (n - rank1)[fitted]) if enough else (0.0, 0.0)
    lr_level[fitted] = n[fitted] * np.log((rss0 + d * s2)[fitted] / (rss1 + d * s2)[fitted])
    df = {"p": mixed + fitted.astype(int), "p_on": mixed.astype(int), "p_level": fitted.astype(int)}
    lr = {"p": lr_on + lr_level, "p_on": lr_on, "p_level": lr_level}
    p = {k: np.where(df[k] > 0, stats.chi2.sf(np.maximum(lr[k], 0), np.maximum(df[k], 1)), np.nan) for k in df}
    level = np.where(fitted, beta[:, -1], np.nan)
    return pd.DataFrame({**p, "lr_on": lr_on, "lr_level": lr_level, "level": level})


def pseudobulk(counts, donor, group, *, min_cells=10, genes=None):
    """Add up the counts of all cells of each donor in each group.

    Args:
        counts: raw counts, cells x genes.
        donor: one label a cell.
        group: one label a cell, two different ones.
        min_cells: samples of fewer cells are left out.
        genes: names of the genes; default their numbers.

    Returns:
        ``(table, samples)``: samples x genes, whole numbers; and a row a sample: ``donor``, ``group``, ``cells``.

    Raises:
        ValueError: counts that are none, missing labels, or a group that is left with fewer than two donors.
    """
    X = whole_counts(counts)
    two_groups(group, X.shape[0])
    donor, group = (np.asarray(pd.Series(np.asarray(a, dtype=object)).fillna("")).astype(str) for a in (donor, group))
    if len(donor) != X.shape[0] or (donor == "").any():
        raise ValueError(f"{(donor != '').sum()} donors for {X.shape[0]} cells: name the donor of each cell")
    unit = np.char.add(np.char.add(group, " | "), donor)
    names, first, cells = np.unique(unit, return_index=True, return_counts=True)
    samples = pd.DataFrame({"donor": donor[first], "group": group[first], "cells": cells}, index=names)
    for g in np.unique(group):
        left = (samples["group"].eq(g) & samples["cells"].ge(min_cells)).sum()
        if left < 2:
            raise ValueError(f"group '{g}' has {left} donors with {min_cells} cells or more: how much donors differ cannot be "
                             "known from fewer than two, and no number of cells replaces them")  # fmt: skip
    genes = [str(g) for g in (range(X.shape[1]) if genes is None else genes)]
    table = pd.DataFrame(sum_by(X, unit), index=names, columns=genes).astype(int)
    return table[cells >= min_cells], samples[cells >= min_cells]


def size_factors(table):
    """Median-of-ratios size factors: samples x genes in, one positive number a sample out.

    Raises:
        ValueError: no gene has counts in every sample, so that no geometric mean can be formed.

    Source: Anders and Huber (2010); DESeq2's ``type="ratio"``.
    """
    X = np.asarray(table, dtype=float)
    everywhere = (X > 0).all(0)
    if not everywhere.any():
        raise ValueError("no gene has counts in every sample: leave out samples with few molecules")
    logs = np.log(X[:, everywhere])
    return np.exp(np.median(logs - logs.mean(0), axis=1))


def design_matrix(samples, paired=False):
    """Columns of the regression: intercept, donors but the first when paired, and the second group (last column).

    Args:
        samples: DataFrame with ``group``, and ``donor`` when paired.
        paired: compare within donors.

    Raises:
        ValueError: donors nested in groups in a paired design, or no degree of freedom left to estimate dispersion.
    """
    inside, names = two_groups(samples["group"], len(samples))
    X = pd.DataFrame({"intercept": 1.0}, index=samples.index)
    if paired:
        X = X.join(pd.get_dummies(samples["donor"], prefix="donor", dtype=float).iloc[:, 1:])
    X[str(names[1])] = inside.astype(float)
    if np.linalg.matrix_rank(X) < X.shape[1]:
        raise ValueError("no donor is in both groups, so nothing can be compared within donors: use paired=False")
    if len(X) <= X.shape[1]:
        raise ValueError(f"{len(X)} samples for {X.shape[1]} coefficients: none is left to see how much samples vary")
    return X


def nb_glm(table, design, size, dispersion, steps=250):
    """Negative binomial regression with log link and known dispersion, all genes at once.

    Args:
        table: samples x genes, counts.
        design: samples x p.
        size: one size factor a sample.
        dispersion: one number a gene (variance = mean + dispersion * mean²).

    Returns:
        Coefficients, genes x p, natural logarithms.

    Source: Love et al. (2014); iteratively reweighted least squares with DESeq2's ridge of 1e-6 and least mean of 0.5.
    """
    K, X, size = np.asarray(table, dtype=float), np.asarray(design, dtype=float), np.asarray(size)[:, None]
    p, beta = X.shape[1], np.linalg.lstsq(X, np.log(K / size + 0.1), rcond=None)[0].T
    for _ in range(steps):
        mu = np.maximum(size * np.exp(np.clip(X @ beta.T, -50, 50)), 0.5)
        weight = mu / (1 + dispersion * mu)  # samples x genes
        curve = (outer(X).T @ weight).T.reshape(-1, p, p) + 1e-6 * np.eye(p)
        target = weight * (np.log(mu / size) + (K - mu) / mu)
        old, beta = beta, np.linalg.solve(curve, (target.T @ X)[..., None])[..., 0]
        if np.abs(beta - old).max() < 1e-10:
            break
    return beta


def wald(beta, design, size, dispersion):
    """Wald's test of the last coefficient: ``(z, p)``, a value a gene; arguments as for :func:`nb_glm`."""
    X, p = np.asarray(design, dtype=float), beta.shape[1]
    mu = np.asarray(size)[:, None] * np.exp(X @ beta.T)
    information = (outer(X).T @ (mu / (1 + dispersion * mu))).T.reshape(-1, p, p)
    last = np.linalg.inv(information + 1e-6 * np.eye(p))[:, :, -1:]  # genes x p x 1
    error = np.sqrt((np.swapaxes(last, 1, 2) @ information @ last)[:, 0, 0])
    return beta[:, -1] / error, 2 * stats.norm.sf(np.abs(beta[:, -1] / error))


def deseq(table, samples, *, paired=False):
    """DESeq2's test of every gene of a pseudobulk table, by PyDESeq2.

    Args:
        table, samples: from :func:`pseudobulk`.
        paired: a coefficient for each donor; needs donors in both groups.

    Returns:
        DataFrame, a row a gene: ``log2fc`` (second group over first), ``z``, ``p`` and ``dispersion``; NaN for a gene without counts.

    Raises:
        ValueError: see :func:`design_matrix`.

    Source: Love et al. (2014); Muzellec et al. (2023).
    """
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    X = design_matrix(samples, paired)
    seen = table.loc[:, table.sum() > 0]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        how = {"quiet": True, "inference": DefaultInference(n_cpus=1)}
        fit = DeseqDataSet(counts=seen, metadata=samples, design=X, refit_cooks=False, **how)
        fit.deseq2()
        contrast = np.eye(X.shape[1])[-1]
        test = DeseqStats(fit, contrast=contrast, cooks_filter=False, independent_filter=False, **how)
        test.summary()
    found = test.results_df
    result = pd.DataFrame({"log2fc": found["log2FoldChange"], "z": found["stat"], "p": found["pvalue"]})
    return result.assign(dispersion=fit.var["dispersions"]).reindex(table.columns)


def plant(counts, inside, log2fc, seed=0):
    """Plant changes of known size by binomial thinning, in one of the two groups for each gene.

    Args:
        counts: raw counts, cells x genes.
        inside: bool, a value a cell: the group whose ratio to the rest is planted.
        log2fc: one number a gene, 0 for no change.
        seed: of the coins.

    Returns:
        Counts of the same shape; expected log2 ratios differ by ``log2fc`` from before.
    """
    X, change = whole_counts(counts), np.asarray(log2fc, dtype=float)
    rows = np.repeat(np.asarray(inside, dtype=bool), np.diff(X.indptr))
    down = np.where(rows, -change[X.indices], change[X.indices])  # raised here = lowered in the other group
    return thin_entries(np.random.default_rng(seed), X, 2.0 ** -np.maximum(down, 0))


def adjusted(p):
    """Benjamini-Hochberg adjusted p-values; NaN stays NaN and does not count as a test."""
    p = np.asarray(p, dtype=float)
    result, there = np.full(p.shape, np.nan), ~np.isnan(p)
    result[there] = benjamini_hochberg(p[there])
    return result


def power_at_fdr(p, truth, level=0.05):
    """Share of the true genes found in the longest list of smallest p-values whose true share of false genes is at most ``level``."""
    p, truth = np.nan_to_num(np.asarray(p, dtype=float), nan=2.0), np.asarray(truth, dtype=bool)
    if not truth.any():
        raise ValueError("no gene is true: there is nothing to find")
    order = np.argsort(p, kind="stable")
    false_share = np.cumsum(~truth[order]) / np.arange(1, len(p) + 1)
    within = np.flatnonzero((false_share <= level) & (np.diff(p[order], append=3) > 0))  # ties stay together
    return float(truth[order][: within[-1] + 1].sum() / truth.sum()) if len(within) else 0.0


def dispersions(counts):
    """Moment estimate of each gene's dispersion when cells differ in depth alone (0 for genes that vary less than Poisson).

    Real differences between cells count as noise here, so that it is an upper limit in a mixture of cell types.
    """
    X = whole_counts(counts).toarray().astype(float)
    mu = X.sum(1, keepdims=True) * X.sum(0) / max(X.sum(), 1)
    return np.maximum(((X - mu) ** 2 - mu).sum(0) / np.maximum((mu**2).sum(0), 1e-300), 0)


def count_split(counts, keep=0.5, *, dispersion=None, seed=0):
    """Split every count in two parts that add up to it.

    Args:
        counts: raw counts, cells x genes.
        keep: expected share of the first part.
        dispersion: None for Poisson counts; else one number or one a gene (variance = mean + dispersion * mean²).
        seed: of the coins.

    Returns:
        ``(first, second)``: csr, cells x genes. Independent if the counts are Poisson, or negative binomial with this dispersion.

    Raises:
        ValueError: a share outside 0 to 1, a negative dispersion, or counts that are none.

    Source: Neufeld et al. (2023, 2024).
    """
    X = whole_counts(counts)
    if not 0 < keep < 1:
        raise ValueError(f"keep={keep}: the first part's share lies between 0 and 1, or one part is empty")
    if dispersion is None:
        first = thin(X, keep, seed)
    else:
        phi = np.broadcast_to(np.asarray(dispersion, dtype=float), X.shape[1:])
        if not (phi >= 0).all():
            raise ValueError("dispersions must not be negative or missing: use 0 for Poisson")
        phi, rng, coin = phi[X.indices], np.random.default_rng(seed), np.full(X.nnz, float(keep))
        loose = phi > 1e-9
        coin[loose] = rng.beta(keep / phi[loose], (1 - keep) / phi[loose])
        first = X.copy()
        first.data = rng.binomial(X.data.astype(np.int64), coin).astype(X.dtype)
        first.eliminate_zeros()
    second = sp.csr_matrix(X - first)
    second.eliminate_zeros()
    return first, second
