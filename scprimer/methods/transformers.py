# Exported by `scprimer export` from notebooks/networks/transformers.ipynb. Edit the notebook, not this file.
"""What the chapter "Transformers" builds."""

from __future__ import annotations

import difflib
import hashlib
import time
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import nn

from scprimer.methods.unsupervised import log_normalise
from scprimer.train import fit
from scprimer.train import predict

__all__ = [
    "Annotator",
    "CELL",
    "EncoderLayer",
    "FIRST",
    "GeneTransformer",
    "MASK",
    "MultiHeadAttention",
    "N_BINS",
    "PAD",
    "Panel",
    "TransformerEncoder",
    "Vocabulary",
    "align",
    "attention",
    "best_seconds",
    "bin_tokens",
    "choose_genes",
    "choose_tokens",
    "embed_tokens",
    "expressed_first",
    "finetune",
    "forbidden_pairs",
    "forward",
    "gradients",
    "kept_bytes",
    "masked_loss",
    "moved",
    "one_by_one",
    "pool",
    "pooled",
    "pretrain",
    "rank_tokens",
    "received",
    "rollout",
    "score_hidden",
    "usual",
    "value_tokens",
    "warm_then_down",
    "with_cell_token",
    "without",
]


def attention(q, k, v, forbidden=None):
    """Scaled dot-product attention, written out.

    Args:
        q, k, v: queries, keys and values, ... x length x width of a head.
        forbidden: bool, True where a query (row) must not look at a key (column); broadcast to ... x length x length.

    Returns:
        ``(output, weights)``: ... x length x width, and ... x length x length with rows that sum to 1.

    Source: Vaswani et al. (2017), equation 1.
    """
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # ... x length x length
    if forbidden is not None:
        scores = scores.masked_fill(forbidden, -torch.inf)
    weights = scores.softmax(dim=-1)
    return weights @ v, weights


def forbidden_pairs(x, padding=None, causal=False):
    """Which queries must not look at which keys, from both masks.

    Args:
        x: cells x length x width.
        padding: bool, cells x length, True where there is no token.
        causal: whether later tokens are hidden from earlier ones.

    Returns:
        bool, to be broadcast to cells x heads x length x length; None where nothing is forbidden.
    """
    if padding is not None and padding.shape != x.shape[:2]:
        raise ValueError(f"a padding mask of {tuple(padding.shape)} for tokens of {tuple(x.shape[:2])} (cells, length)")
    mask = None if padding is None else padding[:, None, None, :]
    if causal:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        mask = later if mask is None else mask | later
    return mask


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: features of a token.
        heads: how many heads; each works on ``width / heads`` features.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(self, width, heads):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}: use a width that is a multiple of them")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)  # queries, keys and values below each other, as in torch
        self.out = nn.Linear(width, width)

    def split(self, x):
        """Queries, keys and values of tokens (cells x length x width): each cells x heads x length x width of a head."""
        n, length, width = x.shape
        return self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)

    def forward(self, x, padding=None, causal=False, fused=True):
        """Tokens that have looked at each other.

        Args:
            x: cells x length x width.
            padding: bool, cells x length, True where there is no token. Every cell needs one token at least.
            causal: hide later tokens from earlier ones.
            fused: the fused kernel, or :func:`attention` written out.

        Returns:
            cells x length x width.
        """
        forbidden = forbidden_pairs(x, padding, causal)
        q, k, v = self.split(x)
        if fused:
            y = F.scaled_dot_product_attention(q, k, v, None if forbidden is None else ~forbidden)
        else:
            y, _ = attention(q, k, v, forbidden)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer: attention over tokens, then a small network on each; both are added to the input.

    Args:
        width, heads: of the attention.
        hidden: width of the small network; default 4 x width.
        dropout: share of features silenced in training, after each of the two.
    """

    def __init__(self, width, heads, hidden=None, dropout=0.0):
        super().__init__()
        hidden = hidden or 4 * width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, padding=None, causal=False, fused=True):
        """cells x length x width -> the same shape; arguments as for :class:`MultiHeadAttention`."""
        x = x + self.dropout(self.attention(self.norm1(x), padding, causal, fused))
        return x + self.dropout(self.network(self.norm2(x)))


class TransformerEncoder(nn.Module):
    """Layers one after the other, and a normalisation at the end.

    Args:
        width, heads, layers: sizes.
        dropout: in every layer.
    """

    def __init__(self, width=64, heads=4, layers=2, dropout=0.0):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x, padding=None, causal=False, fused=True):
        """cells x length x width -> the same shape; arguments as for :class:`MultiHeadAttention`."""
        for layer in self.layers:
            x = layer(x, padding, causal, fused)
        return self.norm(x)

    @torch.no_grad()
    def weights(self, x, padding=None):
        """Attention weights of every layer: a list of cells x heads x length x length."""
        found = []
        for layer in self.layers:
            q, k, v = layer.attention.split(layer.norm1(x))
            found.append(attention(q, k, v, forbidden_pairs(x, padding))[1])
            x = layer(x, padding)
        return found


PAD, CELL, MASK = 0, 1, 2  # tokens that are no gene; genes begin at 3
FIRST = 3


class Vocabulary:
    """Genes in a fixed order. Token of gene ``i``: ``FIRST + i``.

    Args:
        genes: gene names, unique.
    """

    def __init__(self, genes):
        self.genes = [str(g) for g in genes]
        if len(set(self.genes)) < len(self.genes) or not self.genes:
            raise ValueError(f"a vocabulary needs unique gene names: {len(self.genes)} names, "
                             f"{len(set(self.genes))} different ones")  # fmt: skip
        self.index = {g: i for i, g in enumerate(self.genes)}

    def __len__(self):
        return len(self.genes)

    @property
    def fingerprint(self):
        """A number that changes with any name or with their order."""
        return int(hashlib.sha256("\n".join(self.genes).encode()).hexdigest()[:12], 16)

    def tokens(self, names):
        """Tokens of genes by name (int64 array); ValueError for a gene that is not in the vocabulary, with near names."""
        for name in names:
            if name not in self.index:
                near = difflib.get_close_matches(str(name), self.genes, n=3)
                hint = f" (near: {', '.join(near)})" if near else ""
                raise ValueError(f"gene {name!r} is not in the vocabulary of {len(self)} genes{hint}")
        return np.array([FIRST + self.index[n] for n in names], dtype=np.int64)


@dataclass
class Panel:
    """Cells on the genes of a vocabulary.

    Attributes:
        counts: float32, cells x vocabulary; 0 where a gene was not measured.
        measured: bool, cells x vocabulary.
        size: all molecules of each cell, also of genes outside the vocabulary.
    """

    counts: np.ndarray
    measured: np.ndarray
    size: np.ndarray

    def __len__(self):
        return len(self.size)

    def __getitem__(self, rows):
        return Panel(self.counts[rows], self.measured[rows], self.size[rows])

    def logged(self):
        """log(1 + counts per ten thousand), cells x vocabulary."""
        return np.log1p(1e4 * self.counts / self.size[:, None])


def align(counts, genes, vocabulary, size=None, least=0.2):
    """Bring counts into the order of a vocabulary. Genes outside it are left out; genes not given count as not measured.

    Args:
        counts: cells x genes, dense or sparse, raw.
        genes: names of the columns.
        vocabulary: :class:`Vocabulary`.
        size: molecules of each cell; default: the sum over all columns.
        least: share of the vocabulary that must be found.

    Returns:
        :class:`Panel`.

    Raises:
        ValueError: too few genes of the vocabulary are there, a count is negative or not finite, or a cell is empty.
    """
    counts = sp.csc_matrix(counts, dtype=np.float32)
    if not np.isfinite(counts.data).all() or (counts.data < 0).any():
        raise ValueError("counts must be finite and not negative: give raw counts, cells x genes")
    size = np.asarray(counts.sum(1) if size is None else size, dtype=np.float32).ravel()
    if (size <= 0).any():
        raise ValueError(f"{(size <= 0).sum()} of {len(size)} cells have no expressed gene: leave them out")
    here = {str(g): j for j, g in enumerate(genes)}
    there = [(i, here[g]) for i, g in enumerate(vocabulary.genes) if g in here]
    if len(there) < least * len(vocabulary):
        mine, theirs = ", ".join(vocabulary.genes[:3]), ", ".join(list(here)[:3])
        raise ValueError(f"{len(there)} of the vocabulary's {len(vocabulary)} genes are among the {len(here)} given: "
                         f"do both use the same kind of name? (vocabulary: {mine}; given: {theirs})")  # fmt: skip
    panel = Panel(*(np.zeros((len(size), len(vocabulary)), t) for t in (np.float32, bool)), size)
    at, of = (list(x) for x in zip(*there))
    panel.counts[:, at] = counts[:, of].toarray()
    panel.measured[:, at] = True
    return panel


def pool(*panels):
    """Several panels of one vocabulary, below each other."""
    return Panel(*(np.concatenate([getattr(p, f) for p in panels]) for f in ("counts", "measured", "size")))


N_BINS = 7  # 0 for a silent gene, 1 to 6 for levels of expression


def bin_tokens(panel, length=None, seed=0):
    """scBERT's tokens: measured genes with their level of expression, silent genes too.

    Args:
        panel: :class:`Panel`.
        length: at most so many genes a cell: the highest ones first, then silent ones at random; default: all that were
            measured, as in scBERT.
        seed: draws the silent genes.

    Returns:
        ``{"gene": int64, "value": int64}``, cells x (1 + length). Levels: 0 for a count of 0, else the whole part of
        log2(1 + counts per ten thousand), from 1 to 6. Genes that were not measured are never among them.

    Source: Yang et al. (2022), "expression embedding"; the number of levels is theirs.
    """
    level = np.clip(np.floor(panel.logged() / np.log(2)), 1, N_BINS - 1)
    level = np.where(panel.counts > 0, level, 0).astype(np.int64)
    chance = np.random.default_rng(seed).random(level.shape)  # below 1: settles the order within a level
    order = np.argsort(np.where(panel.measured, -level - chance, np.inf), axis=1)[:, :length]
    there = np.take_along_axis(panel.measured, order, 1)
    value = np.where(there, np.take_along_axis(level, order, 1), 0)
    return with_cell_token(np.where(there, FIRST + order, PAD), value)


def with_cell_token(gene, value):
    """Put the cell token (value 0) before the genes; both cells x length."""
    first = np.full((len(gene), 1), CELL)
    return {
        "gene": np.hstack([first, gene]).astype(np.int64),
        "value": np.hstack([0 * first.astype(value.dtype), value]),
    }


def usual(panel):
    """What is usual for each gene: the median of its non-zero counts per ten thousand (vocabulary; 1 if never seen)."""
    shares = 1e4 * panel.counts / panel.size[:, None]
    return np.array([np.median(g[g > 0]) if (g > 0).any() else 1.0 for g in shares.T], dtype=np.float32)


def expressed_first(panel, score, length=None):
    """The expressed genes of each cell in falling order of ``score`` (cells x vocabulary).

    Returns:
        ``(gene, order)``: tokens with padding at the end, and the vocabulary's column of each place, both cells x length.
    """
    length = min(length or panel.counts.shape[1], panel.counts.shape[1])
    order = np.argsort(np.where(panel.counts > 0, -score, np.inf), axis=1, kind="stable")[:, :length]
    there = np.take_along_axis(panel.counts, order, 1) > 0
    return np.where(there, FIRST + order, PAD), order


def rank_tokens(panel, medians, length=None):
    """Geneformer's tokens: expressed genes in falling order of expression relative to the gene's usual level.

    Args:
        panel: :class:`Panel`.
        medians: of :func:`usual`, taken from the cells that the model is pretrained on.
        length: at most so many genes a cell; default all.

    Returns:
        As :func:`bin_tokens`; the value is the rank (1 for the first gene). A cell that expresses no gene of the
        vocabulary is the cell token alone.

    Source: Theodoris et al. (2023), "rank value encoding".
    """
    if len(medians) != panel.counts.shape[1]:
        raise ValueError(
            f"{len(medians)} medians for a vocabulary of {panel.counts.shape[1]}: take those of its training"
        )
    gene, _ = expressed_first(panel, panel.logged() - np.log(medians), length)
    return with_cell_token(gene, np.where(gene != PAD, np.arange(1, gene.shape[1] + 1), 0))


def value_tokens(panel, length=None):
    """scGPT's tokens: expressed genes with a number, their quantile among the expressed genes of the cell (above 0, to 1).

    Args:
        panel: :class:`Panel`.
        length: at most so many genes a cell, the highest ones; default all.

    Returns:
        As :func:`bin_tokens`, with float32 values; equal counts have equal values.

    Source: Cui et al. (2024), "value binning", without rounding to a fixed number of bins.
    """
    gene, order = expressed_first(panel, panel.counts, length)
    ranks = rankdata(np.where(panel.counts > 0, panel.counts, np.nan), axis=1, nan_policy="omit")
    share = ranks / np.maximum((panel.counts > 0).sum(1, keepdims=True), 1)
    value = np.where(gene != PAD, np.take_along_axis(share, order, 1), 0.0)
    return with_cell_token(gene, value.astype(np.float32))


class GeneTransformer(nn.Module):
    """Tokens of a cell to vectors that know their context.

    Args:
        vocabulary: :class:`Vocabulary`.
        kind: ``"bins"``, ``"ranks"`` or ``"values"``: how the value of a token is embedded.
        width, heads, layers, dropout: of the encoder.
        max_length: longest sequence, cell token included; default: the whole vocabulary and the cell token.
    """

    def __init__(self, vocabulary, kind="bins", width=64, heads=4, layers=2, dropout=0.0, max_length=None):
        super().__init__()
        if kind not in ("bins", "ranks", "values"):
            raise ValueError(f"kind={kind!r}: use 'bins', 'ranks' or 'values'")
        self.kind, self.max_length, n = kind, max_length or len(vocabulary) + 1, FIRST + len(vocabulary)
        self.gene = nn.Embedding(n, width, padding_idx=PAD)
        if kind == "values":
            self.value = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width))
        else:
            self.value = nn.Embedding(N_BINS if kind == "bins" else self.max_length, width)
        self.hidden_value = nn.Parameter(torch.randn(width))
        self.encoder = TransformerEncoder(width, heads, layers, dropout)
        self.guess = nn.Linear(width, {"bins": N_BINS, "ranks": n, "values": 1}[kind])
        self.register_buffer("fingerprint", torch.tensor(vocabulary.fingerprint))

    def load_state_dict(self, state, *args, **kwargs):
        """As in torch; ValueError when the weights were trained with another vocabulary."""
        if "fingerprint" in state and int(state["fingerprint"]) != int(self.fingerprint):
            raise ValueError("these weights were trained with another vocabulary: their genes mean something else. "
                             "Make the model with the vocabulary of the checkpoint")  # fmt: skip
        return super().load_state_dict(state, *args, **kwargs)


def embed_tokens(self, gene, value, hidden=None):
    """Vectors of tokens before any context.

    Args:
        gene, value: cells x length.
        hidden: bool, cells x length, True where the model must not see the value (for ranks: the gene).

    Returns:
        cells x length x width.

    Raises:
        ValueError: the sequence is longer than the model was made for.
    """
    if gene.shape[1] > self.max_length:
        raise ValueError(f"{gene.shape[1]} tokens, and the model was made for {self.max_length}: give the tokeniser a "
                         "smaller `length`, or the model a larger `max_length`")  # fmt: skip
    if self.kind == "ranks":
        if hidden is not None:
            gene = gene.masked_fill(hidden, MASK)
        return self.gene(gene) + self.value(value)
    of_value = self.value(value[..., None] if self.kind == "values" else value)
    if hidden is not None:
        of_value = torch.where(hidden[..., None], self.hidden_value.to(of_value.dtype), of_value)
    return self.gene(gene) + of_value


def forward(self, gene, value, hidden=None, fused=True):
    """Tokens in context: cells x length x width; arguments as for ``embed_tokens``."""
    return self.encoder(self.embed_tokens(gene, value, hidden), gene == PAD, fused=fused)


def pooled(x, gene):
    """One vector a cell: the mean over its tokens, padding left out. x cells x length x width -> cells x width."""
    there = (gene != PAD).unsqueeze(-1).to(x.dtype)
    return (x * there).sum(1) / there.sum(1)


GeneTransformer.embed_tokens, GeneTransformer.forward = embed_tokens, forward


def choose_tokens(gene, share=0.15):
    """Which tokens to hide: a random ``share`` of the genes, never padding nor the cell token (bool, cells x length)."""
    if not 0 < share < 1:
        raise ValueError(f"share={share}: hide a share between 0 and 1, such as 0.15")
    return (torch.rand(gene.shape, device=gene.device) < share) & (gene >= FIRST)


def masked_loss(model, batch, epoch=0.0, share=0.15):
    """The loss of masked genes, in the form that :func:`scprimer.train.fit` wants.

    Args:
        model: :class:`GeneTransformer`.
        batch: ``{"gene", "value"}``, cells x length.
        share: of the genes that are hidden.

    Returns:
        ``{"loss"}``: mean over hidden tokens; for bins and ranks also ``"right"``, the share that was guessed.
    """
    gene, value = batch["gene"], batch["value"]
    hidden = choose_tokens(gene, share)
    return score_hidden(model, model(gene, value, hidden), gene, value, hidden)


def score_hidden(model, x, gene, value, hidden):
    """Compare the guesses at hidden tokens with the truth; x is what the model made of all tokens."""
    guess = model.guess(x[hidden]).float()  # hidden tokens x (levels, genes or 1)
    if model.kind == "values":
        return {"loss": ((guess[:, 0] - value[hidden]) ** 2).sum() / hidden.sum().clamp(min=1)}
    truth = (value if model.kind == "bins" else gene)[hidden]
    loss = F.cross_entropy(guess, truth, reduction="sum") / hidden.sum().clamp(min=1)
    return {"loss": loss, "right": (guess.argmax(1) == truth).sum() / hidden.sum().clamp(min=1)}


def warm_then_down(t):
    """Learning rate over a training (t from 0 to 1): up over the first tenth, then down along half a cosine."""
    return min(1.0, t / 0.1 + 0.05) * 0.5 * (1 + np.cos(np.pi * t))


def pretrain(model, tokens, *, epochs, batch_size=64, learning_rate=2e-3, share=0.15, seed=0, device="auto",
             checkpoint=None, label=""):  # fmt: skip
    """Train a gene transformer to guess hidden genes; in bfloat16 on CUDA devices that have it.

    Args:
        model: :class:`GeneTransformer`, trained in place.
        tokens: of one of the tokenisers.
        epochs, batch_size, learning_rate: of Adam, with :func:`warm_then_down`.
        share: of the genes hidden in each step.
        seed, device, checkpoint, label: as for :func:`scprimer.train.fit`.

    Returns:
        :class:`scprimer.train.History`; ``parts["right"]`` is the share of hidden tokens that were guessed.
    """
    return fit(
        model, tokens, partial(masked_loss, share=share), epochs=epochs, batch_size=batch_size, seed=seed,
        optimiser=partial(torch.optim.Adam, lr=learning_rate), schedule=warm_then_down, clip=1.0, device=device,
        checkpoint=checkpoint, label=label,
    )  # fmt: skip


class Annotator(nn.Module):
    """A gene transformer with a linear head for classes.

    Args:
        body: :class:`GeneTransformer`; it is used as it is, not copied.
        classes: names of the classes.
    """

    def __init__(self, body, classes):
        super().__init__()
        self.body, self.classes = body, np.asarray(classes)
        self.head = nn.Linear(body.gene.embedding_dim, len(self.classes))
        nn.init.zeros_(self.head.weight)

    def forward(self, batch, fused=True):
        """Logits: cells x classes."""
        return self.head(pooled(self.body(batch["gene"], batch["value"], fused=fused), batch["gene"]))

    def probabilities(self, tokens, batch_size=256):
        """Probabilities of the classes, NumPy, cells x classes."""
        device = self.head.weight.device
        return predict(lambda b: self.eval()(b).softmax(1), tokens, batch_size=batch_size, device=device)


def finetune(body, tokens, labels, *, steps=200, batch_size=32, learning_rate=1e-3, seed=0, device="auto", label=""):
    """Train a classifier on a copy of a gene transformer, all weights together.

    Args:
        body: :class:`GeneTransformer`, pretrained or not; it is copied and stays as it is.
        tokens: of the tokeniser that the body was made for.
        labels: a name a cell.
        steps: about so many optimiser steps.
        batch_size, learning_rate: of Adam, with :func:`warm_then_down`.

    Returns:
        :class:`Annotator`, in evaluation mode.
    """
    classes, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if len(classes) < 2 or len(code) != len(tokens["gene"]):
        raise ValueError(f"{len(classes)} classes and {len(code)} labels for {len(tokens['gene'])} cells: give a label "
                         "to each cell, of two classes or more")  # fmt: skip
    model, batch_size = Annotator(deepcopy(body), classes), min(batch_size, len(code))
    fit(
        model, {**tokens, "class": code}, lambda m, b, _: F.cross_entropy(m(b).float(), b["class"]),
        epochs=max(1, round(steps * batch_size / len(code))), batch_size=batch_size, seed=seed, clip=1.0, device=device,
        optimiser=partial(torch.optim.Adam, lr=learning_rate), schedule=warm_then_down, label=label,
    )  # fmt: skip
    return model


def choose_genes(studies, n, top=1500):
    """The genes that vary in the most studies.

    Args:
        studies: list of AnnData, raw counts.
        n: how many genes.
        top: a gene counts in a study where it is among so many of the highest normalised dispersions.

    Returns:
        Names, the best first: most studies, then the lower median rank. Genes measured in fewer than three studies (or
        than all, where there are fewer) are left out.
    """
    import pandas as pd

    spread = {i: log_normalise(a, min(top, a.n_vars - 1)).var["dispersions_norm"] for i, a in enumerate(studies)}
    rank = pd.DataFrame(spread).rank(ascending=False)  # genes x studies, missing where not measured
    table = pd.DataFrame({"studies": -(rank <= top).sum(axis=1), "rank": rank.median(axis=1)})
    seen = rank.notna().sum(axis=1) >= min(3, len(studies))
    return list(table[seen].sort_values(["studies", "rank"]).index[:n])


def kept_bytes(function):
    """Bytes that the forward pass ``function()`` keeps for its backward pass, each storage counted once."""
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = function()  # held until the count is over: freed memory could be handed out twice
    del result
    return sum(kept.values())


def best_seconds(functions, repeats=3):
    """Shortest time of each function (name -> function without arguments) over repeats that take turns; name -> seconds."""
    best = dict.fromkeys(functions, np.inf)
    for _ in range(repeats):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def received(weights, gene):
    """How much each token is looked at: the mean weight over layers, heads and looking tokens.

    Args:
        weights: list of cells x heads x length x length, of :meth:`TransformerEncoder.weights`.
        gene: cells x length.

    Returns:
        cells x length; sums to 1 over a cell's tokens, 0 at padding.
    """
    looking = (gene != PAD).float()
    mean = torch.stack(weights).mean((0, 2))  # cells x length x length
    return (mean * looking[..., None]).sum(1) / looking.sum(1, keepdim=True)


def rollout(weights, gene):
    """Attention multiplied through the layers, half of each step staying with the token itself. As :func:`received`.

    Source: Abnar and Zuidema (2020).
    """
    flow = torch.eye(gene.shape[1], device=gene.device)
    for w in weights:
        flow = (0.5 * w.mean(1) + 0.5 * torch.eye(gene.shape[1], device=gene.device)) @ flow
    looking = (gene != PAD).float()
    return (flow * looking[..., None]).sum(1) / looking.sum(1, keepdim=True)


def gradients(model, gene, value):
    """What the gradient of the predicted class's log-probability says about each token.

    Args:
        model: :class:`Annotator`.
        gene, value: cells x length.

    Returns:
        ``(length, product)``, each cells x length: the length of the gradient at the token's vector, and the vector times
        its gradient, the first-order guess of what fades when the vector fades.
    """
    x = model.body.embed_tokens(gene, value).detach().requires_grad_()
    logits = model.head(pooled(model.body.encoder(x, gene == PAD), gene))
    gradient = torch.autograd.grad(logits.log_softmax(1).max(1).values.sum(), x)[0]
    return gradient.norm(dim=-1), (gradient * x).sum(-1).detach()


def without(gene, score, k):
    """Tokens without the ``k`` genes of the highest score; the cell token and padding do not count. cells x length."""
    score = score.masked_fill(gene < FIRST, -torch.inf)
    gone = torch.zeros_like(gene, dtype=torch.bool).scatter(1, score.topk(k, dim=1).indices, True) & (gene >= FIRST)
    return gene.masked_fill(gone, PAD)


@torch.no_grad()
def moved(model, gene, value, fewer):
    """How far predictions move when tokens are removed: half the sum of absolute changes of the probabilities (cells)."""
    p, q = (model({"gene": g, "value": value}).softmax(1) for g in (gene, fewer))
    return (p - q).abs().sum(1) / 2


@torch.no_grad()
def one_by_one(model, gene, value):
    """How far the prediction of each cell moves when one token is removed, for each token: cells x length."""
    columns = []
    for j in range(gene.shape[1]):
        fewer = gene.clone()
        fewer[:, j] = torch.where(gene[:, j] >= FIRST, PAD, gene[:, j])
        columns.append(moved(model, gene, value, fewer))
    return torch.stack(columns, 1)
