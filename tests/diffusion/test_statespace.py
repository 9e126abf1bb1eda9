"""The state space against what is known from elsewhere: dense Gaussians, statsmodels, truth."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

from skdiffusion._random import normals as addressed_normals
from skdiffusion.diffusion.statespace import base as base_module
from skdiffusion.diffusion.statespace import em as em_module
from skdiffusion.diffusion.statespace import fit as fit_module
from skdiffusion.diffusion.statespace import groups as groups_module
from skdiffusion.diffusion.statespace import kalman, smoother
from skdiffusion.diffusion.statespace.base import SeriesGaussian
from skdiffusion.diffusion.statespace.em import first_guess, maximise, raise_order
from skdiffusion.diffusion.statespace.fit import fit_state_space
from skdiffusion.diffusion.statespace.groups import Group, GroupedGaussian
from skdiffusion.diffusion.statespace.judge import normal_crps
from skdiffusion.diffusion.statespace.kalman import StateSpace
from skdiffusion.diffusion.statespace.pieces import Pieces, hide
from skdiffusion.diffusion.statespace.profile import Profile
from skdiffusion.diffusion.statespace.season import Season
from skdiffusion.diffusion.statespace.shape import Shape
from skdiffusion.diffusion.statespace.smoother import draw_states, smooth, window_covariance
from skdiffusion.diffusion.window.series import WindowedSeries

FALSE_ALARM = 1e-6


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def positive(n, seed):
    factor = randn(n, n, seed=seed)
    return factor @ factor.T / n + 0.3 * torch.eye(n, dtype=torch.float64)


def state_space(n_states=2, order=1, n_cells=None, seed=0):
    """A stable model; without ``n_cells`` every cell has a state of its own."""
    n = n_states * order
    transition = randn(n_states, n, seed=seed)
    # Row sums below 1 keep the recursion from growing.
    transition = 0.9 * transition / transition.abs().sum(1, keepdim=True)
    loadings = torch.eye(n_states, dtype=torch.float64)
    if n_cells is not None:
        loadings = randn(n_cells, n_states, seed=seed + 1)
    noise = 0.05 + 0.2 * randn(len(loadings), seed=seed + 2).abs()
    return StateSpace(
        transition, positive(n_states, seed + 3), loadings, noise, positive(n, seed + 4)
    )


MODELS = {
    "order 1": state_space(3),
    "order 2": state_space(2, 2, seed=10),
    "order 3": state_space(2, 3, seed=20),
    "more cells than states": state_space(2, 2, n_cells=5, seed=30),
    "fewer cells than states": state_space(3, 1, n_cells=2, seed=40),
}


def companion(model):
    """Transition and innovation of the whole state, dense."""
    r, n = model.transition.shape
    step, innovation = np.zeros((n, n)), np.zeros((n, n))
    step[:r], step[r:, : n - r] = model.transition, np.eye(n - r)
    innovation[:r, :r] = model.innovation
    return step, innovation


def dense(model, n_times):
    """Covariance of the states of all rows, and loadings of all cells on them."""
    step, innovation = companion(model)
    n, covariance = len(step), model.initial.numpy()
    joint = np.zeros((n_times, n, n_times, n))
    for t in range(n_times):
        later = covariance
        for s in range(t, n_times):
            joint[s, :, t], joint[t, :, s] = later, later.T
            later = step @ later
        covariance = step @ covariance @ step.T + innovation
    loadings = np.kron(np.eye(n_times), np.pad(model.loadings, ((0, 0), (0, n - model.n_states))))
    return joint.reshape(n_times * n, n_times * n), loadings


def dense_smoother(model, values, observed):
    """Means (T, n) and the covariance (T, n, T, n) of the states of one series."""
    joint, loadings = dense(model, len(values))
    seen = observed.numpy().ravel()
    loadings, noise = loadings[seen], np.tile(model.noise, len(values))[seen]
    total = loadings @ joint @ loadings.T + np.diag(noise)
    gain = np.linalg.solve(total, loadings @ joint).T
    mean, n = gain @ values.numpy().ravel()[seen], model.transition.shape[1]
    covariance = joint - gain @ loadings @ joint
    return mean.reshape(-1, n), covariance.reshape(len(values), n, len(values), n)


def log_likelihood(model, values, observed):
    """Log-density of what is observed of one series."""
    joint, loadings = dense(model, len(values))
    seen = observed.numpy().ravel()
    loadings, noise = loadings[seen], np.tile(model.noise, len(values))[seen]
    factor = np.linalg.cholesky(loadings @ joint @ loadings.T + np.diag(noise))
    white = np.linalg.solve(factor, values.numpy().ravel()[seen])
    return -0.5 * (white @ white + len(white) * np.log(2 * np.pi)) - np.log(np.diag(factor)).sum()


def gappy(model, n_times=12, n_series=2, seed=50):
    """Values and gaps: scattered cells, and a stretch without any value in the first series."""
    shape = n_series, n_times, len(model.loadings)
    observed = torch.rand(shape, generator=rng(seed)) > 0.3
    observed[0, n_times // 3 : 2 * n_times // 3] = False
    return randn(*shape, seed=seed + 1) * observed, observed


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


# ------------------------------------------------------------------ smoother


def test_the_smoother_is_the_dense_gaussian(model):
    values, observed = gappy(model)
    smoothed = smooth(model, values, observed)
    for i in range(len(values)):
        mean, covariance = dense_smoother(model, values[i], observed[i])
        rows = np.arange(len(mean))
        np.testing.assert_allclose(smoothed.mean[i], mean, atol=1e-8)
        np.testing.assert_allclose(smoothed.covariance[i], covariance[rows, :, rows], atol=1e-8)


@pytest.mark.parametrize("gone", [slice(0, 9), slice(3, 12), slice(0, 12)])
def test_gaps_at_the_ends_are_smoothed_as_in_the_dense_gaussian(model, gone):
    values, observed = gappy(model)
    observed[:, gone] = False
    values = values * observed
    smoothed = smooth(model, values, observed)
    mean, covariance = dense_smoother(model, values[0], observed[0])
    rows = np.arange(len(mean))
    np.testing.assert_allclose(smoothed.mean[0], mean, atol=1e-8)
    np.testing.assert_allclose(smoothed.covariance[0], covariance[rows, :, rows], atol=1e-8)


def test_the_smoother_is_that_of_statsmodels(model):
    values, observed = gappy(model, n_times=80, n_series=1)
    n, r = model.transition.shape[1], model.n_states
    step, _ = companion(model)
    oracle = KalmanSmoother(len(model.loadings), n, k_posdef=r)
    oracle.bind(np.where(observed[0], values[0], np.nan))
    oracle["design"] = np.pad(model.loadings, ((0, 0), (0, n - r)))
    oracle["obs_cov"], oracle["transition"] = np.diag(model.noise), step
    oracle["selection"], oracle["state_cov"] = np.eye(n, r), model.innovation.numpy()
    oracle.initialize_known(np.zeros(n), model.initial.numpy())
    expected, smoothed = oracle.smooth(), smooth(model, values, observed)
    np.testing.assert_allclose(smoothed.mean[0], expected.smoothed_state.T, atol=1e-8)
    covariance = expected.smoothed_state_cov.transpose(2, 0, 1)
    np.testing.assert_allclose(smoothed.covariance[0], covariance, atol=1e-8)


def test_rows_of_padding_change_nothing(model):
    values, observed = gappy(model)
    longer, seen = (torch.cat([x, torch.zeros_like(x)], 1) for x in (values, observed))
    short, long = smooth(model, values, observed), smooth(model, longer, seen)
    n_times = values.shape[1]
    torch.testing.assert_close(long.mean[:, :n_times], short.mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(long.covariance[:, :n_times], short.covariance, rtol=0, atol=1e-8)


def test_covariances_across_rows_are_those_of_the_dense_gaussian(model):
    values, observed = gappy(model)
    smoothed = smooth(model, values, observed)
    r, n, n_times = model.n_states, model.transition.shape[1], values.shape[1]
    # Windows of 7 rows, one in each series; targets in any order, one of them twice.
    rows = torch.tensor([2, n_times + 4])[:, None] + torch.arange(7)
    times = torch.randint(7, (2, 9), generator=rng(1))
    states = torch.randint(r, (2, 9), generator=rng(2))
    times[:, 8], states[:, 8] = times[:, 0], states[:, 0]
    found = window_covariance(
        smoothed.covariance.flatten(0, 1),
        smoothed.gain.flatten(0, 1),
        rows,
        times,
        torch.eye(n).double()[states],
    )
    # Targets that are made of all states.
    mixed = torch.randn((2, 9, n), generator=rng(3), dtype=torch.float64)
    across = window_covariance(
        smoothed.covariance.flatten(0, 1), smoothed.gain.flatten(0, 1), rows, times, mixed
    )
    for i in range(2):
        _, covariance = dense_smoother(model, values[i], observed[i])
        at, state = rows[i][times[i]] - i * n_times, states[i]
        expected = covariance[at[:, None], state[:, None], at[None], state[None]]
        np.testing.assert_allclose(found[i], expected, atol=1e-8)
        of_all = covariance[at[:, None], :, at[None], :]
        weights = mixed[i].numpy()
        expected = np.einsum("ai,abij,bj->ab", weights, of_all, weights)
        np.testing.assert_allclose(across[i], expected, atol=1e-8)


# ------------------------------------------------------------------ draws


def plain_normals(batch, n_draws, seed=0):
    """Normals from one generator, in the order of the calls."""
    generator = rng(seed)

    def normals(t, size, last=False):
        return torch.randn((batch, n_draws, size), generator=generator, dtype=torch.float64)

    return normals


def worst_errors(model, n_draws=20_000):
    """Largest errors of mean and covariance of draws over those allowed by chance."""
    values, observed = gappy(model)
    observed[1, 9:] = False
    values = values * observed
    last = torch.tensor([11, 8])
    draws, mean, covariance = draw_states(model, values, observed, last, plain_normals(2, n_draws))
    r, worst = model.n_states, []
    for i, n_times in enumerate((last + 1).tolist()):
        m, c = dense_smoother(model, values[i, :n_times], observed[i, :n_times])
        m, c = m[:, :r].ravel(), c[:, :r, :, :r].reshape(n_times * r, n_times * r)
        drawn = draws[i, :, :n_times].flatten(1).numpy()
        sd, n_cells = np.sqrt(np.diag(c)), len(m)
        limit = norm.isf(FALSE_ALARM / n_cells / 4) / np.sqrt(n_draws)
        worst.append(np.abs((drawn.mean(0) - m) / sd).max() / limit)
        # Variance of a sample covariance of normals.
        chance = np.sqrt(np.outer(sd, sd) ** 2 + c**2)
        limit = norm.isf(FALSE_ALARM / n_cells**2 / 4) / np.sqrt(n_draws)
        worst.append(np.abs((np.cov(drawn.T) - c) / chance).max() / limit)
        np.testing.assert_allclose(mean[i, :n_times].flatten(), m, atol=1e-7)
        blocks = torch.block_diag(*covariance[i, :n_times])
        known = np.kron(np.eye(n_times), np.ones((r, r))) > 0
        np.testing.assert_allclose(blocks.numpy()[known], c[known], atol=1e-7)
    return worst


def test_draws_have_the_dense_mean_and_joint_covariance(model):
    assert max(worst_errors(model)) < 1


def test_draws_of_a_spread_five_percent_too_large_are_seen(model, monkeypatch):
    """The law above has power."""
    root = smoother._root
    monkeypatch.setattr(smoother, "_root", lambda covariance: 1.05 * root(covariance))
    assert max(worst_errors(model)) > 1


def test_draws_apart_in_time_are_seen(monkeypatch):
    """So has it for the dependence of rows."""
    back = smoother._steps_back

    def looser(*args):
        for t, gain, offset, spread in back(*args):
            yield t, 0.9 * gain, offset, spread

    monkeypatch.setattr(smoother, "_steps_back", looser)
    with pytest.raises(AssertionError):
        assert max(worst_errors(MODELS["order 1"])) < 1


def gaussian(model=MODELS["order 2"], season=None):
    k = len(model.loadings)
    heights = Shape.normal(k).heights * torch.linspace(0.8, 1.3, k)[:, None]
    shape = replace(Shape.normal(k), heights=heights, far=1.1 * heights)
    return SeriesGaussian(model, shape, season or Season.none(k), Profile.none(k))


def keyed_draws(base, parts, keys, n_draws=3, length=5):
    """Draws of each series; the noise of a series hangs on its key alone."""
    series = WindowedSeries.join([(x, seen, ~seen) for x, seen in parts], length)
    keys = torch.tensor(keys)

    def normals(number, place, kind, size):
        cell = (place[:, None] * size + torch.arange(size)).flatten()
        key = keys[number].repeat_interleave(size)
        noise = addressed_normals(key, torch.arange(n_draws)[:, None], kind, cell)
        return noise.unflatten(1, (len(number), size))

    draws = base.draw(series, normals, n_draws)
    number, _, _ = series.place(torch.nonzero(series.wanted)[:, 0])
    return [draws[:, number == i] for i in range(len(parts))]


@pytest.fixture
def parts():
    """Series of unlike and of like lengths, the shortest below a window."""
    sizes = (70, 30, 33, 3, 31)
    drawn = [gappy(MODELS["order 2"], n, n_series=1, seed=n) for n in sizes]
    return [(x[0].float(), seen[0]) for x, seen in drawn]


def test_a_series_is_drawn_alike_alone_and_among_others(parts):
    base, keys = gaussian(), [3, 1, 4, 15, 9]
    together = keyed_draws(base, parts, keys)
    for part, key, draws in zip(parts, keys, together):
        (alone,) = keyed_draws(base, [part], [key])
        torch.testing.assert_close(draws, alone, rtol=1e-5, atol=1e-6)
    backwards = keyed_draws(base, parts[::-1], keys[::-1])
    for draws, other in zip(together, backwards[::-1]):
        torch.testing.assert_close(draws, other, rtol=1e-5, atol=1e-6)


def test_memory_changes_no_draw_and_no_moment(parts, monkeypatch):
    base, keys = gaussian(), [3, 1, 4, 15, 9]
    series = WindowedSeries.join([(x, seen, ~seen) for x, seen in parts], 5)
    whole, prepared = keyed_draws(base, parts, keys), base.prepare(series)
    monkeypatch.setattr(base_module, "_NUMBERS", 1)
    for a, b in zip(whole, keyed_draws(base, parts, keys)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    one_by_one = base.prepare(series)
    for name in ("mean", "sd", "covariance"):
        torch.testing.assert_close(getattr(prepared, name), getattr(one_by_one, name))
    # The gain of the last row, beyond which there is nothing, has no meaning.
    last = series.offsets[1:] - 1
    prepared.gain[last] = one_by_one.gain[last] = 0
    torch.testing.assert_close(prepared.gain, one_by_one.gain)


def test_the_first_draws_do_not_depend_on_how_many_follow(parts):
    few, many = (keyed_draws(gaussian(), parts, [0, 1, 2, 3, 4], n) for n in (2, 7))
    for a, b in zip(few, many):
        torch.testing.assert_close(a, b[:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["order 1", "order 2", "order 3"])
def test_windows_are_told_the_joint_law_of_their_targets(name):
    base, length = gaussian(MODELS[name]), 6
    k = len(base.model.loadings)
    values, observed = gappy(base.model, 15, n_series=1, seed=7)
    series = WindowedSeries.join([(values[0].float(), observed[0], ~observed[0])], length)
    prepared, rows = base.prepare(series), torch.arange(4, 10)[None]
    cells = torch.nonzero(~observed[0, 4:10].flatten())[:, 0][None]
    pad = torch.zeros_like(cells, dtype=torch.bool)
    pad[:, -1] = True
    mean, sd, covariance = base.given(prepared, rows, cells, pad)
    joint, loadings = dense(base.model, 15)
    m, c = dense_smoother(base.model, values[0].float().double(), observed[0])
    noise = np.tile(base.model.noise, 15)
    m, c = loadings @ m.ravel(), loadings @ c.reshape(joint.shape) @ loadings.T + np.diag(noise)
    inside = slice(4 * k, 10 * k)
    np.testing.assert_allclose(mean.flatten(), m[inside], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sd.flatten(), np.sqrt(np.diag(c))[inside], rtol=1e-5)
    n, asked = cells.shape[1], 4 * k + cells[0].numpy()
    expected = np.eye(n)
    expected[: n - 1, : n - 1] = c[np.ix_(asked, asked)][: n - 1, : n - 1]
    np.testing.assert_allclose(covariance[0], expected, rtol=1e-4, atol=1e-5)


def test_a_gaussian_is_rebuilt_from_its_arrays(parts):
    coefficients = randn(1, 6, 2, seed=3)
    season = Season(torch.tensor([24.0], dtype=torch.float64), coefficients)
    base = gaussian(season=season)
    again = SeriesGaussian.from_arrays(
        **{name: torch.from_numpy(x.numpy().copy()) for name, x in base.arrays().items()}
    )
    for a, b in zip(keyed_draws(base, parts, [0] * 5), keyed_draws(again, parts, [0] * 5)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for field in fields(StateSpace):
        a, b = (getattr(x.model, field.name) for x in (base, again))
        torch.testing.assert_close(a, b, rtol=0, atol=0)


# ------------------------------------------------------------------ fit


def simulate(model, n_series, n_times, seed, missing=0.25):
    """Series from a model, as pieces; scattered cells and a run of rows are missing."""
    step, _ = companion(model)
    r, n = model.transition.shape
    generator = np.random.default_rng(seed)
    state = generator.multivariate_normal(np.zeros(n), model.initial.numpy(), n_series)
    values = np.empty((n_series, n_times, len(model.loadings)))
    for t in range(n_times):
        noise = generator.normal(size=values[:, t].shape) * np.sqrt(model.noise.numpy())
        values[:, t] = state[:, :r] @ model.loadings.numpy().T + noise
        state = state @ step.T
        state[:, :r] += generator.multivariate_normal(
            np.zeros(r), model.innovation.numpy(), n_series
        )
    observed = generator.random(values.shape) > missing
    observed[:, n_times // 2 : n_times // 2 + 6] = False
    observed, values = torch.from_numpy(observed), torch.from_numpy(values)
    return Pieces(values * observed, observed, torch.ones(observed.shape[:2], dtype=torch.bool))


def stationary(order=1):
    """A vector autoregression of two columns of about unit variance."""
    transition = torch.tensor([[0.8, 0.15], [-0.1, 0.7]], dtype=torch.float64)
    innovation = torch.tensor([[0.3, 0.1], [0.1, 0.3]], dtype=torch.float64)
    if order == 2:
        transition = torch.cat([1.5 * transition, torch.eye(2) * -0.55], 1).double()
        innovation = innovation / 4
    n = transition.shape[1]
    model = StateSpace(
        transition,
        innovation,
        torch.eye(2, dtype=torch.float64),
        torch.tensor([0.1, 0.2], dtype=torch.float64),
        torch.eye(n, dtype=torch.float64),
    )
    for _ in range(200):
        covariance, _ = model.predict_covariance(model.initial)
        model = replace(model, initial=(covariance + covariance.T) / 2)
    return model


def test_steps_of_expectation_maximisation_raise_the_likelihood(monkeypatch):
    """Without ridge, haste and floors a step never makes what is seen less likely."""
    monkeypatch.setattr(em_module, "_HASTE", 0.0)
    pieces = simulate(stationary(), 2, 150, seed=1)
    model = first_guess(pieces, 0.005)
    likelihoods = []
    for _ in range(12):
        seen = zip(pieces.values, pieces.observed)
        likelihoods.append(sum(log_likelihood(model, x, o) for x, o in seen))
        smoothed = smooth(model, pieces.values, pieces.observed)
        model = maximise(model, smoothed, pieces, pieces.observed, 0.0)
    steps = np.diff(likelihoods)
    assert (steps > 0).all(), steps
    assert likelihoods[-1] - likelihoods[0] > 5


def test_expectation_maximisation_recovers_a_vector_autoregression(monkeypatch):
    """From a start whose noise is not small, as EM moves a noise by shares of itself."""
    monkeypatch.setattr(em_module, "_HASTE", 0.0)
    true, eye = stationary(), torch.eye(2, dtype=torch.float64)
    pieces = simulate(true, 200, 100, seed=2)
    model = StateSpace(0.5 * eye, 0.5 * eye, eye, torch.full((2,), 0.3).double(), eye)
    for _ in range(60):
        smoothed = smooth(model, pieces.values, pieces.observed)
        model = maximise(model, smoothed, pieces, pieces.observed, 0.0)
    for name in ("transition", "innovation", "noise", "initial"):
        torch.testing.assert_close(
            getattr(model, name), getattr(true, name), rtol=0.05, atol=0.02, msg=name
        )


@pytest.mark.parametrize("order", [1, 2])
def test_what_is_fitted_says_of_other_cells_what_the_truth_says(order):
    true, fresh = stationary(order), simulate(stationary(order), 10, 300, seed=4)
    fitted = fit_state_space(simulate(true, 10, 300, seed=3), generator=rng()).model
    hidden = hide(fresh.observed, rng(5))
    seen = fresh.observed & ~hidden

    def crps(model):
        smoothed = smooth(model, fresh.values * seen, seen)
        mean, variance = model.cells(smoothed.mean, smoothed.covariance)
        deviation = (variance + model.noise).sqrt()
        return float(normal_crps(fresh.values - mean, deviation)[hidden].mean())

    assert 0.98 < crps(fitted) / crps(true) < 1.03
    assert crps(first_guess(fresh, 0.005)) / crps(true) > 1.03


def walks(n_times, seed, coefficients, n_columns=1, hidden=0.4):
    """Columns of an autoregression of their own with dependent shocks, as pieces."""
    generator = np.random.default_rng(seed)
    shocks = generator.standard_normal((n_times + 50, n_columns))
    shocks += generator.standard_normal((n_times + 50, 1))
    x = np.zeros_like(shocks)
    for t in range(2, len(x)):
        x[t] = shocks[t] + sum(c * x[t - 1 - i] for i, c in enumerate(coefficients))
    x = torch.from_numpy(x[50:] / x[50:].std(0))
    seen = torch.from_numpy(generator.random(x.shape) > hidden)
    return Pieces.cut(x, seen, torch.tensor([0, n_times]))


@pytest.fixture
def autoregressions_alone(monkeypatch):
    """No other kind of model is compared."""
    monkeypatch.setattr(fit_module, "_better", lambda best, pieces, *_: (best, pieces, None))


def test_some_hundred_hidden_cells_do_not_stop_the_first_step(monkeypatch, autoregressions_alone):
    fitted = fit_state_space(walks(900, 5, [0.88], 3), generator=rng(5), max_order=1).model
    np.testing.assert_allclose(fitted.transition.diagonal(), 0.88, atol=0.04)
    # As it was: the first step looks worse by chance, and the first guess stays.
    monkeypatch.setattr(fit_module, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(fit_module, "clearly_better", lambda a, b, gain=0.0: a.crps <= b.crps)
    lost = fit_state_space(walks(900, 5, [0.88], 3), generator=rng(5), max_order=1).model
    assert (lost.transition.diagonal() - 0.88).abs().max() > 0.05


@pytest.mark.parametrize(("coefficients", "order"), [([1.4, -0.75], 2), ([0.8], 1)])
def test_the_order_of_short_series_is_found(coefficients, order, autoregressions_alone):
    """150 rows, 40 % of them hidden, with the cycle of the sunspots and without."""
    found = [
        fit_state_space(walks(150, seed, coefficients), generator=rng()).model for seed in range(3)
    ]
    # The criterion takes a number too many in one case of six.
    right = [model.transition[0] for model in found if model.order == order]
    assert len(right) >= 2
    for transition in right:
        # A standard error from 90 cells is about .1.
        wanted = torch.tensor(coefficients, dtype=torch.float64)
        assert (transition - wanted).abs().max() < 0.4


def test_as_many_numbers_as_cells_are_never_fitted():
    """Order 1 is the last resort: ten columns of twelve rows have 165 numbers and 74 cells."""
    fitted = fit_state_space(walks(12, 0, [0.8], 10), generator=rng()).model
    assert fitted.order == 1
    assert all(bool(torch.isfinite(getattr(fitted, f.name)).all()) for f in fields(StateSpace))


def test_the_log_likelihood_is_that_of_the_dense_gaussian(model):
    values, observed = gappy(model)
    total = sum(log_likelihood(model, x, o) for x, o in zip(values, observed))
    assert kalman.log_likelihood(model, values, observed) == pytest.approx(total, abs=1e-8)


def test_a_raised_order_is_the_same_model():
    model = stationary()
    values, observed = gappy(model, 20)
    a, b = (smooth(m, values, observed) for m in (model, raise_order(model)))
    torch.testing.assert_close(a.mean, b.mean[..., :2], rtol=0, atol=1e-4)
    torch.testing.assert_close(a.covariance, b.covariance[..., :2, :2], rtol=0, atol=1e-4)


def test_hidden_are_about_a_tenth_of_the_observed_cells_and_no_others():
    observed = torch.rand(30, 512, 4, generator=rng(1)) > 0.4
    hidden = hide(observed, rng(2))
    assert not (hidden & ~observed).any()
    assert 0.08 < float(hidden.sum() / observed.sum()) < 0.12
    # Runs: neighbours of hidden cells are hidden far more often than others.
    after = hidden[:, 1:][hidden[:, :-1] & observed[:, 1:]].double().mean()
    assert 0.3 < float(after) < 0.7


def test_pieces_cover_every_row_once():
    values = torch.arange(1.0, 31.0)[:, None]
    offsets = torch.tensor([0, 17, 20, 30])
    pieces = Pieces.cut(values, torch.ones_like(values, dtype=torch.bool), offsets, size=8)
    assert pieces.values[pieces.real][:, 0].tolist() == values[:, 0].tolist()
    assert pieces.real.sum(1).tolist() == [8, 8, 1, 3, 8, 2]
    assert not pieces.observed[~pieces.real].any()
    assert (pieces.values[~pieces.real] == 0).all()


def test_the_crps_of_a_normal():
    import scoringrules

    error, deviation = randn(50, seed=1), randn(50, seed=2).abs() + 0.1
    expected = scoringrules.crps_normal(error.numpy(), 0.0, deviation.numpy())
    np.testing.assert_allclose(normal_crps(error, deviation), expected, rtol=1e-9)


# ------------------------------------------------------------------ shape


def learnt(residual, n_columns=3):
    column = torch.arange(len(residual)) % n_columns
    return Shape.of(residual, column, n_columns)


def test_the_shape_of_normal_residuals_is_the_identity():
    n = 30_000
    shape = learnt(randn(n, seed=1))
    heights, knots = shape.heights[:, 1:].numpy(), shape.knots[1:].numpy()
    levels, density = 2 * norm.cdf(knots) - 1, 2 * norm.pdf(knots)
    # Standard error of a sample quantile of each column.
    chance = np.sqrt(levels * (1 - levels) / (n / 3)) / density
    error = np.abs(heights - knots) / chance
    assert error.max() < norm.isf(FALSE_ALARM / 2 / error.size)
    u = torch.tensor([-1.5, 0.0, 0.3, 4.0], dtype=torch.float64)
    unlearnt = Shape.normal(3)(u, torch.tensor([0, 1, 2, 0]), torch.ones(4))
    torch.testing.assert_close(unlearnt, u, rtol=1e-12, atol=1e-12)


def test_with_few_residuals_nothing_is_changed():
    shape = learnt(5 * randn(30))
    torch.testing.assert_close(shape.heights, Shape.normal(3).heights)


def student(n, seed, freedom=3):
    return torch.from_numpy(np.random.default_rng(seed).standard_t(freedom, n))


def test_a_shape_is_odd_and_monotone():
    shape = learnt(student(3000, 1))
    u = torch.linspace(-8, 8, 1001, dtype=torch.float64)[:, None].expand(-1, 3)
    column = torch.arange(3)
    mapped = shape(u, column, torch.ones(3))
    torch.testing.assert_close(mapped, -shape(-u, column, torch.ones(3)))
    assert (mapped.diff(dim=0) > 0).all()
    assert (shape(torch.zeros(2, 3), column, torch.ones(3)) == 0).all()


def test_the_bands_of_heavy_tailed_residuals_are_nominal():
    shape, fresh = learnt(student(30_000, 1)), student(30_000, 2)
    for level in (0.5, 0.9):
        edge = torch.full((3,), norm.isf((1 - level) / 2), dtype=torch.float64)
        limit = shape(edge, torch.arange(3), torch.ones(3)).repeat(10_000)
        covered = (fresh.abs() < limit).double().mean()
        # Error of the learnt quantile and of the share of fresh residuals.
        chance = math.sqrt(level * (1 - level) * 2 / 30_000)
        assert abs(float(covered) - level) < norm.isf(FALSE_ALARM / 4) * chance
        plain = float((fresh.abs() < edge[0]).double().mean())
        assert abs(plain - level) > norm.isf(FALSE_ALARM / 4) * chance


def two_laws(scale=1.6, n=30_000):
    """Residuals of single cells, and larger ones deep in gaps; predicted deviations of both."""
    column = torch.arange(n) % 3
    near = 0.2 * randn(n, seed=3), torch.full((n,), 0.2).double(), column
    deep = 0.6 * scale * randn(n, seed=4), torch.full((n,), 0.6).double(), column
    return near, deep


def test_errors_deep_in_gaps_have_a_law_of_their_own():
    near, deep = two_laws()
    shape = Shape.of(near[0] / near[1], near[2], 3).reaching(near, deep, 1000)
    edge, columns = torch.full((3,), norm.isf(0.05)).double(), torch.arange(3)
    for deviation, expected in ((0.1, 1.0), (0.2, 1.0), (0.4, 1.3), (0.6, 1.6), (2.0, 1.6)):
        widened = shape(edge, columns, torch.full((3,), deviation).double()) / edge
        np.testing.assert_allclose(widened, expected, atol=0.06)


def test_one_law_is_kept_where_gaps_are_few_or_no_wider():
    near, deep = two_laws()
    shape = Shape.of(near[0] / near[1], near[2], 3)
    assert shape.reaching(near, deep, 3) is shape
    as_near = (deep[0], near[1], deep[2])
    torch.testing.assert_close(shape.reaching(near, as_near, 1000).far, shape.heights)


def smooth_series(n=3000):
    """Two columns whose speed is an autoregression, so smooth that two rows nearly tell a third."""
    generator, speed, x = np.random.default_rng(0), np.zeros(2), np.zeros((n, 2))
    for t in range(1, n):
        speed = 0.9 * speed + 0.1 * generator.standard_normal(2)
        x[t] = 0.98 * x[t - 1] + speed
    return torch.from_numpy(x / x.std(0))


def smooth_fit(n=3000):
    seen = torch.ones((n, 2), dtype=torch.bool)
    pieces = Pieces.cut(smooth_series(n), seen, torch.tensor([0, n]))
    return fit_state_space(pieces, generator=rng())


def test_a_smooth_series_has_its_momentum(monkeypatch):
    """x_t = 1.88 x_{t-1} - .882 x_{t-2} + noise of a hundredth of x."""
    model = smooth_fit().model
    first, second = model.transition[:, :2].diagonal(), model.transition[:, 2:].diagonal()
    np.testing.assert_allclose(first, 1.88, atol=0.1)
    np.testing.assert_allclose(second, -0.882, atol=0.1)
    # Steps of expectation maximisation alone do not find it.
    monkeypatch.setattr(fit_module, "_by_least_squares", lambda best, *others: best)
    lost = smooth_fit().model
    assert (lost.transition[:, :2].diagonal() - 1.88).abs().max() > 0.3


@pytest.mark.slow
def test_bands_deep_in_gaps_hold_where_the_model_is_wrong(monkeypatch):
    monkeypatch.setattr(fit_module, "_by_least_squares", lambda best, *others: best)
    fit = smooth_fit()
    near, deep = (fit.error, fit.deviation, fit.column), fit.deep
    plain = Shape.of(near[0] / near[1], near[2], 2)
    reaching = plain.reaching(near, deep, fit.n_gaps)
    z = (deep[0] / deep[1]).abs()
    edge = torch.full_like(z, norm.isf(0.05))
    shares = [(z < s(edge, deep[2], deep[1])).double().mean() for s in (plain, reaching)]
    assert abs(shares[1] - 0.9) < 0.03
    assert shares[0] < 0.7


def test_pieces_of_a_long_series_change_no_draw_and_no_moment(monkeypatch):
    base = gaussian()
    values, observed = gappy(base.model, 400, n_series=1, seed=2)
    parts = [(values[0].float(), observed[0])]
    series = WindowedSeries.join([(x, seen, ~seen) for x, seen in parts], 5)
    (whole,), prepared = keyed_draws(base, parts, [3]), base.prepare(series)
    monkeypatch.setattr(base_module, "_PIECE", 60)
    monkeypatch.setattr(base_module, "_FORGOTTEN", 50)
    (pieces,), again = keyed_draws(base, parts, [3]), base.prepare(series)
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=2e-5)
    for name in ("mean", "sd", "covariance"):
        torch.testing.assert_close(
            getattr(again, name), getattr(prepared, name), atol=2e-5, rtol=1e-5
        )
    # Without the rows around a piece the two would differ, and draws would break at its ends.
    monkeypatch.setattr(base_module, "_FORGOTTEN", 0)
    assert (keyed_draws(base, parts, [3])[0] - whole).abs().max() > 0.01


def test_columns_are_grouped_by_what_goes_together(monkeypatch):
    monkeypatch.setattr(groups_module, "_OWN", 3)
    monkeypatch.setattr(groups_module, "_NEIGHBOURS", 2)
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(500, 3, generator=generator).repeat(1, 3)
    x = common + 0.3 * torch.randn(500, 9, generator=generator)
    x[:, 8] = -x[:, 8]
    found = groups_module.group_columns(x, torch.rand(500, 9, generator=generator) < 0.7)
    assert sorted(tuple(g.own.tolist()) for g in found) == [(0, 3, 6), (1, 4, 7), (2, 5, 8)]
    for group in found:
        assert len(group.neighbours) == 2
        assert not set(group.own.tolist()) & set(group.neighbours.tolist())


def test_groups_that_share_nothing_are_drawn_as_if_alone(parts):
    one, other = gaussian(MODELS["order 2"]), gaussian(MODELS["order 1"])
    k, more = one.n_features, other.n_features
    both = [
        (
            torch.cat([x, 2 * x[:, :1].expand(-1, more)], 1),
            torch.cat([seen, seen[:, :1].expand(-1, more)], 1),
        )
        for x, seen in parts
    ]
    none = torch.zeros(0, dtype=torch.int64)
    halves = [torch.arange(k), k + torch.arange(more)]
    wide = GroupedGaussian([Group(own, none) for own in halves], [one, other])
    wide = GroupedGaussian.from_arrays(**wide.arrays())
    drawn = keyed_draws(wide, both, range(len(parts)))
    alone = keyed_draws(one, parts, range(len(parts)))
    for draws, left, (_, seen) in zip(drawn, alone, both):
        own = torch.nonzero(~seen)[:, 1] < k
        torch.testing.assert_close(draws[:, own], left)
        # The noise of the second group is its own.
        assert draws[:, ~own].unique().numel() == draws[:, ~own].numel()
