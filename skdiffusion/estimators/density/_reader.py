"""From the user's table to standardised rows and back: what ScoreSDE does with its input."""

import warnings

import numpy as np
import torch
from scipy.special import ndtr
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_array, validate_data

from skdiffusion._random import draw_seed, normals, row_keys
from skdiffusion.columns.discrete import is_tied, spread
from skdiffusion.columns.standard import column_moments
from skdiffusion.inputs.frames import check_columns, holds_labels, infinity_named, refuse_times
from skdiffusion.inputs.table import Table


class TableReader:
    """Part of an estimator that reads tables, and returns tables of the same kind."""

    def _read(self, X, reset=False, allow_nan=None, **kwargs):
        """Numbers and codes of a table, float64."""
        if allow_nan is None:
            allow_nan = reset and self.handle_missing == "impute"
        kwargs |= {"dtype": np.float64, "ensure_all_finite": "allow-nan" if allow_nan else True}
        is_frame = hasattr(X, "iloc") and X.ndim == 2
        if is_frame:
            check_columns(X)
        elif getattr(X, "ndim", 1) == 2 and not hasattr(X, "nnz"):
            refuse_times(dict(enumerate(np.asarray(X).T)))
        labelled = is_frame and any(holds_labels(X[c]) for c in X)
        try:
            with infinity_named(X):
                codes = self._checked_codes(X, labelled, reset, kwargs)
        except ValueError as error:
            if "contains NaN" not in str(error):
                raise
            remedy = ' or handle_missing="impute"' if reset else "; impute(X) fills gaps"
            raise ValueError(
                f"Input X contains NaN: {type(self).__name__} needs complete rows here. Impute "
                f"first, for example with CSDIImputer{remedy}."
            ) from error
        if reset:
            if not labelled:
                self._table = Table(self.dequantize)
            types = X.dtypes if hasattr(X, "iloc") else [np.asarray(X).dtype] * codes.shape[1]
            self._table.fit(X, codes, [getattr(t, "kind", "O") in "iu" for t in types])
        return codes

    def _checked_codes(self, X, labelled, reset, kwargs):
        """Numbers and codes of a table, checked by scikit-learn."""
        if not labelled and (reset or not self._table.categories):
            return validate_data(self, X, reset=reset, **kwargs)
        if not hasattr(X, "iloc"):
            raise ValueError("X must be a DataFrame with the columns and labels of fit.")
        return self._read_labelled(X, reset, kwargs)

    def _read_labelled(self, X, reset, kwargs):
        """Codes of a frame with labels."""
        validate_data(self, X, reset=reset, skip_check_array=True)
        if reset:
            self._table = Table(self.dequantize)
            self._table.learn_categories(X)
        return check_array(self._table.codes(X), input_name="X", **kwargs)

    def _validate(self, X, **kwargs):
        """Rows of real numbers, discrete columns spread."""
        codes = self._read(X, **kwargs)
        if not self._table.discrete:
            return codes
        return self._spread(codes, draw_seed(self.random_state))

    def _spread(self, codes, seed):
        """Rows without ties, by noise that depends on a row's content alone."""
        columns = self._table.discrete
        return spread(codes, columns, uniforms_of(codes, columns, seed)) if columns else codes

    def _restore(self, codes):
        """Rows as a table of the user's kind."""
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)])
        container = _get_output_config("transform", self)["dense"]
        return self._table.restore(codes, names, container == "pandas")

    def _names(self):
        """Names or numbers of the columns."""
        return getattr(self, "feature_names_in_", np.arange(self.n_features_in_))

    def _warn_of_ties(self, rows):
        """Remember columns that are tied in distinct rows, and say what they do."""
        self._tied = np.array([is_tied(column) for column in rows.T])
        if self._tied.any():
            warnings.warn(
                f"Columns {self._names()[self._tied].tolist()} of X repeat more than half of their "
                "values and are not spread over a grid: the density of discrete values is "
                "unbounded and its likelihood means little. Add noise as wide as the distance of "
                "the values to dequantise them, or make them categories of a DataFrame.",
                stacklevel=4,
            )

    def _standardise(self, X):
        """Learn centre and scale and apply them to the training rows."""
        names = self._names()
        empty = np.isnan(X).all(0)
        if empty.any():
            raise ValueError(f"Columns {names[empty].tolist()} of X have no value: drop them.")
        self.mean_, self.scale_ = column_moments(X)
        constant = self.scale_ == 0
        if constant.any():
            raise ValueError(
                f"Columns {names[constant].tolist()} of X are constant, and the density of a "
                "constant is unbounded: drop them (for example with VarianceThreshold)."
            )
        rows = (X - self.mean_) / self.scale_
        spread = np.diff(np.nanquantile(rows, [0.25, 0.75], axis=0), axis=0)[0]
        far = (np.abs(rows) > 100).any(0) | ((spread < 1e-3) & ~self._tied)
        if far.any():
            warnings.warn(
                f"Columns {names[far].tolist()} of X have values far outside all others, which "
                "rule the scale or are pulled in to 100 standard deviations: remove impossible "
                "records or transform the columns (for example with QuantileTransformer).",
                stacklevel=3,
            )
        return np.clip(rows, -100, 100)


def uniforms_of(codes, columns, seed):
    """Uniforms for discrete columns that depend on a row's content alone, not on its place."""
    keys = row_keys(codes, seed)[:, None]
    return ndtr(normals(keys, 0, 2, torch.tensor(sorted(columns)), torch.float64).numpy())
