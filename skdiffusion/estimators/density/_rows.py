"""Training rows: weights as repeats, groups that must not be split, gaps filled by draws."""

import numpy as np

# Rows per row at most for integer weights, and on average for others.
_MAX_REPEATS, _MEAN_REPEATS = 20, 8
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


def _distinct(rows):
    """Distinct rows in order, and the number of each row among them."""
    filled = np.nan_to_num(rows, nan=_SENTINEL, posinf=np.inf, neginf=-np.inf)
    unique, inverse = np.unique(filled, axis=0, return_inverse=True)
    return np.where(unique == _SENTINEL, np.nan, unique), inverse.ravel()
