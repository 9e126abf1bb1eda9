"""The underdamped Langevin step."""

import dataclasses
import math

from skdiffusion.diffusion.langevin.kernels import Info, Kernel, State, start


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

    References
    ----------
    .. [1] B. Leimkuhler, C. Matthews, "Rational construction of stochastic numerical methods for
       molecular sampling", AMRX 2013, https://doi.org/10.1093/amrx/abs010.
    """
    half = step_size / 2
    keep = math.exp(-friction * step_size)
    velocity = state.velocity + half * state.gradient
    position = state.position + half * velocity
    velocity = keep * velocity + math.sqrt(1 - keep**2) * noise
    position = position + half * velocity
    log_density, gradient = evaluate(position)
    return State(position, log_density, gradient, velocity + half * gradient), Info()


@dataclasses.dataclass(frozen=True)
class Underdamped(Kernel):
    """Kernel of :func:`underdamped`.

    Parameters
    ----------
    step_size : float, default=1.0
        Time step.
    friction : float, default=1.0
        Friction, per unit of time.
    """

    step_size: float = 1.0
    friction: float = 1.0

    def init(self, target, x, noise, report):
        """Begin chains at ``x`` with normal velocities."""
        return start(x, self.evaluate(target, x, 1), noise.normal(1)), 1

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``."""
        return underdamped(state, evaluate, float(step_size), noise.normal(i), self.friction)

    def guess(self, curvature):
        """Kernel with a time step and friction for the fastest oscillation."""
        fastest = math.sqrt(curvature)
        return dataclasses.replace(self, step_size=0.5 / fastest, friction=fastest / 2)
