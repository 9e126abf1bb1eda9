"""Funnels found in trial draws: whose scale follows which variables, and how."""

import numpy as np

from skdiffusion.diffusion.target.noncentred import LARGEST_EXPONENT, NonCentred

# Correlation of the logarithm of a distance from the centre with another variable, from which the
# latter is a head: that of a hundred independent draws is hardly ever as large by chance.
_TIED = 0.35
# The same for columns that follow a head which others follow clearly.
_JOINS = 0.2
# Mean correlation with the others, in the neck, of a column in the middle of them.
_ALIKE = 0.5
# Share of its variance that is added to every column of a regression.
_RIDGE = 0.01
# Steps of Fisher scoring of the slopes, from where the logarithms of the distances lead.
_N_SCORING = 8
# Largest square of a residual that counts, and the standard errors that are no chance.
_LARGEST_SQUARE, _CLEAR = 50.0, 4.0
# Mean logarithm of the distance of a standard normal from 0.
_MEAN_LOG = -0.6352


def find_non_centred(y, n_independent):
    """Find variables whose scale follows others, and how.

    Parameters
    ----------
    y : ndarray of shape (n_points, n_features)
        Draws, or points on the way to them.
    n_independent : int
        Number of independent points that they are worth.

    Returns
    -------
    found : NonCentred or None
        The map in whose coordinates members no longer follow others; None where there are none.

    Notes
    -----
    Heads are those variables that the logarithms of most others' distances from what the rest
    tells of them are correlated with. Slopes are the likeliest ones of a normal distribution whose
    mean and logarithm of the deviation are linear in all but members, by Fisher scoring; what is
    not clearly different from 0 is 0, as in the neck of a funnel the least error of a centre is
    many scales.
    """
    members, d = _members(y), y.shape[1]
    if not members:
        return None
    others = np.setdiff1d(np.arange(d), members)
    offset, location, log_scale = np.zeros(d), np.zeros((d, d)), np.zeros((d, d))
    rows = np.column_stack([np.ones(len(y)), y[:, others]])
    for j in members:
        mean, slopes = _fit_member(rows, y[:, j], len(y) / n_independent)
        offset[j], location[j, others], log_scale[j, others] = mean[0], mean[1:], slopes[1:]
    return NonCentred(offset, location, log_scale, y.mean(0))


def _members(y):
    """Columns whose scale follows others, which are the heads, with most of them first."""
    size, z = _log_distances(y), (y - y.mean(0)) / np.maximum(y.std(0), 1e-300)
    slopes = (size - size.mean(0)).T @ z / len(z)
    ties = np.abs(slopes) / np.maximum(size.std(0), 1e-300)[:, None]
    np.fill_diagonal(ties, 0.0)
    heads, members = [], set()
    for k in np.argsort(-np.where(ties > _TIED, ties, 0).sum(0), kind="stable"):
        if k in members or not (ties[:, k] > _TIED).any():
            continue
        heads.append(int(k))
        follow = [int(j) for j in np.flatnonzero(ties[:, k] > _JOINS) if j not in heads]
        if follow:
            weight = np.exp(-2 * np.clip(slopes[follow, k].mean() * z[:, k], -5, 5))
            members |= set(follow) - _middle(z, weight, follow)
    return sorted(members - set(heads))


def _log_distances(y):
    """Logarithms of the distances of each column from its regression on the others."""
    z = (y - y.mean(0)) / np.maximum(y.std(0), 1e-300)
    precision = np.linalg.inv(z.T @ z / len(z) + _RIDGE * np.eye(z.shape[1]))
    return np.log(np.maximum(np.abs(z @ precision / np.diag(precision)), 1e-6))


def _middle(z, weight, follow):
    """The column around which those that follow a head lie where they are narrow, if there is one.

    Its own scale stays, but its distance from them follows the head as theirs from it.
    """
    if len(follow) < 2:
        return set()
    near = (z - np.average(z, 0, weight)) * np.sqrt(weight)[:, None]
    likeness = np.abs(near.T @ near / np.sqrt(np.outer(*[(near**2).sum(0)] * 2)))
    np.fill_diagonal(likeness, 0.0)
    mean = likeness[follow].sum(0) / (len(follow) - np.isin(np.arange(len(likeness)), follow))
    return {int(mean.argmax())} if mean.max() > _ALIKE else set()


def _fit_member(rows, y, repeats):
    """Coefficients of mean and logarithmic deviation, linear in the rows."""
    mean = np.linalg.lstsq(rows, y, rcond=None)[0]
    logs = np.log(np.maximum(np.abs(y - rows @ mean), 1e-6 * y.std())) - _MEAN_LOG
    slopes = np.linalg.lstsq(rows, logs, rcond=None)[0]
    for _ in range(_N_SCORING):
        weight = np.exp(-np.clip(rows @ slopes, -LARGEST_EXPONENT, LARGEST_EXPONENT))
        mean = np.linalg.lstsq(rows * weight[:, None], y * weight, rcond=None)[0]
        excess = np.minimum(((y - rows @ mean) * weight) ** 2, _LARGEST_SQUARE) - 1
        slopes = slopes + np.linalg.lstsq(rows, excess / 2, rcond=None)[0]
    # The information of a logarithmic deviation is twice that of a mean in its units.
    slopes = np.where(_clear(slopes, rows, repeats / 2), slopes, 0.0)
    weighted = rows * weight[:, None]
    weighted = np.where(_clear(mean, weighted, repeats), weighted, 0.0)
    return np.linalg.lstsq(weighted, y * weight, rcond=None)[0], slopes


def _clear(coefficients, rows, repeats):
    """Which coefficients of a regression with unit errors are not 0 by chance."""
    error = np.sqrt(np.diag(np.linalg.pinv(rows.T @ rows)) * repeats)
    return np.abs(coefficients) > _CLEAR * error
