"""What makes pages pleasant to read: words that explain themselves, figures that enlarge, a search that understands, links to
share, a first page that shows the way, and paper."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from sitepages import CHAPTERS

pytestmark = pytest.mark.browser

needs_chapters = pytest.mark.skipif(not CHAPTERS, reason="no chapter is written")


# ---- words of the glossary -------------------------------------------------------------------------------------------------------
@pytest.fixture
def word(visit):
    """A page, a word of the glossary in it, and its explanation."""
    window = visit()
    page = window.go(CHAPTERS[-1])
    link = page.locator("a.scp-term:visible").first
    link.scroll_into_view_if_needed()
    yield page, link, page.locator(".scp-tip")
    assert window.faults == []


@needs_chapters
def test_a_word_explains_itself_under_the_pointer(word):
    page, link, tip = word
    assert tip.is_hidden()
    link.hover()
    tip.wait_for(state="visible")
    about = page.locator("#" + link.get_attribute("aria-describedby"))
    assert tip.inner_text().split() == about.text_content().split() and len(tip.inner_text()) > 40
    box, edge = tip.bounding_box(), page.viewport_size
    assert box["x"] >= 0 and box["x"] + box["width"] <= edge["width"]
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.wait_for_timeout(500)
    assert tip.is_visible(), "the pointer may rest on the explanation"
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    link.hover()
    page.mouse.move(2, 2)
    tip.wait_for(state="hidden")


@needs_chapters
def test_a_word_explains_itself_when_it_has_the_focus(word):
    page, link, tip = word
    link.focus()
    tip.wait_for(state="visible")
    page.wait_for_timeout(600)
    assert tip.is_visible(), "it stays as long as the focus does"
    page.keyboard.press("Escape")
    assert tip.is_hidden() and link.evaluate("e => e === document.activeElement")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    tip.wait_for(state="visible")
    page.locator(".scp-enlarge").first.focus()
    tip.wait_for(state="hidden")


@needs_chapters
def test_a_touch_explains_and_the_second_follows(visit):
    window = visit("phone", has_touch=True, is_mobile=True)
    page = window.go(CHAPTERS[-1])
    link = page.locator("a.scp-term:visible").first
    link.tap()
    page.locator(".scp-tip").wait_for(state="visible")
    box = page.locator(".scp-tip").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 391
    link.tap()
    page.wait_for_url("**/book/glossary.html#*")
    assert window.faults == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_chapter_explains_words_once(site, name):
    text = (site / name).read_text(encoding="utf-8")
    links = re.findall(r'<a class="[^"]*scp-term[^"]*" href="[^"]*#([^"]+)"', text)
    assert len(links) >= 5
    assert set(links) == set(re.findall(r'<div id="about-([^"]+)">', text))
    automatic = [anchor for anchor in links if links.count(anchor) > 1]
    assert automatic == [], "a word is linked where it comes first"


# ---- figures -----------------------------------------------------------------------------------------------------------------------
@needs_chapters
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_figure_can_be_enlarged(visit, size):
    window = visit(size)
    page = window.go(CHAPTERS[-1])
    image = page.locator(".bd-article figure img").first
    button = page.locator(".scp-enlarge").first
    assert image.get_attribute("alt") in button.get_attribute("aria-label")
    before = image.bounding_box()["width"]
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.scp-dialog")
    dialog.wait_for(state="visible")
    large = dialog.locator("img")
    assert large.get_attribute("alt") == image.get_attribute("alt")
    page.wait_for_function("document.querySelector('.scp-stage img').complete")
    assert large.bounding_box()["width"] > 1.15 * before
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert button.evaluate("e => e === document.activeElement"), "the focus goes back to where it came from"
    image.click()
    dialog.wait_for(state="visible")
    dialog.get_by_role("button", name="Close").click()
    dialog.wait_for(state="hidden")
    assert window.faults == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_its_frame(visit, name):
    """Cost box, outline, the way on, the way back, and something to take further; what is long is folded."""
    window = visit()
    page = window.go(name)
    assert page.locator(".scp-cost").count() == 1
    outline = page.locator(".bd-sidebar-secondary nav a:visible")
    assert outline.count() >= 8, "the outline stands beside the text"
    assert page.locator(".prev-next-footer a.left-prev").count() == 1
    assert page.locator(".prev-next-footer a.right-next").count() == 1
    further = page.locator(".scp-further")  # of the chapter, after those of its exercises
    assert further.count() >= 1 and all(text.startswith("Take it further") for text in further.all_inner_texts())
    assert page.locator("#take-aways .scp-further").count() == 1
    tall = page.evaluate("""[...document.querySelectorAll(".bd-article .cell_input pre")]
        .filter((e) => e.checkVisibility() && e.textContent.trimEnd().split("\\n").length > 40)
        .map((e) => e.textContent.slice(0, 60))""")
    assert tall == []


# ---- the ledger -------------------------------------------------------------------------------------------------------------------
def test_the_ledger_is_sorted_and_filtered_in_the_browser(visit):
    window = visit()
    page = window.go("book/ledger.html")
    shown = "document.querySelectorAll('#claims tbody tr:not([hidden])').length"
    every = page.evaluate(shown)
    tools = page.locator(".scp-tools").first
    tools.get_by_label("Kind").select_option("pitfall")
    few = page.evaluate(shown)
    assert 0 < few < every
    tools.get_by_label("Filter rows by words").fill("zzz no claim says this")
    assert page.evaluate(shown) == 0
    tools.get_by_label("Filter rows by words").fill("")
    tools.get_by_label("Kind").select_option("")
    page.locator("#claims thead").get_by_role("button", name="Measured").click()
    values = page.evaluate("""[...document.querySelectorAll("#claims tbody tr")].map((r) => r.cells[3].dataset.value)
        .filter((v) => v !== "" && isFinite(v)).map(Number)""")
    assert values == sorted(values) and len(values) > 1
    assert window.faults == []


def test_a_claim_has_a_link_to_share(visit):
    window = visit()
    page = window.go("book/ledger.html")
    row = page.locator("#claims tbody tr").nth(7)
    name = row.get_attribute("id")
    link = row.get_by_role("link", name="Link to this claim")
    assert link.evaluate("e => getComputedStyle(e).opacity") == "0"
    row.hover()
    page.wait_for_function("e => getComputedStyle(e).opacity === '1'", arg=link.element_handle())
    page.mouse.move(0, 0)
    link.focus()
    assert link.evaluate("e => getComputedStyle(e).opacity") == "1"
    page.keyboard.press("Enter")
    assert page.url.endswith(f"#{name}")
    there = window.go(f"book/ledger.html#{name}").locator(f"[id='{name}']")
    assert there.evaluate(
        "e => { const box = e.getBoundingClientRect(); return box.top >= 0 && box.bottom < innerHeight; }"
    )
    assert there.evaluate("e => e.matches(':target')")


# ---- the search -------------------------------------------------------------------------------------------------------------------
# What readers type, and the page that they mean.
MEANT = {
    "scVI": "learning/scvi",
    "batch effect": "tasks/integration",
    "dropout": "tasks/imputation",
    "doublets": "data/qc",
    "louvain": "learning/unsupervised",
    "Harmony": "tasks/integration",
    "label transfer": "tasks/annotation",
    "DESeq2": "tasks/differential",
    "dimension reduction": "learning/unsupervised",
    "normalization": "data/normalisation",
    "GNN": "networks/graph-networks",
    "contrastive learning": "learning/self-supervised",
    "own data": "how-to-run",
}


@pytest.mark.parametrize(
    "asked, meant", [(a, m) for a, m in MEANT.items() if m == "how-to-run" or f"notebooks/{m}.html" in CHAPTERS]
)
def test_the_search_knows_other_names(visit, asked, meant):
    window = visit()
    page = window.go(f"search.html?q={asked.replace(' ', '+')}")
    page.wait_for_selector("#search-results li a")
    page.wait_for_function("document.querySelector('#search-results p.search-summary')?.textContent.includes('found')")
    found = page.eval_on_selector_all("#search-results li a", "links => links.map((a) => new URL(a.href).pathname)")
    pages = list(dict.fromkeys(p for p in found if "glossary" not in p and "genindex" not in p))
    assert any(p.endswith(f"/{meant}.html") for p in pages[:2]), pages[:5]
    assert window.faults == []


# ---- the first page -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_first_page_shows_each_reader_their_way(visit, size):
    window = visit(size)
    page = window.go("book/index.html")
    doors = page.locator(".scp-door")
    words = [doors.nth(i).inner_text() for i in range(doors.count())]
    for who in ("I know cells", "I know machine learning", "I have an .h5ad", "I teach"):
        assert sum(text.startswith(who) for text in words) == 1, who
    heights = [doors.nth(i).bounding_box() for i in range(doors.count())]
    screens = max(box["y"] + box["height"] for box in heights) / page.viewport_size["height"]
    assert screens < (1.35 if size == "desktop" else 3), "the doors stand first"
    if size == "desktop":
        assert heights[0]["y"] + 120 < page.viewport_size["height"]
    for i in range(2):
        steps = doors.nth(i).locator("ol.scp-path a")
        assert steps.count() >= 3
    page.locator(".scp-door", has_text="I have an .h5ad").get_by_role("link", name="With your own data").click()
    page.wait_for_url("**/how-to-run.html#with-your-own-data")
    assert window.faults == []


# ---- paper --------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*CHAPTERS[-1:], "book/how-to-run.html"])
def test_what_is_printed(visit, name, scheme):
    """Chromium lays the page out for paper: no navigation, folded code open, solutions not, dark words on white."""
    window = visit(color_scheme=scheme)
    page = window.go(name)
    page.emulate_media(media="print", color_scheme=scheme)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("h1:visible").count() == 1
    for gone in (
        ".bd-sidebar-primary",
        ".bd-sidebar-secondary",
        ".prev-next-footer",
        ".scp-enlarge",
        ".headerlink",
        ".copybtn",
        ".bd-header-article",
    ):
        assert page.locator(f"{gone}:visible").count() == 0, gone
    assert page.locator(".tag_exercise-solution .cell_input:visible").count() == 0
    folded = page.locator(".bd-article details.hide:not(.tag_exercise-solution details)")
    assert all(folded.nth(i).evaluate("e => e.open") for i in range(folded.count()))
    colour = page.evaluate("getComputedStyle(document.querySelector('article p')).color")
    assert sum(map(int, re.findall(r"\d+", colour)[:3])) < 200, colour
    cut = page.evaluate("""[...document.querySelectorAll("article :is(pre, img, table)")].filter((e) => e.checkVisibility()
        && getComputedStyle(e).overflowX !== "visible" && e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML.slice(0, 80))""")
    assert cut == []
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not any(folded.nth(i).evaluate("e => e.open") for i in range(folded.count()))


@needs_chapters
def test_the_words_of_a_chapter_as_pdf(visit, tmp_path):
    """The file itself: every section and every caption, web addresses written out, nothing of the frame around the page."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed (Debian: apt install poppler-utils)")
    page = visit().go(CHAPTERS[-1])
    headings = page.eval_on_selector_all("article h2", "all => all.map((h) => h.firstChild.textContent.trim())")
    captions = page.eval_on_selector_all("article .caption-text", "all => all.map((c) => c.textContent.trim())")
    (tmp_path / "page.pdf").write_bytes(page.pdf(format="A4"))
    read = subprocess.run(["pdftotext", str(tmp_path / "page.pdf"), "-"], capture_output=True, text=True, check=True)
    words, pages = " ".join(read.stdout.split()), read.stdout.count("\f")
    assert [h for h in headings if h not in words] == [] and len(headings) > 5
    assert [c for c in captions if c.split(".")[0][:40] not in words] == [] and captions
    assert [gone for gone in ("Show a solution", "Ctrl + K", "Enlarge", "Next", "Contents") if gone in words] == []
    assert 4 <= pages < 60, pages
