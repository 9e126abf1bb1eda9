"""Errors of one prediction for every cell."""

import numpy as np

from skdiffusion.metrics._cells import checked_prediction, scored_cells


def _scored_errors(y_true, y_pred, mask):
    """Errors of the scored cells as a flat array."""
    y_true, scored = scored_cells(y_true, mask)
    return checked_prediction(y_true, y_pred, scored) - y_true[scored]


def mean_absolute_error(y_true, y_pred, *, mask=None):
    """Mean absolute error over the scored cells.

    The prediction that minimises it is the median.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, ...)
        True values. NaN cells are not scored.
    y_pred : array-like of the shape of ``y_true``
        Predicted values.
    mask : array-like of bool of the shape of ``y_true``, default=None
        True for the cells to score; None scores every cell with a known truth.

    Returns
    -------
    error : float
        Mean over the scored cells, in the units of ``y_true``.

    See Also
    --------
    root_mean_squared_error : Rewards the mean instead of the median.
    crps_loss : The same for a whole distribution.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import mean_absolute_error
    >>> mean_absolute_error([[1.0, np.nan], [3.0, 4.0]], [[2.0, 0.0], [3.0, 6.0]])
    1.0
    """
    return float(np.abs(_scored_errors(y_true, y_pred, mask)).mean())


def root_mean_squared_error(y_true, y_pred, *, mask=None):
    """Root of the mean squared error over the scored cells.

    The prediction that minimises it is the mean.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, ...)
        True values. NaN cells are not scored.
    y_pred : array-like of the shape of ``y_true``
        Predicted values.
    mask : array-like of bool of the shape of ``y_true``, default=None
        True for the cells to score; None scores every cell with a known truth.

    Returns
    -------
    error : float
        Root of the mean over the scored cells, in the units of ``y_true``.

    See Also
    --------
    mean_absolute_error : Rewards the median instead of the mean.
    relative_squared_error : The same without units.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import root_mean_squared_error
    >>> root_mean_squared_error([[0.0, np.nan], [0.0, 0.0]], [[2.0, 7.0], [2.0, 2.0]])
    2.0
    """
    return float(np.sqrt(np.square(_scored_errors(y_true, y_pred, mask)).mean()))


def relative_squared_error(y_true, y_pred, *, mask=None):
    r"""Squared error relative to predicting every feature by its mean.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, ..., n_features)
        True values, the features along the last axis. NaN cells are not scored.
    y_pred : array-like of the shape of ``y_true``
        Predicted values.
    mask : array-like of bool of the shape of ``y_true``, default=None
        True for the cells to score; None scores every cell with a known truth.

    Returns
    -------
    error : float
        0 for a perfect prediction, 1 for the mean of every feature, above 1 for worse.

    Raises
    ------
    ValueError
        If the scored truth of every feature is constant.

    Notes
    -----
    Over the scored cells :math:`i` of the features :math:`k`

    .. math:: \mathrm{RSE} = \frac{\sum_{i, k} (y_{ik} - \hat y_{ik})^2}
                                  {\sum_{i, k} (y_{ik} - \bar y_k)^2},

    where :math:`\bar y_k` is the mean of the scored true values of feature :math:`k`; it is one
    minus scikit-learn's variance-weighted :func:`sklearn.metrics.r2_score`. A mean over all
    features together would make features of different level look well predicted. The sums are
    in squared units: standardise features of different units first.

    Examples
    --------
    >>> from skdiffusion.metrics import relative_squared_error
    >>> relative_squared_error([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.5
    """
    y_true, scored = scored_cells(y_true, mask)
    error = checked_prediction(y_true, y_pred, scored) - y_true[scored]
    total = _squares_about_feature_means(y_true, scored)
    if total == 0:
        raise ValueError(
            "relative_squared_error is undefined: the scored cells of y_true are constant in "
            "every feature; use root_mean_squared_error"
        )
    return float(np.square(error).sum() / total)


def _squares_about_feature_means(y_true, scored):
    """Sum of squared deviations of the scored truth from the mean of its feature."""
    n_features = y_true.shape[-1] if y_true.ndim > 1 else 1
    y, scored = y_true.reshape(-1, n_features), scored.reshape(-1, n_features)
    columns = (y[scored[:, k], k] for k in range(n_features))
    return sum(np.square(c - c.mean()).sum() for c in columns if c.size)
