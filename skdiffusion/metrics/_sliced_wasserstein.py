"""Sliced Wasserstein distance between two clouds of points."""

import numpy as np
from scipy.stats import wasserstein_distance
from sklearn.utils import check_random_state

from skdiffusion.metrics._clouds import two_clouds


def sliced_wasserstein(X, Y, *, n_projections=100, random_state=0):
    r"""Wasserstein distance of two clouds, averaged over projections to lines.

    Parameters
    ----------
    X : array-like of shape (n_samples_X, n_features)
        Points.
    Y : array-like of shape (n_samples_Y, n_features)
        Points.
    n_projections : int, default=100
        Number of random directions.
    random_state : int, RandomState instance or None, default=0
        The directions. With the default all calls of one dimension share them, so that distances
        are comparable.

    Returns
    -------
    distance : float
        In the units of the features; 0 for equal clouds.

    Raises
    ------
    ValueError
        If the clouds are not finite or differ in their number of features.

    See Also
    --------
    energy_distance : No projections, but quadratic in the number of points.

    Notes
    -----
    With directions :math:`\theta` uniform on the sphere [1]_

    .. math:: \mathrm{SW}_1 = E_\theta\, W_1(\theta^\top X, \theta^\top Y), \qquad
              W_1(P, Q) = \int |F_P(t) - F_Q(t)|\, dt.

    Two clouds of n independent points of one law have a distance of the order of
    :math:`n^{-1/2}`: compare with the distance between two exact clouds of the same size.
    Features of large units rule the distance: scale first.

    References
    ----------
    .. [1] N. Bonneel, J. Rabin, G. Peyré, H. Pfister, "Sliced and Radon Wasserstein barycenters
       of measures", Journal of Mathematical Imaging and Vision 51, 2015,
       https://doi.org/10.1007/s10851-014-0506-3.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import sliced_wasserstein
    >>> sliced_wasserstein([[0.0], [1.0]], [[3.0], [2.0]])
    2.0
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> round(sliced_wasserstein(X, X + [0, 1], n_projections=2000), 2)  # 2 / pi
    0.64
    """
    X, Y = two_clouds(X, Y)
    directions = check_random_state(random_state).normal(size=(X.shape[1], n_projections))
    directions /= np.linalg.norm(directions, axis=0)
    lines = zip((X @ directions).T, (Y @ directions).T)
    return float(np.mean([wasserstein_distance(x, y) for x, y in lines]))
