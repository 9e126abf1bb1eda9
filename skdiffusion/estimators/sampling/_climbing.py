"""Scouts: points that climb from far out to where mass may be."""

import numpy as np
import torch

from skdiffusion._random import torch_generator
from skdiffusion.diffusion.langevin.tuning import curvature
from skdiffusion.diffusion.target.checks import climb, rounded_away
from skdiffusion.diffusion.target.hilltop import led_up
from skdiffusion.estimators.sampling._coordinates import log_densities
from skdiffusion.estimators.sampling._running import block_size

# Spreads between which scouts begin, how many begin, and the share of the draws below whose log
# density a scout has not arrived where mass is.
_SCOUTS, _N_SCOUTS, _LOW = (5.0, 60.0), 256, 0.1
#: Points that climb by Newton's steps, and free coordinates up to which they do: the Hessian costs
#: twice as many evaluations.
N_CLIMBERS, MOST_TO_CLIMB = 16, 200


def climbed(target, near, draws, seed):
    """Scouts that climbed from far out until the log density was as high as at draws.

    Parameters
    ----------
    target : Target
        Target with a log density.
    near : tensor of shape (n_near, n_features)
        Where chains start.
    draws : tensor of shape (n_draws, n_chains, n_features)
        Where they led.
    seed : int
        Seed of the scouts.

    Returns
    -------
    x : tensor of shape (n_arrived, n_features)
        Those that arrived, first those furthest from the draws: what chains have not seen shall
        show.
    elsewhere : tensor of shape (n_elsewhere, n_features)
        Those that came to rest lower, where the gradient is no longer than at a draw of a standard
        Gaussian. Others are on their way, as from far out where a density falls steeply.
    """
    last = draws[-1]
    level = float(np.quantile(log_densities(target, last), _LOW))
    generator = torch_generator(seed ^ 6)
    normal = torch.randn((_N_SCOUTS, near.shape[1]), generator=generator).to(near)
    low, high = (np.log(side) for side in _SCOUTS)
    width = torch.rand((len(normal), 1), generator=generator).to(near) * (high - low) + low
    spread = torch.maximum(spread_of(target, near), last.std(0))
    x = near.mean(0) + width.exp() * spread * normal
    with torch.no_grad():
        parts = [climb(target, part, level) for part in x.split(evaluation_block(target, x))]
        parts = [_with_values(target, *part) for part in parts]
        x = torch.cat([part[arrived] for part, arrived in parts])
        others = torch.cat([part[~arrived] for part, arrived in parts])
        slope = target.gradient(others).square().sum(1) if len(others) else others[:, 0]
    strange = ((x - last.mean(0)) / last.std(0).clamp(min=1e-300)).norm(dim=1)
    return x[strange.argsort(descending=True, stable=True)], others[slope < others.shape[1]]


def on_lower_hills(target, x, draws):
    """Whether points are on hills lower than draws, and not on a ridge that leads up to these.

    Far out, where a scale fits wrong coefficients, a density is next to flat and no hill: the few
    points of :func:`climbed` that are looked at go on by Newton's steps.
    """
    if len(x) == 0 or x.shape[1] > MOST_TO_CLIMB:
        return len(x) > 0
    level = float(np.quantile(log_densities(target, draws[-1]), _LOW))
    return bool((led_up(target, x[:N_CLIMBERS])[1] < level).any())


def _with_values(target, x, arrived):
    """Of points that climbed those whose log density is no accident of rounding."""
    known = ~rounded_away(target, x)
    return x[known], arrived[known]


def spread_of(target, near):
    """Spread of the starts, that of the target where all are at one point."""
    spread = near.std(0)
    if (spread > 0).all():
        return spread
    normal = torch.randn(near.shape, generator=torch_generator(0)).to(near)
    return torch.where(spread > 0, spread, curvature(target, near, normal) ** -0.5)


def evaluation_block(target, x):
    """Points evaluated at once."""
    return block_size(target, x.dtype, x.device)
