"""What is wrong with a trial run, told with its cause and its remedy."""

import math

import numpy as np
import torch
from scipy.stats import chi2, norm

from skdiffusion.diffusion.target.checks import jumps, stein, tail_powers, wrong_curls, wrong_slopes
from skdiffusion.diffusion.target.targets import MixtureTarget

# Spread of the trial chains, in spreads of their start, from which a runaway is looked for.
_WIDE = 50
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
# Share by which Stein's identity may be off for other reasons than a wrong density, as the bias of
# unadjusted steps.
_STEIN_SLACK = 0.15
# Points that must answer wrongly, of those that answer, before a target is doubted.
_FEWEST_WRONG, _WRONG = 3, 0.05
# Points from which tails are looked at, and the excess over the last power that is not heavy.
_N_TAIL, _TAIL_SLACK = 4, 0.05
# Short ways along which jumps are looked for, and nats that are one.
_N_SEGMENTS, _JUMP = 64, 0.5
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


def unusable_target(target, trial, axes):
    """Warnings about the target itself, at the places where chains ended.

    Parameters
    ----------
    target : Target
        What was sampled.
    trial : Trial
        The run.
    axes : tensor of shape (n_features, n_features)
        Unit steps of the free features, in the coordinates of the chains.

    Returns
    -------
    warnings : list of str
        What is wrong.
    """
    last = trial.draws[-1]
    if isinstance(target, MixtureTarget) or target.has_noisy_score or target.stochastic:
        return []
    with torch.no_grad():
        runs = _runaway(target, trial.near, last)
        tails = _tails(target, last, axes) if target.has_log_density and runs is None else None
        wrong = _gradients(target, last) or _jumps(target, last)
        return [text for text in (runs, tails, wrong) if text]


def _runaway(target, near, last):
    """Warning where chains are far wider than their start and nothing holds them back.

    A density that can be normalised has ``E[-(x_j - c) g_j] = 1`` for every feature, whatever
    ``c`` and its width; where the gradient vanishes or points outwards it is 0 or less.
    """
    start, spread = ((x - x.median(0).values).abs().median(0).values for x in (near, last))
    wide = (start > 0) & (spread > _WIDE * start)
    if not wide.any():
        return None
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
        f"gradient does not lead back. {_IMPROPER}"
    )


_IMPROPER = (
    "Does target return the *log* density (not the density), with the right sign, and is it "
    "normalisable?"
)


def _tails(target, last, axes):
    """Warning where the density falls too slowly for a variance, or for being one at all."""
    d = len(axes)
    centre = last.median(0).values
    offset = last - centre
    near = last[offset.norm(dim=1).argsort()[:_N_TAIL]]
    # Along every feature, both ways, from a few points each.
    width = (torch.linalg.solve(axes.T, offset.T).T).abs().median(0).values.clamp(min=1e-300)
    rays = torch.cat([axes, -axes]) * width.repeat(2)[:, None]
    rays = torch.where(torch.isfinite(rays), rays, 0.0).repeat_interleave(len(near), 0)
    powers = tail_powers(target, near.repeat(2 * d, 1), rays).reshape(2, d, -1)
    along = powers.median(2).values.amin(0)
    radial = tail_powers(target, last, offset)
    radial = float(radial.sort().values[max(int(_WRONG * len(last)), _FEWEST_WRONG)])
    worst = int(along.argmin())
    if along[worst] < 1 - _TAIL_SLACK or radial < d - _TAIL_SLACK:
        where = (
            f"feature {worst}" if along[worst] < 1 - _TAIL_SLACK else "a direction of all of them"
        )
        return (
            f"The target cannot be normalised: along {where} it does not fall far out, where "
            f"nothing leads chains back, and they run away. {_IMPROPER} "
            "A prior, or bounds, may be missing."
        )
    if along[worst] < 3 - _TAIL_SLACK or radial < d + 2 - _TAIL_SLACK:
        heavy = along[worst] < 3 - _TAIL_SLACK
        power = float(along[worst]) if heavy else radial - d + 1
        return (
            f"The target has heavy tails: along {f'feature {worst}' if heavy else 'rays'} it falls "
            f"like the power {-power:.1f} of the distance, too slowly for a variance. Means and "
            "deviations of draws do not settle, and chains come from far out slowly: use medians "
            "and quantiles, or sample a transformed variable."
        )
    return None


def _gradients(target, last):
    """Warning where what the target calls its gradient is none."""
    if target.has_log_density:
        wrong, clear = wrong_slopes(target, last)
    elif target.n_features > 1:
        wrong, clear = wrong_curls(target, last)
    else:
        return None
    n_wrong, n_clear = int(wrong.sum()), int(clear.sum())
    if n_wrong < max(_FEWEST_WRONG, _WRONG * n_clear):
        return None
    if target.has_log_density:
        return (
            f"The gradient is not that of the log density at {n_wrong} of {n_clear} points tried "
            "by differences: chains are slow with it, and wrong without a Metropolis test. Correct "
            "what target returns as the gradient; with automatic differentiation, look for "
            "detach, round or floor, or compute in double precision."
        )
    return (
        f"What target returns is the gradient of no density: its derivatives are not symmetric at "
        f"{n_wrong} of {n_clear} points tried. Correct its formula, or return the log density, "
        "which is differentiated for you."
    )


def _jumps(target, last):
    """Warning where the log density has steps that its gradient does not see."""
    if not target.has_log_density:
        return None
    x = last[:_N_SEGMENTS]
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    found = jumps(target, x, last.std(0) * normal)
    n_wrong = int((found.abs() > _JUMP).sum())
    if n_wrong < max(_FEWEST_WRONG, _WRONG * len(x)):
        return None
    return (
        f"The log density jumps: on {n_wrong} of {len(x)} short ways through the draws it changes "
        f"by up to {float(found.nan_to_num(0.0).abs().max()):.2g} nats more than its gradient "
        "tells. Chains without a Metropolis test do not see the jump, others are slow there: "
        "make it continuous, or use variables (bounds) in which it is."
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
    name = f"feature {worst}" if worst < len(mean) - 1 else "all features together"
    text = (
        f"Draws are not from the density whose gradient the target gives: by Stein's identity the "
        f"mean of -x g is 1, but in {name} it is {float(mean[worst]):.2f}. "
    )
    return text + _cause_of_wrong_draws(target, trial, float(mean[worst]), plan)


def _cause_of_wrong_draws(target, trial, mean, plan):
    """The likeliest reason, by what can be seen around the draws."""
    last = trial.draws[-1]
    normal = torch.randn(last.shape, generator=torch.Generator().manual_seed(0)).to(last)
    with torch.no_grad():
        value, gradient = target.evaluate(last + 0.5 * last.std(0) * normal)
    bad = ~torch.isfinite(gradient).all(1)
    bad = bad | ~torch.isfinite(value) if value is not None else bad
    if bad.double().mean() > _WALL:
        return (
            f"{float(bad.double().mean()):.0%} of the places around them are where it is not finite"
            ": the density ends at a wall. Give bounds, or look for the logarithm or root of a "
            "negative number."
        )
    if plan.kernel.target_acceptance is None and mean > 1:
        return "Steps without a Metropolis test widen the density: lower step_size, or use 'mala'."
    return (
        "Either chains have not reached the target, and need more steps (n_steps) or another "
        "method, or the density jumps, so that its gradient does not tell all: make it continuous, "
        "or use variables (bounds) in which it is."
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
