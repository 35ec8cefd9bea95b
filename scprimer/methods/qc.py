# Exported by `scprimer export` from notebooks/data/qc.ipynb. Edit the notebook, not this file.
"""What the chapter "Which rows are cells?" builds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from scipy import stats
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.special import gammaln
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

__all__ = [
    "above_empty",
    "adaptive",
    "add_pairs",
    "ambient_profile",
    "background_means",
    "barcode_ranks",
    "benjamini_hochberg",
    "beta_moments",
    "bimodality",
    "cluster_profiles",
    "decontx",
    "doublet_finder",
    "doublet_score",
    "doublet_space",
    "dsb",
    "estimate_soup",
    "fit_negative_binomial",
    "growing_log_probability",
    "growing_log_ratio",
    "how_manieth",
    "hto_demux",
    "log_probability",
    "log_ratio",
    "mad_outliers",
    "mitochondrial",
    "outside",
    "pour_soup",
    "principal_axes",
    "qc_table",
    "remove_soup",
    "remove_within_budget",
    "row_sums",
    "scaled",
    "scrublet",
    "shares_of",
    "simulated_neighbours",
    "soup_density",
    "soup_from_genes",
    "soup_pairs",
    "soup_test",
    "specificity",
    "sum_by",
    "tag_class",
    "tag_probabilities",
    "variable_genes",
    "water_fill",
]


def row_sums(counts) -> np.ndarray:
    """Sum of each row (cells x genes, sparse or dense) as a flat float array."""
    return np.asarray(counts.sum(axis=1), dtype=float).ravel()


def sum_by(counts, groups: np.ndarray) -> np.ndarray:
    """Counts (cells x genes) summed over the cells of each group: groups x genes, in the order of ``np.unique``."""
    names, code = np.unique(groups, return_inverse=True)
    pick = sparse.csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))), shape=(len(names), len(code)))
    return np.asarray((pick @ counts).todense()) if sparse.issparse(counts) else pick @ counts


def mitochondrial(genes) -> np.ndarray:
    """Which gene symbols are mitochondrial: those that begin with ``MT-``, in any case (bool, one a gene)."""
    return np.array([str(g).upper().startswith("MT-") for g in genes], dtype=bool)


def qc_table(counts, mito: np.ndarray) -> pd.DataFrame:
    """Molecules, genes detected and mitochondrial share of every row.

    Args:
        counts: raw counts, cells x genes, sparse.
        mito: which genes are mitochondrial (bool, one a gene).

    Returns:
        One row a cell: ``n_umi`` and ``n_genes`` (counts), ``mito`` (share from 0 to 1; 0 for an empty row).
    """
    n_umi = row_sums(counts)
    share = row_sums(counts[:, np.flatnonzero(mito)]) / np.maximum(n_umi, 1)
    return pd.DataFrame({"n_umi": n_umi, "n_genes": row_sums(counts > 0), "mito": share})


def outside(table: pd.DataFrame, bounds: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Which bound each row breaks.

    Args:
        table: what :func:`qc_table` gives.
        bounds: column -> (lowest, highest value that is kept).

    Returns:
        Bool, rows x bounds, with columns such as ``"n_genes < 500"``; a row is kept when all of its entries are False.
    """
    broken = {}
    for column, (low, high) in bounds.items():
        if low > 0:
            broken[f"{column} < {low:g}"] = table[column] < low
        broken[f"{column} > {high:g}"] = table[column] > high
    return pd.DataFrame(broken)


def mad_outliers(x, n_mads: float = 3.0, *, side: str = "both", log: bool = False) -> np.ndarray:
    """Rows further from the median than ``n_mads`` robust standard deviations.

    Args:
        x: one number a row.
        n_mads: how many scaled median absolute deviations are allowed.
        side: ``"low"``, ``"high"`` or ``"both"``: in which direction a row can be an outlier.
        log: compare ``log(1 + x)`` instead of ``x``.

    Returns:
        Bool, one a row.
    """
    x = np.log1p(x) if log else np.asarray(x, dtype=float)
    away = x - np.median(x)
    spread = 1.4826 * np.median(np.abs(away))
    return {"low": away < -n_mads * spread, "high": away > n_mads * spread, "both": np.abs(away) > n_mads * spread}[
        side
    ]


def adaptive(table: pd.DataFrame, n_mads: float = 3.0) -> pd.DataFrame:
    """The three usual adaptive bounds as in :func:`outside`: few molecules, few genes, a large mitochondrial share."""
    return pd.DataFrame(
        {
            "few molecules": mad_outliers(table["n_umi"], n_mads, side="low", log=True),
            "few genes": mad_outliers(table["n_genes"], n_mads, side="low", log=True),
            "high mito": mad_outliers(table["mito"], n_mads, side="high"),
        }
    )


def add_pairs(counts, n: int, rng: np.random.Generator) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Simulated doublets: the summed counts of random pairs of different rows.

    Args:
        counts: raw counts, cells x genes, csr.
        n: how many doublets.
        rng: random generator.

    Returns:
        Counts of the doublets (n x genes), and their parents' rows (n x 2).
    """
    first = rng.integers(counts.shape[0], size=n)
    other = (first + rng.integers(1, counts.shape[0], size=n)) % counts.shape[0]  # never the same row twice
    parents = np.column_stack([first, other])
    return (counts[parents[:, 0]] + counts[parents[:, 1]]).tocsr(), parents


def scaled(counts, total: float) -> sparse.csr_matrix:
    """Counts with every row multiplied so that it sums to ``total`` (an empty row stays empty)."""
    return sparse.csr_matrix(sparse.diags(total / np.maximum(row_sums(counts), 1)) @ counts)


def variable_genes(counts, n: int) -> np.ndarray:
    """Columns of the ``n`` genes whose log-normalised values vary most (fewer, if fewer vary), in ascending order."""
    logged = scaled(counts, 1e4).log1p()
    mean = np.asarray(logged.mean(axis=0)).ravel()
    variance = np.asarray(logged.multiply(logged).mean(axis=0)).ravel() - mean**2
    return np.sort(np.argsort(-variance)[: min(n, (variance > 1e-12).sum())])


def principal_axes(x: np.ndarray, n: int) -> np.ndarray:
    """The ``n`` leading principal axes of centred rows (cells x genes -> genes x n), exact.

    From the eigenvectors of the smaller of the two products ``x @ x.T`` and ``x.T @ x``.
    """
    tall = x.shape[0] > x.shape[1]
    product = x.T @ x if tall else x @ x.T
    n = min(n, np.linalg.matrix_rank(x) if min(x.shape) <= n else n)
    last = len(product) - 1
    values, vectors = eigh(product, subset_by_index=[last - n + 1, last])
    return vectors if tall else x.T @ vectors / np.sqrt(values)


def doublet_space(
    counts, simulated, *, n_genes: int = 2000, n_components: int = 30, log: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Observed rows and simulated doublets in the space of the observed rows' principal components.

    Args:
        counts: raw counts of the observed rows, cells x genes, csr.
        simulated: raw counts of the simulated doublets, the same genes.
        n_genes: how many variable genes to use.
        n_components: how many principal components.
        log: take logarithms after scaling to a common total (Scrublet does not by default, DoubletFinder does).

    Returns:
        (cells x components, doublets x components).
    """
    genes = variable_genes(counts, n_genes)
    total = np.median(row_sums(counts))
    blocks = [scaled(x, total)[:, genes] for x in (counts, simulated)]
    blocks = [(x.log1p() if log else x).toarray() for x in blocks]
    mean, sd = blocks[0].mean(axis=0), blocks[0].std(axis=0, ddof=1)
    blocks = [(x - mean) / np.where(sd > 0, sd, 1) for x in blocks]
    axes = principal_axes(blocks[0], n_components)
    return blocks[0] @ axes, blocks[1] @ axes


def simulated_neighbours(observed: np.ndarray, simulated: np.ndarray, k: int) -> np.ndarray:
    """How many of each observed row's ``k`` nearest others are simulated doublets."""
    every = np.vstack([observed, simulated])
    nearest = NearestNeighbors(n_neighbors=k).fit(every)
    among = nearest.kneighbors(observed, n_neighbors=k + 1, return_distance=False)  # one of them is the row itself
    return (among >= len(observed)).sum(axis=1)


def doublet_score(
    observed: np.ndarray, simulated: np.ndarray, *, rate: float = 0.05, k: int | None = None, with_self: bool = False
) -> np.ndarray:
    """Scrublet's doublet score (Wolock et al. 2019) of every observed row.

    Args:
        observed: observed rows, cells x components.
        simulated: simulated doublets, doublets x components.
        rate: share of doublets expected in the experiment; scales the scores and keeps their order.
        k: neighbours for each observed row; default half the square root of their number.
        with_self: count the row itself as one of its neighbours, as scanpy does.

    Returns:
        One score a row, from 0 up; only the order and the gap between humps have a meaning.
    """
    ratio = len(simulated) / len(observed)
    k = k or round(0.5 * np.sqrt(len(observed)))
    k_all = round(k * (1 + ratio))
    n_simulated = simulated_neighbours(observed, simulated, k_all - with_self)
    q = (n_simulated + 1) / (k_all + 2)
    return q * rate / ratio / (1 - rate - q * (1 - rate - rate / ratio))


def scrublet(counts, *, rate: float = 0.05, ratio: float = 2.0, seed: int = 0, **space) -> np.ndarray:
    """Doublet score of every row, after Scrublet: simulate, project, count neighbours.

    Args:
        counts: raw counts of one sample, cells x genes, csr.
        rate: see :func:`doublet_score`.
        ratio: simulated doublets for each observed row.
        seed: seed of the simulated doublets.
        space: passed to :func:`doublet_space`.
    """
    doublets, _ = add_pairs(counts, round(ratio * counts.shape[0]), np.random.default_rng(seed))
    return doublet_score(*doublet_space(counts, doublets, **space), rate=rate)


def bimodality(x: np.ndarray) -> float:
    """Bimodality coefficient (skewness² + 1) / kurtosis: 1/3 for a normal distribution, 1 for two points."""
    return float((stats.skew(x) ** 2 + 1) / stats.kurtosis(x, fisher=False))


def doublet_finder(counts, *, ratio: float = 1 / 3, seed: int = 0, **space) -> tuple[np.ndarray, int]:
    """Share of artificial nearest neighbours (pANN) of every row, after DoubletFinder (McGinnis et al. 2019).

    The parents are averaged (each molecule of the pair is kept with probability one half), values are logarithms, and the
    neighbourhood is that of nine whose scores are most bimodal, at one ``ratio`` (the original averages over several).

    Returns:
        One share a row (0 to 1), and the number of neighbours that was chosen.
    """
    rng = np.random.default_rng(seed)
    doublets, _ = add_pairs(counts, round(ratio * counts.shape[0]), rng)
    doublets.data = rng.binomial(doublets.data.astype(int), 0.5).astype(float)
    observed, simulated = doublet_space(counts, doublets, log=True, **space)
    sizes = np.unique(np.geomspace(5, 0.3 * (len(observed) + len(simulated)), 9).astype(int))
    shares = [simulated_neighbours(observed, simulated, k) / k for k in sizes]
    best = int(np.argmax([bimodality(s) for s in shares]))
    return shares[best], int(sizes[best])


def barcode_ranks(totals: np.ndarray, lower: int = 100) -> dict[str, float]:
    """Knee and inflection of the curve of molecules against rank, in molecules.

    Args:
        totals: molecules of every barcode.
        lower: barcodes with no more than these are left out.

    Returns:
        ``{"knee": ..., "inflection": ...}``: totals at the point furthest above the chord from the plateau to the
        inflection, and at the steepest descent of the log-log curve.
    """
    values, times = np.unique(np.asarray(totals)[np.asarray(totals) > lower], return_counts=True)
    values, times = values[::-1], times[::-1]
    x, y = np.log10(np.cumsum(times) - (times - 1) / 2), np.log10(values)  # ties share their middle rank
    window = max(len(x) // 50, 3)
    slope = (y[window:] - y[:-window]) / (x[window:] - x[:-window])
    steepest = int(np.argmin(slope)) + window // 2
    start = int(np.argmax(slope[: max(steepest - window // 2, 1)]))
    across, down = x[steepest] - x[start], y[steepest] - y[start]
    above = across * (y[start : steepest + 1] - y[start]) - down * (x[start : steepest + 1] - x[start])
    return {"knee": float(values[start + int(np.argmax(above))]), "inflection": float(values[steepest])}


def ambient_profile(pooled: np.ndarray) -> np.ndarray:
    """Shares of the genes in the soup from pooled counts, with Good and Turing's allowance for genes not seen.

    Args:
        pooled: counts of every gene, summed over droplets taken for empty.

    Returns:
        Positive shares that sum to 1. Genes not seen share the proportion of molecules of genes seen once; the
        original smooths the frequencies of rare genes as well.
    """
    pooled = np.asarray(pooled, dtype=float).ravel()
    unseen = pooled == 0
    missing = max((pooled == 1).sum(), 1) / pooled.sum() if unseen.any() else 0.0
    return np.where(unseen, missing / max(unseen.sum(), 1), (1 - missing) * pooled / pooled.sum())


def log_probability(counts, profile: np.ndarray) -> np.ndarray:
    """Multinomial log-probability of every row (cells x genes, csr), given its total, if drawn from ``profile``."""
    counts = sparse.csr_matrix(counts, dtype=float)
    terms = counts.copy()
    terms.data = counts.data * np.log(profile[counts.indices]) - gammaln(counts.data + 1)
    return gammaln(row_sums(counts) + 1) + row_sums(terms)


def how_manieth(genes: np.ndarray) -> np.ndarray:
    """For sequences of molecules (droplets x molecules), the how-manieth of its gene each molecule is (from 1)."""
    order = np.argsort(genes, axis=1, kind="stable")
    grouped = np.take_along_axis(genes, order, axis=1)
    place = np.arange(genes.shape[1])
    first = np.maximum.accumulate(np.where(np.diff(grouped, axis=1, prepend=-1) != 0, place, 0), axis=1)
    times = np.empty_like(genes)
    np.put_along_axis(times, order, place - first + 1, axis=1)
    return times


def growing_log_probability(genes: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """Multinomial log-probability of growing droplets after each molecule (droplets x molecules, as ``genes``)."""
    return np.cumsum(
        np.log(np.arange(1, genes.shape[1] + 1)) + np.log(profile)[genes] - np.log(how_manieth(genes)), axis=1
    )


def log_ratio(counts, soup: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Log-likelihood ratio of the best of several cell profiles (profiles x genes, positive) to the soup, one a row."""
    return np.asarray(counts @ np.log(cells / soup).T).max(axis=1)


def growing_log_ratio(genes: np.ndarray, soup: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The same for growing droplets after each molecule (droplets x molecules)."""
    best = np.full(genes.shape, -np.inf)
    for terms in np.log(cells / soup):
        best = np.maximum(best, np.cumsum(terms[genes], axis=1))
    return best


def soup_test(
    counts, soup: np.ndarray, cells: np.ndarray | None = None, *, n_simulations: int = 5000, seed: int = 0
) -> np.ndarray:
    """Monte Carlo p-values that a droplet holds nothing but soup.

    Args:
        counts: droplets x genes, csr. Leave out those that are taken for empty or for cells by their size.
        soup: positive share of every gene in the soup, sums to 1.
        cells: profiles of cells (profiles x genes, positive). Without them the statistic is the probability of the counts, as in
            EmptyDrops (Lun et al. 2019); with them the log-likelihood ratio of the best profile to the soup.
        n_simulations: simulated droplets; the smallest p-value is 1 / (n_simulations + 1).
        seed: seed.

    Returns:
        One p-value a droplet.
    """
    observed = log_probability(counts, soup) if cells is None else -log_ratio(counts, soup, cells)
    totals, upto = row_sums(counts).astype(int), np.cumsum(soup)
    rng, no_more, left = np.random.default_rng(seed), np.zeros(len(totals)), n_simulations
    while left > 0:
        size = min(left, 500)
        genes = np.searchsorted(upto, rng.random((size, totals.max()))).clip(max=len(soup) - 1)
        drawn = growing_log_probability(genes, soup) if cells is None else -growing_log_ratio(genes, soup, cells)
        for total in np.unique(totals):
            rows = totals == total
            no_more[rows] += np.searchsorted(np.sort(drawn[:, total - 1]), observed[rows] + 1e-9, side="right")
        left -= size
    return (no_more + 1) / (n_simulations + 1)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """False discovery rate at which each p-value would be called, after Benjamini and Hochberg (same shape as ``p``)."""
    flat = np.asarray(p, dtype=float).ravel()
    order = np.argsort(flat)
    raw = flat[order] * len(flat) / np.arange(1, len(flat) + 1)
    result = np.empty_like(flat)
    result[order] = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1)
    return result.reshape(np.shape(p))


def specificity(counts, clusters: np.ndarray) -> np.ndarray:
    """Term frequency times inverse document frequency of every gene in every cluster (clusters x genes)."""
    present = sum_by((counts > 0).astype(float), clusters)
    sizes = np.unique(clusters, return_counts=True)[1]
    return present / sizes[:, None] * np.log(sizes.sum() / np.maximum(present.sum(axis=0), 1))


def soup_pairs(
    counts, soup: np.ndarray, clusters: np.ndarray, *, specific: float = 1.0, n_genes: int = 100, largest: float = 0.8
) -> tuple[np.ndarray, np.ndarray]:
    """Observed and expected molecules of marker genes in clusters that do not express them, after SoupX.

    Args:
        counts: raw counts, cells x genes, csr.
        soup: share of every gene in the soup.
        clusters: a label for every cell.
        specific: smallest :func:`specificity` of a marker.
        n_genes: at most so many markers, the most specific first, from the tenth of genes most abundant in the soup.
        largest: contamination above which a gene is taken to be expressed.

    Returns:
        Observed molecules, and expected ones if the cells were pure soup; one entry for each pair of gene and cluster.
    """
    best = specificity(counts, clusters).max(axis=0)
    markers = np.flatnonzero((best > specific) & (soup > np.quantile(soup, 0.9)))
    markers = markers[np.argsort(-best[markers])][:n_genes]
    if len(markers) == 0:
        raise ValueError(f"no gene is more specific than {specific}: lower `specific`, or name genes that you know")
    seen = np.asarray(counts[:, markers].todense())
    expected = np.outer(row_sums(counts), soup[markers])
    expressed = np.apply_along_axis(benjamini_hochberg, 0, stats.poisson.sf(seen - 1, largest * expected)) < 0.2
    silent = ~(sum_by(expressed.astype(float), clusters) > 0)  # not one cell of the cluster expresses it
    return sum_by(seen, clusters)[silent], sum_by(expected, clusters)[silent]


def soup_density(
    seen: np.ndarray, expected: np.ndarray, grid: np.ndarray, mode: float = 0.05, sd: float = 0.34
) -> np.ndarray:
    """Average over pairs of the posterior of the contamination, on a grid, under a gamma prior with this mode and sd.

    SoupX's documentation gives the prior's sd as 0.1; the formula in its code amounts to 0.34, which is what is used here.
    """
    ratio = (sd / mode) ** 2
    shape = 1 + (1 + np.sqrt(1 + 4 * ratio)) / (2 * ratio)
    scale = mode / (shape - 1)
    return stats.gamma.pdf(grid[:, None], shape + seen, scale=scale / (1 + scale * expected)).mean(axis=1)


def estimate_soup(counts, soup: np.ndarray, clusters: np.ndarray, sd: float = 0.34, **pairs) -> float:
    """Contamination of a whole experiment (0.01 to 0.8), after SoupX's automatic method (Young and Behjati 2020).

    Args:
        counts: raw counts, cells x genes, csr.
        soup: share of every gene in the soup, from empty droplets.
        clusters: a label for every cell.
        sd: of the prior, see :func:`soup_density`.
        pairs: passed to :func:`soup_pairs`.
    """
    grid = np.arange(0.01, 0.8, 0.001)
    return float(grid[np.argmax(soup_density(*soup_pairs(counts, soup, clusters, **pairs), grid, sd=sd))])


def soup_from_genes(counts, soup: np.ndarray, silent: np.ndarray) -> np.ndarray:
    """Contamination of every cell from genes that it is known not to express (``silent``: bool, cells x genes or genes)."""
    silent = np.broadcast_to(silent, counts.shape)
    return row_sums(counts.multiply(silent)) / np.maximum(row_sums(counts) * (silent @ soup), 1e-12)


def shares_of(rows: np.ndarray) -> np.ndarray:
    """Every row divided by its sum (rows x genes)."""
    return rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-12)


def cluster_profiles(native: np.ndarray, place: np.ndarray, shape: tuple[int, int], background: np.ndarray | None):
    """Native profile of every cluster, and the profile of what contaminates it (both clusters x genes, rows sum to 1)."""
    totals = np.bincount(place, native, minlength=shape[0] * shape[1]).reshape(shape)
    foreign = shares_of(totals.sum(axis=0) - totals) if background is None else np.tile(background, (shape[0], 1))
    return shares_of(totals), foreign


def beta_moments(share: np.ndarray) -> np.ndarray:
    """Parameters of the beta distribution that has the mean and variance of ``share``."""
    mean, variance = np.clip(share.mean(), 1e-4, 1 - 1e-4), share.var() + 1e-9
    return np.array([mean, 1 - mean]) * max(mean * (1 - mean) / variance - 1, 1e-2)


def decontx(
    counts, clusters, background=None, *, n_iterations: int = 500, tolerance: float = 1e-3, start: float = 0.5
) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Contamination of every cell and of every entry, after DecontX (Yang et al. 2020).

    Args:
        counts: raw counts, cells x genes.
        clusters: a label for every cell.
        background: share of every gene in the soup; default: the mixture of the other clusters.
        n_iterations: at most so many rounds.
        tolerance: stop when no cell's contamination changes by more.
        start: contamination of every cell before the first round (the original draws it around one half).

    Returns:
        Contamination of every cell (0 to 1), expected foreign molecules (csr like ``counts``), and a row for every
        round: mean contamination, and mean log-likelihood of a molecule. The beta prior is fitted by moments.
    """
    counts = sparse.csr_matrix(counts, dtype=float)
    x, n_umi, (names, code) = counts.data, row_sums(counts), np.unique(clusters, return_inverse=True)
    cell = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    place, shape = code[cell] * counts.shape[1] + counts.indices, (len(names), counts.shape[1])
    theta, native, history = np.full(len(n_umi), 1 - start), (1 - start) * x, []
    for _ in range(n_iterations):
        own, other = (p.ravel()[place] for p in cluster_profiles(native, place, shape, background))
        own, other = own * theta[cell] + 1e-20, other * (1 - theta[cell]) + 1e-20
        history.append([1 - theta.mean(), x @ np.log(own + other) / x.sum()])
        native = x * own / (own + other)  # expectation
        n_native = np.bincount(cell, native, minlength=len(n_umi))
        prior = beta_moments(n_native / np.maximum(n_umi, 1))
        previous, theta = theta, (n_native + prior[0]) / (n_umi + prior.sum())  # maximisation
        if np.abs(theta - previous).max() < tolerance:
            break
    foreign = sparse.csr_matrix((x - native, counts.indices, counts.indptr), shape=counts.shape)
    return 1 - theta, foreign, np.array(history)


def pour_soup(counts, soup: np.ndarray, rho, rng: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Mix known soup into cells.

    Args:
        counts: raw counts, cells x genes.
        soup: share of every gene in the soup.
        rho: share of the mixture that is soup, one number or one a cell (0 to below 1).
        rng: random generator.

    Returns:
        Counts of the mixture, and of the soup alone (both cells x genes, csr).
    """
    rho = np.broadcast_to(rho, counts.shape[0])
    n = np.round(rho / (1 - rho) * row_sums(counts)).astype(int)
    genes = rng.choice(len(soup), size=n.sum(), p=soup)
    rows = np.repeat(np.arange(len(n)), n)
    poured = sparse.coo_matrix((np.ones(len(rows)), (rows, genes)), shape=counts.shape).tocsr()
    return (counts + poured).tocsr(), poured


def water_fill(limits: np.ndarray, weights: np.ndarray, segment: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Share out ``targets[s]`` among the entries of each segment ``s`` in proportion to weights, none above its limit.

    Args:
        limits: largest amount of each entry (positive).
        weights: positive weight of each entry.
        segment: segment of each entry, whole numbers from 0.
        targets: amount for each segment; where it exceeds the sum of the limits, all entries are filled.

    Returns:
        Amount of each entry: ``min(limit, level * weight)`` with one level a segment.
    """
    order = np.lexsort((limits / weights, segment))
    limit, weight, part = limits[order], weights[order], segment[order]
    start = np.searchsorted(part, np.arange(len(targets)))
    filled, left = np.cumsum(limit) - limit, np.cumsum(weight[::-1])[::-1]  # filled before, and weights from here on
    offset = np.append(np.append(filled, limit.sum())[start], 0)[part]
    beyond = np.append(left, 0)[np.append(start[1:], len(part))][part]
    level = (targets[part] - (filled - offset)) / np.maximum(left - beyond, 1e-300)
    stands_out = level <= limit / weight  # entries above the water: the first of them gives the true level, the highest
    levels = np.full(len(targets), -np.inf)
    np.maximum.at(levels, part[stands_out], level[stands_out])
    result = np.empty(len(limits))
    result[order] = np.where(np.isinf(levels[part]), limit, np.minimum(limit, levels[part] * weight))
    return result


def remove_soup(counts, soup: np.ndarray, rho, clusters: np.ndarray) -> sparse.csr_matrix:
    """Subtract soup cluster by cluster and pass the loss down to the cells, after SoupX's ``adjustCounts``.

    Args:
        counts: raw counts, cells x genes, csr.
        soup: share of every gene in the soup.
        rho: contamination, one number or one a cell.
        clusters: a label for every cell.

    Returns:
        Corrected counts, cells x genes, csr; no longer whole numbers.
    """
    counts = sparse.csr_matrix(counts, dtype=float)
    code, n_soup = np.unique(clusters, return_inverse=True)[1], np.broadcast_to(rho, counts.shape[0]) * row_sums(counts)
    summed = sparse.csr_matrix(sum_by(counts, code))
    of_cluster = np.repeat(np.arange(summed.shape[0]), np.diff(summed.indptr))
    weight = np.maximum(soup, 1e-12)
    taken = water_fill(summed.data, weight[summed.indices], of_cluster, np.bincount(code, n_soup))
    cell = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    pair = np.unique(code[cell] * counts.shape[1] + counts.indices, return_inverse=True)[1]  # of cluster and gene
    loss = water_fill(counts.data, np.maximum(n_soup[cell], 1e-12), pair, taken)  # `summed` lists them in this order
    return sparse.csr_matrix((counts.data - loss, counts.indices, counts.indptr), shape=counts.shape)


def remove_within_budget(counts, foreign, budget: float = 0.01) -> sparse.csr_matrix:
    """Remove the entries most likely to be soup, as long as the native molecules expected to be lost stay within a budget.

    CellBender's idea of a nominal false positive rate (Fleming et al. 2023), here on top of :func:`decontx`.

    Args:
        counts: raw counts, cells x genes, csr.
        foreign: expected foreign molecules, with the same entries as ``counts``.
        budget: share of all native molecules that may be lost, as the model sees it.

    Returns:
        Counts with whole entries set to 0, cells x genes, csr.
    """
    counts = sparse.csr_matrix(counts, dtype=float)
    native = counts.data - foreign.data
    order = np.argsort(native / counts.data, kind="stable")  # least native first
    affordable = np.cumsum(native[order]) <= budget * native.sum()
    kept = counts.copy()
    kept.data[order[affordable]] = 0
    kept.eliminate_zeros()
    return kept


def background_means(z: np.ndarray, n_iterations: int = 50) -> np.ndarray:
    """Mean of the lower of two Gaussians fitted to the proteins of every cell, all cells at once.

    Args:
        z: cells x proteins.
        n_iterations: rounds of expectation and maximisation.

    Returns:
        One mean a cell.
    """
    mean = np.quantile(z, [0.25, 0.95], axis=1)[..., None]  # 2 x cells x 1
    variance, weight = np.tile(z.var(axis=1)[:, None], (2, 1, 1)), np.array([0.8, 0.2])[:, None, None]
    for _ in range(n_iterations):
        log = np.log(weight) - 0.5 * np.log(variance) - 0.5 * (z - mean) ** 2 / variance
        share = np.exp(log - log.max(axis=0))
        share /= share.sum(axis=0)
        size = share.sum(axis=2, keepdims=True) + 1e-9
        weight, mean = size / z.shape[1], (share * z).sum(axis=2, keepdims=True) / size
        variance = (share * (z - mean) ** 2).sum(axis=2, keepdims=True) / size + 1e-3
    return mean.min(axis=0).ravel()


def above_empty(cells: np.ndarray, empty: np.ndarray, pseudocount: float = 10.0) -> np.ndarray:
    """Log counts in standard deviations above empty droplets (cells x proteins, first step of dsb)."""
    background = np.log(empty + pseudocount)
    return (np.log(cells + pseudocount) - background.mean(axis=0)) / background.std(axis=0, ddof=1)


def dsb(cells: np.ndarray, empty: np.ndarray, isotype: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proteins denoised and scaled by background, after dsb (Mulè et al. 2022).

    Args:
        cells: counts, cells x proteins.
        empty: counts, empty droplets x proteins.
        isotype: which proteins are isotype controls (bool).

    Returns:
        Values in standard deviations above empty droplets without the technical component (cells x proteins), and that
        component (one number a cell).
    """
    z = above_empty(cells, empty)
    noise = np.column_stack([background_means(z), z[:, isotype]])
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
    technical = np.linalg.svd(noise, full_matrices=False)[0][:, 0]
    technical = technical * np.sign(technical @ noise[:, 0])
    technical -= technical.mean()
    return z - np.outer(technical, technical @ z / (technical @ technical)), technical


def fit_negative_binomial(x: np.ndarray) -> tuple[float, float]:
    """Mean and size (inverse dispersion) of the negative binomial most likely to have given the counts ``x``."""
    mean = max(float(np.mean(x)), 1e-6)

    def loss(log_size: float) -> float:
        size = np.exp(log_size)
        return -stats.nbinom.logpmf(x, size, size / (size + mean)).sum()

    return mean, float(np.exp(minimize_scalar(loss, bounds=(-6, 10), method="bounded").x))


def hto_demux(tags: np.ndarray, quantile: float = 0.99, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which tags each droplet carries, after HTODemux (Stoeckius et al. 2018) with k-means for its first step.

    Args:
        tags: tag counts, droplets x tags.
        quantile: of the background distribution, above which a tag is called.
        seed: seed of k-means.

    Returns:
        Bool, droplets x tags, and the cut-off of each tag (counts).
    """
    relative = np.log1p(tags / np.exp(np.log1p(tags).mean(axis=0)))  # centred log ratio, tag by tag
    cluster = KMeans(tags.shape[1] + 1, n_init=10, random_state=seed).fit_predict(relative)
    means = np.array([tags[cluster == k].mean(axis=0) for k in range(cluster.max() + 1)])
    cutoff = np.zeros(tags.shape[1])
    for t in range(tags.shape[1]):
        mean, size = fit_negative_binomial(tags[cluster == means[:, t].argmin(), t])
        cutoff[t] = stats.nbinom.ppf(quantile, size, size / (size + mean))
    return tags > cutoff, cutoff


def tag_probabilities(tags: np.ndarray, seed: int = 0) -> np.ndarray:
    """Posterior of the upper of two Gaussians fitted to the log counts of each tag (droplets x tags)."""
    logged, carried = np.log1p(tags), np.zeros(tags.shape)
    for t in range(tags.shape[1]):
        x = logged[:, [t]]
        start = np.quantile(x, [[0.25], [0.98]])
        mixture = GaussianMixture(2, means_init=start, random_state=seed).fit(x)
        upper = mixture.means_.argmax()
        carried[:, t] = mixture.predict_proba(x)[:, upper]
        carried[x.ravel() < mixture.means_.min(), t] = 0.0  # a wide upper Gaussian must not claim the far left
    return carried


def tag_class(carried: np.ndarray) -> np.ndarray:
    """``"negative"``, ``"singlet"`` or ``"doublet"``: the most probable number of tags (0, 1, more), tags independent.

    Args:
        carried: probabilities or calls, droplets x tags.
    """
    p = np.clip(np.asarray(carried, dtype=float), 1e-9, 1 - 1e-9)
    none = np.prod(1 - p, axis=1)
    one = none * (p / (1 - p)).sum(axis=1)
    return np.array(["negative", "singlet", "doublet"])[np.argmax([none, one, 1 - none - one], axis=0)]
