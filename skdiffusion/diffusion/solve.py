"""Solvers: from noise to data with a denoiser.

Letters. ``z = x_t / alpha_t`` is the noisy point in the coordinate in which every linear
diffusion is the same process ``z = x + s * eps``; ``s = sigma_t / alpha_t`` is its noise level
and ``D(z, s) = E[x | z]`` the denoiser, so that ``grad log p_s(z) = (D(z, s) - z) / s**2``.
Solving means walking ``z`` down a decreasing list of noise levels whose last entry is 0, where
``z`` is the data.

A step is a function ``step(denoise, z, s, s_next, memory, noise) -> (z_next, memory)``:

* ``denoise(z, s)`` evaluates the denoiser, ``s`` being a float;
* ``memory`` is what a multistep method keeps of the step before (``None`` at the start);
* ``noise()`` returns fresh standard normals of the shape of ``z``, ``noise(1)`` others.

With ``r = s_next / s`` the exact solution over one step, were ``D`` constant, is
``z_next = r z + (1 - r) D`` for the probability-flow ODE and
``z_next = r**2 z + (1 - r**2) D + s_next sqrt(1 - r**2) eps`` for the reverse SDE. The latter is
the ancestral chain of DDPM [1]_, whatever schedule it was trained with. Methods of higher order
extrapolate ``D`` in ``log s`` from the steps before, by a line or a parabola [2]_, or average the
two ends of a step [3]_.

References
----------
.. [1] J. Ho, A. Jain, P. Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020,
   https://arxiv.org/abs/2006.11239.
.. [2] C. Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic
   models", 2022, https://arxiv.org/abs/2211.01095.
.. [3] T. Karras et al., "Elucidating the design space of diffusion-based generative models",
   NeurIPS 2022, https://arxiv.org/abs/2206.00364.
"""

import itertools
import math
from functools import cache

import torch

# Standard deviations of draws of a standard normal that can pass; one step more or less decides
# between them and draws that are all alike or far out.
NORMAL_SPREADS = 0.6, 1.5


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


def dpmpp_3m(denoise, z, s, s_next, memory, noise):
    """Third-order multistep of the probability-flow ODE, DPM-Solver++(3M).

    With ``t`` the distance in ``log s``, a parabola goes through the last three estimates of the
    data, in the second step a line through two, and in the first one, which has no past, a line
    to an estimate ahead; ``z_next = r z + integral of exp(t - h) D(t) dt`` over the step ``h``.
    """
    denoised = denoise(z, s)
    if s_next == 0:
        return denoised, None
    ratio, h = s_next / s, math.log(s / s_next)
    past = memory or [(denoise(ratio * z + (1 - ratio) * denoised, s_next), -h)]
    # Averages of t and t**2 over the step, weighted by exp(t - h).
    t = h / (1 - ratio) - 1
    t_squared = h**2 / (1 - ratio) - 2 * t
    (last, gap), *earlier = past
    slope = (denoised - last) / gap
    ahead = denoised + slope * t
    for before, gap_before in earlier:
        bend = (slope - (last - before) / gap_before) / (gap + gap_before)
        ahead = ahead + bend * (t_squared + gap * t)
    return ratio * z + (1 - ratio) * ahead, [(denoised, h), *(memory or [])[:1]]


def dpmpp_2m_sde(denoise, z, s, s_next, memory, noise):
    """Second-order multistep of the reverse SDE, SDE-DPM-Solver++(2M)."""
    denoised = denoise(z, s)
    ahead, memory = _extrapolate(denoised, s, s_next, memory)
    return _stochastic(z, ahead, s, s_next, noise), memory


def euler_maruyama(denoise, z, s, s_next, memory, noise):
    """Euler-Maruyama step of the reverse SDE, equal steps being those of ``s**2``."""
    denoised = denoise(z, s)
    if s_next == 0:
        return denoised, None
    passed = s**2 - s_next**2
    return z + passed / s**2 * (denoised - z) + math.sqrt(passed) * noise(), None


def predictor_corrector(denoise, z, s, s_next, memory, noise, ratio=0.16):
    """Ancestral step, then one Langevin step of size ``2 (ratio s)**2`` at the new level.

    Where the score is about ``-eps / s`` this is the signal-to-noise rule of Song et al. (2021),
    without norms over the batch, which would tie the rows together. A step of size ``a`` leaves
    N(0, W) up to ``a / (2 W)`` of its variance, however fine the levels: of first order is the
    whole only where the ratio shrinks like one over the root of their number.
    """
    z = _stochastic(z, denoise(z, s), s, s_next, noise)
    if s_next == 0:
        return z, None
    size = 2 * (ratio * s_next) ** 2
    score = (denoise(z, s_next) - z) / s_next**2
    return z + size * score + math.sqrt(2 * size) * noise(1), None


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
    "dpmpp_3m": dpmpp_3m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "euler_maruyama": euler_maruyama,
    "predictor_corrector": predictor_corrector,
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
    step : {"ancestral", "ddim", "heun", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", \
            "euler_maruyama", "predictor_corrector"} or callable
        One of the steps of this module or a function of the same form.
    noise : callable, optional
        ``noise(i)`` returns the standard normals of step ``i``; only stochastic steps call it.
        A corrector asks for a second set as ``noise(i + n_steps)``.

    Returns
    -------
    z : tensor
        Point at the last noise level.

    Examples
    --------
    For data from N(0, 1) the denoiser is ``z / (1 + s**2)`` and the probability-flow ODE keeps
    ``z / sqrt(1 + s**2)`` constant.

    >>> import torch
    >>> from skdiffusion.diffusion.solve import log_levels, solve
    >>> z = torch.tensor([10.0], dtype=torch.float64)
    >>> x = solve(lambda z, s: z / (1 + s**2), z, log_levels(30, 0.002, 10.0), step="dpmpp_3m")
    >>> round(float(x), 2)
    1.0
    """
    step = STEPS[step] if isinstance(step, str) else step
    memory = None
    n_steps = len(noise_levels) - 1
    for i, (s, s_next) in enumerate(itertools.pairwise(noise_levels)):
        draw = lambda part=0, i=i: noise(i + part * n_steps)  # noqa: E731
        z, memory = step(denoise, z, float(s), float(s_next), memory, draw)
    return z


@cache
def spread_of_normal(step, noise_levels):
    """Standard deviation of what a solver draws of a standard normal, whose denoiser is known.

    Parameters
    ----------
    step : str
        Name of a step in :data:`STEPS`.
    noise_levels : tuple of float
        Noise levels as for :func:`solve`.

    Returns
    -------
    spread : float
        Of 4000 draws, always the same; 1 for as many steps as it takes.

    Examples
    --------
    >>> from skdiffusion.diffusion.solve import log_levels, spread_of_normal
    >>> [round(spread_of_normal("ddim", tuple(log_levels(n, 0.002, 80.0))), 1) for n in (2, 200)]
    [0.0, 1.0]
    """
    generator = torch.Generator().manual_seed(0)
    normals = lambda *_: torch.randn(4000, 1, generator=generator, dtype=torch.float64)  # noqa: E731
    start = noise_levels[0] * normals()
    draws = solve(lambda z, s: z / (1 + s**2), start, noise_levels, step=step, noise=normals)
    return float(draws.std())


def flow(slope, state, log_start, log_stop, n_steps):
    """Integrate an ODE in ``u = log s`` by the classical Runge-Kutta method of order four.

    Parameters
    ----------
    slope : callable
        ``slope(state, u)`` returns the derivatives, a tuple like ``state``.
    state : tuple of tensors
        State at ``log_start``.
    log_start, log_stop : float
        Logarithms of the first and last noise level; either may be the larger.
    n_steps : int
        Number of steps, four evaluations each.

    Returns
    -------
    state : tuple of tensors
        State at ``log_stop``.

    Notes
    -----
    In this variable the probability-flow ODE is ``dz/du = z - D(z, exp(u))``, as smooth near the
    data as far from them, so that equal steps are good steps.

    Examples
    --------
    >>> import math, torch
    >>> from skdiffusion.diffusion.solve import flow
    >>> z = torch.tensor([1.0], dtype=torch.float64)
    >>> slope = lambda state, u: (state[0] - state[0] / (1 + math.exp(2 * u)),)
    >>> (z,) = flow(slope, (z,), math.log(1e-3), math.log(10.0), 40)
    >>> round(float(z), 2)
    10.05
    """
    h = (log_stop - log_start) / n_steps
    for i in range(n_steps):
        u = log_start + i * h
        first = slope(state, u)
        second = slope(_ahead(state, first, h / 2), u + h / 2)
        third = slope(_ahead(state, second, h / 2), u + h / 2)
        fourth = slope(_ahead(state, third, h), u + h)
        state = tuple(
            y + h / 6 * (a + 2 * b + 2 * c + d)
            for y, a, b, c, d in zip(state, first, second, third, fourth, strict=True)
        )
    return state


def adaptive_flow(slope, state, log_start, log_stop, *, rtol=1e-6, atol=1e-6, max_evaluations=5000):
    """Integrate an ODE in ``u = log s`` by the adaptive method of Dormand and Prince.

    Parameters
    ----------
    slope : callable
        ``slope(state, u)`` returns the derivatives, a tuple like ``state``.
    state : tuple of tensors
        State at ``log_start``.
    log_start, log_stop : float
        Logarithms of the first and last noise level; either may be the larger.
    rtol, atol : float, default=1e-6
        Tolerated error of a step, relative and absolute, for the worst entry of the state.
    max_evaluations : int, default=5000
        Limit on the number of evaluations of ``slope``.

    Returns
    -------
    state : tuple of tensors
        State at ``log_stop``.

    Raises
    ------
    RuntimeError
        If the limit is reached; no partial result is returned.

    Notes
    -----
    All rows share the steps, so a row's result depends on the others within the tolerance; use
    :func:`flow` where it must not.

    References
    ----------
    .. [1] J. Dormand, P. Prince, "A family of embedded Runge-Kutta formulae", Journal of
       Computational and Applied Mathematics 6, 1980, https://doi.org/10.1016/0771-050X(80)90013-3.

    Examples
    --------
    >>> import math, torch
    >>> from skdiffusion.diffusion.solve import adaptive_flow
    >>> z = torch.tensor([1.0], dtype=torch.float64)
    >>> slope = lambda state, u: (state[0] - state[0] / (1 + math.exp(2 * u)),)
    >>> (z,) = adaptive_flow(slope, (z,), math.log(1e-3), math.log(10.0))
    >>> round(float(z), 2)
    10.05
    """
    u, h = log_start, (log_stop - log_start) / 50
    first, n_evaluations = slope(state, u), 1
    while (log_stop - u) * h > 0:
        if n_evaluations > max_evaluations:
            raise RuntimeError(
                f"The adaptive solver used {n_evaluations} evaluations and is at noise level "
                f"{math.exp(u):.3g}; raise rtol and atol or use a solver with fixed steps."
            )
        h = math.copysign(min(abs(h), abs(log_stop - u)), h)
        slopes = [first]
        for node, row in zip(_NODES, _TABLEAU, strict=True):
            ahead = _combine(state, slopes, row, h)
            slopes.append(slope(ahead, u + node * h))
        n_evaluations += 6
        error = _step_error(state, ahead, slopes, h, rtol, atol)
        if error <= 1:
            u, state, first = u + h, ahead, slopes[-1]
        h *= min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2))
    return state


# Coefficients of Dormand and Prince (1980); the last row of the tableau is the solution itself.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_TABLEAU = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def _ahead(state, slopes, h):
    """Move the state along one set of slopes."""
    return tuple(y + h * k for y, k in zip(state, slopes, strict=True))


def _combine(state, slopes, row, h):
    """Move the state along a combination of slopes."""
    return tuple(
        y + h * sum(weight * k[i] for weight, k in zip(row, slopes, strict=True))
        for i, y in enumerate(state)
    )


def _step_error(state, ahead, slopes, h, rtol, atol):
    """Largest error of a step in units of the tolerance."""
    errors = _combine([0.0] * len(state), slopes, _ERROR, h)
    scales = (atol + rtol * y.abs().maximum(z.abs()) for y, z in zip(state, ahead, strict=True))
    return max(float((e.abs() / scale).max()) for e, scale in zip(errors, scales, strict=True))


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
