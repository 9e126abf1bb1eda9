"""Supports: one law for all, that the map is one to one and its Jacobian right."""

import math

import pytest
import torch
from torch import distributions as td
from torch.distributions import constraints

from skdiffusion.diffusion.langevin import autograd
from skdiffusion.diffusion.target import (
    Blocks,
    Box,
    FunctionTarget,
    Ordered,
    Supported,
    support_of,
)

INF = math.inf
SUPPORTS = {
    "box": Box((0.0, -INF, -2.0, -INF), (INF, 3.0, 5.0, INF)),
    "ordered": Ordered(4),
    "simplex": support_of(constraints.simplex, 4),
    "transform": support_of(td.SigmoidTransform(), 3),
    "interval": support_of(constraints.interval(-1.0, 4.0), 3),
    "half line": support_of(constraints.less_than(2.0), 3),
    "blocks": Blocks([Ordered(2), support_of(constraints.simplex, 3), Box((1.0,), (INF,))]),
}


def free(support, n=50):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn((n, support.n_free), dtype=torch.float64, generator=generator)


def smooth(x):
    return -0.3 * (x - 0.2).square().sum(1) + x[:, 0] * x[:, -1]


@pytest.mark.parametrize("name", SUPPORTS)
def test_maps_are_one_to_one_with_their_jacobian(name):
    support = SUPPORTS[name]
    y = free(support)
    x, slope = support(y)
    assert x.shape == (50, support.n_features)
    assert support.contains(x).all()
    torch.testing.assert_close(support.inverse(x), y)
    if "simplex" in name or name == "blocks":
        return
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: support(y[None])[0][0]))(y)
    torch.testing.assert_close(slope, torch.linalg.slogdet(jacobian)[1])


def test_the_jacobian_of_a_simplex_is_that_of_all_but_the_last():
    support = SUPPORTS["simplex"]
    y = free(support)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: support(y[None])[0][0, :-1]))(y)
    torch.testing.assert_close(support(y)[1], torch.linalg.slogdet(jacobian)[1])
    parts = SUPPORTS["blocks"]
    y = free(parts)
    slopes = [Ordered(2)(y[:, :2])[1], support_of(constraints.simplex, 3)(y[:, 2:4])[1], y[:, 4]]
    torch.testing.assert_close(parts(y)[1], sum(slopes))


@pytest.mark.parametrize("name", SUPPORTS)
@pytest.mark.parametrize("kind", ["log_density", "both", "gradient"])
def test_gradients_are_those_of_the_density_of_free_coordinates(name, kind):
    support = SUPPORTS[name]
    function = {
        "log_density": smooth,
        "both": lambda x: autograd(smooth, x),
        "gradient": lambda x: autograd(smooth, x)[1],
    }[kind]
    size = (support.n_features, torch.float64, torch.device("cpu"))
    target = Supported(FunctionTarget(function, *size, support), support)
    y = free(support)
    known = autograd(lambda y: smooth(support(y)[0]) + support(y)[1], y)
    value, gradient = target.evaluate(y)
    torch.testing.assert_close(gradient, known[1])
    torch.testing.assert_close(target.gradient(y), known[1])
    torch.testing.assert_close(target.at_step(3)(y)[1], known[1])
    assert (value is None) == (kind == "gradient")
    if value is not None:
        torch.testing.assert_close(value, known[0])


@pytest.mark.parametrize("name", SUPPORTS)
def test_far_out_points_stay_inside_and_gradients_finite_where_they_can(name):
    support = SUPPORTS[name]
    y = torch.full((1, support.n_free), -60.0, dtype=torch.float64, requires_grad=True)
    x, slope = support(y)
    assert torch.isfinite(x).all()
    assert torch.isfinite(slope).all()
    (gradient,) = torch.autograd.grad(x.sum() + slope.sum(), y)
    assert torch.isfinite(gradient).all()
    if name == "box":
        assert float(x[0, 0]) > 0
        assert float(x[0, 1]) < 3


def test_what_is_no_constraint_or_has_no_map():
    assert support_of(constraints.real_vector, 3) is None
    assert support_of(constraints.independent(constraints.real, 1), 3) is None
    assert support_of(constraints.positive, 2) == Box((0.0, 0.0), (INF, INF))
    with pytest.raises(NotImplementedError):
        support_of(constraints.nonnegative_integer, 2)
    assert not Box((0.0,), (INF,)).contains(torch.tensor([[-1.0], [0.0]])).any()
    assert Ordered(2).contains(torch.tensor([[1.0, 2.0], [2.0, 1.0]])).tolist() == [True, False]
