"""Rubin's rules, and the sampling variance of estimates that have a formula."""

import numpy as np
from scipy import stats
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils import Bunch


def pool_rubin(estimates, variances, *, complete_df=None, level=0.95):
    r"""Pool estimates from several completed copies of one data set by Rubin's rules.

    Parameters
    ----------
    estimates : array-like of shape (n_imputations, ...)
        Estimates from each copy, one quantity or an array of them.
    variances : array-like of the shape of ``estimates``
        Their squared standard errors, each as if its copy had been observed.
    complete_df : float, default=None
        Degrees of freedom that the estimates would have without missing values, such as
        ``n_samples - n_coefficients``. With it, the degrees of freedom are those of Barnard and
        Rubin [2]_, which never exceed it; None takes those of Rubin [1]_, for large samples.
    level : float, default=0.95
        Probability of the confidence interval, in (0, 1).

    Returns
    -------
    pooled : Bunch
        Arrays of shape ``estimates.shape[1:]``: ``estimate``, ``within`` and ``between`` (the two
        variances), ``total`` (variance), ``standard_error``, ``df``, ``relative_increase`` (of
        the variance by what is missing), ``fraction_missing`` (of the information, between 0
        and 1), and the interval from ``low`` to ``high``.

    Raises
    ------
    ValueError
        If shapes differ, if there are fewer than two copies, or if a number is out of range.

    Notes
    -----
    With m copies, mean variance :math:`W` and variance :math:`B` of the estimates, the total is
    :math:`T = W + (1 + 1/m) B`, the relative increase :math:`r = (1 + 1/m) B / W`, and the large
    sample degrees of freedom are :math:`\nu = (m - 1)(1 + 1/r)^2`. The fraction of missing
    information is :math:`(r + 2 / (\nu + 3)) / (1 + r)`, with the degrees of freedom in use.

    References
    ----------
    .. [1] D. B. Rubin, "Multiple Imputation for Nonresponse in Surveys", Wiley, 1987, section 3.1.
    .. [2] J. Barnard, D. B. Rubin, "Small-sample degrees of freedom with multiple imputation",
       Biometrika 86, 1999.

    Examples
    --------
    >>> from skdiffusion.estimators import pool_rubin
    >>> pooled = pool_rubin([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
    >>> print(pooled.estimate, pooled.within, pooled.between, round(pooled.total, 3))
    2.0 0.5 1.0 1.833
    """
    estimates, variances = _checked_estimates(estimates, variances)
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level!r}")
    m = len(estimates)
    within, between = variances.mean(axis=0), estimates.var(axis=0, ddof=1)
    extra = (1 + 1 / m) * between
    total = within + extra
    # Nothing varies, nothing is missing: no division of zero by zero.
    share = np.divide(extra, total, out=np.zeros_like(total), where=total > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = (m - 1) / share**2
        increase = np.where(share > 0, extra / within, 0.0)
    if complete_df is not None:
        df = _small_sample_df(df, share, complete_df)
    half = stats.t.ppf((1 + level) / 2, df) * np.sqrt(total)
    estimate = estimates.mean(axis=0)
    return Bunch(
        estimate=estimate,
        within=within,
        between=between,
        total=total,
        standard_error=np.sqrt(total),
        df=df,
        relative_increase=increase,
        fraction_missing=share + (1 - share) * 2 / (df + 3) * (share > 0),
        low=estimate - half,
        high=estimate + half,
    )


def _checked_estimates(estimates, variances):
    """Two float arrays of one shape with at least two copies."""
    estimates, variances = np.asarray(estimates, float), np.asarray(variances, float)
    if estimates.shape != variances.shape:
        raise ValueError(
            f"estimates and variances must have one shape, got {estimates.shape} and "
            f"{variances.shape}"
        )
    if estimates.ndim == 0 or len(estimates) < 2:
        raise ValueError("estimates must come from at least 2 imputations: impute more often")
    if not np.isfinite(estimates).all() or not (np.isfinite(variances) & (variances >= 0)).all():
        raise ValueError("estimates must be finite, and variances finite and not negative")
    return estimates, variances


def _small_sample_df(df, share, complete_df):
    """Degrees of freedom of Barnard and Rubin; the harmonic sum of two."""
    if not complete_df > 0:
        raise ValueError(f"complete_df must be positive, got {complete_df!r}")
    observed = (1 - share) * complete_df * (complete_df + 1) / (complete_df + 3)
    if np.isinf(complete_df):
        return df
    return np.where(np.isinf(df), observed, observed / (1 + observed / df))


def variance_formula(estimator, y):
    """Function that returns coefficients and their variances, or None."""
    if type(estimator) is LinearRegression and not estimator.positive:
        return _least_squares
    if type(estimator) is LogisticRegression and _unpenalised(estimator):
        return _logistic if len(np.unique(y)) == 2 else None
    return None


def _unpenalised(estimator):
    return estimator.penalty is None or np.isinf(estimator.C)


def collinear(X, fit_intercept):
    """Mask of the columns that take part in a linear dependence, with the intercept as well."""
    X = X / np.where(X.any(axis=0), np.abs(X).max(axis=0), 1.0)
    X = X - X.mean(axis=0) if fit_intercept else X
    _, size, right = np.linalg.svd(np.linalg.qr(X, mode="r"))
    dependent = right[size <= size.max() * max(X.shape) * np.finfo(float).eps]
    return (np.abs(dependent) > 1e-6).any(axis=0)


def _least_squares(estimator, X, y):
    """Ordinary least squares: residual variance times the inverse of X'X."""
    weights = np.ones(len(y))
    slopes, inner, origin = _inverse(estimator, X, weights)
    # Around the means, so that no digits are lost to an offset of the columns.
    centred = X - origin
    y_origin = np.average(y) if estimator.fit_intercept else 0.0
    df = max(1, len(y) - len(slopes) - bool(estimator.fit_intercept))
    residual = np.square(y - y_origin - centred @ slopes).sum() / df
    return _with_intercept(estimator, slopes, inner, origin, 1 / len(y), residual)


def _logistic(estimator, X, y):
    """Inverse of the Fisher information."""
    p = estimator.predict_proba(X)[:, 1]
    weights = p * (1 - p)
    slopes, inner, origin = _inverse(estimator, X, weights)
    return _with_intercept(estimator, slopes, inner, origin, 1 / weights.sum(), 1.0)


def _inverse(estimator, X, weights):
    """Slopes, the inverse of X'WX for columns around their weighted means, and these means.

    Columns are divided by their largest value on the way: the result does not depend on units.
    """
    origin = np.average(X, axis=0, weights=weights) if estimator.fit_intercept else 0.0
    centred = X - origin
    size = np.abs(centred).max(axis=0)
    size = np.where(size > 0, size, 1.0)
    root = np.sqrt(weights)[:, None] * centred / size
    inner = np.linalg.pinv(root.T @ root, hermitian=True) / np.outer(size, size)
    return np.ravel(estimator.coef_), inner, origin


def _with_intercept(estimator, slopes, inner, origin, share, variance):
    """Coefficients and their variances, intercept first where there is one."""
    variances = np.diag(inner)
    if not estimator.fit_intercept:
        return slopes, variance * variances
    first = share + origin @ inner @ origin
    coefficients = np.r_[np.ravel(estimator.intercept_), slopes]
    return coefficients, variance * np.r_[first, variances]
