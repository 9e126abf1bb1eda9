"""Where rows lie and how far they scatter given a condition.

For data ``x`` and a condition ``c``, ``x = m(c) + s(c) u``: boosted trees and a Gaussian process
learn the location ``m`` of every column, trees one scale ``s = exp E[log |x - m| | c]`` for all
columns together. What is left is the density of ``u``, which is much simpler than that of ``x``.

The residuals of a model on the rows that it has seen are too small. The location and scale of a
training row therefore come from models fitted to other rows, so that they are as wrong as
those of a new row will be. The same rows tell which kind of trees, how many of them, and what share
of the process are best.
"""

from functools import partial
from itertools import islice

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold
from tqdm.auto import tqdm

from skdiffusion.estimators.density._smooth import smooth_location

# Residuals of each row by trees that have not seen it; five folds learn from four fifths of them.
_N_FOLDS = 5
# The number of trees is looked at every so many.
_EVERY = 20
# Leaves of a tree, and the share of the columns that a split looks at. Many rows want larger trees;
# looking at some columns helps most tables, and hurts where one column says nearly everything.
_KINDS = [
    {"max_leaf_nodes": n_leaves, "max_features": share}
    for n_leaves, share in ((16, 1.0), (16, 0.6), (31, 0.6))
]
_LOCATION = [{"max_iter": 800, "learning_rate": 0.1} | kind for kind in _KINDS]
# Logarithms of residuals are noisy: fewer and smaller trees.
_SCALE = [{"max_iter": 100, "learning_rate": 0.05, "max_leaf_nodes": 8}]
# Shares of the trees in a location that are compared; the rest is that of the process.
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Shares of the differences between scales that are compared.
_BELIEVED = (0.0, 0.25, 0.5, 0.75, 1.0)
# Smallest scale as a share of the standard deviation of the residuals.
_LEAST_SCALE = 1e-3


class LocationScaleRegression:
    """Location and log-scale of data given a condition."""

    # A model of an earlier version believes its trees of the scale.
    middle_, believed_ = 0.0, 1.0

    def fit(self, condition, x, groups, seed, progress=False):
        """Fit to all rows; return location and log-scale of each from the other folds.

        Parameters
        ----------
        condition : ndarray of shape (n_samples, n_conditions)
            Condition of every row.
        x : ndarray of shape (n_samples, n_features)
            Data.
        groups : ndarray of shape (n_samples,)
            Rows of one group, such as copies, stay in one fold.
        seed : int
            Seed of the folds.
        progress : bool, default=False
            Show a progress bar.

        Returns
        -------
        columns : ndarray of shape (n_samples, n_features + 1)
            Location of every column of x, and the logarithm of the scale.
        """
        show = partial(tqdm, desc="ScoreSDE, trees", disable=not progress)
        tries = [(column, setting) for column in x.T for setting in _LOCATION]
        tries = [_tried(condition, *one, groups, seed) for one in show(tries)]
        n = len(_LOCATION)
        fits = [
            _located(condition, column, tries[n * j : n * (j + 1)], groups, seed)
            for j, column in enumerate(x.T)
        ]
        location = np.column_stack([values for values, _ in fits])
        self.locations_ = [model for _, model in fits]
        residual = np.abs(x - location)
        least = _LEAST_SCALE * np.sqrt(np.mean(residual**2)) + np.finfo(float).tiny
        wanted = np.log(residual + least).mean(1)
        inputs = np.hstack([condition, location])
        # Other folds: those of the location leave a trace of each row in its fold's residuals.
        log_scale, self.scale_ = _cross_fit(inputs, wanted, groups, seed + 1, _SCALE)
        self.middle_ = log_scale.mean()
        self.believed_ = _believed(log_scale - self.middle_, residual.mean(1))
        return np.column_stack([location, self._shrunk(log_scale)])

    def predict(self, condition):
        """Location and log-scale of new rows.

        Parameters
        ----------
        condition : ndarray of shape (n_samples, n_conditions)
            Conditions.

        Returns
        -------
        columns : ndarray of shape (n_samples, n_features + 1)
            As from :meth:`fit`.
        """
        # A condition is often repeated, once for every draw.
        distinct, inverse = np.unique(condition, axis=0, return_inverse=True)
        location = np.column_stack([model.predict(distinct) for model in self.locations_])
        log_scale = self._shrunk(self.scale_.predict(np.hstack([distinct, location])))
        return np.column_stack([location, log_scale])[inverse.ravel()]

    def _shrunk(self, log_scale):
        return self.middle_ + self.believed_ * (log_scale - self.middle_)


def _believed(log_scale, residual):
    """Share of the differences of log-scales under which residuals are likeliest.

    A Laplace distribution of what is left after division says so. A few residuals of a hundred
    times their scale, as where half of the rows have a twin and the trees guess which, cost it much
    more than they cost the density of the many small ones, which has no bound.
    """
    scales = [np.exp(share * log_scale) for share in _BELIEVED]
    costs = [np.log(scale).mean() + np.log((residual / scale).mean()) for scale in scales]
    return _BELIEVED[int(np.argmin(costs))]


class Averaged:
    """Average of two models of a location.

    Parameters
    ----------
    trees, process : objects with ``predict``
        The models.
    share : float
        Share of the trees.
    """

    def __init__(self, trees, process, share):
        self.trees, self.process, self.share = trees, process, share

    def predict(self, condition):
        """Location of new rows."""
        trees, process = (model.predict(condition) for model in (self.trees, self.process))
        return self.share * trees + (1 - self.share) * process


def _located(condition, target, tries, groups, seed):
    """Predictions of every row from others, and the model: trees, a process, or their average."""
    _, by_trees, trees = min(tries, key=lambda one: one[0])
    smooth = smooth_location(condition, target, groups, seed)
    if smooth is None:
        return by_trees, trees.fit(condition, target)
    by_process, process = smooth
    averages = [share * by_trees + (1 - share) * by_process for share in _SHARES]
    best = int(np.argmin([np.abs(average - target).mean() for average in averages]))
    if _SHARES[best] == 0:
        return by_process, process
    trees.fit(condition, target)
    if _SHARES[best] == 1:
        return by_trees, trees
    return averages[best], Averaged(trees, process, _SHARES[best])


def _cross_fit(inputs, target, groups, seed, settings):
    """Predictions of every row from the other folds, and a model of all rows."""
    tries = [_tried(inputs, target, setting, groups, seed) for setting in settings]
    return _best(inputs, target, tries)


def _tried(inputs, target, setting, groups, seed):
    """Absolute error on other folds of one setting, its predictions there, and untrained trees.

    They have the number of trees with the smallest error, which few rows of large scatter do not
    decide as they would a squared one.
    """
    n_folds = min(_N_FOLDS, len(np.unique(groups)))
    folds = list(GroupKFold(n_folds, shuffle=True, random_state=seed).split(inputs, groups=groups))
    trees = HistGradientBoostingRegressor(
        min_samples_leaf=5, early_stopping=False, random_state=0, **setting
    )
    predicted = _staged(trees, inputs, target, folds)
    errors = np.abs(predicted - target).mean(1)
    n_stages = errors.argmin() + 1
    return errors.min(), predicted[n_stages - 1], trees.set_params(max_iter=n_stages * _EVERY)


def _best(inputs, target, tries):
    """Predictions of the setting with the smallest error, and its trees, of all rows."""
    _, predicted, trees = min(tries, key=lambda one: one[0])
    return predicted, trees.fit(inputs, target)


def _staged(trees, inputs, target, folds):
    """Predictions of every row from the other folds, one line for every 20 trees."""
    predicted = np.empty((trees.max_iter // _EVERY, len(target)))
    for train, test in folds:
        stages = trees.fit(inputs[train], target[train]).staged_predict(inputs[test])
        predicted[:, test] = list(islice(stages, _EVERY - 1, None, _EVERY))
    return predicted
