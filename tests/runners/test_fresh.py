"""A chapter as it runs on Colab: an environment that never heard of the book, and the chapter's own first cell.

``make fresh`` runs this. It needs the package index and takes a quarter of an hour, so ``make test`` leaves it out. What is
installed is the last commit of this clone, which takes the place of the repository's address; nothing else of the clone may
be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

from scprimer.publish import book
from scprimer.publish.template import REPOSITORY

pytestmark = pytest.mark.fresh

# What Colab has before the first cell: its own widgets are older than those that the book is tested with.
PREINSTALLED = (
    "ipykernel<7", "ipywidgets==7.7.1", "matplotlib", "numpy", "pandas<3", "scikit-learn", "scipy", "torch",
)  # fmt: skip
KEPT = ("ipywidgets", "numpy", "pandas", "torch")

# Runs before the first cell, as Colab's own start does: google.colab is there, and files of the clone that are opened are noted.
STARTUP = """\
import sys

import google.colab


def _note(event, arguments, clone={clone!r}, notes={notes!r}):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(clone):
        with open(notes, "a") as file:
            print(arguments[0], file=file)


sys.addaudithook(_note)
"""


class Colab:
    """A plain environment with what Colab brings, outside of the clone."""

    def __init__(self, folder: Path, clone: Path):
        self.folder, self.clone = folder, clone
        self.python, self.notes = folder / "venv" / "bin" / "python", folder / "opened.txt"
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("SCPRIMER_", "PYTHON", "VIRTUAL_"))
        }
        self.environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{clone.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": REPOSITORY,
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_PATH": str(folder / "jupyter"),
        }

    def make(self) -> None:
        """Install what Colab has, and lay out its kernel."""
        subprocess.run([sys.executable, "-m", "venv", self.folder / "venv"], check=True)
        self.run("-m", "pip", "install", "--quiet", *PREINSTALLED)
        packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        book.write_text(packages / "google" / "colab" / "__init__.py", "")
        startup = self.folder / "ipython" / "profile_default" / "startup" / "00-colab.py"
        book.write_text(startup, STARTUP.format(clone=f"{self.clone}{os.sep}", notes=str(self.notes)))
        command = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": command, "display_name": "Colab", "language": "python"}
        book.write_text(self.folder / "jupyter" / "kernels" / "colab" / "kernel.json", json.dumps(spec))

    def run(self, *arguments: str) -> str:
        """Standard output of the environment's Python, called outside of the clone."""
        call = [self.python, *arguments]
        return subprocess.run(
            call, env=self.environment, cwd=self.folder, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def versions(self) -> dict[str, str]:
        """What is installed."""
        lines = self.run("-m", "pip", "list", "--format=freeze").splitlines()
        return {name.lower(): version for name, _, version in (line.partition("==") for line in lines)}

    def execute(self, slug: str) -> tuple[dict, list[str]]:
        """Run all cells of a chapter at smoke; its record, and the files of the clone that the kernel opened."""
        notebook = nbformat.read(book.find(slug, self.clone).path, as_version=4)
        record, work = self.folder / f"{slug}.json", self.folder / "content"
        work.mkdir(exist_ok=True)
        self.notes.unlink(missing_ok=True)
        further = {"SCPRIMER_PROFILE": "smoke", "SCPRIMER_QUIET": "1", "SCPRIMER_RECORD": str(record)}
        with pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - set(self.environment):
                patch.delenv(name)
            for name, value in {**self.environment, **further}.items():
                patch.setenv(name, value)
            client = nbclient.NotebookClient(
                notebook, timeout=3600, kernel_name="colab", resources={"metadata": {"path": str(work)}}
            )
            client.execute()
        opened = self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []
        return json.loads(record.read_text(encoding="utf-8")), opened


@pytest.fixture(scope="module")
def colab(root, tmp_path_factory):
    found = Colab(tmp_path_factory.mktemp("colab"), root)
    found.make()
    return found


# The first brings the light packages, the second torch and the peers that it is compared with.
@pytest.mark.parametrize("slug", ["anndata", "scvi"])
def test_the_first_cell_installs_what_is_missing_and_the_chapter_runs(colab, slug):
    before = colab.versions()
    record, opened = colab.execute(slug)
    after = colab.versions()
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert {"scprimer", "scanpy", "scvi-tools"} <= set(after)
    assert any(claim["holds"] for claim in record["claims"])
    assert [claim["id"] for claim in record["claims"] if claim["holds"] is False] == []  # None: not judged at smoke
    assert opened == []
    where = Path(colab.run("-c", "import scprimer; print(scprimer.__file__)").strip())
    assert colab.folder in where.parents
