"""What to run: the kernel, its ladder and step size, and the coordinates found by trial runs."""

import dataclasses
from numbers import Integral

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf

from skdiffusion._random import chain_keys
from skdiffusion.diffusion.langevin import KERNELS
from skdiffusion.diffusion.langevin.chains import Plan, run
from skdiffusion.diffusion.langevin.swaps import Swaps
from skdiffusion.diffusion.langevin.tuning import choose, curvature, roundness, tune
from skdiffusion.diffusion.target.targets import DenoiserTarget, MixtureTarget
from skdiffusion.estimators.sampling._coordinates import START
from skdiffusion.estimators.sampling._funnels import find_non_centred
from skdiffusion.estimators.sampling._running import chain_noise
from skdiffusion.estimators.sampling._targets import kind_of

# Chains of a trial run: enough that the mean acceptance is known to a few hundredths.
N_PILOT = 128
# Trial runs that look for coordinates, and the steps of each: three suffice for a condition of
# 10^4, as each run sees about a factor of 100.
_N_PILOT_RUNS, _PILOT_STEPS = 3, 300
# Times that the temperatures of a ladder are spaced anew.
_N_LADDERS = 2
# Draws of each chain in a trial run.
_N_PILOT_DRAWS = 11
# Steps over which a step size is adapted; its mean over the second half is kept.
_N_TUNING_STEPS = 200
# A covariance is kept where it makes the target this much rounder: less is within its error.
_LEAST_GAIN = 2
# Squares of coordinates in units of the smallest scale are rounded to a part of 2**24.
_FLOAT32_MAGNITUDE = 300
_NEEDS = {
    "noisy_score": (
        "a noisy score",
        "use method='tempered' or 'mala', or a mixture, a KernelDensity or data as target",
    ),
    "log_density": (
        "a log density",
        "return the pair (log_density, gradient), or use method='ula'",
    ),
}
_GRADIENT_ONLY = (
    "The target gives only a gradient, so plain Langevin chains are used, which do not "
    "cross between modes. Give the log density to allow parallel tempering, or pass "
    "method='ula' to silence this warning."
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Parameters of the sampler that shape a plan, and the seed of its trial runs."""

    n_steps: int | str
    thin: int
    step_size: float | str
    noise_levels: object
    preconditioner: object
    temperature: float
    seed: int

    def check(self, method):
        """Refuse a ladder or temperature that cannot run, before anything is learnt."""
        if self.temperature != 1 and method != "ula":
            raise ValueError(
                f"temperature={self.temperature} works with method='ula' only, got "
                f"method={method!r}"
            )
        if isinstance(self.noise_levels, str | Integral):
            return
        levels = np.asarray(self.noise_levels, dtype=np.float64)
        ordered = levels.ndim == 1 and len(levels) > 0 and (np.diff(levels) < 0).all()
        if not ordered or not (np.isfinite(levels) & (levels > 0)).all():
            raise ValueError(
                "noise_levels must be positive and strictly decreasing, from the largest "
                f"distance between modes to a part of their width; got {levels.tolist()[:8]}"
            )


def choose_method(method, target):
    """Name of the kernel that suits what is known of the target, and what to tell the user."""
    if method != "auto":
        needs = KERNELS[method].needs
        if needs != "gradient" and not getattr(target, f"has_{needs}"):
            what, remedy = _NEEDS[needs]
            raise ValueError(
                f"method={method!r} needs {what}, but the target is a {kind_of(target)}: {remedy}."
            )
        return method, []
    if target.has_noisy_score:
        return "annealed", []
    if target.has_log_density:
        return "tempered", []
    return "ula", [] if target.stochastic else [_GRADIENT_ONLY]


def choose_dtype(dtype, target):
    """Single precision where rounding cannot be seen."""
    if dtype != "auto":
        return dtype
    small = isinstance(target, MixtureTarget) and target.magnitude < _FLOAT32_MAGNITUDE
    return "float32" if small or isinstance(target, DenoiserTarget) else "float64"


def find_plan(coordinates, method, starts, settings, device):
    """Coordinates and plan for chains of a method.

    Parameters
    ----------
    coordinates : ChainCoordinates
        Coordinates before any trial run.
    method : str
        Name of the kernel.
    starts : Starts
        Where chains start.
    settings : Settings
        What the user asked for.
    device : torch.device
        Where to compute.

    Returns
    -------
    coordinates : ChainCoordinates
        Those in which the target is round, where trial runs were allowed and found them.
    plan : Plan
        The plan.
    """
    target, settled = coordinates.target(torch.float64, device), False
    if _tries_pilot(coordinates, target, settings):
        coordinates, u = _round_coordinates(coordinates, method, starts, settings, device)
        target, settled = coordinates.target(torch.float64, device), True
    else:
        points = starts.draw(coordinates, N_PILOT, settings.seed ^ 1)
        u = coordinates.forward(points, torch.float64, device)
    keys = chain_keys(settings.seed ^ 1, 0, N_PILOT, device)
    return coordinates, make_plan(target, method, u, keys, settings, settled)


def make_plan(target, method, u, keys, settings, settled=False):
    """Plan with ladder and step size found on chains that start at ``u``.

    Parameters
    ----------
    target : Target
        What to sample.
    method : str
        Name of the kernel.
    u : tensor of shape (n_chains, n_features)
        Where the chains start, in the coordinates of the target.
    keys : int64 tensor of shape (n_chains,)
        Keys of their noise.
    settings : Settings
        What the user asked for.
    settled : bool, default=False
        Whether the starts are draws of the target already, of trial runs.

    Returns
    -------
    plan : Plan
        The plan.
    """
    options = {"noise_levels": settings.noise_levels, "temperature": settings.temperature}
    kernel = KERNELS[method].suited(target, u, settled=settled, **options)
    noise = chain_noise(keys, kernel, target, u.dtype)
    if kernel.forgets_start:
        u = run(target, Plan(kernel, 0), u, noise)[0][0]
    kernel = kernel.guess(curvature(target, u, noise.normal(START)[: len(u)]))
    if settings.step_size != "auto":
        kernel = kernel.given(settings.step_size)
    elif kernel.target_acceptance is not None:
        kernel = kernel.with_local(choose(target, kernel.local, u, noise, _N_TUNING_STEPS)[0])
        kernel = _spaced(target, kernel, u, keys) if settled else kernel
    n_steps = kernel.default_steps if settings.n_steps == "auto" else settings.n_steps
    return Plan(kernel, n_steps, settings.thin)


def _spaced(target, kernel, u, keys):
    """Kernel whose temperatures are so far apart that all neighbours swap equally often."""
    for _ in range(_N_LADDERS if kernel.n_replicas > 1 else 0):
        swaps, noise = Swaps(kernel.n_replicas), chain_noise(keys, kernel, target, u.dtype)
        later = lambda step, x, info: swaps(info if step > _N_TUNING_STEPS // 2 else None)  # noqa: B023, E731
        run(target, Plan(kernel, _N_TUNING_STEPS), u, noise, record=later)
        kernel = kernel.respaced(swaps.rejections.tolist())
        kernel = tune(target, kernel, u, chain_noise(keys, kernel, target, u.dtype))[0]
    return kernel


def _tries_pilot(coordinates, target, settings):
    """Whether trial runs look for coordinates."""
    if coordinates.own or not isinstance(settings.preconditioner, str):
        return False
    left_to_us = settings.step_size == "auto" and not target.has_noisy_score
    return settings.preconditioner == "pilot" or (left_to_us and not target.stochastic)


def _round_coordinates(coordinates, method, starts, settings, device):
    """Coordinates in which the target is about a standard Gaussian, and chains of trial runs."""
    first, before, seed = coordinates, None, settings.seed ^ 2
    wanted = settings.preconditioner == "pilot"
    x = starts.draw(coordinates, N_PILOT, seed)
    u = coordinates.forward(x, torch.float64, device)
    for i in range(_N_PILOT_RUNS):
        target = coordinates.target(torch.float64, device)
        keys = chain_keys(seed, i * N_PILOT, (i + 1) * N_PILOT, device)
        draws = _trial_run(target, method, u, keys, settings)
        after = roundness(target, draws[-1])
        before = after if before is None else before
        clouds = coordinates.free(draws)
        if after < _LEAST_GAIN and (i or not wanted):
            # No density is rounder than 1: no covariance would make this one twice as round.
            break
        cloud = clouds.reshape(-1, clouds.shape[-1])
        if not np.ptp(cloud, axis=0).all():
            # Chains that do not move tell nothing.
            return first, first.forward(x, torch.float64, device)
        coordinates = _rounder(coordinates, cloud, clouds[-1], device)
        u = coordinates.from_free(clouds[-1], torch.float64, device)
    else:
        after = roundness(coordinates.target(torch.float64, device), u)
    coordinates = coordinates if wanted or after < before / _LEAST_GAIN else first
    return coordinates, coordinates.from_free(clouds[-1], torch.float64, device)


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


def _trial_run(target, method, u, keys, settings):
    """Draws of tuned chains, of which the first half of the run is left out."""
    plan = make_plan(target, KERNELS[method].scout or method, u, keys, settings)
    thin = _PILOT_STEPS // (2 * (_N_PILOT_DRAWS - 1))
    plan = dataclasses.replace(plan, n_steps=_PILOT_STEPS // 2, thin=thin)
    noise = chain_noise(keys, plan.kernel, target, u.dtype)
    return run(target, plan, u, noise, n_draws=_N_PILOT_DRAWS)[0]


def _shrunk_root(cloud, factor):
    """Cholesky factor of the covariance of points, shrunk in the coordinates at hand."""
    u = np.linalg.solve(factor, (cloud - cloud.mean(0)).T).T
    scale = np.maximum(u.std(0), 1e-9 * u.std() + 1e-300)
    correlation, _ = ledoit_wolf(u / scale, assume_centered=True)
    return np.linalg.cholesky(factor @ (scale[:, None] * correlation * scale) @ factor.T)
