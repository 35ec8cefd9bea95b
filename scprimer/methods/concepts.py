# Exported by `scprimer export` from notebooks/networks/concepts.ipynb. Edit the notebook, not this file.
"""What the chapter "Concepts: what has a model learned?" builds."""

from __future__ import annotations

from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from scprimer.methods.annotation import TRANSFERRED
from scprimer.methods.differential import adjusted
from scprimer.methods.foundation_models import names_of
from scprimer.methods.scvi import CountVAE
from scprimer.methods.scvi import count_data
from scprimer.methods.scvi import over_cells
from scprimer.methods.transformers import FIRST
from scprimer.methods.transformers import PAD
from scprimer.methods.transformers import pooled
from scprimer.train import fit
from scprimer.train import predict

__all__ = [
    "AUX",
    "COARSE",
    "DEAD",
    "TopKSAE",
    "annotated",
    "auc_of_genes",
    "cell_from_units",
    "coarse",
    "concepts_of",
    "decode",
    "described",
    "encode",
    "enrich_items",
    "evidence",
    "explained",
    "first_layer",
    "gap_closed",
    "gene_by_gene",
    "gene_by_gene_naive",
    "held_by_presence",
    "integrated_gradients",
    "left_after",
    "matched",
    "mean_by",
    "membership",
    "middle",
    "mini_neurons",
    "moved_tokens",
    "nearest_without",
    "pairs_of",
    "permuted_scores",
    "planted",
    "planted_biology",
    "readout",
    "rebuilt",
    "removal",
    "sae_loss",
    "stable_concepts",
    "token_by_token",
    "token_neurons",
    "token_units",
    "token_values",
    "top_genes",
    "top_k",
    "train_sae",
    "unit_readout",
    "vae_neurons",
    "values_there",
]


COARSE = {
    "Naive CD4 T": "CD4 T", "Memory CD4 T": "CD4 T", "T_CD4": "CD4 T", "CD8 T": "CD8 T", "T_CD8": "CD8 T", "B": "B",
    "NK": "NK", "CD14+ Mono": "Monocytes", "FCGR3A+ Mono": "Monocytes", "MNP": "Monocytes", "DC": "", "Platelet": "", "?": "",
    "unknown": "",
}  # fmt: skip


def coarse(labels):
    """Coarse names of blood cells; empty where there is no counterpart, and a name that the table lacks stays."""
    return np.array([COARSE.get(x, x) for x in labels])


def described(name, cells):
    """What is known of each cell of a study (AnnData of ``ready``): DataFrame with study, type, condition and depth."""
    given = cells.obs[TRANSFERRED].astype(str) if TRANSFERRED in cells.obs else names_of(cells)
    condition = cells.obs["condition"].astype(str).to_numpy() if "condition" in cells.obs else ""
    return pd.DataFrame({"study": name, "type": coarse(given), "condition": condition, "depth": cells.obs["size"].to_numpy()},
                        index=cells.obs_names)  # fmt: skip


def planted(n_cells, *, confounded, programmes=4, genes=300, each=8, biology=0, seed=0):
    """Cells with programmes whose drivers are known, and with passengers that go along without belonging to them.

    A programme raises its ``each`` drivers in the cells where it is on. Every programme has a home: a cell type with ``each`` markers, its
    passengers. Not confounded, a programme is on in every seventh cell, of any type. Confounded, it is on in most cells of its home
    and hardly elsewhere, and more often in batch 1, whose cells are twice as deep.

    Args:
        n_cells: cells.
        confounded: whether programmes go along with types and batches.
        programmes, genes, each: sizes; ``2 * programmes * each`` genes have a part.
        biology: seed of genes and factors. seed: of cells and counts.

    Returns:
        AnnData with counts; ``obs``: cell_type, batch; ``obsm["on"]``: bool, cells x programmes; ``var``: ``driver`` and ``passenger``, the
        number of the programme or -1.
    """
    if 2 * programmes * each > genes:
        raise ValueError(f"{programmes} programmes with {each} drivers and passengers need more than {genes} genes")
    rng = np.random.default_rng([seed, 2])
    base, driver, passenger, factor = planted_biology(programmes, genes, each, biology)
    kind, batch = rng.integers(programmes, size=n_cells), rng.integers(2, size=n_cells)
    home = kind[:, None] == np.arange(programmes)
    chance = np.where(home, np.where(batch, 0.97, 0.85)[:, None], np.where(batch, 0.05, 0.01)[:, None])
    on = rng.random((n_cells, programmes)) < (chance if confounded else 0.15)
    log_rate = np.log(base) + on @ factor["driver"] + home @ factor["passenger"] + batch[:, None] * factor["batch"]
    depth = 800 * np.exp(rng.normal(0, 0.3, n_cells)) * np.where(batch, 2, 1)
    mean = depth[:, None] * np.exp(log_rate) / np.exp(log_rate).sum(1, keepdims=True)
    counts = rng.poisson(rng.gamma(4.0, mean / 4.0)).astype(np.float32)
    cells = ad.AnnData(sp.csr_matrix(counts), obsm={"on": on})
    cells.obs["cell_type"], cells.obs["batch"] = (
        pd.Categorical([f"type {t}" for t in kind]),
        pd.Categorical(batch.astype(str)),
    )
    cells.var["driver"], cells.var["passenger"] = driver, passenger
    return cells


def planted_biology(programmes, genes, each, seed):
    """The fixed part of :func:`planted`: base rates (genes), the programme of each driver and of each passenger (genes, -1 for
    none), and log factors: ``driver`` and ``passenger`` (programmes x genes), ``batch`` (genes)."""
    rng = np.random.default_rng([seed, 1])
    base, order = rng.lognormal(0, 1, genes), rng.permutation(genes)
    parts = order[: 2 * programmes * each].reshape(2, programmes, each)
    base[parts.ravel()] = rng.uniform(0.5, 1.5, parts.size)
    factor = {name: np.zeros((programmes, genes)) for name in ("driver", "passenger")}
    number = {name: np.full(genes, -1) for name in factor}
    for name, part, low in zip(factor, parts, (1.6, 2.4)):
        for p, chosen in enumerate(part):
            factor[name][p, chosen] = rng.uniform(low, low + 0.6, each)
            number[name][chosen] = p
    factor["batch"] = rng.normal(0, 0.2, genes)
    return base, number["driver"], number["passenger"], factor


class TopKSAE(nn.Module):
    """A Top-K sparse autoencoder: each activation vector as a sum of at most ``k`` atoms of a dictionary.

    Args:
        centre: mean activation, width.
        scale: one number that activations are divided by after centring (see :func:`new_sae`).
        n_latents: atoms of the dictionary.
        k: atoms that a vector may use.
        seed: of the initial atoms.

    Raises:
        ValueError: ``k`` is not between 1 and ``n_latents``.

    Source: Makhzani and Frey (2014); Gao et al. (2025).
    """

    def __init__(self, centre, scale, n_latents, k, seed=0):
        super().__init__()
        if not 1 <= k <= n_latents:
            raise ValueError(
                f"k={k} atoms of a dictionary of {n_latents}: k lies between 1 and the size of the dictionary"
            )
        draw = torch.Generator().manual_seed(seed)
        atoms = F.normalize(torch.randn(n_latents, len(centre), generator=draw), dim=1)
        self.k = k
        self.register_buffer("centre", torch.as_tensor(centre, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.register_buffer("quiet", torch.zeros(n_latents))  # vectors seen since the atom was last used
        self.pre_bias = nn.Parameter(torch.zeros(len(centre)))
        self.encoder, self.bias = nn.Parameter(atoms.T.clone()), nn.Parameter(torch.zeros(n_latents))
        self.atoms = nn.Parameter(atoms)

    def dictionary(self):
        """Atoms of unit length: n_latents x width."""
        return F.normalize(self.atoms, dim=1)


def evidence(self, x):
    """Activation of every atom before the choice, ReLU(e · (x - centre) / scale + b): vectors x n_latents."""
    return F.relu(((x - self.centre) / self.scale - self.pre_bias) @ self.encoder + self.bias)


def top_k(evidence, k):
    """The ``k`` largest entries of each row, zero elsewhere: the same shape."""
    value, at = evidence.topk(k, dim=1)
    return torch.zeros_like(evidence).scatter(1, at, value)


def encode(self, x):
    """Concepts of vectors (vectors x width): vectors x n_latents, at most ``k`` of them above zero."""
    return top_k(self.evidence(x), self.k)


def decode(self, concepts):
    """Vectors from concepts: vectors x width."""
    return (concepts @ self.dictionary() + self.pre_bias) * self.scale + self.centre


TopKSAE.evidence, TopKSAE.encode, TopKSAE.decode = evidence, encode, decode


DEAD, AUX = 2000, 32  # an atom is dead after so many vectors without use; dead atoms that help at once


def sae_loss(model, batch, epoch=0.0):
    """Normalised squared error, and AuxK: dead atoms are asked to explain what is left over.

    Args:
        model: :class:`TopKSAE`.
        batch: activations, vectors x width.

    Returns:
        ``{"loss", "error"}``: the sum, and the mean squared error over the variance.
    """
    x, target = model.evidence(batch), (batch - model.centre) / model.scale
    concepts = top_k(x, model.k)
    left = target - concepts @ model.dictionary() - model.pre_bias
    variance = (target**2).mean()
    error = (left**2).mean() / variance
    if not model.training:
        return {"loss": error, "error": error}
    model.quiet = torch.where((concepts > 0).any(0), 0.0, model.quiet + len(batch))
    dead = model.quiet >= DEAD
    extra = error.new_zeros(())
    if dead.any():
        kept = top_k(x * dead, min(AUX, int(dead.sum())))
        extra = ((left.detach() - kept @ model.dictionary()) ** 2).mean() / (left.detach() ** 2).mean()
    return {"loss": error + extra / 32, "error": error}


def train_sae(
    vectors, n_latents=256, k=16, *, steps=600, batch_size=256, learning_rate=3e-3, seed=0, device="cpu", label=""
):
    """Learn a dictionary of activations.

    Args:
        vectors: activations, vectors x width (NumPy).
        n_latents, k: atoms, and atoms a vector.
        steps: about so many steps of Adam; the learning rate falls to zero over the last third.
        batch_size, learning_rate, seed, device, label: of the training.

    Returns:
        ``(model, history)``: :class:`TopKSAE` in evaluation mode, and :class:`scprimer.train.History`.

    Raises:
        ValueError: fewer than two vectors, values that are not finite, or no variance.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if len(vectors) < 2 or not np.isfinite(vectors).all() or np.ptp(vectors, axis=0).max() == 0:
        raise ValueError(f"activations of shape {vectors.shape}: give two vectors or more, finite and not all the same")
    centre, batch_size = vectors.mean(0), min(batch_size, len(vectors))
    scale = np.sqrt(((vectors - centre) ** 2).mean())  # entries have variance 1 on average
    model = TopKSAE(centre, scale, n_latents, k, seed)
    history = fit(
        model, vectors, sae_loss, epochs=max(1, round(steps * batch_size / len(vectors))), batch_size=batch_size, seed=seed,
        optimiser=partial(torch.optim.Adam, lr=learning_rate), schedule=lambda t: min(1.0, 3 * (1 - t)), clip=1.0,
        device=device, amp=False, label=label,
    )  # fmt: skip
    return model, history


def concepts_of(model, vectors, chosen=True):
    """Concept activations, NumPy, vectors x n_latents; ``chosen=False`` gives the evidence before Top-K."""
    function = model.encode if chosen else model.evidence
    return predict(function, np.asarray(vectors, np.float32), device=model.centre.device)


def rebuilt(model, vectors):
    """Activations from their concepts, NumPy, vectors x width."""
    return predict(lambda x: model.decode(model.encode(x)), np.asarray(vectors, np.float32), device=model.centre.device)


def explained(vectors, guess, centre):
    """Share of the squared distance from ``centre`` (of the training vectors) that a guess explains: 1 is perfect."""
    return float(1 - ((vectors - guess) ** 2).sum() / ((vectors - centre) ** 2).sum())


def vae_neurons(model, counts):
    """Hidden units of the encoder's first layer of a :class:`~scprimer.methods.scvi.CountVAE`: NumPy, cells x n_hidden."""
    data = count_data(model, counts, None, need_batch=model.encode_batch)
    return over_cells(model, lambda m: model.encoder.layers[0](m["counts"], m["batch"]), data)


def first_layer(model):
    """The first layer as one affine map, batch normalisation folded in: units = ReLU(log(1 + counts) @ A + c).

    Args:
        model: :class:`~scprimer.methods.scvi.CountVAE` in evaluation mode.

    Returns:
        ``(A, c)``: genes x n_hidden, n_hidden.

    Raises:
        ValueError: the encoder is told the batch, so that the map differs between batches.
    """
    layer = model.encoder.layers[0]
    if layer.shift is not None:
        raise ValueError(
            "the encoder is told the batch: train it with encode_batch=False, or fold each batch's shift in"
        )
    scale = layer.norm.weight / (layer.norm.running_var + layer.norm.eps).sqrt()
    return (layer.weight * scale).detach(), ((layer.bias - layer.norm.running_mean) * scale + layer.norm.bias).detach()


def readout(model, concepts):
    """Concepts as read-outs of the units: evidence = ReLU(units @ w + b).

    Args:
        model: :class:`TopKSAE`.
        concepts: numbers of atoms.

    Returns:
        ``(w, b)``: tensors, concepts x width and concepts.
    """
    chosen = torch.as_tensor(np.asarray(concepts), dtype=torch.long)
    w = model.encoder.detach()[:, chosen].T / model.scale
    return w, model.bias.detach()[chosen] - (w * (model.centre + model.scale * model.pre_bias.detach())).sum(1)


def unit_readout(width, units):
    """Single units (neurons) as read-outs in the same form; units are not negative, so the ReLU changes nothing."""
    return torch.eye(width)[np.asarray(units)], torch.zeros(len(units))


@torch.no_grad()
def gene_by_gene(model, w, b, cells, others, chunk=32_768):
    """What becomes of a concept when genes are moved, one at a time, to the values that they have in another cell.

    Args:
        model: :class:`~scprimer.methods.scvi.CountVAE`.
        w, b: the concept of each pair (pairs x n_hidden, pairs), see :func:`readout`.
        cells, others: raw counts of each cell and of its counterfactual, pairs x genes.
        chunk: moves at a time.

    Returns:
        Sparse, pairs x genes: activation before minus after; above zero where the gene holds the concept up. Nothing is stored for genes
        with equal counts: their attribution is zero.
    """
    A, c = first_layer(model)
    x, y = (sp.csr_matrix(m, dtype=np.float32).log1p() for m in (cells, others))
    u, w, b = torch.as_tensor(x @ A.cpu().numpy()).to(A) + c, w.to(A), b.to(A)  # before the ReLU: pairs x n_hidden
    before = F.relu((F.relu(u) * w).sum(1) + b)
    moves = (y - x).tocoo()
    pair, gene = (torch.as_tensor(i, dtype=torch.long, device=A.device) for i in (moves.row, moves.col))
    step, change = torch.as_tensor(moves.data).to(A), []
    for i in torch.arange(len(step), device=A.device).split(chunk):
        p = pair[i]
        units = torch.addcmul(u[p], step[i, None], A[gene[i]]).relu_()  # a rank-one update of the first layer
        change.append(before[p] - F.relu(units.mul_(w[p]).sum(1) + b[p]))
    values = torch.cat(change).cpu().numpy() if change else np.zeros(0, np.float32)
    return sp.csr_matrix((values, (moves.row, moves.col)), shape=x.shape)


def gene_by_gene_naive(model, w, b, cells, others, genes=None):
    """The same by its definition, one forward pass a gene; dense, pairs x genes. Slow. ``genes``: only these columns (default all)."""
    cells, others = (sp.csr_matrix(m, dtype=np.float32).toarray() for m in (cells, others))
    w, b = w.cpu().numpy(), b.cpu().numpy()
    found = np.zeros(cells.shape, np.float32)
    for i, (x, y) in enumerate(zip(cells, others)):
        before = max(float(vae_neurons(model, x[None])[0] @ w[i] + b[i]), 0)
        for g in range(len(x)) if genes is None else genes:
            moved = x.copy()
            moved[g] = y[g]
            found[i, g] = before - max(float(vae_neurons(model, moved[None])[0] @ w[i] + b[i]), 0)
    return found


def nearest_without(vectors, rows, active, *, like=None, depth=None, tolerance=0.3):
    """For cells that activate a concept, the nearest cell that does not.

    Args:
        vectors: cells x features, in which distance is measured.
        rows: numbers of the cells that activate it.
        active: bool, all cells.
        like: a label a cell, such as the batch; the two must agree. Default: no matter.
        depth: molecules of each cell; the two may differ by ``tolerance`` in the natural logarithm. Default: no matter.

    Returns:
        The other cell's number for each of ``rows``, -1 where no cell qualifies.
    """
    rows, silent = np.asarray(rows, dtype=int), np.flatnonzero(~np.asarray(active))
    if not len(silent):
        return np.full(len(rows), -1)
    a, b = vectors[rows], vectors[silent]
    distance = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    if like is not None:
        like = np.asarray(like)
        distance[like[rows][:, None] != like[silent]] = np.inf
    if depth is not None:
        log = np.log(np.asarray(depth, dtype=float))
        distance[np.abs(log[rows][:, None] - log[silent]) > tolerance] = np.inf
    return np.where(np.isfinite(distance.min(1)), silent[distance.argmin(1)], -1)


def pairs_of(concepts, active, vectors, *, n=50, seed=0, like=None, depth=None):
    """Pairs of a cell and its counterfactual for each of several concepts.

    Args:
        concepts: numbers, columns of ``active``.
        active: concept activations, cells x concepts, zero where a concept is not among the cell's k.
        vectors: cells x features, for distances.
        n: at most so many cells a concept, drawn from the upper half of its activations.
        like, depth: as for :func:`nearest_without`.

    Returns:
        DataFrame, a row a pair: ``concept``, ``cell``, ``other``.
    """
    rng, parts = np.random.default_rng(seed), []
    for j in concepts:
        on = np.flatnonzero(active[:, j] > 0)
        strong = on[active[on, j] >= np.median(active[on, j])] if len(on) else on
        rows = rng.permutation(strong)[:n]
        other = nearest_without(vectors, rows, active[:, j] > 0, like=like, depth=depth) if len(rows) else rows
        parts.append(pd.DataFrame({"concept": j, "cell": rows, "other": other})[other >= 0])
    return pd.concat(parts, ignore_index=True).astype(int)


def mean_by(values, groups, order):
    """Mean of sparse rows over groups: dense, len(order) x columns; zero for a group without rows."""
    code = pd.Categorical(groups, categories=order).codes
    member = sp.csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))), shape=(len(order), len(code)))
    return (member @ values).toarray() / np.maximum(np.asarray(member.sum(1)), 1)


@torch.no_grad()
def integrated_gradients(model, w, b, cells, others, steps=32):
    """Gradients of a concept's evidence, averaged on the straight way from the counterfactual to the cell, times the difference.

    Args and result as for :func:`gene_by_gene`; each row sums to the difference of the two activations (up to the step).

    Source: Sundararajan et al. (2017).
    """
    A, c = first_layer(model)
    x, y = (sp.csr_matrix(m, dtype=np.float32).log1p() for m in (cells, others))
    u, v = (torch.as_tensor(m @ A.cpu().numpy()).to(A) + c for m in (x, y))
    total = torch.zeros_like(u)
    for t in (np.arange(steps) + 0.5) / steps:
        at = v + float(t) * (u - v)
        on = (F.relu(at) * w.to(A)).sum(1) + b.to(A) > 0
        total += w.to(A) * (at > 0) * on[:, None]
    return (x - y).multiply((total / steps @ A.T).cpu().numpy()).tocsr()


def middle(model):
    """Number of the layer that is read in a transformer: the middle one, the earlier of two."""
    return (len(model.encoder.layers) - 1) // 2


def token_units(model, gene, value):
    """Hidden units of the middle layer's network, at every token.

    Args:
        model: :class:`~scprimer.methods.transformers.GeneTransformer`.
        gene, value: tokens, cells x length.

    Returns:
        ``(x, units)``: the tokens that the network reads, cells x length x width, and its units, cells x length x 4 width.
    """
    x, layer = model.embed_tokens(gene, value), model.encoder.layers[middle(model)]
    for before in model.encoder.layers[: middle(model)]:
        x = before(x, gene == PAD)
    x = x + layer.attention(layer.norm1(x), gene == PAD)
    return x, layer.network[1](layer.network[0](layer.norm2(x)))


def cell_from_units(model, x, units, gene):
    """The cell's vector (unit length) when the units are as given, perhaps altered: cells x width."""
    x = x + model.encoder.layers[middle(model)].network[2](units)
    for layer in model.encoder.layers[middle(model) + 1 :]:
        x = layer(x, gene == PAD)
    return F.normalize(model.encoder.norm(x)[:, 0], dim=1)


def mini_neurons(mini, tokens, batch_size=256):
    """Units of a mini scGPT's middle layer, the mean over a cell's tokens: NumPy, cells x 4 width."""
    model = mini.model.eval()
    one = lambda m: pooled(token_units(model, m["gene"], m["value"])[1], m["gene"])  # noqa: E731
    part = {k: tokens[k] for k in ("gene", "value")}
    return predict(one, part, batch_size=batch_size, device=model.hidden_value.device)


@torch.no_grad()
def token_neurons(mini, tokens, n=20_000, batch_size=256, seed=0):
    """The same units at single gene tokens, ``n`` of them drawn at random.

    Returns:
        ``(units, gene, cell)``: NumPy, n x 4 width; column of the vocabulary and row of the cell, n each.
    """
    model, parts = mini.model.cpu().eval(), []
    gene, value = torch.as_tensor(tokens["gene"]), torch.as_tensor(tokens["value"])
    row, place = np.nonzero(tokens["gene"] >= FIRST)
    kept = np.sort(np.random.default_rng(seed).permutation(len(row))[:n])
    row, place = row[kept], place[kept]
    for i in range(0, len(gene), batch_size):
        here = (row >= i) & (row < i + batch_size)
        units = token_units(model, gene[i : i + batch_size], value[i : i + batch_size])[1]
        parts.append(units[row[here] - i, place[here]])
    return torch.cat(parts).numpy(), tokens["gene"][row, place] - FIRST, row


def moved_tokens(gene, value, target):
    """Copies of cells, each with one gene moved to its value elsewhere.

    Args:
        gene, value: tokens, cells x length.
        target: the value that each token's gene has in the counterfactual, 0 where it is no token there.

    Returns:
        ``(cell, place, gene, value)``: a row a move; a gene that moves to 0 is taken out.
    """
    cell, place = ((gene >= FIRST) & (target != value)).nonzero().T
    g, v, at, new = (
        gene[cell].clone(),
        value[cell].clone(),
        torch.arange(len(cell), device=gene.device),
        target[cell, place],
    )
    v[at, place] = new
    g[at, place] = torch.where(new > 0, g[at, place], PAD)
    return cell, place, g, v


def values_there(tokens, others, n_genes):
    """Value of each token's gene among the tokens of another cell, 0 where it is none; both ``{"gene", "value"}`` tensors."""
    there = torch.zeros(len(others["gene"]), FIRST + n_genes, device=others["value"].device)
    return there.scatter_(1, others["gene"], others["value"]).gather(1, tokens["gene"])


@torch.no_grad()
def token_by_token(mini, w, b, tokens, others, pairs_at_once=16):
    """What becomes of a concept when expressed genes are moved, one at a time, to the values they have in another cell.

    A gene that is no token of the counterfactual is taken out. Genes that only the counterfactual expresses stay out.

    Args:
        mini: a mini scGPT (:class:`~scprimer.methods.foundation_models.Mini`).
        w, b: the concept of each pair (pairs x units, pairs), see :func:`readout`.
        tokens, others: ``{"gene", "value"}`` of each cell and of its counterfactual, pairs x length (NumPy).

    Returns:
        Sparse, pairs x vocabulary: activation before minus after. One forward pass a pair and expressed gene.
    """
    model, n_genes, parts = mini.model.eval(), len(mini.vocabulary), []
    device = model.hidden_value.device
    tokens, others = ({k: torch.as_tensor(t[k]).to(device) for k in ("gene", "value")} for t in (tokens, others))
    target, w, b = values_there(tokens, others, n_genes), w.to(device), b.to(device)

    def activation(gene, value, pair):
        units = pooled(token_units(model, gene, value)[1], gene)
        return F.relu((units * w[pair]).sum(1) + b[pair])

    for i in torch.arange(len(target), device=device).split(pairs_at_once):
        gene, value = tokens["gene"][i], tokens["value"][i]
        cell, place, g, v = moved_tokens(gene, value, target[i])
        change = activation(gene, value, i)[cell] - activation(g, v, i[cell])
        parts.append(torch.stack([i[cell].float(), (gene[cell, place] - FIRST).float(), change]))
    pair, column, change = torch.cat(parts, 1).cpu().numpy()
    return sp.csr_matrix((change, (pair.astype(int), column.astype(int))), shape=(len(target), n_genes))


def held_by_presence(attributions, cells, others):
    """Only what holds a concept up by being there: attributions of genes of which the cell has more than its counterfactual.

    Args:
        attributions: sparse, pairs x genes.
        cells, others: counts or values of each cell and of its counterfactual, pairs x genes.

    Returns:
        Sparse, pairs x genes.
    """
    return attributions.multiply(sp.csr_matrix(cells) > sp.csr_matrix(others)).tocsr()


def token_values(tokens, n_genes):
    """Values of tokens as a table, 0 where a gene is no token: sparse, cells x genes of the vocabulary."""
    table = np.zeros((len(tokens["gene"]), FIRST + n_genes), dtype=np.float32)
    np.put_along_axis(table, tokens["gene"], tokens["value"], axis=1)
    return sp.csr_matrix(table[:, FIRST:])


def auc_of_genes(ranked, active):
    """AUC of every gene for every item: how often a cell that activates the item has more of the gene than one that does not.

    Args:
        ranked: ranks of expression, cells x genes (:func:`scprimer.methods.differential.ranks`).
        active: bool, cells x items.

    Returns:
        items x genes; 0.5 for an item that all cells or none activate.
    """
    on = np.asarray(active, dtype=float)
    n1, n = on.sum(0), len(on)
    usable = (n1 > 0) & (n1 < n)
    total = on.T @ ranked - (n1 * (n1 + 1) / 2)[:, None]
    return np.where(usable[:, None], total / np.where(usable, n1 * (n - n1), 1)[:, None], 0.5)


def matched(model, other, vectors, least_cosine=0.5, least_correlation=0.7):
    """Which concepts of one dictionary come back in another: an atom of the same direction that is active in the same cells.

    Args:
        model, other: :class:`TopKSAE` on the same units.
        vectors: activations in which they are compared, cells x width.
        least_cosine, least_correlation: of atoms, and of concept activations over cells.

    Returns:
        bool, one a concept of ``model``; False for one that no cell activates.
    """
    a, b = concepts_of(model, vectors), concepts_of(other, vectors)
    a, b = ((z - z.mean(0)) / np.maximum(z.std(0), 1e-9) for z in (a, b))
    correlation = a.T @ b / len(a)
    cosine = (model.dictionary() @ other.dictionary().T).detach().cpu().numpy()
    return ((cosine >= least_cosine) & (correlation >= least_correlation)).any(1)


def stable_concepts(models, vectors, **limits):
    """Concepts of the first of three or more dictionaries that come back in at least one of the others: bool, a concept each."""
    return np.any([matched(models[0], other, vectors, **limits) for other in models[1:]], axis=0)


def membership(sets, genes, least=5, most=200):
    """Which gene is in which set: ``(matrix, names)``, genes x sets (0 or 1); sets with too few or too many of these genes are left out."""
    at = {g: i for i, g in enumerate(genes)}
    found = {name: sorted({at[g] for g in members if g in at}) for name, members in sets.items()}
    found = {name: rows for name, rows in found.items() if least <= len(rows) <= most}
    matrix = np.zeros((len(genes), len(found)), dtype=np.float32)
    for j, rows in enumerate(found.values()):
        matrix[rows, j] = 1
    return matrix, list(found)


def top_genes(scores, n=20):
    """The ``n`` genes of the highest score of each item, those above zero only: bool, items x genes."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen & (scores > 0)


def enrich_items(scores, member, n=20):
    """Over-representation of every gene set among the top genes of every item.

    Args:
        scores: attributions (or any other score of genes), items x genes.
        member: genes x sets, of :func:`membership`; its genes are the background.
        n: length of the lists.

    Returns:
        ``(p, adjusted)``: items x sets; Benjamini-Hochberg over all tests of all items together.
    """
    chosen = top_genes(scores, n)
    overlap, size = chosen.astype(np.float32) @ member, member.sum(0)
    p = stats.hypergeom.sf(overlap - 1, len(member), size[None], chosen.sum(1)[:, None])
    p = np.where(overlap >= 2, p, 1.0)  # a single gene is no programme
    return p, adjusted(p.ravel()).reshape(p.shape)


def annotated(q, level=0.05, common=0.2):
    """Items with a significant term, and items with one that at most a share ``common`` of all items have: two shares."""
    found = q < level
    specific = found & (found.mean(0) <= max(common, 1 / len(found)))
    return float(found.any(1).mean()), float(specific.any(1).mean())


def permuted_scores(scores, level, seed=0, bins=10):
    """Scores handed to other genes of about the same expression: the null of an enrichment.

    Args:
        scores: items x genes.
        level: mean expression of each gene; genes change places within ``bins`` bins of it.
    """
    rng, result = np.random.default_rng(seed), np.array(scores)
    for part in np.array_split(np.argsort(level, kind="stable"), bins):
        for row in result:
            row[part] = row[rng.permutation(part)]
    return result


@torch.no_grad()
def removal(model, vectors, concepts, instead=None):
    """What switching concepts off takes from the units, -a · atom for each of them; what the dictionary does not explain stays.

    Args:
        model: :class:`TopKSAE`.
        vectors: activations, cells x width.
        concepts: numbers of the concepts.
        instead: atoms to take away in their place, as strongly: the control of the same size.

    Returns:
        tensor, cells x width, to be added to the units.
    """
    found = model.encode(torch.as_tensor(np.asarray(vectors, np.float32)))[:, list(concepts)]
    return -(found @ model.dictionary()[list(concepts if instead is None else instead)]) * model.scale


def gap_closed(moved, start, goal, groups):
    """Share of the squared distance between group means that a change has closed.

    Args:
        moved, start: the same cells after and before, cells x features.
        goal: other cells (the real ones that one wants to reach), cells x features.
        groups: labels of ``start`` and of ``goal``, two arrays; groups with five cells on both sides count.

    Returns:
        1 - d(moved, goal)² / d(start, goal)², both summed over groups: 1 there, 0 no nearer, below 0 farther; NaN without a group.
    """
    before, after, (mine, theirs) = 0.0, 0.0, (np.asarray(g) for g in groups)
    for g in np.intersect1d(mine, theirs):
        if g and min((mine == g).sum(), (theirs == g).sum()) >= 5:
            aim = goal[theirs == g].mean(0)
            before += ((start[mine == g].mean(0) - aim) ** 2).sum()
            after += ((moved[mine == g].mean(0) - aim) ** 2).sum()
    return float(1 - after / before) if before else np.nan


def left_after(model, w, b, cells, others, chosen):
    """Activation that is left when several genes move to the counterfactual at once, as a share of what it was.

    Args:
        model, w, b, cells, others: as for :func:`gene_by_gene`.
        chosen: bool, pairs x genes.

    Returns:
        The mean over pairs that had any.
    """
    A, c = (t.cpu().numpy() for t in first_layer(model))
    x, y = (sp.csr_matrix(m, dtype=np.float32).log1p().toarray() for m in (cells, others))
    w, b = w.numpy(), b.numpy()
    before, after = (np.maximum((np.maximum(m @ A + c, 0) * w).sum(1) + b, 0) for m in (x, np.where(chosen, y, x)))
    there = before > 0
    return float((after[there] / before[there]).mean())
