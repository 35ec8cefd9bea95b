"""Building the book: the site of a small book with a hostile chapter, what fails a build, and editions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from hostile import HOSTILE, chapter_notebook, code, markdown

from scprimer.publish import book, build, ledger, runner, template

CHAPTER = "notebooks/data/qc"


def small_book(root: Path, top: Path, notebook: dict) -> Path:
    """The real pages with one chapter, which is ``notebook``."""
    shutil.copytree(root / "book", top / "book")
    shutil.copy2(root / "_config.yml", top)
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy2(root / name, top)
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    for part in toc["parts"]:
        part["chapters"] = [c for c in part["chapters"] if not c["file"].startswith("notebooks/")]
    toc["parts"][1]["chapters"].append({"file": CHAPTER})
    (top / "_toc.yml").write_text(yaml.safe_dump(toc))
    book.write_notebook(top / f"{CHAPTER}.ipynb", notebook)
    return top


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> Path:
    """The site of the small book; the build passes with warnings as errors."""
    notebook = chapter_notebook()
    notebook["cells"][4:4] = [
        code("1", outputs=[{"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": {
            "text/plain": HOSTILE, "application/vnd.jupyter.widget-view+json": {"model_id": "a"}}}]),
        markdown("$$\n\\mu_{cg} = n_c\\, p_g \\tag*{}\n$$ (eq-mean)\n".replace("\\tag*{}", "") + "\nSee {eq}`eq-mean`."),
    ]  # fmt: skip
    notebook["metadata"]["scprimer"]["not_applicable"] = {HOSTILE: HOSTILE}
    top = small_book(root, tmp_path_factory.mktemp("book"), notebook)
    return build.build(top)


def page(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_the_site_lies_where_it_should(built):
    assert built.name == "html" and (built / "index.html").is_file()
    assert {p.name for p in built.parent.iterdir()} == {"html"}  # nothing half-built stays


def test_what_a_notebook_says_cannot_run_in_the_page(built):
    names = (CHAPTER, "book/ledger", "book/failures", "book/index", "book/methods", "book/status")
    for name in names:
        text = page(built, name)
        assert '<script>alert("x")' not in text and "<img src=x" not in text and "<img src=&quot;x" not in text, name
    assert "&lt;script&gt;" in page(built, "book/ledger")
    assert "<cells>" not in page(built, CHAPTER)


class Links(HTMLParser):
    """Addresses that a page loads, and ids that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded, self.ids, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"])
        if tag in ("script", "img", "iframe", "source", "video") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "search", "index", "author"):
            self.loaded.append(given["href"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


def test_no_page_loads_anything_from_another_host(built):
    for path in built.rglob("*.html"):
        found = Links(path.read_text(encoding="utf-8"))
        assert [x for x in found.loaded if re.match(r"(https?:)?//", x)] == [], path


def test_no_page_carries_what_it_does_not_need(built):
    for path in built.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for unwanted in (
            "THEBE_JS_URL",
            "thebe_selector",
            "fontawesome",
            "MathJax",
            "require.min.js",
            "html-manager",
        ):
            assert unwanted not in text, (path, unwanted)
    assert not (built / "_static" / "vendor" / "fontawesome").exists()
    assert not list((built / "_static").rglob("*.map"))


def test_no_id_stands_twice_in_a_page(built):
    for path in built.rglob("*.html"):
        ids = Links(path.read_text(encoding="utf-8")).ids
        twice = {i for i in ids if ids.count(i) > 1}
        # The theme draws its search form and its theme switch twice, with the same ids.
        assert {i for i in twice if i.startswith(("claim-", "pitfall-", "reported-", "method-"))} == set(), path


def test_a_claim_leads_from_the_ledger_to_where_it_was_measured(built):
    assert f"../{CHAPTER}.html#claim-qc-kept" in Links(page(built, "book/ledger")).links
    assert "claim-qc-kept" in Links(page(built, CHAPTER)).ids
    assert f"../{CHAPTER}.html#pitfall-p1" in Links(page(built, "book/failures")).links
    assert "pitfall-p1" in Links(page(built, CHAPTER)).ids


def test_the_chapter_shows_its_generated_parts(built):
    text = page(built, CHAPTER)
    assert "Not measured yet" in text  # the small chapter has no stamp
    assert "What this chapter leaves out" in text and "Show the parameters" in text and "Show a solution" in text
    assert "import sys" not in text  # the cell for Colab is for Colab
    assert text.count("<math ") == 2 and 'class="eqno">(1)' in text
    assert f'href="#{"qc-build"}"' in text


def test_every_method_has_its_row_and_the_honest_status(built, root):
    text = page(built, "book/methods")
    rows = book.table("methods", root)
    assert all(f'id="method-{row["id"]}"' in text for row in rows)
    assert text.count("scp-badge scp-working") == 0  # the only claim, of "pca", counts for nothing without a stamp
    assert text.count("scp-badge scp-stale") == 1
    assert text.count("scp-badge scp-written") == sum(row["chapter"] == "qc" for row in rows)
    assert text.count("scp-badge scp-planned") == sum(row["chapter"] != "qc" and row["id"] != "pca" for row in rows)


def test_every_reported_figure_has_its_row(built, root):
    text = page(built, "book/ledger")
    assert all(f'id="reported-{row["id"]}"' in text for row in book.table("reported", root))


def test_launch_links_come_from_the_one_configured_address(built):
    found = Links(page(built, CHAPTER)).links
    assert f"https://colab.research.google.com/github/scprimer/scprimer/blob/main/{CHAPTER}.ipynb" in found
    assert f"https://mybinder.org/v2/gh/scprimer/scprimer/main?urlpath=lab/tree/{CHAPTER}.ipynb" in found
    (hub,) = [x for x in found if "urlpath=" in x and "how-to-run" in x]
    assert hub.endswith("#on-a-jupyterhub") and f"urlpath=lab/tree/scprimer/{CHAPTER}.ipynb" in hub
    assert "repo=https://github.com/scprimer/scprimer&branch=main" in hub
    assert "on-a-jupyterhub" in Links(page(built, "book/how-to-run")).ids


def test_the_address_is_the_same_everywhere(root):
    settings = yaml.safe_load((root / "_config.yml").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert settings["repository"]["url"] == template.REPOSITORY == project["urls"]["Homepage"]


def test_pages_say_what_a_link_to_them_shows(built):
    text = page(built, "book/index")
    for name in ("og:title", "og:description", "og:image", "og:url"):
        assert f'<meta property="{name}" content="' in text
    assert "_static/preview.png" in text and (built / "_static" / "preview.png").is_file()
    chapter = page(built, CHAPTER)
    assert (
        'content="A promise with enough words' in chapter
        and 'property="og:title" content="Cells &amp; &lt;cells&gt;"' in chapter
    )


# ---- what fails a build ------------------------------------------------------------------------------------------------------
def test_warnings_are_errors_and_leave_the_earlier_site(root, tmp_path, capfd):
    notebook = chapter_notebook()
    notebook["cells"].append(
        markdown("{glue:text}`nowhere:.2f` and $\\unknowncommand{x}$ and {cite}`nobody1999` and [this](#nothing)\n\n"
                 "```{scprimer} nonsense\n```")
    )  # fmt: skip
    top = small_book(root, tmp_path / "book", notebook)
    site = tmp_path / "out" / "html"
    site.mkdir(parents=True)
    (site / "index.html").write_text("earlier")
    with pytest.raises(book.BookError, match="warnings are errors here"):
        build.build(top, out=tmp_path / "out")
    said = capfd.readouterr().err
    for fault in ("nowhere", "unknowncommand", "nobody1999", "nothing", "no such block"):
        assert fault in said
    assert (site / "index.html").read_text() == "earlier" and [p.name for p in (tmp_path / "out").iterdir()] == ["html"]


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda toc: toc.replace(f"- file: {CHAPTER}\n", ""), f"it does not name {CHAPTER}"),
        (lambda toc: toc.replace(CHAPTER, CHAPTER + "\n  - file: notebooks/learning/scvi"), "which is not written"),
        (lambda toc: "[", "is not readable"),
        (lambda toc: "[]", "is no table of contents"),
    ],
)
def test_contents_that_do_not_fit_the_notebooks_are_an_error(root, tmp_path, change, says):
    top = small_book(root, tmp_path / "book", chapter_notebook())
    path = top / "_toc.yml"
    path.write_text(change(path.read_text()))
    with pytest.raises(book.BookError, match=says):
        build.check_contents(top)


def test_chapters_stand_in_reading_order(root, tmp_path):
    top = small_book(root, tmp_path / "book", chapter_notebook())
    book.write_notebook(top / "notebooks" / "learning" / "scvi.ipynb", chapter_notebook())
    toc = yaml.safe_load((top / "_toc.yml").read_text())
    toc["parts"][0]["chapters"].append({"file": "notebooks/learning/scvi"})
    (top / "_toc.yml").write_text(yaml.safe_dump(toc))
    with pytest.raises(book.BookError, match="reading order is notebooks/data/qc, notebooks/learning/scvi"):
        build.check_contents(top)


def test_the_contents_of_the_book_fit_its_notebooks(root):
    build.check_contents(root)
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    captions = {p["chapters"][0]["file"].split("/")[-1]: p["caption"] for p in toc["parts"]}
    introduced = {part: captions[part] for part in book.PARTS if part in captions}
    assert introduced == {part: ledger.PART_TITLES[part] for part in introduced}
    assert {c.part for c in book.chapters(root)} <= set(introduced)
    for name in build.contents(root):
        assert (root / f"{name}.md").is_file() or (root / f"{name}.ipynb").is_file(), name


def test_wrong_tools_are_named(root, monkeypatch):
    with pytest.raises(book.BookError, match="no edition is called 'smok'"):
        build.build(root, edition="smok")
    monkeypatch.setattr(build, "version", lambda name: "2.0.1")
    with pytest.raises(book.BookError, match=r"jupyter-book 1, and 2\.0\.1 is installed; `make book`"):
        build.build(root)


def test_rendering_needs_no_science_stack():
    script = (
        "import sys, scprimer.publish.build, scprimer.publish.ledger, scprimer.publish.sphinxext\n"
        "print(sorted({'numpy', 'pandas', 'scipy', 'torch', 'anndata', 'dask', 'papermill'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- editions ------------------------------------------------------------------------------------------------------------------
def executed(request, top, state="done"):
    """Stands in for the runner: the chapter as it would come out of a smoke run."""
    for chapter in book.chapters(top):
        notebook = book.read_notebook(chapter.path)
        notebook["cells"].append(
            code("print('fresh')", outputs=[{"output_type": "stream", "name": "stdout", "text": "executed afresh"}])
        )
        notebook["metadata"]["scprimer"]["stamp"] = {"profile": request.profile, "seconds": 12.0, "device": "cpu"}
        book.write_notebook(runner.edition_path(Path(request.out), chapter.slug), notebook)
    return [runner.Outcome(slug, state, "") for slug in request.chapters]


def test_an_edition_is_executed_afresh_and_says_so_on_every_page(root, tmp_path, monkeypatch):
    top = small_book(root, tmp_path / "book", chapter_notebook())
    before = (top / f"{CHAPTER}.ipynb").read_bytes()
    requests = []
    monkeypatch.setattr(runner, "run", lambda request, top: requests.append(request) or executed(request, top))
    site = build.build(top, edition="smoke", workers=2)
    assert site == top / "_build" / "smoke" / "html"
    assert [(r.profile, r.chapters, r.workers, r.record) for r in requests] == [("smoke", ("qc",), 2, False)]
    assert "executed afresh" in page(site, CHAPTER) and "<b>12 s</b> smoke" in page(site, CHAPTER)
    for name in (CHAPTER, "book/index", "book/ledger"):
        assert "Smoke edition: every chapter was executed afresh on small simulated data" in page(site, name)
        assert "scprimer (smoke edition)" in page(site, name)
    assert (top / f"{CHAPTER}.ipynb").read_bytes() == before


def test_an_edition_with_a_failed_chapter_is_not_rendered(root, tmp_path, monkeypatch):
    top = small_book(root, tmp_path / "book", chapter_notebook())
    monkeypatch.setattr(runner, "run", lambda request, top: executed(request, top, state="failed"))
    with pytest.raises(book.BookError, match="smoke edition was not rendered, because these chapters failed: qc"):
        build.build(top, edition="smoke")
    assert not (top / "_build" / "smoke" / "html").exists()
