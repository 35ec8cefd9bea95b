# Exported by `scprimer export` from notebooks/learning/diffusion.ipynb. Edit the notebook, not this file.
"""What the chapter "Diffusion: cells from noise" builds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import NearestNeighbors
from torch import nn

from scprimer.train import fit

__all__ = [
    "Block",
    "Denoiser",
    "Schedule",
    "ancestral",
    "check_cells",
    "clean",
    "cosine_schedule",
    "coverage_density",
    "ddpm_loss",
    "distance_to",
    "linear_schedule",
    "mixture_guess",
    "nearer",
    "posterior",
    "q_sample",
    "sample",
    "time_features",
    "train_ddpm",
    "two_sample_auc",
]


@dataclass(frozen=True)
class Schedule:
    """How much noise each step adds.

    Attributes:
        beta: variance added in steps 1 to T, each between 0 and 1: a vector of T numbers, float64.

    Source: Ho et al. (2020), equations 2 and 4.
    """

    beta: torch.Tensor

    def __post_init__(self):
        if self.beta.ndim != 1 or not ((self.beta > 0) & (self.beta < 1)).all():
            raise ValueError("beta must be a vector of numbers between 0 and 1, one for each step")
        kept = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - self.beta.double(), 0)])
        object.__setattr__(self, "_alpha_bar", kept)

    def __len__(self):
        return len(self.beta)

    def alpha_bar(self, t):
        """Share of the variance that is signal after ``t`` steps (0 to T): float64, shape and device of ``t``."""
        return self._alpha_bar.to(t.device)[t] if t.device.type != "mps" else self._alpha_bar.float().to(t.device)[t]


def linear_schedule(n_steps, first=1e-4, last=0.02):
    """The schedule of Ho et al. (2020), whose values are for 1,000 steps, stretched to ``n_steps``."""
    beta = torch.linspace(first, last, n_steps, dtype=torch.float64) * 1000 / n_steps
    return Schedule(beta.clamp(max=0.999))


def cosine_schedule(n_steps, s=0.008):
    """The schedule of Nichol and Dhariwal (2021): alpha_bar falls as a squared cosine; ``s`` keeps the first step small."""
    u = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    kept = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return Schedule((1 - kept[1:] / kept[:-1]).clamp(max=0.999))


def q_sample(schedule, x0, t, noise):
    """Noise a cell up to step ``t`` in one go.

    Args:
        schedule: :class:`Schedule`.
        x0: cells x features.
        t: a step (0 to T) for each cell, int64.
        noise: standard normal, cells x features.

    Returns:
        x_t: cells x features. Source: Ho et al. (2020), equation 4.
    """
    a = schedule.alpha_bar(t)[:, None].to(x0.dtype)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def posterior(schedule, x0, x, t):
    """Mean (cells x features) and variance (cells x 1) of q(x_{t-1} | x_t, x_0); ``t`` from 1 to T.

    Source: Ho et al. (2020), equations 6 and 7.
    """
    a, before = (schedule.alpha_bar(s)[:, None].to(x.dtype) for s in (t, t - 1))
    beta = 1 - a / before
    mean = before.sqrt() * beta / (1 - a) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - a) * x
    return mean, (1 - before) / (1 - a) * beta


def time_features(t, n):
    """Steps -> sines and cosines of ``n / 2`` frequencies between 1 and 1/10,000: len(t) x n."""
    angle = t[:, None].float() * torch.exp(-math.log(1e4) * torch.arange(n // 2, device=t.device) / (n // 2))
    return torch.cat([angle.sin(), angle.cos()], 1)


class Block(nn.Module):
    """A residual block: h + f(h, what is known about the step and the type)."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.told = nn.LayerNorm(width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, h, told):
        """h, told: cells x width. Returns cells x width."""
        return h + self.second(nn.functional.silu(self.first(self.norm(h)) + self.told(told)))


class Denoiser(nn.Module):
    """The network of a diffusion model on vectors.

    Args:
        n_features: length of a cell's vector.
        n_types: cell types it can be told; their codes are 0 to n_types - 1, and the code n_types says nothing.
        n_steps: T.
        width: hidden units; even.
        n_blocks: residual blocks.
        predicts: ``"velocity"`` or ``"noise"``.
    """

    def __init__(self, n_features, n_types=0, *, n_steps, width=128, n_blocks=2, predicts="velocity"):
        super().__init__()
        if predicts not in ("velocity", "noise"):
            raise ValueError(f"predicts={predicts!r}: use 'velocity' or 'noise'")
        self.n_features, self.n_types, self.n_steps, self.predicts = n_features, n_types, n_steps, predicts
        self.enter, self.label = nn.Linear(n_features, width), nn.Embedding(n_types + 1, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(n_blocks))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, n_features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x, t, label=None):
        """x: cells x features; t, label: one int64 a cell (None: no type is told). Returns cells x features."""
        label = torch.full_like(t, self.n_types) if label is None else label
        step = time_features(t * (1000 / self.n_steps), self.label.embedding_dim).to(x.dtype)
        told = self.time(step) + self.label(label)
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, told)
        return self.leave(self.norm(h))


def ddpm_loss(model, schedule, batch, drop=0.2):
    """Squared error of the network's guess at random steps: a scalar.

    Args:
        model: :class:`Denoiser`; in training mode it is not told the type in a share ``drop`` of the cells.
        schedule: :class:`Schedule`.
        batch: ``{"x": cells x features, "label": codes}``.

    Source: Ho et al. (2020), equation 14; for the velocity Salimans and Ho (2022).
    """
    x0, label = batch["x"], batch["label"]
    t = torch.randint(1, len(schedule) + 1, (len(x0),), device=x0.device)
    noise = torch.randn_like(x0)
    x = q_sample(schedule, x0, t, noise)
    a = schedule.alpha_bar(t)[:, None].to(x0.dtype)
    goal = noise if model.predicts == "noise" else a.sqrt() * noise - (1 - a).sqrt() * x0
    if model.training and model.n_types:
        label = torch.where(torch.rand(len(x0), device=x0.device) < drop, model.n_types, label)
    return (model(x, t, label).float() - goal).square().mean()


def train_ddpm(model, schedule, x0, label=None, *, epochs, batch_size=128, learning_rate=2e-3, validation=None, seed=0,
               device="auto"):  # fmt: skip
    """Train a diffusion model.

    Args:
        model: :class:`Denoiser`, trained in place.
        schedule: :class:`Schedule` with as many steps as the model was made for.
        x0: cells x features, each feature with a standard deviation of about 1.
        label: codes of the types, 0 to n_types (which says nothing); default: nothing is told.
        epochs, batch_size, learning_rate, seed, device: as for :func:`scprimer.train.fit`.
        validation: held-out cells x features (told no type), or None.

    Returns:
        :class:`scprimer.train.History`.

    Raises:
        ValueError: a wrong shape, NaN, a code out of range, or a schedule of another length.
    """
    check_cells(model, schedule, x0, label)
    pack = lambda x, y: {"x": np.asarray(x, "float32"), "label": np.full(len(x), model.n_types) if y is None else y}  # noqa: E731
    adam = partial(torch.optim.AdamW, lr=learning_rate, weight_decay=1e-4, fused=True)
    return fit(
        model, pack(x0, label), lambda m, batch, _: ddpm_loss(m, schedule, batch), epochs=epochs,
        batch_size=min(batch_size, len(x0)), optimiser=adam, seed=seed, device=device, clip=1.0, amp=False,
        validation=None if validation is None else pack(validation, None),
        schedule=lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    )  # fmt: skip


def check_cells(model, schedule, x0, label):
    """Raise a ValueError that says what is wrong with the data of a training, if anything is."""
    if len(schedule) != model.n_steps:
        raise ValueError(f"the schedule has {len(schedule)} steps, the model was made for {model.n_steps}")
    if np.ndim(x0) != 2 or np.shape(x0)[1] != model.n_features:
        raise ValueError(f"the cells have shape {np.shape(x0)}, the model takes cells x {model.n_features} features")
    if not np.isfinite(x0).all():
        raise ValueError("the cells hold NaN or infinite values: remove or fill them first")
    if label is not None and (np.min(label) < 0 or np.max(label) > model.n_types):
        raise ValueError(f"labels must be codes from 0 to {model.n_types} (the last says nothing)")


def clean(model, schedule, x, t, label=None, guidance=0.0):
    """The network's guess of the clean cells.

    Args:
        model, schedule: what was trained.
        x: noisy cells x features.
        t: the step of each cell, 1 to T.
        label: codes of types, or None.
        guidance: 0 for plain conditioning; above 0 exaggerates what the label changes.

    Returns:
        cells x features. Source: Ho and Salimans (2022) for the guidance.
    """
    out = model(x, t, label)
    if guidance and label is not None:
        out = out + guidance * (out - model(x, t))
    a = schedule.alpha_bar(t)[:, None].to(x.dtype)
    if model.predicts == "noise":
        return (x - (1 - a).sqrt() * out) / a.sqrt()
    return a.sqrt() * x - (1 - a).sqrt() * out


@torch.no_grad()
def ancestral(guess, schedule, x, generator):
    """Ho's sampler: from noise ``x`` at step T down to 0, with ``guess(x, t)`` for the clean cells."""
    for step in range(len(schedule), 0, -1):
        t = torch.full((len(x),), step, device=x.device)
        mean, variance = posterior(schedule, guess(x, t), x, t)
        fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        x = mean + (step > 1) * variance.sqrt() * fresh
    return x


@torch.no_grad()
def sample(guess, schedule, shape, *, steps=None, eta=1.0, box=None, seed=0, device="cpu", dtype=torch.float32):
    """New cells from noise, with all steps or few.

    Args:
        guess: ``guess(x, t)`` gives the clean cells, such as ``partial(clean, model, schedule)``.
        schedule: :class:`Schedule`.
        shape: ``(cells, features)``.
        steps: how many of the T steps to take, evenly spaced; default: all.
        eta: 1 is the DDPM, 0 the deterministic DDIM.
        box: lowest and highest value of each feature, which guesses are held within; or None.
        seed: of all noise, drawn on the CPU so that devices agree.

    Returns:
        cells x features, NumPy. Raises ValueError for an impossible ``steps``.

    Source: Song et al. (2021), equations 12 and 16.
    """
    if steps is not None and not 1 <= steps <= len(schedule):
        raise ValueError(f"steps={steps}: take between 1 and the schedule's {len(schedule)}")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype).to(device)
    low, high = (None, None) if box is None else (torch.as_tensor(b, dtype=dtype, device=device) for b in box)
    path = np.linspace(len(schedule), 0, (steps or len(schedule)) + 1).round().astype(int)
    for now, then in zip(path[:-1].tolist(), path[1:].tolist()):
        a, before = schedule.alpha_bar(torch.tensor([now, then])).tolist()
        x0 = guess(x, torch.full((len(x),), now, device=x.device))
        x0 = x0 if box is None else x0.clamp(low, high)
        noise = (x - a**0.5 * x0) / (1 - a) ** 0.5
        sigma = eta * ((1 - before) / (1 - a) * (1 - a / before)) ** 0.5
        x = before**0.5 * x0 + max(1 - before - sigma**2, 0) ** 0.5 * noise
        if then:
            x = x + sigma * torch.randn(shape, generator=generator, dtype=dtype).to(device)
    return x.cpu().numpy()


def two_sample_auc(real, made, seed=0, rounds=60):
    """Classifier two-sample test: out-of-fold AUC of boosted trees, real against generated.

    Args:
        real, made: cells x features each; the larger is cut to the size of the smaller.
        seed: of folds and classifier.
        rounds: number of trees.

    Returns:
        0.5 when the classifier cannot tell them apart, 1 when it always can. Raises ValueError for fewer than 20 cells.

    Source: Lopez-Paz and Oquab (2017).
    """
    n = min(len(real), len(made))
    if n < 20:
        raise ValueError(f"{n} cells a side are too few for five folds: give 20 or more")
    F, side = np.concatenate([real[:n], made[:n]]), np.repeat([0, 1], n)
    few = {"max_leaf_nodes": 8, "max_bins": 63, "early_stopping": False}
    trees = HistGradientBoostingClassifier(max_iter=rounds, random_state=seed, **few)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return float(roc_auc_score(side, cross_val_predict(trees, F, side, cv=folds, method="predict_proba")[:, 1]))


def distance_to(cells, others, k=1):
    """Euclidean distance of each of ``cells`` to its ``k``-th nearest of ``others`` (cells x features): a vector."""
    return NearestNeighbors(n_neighbors=k).fit(others).kneighbors(cells)[0][:, -1]


def coverage_density(real, made, k=5):
    """Coverage (0 to 1) and density (about 1 for real cells) of generated cells.

    Args:
        real, made: cells x features.
        k: the ball of a real cell reaches to its ``k``-th nearest other real cell.

    Source: Naeem et al. (2020), section 3.
    """
    radius = distance_to(real, real, k + 1)  # the first is the cell itself
    blocks = np.array_split(real, len(real) // 100 + 1)
    distance = np.concatenate([np.linalg.norm(block[:, None] - made, axis=2) for block in blocks])
    inside = distance <= radius[:, None]  # real x made
    return float(inside.any(1).mean()), float(inside.sum() / (k * len(made)))


def nearer(made, training, held_out):
    """Probability that a generated cell is nearer to its nearest training cell than a held-out one is (ties count half)."""
    own, new = distance_to(made, training), np.sort(distance_to(held_out, training))
    below, not_above = (np.searchsorted(new, own, side=side) for side in ("left", "right"))
    return float(1 - (below + not_above).mean() / (2 * len(new)))


def mixture_guess(weights, means, covariances, schedule):
    """The perfect guess for data from a Gaussian mixture: ``guess(x, t)`` gives E[x_0 | x_t].

    Args:
        weights: one for each cluster; sum 1.
        means: clusters x features.
        covariances: clusters x features x features.
        schedule: :class:`Schedule`.

    Returns:
        A function as :func:`sample` takes it; ``t`` must be one and the same step for all cells.
    """
    w, mu, S = (torch.as_tensor(np.asarray(v), dtype=torch.float64) for v in (weights, means, covariances))

    def guess(x, t):
        a = float(schedule.alpha_bar(t[:1]))
        C = a * S + (1 - a) * torch.eye(S.shape[1], dtype=S.dtype)  # of x_t, clusters x features x features
        gap = x.double().cpu() - a**0.5 * mu[:, None]  # clusters x cells x features
        solved = torch.linalg.solve(C, gap.transpose(1, 2)).transpose(1, 2)
        log_r = w.log()[:, None] - 0.5 * (gap * solved).sum(2) - 0.5 * torch.logdet(C)[:, None]
        each = mu[:, None] + a**0.5 * solved @ S  # E[x_0 | x_t, cluster]
        return (log_r.softmax(0)[:, :, None] * each).sum(0).to(x)

    return guess
