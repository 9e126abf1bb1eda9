"""The Gaussian over a window against textbook formulas and known processes."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from skdiffusion.diffusion.window import fit
from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.diffusion.window.fit import (
    NUGGET,
    _log_likelihood,
    block_toeplitz,
    free_gaussian,
)
from skdiffusion.diffusion.window.gaussian import WindowGaussian, pick
from skdiffusion.diffusion.window.series import WindowedSeries

RNG = np.random.default_rng(0)


def random_gaussian(n=7):
    root = np.random.default_rng(1).standard_normal((n, n))
    return np.arange(n) / 3, root @ root.T + 0.3 * np.eye(n)


def textbook(mean, covariance, x, observed):
    """Mean, variance and covariance of the unobserved part, one row at a time."""
    o, m = np.flatnonzero(observed), np.flatnonzero(~observed)
    gain = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    left = covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]
    return mean[m] + gain @ (x[o] - mean[o]), left


@pytest.mark.parametrize("n_missing", [[1, 2, 1], [5, 6, 3], [7, 0, 2]])
@pytest.mark.parametrize("form", ["_by_precision", "_by_covariance", "condition"])
def test_conditioning_is_the_textbook_formula(n_missing, form):
    mean, covariance = random_gaussian()
    base = WindowGaussian(torch.from_numpy(mean), torch.from_numpy(covariance))
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 7))
    observed = np.ones((3, 7), dtype=bool)
    for row, count in zip(observed, n_missing):
        row[rng.permutation(7)[:count]] = False
    cells, pad = pick(torch.from_numpy(~observed))
    # The private forms want centred values, 0 where unobserved; NaN must not be read by the other.
    values = np.where(observed, x - mean, 0) if form != "condition" else np.where(observed, x, 9)
    given = getattr(base, form)(torch.from_numpy(values), torch.from_numpy(observed), cells, pad)
    for i in range(3):
        m, left = textbook(mean, covariance, x[i], observed[i])
        n = len(m)
        np.testing.assert_allclose(given.mean[i, ~observed[i]], m, atol=1e-10)
        np.testing.assert_allclose(given.sd[i, ~observed[i]], np.sqrt(np.diag(left)), atol=1e-8)
        np.testing.assert_allclose(given.covariance[i, :n, :n], left, atol=1e-9)
        assert (given.sd[i, observed[i]] == 0).all()
        np.testing.assert_array_equal(given.covariance[i, n:, n:], np.eye(len(pad[i]) - n))


@pytest.mark.parametrize("n_missing", [1, 6])
def test_completed_rows_have_the_conditional_moments(n_missing):
    mean, covariance = random_gaussian()
    base = WindowGaussian(torch.from_numpy(mean), torch.from_numpy(covariance))
    observed = np.ones((4, 7), dtype=bool)
    for i, row in enumerate(observed):
        row[(np.arange(n_missing) + i) % 7] = False
    x = np.random.default_rng(2).normal(size=observed.shape)
    expected, completed = np.zeros((7, 7)), x.copy()
    for i, row in enumerate(observed):
        m = np.flatnonzero(~row)
        completed[i, m], left = textbook(mean, covariance, x[i], row)[:2]
        expected[np.ix_(m, m)] += left
    means, total = base.completed(torch.from_numpy(x), torch.from_numpy(observed))
    np.testing.assert_allclose(means, completed, atol=1e-10)
    np.testing.assert_allclose(total, expected, atol=1e-4)


@pytest.mark.parametrize("n_missing", [0, 1, 3, 6, 7])
def test_rows_of_one_pattern_are_conditioned_at_once(n_missing):
    mean, covariance = random_gaussian()
    base = WindowGaussian(torch.from_numpy(mean), torch.from_numpy(covariance))
    x, observed = np.random.default_rng(3).normal(size=(5, 7)), np.arange(7) >= n_missing
    means, left = base.of_pattern(torch.from_numpy(x), torch.from_numpy(observed))
    for row, found in zip(x, means):
        expected, rest = textbook(mean, covariance, row, observed)[:2]
        np.testing.assert_allclose(found[~observed], expected, atol=1e-10)
        np.testing.assert_array_equal(found[observed], row[observed])
        np.testing.assert_allclose(left, rest, atol=1e-10)


def test_patterns_shared_by_many_rows_change_nothing(monkeypatch):
    rng = np.random.default_rng(7)
    x = torch.from_numpy(rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)))[:, None]
    seen = torch.from_numpy(rng.random((400, 1, 4)) > 0.4)
    together = free_gaussian(x, seen)
    monkeypatch.setattr(fit, "_ROWS_A_PATTERN", 1000)
    torch.testing.assert_close(free_gaussian(x, seen).covariance, together.covariance)


def test_pick_lists_true_cells_in_order():
    cells, pad = pick(torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool())
    assert cells.tolist() == [[1, 3], [0, 0], [0, 0]]
    assert pad.tolist() == [[False, False], [False, True], [True, True]]


def test_block_toeplitz_places_lags():
    lags = [torch.eye(2).double(), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()]
    expected = [[1, 0, 1, 2], [0, 1, 3, 4], [1, 3, 1, 0], [2, 4, 0, 1]]
    assert block_toeplitz(lags).tolist() == expected


TRANSITION = np.array([[0.8, 0.15], [-0.2, 0.7]])


def vector_ar(n, rng):
    noise = rng.standard_normal((n + 50, 2))
    x = np.zeros((n + 50, 2))
    for t in range(1, n + 50):
        x[t] = TRANSITION @ x[t - 1] + noise[t]
    return x[50:]


def var_autocovariances(n_lags):
    """Solve the Lyapunov equation of the VAR(1): C_t = E[x_s x_{s+t}']."""
    eye = np.eye(4)
    c0 = np.linalg.solve(eye - np.kron(TRANSITION, TRANSITION), np.eye(2).ravel()).reshape(2, 2)
    return [c0 @ np.linalg.matrix_power(TRANSITION.T, t) for t in range(n_lags)]


def test_free_gaussian_recovers_a_covariance_and_beats_its_diagonal():
    rng = np.random.default_rng(5)
    root = np.array([[1, 0, 0, 0], [0.9, 0.4, 0, 0], [-0.6, 0.5, 0.6, 0], [0.2, 0.1, 0.7, 0.6]])
    covariance = root @ root.T
    x = rng.standard_normal((1500, 4)) @ root.T
    observed = rng.random(x.shape) > 0.25
    values = torch.from_numpy(np.where(observed, x, 50.0))[:, None]
    base = free_gaussian(values, torch.from_numpy(observed)[:, None])
    error = np.abs(base.covariance.numpy() - covariance).max()
    assert error < 0.15
    off_diagonal = covariance - np.diag(np.diag(covariance))
    assert error < 0.3 * np.abs(off_diagonal).max()
    assert float(base.mean.abs().max()) < 0.15


def test_free_gaussian_learns_a_mean_that_changes_over_the_window():
    rng = np.random.default_rng(6)
    hour = np.sin(np.arange(6) / 6 * 2 * np.pi)[:, None] * [1.0, -1.0]
    x = hour + 0.3 * rng.standard_normal((400, 6, 2))
    observed = rng.random(x.shape) > 0.3
    base = free_gaussian(torch.from_numpy(np.where(observed, x, 0)), torch.from_numpy(observed))
    np.testing.assert_allclose(base.mean.view(6, 2), hour, atol=0.12)


def test_a_complete_table_keeps_its_sample_covariance():
    """A share of the diagonal that stays with many rows would shrink regressions for ever."""
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x @ torch.tensor([[1.0, 0.5, 0], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
    base = free_gaussian(x[:, None], torch.ones(2000, 1, 3, dtype=torch.bool), torch.arange(3))
    exact = torch.cov(x.T, correction=0) + NUGGET * torch.eye(3)
    torch.testing.assert_close(base.covariance, exact, rtol=0, atol=1e-8)


def test_missing_cells_do_not_shrink_correlations_pass_after_pass():
    """Of 30 tables with half of the cells missing, the mean correlation is near the true one."""
    rng = np.random.default_rng(0)
    truth = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    found = []
    for _ in range(30):
        x = rng.multivariate_normal(np.zeros(3), truth, size=100)
        seen = torch.from_numpy(rng.uniform(size=x.shape) < 0.5)
        x = torch.from_numpy(x)[:, None]
        covariance = free_gaussian(x, seen[:, None], torch.arange(3)).covariance.numpy()
        spread = np.sqrt(np.diag(covariance))
        found.append((covariance / spread[:, None] / spread)[np.tril_indices(3, -1)])
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_few_rows_of_unrelated_columns_get_a_diagonal_covariance():
    x = torch.randn(15, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base = free_gaussian(x[:, None], torch.ones(15, 1, 10, dtype=torch.bool), torch.arange(10))
    sample = torch.corrcoef(x.T)
    spread = base.covariance.diagonal().sqrt()
    shrunk = base.covariance / spread[:, None] / spread
    off = ~torch.eye(10, dtype=torch.bool)
    assert shrunk[off].abs().mean() < 0.3 * sample[off].abs().mean()


def correlation(x, owner=None):
    """Correlations of the Gaussian of a complete table."""
    owner = torch.arange(x.shape[1]) if owner is None else torch.tensor(owner)
    x = torch.from_numpy(x)[:, None]
    covariance = free_gaussian(x, torch.ones_like(x, dtype=torch.bool), owner).covariance
    spread = covariance.diagonal().sqrt()
    return (covariance / spread[:, None] / spread).numpy()


def test_two_columns_are_shrunk_by_the_share_of_schaefer_and_strimmer():
    rng = np.random.default_rng(8)
    x = rng.multivariate_normal(np.zeros(2), [[1, 0.5], [0.5, 1]], size=20)
    r = np.corrcoef(x.T)[0, 1]
    share = (1 - r**2) ** 2 / len(x) / r**2
    assert 0.07 < share < 0.9
    assert correlation(x)[0, 1] == pytest.approx((1 - share) * r, rel=1e-3)


def test_columns_that_tell_nothing_do_not_shrink_those_that_do():
    rng = np.random.default_rng(9)
    pair = rng.multivariate_normal(np.zeros(2), [[1, 0.9], [0.9, 1]], size=60)
    found = correlation(np.hstack([pair, rng.normal(size=(60, 40))]))
    # One share for all leaves a third of it.
    assert found[0, 1] > 0.9 * np.corrcoef(pair.T)[0, 1]
    assert np.abs(found[:2, 2:]).mean() < 0.5 * np.sqrt(2 / np.pi / 60)


def test_columns_of_one_label_keep_what_they_have_of_each_other():
    rng = np.random.default_rng(10)
    label = (rng.integers(0, 3, 40)[:, None] == np.arange(3)).astype(float)
    x = np.hstack([(label - label.mean(0)) / label.std(0), rng.normal(size=(40, 1))])
    own = np.corrcoef(x[:, :3].T)
    np.testing.assert_allclose(correlation(x, [0, 0, 0, 1])[:3, :3], own, atol=1e-3)


# ------------------------------------------------------------------ draws


def table_draws(scale=1.0, n_draws=20_000):
    """Draws of two rows with gaps, and their conditional means and covariances."""
    root = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0.3, -0.4, 0.8]]).double()
    covariance, mean = root @ root.T, torch.tensor([0.5, -1.0, 0.0]).double()
    values = torch.tensor([[0.0, 0.0, 1.2], [0.7, 0.0, -0.4]])
    seen = torch.tensor([[False, False, True], [True, False, True]])
    series = WindowedSeries.stack(values[:, None], seen[:, None])
    generator = torch.Generator().manual_seed(0)

    def normals(number, place, kind, size):
        return scale * torch.randn((n_draws, len(number), size), generator=generator).double()

    draws = WindowBase(WindowGaussian(mean, covariance), 1, 3).draw(series, normals, n_draws)
    laws, at = [], 0
    for x, known in zip(values.double(), seen):
        u, o = ~known, known
        gain = torch.linalg.solve(covariance[o][:, o], covariance[o][:, u]).T
        expected = mean[u] + gain @ (x[o] - mean[o])
        left = covariance[u][:, u] - gain @ covariance[o][:, u]
        n = int(u.sum())
        laws.append((draws[:, at : at + n].double(), expected, left))
        at += n
    return laws


def worst(laws):
    """Largest errors of means and covariances over those allowed by chance."""
    errors = []
    for draws, mean, covariance in laws:
        level = norm.isf(1e-6 / 10) / len(draws) ** 0.5
        sd = covariance.diagonal().sqrt()
        chance = (torch.outer(sd, sd) ** 2 + covariance**2).sqrt()
        errors.append(((draws.mean(0) - mean) / sd).abs().max() / level)
        errors.append(((draws.T.cov().reshape(covariance.shape) - covariance) / chance).abs().max())
        errors[-1] = errors[-1] / level
    return float(max(errors))


def test_draws_of_a_table_have_the_conditional_law():
    assert worst(table_draws()) < 1


def test_draws_five_percent_too_wide_are_seen():
    assert worst(table_draws(scale=1.05)) > 1


def test_log_likelihood_of_windows_with_gaps_is_that_of_their_observed_cells():
    """Up to a constant for each observed cell, against scipy."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    mean, covariance = rng.normal(size=4), root @ root.T + 0.1 * np.eye(4)
    x, seen = rng.normal(size=(9, 4)), rng.random((9, 4)) < 0.7
    seen[0] = True
    base = WindowGaussian(torch.as_tensor(mean), torch.as_tensor(covariance))
    ours = _log_likelihood(base, torch.as_tensor(np.where(seen, x, 0.0)), torch.as_tensor(seen), 4)
    known = [
        multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(row[o])
        + 0.5 * o.sum() * np.log(2 * np.pi)
        for row, o in zip(x, seen)
        if o.any()
    ]
    assert float(ours) == pytest.approx(sum(known) / 9, rel=1e-9)
