# Exported by `scprimer export` from notebooks/learning/scvi.ipynb. Edit the notebook, not this file.
"""What the chapter "scVI: a generative model of counts" builds."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from scipy.stats import chi2
from torch import nn
from torch.nn import functional as F

from scprimer import metrics
from scprimer.train import KeepSparse
from scprimer.train import fit
from scprimer.train import predict

__all__ = [
    "CountLogLikelihood",
    "CountVAE",
    "Decoder",
    "Encoder",
    "Layer",
    "LinearFactors",
    "SparseProduct",
    "TABLE",
    "batch_codes",
    "change_draws",
    "check_options",
    "copy_heads",
    "copy_layer",
    "count_data",
    "differential",
    "draw_counts",
    "draw_shares",
    "draw_z",
    "elbo",
    "elbo_terms",
    "expression",
    "from_scvi_tools",
    "gain_over_mean",
    "generate",
    "glm_pca",
    "kbet",
    "latent",
    "log_likelihood",
    "name_batches",
    "nb_at_counts",
    "nb_everywhere",
    "nb_log_prob",
    "over_cells",
    "posterior_counts",
    "raw_counts",
    "refuse_unknown_options",
    "rising",
    "take",
    "train_count_vae",
    "what_is_wrong",
    "with_dropout",
    "within_fdr",
    "zinb_log_prob",
]


def nb_log_prob(x, mu, theta):
    """log NB(x; mu, theta) of each entry, in nats; the variance is mu + mu**2 / theta. Shapes broadcast."""
    rise = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    return rise - theta * torch.log1p(mu / theta) + x * (mu / (theta + mu)).log()


def zinb_log_prob(x, mu, theta, dropout_logits):
    """log ZINB(x) of each entry: with probability sigmoid(dropout_logits) the count is lost and a zero is seen."""
    lost, kept = F.logsigmoid(dropout_logits), F.logsigmoid(-dropout_logits)
    seen = kept + nb_log_prob(x, mu, theta)
    return torch.where(x == 0, torch.logaddexp(lost, seen), seen)


TABLE = 8  # counts up to here are looked up


def take(matrix, at):
    """The entries of ``matrix`` at flat positions ``at``."""
    return matrix.reshape(-1).index_select(0, at)


def rising(x, column, theta):
    """log of Gamma(x + theta) / (Gamma(theta) x!), and its derivative in theta, for counts of at least 1.

    Args:
        x: counts, 1-d.
        column: the gene of each.
        theta: inverse dispersion of each gene, 1-d.
    """
    step = torch.arange(TABLE, dtype=theta.dtype, device=theta.device)[:, None]
    factor = theta + step  # TABLE x genes: theta, theta + 1, ...
    at = (x.clamp(max=TABLE).long() - 1) * len(theta) + column
    value, slope = (factor / (step + 1)).log_().cumsum(0), factor.reciprocal().cumsum(0)
    value, slope = take(value, at), take(slope, at)
    large = (x > TABLE).nonzero().ravel()
    t, n = theta[column[large]], x[large]
    rest = torch.lgamma(n + t) - torch.lgamma(TABLE + t) - torch.lgamma(n + 1) + math.lgamma(TABLE + 1)
    value.index_add_(0, large, rest)
    slope.index_add_(0, large, torch.digamma(n + t) - torch.digamma(TABLE + t))
    return value, slope


def nb_everywhere(logits, theta, library):
    """What every gene of every cell needs, zero or not: shares p, s = mu / (theta + mu), and log(1 + mu / theta)."""
    p = logits.softmax(1)  # cells x genes
    ratio = (library[:, None] / theta).mul_(p)  # mu / theta
    log_one_more = torch.log1p(ratio)
    return p, ratio.div_(ratio + 1), log_one_more


def nb_at_counts(s, theta, rows, at):
    """What a count adds to log NB(0), and the derivatives of that in theta and in log mu: one number a count each."""
    x, s = rows.value, take(s, at)
    t = theta.index_select(0, rows.column) if theta.dim() == 1 else take(theta, at)
    if theta.dim() == 1 and not x.is_cuda:
        value, slope = rising(x, rows.column, theta)
    else:
        value = torch.lgamma(x + t) - torch.lgamma(t) - torch.lgamma(x + 1)
        slope = torch.digamma(x + t) - torch.digamma(t)
    by_log_mu = x * (1 - s)
    return value + x * s.clamp(min=1e-30).log(), slope - by_log_mu / t, by_log_mu


def with_dropout(dropout_logits, theta, log_one_more, rows, at):
    """What zero inflation makes of log NB(0).

    Returns:
        log probability of a zero, cells x genes; ``w``, the share of it that the NB explains, and 1 where there is a
        count; the gradient in the dropout logits; and what turns each count's log zero into log of not dropped out.
    """
    odds = dropout_logits.clamp(max=60).exp_()
    kept = (odds + 1).reciprocal_()
    nb_zero = (log_one_more * -theta).exp_()
    zero = odds.add_(nb_zero).clamp_(min=1e-30)  # of a zero; times `kept`, its probability
    w = nb_zero.div_(zero)
    log_zero = zero.mul_(kept).log_()
    t = theta.index_select(0, rows.column) if theta.dim() == 1 else take(theta, at)
    not_lost = -F.softplus(take(dropout_logits, at))
    instead = not_lost - t * take(log_one_more, at) - take(log_zero, at)
    w.view(-1).index_fill_(0, at, 1.0)
    return log_zero, w, kept.sub_(w), instead


class CountLogLikelihood(torch.autograd.Function):
    """log NB or log ZINB of each cell's counts, summed over genes, with the gradient worked out in the same pass."""

    @staticmethod
    def forward(ctx, logits, theta, dropout_logits, library, rows):
        """One number a cell, see :func:`log_likelihood`."""
        p, s, log_one_more = nb_everywhere(logits, theta, library)
        at = rows.row * p.shape[1] + rows.column
        extra, slope, gain = nb_at_counts(s, theta, rows, at)
        by_dropout = None
        if dropout_logits is None:
            total = -(log_one_more @ theta) if theta.dim() == 1 else -(log_one_more * theta).sum(1)
        else:
            log_zero, w, by_dropout, instead = with_dropout(dropout_logits, theta, log_one_more, rows, at)
            total, extra = log_zero.sum(1), extra + instead
            s, log_one_more = s.mul_(w), log_one_more.mul_(w)
        a = s * -theta  # derivative in log mu
        a.view(-1).index_add_(0, at, gain)
        by_logits = a.addcmul_(p, a.sum(1, keepdim=True), value=-1)  # through the softmax
        by_theta = s.sub_(log_one_more)
        ctx.rows = rows
        ctx.save_for_backward(by_logits, by_theta, by_dropout, slope, theta)
        return total.index_add_(0, rows.row, extra)

    @staticmethod
    def backward(ctx, g):
        """Gradients in logits, theta and dropout logits, for the derivative ``g`` in each cell's number."""
        return (*_weighted(g, ctx.rows, *ctx.saved_tensors), None, None)


def _weighted(g, rows, by_logits, by_theta, by_dropout, slope, theta):
    """The stored gradients of each cell, times the weight ``g`` of the cell's term in the loss."""
    if theta.dim() == 1:
        by_theta = (g @ by_theta).index_add_(0, rows.column, slope * g.index_select(0, rows.row))
    else:
        at = rows.row * by_logits.shape[1] + rows.column
        by_theta = by_theta.reshape(-1).index_add(0, at, slope).view_as(by_logits) * g[:, None]
    return by_logits * g[:, None], by_theta, None if by_dropout is None else by_dropout * g[:, None]


def log_likelihood(rows, logits, theta, library, dropout_logits=None):
    """log probability of each cell's counts, summed over its genes.

    Args:
        rows: :class:`scprimer.train.SparseRows` of counts, cells x genes, no stored zeros.
        logits: cells x genes; their softmax is the expected share of each gene.
        theta: inverse dispersion: genes, or cells x genes.
        library: expected total of each cell.
        dropout_logits: cells x genes, log odds of a zero that is not a count (ZINB); None for the NB.

    Returns:
        nats, one number a cell.
    """
    return CountLogLikelihood.apply(logits, theta, dropout_logits, library, rows)


class SparseProduct(torch.autograd.Function):
    """log(1 + counts) times a matrix, genes x n: only the genes that a cell expresses are touched."""

    @staticmethod
    def forward(ctx, weight, rows):
        """cells x n."""
        value = rows.value.log1p()
        ctx.rows, ctx.value = rows, value
        return F.embedding_bag(rows.column, weight, rows.start, mode="sum", per_sample_weights=value)

    @staticmethod
    def backward(ctx, g):
        """Gradient in the matrix: for each gene, the sum over the cells that express it."""
        gene = ctx.rows.by_column(ctx.value)
        return F.embedding_bag(gene.column, g, gene.start, mode="sum", per_sample_weights=gene.value), None


class Layer(nn.Module):
    """Linear map, batch normalisation, ReLU, dropout. Known batches (``n_batches`` > 0) each shift the linear map.

    A shift for each batch is what appending the batch as a one-hot vector to the input amounts to.
    """

    def __init__(self, n_in, n_out, n_batches=0, dropout=0.0):
        super().__init__()
        linear = nn.Linear(n_in + n_batches, n_out)  # for its initial values
        weight = linear.weight.detach().T
        self.weight = nn.Parameter(weight[:n_in].contiguous())
        self.shift = nn.Parameter(weight[n_in:].contiguous()) if n_batches else None
        self.bias = nn.Parameter(linear.bias.detach())
        self.norm = nn.BatchNorm1d(n_out, momentum=0.01, eps=0.001)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, batch):
        """cells x n_out, from a tensor (cells x n_in) or from the logarithm of 1 + counts (SparseRows)."""
        h = x @ self.weight if torch.is_tensor(x) else SparseProduct.apply(self.weight, x)
        h = h + self.bias
        if self.shift is not None:
            h = h + F.embedding(batch, self.shift)
        return self.dropout(F.relu(self.norm(h)))


class Encoder(nn.Module):
    """Counts -> mean and variance of q(z | x)."""

    def __init__(self, n_genes, n_latent, n_hidden, n_layers, n_batches, dropout):
        super().__init__()
        sizes = [n_genes] + [n_hidden] * (n_layers - 1)
        self.layers = nn.ModuleList(Layer(n, n_hidden, n_batches, dropout) for n in sizes)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def forward(self, rows, batch):
        """``(mean, variance)``, cells x n_latent each."""
        h = rows
        for layer in self.layers:
            h = layer(h, batch)
        return self.mean(h), self.log_variance(h).exp() + 1e-4


class Decoder(nn.Module):
    """z and the batch -> logits of the expected shares, inverse dispersion, log odds of dropout."""

    def __init__(self, n_genes, n_latent, n_hidden, n_layers, n_batches, zinb, dispersion):
        super().__init__()
        sizes = [n_latent] + [n_hidden] * (n_layers - 1)
        self.layers = nn.ModuleList(Layer(n, n_hidden, n_batches if n_batches > 1 else 0) for n in sizes)
        self.logits = nn.Linear(n_hidden, n_genes)
        self.dropout_logits = nn.Linear(n_hidden, n_genes) if zinb else None
        self.dispersion = dispersion
        if dispersion == "gene-cell":
            self.log_theta = nn.Linear(n_hidden, n_genes)
        else:
            shape = (n_batches, n_genes) if dispersion == "gene-batch" else (n_genes,)
            self.log_theta = nn.Parameter(torch.randn(shape))

    def forward(self, z, batch):
        """``(logits, theta, dropout_logits)``: cells x genes; theta also genes; None without zero inflation."""
        h = z
        for layer in self.layers:
            h = layer(h, batch)
        of = {"gene": lambda: self.log_theta, "gene-batch": lambda: self.log_theta[batch]}
        log_theta = of.get(self.dispersion, lambda: self.log_theta(h))()
        return self.logits(h), log_theta.exp(), self.dropout_logits(h) if self.dropout_logits else None


class CountVAE(nn.Module):
    """scVI: a variational autoencoder of counts, with the architecture and the defaults of scvi-tools' ``SCVI``.

    Args:
        n_genes: genes that are modelled.
        n_batches: batches that the decoder knows.
        n_latent: dimensions of z.
        n_hidden: width of each hidden layer.
        n_layers: hidden layers of the encoder and of the decoder, at least 1.
        dropout: share of the encoder's hidden units that are left out at each training step.
        likelihood: ``"nb"`` or ``"zinb"``.
        dispersion: ``"gene"``, ``"gene-batch"`` or ``"gene-cell"``: what an inverse dispersion of its own belongs to.
        encode_batch: tell the encoder the batch, too.

    Attributes:
        batches: names of the batches, in the order of their codes; set by :func:`train_count_vae`.

    Raises:
        ValueError: an impossible size or an unknown option.

    Source: Lopez et al. (2018); Gayoso et al. (2022).
    """

    def __init__(self, n_genes, n_batches=1, *, n_latent=10, n_hidden=128, n_layers=1, dropout=0.1, likelihood="nb",
                 dispersion="gene", encode_batch=False):  # fmt: skip
        super().__init__()
        check_options(likelihood, dispersion, dropout, n_genes, n_batches, n_latent, n_hidden, n_layers)
        self.n_genes, self.n_batches, self.n_latent, self.encode_batch = n_genes, n_batches, n_latent, encode_batch
        self.batches = list(range(n_batches))
        told = n_batches if encode_batch and n_batches > 1 else 0
        self.encoder = Encoder(n_genes, n_latent, n_hidden, n_layers, told, dropout)
        self.decoder = Decoder(n_genes, n_latent, n_hidden, n_layers, n_batches, likelihood == "zinb", dispersion)

    def inference(self, rows, batch):
        """``{"mean", "variance"}`` of q(z | x), cells x n_latent each, for :class:`~scprimer.train.SparseRows`."""
        return dict(zip(("mean", "variance"), self.encoder(rows, batch)))

    def generative(self, z, library, batch):
        """``{"logits", "theta", "dropout_logits", "library"}``: the arguments of :func:`log_likelihood`."""
        return dict(zip(("logits", "theta", "dropout_logits"), self.decoder(z, batch)), library=library)

    def loss(self, minibatch, kl_weight=1.0):
        """Negative ELBO: ``{"loss", "reconstruction", "kl"}``, means over the cells in nats.

        Args:
            minibatch: ``{"counts": SparseRows, "batch": codes}``.
            kl_weight: weight of the KL term in the loss.
        """
        reconstruction, kl = elbo_terms(self, minibatch)
        loss = (kl_weight * kl - reconstruction).mean()
        return {"loss": loss, "reconstruction": reconstruction.detach().mean(), "kl": kl.detach().mean()}


def elbo_terms(model, minibatch):
    """``(reconstruction, kl)`` of each cell, in nats: log p(x | z) at one draw of z, and KL(q(z | x) || N(0, I))."""
    rows, batch = minibatch["counts"], minibatch["batch"]
    q = model.inference(rows, batch)
    z = q["mean"] + q["variance"].sqrt() * torch.randn_like(q["mean"])
    reconstruction = log_likelihood(rows, **model.generative(z, rows.sum(), batch))
    kl = 0.5 * (q["mean"] ** 2 + q["variance"] - 1 - q["variance"].log()).sum(1)
    return reconstruction, kl


def check_options(likelihood, dispersion, dropout, *sizes):
    """Raise ValueError where :class:`CountVAE` cannot be built."""
    for name, value, allowed in (
        ("likelihood", likelihood, ("nb", "zinb")),
        ("dispersion", dispersion, ("gene", "gene-batch", "gene-cell")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: use one of {', '.join(map(repr, allowed))}")
    if min(sizes) < 1 or not 0 <= dropout < 1:
        raise ValueError(f"sizes {sizes} must be at least 1, and dropout={dropout} at least 0 and below 1")


def raw_counts(counts, n_genes=None):
    """Counts as a csr matrix (float32, no stored zeros) after checking that a count model can take them.

    Args:
        counts: cells x genes: array, SciPy sparse matrix, or AnnData with counts in ``X``.
        n_genes: number of genes that the model has; None does not check it.

    Raises:
        ValueError: negative, NaN or fractional values, cells without a count, another number of genes.
    """
    matrix = sp.csr_matrix(getattr(counts, "X", counts), dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    problem = what_is_wrong(matrix, n_genes)
    if problem:
        raise ValueError(problem)
    return matrix


def what_is_wrong(matrix, n_genes=None):
    """Why a count model cannot take this csr matrix and what to do, in words; None when it can."""
    values, n = matrix.data, matrix.shape[1]
    if n_genes is not None and n != n_genes:
        return f"the model has {n_genes:,} genes and these cells {n:,}: give the genes it was trained on, in that order"
    if not np.isfinite(values).all():
        return "some values are NaN or infinite: a count is a whole number of molecules"
    if len(values) and values.min() < 0:
        return f"some values are negative (the lowest is {values.min():g}): give raw counts, not scaled values"
    broken = values != np.floor(values)
    if broken.any():
        return (
            f"{broken.mean():.0%} of the values are not whole numbers (such as {values[broken][0]:g}): this looks "
            "normalised. Give raw counts, often kept in adata.layers['counts'] or adata.raw"
        )
    empty = np.flatnonzero(np.diff(matrix.indptr) == 0)
    if len(empty):
        return (
            f"{len(empty):,} cells (the first is row {empty[0]}) have no count in these genes, so their library size "
            "is 0: leave them out, for instance adata[adata.X.sum(1) > 0]"
        )
    return None


def batch_codes(model, batch, n_cells):
    """Codes 0 .. n_batches - 1 of the cells' batches.

    Args:
        model: :class:`CountVAE`; ``model.batches`` holds the names.
        batch: one label for all cells or one each: names, or codes; None where the model has one batch.
        n_cells: number of cells.

    Raises:
        ValueError: labels are missing, too many or too few, or unknown to the model.
    """
    if batch is None:
        if model.n_batches > 1:
            raise ValueError(f"the model knows {model.n_batches} batches: say which one each cell is from (batch=...)")
        return np.zeros(n_cells, dtype=np.int64)
    labels = np.asarray(batch)
    labels = np.full(n_cells, labels.item()) if labels.ndim == 0 else labels
    if labels.shape != (n_cells,):
        raise ValueError(f"{n_cells:,} cells need as many batch labels, not an array of shape {labels.shape}")
    code = {name: i for i, name in enumerate(model.batches)}
    if labels.dtype.kind in "iu" and not set(labels.tolist()) <= set(code):
        code = {i: i for i in range(model.n_batches)}
    unseen = sorted({str(x) for x in labels.tolist() if x not in code})
    if unseen:
        known = ", ".join(map(str, model.batches))
        raise ValueError(f"the model has not seen the batch {', '.join(unseen)}: it knows {known}. Train it with them")
    return np.array([code[x] for x in labels.tolist()], dtype=np.int64)


def name_batches(model, batch):
    """Give the model the names of its batches, sorted, unless it knows them or the labels are codes already."""
    names = np.unique(np.asarray(batch)).tolist()
    if set(names) <= {*model.batches, *range(model.n_batches)}:
        return
    if len(names) > model.n_batches:
        raise ValueError(
            f"there are {len(names)} batches and the model has n_batches={model.n_batches}: make it larger"
        )
    model.batches = names


def count_data(model, counts, batch, need_batch=True):
    """``{"counts", "batch"}``, checked, in the form that :func:`scprimer.train.fit` and ``predict`` take."""
    matrix = raw_counts(counts, model.n_genes)
    if batch is None and not need_batch:
        return {"counts": KeepSparse(matrix), "batch": np.zeros(matrix.shape[0], dtype=np.int64)}
    return {"counts": KeepSparse(matrix), "batch": batch_codes(model, batch, matrix.shape[0])}


def train_count_vae(model, counts, batch=None, *, epochs, batch_size=128, learning_rate=1e-3, warmup=None, validation=0.1,
                    patience=None, seed=0, device="auto", checkpoint=None, weight_decay=1e-6, label=""):  # fmt: skip
    """Train a :class:`CountVAE` with scvi-tools' optimiser: Adam with eps 0.01 and weight decay.

    Args:
        model: trained in place, and left on the device in evaluation mode.
        counts: cells x genes, raw counts (array, sparse matrix or AnnData).
        batch: codes or names of the cells' batches.
        epochs: passes over the data.
        batch_size: cells a step.
        learning_rate: of Adam.
        warmup: epochs over which the weight of the KL term grows from 0 to 1; default: a third of ``epochs``.
        validation: a share of the cells, or ``(counts, batch)``, or None; its loss has the full weight of the KL.
        patience: stop after so many epochs without a lower validation loss, and go back to the best weights.
        seed: order of cells, noise, and the split.
        device: as for :func:`scprimer.train.fit`.
        checkpoint: file to resume from and to save to.
        weight_decay: added to the gradient as ``weight_decay * weight``.
        label: words for the progress bar.

    Returns:
        :class:`scprimer.train.History`; ``parts`` has ``reconstruction`` and ``kl``.

    Raises:
        ValueError: data that a count model cannot take; unknown batches.
        CheckpointError: the checkpoint is of a model of another shape, or damaged.
    """
    counts = raw_counts(counts, model.n_genes)
    if batch is not None:
        name_batches(model, batch)
    data = count_data(model, counts, batch)
    if isinstance(validation, tuple):
        validation = count_data(model, *validation)
    rise = max(1, epochs // 3) if warmup is None else warmup

    def loss(model, minibatch, epoch):
        done = min(1.0, int(epoch) / rise) if model.training and rise else 1.0
        return model.loss(minibatch, done)

    fused = next(model.parameters()).dtype == torch.float32
    adam = partial(torch.optim.Adam, lr=learning_rate, eps=0.01, weight_decay=weight_decay, fused=fused)
    held = validation if isinstance(validation, float) else 0  # a share, taken out before there are batches
    most = counts.shape[0] - round(held * counts.shape[0])
    return fit(
        model, data, loss, epochs=epochs, batch_size=max(1, min(batch_size, most)), optimiser=adam, seed=seed,
        validation=validation, patience=patience, device=device, checkpoint=checkpoint, amp=False, label=label,
    )  # fmt: skip


def over_cells(model, function, data, seed=0):
    """``function(minibatch)`` over all cells on the model's device, in evaluation mode, with noise from ``seed``."""
    device = next(model.parameters()).device
    model.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return predict(function, data, device=device, batch_size=512)


def latent(model, counts, batch=None):
    """Posterior means of z: cells x n_latent. ``batch`` is needed only where the encoder is told the batch."""
    data = count_data(model, counts, batch, need_batch=model.encode_batch)
    return over_cells(model, lambda m: model.inference(m["counts"], m["batch"])["mean"], data)


def elbo(model, counts, batch=None, *, n_samples=1, seed=0):
    """ELBO of each cell, in nats.

    Args:
        model: :class:`CountVAE`.
        counts: cells x genes, raw counts.
        batch: codes or names.
        n_samples: draws of z that the reconstruction is averaged over.
        seed: of these draws.

    Returns:
        ``{"elbo", "reconstruction", "kl"}``, one number a cell each: elbo = reconstruction - kl.
    """

    def one(minibatch):
        terms = [torch.stack(elbo_terms(model, minibatch), 1) for _ in range(n_samples)]
        return torch.stack(terms).mean(0)

    reconstruction, kl = over_cells(model, one, count_data(model, counts, batch), seed).astype(float).T
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}


def draw_z(model, minibatch, n_samples=0):
    """Draws of z, n_samples x cells x n_latent; for 0 samples the posterior mean, 1 x cells x n_latent."""
    q = model.inference(minibatch["counts"], minibatch["batch"])
    if not n_samples:
        return q["mean"][None]
    return q["mean"] + q["variance"].sqrt() * torch.randn((n_samples, *q["mean"].shape), device=q["mean"].device)


def expression(model, counts, batch=None, *, transform_batch=None, library=1e4, genes=None, n_samples=0, seed=0):
    """Denoised expression: the decoder's shares times a library size.

    Args:
        model: :class:`CountVAE`.
        counts: cells x genes, raw counts.
        batch: codes or names.
        transform_batch: decode all cells as if they were from this batch; default: each from its own.
        library: total of each cell in the result.
        genes: positions of the genes wanted; default: all.
        n_samples: average over so many draws of z; 0 decodes the posterior mean.
        seed: of these draws.

    Returns:
        cells x genes, float.
    """
    target = None if transform_batch is None else int(batch_codes(model, transform_batch, 1)[0])

    def one(minibatch):
        code = minibatch["batch"] if target is None else torch.full_like(minibatch["batch"], target)
        shares = [model.decoder(z, code)[0].softmax(1) for z in draw_z(model, minibatch, n_samples)]
        mean = torch.stack(shares).mean(0)
        return library * (mean if genes is None else mean[:, genes])

    return over_cells(model, one, count_data(model, counts, batch), seed)


def draw_counts(rng, logits, theta, library, dropout_logits=None):
    """One draw from the decoder's distribution as a gamma-Poisson mixture: int64, cells x genes."""
    mean = logits.softmax(1) * library[:, None]
    mean, theta = mean.double().cpu().numpy(), theta.double().expand_as(mean).cpu().numpy()
    counts = rng.poisson(rng.gamma(theta, mean / theta))
    if dropout_logits is not None:
        counts[rng.random(counts.shape) < torch.sigmoid(dropout_logits).cpu().numpy()] = 0
    return counts


@torch.no_grad()
def generate(model, n, *, library, batch=0, seed=0):
    """New cells from the prior: z ~ N(0, I), then counts.

    Args:
        model: :class:`CountVAE`.
        n: number of cells.
        library: expected total of each cell: one number, or n of them.
        batch: one code or name, or n of them.
        seed: seed.

    Returns:
        counts, n x genes, int64.
    """
    rng, device = np.random.default_rng(seed), next(model.parameters()).device
    z = torch.as_tensor(rng.standard_normal((n, model.n_latent)), dtype=torch.float32, device=device)
    size = torch.as_tensor(np.broadcast_to(library, n).astype(np.float32), device=device)
    code = torch.as_tensor(batch_codes(model, batch, n), device=device)
    model.eval()
    parts = [draw_counts(rng, **model.generative(z[i], size[i], code[i])) for i in torch.arange(n).split(512)]
    return np.concatenate(parts)


def posterior_counts(model, counts, batch=None, *, seed=0):
    """One draw from the posterior predictive distribution: cells like these, counted once more.

    Args:
        model: :class:`CountVAE`.
        counts: cells x genes, raw counts.
        batch: codes or names.
        seed: of the draws of z and of counts.

    Returns:
        counts, cells x genes, int64.
    """
    rng = np.random.default_rng(seed)

    def one(minibatch):
        z = draw_z(model, minibatch, 1)[0]
        parameters = model.generative(z, minibatch["counts"].sum(), minibatch["batch"])
        return torch.as_tensor(draw_counts(rng, **parameters))

    return over_cells(model, one, count_data(model, counts, batch), seed)


def from_scvi_tools(reference):
    """The same model with the weights of a trained ``scvi.model.SCVI``, in evaluation mode.

    Args:
        reference: ``scvi.model.SCVI``, or its module.

    Returns:
        :class:`CountVAE`; its batches are known by scvi-tools' codes.

    Raises:
        ValueError: the reference has an option that :class:`CountVAE` has not.
    """
    source = getattr(reference, "module", reference)
    refuse_unknown_options(source)
    model = CountVAE(
        source.n_input, max(1, source.n_batch), n_latent=source.n_latent, n_hidden=source.n_hidden,
        n_layers=source.n_layers, likelihood=source.gene_likelihood, dispersion=source.dispersion,
        encode_batch=source.encode_covariates,
    )  # fmt: skip
    theirs, mine = source.state_dict(), model.state_dict()
    for half, where in (("encoder", "z_encoder.encoder"), ("decoder", "decoder.px_decoder")):
        for i, layer in enumerate(getattr(model, half).layers):
            copy_layer(mine, f"{half}.layers.{i}.", theirs, f"{where}.fc_layers.Layer {i}.", len(layer.weight))
    copy_heads(mine, theirs, source)
    model.load_state_dict(mine)
    return model.eval()


def copy_layer(mine, name, theirs, where, n_in):
    """One :class:`Layer` from the tensors of a linear map (outputs x inputs and batches) and a batch normalisation."""
    weight = theirs[where + "0.weight"].T
    mine[name + "weight"] = weight[:n_in].contiguous()
    if name + "shift" in mine:
        mine[name + "shift"] = weight[n_in:].contiguous()
    mine[name + "bias"] = theirs[where + "0.bias"]
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        mine[f"{name}norm.{part}"] = theirs[f"{where}1.{part}"]


def copy_heads(mine, theirs, source):
    """The linear maps after the hidden layers, and the dispersions."""
    heads = {"encoder.mean": "z_encoder.mean_encoder", "encoder.log_variance": "z_encoder.var_encoder"}
    heads |= {"decoder.logits": "decoder.px_scale_decoder.0", "decoder.dropout_logits": "decoder.px_dropout_decoder"}
    heads |= {"decoder.log_theta": "decoder.px_r_decoder"}
    for name, where in heads.items():
        for part in ("weight", "bias"):
            if f"{name}.{part}" in mine:
                mine[f"{name}.{part}"] = theirs[f"{where}.{part}"]
    if source.dispersion != "gene-cell":
        mine["decoder.log_theta"] = theirs["px_r"].T.contiguous() if theirs["px_r"].dim() == 2 else theirs["px_r"]


def refuse_unknown_options(source):
    """Raise ValueError where scvi-tools' module is not the model of this chapter."""
    wanted = {
        "gene_likelihood": ("nb", "zinb"), "dispersion": ("gene", "gene-batch", "gene-cell"), "latent_distribution": ("normal",),
        "use_observed_lib_size": (True,), "use_size_factor_key": (False, None), "log_variational": (True,),
        "batch_representation": ("one-hot",),
    }  # fmt: skip
    for name, allowed in wanted.items():
        value = getattr(source, name, allowed[0])
        if value not in allowed:
            raise ValueError(f"the reference has {name}={value!r}; CountVAE knows {', '.join(map(repr, allowed))} only")
    covariates = max(1, source.n_batch) if source.n_batch > 1 else 0
    weight = source.state_dict()["decoder.px_decoder.fc_layers.Layer 0.0.weight"]
    if weight.shape[1] != source.n_latent + covariates:
        raise ValueError("the reference has covariates besides the batch, which CountVAE has not")


class LinearFactors(nn.Module):
    """GLM-PCA with a negative binomial: logits = bias + factors of the cell @ loadings, an inverse dispersion a gene.

    Args:
        n_cells: cells; each has factors of its own.
        n_genes: genes.
        n_factors: dimensions; 0 for one share a gene.

    Source: Townes et al. (2019), with a normal prior on the factors and gradient steps in place of Fisher scoring.
    """

    def __init__(self, n_cells, n_genes, n_factors):
        super().__init__()
        self.factors = nn.Embedding(n_cells, n_factors)
        nn.init.normal_(self.factors.weight, std=0.1)
        self.loadings = nn.Parameter(0.1 * torch.randn(n_factors, n_genes))
        self.bias, self.log_theta = nn.Parameter(torch.zeros(n_genes)), nn.Parameter(torch.zeros(n_genes))

    def loss(self, minibatch):
        """Negative log posterior, mean over cells: ``{"loss"}``."""
        z = self.factors(minibatch["cell"])
        rows, theta = minibatch["counts"], self.log_theta.exp()
        fit = log_likelihood(rows, self.bias + z @ self.loadings, theta, rows.sum())
        return {"loss": (0.5 * (z**2).sum(1) - fit).mean()}

    def shares(self):
        """Expected share of each gene: cells x genes, NumPy."""
        with torch.no_grad():
            return (self.bias + self.factors.weight @ self.loadings).softmax(1).cpu().numpy()


def glm_pca(counts, n_factors=10, *, epochs=60, batch_size=128, learning_rate=0.03, seed=0, device="auto", label=""):
    """Fit :class:`LinearFactors` to counts (cells x genes) by Adam, the learning rate falling to 0.

    Returns:
        the model; its bias starts at the log of each gene's share.

    Raises:
        ValueError: counts that are none, see :func:`raw_counts`.
    """
    counts = raw_counts(counts)
    torch.manual_seed(seed)
    model = LinearFactors(*counts.shape, n_factors)
    total = torch.as_tensor(np.asarray(counts.sum(0)).ravel() + 0.5)
    model.bias.data = (total / total.sum()).log().float()
    fit(
        model, {"counts": KeepSparse(counts), "cell": np.arange(counts.shape[0])}, lambda m, batch, _: m.loss(batch),
        epochs=epochs, batch_size=min(batch_size, counts.shape[0]), seed=seed, device=device, amp=False, label=label,
        optimiser=partial(torch.optim.Adam, lr=learning_rate), schedule=lambda t: 1 - t,
    )  # fmt: skip
    return model


def gain_over_mean(shares, other, mean):
    """What predicted shares are worth on molecules that were not used to predict them.

    Args:
        shares: cells x genes, rows adding up to 1.
        other: counts of the other molecules of the same cells, csr.
        mean: share of each gene in the average cell.

    Returns:
        nats a cell above ``mean``; minus infinity where a share of 0 meets a molecule.
    """
    other = other.tocoo()
    with np.errstate(divide="ignore"):
        ratio = np.log(shares[other.row, other.col] / mean[other.col])
    return float((other.data * ratio).sum() / other.shape[0])


def kbet(Z, batch, k=25, level=0.05):
    """kBET's acceptance: share of cells whose neighbours come from the batches as the whole data set does.

    Args:
        Z: cells x features.
        batch: a label a cell.
        k: neighbours, the cell itself not counted.
        level: of the test.

    Returns:
        between 0 and 1; about ``1 - level`` for batches that are perfectly mixed.

    Source: Büttner et al. (2019), with one fixed number of neighbours and every cell tested.
    """
    _, code = np.unique(batch, return_inverse=True)
    expected = k * np.bincount(code) / len(code)
    seen = (code[metrics.neighbours(np.asarray(Z), k)][:, :, None] == np.arange(len(expected))).sum(1)
    statistic = ((seen - expected) ** 2 / expected).sum(1)
    return float((statistic <= chi2.ppf(1 - level, len(expected) - 1)).mean())


def draw_shares(model, counts, batch=None, *, draws=200, unit="cell", n_samples=10, seed=0):
    """Draws of a group's shares from the posterior.

    Args:
        model: :class:`CountVAE`.
        counts: the group's cells x genes, raw counts.
        batch: codes or names.
        draws: how many.
        unit: ``"cell"``, one cell of the group each time; ``"group"``, the mean over cells that are drawn anew, with
            replacement, each time.
        n_samples: draws of z from each cell's posterior that are made in all.
        seed: seed.

    Returns:
        draws x genes.
    """
    rng = np.random.default_rng(seed)
    data = count_data(model, counts, batch)

    def one(m):
        z = draw_z(model, m, n_samples)
        return torch.stack([model.decoder(part, m["batch"])[0].softmax(1) for part in z], 1)

    shares = over_cells(model, one, data, seed)  # cells x samples x genes
    n, sample = len(shares), np.arange(draws) % n_samples
    if unit == "cell":
        return shares[rng.integers(n, size=draws), sample]
    often = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n  # draws x cells
    return np.stack([w @ shares[:, s] for w, s in zip(often, sample)])


def change_draws(model, counts, in_a, in_b, batch=None, *, unit="cell", draws=200, pseudo=1e-5, seed=0):
    """Posterior draws of the log2 ratio of the shares of two groups of cells.

    Args:
        model: :class:`CountVAE`, which need not know the groups.
        counts: cells x genes, raw counts.
        in_a: bool, a value a cell; at most 500 cells of a group are used, drawn at random.
        in_b: the same.
        batch: codes or names.
        unit: see :func:`draw_shares`.
        draws: draws from the posterior.
        pseudo: added to the shares, so that genes that neither group expresses do not change.
        seed: seed.

    Returns:
        draws x genes.

    Raises:
        ValueError: a group is empty.
    """
    rng, logs = np.random.default_rng(seed), []
    for i, inside in enumerate((in_a, in_b)):
        rows = np.flatnonzero(inside)
        if not len(rows):
            raise ValueError(f"group {'ab'[i]} has no cells: check the labels")
        rows = rng.permutation(rows)[:500]
        labels = None if batch is None else np.asarray(batch)[rows]
        drawn = draw_shares(model, counts[rows], labels, draws=draws, unit=unit, seed=seed + i)
        logs.append(np.log2(drawn + pseudo))
    return logs[0] - logs[1]


def differential(model, counts, in_a, in_b, batch=None, *, delta=0.25, **options):
    """Bayesian differential expression: probability of each gene that its log2 share changes by more than ``delta``.

    Args:
        model, counts, in_a, in_b, batch, options: as for :func:`change_draws`.
        delta: the change that matters, in log2.

    Returns:
        ``(p, change)``, a value a gene: that probability, and the median change.

    Source: Boyeau et al. (2023); scvi-tools' mode "change".
    """
    change = change_draws(model, counts, in_a, in_b, batch, **options)
    return (np.abs(change) > delta).mean(0), np.median(change, 0)


def within_fdr(p, level=0.05):
    """Which genes to call so that the expected share of false ones is at most ``level``.

    Args:
        p: probability that each gene changed.
        level: of the false discovery rate.

    Returns:
        bool, a value a gene: the most probable ones, as many as the mean of ``1 - p`` among them allows.
    """
    order = np.argsort(-p, kind="stable")
    expected = np.cumsum(1 - p[order]) / np.arange(1, len(p) + 1)
    called = np.zeros(len(p), bool)
    called[order[: np.searchsorted(expected > level, True)]] = True  # `expected` only grows
    return called
