"""Interventions: knock-outs, activations, drugs, pooled screens."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scprimer.data.loaders import build, hdf5, rfiles


def papalexi(folder: Path) -> ad.AnnData:
    """Knock-outs in THP-1 cells (ECCITE-seq), raw: 20,729 cells x 299 genes, with the guides' UMIs.

    ``obsm["guides"]``: UMIs of 110 guides (csr); their names and targets are rows of ``uns["guides"]``. ``obs``: ``replicate``
    (also as ``batch``), ``guide`` and ``target`` (called here as the guide with the most UMIs: check that before you trust
    it), ``guide_umi`` (its UMIs), ``guide_share`` (of the cell's guide UMIs). ``"non-targeting"`` guides are the control.
    """
    held = rfiles.only(folder / "lowmoi_example_data.rda")
    x, genes, _ = rfiles.matrix(held["response_matrix"])
    guides, names, _ = rfiles.matrix(held["grna_matrix"])
    targets = rfiles.frame(held["grna_target_data_frame"]).set_index("grna_id")["grna_target"].astype(str)
    umis = build.as_counts(guides.T)
    total = np.asarray(umis.sum(axis=1)).ravel()
    best = np.asarray(umis.argmax(axis=1)).ravel()
    most = umis.max(axis=1).toarray().ravel()
    called = np.where(most > 0, np.asarray(names, dtype=object)[best], None)
    replicate = rfiles.frame(held["extra_covariates"])["bio_rep"].astype(str)
    obs = pd.DataFrame(
        {
            "replicate": build.categorical(replicate),
            "batch": build.categorical(replicate),
            "guide": build.categorical(called),
            "target": build.categorical([None if g is None else targets[g] for g in called]),
            "guide_umi": most.astype(int),
            "guide_share": most / np.maximum(total, 1),
        },
        index=[f"cell_{i}" for i in range(x.shape[1])],
    )
    table = pd.DataFrame({"target": targets.loc[names].to_numpy()}, index=names)
    return build.counts(x.T, obs, genes, obsm={"guides": umis}, uns={"guides": table})


def perturbench(folder: Path) -> ad.AnnData:
    """Activations in K562 (Norman) and knock-downs in three glioblastoma lines (McFaline): 5,961 cells x 500 genes.

    ``X``: counts, restored from log-normalised values (kept in ``layers["lognorm"]``). For K562 the cells' totals fix the
    scale; for the other lines each cell's smallest value is taken for a count of one. ``obs``: ``perturbation`` (control, singles, pairs as
    ``A+B``), ``n_perturbed`` (0, 1, 2 genes), ``cell_line``, ``study`` (norman19, mcfaline23), ``perturbation_type``, ``n_umi`` and ``n_genes`` (over all genes).
    """
    held = hdf5.read_h5ad(folder / "devel.h5ad")
    norman = (held.obs["dataset"] == "norman19").to_numpy()
    # Totals of the other study were taken over other genes than those it was normalised by: of no use for the scale.
    totals = np.where(norman, held.obs["ncounts"], np.nan)
    x, share = build.restore_counts(held.X, totals=totals)
    name = held.obs["perturbation"].astype(str)
    obs = pd.DataFrame(
        {
            "perturbation": build.categorical(name),
            "n_perturbed": np.where(name == "control", 0, name.str.count(r"\+") + 1),
            "cell_line": build.categorical(held.obs["cell_type"].astype(str).replace("k562", "K562")),
            "study": build.categorical(held.obs["dataset"]),
            "batch": build.categorical(held.obs["dataset"]),
            "perturbation_type": build.categorical(held.obs["perturbation_type"]),
            "n_umi": held.obs["ncounts"].to_numpy(),
            "n_genes": held.obs["ngenes"].to_numpy(),
        },
        index=list(held.obs_names),
    )
    layers = {"lognorm": sp.csr_matrix(held.X, dtype=np.float32)}
    return build.counts(x, obs, list(held.var_names), layers=layers, uns={"scprimer": {"recovered": float(share)}})


def glioblastoma(folder: Path) -> ad.AnnData:
    """Slices of glioblastoma with and without panobinostat, raw: 5,000 cells x 300 genes, five patients.

    ``obs``: ``donor``, ``condition`` (control, panobinostat), ``sample``. Age, sex and tumour site, which could help to
    recognise a patient, are not loaded. ``var["ensembl"]``; names are symbols.
    """
    assays, genes, cells = rfiles.experiment(rfiles.only(folder / "glioblastoma_example_data.rda"))
    obs = pd.DataFrame(
        {
            "donor": build.categorical(cells["patient_id"]),
            "condition": build.categorical(cells["condition"].replace("ctrl", "control")),
            "sample": build.categorical(cells["sample_id"]),
            "batch": build.categorical(cells["sample_id"]),
        },
        index=cells["sample_id"] + "_" + cells.index,
    )
    var = pd.DataFrame({"ensembl": genes["gene_id"].to_numpy()}, index=genes["symbol"].to_numpy())
    return build.counts(assays["counts"].T, obs, var)


def hap1_screen(folder: Path) -> dict[str, pd.DataFrame | list[str]]:
    """A genome-wide knock-out screen in HAP1 cells, raw guide counts.

    Returns:
        ``counts``: a table with one row a guide (71,090): ``sequence``, ``gene``, ``T0``, ``T18A``, ``T18B``, ``T18C``;
        ``essential`` (684 genes) and ``nonessential`` (927, SLC34A1 among them twice): the lists of known truth; 646 and 797 of
        these genes are in the library.
    """
    table = pd.read_csv(folder / "reads_hap1.txt", sep="\t")
    table.columns = ["sequence", "gene", *(c.removeprefix("HAP1_") for c in table.columns[2:])]
    for column in table.columns[2:]:
        table[column] = _whole(table[column])
    return {
        "counts": table,
        "essential": pd.read_csv(folder / "CEGv2.txt", sep="\t")["GENE"].tolist(),
        "nonessential": pd.read_csv(folder / "NEGv1.txt", sep="\t")["GENE"].tolist(),
    }


def leukemia_screen(folder: Path) -> pd.DataFrame:
    """A knock-out screen in two leukaemia lines: one row a guide (9,999), raw counts.

    Columns: ``guide``, ``gene`` (1,000), ``HL60_initial``, ``KBM7_initial``, ``HL60_final``, ``KBM7_final``.
    """
    table = pd.read_csv(folder / "leukemia.new.csv")
    table.columns = ["guide", "gene", *(c.replace(".", "_") for c in table.columns[2:])]
    return table


def guide_efficacy(folder: Path) -> pd.DataFrame:
    """How well guides cut: 5,310 measurements of 4,379 sequences of 30 bases.

    Columns: ``sequence``, ``gene`` (17), ``peptide_percent`` and ``cut_position`` (where in the protein the cut falls), ``drug`` (the
    selection; sequences occur under several), ``score`` (rank of efficacy within gene and drug, 0 to 1), ``score_top`` (1 for the
    best fifth), ``source_prediction`` (what the source's own model predicts: not for training).
    """
    table = pd.read_csv(folder / "FC_plus_RES_withPredictions.csv", index_col=0)
    names = {
        "30mer": "sequence",
        "Target gene": "gene",
        "Percent Peptide": "peptide_percent",
        "Amino Acid Cut position": "cut_position",
        "score_drug_gene_rank": "score",
        "score_drug_gene_threshold": "score_top",
        "drug": "drug",
        "predictions": "source_prediction",
    }
    table = table.rename(columns=names)[list(names.values())]
    return table.astype({"score_top": int, "cut_position": int})


def _whole(column: pd.Series) -> pd.Series:
    values = column.to_numpy()
    build.as_counts(values[None, :])  # raises when these are no counts
    return column.astype("int64")
