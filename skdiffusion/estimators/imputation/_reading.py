"""The way into and out of an imputer: what a user hands over, and how the answer goes back."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import validate_data

from skdiffusion._warn import warn
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.inputs.frames import (
    has_dates_as_text,
    has_times,
    infinity_named,
    is_frame,
    numeric_frame,
)
from skdiffusion.inputs.series import SeriesInput, recognise, rows_of
from skdiffusion.inputs.times import possible_periods, time_grid

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
# Windows of lists of series, where the user names no length: a day of hourly values.
_LIST_WINDOW = 24


@dataclass(frozen=True, eq=False)
class SeriesReader:
    """What ``fit`` learnt of the form of the data, and reading by it.

    Attributes
    ----------
    kind : {"table", "panel", "series"}
        What is modelled.
    length : int
        Time steps of a window.
    step : float or None
        Step of the time grid, if times are known.
    kept : bool ndarray of shape (n_features,)
        Features that come back.
    indicated : bool ndarray of shape (n_features,)
        Features with missing values, which get an indicator if wanted.
    """

    kind: str
    length: int
    step: float | None
    kept: np.ndarray
    indicated: np.ndarray

    @classmethod
    def learn(cls, estimator, X, timestamps):
        """Read ``X`` for ``fit``.

        Parameters
        ----------
        estimator : CSDIImputer
            Gets the number and the names of the features.
        X : array-like, DataFrame or list
            What the user handed over.
        timestamps : array-like, list of such or None
            Times of the rows.

        Returns
        -------
        reader : SeriesReader
            Reader for more data of this form.
        data : SeriesInput
            The data.
        """
        kind, form, parts = recognise(X, estimator.window_length)
        _warn_unread_index(parts, kind, timestamps)
        data = _validated(estimator, X, kind, form, parts, reset=True)
        length = _window_rows(data, estimator.window_length)
        data = time_grid(data, timestamps, None, length)
        missing = np.isnan(data.flat)
        kept = ~missing.all(axis=0) | estimator.keep_empty_features
        return cls(data.kind, length, data.step, kept, missing.any(axis=0)), data

    def read(self, estimator, X, timestamps):
        """Read ``X`` as in ``fit``; return the data as SeriesInput."""
        kind, form, parts = recognise(X, self.length if self.kind == "series" else None)
        kind = self._require_kind(estimator, kind, form, X)
        data = _validated(estimator, X, kind, form, parts, reset=False)
        return time_grid(data, timestamps, self.step, self.length)

    def require_length(self, data):
        """At least one of several series must fill a window."""
        longest = max(data.sizes)
        if longest < self.length:
            raise ValueError(
                f"window_length={self.length} is longer than the longest series of X "
                f"({longest} time steps): lower window_length."
            )

    def windows(self, data, columns):
        """What a model sees of ``data``, as series cut into windows."""

        def seen(x):
            z = torch.from_numpy(columns.forward(x))
            return z, ~torch.isnan(z)

        if data.kind != "series":
            return WindowedSeries.stack(*seen(data.rows))
        triples = []
        for x, real in data.on_grid():
            values, observed = seen(x)
            triples.append((values, observed, ~observed & torch.from_numpy(real)[:, None]))
        times = data.grid_times()
        times = times and [torch.from_numpy(np.asarray(t, dtype=float)) for t in times]
        periods = possible_periods(data, self.length)
        return WindowedSeries.join(triples, self.length, times, periods)

    def keep(self, samples):
        """Drop the features that do not come back."""
        if isinstance(samples, np.ndarray):
            return samples[..., self.kept]
        return [x[..., self.kept] for x in samples]

    def write(self, data, filled, names, add_indicator):
        """Completed data in the user's form.

        Parameters
        ----------
        data : SeriesInput
            What the user handed over.
        filled : ndarray or list
            Completed samples.
        names : ndarray of str
            Names of the columns that come back.
        add_indicator : bool
            Whether to append a column for every feature that had gaps in ``fit``.

        Returns
        -------
        out : ndarray, DataFrame or list
            Kept features, indicators; frames where frames came in.
        """
        out = data.restore(self.keep(filled))
        if add_indicator:
            indicators = np.isnan(data.flat[:, self.indicated]).astype(out.dtype)
            out = np.concatenate([out, indicators], axis=1)
        if data.frames is None:
            return out
        frames = out if data.form == "list" else [out]
        frames = [
            self._frame(frame, x, names, np.isnan(given).any(axis=0))
            for frame, x, given in zip(data.frames, frames, data.parts)
        ]
        return frames if data.form == "list" else frames[0]

    def _frame(self, given, values, names, had_gaps):
        """A frame like the given one: its index, its columns and the types of its floats."""
        frame = type(given)(values, index=given.index, columns=names)
        for i, source in enumerate(np.flatnonzero(self.kept)):
            column = given.iloc[:, source]
            if not had_gaps[source]:
                frame.isetitem(i, column)
            elif column.dtype.kind == "f":
                frame.isetitem(i, frame.iloc[:, i].astype(column.dtype))
        return frame

    def _require_kind(self, estimator, kind, form, X):
        """Compare the form of ``X`` with that seen in ``fit``; samples may serve as series."""
        name = type(estimator).__name__
        if form == "3-D array" and self.kind == "series":
            return "series"
        if kind != self.kind:
            raise ValueError(
                f"X is of the form {_FORMS[kind]}, but {name} was fitted on "
                f"{_FORMS[self.kind]}: reshape X or fit again."
            )
        n_times = np.asarray(X).shape[1] if kind == "panel" else None
        if kind == "panel" and n_times != self.length:
            raise ValueError(
                f"X has samples of {n_times} time steps, but {name} was "
                f"fitted on samples of {self.length}: set window_length before fit to "
                "impute samples of any length."
            )
        return kind


def require_plain_output(estimator, data):
    """Raise for a frame asked of a 3-D array or a list."""
    container = _get_output_config("transform", estimator)["dense"]
    if data.form in ("3-D array", "list") and container != "default":
        raise ValueError(
            f'set_output(transform={container!r}) works for a 2-D X only: set it to "default".'
        )


def warn_empty(data, valid):
    """Say so when a sample offers nothing to condition on."""
    empty = sum(bool(np.isnan(x[:, valid]).all()) for x in data.rows)
    if empty:
        warn(
            f"{empty} of {len(data.rows)} samples of X have no observed value: their draws "
            "are unconditional.",
        )


def _warn_unread_index(parts, kind, timestamps):
    """Say so where an index holds times or series that are not taken as such."""
    if not all(is_frame(part) for part in parts):
        return
    if kind == "table" and has_times(parts[0]):
        warn(_HINT_WINDOW_LENGTH)
    if timestamps is not None:
        return
    if getattr(parts[0].index, "nlevels", 1) > 1:
        if kind == "series":
            warn(_HINT_MULTI_INDEX)
    elif not has_times(parts[0]) and has_dates_as_text(parts[0]):
        warn(_HINT_TO_DATETIME)


def _window_rows(data, window_length):
    """Number of time steps of a window."""
    if data.kind != "series":
        if data.kind == "panel" and len(data.rows) < 2:
            raise ValueError("X has n_samples=1, while a minimum of 2 samples is required.")
        return len(data.rows[0])
    return window_length or min(_LIST_WINDOW, min(len(x) for x in data.rows))


def _validated(estimator, X, kind, form, parts, reset):
    """Validate every 2-D part and lay them out as samples."""
    frames = parts if all(is_frame(part) for part in parts) else None
    if estimator.add_indicator and form in ("3-D array", "list"):
        raise ValueError("add_indicator=True works for a 2-D X only: set it to False.")
    fewest = 2 if reset and kind == "table" else 1
    parts = [
        _validated_part(estimator, part, reset and i == 0, fewest) for i, part in enumerate(parts)
    ]
    return SeriesInput(kind, form, rows_of(X, form, parts), frames)


def _validated_part(estimator, part, reset, fewest):
    """Validate one 2-D part; return floats with NaN where missing."""
    part = numeric_frame(part) if is_frame(part) else part
    by_nan = bool(np.isnan(estimator.missing_values))
    if not by_nan:
        _require_no_nan(part, estimator.missing_values)
    with infinity_named(part):
        array = validate_data(
            estimator,
            part,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if by_nan else True,
            ensure_min_samples=fewest,
        )
    return array if by_nan else np.where(array == estimator.missing_values, np.nan, array)


def _require_no_nan(part, placeholder):
    """Raise for NaN where another number stands for missing values."""
    values = np.asarray(part)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError(
            f"X contains NaN, but missing_values={placeholder} marks its gaps: set "
            f"missing_values=np.nan, or mark all gaps alike, X[np.isnan(X)] = "
            f"{placeholder}."
        )
