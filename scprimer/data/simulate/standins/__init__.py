"""Stand-ins: simulated data sets in the shape of the registered ones, for the smoke profile and for tests."""

from __future__ import annotations

import importlib
import inspect

from scprimer.data.errors import UnknownData, nearest
from scprimer.data.registry import describe

# data set -> module:function of this package
STANDINS = {
    "pbmc3k": "pbmc:pbmc3k",
    "pbmc4k": "pbmc:pbmc4k",
    "barnyard": "droplets:barnyard",
    "pbmc-adt-background": "droplets:pbmc_adt_background",
    "cell-hashing": "droplets:cell_hashing",
    "csf-hashing": "droplets:csf_hashing",
    "pbmc-chemistries": "pbmc:pbmc_chemistries",
    "kang": "pbmc:kang",
    "kang-donors": "pbmc:kang_donors",
    "pbmc-citeseq": "proteins:pbmc_citeseq",
    "cbmc-citeseq": "proteins:cbmc_citeseq",
    "cell-mixology": "mixology:cell_mixology",
    "glioblastoma": "tumours:glioblastoma",
    "pancreas-species": "tissues:pancreas_species",
    "dlpfc": "cortex:dlpfc",
    "starmap": "cortex:starmap",
}


def standin(name: str, *, seed: int = 0, part: str | None = None, **options):
    """A small simulated data set with the same columns, layers and meaning as ``scprimer.data.load(name)``, and with its truth.

    The same seed gives the same cells; another seed other cells of the same biology. A stand-in has fewer genes than
    real data and the well-expressed ones among them, so it is less sparse; compare methods on it, not numbers with data.

    Args:
        name: a registered data set that the book's chapters use.
        seed: non-negative whole number.
        part: part of the data set, as for :func:`scprimer.data.load`.
        options: of the stand-in, such as ``n_cells`` (its function in :mod:`scprimer.data.simulate.standins` lists them).

    Returns:
        AnnData (or a DataFrame, where the loader gives one) with ``uns["scprimer"]["simulated"]`` True, and ``uns["truth"]``
        (of a DataFrame: ``.attrs``) holding what the simulation knows: ``cells`` (a row a cell), ``profiles``, ``genes``, ...

    Raises:
        scprimer.data.DataError: an unknown name, part or option, or a data set that has no stand-in yet.
    """
    entry = describe(name)  # an unknown name is suggested the nearest here
    part = entry.check_part(part)
    if name not in STANDINS:
        raise UnknownData(
            f"there is no simulated stand-in for {name!r} yet, which the smoke profile needs: use profile='standard', or "
            f"one of the data sets that have one: {', '.join(sorted(STANDINS))}"
        )
    if isinstance(seed, bool) or int(seed) != seed or seed < 0:
        raise ValueError(f"seed={seed!r}: use a non-negative whole number")
    module, function = STANDINS[name].split(":")
    make = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    accepted = [p for p in inspect.signature(make).parameters if p not in ("seed", "part")]
    for option in options:
        if option not in accepted:
            raise nearest(f"option of the stand-in for {name!r}", option, accepted)
    return make(int(seed), part, **options)
