"""What the chapter on supervised learning exports: equality with scikit-learn, shapes, no leaks, and clear errors."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, recall_score
from sklearn.tree import DecisionTreeClassifier

from scprimer.methods import supervised as s

TYPES = np.array(["a", "b", "c"])


@pytest.fixture(scope="module")
def blobs():
    """300 cells x 6 features in three overlapping clouds, and their types."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    return rng.normal(size=(300, 6)) + 1.5 * np.eye(6)[y], TYPES[y]


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    rate = np.exp(rng.normal(0, 1, 200)) * np.exp(rng.normal(0, 0.5, (120, 1)))
    return sp.csr_matrix(rng.poisson(rate))


# ---- the split ---------------------------------------------------------------------------------------------------------
def test_split_is_stratified_disjoint_and_whole():
    labels = np.repeat(["big", "middle", "small"], [200, 100, 20])
    parts = s.split_70_15_15(labels, 3)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(320))
    assert [list(pd.Series(labels[p]).value_counts()[["big", "middle", "small"]]) for p in parts] == [
        [140, 70, 14],
        [30, 15, 3],
        [30, 15, 3],
    ]
    again, other = s.split_70_15_15(labels, 3), s.split_70_15_15(labels, 4)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again)) and not np.array_equal(parts[2], other[2])


def test_split_of_rare_types_follows_its_rule():
    labels = np.array(["big"] * 20 + ["three"] * 3 + ["two"] * 2 + ["one"])
    training, validation, test = s.split_70_15_15(labels)
    assert [(labels[p] == "three").sum() for p in (training, validation, test)] == [1, 1, 1]
    assert set(labels[validation]) | set(labels[test]) == {"big", "three"}
    assert (labels[training] == "two").sum() == 2 and (labels[training] == "one").sum() == 1


@pytest.mark.parametrize("labels", [["a"] * 9, ["a", "a", "b", "b"], [], ["a"] * 5 + [None], ["a"] * 5 + [""] * 5,
                                    ["a"] * 5 + [float("nan")]])  # fmt: skip
def test_split_refuses_what_it_cannot_split(labels):
    with pytest.raises(ValueError, match=r"types|no label"):
        s.split_70_15_15(labels)


# ---- features ----------------------------------------------------------------------------------------------------------
def test_pipeline_learns_from_the_cells_it_is_fitted_on_alone(counts):
    space = s.features(50, 5).fit(counts[:80])
    alone = space.transform(counts[100:101])
    assert alone.shape == (1, 5)
    assert np.allclose(alone, space.transform(counts[80:])[20:21])  # the other cells of a batch have no say
    assert np.allclose(space.transform(counts[:80]).mean(0), 0, atol=1e-6)  # centred on the training cells
    assert abs(space.transform(counts[80:]).mean(0)).max() > 1e-3


def test_scale_uses_the_moments_of_the_training_cells():
    X = np.array([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    scale = s.Scale(cut=3).fit(X)
    assert np.allclose(scale.transform(X), [[-1, 0], [0, 0], [1, 0]])
    assert np.allclose(scale.transform(np.array([[100.0, 6.0]])), [[3, 1]])  # cut off; a constant gene is only centred


def test_components_and_genes_are_as_many_as_there_can_be(counts):
    assert s.features(10_000, 500).fit_transform(counts[:30]).shape[1] == 29
    genes = s.VariableGenes(20).fit(s.LogCP10K().fit_transform(counts)).genes_
    assert len(genes) == 20 and (counts[:, genes].getnnz(axis=0) >= 3).all()


def test_features_survive_clone_and_refuse_bad_counts(counts):
    space = clone(s.features(50, 5)).fit(counts)
    with pytest.raises(ValueError, match="199 genes, but the training cells had 200"):
        space.transform(counts[:, :199])
    with pytest.raises(ValueError, match="not negative"):
        s.features().fit(-counts)
    with pytest.raises(ValueError, match="finite"):
        s.features().fit(sp.csr_matrix([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="no molecule"):
        space.transform(sp.csr_matrix((1, 200)))
    with pytest.raises(ValueError, match="no gene"):
        s.VariableGenes().fit(sp.csr_matrix(np.eye(3)))


def test_shared_genes_are_in_one_order_and_never_filled():
    names = [f"g{i}" for i in range(60)]
    a = ad.AnnData(np.arange(120.0).reshape(2, 60), var=pd.DataFrame(index=names))
    b = a[:, names[::-1]][:, :55].copy()
    first, second = s.shared_genes(a, b)
    assert list(first.var_names) == list(second.var_names) == names[5:]
    assert np.array_equal(first.X, second.X)
    with pytest.raises(ValueError, match="55 genes are shared, 56 are needed"):
        s.shared_genes(a, b, least=56)


# ---- scores ------------------------------------------------------------------------------------------------------------
def test_scores_equal_sklearn():
    rng = np.random.default_rng(2)
    truth, predicted = TYPES[rng.integers(3, size=90)], np.array(["a", "b", "other"])[rng.integers(3, size=90)]
    table = s.per_class(truth, predicted)
    kinds = list(table.index)
    assert kinds == ["a", "b", "c"] and table["cells"].sum() == 90
    assert np.allclose(table["recall"], recall_score(truth, predicted, labels=kinds, average=None))
    theirs = f1_score(truth, predicted, labels=kinds, average="macro", zero_division=0)
    assert s.macro_f1(truth, predicted) == pytest.approx(theirs)
    assert table.loc["c", "f1"] == 0 and (table["low"] <= table["recall"]).all() and (table["high"] < 1).all()


def test_scores_refuse_lists_of_different_length():
    with pytest.raises(ValueError, match="3 true and 2 predicted"):
        s.per_class(["a", "b", "c"], ["a", "b"])


# ---- classifiers -------------------------------------------------------------------------------------------------------
def test_softmax_regression_equals_sklearn(blobs):
    X, y = blobs
    ours, theirs = s.SoftmaxRegression(C=0.3).fit(X, y), LogisticRegression(C=0.3, tol=1e-9, max_iter=5000).fit(X, y)
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-4)
    assert np.allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert np.isfinite(ours.predict_proba(1e6 * X)).all()


def test_best_split_equals_the_root_of_sklearns_tree(blobs):
    X, y = blobs
    tree = DecisionTreeClassifier(max_depth=1).fit(X, y).tree_
    found = [s.best_split(column, y) for column in X.T]
    best = int(np.argmax([decrease for _, decrease in found]))
    assert best == tree.feature[0] and found[best][0] == pytest.approx(tree.threshold[0], abs=1e-6)
    assert s.best_split([1, 1, 2, 2], ["a", "a", "b", "b"]) == (1.5, 0.5)
    assert np.isnan(s.best_split([1, 1], ["a", "b"])[0]) and s.best_split([1, 1], ["a", "b"])[1] == 0


def test_gain_is_twice_the_drop_of_the_quadratic_loss():
    rng = np.random.default_rng(3)
    g, h, left = rng.normal(size=20), rng.uniform(0.1, 1, 20), rng.random(20) < 0.4

    def loss(rows):
        v = s.leaf_value(g[rows], h[rows], 0.7)
        return g[rows].sum() * v + (h[rows].sum() + 0.7) * v**2 / 2

    drop = loss(np.ones(20, bool)) - loss(left) - loss(~left)
    assert s.split_gain(g, h, left, 0.7) == pytest.approx(2 * drop)


def test_svm_dual_stays_below_the_primal(blobs):
    X, y = blobs
    side, rng = np.where(y == "a", 1.0, -1.0), np.random.default_rng(4)
    alpha = rng.uniform(0, 0.01, len(y))
    alpha[side > 0] *= alpha[side < 0].sum() / alpha[side > 0].sum()
    primal, dual = s.svm_objectives(X, side, 0.1, alpha)
    assert dual < primal


@pytest.mark.parametrize("model", [s.Forest(15), s.BoostedTrees(10), s.NeuralNet(16, epochs=15, device="cpu"),
                                   s.SoftmaxRegression()])  # fmt: skip
def test_classifiers_learn_and_give_probabilities(model, blobs):
    X, y = blobs
    fitted = clone(model).fit(X[:200], y[:200])
    p = fitted.predict_proba(X[200:])
    assert p.shape == (100, 3) and np.allclose(p.sum(1), 1, atol=1e-5) and list(fitted.classes_) == list(TYPES)
    assert np.mean(fitted.predict(X[200:]) == y[200:]) > 0.6
    nonsense = clone(model).fit(X[:200], np.random.default_rng(0).permutation(y[:200]))
    assert np.mean(nonsense.predict(X[200:]) == y[200:]) < 0.55


def test_the_network_is_repeatable_and_leaves_the_random_state_alone(blobs):
    import torch

    X, y = blobs
    before = torch.random.get_rng_state()
    p = [s.NeuralNet(8, 0.3, epochs=3, seed=seed, device="cpu").fit(X, y).predict_proba(X) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.allclose(p[0], p[1]) and not np.allclose(p[0], p[2])
    watched = s.NeuralNet(8, 0.3, epochs=3, seed=1, device="cpu").fit(X, y, validation=(X[:20], y[:20]))
    assert len(watched.history_.validation) == 3 and np.allclose(watched.predict_proba(X), p[0], atol=1e-5)


def test_tune_keeps_the_best_on_validation(blobs):
    X, y = blobs
    models = [DecisionTreeClassifier(max_depth=1), LogisticRegression(), DecisionTreeClassifier(max_depth=1)]
    winner, accuracies = s.tune(models, (X[:200], y[:200]), (X[200:], y[200:]))
    assert isinstance(winner, LogisticRegression) and accuracies[1] == accuracies.max() and len(accuracies) == 3
    for bad in (([], (X, y), (X, y)), (models, (X, ["a"] * 300), (X, y)), (models, (X, y), (X[:0], y[:0]))):
        with pytest.raises(ValueError, match="at least one candidate"):
            s.tune(*bad)


def test_every_method_has_as_many_candidates():
    grids = s.candidates(trees=5, rounds=2, epochs=1, device="cpu")
    assert {len(grid) for name, grid in grids.items() if name != "majority"} == {4}
