"""What a user hands to an imputer, read as a list of series, and how the answer goes back.

Three kinds: a *table* (2-D, independent rows), a *panel* (3-D, samples that start at a common
time) and *series* (one long 2-D array, a list of them, a frame in *long* form, whose index has a
level for the series ahead of that of the times, or 3-D samples longer than a window).
Inside, all are arrays of shape (n_times, n_features) with NaN where missing.
"""

import sys
from dataclasses import dataclass, replace

import numpy as np
from sklearn.utils import check_array

from skdiffusion.inputs.arrays import unmasked
from skdiffusion.inputs.frames import infinity_named, is_frame
from skdiffusion.inputs.native import from_columns
from skdiffusion.inputs.panels import LongFrame


@dataclass
class SeriesInput:
    """Validated input.

    Attributes
    ----------
    kind : {"table", "panel", "series"}
        What is modelled.
    form : {"table", "3-D array", "series", "list", "long"}
        What the user gave and gets back.
    rows : ndarray of shape (n_samples, n_times, n_features) or list of 2-D ndarrays
        The values, NaN where missing.
    frames : list of DataFrames or None
        The frames they came in; for the long form, one a series.
    slots : list of ndarrays or None
        Place of each row on a regular time grid; None if the rows are the grid.
    grid : TimeGrid or None
        That grid, if times are known.
    times : list of float64 ndarrays or None
        Seconds of the rows of every sample, if known; of dates since its first row, which keeps
        the digits of fine steps.
    clocks : list of Clock or None
        What turns these into seconds of one clock for all samples and calls.
    panel : LongFrame or None
        The frame in long form.
    outer : pair or None
        The panel columns and the frame that they stand in.
    native : list of frames or None
        The frames of polars or pyarrow that were given in place of ``frames``.
    first : int
        Rows of the series that stand before those of ``rows``, a piece of it.
    """

    kind: str
    form: str
    rows: object
    frames: list = None
    slots: list = None
    grid: object = None
    times: list = None
    clocks: list = None
    panel: object = None
    outer: object = None
    native: list = None
    first: int = 0

    @property
    def parts(self):
        """One 2-D array for each frame or array that was given."""
        if self.form == "long":
            return [self.panel.in_order(self.flat)]
        return self.rows if self.form == "list" else [self.flat]

    @property
    def given(self):
        """The frames that were given."""
        return [self.panel.frame] if self.form == "long" else self.frames

    def layout(self):
        """Names of the panel columns and of all columns, None where they stand in no frame."""
        if self.outer is None or not set(self.outer[0].names) & set(self.outer[1].columns):
            return None
        return self.outer[0].names, list(self.outer[1].columns)

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
        if _is_array(rows):
            return rows.reshape(-1, rows.shape[-1])
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def pieces(self, n_rows, margin):
        """Cut into parts that are worked on one after the other, in bounded memory.

        Parameters
        ----------
        n_rows : int
            Rows of a part, about.
        margin : int or None
            Rows around a part of one long series that tell of it; None never cuts one.
        """
        if self._is_long(margin):
            n = len(self.rows[0])
            for i in range(0, n, n_rows):
                low, end = max(0, i - margin), min(i + n_rows, n)
                part = self._between(low, end + margin)
                yield Piece(part, slice(0, 1), i, slice(i - low, end - low))
        elif _is_array(self.rows):
            n, length = self.rows.shape[:2]
            step = max(1, n_rows // length)
            for i in range(0, n, step):
                chosen = slice(i, min(i + step, n))
                size = (chosen.stop - i) * length
                yield Piece(self._some(chosen), chosen, i * length, slice(0, size))
        else:
            sizes = [len(x) for x in self.rows]
            begin, ends = 0, np.cumsum(sizes)
            for i, end in enumerate(ends):
                first = ends[begin] - sizes[begin]
                if end - first >= n_rows or i + 1 == len(ends):
                    chosen = slice(begin, i + 1)
                    yield Piece(self._some(chosen), chosen, first, slice(0, end - first))
                    begin = i + 1

    def ending(self, n_rows, margin):
        """The last rows of one long series with the ``margin`` rows before them; else all."""
        if not self._is_long(margin):
            return self
        return self._between(max(0, len(self.rows[0]) - n_rows - margin), None)

    def _is_long(self, margin):
        """Whether this is one series that may be cut, with rows around the cut."""
        return margin is not None and not _is_array(self.rows) and len(self.rows) == 1

    def _between(self, low, high):
        """Some consecutive rows of one series."""
        parts = {name: getattr(self, name) for name in ("rows", "times", "slots")}
        parts = {name: x and [x[0][low:high]] for name, x in parts.items()}
        first = low if self.slots is None else int(parts["slots"][0][0])
        if self.slots is not None:
            parts["slots"] = [parts["slots"][0] - first]
        return replace(self, first=self.first + first, **parts)

    def _some(self, chosen):
        """Some of the samples."""
        parts = {name: getattr(self, name) for name in ("slots", "times", "clocks")}
        parts = {name: x and x[chosen] for name, x in parts.items()}
        return replace(self, rows=self.rows[chosen], **parts)

    def with_flat(self, flat):
        """The same input with other values."""
        return replace(self, rows=self.split(flat))

    def extended(self, n_steps):
        """The same series with so many rows without values at their ends."""
        times, slots = self.times, self.slots
        if times:
            ends = zip(times, self.clocks)
            times = [
                np.r_[t, t[-1] + self.grid.ahead(clock.first, t[-1], n_steps)] for t, clock in ends
            ]
        if slots:
            slots = [np.r_[x, x[-1] + np.arange(1, n_steps + 1)] for x in slots]
        rows = [np.pad(x, ((0, n_steps), (0, 0)), constant_values=np.nan) for x in self.rows]
        rows = np.stack(rows) if _is_array(self.rows) else rows
        return replace(self, rows=rows, times=times, slots=slots)

    def split(self, flat):
        """Cut values laid end to end along axis -2 into the samples again."""
        if _is_array(self.rows):
            return flat.reshape(*flat.shape[:-2], *self.rows.shape[:2], flat.shape[-1])
        return np.split(flat, np.cumsum([len(x) for x in self.rows])[:-1], axis=-2)

    def samples(self, values):
        """What :meth:`split` returned, one array a sample."""
        return list(np.moveaxis(values, -3, 0)) if _is_array(values) else values

    def on_grid(self):
        """For every sample, its values on the time grid and which rows of the grid are real."""
        for i, x in enumerate(self.rows):
            if self.slots is None:
                yield x, np.ones(len(x), dtype=bool)
                continue
            grid = np.full((self.slots[i][-1] + 1, x.shape[1]), np.nan)
            grid[self.slots[i]] = x
            yield grid, np.isin(np.arange(len(grid)), self.slots[i])

    def clock(self):
        """Seconds by the clock of the rows of every sample; None where times are unknown."""
        return self.times and [clock(times) for clock, times in zip(self.clocks, self.times)]

    def grid_times(self):
        """The same of the rows of the grid."""
        clock = self.clock()
        if clock is None or self.slots is None:
            return clock
        return [
            np.interp(np.arange(slots[-1] + 1), slots, times)
            for slots, times in zip(self.slots, clock)
        ]

    def restore(self, samples):
        """Completed samples in the form the user gave."""
        if self.form == "table":
            return samples[..., 0, :]
        if self.form == "long":
            return self.panel.in_order(np.concatenate(samples, axis=-2))
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
        if self.form == "long":
            return self.panel.in_order(np.concatenate(samples).swapaxes(0, 1)).swapaxes(0, 1)
        return samples[0] if self.form == "series" else samples

    def write_shares(self, shares, keys):
        """Frames of shares with the rows of those given; columns are pairs of name and label."""
        pandas = sys.modules["pandas"]
        parts = shares if self.form == "list" else [shares]
        if self.native is not None:
            flat = [f"{name}_{label}" for name, label in keys]
            like = [
                from_columns(dict(zip(flat, x.T)), given) for x, given in zip(parts, self.native)
            ]
            return like if self.form == "list" else like[0]
        columns = pandas.MultiIndex.from_tuples(keys)
        frames = [
            type(frame)(x, index=frame.index, columns=columns)
            for x, frame in zip(parts, [self.outer[1]] if self.outer else self.given)
        ]
        return frames if self.form == "list" else frames[0]


@dataclass(frozen=True)
class Piece:
    """A part of an input.

    Attributes
    ----------
    data : SeriesInput
        The part, with rows around it.
    samples : slice
        Its samples among those of the whole.
    begin : int
        Where its own rows begin among all rows end to end.
    own : slice
        Its own rows among those of ``data``.
    """

    data: SeriesInput
    samples: slice
    begin: int
    own: slice

    @property
    def rows(self):
        """Its own rows among all rows end to end."""
        return slice(self.begin, self.begin + self.own.stop - self.own.start)


def _is_array(rows):
    return isinstance(rows, np.ndarray)


def recognise(X, window_length, panel_columns=None):
    """Return kind, form and the 2-D parts of ``X``."""
    if panel_columns is not None:
        return "series", "long", LongFrame(X).frames
    if _is_list_of_series(X):
        return "series", "list", list(X)
    if (panel := LongFrame.recognise(X, window_length)) is not None:
        return "series", "long", panel.frames
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


def is_list_of_series(X):
    """Whether ``X`` is a list of series, not nested lists of numbers."""
    return isinstance(X, (list, tuple)) and all(getattr(x, "ndim", 0) >= 2 for x in X)


def each_series(X, function):
    """Apply a function to an array, or to every series of a list."""
    return [function(x) for x in X] if is_list_of_series(X) else function(X)


def cell_values(x):
    """Values of one array or frame as floats, NaN where missing."""
    checks = {"dtype": float, "allow_nd": True, "ensure_all_finite": "allow-nan"}
    with infinity_named(x):
        return check_array(unmasked(x), input_name="X", **checks)


def flattened(X):
    """Values as one array, series laid end to end."""
    return end_to_end(each_series(X, cell_values))


def end_to_end(X):
    return np.concatenate(X) if isinstance(X, list) else X


def one_frame(X):
    """A frame, or those of a list one below the other."""
    return sys.modules["pandas"].concat(X, ignore_index=True) if isinstance(X, list) else X


def is_target(y):
    """Whether ``y`` is one number for each sample, not a table or series like ``X``."""
    return (y.ndim if hasattr(y, "ndim") else 1 + np.ndim(y[0])) == 1


def require_alike(X, y):
    """Raise for frames of the truth whose columns or rows are not those of the frames of X."""
    for x, truth in zip(X, y) if is_list_of_series(X) and is_list_of_series(y) else [(X, y)]:
        if not (hasattr(x, "iloc") and hasattr(truth, "iloc")):
            continue
        if list(x.columns) != list(truth.columns):
            raise ValueError(
                f"the columns of y must be those of X, in the same order: y has "
                f"{list(truth.columns)}, X has {list(x.columns)}; take y[X.columns]"
            )
        if not x.index.equals(truth.index):
            raise ValueError("the index of y must be that of X: take y.loc[X.index]")
