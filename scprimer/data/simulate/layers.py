"""What happens to cells on their way to a count matrix: each function takes AnnData and returns a new one with the truth added.

They compose in the order of the experiment: cells are damaged, caught two in a droplet, wetted by ambient RNA, tagged,
spiked. Truth about cells goes into ``obs``, truth about genes and settings into ``uns["truth"]``; the input stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from .counts import draw, gamma_poisson, library_sizes, thin, totals
from .errors import pair, whole, within


def damage(
    adata: ad.AnnData, fraction: float = 0.05, *, loss: tuple[float, float] = (0.5, 0.9), seed: int = 0
) -> ad.AnnData:
    """Break the membrane of some cells: cytoplasmic molecules leak out, mitochondrial ones stay.

    Args:
        adata: raw counts in ``X``; genes whose names begin with ``MT-`` (any case) are mitochondrial.
        fraction: share of the cells that are damaged.
        loss: smallest and largest share of a damaged cell's other molecules that is lost (uniform between them).
        seed: seed.

    Returns:
        A copy with ``obs["damaged"]`` (bool) and ``obs["damage_loss"]`` (share lost, 0 in whole cells).
    """
    within("fraction", fraction, 0, 1)
    low, high = (within("loss", v, 0, 1) for v in loss)
    if low > high:
        raise ValueError(f"loss={loss!r}: the smaller share comes first")
    rng, out = np.random.default_rng([seed, 2]), _copy(adata)
    damaged = _pick(rng, out.n_obs, round(fraction * out.n_obs))
    lost = np.where(damaged, rng.uniform(low, high, out.n_obs), 0.0)
    mito = out.var_names.str.upper().str.startswith("MT-")
    counts = out.X.tocsr()
    keep = np.where(mito[counts.indices], 1.0, 1 - np.repeat(lost, np.diff(counts.indptr)))
    out.X = thin(rng, counts, keep)
    out.obs["damaged"], out.obs["damage_loss"] = damaged, lost
    return _noted(out, "damage", fraction=fraction, loss_low=low, loss_high=high, seed=seed)


def add_doublets(adata: ad.AnnData, rate: float = 0.05, *, capture: float = 1.0, seed: int = 0) -> ad.AnnData:
    """Catch some cells two in a droplet. The two cells do not appear on their own any more, so droplets are fewer than cells.

    Args:
        adata: raw counts in ``X``, one cell a row.
        rate: share of the droplets returned that hold two cells, from 0 to below 1.
        capture: share of the two cells' molecules that a doublet keeps; 1 adds their counts, 0.5 makes a doublet as deep
            as a single cell.
        seed: seed.

    Returns:
        AnnData with ``n_obs - number of doublets`` rows in random order. ``obs["doublet"]`` (bool); a doublet keeps the
        labels of its first cell. With ``obs["cell_type"]`` also ``obs["doublet_kind"]``: ``"singlet"``, ``"homotypic"``
        or ``"heterotypic"`` (of two types). ``uns["truth"]["doublets"]``: a row a doublet, with ``parent_1``,
        ``parent_2`` (names) and their types ``type_1``, ``type_2``.
    """
    within("rate", rate, 0, 1, open_high=True)
    within("capture", capture, 0, 1)
    rng = np.random.default_rng([seed, 3])
    n, n_doublets = adata.n_obs, round(rate * adata.n_obs / (1 + rate))  # d / (n - d) = rate
    order = rng.permutation(n)
    first, second, single = order[:n_doublets], order[n_doublets : 2 * n_doublets], order[2 * n_doublets :]
    counts = adata.X.tocsr()
    pairs = thin(rng, (counts[first] + counts[second]).tocsr(), capture) if n_doublets else counts[:0]
    rows = np.concatenate([first, single])
    shuffle = rng.permutation(len(rows))
    out = ad.AnnData(
        sp.vstack([pairs, counts[single]], format="csr")[shuffle],
        obs=adata.obs.iloc[rows[shuffle]].copy(),
        var=adata.var.copy(),
    )
    out.uns = _copy_uns(adata)
    out.obs["doublet"] = (np.arange(len(rows)) < n_doublets)[shuffle]
    table = pd.DataFrame(
        {"parent_1": adata.obs_names[first], "parent_2": adata.obs_names[second]}, index=adata.obs_names[first]
    )
    table.index.name = None
    if "cell_type" in adata.obs:
        types = adata.obs["cell_type"].astype(str).to_numpy()
        table["type_1"], table["type_2"] = types[first], types[second]
        kind = pd.Series("singlet", index=out.obs_names)
        kind[table.index] = np.where(types[first] == types[second], "homotypic", "heterotypic")
        out.obs["doublet_kind"] = pd.Categorical(kind, ["singlet", "homotypic", "heterotypic"])
    out.uns["truth"]["doublets"] = table
    return _noted(out, "add_doublets", rate=rate, capture=capture, seed=seed)


def add_jackpots(
    adata: ad.AnnData, per_cell: float = 3.0, *, size: tuple[float, float] = (20, 0.6), seed: int = 0
) -> ad.AnnData:
    """Blow up single entries: a molecule whose identifier was misread many times counts as many.

    A gene then has tens of counts in one cell and hardly any elsewhere. Early 10x data are full of it (the
    defaults are about the rate and size of ``pbmc3k``): it is what outlier-robust selection of variable genes is for.

    Args:
        adata: raw counts in ``X``.
        per_cell: mean number of entries blown up in a cell, all of them non-zero before.
        size: median of the counts added to such an entry, and the sd of the logarithm.
        seed: seed.

    Returns:
        A copy; ``uns["truth"]["jackpots"]``: a row an entry with ``cell`` and ``gene`` (names) and ``added``.
    """
    within("per_cell", per_cell, 0, 1e4)
    median, log_sd = pair("size", size, "counts added")
    rng, out = np.random.default_rng([seed, 10]), _copy(adata)
    counts = out.X.tocsr()
    filled = np.diff(counts.indptr)
    n = np.minimum(rng.poisson(per_cell, out.n_obs), filled)
    entries = [start + rng.choice(held, k, replace=False) for start, held, k in zip(counts.indptr, filled, n)]
    entries = np.concatenate(entries).astype(int) if entries else np.array([], int)
    added = np.ceil(library_sizes(rng, len(entries), median, log_sd))
    counts.data[entries] += added.astype(counts.data.dtype)
    out.X = counts
    rows = np.repeat(np.arange(out.n_obs), n)
    names = {"cell": out.obs_names[rows], "gene": out.var_names[counts.indices[entries]], "added": added}
    out.uns["truth"]["jackpots"] = pd.DataFrame(names, index=[str(i) for i in range(len(entries))])
    return _noted(out, "add_jackpots", per_cell=per_cell, seed=seed)


def add_ambient(
    adata: ad.AnnData,
    fraction: float = 0.1,
    *,
    spread: float = 0.3,
    soup: np.ndarray | Sequence[float] | None = None,
    n_empty: int = 0,
    empty_umis: tuple[float, float] | None = None,
    seed: int = 0,
) -> ad.AnnData:
    """Add ambient RNA: every droplet takes in a like amount of the soup, so small cells are the most contaminated.

    Args:
        adata: raw counts in ``X``.
        fraction: share of ambient molecules in a droplet of median size, from 0 to below 1.
        spread: sd of the logarithm of the ambient amount over droplets.
        soup: share of each gene in the soup; default: the sum over all cells (what burst cells would release).
        n_empty: empty droplets to append, see :func:`empty_droplets`.
        empty_umis: median UMIs of an empty droplet and the sd of the logarithm; default: the same amount that a cell
            takes in.
        seed: seed.

    Returns:
        A copy whose ``X`` holds native and ambient molecules. ``layers["native"]``: what the cells themselves gave.
        ``obs["ambient_fraction"]``: ambient share of each droplet's UMIs as drawn. ``uns["truth"]["soup"]``: DataFrame
        with column ``share``, sums to 1. With empty droplets also ``obs["is_cell"]`` (bool).
    """
    within("fraction", fraction, 0, 1, open_high=True)
    within("spread", spread, 0, 5)
    rng, out = np.random.default_rng([seed, 4]), _copy(adata)
    shares = _soup(out, soup)
    native, sizes = out.X.tocsr(), totals(out.X)
    # molecules, such that a droplet of median size has the share asked for
    amount = fraction / (1 - fraction) * np.median(sizes)
    volume = library_sizes(rng, out.n_obs, max(amount, 1e-12), spread) if fraction else np.zeros(out.n_obs)
    ambient = draw(rng, out.n_obs, lambda rows: volume[rows, None] * shares, 0.0)
    out.X = (native + ambient).tocsr()
    out.layers["native"] = native
    out.obs["ambient_fraction"] = totals(ambient) / np.maximum(totals(out.X), 1)
    out.uns["truth"]["soup"] = pd.DataFrame({"share": shares}, index=out.var_names)
    _noted(out, "add_ambient", fraction=fraction, spread=spread, seed=seed)
    if not n_empty:
        return out
    empty_umis = empty_umis or (max(amount, 1.0), spread)
    empty = empty_droplets(out, n_empty, soup=shares, umis=empty_umis, seed=seed)
    return with_empty_droplets(out, empty)


def empty_droplets(
    adata: ad.AnnData, n: int, *, soup: np.ndarray | Sequence[float] | None = None,
    umis: tuple[float, float] = (50, 0.5), overdispersion: float = 0.0, seed: int = 0,
) -> ad.AnnData:  # fmt: skip
    """Droplets that hold soup and no cell.

    Args:
        adata: the cells whose soup it is (gives the genes, and the soup unless ``soup`` is given).
        n: number of empty droplets.
        soup: share of each gene; default: ``uns["truth"]["soup"]`` when it is there, otherwise the sum over all cells.
        umis: median of the expected UMIs a droplet, and the sd of their logarithm.
        overdispersion: of each gene around its expectation; 0 for plain sampling.
        seed: seed.

    Returns:
        AnnData n x genes with raw counts in ``X``; ``obs["is_cell"]`` False, ``obs["ambient_fraction"]`` 1.
    """
    n, (median, log_sd) = whole("n", n), pair("umis", umis, "UMIs an empty droplet")
    rng = np.random.default_rng([seed, 5])
    if soup is None and "soup" in adata.uns.get("truth", {}):
        soup = adata.uns["truth"]["soup"]["share"].to_numpy()
    shares, size = _soup(adata, soup), library_sizes(rng, n, median, log_sd)
    counts = draw(rng, n, lambda rows: size[rows, None] * shares, overdispersion)
    obs = pd.DataFrame({"is_cell": False, "ambient_fraction": 1.0}, index=[f"empty_{i + 1:06d}" for i in range(n)])
    return ad.AnnData(counts, obs=obs, var=adata.var.copy())


def with_empty_droplets(cells: ad.AnnData, empty: ad.AnnData, *, seed: int = 0) -> ad.AnnData:
    """Cells and empty droplets in one unfiltered matrix, in random order.

    Labels of cells are missing in empty droplets; ``obs["is_cell"]`` tells them apart; layers are dropped but for
    ``native``, which is empty in empty droplets.
    """
    if list(cells.var_names) != list(empty.var_names):
        raise ValueError("cells and empty droplets have different genes: make the empty droplets from the same cells")
    rng = np.random.default_rng([seed, 6])
    order = rng.permutation(cells.n_obs + empty.n_obs)
    counts = sp.vstack([cells.X, empty.X], format="csr")[order]
    obs = pd.concat([cells.obs.assign(is_cell=True), empty.obs.assign(is_cell=False)]).iloc[order]
    for name in cells.obs:  # a missing flag is False, a missing label stays missing
        if cells.obs[name].dtype == bool and name != "is_cell":
            obs[name] = obs[name].eq(True)
        elif isinstance(cells.obs[name].dtype, pd.CategoricalDtype):
            obs[name] = pd.Categorical(obs[name], cells.obs[name].cat.categories)
    out = ad.AnnData(counts, obs=obs, var=cells.var.copy())
    if "native" in cells.layers:
        nothing = sp.csr_matrix(empty.shape, dtype=np.float32)
        out.layers["native"] = sp.vstack([cells.layers["native"], nothing], format="csr")[order]
    out.uns = _copy_uns(cells)
    return _noted(out, "empty_droplets", n=empty.n_obs)


def add_hashtags(
    adata: ad.AnnData,
    n_tags: int = 4,
    *,
    by: str | None = None,
    signal: tuple[float, float] = (300, 0.6),
    background: tuple[float, float] = (15, 0.7),
    dispersion: float = 0.15,
    unstained: float = 0.0,
    seed: int = 0,
) -> ad.AnnData:
    """Stain the cells with one hashtag a sample and count the tags.

    Call it after :func:`add_doublets`: a doublet carries the tags of both its cells, and one whose cells share a tag
    cannot be told from a singlet by its tags.

    Args:
        adata: cells (or droplets).
        n_tags: number of tags; ignored when ``by`` is given.
        by: column of ``obs`` (such as ``"donor"``) whose values get a tag each; default: cells are tagged at random, so
            that tag and cell type are independent. The second cell of a doublet is always tagged at random.
        signal: median count of a cell's own tag, and the sd of the logarithm over cells.
        background: median count of every other tag, and the sd of the logarithm over tags and cells.
        dispersion: overdispersion of both.
        unstained: share of the cells that took up no tag.
        seed: seed.

    Returns:
        A copy with ``obsm["hashtags"]`` (DataFrame of counts, cells x tags ``HTO_1``, ...), ``obs["hashtag"]`` (the true
        tag, ``"HTO_1+HTO_3"`` for a doublet of two samples, ``"none"``) and ``obs["hashtag_class"]`` (``"singlet"``,
        ``"doublet"``: two *different* tags, ``"negative"``). Empty droplets (``obs["is_cell"]`` False) are negative.
    """
    rng, out = np.random.default_rng([seed, 7]), _copy(adata)
    signal, background = pair("signal", signal, "counts of a tag"), pair("background", background, "counts of a tag")
    within("unstained", unstained, 0, 1)
    within("dispersion", dispersion, 0, 10)
    if by is not None:
        if by not in out.obs:
            raise ValueError(f"by={by!r} is no column of obs; there are {', '.join(out.obs)}")
        values = pd.Categorical(out.obs[by])
        own, n_tags = values.codes.astype(int), len(values.categories)
    n_tags = whole("n_tags", n_tags, 2)
    n = out.n_obs
    own = own if by is not None else rng.permutation(np.arange(n) % n_tags)
    has_cell = out.obs["is_cell"].to_numpy(bool) if "is_cell" in out.obs else np.ones(n, bool)
    stained = has_cell & (rng.random(n) >= unstained)
    second = np.where(
        out.obs["doublet"] if "doublet" in out.obs else np.zeros(n, bool), rng.integers(0, n_tags, n), own
    )
    carries = np.zeros((n, n_tags))
    np.add.at(carries, (np.arange(n), own), stained)
    np.add.at(carries, (np.arange(n), second), stained & (second != own))

    tag_level = library_sizes(rng, n_tags, 1.0, background[1] / 2)  # tags differ in concentration,
    cell_level = library_sizes(rng, n, 1.0, background[1] / 2)[:, None]  # cells in surface and droplets in volume
    uptake = library_sizes(rng, n, signal[0], signal[1])[:, None]
    counts = gamma_poisson(rng, background[0] * cell_level * tag_level + carries * uptake * tag_level, dispersion)
    names = [f"HTO_{i + 1}" for i in range(n_tags)]
    out.obsm["hashtags"] = pd.DataFrame(counts.astype(np.float32), index=out.obs_names, columns=names)
    number = (carries > 0).sum(axis=1)
    out.obs["hashtag"] = ["+".join(np.array(names)[row > 0]) or "none" for row in carries]
    out.obs["hashtag_class"] = pd.Categorical.from_codes(np.minimum(number, 2), ["negative", "singlet", "doublet"])
    out.uns["truth"]["hashtags"] = pd.DataFrame({"level": tag_level}, index=names)
    return _noted(out, "add_hashtags", n_tags=n_tags, unstained=unstained, dispersion=dispersion, seed=seed)


# Names of the External RNA Controls Consortium's transcripts come in this form; the mix spans about six orders of magnitude.
def spike_mix(n: int = 92, span: float = 1e6) -> pd.Series:
    """Relative concentrations of ``n`` spike-ins, a geometric series over ``span``, sums to 1. Index ``ERCC-00001``, ..."""
    n = whole("n", n, 2)
    shares = np.geomspace(1, span, n)[::-1]
    return pd.Series(shares / shares.sum(), index=[f"ERCC-{i + 1:05d}" for i in range(n)], name="concentration")


def add_spike_ins(
    adata: ad.AnnData,
    concentrations: Mapping[str, float] | pd.Series | None = None,
    *,
    molecules: float = 20_000,
    efficiency: float = 0.1,
    efficiency_spread: float = 0.2,
    seed: int = 0,
) -> ad.AnnData:
    """Add the same known amount of foreign transcripts to each cell, of which each cell captures a share.

    Molecules of transcript j in a cell are Poisson around ``molecules * concentration_j``; each is counted with the cell's
    capture efficiency. Counts over their expectation therefore vary by sampling and by efficiency alone: the technical
    noise that a noise model has to find (squared coefficient of variation ``1 / mean + exp(efficiency_spread²) - 1``).

    Args:
        adata: raw counts in ``X``.
        concentrations: transcript -> relative concentration; default :func:`spike_mix`.
        molecules: spike-in molecules given to each cell, all transcripts together.
        efficiency: mean share of the molecules that is counted, above 0 and at most 1.
        efficiency_spread: sd of the logarithm of the efficiency over cells.
        seed: seed.

    Returns:
        AnnData with the spike-ins as further genes, ``var["spike_in"]`` (bool), ``obs["capture_efficiency"]``, and
        ``uns["truth"]["spike_ins"]``: ``molecules`` a cell by transcript.
    """
    within("efficiency", efficiency, 1e-9, 1)
    within("efficiency_spread", efficiency_spread, 0, 3)
    mix = spike_mix() if concentrations is None else pd.Series(dict(concentrations), dtype=float)
    if len(mix) == 0 or not (mix > 0).all() or not molecules > 0:
        raise ValueError("concentrations and molecules of spike-ins must be above 0, and at least one is needed")
    if clash := sorted(set(mix.index) & set(adata.var_names)):
        raise ValueError(f"spike-ins are in the data already: {', '.join(clash[:3])}")
    rng = np.random.default_rng([seed, 8])
    log_mean = -(efficiency_spread**2) / 2  # so that the mean, not the median, is what was asked for
    share = np.minimum(efficiency * np.exp(rng.normal(log_mean, efficiency_spread, adata.n_obs)), 1.0)
    given = molecules * (mix / mix.sum()).to_numpy()
    counts = rng.binomial(rng.poisson(given, (adata.n_obs, len(given))), share[:, None])
    var = pd.concat([adata.var.assign(spike_in=False), pd.DataFrame({"spike_in": True}, index=mix.index)])
    out = ad.AnnData(
        sp.hstack([adata.X, sp.csr_matrix(counts.astype(np.float32))], format="csr"), obs=adata.obs.copy(), var=var,
        obsm=dict(adata.obsm),
    )  # fmt: skip
    out.uns = _copy_uns(adata)
    out.obs["capture_efficiency"] = share
    out.uns["truth"]["spike_ins"] = pd.DataFrame({"molecules": given}, index=mix.index)
    return _noted(
        out, "add_spike_ins", molecules=molecules, efficiency=efficiency, efficiency_spread=efficiency_spread, seed=seed
    )


def null_split(adata: ad.AnnData, n_groups: int = 2, *, by: str | None = None, seed: int = 0) -> ad.AnnData:
    """Split the cells into groups between which nothing differs: what a test must not find.

    Args:
        adata: any cells.
        n_groups: number of groups, of equal size up to one cell (one unit of ``by``).
        by: column of ``obs``, such as ``"donor"``, whose values are kept together; default: cell by cell.
        seed: seed.

    Returns:
        A copy with ``obs["group"]`` (categorical ``group_1``, ...), independent of all else.
    """
    rng, out, n_groups = np.random.default_rng([seed, 9]), _copy(adata), whole("n_groups", n_groups, 2)
    if by is not None and by not in out.obs:
        raise ValueError(f"by={by!r} is no column of obs; there are {', '.join(out.obs)}")
    units = np.arange(out.n_obs) if by is None else pd.factorize(out.obs[by])[0]
    n_units = int(units.max()) + 1
    if n_units < n_groups:
        raise ValueError(
            f"{n_units} {'cells' if by is None else by + ' values'} cannot be split into {n_groups} groups"
        )
    codes = rng.permutation(np.arange(n_units) % n_groups)[units]
    out.obs["group"] = pd.Categorical.from_codes(codes, [f"group_{i + 1}" for i in range(n_groups)])
    return _noted(out, "null_split", n_groups=n_groups, seed=seed)


# ---- shared by the layers --------------------------------------------------------------------------------------
def _copy(adata: ad.AnnData) -> ad.AnnData:
    out = adata.copy()
    out.uns.setdefault("truth", {})
    return out


def _copy_uns(adata: ad.AnnData) -> dict:
    uns = {key: dict(value) if isinstance(value, dict) else value for key, value in adata.uns.items()}
    uns.setdefault("truth", {})
    return uns


def _noted(adata: ad.AnnData, layer: str, **settings: float) -> ad.AnnData:
    """Write the layer's settings into the truth."""
    adata.uns["truth"].setdefault("layers", {})
    adata.uns["truth"]["layers"] = {**adata.uns["truth"]["layers"], layer: settings}
    return adata


def _pick(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.choice(n, k, replace=False)] = True
    return chosen


def _soup(adata: ad.AnnData, soup) -> np.ndarray:
    shares = (
        np.asarray(adata.X.sum(axis=0), dtype=float).ravel() if soup is None else np.asarray(soup, dtype=float).ravel()
    )
    if shares.shape != (adata.n_vars,) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"soup: one non-negative share for each of the {adata.n_vars} genes is needed, not all 0")
    return shares / shares.sum()
