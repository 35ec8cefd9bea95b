"""The explorer on a page without a kernel, used by mouse and by keyboard, on a desk and on a phone, in light and in dark."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from explorer_example import HOSTILE, example_bundle

from scprimer import explorer
from scprimer.explorer import view

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>explorer</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,"></head>
<body><main>{body}</main></body></html>"""

# Every text that can be seen with its contrast to the ground that it stands on.
CONTRASTS = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if ((c[3] ?? 1) > 0.99) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll(".ex *")) {
    if (!e.checkVisibility() || !e.getBoundingClientRect().width) continue;
    const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
    if (text && e.tagName !== "OPTION") found.push(["text", ratio(parse(getComputedStyle(e).color), ground(e)), text.slice(0, 30)]);
    if (e.matches("button:not(.ex-link), select, textarea, input:is([type=text], [type=search], [type=number])"))
      found.push(["edge", ratio(parse(getComputedStyle(e).borderTopColor), ground(e.parentElement)), e.tagName]);
    if (e.matches(".ex-fill") && !e.style.background) found.push(["edge", ratio(parse(getComputedStyle(e).backgroundColor), ground(e.parentElement.parentElement)), "bar"]);
  }
  return found;
}"""

# What one can press or tick and that is smaller than a fingertip's 24 pixels.
SMALL = """() => [...document.querySelectorAll(".ex :is(button, select, textarea, input:not([type=file], [type=radio], [type=checkbox]), label:has(input))")]
  .filter((e) => e.checkVisibility()).map((e) => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width < 24 || b.height < 24)
  .map(([e, b]) => `${e.tagName} ${e.textContent.slice(0, 20)} ${b.width}x${b.height}`)"""

UNNAMED = """() => [...document.querySelectorAll(".ex :is(input, select, textarea, button)")].filter((e) =>
  !(e.labels?.length && [...e.labels].some((l) => l.textContent.trim())) && !e.textContent.trim() && !e.ariaLabel).map((e) => e.outerHTML)"""

COLOURED = """() => { const c = document.querySelector(".ex canvas"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  const seen = new Map(); for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 250) { const k = `${d[i]},${d[i + 1]},${d[i + 2]}`; seen.set(k, (seen.get(k) ?? 0) + 1); }
  return [...seen].filter(([, n]) => n > 60).length; }"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, serve):
    """Pages with the explorer of the simulated bundle: light, dark, and one with two explorers."""
    path = tmp_path_factory.mktemp("explorer")
    made = explorer.explore(example_bundle()).to_html()
    other = explorer.explore(example_bundle(cells=40, seed=1)).to_html()
    for name, theme, body in (("light", "light", made), ("dark", "dark", made), ("two", "light", made + other)):
        (path / f"{name}.html").write_text(PAGE.format(theme=theme, body=body), encoding="utf-8")
    return SimpleNamespace(path=path, address=serve(path))


@pytest.fixture
def at(window, folder):
    """Opens a page of the folder and waits for its explorer: ``at("light", size="phone") -> Visit``."""

    def open_page(name: str = "light", **options):
        seen = window(folder.address, **options)
        seen.go(f"{name}.html")
        seen.page.wait_for_selector(".ex .ex-summary:not(:empty)")
        return seen

    return open_page


def summary(page) -> str:
    return page.locator(".ex-summary").inner_text()


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_sound_and_can_be_read(at, theme, size):
    seen = at(theme, size=size)
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    wide = page.evaluate("""[...document.querySelectorAll('.ex *')].filter((e) => e.checkVisibility()
        && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((e) => e.outerHTML.slice(0, 80))""")
    assert wide == []
    measured = page.evaluate(CONTRASTS)
    assert len(measured) > 60 and {kind for kind, *_ in measured} == {"text", "edge"}
    assert [m for m in measured if m[1] < (4.5 if m[0] == "text" else 3)] == []
    assert page.evaluate(SMALL) == []
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(COLOURED) >= 2
    assert seen.faults == []


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_it_is_explored_by_mouse(at, size):
    seen = at(size=size)
    page = seen.page
    assert summary(page).startswith("Concept C0 of Count VAE on simulated A: strongest in B cells")
    page.get_by_label("Data").select_option("simulated B")
    assert "on simulated B" in summary(page)
    assert page.get_by_role("columnheader", name="stimulated").is_visible()
    page.get_by_label("Concept or neuron").select_option(label="C5")
    assert summary(page).startswith("Concept C5 of Count VAE on simulated B: strongest in CD14+ Monocytes")
    assert page.locator(".ex-genes th").first.inner_text() == "GENE0005"
    assert page.locator(".ex-pathways").inner_text().startswith("Pathways\nResponse to signal 5")
    page.get_by_label("Model").select_option("Small transformer")
    assert summary(page).startswith("Concept C0 of Small transformer on simulated B")
    page.get_by_role("button", name="Next", exact=True).click()
    assert summary(page).startswith("Concept C1 of")
    page.get_by_role("button", name="Previous").click(click_count=2, delay=20)
    assert summary(page).startswith("Neuron N3 of")  # round the end

    page.get_by_label("Find by gene").fill("gene0006")
    found = page.locator(".ex-found button").first
    assert "C6 (GENE0006, no. 1)" in found.inner_text()
    found.click()
    assert summary(page).startswith("Concept C6 of Small transformer")
    across = page.locator(".ex-near button", has_text="Count VAE on simulated A").first
    assert across.inner_text().startswith("C6,")
    across.click()
    assert summary(page).startswith("Concept C6 of Count VAE on simulated A")
    assert page.get_by_label("Model").input_value() == "Count VAE"
    page.get_by_label("Find by gene").fill("nothing")
    assert "No item has NOTHING" in page.locator(".ex-found").inner_text()

    before = page.locator("canvas").screenshot()
    page.locator(".ex-cells button").first.click()
    assert page.locator(".ex-readout").inner_text().startswith("Ringed: CD8 T, 100 %")
    assert page.locator("canvas").screenshot() != before
    page.get_by_role("radio", name="cell type").check()
    assert page.locator(".ex-legend").inner_text().split("\n") == ["B cells", "CD14+ Monocytes", "CD8 T", "NK"]
    assert page.evaluate(COLOURED) >= 4
    page.locator("canvas").scroll_into_view_if_needed()
    box = page.locator("canvas").bounding_box()
    words = set()
    for i in range(12):
        page.mouse.move(box["x"] + box["width"] * (i + 0.5) / 12, box["y"] + box["height"] * 0.7)
        words.add(page.locator(".ex-readout").inner_text())
    assert any(w.startswith("Here: ") for w in words)
    assert seen.faults == []


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_it_is_explored_and_rated_by_keyboard(at, size):
    seen = at(size=size)
    page = seen.page
    where = "(() => { const e = document.activeElement; return (e.labels?.[0] ?? e).textContent.trim() || e.ariaLabel || e.tagName; })()"

    def tab_to(words: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(where).startswith(words):
                break
        else:
            pytest.fail(f"the tabulator does not lead to {words!r}")
        target = "document.activeElement.closest('.ex-choice label, .ex-file') ?? document.activeElement"
        assert page.evaluate(f"parseFloat(getComputedStyle({target}).outlineWidth)") >= 2, words

    tab_to("Data")
    page.keyboard.press("ArrowDown")
    assert "on simulated B" in summary(page)
    tab_to("Concept or neuron")
    page.keyboard.press("ArrowDown")
    assert summary(page).startswith("Concept C1 of")
    tab_to("Find by gene")
    page.keyboard.type("GENE0004")
    tab_to("C4 (GENE0004")
    page.keyboard.press("Enter")
    assert summary(page).startswith("Concept C4 of")
    tab_to("Next")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert summary(page).startswith("Concept C6 of")
    tab_to("activation")
    tab_to("Embedding of the cells")
    page.keyboard.press("ArrowLeft")
    assert summary(page).startswith("Concept C5 of")
    tab_to("CD14+ Monocytes")  # the first of the top cells
    page.keyboard.press("Enter")
    assert page.locator(".ex-readout").inner_text().startswith("Ringed")
    tab_to("1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    tab_to("Name")
    page.keyboard.type("Monocytes")
    tab_to("Note")
    page.keyboard.type("Clear")
    tab_to("Rater")
    page.keyboard.type("Ada")
    tab_to("Save sheet")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    table = explorer.read_sheet(download.value.path())
    assert table[["rater", "item", "kind", "rating", "name", "note"]].values.tolist() == [
        ["Ada", "Count VAE/simulated B/C5", "concept", 3, "Monocytes", "Clear"]
    ]
    tab_to("Load sheet")
    assert seen.faults == []


def test_the_sheet_is_saved_loaded_and_kept(at, tmp_path):
    first = at()
    page = first.page
    page.get_by_role("button", name="Save sheet").click()
    assert "Write your name" in page.locator(".ex-said").inner_text()
    assert page.evaluate("document.activeElement.labels[0].textContent") == "Rater"
    page.get_by_label("Rater").fill("Ada Ö.")
    page.locator(".ex-scale label", has_text="4").click()
    page.get_by_label("Name").fill('B, "naive"')
    page.get_by_label("Note").fill("one\ntwo <b>three</b>")
    page.wait_for_timeout(250)
    page.get_by_label("Concept or neuron").select_option(label="N2")
    assert page.get_by_label("Name").input_value() == "" and page.locator(".ex-scale :checked").count() == 0
    page.locator(".ex-scale label", has_text="1").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save sheet").click()
    saved = download.value.path()
    assert download.value.suggested_filename == "concepts-Ada-Ö-.csv"

    # the file is the one that Python writes, byte for byte, and Python reads it
    live = explorer.explore(example_bundle())
    live.load(saved)
    live.save(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == saved.read_bytes()
    assert live.rater == "Ada Ö."
    rows = live.sheet
    assert rows["item"].tolist() == ["Count VAE/simulated A/C0", "Count VAE/simulated A/N2"]
    assert rows["rating"].tolist() == [4, 1] and rows["kind"].tolist() == ["concept", "neuron"]
    assert rows["name"].tolist() == ['B, "naive"', ""] and rows["note"][0] == "one\ntwo <b>three</b>"
    assert 0 < rows["seconds"][0] < 60 and not rows["blind"].any()

    # this browser keeps it; another one takes it from the file
    first.go("light.html")
    page.wait_for_selector(".ex-summary:not(:empty)")
    assert (
        page.get_by_label("Name").input_value() == 'B, "naive"' and page.get_by_label("Rater").input_value() == "Ada Ö."
    )
    second = at()
    page = second.page
    assert page.get_by_label("Name").input_value() == ""
    page.locator("input[type=file]").set_input_files(saved)
    page.wait_for_selector(".ex-said:has-text('Loaded 2 rows of Ada')")
    assert page.get_by_label("Note").input_value() == "one\ntwo <b>three</b>"
    assert page.locator(".ex-scale :checked").input_value() == "4"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save sheet").click()
    assert download.value.path().read_bytes() == saved.read_bytes()
    assert first.faults == second.faults == []


@pytest.mark.parametrize("text, words", [
    ("item,rating\nx,1\n", "This is no sheet of the explorer"),
    ("{head}Ada,Count VAE/simulated A/C0,concept,9,,,1,yes\n", "Row 2 of the sheet has the rating 9"),
    ("{head}Ada,Count VAE/simulated A/C0,neuron,3,,,1,yes\n", "which is not in this explorer"),
    ("{head}Ada,Count VAE/simulated A/C0,concept,3,,,1\n", "has 7 fields instead of 8"),
    ("{head}Ada,Count VAE/simulated A/C0,concept,3,,,1,yes\nBob,Count VAE/simulated A/C1,concept,3,,,1,yes\n", "several raters"),
])  # fmt: skip
def test_a_malformed_sheet_changes_nothing(at, text, words):
    seen = at()
    page = seen.page
    page.get_by_label("Name").fill("mine")
    text = text.replace("{head}", ",".join(explorer.COLUMNS) + "\n")
    page.locator("input[type=file]").set_input_files(
        {"name": "bad.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )
    page.wait_for_selector(".ex-wrong")
    said = page.locator(".ex-said").inner_text()
    assert said.startswith("bad.csv: ") and words in said and said.endswith("Nothing was changed.")
    assert page.get_by_label("Name").input_value() == "mine"
    assert seen.faults == []


def test_blind_mode_hides_the_kind_and_comes_in_a_seeded_order(at):
    def go_through(seed: int) -> list[str]:
        """The first top gene of each item in the order of the seed: only the test knows what it stands for."""
        seen = at()
        page = seen.page
        page.get_by_label("Rate blind").check()
        page.get_by_label("Order number").fill(str(seed))
        page.get_by_label("Order number").press("Tab")
        genes = []
        for at_item in range(1, 13):
            assert page.locator(".ex-position").inner_text() == f"{at_item} of 12"
            assert not page.get_by_label("Concept or neuron").is_visible()
            markup = page.locator(".ex").evaluate("e => e.outerHTML")
            for fixed in ("Concept or neuron", "Concepts and neurons come mixed"):  # there whatever is shown
                assert markup.count(fixed) == 1
                markup = markup.replace(fixed, "")
            assert not re.search(r"\b[CN]\d+\b|[Nn]euron|other seeds|cosine", markup)
            assert summary(page).startswith(f"Item {at_item} of Count VAE")
            genes.append(page.locator(".ex-genes th").first.inner_text())
            page.get_by_role("button", name="Next", exact=True).click()
        assert seen.faults == []
        return genes

    first, again, other = go_through(3), go_through(3), go_through(4)
    assert first == again != other
    assert sorted(first) == sorted(other) and len(set(first)) == 12
    assert first != sorted(first)


def test_blind_ratings_are_marked_and_progress_is_shown(at):
    seen = at()
    page = seen.page
    page.get_by_label("Rater").fill("Ada")
    page.locator(".ex-scale label", has_text="2").click()
    page.get_by_label("Rate blind").check()
    assert "1 of 12 rated" in page.locator(".ex-blind").inner_text()
    assert page.locator(".ex-scale :checked").count() == 0  # begins with an item that has no rating
    for _ in range(11):
        page.locator(".ex-scale label", has_text="3").click()
        page.get_by_role("button", name="Next unrated").click()
    assert "12 of 12 rated" in page.locator(".ex-blind").inner_text()
    assert page.locator("progress").evaluate("e => [e.value, e.max]") == [12, 12]
    assert "All items of this pair are rated" in page.locator(".ex-said").inner_text()
    page.get_by_label("Rate blind").uncheck()
    assert re.match(r"(Concept C|Neuron N)\d", summary(page))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save sheet").click()
    table = explorer.read_sheet(download.value.path()).set_index("item")
    assert not table.loc["Count VAE/simulated A/C0", "blind"] and table["blind"].sum() == 11
    assert seen.faults == []


def test_what_a_bundle_says_is_text_and_nothing_more(at):
    seen = at()
    page = seen.page
    page.get_by_label("Concept or neuron").select_option(label="C2")
    assert page.locator(".ex-genes th").first.inner_text() == HOSTILE
    page.get_by_label("Name").fill(HOSTILE)
    page.get_by_label("Find by gene").fill("</scr")
    assert HOSTILE in page.locator(".ex-found button").first.inner_text()
    assert page.locator(".ex img").count() == 0 and page.title() == "explorer"
    assert seen.faults == []


def test_two_explorers_on_a_page_do_not_mix(at):
    seen = at("two")
    page = seen.page
    one, two = page.locator(".ex").nth(0), page.locator(".ex").nth(1)
    two.locator(".ex-summary:not(:empty)").wait_for()
    one.locator(".ex-scale label", has_text="5").click()
    two.locator(".ex-scale label", has_text="1").click()
    assert one.locator(".ex-scale :checked").input_value() == "5"
    assert one.locator(".ex-files").inner_text().endswith("1 row in the sheet")
    page.reload()
    two.locator(".ex-summary:not(:empty)").wait_for()
    assert [e.locator(".ex-scale :checked").input_value() for e in (one, two)] == ["5", "1"]
    assert seen.faults == []


def test_it_follows_the_book_into_the_dark(at):
    seen = at()
    page = seen.page
    ground = "getComputedStyle(document.querySelector('.ex')).backgroundColor"
    light, picture = page.evaluate(ground), page.locator("canvas").screenshot()
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(100)
    assert page.evaluate(ground) == "rgb(20, 25, 29)" != light
    assert page.locator("canvas").screenshot() != picture
    assert seen.faults == []


def test_nothing_moves(at):
    seen = at(reduced_motion="reduce")
    moving = """[...document.querySelectorAll('.ex *')].filter((e) => { const s = getComputedStyle(e);
        return s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0; }).length"""
    assert seen.page.evaluate(moving) == 0


def test_without_scripts_the_page_says_what_is_missing(window, folder):
    seen = window(folder.address, java_script_enabled=False)
    seen.page.goto(folder.address + "light.html")
    assert seen.page.locator("main").inner_text().strip() == view.FALLBACK
