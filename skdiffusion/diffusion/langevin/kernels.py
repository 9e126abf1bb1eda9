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
* :func:`hmc` follows the velocity over many steps without noise and accepts the end or refuses it,
  which crosses a wide target in fewer evaluations than the random walk of the others.
* :func:`anneal` walks a cloud of points down a ladder of noise levels [4]_: at a high level the
  noisy density has one mode and every point finds it, on the way down the modes separate and
  the points are shared out with the right weights. It needs the *noisy* score.
* :func:`tempered` needs the log density only: replicas of a chain at inverse temperatures beta
  sample ``p**beta``, the hot ones cross between modes and hand their positions down by swaps [5]_.
* :func:`jump` proposes a draw from Gaussians on the hills of the density, whence the steps of any
  kernel go on.
* :func:`minibatch_gradient` replaces g by an unbiased estimate on some of the rows [6]_.

Preconditioning is a change of coordinates, ``x = m + F u``; see
:class:`skdiffusion.diffusion.target.Affine`.

Steps are pure: ``ula(state, evaluate, ..., noise) -> (state, info)``, where ``evaluate(x)``
returns ``(log_density, gradient)`` of all chains at once and the noise is given, so that the same
noise gives the same chain. Positions have shape (n_chains, n_features); step sizes are floats or
tensors of shape (n_chains, 1).

A :class:`Kernel` is such a step with its numbers: it says what it needs of a target, where its
chains begin, and what of it can be tuned. The loop in :mod:`~skdiffusion.diffusion.langevin.chains`
and everything above ask the kernel, never its name.

References
----------
.. [1] G. Roberts, R. Tweedie, "Exponential convergence of Langevin distributions and their
   discrete approximations", Bernoulli 1996, https://doi.org/10.2307/3318418.
.. [2] G. Roberts, J. Rosenthal, "Optimal scaling of discrete approximations to Langevin
   diffusions", JRSS B 1998, https://doi.org/10.1111/1467-9868.00123.
.. [3] B. Leimkuhler, C. Matthews, "Rational construction of stochastic numerical methods for
   molecular sampling", AMRX 2013, https://doi.org/10.1093/amrx/abs010.
.. [4] Y. Song, S. Ermon, "Generative modeling by estimating gradients of the data distribution",
   NeurIPS 2019, https://arxiv.org/abs/1907.05600.
.. [5] C. Geyer, "Markov chain Monte Carlo maximum likelihood", 1991; S. Syed et al.,
   "Non-reversible parallel tempering", JRSS B 2022, https://doi.org/10.1111/rssb.12464.
.. [6] M. Welling, Y. W. Teh, "Bayesian learning via stochastic gradient Langevin dynamics",
   ICML 2011.
"""

import dataclasses
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
    """What happened in a step: probability of acceptance and decision, one a chain.

    Under tempering ``swap_acceptance`` and ``swapped`` have, for every round of swaps, one row a
    pair of neighbours, not a number and False where the pair was not tried. ``evaluations`` counts
    the calls of the target a chain, where they differ from step to step.
    """

    acceptance: torch.Tensor | None = None
    accepted: torch.Tensor | None = None
    swap_acceptance: torch.Tensor | None = None
    swapped: torch.Tensor | None = None
    evaluations: float | None = None


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


class Kernel:
    """What moves chains: the part that kernels share; see the module's introduction.

    A kernel is a frozen dataclass with a field ``step_size`` and whatever else its step needs.

    Attributes
    ----------
    needs : {"gradient", "log_density", "noisy_score"}
        What a target must offer.
    target_acceptance : float or None
        Acceptance to which the step size is adapted; None where no step is refused.
    default_steps : int
        Steps before the first draw, where nobody says how many.
    n_replicas : int
        Rows of noise a chain needs.
    noise_levels, inverse_temperatures : tuple of float
        Ladders, of which most kernels have none.
    forgets_start : bool
        Whether the start of a chain is forgotten before its first step.
    alternatives : tuple of Kernel
        Kernels of which the best one is to be taken; none but itself where empty.
    cost : float
        Evaluations of the target a step and replica.
    scouts : tuple of str
        Names of the kernels that find coordinates for this one, one after the other; itself where
        empty.
    temperature : float
        Temperature at which the target is sampled.
    """

    needs = "gradient"
    target_acceptance = None
    default_steps = 1000
    n_replicas = 1
    noise_levels = ()
    inverse_temperatures = (1.0,)
    forgets_start = False
    alternatives = ()
    cost = 1.0
    scouts = ()
    temperature = 1.0

    @classmethod
    def suited(cls, target, x, **options):
        """Kernel for a target and chains at ``x``, its step size not yet found."""
        return cls()

    @property
    def local(self):
        """Kernel of the steps alone, without the way from the start to the target."""
        return self

    def with_local(self, kernel):
        """Kernel with other steps of the same kind."""
        return kernel

    def init(self, target, x, noise, report):
        """Begin chains at ``x``.

        Parameters
        ----------
        target : skdiffusion.diffusion.target.Target
            What to sample.
        x : tensor of shape (n_chains, n_features)
            Starting points.
        noise : object
            Noise of the chains.
        report : callable
            ``report(step, x, noise_level)`` is called with what is passed on the way.

        Returns
        -------
        state : State
            State of the ``n_replicas * n_chains`` rows.
        step : int
            Number of the last step of ``noise`` that was used.
        """
        x = x.repeat(self.n_replicas, 1)
        return start(x, self.evaluate(target, x, 0)), 0

    def evaluate(self, target, x, step):
        """Function of positions that a step calls for values and gradients."""
        return target.at_step(step)

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``: new state and what happened."""
        raise NotImplementedError

    def guess(self, curvature):
        """Kernel with a step size for a target of this largest curvature."""
        return self.with_step_size(0.1 / curvature)

    def tuned(self):
        """The kernel that runs, once the best of the alternatives is found."""
        return self

    def plain(self):
        """The kernel without what only places of another scale need."""
        return self

    def given(self, step_size):
        """Kernel with the step size that somebody chose."""
        return self.with_step_size(float(step_size))

    def with_step_size(self, step_size):
        """Kernel with another step size."""
        return dataclasses.replace(self, step_size=step_size)


def acceptance_probability(log_ratio):
    """Metropolis probability; not-a-number counts as refused."""
    return torch.nan_to_num(log_ratio.clamp(max=0.0).exp_(), nan=0.0)


def where_accepted(accepted, new, old):
    """State of the chains after a decision: new where it was accepted, the old one elsewhere."""
    moved = accepted[:, None]
    return State(
        torch.where(moved, new.position, old.position),
        torch.where(accepted, new.log_density, old.log_density),
        torch.where(moved, new.gradient, old.gradient),
    )


def outside_as_minus_infinity(state):
    """Let chains that start outside the support go anywhere inside it.

    Where the log density is infinite or not a number, or the gradient is not finite, the log
    density becomes minus infinity and the gradient 0: the chain tries points around it by noise
    alone and takes the first one inside. Proposals that leave the support are refused.
    """
    outside = ~(torch.isfinite(state.log_density) & torch.isfinite(state.gradient).all(1))
    return state._replace(
        log_density=state.log_density.masked_fill(outside, -math.inf),
        gradient=state.gradient.masked_fill(outside[:, None], 0.0),
    )


def geometric(first, last, n):
    """List of ``n`` numbers from ``first`` to ``last`` with one ratio between neighbours."""
    exponents = torch.linspace(math.log(first), math.log(last), n, dtype=torch.float64)
    return [first, *exponents[1:-1].exp().tolist(), last][:n]
