"""The base of an imputer: which Gaussian windows get, and how it is learnt."""

from dataclasses import replace

import torch
from tqdm.auto import tqdm

from skdiffusion._random import torch_generator
from skdiffusion.diffusion.statespace.base import SeriesGaussian
from skdiffusion.diffusion.statespace.fit import fit_state_space
from skdiffusion.diffusion.statespace.groups import GroupedGaussian, group_columns
from skdiffusion.diffusion.statespace.pieces import Pieces
from skdiffusion.diffusion.statespace.profile import Profile
from skdiffusion.diffusion.statespace.season import Season
from skdiffusion.diffusion.statespace.shape import Shape
from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.diffusion.window.fit import free_gaussian
from skdiffusion.diffusion.window.mixture import RowMixture
from skdiffusion.estimators.imputation._row_mixtures import ROWS_TO_LEARN, best_mixture
from skdiffusion.estimators.imputation._shrinkage import shrinks

# Panels with more cells in a sample share the covariance of stationary series.
_LARGEST_PANEL = 2500
# A free covariance of a panel wants this many samples for each cell of a sample.
_SAMPLES_PER_CELL = 3
# Series with more columns are modelled in groups, without the default network: one state space
# costs their cube, and joint draws of the network that of a window's gaps.
WIDEST = 48
# Rows, and rows for each cell of one, from which a network of a table is trained: of fewer even the
# covariance is hardly known. And cells from which tables mostly of labels have none: a batch costs
# their cube.
_FEWEST_ROWS, _ROWS_OF_CELL, _MANY_CELLS = 80, 5, 64
# Rows of a table that its Gaussian is learnt from: the error of a correlation from so many is
# below .003, and a step of EM costs a second.
_MOST_ROWS = 2**17
# Rows of a season that may move, and the share by which it may miss a whole number of them.
_LONGEST_SEASON, _SEASON_ROUNDED = 64, 0.02


def fit_base(windows, stationary, owner, seed, progress=False):
    """Base of an imputer: a state space of series, a free Gaussian of small panels, and of tables
    that or a mixture.
    """
    if not _is_free(windows, stationary):
        # The windows held out for the network as well: few numbers stand against many cells, and
        # without them series would fall into short runs (weather, half of the cells missing: CRPS
        # .093 instead of .090).
        everything = replace(windows, train=windows.series.all_starts())
        return _fit_series(everything, seed, progress)
    series = windows.series
    if series.length == 1:
        # What is held out is for a network: how many components there are is decided apart.
        rows = torch.cat([windows.train, windows.held_out]).sort().values
        table = series.values[rows], series.observed[rows], owner
        mixture = best_mixture(*table, seed)
        if mixture is not None:
            return mixture
    return _fit_free(series, windows.train, owner)


def refit_alone(base, series, owner):
    """The base of an answer without a network: a Gaussian of tables has what was held out as well.

    All others have learnt from it already.
    """
    return _fit_free(series, series.all_starts(), owner) if isinstance(base, WindowBase) else base


def _fit_free(series, starts, owner):
    """Free Gaussian of the windows that begin at ``starts``."""
    rows = series.rows(starts[:: -(-len(starts) * series.length // _MOST_ROWS)])
    values, observed = series.values[rows].double(), series.observed[rows]
    shrunk = shrinks(values[:, 0], observed[:, 0], owner) if series.length == 1 else None
    gaussian = free_gaussian(values, observed, shrunk)
    return WindowBase(gaussian, series.length, series.values.shape[1])


def is_too_small(windows, n_features):
    """Whether a table has too few rows, or too many columns of labels, for a network to be judged.

    Of few rows it is chance whether one is kept: on 43 rows one was, with bands that held 59 %
    instead of 90.
    """
    n_rows, n_cells = len(windows.train) + len(windows.held_out), windows.series.values.shape[1]
    few = n_rows < max(_FEWEST_ROWS, _ROWS_OF_CELL * n_cells)
    return windows.series.length == 1 and (few or n_cells > max(_MANY_CELLS, 3 * n_features))


def is_enough(windows, base):
    """Whether the base of a table is left alone: a mixture that has learnt from all of its rows.

    Of five such tables a network on top was kept for one, and was level with the mixture there.
    """
    n_rows = len(windows.train) + len(windows.held_out)
    return isinstance(base, RowMixture) and n_rows <= ROWS_TO_LEARN


def is_grouped(windows, stationary):
    """Whether the base is one of groups of columns, for which there is no network."""
    return _is_wide(windows.series) and not _is_free(windows, stationary)


def _is_free(windows, stationary):
    """Whether windows have a Gaussian with a covariance of its own for every pair of cells."""
    series = windows.series
    n_cells = series.length * series.values.shape[1]
    if stationary or n_cells > _LARGEST_PANEL:
        return False
    return series.length == 1 or len(windows.train) >= _SAMPLES_PER_CELL * n_cells


def _fit_series(windows, seed, progress):
    """State space and shape of its errors, from the rows to learn from."""
    runs, series = _runs(windows), windows.series
    offsets = torch.tensor([0] + [len(run) for run in runs]).cumsum(0)
    rows = torch.cat(runs)
    values, observed, time = (x[rows] for x in (series.values, series.observed, series.time))
    neighbours = torch.ones(len(rows) - 1, dtype=torch.bool)
    neighbours[offsets[1:-1] - 1] = False
    period = _season(series.periods, time, neighbours)

    def fit(values, observed, **options):
        season = Season.learn(values, observed, time, neighbours, series.periods)
        # A season of none would copy all values as float64.
        left = values - season(time) if len(season.periods) else values
        profile = Profile.learn(left, observed, time, offsets)
        left = left - profile(time) if len(profile.times) else left
        pieces = Pieces.cut(left, observed, offsets)
        with tqdm(desc="Fitting the Gaussian", disable=not progress, leave=False) as bar:

            def step(most):
                bar.total = most
                bar.update()

            options |= {"generator": torch_generator(seed), "on_step": step}
            options["period"] = period
            fit = fit_state_space(pieces, **options)
        near = fit.error, fit.deviation, fit.column
        shape = Shape.of(fit.error / fit.deviation, fit.column, values.shape[1])
        shape = shape.reaching(near, fit.deep, fit.n_gaps)
        return SeriesGaussian(fit.model, shape, season, profile)

    if not _is_wide(series):
        return fit(values, observed)
    groups = group_columns(values, observed)
    parts = []
    for group in tqdm(groups, desc="Groups of columns", disable=not progress, leave=False):
        # What the first group chose, noise and order, is a good start for the others.
        first = parts[0].model if parts else None
        known = {"noises": [float(first.noise.median())], "max_order": first.order} if first else {}
        parts.append(fit(values[:, group.columns], observed[:, group.columns], **known))
    return GroupedGaussian(groups, parts)


def _season(periods, time, neighbours):
    """Rows of the shortest season; 0 for none, or one of so many rows that it may well stand still.

    Months and quarters are of different lengths, and there are twelve and four of them in a year.
    """
    steps = time.diff()[neighbours]
    if not periods or not len(steps):
        return 0.0
    rows = min(periods) / float(steps.mean())
    rows = round(rows) if abs(rows - round(rows)) < _SEASON_ROUNDED * rows else rows
    return float(rows) if rows <= _LONGEST_SEASON else 0.0


def _is_wide(series):
    """Whether series have more columns than one state space takes."""
    return series.length > 1 and series.values.shape[1] > WIDEST


def _runs(windows):
    """Rows covered by windows, in unbroken runs (a list of index tensors)."""
    series = windows.series
    change = torch.zeros(len(series.values) + 1, dtype=torch.int64)
    change[windows.train] += 1
    change[windows.train + series.length] -= 1
    rows = torch.nonzero(change.cumsum(0)[:-1] > 0)[:, 0]
    number, _, _ = series.place(rows)
    breaks = torch.nonzero((rows.diff() != 1) | (number.diff() != 0))[:, 0] + 1
    return torch.tensor_split(rows, breaks)
