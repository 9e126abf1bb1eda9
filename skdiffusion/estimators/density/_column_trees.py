"""Boosted trees for the density of every column given those before it.

Trees tell the location ``m`` of a column and the scale ``s`` about it, given the columns before;
what they leave, ``(x - m) / s``, has one mixture of logistic densities for all rows. They find
steps, groups and values that repeat, which networks smooth over.

Half of the rows teach the trees that foretell the other half
(:mod:`skdiffusion.estimators._halves`).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from skdiffusion.diffusion.chain import Components
from skdiffusion.estimators._halves import averaged, cross_fitted

_LOCATION = {
    "max_iter": 200,
    "min_samples_leaf": 5,
    "early_stopping": True,
    "validation_fraction": 0.15,
}
# Logarithms of residuals are noisy: fewer and smaller trees.
_SCALE = {"max_iter": 40, "max_leaf_nodes": 8, "early_stopping": False}
# Smallest scale as a share of the standard deviation of the residuals.
_LEAST_SCALE = 1e-3
# Components of what is left, rows they are fitted to at most, and steps of that.
_N_COMPONENTS, _N_ROWS, _N_STEPS, _RATE = 12, 4000, 60, 0.05
# More rows than this teach trees little that is new.
_MOST_ROWS = 50_000


@dataclass(frozen=True)
class ColumnTrees:
    """Location and scale of one column by trees, and the mixture of what is left.

    Parameters
    ----------
    locations : sequence of HistGradientBoostingRegressor
        Their mean is the location.
    scale : HistGradientBoostingRegressor
        Logarithm of the scale, given the columns before and the location.
    shape : ndarray of shape (3, n_components)
        Logarithms of weights, means and logarithms of scales of what is left.
    unit : float
        What the column is divided by after its location has been found.
    slopes : ndarray of shape (n_before,)
        What is subtracted of each whitened column before it.
    """

    locations: Any
    scale: Any
    shape: np.ndarray
    unit: float
    slopes: np.ndarray

    def components(self, views):
        """Components of the whitened column.

        Parameters
        ----------
        views : tensor of shape (n_samples, n_views, n_before)
            What stands for the columns before: as they are, and whitened.

        Returns
        -------
        components : Components
            Tensors of shape (n_samples, n_components).
        """
        # Trees have no slope, the straight lines beside them have.
        before, white = views[:, 0].detach(), views[:, 1]
        location, log_scale = _located(self.locations, self.scale, _rounded(before))
        log_weights, means, log_scales = torch.as_tensor(self.shape)
        scale = torch.as_tensor(np.exp(log_scale))[:, None]
        centre = torch.as_tensor(location) - white @ torch.as_tensor(self.slopes)
        return Components(
            log_weights.expand(len(before), -1),
            (centre[:, None] + scale * means) / self.unit,
            torch.log(scale / self.unit) + log_scales,
        )


class TreeConditionals:
    """Mixture parameters of columns given those before, by trees.

    Parameters
    ----------
    columns : list of ColumnTrees or None
        One for every column; None for a column without trees, which is a logistic density.
    """

    def __init__(self, columns):
        self.columns = columns

    def __call__(self, x):
        """Parameters of all columns, as those of the networks."""
        parts = [self.column(j, x) for j in range(len(self.columns))]
        return Components(*(torch.stack(part) for part in zip(*parts, strict=True)))

    def column(self, j, x):
        """Parameters of one column, as those of the networks."""
        if self.columns[j] is None:
            log_weights, *rest = torch.zeros(3, len(x), _N_COMPONENTS, dtype=torch.float64)
            return Components(log_weights - math.log(_N_COMPONENTS), *rest)
        return self.columns[j].components(x[:, :, :j])

    def without(self, columns):
        """Forget the trees of some columns, which are of no use."""
        kept = [None if j in columns else one for j, one in enumerate(self.columns)]
        return TreeConditionals(kept)


def fit_trees(views, whitened, root, seed, *, of_whitened, show):
    """Fit trees to all columns but the first.

    Parameters
    ----------
    views : tensor of shape (n_samples, n_views, n_features)
        What stands for the columns.
    whitened : tensor of shape (n_samples, n_features)
        The whitened columns.
    root : tensor of shape (n_features, n_features)
        Root of their covariance.
    seed : int
        Seed of everything random.
    of_whitened : bool
        Whether trees foretell whitened columns, from which straight lines have been taken, or the
        columns themselves, in which values may repeat.
    show : callable
        Makes a progress bar of an iterable.

    Returns
    -------
    trees : TreeConditionals
        The trees.
    """
    before, white = _rounded(views[:_MOST_ROWS, 0]), whitened[:_MOST_ROWS].numpy()
    columns = [None]
    for j in show(range(1, white.shape[1])):
        row = root[j, : j + 1].numpy()
        if of_whitened:
            target, unit, slopes = white[:, j], 1.0, np.zeros(j)
        else:
            target, unit, slopes = white[:, : j + 1] @ row, row[-1], row[:-1]
        columns.append(_fit_column(before[:, :j], target, seed, float(unit), slopes))
    return TreeConditionals(columns)


def _fit_column(before, target, seed, unit, slopes):
    """Trees of one column."""
    make = partial(HistGradientBoostingRegressor, random_state=seed)
    halves = np.array_split(np.arange(len(target)), 2)
    locations, location = cross_fitted(partial(make, **_LOCATION), before, target, halves)
    residual = target - location
    least = _LEAST_SCALE * residual.std() + np.finfo(float).tiny
    inputs = np.column_stack([before, location])
    wanted = np.log(np.abs(residual) + least)
    scale = make(**_SCALE).fit(inputs, wanted)
    shape = _fit_shape(residual * np.exp(-scale.predict(inputs)))
    return ColumnTrees(locations, scale, shape, unit, slopes)


def _rounded(before):
    """Columns in half the digits: on a threshold, the last digits would decide on a leap."""
    return before.float().double().numpy()


def _located(locations, scale, before):
    """Location and log-scale of rows."""
    location = averaged(locations, before)
    return location, scale.predict(np.column_stack([before, location]))


def _fit_shape(values):
    """Mixture of logistic densities of values, by gradient steps from their quantiles."""
    values = torch.as_tensor(values[:_N_ROWS])
    places = torch.linspace(0.02, 0.98, _N_COMPONENTS, dtype=torch.float64)
    log_scale = torch.log(2 * values.std() / _N_COMPONENTS + 1e-6)
    start = [torch.zeros_like(places), values.quantile(places), log_scale.expand(len(places))]
    shape = torch.stack(start).requires_grad_()
    optimizer = torch.optim.Adam([shape], lr=_RATE)
    for _ in range(_N_STEPS):
        optimizer.zero_grad()
        loss = -Components(shape[0].log_softmax(0), *shape[1:]).log_density(values).mean()
        loss.backward()
        optimizer.step()
    shape = shape.detach()
    shape[0] = shape[0].log_softmax(0)
    return shape.numpy()
