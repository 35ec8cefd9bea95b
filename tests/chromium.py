"""A headless Chromium that may ask nobody for anything but the server that a test has started."""

from __future__ import annotations

import os
import shutil

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
