"""What a file on disk is, told from its place and its first bytes. Nothing is unpickled, unpacked to disk or executed.

:func:`why_not` answers for the gate: None for something that may be an ``.h5ad``, otherwise the :class:`Problem`.
"""

from __future__ import annotations

import difflib
import gzip
import os
import re
import stat
import zipfile
import zlib
from pathlib import Path

from scprimer.data.gate.report import Problem
from scprimer.data.gate.words import first_line, number_of

HDF5 = b"\x89HDF\r\n\x1a\n"
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # all of these come from damaged files

_SAVE = 'a.write_h5ad("mine.h5ad")'
_MTX = f"""Read its folder (matrix.mtx, barcodes.tsv, features.tsv) and save it as .h5ad:
    import scanpy as sc
    a = sc.read_10x_mtx("FOLDER"); {_SAVE}"""
_TABLE = f"""If rows are cells and columns are genes, read and save it; if it is the other way round, add .T after the reading:
    import anndata, pandas as pd
    a = anndata.AnnData(pd.read_csv("FILE", index_col=0, sep=SEP)); {_SAVE}"""
_EXCEL = f"""Excel turns gene names such as SEPT2 into dates: go back to the original table if there is one. Otherwise:
    import anndata, pandas as pd
    a = anndata.AnnData(pd.read_excel("FILE", index_col=0)); {_SAVE}"""
_R = """Convert it in R, where it was made:
    zellkonverter::writeH5AD(as.SingleCellExperiment(readRDS("FILE")), "mine.h5ad")"""
_PICKLE = """Opening such a file can run any code, so it is not opened here. Ask whoever made it for an .h5ad:
    adata.write_h5ad("mine.h5ad")   # in the session that holds the object"""
_UNPACK = "Unpack it and give the path of the .h5ad inside."
_DOWNLOAD = "Download the file itself again (the 'raw' or 'download' link) and compare its size with the source's."

# What a file starts with -> code, what it is, what to do.
_MAGIC: tuple[tuple[bytes, str, str, str], ...] = (
    (b"BZh", "compressed", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed", "a zstandard archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "compressed", "a 7-zip archive", _UNPACK),
    (b"Rar!", "compressed", "a rar archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "excel", "an old Excel workbook (.xls)", _EXCEL),
    (b"PAR1", "table", "a Parquet table", _TABLE.replace("read_csv", "read_parquet").replace(", index_col=0, sep=SEP", "")),
    (b"ARROW1", "table", "a Feather table", _TABLE.replace("read_csv", "read_feather").replace(", index_col=0, sep=SEP", "")),
    (b"\x93NUMPY", "array", "a NumPy array (.npy), without names of cells and genes", f"Give it names and save it:\n    a = anndata.AnnData(np.load(\"FILE\")); a.obs_names = ...; a.var_names = ...; {_SAVE}"),
    (b"SQLite format 3", "other-file", "an SQLite data base", "Export the counts from it and save them with anndata as .h5ad."),
    (b"%PDF", "other-file", "a PDF document", "Look for the data behind it: GEO and CELLxGENE keep counts as .h5ad, .h5 or .mtx."),
    (b"BAM\x01", "other-file", "a BAM file of aligned reads", "Count it first (Cell Ranger, STARsolo, alevin-fry); the gate takes counts."),
    (b"\x89PNG", "other-file", "a picture", "Give the path of an .h5ad."),
    (b"RDX", "r-object", "an R workspace (.RData)", _R),
    (b"RDA", "r-object", "an R workspace (.RData)", _R),
    (b"X\n", "r-object", "an R object (.rds)", _R),
    (b"A\n", "r-object", "an R object (.rds)", _R),
    (b"MATLAB 5.0", "other-file", "a MATLAB file", "Load it with scipy.io.loadmat and save counts and names with anndata."),
    (b"version https://git-lfs", "pointer", "a Git LFS pointer: a note of where the file is, not the file", "Run `git lfs pull` in that repository, or download the file itself."),
)  # fmt: skip


def why_not(path: str | os.PathLike) -> Problem | None:
    """None when the path leads to an HDF5 file that can be opened for reading; otherwise what stands in the way."""
    text = os.fspath(path)
    if not text.strip():
        return _problem("no-file", "The path is empty.", "Give the path of an .h5ad file.")
    if re.match(r"^[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        return _problem("web-address", f"{text} is a web address.", "Download the file first and give its path here.")
    path = Path(text).expanduser()
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return _no_permission(path)
    except (FileNotFoundError, NotADirectoryError):
        return _missing(path)
    except (OSError, ValueError) as error:
        return _problem("no-file", f"{text!r} is not a usable path: {error}.", "Give the path of an .h5ad file.")
    if stat.S_ISDIR(mode):
        return _folder(path)
    if not stat.S_ISREG(mode):
        return _problem(
            "not-a-file", f"{path.name} is a pipe or a device.", "Write the data to a file and give its path."
        )
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except PermissionError:
        return _no_permission(path)
    except OSError as error:
        return _problem("unreadable", f"{path.name} cannot be read: {error}.", "Check the disk or the network share, then copy the file to a local disk.")  # fmt: skip
    if not head:
        return _problem("empty-file", f"{path.name} is empty (0 bytes).", "The download or the saving was cut off: get or write the file again.")  # fmt: skip
    if head.startswith(HDF5):
        return _hdf5(path)
    return _other(path, head)


def _problem(code: str, words: str, fix: str) -> Problem:
    return Problem(code, words, fix, fatal=True)


def _no_permission(path: Path) -> Problem:
    fix = f"Ask its owner for read access, or, if it is yours: `chmod u+r {path.name}`."
    return _problem("no-permission", f"You have no permission to read {path}.", fix)


def _missing(path: Path) -> Problem:
    if path.is_symlink():
        return _problem("no-file", f"{path} is a link to {path.readlink()}, which is not there.", "Mend the link or give the path of the file itself.")  # fmt: skip
    folder = path.parent
    if not folder.is_dir():
        there = next((p for p in folder.parents if p.is_dir()), Path.cwd())
        words = f"There is no file {path}: its folder does not exist (the path exists as far as {there})."
        return _problem("no-file", words, "Correct the folder in the path.")
    names = sorted(p.name for p in folder.iterdir()) if os.access(folder, os.R_OK) else []
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(path.name.lower(), lower, n=1, cutoff=0.6)
    files = [n for n in names if n.endswith(".h5ad")]
    if near:
        fix = f"Did you mean {lower[near[0]]!r}?"
    elif files:
        fix = f"The folder {folder} holds these: {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}."
    else:
        fix = f"Correct the path. The folder {folder.resolve()} holds no .h5ad."
    return _problem("no-file", f"There is no file {path.name!r} in {folder.resolve()}.", fix)


def _folder(path: Path) -> Problem:
    names = {p.name for p in path.iterdir()} if os.access(path, os.R_OK) else set()
    if names & {".zgroup", ".zattrs", "zarr.json"}:
        words = f"{path.name} is a folder in zarr format."
        return _problem("zarr", words, f"Save it as .h5ad:\n    import anndata\n    a = anndata.read_zarr({str(path)!r}); {_SAVE}")  # fmt: skip
    if any(n.startswith("matrix.mtx") for n in names):
        return _problem("mtx", f"{path.name} is a folder of 10x files (matrix.mtx).", _MTX.replace("FOLDER", str(path)))
    inside = sorted(n for n in names if n.endswith(".h5ad"))
    fix = (
        f"Give one file: {', '.join(inside[:5])}."
        if inside
        else "Give the path of an .h5ad file; there is none inside."
    )
    return _problem("folder", f"{path.name} is a folder, not a file.", fix)


def _other(path: Path, head: bytes) -> Problem:
    """A file that does not begin as HDF5 does."""
    if head.startswith(b"\x1f\x8b"):
        return _gzip(path)
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _zip(path)
    kind = _kind(head)
    if kind is None and HDF5 in (_at(path, 512 * 2**k, 8) for k in range(8)):
        return _hdf5(path)  # HDF5 behind a user block, as MATLAB writes it
    code, what, fix = kind or (
        "other-file",
        f"no format that is known here (it begins with the bytes {head[:8].hex(' ')})",
        "Give an .h5ad; other formats are read by scanpy (sc.read_*) and saved with write_h5ad.",
    )
    return _problem(code, f"{path.name} is not an .h5ad file: it is {what}.", _for_file(fix, path))


def _kind(head: bytes) -> tuple[str, str, str] | None:
    """Code, words and fix for what the first bytes (unpacked) show; None when they show nothing."""
    for magic, code, what, fix in _MAGIC:
        if head.startswith(magic):
            return code, what, fix
    if re.match(rb"\x80[\x02-\x05]", head) or re.match(rb"(c\w+(\.\w+)*\n\w+\n)|(\(dp?\d|\(lp?\d)", head):
        return "pickle", "a pickled Python object", _PICKLE
    if head[257:262] == b"ustar":
        return "compressed", "a tar archive", _UNPACK
    if b"\x00" in head:
        return None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"(<!doctype html|<html|<\?xml)", start, re.IGNORECASE):
        return "web-page", "a web page (an error or log-in page saved in place of the file)", _DOWNLOAD
    if start.startswith(b"%%MatrixMarket"):
        return "mtx", "a Matrix Market file (.mtx), without names of cells and genes", _MTX
    if start[:1] in b"{[" and start:
        return "text", "a JSON text", "Give the path of an .h5ad."
    try:
        line = start.decode("utf-8", errors="ignore" if len(head) == 4096 else "strict").splitlines()[0]
    except (UnicodeDecodeError, IndexError):
        return None
    for separator, name in (("\t", "tab"), (",", "comma"), (";", "semicolon")):
        if line.count(separator) >= 1:
            return "table", f"a text table ({name}-separated)", _TABLE.replace("SEP", repr(separator))
    return "text", "plain text", "Give the path of an .h5ad."


def _gzip(path: Path) -> Problem:
    try:
        with gzip.open(path) as file:
            head = file.read(4096)
    except (OSError, EOFError, zlib.error) as error:
        return _problem("compressed", f"{path.name} is a damaged gzip archive ({error}).", _DOWNLOAD)
    if head.startswith(HDF5):
        return _problem(
            "compressed", f"{path.name} is a gzip-compressed HDF5 file.", f"Unpack it: `gunzip {path.name}`."
        )
    kind = _kind(head)
    what, fix = (kind[1], kind[2]) if kind else ("something that is no .h5ad", _UNPACK)
    # The table readers of pandas open gzip themselves, so that the fix stays as it is.
    return _problem(
        kind[0] if kind else "compressed", f"{path.name} is a gzip archive of {what}.", _for_file(fix, path)
    )


def _zip(path: Path) -> Problem:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        return _problem("compressed", f"{path.name} is a damaged zip archive ({error}).", _DOWNLOAD)
    if "[Content_Types].xml" in names and any(n.startswith("xl/") for n in names):
        return _problem("excel", f"{path.name} is an Excel workbook.", _for_file(_EXCEL, path))
    if any(n.endswith("data.pkl") for n in names):
        return _problem("pickle", f"{path.name} is a torch file, which holds pickled Python objects.", _PICKLE)
    if names and all(n.endswith(".npy") for n in names):
        fix = "A sparse matrix opens with scipy.sparse.load_npz: give it names of cells and genes and save it with anndata."
        return _problem("array", f"{path.name} is a NumPy or SciPy archive (.npz).", fix)
    inside = [n for n in names if n.endswith(".h5ad")]
    fix = f"Unpack it and give the path of {inside[0]!r}." if inside else _UNPACK
    return _problem("compressed", f"{path.name} is a zip archive of {number_of(len(names), 'file')}.", fix)


def _for_file(fix: str, path: Path) -> str:
    return fix.replace("FILE", str(path)).replace("FOLDER", str(path.parent))


def _at(path: Path, offset: int, n: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(n)


def _hdf5(path: Path) -> Problem | None:
    """An HDF5 file: does it open, and is it an AnnData?"""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _which_hdf5(path, set(file), dict(file.attrs), file)
    except HDF5_ERRORS as error:
        return hdf5_error(path, error)


def hdf5_error(path: Path, error: Exception) -> Problem:
    """Plain words for what the HDF5 library says when it cannot open or read a file."""
    said = str(error)
    cut = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", said)
    if cut:
        have, want = (int(x) for x in cut.groups())
        words = f"{path.name} is cut off: {have:,} of {want:,} bytes are there."
        return _problem("truncated", words, "The download or the copy was interrupted: get the file again and compare its size.")  # fmt: skip
    if "unable to lock" in said or "already open" in said:
        words = f"{path.name} is open for writing in another program or notebook."
        fix = "Close it there. On a network drive without file locks, set HDF5_USE_FILE_LOCKING=FALSE and try again."
        return _problem("locked", words, fix)
    words = f"{path.name} begins as an HDF5 file and is damaged inside ({first_line(error)})."
    return _problem("damaged", words, "Get the file again and compare its size and checksum with the source's.")


def _which_hdf5(path: Path, keys: set[str], attrs: dict, file) -> Problem | None:
    def no(code: str, what: str, fix: str) -> Problem:
        return _problem(code, f"{path.name} is an HDF5 file, not an .h5ad: it is {what}.", _for_file(fix, path))

    read = "    import scanpy as sc\n    a = "
    if attrs.get("encoding-type") == "MuData" or "mod" in keys:
        names = list(file["mod"]) if "mod" in keys else ["rna"]
        fix = f"Save the modality that you want ({', '.join(names)}):\n    import mudata\n    mudata.read('FILE')[{names[0]!r}].write_h5ad('mine.h5ad')"
        return no("h5mu", f"MuData with {len(names)} modalities", fix)
    if {"obs", "var"} <= keys:
        return None
    if {"row_attrs", "col_attrs"} <= keys:
        cells = _first(("CellID", "obs_names", "barcodes", "cell_names"), _children(file, "col_attrs"))
        genes = _first(("Gene", "var_names", "gene_name", "gene_names"), _children(file, "row_attrs"))
        names = f"obs_names={cells!r}, var_names={genes!r}"
        return no("loom", "a loom file", f"Save it as .h5ad:\n{read}sc.read_loom('FILE', {names}); {_SAVE}")
    ten = "a 10x Genomics matrix (Cell Ranger)"
    if "matrix" in keys and "barcodes" in _children(file, "matrix"):
        return no("10x", ten, f"Save it as .h5ad:\n{read}sc.read_10x_h5('FILE'); a.var_names_make_unique(); {_SAVE}")
    if any({"barcodes", "genes"} <= _children(file, k) for k in keys):
        fix = f"Save it as .h5ad (with several genomes, name one: genome={min(keys)!r}):\n{read}sc.read_10x_h5('FILE'); a.var_names_make_unique(); {_SAVE}"
        return no("10x", ten + " of the old kind", fix)
    if {"barcode_idx", "umi"} <= keys:
        return no("10x", "10x molecule information, not counts", "Use filtered_feature_bc_matrix.h5 of the same run.")
    if {"assays", "meta.data"} <= keys or "cell.names" in keys:
        return no(
            "r-object",
            "a Seurat object (.h5Seurat)",
            "Convert it in R:\n    SeuratDisk::Convert('FILE', dest = 'h5ad')",
        )
    if any("pandas_type" in file[k].attrs for k in keys):
        return no("table", "a pandas table store", f"Read and save it:\n    import anndata, pandas as pd\n    a = anndata.AnnData(pd.read_hdf('FILE')); {_SAVE}")  # fmt: skip
    if keys & {"X", "obs", "var", "obsm", "uns"}:
        gone = sorted({"obs", "var"} - keys)
        words = f"{path.name} is an incomplete .h5ad: {' and '.join(gone)} {'are' if len(gone) > 1 else 'is'} missing."
        return _problem("incomplete", words, "The saving was interrupted: write the file again with write_h5ad.")
    holds = ", ".join(sorted(keys)[:6]) or "nothing"
    return no("other-hdf5", f"some other kind (it holds {holds})", "Give an .h5ad, which holds X, obs and var.")


def _children(file, key: str) -> set[str]:
    item = file[key]
    return set(item) if hasattr(item, "keys") else set()


def _first(wanted: tuple[str, ...], there: set[str]) -> str:
    return next((name for name in wanted if name in there), wanted[0])
