"""Clusters of rows that mixtures start from."""

import warnings

from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning


def clusters(rows, size, seed, n_starts=1):
    """Number of the cluster of each row, by k-means.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        Rows.
    size : int
        Number of clusters.
    seed : int
        Seed of the starts.
    n_starts : int, default=1
        Starts, the best of which counts.

    Returns
    -------
    labels : int ndarray of shape (n_samples,)
        From 0 to ``size - 1``.
    """
    with warnings.catch_warnings():
        # Fewer distinct rows than clusters leave some empty, which does no harm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(size, n_init=n_starts, random_state=seed % 2**31).fit(rows).labels_
