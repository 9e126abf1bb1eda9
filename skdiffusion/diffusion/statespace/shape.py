"""The shape of errors: from standard normal residuals to those that a model really makes.

A linear model gives every missing cell a normal law, while its errors have a peak and long tails:
some days are easy and some are not. With ``u`` a residual in predicted standard deviations, the
map takes the quantiles of a normal ``|z|`` to those of ``|u|`` on cells kept from the fit. It is
odd and monotone, so that joint draws keep their order and dependence.
"""

from dataclasses import dataclass

import torch

# Probabilities of |u| at which the map is fixed; beyond the last one it goes on in proportion.
_LEVELS = torch.cat([torch.linspace(0.05, 0.95, 19), torch.tensor([0.98, 0.99])]).double()
# A column's own shape counts as much as that of all columns from this many hidden cells on.
_OWN = 200.0
# With fewer hidden cells than this there is nothing to see.
_FEWEST = 50


@dataclass(frozen=True)
class Shape:
    """Odd monotone maps of residuals, one for every column.

    Attributes
    ----------
    knots : float64 tensor of shape (n_knots,)
        Quantiles of the absolute value of a standard normal variable; the first is 0.
    heights : float64 tensor of shape (K, n_knots)
        Those of the residuals of each column.
    """

    knots: torch.Tensor
    heights: torch.Tensor

    @classmethod
    def normal(cls, n_columns):
        """Return the map that changes nothing."""
        knots = _knots()
        return cls(knots, knots.repeat(n_columns, 1))

    @classmethod
    def of(cls, residual, column, n_columns):
        """Learn from residuals in standard deviations and the column of each."""
        shape, size = cls.normal(n_columns), residual.abs()
        if len(size) < _FEWEST:
            return shape
        everyone = _quantiles(size)
        heights = shape.heights.clone()
        for k in range(n_columns):
            own = size[column == k]
            weight = len(own) / (len(own) + _OWN)
            mine = _quantiles(own) if len(own) >= _FEWEST else everyone
            heights[k] = weight * mine + (1 - weight) * everyone
        return cls(shape.knots, heights)

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return Shape(function(self.knots), function(self.heights))

    def __call__(self, u, column):
        """Map residuals of any shape; ``column`` tells their columns along the last axis."""
        size, heights = u.abs(), self.heights[column].to(u.dtype)
        knots = self.knots.to(u.dtype)
        # The last interval goes on beyond its end.
        right = torch.searchsorted(knots, size.contiguous()).clamp(1, len(knots) - 1)
        heights = heights.expand(*u.shape, -1)
        high, low = (heights.gather(-1, i[..., None])[..., 0] for i in (right, right - 1))
        weight = (size - knots[right - 1]) / (knots[right] - knots[right - 1])
        inside = low + weight * (high - low)
        return torch.where(size > knots[-1], heights[..., -1] * size / knots[-1], inside) * u.sign()


def _knots():
    """Quantiles of the absolute value of a standard normal variable, after 0."""
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.cat([zero, torch.special.ndtri(0.5 + 0.5 * _LEVELS)])


def _quantiles(size):
    """Quantiles of absolute residuals, after 0."""
    zero = torch.zeros(1, dtype=torch.float64)
    # torch.quantile refuses more than 2^24 numbers.
    return torch.cat([zero, torch.quantile(size.double()[: 2**24], _LEVELS)])
