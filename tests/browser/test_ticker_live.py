"""The line below a long cell in a real JupyterLab: it is seen while the cell runs, and a saved notebook holds nothing of it."""

from __future__ import annotations

import json

import pytest
from livelab import begin, open_notebook, run, wait

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = (
    "import time, scprimer\nfrom tqdm.auto import tqdm\n"
    'run = scprimer.start("qc", dataset="pbmc3k", written_for="pbmc3k")',
    "time.sleep(6)",
    'print("before")\ntime.sleep(8)\nprint("after")\n"result"',
    "time.sleep(5)\n1 / 0",
    "for _ in tqdm(range(3), leave=False): time.sleep(0.4)\ntime.sleep(8)",
)


def test_the_line_is_seen_while_a_cell_runs_and_is_not_saved(lab, window):
    *_, work = lab
    seen = open_notebook(lab, window, CELLS, name="ticker")
    page = seen.page
    run(page, 0)
    assert "about" in page.locator(".scprimer-card").inner_text()
    for cell in range(1, len(CELLS)):
        begin(page, cell)
        line = page.locator(".jp-CodeCell").nth(cell).locator(".scprimer-ticker")
        line.wait_for()
        assert line.locator("progress").is_visible()
        first = line.inner_text()
        page.wait_for_function("first => document.querySelector('.scprimer-ticker')?.innerText !== first", arg=first)
        wait(page, cell)
        assert page.locator(".scprimer-ticker").count() == 0
    page.keyboard.press("Control+s")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    for _ in range(100):  # the file is written a moment later
        saved = json.loads((work / "ticker.ipynb").read_text())["cells"]
        if saved[-1]["execution_count"]:
            break
        page.wait_for_timeout(200)
    kinds = [[output["output_type"] for output in cell["outputs"]] for cell in saved]
    assert kinds == [["display_data"], [], ["stream", "execute_result"], ["error"], []]
    assert saved[2]["outputs"][0]["text"] == ["before\n", "after\n"]
    assert "ticker" not in json.dumps([cell["outputs"] for cell in saved])
    assert [f for f in seen.faults if "another host" in f or "page error" in f] == []
