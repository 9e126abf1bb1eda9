"""Mixtures of Gaussians over rows: against densities, integrals and laws known from elsewhere."""

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion._random import normals, row_keys
from skdiffusion.diffusion.window import WindowedSeries
from skdiffusion.diffusion.window.fit import free_gaussian
from skdiffusion.diffusion.window.mixture import RowMixture
from skdiffusion.estimators.imputation._row_mixtures import (
    best_mixture,
    fit_mixture,
    mixture_crps,
)

WEIGHTS = [0.3, 0.7]
MEANS = [[-2.0, 0.0, 1.0], [1.0, 1.0, -1.0]]
COVARIANCES = [
    [[1.0, 0.6, 0.0], [0.6, 1.0, 0.2], [0.0, 0.2, 0.5]],
    [[0.4, -0.2, 0.1], [-0.2, 0.8, 0.0], [0.1, 0.0, 1.0]],
]


def mixture():
    return RowMixture(
        *(torch.tensor(x, dtype=torch.float64) for x in (WEIGHTS, MEANS, COVARIANCES))
    )


def drawn(n, seed=0):
    """Rows of the mixture, and which component they are of."""
    rng = np.random.default_rng(seed)
    of = rng.random(n) < WEIGHTS[1]
    each = [rng.multivariate_normal(m, c, n) for m, c in zip(MEANS, COVARIANCES)]
    return np.where(of[:, None], each[1], each[0])


def joint(x):
    return sum(
        w * stats.multivariate_normal(m, c).pdf(x) for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES)
    )


def test_given_cells_the_density_is_the_joint_one_normalised():
    row, observed = torch.tensor([[-0.5, 0.0, 0.3]]), torch.tensor([[True, False, True]])
    parts = mixture().parts(row, observed)
    grid = np.linspace(-8, 8, 4001)
    each = zip(parts.weights[0], parts.mean[0, :, 1], parts.variance[0, :, 1].sqrt())
    found = sum(float(w) * stats.norm(m, s).pdf(grid) for w, m, s in each)
    expected = joint(np.column_stack([np.full(4001, -0.5), grid, np.full(4001, 0.3)]))
    expected /= expected.sum() * (grid[1] - grid[0])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    mean, covariance = parts.moments()
    step = grid[1] - grid[0]
    assert float(mean[0, 1]) == pytest.approx((grid * expected).sum() * step, abs=1e-6)
    second = ((grid - float(mean[0, 1])) ** 2 * expected).sum() * step
    assert float(covariance[0, 1, 1]) == pytest.approx(second, abs=1e-6)


def test_draws_have_that_law():
    values, observed = torch.tensor([[-0.5, 0.0, 0.0]]), torch.tensor([[True, False, False]])
    series = WindowedSeries.stack(values[:, None], observed[:, None])
    keys, number = row_keys(values.numpy(), 0), torch.arange(4000)[:, None]

    def noise(row, place, kind, size):
        return normals(keys[row], number, kind, place)[..., None]

    draws = mixture().draw(series, noise, 4000).numpy()
    parts = mixture().parts(values, observed)
    for cell in (1, 2):
        sd = parts.variance[0, :, cell].sqrt()
        each = list(zip(parts.weights[0], parts.mean[0, :, cell], sd))
        law = lambda x: sum(float(w) * stats.norm(m, s).cdf(x) for w, m, s in each)  # noqa: E731, B023
        assert stats.kstest(draws[:, cell - 1], law).pvalue > 0.01
    covariance = parts.moments()[1][0, 1, 2]
    assert np.cov(draws.T)[0, 1] == pytest.approx(float(covariance), abs=0.06)


def test_crps_is_the_integral_of_its_definition():
    weights, means, deviations = (
        torch.tensor([x], dtype=torch.float64) for x in ([0.2, 0.8], [-1.0, 2.0], [0.5, 1.5])
    )
    grid = np.linspace(-20, 20, 200_001)
    each = zip(weights[0], means[0], deviations[0])
    below = sum(float(w) * stats.norm(m, s).cdf(grid) for w, m, s in each)
    expected = ((below - (grid >= 0.7)) ** 2).sum() * (grid[1] - grid[0])
    found = mixture_crps(torch.tensor([0.7]).double(), weights, means, deviations)
    assert float(found) == pytest.approx(expected, abs=1e-3)


def test_em_finds_the_mixture_behind_rows_with_gaps():
    x = torch.from_numpy(drawn(3000))
    observed = torch.from_numpy(np.random.default_rng(1).random(x.shape) > 0.3)
    gaussian = free_gaussian(x[:, None], observed[:, None])
    found = fit_mixture(x, observed, gaussian, 2, 0, n_passes=60)
    order = found.means[:, 0].argsort()
    np.testing.assert_allclose(found.weights[order], WEIGHTS, atol=0.05)
    np.testing.assert_allclose(found.means[order], MEANS, atol=0.2)
    np.testing.assert_allclose(found.covariances[order], COVARIANCES, atol=0.2)


def best(x, observed=None):
    x = torch.from_numpy(x)
    observed = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
    return best_mixture(x, observed, torch.arange(x.shape[1]), 0)


def test_clusters_ask_for_a_mixture_and_a_normal_table_for_none():
    assert len(best(drawn(400)).weights) >= 2
    correlated = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 400)
    assert best(correlated) is None


def test_rows_that_are_there_twice_make_no_mixture():
    """A bootstrap sample repeats rows, which a component each would predict without an error."""
    rng = np.random.default_rng(3)
    rows = rng.multivariate_normal([0, 0, 0], 0.5 * np.eye(3) + 0.5, 200)
    assert best(rows[rng.integers(200, size=300)]) is None


def test_a_few_rows_or_a_single_column_stay_a_gaussian():
    assert best(drawn(50)) is None
    assert best(drawn(400)[:, :1]) is None


def test_labels_beside_normal_columns_ask_for_no_mixture():
    """Indicators are clusters, but labels are drawn anew whatever a mixture says of them."""
    rng = np.random.default_rng(0)
    numbers = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 400)
    indicators = rng.integers(3, size=400)[:, None] == np.arange(3)
    x = torch.from_numpy(np.column_stack([numbers, indicators]))
    owner = torch.tensor([0, 1, 2, 2, 2])
    observed = torch.ones_like(x, dtype=torch.bool)
    assert best_mixture(x, observed, owner, 0) is None
