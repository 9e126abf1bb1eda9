r"""Solvers: from noise to data with a denoiser.

Letters. ``z = x_t / alpha_t`` is the noisy point in the coordinate in which every linear
diffusion is the same process ``z = x + s * eps``; ``s = sigma_t / alpha_t`` is its noise level
and ``D(z, s) = E[x | z]`` the denoiser, so that ``grad log p_s(z) = (D(z, s) - z) / s**2``.
Solving means walking ``z`` down a decreasing list of noise levels whose last entry is 0, where
``z`` is the data.

A step is a function ``step(denoise, z, s, s_next, memory, noise) -> (z_next, memory)``:

* ``denoise(z, s)`` evaluates the denoiser, ``s`` being a float;
* ``memory`` is what a multistep method keeps of the step before (``None`` at the start);
* ``noise()`` returns fresh standard normals of the shape of ``z``.

With ``r = s_next / s`` the exact solution over one step, were ``D`` constant, is
``z_next = r z + (1 - r) D`` for the probability-flow ODE and
``z_next = r**2 z + (1 - r**2) D + s_next sqrt(1 - r**2) eps`` for the reverse SDE. The latter is
the ancestral chain of DDPM [1]_, whatever schedule it was trained with. Second-order methods
extrapolate ``D`` linearly in ``log s`` [2]_ or average the two ends [3]_.

References
----------
.. [1] J. Ho, A. Jain, P. Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020.
.. [2] C. Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic
   models", 2022.
.. [3] T. Karras et al., "Elucidating the design space of diffusion-based generative models",
   NeurIPS 2022.
"""

import itertools
import math


def ddim(denoise, z, s, s_next, memory, noise):
    """First-order step of the probability-flow ODE (DDIM, equal to DPM-Solver++ of order 1)."""
    ratio = s_next / s
    return ratio * z + (1 - ratio) * denoise(z, s), None


def ancestral(denoise, z, s, s_next, memory, noise):
    """First-order step of the reverse SDE: the ancestral chain of DDPM."""
    return _stochastic(z, denoise(z, s), s, s_next, noise), None


def heun(denoise, z, s, s_next, memory, noise):
    """Second-order step of the probability-flow ODE, two evaluations a step."""
    slope = (z - denoise(z, s)) / s
    euler = z + (s_next - s) * slope
    if s_next == 0:
        return euler, None
    return z + (s_next - s) * (slope + (euler - denoise(euler, s_next)) / s_next) / 2, None


def dpmpp_2m(denoise, z, s, s_next, memory, noise):
    """Second-order multistep of the probability-flow ODE, DPM-Solver++(2M)."""
    denoised = denoise(z, s)
    ahead, memory = _extrapolate(denoised, s, s_next, memory)
    ratio = s_next / s
    return ratio * z + (1 - ratio) * ahead, memory


def dpmpp_2m_sde(denoise, z, s, s_next, memory, noise):
    """Second-order multistep of the reverse SDE, SDE-DPM-Solver++(2M)."""
    denoised = denoise(z, s)
    ahead, memory = _extrapolate(denoised, s, s_next, memory)
    return _stochastic(z, ahead, s, s_next, noise), memory


def _stochastic(z, denoised, s, s_next, noise):
    """Draw z at s_next given z at s and the (constant) data estimate."""
    if s_next == 0:
        return denoised
    keep = (s_next / s) ** 2
    return keep * z + (1 - keep) * denoised + s_next * math.sqrt(1 - keep) * noise()


def _extrapolate(denoised, s, s_next, memory):
    """Estimate the denoiser at the middle of the step, linearly in log s."""
    if s_next == 0:
        return denoised, None
    log_step = math.log(s / s_next)
    ahead = denoised
    if memory is not None:
        previous, previous_step = memory
        ahead = denoised + 0.5 * log_step / previous_step * (denoised - previous)
    return ahead, (denoised, log_step)


STEPS = {
    "ancestral": ancestral,
    "ddim": ddim,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


def solve(denoise, z, noise_levels, *, step, noise=None):
    """Walk ``z`` from the first noise level down to the last.

    Parameters
    ----------
    denoise : callable
        ``denoise(z, s) -> D`` with a float ``s`` and ``D`` of the shape of ``z``.
    z : tensor
        Point at the first noise level, usually ``noise_levels[0]`` times standard normals.
    noise_levels : sequence of float
        Decreasing noise levels, the last one usually 0.
    step : {"ancestral", "ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde"} or callable
        One of the steps of this module or a function of the same form.
    noise : callable, optional
        ``noise(i)`` returns the standard normals of step ``i``; only stochastic steps call it.

    Returns
    -------
    z : tensor
        Point at the last noise level.

    Examples
    --------
    For data from N(0, 1) the denoiser is ``z / (1 + s**2)`` and the probability-flow ODE keeps
    ``z / sqrt(1 + s**2)`` constant.

    >>> import torch
    >>> from skdiffusion.diffusion.solve import solve, karras_levels
    >>> z = torch.tensor([10.0], dtype=torch.float64)
    >>> x = solve(lambda z, s: z / (1 + s**2), z, karras_levels(40, 0.002, 10.0), step="heun")
    >>> round(float(x), 2)
    1.0
    """
    step = STEPS[step] if isinstance(step, str) else step
    memory = None
    for i, (s, s_next) in enumerate(itertools.pairwise(noise_levels)):
        z, memory = step(denoise, z, float(s), float(s_next), memory, lambda i=i: noise(i))
    return z


def karras_levels(n_steps, s_min, s_max, rho=7.0):
    """Noise levels dense near the data, equation 5 of Karras et al. (2022), ending at 0.

    Parameters
    ----------
    n_steps : int
        Number of steps, so that ``n_steps + 1`` levels are returned.
    s_min, s_max : float
        Smallest positive and largest level.
    rho : float, default=7.0
        1 gives equal steps in ``s``, large values nearly equal steps in ``log s``.

    Returns
    -------
    levels : list of float
        Decreasing, from ``s_max`` to ``s_min``, then 0.
    """
    if n_steps == 1:
        return [s_max, 0.0]
    low, high = s_min ** (1 / rho), s_max ** (1 / rho)
    return [(high + i / (n_steps - 1) * (low - high)) ** rho for i in range(n_steps)] + [0.0]


def log_levels(n_steps, s_min, s_max):
    """Noise levels equally spaced in log s, that is in log signal-to-noise ratio, ending at 0.

    Parameters
    ----------
    n_steps : int
        Number of steps.
    s_min, s_max : float
        Smallest positive and largest level.

    Returns
    -------
    levels : list of float
        Decreasing, from ``s_max`` to ``s_min``, then 0.
    """
    if n_steps == 1:
        return [s_max, 0.0]
    return [s_max * (s_min / s_max) ** (i / (n_steps - 1)) for i in range(n_steps)] + [0.0]
