"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["chromium"]  # the fixtures `browser`, `window` and `cannot_run`

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """Top folder of the clone."""
    return ROOT


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder with the real data files; tests that need them are skipped where there is none."""
    folder = os.environ.get("SCPRIMER_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs a mirror of the real files (SCPRIMER_MIRROR)")
    return Path(folder)


@pytest.fixture
def rng():
    """A seeded NumPy generator."""
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def explorer_bundle():
    """Makes a simulated bundle of the explorer: ``explorer_bundle(cells=300, ...)``."""
    from explorer_example import example_bundle

    return example_bundle
