"""Running chains: the only loop over the kernels of :mod:`skdiffusion.diffusion.langevin`.

A :class:`Plan` says what to run, :func:`run` runs it for a block of chains and :func:`tune` finds
the step size that gives the acceptance wanted. The noise comes from outside as an object with
``normal(step)`` of shape (n_chains, n_features) and ``log_uniform(step, stream)`` of shape
(n_chains,), so that a chain is the same in every block. Under parallel tempering a chain is as
many rows of noise as there are temperatures, the coldest temperature of all chains first.
"""

import dataclasses

import torch

from skdiffusion.diffusion.langevin.annealing import anneal
from skdiffusion.diffusion.langevin.kernels import mala, start, ula, underdamped
from skdiffusion.diffusion.langevin.tempering import Bridge, tempered


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run; every length is in the coordinates of the target.

    Parameters
    ----------
    method : {"ula", "mala", "underdamped", "annealed", "tempered"}
        Kernel.
    n_steps : int
        Steps before the first draw; for "annealed" those after the ladder.
    thin : int
        Steps from draw to draw.
    step_size : float or tuple of float
        Step; under tempering one a temperature.
    noise_levels : tuple of float
        Ladder of "annealed".
    steps_per_level : int
        Langevin steps on each level of the ladder.
    scale : float
        Local scale of the density, for the steps on the ladder.
    friction : float
        Friction of "underdamped".
    temperature : float
        Temperature of "ula".
    inverse_temperatures : tuple of float
        Temperatures of "tempered", the first one 1.
    radius : float
        Standard deviation of the reference of "tempered".
    """

    method: str
    n_steps: int
    thin: int = 1
    step_size: float | tuple = 1.0
    noise_levels: tuple = ()
    steps_per_level: int = 1
    scale: float = 1.0
    friction: float = 1.0
    temperature: float = 1.0
    inverse_temperatures: tuple = (1.0,)
    radius: float = 1.0

    @property
    def n_replicas(self):
        """Rows of noise a chain needs."""
        return len(self.inverse_temperatures) if self.method == "tempered" else 1


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
        ``record(step, x, acceptance)`` is called with the start and after every step.
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
        If a position is not finite.
    """
    with torch.no_grad():
        chains = Chains(target, plan, x, noise, record, progress)
        chains.prepare()
        chains.advance(plan.n_steps)
        draws = [chains.position()]
        for _ in range(n_draws - 1):
            chains.advance(plan.thin)
            draws.append(chains.position())
        return torch.stack(draws), chains.mean_acceptance()


class Chains:
    """A block of chains in motion."""

    def __init__(self, target, plan, x, noise, record=None, progress=None):
        self.target, self.plan, self.noise, self.n_chains = target, plan, noise, len(x)
        self.record = record if record is not None else lambda step, x, acceptance: None
        self.progress = progress if progress is not None else lambda n: None
        self.steps, self.x, self.state = 0, x, None
        self.acceptance, self.n_tested = 0.0, 0
        levels = torch.as_tensor(plan.step_size, dtype=x.dtype, device=x.device).reshape(-1, 1)
        self.step_size = levels.repeat_interleave(self.n_chains, 0)
        # A float is quicker than a column where every chain has the same step.
        if isinstance(plan.step_size, float):
            self.step_size = torch.tensor(plan.step_size, dtype=x.dtype, device=x.device)
        self.kernel = self._kernel()

    def prepare(self):
        """Go down the ladder, if there is one, and evaluate the target at the start."""
        self.record(0, self.x, None)
        x = self.x
        if self.plan.method == "annealed":
            x = self._descend(x)
        velocity = self._normal() if self.plan.method == "underdamped" else None
        x = x.repeat(self.plan.n_replicas, 1)
        self.state = start(x, self.evaluate(), velocity)
        self._check_start()

    def advance(self, n_steps):
        """Take steps."""
        for _ in range(n_steps):
            self.step()

    def step(self):
        """Take one step of all chains."""
        self.state, info = self.kernel(self.state)
        self._check(self.state.position, "")
        if info.acceptance is not None:
            self.acceptance = self.acceptance + info.acceptance[: self.n_chains]
            self.n_tested += 1
        self.record(self.steps, self.position(), info.acceptance)
        self.progress(1)
        return info

    def position(self):
        """Positions of the chains, of the coldest ones under tempering."""
        return self.state.position[: self.n_chains]

    def mean_acceptance(self):
        """Mean acceptance of each chain so far."""
        return self.acceptance / self.n_tested if self.n_tested else None

    def evaluate(self):
        """What the kernel calls for values and gradients."""
        if self.plan.method == "tempered":
            beta = torch.tensor(self.plan.inverse_temperatures).to(self.x)
            return Bridge(self.target.evaluate, beta, self.plan.radius)
        if self.metropolis:
            return self.target.evaluate
        return self.target.at_step(self.steps)

    @property
    def metropolis(self):
        """Whether steps are accepted or refused."""
        return self.plan.method in ("mala", "tempered") or (
            self.plan.method == "annealed" and self.target.has_log_density
        )

    def _kernel(self):
        """One step as a function of the state only."""
        plan, evaluate = self.plan, self.evaluate()
        fixed = (lambda: evaluate) if not self.target.stochastic else self.evaluate

        def move(state):
            eps = self._normal()
            if plan.method == "underdamped":
                step_size = float(self.step_size)
                return underdamped(state, fixed(), step_size, eps, plan.friction)
            if not self.metropolis:
                return ula(state, fixed(), self.step_size, eps, plan.temperature)
            uniform = self.noise.log_uniform(self.steps)
            if plan.method == "tempered":
                swap = self.noise.log_uniform(self.steps, 2)
                return tempered(state, evaluate, self.step_size, eps, uniform, swap, self.steps)
            return mala(state, evaluate, self.step_size, eps, uniform)

        return move

    def _descend(self, x):
        """Add noise of the first level and walk down the ladder."""
        levels = self.plan.noise_levels
        # The start's denoised self is near the mean of the target, around which noise belongs.
        z = x + levels[0] ** 2 * self.target.score(x, levels[0]) + levels[0] * self._normal()
        offset = self.steps

        def noise(i):
            self.steps = offset + i + 1
            return self.noise.normal(self.steps)

        def record(i, s, z):
            self._check(z, f" at noise level {s:.4g}")
            self.record(self.steps, z, None)
            self.progress(1)

        return anneal(
            self.target.score,
            z,
            levels,
            noise,
            scale=self.plan.scale,
            steps_per_level=self.plan.steps_per_level,
            record=record,
        )

    def _normal(self):
        """Noise of the next step."""
        self.steps += 1
        return self.noise.normal(self.steps)

    def _check_start(self):
        """Refuse starting points without a density."""
        values = self.state.gradient.sum(1)
        if self.state.log_density is not None:
            values = values + self.state.log_density
        bad = ~torch.isfinite(values)
        if bad.any():
            if bad.all():
                raise Divergence(
                    f"log density or gradient of the target is not finite at the start of all "
                    f"{self.n_chains} chains: is target right? Look for the logarithm or root of "
                    "a negative number, and for 0 / 0; if it is right, choose another init."
                )
            chain = int(bad.nonzero()[0]) % self.n_chains
            raise Divergence(
                f"log density or gradient of the target is not finite at the start of "
                f"{int(bad.sum())} of {len(bad)} chains, first in chain {chain}, at "
                f"{self.state.position[chain].tolist()}: choose another init."
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
                f"(now {self.plan.step_size}), or use a Metropolis method (method='mala'); a "
                "target of the wrong sign, too, drives chains out."
            )
