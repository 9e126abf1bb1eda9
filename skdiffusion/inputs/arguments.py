"""Plain arguments: numbers that must be whole, positive or levels of quantiles."""

import inspect
from numbers import Integral

import numpy as np


def positive_int(value, name):
    """Check a positive integer argument."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)


def even_number(value, name):
    """Return a positive even number as an int: draws in pairs, which give a standard error."""
    if positive_int(value, name) % 2:
        raise ValueError(f"{name}={value!r} must be an even number, 2 or more.")
    return int(value)


def finite_number(value, name):
    """Return one finite number as a float."""
    array = np.asarray(None if isinstance(value, list | tuple) else value)
    if array.ndim or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise ValueError(f"{name}={value!r} must be a finite number.")
    return float(array)


def quantile_levels(quantiles):
    """Check levels of quantiles and return them as a 1-D array."""
    levels = np.atleast_1d(np.asarray(quantiles))
    if (
        levels.dtype.kind not in "iuf"
        or levels.ndim != 1
        or not levels.size
        or not ((levels > 0) & (levels < 1)).all()
    ):
        raise ValueError(f"quantiles={quantiles!r} must be levels strictly between 0 and 1.")
    return levels.astype(float)


def layer_sizes(sizes):
    """Check widths of hidden layers and return them as a tuple of ints."""
    sizes = tuple(sizes)
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise ValueError(f"hidden_layer_sizes={sizes!r} must be positive integers.")
    return tuple(map(int, sizes))


def in_order(given, names, argument):
    """An array of what is given for columns; a frame is matched by name.

    Parameters
    ----------
    given : object
        A frame, or anything else, which comes back as it is.
    names : sequence
        Names of the columns, in order.
    argument : str
        What to call it in messages.
    """
    if not hasattr(given, "columns"):
        return given
    if sorted(map(str, given.columns)) != sorted(map(str, names)):
        raise ValueError(
            f"{argument} has the columns {list(given.columns)}, but X has {list(names)}: name them "
            "alike."
        )
    return given[list(names)].to_numpy()


def require_same_order(X, beside, argument):
    """Raise for a Series or frame beside a frame X whose index has the rows in another order.

    An index of other rows says nothing, as one that was reset; the rows are then taken in turn.
    """
    mine, theirs = getattr(X, "index", None), getattr(beside, "index", None)
    if not (hasattr(mine, "equals") and hasattr(theirs, "equals")):
        return
    same = len(mine) == len(theirs) and not mine.equals(theirs) and mine.is_unique
    if same and theirs.is_unique and mine.isin(theirs).all():
        raise ValueError(
            f"the index of {argument} has the rows of X in another order: take "
            f"{argument}.loc[X.index]."
        )


def require_arguments(function, name, *arguments):
    """Refuse a function of the user's that cannot be called with some positional arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some functions of compiled modules do not say.
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(
            f"{name} is called as {name}({', '.join(arguments)}), but takes {signature}."
        ) from error
