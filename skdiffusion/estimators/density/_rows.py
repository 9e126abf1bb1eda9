"""Training rows: weights as repeats, groups that must not be split, gaps filled by draws."""

from dataclasses import dataclass, replace

import numpy as np

from skdiffusion._warn import warn
from skdiffusion.columns.standard import column_moments, unresolved

# Rows per row at most for integer weights, and on average for others.
_MAX_REPEATS, _MEAN_REPEATS = 20, 8
# Rows held out at most: their mean is known to a hundredth of a standard deviation.
_MAX_HELD_OUT = 10_000
# Stands for a missing value where rows are compared.
_SENTINEL = 1.7e300
# Fewer distinct rows are not split: one or two held out decide nothing.
_FEWEST_TO_SPLIT = 10
# Rows held out at least, as long as that is no more than one row in four: the mean over 100 rows
# is known to a tenth of their standard deviation.
_MIN_HELD_OUT, _ONE_IN = 100, 4
# Share of repeated rows below which a kernel estimate can be judged by leaving rows out.
_FEW_REPEATS = 0.05
# Share of the variance along an axis below which there is nothing but rounding.
_SMALLEST = 1e-10
# Standard deviations: rows further out would rule a likelihood.
_FURTHEST = 100
# A column whose middle half spans less than this, in its standard deviations, is ruled by others.
_NARROW = 1e-3


@dataclass(frozen=True)
class Rows:
    """Rows of a training, joined with their condition, and how they were split.

    Parameters
    ----------
    train, held_out, all : ndarrays of shape (n_rows, n_features + n_conditions)
        The rows of the two sides, and all of them.
    n_features : int
        Number of columns of the data, which stand first.
    few_repeats : bool
        Whether nearly all rows are distinct.
    """

    train: np.ndarray
    held_out: np.ndarray
    all: np.ndarray
    n_features: int
    few_repeats: bool

    @property
    def data(self):
        """All rows without their condition."""
        return self.all[:, : self.n_features]

    def sketch(self, n_rows):
        """The same held-out rows, and the first of the training rows in place of all."""
        few = self.train[:n_rows]
        return replace(self, train=few, all=few)


def split_rows(rows, groups, n_features, fraction, seed):
    """Hold out rows, each group on one side; of few groups all are on both.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features + n_conditions)
        Rows joined with their condition.
    groups : ndarray of shape (n_rows,)
        Group of each row, from 0.
    n_features : int
        Number of columns of the data.
    fraction : float
        Share of the groups held out; more where that are fewer than 100, 10 000 at most.
    seed : int
        Seed of the split.

    Returns
    -------
    rows : Rows
        The split rows.
    """
    n, train, held_out = groups.max() + 1, rows, rows
    if n >= _FEWEST_TO_SPLIT:
        wanted = max(1, round(fraction * n), min(n // _ONE_IN, _MIN_HELD_OUT))
        wanted = min(wanted, _MAX_HELD_OUT)
        train, held_out = split_groups(rows, groups, wanted, seed)
    return Rows(train, held_out, rows, n_features, len(rows) - n < _FEW_REPEATS * len(rows))


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


def standardised(values, names, tied):
    """Centre and scale of columns, and the rows in these units.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_features)
        Values, NaN where missing.
    names : ndarray of shape (n_features,)
        Names of the columns, for messages.
    tied : bool ndarray of shape (n_features,)
        Columns that repeat most of their values, which may be narrow.

    Returns
    -------
    mean, scale : ndarrays of shape (n_features,)
        Centre and scale.
    rows : ndarray of shape (n_samples, n_features)
        Standardised rows, within 100 standard deviations.
    """
    empty = np.isnan(values).all(0)
    if empty.any():
        raise ValueError(f"Columns {names[empty].tolist()} of X have no value: drop them.")
    mean, scale = column_moments(values)
    constant = scale == 0
    if (lost := unresolved(values, scale)).any():
        raise ValueError(
            f"Columns {names[lost].tolist()} of X vary by less than double precision resolves at "
            "their size: subtract their offset, or give them in other units."
        )
    if constant.any():
        raise ValueError(
            f"Columns {names[constant].tolist()} of X are constant, and the density of a "
            "constant is unbounded: drop them (for example with VarianceThreshold)."
        )
    rows = (values - mean) / scale
    _warn_dependent(rows, names)
    spread = np.diff(np.nanquantile(rows, [0.25, 0.75], axis=0), axis=0)[0]
    far = (np.abs(rows) > _FURTHEST).any(0) | ((spread < _NARROW) & ~tied)
    if far.any():
        warn(
            f"Columns {names[far].tolist()} of X have values far outside all others, which "
            "rule the scale or are pulled in to 100 standard deviations: remove impossible "
            "records or transform the columns (for example with QuantileTransformer).",
        )
    return mean, scale, np.clip(rows, -_FURTHEST, _FURTHEST)


def _warn_dependent(rows, names):
    """Name the columns that follow from each other: their joint density has no bound."""
    known = rows[~np.isnan(rows).any(1)]
    if len(rows) <= rows.shape[1]:
        warn(
            f"X has {len(rows)} rows for {rows.shape[1]} columns: they lie in a plane, and the "
            "density around it is a guess. Give more rows than columns, or fewer columns, by PCA "
            "for example.",
        )
    if not rows.shape[1] < len(known):
        return
    sizes, axes = np.linalg.eigh(np.atleast_2d(np.cov(np.clip(known, -_FURTHEST, _FURTHEST).T)))
    dependent = (np.abs(axes[:, sizes < _SMALLEST * sizes[-1]]) > np.sqrt(_SMALLEST)).any(1)
    if dependent.any():
        warn(
            f"Columns {names[dependent].tolist()} of X follow from each other: their joint density "
            "has no bound and its likelihood means little. Drop those that are sums or multiples "
            "of others.",
        )
