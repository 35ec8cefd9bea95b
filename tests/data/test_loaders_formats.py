"""The readers of each file format, and loaders on top of them, on small files made here. Needs no mirror."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from scprimer.data import FormatError
from scprimer.data.loaders import (
    build,
    development,
    droplets,
    hdf5,
    knowledge,
    mixology,
    modalities,
    pbmc,
    perturbation,
    quick,
    rfiles,
    spatial,
    text,
)


# ---- a small writer of R's serialisation (XDR, version 2), independent of the reader under test ---------------------
class R:
    """R objects as nested values: ``R.s4(...)``, ``R.vec(...)``, ..., written by :func:`r_bytes`."""

    def __init__(self, kind: str, value, attributes: dict | None = None):
        self.kind, self.value, self.attributes = kind, value, attributes or {}

    @classmethod
    def ints(cls, values, **attributes):
        return cls("int", [-(2**31) if v is None else int(v) for v in values], attributes)

    @classmethod
    def reals(cls, values, **attributes):
        return cls("real", list(values), attributes)

    @classmethod
    def strs(cls, values, **attributes):
        return cls("str", list(values), attributes)

    @classmethod
    def vec(cls, items: dict | list, **attributes):
        if isinstance(items, dict):
            attributes = {"names": cls.strs(items), **attributes}
            items = list(items.values())
        return cls("vec", items, attributes)

    @classmethod
    def factor(cls, labels, levels, names=None):
        codes = cls.ints([None if v is None else levels.index(v) + 1 for v in labels])
        codes.attributes = {"names": cls.strs(names)} if names else {}
        codes.attributes |= {"levels": cls.strs(levels), "class": cls.strs(["factor"])}
        return codes

    @classmethod
    def frame(cls, columns: dict, rows):
        return cls.vec(columns, **{"row.names": cls.strs(rows), "class": cls.strs(["data.frame"])})

    @classmethod
    def s4(cls, klass: str, **slots):
        return cls("s4", None, {**slots, "class": cls.strs([klass], package=cls.strs(["somewhere"]))})

    @classmethod
    def null(cls):
        return cls("null", None)

    @classmethod
    def dense(cls, table, rows=None, columns=None, whole=True):
        values = np.asarray(table).ravel(order="F")
        obj = cls.ints(values) if whole else cls.reals(values)
        obj.attributes["dim"] = cls.ints(np.shape(table))
        if rows:
            obj.attributes["dimnames"] = cls.vec([cls.strs(rows), cls.strs(columns)])
        return obj

    @classmethod
    def sparse(cls, table, rows=None, columns=None, triplet=False):
        found = sp.csc_matrix(np.asarray(table, dtype=float))
        names = cls.vec([cls.strs(rows) if rows else cls.null(), cls.strs(columns) if columns else cls.null()])
        shared = {"Dim": cls.ints(found.shape), "Dimnames": names, "x": cls.reals(found.data), "factors": cls.vec([])}
        if triplet:
            coo = found.tocoo()
            return cls.s4("dgTMatrix", i=cls.ints(coo.row), j=cls.ints(coo.col), **shared)
        return cls.s4("dgCMatrix", i=cls.ints(found.indices), p=cls.ints(found.indptr), **shared)

    @classmethod
    def dframe(cls, columns: dict, rows=None, n=0):
        return cls.s4(
            "DFrame",
            rownames=cls.strs(rows) if rows else cls.null(),
            nrows=cls.ints([n]),
            listData=cls.vec(columns),
            elementType=cls.strs(["ANY"]),
        )

    @classmethod
    def environment(cls, items: dict):
        return cls("env", items)


TYPES = {"null": 254, "int": 13, "real": 14, "str": 16, "vec": 19, "s4": 25}


def r_bytes(obj: R | dict) -> bytes:
    """One object (as in ``.rds``), or a dict of them (as in ``.rda``)."""
    head = b"X\n" + struct.pack(">iii", 2, 0x030500, 0x020300)
    if isinstance(obj, dict):
        return b"RDX2\n" + head + _pairs(obj, {})
    return head + _object(obj, {})


def _string(value: str | None) -> bytes:
    if value is None:
        return struct.pack(">ii", 9, -1)
    data = value.encode()
    encoding = 64 if value.isascii() else 8
    return struct.pack(">ii", 9 | encoding << 12, len(data)) + data


def _symbol(name: str, seen: dict) -> bytes:
    if name in seen:  # R writes a symbol once and refers to it afterwards
        return struct.pack(">i", seen[name] << 8 | 255)
    seen[name] = len(seen) + 1
    return struct.pack(">i", 1) + _string(name)


def _pairs(items: dict, seen: dict) -> bytes:
    out = b""
    for name, item in items.items():
        out += struct.pack(">i", 2 | 1 << 10) + _symbol(name, seen) + _object(item, seen)
    return out + struct.pack(">i", 254)


def _object(obj: R, seen: dict) -> bytes:
    if obj.kind == "env":
        seen[object()] = len(seen) + 1  # environments take a number among the references too
        nothing = struct.pack(">i", 254)
        table = struct.pack(">ii", 19, 1) + _pairs(obj.value, seen)  # a hash table with one bucket
        return struct.pack(">iii", 4, 0, 242) + nothing + table + nothing
    flags = TYPES[obj.kind] | (1 << 9 if obj.attributes else 0) | (1 << 8 if "class" in obj.attributes else 0)
    out = struct.pack(">i", flags)
    if obj.kind in ("int", "real", "str", "vec"):
        out += struct.pack(">i", len(obj.value))
    if obj.kind == "int":
        out += struct.pack(f">{len(obj.value)}i", *obj.value)
    elif obj.kind == "real":
        out += struct.pack(f">{len(obj.value)}d", *obj.value)
    elif obj.kind == "str":
        out += b"".join(_string(v) for v in obj.value)
    elif obj.kind == "vec":
        out += b"".join(_object(v, seen) for v in obj.value)
    if obj.attributes:
        out += _pairs(obj.attributes, seen)
    return out


def write_r(path, obj: R | dict, compress=gzip.compress):
    path.write_bytes(compress(r_bytes(obj)))
    return path


COUNTS = np.array([[0, 2, 1], [3, 0, 0], [0, 0, 5], [1, 1, 0]])  # genes x cells
GENES, CELLS = ["A", "B", "C", "D"], ["c1", "c2", "c3"]


# ---- R files -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_r_matrices(tmp_path, compress):
    held = {
        "csc": R.sparse(COUNTS, GENES, CELLS),
        "triplet": R.sparse(COUNTS, GENES, CELLS, triplet=True),
        "dense": R.dense(COUNTS, GENES, CELLS),
        "bare": R.dense(COUNTS),
    }
    found = rfiles.read_r(write_r(tmp_path / "m.rda", held, compress))
    assert list(found) == list(held)
    for name, obj in found.items():
        x, rows, columns = rfiles.matrix(obj)
        assert sp.issparse(x) and (x.toarray() == COUNTS).all(), name
        assert (rows, columns) == ((None, None) if name == "bare" else (GENES, CELLS)), name


def test_an_r_matrix_without_names_of_one_side(tmp_path):
    x, rows, columns = rfiles.matrix(rfiles.read_r(write_r(tmp_path / "m.rds", R.sparse(COUNTS, GENES))))
    assert x.shape == (4, 3) and rows == GENES and columns is None


def test_r_frames_and_factors(tmp_path):
    held = {
        "table": R.frame(
            {
                "n": R.ints([1, None, 3]),
                "x": R.reals([0.5, 1.5, 2.5]),
                "word": R.strs(["a", None, "été"]),
                "kind": R.factor(["u", None, "v"], ["v", "u"]),
            },
            CELLS,
        ),
        "named": R.factor(["u", "v", None], ["v", "u"], names=CELLS),
    }
    found = rfiles.read_r(write_r(tmp_path / "f.RData", held))
    table = rfiles.frame(found["table"])
    assert list(table.index) == CELLS
    assert table["n"].dtype == float and np.isnan(table["n"].iloc[1])
    assert table["word"].tolist()[0::2] == ["a", "été"] and pd.isna(table["word"].iloc[1])
    assert table["word"].dtype == object
    assert list(table["kind"].cat.categories) == ["v", "u"] and table["kind"].isna().tolist() == [False, True, False]
    labels, levels = rfiles.labels(found["named"])
    assert labels.index.tolist() == CELLS and labels.tolist()[:2] == ["u", "v"] and pd.isna(labels.iloc[2])
    assert levels == ["v", "u"]


def test_r_run_lengths():
    rle = {"lengths": np.array([2, 1, 3]), "values": np.array([1, 9, 4])}
    assert rfiles.undo_run_lengths(rle).tolist() == [1, 1, 9, 4, 4, 4]


def test_the_short_way_reads_what_rdata_reads(tmp_path):
    import rdata

    strings = ["plain", None, "größer", "", "plain"]
    held = {
        "s": R.strs(strings),
        "named": R.strs(["a"], names=R.strs(["n"])),
        "l": R.vec({"x": R.ints([1]), "y": R.strs(["b"])}),
    }
    path = write_r(tmp_path / "s.rda", held)
    ours = quick.convert(quick.parse(path.read_bytes()))
    theirs = rdata.conversion.convert(rdata.parser.parse_file(path, extension=".rda"))
    assert ours["s"].tolist() == theirs["s"].tolist() == strings
    assert ours["l"]["x"].tolist() == theirs["l"]["x"].tolist() == [1]
    assert ours["l"]["y"].tolist() == theirs["l"]["y"].tolist() == ["b"]
    assert type(ours["named"]) is type(theirs["named"])


def test_a_file_in_another_of_rs_forms(tmp_path):
    (tmp_path / "a.rds").write_text(
        "A\n2\n197888\n131840\n13\n3\n1\n2\n3\n"
    )  # c(1L, 2L, 3L) as R writes it with ascii = TRUE
    assert rfiles.read_r(tmp_path / "a.rds").tolist() == [1, 2, 3]


def test_damaged_r_files_are_named(tmp_path):
    whole = r_bytes({"m": R.sparse(COUNTS, GENES, CELLS)})
    for cut in (len(whole) - 1, len(whole) // 2, 20):
        (tmp_path / "cut.rda").write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"cut\.rda cannot be read as an R file"):
            rfiles.read_r(tmp_path / "cut.rda")
    (tmp_path / "cut.rda").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(FormatError, match="cannot be read"):
        rfiles.read_r(tmp_path / "cut.rda")
    (tmp_path / "cut.rda").write_bytes(lzma.compress(whole)[: len(whole) // 4])
    with pytest.raises(FormatError, match="cannot be read"):
        rfiles.read_r(tmp_path / "cut.rda")
    (tmp_path / "page.rds").write_text("<html>not found</html>")
    with pytest.raises(FormatError, match="cannot be read"):
        rfiles.read_r(tmp_path / "page.rds")


def test_one_object_and_only_one(tmp_path):
    with pytest.raises(FormatError, match="one R object"):
        rfiles.only(write_r(tmp_path / "two.rda", {"a": R.ints([1]), "b": R.ints([2])}))
    with pytest.raises(FormatError, match="expected to be a matrix"):
        rfiles.matrix(SimpleNamespace(a=1))


def single_cell_experiment(names=GENES):
    """A SingleCellExperiment with counts, gene table and cell table, as Bioconductor writes it."""
    return R.s4(
        "SingleCellExperiment",
        int_colData=R.dframe({"reducedDims": R.dframe({"TSNE": R.dense([[0.5, 1], [1, 2], [3, 4]], CELLS, ["t1", "t2"], whole=False)})}),
        rowRanges=R.s4(
            "CompressedGRangesList",
            elementMetadata=R.dframe({"ENSEMBL": R.strs([f"ENSG{i}" for i in range(4)]), "SYMBOL": R.strs(GENES)}),
            partitioning=R.s4("PartitioningByEnd", end=R.ints([0] * 4), NAMES=R.strs(names)),
        ),
        colData=R.dframe(
            {
                "cluster_id": R.factor(["B cells", "NK", "B cells"], ["B cells", "NK"]),
                "sample_id": R.factor(["ctrl101", "stim101", "stim107"], ["ctrl101", "stim101", "stim107"]),
                "group_id": R.factor(["ctrl", "stim", "stim"], ["ctrl", "stim"]),
            },
            CELLS,
        ),
        assays=R.s4("SimpleAssays", data=R.s4("SimpleList", listData=R.vec({"counts": R.sparse(COUNTS, names, CELLS)}))),
    )  # fmt: skip


def test_a_single_cell_experiment(tmp_path):
    write_r(tmp_path / "example_sce.rda", {"example_sce": single_cell_experiment(["A", "B_ENSG1", "C", "D"])})
    adata = pbmc.kang_donors(tmp_path)
    assert adata.shape == (3, 4) and (adata.X.toarray() == COUNTS.T).all()
    assert adata.obs["condition"].tolist() == ["control", "stimulated", "stimulated"]
    assert adata.obs["donor"].tolist() == ["101", "101", "107"]
    assert list(adata.var_names) == GENES and adata.var["name"].tolist()[1] == "B_ENSG1"
    assert adata.obsm["X_tsne"].shape == (3, 2)


def test_an_expression_set(tmp_path):
    values = [[1.5, -2.0], [0.0, 3.0], [7.0, 1.0]]
    held = R.s4(
        "ExpressionSet",
        assayData=R.environment({"exprs": R.dense(values, ["g1", "g2", "g3"], ["10", "11"], whole=False)}),
        phenoData=R.s4(
            "AnnotatedDataFrame",
            data=R.frame({"Cell": R.factor(["2C 1.1", "64C 7.14"], ["2C 1.1", "64C 7.14"]), "num_cells": R.ints([2, 64])}, ["10", "11"]),
        ),
    )  # fmt: skip
    write_r(tmp_path / "guo.rda", {"guo": held})
    adata = development.guo(tmp_path)
    assert np.allclose(adata.X, np.array(values).T)
    assert adata.obs["stage"].tolist() == ["2C", "64C"] and adata.obs["time"].tolist() == [1, 6]
    assert adata.obs["embryo"].tolist() == ["2C_1", "64C_7"]


def test_the_run_length_list(tmp_path):
    x = sp.csc_matrix(COUNTS)
    held = R.vec(
        {
            "i": R.ints(x.indices),
            "p": R.ints(x.indptr),
            "Dim": R.ints(x.shape),
            "Dimnames": R.vec([R.strs(GENES), R.strs(CELLS)]),
            "x": R.vec({"lengths": R.ints([1] * x.nnz), "values": R.ints(x.data)}, **{"class": R.strs(["rle"])}),
            "cell_type": R.factor(["B", None, "NK"], ["NK", "B"]),
        }
    )
    write_r(tmp_path / "pbmc3k.RData", {"pbmc3k": held})
    adata = pbmc.pbmc3k(tmp_path)
    assert (adata.X.toarray() == COUNTS.T).all() and list(adata.var_names) == GENES
    assert adata.obs["cell_type"].isna().tolist() == [False, True, False]
    assert list(adata.obs["cell_type"].cat.categories) == ["NK", "B"]


def test_counts_that_the_total_restores(tmp_path):
    totals = np.array([1000, 2000, 500])
    logs = np.log1p(COUNTS / totals * 1e4)
    write_r(tmp_path / "pbmcs_exprs_small.rda", {"e": R.sparse(logs, GENES, CELLS)})
    meta = R.frame(
        {
            "cell_id": R.strs(CELLS),
            "donor": R.strs(["5p", "3pv1", "3pv2"]),
            "nUMI": R.ints(totals),
            "nGene": R.ints([1, 2, 3]),
            "percent_mito": R.reals([0.1, 0.2, 0.3]),
            "cell_type": R.strs(["B", "NK", "B"]),
            "cell_type_broad": R.strs(["B", "NK", "B"]),
        },
        ["9", "8", "7"],
    )
    write_r(tmp_path / "pbmcs_meta_small.rda", {"m": meta})
    adata = pbmc.pbmc_chemistries(tmp_path)
    assert (adata.X.toarray() == COUNTS.T).all()
    assert adata.uns["scprimer"]["recovered"] == 1
    assert adata.obs["pct_mito"].tolist() == pytest.approx([10, 20, 30])


def test_spliced_and_unspliced_with_labels_in_another_order_are_refused(tmp_path):
    def held(names):
        return {
            "pancreas": R.vec(
                {
                    "spliced": R.dense(COUNTS, GENES, CELLS, whole=False),
                    "unspliced": R.dense(COUNTS, GENES, CELLS, whole=False),
                    "pcs": R.dense(np.ones((3, 2)), CELLS, ["PC1", "PC2"], whole=False),
                    "clusters": R.factor(["Beta", "Alpha", "Beta"], ["Alpha", "Beta"], names=names),
                }
            )
        }

    write_r(tmp_path / "pancreas.rda", held(CELLS), bz2.compress)
    adata = development.pancreas_velocity(tmp_path, "cells")
    assert (adata.layers["unspliced"].toarray() == COUNTS.T).all() and adata.obsm["X_pca"].shape == (3, 2)
    write_r(tmp_path / "pancreas.rda", held(CELLS[::-1]), bz2.compress)
    with pytest.raises(FormatError, match="same genes and cells"):
        development.pancreas_velocity(tmp_path, "cells")


# ---- AnnData from parts --------------------------------------------------------------------------------------------
def test_counts_are_checked():
    for bad in (-1.0, 0.5, np.nan, np.inf, 2.0**24):
        with pytest.raises(FormatError, match="raw counts"):
            build.as_counts(np.array([[1.0, bad]]))
    found = build.as_counts(sp.coo_matrix(([0, 2], ([0, 0], [1, 0])), shape=(1, 2)))
    assert isinstance(found, sp.csr_matrix) and found.dtype == np.float32
    assert found.nnz == 1  # the stored zero is gone


def test_names_are_made_unique_and_kept():
    adata = build.counts(np.eye(3), ["a", "b", "a"], ["G", "G", "H"])
    assert list(adata.obs_names) == ["a", "b", "a-1"] and list(adata.var_names) == ["G", "G-1", "H"]
    assert adata.var["name"].tolist() == ["G", "G", "H"]
    with pytest.raises(FormatError, match="rows do not fit"):
        build.counts(np.eye(3), ["a", "b"], ["G", "H", "I"])


def test_counts_come_back_from_logs():
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (40, 30))
    counts[:, 0] = 1  # every cell has a gene with one count
    totals = counts.sum(axis=1, keepdims=True) + rng.integers(50, 500, (40, 1))
    logs = np.log1p(counts / totals * 1e4)
    restored, share = build.restore_counts(sp.csr_matrix(logs))
    assert share == 1 and (restored.toarray() == counts).all()
    plain, share = build.restore_counts(sp.csr_matrix(counts / totals * 1e4), undo=lambda v: v)
    assert share == 1 and (plain.toarray() == counts).all()


def test_counts_of_a_cell_without_a_one_need_its_total():
    counts = np.array([[2, 4, 6, 0], [1, 3, 0, 2], [2, 5, 0, 3]])
    totals = np.array([100.0, 80.0, 90.0])
    logs = sp.csr_matrix(np.log1p(counts / totals[:, None] * 1e4))
    blind, share = build.restore_counts(logs)
    assert blind.toarray()[0].tolist() == [1, 2, 3, 0]  # a whole factor too small, and nothing shows it
    assert share == pytest.approx(2 / 3)  # 5 is no multiple of 2: this one shows
    seeing, share = build.restore_counts(logs, totals=totals * 1.01)  # known up to a per cent
    assert share == 1 and (seeing.toarray() == counts).all()
    partly, share = build.restore_counts(logs, totals=np.array([np.nan, np.nan, 90.0]))
    assert share == 1 and partly.toarray()[0].tolist() == [1, 2, 3, 0] and (partly.toarray()[2] == counts[2]).all()


def test_values_that_are_no_counts_are_counted():
    rng = np.random.default_rng(1)
    logs = sp.csr_matrix(rng.gamma(2.0, 1.0, (20, 30)))
    _, share = build.restore_counts(logs)
    assert share == 0


def test_labels_keep_their_gaps():
    labels = build.categorical(["b", None, "a", np.nan])
    assert list(labels.categories) == ["a", "b"] and list(labels.isna()) == [False, True, False, True]
    assert list(build.categorical([2, 10, 1]).categories) == ["1", "10", "2"]
    assert list(build.categorical(["b"], ["c", "b"]).categories) == ["c", "b"]


# ---- HDF5, zarr, NumPy, pictures -----------------------------------------------------------------------------------
def test_h5(tmp_path):
    with h5py.File(tmp_path / "CITE_CBMC_counts_top2000.h5", "w") as held:
        held["X"], held["ADT_X"], held["Y"] = COUNTS.T.astype("f4"), np.ones((3, 10)), np.array([5.0, 1.0, 5.0])
    # carriage returns between lines and no header, as in the real one
    (tmp_path / "cbmc_clusters.csv.gz").write_bytes(gzip.compress(b"AAA,Mouse\rCCC,B\rGGG,Mouse\r"))
    adata = modalities.cbmc_citeseq(tmp_path)
    assert adata.obs["cell_type"].tolist() == ["Mouse", "B", "Mouse"]
    assert list(adata.obs_names) == ["AAA", "CCC", "GGG"] and adata.obs["cluster"].tolist() == ["5", "1", "5"]
    assert list(adata.obsm["protein"].columns)[:3] == ["CD3", "CD4", "CD8"]


def test_h5ad_of_old(tmp_path):
    clones = sp.csr_matrix(np.array([[1.0, 0], [0, 1], [1, 0]]))
    counts = COUNTS.T + np.eye(3, 4)
    counts[:, 3] = 1
    scaled = sp.csr_matrix((counts / counts.sum(axis=1, keepdims=True) * 1e4).astype("f4"))
    held = ad.AnnData(
        scaled,
        obs=pd.DataFrame(
            {"time_info": ["2", "4", "6"], "state_info": ["undiff", "Meg", "Baso"]}, index=["3", "7", "9"]
        ),
        var=pd.DataFrame(index=GENES),
        obsm={"X_clone": clones, "X_emb": np.zeros((3, 2)), "X_pca": np.zeros((3, 4)), "X_umap": np.zeros((3, 2))},
    )
    held.write_h5ad(tmp_path / "test_adata_preprocessed.h5ad")
    table = tmp_path / "clonal_data_in_table_format.txt"
    table.write_text("Cell_ID,Clone_ID\ncell_0,clone_0\ncell_1,clone_1\ncell_2,clone_0\n")
    adata = development.larry(tmp_path)
    assert (adata.X.toarray() == counts).all() and adata.uns["scprimer"]["recovered"] == 1
    assert adata.obs["time"].tolist() == [2, 4, 6] and adata.obs["clone"].tolist() == ["0", "1", "0"]
    assert list(adata.obs_names) == ["cell_3", "cell_7", "cell_9"]
    table.write_text("Cell_ID,Clone_ID\ncell_0,clone_1\ncell_1,clone_1\ncell_2,clone_0\n")
    with pytest.raises(FormatError, match="disagree"):
        development.larry(tmp_path)
    assert hdf5.read_h5ad(tmp_path / "test_adata_preprocessed.h5ad").shape == (3, 4)


def test_zarr(tmp_path):
    top = zarr.open_group(str(tmp_path / "hgmm_100.zarr"), mode="w", zarr_format=2)
    x = sp.csc_matrix(COUNTS)
    for genome, ids in (("hg19", "ENSG"), ("mm10", "ENSMUSG")):
        group = top.create_group(genome)
        arrays = {
            "shape": np.array(x.shape, dtype="i4"),
            "data": x.data.astype("i4"),
            "indices": x.indices.astype("i8"),
            "indptr": x.indptr.astype("i8"),
            "genes": np.array([f"{genome}_{ids}{i}" for i in range(4)], dtype="S24"),
            "gene_names": np.array([f"{genome}_{g}" for g in ("A", "B", "B", "D")], dtype="S24"),
            "barcodes": np.array([f"{c}-1" for c in CELLS], dtype="S18"),
        }
        for name, values in arrays.items():
            group.create_array(name, data=values)
    adata = droplets.barnyard(tmp_path)
    assert (adata.X.toarray() == np.hstack([COUNTS.T, COUNTS.T])).all()
    assert adata.var["species"].tolist() == ["human"] * 4 + ["mouse"] * 4
    assert list(adata.var_names)[:4] == ["hg19_A", "hg19_B", "hg19_B-1", "hg19_D"]
    assert adata.var["symbol"].tolist()[4:] == ["A", "B", "B", "D"]
    assert adata.var["ensembl"].iloc[4] == "ENSMUSG0"


def test_npy_and_plain_tables(tmp_path):
    np.save(tmp_path / "SNAREseq_atac_feat.npy", np.ones((3, 2)))
    np.save(tmp_path / "SNAREseq_rna_feat.npy", np.zeros((3, 4)))
    (tmp_path / "SNAREseq_metadata.txt").write_text("Barcode\tCellType\tLabelID\nAA\tGM\t2\nCC\tBJ\t3\nGG\tGM\t2\n")
    (tmp_path / "SNAREseq_rna_types.txt").write_text("2\n3\n2\n")
    adata = modalities.snare_scgem(tmp_path, "snare")
    assert adata.obsm["X_atac"].shape == (3, 2) and adata.obs["cell_line"].tolist() == ["GM", "BJ", "GM"]
    (tmp_path / "SNAREseq_rna_types.txt").write_text("2\n2\n2\n")
    with pytest.raises(FormatError, match="do not fit"):
        modalities.snare_scgem(tmp_path, "snare")


def test_a_picture_and_its_spots(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((70, 64, 3), 200, dtype="u1")).save(tmp_path / "HE_Rep1_resized.jpg")
    (tmp_path / "1000L2_barcodes.txt").write_text("AAA\t1\t1\nCCC\t33\t35\nTTT\t17\t18\n")
    table = R.frame({b: R.ints(c) for b, c in zip(["CCC", "GGG", "AAA"], COUNTS.T, strict=True)}, GENES)
    write_r(tmp_path / "counts.rds", table)
    adata = spatial.olfactory_bulb_he(tmp_path)
    assert list(adata.obs_names) == ["CCC", "AAA"]  # GGG has no place on the array
    assert (adata.X.toarray() == COUNTS.T[[0, 2]]).all()
    assert adata.obsm["spatial"].tolist() == [[64, 70], [0, 0]]
    assert adata.uns["spatial"]["olfactory-bulb"]["images"]["hires"].shape == (70, 64, 3)


# ---- csv, tsv, gmt, pfm --------------------------------------------------------------------------------------------
def write_plate(folder, part: str, genes, cells, table, **columns):
    pd.DataFrame(table, index=genes, columns=cells).to_csv(folder / f"{part}.count.csv.gz")
    pd.DataFrame({"demuxlet_cls": "SNG", **columns}, index=cells).to_csv(folder / f"{part}.metadata.csv.gz")


def test_csv_gz_plates(tmp_path):
    spiked = ["ENSG1", "ERCC-00002", "ENSG2", "ENSG3"]
    for number, part in enumerate(mixology.PLATES):
        genes = spiked if number else ["ENSG2", "ENSG1", "ENSG9", "ERCC-00002"]  # another order, and a gene of its own
        write_plate(
            tmp_path, part, genes, ["p1_A1", "p1_A2", "p1_B1"], COUNTS, cell_number=[1, 2, 1], cell_line_demuxlet="H838"
        )
    one = mixology.cell_mixology(tmp_path, "sc_celseq2_5cl_p2")
    assert one.var["spike_in"].tolist() == [False, True, False, False]
    assert one.var["ensembl"].tolist() == ["ENSG1", "", "ENSG2", "ENSG3"]
    assert list(one.obs_names) == ["p2_A1", "p2_A2", "p2_B1"] and one.obs["demuxlet"].tolist() == ["SNG"] * 3
    joined = mixology.cell_mixology(tmp_path, "sc_celseq2_5cl")
    assert joined.shape == (9, 3) and set(joined.var_names) == {"ENSG1", "ENSG2", "ERCC-00002"}
    assert joined["p1_A1", "ENSG1"].X.toarray().item() == COUNTS[1, 0]
    assert joined["p3_A1", "ENSG1"].X.toarray().item() == COUNTS[0, 0]
    assert joined.obs["plate"].tolist() == ["p1"] * 3 + ["p2"] * 3 + ["p3"] * 3


def test_a_cell_table_in_another_order_is_refused(tmp_path):
    write_plate(tmp_path, "sc_celseq2", GENES, CELLS, COUNTS, cell_line="H838")
    pd.DataFrame({"cell_line": "H838"}, index=CELLS[::-1]).to_csv(tmp_path / "sc_celseq2.metadata.csv.gz")
    with pytest.raises(FormatError, match="same cells in the same order"):
        mixology.cell_mixology(tmp_path, "sc_celseq2")


def test_mixture_proportions(tmp_path):
    numbers = {
        "H1975": [7, 3, 9],
        "H2228": [0, 3, 0],
        "HCC827": [2, 3, 0],
        "poor_quality": "NO",
        "traj": ["YES", "NO", "NO"],
    }
    write_plate(tmp_path, "cellmix1", GENES, CELLS, COUNTS, **numbers)
    adata = mixology.cell_mixology(tmp_path, "cellmix1")
    assert adata.obs["proportion_H1975"].tolist() == pytest.approx([7 / 9, 1 / 3, 1])
    assert adata.obs["cell_number"].tolist() == [9, 9, 9]
    assert adata.obs["trajectory"].tolist() == [True, False, False]


def test_gmt(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("ONE\thttp://x\tA\tB\t\nTWO\t\tC\n\n")
    assert text.read_gmt(path) == {"ONE": ["A", "B"], "TWO": ["C"]}
    path.write_text("ONE\thttp://x\n")
    with pytest.raises(FormatError, match="line 1: no genes"):
        text.read_gmt(path)
    path.write_text("ONE\t\tA\nONE\t\tB\n")
    with pytest.raises(FormatError, match="line 2: 'ONE' occurs twice"):
        text.read_gmt(path)


def test_pfm(tmp_path):
    path = tmp_path / "JASPAR2022_vertebrates.pfm"
    path.write_text("# comment\n>MA1.1_MA1.1.Arnt\n4 16 0 0\n19\t0\t1\t0\n>MA2.1_MA2.1.A::B\n1.5 0 0 2\n")
    found = text.read_pfm(path)
    assert found["MA1.1_MA1.1.Arnt"].tolist() == [[4, 16, 0, 0], [19, 0, 1, 0]]
    (tmp_path / "JASPAR2022_vertebrates.motif2factors.txt").write_text(
        "Motif\tFactor\tEvidence\tCurated\nMA1.1_MA1.1.Arnt\tMA1.1.Arnt\tSELEX\tY\nMA2.1_MA2.1.A::B\tB\t\tY\n"
    )
    held = knowledge.motifs(tmp_path)
    assert list(held["matrices"]) == ["MA1.1.Arnt", "MA2.1.A::B"]
    assert held["factors"]["factor"].tolist() == ["Arnt", "B"]
    for wrong, words in (
        (">M\n1 2 3\n", "line 2: four numbers"),
        ("1 2 3 4\n", "line 1"),
        (">M\n", "empty"),
        ("", "no matrices"),
    ):
        path.write_text(wrong)
        with pytest.raises(FormatError, match=words):
            text.read_pfm(path)


def test_tsv_screens(tmp_path):
    (tmp_path / "reads_hap1.txt").write_text("SEQUENCE\tGENE\tHAP1_T0\tHAP1_T18A\nACGT\tA1BG\t239.0\t245.0\n")
    for name in ("CEGv2", "NEGv1"):
        (tmp_path / f"{name}.txt").write_text("GENE\tHGNC_ID\tENTREZ_ID\nAARS\tHGNC:20\t16\n")
    held = perturbation.hap1_screen(tmp_path)
    assert held["counts"].to_dict("records") == [{"sequence": "ACGT", "gene": "A1BG", "T0": 239, "T18A": 245}]
    assert held["essential"] == ["AARS"]
    (tmp_path / "reads_hap1.txt").write_text("SEQUENCE\tGENE\tHAP1_T0\nACGT\tA1BG\t239.5\n")
    with pytest.raises(FormatError, match="raw counts"):
        perturbation.hap1_screen(tmp_path)


def test_pathways_as_lists(tmp_path):
    (tmp_path / "pathways.tsv").write_text(
        "identifier\tname\turl\tn_genes\tn_coding_genes\tsource\tlicense\tgenes\tcoding_genes\n"
        "P1\tone\t\t2\t0\tpid\tCC0 1.0\t12|7\t\n"
    )
    table = knowledge.pathways(tmp_path)
    assert table.loc["P1", "genes"] == [12, 7] and table.loc["P1", "coding_genes"] == []
    assert table.loc["P1", "licence"] == "CC0 1.0"
