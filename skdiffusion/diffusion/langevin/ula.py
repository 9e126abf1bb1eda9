"""The unadjusted Langevin step."""

import dataclasses

from skdiffusion.diffusion.langevin.kernels import Info, Kernel, State


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

    References
    ----------
    .. [1] G. Roberts, R. Tweedie, "Exponential convergence of Langevin distributions and their
       discrete approximations", Bernoulli 1996, https://doi.org/10.2307/3318418.

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


@dataclasses.dataclass(frozen=True)
class ULA(Kernel):
    """Kernel of :func:`ula`.

    Parameters
    ----------
    step_size : float, default=1.0
        Step, in squared units of the position.
    temperature : float, default=1.0
        Temperature.
    """

    step_size: float = 1.0
    temperature: float = 1.0

    @classmethod
    def suited(cls, target, x, *, temperature=1.0, **options):
        """Kernel at a temperature."""
        return cls(temperature=float(temperature))

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``."""
        return ula(state, evaluate, step_size, noise.normal(i), self.temperature)
