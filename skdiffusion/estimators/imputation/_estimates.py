"""Estimates of an analysis with their sampling variances, wherever they come from."""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline

from skdiffusion._warn import warn
from skdiffusion.estimators.imputation._pooling import pool_rubin


class Estimates(NamedTuple):
    """Estimates from one completed copy.

    Attributes
    ----------
    names : list or None
        What they are called, if known.
    values, variances : float ndarrays of shape (n_estimates,)
        Estimates and their squared standard errors.
    df : float or None
        Degrees of freedom without missing values, if known.
    """

    names: list | None
    values: np.ndarray
    variances: np.ndarray
    df: float | None


def read_result(result):
    """Estimates of what a function of the user's returned: results of statsmodels, or a pair.

    Parameters
    ----------
    result : object
        With ``params`` and ``bse``, as the results of statsmodels have them, or a pair of
        estimates and standard errors: Series, dicts or arrays.

    Returns
    -------
    estimates : Estimates
        The same.
    """
    if hasattr(result, "params") and hasattr(result, "bse"):
        values, errors, df = result.params, result.bse, getattr(result, "df_resid", None)
        names = _names_of(values)
        if names is None and hasattr(result, "model"):
            names = list(result.model.exog_names)
            # Of several equations there is a column of estimates for each.
            names = names if np.ndim(values) == 1 else None
        return Estimates(
            names, _flat(values), _flat(errors) ** 2, None if df is None else float(df)
        )
    try:
        values, errors = result
    except (TypeError, ValueError) as error:
        raise TypeError(
            "The function given as estimator must return estimates and their standard errors, "
            f"or results with params and bse as those of statsmodels, but returned {result!r}."
        ) from error
    return Estimates(_names_of(values), _flat(values), _flat(errors) ** 2, None)


def _names_of(values):
    """Names of a Series or a dict; of a frame pairs of row and column."""
    if isinstance(values, dict):
        return list(values)
    if hasattr(values, "columns"):
        return [(row, column) for row in values.index for column in values.columns]
    return list(values.index) if hasattr(values, "index") and hasattr(values, "iloc") else None


def _flat(values):
    values = list(values.values()) if isinstance(values, dict) else values
    return np.atleast_1d(np.asarray(values, dtype=float)).ravel()


def from_function(function):
    """Estimates by a function that returns estimates and variances."""

    def of(fitted, X, y):
        values, variances = function(fitted, X, y)
        names, values = _names_of(values), _flat(values)
        return Estimates(names, values, _flat(variances), len(y) - len(values))

    return of


def by_formula(estimator, y):
    """Function that returns the coefficients of a fitted estimator with variances, or None.

    Parameters
    ----------
    estimator : estimator
        Least squares or an unpenalised logistic regression, or a pipeline that ends with one.
    y : ndarray
        Targets.

    Returns
    -------
    of : callable or None
        ``of(fitted, X, y)`` returns :class:`Estimates`, with ``n_samples - n_coefficients``
        degrees of freedom.
    """
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    variances = variance_formula(last, y)
    if variances is None:
        return None

    def of(fitted, X, y):
        model, X, names = design_of(fitted, X)
        values, of_values = variances(model, X, y)
        names = ["intercept", *names] if model.fit_intercept else list(names)
        return Estimates(names, values, of_values, len(y) - len(values))

    return of


def design_of(fitted, X):
    """The last step of a fitted estimator, the columns that it is given, and their names."""
    if not isinstance(fitted, Pipeline):
        return fitted, np.asarray(X, dtype=float), _columns_of(X)
    ahead, names = fitted[:-1], _columns_of(X)
    if len(ahead):
        X = ahead.transform(X)
        X = X.toarray() if hasattr(X, "toarray") else X
        names = _columns_of(X, ahead)
    return fitted.steps[-1][1], np.asarray(X, dtype=float), names


def _columns_of(X, steps=None):
    """Names of columns: of a frame, of what steps make of it, or x0, x1, ..."""
    if hasattr(X, "columns"):
        return [str(name) for name in X.columns]
    try:
        return list(steps.get_feature_names_out())
    except (AttributeError, ValueError):
        return [f"x{k}" for k in range(X.shape[1])]


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
    inner = np.linalg.pinv(root.T @ root, hermitian=True)
    # What overflows is named by pooled_results.
    with np.errstate(over="ignore"):
        inner = inner / size[:, None] / size
    return np.ravel(estimator.coef_), inner, origin


def _with_intercept(estimator, slopes, inner, origin, share, variance):
    """Coefficients and their variances, intercept first where there is one."""
    variances = np.diag(inner)
    if not estimator.fit_intercept:
        return slopes, variance * variances
    first = share + origin @ inner @ origin
    coefficients = np.r_[np.ravel(estimator.intercept_), slopes]
    return coefficients, variance * np.r_[first, variances]


def no_formula(estimator):
    """Why the estimates of an estimator are not pooled."""
    return (
        f"pooled_ is missing: no variance of the coefficients of {estimator!r} is known, "
        "so only its predictions are pooled. Pass estimates=, a function that returns "
        "estimates and variances, or take LinearRegression or, for two classes, "
        "LogisticRegression(C=np.inf)."
    )


def pooled_results(results):
    """Pool the estimates of all copies; the reason as text where that is not possible.

    Parameters
    ----------
    results : list of Estimates or str
        One for each copy, or a reason.

    Returns
    -------
    pooled : Bunch or str
        What :func:`pool_rubin` returns, and ``names``.
    """
    if isinstance(results, str):
        return results
    results = _in_one_order(results)
    sizes = sorted({len(result.values) for result in results})
    if len(sizes) > 1:
        return (
            f"pooled_ is missing: the copies have different numbers of estimates ({sizes}), as "
            "where a rare category is drawn in some of them only: give OneHotEncoder its "
            "categories=, or join rare categories."
        )
    if others := _other_names(results):
        return (
            f"pooled_ is missing: the estimates {others} are not there in every copy: let the "
            "function return the same ones for each."
        )
    first = results[0]
    if first.df is not None and first.df <= 0:
        n = int(first.df) + len(first.values)
        return (
            f"pooled_ is missing: {n} samples are no more than the "
            f"{len(first.values)} estimates; give more samples or fewer columns."
        )
    if wrong := _not_finite(results):
        return (
            f"pooled_ is missing: the estimates {wrong} or their variances are not finite. If the "
            "columns are very small or large numbers, give them in other units."
        )
    dfs = [result.df for result in results]
    pooled = pool_rubin(
        [result.values for result in results],
        [result.variances for result in results],
        complete_df=None if first.df is None else float(np.mean(dfs)),
    )
    pooled.names = list(first.names or range(len(first.values)))
    return pooled


def _in_one_order(results):
    """Estimates of the same names, which copies may have in different orders, in that of the
    first.
    """
    first = results[0].names
    if first is None or len(set(map(str, first))) < len(first):
        return results

    def ordered(result):
        if result.names == first or sorted(map(str, result.names or ())) != sorted(map(str, first)):
            return result
        order = [result.names.index(name) for name in first]
        return result._replace(
            names=first, values=result.values[order], variances=result.variances[order]
        )

    return [ordered(result) for result in results]


def _other_names(results):
    """Names of estimates that some copies do not have."""
    names = [set(result.names or ()) for result in results]
    return sorted(map(str, set.union(*names) - set.intersection(*names)))


def _not_finite(results):
    """Names of estimates that, or whose variances, are not finite in some copy."""
    finite = np.all([np.isfinite(r.values) & np.isfinite(r.variances) for r in results], axis=0)
    names = results[0].names or range(len(finite))
    return [name for name, good in zip(names, finite) if not good]


def overflowing(fitted, X):
    """Names of the columns whose coefficients are not finite, as for subnormal numbers."""
    last = fitted.steps[-1][1] if isinstance(fitted, Pipeline) else fitted
    found = getattr(last, "coef_", None)
    if not isinstance(found, np.ndarray) or np.isfinite(found).all():
        return []
    lost = ~np.isfinite(np.atleast_2d(found)).all(axis=0)
    return [name for name, beyond in zip(design_of(fitted, X)[2], lost) if beyond]


def table_of(pooled):
    """Pooled estimates as a DataFrame, a row for each."""
    import pandas as pd

    columns = ["estimate", "standard_error", "df", "low", "high", "p_value", "fraction_missing"]
    return pd.DataFrame({name: pooled[name] for name in columns}, index=pooled.names)


def warn_collinear(fitted, X):
    """Name the columns that have no coefficient of their own."""
    model, design, names = design_of(fitted, X)
    which = collinear(design, model.fit_intercept)
    if which.any():
        names = [name for name, dependent in zip(names, which) if dependent]
        warn(
            f"Columns {names} of X are constant or follow from each other: their coefficients "
            "are not determined and those in pooled_ mean nothing; drop such columns (one of "
            'each OneHotEncoder by drop="first").',
        )
    elif (lost := _cut_off(model, design)).any():
        names = [name for name, cut in zip(names, lost) if cut]
        warn(
            f"LinearRegression finds no coefficients for the columns {names} of X, which are too "
            "small beside the others, or too close to each other, for its tol: those in pooled_ "
            "mean nothing. Give the columns in like units, by a StandardScaler in a pipeline for "
            "example.",
        )


def _cut_off(model, X):
    """Mask of the columns in directions that are too short for least squares as fitted."""
    n_cut = X.shape[1] - getattr(model, "rank_", X.shape[1])
    X = X - X.mean(axis=0) if model.fit_intercept else X
    right = np.linalg.svd(np.linalg.qr(X, mode="r"))[2]
    # A tenth of a direction: columns that only lean on it keep their coefficients.
    return (np.abs(right[X.shape[1] - n_cut :]) > 0.1).any(axis=0)
