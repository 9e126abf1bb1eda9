"""Rank tests of kernels: an exact draw is nowhere special on a chain that passes through it."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion._random import ChainNoise, chain_keys
from skdiffusion.diffusion.langevin import Bridge, hmc, mala, start, tempered

FALSE_ALARM = 1e-6
N_PLACES, N_CHAINS = 6, 4000
BETA, RADIUS = torch.tensor([1.0, 0.4, 0.1], dtype=torch.float64), 3.0


def banana(x):
    """Curved density, exp(-x^2 / 2 - (y - x^2)^2)."""
    bend = x[:, 1] - x[:, 0] ** 2
    gradient = torch.stack([-x[:, 0] + 4 * bend * x[:, 0], -2 * bend], 1)
    return -0.5 * x[:, 0] ** 2 - bend**2, gradient


def normal(x):
    return -0.5 * x.square().sum(1), -x


def exact_bananas(noise):
    x = noise.normal(10**6).clone()
    x[:, 1] = x[:, 0] ** 2 + x[:, 1] / math.sqrt(2)
    return x


def exact_replicas(noise):
    """Draws of a standard normal at every temperature."""
    deviation = (BETA + (1 - BETA) / RADIUS**2) ** -0.5
    return noise.normal(10**6) * deviation.repeat_interleave(N_CHAINS)[:, None]


def single(kernel, evaluate, step_size, **options):
    def step(x, noise, i, first, back):
        uniform = noise.log_uniform(first + i)
        state = start(x, evaluate)
        return kernel(state, evaluate, step_size, noise.normal(first + i), uniform, **options)[0]

    return step


def replicas(x, noise, i, first, back):
    """A step of tempering, or its reverse: both rounds of swaps, the last one first."""
    bridge, i = Bridge(normal, BETA, RADIUS), first + i
    never = torch.full((len(x),), math.inf).double()
    metropolis = noise.normal(i), noise.log_uniform(i)
    swaps = noise.log_uniform(i, 2), noise.log_uniform(i, 3)
    state = start(x, bridge)
    if not back:
        return tempered(state, bridge, 0.8, *metropolis, swaps)[0]
    still = noise.normal(i), never
    for pair in ((never, swaps[1]), (swaps[0], never)):
        state = tempered(state, bridge, 0.8, *still, pair)[0]
    return mala(state, bridge, 0.8, *metropolis)[0]


def smallest_p_value(step, exact, n_replicas=1):
    """Of ranks of an exact draw among the places of a chain, with the draw at each of them.

    Steps that satisfy detailed balance are their own way back, taken in reverse order (Gandy and
    Scott, "Unit testing for MCMC and other Monte Carlo methods", 2020).
    """
    ranks = []
    for place in range(N_PLACES):
        noise = ChainNoise(chain_keys(31 + place, 0, n_replicas * N_CHAINS), 2)
        middle = exact(noise)
        values = [looked_at(middle)]
        for back, numbers in enumerate((range(place, N_PLACES - 1), range(place - 1, -1, -1))):
            x = middle
            for i in numbers:
                x = step(x, noise, i, 1000, back).position
                values.append(looked_at(x))
        ties = np.random.default_rng(place).uniform(size=np.shape(values))
        lower = (np.array(values[1:]), ties[1:]), (values[0], ties[0])
        below = (lower[0][0] < lower[1][0]) | (
            (lower[0][0] == lower[1][0]) & (lower[0][1] < lower[1][1])
        )
        ranks.append(below.sum(0))
    counts = [np.bincount(r, minlength=N_PLACES) for r in np.concatenate(ranks, 1)]
    return min(stats.chisquare(c).pvalue for c in counts)


def looked_at(x):
    """Functions of the coldest replicas that errors show in."""
    x = x[:N_CHAINS].numpy()
    return np.stack([x[:, 0] ** 2, x[:, 1], np.sin(3 * x[:, 0])])


PARTS = functools.partial(single, hmc, banana, 0.9, n_leapfrog=3)
KERNELS = {
    "mala": (single(mala, banana, 0.2), exact_bananas, 1),
    "hmc": (PARTS(), exact_bananas, 1),
    "hmc, parts": (PARTS(tolerance=0.5), exact_bananas, 1),
    "tempered": (replicas, exact_replicas, len(BETA)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_ranks_of_exact_draws_are_uniform(name):
    assert smallest_p_value(*KERNELS[name]) > FALSE_ALARM / 10


def never_refused(state, evaluate, step_size, noise, log_uniform, **options):
    return hmc(state, evaluate, step_size, noise, log_uniform - 1e9, **options)


def test_ranks_see_what_is_planted(monkeypatch):
    broken = single(never_refused, banana, 0.9, n_leapfrog=3)
    assert smallest_p_value(broken, exact_bananas) < FALSE_ALARM
    # Swaps by the difference of the log densities with the wrong sign.
    tilt = Bridge.tilt

    def negated(self, state):
        value, gradient = tilt(self, state)
        return -value, gradient

    monkeypatch.setattr(Bridge, "tilt", negated)
    assert smallest_p_value(*KERNELS["tempered"]) < FALSE_ALARM
