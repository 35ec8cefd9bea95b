"""Stand-ins of ``cell-mixology``: cell lines one by one, mixed as RNA and mixed as cells, with spike-ins."""

from __future__ import annotations

from functools import lru_cache

import anndata as ad
import numpy as np
import pandas as pd

from ..counts import thin, totals
from ..layers import add_doublets, add_spike_ins, damage
from ..mixtures import mixtures
from ..populations import MITO_SHARES, populations, profiles
from .common import as_loaded, categorical, ensembl_ids, provenance

LINES = ("H2228", "H1975", "HCC827", "A549", "H838")
THREE = LINES[:3]
BIOLOGY_SEED = 3_918
ROWS, COLUMNS = "ABCDEFGHIJKLMNOP", range(1, 25)  # wells of a 384-well plate

# The loader gives Ensembl ids; the mitochondrial ones are real, as quality control looks for them.
MITO_IDS = {
    "MT-ND1": "ENSG00000198888", "MT-ND2": "ENSG00000198763", "MT-CO1": "ENSG00000198804", "MT-CO2": "ENSG00000198712",
    "MT-ATP8": "ENSG00000228253", "MT-ATP6": "ENSG00000198899", "MT-CO3": "ENSG00000198938", "MT-ND3": "ENSG00000198840",
    "MT-ND4L": "ENSG00000212907", "MT-ND4": "ENSG00000198886", "MT-ND5": "ENSG00000198786", "MT-ND6": "ENSG00000198695",
    "MT-CYB": "ENSG00000198727",
}  # fmt: skip
# Names of ERCC molecules from abundant to rare. Their amounts here are a series made for the simulation (a factor of 2^14
# from first to last), not the vendor's table.
ERCC = """
00130 00074 00096 00002 00004 00046 00171 00113 00003 00136 00060 00043 00042 00009 00145 00111 00108 00092 00076 00022
00095 00035 00112 00131 00062 00162 00079 00116 00144 00053 00044 00019 00071 00165 00084 00078 00099 00148 00025 00051
00054 00170 00126 00014 00157
"""
LIBRARY = {  # median UMIs and sd of their logarithm, as a tenth to a quarter of the data's for a tenth of its genes
    "sc_celseq2": (8_000, 0.5), "sc_dropseq": (5_000, 0.45), "sc_celseq2_5cl_p1": (6_500, 0.4),
    "sc_celseq2_5cl_p2": (5_200, 0.4), "sc_celseq2_5cl_p3": (3_600, 0.4), "sc_10x": (20_000, 0.35),
    "sc_10x_5cl": (10_000, 0.4), "RNAmix_celseq2": (8_000, 0.2), "RNAmix_sortseq": (8_000, 0.3), "cellmix1": (1_500, 0.5),
    "cellmix2": (3_000, 0.5), "cellmix3": (3_000, 0.5), "cellmix4": (4_500, 0.5), "cellmix5": (60_000, 0.25),
}  # fmt: skip
DAMAGED = {  # share of the single-cell wells that demultiplexing calls DBL: damaged wells, as in the data
    "sc_celseq2": 0.12, "sc_dropseq": 0.07, "sc_celseq2_5cl_p1": 0.42, "sc_celseq2_5cl_p2": 0.42, "sc_celseq2_5cl_p3": 0.10,
    "sc_10x": 0.05, "sc_10x_5cl": 0.05,
}  # fmt: skip
SPIKES = {"RNAmix_sortseq": 3_900, "RNAmix_celseq2": 1_100, "cellmix": 160}  # molecules; elsewhere 1,700
CALLED_DOUBLET = 0.75  # share of the wells with two cells that demultiplexing calls DBL
PLATES = ("sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3")
CELLMIX = ("cellmix1", "cellmix2", "cellmix3", "cellmix4")


@lru_cache(maxsize=4)
def biology(n_genes: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Profiles of the five lines (genes x lines) and what is planted; genes are made-up Ensembl ids, mitochondrial ones real."""
    names = ensembl_ids(n_genes - len(MITO_SHARES))
    return profiles(
        n_genes, type_names=LINES, markers_per_type=15, marker_log2fc=3, type_noise=0.6, gene_names=names, log_sd=1.5,
        housekeeping=(0.03, 0.35), seed=BIOLOGY_SEED,
    )  # fmt: skip


def cell_mixology(
    seed: int, part: str | None, *, n_cells: int | None = None, n_genes: int = 1000
) -> ad.AnnData | pd.DataFrame:
    """One experiment of cell-mixology; ``n_cells`` is per plate. See the loader for the parts."""
    if part == "sc_celseq2_5cl":
        return _joined([_dressed(seed, p, n_cells, n_genes) for p in PLATES], part, seed)
    if part == "cellmix":
        return _joined([_dressed(seed, p, n_cells, n_genes) for p in CELLMIX], part, seed)
    adata = _dressed(seed, part, n_cells, n_genes)
    if part in ("sc_10x", "sc_10x_5cl"):  # of these only the table of cells is registered
        table = adata.obs
        table.attrs["scprimer"] = provenance("cell-mixology", part, seed)
        return table
    return adata


def _dressed(seed: int, part: str, n_cells: int | None, n_genes: int) -> ad.AnnData:
    stream = [seed, sorted(LIBRARY).index(part)]  # each experiment has its own cells
    rng, own_seed = np.random.default_rng(stream), int(np.random.SeedSequence(stream).generate_state(1)[0])
    if part.startswith("RNAmix"):
        cells, labels = _rna_mixtures(rng, own_seed, part, n_cells or 200, n_genes)
    elif part.startswith("cellmix"):
        cells, labels = _cell_mixtures(rng, own_seed, part, n_cells or (21 if part == "cellmix5" else 140), n_genes)
    else:
        cells, labels = _single_cells(rng, own_seed, part, n_cells or (150 if part in PLATES else 240), n_genes)
    molecules = SPIKES.get(part, SPIKES["cellmix"] if part.startswith("cellmix") else 1_700)
    if "dropseq" not in part and "10x" not in part:
        names = [f"ERCC-{number}" for number in ERCC.split()]
        mix = pd.Series(np.geomspace(2**14, 1, len(names)), index=names)
        cells = add_spike_ins(cells, mix, molecules=molecules, efficiency=0.1, efficiency_spread=0.25, seed=own_seed)
    obs = _reads(rng, cells, part).join(labels.set_axis(cells.obs_names))[_columns(part)]
    ids = pd.Index([MITO_IDS.get(g, g) for g in cells.var_names], dtype=object)
    spike = ids.str.startswith("ERCC-")
    var = pd.DataFrame({"ensembl": ids.where(~spike, ""), "spike_in": spike}, index=ids)
    names = [f"{p}_{w}" for p, w in zip(obs["plate"], obs["well"])] if "plate" in obs else _names(obs, part)
    return as_loaded(cells, "cell-mixology", part, seed=seed, obs=obs, var=var, names=names)


# ---- the three designs -----------------------------------------------------------------------------------------
def _single_cells(rng, seed: int, part: str, n: int, n_genes: int) -> tuple[ad.AnnData, pd.DataFrame]:
    five = "5cl" in part
    lines = list(LINES) if five else list(THREE)
    profile, genes = biology(n_genes)
    two_cells = 0.13 if part in PLATES else 0.0  # wells that the sorter filled with two cells on purpose
    n_sorted = round(n * (1 + two_cells))
    cells = populations(
        n_sorted, biology=(_as_seen_by(profile[lines], part), genes), proportions=[0.15, 0.14, 0.13, 0.36, 0.22] if five else None,
        library_size=LIBRARY[part], dispersion=(0.12, 0.4, 4.0), mito=(0.1, 0.3), seed=seed,
    )  # fmt: skip
    cells = damage(cells, DAMAGED[part], loss=(0.2, 0.65), seed=seed)
    cells = add_doublets(cells, two_cells, capture=0.8, seed=seed)[:n].copy()
    line = cells.obs["cell_type"].astype(str).to_numpy()
    called = cells.obs["damaged"].to_numpy() & ~cells.obs["doublet"].to_numpy()
    called |= cells.obs["doublet"].to_numpy() & (rng.random(cells.n_obs) < CALLED_DOUBLET)
    genotype = np.where(called & (rng.random(cells.n_obs) < 0.2), rng.choice(lines, cells.n_obs), line)
    labels = pd.DataFrame(
        {
            "cell_line_demuxlet": categorical(genotype),
            "cell_line": categorical(genotype if part in PLATES else line),
            "demuxlet": categorical(np.where(called, "DBL", "SNG")),
            "cell_number": 1 + cells.obs["doublet"].to_numpy().astype(int),
        }
    )
    if part in PLATES:
        plate = part.rsplit("_", 1)[1]
        labels["plate"] = labels["batch"] = categorical([plate] * cells.n_obs)
        labels["well"] = _wells(rng, cells.obs["doublet"].to_numpy())
    return cells, labels


def _rna_mixtures(rng, seed: int, part: str, n: int, n_genes: int) -> tuple[ad.AnnData, pd.DataFrame]:
    thirds, pure, rich = (0.33, 0.33, 0.33), np.eye(3), 0.16 + 0.52 * np.eye(3)
    designs = [thirds, thirds, *pure, *rich]  # mixtures 1 to 8, proportions as the source writes them
    mix = rng.permutation(np.arange(n) % len(designs))
    amount = rng.choice([3.75, 7.5, 15.0, 30.0], n, p=[0.12, 0.32, 0.28, 0.28])
    proportions = pd.DataFrame([designs[m] for m in mix], columns=list(THREE))
    profile = _as_seen_by(biology(n_genes)[0][list(THREE)], part)
    cells = mixtures(profile, proportions, amounts=amount, library_size=LIBRARY[part], amount_exponent=0.8, seed=seed)
    labels = proportions.round(2).add_prefix("proportion_")
    labels["mix"], labels["mrna_amount"] = categorical((mix + 1).astype(str)), amount
    labels["well"] = _wells(rng, np.zeros(n, bool))
    return cells, labels


def _cell_mixtures(rng, seed: int, part: str, n: int, n_genes: int) -> tuple[ad.AnnData, pd.DataFrame]:
    simplex = [
        (a, b, 9 - a - b) for a in range(10) for b in range(10 - a) if 0 in (a, b, 9 - a - b)
    ]  # two lines or one
    centre = [(7, 1, 1), (1, 7, 1), (1, 1, 7), (5, 2, 2), (2, 5, 2), (2, 2, 5), (3, 3, 3)]
    if part == "cellmix5":  # population control: 90 cells
        designs = np.array(
            [(20, 20, 50), (10, 70, 10), (30, 30, 30), (20, 50, 20), (50, 20, 20), (70, 10, 10), (10, 10, 70)]
        )
        numbers = designs[np.arange(n) % len(designs)]
        trajectory, poor = np.zeros(n, bool), np.zeros(n, bool)
    else:
        designs = np.array([*simplex, *centre * 4, *[(9, 0, 0), (0, 9, 0), (0, 0, 9)] * 4, (1, 1, 1)])
        numbers = designs[rng.permutation(np.arange(n) % len(designs))]
        on_path = (numbers.min(axis=1) > 0) | (numbers.max(axis=1) == 9)
        trajectory, poor = on_path & (numbers.sum(axis=1) == 9), rng.random(n) < 0.045
        trajectory &= ~poor
    proportions = pd.DataFrame(numbers / numbers.sum(axis=1, keepdims=True), columns=list(THREE))
    profile = _as_seen_by(biology(n_genes)[0][list(THREE)], part)
    # about one cell's RNA of the pool is sequenced: more overdispersed than the mixtures of purified RNA
    noise = 0.02 if part == "cellmix5" else 0.08
    cells = mixtures(profile, proportions, library_size=LIBRARY[part], dispersion=(noise, 4 * noise, 4.0), seed=seed)
    cells.X = thin(rng, cells.X, np.where(poor, 0.4, 1.0))
    labels = pd.DataFrame(numbers, columns=[f"cells_{line}" for line in THREE])
    labels = labels.join(proportions.add_prefix("proportion_"))
    labels["cell_number"], labels["poor_quality"], labels["trajectory"] = numbers.sum(axis=1), poor, trajectory
    labels["well"] = _wells(rng, np.zeros(n, bool))
    labels["plate"] = labels["batch"] = categorical([part] * n)
    return cells, labels


def _as_seen_by(profile: pd.DataFrame, part: str) -> pd.DataFrame:
    """The profiles as one technology and run sees them: each gene shifted by a factor, fixed for the experiment."""
    protocols = ("celseq2", "dropseq", "sortseq", "10x", "cellmix")
    protocol = next(i for i, word in enumerate(protocols) if word in part)
    shift = np.random.default_rng([BIOLOGY_SEED, protocol]).normal(0, 0.0 if protocol == 0 else 0.7, len(profile))
    run = np.random.default_rng([BIOLOGY_SEED, 100 + sorted(LIBRARY).index(part)]).normal(0, 0.25, len(profile))
    return profile.mul(2.0 ** (shift + run), axis=0)


# ---- the table of cells ----------------------------------------------------------------------------------------
def _wells(rng, last: np.ndarray) -> list[str]:
    """A well for each cell; those in ``last`` (two cells) stand in columns 22 to 24, as on the plates."""
    at_end = [f"{r}{c}" for c in COLUMNS if c >= 22 for r in ROWS]
    others = [f"{r}{c}" for c in COLUMNS if c < 22 for r in ROWS]
    if last.sum() > len(at_end) or (~last).sum() > len(others):
        raise ValueError(f"n_cells={len(last)}: at most {len(others)} wells are on a plate")
    wells = np.empty(len(last), dtype=object)
    wells[last] = rng.permutation(at_end)[: last.sum()]
    wells[~last] = rng.permutation(others)[: (~last).sum()]
    return list(wells)


def _names(obs: pd.DataFrame, part: str) -> list[str]:
    if "well" in obs:
        return list(obs["well"])
    if part == "sc_celseq2":
        return [f"{ROWS[i % 16]}{i // 16 + 1}" for i in range(len(obs))]
    return [f"CELL_{i + 1:06d}" if part != "sc_10x_5cl" else f"Lib90_{i:05d}" for i in range(len(obs))]


def _reads(rng, cells: ad.AnnData, part: str) -> pd.DataFrame:
    """Read statistics of the size that the source gives, from the simulated counts and with noise."""
    total = totals(cells.X).astype(int)
    spike = totals(cells.X[:, cells.var_names.str.startswith("ERCC-")]).astype(int)
    mito = totals(cells.X[:, cells.var_names.str.startswith("MT-")]).astype(int)
    ribosomal = 1 - np.clip(rng.normal(0.08, 0.02, len(total)), 0.01, None)

    def reads(factor: float, of: np.ndarray = total) -> np.ndarray:
        return np.rint(of * factor * np.exp(rng.normal(0, 0.1, len(total)))).astype(int)

    genes = np.diff(cells.X.tocsr().indptr).astype(int)
    table = pd.DataFrame(
        {
            "unaligned": reads(2.2), "aligned_unmapped": reads(0.22), "mapped_to_exon": reads(3.5),
            "mapped_to_intron": reads(0.85), "ambiguous_mapping": reads(0.09), "mapped_to_ERCC": reads(3.3, spike),
            "mapped_to_MT": reads(3.3, mito), "number_of_genes": genes, "total_count_per_cell": total,
            "non_ERCC_percent": 1 - spike / np.maximum(total, 1), "non_mt_percent": 1 - mito / np.maximum(total, 1),
            "non_ribo_percent": ribosomal, "outliers": False, "is_cell_control": False,
        },
        index=cells.obs_names,
    )  # fmt: skip
    if part == "sc_10x_5cl":
        table["total_counts"], table["log10_total_counts"] = total, np.log10(total + 1)
        for name in ("total_features_by_counts", "total_features"):
            table[name], table[f"log10_{name}"] = genes, np.log10(genes + 1)
        ordered = -np.sort(-cells.X.toarray(), axis=1)
        for top in (50, 100, 200, 500):
            share = 100 * ordered[:, :top].sum(axis=1) / np.maximum(total, 1)
            table[f"pct_counts_in_top_{top}_features"] = table[f"pct_counts_top_{top}_features"] = share.astype(float)
    words = {"10x": "10x", "dropseq": "Drop-seq", "sortseq": "SORT-seq"}
    technology = next((name for word, name in words.items() if word in part), "CEL-seq2")
    table["technology"] = categorical([technology] * len(table))
    if part not in PLATES and not part.startswith("cellmix"):
        table["batch"] = categorical([part] * len(table))
    return table


def _columns(part: str) -> list[str]:
    """Columns of ``obs`` in the loader's order."""
    read = [
        "unaligned",
        "aligned_unmapped",
        "mapped_to_exon",
        "mapped_to_intron",
        "ambiguous_mapping",
        "mapped_to_ERCC",
    ]
    read += ["mapped_to_MT", "number_of_genes", "total_count_per_cell"]
    read += ["non_mt_percent", "non_ribo_percent"] if "10x" in part or "dropseq" in part else []
    read += [] if "10x" in part or "dropseq" in part else ["non_ERCC_percent", "non_mt_percent", "non_ribo_percent"]
    calls, proportions = ["cell_line_demuxlet", "demuxlet"], [f"proportion_{line}" for line in THREE]
    if part in PLATES:
        return [*read, "batch", "outliers", "cell_number", *calls, "technology", "cell_line", "plate", "well"]
    if part.startswith("RNAmix"):
        return [*read, "outliers", "mix", *proportions, "mrna_amount", "technology", "well", "batch"]
    if part.startswith("cellmix"):
        numbers = ["cells_H1975", "cells_H2228", "cells_HCC827"]
        outliers = [] if part == "cellmix5" else ["outliers"]
        tail = ["technology", *proportions, "cell_number", "plate", "well", "batch"]
        return [*read, *outliers, *numbers, "poor_quality", "trajectory", *tail]
    tops = [f"top_{n}_features" for n in (50, 100, 200, 500)]
    more = ["is_cell_control", "total_features_by_counts", "log10_total_features_by_counts", "total_counts"]
    more += ["log10_total_counts", *[f"pct_counts_in_{t}" for t in tops], "total_features", "log10_total_features"]
    more += [f"pct_counts_{t}" for t in tops]
    extra = more if part == "sc_10x_5cl" else []
    return [*read, "outliers", *extra, "cell_line", *calls, "technology", "batch"]


def _joined(plates: list[ad.AnnData], part: str, seed: int) -> ad.AnnData:
    """The plates below each other, with the truth of each under its name."""
    joined = ad.concat(plates, join="inner", merge="same")
    for column in plates[0].obs.select_dtypes("category"):
        joined.obs[column] = categorical(joined.obs[column])
    truths = [p.uns["truth"] for p in plates]
    names = [p.uns["scprimer"]["part"] for p in plates]
    joined.uns["truth"] = {
        "cells": pd.concat([t["cells"] for t in truths]),
        "spike_ins": truths[0]["spike_ins"],
        "parts": dict(zip(names, [{k: v for k, v in t.items() if k not in ("cells", "spike_ins")} for t in truths])),
    }
    joined.uns["scprimer"] = provenance("cell-mixology", part, seed)
    return joined
