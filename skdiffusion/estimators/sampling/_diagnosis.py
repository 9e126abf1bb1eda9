"""Whether chains from several kinds of start agree, and what to do where they do not."""

import dataclasses

import numpy as np
import torch

from skdiffusion.diffusion.langevin.chains import Divergence
from skdiffusion.estimators.sampling._alarms import (
    disagreement,
    few_draws,
    slow_chains,
    slow_funnel,
    stuck_chains,
    wrong_draws,
)
from skdiffusion.estimators.sampling._coordinates import evaluated
from skdiffusion.estimators.sampling._faults import (
    imprecise_values,
    noise_of_values,
    unusable_target,
)
from skdiffusion.estimators.sampling._trial import trial_run
from skdiffusion.metrics import effective_sample_size, nested_r_hat, r_hat

# Draws of a chain from which its effective number can be told.
_FEWEST_TO_COUNT = 4
# Part of the steps before the first draw, by which draws may be later and still tell of it.
_SHORT = 10


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What trial chains say; NaN where nothing was compared."""

    acceptance_rate: float
    rhat: np.ndarray
    nested_rhat: np.ndarray
    energy_nested_rhat: float
    ess: np.ndarray
    ess_tail: np.ndarray
    slowness: np.ndarray
    ladder: dict = dataclasses.field(default_factory=dict)
    warnings: tuple = ()
    noise: float = 0.0

    @classmethod
    def empty(cls, n_features, acceptance_rate=np.nan):
        """Nothing compared."""
        nothing = [np.full(n_features, np.nan) for _ in range(5)]
        return cls(acceptance_rate, *nothing[:2], np.nan, *nothing[2:])

    def report(self):
        """What has no attribute of its own."""
        return {
            "rhat_second_half": self.slowness,
            **self.ladder,
            "log_density_noise": self.noise,
            "warnings": list(self.warnings),
        }


def first_sound(candidates, starts, X, seed, device):
    """First candidate without warnings, or else the last one, and its diagnosis.

    Parameters
    ----------
    candidates : iterable of Candidate
        What may be run.
    starts, X, seed, device : object
        As :func:`diagnose`.
    """
    for candidate in candidates:
        diagnosis = diagnose(candidate.coordinates, candidate.plan, starts, X, seed, device)
        if not diagnosis.warnings:
            break
    # Another method would not help against rounding: it has no say in the choice.
    imprecise = imprecise_values(diagnosis.noise)
    warnings = diagnosis.warnings + ((imprecise,) if imprecise else ())
    return candidate, dataclasses.replace(diagnosis, warnings=warnings)


def diagnose(coordinates, plan, starts, X, seed, device):
    """Run chains from several kinds of start and see whether they agree.

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
    target, trial = trial_run(coordinates, plan, starts, X, seed, device)
    mean_rate = np.nan if trial.rate is None else float(trial.rate.mean())
    if plan.kernel.forgets_start:
        return Diagnosis.empty(coordinates.n_features, mean_rate)
    energies, gradients = _values(target, trial.draws)
    # Later draws have had many more steps than those that are asked for.
    n_first = max(1, min(len(trial.draws), plan.n_steps // (_SHORT * plan.thin)))
    found = _compare(coordinates, trial, energies, mean_rate, n_first)
    n_groups = 1 + int(trial.superchains[-1])
    axes = torch.as_tensor(np.linalg.inv(coordinates.factor).T.copy()).to(trial.near)
    noise = noise_of_values(target, trial.draws[-1])
    warnings = [
        *unusable_target(target, trial, axes, noise),
        stuck_chains(trial.rate, coordinates.inverse(trial.draws[-1]), plan),
        disagreement(found, target, plan, trial.draws.shape[1] // n_groups, n_groups),
        slow_chains(found, plan, target),
        slow_funnel(found, coordinates.stretch),
    ]
    if not any(warnings):
        # Where chains are known to be elsewhere, it would say the same less clearly.
        first = dataclasses.replace(trial, draws=trial.draws[:n_first])
        warnings = [wrong_draws(target, first, gradients[:n_first], plan)]
    return dataclasses.replace(found, warnings=tuple(w for w in warnings if w), noise=noise)


def _compare(coordinates, trial, energies, acceptance_rate, n_first):
    """Diagnostics of trial chains."""
    x = coordinates.inverse(trial.draws.transpose(0, 1))
    n, n_draws, d = x.shape
    groups = trial.superchains
    energy = np.nan if energies is None else nested_r_hat(energies[:, :n_first], groups)
    ess, tail = (effective_sample_size(x, k) * 1000 / (n * n_draws) for k in ("bulk", "tail"))
    both = r_hat(x), nested_r_hat(x[:, :n_first], groups)
    later = trial.path[len(trial.path) // 2 :].transpose(0, 1)
    enough = later.shape[1] >= 2 * _FEWEST_TO_COUNT
    slowness = r_hat(coordinates.inverse(later)) if enough else np.full(d, np.nan)
    return Diagnosis(acceptance_rate, *both, energy, ess, tail, slowness, _ladder(trial))


def _ladder(trial):
    """What swaps say, where there are any."""
    swaps = trial.swaps
    if swaps.n_temperatures == 1:
        return {}
    return {
        "round_trips": swaps.round_trips / trial.draws.shape[1],
        "swap_rejections": swaps.rejections.cpu().numpy(),
        "barrier": swaps.barrier,
    }


def _values(target, draws):
    """Energies, where they are known, and gradients at draws; refuses draws outside the support."""
    values, gradients = evaluated(target, draws.flatten(0, 1))
    gradients = gradients.reshape(draws.shape)
    if values is None:
        return None, gradients
    energies = -values.reshape(draws.shape[:-1]).T.cpu().numpy()
    outside = ~np.isfinite(energies)
    if outside.any():
        raise Divergence(
            f"trial run in fit: {outside.mean():.2%} of the draws lie where the log density of the "
            "target is not finite: unadjusted steps walk across the border of the support. Give "
            "bounds, or use method='mala'."
        )
    return energies, gradients


def doubtful_run(rates, draws, plan):
    """Warnings about a run of ``sample``.

    Parameters
    ----------
    rates : ndarray of shape (n_chains,) or None
        Mean acceptance of each chain.
    draws : ndarray of shape (n_draws, n_chains, n_features)
        What it returned, in the user's coordinates.
    plan : Plan
        What was run.

    Returns
    -------
    warnings : list of str
        What is wrong with it.
    """
    n_draws, n_chains, _ = draws.shape
    found = [stuck_chains(rates, draws[-1], plan)]
    if n_draws >= _FEWEST_TO_COUNT and n_draws * n_chains >= 400:
        effective = effective_sample_size(draws.transpose(1, 0, 2))
        found.append(few_draws(effective, n_draws * n_chains, n_chains))
    return [text for text in found if text]
