"""The course kit: what students get, what the teacher gets, and what is never overwritten."""

from __future__ import annotations

import ast
import copy
import html
import json
import math
import re
from datetime import date, timedelta
from html.parser import HTMLParser
from unittest.mock import MagicMock

import hostile
import minibook
import nbformat
import pytest
from fixtures import good_chapter as fixture

from scprimer import cli, data
from scprimer.publish import book, course, job, selfcheck
from scprimer.publish.course import assignments, deck, notebooks, prose, sheets
from scprimer.publish.course.session import POINTS, day
from scprimer.publish.exercises import STUB, exercises

WRITTEN = [c.slug for c in book.chapters()]
NUMBERED = list(enumerate(WRITTEN, 1))
AS_MEASURED = dict.fromkeys(job.THREAD_VARIABLES, "1") | job.KEEP_MEMORY  # a kernel's environment when stamps are made
EXERCISE_TAGS = {"exercise-solution", "exercise-check"}


@pytest.fixture(scope="module")
def sessions():
    """Every written chapter, one a session."""
    return course.plan(book.root(), WRITTEN, "2026-10-05")


@pytest.fixture(scope="module")
def kit(sessions):
    """The kit of every written chapter, as path -> text."""
    return course.contents(book.root(), sessions)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A book of two chapters with the same three exercises, and one chapter without any."""
    top = tmp_path / "clone"
    for slug, part in (("unsupervised", "learning"), ("qc", "data")):
        fixture.write(top, fixture.good(), stamped=False, slug=slug, part=part)
    minibook.make(top, anndata=["x = 1"])
    monkeypatch.chdir(top)
    return top


def read(kit, path):
    return json.loads(kit[path])


def body(source):
    """The lines of a solution that no student may see."""
    return source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0].strip()


# ---- notebooks -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number, slug", NUMBERED)
def test_students_get_stubs_and_all_other_outputs(kit, number, slug):
    given, whole = read(kit, f"students/{number:02d}-{slug}.ipynb"), book.find(slug).notebook
    nbformat.validate(nbformat.from_dict(copy.deepcopy(given)))
    stubs = {e.id: e.stub for e in exercises(book.find(slug))}
    assert len(given["cells"]) == len(whole["cells"]) and len(stubs) >= 3
    for cell, original in zip(given["cells"], whole["cells"]):
        tags = set(book.tags(original))
        assert "BEGIN SOLUTION" not in book.source(cell) and "wrong" not in cell["metadata"].get("scprimer", {})
        if "exercise-solution" in tags:
            assert book.source(cell) == stubs.pop(original["metadata"]["scprimer"]["exercise"])
            assert "hide-cell" not in book.tags(cell), "a student must see where to write"
        elif cell["cell_type"] == "code":
            assert book.source(cell) == book.source(original)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == ([] if tags & EXERCISE_TAGS else original["outputs"])
    assert not stubs


@pytest.mark.parametrize("number, slug", NUMBERED)
def test_the_text_is_readable_in_jupyter(kit, number, slug):
    for folder in ("students", "teacher"):
        for cell in read(kit, f"{folder}/{number:02d}-{slug}.ipynb")["cells"]:
            if cell["cell_type"] == "markdown":
                assert not re.search(r"\{(glue|cite)[:\w]*\}`", book.source(cell))
                for file in re.findall(r"\]\(([^)]*\.ipynb)[^)]*\)", book.source(cell)):
                    assert f"{folder}/{file}" in kit, f"a link to {file}, which is not in the folder"


@pytest.mark.parametrize("number, slug", NUMBERED)
def test_the_teacher_gets_solutions_and_what_the_checks_ask(kit, number, slug):
    notebook = read(kit, f"teacher/{number:02d}-{slug}.ipynb")
    nbformat.validate(nbformat.from_dict(copy.deepcopy(notebook)))
    said = {c["id"]: book.source(c) for c in notebook["cells"]}
    for e in exercises(book.find(slug)):
        assert e.solution in said.values()
        explained = next(text for id, text in said.items() if id.startswith(e.cells[-1]) and id.endswith("-teacher"))
        conditions = [ast.unparse(n.test) for n in ast.walk(ast.parse(e.check)) if isinstance(n, ast.Assert)]
        assert explained.count("\n- ") == len(conditions) > 0
        for condition in conditions:
            assert condition.splitlines()[0] in explained
        for wrong in e.wrong:
            assert wrong.strip() in explained


def test_words_of_asserts_are_shown_as_they_are():
    check = (
        'assert x, "a*b*"\nassert (\n    y == f(2)\n), f"you give {y:.2f}, `two` is asked"\nassert z, words\nassert w'
    )
    assert notebooks.assertions(check) == [
        ("a*b*", "x"), ("you give {y}, `two` is asked", "y == f(2)"), ("words", "z"), ("", "w"),
    ]  # fmt: skip
    e = exercises(book.find(WRITTEN[0]))[0]
    told = notebooks.explanation(type(e)(**{**vars(e), "check": check}))
    assert r"a\*b\*" in told and r"\`two\`" in told


def test_an_open_exercise_is_marked_by_hand(clone):
    notebook = fixture.good()
    notebook["cells"] = [c for c in notebook["cells"] if c["id"] not in ("e3-solution", "e3-check")]
    chapter = fixture.write(clone, notebook, stamped=False)
    told = notebooks.teacher(chapter, {}, {})["cells"]
    assert "mark them by hand" in next(book.source(c) for c in told if c["id"] == "e3-setup-teacher")
    answer = assignments.assignment(chapter, {})["cells"][-1]
    assert answer["cell_type"] == "markdown"
    assert {k: answer["metadata"]["nbgrader"][k] for k in ("grade", "solution", "locked", "points")} == {
        "grade": True, "solution": True, "locked": False, "points": POINTS["project"],
    }  # fmt: skip
    assert "outputs" not in answer
    assert "marked by hand" in sheets.schedule(course.plan(clone, ["unsupervised"]))


def test_links_lead_to_chapters_of_the_course_and_to_no_other():
    text = "see [quality](../data/qc.ipynb#part-2), [scVI](scvi.ipynb) and [this](https://example.org)"
    linked = prose.linked(text, {"qc": "02-qc.ipynb"})
    assert linked == "see [quality](02-qc.ipynb), scVI and [this](https://example.org)"


@pytest.mark.parametrize(
    "text, shown",
    [
        ("an ARI of {glue:text}`ari:.2f`", "an ARI of 0.87"),
        ("{glue:text}`ari` or {glue:text}`none:.1f`", "0.871 or …"),
        ("so {cite:p}`a2020, b2021`", "so (Aa 2020; Bee and Cee 2021)"),
        ("{cite:t}`a2020` says", "Aa (2020) says"),
        ("a {term}`cell <cells>`, a {term}`gene`", "a cell, a gene"),
        ("(label)=\n## H\n[there](#label)", "## H\nthere"),
    ],
)
def test_roles_become_words(text, shown):
    sources = {"a2020": ("Aa", "2020"), "b2021": ("Bee and Cee", "2021")}
    assert prose.plain(text, {"ari": 0.871}, sources) == shown


def test_the_bibliography_is_read(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "references.bib").write_text(
        '@article{a, author = {B{\\"u}ttner, M. and Theis, F.}, year = {2019}, title = {T}}\n'
        "@misc{b, author = {van der Maaten, L. and H, G. and K, L.}, year = {2008}}\n@misc{c, title = {{RNA} page}}\n",
        encoding="utf-8",
    )
    assert prose.references(tmp_path) == {
        "a": ("Büttner and Theis", "2019"), "b": ("van der Maaten and others", "2008"), "c": ("RNA page", ""),
    }  # fmt: skip


# ---- assignments -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("slug", WRITTEN)
def test_nbgrader_accepts_the_assignment_and_hides_what_is_to_hide(kit, slug):
    """nbgrader's own preprocessors, in the order and with the settings in which `generate_assignment` runs them."""
    from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ClearSolutions, LockCells
    from traitlets.config import Config

    settings = Config()
    exec(kit["nbgrader/nbgrader_config.py"], {"get_config": lambda: settings})
    notebook = nbformat.reads(kit[f"nbgrader/source/{slug}/{slug}.ipynb"], 4)
    nbformat.validate(notebook)
    for kind in (CheckCellMetadata, LockCells, ClearSolutions, ClearHiddenTests):
        notebook, _ = kind(config=settings).preprocess(notebook, {})
    released = {c.metadata.nbgrader.grade_id: c for c in notebook.cells}
    every = exercises(book.find(slug))
    graded = [c.metadata.nbgrader for c in notebook.cells if c.metadata.nbgrader.grade]
    assert [m.points for m in graded] == [POINTS[e.level] for e in every]
    for e in every:
        assert released[f"{e.id}-answer"].source == e.stub
        assert not released[f"{e.id}-answer"].metadata.nbgrader.locked
        hidden = released[f"{e.id}-check"]
        assert hidden.metadata.nbgrader.locked and not hidden.metadata.deletable
        assert "assert" not in hidden.source and hidden.source.startswith("# Hidden tests")
        assert e.setup == (released[f"{e.id}-setup"].source if e.setup else "")
    assert "SOLUTION" not in json.dumps(notebook)


def test_the_source_holds_the_check_between_nbgraders_markers(kit):
    e = exercises(book.find(WRITTEN[0]))[0]
    cells = read(kit, f"nbgrader/source/{WRITTEN[0]}/{WRITTEN[0]}.ipynb")["cells"]
    check = next(c for c in cells if c["metadata"]["nbgrader"]["grade_id"] == f"{e.id}-check")
    assert f"### BEGIN HIDDEN TESTS\n{e.check}\n### END HIDDEN TESTS" in book.source(check)


def test_one_answer_cannot_stand_in_for_another(clone):
    notebook = fixture.good()
    for id in ("e2-solution", "e2-check"):
        found = fixture.cell(notebook, id)
        found["source"] = found["source"].replace("variance(X)", "centre(X)")
    fixture.write(clone, notebook, stamped=False)
    with pytest.raises(book.BookError, match=r"'unsupervised-1' and 'unsupervised-2' both define centre: rename it"):
        course.make(clone, clone.parent / "out", ["unsupervised"])
    assert not (clone.parent / "out").exists()


# ---- slides ----------------------------------------------------------------------------------------------------------
class Seen(HTMLParser):
    """What a page's tags ask for."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.pictures, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.addresses += [found[name] for name in ("src", "srcset", "data", "poster") if name in found]
        self.addresses += [found["href"]] if tag != "a" and "href" in found else []
        self.pictures += [found.get("alt")] if tag == "img" else []


@pytest.mark.parametrize("number, slug", NUMBERED)
def test_slides_stand_alone_and_keep_the_solutions(kit, number, slug):
    text = kit[f"slides/{number:02d}-{slug}.html"]
    seen = Seen(text)
    assert all(a.startswith("data:image/png;base64,") for a in seen.addresses)
    assert not re.search(r"@import|url\(", text)
    assert "link" not in seen.tags and seen.tags.count("script") == 1
    assert seen.pictures and all(alt and len(alt) > 20 for alt in seen.pictures), "every figure says what it shows"
    assert 20 <= seen.tags.count("section") <= 110
    chapter = book.find(slug)
    code = [html.unescape(re.sub(r"<[^>]+>", "", found)) for found in re.findall(r"<pre.*?</pre>", text, re.DOTALL)]
    for e in exercises(chapter):
        assert not any(body(e.solution) in found for found in code)
    assert "BEGIN SOLUTION" not in text and "{glue" not in text and "{cite" not in text


def test_every_exercise_and_pitfall_has_a_slide(sessions):
    for session in (sessions[0], sessions[-1]):
        made = list(deck.slides(session, {}))
        assert made[0].kind == "cover" and made[0].title == session.chapter.title
        cells = session.chapter.notebook["cells"]
        asked = [s.title for s in made if s.kind == "exercise"]
        own = sum(selfcheck.TAG in book.tags(c) for c in cells)
        assert own > 1 and asked == ["Check yourself"] * own + [e.title for e in session.exercises]
        assert sum(s.kind == "pitfall" for s in made) == sum(
            "pitfall" in c["metadata"].get("scprimer", {}) for c in cells
        )
        pictures = sum("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", []))
        assert sum(s.body.count("<img") for s in made) == pictures


def test_a_slide_has_the_part_of_a_task_that_fits_and_no_hint():
    short = "Write `f(x)`.\n\n<details>\n<summary>Hint</summary>\n\nTry.\n\n</details>"
    assert deck._fitting(short) == "Write `f(x)`."
    first, second = "a" * 700, "b" * 700
    assert deck._fitting(f"{first}\n\n{second}") == f"{first}\n\n*The notebook says more.*"


def test_a_slide_escapes_what_the_notebook_holds(tmp_path):
    notebook = hostile.chapter_notebook()
    notebook["cells"].insert(
        5,
        hostile.markdown(
            f"## {hostile.HOSTILE}\n\n{hostile.HOSTILE} [x](javascript:alert(1)) ![y](http://a.b/c.png)", "idea"
        ),
    )
    output = {"output_type": "display_data", "data": {"image/png": '"><script>x'}, "metadata": {}}
    picture = hostile.code("draw()", outputs=[output])
    picture["metadata"]["mystnb"] = {"figure": {"caption": hostile.HOSTILE}, "image": {"alt": hostile.HOSTILE}}
    notebook["cells"].insert(6, picture)
    minibook.make(tmp_path, qc=notebook)
    session = course.Session(1, book.find("qc", tmp_path), ())
    seen = Seen(deck.page(session, {}))
    assert seen.tags.count("script") == 1 and seen.tags.count("img") == 1
    assert all(a.startswith("data:image/png;base64,") for a in seen.addresses)
    assert "javascript:alert" not in re.sub(r"\[x\]\(javascript:alert\(1\)\)", "", deck.page(session, {}))


def test_tags_show_a_cell_or_leave_it_out(tmp_path):
    notebook = hostile.chapter_notebook()
    notebook["cells"][6]["metadata"]["tags"] = ["slide"]
    notebook["cells"].insert(5, hostile.markdown("## Left out\n\nWords.", "idea", "no-slide"))
    minibook.make(tmp_path, qc=notebook)
    made = list(deck.slides(course.Session(1, book.find("qc", tmp_path), ()), {}))
    assert [s.kind for s in made].count("code") == 1 and "Left out" not in [s.title for s in made]


def test_the_gist_of_a_paragraph():
    assert prose.sentences("One, e.g. This. Two $a. B$ goes (a. B). `x. Y` is three! And: Four.") == [
        "One, e.g. This.", "Two $a. B$ goes (a. B).", "`x. Y` is three!", "And: Four.",
    ]  # fmt: skip
    assert prose.gist("First sentence of some length here. Second.") == "First sentence of some length here."
    assert prose.gist("**kBET** (Büttner and others 2019). What it does. More.").endswith("What it does.")
    assert prose.gist("") == ""


def test_long_texts_flow_over_several_slides_without_leftovers():
    text = "\n\n".join(
        f"Paragraph {n} of this text says one thing. " + "And more and more of it follows. " * 9 for n in range(20)
    )
    made = deck.flow(text)
    assert len(made) > 1 and all(deck.lines(slide) <= deck.CAPACITY for slide in made)
    assert [int(n) for slide in made for n in re.findall(r"Paragraph (\d+)", slide)] == list(range(20))
    assert min(map(deck.lines, made)) > 0.5 * max(map(deck.lines, made))
    assert deck.flow("At the end you can\n\n" + "\n".join(f"- do {n}" for n in range(12)) + "\n\nDone. " * 3)[
        0
    ].startswith("At the end you can\n\n- do 0")


def test_code_on_slides_has_short_docstrings():
    source = 'def f(x):\n    """One.\n\n    More.\n    """\n    y = """not\n    this"""\n    return x, y  # noqa: E731'
    assert deck.shown_code(source) == 'def f(x):\n    """One."""\n    y = """not\n    this"""\n    return x, y'
    assert deck.shown_code("%matplotlib inline") == "%matplotlib inline"


def test_an_equation_that_cannot_be_shown_is_named():
    from scprimer.publish.course import markdown

    assert "<math" in markdown.html("so $x_i$ and\n\n$$\\frac{a}{b}$$")
    with pytest.raises(book.BookError, match=r"\\nosuch"):
        markdown.html(r"$\nosuch{x}$")


# ---- sheets ----------------------------------------------------------------------------------------------------------
def test_the_schedule_has_a_week_between_sessions(kit, sessions):
    rows = [line for line in kit["schedule.md"].splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == len(WRITTEN)
    for number, row in enumerate(rows):
        first = date(2026, 10, 5) + timedelta(weeks=number)
        assert row.split(" | ")[1] == str(first) and row.rstrip(" |").endswith(str(first + timedelta(weeks=1)))


def test_without_a_start_there_are_numbers_and_no_days():
    text = sheets.schedule(course.plan(book.root(), WRITTEN[:2]))
    assert not re.search(r"\| 20\d\d-", text) and "| 2 |" in text and "hand in by" not in text


@pytest.mark.parametrize(
    "text", ["2026-13-01", "2026-02-29", "5.10.2026", "2026-1-5", "tomorrow", "", "20261005", "9998-01-01"]
)
def test_a_day_that_is_none_is_refused_in_words(text):
    with pytest.raises(book.BookError, match=r"is not a date|not in the calendar|too far away"):
        day(text)


def test_what_a_session_needs_is_what_its_run_took(kit, sessions):
    for s in sessions:
        row = next(line for line in kit["schedule.md"].splitlines() if line.startswith(f"| {s.chapter.title} |"))
        stamp = s.chapter.meta["stamp"]
        assert sheets.words.minutes(stamp["seconds"]) in row and sheets.words.memory(stamp["peak_mb"]) in row
    assert kit["schedule.md"].count("not measured") == sum("full" not in s.stamps for s in sessions)


def test_a_chapter_that_builds_on_what_is_not_taught_says_so():
    text = sheets.schedule(course.plan(book.root(), ["unsupervised", "metrics"]))
    later = text.split("## 2.")[1]
    named = re.search(r"imports methods from: (.*)\.", later)[1].split(", ")
    assert "Unsupervised" in named and "Supervised (not taught before)" in named


def test_the_hub_sheet_sums_up_the_stamps(kit, sessions):
    text = kit["jupyterhub.md"]
    peak = max(s.chapter.meta["stamp"]["peak_mb"] for s in sessions)
    assert sheets.granted(peak) % sheets.STEP_MB == 0 and 0 <= sheets.granted(peak) - 1.25 * peak < sheets.STEP_MB
    assert f"Grant each student {sheets.words.memory(sheets.granted(peak))}" in text
    assert f"| 20 | {sheets.words.memory(20 * sheets.granted(peak))} |" in text
    names = {name for s in sessions for name in s.chapter.meta["stamp"]["data"]}
    pulled = re.search(r"scprimer data pull (.*)", text)[1].split()
    assert set(pulled) == names and len(pulled) == len(names)
    total = math.fsum(data.describe(name).bytes for name in names) / 1e6
    assert f"{len(names)} data sets, {sheets.words.memory(total)}" in text
    assert text.count("git-pull?repo=") == len(sessions)


def settings_in(sheet, name):
    """What one of the sheet's two Python files sets: name -> value."""
    (source,) = re.findall(rf"```python\n(# {name}\n.*?)```", sheet, flags=re.DOTALL)
    c, environment = MagicMock(), {}
    c.Spawner.environment = environment
    exec(source, {"c": c, "get_config": lambda: c})
    return c, environment


def test_the_settings_of_the_hub_sheet_are_python_and_grant_what_was_measured(kit, sessions):
    hub, environment = settings_in(kit["jupyterhub.md"], "jupyterhub_config.py")
    peak = max(s.chapter.meta["stamp"]["peak_mb"] for s in sessions)
    assert hub.Spawner.mem_limit == f"{sheets.granted(peak)}M" and hub.Spawner.cpu_limit == 1
    assert environment == {"SCPRIMER_MIRROR": f"{sheets.SHELF}/data", **AS_MEASURED}
    assert f"SCPRIMER_CACHE={sheets.SHELF} scprimer data pull" in kit["jupyterhub.md"]
    nbgrader, _ = settings_in(kit["jupyterhub.md"], "nbgrader_config.py")
    assert nbgrader.Exchange.root == sheets.EXCHANGE and nbgrader.ExchangeCollect.check_owner is False
    assert f'course_id = "{nbgrader.CourseDirectory.course_id}"' in kit["nbgrader/nbgrader_config.py"]


def test_a_course_without_data_sets_nothing_where_the_data_are(clone):
    text = sheets.hub(course.plan(clone, ["qc"]), 0)
    hub, environment = settings_in(text, "jupyterhub_config.py")
    assert environment == AS_MEASURED
    assert isinstance(hub.Spawner.mem_limit, MagicMock), "no limit without a measurement"


def test_a_chapter_without_a_recorded_run_is_not_measured(clone):
    sessions = course.plan(clone, ["qc"])
    assert "not measured" in sheets.schedule(sessions)
    assert "its memory is unknown" in sheets.hub(sessions, 0) and "needed no data set" in sheets.hub(sessions, 0)


# ---- the folder ------------------------------------------------------------------------------------------------------
def call(capsys, *arguments):
    code = cli.main(["course", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_command_writes_a_kit_and_says_what(clone, capsys):
    out = clone.parent / "out"
    code, said = call(capsys, out, "--chapters", "unsupervised", "qc", "--start", "2026-10-05")
    assert code == 0 and "2026-10-12  qc" in said and str(out / "README.md") in said
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert files == {
        "README.md", "schedule.md", "jupyterhub.md", "manifest.json", "nbgrader/nbgrader_config.py",
        *(f"{folder}/{name}.{ending}" for name in ("01-unsupervised", "02-qc")
          for folder, ending in (("students", "ipynb"), ("teacher", "ipynb"), ("slides", "html"))),
        *(f"nbgrader/source/{slug}/{slug}.ipynb" for slug in ("unsupervised", "qc")),
    }  # fmt: skip
    assert set(json.loads((out / "manifest.json").read_text())["files"]) == files - {"manifest.json"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--chapters", "quality"], "no chapter is called 'quality'"),
        (["--chapters", "unsupervized"], "did you mean 'unsupervised'"),
        (["--chapters", "scvi"], "planned and not written yet"),
        (["--chapters", "anndata"], "has no exercises"),
        (["--chapters", "qc", "unsupervised", "qc"], "named twice: qc"),
        (["--chapters", "qc", "--start", "next monday"], "write year-month-day"),
        (["--chapters", "qc", "--start", "2026-02-30"], "not in the calendar"),
    ],
)
def test_what_makes_no_sense_is_refused(clone, capsys, arguments, words):
    code, said = call(capsys, clone.parent / "out", *arguments)
    assert code == 2 and words in said
    assert not (clone.parent / "out").exists()


@pytest.mark.parametrize(
    "id, change, words",
    [
        ("e1-task", {"metadata": {"tags": ["exercise"], "scprimer": {"exercise": {"id": "unsupervised-1", "level": "hard", "title": "t"}}}}, "has the level 'hard'"),
        ("e2-check", {"metadata": {"tags": []}}, "a solution or a check but not both"),
        ("e2-solution", {"source": "def variance(X):\n    return 1"}, "BEGIN SOLUTION"),
    ],
)  # fmt: skip
def test_malformed_exercises_are_refused(clone, id, change, words):
    notebook = fixture.good()
    fixture.cell(notebook, id).update(change)
    fixture.write(clone, notebook, stamped=False)
    with pytest.raises(book.BookError, match=words):
        course.plan(clone, ["unsupervised"])


def test_a_folder_that_is_not_empty_is_left_alone(clone, capsys):
    out = clone.parent / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    code, said = call(capsys, out, "--chapters", "qc")
    assert code == 2 and "is not empty" in said and "--force" in said
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
    code, said = call(capsys, out / "mine.txt", "--chapters", "qc", "--force")
    assert code == 2 and "is a file" in said


def test_force_replaces_its_own_files_only(clone, capsys):
    out = clone.parent / "out"
    assert call(capsys, out, "--chapters", "unsupervised", "qc")[0] == 0
    (out / "nbgrader" / "gradebook.db").write_text("marks")
    (out / "nbgrader" / "source" / "qc" / "picture.png").write_text("mine")
    assert call(capsys, out, "--chapters", "unsupervised")[0] == 2
    assert call(capsys, out, "--chapters", "unsupervised", "--force")[0] == 0
    assert (out / "nbgrader" / "gradebook.db").read_text() == "marks"
    assert [p.name for p in (out / "nbgrader" / "source" / "qc").iterdir()] == ["picture.png"]
    assert not (out / "slides" / "02-qc.html").exists() and (out / "slides" / "01-unsupervised.html").exists()


def test_force_replaces_nothing_that_was_edited_or_is_not_its_own(clone, capsys):
    out = clone.parent / "out"
    assert call(capsys, out, "--chapters", "unsupervised")[0] == 0
    (out / "schedule.md").write_text("in room 5")
    (out / "students" / "02-qc.ipynb").write_text("mine")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code, said = call(capsys, out, "--chapters", "unsupervised", "qc", "--force")
    assert code == 2
    assert (
        "edited since it was written: schedule.md" in said
        and "not written by `scprimer course`: students/02-qc.ipynb" in said
    )
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    (out / "schedule.md").unlink()
    (out / "students" / "02-qc.ipynb").unlink()
    assert call(capsys, out, "--chapters", "unsupervised", "qc", "--force")[0] == 0


def test_a_call_that_was_interrupted_can_be_repeated(clone, capsys, monkeypatch):
    out, written = clone.parent / "out", book.write_text
    assert call(capsys, out, "--chapters", "unsupervised")[0] == 0

    def stop_at_slides(path, text):
        if path.suffix == ".html":
            raise KeyboardInterrupt
        written(path, text)

    monkeypatch.setattr(book, "write_text", stop_at_slides)
    assert call(capsys, out, "--chapters", "qc", "unsupervised", "--force")[0] == 130
    monkeypatch.setattr(book, "write_text", written)
    assert call(capsys, out, "--chapters", "qc", "unsupervised", "--force")[0] == 0
    assert sorted(p.name for p in (out / "slides").iterdir()) == ["01-qc.html", "02-unsupervised.html"]


@pytest.mark.parametrize(
    "manifest", ["", "[]", '{"files": {}}', '{"made_by": "scprimer course", "files": {"../mine.txt": ["x"]}}']
)
def test_a_list_of_files_that_is_not_ours_is_not_trusted(clone, capsys, manifest):
    out = clone.parent / "out"
    out.mkdir()
    (clone.parent / "mine.txt").write_text("mine")
    (out / "manifest.json").write_text(manifest)
    code, said = call(capsys, out, "--chapters", "qc", "--force")
    assert code == 2 and "is not the list of files of a course kit" in said
    assert (clone.parent / "mine.txt").exists() and len(list(out.iterdir())) == 1


def test_the_same_call_makes_the_same_kit(clone, capsys):
    for name in ("one", "two"):
        assert call(capsys, clone.parent / name, "--chapters", "qc")[0] == 0
    one, two = (minibook.snapshot(clone.parent / name) for name in ("one", "two"))
    assert one == two and STUB.splitlines()[0] in one["students/01-qc.ipynb"].decode()
