"""Columns: the units of X on one side, what a model sees on the other.

A column is centred and scaled to *standard units* ``u``, and a *column map* takes these to the
values ``z`` that a model sees. A column map knows all valid columns and has two methods,
``forward(u)`` for values (..., n_valid) and ``inverse(z, feature)`` for values of any shape, whose
columns ``feature`` tells along the last axis.
"""

from dataclasses import dataclass, replace

import numpy as np

from skdiffusion.columns.standard import column_moments

# Standard units beyond this are pulled in before a model sees them, further out where the data
# are taken as they are.
_FAR, _FAR_UNSCALED = 20.0, 1e4
# Columns between 0 and 1 are shares where one is larger than this; those between 0 and 100 are
# percentages where so many are 100.
_LARGE_SHARE, _FULL = 0.5, 2
# Rows that are mapped at once.
_BLOCK = 2**15


class Straight:
    """The column map that changes nothing."""

    def forward(self, u):
        """Return the values as they are."""
        return u

    def inverse(self, z, feature):
        """Return the values as they are."""
        return z


@dataclass(frozen=True, eq=False)
class Columns:
    """What is learnt of the columns of a table or of series.

    Attributes
    ----------
    centre, scale : float64 ndarrays of shape (n_features,)
        NaN for a column without values, which is not *valid*; ``scale`` is 0 for a constant one.
    column_map : column map, default=Straight()
        From standard units to what a model sees.
    far : float, default=20.0
        Largest standard unit that a model sees.
    low, high : float64 ndarrays of shape (n_features,), default=-inf, inf
        Bounds of what comes back: 0 for a column that was never seen on its other side, and the
        whole of a column of shares or percentages.
    ends : float64 ndarray of shape (2, n_features)
        Least and largest values seen: those with spikes there come back to the bit.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.columns.columns import Columns
    >>> x = np.array([[1.0, np.nan], [3.0, np.nan]])
    >>> columns = Columns.learn(x)
    >>> columns.valid.tolist(), columns.forward(x).tolist()
    ([True, False], [[-1.0], [1.0]])
    >>> columns.inverse(np.array([2.0]), np.array([0])).tolist()
    [4.0]
    """

    centre: np.ndarray
    scale: np.ndarray
    column_map: object = Straight()
    far: float = _FAR
    low: np.ndarray | float = -np.inf
    high: np.ndarray | float = np.inf
    ends: np.ndarray | None = None

    @classmethod
    def learn(cls, x):
        """Learn robust centres and scales.

        Parameters
        ----------
        x : ndarray of shape (n_rows, n_features)
            NaN where missing.

        Returns
        -------
        columns : Columns
            Their column map is straight.

        Raises
        ------
        ValueError
            If no column has a value.
        """
        valid = ~np.isnan(x).all(axis=0)
        if not valid.any():
            raise ValueError("X has no observed value: there is nothing to learn from.")
        centre, scale = np.full((2, x.shape[1]), np.nan)
        seen = x if valid.all() else x[:, valid]
        centre[valid], scale[valid] = column_moments(np.asarray(seen, dtype=float))
        low, high = np.full((2, x.shape[1]), [[-np.inf], [np.inf]])
        low[valid], high[valid] = _natural_bounds(seen)
        return cls(centre, scale, low=low, high=high)

    @property
    def valid(self):
        """Which columns have values (bool ndarray of shape (n_features,))."""
        return ~np.isnan(self.centre)

    def unscaled(self):
        """Columns that take the values as standard units already; constant ones stay so."""
        centre = np.where(self.valid, 0.0, np.nan)
        scale = np.where(self.scale > 0, 1.0, np.where(self.valid, 0.0, np.nan))
        return replace(self, centre=centre, scale=scale, far=_FAR_UNSCALED)

    def bounded(self, low, high):
        """Columns whose values also stay between ``low`` and ``high``."""
        return replace(self, low=np.maximum(self.low, low), high=np.minimum(self.high, high))

    def mapped(self, learn_map, x):
        """Columns with the map that ``learn_map`` learns from ``x`` in standard units."""
        column_map = learn_map(in_blocks(self._standard_units, x, float))
        ends = np.array([np.fmin.reduce(x), np.fmax.reduce(x)], dtype=float)
        return replace(self, column_map=column_map, ends=ends)

    def forward(self, x):
        """Map values (..., n_features) to what a model sees (..., n_valid)."""
        return self.column_map.forward(self._standard_units(x))

    def standard(self, z, feature):
        """Map what a model says back to standard units.

        Parameters
        ----------
        z : ndarray of shape (..., n_cells)
            Model values.
        feature : int ndarray of shape (n_cells,)
            Number of the column of each among the valid ones.

        Returns
        -------
        u : float64 ndarray of shape (..., n_cells)
            Standard units.
        """
        return self.column_map.inverse(z.astype(float), feature)

    def inverse(self, z, feature):
        """Map what a model says back to the units of X; arguments as for :meth:`standard`."""
        scale, centre = self.scale[self.valid][feature], self.centre[self.valid][feature]
        low, high = (
            np.broadcast_to(bound, self.valid.shape)[self.valid][feature]
            for bound in (self.low, self.high)
        )
        u = self.standard(z, feature)
        with np.errstate(over="ignore"):
            x = np.clip(centre + scale * u, low, high)
        if self.ends is not None:
            # Rounding on the way back would make another value of a spike.
            for at, value in zip(self._standard_units(self.ends), self.ends[:, self.valid]):
                x = np.where(u == at[feature], value[feature], x)
        return x

    def _standard_units(self, x):
        """Valid columns in standard units, the far values pulled in."""
        centre, scale = self.centre[self.valid], self.scale[self.valid]
        x = x[..., self.valid].astype(float)
        u = np.clip((x - centre) / np.where(scale > 0, scale, 1.0), -self.far, self.far)
        # What a constant column does later says nothing about the others.
        return u * (scale > 0)


def in_blocks(function, x, dtype):
    """Apply a function of the rows of an array to some at a time, in copies of these."""
    if len(x) <= _BLOCK:
        return np.asarray(function(x), dtype=dtype)
    out = None
    for i in range(0, len(x), _BLOCK):
        block = function(x[i : i + _BLOCK])
        out = np.empty((len(x), *block.shape[1:]), dtype=dtype) if out is None else out
        out[i : i + _BLOCK] = block
    return out


def _natural_bounds(x):
    """Bounds that values without any beyond them suggest, as arrays of their columns."""
    least, most = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    low = np.where(least >= 0, 0.0, -np.inf)
    high = np.where(most <= 0, 0.0, np.inf)
    n_full = (x == 100).sum(axis=0)
    share = (least >= 0) & (most > _LARGE_SHARE) & (most <= 1)
    percentage = (least >= 0) & (most == 100) & (n_full >= _FULL)
    return low, np.where(share, 1.0, np.where(percentage, 100.0, high))
