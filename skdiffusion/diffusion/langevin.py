r"""Langevin kernels: chains that leave a density unchanged.

Letters. ``x`` is the position of a chain, ``p`` the target density, ``g = grad log p(x)``, ``h``
the step size and ``eps`` standard normals. The Langevin diffusion ``dx = g dt + sqrt(2) dW``
leaves ``p`` unchanged; a kernel is one step of a discretisation of it.

* :func:`ula` takes the Euler step ``x + h g + sqrt(2 h) eps``. Its stationary law is off by
  O(h): on N(0, 1/k) the variance is ``(1/k) / (1 - h k / 2)``.
* :func:`mala` proposes that step and accepts it with the Metropolis probability, which removes
  the bias [1]_; an acceptance of 0.574 is the best in high dimension [2]_.
* :func:`underdamped` adds a velocity and splits the step as B-A-O-A-B [3]_, whose positions are
  exact on a Gaussian and off by O(h**2) elsewhere.
* :func:`anneal` walks a cloud of points down a ladder of noise levels [4]_: at a high level the
  noisy density has one mode and every point finds it, on the way down the modes separate and
  the points are shared out with the right weights. It needs the *noisy* score.
* :func:`tempered` needs the log density only: replicas of a chain at inverse temperatures beta
  sample ``p**beta``, the hot ones cross between modes and hand their positions down by swaps [5]_.
* :func:`minibatch_gradient` replaces g by an unbiased estimate on some of the rows [6]_.

Preconditioning is a change of coordinates, ``x = m + F u``; see
:class:`skdiffusion.diffusion.target.Affine`.

Kernels are pure: ``kernel(state, evaluate, ..., noise) -> (state, info)``, where ``evaluate(x)``
returns ``(log_density, gradient)`` of all chains at once and the noise is given, so that the same
noise gives the same chain. Positions have shape (n_chains, n_features); step sizes are floats or
tensors of shape (n_chains, 1).

References
----------
.. [1] G. Roberts, R. Tweedie, "Exponential convergence of Langevin distributions and their
   discrete approximations", Bernoulli 1996.
.. [2] G. Roberts, J. Rosenthal, "Optimal scaling of discrete approximations to Langevin
   diffusions", JRSS B 1998.
.. [3] B. Leimkuhler, C. Matthews, "Rational construction of stochastic numerical methods for
   molecular sampling", AMRX 2013.
.. [4] Y. Song, S. Ermon, "Generative modeling by estimating gradients of the data distribution",
   NeurIPS 2019.
.. [5] C. Geyer, "Markov chain Monte Carlo maximum likelihood", 1991; S. Syed et al.,
   "Non-reversible parallel tempering", JRSS B 2022.
.. [6] M. Welling, Y. W. Teh, "Bayesian learning via stochastic gradient Langevin dynamics",
   ICML 2011.
"""

import itertools
import math
from typing import NamedTuple

import torch

from skdiffusion.diffusion.solve import ancestral

TARGET_ACCEPTANCE = 0.574


class State(NamedTuple):
    """Where the chains are, with the values there so that no kernel computes them twice."""

    position: torch.Tensor
    log_density: torch.Tensor | None
    gradient: torch.Tensor
    velocity: torch.Tensor | None = None


class Info(NamedTuple):
    """What happened in a step: probability of acceptance and decision, one a chain."""

    acceptance: torch.Tensor | None = None
    accepted: torch.Tensor | None = None
    swap_acceptance: torch.Tensor | None = None


def start(position, evaluate, velocity=None):
    """Evaluate the density where the chains start.

    Parameters
    ----------
    position : tensor of shape (n_chains, n_features)
        Starting points.
    evaluate : callable
        ``evaluate(x) -> (log_density, gradient)``; the log density may be None.
    velocity : tensor of shape (n_chains, n_features), optional
        Starting velocities of :func:`underdamped`.

    Returns
    -------
    state : State
        State of the chains.
    """
    return State(position, *evaluate(position), velocity)


def ula(state, evaluate, step_size, noise, temperature=1.0):
    """Take one unadjusted Langevin step.

    Parameters
    ----------
    state : State
        State of the chains.
    evaluate : callable
        ``evaluate(x) -> (log_density, gradient)``; the log density is not used.
    step_size : float or tensor of shape (n_chains, 1)
        Step ``h``, in squared units of the position.
    noise : tensor of shape (n_chains, n_features)
        Standard normals.
    temperature : float, default=1.0
        The chain samples ``p ** (1 / temperature)``; 0 is plain gradient ascent.

    Returns
    -------
    state : State
        New state.
    info : Info
        Empty: every step is taken.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.langevin import start, ula
    >>> normal = lambda x: (None, -x)
    >>> state = start(torch.ones(1, 2), normal)
    >>> ula(state, normal, 0.1, torch.zeros(1, 2))[0].position
    tensor([[0.9000, 0.9000]])
    """
    drift = step_size * state.gradient
    position = state.position + (drift + (2 * step_size * temperature) ** 0.5 * noise)
    return State(position, *evaluate(position)), Info()


def mala(state, evaluate, step_size, noise, log_uniform):
    """Take one Metropolis-adjusted Langevin step.

    Parameters
    ----------
    state : State
        State of the chains.
    evaluate : callable
        ``evaluate(x) -> (log_density, gradient)``.
    step_size : float or tensor of shape (n_chains, 1)
        Step ``h``, in squared units of the position.
    noise : tensor of shape (n_chains, n_features)
        Standard normals.
    log_uniform : tensor of shape (n_chains,)
        Logarithms of uniforms on (0, 1).

    Returns
    -------
    state : State
        New state; a chain whose proposal is refused, or not finite, stays where it is.
    info : Info
        Acceptance probabilities and decisions.

    Notes
    -----
    With ``y = x + h g(x) + sqrt(2 h) eps`` the way back has the noise
    ``-(eps + sqrt(h / 2) (g(x) + g(y)))``, so that the proposals' ratio needs no step-size
    division.
    """
    root = (2 * step_size) ** 0.5
    proposal = state.position + (step_size * state.gradient + root * noise)
    log_density, gradient = evaluate(proposal)
    push = (root / 2) * (state.gradient + gradient)
    log_ratio = log_density - state.log_density - (push * (noise + 0.5 * push)).sum(-1)
    accepted = log_uniform < log_ratio
    moved = accepted[:, None]
    new = State(
        torch.where(moved, proposal, state.position),
        torch.where(accepted, log_density, state.log_density),
        torch.where(moved, gradient, state.gradient),
    )
    return new, Info(_probability(log_ratio), accepted)


def underdamped(state, evaluate, step_size, noise, friction=1.0):
    """Take one step of underdamped Langevin dynamics, split as B-A-O-A-B.

    Parameters
    ----------
    state : State
        State of the chains, with velocities.
    evaluate : callable
        ``evaluate(x) -> (log_density, gradient)``; the log density is not used.
    step_size : float or tensor of shape (n_chains, 1)
        Time step, in units of the position.
    noise : tensor of shape (n_chains, n_features)
        Standard normals.
    friction : float, default=1.0
        Rate at which velocities forget, per unit of time.

    Returns
    -------
    state : State
        New state.
    info : Info
        Empty: every step is taken.

    Notes
    -----
    B kicks the velocity by half a step of the gradient, A drifts the position by half a step, O
    is the exact Ornstein-Uhlenbeck step of the velocity. On N(0, 1/k) the variance of the
    position is exactly 1/k and that of the velocity ``1 - k step_size**2 / 4``.
    """
    half = step_size / 2
    keep = math.exp(-friction * step_size)
    velocity = state.velocity + half * state.gradient
    position = state.position + half * velocity
    velocity = keep * velocity + math.sqrt(1 - keep**2) * noise
    position = position + half * velocity
    log_density, gradient = evaluate(position)
    return State(position, log_density, gradient, velocity + half * gradient), Info()


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


def tempered(state, bridge, step_size, noise, log_uniform, log_uniform_swap, parity):
    """Take one step of parallel tempering: a Metropolis step of every replica, then swaps.

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
    log_uniform_swap : tensor of the same shape
        Logarithms of uniforms for the swaps; replica k decides on its swap with k + 1.
    parity : int
        Even steps swap the pairs (0, 1), (2, 3), ..., odd steps (1, 2), (3, 4), ...

    Returns
    -------
    state : State
        New state.
    info : Info
        ``swap_acceptance`` has shape (n_pairs, n_chains).
    """
    state, info = mala(state, bridge, step_size, noise, log_uniform)
    n_temperatures = len(bridge.inverse_temperatures)
    low = torch.arange(parity % 2, n_temperatures - 1, 2, device=noise.device)
    if len(low) == 0:
        return state, info
    tilt, tilt_gradient = bridge.tilt(state)
    beta, by_level = bridge.inverse_temperatures, tilt.reshape(n_temperatures, -1)
    log_ratio = (beta[low] - beta[low + 1])[:, None] * (by_level[low + 1] - by_level[low])
    swap = log_uniform_swap.reshape(n_temperatures, -1)[low] < log_ratio
    index = torch.arange(len(tilt), device=noise.device).reshape(n_temperatures, -1)
    source = index.clone()
    source[low] = torch.where(swap, index[low + 1], index[low])
    source[low + 1] = torch.where(swap, index[low], index[low + 1])
    source = source.reshape(-1)
    new = bridge.state(state.position[source], tilt[source], tilt_gradient[source])
    return new, info._replace(swap_acceptance=_probability(log_ratio))


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


def minibatch_gradient(log_likelihood, log_prior, data, rows):
    """Gradient of a log posterior estimated on some of the data.

    Parameters
    ----------
    log_likelihood : callable
        ``log_likelihood(x, data) -> tensor of shape (n_chains,)``, summed over the rows of
        ``data``.
    log_prior : callable
        ``log_prior(x) -> tensor of shape (n_chains,)``.
    data : tensor of shape (n_rows, ...)
        All the data.
    rows : int64 tensor of shape (batch_size,)
        Rows of the minibatch.

    Returns
    -------
    evaluate : callable
        ``evaluate(x) -> (None, gradient)``. The average of the gradient over minibatches is the
        gradient of the log posterior; the noise of the estimate widens the stationary law of
        :func:`ula` by a term of the order of the step size.
    """
    factor = len(data) / len(rows)

    def log_posterior(x):
        return log_prior(x) + factor * log_likelihood(x, data[rows])

    return lambda x: (None, autograd(log_posterior, x)[1])


def autograd(log_density, x):
    """Log density and its gradient by automatic differentiation.

    Parameters
    ----------
    log_density : callable
        ``log_density(x) -> tensor of shape (n_chains,)``, each value from its own row only.
    x : tensor of shape (n_chains, n_features)
        Points.

    Returns
    -------
    log_density : tensor of shape (n_chains,)
        Values.
    gradient : tensor of shape (n_chains, n_features)
        Gradients.
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        value = log_density(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def adapt(step_size, acceptance, i, target=TARGET_ACCEPTANCE):
    """Move a step size towards the target acceptance, by Robbins and Monro.

    Parameters
    ----------
    step_size : float or tensor
        Present step size.
    acceptance : float or tensor
        Mean acceptance at that step size.
    i : int
        Number of adaptations made before; the gain falls as ``(i + 1) ** -0.5``.
    target : float, default=0.574
        Acceptance to reach.

    Returns
    -------
    step_size : float or tensor
        Next step size.
    """
    gain = 2 * (acceptance - target) / math.sqrt(i + 1)
    return step_size * (gain.exp() if isinstance(gain, torch.Tensor) else math.exp(gain))


def _probability(log_ratio):
    """Metropolis probability; not-a-number counts as refused."""
    return torch.nan_to_num(log_ratio.clamp(max=0.0).exp_(), nan=0.0)
