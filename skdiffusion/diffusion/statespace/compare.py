"""Which kind of model fills gaps best, and goes on best beyond the end, on rows that it is not
fitted to.

An autoregression of columns that grow together takes their common growth for dependence, and in a
long gap follows it to somewhere else: of exchange rates, a seventh of whose months are missing in
runs, the CRPS is 1.05 deviations, and .35 by a random walk. Cells scattered over a series do not
show it. Each kind is therefore fitted anew without some more gaps, as long and wide as those of
the series, and once to the first three quarters of it, after which they go on from several rows.
The errors that they make there also tell how wide bands must be deep in gaps.
"""

from dataclasses import dataclass, field

import torch

from skdiffusion.diffusion.statespace.judge import judged
from skdiffusion.diffusion.statespace.pieces import has_gaps, hide_as_missing
from skdiffusion.diffusion.statespace.shape import medians

# Times that gaps are hidden, and the share of the cells that go.
_N_COMPARED, _SHARE_COMPARED = 2, 0.2
# Where, in shares of a series, it is gone on from: the first is where the fit ends. And how far, in
# rows and as a share.
_ORIGINS, _MOST_AHEAD, _SHARE_AHEAD = (0.75, 0.81, 0.87, 0.93), 24, 0.07
# What is beyond the end counts for so much of what is in gaps; a series without gaps is there to be
# gone on from.
_WEIGHT_OF_ENDS, _WITHOUT_GAPS = 0.5, 2.0
# Logarithm of the loss that must be gained.
_GAIN = 0.02
# A cell is deep in a gap if so many times less certain than a single one.
_DEEP = 1.25


@dataclass
class Unseen:
    """Errors of a kind of model in cells that it was not fitted to.

    Attributes
    ----------
    crps : list of float
        Summed over the cells, of each time that some were hidden.
    fits : list of Fit
        What was said of them.
    runs : list of int64 tensors
        The gap that each of their cells lies in.
    """

    crps: list = field(default_factory=list)
    fits: list = field(default_factory=list)
    runs: list = field(default_factory=list)

    def split(self, deviation, column, n_columns):
        """Errors near to what is known and deep in gaps, by the deviations of single cells.

        Returns
        -------
        near, deep : tuples (error, deviation, column)
            Of each cell.
        n_gaps : int
            Number of gaps that the deep ones lie in.
        """
        single = medians(deviation, column, n_columns)
        cells = [
            torch.cat([getattr(one, name) for one in self.fits])
            for name in ("error", "deviation", "column")
        ]
        deep = cells[1] > _DEEP * single[cells[2]]
        in_gaps = zip(self.runs, deep.split([len(run) for run in self.runs]))
        n_gaps = sum(len(run[chosen].unique()) for run, chosen in in_gaps)
        return tuple(x[~deep] for x in cells), tuple(x[deep] for x in cells), n_gaps


def compare(fits, pieces, generator):
    """Say which of some kinds of models does best.

    Parameters
    ----------
    fits : list of callables
        From pieces to a fitted state space.
    pieces : Pieces
        Standardised series.
    generator : torch.Generator
        Source of the gaps.

    Returns
    -------
    best : int
        Number of the kind, by the CRPS of what was hidden.
    unseen : Unseen
        Its errors.
    """
    found = [Unseen() for _ in fits]
    for _ in range(_N_COMPARED):
        hidden = hide_as_missing(pieces.observed, pieces.real, _SHARE_COMPARED, generator)
        _judge(fits, found, pieces, hidden, [(pieces, hidden)])
    n_rows = pieces.real.sum(1, keepdim=True)
    row = torch.arange(pieces.values.shape[1])
    origins = [(n_rows * share).long() for share in _ORIGINS]
    n_ahead = (n_rows * _SHARE_AHEAD).long().clamp(1, _MOST_AHEAD)
    asked = []
    for origin in origins:
        beyond = ((row >= origin) & (row < origin + n_ahead))[..., None] & pieces.observed
        asked.append((pieces.without((row >= origin + n_ahead)[..., None]), beyond))
    _judge(fits, found, pieces, (row >= origins[0])[..., None] & pieces.observed, asked)
    weight = _WEIGHT_OF_ENDS if has_gaps(pieces.observed, pieces.real) else _WITHOUT_GAPS
    loss = torch.tensor([_loss(weight, *unseen.crps) for unseen in found])
    # The first kind stays unless another one gains enough.
    loss[0] -= _GAIN
    best = int(loss.nan_to_num(nan=torch.inf).argmin())
    return best, found[best]


def _loss(weight, *crps):
    """Logarithm of the CRPS in gaps and beyond the end; where no cell was asked for, 0."""
    *gaps, ends = torch.tensor(crps).double()
    gaps, ends = (x.log() if x > 0 else x for x in (sum(gaps), ends))
    return gaps + weight * ends


def _judge(fits, found, pieces, hidden, asked):
    """Ask models fitted without hidden cells for cells of some pieces."""
    left = pieces.without(hidden)
    for fit, unseen in zip(fits, found):
        model = fit(left)
        answers = [judged(model, *each)[0] for each in asked]
        asked_for = [fit for fit in answers if len(fit.error)]
        unseen.crps.append(sum(fit.crps * len(fit.error) for fit in asked_for))
        unseen.fits += answers
        unseen.runs += [_runs(cells) for _, cells in asked]


def _runs(cells):
    """Number of the run of rows, of any columns, that each of some cells (B, T, K) lies in."""
    rows = cells.any(2)
    begins = rows & ~torch.nn.functional.pad(rows[:, :-1], (1, 0))
    number = begins.flatten().cumsum(0).view_as(rows)
    return number[..., None].expand_as(cells)[cells]
