"""What every stand-in shares: barcodes, stand-in gene names, and the shape that the real loader would have given it."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

from scprimer.data.registry import describe


def barcodes(rng: np.random.Generator, n: int, length: int = 16, suffix: str = "") -> list[str]:
    """``n`` different random barcodes."""
    found: dict[str, None] = {}
    while len(found) < n:
        for row in rng.integers(0, 4, (n, length)):
            found["".join("ACGT"[b] for b in row) + suffix] = None
    return list(found)[:n]


def ensembl_ids(n: int, first: int = 900_000, prefix: str = "ENSG") -> list[str]:
    """``n`` made-up ids in the form of Ensembl's, such as ``ENSG00000900000``."""
    return [f"{prefix}{first + i:011d}" for i in range(n)]


def as_loaded(
    adata: ad.AnnData,
    name: str,
    part: str | None,
    *,
    seed: int,
    obs: pd.DataFrame,
    var: pd.DataFrame | None = None,
    names: Sequence[str] | None = None,
) -> ad.AnnData:
    """Dress simulated cells as the loader of data set ``name`` would: its ``obs`` and ``var``; all truth goes to ``uns["truth"]``.

    Args:
        adata: simulated cells with their truth.
        name: registered data set.
        part: part of it, or None.
        seed: the stand-in's seed.
        obs: the columns that the loader gives, rows as in ``adata``.
        var: the columns that the loader gives, rows as in ``adata``, index the gene names; default: gene names alone.
        names: barcodes; default: the names in ``adata``.

    Returns:
        A new AnnData. ``uns["truth"]["cells"]`` holds what the simulators wrote into ``obs``, a row a cell, under the
        barcodes; ``uns["truth"]["native"]`` the counts before ambient RNA, where it was added.
    """
    index = pd.Index(list(names) if names is not None else list(adata.obs_names), dtype=object)
    obs = obs.set_axis(index)
    var = pd.DataFrame(index=pd.Index(list(adata.var_names), dtype=object)) if var is None else var
    counts = adata.X.tocsr().astype(np.float32)
    counts.sort_indices()
    out = ad.AnnData(counts, obs=obs, var=var)
    renamed = {old: new for old, new in zip(adata.var_names, var.index) if old != new}
    truth = {key: _named_like(value, adata.var_names, renamed) for key, value in adata.uns["truth"].items()}
    truth["cells"] = adata.obs.set_axis(index)
    if "native" in adata.layers:
        truth["native"] = adata.layers["native"].tocsr()
    out.uns["truth"] = truth
    out.uns["scprimer"] = provenance(name, part, seed)
    return out


def _named_like(value, genes: pd.Index, renamed: dict):
    """A table of genes under the names that the stand-in gives them; anything else as it is."""
    if renamed and isinstance(value, pd.DataFrame) and len(value) and value.index.isin(genes).all():
        return value.rename(index=renamed)
    return value


def provenance(name: str, part: str | None, seed: int) -> dict:
    """The keys of :func:`scprimer.data.load`'s provenance, saying that this is simulated."""
    return {
        "dataset": name,
        "part": part or "",
        "sha256": "",
        "licence": "BSD-3-Clause",
        "citation": f"simulated by scprimer.data.simulate, seed {seed}: a stand-in, not data",
        "x": describe(name).x,
        "simulated": True,
    }


def categorical(values, order: Sequence[str] | None = None) -> pd.Categorical:
    """Labels as a Categorical of plain strings; None stays missing. The categories are sorted, or in the ``order`` given."""
    from scprimer.data.loaders.build import categorical as real

    return real(values, order)
