r"""Linear diffusions with scalar coefficients.

Letters. ``t`` in ``[0, t_max]`` is time, ``x`` the data and ``eps`` standard normal noise. Every
process here [1]_ is ``dx_t = f(t) x_t dt + g(t) dw_t`` and has the Gaussian marginals

.. math:: x_t = \alpha(t) x + \sigma(t) \varepsilon .

The noise level ``s(t) = sigma(t) / alpha(t)`` and the signal ``alpha(t)`` say everything else:

.. math:: f = \frac{d \log\alpha}{dt} , \qquad g^2 = \alpha^2 \frac{d(s^2)}{dt} .

A family states ``alpha``, ``s`` and the inverse of ``s``; :class:`SDE` derives the rest. In the
coordinate ``z = x_t / alpha(t)`` all families are the same process ``z = x + s eps``: denoiser,
solvers and likelihood know ``s`` only. It, not ``sigma``, is the primitive, as near ``t = 0``
single precision cancels in ``1 - alpha**2``, while ``expm1`` and ``sinh`` do not.

References
----------
.. [1] Y. Song et al., "Score-based generative modeling through stochastic differential
   equations", ICLR 2021, https://arxiv.org/abs/2011.13456.
"""

import math
from dataclasses import dataclass

import torch


class SDE:
    """Base class of the families; a subclass gives ``alpha``, ``noise_level`` and ``time``.

    Times are tensors of floating type. ``t_max`` is the time at which the process ends.

    Examples
    --------
    A family of one's own, with a noise level that grows linearly in time:

    >>> import torch
    >>> from skdiffusion.diffusion import SDE
    >>> class LinearSDE(SDE):
    ...     def alpha(self, t):
    ...         return torch.ones_like(t)
    ...
    ...     def noise_level(self, t):
    ...         return 80 * t
    ...
    ...     def time(self, noise_level):
    ...         return noise_level / 80
    >>> LinearSDE().diffusion(torch.tensor(0.5))
    tensor(80.)
    """

    t_max = 1.0

    def __init_subclass__(cls, **kwargs):
        """Let the three methods of a family inherit their documentation."""
        super().__init_subclass__(**kwargs)
        for name in ("alpha", "noise_level", "time"):
            if name in vars(cls):
                vars(cls)[name].__doc__ = getattr(SDE, name).__doc__

    def alpha(self, t):
        """Signal coefficient ``alpha(t)``.

        Parameters
        ----------
        t : tensor
            Times.

        Returns
        -------
        alpha : tensor
            Coefficient of the data.
        """
        raise NotImplementedError

    def noise_level(self, t):
        """Noise level ``s(t) = sigma(t) / alpha(t)``.

        Parameters
        ----------
        t : tensor
            Times.

        Returns
        -------
        noise_level : tensor
            Noise level.
        """
        raise NotImplementedError

    def time(self, noise_level):
        """Time at which a noise level is reached.

        Parameters
        ----------
        noise_level : tensor
            Noise levels.

        Returns
        -------
        t : tensor
            Times.
        """
        raise NotImplementedError

    @property
    def max_noise_level(self):
        """Noise level at ``t_max``, a float."""
        return float(self.noise_level(torch.tensor(self.t_max, dtype=torch.float64)))

    def sigma(self, t):
        """Noise coefficient ``sigma(t)``.

        Parameters
        ----------
        t : tensor
            Times.

        Returns
        -------
        sigma : tensor
            Standard deviation of the noise in ``x_t``.
        """
        return self.alpha(t) * self.noise_level(t)

    def drift(self, x, t):
        """Drift ``f(t) x`` with ``f = d log alpha / dt``.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            State.
        t : tensor of shape (n_samples, 1) or ()
            Times.

        Returns
        -------
        drift : tensor of shape (n_samples, n_features)
            Drift.
        """
        return _derivative(lambda u: self.alpha(u).log(), t) * x

    def diffusion(self, t):
        """Diffusion coefficient ``g(t) = alpha(t) sqrt(d s(t)**2 / dt)``.

        Parameters
        ----------
        t : tensor
            Times.

        Returns
        -------
        g : tensor of the shape of t
            Diffusion coefficient.
        """
        rate = _derivative(lambda u: self.noise_level(u).square(), t)
        return self.alpha(t) * rate.sqrt()

    def score(self, denoise, x, t):
        """Gradient of the log density of ``x_t`` from a denoiser.

        Parameters
        ----------
        denoise : callable
            ``denoise(z, s) -> D``.
        x : tensor of shape (n_samples, n_features)
            State ``x_t``.
        t : tensor of shape ()
            Time.

        Returns
        -------
        score : tensor of shape (n_samples, n_features)
            ``(D(x_t / alpha, s) - x_t / alpha) / (alpha s**2)``.
        """
        alpha, s = self.alpha(t), self.noise_level(t)
        z = x / alpha
        return (denoise(z, s) - z) / (alpha * s.square())


class _LinearBeta(SDE):
    """Shared by the two families with ``alpha = exp(-B/2)`` and ``beta = dB/dt`` linear."""

    def _integral(self, t):
        """``B(t)``, the integral of beta from 0 to t."""
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def _time_of_integral(self, integral):
        """Invert ``B(t)``; this form of the root has no cancellation and allows constant beta."""
        slope = self.beta_max - self.beta_min
        root = (self.beta_min**2 + 2 * slope * integral).sqrt()
        return 2 * integral / (self.beta_min + root)

    def alpha(self, t):
        return torch.exp(-0.5 * self._integral(t))


@dataclass(frozen=True)
class VPSDE(_LinearBeta):
    """Variance-preserving process, ``alpha**2 + sigma**2 = 1``.

    Parameters
    ----------
    beta_min, beta_max : float, default=0.1, 20
        Noise rate at the two ends; ``beta`` is linear in time.

    Notes
    -----
    ``dx = -beta x / 2 dt + sqrt(beta) dw``; with ``B`` the integral of ``beta``, ``alpha =
    exp(-B/2)``, ``s = sqrt(exp(B) - 1)`` and so ``B = log(1 + s**2)``.

    References
    ----------
    .. [1] J. Ho et al., "Denoising diffusion probabilistic models", NeurIPS 2020, arXiv:2006.11239.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.sde import VPSDE
    >>> sde, t = VPSDE(), torch.tensor(0.5)
    >>> round(float(sde.alpha(t) ** 2 + sde.sigma(t) ** 2), 6)
    1.0
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def noise_level(self, t):
        return torch.expm1(self._integral(t)).sqrt()

    def time(self, noise_level):
        return self._time_of_integral(torch.log1p(noise_level.square()))


@dataclass(frozen=True)
class SubVPSDE(_LinearBeta):
    """Sub-variance-preserving process, ``sigma = 1 - alpha**2``.

    Parameters
    ----------
    beta_min, beta_max : float, default=0.1, 20
        Rate at the two ends; ``beta`` is linear in time.

    Notes
    -----
    ``alpha = exp(-B/2)``, ``s = 2 sinh(B/2)`` and so ``B = 2 arsinh(s/2)``.

    References
    ----------
    .. [1] Y. Song et al., "Score-based generative modeling through stochastic differential
       equations", ICLR 2021, https://arxiv.org/abs/2011.13456.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.sde import SubVPSDE
    >>> sde, t = SubVPSDE(), torch.tensor(0.5)
    >>> round(float(sde.alpha(t) ** 2 + sde.sigma(t)), 6)
    1.0
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def noise_level(self, t):
        return 2 * torch.sinh(0.5 * self._integral(t))

    def time(self, noise_level):
        return self._time_of_integral(2 * torch.asinh(0.5 * noise_level))


@dataclass(frozen=True)
class VESDE(SDE):
    """Variance-exploding process, ``alpha = 1`` and geometric noise levels.

    Parameters
    ----------
    noise_level_min, noise_level_max : float, default=0.001, 50
        Noise level at the two ends, in standard deviations of the data.

    Notes
    -----
    ``s(t) = s_min (s_max / s_min)**t``; the process starts at ``s_min``, not at 0.

    References
    ----------
    .. [1] Y. Song, S. Ermon, "Generative modeling by estimating gradients of the data
       distribution", NeurIPS 2019, https://arxiv.org/abs/1907.05600.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.sde import VESDE
    >>> round(VESDE().max_noise_level, 6)
    50.0
    """

    noise_level_min: float = 0.001
    noise_level_max: float = 50.0

    def alpha(self, t):
        return torch.ones_like(t)

    def noise_level(self, t):
        span = math.log(self.noise_level_max / self.noise_level_min)
        return self.noise_level_min * torch.exp(span * t)

    def time(self, noise_level):
        span = math.log(self.noise_level_max / self.noise_level_min)
        return torch.log(noise_level / self.noise_level_min) / span


@dataclass(frozen=True)
class CosineSDE(SDE):
    """Cosine schedule, ``alpha = cos(pi t / 2)`` and ``sigma = sin(pi t / 2)``.

    Parameters
    ----------
    noise_level_max : float, default=100
        Noise level at which the process ends; at ``t = 1`` it would be infinite.

    Notes
    -----
    ``s = tan(pi t / 2)``.

    References
    ----------
    .. [1] A. Nichol, P. Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021,
       https://arxiv.org/abs/2102.09672.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.sde import CosineSDE
    >>> float(CosineSDE().time(torch.tensor(1.0)))
    0.5
    """

    noise_level_max: float = 100.0

    @property
    def t_max(self):
        """Time at which the process ends."""
        return 2 / math.pi * math.atan(self.noise_level_max)

    def alpha(self, t):
        return torch.cos(0.5 * math.pi * t)

    def noise_level(self, t):
        return torch.tan(0.5 * math.pi * t)

    def time(self, noise_level):
        return 2 / math.pi * torch.atan(noise_level)


@dataclass(frozen=True)
class FlowSDE(SDE):
    """Straight-line flow, ``x_t = (1 - t) x + t eps``.

    Parameters
    ----------
    noise_level_max : float, default=100
        Noise level at which the process ends; at ``t = 1`` it would be infinite.

    Notes
    -----
    ``s = t / (1 - t)``; the probability-flow ODE is that of flow matching and rectified flow.

    References
    ----------
    .. [1] Y. Lipman et al., "Flow matching for generative modeling", ICLR 2023,
       https://arxiv.org/abs/2210.02747.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.sde import FlowSDE
    >>> float(FlowSDE().time(torch.tensor(1.0)))
    0.5
    """

    noise_level_max: float = 100.0

    @property
    def t_max(self):
        """Time at which the process ends."""
        return self.noise_level_max / (1 + self.noise_level_max)

    def alpha(self, t):
        return 1 - t

    def noise_level(self, t):
        return t / (1 - t)

    def time(self, noise_level):
        return noise_level / (1 + noise_level)


SDES = {
    "vp": VPSDE,
    "subvp": SubVPSDE,
    "ve": VESDE,
    "cosine": CosineSDE,
    "flow": FlowSDE,
}


def _derivative(function, t):
    """Derivative of an elementwise function of time."""
    with torch.enable_grad():
        u = t.detach().clone().requires_grad_()
        total = (function(u) + 0 * u).sum()  # a constant coefficient has the derivative 0
        return torch.autograd.grad(total, u)[0]
