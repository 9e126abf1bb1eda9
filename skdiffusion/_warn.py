"""Warnings that name the line of the user."""

import re
import sys
import warnings
from contextlib import contextmanager

# What stands between that line and the warning: this package, what calls it on the user's behalf,
# such as searches and checks of parameters, and what decorators leave on the stack.
_BETWEEN = {"skdiffusion", "sklearn", "joblib", "torch", "contextlib", "functools"}

# A number in a text, and not the one in a name such as x1.
_NUMBER = re.compile(r"(?<!\w)[-+]?\d[\d.]*(e[-+]?\d+)?")


def warn(message, category=UserWarning):
    """Warn at the innermost line that is outside of this package and of those that call it.

    Parameters
    ----------
    message : str
        What happened and what to do.
    category : type, default=UserWarning
        Class of the warning.

    Notes
    -----
    A warning is shown once for every line that it names. In a worker of joblib there is no line of
    the user; the one that started the worker stands for it.

    Examples
    --------
    >>> import warnings
    >>> from skdiffusion._warn import warn
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warn("Rows are few: pass more.")
    >>> str(caught[0].message)
    'Rows are few: pass more.'
    """
    frame, level = sys._getframe(), 1
    while _is_between(frame) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def said_once():
    """Let each warning through once, whatever the numbers in it: copies of one fit say the same."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    first = {(w.category, _NUMBER.sub("#", str(w.message))): w for w in caught[::-1]}
    for w in reversed(first.values()):
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def _is_between(frame):
    """Whether a frame runs a module of the packages between warning and user."""
    return frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN
