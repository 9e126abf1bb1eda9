"""A cloud of points, walked down a ladder of noise levels."""

import itertools
import math

from skdiffusion.diffusion.solve import ancestral


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
       image generation", ICLR 2021.
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
