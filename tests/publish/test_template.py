"""The install cell does its work on Colab and nothing elsewhere; the template is a chapter that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest
from fixtures import good_chapter as fixture

from scprimer.publish import book, export, rules
from scprimer.publish.exercises import exercises, run_exercise
from scprimer.publish.template import INSTALL_CELL, REPLACE, REPOSITORY, new

# A pip that writes down what it is asked, and "installs" scprimer's metadata when it is asked for the repository.
FAKE_PIP = """
import json, os, pathlib, sys
here = pathlib.Path(__file__).parents[1]
with open(here / "asked.jsonl", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
if os.environ.get("PIP_FAILS"):
    sys.exit("no network")
if any(a.startswith("git+") for a in sys.argv):
    folder = here / "scprimer-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text((here / "METADATA").read_text())
"""
METADATA = """Metadata-Version: 2.4
Name: scprimer
Version: 9
Requires-Dist: anndata<0.13,>=0.11
Requires-Dist: ipywidgets<9,>=8.1
Requires-Dist: numpy>=1.26
Requires-Dist: pandas<3,>=2.2
Requires-Dist: scikit-learn>=1.5
Requires-Dist: torch>=2.2
Requires-Dist: scikit-misc>=0.5; extra == "reference"
Requires-Dist: jupyter-book<2,>=1.0.4; extra == "book"
Requires-Dist: numpydoc; extra == "dev"
"""
ON_COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"


def run_install_cell(folder, before="", **environment):
    """Run the cell in a Python of its own that finds the fake pip first; what it said, and what pip was asked."""
    (folder / "pip").mkdir()
    (folder / "pip" / "__init__.py").touch()
    (folder / "pip" / "__main__.py").write_text(FAKE_PIP)
    (folder / "METADATA").write_text(METADATA)
    # Colab's own packages, whatever is installed here
    for name, version in (("ipywidgets", "7.7.1"), ("numpy", "2.0.2"), ("pandas", "2.2.2"), ("torch", "2.6.0+cu124")):
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    environment = os.environ | {"PYTHONPATH": str(folder)} | environment
    command = [sys.executable, "-c", before + INSTALL_CELL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    log = folder / "asked.jsonl"
    return done, [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_elsewhere_it_does_and_prints_nothing(tmp_path):
    done, asked = run_install_cell(tmp_path)
    assert (done.returncode, done.stdout, done.stderr, asked) == (0, "", "", [])


def test_on_colab_it_installs_what_is_missing_in_the_ranges_of_the_package(tmp_path):
    done, asked = run_install_cell(tmp_path, ON_COLAB)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first, second = asked
    assert first == ["install", "--quiet", "--no-deps", f"git+{REPOSITORY}"]
    assert second[:2] == ["install", "--quiet"]
    assert second[2:5] == ["anndata<0.13,>=0.11", "scikit-learn>=1.5", "scikit-misc>=0.5"]


def test_on_colab_its_own_numpy_and_torch_stay(tmp_path):
    _, (_, second) = run_install_cell(tmp_path, ON_COLAB)
    assert second[5:] == ["ipywidgets==7.7.1", "numpy==2.0.2", "pandas==2.2.2", "torch==2.6.0+cu124"]
    assert "--upgrade" not in second and "-U" not in second and "--force-reinstall" not in second


def test_on_colab_a_failed_install_is_an_error(tmp_path):
    done, asked = run_install_cell(tmp_path, ON_COLAB, PIP_FAILS="1")
    assert done.returncode != 0 and "no network" in done.stderr
    assert len(asked) == 1


def test_the_install_cell_can_be_read(root):
    lines = INSTALL_CELL.splitlines()
    assert len([line for line in lines if line.strip()]) <= 15 and max(map(len, lines)) <= 120


def test_the_repository_is_that_of_the_package(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Homepage"] == REPOSITORY
    # the install cell drops what follows `;`: markers other than extras would be lost
    assert not any(";" in need for need in project["dependencies"] + project["optional-dependencies"]["reference"])


# ---- the template ----------------------------------------------------------------------------------------------------
@pytest.fixture
def top(tmp_path):
    return fixture.clone(tmp_path)


def test_it_lies_in_the_folder_of_its_part(top):
    assert new("self-supervised", top) == top / "notebooks" / "learning" / "self-supervised.ipynb"
    assert book.find("self-supervised", top).meta["chapter"] == "self-supervised"


def test_it_holds_the_chapters_methods_and_reported_figures(top):
    new("scvi", top)
    chapter = book.find("scvi", top)
    assert chapter.meta["methods"] == ["scvi"]
    owes = next(book.source(c) for c in chapter.notebook["cells"] if "objectives" in book.tags(c))
    assert "`scvi`" in owes and "`r-scvi-ari`" in owes and "r-pca-auc" not in owes


@pytest.mark.parametrize("wrong, near", [("qcc", "'qc'"), ("transformer", "'transformers'"), ("zzz", "still to write")])
def test_a_chapter_that_is_not_planned(top, wrong, near):
    with pytest.raises(book.BookError, match=near):
        new(wrong, top)
    assert not list(top.glob("notebooks/*/*.ipynb"))


def test_it_does_not_overwrite(top):
    path = new("qc", top)
    path.write_text("mine")
    with pytest.raises(book.BookError, match="exists"):
        new("qc", top)
    assert path.read_text() == "mine"


def test_every_part_of_it_asks_to_be_replaced(top):
    new("diffusion", top)
    cells = book.find("diffusion", top).notebook["cells"]
    for tag in book.ANATOMY:
        [opening] = [c for c in cells if c["cell_type"] == "markdown" and tag in book.tags(c)]
        assert REPLACE in book.source(opening), tag


def test_its_code_keeps_the_style(top, root):
    new("diffusion", top)
    (top / "scprimer" / "__init__.py").touch()
    (top / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "notebooks"], cwd=top, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_its_method_is_exported_and_its_exercises_work(top):
    new("diffusion", top)
    assert [c.path.name for c in export.export(top)] == ["diffusion.py"]
    for exercise in exercises(book.find("diffusion", top)):
        assert run_exercise(exercise).passed
        assert not run_exercise(exercise, exercise.stub).passed
        assert all(not run_exercise(exercise, wrong).passed for wrong in exercise.wrong_answers)


def test_unrun_it_breaks_only_the_rules_about_words_and_results(top):
    new("diffusion", top)
    found = {v.rule for v in rules.check(book.find("diffusion", top))}
    assert found == {"placeholders", "citations", "execution-order", "stamp", "claim-kinds", "glue-keys"}
