"""Completed copies of a table: imputers fitted on resampled rows, and what they draw.

A table is an array of floats or a frame, and stays what it is.
"""

import sys

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data

from skdiffusion._warn import said_once
from skdiffusion.estimators.imputation._estimates import overflowing
from skdiffusion.inputs.arguments import require_same_order
from skdiffusion.inputs.arrays import unmasked
from skdiffusion.inputs.frames import (
    check_columns,
    dense_frame,
    holds_labels,
    infinity_named,
    is_frame,
    require_rows,
)
from skdiffusion.inputs.imputers import (
    answers,
    completed_frames,
    drawing_method,
    require_imputer_alone,
)
from skdiffusion.inputs.native import as_pandas
from skdiffusion.inputs.panels import panel_of


class Copies:
    """What draws completed copies.

    Parameters
    ----------
    imputer : estimator
        Not fitted; it draws.
    seeds : list of (int, int, int)
        Of every copy the seeds of resampling, fitting and drawing.
    bootstrap : bool
        Whether every copy has an imputer of its own, fitted on resampled rows.

    Attributes
    ----------
    imputers : list of estimators
        The fitted imputers, one for each copy, or a single one that draws them all.
    """

    def __init__(self, imputer, seeds, bootstrap):
        self.imputer, self.seeds, self.bootstrap = imputer, seeds, bootstrap

    def fit(self, data):
        """Fit the imputers.

        Parameters
        ----------
        data : ndarray or DataFrame
            The table with gaps.

        Returns
        -------
        self : Copies
            Fitted.
        """
        single = drawing_method(self.imputer) is not None and not self.bootstrap
        data = self._rows(data)
        self._refuse_empty(data)
        # Rows of a panel are not independent of each other, its series are.
        panel = panel_of(self.imputer, data) if self.bootstrap else None
        seeds = self.seeds[: 1 if single else None]
        with said_once():
            self.imputers = [self._fitted(data, panel, *each) for each in seeds]
        return self

    def draw(self, data):
        """Draw completed copies of a table.

        Parameters
        ----------
        data : ndarray or DataFrame
            A table of the columns of ``fit``.

        Returns
        -------
        copies : list of ndarrays or DataFrames
            One for each copy.
        """
        each, rows = len(self.seeds) // len(self.imputers), self._rows(data)
        pairs = [(imputer, seed) for imputer, (*_, seed) in zip(self.imputers, self.seeds)]
        draw = completed_frames if is_frame(data) else answers
        with said_once():
            draws = [draw(imputer, rows, each, seed) for imputer, seed in pairs]
        if not is_frame(data):
            return list(np.moveaxis(np.concatenate(draws, axis=1), 1, 0))
        return [_typed(copy, data) for copies in draws for copy in copies]

    def _refuse_empty(self, data):
        """Refuse columns that the imputer would drop, so that copies have those of the data."""
        empty = np.flatnonzero(~known_cells(data).any(axis=0))
        if len(empty) and not getattr(self.imputer, "keep_empty_features", False):
            names = data.columns if is_frame(data) else np.arange(data.shape[1])
            raise ValueError(
                f"Columns {names[empty].tolist()} of X have no observed value, from which they "
                "could be filled: drop them."
            )

    def _fitted(self, data, panel, row_seed, seed, _):
        """An imputer with its own seed, on resampled rows if wanted."""
        imputer = clone(self.imputer)
        if "random_state" in imputer.get_params(deep=False):
            imputer.set_params(random_state=seed)
        if self.bootstrap:
            data = resampled(data, row_seed) if panel is None else panel.resampled(row_seed)
        return imputer.fit(data)

    def _rows(self, data):
        """The table without the names of its rows, unless they are times to the imputer."""
        ordered = getattr(self.imputer, "window_length", None) is not None
        if ordered or not is_frame(data) or panel_of(self.imputer, data) is not None:
            return data
        return data.reset_index(drop=True)


def is_classifying(estimator):
    """Whether an estimator, or a function of the user's, is a classifier."""
    return hasattr(estimator, "predict") and is_classifier(estimator)


def check_parts(imputer, estimator, bootstrap):
    """Raise unless the imputer draws and a classifier gives probabilities."""
    require_imputer_alone(imputer)
    if drawing_method(imputer) is None and not getattr(imputer, "sample_posterior", False):
        raise ValueError(
            f"imputer={imputer!r} fills every copy alike: take CSDIImputer, or "
            "IterativeImputer(sample_posterior=True)."
        )
    is_panel = getattr(imputer, "panel_columns", None) is not None
    if bootstrap and not is_panel and getattr(imputer, "window_length", None) is not None:
        raise ValueError(
            "bootstrap=True resamples rows, but with window_length they are steps in time: "
            "set bootstrap=False."
        )
    if is_classifying(estimator) and not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"estimator={estimator!r} has no predict_proba to pool: wrap it in "
            "CalibratedClassifierCV."
        )


def read_table(estimator, X, y, *, function, reset=True):
    """Validated data of a fit or of predictions.

    Parameters
    ----------
    estimator : MultipleImputation
        Gets the number and names of the features, or is compared with.
    X : array-like or DataFrame
        What the user handed over.
    y : array-like or None
        Targets; None where they are unknown.
    function : bool
        Whether a function of whole tables is to get them beside ``X``.
    reset : bool
        Whether this is a fit.

    Returns
    -------
    X : ndarray or DataFrame
        Floats, or a frame.
    y : ndarray or None
        Targets; None where they stand in ``X``.
    """
    X, y, wanted = dense_frame(as_pandas(unmasked(X))), unmasked(y), reset and not function
    _check_target(y)
    fewest = 2 if reset else 1
    if not is_frame(X):
        options = {"dtype": float, "ensure_all_finite": "allow-nan", "ensure_min_samples": fewest}
        with infinity_named(X):
            if y is None and not wanted:
                return validate_data(estimator, X, reset=reset, **options), None
            X, y = validate_data(estimator, X, y, reset=reset, **options)
        return (np.column_stack([X, y]), None) if function else (X, y)
    check_columns(X)
    given = "no_validation" if y is None and not wanted else y
    validate_data(estimator, X, given, reset=reset, skip_check_array=True)
    require_rows(X, fewest)
    if y is None:
        return X, None
    require_same_order(X, y, "y")
    values = column_or_1d(y, warn=True)
    check_consistent_length(X, values)
    if function:
        name = getattr(y, "name", None) or "y"
        return beside(X, values[:, None], free_names(X, [name])), None
    return X, values


def _check_target(y):
    """Raise for missing targets, and say what to do."""
    values = np.asarray(y, dtype=object).ravel() if y is not None else np.array([])
    n_missing = sum(isinstance(v, float | np.floating) and np.isnan(v) for v in values)
    if n_missing:
        raise ValueError(
            f"y contains NaN, {n_missing} of {len(values)}: drop these rows. They say nothing "
            "about y given X; use predict for them."
        )


def fitted_on(estimator, copy, y):
    """A clone of the estimator, fitted; raises for columns that it cannot take, by name."""
    try:
        fitted = clone(estimator).fit(copy, y)
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        names = [name for name in copy.columns if holds_labels(copy[name])]
        raise ValueError(
            f"Columns {names} of X are labels, which {estimator!r} does not take: put a "
            "ColumnTransformer with OneHotEncoder ahead of it in a pipeline, or drop them."
        ) from error
    if lost := overflowing(fitted, copy):
        raise ValueError(
            f"The coefficients of the columns {lost} of X are beyond double precision, and no "
            "prediction is a number: give these columns in other units."
        )
    return fitted


def known_cells(data):
    """Which cells of an array or frame are not missing."""
    return data.notna().to_numpy() if is_frame(data) else ~np.isnan(data)


def beside(X, columns, names):
    """A table with further columns on its right."""
    if not is_frame(X):
        return np.column_stack([X, columns])
    pandas = sys.modules["pandas"]
    return pandas.concat([X, pandas.DataFrame(columns, index=X.index, columns=names)], axis=1)


def free_names(X, wanted):
    """Names for further columns of a table that its own do not have."""
    if not is_frame(X):
        return list(wanted)
    if not all(isinstance(name, str) for name in X.columns):
        # Names of one type: numbers go on where those of X end.
        last = max([name for name in X.columns if isinstance(name, int)], default=-1)
        return [last + 1 + i for i in range(len(wanted))]
    taken = set(X.columns)
    return [next(w for w in _longer(name) if w not in taken) for name in wanted]


def _longer(name):
    """A name, and ever longer ones."""
    while True:
        yield name
        name += "_"


def resampled(data, seed):
    """Rows drawn with replacement; a column that has values in ``data`` keeps some."""
    rng, known = check_random_state(seed), known_cells(data)
    rows = rng.randint(len(data), size=len(data))
    for k in np.flatnonzero(known.any(axis=0) & ~known[rows].any(axis=0)):
        rows[k % len(rows)] = rng.choice(np.flatnonzero(known[:, k]))
    return data.iloc[rows].reset_index(drop=True) if is_frame(data) else data[rows]


def shifted(copies, missing, delta):
    """Copies with the filled cells of some columns moved.

    Parameters
    ----------
    copies : list of ndarrays or DataFrames
        Completed copies, which stay as they are.
    missing : bool ndarray of shape (n_samples, n_features)
        Which cells were filled.
    delta : dict or None
        For names or numbers of columns what is added to the filled cells, or a function of them.

    Returns
    -------
    copies : list of ndarrays or DataFrames
        The copies, moved.
    """
    if not delta:
        return copies
    names = list(copies[0].columns) if is_frame(copies[0]) else range(copies[0].shape[1])
    unknown = [name for name in delta if name not in names]
    if unknown:
        raise ValueError(f"delta names {unknown}, which are no columns of X: it has {list(names)}.")
    return [_moved(copy, missing, delta, list(names)) for copy in copies]


def _moved(copy, missing, delta, names):
    """One copy, moved."""
    copy = copy.copy()
    for name, change in delta.items():
        j = names.index(name)
        rows = np.flatnonzero(missing[:, j])
        if not is_frame(copy):
            copy[rows, j] = _changed(copy[rows, j], change, name)
            continue
        column = copy.iloc[:, j]
        filled = _changed(column.iloc[rows], change, name)
        if column.dtype.kind in "iub" and not callable(change):
            column = column.astype(float)
        column = column.copy()
        column.iloc[rows] = np.asarray(filled)
        copy.isetitem(j, column)
    return copy


def _changed(values, change, name):
    """Filled values after a shift, or what a function makes of them."""
    if callable(change):
        return change(values)
    if getattr(values, "dtype", np.dtype(float)).kind not in "iufb":
        raise ValueError(
            f"delta[{name!r}]={change!r} is a number, but column {name!r} holds labels: give a "
            "function of the filled labels."
        )
    return np.asarray(values, dtype=float) + change


def _typed(copy, data):
    """A copy with the rows and types of the table, where its values are of that type."""
    copy = copy.set_axis(data.index)
    for j, column in enumerate(data.iloc[:, j] for j in range(data.shape[1])):
        if column.dtype.kind in "iub" and copy.iloc[:, j].dtype.kind == "f":
            values = copy.iloc[:, j]
            if (values % 1 == 0).all():
                copy.isetitem(j, values.astype(column.dtype))
    return copy
