"""The diffusion chapter's parts: algebra, samplers, network and judges, each against something that is known."""

from functools import partial

import numpy as np
import pytest
import torch

from scprimer.methods.diffusion import (
    Denoiser,
    Schedule,
    ancestral,
    clean,
    cosine_schedule,
    coverage_density,
    ddpm_loss,
    distance_to,
    linear_schedule,
    mixture_guess,
    nearer,
    posterior,
    q_sample,
    sample,
    time_features,
    train_ddpm,
    two_sample_auc,
)


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule])
def test_schedules_go_from_cell_to_noise(make):
    schedule = make(100)
    kept = schedule.alpha_bar(torch.arange(101))
    assert len(schedule) == 100 and kept[0] == 1 and kept[-1] < 1e-3
    assert (kept.diff() < 0).all()
    assert torch.allclose(kept[1:], torch.cumprod(1 - schedule.beta, 0))


@pytest.mark.parametrize("beta", [[0.1, 1.0], [0.0, 0.5], [[0.1, 0.2]]])
def test_a_schedule_refuses_what_is_no_variance(beta):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Schedule(torch.tensor(beta, dtype=torch.float64))


def test_noising_keeps_signal_and_noise_in_the_closed_forms_shares():
    schedule = linear_schedule(50)
    x0, noise = torch.full((3, 2), 2.0), torch.full((3, 2), -1.0)
    x = q_sample(schedule, x0, torch.tensor([0, 25, 50]), noise)
    a = schedule.alpha_bar(torch.tensor([0, 25, 50])).float()
    assert torch.allclose(x[0], x0[0])
    assert torch.allclose(x[:, 0], 2 * a.sqrt() - (1 - a).sqrt())


def test_the_step_back_is_consistent_with_the_step_forward():
    """x_t drawn given x_0, and then one step back, has the closed form's mean and variance of x_{t-1}."""
    schedule, t = cosine_schedule(20), torch.full((200_000,), 12)
    torch.manual_seed(0)
    x0 = torch.full((len(t), 1), 0.8, dtype=torch.float64)
    x = q_sample(schedule, x0, t, torch.randn_like(x0))
    mean, variance = posterior(schedule, x0, x, t)
    back = mean + variance.sqrt() * torch.randn_like(mean)
    a = float(schedule.alpha_bar(torch.tensor(11)))
    assert abs(float(back.mean()) - 0.8 * a**0.5) < 0.01
    assert abs(float(back.var()) / (1 - a) - 1) < 0.02


def test_the_first_step_back_ends_at_the_cell():
    schedule = cosine_schedule(20)
    mean, variance = posterior(schedule, torch.ones(2, 3), torch.randn(2, 3), torch.tensor([1, 1]))
    assert torch.allclose(mean, torch.ones(2, 3)) and torch.allclose(variance, torch.zeros(2, 1))


def test_general_sampler_equals_the_papers():
    schedule, generator = cosine_schedule(25), torch.Generator().manual_seed(3)
    guess = lambda x, t: 0.3 * torch.tanh(x) + 0.1 * t[:, None] / 25  # noqa: E731
    x = torch.randn((6, 2), generator=generator, dtype=torch.float64)
    ours = sample(guess, schedule, (6, 2), seed=3, dtype=torch.float64)
    assert np.allclose(ours, ancestral(guess, schedule, x, generator).numpy(), atol=1e-10)


def test_sampler_without_noise_is_decided_by_its_start():
    schedule = cosine_schedule(30)
    guess = lambda x, t: x * 0.5  # noqa: E731
    a, b, c = (sample(guess, schedule, (4, 2), steps=7, eta=0.0, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.allclose(a, c)


def test_guesses_stay_in_the_box():
    made = sample(lambda x, t: 100 * x, cosine_schedule(10), (50, 2), box=([-1.0, 0.0], [1.0, 0.5]))
    assert (made >= [-1, 0]).all() and (made <= [1, 0.5]).all()


@pytest.mark.parametrize("steps", [0, 11])
def test_sampler_refuses_impossible_steps(steps):
    with pytest.raises(ValueError, match="between 1 and the schedule's 10"):
        sample(lambda x, t: x, cosine_schedule(10), (2, 2), steps=steps)


def test_perfect_guess_of_one_gaussian_is_linear_shrinkage():
    schedule, t = cosine_schedule(40), torch.full((5,), 20)
    guess = mixture_guess([1.0], np.zeros((1, 2)), 4 * np.eye(2)[None], schedule)
    x, a = torch.randn(5, 2), float(schedule.alpha_bar(torch.tensor(20)))
    assert torch.allclose(guess(x, t), x * a**0.5 * 4 / (4 * a + 1 - a), atol=1e-5)


def test_perfect_guess_matches_a_mean_over_draws():
    schedule, rng = cosine_schedule(40), np.random.default_rng(0)
    mu = np.array([[-1.0], [1.0]])
    guess = mixture_guess([0.3, 0.7], mu, 0.05 * np.ones((2, 1, 1)), schedule)
    x0 = mu[(rng.random(400_000) < 0.7).astype(int), 0] + 0.05**0.5 * rng.normal(size=400_000)
    a = float(schedule.alpha_bar(torch.tensor(25)))
    x = a**0.5 * x0 + (1 - a) ** 0.5 * rng.normal(size=len(x0))
    near = np.abs(x - 0.2) < 0.02
    exact = float(guess(torch.tensor([[0.2]]), torch.tensor([25])))
    assert abs(exact - x0[near].mean()) < 0.03


@pytest.mark.parametrize("predicts", ["noise", "velocity"])
def test_a_right_answer_gives_the_clean_cell(predicts):
    schedule, model = cosine_schedule(20), Denoiser(3, n_steps=20, width=16, predicts=predicts)
    x0, noise, t = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([1, 5, 10, 18])
    a = schedule.alpha_bar(t)[:, None].float()
    right = noise if predicts == "noise" else a.sqrt() * noise - (1 - a).sqrt() * x0
    model.forward = lambda x, t, label=None: right
    assert torch.allclose(clean(model, schedule, q_sample(schedule, x0, t, noise), t), x0, atol=1e-4)


def test_guidance_exaggerates_the_difference_and_needs_a_label():
    schedule, model = cosine_schedule(20), Denoiser(2, 3, n_steps=20, width=16)
    model.forward = lambda x, t, label=None: torch.zeros_like(x) if label is None else torch.ones_like(x)
    x, t, label = torch.zeros(2, 2), torch.tensor([10, 10]), torch.tensor([0, 1])
    plain, strong = (clean(model, schedule, x, t, label, w) for w in (0.0, 2.0))
    assert torch.allclose(strong, 3 * plain) and (plain != 0).all()
    assert torch.equal(clean(model, schedule, x, t, None, 2.0), torch.zeros(2, 2))


def test_network_shapes_and_untrained_answer():
    model = Denoiser(5, 3, n_steps=10, width=16)
    out = model(torch.randn(7, 5), torch.arange(1, 8), torch.tensor([0, 1, 2, 3, 0, 1, 2]))
    assert out.shape == (7, 5) and not out.any()
    assert time_features(torch.tensor([0, 5]), 8).shape == (2, 8)
    with pytest.raises(ValueError, match="velocity"):
        Denoiser(5, n_steps=10, predicts="x0")


def test_training_lowers_the_loss_and_finds_two_clusters():
    rng, schedule = np.random.default_rng(0), cosine_schedule(30)
    x0 = np.where(rng.random((400, 1)) < 0.5, -1.0, 1.0) + 0.1 * rng.normal(size=(400, 1))
    torch.manual_seed(0)
    model = Denoiser(1, n_steps=30, width=32)
    history = train_ddpm(model, schedule, x0, epochs=60, batch_size=100, learning_rate=5e-3, device="cpu")
    assert history.train[-1] < 0.8 * history.train[0]
    made = sample(partial(clean, model, schedule), schedule, (300, 1), seed=1)
    assert (np.abs(np.abs(made) - 1) < 0.5).mean() > 0.85
    assert 0.3 < (made > 0).mean() < 0.7


def test_types_are_withheld_in_training_only():
    seen, model = [], Denoiser(2, 4, n_steps=10, width=16)
    model.forward = lambda x, t, label=None: seen.append(label) or torch.zeros_like(x)
    batch = {"x": torch.randn(2000, 2), "label": torch.zeros(2000, dtype=torch.long)}
    torch.manual_seed(0)
    ddpm_loss(model.train(), cosine_schedule(10), batch)
    ddpm_loss(model.eval(), cosine_schedule(10), batch)
    assert 0.15 < (seen[0] == 4).float().mean() < 0.25 and (seen[1] == 0).all()


@pytest.mark.parametrize(
    "cells, labels, words",
    [
        (np.ones((5, 3)), None, "cells x 2 features"),
        (np.ones(5), None, "cells x 2 features"),
        (np.full((5, 2), np.nan), None, "NaN"),
        (np.ones((5, 2)), np.full(5, 9), "codes from 0 to 3"),
        (np.ones((5, 2)), np.full(5, -1), "codes from 0 to 3"),
    ],
)
def test_training_says_what_is_wrong(cells, labels, words):
    with pytest.raises(ValueError, match=words):
        train_ddpm(Denoiser(2, 3, n_steps=10, width=16), cosine_schedule(10), cells, labels, epochs=1, device="cpu")


def test_training_refuses_a_schedule_of_another_length():
    with pytest.raises(ValueError, match="has 20 steps, the model was made for 10"):
        train_ddpm(Denoiser(2, n_steps=10), cosine_schedule(20), np.ones((5, 2)), epochs=1, device="cpu")


def test_two_sample_auc_knows_same_and_different():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300, 4))
    assert abs(two_sample_auc(a, b) - 0.5) < 0.1
    assert two_sample_auc(a, b + 5) > 0.99
    with pytest.raises(ValueError, match="too few"):
        two_sample_auc(a[:10], b)


def test_coverage_sees_what_is_missing():
    rng = np.random.default_rng(0)
    real, both = (np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 20]) for _ in range(2))
    coverage, density = coverage_density(real, both)
    assert coverage > 0.9 and 0.7 < density < 1.3
    assert coverage_density(real, both[:100])[0] == pytest.approx(coverage / 2, abs=0.05)  # half is missing
    assert coverage_density(real, both + 100) == (0.0, 0.0)


def test_coverage_by_hand():
    real, made = np.arange(4.0)[:, None], np.array([[0.4], [10.0]])
    coverage, density = coverage_density(real, made, k=1)  # every ball has radius 1
    assert coverage == 0.5 and density == 2 / 2


def test_nearer_tells_copies_from_new_cells():
    rng = np.random.default_rng(0)
    training, held, new = rng.normal(size=(3, 200, 5))
    assert nearer(training, training, held) == 1
    assert abs(nearer(new, training, held) - 0.5) < 0.1
    assert nearer(held, training, held) == pytest.approx(0.5)  # ties count half
    assert np.allclose(distance_to(training[:5], training), 0)
