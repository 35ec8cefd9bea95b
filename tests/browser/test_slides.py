"""The course kit's slides in a real browser: every deck fits, turns by keyboard, prints, and asks nobody for anything."""

from __future__ import annotations

import re

import pytest

from scprimer.publish import book, course

pytestmark = pytest.mark.browser
SLUGS = [c.slug for c in book.chapters()]

# Each slide as it is shown: is anything cut off, and how small did the letters become?
MEASURE = """() => [...document.querySelectorAll("section")].map((slide) => {
  slide.classList.add("now");
  const body = slide.querySelector(".body"), fit = slide.querySelector(".fit");
  const wide = [...body.querySelectorAll("p, li, table, math, figcaption")].some((e) => e.getBoundingClientRect().right > slide.getBoundingClientRect().right + 1);
  const tall = body.scrollHeight > body.clientHeight + 2 || fit.scrollHeight > fit.clientHeight + 2;
  const found = { id: slide.id, cut: wide || tall, scale: Number(slide.style.getPropertyValue("--scale")) };
  slide.classList.remove("now");
  return found;
})"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    """The folder with the slides of every written chapter."""
    out = tmp_path_factory.mktemp("course")
    course.make(book.root(), out, SLUGS)
    return out / "slides"


@pytest.fixture
def deck(browser, decks):
    """Opens the slides of a chapter: ``deck("qc") -> (page, faults)``."""
    contexts = []

    def show(slug: str, width: int = 1280, height: int = 720, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page, faults = context.new_page(), []
        page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        address = (decks / f"{SLUGS.index(slug) + 1:02d}-{slug}.html").as_uri()
        page.on("request", lambda r: faults.append(r.url) if not r.url.startswith((address, "data:")) else None)
        page.goto(address, wait_until="load")
        return page, faults

    yield show
    for context in contexts:
        context.close()


@pytest.mark.parametrize("slug", SLUGS)
def test_every_slide_fits_and_can_be_read(deck, slug):
    page, faults = deck(slug)
    found = page.evaluate(MEASURE)
    assert len(found) > 20
    assert [slide["id"] for slide in found if slide["cut"]] == []
    assert min(slide["scale"] for slide in found) >= 0.65
    assert faults == []


def test_the_keyboard_turns_them(deck):
    page, faults = deck(SLUGS[0])
    total = page.locator("section").count()
    shown = page.locator("section:visible")
    for key, number in (("ArrowRight", 2), ("Space", 3), ("PageDown", 4), ("ArrowLeft", 3), ("End", total), ("ArrowRight", total),
                        ("Home", 1), ("ArrowUp", 1)):  # fmt: skip
        page.keyboard.press(key)
        assert shown.count() == 1 and shown.get_attribute("id") == f"s{number}"
        assert page.locator("nav output").inner_text() == f"{number} of {total}"
        assert page.url.endswith(f"#s{number}")
    page.get_by_role("button", name="Next slide").press("Enter")
    assert shown.get_attribute("id") == "s2"
    page.reload()
    assert shown.get_attribute("id") == "s2", "the address remembers the slide"
    assert faults == []


def test_notes_open_with_a_key_and_fit(deck):
    page, _ = deck(SLUGS[0])
    number = page.evaluate("[...document.querySelectorAll('section')].findIndex((s) => s.querySelector('details'))")
    for _ in range(number):
        page.keyboard.press("ArrowRight")
    notes = page.locator("section:visible details")
    assert notes.get_attribute("open") is None
    page.keyboard.press("n")
    assert notes.get_attribute("open") is not None
    box = notes.bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 721
    page.keyboard.press("n")
    assert notes.get_attribute("open") is None


def test_without_a_script_all_slides_are_there(deck):
    page, _ = deck(SLUGS[0], java_script_enabled=False)
    assert page.locator("section:visible").count() == page.locator("section").count()


@pytest.mark.parametrize("width, height", [(1920, 1080), (1024, 768), (390, 844)])
def test_a_slide_fills_the_window(deck, width, height):
    page, _ = deck(SLUGS[0], width, height)
    box = page.locator("section:visible").bounding_box()
    assert max(box["width"] / width, box["height"] / height) == pytest.approx(1, abs=0.01)
    assert box["width"] / box["height"] == pytest.approx(16 / 9, abs=0.01)
    assert box["x"] >= -1 and box["x"] + box["width"] <= width + 1


def test_printing_gives_a_sheet_a_slide(deck):
    page, _ = deck(SLUGS[0])
    sheets = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", sheets)) == page.locator("section").count()
