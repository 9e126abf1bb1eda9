"""CSDIImputer's way in and out: reading what a user hands over, giving it back in its form."""

import warnings

import numpy as np
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted, validate_data

from skdiffusion.inputs.frames import (
    has_dates_as_text,
    has_times,
    infinity_named,
    is_frame,
    numeric_frame,
)
from skdiffusion.inputs.series import SeriesInput, recognise, rows_of
from skdiffusion.inputs.times import time_grid

_FORMS = {
    "table": "(n_samples, n_features), independent rows",
    "panel": "(n_samples, n_times, n_features)",
    "series": "(n_times, n_features) with window_length, or a list of such",
}
_HINT_WINDOW_LENGTH = (
    "X has a DatetimeIndex, but window_length is None: its rows are imputed as independent "
    "samples. Set window_length (for example 24 for hourly data) to use the order in time."
)
_HINT_TO_DATETIME = (
    "The index of X holds dates as text or objects, which are not read as times: set "
    "X.index = pd.to_datetime(X.index)."
)
_HINT_MULTI_INDEX = (
    "X has a MultiIndex, but its rows are taken as one series: if it holds several, pass a list of "
    "frames, one a series, for example "
    "[part.droplevel(0) for _, part in X.groupby(level=0)]."
)


class ImputerInput:
    """Input and output of :class:`CSDIImputer`."""

    def _checked(self, X, timestamps):
        """Read ``X`` for a fitted imputer, whose parameters may have been set since."""
        check_is_fitted(self)
        self._validate_params()
        self._check_sizes(self.window_length_)
        return self._read(X, timestamps, reset=False)

    def _read(self, X, timestamps, reset):
        """Validate ``X`` and find its samples."""
        fitted_length = self.window_length_ if not reset and self._kind == "series" else None
        kind, form, parts = recognise(X, self.window_length if reset else fitted_length)
        if not reset:
            kind = self._require_kind(kind, form, X)
        frames = parts if all(is_frame(part) for part in parts) else None
        if reset and kind == "table" and frames and has_times(parts[0]):
            warnings.warn(_HINT_WINDOW_LENGTH, UserWarning, stacklevel=5)
        if reset and frames and timestamps is None:
            self._warn_index(frames[0], kind)
        if self.add_indicator and form in ("3-D array", "list"):
            raise ValueError("add_indicator=True works for a 2-D X only: set it to False.")
        parts = [self._validated(part, reset and i == 0, kind) for i, part in enumerate(parts)]
        data = SeriesInput(kind, form, rows_of(X, form, parts), frames)
        if reset:
            return time_grid(data, timestamps, None, self._window_rows(data))
        return time_grid(data, timestamps, self.time_step_, self.window_length_)

    def _warn_index(self, frame, kind):
        """Say so where an index holds times or series that are not taken as such."""
        if getattr(frame.index, "nlevels", 1) > 1:
            if kind == "series":
                warnings.warn(_HINT_MULTI_INDEX, UserWarning, stacklevel=6)
        elif not has_times(frame) and has_dates_as_text(frame):
            warnings.warn(_HINT_TO_DATETIME, UserWarning, stacklevel=6)

    def _require_kind(self, kind, form, X):
        """Compare the form of ``X`` with that seen in ``fit``; samples may serve as series."""
        if form == "3-D array" and self._kind == "series":
            return "series"
        if kind != self._kind:
            raise ValueError(
                f"X is of the form {_FORMS[kind]}, but {type(self).__name__} was fitted on "
                f"{_FORMS[self._kind]}: reshape X or fit again."
            )
        n_times = np.asarray(X).shape[1] if kind == "panel" else None
        if kind == "panel" and n_times != self.window_length_:
            raise ValueError(
                f"X has samples of {n_times} time steps, but {type(self).__name__} was "
                f"fitted on samples of {self.window_length_}: set window_length before fit to "
                "impute samples of any length."
            )
        return kind

    def _validated(self, part, reset, kind):
        """Validate one 2-D part; return floats with NaN where missing."""
        part = numeric_frame(part) if is_frame(part) else part
        by_nan = bool(np.isnan(self.missing_values))
        if not by_nan:
            self._require_no_nan(part)
        with infinity_named(part):
            array = validate_data(
                self,
                part,
                reset=reset,
                dtype=[np.float64, np.float32],
                ensure_all_finite="allow-nan" if by_nan else True,
                ensure_min_samples=2 if reset and kind == "table" else 1,
            )
        return array if by_nan else np.where(array == self.missing_values, np.nan, array)

    def _require_no_nan(self, part):
        """Raise for NaN where another number stands for missing values."""
        values = np.asarray(part)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ValueError(
                f"X contains NaN, but missing_values={self.missing_values} marks its gaps: set "
                f"missing_values=np.nan, or mark all gaps alike, X[np.isnan(X)] = "
                f"{self.missing_values}."
            )

    def _warn_empty(self, data):
        """Say so when a sample offers nothing to condition on."""
        empty = sum(bool(np.isnan(x[:, self._valid]).all()) for x in data.rows)
        if empty:
            warnings.warn(
                f"{empty} of {len(data.rows)} samples of X have no observed value: their draws "
                "are unconditional.",
                UserWarning,
                stacklevel=6,
            )

    def _output(self, data, filled):
        """Completed data in the user's form: kept features, indicators, frames."""
        if data.form in ("3-D array", "list"):
            container = _get_output_config("transform", self)["dense"]
            if container != "default":
                raise ValueError(
                    f"set_output(transform={container!r}) works for a 2-D X only: "
                    'set it to "default".'
                )
        out = data.restore(self._keep(filled))
        if self.add_indicator:
            indicators = np.isnan(data.flat[:, self._indicated]).astype(out.dtype)
            out = np.concatenate([out, indicators], axis=1)
        if data.frames is None:
            return out
        frames = out if data.form == "list" else [out]
        frames = [
            self._frame(frame, x, np.isnan(given).any(axis=0))
            for frame, x, given in zip(data.frames, frames, data.parts)
        ]
        return frames if data.form == "list" else frames[0]

    def _keep(self, samples):
        """Drop the features without values in ``fit``."""
        if isinstance(samples, np.ndarray):
            return samples[..., self._kept]
        return [x[..., self._kept] for x in samples]

    def _frame(self, given, values, had_gaps):
        """A frame like the given one: its index, its columns and the types of its floats."""
        names = self.get_feature_names_out()
        frame = type(given)(values, index=given.index, columns=names)
        for i, source in enumerate(np.flatnonzero(self._kept)):
            column = given.iloc[:, source]
            if not had_gaps[source]:
                frame.isetitem(i, column)
            elif column.dtype.kind == "f":
                frame.isetitem(i, frame.iloc[:, i].astype(column.dtype))
        return frame
