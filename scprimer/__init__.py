"""scprimer: the helper package behind an executable textbook on AI for single-cell genomics.

``import scprimer`` is light: everything that costs time is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_ROOMS = ("data", "metrics", "methods", "plots", "publish", "run", "train")

if TYPE_CHECKING:
    from scprimer import data, methods, metrics, plots, publish, train
    from scprimer.run import start

__all__ = ["__version__", "data", "methods", "metrics", "plots", "publish", "start", "train"]


def __getattr__(name: str):
    if name == "start":
        from scprimer.run import start

        return start
    if name in _ROOMS:
        return importlib.import_module(f"scprimer.{name}")
    raise AttributeError(f"module 'scprimer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
