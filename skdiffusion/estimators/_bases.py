"""Fit the analytic base of a density to standardised rows."""

import math
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skdiffusion.diffusion.analytic import gaussian, gaussian_mixture, kernel_density

_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48)
_BANDWIDTHS = np.logspace(-1.9, 0.1, 21)
# A kernel estimate has nothing to say in more columns, and costs one exponential a row and point.
MAX_KDE_FEATURES, MAX_KDE_ROWS = 15, 20_000


def fit_unit(n_features):
    """N(0, I), under which the denoiser is the usual preconditioned network."""
    return gaussian(np.zeros(n_features), np.eye(n_features))


def fit_gaussian(rows):
    """Gaussian with the moments of the rows."""
    covariance = np.cov(rows.T).reshape(rows.shape[1], -1)
    return gaussian(rows.mean(0), covariance + 1e-6 * np.eye(rows.shape[1]))


def fit_mixture(train, held_out, everything, seed):
    """Gaussian mixtures of the size, shape and ridge with the best held-out likelihood.

    Returns the mixture of the training rows and that of all rows.
    """
    best, best_score = None, -math.inf
    for covariance_type, ridge in _mixture_options(*train.shape):
        n_worse, last = 0, -math.inf
        for size in _mixture_sizes(*train.shape):
            mixture = GaussianMixture(
                size, covariance_type=covariance_type, reg_covar=ridge, random_state=seed
            )
            score = _fit_quietly(mixture, train).score(held_out)
            if score > best_score:
                best, best_score = mixture, score
            n_worse = n_worse + 1 if score < last else 0
            last = score
            if n_worse == 2:
                break
    return _as_density(best), _as_density(_fit_quietly(_continued(best), everything))


def fit_kde(train, everything):
    """Kernel estimates of the training and of all rows, by leave-one-out likelihood."""
    bandwidth = _leave_one_out_bandwidth(train)
    # The best bandwidth falls as n**(-1 / (d + 4)).
    shrunk = bandwidth * (len(train) / len(everything)) ** (1 / (train.shape[1] + 4))
    return kernel_density(train, bandwidth), kernel_density(everything, shrunk)


def _mixture_options(n_rows, n_features):
    """Covariance types and ridges worth trying."""
    if n_features <= 2:
        return [("full", 1e-6)]
    ridges = (1e-4, 1e-2) if n_rows > 3000 else (1e-3, 1e-2, 1e-1)
    return [(kind, ridge) for kind in ("full", "diag") for ridge in ridges]


def _mixture_sizes(n_rows, n_features):
    """Numbers of components that the rows can carry."""
    return [k for k in _SIZES if k == 1 or (3 * k < n_rows and k * n_features**2 < 40_000)]


def _fit_quietly(mixture, rows):
    """Fit; that expectation maximisation stopped at its limit is no news to the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(rows)


def _continued(mixture):
    """A mixture that starts where another one ended."""
    return GaussianMixture(
        mixture.n_components,
        covariance_type=mixture.covariance_type,
        reg_covar=mixture.reg_covar,
        weights_init=mixture.weights_,
        means_init=mixture.means_,
        precisions_init=mixture.precisions_,
    )


def _as_density(mixture):
    """The fitted mixture with its closed-form noisy versions."""
    return gaussian_mixture(
        mixture.weights_, mixture.means_, mixture.covariances_, mixture.covariance_type
    )


def _leave_one_out_bandwidth(rows, n_probes=1000):
    """Bandwidth with the best leave-one-out likelihood on a subset of the rows."""
    points = torch.as_tensor(rows)
    probes = np.linspace(0, len(rows) - 1, min(len(rows), n_probes)).astype(int)
    scores = np.zeros(len(_BANDWIDTHS))
    for chunk in np.array_split(probes, max(1, len(probes) // 250)):
        chosen = torch.as_tensor(chunk)
        for i, bandwidth in enumerate(_BANDWIDTHS):
            density = kernel_density(points, bandwidth).float()
            values = density.log_density(points[chosen].float(), 0.0, leave_out=chosen)
            scores[i] += float(values.double().sum())
    return float(_BANDWIDTHS[scores.argmax()])
