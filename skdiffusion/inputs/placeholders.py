"""Numbers that stand for missing values, such as -999: they are taken for values."""

import numpy as np

from skdiffusion._warn import warn

# It stands there so often, beside so many different values among so many.
_FEWEST, _FEWEST_OTHERS, _ENOUGH = 2, 8, 1000
# Ranges of the others that a largest value must be away from them.
_FAR = 10


def warn_placeholders(values, names, remedy):
    """Name the columns with a number far from all others that stands there again and again.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        NaN where missing.
    names : sequence of length n_columns
        Names of the columns.
    remedy : str
        What to do, which ``{value}`` may stand in.
    """
    said = {}
    for j, name in enumerate(names):
        for value, n, low, high in _placeholders(values[:, j]):
            said.setdefault(value, []).append(f"{n} times in {name} ({low:g} to {high:g})")
    for value, places in said.items():
        warn(
            f"{value:g} stands far from all other values of X: {', '.join(places)}. If it stands "
            f"for missing values, {remedy.format(value=f'{value:g}')}."
        )


def _placeholders(x):
    """Outermost values that repeat and are further from the others than these from each other; how
    often they stand there, and the least and the largest of the others.

    Doses that double and incomes without end have a largest value like that: it must be of nines,
    or far out indeed. A least one is 0 or negative.
    """
    x = x[~np.isnan(x)].astype(float)
    if not len(x):
        return
    least, largest = x.min(), x.max()
    others = x[(x > least) & (x < largest)]
    if len(np.unique(others[:_ENOUGH])) < _FEWEST_OTHERS:
        return
    low, high = others.min(), others.max()
    spread = high - low
    far = 1 if set(f"{largest:g}") == {"9"} else _FAR
    # A quotient: ten times the range of the largest floats is none.
    ends = {least: least <= 0 and low - least > spread, largest: (largest - high) / far > spread}
    for value in (value for value, is_far in ends.items() if is_far):
        if (n := int((x == value).sum())) >= _FEWEST:
            yield value, n, low, high
