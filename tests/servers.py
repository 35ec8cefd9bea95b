"""Programs that serve on loopback while tests run, and that leave nothing behind."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

PATIENCE = 240  # seconds until a server must answer; a busy machine is slow
GOODBYE = 30  # seconds that a server gets to end itself and what it started


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def serving(
    command: Sequence[str], ready: str, *, env: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[subprocess.Popen]:
    """Run ``command`` from when the address ``ready`` answers until the block ends, however it ends.

    The server is asked to stop. What it leaves behind is ended, and is an error: a server that forgets its children would
    fill the machine of whoever runs it.
    """
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=dict(env), cwd=cwd, stdout=out, stderr=out)
    try:
        _wait(ready, server, log)
        yield server
    finally:
        left = _stop(server)
    assert not left, f"left running by {command[0]}: {left}\n{said(log)}"


def said(log: Path) -> str:
    """The last lines of a server's log."""
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            pytest.fail(f"the server ended:\n{said(log)}", pytrace=False)
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the server did not answer at {address.split('?')[0]}:\n{said(log)}", pytrace=False)


def _stop(server: subprocess.Popen) -> list[str]:
    """End a server and all that descends from it; the commands of those that had to be killed."""
    if server.poll() is not None:
        return []
    family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
    server.terminate()
    _, alive = psutil.wait_procs(family, timeout=GOODBYE)
    left = []
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(" ".join(process.cmdline())[:200])
            process.kill()
    psutil.wait_procs(alive, timeout=GOODBYE)
    server.poll()
    return left
