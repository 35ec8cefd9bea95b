"""``.h5ad`` files of the registry, as they were written at their time."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad


def read_h5ad(path: Path) -> ad.AnnData:
    """An AnnData file whose bytes are known; remarks on its age are left out, since nobody can do anything about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.OldFormatWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return ad.read_h5ad(path)
