"""Each rule passes the good chapter and catches, alone, the chapter that is broken in its one way."""

from __future__ import annotations

import copy
import os

import pytest
from fixtures import good_chapter as fixture

from scprimer.publish import book, rules
from scprimer.publish.rules import common

BROKEN = []  # (rule, name of the breakage, function that breaks a notebook)


def breaks(rule: str):
    """Register a function that breaks a notebook so that exactly ``rule`` must notice."""

    def register(function):
        BROKEN.append(pytest.param(rule, function, id=f"{rule}: {function.__name__.replace('_', ' ')}"))
        return function

    return register


def cell(notebook, id):
    return fixture.cell(notebook, id)


def meta(notebook):
    return notebook["metadata"]["scprimer"]


def claim(notebook, id):
    return next(c for c in meta(notebook)["claims"] if c["id"] == id)


def say(text: str, **kind) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text} | kind


def remove(notebook, *ids):
    notebook["cells"] = [c for c in notebook["cells"] if c["id"] not in ids]
    renumber(notebook)


def renumber(notebook):
    for n, c in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        c["execution_count"] = n


# ---- anatomy ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "tag", [t for t in book.ANATOMY if t not in ("break", "claims", "exercises", "idea", "takeaways")]
)
def test_a_missing_part_is_named(tag, tmp_path):
    notebook = fixture.good()
    next(c for c in notebook["cells"] if tag in book.tags(c))["metadata"]["tags"] = []
    found = rules.check(fixture.write(tmp_path, notebook))
    assert [v.rule for v in found] == ["anatomy"]
    assert tag in found[0].words


@breaks("anatomy")
def parts_in_another_order(nb):
    cell(nb, "look")["metadata"]["tags"], cell(nb, "check")["metadata"]["tags"] = ["check"], ["look"]


@breaks("anatomy")
def a_cell_that_opens_two_parts(nb):
    cell(nb, "run")["metadata"]["tags"] = ["run", "build"]


@breaks("anatomy")
def a_part_without_heading(nb):
    cell(nb, "run")["source"] = "It runs."


@breaks("anatomy")
def a_part_tag_on_a_code_cell(nb):
    cell(nb, "measure")["metadata"]["tags"] = ["run"]


@breaks("exemptions")
def an_exemption_without_a_sentence(nb):
    remove(nb, "run")
    meta(nb)["not_applicable"] = {"run": "no model"}


@breaks("exemptions")
def an_exemption_from_nothing(nb):
    meta(nb)["not_applicable"] = {"beauty": "This chapter has no use for beauty, as one can see."}


@breaks("exemptions")
def an_exemption_of_what_is_there(nb):
    meta(nb)["not_applicable"] = {"check": "There is nothing that this could be checked against."}


@breaks("metadata")
def metadata_of_another_chapter(nb):
    meta(nb)["chapter"] = "scvi"


@breaks("metadata")
def a_kernel_of_one_machine(nb):
    nb["metadata"]["kernelspec"]["name"] = "my-venv"


@breaks("title")
def no_promise(nb):
    cell(nb, "title")["source"] = "# Finding structure"


@breaks("title")
def a_promise_of_two_sentences(nb):
    cell(nb, "title")["source"] += " You will also be able to do much more than that."


@breaks("title")
def a_second_title(nb):
    cell(nb, "look")["source"] += "\n\n# Another title"


@breaks("install-cell")
def an_edited_install_cell(nb):
    cell(nb, "install")["source"] += "\n    pip('more')"


@breaks("install-cell")
def an_install_cell_without_its_tag(nb):
    cell(nb, "install")["metadata"]["tags"] = []


@breaks("parameters")
def a_profile_that_is_set(nb):
    cell(nb, "parameters")["source"] = cell(nb, "parameters")["source"].replace("profile = None", 'profile = "smoke"')


@breaks("parameters")
def parameters_that_compute(nb):
    cell(nb, "parameters")["source"] += "\nhalf = n_cells // 2"


@breaks("parameters")
def no_seed(nb):
    cell(nb, "parameters")["source"] = cell(nb, "parameters")["source"].replace("seed = 0", 'seed = "lucky"')


def with_device(nb, value='"auto"'):
    """The chapter as one that uses torch."""
    cell(nb, "parameters")["source"] += f"\ndevice = {value}"
    cell(nb, "start")["source"] = cell(nb, "start")["source"].replace(
        "dataset=dataset", "dataset=dataset, device=device"
    )
    cell(nb, "show-data")["source"] += "\nwhere = run.device"


def test_a_chapter_with_a_device_keeps_the_rules(tmp_path):
    notebook = fixture.good()
    with_device(notebook)
    assert rules.check(fixture.write(tmp_path, notebook)) == []


@breaks("parameters")
def a_device_that_is_set(nb):
    with_device(nb, '"cuda"')


@breaks("parameters")
def no_device_where_one_is_asked_for(nb):
    cell(nb, "show-data")["source"] += "\nwhere = run.device"


@breaks("start")
def a_device_that_is_not_passed_on(nb):
    with_device(nb)
    cell(nb, "start")["source"] = cell(nb, "start")["source"].replace(", device=device", "")


@breaks("start")
def a_device_that_is_no_parameter(nb):
    cell(nb, "start")["source"] = cell(nb, "start")["source"].replace(
        "dataset=dataset", 'dataset=dataset, device="auto"'
    )


@breaks("start")
def the_slug_of_another_chapter(nb):
    cell(nb, "start")["source"] = cell(nb, "start")["source"].replace('"unsupervised"', '"scvi"')


@breaks("start")
def a_seed_that_is_not_passed_on(nb):
    cell(nb, "start")["source"] = cell(nb, "start")["source"].replace("seed=seed", "seed=1")


@breaks("start")
def claims_written_for_other_data(nb):
    cell(nb, "start")["source"] = cell(nb, "start")["source"].replace("written_for=None", 'written_for="pbmc3k"')


@breaks("start")
def a_start_that_comes_late(nb):
    i = next(i for i, c in enumerate(nb["cells"]) if c["id"] == "start")
    nb["cells"][i], nb["cells"][i + 1] = nb["cells"][i + 1], nb["cells"][i]


@breaks("ask-run")
def code_that_reads_the_raw_seed(nb):
    cell(nb, "show-data")["source"] += "\nnumber = seed + 1"


@breaks("ask-run")
def code_that_reads_the_raw_device(nb):
    with_device(nb)
    cell(nb, "show-data")["source"] += "\nchosen = device"


@breaks("ask-run")
def a_function_that_reads_the_raw_dataset(nb):
    cell(nb, "show-data")["source"] += "\nload = lambda: str(dataset)"


@breaks("symbols")
def no_table_of_symbols(nb):
    cell(nb, "idea")["source"] = "## The idea\n\nIt is simple."


@breaks("pitfall")
def no_pitfall_in_the_gallery(nb):
    cell(nb, "break")["metadata"]["scprimer"] = {}


@breaks("pitfall")
def a_pitfall_that_nobody_can_notice(nb):
    cell(nb, "break")["metadata"]["scprimer"]["pitfall"]["notice"] = " "


@breaks("report")
def a_report_that_is_not_compared(nb):
    cell(nb, "report")["metadata"]["tags"] = []


@breaks("report")
def no_table(nb):
    cell(nb, "table")["source"] = "list(run.table().index)"


@breaks("report")
def a_claim_after_the_report(nb):
    cell(nb, "e3-setup")["source"] += "\n\n\ndef late(run):\n    run.glue(late=1.0)"


@breaks("exercise-form")
def two_exercises(nb):
    remove(nb, "e2-task", "e2-setup", "e2-solution", "e2-check")


@breaks("exercise-form")
def exercises_that_start_with_the_project(nb):
    cell(nb, "e1-task")["metadata"]["scprimer"]["exercise"]["level"] = "project"


@breaks("exercise-form")
def an_exercise_without_wrong_answers(nb):
    del cell(nb, "e2-solution")["metadata"]["scprimer"]["wrong"]


@breaks("exercise-form")
def an_exercise_without_another_right_answer(nb):
    del cell(nb, "e2-solution")["metadata"]["scprimer"]["right"]


@breaks("exercise-form")
def a_solution_without_markers(nb):
    cell(nb, "e1-solution")["source"] = "def centre(X):\n    return X - X.mean(0)"


@breaks("exercise-form")
def a_solution_that_is_not_folded(nb):
    cell(nb, "e1-solution")["metadata"]["tags"] = ["exercise-solution"]


@breaks("exercise-form")
def an_assert_without_words(nb):
    cell(nb, "e3-check")["source"] = "assert widest(X) == 2"


@breaks("exercise-form")
def an_exercise_before_its_section(nb):
    at = nb["cells"].index(cell(nb, "exercises"))
    nb["cells"].insert(at + 1, nb["cells"].pop(at))


@breaks("self-checks")
def one_self_check_alone(nb):
    remove(nb, "check-scale")


@breaks("self-checks")
def a_self_check_without_reasons(nb):
    cell(nb, "check-scale")["source"] = fixture.SELF_CHECK.replace("; it says nothing of how the cells differ", "")


@breaks("self-checks")
def a_self_check_among_the_exercises(nb):
    nb["cells"].append(nb["cells"].pop(nb["cells"].index(cell(nb, "check-scale"))))


@breaks("takeaways")
def nothing_would_change_our_mind(nb):
    cell(nb, "takeaways")["source"] = fixture.TAKEAWAYS.replace("What would change our mind", "We are right")


@breaks("placeholders")
def words_of_the_template(nb):
    cell(nb, "look")["source"] += "\n\nREPLACE by what one sees."


@breaks("placeholders")
def a_caption_of_the_template(nb):
    cell(nb, "figure")["metadata"]["mystnb"]["figure"]["caption"] = "REPLACE by a caption."


@breaks("exports")
def an_exported_function_without_docstring(nb):
    cell(nb, "first-component")["source"] += "\n\n\ndef other(X):\n    return X"


@breaks("exports")
def an_exported_cell_that_needs_another(nb):
    source = "half = n_cells // 2\n\n\ndef split(X):\n    '''The first half.'''\n    return X[:half]"
    cell(nb, "first-component")["source"] += "\n\n\n" + source


# ---- cells -----------------------------------------------------------------------------------------------------------
@breaks("plain-python")
def a_magic(nb):
    cell(nb, "show-data")["source"] = "%timeit 1 + 1"


@breaks("plain-python")
def a_shell_line(nb):
    cell(nb, "show-data")["source"] = "!pip install something"


@breaks("plain-python")
def output_that_is_captured(nb):
    cell(nb, "show-data")["source"] = "# %%capture\n" + cell(nb, "show-data")["source"]


@breaks("plain-python")
def a_syntax_error(nb):
    cell(nb, "show-data")["source"] = "print('cells'"


@breaks("plain-python")
def an_empty_cell(nb):
    cell(nb, "show-data")["source"] = ""


@breaks("cell-length")
def a_cell_of_twenty_six_lines(nb):
    cell(nb, "show-data")["source"] = "\n".join(f"x{i} = {i}" for i in range(26))


@breaks("cell-length")
def long_cells_as_a_rule(nb):
    for c in nb["cells"]:
        if c["cell_type"] == "code" and c["id"] not in ("install", "parameters", "start", "table", "report"):
            c["source"] += "\n" + "\n".join(f"_{i} = {i}" for i in range(16 - len(c["source"].splitlines())))


@breaks("execution-order")
def cells_executed_out_of_order(nb):
    a, b = cell(nb, "measure"), cell(nb, "figure")
    a["execution_count"], b["execution_count"] = b["execution_count"], a["execution_count"]


@breaks("execution-order")
def a_cell_that_was_not_executed(nb):
    cell(nb, "e1-check")["execution_count"] = None


@breaks("execution-order")
def cells_executed_twice(nb):
    for c in nb["cells"]:
        if c["cell_type"] == "code":
            c["execution_count"] += 40


@breaks("cell-ids")
def an_id_used_twice(nb):
    cell(nb, "run")["id"] = "look"


@breaks("cell-ids")
def an_id_with_blanks(nb):
    cell(nb, "run")["id"] = "run it"


@breaks("cell-ids")
def an_old_format_without_ids(nb):
    nb["nbformat_minor"] = 4


@breaks("size")
def a_notebook_of_a_megabyte(nb):
    cell(nb, "figure")["outputs"][0]["data"]["image/png"] = "A" * 1_000_000


# ---- outputs ---------------------------------------------------------------------------------------------------------
@breaks("stderr")
def words_on_stderr(nb):
    cell(nb, "show-data")["outputs"].append(say("something is odd\n", name="stderr"))


@breaks("stderr")
def an_error_as_output(nb):
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    cell(nb, "show-data")["outputs"].append(error)


@pytest.mark.parametrize(
    "text",
    [
        "<matplotlib.lines.Line2D at 0x7f3a5c0b2d90>",
        "FutureWarning: this will change",
        "INFO:root:Epoch 1",
        "100%|██████████| 5/5",
        "reading /home/someone/pbmc3k.h5ad",
        f"reading {os.sep}tmp{os.sep}pbmc3k.h5ad",
        "reading C:\\Users\\someone\\pbmc3k.h5ad",
    ],
)
@pytest.mark.parametrize("kind", ["stream", "text/plain", "text/html"])
def test_clutter_in_outputs(text, kind, tmp_path):
    notebook = fixture.good()
    shown = {"output_type": "display_data", "data": {kind: text}, "metadata": {}} if "/" in kind else say(text)
    cell(notebook, "show-data")["outputs"].append(shown)
    assert {v.rule for v in rules.check(fixture.write(tmp_path, notebook))} == {"clean-outputs"}


@pytest.mark.parametrize(
    "text",
    [
        "/obs/cell_type in the file",
        "Warning signs: none",
        "INFO about it",
        "4,000 of 5,000 (80%)",
        "see https://x.org/home/a",
    ],
)
def test_what_is_not_clutter(text, tmp_path):
    notebook = fixture.good()
    cell(notebook, "show-data")["outputs"].append(say("First line\n" + text.replace("INFO", "Info")))
    assert rules.check(fixture.write(tmp_path, notebook)) == []


@breaks("alt-text")
def no_alt_text(nb):
    del cell(nb, "figure")["metadata"]["mystnb"]["image"]


@breaks("alt-text")
def alt_text_that_says_nothing(nb):
    cell(nb, "figure")["metadata"]["mystnb"]["image"]["alt"] = "a bar chart"


@breaks("alt-text")
def alt_text_that_says_image_of(nb):
    cell(nb, "figure")["metadata"]["mystnb"]["image"]["alt"] = "Image of two bars, one of them far higher"


@breaks("alt-text")
def no_caption(nb):
    cell(nb, "figure")["metadata"]["mystnb"]["figure"]["caption"] = ""


@breaks("alt-text")
def a_figure_without_a_name(nb):
    cell(nb, "figure")["metadata"]["mystnb"]["figure"]["name"] = ""


@breaks("alt-text")
def two_figures_in_a_cell(nb):
    cell(nb, "figure")["outputs"] *= 2


@breaks("alt-text")
def an_image_in_the_text_without_words(nb):
    cell(nb, "look")["source"] += "\n\n![](cells.png)"


@breaks("figure-only")
def the_value_of_the_last_line(nb):
    value = {
        "output_type": "execute_result",
        "execution_count": 9,
        "data": {"text/plain": "Text(0, 0)"},
        "metadata": {},
    }
    cell(nb, "figure")["outputs"].append(value)


@breaks("figure-names")
def a_figure_name_used_twice(nb):
    again = copy.deepcopy(cell(nb, "figure")) | {"id": "figure-2"}
    nb["cells"].insert(nb["cells"].index(cell(nb, "figure")), again)
    renumber(nb)


# ---- prose -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("section", ["look", "check", "compare", "claims", "takeaways"])
@pytest.mark.parametrize("words", ["It reaches 0.93 here.", "It loses 12 % of the cells.", "Better by 3.4 points"])
def test_a_typed_result(section, words, tmp_path):
    notebook = fixture.good()
    cell(notebook, section)["source"] += "\n\n" + words
    assert {v.rule for v in rules.check(fixture.write(tmp_path, notebook))} == {"typed-numbers"}


@pytest.mark.parametrize(
    "words",
    [
        "With `alpha=0.93` it is sparse.",
        "Where $p < 0.93$ one stops, $$x = 0.93$$ and so on.",
        "```\n0.93\n```",
        "See [the paper](https://doi.org/10.1038/0.93) and doi: 10.1101/2021.05.04.",
        "The five repeats of 2,700 cells in 2017.",
        "The source reports 0.85 and 85 %.",
        "A bound of 0.9, with half (50 %) in each group.",
        "1. one\n2. two",
        "{glue:text}`auc:.3f` and again {glue:text}`auc-sd:.3f`.",
    ],
)
def test_numbers_that_are_no_results(words, tmp_path):
    notebook = fixture.good()
    cell(notebook, "compare")["source"] += "\n\n" + words
    assert rules.check(fixture.write(tmp_path, notebook)) == []


def test_a_cell_may_say_that_its_numbers_are_no_results(tmp_path):
    notebook = fixture.good()
    cell(notebook, "look")["source"] += "\n\nA litre of blood holds 4.93 of them."
    cell(notebook, "look")["metadata"]["tags"].append("typed-numbers-ok")
    assert rules.check(fixture.write(tmp_path, notebook)) == []


@breaks("glue-keys")
def a_key_that_is_glued_twice(nb):
    cell(nb, "show-data")["outputs"] += [fixture.glue("best", "0.5"), fixture.glue("best", "0.7")]


@breaks("glue-keys")
def a_key_that_is_glued_nowhere(nb):
    cell(nb, "look")["source"] += " {glue:text}`leiden-ari:.2f`"


@breaks("glue-keys")
def a_format_that_does_not_fit(nb):
    cell(nb, "show-data")["outputs"].append(fixture.glue("best", "scvi"))
    cell(nb, "look")["source"] += " {glue:text}`best:.2f`"


@breaks("glue-keys")
def a_key_of_another_page_that_is_not_there(nb):
    cell(nb, "look")["source"] += " {glue:text}`../data/qc.ipynb::cells-kept:.2f`"


@breaks("citations")
def a_source_that_is_not_in_the_bibliography(nb):
    cell(nb, "look")["source"] += " {cite}`pearson1901,hotelling1933`"


@breaks("citations")
def a_claim_whose_source_is_unknown(nb):
    claim(nb, "auc")["source"] = "hotelling1933"


@breaks("citations")
def a_chapter_that_cites_nothing(nb):
    for id in ("objectives", "takeaways"):
        cell(nb, id)["source"] = cell(nb, id)["source"].replace("{cite}`pearson1901`", "by Pearson")


# ---- claims ----------------------------------------------------------------------------------------------------------
@breaks("claim-kinds")
def no_reference_claim(nb):
    meta(nb)["claims"].remove(claim(nb, "same-variance"))


@breaks("claim-kinds")
def no_pitfall_claim(nb):
    meta(nb)["claims"].remove(claim(nb, "one-sign"))


@breaks("claim-kinds")
def no_baseline(nb):
    for c in meta(nb)["claims"]:
        c["baseline"] = None


@breaks("claim-kinds")
def four_results(nb):
    claim(nb, "auc-fifth")["kind"] = "baseline"
    meta(nb)["not_applicable"] = {"spread": "The results of this chapter are exact counts."}


@breaks("claim-form")
def a_claim_with_a_number_in_its_text(nb):
    claim(nb, "auc")["text"] = "The first component reaches an area of 0.93"


@breaks("claim-form")
def a_claim_without_words(nb):
    claim(nb, "auc")["text"] = "It works"


@breaks("claim-form")
def a_claim_that_standard_does_not_assert(nb):
    bounds = claim(nb, "one-sign")["bounds"]
    del bounds["standard"]


@breaks("claim-holds")
def a_claim_that_does_not_hold(nb):
    claim(nb, "one-sign")["bounds"]["standard"] = ["at_least", 1.5]


@breaks("claim-holds")
def a_claim_that_is_not_a_number(nb):
    claim(nb, "one-sign")["values"] = [float("nan")]


@breaks("claim-spread")
def results_of_a_single_run(nb):
    claim(nb, "auc-third")["values"] = [0.99]


@breaks("claim-spread")
def repeats_of_what(nb):
    claim(nb, "one-sign")["values"] = [1.0, 1.0]


@breaks("claim-controls")
def a_control_that_passes(nb):
    claim(nb, "auc")["control"] = 0.95


@breaks("claim-controls")
def a_result_without_control(nb):
    claim(nb, "auc")["control"] = None


@breaks("methods")
def a_method_that_is_not_listed(nb):
    meta(nb)["methods"] = []


@breaks("methods")
def a_method_without_result(nb):
    for c in meta(nb)["claims"]:
        c["method"] = None


@breaks("methods")
def a_claim_about_a_method_of_another_chapter(nb):
    claim(nb, "auc-fifth")["method"] = "scvi"


@breaks("reported")
def a_reported_figure_that_is_not_remeasured(nb):
    claim(nb, "auc")["reported"] = None


@breaks("reported")
def a_reported_figure_of_another_chapter(nb):
    claim(nb, "auc-fifth")["reported"] = "r-scvi-ari"


@breaks("reported")
def an_exemption_of_a_figure_that_is_remeasured(nb):
    meta(nb)["not_applicable"] = {"reported:r-pca-auc": "The data that it was measured on are not public."}


# ---- the stamp -------------------------------------------------------------------------------------------------------
def test_no_stamp(tmp_path):
    found = rules.check(fixture.write(tmp_path, fixture.good(), stamped=False))
    assert [v.rule for v in found] == ["stamp"]


def edited(chapter, id, source):
    """The chapter after an edit that nobody ran."""
    notebook = book.read_notebook(chapter.path)
    cell(notebook, id)["source"] = source
    book.write_notebook(chapter.path, notebook)
    return book.Chapter(chapter.slug, chapter.part, chapter.path)


def test_stale_outputs(tmp_path):
    chapter = fixture.write(tmp_path, fixture.good())
    found = rules.check(edited(chapter, "show-data", 'print(f"{n_cells} cells in three groups")'))
    assert [v.rule for v in found] == ["stamp"]
    assert "stale" in found[0].words


@pytest.mark.parametrize("id", ["show-data", "e1-check", "look"])
def test_words_cost_no_run(id, tmp_path):
    chapter = fixture.write(tmp_path, fixture.good())
    source = cell(chapter.notebook, id)["source"]
    edit = "We look again.\n" if id == "look" else "# a comment\n"
    assert rules.check(edited(chapter, id, "\n".join([source, edit]) if id == "look" else edit + source)) == []


def test_outputs_of_another_profile(tmp_path):
    chapter = fixture.write(tmp_path, fixture.good())
    notebook = book.read_notebook(chapter.path)
    meta(notebook)["stamp"]["profile"] = "smoke"
    book.write_notebook(chapter.path, notebook)
    found = rules.check(book.Chapter(chapter.slug, chapter.part, chapter.path))
    assert [v.rule for v in found] == ["stamp"]


# ---- all of them -----------------------------------------------------------------------------------------------------
def test_the_good_chapter_keeps_every_rule(tmp_path):
    assert rules.check(fixture.write(tmp_path, fixture.good())) == []


@pytest.mark.parametrize("rule, break_it", BROKEN)
def test_the_broken_chapter_is_caught_by_exactly_its_rule(rule, break_it, tmp_path):
    notebook = fixture.good()
    break_it(notebook)
    found = rules.check(fixture.write(tmp_path, notebook))
    assert {v.rule for v in found} == {rule}, [str(v) for v in found]
    assert all(v.words and v.fix for v in found)


def test_every_rule_has_a_broken_chapter():
    tested = {param.values[0] for param in BROKEN} | {"clean-outputs", "typed-numbers", "stamp"}
    assert tested == set(rules.RULES)


def test_a_chapter_without_a_model_says_why(tmp_path):
    notebook = fixture.good()
    remove(notebook, "run")
    meta(notebook)["claims"] = [
        c | {"control": None, "baseline": None, "values": c["values"][:1]} for c in meta(notebook)["claims"]
    ]
    reason = "A container of data has no model, so nothing is drawn anew."
    meta(notebook)["not_applicable"] = dict.fromkeys(("run", "baseline", "control", "spread"), reason)
    assert rules.check(fixture.write(tmp_path, notebook)) == []


def test_a_chapter_where_nothing_is_drawn_needs_no_seed(tmp_path):
    notebook = fixture.good()
    for id, words in (("parameters", "seed = 0\n"), ("start", "seed=seed, ")):
        cell(notebook, id)["source"] = cell(notebook, id)["source"].replace(words, "")
    meta(notebook)["not_applicable"] = {"seed": "Nothing in this chapter is drawn at random."}
    assert rules.check(fixture.write(tmp_path, notebook)) == []


def test_an_open_reported_figure_can_be_left_out_with_a_reason(tmp_path):
    notebook = fixture.good()
    claim(notebook, "auc")["reported"] = None
    meta(notebook)["not_applicable"] = {"reported:r-pca-auc": "The data that it was measured on are not public."}
    assert rules.check(fixture.write(tmp_path, notebook)) == []


def test_names_are_unique_over_the_book(tmp_path):
    other = fixture.good()
    fixture.write(tmp_path, other, stamped=False, slug="scvi")
    found = rules.check(fixture.write(tmp_path, fixture.good()))
    assert {v.rule for v in found} == {"figure-names", "pitfall"}


def test_a_key_glued_on_another_page(tmp_path):
    fixture.write(tmp_path, fixture.good(), stamped=False, slug="scvi")
    own = fixture.good()
    cell(own, "figure")["metadata"]["mystnb"]["figure"]["name"] = "fig-unsupervised-own"
    cell(own, "break")["metadata"]["scprimer"]["pitfall"]["id"] = "own"
    cell(own, "look")["source"] += " {glue:text}`../learning/scvi.ipynb::auc:.2f`"
    assert rules.check(fixture.write(tmp_path, own)) == []


def test_a_violation_reads_as_one_line():
    text = str(common.Violation("alt-text", "figure", "no alt text", "say what it shows"))
    assert text == "[alt-text] (cell figure) no alt text: say what it shows"
