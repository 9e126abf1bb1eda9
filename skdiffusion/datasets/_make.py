"""Distributions made up with a seed."""

import numpy as np
from sklearn.mixture import GaussianMixture

from skdiffusion.inputs.arguments import positive_int


def make_gaussian_mixture(
    n_components=150, n_features=2, *, scale=0.5, low=-20.0, high=20.0, random_state=None
):
    """Gaussian mixture with many scattered components of uneven weight.

    Parameters
    ----------
    n_components : int, default=150
        Number of components.
    n_features : int, default=2
        Number of features.
    scale : float, default=0.5
        Standard deviation of every component in every direction.
    low : float, default=-20.0
        Lower end of the uniform distribution of the means.
    high : float, default=20.0
        Upper end of the uniform distribution of the means.
    random_state : int, numpy.random.Generator or None, default=None
        Seed of means and weights, which come from a uniform and a flat Dirichlet distribution.

    Returns
    -------
    mixture : sklearn.mixture.GaussianMixture
        The mixture with ``weights_``, ``means_`` and ``covariances_`` set, ready for ``sample``,
        ``score_samples`` and ``predict`` (the component of a point), and as the target of
        :class:`skdiffusion.estimators.LangevinSampler`.

    Raises
    ------
    ValueError
        If ``scale`` is not positive, or ``low`` is not below ``high``.

    Examples
    --------
    >>> from skdiffusion.datasets import make_gaussian_mixture
    >>> mixture = make_gaussian_mixture(150, random_state=0)
    >>> mixture.means_.shape
    (150, 2)
    >>> X, component = mixture.sample(1000)
    >>> X.shape
    (1000, 2)
    """
    n_components = positive_int(n_components, "n_components")
    n_features = positive_int(n_features, "n_features")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    if not low < high:
        raise ValueError(f"low must be below high, got low={low} and high={high}")
    rng = np.random.default_rng(random_state)
    mixture = GaussianMixture(n_components, covariance_type="spherical", random_state=0)
    mixture.means_ = rng.uniform(low, high, (n_components, n_features))
    mixture.weights_ = rng.dirichlet(np.ones(n_components))
    mixture.covariances_ = np.full(n_components, scale**2)
    mixture.precisions_ = 1 / mixture.covariances_
    mixture.precisions_cholesky_ = np.sqrt(mixture.precisions_)
    mixture.converged_, mixture.n_iter_, mixture.lower_bound_ = True, 0, np.nan
    mixture.n_features_in_ = n_features
    return mixture
