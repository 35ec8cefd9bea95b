"""Stand-in of ``glioblastoma``: five patients who differ much, each with and without treatment."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ..populations import populations, profiles
from .common import as_loaded, barcodes, categorical, ensembl_ids

SAMPLES = {  # patient -> library of the control and of the treated slice
    "PW030": ("701", "704"), "PW032": ("709", "711"), "PW034": ("702", "705"), "PW036": ("701", "705"), "PW040": ("711", "712"),
}  # fmt: skip
BIOLOGY_SEED = 2_021


def glioblastoma(seed: int, part: str | None, *, n_cells: int = 800, n_genes: int = 300) -> ad.AnnData:
    """Slices of five tumours, control and treated, in equal numbers of cells; patients differ by a factor of about 1.7 per gene.

    ``uns["truth"]["donor_log2fc"]``: how each patient shifts each gene. ``uns["truth"]["genes"]["treatment_log2fc"]``: what the
    treatment does, to every patient alike.
    """
    profile, genes = profiles(
        n_genes, type_names=["control"], markers_per_type=0, mito=False, log_sd=1.0, seed=BIOLOGY_SEED
    )
    change = np.random.default_rng(BIOLOGY_SEED).normal(0, 1, n_genes) * (np.arange(n_genes) % 5 == 0)
    profile["panobinostat"] = profile["control"] * 2.0**change
    cells = populations(
        n_cells, biology=(profile, genes.assign(treatment_log2fc=change)), n_donors=len(SAMPLES), donor_strength=0.75,
        library_size=(650, 0.9), mito=None, seed=seed + 11_000_000,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 31])
    patient = [list(SAMPLES)[code] for code in cells.obs["donor"].cat.codes]
    condition = cells.obs["cell_type"].astype(str).to_numpy()
    sample = [f"{p}-{SAMPLES[p][c == 'panobinostat']}" for p, c in zip(patient, condition)]
    cells.obs["condition"] = condition
    obs = pd.DataFrame(
        {
            "donor": categorical(patient), "condition": categorical(condition),
            "sample": categorical(sample), "batch": categorical(sample),
        }
    )  # fmt: skip
    var = pd.DataFrame(
        {"ensembl": np.array(ensembl_ids(n_genes), dtype=object)}, index=np.array(cells.var_names, dtype=object)
    )
    names = [f"{s}_{code}" for s, code in zip(sample, barcodes(rng, cells.n_obs, 12))]
    return as_loaded(cells, "glioblastoma", part, seed=seed, obs=obs, var=var, names=names)
