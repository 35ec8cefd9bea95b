"""What the chapter on graph networks exports: graphs, layers, rivals and the critic's tools."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import spsolve

from scprimer.methods import graph_networks as gn


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def graph(rng):
    """Weighted, with a self-loop at node 3 and without any edge at node 7."""
    A = sp.random(30, 30, 0.15, random_state=0, data_rvs=lambda n: rng.uniform(0.1, 2, n))
    A = sp.lil_matrix(A.maximum(A.T))
    A.setdiag(0)
    A[3, 3], A[7, :], A[:, 7] = 1.5, 0, 0
    return gn.checked_adjacency(A)


@pytest.fixture
def features(rng):
    return torch.as_tensor(rng.normal(size=(30, 6)), dtype=torch.float32)


def pyg():
    """PyTorch Geometric's layers, or a skip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch_geometric.nn")


def as_index(A):
    """The library's form of a graph: from, to, weight."""
    A = sp.coo_matrix(A)
    index = torch.as_tensor(np.stack([A.col, A.row]), dtype=torch.long)
    return index, torch.as_tensor(A.data, dtype=torch.float32)


# ---- layers ----------------------------------------------------------------------------------------------------
def test_gcn_equals_pytorch_geometric_in_output_and_gradient(graph, features):
    ours, theirs = gn.GCNLayer(6, 4), pyg().GCNConv(6, 4)
    with torch.no_grad():
        theirs.lin.weight.copy_(ours.linear.weight)
        theirs.bias.copy_(ours.bias.normal_())
    a, b = ours(features, gn.edges_of(gn.normalised(graph))), theirs(features, *as_index(graph))
    assert torch.allclose(a, b, atol=1e-5)
    (a**2).sum().backward()
    (b**2).sum().backward()
    assert torch.allclose(ours.linear.weight.grad, theirs.lin.weight.grad, atol=1e-3)


@pytest.mark.parametrize("concat", [True, False])
def test_gat_equals_pytorch_geometric_in_output_and_gradient(graph, features, concat):
    ours, theirs = gn.GATLayer(6, 4, heads=3, concat=concat), pyg().GATConv(6, 4, heads=3, concat=concat)
    with torch.no_grad():
        theirs.lin.weight.copy_(ours.linear.weight)
        theirs.att_dst.copy_(ours.a_to[None])
        theirs.att_src.copy_(ours.a_from[None])
        theirs.bias.copy_(ours.bias.normal_())
    a, b = ours(features, gn.edges_of(gn.normalised(graph))), theirs(features, as_index(graph)[0])
    assert torch.allclose(a, b, atol=1e-5)
    (a**2).sum().backward()
    (b**2).sum().backward()
    assert torch.allclose(ours.a_from.grad, theirs.att_src.grad[0], atol=1e-3)


def test_gcn_is_the_formula_written_with_dense_matrices(graph, features):
    layer = gn.GCNLayer(6, 4)
    A = graph.toarray() + np.diag(np.where(graph.diagonal() == 0, 1.0, 0.0))
    S = A / np.sqrt(np.outer(A.sum(1), A.sum(1)))
    wanted = torch.as_tensor(S, dtype=torch.float32) @ features @ layer.linear.weight.T
    assert torch.allclose(layer(features, gn.edges_of(gn.normalised(graph))), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["gcn", "gat"])
@pytest.mark.parametrize("own", [False, True])
def test_renumbering_the_nodes_renumbers_the_output(graph, features, rng, kind, own):
    torch.manual_seed(0)
    model = gn.GraphNet(6, 8, 3, kind, own=own).eval()
    order = rng.permutation(30)
    before = gn.predict_nodes(model, features, graph)
    assert np.allclose(before[order], gn.predict_nodes(model, features[order], graph[order][:, order]), atol=1e-5)


def test_a_node_hears_as_many_rings_as_there_are_layers(features):
    path = sp.csr_matrix(sp.diags([np.ones(29), np.ones(29)], [1, -1]))
    for kind in ("gcn", "gat"):
        torch.manual_seed(0)
        model = gn.GraphNet(6, 8, 3, kind, layers=3).eval()
        before = gn.predict_nodes(model, features, path)
        changed = features.clone()
        changed[0] += 5
        moved = np.flatnonzero(np.abs(gn.predict_nodes(model, changed, path) - before).max(1) > 1e-6)
        assert set(moved) <= {0, 1, 2, 3} and 3 in moved


def test_attention_sums_to_one_and_survives_large_scores():
    edges = gn.Edges(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 2, 0, 2]), torch.ones(4), 3)
    alpha = gn.attention(edges, torch.tensor([[1.0], [2.0], [1000.0], [-1000.0]]))
    assert torch.allclose(gn.gather(edges, alpha), torch.tensor([[1.0], [0.0], [1.0]]))
    assert torch.isclose(alpha[1] / alpha[0], torch.tensor(2.0).sub(1).exp())


def test_an_isolated_node_hears_itself_alone(graph, features):
    S = gn.normalised(graph)
    assert S[7].nnz == 1 and S[7, 7] == 1
    bare = gn.normalised(graph, loops=0)
    assert bare[7].nnz == 0 and np.isfinite(bare.data).all()
    model = gn.GraphNet(6, 8, 3, "gat").eval()
    assert np.isfinite(gn.predict_nodes(model, features, graph)).all()
    assert np.allclose(gn.smooth(features.numpy(), graph)[7], features[7], atol=1e-6)


def test_a_self_loop_keeps_its_weight_and_others_get_one(graph):
    S = gn.normalised(graph, "mean")
    assert S[3, 3] == pytest.approx(1.5 / graph[3].sum())
    assert S[4, 4] == pytest.approx(1 / (1 + graph[4].sum()))
    assert np.allclose(np.asarray(S.sum(1)).ravel(), 1)


# ---- graphs ----------------------------------------------------------------------------------------------------
def test_knn_graph_joins_when_either_chose_the_other_and_stays_in_groups(rng):
    Z, groups = rng.normal(size=(40, 2)), np.repeat(["a", "b"], 20)
    A = gn.knn_graph(Z, 3, groups)
    assert abs(A - A.T).nnz == 0 and A.diagonal().sum() == 0 and set(A.data) == {1.0}
    assert A[:20, 20:].nnz == 0
    for i in range(20):
        near = np.argsort(np.linalg.norm(Z[:20] - Z[i], axis=1))[1:4]
        assert (A[i, near].toarray() == 1).all()
    chosen = gn.kneighbors_graph(Z[:20], 3)
    assert abs(A[:20, :20] - chosen.maximum(chosen.T)).nnz == 0


def test_radius_graph_joins_what_is_near_and_leaves_the_lonely(rng):
    xy = np.array([[0, 0], [0, 1], [0, 2.5], [9, 9]])
    A = gn.radius_graph(xy, 1.6)
    assert A.toarray().tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_rewiring_keeps_degrees_and_loses_the_labels(rng):
    xy = rng.uniform(size=(300, 2))
    A, label = gn.knn_graph(xy, 6), (xy[:, 0] > 0.5).astype(int)
    B = gn.rewired(A, seed=1)
    assert np.array_equal(np.asarray(A.sum(1)), np.asarray(B.sum(1)))
    assert B.diagonal().sum() == 0 and set(B.data) == {1.0} and abs(B - B.T).nnz == 0
    assert gn.homophily(A, label) > 0.9
    assert abs(gn.homophily(B, label) - 0.5) < 0.08
    assert A.multiply(B).nnz < 0.1 * A.nnz


def test_blocks_are_even_and_compact(rng):
    xy = rng.uniform(size=(400, 2))
    block = gn.spatial_blocks(xy, 4)
    assert set(block) == set(range(16))
    assert np.ptp(xy[block == 5], axis=0).max() < 0.4
    assert np.bincount(block // 4).tolist() == [100] * 4


# ---- rivals ----------------------------------------------------------------------------------------------------
def test_label_propagation_solves_its_equations_and_marks_what_it_cannot_reach(rng):
    A = gn.knn_graph(rng.normal(size=(60, 2)), 8).tolil()
    A[50:, :50], A[:50, 50:] = 0, 0  # an island without any known label
    A = gn.checked_adjacency(A)
    y, known = rng.integers(0, 3, 60), np.arange(0, 50, 5)
    shares = gn.label_propagation(A, y, known, 3, steps=5000, tol=1e-10)
    rest = np.setdiff1d(np.arange(50), known)
    L = sp.csc_matrix(sp.diags(np.asarray(A.sum(1)).ravel()) - A)
    exact = spsolve(L[rest][:, rest], -L[rest][:, known] @ np.eye(3)[y[known]])
    assert np.allclose(shares[rest], exact, atol=1e-6)
    assert np.allclose(shares[known], np.eye(3)[y[known]])
    assert np.allclose(shares[50:], np.eye(3)[y[known]].mean(0))
    hidden = y.copy()
    hidden[rest] = 0
    assert np.allclose(
        gn.label_propagation(A, hidden, known, 3, steps=5000, tol=1e-10), shares
    )  # unknown labels are not read


def test_smoothing_is_the_mean_of_the_neighbourhood():
    A = sp.csr_matrix(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    assert np.allclose(gn.smooth(np.array([[3.0], [0.0], [6.0]]), A, 1).ravel(), [1.5, 3, 3])


def test_energy_and_cosine_know_smooth_from_rough(graph, rng):
    path = sp.csr_matrix(sp.diags([np.ones(29), np.ones(29)], [1, -1]))
    root = np.sqrt(np.asarray(path.sum(1)).ravel() + 1)
    assert gn.dirichlet_energy(root[:, None], path) == pytest.approx(0, abs=1e-12)
    rough = ((-1.0) ** np.arange(30))[:, None]
    H = rng.normal(size=(30, 4))
    assert (
        gn.dirichlet_energy(rough, path)
        > gn.dirichlet_energy(H, path)
        > gn.dirichlet_energy(gn.smooth(H, path, 9), path)
    )
    S, by_edges = gn.normalised(path).toarray(), 0.0
    for i in range(30):  # the same energy as a sum over edges
        for j in range(30):
            by_edges += S[i, j] * root[i] * root[j] * ((H[i] / root[i] - H[j] / root[j]) ** 2).sum() / 2
    assert gn.dirichlet_energy(H, path) == pytest.approx(by_edges / (H**2).sum())
    assert gn.mean_cosine(np.ones((30, 3))) == pytest.approx(1)
    assert abs(gn.mean_cosine(rng.normal(size=(500, 50)))) < 0.05


# ---- training --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["gcn", "gat"])
def test_training_learns_regions_that_single_nodes_do_not_show_and_never_reads_hidden_labels(rng, kind):
    xy = rng.uniform(size=(300, 2))
    y = (xy[:, 0] > 0.5).astype(int)
    X, A = y[:, None] + rng.normal(0, 2, (300, 4)), gn.knn_graph(xy, 8)
    known = rng.permutation(300)[:150]
    rest = np.setdiff1d(np.arange(300), known)

    def answer(A, labels):
        torch.manual_seed(0)
        model = gn.GraphNet(4, 16, 2, kind)
        gn.train_nodes(model, X, A, labels, known, epochs=60, device="cpu")
        return gn.predict_nodes(model, X, A)

    right = (answer(A, y).argmax(1) == y)[rest].mean()
    assert right > 0.88
    assert (answer(gn.rewired(A), y).argmax(1) == y)[rest].mean() < right - 0.1
    blind = y.copy()
    blind[rest] = 0
    assert np.allclose(answer(A, blind), answer(A, y), atol=1e-3)  # to rounding: threads add in any order


def test_own_features_come_through_where_neighbours_drown_them(rng):
    y = rng.integers(0, 2, 300)
    X, A = y[:, None] + rng.normal(0, 0.3, (300, 3)), gn.knn_graph(rng.uniform(size=(300, 2)), 8)
    right = {}
    for own in (False, True):
        torch.manual_seed(0)
        model = gn.GraphNet(3, 16, 2, own=own)
        gn.train_nodes(model, X, A, y, np.arange(150), epochs=80, device="cpu")
        right[own] = (gn.predict_nodes(model, X, A).argmax(1) == y)[150:].mean()
    assert right[True] > 0.9 > right[False]


# ---- cells and genes -------------------------------------------------------------------------------------------
def test_cell_gene_messages_equal_those_sent_edge_by_edge(rng):
    a = gn.expression_weights(rng.poisson(0.7, (8, 20)).astype(float))
    net = gn.CellGeneNet(rng.normal(size=(20, 5)), 6, 3)
    with torch.no_grad():
        net.confidence.uniform_(0, 2)
        net.itself.fill_(0.3)
    got = net.gathered(torch.as_tensor(a)).detach().numpy()
    V, beta = net.genes.numpy(), net.confidence.detach().numpy()
    for c in range(8):
        wanted = sum(a[c, g] * (beta[g] + 0.3) * V[g] for g in range(20))
        assert np.allclose(got[c], wanted, atol=1e-5)


def test_edges_to_genes_sum_to_one_and_an_empty_cell_has_none(rng):
    a = gn.expression_weights(sp.csr_matrix(np.array([[0, 2.0, 2.0], [0, 0, 0]])))
    assert a.tolist() == [[0, 0.5, 0.5], [0, 0, 0]]
    V = gn.gene_states(gn.expression_weights(rng.poisson(1.0, (40, 25)).astype(float)), 5)
    assert V.shape == (25, 5) and np.isfinite(V).all()


def test_confidence_in_a_gene_can_be_learnt():
    net = gn.CellGeneNet(np.eye(4), 5, 2)
    net(torch.rand(6, 4)).sum().backward()
    assert net.confidence.grad.abs().min() > 0 and net.itself.grad.abs() > 0 and not net.genes.requires_grad


# ---- mistakes --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("A", "words"),
    [
        (np.ones((2, 3)), "nodes x nodes"),
        (np.array([[0, 1], [0, 0]]), r"not symmetric.*maximum\(A\.T\)"),
        (np.array([[0, -1], [-1, 0]]), "not negative"),
        (np.array([[0, np.nan], [np.nan, 0]]), "finite"),
        (np.zeros((0, 0)), "nodes x nodes"),
    ],
)
def test_an_adjacency_without_meaning_is_refused_in_words(A, words):
    for use in (gn.checked_adjacency, gn.normalised, gn.rewired):
        with pytest.raises(ValueError, match=words):
            use(A)


def test_features_that_do_not_match_the_graph_are_refused(graph, features):
    edges = gn.edges_of(gn.normalised(graph))
    for layer in (gn.GCNLayer(6, 2), gn.GATLayer(6, 2)):
        with pytest.raises(ValueError, match="30 nodes and a layer of 6"):
            layer(features[:20], edges)
        with pytest.raises(ValueError, match="give 30 x 6"):
            layer(features[:, :4], edges)
    with pytest.raises(ValueError, match="30 nodes and the features 20 rows"):
        gn.smooth(features[:20].numpy(), graph)
    with pytest.raises(ValueError, match="30 nodes and the features 20 rows"):
        gn.train_nodes(gn.GraphNet(6, 8, 2), features[:20], graph, np.zeros(20, int), np.arange(5))
    with pytest.raises(ValueError, match="5 genes for a graph of 4"):
        gn.CellGeneNet(np.eye(4), 5, 2)(torch.rand(6, 5))


def test_other_mistakes_say_what_to_do(rng, graph):
    Z = rng.normal(size=(10, 2))
    with pytest.raises(ValueError, match="at least one neighbour"):
        gn.knn_graph(Z, 0)
    with pytest.raises(ValueError, match="group 'b' has 2 nodes, and 4"):
        gn.knn_graph(Z, 3, ["a"] * 8 + ["b"] * 2)
    with pytest.raises(ValueError, match="9 groups were given for 10"):
        gn.knn_graph(Z, 3, ["a"] * 9)
    with pytest.raises(ValueError, match="NaN"):
        gn.knn_graph(np.full((5, 2), np.nan), 1)
    with pytest.raises(ValueError, match="positive"):
        gn.radius_graph(Z, 0)
    with pytest.raises(ValueError, match="symmetric"):
        gn.normalised(graph, kind="rows")
    with pytest.raises(ValueError, match="needs known nodes"):
        gn.label_propagation(graph, np.zeros(30, int), [], 2)
    with pytest.raises(ValueError, match="divide among the heads"):
        gn.GraphNet(4, 10, 2, "gat", heads=4)
    with pytest.raises(ValueError, match="strips=1"):
        gn.spatial_blocks(Z, 1)
    with pytest.raises(ValueError, match="cannot be negative"):
        gn.expression_weights(np.array([[-1.0, 2.0]]))


def test_edges_listed_twice_add_up_and_zeros_are_no_edges():
    twice = sp.coo_matrix(([1.0, 1.0, 2.0, 0.0, 0.0], ([0, 0, 1, 0, 2], [1, 1, 0, 2, 0])), shape=(3, 3))
    A = gn.checked_adjacency(twice)
    assert A[0, 1] == A[1, 0] == 2 and A.nnz == 2
