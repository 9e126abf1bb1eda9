"""Questions put to a target, on densities whose answer is known."""

import math

import pytest
import torch

from skdiffusion.diffusion.target.checks import (
    climb,
    jumps,
    stein,
    tail_powers,
    value_noise,
    wrong_curls,
    wrong_slopes,
)
from skdiffusion.diffusion.target.recognise import FunctionTarget


def target_of(function, d):
    return FunctionTarget(function, d, torch.float64, torch.device("cpu"))


def normals(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def normal(x):
    return -0.5 * x.square().sum(1)


@pytest.mark.parametrize("centre", [0.0, 1e3])
def test_steins_identity_holds_for_draws_and_not_for_others(centre):
    scales = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    x = normals(20, 500, 3) * scales
    mean = stein(x + centre, -x / scales**2).mean(0)
    assert mean.shape == (4,)
    torch.testing.assert_close(mean, torch.ones(4).double(), rtol=0, atol=0.07)
    narrow = stein(0.5 * x, -0.5 * x / scales**2).mean(0)
    torch.testing.assert_close(narrow, torch.full((4,), 0.25).double(), rtol=0, atol=0.02)


def test_a_jump_breaks_steins_identity_by_what_flows_over_it():
    """For N(0, 1) cut to x > 0 the mean of -(x - c) g is 1 + c p(0)."""
    x = normals(50, 4000, 1).abs()
    known = 1 - 0.6745 * math.sqrt(2 / math.pi)
    assert float(stein(x, -x).mean()) == pytest.approx(known, abs=0.02)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_slopes_that_are_wrong_are_found_at_every_scale(scale):
    x = scale * normals(60, 3)
    factor = torch.tensor([1.0, 1.0, 1.3], dtype=torch.float64)
    log_density = lambda x: normal(x / scale)  # noqa: E731
    right = target_of(log_density, 3)
    wrong = target_of(lambda x: (log_density(x), -x / scale**2 * factor), 3)
    assert wrong_slopes(right, x)[0].sum() == 0
    assert wrong_slopes(right, x)[1].sum() > 50
    assert wrong_slopes(wrong, x)[0].sum() >= 18


def test_single_precision_is_not_mistaken_for_a_wrong_gradient():
    weights = torch.tensor([1.0, 2.0])
    target = target_of(lambda x: -0.5 * (x.float() * weights).square().sum(1), 2)
    wrong, clear = wrong_slopes(target, normals(100, 2))
    assert wrong.sum() == 0
    assert clear.sum() > 50


def test_a_jump_is_measured_and_a_kink_or_a_bend_is_none():
    x, offset = normals(40, 2), normals(80, 2)[40:]
    crossing = (x[:, 0] > 0.3) != (x[:, 0] + offset[:, 0] > 0.3)
    step = target_of(lambda x: normal(x) - 3.0 * (x[:, 0] > 0.3), 2)
    found = jumps(step, x, offset).abs()
    torch.testing.assert_close(
        found[crossing], torch.full_like(found[crossing], 3), rtol=0.05, atol=0
    )
    smooth = [normal, lambda x: -x.abs().sum(1), lambda x: -(x[:, 1] - 3 * x[:, 0] ** 2).square()]
    for function in smooth:
        found = jumps(target_of(function, 2), x, offset)
        assert found.isfinite().sum() > 10
        assert found.nan_to_num(0.0).abs().max() < 0.2


def test_a_field_that_turns_is_no_gradient():
    turning = target_of(lambda x: torch.stack([-x[:, 0] + x[:, 1], -x[:, 1]], 1), 2)
    straight = target_of(lambda x: torch.stack([-x[:, 0] + x[:, 1], x[:, 0] - 3 * x[:, 1]], 1), 2)
    assert wrong_curls(turning, normals(40, 2))[0].all()
    wrong, clear = wrong_curls(straight, normals(40, 2))
    assert clear.all()
    assert not wrong.any()


@pytest.mark.parametrize(
    ("log_density", "power"),
    [
        (lambda x: -torch.log1p(x.square()).sum(1), 2.0),
        (lambda x: -3 * torch.log1p(x.square() / 5).sum(1), 6.0),
        (lambda x: 0 * x.sum(1), 0.0),
        (lambda x: x.square().sum(1).neg().exp(), 0.0),
        (normal, math.inf),
        (lambda x: -x.abs().sum(1), math.inf),
        # Nobody comes to a floor a hundred nats below.
        (lambda x: (normal(x).exp() + 1e-40).log(), math.inf),
    ],
    ids=["Cauchy", "t", "flat", "density", "normal", "Laplace", "floor"],
)
def test_powers_of_tails(log_density, power):
    target, rays = target_of(log_density, 1), torch.tensor([[1.0], [-1.0]]).double()
    found = tail_powers(target, normals(2, 1), rays)
    if power == math.inf:
        assert (found > 100).all()
    else:
        torch.testing.assert_close(found, torch.full((2,), power).double(), rtol=0.01, atol=1e-6)


def test_scouts_climb_to_both_hills_and_not_to_a_low_one():
    def hills(x):
        heights = torch.tensor([0.0, 0.0, -30.0])
        places = torch.tensor([-40.0, 40.0, 0.0])
        return torch.logsumexp(heights - 0.5 * (x - places).square(), 1)

    x = torch.linspace(-100, 100, 81, dtype=torch.float64)[:, None]
    found, arrived = climb(target_of(hills, 1), x, -2.0)
    assert (found[arrived].abs() - 40).abs().max() < 2.1
    assert {True, False} == set((found[arrived] > 0).flatten().tolist())
    assert not arrived[(x[:, 0].abs() < 15)].any()
    assert arrived.sum() > 40


def single(function):
    return lambda x: function(x.float()).double()


def offset(x):
    """A normal density whose values are about -5000, as those of many rows are."""
    return normal(x) - 5000.0


def test_rounding_of_single_precision_is_measured_and_no_wrong_gradient():
    """Numbers about 5000 are 2**-11 apart: errors are spread over that, up to a factor of 2."""
    x = normals(128, 5)
    target = target_of(single(offset), 5)
    noise = value_noise(lambda x: target.evaluate(x)[0], x, x)
    assert 0.5 < noise / (2**-11 / math.sqrt(12)) < 2
    assert not wrong_slopes(target, x, noise)[0].any()
    assert value_noise(offset, x, x) < 1e-11


def test_wrong_gradients_of_single_precision_are_still_seen():
    x = normals(128, 5)
    both = lambda x: (offset(x.float()).double(), -2 * x.float().double())  # noqa: E731
    target = target_of(both, 5)
    wrong, clear = wrong_slopes(target, x, value_noise(lambda x: target.evaluate(x)[0], x, x))
    assert clear.sum() > 64
    assert wrong.sum() > 0.9 * clear.sum()


@pytest.mark.parametrize(("function", "expected"), [(normal, False), (single(normal), True)])
def test_a_function_that_computes_in_single_precision_is_known(function, expected):
    assert target_of(function, 3).is_single is expected


def test_the_field_of_a_density_in_single_precision_is_a_gradient():
    x, matrix = normals(128, 4), normals(4, 4).float()
    symmetric = target_of(lambda x: -(x.float() @ (matrix @ matrix.T)).double(), 4)
    assert not wrong_curls(symmetric, x)[0].any()
    wrong, clear = wrong_curls(target_of(lambda x: (x.float() @ matrix).double(), 4), x)
    assert wrong.sum() > 0.5 * clear.sum() > 10
