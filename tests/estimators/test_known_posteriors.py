"""Draws of ScoreSDE where the posterior is known, and what its standard errors cover."""

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import make_moons

from skdiffusion import ScoreSDE

ROOT = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 0.4]])
ROWS = 3.0 + np.random.default_rng(0).normal(size=(3000, 3)) @ ROOT.T
N = 4000
# Standard errors that a mean or variance of N draws strays by once in a million.
FAR = stats.norm.isf(0.5e-6)


def gaussian(**parameters):
    return ScoreSDE(
        base="gaussian", marginals=None, max_iter=0, random_state=0, **parameters
    )  # fmt: skip


def posterior(mean, covariance, known, values):
    """Mean and covariance of the other columns given those that are known."""
    rest = [j for j in range(len(mean)) if j not in known]
    gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[np.ix_(known, rest)]).T
    left = covariance[np.ix_(rest, rest)] - gain @ covariance[np.ix_(known, rest)]
    return mean[rest] + gain @ (values - mean[known]), left


def assert_normal(draws, mean, covariance):
    """Mean and covariance of draws are those of a normal distribution, within their errors."""
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(0) - mean) < FAR * sd / np.sqrt(len(draws)) + 1e-3 * sd).all()
    found = np.cov(draws.T).reshape(covariance.shape)
    scale = np.outer(sd, sd)
    assert (np.abs(found - covariance) / scale < FAR * np.sqrt(2 / len(draws)) + 2e-3).all()
    z = (draws - mean) / sd
    assert min(stats.kstest(column, "norm").pvalue for column in z.T) > 1e-6


@pytest.mark.parametrize("known", [[0], [2], [0, 1], [1, 2]])
def test_filled_gaps_have_the_known_posterior(known):
    model = gaussian().fit(ROWS)
    row = np.full((1, 3), np.nan)
    row[0, known] = [4.0, 1.5, 3.5][: len(known)]
    rest = [j for j in range(3) if j not in known]
    draws = model.impute(row, n_draws=N)[0][:, rest]
    expected = posterior(ROWS.mean(0), np.cov(ROWS.T), known, row[0, known])
    assert_normal(draws, *expected)


@pytest.mark.parametrize("value", [1.0, 3.0, 6.0])
def test_draws_given_a_value_have_the_known_posterior(value):
    model = gaussian(condition="value").fit(ROWS[:, 1:], ROWS[:, 0])
    draws = model.sample(N, value, random_state=1)
    assert_normal(draws, *posterior(ROWS.mean(0), np.cov(ROWS.T), [0], np.array([value])))


@pytest.mark.slow
def test_ranks_of_gaps_are_uniform_where_a_network_draws():
    """Simulation-based calibration: truth and draws are exchangeable given the observed cells."""
    rng = np.random.default_rng(1)
    model = ScoreSDE(base="mixture", max_iter=300, hidden_layer_sizes=(32, 32), random_state=0)
    model.fit(ROWS)
    truth = 3.0 + rng.normal(size=(800, 3)) @ ROOT.T
    gaps = truth.copy()
    missing = np.arange(800) % 3
    gaps[np.arange(800), missing] = np.nan
    draws = model.impute(gaps, n_draws=39)[np.arange(800), :, missing]
    ranks = (draws < truth[np.arange(800), missing][:, None]).sum(1)
    counts = np.bincount(ranks // 4, minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("max_iter", [0, 300], ids=["closed form", "network"])
def test_standard_errors_of_the_bound_cover(max_iter):
    """Of 200 repeats 92 to 98 % lie within 1.96 errors of the mean of all, for either kind."""
    X, _ = make_moons(800, noise=0.1, random_state=0)
    model = ScoreSDE(max_iter=max_iter, hidden_layer_sizes=(32, 32), random_state=0).fit(X)
    pairs = [
        model.set_params(random_state=seed).nll_bound(X[:20], return_std=True)
        for seed in range(200)
    ]
    bounds, errors = map(np.array, zip(*pairs))
    inside = np.abs(bounds - bounds.mean(0)) < 1.96 * errors
    assert 0.92 <= inside.mean() <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", ["entropy", "kl_bound", "score_matching_loss"])
def test_standard_errors_of_means_over_rows_cover(name):
    """Of 200 repeats with rows of their own, in columns that are mapped: heavy tails stretch.

    A row in a tail has a large log-determinant and little left in mapped coordinates. As if the
    two were independent, the error of the entropy would be a fifth too large.
    """
    rng = np.random.default_rng(0)
    model = ScoreSDE(base="gaussian", marginals="histogram", max_iter=0, random_state=0)
    model.fit(rng.standard_t(4, size=(3000, 3)))
    more = {"kl_bound": [0.0]}.get(name, [])
    pairs = [
        getattr(model.set_params(random_state=seed), name)(
            rng.standard_t(4, size=(200, 3)), *more, n_draws=8, return_std=True
        )
        for seed in range(200)
    ]
    values, errors = np.array(pairs).T
    inside = np.abs(values - values.mean()) < 1.96 * errors
    assert 0.90 <= inside.mean() <= 0.99  # 3.2 binomial standard errors below
    assert np.sqrt(np.mean(errors**2)) / values.std() == pytest.approx(1, abs=0.16)


def test_the_bound_of_a_gaussian_is_its_density():
    model = gaussian().fit(ROWS)
    bound, error = model.nll_bound(ROWS[:10], n_draws=2, return_std=True)
    np.testing.assert_allclose(bound, -model.score_samples(ROWS[:10]), atol=1e-3)
    assert error.max() < 1e-6
