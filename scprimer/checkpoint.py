"""Checkpoints of a training: one safetensors file each, written at once, never a pickle, named by what it came from.

Weights and the optimiser's state are tensors; everything else is JSON in the same file's header, so that the two cannot
come apart.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import linecache
import os
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, cannot be written, or is of another model; the message says what to do."""


# ---- writing and reading ------------------------------------------------------------------------------------------------
def save(
    path: Path,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    history: Mapping[str, Any],
    best: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint atomically: an interrupt or a full disk leaves the file that was there before.

    Args:
        path: the file.
        model: its ``state_dict`` is stored.
        optimiser: its state and settings are stored.
        history: plain numbers, lists and dicts.
        best: the best weights so far, stored beside the present ones.

    Raises:
        CheckpointError: the file cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in (best or {}).items()}
    state = optimiser.state_dict()
    numbers: dict[str, dict] = {}
    for i, entry in state["state"].items():
        for name, value in entry.items():
            if torch.is_tensor(value):
                tensors[f"optimiser.{i}.{name}"] = value
            else:
                numbers.setdefault(str(i), {})[name] = value
    rest = {"history": history, "groups": state["param_groups"], "numbers": numbers}
    # Weights that are tied share memory, which the format refuses: each gets a copy of its own.
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={"scprimer": json.dumps(rest)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be written ({error}): make room, or leave `checkpoint` out"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(
    path: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, torch.Tensor] | None]:
    """Put a checkpoint's weights and state into model and optimiser.

    Returns:
        The history as it was saved, and the best weights, or None where there are none.

    Raises:
        CheckpointError: the file is damaged, or of another model or optimiser.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            rest = json.loads(file.metadata()["scprimer"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged ({error}): delete it and train again") from error
    weights, best = _under(tensors, "model."), _under(tensors, "best.")
    _check_shapes(path, model.state_dict(), weights)
    model.load_state_dict(weights)
    state: dict[int, dict] = {int(i): dict(entry) for i, entry in rest["numbers"].items()}
    for name, value in _under(tensors, "optimiser.").items():
        i, key = name.split(".", 1)
        state.setdefault(int(i), {})[key] = value
    try:
        optimiser.load_state_dict({"state": state, "param_groups": rest["groups"]})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint {path} is of another optimiser ({error}): delete it") from error
    return rest["history"], best or None


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check_shapes(path: Path, mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    def shape(tensors: Mapping[str, torch.Tensor], name: str) -> str:
        return " x ".join(map(str, tensors[name].shape)) or "a scalar" if name in tensors else "absent"

    differ = [
        f"{name} is {shape(theirs, name)} there and {shape(mine, name)} here"
        for name in dict.fromkeys([*mine, *theirs])
        if shape(mine, name) != shape(theirs, name)
    ]
    if differ:
        more = f" (and {len(differ) - 3} more)" if len(differ) > 3 else ""
        raise CheckpointError(
            f"the checkpoint {path} is of a model of another shape: {'; '.join(differ[:3])}{more}. Delete the file, or "
            "give each model a file of its own, as checkpoint_path(name, Model, **sizes) does"
        )


# ---- names --------------------------------------------------------------------------------------------------------------
def checkpoint_path(name: str, *sources: Any, **params: Any) -> Path:
    """File for a checkpoint in the cache, named by :func:`checkpoint_key` of what the training depends on."""
    from scprimer.data.download import cache_folder

    return cache_folder() / "checkpoints" / f"{name}-{checkpoint_key(*sources, **params)}.safetensors"


def checkpoint_key(*sources: Any, **params: Any) -> str:
    """A short key that changes when code, data or parameters change.

    Args:
        sources: classes and functions (their own code, without comments and docstrings; not what they call: give that
            too), arrays, sparse matrices and tensors (their content), or text such as a data set's sha256.
        params: numbers, text, None, and lists or dicts of these.

    Returns:
        16 hexadecimal digits.

    Raises:
        TypeError: a source or parameter of a kind whose content cannot be told.
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(b"\0source\0")
        _add(digest, source)
    try:
        text = json.dumps(params, sort_keys=True, default=_plain_number)
    except TypeError as error:
        raise TypeError(f"parameters of a checkpoint key are numbers, text, lists and dicts: {error}") from error
    digest.update(b"\0parameters\0" + text.encode())
    return digest.hexdigest()[:16]


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is none of these")


def _add(digest, source: Any) -> None:
    if isinstance(source, str):
        digest.update(source.encode())
    elif inspect.isclass(source) or inspect.isroutine(source):
        digest.update(_code(source).encode())
    elif sp.issparse(source):
        matrix = sp.csr_matrix(source, copy=True)
        matrix.sum_duplicates()
        indices = [part.astype(np.int64) for part in (np.array(matrix.shape), matrix.indptr, matrix.indices)]
        for part in (*indices, matrix.data):
            _add(digest, part)
    elif isinstance(source, torch.Tensor):
        _add(digest, source.detach().cpu().numpy())
    elif isinstance(source, np.ndarray) and source.dtype != object:
        digest.update(f"{source.dtype.str}{source.shape}".encode() + np.ascontiguousarray(source).tobytes())
    else:
        kind = type(source).__name__
        raise TypeError(f"a checkpoint key cannot be made from {kind}: give classes, functions, numeric arrays or text")


def _code(thing: Any) -> str:
    """The code of a class or function as a syntax tree: comments, docstrings and layout do not count."""
    source = textwrap.dedent(_source(thing))
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda in the middle of an expression
        return source
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        pass
    if inspect.isclass(thing):  # a class of a notebook has no file: its cell is found through its methods
        for method in vars(thing).values():
            if inspect.isfunction(method):
                cell = "".join(linecache.getlines(method.__code__.co_filename))
                for node in ast.walk(ast.parse(cell)):
                    if isinstance(node, ast.ClassDef) and node.name == thing.__name__:
                        return ast.get_source_segment(cell, node)
    raise TypeError(f"the code of {thing!r} cannot be found: define it in a module or a notebook cell")
