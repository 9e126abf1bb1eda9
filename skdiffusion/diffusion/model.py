"""The density model: a denoiser and a prior between two noise levels, and all that follows.

Letters as in :mod:`.likelihood`. The denoiser ``D(z, s)`` with ``s`` from ``s_min`` to ``s_max``
and the prior ``pi = N(m, C + s_max**2 I)`` define two densities: that of the probability-flow ODE
``dz = (z - D) dlog s``, with exact log-density, draws and a map to the prior and back, and that of
the reverse SDE, with a bound. Where the denoiser is that of a density in closed form alone, both
are that density, and it is evaluated and drawn from directly.

A condition is bound once, ``model.given(condition)``, one row of it for every row of data, and the
result is a model like the first: no method has a condition. The prior of a conditional model is
moved to the mean that the base expects.

Rows are tensors of the type and on the device of the denoiser. All randomness comes in from
outside, as generators, uniforms and normals; directions of estimated traces are always the same, so
that a density is a function of the row.
"""

import copy
import math
from functools import partial

import torch

from skdiffusion.diffusion import likelihood
from skdiffusion.diffusion.analytic.kinds import RowMixture
from skdiffusion.diffusion.conditional import copied, density_arrays, numpy_arrays
from skdiffusion.diffusion.denoiser import guided
from skdiffusion.diffusion.solve import adaptive_flow, flow, log_levels, solve

# Runge-Kutta steps over all noise levels: for scores (20 are .07 nats off for some rows), for maps.
_SCORE_STEPS, _MAP_STEPS = 32, 80
# Columns up to which a trace is exact, at one backward pass a column, and directions of its
# estimate above.
MAX_EXACT_FEATURES, N_PROBES = 32, 16
# Rows at once: fewer cost more each, more leave workers idle among whom they are spread.
_CHUNK = 500
# Solvers stop at this multiple of s_min and take the denoiser's estimate of the data from there,
# whose error is below what is resolved.
_LAST_LEVEL = 2
# Local error of the adaptive solver in standard deviations, below that of the network.
_TOLERANCE = 1e-4


class DensityModel:
    """Density that a denoiser and a prior define.

    Parameters
    ----------
    denoiser : Denoiser
        Denoiser of the rows, on the device and of the type in which it is to be evaluated.
    prior : Mixture
        Gaussian whose noisy version at ``s_max`` is the prior.
    s_min, s_max : float
        Range of noise levels.
    condition : tensor of shape (n_samples, n_conditions), optional
        Condition of every row; None stands for the density of all conditions together.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic import gaussian
    >>> from skdiffusion.diffusion.denoiser import Denoiser
    >>> from skdiffusion.diffusion.model import DensityModel
    >>> density = gaussian([0.0], [[1.0]])
    >>> model = DensityModel(Denoiser(density), density, 1e-3, 80.0)
    >>> model.log_density(torch.zeros(1, 1, dtype=torch.float64))
    tensor([-0.9189], dtype=torch.float64)
    >>> model.sample(3, torch.Generator().manual_seed(0)).shape
    torch.Size([3, 1])
    """

    def __init__(self, denoiser, prior, s_min, s_max, condition=None):
        self.denoiser, self.prior, self.condition = denoiser, prior, condition
        self.s_min, self.s_max = s_min, s_max

    def given(self, condition=None):
        """Return the model under a condition.

        Parameters
        ----------
        condition : tensor of shape (n_samples, n_conditions), optional
            One row for each row that the model will be asked about; None frees the model.

        Returns
        -------
        model : DensityModel
            The model, which shares denoiser and prior with this one.
        """
        return DensityModel(self.denoiser, self.prior, self.s_min, self.s_max, condition)

    @property
    def base(self):
        """Density in closed form that the denoiser starts from, under the condition."""
        return self.denoiser.base.given(self.condition)

    @property
    def terminal(self):
        """Gaussian whose noisy version at ``s_max`` is the prior, under the condition."""
        return _moved(self.prior, self.base, self.condition)

    @property
    def device(self):
        """Device of the model."""
        return self.prior.eigenvalues.device

    def single(self):
        """Return a copy in single precision, at a third of the cost."""
        denoiser = copy.deepcopy(self.denoiser).float()
        return DensityModel(denoiser, self.prior, self.s_min, self.s_max, self.condition)

    def log_density(self, x):
        """Log-density of rows under the probability-flow ODE.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_density : tensor of shape (n_samples,)
            Log density in nats. Traces are exact up to 32 columns; above, that of the network's
            share is Hutchinson's estimate from 16 fixed directions.
        """

        def of_part(model, part):
            density = model.base.log_density(part)
            if self.denoiser.network is None:
                return density
            directions = likelihood.trace_directions(part, MAX_EXACT_FEATURES, N_PROBES)
            return density + model.log_ratio(part, _SCORE_STEPS, directions)

        return torch.cat([of_part(*part) for part in self.parts(x)])

    def log_ratio(self, x, n_steps, directions=None, reference=None):
        """Log-density of rows along the ODE over that of a density in closed form.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Rows.
        n_steps : int
            Runge-Kutta steps.
        directions : tensor of shape (n_estimates, 1, n_features), optional
            Random signs for estimates of traces, see
            :func:`skdiffusion.diffusion.likelihood.trace_directions`; None takes exact traces.
        reference : Mixture, optional
            The density to compare with; None takes the base.

        Returns
        -------
        log_ratio : tensor of shape (n_samples,)
            See :func:`skdiffusion.diffusion.likelihood.log_density_ratio`.
        """

        def shares(z, s):
            base, network = self.denoiser.shares(z, s, self.condition, directions)
            (denoised, trace), (residual, change) = base, network
            change = change.reshape(len(z), -1).mean(1)
            if reference is None:
                return denoised, residual, change
            own, own_trace = reference.denoise_and_divergence(z, s)
            return own, denoised + residual - own, trace + change - own_trace

        prior = copy.deepcopy(self.prior).to(x.dtype)
        return likelihood.log_density_ratio(
            shares,
            partial(self.denoiser, condition=self.condition),
            x,
            prior=_moved(prior, self.base, self.condition),
            reference=self.base if reference is None else reference,
            n_steps=n_steps,
            **self._levels,
        )

    def gradient(self, x, s):
        """Gradient of the log-density of rows with noise of level ``s``.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Noisy rows.
        s : float
            Noise level.

        Returns
        -------
        gradient : tensor of shape (n_samples, n_features)
            ``(D(x, s) - x) / s**2``.
        """
        with torch.no_grad():
            return (self.denoiser(x, s, self.condition) - x) / s**2

    def sample(self, n_samples, generator, *, solver="dpmpp_3m", n_steps=32, guidance=1.0):
        """Draw rows.

        Parameters
        ----------
        n_samples : int
            Number of rows; that of the conditions where there are any.
        generator : torch.Generator
            Source of randomness, on the CPU.
        solver : str, default="dpmpp_3m"
            Name of a step in :data:`skdiffusion.diffusion.solve.STEPS`, or "adaptive".
        n_steps : int, default=32
            Number of steps; "adaptive" chooses its own.
        guidance : float, default=1.0
            How much the condition counts, see :func:`skdiffusion.diffusion.denoiser.guided`.

        Returns
        -------
        x : tensor of shape (n_samples, n_features)
            Rows.
        """

        def noise(i=0):
            shape = n_samples, self.prior.n_features
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device)

        if self.denoiser.network is None and (self.condition is None or guidance == 1):
            return _sample_base(self, n_samples, generator, noise).to(self.device)
        z = self._from_latent(noise()) + self.terminal.mean() - self.prior.mean()
        denoise = guided(self.denoiser, self.condition, guidance)
        with torch.no_grad():
            return _solve(denoise, z, noise, solver, n_steps, _LAST_LEVEL * self.s_min, self.s_max)

    def to_latent(self, x):
        """Take rows along the ODE to independent standard normals.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        latent : tensor of shape (n_samples, n_features)
            N(0, I) if the model is right.
        """
        root = self.prior.eigenvectors
        z = self.move(x, self.s_min, self.s_max) - self.prior.mean()
        return (z @ root) / _deviations(self.prior, self.s_max) @ root.T

    def from_latent(self, latent):
        """Take standard normals along the ODE to rows, the inverse of :meth:`to_latent`.

        Parameters
        ----------
        latent : tensor of shape (n_samples, n_features)
            Latent rows.

        Returns
        -------
        x : tensor of shape (n_samples, n_features)
            Rows.
        """
        return self.move(self._from_latent(latent), self.s_max, self.s_min)

    def move(self, z, start, stop):
        """Follow the ODE from one noise level to another.

        Parameters
        ----------
        z : tensor of shape (n_samples, n_features)
            Points at the first level.
        start, stop : float
            Noise levels.

        Returns
        -------
        z : tensor of shape (n_samples, n_features)
            Points at the second level.
        """

        def of_part(model, part):
            denoise = partial(model.denoiser, condition=model.condition)
            ends = math.log(start), math.log(stop)
            return flow(_velocity(denoise), (part,), *ends, _MAP_STEPS)[0]

        with torch.no_grad():
            return torch.cat([of_part(*part) for part in self.parts(z)])

    def bound(self, x, uniforms, noise):
        """Upper bound on the negative log-likelihood of rows under the reverse SDE.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Rows.
        uniforms : tensor of shape (n_samples, n_draws)
            Uniforms in (0, 1); ``n_draws`` is even.
        noise : callable
            ``noise(i)`` for ``i`` up to ``n_draws + 1``.

        Returns
        -------
        bound, standard_error : tensors of shape (n_samples,)
            See :func:`skdiffusion.diffusion.likelihood.nll_bound`.
        last : tensor of shape (n_samples,)
            What of the bound is the cross entropy to the prior.
        """
        terminal, denoise = self.terminal, partial(self.denoiser, condition=self.condition)
        with torch.no_grad():
            bound, error = likelihood.nll_bound(
                denoise, x, uniforms, noise, prior=terminal, **self._levels
            )
            return bound, error, likelihood.prior_cross_entropy(x, terminal, self.s_max)

    def entropy_terms(self, x, uniforms, noise):
        """What rows add to the differential entropy of the density that they are drawn from.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Rows.
        uniforms : tensor of shape (n_samples, n_draws)
            Uniforms in (0, 1); ``n_draws`` is even.
        noise : callable
            ``noise(i)`` for ``i`` up to ``n_draws + 1``.

        Returns
        -------
        terms : tensor of shape (n_samples,)
            Their mean is the entropy, see :func:`skdiffusion.diffusion.likelihood.entropy`.
        """
        with torch.no_grad():
            return likelihood.entropy_terms(self.denoiser, x, uniforms, noise, **self._levels)

    def arrays(self):
        """Return what tells this model, without its condition, from others of its kind.

        Returns
        -------
        arrays : dict
            Arrays of base and prior, weights of the network or None, all as numpy, and the range
            of noise levels.
        """
        network = self.denoiser.network
        return {
            "base": density_arrays(self.denoiser.base),
            "network": None if network is None else numpy_arrays(network.state_dict()),
            "prior": density_arrays(self.prior),
            "s_min": self.s_min,
            "s_max": self.s_max,
        }

    def parts(self, x):
        """Divide rows into parts that can be asked about one by one.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        parts : list of tuples (DensityModel, tensor)
            The model under the conditions of a part, and its rows.
        """
        parts = x.split(_CHUNK)
        conditions = [None] * len(parts) if self.condition is None else self.condition.split(_CHUNK)
        return [(self.given(one), part) for one, part in zip(conditions, parts, strict=True)]

    @property
    def _levels(self):
        return {"s_min": self.s_min, "s_max": self.s_max}

    def _from_latent(self, noise):
        """Standard normals as points of the prior at the largest noise level."""
        root = self.prior.eigenvectors
        return (noise @ root) * _deviations(self.prior, self.s_max) @ root.T + self.prior.mean()


def _moved(prior, base, condition):
    """The prior around the mean that the base expects under each condition."""
    if condition is None:
        return prior
    means = base.mean().expand(len(condition), -1)[:, None]
    weights = means.new_zeros(len(condition), 1)
    return RowMixture(weights, means, prior.eigenvalues[None], prior.eigenvectors[None])


def _deviations(prior, s_max):
    """Standard deviations of the prior along its axes."""
    return (prior.eigenvalues + s_max**2).sqrt()


def _velocity(denoise):
    """Velocity of the ODE in the logarithm of the noise level, for the solvers."""

    def slope(state, u):
        return (state[0] - denoise(state[0], math.exp(u)),)

    return slope


def _sample_base(model, n_samples, generator, noise):
    """Rows of the base alone, drawn on the CPU whatever the device."""
    base = copied(model.denoiser.base).cpu()
    given = base.given(None if model.condition is None else model.condition.cpu())
    if not isinstance(given, RowMixture):
        return given.sample(n_samples, generator)
    uniforms = torch.rand((n_samples, 1), generator=generator, dtype=torch.float64)
    return given.sample(uniforms, noise().cpu()[:, None])[:, 0]


def _solve(denoise, z, noise, solver, n_steps, s_min, s_max):
    """Bring points of the prior to the data."""
    if solver != "adaptive":
        return solve(denoise, z, log_levels(n_steps, s_min, s_max), step=solver, noise=noise)
    ends = math.log(s_max), math.log(s_min)
    (z,) = adaptive_flow(_velocity(denoise), (z,), *ends, rtol=_TOLERANCE, atol=_TOLERANCE)
    return denoise(z, s_min)
