"""A small chapter whose words try to break the page that shows them."""

from __future__ import annotations

import re

HOSTILE = """<script>alert("x")</script><img src=x onerror='alert(1)'> & "quoted" """


def markdown(source, *tags, **scprimer):
    metadata = {"tags": list(tags)} | ({"scprimer": scprimer} if scprimer else {})
    return {"cell_type": "markdown", "id": re.sub(r"\W+", "-", source)[:20], "metadata": metadata, "source": source}


def code(source, *tags, outputs=()):
    return {
        "cell_type": "code", "id": re.sub(r"\W+", "-", source)[:20], "metadata": {"tags": list(tags)}, "source": source,
        "outputs": list(outputs), "execution_count": 1,
    }  # fmt: skip


def glue(name):
    kind = "application/papermill.record/text/plain"
    metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
    return {"output_type": "display_data", "data": {kind: "1.0"}, "metadata": metadata}


CLAIM = {"id": "kept", "text": HOSTILE, "kind": "result", "method": "pca", "values": [0.5, 0.7], "resample": "cells",
         "bounds": {"standard": ["at_least", 0.4]}, "baseline": 0.2, "control": 0.1, "reported": "r-hvg-norm"}  # fmt: skip


def chapter_notebook(**meta):
    return {
        "cells": [
            markdown("# Cells & \\<cells\\>\n\nA promise with enough words to be a description of the page."),
            code("import sys", "colab"),
            code("seed = 0", "parameters"),
            code("import scprimer"),
            markdown("## What you will learn", "objectives"),
            markdown("## Build it\n\nSee $x_{ij}$.", "build"),
            code('run.claim(\n    "kept", "words", 1.0, at_least=0.5)'),
            code("for key in keys:\n    run.claim(key, words[key], 1.0)", outputs=[glue("glued")]),
            markdown("## Break it", "break", pitfall={"id": "p1", "title": HOSTILE, "symptom": HOSTILE, "notice": "n", "mend": "m"}),
            markdown("## Claims", "claims"),
            code("run.report()"),
            markdown("## Exercises", "exercises"),
            code("answer = 42", "exercise-solution", "hide-cell"),
            markdown("## Take-aways\n\n- [Build it](#build).", "takeaways"),
        ],
        "metadata": {"scprimer": {"chapter": "qc", "claims": [CLAIM]} | meta, "widgets": {"x": {}}, "kernelspec": {
            "name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
