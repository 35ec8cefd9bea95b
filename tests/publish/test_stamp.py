"""What makes a chapter stale, what makes it age, and what does neither."""

from __future__ import annotations

import ast
import importlib.util
import json
import tomllib
from types import SimpleNamespace

import minibook
import pytest

from scprimer.publish import book, stamp, symbols

METHODS = '''"""Exported."""
import numpy as np

LIMIT = 3


def helper(x):
    """Doubles."""
    return 2 * x


def method(x):
    return helper(x) + LIMIT


def another(x):
    return x - 1
'''

CODE = '''from scprimer.methods.qc import method
from scprimer import metrics, plots


def score(x):
    """Words."""
    return method(x)  # why


score(metrics.first(3)); plots.draw()
'''


@pytest.fixture
def clone(tmp_path):
    """A book with a package of its own, and a recorded chapter that uses it."""
    package = tmp_path / "scprimer"
    files = {
        "__init__.py": "",
        "methods/__init__.py": "",
        "methods/qc.py": METHODS,
        "metrics.py": "def first(x):\n    return x\n\n\ndef second(x):\n    return x\n",
        "plots.py": "def draw():\n    pass\n",
        "run.py": "def start(chapter):\n    return chapter\n",
        "train.py": "def train():\n    pass\n",
        "data/__init__.py": "",
        "data/loaders/__init__.py": "",
        "data/loaders/pbmc.py": "def pbmc3k(folder):\n    return 1\n\n\ndef pbmc4k(folder):\n    return 2\n",
        "data/simulate/__init__.py": "from .standins import standin\n",
        "data/simulate/standins/__init__.py": 'STANDINS = {"pbmc3k": "pbmc:pbmc3k"}\n\n\ndef standin(name):\n    return STANDINS[name]\n',
        "data/simulate/standins/pbmc.py": "def pbmc3k(seed):\n    return seed\n",
    }
    for name, text in files.items():
        book.write_text(package / name, text)
    book.write_text(tmp_path / "constraints.txt", "numpy==2.0.0\nsphinx==7.4.7\n")
    book.write_text(tmp_path / "pyproject.toml", '[project]\nname = "scprimer"\ndependencies = ["numpy>=1.26"]\n')
    exercise = ("assert 1 + 1 == 2", "exercise-check")
    minibook.make(tmp_path, unsupervised=[CODE, "run = 1", exercise, ("import sys", "colab")])
    return tmp_path


def chapter_of(top) -> book.Chapter:
    return book.find("unsupervised", top)


def record(top, **more) -> None:
    """Stamp the chapter as a run would, and number its cells."""
    notebook = book.read_notebook(chapter_of(top).path)
    data = {"pbmc3k": {"sha256": sha256(), "bytes": 1}}
    found = {
        "record": {"profile": "standard", "seed": 0, "device": None, "threads": 1, "data": data, "checkpoints": []}
    }
    found |= {"environment": {"python": "3.11.7"}, "seconds": 1.0, "peak_mb": 5, "notebook": json.dumps(notebook)}
    made = stamp.make(chapter_of(top), found)
    notebook["metadata"]["scprimer"]["stamp"] = made | more
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["execution_count"] = 1
    book.write_notebook(chapter_of(top).path, notebook)


def sha256() -> str:
    from scprimer import data

    return data.describe("pbmc3k").sha256


def rewrite(path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    book.write_text(path, text.replace(old, new))


def edit(top, old: str, new: str) -> None:
    """Edit a cell, as Jupyter does it: the outputs stay."""
    notebook = book.read_notebook(chapter_of(top).path)
    cell = next(c for c in notebook["cells"] if old in book.source(c))
    cell["source"] = book.source(cell).replace(old, new)
    book.write_notebook(chapter_of(top).path, notebook)


def test_never_run_then_fresh(clone):
    assert stamp.state(chapter_of(clone)) == "never run"
    record(clone)
    assert stamp.judge(chapter_of(clone)) == ("fresh", ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# because"),
        ('    """Words."""\n', '    """Other words, of more lines.\n\n    Args:\n    """\n'),
        ('    """Words."""\n', ""),
        ("You will see", "You will understand"),  # prose
        ("assert 1 + 1 == 2", "assert 2 + 2 == 4"),  # an exercise
        ("import sys", "import os"),  # what installs on Colab
        ("score(metrics.first(3));", "score(\n    metrics.first(3),\n);"),  # layout
    ],
)
def test_what_costs_no_run(clone, old, new):
    record(clone)
    edit(clone, old, new)
    assert stamp.judge(chapter_of(clone)) == ("fresh", ())


TORCH = "import scprimer\nrun = scprimer.start('unsupervised', seed=seed, device='auto')"


@pytest.mark.parametrize(
    "edits",
    [
        [],
        [("device='auto'", "device=device"), ("seed = 0", "seed = 0\ndevice = 'auto'")],
        [("device='auto'", "device=device"), ("seed = 0", "seed = 0\ndevice = 'cuda'  # for the class")],
        [("device='auto'", "device='cpu'")],
    ],
)
def test_the_choice_of_a_device_costs_no_run(clone, edits):
    edit(clone, "run = 1", TORCH)
    record(clone)
    for old, new in edits:
        edit(clone, old, new)
    assert stamp.judge(chapter_of(clone)) == ("fresh", ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 0", "seed = 1"),
        ("seed=seed, ", ""),
        (", device='auto'", ""),  # then torch is not seeded
        ("run = scprimer", "device = 'cpu'\nrun = scprimer"),  # in another cell than that of the parameters
        ("device='auto')", "device='auto')\nother(device='auto')"),
    ],
)
def test_what_is_not_the_choice_of_a_device_does(clone, old, new):
    edit(clone, "run = 1", TORCH)
    record(clone)
    edit(clone, old, new)
    assert stamp.state(chapter_of(clone)) == "stale"


@pytest.mark.parametrize(
    ("old", "new"),
    [("method(x)", "method(x + 1)"), ("first(3)", "first(4)"), ("run = 1", "run = 2"), ("run = 1", "run = 1\nx = 3")],
)
def test_changed_code_is_stale(clone, old, new):
    record(clone)
    edit(clone, old, new)
    assert stamp.judge(chapter_of(clone)) == ("stale", ("its code has changed",))


@pytest.mark.parametrize(
    ("old", "new", "state"),
    [
        ("return helper(x) + LIMIT", "return helper(x) - LIMIT", "stale"),
        ("return 2 * x", "return 3 * x", "stale"),  # what it needs
        ("LIMIT = 3", "LIMIT = 4", "stale"),
        ("def method(x)", "def methods(x)", "stale"),  # gone
        ("return x - 1", "return x - 2", "fresh"),  # what it does not need
        ('"""Doubles."""', '"""Twice."""', "fresh"),
        ("import numpy as np", "import numpy as np\nimport os", "fresh"),
    ],
)
def test_exported_methods_count_with_what_they_need(clone, old, new, state):
    record(clone)
    rewrite(clone / "scprimer" / "methods" / "qc.py", old, new)
    assert stamp.state(chapter_of(clone)) == state
    if state == "stale":
        assert "scprimer.methods" in stamp.reasons(chapter_of(clone))[0]


def test_methods_that_methods_import_count(clone):
    book.write_text(clone / "scprimer" / "methods" / "base.py", "def base(x):\n    return x\n")
    rewrite(clone / "scprimer" / "methods" / "qc.py", "import numpy as np", "from scprimer.methods.base import base")
    rewrite(clone / "scprimer" / "methods" / "qc.py", "return 2 * x", "return 2 * base(x)")
    record(clone)
    rewrite(clone / "scprimer" / "methods" / "base.py", "return x", "return x + 1")
    assert stamp.state(chapter_of(clone)) == "stale"


def test_data_that_changed_is_stale(clone, monkeypatch):
    record(clone)
    monkeypatch.setattr("scprimer.data.describe", lambda name: SimpleNamespace(sha256="other", loader="pbmc:pbmc3k"))
    assert stamp.judge(chapter_of(clone)) == ("stale", ("the registry's hash of its data set pbmc3k has changed",))
    monkeypatch.setattr("scprimer.data.is_registered", lambda name: False)
    assert "not in the registry" in stamp.reasons(chapter_of(clone))[0]


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("scprimer/metrics.py", "def first(x):\n    return x", "def first(x):\n    return -x", "metrics"),
        ("scprimer/data/loaders/pbmc.py", "return 1", "return 7", "loaders"),
        ("scprimer/data/simulate/standins/pbmc.py", "return seed", "return -seed", "simulators"),
        ("constraints.txt", "numpy==2.0.0", "numpy==2.1.0", "pinned versions"),
        ("scprimer/metrics.py", "def second(x):\n    return x", "def second(x):\n    return -x", None),
        ("scprimer/metrics.py", "return x\n", "return x  # the same\n", None),
        ("scprimer/train.py", "pass", "return 1", None),  # it does not train
        ("scprimer/plots.py", "pass", "return 1", None),
        ("scprimer/data/loaders/pbmc.py", "return 2", "return 8", None),  # of data that it does not load
        ("scprimer/data/simulate/standins/__init__.py", "{", '{"new": "pbmc:new", ', None),
        ("constraints.txt", "sphinx==7.4.7", "sphinx==8.0.0", None),
    ],
)
def test_surroundings_age(clone, file, old, new, words):
    record(clone)
    rewrite(clone / file, old, new)
    judged = stamp.judge(chapter_of(clone))
    assert judged.state == ("aged" if words else "fresh")
    if words:
        assert words in judged.reasons[0]


@pytest.mark.parametrize(
    ("imports", "state"), [("import scvi\n", "aged"), ("from scvi import model\n", "aged"), ("", "fresh")]
)
def test_a_peer_ages_only_the_chapters_that_import_it(clone, imports, state):
    project = '[project]\nname = "scprimer"\ndependencies = ["numpy>=1.26"]\n[project.optional-dependencies]\nreference = [{}]\n'
    book.write_text(clone / "pyproject.toml", project.format('"scvi-tools>=1.3"'))
    book.write_text(clone / "constraints.txt", "numpy==2.0.0\nscvi-tools==1.4.0\nscikit-misc==0.5.1\n")
    edit(clone, "run = 1", imports + "run = 1")
    record(clone)
    rewrite(clone / "constraints.txt", "scvi-tools==1.4.0", "scvi-tools==1.4.2")
    assert stamp.state(chapter_of(clone)) == state
    record(clone)  # another chapter's peer comes in: nothing that this one uses
    book.write_text(clone / "pyproject.toml", project.format('"scvi-tools>=1.3", "pydeseq2>=0.5"'))
    rewrite(clone / "constraints.txt", "numpy==2.0.0", "numpy==2.0.0\npydeseq2==0.5.4")
    assert stamp.state(chapter_of(clone)) == "fresh"
    # ... but a peer that scanpy imports by itself counts for everybody
    book.write_text(clone / "pyproject.toml", project.format('"scvi-tools>=1.3", "scikit-misc>=0.5"'))
    assert stamp.state(chapter_of(clone)) == "aged"


def test_peers_are_imported_by_the_names_that_stamps_look_for():
    project = tomllib.loads((book.root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    peers = [stamp._name(need) for need in project["optional-dependencies"]["reference"]]
    assert peers
    for module in filter(None, map(stamp._module, peers)):
        assert importlib.util.find_spec(module), f"no module {module!r}: name it in stamp._MODULES"


def test_the_run_and_the_training_loop_age_chapters_that_use_them(clone):
    edit(clone, "run = 1", "import scprimer\nfrom scprimer.train import train\nscprimer.run.start('x')\ntrain()")
    record(clone)
    rewrite(clone / "scprimer" / "run.py", "return chapter", "return 1")
    rewrite(clone / "scprimer" / "train.py", "pass", "return 1")
    assert stamp.judge(chapter_of(clone)) == ("aged", ("changed since: the training loop, scprimer.run",))


def test_a_cell_without_its_outputs_is_stale(clone):
    record(clone)
    notebook = book.read_notebook(chapter_of(clone).path)
    notebook["cells"][3]["execution_count"] = None
    book.write_notebook(chapter_of(clone).path, notebook)
    judged = stamp.judge(chapter_of(clone))
    assert judged.state == "stale"
    assert "cell 4 (c3) has not been executed" in judged.reasons[0]


def test_the_record_of_another_profile_is_judged_by_its_own_stamp(clone):
    record(clone)
    found = chapter_of(clone).meta["stamp"]
    assert stamp.judge(chapter_of(clone), found).state == "fresh"
    edit(clone, "run = 1", "run = 2")
    assert stamp.judge(chapter_of(clone), found).state == "stale"


def test_names_are_resolved_through_imports():
    code = (
        "import scprimer\nimport scprimer.methods.a as m\nfrom scprimer import metrics as me\n"
        "from scprimer.methods import b\nfrom scprimer.methods.c import One, Two as T\nfrom scprimer.methods.d import *\n"
        "m.X().fit()\nme.ari(1)\nb.Y\nscprimer.start('x')\nimport numpy as np\nnp.zeros(3)\n"
    )
    assert symbols.uses([ast.parse(code)]) == {
        "scprimer.methods.a.X", "scprimer.metrics.ari", "scprimer.methods.b.Y", "scprimer.methods.c.One",
        "scprimer.methods.c.Two", "scprimer.methods.d", "scprimer.start",
    }  # fmt: skip
    assert symbols.uses([ast.parse("from . import x\nfrom ..run import start")], package="scprimer.data") == {
        "scprimer.data.x", "scprimer.run.start",
    }  # fmt: skip


def test_magics_and_broken_code_are_hashed():
    assert symbols.canonical(symbols.parse("%matplotlib inline\nx = 1")) != symbols.canonical(symbols.parse("x = 1"))
    assert symbols.canonical(symbols.parse("!ls")) != symbols.canonical(symbols.parse("!ls -l"))
    assert symbols.parse("x ===== 1") is None


def test_the_hash_of_code_does_not_depend_on_the_version_of_python():
    code = "def f(x, *, y=1):\n    return [x, f'{y:>{x}}  {y:.2f}', {}]\n\n\nclass A:\n    pass"
    tree = symbols.parse(code)
    assert symbols.digest(symbols.canonical(tree)) == "bb11f0e1f4ac8a24"
    nested = next(n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr))
    nested.values[0].format_spec.values.append(ast.Constant(""))  # as Python 3.12.1 has it
    assert symbols.digest(symbols.canonical(tree)) == "bb11f0e1f4ac8a24"
