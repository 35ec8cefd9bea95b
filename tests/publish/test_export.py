"""Exported methods are the text of the chapters' cells, and nothing half-done is ever written."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from fixtures import good_chapter as fixture

from scprimer.publish import book
from scprimer.publish.export import BANNER, export, undefined_names


@pytest.fixture
def top(tmp_path):
    fixture.write(tmp_path, fixture.good(), stamped=False)
    return tmp_path


def module(top):
    return top / "scprimer" / "methods" / "unsupervised.py"


def rewrite(top, edit):
    notebook = fixture.good()
    edit(fixture.cell(notebook, "first-component"))
    fixture.write(top, notebook, stamped=False)


def test_the_module_holds_the_cells_and_says_where_they_come_from(top):
    changes = export(top)
    assert [(c.path, c.what) for c in changes] == [(module(top), "new")]
    text = module(top).read_text()
    assert text.startswith(f"{BANNER} notebooks/learning/unsupervised.ipynb. Edit the notebook, not this file.")
    assert "Finding structure" in text.splitlines()[1]
    assert text.count("import numpy as np") == 1
    assert fixture.EXPORTED.strip().partition("\n\n\n")[2] in text


def test_the_module_works(top):
    export(top)
    spec = importlib.util.spec_from_file_location("exported", module(top))
    exported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exported)
    assert exported.__all__ == ["first_component"]
    assert exported.first_component(exported.np.eye(4)).shape == (4,)


def test_a_second_export_changes_nothing(top):
    export(top)
    before = module(top).stat().st_mtime_ns
    assert export(top) == []
    assert module(top).stat().st_mtime_ns == before


def test_check_reports_and_writes_nothing(top):
    [change] = export(top, check=True)
    assert change.what == "new" and not module(top).exists()
    export(top)
    module(top).write_text(module(top).read_text().replace("return U[:, 0]", "return U[:, 1]"))
    edited = module(top).read_text()
    [change] = export(top, check=True)
    assert change.what == "changed"
    assert "-    return U[:, 1] * S[0]" in change.diff and "+    return U[:, 0] * S[0]" in change.diff
    assert module(top).read_text() == edited


def test_imports_come_first_and_once(top):
    def edit(cell):
        cell["source"] = (
            "from __future__ import annotations\n\nimport math\nimport numpy as np\n\nfrom scprimer import metrics\n"
            + cell["source"]
            + "\n\n\ndef root(x):\n    return math.sqrt(metrics.jaccard({x}, {x}))"
        )

    rewrite(top, edit)
    export(top)
    lines = module(top).read_text().splitlines()
    code = [line for line in lines if line.startswith(("import", "from", "def", "__all__"))]
    assert code == [
        "from __future__ import annotations",
        "import math",
        "import numpy as np",
        "from scprimer import metrics",
        "__all__ = [",
        "def first_component(X):",
        "def root(x):",
    ]


def test_private_names_are_not_listed_and_constants_are(top):
    rewrite(top, lambda c: c.update(source="LIMIT = 5\n_hidden = 1\n\n\ndef _help():\n    return _hidden + LIMIT"))
    export(top)
    assert '__all__ = [\n    "LIMIT",\n]' in module(top).read_text()


def test_a_syntax_error_names_notebook_cell_and_line(top):
    export(top)
    before = module(top).read_text()
    rewrite(top, lambda c: c.update(source="x = 1\ndef broken(:\n    pass"))
    with pytest.raises(book.BookError, match=r"unsupervised\.ipynb, cell 'first-component', line 2: .*def broken\(:"):
        export(top)
    assert module(top).read_text() == before


def test_a_name_that_no_exported_cell_defines(top):
    rewrite(top, lambda c: c.update(source=c["source"] + "\n\n\ndef share(X):\n    return X[:n_cells]"))
    with pytest.raises(book.BookError, match="`n_cells`, which no exported cell"):
        export(top)
    assert not module(top).exists()


def test_nothing_is_written_when_one_chapter_is_broken(top):
    other = fixture.good()
    fixture.cell(other, "first-component")["source"] = "def broken(:"
    fixture.write(top, other, stamped=False, slug="scvi")
    with pytest.raises(book.BookError, match="scvi"):
        export(top)
    assert not module(top).exists()


def test_a_module_whose_chapter_exports_nothing_any_more_goes(top):
    export(top)
    by_hand = module(top).with_name("by_hand.py")
    by_hand.write_text("x = 1\n")
    rewrite(top, lambda c: c["metadata"].update(tags=[]))
    assert [(c.path, c.what) for c in export(top, check=True)] == [(module(top), "gone")]
    assert module(top).exists()
    export(top)
    assert not module(top).exists() and by_hand.read_text() == "x = 1\n"


def test_a_module_written_by_hand_is_not_overwritten(top):
    module(top).write_text("x = 1\n")
    with pytest.raises(book.BookError, match="written by hand"):
        export(top)
    assert module(top).read_text() == "x = 1\n"


def test_a_full_disk_leaves_the_old_module_whole(top, monkeypatch):
    export(top)
    before = module(top).read_text()
    rewrite(top, lambda c: c.update(source=c["source"] + "\n\nLIMIT = 5"))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdopen", full)
    with pytest.raises(OSError, match="No space"):
        export(top)
    assert module(top).read_text() == before
    assert [p.name for p in module(top).parent.iterdir()] == ["unsupervised.py"]


def test_hyphens_become_underscores(top):
    fixture.write(top, fixture.good(), stamped=False, slug="self-supervised")
    export(top)
    assert (module(top).parent / "self_supervised.py").is_file()


@pytest.mark.parametrize(
    "code, missing",
    [
        ("def f(x):\n    return x + [y for y in x][0]", set()),
        ("class A:\n    n = 1\n\n    def f(self):\n        return super().f() + A.n + len(__name__)", set()),
        ("def f():\n    global seen\n    seen = 1\n\n\ndef g():\n    return seen", set()),
        ("def f(x):\n    def g():\n        return x + hidden\n\n    return g", {"hidden"}),
        ("LIMIT = size * 2", {"size"}),
        ("def f(n=size) -> Kind:\n    return n", {"size", "Kind"}),
    ],
)
def test_undefined_names(code, missing):
    assert undefined_names(code) == missing


def test_no_science_stack_is_imported():
    code = "import sys, scprimer.publish.export, scprimer.publish.rules, scprimer.publish.template; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pandas", "torch", "anndata", "nbformat"} & set(loaded)
