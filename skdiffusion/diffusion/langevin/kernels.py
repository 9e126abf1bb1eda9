"""Langevin kernels: chains that leave a density unchanged.

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

import math
from typing import NamedTuple

import torch


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
    return new, Info(acceptance_probability(log_ratio), accepted)


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


def acceptance_probability(log_ratio):
    """Metropolis probability; not-a-number counts as refused."""
    return torch.nan_to_num(log_ratio.clamp(max=0.0).exp_(), nan=0.0)
