"""The course that the series of a panel have in common."""

import numpy as np
import pytest
import torch

from skdiffusion.diffusion.statespace.profile import Profile


def panel(course, n_series=30, n_times=12, noise=0.1, seen=0.8, level=1.0, seed=0):
    """Series with a level of their own, a course in common and noise, end to end."""
    rng = np.random.default_rng(seed)
    time = np.tile(np.arange(float(n_times)), n_series)
    values = course(time) + np.repeat(level * rng.normal(size=n_series), n_times)
    values = torch.from_numpy(values + noise * rng.normal(size=len(time)))[:, None]
    observed = torch.from_numpy(rng.random(values.shape) < seen)
    offsets = torch.arange(n_series + 1) * n_times
    return torch.where(observed, values, 0.0), observed, torch.from_numpy(time), offsets


def deviations(x):
    return x - x.mean()


@pytest.mark.parametrize(
    "course",
    [
        lambda t: 0.3 * t,
        lambda t: 2 * np.exp(-t / 3),
        lambda t: np.where(t < 5, 0.0, 1.0),
        lambda t: np.cos(t),
    ],
    ids=["growth", "decay", "step", "wave"],
)
def test_a_course_is_found_beside_levels(course):
    profile = Profile.learn(*panel(course))
    t = torch.arange(12.0, dtype=torch.float64)
    left = deviations(profile(t)[:, 0]).numpy() - deviations(course(t.numpy()))
    # The mean over 24 series is within .1 / sqrt(24) = .02; between knots it is straight.
    assert np.abs(left).max() < 0.15
    assert left.std() < 0.06


def test_series_without_anything_in_common_have_none():
    """Walks seem to go somewhere together: only series left out tell that they do not."""
    n_found = 0
    for seed in range(40):
        _, observed, time, offsets = panel(lambda t: 0 * t, seed=seed)
        steps = np.random.default_rng(seed).normal(size=(30, 12))
        walks = torch.from_numpy(steps.cumsum(1).ravel())[:, None]
        profile = Profile.learn(torch.where(observed, walks, 0.0), observed, time, offsets)
        n_found += len(profile.times) > 0
    # One in a hundred has; seven of forty would be by chance once in a million.
    assert n_found < 7


def test_columns_have_their_own_or_none():
    values, observed, time, offsets = panel(lambda t: 0.3 * t)
    rng = np.random.default_rng(1)
    noise = torch.from_numpy(rng.normal(size=values.shape))
    both = torch.cat([values, noise * observed], 1)
    profile = Profile.learn(both, observed.expand(-1, 2), time, offsets)
    t = torch.arange(12.0, dtype=torch.float64)
    assert float(profile(t)[:, 0].std()) > 0.5
    assert not profile(t)[:, 1].any()


def test_it_leads_on_for_a_quarter_of_its_range_and_then_stays():
    profile = Profile.learn(*panel(lambda t: 0.3 * t, noise=0.01))
    t = torch.tensor([9.0, 11.0, 13.0, 13.75, 20.0, 1000.0], dtype=torch.float64)
    height = profile(t)[:, 0]
    np.testing.assert_allclose(height[1:4].diff() / t[1:4].diff(), 0.3, atol=0.02)
    assert height[3] == height[4] == height[5]


def test_few_series_have_none():
    assert not len(Profile.learn(*panel(lambda t: 0.3 * t, n_series=7)).times)


def test_it_is_zero_on_average_where_values_are():
    values, observed, time, offsets = panel(lambda t: np.exp(t / 4), seen=0.6)
    profile = Profile.learn(values, observed, time, offsets)
    assert abs(float(profile(time)[observed].mean())) < 1e-9
