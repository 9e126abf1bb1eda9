"""Stretches of long series some of whose cells are hidden, to learn from and to judge by."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from skdiffusion.diffusion.statespace.pieces import has_gaps, hide_as_missing

# Series are shown in stretches of so many rows, of which so many rows in all: what a smoother keeps
# of a row is the square of its states.
_STRETCH, _ROWS = 512, 2**14
# Of a stretch of several windows every other one hides cells, so that gaps have surroundings.
_SHARE_OF_WINDOWS = 0.5
# Share of the cells that are hidden as others are missing.
_SHARE = 0.15
# Series of fewer windows than this have no gaps that are longer.
_FEWEST_WINDOWS = 4


class Stretches(NamedTuple):
    """Stretches with hidden cells, their rows end to end.

    Attributes
    ----------
    shown : WindowedSeries
        What is left; wanted is what is hidden.
    truth : tensor of shape (n_rows, K)
        The values.
    even : bool tensor of shape (n_rows,)
        Which of two halves of the windows each row is in.
    """

    shown: Any
    truth: torch.Tensor
    even: torch.Tensor


def misses_stretches(windows):
    """Whether series are long, and say what gaps they have."""
    series = windows.series
    shortest = int(series.offsets.diff().min())
    if series.length == 1 or shortest < _FEWEST_WINDOWS * series.length:
        return False
    observed = series.observed[None]
    return has_gaps(observed, torch.ones_like(observed[..., 0]))


def hidden_stretches(windows, strategy, generator, *, held_out=False):
    """Hide cells of stretches of series.

    Parameters
    ----------
    windows : Windows
        The series.
    strategy : callable or None
        Target strategy for windows; None hides the gaps of other stretches.
    generator : torch.Generator
        Source of what is hidden.
    held_out : bool, default=False
        Whether cells of the windows held out are wanted, or those of all others.

    Returns
    -------
    stretches : Stretches
        Cells that are not wanted are not hidden, but where gaps are copied.
    """
    series = windows.series
    size = min(_STRETCH, int(series.offsets.diff().min()))
    stretches = replace(series, length=size)
    starts = stretches.regular_starts(size)
    chosen = torch.randperm(len(starts), generator=generator)[: max(1, _ROWS // size)]
    starts = starts[chosen.sort().values.to(starts.device)]
    shown = stretches.around(starts, 0)
    wanted = torch.full((len(series.values),), not held_out, device=series.values.device)
    wanted[series.rows(windows.held_out)] = held_out
    rows = stretches.rows(starts)
    wanted, even = wanted[rows][..., None], rows.flatten() // series.length % 2 == 0
    observed = shown.observed.view(len(starts), size, -1)
    if strategy is None:
        real = torch.ones(observed.shape[:2], dtype=torch.bool)
        hidden = hide_as_missing(observed.cpu(), real, _SHARE, generator).to(observed.device)
    else:
        hidden = _in_windows(observed.cpu(), series.length, strategy, generator)
        hidden = hidden.to(observed.device) & wanted
    hidden, wanted = hidden.flatten(0, 1), (hidden & wanted).flatten(0, 1)
    truth = shown.values
    values, observed = truth.masked_fill(hidden, 0.0), shown.observed & ~hidden
    shown = replace(shown, values=values, observed=observed, wanted=wanted, length=series.length)
    return Stretches(shown, truth, even)


def _in_windows(observed, length, strategy, generator):
    """Observed cells of stretches (n, T, K) that a strategy for windows hides."""
    n, size, n_features = observed.shape
    n_windows = size // length
    first = int(torch.randint(size - n_windows * length + 1, (1,), generator=generator))
    inside = slice(first, first + n_windows * length)
    cut = observed[:, inside].reshape(-1, length, n_features)
    pool = lambda k: cut[torch.randint(len(cut), (k,), generator=generator)]  # noqa: E731
    hidden = strategy(cut, generator, pool)
    if n_windows > 1:
        hidden = hidden & (torch.rand(len(cut), 1, 1, generator=generator) < _SHARE_OF_WINDOWS)
    targets = torch.zeros_like(observed)
    targets[:, inside] = hidden.view(n, -1, n_features)
    return targets
