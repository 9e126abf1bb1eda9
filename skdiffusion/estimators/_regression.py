"""Where rows lie and how far they scatter given a condition, by gradient boosting.

For data ``x`` and a condition ``c``, ``x = m(c) + s(c) u``: boosted trees learn the location ``m``
of every column, and one scale ``s = exp E[log |x - m| | c]`` for all columns together. What is left
is the density of ``u``, which is much simpler than that of ``x``.

The residuals of a model on the rows that it has seen are too small. The location and scale of a
training row therefore come from models fitted to the other folds, so that they are as wrong as
those of a new row will be. The same folds tell how many trees are best.
"""

from itertools import islice

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold

_N_FOLDS = 5
# Trees at most, looked at every so many.
_N_TREES, _EVERY = 600, 20
# Logarithms of residuals are noisy: fewer and smaller trees.
_N_SCALE_TREES, _N_LEAVES, _N_SCALE_LEAVES = 100, 16, 8
# Smallest scale as a share of the standard deviation of the residuals.
_LEAST_SCALE = 1e-3


class LocationScaleRegression:
    """Location and log-scale of data given a condition."""

    def fit(self, condition, x, groups, seed):
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

        Returns
        -------
        columns : ndarray of shape (n_samples, n_features + 1)
            Location of every column of x, and the logarithm of the scale.
        """
        fits = [_cross_fit(condition, column, groups, seed, _N_TREES, _N_LEAVES) for column in x.T]
        location = np.column_stack([values for values, _ in fits])
        self.locations_ = [model for _, model in fits]
        residual = np.abs(x - location)
        least = _LEAST_SCALE * np.sqrt(np.mean(residual**2)) + np.finfo(float).tiny
        wanted = np.log(residual + least).mean(1)
        inputs = np.hstack([condition, location])
        # Other folds: those of the location leave a trace of each row in its fold's residuals.
        log_scale, self.scale_ = _cross_fit(
            inputs, wanted, groups, seed + 1, _N_SCALE_TREES, _N_SCALE_LEAVES
        )
        return np.column_stack([location, log_scale])

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
        log_scale = self.scale_.predict(np.hstack([distinct, location]))
        return np.column_stack([location, log_scale])[inverse.ravel()]


def _cross_fit(inputs, target, groups, seed, n_trees, n_leaves):
    """Predictions of every row from the other folds, and a model of all rows.

    Both have the number of trees with the smallest squared error on the other folds.
    """
    trees = HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=n_trees,
        max_leaf_nodes=n_leaves,
        min_samples_leaf=5,
        early_stopping=False,
        random_state=0,
    )
    predicted = np.empty((n_trees // _EVERY, len(target)))
    n_folds = min(_N_FOLDS, len(np.unique(groups)))
    folds = GroupKFold(n_folds, shuffle=True, random_state=seed)
    for train, test in folds.split(inputs, groups=groups):
        stages = trees.fit(inputs[train], target[train]).staged_predict(inputs[test])
        predicted[:, test] = list(islice(stages, _EVERY - 1, None, _EVERY))
    best = np.square(predicted - target).mean(1).argmin()
    trees.set_params(max_iter=int(best + 1) * _EVERY)
    return predicted[best], trees.fit(inputs, target)
