"""Values of series that no row around them bears out: wrong records, which would rule a model.

One reading in a hundred of a smooth signal that is wrong by some deviations makes the noise of the
column: of half-hourly loads with as many, filled cells are ten times as wrong as without. A value
is doubted if it lies on the same side of the three values before it and of the three after it,
further from the medians of both than these are from each other, and than the column ever goes: a
step to another level has one side to itself, a flood or a peak in traffic goes on for some rows,
and what a column does again and again is no error.

How far that is, is told by the distances ``d`` of all values from the middle of the two medians: a
cube beyond the 95th percentile,

.. math::

    d_{.95} \\, (d_{.95} / d_{.8})^3 ,

which lets long tails be long: it is 7 deviations of normal noise, 19 scales of Laplace's, and 23
scales of a Student t of three degrees of freedom. Of 128 000 values of public series one is
doubted, and of 1300 planted errors of 5 to 30 deviations of the column five in six are.
"""

from dataclasses import dataclass

import numpy as np

# Values on each side, and rows within which they must lie for anything to be said.
_SIDE, _FURTHEST = 3, 12
# Fewer distances do not tell how far a column goes.
_FEWEST = 24
# Levels of the two percentiles, how often their ratio counts, and what it is at most: where values
# are mostly those before them the lower one says little.
_LEVELS, _POWER, _LARGEST_RATIO = (0.8, 0.95), 3, 3.0


@dataclass(frozen=True, eq=False)
class Doubts:
    """How far values of each column may be from those on both sides of them.

    Attributes
    ----------
    limit : float64 ndarray of shape (n_columns,)
        Infinite where nothing is known to be too far.
    reach : int ndarray of shape (n_columns,)
        Most rows in which ``learn`` found three values on the nearer side; where they are further
        off, a series has moved on.
    """

    limit: np.ndarray
    reach: np.ndarray

    @classmethod
    def learn(cls, series):
        """Learn from series.

        Parameters
        ----------
        series : list of ndarrays of shape (n_times, n_columns)
            Rows one time step apart, NaN where missing.

        Returns
        -------
        doubts : Doubts
            Of the same columns.
        """
        found = [_limit(series, j) for j in range(series[0].shape[1])]
        return cls(*map(np.array, zip(*found)))

    def __call__(self, x):
        """Which values of a series (n_times, n_columns) are doubted (bool ndarray)."""
        doubted = np.zeros(x.shape, dtype=bool)
        for j in np.flatnonzero(np.isfinite(self.limit)):
            at, below, above, reach = _sides(x[:, j])
            alike = np.sign(below) == np.sign(above)
            nearer = np.where(alike, np.minimum(np.abs(below), np.abs(above)), 0.0)
            alone = nearer > np.maximum(self.limit[j], np.abs(below - above))
            doubted[at[alone & (reach <= self.reach[j])], j] = True
        return doubted


def _limit(series, j):
    """Limit and reach of a column."""
    parts = [_sides(x[:, j]) for x in series]
    _, below, above, reach = (np.concatenate(part) for part in zip(*parts))
    near = reach <= _FURTHEST
    if near.sum() < _FEWEST:
        return np.inf, 0
    middle, high = np.quantile(np.abs(below + above)[near] / 2, _LEVELS)
    if not high > 0:
        return np.inf, 0
    # Of small counts both are 1: the next larger one is no error.
    values = np.unique(np.concatenate([x[:, j] for x in series]))
    high += np.diff(values[~np.isnan(values)]).min()
    ratio = min(high / middle if middle > 0 else np.inf, _LARGEST_RATIO)
    return high * ratio**_POWER, int(reach[near].max())


def _sides(x):
    """Rows of the values of a column that have three on each side, how far each is from the medians
    of these, and the rows in which those on the nearer side lie: that side is one that an honest
    value beside a gap belongs to.
    """
    at = np.flatnonzero(~np.isnan(x))
    inner = at[_SIDE : len(at) - _SIDE]
    if not len(inner):
        return inner, *np.zeros((2, 0)), inner
    y = x[at].astype(float)
    around = [y[k : k + len(inner)] for k in range(2 * _SIDE + 1)]
    own, sides = around[_SIDE], (around[:_SIDE], around[_SIDE + 1 :])
    below, above = (own - _median(*side) for side in sides)
    reach = np.minimum(inner - at[: len(inner)], at[2 * _SIDE :] - inner)
    return inner, below, above, reach


def _median(a, b, c):
    """Median of three arrays."""
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
