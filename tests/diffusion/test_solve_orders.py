"""Convergence of the solvers on a Gaussian, where the answer is closed form."""

import math
from functools import partial

import pytest
import torch

from skdiffusion.diffusion.solve import (
    STEPS,
    adaptive_flow,
    flow,
    log_levels,
    predictor_corrector,
    solve,
)

VARIANCE, TOP, BOTTOM = 0.25, 20.0, 0.01


def denoise(z, s):
    return z * VARIANCE / (VARIANCE + s**2)


def ode_error(step, n_steps):
    """Error of the probability-flow ODE from TOP to BOTTOM, from one standard deviation."""
    z = torch.tensor([math.sqrt(VARIANCE + TOP**2)], dtype=torch.float64)
    levels = [TOP * (BOTTOM / TOP) ** (i / n_steps) for i in range(n_steps + 1)]
    x = solve(denoise, z, levels, step=step)
    return abs(float(x) - math.sqrt(VARIANCE + BOTTOM**2))


def sde_variance_error(step, n_steps):
    """Error of the variance at BOTTOM.

    Every step is linear, so that the coefficients of the start and of each noise are followed
    exactly; the sum of their squares is the variance.
    """
    levels = [TOP * (BOTTOM / TOP) ** (i / n_steps) for i in range(n_steps + 1)]
    sources = torch.eye(1 + 2 * n_steps, dtype=torch.float64)
    start = math.sqrt(VARIANCE + TOP**2) * sources[0]
    x = solve(denoise, start, levels, step=step, noise=lambda i: sources[1 + i])
    return abs(float(x.square().sum()) - VARIANCE - BOTTOM**2)


@pytest.mark.parametrize(("step", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_the_ode_solvers(step, order):
    coarse, fine = ode_error(step, 80), ode_error(step, 160)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    ("step", "order"), [("ancestral", 1), ("euler_maruyama", 1), ("dpmpp_2m_sde", 2)]
)
def test_weak_order_of_the_sde_solvers(step, order):
    coarse, fine = sde_variance_error(step, 200), sde_variance_error(step, 400)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def test_the_corrector_repairs_part_of_the_predictors_error():
    corrected = sde_variance_error("predictor_corrector", 100)
    assert corrected < 0.9 * sde_variance_error("ancestral", 100)


def test_predictor_corrector_is_of_first_order_where_corrections_shrink():
    """Corrections of one total strength: the square of the ratio goes with the number of steps."""

    def error(n_steps):
        step = partial(predictor_corrector, ratio=0.16 * math.sqrt(200 / n_steps))
        return sde_variance_error(step, n_steps)

    assert math.log2(error(200) / error(400)) == pytest.approx(1, abs=0.1)
    assert error(200) < 0.8 * sde_variance_error("ancestral", 200)


@pytest.mark.parametrize("s", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("ratio", [0.08, 0.16])
def test_the_corrector_keeps_the_noisy_law_up_to_its_step(s, ratio):
    """One step ``a`` moves the variance W by a**2 / W, many move it to W / (1 - a / 2W).

    A step from a level to itself leaves the predictor nothing to do.
    """

    def corrected(z, noise):
        return predictor_corrector(denoise, z, s, s, None, lambda part=0: noise, ratio)[0]

    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64)
    keep, add = float(corrected(one, zero)), float(corrected(zero, one))
    size, law = 2 * (ratio * s) ** 2, VARIANCE + s**2
    assert keep**2 * law + add**2 - law == pytest.approx(size**2 / law, rel=1e-6)
    assert add**2 / (1 - keep**2) == pytest.approx(law / (1 - size / (2 * law)), rel=1e-9)


@pytest.mark.parametrize("step", STEPS)
def test_every_solver_ends_at_the_data(step):
    generator = torch.Generator().manual_seed(0)
    n = 20000
    draws = lambda i: torch.randn(n, 1, generator=generator, dtype=torch.float64)  # noqa: E731
    x = solve(denoise, TOP * draws(0), log_levels(100, 0.002, TOP), step=step, noise=draws)
    assert abs(float(x.mean())) < 5.5 * math.sqrt(VARIANCE / n)
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.12)


def test_flow_is_of_fourth_order_and_reversible():
    def error(n_steps):
        z = torch.tensor([math.sqrt(VARIANCE + BOTTOM**2)], dtype=torch.float64)
        slope = lambda state, u: (state[0] - denoise(state[0], math.exp(u)),)  # noqa: E731
        (up,) = flow(slope, (z,), math.log(BOTTOM), math.log(TOP), n_steps)
        (back,) = flow(slope, (up,), math.log(TOP), math.log(BOTTOM), n_steps)
        return abs(float(up) - math.sqrt(VARIANCE + TOP**2)), abs(float(back - z))

    coarse, fine = error(20), error(40)
    assert math.log2(coarse[0] / fine[0]) == pytest.approx(4, abs=0.5)
    assert fine[1] < 1e-4


def test_adaptive_flow_keeps_its_tolerance():
    z = torch.tensor([math.sqrt(VARIANCE + BOTTOM**2)], dtype=torch.float64)
    slope = lambda state, u: (state[0] - denoise(state[0], math.exp(u)),)  # noqa: E731
    for tolerance in (1e-4, 1e-8):
        (up,) = adaptive_flow(
            slope, (z,), math.log(BOTTOM), math.log(TOP), rtol=tolerance, atol=tolerance
        )
        assert float(up) == pytest.approx(math.sqrt(VARIANCE + TOP**2), rel=30 * tolerance)
    with pytest.raises(RuntimeError, match="raise rtol"):
        adaptive_flow(slope, (z,), math.log(BOTTOM), math.log(TOP), rtol=1e-12, max_evaluations=20)
