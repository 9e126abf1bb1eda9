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
        x = np.concatenate(series)
        number = np.repeat(np.arange(len(series)), [len(each) for each in series])
        return cls(*map(np.array, zip(*[_limit(column, number) for column in x.T])))

    def __call__(self, x, number=None):
        """Say which values are doubted.

        Parameters
        ----------
        x : ndarray of shape (n_rows, n_columns)
            Series end to end, rows one time step apart, NaN where missing.
        number : int ndarray of shape (n_rows,), optional
            The series of each row; by default there is one.

        Returns
        -------
        doubted : bool ndarray of shape (n_rows, n_columns)
            True where they are.
        """
        doubted = np.zeros(x.shape, dtype=bool)
        number = np.zeros(len(x), dtype=int) if number is None else number
        for j in np.flatnonzero(np.isfinite(self.limit)):
            at, below, above, reach = _sides(x[:, j], number)
            alike = np.sign(below) == np.sign(above)
            nearer = np.where(alike, np.minimum(np.abs(below), np.abs(above)), 0.0)
            alone = nearer > np.maximum(self.limit[j], np.abs(below - above))
            doubted[at[alone & (reach <= self.reach[j])], j] = True
        return doubted


def _limit(x, number):
    """Limit and reach of a column of series."""
    _, below, above, reach = _sides(x, number)
    near = reach <= _FURTHEST
    if near.sum() < _FEWEST:
        return np.inf, 0
    middle, high = np.quantile(np.abs(below + above)[near] / 2, _LEVELS)
    if not high > 0:
        return np.inf, 0
    # Of small counts both are 1: the next larger one is no error.
    high += np.diff(np.unique(x[~np.isnan(x)])).min()
    ratio = min(high / middle if middle > 0 else np.inf, _LARGEST_RATIO)
    return high * ratio**_POWER, int(reach[near].max())


def _sides(x, number):
    """Rows of the values of a column that have three on each side in their series, how far each is
    from the medians of these, and the rows in which those on the nearer side lie: that side is one
    that an honest value beside a gap belongs to.
    """
    at = np.flatnonzero(~np.isnan(x))
    n, y = max(len(at) - 2 * _SIDE, 0), x[at].astype(float)
    first, *_, last = rows = [at[k : k + n] for k in range(2 * _SIDE + 1)]
    around = [y[k : k + n] for k in range(2 * _SIDE + 1)]
    own, sides = around[_SIDE], (around[:_SIDE], around[_SIDE + 1 :])
    below, above = (own - _median(*side) for side in sides)
    reach = np.minimum(rows[_SIDE] - first, last - rows[_SIDE])
    found = rows[_SIDE], below, above, reach
    whole = number[first] == number[last]
    return found if whole.all() else tuple(each[whole] for each in found)


def _median(a, b, c):
    """Median of three arrays."""
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
