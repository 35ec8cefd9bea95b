"""Files of the registry: from a mirror, the cache or the internet, verified by hash, with nothing half-written left.

- A **mirror** (``SCPRIMER_MIRROR``) is a folder that holds the files as ``<data set>/<file>``. It is read in place.
- The **cache** (``SCPRIMER_CACHE``, default: the user's cache folder) holds ``data/<data set>/<file>``.
- A download goes to ``partial/<hash>.part`` and is continued after an interruption; pooch moves it to its place once its hash is right.

A file's hash is computed once and remembered, with the file's size and time, under ``verified/`` in the cache.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from scprimer.data.errors import CacheError, DataError, DownloadError, MirrorError, WrongHash
from scprimer.data.registry import DataSet, File

MIRROR_VARIABLE = "SCPRIMER_MIRROR"
CACHE_VARIABLE = "SCPRIMER_CACHE"
QUIET_VARIABLE = "SCPRIMER_QUIET"

TRIES = 3  # requests for one file, when connections break
PATIENCE = 1.0  # seconds before the second; the third waits longer
TIMEOUT = 30  # seconds without a byte
WAIT = 3600  # seconds to wait for another process that downloads the same data set
BLOCK = 1 << 16


# ---- folders -------------------------------------------------------------------------------------------------------
def cache_folder() -> Path:
    """The cache: ``SCPRIMER_CACHE``, or the user's cache folder for scprimer. It need not exist yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    import pooch

    return Path(pooch.os_cache("scprimer"))


def mirror_folder() -> Path | None:
    """The mirror, or None when none is set.

    Raises:
        MirrorError: ``SCPRIMER_MIRROR`` names a folder that is not there.
    """
    chosen = os.environ.get(MIRROR_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen).expanduser().resolve()
    if not folder.is_dir():
        raise MirrorError(
            f"{MIRROR_VARIABLE}={chosen} is not a folder: set it to the folder that holds the files as "
            "<data set>/<file>, or unset it to download them"
        )
    return folder


def whereabouts(entry: DataSet) -> str:
    """``"mirror"``, ``"cached"``, ``"partly"`` (some files are here) or ``"absent"``; looks at sizes, not at hashes."""
    mirror = mirror_folder()
    if mirror is not None and all(_has_size(mirror / entry.name / f.file, f) for f in entry.files):
        return "mirror"
    here = [_has_size(cache_folder() / "data" / entry.name / f.file, f) for f in entry.files]
    return "cached" if all(here) else "partly" if any(here) else "absent"


# ---- fetching ------------------------------------------------------------------------------------------------------
def fetch_files(entry: DataSet, part: str | None = None) -> Path:
    """Folder with the verified files that a part of a data set needs (all of them when ``part`` is None).

    Raises:
        MirrorError: the mirror is not there, or holds a damaged file.
        CacheError: the cache cannot be written, or the disk is full.
        DownloadError: no network, or the server does not give the file.
        WrongHash: what came is not what the registry knows.
    """
    files = entry.files_for(part)
    mirror = mirror_folder()
    if mirror is not None and all((mirror / entry.name / f.file).is_file() for f in files):
        _check_mirror(mirror, entry, files)
        return mirror / entry.name

    folder = cache_folder() / "data" / entry.name
    notes = Notes(folder)
    if all(_right(folder / f.file, f, notes) for f in files):
        notes.save()
        return folder
    with _cache_errors(files), _lock(entry):
        # Another process may have fetched some of it while we waited for the lock.
        missing = [f for f in files if not _right(folder / f.file, f, notes)]
        _check_space(missing)
        with _bar(entry, missing) as advance:
            for f in missing:
                copy = mirror / entry.name / f.file if mirror is not None else None
                if copy is not None and copy.is_file():
                    _check_mirror(mirror, entry, [f])
                    _copy(copy, folder / f.file)
                    advance(f.bytes)
                else:
                    _download(f, folder / f.file, advance)
                notes.remember(folder / f.file, f)
        notes.save()
    return folder


def damaged(entry: DataSet) -> list[Path]:
    """Files of a data set, in the mirror or the cache, whose bytes are not those of the registry. Hashes every file."""
    mirror = mirror_folder()
    bad = []
    for folder in (cache_folder() / "data" / entry.name, mirror and mirror / entry.name):
        for f in entry.files:
            path = folder / f.file if folder else None
            if path and path.is_file() and (_size(path) != f.bytes or sha256(path) != f.sha256):
                bad.append(path)
    return bad


def sha256(path: Path) -> str:
    """Hash of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# ---- what has been verified before ---------------------------------------------------------------------------------
class Notes:
    """Which files of one folder have had their hash checked: ``{file: [size, time of change in ns, sha256]}``.

    Kept as one small JSON file in the cache for each folder. It only saves time: where it cannot be written, or another
    process overwrites it, files are hashed again.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        key = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        self.path = cache_folder() / "verified" / f"{folder.name}-{key}.json"
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            held = None
        self.held = held if isinstance(held, dict) else {}
        self.changed = False

    def verified(self, path: Path, f: File) -> bool:
        """Whether ``path`` is there, unchanged since its hash was found to be that of ``f``."""
        stamp = _stamp(path)
        return stamp is not None and self.held.get(f.file) == [*stamp, f.sha256]

    def remember(self, path: Path, f: File) -> None:
        """Note that the hash of ``path`` is that of ``f``."""
        self.held[f.file] = [*_stamp(path), f.sha256]
        self.changed = True

    def save(self) -> None:
        """Write the notes if there is anything new; a cache that cannot be written costs only time."""
        if not self.changed:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, json.dumps(self.held).encode())


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _size(path: Path) -> int:
    stamp = _stamp(path)
    return stamp[0] if stamp else 0


def _has_size(path: Path, f: File) -> bool:
    stamp = _stamp(path)
    return stamp is not None and stamp[0] == f.bytes


def _right(path: Path, f: File, notes: Notes) -> bool:
    """Whether ``path`` is there with the bytes of ``f``; its hash is computed unless the notes know it."""
    if notes.verified(path, f):
        return True
    if not _has_size(path, f) or sha256(path) != f.sha256:
        return False
    notes.remember(path, f)
    return True


def _check_mirror(mirror: Path, entry: DataSet, files: Iterable[File]) -> None:
    notes = Notes(mirror / entry.name)
    for f in files:
        path = mirror / entry.name / f.file
        if _right(path, f, notes):
            continue
        size = _size(path)
        if size != f.bytes:
            wrong = f"is {'cut short' if size < f.bytes else 'too long'} ({size:,} of {f.bytes:,} bytes)"
        else:
            wrong = "has the right size but other bytes than the registry knows (sha256 differs)"
        raise MirrorError(
            f"{path} in the mirror {wrong}: copy it again from {f.url}, or remove it from the mirror and scprimer "
            "downloads it into the cache"
        )
    notes.save()


# ---- one file ------------------------------------------------------------------------------------------------------
def _download(f: File, target: Path, advance: Callable[[int], None]) -> None:
    """Fetch one file to ``target``: pooch checks the hash and moves it there, :func:`_resume` does the transfer."""
    part = _part(f)
    resumed = part.exists()
    try:
        _retrieve(f, target, part, advance)
    except ValueError as error:  # pooch's word for a wrong hash; it keeps nothing
        if resumed:  # the remains of an earlier download may be what is wrong: once more from the start
            advance(-f.bytes)
            return _download(f, target, advance)
        raise WrongHash(
            f"{f.url} gives other bytes than the registry knows (sha256 differs); nothing was kept. Was it a proxy's "
            f"page instead of the file? Open the address in a browser, or {_otherwise(f)}"
        ) from error


def _retrieve(f: File, target: Path, part: Path, advance: Callable[[int], None]) -> None:
    import pooch

    log = pooch.get_logger()
    level = log.level
    log.setLevel("ERROR")  # it announces every file on stderr; the progress bar says enough
    try:
        pooch.retrieve(
            f.url,
            known_hash=f"sha256:{f.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=lambda url, output, _: _resume(url, Path(output), part, f, advance),
        )
    finally:
        log.setLevel(level)


def _resume(url: str, output: Path, part: Path, f: File, advance: Callable[[int], None]) -> None:
    """Transfer ``url`` to ``output`` by way of ``part``, going on where an earlier transfer stopped."""
    import requests

    part.parent.mkdir(parents=True, exist_ok=True)
    if _size(part) > f.bytes:
        part.unlink()
    advance(_size(part))
    trouble: Exception | None = None
    for attempt in range(TRIES):
        if part.exists() and _size(part) == f.bytes:
            break
        time.sleep(PATIENCE * (2**attempt - 1))  # 0, 1, 3 seconds
        try:
            _transfer(url, part, f, advance)
        except (requests.RequestException, _Again) as error:
            trouble = error
    have = _size(part)
    if have != f.bytes:
        if not have:
            part.unlink(missing_ok=True)
        raise DownloadError(_interrupted(url, f, have, trouble)) from trouble
    part.replace(output)  # pooch's temporary file, beside the target


class _Again(Exception):
    """The server could not answer now: worth another attempt."""


def _transfer(url: str, part: Path, f: File, advance: Callable[[int], None]) -> None:
    """One request: append what is missing, or begin anew when the server does not know ranges."""
    import requests

    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # our remains are of no use to this server
            part.unlink(missing_ok=True)
            advance(-have)
            raise _Again("the server refused to continue the download")
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _Again(f"the server answered {answer.status_code} {answer.reason}")
        if answer.status_code not in (200, 206):
            raise DownloadError(
                f"{url} answered {answer.status_code} {answer.reason}: the file has moved or may not be fetched. "
                f"Update scprimer (a newer registry may know where it is), or {_otherwise(f)}"
            )
        goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not goes_on:
            advance(-have)
            have = 0
        with part.open("ab" if have else "wb") as handle:
            for block in answer.iter_content(BLOCK):
                handle.write(block)
                have += len(block)
                advance(len(block))
                if have > f.bytes:
                    break
    if have > f.bytes:
        part.unlink()
        raise WrongHash(
            f"{url} gives more than the {f.bytes:,} bytes that the registry knows: it is another file, nothing was kept. "
            f"Update scprimer, or {_otherwise(f)}"
        )


def _part(f: File) -> Path:
    return cache_folder() / "partial" / f"{f.sha256}.part"


def _interrupted(url: str, f: File, have: int, trouble: Exception | None) -> str:
    import requests

    why = f" ({trouble})" if isinstance(trouble, _Again) else ""
    if have:
        what = f"the download of {url} broke off at {have:,} of {f.bytes:,} bytes{why}; it goes on from there when you try again. "
    elif isinstance(trouble, requests.Timeout):
        what = f"{url} did not answer within {TIMEOUT} seconds. "
    else:
        what = f"{url} cannot be reached{why}. "
    return what + f"Check the network (and HTTPS_PROXY behind a proxy), or {_otherwise(f)}"


def _otherwise(f: File) -> str:
    return (
        f"fetch the file elsewhere, put it into a folder as <data set>/{f.file} and set {MIRROR_VARIABLE} to that "
        "folder; `scprimer data pull NAME` fetches ahead of time"
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent)
    os.close(handle)
    try:
        shutil.copyfile(source, temporary)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# ---- what surrounds it ---------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _lock(entry: DataSet) -> Iterator[None]:
    """One process at a time fetches a data set; the others wait, and then find it there."""
    from filelock import FileLock, Timeout

    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(str(folder / f"{entry.name}.lock"), timeout=WAIT):
            yield
    except Timeout:
        raise DownloadError(
            f"another process has been downloading {entry.name!r} for {WAIT // 60} minutes: wait for it or end it, then try again"
        ) from None


@contextlib.contextmanager
def _cache_errors(files: Iterable[File]) -> Iterator[None]:
    """Say in words what an unwritable cache or a full disk means; the remains of what did not fit are removed."""
    import requests

    try:
        yield
    except (DataError, requests.RequestException):
        raise
    except OSError as error:
        root = cache_folder()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            for f in files:
                _part(f).unlink(missing_ok=True)
            raise CacheError(
                f"the disk of the cache {root} is full: free some space, or set {CACHE_VARIABLE} to a folder with more"
            ) from error
        raise CacheError(
            f"the cache {root} cannot be written ({error.strerror or error}): make it writable, or set {CACHE_VARIABLE} to a "
            f"folder of yours; with all files in a mirror ({MIRROR_VARIABLE}) no cache is needed"
        ) from error


def _check_space(files: list[File]) -> None:
    needed = sum(f.bytes for f in files)
    root = cache_folder()
    free = shutil.disk_usage(root).free
    if free < needed:
        raise CacheError(
            f"{needed / 1e6:.1f} MB are to be fetched and {free / 1e6:.1f} MB are free in the cache {root}: free some space, "
            f"or set {CACHE_VARIABLE} to a folder with more"
        )


@contextlib.contextmanager
def _bar(entry: DataSet, files: list[File]) -> Iterator[Callable[[int], None]]:
    """A progress bar over the bytes of all files, gone when done; silent when ``SCPRIMER_QUIET`` is set."""
    from tqdm.auto import tqdm

    total = sum(f.bytes for f in files)
    quiet = bool(os.environ.get(QUIET_VARIABLE)) or not files
    with tqdm(total=total, desc=entry.name, unit="B", unit_scale=True, leave=False, disable=quiet) as bar:
        yield bar.update
