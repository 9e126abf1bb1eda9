"""Hamiltonian trajectories: many steps without noise between two refreshments of the velocity."""

import dataclasses
import math

import torch

from skdiffusion.diffusion.langevin.kernels import Info, Kernel, State, acceptance_probability
from skdiffusion.diffusion.langevin.mala import truncated

# Mean numbers of steps of a trajectory that are tried; doubling is fine enough, as trajectories
# of a random length lose little by a factor of 1.4.
_LENGTHS = (1, 2, 4, 8, 16, 32)


def hmc(state, evaluate, step_size, noise, log_uniform, n_leapfrog):
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

    References
    ----------
    .. [1] R. Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo 2011.
    """
    half = step_size / 2
    force = lambda gradient: truncated(gradient, step_size * half)  # noqa: E731
    new, velocity = state, noise
    for _ in range(n_leapfrog):
        velocity = velocity + half * force(new.gradient)
        position = new.position + step_size * velocity
        new = State(position, *evaluate(position))
        velocity = velocity + half * force(new.gradient)
    kinetic = 0.5 * (noise.square() - velocity.square()).sum(1)
    log_ratio = new.log_density - state.log_density + kinetic
    accepted = log_uniform < log_ratio
    moved = accepted[:, None]
    kept = State(
        torch.where(moved, new.position, state.position),
        torch.where(accepted, new.log_density, state.log_density),
        torch.where(moved, new.gradient, state.gradient),
    )
    return kept, Info(acceptance_probability(log_ratio), accepted)


@dataclasses.dataclass(frozen=True)
class HMC(Kernel):
    """Kernel of :func:`hmc`, with trajectories of a length that changes from step to step.

    Of a fixed length trajectories can come back to where they began; lengths from one step to
    twice the mean, spread evenly over the steps, do not [1]_.

    Parameters
    ----------
    step_size : float, default=1.0
        Time step.
    n_leapfrog : int, default=1
        Mean number of steps of a trajectory.

    References
    ----------
    .. [1] M. Hoffman, A. Radul, P. Sountsov, "An adaptive-MCMC scheme for setting trajectory
       lengths in Hamiltonian Monte Carlo", AISTATS 2021.
    """

    step_size: float = 1.0
    n_leapfrog: int = 1

    needs = "log_density"
    # Of the optimum 0.651 and the higher rates that irregular targets want, in between.
    target_acceptance = 0.7
    default_steps = 200
    scout = "mala"

    @property
    def alternatives(self):
        """The same with trajectories of other lengths."""
        return tuple(dataclasses.replace(self, n_leapfrog=n) for n in _LENGTHS)

    @property
    def cost(self):
        """Mean number of evaluations a step."""
        return self.n_leapfrog + 0.5

    def evaluate(self, target, x, step):
        """Log density and gradient of the target."""
        return target.evaluate

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``."""
        n_leapfrog = math.ceil(2 * self.n_leapfrog * van_der_corput(i))
        uniform = noise.log_uniform(i)
        return hmc(state, evaluate, step_size, noise.normal(i), uniform, n_leapfrog)

    def guess(self, curvature):
        """Kernel with a time step for the fastest oscillation, from where it is adapted."""
        return self.with_step_size(1 / math.sqrt(curvature))


def van_der_corput(i):
    """Number ``i`` >= 1 of a sequence that fills (0, 1) evenly: its binary digits in reverse."""
    digits = f"{i:b}"
    return int(digits[::-1], 2) / 2 ** len(digits)
