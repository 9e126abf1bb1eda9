"""What stands inside a fitted estimator: the steps of its pipelines, and the model at the end.

A scorer compares in the units of ``X``. Ahead of the model the steps of a pipeline change them, so
draws are taken back by ``inverse_transform`` and densities by the determinant of the Jacobian.
"""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import gen_batches

# Differences are taken over this share of a column's spread.
_DIFFERENCE = 1e-6
# Smallest singular value, of rows of unit length, that rounding cannot bring about.
_SINGULAR = 1e-7


def unwrap(estimator):
    """Return the fitted steps ahead, first to last, and the model behind pipelines and searches."""
    if hasattr(estimator, "best_estimator_"):
        return unwrap(estimator.best_estimator_)
    if not isinstance(estimator, Pipeline):
        return [], estimator
    ahead = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
    further, model = unwrap(estimator.steps[-1][1])
    return ahead + further, model


def transformed(steps, X):
    """``X`` as the model sees it."""
    for step in steps:
        X = step.transform(X)
    return X


def require_inverse(steps):
    """Raise unless every step can take values back."""
    lacking = [type(step).__name__ for step in steps if not _has_inverse(step)]
    if lacking:
        raise ValueError(
            f"{', '.join(lacking)} ahead in the pipeline has no inverse_transform, so draws cannot "
            "be compared with the truth in the units of X: take another transformer (a "
            "FunctionTransformer needs inverse_func), or score the last step by itself"
        )


def _has_inverse(step):
    """Whether a step takes values back; a function without its inverse hands them on instead."""
    one_way = getattr(step, "func", None) is not None and getattr(step, "inverse_func", 0) is None
    return hasattr(step, "inverse_transform") and not one_way


def require_no_steps(steps, labels):
    """Raise where steps stand ahead of columns of labels, which none of them takes back."""
    if steps:
        raise ValueError(
            f"columns {labels} of X are labels, which the steps ahead in the pipeline, "
            f"{', '.join(type(step).__name__ for step in steps)}, do not take back: score the last "
            "step by itself on what it is given"
        )


def restored(steps, values, X):
    """Take ``values`` of the shape of ``X`` from the units of the model to those of ``X``."""
    for step in reversed(steps):
        values = step.inverse_transform(_named(step, values, X))
    return values


def _named(step, values, X):
    """Columns with the names that a step was fitted with, so that it does not warn."""
    names = getattr(step, "feature_names_in_", None)
    if names is None or not hasattr(X, "iloc"):
        return values
    return type(X)(np.asarray(values), index=X.index, columns=names)


def log_jacobian(steps, X):
    """Logarithm of ``|det dz/dx|`` for every row, ``z`` being what the steps make of ``x``.

    Central differences, so that any smooth transformer of single rows will do.
    """
    values = np.asarray(X, dtype=float)
    if not steps:
        return np.zeros(len(values))
    spread = values.std(axis=0)
    width = _DIFFERENCE * np.where(spread > 0, spread, 1.0)
    batches = gen_batches(len(values), max(1, 2**20 // values.shape[1] ** 2))
    frame = hasattr(X, "iloc")
    parts = [(X.iloc[rows] if frame else X[rows], values[rows]) for rows in batches]
    return np.concatenate([_log_determinants(steps, x, z, width) for x, z in parts])


def _log_determinants(steps, X, values, width):
    """Log-determinants of the Jacobians at the rows of ``values``."""
    columns = []
    for k, h in enumerate(width):
        up, down = values.copy(), values.copy()
        up[:, k] += h
        down[:, k] -= h
        ends = [np.asarray(transformed(steps, _named(steps[0], z, X))) for z in (up, down)]
        # What was added after rounding, not what was meant.
        columns.append((ends[0] - ends[1]) / (up - down)[:, k : k + 1])
    jacobian = np.stack(columns, axis=-1)
    _require_square(jacobian)
    if not _invertible(jacobian * width).all():
        raise ValueError(
            "the steps ahead in the pipeline map rows of X onto fewer dimensions or out of their "
            "range, so X has no density under it: leave them out, or score the last step by itself"
        )
    return np.linalg.slogdet(jacobian)[1]


def _invertible(jacobian):
    """Whether each matrix is regular beyond the rounding of differences, whatever the units."""
    size = np.linalg.norm(jacobian, axis=2, keepdims=True)
    regular = np.isfinite(size).all(axis=(1, 2)) & (size > 0).all(axis=(1, 2))
    rows = np.where(regular[:, None, None], jacobian / np.where(size > 0, size, 1.0), 0.0)
    return np.linalg.svd(rows, compute_uv=False)[:, -1] > _SINGULAR


def _require_square(jacobian):
    """Raise if the steps change the number of columns."""
    n_out, n_in = jacobian.shape[1:]
    if n_out != n_in:
        raise ValueError(
            f"the steps ahead in the pipeline turn {n_in} columns into {n_out}, so X has no "
            "density under it: keep all columns, or score the last step by itself"
        )
