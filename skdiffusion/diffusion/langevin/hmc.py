"""Hamiltonian trajectories: many steps without noise between two refreshments of the velocity."""

import dataclasses
import math
from typing import NamedTuple

import torch

from skdiffusion.diffusion.langevin.kernels import (
    Info,
    Kernel,
    State,
    acceptance_probability,
    where_accepted,
)
from skdiffusion.diffusion.langevin.mala import truncated

# Mean numbers of steps of a trajectory that are tried; doubling is fine enough, as trajectories
# of a random length lose little by a factor of 1.4.
_LENGTHS = (1, 2, 4, 8, 16, 32)
# Change of the energy within a step, in nats, from which the step is halved: hardly ever met where
# one step size suits the whole target.
_TOLERANCE = 2.0
# Halvings of a step at most.
_MOST_HALVINGS = 5


class _Segment(NamedTuple):
    """Where steps lead: state, velocity, and how much the energy changed on the way."""

    state: State
    velocity: torch.Tensor
    change: torch.Tensor


def hmc(state, evaluate, step_size, noise, log_uniform, n_leapfrog, tolerance=math.inf):
    """Follow a Hamiltonian trajectory and accept or refuse its end.

    Parameters
    ----------
    state : State
        State of the chains.
    evaluate : callable
        ``evaluate(x) -> (log_density, gradient)``.
    step_size : float or tensor of shape (n_chains, 1)
        Time step, in units of the position.
    noise : tensor of shape (n_chains, n_features)
        Standard normals, the velocities at the start.
    log_uniform : tensor of shape (n_chains,)
        Logarithms of uniforms on (0, 1).
    n_leapfrog : int
        Steps of the trajectory, each with one evaluation.
    tolerance : float, default=inf
        Change of the energy within a step, from which the step is taken in 2, 4, 8, ... parts.

    Returns
    -------
    state : State
        New state; a chain whose end is refused, or not finite, stays where it is.
    info : Info
        Acceptance probabilities and decisions.

    Notes
    -----
    The force is the truncated gradient of the Metropolis step, for the same reason: any force
    that depends on the position only gives a map that keeps volumes and can be reversed, and the
    test of the end makes it exact [1]_.

    A step is taken in the fewest parts that keep the energy within the tolerance. The way back
    must choose the same number: a trajectory with a step that fewer parts would lead back is
    refused. With that the map is its own inverse on what it accepts, and local steps cost nothing
    in exactness [2]_. A step that no number of parts makes smooth stays whole, if the way back has
    no such number either.

    References
    ----------
    .. [1] R. Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo 2011,
       https://arxiv.org/abs/1206.1901.
    .. [2] N. Bou-Rabee, B. Carpenter, T. Kleppe, S. Liu, "The within-orbit adaptive leapfrog
       no-U-turn sampler", 2025, https://arxiv.org/abs/2506.18746.
    """
    count = _Counted(evaluate)
    new, velocity = state, noise
    can_return = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
    for _ in range(n_leapfrog):
        step = _travel(new, velocity, count, step_size, 1)
        if tolerance < math.inf:
            step = _refined(step, new, velocity, count, step_size, tolerance, can_return)
        new, velocity = step.state, step.velocity
    kinetic = 0.5 * (noise.square() - velocity.square()).sum(1)
    log_ratio = (new.log_density - state.log_density + kinetic).masked_fill(~can_return, -math.inf)
    accepted = log_uniform < log_ratio
    kept = where_accepted(accepted, new, state)
    return kept, Info(
        acceptance_probability(log_ratio), accepted, evaluations=count.rows / len(noise)
    )


class _Counted:
    """A function of the rows of points, and the number of rows it was asked for."""

    def __init__(self, evaluate):
        self._evaluate, self.rows = evaluate, 0

    def __call__(self, x):
        self.rows += len(x)
        return self._evaluate(x)


def _travel(state, velocity, evaluate, step_size, n_parts):
    """One step in equal parts."""
    part = step_size / n_parts
    half = part / 2
    force = lambda gradient: truncated(gradient, part * half)  # noqa: E731
    energy = _energy(state, velocity)
    low, high = energy, energy
    for _ in range(n_parts):
        velocity = velocity + half * force(state.gradient)
        position = state.position + part * velocity
        state = State(position, *evaluate(position))
        velocity = velocity + half * force(state.gradient)
        energy = _energy(state, velocity)
        low, high = torch.minimum(low, energy), torch.maximum(high, energy)
    return _Segment(state, velocity, high - low)


def _energy(state, velocity):
    """Total energy of every chain."""
    return 0.5 * velocity.square().sum(1) - state.log_density


def _refined(step, state, velocity, evaluate, step_size, tolerance, can_return):
    """The step in as few parts as keep the energy; marks chains that could not come back.

    Where no number of parts does, as far out in a light tail, the step stays whole.
    """
    for i in range(1, _MOST_HALVINGS + 1):
        rough = (~(step.change <= tolerance)).nonzero()[:, 0]
        if not len(rough):
            return step
        start, size = (_rows(state, rough), velocity[rough]), _of_rows(step_size, rough)
        finer = _travel(*start, evaluate, size, 2**i)
        found = (finer.change <= tolerance).nonzero()[:, 0]
        finer = _Segment(_rows(finer.state, found), finer.velocity[found], finer.change[found])
        back = finer.state, -finer.velocity, evaluate, _of_rows(size, found)
        can_return[rough[found]] &= ~_shortcut(*back, tolerance, i)
        step = _placed(step, finer, rough[found])
    rough = (~(step.change <= tolerance)).nonzero()[:, 0]
    back = _rows(step.state, rough), -step.velocity[rough], evaluate, _of_rows(step_size, rough)
    can_return[rough] &= ~_shortcut(*back, tolerance, _MOST_HALVINGS + 1)
    return step


def _shortcut(state, velocity, evaluate, step_size, tolerance, i):
    """Whether fewer than ``2**i`` parts would keep the energy from here."""
    short = torch.zeros(len(velocity), dtype=torch.bool, device=velocity.device)
    for j in range(i):
        left = (~short).nonzero()[:, 0]
        if not len(left):
            break
        size = _of_rows(step_size, left)
        way = _travel(_rows(state, left), velocity[left], evaluate, size, 2**j)
        short[left] = way.change <= tolerance
    return short


def _rows(state, index):
    """State of some chains."""
    return State(state.position[index], state.log_density[index], state.gradient[index])


def _of_rows(step_size, index):
    """Step sizes of some chains, which may all have the same."""
    return step_size[index] if getattr(step_size, "ndim", 0) else step_size


def _placed(step, finer, rows):
    """Segment in which some rows are others."""
    put = lambda old, new: old.index_copy(0, rows, new)  # noqa: E731
    state = State(*map(put, step.state[:3], finer.state[:3]))
    return _Segment(state, put(step.velocity, finer.velocity), put(step.change, finer.change))


@dataclasses.dataclass(frozen=True)
class HMC(Kernel):
    """Kernel of :func:`hmc`, with trajectories of a length that changes from step to step.

    Of a fixed length trajectories can come back to where they began; lengths from one step to
    twice the mean, spread evenly over the steps, do not [1]_. Where a step is too long for the
    place, it is taken in parts.

    Parameters
    ----------
    step_size : float, default=1.0
        Time step.
    n_leapfrog : int, default=1
        Mean number of steps of a trajectory.
    tolerance : float, default=2.0
        Change of the energy, in nats, from which a step is taken in parts.

    References
    ----------
    .. [1] M. Hoffman, A. Radul, P. Sountsov, "An adaptive-MCMC scheme for setting trajectory
       lengths in Hamiltonian Monte Carlo", AISTATS 2021,
       https://proceedings.mlr.press/v130/hoffman21a.html.
    """

    step_size: float = 1.0
    n_leapfrog: int = 1
    tolerance: float = _TOLERANCE

    needs = "log_density"
    # Of the optimum 0.651 and the higher rates that irregular targets want, in between.
    target_acceptance = 0.7
    default_steps = 100
    scouts = ("mala",)

    @property
    def alternatives(self):
        """The same with trajectories of other lengths, in whole steps.

        With parts, steps of any length would be accepted, and be too long nearly everywhere.
        """
        others = {"tolerance": math.inf}
        return tuple(dataclasses.replace(self, n_leapfrog=n, **others) for n in _LENGTHS)

    def tuned(self):
        """The kernel that runs, once a length is found."""
        return dataclasses.replace(self, tolerance=_TOLERANCE)

    def plain(self):
        """The kernel with steps that are never taken in parts."""
        return dataclasses.replace(self, tolerance=math.inf)

    @property
    def cost(self):
        """Mean number of evaluations a step, where none is taken in parts."""
        return self.n_leapfrog + 0.5

    def evaluate(self, target, x, step):
        """Log density and gradient of the target."""
        return target.evaluate

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``."""
        n_leapfrog = math.ceil(2 * self.n_leapfrog * van_der_corput(i))
        uniform = noise.log_uniform(i)
        # Two trajectories with parts, for narrow places, and two of whole steps, which lead home
        # from light tails where no part is short enough; pairs, as lengths alternate, too.
        tolerance = self.tolerance if i // 2 % 2 else math.inf
        return hmc(state, evaluate, step_size, noise.normal(i), uniform, n_leapfrog, tolerance)

    def guess(self, curvature):
        """Kernel with a time step for the fastest oscillation, from where it is adapted."""
        return self.with_step_size(1 / math.sqrt(curvature))


def van_der_corput(i):
    """Number ``i`` >= 1 of a sequence that fills (0, 1) evenly: its binary digits in reverse."""
    digits = f"{i:b}"
    return int(digits[::-1], 2) / 2 ** len(digits)
