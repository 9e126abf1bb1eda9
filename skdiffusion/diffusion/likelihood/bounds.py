"""Bounds of the likelihood, score-matching losses and entropy; letters as in :mod:`.ode`."""

import math

from skdiffusion.diffusion.likelihood.integral import GaussianRate, entropy_terms, integrate


def prior_cross_entropy(x, prior, s_max):
    r"""Cross entropy of ``z = x + s_max eps`` to the prior, given the row, in closed form.

    Parameters
    ----------
    x : tensor of shape (n_samples, n_features)
        Data.
    prior : Mixture
        Gaussian whose noisy version at ``s_max`` is the prior.
    s_max : float
        Largest noise level.

    Returns
    -------
    cross_entropy : tensor of shape (n_samples,)
        ``-E[log pi(x + s_max eps)]``.

    Notes
    -----
    For ``pi = N(m, V)`` this is :math:`-\log\pi(x) + \tfrac12 s_{\max}^2 \mathrm{tr} V^{-1}`.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import prior_cross_entropy
    >>> x = torch.zeros(1, 1, dtype=torch.float64)
    >>> prior_cross_entropy(x, gaussian([0.0], [[1.0]]), 0.0)
    tensor([0.9189], dtype=torch.float64)
    """
    _, trace = prior.denoise_and_divergence(x, s_max)
    return 0.5 * (x.shape[1] - trace) - prior.log_density(x, s_max)


def nll_bound(denoise, x, uniforms, noise, *, prior, s_min, s_max):
    r"""Upper bound on the negative log-likelihood of each row under the SDE model.

    Parameters
    ----------
    denoise : callable
        ``denoise(z, s) -> D`` with ``s`` of shape (n_samples,).
    x : tensor of shape (n_samples, n_features)
        Data.
    uniforms : tensor of shape (n_samples, n_draws)
        Uniforms in (0, 1); ``n_draws`` is even.
    noise : callable
        ``noise(i)`` for ``i`` up to ``n_draws + 1``.
    prior : Mixture
        Gaussian whose noisy version at ``s_max`` is the prior.
    s_min, s_max : float
        Range of noise levels.

    Returns
    -------
    bound : tensor of shape (n_samples,)
        Unbiased estimate of the bound, in nats.
    standard_error : tensor of shape (n_samples,)
        Its standard error.

    Notes
    -----
    The denoising form of the bound [1]_

    .. math:: -\log p(x) \le L(x) = -E \log \pi(x_T) + \tfrac12 \int E\big[ g^2 (|s_\theta - \nabla
        \log p(x_t|x)|^2 - |\nabla \log p(x_t|x)|^2) - 2 \nabla \cdot f \big] \, dt

    reads in the noise level

    .. math:: L(x) = -E \log \pi(x + s_{\max} \varepsilon) + \int E[|\varepsilon - e|^2 - d] \,
        d\log s + \tfrac12 E[|\varepsilon - e|^2 - d]_{s_{\min}} .

    The last term is the step from ``s_min`` to the data, ``x | z ~ N(D(z, s_min), s_min**2 I)``;
    without it the number would bound the density of slightly noisy data. All of this is known in
    closed form for the Gaussian of the prior, and what is drawn is only how far the model is from
    it: at small and large ``s`` both are the same. Where the model is that Gaussian, nothing is
    left to draw.

    References
    ----------
    .. [1] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
       diffusion models", NeurIPS 2021, theorem 3, https://arxiv.org/abs/2101.09258.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import nll_bound
    >>> density, generator = gaussian([0.0], [[0.25]]), torch.Generator().manual_seed(0)
    >>> x = torch.zeros(1, 1, dtype=torch.float64)
    >>> bound, _ = nll_bound(
    ...     density.denoise,
    ...     x,
    ...     torch.rand(1, 2, generator=generator, dtype=torch.float64),
    ...     lambda i: torch.randn(1, 1, generator=generator, dtype=torch.float64),
    ...     prior=density,
    ...     s_min=1e-3,
    ...     s_max=50.0,
    ... )
    >>> bool(abs(bound + density.log_density(x)) < 1e-5)
    True
    """

    own = GaussianRate(x, prior)

    def rate(z, s, eps):
        error = (eps - (z - denoise(z, s)) / s[:, None]).square().sum(1)
        return error - z.shape[1] - own.denoising(s, eps)

    mean, standard_error = integrate(rate, x, uniforms, noise, s_min, s_max)
    known = own.integral(s_min, s_max) + prior_cross_entropy(x, prior, s_max)
    return mean + known, standard_error


def implicit_nll_bound(divergence, x, uniforms, noise, *, prior, s_min, s_max):
    r"""The bound of :func:`nll_bound` in its marginal-score form.

    Parameters
    ----------
    divergence : callable
        ``divergence(z, s) -> (D, trace)`` with ``s`` of shape (n_samples,).
    x : tensor of shape (n_samples, n_features)
        Data.
    uniforms : tensor of shape (n_samples, n_draws)
        Uniforms in (0, 1); ``n_draws`` is even.
    noise : callable
        ``noise(i)`` for ``i`` up to ``n_draws + 1``.
    prior : Mixture
        Gaussian whose noisy version at ``s_max`` is the prior.
    s_min, s_max : float
        Range of noise levels.

    Returns
    -------
    bound : tensor of shape (n_samples,)
        Unbiased estimate of the bound, in nats.
    standard_error : tensor of shape (n_samples,)
        Its standard error.

    Notes
    -----
    .. math:: L(x) = -E \log \pi(x_T) + \tfrac12 \int E\big[ g^2 (2 \nabla \cdot s_\theta +
        |s_\theta|^2) - 2 \nabla \cdot f \big] \, dt

    has no conditional score. By Stein's identity its value is that of the denoising form; in the
    noise level its rate is ``|e|**2 - 2 (d - tr dD/dz)``.

    References
    ----------
    .. [1] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
       diffusion models", NeurIPS 2021, theorem 3, https://arxiv.org/abs/2101.09258.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import implicit_nll_bound
    >>> density, generator = gaussian([0.0], [[0.25]]), torch.Generator().manual_seed(0)
    >>> x = torch.zeros(1, 1, dtype=torch.float64)
    >>> bound, _ = implicit_nll_bound(
    ...     density.denoise_and_divergence,
    ...     x,
    ...     torch.rand(1, 2, generator=generator, dtype=torch.float64),
    ...     lambda i: torch.randn(1, 1, generator=generator, dtype=torch.float64),
    ...     prior=density,
    ...     s_min=1e-3,
    ...     s_max=50.0,
    ... )
    >>> bool(abs(bound + density.log_density(x)) < 1e-5)
    True
    """

    own = GaussianRate(x, prior)

    def rate(z, s, eps):
        denoised, trace = divergence(z, s)
        square = ((z - denoised) / s[:, None]).square().sum(1)
        return square - 2 * (z.shape[1] - trace) - own.implicit(s, eps)

    mean, standard_error = integrate(rate, x, uniforms, noise, s_min, s_max)
    known = own.integral(s_min, s_max) + prior_cross_entropy(x, prior, s_max)
    return mean + known, standard_error


def score_matching_loss(denoise, exact, x, uniforms, noise, *, s_min, s_max):
    r"""Score matching loss with the weighting ``g**2``, where the exact denoiser is known.

    Parameters
    ----------
    denoise : callable
        ``denoise(z, s) -> D``, the model.
    exact : callable
        ``exact(z, s) -> D``, the denoiser of the data's own density.
    x : tensor of shape (n_samples, n_features)
        Data.
    uniforms : tensor of shape (n_samples, n_draws)
        Uniforms in (0, 1); ``n_draws`` is even.
    noise : callable
        ``noise(i)`` for ``i`` up to ``n_draws + 1``.
    s_min, s_max : float
        Range of noise levels.

    Returns
    -------
    loss : tensor of shape (n_samples,)
        Each row's share; the loss is the mean over rows.
    standard_error : tensor of shape (n_samples,)
        Its standard error.

    Notes
    -----
    :math:`J_{SM}(\theta; g^2) = \tfrac12 \int g^2 E|s_\theta - \nabla\log p_t|^2 dt = \int
    E|e_\theta - e|^2 d\log s`; the step from ``s_min`` to the data adds half of the last rate.

    References
    ----------
    .. [1] Y. Song, C. Durkan, I. Murray, S. Ermon, "Maximum likelihood training of score-based
       diffusion models", NeurIPS 2021, theorem 1, https://arxiv.org/abs/2101.09258.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import score_matching_loss
    >>> density = gaussian([0.0], [[0.25]])
    >>> half = torch.full((1, 2), 0.5)
    >>> score_matching_loss(
    ...     density.denoise,
    ...     density.denoise,
    ...     torch.zeros(1, 1),
    ...     half,
    ...     lambda i: torch.ones(1, 1),
    ...     s_min=1e-3,
    ...     s_max=50.0,
    ... )[0]
    tensor([0.])
    """

    def rate(z, s, eps):
        return ((denoise(z, s) - exact(z, s)) / s[:, None]).square().sum(1)

    return integrate(rate, x, uniforms, noise, s_min, s_max)


def kl_bound(denoise, density, x, uniforms, noise, *, prior, s_min, s_max):
    r"""Upper bound on the Kullback-Leibler divergence of the data from the SDE model.

    Parameters
    ----------
    denoise : callable
        ``denoise(z, s) -> D``, the model.
    density : Mixture
        The data's own density.
    x : tensor of shape (n_samples, n_features)
        Draws from it.
    uniforms : tensor of shape (n_samples, n_draws)
        Uniforms in (0, 1); ``n_draws`` is even.
    noise : callable
        ``noise(i)`` for ``i`` up to ``n_draws + 1``.
    prior : Mixture
        Gaussian whose noisy version at ``s_max`` is the prior.
    s_min, s_max : float
        Range of noise levels.

    Returns
    -------
    bound : float
        ``J_SM + KL(p_T || pi)``.
    standard_error : float
        Its standard error over rows and draws.

    Notes
    -----
    :math:`KL(p \| p_\theta) \le J_{SM}(\theta; g^2) + KL(p_T \| \pi)`, theorem 1 of Song et al.
    (arXiv:2101.09258). The second term is the mean of ``log p_T - log pi`` over the noised rows.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import kl_bound
    >>> density, generator = gaussian([0.0], [[1.0]]), torch.Generator().manual_seed(0)
    >>> bound, _ = kl_bound(
    ...     density.denoise,
    ...     density,
    ...     density.sample(10, generator),
    ...     torch.rand(10, 4, generator=generator, dtype=torch.float64),
    ...     lambda i: torch.randn(10, 1, generator=generator, dtype=torch.float64),
    ...     prior=density,
    ...     s_min=1e-3,
    ...     s_max=50.0,
    ... )
    >>> abs(bound) < 1e-9
    True
    """
    loss, _ = score_matching_loss(
        denoise, density.denoise, x, uniforms, noise, s_min=s_min, s_max=s_max
    )
    z = x + s_max * noise(0)
    terms = loss + density.log_density(z, s_max) - prior.log_density(z, s_max)
    return float(terms.mean()), float(terms.std() / math.sqrt(len(terms)))


def entropy(denoise, x, uniforms, noise, *, s_min, s_max):
    r"""Differential entropy of the data by the entropy formula.

    Parameters
    ----------
    denoise : callable
        ``denoise(z, s) -> D``, exact or learnt.
    x : tensor of shape (n_samples, n_features)
        Draws from the density.
    uniforms : tensor of shape (n_samples, n_draws)
        Uniforms in (0, 1); ``n_draws`` is even.
    noise : callable
        ``noise(i)`` for ``i`` up to ``n_draws + 1``.
    s_min, s_max : float
        Range of noise levels.

    Returns
    -------
    entropy : float
        Entropy in nats.
    standard_error : float
        Its standard error over rows and draws.

    Notes
    -----
    .. math:: H(p) &= H(p_T) - \tfrac12 \int E[2 \nabla\cdot f + g^2 |\nabla\log p_t|^2] \, dt \\
        &= H(p_{s_{\max}}) - \int E|e|^2 \, d\log s - \tfrac12 E|e|^2_{s_{\min}} ,

    the last term being the first-order step to noise level 0 (de Bruijn's identity). At
    ``s_max`` the density is Gaussian with the covariance of the data plus ``s_max**2 I``.
    Theorem 4 of Song et al. (arXiv:2101.09258).

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import entropy
    >>> density, generator = gaussian([0.0], [[1.0]]), torch.Generator().manual_seed(0)
    >>> value, error = entropy(
    ...     density.denoise,
    ...     density.sample(1000, generator),
    ...     torch.rand(1000, 40, generator=generator, dtype=torch.float64),
    ...     lambda i: torch.randn(1000, 1, generator=generator, dtype=torch.float64),
    ...     s_min=1e-3,
    ...     s_max=50.0,
    ... )
    >>> abs(value - 1.4189) < 4 * error
    True
    """
    terms = entropy_terms(denoise, x, uniforms, noise, s_min=s_min, s_max=s_max)
    return float(terms.mean()), float(terms.std() / math.sqrt(len(terms)))
