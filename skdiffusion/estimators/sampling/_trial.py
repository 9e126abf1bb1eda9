"""The trial run of ``fit``: the run that ``sample`` makes, from several kinds of start."""

import dataclasses

import numpy as np
import torch

from skdiffusion._random import chain_keys, torch_generator
from skdiffusion.diffusion.langevin.chains import Divergence, run
from skdiffusion.diffusion.langevin.swaps import Swaps
from skdiffusion.diffusion.langevin.tuning import curvature
from skdiffusion.diffusion.target.checks import climb
from skdiffusion.diffusion.target.targets import MixtureTarget
from skdiffusion.estimators.sampling._coordinates import finite, log_densities
from skdiffusion.estimators.sampling._plan import N_PILOT
from skdiffusion.estimators.sampling._running import block_size, chain_noise

# Draws of each trial chain, and points at which it is seen on its way to the first one.
_N_TRACE, _N_PATH = 50, 50
# Spread of the far starts, in spreads of the others: the largest at which the target is finite.
_FAR = (2, 3, 5)
# Spreads between which scouts begin, how many begin for one that is needed, and the share of the
# draws below whose log density a scout has not arrived where mass is.
_SCOUTS, _N_SCOUTS, _LOW = (5.0, 60.0), 4, 0.1


@dataclasses.dataclass(frozen=True)
class Trial:
    """Trial chains in their coordinates.

    Parameters
    ----------
    near : tensor of shape (n_near, n_features)
        Starts of the chains that come first.
    path : tensor of shape (n_points, n_chains, n_features)
        Where chains were on the way to their first draw.
    draws : tensor of shape (n_draws, n_chains, n_features)
        Draws.
    rate : tensor of shape (n_chains,) or None
        Mean acceptance.
    superchains : ndarray of shape (n_chains,)
        Groups of chains by their kind of start.
    swaps : Swaps
        Swaps of temperatures, of which most kernels have none.
    """

    near: torch.Tensor
    path: torch.Tensor
    draws: torch.Tensor
    rate: torch.Tensor | None
    superchains: np.ndarray
    swaps: Swaps


def trial_run(coordinates, plan, starts, X, seed, device):
    """Run chains from ``init``, from further out, and from where scouts climbed to.

    Parameters
    ----------
    coordinates, plan, starts, X, seed, device : object
        As :func:`~skdiffusion.estimators.sampling._diagnosis.diagnose`.

    Returns
    -------
    target : Target
        What was sampled.
    trial : Trial
        The run.
    """
    target = coordinates.target(torch.float64, device)
    # A chain of many replicas is dear, and needs fewer like it: single chains cross less often.
    half = N_PILOT // 2 if plan.kernel.n_replicas > 1 else N_PILOT
    points = starts.draw(coordinates, half, seed)
    near = coordinates.forward(points, torch.float64, device)
    far, part = _far_starts(coordinates, target, near, X, seed), half // 2
    scouting = target.has_log_density and not target.has_noisy_score
    first = torch.cat([near, far[:part] if scouting else far])
    seen = _Seen(plan)
    try:
        runs = [_run(target, plan, first, seed, 0, seen)]
        found = _scouts(target, near, runs[0][0], part, seed) if scouting else None
        if found is not None:
            runs.append(_run(target, plan, found, seed, len(first), seen))
    except Divergence as error:
        raise Divergence(f"trial run in fit: {error}") from None
    draws, rates, paths = zip(*runs, strict=True)
    rate = None if rates[0] is None else torch.cat(rates)
    draws, path = torch.cat(draws, 1), torch.cat(paths, 1)
    return target, Trial(near, path, draws, rate, np.arange(draws.shape[1]) // part, seen.swaps)


class _Seen:
    """Looks at chains on their way: at their places now and then, and at every swap."""

    def __init__(self, plan):
        self.swaps = Swaps(plan.kernel.n_replicas)
        self._last = len(plan.kernel.noise_levels) + plan.n_steps
        self._every = max(1, plan.n_steps // _N_PATH)
        self.path = []

    def __call__(self, step, x, info):
        """Note one step."""
        self.swaps(info)
        if info is not None and step <= self._last and step % self._every == 0:
            self.path.append(x.clone())

    def taken_path(self, x):
        """Path of the run that is over."""
        path, self.path = self.path, []
        return torch.stack(path) if path else x[None]


def _run(target, plan, x, seed, first_key, seen):
    """Draws, acceptance and path of chains from x."""
    keys = chain_keys(seed, first_key, first_key + len(x), x.device)
    noise = chain_noise(keys, plan.kernel, target, x.dtype)
    seen.swaps.start_over()
    draws, rate = run(target, plan, x, noise, n_draws=_N_TRACE, record=seen)
    return draws, rate, seen.taken_path(x)


def _far_starts(coordinates, target, near, X, seed):
    """Exact draws, rows of X, or points spread five times as wide as the others."""
    if isinstance(target, MixtureTarget):
        return target.draw(len(near), torch_generator(seed, near.device))
    if X is not None:
        rows = np.random.default_rng(seed).integers(len(X), size=len(near))
        return coordinates.forward(X[rows], near.dtype, near.device)
    normal = torch.randn(near.shape, generator=torch_generator(seed ^ 5)).to(near)
    offset = torch.where(near.std(0) > 0, near - near.mean(0), _spread(target, near) * normal)
    far = near.clone()
    for factor in _FAR:
        wider = near.mean(0) + factor * offset
        inside = finite(target, wider)[:, None]
        far = torch.where(inside, wider, far)
    return far


def _spread(target, near):
    """Spread of the starts, that of the target where all are at one point."""
    spread = near.std(0)
    if (spread > 0).all():
        return spread
    normal = torch.randn(near.shape, generator=torch_generator(0)).to(near)
    return torch.where(spread > 0, spread, curvature(target, near, normal) ** -0.5)


def _scouts(target, near, draws, n, seed):
    """Starts where the log density is as high as at draws, climbed to from far out; or None."""
    level = float(np.quantile(log_densities(target, draws[-1]), _LOW))
    generator = torch_generator(seed ^ 6)
    normal = torch.randn((_N_SCOUTS * n, near.shape[1]), generator=generator).to(near)
    low, high = (np.log(side) for side in _SCOUTS)
    width = torch.rand((len(normal), 1), generator=generator).to(near) * (high - low) + low
    spread = torch.maximum(_spread(target, near), draws[-1].std(0))
    x = near.mean(0) + width.exp() * spread * normal
    with torch.no_grad():
        parts = [climb(target, part, level) for part in x.split(evaluation_block(target, x))]
    x = torch.cat([part[arrived] for part, arrived in parts])
    # Those furthest from the draws first: what chains have not seen shall show.
    strange = ((x - draws[-1].mean(0)) / draws[-1].std(0).clamp(min=1e-300)).norm(dim=1)
    x = x[strange.argsort(descending=True, stable=True)]
    return x[torch.arange(n, device=x.device) % len(x)] if len(x) else None


def evaluation_block(target, x):
    """Points evaluated at once."""
    return block_size(target, x.dtype, x.device)
