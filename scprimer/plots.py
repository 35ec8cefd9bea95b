"""The book's look: one colour-blind-safe palette, the same cell types in the same colours, readable on a phone.

Figures are drawn on a transparent ground in greys that carry in both themes; nothing here computes a result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# Okabe and Ito (2008), without black, then Paul Tol's muted scheme: distinguishable with any colour vision.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800",
    "#882255", "#44AA99", "#999933", "#AA4499", "#6699CC", "#997700", "#994455", "#117733",
)  # fmt: skip
INK = "#6f7780"  # the grey that reads best on both pages: 4.5:1 on white, over 4:1 on the dark ground
MISSING = "#b8bcc2"

_FAMILIES = {
    # one row a family of cell types: the words that a label may contain, and its colour
    "#0072B2": ("naive cd4", "naive cd4 t", "cd4 naive", "cd4 naive t"),
    "#56B4E9": ("memory cd4", "memory cd4 t", "cd4 memory", "cd4 memory t", "cd4 t", "cd4"),
    "#009E73": ("cd8 t", "cd8", "cytotoxic"),
    "#882255": ("nk", "natural killer"),
    "#E69F00": ("b cell", "b cells", "b"),
    "#D55E00": ("cd14+ mono", "cd14 mono", "cd14+ monocytes", "cd14+ monocyte", "monocyte", "monocytes"),
    "#CC79A7": ("fcgr3a+ mono", "fcgr3a+ monocytes", "cd16 mono", "cd16+ mono", "fcgr3a+ monocyte"),
    "#B8A800": ("dc", "dendritic", "dendritic cells"),
    "#117733": ("platelet", "platelets", "megakaryocytes", "megakaryocyte"),
}
_FIXED = {name: colour for colour, names in _FAMILIES.items() for name in names}


def colours(labels: Sequence) -> dict[str, str]:
    """Label -> colour. Known blood cell types keep theirs in every chapter; others take the rest of the palette in order."""
    names = [str(x) for x in dict.fromkeys(labels)]
    given = {n: _FIXED[n.lower()] for n in names if n.lower() in _FIXED}
    free = [c for c in PALETTE if c not in given.values()] or list(PALETTE)
    for i, name in enumerate(sorted(n for n in names if n not in given)):
        given[name] = free[i % len(free)]
    return {n: given[n] for n in names}


def use_style() -> None:
    """Set matplotlib's defaults for the book (called by :func:`scprimer.start`)."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": (7, 4), "figure.dpi": 100, "savefig.dpi": 150, "savefig.bbox": "tight",
            "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.transparent": True,
            "figure.constrained_layout.use": True,
            "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "legend.fontsize": 10, "legend.frameon": False,
            "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "axes.titlecolor": INK,
            "xtick.color": INK, "ytick.color": INK, "grid.color": INK, "grid.alpha": 0.25,
            "axes.spines.top": False, "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(color=PALETTE), "image.cmap": "viridis", "svg.hashsalt": "scprimer",
        }
    )  # fmt: skip


def embedding(ax, xy: np.ndarray, labels: Sequence | None = None, *, values: np.ndarray | None = None, title: str = "",
              legend: bool = True, size: float | None = None):  # fmt: skip
    """Scatter an embedding on ``ax``.

    Args:
        ax: matplotlib axes.
        xy: cells x 2.
        labels: one label a cell, drawn in the book's colours; missing labels are pale grey.
        values: one number a cell, drawn in viridis; give this or ``labels``.
        title: title of the axes.
        legend: name the labels at their median position, so that no colour key has to be read.
        size: marker area in points squared; default: smaller for more cells.
    """
    import pandas as pd

    xy = np.asarray(xy)
    size = size or float(np.clip(12_000 / max(len(xy), 1), 2, 20))
    order = np.random.default_rng(0).permutation(len(xy))
    style = {"s": size, "linewidths": 0, "rasterized": True}
    if values is not None:
        order = np.argsort(np.asarray(values), kind="stable")
        drawn = ax.scatter(*xy[order].T, c=np.asarray(values)[order], **style)
        ax.figure.colorbar(drawn, ax=ax, shrink=0.7)
    else:
        labels = pd.Series(["" for _ in xy] if labels is None else list(labels)).astype("string")
        known = labels.notna() & (labels != "")
        palette = colours(sorted(labels[known].unique()))
        shade = labels.map(palette).fillna(MISSING).to_numpy(dtype=object)
        ax.scatter(*xy[order].T, c=list(shade[order]), **style)
        if legend:
            for name in palette:
                _name(
                    ax, name, np.median(xy[(labels == name).fillna(False).to_numpy(dtype=bool)], axis=0), palette[name]
                )
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return ax


def _name(ax, text: str, where: np.ndarray, colour: str) -> None:
    from matplotlib.patheffects import withStroke

    ax.text(*where, text, ha="center", va="center", fontsize=9, weight="bold", color="#20252b",
            path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip


def bars(ax, heights: Mapping[str, float], *, errors: Mapping[str, float] | None = None, highlight: Sequence[str] = (),
         label: str = "", digits: int = 2):  # fmt: skip
    """Horizontal bars with their values written out; ``highlight`` names those in colour, the others are grey."""
    names = list(heights)
    tint = [PALETTE[0] if n in highlight or not highlight else MISSING for n in names]
    error = None if errors is None else [errors.get(n, 0.0) for n in names]
    ax.barh(names, [heights[n] for n in names], color=tint, xerr=error, ecolor=INK)
    ax.invert_yaxis()
    for i, n in enumerate(names):
        ax.text(heights[n] + (error[i] if error else 0), i, f" {heights[n]:.{digits}f}", va="center", color=INK)
    ax.set_xlabel(label)
    ax.margins(x=0.15)
    if min(heights.values(), default=0) >= 0:
        ax.set_xlim(left=0)
    return ax


def explore(draw: Callable, **controls) -> None:
    """A figure with controls: live sliders in a notebook that somebody uses, one still figure on the page of the book.

    Args:
        draw: draws and shows one figure; takes the value of each control under its name.
        controls: ipywidgets controls, such as ``resolution=FloatSlider(1.0, min=0.1, max=3)``. Their first values give
            the still figure, which is all that is drawn when the book is made (``SCPRIMER_QUIET`` is set).
    """
    if os.environ.get("SCPRIMER_QUIET"):
        draw(**{name: control.value for name, control in controls.items()})
        return
    import ipywidgets
    from IPython.display import display

    for name, control in controls.items():
        control.description = control.description or name.replace("_", " ")
        control.style.description_width = "initial"
    display(ipywidgets.interactive(draw, **controls))
