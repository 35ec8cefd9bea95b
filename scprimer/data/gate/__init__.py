"""The gate for the reader's own ``.h5ad``: what is wrong is said in plain words, all at once, with what to do about it.

:func:`read` opens a file, mends in memory what can be mended without guessing (raw counts moved into ``X``, empty cells
left out, duplicate names made unique, symbols in place of Ensembl ids), says so, and raises :class:`GateError` with the
whole report when something else stands in the way. :func:`check` looks at an AnnData and only reports. Neither ever
writes to the reader's file or changes the AnnData that it was given.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata as ad

from scprimer.data.gate import counts, filetype, labelling, naming, opening
from scprimer.data.gate.report import GateError, Problem, Report

__all__ = ["GateError", "Problem", "Report", "check", "read"]


@dataclass(frozen=True)
class Wanted:
    """What the caller asks of the data; the fields are the arguments of :func:`read`."""

    need: str = "counts"
    genes: Collection[str] | None = None
    min_shared: int | None = None
    min_cells: int = 10
    organism: str | None = None
    columns: Mapping[str, str] | None = None
    labels: Collection[str] = ()
    recover: bool = False

    def __post_init__(self) -> None:
        if self.need not in ("counts", "any"):
            raise ValueError(f"need={self.need!r}: use 'counts' or 'any'")
        if self.organism not in (None, "human", "mouse"):
            raise ValueError(f"organism={self.organism!r}: use 'human', 'mouse' or None")
        for name in ("genes", "labels"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is a list of names, not one text")


def read(
    path: str | os.PathLike,
    *,
    need: str = "counts",
    genes: Collection[str] | None = None,
    min_shared: int | None = None,
    min_cells: int = 10,
    organism: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Collection[str] = (),
    recover: bool = False,
    quiet: bool = False,
) -> ad.AnnData:
    """Open the reader's ``.h5ad``, check it, mend in memory what can be mended, and say what was found.

    Args:
        path: the file; it is only ever read.
        need: ``"counts"``: raw counts must be there, in ``X``, any layer or ``raw``, and are in ``X`` afterwards.
            ``"any"``: ``X`` stays what it is, and only what no method survives (NaN, infinite, ...) is an error.
        genes: names of genes that the caller works with; the file must share enough of them. Symbols or Ensembl ids:
            ``var_names`` follow.
        min_shared: how many must be shared at least; default: half of ``genes``, at most 200.
        min_cells: how many cells must be left at least.
        organism: ``"human"`` or ``"mouse"`` when the genes must be of that species.
        columns: plain name -> the reader's column of ``obs``, where the gate does not find it by itself, such as
            ``{"cell_type": "my_annotation"}``.
        labels: plain names that must be there with at least two classes, such as ``["cell_type"]``.
        recover: rebuild the counts from log-normalised values where that is exact (each cell's smallest value is one
            count, and all others then are whole numbers) and no raw counts are in the file.
        quiet: do not print the report.

    Returns:
        AnnData, cells x genes. With ``need="counts"``, ``X`` is csr (float32; float64 if a count exceeds 2**24) of raw
        counts. Labels stand under plain names in ``obs``, ids of genes in ``var["ensembl"]`` where they are known.
        ``uns["scprimer"]`` says where the data come from, and holds the report as text.

    Raises:
        GateError: the file cannot be used; its text is the whole report, ``.report`` the same as data.
    """
    wanted = Wanted(need, genes, min_shared, min_cells, organism, columns, labels, recover)
    report = Report(source=Path(os.fspath(path)).name or "the file", path=os.fspath(path))
    _pass(report, filetype.why_not(path))
    path = Path(path).expanduser()
    _pass(report, *opening.check_memory(path))
    with _no_warnings():
        adata = opening.open_h5ad(path, report)
        _pass(report)
        adata = _examine(adata, wanted, report)
    _pass(report)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    before = adata.uns.get("scprimer")
    adata.uns["scprimer"] = {
        "dataset": path.name,
        "part": "",
        "sha256": digest,
        "licence": "your own file",
        "citation": "",
        "x": report.x,
        # A stand-in that was saved to a file stays simulated.
        "simulated": bool(before.get("simulated", False)) if isinstance(before, Mapping) else False,
        "report": str(report),
    }
    if not quiet:
        print(report)
    return adata


def check(
    adata: ad.AnnData,
    *,
    need: str = "counts",
    genes: Collection[str] | None = None,
    min_shared: int | None = None,
    min_cells: int = 10,
    organism: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Collection[str] = (),
    recover: bool = False,
) -> Report:
    """Report on an AnnData (in memory or backed) as :func:`read` would on its file, and leave it as it is.

    The arguments are those of :func:`read`.

    Returns:
        The :class:`Report`: ``report.ok``, ``report.problems``, and ``str(report)`` in plain words.
    """
    wanted = Wanted(need, genes, min_shared, min_cells, organism, columns, labels, recover)
    report = Report(source="this AnnData")
    with _no_warnings():
        _examine(_shallow_copy(adata), wanted, report)
    return report


def _examine(adata: ad.AnnData, wanted: Wanted, report: Report) -> ad.AnnData:
    """Run every check, mending on the way; ``report`` collects what is found, and only an empty matrix ends it early."""
    report.shape = adata.shape
    for n, what in ((adata.n_obs, "cells"), (adata.n_vars, "genes")):
        if n == 0:
            words = f"There are no {what} ({adata.n_obs:,} cells × {adata.n_vars:,} genes)."
            report.add(f"no-{what}", words, f"A filter has removed all {what}: use the file before it.", fatal=True)
    if not report.ok:
        return adata
    naming.names_as_text(adata, report)
    adata = naming.cells_in_rows(adata, wanted.genes, report)
    if wanted.need == "counts":
        adata = counts.settle(adata, wanted.recover, report)
    else:
        counts.check_any(adata, report)
    if report.counts:
        adata = counts.genes_only(adata, report)
        adata = counts.without_empty(adata, report)
    naming.name_genes(adata, wanted.genes, report)
    adata = naming.one_organism(adata, wanted.organism, report)
    naming.make_unique(adata, report)
    naming.enough_genes(adata, wanted.genes, wanted.min_shared, report)
    labelling.find_labels(adata, wanted.columns or {}, wanted.labels, report)
    if adata.n_obs < wanted.min_cells:
        words = f"{adata.n_obs:,} cells are left, and at least {wanted.min_cells:,} are needed."
        report.add("too-few-cells", words, "Give a file with more cells, or filter less.", fatal=True)
    report.shape = adata.shape
    return adata


def _pass(report: Report, *problems: Problem | None) -> None:
    """Note the problems; go no further when something stands in the way."""
    report.problems += [p for p in problems if p is not None]
    if not report.ok:
        raise GateError(report)


def _shallow_copy(adata: ad.AnnData) -> ad.AnnData:
    """The same matrices under a new AnnData, whose tables and names may be changed freely."""
    if adata.isbacked:
        return adata.to_memory()
    copy = ad.AnnData(
        X=adata.X,
        obs=adata.obs,
        var=adata.var,
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        layers=dict(adata.layers),
        raw=None if adata.raw is None else {"X": adata.raw.X, "var": adata.raw.var},
    )
    copy.obs_names, copy.var_names = adata.obs_names, adata.var_names  # the constructor has made them text
    return copy


class _no_warnings(warnings.catch_warnings):
    """The libraries' warnings are kept quiet: the gate says the same in its own words."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
