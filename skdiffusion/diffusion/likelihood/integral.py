r"""Integrals over noise levels by stratified draws, and what is known of them in closed form.

Letters as in :mod:`.ode`. Three things keep the errors of an integral small and, what asks for
more, their estimates honest.

* Levels are drawn from a Cauchy law of ``log s``: rates vary where ``s`` is near the scale of the
  data, and hardly at either end, where draws would add nothing.
* Draws are stratified, two a stratum, whose difference tells the error.
* What a Gaussian would give is subtracted from the rate and added in closed form. With ``w =
  s**2``, ``lam`` the variances along the axes of a Gaussian and ``u`` the row in them, its denoiser
  errs by ``(D - x) / s = (lam eps - s u) / (lam + w)``, so that its rate has the mean ``sum (w u**2
  - 2 lam w - w**2) / (lam + w)**2`` and the integral of this over ``log s = log(w) / 2`` is
  ``-1/2 sum [(u**2 - lam) / (lam + w) + log(lam + w)]``.
"""

import math

import torch

from skdiffusion.diffusion.analytic.noisy import LOG_2PI

# Middle and half-width of the law of log s, for data of unit scale; other data cost precision.
_MIDDLE, _WIDTH = math.log(0.3), 1.5


class GaussianRate:
    """Rates of the bound that a Gaussian has for rows.

    Parameters
    ----------
    x : tensor of shape (n_samples, n_features)
        Rows.
    density : Mixture or RowMixture of one component
        The Gaussian.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood.integral import GaussianRate
    >>> rate = GaussianRate(torch.zeros(1, 1).double(), gaussian([0.0], [[1.0]]))
    >>> rate.denoising(torch.ones(1), torch.ones(1, 1).double())
    tensor([-0.7500], dtype=torch.float64)
    """

    def __init__(self, x, density):
        d = x.shape[1]
        self.variances = density.eigenvalues.flatten().expand(d).to(x)
        axes = density.eigenvectors
        self.axes = torch.eye(d).to(x) if axes is None else axes.reshape(d, d).to(x)
        self.centred = (x - density.mean().to(x)) @ self.axes

    def denoising(self, s, eps):
        """Rate of the denoising form.

        Parameters
        ----------
        s : tensor of shape (n_samples,)
            Noise levels.
        eps : tensor of shape (n_samples, n_features)
            Standard normals.

        Returns
        -------
        rate : tensor of shape (n_samples,)
            ``|D - x|**2 / s**2 - d``.
        """
        s = s[:, None]
        error = self.variances * (eps @ self.axes) - s * self.centred
        return ((error / (self.variances + s.square())).square() - 1).sum(1)

    def implicit(self, s, eps):
        """Rate of the marginal-score form, whose mean is the same.

        Parameters
        ----------
        s : tensor of shape (n_samples,)
            Noise levels.
        eps : tensor of shape (n_samples, n_features)
            Standard normals.

        Returns
        -------
        rate : tensor of shape (n_samples,)
            ``|z - D|**2 / s**2 - 2 (d - tr dD/dz)``.
        """
        s = s[:, None]
        share = s.square() / (self.variances + s.square())
        residual = share * (eps @ self.axes + self.centred / s)
        return (residual.square() - 2 * share).sum(1)

    def integral(self, s_min, s_max):
        """What :func:`integrate` estimates, exactly.

        Parameters
        ----------
        s_min, s_max : float
            Range of noise levels.

        Returns
        -------
        integral : tensor of shape (n_samples,)
            Integral of the mean rate over ``log s``, and half of the mean rate at ``s_min``.
        """

        def primitive(w):
            total = self.variances + w
            return -0.5 * ((square - self.variances) / total + total.log()).sum(1)

        square, w = self.centred.square(), s_min**2
        last = w * (square - 2 * self.variances - w) / (self.variances + w).square()
        return primitive(s_max**2) - primitive(w) + 0.5 * last.sum(1)


def integrate(rate, x, uniforms, noise, s_min, s_max):
    """Estimate ``int E[rate] dlog s + E[rate] / 2 at s_min`` for each row.

    Parameters
    ----------
    rate : callable
        ``rate(z, s, eps)``, a number for each row.
    x : tensor of shape (n_samples, n_features)
        Rows.
    uniforms : tensor of shape (n_samples, n_draws)
        Uniforms in (0, 1); ``n_draws`` is even.
    noise : callable
        ``noise(i)`` for ``i`` up to ``n_draws + 1``.
    s_min, s_max : float
        Range of noise levels.

    Returns
    -------
    integral : tensor of shape (n_samples,)
        Unbiased estimate.
    standard_error : tensor of shape (n_samples,)
        Its standard error, whose square is unbiased.

    Examples
    --------
    >>> import math
    >>> import torch
    >>> from skdiffusion.diffusion.likelihood.integral import integrate
    >>> bell = lambda z, s, eps: 1 / (1 + ((s / 0.3).log() / 1.5) ** 2)
    >>> value, error = integrate(
    ...     bell, torch.zeros(1, 1), torch.rand(1, 4), lambda i: torch.zeros(1, 1), 1e-9, 1e9
    ... )
    >>> bool(abs(value - 1.5 * math.pi) < 0.3), bool(error < 1e-3)
    (True, True)
    """
    n_draws = uniforms.shape[1]
    if n_draws % 2:
        raise ValueError(f"n_draws must be even, two draws a stratum; got {n_draws}.")
    n_strata = n_draws // 2
    total, variance = x.new_zeros(len(x)), x.new_zeros(len(x))

    def at(s, eps):
        return rate(x + s[:, None] * eps, s, eps)

    for j in range(n_strata):
        pair = []
        for i in (2 * j, 2 * j + 1):
            s, weight = _level((j + uniforms[:, i]) / n_strata, s_min, s_max)
            pair.append(weight / n_strata * at(s, noise(i)))
        total += (pair[0] + pair[1]) / 2
        variance += ((pair[0] - pair[1]) / 2) ** 2
    lowest = x.new_full((len(x),), s_min)
    pair = [at(lowest, noise(n_draws + i)) for i in range(2)]
    total += (pair[0] + pair[1]) / 4
    variance += ((pair[0] - pair[1]) / 4) ** 2
    return total, variance.sqrt()


def entropy_terms(denoise, x, uniforms, noise, *, s_min, s_max):
    """What each row adds to the entropy formula.

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
    terms : tensor of shape (n_samples,)
        Their mean is the entropy, see :func:`skdiffusion.diffusion.likelihood.entropy`.

    Notes
    -----
    At large ``s`` the square ``|e|**2`` is nearly ``|eps|**2``: ``c(s) |eps|**2`` with ``c = (s**2
    / (1 + s**2))**2`` is subtracted and its integral added in closed form.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.likelihood import entropy_terms
    >>> density, half = gaussian([0.0], [[1.0]]), torch.full((2, 2), 0.5, dtype=torch.float64)
    >>> x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    >>> noise = lambda i: torch.ones(2, 1, dtype=torch.float64)
    >>> entropy_terms(density.denoise, x, half, noise, s_min=1e-3, s_max=50.0).shape
    torch.Size([2])
    """
    d = x.shape[1]

    def rate(z, s, eps):
        square = ((z - denoise(z, s)) / s[:, None]).square().sum(1)
        return square - _share(s.square()) * eps.square().sum(1)

    spent, _ = integrate(rate, x, uniforms, noise, s_min, s_max)
    spent += d * (_share_integral(s_max**2) - _share_integral(s_min**2) + _share(s_min**2) / 2)
    identity = torch.eye(d, dtype=x.dtype, device=x.device)
    covariance = torch.cov(x.T).reshape(d, d) + s_max**2 * identity
    last = 0.5 * (torch.logdet(covariance) + d * (1 + LOG_2PI))
    return last - spent


def _level(u, s_min, s_max):
    """Level at a quantile of the law, and the reciprocal of the density of log s there."""
    low, high = (math.atan((math.log(s) - _MIDDLE) / _WIDTH) for s in (s_min, s_max))
    tangent = torch.tan(low + (high - low) * u)
    s = torch.exp(_MIDDLE + _WIDTH * tangent).clamp(s_min, s_max)
    return s, (high - low) * _WIDTH * (1 + tangent.square())


def _share(w):
    """Share of the noise in the square of the estimated noise: 0 near the data, 1 far away."""
    return (w / (1 + w)) ** 2


def _share_integral(w):
    """Integral of the share over log s, up to a constant."""
    return 0.5 * (math.log1p(w) + 1 / (1 + w))
