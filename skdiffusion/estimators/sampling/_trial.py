"""The trial run of ``fit``: the run that ``sample`` makes, from several kinds of start."""

import dataclasses

import numpy as np
import torch

from skdiffusion._random import chain_keys, torch_generator
from skdiffusion.diffusion.langevin.chains import Divergence, run
from skdiffusion.diffusion.langevin.swaps import Swaps
from skdiffusion.diffusion.target.targets import MixtureTarget
from skdiffusion.estimators.sampling._climbing import climbed, spread_of
from skdiffusion.estimators.sampling._coordinates import finite
from skdiffusion.estimators.sampling._plan import N_PILOT
from skdiffusion.estimators.sampling._running import chain_noise

# Draws of each trial chain, and points at which it is seen on its way to the first one.
_N_TRACE, _N_PATH = 50, 50
# Spread of the far starts, in spreads of the others: the largest at which the target is finite.
_FAR = (2, 3, 5)


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
        found = climbed(target, near, runs[0][0], seed)[0] if scouting else first[:0]
        if len(found):
            found = found[torch.arange(part, device=found.device) % len(found)]
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
    offset = torch.where(near.std(0) > 0, near - near.mean(0), spread_of(target, near) * normal)
    far = near.clone()
    for factor in _FAR:
        wider = near.mean(0) + factor * offset
        inside = finite(target, wider)[:, None]
        far = torch.where(inside, wider, far)
    return far
