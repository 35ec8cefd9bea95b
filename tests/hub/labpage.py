"""JupyterLab as somebody sits before it: menus, keys, and what a cell shows."""

from __future__ import annotations

import re
import time
from pathlib import Path

import nbformat

SLOW = 300_000  # milliseconds until the interface has done what was asked of it, on a busy machine
RUNNING = 600_000  # and until a chapter at `smoke` has run, which takes a minute where nothing else runs
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"  # the notebook in front; others may be open behind it
FRONT = f"{PANEL} .jp-Notebook"


class LabPage:
    """A notebook that is open in JupyterLab.

    Args:
        page: the browser's page.
        server: address of the Jupyter server, such as ``http://127.0.0.1:8000/user/ada/``.
        folder: what the server serves, on its disk.
        name: the notebook's path in that folder.
    """

    def __init__(self, page, server: str, folder: Path, name: str):
        self.page, self.path = page, folder / name
        page.set_default_timeout(SLOW)
        page.locator(f"{FRONT} .jp-CodeCell").first.wait_for()
        self._wait_for_kernel(f"{server}api/sessions", name)

    def _wait_for_kernel(self, sessions: str, name: str) -> None:
        """Until the kernel is idle and the page is connected to it; what is run before that is dropped."""
        end = time.monotonic() + SLOW / 1000
        while time.monotonic() < end:
            kernels = [s["kernel"] for s in self.page.request.get(sessions).json() if s["path"] == name and s["kernel"]]
            if any(k["connections"] and k["execution_state"] == "idle" for k in kernels):
                self.page.locator(".jp-KernelName:visible", has_text="Python 3").wait_for()
                return
            self.page.wait_for_timeout(500)
        raise TimeoutError(f"JupyterLab started no kernel for {name}")

    def menu(self, name: str, item: str) -> None:
        """Choose an item of the menu bar."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).click()

    def run_all(self) -> list:
        """*Run All Cells*, wait until the kernel has nothing left to do, save; the code cells as they were saved.

        What the notebook held before is cleared first: nothing old can be taken for new.
        """
        self.menu("Edit", "Clear Outputs of All Cells")
        self.menu("Run", "Run All Cells")
        # No cell waits or runs, and at least one has run.
        self.page.wait_for_function(
            """(front) => {
                const prompts = [...document.querySelectorAll(`${front} .jp-CodeCell .jp-InputPrompt`)].map(e => e.textContent);
                return prompts.some(p => /\\d/.test(p)) && !prompts.includes('[*]:');
            }""",
            arg=FRONT,
            timeout=RUNNING,
        )
        return self.saved()

    def saved(self) -> list:
        """Save the notebook, which has changed, and read its code cells from the disk."""
        with self.page.expect_response(lambda a: a.request.method == "PUT" and "/api/contents/" in a.url):
            self.menu("File", "Save Notebook")
        return self.on_disk()

    def on_disk(self) -> list:
        """The code cells as they were saved last."""
        return [c for c in nbformat.read(self.path, as_version=4).cells if c.cell_type == "code"]

    def type_below(self, cell: int, source: str) -> None:
        """Insert a code cell below the code cell with this number, write ``source`` into it, and run it."""
        code = self.page.locator(f"{FRONT} .jp-CodeCell")
        code.nth(cell).locator(".jp-InputPrompt").click()
        self.page.locator(f"{PANEL} [data-jp-item-name=insert] button").click()
        new = code.nth(cell + 1)
        new.locator(".cm-content").click()
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")
        new.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[\d+\]:")).wait_for()


def errors(cells: list) -> list[tuple[int, str]]:
    """Number and words of every error that a code cell shows."""
    return [
        (number, f"{output.ename}: {output.evalue}")
        for number, cell in enumerate(cells)
        for output in cell.outputs
        if output.output_type == "error"
    ]


def text(cell) -> str:
    """What a cell wrote."""
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def number_of(cells: list, source: str) -> int:
    """The number of the one code cell that contains ``source``."""
    (found,) = [number for number, cell in enumerate(cells) if source in cell.source]
    return found
