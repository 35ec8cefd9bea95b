"""The explorer without a browser: what a bundle keeps, what a sheet refuses, how agreement is measured, and which form is shown."""

from __future__ import annotations

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from explorer_example import HOSTILE, TYPES, pair

from scprimer import explorer, plots
from scprimer.explorer import bundle as bundles
from scprimer.explorer import sheet as sheets
from scprimer.explorer import view


# ---- the bundle ------------------------------------------------------------------------------------------------------
@pytest.fixture
def given(rng):
    return pair(rng, cells=50, concepts=3, neurons=2, genes=30, conditions=True, prefix="G")


def add(given, **changed):
    made = explorer.Bundle()
    made.add_pair("m", "d", **{**given, **changed})
    return made


def test_eight_bits_lose_at_most_one_step(rng):
    values = np.concatenate(
        [rng.gamma(1, 2, (200, 3)) * (rng.random((200, 3)) < 0.3), rng.normal(size=(200, 2))], axis=1
    )
    levels, low, high = bundles.quantise(values)
    back = low + levels / 255 * (high - low)
    assert levels.dtype == np.uint8
    assert (np.abs(back - values) <= (high - low) / 255 + 1e-12).all()
    assert (low[:3] == 0).all() and (low[3:] < 0).all()


def test_a_faintly_active_cell_stays_active():
    levels, *_ = bundles.quantise(np.array([[0.0], [1e-9], [1.0]]))
    assert levels[:, 0].tolist() == [0, 1, 255]


def test_an_item_that_is_never_active_is_all_zero():
    levels, low, high = bundles.quantise(np.zeros((4, 1)))
    assert not levels.any() and low == high == 0


def test_the_embedding_keeps_its_shape(rng):
    xy = rng.normal(size=(100, 2)) * [10, 2]
    steps = bundles.grid(xy).astype(float)
    scale = np.ptp(xy[:, 0]) / bundles.GRID
    assert np.abs(np.diff(steps[:, 1]) * scale - np.diff(xy[:, 1])).max() <= scale
    assert steps.min() >= 0 and steps[:, 0].max() == bundles.GRID


def test_a_packed_bundle_holds_what_was_given(given):
    head, arrays = bundles.unpack(add(given).packed())
    (shown,) = head["pairs"]
    assert (shown["model"], shown["data"], shown["cells"]) == ("m", "d", 50)
    codes = np.frombuffer(arrays, np.uint8, 50, shown["type"])
    assert [shown["types"][c] for c in codes] == list(given["cell_type"])
    assert shown["typeColours"] == [plots.colours(TYPES)[t] for t in shown["types"]]
    codes = np.frombuffer(arrays, np.uint8, 50, shown["condition"])
    assert [shown["conditions"][c] for c in codes] == list(given["condition"])
    xy = np.frombuffer(arrays, "<u2", 100, shown["xy"]).reshape(50, 2)
    assert (xy == bundles.grid(given["embedding"])).all()
    for i, item in enumerate(shown["items"]):
        levels = np.frombuffer(arrays, np.uint8, 50, item["levels"])
        assert (levels == bundles.quantise(given["activations"])[0][:, i]).all()
        gene, attribution = item["genes"][0]
        assert shown["genes"][gene] == f"G{i:04d}" and attribution == 1.0
        assert item["cells"][0] == given["activations"][:, i].argmax()
        assert [[head["terms"][t], p] for t, p in item["pathways"]] == [list(x) for x in given["pathways"][i]]
    assert [i["stable"] for i in shown["items"]] == given["stable"]


def test_missing_labels_are_named(given):
    labels = [*given["cell_type"][:48], None, np.nan]
    head, arrays = bundles.unpack(add(given, cell_type=labels).packed())
    shown = head["pairs"][0]
    assert shown["types"][-1] == "not labelled" and shown["typeColours"][-1] == plots.MISSING
    assert np.frombuffer(arrays, np.uint8, 50, shown["type"])[-2:].tolist() == [len(shown["types"]) - 1] * 2


def test_an_item_without_attributions_says_so(given):
    given["attributions"][1] = np.nan
    items = bundles.unpack(add(given).packed())[0]["pairs"][0]["items"]
    assert [i["attributed"] for i in items] == [True, False, True, True, True]
    assert items[1]["genes"] == [] and items[1]["near"] == []


def test_nearest_concepts_share_genes_within_and_across_pairs(given):
    g = np.zeros((5, 30))
    g[0, 0], g[1, :2], g[2, 5], g[3, 0], g[4, 5] = 1, 1, 1, 1, -1
    made = add(given, attributions=g)
    made.add_pair("m", "other", **{**given, "attributions": g[[2, 1, 0, 3, 4]]})
    here, there = (p["items"] for p in bundles.unpack(made.packed())[0]["pairs"])
    assert here[0]["near"] == [[0, 1, 0.71], [1, 2, 1.0]]  # never itself, never a neuron, own pair first
    assert here[3]["near"] == [[0, 0, 1.0], [0, 1, 0.71], [1, 2, 1.0]]  # a neuron's nearest are concepts, too
    assert here[4]["near"] == []  # opposite genes are not near
    assert there[0]["near"] == [[0, 2, 1.0]]


def test_pairs_with_hardly_a_gene_in_common_are_not_linked(given):
    made = add(given)
    made.add_pair("m", "other", **{**given, "genes": given["genes"][:19] + [f"H{i}" for i in range(11)]})
    items = bundles.unpack(made.packed())[0]["pairs"][0]["items"]
    assert all(link[0] == 0 for i in items for link in i["near"])


@pytest.mark.parametrize("changed, words", [
    ({"embedding": np.zeros((50, 3))}, r"embedding has shape \(50, 3\).*cells x 2"),
    ({"activations": np.zeros((5, 50))}, r"activations has shape \(5, 50\).*50 x 5"),
    ({"attributions": np.zeros((5, 29))}, "attributions has shape.*items x genes: 5 x 30"),
    ({"activations": np.full((50, 5), np.nan)}, "activations holds 250 numbers that are not finite"),
    ({"embedding": np.full((50, 2), np.inf)}, "embedding holds 100 numbers"),
    ({"cell_type": ["B"] * 49}, "cell_type has 49 entries; wanted is one a cell: 50"),
    ({"condition": ["x"]}, "condition has 1 entries"),
    ({"cell_type": [f"t{i}" for i in range(50)] * 6, "embedding": np.zeros((300, 2)), "activations": np.zeros((300, 5)),
      "condition": [f"c{i}" for i in range(300)]}, "condition has 300 different labels"),
    ({"kinds": ["concept"] * 4 + ["feature"]}, r"kinds holds \['feature'\]"),
    ({"kinds": ["concept"] * 4}, "kinds has 4 entries; wanted is one an item: 5"),
    ({"ids": ["a", "b", "a", "c", "d"]}, "ids are not unique: 'a'"),
    ({"genes": ["X"] * 30}, "genes are not unique: 'X'"),
    ({"pathways": [[("t", 1.5)]] * 5}, "'t' the adjusted p 1.5"),
    ({"pathways": [[]]}, "pathways has 1 entries"),
    ({"stable": [True]}, "stable has 1 entries"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(given, changed, words):
    with pytest.raises(ValueError, match=words):
        add(given, **changed)


def test_a_pair_comes_once_and_a_bundle_has_pairs(given):
    with pytest.raises(ValueError, match="in the bundle already"):
        add(given).add_pair("m", "d", **given)
    with pytest.raises(ValueError, match="empty: call add_pair"):
        explorer.Bundle().packed()


def test_four_pairs_of_the_usual_size_stay_small_and_larger_ones_are_refused(explorer_bundle):
    """Half of the items are neurons, active in most cells: the worst that a chapter may bring."""
    made = explorer_bundle(cells=1500, concepts=32, neurons=32, genes=500)
    assert len(made.packed()) < 350_000
    with pytest.raises(ValueError, match=r"more than the limit of 100 kB .*1500 cells x 64 items"):
        made.packed(limit_kb=100)


# ---- the page --------------------------------------------------------------------------------------------------------
def test_the_page_is_the_same_every_time_and_nothing_breaks_out_of_it(explorer_bundle):
    page = explorer.explore(explorer_bundle(), rater='"><b>x').to_html()
    assert page == explorer.explore(explorer_bundle(), rater='"><b>x').to_html()
    assert "<b>x" not in page and HOSTILE not in page
    # two scripts and one style are opened and closed, and nothing inside ends one early
    assert [len(re.findall(p, page)) for p in ("<script", "</script", "<style", "</style", "<!--")] == [2, 2, 1, 1, 0]
    assert not re.search(r"https?:|\bimport\b|url\(", page)
    assert not re.search(r"\.(innerHTML|outerHTML|insertAdjacentHTML)|document\.write|\beval\(", page)


def test_a_stored_page_is_renewed_without_its_bundle(explorer_bundle, monkeypatch):
    made = explorer.explore(explorer_bundle(), rater='A "B"', seed=3)
    asset = view._asset
    monkeypatch.setattr(view, "_asset", lambda name: f"/* older */{asset(name)}")
    stored = made.to_html()
    monkeypatch.undo()
    assert "older" in stored and view.renewed(stored) == made.to_html()
    with pytest.raises(ValueError, match="no page of the explorer"):
        view.renewed("<div></div>")


def test_another_bundle_has_another_key(explorer_bundle):
    keys = [bundles.unpack(explorer_bundle(seed=s).packed())[0]["key"] for s in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


@pytest.fixture
def kernel(monkeypatch):
    """A kernel that is asked to run a cell by a front end with, or without, a person behind it."""
    monkeypatch.delenv("SCPRIMER_QUIET", raising=False)

    def at(allow_stdin):
        parent = {"content": {"allow_stdin": allow_stdin}}
        shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: parent))
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    return at


def test_an_executed_notebook_gets_the_page_and_no_widget(explorer_bundle, kernel, monkeypatch):
    made = explorer.explore(explorer_bundle())
    monkeypatch.setattr(view, "_widget_class", lambda: pytest.fail("a widget was made"))
    kernel(False)
    shown = made._repr_mimebundle_()
    assert set(shown) == {"text/plain", "text/html"}
    assert shown["text/plain"] == "Explorer of 4 pairs of a model and a data set, 48 items"
    kernel(True)
    monkeypatch.setenv("SCPRIMER_QUIET", "1")
    assert set(made._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_somebody_at_the_kernel_gets_the_widget(explorer_bundle, kernel):
    kernel(True)
    shown = explorer.explore(explorer_bundle())._repr_mimebundle_()
    data = shown[0] if isinstance(shown, tuple) else shown
    assert "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data


def test_papermill_gets_the_page_without_widget_state(explorer_bundle, root, tmp_path, monkeypatch):
    """In a real kernel, started by the library that scprimer run, papermill and others use."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.delenv("SCPRIMER_QUIET", raising=False)
    code = "from explorer_example import example_bundle\nfrom scprimer import explorer\nexplorer.explore(example_bundle(cells=40))"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (root / "tests", root))))
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    (output,) = book.cells[0].outputs
    assert set(output["data"]) == {"text/plain", "text/html"}
    assert "widgets" not in book.metadata
    assert output["data"]["text/html"] == explorer.explore(explorer_bundle(cells=40)).to_html()


# ---- the sheet -------------------------------------------------------------------------------------------------------
ROWS = [
    {"item": "Count VAE/simulated A/C0", "kind": "concept", "rating": 4, "name": 'B, "naive"', "note": "two\nlines", "seconds": 12.5, "blind": True},
    {"item": "Count VAE/simulated A/N1", "kind": "neuron", "rating": None, "name": "", "note": "äöü", "seconds": 0.0, "blind": False},
]  # fmt: skip


def test_a_sheet_comes_back_as_it_was_saved(explorer_bundle, tmp_path):
    one = explorer.explore(explorer_bundle(), rater="Ada")
    one.widget.rows = ROWS
    one.save(tmp_path / "ada.csv")
    two = explorer.explore(explorer_bundle())
    two.load(tmp_path / "ada.csv")
    assert two.rater == "Ada" and two._current() == ROWS
    pd.testing.assert_frame_equal(two.sheet, one.sheet)
    pd.testing.assert_frame_equal(two.sheet, explorer.read_sheet(tmp_path / "ada.csv"))
    assert tuple(two.sheet) == explorer.COLUMNS and two.sheet["rating"].tolist()[0] == 4


def test_the_live_side_follows_what_is_loaded_and_what_the_browser_sends(explorer_bundle, tmp_path):
    made = explorer.explore(explorer_bundle(), seed=7)
    seen = []
    made.widget.observe(lambda change: seen.append(change["new"]), "rows")
    (tmp_path / "s.csv").write_text(sheets.write_sheet(ROWS, "Ada"))
    made.load(tmp_path / "s.csv")
    assert seen == [ROWS] and made.widget.rater == "Ada" and made.widget.seed == 7
    assert made.widget.packed == explorer_bundle().packed()
    made.widget.rows = [{**ROWS[0], "rating": 2}]  # as the browser does
    assert made.sheet["rating"].tolist() == [2]
    state = made.widget.get_state()
    assert {"packed", "seed", "rater", "rows"} <= set(state)
    assert json.dumps({k: state[k] for k in ("packed", "seed", "rater", "rows")})


def test_a_sheet_without_a_rater_is_not_saved(explorer_bundle, tmp_path):
    with pytest.raises(ValueError, match="no rater"):
        explorer.explore(explorer_bundle()).save(tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


HEAD = "rater,item,kind,rating,name,note,seconds,blind\n"


@pytest.mark.parametrize("text, words", [
    ("", "first line is 'nothing'"),
    ("rater;item;kind\n", "saved with commas"),
    (HEAD + "Ada,x,concept,4\n", "row 2 has 4 fields instead of 8"),
    (HEAD + "Ada,,concept,4,,,1,yes\n", "row 2 names no item"),
    (HEAD + "Ada,x,concept,6,,,1,yes\n", "rating is '6'"),
    (HEAD + "Ada,x,concept,3.5,,,1,yes\n", "rating is '3.5'"),
    (HEAD + "Ada,x,cell,3,,,1,yes\n", "kind is 'cell'"),
    (HEAD + "Ada,x,concept,3,,,soon,yes\n", "seconds is 'soon'"),
    (HEAD + "Ada,x,concept,3,,,nan,yes\n", "seconds is 'nan'"),
    (HEAD + "Ada,x,concept,3,,,1,true\n", "blind is 'true'"),
    (HEAD + "Ada,x,concept,3,,,1,yes\nAda,x,concept,3,,,1,yes\n", "'x' has more than one row"),
    (HEAD + "Ada,x,concept,3,,,1,yes\nBob,y,concept,3,,,1,yes\n", r"several raters \(Ada, Bob\)"),
    (HEAD + ",x,concept,3,,,1,yes\n", "names no rater"),
])  # fmt: skip
def test_a_malformed_sheet_is_refused_in_words(tmp_path, text, words):
    path = tmp_path / "sheet.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as found:
        explorer.read_sheet(path)
    assert "sheet.csv" in str(found.value)


def test_a_sheet_of_another_bundle_is_refused_and_changes_nothing(explorer_bundle, tmp_path):
    made = explorer.explore(explorer_bundle())
    made.widget.rows = ROWS
    (tmp_path / "s.csv").write_text(HEAD + "Ada,scVI/pbmc3k/C0,concept,3,,,1,yes\n")
    with pytest.raises(ValueError, match=r"s\.csv: 1 items are not in this explorer, such as 'scVI/pbmc3k/C0'"):
        made.load(tmp_path / "s.csv")
    assert made._current() == ROWS and made.rater == ""


def test_a_sheet_that_a_spreadsheet_marked_is_read(tmp_path):
    (tmp_path / "s.csv").write_text("\ufeff" + HEAD.replace("\n", "\r\n") + "Ada,x,concept,3,a,b,1,yes\r\n", newline="")
    assert explorer.read_sheet(tmp_path / "s.csv")["rating"].tolist() == [3]


# ---- agreement -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_cohens_kappa_is_that_of_scikit_learn(rng, weights):
    from sklearn.metrics import cohen_kappa_score

    a = rng.integers(1, 6, 60)
    b = np.clip(a + rng.integers(-1, 2, 60), 1, 5)
    ours = explorer.cohen_kappa(a, b, weights=weights, categories=range(1, 6))
    assert ours == pytest.approx(cohen_kappa_score(a, b, weights=weights, labels=[1, 2, 3, 4, 5]), abs=1e-12)
    assert explorer.cohen_kappa(a, a, weights=weights) == 1
    assert abs(explorer.cohen_kappa(a, rng.permutation(a), weights=weights)) < 0.4


def test_fleiss_kappa_is_that_of_his_example():
    """Fleiss (1971), as worked through in textbooks: 10 subjects, 14 raters, 5 categories, kappa 0.210."""
    counts = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
              [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    ratings = np.array([np.repeat([1, 2, 3, 4, 5], row) for row in counts])
    assert explorer.fleiss_kappa(ratings) == pytest.approx(0.210, abs=5e-4)
    shuffled = np.random.default_rng(0).permuted(ratings, axis=1)
    assert explorer.fleiss_kappa(shuffled) == pytest.approx(explorer.fleiss_kappa(ratings), abs=1e-12)


def test_fleiss_kappa_is_that_of_statsmodels(rng):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    ratings = np.clip(rng.integers(1, 6, (40, 1)) + rng.integers(-1, 2, (40, 3)), 1, 5)
    table, _ = inter_rater.aggregate_raters(ratings)
    assert explorer.fleiss_kappa(ratings) == pytest.approx(inter_rater.fleiss_kappa(table), abs=1e-12)


def test_kappa_is_undefined_where_nobody_ever_differs():
    assert np.isnan(explorer.cohen_kappa([3, 3], [3, 3]))
    assert np.isnan(explorer.fleiss_kappa(np.full((4, 3), 2)))


@pytest.mark.parametrize("call, words", [
    (lambda: explorer.cohen_kappa([1], [1, 2]), "1 and 2 items"),
    (lambda: explorer.cohen_kappa([], []), "0 and 0 items"),
    (lambda: explorer.cohen_kappa([1], [7], categories=[1, 2]), "7 is not one of the categories"),
    (lambda: explorer.cohen_kappa([1], [1], weights="cubic"), "weights='cubic'"),
    (lambda: explorer.fleiss_kappa(np.ones((3, 1))), "two raters or more"),
    (lambda: explorer.fleiss_kappa(np.array([[1, 9]]), categories=[1, 2]), "9 is not one"),
])  # fmt: skip
def test_kappa_refuses_what_it_cannot_measure(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def written(folder, rater, ratings, **changed):
    """A saved sheet: item -> rating; items that begin with N are neurons."""
    rows = [{"item": i, "kind": "neuron" if i[0] == "N" else "concept", "rating": r, "name": "", "note": "", "seconds": 1.0,
             "blind": True, **changed} for i, r in ratings.items()]  # fmt: skip
    path = folder / f"{rater}.csv"
    path.write_text(sheets.write_sheet(rows, rater))
    return path


def test_agreement_reads_the_sheets_of_several_raters(tmp_path):
    a = written(tmp_path, "Ada", {"C1": 5, "C2": 4, "C3": 5, "N1": 1, "N2": 2, "C9": 3})
    b = written(tmp_path, "Bob", {"N2": 2, "N1": 1, "C3": 5, "C2": 4, "C1": 4, "C8": 2})
    c = written(tmp_path, "Cyd", {"C1": 5, "C2": 4, "C3": 5, "N1": 3, "N2": 1, "C9": None})
    found = explorer.agreement([a, str(b), explorer.read_sheet(c)])
    assert found.ratings.index.tolist() == ["C1", "C2", "C3", "N1", "N2"]  # those that everybody rated
    assert found.ratings["Bob"].tolist() == [4, 4, 5, 1, 2]  # put in order by item, not by row
    assert found.fleiss == explorer.fleiss_kappa(found.ratings.to_numpy())
    both = explorer.cohen_kappa(found.ratings["Ada"], found.ratings["Cyd"], weights="quadratic")
    assert found.cohen.loc["Ada", "Cyd"] == found.cohen.loc["Cyd", "Ada"] == pytest.approx(both)
    assert found.kinds.loc["concept", "items"] == 3 and found.kinds.loc["neuron", "mean rating"] == pytest.approx(
        10 / 6
    )


def test_ratings_given_with_open_eyes_count_only_on_request(tmp_path):
    paths = [written(tmp_path, r, {"C1": 5, "C2": 1}, blind=r == "Ada") for r in ("Ada", "Bob")]
    with pytest.raises(ValueError, match="no item was rated by all of Ada, Bob in blind mode"):
        explorer.agreement(paths)
    assert explorer.agreement(paths, blind_only=False).fleiss == 1


def test_agreement_refuses_sheets_that_do_not_belong_together(tmp_path):
    ada = written(tmp_path, "Ada", {"C1": 5})
    with pytest.raises(ValueError, match="two raters or more"):
        explorer.agreement([ada])
    with pytest.raises(ValueError, match="two sheets are signed 'Ada'"):
        explorer.agreement([ada, ada])
    with pytest.raises(ValueError, match="'C1' is a concept in one sheet and a neuron in another"):
        explorer.agreement([ada, written(tmp_path, "Bob", {"C1": 5}, kind="neuron")])
    with pytest.raises(ValueError, match="no item was rated by all"):
        explorer.agreement([ada, written(tmp_path, "Cyd", {"C2": 5})])
    with pytest.raises(ValueError, match="sheet 2 lacks the columns"):
        explorer.agreement([ada, pd.DataFrame({"rater": ["Dan"]})])
    (tmp_path / "bad.csv").write_text("rater,item\n")
    with pytest.raises(ValueError, match=r"bad\.csv: the first line"):
        explorer.agreement([ada, tmp_path / "bad.csv"])
