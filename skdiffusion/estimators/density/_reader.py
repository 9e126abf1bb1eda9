"""The user's table as numbers and codes, and numbers and codes as a table of the user's kind."""

from collections.abc import Mapping
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from skdiffusion._warn import warn
from skdiffusion.columns.discrete import has_few_values, is_tied
from skdiffusion.estimators._tables import container_of
from skdiffusion.inputs.arrays import detached, unmasked
from skdiffusion.inputs.frames import check_columns, dense_frame, holds_labels, infinity_named
from skdiffusion.inputs.native import as_pandas, as_polars
from skdiffusion.inputs.table import Table


class TableReader:
    """Reads tables for an estimator, and returns tables of the same kind.

    Parameters
    ----------
    dequantize : bool
        Whether columns of numbers with many ties are taken as grids.
    """

    def __init__(self, dequantize):
        self.table = Table(dequantize)

    def learn(self, estimator, X, allow_nan, **checks):
        """Learn what the training table looks like.

        Parameters
        ----------
        estimator : estimator
            Gets number and names of the columns.
        X : array-like or DataFrame of shape (n_samples, n_features)
            The table.
        allow_nan : bool
            Whether values may be missing.
        **checks
            Passed to scikit-learn's ``check_array``.

        Returns
        -------
        codes : float64 ndarray of shape (n_samples, n_features)
            Numbers, and codes of categories.
        """
        codes = self._read(estimator, X, True, allow_nan, checks)
        X = dense_frame(as_pandas(detached(X)))
        types = X.dtypes if hasattr(X, "iloc") else [np.asarray(X).dtype] * codes.shape[1]
        self.table.fit(X, codes, [getattr(t, "kind", "O") in "iu" for t in types])
        return codes

    def read(self, estimator, X, allow_nan=False, **checks):
        """Numbers and codes of a table with the columns of the training table, as :meth:`learn`."""
        return self._read(estimator, X, False, allow_nan, checks)

    def restore(self, estimator, codes):
        """Numbers and codes as a table of the user's kind."""
        container = container_of(estimator)
        default = [f"x{i}" for i in range(codes.shape[1])]
        names = getattr(estimator, "feature_names_in_", default)
        table = self.table.restore(codes, names, container in ("pandas", "polars"))
        return as_polars(table) if container == "polars" else table

    def given(self, estimator, given):
        """Numbers and codes of one row of which some columns are given.

        Parameters
        ----------
        estimator : estimator
            Knows number and names of the columns.
        given : dict
            Values by name or number of their column.

        Returns
        -------
        codes : float64 ndarray of shape (1, n_features)
            NaN where nothing is given.
        """
        names = list(column_names(estimator))
        codes = np.full((1, len(names)), np.nan)
        if not isinstance(given, Mapping) or not given:
            raise ValueError(f"given={given!r} must be a dict of values by column, not empty.")
        for key, value in given.items():
            j = _place(key, names)
            if not np.isnan(codes[0, j]):
                raise ValueError(f"given has the column {names[j]!r} twice.")
            codes[0, j] = self.table.code(j, value, f"given[{key!r}]")
        return codes

    def _read(self, estimator, X, reset, allow_nan, checks):
        """Numbers and codes of a table; what is wrong with it is named."""
        checks |= {"dtype": np.float64, "ensure_all_finite": "allow-nan" if allow_nan else True}
        X = dense_frame(as_pandas(unmasked(X)))
        is_frame = hasattr(X, "iloc") and X.ndim == 2
        if is_frame:
            check_columns(X)
        labelled = is_frame and any(holds_labels(X[c]) for c in X)
        try:
            with infinity_named(X):
                return self._checked(estimator, X, labelled, reset, checks)
        except ValueError as error:
            if "contains NaN" not in str(error):
                raise
            remedy = ' or handle_missing="impute"' if reset else "; impute(X) fills gaps"
            raise ValueError(
                f"Input X contains NaN: {type(estimator).__name__} needs complete rows here. "
                f"Impute first, for example with CSDIImputer{remedy}."
            ) from error

    def _checked(self, estimator, X, labelled, reset, checks):
        """Numbers and codes of a table, checked by scikit-learn."""
        if not labelled and (reset or not self.table.categories):
            return validate_data(estimator, X, reset=reset, **checks)
        if not hasattr(X, "iloc"):
            raise ValueError(
                "X must be a DataFrame with the columns and labels of fit. To give a few columns "
                "by name and draw the others, call sample(n_samples, given={...})."
            )
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if reset:
            self.table.learn_categories(X)
        return check_array(self.table.codes(X), input_name="X", **checks)


def _place(key, names):
    """Number of the column that a key names."""
    if isinstance(key, str) and key in names:
        return names.index(key)
    if isinstance(key, Integral) and not isinstance(key, bool) and 0 <= key < len(names):
        return int(key)
    raise ValueError(f"given names the column {key!r}, but fit has seen {_listed(names)}.")


def _listed(names):
    """Names of columns, or their range where they have none."""
    return names if isinstance(names[0], str) else f"columns 0 to {len(names) - 1}"


def column_names(estimator):
    """Names or numbers of the columns."""
    return getattr(estimator, "feature_names_in_", np.arange(estimator.n_features_in_))


def tied_columns(rows, groups, names):
    """Columns that are tied, and a warning of what they do; rows of a group are one row."""
    distinct = rows[np.unique(groups, return_index=True)[1]]
    # Of a few values there are few different rows, in which they do not seem to repeat.
    tied = np.array([is_tied(x) for x in distinct.T]) | [has_few_values(x) for x in rows.T]
    if tied.any():
        warn(
            f"Columns {names[tied].tolist()} of X repeat more than half of their "
            "values and are not spread over a grid: the density of discrete values is "
            "unbounded and its likelihood means little. Add noise as wide as the distance of "
            "the values to dequantise them, or make them categories of a DataFrame.",
        )
    return tied
