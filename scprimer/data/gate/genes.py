"""Names of genes and cells: which kind they are, where a table keeps another kind, and whose genes they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

ENSEMBL = re.compile(r"^(ENS[A-Z]{0,5}G\d{11}(\.\d+)?(_PAR_Y)?|FBgn\d{7}|WBGene\d{8})$")
TRANSCRIPT = re.compile(r"^ENS[A-Z]{0,5}T\d{11}(\.\d+)?$")
BARCODE = re.compile(r"(?<![A-Za-z])[ACGT]{8,}(?![A-Za-z])")
PEAK = re.compile(r"^(chr)?[0-9XYMTUn]\w{0,20}[:_-]\d+[-_:]\d+$", re.IGNORECASE)
EXCEL_DATE = re.compile(r"^(\d{1,2}-(Mar|Sep|Dec|Sept|März|Mrz|Dez)|(MAR|SEP|DEC)-\d{1,2}|20\d\d-(03|09|12)-\d\d.*)$", re.IGNORECASE)  # fmt: skip
GENOME = re.compile(r"^(hg19|hg38|GRCh37|GRCh38|mm9|mm10|mm39|GRCm38|GRCm39|rn6|danRer11)_+(?=.)", re.IGNORECASE)

# Prefixes of symbols that any matrix of a mammal's genes holds many of, and no list of cells does.
_FAMILIES = re.compile(
    r"^((MT-|RPL\d|RPS\d|HLA-|H2-|LINC\d|ZNF\d|ZFP\d|KRT\d|CXCL\d|CXCR\d|CCL\d|TMEM\d|SLC\d+A|FAM\d|COL\d+A\d|CCDC\d|IL\d+R|CD\d+[A-Z]?$)"
    r"|(ACTB|GAPDH|B2M|MALAT1|TMSB4X|EEF1A1|VIM|FTL|FTH1|XIST|NKG7|LYZ|MS4A1|PPBP|GNLY|S100A\d)$)",
    re.IGNORECASE,
)

SYMBOL_COLUMNS = (
    "feature_name", "gene_symbols", "gene_symbol", "symbol", "symbols", "gene_name", "gene_names", "gene_short_name",
    "hgnc_symbol", "mgi_symbol", "external_gene_name", "genesymbol", "name", "names", "gene", "genes", "features",
)  # fmt: skip
ID_COLUMNS = (
    "ensembl", "gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl_gene_id", "ensembl_gene", "feature_id",
    "gene_ensembl", "accession", "ensg", "id", "ids",
)  # fmt: skip

_ORGANISM_OF_GENOME = {"hg": "human", "gr": "human", "mm": "mouse", "rn": "rat", "da": "zebrafish"}


def share(names: Iterable[str], pattern: re.Pattern) -> float:
    """Share of the names in which the pattern is found."""
    hits = [bool(pattern.search(n)) for n in names]
    return float(np.mean(hits)) if hits else 0.0


def gene_share(names: Iterable[str], genes: Collection[str] = ()) -> float:
    """Share of the names that are certainly genes: Ensembl ids, common families, or among ``genes``."""
    genes = set(genes)
    hits = [n in genes or bool(ENSEMBL.match(n)) or bool(_FAMILIES.match(n)) for n in names]
    return float(np.mean(hits)) if hits else 0.0


def plain(column: object) -> str:
    """A column's name without case, spaces, dots, dashes and underscores, so that spellings compare equal."""
    return re.sub(r"[\s._\-]+", "", str(column)).lower()


def columns_named(table: pd.DataFrame, wanted: Iterable[str]) -> list[str]:
    """The table's columns whose names spell one of ``wanted``, best first."""
    return list(dict.fromkeys(c for w in wanted for c in table.columns if plain(c) == plain(w)))


def symbol_column(var: pd.DataFrame) -> str | None:
    """The column of ``var`` that holds gene symbols: a usual name, text, mostly filled, and not ids."""
    for column in columns_named(var, SYMBOL_COLUMNS):
        names = _text(var[column])
        if names.notna().mean() > 0.5 and share(names.dropna(), ENSEMBL) < 0.5 and names.nunique() > 0.2 * len(names):
            return column
    return None


def id_column(var: pd.DataFrame) -> str | None:
    """The column of ``var`` that holds Ensembl ids."""
    for column in columns_named(var, ID_COLUMNS):
        names = _text(var[column])
        if names.notna().mean() > 0.5 and share(names.dropna(), ENSEMBL) > 0.5:
            return column
    return None


def symbols(var: pd.DataFrame, column: str) -> pd.Series:
    """The symbols of a column as text, missing where there is none; a compound ``CD3D_ENSG...`` gives its symbol."""
    names = _text(var[column])
    both = split_compound(list(names.dropna()))
    if both is not None:
        names[names.notna()] = both[0]
    return names


def unversioned(names: Iterable[str]) -> list[str]:
    """Ensembl ids without their version: ``ENSG00000167286.9`` -> ``ENSG00000167286``; other names as they are."""
    return [re.sub(r"^(ENS[A-Z]{0,5}[GT]\d{11})\.\d+", r"\1", n) for n in names]


def split_compound(names: list[str]) -> tuple[list[str], list[str]] | None:
    """Symbols and ids when most names are a pair of both, such as ``CD3D_ENSG00000167286``; None otherwise."""
    pairs = [re.split(r"[_|;,: ]+(?=ENS[A-Z]{0,5}G\d{11})|(?<=\d{11})[_|;,: ]+", n, maxsplit=1) for n in names]
    if not pairs or np.mean([len(p) == 2 for p in pairs]) < 0.5:
        return None
    symbol, ids = [], []
    for name, pair in zip(names, pairs):
        first, second = pair if len(pair) == 2 else (name, "")
        swapped = bool(ENSEMBL.match(first)) and not ENSEMBL.match(second)
        symbol.append((second if swapped else first) or name)
        ids.append(first if swapped else second)
    return symbol, ids


def genomes(names: Iterable[str]) -> dict[str, np.ndarray]:
    """Genome prefix as it is written (``"hg19_"``, ``"GRCh38___"``) -> mask of the names that carry it."""
    found = [(m.group(0) if (m := GENOME.match(n)) else "") for n in names]
    found = np.array(found, dtype=object)
    return {str(g): found == g for g in dict.fromkeys(found) if g}


def organism_of_genome(prefix: str) -> str:
    """``"hg19_"`` -> ``"human"``, ``"mm10_"`` -> ``"mouse"``."""
    if prefix.lower().startswith("grcm"):
        return "mouse"
    return _ORGANISM_OF_GENOME[prefix[:2].lower()]


def organism(names: Iterable[str]) -> str | None:
    """Whose genes these are by their names: ``"human"``, ``"mouse"``, ``"mixed"``, or None when the names do not tell.

    Ensembl ids tell by their prefix. Symbols tell by their case: human ``ACTB``, mouse (and rat) ``Actb``.
    """
    ids = [n for n in names if ENSEMBL.match(n)]
    if len(ids) > 0.5 * max(len(list(names)), 1):
        human, mouse = share(ids, re.compile("^ENSG")), share(ids, re.compile("^ENSMUSG"))
        human_least = mouse_least = 0.9
    else:
        symbol = [n for n in names if not ENSEMBL.match(n) and len(re.findall("[A-Za-z]", n)) >= 3 and n[0].isalpha()]
        if len(symbol) < 10:
            return None
        human = float(np.mean([n == n.upper() for n in symbol]))
        mouse = float(np.mean([n[0].isupper() and n[1:] == n[1:].lower() for n in symbol]))
        human_least, mouse_least = 0.8, 0.6  # mouse symbols such as mt-Co1 or Gm1234Rik are neither
    if human > 0.1 and mouse > 0.1:
        return "mixed"
    return "human" if human >= human_least else "mouse" if mouse >= mouse_least else None


def _text(column: pd.Series) -> pd.Series:
    """The column as text, with everything that means "none" missing; all missing when it holds numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return pd.Series(np.nan, index=column.index, dtype=object)
    names = column.astype(object).where(column.notna(), np.nan)
    names = names.map(lambda n: str(n).strip(), na_action="ignore")
    return names.where(~names.isin(["", "nan", "NaN", "NA", "None", "-", "---"]), np.nan)
