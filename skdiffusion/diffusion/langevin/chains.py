"""Running chains: the only loop over the kernels of :mod:`skdiffusion.diffusion.langevin`.

A :class:`Plan` says what to run and :func:`run` runs it for a block of chains. The noise comes
from outside as an object with ``normal(step)`` of shape (n_chains, n_features) and
``log_uniform(step, stream)`` of shape (n_chains,), so that a chain is the same in every block. A
chain is as many rows of noise as its kernel has replicas, the first replica of all chains first.
"""

import dataclasses

import torch

from skdiffusion.diffusion.langevin.gradients import chains_last
from skdiffusion.diffusion.langevin.kernels import Kernel, outside_as_minus_infinity


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run; every length is in the coordinates of the target.

    Parameters
    ----------
    kernel : Kernel
        What moves the chains.
    n_steps : int
        Steps before the first draw, after the way to the target where the kernel has one.
    thin : int
        Steps from draw to draw.
    """

    kernel: Kernel
    n_steps: int
    thin: int = 1

    def total_steps(self, n_draws):
        """Levels and steps that lead to a number of draws."""
        n_levels = max(len(self.kernel.noise_levels) - 1, 0)
        return n_levels + self.n_steps + (n_draws - 1) * self.thin


class Divergence(FloatingPointError):
    """Chains left the numbers; the message says which, when and what to change."""


def run(target, plan, x, noise, n_draws=1, record=None, progress=None):
    """Run a block of chains.

    Parameters
    ----------
    target : skdiffusion.diffusion.target.Target
        What to sample.
    plan : Plan
        What to run.
    x : tensor of shape (n_chains, n_features)
        Starting points.
    noise : object
        Noise of the chains.
    n_draws : int, default=1
        Draws a chain, ``plan.thin`` steps apart.
    record : callable, optional
        ``record(step, x, info)`` is called with the start, where ``info`` is None, and after every
        step.
    progress : callable, optional
        ``progress(1)`` is called after every step.

    Returns
    -------
    draws : tensor of shape (n_draws, n_chains, n_features)
        Positions.
    acceptance : tensor of shape (n_chains,) or None
        Mean probability of acceptance of each chain.

    Raises
    ------
    Divergence
        If a position is not finite, if the target is finite at no start, or if a chain that
        started where it is not has found no point where it is.
    """
    with torch.no_grad():
        chains = Chains(target, plan.kernel, x, noise, record, progress)
        chains.prepare()
        chains.advance(plan.n_steps)
        draws = [chains.position()]
        for _ in range(n_draws - 1):
            chains.advance(plan.thin)
            draws.append(chains.position())
        chains.check_end()
        return torch.stack(draws), chains.mean_acceptance()


class Chains:
    """A block of chains in motion."""

    def __init__(self, target, kernel, x, noise, record=None, progress=None):
        self.target, self.kernel, self.noise, self.n_chains = target, kernel, noise, len(x)
        self.record = record if record is not None else lambda step, x, info: None
        self.progress = progress if progress is not None else lambda n: None
        self.steps, self.x, self.state, self.evaluate = 0, chains_last(x), None, None
        self.acceptance, self.n_tested, self.evaluations = 0.0, 0, 0.0
        levels = torch.as_tensor(kernel.step_size, dtype=x.dtype, device=x.device).reshape(-1, 1)
        self.step_size = levels.repeat_interleave(self.n_chains, 0)
        # A float is quicker than a column where every chain has the same step.
        if isinstance(kernel.step_size, float):
            self.step_size = torch.tensor(kernel.step_size, dtype=x.dtype, device=x.device)

    def prepare(self):
        """Bring the chains to where their steps begin, and evaluate the target there."""
        self.record(0, self.x, None)
        self.state, self.steps = self.kernel.init(self.target, self.x, self.noise, self._passed)
        self.evaluate = self.kernel.evaluate(self.target, self.x, self.steps)
        self._check_start()

    def advance(self, n_steps):
        """Take steps."""
        for _ in range(n_steps):
            self.step()

    def step(self):
        """Take one step of all chains."""
        self.steps += 1
        if self.target.stochastic:
            self.evaluate = self.kernel.evaluate(self.target, self.x, self.steps)
        self.state, info = self.kernel.step(
            self.state, self.evaluate, self.step_size, self.noise, self.steps
        )
        self._check(self.state.position, "")
        if info.acceptance is not None:
            self.acceptance = self.acceptance + info.acceptance[: self.n_chains]
            self.n_tested += 1
        self.evaluations += self.kernel.cost if info.evaluations is None else info.evaluations
        self.record(self.steps, self.position(), info)
        self.progress(1)
        return info

    def position(self):
        """Positions of the chains, of the coldest ones under tempering."""
        return self.state.position[: self.n_chains]

    def mean_acceptance(self):
        """Mean acceptance of each chain so far."""
        return self.acceptance / self.n_tested if self.n_tested else None

    def _passed(self, step, x, noise_level):
        """Note what the chains pass before their steps begin."""
        self.steps = step
        self._check(x, f" at noise level {noise_level:.4g}")
        self.record(step, x, None)
        self.progress(1)

    def check_end(self):
        """Refuse to return chains that never found the support."""
        log_density = self.state.log_density
        outside = 0 if log_density is None else int(log_density[: self.n_chains].isneginf().sum())
        if outside:
            raise Divergence(
                f"{outside} of {self.n_chains} chains started where the target is not finite and "
                f"found no other place in {self.steps} steps: give bounds, or an init inside."
            )

    def _check_start(self):
        """Refuse starting points without a density, unless steps can lead out of there."""
        values = self.state.gradient.sum(1)
        if self.state.log_density is not None:
            values = values + self.state.log_density
        bad = ~torch.isfinite(values)
        if bad.all():
            raise Divergence(
                f"log density or gradient of the target is not finite at the start of all "
                f"{self.n_chains} chains: is target right? Look for the logarithm or root of "
                "a negative number, and for 0 / 0; if it is right, give bounds or another init."
            )
        if not bad.any():
            return
        if self.kernel.target_acceptance is not None:
            self.state = outside_as_minus_infinity(self.state)
            return
        chain = int(bad.nonzero()[0]) % self.n_chains
        raise Divergence(
            f"log density or gradient of the target is not finite at the start of "
            f"{int(bad.sum())} of {len(bad)} chains, first in chain {chain}, at "
            f"{self.state.position[chain].tolist()}: give bounds or another init, or use "
            "method='mala', whose chains can walk in."
        )

    def _check(self, x, where):
        """Refuse positions that are not finite; one sum is the cheap first look."""
        if torch.isfinite(x.sum()):
            return
        bad = ~torch.isfinite(x).all(1)
        if bad.any():
            raise Divergence(
                f"{int(bad.sum())} of {len(bad)} chains are not finite at step {self.steps}"
                f"{where}, first chain {int(bad.nonzero()[0]) % self.n_chains}: lower step_size "
                f"(now {self.kernel.step_size}), or use a Metropolis method (method='mala'); a "
                "target of the wrong sign, too, drives chains out."
            )
