# Exported by `scprimer export` from notebooks/tasks/metrics.ipynb. Edit the notebook, not this file.
"""What the chapter "Scores, and what they miss" builds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import chdtrc
from sklearn.cluster import KMeans

from scprimer.methods.unsupervised import nearest

__all__ = [
    "BIOLOGY",
    "MIXING",
    "aggregate",
    "ari",
    "batch_variance",
    "between",
    "checked",
    "clisi",
    "coded",
    "contingency",
    "f1",
    "graph_connectivity",
    "ilisi",
    "kbet",
    "knn",
    "lisi",
    "mpbd",
    "neighbour_weights",
    "nmi",
    "pcr_comparison",
    "scores",
    "silhouette",
    "silhouette_batch",
    "silhouette_label",
]


def coded(n, least=1, **named):
    """Check one labelling of ``n`` cells and number its groups: ``coded(len(X), batch=batch)``.

    Args:
        n: number of cells.
        least: every group needs so many cells.
        named: one keyword, the labelling under the name that a message calls it by; one label a cell.

    Returns:
        ``(names, code, size)``: the groups' names, sorted; the number of each cell's group; cells in each group.

    Raises:
        ValueError: another number of labels than cells, missing labels, a single group, or a group with fewer than ``least`` cells.
    """
    ((what, labels),) = named.items()
    labels = np.asarray(labels, dtype=object)
    if labels.shape != (n,):
        raise ValueError(f"{what}: {labels.size} labels for {n} cells, one each is needed")
    code, names = pd.factorize(labels)  # -1 for None and NaN
    if (code < 0).any() or "" in names.tolist():
        raise ValueError(f"{what}: some cells have no label; leave them out first")
    names = names.astype(str)
    order = np.argsort(names)
    names, code = names[order], np.argsort(order)[code]
    size = np.bincount(code, minlength=len(names))
    if len(names) < 2:
        raise ValueError(f"{what}: all cells are in one group ({', '.join(names)}), and this score compares groups")
    if size.min() < least:
        raise ValueError(f"{what}: '{names[size.argmin()]}' has {size.min()} cell(s), {least} or more are needed; "
                         "leave that group out")  # fmt: skip
    return names, code, size


def checked(X):
    """An embedding, cells x dimensions, as float64; ValueError if it is no matrix, empty, or holds NaN or infinity."""
    X = np.asarray(X, dtype=float)
    if X.ndim != 2 or X.size == 0:
        raise ValueError(f"X has the shape {X.shape}: an embedding is cells x dimensions, with at least one of each")
    if not np.isfinite(X).all():
        raise ValueError("X holds NaN or infinity: find out where they come from before scoring")
    return X


def contingency(a, b):
    """Cells of each pair of groups, ``len(set(a)) x len(set(b))``, with the names of rows and columns.

    Returns:
        ``(table, rows, columns)``.

    Raises:
        ValueError: different numbers of labels, none, or missing ones.
    """
    a, b = np.asarray(a, dtype=object), np.asarray(b, dtype=object)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"{a.size} and {b.size} labels: two of each cell are needed")
    if any(x is None or x != x for x in a) or any(x is None or x != x for x in b):
        raise ValueError("some cells have no label; leave them out first")
    (rows, i), (columns, j) = (np.unique(x.astype(str), return_inverse=True) for x in (a, b))
    return np.bincount(i * len(columns) + j, minlength=len(rows) * len(columns)).reshape(len(rows), -1), rows, columns


def ari(a, b):
    """Adjusted Rand index of two groupings of the same cells: 1 for equal, about 0 by chance, can be negative.

    Source: Hubert and Arabie (1985).
    """
    table = contingency(a, b)[0].astype(float)
    pairs = lambda n: (n * (n - 1) / 2).sum()  # noqa: E731
    both, in_a, in_b = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    chance = in_a * in_b / max(pairs(table.sum()), 1)
    most = (in_a + in_b) / 2
    return 1.0 if most == chance else float((both - chance) / (most - chance))


def nmi(a, b):
    """Mutual information of two groupings divided by the mean of their entropies: 0 (independent) to 1 (equal).

    Not adjusted for chance: it grows with the number of clusters. Two groupings of one group each are equal, 1.
    """
    share = contingency(a, b)[0] / len(a)
    entropy = lambda p: -(p[p > 0] * np.log(p[p > 0])).sum()  # noqa: E731
    rows, columns = entropy(share.sum(1)), entropy(share.sum(0))
    if rows + columns == 0:
        return 1.0
    return float(np.clip(2 * (rows + columns - entropy(share)) / (rows + columns), 0, 1))


def f1(truth, predicted, average="macro", match=False):
    """F1 over the types of ``truth``, between 0 and 1.

    Args:
        truth, predicted: one label a cell.
        average: ``"macro"`` (each type counts the same) or ``"weighted"`` (by its cells).
        match: the predictions are clusters: give each the name of a type, one to one, such that most cells agree; a cluster
            that is left over has no name and is wrong.
    """
    if average not in ("macro", "weighted"):
        raise ValueError(f"average={average!r}: use 'macro' or 'weighted'")
    table, rows, columns = contingency(truth, predicted)
    found, called = np.zeros(len(rows)), np.zeros(len(rows))
    i, j = linear_sum_assignment(-table) if match else np.nonzero(rows[:, None] == columns)
    found[i], called[i] = table[i, j], table.sum(0)[j]
    score = 2 * found / (table.sum(1) + called)
    return float(score.mean() if average == "macro" else (score * table.sum(1)).sum() / table.sum())


def knn(X, k=90):
    """The neighbourhood of each cell, exactly: ``k`` cells with itself, so ``k - 1`` others, the nearest first.

    Args:
        X: cells x dimensions.
        k: from 2 to the number of cells.

    Returns:
        ``(index, distance)``, each cells x ``k - 1``.
    """
    X = checked(X)
    if not 2 <= k <= len(X):
        raise ValueError(f"k={k} cells in a neighbourhood, among {len(X)}: choose k between 2 and {len(X)}")
    return nearest(X - X.mean(0), k - 1)


def _near(X, k, neighbours):
    """The first ``k - 1`` columns of given neighbours, or of those computed from ``X``."""
    if neighbours is None:
        return knn(X, k)
    index, distance = (np.asarray(x) for x in neighbours)
    if index.shape != distance.shape or index.ndim != 2 or not 2 <= k <= index.shape[1] + 1:
        raise ValueError(f"neighbours of the shapes {index.shape} and {distance.shape} give no neighbourhoods of k={k} cells: "
                         f"compute them with knn(X, {k})")  # fmt: skip
    return index[:, : k - 1], distance[:, : k - 1]


def silhouette(X, labels, between="nearest", block=512):
    """The silhouette of every cell, between -1 and 1; 0 for a cell that is alone in its group.

    Args:
        X: cells x dimensions.
        labels: one a cell, two groups or more.
        between: the other group is the ``"nearest"`` one, or the ``"mean"`` over all cells of other groups.
        block: rows of the distance matrix in memory.

    Source: Rousseeuw (1987); ``"mean"`` is the change of Rautenstrauch and Ohler (2025).
    """
    X = checked(X)
    if between not in ("nearest", "mean"):
        raise ValueError(f"between={between!r}: use 'nearest' or 'mean'")
    names, code, size = coded(len(X), labels=labels)
    X, member, sums = X - X.mean(0), np.eye(len(names))[code], np.empty((len(X), len(names)))
    squares = (X**2).sum(1)
    for start in range(0, len(X), block):
        rows = slice(start, start + block)
        D = X[rows] @ X.T  # block x cells
        D *= -2
        D += squares
        D += squares[rows, None]
        at = np.arange(len(D))
        D[at, start + at] = 0
        sums[rows] = np.sqrt(np.maximum(D, 0, out=D), out=D) @ member
    return _silhouette_of(sums, code, size, between)


def _silhouette_of(sums, code, size, between):
    """Silhouettes from the summed distances, cells x groups, of each cell to each group."""
    rows = np.arange(len(code))
    own = sums[rows, code] / np.maximum(size[code] - 1, 1)
    if between == "mean":
        other = (sums.sum(1) - sums[rows, code]) / (len(code) - size[code])
    else:
        means = sums / size
        means[rows, code] = np.inf
        other = means.min(1)
    largest = np.maximum(own, other)
    return np.where((size[code] > 1) & (largest > 0), (other - own) / np.where(largest > 0, largest, 1), 0.0)


def silhouette_label(X, labels, rescale=True):
    """Mean silhouette of types; rescaled to (s + 1) / 2, so 0 to 1, 0.5 for types that are no groups. High is good.

    Source: Luecken et al. (2022).
    """
    s = float(silhouette(X, labels).mean())
    return (s + 1) / 2 if rescale else s


def silhouette_batch(X, batch, labels, between="nearest"):
    """Mean over types of 1 - abs(silhouette of batches within the type): 0 to 1, 1 where batches cannot be told. High is good.

    Types that are in one batch only say nothing about mixing and are left out; so is a type whose batches have one cell each.

    Args:
        X: cells x dimensions.
        batch, labels: one each a cell.
        between: see :func:`silhouette`; ``"mean"`` gives BRAS (with Euclidean distances), which sees nested batches.

    Raises:
        ValueError: as :func:`coded`; or no type is in two batches.

    Source: Luecken et al. (2022); BRAS: Rautenstrauch and Ohler (2025).
    """
    X = checked(X)
    coded(len(X), batch=batch, least=2)
    batch, labels = np.asarray(batch).astype(str), np.asarray(labels).astype(str)
    found = []
    for k in _types(len(X), labels):
        n_batches = len(set(batch[labels == k]))
        if 1 < n_batches < (labels == k).sum():
            found.append(1 - np.abs(silhouette(X[labels == k], batch[labels == k], between)).mean())
    if not found:
        raise ValueError("no label is in two batches: batch and label are confounded, and mixing cannot be measured")
    return float(np.mean(found))


def _types(n, labels):
    """Names of the types; one type is enough where batches are compared within types."""
    if len(labels) == n and len(set(labels)) == 1:
        return np.unique(np.asarray(labels).astype(str))
    return coded(n, labels=labels)[0]


def neighbour_weights(distance, perplexity, tol=1e-5, rounds=60):
    """Weights of each cell's neighbours, proportional to exp(-beta * distance), with a given perplexity.

    Args:
        distance: cells x neighbours.
        perplexity: effective number of neighbours, from 1 to fewer than there are.
        tol: on the entropy, in nats. Where ties make it unreachable the closest is kept.
        rounds: at most so many steps.

    Returns:
        cells x neighbours; each row sums to 1.
    """
    d, target = distance - distance.min(1, keepdims=True), np.log(perplexity)
    spread = np.maximum(d.std(1), 1e-12)
    beta = np.sqrt(2 * (np.log(d.shape[1]) - target)) / spread  # where the entropy would be right for normal distances
    low, high = np.zeros(len(d)), np.full(len(d), np.inf)
    for _ in range(rounds):
        weight = np.exp(d * -beta[:, None])
        total = weight.sum(1)
        weight /= total[:, None]
        mean, square = np.einsum("ij,ij->i", weight, d), np.einsum("ij,ij,ij->i", weight, d, d)
        gap = np.log(total) + beta * mean - target  # entropy - target
        if np.abs(gap).max() < tol:
            break
        low, high = np.where(gap > 0, beta, low), np.where(gap > 0, high, beta)
        newton = beta * np.exp(np.clip(gap / np.maximum(beta**2 * (square - mean**2), 1e-12), -1, 1))
        halved = np.where(np.isinf(high), 2 * beta, (low + high) / 2)
        step = np.where((newton > low) & (newton < high), newton, halved)
        beta = np.where(np.abs(gap) < tol, beta, step)
    return weight


def lisi(X, labels, k=90, perplexity=None, neighbours=None, block=512):
    """The effective number of labels around each cell, from 1 to the number of labels.

    Args:
        X: cells x dimensions; not needed with ``neighbours``.
        labels: one a cell.
        k: cells of a neighbourhood, itself included; the cell itself has no weight.
        perplexity: default: a third of ``k``, rounded down.
        neighbours: what :func:`knn` returns, computed once for several scores.
        block: cells that are worked on at once.

    Source: Korsunsky et al. (2019).
    """
    index, distance = _near(X, k, neighbours)
    names, code, _ = coded(len(index), labels=labels)
    perplexity = k // 3 if perplexity is None else perplexity
    if not 1 <= perplexity < k - 1:
        raise ValueError(f"perplexity={perplexity} with k={k}: it lies between 1 and k - 1, usually k / 3")
    found = np.empty(len(index))
    for start in range(0, len(index), block):
        rows = slice(start, start + block)
        weight = neighbour_weights(distance[rows], perplexity)
        cell_and_label = code[index[rows]] + len(names) * np.arange(len(weight))[:, None]
        share = np.bincount(cell_and_label.ravel(), weight.ravel(), len(weight) * len(names)).reshape(len(weight), -1)
        found[rows] = 1 / (share**2).sum(1)
    return found


def ilisi(X, batch, k=90, perplexity=None, neighbours=None, scale=True):
    """Median LISI of batches, scaled to (iLISI - 1) / (batches - 1): 0 to 1, high is good. See :func:`lisi`.

    1 is reached only by batches of equal size; compare with the value of shuffled batches. Source: Luecken et al. (2022).
    """
    names, _, _ = coded(len(batch), batch=batch, least=2)
    value = float(np.median(lisi(X, batch, k, perplexity, neighbours)))
    return (value - 1) / (len(names) - 1) if scale else value


def clisi(X, labels, k=90, perplexity=None, neighbours=None, scale=True):
    """Median LISI of types, scaled to (types - cLISI) / (types - 1): 0 to 1, high is good; unscaled, 1 is best.

    Source: Luecken et al. (2022).
    """
    names, _, _ = coded(len(labels), labels=labels)
    value = float(np.median(lisi(X, labels, k, perplexity, neighbours)))
    return (len(names) - value) / (len(names) - 1) if scale else value


def kbet(X, batch, labels=None, k=50, alpha=0.05, neighbours=None):
    """kBET's acceptance rate: share of cells around which batches have the shares that they have overall. 0 to 1, high is good.

    With perfect mixing it is about ``1 - alpha``. Without ``labels`` a difference in composition between batches counts as a batch effect.

    Args:
        X: cells x dimensions.
        batch: one a cell.
        labels: test within each type and average over types. Types in one batch only, or with fewer than 10 cells, are left out;
            the neighbourhood is a quarter of the type's mean batch, from 10 to 70 cells, and ``k`` and ``neighbours`` are not used.
        k: cells of a neighbourhood, itself included.
        alpha: level of the test.
        neighbours: what :func:`knn` returns.

    Source: Buettner et al. (2019); within types: Luecken et al. (2022).
    """
    if labels is not None:
        return _kbet_within(checked(X), batch, labels, alpha)
    index, _ = _near(X, k, neighbours)
    _, code, size = coded(len(index), batch=batch, least=2)
    return float(_kbet(index, code, size, alpha).mean())


def _kbet(index, code, size, alpha):
    """Which cells are accepted, given the neighbours of each and the batch of each."""
    cell_and_batch = code[index] + len(size) * np.arange(len(code))[:, None]
    seen = np.bincount(cell_and_batch.ravel(), minlength=len(code) * len(size)).reshape(
        len(code), -1
    )  # cells x batches
    seen[np.arange(len(code)), code] += 1  # the cell itself
    expected = (index.shape[1] + 1) * size / size.sum()
    statistic = ((seen - expected) ** 2 / expected).sum(1)
    return chdtrc(len(size) - 1, statistic) >= alpha


def _kbet_within(X, batch, labels, alpha):
    """Mean over types of kBET's acceptance among the cells of the type."""
    coded(len(X), batch=batch, least=2)
    batch, labels, found = np.asarray(batch).astype(str), np.asarray(labels).astype(str), []
    for name in _types(len(X), labels):
        inside = labels == name
        names, code, size = np.unique(batch[inside], return_inverse=True, return_counts=True)
        if inside.sum() >= 10 and len(names) > 1:
            k = int(np.clip(size.mean() // 4, 10, 70))
            found.append(_kbet(knn(X[inside], k)[0], code, size, alpha).mean())
    if not found:
        raise ValueError("no label has ten cells in two batches: mixing within types cannot be tested")
    return float(np.mean(found))


def batch_variance(X, batch, components=None):
    """Share of the variance that the batch explains (PC regression): 0 to 1, low is good.

    Args:
        X: cells x dimensions.
        batch: one a cell.
        components: only the first so many principal components of ``X``; default: all, for which no PCA is needed.

    Source: Buettner et al. (2019).
    """
    X = checked(X)
    names, code, size = coded(len(X), batch=batch, least=2)
    X = X - X.mean(0)
    if components is not None:
        if not 1 <= components <= min(X.shape):
            raise ValueError(f"components={components} of an embedding of the shape {X.shape}")
        X = X @ np.linalg.eigh(X.T @ X)[1][:, -components:]
    total = (X**2).sum()
    if total == 0:
        raise ValueError("all cells are in the same place: there is no variance to explain")
    centre = _sums(X, code, len(names)) / size[:, None]  # batches x dimensions
    return float((size[:, None] * centre**2).sum() / total)


def _sums(X, code, n):
    """Sum of the rows of each group: groups x dimensions."""
    return np.eye(n)[code].T @ X


def pcr_comparison(before, after, batch):
    """How much of the batch variance is gone: (before - after) / before, 0 when it has grown. 0 to 1, high is good.

    Both are cells x dimensions, of the same cells. Source: Luecken et al. (2022).
    """
    first = batch_variance(before, batch)
    return max(0.0, (first - batch_variance(after, batch)) / first) if first > 0 else 0.0


def mpbd(X, batch, labels=None, relative=True):
    """Median pairwise batch distance: between the centroids of two batches, over the spread within them. 0 or more, low is good.

    Args:
        X: cells x dimensions.
        batch: one a cell.
        labels: compare within each type, where both batches have two or more cells of it; default: whole batches, so that a
            difference in composition counts, too.
        relative: divide by the root mean square distance of cells to their batch's centroid (of the two, pooled). Otherwise the
            unit is that of ``X``, and shrinking ``X`` shrinks the score.

    Returns:
        The median over pairs of batches (and types).

    Source: named by Simmons (2026) without a formula; this is the book's reading of it.
    """
    X = checked(X)
    names, code, _ = coded(len(X), batch=batch, least=2)
    labels, found = np.asarray(["all"] * len(X) if labels is None else labels).astype(str), []
    for name in _types(len(X), labels):
        parts = [X[(labels == name) & (code == b)] for b in range(len(names))]
        found += [_apart(p, q, relative) for i, p in enumerate(parts) for q in parts[:i] if min(len(p), len(q)) > 1]
    if not found:
        raise ValueError("no label has two cells in each of two batches: no distance between batches can be measured")
    return float(np.median(found))


def _apart(p, q, relative):
    """Distance of the centroids of two groups of cells, in units of their spread if ``relative``."""
    gap = np.linalg.norm(p.mean(0) - q.mean(0))
    spread = np.sqrt((((p - p.mean(0)) ** 2).sum() + ((q - q.mean(0)) ** 2).sum()) / (len(p) + len(q)))
    return gap / spread if relative and spread > 0 else gap


def graph_connectivity(X, labels, k=15, neighbours=None):
    """Mean over types of the share of cells in the type's largest connected piece of the neighbour graph. 0 to 1, high is good.

    Edges point from a cell to its neighbours, and a piece is one in which every cell reaches every other along edges within the type
    (strongly connected), as in scib-metrics.

    Args:
        X: cells x dimensions.
        labels: one a cell.
        k: cells of a neighbourhood, itself included.
        neighbours: what :func:`knn` returns.

    Source: Luecken et al. (2022).
    """
    index, _ = _near(X, k, neighbours)
    names, code, size = coded(len(index), labels=labels)
    cell, other = np.repeat(np.arange(len(index)), index.shape[1]), index.ravel()
    same = code[cell] == code[other]
    graph = csr_matrix((np.ones(same.sum()), (cell[same], other[same])), shape=(len(index), len(index)))
    piece = connected_components(graph, connection="strong")[1]  # a piece lies within one type
    sizes = np.bincount(piece)[piece]
    return float(np.mean([sizes[code == t].max() / size[t] for t in range(len(names))]))


BIOLOGY = ("ARI", "NMI", "cell-type silhouette", "cLISI")
MIXING = ("batch silhouette", "iLISI", "kBET", "graph connectivity", "PC regression")


def scores(X, batch=None, labels=None, before=None, k=90, seed=0):
    """Every score of an embedding, each between 0 and 1 with high good, and the scIB aggregate.

    Args:
        X: cells x dimensions.
        batch, labels: one each a cell, or None: what needs them is NaN.
        before: the embedding before correction, for ``PC regression``; None: NaN.
        k: cells of a neighbourhood for LISI (kBET within types and connectivity have their own).
        seed: of k-means.

    Returns:
        Series with the scores named in ``BIOLOGY`` and ``MIXING``, then ``biology``, ``mixing`` (their means) and ``total``,
        0.6 biology + 0.4 mixing. scIB's isolated-label score and its trajectory scores are not in it.

    Source: Luecken et al. (2022).
    """
    X, found = checked(X), dict.fromkeys((*BIOLOGY, *MIXING), np.nan)
    near = knn(X, k)
    if labels is not None:
        clusters = KMeans(len(set(labels)), n_init=3, random_state=seed).fit_predict(X)
        found["ARI"], found["NMI"] = ari(labels, clusters), nmi(labels, clusters)
        found["cell-type silhouette"] = silhouette_label(X, labels)
        found["cLISI"] = clisi(X, labels, k, neighbours=near)
        found["graph connectivity"] = graph_connectivity(X, labels, min(15, k), neighbours=near)
    if batch is not None:
        found["iLISI"] = ilisi(X, batch, k, neighbours=near)
        found["PC regression"] = np.nan if before is None else pcr_comparison(before, X, batch)
    if batch is not None and labels is not None:
        found["batch silhouette"], found["kBET"] = silhouette_batch(X, batch, labels), kbet(X, batch, labels)
    return aggregate(pd.Series(found))


def aggregate(scores):
    """A Series of scores with ``biology``, ``mixing`` and ``total`` = 0.6 biology + 0.4 mixing appended; NaN if a part is."""
    biology, mixing = (scores[list(part)].mean(skipna=False) for part in (BIOLOGY, MIXING))
    return pd.concat([scores, pd.Series({"biology": biology, "mixing": mixing, "total": 0.6 * biology + 0.4 * mixing})])


def between(value, nothing, shuffled, least=1e-3):
    """Where a batch score lies between two anchors: 0 = as before correction, 1 = as with shuffled batches.

    It works for scores where low is good as well. Below 0 the correction has done harm; above 1 batches are spread more evenly than
    chance would. NaN where the anchors differ by less than ``least``: there is nothing to correct.
    """
    return float((value - nothing) / (shuffled - nothing)) if abs(shuffled - nothing) >= least else float("nan")
