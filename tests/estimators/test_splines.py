"""A monotone spline: the function it comes from, its derivatives and its inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiffusion.columns.spline import MonotoneSpline

POINTS = np.random.default_rng(0).uniform(-5, 5, 200)


@pytest.fixture(scope="module")
def spline():
    """Of y = x + x^3 / 3."""
    x = np.array([-3.0, -2.0, -0.5, 0.0, 0.3, 1.7, 3.0])
    return MonotoneSpline(x, x + x**3 / 3, 1 + x**2)


def test_it_goes_through_its_knots_with_their_slopes(spline):
    y, log_slope, _ = spline.forward(spline.x)
    np.testing.assert_allclose(y, spline.y, atol=1e-12)
    np.testing.assert_allclose(np.exp(log_slope), spline.slope)


def test_derivatives(spline):
    h = 1e-6
    x = POINTS[np.abs(POINTS[:, None] - spline.x).min(1) > 2 * h]
    (below, slope_below, _), (above, slope_above, _) = map(spline.forward, (x - h, x + h))
    _, log_slope, change = spline.forward(x)
    np.testing.assert_allclose((above - below) / (2 * h), np.exp(log_slope), rtol=1e-6)
    np.testing.assert_allclose((slope_above - slope_below) / (2 * h), change, atol=1e-6)


def test_it_comes_close_to_a_smooth_function():
    x = np.linspace(-3, 3, 61)
    spline = MonotoneSpline(x, np.sinh(x), np.cosh(x))
    fine = np.linspace(-3, 3, 997)
    np.testing.assert_allclose(spline.forward(fine)[0], np.sinh(fine), atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(1e-3, 5), st.floats(1e-6, 5), st.floats(1e-9, 1e3)),
        min_size=2,
        max_size=8,
    )
)
def test_inverse_and_order(steps):
    """Whatever the slopes at the knots, the function rises and its inverse finds the way back."""
    x, y, slope = np.array(steps).T
    spline = MonotoneSpline(np.cumsum(x), np.cumsum(y), slope)
    values = np.linspace(y[0] - 1, y.sum() + 1, 301)
    points = spline.inverse(values)
    assert (np.diff(points) >= 0).all()
    np.testing.assert_allclose(spline.forward(points)[0], values, atol=1e-6)


def test_missing_values_stay_missing(spline):
    assert np.isnan(spline.forward(np.array([np.nan, 1.0]))[0]).tolist() == [True, False]
    assert np.isnan(spline.inverse(np.array([np.nan, 1.0]))).tolist() == [True, False]
