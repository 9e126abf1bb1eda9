"""Maps of single columns: a density that is one, its distribution function and its inverse."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from skdiffusion import ScoreSDE
from skdiffusion.columns.coordinates import Coordinates
from skdiffusion.columns.marginals import Histogram, fit_marginals
from skdiffusion.diffusion.analytic.build import gaussian_mixture
from skdiffusion.estimators.density._bases import stacking_weights


def two_steps(n, seed=0):
    """Three tenths uniform on [0, 1), the rest uniform on [5, 5.1)."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.3
    return np.where(first, rng.random(n), 5 + 0.1 * rng.random(n))


def spiky(n, seed=0):
    """Two columns on grids, dequantised, that hang together, and a normal one."""
    rng = np.random.default_rng(seed)
    count = rng.binomial(3, 0.4, n)
    other = np.where(rng.random(n) < 0.2, 3 - count, count)
    return np.column_stack([count + rng.random(n), other + rng.random(n), rng.normal(size=n)])


@pytest.fixture(scope="module", params=["two steps", "normal", "ties"])
def histogram(request):
    if request.param == "two steps":
        return Histogram(two_steps(1000))
    values = np.random.default_rng(0).normal(size=500)
    return Histogram(values if request.param == "normal" else np.round(values))


POINTS = np.concatenate([np.random.default_rng(1).uniform(-4, 6, 300), [-50.0, 1e3]])


def test_map_is_the_normal_score_of_the_distribution_function(histogram):
    """The derivative of F is the density, that of log f the slope, except at the knots."""
    h = 1e-6
    x = POINTS[np.abs(POINTS[:, None] - histogram.knots).min(1) > 2 * h]
    (below, f_below, _), (above, f_above, _) = map(histogram.forward, (x - h, x + h))
    _, log_density, slope = histogram.forward(x)
    difference = np.where(x < 0, ndtr(above) - ndtr(below), ndtr(-below) - ndtr(-above))
    np.testing.assert_allclose(difference / (2 * h), np.exp(log_density), rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose((f_above - f_below) / (2 * h), slope, rtol=1e-5, atol=1e-6)
    assert (np.diff(histogram.forward(np.sort(x))[0]) > 0).all()


def test_map_and_inverse(histogram):
    y = np.concatenate([np.linspace(-5, 5, 301), [-30.0, 30.0]])
    np.testing.assert_allclose(histogram.forward(histogram.inverse(y))[0], y, atol=1e-7)
    back = histogram.inverse(histogram.forward(POINTS)[0])
    np.testing.assert_allclose(back, POINTS, rtol=1e-7, atol=1e-7)


def test_steps_are_found():
    histogram = Histogram(two_steps(2000))
    density = np.exp(histogram.forward(np.array([0.5, 3.0, 5.05]))[1])
    np.testing.assert_allclose(density, [0.3, 0.0, 7.0], rtol=0.15, atol=1e-3)
    _, p = stats.kstest(histogram.forward(two_steps(2000, seed=1))[0], "norm")
    assert p > 1e-6


def test_missing_values_stay_missing_and_other_columns_untouched():
    rows = spiky(200)
    rows[3, 0] = np.nan
    marginals = fit_marginals(rows, [0])
    latent, _ = marginals.forward(rows)
    assert np.isnan(latent[3, 0])
    assert np.isnan(latent).sum() == 1
    np.testing.assert_array_equal(latent[:, 1:], rows[:, 1:])
    np.testing.assert_allclose(marginals.inverse(latent), rows, atol=1e-9)


@pytest.fixture(scope="module")
def target():
    """A mixture whose components are as narrow as those of grids, and a wide one."""
    rng = np.random.default_rng(3)
    means, covariances = rng.normal(size=(4, 3)), 10.0 ** rng.uniform(-3, 0, (4, 3))
    return gaussian_mixture([0.4, 0.3, 0.2, 0.1], means, covariances, "diag")


def test_aimed_maps_turn_draws_of_the_target_into_the_columns(target):
    """The distribution function of what comes out is the histogram's, without noise."""
    marginals = fit_marginals(spiky(1000), range(3)).aimed_at(target)
    x = np.quantile(spiky(1000), np.linspace(0.001, 0.999, 500), axis=0)
    y, _ = marginals.forward(x)
    weights, means, deviations = (part.numpy() for part in target.marginals())
    for j in range(3):
        under_target = ndtr((y[:, j, None] - means[:, j]) / deviations[:, j]) @ weights
        under_histogram = ndtr(marginals.histograms[j].forward(x[:, j])[0])
        np.testing.assert_allclose(under_target, under_histogram, atol=2e-3)
    np.testing.assert_allclose(marginals.inverse(y), x, atol=1e-6)


def test_aimed_maps_know_their_slopes(target):
    rows, h = spiky(100, seed=1), 1e-7
    marginals = fit_marginals(spiky(1000), [0, 2]).aimed_at(target)
    slope, log_jacobian_slope = marginals.slopes(rows)
    (above, log_above), (below, log_below) = (marginals.forward(rows + e) for e in (h, -h))
    knots = np.concatenate([marginals.histograms[j].knots for j in (0, 2)])
    far = (np.abs(rows[:, [0, 2], None] - knots).min(2) > 2 * h).all(1)
    np.testing.assert_allclose(((above - below) / (2 * h))[far], slope[far], rtol=1e-4)
    change = (log_above - log_below) / (2 * h)
    np.testing.assert_allclose(change[far], log_jacobian_slope.sum(1)[far], rtol=1e-3, atol=1e-2)


@pytest.fixture(scope="module", params=["histogram", "copula"])
def mapped(request):
    """A mixture in the coordinates of normal scores, or one with the histograms as columns."""
    return ScoreSDE(base="mixture", marginals=request.param, max_iter=0, random_state=0).fit(
        spiky(1000)[:, :2]
    )


def test_copula_draws_have_exactly_the_histograms():
    """As many draws of normal scores show that they have not: the test has power."""
    X, p = spiky(1000), {}
    for marginals in ("histogram", "copula"):
        model = ScoreSDE(base="mixture", marginals=marginals, max_iter=0, random_state=0).fit(X)
        scores = fit_marginals(X, range(3)).forward(model.sample(60_000))[0]
        p[marginals] = min(stats.kstest(column, "norm").pvalue for column in scores.T)
    assert p["copula"] > 1e-6
    assert p["histogram"] < 1e-6


def test_copula_needs_a_mixture_and_no_condition():
    with pytest.raises(ValueError, match='marginals="copula" needs base="mixture"'):
        ScoreSDE(base="kde", marginals="copula").fit(spiky(100))
    with pytest.raises(ValueError, match="no condition"):
        ScoreSDE(marginals="copula", condition="value").fit(spiky(100), np.arange(100.0))


def test_density_in_the_units_of_the_user_integrates_to_one(mapped):
    axis = np.arange(-2, 6, 0.04) + 0.0213
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    total = np.exp(mapped.score_samples(grid)).sum() * 0.04**2
    assert total == pytest.approx(1, abs=0.03)


def test_gradient_is_that_of_the_density(mapped):
    x, h = np.array([[0.31, 1.6], [2.52, 3.47], [-0.7, 5.0]]), 1e-6
    numeric = np.column_stack(
        [
            (mapped.score_samples(x + e) - mapped.score_samples(x - e)) / (2 * h)
            for e in np.eye(2) * h
        ]
    )
    ours = mapped.log_density_gradient(x, noise_level=1e-3)
    np.testing.assert_allclose(ours, numeric, rtol=1e-2, atol=1e-3)


def test_bound_and_entropy_count_the_map(mapped):
    """The denoiser of a mixture is exact: the bound is the negative log-likelihood."""
    T = spiky(200, seed=1)[:, :2]
    bound, error = mapped.nll_bound(T, n_draws=64, return_std=True)
    gap = bound + mapped.score_samples(T)
    assert abs(gap.mean()) < 5 * np.sqrt((error**2).mean() / len(T)) + 0.01
    draws = mapped.sample(1000, random_state=1)
    entropy, error = mapped.entropy(draws, return_std=True)
    assert abs(entropy + mapped.score(draws)) < 5 * error + 0.02


def test_draws_and_completed_rows_have_the_columns_of_the_data(mapped):
    draws = mapped.sample(2000, random_state=1)
    fresh = spiky(2000, seed=2)[:, :2]
    for j in range(2):
        assert stats.ks_2samp(draws[:, j], fresh[:, j]).pvalue > 1e-6
    completed = mapped.impute([[0.5, np.nan]], n_draws=2000)[0]
    expected = fresh[(fresh[:, 0] < 1), 1]
    assert np.abs(np.sort(completed[:, 1]).mean() - expected.mean()) < 0.2
    T = fresh[:50]
    np.testing.assert_allclose(mapped.inverse_transform(mapped.transform(T)), T, atol=1e-4)


def test_auto_maps_columns_where_that_helps():
    model = lambda X, **kw: ScoreSDE(max_iter=0, random_state=0, **kw).fit(X)  # noqa: E731
    X, fresh = (
        np.column_stack([two_steps(n, seed), spiky(n, seed + 5)[:, 0]])
        for n, seed in ((1000, 0), (500, 3))
    )
    mapped = model(X)
    assert mapped.marginals_ == "histogram"
    assert mapped.score(fresh) > model(X, marginals=None).score(fresh) + 0.1
    assert model(np.random.default_rng(0).normal(size=(500, 2))).marginals_ is None


@pytest.mark.slow
def test_stacking_finds_the_weights_of_a_mixture():
    rng = np.random.default_rng(0)
    x = np.where(rng.random(4000) < 0.3, rng.normal(-2, 1, 4000), rng.normal(2, 1, 4000))
    log_densities = np.column_stack([stats.norm.logpdf(x, m) for m in (-2, 2, 9)])
    np.testing.assert_allclose(stacking_weights(log_densities), [0.3, 0.7, 0.0], atol=0.05)


def test_draws_are_no_further_out_than_a_hundredth_of_a_tail():
    """A chain gives scores of 12 once in a thousand draws; Phi(-12) is 1e-33."""
    values = np.random.default_rng(0).normal(size=1000)
    marginals = fit_marginals(values[:, None], [0])
    coordinates = Coordinates({}, np.array([5.0]), np.array([2.0]), marginals)
    scores = np.array([[-12.0], [-1.0], [0.0], [1.0], [12.0]])
    x, drawn = (coordinates.inverse(scores, drawn=drawn)[:, 0] for drawn in (False, True))
    np.testing.assert_array_equal(x[1:4], drawn[1:4])
    assert np.abs(x[[0, 4]]).min() > 1e6
    low, high = 5 + 2 * values.min(), 5 + 2 * values.max()
    assert low - 10 < drawn[0] < low
    assert high < drawn[4] < high + 10
    tail = ndtr(marginals.forward((drawn[:, None] - 5) / 2)[0][0, 0])
    assert tail == pytest.approx(0.5 / 1001 / 100, rel=1e-6)
