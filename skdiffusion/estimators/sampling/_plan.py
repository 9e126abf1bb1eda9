"""What to run: the kernel, its ladder and its step size."""

import dataclasses
import math
from numbers import Integral

import numpy as np

from skdiffusion.diffusion.langevin import KERNELS
from skdiffusion.diffusion.langevin.chains import Plan, run
from skdiffusion.diffusion.langevin.swaps import Swaps
from skdiffusion.diffusion.langevin.tuning import choose, curvature, tune
from skdiffusion.diffusion.target.targets import DenoiserTarget, MixtureTarget
from skdiffusion.estimators.sampling._coordinates import START
from skdiffusion.estimators.sampling._running import chain_noise
from skdiffusion.estimators.sampling._targets import kind_of

# Chains of a trial run: enough that the mean acceptance is known to a few hundredths.
N_PILOT = 128
# Times that the temperatures of a ladder are spaced anew.
_N_LADDERS = 2
# Steps over which a step size is adapted; its mean over the second half is kept.
_N_TUNING_STEPS = 200
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
    "The target gives only a gradient, as it returns the shape of x, so plain Langevin chains are "
    "used, which do not cross between modes. Give the log density to allow parallel tempering (of "
    "log densities of single features the sum, .sum(1)), or pass method='ula' to silence this "
    "warning."
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


def choose_methods(method, target, step_size):
    """Names of kernels that suit what is known of the target, and what to tell the user.

    The first one whose chains agree is to be taken, or else the last one.
    """
    if method != "auto":
        needs = KERNELS[method].needs
        if needs != "gradient" and not getattr(target, f"has_{needs}"):
            what, remedy = _NEEDS[needs]
            raise ValueError(
                f"method={method!r} needs {what}, but the target is a {kind_of(target)}: {remedy}."
            )
        return (method,), []
    if target.has_noisy_score:
        return ("annealed",), []
    if target.has_log_density:
        # The length of a trajectory is found with its step.
        return (("hmc", "tempered") if step_size == "auto" else ("tempered",)), []
    return ("ula",), [] if target.stochastic else [_GRADIENT_ONLY]


def choose_dtype(dtype, target):
    """Single precision where rounding cannot be seen."""
    if dtype != "auto":
        return dtype
    small = isinstance(target, MixtureTarget) and target.magnitude < _FLOAT32_MAGNITUDE
    return "float32" if small or isinstance(target, DenoiserTarget) else "float64"


def make_plan(target, method, u, keys, settings, *, settled=False, wide=None, effort=1.0):
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
    wide : tensor of shape (n_points, n_features), optional
        Points spread as widely as modes may be; None for the starts.
    effort : float, default=1.0
        Share of the steps of tuning that are taken.

    Returns
    -------
    plan : Plan
        The plan.
    """
    options = {"noise_levels": settings.noise_levels, "temperature": settings.temperature}
    kernel = KERNELS[method].suited(target, u if wide is None else wide, settled=settled, **options)
    noise = chain_noise(keys, kernel, target, u.dtype)
    if kernel.forgets_start:
        u = run(target, Plan(kernel, 0), u, noise)[0][0]
    kernel = kernel.guess(curvature(target, u, noise.normal(START)[: len(u)]))
    if settings.step_size != "auto":
        kernel = kernel.given(settings.step_size)
    elif kernel.target_acceptance is not None:
        n_steps = math.ceil(effort * _N_TUNING_STEPS)
        kernel = kernel.with_local(choose(target, kernel.local, u, noise, n_steps)[0])
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
