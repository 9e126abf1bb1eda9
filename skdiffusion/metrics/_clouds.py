"""Distances between clouds of points, and how many modes they cover."""

import numpy as np
from scipy.spatial.distance import cdist


def energy_distance(X, Y):
    r"""Energy distance between two clouds of points.

    Parameters
    ----------
    X : array-like of shape (n_samples_X, n_features)
        Points.
    Y : array-like of shape (n_samples_Y, n_features)
        Points.

    Returns
    -------
    distance : float
        In units of the square root of a distance; 0 for equal clouds only.

    Notes
    -----
    :math:`\sqrt{2 E|X - Y| - E|X - X'| - E|Y - Y'|}` with the means over all pairs [1]_. Two
    clouds of n independent points of one law have a distance of the order of
    :math:`n^{-1/2}`: compare with the distance between two exact clouds of the same size. Memory
    stays small; time grows with the product of the sizes.

    References
    ----------
    .. [1] G. Székely, M. Rizzo, "Energy statistics: a class of statistics based on distances",
       Journal of Statistical Planning and Inference 2013,
       https://doi.org/10.1016/j.jspi.2013.03.018.

    Examples
    --------
    >>> from skdiffusion.metrics import energy_distance
    >>> energy_distance([[0.0], [1.0]], [[0.0], [1.0]])
    0.0
    >>> energy_distance([[0.0]], [[2.0]])
    2.0
    """
    X, Y = two_clouds(X, Y)
    square = 2 * _mean_distance(X, Y) - _mean_distance(X, X) - _mean_distance(Y, Y)
    return float(np.sqrt(max(square, 0.0)))


def mode_coverage(labels, weights, share=0.5):
    """Share of the modes that received a fair part of their points.

    Parameters
    ----------
    labels : array-like of int of shape (n_samples,)
        Mode of every point, such as ``mixture.predict(X)``.
    weights : array-like of shape (n_modes,)
        Weights the modes should have.
    share : float, default=0.5
        Part of its weight that a mode must have received to count as covered.

    Returns
    -------
    coverage : float
        Between 0 and 1. Even exact draws fall short of 1 where weights are small.

    Examples
    --------
    >>> from skdiffusion.metrics import mode_coverage
    >>> mode_coverage([0, 0, 0, 1], [0.5, 0.3, 0.2])
    0.6666666666666666
    """
    weights = np.asarray(weights, dtype=float)
    return float(np.mean(_frequencies(labels, weights) >= share * weights / weights.sum()))


def mode_weight_error(labels, weights):
    """Total variation distance between the shares of points in the modes and the weights.

    Parameters
    ----------
    labels : array-like of int of shape (n_samples,)
        Mode of every point, such as ``mixture.predict(X)``.
    weights : array-like of shape (n_modes,)
        Weights the modes should have.

    Returns
    -------
    error : float
        Share of the points that would have to move to another mode.

    Examples
    --------
    >>> from skdiffusion.metrics import mode_weight_error
    >>> mode_weight_error([0, 0, 0, 1], [0.5, 0.5])
    0.25
    """
    weights = np.asarray(weights, dtype=float)
    return float(np.abs(_frequencies(labels, weights) - weights / weights.sum()).sum() / 2)


def _frequencies(labels, weights):
    """Shares of the points in each mode."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise ValueError("labels must be a non-empty one-dimensional array of integers")
    if labels.min() < 0 or labels.max() >= len(weights):
        raise ValueError(f"labels must lie in [0, {len(weights) - 1}], the modes with a weight")
    return np.bincount(labels, minlength=len(weights)) / len(labels)


def two_clouds(X, Y):
    """Two finite two-dimensional arrays with the same number of columns."""
    X, Y = (_points(points, name) for points, name in ((X, "X"), (Y, "Y")))
    if X.shape[1] != Y.shape[1]:
        raise ValueError(f"X has {X.shape[1]} features, but Y has {Y.shape[1]}")
    return X, Y


def _points(points, name):
    """Finite two-dimensional array of floats."""
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or len(points) == 0 or not np.isfinite(points).all():
        raise ValueError(f"{name} must be a finite array of shape (n_samples, n_features)")
    return points


def _mean_distance(X, Y):
    """Mean Euclidean distance over all pairs, in blocks."""
    block = max(1, 2_000_000 // len(Y))
    total = sum(cdist(X[i : i + block], Y).sum() for i in range(0, len(X), block))
    return total / (len(X) * len(Y))
