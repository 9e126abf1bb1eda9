"""Trial runs of ``fit`` that look for modes, and for coordinates in which the target is round."""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf

from skdiffusion._random import ChainNoise, chain_keys
from skdiffusion.diffusion.langevin import KERNELS
from skdiffusion.diffusion.langevin.chains import Plan, run
from skdiffusion.diffusion.langevin.tuning import roundness
from skdiffusion.diffusion.target.hilltop import hilltop
from skdiffusion.estimators.sampling._climbing import (
    MOST_TO_CLIMB,
    N_CLIMBERS,
    climbed,
    on_lower_hills,
)
from skdiffusion.estimators.sampling._coordinates import (
    START,
    ChainCoordinates,
    finite,
    log_densities,
)
from skdiffusion.estimators.sampling._funnels import find_non_centred
from skdiffusion.estimators.sampling._plan import N_PILOT, make_plan
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
# A covariance is kept where it makes the target this much rounder: less is within its error.
_LEAST_GAIN = 2
# Factor by which variances differ from those of the run before, and squares of means, where a run
# has found nothing new; and the independent draws that one chain of it is worth.
_SETTLED, _WORTH = 3.0, 4
# Widths, in units of Laplace's approximation, of the points about a hilltop where chains begin.
_WIDTHS = (0.5, 1.0, 2.0)
# How round, in units of a standard Gaussian, a target is in coordinates that no trial run improves:
# by chance alone a covariance of a few hundred draws is wrong by a factor of two.
_ROUND = 4.0
# Distance in units of the run before from which chains are lost.
_LOST = 1e9
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
        draws = coordinates.forward(points, torch.float64, device)[None]
        yield from _candidates(coordinates, methods, draws, settings, False, device)
        return
    for found in _explored(coordinates, methods, starts, settings, moves, device):
        if searches and found.is_calm:
            plan = _calm_plan(found, methods[0], settings, device)
            yield Candidate(methods[0], found.coordinates, plan)
    yield from _candidates(found.coordinates, methods, found.draws, settings, True, device)


def _candidates(coordinates, methods, draws, settings, settled, device):
    """Names and plans of the methods that suit, one after the other."""
    target = coordinates.target(torch.float64, device)
    keys = chain_keys(settings.seed ^ 1, 0, N_PILOT, draws.device)
    # A mode with one chain in fifty is not among every 128 draws.
    wide = draws.flatten(0, 1)
    for method in methods:
        plan = make_plan(target, method, draws[-1], keys, settings, settled=settled, wide=wide)
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
    """Coordinates found by trial runs, draws in them, and whether those look like one Gaussian."""

    coordinates: ChainCoordinates
    draws: torch.Tensor
    is_calm: bool


def _explored(coordinates, methods, starts, settings, moves, device):
    """What trial runs of one kernel after the other find."""
    first = coordinates
    x = starts.draw(coordinates, N_PILOT, settings.seed ^ 2)
    y = begin = coordinates.free(coordinates.forward(x, torch.float64, device))
    if moves:
        coordinates, y = _at_hilltop(coordinates, begin, settings.seed ^ 2, device)
    scouts = KERNELS[methods[-1]].scouts or methods[-1:]
    for i, scout in enumerate(scouts) if moves else [(0, scouts[-1])]:
        n_runs = (_FEWEST_TEMPERED, _MOST_TEMPERED if moves else _FEWEST_TEMPERED)
        n_runs = (_FEWEST_RUNS, _MOST_RUNS) if moves and i == 0 else n_runs
        follow = coordinates, scout, (begin, y), settings
        coordinates, clouds, is_round = _followed(*follow, n_runs, moves, device)
        y = clouds[-1]
        kept = coordinates
        if settings.preconditioner != "pilot" and not _is_rounder(coordinates, first, y, device):
            kept = first
        draws, wide = _in(kept, clouds, device), _in(kept, begin, device)
        is_calm = is_round and scout != scouts[-1] and _none_elsewhere(kept, wide, draws, settings)
        yield _Found(kept, draws, is_calm)


def _at_hilltop(coordinates, y, seed, device):
    """Coordinates of Laplace's approximation where they are rounder, and points about its top.

    Trial runs find what shape a density has from where their chains are, a factor of 100 a run; a
    posterior of raw columns is far off, and longer by more than that in one direction. The highest
    point of a funnel is its neck, that of two modes in the narrower one, and there is hardly any
    mass about either: coordinates of unit curvature do not make such a target rounder.
    """
    target = coordinates.target(torch.float64, device)
    if coordinates.n_free > MOST_TO_CLIMB or not target.has_log_density:
        return coordinates, y
    top, root = hilltop(target, _in(coordinates, y, device)[:N_CLIMBERS])
    if top is None:
        return coordinates, y
    shift, root = coordinates.free(top[None])[0], coordinates.factor @ root.cpu().numpy()
    before = roundness(target, _in(coordinates, y, device))
    first, coordinates = coordinates, coordinates.moved(shift, root)
    target = coordinates.target(torch.float64, device)
    noise = ChainNoise(chain_keys(seed, 0, len(y), device), coordinates.n_free)
    u, normal = torch.zeros(y.shape, dtype=torch.float64, device=device), noise.normal(START)
    for width in _WIDTHS:
        # Wider where that is inside the support.
        u = torch.where(finite(target, width * normal)[:, None], width * normal, u)
    if not roundness(target, u) < before / _LEAST_GAIN:
        return first, y
    return coordinates, coordinates.free(u)


def _in(coordinates, y, device):
    """Points given in free coordinates."""
    u = coordinates.from_free(y.reshape(-1, y.shape[-1]), torch.float64, device)
    return u.reshape(y.shape)


def _is_rounder(coordinates, first, y, device):
    """Whether the target is rounder in coordinates than it was in the first ones, beyond error."""
    before, after = (
        roundness(c.target(torch.float64, device), _in(c, y, device)) for c in (first, coordinates)
    )
    return after < before / _LEAST_GAIN


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
        settled, is_round = _is_standard(draws), roundness(target, draws[-1]) < _ROUND
        if not moves or not np.ptp(cloud, axis=0).all() or (settled and is_round):
            # Chains that do not move tell nothing, and no density is rounder than 1.
            break
        coordinates = _rounder(coordinates, cloud, y, device)
        if settled and i + 1 >= fewest:
            break
        if i < _FEWEST_RUNS:
            early = coordinates, clouds
        if i + 1 == most or not draws.abs().max() < _LOST:
            # Nothing holds these chains: what is wrong shows best nearer to where they began.
            return *early, False
    return coordinates, clouds, settled and is_round


def _is_standard(draws):
    """Whether draws have about the mean and the covariance of a standard Gaussian."""
    u = draws.flatten(0, 1)
    error = min((u.shape[1] / (_WORTH * N_PILOT)) ** 0.5, 0.9)
    variances = torch.linalg.eigvalsh(torch.cov(u.T).reshape(u.shape[1], -1))
    low, high = (1 - error) ** 2 / _SETTLED, (1 + error) ** 2 * _SETTLED
    known = (variances > low) & (variances < high)
    return bool(known.all() and (u.mean(0).square() < _SETTLED).all())


def _rounder(coordinates, cloud, last, device):
    """Coordinates with the covariance of points, and without funnels where that is a gain."""
    plain = coordinates.moved(cloud.mean(0), _shrunk_root(cloud, coordinates.factor))
    stretch = find_non_centred(cloud, len(last))
    if stretch is None:
        return plain
    straight = stretch.inverse(torch.as_tensor(cloud)).numpy()
    root = _shrunk_root(straight, np.diag(straight.std(0)))
    stretched = coordinates.moved(straight.mean(0), root, stretch)
    plainly, better = (
        roundness(c.target(torch.float64, device), c.from_free(last, torch.float64, device))
        for c in (plain, stretched)
    )
    return stretched if better < plainly / _LEAST_GAIN else plain


def _trial_run(target, method, places, keys, settings, effort):
    """Draws of tuned chains, of which the first half of the run is left out."""
    wide, u = places
    plan = make_plan(target, method, u, keys, settings, wide=wide, effort=effort)
    thin = max(round(effort * _N_STEPS) // (_N_DRAWS - 1), 1)
    plan = dataclasses.replace(plan, n_steps=thin * (_N_DRAWS - 1), thin=thin)
    noise = chain_noise(keys, plan.kernel, target, u.dtype)
    return run(target, plan, u, noise, n_draws=_N_DRAWS)[0]


def _shrunk_root(cloud, factor):
    """Cholesky factor of the covariance of points, shrunk in the coordinates of a factor."""
    u = np.linalg.solve(factor, (cloud - cloud.mean(0)).T).T
    scale = np.maximum(u.std(0), 1e-9 * u.std() + 1e-300)
    correlation, _ = ledoit_wolf(u / scale, assume_centered=True)
    # The product is the factor of the covariance, where that itself may be singular by rounding.
    return factor @ (scale[:, None] * np.linalg.cholesky(correlation))
