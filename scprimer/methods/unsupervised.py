# Exported by `scprimer export` from notebooks/learning/unsupervised.ipynb. Edit the notebook, not this file.
"""What the chapter "Structure without labels" builds."""

from __future__ import annotations

import random

import anndata as ad
import igraph
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness

from scprimer import metrics

__all__ = [
    "above_noise",
    "affinities",
    "by_size",
    "divergence",
    "fuzzy_graph",
    "jaccard_graph",
    "kmeans",
    "largest_gap",
    "layout_quality",
    "leiden",
    "log_normalise",
    "louvain",
    "modularity",
    "nearest",
    "neighbour_matrix",
    "pca",
    "phenograph",
    "rank_sum",
    "scaled",
]


def log_normalise(counts, n_genes=2000):
    """Log-CP10K and variable genes.

    Args:
        counts: AnnData, cells x genes, raw counts in ``X``.
        n_genes: number of variable genes to mark in ``var["highly_variable"]``.

    Returns:
        A new AnnData with log(1 + counts per ten thousand) in ``X``; genes found in fewer than 3 cells are left out.
    """
    cells = counts.copy()
    sc.pp.filter_genes(cells, min_cells=3)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=n_genes)
    return cells


def scaled(cells):
    """The variable genes, each with mean 0 and variance 1, cut off at 10: cells x variable genes, float."""
    X = cells[:, cells.var["highly_variable"]].X.toarray().astype(float)
    return np.clip((X - X.mean(0)) / X.std(0, ddof=1), -10, 10)


def pca(X, n):
    """Principal components by the singular value decomposition of the centred matrix.

    Args:
        X: cells x features, float; it is centred here.
        n: number of components, at most the smaller side of ``X``.

    Returns:
        ``(scores, loadings, variance)``: cells x ``n``, features x ``n`` (orthonormal columns), and the variance along each
        component, falling. The sign of a component is arbitrary.

    Source: Pearson (1901).
    """
    U, S, Vt = np.linalg.svd(X - X.mean(0), full_matrices=False)
    return U[:, :n] * S[:n], Vt[:n].T, S[:n] ** 2 / (len(X) - 1)


def above_noise(X, seed=0):
    """How many principal components stand out of noise: parallel analysis (Horn 1965).

    Args:
        X: cells x features.
        seed: seed of the shuffling, which permutes every feature over the cells on its own.

    Returns:
        ``(n, variance, noise)``: how many components have more variance than the first one of the shuffled matrix, and
        the variances of the components of both.
    """
    shuffled = np.random.default_rng(seed).permuted(X, axis=0)
    variance, noise = (np.linalg.svd(M - M.mean(0), compute_uv=False) ** 2 / (len(M) - 1) for M in (X, shuffled))
    return int((variance > noise[0]).sum()), variance, noise


def nearest(Z, k, block=1000):
    """The ``k`` nearest other cells of each cell, exactly.

    Args:
        Z: cells x features.
        k: number of neighbours, fewer than there are cells.
        block: cells whose distances are held in memory at once.

    Returns:
        ``(index, distance)``, each cells x ``k``, the nearest first. A cell is not its own neighbour.
    """
    squares = (Z**2).sum(1)
    index = np.empty((len(Z), k), dtype=int)
    for start in range(0, len(Z), block):
        rows = np.arange(start, min(start + block, len(Z)))
        d2 = squares[rows, None] + squares - 2 * Z[rows] @ Z.T  # block x cells
        d2[rows - start, rows] = np.inf  # not oneself
        index[rows] = np.argpartition(d2, k - 1, axis=1)[:, :k]
    distance = np.stack([np.linalg.norm(Z - Z[index[:, j]], axis=1) for j in range(k)], axis=1)
    order = np.argsort(distance, axis=1, kind="stable")
    return np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)


def fuzzy_graph(Z, k):
    """UMAP's weighted neighbour graph, the graph that scanpy hands to Leiden.

    Args:
        Z: cells x features.
        k: neighbours, the cell itself included (as in umap-learn and scanpy).

    Returns:
        Symmetric csr matrix, cells x cells, weights between 0 and 1.

    Source: McInnes et al. (2018), section 3.1, with local connectivity 1.
    """
    index, distance = nearest(Z, k - 1)
    beyond = np.maximum(distance - distance[:, :1], 0)  # rho is the distance to the nearest
    low, high = np.zeros((len(Z), 1)), np.full((len(Z), 1), np.inf)
    sigma = np.ones((len(Z), 1))
    for _ in range(64):
        too_wide = np.exp(-beyond / sigma).sum(1, keepdims=True) > np.log2(k)
        low, high = np.where(too_wide, low, sigma), np.where(too_wide, sigma, high)
        sigma = np.where(np.isinf(high), 2 * low, (low + high) / 2)
    sigma = np.maximum(sigma, 1e-3 * distance.mean(1, keepdims=True))
    w = neighbour_matrix(index, np.exp(-beyond / sigma))
    return (w + w.T - w.multiply(w.T)).tocsr()


def neighbour_matrix(index, weight):
    """Sparse cells x cells matrix with ``weight[i, j]`` in row i, column ``index[i, j]``."""
    n, k = index.shape
    return sp.csr_matrix((np.asarray(weight, float).ravel(), index.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def modularity(graph, clusters, resolution=1.0):
    """Modularity of a grouping of a weighted undirected graph (symmetric sparse matrix without self-loops)."""
    member = sp.csr_matrix(pd.get_dummies(np.asarray(clusters)).to_numpy(dtype=float))  # cells x clusters
    degree = np.asarray(graph.sum(1)).ravel()
    inside = (member.T @ graph @ member).diagonal() / degree.sum()
    expected = (member.T @ degree / degree.sum()) ** 2
    return float((inside - resolution * expected).sum())


def by_size(clusters):
    """The same clusters, numbered from 0 by falling size."""
    _, found = np.unique(clusters, return_inverse=True)
    return np.argsort(np.argsort(-np.bincount(found), kind="stable"))[found]


def leiden(graph, resolution=1.0, seed=0):
    """Leiden clusters of a weighted graph: integers from 0, the largest cluster first.

    scanpy's call of igraph's implementation with its recommended two iterations. Source: Traag et al. (2019).
    """
    cells = ad.AnnData(obs=pd.DataFrame(index=[str(i) for i in range(graph.shape[0])]))
    options = {"flavor": "igraph", "n_iterations": 2, "directed": False}
    sc.tl.leiden(cells, adjacency=graph, resolution=resolution, random_state=seed, **options)
    return by_size(cells.obs["leiden"].to_numpy(dtype=int))


def jaccard_graph(index):
    """Edges between neighbours, weighted by the share of neighbours that both ends have.

    Args:
        index: cells x k, the neighbours of each cell (see :func:`nearest`).

    Returns:
        Symmetric csr matrix, cells x cells: the mean of the Jaccard indices of the edges i -> j and j -> i, where a missing
        edge counts 0.
    """
    near = neighbour_matrix(index, np.ones(index.shape))
    shared = (near @ near.T).multiply(near).tocsr()  # |N_i and N_j|, for j in N_i
    shared.data /= 2 * index.shape[1] - shared.data
    return ((shared + shared.T) / 2).tocsr()


def louvain(graph, resolution=1.0, seed=0):
    """Louvain clusters of a weighted symmetric graph: integers from 0, the largest cluster first."""
    half = sp.triu(graph, 1).tocoo()
    network = igraph.Graph(n=graph.shape[0], edges=np.stack([half.row, half.col], axis=1))
    igraph.set_random_number_generator(random.Random(seed))
    return by_size(network.community_multilevel(half.data, resolution=resolution).membership)


def phenograph(Z, k=30, resolution=1.0, seed=0, min_size=10):
    """PhenoGraph: Louvain communities of the graph of shared neighbours.

    Args:
        Z: cells x features.
        k: neighbours of a cell, itself not counted.
        resolution: of the modularity; the paper has 1.
        seed: of Louvain's order of moves.
        min_size: clusters with fewer cells are given up.

    Returns:
        Clusters, integers from 0, the largest first; -1 for cells in clusters that were given up.

    Source: Levine et al. (2015).
    """
    clusters = louvain(jaccard_graph(nearest(Z, k)[0]), resolution, seed)
    return np.where(np.bincount(clusters)[clusters] < min_size, -1, clusters)


def kmeans(Z, centres, steps=300):
    """k-means from given starting centres (Lloyd 1982).

    Args:
        Z: cells x features.
        centres: clusters x features, where to start.
        steps: at most so many rounds.

    Returns:
        ``(clusters, centres)``: the cluster of each cell, and clusters x features. A centre without cells stays where it is.
    """
    for _ in range(steps):
        clusters = ((Z[:, None] - centres) ** 2).sum(2).argmin(1)  # cells x clusters -> cells
        moved = np.array([Z[clusters == c].mean(0) if (clusters == c).any() else old for c, old in enumerate(centres)])
        if np.allclose(moved, centres, rtol=0, atol=1e-12):
            break
        centres = moved
    return clusters, centres


def affinities(Z, perplexity):
    """t-SNE's symmetric affinities, exactly (all pairs: for a thousand cells or so).

    Args:
        Z: cells x features.
        perplexity: effective number of neighbours of each cell.

    Returns:
        cells x cells, zero diagonal, sum 1.

    Source: van der Maaten and Hinton (2008), equations 1 and 2 with symmetrisation.
    """
    d2 = ((Z[:, None] - Z) ** 2).sum(2)
    np.fill_diagonal(d2, np.inf)  # no cell picks itself
    d2 -= d2.min(1, keepdims=True)  # changes no probability, and the exponential cannot underflow
    low, high = np.zeros((len(Z), 1)), np.full((len(Z), 1), np.inf)
    beta = np.ones((len(Z), 1))  # 1 / (2 sigma^2)
    for _ in range(100):
        p = np.exp(-d2 * beta)
        p /= p.sum(1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1, keepdims=True)
        too_wide = entropy > np.log(perplexity)
        low, high = np.where(too_wide, beta, low), np.where(too_wide, high, beta)
        beta = np.where(np.isinf(high), 2 * low, (low + high) / 2)
    return (p + p.T) / (2 * len(Z))


def divergence(P, Y):
    """t-SNE's cost: Kullback-Leibler divergence of the layout ``Y`` (cells x 2) from the affinities ``P``, in nats."""
    q = 1 / (1 + ((Y[:, None] - Y) ** 2).sum(2)) * (1 - np.eye(len(Y)))
    return float((P * np.log(np.maximum(P, 1e-300) / np.maximum(q / q.sum(), 1e-300))).sum())


def rank_sum(x, inside):
    """Standard score of the Wilcoxon rank-sum test, corrected for ties, without continuity correction.

    Args:
        x: expression of one gene, a value a cell.
        inside: bool, a value a cell: in the cluster or not.

    Returns:
        z; above 0 when the gene is higher inside. 0 when all values are equal.

    Source: Wilcoxon (1945); normal approximation.
    """
    x, inside = np.asarray(x, float), np.asarray(inside, bool)
    n, n1 = len(x), inside.sum()
    t = np.unique(x, return_counts=True)[1].astype(float)
    variance = n1 * (n - n1) / 12 * ((n + 1) - (t**3 - t).sum() / (n * (n - 1)))
    return float((rankdata(x)[inside].sum() - n1 * (n + 1) / 2) / np.sqrt(variance)) if variance > 0 else 0.0


def layout_quality(Z, Y, groups, k=15, seed=0, least=0.05):
    """What a layout keeps of the space that it was made from.

    Args:
        Z: cells x features, the space.
        Y: cells x 2, the layout.
        groups: a label a cell; the distances between their centres are compared.
        k: size of a neighbourhood.
        seed: draws the pairs of cells.
        least: groups with a smaller share of the cells are left out.

    Returns:
        ``trustworthiness`` (0 to 1), ``neighbours`` (share of the ``k`` nearest that stay, 0 to 1), ``distances`` and
        ``groups`` (rank correlations of the distances between cells, and between centres of groups; the latter NaN for
        fewer than three groups).
    """
    large = [g for g in np.unique(groups) if (groups == g).mean() >= least]
    centres = [[M[groups == g].mean(0) for g in large] for M in (Z, Y)]
    return {
        "trustworthiness": trustworthiness(Z, Y, n_neighbors=k),
        "neighbours": metrics.neighbour_overlap(Z, Y, k),
        "distances": metrics.distance_correlation(Z, Y, seed=seed),
        "groups": spearmanr(*map(pdist, centres)).statistic if len(large) > 2 else np.nan,
    }


def largest_gap(Y):
    """Longest edge of the minimum spanning tree over the median edge: how badly the points fall apart.

    Args:
        Y: points x dimensions, no two points in the same place.

    Returns:
        About 3 for hundreds of points scattered evenly in the plane; more where there is a gap.
    """
    edges = minimum_spanning_tree(squareform(pdist(Y))).data
    return float(edges.max() / np.median(edges))
