"""A built site, served on loopback."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from pathlib import Path

import livelab
import pytest


@pytest.fixture(scope="session")
def site(root, tmp_path_factory) -> Path:
    """The folder of the built book: SCPRIMER_SITE, or a build of its own."""
    given = os.environ.get("SCPRIMER_SITE")
    if given:
        folder = Path(given) if Path(given).is_absolute() else root / given
        if not (folder / "index.html").is_file():
            pytest.fail(f"SCPRIMER_SITE={given} holds no index.html: build the book first (make book)", pytrace=False)
        return folder
    from scprimer.publish import build

    return build.build(root, out=tmp_path_factory.mktemp("site"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def serve():
    """Serves a folder on loopback: ``serve(folder) -> address``."""
    servers = []

    def begin(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield begin
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="session")
def address(site, serve) -> str:
    """Where the site is served."""
    return serve(site)


@pytest.fixture(scope="session")
def axe(root, cannot_run) -> str:
    """The source of axe-core, which tests/browser/axe.sh has fetched."""
    found = sorted((root / "_build" / "tools").glob("axe-core-*/axe.min.js"))
    if not found:
        cannot_run("axe-core is not here: run `sh tests/browser/axe.sh` (it needs npm)")
    return found[-1].read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def lab(root, cannot_run, tmp_path_factory):
    """A running JupyterLab: its address, its token and the folder of its notebooks."""
    yield from livelab.serve(root, tmp_path_factory.mktemp("lab"), cannot_run)


@pytest.fixture
def visit(window, address):
    """Opens a window on the site: ``visit(size="phone", color_scheme="dark", ...) -> Visit``."""
    return functools.partial(window, address)
