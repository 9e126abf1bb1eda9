"""What a user hands to an imputer, read as a list of series, and how the answer goes back.

Three kinds: a *table* (2-D, independent rows), a *panel* (3-D, samples that start at a common
time) and *series* (one long 2-D array, a list of them, or 3-D samples longer than a window).
Inside, all are arrays of shape (n_times, n_features) with NaN where missing.
"""

import datetime
import re
import sys
import warnings
from dataclasses import dataclass, replace

import numpy as np

from skdiffusion._arrays import grid_slots, grid_step, seconds

# Dates and times written out: a number, a separator, a number, and again.
_DATE_AS_TEXT = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?![\d./-])")


@dataclass
class SeriesInput:
    """Validated input.

    Attributes
    ----------
    kind : {"table", "panel", "series"}
        What is modelled.
    form : {"table", "3-D array", "series", "list"}
        What the user gave and gets back.
    rows : ndarray of shape (n_samples, n_times, n_features) or list of 2-D ndarrays
        The values, NaN where missing.
    frames : list of DataFrames or None
        The frames they came in.
    slots : list of ndarrays or None
        Place of each row on a regular time grid; None if the rows are the grid.
    step : float or None
        Step of that grid, if times are known.
    """

    kind: str
    form: str
    rows: object
    frames: list = None
    slots: list = None
    step: float = None

    @property
    def parts(self):
        """One 2-D array for each frame or array that was given."""
        return self.rows if self.form == "list" else [self.flat]

    @property
    def sizes(self):
        """Number of time steps of every sample, on the time grid."""
        if self.slots is None:
            return [len(x) for x in self.rows]
        return [int(slots[-1]) + 1 for slots in self.slots]

    @property
    def flat(self):
        """All rows end to end."""
        rows = self.rows
        return rows.reshape(-1, rows.shape[-1]) if _is_array(rows) else np.concatenate(rows)

    def with_flat(self, flat):
        """The same input with other values."""
        return replace(self, rows=self.split(flat))

    def split(self, flat):
        """Cut values laid end to end along axis -2 into the samples again."""
        if _is_array(self.rows):
            return flat.reshape(*flat.shape[:-2], *self.rows.shape[:2], flat.shape[-1])
        return np.split(flat, np.cumsum([len(x) for x in self.rows])[:-1], axis=-2)

    def on_grid(self):
        """For every sample, its values on the time grid and which rows of the grid are real."""
        for i, x in enumerate(self.rows):
            if self.slots is None:
                yield x, np.ones(len(x), dtype=bool)
                continue
            grid = np.full((self.slots[i][-1] + 1, x.shape[1]), np.nan)
            grid[self.slots[i]] = x
            real = np.zeros(len(grid), dtype=bool)
            real[self.slots[i]] = True
            yield grid, real

    def restore(self, samples):
        """Completed samples in the form the user gave."""
        if self.form == "table":
            return samples[..., 0, :]
        return samples[0] if self.form == "series" else samples

    def restore_draws(self, samples):
        """Draws, ahead of the samples or of each series, in the form the user gave."""
        if self.form == "table":
            return samples[..., 0, :].swapaxes(0, 1)
        if _is_array(samples):
            return samples.swapaxes(0, 1)
        samples = [x.swapaxes(0, 1) for x in samples]
        if self.form == "3-D array":
            return np.stack(samples).swapaxes(1, 2)
        return samples[0] if self.form == "series" else samples


def _is_array(rows):
    return isinstance(rows, np.ndarray)


def is_frame(X):
    """Whether ``X`` is a pandas DataFrame, without importing pandas."""
    return "pandas" in sys.modules and isinstance(X, sys.modules["pandas"].DataFrame)


def recognise(X, window_length):
    """Return kind, form and the 2-D parts of ``X``."""
    if _is_list_of_series(X):
        return "series", "list", list(X)
    n_dim = n_dimensions(X, "X")
    if n_dim == 3:
        X = np.asarray(X)
        if 0 in X.shape:
            raise ValueError(f"X has shape {X.shape}: at least one value is required.")
        panel = window_length is None or window_length == X.shape[1]
        return ("panel" if panel else "series"), "3-D array", [X.reshape(-1, X.shape[2])]
    if n_dim > 3:
        raise ValueError(
            f"X has {n_dim} dimensions; expected (n_samples, n_features) or "
            "(n_samples, n_times, n_features): reshape X."
        )
    return ("table", "table", [X]) if window_length is None else ("series", "series", [X])


def n_dimensions(X, name):
    """Number of dimensions of an array-like."""
    if hasattr(X, "ndim"):
        return X.ndim
    try:
        return np.asarray(X).ndim
    except ValueError as error:
        raise ValueError(
            f"{name} is a list of unequal parts: give a list of 2-D arrays or frames, each of "
            "shape (n_times, n_features)."
        ) from error


def _is_list_of_series(X):
    """Whether ``X`` is a list of 2-D arrays or frames, not one nested list of numbers."""
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(is_frame(x) or (_is_array(x) and x.ndim == 2) for x in X)
    )


def rows_of(X, form, parts):
    """Lay validated parts out as samples."""
    if form == "table":
        return parts[0][:, None]
    return parts[0].reshape(np.asarray(X).shape) if form == "3-D array" else parts


def time_grid(data, timestamps, step, longest):
    """Place the rows of series on a regular time grid, if times are known.

    Parameters
    ----------
    data : SeriesInput
        The series.
    timestamps : array-like, list of array-likes or None
        Times of the rows; by default those of a DatetimeIndex.
    step : float or None
        Step of the grid learnt in ``fit``.
    longest : int
        Longest gap kept, in steps.

    Returns
    -------
    data : SeriesInput
        With slots and step.
    """
    if data.kind == "table":
        if timestamps is not None:
            raise ValueError(
                "timestamps need an order in time, but the rows of a 2-D X are independent "
                "samples: set window_length to treat X as one long series."
            )
        return data
    times = _times(data, timestamps)
    if times is None:
        if step is not None and data.kind == "series":
            warnings.warn(
                "X has no times, but had them in fit: its rows are taken as one time step apart; "
                "pass timestamps= or a DatetimeIndex as in fit.",
                UserWarning,
                stacklevel=5,
            )
        return data
    step = step or min((grid_step(t) for t in times if len(t) > 1), default=1.0)
    slots = [grid_slots(t, step, longest) for t in times]
    if all(slot[-1] == len(slot) - 1 for slot in slots):
        return replace(data, step=step)
    if data.kind == "panel":
        raise ValueError(
            "The time steps of a 3-D X must be equally spaced: give the samples as a list of "
            "2-D arrays with timestamps and set window_length."
        )
    return replace(data, slots=slots, step=step)


def _times(data, timestamps):
    """Seconds of the rows of every sample, or None if rows are all that is known."""
    name = "timestamps"
    if timestamps is None and data.frames is not None and all(map(has_times, data.frames)):
        name, timestamps = "The index of X", [frame.index for frame in data.frames]
        timestamps = timestamps if data.form == "list" else timestamps[0]
    if timestamps is None:
        return None
    sizes = [len(x) for x in data.rows]
    if data.form != "list":
        # All samples of a 3-D array share their times.
        return [seconds(timestamps, sizes[0], name)] * len(sizes)
    if len(timestamps) != len(sizes):
        raise ValueError(f"timestamps has {len(timestamps)} entries for {len(sizes)} series of X.")
    return [seconds(t, n, f"{name}[{i}]") for i, (t, n) in enumerate(zip(timestamps, sizes))]


def has_times(frame):
    """Whether the index of a frame holds times."""
    return hasattr(frame.index, "to_timestamp") or getattr(frame.index.dtype, "kind", "O") in "mM"


def has_dates_as_text(frame):
    """Whether the first labels of the index are dates that are not read as such yet."""
    labels = list(frame.index[:3])
    if not labels or not all(isinstance(x, (str, datetime.date)) for x in labels):
        return False
    texts = [x for x in labels if isinstance(x, str)]
    if not all(_DATE_AS_TEXT.match(x) for x in texts):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = sys.modules["pandas"].to_datetime(labels, errors="coerce", format="mixed")
    return bool(read.notna().all())


def numeric_frame(frame):
    """Return the frame with object columns as floats; name the columns that hold no numbers."""
    if frame.shape[1] == 0:
        raise ValueError("X has 0 feature(s) while a minimum of 1 is required.")
    wrong = [name for i, name in enumerate(frame.columns) if not _is_numeric(frame.iloc[:, i])]
    if wrong:
        raise ValueError(
            f"Columns {wrong} of X are not numeric: drop them, encode them (for example with "
            "OrdinalEncoder) or, if it is a column of times such as 'time', make it the index: "
            "X.index = pd.to_datetime(X.pop('time'))."
        )
    objects = np.flatnonzero([dtype.kind == "O" for dtype in frame.dtypes])
    if len(objects):
        frame = frame.copy()
        for i in objects:
            frame.isetitem(i, frame.iloc[:, i].to_numpy(dtype=float, na_value=np.nan))
    return frame


def _is_numeric(column):
    """Whether a column can be read as floats."""
    if column.dtype.kind in "mM":
        return False
    try:
        column.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        return False
    return True
