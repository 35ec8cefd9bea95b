"""Names of cells and genes: as text, unique, in the right place, and those of one organism."""

from __future__ import annotations

import re
from collections.abc import Collection

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.gate import counts, genes
from scprimer.data.gate.report import Report
from scprimer.data.gate.words import some, some_of

_NO_NAME = {"", "nan", "NaN", "NA", "None", "<NA>"}
_ADD_SYMBOLS = """Chapters speak of symbols such as CD3D. A table of both brings them in (part="mouse" for mouse):
    table = scprimer.data.load("gene-annotation", part="human")
    symbols = table["symbol"][~table.index.duplicated()]
    adata.var["gene_symbols"] = symbols.reindex(adata.var_names.str.split(".").str[0]).values"""


def names_as_text(adata: ad.AnnData, report: Report) -> None:
    """Every cell and gene gets a name that is text, without spaces or quotes around it."""
    for axis, what in (("obs_names", "cells"), ("var_names", "genes")):
        names = getattr(adata, axis)
        text = [n if isinstance(n, str) else "" if pd.isna(n) else str(n) for n in names]
        clean = [n.strip().strip("\"'") for n in text]
        if not all(isinstance(n, str) for n in names):
            words = f"Names of {what} are not text but {names.inferred_type} (such as {names[0]!r})."
            report.add(f"names-not-text-{what}", words, "Turned into text.", mended=True)
        untidy = [t for t, c in zip(text, clean) if t != c]
        if untidy:
            words = f"Names of {what} with spaces or quotes at their ends: {len(untidy):,} (such as {untidy[0]!r})."
            report.add(f"names-untidy-{what}", words, "These were taken off.", mended=True)
        nameless = [n in _NO_NAME for n in clean]
        if any(nameless):
            words = f"{what.capitalize()} without a name (empty or 'nan'): {sum(nameless):,}."
            report.add(f"names-missing-{what}", words, "They were named unnamed-1, unnamed-2, ...", mended=True)
            number = np.cumsum(nameless)
            clean = [f"unnamed-{number[i]}" if nameless[i] else name for i, name in enumerate(clean)]
        if clean != list(names):
            setattr(adata, axis, pd.Index(clean, dtype=object, name=names.name))


def cells_in_rows(adata: ad.AnnData, needed: Collection[str] | None, report: Report) -> ad.AnnData:
    """A matrix of genes x cells shows in its names: turned round when the names of both sides say so."""
    rows, columns = some_of(adata.obs_names), some_of(adata.var_names)
    genes_in_rows = genes.gene_share(rows, needed or ()) >= 0.02 and genes.gene_share(columns, needed or ()) == 0
    cells_in_columns = genes.share(columns, genes.BARCODE) > 0.5 > genes.share(rows, genes.BARCODE)
    seen = [f"obs_names are genes ({some(rows)})"] if genes_in_rows else []
    seen += [f"var_names are barcodes of cells ({some(columns)})"] if cells_in_columns else []
    if not seen:
        return adata
    words = f"The matrix is transposed, genes × cells: {' and '.join(seen)}. AnnData holds cells in rows."
    if len(seen) == 2:
        report.add("transposed", words, "Turned round.", mended=True)
        return adata.T
    report.add("transposed", words, 'Turn it round and save it:\n    adata.T.write_h5ad("mine.h5ad")', fatal=True)
    return adata


def name_genes(adata: ad.AnnData, needed: Collection[str] | None, report: Report) -> None:
    """Bring ``var_names`` to symbols (or to Ensembl ids, when ``needed`` are such), and keep ids in ``var["ensembl"]``."""
    names = list(adata.var_names)
    want_ids = needed is not None and genes.share(some_of(needed), genes.ENSEMBL) > 0.5
    if genes.share(some_of(names), genes.PEAK) > 0.5:
        words = f"The columns are regions of the genome, not genes ({some(names)})."
        report.add("peaks", words, "Chapters on genes need counts of genes; those on chromatin take this as it is.")
        return
    both = genes.split_compound(names)
    if both is not None:
        symbols, ids = both
        adata.var_names = pd.Index([i or s for s, i in zip(symbols, ids)] if want_ids else symbols, dtype=object)
        adata.var["ensembl"] = genes.unversioned(ids)
        words = f"Names of genes are a symbol and an Ensembl id in one ({some(names)})."
        done = f"Split: {'ids' if want_ids else 'symbols'} are in var_names, ids in var['ensembl']."
        report.add("compound-names", words, done, mended=True)
    elif genes.share(names, genes.ENSEMBL) > 0.5:
        _from_ensembl(adata, names, want_ids, report)
    else:
        _from_numbers(adata, names, report)
        _keep_ids(adata, want_ids, report)
    _say_mangled(list(adata.var_names), report)


def _from_ensembl(adata: ad.AnnData, names: list[str], want_ids: bool, report: Report) -> None:
    ids = genes.unversioned(names)
    adata.var["ensembl"] = ids
    if want_ids:
        if ids != names:
            adata.var_names = pd.Index(ids, dtype=object)
            words = f"Ensembl ids carry versions ({some(names)})."
            report.add("ensembl-versions", words, "The versions were taken off.", mended=True)
        return
    table, column = adata.var, genes.symbol_column(adata.var)
    if column is None and adata.raw is not None:
        raw = adata.raw.var
        column = genes.symbol_column(raw)
        table = raw[~raw.index.duplicated()].reindex(names)
    if column is None:
        words = f"Genes are named by Ensembl ids ({some(names)}), and no column of var holds symbols."
        report.add("ensembl-ids", words, _ADD_SYMBOLS)
        return
    symbols = genes.symbols(table, column)
    adata.var_names = pd.Index([i if pd.isna(s) else s for s, i in zip(symbols, ids)], dtype=object)
    done = f"Symbols from var[{column!r}] are in var_names, ids in var['ensembl']."
    if symbols.isna().any():
        done += f" Genes without a symbol ({symbols.isna().sum():,}) keep their id."
    report.add("ensembl-ids", f"Genes were named by Ensembl ids ({some(names)}).", done, mended=True)


def _from_numbers(adata: ad.AnnData, names: list[str], report: Report) -> None:
    if not all(name.isdigit() for name in names):
        return
    column = genes.symbol_column(adata.var)
    if column is None:
        words = f"Genes are named by numbers ({some(names)}): their names were lost, or these are Entrez ids."
        report.add("numbers-for-genes", words, "Set adata.var_names to the symbols of the genes and save again.")
        return
    symbols = genes.symbols(adata.var, column)
    adata.var_names = pd.Index([n if pd.isna(s) else s for s, n in zip(symbols, names)], dtype=object)
    words = f"Genes were named by numbers ({some(names)})."
    report.add("numbers-for-genes", words, f"Symbols from var[{column!r}] are in var_names.", mended=True)


def _keep_ids(adata: ad.AnnData, want_ids: bool, report: Report) -> None:
    """Ensembl ids that stand beside symbols go to ``var["ensembl"]``, and into ``var_names`` where they are wanted."""
    column = genes.id_column(adata.var)
    if column is None:
        return
    ids = genes.unversioned(["" if pd.isna(i) else str(i) for i in adata.var[column]])
    adata.var["ensembl"] = ids
    if want_ids:
        adata.var["symbol"] = list(adata.var_names)
        adata.var_names = pd.Index([i or s for s, i in zip(adata.var_names, ids)], dtype=object)
        done = f"Ids from var[{column!r}] are in var_names, symbols in var['symbol']."
        report.add("symbols-for-ids", "Genes were named by symbols where Ensembl ids are needed.", done, mended=True)


def _say_mangled(names: list[str], report: Report) -> None:
    """Names that a program has changed: no list of genes will match them."""
    for code, pattern, what, fix in (
        ("transcripts", genes.TRANSCRIPT, "are transcripts, not genes", "Sum them by gene: methods here expect one column a gene."),
        ("excel-dates", genes.EXCEL_DATE, "are dates: Excel turns gene names such as SEPT2 and MARCH1 into them", "Take the names from the original table."),
        ("r-names", re.compile(r"^(MT|HLA|H2)\.[A-Z0-9]"), "have a dot in place of a dash, as R's make.names leaves them", "Take the original names; in R: read.csv(check.names = FALSE)."),
    ):  # fmt: skip
        hits = [name for name in names if pattern.match(name)]
        if hits:
            report.add(code, f"Names of genes that {what}: {len(hits):,} ({some(hits)}).", fix)


def one_organism(adata: ad.AnnData, wanted: str | None, report: Report) -> ad.AnnData:
    """Say when genes of two organisms are mixed, or when they are not those that are wanted."""
    prefixes = genes.genomes(adata.var_names)
    if prefixes:
        adata = _by_genome(adata, prefixes, wanted, report)
    names = list(adata.var_names)
    ids = list(adata.var["ensembl"].astype(str)) if "ensembl" in adata.var else []
    found = genes.organism(ids if genes.share(ids, genes.ENSEMBL) > 0.5 else names)
    if found == "mixed" and "mixed-organisms" not in report.codes:
        words = f"By their names, some genes are human and some are mouse ({some(names)})."
        fix = "Keep the columns of one organism, and the cells that belong to it:\n    adata = adata[:, adata.var_names.str.isupper()]   # human symbols are in capitals"
        report.add("mixed-organisms", words, fix, fatal=wanted is not None)
    elif wanted and found not in (wanted, "mixed", None):
        words = f"Genes of {wanted} are needed, and these look like those of {found} ({some(names)})."
        fix = (
            f"Give {wanted} data, or map the genes to their orthologues first. Changing the case alone (Actb, ACTB) "
            "finds most of them and is wrong for some."
        )
        report.add("other-organism", words, fix, fatal=True)
    return adata


def _by_genome(adata: ad.AnnData, prefixes: dict[str, np.ndarray], wanted: str | None, report: Report) -> ad.AnnData:
    """Take ``hg19_`` and the like off the names; with two genomes, only where one of them is wanted."""
    organisms = {prefix: genes.organism_of_genome(prefix) for prefix in prefixes}
    if len(set(organisms.values())) > 1:
        words = "Genes of several organisms are in one matrix: "
        words += ", ".join(f"{mask.sum():,} of {organisms[p]} ({p}...)" for p, mask in prefixes.items()) + "."
        kept = [mask for prefix, mask in prefixes.items() if organisms[prefix] == wanted]
        if not kept:
            fix = f"Keep one organism, and the cells that belong to it:\n    adata = adata[:, adata.var_names.str.startswith({next(iter(prefixes))!r})]"
            report.add("mixed-organisms", words, fix, fatal=wanted is not None)
            return adata
        report.add("mixed-organisms", words, f"Only genes of {wanted} are kept. Cells of the other are still there.", mended=True)  # fmt: skip
        adata = adata[:, np.logical_or.reduce(kept)].copy()
        if report.counts:
            adata = counts.without_empty(adata, report)
    names = list(adata.var_names)
    adata.var_names = pd.Index([genes.GENOME.sub("", name) for name in names], dtype=object)
    words = f"Names of genes carry the genome in front ({some(names)})."
    report.add("genome-prefix", words, "It was taken off.", mended=True)
    return adata


def make_unique(adata: ad.AnnData, report: Report) -> None:
    """Number names that occur more than once."""
    for axis, what in (("obs_names", "cells"), ("var_names", "genes")):
        names = getattr(adata, axis)
        again = names.duplicated()
        if not again.any():
            continue
        words = f"Names of {what} that another one has already: {again.sum():,} ({some(names[again].unique())})."
        done = f"Made unique: {names[again][0]}, {names[again][0]}-1, ..."
        copies = _copies(adata, names.duplicated(keep=False)) if what == "cells" else 0
        if copies:
            words += f" The same cell twice, with the very same values: {copies:,}."
            done += " Leave copies out, or one cell ends up in both the training and the test set."
        setattr(adata, axis, ad.utils.make_index_unique(names))
        report.add(f"duplicate-{what}", words, done, mended=True)


def _copies(adata: ad.AnnData, among: np.ndarray) -> int:
    """How many of these cells repeat the name and the values of an earlier one."""
    if adata.X is None or not np.issubdtype(adata.X.dtype, np.number):
        return 0
    rows = sp.csr_matrix(adata.X[among])
    rows.sort_indices()
    seen, copies = set(), 0
    for i, name in enumerate(adata.obs_names[among]):
        part = slice(rows.indptr[i], rows.indptr[i + 1])
        key = (name, rows.indices[part].tobytes(), rows.data[part].tobytes())
        copies += key in seen
        seen.add(key)
    return copies


def enough_genes(adata: ad.AnnData, needed: Collection[str] | None, least: int | None, report: Report) -> None:
    """Whether enough of the genes that the caller works with are there, and if not, what may be the reason."""
    if needed is None:
        return
    needed, names = set(needed), set(adata.var_names)
    least = min(200, -(-len(needed) // 2)) if least is None else least
    shared = len(needed & names)
    if shared >= least:
        return
    words = (
        f"{shared:,} of the {len(needed):,} genes that are needed are there, and it takes at least {least:,}. "
        f"Yours: {some(adata.var_names)}; needed: {some(sorted(needed))}."
    )
    any_case = len({n.upper() for n in needed} & {n.upper() for n in names})
    if any_case >= max(least, 2 * shared):
        fix = (
            "The case of the letters differs, as between mouse (Actb) and human (ACTB): map the genes to their "
            "orthologues, or use data of the other organism."
        )
    elif genes.share(some_of(names), genes.ENSEMBL) > 0.5:
        fix = "Yours are Ensembl ids and symbols are needed. " + _ADD_SYMBOLS
    else:
        fix = "Give data with the whole transcriptome (raw often holds more genes than X), its genes named alike."
    report.add("too-few-shared-genes", words, fix, fatal=True)
