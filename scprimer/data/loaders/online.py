"""Data that can only be had live: nothing here is in the registry, hashed or mirrored, and no chapter depends on it.

Readers of formats are tested on small files; the services themselves are not (they need the internet).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import DownloadError, FormatError, UnknownData
from scprimer.data.loaders import build

KEGG = "https://rest.kegg.jp"


def kegg(organism: str = "hsa", *, service: str = KEGG) -> dict[str, list[int]]:
    """KEGG's pathways as name -> genes (Entrez ids for human, ``"hsa"``, and mouse, ``"mmu"``), asked for live.

    KEGG's licence forbids passing its data on, and allows academic users to ask for it: hence not in the registry. Untested against
    the service itself. ``load("gene-annotation")`` maps Entrez ids to symbols.

    Raises:
        DownloadError: the service does not answer.
        FormatError: it answers in another form than expected.
    """
    names = dict(_rows(_ask(f"{service}/list/pathway/{organism}")))
    found: dict[str, list[int]] = {}
    for pathway, gene in _rows(_ask(f"{service}/link/{organism}/pathway")):
        identifier = pathway.removeprefix("path:")
        name = names.get(identifier, names.get(f"path:{identifier}", identifier)).split(" - ")[0]
        number = gene.removeprefix(f"{organism}:")
        if not number.isdigit():
            raise FormatError(f"KEGG names a gene {gene!r}: Entrez ids, as for hsa and mmu, were expected")
        found.setdefault(name, []).append(int(number))
    return found


def census(organism: str, obs_value_filter: str, **options: Any) -> ad.AnnData:
    """Cells of CZ CELLxGENE Discover's census, raw counts, through the package cellxgene-census. Untested offline.

    Args:
        organism: ``"Homo sapiens"`` or ``"Mus musculus"``.
        obs_value_filter: which cells, such as ``"tissue == 'lung' and is_primary_data == True"``: name few, or the download is huge.
        options: passed to ``cellxgene_census.get_anndata``; ``census_version`` (pin it) goes to ``open_soma``.

    Raises:
        UnknownData: the package is not installed.
    """
    try:
        import cellxgene_census
    except ImportError as error:
        raise UnknownData(
            "the census needs a package that scprimer does not install: pip install cellxgene-census"
        ) from error
    version = options.pop("census_version", "stable")
    with cellxgene_census.open_soma(census_version=version) as held:
        adata = cellxgene_census.get_anndata(held, organism=organism, obs_value_filter=obs_value_filter, **options)
    adata.X = build.as_counts(adata.X)
    return adata


def tenx_h5(path: str | Path) -> Any:
    """A Cell Ranger or Space Ranger ``filtered_feature_bc_matrix.h5``, such as a 10x multiome or a Visium section.

    Returns:
        AnnData with raw counts when all features are of one kind, else a MuData with one modality a kind (``rna`` for gene
        expression, ``atac`` for peaks, ``protein`` for antibodies). ``var["ensembl"]``: the features' ids.

    Raises:
        FormatError: it is no such file.
    """
    import h5py

    try:
        with h5py.File(path) as held:
            group = held["matrix"]
            shape = tuple(int(n) for n in group["shape"][:])
            x = sp.csc_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=shape)
            barcodes = _text(group["barcodes"])
            ids, names, kinds = (_text(group["features"][key]) for key in ("id", "name", "feature_type"))
    except (OSError, KeyError) as error:
        raise FormatError(
            f"{Path(path).name} is no feature-barcode matrix of Cell Ranger 3 or later ({error})"
        ) from error
    var = pd.DataFrame({"ensembl": ids, "feature_type": kinds}, index=names)
    modalities = {}
    for kind in dict.fromkeys(kinds):
        rows = np.array([k == kind for k in kinds])
        modalities[_MODALITIES.get(kind, kind)] = build.counts(x[rows].T, barcodes, var[rows])
    if len(modalities) == 1:
        return next(iter(modalities.values()))
    import mudata

    with mudata.set_options(pull_on_update=False):
        return mudata.MuData(modalities)


_MODALITIES = {"Gene Expression": "rna", "Peaks": "atac", "Antibody Capture": "protein"}


def _text(dataset: Any) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in dataset[:]]


def _ask(url: str) -> str:
    import requests

    try:
        answer = requests.get(url, timeout=60)
    except requests.RequestException as error:
        raise DownloadError(f"{url} cannot be reached: check the network") from error
    if not answer.ok:
        raise DownloadError(f"{url} answered {answer.status_code} {answer.reason}: the service may have changed")
    return answer.text


def _rows(text: str) -> list[tuple[str, str]]:
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    if any(len(row) < 2 for row in rows):
        raise FormatError("KEGG answered in another form than expected (two columns, separated by a tab)")
    return [(row[0], row[1]) for row in rows]
