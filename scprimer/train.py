"""One training loop for every chapter: minibatches that stay on the device, early stopping, checkpoint and resume.

>>> def loss(model, batch, epoch):
...     return torch.nn.functional.mse_loss(model(batch["x"]), batch["y"])
>>> history = fit(model, {"x": X, "y": y}, loss, epochs=50, batch_size=128, validation=0.1, patience=5)

A chapter owns its model and its loss; :func:`fit` owns what is the same each time. Nothing is registered or subclassed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from scprimer import checkpoint as checkpoints
from scprimer.checkpoint import CheckpointError, checkpoint_key, checkpoint_path
from scprimer.run import find_device, progress

__all__ = [
    "CSR", "CheckpointError", "History", "KeepSparse", "SparseRows", "TrainingError", "checkpoint_key", "checkpoint_path", "fit",
    "predict", "to_device",
]  # fmt: skip

SAVE_SECONDS = 10.0  # a checkpoint is written at an epoch's end when the last is older than this, and at the very end

Data = Any  # an array, a SciPy sparse matrix or a tensor; or a tuple, list or dict of these with equal numbers of rows
Batch = Any  # the same form, of dense tensors on the device (of SparseRows where the data said KeepSparse)
Loss = Callable[[torch.nn.Module, Batch, float], Any]


class TrainingError(RuntimeError):
    """A training cannot go on; the message says where it broke and what to try."""


@dataclass
class History:
    """What happened in a training.

    Attributes:
        train: mean training loss of each epoch.
        validation: validation loss after each epoch; empty without validation data.
        parts: further scalars that the loss returned, by name: means over the training data, one an epoch.
        seconds: time of the training loop, summed over resumptions.
        best_epoch: epoch (counted from 0) of the lowest validation loss; None without validation data.
        stopped_early: whether patience ran out.
        resumed_at: how many epochs a checkpoint had done already when this call began; 0 without one.
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    best_epoch: int | None = None
    stopped_early: bool = False
    resumed_at: int = 0

    def __len__(self) -> int:
        return len(self.train)


@dataclass(frozen=True)
class KeepSparse:
    """Says of a SciPy sparse matrix (rows x columns) that its minibatches stay sparse: :class:`SparseRows`, not tensors."""

    matrix: sp.spmatrix

    def __len__(self) -> int:
        return self.matrix.shape[0]


@dataclass(frozen=True)
class SparseRows:
    """Some rows of a sparse matrix, on the device: the stored values one after the other, row by row.

    Attributes:
        row: row of this batch (from 0) of each stored value, int64.
        column: its column, int64.
        value: the value itself, float32.
        start: where each row begins among them, int64, one a row; an empty row begins where the next does.
        shape: rows x columns.
    """

    row: torch.Tensor
    column: torch.Tensor
    value: torch.Tensor
    start: torch.Tensor
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def dense(self, value: torch.Tensor | None = None) -> torch.Tensor:
        """The rows as a tensor (rows x columns), zero where nothing is stored; other values in the same places if given."""
        value = self.value if value is None else value
        flat = torch.zeros(self.shape[0] * self.shape[1], dtype=value.dtype, device=value.device)
        return flat.scatter_(0, self.row * self.shape[1] + self.column, value).view(self.shape)

    def by_column(self, value: torch.Tensor | None = None) -> SparseRows:
        """The transpose: the same entries column after column, or other values in their places."""
        value = self.value if value is None else value
        if self.column.device.type == "cpu":  # NumPy sorts 16-bit integers by radix, several times as fast as torch
            keys = self.column.numpy()
            keys = keys.astype(np.uint16) if self.shape[1] <= 2**16 else keys
            order = torch.as_tensor(np.argsort(keys, kind="stable"))
        else:
            order = self.column.argsort(stable=True)
        n = torch.bincount(self.column, minlength=self.shape[1])
        column, row, value = (part.index_select(0, order) for part in (self.column, self.row, value))
        return SparseRows(column, row, value, n.cumsum(0) - n, self.shape[::-1])

    def sum(self) -> torch.Tensor:
        """Sum of each row."""
        return torch.zeros(len(self), device=self.value.device).index_add_(0, self.row, self.value)


class CSR:
    """A sparse matrix that stays sparse on the device, where its minibatches are made.

    ``csr[rows]`` is dense float32 (rows x columns); with ``keep_sparse`` it is :class:`SparseRows`.
    """

    def __init__(self, matrix: sp.spmatrix, device: torch.device, keep_sparse: bool = False):
        matrix = sp.csr_matrix(matrix)
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        self.shape, self.keep_sparse = matrix.shape, keep_sparse
        self.starts = torch.as_tensor(matrix.indptr, dtype=torch.int64, device=device)
        # Columns take half the memory as int32; a batch's become int64 when it is made.
        self.columns = torch.as_tensor(matrix.indices, dtype=torch.int32, device=device)
        self.values = torch.as_tensor(matrix.data, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor | SparseRows:
        first = self.starts[rows]
        n = self.starts[rows + 1] - first  # stored values in each row
        row = torch.repeat_interleave(n)  # 0 0 0 1 1 2 ...: the row of the batch that each of them belongs to
        before = n.cumsum(0) - n  # how many the rows above hold
        at = torch.arange(len(row), device=row.device) + (first - before).index_select(0, row)
        column, value = (part.index_select(0, at) for part in (self.columns, self.values))  # faster than part[at]
        part = SparseRows(row, column.long(), value, before, (len(rows), self.shape[1]))
        return part if self.keep_sparse else part.dense()


def fit(
    model: torch.nn.Module,
    data: Data,
    loss: Loss,
    *,
    epochs: int,
    batch_size: int = 128,
    optimiser: torch.optim.Optimizer | Callable[..., torch.optim.Optimizer] | None = None,
    validation: Data | float | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    patience: int | None = None,
    clip: float | None = None,
    amp: bool | str = "auto",
    checkpoint: str | Path | None = None,
    schedule: Callable[[float], float] | None = None,
    label: str = "",
) -> History:
    """Train ``model`` on ``data`` until ``epochs`` are done or patience runs out.

    Args:
        model: moved to the device, trained in place, and left there in evaluation mode.
        data: array, SciPy sparse matrix or tensor (rows first), or a tuple, list or dict of these with equal numbers of
            rows. It is put on the device once, sparse matrices as :class:`CSR`. Floats become float32. Batches of a sparse
            matrix are dense, those of ``KeepSparse(matrix)`` are :class:`SparseRows`.
        loss: ``loss(model, batch, epoch)`` returns a scalar, the mean over the batch's rows; or a dict with that scalar
            under ``"loss"`` and others to record. ``batch`` has the form of ``data``, dense, on the device. ``epoch``
            is a float that grows within an epoch too (2.5 is the middle of the third), for warm-ups such as
            ``min(1, epoch / 10)``. Validation passes ``epoch=epochs``, the final weights of all terms: otherwise its
            values could not be compared over a training.
        epochs: passes over the data, those before a resumption included.
        batch_size: rows a step. The last step of an epoch may hold fewer; a single row left over is skipped in that
            epoch, since batch normalisation cannot take it.
        optimiser: an optimiser over the model's parameters, or a function that makes one of them, such as
            ``functools.partial(torch.optim.SGD, lr=0.1)``; default: Adam with learning rate 1e-3.
        validation: data of the same form; or a share of the rows, such as 0.1, drawn with ``seed``. Where rows belong
            together (the cells of a donor), split beforehand and give the data.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``, or a torch device.
        seed: the order of rows and torch's noise in an epoch follow from ``seed`` and the epoch's number alone, so that
            a resumed training equals an uninterrupted one. The caller's own random state is left as it was.
        patience: stop after so many epochs without a lower validation loss, and go back to the best weights.
        clip: largest norm of the gradient; None does not clip.
        amp: compute in bfloat16 (True), in float32 (False), or in bfloat16 where the device is fast at it (``"auto"``:
            CUDA from compute capability 8). Call ``.float()`` on outputs before a likelihood of counts.
        checkpoint: file to resume from if it is there, and to save to; see :func:`checkpoint_path`.
        schedule: factor of the learning rate for progress from 0 to 1, such as
            ``lambda t: 0.5 * (1 + math.cos(math.pi * t))``.
        label: words for the progress bar.

    Returns:
        :class:`History`.

    Raises:
        ValueError: empty data, parts of different length, a batch larger than the data, patience without validation, ...
        TrainingError: the loss is NaN or infinite (at which step, and what to try), or no scalar to differentiate.
        CheckpointError: the checkpoint is damaged, cannot be written, or is of another model.
    """
    device = _device(device)
    data = to_device(data, device)
    rows = torch.arange(_rows(data, "data"), device=device)
    held_data, held_rows = data, None
    if isinstance(validation, int | float):
        rows, held_rows = _split(rows, validation, seed)
    elif validation is not None:
        held_data = to_device(validation, device)
        held_rows = torch.arange(_rows(held_data, "validation data"), device=device)
    _check_arguments(len(rows), epochs, batch_size, patience, held_rows)

    model.to(device)
    optimiser = _optimiser(model, optimiser)
    for group in optimiser.param_groups:
        group.setdefault("initial_lr", group["lr"])
    history, best = History(), None
    path = _checkpoint_file(checkpoint)
    if path is not None and path.exists():
        stored, best = checkpoints.load(path, model, optimiser)
        history = History(**{**stored, "resumed_at": len(stored["train"])})
    half = torch.autocast(device.type, dtype=torch.bfloat16) if _use_amp(amp, device) else nullcontext()

    def compute(batch: Batch, epoch: float) -> dict[str, torch.Tensor]:
        with half:
            return _as_dict(loss(model, batch, epoch))

    def step(batch: Batch, epoch: float) -> dict[str, torch.Tensor]:
        if schedule is not None:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * schedule(epoch / epochs)
        optimiser.zero_grad(set_to_none=True)
        result = compute(batch, epoch)
        _check_differentiable(result["loss"])
        result["loss"].backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        return result

    begun, saved = time.monotonic() - history.seconds, time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        bar = progress(range(len(history), 0 if history.stopped_early else epochs), label)
        for epoch in bar:
            _seed(seed, epoch)
            model.train()
            order = rows[torch.randperm(len(rows)).to(device)]
            means = _go_through(data, _batches(order, batch_size), step, epoch)
            history.train.append(means.pop("loss"))
            for name, value in means.items():
                history.parts.setdefault(name, []).append(value)
            if held_rows is not None:
                _seed(seed, -1)  # the same noise every time: new noise would look like progress
                model.eval()
                with torch.no_grad():
                    means = _go_through(held_data, held_rows.split(batch_size), lambda batch, _: compute(batch, epochs))
                history.validation.append(means["loss"])
                if history.best_epoch is None or means["loss"] < history.validation[history.best_epoch]:
                    history.best_epoch = epoch
                    best = None if patience is None else _copy(model)
                history.stopped_early = patience is not None and epoch - history.best_epoch >= patience
            history.seconds = time.monotonic() - begun
            bar.set_postfix_str(f"loss {(history.validation or history.train)[-1]:.4g}", refresh=False)
            over = epoch == epochs - 1 or history.stopped_early
            if path is not None and (over or time.monotonic() - saved >= SAVE_SECONDS):
                checkpoints.save(path, model, optimiser, asdict(history), best)
                saved = time.monotonic()
            if history.stopped_early:
                break
    if best is not None and patience is not None:
        model.load_state_dict(best)
    model.eval()
    return history


def predict(
    function: Callable[[Batch], torch.Tensor],
    data: Data,
    *,
    batch_size: int = 1024,
    device: str | torch.device = "auto",
) -> np.ndarray:
    """``function(batch)`` over all rows in order, without gradients, such as ``predict(model.encode, counts)``.

    Args:
        function: maps a batch (in the form of ``data``, dense, on the device) to a tensor with a row for each of its rows.
        data: as for :func:`fit`.
        batch_size: rows at a time.
        device: where batches are made: where the function's model is.

    Returns:
        rows x ... as a NumPy array (float32 where the function returns a smaller float).
    """
    data = to_device(data, _device(device))
    rows = torch.arange(_rows(data, "data"), device=_device(device))
    with torch.no_grad():
        parts = [function(_take(data, part)).detach().cpu() for part in rows.split(batch_size)]
    whole = torch.cat(parts)
    return (whole.float() if whole.dtype in (torch.bfloat16, torch.float16) else whole).numpy()


def to_device(data: Data, device: torch.device) -> Data:
    """Put arrays and tensors on the device, sparse matrices as :class:`CSR`; tuples, lists and dicts part by part."""
    if isinstance(data, Mapping):
        return {name: to_device(part, device) for name, part in data.items()}
    if isinstance(data, tuple | list):
        return tuple(to_device(part, device) for part in data)
    if isinstance(data, CSR):
        return data
    if isinstance(data, KeepSparse):
        return CSR(data.matrix, device, keep_sparse=True)
    if sp.issparse(data):
        return CSR(data, device)
    tensor = data if isinstance(data, torch.Tensor) else torch.as_tensor(_array(data))
    return tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)


# ---- going through the data ---------------------------------------------------------------------------------------------
def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    batches = list(order.split(size))
    return batches[:-1] if len(batches) > 1 and size > 1 and len(batches[-1]) == 1 else batches


def _go_through(data: Data, batches, function, epoch: int | None = None) -> dict[str, float]:
    """Means over rows of what ``function(batch, epoch)`` gives, ``epoch`` growing by 1 over the batches."""
    results = [function(_take(data, rows), (epoch or 0) + i / len(batches)) for i, rows in enumerate(batches)]
    sizes = [len(rows) for rows in batches]
    means = {}
    for name in results[0]:
        # Read once for all batches: reading each at once would make the device wait for Python.
        values = torch.stack([torch.as_tensor(r[name]).detach().float() for r in results]).tolist()
        if name == "loss":
            _check_finite(values, epoch)
        means[name] = math.fsum(v * n for v, n in zip(values, sizes)) / sum(sizes)
    return means


def _take(data: Data, rows: torch.Tensor) -> Batch:
    if isinstance(data, Mapping):
        return {name: part[rows] for name, part in data.items()}
    if isinstance(data, tuple):
        return tuple(part[rows] for part in data)
    return data[rows]


def _check_finite(values: list[float], epoch: int | None) -> None:
    for i, value in enumerate(values):
        if not math.isfinite(value):
            where = f"training loss is {value} at step {i} of epoch {epoch}"
            if epoch is None:
                where = f"validation loss is {value} in batch {i}"
            before = f" (it was {values[i - 1]:.4g} one before)" if i else ""
            raise TrainingError(
                f"the {where}{before}. What helps: look for NaN in the data; a smaller learning rate; clip=1.0; "
                "amp=False; a small constant inside log, sqrt and division"
            )


def _as_dict(result: Any) -> dict[str, torch.Tensor]:
    result = dict(result) if isinstance(result, Mapping) else {"loss": result}
    if "loss" not in result:
        raise TrainingError(f"the loss function returned {', '.join(map(repr, result))}: one must be called 'loss'")
    return result


def _check_differentiable(value: Any) -> None:
    if not torch.is_tensor(value) or value.numel() != 1:
        what = f"a tensor of shape {tuple(value.shape)}" if torch.is_tensor(value) else type(value).__name__
        raise TrainingError(f"the loss must be one number, a scalar tensor, and is {what}: take its mean")
    if not value.requires_grad:
        raise TrainingError(
            "the loss does not depend on the model's parameters: was it detached, or made under no_grad?"
        )


def _seed(seed: int, epoch: int) -> None:
    torch.manual_seed((seed << 20) + epoch % 2**20)


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


# ---- arguments ----------------------------------------------------------------------------------------------------------
def _device(device: str | torch.device) -> torch.device:
    return torch.device(find_device(device) if device in ("auto", "cpu", "cuda", "mps") else device)


def _rows(data: Data, what: str) -> int:
    sizes = {name: len(part) for name, part in _named(data)}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {n:,}" for name, n in sizes.items())
        raise ValueError(f"all parts of the {what} must have the same number of rows: {listed}")
    n = next(iter(sizes.values()), 0)
    if n == 0:
        raise ValueError(f"the {what} is empty: there is not one row")
    return n


def _named(data: Data) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping):
        yield from ((repr(name), part) for name, part in data.items())
    elif isinstance(data, tuple):
        yield from ((f"part {i}", part) for i, part in enumerate(data))
    else:
        yield "it", data


def _split(rows: torch.Tensor, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train on and rows to validate on."""
    held = round(len(rows) * share)
    if not 0 < share < 1 or held in (0, len(rows)):
        raise ValueError(f"validation={share} of {len(rows):,} rows leaves none on one side: use a share such as 0.1")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)
    return rows[order[held:].sort().values], rows[order[:held].sort().values]


def _check_arguments(
    n: int, epochs: int, batch_size: int, patience: int | None, held_rows: torch.Tensor | None
) -> None:
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs={epochs} and batch_size={batch_size}: both must be at least 1")
    if batch_size > n:
        raise ValueError(f"batch_size={batch_size} is larger than the {n:,} rows to train on: use at most {n}")
    if patience is not None and held_rows is None:
        raise ValueError("patience watches the validation loss: give validation=0.1, or data of its own")
    if patience is not None and patience < 1:
        raise ValueError(f"patience={patience}: it must be at least 1 epoch")


def _optimiser(model: torch.nn.Module, given: Any) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter to train")
    if given is None:
        return torch.optim.Adam(parameters, lr=1e-3)
    return given if isinstance(given, torch.optim.Optimizer) else given(parameters)


def _use_amp(amp: bool | str, device: torch.device) -> bool:
    if amp not in (True, False, "auto"):
        raise ValueError(f"amp={amp!r}: use 'auto', True or False")
    if amp == "auto":  # older devices emulate bfloat16, slower than float32
        return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return bool(amp)


def _checkpoint_file(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    path = Path(path)
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")


def _array(data: Any) -> np.ndarray:
    array = np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"values of type {array.dtype} cannot be learnt from: turn them into numbers")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch can do little with these
    return array if array.flags.writeable else array.copy()
