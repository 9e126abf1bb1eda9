"""Faults of a target itself, told with their cause and their remedy."""

import math

import torch

from skdiffusion.diffusion.target.checks import (
    jumps,
    tail_powers,
    value_noise,
    wrong_curls,
    wrong_slopes,
)
from skdiffusion.diffusion.target.targets import MixtureTarget

# Spread of the trial chains, in spreads of their start, from which a runaway is looked for.
_WIDE = 50
# Points that must answer wrongly, of those that answer, before a target is doubted.
_FEWEST_WRONG, _WRONG = 3, 0.05
# Points from which tails are looked at, and the excess over the last power that is not heavy.
_N_TAIL, _TAIL_SLACK = 4, 0.05
# Short ways along which jumps are looked for, nats that are one, and errors of the log density that
# the ends of a way do not differ by.
_N_SEGMENTS, _JUMP, _SURE = 64, 0.5, 6.0
# Error of the log density from which it matters: Metropolis tests between values with independent
# errors s refuse a share of 1 - 2 Phi(-s / sqrt(2)) of right steps, a fifth of them at 0.35.
_NOISY = 0.35


def unusable_target(target, trial, axes, noise):
    """Warnings about the target itself, at the places where chains ended.

    Parameters
    ----------
    target : Target
        What was sampled.
    trial : Trial
        The run.
    axes : tensor of shape (n_features, n_features)
        Unit steps of the free features, in the coordinates of the chains.
    noise : float
        Standard deviation of the rounding errors of the log density.

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
        wrong = _gradients(target, last, noise) or _jumps(target, last, noise)
        return [text for text in (runs, tails, wrong) if text]


def noise_of_values(target, x):
    """Standard deviation of the rounding errors of the log density at draws, where it is known."""
    if not target.has_log_density or isinstance(target, MixtureTarget):
        return 0.0
    with torch.no_grad():
        noise = value_noise(lambda y: target.evaluate(y)[0], x, _random_steps(x))
        if not target.is_single:
            return noise
        # Short differences do not see values so large that all of them are rounded to the same.
        size = float(target.evaluate(x)[0].abs().nanmedian())
        return max(noise, size * torch.finfo(torch.float32).eps / math.sqrt(12))


def imprecise_values(noise):
    """Warning where rounding errors of the log density decide which steps are taken.

    Parameters
    ----------
    noise : float
        Standard deviation of the errors.

    Returns
    -------
    warning : str or None
        What happens and what to do.
    """
    if not noise > _NOISY:
        return None
    return (
        f"The log density is known up to rounding errors of {noise:.1g} nats only, which refuse "
        "steps by chance and hide its slope: chains are slow. Compute in double precision: give "
        "the tensors that target uses as float64, as x is, and do not turn x to float32."
    )


def _random_steps(x):
    """Steps of about a deviation of the draws, the same for the same draws."""
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    return x.std(0) * normal


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


def _gradients(target, last, noise):
    """Warning where what the target calls its gradient is none."""
    if target.has_log_density:
        wrong, clear = wrong_slopes(target, last, noise)
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


def _jumps(target, last, noise):
    """Warning where the log density has steps that its gradient does not see."""
    if not target.has_log_density:
        return None
    x = last[:_N_SEGMENTS]
    found = jumps(target, x, _random_steps(last)[:_N_SEGMENTS])
    n_wrong = int((found.abs() > _JUMP + _SURE * noise).sum())
    if n_wrong < max(_FEWEST_WRONG, _WRONG * len(x)):
        return None
    return (
        f"The log density jumps: on {n_wrong} of {len(x)} short ways through the draws it changes "
        f"by up to {float(found.nan_to_num(0.0).abs().max()):.2g} nats more than its gradient "
        "tells. Chains without a Metropolis test do not see the jump, others are slow there: "
        "make it continuous, or use variables (bounds) in which it is."
    )
