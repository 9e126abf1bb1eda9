"""Gaussian mixtures whose covariances are drawn towards their average.

Expectation maximisation with responsibilities ``r_ik`` and ``n_k = sum_i r_ik`` gives component
``k`` the sample covariance ``S_k`` of its rows. Where ``n_k`` is not much larger than the number
of columns that is mostly noise. Adding a ridge calms it, and makes every column too wide and every
correlation too small; so here, as in regularised discriminant analysis [1]_,

    C_k = (1 - a_k) S_k + a_k W + ridge I,      a_k = n_0 / (n_0 + n_k),

where ``n_0`` rows' worth of trust goes to ``W``, the average of the ``S_k`` weighted by
``n_k a_k``. With these weights ``sum_k n_k C_k = sum_k n_k S_k`` but for the ridge: mean and
covariance of the mixture remain those of the rows whatever ``n_0``.

References
----------
.. [1] J. Friedman, "Regularized discriminant analysis", JASA 1989,
   https://doi.org/10.1080/01621459.1989.10478752.
"""

import math
from dataclasses import dataclass

import numpy as np

# Steps of EM at most, and the gain in nats a row that ends it: a hundredth of the differences
# between mixtures of neighbouring sizes.
_MAX_ITER, _TOL = 100, 1e-3
# Numbers in the largest array: rows go through in parts where there are many.
_MAX_NUMBERS = 2_000_000


@dataclass(frozen=True)
class Shape:
    """What the covariances of a mixture may be.

    Parameters
    ----------
    trust : float
        Trust in the average covariance, in rows a column: ``n_0`` over the number of columns.
        Infinite for one covariance shared by all components.
    ridge : float
        Added to all variances.
    diagonal : bool, default=False
        No covariances between columns within a component.
    """

    trust: float
    ridge: float
    diagonal: bool = False


@dataclass(frozen=True)
class FittedMixture:
    """Weights, means and covariances of a mixture.

    Parameters
    ----------
    weights : ndarray of shape (n_components,)
        Weights.
    means : ndarray of shape (n_components, n_features)
        Means.
    covariances : ndarray of shape (n_components, n_features, n_features)
        Covariances.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def log_density(self, rows):
        """Logarithm of the density.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log density in nats.
        """
        joint, parts = self.joint(), _split(rows, len(self.weights))
        return np.concatenate([_log_sum_and_shares(joint(part))[0] for part in parts])

    def joint(self):
        """Return the function from rows to the log of weight times density of each component."""
        k, d = self.means.shape
        factor = np.linalg.cholesky(self.covariances)
        whitening = np.linalg.inv(factor)
        shift = (whitening @ self.means[:, :, None])[:, :, 0].T.reshape(-1)
        # Components last: their sums over features are then sums of long vectors.
        whitening = whitening.transpose(2, 1, 0).reshape(d, d * k)
        log_determinant = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
        offset = np.log(self.weights) - log_determinant - 0.5 * d * math.log(2 * math.pi)

        def joint(rows):
            white = rows @ whitening
            white -= shift
            white *= white
            return offset - 0.5 * white.reshape(-1, d, k).sum(1)

        return joint


def fit(rows, start, shape):
    """Fit a mixture by expectation maximisation.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        Rows.
    start : int ndarray of shape (n_samples,) or FittedMixture
        Component that each row starts in, or the mixture to go on from.
    shape : Shape
        What the covariances may be.

    Returns
    -------
    mixture : FittedMixture
        The mixture, when the mean log-likelihood rises by less than 0.001 a step.
    """
    if isinstance(start, FittedMixture):
        mixture, parts = start, _split(rows, len(start.weights))
    else:
        shares = (np.arange(start.max() + 1) == start[:, None]).astype(float)
        parts = _split(rows, shares.shape[1])
        mixture = _maximise(*_moments(parts, np.array_split(shares, len(parts))), shape)
    last = -math.inf
    for _ in range(_MAX_ITER):
        joint = mixture.joint()
        log_densities, shares = zip(*(_log_sum_and_shares(joint(part)) for part in parts))
        mixture = _maximise(*_moments(parts, shares), shape)
        mean = sum(part.sum() for part in log_densities) / len(rows)
        if mean - last < _TOL:
            break
        last = mean
    return mixture


def _split(rows, n_components):
    """Rows in parts that fit in memory with one copy for each component."""
    return np.array_split(rows, math.ceil(rows.size * n_components / _MAX_NUMBERS))


def _log_sum_and_shares(values):
    """Logarithm of the sum of exponentials over the last axis, and the share of each."""
    largest = values.max(1, keepdims=True)
    shares = np.exp(values - largest)
    total = shares.sum(1, keepdims=True)
    shares /= total
    return (largest + np.log(total))[:, 0], shares


def _moments(parts, shares):
    """Rows' worth of each component, sums of its rows and of their products."""
    (d,), (k,) = parts[0].shape[1:], shares[0].shape[1:]
    counts, sums, products = np.full(k, 1e-10), np.zeros((k, d)), np.zeros((k * d, d))
    for rows, share in zip(parts, shares, strict=True):
        counts += share.sum(0)
        sums += share.T @ rows
        products += (share[:, :, None] * rows[:, None, :]).reshape(len(rows), -1).T @ rows
    return counts, sums, products.reshape(k, d, d)


def _maximise(counts, sums, products, shape):
    """Mixture of given moments."""
    d = sums.shape[1]
    means = sums / counts[:, None]
    covariances = products / counts[:, None, None] - means[:, :, None] * means[:, None, :]
    if shape.diagonal:
        covariances *= np.eye(d)
    if shape.trust > 0:
        doubt = 1 / (1 + counts / (shape.trust * d))
        pooled = np.einsum("k,kij->ij", counts * doubt, covariances) / (counts @ doubt)
        covariances += doubt[:, None, None] * (pooled - covariances)
    covariances += shape.ridge * np.eye(d)
    return FittedMixture(counts / counts.sum(), means, covariances)
