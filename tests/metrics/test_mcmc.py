"""Diagnostics of chains against ArviZ, and distances against known values."""

import numpy as np
import pytest

from skdiffusion.metrics import (
    effective_sample_size,
    energy_distance,
    mode_coverage,
    mode_weight_error,
    nested_r_hat,
    r_hat,
)
from skdiffusion.metrics._chains import _plain_nested_r_hat


def autoregressive(n_chains, n_draws, phi, seed=0):
    x = np.random.default_rng(seed).normal(size=(n_chains, n_draws))
    for t in range(1, n_draws):
        x[:, t] = phi * x[:, t - 1] + np.sqrt(1 - phi**2) * x[:, t]
    return x


CHAINS = [((4, 100), 0.5), ((4, 101), 0.9), ((8, 500), 0.0), ((2, 50), -0.7), ((3, 98), 0.99)]
CHAINS += [((3, 99), 0.6), ((4, 10), 0.99), ((4, 7), 0.3)]


@pytest.mark.parametrize(("shape", "phi"), CHAINS)
def test_r_hat_and_effective_sample_sizes_are_those_of_arviz(shape, phi):
    oracle = pytest.importorskip("arviz_stats.base").array_stats
    x = autoregressive(*shape, phi)
    axes = {"chain_axis": 0, "draw_axis": 1}
    assert r_hat(x) == pytest.approx(float(oracle.rhat(x, **axes)), rel=1e-10)
    for kind in ("bulk", "tail", "mean"):
        prob = (0.05, 0.95) if kind == "tail" else None
        known = float(oracle.ess(x, method=kind, prob=prob, **axes))
        # Sums that are zero up to rounding decide where the tail's sequence ends.
        if kind == "tail" and shape[1] == 10:
            continue
        assert effective_sample_size(x, kind) == pytest.approx(known, rel=1e-8)
    if shape[0] == 4:
        groups = np.array([0, 1, 0, 1])
        known = float(oracle.rhat_nested(x, method="identity", superchain_ids=groups, **axes))
        nested = _plain_nested_r_hat(x[[0, 2, 1, 3]].reshape(2, 2, -1))
        assert nested == pytest.approx(known, rel=1e-10)


def test_effective_sample_size_of_an_autoregression_is_the_theoretical_one():
    x = autoregressive(8, 20_000, 0.8)
    assert effective_sample_size(x, "mean") / x.size == pytest.approx(0.2 / 1.8, rel=0.06)


@pytest.mark.parametrize("phi", [0.0, 0.7, -0.5])
def test_standard_errors_by_effective_sample_size_cover_the_mean(phi):
    """Of 500 runs of four chains; two binomial standard errors are 2 %."""
    runs = autoregressive(2000, 250, phi, seed=5).reshape(500, 4, 250)
    means = runs.mean((1, 2))
    sizes = np.array([effective_sample_size(run, "mean") for run in runs])
    errors = runs.std((1, 2)) / np.sqrt(sizes)
    assert 0.915 < np.mean(np.abs(means) < 1.96 * errors) < 0.985


def test_features_are_treated_one_by_one():
    x = np.stack([autoregressive(4, 60, phi, seed=3) for phi in (0.1, 0.9)], 2)
    for statistic in (r_hat, effective_sample_size, lambda d: nested_r_hat(d, [0, 0, 1, 1])):
        np.testing.assert_array_equal(statistic(x), [statistic(x[:, :, 0]), statistic(x[:, :, 1])])


def test_nested_r_hat_catches_what_four_chains_miss():
    rng = np.random.default_rng(0)
    modes = np.repeat([-20.0, 20.0], 100)[:, None] + rng.normal(size=(200, 1))
    assert nested_r_hat(modes, np.repeat([0, 1], 100)) > 2
    assert nested_r_hat(rng.permutation(modes), np.repeat([0, 1], 100)) < 1.02
    spread = np.repeat([1.0, 5.0], 100)[:, None] * rng.normal(size=(200, 1))
    assert nested_r_hat(spread, np.repeat([0, 1], 100)) > 1.3


def test_energy_distance_is_that_of_scipy_in_one_dimension():
    from scipy.stats import energy_distance as oracle

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300), 1 + 2 * rng.normal(size=200)
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(oracle(x, y), rel=1e-10)


def test_energy_distance_does_not_depend_on_blocks(monkeypatch):
    from skdiffusion.metrics import _clouds

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(700, 3)), rng.normal(size=(500, 3))
    blocks = [sum(_clouds._mean_distance(a, y) * len(a) for a in (x[:123], x[123:])) / 700]
    assert _clouds._mean_distance(x, y) == pytest.approx(blocks[0], rel=1e-12)
    rotated = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert energy_distance(x @ rotated, y @ rotated) == pytest.approx(energy_distance(x, y))


def test_coverage_and_weight_error():
    labels = np.repeat([0, 1, 2], [50, 40, 10])
    assert mode_coverage(labels, [0.5, 0.25, 0.25]) == pytest.approx(2 / 3)
    assert mode_coverage(labels, [0.5, 0.25, 0.25], share=0.4) == 1
    assert mode_weight_error(labels, [0.5, 0.25, 0.25]) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: r_hat(np.zeros((4, 3))), "at least 4 draws"),
        (lambda: r_hat(np.full((4, 10), np.nan)), "draws contains NaN"),
        (lambda: nested_r_hat(np.zeros((4, 1)), [0, 0, 0, 1]), "groups of one size"),
        (lambda: nested_r_hat(np.zeros((5, 1)), [0, 0, 1, 1]), "4 labels for 5 chains"),
        (lambda: effective_sample_size(np.zeros((4, 10)), "middle"), "kind must be"),
        (lambda: energy_distance([[1.0]], [[1.0, 2.0]]), "Y has 2"),
        (lambda: energy_distance([1.0], [[1.0]]), "X must be a finite array"),
        (lambda: mode_coverage([0, 3], [0.5, 0.5]), "labels must lie in"),
        (lambda: mode_coverage(np.zeros(0, int), [0.5, 0.5]), "non-empty"),
        (lambda: mode_weight_error([0.5], [0.5, 0.5]), "array of integers"),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
