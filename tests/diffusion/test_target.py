"""Targets in other coordinates, and their ladders."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import distributions as td

from skdiffusion.diffusion.analytic.build import gaussian_mixture, kernel_density
from skdiffusion.diffusion.langevin import MALA, ULA, Plan, autograd, curvature, run, tune
from skdiffusion.diffusion.target.recognise import (
    FunctionTarget,
    change_coordinates,
    from_distribution,
)
from skdiffusion.diffusion.target.targets import MixtureTarget

CPU = torch.device("cpu")
SHIFT = torch.tensor([1.0, -2.0], dtype=torch.float64)
FACTOR = torch.tensor([[2.0, 0.0], [1.5, 0.3]], dtype=torch.float64)


def mixtures():
    rng = np.random.default_rng(0)
    weights, means = [0.2, 0.3, 0.5], rng.normal(size=(3, 2)) * 3
    roots = rng.normal(size=(3, 2, 2))
    full = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(2)
    return {
        "full": gaussian_mixture(weights, means, full, "full"),
        "tied": gaussian_mixture(weights, means, full[0], "tied"),
        "diag": gaussian_mixture(weights, means, rng.uniform(0.2, 2, (3, 2)), "diag"),
        "spherical": gaussian_mixture(weights, means, [0.3, 1.0, 2.0], "spherical"),
        "kde": kernel_density(rng.normal(size=(20, 2)), 0.4),
    }


@pytest.mark.parametrize("factor", [FACTOR, torch.diag(torch.tensor([2.0, 0.5]).double())])
@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical", "kde"])
def test_change_of_coordinates_keeps_the_density(name, factor):
    target = MixtureTarget(mixtures()[name])
    function = FunctionTarget(target.mixture.log_density, 2, torch.float64, CPU)
    u = torch.randn((7, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = SHIFT + u @ factor.T
    known = target.mixture.log_density(x) + torch.linalg.slogdet(factor)[1]
    for other in (target, function):
        log_density, gradient = change_coordinates(other, SHIFT, factor).evaluate(u)
        torch.testing.assert_close(log_density, known)
        expected = autograd(lambda u: target.mixture.log_density(SHIFT + u @ factor.T), u)[1]
        torch.testing.assert_close(gradient, expected)


def test_reach_and_scale():
    mixture = gaussian_mixture([0.5, 0.5], [[0.0, 0.0], [30.0, 40.0]], [0.25, 4.0], "spherical")
    target = MixtureTarget(mixture)
    assert target.reach == pytest.approx(50)
    assert target.scale == pytest.approx(0.5)
    many = np.random.default_rng(0).normal(size=(5000, 2))
    exact = max(np.linalg.norm(many - row, axis=1).max() for row in many)
    assert exact <= MixtureTarget(kernel_density(many, 0.1)).reach <= 2 * exact


def test_curvature_of_a_gaussian_is_its_precision():
    density = lambda x: -0.5 * (x * torch.tensor([9.0, 1.0]) * x).sum(1)  # noqa: E731
    target = FunctionTarget(density, 2, torch.float64, CPU)
    x = torch.randn((50, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert curvature(target, x, x.flip(0)) == pytest.approx(9, rel=1e-3)


def test_a_matrix_that_cannot_be_factorised_spoils_its_own_row_only():
    def density(x):
        root = torch.linalg.cholesky(torch.eye(2).double() + x[:, :, None] * torch.eye(2).flip(0))
        return -root[:, 1, 1].log()

    target = FunctionTarget(density, 1, torch.float64, CPU, Ball())
    x = torch.tensor([[0.5], [2.0], [0.0], [-3.0], [-0.6]], dtype=torch.float64)
    value, gradient = target.evaluate(x)
    inside = x.abs()[:, 0] < 1
    assert (torch.isfinite(value) == inside).all()
    assert (torch.isfinite(gradient[:, 0]) == inside).all()
    torch.testing.assert_close(value[inside], -0.5 * torch.log1p(-(x[inside, 0] ** 2)))


class Ball:
    """Free coordinates of (-1, 1), where the first points that are tried lie."""

    n_free = 1

    def __call__(self, y):
        return y.tanh(), None


def test_mixtures_of_torch_are_closed_form():
    loc, scale = torch.tensor([[0.0, 1.0], [5.0, 5.0]]), torch.tensor([[1.0, 2.0], [0.5, 1.0]])
    weights = td.Categorical(torch.tensor([0.3, 0.7]))
    mixture = td.MixtureSameFamily(weights, td.Independent(td.Normal(loc, scale), 1))
    correlated = td.MixtureSameFamily(
        weights, td.MultivariateNormal(loc, torch.eye(2) + 0.5 * torch.ones(2, 2))
    )
    x = torch.randn((6, 2), generator=torch.Generator().manual_seed(0))
    for distribution in (mixture, correlated):
        target = from_distribution(distribution, torch.float32, CPU)
        assert target.has_noisy_score
        torch.testing.assert_close(target.evaluate(x)[0], distribution.log_prob(x))


class Silent:
    """Noise that is zero, and uniforms that always accept."""

    def __init__(self, n):
        self.n = n

    def normal(self, step):
        return torch.zeros((self.n, 2), dtype=torch.float64)

    def log_uniform(self, step, stream=1):
        return torch.full((self.n,), -math.inf, dtype=torch.float64)


def test_run_takes_the_steps_of_its_plan():
    target = FunctionTarget(lambda x: -x.square().sum(1) / 2, 2, torch.float64, CPU)
    x = torch.ones((3, 2), dtype=torch.float64)
    plan = Plan(ULA(0.1), n_steps=4, thin=2)
    steps = []
    draws, acceptance = run(
        target, plan, x, Silent(3), n_draws=3, record=lambda i, x, a: steps.append(i)
    )
    expected = torch.tensor([0.9**4, 0.9**6, 0.9**8]).double()
    torch.testing.assert_close(draws[:, 0, 0], expected)
    assert steps == list(range(9))
    assert acceptance is None
    tuned, _ = tune(target, MALA(1e-3), x, Silent(3), n_steps=30)
    assert tuned.step_size > 1e-2


def test_threads_at_different_noise_levels_do_not_meet():
    """What is kept of one level is not what a thread at another level gets."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn((5, 2), generator=generator).double()
    target = MixtureTarget(gaussian_mixture(np.full(5, 0.2), means, np.eye(2), "tied"))
    z = torch.randn((7, 2), generator=generator).double()
    levels = [0.5, 1.0, 2.0, 4.0]
    expected = {s: target.mixture.log_density_and_gradient(z, s)[1] for s in levels}

    def wrong(s):
        found = [target.score(z, s) for _ in range(400)]
        return max(float((one - expected[s]).abs().max()) for one in found)

    # Threads that take turns after every few operations meet where others seldom do.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert max(threads.map(wrong, levels * 4)) < 1e-9
    finally:
        sys.setswitchinterval(interval)
