"""The first code cell of every chapter, and the template that ``scprimer new CHAPTER`` writes."""

from __future__ import annotations

REPOSITORY = "https://github.com/scprimer/scprimer"

# Identical in every chapter (a rule compares it). On Colab it installs scprimer from the repository and then what
# scprimer needs within the ranges of pyproject.toml, with Colab's own numpy, torch, pandas and ipywidgets pinned to the
# versions that are there: pip stops with an error rather than replace one. Elsewhere it does and prints nothing.
INSTALL_CELL = f'''\
import sys

if "google.colab" in sys.modules:  # only on Colab: install what is missing, and leave its numpy and torch as they are
    import re
    import subprocess
    from importlib.metadata import requires, version

    def pip(*wanted):
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=True)

    pip("--no-deps", "git+{REPOSITORY}")
    keep = ("ipywidgets", "numpy", "pandas", "torch")
    needs = [need.split(";")[0] for need in requires("scprimer") if "extra" not in need or "reference" in need]
    missing = [need for need in needs if re.match(r"[\\w-]+", need)[0] not in keep]
    pip(*missing, *(f"{{name}}=={{version(name)}}" for name in keep))'''
