"""Coverage and ranks: exact for a perfect sampler with any number of draws."""

import numpy as np
import pytest
from scipy import stats

from skdiffusion.metrics import coverage_curve, interval_coverage, pit_values

FALSE_ALARM = 1e-6


def all_places(m):
    """Truth in each of its m + 1 equally likely places among m draws, once."""
    y_draws = np.broadcast_to(np.arange(1.0, m + 1), (m + 1, m))
    return np.arange(m + 1) + 0.5, y_draws


@pytest.mark.parametrize("m", [1, 2, 3, 7, 20, 101])
@pytest.mark.parametrize("level", [0.05, 0.3, 0.5, 0.9, 0.95])
def test_corrected_coverage_is_exact_over_exchangeable_places(m, level):
    y_true, y_draws = all_places(m)
    if m + 1 < 2 / (1 - level) - 1e-9:
        with pytest.raises(ValueError, match=f"level={level} cannot be reached"):
            interval_coverage(y_true, y_draws, level=level)
    else:
        coverage = interval_coverage(y_true, y_draws, level=level)
        assert coverage == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize(("level", "needed"), [(0.9, 19), (0.95, 39), (0.5, 3), (0.8, 9)])
def test_the_needed_number_of_draws_is_named_and_suffices(level, needed):
    y_true, y_draws = all_places(needed - 1)
    with pytest.raises(ValueError, match=f"at least {needed},"):
        interval_coverage(y_true, y_draws, level=level)
    y_true, y_draws = all_places(needed)
    assert interval_coverage(y_true, y_draws, level=level) == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize("m", [10, 20])
def test_the_uncorrected_interval_is_too_narrow(m):
    rng = np.random.default_rng(0)
    y_true, y_draws = rng.uniform(size=40_000), rng.uniform(size=(40_000, m))
    coverage = interval_coverage(y_true, y_draws, level=0.9, corrected=False)
    # Mean distance of linearly interpolated order statistics of a uniform; five standard errors.
    assert coverage == pytest.approx(0.9 * (m - 1) / (m + 1), abs=0.011)


def test_the_corrected_interval_is_not():
    rng = np.random.default_rng(0)
    y_true, y_draws = rng.normal(size=40_000), rng.normal(size=(40_000, 20))
    assert interval_coverage(y_true, y_draws, level=0.9) == pytest.approx(0.9, abs=0.0075)


def test_many_draws_need_no_correction():
    rng = np.random.default_rng(1)
    y_true, y_draws = rng.normal(size=400), rng.normal(size=(400, 2001))
    corrected = interval_coverage(y_true, y_draws, level=0.5)
    assert corrected == pytest.approx(
        interval_coverage(y_true, y_draws, level=0.5, corrected=False), abs=0.01
    )


def test_coverage_tells_narrow_from_wide():
    rng = np.random.default_rng(2)
    y_true, y_draws = rng.normal(size=2000), rng.normal(size=(2000, 50))
    assert interval_coverage(y_true, 0.5 * y_draws) < 0.75
    assert interval_coverage(y_true, 2.0 * y_draws) > 0.97


def test_coverage_is_invariant_under_increasing_maps():
    rng = np.random.default_rng(3)
    y_true, y_draws = rng.normal(size=(50, 4)), rng.normal(size=(50, 30, 4))
    mask = rng.uniform(size=y_true.shape) < 0.5
    coverage = interval_coverage(y_true, y_draws, level=0.6, mask=mask)
    assert interval_coverage(np.exp(y_true), np.exp(y_draws), level=0.6, mask=mask) == coverage


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_wrong_level_is_named(level):
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
        interval_coverage([1.0], [[1.0, 2.0]], level=level)


@pytest.mark.parametrize("m", [1, 4, 60])
def test_pit_is_uniform_for_a_perfect_sampler(m):
    rng = np.random.default_rng(4)
    values = pit_values(rng.normal(size=5000), rng.normal(size=(5000, m)), random_state=0)
    assert stats.kstest(values, "uniform").pvalue > FALSE_ALARM


def test_pit_is_uniform_for_counts_with_many_ties():
    rng = np.random.default_rng(5)
    values = pit_values(rng.poisson(0.7, 5000), rng.poisson(0.7, (5000, 10)), random_state=0)
    assert stats.kstest(values, "uniform").pvalue > FALSE_ALARM


def test_pit_finds_what_is_wrong():
    rng = np.random.default_rng(6)
    y_true, y_draws = rng.normal(size=5000), rng.normal(size=(5000, 20))
    for wrong in (0.5 * y_draws, 2 * y_draws, y_draws + 0.5):
        values = pit_values(y_true, wrong, random_state=0)
        assert stats.kstest(values, "uniform").pvalue < FALSE_ALARM


def test_pit_lies_in_the_place_of_the_truth():
    y_true, y_draws = all_places(4)
    values = pit_values(y_true, y_draws, random_state=0)
    np.testing.assert_array_equal(np.floor(5 * values), np.arange(5))


def test_pit_is_fixed_by_an_int_and_ordered_as_the_scored_cells():
    rng = np.random.default_rng(7)
    y_true, y_draws = rng.normal(size=(6, 3)), rng.normal(size=(6, 9, 3))
    mask = rng.uniform(size=y_true.shape) < 0.5
    values = pit_values(y_true, y_draws, mask=mask, random_state=0)
    np.testing.assert_array_equal(values, pit_values(y_true, y_draws, mask=mask, random_state=0))
    ranks = (y_draws < y_true[:, None]).sum(axis=1)[mask]
    np.testing.assert_array_equal(np.floor(10 * values), ranks)


def test_the_coverage_curve_is_the_diagonal_for_a_perfect_sampler_only():
    levels = [0.1, 0.5, 0.8, 0.95]
    y_true, y_draws = all_places(59)
    np.testing.assert_allclose(coverage_curve(y_true, y_draws, levels), levels)
    assert (coverage_curve(y_true, 30 + (y_draws - 30) / 2, levels) < levels).all()
