# Exported by `scprimer export` from notebooks/networks/graph-networks.ipynb. Edit the notebook, not this file.
"""What the chapter "Graph networks" builds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from sklearn.neighbors import kneighbors_graph
from sklearn.neighbors import radius_neighbors_graph
from sklearn.utils.extmath import randomized_svd
from torch import nn

from scprimer.run import find_device
from scprimer.train import fit

__all__ = [
    "CellGeneNet",
    "Edges",
    "GATLayer",
    "GCNLayer",
    "GraphNet",
    "attention",
    "check_features",
    "checked_adjacency",
    "dirichlet_energy",
    "edges_of",
    "expression_weights",
    "gather",
    "gene_states",
    "homophily",
    "joined",
    "knn_graph",
    "label_propagation",
    "mean_cosine",
    "normalised",
    "predict_nodes",
    "radius_graph",
    "rewired",
    "smooth",
    "spatial_blocks",
    "train_nodes",
]


def checked_adjacency(A, n=None):
    """The adjacency of an undirected graph, looked at before use.

    Args:
        A: nodes x nodes, sparse or dense; weights of edges, 0 where there is none.
        n: nodes that there should be, such as the rows of a feature table; None: any number.

    Returns:
        csr matrix of floats without stored zeros. Self-loops stay. Isolated nodes (an empty row) are allowed.

    Raises:
        ValueError: not square, another number of nodes than ``n``, weights that are negative or not finite, or asymmetric.
    """
    A = sp.csr_matrix(A, dtype=float, copy=True)
    A.sum_duplicates()
    A.eliminate_zeros()
    if A.shape[0] != A.shape[1] or A.shape[0] == 0:
        raise ValueError(f"an adjacency is nodes x nodes, and this is {A.shape[0]} x {A.shape[1]}")
    if n is not None and A.shape[0] != n:
        raise ValueError(
            f"the graph has {A.shape[0]:,} nodes and the features {n:,} rows: give one row a node, in the graph's order"
        )
    if not np.isfinite(A.data).all() or (A.data < 0).any():
        raise ValueError("weights of edges must be finite and not negative: degrees under a square root have no meaning otherwise. "
                         "Turn distances into similarities, and drop negative correlations or take their size")  # fmt: skip
    if abs(A - A.T).max() > 1e-9 * max(A.data.max(initial=0.0), 1):
        raise ValueError(
            "the adjacency is not symmetric: some edges go one way only. Use A.maximum(A.T), or (A + A.T) / 2"
        )
    return A


def joined(Z, neighbours, groups=None, least=1):
    """A symmetric 0/1 adjacency from ``neighbours(Z of a group)``, without edges between groups or to oneself."""
    Z = np.asarray(Z, dtype=float)
    if Z.ndim != 2 or not np.isfinite(Z).all():
        raise ValueError("a graph is made from finite numbers, nodes x features: drop or impute cells with NaN")
    groups = np.zeros(len(Z)) if groups is None else np.asarray(groups)
    if len(groups) != len(Z):
        raise ValueError(f"{len(groups):,} groups were given for {len(Z):,} nodes: give one a node")
    rows, columns = [], []
    for name in np.unique(groups):
        at = np.flatnonzero(groups == name)
        if len(at) < least:
            raise ValueError(
                f"group '{name}' has {len(at)} nodes, and {least} are needed: take a smaller k, or leave it out"
            )
        found = neighbours(Z[at]).tocoo()
        rows.append(at[found.row])
        columns.append(at[found.col])
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    A = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(Z), len(Z)))
    return A.maximum(A.T)


def knn_graph(Z, k, groups=None):
    """Each node joined to its ``k`` nearest, an edge when either chose the other.

    Args:
        Z: nodes x features: coordinates, or components of expression. Euclidean distance.
        k: neighbours, at least 1.
        groups: a name a node; edges stay inside a group (a section, a donor).

    Returns:
        csr, nodes x nodes, symmetric, weights 1, no self-loops.

    Raises:
        ValueError: NaN, ``k`` below 1, or a group with ``k`` nodes or fewer.
    """
    if k < 1:
        raise ValueError(f"k={k}: each node needs at least one neighbour")
    return joined(Z, lambda z: kneighbors_graph(z, k, include_self=False), groups, k + 1)


def radius_graph(xy, radius, groups=None):
    """All pairs of nodes within ``radius`` (in the units of ``xy``, nodes x 2) of each other. Lonely nodes stay isolated.

    Returns:
        csr, nodes x nodes, symmetric, weights 1, no self-loops. ValueError for a radius that is not positive.
    """
    if not radius > 0:
        raise ValueError(f"radius={radius}: it must be positive, in the units of the coordinates")
    return joined(xy, lambda z: radius_neighbors_graph(z, radius, include_self=False), groups)


def normalised(A, kind="symmetric", loops=1.0):
    """The adjacency with self-loops, divided by degrees.

    Args:
        A: symmetric adjacency, nodes x nodes.
        kind: ``"symmetric"`` divides by the square roots of both degrees (Kipf and Welling 2017), ``"mean"`` by the degree
            of the node that gathers.
        loops: weight of the self-loop given to nodes that have none; a loop that is there keeps its weight; 0 adds none.

    Returns:
        csr, nodes x nodes. Rows of nodes that hear nothing are empty, not NaN. ValueError: see ``checked_adjacency``.
    """
    if kind not in ("symmetric", "mean") or loops < 0:
        raise ValueError(f"kind={kind!r}, loops={loops}: use 'symmetric' or 'mean', and loops of 0 or more")
    A = checked_adjacency(A)
    A = A + sp.diags(np.where(A.diagonal() == 0, loops, 0.0))
    degree = np.asarray(A.sum(1)).ravel()
    power = np.zeros_like(degree)
    power[degree > 0] = degree[degree > 0] ** (-0.5 if kind == "symmetric" else -1)
    right = sp.diags(power) if kind == "symmetric" else sp.identity(len(degree))
    out = sp.csr_matrix(sp.diags(power) @ A @ right)
    out.eliminate_zeros()
    return out


@dataclass(frozen=True)
class Edges:
    """A weighted graph as lists on the device: ``target[e]`` hears ``source[e]`` with ``weight[e]``; ``n`` nodes."""

    target: torch.Tensor
    source: torch.Tensor
    weight: torch.Tensor
    n: int


def edges_of(A, device="cpu"):
    """The entries of a sparse matrix (nodes x nodes, such as ``normalised(A)``) as :class:`Edges`."""
    A = sp.coo_matrix(A)
    index = [torch.as_tensor(part, dtype=torch.long, device=device) for part in (A.row, A.col)]
    return Edges(*index, torch.as_tensor(A.data, dtype=torch.float32, device=device), A.shape[0])


def gather(edges, messages):
    """Sum of the messages at each node: edges x ... -> nodes x ...; zero at a node that hears nothing."""
    return messages.new_zeros(edges.n, *messages.shape[1:]).index_add_(0, edges.target, messages)


def check_features(H, edges, n_in):
    """ValueError unless ``H`` has one row a node and ``n_in`` columns."""
    if H.ndim != 2 or H.shape[0] != edges.n or H.shape[1] != n_in:
        raise ValueError(f"features of shape {tuple(H.shape)} for a graph of {edges.n:,} nodes and a layer of {n_in} inputs: "
                         f"give {edges.n:,} x {n_in}, rows in the graph's order")  # fmt: skip


class GCNLayer(nn.Module):
    """Graph convolution: nodes x n_in -> nodes x n_out, by sum of ``weight * (W h)`` over neighbours, plus a bias.

    The edges are those of ``normalised(A)``. Source: Kipf and Welling (2017), equation 2, without the non-linearity.
    """

    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False)
        self.bias = nn.Parameter(torch.zeros(n_out))
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, H, edges):
        """Features (nodes x n_in) and edges -> nodes x n_out; ValueError when they do not match."""
        check_features(H, edges, self.linear.in_features)
        H = self.linear(H)  # message
        return gather(edges, edges.weight[:, None] * H[edges.source]) + self.bias


def attention(edges, scores):
    """Softmax of scores (edges x heads) over the edges that end in the same node; they sum to 1 at each node that hears."""
    at = edges.target[:, None].expand_as(scores)
    top = scores.new_full((edges.n, scores.shape[1]), -torch.inf).scatter_reduce(0, at, scores, "amax")
    weight = (scores - top[edges.target]).exp()
    return weight / gather(edges, weight)[edges.target]


class GATLayer(nn.Module):
    """Graph attention: nodes x n_in -> nodes x (heads * n_out), or x n_out when the heads are averaged.

    Args:
        n_in, n_out: features in, features out of each head.
        heads: attentions side by side.
        concat: put the heads side by side, else take their mean (the last layer).
        slope: of LeakyReLU below zero.

    Source: Velickovic et al. (2018), equations 1 to 6, without the final non-linearity.
    """

    def __init__(self, n_in, n_out, heads=4, concat=True, slope=0.2):
        super().__init__()
        self.shape, self.concat, self.slope = (heads, n_out), concat, slope
        self.linear = nn.Linear(n_in, heads * n_out, bias=False)
        self.a_to, self.a_from = nn.Parameter(torch.empty(heads, n_out)), nn.Parameter(torch.empty(heads, n_out))
        self.bias = nn.Parameter(torch.zeros(heads * n_out if concat else n_out))
        for weight in (self.linear.weight, self.a_to, self.a_from):
            nn.init.xavier_uniform_(weight)

    def forward(self, H, edges, attentions=False):
        """Features and edges -> features; with ``attentions`` also the attention of every edge (edges x heads)."""
        check_features(H, edges, self.linear.in_features)
        Z = self.linear(H).view(-1, *self.shape)  # nodes x heads x n_out
        scores = (Z * self.a_to).sum(-1)[edges.target] + (Z * self.a_from).sum(-1)[edges.source]  # edges x heads
        alpha = attention(edges, F.leaky_relu(scores, self.slope))
        out = gather(edges, alpha[:, :, None] * Z[edges.source])
        out = (out.flatten(1) if self.concat else out.mean(1)) + self.bias
        return (out, alpha) if attentions else out


class GraphNet(nn.Module):
    """A stack of graph layers that names nodes.

    Args:
        n_in, n_hidden, n_out: features of a node, hidden features (all heads together), classes.
        kind: ``"gcn"`` or ``"gat"``.
        layers: how many; a node hears from nodes so many edges away.
        heads: of GAT; ``n_hidden`` must be a multiple.
        dropout: share of features hidden in training.
        own: add a linear map of the node's own features in every layer.
    """

    def __init__(self, n_in, n_hidden, n_out, kind="gcn", layers=2, heads=4, dropout=0.5, own=False):
        super().__init__()
        if kind not in ("gcn", "gat") or layers < 1 or (kind == "gat" and n_hidden % heads):
            raise ValueError(f"kind={kind!r}, layers={layers}, {n_hidden} hidden features in {heads} heads: use 'gcn' or 'gat', "
                             "one layer or more, and hidden features that divide among the heads")  # fmt: skip
        widths, self.dropout = [n_in, *[n_hidden] * (layers - 1), n_out], dropout
        self.layers, self.own = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(pairwise(widths)):
            last = i == layers - 1
            gat = kind == "gat"
            self.layers.append(GATLayer(a, b if last else b // heads, heads, not last) if gat else GCNLayer(a, b))
            if own:
                self.own.append(nn.Linear(a, b, bias=False))

    def forward(self, H, edges, hidden=False):
        """Features (nodes x n_in) -> logits (nodes x n_out); with ``hidden`` the features after every layer, as a list."""
        seen = []
        for i, layer in enumerate(self.layers):
            H = F.dropout(H, self.dropout, self.training)
            H = layer(H, edges) + (self.own[i](H) if len(self.own) else 0)
            H = H if i == len(self.layers) - 1 else F.relu(H)
            seen.append(H)
        return seen if hidden else H


def train_nodes(model, X, A, y, known, *, epochs=100, learning_rate=0.01, weight_decay=5e-4, seed=0, device="auto",
                watch=None, label=""):  # fmt: skip
    """Train a network to name nodes, with the whole graph in every step.

    Args:
        model: takes features and edges, returns nodes x classes.
        X: features, nodes x n_in.
        A: symmetric adjacency, nodes x nodes; self-loops are added and degrees divided out here.
        y: class of each node, whole numbers from 0; those of unknown nodes are not read.
        known: indices of the nodes to learn from.
        watch: nodes whose loss is recorded, and not learnt from.

    Returns:
        :class:`scprimer.train.History`; the settings are those of Kipf and Welling (2017). ValueError when ``X`` and ``A`` do not match.
    """
    checked_adjacency(A, len(X))
    known, y = np.asarray(known), np.asarray(y)
    device = find_device(device)
    edges, X = edges_of(normalised(A), device), torch.as_tensor(np.asarray(X), dtype=torch.float32, device=device)

    def loss(model, batch, epoch):
        return F.cross_entropy(model(X, edges)[batch["node"]], batch["y"])

    adam = partial(torch.optim.Adam, lr=learning_rate, weight_decay=weight_decay)
    held = None if watch is None else {"node": np.asarray(watch), "y": y[watch]}
    return fit(
        model, {"node": known, "y": y[known]}, loss, epochs=epochs, batch_size=len(known), optimiser=adam,
        validation=held, device=device, seed=seed, amp=False, label=label,
    )  # fmt: skip


def predict_nodes(model, X, A):
    """Logits of all nodes (nodes x classes, NumPy) by a trained network; features and graph as in ``train_nodes``."""
    device = next(model.parameters()).device
    checked_adjacency(A, len(X))
    X = torch.as_tensor(np.asarray(X), dtype=torch.float32, device=device)
    with torch.no_grad():
        return model.eval()(X, edges_of(normalised(A), device)).cpu().numpy()


def smooth(X, A, steps=2):
    """Features averaged over the neighbourhood, the node itself included, ``steps`` times: nodes x features -> the same.

    Isolated nodes keep their features. ValueError when ``X`` and ``A`` do not match.
    """
    checked_adjacency(A, len(X))
    P = normalised(A, "mean")
    for _ in range(steps):
        X = P @ X
    return np.asarray(X)


def label_propagation(A, y, known, n_classes, steps=1000, tol=1e-6):
    """Harmonic label propagation: known labels stay, each other node takes the weighted mean of its neighbours.

    Args:
        A: symmetric adjacency, nodes x nodes.
        y: class of each node, whole numbers from 0; only those of ``known`` are read.
        known: indices of the nodes whose label is given.
        steps, tol: at most so many rounds; stop when no share changes by more.

    Returns:
        Shares of the classes, nodes x n_classes, rows sum to 1. Nodes that no known label reaches get the known labels' shares.

    Source: Zhu, Ghahramani and Lafferty (2003). ValueError without known nodes or for classes outside 0 ... n_classes - 1.
    """
    known, y = np.asarray(known), np.asarray(y)
    A = checked_adjacency(A, len(y))
    if len(known) == 0 or y[known].min() < 0 or y[known].max() >= n_classes:
        raise ValueError(f"label propagation needs known nodes with classes from 0 to {n_classes - 1}")
    given, P = np.eye(n_classes)[y[known]], normalised(A, "mean", loops=0)
    part = sp.csgraph.connected_components(A, directed=False)[1]
    lost = ~np.isin(part, part[known])
    shares = np.tile(given.mean(0), (len(y), 1))
    shares[known] = given
    for _ in range(steps):
        new = P @ shares
        new[known], new[lost] = given, given.mean(0)
        moved, shares = np.abs(new - shares).max(), new
        if moved < tol:
            break
    return shares


def homophily(A, labels):
    """Share of the edges (self-loops aside) that join nodes with the same label; NaN without edges."""
    A, labels = sp.coo_matrix(checked_adjacency(A, len(labels))), np.asarray(labels)
    ends = A.row < A.col
    return float(np.mean(labels[A.row[ends]] == labels[A.col[ends]])) if ends.any() else float("nan")


def rewired(A, rounds=10, seed=0):
    """A random graph in which every node has the degree that it has in ``A``: the negative control of a graph.

    Args:
        A: symmetric adjacency; weights and self-loops are forgotten.
        rounds: swaps tried for each edge.

    Returns:
        csr, nodes x nodes, weights 1. Two random edges a-b, c-d become a-d, c-b unless that makes a loop or a double edge.
    """
    A = sp.coo_matrix(checked_adjacency(A))
    edges = [(int(a), int(b)) for a, b in zip(A.row, A.col) if a < b]
    there, rng = set(edges), np.random.default_rng(seed)
    for i, j in rng.integers(max(len(edges), 1), size=(rounds * len(edges), 2)):
        (a, b), (c, d) = edges[i], edges[j] if (i + j) % 2 else edges[j][::-1]
        one, two = (min(a, d), max(a, d)), (min(c, b), max(c, b))
        if a != d and c != b and one != two and one not in there and two not in there:
            there -= {edges[i], edges[j]}
            there |= {one, two}
            edges[i], edges[j] = one, two
    row, column = np.array(edges, dtype=int).reshape(-1, 2).T
    new = sp.csr_matrix((np.ones(len(row)), (row, column)), shape=A.shape)
    return sp.csr_matrix(new + new.T)


def spatial_blocks(xy, strips=4):
    """The plane cut into ``strips`` x ``strips`` blocks: strips of equal numbers of nodes along each axis.

    Args:
        xy: places, nodes x 2.
        strips: cuts along each axis, 2 or more.

    Returns:
        Block of each node, whole numbers. ValueError for fewer than two strips or more strips than nodes.
    """
    xy = np.asarray(xy, dtype=float)
    if not 2 <= strips <= len(xy):
        raise ValueError(f"strips={strips} for {len(xy)} nodes: take between 2 and the number of nodes")
    rank = np.argsort(np.argsort(xy, axis=0, kind="stable"), axis=0)
    cut = np.minimum(rank * strips // len(xy), strips - 1)
    return cut[:, 0] * strips + cut[:, 1]


def dirichlet_energy(H, A):
    """How much features (nodes x p) differ across edges, relative to how much there is of them.

    Returns:
        ``trace(H' (I - S) H) / trace(H' H)`` with ``S = normalised(A)``: 0 when nodes differ only by the square root of
        their degree, as after endless smoothing; about 1 for unrelated features. Source: Cai and Wang (2020).
    """
    checked_adjacency(A, len(H))
    H = np.asarray(H, dtype=float)
    total = (H**2).sum()
    return float(1 - (H * (normalised(A) @ H)).sum() / total) if total > 0 else 0.0


def mean_cosine(H, n=2000, seed=0):
    """Mean cosine between random pairs of different nodes' features (nodes x p): 1 when all point the same way."""
    H = np.asarray(H, dtype=float)
    H = H / np.maximum(np.linalg.norm(H, axis=1, keepdims=True), 1e-12)
    i, j = np.random.default_rng(seed).integers(len(H), size=(2, n))
    return float((H[i[i != j]] * H[j[i != j]]).sum(1).mean())


def expression_weights(logged):
    """Edges from cells to genes: log-normalised expression (cells x genes, not negative) divided by each cell's sum.

    Returns:
        float32 array, cells x genes, rows sum to 1; a cell without any of these genes has an empty row.
        ValueError for negative or missing values.
    """
    x = logged.toarray() if sp.issparse(logged) else np.asarray(logged, dtype=float)
    if not np.isfinite(x).all() or (x < 0).any():
        raise ValueError(
            "edges between cells and genes are expression and cannot be negative: give log-normalised values, not scaled ones"
        )
    return (x / np.maximum(x.sum(1, keepdims=True), 1e-12)).astype("float32")


class CellGeneNet(nn.Module):
    """One layer of messages from genes to cells, after scDeepSort (Shao et al. 2021).

    Args:
        genes: state of each gene node, genes x d.
        n_hidden, n_out: width of the cell's new state, classes.
        dropout: share of the new state hidden in training.
    """

    def __init__(self, genes, n_hidden, n_out, dropout=0.1):
        super().__init__()
        self.register_buffer("genes", torch.as_tensor(np.asarray(genes), dtype=torch.float32))
        self.confidence = nn.Parameter(torch.ones(len(self.genes)))
        self.itself = nn.Parameter(torch.ones(()))
        self.update = nn.Linear(self.genes.shape[1], n_hidden)
        self.classify = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(n_hidden, n_out))

    def gathered(self, a):
        """What each cell hears: edge weights (cells x genes) -> cells x d."""
        if a.shape[1] != len(self.genes):
            raise ValueError(
                f"cells with {a.shape[1]} genes for a graph of {len(self.genes)}: give the genes it was made for, in order"
            )
        return a @ (self.confidence[:, None] * self.genes) + self.itself * (a @ self.genes)

    def forward(self, a):
        """Edge weights of some cells (cells x genes) -> logits, cells x classes."""
        return self.classify(self.update(self.gathered(a)))


def gene_states(a, d=50):
    """Where each gene lies among the training cells: edge weights (cells x genes) -> genes x at most d, by PCA.

    Scaled by one number so that a cell, the weighted mean of its genes, has components of variance about 1 over the cells.
    """
    centred = np.asarray(a, dtype=float).T
    centred = centred - centred.mean(0)  # genes x cells
    U, s, _ = randomized_svd(centred, min(d, *centred.shape), random_state=0)
    V = U * s  # genes x d
    return V / max(float((a @ V).std(0).mean()), 1e-12)
