"""Rubin's rules."""

import numpy as np
from scipy import stats
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
        and 1), the interval from ``low`` to ``high``, and ``p_value`` of the two-sided t test that
        the quantity is 0.

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
    .. [1] D. B. Rubin, "Multiple Imputation for Nonresponse in Surveys", Wiley, 1987, section 3.1,
       https://doi.org/10.1002/9780470316696.
    .. [2] J. Barnard, D. B. Rubin, "Small-sample degrees of freedom with multiple imputation",
       Biometrika 86, 1999, https://doi.org/10.1093/biomet/86.4.948.

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
        p_value=_p_value(estimate, np.sqrt(total), df),
    )


def _p_value(estimate, error, df):
    """Two-sided p-value of Student's t; 1 for an estimate of 0 without error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(estimate == 0, 0.0, np.abs(estimate) / error)
    return 2 * stats.t.sf(t, df)


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
