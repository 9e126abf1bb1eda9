"""Boosted trees that correct what a mixture of Gaussians says of the missing cells of rows.

As for series (:mod:`._trees`), but a column has trees of its own for the location: in a table each
is another thing. They see the row as the mixture completes it, and how sure it is of the column.
Several components keep their shape, which may have two peaks: with ``m`` and ``s`` the mean and the
deviation of the mixture, the trees' location ``a`` and scale ``b`` and the residual ``r = (x - m) /
s`` of a draw ``x``,

    y = m + s (a + b r) ;

of a single Gaussian ``r`` is mapped to the shape of what the trees leave, as for series.

A mixture of some dozen components has met the rows that it has learnt from, and so have trees: on
the cells that they know their errors are too small. How large errors are, and whether a column
gains at all, is learnt from cells that are hidden once and for all from another mixture of that
size and from trees on it.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from skdiffusion._random import torch_generator
from skdiffusion.diffusion.window.fit import free_gaussian
from skdiffusion.diffusion.window.mixture import RowMixture
from skdiffusion.diffusion.window.series import alike
from skdiffusion.estimators.imputation._row_mixtures import (
    ROWS_TO_LEARN,
    fit_mixture,
    more_than_two,
)
from skdiffusion.estimators.imputation._trees import spread
from skdiffusion.metrics._crps import fair_crps

# Fewer rows teach trees less than they forget; of more columns, each of which has trees, they take
# minutes.
_FEWEST_ROWS, _MOST_COLUMNS = 300, 64
# A column with fewer hidden cells than this is left to the mixture: the least for a split.
_FEWEST_CELLS = 40
# Share of the cells that a pass hides, roughly.
_SHARE = 0.25
# Passes that hide cells: so many lessons a column, but at most so often. With 6, 12 and 24 passes
# the mean error of 4000 rows of a house's sensors fell by 12, 14 and 16 %, at some seconds a pass.
_LESSONS, _MOST_PASSES = 20_000, 12
# How often cells are hidden once and for all: so many rows in all tell how large errors are. Of
# 1000 rows once, every second column that gains looked as if it did not.
_ROWS_TO_JUDGE, _MOST_TRIALS = 4000, 3
# Share of what is hidden by then that is hidden once and for all: the cells to be filled have their
# row as it is, and trees that need several columns gain nothing where half of these are hidden too.
_THINNED = 0.5
# Standard errors of a gain that are needed to keep trees; of no use, they cost a percent at most.
_SURE = 1.0
# The mean: of a shape with two peaks the median is one or the other by chance.
_LOCATION = {
    "max_iter": 150,
    "learning_rate": 0.08,
    "min_samples_leaf": 20,
    "early_stopping": False,
}
# Smallest deviation, and residuals beyond so many deviations are outliers.
_LEAST, _BOUND = 1e-3, 8.0
# Draws that stand for a mixture where it is judged.
_N_DRAWS = 32
# Mean root of the size of a standard normal variable over the root of its mean size, 2^(1/4)
# Gamma(3/4) / Gamma(1/2) and (2 / pi)^(1/2).
_ROOT_OF_NORMAL = 0.8222 / 0.7979**0.5


@dataclass(frozen=True)
class RowTrees:
    """Trees of the columns of a table.

    Parameters
    ----------
    locations : list of HistGradientBoostingRegressor or None
        Location of each column, None where the mixture is kept as it is.
    spread : Trees
        Scale of all columns, and their shape where the mixture is one Gaussian.
    """

    locations: Any
    spread: Any

    def corrected(self, base, series, drawn):
        """Draws of the wanted cells of rows; see :meth:`._trees.Trees.corrected`."""
        mixture, wanted = as_mixture(base), series.wanted
        rank = wanted.flatten().cumsum(0).view_as(wanted) - 1
        gappy, out = torch.nonzero(wanted.any(1))[:, 0], drawn.clone()
        for batch in alike((~series.observed[gappy]).sum(1), mixture.fits):
            rows = gappy[batch]
            part = mixture.parts(series.values[rows], series.observed[rows])
            mean, sd = _marginal(part)
            for j, location in enumerate(self.locations):
                at = torch.nonzero(wanted[rows, j])[:, 0]
                if location is None or not len(at):
                    continue
                cells, inputs = rank[rows[at], j], _inputs(mean, sd, at, j)
                trees, m, s = replace(self.spread, location=location), mean[at, j], sd[at, j]
                residual = (drawn[:, cells].double() - m) / s
                corrected = trees.residuals(inputs, residual, torch.full_like(at, j))
                out[:, cells] = (m + s * corrected).to(out)
        return out


def as_mixture(base):
    """Gaussian of rows as a mixture of one component; mixtures as they are."""
    return base if isinstance(base, RowMixture) else RowMixture.of_one(base.gaussian)


def fit_row_trees(base, windows, strategy, seed):
    """Learn to correct a mixture of rows, column by column.

    Parameters
    ----------
    base : RowMixture or WindowBase
        What is to be corrected.
    windows : Windows
        Rows; cells of those held out are not learnt from.
    strategy : callable
        Target strategy of :mod:`skdiffusion.training.masking`.
    seed : int
        Fixes which rows are learnt from and what is hidden in them.

    Returns
    -------
    trees : RowTrees or None
        None where there are too few rows, or no column gains.
    """
    generator, series = torch_generator(seed + 3), windows.series
    rows = windows.train[torch.randperm(len(windows.train), generator=generator)[:ROWS_TO_LEARN]]
    if len(rows) < _FEWEST_ROWS or series.values.shape[1] > _MOST_COLUMNS:
        return None
    n_passes, n_trials = _plan(len(rows))
    values, observed = series.values[rows].double().cpu(), series.observed[rows].cpu()
    mixture, useful = as_mixture(base), more_than_two(values, observed).tolist()
    several = lambda seen: [_hidden(seen, strategy, generator) for _ in range(n_passes)]  # noqa: E731
    tried = []
    for _ in range(n_trials):
        gone = torch.rand(observed.shape, generator=generator) < _THINNED
        kept = observed & ~(_hidden(observed, strategy, generator) & gone)
        other = _refit(values, kept, len(mixture.weights), seed)
        some = _lessons(other, values, kept, several(kept))
        unseen = _lessons(other, values, observed, [observed & ~kept], generator)
        useful = [u and len(x[1]) >= _FEWEST_CELLS for u, x in zip(useful, unseen)]
        tried.append([_left(*pair) if u else None for *pair, u in zip(some, unseen, useful)])
    if not any(useful):
        return None
    told = [
        _Left(*map(np.concatenate, zip(*one))) if u else None for u, *one in zip(useful, *tried)
    ]
    trees, gains = _spread(told, len(mixture.weights) == 1)
    if not any(gains):
        return None
    every = _lessons(mixture, values, observed, several(observed))
    return RowTrees(
        [located().fit(*one[:2]) if gain else None for one, gain in zip(every, gains)], trees
    )


def _plan(n_rows):
    """Passes that hide cells, and how often cells are hidden once and for all."""
    n_passes = min(_MOST_PASSES, math.ceil(_LESSONS / (_SHARE * n_rows)))
    return n_passes, min(_MOST_TRIALS, math.ceil(_ROWS_TO_JUDGE / n_rows))


def seconds_of_row_trees(base, n_rows, n_columns):
    """What they take of a laptop, roughly: conditioning of components, and trees of columns."""
    n_rows = min(n_rows, ROWS_TO_LEARN)
    n_passes, n_trials = _plan(n_rows)
    conditioned = n_rows * len(as_mixture(base).weights) * n_passes
    return (n_trials + 1) * (1.5e-8 * n_columns**2 * conditioned + 0.3 * n_columns)


def located():
    """What learns the location of a column."""
    return HistGradientBoostingRegressor(random_state=0, **_LOCATION)


def _hidden(observed, strategy, generator):
    """Cells that a strategy for windows hides in rows."""
    pool = lambda n: observed[torch.randint(len(observed), (n,), generator=generator), None]  # noqa: E731
    return strategy(observed[:, None], generator, pool)[:, 0]


def _lessons(mixture, values, observed, hidden, generator=None):
    """What a mixture says of hidden cells.

    Parameters
    ----------
    mixture : RowMixture
        The mixture.
    values : tensor of shape (n_rows, P)
        Values.
    observed : bool tensor of the same shape
        Which are known.
    hidden : list of bool tensors of the same shape
        What is hidden in each pass.
    generator : torch.Generator, optional
        Source of draws of the mixture.

    Returns
    -------
    lessons : list of tuples
        Of each column, arrays over its hidden cells: inputs of trees, residuals in predicted
        deviations, and with a generator these and draws of the mixture in their units.
    """
    found = [[] for _ in range(values.shape[1])]
    for mask in hidden:
        shown = observed & ~mask
        # Rows of which much is missing cost the cube of that.
        for rows in alike((~shown).sum(1), mixture.fits):
            part = mixture.parts(values[rows], shown[rows])
            mean, sd = _marginal(part)
            for j, lessons in enumerate(found):
                at = torch.nonzero(mask[rows, j])[:, 0]
                truth, s = values[rows[at], j], sd[at, j]
                residual = ((truth - mean[at, j]) / s).clamp(-_BOUND, _BOUND)
                noted = [residual]
                if generator is not None:
                    draws = _draws(part, at, j, generator)
                    noted += [s, (draws - mean[at, j, None]) / s[:, None]]
                lessons.append((_inputs(mean, sd, at, j), *(x.numpy() for x in noted)))
    return [tuple(map(np.concatenate, zip(*lessons, strict=True))) for lessons in found]


class _Left(NamedTuple):
    """What trees leave of the residuals of cells that they have not seen, with these inputs."""

    inputs: np.ndarray
    residual: np.ndarray
    sd: np.ndarray
    draws: np.ndarray
    left: np.ndarray


def _left(some, unseen):
    """What trees that have learnt from some cells of a column leave of unseen ones."""
    inputs, residual, *_ = unseen
    return _Left(*unseen, residual - located().fit(*some).predict(inputs))


def _spread(told, with_shape):
    """Scale and shape of what is left, and which columns are foretold better than before."""
    which = [j for j, one in enumerate(told) if one is not None]
    column = np.repeat(which, [len(told[j].left) for j in which])
    inputs, residual, sd, draws, left = map(np.concatenate, zip(*(told[j] for j in which)))
    size = 1.0 if with_shape else np.abs(draws).mean(1) * _ROOT_OF_NORMAL**2
    trees = spread(None, inputs, left / size, column, len(told))
    trees = trees if with_shape else replace(trees, shape=None)
    here = torch.from_numpy(draws.T), torch.from_numpy(column)
    theirs = trees.scaled(*here, torch.from_numpy(trees.scale_of(inputs))).numpy().T
    gain = sd * (fair_crps(residual, draws) - fair_crps(left, theirs))
    total = np.bincount(column, gain, len(told))
    # Many columns that gain a little, or one that surely does.
    some = [gain[total[column] > 0], *(gain[column == j] for j in which)]
    sure = any(x.mean() > _SURE * x.std() / np.sqrt(len(x)) for x in some if len(x))
    return trees, (total > 0) & sure


def _refit(values, observed, size, seed):
    """Mixture of so many components of cells of which some are hidden."""
    gaussian = free_gaussian(values[:, None], observed[:, None], torch.arange(values.shape[1]))
    return fit_mixture(values, observed, gaussian, size, seed)


def _marginal(part):
    """Mean and deviation of all cells, whatever their component."""
    weights = part.weights[..., None]
    mean = (weights * part.mean).sum(1)
    variance = (weights * (part.variance + (part.mean - mean[:, None]).square())).sum(1)
    return mean, variance.sqrt().clamp(min=_LEAST)


def _draws(part, at, j, generator):
    """Draws (n_cells, _N_DRAWS) of column ``j`` in some rows."""
    weights, shape = part.weights[at], (len(at), _N_DRAWS)
    if not len(at):
        return torch.empty(shape, dtype=weights.dtype)
    chosen = torch.multinomial(weights, _N_DRAWS, replacement=True, generator=generator)
    mean, variance = (x[at, :, j].gather(1, chosen) for x in (part.mean, part.variance))
    return mean + variance.sqrt() * torch.randn(shape, generator=generator, dtype=mean.dtype)


def _inputs(mean, sd, at, j):
    """What trees see of column ``j`` in some rows: the column, its deviation, completed rows."""
    own = torch.stack([torch.full_like(sd[at, j], j), mean[at, j], sd[at, j]], 1)
    return torch.cat([own, mean[at]], 1).float().cpu().numpy()
