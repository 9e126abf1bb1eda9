"""The Metropolis-adjusted Langevin step."""

import dataclasses

from skdiffusion.diffusion.langevin.kernels import (
    Info,
    Kernel,
    State,
    acceptance_probability,
    where_accepted,
)

# Of a draw of the target h |g| is about sqrt(h n_features): the bound is met in far tails only.
_LONGEST_DRIFT = 2.0


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
    division. In place of ``g`` stands the truncated drift of :func:`truncated`.

    References
    ----------
    .. [1] G. Roberts, R. Tweedie, "Exponential convergence of Langevin distributions and their
       discrete approximations", Bernoulli 1996, https://doi.org/10.2307/3318418.
    """
    root = (2 * step_size) ** 0.5
    drift = truncated(state.gradient, step_size)
    proposal = state.position + (step_size * drift + root * noise)
    log_density, gradient = evaluate(proposal)
    push = (root / 2) * (drift + truncated(gradient, step_size))
    log_ratio = log_density - state.log_density - (push * (noise + 0.5 * push)).sum(-1)
    accepted = log_uniform < log_ratio
    new = where_accepted(accepted, State(proposal, log_density, gradient), state)
    return new, Info(acceptance_probability(log_ratio), accepted)


def truncated(gradient, step_size):
    """Gradient that moves a point at most twice as far as the noise does.

    Where the density falls faster than a Gaussian, ``h g`` leads from far out across the target
    and beyond: every proposal is refused and the chain never moves. With a bounded drift it walks
    home at a steady pace, and the steps stay exact, as the drift depends on the position only [1]_.

    Parameters
    ----------
    gradient : tensor of shape (n_chains, n_features)
        Gradient of the log density.
    step_size : float or tensor of shape (n_chains, 1)
        Step ``h``.

    Returns
    -------
    drift : tensor of shape (n_chains, n_features)
        ``g``, shortened where ``h |g|`` exceeds ``2 sqrt(2 h n_features)``.

    References
    ----------
    .. [1] G. Roberts, R. Tweedie, "Exponential convergence of Langevin distributions and their
       discrete approximations", Bernoulli 1996 (MALTA), https://doi.org/10.2307/3318418.
    """
    longest = 2 * _LONGEST_DRIFT**2 * gradient.shape[1] / step_size
    # The norm of torch is slow where rows are not together in memory.
    square = gradient.square().sum(1, keepdim=True)
    return gradient * (longest / square).clamp(max=1.0).sqrt()


@dataclasses.dataclass(frozen=True)
class MALA(Kernel):
    """Kernel of :func:`mala`.

    Parameters
    ----------
    step_size : float, default=1.0
        Step, in squared units of the position.
    """

    step_size: float = 1.0

    needs = "log_density"
    # The best in many dimensions, Roberts and Rosenthal 1998.
    target_acceptance = 0.574

    def evaluate(self, target, x, step):
        """Log density and gradient of the target."""
        return target.evaluate

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``."""
        return mala(state, evaluate, step_size, noise.normal(i), noise.log_uniform(i))

    def guess(self, curvature):
        """Kernel with the inverse of the curvature as its step, from where it is adapted."""
        return self.with_step_size(1 / curvature)
