"""The scores of the chapter `metrics`: equal to the references, bounded where they must be, and clear about bad input."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.linear_model import LinearRegression

from scprimer.methods import metrics as m


@pytest.fixture(scope="module")
def cells():
    """240 cells in 6 dimensions: three types, two batches with a shift."""
    rng = np.random.default_rng(0)
    label, batch = np.repeat(["a", "b", "c"], 80), rng.choice(["x", "y"], 240, p=[0.6, 0.4])
    X = rng.normal(size=(240, 6)) + 4 * np.eye(3, 6)[np.repeat([0, 1, 2], 80)]
    X[batch == "y", 4] += 1.0
    return X, batch, label


# ---- agreement of groupings ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(4))
def test_agreement_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 90), rng.integers(0, 3 + seed, 90)
    assert m.ari(a, b) == pytest.approx(sk.adjusted_rand_score(a, b), abs=1e-12)
    assert m.nmi(a, b) == pytest.approx(sk.normalized_mutual_info_score(a, b), abs=1e-12)
    for average in ("macro", "weighted"):
        theirs = sk.f1_score(a, b, average=average, labels=np.unique(a), zero_division=0)
        assert m.f1(a, b, average) == pytest.approx(theirs, abs=1e-12)


def test_equal_groupings_score_one_whatever_the_names():
    a = np.repeat(["u", "v", "w"], [5, 3, 2])
    b = np.repeat([2, 0, 1], [5, 3, 2])
    assert m.ari(a, b) == m.nmi(a, b) == m.f1(a, b, match=True) == 1
    assert m.f1(a, b) == 0  # no name in common
    assert m.ari(["u"] * 4, ["v"] * 4) == m.nmi(["u"] * 4, ["v"] * 4) == 1
    assert m.ari(["u"] * 4, [1, 2, 3, 4]) == 0


def test_matched_f1_gives_a_left_over_cluster_no_name():
    truth = ["a"] * 6 + ["b"] * 4
    clusters = [0] * 4 + [1] * 2 + [2] * 4
    assert m.f1(truth, clusters, match=True) == pytest.approx((2 * 4 / (6 + 4) + 1) / 2)


@pytest.mark.parametrize("a, b", [([1, 2], [1]), ([], []), ([1, None], [1, 2]), ([1.0, np.nan], [1, 2])])
def test_bad_groupings_are_errors(a, b):
    with pytest.raises(ValueError, match="label"):
        m.ari(a, b)


def test_unknown_average_is_an_error():
    with pytest.raises(ValueError, match="average"):
        m.f1([1], [1], "micro")


# ---- silhouettes --------------------------------------------------------------------------------------------------------
def test_silhouette_equals_scikit_learn(cells):
    X, _, label = cells
    label = label.astype(object)
    label[0] = "alone"
    assert np.allclose(m.silhouette(X, label, block=50), sk.silhouette_samples(X, label), atol=1e-9)
    assert m.silhouette(X, label)[0] == 0
    assert m.silhouette_label(X, label) == pytest.approx((sk.silhouette_score(X, label) + 1) / 2)


def test_silhouette_far_from_the_origin_keeps_its_digits(cells):
    X, _, label = cells
    assert np.allclose(m.silhouette(X + 1e5, label), m.silhouette(X, label), atol=1e-6)


def test_silhouette_of_identical_cells_is_zero():
    assert (m.silhouette(np.zeros((6, 2)), [0, 0, 0, 1, 1, 1]) == 0).all()


def test_batch_silhouette_leaves_out_types_in_one_batch(cells):
    X, batch, label = cells
    batch = np.where(label == "c", "x", batch)
    kept = label != "c"
    assert m.silhouette_batch(X, batch, label) == pytest.approx(m.silhouette_batch(X[kept], batch[kept], label[kept]))


def test_batch_silhouette_takes_a_single_type(cells):
    X, batch, label = cells
    one = label == "a"
    expected = 1 - np.abs(sk.silhouette_samples(X[one], batch[one])).mean()
    assert m.silhouette_batch(X[one], batch[one], label[one]) == pytest.approx(expected)


def test_mean_distance_sees_nested_batches():
    rng = np.random.default_rng(1)
    batch = np.repeat(["a", "b", "c", "d"], 50)
    X = rng.normal(size=(200, 4))
    X[100:, 0] += 10
    one = np.full(200, "t")
    assert m.silhouette_batch(X, batch, one) > 0.9
    assert m.silhouette_batch(X, batch, one, "mean") < 0.6


# ---- neighbourhoods -----------------------------------------------------------------------------------------------------
def test_weights_have_the_perplexity_and_survive_ties():
    rng = np.random.default_rng(2)
    distance = np.sort(rng.gamma(5, size=(200, 59)), axis=1) + 3
    distance[0, 0] = 1e-3  # one very near neighbour
    weight = m.neighbour_weights(distance, 20)
    assert np.allclose(weight.sum(1), 1)
    assert np.allclose(np.exp(-(weight * np.log(weight + 1e-300)).sum(1)), 20, rtol=1e-4)
    assert np.allclose(m.neighbour_weights(np.ones((3, 10)), 4), 0.1)


def test_lisi_counts_labels():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 3))
    two = rng.permutation(np.repeat(["x", "y"], 200))
    assert 1.8 < np.median(m.lisi(X, two)) < 2
    X[two == "y"] += 100
    assert np.allclose(m.lisi(X, two), 1)
    assert m.ilisi(X, two) == pytest.approx(0, abs=1e-9) and m.clisi(X, two) == pytest.approx(1)


def test_given_neighbours_and_more_of_them_than_needed_change_nothing(cells):
    X, batch, label = cells
    near = m.knn(X, 90)
    assert m.ilisi(X, batch, 30) == pytest.approx(m.ilisi(None, batch, 30, neighbours=near))
    assert m.kbet(X, batch, k=25) == m.kbet(None, batch, k=25, neighbours=near)
    assert m.graph_connectivity(X, label) == m.graph_connectivity(None, label, neighbours=near)


def test_kbet_keeps_its_level_and_sees_a_shift():
    rng = np.random.default_rng(4)
    X, batch = rng.normal(size=(1500, 2)), rng.choice(["x", "y"], 1500, p=[0.7, 0.3])
    assert 0.9 < m.kbet(X, batch) < 1
    X[batch == "y"] += 5
    assert m.kbet(X, batch) < 0.05


def test_kbet_within_types_does_not_mind_composition():
    rng = np.random.default_rng(5)
    label = np.repeat(["a", "b"], 300)
    X = rng.normal(size=(600, 2)) + 20 * (label == "b")[:, None]
    batch = np.where(rng.random(600) < np.where(label == "a", 0.8, 0.3), "x", "y")
    assert m.kbet(X, batch) < 0.3 and m.kbet(X, batch, label) > 0.85


def test_kbet_within_types_leaves_out_what_cannot_be_tested(cells):
    X, batch, label = cells
    label = label.copy()
    label[:5] = "rare"
    batch = np.where(label == "c", "x", batch)
    kept = np.isin(label, ["a", "b"])
    assert m.kbet(X, batch, label) == pytest.approx(m.kbet(X[kept], batch[kept], label[kept]))


def test_connectivity_of_a_type_in_two_places():
    X = (
        np.r_[np.zeros(30), np.full(10, 100.0), np.full(40, 200.0)][:, None]
        + np.random.default_rng(0).normal(size=(80, 1)) * 0.1
    )
    label = np.repeat(["a", "b"], 40)
    assert m.graph_connectivity(X, label, k=9) == pytest.approx((30 / 40 + 1) / 2, abs=0.1)


# ---- centroids ----------------------------------------------------------------------------------------------------------
def test_batch_variance_is_regression_on_the_batch(cells):
    X, batch, _ = cells
    design = pd.get_dummies(batch).to_numpy(float)
    scores, total = X - X.mean(0), ((X - X.mean(0)) ** 2).sum(0)
    r2 = [LinearRegression().fit(design, s).score(design, s) for s in scores.T]
    assert m.batch_variance(X, batch) == pytest.approx((r2 * total).sum() / total.sum())
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    assert m.batch_variance(X @ rotation, batch) == pytest.approx(m.batch_variance(X, batch))
    assert m.batch_variance(X, batch, 6) == pytest.approx(m.batch_variance(X, batch))
    assert m.batch_variance(X, batch, 2) != pytest.approx(m.batch_variance(X, batch))


def test_pcr_comparison_is_one_after_centring_and_never_negative(cells):
    X, batch, _ = cells
    centred = X - np.stack([X[batch == b].mean(0) for b in batch])
    assert m.pcr_comparison(X, centred, batch) == pytest.approx(1)
    assert m.pcr_comparison(centred, X, batch) == 0
    assert m.mpbd(centred, batch) == pytest.approx(0, abs=1e-12)


def test_mpbd_has_a_unit():
    X = np.array([[0.0], [2.0], [10.0], [12.0]])
    batch = ["x", "x", "y", "y"]
    assert m.mpbd(X, batch) == pytest.approx(10) and m.mpbd(3 * X, batch) == pytest.approx(10)
    assert m.mpbd(3 * X, batch, relative=False) == pytest.approx(30)


def test_mpbd_within_types_does_not_mind_composition(cells):
    X, _, label = cells
    rng = np.random.default_rng(6)
    batch = np.where(rng.random(240) < np.where(label == "a", 0.8, 0.3), "x", "y")
    X = X.copy()
    X[:, 4] = rng.normal(size=240)
    assert m.mpbd(X, batch, label) < 0.7 * m.mpbd(X, batch)


# ---- all of them --------------------------------------------------------------------------------------------------------
def test_scores_and_the_aggregate(cells):
    X, batch, label = cells
    found = m.scores(X, batch, label, X, k=60)
    assert list(found.index) == [*m.BIOLOGY, *m.MIXING, "biology", "mixing", "total"]
    assert found.between(0, 1).all()
    assert found["total"] == pytest.approx(0.6 * found[list(m.BIOLOGY)].mean() + 0.4 * found[list(m.MIXING)].mean())


def test_scores_that_need_a_missing_column_stay_empty(cells):
    X, batch, label = cells
    assert m.scores(X, batch, k=60)[["iLISI"]].notna().all() and np.isnan(m.scores(X, batch, k=60)["total"])
    assert m.scores(X, labels=label, k=60)[["biology"]].notna().all()
    assert np.isnan(m.scores(X, labels=label, k=60)["mixing"])
    assert m.scores(X, k=60).isna().all()


def test_between_two_anchors():
    assert m.between(0.5, 0.2, 0.8) == pytest.approx(0.5)
    assert m.between(0.02, 0.08, 0.02) == pytest.approx(1)
    assert np.isnan(m.between(0.5, 0.3, 0.3))


# ---- bad input ----------------------------------------------------------------------------------------------------------
BATCH_SCORES = {
    "ilisi": lambda X, b, y: m.ilisi(X, b, 20),
    "kbet": lambda X, b, y: m.kbet(X, b, k=20),
    "kbet within": lambda X, b, y: m.kbet(X, b, y),
    "silhouette": lambda X, b, y: m.silhouette_batch(X, b, y),
    "variance": lambda X, b, y: m.batch_variance(X, b),
    "mpbd": lambda X, b, y: m.mpbd(X, b),
    "scores": lambda X, b, y: m.scores(X, b, y, k=20),
}
TYPE_SCORES = {
    "clisi": lambda X, b, y: m.clisi(X, y, 20),
    "silhouette": lambda X, b, y: m.silhouette_label(X, y),
    "connectivity": lambda X, b, y: m.graph_connectivity(X, y),
    "scores": lambda X, b, y: m.scores(X, b, y, k=20),
}


@pytest.mark.parametrize("score", BATCH_SCORES.values(), ids=BATCH_SCORES)
@pytest.mark.parametrize(
    "change, says",
    [
        (lambda X, b, y: (X, np.full(len(b), "x"), y), "one group"),
        (lambda X, b, y: (X, np.r_[["z"], b[1:]], y), "'z' has 1 cell"),
        (lambda X, b, y: (X, b[1:], y), "labels for 240 cells"),
        (lambda X, b, y: (X, np.where(np.arange(240) == 3, "", b), y), "no label"),
        (lambda X, b, y: (np.where(np.arange(240)[:, None] == 3, np.nan, X), b, y), "NaN"),
    ],
    ids=["one batch", "a batch with one cell", "length", "missing", "nan"],
)
def test_bad_batches_are_errors(cells, score, change, says):
    with pytest.raises(ValueError, match=says):
        score(*change(*cells))


@pytest.mark.parametrize("score", TYPE_SCORES.values(), ids=TYPE_SCORES)
def test_one_type_cannot_be_told_from_others(cells, score):
    X, batch, _ = cells
    with pytest.raises(ValueError, match="one group"):
        score(X, batch, np.full(len(X), "a"))


@pytest.mark.parametrize("score", [m.silhouette_batch, m.kbet, m.mpbd])
def test_confounded_batch_and_label_are_an_error(cells, score):
    X, _, label = cells
    with pytest.raises(ValueError, match="no label"):
        score(X, label, label)


@pytest.mark.parametrize("score", [m.silhouette_batch, m.kbet, m.mpbd])
def test_labels_of_another_length_are_an_error(cells, score):
    X, batch, label = cells
    with pytest.raises(ValueError, match="labels"):
        score(X, batch, label[1:])


@pytest.mark.parametrize("k", [0, 1, 241])
def test_a_neighbourhood_that_is_not_there_is_an_error(cells, k):
    X, *_ = cells
    with pytest.raises(ValueError, match="k="):
        m.knn(X, k)


def test_too_few_given_neighbours_are_an_error(cells):
    X, batch, _ = cells
    with pytest.raises(ValueError, match="compute them with knn"):
        m.kbet(X, batch, k=50, neighbours=m.knn(X, 20))
    with pytest.raises(ValueError, match="perplexity"):
        m.lisi(X, batch, k=20, perplexity=19)


@pytest.mark.parametrize("X", [np.zeros(5), np.zeros((0, 3)), np.array([[np.inf, 1.0]])])
def test_what_is_no_embedding_is_an_error(X):
    with pytest.raises(ValueError, match="X"):
        m.checked(X)


def test_other_bad_settings_are_errors(cells):
    X, batch, label = cells
    with pytest.raises(ValueError, match="between"):
        m.silhouette(X, label, "furthest")
    with pytest.raises(ValueError, match="components"):
        m.batch_variance(X, batch, 7)
    with pytest.raises(ValueError, match="same place"):
        m.batch_variance(np.ones((240, 2)), batch)


# ---- the reference program ----------------------------------------------------------------------------------------------
def test_scores_equal_those_of_scib_metrics(cells):
    scib = pytest.importorskip("scib_metrics")
    from scib_metrics.nearest_neighbors import NeighborsResults

    X, batch, label = cells
    index, distance = near = m.knn(X, 60)
    itself = np.arange(len(X))[:, None]
    theirs = NeighborsResults(indices=np.hstack([itself, index]), distances=np.hstack([0.0 * itself, distance]))
    assert np.allclose(m.lisi(X, batch, 60, neighbours=near), scib.lisi_knn(theirs, batch), atol=1e-3)
    assert m.ilisi(X, batch, 60) == pytest.approx(scib.ilisi_knn(theirs, batch), abs=1e-3)
    assert m.clisi(X, label, 60) == pytest.approx(scib.clisi_knn(theirs, label), abs=1e-3)
    assert m.kbet(X, batch, k=60) == pytest.approx(scib.kbet(theirs, batch)[0], abs=1e-6)
    assert m.graph_connectivity(X, label, 60) == pytest.approx(scib.graph_connectivity(theirs, label))
