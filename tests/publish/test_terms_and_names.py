"""Words of the glossary in running text, and the names under which the search knows a page."""

from __future__ import annotations

import re

import pytest
from docutils import nodes
from hostile import HOSTILE

from scprimer.publish import book
from scprimer.publish.sphinxext import search, terms


def finds(name: str, text: str) -> str | None:
    match = re.search(terms.pattern(name), text)
    return match and match[0]


@pytest.mark.parametrize("name, text, found", [
    ("cell line", "Two cell lines grow.", "cell lines"),
    ("doublet", "Doublets look like one cell.", "Doublets"),
    ("adjacency", "Adjacencies are sparse.", "Adjacencies"),
    ("UMI", "counted by UMIs", "UMIs"),
    ("UMI", "umi", None),
    ("batch", "mini-batch", None),
    ("batch", "the batch size", None),
    ("batch", "take the batch out", "batch"),
    ("donor", "donorship", None),
    ("gene expression", "gene\nexpression", "gene\nexpression"),
    ("attention", "pay attention to", None),
    ("t-SNE", "a t-SNE map", "t-SNE"),
    ("Leiden", "leiden", None),
])  # fmt: skip
def test_a_name_is_found_as_a_word(name, text, found):
    assert finds(name, text) == found


def test_an_entry_is_called_by_its_long_and_its_short_name():
    assert terms.called("unique molecular identifier (UMI)") == ("unique molecular identifier", "UMI")
    assert terms.called("control (negative)") == ("negative control",)
    assert terms.called("donor") == ("donor",)
    assert terms.called("loss") == ()


def test_the_exceptions_are_entries_of_the_glossary(root):
    headings = re.findall(r"(?m)^(\S.*)\n  \S", (root / "book" / "glossary.md").read_text(encoding="utf-8"))
    assert set(terms.CALLED) <= set(headings)


def test_only_running_text_is_linked():
    document = nodes.section("", nodes.title("", "", nodes.Text("donor in a title")))
    link = nodes.reference("", "", nodes.inline("", "donor in a link"))
    document += nodes.paragraph("", "", nodes.Text("donor in text"), nodes.literal("", "donor in code"), link)
    document += nodes.literal_block("", "donor in a block")
    document += nodes.bullet_list(
        "", nodes.list_item("", nodes.paragraph("", "", nodes.emphasis("", "donor in a list")))
    )
    assert [str(text) for text in terms.texts(document)] == ["donor in text", "donor in a list"]


def test_an_explanation_is_escaped():
    words = nodes.paragraph("", "", nodes.Text(HOSTILE), nodes.emphasis("", HOSTILE), nodes.literal("", HOSTILE))
    html = terms._html(words)
    assert "<script" not in html and "<img" not in html and html.count("&lt;script&gt;") == 3
    assert "<em>" in html and "<code>" in html


# ---- the search ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def top(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "how.md").write_text("# How")
    (tmp_path / "book" / "methods.csv").write_text(
        "id,family,method,source,chapter,how,show\n"
        'a,f,"Doublets (Scrublet; DoubletFinder\'s idea)",s,qc,h,s\nb,f,scVI,s,scvi,h,s\n'
    )
    (tmp_path / "book" / "names.csv").write_text(
        "page,names\nqc,Cell-filtering;dead  cells\nscvi,count model\nbook/how,set up\n"
    )
    (tmp_path / "_toc.yml").touch()
    path = tmp_path / "notebooks" / "data" / "qc.ipynb"
    book.write_notebook(path, {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    return tmp_path


def test_pages_are_known_by_their_methods_and_other_names(top):
    assert search.names(top) == {
        "notebooks/data/qc": ["cell filtering", "dead cells", "doubletfinder", "doublets", "scrublet"],
        "book/how": ["set up"],
    }  # the chapter scvi is not written: there is no page to find


def test_a_name_of_no_page_is_an_error(top):
    with (top / "book" / "names.csv").open("a") as file:
        file.write("cooking,soup\n")
    with pytest.raises(book.BookError, match="'cooking' is neither a chapter nor a page"):
        search.names(top)


def test_the_books_own_names_can_be_read_and_stand_once(root):
    pages = [row["page"] for row in search.read(root)]
    assert len(set(pages)) == len(pages)
    assert {c.slug for c in book.chapters(root)} <= set(pages), "every written chapter has other names"
    assert search.names(root)
