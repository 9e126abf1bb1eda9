"""Funnels straightened: variables whose scale follows other variables, in units of that scale.

In a hierarchical model the spread ``exp(v / 2)`` of some variables is itself a variable ``v``. No
step suits both ends of such a funnel, and no covariance describes it. With ``y`` for the free
coordinates and ``z`` for new ones,

    ``y_j = z_j`` for *heads*, and ``y_j = o_j + a_j . h + exp(b_j . (h - c)) z_j`` for *members*,

where ``h`` are the heads. With the right ``b`` the members no longer depend on the heads, which is
the non-centred parameterisation [1]_; slopes between 0 and the right ones are the partial ones,
which suit members that data know well [2]_. Whatever the slopes, the map is one to one and its
Jacobian is known, so that chains in ``z`` sample the same density.

References
----------
.. [1] O. Papaspiliopoulos, G. Roberts, M. Sköld, "A general framework for the parametrization of
   hierarchical models", Statistical Science 2007.
.. [2] M. Gorinova, D. Moore, M. Hoffman, "Automatic reparameterisation of probabilistic programs",
   ICML 2020.
"""

import dataclasses

import numpy as np
import torch

# Correlation of the logarithm of a distance from the centre with another variable, from which the
# latter is a head: that of a hundred independent draws is hardly ever as large by chance.
_TIED = 0.35
# Exponents are kept within: a factor of 10**13 either way.
_LARGEST_EXPONENT = 30.0
# Steps of Fisher scoring of the slopes, from where the logarithms of the distances lead.
_N_SCORING = 8
# Largest square of a residual that counts, and the standard errors that are no chance.
_LARGEST_SQUARE, _CLEAR = 50.0, 4.0
# Mean logarithm of the distance of a standard normal from 0.
_MEAN_LOG = -0.6352


@dataclasses.dataclass(frozen=True)
class NonCentred:
    """Map from ``z`` to free coordinates ``y``; see the module's introduction.

    Parameters
    ----------
    offset : ndarray of shape (n_features,)
        ``o``, 0 for heads.
    location : ndarray of shape (n_features, n_features)
        ``a``, one row a member, one column a head, 0 elsewhere.
    log_scale : ndarray of shape (n_features, n_features)
        ``b``, in the same place.
    centre : ndarray of shape (n_features,)
        ``c``.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skdiffusion.diffusion.target.noncentred import NonCentred
    >>> slopes = np.array([[0.0, 0.0], [0.5, 0.0]])
    >>> funnel = NonCentred(np.zeros(2), 0 * slopes, slopes, np.zeros(2))
    >>> y, log_jacobian = funnel(torch.tensor([[2.0, 1.0]]))
    >>> y, log_jacobian
    (tensor([[2.0000, 2.7183]]), tensor([1.]))
    """

    offset: np.ndarray
    location: np.ndarray
    log_scale: np.ndarray
    centre: np.ndarray

    @property
    def n_features(self):
        """Number of features."""
        return len(self.offset)

    n_free = n_features

    def __call__(self, z):
        """Free coordinates, and log-Jacobians."""
        exponent, middle = self._at(z)
        return middle + exponent.exp() * z, exponent.sum(1)

    def inverse(self, y):
        """The new coordinates of free ones."""
        exponent, middle = self._at(y)
        return (y - middle) * (-exponent).exp()

    def _at(self, x):
        """Exponents and centres of all columns; heads are the same in both coordinates."""
        offset, location, log_scale, centre = (
            torch.as_tensor(a, dtype=x.dtype, device=x.device) for a in dataclasses.astuple(self)
        )
        exponent = ((x - centre) @ log_scale.T).clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
        return exponent, offset + x @ location.T


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
        The map in whose coordinates members no longer follow heads; None where there are none.

    Notes
    -----
    Heads are those variables that the logarithms of most others' distances from the centre are
    correlated with. Slopes are the likeliest ones of a normal distribution whose mean and
    logarithm of the deviation are linear in the heads, by Fisher scoring; what is not clearly
    different from 0 is 0, as in the neck of a funnel the least error of a centre is many scales.
    """
    heads, members = _roles(y)
    if not heads:
        return None
    d = y.shape[1]
    offset, location, log_scale = np.zeros(d), np.zeros((d, d)), np.zeros((d, d))
    rows = np.column_stack([np.ones(len(y)), y[:, heads]])
    for j in members:
        mean, slopes = _fit_member(rows, y[:, j], len(y) / n_independent)
        offset[j], location[j, heads], log_scale[j, heads] = mean[0], mean[1:], slopes[1:]
    return NonCentred(offset, location, log_scale, y.mean(0))


def _roles(y):
    """Lists of heads and of their members."""
    ties = _ties(y)
    strength = np.where(ties > _TIED, ties, 0).sum(0)
    heads, members = [], set()
    for k in np.argsort(-strength, kind="stable"):
        follow = {int(j) for j in np.flatnonzero(ties[:, k] > _TIED)} - set(heads)
        if follow and k not in members:
            heads.append(int(k))
            members |= follow
    return heads, sorted(members)


def _ties(y):
    """Correlations of each column's logarithmic distance from its median with the other columns."""
    if not (y.std(0) > 0).all():
        return np.zeros((y.shape[1],) * 2)
    size = np.log(np.maximum(np.abs(y - np.median(y, 0)), 1e-6 * y.std(0)))
    size, z = ((a - a.mean(0)) / np.maximum(a.std(0), 1e-300) for a in (size, y))
    ties = np.abs(size.T @ z) / len(y)
    np.fill_diagonal(ties, 0.0)
    return ties


def _fit_member(rows, y, repeats):
    """Coefficients of mean and logarithmic deviation, linear in the rows."""
    mean = np.linalg.lstsq(rows, y, rcond=None)[0]
    logs = np.log(np.maximum(np.abs(y - rows @ mean), 1e-6 * y.std())) - _MEAN_LOG
    slopes = np.linalg.lstsq(rows, logs, rcond=None)[0]
    for _ in range(_N_SCORING):
        weight = np.exp(-np.clip(rows @ slopes, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
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
