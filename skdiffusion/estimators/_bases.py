"""Fit the analytic base of a density to standardised rows."""

import math
import warnings

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skdiffusion.diffusion.analytic import gaussian, gaussian_mixture, kernel_density, union

_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48)
# Where rows are few, averages over starting points of the mixtures pay.
_N_SEEDS, _MANY_ROWS = 3, 3000
# Weight in the average below which a mixture is not worth its time.
_MIN_WEIGHT = 0.03
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
    """Stack Gaussian mixtures of many sizes, shapes and ridges.

    Each mixture is fitted to the training rows; the weights of their average maximise the
    held-out likelihood [1]_. What has little weight is dropped.

    Returns the average of the training rows and that of all rows.

    References
    ----------
    .. [1] P. Smyth, D. Wolpert, "Linearly combining density estimators via stacking", Machine
       Learning 1999.
    """
    mixtures = _mixtures(train, held_out, seed)
    weights = stacking_weights(np.column_stack([m.score_samples(held_out) for m in mixtures]))
    kept = np.flatnonzero(weights > min(_MIN_WEIGHT, weights.max() / 2))
    final = [_fit_quietly(_continued(mixtures[i]), everything) for i in kept]
    return tuple(
        union(weights[kept], [_as_density(mixture) for mixture in part])
        for part in ([mixtures[i] for i in kept], final)
    )


def stacking_weights(log_densities):
    """Weights of an average of densities with the best likelihood, by expectation maximisation.

    It begins at equal weights and takes one step a row: where rows are few, that keeps it from
    betting on few densities.

    Parameters
    ----------
    log_densities : ndarray of shape (n_samples, n_densities)
        Held-out log-densities.

    Returns
    -------
    weights : ndarray of shape (n_densities,)
        Weights that sum to one.
    """
    weights = np.full(log_densities.shape[1], 1 / log_densities.shape[1])
    for _ in range(len(log_densities)):
        joint = np.log(np.maximum(weights, 1e-300)) + log_densities
        weights = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)).mean(0)
    return weights


def _mixtures(train, held_out, seed):
    """Fitted mixtures; sizes grow until the held-out likelihood falls twice."""
    mixtures = []
    for start in range(_N_SEEDS if len(train) < _MANY_ROWS else 1):
        for covariance_type, ridge in _mixture_options(*train.shape):
            n_worse, last = 0, -math.inf
            for size in _mixture_sizes(*train.shape):
                mixture = GaussianMixture(
                    size,
                    covariance_type=covariance_type,
                    reg_covar=ridge,
                    random_state=(seed + start) % 2**31,
                )
                score = _fit_quietly(mixture, train).score(held_out)
                mixtures.append(mixture)
                n_worse = n_worse + 1 if score < last else 0
                last = score
                if n_worse == 2:
                    break
    return mixtures


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
    ridges = (1e-4, 1e-2) if n_rows >= _MANY_ROWS else (1e-3, 1e-2, 1e-1)
    return [("full", ridge) for ridge in ridges] + [("diag", ridges[1])]


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
