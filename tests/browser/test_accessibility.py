"""axe-core on every page: no violation of WCAG 2.2, A and AA, in light and in dark, on a desk and on a phone."""

from __future__ import annotations

import pytest
from sitepages import CHAPTERS, PAGES

pytestmark = pytest.mark.browser

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# What depends on the theme.
COLOURS = ["color-contrast", "link-in-text-block"]
# Code and equations have the same colours at any width, and make up most of what axe would have to look at.
WITHOUT_CODE = {"exclude": [["pre"], ["math"]]}
RUN = """([context, options]) => axe.run(context || document, { ...options, resultTypes: ["violations"] }).then((found) =>
    found.violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(" ")}: ` +
        [...n.any, ...n.all, ...n.none].map((check) => check.message).join("; "))))"""


def every(**more) -> dict:
    return {"runOnly": {"type": "tag", "values": TAGS}, **more}


def colours() -> dict:
    return {"runOnly": {"type": "rule", "values": COLOURS}, "preload": False}


def audit(visit, axe: str, name: str, size: str, scheme: str, *runs: tuple[dict | None, dict]) -> list[str]:
    window = visit(size, color_scheme=scheme, reduced_motion="reduce")
    page = window.go(name)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.evaluate(axe)
    return [
        f"{size}, {scheme}: {fault}" for context, options in runs for fault in page.evaluate(RUN, [context, options])
    ]


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(visit, axe, name):
    without_colours = every(rules={rule: {"enabled": False} for rule in COLOURS})
    faults = audit(visit, axe, name, "desktop", "light", (None, every()))
    faults += audit(visit, axe, name, "desktop", "dark", (None, colours()))
    faults += audit(visit, axe, name, "phone", "light", (None, without_colours), (WITHOUT_CODE, colours()))
    faults += audit(visit, axe, name, "phone", "dark", (WITHOUT_CODE, colours()))
    assert faults == []


def test_axe_would_find_a_violation(visit, axe):
    """The audit above can fail: a page that is spoilt has faults in it."""
    window = visit()
    page = window.go("book/how-to-read.html")
    page.evaluate("""document.querySelector("article").insertAdjacentHTML("afterbegin",
        '<img src="../_static/logo.svg"><p style="color: #999; background: #fff">pale words</p>')""")
    page.evaluate(axe)
    found = {fault.split(":")[0] for fault in page.evaluate(RUN, [None, every()])}
    assert {"image-alt", "color-contrast"} <= found


@pytest.mark.parametrize("name", ["book/index.html", "book/ledger.html", *CHAPTERS[:1]])
def test_everything_is_reached_by_keyboard_and_seen_there(visit, name):
    """Tab visits what can be used, in the order of the page, and each stop shows that it has the focus."""
    window = visit(reduced_motion="reduce")
    page = window.go(name)
    page.evaluate("""() => { window.wanted = [...document.querySelectorAll("main :is(a[href], button, input, select, summary, [tabindex='0'])")]
        .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.tabIndex >= 0 && !e.closest("dialog")).slice(0, 60);
        window.met = new Set(); }""")
    wanted, unseen = page.evaluate("window.wanted.length"), []
    assert wanted > 10
    for _ in range(250):
        page.keyboard.press("Tab")
        unseen += page.evaluate("""() => { const e = document.activeElement, style = getComputedStyle(e); window.met.add(e);
            const shown = style.outlineStyle !== "none" || style.boxShadow !== "none" || e.matches("input");
            return shown && style.opacity !== "0" ? [] : [e.outerHTML.slice(0, 120)]; }""")
        if page.evaluate("window.wanted.every((e) => window.met.has(e))"):
            break
    assert page.evaluate("window.wanted.filter((e) => !window.met.has(e)).map((e) => e.outerHTML.slice(0, 120))") == []
    assert unseen == []
    assert window.faults == []
