"""Somebody who has never used Jupyter opens a chapter in a JupyterLab of their own and runs it all."""

from __future__ import annotations

import os
import secrets
import sys

import labpage
import pytest
from chromium import SIZES, Visit
from conftest import clean_environment, settings_of_everybody
from labpage import SLOW, LabPage
from servers import free_port, serving
from test_hub import assert_the_report_is_shown, notebook_of

SLUG = "normalisation"  # the quickest at `smoke`


@pytest.fixture
def laboratory(root, book_repository, tmp_path):
    """JupyterLab in a fresh clone, for an account that has no settings: its address (with a token) and the clone."""
    home, clone, port, token = tmp_path / "home", book_repository.checkout, free_port(), secrets.token_urlsafe(24)
    home.mkdir()
    env = clean_environment(
        HOME=home, PYTHONPATH=root, SCPRIMER_PROFILE="smoke", OMP_NUM_THREADS=1,
        JUPYTER_CONFIG_PATH=settings_of_everybody(tmp_path / "etc"),
    )  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={clone}", f"--IdentityProvider.token={token}"]  # fmt: skip
    if os.geteuid() == 0:
        command.append("--allow-root")
    address = f"http://127.0.0.1:{port}/"
    with serving(command, f"{address}api?token={token}", env=env, cwd=clone, log=tmp_path / "log"):
        yield address, token, clone


def test_a_new_user_runs_a_whole_chapter(laboratory, browser):
    address, token, clone = laboratory
    name = notebook_of(SLUG).removeprefix("scprimer/")
    context = browser.new_context(viewport=SIZES["desktop"])
    visit = Visit(context, address)
    visit.page.set_default_timeout(SLOW)
    visit.page.goto(f"{address}lab/tree/{name}?token={token}&reset", wait_until="commit")
    cells = LabPage(visit.page, address, clone, name).run_all()
    context.close()
    assert labpage.errors(cells) == []
    assert all(cell.execution_count for cell in cells if cell.source), "a cell has not run"
    assert_the_report_is_shown(cells, SLUG)
    assert [fault for fault in visit.faults if "another host" in fault] == []
