"""Fetching: a local server that breaks in every way a server can, real caches, real mirrors."""

from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from scprimer.data import CacheError, DataError, DownloadError, MirrorError, WrongHash, commands, download
from scprimer.data.registry import DataSet, File

CONTENT = bytes(range(256)) * 2000  # 512 kB, more than one block of the transfer
OTHER = b"x" + CONTENT[1:]


class Server:
    """Serves CONTENT under any path; what goes wrong is set per test, and every request is noted."""

    def __init__(self):
        self.behaviour = []  # one entry a request; "fine" when used up
        self.requests = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                server.requests.append(wanted)
                how = server.behaviour.pop(0) if server.behaviour else "fine"
                server.answer(self, how, wanted)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.bin"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def answer(self, handler, how, wanted):
        body, begin = CONTENT, 0
        if isinstance(how, int) and how >= 400:
            handler.send_error(how)
            return
        if how == "other bytes":
            body = OTHER
        if how == "longer":
            body = CONTENT + b"more"
        if wanted and how != "no ranges":
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
            if begin >= len(body):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        rest = body[begin:]
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        if how == "breaks":  # half of what it promised, then the connection closes
            rest = rest[: len(rest) // 2]
            handler.close_connection = True
        handler.wfile.write(rest)

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SCPRIMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SCPRIMER_MIRROR", raising=False)
    monkeypatch.setenv("SCPRIMER_QUIET", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PATIENCE", 0.001)
    return tmp_path


def entry(url: str, content: bytes = CONTENT, file: str = "file.bin", name: str = "tiny", **more) -> DataSet:
    f = File(file, len(content), hashlib.sha256(content).hexdigest(), url)
    row = dict.fromkeys(("title", "licence", "licence_note", "citation", "organism", "x", "labels", "remark"), "")
    return DataSet(name=name, files=(f,), loader="none:none", **row, **more)


def left_behind(root: Path) -> list[str]:
    """Files in the cache other than notes and locks."""
    files = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    return sorted(f for f in files if not f.startswith(("verified/", "locks/")))


# ---- downloads -----------------------------------------------------------------------------------------------------
def test_a_file_is_fetched_once(server, tmp_path, capsys):
    tiny = entry(server.url)
    folder = download.fetch_files(tiny)
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert left_behind(tmp_path / "cache") == ["data/tiny/file.bin"]
    assert download.fetch_files(tiny) == folder
    assert server.requests == [None]
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""  # SCPRIMER_QUIET


def test_a_progress_bar_shows_unless_quiet(server, monkeypatch, capsys):
    monkeypatch.delenv("SCPRIMER_QUIET")
    download.fetch_files(entry(server.url))
    assert "tiny" in capsys.readouterr().err


def test_a_file_in_a_folder_of_its_own(server, tmp_path):
    folder = download.fetch_files(entry(server.url, file="deep/er/file.bin"))
    assert (folder / "deep/er/file.bin").read_bytes() == CONTENT
    assert left_behind(tmp_path / "cache") == ["data/tiny/deep/er/file.bin"]


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.behaviour = ["breaks", "breaks"]
    folder = download.fetch_files(entry(server.url))
    assert (folder / "file.bin").read_bytes() == CONTENT
    first, second = (int(r.removeprefix("bytes=").rstrip("-")) for r in server.requests[1:])
    half = len(CONTENT) // 2
    assert half - download.BLOCK <= first <= half < second  # at most the block in transit is fetched again
    assert left_behind(tmp_path / "cache") == ["data/tiny/file.bin"]


def test_a_truncated_file_is_an_error_and_the_next_call_goes_on(server, tmp_path):
    server.behaviour = ["breaks"] * download.TRIES
    with pytest.raises(DownloadError, match=r"broke off at [\d,]+ of 512,000 bytes.*goes on from there"):
        download.fetch_files(entry(server.url))
    assert not (tmp_path / "cache/data/tiny/file.bin").exists()
    assert all(f.startswith("partial/") for f in left_behind(tmp_path / "cache"))
    before = len(server.requests)
    folder = download.fetch_files(entry(server.url))
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert len(server.requests) == before + 1 and server.requests[-1] != "bytes=0-"
    assert left_behind(tmp_path / "cache") == ["data/tiny/file.bin"]


def test_a_server_without_ranges_starts_anew(server):
    server.behaviour = ["breaks", "no ranges"]
    folder = download.fetch_files(entry(server.url))
    assert (folder / "file.bin").read_bytes() == CONTENT


def test_damaged_remains_of_an_earlier_download_do_no_harm(server, tmp_path):
    tiny = entry(server.url)
    part = tmp_path / "cache/partial" / f"{tiny.files[0].sha256}.part"
    part.parent.mkdir(parents=True)
    for remains in (b"rubbish", b"r" * len(CONTENT), b"r" * (len(CONTENT) + 5)):
        part.write_bytes(remains)
        folder = download.fetch_files(tiny)
        assert (folder / "file.bin").read_bytes() == CONTENT
        assert left_behind(tmp_path / "cache") == ["data/tiny/file.bin"]
        (folder / "file.bin").unlink()


def test_other_bytes_than_the_registry_knows(server, tmp_path):
    server.behaviour = ["other bytes"] * 5
    with pytest.raises(WrongHash, match=r"sha256 differs.*nothing was kept") as caught:
        download.fetch_files(entry(server.url))
    assert "SCPRIMER_MIRROR" in str(caught.value)
    assert left_behind(tmp_path / "cache") == []


def test_a_longer_file_than_the_registry_knows(server, tmp_path):
    server.behaviour = ["longer"] * 5
    with pytest.raises(WrongHash, match="gives more than the 512,000 bytes"):
        download.fetch_files(entry(server.url))
    assert left_behind(tmp_path / "cache") == []


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_gone(server, tmp_path, status):
    server.behaviour = [status] * 5
    with pytest.raises(DownloadError, match=f"answered {status} .*the file has moved"):
        download.fetch_files(entry(server.url))
    assert len(server.requests) == 1  # no use in asking again
    assert left_behind(tmp_path / "cache") == []


def test_a_busy_server_is_asked_again(server):
    server.behaviour = [503, 429]
    folder = download.fetch_files(entry(server.url))
    assert (folder / "file.bin").read_bytes() == CONTENT


def test_a_server_that_stays_busy(server, tmp_path):
    server.behaviour = [503] * 10
    with pytest.raises(DownloadError, match=r"cannot be reached \(the server answered 503"):
        download.fetch_files(entry(server.url))
    assert left_behind(tmp_path / "cache") == []


def test_no_network(server, tmp_path):
    server.close()  # nobody listens at that port any more
    with pytest.raises(DownloadError, match=r"cannot be reached.*Check the network.*SCPRIMER_MIRROR.*data pull"):
        download.fetch_files(entry(server.url))
    assert left_behind(tmp_path / "cache") == []


def test_a_server_that_never_answers(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(DownloadError, match="did not answer within"):
            download.fetch_files(entry(f"http://127.0.0.1:{deaf.getsockname()[1]}/file.bin"))
    assert left_behind(tmp_path / "cache") == []


def test_an_interrupted_download_goes_on(server, tmp_path, monkeypatch):
    tiny = entry(server.url)

    def interrupt(advance, calls=[]):  # noqa: B006 - one list for all calls is what is wanted
        calls.append(advance)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download._download(tiny.files[0], tmp_path / "cache/data/tiny/file.bin", interrupt)
    (remains,) = left_behind(tmp_path / "cache")
    assert remains.startswith("partial/")
    size = (tmp_path / "cache" / remains).stat().st_size
    assert 0 < size < len(CONTENT)
    folder = download.fetch_files(tiny)
    assert server.requests[-1] == f"bytes={size}-"
    assert (folder / "file.bin").read_bytes() == CONTENT


# ---- the cache -----------------------------------------------------------------------------------------------------
def test_a_damaged_file_in_the_cache_is_fetched_again(server):
    tiny = entry(server.url)
    folder = download.fetch_files(tiny)
    (folder / "file.bin").write_bytes(OTHER)
    assert (download.fetch_files(tiny) / "file.bin").read_bytes() == CONTENT
    (folder / "file.bin").write_bytes(CONTENT[:100])
    assert (download.fetch_files(tiny) / "file.bin").read_bytes() == CONTENT


def test_the_hash_is_computed_once(server, monkeypatch):
    tiny = entry(server.url)
    folder = download.fetch_files(tiny)
    monkeypatch.setattr(download, "sha256", lambda path: pytest.fail("hashed again"))
    download.fetch_files(tiny)
    os.utime(folder / "file.bin", ns=(0, 0))  # touched: no longer known to be right
    with pytest.raises(pytest.fail.Exception):
        download.fetch_files(tiny)


def test_a_cache_that_is_a_file(server, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("something else")
    monkeypatch.setenv("SCPRIMER_CACHE", str(tmp_path / "taken"))
    with pytest.raises(CacheError, match=r"cannot be written.*SCPRIMER_CACHE"):
        download.fetch_files(entry(server.url))
    assert (tmp_path / "taken").read_text() == "something else"
    assert server.requests == []


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a folder that nobody may write, such as Linux's /proc"
)
def test_a_cache_that_nobody_may_write(server, monkeypatch):
    monkeypatch.setenv("SCPRIMER_CACHE", "/proc/scprimer")
    with pytest.raises(CacheError, match=r"/proc/scprimer cannot be written"):
        download.fetch_files(entry(server.url))
    assert server.requests == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_cache(server, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o555)
    try:
        with pytest.raises(CacheError, match="cannot be written"):
            download.fetch_files(entry(server.url))
    finally:
        cache.chmod(0o755)


def test_a_filled_cache_serves_even_where_it_cannot_be_written(server, tmp_path, monkeypatch):
    tiny = entry(server.url)
    folder = download.fetch_files(tiny)
    for path in (tmp_path / "cache/verified").iterdir():
        path.unlink()
    (tmp_path / "cache/verified").rmdir()
    (tmp_path / "cache/verified").write_text("in the way")  # notes cannot be written any more
    assert download.fetch_files(tiny) == folder


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a device that is always full")
def test_a_full_disk(server, tmp_path):
    tiny = entry(server.url)
    part = tmp_path / "cache/partial" / f"{tiny.files[0].sha256}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(CacheError, match=r"disk of the cache .* is full.*SCPRIMER_CACHE"):
        download.fetch_files(tiny)
    assert not part.is_symlink()
    assert left_behind(tmp_path / "cache") == []
    assert (download.fetch_files(tiny) / "file.bin").read_bytes() == CONTENT


def test_too_little_room_is_said_before_anything_is_fetched(server, tmp_path):
    f = File("file.bin", 10**18, "0" * 64, server.url)
    huge = DataSet(**{**vars(entry(server.url)), "files": (f,)})
    with pytest.raises(CacheError, match="MB are free in the cache"):
        download.fetch_files(huge)
    assert server.requests == []


def _fetch_in_a_process(url: str, barrier, results) -> None:
    barrier.wait()
    try:
        results.put((download.fetch_files(entry(url)) / "file.bin").read_bytes() == CONTENT)
    except BaseException as error:
        results.put(repr(error))


def test_processes_at_the_same_time_fetch_once(server, tmp_path):
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads, such as JAX's, may hang
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_fetch_in_a_process, args=(server.url, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [True] * 3
    for worker in workers:
        worker.join(timeout=60)
    assert server.requests == [None]
    assert left_behind(tmp_path / "cache") == ["data/tiny/file.bin"]


# ---- mirrors -------------------------------------------------------------------------------------------------------
@pytest.fixture
def own_mirror(tmp_path, monkeypatch):
    (tmp_path / "mirror/tiny").mkdir(parents=True)
    (tmp_path / "mirror/tiny/file.bin").write_bytes(CONTENT)
    monkeypatch.setenv("SCPRIMER_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


def test_a_mirror_is_read_in_place(server, own_mirror, tmp_path):
    tiny = entry(server.url)
    assert download.fetch_files(tiny) == own_mirror / "tiny"
    assert server.requests == []
    assert left_behind(tmp_path / "cache") == []
    assert download.whereabouts(tiny) == "mirror"


def test_a_mirrors_hash_is_computed_once(server, own_mirror, monkeypatch):
    download.fetch_files(entry(server.url))
    monkeypatch.setattr(download, "sha256", lambda path: pytest.fail("hashed again"))
    download.fetch_files(entry(server.url))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CONTENT[:1000], r"cut short \(1,000 of 512,000 bytes\)"),
        (CONTENT + b"x", "too long"),
        (OTHER, "sha256 differs"),
    ],
)
def test_a_damaged_mirror_is_named_and_not_passed_over(server, own_mirror, content, words):
    (own_mirror / "tiny/file.bin").write_bytes(content)
    with pytest.raises(MirrorError, match=words) as caught:
        download.fetch_files(entry(server.url))
    assert server.url in str(caught.value) and str(own_mirror) in str(caught.value)
    assert server.requests == []


def test_what_the_mirror_lacks_is_fetched(server, own_mirror, tmp_path):
    tiny = entry(server.url)
    more = File("more.bin", len(CONTENT), tiny.files[0].sha256, server.url)
    both = DataSet(**{**vars(tiny), "files": (*tiny.files, more)})
    folder = download.fetch_files(both)
    assert folder == tmp_path / "cache/data/tiny"
    assert left_behind(tmp_path / "cache") == ["data/tiny/file.bin", "data/tiny/more.bin"]
    assert server.requests == [None]  # the other one was copied from the mirror


def test_a_mirror_that_is_not_there(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SCPRIMER_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(MirrorError, match="is not a folder"):
        download.fetch_files(entry(server.url))


def test_a_mirror_works_without_any_cache(server, own_mirror, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SCPRIMER_CACHE", str(tmp_path / "taken"))
    assert download.fetch_files(entry(server.url)) == own_mirror / "tiny"


def test_only_the_files_of_a_part_are_fetched(server, tmp_path):
    sha = hashlib.sha256(CONTENT).hexdigest()
    files = tuple(File(f"{p}.bin", len(CONTENT), sha, server.url, (p,)) for p in ("a", "b"))
    two = DataSet(**{**vars(entry(server.url)), "files": files, "parts": ("a", "b")})
    download.fetch_files(two, "b")
    assert left_behind(tmp_path / "cache") == ["data/tiny/b.bin"]
    assert download.whereabouts(two) == "partly"
    with pytest.raises(DataError, match="no part of 'tiny' called 'c'"):
        download.fetch_files(two, "c")


# ---- the commands --------------------------------------------------------------------------------------------------
@pytest.fixture
def tiny_registry(server, monkeypatch):
    rows = {"tiny": entry(server.url), "lost": entry(server.url.replace("file", "lost"), OTHER, name="lost")}
    for module in (commands,):
        monkeypatch.setattr(module, "describe", lambda name: rows[name] if name in rows else download_unknown(name))
        monkeypatch.setattr(module, "names", lambda: list(rows))
    return rows


def download_unknown(name):
    from scprimer.data.errors import nearest

    raise nearest("data set", name, ["tiny", "lost"])


def run(*words: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.main(parser.parse_args(words))


def test_list_says_what_is_here(tiny_registry, capsys):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "MB", "here", "licence", "what", "it", "is"]
    assert lines[1].split()[:3] == ["tiny", "0.5", "absent"]
    assert run("pull", "tiny") == 0
    capsys.readouterr()
    run("list")
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["tiny", "0.5", "cached"]


def test_list_of_the_real_registry(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    assert "pbmc3k" in out and "GPL-2.0-or-later" in out and "No mirror" in out
    assert run("list", "cell-mixology") == 0
    assert "sc_celseq2_5cl" in capsys.readouterr().out


def test_pull_goes_on_after_a_failure(tiny_registry, capsys):
    assert run("pull", "--all") == 1  # "lost" has other bytes than the server gives
    out = capsys.readouterr().out
    assert "tiny: 0.5 MB in" in out and "lost: FAILED" in out and "1 of 2 could not be had" in out


def test_pull_wants_names(tiny_registry, capsys):
    assert run("pull") == 2
    assert "--all" in capsys.readouterr().out
    with pytest.raises(DataError, match="did you mean 'tiny'"):
        run("pull", "tny")


def test_verify_finds_damage(tiny_registry, tmp_path, capsys):
    assert run("verify") == 0  # nothing here, nothing wrong
    assert run("verify", "tiny") == 1
    assert "absent" in capsys.readouterr().out
    run("pull", "tiny")
    assert run("verify", "tiny") == 0
    path = tmp_path / "cache/data/tiny/file.bin"
    path.write_bytes(OTHER)
    capsys.readouterr()
    assert run("verify") == 1
    assert f"DAMAGED {path}" in capsys.readouterr().out
