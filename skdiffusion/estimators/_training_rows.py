"""Training rows: weights as repeats, groups that must not be split, gaps filled by draws."""

import numpy as np
import torch

from skdiffusion._random import normals, row_keys
from skdiffusion.diffusion.analytic import gaussian
from skdiffusion.diffusion.conditional import ConditionalMixture
from skdiffusion.estimators import _bases

# Rows per row at most for integer weights, and on average for others.
_MAX_REPEATS, _MEAN_REPEATS = 20, 8
_N_COPIES = 3
_N_EM_STEPS, _N_ROUNDS = 20, 2
# Stands for a missing value where rows are compared.
_SENTINEL = 1.7e300


def repeated(rows, weight):
    """Rows in an order of their own, each repeated in proportion to its weight.

    Integer weights are exact. Others are rounded to an eighth of the mean weight.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Rows, NaN where missing.
    weight : ndarray of shape (n_samples,)
        Weights, not negative and not all zero.

    Returns
    -------
    rows : ndarray of shape (n_repeats, n_columns)
        Repeated rows, equal ones next to each other.
    """
    unique, inverse = _distinct(rows)
    weight = np.bincount(inverse, weight)
    total = weight.sum()
    if (weight == np.rint(weight)).all() and total <= _MAX_REPEATS * len(rows):
        return unique.repeat(weight.astype(int), axis=0)
    share = _MEAN_REPEATS * (weight > 0).sum() / total
    return unique.repeat(np.diff(np.rint(weight.cumsum() * share), prepend=0).astype(int), axis=0)


def grouped(rows):
    """Rows and the group of each, equal rows being one group.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Rows, NaN where missing.

    Returns
    -------
    rows : ndarray of shape (n_samples, n_columns)
        The same rows; sorted where some are equal, so that their order does not count.
    groups : ndarray of shape (n_samples,)
        Number of the group of each row.
    """
    unique, inverse = _distinct(rows)
    if len(unique) == len(rows):
        return rows, np.arange(len(rows))
    groups = np.sort(inverse)
    return unique[groups], groups


def split_groups(rows, groups, n_held_out, seed):
    """Split rows at random, each group on one side.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Rows.
    groups : ndarray of shape (n_samples,)
        Group of each row, from 0.
    n_held_out : int
        Number of groups held out.
    seed : int
        Seed of the split.

    Returns
    -------
    train, held_out : ndarrays
        The rows of the two sides.
    """
    n_groups = groups.max() + 1
    place = np.empty(n_groups, dtype=int)
    place[np.random.default_rng(seed).permutation(n_groups)] = np.arange(n_groups)
    order = np.argsort(place[groups], kind="stable")
    n = int((place[groups] < n_held_out).sum())
    return rows[order[n:]], rows[order[:n]]


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
       algorithm", JRSS B 1977.
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
    mean, covariance = np.nanmean(rows, axis=0), np.diag(np.nanvar(rows, axis=0))
    for _ in range(_N_EM_STEPS):
        density = gaussian(mean, covariance + 1e-6 * np.eye(len(mean)))
        full, extra = rows.copy(), np.zeros_like(covariance)
        for missing, chosen in patterns(rows):
            conditional = ConditionalMixture(density, ~missing)
            given = conditional.given(torch.as_tensor(rows[chosen][:, ~missing]))
            full[np.ix_(chosen, missing)] = given.mean().numpy()
            spread = conditional.eigenvectors[0] * conditional.eigenvalues[0]
            extra[np.ix_(missing, missing)] += (
                len(chosen) * (spread @ conditional.eigenvectors[0].T).numpy()
            )
        mean = full.mean(0)
        centred = full - mean
        covariance = (centred.T @ centred + extra) / len(rows)
    return gaussian(mean, covariance + 1e-6 * np.eye(len(mean)))


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


def _distinct(rows):
    """Distinct rows in order, and the number of each row among them."""
    filled = np.nan_to_num(rows, nan=_SENTINEL, posinf=np.inf, neginf=-np.inf)
    unique, inverse = np.unique(filled, axis=0, return_inverse=True)
    return np.where(unique == _SENTINEL, np.nan, unique), inverse.ravel()
