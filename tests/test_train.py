"""The training loop: it learns, resumes bit for bit, stops early with the best weights, and fails in words."""

from __future__ import annotations

import functools
import json
import linecache
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from scprimer import checkpoint as checkpoints
from scprimer import train
from scprimer.train import CSR, CheckpointError, History, KeepSparse, TrainingError, checkpoint_key, fit, predict

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("SCPRIMER_QUIET", "1")


def line(n: int = 400, noise: float = 0.1, seed: int = 0):
    """y = X @ (2, -1, 0.5) + 3 + noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return {"x": X, "y": X @ [2.0, -1.0, 0.5] + 3 + noise * rng.normal(size=n)}


def squares(model, batch, epoch):
    return ((model(batch["x"]).squeeze(1) - batch["y"]) ** 2).mean()


class Noisy(nn.Module):
    """A network with everything that a resumption can get wrong: dropout, batch norm, a tied weight, a buffer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.norm, self.drop, self.out = nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 1)

    def forward(self, x):
        return self.out(self.drop(self.norm(torch.tanh(self.b(torch.relu(self.a(x)))))))


def made(kind=Noisy, seed: int = 1):
    torch.manual_seed(seed)
    return kind()


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ADAM = functools.partial(torch.optim.Adam, lr=0.02)


# ---- learning -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimiser", [SGD, ADAM, functools.partial(torch.optim.AdamW, lr=0.02, weight_decay=0.0)])
def test_a_regression_finds_the_coefficients(optimiser):
    model = nn.Linear(3, 1)
    history = fit(model, line(), squares, epochs=40, batch_size=32, optimiser=optimiser, device="cpu")
    found = np.append(model.weight.detach().numpy(), model.bias.detach().numpy())
    np.testing.assert_allclose(found, [2, -1, 0.5, 3], atol=0.03)
    assert len(history) == len(history.train) == 40 and history.train[-1] < 0.02 < 1 < history.train[0]
    assert history.seconds > 0 and history.validation == [] and history.best_epoch is None
    assert not model.training


def test_an_optimiser_that_exists_is_used_and_the_default_is_adam():
    model = nn.Linear(3, 1)
    given = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, line(), squares, epochs=20, batch_size=32, optimiser=given, device="cpu")
    assert abs(model.bias.item() - 3) < 0.1
    slow = nn.Linear(3, 1)
    fit(slow, line(), squares, epochs=1, batch_size=32, device="cpu")
    assert slow.bias.item() < 1  # Adam at 1e-3 moves a weight by about 1e-3 a step


@pytest.mark.parametrize("form", ["dict", "tuple", "list", "tensors"])
def test_batches_have_the_form_of_the_data(form):
    d = line(64)
    seen = []

    def loss(model, batch, epoch):
        seen.append(batch)
        x, y = (batch["x"], batch["y"]) if form in ("dict", "tensors") else batch
        return squares(model, {"x": x, "y": y}, epoch)

    data = {"dict": d, "tuple": (d["x"], d["y"]), "list": [d["x"], d["y"]]}.get(form)
    if form == "tensors":
        data = {k: torch.as_tensor(v) for k, v in d.items()}
    fit(nn.Linear(3, 1), data, loss, epochs=1, batch_size=32, device="cpu")
    assert type(seen[0]) is (dict if form in ("dict", "tensors") else tuple)
    part = seen[0]["x"] if form in ("dict", "tensors") else seen[0][0]
    assert part.shape == (32, 3) and part.dtype == torch.float32


def test_labels_stay_whole_numbers():
    seen = {}

    def loss(model, batch, epoch):
        seen.update({k: v.dtype for k, v in batch.items()})
        return nn.functional.cross_entropy(model(batch["x"]), batch["label"])

    data = {"x": np.eye(8), "label": np.arange(8), "flag": np.arange(8) > 3, "code": np.arange(8, dtype=np.uint16)}
    fit(nn.Linear(8, 8), data, loss, epochs=1, batch_size=4, device="cpu")
    assert seen == {"x": torch.float32, "label": torch.int64, "flag": torch.bool, "code": torch.int64}


def test_every_row_is_seen_once_an_epoch_in_a_new_order():
    seen: list[list[float]] = [[], []]

    def loss(model, batch, epoch):
        seen[int(epoch)] += batch.squeeze(1).tolist()
        return (model(batch) ** 2).mean()

    fit(nn.Linear(1, 1), np.arange(50.0)[:, None], loss, epochs=2, batch_size=7, device="cpu", seed=3)
    assert len(seen[0]) == 49, "a single row left over is skipped"
    assert set(seen[0]) < set(range(50)) and seen[0] != seen[1]
    again: list[list[float]] = seen[:]
    seen[:] = [[], []]
    fit(nn.Linear(1, 1), np.arange(50.0)[:, None], loss, epochs=2, batch_size=7, device="cpu", seed=3)
    assert seen == again
    seen[:] = [[], []]
    fit(nn.Linear(1, 1), np.arange(50.0)[:, None], loss, epochs=2, batch_size=10, device="cpu", seed=4)
    assert set(seen[0]) == set(seen[1]) == set(range(50)) and seen[0] != again[0]


def test_means_are_weighted_by_rows():
    """Batches of 4 and 2: the mean of the epoch is that of the six values."""
    values = np.array([0.0, 0, 0, 6, 6, 6])[:, None]

    def loss(model, batch, epoch):
        return {"loss": batch.mean() + 0 * model.weight.sum(), "half": batch.mean() / 2, "constant": 2.0}

    history = fit(nn.Linear(1, 1), values, loss, epochs=3, batch_size=4, validation=values, device="cpu")
    assert history.train == pytest.approx([3] * 3) and history.validation == pytest.approx([3] * 3)
    assert history.parts["half"] == pytest.approx([1.5] * 3) and history.parts["constant"] == [2.0] * 3


def test_epoch_grows_within_an_epoch_and_is_final_in_validation():
    seen = {True: [], False: []}

    def loss(model, batch, epoch):
        seen[model.training].append(epoch)
        return (model(batch) ** 2).mean()

    fit(nn.Linear(1, 1), np.ones((8, 1)), loss, epochs=3, batch_size=4, validation=np.ones((4, 1)), device="cpu")
    assert seen[True] == [0, 0.5, 1, 1.5, 2, 2.5] and seen[False] == [3, 3, 3]


def test_the_schedule_sets_the_learning_rate():
    model, rates = nn.Linear(1, 1), []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(model, batch, epoch):
        rates.append(optimiser.param_groups[0]["lr"])
        return (model(batch) ** 2).mean()

    fit(
        model,
        np.ones((8, 1)),
        loss,
        epochs=2,
        batch_size=4,
        optimiser=optimiser,
        schedule=lambda t: 1 - t,
        device="cpu",
    )
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_clipping_bounds_the_gradient():
    moved = {}
    for clip in (None, 0.5):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        fit(
            model, np.ones((4, 1)), lambda m, b, e: 100 * m(b).mean(), epochs=1, batch_size=4, clip=clip,
            optimiser=functools.partial(torch.optim.SGD, lr=1.0), device="cpu",
        )  # fmt: skip
        moved[clip] = -model.weight.item()
    assert moved == {None: pytest.approx(100), 0.5: pytest.approx(0.5, rel=1e-4)}


def test_the_callers_random_state_is_left_alone():
    model = made()
    state = torch.get_rng_state()
    fit(model, line(64), squares, epochs=2, batch_size=16, validation=0.2, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_decide():
    def trained(seed):
        model = made()
        fit(model, line(128), squares, epochs=3, batch_size=16, seed=seed, device="cpu")
        return weights(model)

    assert same(trained(0), trained(0)) and not same(trained(0), trained(1))


# ---- sparse counts --------------------------------------------------------------------------------------------------------
def counts(n: int = 60, m: int = 20, seed: int = 0) -> sp.csr_matrix:
    X = sp.random(n, m, 0.2, format="csr", random_state=seed, dtype=np.float32)
    X.data = np.ceil(X.data * 9)
    X = X.tolil()
    X[5] = 0  # a row without a value
    return X.tocsr()


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "array", "int64", "unsorted"])
def test_csr_rows_equal_the_dense_ones(form):
    X = counts()
    given = {"array": sp.csr_array(X), "int64": X.astype(np.int64)}.get(form)
    if form == "unsorted":
        given = sp.csr_matrix((X.data[::-1], X.indices[::-1], [0, *np.cumsum(np.diff(X.indptr)[::-1])]), X.shape)
        X = sp.csr_matrix(X.toarray()[::-1])
    elif given is None:
        given = X.asformat(form)
    for rows in ([0], [5], [3, 3, 5, 59], list(range(60)), [59, 0, 17]):
        dense = CSR(given, CPU)[torch.tensor(rows)]
        assert dense.dtype == torch.float32 and np.array_equal(dense.numpy(), X.toarray()[rows])


def test_training_on_csr_equals_training_on_dense():
    def trained(X):
        model = made(lambda: nn.Linear(20, 20))
        history = fit(
            model, X, lambda m, b, e: ((m(torch.log1p(b)) - b) ** 2).mean(), epochs=4, batch_size=16, validation=0.2,
            patience=3, device="cpu",
        )  # fmt: skip
        return weights(model), history.train, history.validation

    sparse, dense = trained(counts()), trained(counts().toarray())
    assert same(sparse[0], dense[0]) and sparse[1:] == dense[1:]


def test_rows_that_stay_sparse_hold_the_same_values():
    X = counts()
    for rows in ([5], [3, 5, 3, 59], [59, 0, 17]):
        part = CSR(X, CPU, keep_sparse=True)[torch.tensor(rows)]
        here = X[rows]
        assert len(part) == len(rows) and part.shape == here.shape
        assert np.array_equal(part.dense().numpy(), here.toarray())
        assert np.array_equal(part.dense(part.value * 2).numpy(), 2 * here.toarray())
        assert np.array_equal(part.sum().numpy(), np.asarray(here.sum(1)).ravel())
        assert np.array_equal(part.start.numpy(), here.indptr[:-1])
        assert np.array_equal(part.column.numpy(), here.indices) and np.array_equal(part.value.numpy(), here.data)


@pytest.mark.parametrize("columns", [5, 2**16, 2**16 + 1])  # 16-bit keys reach to the second
def test_the_transpose_of_sparse_rows(columns):
    rng = np.random.default_rng(0)
    row, column = rng.integers(7, size=40), np.append(rng.integers(columns, size=39), columns - 1)
    matrix = sp.csr_matrix((rng.integers(1, 9, 40), (row, column)), (7, columns))
    rows = CSR(matrix, torch.device("cpu"), keep_sparse=True)[torch.tensor([6, 2, 0, 2])]
    turned = rows.by_column()
    assert turned.shape == (columns, 4) and torch.equal(turned.dense(), rows.dense().T)
    assert len(turned.start) == columns and torch.equal(turned.row, turned.row.sort().values)
    doubled = rows.by_column(2 * rows.value)
    assert torch.equal(doubled.dense(), 2 * rows.dense().T)


def test_training_on_rows_that_stay_sparse_equals_training_on_dense():
    def trained(X, dense):
        model = made(lambda: nn.Linear(20, 20))
        data = {"x": X, "y": np.arange(60.0, dtype=np.float32)}

        def loss(m, b, e):
            return ((m(dense(b["x"])) - b["y"][:, None]) ** 2).mean()

        history = fit(model, data, loss, epochs=3, batch_size=16, validation=0.2, device="cpu")
        return weights(model), history.train, history.validation

    sparse, dense = trained(KeepSparse(counts()), lambda x: x.dense()), trained(counts(), lambda x: x)
    assert same(sparse[0], dense[0]) and sparse[1:] == dense[1:]
    out = predict(lambda b: b.sum()[:, None], KeepSparse(counts()), batch_size=7, device="cpu")
    assert np.array_equal(out, counts().toarray().sum(1, keepdims=True))


def test_predict_goes_through_all_rows_in_order():
    X = counts()
    out = predict(lambda b: b.sum(1, keepdim=True), X, batch_size=7, device="cpu")
    assert out.shape == (60, 1) and np.array_equal(out, X.toarray().sum(1, keepdims=True))
    model = nn.Linear(20, 2)
    assert predict(model, X, device="cpu").dtype == np.float32
    assert predict(lambda b: b.bfloat16(), X, device="cpu").dtype == np.float32
    assert predict(lambda b: b.argmax(1), X, device="cpu").dtype == np.int64


# ---- early stopping -----------------------------------------------------------------------------------------------------
class Dial(nn.Module):
    """One weight that the training pushes up by one an epoch."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))


def pushed(model, batch, epoch):
    # Training pushes w up; validation is lowest at w = 3.
    return -model.w if model.training else (model.w - 3).abs()


UP = functools.partial(torch.optim.SGD, lr=1.0)


def test_early_stopping_restores_the_best_weights():
    model = Dial()
    history = fit(
        model, np.ones((4, 1)), pushed, epochs=50, batch_size=4, validation=np.ones((4, 1)), patience=4, optimiser=UP,
        device="cpu",
    )  # fmt: skip
    assert history.validation == [2, 1, 0, 1, 2, 3, 4] and history.stopped_early and history.best_epoch == 2
    assert model.w.item() == 3


def test_the_best_weights_come_back_also_when_patience_has_not_run_out():
    model = Dial()
    history = fit(
        model, np.ones((4, 1)), pushed, epochs=5, batch_size=4, validation=np.ones((4, 1)), patience=40, optimiser=UP,
        device="cpu",
    )  # fmt: skip
    assert model.w.item() == 3 and not history.stopped_early and len(history) == 5


def test_without_patience_the_last_weights_stay():
    model = Dial()
    history = fit(
        model, np.ones((4, 1)), pushed, epochs=5, batch_size=4, validation=np.ones((4, 1)), optimiser=UP, device="cpu"
    )
    assert model.w.item() == 5 and history.best_epoch == 2


def test_a_share_of_the_rows_is_held_out():
    seen = {True: set(), False: set()}

    def loss(model, batch, epoch):
        seen[model.training] |= set(batch.squeeze(1).tolist())
        return (model(batch) ** 2).mean()

    fit(nn.Linear(1, 1), np.arange(100.0)[:, None], loss, epochs=2, batch_size=10, validation=0.2, device="cpu")
    assert len(seen[True]) == 80 and len(seen[False]) == 20 and not seen[True] & seen[False]


def test_validation_noise_is_the_same_each_time():
    """A model that does not move has a constant validation loss, though the loss draws random numbers."""

    def loss(model, batch, epoch):
        return torch.randn(()) + 0 * model.weight.sum()

    history = fit(
        nn.Linear(1, 1), np.ones((8, 1)), loss, epochs=3, batch_size=4, validation=np.ones((8, 1)), device="cpu"
    )
    assert len(set(history.validation)) == 1 and len(set(history.train)) == 3


# ---- checkpoint and resume ------------------------------------------------------------------------------------------------
def interrupted_at(epoch_to_break: float, loss=squares):
    def breaking(model, batch, epoch):
        if epoch >= epoch_to_break and model.training:
            raise KeyboardInterrupt
        return loss(model, batch, epoch)

    return breaking


@pytest.mark.parametrize("optimiser", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("broken_at", [2, 3.4])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, optimiser, broken_at):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    how = {
        "epochs": 6, "batch_size": 32, "optimiser": optimiser, "validation": 0.25, "patience": 5, "clip": 1.0, "seed": 5,
        "schedule": lambda t: 1 - 0.5 * t, "device": "cpu",
    }  # fmt: skip
    whole = made()
    wanted = fit(whole, line(), squares, **how)

    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(made(), line(), interrupted_at(broken_at), checkpoint=path, **how)
    torch.rand(100)  # a random state in between must not matter
    resumed = made(seed=99)
    history = fit(resumed, line(), squares, checkpoint=path, **how)

    assert same(weights(resumed), weights(whole))
    assert (history.train, history.validation, history.best_epoch) == (
        wanted.train,
        wanted.validation,
        wanted.best_epoch,
    )
    assert history.resumed_at == int(broken_at) and wanted.resumed_at == 0
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"], "nothing half-written stays behind"


def test_a_finished_training_is_not_repeated(tmp_path):
    path = tmp_path / "deep" / "run"
    first = made()
    wanted = fit(first, line(), squares, epochs=3, batch_size=32, checkpoint=path, device="cpu")
    second = made(seed=4)

    def never(model, batch, epoch):
        raise AssertionError("nothing is left to train")

    history = fit(second, line(), never, epochs=3, batch_size=32, checkpoint=path, device="cpu")
    assert same(weights(first), weights(second)) and history.train == wanted.train and history.resumed_at == 3
    assert history.seconds == pytest.approx(wanted.seconds) and not second.training
    assert path.with_name("run.safetensors").exists()


def test_a_training_that_stopped_early_stays_stopped_with_its_best_weights(tmp_path):
    how = {
        "epochs": 50,
        "batch_size": 4,
        "validation": np.ones((4, 1)),
        "patience": 4,
        "optimiser": UP,
        "device": "cpu",
    }
    fit(Dial(), np.ones((4, 1)), pushed, checkpoint=tmp_path / "d", **how)
    model = Dial()
    history = fit(model, np.ones((4, 1)), pushed, checkpoint=tmp_path / "d", **how)
    assert model.w.item() == 3 and history.stopped_early and len(history) == history.resumed_at == 7


def test_a_training_goes_on_when_more_epochs_are_asked_for(tmp_path):
    how = {"batch_size": 32, "optimiser": ADAM, "device": "cpu"}
    whole, parts = made(), made()
    wanted = fit(whole, line(), squares, epochs=5, **how)
    fit(parts, line(), squares, epochs=2, checkpoint=tmp_path / "p", **how)
    history = fit(parts, line(), squares, epochs=5, checkpoint=tmp_path / "p", **how)
    assert same(weights(whole), weights(parts)) and history.train == wanted.train


def test_checkpoints_hold_tensors_and_json_and_no_pickle(tmp_path):
    path = tmp_path / "run.safetensors"
    fit(made(), line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    rest = json.loads(header.pop("__metadata__")["scprimer"])
    assert rest["history"]["train"] and all(v["dtype"] for v in header.values())
    assert {"model.a.weight", "model.norm.running_mean", "optimiser.0.exp_avg"} <= set(header)


def test_a_checkpoint_of_another_shape(tmp_path):
    path = tmp_path / "run"
    fit(nn.Linear(3, 1), line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    with pytest.raises(CheckpointError, match=r"0\.weight is absent there and 4 x 3 here.*3 more.*Delete the file"):
        fit(other, line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")
    wide = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="weight is 1 x 3 there and 2 x 3 here"):
        fit(wide, line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "foreign"])
def test_a_damaged_checkpoint(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    fit(nn.Linear(3, 1), line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"w": torch.ones(2)}, path)
    else:
        path.write_bytes({"cut": path.read_bytes()[:-20], "garbage": b"\x80\x04garbage" * 9, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"damaged.*delete it"):
        fit(nn.Linear(3, 1), line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")


def test_a_checkpoint_of_another_optimiser(tmp_path):
    path = tmp_path / "run"
    fit(nn.Linear(3, 1), line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")
    model = nn.Linear(3, 1)
    two = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1)
    with pytest.raises(CheckpointError, match="another optimiser"):
        fit(model, line(), squares, epochs=2, batch_size=32, optimiser=two, checkpoint=path, device="cpu")


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    fit(nn.Linear(3, 1), line(), squares, epochs=1, batch_size=32, checkpoint=path, device="cpu")
    before = path.read_bytes()

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left.*make room"):
        fit(nn.Linear(3, 1), line(), squares, epochs=2, batch_size=32, checkpoint=path, device="cpu")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


# ---- keys -----------------------------------------------------------------------------------------------------------------
def test_keys_follow_code_data_and_parameters():
    key = checkpoint_key(Noisy, squares, counts(), lr=0.1, layers=[1, 2])
    assert key == checkpoint_key(Noisy, squares, counts(), layers=[1, 2], lr=0.1) and len(key) == 16
    changed = counts()
    changed.data[0] += 1
    for other in (
        checkpoint_key(Noisy, squares, counts(), lr=0.2, layers=[1, 2]),
        checkpoint_key(Noisy, squares, changed, lr=0.1, layers=[1, 2]),
        checkpoint_key(Noisy, pushed, counts(), lr=0.1, layers=[1, 2]),
        checkpoint_key(Dial, squares, counts(), lr=0.1, layers=[1, 2]),
        checkpoint_key(Noisy, squares, counts().toarray(), lr=0.1, layers=[1, 2]),
    ):
        assert other != key
    assert checkpoint_key("ab", "c") != checkpoint_key("a", "bc")
    assert checkpoint_key(counts()) == checkpoint_key(counts().tocsc())
    assert checkpoint_key(np.arange(3)) == checkpoint_key(torch.arange(3)) != checkpoint_key(np.arange(3.0))
    assert checkpoint_key(n=np.int64(3)) == checkpoint_key(n=3)


def notebook_cell(source: str, name: str):
    """Define a class as a notebook does: no file, its source known to linecache alone."""
    file = f"ipykernel_1/{abs(hash(source))}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space = {"__name__": "__main__"}
    exec(compile(source, file, "exec"), space)
    return space[name]


def test_keys_ignore_comments_and_see_code_also_in_notebooks():
    plain = "class Net:\n    def forward(self, x):\n        return x + 1\n"
    said = '# a comment\nclass Net:\n    """Says what it is."""\n\n    def forward(self, x):\n        # why\n        return (x + 1)\n'
    other = plain.replace("+ 1", "+ 2")
    keys = [checkpoint_key(notebook_cell(s, "Net")) for s in (plain, said, other)]
    assert keys[0] == keys[1] != keys[2]
    function = [
        checkpoint_key(notebook_cell(s, "f")) for s in ("def f(x):\n    return x\n", "def f(x):  # why\n    return x\n")
    ]
    assert function[0] == function[1]


def test_keys_refuse_what_has_no_content():
    space = {}
    exec("class Gone:\n    x = 1\ndef gone(): pass", space)
    for source in (space["Gone"], space["gone"], object(), np.array([object()])):
        with pytest.raises(TypeError, match=r"cannot be (found|made)"):
            checkpoint_key(source)
    with pytest.raises(TypeError, match="numbers, text, lists and dicts"):
        checkpoint_key(x=object())


def test_paths_lie_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCPRIMER_CACHE", str(tmp_path))
    path = train.checkpoint_path("scvi", squares, lr=0.1)
    assert path == tmp_path / "checkpoints" / f"scvi-{checkpoint_key(squares, lr=0.1)}.safetensors"
    assert list(tmp_path.iterdir()) == []


# ---- errors ---------------------------------------------------------------------------------------------------------------
def test_nan_in_training_names_the_step_and_what_helps():
    def loss(model, batch, epoch):
        return squares(model, batch, epoch) * (float("nan") if epoch >= 1.5 else 1)

    with pytest.raises(
        TrainingError, match=r"training loss is nan at step 2 of epoch 1 \(it was .* one before\)"
    ) as caught:
        fit(nn.Linear(3, 1), line(128), loss, epochs=3, batch_size=32, device="cpu")
    for advice in ("smaller learning rate", "clip=1.0", "amp=False", "NaN in the data"):
        assert advice in str(caught.value)


def test_infinity_in_validation_is_named():
    def loss(model, batch, epoch):
        return squares(model, batch, epoch) + (0 if model.training else math.inf)

    with pytest.raises(TrainingError, match="validation loss is inf in batch 0"):
        fit(nn.Linear(3, 1), line(128), loss, epochs=3, batch_size=32, validation=0.5, device="cpu")


def test_a_nan_epoch_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)

    def loss(model, batch, epoch):
        return squares(model, batch, epoch) * (float("nan") if epoch >= 2 else 1)

    with pytest.raises(TrainingError):
        fit(nn.Linear(3, 1), line(), loss, epochs=4, batch_size=32, checkpoint=tmp_path / "n", device="cpu")
    model = nn.Linear(3, 1)
    history = fit(model, line(), squares, epochs=4, batch_size=32, checkpoint=tmp_path / "n", device="cpu")
    assert history.resumed_at == 2 and torch.isfinite(model.weight).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": np.empty((0, 3))}, "data is empty"),
        ({"data": {}}, "data is empty"),
        ({"data": {"x": np.ones((4, 3)), "y": np.ones(5)}}, "same number of rows: 'x' has 4, 'y' has 5"),
        ({"data": (np.ones((4, 3)), sp.csr_matrix((5, 2)))}, "part 0 has 4, part 1 has 5"),
        ({"data": np.array([["a"], ["b"]])}, "turn them into numbers"),
        ({"batch_size": 1000}, "batch_size=1000 is larger than the 400 rows to train on: use at most 400"),
        ({"batch_size": 350, "validation": 0.2}, "larger than the 320 rows"),
        ({"batch_size": 0}, "at least 1"),
        ({"epochs": 0}, "at least 1"),
        ({"patience": 3}, "patience watches the validation loss"),
        ({"patience": 0, "validation": 0.1}, "at least 1 epoch"),
        ({"validation": 1}, "use a share such as 0.1"),
        ({"validation": 1.5}, "use a share such as 0.1"),
        ({"validation": 0.0001}, "leaves none on one side"),
        ({"validation": {"x": np.empty((0, 3)), "y": np.empty(0)}}, "validation data is empty"),
        ({"model": nn.Identity()}, "no parameter to train"),
        ({"amp": "maybe"}, "use 'auto', True or False"),
        ({"device": "cuda"}, "torch sees none here"),
    ],
    ids=lambda x: None if isinstance(x, dict) else x[:30],
)
def test_wrong_arguments_are_said(change, words):
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    how = {"model": nn.Linear(3, 1), "data": line(), "epochs": 1, "batch_size": 32, "device": "cpu"} | change
    with pytest.raises(ValueError) as caught:
        fit(how.pop("model"), how.pop("data"), squares, **how)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda m, b, e: (m(b["x"]).squeeze(1) - b["y"]) ** 2, "one number, a scalar tensor, and is a tensor of shape (32,)"),
        (lambda m, b, e: 3.0, "one number, a scalar tensor, and is float"),
        (lambda m, b, e: squares(m, b, e).detach(), "does not depend on the model's parameters"),
        (lambda m, b, e: {"kl": squares(m, b, e)}, "one must be called 'loss'"),
    ],
)  # fmt: skip
def test_wrong_losses_are_said(loss, words):
    with pytest.raises(TrainingError) as caught:
        fit(nn.Linear(3, 1), line(), loss, epochs=1, batch_size=32, device="cpu")
    assert words in str(caught.value)


# ---- precision and devices ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("amp", [True, False, "auto"])
def test_mixed_precision(amp):
    seen = set()

    def loss(model, batch, epoch):
        out = model(batch["x"])
        seen.add(out.dtype)
        return ((out.float().squeeze(1) - batch["y"]) ** 2).mean()

    model = nn.Linear(3, 1)
    fit(model, line(), loss, epochs=30, batch_size=32, optimiser=ADAM, amp=amp, device="cpu")
    assert seen == {torch.bfloat16 if amp is True else torch.float32}  # auto: off on a CPU
    assert abs(model.bias.item() - 3) < 0.1 and model.weight.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda(tmp_path):
    X = counts(600)
    model = nn.Linear(20, 20)

    def loss(m, b, e):
        assert b.is_cuda
        return ((m(torch.log1p(b)).float() - b) ** 2).mean()

    how = {"batch_size": 64, "device": "cuda", "checkpoint": tmp_path / "c", "validation": 0.1, "patience": 9}
    state = torch.cuda.get_rng_state()
    fit(model, X, loss, epochs=3, **how)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    history = fit(model, X, loss, epochs=6, **how)
    assert history.resumed_at == 3 and history.train[-1] < history.train[0]
    assert predict(model, X, device="cuda").shape == (600, 20)


# ---- Pyro -------------------------------------------------------------------------------------------------------------------
def test_a_vae_in_pyro_learns():
    """fit trains whatever gives a scalar to differentiate: here the ELBO of a model and its guide."""
    pyro = pytest.importorskip("pyro")
    from pyro import distributions as dist
    from pyro.infer import Trace_ELBO

    class VAE(nn.Module):
        def __init__(self, n_genes: int, n_latent: int = 2):
            super().__init__()
            self.n_latent = n_latent
            self.encoder, self.decoder = nn.Linear(n_genes, 2 * n_latent), nn.Linear(n_latent, n_genes)

        def model(self, x, weight):
            pyro.module("decoder", self.decoder)
            with pyro.plate("cells", len(x)):
                with pyro.poutine.scale(scale=weight):
                    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([self.n_latent]).to_event(1))
                rate = torch.softmax(self.decoder(z), dim=1) * x.sum(1, keepdim=True)
                pyro.sample("x", dist.Poisson(rate + 1e-6).to_event(1), obs=x)

        def guide(self, x, weight):
            pyro.module("encoder", self.encoder)
            with pyro.plate("cells", len(x)), pyro.poutine.scale(scale=weight):
                mean, log_sd = self.encoder(torch.log1p(x)).chunk(2, dim=1)
                pyro.sample("z", dist.Normal(mean, log_sd.clamp(-5, 2).exp()).to_event(1))

    rng = np.random.default_rng(0)
    kind = np.arange(300) % 2
    programme = np.stack([np.r_[np.full(10, 5.0), np.ones(10)], np.r_[np.ones(10), np.full(10, 5.0)]])
    X = sp.csr_matrix(rng.poisson(programme[kind]).astype(np.float32))
    elbo = Trace_ELBO()

    def loss(vae, x, epoch):
        weight = min(1.0, 0.1 + epoch / 5)  # KL warm-up
        return elbo.differentiable_loss(vae.model, vae.guide, x, weight) / len(x)

    pyro.clear_param_store()
    vae = made(lambda: VAE(20))
    history = fit(
        vae, X, loss, epochs=25, batch_size=50, optimiser=ADAM, validation=0.2, patience=20, clip=10.0, amp=False,
        device="cpu",
    )  # fmt: skip
    pyro.clear_param_store()
    assert history.validation[-1] < history.validation[0] - 5
    latent = predict(lambda x: vae.encoder(torch.log1p(x))[:, :2], X, device="cpu")
    centres = latent[kind == 0].mean(0), latent[kind == 1].mean(0)
    nearer = np.linalg.norm(latent - centres[0], axis=1) > np.linalg.norm(latent - centres[1], axis=1)
    assert (nearer == kind).mean() > 0.95


def test_history_is_plain():
    assert len(History()) == 0 and History().parts == {}
