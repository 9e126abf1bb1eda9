"""The shape of errors: from standard normal residuals to those that a model really makes.

A linear model gives every missing cell a normal law, while its errors have a peak and long tails:
some days are easy and some are not. With ``u`` a residual in predicted standard deviations, the
map takes the quantiles of a normal ``|z|`` to those of ``|u|`` on cells kept from the fit. It is
odd and monotone, so that joint draws keep their order and dependence.

Deep in a gap of all columns the law is another one: there the errors are those of the recursion
over many steps, which was fitted to single ones. On hourly weather the errors of half a day ahead
are one and a half times as large as predicted, and those of single hours are not. So the map is
learnt twice, on single cells and deep in such gaps, and goes from one to the other with the
predicted deviation.
"""

from dataclasses import dataclass, fields, replace

import torch

# Probabilities of |u| at which the map is fixed; beyond the last one it goes on in proportion.
_LEVELS = torch.cat([torch.linspace(0.05, 0.95, 19), torch.tensor([0.98, 0.99])]).double()
# A column's own shape counts as much as that of all columns from this many hidden cells on.
_OWN = 200.0
# The same in gaps of all columns, whose cells are wrong together.
_OWN_GAPS = 30.0
# With fewer hidden cells or gaps than this there is nothing to see, and the deviations deep in a
# gap must be so many times larger for a map of their own.
_FEWEST, _FEWEST_GAPS, _WIDER = 50, 8, 1.25


@dataclass(frozen=True)
class Shape:
    """Odd monotone maps of residuals, one for every column.

    Attributes
    ----------
    knots : float64 tensor of shape (n_knots,)
        Quantiles of the absolute value of a standard normal variable; the first is 0.
    heights : float64 tensor of shape (K, n_knots)
        Those of the residuals of each column, of single cells.
    far : float64 tensor of shape (K, n_knots)
        The same deep in gaps of all columns.
    reach : float64 tensor of shape (2, K)
        Predicted deviations of each column at which ``heights`` and ``far`` hold.
    """

    knots: torch.Tensor
    heights: torch.Tensor
    far: torch.Tensor
    reach: torch.Tensor

    @classmethod
    def normal(cls, n_columns):
        """Return the map that changes nothing."""
        knots = _knots()
        heights, ends = knots.repeat(n_columns, 1), torch.tensor([0.0, 1.0]).double()
        return cls(knots, heights, heights, ends[:, None].expand(-1, n_columns).clone())

    @classmethod
    def of(cls, residual, column, n_columns):
        """Learn from residuals in standard deviations and the column of each."""
        shape = cls.normal(n_columns)
        if len(residual) < _FEWEST:
            return shape
        heights = _heights(residual, column, n_columns, _OWN)
        return replace(shape, heights=heights, far=heights)

    def reaching(self, near, deep, n_gaps):
        """Learn the map deep in gaps as well.

        Parameters
        ----------
        near, deep : tuples (error, deviation, column)
            Single cells, and cells deep in gaps of all columns.
        n_gaps : int
            Number of such gaps.

        Returns
        -------
        shape : Shape
            This one where there are too few gaps, or where they are no wider than single cells.
        """
        error, deviation, column = deep
        n_columns = len(self.heights)
        if len(error) < _FEWEST or n_gaps < _FEWEST_GAPS or not len(near[0]):
            return self
        per_gap = len(error) / n_gaps / n_columns
        far = _heights(error / deviation, column, n_columns, _OWN_GAPS * per_gap)
        far = torch.lerp(self.heights, far, n_gaps / (n_gaps + _FEWEST_GAPS))
        reach = torch.stack([medians(*near[1:], n_columns), medians(*deep[1:], n_columns)])
        wider = (reach[1] > _WIDER * reach[0])[:, None]
        return replace(self, far=torch.where(wider, far, self.heights), reach=reach)

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return Shape(*(function(getattr(self, f.name)) for f in fields(self)))

    def __call__(self, u, column, deviation):
        """Map residuals of any shape; column and predicted deviation are along the last axis."""
        near, far = self.reach[:, column]
        share = ((deviation - near) / (far - near).clamp(min=1e-9)).clamp(0, 1)[..., None]
        heights = torch.lerp(self.heights[column], self.far[column], share).to(u.dtype)
        size = u.abs()
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


def _heights(residual, column, n_columns, own):
    """Quantiles of the residuals of each column, leaning on those of all where there are few."""
    size = residual.abs()
    everyone, heights = _quantiles(size), []
    for k in range(n_columns):
        mine = size[column == k]
        weight = len(mine) / (len(mine) + own)
        mine = _quantiles(mine) if len(mine) >= _FEWEST else everyone
        heights.append(weight * mine + (1 - weight) * everyone)
    return torch.stack(heights)


def medians(deviation, column, n_columns):
    """Median predicted deviation of each column, that of all where it has none."""
    everyone, own = deviation.median(), [deviation[column == k] for k in range(n_columns)]
    return torch.stack([x.median() if len(x) else everyone for x in own])


def _quantiles(size):
    """Quantiles of absolute residuals, after 0."""
    zero = torch.zeros(1, dtype=torch.float64)
    # torch.quantile refuses more than 2^24 numbers.
    return torch.cat([zero, torch.quantile(size.double()[: 2**24], _LEVELS)])
