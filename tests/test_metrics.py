"""The shared measures, each against a value worked out by hand or another implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scprimer import metrics


def test_overlap_and_jaccard_of_sets():
    assert metrics.overlap("abcd", "cdef") == 0.5
    assert metrics.overlap("ab", "abcdef") == 1.0
    assert metrics.jaccard("abcd", "cdef") == pytest.approx(1 / 3)
    assert math.isnan(metrics.overlap("", "ab"))
    assert math.isnan(metrics.jaccard("", ""))


def test_neighbour_overlap_is_one_for_a_rotation_and_near_chance_for_noise(rng):
    X = rng.normal(size=(300, 5))
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert metrics.neighbour_overlap(X, X @ rotation, k=10) == pytest.approx(1.0)
    chance = 10 / 299
    assert metrics.neighbour_overlap(X, rng.normal(size=(300, 5)), k=10) == pytest.approx(chance, abs=0.02)


def test_neighbours_leave_the_cell_itself_out_and_check_k(rng):
    X = rng.normal(size=(20, 2))
    found = metrics.neighbours(X, 3)
    assert not (found == np.arange(20)[:, None]).any()
    brute = np.argsort(np.linalg.norm(X[:, None] - X[None], axis=2) + np.diag([np.inf] * 20), axis=1)[:, :3]
    assert np.array_equal(np.sort(found), np.sort(brute))
    with pytest.raises(ValueError, match="between 1 and 19"):
        metrics.neighbours(X, 20)


def test_distance_correlation_of_a_scaled_copy_and_of_noise(rng):
    X = rng.normal(size=(200, 4))
    assert metrics.distance_correlation(X, 3 * X) == pytest.approx(1.0)
    assert abs(metrics.distance_correlation(X, rng.normal(size=(200, 4)))) < 0.1


def test_matched_accuracy_ignores_the_names_of_clusters():
    assert metrics.matched_accuracy(list("aabbcc"), [2, 2, 0, 0, 1, 1]) == 1.0
    assert metrics.matched_accuracy(list("aabb"), [0, 1, 0, 1]) == 0.5
    assert metrics.matched_accuracy(list("aaab"), [0, 0, 1, 2]) == 0.75


def test_the_bootstrap_has_the_standard_error_of_the_mean(rng):
    x = rng.normal(size=400)
    draws = metrics.bootstrap(np.mean, x, n=500)
    assert draws.shape == (500,)
    assert draws.std() == pytest.approx(x.std() / 20, rel=0.15)
    pairs = metrics.bootstrap(lambda a, b: float(np.abs(a - b).max()), x, x, n=5)
    assert (pairs == 0).all(), "the same rows are drawn from every array"
