"""Likelihood, bounds and entropy of a diffusion, formula by formula.

Letters. ``z = x + s eps`` with noise level ``s`` from ``s_min`` to ``s_max`` is the process in the
coordinate ``x_t / alpha(t)`` (see :mod:`.sde`), ``p_s`` its marginal density, ``D`` the denoiser
and ``e(z, s) = (z - D(z, s)) / s = -s grad log p_s(z)`` its estimate of the noise. Time has gone:
``f dt`` has no counterpart in this coordinate and ``g**2 |score|**2 dt / 2`` is ``|e|**2 dlog s``.
The prior is ``pi = N(m, C + s_max**2 I)``, a Gaussian ``N(m, C)`` of the data seen through the
largest noise level; it is passed as the :class:`~skdiffusion.diffusion.analytic.Mixture` of
``N(m, C)``.

Two models share one denoiser. The *SDE model* draws from the prior and follows the reverse SDE;
its likelihood has the bounds below [1]_ [3]_. The *ODE model* follows the probability-flow ODE;
its likelihood is exact [2]_. With the exact denoiser both are the data's density; with a learnt one
they differ, and neither likelihood bounds the other's.

Randomness comes in from outside, so that a caller can fix it for every row: ``uniforms`` of shape
(n_samples, n_draws) and a callable ``noise(i)`` that returns the i-th set of standard normals, of
shape (n_samples, n_features). Draws ``2 j`` and ``2 j + 1`` share the ``j``-th of ``n_draws / 2``
strata of ``log s``; their difference gives an unbiased standard error of a stratified mean.

References
----------
.. [1] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
   diffusion models", NeurIPS 2021, https://arxiv.org/abs/2101.09258.
.. [2] Y. Song et al., "Score-based generative modeling through stochastic differential
   equations", ICLR 2021, https://arxiv.org/abs/2011.13456.
.. [3] D. Kingma, T. Salimans, B. Poole, J. Ho, "Variational diffusion models", NeurIPS 2021,
   https://arxiv.org/abs/2107.00630.
"""

import math

import torch

from skdiffusion.diffusion.solve import flow


def log_density(divergence, x, *, prior, s_min, s_max, n_steps):
    r"""Exact log-density of the ODE model.

    Parameters
    ----------
    divergence : callable
        ``divergence(z, s) -> (D, trace)``: the denoiser and the trace of its Jacobian, of shape
        (n_samples,), or estimates of it, of shape (n_samples, n_estimates).
    x : tensor of shape (n_samples, n_features)
        Data.
    prior : Mixture
        Gaussian whose noisy version at ``s_max`` is the prior.
    s_min, s_max : float
        Range of noise levels.
    n_steps : int
        Runge-Kutta steps of equal length in ``log s``.

    Returns
    -------
    log_density : tensor of the shape of trace
        ``log p_{s_min}(x)``.
    latent : tensor of shape (n_samples, n_features)
        Point at ``s_max`` to which the ODE takes each row.

    Notes
    -----
    The probability-flow ODE is ``dz = (z - D) dlog s``. Along it the density changes by the
    divergence,

    .. math:: \log p_{s_{\min}}(x) = \log \pi(z_{s_{\max}}) + \int \Big(d - \mathrm{tr}
        \frac{\partial D}{\partial z}\Big) \, d\log s .

    References
    ----------
    .. [1] R. Chen et al., "Neural ordinary differential equations", NeurIPS 2018,
       https://arxiv.org/abs/1806.07366.
    .. [2] Y. Song et al., "Score-based generative modeling through stochastic differential
       equations", ICLR 2021, https://arxiv.org/abs/2011.13456.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import log_density
    >>> density = gaussian([0.0], [[0.25]])
    >>> x = torch.zeros(1, 1, dtype=torch.float64)
    >>> value, _ = log_density(
    ...     density.denoise_and_divergence, x, prior=density, s_min=1e-3, s_max=50.0, n_steps=60
    ... )
    >>> round(float(value), 3), round(float(density.log_density(x)), 3)
    (-0.226, -0.226)
    """
    d = x.shape[1]

    def slope(state, u):
        denoised, trace = divergence(state[0], math.exp(u))
        return state[0] - denoised, d - trace

    first = divergence(x[:1], s_min)[1]
    start = x.new_zeros(len(x), *first.shape[1:])
    latent, change = flow(slope, (x, start), math.log(s_min), math.log(s_max), n_steps)
    last = prior.log_density(latent, s_max)
    return change + last.reshape(-1, *[1] * (change.ndim - 1)), latent


def log_density_ratio(shares, denoise, x, *, prior, reference, s_min, s_max, n_steps):
    r"""Log-density of the ODE model over that of a reference in closed form.

    Parameters
    ----------
    shares : callable
        ``shares(z, s) -> (D_q, R, trace_R)``: the denoiser of the reference, what that of the
        model adds to it, ``R = D - D_q``, and the trace of the Jacobian of the latter.
    denoise : callable
        ``denoise(z, s) -> D``, the denoiser of the model, which is ``D_q + R``.
    x : tensor of shape (n_samples, n_features)
        Data.
    prior : Mixture
        Gaussian whose noisy version at ``s_max`` is the prior.
    reference : Mixture
        The reference ``q``.
    s_min, s_max : float
        Range of noise levels.
    n_steps : int
        Runge-Kutta steps of equal length in ``log s``; the trace is evaluated at their ends only.

    Returns
    -------
    log_ratio : tensor of shape (n_samples,)
        ``log p_{s_min}(x) - log q_{s_min}(x)``.

    Notes
    -----
    ``q_s`` solves the continuity equation of its own flow ``z - D_q``. Along the flow of the model
    it changes by ``dlog q_s(z) = [tr dD_q/dz - d - R' grad log q_s] dlog s`` with ``grad log q_s =
    (D_q - z) / s**2``; the equation of :func:`log_density` minus this leaves

    .. math:: \log \frac{p(x)}{q(x)} = \log \frac{\pi(z)}{q_{s_{\max}}(z)} + \int \Big[
        \frac{R^\top (z - D_q)}{s^2} - \mathrm{tr} \frac{\partial R}{\partial z} \Big] \, d\log s .

    The integrand vanishes with ``R``: where model and reference are close, few steps do, while
    the density itself needs the many that follow the reference. It also falls to nothing at both
    ends, as noise of ``s_min`` is too little to change the density and beyond ``s_max`` nothing is
    left of it. The trapezoidal rule on the steps is therefore exact to a high order [1]_, and the
    trace, by far the dearest part, is not needed inside the steps.

    References
    ----------
    .. [1] L. Trefethen, J. Weideman, "The exponentially convergent trapezoidal rule", SIAM Review
       2014, https://doi.org/10.1137/130932132.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import log_density_ratio
    >>> density = gaussian([0.0], [[0.25]])
    >>> nothing = lambda z, s: (density.denoise(z, s), 0 * z, 0 * z[:, 0])
    >>> x = torch.zeros(1, 1, dtype=torch.float64)
    >>> same = {"prior": density, "reference": density, "s_min": 1e-3, "s_max": 50.0}
    >>> log_density_ratio(nothing, density.denoise, x, **same, n_steps=1)
    tensor([0.], dtype=torch.float64)
    """

    def rate(z, s):
        denoised, residual, trace = shares(z, s)
        return (residual * (z - denoised)).sum(1) / s**2 - trace

    def slope(state, u):
        return (state[0] - denoise(state[0], math.exp(u)),)

    step = math.log(s_max / s_min) / n_steps
    z, total = x, rate(x, s_min) / 2
    for i in range(1, n_steps + 1):
        u = math.log(s_min) + i * step
        with torch.no_grad():
            (z,) = flow(slope, (z,), u - step, u, 1)
        total = total + rate(z, math.exp(u)) * (1 if i < n_steps else 0.5)
    return step * total + prior.log_density(z, s_max) - reference.log_density(z, s_max)


def hutchinson(directional, probes):
    """Make random estimates of a trace from quadratic forms.

    Parameters
    ----------
    directional : callable
        ``directional(z, s, v) -> (D, v' (dD/dz) v)``.
    probes : tensor of shape (n_estimates, n_samples, n_features)
        Random signs.

    Returns
    -------
    divergence : callable
        ``divergence(z, s) -> (D, estimates)`` for :func:`log_density`, with estimates of shape
        (n_samples, n_estimates).

    Notes
    -----
    ``E[v' J v] = tr J`` for independent entries of mean 0 and variance 1. The probes stay the
    same along the path, so that the ODE is the same deterministic one for every step size.

    References
    ----------
    .. [1] W. Grathwohl et al., "FFJORD: free-form continuous dynamics for scalable reversible
       generative models", ICLR 2019, https://arxiv.org/abs/1810.01367.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import hutchinson
    >>> density = gaussian([0.0, 0.0], torch.eye(2))
    >>> def directional(z, s, v):
    ...     denoised, _, (moved,) = density.denoise_divergence_and_jvps(z, s, [v])
    ...     return denoised, (v * moved).sum(1)
    >>> z = torch.zeros(1, 2, dtype=torch.float64)
    >>> hutchinson(directional, torch.ones(3, 1, 2, dtype=torch.float64))(z, 1.0)[1]
    tensor([[1., 1., 1.]], dtype=torch.float64)
    """

    def divergence(z, s):
        results = [directional(z, s, probe[: len(z)]) for probe in probes]
        return results[0][0], torch.stack([form for _, form in results], 1)

    return divergence


def trace_directions(x, max_exact, n_directions, own=False):
    """Random signs that are the same in every call; None where traces are exact.

    Parameters
    ----------
    x : tensor of shape (n_samples, n_features)
        Rows, whose type and device the signs get.
    max_exact : int
        Number of columns up to which traces are exact.
    n_directions : int
        Number of directions.
    own : bool, default=False
        Whether rows get signs of their own, by their place: errors of means over many rows then
        are those of many directions. Without it, a row's answer does not hang on other rows.

    Returns
    -------
    directions : tensor of shape (n_directions, 1 or n_samples, n_features) or None
        The signs.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.likelihood import trace_directions
    >>> trace_directions(torch.zeros(5, 3), 2, 4).abs().sum((1, 2))
    tensor([3., 3., 3., 3.])
    """
    if x.shape[1] <= max_exact:
        return None
    shape = n_directions, len(x) if own else 1, x.shape[1]
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(2, shape, generator=generator) * 2 - 1).to(x)
