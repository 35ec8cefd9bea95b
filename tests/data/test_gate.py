"""The gate for the reader's own h5ad: bad files are named in words, mendable ones mended, good ones left as they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scprimer.data import gate
from scprimer.data.errors import DataError
from scprimer.data.gate import opening, values

MARKERS = [
    "CD3D",
    "CD3E",
    "CD8A",
    "MS4A1",
    "LYZ",
    "NKG7",
    "GNLY",
    "PPBP",
    "FCER1A",
    "MT-CO1",
    "MT-ND1",
    "RPL3",
    "RPL7",
    "RPS2",
    "RPS6",
    "ACTB",
    "B2M",
    "GAPDH",
    "HLA-A",
    "HLA-B",
]
SYMBOLS = MARKERS + [f"ZNF{i}" for i in range(100, 200)]
IDS = [f"ENSG{167286 + i:011d}" for i in range(len(SYMBOLS))]
N_CELLS, N_GENES = 60, len(SYMBOLS)


def barcodes(n: int = N_CELLS) -> list[str]:
    rng = np.random.default_rng(1)
    return ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(n)]


def good(seed: int = 0) -> ad.AnnData:
    """Raw counts of 60 cells x 120 genes in canonical csr float32; no cell and no gene is empty."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 2, (N_CELLS, 1))
    counts = rng.poisson(depth * rng.gamma(0.7, 2, N_GENES)).astype(np.float32)
    counts[:, 0] += 1
    counts[0] += 1
    obs = pd.DataFrame({"cell_type": pd.Categorical(np.where(np.arange(N_CELLS) % 3, "T", "B"))}, index=barcodes())
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=SYMBOLS))


def logged(X, target: float | None = 1e4, base: float = np.e) -> sp.csr_matrix:
    X = sp.csr_matrix(X, dtype=np.float64)
    depth = np.asarray(X.sum(axis=1)).ravel()
    out = sp.csr_matrix(sp.diags((target or np.median(depth)) / depth) @ X)
    out.data = np.log1p(out.data) / np.log(base)
    return out.astype(np.float32)


def scaled(X) -> np.ndarray:
    dense = logged(X).toarray()
    return ((dense - dense.mean(0)) / (dense.std(0) + 1e-9)).clip(-10, 10).astype(np.float32)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


# ---- files that cannot be used ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bad:
    """A bad input: how it is made, what the gate must call it, and words that must be in what it says and advises."""

    make: Callable[[Path], Path]
    code: str
    words: tuple[str, ...]
    fix: tuple[str, ...]
    options: dict = field(default_factory=dict)


BAD: dict[str, Bad] = {}


def bad(code: str, words: str | tuple, fix: str | tuple, **options):
    """Register a function that gets a folder and returns the path of a bad file (or the AnnData to write there)."""

    def register(function):
        def make(folder: Path) -> Path:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = function(folder)
                if isinstance(made, ad.AnnData):
                    made.write_h5ad(folder / "mine.h5ad")
                    made = folder / "mine.h5ad"
            return made

        as_tuple = [(x,) if isinstance(x, str) else x for x in (words, fix)]
        BAD[function.__name__.replace("_", "-")] = Bad(make, code, *as_tuple, options)
        return function

    return register


# -- values --
@bad("log-values", ("log-normalised", "10,000", "raw counts are needed"), ("recover=True", "mine.h5ad"))
def log1p_as_counts(folder):
    a = good()
    a.X = logged(a.X)
    return a


@bad("log-values", ("logarithm to base 2",), "recover=True")
def log2_as_counts(folder):
    a = good()
    a.X = logged(a.X, base=2)
    return a


@bad("log-values", ("log-normalised",), "recover=True")
def log1p_without_its_marks_and_few_genes(folder):
    a = good()
    a.X = logged(a.X)
    return a[:, 5:100].copy()


@bad("scaled", ("scaled to mean 0", "raw.X holds log-normalised"), "recover=True")
def scaled_with_log1p_in_raw(folder):
    a = good()
    a.X = logged(a.X)
    a.raw = a
    a.X = scaled(good().X)
    return a


@bad("raw-not-counts", ("raw.X", "not the raw counts that its name promises"), "after log1p")
def log1p_in_raw(folder):
    return scaled_with_log1p_in_raw(folder)


@bad(
    "layer-not-counts",
    ("layers['counts'] is named for counts", "log-normalised"),
    "adata.layers['counts'] = adata.X.copy()",
)
def a_counts_layer_with_log_values(folder):
    a = good()
    a.X = logged(a.X)
    a.layers["counts"] = a.X.copy()
    return a


@bad("scaled", "standard deviation 1", 'adata.layers["counts"]')
def scaled_alone(folder):
    a = good()
    a.X = scaled(a.X)
    return a


@bad("normalised", ("counts per million", "not logged"), "recover=True")
def cpm(folder):
    a = good()
    a.X = sp.csr_matrix(np.expm1(logged(a.X, 1e6).toarray().astype(np.float64)).astype(np.float32))
    return a


@bad("normalised", ("counts times a factor of each cell",), "recover=True")
def divided_by_size_factors(folder):
    a = good()
    a.X = sp.csr_matrix(sp.diags(np.random.default_rng(0).uniform(0.3, 3, a.n_obs)) @ a.X.astype(np.float64))
    return a


@bad("not-integer", ("fractional values", "SoupX", "cell"), "round")
def estimated_counts(folder):
    a = good()
    a.X = a.X.astype(np.float64)
    a.X.data = a.X.data * np.random.default_rng(0).uniform(0.7, 1.3, a.X.nnz) * 30
    return a


@bad("not-integer", ("counts, and fractions in 1 place", "2.5", "gene CD3D"), "round")
def one_half_count(folder):
    a = good()
    a.X[3, 0] = 2.5
    return a


@bad("negative", ("negative values in 1 place", "-3", "gene CD3E"), "subtraction")
def a_negative_count(folder):
    a = good()
    a.X[2, 1] = -3
    return a


@bad("negative", ("negative values in 1 place",), ("int8", "int32"))
def int8_overflow(folder):
    a = good()
    dense = a.X.toarray().astype(np.int64)
    dense[4, 4] = 200
    a.X = dense.astype(np.int8)
    return a


@bad("negative", ("negative and fractional", "residuals"), "Before normalising")
def pearson_residuals(folder):
    a = good()
    X = a.X.toarray()
    mu = X.sum(1, keepdims=True) * X.sum(0) / X.sum()
    a.X = ((X - mu) / np.sqrt(mu + mu**2 / 2)) * 2
    return a


@bad("nan", ("NaN (not a number) in 2 places", "gene CD3D"), "0/0")
def nan_among_counts(folder):
    a = good()
    a.X[0, 0] = np.nan
    a.X[5, 9] = np.nan
    return a


@bad("nan", "NaN", "0/0", need="any")
def nan_where_anything_goes(folder):
    a = good()
    a.X = scaled(a.X)
    a.X[3, 4] = np.nan
    return a


@bad("infinite", ("infinite values in 1 place", "inf in cell"), "division by zero")
def infinite_value(folder):
    a = good()
    a.X[7, 0] = np.inf
    return a


@bad("binary", "yes and no", 'adata.layers["counts"]')
def boolean_matrix(folder):
    a = good()
    a.X = a.X.toarray() > 0
    return a


@bad("all-zero", "nothing but zeros", "before the step that emptied it")
def nothing_but_zeros(folder):
    a = good()
    a.X = sp.csr_matrix(a.shape, dtype=np.float32)
    return a


@bad("no-matrix", "X is empty", "raw counts in X")
def no_matrix(folder):
    a = good()
    return ad.AnnData(obs=a.obs, var=a.var)


@bad("not-numbers", "complex numbers", "raw counts")
def complex_numbers(folder):
    path = _written(good(), folder)
    with h5py.File(path, "a") as file:
        matrix = good().X.toarray().astype(np.complex64)
        del file["X"]
        file["X"] = matrix
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return path


@bad("not-numbers", "text", "raw counts")
def text_for_numbers(folder):
    a = good()
    a.X = np.where(a.X.toarray() > 0, "yes", "n/a").astype(object)
    path = _written(good(), folder)
    with h5py.File(path, "a") as file:
        del file["X"]
        ad.io.write_elem(file, "X", a.X.astype(str).astype(object))
    return path


@bad(
    "log-values",
    "raw counts are needed",
    'adata.layers["spliced"] + adata.layers["unspliced"]',
)
def velocity_layers_only(folder):
    a = good()
    a.layers["spliced"], a.layers["unspliced"] = a.X.copy(), good(1).X
    a.X = logged(a.X)
    return a


# -- shape, names, genes, labels --
@bad("no-cells", ("no cells", "0 cells × 120 genes"), "filter has removed all cells")
def zero_cells(folder):
    return good()[[]].copy()


@bad("no-genes", ("no genes", "60 cells × 0 genes"), "filter has removed all genes")
def zero_genes(folder):
    return good()[:, []].copy()


@bad("too-few-cells", ("60 cells are left", "at least 100"), "more cells", min_cells=100)
def too_few_cells(folder):
    return good()


@bad("transposed", ("genes × cells", "obs_names are genes (CD3D"), "adata.T.write_h5ad")
def transposed_with_plain_cell_names(folder):
    a = good().T
    a.var_names = [f"cell-{i}" for i in range(a.n_vars)]
    return a


@bad("too-few-shared-genes", ("0 of the 120 genes", "at least 60", "Actb"), "orthologues", genes=SYMBOLS)
def mouse_genes_where_human_ones_are_needed(folder):
    a = good()
    a.var_names = [g.capitalize() for g in a.var_names[:-1]] + ["Actb1"]
    return a[:, ::-1].copy()


@bad("other-organism", ("Genes of human are needed", "mouse"), "orthologues", organism="human")
def mouse_by_casing(folder):
    a = good()
    a.var_names = [g.capitalize() for g in a.var_names]
    return a


@bad("other-organism", ("human are needed", "mouse"), "orthologues", organism="human")
def mouse_by_ensembl(folder):
    a = good()
    a.var_names = [i.replace("ENSG", "ENSMUSG") for i in IDS]
    return a


@bad("mixed-organisms", ("some genes are human and some are mouse",), "isupper()", organism="human")
def two_organisms_by_casing(folder):
    a = good()
    a.var_names = [g if i % 2 else g.capitalize() for i, g in enumerate(a.var_names)]
    return a


@bad("too-few-shared-genes", ("0 of the 120", "ENSG", "needed: ACTB"), ("Ensembl ids", "gene_symbols"), genes=SYMBOLS)
def ensembl_ids_without_symbols(folder):
    a = good()
    a.var_names = IDS
    return a


@bad("too-few-shared-genes", ("20 of the 120", "at least 60"), "whole transcriptome", genes=SYMBOLS)
def too_few_shared_genes(folder):
    a = good()
    a.var_names = MARKERS + [f"PEPTIDE{i}" for i in range(100)]
    return a


@bad(
    "no-labels",
    ("No column of obs is plainly the cell type", "leiden", "no truth"),
    "columns={'cell_type': 'kind'}",
    labels=["cell_type"],
)
def clusters_are_no_labels(folder):
    a = good()
    a.obs["leiden"] = a.obs["cell_type"].map({"T": "0", "B": "1"}).values
    a.obs["kind"] = a.obs.pop("cell_type")
    return a


@bad("one-class", "the same cell_type, 'T'", "at least two classes", labels=["cell_type"])
def one_class(folder):
    a = good()
    a.obs["cell_type"] = "T"
    return a


@bad("labels-missing", "every entry is missing", "columns=", labels=["cell_type"])
def labels_all_missing(folder):
    a = good()
    a.obs["cell_type"] = "nan"
    return a


@bad("no-such-column", ("no column 'cel_type'", "cell_type"), "Correct the name", columns={"cell_type": "cel_type"})
def misspelt_column(folder):
    return good()


# -- files --
def _written(a: ad.AnnData, folder: Path, name: str = "mine.h5ad", **how) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a.write_h5ad(folder / name, **how)
    return folder / name


def _file(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@bad("no-file", "no file 'mien.h5ad'", "Did you mean 'mine.h5ad'?")
def misspelt_file(folder):
    _written(good(), folder)
    return folder / "mien.h5ad"


@bad("no-file", "no file 'other.h5ad'", ("holds these", "pbmc.h5ad"))
def missing_file_among_others(folder):
    _written(good(), folder, "pbmc.h5ad")
    return folder / "other.h5ad"


@bad("no-file", "its folder does not exist", "Correct the folder")
def missing_folder(folder):
    return folder / "nowhere" / "mine.h5ad"


@bad("no-file", ("is a link to", "gone.h5ad"), "Mend the link")
def broken_link(folder):
    (folder / "mine.h5ad").symlink_to(folder / "gone.h5ad")
    return folder / "mine.h5ad"


@bad("web-address", "web address", "Download the file first")
def web_address(folder):
    return "https://example.org/mine.h5ad"


@bad("no-file", "path is empty", "path of an .h5ad")
def empty_path(folder):
    return ""


@bad("not-a-file", "pipe or a device", "Write the data to a file")
def a_pipe(folder):
    os.mkfifo(folder / "mine.h5ad")
    return folder / "mine.h5ad"


@bad("folder", "is a folder", "one.h5ad")
def a_folder_of_files(folder):
    (folder / "data").mkdir()
    _file(folder / "data", "one.h5ad", b"x")
    return folder / "data"


@bad("mtx", "10x files (matrix.mtx)", ("sc.read_10x_mtx", "write_h5ad"))
def a_10x_folder(folder):
    (folder / "filtered").mkdir()
    _file(folder / "filtered", "matrix.mtx.gz", b"x")
    return folder / "filtered"


@bad("zarr", "zarr format", ("anndata.read_zarr(", "mine.zarr"))
def a_zarr_store(folder):
    good().write_zarr(folder / "mine.zarr")
    return folder / "mine.zarr"


@bad("empty-file", "0 bytes", "get or write the file again")
def empty_file(folder):
    return _file(folder, "mine.h5ad", b"")


@bad("truncated", ("is cut off", "bytes are there"), "get the file again")
def truncated(folder):
    whole = _written(good(), folder, "whole.h5ad").read_bytes()
    return _file(folder, "mine.h5ad", whole[: len(whole) * 2 // 3])


@bad("damaged", "damaged", "checksum")
def a_damaged_chunk(folder):
    path = _written(good(), folder, compression="gzip")
    with h5py.File(path) as file:
        at = file["X/data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[at.byte_offset : at.byte_offset + at.size] = b"\x00" * at.size
    return _file(folder, "mine.h5ad", bytes(content))


@bad("damaged", "damaged inside", "checksum")
def a_damaged_beginning(folder):
    content = bytearray(_written(good(), folder).read_bytes())
    content[8:96] = b"\xff" * 88
    return _file(folder, "mine.h5ad", bytes(content))


@bad("broken-matrix", "damaged sparse matrix", "write it again from the original")
def sparse_index_out_of_range(folder):
    path = _written(good(), folder)
    with h5py.File(path, "a") as file:
        file["X/indices"][3] = 100_000
    return path


@bad("inconsistent", "do not fit together", "write_h5ad")
def rows_that_do_not_fit(folder):
    path = _written(good(), folder)
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = np.ones((N_CELLS - 1, N_GENES), np.float32)
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return path


@bad("incomplete", "obs is missing", "saving was interrupted")
def without_obs(folder):
    path = _written(good(), folder)
    with h5py.File(path, "a") as file:
        del file["obs"]
    return path


@bad("newer-format", ("version 9.0.0", "newer than the anndata"), "pip install --upgrade anndata")
def a_far_newer_format(folder):
    path = _written(good(), folder)
    with h5py.File(path, "a") as file:
        file.attrs["encoding-version"] = "9.0.0"
    return path


@bad(
    "newer-format", ("obs is stored as 'dataframe' of version 9.0.0", "does not know"), "pip install --upgrade anndata"
)
def a_newer_table(folder):
    path = _written(good(), folder)
    with h5py.File(path, "a") as file:
        file["obs"].attrs["encoding-version"] = "9.0.0"
    return path


@bad("10x", "10x Genomics matrix", ("sc.read_10x_h5(", "mine.h5')"))
def a_10x_h5(folder):
    with h5py.File(folder / "mine.h5", "w") as file:
        for key in ("barcodes", "data", "indices", "indptr", "shape"):
            file[f"matrix/{key}"] = np.arange(3)
    return folder / "mine.h5"


@bad("10x", ("10x Genomics matrix", "old kind"), "genome='hg19'")
def an_old_10x_h5(folder):
    with h5py.File(folder / "mine.h5", "w") as file:
        for key in ("barcodes", "genes", "gene_names", "data", "indices", "indptr", "shape"):
            file[f"hg19/{key}"] = np.arange(3)
    return folder / "mine.h5"


@bad("loom", "loom file", ("sc.read_loom(", "mine.loom"))
def a_loom(folder):
    with h5py.File(folder / "mine.loom", "w") as file:
        file["matrix"] = np.ones((3, 2))
        file.create_group("row_attrs"), file.create_group("col_attrs")
    return folder / "mine.loom"


@bad("h5mu", ("MuData", "2 modalities"), ("mudata.read(", "prot, rna"))
def an_h5mu(folder):
    with h5py.File(folder / "mine.h5mu", "w") as file:
        file.attrs["encoding-type"] = "MuData"
        file.create_group("mod/rna"), file.create_group("mod/prot")
    return folder / "mine.h5mu"


@bad("r-object", "Seurat", ("SeuratDisk::Convert(", "mine.h5seurat"))
def an_h5seurat(folder):
    with h5py.File(folder / "mine.h5seurat", "w") as file:
        file.create_group("assays"), file.create_group("meta.data")
    return folder / "mine.h5seurat"


@bad("table", "pandas table", "pd.read_hdf(")
def a_pandas_store(folder):
    with h5py.File(folder / "mine.h5", "w") as file:
        file.create_group("df").attrs["pandas_type"] = "frame"
    return folder / "mine.h5"


@bad("other-hdf5", ("some other kind", "model_weights"), "X, obs and var")
def another_hdf5(folder):
    with h5py.File(folder / "mine.h5", "w") as file:
        file["model_weights"] = np.ones(3)
    return folder / "mine.h5"


@bad("table", ("text table", "comma-separated"), ("pd.read_csv(", "mine.csv", "sep=','", "add .T"))
def a_csv(folder):
    return _file(folder, "mine.csv", "cell,CD3D,LYZ\nAAA,0,3\n")


@bad("table", ("gzip archive of a text table", "tab-separated"), ("pd.read_csv(", "mine.tsv.gz"))
def a_gzipped_tsv(folder):
    return _file(folder, "mine.tsv.gz", gzip.compress(b"cell\tCD3D\nAAA\t0\n"))


@bad("mtx", "Matrix Market", "sc.read_10x_mtx")
def an_mtx(folder):
    return _file(folder, "matrix.mtx", "%%MatrixMarket matrix coordinate integer general\n2 2 1\n1 1 3\n")


@bad("compressed", "gzip-compressed HDF5", "gunzip mine.h5ad.gz")
def a_gzipped_h5ad(folder):
    return _file(folder, "mine.h5ad.gz", gzip.compress(_written(good(), folder).read_bytes()))


@bad("compressed", ("zip archive", "1 file."), "'inside/mine.h5ad'")
def a_zip(folder):
    with zipfile.ZipFile(folder / "mine.zip", "w") as archive:
        archive.writestr("inside/mine.h5ad", b"x")
    return folder / "mine.zip"


@bad("compressed", "damaged zip", "Download the file itself again")
def a_broken_zip(folder):
    return _file(folder, "mine.zip", b"PK\x03\x04 and then nothing")


@bad("excel", "Excel workbook", ("read_excel", "dates"))
def an_excel_file(folder):
    with zipfile.ZipFile(folder / "mine.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr("xl/workbook.xml", "<x/>")
    return folder / "mine.xlsx"


class Trap:
    """Unpickling this would leave a mark."""

    def __reduce__(self):
        return os.system, ("touch trap-was-sprung",)


@bad("pickle", "pickled Python object", ("run any code", "write_h5ad"))
def a_pickle(folder):
    return _file(folder, "mine.h5ad", pickle.dumps({"adata": Trap()}))


@bad("pickle", "pickled Python object", "run any code")
def an_old_pickle(folder):
    return _file(folder, "mine.pkl", pickle.dumps(Trap(), protocol=0))


@bad("pickle", ("torch file", "pickled"), "run any code")
def a_torch_file(folder):
    with zipfile.ZipFile(folder / "mine.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    return folder / "mine.pt"


@bad("array", "NumPy array", "names")
def a_numpy_array(folder):
    np.save(folder / "mine.npy", np.ones((3, 2)))
    return folder / "mine.npy"


@bad("r-object", "R object (.rds)", ("zellkonverter::writeH5AD", "mine.rds"))
def an_rds(folder):
    return _file(folder, "mine.rds", gzip.compress(b"X\n\x00\x00\x00\x03"))


@bad("web-page", "web page", "Download the file itself again")
def a_web_page(folder):
    return _file(folder, "mine.h5ad", "<!DOCTYPE html><html><title>404</title></html>")


@bad("pointer", "Git LFS pointer", "git lfs pull")
def a_git_lfs_pointer(folder):
    return _file(folder, "mine.h5ad", "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n")


@bad("text", "plain text", "path of an .h5ad")
def plain_text(folder):
    return _file(folder, "mine.h5ad", "some notes on my data\n")


@bad("text", "JSON", "path of an .h5ad")
def a_json(folder):
    return _file(folder, "mine.json", json.dumps({"a": 1}))


@bad("other-file", ("no format that is known", "de ad be ef"), "sc.read_*")
def unknown_bytes(folder):
    return _file(folder, "mine.h5ad", b"\xde\xad\xbe\xef\x00\x00\x00")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_what_to_do(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a sprung trap would leave its mark
    case = BAD[name]
    path = case.make(tmp_path)
    before = sha(Path(path)), sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(gate.GateError) as caught:
        gate.read(path, **case.options)
    assert isinstance(caught.value, DataError)
    report = caught.value.report
    problem = report.find(case.code)
    for part in case.words:
        assert part in problem.words
    for part in case.fix:
        assert part in problem.fix
    assert not report.ok
    # the text of the error holds every problem, not only the first, and it is not printed on top
    shown = " ".join(str(caught.value).split())
    for other in report.problems:
        assert f"[{other.code}]" in shown and " ".join(other.words.split()) in shown
    assert capsys.readouterr().out == ""
    assert before == (sha(Path(path)), sorted(p.name for p in tmp_path.rglob("*"))), "the gate writes nothing"


def test_there_are_enough_different_bad_inputs():
    assert len(BAD) >= 60
    assert len({case.code for case in BAD.values()}) >= 30


def test_every_fatal_code_is_the_reason_of_its_own_case(tmp_path):
    """A case that fails for another reason than its own would prove nothing."""
    beside = {"raw-not-counts", "layer-not-counts"}  # these explain a fatal problem, and are none themselves
    for name, case in BAD.items():
        (folder := tmp_path / name).mkdir()
        with pytest.raises(gate.GateError) as caught:
            gate.read(case.make(folder), **case.options)
        fatal = {p.code for p in caught.value.report.fatal}
        assert case.code in beside or fatal == {case.code}, name


def _as_10x_h5(a: ad.AnnData, path: Path) -> None:
    X = a.X.tocsr()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(a.obs_names, dtype="S")
        group["data"], group["indices"], group["indptr"] = X.data.astype(np.int32), X.indices, X.indptr
        group["shape"] = np.array(X.shape[::-1], dtype=np.int32)
        features = group.create_group("features")
        features["id"], features["name"] = np.array(IDS, dtype="S"), np.array(SYMBOLS, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * N_GENES, dtype="S")
        features["genome"] = np.array(["GRCh38"] * N_GENES, dtype="S")


def _as_10x_folder(a: ad.AnnData, path: Path) -> None:
    from scipy.io import mmwrite

    path.mkdir()
    mmwrite(path / "matrix.mtx", a.X.T.astype(np.int32))
    for name, lines in (
        ("barcodes.tsv", a.obs_names),
        ("features.tsv", [f"{i}\t{s}\tGene Expression" for i, s in zip(IDS, SYMBOLS)]),
    ):
        (path / name).write_text("\n".join(lines) + "\n")
    for file in path.iterdir():
        (path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))


def _as_velocity(a: ad.AnnData, path: Path) -> None:
    a.layers["spliced"], a.layers["unspliced"] = a.X.multiply(0.5).floor().tocsr(), a.X - a.X.multiply(0.5).floor()
    a.X = logged(a.X)
    a.write_h5ad(path)


def _as_log(a: ad.AnnData, path: Path) -> None:
    a.X = logged(a.X)
    a.write_h5ad(path)


OTHER_FORMATS = {
    "counts.csv": lambda a, path: a.to_df().to_csv(path),
    "counts.tsv.gz": lambda a, path: a.to_df().to_csv(path, sep="\t"),
    "counts.zarr": lambda a, path: a.write_zarr(path),
    "counts.h5": _as_10x_h5,
    "filtered_feature_bc_matrix": _as_10x_folder,
    "counts.loom": lambda a, path: a.write_loom(path),
    "logged.h5ad": _as_log,
    "velocity.h5ad": _as_velocity,
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_the_advice_works_when_it_is_followed(tmp_path, monkeypatch, name):
    """The lines of code in the fix, run as they stand, make a file that passes with the same counts."""
    monkeypatch.chdir(tmp_path)
    if name.endswith(".loom"):
        pytest.importorskip("loompy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        OTHER_FORMATS[name](good(), tmp_path / name)
        with pytest.raises(gate.GateError) as caught:
            gate.read(tmp_path / name)
        (problem,) = caught.value.report.fatal
        code = "\n".join(line.strip() for line in problem.fix.splitlines() if line.startswith("    "))
        exec(code, {"adata": ad.read_h5ad(name)} if name == "velocity.h5ad" else {})
    (made,) = tmp_path.glob("mine*.h5ad")
    out = gate.read(made, quiet=True)
    assert same_counts(out.X, good().X)
    assert list(out.obs_names) == barcodes() and list(out.var_names) == SYMBOLS


def test_all_problems_are_said_at_once(tmp_path):
    a = good()
    dense = a.X.toarray()
    dense[0, 0], dense[1, 1], dense[2, 2] = np.nan, -2, np.inf
    a.X = dense
    a.var_names = [g.capitalize() for g in a.var_names]
    a.obs["cell_type"] = "T"
    with pytest.raises(gate.GateError) as caught:
        gate.read(_written(a, tmp_path), organism="human", genes=SYMBOLS, labels=["cell_type"], min_cells=100)
    assert {p.code for p in caught.value.report.fatal} == {
        "nan", "infinite", "negative", "other-organism", "too-few-shared-genes", "one-class", "too-few-cells",
    }  # fmt: skip


@pytest.fixture
def open_folder():
    """A folder that every user may enter, for trying what another user may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_no_permission(open_folder):
    path = _written(good(), open_folder)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything: try as nobody
    try:
        with pytest.raises(gate.GateError, match="no permission") as caught:
            gate.read(path)
    finally:
        if root:
            os.seteuid(0)
    assert "chmod u+r mine.h5ad" in caught.value.report.find("no-permission").fix


def test_a_file_open_for_writing(tmp_path):
    path = _written(good(), tmp_path)
    hold = f"import h5py; f = h5py.File({str(path)!r}, 'a'); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(gate.GateError) as caught:
            gate.read(path)
        other.communicate(b"\n")
    assert "Close it there" in caught.value.report.find("locked").fix


def test_a_file_too_big_for_memory(tmp_path, monkeypatch):
    path = _written(good(), tmp_path)
    monkeypatch.setattr(opening, "free_memory", lambda: 1000)
    with pytest.raises(gate.GateError) as caught:
        gate.read(path)
    problem = caught.value.report.find("too-big")
    assert "1,000" in problem.words or "1.0 kB" in problem.words
    assert 'backed="r"' in problem.fix


def test_a_giant_dense_matrix_is_weighed_before_it_is_loaded(tmp_path, monkeypatch):
    """50,000 x 20,000 float32 is 4 GB dense; the file itself is tiny, since its chunks were never written."""
    path = _written(good(), tmp_path)
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", shape=(50_000, 20_000), dtype=np.float32, chunks=(1000, 1000))
        file["X"][0, :1000] = 1.0
    assert path.stat().st_size < 10_000_000
    monkeypatch.setattr(opening, "free_memory", lambda: 32 * 10**9)
    (problem,) = opening.check_memory(path)
    assert problem.code == "dense-giant" and not problem.fatal
    assert "4.0 GB" in problem.words and "scipy.sparse.csr_matrix" in problem.fix
    monkeypatch.setattr(opening, "free_memory", lambda: 2 * 10**9)
    (problem,) = opening.check_memory(path)
    assert problem.code == "too-big" and problem.fatal


@pytest.mark.parametrize(
    "options", [{"need": "raw"}, {"organism": "yeast"}, {"genes": "CD3D"}, {"labels": "cell_type"}], ids=str
)
def test_wrong_options(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        gate.read(_written(good(), tmp_path), **options)


# ---- files that are mended --------------------------------------------------------------------------------------------
def mend(a: ad.AnnData | Path, folder: Path, code: str, **options) -> ad.AnnData:
    """Read through the gate; the problem must be said as mended, and the file must stay as it is."""
    path = a if isinstance(a, Path) else _written(a, folder)
    before = sha(path)
    out = gate.read(path, quiet=True, **options)
    assert sha(path) == before
    assert f"[{code}]" in out.uns["scprimer"]["report"]
    mended = out.uns["scprimer"]["report"].split("Mended in memory")[1].split("Worth knowing")[0]
    assert f"[{code}]" in mended
    return out


def same_counts(X, wanted) -> bool:
    return isinstance(X, sp.csr_matrix) and X.dtype == np.float32 and (sp.csr_matrix(wanted) != X).nnz == 0


@pytest.mark.parametrize("layer", ["counts", "raw_counts", "UMI", "something", "a 'quoted' name"])
def test_counts_in_a_layer(tmp_path, layer):
    a = good()
    a.layers["magic"] = logged(a.X) * 2
    a.layers[layer] = a.X.copy()
    a.X = logged(a.X)
    a.uns["log1p"] = {"base": None}
    out = mend(a, tmp_path, "counts-elsewhere")
    assert same_counts(out.X, good().X)
    assert layer in out.uns["scprimer"]["report"] and out.uns["scprimer"]["x"] == "raw counts"
    assert "log1p" not in out.uns, "scanpy would warn that the counts are logged already"


def test_counts_in_raw_with_more_genes(tmp_path):
    a = good()
    a.obsm["X_pca"] = np.ones((a.n_obs, 3))
    a.raw = a
    a = a[:, :50].copy()
    a.X = scaled(a.X)
    a.layers["z"] = a.X.copy()
    out = mend(a, tmp_path, "genes-of-raw")
    assert same_counts(out.X, good().X) and list(out.var_names) == SYMBOLS
    assert not out.layers and "X_pca" in out.obsm and list(out.obs["cell_type"]) == list(good().obs["cell_type"])


def test_counts_in_raw_with_the_same_genes_keep_what_hangs_on_genes(tmp_path):
    a = good()
    a.raw = a
    a.X = scaled(a.X)
    a.layers["z"] = a.X.copy()
    a.var["highly_variable"] = True
    out = mend(a, tmp_path, "counts-elsewhere")
    assert same_counts(out.X, good().X) and "z" in out.layers and "highly_variable" in out.var


def test_counts_are_preferred_to_corrected_and_binary_layers(tmp_path):
    a = good()
    a.layers["a_mask"] = (a.X > 0).astype(np.int32)
    a.layers["decontX_counts"] = good(5).X
    a.raw = a
    a.X = logged(a.X)
    out = mend(a, tmp_path, "counts-elsewhere")
    assert same_counts(out.X, good().X) and "raw.X" in out.uns["scprimer"]["report"]


def test_a_matrix_of_zeros_and_ones_gives_way_to_counts(tmp_path):
    a = good()
    a.layers["counts"] = a.X.copy()
    a.X = (a.X > 0).astype(np.float32)
    assert same_counts(mend(a, tmp_path, "counts-elsewhere").X, good().X)


def test_damaged_counts_in_x_give_way_to_whole_ones(tmp_path):
    a = good()
    a.layers["counts"] = a.X.copy()
    a.X[0, 0] = np.nan
    out = mend(a, tmp_path, "counts-elsewhere")
    assert same_counts(out.X, good().X) and "1 of them NaN" in out.uns["scprimer"]["report"]


@pytest.mark.parametrize("base", [np.e, 2, 10])
@pytest.mark.parametrize("target", [1e4, None])
def test_recover_rebuilds_exactly_the_counts(tmp_path, base, target):
    a = good()
    a.X = logged(a.X, target, base)
    out = mend(a, tmp_path, "counts-rebuilt", recover=True)
    assert same_counts(out.X, good().X)
    assert "rebuilt" in out.uns["scprimer"]["x"]


def test_recover_refuses_what_is_not_exact(tmp_path):
    a = good()
    a.X = logged(a.X)
    a.X.data = a.X.data + np.random.default_rng(0).normal(0, 0.05, a.X.nnz).astype(np.float32)
    with pytest.raises(gate.GateError, match="log"):
        gate.read(_written(a, tmp_path), recover=True)


@pytest.mark.parametrize("spatial", [False, True])
def test_empty_cells_are_left_out(tmp_path, spatial):
    a = good()
    keep = np.ones(a.n_obs)
    keep[[3, 8]] = 0
    a.X = sp.csr_matrix(sp.diags(keep.astype(np.float32)) @ a.X)
    if spatial:
        a.obsm["spatial"] = np.arange(2 * a.n_obs, dtype=float).reshape(-1, 2)
    out = mend(a, tmp_path, "empty-cells")
    assert out.n_obs == N_CELLS - 2 and list(out.obs_names) == [b for i, b in enumerate(barcodes()) if i not in (3, 8)]
    assert f"Empty {'spots' if spatial else 'cells'} (a total of 0): 2 of 60" in out.uns["scprimer"]["report"]
    assert not spatial or np.array_equal(out.obsm["spatial"], a.obsm["spatial"][keep > 0])


def test_empty_genes_are_kept_and_said(tmp_path):
    a = good()
    dense = a.X.toarray()
    dense[:, 7] = 0
    a.X = dense
    out = gate.read(_written(a, tmp_path), quiet=True)
    assert (
        out.n_vars == N_GENES and "Empty genes (found in none of the cells): 1 of 120" in out.uns["scprimer"]["report"]
    )


def test_duplicate_genes(tmp_path):
    a = good()
    a.var_names = ["CD3D", "CD3D", *SYMBOLS[2:]]
    out = mend(a, tmp_path, "duplicate-genes")
    assert list(out.var_names[:3]) == ["CD3D", "CD3D-1", "CD8A"]


def test_duplicate_cells_and_copies_of_a_cell(tmp_path):
    a = good()
    names = list(a.obs_names)
    names[1], names[3] = names[0], names[2]
    a.obs_names = names
    a.X = a.X[[0, 1, 2, 2, *range(4, N_CELLS)]]
    out = mend(a, tmp_path, "duplicate-cells")
    assert out.obs_names.is_unique and out.obs_names[1] == f"{names[0]}-1"
    report = " ".join(out.uns["scprimer"]["report"].split())
    assert "another one has already: 2 (" in report and "with the very same values: 1." in report


def test_transposed_is_turned_when_both_sides_say_so(tmp_path):
    a = good()
    turned = a.T.copy()
    out = mend(turned, tmp_path, "transposed")
    assert same_counts(out.X, a.X) and list(out.obs_names) == list(a.obs_names) and "cell_type" in out.obs


def test_a_good_matrix_is_not_called_transposed(tmp_path):
    for names in (barcodes(), [f"cell{i}" for i in range(N_CELLS)], [f"p1_{b}" for b in barcodes()]):
        a = good()
        a.obs_names = names
        assert "transposed" not in gate.check(a).codes


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "Gene Symbol", "gene_name", "gene_short_name"])
@pytest.mark.parametrize("version", ["", ".5"])
def test_ensembl_ids_are_mapped(tmp_path, column, version):
    a = good()
    a.var[column] = pd.Categorical([*SYMBOLS[:-1], None])
    a.var_names = [i + version for i in IDS]
    out = mend(a, tmp_path, "ensembl-ids", genes=SYMBOLS)
    assert list(out.var_names) == [*SYMBOLS[:-1], IDS[-1]] and list(out.var["ensembl"]) == IDS
    assert "Genes without a symbol (1) keep their id" in " ".join(out.uns["scprimer"]["report"].split())


def test_ensembl_ids_without_symbols_are_a_hint_when_no_genes_are_asked_for(tmp_path):
    a = good()
    a.var_names = IDS
    out = gate.read(_written(a, tmp_path), quiet=True)
    assert "[ensembl-ids]" in out.uns["scprimer"]["report"] and list(out.var["ensembl"]) == IDS


def test_the_advice_on_symbols_works(mirror, tmp_path):
    import scprimer

    table = scprimer.data.load("gene-annotation", part="human")
    table = table[~table.index.duplicated() & table["symbol"].str.len().gt(0)][:N_GENES]
    adata = good()
    adata.var_names = [f"{i}.3" for i in table.index]
    fix = gate.check(adata).find("ensembl-ids").fix
    code = "\n".join(line.strip() for line in fix.splitlines() if line.startswith("    "))
    exec(code, {"scprimer": scprimer, "adata": adata})
    out = mend(adata, tmp_path, "ensembl-ids")
    assert list(out.var["ensembl"]) == list(table.index)
    assert np.mean([a == b for a, b in zip(out.var_names, table["symbol"])]) > 0.99


def test_ids_are_taken_where_ids_are_asked_for(tmp_path):
    a = good()
    a.var["gene_ids"] = [i + ".2" for i in IDS]
    out = mend(a, tmp_path, "symbols-for-ids", genes=IDS)
    assert list(out.var_names) == IDS and list(out.var["symbol"]) == SYMBOLS
    out = mend(_versioned(), tmp_path, "ensembl-versions", genes=IDS)
    assert list(out.var_names) == IDS


def _versioned() -> ad.AnnData:
    a = good()
    a.var_names = [f"{i}.7" for i in IDS]
    return a


@pytest.mark.parametrize("form", ["{s}_{i}", "{i}_{s}", "{s}|{i}", "{i}|{s}"])
def test_compound_names_are_split(tmp_path, form):
    a = good()
    a.var_names = [form.format(s=s, i=i) for s, i in zip(SYMBOLS, IDS)]
    out = mend(a, tmp_path, "compound-names", genes=SYMBOLS)
    assert list(out.var_names) == SYMBOLS and list(out.var["ensembl"]) == IDS


def test_a_cellxgene_file(tmp_path):
    """Ids in var_names, symbols in feature_name, log values in X, counts in raw, labels under its own names."""
    a = good()
    a.var["feature_name"] = SYMBOLS
    a.var["feature_type"] = "protein_coding"
    a.var_names = IDS
    a.obs["donor_id"] = pd.Categorical([f"D{i % 2}" for i in range(N_CELLS)])
    a.raw = a
    a.X = logged(a.X)
    out = mend(a, tmp_path, "counts-elsewhere", genes=SYMBOLS, organism="human", labels=["cell_type", "donor"])
    assert (
        same_counts(out.X, good().X) and list(out.var_names) == SYMBOLS and list(out.obs["donor"]) == ["D0", "D1"] * 30
    )


def test_proteins_beside_genes_go_to_obsm(tmp_path):
    a = good()
    a.var["feature_types"] = ["Gene Expression"] * 110 + ["Antibody Capture"] * 10
    out = mend(a, tmp_path, "mixed-features")
    assert out.n_vars == 110 and out.obsm["protein"].shape == (N_CELLS, 10)
    assert np.array_equal(out.obsm["protein"].to_numpy(), good().X[:, 110:].toarray())


def test_two_genomes(tmp_path):
    a = good()
    a.var_names = [f"hg19_{g}" if i % 2 else f"mm10_{g.capitalize()}" for i, g in enumerate(SYMBOLS)]
    report = gate.check(a)
    assert report.ok and "mm10_" in report.find("mixed-organisms").fix
    assert "hg19_" in report.find("mixed-organisms").words
    out = mend(a, tmp_path, "mixed-organisms", organism="human")
    assert list(out.var_names) == SYMBOLS[1::2]


def test_one_genome_prefix_is_taken_off(tmp_path):
    a = good()
    a.var_names = [f"GRCh38_{g}" for g in SYMBOLS]
    assert list(mend(a, tmp_path, "genome-prefix", genes=SYMBOLS).var_names) == SYMBOLS


def test_untidy_and_missing_names(tmp_path):
    a = good()
    a.var_names = ['"CD3D"', " CD3E", "nan", *SYMBOLS[3:]]
    out = mend(a, tmp_path, "names-untidy-genes")
    assert list(out.var_names[:3]) == ["CD3D", "CD3E", "unnamed-1"]
    assert "[names-missing-genes]" in out.uns["scprimer"]["report"]


def test_names_that_are_not_text():
    a = good()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a.obs_names = pd.Index(range(N_CELLS))
    report = gate.check(a)
    assert report.ok and "integer" in report.find("names-not-text-cells").words
    assert list(a.obs_names) == list(range(N_CELLS)), "check leaves the data alone"


def test_numbers_for_genes(tmp_path):
    a = good()
    a.var["gene_symbols"] = SYMBOLS
    a.var_names = [str(i) for i in range(N_GENES)]
    assert list(mend(a, tmp_path, "numbers-for-genes").var_names) == SYMBOLS
    del a.var["gene_symbols"]
    assert "Entrez" in gate.check(a).find("numbers-for-genes").words


def test_an_object_matrix_is_turned_into_numbers():
    a = good()
    a.X = a.X.toarray().astype(object)
    report = gate.check(a)
    assert report.ok and report.find("object-dtype").mended


def test_rounding_errors_are_rounded(tmp_path):
    a = good()
    a.X = a.X.astype(np.float64)
    a.X.data += np.random.default_rng(0).uniform(-1e-5, 1e-5, a.X.nnz)
    assert same_counts(mend(a, tmp_path, "rounding").X, good().X)


def test_huge_counts_stay_exact(tmp_path):
    a = good()
    a.X = a.X.astype(np.float64)
    a.X[0, 0] = 2**24 + 1
    out = gate.read(_written(a, tmp_path), quiet=True)
    assert out.X.dtype == np.float64 and out.X[0, 0] == 2**24 + 1 and "[huge-counts]" in out.uns["scprimer"]["report"]


def test_a_stale_log1p_mark_is_taken_off(tmp_path):
    a = good()
    a.uns["log1p"] = {"base": None}
    assert "log1p" not in mend(a, tmp_path, "log1p-mark").uns


def test_an_unreadable_part_of_uns_is_left_out(tmp_path):
    a = good()
    a.uns["fine"], a.uns["odd"] = 3, 4
    path = _written(a, tmp_path)
    with h5py.File(path, "a") as file:
        file["uns/odd"].attrs["encoding-type"] = "hologram"
    out = mend(path, tmp_path, "unreadable-part")
    assert out.uns["fine"] == 3 and "odd" not in out.uns and same_counts(out.X, good().X)
    assert "uns['odd']" in out.uns["scprimer"]["report"]


def test_a_very_old_file_is_read(tmp_path):
    a, path = good(), tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        file["obs"] = np.array([(b.encode(),) for b in barcodes()], dtype=[("index", "S20")])
        file["var"] = np.array([(g.encode(),) for g in SYMBOLS], dtype=[("index", "S20")])
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", a.shape
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(a.X, part)
    out = gate.read(path, quiet=True)
    assert same_counts(out.X, a.X) and list(out.var_names) == SYMBOLS
    assert "[old-format]" in out.uns["scprimer"]["report"]


# ---- hints ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("names", "code", "words", "fix"),
    [
        (["2-Sep", "MAR-01", *SYMBOLS[2:]], "excel-dates", "are dates", "original table"),
        (["HLA.A", "MT.CO1", *SYMBOLS[2:]], "r-names", "dot in place of a dash", "check.names = FALSE"),
        ([f"ENST{i:011d}" for i in range(N_GENES)], "transcripts", "transcripts, not genes", "Sum them by gene"),
        ([f"chr1:{i}00-{i}99" for i in range(N_GENES)], "peaks", "regions of the genome", "chromatin"),
    ],
    ids=lambda x: x if isinstance(x, str) and "-" in x else None,
)
def test_hints_on_names(names, code, words, fix):
    a = good()
    a.var_names = names
    report = gate.check(a)
    assert report.ok and words in report.find(code).words and fix in report.find(code).fix


def test_same_totals_are_pointed_out():
    a = good()
    X = a.X.toarray()
    X[:, 0] += 1000 - X.sum(axis=1)
    a.X = X
    assert "1,000" in gate.check(a).find("same-totals").words


def test_more_genes_in_raw_are_pointed_out():
    a = good()
    a.raw = a
    assert "to_adata" in gate.check(a[:, :50].copy()).find("more-genes-in-raw").fix


# ---- labels -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("celltype", "cell_type"), ("CellType", "cell_type"), ("Cell Type", "cell_type"), ("cell.type", "cell_type"),
        ("cell_type__ontology_label", "cell_type"), ("author_cell_type", "cell_type"), ("bulk_labels", "cell_type"),
        ("orig.ident", "batch"), ("Sample_ID", "batch"), ("donor_id", "donor"), ("PatientID", "donor"), ("stim", "condition"),
    ],
)  # fmt: skip
def test_common_columns_get_plain_names(tmp_path, column, name):
    a = good()
    a.obs[column] = a.obs.pop("cell_type").astype(str)
    out = gate.read(_written(a, tmp_path), quiet=True)
    assert list(out.obs[name]) == list(a.obs[column]) and isinstance(out.obs[name].dtype, pd.CategoricalDtype)
    assert list(out.obs[column]) == list(a.obs[column])
    assert f"obs['{name}'] from obs['{column}']" in out.uns["scprimer"]["report"]


@pytest.mark.parametrize(
    "column", ["louvain", "leiden", "leiden_r1", "seurat_clusters", "RNA_snn_res.0.8", "predicted.celltype.l1"]
)
def test_clusters_and_predictions_are_not_taken_as_truth(column):
    a = good()
    a.obs[column] = a.obs.pop("cell_type")
    report = gate.check(a)
    assert "cell_type" not in report.labels and column in report.find("no-labels").words


def test_the_column_that_the_reader_names_is_taken(tmp_path):
    a = good()
    a.obs["leiden"] = ["a", "b"] * 30
    out = gate.read(_written(a, tmp_path), columns={"cell_type": "leiden", "clone": "leiden"}, quiet=True)
    assert list(out.obs["cell_type"]) == list(out.obs["clone"]) == ["a", "b"] * 30


def test_hints_on_labels():
    a = good()
    a.obs["cell_type"] = ["B cell", "b-cell", None, *["T"] * 57]
    a.obs["celltype"] = ["x", "y"] * 30
    report = gate.check(a)
    assert "Cells without a cell_type in obs['cell_type']: 1 of 60." in report.find("labels-missing").words
    assert "'B cell' and 'b-cell'" in report.find("label-spelling").words
    assert "celltype" in report.find("several-labels").words
    a.obs["cell_type"] = [0, 1] * 30
    assert "clusters" in gate.check(a).find("numbered-labels").words
    a.obs["cell_type"] = "T"
    assert gate.check(a).ok and "'T'" in gate.check(a).find("one-class").words


def test_an_id_for_each_cell_is_no_label():
    a = good()
    del a.obs["cell_type"]
    a.obs["sample_id"] = [f"s{i}" for i in range(N_CELLS)]
    a.obs["annotation"] = [f"note {i}" for i in range(N_CELLS)]
    assert gate.check(a).labels == {}


# ---- good inputs pass as they are -------------------------------------------------------------------------------------
FORMS = {
    "csr float32": lambda X: X,
    "csr float64": lambda X: X.astype(np.float64),
    "csr int32": lambda X: X.astype(np.int32),
    "csr int64": lambda X: X.astype(np.int64),
    "csr uint16": lambda X: X.astype(np.uint16),
    "csc float32": lambda X: X.tocsc(),
    "csc int16": lambda X: X.tocsc().astype(np.int16),
    "csr array": sp.csr_array,
    "dense float32": lambda X: X.toarray(),
    "dense float64": lambda X: X.toarray().astype(np.float64),
    "dense int64": lambda X: X.toarray().astype(np.int64),
    "dense uint8": lambda X: X.toarray().astype(np.uint8),
    "dense float16": lambda X: X.toarray().astype(np.float16),
    "dense Fortran order": lambda X: np.asfortranarray(X.toarray()),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", ["X", "layers", "raw"])
@pytest.mark.parametrize("form", FORMS)
def test_good_counts_pass_bit_for_bit(tmp_path, form, place, seed):
    wanted = good(seed).X
    a = good(seed)
    counts = FORMS[form](wanted)
    if place == "layers":
        a.layers["my own counts"] = counts
        a.X = logged(wanted)
    else:
        a.X = counts
        if place == "raw":
            a.raw = a
            a.X = logged(wanted)
    out = gate.read(_written(a, tmp_path), quiet=True)
    assert isinstance(out.X, sp.csr_matrix) and out.X.dtype == np.float32
    for part in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(out.X, part), getattr(wanted, part))
    assert list(out.obs_names) == list(a.obs_names) and list(out.var_names) == list(a.var_names)
    pd.testing.assert_frame_equal(out.obs, a.obs)


def test_a_good_file_has_nothing_mended_and_keeps_everything(tmp_path, capsys):
    a = good()
    a.layers["norm"] = logged(a.X)
    a.obsm["X_umap"] = np.random.default_rng(0).normal(size=(N_CELLS, 2))
    a.obsp["graph"] = sp.identity(N_CELLS, format="csr")
    a.varm["PCs"] = np.ones((N_GENES, 3))
    a.uns["note"] = "mine"
    path = _written(a, tmp_path)
    out = gate.read(path)
    shown = capsys.readouterr().out
    assert (
        "mine.h5ad can be used: 60 cells × 120 genes" in shown
        and "raw counts from X" in shown
        and "[" not in shown.replace("obs['", "")
    )
    assert np.array_equal(out.obsm["X_umap"], a.obsm["X_umap"]) and (out.layers["norm"] != a.layers["norm"]).nnz == 0
    assert "graph" in out.obsp and "PCs" in out.varm and out.uns["note"] == "mine"
    record = out.uns["scprimer"]
    assert record["sha256"] == sha(path) and record["dataset"] == "mine.h5ad" and record["simulated"] is False
    out.write_h5ad(tmp_path / "again.h5ad")  # what the gate notes can be saved
    again = gate.read(tmp_path / "again.h5ad", quiet=True)
    assert (again.X != out.X).nnz == 0


def test_simulated_data_stay_simulated(tmp_path):
    a = good()
    a.uns["scprimer"] = {"simulated": True}
    assert gate.read(_written(a, tmp_path), quiet=True).uns["scprimer"]["simulated"] is True


def test_explicit_zeros_and_unsorted_indices_become_canonical(tmp_path):
    a = good()
    coo = sp.coo_matrix(a.X)
    order = np.lexsort((-coo.col, coo.row))
    messy = sp.csr_matrix(a.X.shape, dtype=np.float32)
    messy.data = np.append(coo.data[order], 0).astype(np.float32)
    messy.indices = np.append(coo.col[order], 1).astype(np.int32)
    messy.indptr = a.X.indptr.copy()
    messy.indptr[-1] += 1
    a.X = messy
    out = gate.read(_written(a, tmp_path), quiet=True)
    assert out.X.has_canonical_format and same_counts(out.X, good().X)


def test_need_any_leaves_x_alone(tmp_path):
    a = good()
    a.layers["counts"] = a.X.copy()
    a.X = scaled(a.X)
    out = gate.read(_written(a, tmp_path), need="any", quiet=True)
    assert np.array_equal(out.X, a.X) and "scaled" in out.uns["scprimer"]["x"]


@pytest.mark.parametrize("kind", ["in memory", "view", "backed"])
def test_check_reports_and_changes_nothing(tmp_path, kind):
    a = good()
    a.layers["counts"] = a.X.copy()
    a.X = logged(a.X)
    a.X.data[0] = a.X.data[0]
    a.var_names = [f"GRCh38_{g}" for g in SYMBOLS]
    a.obs["celltype"] = a.obs.pop("cell_type")
    path = _written(a, tmp_path)
    before = sha(path)
    given = {"in memory": a, "view": a[:, :], "backed": None}[kind]
    given = ad.read_h5ad(path, backed="r") if kind == "backed" else given
    matrix = given.X
    report = gate.check(given)
    assert report.ok and report.counts == "layers['counts']" and report.labels == {"cell_type": "celltype"}
    assert report.codes == ["counts-elsewhere", "genome-prefix"]
    assert list(given.var_names) == list(a.var_names) and list(given.obs.columns) == ["celltype"]
    assert kind == "backed" or ((matrix != given.X).nnz == 0 and given.is_view == (kind == "view"))
    if kind == "backed":
        given.file.close()
    assert sha(path) == before


def test_check_and_read_agree(tmp_path):
    for name, case in list(BAD.items())[:12]:
        (folder := tmp_path / name).mkdir()
        path = case.make(folder)
        report = gate.check(ad.read_h5ad(path), **case.options)
        with pytest.raises(gate.GateError) as caught:
            gate.read(path, **case.options)
        assert report.codes == caught.value.report.codes


def test_load_sends_paths_through_the_gate(tmp_path):
    from scprimer import data

    out = data.load(str(_written(good(), tmp_path)), quiet=True)
    assert same_counts(out.X, good().X)
    with pytest.raises(data.DataError, match=r"Did you mean 'mine\.h5ad'"):
        data.load(tmp_path / "mime.h5ad")


# ---- what the numbers are ---------------------------------------------------------------------------------------------
def test_values_are_told_apart():
    X = good().X
    kinds = {
        "counts": X,
        "log": logged(X),
        "scaled": scaled(X),
        "normalised": sp.csr_matrix(np.expm1(logged(X).toarray().astype(float))),
        "binary": X.toarray() > 0,
        "zero": np.zeros((3, 4)),
    }
    assert {kind: values.look_at(matrix).kind for kind, matrix in kinds.items()} == {kind: kind for kind in kinds}


def test_sparse_counts_of_mostly_ones_are_counts():
    X = sp.random(200, 300, 0.02, format="csr", random_state=0)
    X.data[:] = 1.0
    assert values.look_at(X).are_counts


@pytest.mark.parametrize("format", ["csr", "csc", "dense"])
def test_where_points_at_the_value(format):
    X = sp.csr_matrix(np.arange(12, dtype=float).reshape(3, 4))
    X[1, 2] = np.nan
    X = X.toarray() if format == "dense" else X.asformat(format)
    assert values.where(X, "nan") == [(1, 2)]


def test_real_files_are_judged_as_their_table_says(mirror):
    report = gate.check(ad.read_h5ad(mirror / "perturbench" / "devel.h5ad"))
    assert report.find("log-values").fatal and "recover=True" in report.find("log-values").fix
    recovered = gate.read(mirror / "perturbench" / "devel.h5ad", recover=True, quiet=True)
    assert values.look_at(recovered.X).are_counts and recovered.n_obs > 0.999 * 5961
    protein = gate.read(mirror / "pbmc-citeseq" / "pbmc_5k_protein_v3.h5ad", quiet=True)
    assert protein.shape == (200, 16_581) and values.look_at(protein.X).are_counts
