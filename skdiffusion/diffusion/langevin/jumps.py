"""Jumps between the hills of a density, whatever its kernel."""

import dataclasses
from typing import Any

import torch

from skdiffusion.diffusion.langevin.kernels import Info, State, where_accepted

# Every how many steps chains try to jump: a jump costs one evaluation, a trajectory several.
_EVERY = 5


def jump(state, evaluate, hills, noise, log_uniform, log_uniform_hill):
    """Propose a point of another hill, or of the same, and accept it or refuse it.

    Parameters
    ----------
    state : State
        State of the chains.
    evaluate : callable
        ``evaluate(x) -> (log_density, gradient)`` of the target.
    hills : Hills
        Gaussians from which proposals are drawn.
    noise : tensor of shape (n_chains, n_features)
        Standard normals.
    log_uniform, log_uniform_hill : tensor of shape (n_chains,)
        Logarithms of uniforms, for the decision and for the hill.

    Returns
    -------
    state : State
        New state.
    accepted : bool tensor of shape (n_chains,)
        Which chains jumped.

    Notes
    -----
    The Metropolis test of an independence proposal ``q`` compares ``p / q`` at both ends [1]_:
    masses of hills need not be known, a wrong guess only costs refused jumps.

    References
    ----------
    .. [1] L. Tierney, "Markov chains for exploring posterior distributions", Annals of Statistics
       1994, https://doi.org/10.1214/aos/1176325750.
    """
    position = hills.draw(log_uniform_hill.exp(), noise)
    new = State(position, *evaluate(position))
    worth = new.log_density - hills.log_density(position)
    log_ratio = worth - (state.log_density - hills.log_density(state.position))
    accepted = (log_uniform < log_ratio) & torch.isfinite(new.gradient).all(1)
    return where_accepted(accepted, new, state), accepted


@dataclasses.dataclass(frozen=True)
class Jumping:
    """A kernel that lets its chains jump between hills now and then, and is itself otherwise.

    Parameters
    ----------
    inner : Kernel
        Kernel of a log density.
    hills : Hills
        Where to.
    """

    inner: Any
    hills: Any

    def __getattr__(self, name):
        """Whatever else is asked of a kernel."""
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def evaluate(self, target, x, step):
        """What the kernel evaluates, the target itself, and the hills as the chains have them."""
        return self.inner.evaluate(target, x, step), target.evaluate, self.hills.like(x)

    def step(self, state, evaluate, step_size, noise, i):
        """Take step ``i``."""
        of_kernel, of_target, hills = evaluate
        if i % _EVERY:
            return self.inner.step(state, of_kernel, step_size, noise, i)
        # Only the coldest replicas, which come first, are chains of the target.
        n_chains = len(state.position) // self.inner.n_replicas
        cold = State(*(part[:n_chains] for part in state[:3]))
        normal, uniforms = noise.normal(i), (noise.log_uniform(i), noise.log_uniform(i, 2))
        given = [part[:n_chains] for part in (normal, *uniforms)]
        cold, _ = jump(cold, of_target, hills, *given)
        rows = [torch.cat([new, old[n_chains:]]) for new, old in zip(cold[:3], state, strict=False)]
        return State(*rows), Info(evaluations=1.0 / self.inner.n_replicas)
