"""The explorer in a real JupyterLab: what is clicked in the browser reaches the kernel, and what the kernel loads reaches the browser."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sys
import urllib.request

import pytest
from servers import free_port, serving

from scprimer import explorer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = (
    "from explorer_example import example_bundle\nfrom scprimer import explorer\nview = explorer.explore(example_bundle())\nview",
    'view.save("seen.csv")',
    'view.load("given.csv")',
)
GIVEN = "rater,item,kind,rating,name,note,seconds,blind\nBob,Count VAE/simulated A/C0,concept,1,nothing,,3.0,yes\n"
# Run this cell, and stay in it.
RUN = "Control+Enter"


@pytest.fixture(scope="module")
def lab(root, cannot_run, tmp_path_factory):
    """A JupyterLab on loopback with folders of its own; its address (with a token) and the folder of its notebooks."""
    if importlib.util.find_spec("jupyterlab") is None:
        cannot_run("the package jupyterlab is not installed (make test installs it)")
    top = tmp_path_factory.mktemp("lab")
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


@pytest.fixture
def notebook(lab, window, request):
    """Opens a fresh notebook in a window of the given size and runs its first cell."""
    address, token, work = lab
    import nbformat

    def open_notebook(size: str):
        for name in ("seen.csv", "given.csv"):
            (work / name).unlink(missing_ok=True)
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, work / f"{size}.ipynb")
        seen = window(address, size)
        seen.page.set_default_timeout(180_000)
        seen.page.goto(f"{address}doc/tree/{size}.ipynb?token={token}&reset")
        seen.page.wait_for_selector(".jp-Notebook .jp-Cell")
        _wait_for_kernel(seen.page, f"{address}api/sessions?token={token}", f"{size}.ipynb")
        run(seen.page, 0)
        seen.page.wait_for_selector(".ex .ex-summary:not(:empty)")
        return seen

    return open_notebook


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
    box = page.locator(".jp-CodeCell").nth(cell)
    prompt = box.locator(".jp-InputPrompt")
    box.locator(".cm-content").click()
    page.keyboard.press(RUN)
    page.wait_for_function("e => e.textContent !== '[ ]:'", arg=prompt.element_handle())
    while prompt.inner_text() == "[*]:":
        page.wait_for_timeout(200)
    assert prompt.inner_text() == f"[{cell + 1}]:", box.inner_text()


def test_a_click_reaches_the_kernel_and_a_loaded_sheet_the_browser(notebook, lab):
    *_, work = lab
    seen = notebook("desktop")
    page = seen.page
    assert page.locator(".jp-OutputArea-output .ex").count() == 1
    page.get_by_label("Rater").fill("Ada")
    page.locator(".ex-scale label", has_text="4").click()
    page.locator(".ex label", has_text="Name").locator("input").fill("B cells")
    run(page, 1)
    sheet = explorer.read_sheet(work / "seen.csv")
    assert sheet[["rater", "item", "rating", "name", "blind"]].values.tolist() == [
        ["Ada", "Count VAE/simulated A/C0", 4, "B cells", False]
    ]
    (work / "given.csv").write_text(GIVEN)
    run(page, 2)
    page.wait_for_function("document.querySelector('.ex-scale :checked')?.value === '1'")
    assert page.get_by_label("Rater").input_value() == "Bob"
    assert [f for f in seen.faults if "another host" in f or "page error" in f] == []


def test_on_a_phone_and_by_keyboard_it_keeps_its_keys_from_the_notebook(notebook, lab):
    *_, work = lab
    seen = notebook("phone")
    page = seen.page
    cells = page.locator(".jp-Cell").count()
    assert page.locator(".ex").evaluate("e => e.getBoundingClientRect().right") <= 390
    assert page.locator(".ex").evaluate("e => e.scrollWidth <= e.clientWidth")
    page.locator(".ex-scale label", has_text="5").click()
    page.locator(".ex-scene").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".ex-summary").inner_text().startswith("Concept C1 of")
    page.locator(".ex-scale input").first.focus()
    page.keyboard.press("ArrowRight")
    for key in "ddabxmy":  # in command mode these would delete, insert, cut or turn cells
        page.keyboard.press(key)
    assert page.locator(".ex-summary").inner_text().startswith("Concept C1 of")
    page.get_by_label("Rater").focus()
    page.keyboard.type("Ada")
    assert page.locator(".jp-Cell").count() == cells
    run(page, 1)
    sheet = explorer.read_sheet(work / "seen.csv")
    assert sheet[["item", "rating"]].values.tolist() == [
        ["Count VAE/simulated A/C0", 5],
        ["Count VAE/simulated A/C1", 2],
    ]
    assert [f for f in seen.faults if "another host" in f or "page error" in f] == []
