"""The explorer in a real JupyterLab: what is clicked in the browser reaches the kernel, and what the kernel loads reaches the browser."""

from __future__ import annotations

import pytest
from livelab import open_notebook, run

from scprimer import explorer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = (
    "from explorer_example import example_bundle\nfrom scprimer import explorer\nview = explorer.explore(example_bundle())\nview",
    'view.save("seen.csv")',
    'view.load("given.csv")',
)
GIVEN = "rater,item,kind,rating,name,note,seconds,blind\nBob,Count VAE/simulated A/C0,concept,1,nothing,,3.0,yes\n"


@pytest.fixture
def notebook(lab, window, request):
    """Opens a fresh notebook in a window of the given size and runs its first cell."""
    *_, work = lab

    def opened(size: str):
        for name in ("seen.csv", "given.csv"):
            (work / name).unlink(missing_ok=True)
        seen = open_notebook(lab, window, CELLS, size)
        run(seen.page, 0)
        seen.page.wait_for_selector(".ex .ex-summary:not(:empty)")
        return seen

    return opened


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
