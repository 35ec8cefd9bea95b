"""What the layers do to cells can be measured again, and their truth is exact; tolerances are four standard errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

from scprimer.data.simulate import (
    add_ambient,
    add_doublets,
    add_hashtags,
    add_jackpots,
    add_spike_ins,
    antibody_counts,
    damage,
    empty_droplets,
    mixtures,
    null_split,
    populations,
    profiles,
    spike_mix,
    with_empty_droplets,
)
from scprimer.data.simulate.counts import thin


def totals(x) -> np.ndarray:
    return np.asarray(getattr(x, "X", x).sum(axis=1), dtype=float).ravel()


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return populations(900, 300, 3, markers_per_type=15, n_donors=3, proportions=[0.5, 0.3, 0.2], seed=11)


@pytest.fixture(scope="module")
def two_worlds() -> AnnData:
    """Two types that share no gene: whatever a cell has of the other's genes is not its own."""
    table, _ = profiles(200, 1, markers_per_type=0, mito=False, seed=1)
    genes = [f"a{i}" for i in range(200)], [f"b{i}" for i in range(200)]
    blocks = [table.set_axis(names).set_axis([n[0][0]], axis=1) for names, n in zip(genes, genes)]
    return populations(1000, biology=pd.concat(blocks).fillna(0.0), library_size=(4000, 0.4), mito=None, seed=2)


# ---- damage ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("fraction", "loss"), [(0.1, (0.6, 0.6)), (0.3, (0.2, 0.8))])
def test_damaged_cells_lose_the_stated_share_and_keep_mitochondrial_molecules(cells, fraction, loss):
    out = damage(cells, fraction, loss=loss, seed=3)
    hurt = out.obs["damaged"].to_numpy()
    assert hurt.sum() == round(fraction * cells.n_obs)
    mito = out.var_names.str.startswith("MT-")
    assert (out[:, mito].X != cells[:, mito].X).nnz == 0
    assert (out[~hurt].X != cells[~hurt].X).nnz == 0
    before, after = totals(cells[hurt][:, ~mito]), totals(out[hurt][:, ~mito])
    lost = out.obs.loc[hurt, "damage_loss"].to_numpy()
    assert lost.min() >= loss[0]
    assert lost.max() <= loss[1]
    width = (loss[1] - loss[0]) / np.sqrt(12)  # uniform between the two
    assert lost.mean() == pytest.approx(np.mean(loss), abs=4 * width / np.sqrt(len(lost)) + 1e-9)
    z = (after - before * (1 - lost)) / np.sqrt(before * lost * (1 - lost))
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert z.std() == pytest.approx(1, abs=4 / np.sqrt(2 * len(z)))


# ---- doublets --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [0.0, 0.08, 0.3])
def test_doublets_have_the_rate_asked_for_and_are_the_sum_of_their_parents(cells, rate):
    out = add_doublets(cells, rate, seed=4)
    n_doublets = int(out.obs["doublet"].sum())
    assert n_doublets / out.n_obs == pytest.approx(rate, abs=1 / out.n_obs)
    assert out.n_obs + n_doublets == cells.n_obs  # two cells make one droplet
    assert totals(out).sum() == totals(cells).sum()
    parents = out.uns["truth"]["doublets"]
    assert set(parents.index) == set(out.obs_names[out.obs["doublet"]])
    assert not set(parents["parent_2"]) & set(out.obs_names)
    for name, row in parents.head(5).iterrows():
        both = cells[row["parent_1"]].X + cells[row["parent_2"]].X
        assert (both != out[name].X).nnz == 0
    assert (parents["type_1"] == cells.obs["cell_type"].astype(str)[parents["parent_1"]].to_numpy()).all()


def test_doublets_are_homotypic_as_often_as_chance_has_it(cells):
    out = add_doublets(cells, 0.4, seed=5)
    kinds = out.obs["doublet_kind"].value_counts()
    n, expected = kinds["homotypic"] + kinds["heterotypic"], (np.array([0.5, 0.3, 0.2]) ** 2).sum()
    assert kinds["homotypic"] / n == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / n))
    assert kinds["singlet"] == (~out.obs["doublet"]).sum()
    pairs = out.uns["truth"]["doublets"]
    assert (pairs["type_1"] == pairs["type_2"]).sum() == kinds["homotypic"]
    assert out.obs["doublet"].iloc[: out.n_obs // 2].mean() == pytest.approx(0.4, abs=0.1)  # shuffled


def test_a_doublet_keeps_the_share_of_molecules_asked_for(cells):
    whole, half = (add_doublets(cells, 0.3, capture=c, seed=5) for c in (1.0, 0.5))
    assert set(whole.uns["truth"]["doublets"]["parent_1"]) == set(half.uns["truth"]["doublets"]["parent_1"])
    before, after = (totals(a)[a.obs["doublet"]].sum() for a in (whole, half))
    assert after / before == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(before))
    assert totals(half)[~half.obs["doublet"]].sum() == totals(whole)[~whole.obs["doublet"]].sum()


# ---- ambient RNA -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
def test_ambient_rna_has_the_fraction_asked_for(two_worlds, fraction):
    out = add_ambient(two_worlds, fraction, spread=0.2, seed=6)
    n = out.n_obs
    middle = np.abs(np.log(totals(two_worlds) / np.median(totals(two_worlds)))) < 0.1  # droplets of about median size
    spread = 0.35 * fraction  # of the fraction over these droplets
    assert np.median(out.obs["ambient_fraction"][middle]) == pytest.approx(
        fraction, abs=4 * 1.2533 * spread / np.sqrt(middle.sum()) + 0.02 * fraction
    )
    assert (out.layers["native"] != two_worlds.X).nnz == 0
    ambient = out.X - out.layers["native"]
    assert ambient.min() == 0
    assert totals(ambient) / totals(out) == pytest.approx(out.obs["ambient_fraction"].to_numpy())
    # found again without the truth: foreign molecules over what share of the soup is foreign
    is_a, from_a = (out.obs["cell_type"] == "a").to_numpy(), out.var_names.str.startswith("a")
    soup = out.uns["truth"]["soup"]["share"]
    foreign = np.where(is_a, totals(out[:, ~from_a]), totals(out[:, from_a]))
    share = np.where(is_a, soup[~from_a].sum(), soup[from_a].sum())
    found = (foreign / share).sum() / totals(out).sum()
    true = (out.obs["ambient_fraction"] * totals(out)).sum() / totals(out).sum()
    assert found == pytest.approx(true, rel=4 / np.sqrt(foreign.sum()))
    assert n == two_worlds.n_obs


def test_small_cells_are_the_most_contaminated_and_the_soup_is_what_one_gives(two_worlds):
    out = add_ambient(two_worlds, 0.1, spread=0.0, seed=6)
    assert np.corrcoef(np.log(totals(two_worlds)), out.obs["ambient_fraction"])[0, 1] < -0.8
    assert out.uns["truth"]["soup"]["share"].sum() == pytest.approx(1)
    given = np.where(two_worlds.var_names.str.startswith("a"), 1.0, 0.0)
    only_a = add_ambient(two_worlds, 0.1, soup=given, seed=6)
    added = np.asarray((only_a.X - only_a.layers["native"]).sum(axis=0)).ravel()
    assert added[given == 0].sum() == 0
    assert added[given == 1].sum() > 0
    nothing = add_ambient(two_worlds, 0.0, seed=6)
    assert (nothing.X != two_worlds.X).nnz == 0
    assert nothing.obs["ambient_fraction"].eq(0).all()


def test_empty_droplets_hold_the_soup_and_nothing_else(cells):
    wet = add_ambient(cells, 0.1, seed=7)
    empty = empty_droplets(wet, 3000, umis=(60, 0.4), seed=7)
    assert np.median(totals(empty)) == pytest.approx(60, rel=4 * 1.2533 * 0.45 / np.sqrt(3000) + 0.01)
    soup = wet.uns["truth"]["soup"]["share"].to_numpy()
    counts = np.asarray(empty.X.sum(axis=0)).ravel()
    expected = counts.sum() * soup
    seen = expected > 5
    chi2 = ((counts - expected) ** 2 / expected)[seen].sum()
    assert abs(chi2 - seen.sum()) < 4 * np.sqrt(2 * seen.sum())
    cell_like = np.asarray(cells.X[(cells.obs["cell_type"] == "type_1").to_numpy()].sum(axis=0)).ravel()
    wrong = counts.sum() * cell_like / cell_like.sum()
    ok = wrong > 5
    assert ((counts - wrong) ** 2 / wrong)[ok].sum() > 2 * ok.sum()  # the test would notice another profile


def test_unfiltered_droplets_know_which_are_cells(cells):
    out = add_ambient(cells, 0.1, n_empty=500, empty_umis=(30, 0.3), seed=8)
    assert out.n_obs == cells.n_obs + 500
    is_cell = out.obs["is_cell"].to_numpy()
    assert is_cell.sum() == cells.n_obs
    assert is_cell[:500].any()
    assert not is_cell[:500].all()  # in random order
    assert out.obs["cell_type"].isna().equals(~out.obs["is_cell"])
    assert out.layers["native"][~is_cell].nnz == 0
    assert out.obs["ambient_fraction"][~is_cell].eq(1).all()
    assert totals(out)[~is_cell].max() < totals(out)[is_cell].min()
    doublets = add_ambient(add_doublets(cells, 0.1, seed=1), 0.1, n_empty=50, seed=8)
    assert doublets.obs["doublet"].dtype == bool


# ---- hashtags --------------------------------------------------------------------------------------------------
def test_hashtags_have_the_signal_and_background_asked_for(cells):
    out = add_hashtags(cells, 4, signal=(400, 0.5), background=(20, 0.01), dispersion=0.1, unstained=0.1, seed=9)
    counts = out.obsm["hashtags"]
    kind = out.obs["hashtag_class"]
    assert (kind == "negative").mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / out.n_obs))
    assert not (kind == "doublet").any()
    own = np.array([counts.loc[name, tag] for name, tag in out.obs["hashtag"][kind == "singlet"].items()])
    mean = 400 * np.exp(0.5**2 / 2) + 20
    sd = np.sqrt(np.expm1(0.5**2) + 0.1 * np.exp(0.5**2))
    assert own.mean() == pytest.approx(mean, rel=4 * sd / np.sqrt(len(own)) + 0.01)
    negative = counts[kind == "negative"].to_numpy().ravel()
    assert negative.mean() == pytest.approx(20, rel=4 * np.sqrt(1 / 20 + 0.1) / np.sqrt(len(negative)) + 0.01)
    assert out.obs["hashtag"][kind == "singlet"].value_counts().min() > 0.7 * (kind == "singlet").sum() / 4


def test_doublets_within_a_tag_cannot_be_seen_by_tags(cells):
    droplets = add_doublets(cells, 0.4, seed=1)
    out = add_hashtags(droplets, 3, seed=9)
    seen = (out.obs["hashtag_class"] == "doublet")[out.obs["doublet"]]
    assert seen.mean() == pytest.approx(2 / 3, abs=4 * np.sqrt(2 / 9 / len(seen)))
    assert not (out.obs["hashtag_class"] == "doublet")[~out.obs["doublet"]].any()
    two = out.obs["hashtag"][out.obs["hashtag_class"] == "doublet"].iloc[0].split("+")
    assert len(two) == 2
    means = out.obsm["hashtags"].loc[out.obs["hashtag"] == "+".join(two)].mean()
    assert means[two].min() > 5 * means.drop(two).max()


def test_hashtags_may_follow_the_donor_and_spare_empty_droplets(cells):
    out = add_hashtags(add_ambient(cells, 0.1, n_empty=100, seed=1), by="donor", seed=2)
    held = out[out.obs["is_cell"]]
    table = pd.crosstab(held.obs["donor"], held.obs["hashtag"])
    assert (table > 0).sum().tolist() == [1, 1, 1]
    assert (out.obs["hashtag_class"][~out.obs["is_cell"]] == "negative").all()


# ---- spike-ins -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("efficiency", "spread"), [(0.05, 0.1), (0.3, 0.4)])
def test_spike_ins_have_their_molecules_efficiency_and_noise(cells, efficiency, spread):
    out = add_spike_ins(cells, molecules=30_000, efficiency=efficiency, efficiency_spread=spread, seed=10)
    spikes = out[:, out.var["spike_in"].to_numpy()]
    given = out.uns["truth"]["spike_ins"]["molecules"]
    assert given.sum() == pytest.approx(30_000)
    assert spikes.n_vars == 92
    assert out.n_vars == cells.n_vars + 92
    assert out.obs["capture_efficiency"].mean() == pytest.approx(
        efficiency, rel=4 * np.sqrt(np.expm1(spread**2) / out.n_obs)
    )
    # per transcript, given the efficiencies that were drawn
    mean, expected = np.asarray(spikes.X.mean(axis=0)).ravel(), given * out.obs["capture_efficiency"].mean()
    z = (mean - expected) / np.sqrt(expected / out.n_obs)
    assert np.abs(z[expected > 0.05]).max() < 5
    counts = spikes.X.toarray()[:, (expected > 20).to_numpy()]
    noise = counts.var(axis=0) / counts.mean(axis=0) ** 2
    predicted = 1 / counts.mean(axis=0) + np.expm1(spread**2)
    assert (noise / predicted).mean() == pytest.approx(1, abs=4 * np.sqrt(2 / out.n_obs) + 0.1)


def test_spike_ins_take_the_concentrations_given(cells):
    out = add_spike_ins(cells, {"X": 3.0, "Y": 1.0}, molecules=400, seed=1)
    assert out.uns["truth"]["spike_ins"]["molecules"].to_dict() == {"X": 300.0, "Y": 100.0}
    assert spike_mix(10, span=512).iloc[0] / spike_mix(10, span=512).iloc[-1] == pytest.approx(512)
    assert spike_mix().sum() == pytest.approx(1)


# ---- jackpots, null split --------------------------------------------------------------------------------------
def test_jackpots_blow_up_the_stated_number_of_entries(cells):
    out = add_jackpots(cells, 2.0, size=(30, 0.5), seed=12)
    table = out.uns["truth"]["jackpots"]
    assert len(table) == pytest.approx(2 * cells.n_obs, abs=4 * np.sqrt(2 * cells.n_obs))
    assert table["added"].median() == pytest.approx(30, rel=4 * 1.2533 * 0.5 / np.sqrt(len(table)) + 0.03)
    difference = (out.X - cells.X).tocoo()
    assert difference.nnz == len(table)
    assert difference.sum() == table["added"].sum()
    row = table.iloc[0]
    assert out[row["cell"], row["gene"]].X.sum() == cells[row["cell"], row["gene"]].X.sum() + row["added"]


def test_a_null_split_is_even_and_follows_nothing(cells):
    out = null_split(cells, 2, seed=13)
    assert out.obs["group"].value_counts().tolist() == [450, 450]
    first = (out.obs["group"] == "group_1").to_numpy()
    logs = np.log(totals(out))
    assert logs[first].mean() == pytest.approx(logs[~first].mean(), abs=4 * logs.std() * np.sqrt(2 / 450))
    donors = null_split(cells, 3, by="donor", seed=13)
    assert (pd.crosstab(donors.obs["donor"], donors.obs["group"]) > 0).sum(axis=1).tolist() == [1, 1, 1]
    assert not null_split(cells, seed=14).obs["group"].equals(out.obs["group"])


# ---- mixtures and antibodies -----------------------------------------------------------------------------------
def test_mixtures_hold_the_proportions_and_amounts_asked_for():
    table, _ = profiles(400, 3, markers_per_type=30, marker_log2fc=3, type_noise=0.5, mito=False, seed=1)
    design = pd.DataFrame(np.tile([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]], (100, 1)), columns=table.columns)
    amounts = np.tile([5.0, 5.0, 40.0, 40.0], 50)
    kwargs = {"amounts": amounts, "library_size": (20_000, 0.1), "amount_exponent": 0.8, "dispersion": 0.01}
    adata = mixtures(table, design, **kwargs, seed=2)
    shares = adata.X.toarray() / totals(adata)[:, None]
    weight = 1 / np.sqrt(table.mean(axis=1).to_numpy())  # counts of frequent genes are noisier
    found = np.linalg.lstsq(table.to_numpy() * weight[:, None], shares.T * weight[:, None], rcond=None)[0].T
    for rows, wanted in ((slice(0, None, 2), [0.7, 0.2, 0.1]), (slice(1, None, 2), [1 / 3] * 3)):
        error = 4 * found[rows].std(axis=0) / np.sqrt(100)
        assert np.all(np.abs(found[rows].mean(axis=0) - wanted) < error)
        assert error.max() < 0.02
    logs = np.log(totals(adata))
    slope = (logs[amounts == 40].mean() - logs[amounts == 5].mean()) / np.log(8)
    assert slope == pytest.approx(0.8, abs=4 * 0.12 * np.sqrt(2 / 100) / np.log(8))
    assert list(adata.obs.columns[:3]) == [f"proportion_type_{i}" for i in (1, 2, 3)]
    with pytest.raises(ValueError, match="same sources"):
        mixtures(table, design.rename(columns={"type_1": "other"}))
    with pytest.raises(ValueError, match="amounts"):
        mixtures(table, design, amounts=[1.0])
    with pytest.raises(ValueError, match="negative"):
        mixtures(table, -design)


def test_antibody_counts_have_background_signal_and_a_shared_factor():
    levels = pd.DataFrame({"CD3": {"T": 200.0, "B": 0.0}, "CD19": {"T": 0.0, "B": 100.0}})
    background = pd.Series({"CD3": 10.0, "CD19": 20.0, "isotype": 15.0})
    types = np.repeat(["T", "B", "empty"], 1000)
    counts, truth = antibody_counts(
        types, levels, background, stickiness=0.4, dispersion=0.1, signal_spread=0.3, seed=3
    )
    sd = np.sqrt(np.expm1(0.4**2) + 0.1 * np.exp(0.4**2) + 0.1)  # of a background count, relative to its mean
    empty = counts[types == "empty"]
    for protein, level in background.items():  # means: the median of a skewed count is below that of its rate
        assert empty[protein].mean() == pytest.approx(level * np.exp(0.4**2 / 2), rel=4 * sd / np.sqrt(1000))
    signal = 200 * np.exp(0.3**2 / 2) + 10 * np.exp(0.4**2 / 2)
    assert counts["CD3"][types == "T"].mean() == pytest.approx(signal, rel=4 * 0.45 / np.sqrt(1000))
    assert counts["CD19"][types == "T"].mean() == pytest.approx(20 * np.exp(0.4**2 / 2), rel=4 * sd / np.sqrt(1000))
    assert np.corrcoef(np.log1p(counts["isotype"]), np.log(truth["stickiness"]))[0, 1] > 0.6
    calm, _ = antibody_counts(types, levels, background, stickiness=0.0, dispersion=0.0, seed=3)
    assert calm["isotype"].var() == pytest.approx(15, rel=4 * np.sqrt(2 / 3000) + 0.03)
    with pytest.raises(ValueError, match="background lacks"):
        antibody_counts(types, levels, background.drop("CD3"))


# ---- all of them -----------------------------------------------------------------------------------------------
LAYERS = {
    "damage": lambda a, s: damage(a, 0.1, seed=s),
    "add_doublets": lambda a, s: add_doublets(a, 0.1, seed=s),
    "add_ambient": lambda a, s: add_ambient(a, 0.1, n_empty=20, seed=s),
    "add_hashtags": lambda a, s: add_hashtags(a, 3, seed=s),
    "add_spike_ins": lambda a, s: add_spike_ins(a, seed=s),
    "add_jackpots": lambda a, s: add_jackpots(a, 1.0, seed=s),
    "null_split": lambda a, s: null_split(a, seed=s),
}


def snapshot(adata: AnnData) -> tuple:
    tags = adata.obsm["hashtags"].to_numpy().tobytes() if "hashtags" in adata.obsm else b""
    return adata.X.toarray().tobytes(), adata.obs.to_csv(), tags, sorted(adata.uns["truth"])


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_leaves_its_input_alone_and_repeats_with_its_seed(cells, name):
    before = snapshot(cells)
    one, same, other = (snapshot(LAYERS[name](cells, s)) for s in (1, 1, 2))
    assert snapshot(cells) == before
    assert one == same
    assert one != other


def test_layers_compose_and_all_their_truth_survives_a_file(cells, tmp_path):
    out = cells
    for layer in LAYERS.values():
        out = layer(out, 3)
    assert {*LAYERS, "empty_droplets"} == set(out.uns["truth"]["layers"])
    out.write_h5ad(tmp_path / "all.h5ad")
    back = read_h5ad(tmp_path / "all.h5ad")
    assert (back.X != out.X).nnz == 0
    pd.testing.assert_frame_equal(back.obs, out.obs, check_dtype=False, check_categorical=False)
    for key in ("doublets", "soup", "spike_ins", "jackpots", "profiles", "genes"):
        pd.testing.assert_frame_equal(
            back.uns["truth"][key], out.uns["truth"][key], check_names=False, check_dtype=False
        )
    assert back.uns["truth"]["layers"]["add_doublets"]["rate"] == 0.1
    pd.testing.assert_frame_equal(back.obsm["hashtags"], out.obsm["hashtags"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: damage(a, 1.5), "fraction=1.5: use a number from 0 to 1"),
        (lambda a: damage(a, 0.1, loss=(0.9, 0.1)), "the smaller share comes first"),
        (lambda a: add_doublets(a, 1.0), "rate=1.0: use a number from 0 to below 1"),
        (lambda a: add_doublets(a, -0.1), "rate=-0.1"),
        (lambda a: add_ambient(a, 1.0), "fraction=1.0"),
        (lambda a: add_ambient(a, 0.1, soup=[1.0]), "one non-negative share for each of the 300 genes"),
        (lambda a: empty_droplets(a, 0), "n=0"),
        (lambda a: empty_droplets(a, 5, umis=(0, 1)), "must be above 0"),
        (lambda a: add_hashtags(a, 1), "n_tags=1: use a whole number of at least 2"),
        (lambda a: add_hashtags(a, by="nobody"), "by='nobody' is no column of obs"),
        (lambda a: add_hashtags(a, 2, unstained=2), "unstained=2"),
        (lambda a: add_spike_ins(a, {"a": 0.0}), "must be above 0"),
        (lambda a: add_spike_ins(a, efficiency=0), "efficiency=0"),
        (lambda a: add_spike_ins(add_spike_ins(a)), "in the data already: ERCC-00001"),
        (lambda a: add_jackpots(a, -1), "per_cell=-1"),
        (lambda a: null_split(a, 1), "n_groups=1"),
        (lambda a: null_split(a, 4, by="donor"), "3 donor values cannot be split into 4 groups"),
        (lambda a: null_split(a, by="nobody"), "is no column of obs"),
        (lambda a: with_empty_droplets(a, empty_droplets(a[:, :10], 5)), "different genes"),
    ],
)
def test_impossible_arguments_are_explained(cells, call, words):
    with pytest.raises(ValueError, match=words):
        call(cells)


def test_thinning_keeps_the_stated_share(cells):
    rng = np.random.default_rng(0)
    kept = thin(rng, cells.X, 0.3)
    n = float(cells.X.sum())
    assert kept.sum() / n == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / n))
    by_cell = thin(rng, cells.X, np.where(np.arange(cells.n_obs) < 10, 0.0, 1.0))
    assert totals(by_cell)[:10].sum() == 0
    assert totals(by_cell)[10:].sum() == totals(cells)[10:].sum()
