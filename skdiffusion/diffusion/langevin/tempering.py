"""Replicas at several temperatures, and the bridge of densities between them."""

import dataclasses
import math

import torch

from skdiffusion.diffusion.langevin.gradients import chains_last
from skdiffusion.diffusion.langevin.kernels import Kernel, State, acceptance_probability, geometric
from skdiffusion.diffusion.langevin.mala import MALA, mala
from skdiffusion.diffusion.langevin.swaps import equal_rejections
from skdiffusion.diffusion.target.checks import rounded_away

# The hottest temperature flattens a valley of 500 nats to one.
_SMALLEST_BETA = 0.002
# A ladder of 40 takes 40 evaluations a step: more wait longer for a round trip than they gain.
_MOST_TEMPERATURES = 40
# Neighbours of ratio 1 + c / sqrt(n_features) swap in a good third of the trials: the energy of a
# Gaussian at inverse temperature b has the standard deviation sqrt(n_features / 2) / b.
_RATIO = 5.3
# Spread of the reference that holds the hot replicas, in spreads of the starting points, and in
# those of draws: the first is for finding modes, the second for crossing between those found.
_RADIUS, _SETTLED_RADIUS = 100, 2
# Points of the reference that are looked at, and how often it may be halved.
_N_REFERENCE, _MOST_HALVINGS = 256, 12
# Deviations within which all draws of a Gaussian lie, of a thousand or so.
_RARE = 4


def tempered(state, bridge, step_size, noise, log_uniform, log_uniform_swaps):
    """Take one step of parallel tempering: a Metropolis step of every replica, then swaps.

    The pairs (0, 1), (2, 3), ... swap first and then (1, 2), (3, 4), ..., always in this order, so
    that replicas travel on in their direction where swaps succeed. Swaps evaluate nothing.

    Parameters
    ----------
    state : State
        State of the replicas, from :func:`start` with ``bridge``; the replicas of the first
        (coldest) temperature of all chains come first.
    bridge : Bridge
        The tempered densities.
    step_size : float or tensor of shape (n_temperatures * n_chains, 1)
        Steps of the replicas.
    noise : tensor of shape (n_temperatures * n_chains, n_features)
        Standard normals.
    log_uniform : tensor of shape (n_temperatures * n_chains,)
        Logarithms of uniforms for the Metropolis steps.
    log_uniform_swaps : sequence of two tensors of the same shape
        Logarithms of uniforms for the swaps; replica k decides on its swap with k + 1.

    Returns
    -------
    state : State
        New state.
    info : Info
        ``swap_acceptance`` and ``swapped`` have shape (2, n_temperatures - 1, n_chains).

    References
    ----------
    .. [1] S. Syed, A. Bouchard-Côté, G. Deligiannidis, A. Doucet, "Non-reversible parallel
       tempering: a scalable highly parallel MCMC scheme", JRSS B 2022,
       https://doi.org/10.1111/rssb.12464.
    """
    state, info = mala(state, bridge, step_size, noise, log_uniform)
    tilt, tilt_gradient = bridge.tilt(state)
    source, rounds = torch.arange(len(tilt), device=noise.device), []
    for parity, log_uniform_swap in enumerate(log_uniform_swaps):
        swapped, acceptance = _swaps(tilt[source], bridge, log_uniform_swap, parity)
        source = _exchanged(source, swapped)
        rounds.append((swapped, acceptance))
    swapped, acceptance = map(torch.stack, zip(*rounds, strict=True))
    new = bridge.state(
        chains_last(state.position[source]), tilt[source], chains_last(tilt_gradient[source])
    )
    return new, info._replace(swap_acceptance=acceptance, swapped=swapped)


def _swaps(tilt, bridge, log_uniform, parity):
    """Which neighbours of a parity swap, and with what probability they would."""
    beta = bridge.inverse_temperatures
    by_level = tilt.reshape(len(beta), -1)
    log_ratio = (beta[:-1] - beta[1:])[:, None] * by_level.diff(dim=0)
    acceptance = acceptance_probability(log_ratio.clone())
    swapped = log_uniform.reshape(len(beta), -1)[:-1] < log_ratio
    acceptance[1 - parity :: 2], swapped[1 - parity :: 2] = math.nan, False
    return swapped, acceptance


def _exchanged(source, swapped):
    """Rows after swaps of neighbours that do not touch each other."""
    source = source.reshape(len(swapped) + 1, -1)
    moved = source.clone()
    moved[:-1] = torch.where(swapped, source[1:], moved[:-1])
    moved[1:] = torch.where(swapped, source[:-1], moved[1:])
    return moved.reshape(-1)


class Bridge:
    """Densities ``p**beta r**(1 - beta)`` between the target and a wide Gaussian.

    The reference ``r = N(0, radius**2 I)`` keeps the hot replicas from wandering off where
    ``p**beta`` cannot be normalised.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(x) -> (log_density, gradient)`` of the target.
    inverse_temperatures : tensor of shape (n_temperatures,)
        Decreasing values of beta, the first one 1, all positive.
    radius : float
        Standard deviation of the reference.
    """

    def __init__(self, evaluate, inverse_temperatures, radius):
        self._evaluate, self._precision = evaluate, 1 / radius**2
        self.inverse_temperatures = inverse_temperatures

    def __call__(self, x):
        """Log density and gradient of all replicas, coldest temperature first."""
        log_density, gradient = self._evaluate(x)
        reference, reference_gradient = self._reference(x)
        return self._mix(
            x, log_density - reference, gradient - reference_gradient, reference, reference_gradient
        )

    def tilt(self, state):
        """``log p - log r`` and its gradient, out of the tempered values."""
        reference, reference_gradient = self._reference(state.position)
        beta = self._beta(state.position)
        return (
            (state.log_density - reference) / beta,
            (state.gradient - reference_gradient) / beta[:, None],
        )

    def state(self, position, tilt, tilt_gradient):
        """State of replicas whose tilt is known."""
        reference = self._reference(position)
        return State(position, *self._mix(position, tilt, tilt_gradient, *reference))

    def _mix(self, x, tilt, tilt_gradient, reference, reference_gradient):
        """Tempered log density and gradient."""
        beta = self._beta(x)
        return reference + beta * tilt, reference_gradient + beta[:, None] * tilt_gradient

    def _reference(self, x):
        """Log density of the reference, up to a constant, and gradient."""
        return -0.5 * self._precision * x.square().sum(1), -self._precision * x

    def _beta(self, x):
        """Inverse temperature of every replica."""
        return self.inverse_temperatures.repeat_interleave(len(x) // len(self.inverse_temperatures))


def _where_values_are(target, radius, x):
    """Radius of a reference that does not reach where log densities are rounding alone.

    There sums of huge terms that cancel are as high as it happens, and hot replicas climb them.
    """
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn((_N_REFERENCE, x.shape[1]), generator=generator, dtype=torch.float64)
    # Of many steps some are further out than any of so many points.
    normal = 2 * normal.to(x)
    for _ in range(_MOST_HALVINGS):
        if not bool(rounded_away(target, radius * normal).any()):
            break
        radius = radius / 2
    return radius


@dataclasses.dataclass(frozen=True)
class Tempered(Kernel):
    """Kernel of :func:`tempered`.

    Parameters
    ----------
    inverse_temperatures : tuple of float, default=(1.0,)
        Temperatures, the first one 1.
    radius : float, default=1.0
        Standard deviation of the reference.
    step_size : tuple of float, default=(1.0,)
        Step of every temperature.
    """

    inverse_temperatures: tuple = (1.0,)
    radius: float = 1.0
    step_size: tuple = (1.0,)

    needs = "log_density"
    target_acceptance = MALA.target_acceptance
    default_steps = 500
    # Coordinates are found by the cheap one, modes by the other.
    scouts = ("mala", "tempered")

    @classmethod
    def suited(cls, target, x, *, settled=False, **options):
        """Kernel with temperatures whose ratio lets neighbours swap in this dimension."""
        # The reference is centred at the origin, where draws need not be.
        spread = _RADIUS * x.std(0).max()
        if settled:
            rare = x.abs().max() / _RARE
            spread = _SETTLED_RADIUS * torch.maximum(x.square().mean(0).sqrt().max(), rare)
        n_features = x.shape[1]
        spread = _where_values_are(target, max(float(spread), 1e-12), x)
        n_steps = -math.log(_SMALLEST_BETA) / math.log(1 + _RATIO / math.sqrt(n_features))
        betas = geometric(1.0, _SMALLEST_BETA, 1 + math.ceil(n_steps))
        return cls(tuple(betas), spread).guess(1.0)

    @property
    def n_replicas(self):
        """One replica a temperature."""
        return len(self.inverse_temperatures)

    def evaluate(self, target, x, step):
        """Bridge from the target to the reference."""
        betas = torch.tensor(self.inverse_temperatures).to(x)
        return Bridge(target.evaluate, betas, self.radius)

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``."""
        swaps = noise.log_uniform(i, 2), noise.log_uniform(i, 3)
        return tempered(state, evaluate, step_size, noise.normal(i), noise.log_uniform(i), swaps)

    def respaced(self, rejections):
        """Kernel on the ladder of equal rejections, of the length that makes most round trips [1]_.

        Parameters
        ----------
        rejections : sequence of float
            Share of refused swaps of every pair of neighbours.

        Returns
        -------
        kernel : Tempered
            The kernel, with steps that are yet to be tuned.

        References
        ----------
        .. [1] S. Syed et al., "Non-reversible parallel tempering", JRSS B 2022, section 5,
           https://doi.org/10.1111/rssb.12464.
        """
        n_temperatures = min(1 + math.ceil(2 * sum(rejections)), _MOST_TEMPERATURES)
        betas = equal_rejections(self.inverse_temperatures, rejections, max(n_temperatures, 2))
        steps = [self._step_at(beta) for beta in betas]
        return dataclasses.replace(self, inverse_temperatures=tuple(betas), step_size=tuple(steps))

    def _step_at(self, beta):
        """Step size of the nearest temperature."""
        nearest = min(self.inverse_temperatures, key=lambda b: abs(math.log(b / beta)))
        return self.step_size[self.inverse_temperatures.index(nearest)]

    def guess(self, curvature):
        """Kernel whose steps grow with the temperature, from where they are adapted."""
        return self.given(1 / curvature)

    def given(self, step_size):
        """Kernel with the step size that somebody chose for the target itself."""
        betas = self.inverse_temperatures
        return self.with_step_size(tuple(float(step_size) / beta for beta in betas))
