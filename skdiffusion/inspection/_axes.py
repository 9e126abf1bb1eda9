"""Where a display is drawn, and what it is given."""

import numpy as np


def numbers(values, name, n_axes=None, allow_nan=False):
    """Array of numbers that can be drawn; what it lacks is said by name.

    Parameters
    ----------
    values : array-like
        The values.
    name : str
        Their name.
    n_axes : int, optional
        Number of their axes.
    allow_nan : bool, default=False
        Whether NaN is allowed, which leaves a gap.

    Returns
    -------
    values : float64 ndarray
        The values.
    """
    try:
        values = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error
    if n_axes is not None and values.ndim != n_axes:
        raise ValueError(f"{name} must have {n_axes} axes, got shape {values.shape}")
    if values.size == 0:
        raise ValueError(f"{name} is empty: it has shape {values.shape}")
    if np.isinf(values).any() or (not allow_nan and np.isnan(values).any()):
        what = "infinity" if allow_nan else "NaN or infinity"
        raise ValueError(f"{name} contains {what}, which cannot be drawn: leave these out")
    return values


def method_of(estimator, name):
    """A method of an estimator that a display needs."""
    if isinstance(estimator, type):
        raise TypeError(f"{estimator.__name__} is a class: pass a fitted instance")
    if not hasattr(estimator, name):
        raise TypeError(f"{type(estimator).__name__} has no {name}, which this display needs")
    return getattr(estimator, name)


def count_of(value, name):
    """A positive whole number, such as that of bars."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer")
    return int(value)


def axes_for(ax, size):
    """The axes given, or new ones of ``size`` in inches, and their figure."""
    import matplotlib.pyplot as plt

    ax = plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax
    return ax, ax.figure
