"""The methods of the chapter `autoencoders`: shapes, known answers, equality with torch, Pyro, SciPy, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from scipy.stats import multivariate_normal

from scprimer.methods import autoencoders as m


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return m.GaussianVAE(12, 3, hidden=(8,), dropout=0.0).eval()


@pytest.fixture
def x():
    return torch.randn(20, 12, generator=torch.Generator().manual_seed(1))


def cells(seed=0, n=300):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ (rng.normal(size=(2, 6)) * 2) + 0.5 * rng.normal(size=(n, 6)) + 3


# ---- networks --------------------------------------------------------------------------------------------------------
def test_mlp_is_linear_with_two_widths():
    net = m.mlp((4, 3))
    a, b = torch.randn(2, 5, 4)
    assert torch.allclose(net(a) + net(b) - net(torch.zeros(1, 4)), net(a + b), atol=1e-5)
    assert m.mlp((4, 7, 3), 0.2)(a).shape == (5, 3)


@pytest.mark.parametrize(
    "sizes, dropout, words", [((4,), 0, "two or more"), ((4, 0, 2), 0, "at least 1"), ((4, 2), 1, "share")]
)
def test_mlp_refuses(sizes, dropout, words):
    with pytest.raises(ValueError, match=words):
        m.mlp(sizes, dropout)


def test_autoencoder_shapes_and_bottleneck(x):
    net = m.Autoencoder(12, 2, hidden=(8,)).eval()
    assert net.encode(x).shape == (20, 2)
    assert net(x).shape == x.shape
    linear = m.Autoencoder(12, 2, hidden=())
    centred = (linear(x) - linear(x).mean(0)).detach()
    assert torch.linalg.matrix_rank(centred, rtol=1e-4) == 2


def test_squared_error_sums_over_genes(x):
    net = m.Autoencoder(12, 2).eval()
    assert float(m.squared_error(net, x, 0).detach()) == pytest.approx(
        float(((x - net(x).detach()) ** 2).mean() * 12), rel=1e-5
    )


def test_held_out_r2():
    X = np.array([[1.0, -1.0], [2.0, 0.0]])
    assert m.held_out_r2(X, X) == 1
    assert m.held_out_r2(X, np.zeros_like(X)) == 0
    assert m.held_out_r2(X, -X) == -3
    with pytest.raises(ValueError, match="cannot be compared"):
        m.held_out_r2(X, X[:1])


# ---- the ELBO --------------------------------------------------------------------------------------------------------
def test_kl_equals_torch():
    mean, log_var = torch.randn(2, 30, 4, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, (log_var / 2).exp())
    exact = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(m.kl_normal(mean, log_var), exact)


def test_log_normal_equals_torch(x):
    log_sd = torch.tensor(-0.3)
    exact = torch.distributions.Normal(0.5, log_sd.exp()).log_prob(x).sum(1)
    assert torch.allclose(m.log_normal(x, torch.tensor(0.5), log_sd), exact, atol=1e-4)


def test_reparameterise_moments_and_gradient():
    torch.manual_seed(0)
    mean, log_var = torch.full((50_000,), 2.0, requires_grad=True), torch.full((50_000,), math.log(4.0))
    z = m.reparameterise(mean, log_var)
    assert float(z.detach().mean()) == pytest.approx(2, abs=0.05)
    assert float(z.detach().std()) == pytest.approx(2, abs=0.05)
    z.sum().backward()
    assert torch.equal(mean.grad, torch.ones(50_000))


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_elbo_by_hand_equals_pyro(vae, x, beta):
    torch.manual_seed(3)
    ours = float(m.negative_elbo(beta)(vae, x, 0)["loss"].detach()) * len(x)
    torch.manual_seed(3)
    theirs = pyro.infer.TraceMeanField_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, x, beta)
    assert ours == pytest.approx(theirs, rel=1e-5)
    torch.manual_seed(3)
    if beta == 1:
        assert float(m.pyro_elbo(vae, x, 0).detach()) * len(x) == pytest.approx(ours, rel=1e-5)


def test_pyro_keeps_no_parameters(vae, x):
    m.pyro_elbo(vae, x, 0)
    assert not list(pyro.get_param_store().keys())


def test_warm_up(vae, x):
    values = []
    for epoch in (0, 5, 50):
        torch.manual_seed(0)
        values.append(float(m.negative_elbo(2.0, warm_up=10)(vae, x, epoch)["loss"].detach()))
    kl = float(vae.terms(x)[1].sum(1).mean().detach())
    assert values[1] - values[0] == pytest.approx(kl, rel=1e-3)
    assert values[2] - values[0] == pytest.approx(2 * kl, rel=1e-3)


def test_fixed_noise_is_not_learned():
    assert not m.GaussianVAE(5, 2, sd=0.7).log_sd.requires_grad
    assert float(m.GaussianVAE(5, 2, sd=0.7).log_sd.exp()) == pytest.approx(0.7)


# ---- the linear case -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_ppca_density_and_likelihood(k):
    X = cells()
    fit = m.ppca(X, k)
    C = fit["W"] @ fit["W"].T + fit["variance"] * np.eye(6)
    theirs = multivariate_normal(fit["mu"], C).logpdf(X)
    ours = m.ppca_log_density(X, fit["mu"], fit["W"], fit["variance"])
    assert np.allclose(ours, theirs)
    assert ours.mean() == pytest.approx(fit["log_likelihood"])


def test_ppca_is_a_maximum():
    X, rng = cells(), np.random.default_rng(1)
    fit = m.ppca(X, 2)
    for _ in range(20):
        W, variance = fit["W"] + 0.05 * rng.normal(size=(6, 2)), fit["variance"] * np.exp(0.05 * rng.normal())
        assert m.ppca_log_density(X, fit["mu"], W, variance).mean() < fit["log_likelihood"]


@pytest.mark.parametrize("k", [-1, 6])
def test_ppca_refuses(k):
    with pytest.raises(ValueError, match="at least one direction"):
        m.ppca(cells(), k)


def linear_at_optimum(X, k):
    """A linear VAE with the parameters of probabilistic PCA and the true posterior."""
    fit = m.ppca(X, k)
    W, s2 = fit["W"], fit["variance"]
    model = m.GaussianVAE(X.shape[1], k, hidden=()).double()
    M = np.diag(W.T @ W + s2 * np.eye(k))
    with torch.no_grad():
        model.decode[0].weight.copy_(torch.as_tensor(W.copy()))
        model.decode[0].bias.copy_(torch.as_tensor(fit["mu"]))
        model.log_sd.fill_(math.log(s2) / 2)
        V = W.T / M[:, None]
        model.encoder[0].weight.copy_(torch.as_tensor(np.concatenate([V, np.zeros_like(V)])))
        model.encoder[0].bias.copy_(torch.as_tensor(np.concatenate([-V @ fit["mu"], np.log(s2 / M)])))
    return model.eval(), fit


def test_elbo_equals_the_evidence_at_the_optimum():
    X = cells()
    model, fit = linear_at_optimum(X, 2)
    elbo, tighter = m.bounds(model, torch.as_tensor(X), draws=8)
    # with the true posterior every weight is p(x), so that both bounds are exact for any draws
    evidence = m.ppca_log_density(X, fit["mu"], fit["W"], fit["variance"])
    assert np.allclose(elbo.numpy(), evidence)
    assert np.allclose(tighter.numpy(), evidence)


def test_price_at_the_optimum_is_the_formula():
    X = cells()
    model, fit = linear_at_optimum(X, 2)
    price = m.kl_normal(*model.encode(torch.as_tensor(X))).mean(0).detach().numpy()
    assert np.allclose(price, m.surviving_kl(fit["eigenvalues"][:2], fit["variance"]))


def test_bounds_are_ordered(vae, x):
    torch.manual_seed(0)
    elbo, tighter = m.bounds(vae, x, draws=50)
    assert elbo.shape == tighter.shape == (20,)
    assert (tighter > elbo).all()


def test_surviving_kl_and_active_units():
    assert m.surviving_kl([8.0, 1.0], 1.0, 2.0) == pytest.approx([0.5 * math.log(4), 0])
    codes = np.random.default_rng(0).normal(size=(100, 3)) * [1, 0.5, 1e-3]
    assert m.active_units(codes) == 2


# ---- codes and layouts -----------------------------------------------------------------------------------------------
def test_share_in_holes():
    rng = np.random.default_rng(0)
    codes, held = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2))
    assert m.share_in_holes(codes, held, rng.normal(size=(2000, 2))) == pytest.approx(0.05, abs=0.02)
    assert m.share_in_holes(codes, held, rng.normal(size=(100, 2)) + 50) == 1


def test_invented_codes():
    codes = np.random.default_rng(0).normal(size=(500, 2)) * [3, 1] + [10, 0]
    drawn = m.invented(m.Autoencoder(5, 2), codes, 2000, 0)
    assert drawn.mean(0) == pytest.approx(codes.mean(0), abs=0.3)
    prior = m.invented(m.GaussianVAE(5, 2), codes, 2000, 0)
    assert prior.mean(0) == pytest.approx([0, 0], abs=0.1)


def test_layout_stability():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(200, 2))
    turned = 3 * A @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 7
    assert all(v == pytest.approx(1) for v in m.layout_stability(A, turned).values())
    strangers = m.layout_stability(A, rng.permutation(A))
    assert strangers["neighbours"] < 0.2
    assert strangers["procrustes"] < 0.1
    with pytest.raises(ValueError, match="same cells"):
        m.layout_stability(A, A[:50])


def test_neighbour_vote():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 50)
    Y = rng.normal(size=(100, 2)) + np.where(labels == "a", 0, 20)[:, None]
    assert m.neighbour_vote(Y, labels) == 1
    assert m.neighbour_vote(Y, rng.permutation(labels)) < 0.7


def test_log_expression_uses_training_cells_only():
    import anndata as ad
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1, 1, 80), size=(120, 80)).astype("float32")
    other = counts.copy()
    other[100:] = rng.poisson(20, size=(20, 80))
    train = np.arange(100)
    X, means, genes = m.log_expression(ad.AnnData(sp.csr_matrix(counts)), train, 30)
    Y, means_too, genes_too = m.log_expression(ad.AnnData(sp.csr_matrix(other)), train, 30)
    assert X.shape == (120, len(genes))
    assert X.dtype == np.float32
    assert genes == genes_too
    assert np.allclose(means, means_too)
    assert np.allclose(X[train], Y[train])
    assert np.allclose(X[train].mean(0), 0, atol=1e-5)
