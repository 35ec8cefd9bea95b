"""Every built page in a real browser: nothing fails, nothing is asked of other hosts, nothing is cut off."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sitepages import CHAPTERS, PAGES, ROOT

from scprimer.publish import book

pytestmark = pytest.mark.browser

# What reaches past the window's right edge although no box around it scrolls or cuts it off on purpose.
CUT_OFF = """() => {
  const wide = document.documentElement.clientWidth + 1, found = [];
  for (const e of document.querySelectorAll("main *")) {
    if (e.closest("svg, math") && !e.matches("svg, math")) continue;
    const box = e.getBoundingClientRect();
    if (box.width === 0 || box.right <= wide || getComputedStyle(e).visibility === "hidden") continue;
    let up = e.parentElement, held = false;
    while (up && up.tagName !== "MAIN") {
      const style = getComputedStyle(up);
      if (/auto|scroll|hidden|clip/.test(style.overflowX) || style.clipPath !== "none") { held = true; break; }
      up = up.parentElement;
    }
    if (!held) found.push(`${e.tagName} ${e.className} reaches ${Math.round(box.right)}: ${e.textContent.trim().slice(0, 40)}`);
  }
  return found.slice(0, 5);
}"""


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_sound(visit, name, size):
    window = visit(size)
    page = window.go(name)
    if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"):
        window.faults.append("the page scrolls sideways")
    window.faults += page.evaluate(CUT_OFF)
    # Pictures further down are loaded when they are scrolled to.
    page.evaluate("document.querySelectorAll('img[loading=lazy]').forEach((i) => { i.loading = 'eager'; })")
    page.wait_for_function("[...document.images].every((i) => i.complete)")
    broken = page.evaluate("[...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)")
    window.faults += [f"broken picture: {source}" for source in broken]
    assert window.faults == []


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_sound_in_the_dark(visit, name):
    window = visit("desktop", color_scheme="dark")
    page = window.go(name)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", ground)[:3])) < 150, ground
    pale = page.evaluate("""[...document.querySelectorAll("article :not(button)")].filter((e) => {
        const colour = getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).map(Number);
        return (colour[3] ?? 1) > 0.5 && colour[0] + colour[1] + colour[2] > 500 && e.getBoundingClientRect().width > 60;
    }).map((e) => `${e.tagName} ${e.className}`).slice(0, 5)""")
    window.faults += [f"a pale box in the dark: {what}" for what in pale]
    assert window.faults == []


def test_the_address_of_the_site_leads_to_the_first_page(visit):
    window = visit()
    window.page.goto(window.address)
    window.page.wait_for_url("**/book/index.html")
    assert window.faults == []


class Parts(HTMLParser):
    """Ids, links, headings and pictures of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.pictures, self.headings = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag in ("a", "area") and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.pictures.append(given)
        if tag == "h1":
            self.headings.append(tag)


@pytest.fixture(scope="session")
def parts(site) -> dict[str, Parts]:
    """Every page of the site by its path."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        if "_static" not in path.parts and "_sources" not in path.parts:
            found[path.relative_to(site).as_posix()] = Parts(path.read_text(encoding="utf-8"))
    return found


def test_every_page_of_the_contents_was_built(parts):
    assert {"index.html", *PAGES} <= set(parts)


def test_no_link_within_the_book_is_broken(parts, site):
    broken = []
    for name, page in parts.items():
        for link in page.links:
            split = urlsplit(link)
            if split.scheme or split.netloc or link.startswith(("javascript:", "mailto:")):
                continue
            target = (site / name).parent / unquote(split.path) if split.path else site / name
            target = target.resolve()
            if not target.is_file():
                broken.append(f"{name}: {link} leads to no file")
                continue
            there = parts.get(target.relative_to(site.resolve()).as_posix())
            if split.fragment and there is not None and unquote(split.fragment) not in there.ids:
                broken.append(f"{name}: {link} leads to no such place")
    assert broken == []


def test_every_picture_says_what_it_shows(parts):
    silent = [(name, p.get("src")) for name, page in parts.items() for p in page.pictures if not p.get("alt")]
    assert silent == []


# ---- what readers do -------------------------------------------------------------------------------------------------------
def words_of(notebook: dict) -> Counter:
    text = " ".join(book.source(c) for c in notebook["cells"] if c["cell_type"] == "markdown")
    return Counter(
        re.findall(r"(?<![\w{`-])[a-z]{7,}(?![\w}`-])", re.sub(r"`[^`]*`|\$[^$]*\$|\{[^}]*\}|\]\([^)]*\)", " ", text))
    )


def a_word_of_the_last_chapter() -> tuple[str, str]:
    """A word that the last chapter alone uses, and its page; without chapters, one of the last page."""
    chapters = book.chapters(ROOT)
    if not chapters:
        return "bibliography", "book/bibliography.html"
    *earlier, last = chapters
    elsewhere = Counter()
    for chapter in earlier:
        elsewhere += words_of(chapter.notebook)
    for path in (ROOT / "book").rglob("*.md"):
        elsewhere += Counter(re.findall(r"[a-z]{7,}", path.read_text(encoding="utf-8").lower()))
    own = [
        (n, word)
        for word, n in words_of(last.notebook).items()
        if not any(word[:6] == other[:6] for other in elsewhere)
    ]
    assert own, f"{last.slug} has no word of its own to search for"
    return max(own)[1], f"notebooks/{last.part}/{last.slug}.html"


def test_search_finds_a_word_from_the_last_chapter(visit):
    word, expected = a_word_of_the_last_chapter()
    window = visit()
    page = window.go(f"search.html?q={word}")
    page.wait_for_selector("#search-results li a")
    found = page.eval_on_selector_all(
        "#search-results li a", "links => links.map((a) => new URL(a.href).pathname.slice(1))"
    )
    assert expected in found
    assert window.faults == []


def test_the_search_opens_from_the_keyboard(visit):
    window = visit()
    page = window.go("book/index.html")
    page.keyboard.press("Control+k")
    page.wait_for_selector(".search-button__wrapper.show input:focus")
    assert page.locator("input[type=search]:visible").count() == 1
    assert window.faults == []


def test_a_table_can_be_sorted_and_filtered(visit):
    window = visit()
    page = window.go("book/methods.html")
    first = "document.querySelector('#methods tbody tr:not([hidden]) th').textContent"
    shown = "document.querySelectorAll('#methods tbody tr:not([hidden])').length"
    every, unsorted = page.evaluate(shown), page.evaluate(first)
    assert every == len(book.table("methods", ROOT))
    heading = page.get_by_role("button", name="Method", exact=True)
    heading.click()
    assert page.locator("#methods th[aria-sort=ascending]").count() == 1
    ascending = page.evaluate(first)
    heading.click()
    assert page.evaluate(first) not in (ascending, unsorted)
    page.get_by_label("Filter rows by words").fill("umap")
    assert 0 < page.evaluate(shown) < every / 10
    page.get_by_label("Filter rows by words").fill("")
    page.get_by_label("Status", exact=True).select_option("planned")
    assert page.evaluate(shown) == sum(row.status == "planned" for row in methods())
    assert window.faults == []


def methods():
    from scprimer.publish import ledger, stamp

    return ledger.read(ROOT, stamp.judge).methods


def test_tables_are_whole_without_a_script(visit):
    window = visit(java_script_enabled=False)
    page = window.go("book/methods.html")
    assert page.locator("#methods tbody tr").count() == len(book.table("methods", ROOT))
    assert page.locator("#methods tbody tr").last.is_visible()
    assert page.locator("math").count() == 0 or page.locator("math").first.is_visible()


def test_the_address_of_a_hub_is_remembered(visit):
    window = visit()
    page = window.go("book/how-to-run.html")
    form = page.locator("form[data-hub]")
    form.get_by_label("Address of your hub").fill("javascript:alert(1)")
    form.evaluate("f => f.requestSubmit()")
    assert page.evaluate("localStorage.getItem('scprimer-hub')") is None
    form.get_by_label("Address of your hub").fill("https://hub.example.org/hub/home")
    form.get_by_role("button", name="Remember").click()
    assert page.evaluate("localStorage.getItem('scprimer-hub')") == "https://hub.example.org"
    for chapter in book.chapters(ROOT)[:1]:
        page = window.go(f"notebooks/{chapter.part}/{chapter.slug}.html")
        link = page.eval_on_selector("a.btn-launch-hub", "a => a.href")
        assert link.startswith("https://hub.example.org/hub/user-redirect/git-pull?repo=https")
        assert f"{chapter.slug}.ipynb" in link and "#" not in link
    assert window.faults == []


def test_the_map_links_every_written_chapter(visit):
    written = len(book.chapters(ROOT))
    for size, drawing in (("desktop", "svg.scp-wide"), ("phone", "svg.scp-narrow")):
        window = visit(size)
        page = window.go("book/index.html")
        assert page.locator(f"{drawing} a:visible").count() == written
        smallest = page.evaluate(
            f"Math.min(...[...document.querySelectorAll('{drawing} text')].map((t) => t.getBoundingClientRect().height))"
        )
        assert smallest > 12, "letters too small to read"


@pytest.mark.parametrize("name", ["book/index.html", *CHAPTERS])
def test_the_first_load_of_a_page_weighs_little(visit, name):
    """The budget: bytes as they lie on the disk, which is what a server without compression sends."""
    window = visit()
    page = window.go(name)
    page.wait_for_load_state("networkidle")
    loaded = page.evaluate("""performance.getEntries().filter((e) => e.entryType === "navigation" || e.entryType === "resource")
        .map((e) => [new URL(e.name).pathname, e.encodedBodySize])""")
    kinds = Counter()
    for path, size in loaded:
        kinds[Path(path).suffix] += size
    assert kinds[".html"] > 10_000 and kinds[".css"] > 10_000, "the sizes were not told"
    assert sum(kinds.values()) < 1_500_000, kinds
    assert len(loaded) < 60, "too many files"
    assert kinds[".js"] < 200_000 and kinds[".woff2"] < 250_000, kinds


def test_the_book_reads_from_a_folder_too(browser, site):
    """Without any server: opened as a file."""
    page = browser.new_page()
    faults = []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.goto((site / "book" / "index.html").resolve().as_uri())
    assert page.locator("h1:visible").first.inner_text().startswith("A book you can run")
    assert faults == []
    page.close()
