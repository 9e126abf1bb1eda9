"""The hills that trial runs have seen, and whether chains can jump between them."""

import dataclasses
import functools

import numpy as np
import torch

from skdiffusion.diffusion.langevin.jumps import Jumping, jump
from skdiffusion.diffusion.langevin.kernels import start
from skdiffusion.diffusion.target.hills import find_hills
from skdiffusion.estimators.sampling._climbing import MOST_TO_CLIMB
from skdiffusion.estimators.sampling._coordinates import evaluated, log_densities

# Evaluations of one of Newton's steps of all points, which says how many points climb.
_EVALUATIONS, _FEWEST = 4000, 16
# Factors by which some begin further out than the first chains.
_FURTHER = (1.0, 2.0, 4.0, 8.0)
# Share of jumps from draws that must succeed: where it is less the hills are no Gaussians.
_LEAST = 0.1
# Jumps of every draw, which bring hills their shares.
_N_JUMPS = 12


def hills_between(target, draws, begin, most):
    """Hills between which chains can jump, seen from draws and from where these came from.

    Parameters
    ----------
    target : Target
        Target with a log density.
    draws : tensor of shape (n_draws, n_chains, n_features)
        Draws of trial runs.
    begin : tensor of shape (n_points, n_features)
        Where their chains began.
    most : int
        Most points that climb.

    Returns
    -------
    hills : Hills or None
        Two hills or more, and a wide Gaussian; None where there is one, or where they are not of
        Gaussian shape.
    draws : tensor of shape (n_draws, n_chains, n_features)
        Where jumps led the draws, so that hills have the shares that they should have.
    """
    d = draws.shape[-1]
    if d > MOST_TO_CLIMB or not target.has_log_density or target.has_noisy_score:
        return None, draws
    n = int(np.clip(_EVALUATIONS // (2 * d + 11), _FEWEST, most)) // 4
    x = draws.flatten(0, 1)
    # The highest draws may be on a narrow hill that holds hardly any chain.
    highest = torch.as_tensor(np.argsort(-log_densities(target, x), kind="stable")[:n].copy())
    first = begin[_spread(len(begin), n)]
    middle, factors = first.mean(0), first.new_tensor(_FURTHER).repeat(n)[: len(first), None]
    further = middle + factors * (first - middle)
    hills = find_hills(target, torch.cat([x[highest], x[_spread(len(x), 2 * n)], further]))
    if len(hills) < 2:
        return None, draws
    hills = hills.and_wide(torch.cat([x, begin]))
    x, share = _jumped(target, hills, x)
    return (hills, x.reshape(draws.shape)) if share > _LEAST else (None, draws)


def with_jumps(plan, hills):
    """Plan whose chains jump between hills; the same where there are none."""
    return plan if hills is None else dataclasses.replace(plan, kernel=Jumping(plan.kernel, hills))


def _spread(n, n_wanted):
    """Indices of up to so many of ``n``, evenly spread."""
    return torch.arange(n)[:: max(n // n_wanted, 1)][:n_wanted]


def _jumped(target, hills, x):
    """Points after some jumps, and the share of the last ones that succeeded."""
    generator, evaluate = torch.Generator().manual_seed(0), functools.partial(evaluated, target)
    draws = lambda make, shape: make(shape, generator=generator, dtype=x.dtype).to(x)  # noqa: E731
    # What is computed once for many jumps is no part of what is kept.
    shares, hills = [], hills.like(x)
    with torch.no_grad():
        state = start(x, evaluate)
        for _ in range(_N_JUMPS):
            noise, uniforms = draws(torch.randn, x.shape), draws(torch.rand, (2, len(x))).log()
            state, accepted = jump(state, evaluate, hills, noise, *uniforms)
            shares.append(float(accepted.double().mean()))
    return state.position, float(np.mean(shares[_N_JUMPS // 2 :]))
