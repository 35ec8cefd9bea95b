"""Droplets rather than cells: species mixtures, hashtags, empty droplets."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.errors import FormatError
from scprimer.data.loaders import build, rfiles


def barnyard(folder: Path) -> ad.AnnData:
    """A mixture of human and mouse cells, raw and unfiltered: 737,280 barcodes x 60,736 genes of both species.

    ``var``: ``species`` (human, mouse), ``ensembl``, ``symbol``; names carry ``hg19_`` or ``mm10_`` as in the file. Nearly all
    barcodes are empty droplets: call cells first. Counts of the other species in a cell are ambient RNA.
    """
    import zarr

    group = zarr.open_group(str(folder / "hgmm_100.zarr"), mode="r")
    barcodes, blocks, tables = None, [], []
    for genome, species in (("hg19", "human"), ("mm10", "mouse")):
        held = group[genome]
        n_genes, n_barcodes = (int(n) for n in held["shape"][:])
        found = sp.csc_matrix((held["data"][:], held["indices"][:], held["indptr"][:]), shape=(n_genes, n_barcodes))
        blocks.append(found.T.tocsr())
        ids = np.char.decode(held["genes"][:], "ascii")
        symbols = np.char.decode(held["gene_names"][:], "ascii")
        tables.append(
            pd.DataFrame(
                {
                    "species": species,
                    "symbol": np.char.replace(symbols, f"{genome}_", "").astype(object),
                    "ensembl": np.char.replace(ids, f"{genome}_", "").astype(object),
                },
                index=symbols.astype(object),
            )
        )
        these = held["barcodes"][:]
        if barcodes is not None and not np.array_equal(barcodes, these):
            raise FormatError("the two genomes of the mixture do not list the same barcodes")
        barcodes = these
    var = pd.concat(tables)
    var["species"] = build.categorical(var["species"])
    names = np.char.decode(barcodes, "ascii").astype(object)
    return build.counts(sp.hstack(blocks, format="csr"), pd.DataFrame(index=names), var)


def cell_hashing(folder: Path) -> ad.AnnData:
    """Hashtag counts of eight pooled samples: 15,113 barcodes x 8 tags, raw; nobody says which barcode is what."""
    x, barcodes, tags = rfiles.matrix(rfiles.only(folder / "stoeckius_pbmc.RData"))
    var = pd.DataFrame({"feature_type": build.categorical(["hashtag"] * len(tags))}, index=tags)
    return build.counts(x, barcodes, var)


def csf_hashing(folder: Path) -> pd.DataFrame:
    """One hashtag of a pool of two samples, beside the samples' genotypes: 2,590 droplets (rows).

    Columns: ``hto`` (counts of the tag), ``n_genes`` (genes detected), ``genotype`` (``"0"`` or ``"1"``: which of the two genotypes, or
    ``"doublet"``: both), ``freemuxlet`` (the caller's own words), ``log_probability`` of the call (natural logarithm).
    """
    held = rfiles.frame(rfiles.only(folder / "csf.RData"))
    calls = held["freemuxlet"].astype(str)
    first, second = calls.str.split(",").str[0], calls.str.split(",").str[1]
    return pd.DataFrame(
        {
            "hto": held["HTO"].astype("int64"),
            "n_genes": held["NumGenes"].astype("int64"),
            "genotype": build.categorical(first.where(first == second, "doublet")),
            "freemuxlet": build.categorical(calls),
            "log_probability": held["freemuxlet.prob"],
        }
    )


def pbmc_adt_background(folder: Path, part: str) -> ad.AnnData:
    """Counts of 87 antibodies in cells and in empty droplets, raw.

    ``part``: ``"droplets"`` (both), ``"cells"`` (2,872), ``"empty"`` (8,005). ``obs``: ``droplet`` (cell, empty),
    ``lane``. ``var``: ``isotype_control`` (True for the four antibodies that bind nothing), ``feature_type``. Names are
    those of the file without ``_PROT``.
    """
    files = {
        "cell": "raw_pbmc_mtx_example_87ab_citeseq_Tsang.rda",
        "empty": "raw_emptydrop_mtx_example_87ab_citeseq_Tsang.rda",
    }
    wanted = {"droplets": ("cell", "empty"), "cells": ("cell",), "empty": ("empty",)}[part]
    blocks, barcodes, kinds, proteins = [], [], [], None
    for kind in wanted:
        x, names, these = rfiles.matrix(rfiles.only(folder / files[kind]))
        if proteins is not None and names != proteins:
            raise FormatError("cells and empty droplets do not list the same antibodies")
        proteins = names
        blocks.append(x.T)
        barcodes += these
        kinds += [kind] * len(these)
    obs = pd.DataFrame(
        {
            "droplet": build.categorical(kinds, ["cell", "empty"]),
            "lane": build.categorical([b.rsplit("_", 1)[1] for b in barcodes]),
        },
        index=barcodes,
    )
    var = pd.DataFrame(
        {
            "isotype_control": ["sotype" in p for p in proteins],
            "feature_type": build.categorical(["protein"] * len(proteins)),
        },
        index=[p.removesuffix("_PROT").strip() for p in proteins],
    )
    return build.counts(sp.vstack(blocks), obs, var)
