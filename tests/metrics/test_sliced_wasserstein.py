"""Sliced Wasserstein distance: closed forms and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import gamma
from scipy.stats import ortho_group

from skdiffusion.metrics import sliced_wasserstein

clouds = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)).flatmap(
    lambda n: st.tuples(
        *(arrays(float, (m, n[2]), elements=st.floats(-100, 100, width=32)) for m in n[:2])
    )
)


@pytest.mark.parametrize("d", [1, 2, 5, 30])
def test_a_shift_has_a_closed_form(d):
    """Along every direction the distance is that of the shift: |m| E|theta_1|."""
    X, shift = np.random.default_rng(0).normal(size=(50, d)), np.linspace(1, 3, d)
    expected = np.linalg.norm(shift) * gamma(d / 2) / (np.sqrt(np.pi) * gamma((d + 1) / 2))
    # Mean of 20000 directions, spread of |theta_1| at most 0.31 of the shift.
    tolerance = 5 * 0.31 * np.linalg.norm(shift) / np.sqrt(20_000)
    found = sliced_wasserstein(X, X + shift, n_projections=20_000)
    assert found == pytest.approx(expected, abs=max(tolerance, 1e-12))


def test_a_change_of_scale_has_a_closed_form():
    """For equally many points the sorted ones are matched: E|theta| of c X against X."""
    X = np.random.default_rng(1).normal(size=(20_000, 3))
    expected = 0.5 * np.sqrt(2 / np.pi)  # W1(N(0, 1), N(0, 1.5^2))
    assert sliced_wasserstein(X, 1.5 * X) == pytest.approx(expected, abs=0.02)


def test_clouds_of_different_sizes():
    assert sliced_wasserstein([[0.0]], [[-1.0], [1.0], [4.0]]) == pytest.approx(2.0)


def test_a_rotation_of_both_clouds_changes_nothing_in_expectation():
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(100, 4)), rng.normal(size=(80, 4)) * [1, 1, 1, 5]
    Q = ortho_group.rvs(4, random_state=3)
    plain, rotated = (sliced_wasserstein(*p, n_projections=4000) for p in ((X, Y), (X @ Q, Y @ Q)))
    assert plain == pytest.approx(rotated, rel=0.06)


def test_the_directions_are_those_of_the_seed():
    rng = np.random.default_rng(4)
    X, Y = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    assert sliced_wasserstein(X, Y) == sliced_wasserstein(X, Y)
    assert sliced_wasserstein(X, Y) != sliced_wasserstein(X, Y, random_state=1)


@settings(max_examples=50, deadline=None)
@given(clouds, st.floats(0.1, 10), st.floats(-10, 10))
def test_it_is_a_distance(pair, scale, shift):
    X, Y = pair
    distance = sliced_wasserstein(X, Y, n_projections=10)
    assert distance >= 0
    assert sliced_wasserstein(X, X[::-1], n_projections=10) == pytest.approx(0, abs=1e-9)
    assert sliced_wasserstein(Y, X, n_projections=10) == pytest.approx(distance, abs=1e-9)
    moved = sliced_wasserstein(scale * X + shift, scale * Y + shift, n_projections=10)
    assert moved == pytest.approx(scale * distance, rel=1e-6, abs=1e-6)
    middle = np.zeros((1, X.shape[1]))
    by_way = sum(sliced_wasserstein(Z, middle, n_projections=10) for Z in pair)
    assert distance <= by_way + 1e-9


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        ([[0.0]], [[0.0, 1.0]], "X has 1 features, but Y has 2"),
        ([[np.nan]], [[0.0]], "X must be a finite array"),
        ([[0.0]], [0.0], "Y must be a finite array"),
    ],
)
def test_wrong_clouds_are_named(X, Y, message):
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(X, Y)
