"""A cloud of points, walked down a ladder of noise levels."""

import dataclasses
import itertools
import math

from skdiffusion.diffusion.langevin.kernels import Kernel, geometric, start
from skdiffusion.diffusion.langevin.mala import MALA
from skdiffusion.diffusion.langevin.ula import ULA
from skdiffusion.diffusion.solve import ancestral

# Levels for each factor of e between the largest and the smallest, and the fewest and most of a
# ladder: found on the 150 modes of the benchmark, whose ladder of 81 costs 181 evaluations.
_LEVELS_PER_E, _FEWEST_LEVELS, _MOST_LEVELS = 11.5, 10, 85
# The smallest level in units of the smallest local scale: it widens that scale by 0.5 %.
_SMALLEST_SHARE = 10


def relax(gradient, z, s, scale, ratio, noise):
    """Take one Langevin step at noise level ``s``, exact on a Gaussian of variance s^2 + scale^2.

    Parameters
    ----------
    gradient : tensor of shape (n_chains, n_features)
        Gradient of the noisy log density at ``z``.
    z : tensor of shape (n_chains, n_features)
        Points.
    s : float
        Noise level.
    scale : float
        Local scale of the density without noise.
    ratio : float
        Step as a share of ``s**2 + scale**2``, below 1.
    noise : tensor of shape (n_chains, n_features)
        Standard normals.

    Returns
    -------
    z : tensor of shape (n_chains, n_features)
        Moved points.

    Notes
    -----
    The Euler step with the noise ``sqrt(2 h)`` inflates a Gaussian; with
    ``sqrt((2 - ratio) h)`` it keeps it [1]_.

    References
    ----------
    .. [1] A. Jolicoeur-Martineau et al., "Adversarial score matching and improved sampling for
       image generation", ICLR 2021, https://arxiv.org/abs/2009.05475.
    """
    step_size = ratio * (s**2 + scale**2)
    return z + step_size * gradient + math.sqrt((2 - ratio) * step_size) * noise


def anneal(score, z, noise_levels, noise, *, scale, ratio=0.1, steps_per_level=1, record=None):
    """Walk points down a ladder of noise levels.

    Parameters
    ----------
    score : callable
        ``score(z, s) -> gradient of the noisy log density``.
    z : tensor of shape (n_chains, n_features)
        Points at the first noise level.
    noise_levels : sequence of float
        Decreasing levels; the last one may be 0.
    noise : callable
        ``noise(i)`` returns the standard normals of update ``i``.
    scale : float
        Local scale of the density without noise, for the Langevin steps.
    ratio : float, default=0.1
        Step of :func:`relax`.
    steps_per_level : int, default=1
        Langevin steps on each level.
    record : callable, optional
        ``record(i, s, z)`` is called with the points on every level.

    Returns
    -------
    z : tensor of shape (n_chains, n_features)
        Points at the last level, after ``1 + (len(noise_levels) - 2) * (1 + steps_per_level)``
        evaluations where that level is 0.

    Notes
    -----
    From level to level leads a second-order step of the reverse diffusion: an ancestral step with
    the denoised point expected half-way, ``D + (dD / dlog s) log(s_next / s) / 2``. The slope is
    taken between the ends of the step before, where it arrived and not where the Langevin steps
    then moved the point: their noise in the slope would widen the modes.

    References
    ----------
    .. [1] Y. Song, S. Ermon, "Generative modeling by estimating gradients of the data
       distribution", NeurIPS 2019, https://arxiv.org/abs/1907.05600.
    """
    gradient, slope, step = score(z, noise_levels[0]), 0.0, 0
    for i, (s, s_next) in enumerate(itertools.pairwise(noise_levels)):
        denoised = z + s**2 * gradient
        if s_next == 0:
            z = denoised
        else:
            log_step = math.log(s_next / s)
            ahead = denoised + 0.5 * log_step * slope
            z, _ = ancestral(lambda z, s: ahead, z, s, s_next, None, lambda: noise(step))  # noqa: B023
            gradient = score(z, s_next)
            slope = (z + s_next**2 * gradient - denoised) / log_step
            step += 1
            for _ in range(steps_per_level):
                z = relax(gradient, z, s_next, scale, ratio, noise(step))
                gradient = score(z, s_next)
                step += 1
        if record is not None:
            record(i, s_next, z)
    return z


@dataclasses.dataclass(frozen=True)
class Annealed(Kernel):
    """Kernel of :func:`anneal`: chains begin with the walk down the ladder.

    Parameters
    ----------
    noise_levels : tuple of float, default=(1.0, 0.0)
        Decreasing levels, the last one 0.
    scale : float, default=1.0
        Local scale of the density.
    after : Kernel, default=MALA()
        What moves chains once they are down.
    steps_per_level : int, default=1
        Langevin steps on each level.
    """

    noise_levels: tuple = (1.0, 0.0)
    scale: float = 1.0
    after: Kernel = dataclasses.field(default_factory=MALA)
    steps_per_level: int = 1

    needs = "noisy_score"
    forgets_start = True

    @classmethod
    def suited(cls, target, x, *, noise_levels="auto", **options):
        """Kernel with the ladder of a target, and exact steps after it where there can be."""
        levels, scale = ladder(target, noise_levels)
        return cls(levels, scale, MALA() if target.has_log_density else ULA())

    @property
    def local(self):
        """Kernel of the steps after the ladder."""
        return self.after

    def with_local(self, kernel):
        """Kernel with other steps after the ladder."""
        return dataclasses.replace(self, after=kernel)

    @property
    def step_size(self):
        """Step size after the ladder."""
        return self.after.step_size

    @property
    def target_acceptance(self):
        """Acceptance after the ladder."""
        return self.after.target_acceptance

    @property
    def default_steps(self):
        """Steps that remove the bias of the ladder, where they are exact."""
        return 20 if self.after.needs == "log_density" else 0

    def init(self, target, x, noise, report):
        """Add noise of the first level and walk down the ladder."""
        used, high = 1, self.noise_levels[0]
        # The start's denoised self is near the mean of the target, around which noise belongs.
        z = x + high**2 * target.score(x, high) + high * noise.normal(1)

        def normal(i):
            nonlocal used
            used = i + 2
            return noise.normal(used)

        z = anneal(
            target.score,
            z,
            self.noise_levels,
            normal,
            scale=self.scale,
            steps_per_level=self.steps_per_level,
            record=lambda i, s, z: report(used, z, s),
        )
        return start(z, self.evaluate(target, z, used)), used

    def evaluate(self, target, x, step):
        """Function that the steps after the ladder call."""
        return self.after.evaluate(target, x, step)

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``, after the ladder."""
        return self.after.step(state, evaluate, step_size, noise, i)

    def guess(self, curvature):
        """Kernel with a step size after the ladder."""
        return dataclasses.replace(self, after=self.after.guess(curvature))

    def with_step_size(self, step_size):
        """Kernel with another step size after the ladder."""
        return dataclasses.replace(self, after=self.after.with_step_size(step_size))


def ladder(target, noise_levels="auto"):
    """Noise levels for a target, and its local scale.

    Parameters
    ----------
    target : skdiffusion.diffusion.target.Target
        Target with a noisy score.
    noise_levels : "auto", int or sequence of float
        Decreasing levels, their number, or "auto".

    Returns
    -------
    noise_levels : tuple of float
        Decreasing levels, the last one 0.
    scale : float
        Local scale of the density.

    Raises
    ------
    ValueError
        If a ladder is to be found and the target does not know its own extent.
    """
    if not isinstance(noise_levels, str | int):
        levels = [float(level) for level in noise_levels]
        return (*levels, 0.0), float(getattr(target, "scale", None) or levels[-1])
    if target.reach is None:
        raise ValueError(
            "noise_levels='auto' needs data to find the ladder for an estimator: pass X to "
            "fit, or noise_levels as an array."
        )
    high, low = target.reach, target.scale / _SMALLEST_SHARE
    if noise_levels == "auto":
        n_levels = _LEVELS_PER_E * math.log(high / low)
        noise_levels = round(min(max(n_levels, _FEWEST_LEVELS), _MOST_LEVELS))
    return (*geometric(high, low, noise_levels), 0.0), target.scale
