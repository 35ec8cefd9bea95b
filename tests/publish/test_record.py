"""What is recorded, what is refused and why, and that nothing is rewritten without need."""

from __future__ import annotations

import base64
import copy
import io
import json
import re

import minibook
import pytest

from scprimer.publish import book, record, stamp

BOUND = {"smoke": ["at_least", 0.6], "standard": ["at_least", 0.6], "full": ["at_least", 0.6]}


def claim(values, **more) -> dict:
    """One claim as a run's record has it."""
    made = {
        "id": "ari", "text": "The method works", "kind": "result", "method": "pca", "values": list(values),
        "resample": "seed", "bounds": BOUND, "baseline": 0.4, "control": 0.01, "source": None, "reported": None,
        "holds": True,
    }  # fmt: skip
    return made | more


def smoke(means, **more) -> list[str]:
    return record.judge_smoke([[claim([m], **more)] for m in means], list(range(len(means))), {})


# ---- bounds ----------------------------------------------------------------------------------------------------------
def test_a_bound_two_deviations_away_is_accepted():
    assert smoke([0.79, 0.80, 0.81, 0.80, 0.80]) == []
    assert smoke([1.0] * 5, bounds={"smoke": ["at_least", 1.0]}) == []  # an exact result has no spread


def test_a_bound_that_is_too_near_is_explained():
    (reason,) = smoke([0.62, 0.66, 0.70, 0.61, 0.68])
    assert reason.startswith(
        "ari (smoke): the bound is too near. Mean 0.654, sd 0.038 over the 5 smoke repeats; at least 0.6"
    )
    assert "is 1.4 standard deviations away, 2 are needed" in reason
    assert "these repeats would carry at least 0.53 (three standard deviations)" in reason


def test_at_most_is_judged_from_its_own_side():
    bounds = {"smoke": ["at_most", 0.5]}
    assert smoke([0.10, 0.12, 0.11, 0.10, 0.11], bounds=bounds, control=0.9) == []
    (reason,) = smoke([0.40, 0.48, 0.44, 0.47, 0.41], bounds=bounds, control=0.9)
    assert "would carry at most 0.55" in reason


def test_where_the_control_is_near_no_bound_is_honest():
    (reason,) = smoke([0.62, 0.66, 0.70, 0.61, 0.68], control=0.58)
    assert "no bound is honest here: the control, 0.58" in reason


def test_a_claim_that_fails_for_one_seed_is_refused():
    reasons = smoke([0.80, 0.80, 0.59, 0.80, 0.80])
    assert "does not hold (at least 0.6) for seed 2: 0.59" in reasons[0]


def test_the_run_is_judged_by_its_own_repeats_from_three_on():
    assert record.judge_run([claim([0.61, 0.70])], "standard", {}) == []  # two repeats say nothing of a spread
    (reason,) = record.judge_run([claim([0.61, 0.70, 0.66])], "standard", {})
    assert "ari (standard): the bound is too near" in reason
    assert "over its 3 repeats (seed)" in reason
    (reason,) = record.judge_run([claim([0.5])], "standard", {})
    assert "does not hold: measured 0.5, at least 0.6" in reason
    assert record.judge_run([claim([0.5], bounds={"smoke": ["at_least", 0.6]})], "standard", {}) == []  # not asserted


def test_numbers_must_be_numbers():
    assert "is not a number" in smoke([0.8, float("nan"), 0.8, 0.8, 0.8])[0]
    assert "is not a number" in record.judge_run([claim([float("inf")])], "standard", {})[0]


def test_the_claims_must_not_depend_on_the_seed():
    runs = [[claim([0.8])], [claim([0.8]), claim([0.8], id="more")]]
    assert "do not make the same claims" in record.judge_smoke(runs, [0, 1], {})[0]


# ---- controls --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("control", [None, float("nan")])
def test_a_result_needs_a_control(control):
    for reasons in (
        smoke([0.8] * 5, control=control),
        record.judge_run([claim([0.8], control=control)], "standard", {}),
    ):
        assert "a result needs a negative control" in reasons[0]
        assert 'not_applicable["control:ari"]' in reasons[0]


def test_the_control_must_fail_the_bound():
    for reasons in (smoke([0.8] * 5, control=0.6), record.judge_run([claim([0.8], control=0.6)], "standard", {})):
        assert "the negative control, 0.6, passes the bound (at least 0.6)" in reasons[0]


@pytest.mark.parametrize("key", ["control", "control:ari"])
def test_a_reason_exempts_from_the_control(key):
    runs = [[claim([0.8], control=None)]] * 5
    assert record.judge_smoke(runs, list(range(5)), {key: "a round trip has nothing to shuffle"}) == []
    assert record.judge_run([claim([0.8], control=0.9)], "standard", {key: "why"}) == []
    assert record.judge_smoke(runs, list(range(5)), {key: "", "control:other": "why"}) != []


@pytest.mark.parametrize("kind", ["reference", "baseline", "control", "pitfall"])
def test_other_kinds_need_no_control(kind):
    assert smoke([0.8] * 5, kind=kind, control=None) == []


# ---- what moved ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"values": [0.81, 0.79, 0.83]}, None),  # within its spread
        ({"holds": None}, None),
        ({"values": [0.90, 0.91, 0.92]}, "0.8 became 0.91, the spread is 0.02"),
        ({"values": [0.80]}, "it has 1 values, not 3"),
        ({"text": "Other words"}, "the claim is another"),
        ({"bounds": {"smoke": ["at_least", 0.1]}}, "the claim is another"),
        ({"control": 0.2}, "control: 0.01 became 0.2"),
        ({"baseline": None}, "baseline: was 0.4, is None"),
    ],
)
def test_moved(change, expected):
    found = record.moved([claim([0.78, 0.80, 0.82])], [claim([0.78, 0.80, 0.82]) | change])
    assert found == [] if expected is None else expected in found[0]


def test_other_claims_have_moved():
    assert record.moved([claim([1.0])], []) == ["it makes other claims than before"]


# ---- outputs ---------------------------------------------------------------------------------------------------------
def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: str) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": {k.replace("_", "/", 1): v for k, v in data.items()}}


def png(noise: bool) -> str:
    """A figure-like picture with a transparent ground, as matplotlib would write it."""
    from PIL import Image, PngImagePlugin

    image = Image.new("RGBA", (200, 150), (255, 255, 255, 0))
    for x in range(200):
        for y in range(60, 90):
            colour = (x * 7919 % 256, y * 104729 % 256, x * y * 31 % 256, 255) if noise else (0, 114, 178, 200 + x % 50)
            image.putpixel((x, y), colour)
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Software", "a drawing library, version 1.2.3")
    image.save(buffer, "PNG", pnginfo=info, compress_level=1, dpi=(144, 144))
    return base64.b64encode(buffer.getvalue()).decode()


def pixels(encoded: str):
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(encoded)))


@pytest.mark.parametrize("noise", [False, True])
def test_pictures_get_smaller_and_look_the_same(noise):
    from PIL import ImageChops, ImageStat

    before = png(noise)
    after = record.smaller_png(before)
    assert len(after) < len(before)
    assert b"drawing library" not in base64.b64decode(after)
    assert round(pixels(after).info["dpi"][0]) == 144
    loss = ImageStat.Stat(ImageChops.difference(pixels(before).convert("RGBA"), pixels(after).convert("RGBA"))).mean
    assert max(loss) <= 1.5
    assert record.smaller_png(after) == record.smaller_png(after)
    assert pixels(after).convert("RGBA").getpixel((0, 0))[3] == 0  # still transparent


def test_pictures_stay_without_pillow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    before = base64.b64encode(b"a picture").decode()
    assert record.smaller_png(before) == before


def test_outputs_are_cleaned_of_what_changes_from_run_to_run():
    outputs = [
        stream("one\ntw"), stream("o\n"), stream("three\n", "stderr"),
        shown(**{"image_svg+xml": "<svg>\n <metadata>\n  <dc:date>2026</dc:date>\n </metadata>\n <g/></svg>"}),
        {"output_type": "execute_result", "execution_count": 99, "metadata": {}, "data": {"text/plain": "3"}},
        {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["/home/me/x.py", "ValueError: no"]},
    ]  # fmt: skip
    found = record.clean(outputs, 7)
    assert found[0]["text"] == ["one\n", "two\n"]
    assert found[1]["name"] == "stderr"
    assert "".join(found[2]["data"]["image/svg+xml"]) == "<svg>\n <g/></svg>"
    assert found[3]["execution_count"] == 7
    assert found[4]["traceback"] == ["ValueError: no"]
    assert outputs[4]["execution_count"] == 99  # what was given is left alone


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (stream("something\n", "stderr"), "prints to stderr: something"),
        (stream("/x.py:3: UserWarning: careful\n  f()\n"), "shows a warning: /x.py:3: UserWarning: careful"),
        (shown(text_plain="<function f at 0x7f2a3c4d5e60>"), "address of an object"),
        (stream("read /home/me/book/data.h5ad\n"), "shows a path of this machine: /home/me"),
        (shown(text_html="<p>/home/me/x</p>"), "shows a path of this machine"),
        (stream("well\n"), None),
        (stream("the home page of /home/menu\n"), None),
        (shown(text_plain="<Figure size 640x480 with 1 Axes>"), None),
    ],
)
def test_faults_name_the_cell(output, words):
    notebook = minibook.notebook("# Title", "f(1)")
    notebook["cells"][1]["outputs"] = [output]
    found = record.faults(notebook, ["/home/me"])
    assert found == [] if words is None else words in found[0] and found[0].startswith("cell 2 (c1) ")


def test_a_key_that_two_outputs_glue_is_a_fault():
    notebook = minibook.notebook("# Title", "f(1)", "f(2)")
    for cell, key in zip(notebook["cells"][1:], ("auc", "auc")):
        glued = shown(text_plain="0.5") | {"metadata": {"scrapbook": {"name": key}}}
        cell["outputs"] = [glued]
    assert record.faults(notebook, []) == ["cell c2 glues 'auc' a second time: rename one of the two"]
    notebook["cells"][2]["outputs"][0]["metadata"]["scrapbook"]["name"] = "auc-after"
    assert record.faults(notebook, []) == []


def test_outputs_go_to_their_cells_by_id():
    source = minibook.notebook("# Title", "a = 1", "", "print(a)")
    executed = copy.deepcopy(source)
    executed["cells"].insert(1, {**copy.deepcopy(source["cells"][1]), "id": "injected", "source": "a = 2"})
    executed["cells"][1]["metadata"] = {"papermill": {"duration": 3}}
    executed["cells"][4] |= {"execution_count": 12, "outputs": [stream("1\n")], "metadata": {"papermill": {}}}
    executed["metadata"] = {"papermill": {"start_time": "now"}, "language_info": {"version": "3.11.7"}}
    merged = record.merge(copy.deepcopy(source), executed)
    assert [c["id"] for c in merged["cells"]] == ["c0", "c1", "c2", "c3"]
    assert [c.get("execution_count") for c in merged["cells"]] == [None, 1, None, 2]
    assert merged["cells"][3]["outputs"][0]["text"] == ["1\n"]
    assert merged["metadata"] == source["metadata"]
    assert "papermill" not in json.dumps(merged)
    kept = record.merge(copy.deepcopy(source), executed, injected=True)
    assert [c["id"] for c in kept["cells"]] == ["c0", "injected", "c1", "c2", "c3"]
    assert "papermill" not in json.dumps(kept)


def test_widgets_are_numbered_by_appearance_and_unused_ones_dropped():
    a, b, c = "a" * 32, "b" * 32, "c" * 32

    def executed(first: str, second: str, unused: str) -> dict:
        notebook = minibook.notebook("show()")
        view = {record._WIDGET_VIEW: {"model_id": first, "version_major": 2, "version_minor": 0}}
        notebook["cells"][0]["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": view}]
        state = {
            first: {"model_name": "VBoxModel", "state": {"children": [f"IPY_MODEL_{second}"]}},
            second: {"model_name": "IntSliderModel", "state": {"value": 3}},
            unused: {"model_name": "FloatProgressModel", "state": {}},
        }
        states = {"state": dict(sorted(state.items())), "version_major": 2, "version_minor": 0}
        notebook["metadata"]["widgets"] = {record._WIDGET_STATE: states}
        return notebook

    one = record.merge(minibook.notebook("show()"), executed(a, b, c))
    two = record.merge(minibook.notebook("show()"), executed(c, a, b))
    assert one == two
    states = one["metadata"]["widgets"][record._WIDGET_STATE]["state"]
    assert sorted(states) == [f"{1:032x}", f"{2:032x}"]
    assert states[f"{1:032x}"]["state"]["children"] == [f"IPY_MODEL_{2:032x}"]
    assert one["cells"][0]["outputs"][0]["data"][record._WIDGET_VIEW]["model_id"] == f"{1:032x}"


# ---- writing back ----------------------------------------------------------------------------------------------------
@pytest.fixture
def chapter(tmp_path):
    top = minibook.make(tmp_path, qc=["x = 0.8\nprint(x)", minibook.REPORT])
    return book.find("qc", top)


def result_of(chapter, text: str = "0.8\n", seconds: float = 60.0, **more) -> dict:
    """What a run of the chapter returns when its cell prints ``text``."""
    executed = copy.deepcopy(chapter.notebook)
    executed["cells"][2]["outputs"] = [stream(text)]
    run = {
        "profile": "standard", "seed": 0, "device": None, "threads": 1, "data": {}, "checkpoints": [],
        "claims": [claim(more.pop("values", [0.78, 0.80, 0.82]), **more)],
    }  # fmt: skip
    return {
        "notebook": json.dumps(executed), "record": run, "environment": {"python": "3.11.7"}, "seconds": seconds,
        "peak_mb": 300, "folder": "scratch",
    }  # fmt: skip


def again(chapter) -> book.Chapter:
    return book.Chapter(chapter.slug, chapter.part, chapter.path)


def test_recording_writes_outputs_claims_and_stamp(chapter):
    assert record.write_back(chapter, result_of(chapter)) == "recorded (it has not been recorded)"
    now = again(chapter)
    assert now.notebook["cells"][2]["outputs"][0]["text"] == ["0.8\n"]
    assert now.meta["stamp"]["profile"] == "standard"
    assert now.meta["stamp"]["device"] == "cpu"
    assert now.meta["claims"][0]["values"] == [0.78, 0.8, 0.82]
    assert stamp.state(now) == "fresh"


def test_nothing_is_rewritten_when_only_time_memory_and_noise_differ(chapter):
    record.write_back(chapter, result_of(chapter))
    before = chapter.path.read_bytes()
    result = result_of(again(chapter), "0.8000001\n", seconds=90.0, values=[0.79, 0.79, 0.83])
    assert record.write_back(again(chapter), result | {"peak_mb": 500}) == "as recorded: outputs and stamp stand"
    assert chapter.path.read_bytes() == before


def test_a_stamp_that_does_not_say_what_the_cells_took_is_renewed(chapter):
    record.write_back(chapter, result_of(chapter))
    notebook = copy.deepcopy(again(chapter).notebook)
    assert notebook["metadata"]["scprimer"]["stamp"].pop("cells") == {}
    book.write_notebook(chapter.path, notebook)
    result = result_of(again(chapter), "0.8000001\n")
    executed = json.loads(result["notebook"])
    executed["cells"][2]["metadata"]["papermill"] = {"duration": 12.34}
    said = record.write_back(again(chapter), result | {"notebook": json.dumps(executed)})
    assert said == "claims stand: a new stamp, the same outputs"
    now = again(chapter)
    assert now.meta["stamp"]["cells"] == {"c2": 12.3}
    assert now.notebook["cells"] == notebook["cells"]


def test_outputs_are_rewritten_when_a_claim_moved_or_by_force(chapter):
    record.write_back(chapter, result_of(chapter))
    moved = result_of(again(chapter), "0.9\n", values=[0.89, 0.90, 0.91])
    assert record.write_back(again(chapter), moved) == "recorded (ari: 0.8 became 0.9, the spread is 0.02)"
    assert again(chapter).notebook["cells"][2]["outputs"][0]["text"] == ["0.9\n"]
    assert record.write_back(again(chapter), result_of(again(chapter), values=[0.89, 0.90, 0.91]), force=True) == (
        "recorded (by force)"
    )
    assert again(chapter).notebook["cells"][2]["outputs"][0]["text"] == ["0.8\n"]


def test_an_aged_chapter_gets_a_new_stamp_and_keeps_its_outputs(chapter, monkeypatch):
    record.write_back(chapter, result_of(chapter))
    monkeypatch.setattr(stamp, "surroundings", lambda chapter, data: {"pins": "newer"})
    assert stamp.state(again(chapter)) == "aged"
    said = record.write_back(again(chapter), result_of(again(chapter), "0.8000001\n"))
    assert said == "claims stand: a new stamp, the same outputs"
    assert again(chapter).notebook["cells"][2]["outputs"][0]["text"] == ["0.8\n"]
    assert stamp.state(again(chapter)) == "fresh"


def test_a_cell_that_lost_its_outputs_gets_them_back(chapter):
    record.write_back(chapter, result_of(chapter))
    notebook = copy.deepcopy(again(chapter).notebook)
    notebook["cells"][2] |= {"outputs": [], "execution_count": None}
    book.write_notebook(chapter.path, notebook)
    assert record.write_back(again(chapter), result_of(again(chapter))).startswith("recorded (cell 3 (c2) has not")
    assert again(chapter).notebook["cells"][2]["outputs"]


def test_prose_written_during_the_run_is_kept_and_code_refused(chapter):
    ran = again(chapter)
    result = result_of(ran)
    notebook = copy.deepcopy(ran.notebook)
    notebook["cells"][0]["source"] = "# Another title"
    book.write_notebook(chapter.path, notebook)
    record.write_back(ran, result)
    assert again(chapter).title == "Another title"
    notebook = copy.deepcopy(again(chapter).notebook)
    notebook["cells"][2]["source"] = "x = 0.9\nprint(x)"
    book.write_notebook(chapter.path, notebook)
    before = chapter.path.read_bytes()
    with pytest.raises(record.Refused, match="was edited during the run"):
        record.write_back(ran, result)
    assert chapter.path.read_bytes() == before


@pytest.mark.parametrize("text", ["at <object object at 0x7f00aa11bb22>\n", "x" * 1_100_000])
def test_what_a_book_must_not_hold_is_refused_and_nothing_written(chapter, text):
    before = chapter.path.read_bytes()
    with pytest.raises(record.Refused, match=r"cell 3 \(c2\)"):
        record.write_back(chapter, result_of(chapter, text))
    assert chapter.path.read_bytes() == before


def test_smoke_records_are_kept_once(chapter, tmp_path):
    results = [result_of(chapter, values=[v, v]) for v in (0.78, 0.79, 0.80, 0.81, 0.82)]
    made = record.smoke_record(chapter, results, [0, 1, 2, 3, 4], {})
    assert record.keep(tmp_path, made)
    path = tmp_path / "book" / "records" / "smoke" / "qc.json"
    kept = json.loads(path.read_text())
    (row,) = kept["claims"]
    assert row["values"] == [0.78, 0.79, 0.8, 0.81, 0.82]
    assert row["mean"] == 0.8
    assert row["sd"] == pytest.approx(0.015811, abs=1e-6)
    assert row["resample"] == "simulation"
    assert kept["seconds"] == [60.0] * 5
    made["seconds"] = [1.0] * 5  # faster: no news
    assert not record.keep(tmp_path, made)
    assert json.loads(path.read_text()) == kept
    made["claims"][0]["values"] = [0.9] * 5
    assert record.keep(tmp_path, made)


# ---- for real --------------------------------------------------------------------------------------------------------
def test_recording_a_chapter_for_real(tmp_path):
    plot = "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2, 3])\nplt.show()"
    loose = minibook.CLAIM.replace("at_least=0.5, control=0.1", "at_least=0.05, control=0.1")
    # Without a seed, and a reason for that: one smoke run is all there is to repeat.
    unseeded = minibook.notebook(
        "# anndata", ("profile = None", "parameters"), "import scprimer\nrun = scprimer.start('anndata', profile=profile)",
        loose, minibook.REPORT, not_applicable={"seed": "nothing is drawn"},
    )  # fmt: skip
    slow = "import time\nbegun = time.process_time()\nwhile time.process_time() - begun < 1.2: pass"
    top = minibook.make(tmp_path, qc=[minibook.start("qc"), minibook.CLAIM, plot, slow, minibook.REPORT], anndata=unseeded,
                        normalisation=[minibook.start("normalisation"), minibook.CLAIM, "object()", minibook.REPORT])  # fmt: skip
    before = minibook.snapshot(top)
    done = minibook.command(top, "run", "qc", "anndata", "normalisation", "--record", "--workers", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    # What no page may show is found by the first of the short runs, before the long one.
    # Which of them is done first is chance.
    assert re.search(
        r"normalisation \(smoke, seed \d\): refused: cell 5 \(c4\) shows the address of an object", done.stdout
    )
    assert "normalisation: started (standard)" not in done.stdout
    assert "qc: recorded (it has not been recorded)" in done.stdout
    assert "score (smoke): the negative control, 0.1, passes the bound (at least 0.05)" in done.stdout
    after = minibook.snapshot(top)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"notebooks/data/qc.ipynb", "book/records/smoke/qc.json"}
    chapter = book.find("qc", top)
    assert stamp.state(chapter) == "fresh"
    assert chapter.meta["claims"][0]["method"] == "pca"
    assert chapter.meta["stamp"]["seconds"] > 0
    assert chapter.meta["stamp"]["peak_mb"] > 50
    assert 1.2 <= chapter.meta["stamp"]["cells"]["c5"] < chapter.meta["stamp"]["seconds"]
    figure = next(
        o for c in chapter.notebook["cells"] for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    )
    assert pixels(figure["data"]["image/png"]).size[0] > 100
    kept = json.loads(after["book/records/smoke/qc.json"])
    assert kept["stamp"]["seed"] == [0, 1, 2, 3, 4]
    assert kept["stamp"]["cells"]["c5"] >= 1.2
    assert len(set(kept["claims"][0]["values"])) == 5  # five seeds, five results


def test_a_run_at_full_is_kept_beside_the_notebooks(tmp_path):
    top = minibook.make(tmp_path, qc=[minibook.start("qc"), minibook.CLAIM, minibook.REPORT])
    before = minibook.snapshot(top)
    done = minibook.command(top, "run", "qc", "--profile", "full", "--keep-record")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "book/records/full/qc.json written" in done.stdout
    after = minibook.snapshot(top)
    assert {n for n in after if after[n] != before.get(n)} == {"book/records/full/qc.json"}
    kept = json.loads(after["book/records/full/qc.json"])
    assert kept["stamp"]["profile"] == "full"
    assert len(kept["claims"][0]["values"]) == 3
    assert stamp.judge(book.find("qc", top), kept["stamp"]).state == "fresh"
