"""Missing columns of rows given the others: patterns, exact draws, weights, copies to train on."""

import copy
import math

import numpy as np
import torch

from skdiffusion._random import normals, row_keys
from skdiffusion.diffusion.analytic import em
from skdiffusion.diffusion.analytic.build import gaussian
from skdiffusion.diffusion.conditional import ConditionalMixture
from skdiffusion.diffusion.likelihood import trace_directions
from skdiffusion.diffusion.model import MAX_EXACT_FEATURES, N_PROBES
from skdiffusion.diffusion.window.mixture import RowMixture
from skdiffusion.estimators.density import _bases
from skdiffusion.estimators.density._rows import split_groups

# Runge-Kutta steps for the weights of candidates, which need no more than a few hundredths of a
# nat, and candidates at once, as in the density model.
_WEIGHT_STEPS, _CHUNK = 12, 2000
# Share of the candidates that is weighed first, and that of them that must count to be enough.
_FIRST_SHARE, _ENOUGH = 0.4, 0.5
# Numbers of the streams of noise in impute; conditional_draws has 0 and 1.
_START, _ORDER = 2, 3


def log_weights(model, proposal, candidates):
    """Log-weights of each row's candidates, minus infinity for those that are not needed.

    Where the mixture describes a row well, a part of the candidates is as good as all.
    """
    first = math.ceil(_FIRST_SHARE * candidates.shape[1])
    values = torch.full(candidates.shape[:2], -math.inf, dtype=torch.float64)
    values[:, :first] = log_ratios(model, proposal, candidates[:, :first])
    sizes = effective_size(torch.softmax(values[:, :first], 1))
    poor = sizes < _ENOUGH * first
    if poor.any():
        values[poor, first:] = log_ratios(model, proposal, candidates[poor, first:])
    return values


def log_ratios(model, proposal, candidates):
    """Log-density of the model over that of the mixture, one for each candidate."""
    model = model.single()
    reference = None if proposal is None else copy.deepcopy(proposal).float()
    rows = candidates.flatten(0, 1).to(model.device, torch.float32)
    directions = trace_directions(rows, MAX_EXACT_FEATURES, N_PROBES)
    parts = [model.log_ratio(x, _WEIGHT_STEPS, directions, reference) for x in rows.split(_CHUNK)]
    return torch.cat(parts).double().reshape(candidates.shape[:2]).cpu()


def resampled(draws, weights, keys, n_draws):
    """Draws of each row in proportion to their weights, by systematic resampling.

    Parameters
    ----------
    draws : tensor of shape (n_samples, n_candidates, n_columns)
        Candidates.
    weights : tensor of shape (n_samples, n_candidates)
        Weights that sum to one.
    keys : int64 tensor of shape (n_samples, 1)
        Noise keys of the rows.
    n_draws : int
        Number of draws.

    Returns
    -------
    draws : tensor of shape (n_samples, n_draws, n_columns)
        Draws.
    """
    start = torch.special.ndtr(normals(keys, 0, _START, 0, torch.float64))
    cumulative = weights.cumsum(1)
    steps = (start + torch.arange(n_draws)) / n_draws * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, steps)
    # It leaves the draws in the order of the candidates.
    shuffled = normals(keys, torch.arange(n_draws), _ORDER, 0).argsort(1)
    chosen = chosen.gather(1, shuffled)
    return draws.gather(1, chosen[:, :, None].expand(-1, -1, draws.shape[2]))


def effective_size(weights):
    """Effective number of candidates behind normalised weights."""
    return 1 / weights.square().sum(1)


# Copies of a row with gaps: what is trained on them sees how little is known of a gap.
_N_COPIES = 3
# Passes of expectation maximisation: where gaps depend on the values, ten leave the mean short of
# its limit. Then rounds of drawing gaps and fitting a mixture, the first draws being a Gaussian's.
_N_EM_STEPS, _N_ROUNDS = 20, 2
# A thousandth of a standard deviation, for columns that repeat each other.
_SHAPE = em.Shape(0, 1e-6)


def completed_copies(rows, groups, seed):
    """Copies of rows whose gaps are filled by draws from a mixture.

    A Gaussian is fitted to the incomplete rows by expectation maximisation [1]_; then, twice,
    gaps are drawn from the conditional density, and a mixture fitted to the completed rows, which
    is stochastic expectation maximisation [2]_. The copies differ in their draws, so that what is
    trained on them sees how little is known of a gap.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Standardised rows, NaN where missing.
    groups : ndarray of shape (n_samples,)
        Group of each row.
    seed : int
        Seed of the draws.

    Returns
    -------
    rows, groups : ndarrays
        Three copies of every row, and their groups.

    References
    ----------
    .. [1] A. Dempster, N. Laird, D. Rubin, "Maximum likelihood from incomplete data via the EM
       algorithm", JRSS B 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x.
    .. [2] G. Celeux, J. Diebolt, "The SEM algorithm", Computational Statistics Quarterly 1985.
    """
    density = gaussian_of_incomplete(rows)
    for i in range(_N_ROUNDS):
        full = complete(density, rows, row_keys(rows, seed + i), 1)[:, 0]
        train, held_out = split_groups(full, groups, max(1, (groups.max() + 1) // 5), seed)
        density = _bases.fit_mixture(train, held_out, full, seed)[1]
    copies = complete(density, rows, row_keys(rows, seed + _N_ROUNDS), _N_COPIES)
    return copies.reshape(-1, rows.shape[1]), np.repeat(groups, _N_COPIES)


def gaussian_of_incomplete(rows):
    """Gaussian of rows with gaps, by expectation maximisation.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Rows, NaN where missing; no column is missing altogether.

    Returns
    -------
    density : Mixture
        The Gaussian.
    """
    values, observed = torch.as_tensor(rows), torch.as_tensor(~np.isnan(rows))
    mean, variance = np.nanmean(rows, axis=0), np.nanvar(rows, axis=0) + _SHAPE.ridge
    one = np.ones(1), mean[None], np.diag(variance)[None]
    found = em.climb(
        em.Components(*map(torch.as_tensor, one)),
        lambda components: RowMixture(*components).expect(values, observed),
        _SHAPE,
        _N_EM_STEPS,
    )
    return gaussian(found.means[0].numpy(), found.covariances[0].numpy())


def patterns(rows):
    """Patterns of missing columns and the rows that have them; complete rows are left out.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Rows, NaN where missing.

    Yields
    ------
    missing : bool ndarray of shape (n_columns,)
        The missing columns.
    chosen : int ndarray
        Numbers of the rows.
    """
    masks, which = np.unique(np.isnan(rows), axis=0, return_inverse=True)
    for i, missing in enumerate(masks):
        if missing.any():
            yield missing, np.flatnonzero(which.ravel() == i)


def conditional_draws(density, rows, keys, missing, n_draws):
    """Draws of the missing columns of rows that share one pattern.

    Parameters
    ----------
    density : Mixture
        Density of all columns, on the CPU.
    rows : tensor of shape (n_samples, n_columns)
        Rows.
    keys : int64 tensor of shape (n_samples,)
        Noise keys of the rows.
    missing : bool ndarray of shape (n_columns,)
        The missing columns.
    n_draws : int
        Number of draws.

    Returns
    -------
    draws : tensor of shape (n_samples, n_draws, n_missing)
        Draws from the exact conditional density, which depend on a row alone.
    """
    order, columns = torch.arange(n_draws), torch.arange(int(missing.sum()))
    noise = normals(keys[:, None, None], order[:, None], 0, columns, torch.float64)
    uniforms = torch.special.ndtr(normals(keys[:, None], order, 1, 0, torch.float64))
    given = ConditionalMixture(density, ~missing).given(rows[:, ~missing])
    return given.sample(uniforms, noise)


def complete(density, rows, keys, n_draws):
    """Rows with their gaps filled by draws.

    Parameters
    ----------
    density : Mixture
        Density of all columns, on the CPU.
    rows : ndarray of shape (n_samples, n_columns)
        Rows, NaN where missing.
    keys : int64 tensor of shape (n_samples,)
        Noise keys of the rows.
    n_draws : int
        Number of draws.

    Returns
    -------
    completed : ndarray of shape (n_samples, n_draws, n_columns)
        Completed rows.
    """
    completed = np.repeat(rows[:, None], n_draws, axis=1)
    for missing, chosen in patterns(rows):
        part = torch.as_tensor(rows[chosen])
        draws = conditional_draws(density, part, keys[chosen], missing, n_draws)
        completed[np.ix_(chosen, range(n_draws), missing)] = draws.numpy()
    return completed
