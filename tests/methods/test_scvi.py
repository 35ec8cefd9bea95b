"""CountVAE: its mathematics against autograd and scipy, its answers to bad input, its use."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats
from torch.nn import functional as F

from scprimer.checkpoint import CheckpointError
from scprimer.methods import scvi
from scprimer.train import KeepSparse, SparseRows, to_device


def sparse_rows(dense):
    row, column = dense.nonzero(as_tuple=True)
    n = (dense != 0).sum(1)
    return SparseRows(row, column, dense[row, column], n.cumsum(0) - n, tuple(dense.shape))


def plain(x, logits, theta, library, dropout_logits=None):
    """The same log likelihood, term by term over all genes, left to autograd."""
    mu = logits.softmax(1) * library[:, None]
    nb = theta * (theta / (theta + mu)).log() + x * (mu / (theta + mu)).log()
    nb = nb + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    if dropout_logits is None:
        return nb.sum(1)
    kept = F.logsigmoid(-dropout_logits)
    zero = torch.logaddexp(F.logsigmoid(dropout_logits), kept + nb)
    return torch.where(x > 0, kept + nb, zero).sum(1)


def a_case(cells=4, genes=9, per_cell=False, zinb=False, dtype=torch.double):
    torch.manual_seed(1)
    x = torch.poisson(torch.rand(cells, genes, dtype=dtype) * 2)
    x[0, 0], x[1, 1], x[2, 2] = 77, scvi.TABLE, scvi.TABLE + 1
    shape = (cells, genes)
    logits, pi = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(2))
    log_theta = torch.randn(shape if per_cell else genes, dtype=dtype, requires_grad=True)
    return x, logits, log_theta, x.sum(1) + 1, pi if zinb else None


@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("zinb", [False, True])
def test_fused_likelihood_is_the_plain_one_with_its_gradient(per_cell, zinb):
    x, logits, log_theta, library, pi = a_case(per_cell=per_cell, zinb=zinb)
    rows = sparse_rows(x)
    fast = scvi.log_likelihood(rows, logits, log_theta.exp(), library, pi)
    slow = plain(x, logits, log_theta.exp(), library, pi)
    assert torch.allclose(fast, slow, rtol=0, atol=1e-9)
    inputs = [v for v in (logits, log_theta, pi) if v is not None]
    weights = torch.arange(1.0, 1 + len(x), dtype=torch.double)
    for a, b in zip(torch.autograd.grad(fast @ weights, inputs), torch.autograd.grad(slow @ weights, inputs)):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(
        lambda a, b, c=None: scvi.log_likelihood(rows, a, b.exp(), library, c), tuple(inputs)
    )


@pytest.mark.parametrize("logit", [-200.0, -30.0, 30.0, 59.0, 200.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.double])
def test_dropout_that_is_certain_or_impossible_keeps_value_and_gradient(logit, dtype):
    x, logits, log_theta, library, pi = a_case(zinb=True, dtype=dtype)
    pi = torch.full_like(pi, logit, requires_grad=True)
    inputs = [logits, log_theta, pi]
    fast = scvi.log_likelihood(sparse_rows(x), logits, log_theta.exp(), library, pi)
    slow = plain(x, logits, log_theta.exp(), library, pi)
    assert torch.allclose(fast, slow, rtol=1e-5, atol=1e-4)
    for a, b in zip(torch.autograd.grad(fast.sum(), inputs), torch.autograd.grad(slow.sum(), inputs)):
        assert torch.isfinite(a).all() and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_likelihood_is_scipys():
    x, logits, log_theta, library, _ = a_case()
    theta = log_theta.exp().detach().numpy()
    mu = (logits.softmax(1) * library[:, None]).detach().numpy()
    wanted = stats.nbinom.logpmf(x.numpy(), theta, theta / (theta + mu)).sum(1)
    with torch.no_grad():
        got = scvi.log_likelihood(sparse_rows(x), logits, log_theta.exp(), library)
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


def test_nearly_poisson_genes_keep_their_precision_in_single_precision():
    x, logits, _, library, _ = a_case(dtype=torch.float32)
    theta = torch.full((x.shape[1],), 1e6)
    mu = (logits.softmax(1) * library[:, None]).detach().double().numpy()
    with torch.no_grad():
        got = scvi.log_likelihood(sparse_rows(x), logits, theta, library)
    counted = x.numpy() <= scvi.TABLE
    cells = counted.all(1)
    assert cells.any()
    np.testing.assert_allclose(got[cells], stats.poisson.logpmf(x.numpy(), mu).sum(1)[cells], rtol=1e-4)


def test_sparse_layer_is_the_dense_one():
    torch.manual_seed(0)
    x = torch.poisson(torch.rand(5, 7))
    x[3] = 0  # an empty row in the middle
    weight = torch.randn(7, 3, requires_grad=True)
    fast, slow = scvi.SparseProduct.apply(weight, sparse_rows(x)), x.log1p() @ weight
    assert torch.allclose(fast, slow, atol=1e-6)
    g = torch.randn_like(slow)
    assert torch.allclose(*(torch.autograd.grad(h, weight, g)[0] for h in (fast, slow)), atol=1e-6)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    profile = rng.dirichlet(np.full(30, 0.5), size=3)
    kind = rng.integers(3, size=150)
    return sp.csr_matrix(rng.poisson(60 * profile[kind])), kind, np.where(rng.random(150) < 0.5, "old", "new")


@pytest.fixture(scope="module")
def trained(cells):
    counts, _, batch = cells
    torch.manual_seed(0)
    model = scvi.CountVAE(30, 2, n_latent=3, n_hidden=16)
    history = scvi.train_count_vae(model, counts, batch, epochs=40, batch_size=32, learning_rate=5e-3, device="cpu")
    return model, history


def test_a_batch_larger_than_what_validation_leaves_takes_all_of_it(cells):
    counts, _, _ = cells
    model = scvi.CountVAE(30, n_latent=3, n_hidden=16)
    history = scvi.train_count_vae(model, counts, epochs=2, batch_size=len(cells[1]), validation=0.1, device="cpu")
    assert len(history) == 2


def test_training_lowers_the_loss_and_finds_the_kinds(cells, trained):
    counts, kind, _ = cells
    model, history = trained
    assert len(history) == 40 and history.validation[-1] < history.validation[0] - 1
    z = scvi.latent(model, counts)
    assert z.shape == (150, 3)
    centres = np.array([z[kind == k].mean(0) for k in range(3)])
    assert (((z[:, None] - centres) ** 2).sum(2).argmin(1) == kind).mean() > 0.8


def test_elbo_is_the_loss_and_its_parts_add_up(cells, trained):
    counts, _, batch = cells
    model = trained[0]
    parts = scvi.elbo(model, counts, batch, n_samples=5)
    assert all(part.shape == (150,) for part in parts.values())
    np.testing.assert_allclose(parts["elbo"], parts["reconstruction"] - parts["kl"])
    data = to_device(scvi.count_data(model, counts, batch), torch.device("cpu"))
    minibatch = {name: part[torch.arange(150)] for name, part in data.items()}
    with torch.no_grad():
        loss = model.loss(minibatch)
    assert abs(loss["loss"] + parts["elbo"].mean()) < 0.5
    assert np.isclose(float(loss["kl"]), parts["kl"].mean(), rtol=1e-4)


def test_elbo_repeats_with_its_seed_and_leaves_the_callers_random_state(cells, trained):
    counts, _, batch = cells
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b = (scvi.elbo(trained[0], counts, batch, seed=s)["elbo"] for s in (1, 1))
    assert np.array_equal(a, b) and torch.equal(before, torch.random.get_rng_state())
    assert not np.array_equal(a, scvi.elbo(trained[0], counts, batch, seed=2)["elbo"])


def test_expression_is_shares_of_the_library_and_follows_the_batch(cells, trained):
    counts, _, batch = cells
    model = trained[0]
    own = scvi.expression(model, counts, batch)
    np.testing.assert_allclose(own.sum(1), 1e4, rtol=1e-4)
    as_old = scvi.expression(model, counts, batch, transform_batch="old", genes=[2, 0], n_samples=2)
    assert as_old.shape == (150, 2)
    whole = scvi.expression(model, counts, batch, transform_batch="old")
    assert np.allclose(whole[batch == "old"], own[batch == "old"], rtol=1e-4)
    assert not np.allclose(whole[batch == "new"], own[batch == "new"], rtol=1e-4)
    assert np.corrcoef(own.sum(0), counts.toarray().sum(0))[0, 1] > 0.9


def test_generated_counts_resemble_the_data(cells, trained):
    counts, _, batch = cells
    library = np.asarray(counts.sum(1)).ravel()
    new = scvi.generate(trained[0], 150, library=library, batch=batch, seed=1)
    assert new.shape == (150, 30) and new.dtype.kind == "i" and new.min() >= 0
    assert abs(new.sum(1).mean() / library.mean() - 1) < 0.1
    again = scvi.posterior_counts(trained[0], counts, batch, seed=1)
    assert np.corrcoef(again.ravel(), counts.toarray().ravel())[0, 1] > 0.5
    assert np.array_equal(again, scvi.posterior_counts(trained[0], counts, batch, seed=1))


def test_zinb_draws_more_zeros_where_dropout_is_likely():
    logits, theta, library = torch.zeros(200, 10), torch.full((10,), 5.0), torch.full((200,), 100.0)
    rng = np.random.default_rng(0)
    zeros = [
        (scvi.draw_counts(rng, logits, theta, library, pi) == 0).mean() for pi in (None, torch.full((200, 10), 1.0))
    ]
    assert zeros[0] < 0.05 < 0.65 < zeros[1] < 0.8


@pytest.mark.parametrize("options", [
    {"likelihood": "zinb"}, {"dispersion": "gene-batch"}, {"dispersion": "gene-cell"}, {"n_layers": 2, "encode_batch": True},
])  # fmt: skip
def test_every_option_trains(cells, options):
    counts, _, batch = cells
    model = scvi.CountVAE(30, 2, n_hidden=8, n_latent=2, **options)
    history = scvi.train_count_vae(model, counts, batch, epochs=15, batch_size=50, learning_rate=1e-2, device="cpu")
    assert history.train[-1] < history.train[0] and all(p.grad is not None for p in model.parameters())
    assert np.isfinite(scvi.elbo(model, counts, batch)["elbo"]).all()


# ---- what it refuses ------------------------------------------------------------------------------------------------
def with_entry(value):
    x = np.ones((4, 30))
    x[1, 2] = value
    return x


@pytest.mark.parametrize("counts, words", [
    (with_entry(-1), "negative"),
    (with_entry(0.5), "not whole numbers.*raw counts"),
    (with_entry(np.nan), "NaN"),
    (np.vstack([np.zeros((1, 30)), np.ones((3, 30))]), "1 cells .*row 0.* no count"),
    (np.ones((4, 29)), "30 genes and these cells 29"),
])  # fmt: skip
def test_counts_that_are_none_are_refused_everywhere(trained, counts, words):
    model = trained[0]
    batch = np.full(4, "old")
    for use in (scvi.latent, scvi.elbo, scvi.expression, scvi.posterior_counts):
        with pytest.raises(ValueError, match=words):
            use(model, counts, batch)
    with pytest.raises(ValueError, match=words):
        scvi.train_count_vae(model, counts, batch, epochs=1, device="cpu")


@pytest.mark.parametrize("batch, words", [
    (np.array(["old", "new", "other", "new"]), "has not seen the batch other: it knows new, old"),
    (np.array([0, 1, 2, 1]), "has not seen the batch 2"),
    (np.array(["old", "new"]), "4 cells need as many batch labels"),
    (None, "say which one"),
])  # fmt: skip
def test_batches_that_are_unknown_are_refused(trained, batch, words):
    with pytest.raises(ValueError, match=words):
        scvi.elbo(trained[0], np.ones((4, 30)), batch)


def test_names_and_codes_of_batches_mean_the_same(cells, trained):
    counts, _, batch = cells
    named = scvi.elbo(trained[0], counts, batch)["elbo"]
    coded = scvi.elbo(trained[0], counts, (batch == "old").astype(int))["elbo"]
    assert np.array_equal(named, coded) and trained[0].batches == ["new", "old"]


def test_more_batches_than_the_model_has_are_refused():
    with pytest.raises(ValueError, match="3 batches and the model has n_batches=2"):
        scvi.train_count_vae(scvi.CountVAE(3, 2), np.ones((6, 3)), list("aabbcc"), epochs=1, device="cpu")


@pytest.mark.parametrize("options, words", [
    ({"likelihood": "gaussian"}, "likelihood"), ({"dispersion": "cell"}, "dispersion"), ({"dropout": 1.0}, "dropout"),
    ({"n_layers": 0}, "at least 1"),
])  # fmt: skip
def test_options_that_make_no_model_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        scvi.CountVAE(5, **options)


def test_a_checkpoint_resumes_and_one_of_another_shape_is_refused(cells, tmp_path):
    counts, _, _ = cells
    file = tmp_path / "vae.safetensors"

    def train(n_hidden, epochs):
        torch.manual_seed(0)
        model = scvi.CountVAE(30, n_hidden=n_hidden)
        use = {"epochs": epochs, "warmup": 4, "batch_size": 50, "device": "cpu"}
        return model, scvi.train_count_vae(model, counts, checkpoint=file, **use)

    train(8, 3)
    _, history = train(8, 5)
    assert history.resumed_at == 3 and len(history) == 5
    with pytest.raises(CheckpointError, match="another shape"):
        train(9, 5)
    assert file.exists()


@pytest.mark.parametrize("options", [{}, {"n_layers": 2, "likelihood": "zinb", "dispersion": "gene-batch"}])
def test_keep_sparse_batches_feed_the_model(cells, options):
    counts = cells[0]
    model = scvi.CountVAE(30, 2, **options).eval()
    rows = to_device(KeepSparse(sp.csr_matrix(counts, dtype=np.float32)), torch.device("cpu"))[torch.arange(5)]
    code = torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        q = model.inference(rows, code)
        p = model.generative(q["mean"], rows.sum(), code)
        fast = scvi.log_likelihood(rows, **p)
    slow = plain(rows.dense(), p["logits"], p["theta"], p["library"], p["dropout_logits"])
    assert torch.allclose(fast, slow, atol=1e-3)


# ---- beside scvi-tools ----------------------------------------------------------------------------------------------
def scvi_module(**options):
    module = pytest.importorskip("scvi.module")
    torch.manual_seed(3)
    vae = module.VAE(30, **options)
    for p in vae.parameters():  # away from the initial values, where an error may hide
        p.data += 0.05 * torch.randn_like(p)
    for name, buffer in vae.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer += torch.rand_like(buffer)
    return vae.eval()


@pytest.mark.parametrize("options", [
    {"gene_likelihood": "nb"},
    {"gene_likelihood": "zinb", "n_batch": 2, "n_layers": 2, "dispersion": "gene-batch", "encode_covariates": True},
    {"gene_likelihood": "nb", "n_batch": 2, "dispersion": "gene-cell", "n_hidden": 16, "n_latent": 4},
])  # fmt: skip
def test_weights_of_scvi_tools_give_its_elbo(cells, options):
    counts, _, batch = cells
    code = torch.as_tensor((batch == "old").astype(int) if options.get("n_batch") else np.zeros(150, int))
    vae = scvi_module(**options)
    model = scvi.from_scvi_tools(vae)
    x = torch.as_tensor(counts.toarray(), dtype=torch.float32)
    with torch.no_grad():
        inferred = vae.inference(x, code[:, None])
        made = vae.generative(inferred["z"], inferred["library"], code[:, None])
        theirs = vae.loss({"X": x, "batch": code[:, None]}, inferred, made)
        rows = sparse_rows(x)
        q = model.inference(rows, code)
        mine = scvi.log_likelihood(rows, **model.generative(inferred["z"], rows.sum(), code))
    wanted = -theirs.reconstruction_loss["reconstruction_loss"]
    assert torch.allclose(mine, wanted, rtol=1e-5, atol=1e-3)
    assert torch.allclose(q["mean"], inferred["qz"].loc, atol=1e-5)
    assert torch.allclose(q["variance"].sqrt(), inferred["qz"].scale, rtol=1e-4)


@pytest.mark.parametrize("options, words", [
    ({"gene_likelihood": "poisson"}, "gene_likelihood='poisson'"),
    ({"dispersion": "gene-label", "n_labels": 2}, "gene-label"),
    ({"n_cats_per_cov": [3]}, "covariates besides the batch"),
])  # fmt: skip
def test_a_reference_with_other_options_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        scvi.from_scvi_tools(scvi_module(**options))


# ---- around the model -----------------------------------------------------------------------------------------------
def test_plain_likelihoods_are_scipys_and_a_mixture():
    x = torch.arange(6, dtype=torch.double)
    mu, theta, odds = (torch.tensor(v, dtype=torch.double) for v in (1.7, 0.6, -0.4))
    nb = stats.nbinom.logpmf(x, 0.6, 0.6 / 2.3)
    np.testing.assert_allclose(scvi.nb_log_prob(x, mu, theta), nb, rtol=1e-10)
    lost = 1 / (1 + np.exp(0.4))
    zinb = np.log((1 - lost) * np.exp(nb) + lost * (x.numpy() == 0))
    np.testing.assert_allclose(scvi.zinb_log_prob(x, mu, theta, odds), zinb, rtol=1e-10)


def test_glm_pca_without_factors_gives_each_genes_share_and_with_factors_more(cells):
    counts, kind, _ = cells
    share = np.asarray(counts.sum(0)).ravel() / counts.sum()
    flat = scvi.glm_pca(counts, 0, epochs=80, batch_size=50, device="cpu").shares()
    assert np.abs(flat - share).max() < 0.02 and np.allclose(flat, flat[0])
    model = scvi.glm_pca(counts, 3, epochs=80, batch_size=50, device="cpu")
    by_kind = np.stack([np.asarray(counts[kind == k].sum(0)).ravel() / counts[kind == k].sum() for k in range(3)])
    assert np.abs(model.shares() - by_kind[kind]).mean() < 0.7 * np.abs(flat - by_kind[kind]).mean()


def test_gain_over_mean_by_hand():
    other = sp.csr_matrix(np.array([[2, 0], [0, 1]]))
    shares, mean = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([0.5, 0.5])
    assert np.isclose(scvi.gain_over_mean(shares, other, mean), 2 * np.log(1.6) / 2)
    assert scvi.gain_over_mean(np.array([[0.0, 1.0], [0.5, 0.5]]), other, mean) == -np.inf


def test_kbet_accepts_mixed_batches_and_rejects_separate_ones():
    rng = np.random.default_rng(0)
    Z, batch = rng.normal(size=(600, 3)), rng.integers(3, size=600)
    assert 0.85 < scvi.kbet(Z, batch) <= 1
    assert scvi.kbet(Z + 10 * batch[:, None], batch) == 0


def test_calls_are_as_many_as_the_expected_false_ones_allow():
    p = np.array([0.99, 0.2, 1.0, 0.9, 0.97])
    assert scvi.within_fdr(p, 0.05).tolist() == [True, False, True, True, True]  # mean of 1-p is 0.035
    assert scvi.within_fdr(p, 0.02).tolist() == [True, False, True, False, True]
    assert not scvi.within_fdr(np.array([0.5, 0.6])).any()


@pytest.mark.parametrize("unit", ["cell", "group"])
def test_differential_finds_the_genes_of_a_kind(cells, trained, unit):
    counts, kind, batch = cells
    p, change = scvi.differential(trained[0], counts, kind == 0, kind == 1, batch, unit=unit, draws=100)
    real = np.log2((counts[kind == 0].toarray().mean(0) + 0.05) / (counts[kind == 1].toarray().mean(0) + 0.05))
    assert p.shape == change.shape == (30,) and np.corrcoef(change, real)[0, 1] > 0.7
    back = scvi.differential(trained[0], counts, kind == 1, kind == 0, batch, unit=unit, draws=100)[1]
    assert np.corrcoef(change, -back)[0, 1] > 0.9
    with pytest.raises(ValueError, match="group b has no cells"):
        scvi.differential(trained[0], counts, kind == 0, kind == 7, batch)
