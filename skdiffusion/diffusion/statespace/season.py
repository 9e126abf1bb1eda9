r"""Means that come back with the clock: harmonics of the day, the week and the year.

A column has the mean :math:`\mu(t) = \sum_j a_j \cos(2 \pi j t / T) + b_j \sin(2 \pi j t / T)` for
each of a few periods ``T``. What is left is strongly correlated in time, so that plain least
squares would see seasons everywhere; values and waves are first differenced with the damping ``p``
of the column, :math:`x_{t+1} - p\, x_t`, which leaves nearly independent errors [1]_. A period
stays with a column if it lowers Bayes' information criterion. More harmonics than a few must pay on
days, weeks or years left out of the fit: what is left of smooth series does depend on its
neighbours, and any criterion which counts values as independent finds more and more waves.

References
----------
.. [1] D. Cochrane, G. Orcutt, "Application of least squares regression to relationships containing
   auto-correlated error terms", JASA 44, 1949, https://doi.org/10.1080/01621459.1949.10483290.
"""

import math
from dataclasses import dataclass

import torch

# Numbers of harmonics tried: three make a day with a night and a morning, the load of a power grid
# has a dozen, and twenty-four of a week tell its days apart, each with a morning.
_HARMONICS = (3, 6, 12, 24)
# Parts of the cycles, each left out once, and the share of the error that more harmonics
# must gain: what they gain from one row to the next they may lose over a gap.
_N_FOLDS, _GAIN = 4, 0.03
# Neighbouring values that are enough to learn from, and rows whose waves are made at once.
_MOST_PAIRS, _ROWS_AT_ONCE = 100_000, 2**16
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
        shape = (0, 2 * _HARMONICS[0], n_columns)
        return cls(torch.zeros(0, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64))

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return Season(function(self.periods), function(self.coefficients))

    def __call__(self, time):
        """Means (..., K) at times (...)."""
        n_columns = self.coefficients.shape[-1]
        if not len(self.periods):
            nothing = torch.zeros((), dtype=torch.float64, device=time.device)
            return nothing.expand(*time.shape, n_columns)
        parts = [self._means(part) for part in time.flatten().split(_ROWS_AT_ONCE)]
        return torch.cat(parts).view(*time.shape, n_columns)

    def _means(self, time):
        both = zip(self.periods, self.coefficients)
        return sum(_waves(time, period, len(found) // 2) @ found for period, found in both)

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
        pairs = observed[1:] & observed[:-1] & neighbours[:, None]
        step, left = time.diff()[neighbours].median(), values.double()
        for period in periods:
            found = [
                _fit(left[:, k], time, pairs[:, k], period, step) for k in range(values.shape[1])
            ]
            longest = max(map(len, found))
            if not longest:
                continue
            found = torch.stack([_with_waves(x, longest) for x in found], -1)[None]
            one = cls(torch.tensor([float(period)], dtype=torch.float64), found)
            left = left - one(time)
            season = season.and_also(one)
        return season

    def and_also(self, other):
        """The seasons of this one and of another together."""
        n_waves = max(self.coefficients.shape[1], other.coefficients.shape[1])
        both = [
            _with_waves(x.coefficients.transpose(0, 1), n_waves).transpose(0, 1)
            for x in (self, other)
        ]
        return Season(torch.cat([self.periods, other.periods]), torch.cat(both))


def _waves(time, period, n_harmonics):
    """Cosines and sines (..., 2 * n_harmonics) of times."""
    order = torch.arange(1, n_harmonics + 1, dtype=torch.float64, device=time.device)
    angle = (2 * math.pi * (time / period % 1.0))[..., None] * order
    return torch.cat([angle.cos(), angle.sin()], -1)


def _with_waves(coefficients, n_waves):
    """Coefficients (n, ...) with zeros for more cosines and sines, ``n_waves`` in all."""
    if not len(coefficients):
        return coefficients.new_zeros((n_waves, *coefficients.shape[1:]))
    halves = coefficients.unflatten(0, (2, -1))
    more = halves.new_zeros((2, n_waves // 2 - halves.shape[1], *halves.shape[2:]))
    return torch.cat([halves, more], 1).flatten(0, 1)


def _fit(x, time, pairs, period, step):
    """Coefficients of one column, none where they are not worth their number."""
    rows = torch.nonzero(pairs)[:, 0]
    rows = rows[:: -(-len(rows) // _MOST_PAIRS) or 1]
    if len(rows) < 20 * _HARMONICS[0]:
        return x.new_zeros(0)
    before, after = x[rows], x[rows + 1]
    damping = ((before * after).sum() / before.square().sum().clamp(min=1e-12)).clamp(
        0.0, _MOST_DAMPING
    )
    target, n = after - damping * before, len(rows)
    # Harmonics of two rows or less look like those of more.
    most = max(_HARMONICS[0], min(n // 20, round(float(period / step)) // 2))
    tried = [h for h in _HARMONICS if h <= most]
    design = _waves(time[rows + 1], period, tried[-1]) - damping * _waves(
        time[rows], period, tried[-1]
    )
    fold = (torch.div(time[rows], period, rounding_mode="floor") % _N_FOLDS).long()
    best, error = x.new_zeros(0), None
    for n_harmonics in tried:
        first = torch.arange(n_harmonics)
        part = design[:, torch.cat([first, tried[-1] + first])]
        found, error_seen, error_left_out = regression_by_folds(part, target, fold)
        gain = torch.log(target.square().sum() / error_seen.clamp(min=1e-12))
        if error is None and n * gain <= 2 * n_harmonics * math.log(n):
            return best
        if error is None or error_left_out < (1 - _GAIN) * error:
            best, error = found, error_left_out
    return best


def regression_by_folds(design, target, fold):
    """Least squares, judged by parts that are left out.

    Parameters
    ----------
    design : float64 tensor of shape (n_rows, n_coefficients)
        Regressors.
    target : float64 tensor of shape (n_rows,)
        What they are to explain.
    fold : int64 tensor of shape (n_rows,)
        The part of each row, from 0 to 3.

    Returns
    -------
    coefficients : tensor of shape (n_coefficients,)
        Of all rows.
    error_seen, error_left_out : tensors
        Their summed squared errors, and those on each part of coefficients without it.
    """
    grams, products = [], []
    for i in range(_N_FOLDS):
        rows = fold == i
        grams.append(design[rows].T @ design[rows])
        products.append(design[rows].T @ target[rows])
    gram, product, square = sum(grams), sum(products), target.square().sum()
    # Waves of a period that the rows hardly cover are nearly dependent.
    ridge = 1e-6 * len(target) * torch.eye(design.shape[1], dtype=design.dtype)
    left_out = square
    for own, cross in zip(grams, products, strict=True):
        found = torch.linalg.solve(gram - own + ridge, product - cross)
        left_out = left_out - 2 * found @ cross + found @ own @ found
    found = torch.linalg.solve(gram + ridge, product)
    return found, square - 2 * found @ product + found @ gram @ found, left_out
