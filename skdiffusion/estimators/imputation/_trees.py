"""Boosted trees that correct what a state space says of the missing cells of series.

A state space knows all that is linear, and takes the errors of a column for equally large at all
times. Trees tell, cell by cell, from its mean and deviation, from what is observed before and after
and from the other columns, where it errs and how much: calm nights, a wind that turns, a patient
whose pulse varies. With ``m`` and ``s`` the mean and the deviation of the state space, the trees'
location ``a`` and scale ``b`` and the shape ``h`` of what they leave, the draws are

    y = m + s (a + b h(u)) ,

where ``u`` are the standard normal residuals of the state space's draws: they keep its dependence
over time and columns.

What trees learn from are cells hidden from the state space as they will be missing. Those of half
of the windows teach the trees that foretell those of the other half
(:mod:`skdiffusion.estimators._halves`). As cells are hidden several times, halves are of rows.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from skdiffusion._random import torch_generator
from skdiffusion.diffusion.statespace.base import SeriesGaussian
from skdiffusion.diffusion.statespace.groups import GroupedGaussian
from skdiffusion.diffusion.statespace.shape import Shape
from skdiffusion.diffusion.window.denoiser import GaussianDenoiser
from skdiffusion.diffusion.window.series import nearest_observed
from skdiffusion.estimators._halves import cross_fitted
from skdiffusion.estimators.imputation._base import WIDEST
from skdiffusion.estimators.imputation._stretches import hidden_stretches

# On a year of weather, and of air quality, half as many trees lost 1 %, twice as many gained none.
_LOCATION = {
    "loss": "absolute_error",
    "max_iter": 150,
    "learning_rate": 0.08,
    "min_samples_leaf": 50,
    "early_stopping": False,
}
# Sizes of residuals are noisy: fewer and smaller trees. They learn the root of a size: logarithms
# hang on the smallest, sizes themselves on the largest, and the deviance of gamma laws runs away
# where a spike makes residuals of nearly nothing.
_SCALE = {
    "max_iter": 60,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 100,
    "early_stopping": False,
}
# Cells to learn from, passes that hide them at most, and fewer than this in a half teach nothing.
_MOST_CELLS, _MOST_PASSES, _FEWEST_CELLS = 80_000, 8, 250
# Observations further away than this say nothing.
_FAR = 256
# Residuals beyond so many deviations are outliers; scales below so small a share of one are alike.
_BOUND, _LEAST = 8.0, 0.0025
# Rows before and after a cell at which its column is looked at.
_NEIGHBOURS = (-3, -1, 1, 3)


class TreeDenoiser(GaussianDenoiser):
    """Base whose answers are corrected by trees.

    Parameters
    ----------
    base : SeriesGaussian, GroupedGaussian, RowMixture or WindowBase
        The base.
    trees : Trees or RowTrees
        What corrects its draws.
    """

    name = "trees"

    def __init__(self, base, trees):
        super().__init__(base)
        self.trees = trees

    def draw(self, series, normals, n_draws, **options):
        """Draw the wanted cells of series; see :meth:`ImputationDenoiser.draw`."""
        drawn = self.base.plain().draw(series, normals, n_draws)
        return self.trees.corrected(self.base, series, drawn)


@dataclass(frozen=True)
class Trees:
    """Location and scale of residuals in predicted deviations, and the shape of what is left.

    Parameters
    ----------
    location : HistGradientBoostingRegressor
        Location.
    scale : HistGradientBoostingRegressor
        Mean root of the size of what is left.
    shape : Shape or None
        From standard normal residuals to those in units of the scale; None where they keep theirs.
    """

    location: Any
    scale: Any
    shape: Any

    def corrected(self, base, series, drawn):
        """Correct draws (n_draws, n_wanted) of the wanted cells of series."""
        row, column = torch.nonzero(series.wanted, as_tuple=True)
        inputs, mean, sd = seen_from(base.moments(series), series, row, column)
        residual = self.residuals(inputs, (drawn.double() - mean) / sd, column)
        return (mean + sd * residual).to(drawn.dtype)

    def residuals(self, inputs, score, column):
        """Residuals in predicted deviations in place of those (n_draws, n_cells) of the base."""
        here = lambda x: torch.as_tensor(x, device=score.device)  # noqa: E731
        scale = here(self.scale_of(inputs))
        return here(self.location.predict(inputs)) + self.scaled(score, column, scale)

    def scaled(self, score, column, scale):
        """Residuals without their location."""
        if self.shape is None:
            return scale * score
        shape = self.shape.map(lambda x: torch.as_tensor(x, device=score.device))
        return scale * shape(score, column, scale)

    def scale_of(self, inputs):
        """Scale of cells, as an array."""
        return np.maximum(self.scale.predict(inputs), _LEAST**0.5) ** 2


def fit_trees(base, windows, strategy, seed, as_missing=False):
    """Learn to correct a state space.

    Parameters
    ----------
    base : SeriesGaussian, GroupedGaussian or any other base
        What is to be corrected.
    windows : Windows
        Series; cells of held-out windows are not learnt from.
    strategy : callable
        Target strategy of :mod:`skdiffusion.training.masking`.
    seed : int
        Fixes what is hidden.
    as_missing : bool, default=False
        Whether every other pass hides the gaps of other stretches instead.

    Returns
    -------
    trees : Trees or None
        None for another base than a state space and where there are too few cells.
    """
    if not isinstance(base, (SeriesGaussian, GroupedGaussian)):
        return None
    inputs, residual, even = _lessons(
        base, windows, strategy, as_missing, torch_generator(seed + 3)
    )
    if min(even.sum(), (~even).sum()) < _FEWEST_CELLS:
        return None
    return learnt(inputs, residual, even, base.n_features)


def learnt(inputs, residual, even, n_features):
    """Trees of what was seen of cells, their residuals and the half that each is in."""
    _, foretold = cross_fitted(locating, inputs, residual, (even, ~even))
    location = locating().fit(inputs, residual)
    return spread(location, inputs, residual - foretold, inputs[:, 0].astype(int), n_features)


def locating():
    """What learns the location of residuals."""
    return HistGradientBoostingRegressor(random_state=0, **_LOCATION)


def spread(location, inputs, left, column, n_columns):
    """Learn scale and shape of what a location leaves of residuals that it has not seen.

    Parameters
    ----------
    location : HistGradientBoostingRegressor
        The location.
    inputs : ndarray of shape (n_cells, n_inputs)
        What is seen from cells.
    left : ndarray of shape (n_cells,)
        What is left of their residuals.
    column : int ndarray of shape (n_cells,)
        Their columns, for the shape.
    n_columns : int
        Number of columns.

    Returns
    -------
    trees : Trees
        Location, scale and shape.
    """
    scale = HistGradientBoostingRegressor(random_state=0, **_SCALE)
    trees = Trees(location, scale.fit(inputs, np.sqrt(np.abs(left))), None)
    left, column = torch.from_numpy(left / trees.scale_of(inputs)), torch.from_numpy(column)
    return replace(trees, shape=Shape.of(left, column, n_columns))


def _lessons(base, windows, strategy, as_missing, generator):
    """What is seen of hidden cells, their residuals in predicted deviations, and their half."""
    found, n_cells = [], 0
    for i in range(_MOST_PASSES):
        copied = as_missing and i % 2 == 1
        shown, truth, even = hidden_stretches(windows, None if copied else strategy, generator)
        row, column = torch.nonzero(shown.wanted, as_tuple=True)
        inputs, mean, sd = seen_from(base.moments(shown), shown, row, column)
        residual = ((truth[row, column] - mean) / sd).clamp(-_BOUND, _BOUND)
        found.append((inputs, residual.cpu().numpy(), even[row].cpu().numpy()))
        n_cells += len(row)
        if n_cells >= _MOST_CELLS:
            break
    return (np.concatenate(part)[:_MOST_CELLS] for part in zip(*found, strict=True))


def seen_from(moments, series, row, column):
    """What is seen from cells, and what the state space says of them.

    Parameters
    ----------
    moments : pair of float32 tensors of shape (n_rows, K)
        Mean and deviation of every cell of the series as the state space says.
    series : WindowedSeries
        The series.
    row, column : int64 tensors of shape (n_cells,)
        The cells.

    Returns
    -------
    inputs : float32 ndarray of shape (n_cells, 11 + K)
        Column; predicted mean and deviation; distances of the observations of the column before and
        after; these observations and predicted means of neighbouring rows, less the mean of the
        cell; predicted means of all columns, if they are no more than a network would be given.
    mean, sd : float64 tensors of shape (n_cells,)
        Predicted mean and deviation.
    """
    means, sds = moments
    mean, sd = means[row, column], sds[row, column]
    number = torch.searchsorted(series.offsets, row, right=True) - 1
    first, end = series.offsets[number], series.offsets[number + 1]
    before, after = (at[row, column] for at in nearest_observed(series.observed))
    known = [(before, before >= first, row - before), (after, after < end, after - row)]
    values, distances = [], []
    for at, inside, distance in known:
        near = inside & (distance <= _FAR)
        value = series.values[at.clamp(0, len(means) - 1), column] - mean
        values.append(torch.where(near, value, torch.nan))
        distances.append(torch.where(near, distance, _FAR + 1).to(mean.dtype))
    beside = [
        means[torch.minimum((row + k).clamp(min=first), end - 1), column] - mean
        for k in _NEIGHBOURS
    ]
    own = torch.stack([column.to(mean.dtype), mean, sd, *distances, *values, *beside], 1)
    if means.shape[1] <= WIDEST:
        own = torch.cat([own, means[row]], 1)
    return own.cpu().numpy(), mean.double(), sd.double().clamp(min=1e-3)
