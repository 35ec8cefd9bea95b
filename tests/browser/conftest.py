"""A built site, served on loopback, and a headless Chromium that may ask nobody else for anything."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import livelab
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


def required() -> bool:
    return os.environ.get("SCPRIMER_REQUIRE_BROWSER") == "1"


def give_up(reason: str):
    """Skip, unless whoever runs the tests has said that these must run."""
    if required():
        pytest.fail(f"SCPRIMER_REQUIRE_BROWSER=1, and {reason}", pytrace=False)
    pytest.skip(f"BROWSER TESTS SKIPPED: {reason}")


@pytest.fixture(scope="session")
def cannot_run():
    """What to call, with a reason, where something that a test needs is missing."""
    return give_up


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
def browser():
    """A headless Chromium, shared by all tests."""
    executable = next((path for name in NAMES if (path := shutil.which(name))), None)
    if executable is None:
        give_up("no Chromium or Chrome was found (Debian: apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        give_up("the package playwright is not installed (make test installs it)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def axe(root) -> str:
    """The source of axe-core, which tests/browser/axe.sh has fetched."""
    found = sorted((root / "_build" / "tools").glob("axe-core-*/axe.min.js"))
    if not found:
        give_up("axe-core is not here: run `sh tests/browser/axe.sh` (it needs npm)")
    return found[-1].read_text(encoding="utf-8")


class Visit:
    """One page in one window; ``faults`` collects what goes wrong in it."""

    def __init__(self, context, address: str):
        self.address, self.faults = address, []
        self.page = context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        self.page.on("response", lambda r: self.faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        context.route("**/*", self._route)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _route(self, route):
        if route.request.url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.faults.append(f"asks another host: {route.request.url}")
            route.abort()

    def go(self, name: str):
        self.page.goto(self.address + name, wait_until="load")
        self.page.wait_for_timeout(150)
        return self.page


@pytest.fixture
def window(browser):
    """Opens a window on an address: ``window(address, size="phone", color_scheme="dark", ...) -> Visit``."""
    contexts = []

    def open_window(address: str, size: str = "desktop", **options) -> Visit:
        context = browser.new_context(viewport=SIZES[size], **options)
        contexts.append(context)
        return Visit(context, address)

    yield open_window
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def lab(root, cannot_run, tmp_path_factory):
    """A running JupyterLab: its address, its token and the folder of its notebooks."""
    yield from livelab.serve(root, tmp_path_factory.mktemp("lab"), cannot_run)


@pytest.fixture
def visit(window, address):
    """Opens a window on the site: ``visit(size="phone", color_scheme="dark", ...) -> Visit``."""
    return functools.partial(window, address)
