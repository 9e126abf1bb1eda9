"""Columns with few values: grids and categories, as real numbers with a density and back.

A column on a grid of width ``w`` becomes continuous by uniform noise over the cell of each value,
``v = x + w (u - 1/2)``. A categorical column is cut into intervals of the normal distribution as
large as the shares of the categories, ``z = Phi^{-1}(F_{k-1} + u p_k)``: whatever the number of
categories, ``z`` is N(0, 1), and rounding back gives every category its share. By Jensen's
inequality the mean over ``u`` of the log-density bounds the log-probability of the value [1]_,

    E_u log p(v) + log w <= log P(x) ,     E_u [log p(z) - log phi(z)] + log p_k <= log P(k) .

References
----------
.. [1] L. Theis, A. van den Oord, M. Bethge, "A note on the evaluation of generative models",
   ICLR 2016, https://arxiv.org/abs/1511.01844.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from skdiffusion.columns.marginals import LOG_ROOT_2PI

# Rows below which repeated values say little about a column.
_FEWEST_ROWS = 20
# Rows a value that no measured quantity repeats so often.
_OFTEN = 10


class Grid:
    """Equally spaced values.

    Parameters
    ----------
    values : ndarray
        Distinct values of the column, in order.
    width : float
        Distance between neighbours on the grid.
    """

    def __init__(self, values, width):
        self.low, self.high, self.width = values[0], values[-1], width

    def spread(self, values, uniforms):
        """Uniform values over the cell of each grid value."""
        return values + self.width * (uniforms - 0.5)

    def snap(self, values):
        """Nearest grid value inside the range that was seen."""
        steps = np.rint((np.clip(values, self.low, self.high) - self.low) / self.width)
        return self.low + steps * self.width

    def log_volume(self, values):
        """Nothing: the density is that of the spread values."""
        return 0.0


class Category:
    """Categories as intervals of the normal distribution.

    Parameters
    ----------
    shares : ndarray of shape (n_categories,)
        Positive shares that sum to one.
    """

    def __init__(self, shares):
        self.shares = shares
        self.ends = np.append(0.0, np.cumsum(shares))
        self.ends[-1] = 1.0

    def spread(self, codes, uniforms):
        """Normal scores inside the interval of each code."""
        known = ~np.isnan(codes)
        scores = np.full(len(codes), np.nan)
        k = codes[known].astype(int)
        scores[known] = ndtri(self.ends[k] + uniforms[known] * self.shares[k])
        return scores

    @property
    def inner_ends(self):
        """Normal scores at which the interval of one code ends and the next begins."""
        return ndtri(self.ends[1:-1])

    def snap(self, scores):
        """Codes of normal scores."""
        codes = np.searchsorted(self.ends, ndtr(scores), side="right") - 1
        return np.clip(codes, 0, len(self.shares) - 1).astype(float)

    def log_volume(self, scores):
        """What turns the density of the score into a probability; nothing for missing scores."""
        share = self.shares[self.snap(scores).astype(int)]
        return np.nan_to_num(np.log(share) + 0.5 * scores**2 + LOG_ROOT_2PI)


def spread(codes, discrete, uniforms):
    """Rows without ties.

    Parameters
    ----------
    codes : float64 ndarray of shape (n_samples, n_features)
        Numbers, and codes of categories.
    discrete : dict of int to Grid or Category
        The discrete columns.
    uniforms : ndarray of shape (n_samples, n_discrete)
        Uniforms in (0, 1), in the order of the numbers of the columns.

    Returns
    -------
    values : float64 ndarray of shape (n_samples, n_features)
        The rows with their discrete columns spread.
    """
    values = codes.copy()
    for j, u in zip(sorted(discrete), uniforms.T, strict=True):
        values[:, j] = discrete[j].spread(codes[:, j], u)
    return values


def snap(values, discrete):
    """Put the discrete columns of continuous rows back on their values."""
    codes = values.copy()
    for j, column in discrete.items():
        codes[:, j] = column.snap(values[:, j])
    return codes


def is_tied(column):
    """Whether a column of numbers that is not constant repeats more than half of its values."""
    column = column[~np.isnan(column)]
    return len(column) >= _FEWEST_ROWS and 1 < len(np.unique(column)) <= len(column) / 2


def has_few_values(column):
    """Whether a column of numbers has fewer values than say something, each of them often."""
    column = column[~np.isnan(column)]
    n_values = len(np.unique(column))
    return 1 < n_values < _FEWEST_ROWS and len(column) >= _OFTEN * n_values
