"""Cell populations with planted markers, batches, donors and library sizes: the start of every simulation.

Two steps that can be used apart: :func:`profiles` invents a biology (what share of its molecules each cell type gives
to each gene), :func:`populations` draws cells from a biology.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from .counts import ROWS, allocate, dispersion_trend, draw, library_sizes
from .errors import pair, whole, within

# The 13 protein-coding mitochondrial genes and their shares of mitochondrial molecules, as rounded from 10x PBMC data.
MITO_SHARES = {
    "MT-CO1": 0.28, "MT-CO3": 0.14, "MT-CO2": 0.14, "MT-ND4": 0.10, "MT-ND1": 0.10, "MT-CYB": 0.09, "MT-ND2": 0.08,
    "MT-ATP6": 0.045, "MT-ND5": 0.017, "MT-ND3": 0.005, "MT-ND4L": 0.003, "MT-ND6": 0.002, "MT-ATP8": 0.0005,
}  # fmt: skip


def profiles(
    n_genes: int = 2000,
    n_types: int = 6,
    *,
    type_names: Sequence[str] | None = None,
    markers_per_type: int = 30,
    marker_log2fc: float = 2.0,
    hierarchy: Mapping[str, Sequence[str]] | None = None,
    type_noise: float = 0.0,
    family_noise: float = 0.0,
    housekeeping: tuple[float, float] = (0.012, 0.5),
    log_sd: float = 1.7,
    mito: bool = True,
    gene_names: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Invent a biology: the expression profile of each cell type, with planted markers.

    Gene rates are log-normal, but for a small class of housekeeping genes (think of ribosomal proteins) that holds half
    of all molecules: with one log-normal alone the most expressed genes of 10x data are not reached.

    Args:
        n_genes: number of genes, the 13 mitochondrial ones included.
        n_types: number of cell types; ignored when ``type_names`` or ``hierarchy`` names them.
        type_names: names of the types; default ``type_1``, ``type_2``, ...
        markers_per_type: genes raised in one type alone; with a ``hierarchy`` as many again in each family.
        marker_log2fc: how far a marker is raised, as log2 of the rate in its type over the rate elsewhere. After the
            profiles are scaled to sum 1 the ratio differs a little, by the share of the markers: ``log2fc`` in the
            returned table is the exact one.
        hierarchy: family -> names of its types; the family's markers are raised in all of them.
        type_noise: sd of log2 of a random factor for each gene in each type: differences that no marker stands for. In
            10x blood cells about 0.25 lie between sister types.
        family_noise: the same for families; a type of no family is one of its own. In blood about 0.6.
        housekeeping: share of the genes in the housekeeping class, and share of the molecules that they hold.
        log_sd: sd of the natural logarithm of the rates of all other genes.
        mito: give the last 13 genes the names and shares of the mitochondrial ones.
        gene_names: one name a gene (without the mitochondrial ones when ``mito``); default ``GENE0001``, ...
        seed: seed of everything drawn here.

    Returns:
        ``(profiles, genes)``: profiles is genes x types, each column sums to 1; genes has a row a gene with
        ``housekeeping`` and ``mito`` (bool), ``marker_of`` (type or family, ``""`` for none) and ``log2fc`` (0 for none).

    Raises:
        ValueError: impossible arguments, such as more markers than genes.
    """
    n_genes, rng = whole("n_genes", n_genes, 20), np.random.default_rng(seed)
    families = {str(f): [str(t) for t in ts] for f, ts in (hierarchy or {}).items()}
    in_families = [t for ts in families.values() for t in ts]
    names = [str(t) for t in type_names] if type_names is not None else in_families
    names = names or [f"type_{i + 1}" for i in range(whole("n_types", n_types))]
    if len(set(names)) < len(names) or len(set(in_families)) < len(in_families):
        raise ValueError(f"type names are given twice in {sorted(names + in_families)}: each type needs its own")
    if unknown := sorted(set(in_families) - set(names)):
        raise ValueError(f"hierarchy names types that type_names does not: {', '.join(unknown)}")
    whole("markers_per_type", markers_per_type, 0)
    n_nuclear = n_genes - len(MITO_SHARES) * bool(mito)
    symbols = list(gene_names) if gene_names is not None else [f"GENE{i + 1:04d}" for i in range(n_nuclear)]
    if len(symbols) != n_nuclear or len(set(symbols)) < n_nuclear:
        raise ValueError(f"gene_names: {n_nuclear} different names are needed, {len(set(symbols))} were given")

    # rates without cell types
    n_house = round(within("housekeeping[0]", housekeeping[0], 0, 1, open_high=True) * n_nuclear)
    share = within("housekeeping[1]", housekeeping[1], 0, 1, open_high=True) if n_house else 0.0
    house = np.zeros(n_nuclear, dtype=bool)
    house[rng.choice(n_nuclear, n_house, replace=False)] = True
    rate = np.exp(rng.normal(0, np.where(house, 0.7, log_sd)))
    rate[house] *= share / max(rate[house].sum(), 1e-12)
    rate[~house] *= (1 - share) / rate[~house].sum()

    # markers: ordinary genes of the upper half, as one would never find the others
    wanted = [(t, [t]) for t in names] + list(families.items())
    ordinary = np.flatnonzero(~house)
    pool = ordinary[rate[ordinary] >= np.median(rate[ordinary])]
    if markers_per_type * len(wanted) > len(pool):
        raise ValueError(
            f"{markers_per_type} markers for each of {len(wanted)} types and families do not fit into {len(pool)} genes "
            "of sufficient expression: use fewer markers or more genes"
        )
    chosen = rng.choice(pool, (len(wanted), markers_per_type), replace=False)
    table = pd.DataFrame(rate[:, None].repeat(len(names), 1), index=pd.Index(symbols, name="gene"), columns=names)
    marker_of = np.full(n_nuclear, "", dtype=object)
    for (name, types), rows in zip(wanted, chosen):
        table.iloc[rows, table.columns.get_indexer(types)] *= 2.0**marker_log2fc
        marker_of[rows] = name
    family = {t: f for f, ts in families.items() for t in ts}
    group = pd.factorize(pd.Series([family.get(t, t) for t in names]))[0]
    if family_noise:
        table *= 2.0 ** rng.normal(0, family_noise, (len(table), group.max() + 1))[:, group]
    if type_noise:
        table *= 2.0 ** rng.normal(0, type_noise, table.shape)
    table /= table.sum()

    genes = pd.DataFrame({"housekeeping": house, "mito": False, "marker_of": marker_of}, index=table.index)
    if mito:
        shares = np.array(list(MITO_SHARES.values()))
        extra = np.outer(shares / shares.sum(), np.ones(len(names))) * 0.02
        table = pd.concat([table * 0.98, pd.DataFrame(extra, index=list(MITO_SHARES), columns=names)])
        genes = pd.concat(
            [genes, pd.DataFrame({"housekeeping": False, "mito": True, "marker_of": ""}, index=list(MITO_SHARES))]
        )
    genes["log2fc"] = 0.0
    for name, types in wanted:
        rest = [t for t in names if t not in types]
        rows = (genes["marker_of"] == name).to_numpy()
        if rest and rows.any():
            genes.loc[rows, "log2fc"] = np.log2(
                table.loc[rows, types].mean(axis=1) / table.loc[rows, rest].mean(axis=1)
            )
    table.index.name = genes.index.name = "gene"
    return table, genes


def populations(
    n_cells: int = 1000,
    n_genes: int = 2000,
    n_types: int = 6,
    *,
    proportions: Sequence[float] | Mapping[str, float] | None = None,
    type_names: Sequence[str] | None = None,
    markers_per_type: int = 30,
    marker_log2fc: float = 2.0,
    hierarchy: Mapping[str, Sequence[str]] | None = None,
    type_noise: float = 0.0,
    family_noise: float = 0.0,
    programs: tuple[int, int, float] | pd.DataFrame | None = None,
    n_batches: int = 1,
    batch_strength: float = 0.0,
    n_donors: int = 1,
    donor_strength: float = 0.0,
    library_size: tuple[float, float] = (2000, 0.4),
    type_size: Mapping[str, float] | None = None,
    dispersion: tuple[float, float, float] | float = (0.08, 0.6, 2.0),
    dispersion_spread: float = 0.3,
    dropout: float = 0.0,
    mito: tuple[float, float] | None = (0.02, 0.35),
    gene_names: Sequence[str] | None = None,
    biology: tuple[pd.DataFrame, pd.DataFrame] | pd.DataFrame | None = None,
    seed: int = 0,
) -> ad.AnnData:
    """Draw cells of several types, batches and donors: raw counts with their truth.

    A cell of type t in batch b from donor d has the expected counts ``library size * profile_t * shift_b * shift_d``
    (scaled to its library size); the counts are gamma-Poisson around them.

    Args:
        n_cells: number of cells.
        n_genes: number of genes.
        n_types: number of cell types.
        proportions: share of each type, in the order of the types or by name; default equal. The numbers of cells follow
            them exactly up to rounding, in random order.
        type_names: names of the types; default ``type_1``, ...
        markers_per_type: see :func:`profiles`.
        marker_log2fc: see :func:`profiles`.
        hierarchy: see :func:`profiles`; ``obs["family"]`` then holds the family.
        type_noise: see :func:`profiles`.
        family_noise: see :func:`profiles`.
        programs: gene programmes that vary between cells of one type and make genes correlate: (how many, genes in each,
            sd of log2 of the genes' factor over cells), or the loadings themselves (genes x programmes, log2 factor at an
            activity of 1). Activities are standard normal, independent of the type.
        n_batches: batches, of equal size and composition up to chance.
        batch_strength: sd of log2 of the factor by which a batch shifts each gene; 0.3 is mild, 1 severe.
        n_donors: donors, each present in every batch.
        donor_strength: the same for donors.
        library_size: median of the expected UMIs a cell, and the sd of their natural logarithm.
        type_size: type -> factor on the library size, for types with more or less RNA.
        dispersion: one number for all genes, or (high, low, half) of :func:`scprimer.data.simulate.counts.dispersion_trend`.
        dispersion_spread: sd of the logarithm of a random factor on each gene's dispersion; 0 for a trend without scatter.
        dropout: expected count at which half of the entries are lost altogether: an entry with expectation m is set to 0
            with probability ``dropout / (dropout + m)``. UMI data need none (the default); the counts before it are then
            kept in ``layers["complete"]``.
        mito: median share of mitochondrial molecules a cell and the sd of its logarithm; None for no mitochondrial genes.
        gene_names: see :func:`profiles`.
        biology: what :func:`profiles` returns, or its first table alone: draw from this biology instead of inventing one.
            Two data sets drawn from one biology with different seeds are two experiments on the same tissue.
        seed: seed of everything drawn here.

    Returns:
        AnnData, cells x genes, raw counts in ``X`` (csr, float32). ``obs``: ``cell_type``, ``batch``, ``donor`` (all
        categorical), ``family`` with a hierarchy, ``library_size`` (expected UMIs), ``mito_fraction`` (expected),
        and the activity of each programme.
        ``uns["truth"]``: ``profiles`` (genes x types), ``genes`` (see :func:`profiles`, and ``dispersion``),
        ``batch_log2fc`` and ``donor_log2fc`` (genes x batches / donors), ``programs`` (loadings, genes x programmes),
        ``parameters``.

    Raises:
        ValueError: impossible arguments; the message says which.
    """
    n_cells = whole("n_cells", n_cells)
    n_batches, n_donors = whole("n_batches", n_batches), whole("n_donors", n_donors)
    median, log_sd = pair("library_size", library_size, "UMIs a cell")
    within("batch_strength", batch_strength, 0, 10)
    within("donor_strength", donor_strength, 0, 10)
    within("dropout", dropout, 0, 1e6)
    within("dispersion_spread", dispersion_spread, 0, 5)
    if biology is None:
        biology = profiles(
            n_genes, n_types, type_names=type_names, markers_per_type=markers_per_type, marker_log2fc=marker_log2fc,
            hierarchy=hierarchy, type_noise=type_noise, family_noise=family_noise, mito=mito is not None,
            gene_names=gene_names, seed=seed,
        )  # fmt: skip
    profile, genes = biology if isinstance(biology, tuple) else (biology, pd.DataFrame(index=biology.index))
    if (profile.to_numpy() < 0).any() or not (profile.sum() > 0).all():
        raise ValueError("biology: rates must not be negative, and each type needs one above 0")
    profile = profile / profile.sum()
    types = [str(t) for t in profile.columns]
    shares = _shares(proportions, types)
    rng = np.random.default_rng([seed, 1])  # not the biology's stream: the cells do not depend on how that was made

    # who the cells are
    type_code = rng.permutation(np.repeat(np.arange(len(types)), allocate(n_cells, shares)))
    batch_code = rng.permutation(np.arange(n_cells) % n_batches)
    donor_code = rng.permutation(np.arange(n_cells) % n_donors)
    size = library_sizes(rng, n_cells, median, log_sd) * _factors(type_size, types)[type_code]
    is_mito = profile.index.str.upper().str.startswith("MT-")
    share_mito = None
    if mito is not None and is_mito.any():
        share_mito = np.minimum(library_sizes(rng, n_cells, *pair("mito", mito, "mitochondrial share")), 0.95)

    loadings = _loadings(rng, programs, profile, genes)
    activity = rng.standard_normal((n_cells, loadings.shape[1]))

    # what they express
    batch_shift = _shifts(rng, n_batches, batch_strength, len(profile))
    donor_shift = _shifts(rng, n_donors, donor_strength, len(profile))
    kinds, kind_code = np.unique(np.stack([type_code, batch_code, donor_code]), axis=1, return_inverse=True)
    kind_profile = profile.to_numpy().T[kinds[0]] * 2.0 ** (batch_shift[kinds[1]] + donor_shift[kinds[2]])
    kind_profile /= kind_profile.sum(axis=1, keepdims=True)
    kind_code = kind_code.ravel()

    def expected(rows: slice) -> np.ndarray:
        mean = kind_profile[kind_code[rows]]
        if loadings.shape[1]:
            mean = mean * 2.0 ** (activity[rows] @ loadings.to_numpy().T)
            mean /= mean.sum(axis=1, keepdims=True)
        if share_mito is not None:
            now = mean[:, is_mito].sum(axis=1, keepdims=True)
            wanted = share_mito[rows, None]
            mean = mean * np.where(is_mito, wanted / np.maximum(now, 1e-12), (1 - wanted) / np.maximum(1 - now, 1e-12))
        return size[rows, None] * mean

    # what is counted
    phi = gene_dispersions(rng, dispersion, dispersion_spread, median * (profile.to_numpy() @ shares))
    counts = draw(rng, n_cells, expected, phi)
    seen = _drop_out(rng, counts, expected, dropout) if dropout else counts

    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(type_code, types),
            "batch": pd.Categorical.from_codes(batch_code, [f"batch_{i + 1}" for i in range(n_batches)]),
            "donor": pd.Categorical.from_codes(donor_code, [f"donor_{i + 1}" for i in range(n_donors)]),
            "library_size": size,
        },
        index=[f"cell_{i + 1:05d}" for i in range(n_cells)],
    )
    if hierarchy:
        family = {t: f for f, ts in hierarchy.items() for t in ts}
        obs["family"] = pd.Categorical([family.get(types[c], types[c]) for c in type_code])
    if share_mito is not None:
        obs["mito_fraction"] = share_mito
    for name, values in zip(loadings.columns, activity.T):
        obs[str(name)] = values
    adata = ad.AnnData(seen, obs=obs, var=pd.DataFrame(index=pd.Index(profile.index.astype(str), name=None)))
    if dropout:
        adata.layers["complete"] = counts
    batches, donors = list(obs["batch"].cat.categories), list(obs["donor"].cat.categories)
    adata.uns["truth"] = {
        "profiles": profile,
        "genes": genes.assign(dispersion=phi),
        "batch_log2fc": pd.DataFrame(batch_shift.T, index=profile.index, columns=batches),
        "donor_log2fc": pd.DataFrame(donor_shift.T, index=profile.index, columns=donors),
        "programs": loadings,
        "parameters": {
            "seed": int(seed), "library_median": median, "library_log_sd": log_sd, "batch_strength": float(batch_strength),
            "donor_strength": float(donor_strength), "dropout": float(dropout),
        },
    }  # fmt: skip
    adata.uns["scprimer"] = {"dataset": "populations", "x": "raw counts", "simulated": True}
    return adata


def _shifts(rng: np.random.Generator, n: int, strength: float, n_genes: int) -> np.ndarray:
    """Log2 factors of n batches or donors on the genes, n x genes; one alone has nothing to differ from."""
    return rng.normal(0, strength, (n, n_genes)) if n > 1 else np.zeros((1, n_genes))


def _drop_out(rng: np.random.Generator, counts: sp.csr_matrix, expected, half: float) -> sp.csr_matrix:
    """The counts with entries lost at random, with probability ``half / (half + expectation)``."""
    kept = counts.copy()
    for start in range(0, counts.shape[0], ROWS):
        rows = slice(start, min(start + ROWS, counts.shape[0]))
        chunk = counts[rows].tocoo()
        mean = expected(rows)[chunk.row, chunk.col]
        survive = rng.random(len(mean)) >= half / (half + mean)
        kept.data[counts.indptr[rows.start] : counts.indptr[rows.stop]] *= survive
    kept.eliminate_zeros()
    return kept


def _shares(proportions, types: list[str]) -> np.ndarray:
    if proportions is None:
        return np.full(len(types), 1 / len(types))
    if isinstance(proportions, Mapping):
        if set(proportions) != set(types):
            raise ValueError(f"proportions are given for {sorted(proportions)}, the types are {sorted(types)}")
        proportions = [proportions[t] for t in types]
    shares = np.asarray(proportions, dtype=float)
    if shares.shape != (len(types),) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(
            f"proportions={list(proportions)!r}: use one non-negative number for each of {len(types)} types"
        )
    return shares / shares.sum()


def _loadings(rng: np.random.Generator, programs, profile: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """Log2 factor of each gene at an activity of 1 of each programme: genes x programmes, all 0 but for the members."""
    if isinstance(programs, pd.DataFrame):
        if unknown := sorted(set(programs.index) - set(profile.index)):
            raise ValueError(f"programs names unknown genes: {', '.join(map(str, unknown[:5]))}")
        return programs.reindex(profile.index).fillna(0.0)
    if programs is None:
        return pd.DataFrame(index=profile.index)
    try:
        number, size, strength = programs
    except (TypeError, ValueError):
        raise ValueError(
            f"programs={programs!r}: use (how many, genes in each, sd of log2), or a table of loadings"
        ) from None
    number, size, strength = (
        whole("programs[0]", number),
        whole("programs[1]", size),
        within("programs[2]", strength, 0, 10),
    )
    mean = profile.mean(axis=1).to_numpy()
    taken = genes["mito"].to_numpy() if "mito" in genes else np.zeros(len(mean), bool)
    pool = np.flatnonzero(~taken & (mean >= np.median(mean)))
    if number * size > len(pool):
        raise ValueError(
            f"{number} programmes of {size} genes do not fit into {len(pool)} genes of sufficient expression"
        )
    chosen = rng.choice(pool, (number, size), replace=False)
    table = pd.DataFrame(0.0, index=profile.index, columns=[f"program_{i + 1}" for i in range(number)])
    for i, rows in enumerate(chosen):
        table.iloc[rows, i] = strength
    return table


def _factors(type_size: Mapping[str, float] | None, types: list[str]) -> np.ndarray:
    if unknown := sorted(set(type_size or {}) - set(types)):
        raise ValueError(f"type_size names unknown types: {', '.join(unknown)}; the types are {', '.join(types)}")
    return np.array([float((type_size or {}).get(t, 1.0)) for t in types])


def gene_dispersions(rng: np.random.Generator, dispersion, spread: float, mean: np.ndarray) -> np.ndarray:
    """Dispersion of each gene, from one number or a trend (high, low, half) and a log-normal scatter around it.

    Args:
        rng: NumPy generator.
        dispersion: one number, or (high, low, half) of :func:`scprimer.data.simulate.counts.dispersion_trend`.
        spread: sd of the logarithm of the scatter.
        mean: mean counts of the genes at the median library size.

    Raises:
        ValueError: negative numbers, or neither one nor three of them.
    """
    values = np.atleast_1d(np.asarray(dispersion, dtype=float))
    if values.shape not in ((1,), (3,)) or (values < 0).any() or (len(values) == 3 and values[2] == 0):
        raise ValueError(
            f"dispersion={dispersion!r}: use one number of at least 0, or (high, low, half) with half above 0"
        )
    trend = np.full(len(mean), values[0]) if len(values) == 1 else dispersion_trend(mean, *values)
    return trend * np.exp(rng.normal(0, spread, len(mean)))
