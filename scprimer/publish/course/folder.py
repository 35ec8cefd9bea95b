"""Writing the kit's folder: nothing that this program did not write, or that was edited since, is ever replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from scprimer.publish import book

MANIFEST = "manifest.json"


def refuse(out: Path, force: bool) -> None:
    """See that ``out`` can receive a kit.

    Raises:
        BookError: it is a file; or it is not empty and ``force`` was not given.
    """
    if out.exists() and not out.is_dir():
        raise book.BookError(f"{out} is a file: name a folder for the course")
    if not force and out.is_dir() and any(out.iterdir()):
        raise book.BookError(
            f"{out} is not empty: name another folder, or give --force, which replaces what an earlier call wrote there "
            "and leaves everything else alone"
        )


def write(out: Path, files: Mapping[str, str], force: bool, chapters: Sequence[str], start: str | None) -> None:
    """Write ``files`` (path in ``out`` -> text) and the manifest, and remove what an earlier kit had beyond them.

    Raises:
        BookError: as :func:`refuse`; or a file stands in the way that no earlier call wrote, or that was edited since.
            Nothing has been written then.
    """
    refuse(out, force)
    earlier = _earlier(out)
    foreign = sorted(p for p in files if p not in earlier and (out / p).exists())
    edited = sorted(p for p, hashes in earlier.items() if (out / p).is_file() and _hash(out / p) not in hashes)
    if foreign or edited:
        said = [f"not written by `scprimer course`: {_some(foreign)}"] if foreign else []
        said += [f"edited since it was written: {_some(edited)}"] if edited else []
        raise book.BookError(f"in {out}, {'; '.join(said)}. Move these away (or delete them), then call again")
    new = {path: [hashlib.sha256(text.encode()).hexdigest()] for path, text in files.items()}
    about = {"made_by": "scprimer course", "chapters": list(chapters), "start": start}
    # Both states of every file first: a call that is interrupted can be repeated.
    both = {p: sorted({*earlier.get(p, []), *new.get(p, [])}) for p in sorted({*earlier, *new})}
    _write_manifest(out, about, both)
    for path, text in files.items():
        book.write_text(out / path, text)
    for path in earlier.keys() - new.keys():
        (out / path).unlink(missing_ok=True)
        _remove_empty((out / path).parent, out)
    _write_manifest(out, about, new)


def _write_manifest(out: Path, about: dict, files: Mapping[str, list[str]]) -> None:
    book.write_text(out / MANIFEST, json.dumps({**about, "files": files}, indent=1, sort_keys=True) + "\n")


def _earlier(out: Path) -> dict[str, list[str]]:
    """Files of the kit that lies in ``out``, with the hashes that they may have; empty when none does."""
    path = out / MANIFEST
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = {str(p): [str(h) for h in hashes] for p, hashes in found["files"].items()}
        ours = found["made_by"] == "scprimer course"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours, files = False, {}
    # Files are deleted by this list: it must not lead out of the folder.
    if not ours or any(PurePosixPath(p).is_absolute() or ".." in PurePosixPath(p).parts for p in files):
        raise book.BookError(f"{path} is not the list of files of a course kit: name another folder")
    return files


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def _remove_empty(folder: Path, out: Path) -> None:
    while folder != out and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
