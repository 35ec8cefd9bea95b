"""What the page on security says: nothing is unpickled, nobody else is asked for anything, no output carries a script."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from scprimer.publish import book

ROOT = book.root(Path(__file__).parent)
MODULES = sorted((ROOT / "scprimer").rglob("*.py"))
CHAPTERS = book.chapters(ROOT)

UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas", "pd"}
READS = {"load", "loads", "Unpickler", "open", "read_pickle"}
PLAIN = {"pandas", "pd"}  # of these only read_pickle is meant
NETWORK = {"requests", "urllib.request", "http.client", "httpx", "aiohttp", "ftplib", "smtplib", "socket", "telnetlib", "websockets", "pooch"}  # fmt: skip


def code_of(chapter: book.Chapter) -> str:
    """All code of a chapter as one module; lines that are IPython's own (``!pip``, ``%magic``) are left out."""
    cells = [book.source(c) for c in chapter.notebook["cells"] if c["cell_type"] == "code"]
    return "\n".join(re.sub(r"(?m)^(\s*)[!%].*$", r"\1pass", text) for text in cells)


def name_of(node: ast.expr) -> str:
    """``torch.load`` as written; empty for anything that is no dotted name."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}" if name_of(node.value) else ""
    return node.id if isinstance(node, ast.Name) else ""


def is_constant(call: ast.Call, keyword: str, value: bool) -> bool:
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def unpicklings(text: str) -> list[str]:
    """Calls and imports in a piece of code that would read a pickle."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS - PLAIN:
            found += [f"from {node.module} import {a.name}" for a in node.names if a.name in READS]
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            found += [f"from torch import {a.name}" for a in node.names if a.name == "load"]
        if not isinstance(node, ast.Call):
            continue
        module, _, function = name_of(node.func).rpartition(".")
        read_pickle = function == "read_pickle"
        if read_pickle or (module in UNPICKLERS - PLAIN and function in READS):
            found.append(f"{module}.{function}")
        if (module, function) == ("torch", "load") and not is_constant(node, "weights_only", True):
            found.append("torch.load without weights_only=True")
        if function in ("load", "loadtxt", "genfromtxt") and any(
            k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in node.keywords
        ):
            found.append(f"{module}.{function} with allow_pickle")
    return found


def networks(text: str) -> list[str]:
    """Modules that a piece of code imports and that can ask a network for something."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        found += [name for name in names if name in NETWORK]
    return found


@pytest.mark.parametrize("text", [
    "import pickle\npickle.load(open('x', 'rb'))", "from pickle import loads", "import torch\ntorch.load('x')",
    "torch.load('x', weights_only=False)", "np.load('x', allow_pickle=True)", "np.load('x', allow_pickle=flag)",
    "joblib.load('x')", "pd.read_pickle('x')", "pickle.Unpickler(f)", "from torch import load",
])  # fmt: skip
def test_what_reads_a_pickle_is_found(text):
    assert unpicklings(text)


@pytest.mark.parametrize("text", [
    "torch.load('x', weights_only=True)", "np.load('x')", "np.load('x', allow_pickle=False)", "json.load(f)",
    "len(pickle.dumps(model))", "pd.read_csv('x')",
])  # fmt: skip
def test_what_reads_no_pickle_is_left_alone(text):
    assert unpicklings(text) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_package_reads_no_pickle(path):
    assert unpicklings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.slug)
def test_no_chapter_reads_a_pickle_or_asks_a_network(chapter):
    text = code_of(chapter)
    assert unpicklings(text) == []
    assert networks(text) == []
    assert "loaders.online" not in text and "kegg(" not in text


def test_only_two_modules_ask_a_network():
    """The registry's downloads, and the services that a reader may ask live; a host's name is no request."""
    asking = {str(p.relative_to(ROOT / "scprimer")): set(networks(p.read_text(encoding="utf-8"))) for p in MODULES}
    asking = {name: found for name, found in asking.items() if found}
    assert asking.pop("publish/journal.py") == {"socket"}
    assert "gethostname" in (journal := (ROOT / "scprimer" / "publish" / "journal.py").read_text(encoding="utf-8"))
    assert set(re.findall(r"socket\.(\w+)", journal)) == {"gethostname"}
    assert set(asking) == {"data/download.py", "data/loaders/online.py"}


def test_what_asks_a_network_is_found():
    assert networks("import requests") and networks("from urllib import request") and networks("import urllib.request")
    assert networks("from urllib.parse import quote\nimport json") == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.slug)
def test_no_output_carries_a_script(chapter):
    """But the explorer's own, which has to be the module of this package, letter by letter."""
    from scprimer.explorer.view import renewed

    for cell in chapter.notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            page = "".join(data.get("text/html", ""))
            if page.startswith('<div class="scp-explorer"'):
                assert renewed(page) == page, f"{cell['id']}: another script than scprimer/explorer/explorer.js"
                continue
            assert "application/javascript" not in data
            markup = json.dumps([data.get(kind, "") for kind in ("text/html", "image/svg+xml", "text/markdown")])
            assert not re.search(r"<script|<iframe|<object|<embed|javascript:|\son\w+\s*=", markup, re.IGNORECASE), (
                cell["id"]
            )


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "book" / "security.md").read_text(encoding="utf-8"))
    assert len(named) >= 6
    assert [name for name in named if not (ROOT / name).is_file()] == []
