"""The book's look: colours that stay, and drawing helpers that cope with missing labels."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from scprimer import plots


def test_a_cell_type_keeps_its_colour_whatever_stands_beside_it():
    alone = plots.colours(["NK"])["NK"]
    assert plots.colours(["A", "NK", "B cells", "C"])["NK"] == alone
    assert plots.colours(["nk"])["nk"] == alone
    long, short = ["Naive CD4 T", "Memory CD4 T", "CD14+ Mono"], ["CD4 naive", "CD4 memory", "CD14+ Monocytes"]
    assert [*plots.colours(long).values()] == [*plots.colours(short).values()], (
        "one colour, however a data set spells it"
    )


def test_colours_are_distinct_and_do_not_depend_on_the_order():
    names = ["HCC827", "H1975", "H2228", "A549", "H838"]
    forward, backward = plots.colours(names), plots.colours(names[::-1])
    assert forward == backward
    assert len(set(forward.values())) == 5
    assert len(plots.colours([f"type {i}" for i in range(40)])) == 40, "more labels than colours still works"


def luminance(colour):
    channels = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_ink_of_figures_reads_on_the_light_and_on_the_dark_page():
    ink = luminance(plots.INK)
    light, dark = luminance("#ffffff"), luminance("#121212")
    assert (light + 0.05) / (ink + 0.05) >= 4.5
    assert (ink + 0.05) / (dark + 0.05) >= 4


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_embedding_names_its_groups_and_takes_missing_labels(ax, rng):
    xy = rng.normal(size=(30, 2))
    plots.embedding(ax, xy, ["NK"] * 10 + ["B cells"] * 10 + [None] * 10)
    assert {t.get_text() for t in ax.texts} == {"NK", "B cells"}
    figure, other = plt.subplots()
    plots.embedding(other, xy, values=xy[:, 0])
    plt.close(figure)


def test_bars_write_their_values(ax):
    plots.bars(ax, {"PCA": 0.5, "UMAP": 0.25}, errors={"PCA": 0.1}, label="ARI")
    assert [t.get_text().strip() for t in ax.texts] == ["0.50", "0.25"]
