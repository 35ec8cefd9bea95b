"""What the chapter on self-supervised learning exports: losses, augmentations, probes, diagnostics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from scprimer.methods import self_supervised as ssl


@pytest.fixture
def views():
    torch.manual_seed(0)
    a = torch.randn(8, 5, dtype=torch.float64)
    return a, a + 0.3 * torch.randn(8, 5, dtype=torch.float64)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    counts = torch.poisson(torch.full((64, 30), 3.0))
    return counts, counts.sum(1) + 10


def encoder(n_genes=30):
    torch.manual_seed(0)
    return ssl.Encoder(np.zeros(n_genes), 1.0, n_hidden=16, n_latent=8)


# ---- losses ------------------------------------------------------------------------------------------------------------
def test_nt_xent_is_the_cross_entropy_of_the_other_view(views):
    a, b = views
    h = torch.nn.functional.normalize(torch.cat([a, b]), dim=1).numpy()
    terms = []
    for i in range(16):
        others = [k for k in range(16) if k != i]
        scores = np.exp(h[others] @ h[i] / 0.4)
        terms.append(-np.log(scores[others.index((i + 8) % 16)] / scores.sum()))
    assert ssl.nt_xent(a, b, 0.4).item() == pytest.approx(np.mean(terms), abs=1e-12)


def test_nt_xent_of_equal_projections_is_the_log_of_the_others():
    same = torch.ones(20, 3, dtype=torch.float64)
    assert ssl.nt_xent(same, same).item() == pytest.approx(np.log(39))


def test_nt_xent_prefers_views_that_agree(views):
    a, b = views
    assert ssl.nt_xent(a, b) < ssl.nt_xent(a, b.flip(0))


def test_barlow_twins_is_zero_for_independent_features_that_agree():
    torch.manual_seed(0)
    h = torch.randn(50, 4, dtype=torch.float64)
    h = torch.linalg.qr(h - h.mean(0))[0]  # centred and orthogonal
    assert ssl.barlow_twins(h, 3 * h).item() == pytest.approx(0, abs=1e-12)
    copies = h[:, :1].repeat(1, 4)
    assert ssl.barlow_twins(copies, copies, redundancy=0.5).item() == pytest.approx(0.5 * 12)


def test_info_nce_equals_cross_entropy_over_key_and_queue(views):
    a, b = views
    queue = torch.randn(11, 5, dtype=torch.float64)
    q, k, s = (torch.nn.functional.normalize(h, dim=1).numpy() for h in (a, b, queue))
    literal = [-np.log(np.exp(x @ y / 0.3) / (np.exp(x @ y / 0.3) + np.exp(s @ x / 0.3).sum())) for x, y in zip(q, k)]
    assert ssl.info_nce(a, b, queue, 0.3).item() == pytest.approx(np.mean(literal), abs=1e-12)


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((1, 3), (1, 3)), ((4,), (4,))])
def test_losses_say_what_views_they_need(shapes):
    a, b = (torch.ones(s) for s in shapes)
    for loss in (ssl.nt_xent, ssl.barlow_twins):
        with pytest.raises(ValueError, match="two views of the same cells"):
            loss(a, b)


def test_masked_error_counts_hidden_entries_only():
    x, hidden = torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool)
    hidden[0, 1] = hidden[2, 3] = True
    guess = torch.full((3, 4), 9.0)
    guess[0, 1], guess[2, 3] = 1.0, 3.0
    assert ssl.masked_error(guess, x, hidden).item() == pytest.approx((1 + 9) / 2)
    assert ssl.masked_error(guess, x, torch.zeros_like(hidden)).item() == 0  # nothing hidden is no division by zero


def test_hidden_entries_are_expressed_unless_zeros_may_be_hidden():
    torch.manual_seed(0)
    counts = (torch.rand(200, 50) < 0.1).float()
    assert (counts[ssl.choose_hidden(counts, 0.3)] > 0).all()
    either = ssl.choose_hidden(counts, 0.3, zeros=True)
    assert (counts[either] == 0).any() and either.float().mean() == pytest.approx(0.3, abs=0.03)


# ---- augmentations -----------------------------------------------------------------------------------------------------
def test_thinning_keeps_whole_molecules_and_the_mean(batch):
    torch.manual_seed(1)
    counts, size = batch
    kept, fewer = ssl.thinned(counts, size, low=0.5)
    assert (kept <= counts).all() and torch.equal(kept, kept.round())
    share = (fewer / size)[:, None]
    assert (share >= 0.5).all() and (share <= 1).all()
    assert (kept / share).mean().item() == pytest.approx(counts.mean().item(), rel=0.05)


@pytest.mark.parametrize("name", list(ssl.AUGMENTATIONS))
def test_views_have_the_form_of_the_batch_and_differ_from_it(batch, name):
    torch.manual_seed(1)
    counts, size = ssl.view(batch, (name,))
    assert counts.shape == batch[0].shape and size.shape == batch[1].shape and (counts >= 0).all()
    assert not torch.equal(counts, batch[0])
    assert torch.equal(ssl.view(batch, ())[0], batch[0])


def test_an_unknown_augmentation_is_named(batch):
    with pytest.raises(ValueError, match="'cropping'; there are thinning"):
        ssl.view(batch, ("thinning", "cropping"))


# ---- models ------------------------------------------------------------------------------------------------------------
def test_the_encoder_says_how_many_genes_it_wants():
    with pytest.raises(ValueError, match="12 genes were given to an encoder of 30"):
        encoder()(torch.ones(4, 12), torch.full((4,), 100.0))


def test_the_encoder_sees_shares_and_not_depth(batch):
    counts, size = batch
    f = encoder().features
    assert torch.allclose(f(counts, size), f(2 * counts, 2 * size), atol=1e-5)


def test_moco_follows_by_momentum_and_fills_its_queue(batch):
    model = ssl.MoCo(encoder(), 8, 8, 4, n_queue=100, momentum=0.75)
    with torch.no_grad():
        model.head[0].weight.add_(1.0)
    before, oldest = model.slow[1][0].weight.clone(), model.queue.clone()
    ssl.moco_task(model, batch, 0).backward()
    assert torch.allclose(model.slow[1][0].weight, before + 0.25, atol=1e-6)
    assert all(p.grad is None for p in model.slow.parameters())
    assert len(model.queue) == 100 and torch.equal(model.queue[64:], oldest[:36])


@pytest.mark.parametrize("task", ["simclr_task", "barlow_task", "masked_task", "denoising_task", "count_task"])
def test_every_task_reaches_the_encoder(batch, task):
    model = ssl.WithHead(encoder(), 8, 16, 30)
    getattr(ssl, task)(model, batch, 0).backward()
    assert model.encoder.layers[0].weight.grad.abs().sum() > 0


# ---- probes ------------------------------------------------------------------------------------------------------------
def classes(sizes, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.repeat(name, n) for name, n in sizes.items()])
    centres = {name: rng.normal(0, 3, 6) for name in sizes}
    return np.array([centres[t] for t in truth]) + rng.normal(size=(len(truth), 6)), truth


def test_the_split_shares_no_cell_keeps_the_budget_and_skips_the_unknown():
    _, truth = classes({"a": 40, "b": 30, "rare": 3, "": 20})
    train, test = ssl.labelled_split(truth, 5, seed=1)
    assert not set(train) & set(test)
    assert pd.Series(truth[train]).value_counts().to_dict() == {"a": 5, "b": 5}
    assert set(truth[test]) == {"a", "b"}
    assert set(ssl.labelled_split(truth, None, seed=1)[1]) == set(test)  # the budget does not move the test cells


def test_a_split_needs_two_classes():
    with pytest.raises(ValueError, match="at least two"):
        ssl.labelled_split(np.array(["a"] * 10 + ["b"] * 3 + [""] * 5))


def test_the_linear_probe_equals_scikit_learn():
    Z, truth = classes({"a": 30, "b": 30, "c": 30})
    Z = ssl.as_features(Z + np.random.default_rng(1).normal(0, 3, Z.shape))
    ours, names = ssl.linear_probe(Z[::2], truth[::2], Z[1::2])
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(Z[::2], truth[::2])
    assert list(names) == ["a", "b", "c"]
    assert np.allclose(ours, theirs.predict_proba(Z[1::2]), atol=2e-3)
    with pytest.raises(ValueError, match="two classes"):
        ssl.linear_probe(Z[:5], np.array(["a"] * 5), Z)


def test_probes_read_classes_that_are_there_and_none_that_are_not():
    Z, truth = classes({"a": 60, "b": 60, "c": 60})
    good = ssl.probe(Z, truth, 10)
    bad = ssl.probe(np.random.default_rng(0).normal(size=Z.shape), truth, 10)
    assert min(good.values()) > 0.9 and bad["linear"] < 0.6 and bad["auc"] < 0.7


def test_readable_finds_a_number_that_is_there():
    Z = np.random.default_rng(0).normal(size=(400, 5))
    assert ssl.readable(Z, Z @ np.arange(5.0)) > 0.95
    assert ssl.readable(Z, np.random.default_rng(1).normal(size=400)) < 0.1


# ---- diagnostics and gates ---------------------------------------------------------------------------------------------
def test_effective_rank_counts_directions():
    Q = np.random.default_rng(0).normal(size=(100, 6))
    Q = np.linalg.qr(Q - Q.mean(0))[0]
    assert ssl.effective_rank(Q) == pytest.approx(6)
    assert ssl.effective_rank(Q[:, :1] @ np.ones((1, 6))) == pytest.approx(1, abs=1e-3)


def test_alignment_and_uniformity_at_their_ends():
    Z = np.random.default_rng(0).normal(size=(50, 4))
    assert ssl.alignment(Z, 5 * Z) == pytest.approx(0) and ssl.alignment(Z, -Z) == pytest.approx(4)
    assert ssl.uniformity(np.ones((50, 4))) == pytest.approx(0)
    assert ssl.uniformity(Z) < -1


def test_otsu_cuts_between_two_groups_and_gates_want_exactly_one_rule():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 0.3, 300), rng.normal(5, 0.3, 100)
    cut = ssl.otsu(np.concatenate([low, high]))
    assert low.max() <= cut < high.min()
    proteins = pd.DataFrame({"P": [0, 0, 5, 5] * 10, "Q": [0, 5, 0, 5] * 10}, dtype=float)
    named = ssl.gate(proteins, {"p": ("P", "Q"), "q": ("Q", "P"), "also p": ("P", "Q")})
    assert list(named[:4]) == ["", "q", "", ""]  # two rules hold for the third
