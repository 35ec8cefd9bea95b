"""Where simulated counts look like data and where they do not: the same statistics of both, in one figure."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from .counts import totals


def statistics(
    adata: ad.AnnData,
    *,
    labels: str = "cell_type",
    n_correlated: int = 150,
    n_pcs: int = 20,
    max_cells: int = 1500,
    seed: int = 0,
) -> dict:
    """What a simulator of counts should get right, measured on raw counts.

    Args:
        adata: raw counts in ``X``.
        labels: column of ``obs`` with cell types; without it the statistics that need it are left out.
        n_correlated: how many of the most expressed genes are correlated with each other.
        n_pcs: principal components for the silhouette.
        max_cells: correlations and silhouettes are taken on at most this many cells, drawn at random.
        seed: of that draw.

    Returns:
        dict with

        - ``genes``: a row a gene: ``mean`` and ``variance`` of counts scaled to the mean library size, ``zeros`` (share of
          cells without it), ``dispersion``: (variance - what sampling alone gives) / mean²; NaN for genes never seen.
        - ``cells``: a row a cell: ``umis``, ``genes`` (detected), ``mito`` (share, NaN without such genes).
        - ``zeros``: share of zeros in the matrix; ``umis``: median UMIs a cell; ``umis_log_sd``: sd of their logarithm.
        - ``correlations``: Pearson correlations between the most expressed genes (log-normalised), each pair once;
          ``correlations_within``: the same after the mean of each cell type is taken off; ``correlation_noise``: their sd
          were the genes independent.
        - ``silhouettes``: a row a cell type: mean silhouette of its cells in the first principal components (1: far from
          all others, 0: on the border, below: among others), and ``cells``.
    """
    counts = sp.csr_matrix(adata.X).astype(float)
    umis = totals(counts)
    if not (umis > 0).any():
        raise ValueError("there are no counts in X: statistics need raw counts")
    counts, umis, kept = counts[umis > 0], umis[umis > 0], adata[umis > 0]
    n = len(umis)
    size = umis / umis.mean()
    scaled = sp.diags(1 / size) @ counts
    mean = np.asarray(scaled.mean(axis=0)).ravel()
    variance = (np.asarray(scaled.multiply(scaled).mean(axis=0)).ravel() - mean**2) * n / max(n - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = np.where(mean > 0, (variance - mean * np.mean(1 / size)) / mean**2, np.nan)
    genes = pd.DataFrame(
        {"mean": mean, "variance": variance, "zeros": 1 - np.bincount(counts.indices, minlength=counts.shape[1]) / n, "dispersion": dispersion},
        index=adata.var_names,
    )  # fmt: skip
    is_mito = adata.var_names.str.upper().str.startswith("MT-")
    mito = totals(counts[:, is_mito]) / umis if is_mito.any() else np.full(n, np.nan)
    cells = pd.DataFrame({"umis": umis, "genes": np.diff(counts.indptr), "mito": mito}, index=kept.obs_names)
    found = {
        "genes": genes,
        "cells": cells,
        "zeros": float(1 - counts.nnz / np.prod(counts.shape)),
        "umis": float(np.median(umis)),
        "umis_log_sd": float(np.log(umis).std()),
    }

    rng = np.random.default_rng(seed)
    some = np.sort(rng.choice(n, min(n, max_cells), replace=False))
    logged = (sp.diags(1e4 / umis[some]) @ counts[some]).log1p()
    top = np.argsort(-mean, kind="stable")[:n_correlated]
    values = logged[:, top].toarray()
    found["correlations"] = _pairs(values)
    found["correlation_noise"] = float(1 / np.sqrt(len(some)))
    if labels not in adata.obs:
        return found
    types = kept.obs[labels].iloc[some].astype(object)
    known = types.notna().to_numpy()
    types = types[known].astype(str).to_numpy()
    inside = pd.DataFrame(values[known])
    found["correlations_within"] = _pairs((inside - inside.groupby(types).transform("mean")).to_numpy())
    found["silhouettes"] = _silhouettes(logged[known], types, n_pcs, seed)
    return found


def draw_realism(
    real: ad.AnnData,
    simulated: ad.AnnData,
    *,
    names: tuple[str, str] = ("real", "simulated"),
    labels: str = "cell_type",
):
    """Six panels, real beside simulated: variance, zeros, library sizes, genes a cell, correlations, separation of the types.

    Args:
        real: raw counts in ``X``.
        simulated: raw counts in ``X``; as many genes as ``real`` for a fair picture.
        names: what the legend calls them.
        labels: column of ``obs`` with cell types in both.

    Returns:
        matplotlib Figure.
    """
    import matplotlib.pyplot as plt

    from scprimer import plots

    both = [statistics(a, labels=labels) for a in (real, simulated)]
    tints = (plots.PALETTE[0], plots.PALETTE[1])
    figure, axes = plt.subplots(3, 2, figsize=(7.5, 9))
    (variance, zeros), (library, detected), (related, separate) = axes
    rng = np.random.default_rng(0)
    for found, tint, name in zip(both, tints, names):
        genes = found["genes"].query("mean > 0")
        genes = genes.iloc[rng.permutation(len(genes))[:4000]]  # enough to see the cloud, and a small picture
        points = {"s": 4, "alpha": 0.35, "linewidths": 0, "color": tint, "rasterized": True}
        variance.scatter(genes["mean"], genes["variance"], label=name, **points)
        zeros.scatter(genes["mean"], genes["zeros"], label=name, **points)
        library.hist(
            np.log10(found["cells"]["umis"]),
            bins=40,
            density=True,
            histtype="step",
            linewidth=2,
            color=tint,
            label=name,
        )
        detected.scatter(found["cells"]["umis"], found["cells"]["genes"], **points)
        edges = np.linspace(-0.3, 0.6, 61)
        within = np.clip(found.get("correlations_within", found["correlations"]), edges[0], edges[-1])
        related.hist(within, bins=edges, density=True, histtype="step", linewidth=2, color=tint)
    line = np.geomspace(*np.percentile(both[0]["genes"].query("mean > 0")["mean"], [0.5, 100]), 50)
    variance.plot(line, line, color=plots.INK, linewidth=1, linestyle="--")
    below = {"xytext": (0, -26), "textcoords": "offset points", "ha": "right", "color": plots.INK}
    variance.annotate("Poisson", (line[-1], line[-1]), **below)
    variance.set(xscale="log", yscale="log", xlabel="mean count of a gene", ylabel="variance", title="Overdispersion")
    zeros.plot(line, np.exp(-line), color=plots.INK, linewidth=1, linestyle="--")
    zeros.set(xscale="log", xlabel="mean count of a gene", ylabel="share of cells without it", title="Zeros")
    library.set(xlabel="log10 UMIs in a cell", ylabel="density", title="Library size")
    detected.set(xscale="log", yscale="log", xlabel="UMIs in a cell", ylabel="genes detected", title="Genes a cell")
    related.set(
        xlabel="correlation of two genes within a type", ylabel="density", title="Correlation of genes", yscale="log"
    )
    _draw_silhouettes(separate, both, tints)
    handles = variance.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, markerscale=4)
    return figure


def _draw_silhouettes(ax, both: list[dict], tints) -> None:
    tables = [found.get("silhouettes") for found in both]
    if any(t is None for t in tables):
        ax.set_axis_off()
        return
    names = list(dict.fromkeys(name for t in tables for name in t.index))
    for shift, table, tint in zip((-0.18, 0.18), tables, tints):
        at = [i + shift for i, name in enumerate(names) if name in table.index]
        ax.barh(at, table["silhouette"].reindex([n for n in names if n in table.index]), height=0.34, color=tint)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="mean silhouette", title="Separation of types")


def _pairs(values: np.ndarray) -> np.ndarray:
    """Correlations of all pairs of columns that vary."""
    values = values[:, values.std(axis=0) > 1e-9]
    return np.corrcoef(values, rowvar=False)[np.triu_indices(values.shape[1], 1)]


def _silhouettes(logged: sp.csr_matrix, types: np.ndarray, n_pcs: int, seed: int) -> pd.DataFrame:
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_samples

    mean = np.asarray(logged.mean(axis=0)).ravel()
    variance = np.asarray(logged.multiply(logged).mean(axis=0)).ravel() - mean**2
    chosen = np.argsort(-variance, kind="stable")[:1000]  # the genes that vary most on the log scale
    n_pcs = min(n_pcs, len(types) - 1, len(chosen))
    if len(set(types)) < 2 or n_pcs < 1:
        return pd.DataFrame({"silhouette": [], "cells": []}, index=pd.Index([], name="cell_type"))
    scores = PCA(n_pcs, svd_solver="randomized", random_state=seed).fit_transform(logged[:, chosen].toarray())
    table = pd.DataFrame({"cell_type": types, "silhouette": silhouette_samples(scores, types)})
    return table.groupby("cell_type")["silhouette"].agg(silhouette="mean", cells="size")
