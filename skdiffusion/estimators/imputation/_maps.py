"""Which map the columns of a table get, by how a Gaussian then predicts cells that it did not see.

A Gaussian over bent columns asks for few numbers of each column. A Gaussian over normal scores
follows any shape of a column, but curves what may be straight between columns. Both are fitted to
the table with some known cells hidden, and the CRPS of these decides, in standard units: the values
that a model sees are no common measure.
"""

from functools import partial

import numpy as np
import torch
from scipy.special import ndtri

from skdiffusion._threads import spread
from skdiffusion.columns.bend import Bend
from skdiffusion.columns.spikes import Spikes
from skdiffusion.diffusion.window.fit import completed_by, free_gaussian
from skdiffusion.estimators.imputation._row_mixtures import WORK
from skdiffusion.metrics import crps_loss

# Rows that decide. With fewer, or in a column with fewer values, there is nothing to hide.
_MOST_ROWS, _FEWEST_ROWS, _FEWEST_VALUES = 4096, 50, 20
# Share of the known cells that is hidden, and quantiles that stand for what is predicted of them.
_HIDDEN, _LEVELS = 0.2, ndtri((np.arange(24) + 0.5) / 24)
# The scores must gain a hundredth: less is within chance on a few hundred rows.
_GAIN = 0.01
# Cells of a row from which those of labels are left out.
_MOST_CELLS = 64


def bent(u):
    """The map that bends tails: that of series, and of tables where it is as good."""
    return Spikes.learn(Bend.learn(u), u)


def bent_series(columns, flat):
    """Columns of series with that map, of which some have their logarithm."""
    centre, scale = columns.centre[columns.valid], columns.scale[columns.valid]
    zero = -centre / np.where(scale > 0, scale, 1.0)
    return columns.mapped(lambda u: Spikes.learn(Bend.learn_series(u, zero), u), flat)


def scored(u):
    """The map of all columns with many values to their normal scores."""
    return Spikes.learn(Bend.learn(u), u, every=True)


def better_mapped(columns, flat):
    """Columns of a table with the better of the two maps.

    Parameters
    ----------
    columns : Columns
        Columns without a map.
    flat : ndarray of shape (n_rows, n_features)
        The table, NaN where missing.

    Returns
    -------
    columns : Columns
        With a map.
    """
    x = flat if len(flat) <= _MOST_ROWS else flat[_rows(len(flat))]
    hidden = _cells(x[:, columns.valid])
    if not hidden.any():
        return columns.mapped(bent, flat)
    u = columns.forward(x)
    if u.shape[1] > _MOST_CELLS:
        u, hidden = u[:, hidden.any(0)], hidden[:, hidden.any(0)]
    loss = partial(_loss, u=u, hidden=hidden)
    of_scores, of_bends = spread(loss, [scored, bent], u.size * u.shape[1] > WORK)
    return columns.mapped(scored if of_scores < (1 - _GAIN) * of_bends else bent, flat)


def _rows(n):
    return np.sort(np.random.default_rng(0).permutation(n)[:_MOST_ROWS])


def _cells(x):
    """Cells to hide: the same whatever the seed of the imputer."""
    known = ~np.isnan(x)
    if len(x) < _FEWEST_ROWS:
        return np.zeros_like(known)
    chosen = np.random.default_rng(1).random(x.shape) < _HIDDEN
    varied = np.array([len(np.unique(v[~np.isnan(v)])) >= _FEWEST_VALUES for v in x.T])
    return chosen & known & varied


def _loss(learn_map, u, hidden):
    """CRPS of hidden cells of standard units ``u`` by the Gaussian under a map."""
    shown = np.where(hidden, np.nan, u)
    column_map = learn_map(shown)
    z = torch.from_numpy(column_map.forward(shown))
    values, observed = z.nan_to_num(0.0), ~torch.isnan(z)
    gaussian = free_gaussian(values[:, None], observed[:, None], torch.arange(z.shape[1]))
    mean, sd = (x.numpy()[hidden] for x in completed_by(gaussian, values, observed))
    quantiles = column_map.inverse(mean + _LEVELS[:, None] * sd, np.nonzero(hidden)[1])
    return crps_loss(u[hidden], quantiles.T, method="ensemble")
