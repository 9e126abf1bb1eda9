"""Columns bent towards a normal distribution, and back."""

import numpy as np
import pytest
from scipy import stats

from skdiffusion.columns.bend import bend, fit_bend, unbend
from skdiffusion.columns.columns import in_blocks


def columns(n=2000, seed=0):
    """A normal, a heavy-tailed, a skewed, a mostly constant and a constant column, with gaps."""
    normal = np.random.default_rng(seed).standard_normal((n, 4))
    heavy, skewed = np.sinh(normal[:, 1]), np.exp(normal[:, 2])
    rare = np.where(normal[:, 3] > 1.5, normal[:, 3], 0.0)
    u = np.column_stack([normal[:, 0], heavy, skewed, rare, np.zeros(n)])
    u[:, :4] = (u[:, :4] - u[:, :4].mean(axis=0)) / u[:, :4].std(axis=0)
    u[::7, 1] = np.nan
    return u


def test_there_and_back():
    u = columns()
    parameters = fit_bend(u)
    z = bend(u, parameters)
    np.testing.assert_allclose(unbend(z, parameters), u, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.nanmean(z, axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.nanstd(z, axis=0), [1, 1, 1, 1, 0], atol=1e-9)


def test_a_normal_column_stays_straight_and_a_heavy_one_becomes_normal():
    u = columns()
    z = bend(u, fit_bend(u))
    np.testing.assert_allclose(z[:, 0], u[:, 0], atol=1e-6)
    heavy, bent = (x[~np.isnan(x)] for x in (u[:, 1], z[:, 1]))
    assert stats.kurtosis(heavy) > 5
    # The standard error of the kurtosis of a normal sample is sqrt(24 / n); five of them.
    assert abs(stats.kurtosis(bent)) < 5 * np.sqrt(24 / len(bent))


@pytest.mark.parametrize("n", [3, 20])
def test_few_rows_of_normal_values_stay_straight(n):
    u = np.random.default_rng(0).standard_normal((n, 50))
    straight = np.abs(bend(u, fit_bend(u)) - stats.zscore(u)).max(axis=0) < 1e-6
    assert straight.mean() > 0.8


def test_bent_columns_come_back_near_the_range_that_was_seen():
    u = columns()
    parameters = fit_bend(u)
    low, high = np.nanmin(u, axis=0), np.nanmax(u, axis=0)
    out = unbend(np.array([[-1e3], [1e3]]), parameters)
    bent = [1, 2]
    more = (high - low)[bent] / 2
    np.testing.assert_allclose(out[:, bent], [low[bent] - more, high[bent] + more], rtol=1e-9)
    assert (np.abs(out[:, 0]) > 900).all()


@pytest.mark.parametrize("n", [1, 7, 8, 23])
def test_a_function_of_rows_is_the_same_in_blocks(n, monkeypatch):
    monkeypatch.setattr("skdiffusion.columns.columns._BLOCK", 7)
    x = np.arange(3.0 * n).reshape(n, 3)
    found = in_blocks(lambda rows: rows[:, :2] ** 2, x, np.float32)
    np.testing.assert_array_equal(found, x[:, :2] ** 2)
    assert found.dtype == np.float32
