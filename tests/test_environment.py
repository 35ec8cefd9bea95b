"""The files that install the book agree with each other, and importing the package stays light."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scprimer.publish import doctor


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(root):
    lines = [l.split("#")[0].strip() for l in (root / "constraints.txt").read_text().splitlines()]
    found = [l.split("==") for l in lines if l]
    return {canonicalize_name(name): version for name, version in found}


# Extras that `make test` does not install.
ON_DEMAND = {"hub"}


def every_requirement(project, without=()):
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], *(extras[name] for name in extras if name not in without)]
    return [Requirement(r) for group in lists for r in group]


def test_every_requirement_is_a_range_and_its_pin_lies_in_it(project, pins):
    for requirement in every_requirement(project):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier, f"{requirement.name} has no range in pyproject.toml"
        assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow the pin {pins[name]}"


def test_every_place_names_the_same_versions_of_python(root, project):
    oldest, below = doctor.OLDEST_PYTHON, doctor.BELOW_PYTHON
    assert project["requires-python"] == f">={'.'.join(map(str, oldest))},<{'.'.join(map(str, below))}"
    code = f"({','.join(map(str, oldest))}) <= sys.version_info[:3] < ({','.join(map(str, below))})"
    words = "Python 3.11 (3.11.5 or newer), 3.12 or 3.13"
    assert code in (root / "Makefile").read_text()
    for name in ("Makefile", "README.md", "book/how-to-run.md"):
        assert words in (root / name).read_text(), name


def test_torch_is_pinned_and_its_range_is_wider(project, pins):
    torch = next(r for r in every_requirement(project) if r.name == "torch")
    assert pins["torch"] == "2.13.0"
    assert torch.specifier.contains("2.6.0")


def test_jupyter_book_stays_below_two(project):
    book = next(r for r in every_requirement(project) if r.name == "jupyter-book")
    assert not book.specifier.contains("2.0.0")


def test_what_is_installed_here_is_what_is_pinned(project, pins):
    from importlib.metadata import version

    for requirement in every_requirement(project, without=ON_DEMAND):
        assert version(requirement.name).split("+")[0] == pins[canonicalize_name(requirement.name)], requirement.name


def test_the_conda_environment_installs_the_same_pins_and_extras_that_exist(root, project):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    from packaging.specifiers import SpecifierSet

    assert SpecifierSet(project["requires-python"]).contains(python.removeprefix("python="))
    pip = next(d for d in environment["dependencies"] if isinstance(d, dict))["pip"]
    assert "--constraint constraints.txt" in pip
    (package,) = [line for line in pip if line.startswith("--editable .[")]
    extras = set(re.search(r"\[(.*)\]", package)[1].split(","))
    assert extras <= set(project["optional-dependencies"])
    assert {"reference", "run"} <= extras
    assert len(pip) == 2, "versions belong in constraints.txt, not here"


def test_the_newest_versions_are_tried_without_the_pins(root):
    made = subprocess.run(
        ["make", "--dry-run", "test-latest"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert ".venv-latest/bin/python -m pytest tests" in made and ".venv-latest/bin/python -m pytest notebooks" in made
    assert "constraints.txt" not in made and "--upgrade-strategy eager" in made
    left_out = re.search(r"--deselect (\S+)::(\w+)", made)
    assert f"def {left_out[2]}(" in (root / left_out[1]).read_text(), "what is left out still exists"


def test_the_docker_image_and_make_install_with_the_pins(root):
    for name in ("Dockerfile", "Makefile"):
        assert "--constraint constraints.txt" in (root / name).read_text(), name


def in_fresh_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_image_has_what_a_hub_needs(root, project):
    extras = re.search(r"\[(.*)\]", (root / "Dockerfile").read_text().split("--editable")[1])[1].split(",")
    assert set(extras) >= {"teach", "hub"} and set(extras) <= set(project["optional-dependencies"])


def test_importing_the_package_is_light():
    # Compared with the interpreter's own start in the same moment, the best of several: a ratio, not a stopwatch.
    code = "import sys, time; t = time.perf_counter(); import scprimer; print(time.perf_counter() - t)"
    assert min(float(in_fresh_python(code)) for _ in range(3)) < 0.3


@pytest.mark.parametrize("module", ["scprimer", "scprimer.cli", "scprimer.publish.book", "scprimer.publish.ledger",
                                    "scprimer.publish.build", "scprimer.publish.sphinxext", "scprimer.publish.rules",
                                    "scprimer.publish.course"])  # fmt: skip
def test_publishing_imports_no_science_stack(module):
    heavy = "numpy pandas scipy torch anndata scanpy sklearn matplotlib dask distributed papermill"
    code = f"import sys, {module}; print(*[m for m in '{heavy}'.split() if m in sys.modules])"
    assert in_fresh_python(code) == ""
