"""Trial runs of ``fit`` that look for modes, and for coordinates in which the target is round."""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch

from skdiffusion._random import chain_keys
from skdiffusion.diffusion.langevin import KERNELS
from skdiffusion.diffusion.langevin.chains import Plan, run
from skdiffusion.diffusion.langevin.tuning import roundness
from skdiffusion.estimators.sampling._climbing import climbed, on_lower_hills
from skdiffusion.estimators.sampling._coordinates import ChainCoordinates, log_densities
from skdiffusion.estimators.sampling._hills import hills_between, with_jumps
from skdiffusion.estimators.sampling._plan import N_PILOT, make_plan
from skdiffusion.estimators.sampling._rounding import (
    at_hilltop,
    is_standard,
    kept_coordinates,
    points_in,
    rounder,
)
from skdiffusion.estimators.sampling._running import chain_noise

# Trial runs, unless the target is round before: a run sees about a factor of 100 of the condition,
# and the first two are short. Where chains have begun far out they take more.
_FEWEST_RUNS, _MOST_RUNS = 5, 14
# The same with temperatures, which are dear, and begin in the coordinates of the others.
_FEWEST_TEMPERED, _MOST_TEMPERED = 1, 3
# Steps of a trial run after its tuning, as many as there are from its first draw to its last.
_N_STEPS = 150
# Share of the steps of the first trial run, which doubles from run to run: enough where the target
# is simple, and a small part of the whole where it is not.
_SHORTEST = 0.25
# Draws of each chain in a trial run.
_N_DRAWS = 11
# How round, in units of a standard Gaussian, a target is in coordinates that no trial run improves:
# by chance alone a covariance of a few hundred draws is wrong by a factor of two.
_ROUND = 4.0
# Distance in units of the run before from which chains are lost.
_LOST = 1e9
# Points that climb in search of hills, where draws look like one Gaussian and elsewhere; and the
# share of them that may be on hills of their own where no other trial run is to look for more.
_N_CALM, _N_CLIMB, _UNSEEN = 32, 128, 0.02
# Steps of chains that shall show whether there is one mode, and deviations of a chain between which
# the means of all lie if so: a chain is worth ten draws, whose mean strays by 1.3 once in 10^4.
_N_TEST, _APART = 100, 2.0


class Candidate(NamedTuple):
    """What may be run, and where."""

    method: str
    coordinates: ChainCoordinates
    plan: Plan


def find_candidates(coordinates, methods, starts, settings, device):
    """Coordinates for chains, and plans of the methods that may suit.

    Parameters
    ----------
    coordinates : ChainCoordinates
        Coordinates before any trial run.
    methods : tuple of str
        Names of kernels, the last of which suits anyhow.
    starts : Starts
        Where chains start.
    settings : Settings
        What the user asked for.
    device : torch.device
        Where to compute.

    Yields
    ------
    candidate : Candidate
        Method and plan, in coordinates in which the target is round where trial runs were allowed
        and found them; each is made when it is asked for. Where the first chains find a target
        that looks like one Gaussian, the first method comes before others look for modes.
    """
    target = coordinates.target(torch.float64, device)
    moves, searches = _may_move(coordinates, target, settings), len(methods) > 1
    if not (moves or searches):
        points = starts.draw(coordinates, N_PILOT, settings.seed ^ 1)
        u = coordinates.forward(points, torch.float64, device)
        found = _Found(coordinates, u[None], u, False)
        yield from _candidates(found, methods, settings, None, device, settled=False)
        return
    for found in _explored(coordinates, methods, starts, settings, moves, device):
        calm, hills, left = searches and found.is_calm, None, methods
        if searches:
            found, hills = _with_hills(found, coordinates, settings, moves, device)
        if calm and hills is None:
            plan = _calm_plan(found, methods[0], settings, device)
            yield Candidate(methods[0], found.coordinates, plan)
        elif hills is not None and hills.unseen < _UNSEEN:
            yield from _candidates(found, methods[:1], settings, hills, device)
            left = methods[1:]
    yield from _candidates(found, left, settings, hills, device)


def _with_hills(found, first, settings, moves, device):
    """What was found, with draws shared out between hills, and the hills."""
    n_climb, kept = _N_CALM if found.is_calm else _N_CLIMB, found.coordinates
    target = kept.target(torch.float64, device)
    hills, draws = hills_between(target, found.draws, found.begin, n_climb)
    if hills is None:
        return found, None
    if not moves:
        return found._replace(draws=draws), hills
    # Jumps have led draws away from where these coordinates came from, and chains with them.
    clouds, begin = kept.free(draws), kept.free(found.begin)
    kept = rounder(kept, clouds.reshape(-1, clouds.shape[-1]), clouds[-1], device)
    kept = kept_coordinates(kept, first, clouds, settings, device)
    draws, begin = points_in(kept, clouds, device), points_in(kept, begin, device)
    hills, draws = hills_between(kept.target(torch.float64, device), draws, begin, n_climb)
    return _Found(kept, draws, begin, False), hills


def _candidates(found, methods, settings, hills, device, settled=True):
    """Names and plans of the methods that suit, one after the other."""
    coordinates, draws = found.coordinates, found.draws
    target = coordinates.target(torch.float64, device)
    keys = chain_keys(settings.seed ^ 1, 0, N_PILOT, draws.device)
    # A mode with one chain in fifty is not among every 128 draws.
    wide = draws.flatten(0, 1)
    for method in methods:
        plan = make_plan(target, method, draws[-1], keys, settings, settled=settled, wide=wide)
        plan = with_jumps(plan, hills)
        if method == methods[-1] or _is_one_mode(target, plan, draws, keys):
            yield Candidate(method, coordinates, plan)


def _calm_plan(found, method, settings, device):
    """Plan where the target is about a standard Gaussian: steps of one size suit all of it."""
    target = found.coordinates.target(torch.float64, device)
    keys = chain_keys(settings.seed ^ 1, 0, N_PILOT, device)
    options = {"settled": True, "effort": _SHORTEST}
    plan = make_plan(target, method, found.draws[-1], keys, settings, **options)
    return dataclasses.replace(plan, kernel=plan.kernel.plain())


def _is_one_mode(target, plan, draws, keys):
    """Whether chains that start at the strangest draws, and at others, all see the same."""
    x = draws.flatten(0, 1)
    strange = ((x - x.mean(0)) / x.std(0)).norm(dim=1).argsort(descending=True, stable=True)
    u = torch.cat([x[strange[: N_PILOT // 2]], draws[-1][: N_PILOT // 2]])
    noise = chain_noise(keys, plan.kernel, target, u.dtype)
    plan = Plan(plan.kernel, _N_TEST // 4)
    seen = run(target, plan, u, noise, n_draws=_N_TEST)[0].transpose(0, 1)
    energy = log_densities(target, seen.flatten(0, 1)).reshape(*seen.shape[:2], 1)
    seen = np.concatenate([seen.cpu().numpy(), energy], 2)
    strays = np.abs(seen.mean(1) - np.median(seen.mean(1), axis=0))
    return bool((strays < _APART * np.sqrt(seen.var(1).mean(0))).all())


def _may_move(coordinates, target, settings):
    """Whether trial runs look for coordinates."""
    if coordinates.own or not isinstance(settings.preconditioner, str):
        return False
    left_to_us = settings.step_size == "auto" and not target.has_noisy_score
    return settings.preconditioner == "pilot" or (left_to_us and not target.stochastic)


class _Found(NamedTuple):
    """Coordinates found by trial runs, in them draws and where the first chains began, and whether
    those draws look like one Gaussian.
    """

    coordinates: ChainCoordinates
    draws: torch.Tensor
    begin: torch.Tensor
    is_calm: bool


def _explored(coordinates, methods, starts, settings, moves, device):
    """What trial runs of one kernel after the other find."""
    first = coordinates
    x = starts.draw(coordinates, N_PILOT, settings.seed ^ 2)
    y = begin = coordinates.free(coordinates.forward(x, torch.float64, device))
    if moves:
        coordinates, y = at_hilltop(coordinates, begin, settings.seed ^ 2, device)
    scouts = KERNELS[methods[-1]].scouts or methods[-1:]
    for i, scout in enumerate(scouts) if moves else [(0, scouts[-1])]:
        n_runs = (_FEWEST_TEMPERED, _MOST_TEMPERED if moves else _FEWEST_TEMPERED)
        n_runs = (_FEWEST_RUNS, _MOST_RUNS) if moves and i == 0 else n_runs
        follow = coordinates, scout, (begin, y), settings
        coordinates, clouds, is_round = _followed(*follow, n_runs, moves, device)
        y = clouds[-1]
        kept = coordinates
        if moves:
            kept = kept_coordinates(coordinates, first, clouds, settings, device)
        draws, wide = points_in(kept, clouds, device), points_in(kept, begin, device)
        is_calm = is_round and scout != scouts[-1] and _none_elsewhere(kept, wide, draws, settings)
        yield _Found(kept, draws, wide, is_calm)


def _none_elsewhere(coordinates, wide, draws, settings):
    """Whether no way uphill from far out ends where the density is lower than at draws."""
    target = coordinates.target(torch.float64, draws.device)
    _, elsewhere = climbed(target, wide, draws, settings.seed ^ 2)
    return not on_lower_hills(target, elsewhere, draws)


def _followed(coordinates, method, places, settings, n_runs, moves, device):
    """Coordinates that follow chains of trial runs until these have settled, and their draws.

    Places are those where the first chains of all began, which say how far out modes may be, and
    those where these chains begin.
    """
    (begin, y), (fewest, most), seed = places, n_runs, settings.seed ^ 2
    for i in range(most):
        effort = min(_SHORTEST * 2**i, 1.0) if most == _MOST_RUNS else 1.0
        target = coordinates.target(torch.float64, device)
        wide, u = (coordinates.from_free(a, torch.float64, device) for a in (begin, y))
        keys = chain_keys(seed, i * N_PILOT, (i + 1) * N_PILOT, device)
        draws = _trial_run(target, method, (wide, u), keys, settings, effort)
        clouds = coordinates.free(draws)
        y, cloud = clouds[-1], clouds.reshape(-1, clouds.shape[-1])
        settled, is_round = is_standard(draws), roundness(target, draws[-1]) < _ROUND
        if not moves or not np.ptp(cloud, axis=0).all() or (settled and is_round):
            # Chains that do not move tell nothing, and no density is rounder than 1.
            break
        coordinates = rounder(coordinates, cloud, y, device)
        if settled and i + 1 >= fewest:
            break
        if i < _FEWEST_RUNS:
            early = coordinates, clouds
        if i + 1 == most or not draws.abs().max() < _LOST:
            # Nothing holds these chains: what is wrong shows best nearer to where they began.
            return *early, False
    return coordinates, clouds, settled and is_round


def _trial_run(target, method, places, keys, settings, effort):
    """Draws of tuned chains, of which the first half of the run is left out."""
    wide, u = places
    plan = make_plan(target, method, u, keys, settings, wide=wide, effort=effort)
    thin = max(round(effort * _N_STEPS) // (_N_DRAWS - 1), 1)
    plan = dataclasses.replace(plan, n_steps=thin * (_N_DRAWS - 1), thin=thin)
    noise = chain_noise(keys, plan.kernel, target, u.dtype)
    return run(target, plan, u, noise, n_draws=_N_DRAWS)[0]
