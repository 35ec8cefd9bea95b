"""A JupyterLab on loopback, and its notebooks in a real browser."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port, serving

# Run this cell, and stay in it.
RUN = "Control+Enter"


def serve(root: Path, top: Path, cannot_run) -> Iterator[tuple[str, str, Path]]:
    """A JupyterLab with folders of its own below ``top``; its address, its token and the folder of its notebooks."""
    if importlib.util.find_spec("jupyterlab") is None:
        cannot_run("the package jupyterlab is not installed (make test installs it)")
    work, config = top / "work", top / "config"
    (config / "labconfig").mkdir(parents=True)
    work.mkdir()
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # it would ask for news
    (config / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    # Extensions of the server that somebody may have installed, and that only cost time here.
    others = ["jupyter_lsp", "jupyterlab_jupytext", "jupyter_server_terminals", "nbgrader.server_extensions.assignment_list",
              "nbgrader.server_extensions.course_list", "nbgrader.server_extensions.formgrader",
              "nbgrader.server_extensions.validate_assignment"]  # fmt: skip
    server_config = {"ServerApp": {"jpserver_extensions": {"jupyterlab": True, **dict.fromkeys(others, False)}}}
    (config / "jupyter_server_config.json").write_text(json.dumps(server_config))
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SCPRIMER_", "JUPYTER_"))} | {
        "JUPYTER_CONFIG_DIR": str(config), "JUPYTER_DATA_DIR": str(top / "data"), "JUPYTER_RUNTIME_DIR": str(top / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(top / "ipython"), "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests"))),
    }  # fmt: skip
    token = secrets.token_hex(8)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={work}", f"--IdentityProvider.token={token}",
               "--LabApp.extension_manager=readonly", "--LabApp.collaborative=False"]  # fmt: skip
    address = f"http://127.0.0.1:{port}/"
    with serving(command, f"{address}api?token={token}", env=env, cwd=work, log=top / "log"):
        yield address, token, work


def open_notebook(lab: tuple[str, str, Path], window, cells: tuple[str, ...], size: str = "desktop", name: str = ""):
    """Write a notebook with these cells and open it in a window; returns the visit once its kernel is idle."""
    import nbformat

    address, token, work = lab
    book, file = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells]), f"{name or size}.ipynb"
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, work / file)
    seen = window(address, size)
    seen.page.set_default_timeout(180_000)
    seen.page.goto(f"{address}doc/tree/{file}?token={token}&reset")
    seen.page.wait_for_selector(".jp-Notebook .jp-Cell")
    _wait_for_kernel(seen.page, f"{address}api/sessions?token={token}", file)
    return seen


def _wait_for_kernel(page, sessions: str, name: str) -> None:
    """Until the notebook's kernel is idle and the page is connected to it; what is run before that is dropped."""
    for _ in range(240):
        with urllib.request.urlopen(sessions, timeout=30) as answer:
            kernels = [s["kernel"] for s in json.load(answer) if s["path"] == name and s["kernel"]]
        if any(k["connections"] and k["execution_state"] == "idle" for k in kernels):
            page.wait_for_function("document.querySelector('.jp-KernelName')?.textContent.includes('Python 3')")
            return
        page.wait_for_timeout(500)
    pytest.fail("JupyterLab started no kernel for the notebook", pytrace=False)


def run(page, cell: int) -> None:
    """Run one cell of the notebook and wait until the kernel has done it."""
    begin(page, cell)
    wait(page, cell)


def begin(page, cell: int) -> None:
    """Run one cell of the notebook, and do not wait for it."""
    box = page.locator(".jp-CodeCell").nth(cell)
    box.locator(".cm-content").click()
    page.keyboard.press(RUN)
    prompt = box.locator(".jp-InputPrompt").element_handle()
    page.wait_for_function("e => e.textContent !== '[ ]:'", arg=prompt)


def wait(page, cell: int) -> None:
    """Wait until the kernel has done one cell of the notebook."""
    box = page.locator(".jp-CodeCell").nth(cell)
    prompt = box.locator(".jp-InputPrompt")
    while prompt.inner_text() == "[*]:":
        page.wait_for_timeout(200)
    assert prompt.inner_text() == f"[{cell + 1}]:", box.inner_text()
