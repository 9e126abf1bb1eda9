"""Laws that every family of diffusions obeys."""

import math

import pytest
import torch

from skdiffusion.diffusion.analytic.build import gaussian
from skdiffusion.diffusion.sde import SDES, VPSDE

FAMILIES = [family() for family in SDES.values()] + [VPSDE(beta_min=3.0, beta_max=3.0)]
EVERY = pytest.mark.parametrize("sde", FAMILIES, ids=lambda sde: type(sde).__name__)


def times(sde, n=50, start=1e-5):
    return torch.linspace(start, sde.t_max, n, dtype=torch.float64)


@EVERY
def test_time_and_noise_level_are_inverse(sde):
    t = times(sde)
    torch.testing.assert_close(sde.time(sde.noise_level(t)), t, rtol=1e-9, atol=1e-12)
    assert (sde.noise_level(t).diff() > 0).all()


@EVERY
def test_single_precision_holds_near_zero(sde):
    t = torch.tensor([1e-5, 1e-4, 1e-3])
    torch.testing.assert_close(sde.noise_level(t).double(), sde.noise_level(t.double()))


@EVERY
def test_marginal_moments_solve_the_moment_equations(sde):
    """m' = f m and P' = 2 f P + g**2 with the drift and diffusion of the process."""
    start, stop = 0.01, 0.9 * sde.t_max
    n = 1500
    h = (stop - start) / n
    one = torch.ones((), dtype=torch.float64)

    def rate(t, mean, variance):
        t = torch.tensor(t, dtype=torch.float64)
        f = sde.drift(one, t)
        return f * mean, 2 * f * variance + sde.diffusion(t) ** 2

    t0 = torch.tensor(start, dtype=torch.float64)
    mean, variance = sde.alpha(t0), sde.sigma(t0) ** 2
    for i in range(n):
        t = start + i * h
        half = [y + 0.5 * h * k for y, k in zip((mean, variance), rate(t, mean, variance))]
        slope = rate(t + 0.5 * h, *half)
        mean, variance = mean + h * slope[0], variance + h * slope[1]
    t1 = torch.tensor(stop, dtype=torch.float64)
    torch.testing.assert_close(mean, sde.alpha(t1), rtol=3e-5, atol=1e-7)
    torch.testing.assert_close(variance, sde.sigma(t1) ** 2, rtol=3e-4, atol=1e-7)


def marginal(sde, x0, t):
    t = torch.tensor(t, dtype=torch.float64)
    return sde.alpha(t) * x0, sde.sigma(t)


@EVERY
def test_forward_simulation_has_the_marginals(sde):
    generator = torch.Generator().manual_seed(0)
    n, steps, stop = 20000, 300, 0.5 * sde.t_max
    start = float(sde.time(torch.tensor(1e-2, dtype=torch.float64)))
    x0 = torch.full((n, 1), 2.0, dtype=torch.float64)
    normal = lambda: torch.randn(n, 1, generator=generator, dtype=torch.float64)  # noqa: E731
    mean, std = marginal(sde, x0, start)
    x = mean + std * normal()
    h = (stop - start) / steps
    for i in range(steps):
        t = torch.tensor(start + (i + 0.5) * h, dtype=torch.float64)
        x = x + sde.drift(x, t) * h + sde.diffusion(t) * math.sqrt(h) * normal()
    mean, std = marginal(sde, x0, stop)
    assert abs(x.mean() - mean[0, 0]) < 5.5 * std / math.sqrt(n) + 0.01 * abs(mean[0, 0])
    assert abs(x.std() / std - 1) < 5.5 / math.sqrt(2 * n) + 0.01


@EVERY
def test_score_of_a_gaussian_is_closed_form(sde):
    t = torch.tensor(0.4 * sde.t_max, dtype=torch.float64)
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    density = gaussian([0.5], [[3.0]])
    variance = 3.0 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2
    expected = (0.5 * sde.alpha(t) - x) / variance
    torch.testing.assert_close(sde.score(density.denoise, x, t), expected)


def test_families_are_what_they_are_called():
    t = torch.linspace(0.01, 0.99, 20, dtype=torch.float64)
    vp, subvp, cosine, flow = (SDES[name]() for name in ("vp", "subvp", "cosine", "flow"))
    one = torch.ones_like(t)
    torch.testing.assert_close(vp.alpha(t) ** 2 + vp.sigma(t) ** 2, one)
    torch.testing.assert_close(subvp.alpha(t) ** 2 + subvp.sigma(t), one)
    torch.testing.assert_close(cosine.alpha(t) ** 2 + cosine.sigma(t) ** 2, one)
    torch.testing.assert_close(flow.alpha(t) + flow.sigma(t), one)
    torch.testing.assert_close(vp.diffusion(t) ** 2, 0.1 + 19.9 * t)
    assert vp == VPSDE()
    assert vp != VPSDE(beta_max=10.0)
