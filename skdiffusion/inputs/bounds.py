"""Bounds of columns, as the user gives them."""

from numbers import Real

import numpy as np


def column_bounds(bounds, names, encoding):
    """Bounds of every real column.

    Parameters
    ----------
    bounds : dict, pair or None
        For names of features (numbers of them, in an array) a pair of smallest and largest value;
        or one pair for all columns of numbers. None in a pair is no bound.
    names : array-like of shape (n_features,)
        Names of the features.
    encoding : Encoding
        What the features are.

    Returns
    -------
    low, high : float64 ndarrays of shape (n_columns,)
        Infinite where there is no bound; whole numbers for columns of these.

    Raises
    ------
    ValueError
        If a name is no column of numbers, or a pair is none.
    """
    low, high = np.full(len(encoding.owner), -np.inf), np.full(len(encoding.owner), np.inf)
    names = list(names)
    if bounds is None:
        return low, high
    if not isinstance(bounds, dict):
        bounds = {name: bounds for name, label in zip(names, encoding.labels) if not label}
    for name, pair in bounds.items():
        if name not in names:
            raise ValueError(f"bounds names {name!r}, which is no column of X: it has {names}.")
        j = names.index(name)
        if encoding.labels[j]:
            raise ValueError(f"bounds names {name!r}, a column of labels: leave it out.")
        ends = _pair(pair, name)
        if encoding.columns[j].kind != "real":
            ends = np.ceil(ends[0]), np.floor(ends[1])
        low[encoding.first[j]], high[encoding.first[j]] = ends
    return low, high


def require_inside(flat, low, high, names):
    """Raise for values of X beyond the bounds given for their column."""
    with np.errstate(invalid="ignore"):
        outside = (flat < low) | (flat > high)
    for j in np.flatnonzero(outside.any(axis=0)):
        rows = np.flatnonzero(outside[:, j])
        raise ValueError(
            f"Column {names[j]} of X has {len(rows)} values outside of its bounds "
            f"({low[j]:g}, {high[j]:g}), such as {flat[rows[0], j]:g} in row {rows[0]}: correct "
            "them, mark them as missing, or widen bounds."
        )


def _pair(pair, name):
    """Two numbers in order."""
    try:
        low, high = pair
    except (TypeError, ValueError):
        low = high = pair
    ends = [limit if value is None else value for value, limit in ((low, -np.inf), (high, np.inf))]
    if not all(isinstance(end, Real) and not np.isnan(end) for end in ends) or ends[0] >= ends[1]:
        raise ValueError(
            f"bounds of column {name!r} are {pair!r}: give a pair of the smallest and the largest "
            "value, the smaller first, or None for one that is not bounded."
        )
    return float(ends[0]), float(ends[1])
