"""What the Sphinx extension makes: equations, pages of chapters, stills of controls, tables, the map."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ET

import pytest
from docutils.utils.math import MathError
from hostile import HOSTILE, chapter_notebook

from scprimer.publish import book, ledger
from scprimer.publish.sphinxext import blocks, bookmap, maths, pages, stills, view, words


# ---- equations -----------------------------------------------------------------------------------------------------------
def text_of(element: str) -> str:
    """The characters of a MathML element, without its layout and without invisible operators."""
    return re.sub(r"[\s\u2061\u2009]", "", "".join(ET.fromstring(element).itertext()))


@pytest.mark.parametrize("latex, shown", [
    (r"x_{ij} \sim \mathrm{NB}(\mu_{ij}, \theta_j)", "xij∼NB(μij,θj)"),
    (r"\mathcal{L} = \mathbb{E}_{q}\left[\log p(x \mid z)\right]", "ℒ=𝔼q[logp(x∣z)]"),
    (r"\begin{align} a &= b \\ c &= d \end{align}", "a=bc=d"),
    (r"\begin{array}{lr} a & b \end{array}", "ab"),
    (r"\tfrac12[\ldots]", "12[…]"),
    (r"\binom n2", "n2".join("()")),
    (r"x^23", "x23"),
    (r"\operatorname*{arg\,max}_k p_k", "argmaxkpk"),
    (r"\argmin_\theta f", "argminθf"),
    (r"\mathop{\mathrm{softmax}}\limits_k", "softmaxk"),
    (r"\sum_{\substack{i=1\\ i\ne j}}^n", "∑i=1i≠jn"),
    (r"\bm{\mu} + \boldsymbol{x}", "𝝁+𝒙"),
    (r"\Big/ \big| \bigl( \Bigr)", "/|()"),
    (r"\text{max\_features is 50\%}", "max_featuresis50%"),
    (r"a × b ≤ c", "a×b≤c"),
    (r"x % a comment", "x"),
    (r"\widetilde{x} \stackrel{!}{=} \hphantom{y}\dots", "x~=!y…"),
])  # fmt: skip
@pytest.mark.parametrize("block", [False, True])
def test_latex_becomes_mathml(latex, shown, block):
    assert text_of(maths.mathml(latex, block=block)) == shown


def test_a_tfrac_is_a_half_and_not_twelve():
    root = ET.fromstring(maths.mathml(r"\frac12 x"))
    fraction = root.find(".//{*}mfrac")
    assert [child.text for child in fraction] == ["1", "2"]


def test_a_limit_goes_under_a_name_and_a_label_under_a_brace():
    for latex in (r"\operatorname*{max}_k p", r"\underbrace{a+b}_{c}"):
        assert ET.fromstring(maths.mathml(latex, block=True)).find(".//{*}munder") is not None


@pytest.mark.parametrize("latex, says", [
    (r"\foo x", r'"\\foo"'), (r"\color{red}{x}", r'"\\color"'), (r"x \tag{1}", "label"), (r"{x", "Braces do not match"),
    (r"\begin{tikz}x\end{tikz}", "tikz"),
])  # fmt: skip
def test_what_cannot_be_shown_is_an_error(latex, says):
    with pytest.raises(MathError, match=says):
        maths.mathml(latex)


def test_the_source_stays_as_alternative_text():
    root = ET.fromstring(maths.mathml(r"x < y \& z"))
    assert root.get("alttext") == r"x < y \& z"


# ---- the page of a chapter -----------------------------------------------------------------------------------------------
def sources(notebook):
    return [book.source(c) for c in notebook["cells"]]


def at(notebook, part):
    found = [i for i, text in enumerate(sources(notebook)) if part in text]
    assert len(found) == 1, (part, found)
    return found[0]


def test_the_page_leaves_the_notebook_as_it_is():
    notebook = chapter_notebook()
    before = json.dumps(notebook)
    view.page(notebook, "qc", ["kept"])
    assert json.dumps(notebook) == before


def test_the_cost_box_follows_the_title_and_setup_is_folded():
    shown = view.page(chapter_notebook(), "qc")
    assert at(shown, "{scprimer} cost qc") == 1
    by_source = {book.source(c): c["metadata"] for c in shown["cells"]}
    assert "remove-cell" in by_source["import sys"]["tags"]
    assert "hide-input" in by_source["seed = 0"]["tags"]
    assert by_source["answer = 42"]["mystnb"]["code_prompt_show"] == "Show a solution"
    assert not {"remove-cell", "hide-input"} & set(by_source["import scprimer"]["tags"])
    assert "widgets" not in shown["metadata"]


@pytest.mark.parametrize("lines", [False, True], ids=["one string", "lines"])
def test_rows_that_are_named_by_a_sentence_have_room_for_it(lines):
    sentence = "A claim that takes more than forty characters to say"
    made = f'<table class="dataframe">\n<th>ARI</th>\n<th>{sentence}</th>\n</table>'
    other = f"<table><th>{sentence}</th></table>"
    notebook = chapter_notebook()
    cell = next(c for c in notebook["cells"] if c["cell_type"] == "code")
    cell["outputs"] = [
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": text.splitlines(keepends=True) if lines else text}}
        for text in (made, other)
    ]  # fmt: skip
    before = copy.deepcopy(notebook)
    (shown,) = [c for c in view.page(notebook, "qc")["cells"] if len(c.get("outputs", [])) == 2]
    first, second = (o["data"]["text/html"] for o in shown["outputs"])
    assert first == made.replace(f"<th>{sentence}", f'<th class="scp-sentence">{sentence}')
    assert "".join(second) == other and notebook == before


def test_claims_have_an_anchor_where_they_are_measured():
    shown = view.page(chapter_notebook(), "qc", ["kept", "glued", "nowhere"])
    assert at(shown, "{scprimer} anchor claim-qc-kept") == at(shown, '"kept", "words"') - 1
    assert at(shown, "{scprimer} anchor claim-qc-glued") == at(shown, "for key in keys") - 1
    assert at(shown, "{scprimer} anchor claim-qc-nowhere") == at(shown, "## Claims") - 1
    assert at(shown, "{scprimer} anchor pitfall-p1") == at(shown, "## Break it") - 1


@pytest.mark.parametrize("literature", [False, True])
def test_the_literature_stands_at_the_end_of_the_claims(literature):
    shown = view.page(chapter_notebook(), "qc", literature=literature)
    assert at(shown, "{scprimer} exempt qc") == at(shown, "## Exercises") - 1
    beside = [text for text in sources(shown) if "{scprimer} beside qc" in text]
    assert len(beside) == literature
    assert all(text.startswith("### Beside the literature") for text in beside)


def test_claims_at_the_end_of_a_notebook_have_their_literature_too():
    notebook = chapter_notebook()
    notebook["cells"] = notebook["cells"][:11]
    assert "{scprimer} exempt qc" in sources(view.page(notebook, "qc"))[-1]


def test_sections_can_be_linked_by_their_tag():
    shown = view.page(chapter_notebook(), "qc")
    assert "(qc-build)=\n## Build it" in sources(shown)[at(shown, "## Build it")]
    assert "[Build it](#qc-build)" in sources(shown)[at(shown, "Take-aways")]


def test_cell_ids_stay_valid_and_unique():
    shown = view.page(chapter_notebook(), "qc", ["kept", "glued", HOSTILE])
    ids = [c["id"] for c in shown["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,64}", i) for i in ids)
    assert not any(HOSTILE in text for text in sources(shown)[1:])


# ---- stills ----------------------------------------------------------------------------------------------------------------
def state(**models):
    return {"widgets": {stills.STATE: {"state": models}}}


def widget(name, **fields):
    return {"model_name": name, "state": fields}


def shown_widget(model="a"):
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {stills.VIEW: {"model_id": model}, "text/plain": "interactive()"},
    }


PICTURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA"}}


def test_controls_become_words_and_their_picture():
    meta = state(
        a=widget("VBoxModel", children=["IPY_MODEL_b", "IPY_MODEL_c", "IPY_MODEL_d", "IPY_MODEL_e", "IPY_MODEL_a"]),
        b=widget("IntSliderModel", description=HOSTILE, value=15),
        c=widget("DropdownModel", description="method", _options_labels=["PCA", "UMAP"], index=1),
        d=widget("CheckboxModel", description="log", value=True),
        e=widget("OutputModel", outputs=[PICTURE]),
    )
    strip, picture = stills.outputs([shown_widget()], meta)
    assert picture == PICTURE
    html = strip["data"]["text/html"]
    assert all(f"<dd>{value}</dd>" in html for value in ("15", "UMAP", "on"))
    assert "<script" not in html and "&lt;script&gt;" in html


def test_a_widget_without_state_keeps_its_picture_and_loses_its_repr():
    with_picture = {**shown_widget(), "data": shown_widget()["data"] | {"image/png": "AAAA"}}
    assert [o["data"] for o in stills.outputs([with_picture], {})] == [{"image/png": "AAAA"}]
    assert stills.outputs([shown_widget()], {}) == []


def test_other_outputs_stay():
    assert stills.outputs([PICTURE], {}) == [PICTURE]


# ---- words, numbers and tables ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value, shown", [
    (0.87123, "0.871"), (529.0, "529"), (1234.5, "1,234"), (-0.25, "−0.25"), (0.0, "0"), (float("inf"), "∞"),
    (2.13e-7, "2.1&thinsp;×&thinsp;10<sup>−7</sup>"), (3e9, "3.0&thinsp;×&thinsp;10<sup>9</sup>"),
])  # fmt: skip
def test_numbers_read_well(value, shown):
    assert words.figure(value) == shown


@pytest.mark.parametrize("seconds, shown", [(0.2, "1 s"), (42, "42 s"), (95, "1.6 min"), (1200, "20 min")])
def test_times_are_said_in_their_unit(seconds, shown):
    assert words.minutes(seconds) == shown


def test_a_spread_says_what_was_drawn_anew():
    measured = ledger.Measured("standard", (0.5, 0.7), "donors")
    assert "0.6 ± 0.14" in words.spread(measured) and "over 2 draws of donors" in words.spread(measured)
    assert "±" not in words.spread(ledger.Measured("standard", (0.5,)))


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "methods.csv").write_text(
        'id,family,method,source,chapter,how,show\npca,"<b>f</b>","<i>PCA</i>",review,qc,`svd` <u>,"<s>"\n'
    )
    (tmp_path / "book" / "reported.csv").write_text(
        "id,chapter,method,where,setting,metric,reported,compare,comparability,remark\n"
        "r-hvg-norm,qc,pca,<w>,<s>,<m>,<r>,<c>,other,<k>\n"
    )
    stamp = {"profile": "standard", "seconds": 61, "peak_mb": 1500, "downloaded_mb": 12.5, "date": "2026-01-09", "device": HOSTILE,
             "versions": {HOSTILE: HOSTILE}, "python": HOSTILE, "hardware": HOSTILE, "seed": HOSTILE}  # fmt: skip
    notebook = chapter_notebook(stamp=stamp, not_applicable={HOSTILE: HOSTILE})
    book.write_notebook(tmp_path / "notebooks" / "data" / "qc.ipynb", notebook)
    return ledger.read(tmp_path, lambda chapter: ("stale", (HOSTILE,))), book.chapters(tmp_path, planned=True)


def link(docname, name):
    return f"{docname}.html#{name}"


def every_block(found, chapters):
    qc = next(c for c in chapters if c.slug == "qc")
    return {
        "cost": blocks.cost_box(found.costs[0]),
        "claims": blocks.claims_table(found.claims, link),
        "literature": blocks.reported_table(found.reported, link),
        "beside": blocks.beside("qc", found, link),
        "exempt": blocks.exempt(qc),
        "methods": blocks.methods_table(found.methods, link),
        "failures": blocks.failures(found.pitfalls, link),
        "status": blocks.status_table(found.costs, link),
        "path": blocks.path([qc, chapters[0]], link),
        "map": bookmap.bookmap(found, chapters, link),
    }


@pytest.mark.parametrize("clock, said", [("processor", True), ("wall", False), (None, False)])
def test_the_cost_box_says_whose_clock_it_was(rows, clock, said):
    (cost,) = rows[0].costs
    cost.stamps["standard"]["clock"] = clock
    assert ("<b>61 s</b> standard, processor time<" in blocks.cost_box(cost)) == said


def test_everything_from_notebooks_and_tables_is_escaped(rows):
    for name, html in every_block(*rows).items():
        assert not re.search(r"<(script|img|b>f|i>PCA|u>|s>|w>|m>|r>|c>|k>)", html), name
        ET.fromstring(f"<x>{html.replace('&thinsp;', ' ')}</x>")  # and stays well formed


def test_the_page_that_shows_a_block_shows_its_words(rows):
    found = every_block(*rows)
    assert "1.0 min" in found["cost"] or "61 s" in found["cost"]
    assert "1.5 GB" in found["cost"] and "12 MB" in found["cost"] and "9 January 2026" in found["cost"]
    assert "0.6 ± 0.14" in found["claims"] and 'id="claim-qc-kept"' in found["claims"] and "≥ 0.4" in found["claims"]
    assert "notebooks/data/qc.html#claim-qc-kept" in found["claims"]
    assert 'id="reported-r-hvg-norm"' in found["literature"] and "other setting" in found["literature"]
    assert 'id="reported-' not in found["beside"] and "data-sortable" not in found["beside"]
    assert "to be re-run" in found["methods"] and "<code>svd</code>" in found["methods"]
    assert "notebooks/data/qc.html#pitfall-p1" in found["failures"]
    assert "&lt;script&gt;" in found["status"]


def test_a_chapter_without_a_run_says_so():
    assert "Not measured yet" in blocks.cost_box(ledger.Cost(chapter=None, state="never run", reasons=()))


def test_the_map_shows_every_chapter_and_links_the_written_ones(rows):
    found, chapters = rows
    html = bookmap.bookmap(found, chapters, link)
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert svg.count('class="scp-stop"') == len(chapters)
        assert svg.count("<a ") == 1 and 'href="notebooks/data/qc.html#"' in svg
        assert svg.count("<title>") == len(found.methods)
    assert f"1 of {len(chapters)} chapters are written" in html


def test_labels_of_the_map_fit_their_lane(root):
    for chapter in book.chapters(root, planned=True):
        lines = bookmap._wrap(ledger.chapter_name(chapter.slug), 12)
        assert len(lines) <= 2 and max(map(len, lines)) <= 16, lines


# ---- the head of a page ------------------------------------------------------------------------------------------------------
class Script:
    def __init__(self, filename=None, **attributes):
        self.filename, self.attributes = filename, attributes


@pytest.mark.parametrize("script, unused", [
    (Script("_static/sphinx-thebe.js"), True), (Script(None, body="const THEBE_JS_URL = 1"), True),
    (Script("https://cdn.example/require.min.js"), True), (Script("_static/doctools.js"), False), (Script(None, body="let x = 1"), False),
])  # fmt: skip
def test_scripts_of_thebe_and_widgets_are_dropped(script, unused):
    assert pages._unused(script) is unused


def test_marks_in_code_that_colour_nothing_are_dropped():
    code = '<span class="n">x</span><span class="w"> </span><span class="o">=</span><span class="p">(</span><span class="nb">len</span>'
    assert pages._PLAIN_CODE.sub(r"\1", code) == 'x <span class="o">=</span>(<span class="nb">len</span>'


def test_old_roles_of_the_bibliography_are_dropped():
    for start in ('<div role="list" class="citation-list">', '<div class="citation-list" role="list">'):
        assert pages._OLD_ROLES.sub("", f'{start}<div class="citation" role="doc-biblioentry">') == (
            '<div class="citation-list"><div class="citation">'
        )
    assert pages._OLD_ROLES.sub("", '<ul role="list">') == '<ul role="list">'
