"""Stand-in of ``pancreas-species``: one tissue of two species on orthologous genes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from ..populations import populations, profiles
from .common import as_loaded, barcodes, categorical

TYPES = ("activated_stellate", "alpha", "beta", "delta", "macrophage")
DONORS = {"human": ("human1", "human2", "human3", "human4"), "mouse": ("mouse1", "mouse2")}
BIOLOGY_SEED = 84_133


def pancreas_species(seed: int, part: str | None, *, n_cells: int = 350, n_genes: int = 1200) -> ad.AnnData:
    """Five types in equal numbers, human and mouse; evolution shifts each gene in each species by a factor of its own.

    The factors are in ``uns["truth"]["species_log2fc"]``. As in the data, some rows (``obs["duplicate"]``) repeat a mouse cell.
    """
    profile, genes = profiles(
        n_genes, type_names=TYPES, markers_per_type=25, marker_log2fc=2.5, type_noise=0.3, mito=False, seed=BIOLOGY_SEED
    )
    shift = np.random.default_rng(BIOLOGY_SEED).normal(0, 0.6, (n_genes, 2))
    rng, parts = np.random.default_rng([seed, 41]), []
    for i, (species, donors) in enumerate(DONORS.items()):
        n = n_cells // 2 if i == 0 else n_cells - n_cells // 2
        cells = populations(
            n, biology=(profile.mul(2.0 ** shift[:, i], axis=0), genes), proportions=[1.0] * len(TYPES), library_size=(3_000, 0.5),
            mito=None, seed=2 * seed + i + 12_000_000,
        )  # fmt: skip
        cells.obs["species"], cells.obs["duplicate"] = species, False
        cells.obs["donor"] = rng.choice(donors, n)
        cells.obs_names = [f"{d}_{code}" for d, code in zip(cells.obs["donor"], barcodes(rng, n, 12))]
        if species == "mouse":  # a few rows repeat an earlier one
            again = n // 8
            names = [*cells.obs_names[: n - again], *(f"{name}.1" for name in cells.obs_names[:again])]
            cells = ad.concat([cells[: n - again], cells[:again]], index_unique="-", keys=["", "1"])
            cells.obs_names, cells.uns["truth"] = names, {"genes": genes}
            cells.obs["duplicate"] = np.arange(n) >= n - again
        parts.append(cells)
    cells = ad.concat(parts)
    species = pd.DataFrame(shift, index=profile.index, columns=list(DONORS))
    cells.uns["truth"] = {"profiles": profile, "genes": parts[0].uns["truth"]["genes"], "species_log2fc": species}
    obs = pd.DataFrame(
        {
            "cell_type": categorical(cells.obs["cell_type"].astype(str)), "species": categorical(cells.obs["species"]),
            "batch": categorical(cells.obs["species"]), "donor": categorical(cells.obs["donor"]),
            "duplicate": cells.obs["duplicate"].to_numpy(dtype=bool),
        }
    )  # fmt: skip
    return as_loaded(cells, "pancreas-species", part, seed=seed, obs=obs, names=list(cells.obs_names))
