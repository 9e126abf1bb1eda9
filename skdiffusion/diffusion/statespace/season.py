r"""Means that come back with the clock: harmonics of the day, the week and the year.

A column has the mean :math:`\mu(t) = \sum_j a_j \cos(2 \pi j t / T) + b_j \sin(2 \pi j t / T)` for
each of a few periods ``T``. What is left is strongly correlated in time, so that plain least
squares would see seasons everywhere; values and waves are first differenced with the damping ``p``
of the column, :math:`x_{t+1} - p\, x_t`, which leaves nearly independent errors [1]_. A period
stays with a column if it lowers Bayes' information criterion.

References
----------
.. [1] D. Cochrane, G. Orcutt, "Application of least squares regression to relationships containing
   auto-correlated error terms", JASA 44, 1949, https://doi.org/10.1080/01621459.1949.10483290.
"""

import math
from dataclasses import dataclass

import torch

# Three harmonics make a day with a night and a morning; more follow noise.
_HARMONICS = 3
# A damping nearer to 1 would difference the season away.
_MOST_DAMPING = 0.98


@dataclass(frozen=True)
class Season:
    """Periodic means of columns.

    Attributes
    ----------
    periods : float64 tensor of shape (n_periods,)
        In the unit of the times.
    coefficients : float64 tensor of shape (n_periods, 2 * n_harmonics, K)
        Of the cosines and sines; 0 where a column has no such season.
    """

    periods: torch.Tensor
    coefficients: torch.Tensor

    @classmethod
    def none(cls, n_columns):
        """Return the mean 0."""
        shape = (0, 2 * _HARMONICS, n_columns)
        return cls(torch.zeros(0, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64))

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return Season(function(self.periods), function(self.coefficients))

    def __call__(self, time):
        """Means (..., K) at times (...)."""
        mean = torch.zeros((), dtype=torch.float64, device=time.device)
        for period, coefficients in zip(self.periods, self.coefficients):
            mean = mean + _waves(time, period) @ coefficients
        return mean.expand(*time.shape, self.coefficients.shape[-1])

    @classmethod
    def learn(cls, values, observed, time, neighbours, periods):
        """Learn from rows that lie end to end.

        Parameters
        ----------
        values : tensor of shape (n_rows, K)
            Standardised values.
        observed : bool tensor of shape (n_rows, K)
            Which are known.
        time : float64 tensor of shape (n_rows,)
            Times.
        neighbours : bool tensor of shape (n_rows - 1,)
            Whether a row and the next are neighbours in one series.
        periods : sequence of float
            Periods to try.

        Returns
        -------
        season : Season
            Periods that serve no column are left out.
        """
        season = cls.none(values.shape[1])
        if not len(periods):
            return season
        left = values.double()
        for period in periods:
            waves = _waves(time, period)
            pairs = observed[1:] & observed[:-1] & neighbours[:, None]
            found = torch.stack(
                [_fit(left[:, k], waves, pairs[:, k]) for k in range(values.shape[1])], 1
            )
            if not bool((found != 0).any()):
                continue
            one = torch.tensor([float(period)], dtype=torch.float64)
            season = cls(
                torch.cat([season.periods, one]), torch.cat([season.coefficients, found[None]])
            )
            left = left - waves @ found
        return season


def _waves(time, period):
    """Cosines and sines (..., 2 * n_harmonics) of times."""
    order = torch.arange(1, _HARMONICS + 1, dtype=torch.float64, device=time.device)
    angle = (2 * math.pi * (time / period % 1.0))[..., None] * order
    return torch.cat([angle.cos(), angle.sin()], -1)


def _fit(x, waves, pairs):
    """Coefficients of one column, 0 where they are not worth their number."""
    nothing = waves.new_zeros(waves.shape[1])
    before, after = x[:-1][pairs], x[1:][pairs]
    n, n_waves = len(before), len(nothing)
    if n < 10 * n_waves:
        return nothing
    damping = ((before * after).sum() / before.square().sum().clamp(min=1e-12)).clamp(
        0.0, _MOST_DAMPING
    )
    target = after - damping * before
    design = waves[1:][pairs] - damping * waves[:-1][pairs]
    # Waves of a period that the rows hardly cover are nearly dependent.
    gram = design.T @ design + 1e-6 * n * torch.eye(n_waves, dtype=design.dtype)
    coefficients = torch.linalg.solve(gram, design.T @ target)
    gain = target.square().sum() / (target - design @ coefficients).square().sum().clamp(min=1e-12)
    return coefficients if n * torch.log(gain) > n_waves * math.log(n) else nothing
