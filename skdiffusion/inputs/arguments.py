"""Plain arguments: numbers that must be whole, positive or finite."""

from numbers import Integral


def positive_int(value, name):
    """Check a positive integer argument."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)
