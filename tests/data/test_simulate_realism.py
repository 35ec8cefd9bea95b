"""The statistics that hold simulations against data, and how near the stand-in of pbmc3k comes to it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scprimer import data
from scprimer.data.simulate import draw_realism, populations, standin, statistics


def test_statistics_of_poisson_counts_are_those_of_theory():
    rng = np.random.default_rng(0)
    mean = np.geomspace(0.05, 20, 60)
    adata = AnnData(sp.csr_matrix(rng.poisson(mean, (4000, 60)).astype(np.float32)))
    found = statistics(adata, n_correlated=60)
    genes = found["genes"]
    assert np.allclose(genes["mean"], mean, atol=5 * np.sqrt(mean / 4000))
    assert np.allclose(genes["zeros"], np.exp(-mean), atol=5 * 0.5 / np.sqrt(4000))
    assert abs(genes["dispersion"][mean > 2].mean()) < 0.01
    assert found["zeros"] == pytest.approx(np.exp(-mean).mean(), abs=0.01)
    assert found["umis"] == pytest.approx(mean.sum(), rel=0.01)
    assert found["correlations"].std() == pytest.approx(found["correlation_noise"], rel=0.25)
    assert np.isnan(found["cells"]["mito"]).all()
    assert "silhouettes" not in found


def test_dispersion_correlation_and_separation_are_noticed():
    kwargs = {
        "n_cells": 800,
        "n_genes": 400,
        "n_types": 3,
        "markers_per_type": 25,
        "library_size": (4000, 0.2),
        "seed": 1,
    }
    weak, strong = (statistics(populations(**kwargs, marker_log2fc=fc)) for fc in (0.2, 4.0))
    assert strong["silhouettes"]["silhouette"].mean() > weak["silhouettes"]["silhouette"].mean() + 0.2
    assert strong["silhouettes"]["cells"].sum() == 800
    linked = statistics(populations(**kwargs, programs=(3, 30, 1.0)))
    assert linked["correlations_within"].std() > 2 * weak["correlations_within"].std()
    calm, wild = (statistics(populations(**kwargs, dispersion=d))["genes"].query("mean > 3") for d in (0.02, 0.8))
    assert wild["dispersion"].median() - calm["dispersion"].median() > 0.5


def test_statistics_leave_their_input_alone_and_need_counts():
    adata = populations(100, 100, 2, markers_per_type=3, seed=1)
    before = adata.X.copy()
    statistics(adata)
    assert (before != adata.X).nnz == 0
    with pytest.raises(ValueError, match="no counts in X"):
        statistics(AnnData(sp.csr_matrix((5, 4), dtype=np.float32)))


def test_the_stand_in_of_pbmc3k_comes_near_the_data(mirror):
    """The statements of the figure, with room for what simulations do not reach: see the chapters."""
    real = statistics(data.load("pbmc3k"))
    simulated = statistics(standin("pbmc3k", n_cells=1000, n_genes=13_714, jackpots=3))
    assert simulated["zeros"] == pytest.approx(real["zeros"], abs=0.015)
    assert simulated["umis"] == pytest.approx(real["umis"], rel=0.15)
    assert simulated["umis_log_sd"] == pytest.approx(real["umis_log_sd"], abs=0.1)
    assert simulated["cells"]["genes"].median() == pytest.approx(real["cells"]["genes"].median(), rel=0.2)
    assert simulated["cells"]["mito"].median() == pytest.approx(real["cells"]["mito"].median(), rel=0.3)
    for low, high in ((0.3, 1), (1, 4), (4, 100)):
        ours, theirs = (
            s["genes"][s["genes"]["mean"].between(low, high)]["dispersion"].median() for s in (simulated, real)
        )
        assert 0.5 < ours / theirs < 2
    assert simulated["silhouettes"]["silhouette"].mean() == pytest.approx(
        real["silhouettes"]["silhouette"].mean(), abs=0.12
    )
    # where it is not realistic, and the figure shows it: real genes correlate more within a type
    assert real["correlations_within"].std() > 1.3 * simulated["correlations_within"].std()


def test_the_figure_shows_both_in_six_panels():
    import matplotlib.pyplot as plt

    from scprimer import plots

    plots.use_style()
    one = standin("pbmc3k", n_cells=150)
    other = populations(150, 300, 3, markers_per_type=10, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_realism(one, other, names=("first", "second"))
        figure.canvas.draw()
        unlabelled = draw_realism(one, AnnData(other.X.copy()))
        unlabelled.canvas.draw()
    assert len(figure.axes) == 6
    assert all(ax.get_xlabel() and ax.get_title() for ax in figure.axes)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["first", "second"]
    plt.close("all")
