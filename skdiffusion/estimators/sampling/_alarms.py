"""What is wrong with a trial run, told with its cause and its remedy."""

import math

import numpy as np
import torch
from scipy.stats import chi2, norm

from skdiffusion.diffusion.target.checks import stein

# Acceptance below which a chain is stuck, and the steps that it takes to tell: with half of the
# steps accepted a healthy chain refuses fifty in a row once in 10^15 runs.
_STUCK, _FEWEST_STEPS = 0.01, 50
# Acceptance above which steps are needlessly short, where chains have not met.
_TIMID = 0.95
# Perfect chains are reported in one run of so many, whatever the number of features.
_FALSE_ALARM = 1e-4
# R-hat of single chains over the second half of the run, from which they have not forgotten its
# first half: their correlation lasts a quarter of the run.
_SLOW = 1.5
# R-hat of the draws of single trial chains in a funnel, from which its neck is not reached: 1.02 to
# 1.04 where straightening has made chains quick, 1.16 to 1.27 where draws were found to be wrong.
_SLOW_FUNNEL = 1.1
# Share by which Stein's identity may be off for other reasons than a wrong density, as the bias of
# unadjusted steps.
_STEIN_SLACK = 0.15
# Share of steps out of the support from which a wall is named.
_WALL = 0.01
# Draws that must be worth as many independent ones, and the fewest for which this is asked.
_FEWEST_EFFECTIVE, _FEWEST_DRAWS = 50, 400


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


def few_draws(effective, n_draws, n_chains):
    """Warning where the draws of a few chains hardly differ.

    Parameters
    ----------
    effective : ndarray of shape (n_features,)
        Effective number of draws.
    n_draws, n_chains : int
        All draws, and the chains that gave them.

    Returns
    -------
    warning : str or None
        What happened and what to do.
    """
    effective = np.nan_to_num(effective)
    if n_draws < _FEWEST_DRAWS or effective.min() >= _FEWEST_EFFECTIVE:
        return None
    j = int(effective.argmin())
    return (
        f"The {n_draws} draws of {n_chains} chains are worth {effective[j]:.0f} independent ones "
        f"in feature {j}: chains move too little from draw to draw, or stay in different places. "
        "Raise thin or n_chains; n_chains=None runs one chain a draw."
    )


def wrong_draws(target, trial, gradients, plan):
    """Warning where draws and gradient contradict each other: Stein's identity.

    Parameters
    ----------
    target : Target
        What was sampled.
    trial : Trial
        The run.
    gradients : tensor of shape (n_draws, n_chains, n_features)
        Gradients at the draws.
    plan : Plan
        What was run.

    Returns
    -------
    warning : str or None
        What is wrong.
    """
    if target.stochastic or target.has_noisy_score:
        return None
    terms = stein(trial.draws, gradients)
    mean, error = terms.mean(0), terms.std(0) / math.sqrt(len(terms))
    limit = norm.isf(_FALSE_ALARM / len(mean) / 2)
    excess = (mean - 1).abs() - _STEIN_SLACK - limit * error
    worst = int(excess.argmax())
    if not excess[worst] > 0:
        return None
    wall = _wall(target, trial.draws[-1])
    if wall:
        return wall
    name = f"feature {worst}" if worst < len(mean) - 1 else "all features together"
    text = (
        f"Draws are not from the density whose gradient the target gives: by Stein's identity the "
        f"mean of -x g is 1, but in {name} it is {float(mean[worst]):.2f}. "
    )
    if plan.kernel.target_acceptance is None and mean[worst] > 1:
        cause = "Steps without a Metropolis test widen the density: lower step_size, or use 'mala'."
        return text + cause
    return text + (
        "Either chains have not reached the target, and need more steps (n_steps) or another "
        "method, or the density jumps, so that its gradient does not tell all: make it continuous, "
        "or use variables (bounds) in which it is."
    )


def _wall(target, last):
    """Warning where the density ends abruptly among the draws."""
    normal = torch.randn(last.shape, generator=torch.Generator().manual_seed(0)).to(last)
    with torch.no_grad():
        value, gradient = target.evaluate(last + 0.5 * last.std(0) * normal)
    bad = ~torch.isfinite(gradient).all(1)
    bad = bad | ~torch.isfinite(value) if value is not None else bad
    share = float(bad.double().mean())
    if share <= _WALL:
        return None
    return (
        f"The density ends at a wall: {share:.0%} of the places around the draws are where it is "
        "not finite. Chains are slow along it, and whether their draws are right cannot be told "
        "from the gradient, which does not see the wall. Give bounds, or look for the logarithm or "
        "root of a negative number."
    )


def disagreement(found, target, plan, n_each, n_groups):
    """Warning where the starts of the chains still show.

    Parameters
    ----------
    found : Diagnosis
        Comparison of the chains.
    target : Target
        What was sampled.
    plan : Plan
        What was run.
    n_each, n_groups : int
        Chains a superchain, and superchains.

    Returns
    -------
    warning : str or None
        What happened and what to do.
    """
    d = len(found.nested_rhat)
    both = np.append(found.nested_rhat, found.energy_nested_rhat)
    worst = int(np.nanargmax(both)) if np.isfinite(both).any() else 0
    name = f"feature {worst}" if worst < d else "the energy"
    free = n_groups - 1
    limit = math.sqrt(1 + chi2.isf(_FALSE_ALARM / (d + 1), free) / (free * n_each))
    if both[worst] < limit:
        return None
    return (
        f"Chains from two kinds of start disagree after {plan.n_steps} steps: nested R-hat "
        f"of {name} is {both[worst]:.2f}, above {limit:.2f}, below which chains that "
        f"agree stay. They have not reached all modes or tails; {_advice(found, plan, target)}"
    )


def slow_chains(found, plan, target):
    """Warning where single chains stay in their parts of the target.

    Parameters
    ----------
    found : Diagnosis
        Comparison of the chains.
    plan : Plan
        What was run.
    target : Target
        What was sampled.

    Returns
    -------
    warning : str or None
        What happened and what to do.
    """
    if not np.nanmax(np.append(found.slowness, 0.0)) > _SLOW:
        return None
    worst = int(np.nanargmax(found.slowness))
    return (
        f"Chains do not mix within {plan.n_steps} steps: R-hat of single chains in feature {worst} "
        f"is {found.slowness[worst]:.3g} over the second half of them. Each stays in its own part "
        "of the target, and the shares of the parts are those of the starts; "
        f"{_advice(found, plan, target)}"
    )


def slow_funnel(found, stretch):
    """Warning where chains are slow although a funnel was straightened.

    Parameters
    ----------
    found : Diagnosis
        Comparison of the chains.
    stretch : NonCentred or None
        Map that straightens the funnel, if there is one.

    Returns
    -------
    warning : str or None
        What happened and what to do.
    """
    if stretch is None or not np.nanmax(np.append(found.rhat, 0.0)) > _SLOW_FUNNEL:
        return None
    members, heads = (np.flatnonzero(stretch.log_scale.any(axis)).tolist() for axis in (1, 0))
    worst = int(np.nanargmax(found.rhat))
    return (
        f"The scale of features {members} follows features {heads} (a funnel, as in a hierarchical "
        f"model), and chains are slow there: R-hat of single chains in feature {worst} is "
        f"{found.rhat[worst]:.2f}. Draws from the narrow end may be missing. Write the model in "
        "its non-centred form: in place of a ~ N(mu, tau) sample z ~ N(0, 1), with "
        "a = mu + tau * z inside of target."
    )


def _advice(found, plan, target):
    """What to do about chains that do not meet."""
    if target.has_noisy_score:
        return "use method='annealed'."
    if found.acceptance_rate > _TIMID and plan.kernel.target_acceptance is not None:
        return (
            f"raise step_size (now {plan.kernel.step_size}), as hardly a step is refused, or raise "
            "n_steps."
        )
    if plan.kernel.n_replicas > 1:
        return "raise n_steps, or start wider (init)."
    if target.has_log_density:
        return "use method='tempered', or raise n_steps."
    return "raise n_steps, or give the log density and use method='tempered'."
