"""Whether chains from two kinds of start agree, and what to do where they do not."""

import dataclasses
import math

import numpy as np
import torch
from scipy.stats import chi2

from skdiffusion._random import chain_keys, torch_generator
from skdiffusion.diffusion.langevin.chains import Divergence, run
from skdiffusion.diffusion.target.targets import MixtureTarget
from skdiffusion.estimators.sampling._coordinates import finite, log_densities
from skdiffusion.estimators.sampling._plan import N_PILOT
from skdiffusion.estimators.sampling._running import chain_noise
from skdiffusion.metrics import effective_sample_size, nested_r_hat, r_hat

# Fewer steps lead no chain away from where it starts.
_FEW_STEPS = 20
# Draws of each trial chain.
_N_TRACE = 50
# Spread of the trial chains, in spreads of their start, from which a runaway is looked for.
_WIDE = 50
# Spread of the far starts, in spreads of the others: the largest at which the target is finite.
_FAR = (2, 3, 5)
# Acceptance below which a chain is stuck, and the steps that it takes to tell: with half of the
# steps accepted a healthy chain refuses fifty in a row once in 10^15 runs.
_STUCK, _FEWEST_STEPS = 0.01, 50
# Perfect chains are reported in one run of so many, whatever the number of features.
_FALSE_ALARM = 1e-4


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What trial chains say; NaN where nothing was compared."""

    acceptance_rate: float
    rhat: np.ndarray
    nested_rhat: np.ndarray
    energy_nested_rhat: float
    ess: np.ndarray
    ess_tail: np.ndarray
    warnings: tuple = ()

    @classmethod
    def empty(cls, n_features, acceptance_rate=np.nan):
        """Nothing compared."""
        nothing = [np.full(n_features, np.nan) for _ in range(4)]
        return cls(acceptance_rate, *nothing[:2], np.nan, *nothing[2:])


def diagnose(coordinates, plan, starts, X, seed, device):
    """Run chains from two kinds of start and see whether they agree.

    Parameters
    ----------
    coordinates : ChainCoordinates
        Where they run and what they sample.
    plan : Plan
        What to run.
    starts : Starts
        Where chains start.
    X : ndarray of shape (n_samples, n_features) or None
        Rows where the density has mass.
    seed : int
        Seed of the run.
    device : torch.device
        Where to compute.

    Returns
    -------
    diagnosis : Diagnosis
        Comparison of the chains, and warnings for the user.
    """
    if plan.kernel.temperature != 1:
        # Nothing is known to compare with.
        return Diagnosis.empty(coordinates.n_features)
    target = coordinates.target(torch.float64, device)
    # A chain of many replicas is dear, and needs fewer like it: single chains cross less often.
    half = N_PILOT // 2 if plan.kernel.n_replicas > 1 else N_PILOT
    points = starts.draw(coordinates, half, seed)
    near = coordinates.forward(points, torch.float64, device)
    far = _far_starts(coordinates, target, near, X, seed)
    noise = chain_noise(chain_keys(seed, 0, 2 * half, device), plan.kernel, target, near.dtype)
    try:
        draws, rate = run(target, plan, torch.cat([near, far]), noise, n_draws=_N_TRACE)
    except Divergence as error:
        raise Divergence(f"trial run in fit: {error}") from None
    mean_rate = np.nan if rate is None else float(rate.mean())
    if plan.kernel.forgets_start:
        return Diagnosis.empty(coordinates.n_features, mean_rate)
    x, groups = coordinates.inverse(draws.transpose(0, 1)), np.arange(2 * half) // (half // 2)
    found = _compare(x, _energies(target, draws.transpose(0, 1)), groups, mean_rate)
    warnings = (
        _runaway(target, near, draws[-1]),
        stuck_chains(rate, x[:, -1], plan),
        _disagreement(found, target, plan, half // 2),
        _one_start(points, plan),
    )
    return dataclasses.replace(found, warnings=tuple(w for w in warnings if w))


def _one_start(points, plan):
    """Say so where all chains start at one place and have few steps to leave it."""
    if plan.n_steps >= _FEW_STEPS or len(np.unique(points, axis=0)) > 1:
        return None
    return (
        f"All chains start at one point of init and take n_steps={plan.n_steps}: draws stay near "
        "it, wherever the density is. Raise n_steps, or give starts that are spread out."
    )


def _far_starts(coordinates, target, near, X, seed):
    """Exact draws, rows of X, or points spread five times as wide as the others."""
    if isinstance(target, MixtureTarget):
        return target.draw(len(near), torch_generator(seed, near.device))
    if X is not None:
        rows = np.random.default_rng(seed).integers(len(X), size=len(near))
        return coordinates.forward(X[rows], near.dtype, near.device)
    centre = near.mean(0)
    far = near.clone()
    for factor in _FAR:
        wider = centre + factor * (near - centre)
        inside = finite(target, wider)[:, None]
        far = torch.where(inside, wider, far)
    return far


def _compare(x, energies, superchains, acceptance_rate):
    """Diagnostics of trial chains of shape (n_chains, n_draws, n_features)."""
    n, n_draws, _ = x.shape
    energy = np.nan if energies is None else nested_r_hat(energies, superchains)
    ess, tail = (effective_sample_size(x, k) * 1000 / (n * n_draws) for k in ("bulk", "tail"))
    both = r_hat(x), nested_r_hat(x, superchains)
    return Diagnosis(acceptance_rate, *both, energy, ess, tail)


def _energies(target, draws):
    """Minus the log densities of draws, where they are known."""
    if not target.has_log_density:
        return None
    values = -log_densities(target, draws.reshape(-1, draws.shape[-1]))
    _refuse_outside(values)
    return values.reshape(draws.shape[:-1])


def _refuse_outside(energies):
    """Refuse draws outside the support, where only steps that nobody tests can lead."""
    outside = ~np.isfinite(energies)
    if outside.any():
        raise Divergence(
            f"trial run in fit: {outside.mean():.2%} of the draws lie where the log density of the "
            "target is not finite: unadjusted steps walk across the border of the support. Give "
            "bounds, or use method='mala'."
        )


def stuck_chains(rate, x, plan):
    """Warning where chains refuse nearly every step.

    Parameters
    ----------
    rate : array-like of shape (n_chains,) or None
        Mean acceptance of each chain; None where no step is refused.
    x : ndarray of shape (n_chains, n_features)
        Where the chains are, in the user's coordinates.
    plan : Plan
        What was run.

    Returns
    -------
    warning : str or None
        What happened and what to do.
    """
    if rate is None or plan.n_steps < _FEWEST_STEPS:
        return None
    stuck = np.flatnonzero(np.asarray(rate) < _STUCK)
    if not len(stuck):
        return None
    where = np.array2string(x[stuck[0]][:5], precision=3)
    return (
        f"{len(stuck)} of {len(rate)} chains took fewer than one step in a hundred, the first of "
        f"them at {where}: steps from there are refused, and what these chains return is "
        "near their start. Start nearer to the mass of the target (init), or lower step_size."
    )


def _runaway(target, near, last):
    """Warning where chains are far wider than their start and nothing holds them back.

    A density that can be normalised has ``E[-(x_j - c) g_j] = 1`` for every feature, whatever
    ``c`` and its width; where the gradient vanishes or points outwards it is 0 or less.
    """
    start, spread = ((x - x.median(0).values).abs().median(0).values for x in (near, last))
    wide = (start > 0) & (spread > _WIDE * start)
    if not wide.any():
        return None
    with torch.no_grad():
        pull = -(last - last.median(0).values) * target.gradient(last)
    # Four standard errors above the mean, and still far from 1.
    most = pull.mean(0) + 4 * pull.std(0) / math.sqrt(len(last))
    loose = (wide & (most < 0.1)).nonzero()
    if not len(loose):
        return None
    worst = int(loose[0])
    return (
        f"Chains run away from their start: in feature {worst} the trial run ends "
        f"{float(spread[worst] / start[worst]):.2g} times as wide as it began, and the "
        "gradient does not lead back. Does target return the *log* density (not the "
        "density), with the right sign, and is it normalisable?"
    )


def _disagreement(found, target, plan, n_each):
    """Warning where the starts of the chains still show."""
    d = len(found.nested_rhat)
    both = np.append(found.nested_rhat, found.energy_nested_rhat)
    worst = int(np.nanargmax(both)) if np.isfinite(both).any() else 0
    name = f"feature {worst}" if worst < d else "the energy"
    limit = math.sqrt(1 + chi2.isf(_FALSE_ALARM / (d + 1), 3) / (3 * n_each))
    if both[worst] < limit:
        return None
    return (
        f"Chains from two kinds of start disagree after {plan.n_steps} steps: nested R-hat "
        f"of {name} is {both[worst]:.2f}, above {limit:.2f}, below which chains that "
        "agree stay. They have not reached all modes or tails; "
        f"{_advice(plan.kernel, target)}"
    )


def _advice(kernel, target):
    """What to do about chains that do not meet."""
    if target.has_noisy_score:
        return "use method='annealed'."
    if kernel.n_replicas > 1:
        return "raise n_steps, or start wider (init)."
    if target.has_log_density:
        return "use method='tempered', or raise n_steps."
    return "raise n_steps, or give the log density and use method='tempered'."
