"""What a denoiser is trained on: laws of the noise level and weightings.

The denoising loss is the mean over rows, noise and noise levels of ``w(s) |D(x + s eps, s) -
x|**2``; every positive weighting and every law of ``s`` has the same optimum, ``D(z, s) =
E[x | z]``, and the choice decides where a network of finite size spends its effort.

**Likelihood weighting is the log-uniform law.** The bound of Song et al. [2]_ weights the score
error at time t by ``g(t)**2``. In the noise level, ``g**2 dt = alpha**2 d(s**2)`` and the score
of ``x_t`` is ``1/alpha`` times that of ``z``, so the bound is the integral of ``|D - x|**2 /
s**4`` over ``d(s**2) / 2 = s**2 dlog s``, that is of ``|D - x|**2 / s**2`` over ``dlog s``: draw
``log s`` uniformly and weight by ``1 / s**2``. This is importance sampling of time in closed
form. For the variance-preserving process ``log s**2 = log(exp(B) - 1)`` with ``B = t beta_min +
t**2 (beta_max - beta_min) / 2``, hence ``B = log(1 + s**2)`` and ``t = (sqrt(beta_min**2 + 2
(beta_max - beta_min) B) - beta_min) / (beta_max - beta_min)``: no bisection is needed.

The log-normal law of Karras et al. [1]_ gives up tightness of the bound at very small noise for
accuracy at the levels where the shape of the data is decided; it is the better choice for
samples and for the likelihood of the probability-flow ODE.

References
----------
.. [1] T. Karras et al., "Elucidating the design space of diffusion-based generative models",
   NeurIPS 2022, https://arxiv.org/abs/2206.00364.
.. [2] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
   diffusion models", NeurIPS 2021, https://arxiv.org/abs/2101.09258.
"""

import math
from functools import partial

import torch


def lognormal_law(u, s_min, s_max, mean=-1.2, std=1.2):
    """Noise levels whose logarithm is normal, by the inverse distribution function.

    Parameters
    ----------
    u : tensor
        Uniforms in (0, 1).
    s_min, s_max : float
        Levels are clipped to this range.
    mean, std : float, default=-1.2, 1.2
        Mean and standard deviation of ``log s``.

    Returns
    -------
    s : tensor
        Noise levels.

    References
    ----------
    .. [1] T. Karras et al., "Elucidating the design space of diffusion-based generative models",
       NeurIPS 2022, table 1, https://arxiv.org/abs/2206.00364.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import lognormal_law
    >>> lognormal_law(torch.tensor(0.5), 0.001, 100.0)
    tensor(0.3012)
    """
    return torch.exp(mean + std * torch.special.ndtri(u)).clamp(s_min, s_max)


def loguniform_law(u, s_min, s_max):
    """Noise levels whose logarithm is uniform: likelihood weighting by importance sampling.

    Parameters
    ----------
    u : tensor
        Uniforms in (0, 1).
    s_min, s_max : float
        Range of the levels.

    Returns
    -------
    s : tensor
        Noise levels.

    References
    ----------
    .. [1] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
       diffusion models", NeurIPS 2021, https://arxiv.org/abs/2101.09258.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import loguniform_law
    >>> round(float(loguniform_law(torch.tensor(0.5), 0.01, 100.0)), 3)
    1.0
    """
    return s_min * torch.exp(math.log(s_max / s_min) * u)


def uniform_law(u, s_min, s_max, sde):
    """Noise levels of times uniform in the range of a process.

    Parameters
    ----------
    u : tensor
        Uniforms in (0, 1).
    s_min, s_max : float
        Range of the levels.
    sde : SDE
        The process whose time is uniform.

    Returns
    -------
    s : tensor
        Noise levels.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import uniform_law
    >>> from skdiffusion.diffusion.sde import FlowSDE
    >>> s = uniform_law(torch.tensor(0.5), 0.001, 1000.0, FlowSDE(noise_level_max=1000.0))
    >>> round(float(s), 3)
    1.0
    """
    ends = sde.time(torch.tensor([s_min, s_max], dtype=torch.float64))
    start, stop = ends.tolist()
    return sde.noise_level(start + (stop - start) * u).clamp(s_min, s_max)


def stratified_uniforms(n, generator, dtype=torch.float32):
    """One uniform from each of n equal intervals of (0, 1), in random order.

    Parameters
    ----------
    n : int
        Number of uniforms.
    generator : torch.Generator
        Source of randomness.
    dtype : torch.dtype, default=torch.float32
        Type of the result.

    Returns
    -------
    u : tensor of shape (n,)
        Uniforms; each alone is uniform on (0, 1).

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import stratified_uniforms
    >>> u = stratified_uniforms(4, torch.Generator().manual_seed(0))
    >>> (4 * u).floor().sort().values
    tensor([0., 1., 2., 3.])
    """
    device = generator.device
    order = torch.randperm(n, generator=generator, device=device)
    shift = torch.rand(n, generator=generator, device=device, dtype=dtype)
    # The ends are excluded, where the normal quantile is infinite.
    return ((order + shift) / n).clamp(1e-6, 1 - 1e-6)


def unit_weight(s):
    """Weight ``(1 + s**2) / s**2``, under which a zero network has loss of order one at every s.

    Parameters
    ----------
    s : tensor
        Noise levels.

    Returns
    -------
    weight : tensor
        Weights of the squared error.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import unit_weight
    >>> unit_weight(torch.tensor(1.0))
    tensor(2.)
    """
    return 1 + 1 / s.square()


def noise_weight(s):
    """Weight ``1 / s**2``, the squared error of the noise estimate ``(z - D) / s``.

    Parameters
    ----------
    s : tensor
        Noise levels.

    Returns
    -------
    weight : tensor
        Weights of the squared error.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import noise_weight
    >>> noise_weight(torch.tensor(2.0))
    tensor(0.2500)
    """
    return 1 / s.square()


# Each law with the weighting it is used with.
NOISE_LAWS = {
    "lognormal": (lognormal_law, unit_weight),
    "loguniform": (loguniform_law, noise_weight),
}


def law_and_weight(noise_law):
    """Law of the noise levels, and the weighting it is used with.

    Parameters
    ----------
    noise_law : {"lognormal", "loguniform"} or SDE
        Name of a law, or the process in whose time levels are uniform.

    Returns
    -------
    law : callable
        ``law(u, s_min, s_max) -> s``.
    weight : callable
        ``weight(s)``.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import law_and_weight
    >>> law, weight = law_and_weight("loguniform")
    >>> round(float(law(torch.tensor(0.5), 0.01, 100.0)), 3)
    1.0
    """
    if isinstance(noise_law, str):
        return NOISE_LAWS[noise_law]
    return partial(uniform_law, sde=noise_law), noise_weight


def denoising_loss(denoiser, x, s, noise, weight=unit_weight, **kwargs):
    """Weighted squared error of a denoiser on noisy data.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(z, s, **kwargs) -> D``.
    x : tensor of shape (n_samples, n_features)
        Data.
    s : tensor of shape (n_samples,)
        Noise levels.
    noise : tensor of shape (n_samples, n_features)
        Standard normals.
    weight : callable, default=unit_weight
        ``weight(s)``.
    **kwargs
        Passed to the denoiser.

    Returns
    -------
    loss : tensor of shape (n_samples,)
        ``weight(s) |D(x + s noise, s) - x|**2``.

    References
    ----------
    .. [1] P. Vincent, "A connection between score matching and denoising autoencoders", Neural
       Computation 23, 2011, https://doi.org/10.1162/NECO_a_00142.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.loss import denoising_loss
    >>> one = torch.ones(1, 1)
    >>> denoising_loss(lambda z, s: z / 2, one, torch.ones(1), one)
    tensor([0.])
    """
    error = denoiser(x + s[:, None] * noise, s, **kwargs) - x
    return weight(s) * error.square().sum(1)


def noise_levels(shape, generator):
    """Stratified log-normal noise levels, ln s ~ N(-0.5, 1.2**2)."""
    count = math.prod(shape)
    uniform = torch.rand(count, generator=generator, device=generator.device)
    strata = torch.randperm(count, generator=generator, device=generator.device)
    normal = torch.special.ndtri(((strata + uniform) / count).clamp(1e-4, 1 - 1e-4))
    return torch.exp(-0.5 + 1.2 * normal).view(shape)
