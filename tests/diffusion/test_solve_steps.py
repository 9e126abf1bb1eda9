"""Laws of the solvers on data whose exact denoiser is known."""

import math

import pytest
import torch

from skdiffusion.diffusion.solve import STEPS, log_levels, solve

SD = 0.7


def gaussian_denoiser(z, s):
    """E[x | z] for data from N(1, SD**2)."""
    return 1 + SD**2 / (SD**2 + s**2) * (z - 1)


def flow(z, s):
    """Where the probability-flow ODE carries z from noise level s to the data."""
    return 1 + SD / math.sqrt(SD**2 + s**2) * (z - 1)


def chain_variance(levels, step):
    """Variance at the end of a linear stochastic chain, from the coefficients it applies."""
    z = torch.eye(len(levels) + 1, dtype=torch.float64)[0] * math.sqrt(levels[0] ** 2 + SD**2)
    unit = iter(torch.eye(len(levels) + 1, dtype=torch.float64)[1:])
    # Every noise is one coordinate: the chain is linear, so that squares add up to the variance.
    centred = lambda z, s: SD**2 / (SD**2 + s**2) * z  # noqa: E731
    return float(solve(centred, z, levels, step=step, noise=lambda i: next(unit)).square().sum())


@pytest.mark.parametrize("step", ["ddim", "heun", "dpmpp_2m", "dpmpp_3m"])
def test_the_flow_is_followed(step):
    z = torch.linspace(-20, 20, 9, dtype=torch.float64)
    x = solve(gaussian_denoiser, z, log_levels(400, 1e-3, 20.0), step=step)
    torch.testing.assert_close(x, flow(z, 20.0), rtol=0, atol=0.02)


def _error(step, n_steps):
    """Error halfway: over the whole way from noise to data the errors of multisteps cancel."""
    z = torch.tensor([9.0], dtype=torch.float64)
    levels = [10.0 * (0.1 / 10.0) ** (i / n_steps) for i in range(n_steps + 1)]
    exact = 1 + (z - 1) * math.sqrt((SD**2 + 0.1**2) / (SD**2 + 10.0**2))
    return float((solve(gaussian_denoiser, z, levels, step=step) - exact).abs())


@pytest.mark.parametrize(
    ("step", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_3m", 3)]
)
def test_order_of_convergence(step, order):
    measured = math.log2(_error(step, 64) / _error(step, 128))
    assert measured == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("spread", [0.02, 0.2, 1.0, 5.0])
def test_the_default_steps_keep_the_spread_of_the_data(spread):
    """Draws of ScoreSDE are as wide as the data on every scale; 32 Heun steps widen by 1.6 %."""
    z = torch.tensor([math.hypot(spread, 80.0)], dtype=torch.float64)
    denoise = lambda z, s: spread**2 / (spread**2 + s**2) * z  # noqa: E731
    levels = log_levels(32, 0.002, 80.0)
    width = float(solve(denoise, z, levels, step="dpmpp_3m")) / spread
    assert width == pytest.approx(1, abs=0.006)
    assert abs(width - 1) < abs(float(solve(denoise, z, levels, step="heun")) / spread - 1)


@pytest.mark.parametrize("step", ["ancestral", "dpmpp_2m_sde"])
def test_stochastic_chains_reach_the_variance_of_the_data(step):
    assert chain_variance(log_levels(2000, 1e-3, 50.0), step) == pytest.approx(SD**2, rel=0.01)


def test_second_order_chains_need_fewer_steps_for_the_variance():
    levels = log_levels(20, 0.02, 10.0)
    second = abs(chain_variance(levels, "dpmpp_2m_sde") / SD**2 - 1)
    assert second < 0.08
    assert second < 0.4 * abs(chain_variance(levels, "ancestral") / SD**2 - 1)


def test_one_ancestral_step_is_exact_for_known_data():
    """With D constant a step draws from q(z_next | z, x), mean and variance in closed form."""
    z, s, s_next = torch.zeros(200_000, dtype=torch.float64), 2.0, 1.0
    generator = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(z.shape, generator=generator, dtype=z.dtype)  # noqa: E731
    x, _ = STEPS["ancestral"](lambda z, s: z + 3.0, z, s, s_next, None, noise)
    variance = s_next**2 * (s**2 - s_next**2) / s**2
    assert float(x.mean()) == pytest.approx(0.75 * 3.0, abs=4.9 * math.sqrt(variance / 2e5))
    assert float(x.var()) == pytest.approx(variance, rel=4.9 * math.sqrt(2 / 2e5))


@pytest.mark.parametrize("step", STEPS)
def test_a_point_mass_is_found_in_one_step(step):
    x = solve(lambda z, s: torch.full_like(z, 4.0), torch.ones(3), [5.0, 0.0], step=step)
    assert (x == 4.0).all()


@pytest.mark.parametrize("n_steps", [1, 2, 9])
def test_levels_decrease_to_zero(n_steps):
    grid = log_levels(n_steps, 0.01, 5.0)
    assert len(grid) == n_steps + 1
    assert grid[0] == pytest.approx(5.0)
    assert grid[-1] == 0
    assert sorted(set(grid), reverse=True) == grid
