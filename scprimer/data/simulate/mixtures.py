"""Mixtures of RNA in known proportions and amounts, and antibody counts: designs in which the bench knows the truth."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

from .counts import draw, gamma_poisson, library_sizes
from .errors import pair, within
from .populations import gene_dispersions


def mixtures(
    profiles: pd.DataFrame,
    proportions: pd.DataFrame,
    *,
    amounts: Sequence[float] | None = None,
    library_size: tuple[float, float] = (10_000, 0.2),
    amount_exponent: float = 1.0,
    dispersion: tuple[float, float, float] | float = (0.02, 0.1, 2.0),
    dispersion_spread: float = 0.3,
    seed: int = 0,
) -> ad.AnnData:
    """Libraries made from RNA of several sources, mixed before they were counted.

    What is left between two libraries of one mixture is technical: sampling, library size and ``dispersion``.

    Args:
        profiles: genes x sources, shares of molecules (columns are scaled to sum 1).
        proportions: libraries x sources, share of each source's RNA (rows are scaled to sum 1).
        amounts: RNA that went into each library, in any unit; default 1 each.
        library_size: median UMIs of a library of the median amount, and the sd of the logarithm between equal amounts.
        amount_exponent: UMIs grow with the amount to this power; below 1 when sequencing saturates.
        dispersion: see :func:`scprimer.data.simulate.populations`; technical noise alone, so smaller than between cells.
        dispersion_spread: see there.
        seed: seed.

    Returns:
        AnnData, libraries x genes, raw counts in ``X``. ``obs``: ``proportion_<source>``, ``amount``, ``library_size``
        (expected UMIs). ``uns["truth"]``: ``profiles``, ``genes`` (``dispersion``).

    Raises:
        ValueError: the sources of the two tables differ, or a number is out of range.
    """
    if set(proportions.columns) != set(profiles.columns):
        raise ValueError(
            f"proportions are of {sorted(map(str, proportions.columns))}, the profiles of {sorted(map(str, profiles.columns))}: "
            "both need the same sources"
        )
    profiles = profiles / profiles.sum()
    shares = proportions[list(profiles.columns)].to_numpy(float)
    if (shares < 0).any() or not (shares.sum(axis=1) > 0).all():
        raise ValueError("proportions must not be negative, and each library needs one above 0")
    shares = shares / shares.sum(axis=1, keepdims=True)
    n = len(shares)
    given = np.ones(n) if amounts is None else np.asarray(amounts, dtype=float)
    if given.shape != (n,) or not (given > 0).all():
        raise ValueError(f"amounts: {n} numbers above 0 are needed, one a library")
    median, log_sd = pair("library_size", library_size, "UMIs a library")
    rng = np.random.default_rng([seed, 11])
    size = library_sizes(rng, n, median, log_sd) * (given / np.median(given)) ** amount_exponent
    mixed = shares @ profiles.to_numpy().T
    phi = gene_dispersions(rng, dispersion, dispersion_spread, median * mixed.mean(axis=0))
    counts = draw(rng, n, lambda rows: size[rows, None] * mixed[rows], phi)
    obs = pd.DataFrame(shares, columns=[f"proportion_{s}" for s in profiles.columns])
    obs = obs.assign(amount=given, library_size=size).set_axis([f"library_{i + 1:04d}" for i in range(n)])
    adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=profiles.index.astype(str).rename(None)))
    adata.uns["truth"] = {"profiles": profiles, "genes": pd.DataFrame({"dispersion": phi}, index=profiles.index)}
    adata.uns["scprimer"] = {"dataset": "mixtures", "x": "raw counts", "simulated": True}
    return adata


def antibody_counts(
    cell_types: Sequence[str],
    levels: pd.DataFrame,
    background: pd.Series,
    *,
    stickiness: float = 0.35,
    dispersion: float = 0.15,
    signal_spread: float = 0.4,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts of antibodies on cells: what the cell carries, on top of free antibody that sticks to everything.

    Args:
        cell_types: type of each droplet; a type that ``levels`` does not list (``"empty"``, say) carries nothing.
        levels: types x proteins, median count of what a cell of the type carries.
        background: protein -> median count in a droplet without a cell; give isotype controls a background and no level.
        stickiness: sd of the logarithm of a droplet's factor on *all* backgrounds: the technical component that isotype
            controls and negative cells share.
        dispersion: overdispersion of every count.
        signal_spread: sd of the logarithm of what cells of one type carry.
        seed: seed.

    Returns:
        ``(counts, truth)``: droplets x proteins; truth has a row a droplet with ``cell_type`` and ``stickiness`` (factor).
    """
    within("stickiness", stickiness, 0, 3)
    within("signal_spread", signal_spread, 0, 3)
    rng = np.random.default_rng([seed, 12])
    types = np.asarray(cell_types, dtype=object)
    if unknown := sorted(set(levels.columns) - set(background.index)):
        raise ValueError(f"background lacks the proteins {', '.join(unknown)}")
    carried = levels.reindex(index=types, columns=background.index).fillna(0.0).to_numpy()
    factor = library_sizes(rng, len(types), 1.0, stickiness)
    carried = carried * np.exp(rng.normal(0, signal_spread, carried.shape))
    counts = gamma_poisson(rng, factor[:, None] * background.to_numpy() + carried, dispersion)
    truth = pd.DataFrame({"cell_type": types, "stickiness": factor})
    return pd.DataFrame(counts.astype(np.float32), columns=background.index), truth
