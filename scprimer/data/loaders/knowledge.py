"""What is known beforehand: gene sets, regulators, receptors, motifs, annotation, promoters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from scprimer.data.errors import FormatError
from scprimer.data.loaders import rfiles
from scprimer.data.loaders.text import read_gmt, read_pfm


def gene_sets(folder: Path, part: str) -> dict[str, list[str]]:
    """Gene sets as name -> symbols: ``part="hallmark"`` (50 of MSigDB) or ``"go-bp"`` (6,036 biological processes of GO)."""
    return read_gmt(
        folder / {"hallmark": "h.all.v7.0.symbols.gmt", "go-bp": "enrichr.GO_Biological_Process_2021.gmt"}[part]
    )


def trrust(folder: Path) -> pd.DataFrame:
    """Regulators and what they regulate, from the literature: 9,396 rows.

    Columns: ``tf`` (795), ``target``, ``mode`` (Activation, Repression, Unknown), ``pmid`` (``;`` between several). A pair can
    occur with several modes.
    """
    names = ["tf", "target", "mode", "pmid"]
    return pd.read_csv(folder / "trrust_rawdata.human.tsv", sep="\t", header=None, names=names, dtype=str)


def pathways(folder: Path) -> pd.DataFrame:
    """Pathways as sets of Entrez ids: 1,862 rows.

    Columns: ``name``, ``source`` (reactome, wikipathways, pid), ``licence`` (of that row), ``url``, ``genes`` and
    ``coding_genes`` (lists of whole numbers). Index: identifiers. :func:`gene_annotation` maps Entrez ids to symbols.
    """
    table = pd.read_csv(folder / "pathways.tsv", sep="\t", index_col="identifier", keep_default_na=False)
    table = table.rename(columns={"license": "licence"})
    for column in ("genes", "coding_genes"):
        table[column] = [[int(g) for g in genes.split("|")] if genes else [] for genes in table[column]]
    return table[["name", "source", "licence", "url", "genes", "coding_genes"]]


def gene_annotation(folder: Path, part: str) -> pd.DataFrame:
    """Ensembl's genes: ``part="human"`` (GRCh38) or ``"mouse"`` (GRCm38). Index: Ensembl ids.

    Columns: ``symbol``, ``entrez`` (missing where there is none), ``chromosome``, ``start``, ``end``, ``strand`` (1, -1), ``biotype``, ``description``.
    A gene with several Entrez ids has several rows.
    """
    table = rfiles.frame(rfiles.only(folder / {"human": "grch38.rda", "mouse": "grcm38.rda"}[part]))
    table["entrez"] = table["entrez"].astype("Int64")
    return table.rename(columns={"chr": "chromosome"}).set_index("ensgene")


def ligand_receptor(folder: Path, part: str) -> dict[str, pd.DataFrame]:
    """Pairs of ligands and receptors, as tables by name.

    ``part="cellchat-human"`` (3,233 interactions), ``"cellchat-mouse"`` (3,379): ``interaction``, ``complex`` (subunits), ``cofactor``,
    ``geneInfo``. ``part="cellphonedb"``: ``interaction`` (2,911), ``complex``, ``gene``, ``protein``, ``transcription_factor``.
    """
    if part == "cellphonedb":
        names = ("interaction", "complex", "gene", "protein", "transcription_factor")
        return {name: pd.read_csv(folder / f"{name}_input.csv", low_memory=False) for name in names}
    species = part.removeprefix("cellchat-")
    held = rfiles.only(folder / f"CellChatDB.{species}.rda")
    return {str(name): rfiles.frame(table) for name, table in held.items()}


def motifs(folder: Path) -> dict[str, dict[str, np.ndarray] | pd.DataFrame]:
    """JASPAR 2022, vertebrates.

    Returns:
        ``matrices``: name, such as ``"MA0004.1.Arnt"`` -> counts, positions x 4 (A, C, G, T), 838 of them; ``factors``: a table
        ``motif``, ``factor``, ``evidence``, ``curated`` that says which transcription factors bind a motif.
    """
    # The file's names say the identifier twice: "MA0004.1_MA0004.1.Arnt".
    matrices = {
        name.split("_", 1)[1]: matrix for name, matrix in read_pfm(folder / "JASPAR2022_vertebrates.pfm").items()
    }
    factors = pd.read_csv(folder / "JASPAR2022_vertebrates.motif2factors.txt", sep="\t", keep_default_na=False)
    factors.columns = [c.lower() for c in factors.columns]
    factors["motif"] = factors["motif"].str.split("_", n=1).str[1]
    factors["factor"] = factors["factor"].str.replace(r"^MA\d+\.\d+\.", "", regex=True)
    if set(factors["motif"]) != set(matrices):
        raise FormatError("the table of factors and the matrices do not name the same motifs")
    return {"matrices": matrices, "factors": factors}


def cell_cycle_genes(folder: Path) -> dict[str, list[str]]:
    """Genes of the cell cycle's phases: ``s`` (43) and ``g2m`` (54)."""
    genes = (folder / "regev_lab_cell_cycle_genes.txt").read_text(encoding="utf-8").split()
    return {"s": genes[:43], "g2m": genes[43:]}


def promoters(folder: Path) -> pd.DataFrame:
    """Promoters with a TATA box: 2,929 human and 3,086 mouse sequences of 300 bases.

    Columns: ``sequence``, ``organism``. All are positives: make negatives by shuffles that keep dinucleotides.
    """
    blocks = []
    for organism, file in (("human", "hs_pos_TATA.txt"), ("mouse", "mm_pos_TATA.txt")):
        sequences = (folder / file).read_text(encoding="ascii").split()
        if any(len(s) != 300 or set(s) - set("ACGT") for s in sequences):
            raise FormatError(f"{file}: sequences of 300 bases were expected")
        blocks.append(pd.DataFrame({"sequence": sequences, "organism": organism}))
    return pd.concat(blocks, ignore_index=True)
