"""Plain arguments: numbers that must be whole, positive or levels of quantiles."""

from numbers import Integral

import numpy as np


def positive_int(value, name):
    """Check a positive integer argument."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)


def quantile_levels(quantiles):
    """Check levels of quantiles and return them as a 1-D array."""
    levels = np.atleast_1d(np.asarray(quantiles, dtype=float))
    if levels.ndim != 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"quantiles={quantiles!r} must be levels strictly between 0 and 1.")
    return levels
