"""Centre and scale of columns, which a few impossible records do not rule."""

import numpy as np

# Standard deviations that no honest value is off: of a million draws the furthest is 5 for a normal
# distribution, 14 for an exponential one; and those off the bulk that only a wrong record is.
_OUTLIER, _FENCE = 12.0, 50.0
# Fewer values than this between the outermost ones say nothing about the bulk.
_FEWEST = 8
# More values than this are looked at column by column, in copies of one column at a time.
LARGE = 2**22


def column_moments(values):
    """Centre and scale of every column, neither ruled by a few impossible records.

    Values further from the rest than 50 standard deviations of the rest are pulled in to that
    distance, the rest being all but the outermost hundredth at both ends. Then, three times,
    values further than 12 standard deviations from the mean are pulled in.

    Parameters
    ----------
    values : float64 ndarray of shape (n_rows, n_features)
        NaN where missing; every column has at least one value.

    Returns
    -------
    mean, scale : ndarrays of shape (n_features,)
        ``scale`` is 0 for a column without spread.
    """
    if values.shape[1] > 1 and values.size > LARGE:
        return by_column(column_moments, values)
    fenced = _fenced(values)
    # Dividing by the largest value first keeps squares of 1e300 and of 1e-300 finite.
    largest = np.nanmax(np.abs(fenced), axis=0)
    unit = np.where(largest > 0, largest, 1.0)
    x = fenced / unit
    for _ in range(3):
        mean, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
        x = np.clip(x, mean - _OUTLIER * scale, mean + _OUTLIER * scale)
    tiny = 16 * np.finfo(float).eps * np.abs(mean)
    scale = np.where((scale <= tiny) | (scale * unit < np.finfo(float).tiny), 0.0, scale)
    constant = np.nanmin(values, axis=0) == np.nanmax(values, axis=0)
    mean = np.where(constant, np.nanmin(values, axis=0), mean * unit)
    return mean, np.where(constant, 0.0, scale * unit)


def by_column(function, values):
    """Concatenate what a function returns of each column along the last axis."""
    found = [function(values[:, [j]]) for j in range(values.shape[1])]
    return np.concatenate([np.asarray(one) for one in found], axis=-1)


def _fenced(x):
    """Pull values far outside the bulk of their column in to its fence."""
    low, high = np.nanquantile(x, [0.01, 0.99], axis=0, method="closest_observation")
    n_inside = ((x > low) & (x < high)).sum(axis=0)
    inside = np.where((x > low) & (x < high) | (n_inside < _FEWEST), x, np.nan)
    largest = np.nanmax(np.abs(inside), axis=0)
    unit = np.where(largest > 0, largest, 1.0)
    centre, spread = np.nanmean(inside / unit, axis=0), np.nanstd(inside / unit, axis=0)
    with np.errstate(over="ignore"):
        reach = np.where((spread > 0) & (n_inside >= _FEWEST), _FENCE * spread, np.inf) * unit
        return np.clip(x, centre * unit - reach, centre * unit + reach)


def unresolved(values, scale):
    """Which columns vary, but by less than their numbers resolve.

    Parameters
    ----------
    values : float64 ndarray of shape (n_rows, n_features)
        NaN where missing; every column has at least one value.
    scale : ndarray of shape (n_features,)
        As from :func:`column_moments`.

    Returns
    -------
    unresolved : bool ndarray of shape (n_features,)
        A spread of 1 beside an offset of 1e15, or of 1e-310.
    """
    return (scale == 0) & (np.nanmin(values, axis=0) < np.nanmax(values, axis=0))
