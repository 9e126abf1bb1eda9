"""Units that errors are measured in, one for every column."""

import numpy as np

from skdiffusion.inputs.series import is_list_of_series
from skdiffusion.metrics._labels import label_names


def units_of(scale, X):
    """Units of the features of ``X`` as an array, or 1 where ``scale`` is None.

    Parameters
    ----------
    scale : array-like of shape (n_features,) or None
        The parameter of the scorer. Columns of labels have no unit and may be left out of a Series.
    X : array-like, DataFrame or list
        The data.

    Returns
    -------
    unit : float or ndarray of shape (n_features,)
        Positive numbers.

    Raises
    ------
    ValueError
        If there is not one positive number for each column.
    """
    if scale is None:
        return 1.0
    x = X[0] if is_list_of_series(X) else X
    names = list(x.columns) if hasattr(x, "columns") else list(range(np.shape(x)[-1]))
    labels = label_names(x)
    _require_same_names(scale, x, labels)
    try:
        unit = np.asarray(_of_all(scale, names, labels), dtype=float)
    except (TypeError, ValueError):
        unit = np.empty(0)
    if unit.shape != (len(names),):
        raise ValueError(
            f"scale must hold one number for each of the {len(names)} columns {names} of X, "
            f"got {scale!r}: take for example X.std(axis=0)"
        )
    wrong = [name for name, u in zip(names, unit) if not (np.isfinite(u) and u > 0)]
    if wrong:
        raise ValueError(
            f"scale must be positive and finite, but is not for the columns {wrong} of X: "
            "drop them from X or give them a unit, for example 1"
        )
    return unit


def _of_all(scale, names, labels):
    """A scale with a number for every column; those of labels have none."""
    if not labels:
        return scale
    if hasattr(scale, "iloc"):
        scale = scale.reindex(names)
    if np.shape(scale) != (len(names),):
        return scale
    return [1.0 if name in labels else value for name, value in zip(names, scale)]


def _require_same_names(scale, x, labels):
    """Raise if ``scale`` names other columns than the frame ``x``, or in another order."""
    if not (hasattr(scale, "iloc") and hasattr(x, "columns")):
        return
    given, columns = ([n for n in of if n not in labels] for of in (scale.index, x.columns))
    if given != columns and all(isinstance(name, str) for name in given):
        raise ValueError(
            f"scale must name the columns of X in their order: it has {given}, X has {columns}; "
            "take scale[X.columns]"
        )
