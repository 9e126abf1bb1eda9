"""Ends of columns that many rows share, such as no rain: draws reach them exactly.

A density may have a peak at such an end, but no point of its own: what is drawn from it lies a
little off the end, half of it beyond. Draws that the density means for the end are put on it; the
density itself stays one of real numbers, to be compared with others.
"""

import numpy as np

# Share of the rows, and their number, from which the value at an end is a spike; other values than
# ends must be more, and most of them different.
_SPIKE, _FEWEST = 0.05, 20
# An end reaches half the way to this quantile of the other values: one odd record near it is none.
_NEAR = 0.01


def spiked_ends(values, columns):
    """Ends of columns that many rows have, while the other values hardly repeat.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_features)
        Values, NaN where missing.
    columns : iterable of int
        Columns that may have such ends; each has a value.

    Returns
    -------
    ends : ndarray of shape (2, 2, n_features)
        Of the lower and the upper end: its value, and the value beyond which draws take it.
        Infinite where there is none.
    """
    ends = np.broadcast_to([[[-np.inf]], [[np.inf]]], (2, 2, values.shape[1])).copy()
    for j in columns:
        x = values[~np.isnan(values[:, j]), j]
        outer = x.min(), x.max()
        others = x[(x > outer[0]) & (x < outer[1])]
        if len(np.unique(others)) <= max(_FEWEST, len(others) / 2):
            continue
        near = np.quantile(others, [_NEAR, 1 - _NEAR], method="closest_observation")
        for side, end in enumerate(outer):
            if (x == end).sum() >= max(_FEWEST, _SPIKE * len(x)):
                ends[side, :, j] = end, end + (near[side] - end) / 2
    return ends


def put_on_ends(draws, ends):
    """Draws (n_samples, n_features) with those about an end put on it."""
    (low, below), (high, above) = ends
    draws = np.where(draws < below, low, draws)
    return np.where(draws > above, high, draws)
