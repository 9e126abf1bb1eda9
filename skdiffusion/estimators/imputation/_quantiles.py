"""Quantiles of draws.

The m-th smallest of n exchangeable draws lies, in expectation, at level m / (n + 1): the rule of
Weibull, under which n draws reach the levels 1 / (n + 1) to n / (n + 1) and none beyond.
"""

import math

import numpy as np


def quantiles_of_draws(draws, levels, axis):
    """Quantiles of ``draws`` along an axis, the levels first."""
    return np.quantile(draws, levels, axis=axis, method="weibull")


def least_draws(level):
    """Number of draws from which a level is reached: 19 for 0.05 and 0.95."""
    # The small shift undoes rounding where the level is reached exactly.
    return math.ceil(1 / min(level, 1 - level) - 1e-9) - 1
