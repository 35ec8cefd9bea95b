"""The first code cell of every chapter, and the template that ``scprimer new CHAPTER`` writes.

The template is a small chapter that runs: PCA by hand, checked, compared, broken and claimed. Its author replaces the
example part by part; what must be replaced is marked with :data:`REPLACE`, and a rule counts what is left of it.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from scprimer.publish import book

REPOSITORY = "https://github.com/scprimer/scprimer"

# Identical in every chapter (a rule compares it). On Colab it installs scprimer from the repository and then what
# scprimer needs within the ranges of pyproject.toml, with Colab's own numpy, torch, pandas and ipywidgets pinned to the
# versions that are there: pip stops with an error rather than replace one. Elsewhere it does and prints nothing.
INSTALL_CELL = f"""\
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
    pip(*missing, *(f"{{name}}=={{version(name)}}" for name in keep))"""

# Stands wherever the author must put their own words; no written chapter may hold it.
REPLACE = "REPLACE"


def new(slug: str, top: Path | None = None) -> Path:
    """Write the template of the chapter ``slug`` into the folder of its part, and return its path.

    Args:
        slug: a planned chapter of :data:`scprimer.publish.book.PARTS` that has no notebook yet.
        top: top folder of the clone; default: the clone here.

    Raises:
        BookError: the slug is not planned (with the nearest that is), or its notebook exists.
    """
    top = top or book.root()
    every = {c.slug: c for c in book.chapters(top, planned=True)}
    if slug not in every:
        near = difflib.get_close_matches(slug, every, n=1)
        unwritten = ", ".join(c.slug for c in every.values() if not c.exists)
        raise book.BookError(
            f"no chapter {slug!r} is planned"
            + (f": did you mean {near[0]!r}?" if near else ".")
            + f" Chapters still to write: {unwritten}. A new one is first named in scprimer/publish/book.py (PARTS)."
        )
    chapter = every[slug]
    if chapter.exists:
        raise book.BookError(f"{chapter.path} exists and is left as it is: edit it, or delete it first")
    book.write_notebook(chapter.path, notebook(chapter, top))
    return chapter.path


def notebook(chapter: book.Chapter, top: Path) -> dict:
    """The template for one chapter: its methods and the reported figures that it must re-measure are filled in."""
    methods = [row for row in book.table("methods", top) if row["chapter"] == chapter.slug]
    reported = [row for row in book.table("reported", top) if row["chapter"] == chapter.slug]
    ids = [row["id"] for row in methods]
    names = {
        "@slug@": chapter.slug,
        "@module@": chapter.module,
        "@title@": chapter.slug.replace("-", " ").capitalize(),
        "@method@": f'"{ids[0]}"' if ids else "None",
        "@methods@": "\n".join(f"- `{r['id']}`: {r['method']} ({r['how']}). Show: {r['show']}." for r in methods)
        or "- none: this chapter has no row in `book/methods.csv`",
        "@reported@": "\n".join(
            f"- `{r['id']}`: {r['metric']} {r['reported']} ({r['setting']}; {r['where']})" for r in reported
        )
        or "- none",
    }
    cells = []
    for kind, text, tags, extra in _cells():
        cells.append(_cell(kind, _fill(text, names), tags, _fill(extra, names), {c["id"] for c in cells}))
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "scprimer": {"chapter": chapter.slug, "methods": ids, "not_applicable": {}},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _fill(what, names: dict[str, str]):
    """``what`` (text, or nested lists and dicts of it) with the placeholders replaced."""
    if isinstance(what, str):
        for name, value in names.items():
            what = what.replace(name, value)
        return what
    if isinstance(what, dict):
        return {key: _fill(value, names) for key, value in what.items()}
    return [_fill(value, names) for value in what] if isinstance(what, list) else what


def _cell(kind: str, text: str, tags: list[str], extra: dict, taken: set[str]) -> dict:
    metadata = dict(extra)
    if tags:
        metadata["tags"] = tags
    cell = {
        "cell_type": kind,
        "id": _new_id(text, taken),
        "metadata": metadata,
        "source": text.splitlines(keepends=True),
    }
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell


def _new_id(text: str, taken: set[str]) -> str:
    """A readable cell id from the first line, unique in the notebook."""
    base = re.sub(r"[^a-z0-9]+", "-", text.splitlines()[0].lower()).strip("-")[:40].strip("-") or "cell"
    name, n = base, 2
    while name in taken:
        name, n = f"{base}-{n}", n + 1
    return name


def _cells() -> list[tuple[str, str, list[str], dict]]:
    """The cells in order: kind, source, tags, further metadata. ``@name@`` is filled in by :func:`notebook`."""
    cells: list[tuple[str, str, list[str], dict]] = []

    def text(source: str, *tags: str, **extra) -> None:
        cells.append(("markdown", source.strip("\n"), list(tags), extra))

    def code(source: str, *tags: str, **extra) -> None:
        cells.append(("code", source.strip("\n"), list(tags), extra))

    text("""
# @title@

REPLACE this by one sentence that promises what the reader will be able to do at the end of the chapter.
""")
    code(INSTALL_CELL, "colab")
    code(
        """
profile = None  # None: what SCPRIMER_PROFILE says, else "standard"
seed = 0
dataset = "pbmc3k"  # a registered name, or the path of your own .h5ad
n_components = 10
""",
        "parameters",
    )
    code("""
import scprimer

run = scprimer.start("@slug@", profile=profile, seed=seed, dataset=dataset, written_for="pbmc3k")
""")

    text(
        """
## What you will learn

REPLACE by three to five objectives, the chapters that the reader should know, and the sources. Cite them from
`book/references.bib` with `` {cite}`key` ``.

The chapter owes the book these methods (each needs a `result` claim that names it):

@methods@

and these reported figures (each re-measured by a claim with `reported="<id>"`, or waived with a reason in the
notebook's metadata, `scprimer.not_applicable["reported:<id>"]`):

@reported@
""",
        "objectives",
    )

    text(
        """
## The data, looked at before it is modelled

REPLACE by what the data are, who made them, and what one should notice. `run.load()` gives the chapter's data set with
raw counts in `X`; in the `smoke` profile it is a simulated stand-in with the same columns.
""",
        "data",
    )
    code("""
import numpy as np

adata = run.load()
print(f"{adata.n_obs:,} cells x {adata.n_vars:,} genes, {(adata.X > 0).mean():.1%} of the entries are not zero")
""")
    code("""
depth = np.asarray(adata.X.sum(1)).ravel()
X = adata.X.multiply(1e4 / depth[:, None]).tocsr().log1p()
top = np.argsort(-X.toarray().var(0))[: run.pick(smoke=300, standard=1000)]
X = X[:, top].toarray()
""")

    text(
        """
## The idea

REPLACE by why the method exists, its equations, and one figure. Every symbol has a row:

| symbol | meaning | name in the code |
|---|---|---|
| $X$ | cells x genes, log-normalised | `X` |
| $Z = U_k S_k$ | cells x components, the scores | `scores` |
""",
        "idea",
    )
    for place in ("what the equations say", "what follows from them"):
        text(
            f"""
**Check yourself.** REPLACE by a question about {place} that one cannot answer from memory?

- A. REPLACE by a tempting answer.
- B. REPLACE by the right one.

<details>
<summary>Answer</summary>

**B.** REPLACE by the reason why this is right, and by the reason why the other answer tempts.

</details>
""",
            "self-check",
        )

    text(
        """
## Build it

REPLACE by the method, in cells of 5 to 20 lines. Cells tagged `export` become `scprimer/methods/@module@.py`
(`scprimer export`), so that later chapters import what was read here: give what they define a docstring with shapes,
units, errors and source, and keep the imports that they need in tagged cells too.
""",
        "build",
    )
    code(
        '''
import numpy as np


def principal_components(X, k):
    """Scores of the first ``k`` principal components.

    Args:
        X: cells x features, float; it is centred here.
        k: number of components, at most the smaller side of ``X``.

    Returns:
        Scores, cells x ``k``, by falling variance. Signs are arbitrary.

    Source: Pearson (1901), by the singular value decomposition of the centred matrix.
    """
    U, S, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    return U[:, :k] * S[:k]  # cells x k
''',
        book.EXPORT_TAG,
    )

    text(
        """
## Run it

REPLACE by what happens when it runs. Long loops use `run.repeat` or `scprimer.run.progress`, whose bars leave no trace.
""",
        "run",
    )
    code("""
scores = principal_components(X, n_components)
spread = scores.var(0, ddof=1)
""")

    text(
        """
## Look

REPLACE by what the reader should see. A figure's cell carries `mystnb` metadata with alt text, a caption and a name.
""",
        "look",
    )
    code(
        """
import matplotlib.pyplot as plt

from scprimer import plots

fig, ax = plt.subplots()
plots.embedding(ax, scores[:, :2], adata.obs["cell_type"])
plt.show()
""",
        mystnb={
            "image": {"alt": "REPLACE: Scatter plot of the cells on the first two components, coloured by cell type."},
            "figure": {
                "caption": "REPLACE: Cells on the first two principal components.",
                "name": "fig-@slug@-components",
            },
        },
    )

    text(
        """
## Check it

REPLACE by the comparison with the reference implementation, on the same data in the same run. Import the peer here.
""",
        "check",
    )
    code("""
from sklearn.decomposition import PCA

reference = PCA(n_components, svd_solver="full").fit_transform(X)
difference = np.abs(np.abs(scores) - np.abs(reference)).max()
run.claim(
    "same-as-sklearn",
    "The components by hand equal those of scikit-learn up to sign",
    difference / np.abs(reference).max(),
    at_most=1e-3,
    kind="reference",
)
difference < 1e-2
""")

    text(
        """
## Compare

REPLACE by the comparison with a trivial baseline and a negative control; a method that loses says so. Here the
baseline is a random projection, and the control shuffles every gene over the cells.
""",
        "compare",
    )
    code("""
from sklearn.metrics import silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from scprimer import metrics

cell_type = adata.obs["cell_type"].to_numpy(dtype=str)


def judge(Z, X, cell_type):
    found = cross_val_score(KNeighborsClassifier(5), Z, cell_type, cv=3)
    return {
        "accuracy": found.mean(),
        "silhouette": silhouette_score(Z, cell_type),
        "first": cross_val_score(KNeighborsClassifier(5), Z[:, :2], cell_type, cv=3).mean(),
        "neighbours": metrics.neighbour_overlap(X, Z, k=15),
        "distances": metrics.distance_correlation(X, Z, n_pairs=5000),
    }
""")
    code("""
def measure(draw, kind="method"):
    rng = np.random.default_rng(draw)
    cells = rng.choice(len(X), size=min(int(0.8 * len(X)), 1000), replace=False)
    x = X[cells]
    if kind == "baseline":
        z = x @ rng.standard_normal((x.shape[1], n_components))
    else:
        z = principal_components(rng.permuted(x, axis=0) if kind == "control" else x, n_components)
    return judge(z, x, cell_type[cells])


repeats = run.pick(smoke=3, standard=10)
ours = run.repeat(measure, repeats, resample="cells")
baseline = run.repeat(lambda draw: measure(draw, "baseline"), repeats, resample="cells")
control = run.repeat(lambda draw: measure(draw, "control"), repeats, resample="cells")
""")
    code("""
words = {
    "accuracy": "The components keep the cell types apart for a nearest-neighbour classifier",
    "silhouette": "Cell types are compact in the space of the components",
    "first": "The first two components alone already separate most cell types",
    "neighbours": "The neighbours of a cell in gene space are still its neighbours",
    "distances": "The distances between cells are kept in their order",
}
bounds = {"accuracy": 0.6, "silhouette": 0.02, "first": 0.4, "neighbours": 0.1, "distances": 0.3}
for key, sentence in words.items():
    beside = {"baseline": baseline[key], "control": control[key]}
    run.claim(key, sentence, ours[key], at_least=bounds[key], method=@method@, **beside)
""")

    text(
        """
## Break it

REPLACE by one deliberate misuse, its symptom, how to notice it and how to mend it. This cell's metadata puts it into the
book's failure gallery.
""",
        "break",
        scprimer={
            "pitfall": {
                "id": "@slug@-raw-counts",
                "title": "REPLACE: components of raw counts",
                "symptom": "REPLACE: the components tell how deeply each cell was sequenced.",
                "notice": "REPLACE: regress the number of counts per cell on the components.",
                "mend": "REPLACE: normalise the depth and take the logarithm first.",
            }
        },
    )
    code("""
from sklearn.linear_model import LinearRegression


def shows_depth(Z):
    return LinearRegression().fit(Z, depth).score(Z, depth)  # share of the depth's variance


raw = shows_depth(principal_components(adata.X[:, top].toarray(), n_components))
sentence = "Components of raw counts give away how deeply a cell was sequenced"
run.claim("raw-is-depth", sentence, raw, at_least=0.85, kind="pitfall")
print(f"variance of the depth explained: {raw:.0%} raw, {shows_depth(scores):.0%} normalised")
""")

    text(
        """
## Claims

REPLACE by the chapter's findings in prose. Numbers are glued, never typed: the cell types were told apart with an
accuracy of {glue:text}`accuracy:.2f` ± {glue:text}`accuracy-sd:.2f` over draws of cells.
""",
        "claims",
    )
    code("""
for kind, found in (("baseline", baseline), ("control", control)):
    run.claim(
        f"{kind}-accuracy",
        {"baseline": "A random projection separates the cell types too", "control": "Shuffled genes do not"}[kind],
        found["accuracy"],
        **({"at_least": 0.2} if kind == "baseline" else {"at_most": 0.6}),
        kind=kind,
    )
""")
    code("run.table()")
    code("run.report()", book.REPORT_TAG)

    text(
        """
## Exercises

REPLACE by three to five exercises, from recall to project. Each stands alone: set-up, solution and check run in a fresh
Python. Solutions are committed and folded; the stub is what is left without the lines between the markers. Every
exercise that is not purely open lists at least one plausible wrong answer, which its check must catch, and one other right
answer, which it must accept.
""",
        "exercises",
    )
    for number, (level, title) in enumerate((("recall", "Centre"), ("apply", "Variance"), ("project", "Widest")), 1):
        _exercise(text, code, number, level, title)

    text(
        """
## Take-aways

REPLACE by what to remember, each with a link to where it was shown.

### What would change our mind

REPLACE by the observation that would overturn each claim.

### Further reading

REPLACE by two to five works with one sentence each.

### Take it further

REPLACE by a question that the chapter leaves open.
""",
        "takeaways",
    )
    return cells


def _exercise(text, code, number: int, level: str, title: str) -> None:
    """One worked example of an exercise: its four cells."""
    id = f"@slug@-{number}"
    body, check, wrong, right = {
        1: (
            "return X - X.mean(0)",
            "np.allclose(centre(X).mean(0), 0)",
            "return X - X.mean()",
            "return X - X.sum(0) / len(X)",
        ),
        2: (
            "return X.var(0, ddof=1)",
            "np.allclose(centre(X), [4.0, 16.0])",
            "return X.var(0)",
            "return np.cov(X.T).diagonal()",
        ),
        3: ("return int(np.argmax(X.var(0)))", "centre(X) == 1", "return 0", "return np.argmax(X.std(0))"),
    }[number]
    function = {1: "centre", 2: "variance", 3: "widest"}[number]
    text(
        f"### Exercise {number}: {title}\n\nREPLACE by the task: what `{function}` takes and what it must return.",
        "exercise",
        scprimer={"exercise": {"id": id, "level": level, "title": f"REPLACE: {title}"}},
    )
    code(
        "import numpy as np\n\nX = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 10.0]])",
        "exercise-setup",
        scprimer={"exercise": id},
    )
    code(
        f"def {function}(X):\n    ### BEGIN SOLUTION\n    {body}\n    ### END SOLUTION",
        "exercise-solution",
        "hide-cell",
        scprimer={"exercise": id, "wrong": [wrong], "right": [right]},
    )
    code(
        f'assert {check.replace("centre", function)}, "REPLACE: say what is wrong with the answer"',
        "exercise-check",
        scprimer={"exercise": id},
    )
