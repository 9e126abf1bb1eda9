r"""The course that all series of a panel have in common: growth with age, a drug that wears off.

Series ``i`` has the values :math:`x_i(t) = a_i + \mu(t) + \dots`, with a level of its own and a
course :math:`\mu` that goes straight from knot to knot. Both sides less their means over each
series leave a regression for :math:`\mu`; the number of knots, up to one for every time, is the one
with the least error on series left out of the regression, and none where that gains nothing. What
is left is for the state space, which knows levels.

A state space knows time only as distance: of a dozen patients after a dose it fills the peak of one
by the way back to its mean, although eleven others have their peak at the same hour.
"""

from dataclasses import dataclass

import torch

from skdiffusion.diffusion.statespace.season import regression_by_folds

# Fewer series, or fewer values, have nothing in common that could be told from chance.
_FEWEST_SERIES, _FEWEST_VALUES = 8, 24
# Numbers of knots tried, and times up to which each has one of its own.
_KNOTS, _MOST_KNOTS = (2, 3, 5, 9, 17), 256
# Share of the error on series left out that a course must gain, more among few series (walks seem
# to go somewhere together: 30 in one panel of a hundred, 8 in one of ten), and more knots must.
_GAIN, _GAIN_OF_SERIES, _GAIN_OF_KNOTS = 0.05, 0.8, 0.03
# Parts of the series that are left out in turn, rows that are enough to learn from, and weights of
# knots at rows that are held at once: 64 MB.
_N_FOLDS, _MOST_ROWS, _MOST_WEIGHTS = 4, 100_000, 2**23
# The part of the range of times at its end that leads on, and how far.
_END, _ON = 1 / 3, 1 / 4


@dataclass(frozen=True)
class Profile:
    """Means of columns by the time in a panel, straight from knot to knot and level beyond them.

    Attributes
    ----------
    times : float64 tensor of shape (n_knots,)
        Of the knots, rising; none where series have no course in common.
    means : float64 tensor of shape (n_knots, K)
        The means there.
    """

    times: torch.Tensor
    means: torch.Tensor

    @classmethod
    def none(cls, n_columns):
        """Return the mean 0."""
        return cls(torch.zeros(0).double(), torch.zeros((0, n_columns)).double())

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return Profile(function(self.times), function(self.means))

    def __call__(self, time):
        """Means (..., K) at times (...)."""
        if not len(self.times):
            return self.means.new_zeros(()).expand(*time.shape, self.means.shape[1])
        return interpolated(time, self.times, self.means)

    @classmethod
    def learn(cls, values, observed, time, offsets):
        """Learn from series that lie end to end.

        Parameters
        ----------
        values : tensor of shape (n_rows, K)
            Standardised values.
        observed : bool tensor of shape (n_rows, K)
            Which are known.
        time : float64 tensor of shape (n_rows,)
            Times.
        offsets : int64 tensor of shape (n_series + 1,)
            First row of every series, and the number of rows.

        Returns
        -------
        profile : Profile
            Of all columns, 0 where a column has none.
        """
        n_series = min(len(offsets), int((offsets <= _MOST_ROWS).sum())) - 1
        nothing = cls.none(values.shape[1])
        if n_series < _FEWEST_SERIES:
            return nothing
        rows = slice(0, int(offsets[n_series]))
        number = torch.repeat_interleave(torch.arange(n_series), offsets[: n_series + 1].diff())
        values, observed, time = (x[rows] for x in (values, observed, time))
        times = time[observed.any(1)].unique()
        if len(times) < _KNOTS[1]:
            return nothing
        found = [_column(x, seen, time, number, times) for x, seen in zip(values.T, observed.T)]
        knots = [column[0] for column in found if column is not None]
        if not knots:
            return nothing
        # All columns have knots where any has one.
        knots = torch.cat(knots).unique()
        flat = torch.zeros_like(knots)
        heights = [
            flat if column is None else interpolated(knots, column[0], column[1][:, None])[:, 0]
            for column in found
        ]
        return cls(knots, torch.stack(heights, 1))


def interpolated(time, knots, heights):
    """Heights (..., K) at times (...), straight from knot to knot and level beyond them."""
    flat = time.flatten().clamp(float(knots[0]), float(knots[-1]))
    right = torch.searchsorted(knots, flat).clamp(1, len(knots) - 1)
    left, after = knots[right - 1], knots[right]
    weight = ((flat - left) / (after - left))[:, None]
    return torch.lerp(heights[right - 1], heights[right], weight).view(*time.shape, -1)


def _hats(time, knots):
    """Weights (n, n_knots) of the knots at times."""
    return interpolated(time, knots, torch.eye(len(knots), dtype=torch.float64))


def _column(x, seen, time, number, times):
    """Knots and heights of a column; None where it has none."""
    several = torch.bincount(number[seen], minlength=int(number[-1]) + 1) > 1
    if int(several.sum()) < _FEWEST_SERIES:
        return None
    rows = torch.nonzero(seen & several[number])[:, 0]
    number = torch.unique(number[rows], return_inverse=True)[1]
    target, time = _within(x[rows, None].double(), number)[:, 0], time[rows]
    square = float(target.square().sum())
    if len(rows) < _FEWEST_VALUES or not square > 0:
        return None
    best, error = None, (1 - _GAIN - _GAIN_OF_SERIES / int(several.sum())) * square
    for n in (*_KNOTS, len(times)):
        if n > min(len(times), _MOST_KNOTS, _MOST_WEIGHTS // len(rows)):
            continue
        knots = torch.quantile(times, torch.linspace(0, 1, n, dtype=torch.float64))
        hats = _hats(time, knots)
        design = _within(hats, number)
        found, _, left_out = regression_by_folds(design, target, number % _N_FOLDS)
        if left_out < error:
            # Where in between it lies is for the levels: 0 on average.
            best, error = (knots, found - (hats @ found).mean()), (1 - _GAIN_OF_KNOTS) * left_out
    return None if best is None else _led_on(*best)


def _within(x, number):
    """Rows less their means over each series."""
    n = torch.bincount(number)[:, None]
    sums = torch.zeros((len(n), x.shape[1]), dtype=x.dtype).index_add_(0, number, x)
    return x - (sums / n)[number]


def _led_on(knots, heights):
    """With a knot before and after, where the slopes of the ends lead."""
    length = knots[-1] - knots[0]
    beyond = []
    for sign in (-1, 1):
        end = 0 if sign < 0 else -1
        near = (knots - knots[end]).abs() <= _END * length
        near[1 if sign < 0 else -2] = True
        part = knots[near] - knots[near].mean()
        slope = part @ (heights[near] - heights[near].mean()) / part.square().sum()
        step = sign * _ON * length
        beyond.append((knots[end] + step, heights[end] + slope * step))
    (before, low), (after, high) = beyond
    return torch.cat([before[None], knots, after[None]]), torch.cat(
        [low[None], heights, high[None]]
    )
