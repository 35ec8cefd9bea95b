"""Label transfer of the chapter `annotation`: equal to references, exact where it says so, and clear about bad input."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from pyro import poutine
from scipy.stats import spearmanr
from torch.nn import functional as F

from scprimer.methods import annotation as m
from scprimer.methods.scvi import latent, log_likelihood

TINY = {"epochs": 4, "n_hidden": 16, "n_latent": 4, "rate": 1e-2, "device": "cpu"}


def simulated(n=240, seed=0, shift=0.0, genes=120):
    """Three types with ten markers each; ``shift`` moves every gene by a factor of its own."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % 3
    mean = np.exp(np.random.default_rng(9).normal(0, 0.5, genes))[None].repeat(n, 0)
    for k in range(3):
        mean[np.ix_(code == k, np.arange(10 * k, 10 * k + 10))] *= 6
    mean = mean * np.exp(shift * np.random.default_rng(7).normal(size=genes)) * rng.uniform(0.6, 1.6, (n, 1))
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(mean).astype("float32")))
    adata.var_names = [f"g{j}" for j in range(genes)]
    adata.obs["cell_type"] = np.array(["a", "b", "c"])[code]
    return adata


@pytest.fixture(scope="module")
def pair():
    return simulated(), simulated(150, 1, shift=0.3)


SHALLOW = [m.SCINA(), m.SingleR(), m.ScPred(), m.SingleCellNet(trees=40), m.CellTypist(), m.SeuratCCA()]


# ---- every annotator ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", SHALLOW, ids=lambda x: type(x).__name__)
def test_types_are_found_and_shuffled_labels_are_not(pair, method):
    reference, query = pair
    table = m.transfer_labels(reference, "cell_type", query, method)
    assert np.mean(table["label"] == query.obs["cell_type"]) > 0.85
    assert table["confidence"].between(0, 1).all() and list(table.index) == list(query.obs_names)
    labels = np.random.default_rng(0).permutation(reference.obs["cell_type"])
    wrong = m.transfer_labels(reference, labels, query, method)
    assert np.mean(wrong["label"] == query.obs["cell_type"]) < 0.75


@pytest.mark.parametrize("method", [m.ScANVI(**TINY | {"epochs": 25}), m.ScArches(**TINY | {"epochs": 40})])
def test_networks_find_types(pair, method):
    reference, query = pair
    table = m.transfer_labels(reference, "cell_type", query, method)
    assert np.mean(table["label"] == query.obs["cell_type"]) > 0.8


def test_rejected_cells_are_unknown(pair):
    table = m.transfer_labels(*(pair[0], "cell_type", pair[1]), m.CellTypist(), reject=0.9)
    assert (table["called"] == m.UNKNOWN).equals(table["confidence"] < 0.9)
    assert m.transfer_labels(pair[0], "cell_type", pair[1], m.SingleR())["called"].ne(m.UNKNOWN).mean() > 0.5


# ---- what goes in -------------------------------------------------------------------------------------------------------
def test_absent_genes_are_masked_not_filled(pair):
    reference, query = pair
    fewer = query[:, 20:].copy()  # the markers of a and b are not measured
    known, asked = m.on_shared_genes(reference, fewer)
    assert len(known.genes) == 100 and not set(known.genes) & set(query.var_names[:20])
    assert np.array_equal(known.depth, np.asarray(reference[:, fewer.var_names].X.sum(1)).ravel())
    assert list(known.genes) == list(asked.genes)


def test_genes_are_matched_by_name_not_place(pair):
    reference, query = pair
    mixed = query[:, np.random.default_rng(0).permutation(query.n_vars)].copy()
    a, b = (m.transfer_labels(reference, "cell_type", q, m.CellTypist()) for q in (query, mixed))
    assert np.allclose(a["confidence"], b["confidence"])


def test_query_without_reference_genes(pair):
    other = pair[1].copy()
    other.var_names = [f"ENSG{j}" for j in range(other.n_vars)]
    with pytest.raises(ValueError, match="genes are shared"):
        m.transfer_labels(pair[0], "cell_type", other, m.CellTypist())
    with pytest.raises(ValueError, match="no signature gene"):
        m.SCINA({"a": ["CD3D"], "b": ["LYZ"]}).fit(None).predict_proba(m.on_shared_genes(*pair)[1])


def test_all_cells_of_one_type(pair):
    with pytest.raises(ValueError, match="a choice needs two"):
        m.transfer_labels(pair[0], ["a"] * pair[0].n_obs, pair[1], m.CellTypist())
    known = m.on_shared_genes(*pair)[0]
    for method in (*SHALLOW, m.ScANVI(**TINY)):
        with pytest.raises(ValueError, match="nothing can be told apart"):
            method.fit(known, ["a"] * len(known))


def test_a_label_with_one_cell_is_left_out_and_named(pair):
    labels = pair[0].obs["cell_type"].to_numpy(dtype=object).copy()
    labels[0], labels[1] = "rare", None
    for method in SHALLOW:
        table = m.transfer_labels(pair[0], labels, pair[1], method)
        assert table.attrs["not_learnt"] == ["rare"] and "rare" not in set(table["label"])


def test_empty_cells_get_no_name(pair):
    query = pair[1].copy()
    query.X = sp.diags((np.arange(query.n_obs) != 3).astype(float)) @ query.X
    query.X = sp.csr_matrix(query.X)
    for method in (m.SeuratCCA(), m.ScArches(**TINY)):
        table = m.transfer_labels(pair[0], "cell_type", query, method)
        assert tuple(table.iloc[3]) == ("", 0.0, m.UNKNOWN) and (table["label"].drop(table.index[3]) != "").all()


@pytest.mark.parametrize(("labels", "words"), [(["a", "b"], "labels for"), ([""] * 240, "a choice needs two")])
def test_bad_labels(pair, labels, words):
    with pytest.raises(ValueError, match=words):
        m.transfer_labels(pair[0], labels, pair[1], m.CellTypist())


def test_normalised_values_are_refused(pair):
    scaled = pair[1].copy()
    scaled.X = scaled.X - 1.0 * sp.csr_matrix(np.ones(scaled.shape))
    with pytest.raises(ValueError, match="raw counts"):
        m.on_shared_genes(pair[0], scaled)


# ---- parts --------------------------------------------------------------------------------------------------------------
def test_ranks_give_spearman():
    x = np.random.default_rng(0).poisson(1.5, (12, 80)).astype(float)
    assert np.allclose(m.ranked(x) @ m.ranked(x).T, spearmanr(x, axis=1).statistic, atol=1e-12)
    assert np.allclose(m.ranked(np.log1p(3 * x)), m.ranked(x))


def test_em_never_falls_and_knows_none_of_them():
    rng = np.random.default_rng(0)
    x = rng.normal(0.3, 0.3, (300, 6))
    x[:100, :3] += 3
    x[100:200, 3:] += 3  # the last hundred are high in nothing
    trace, p = m.scina_em(x, np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1.0]]))
    assert np.all(np.diff(trace) > -1e-6)
    assert np.mean(p.argmax(1) == np.repeat([0, 1, 2], 100)) > 0.98


def test_top_pairs_ignore_depth():
    x = np.random.default_rng(0).poisson(3.0, (60, 30)).astype(float)
    x[:30, 4] += 20
    pairs = m.top_pairs(x, np.repeat([0, 1], 30))
    assert (pairs[:, 0] == 4).any() and len({tuple(p) for p in pairs}) == len(pairs)
    far = x * np.random.default_rng(1).uniform(1, 9, (60, 1))
    assert np.array_equal(x[:, pairs[:, 0]] > x[:, pairs[:, 1]], far[:, pairs[:, 0]] > far[:, pairs[:, 1]])


def test_mutual_neighbours_by_brute_force():
    rng = np.random.default_rng(0)
    a, b = m.unit(rng.normal(size=(30, 5))), m.unit(rng.normal(size=(20, 5)))
    s, found = a @ b.T, set()
    for i in range(30):
        for j in range(20):
            if (s[i] > s[i, j]).sum() < 4 and (s[:, j] > s[i, j]).sum() < 4:
                found.add((i, j))
    assert {tuple(p) for p in m.mutual_neighbours(a, b, 4)} == found
    score = m.anchor_scores(a, b, m.mutual_neighbours(a, b, 4), 6)
    assert len(score) == len(found) and score.min() >= 0 and score.max() <= 1
    assert m.anchor_votes(b, np.zeros((0, 2), int), np.zeros(0), np.zeros(30, int), 3).sum() == 0


def test_canonical_vectors_take_out_shift_and_scale(pair):
    known, asked = m.on_shared_genes(*pair)
    u, _, s = m.canonical(known.log, asked.log, 5)
    factor = np.random.default_rng(0).uniform(0.5, 2, known.log.shape[1])
    u2, _, s2 = m.canonical(known.log * factor + 3 * factor, asked.log, 5)
    assert np.allclose(s, s2, rtol=1e-4) and np.allclose(np.abs((u * u2).sum(0))[:2], 1, atol=1e-3)


def test_calibration_error():
    assert m.calibration_error([0.95] * 100, [True] * 95 + [False] * 5) == pytest.approx(0)
    assert m.calibration_error([0.95] * 100, [False] * 100) == pytest.approx(0.95)
    assert m.calibration_error([1.0, 1.0], [True, True]) == 0


# ---- networks -----------------------------------------------------------------------------------------------------------
def minibatch(pair, label):
    from scprimer.train import KeepSparse, to_device

    rows = torch.arange(20)
    data = {"counts": KeepSparse(m.on_shared_genes(*pair)[0].counts), "batch": np.zeros(240, int), "label": label}
    return {k: v[rows] for k, v in to_device(data, torch.device("cpu")).items()}


def model_for(pair, n_batches=2):
    torch.manual_seed(0)
    genes = len(m.on_shared_genes(*pair)[0].genes)
    return m.LabelledVAE(genes, 3, n_batches, n_hidden=8, n_latent=3, alpha=7.0).eval()


@pytest.mark.parametrize("known", [True, False])
def test_pyro_elbo_equals_the_sum_over_types(pair, known):
    model, label = model_for(pair), np.arange(240) % 3 if known else np.full(240, -1)
    batch = minibatch(pair, label)
    torch.manual_seed(1)
    loss = m.scanvi_loss(model, batch).item()
    torch.manual_seed(1)
    trace = poutine.trace(poutine.enum(model.guide, first_available_dim=-2)).get_trace(batch)
    z1, z2 = trace.nodes["z1"]["value"], trace.nodes["z2"]["value"]
    with torch.no_grad():
        q = model.inference(batch["counts"], batch["batch"])
        normal = torch.distributions.Normal
        fit = log_likelihood(batch["counts"], **model.generative(z1, batch["counts"].sum(), batch["batch"]))
        fit = fit - normal(q["mean"], q["variance"].sqrt()).log_prob(z1).sum(-1)
        log_q, total = model.believed(z1, batch["label"]), 0
        for k in range(3):
            y = torch.full((20,), k)
            inner = model.z1_given(z2[k], y).log_prob(z1) + normal(0.0, 1.0).log_prob(z2[k]).sum(-1)
            inner = inner - model.z2_given(z1, y).log_prob(z2[k]) - np.log(3) - log_q[:, k]
            total = total + log_q[:, k].exp() * inner
        if known:
            fit = fit - 7.0 * F.cross_entropy(model.classifier(z1), batch["label"], reduction="none")
    assert loss == pytest.approx(-(fit + total).mean().item(), rel=1e-4)


@pytest.mark.parametrize("n_batches", [1, 2])
def test_surgery_moves_no_reference_cell(pair, n_batches):
    known, asked = m.on_shared_genes(*pair)
    batch, model = np.arange(len(known)) % n_batches, model_for(pair, n_batches)
    code = np.arange(len(known)) % 3
    m.train_labelled(model, known.counts, code, batch, epochs=2, device="cpu")
    before = latent(model, known.counts, batch)
    grown = m.add_batch(model)
    first = m.type_probabilities(grown, asked.counts, np.full(len(asked), n_batches))
    m.train_labelled(grown, asked.counts, np.full(len(asked), -1), np.full(len(asked), n_batches), epochs=3,
                     learning_rate=0.05, weight_decay=0.0, device="cpu")  # fmt: skip
    assert np.array_equal(latent(grown, known.counts, batch), before)
    assert not np.array_equal(m.type_probabilities(grown, asked.counts, np.full(len(asked), n_batches)), first)
    for name, value in model.state_dict().items():
        if not name.endswith(".shift"):
            assert torch.equal(grown.state_dict()[name], value), name


def test_networks_refuse_normalised_counts(pair):
    known, _ = m.on_shared_genes(*pair)
    with pytest.raises(ValueError, match="not whole numbers"):
        m.train_labelled(
            model_for(pair), known.counts * 0.5, np.zeros(240, int), np.zeros(240, int), epochs=1, device="cpu"
        )


# ---- stored labels ------------------------------------------------------------------------------------------------------
def test_transferred_names_are_stored_and_read_back(pair, tmp_path):
    file = tmp_path / "kept" / "types.csv"
    out = m.add_transferred(pair[1], pair[0], "cell_type", file=file)
    assert list(out.obs.columns[-2:]) == ["cell_type_transferred", "cell_type_confidence"]
    assert "cell_type_transferred" not in pair[1].obs
    table = pd.read_csv(file, index_col=0)
    table["called"] = "mark"
    table.to_csv(file)
    again = m.add_transferred(pair[1], pair[0], "cell_type", file=file)
    assert (again.obs["cell_type_transferred"] == "mark").all()  # read, not computed
    other = m.add_transferred(pair[1], pair[0], "cell_type", m.CellTypist(), file=file)
    assert (other.obs["cell_type_transferred"] != "mark").all()  # another method: computed anew
