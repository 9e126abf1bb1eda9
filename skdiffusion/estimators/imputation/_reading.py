"""The way into and out of an imputer: what a user hands over, and how the answer goes back."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from skdiffusion.columns.columns import in_blocks
from skdiffusion.columns.doubts import Doubts
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.estimators.imputation._validation import (
    FORMS,
    learn_encoding,
    validated,
    warn_unread_index,
)
from skdiffusion.inputs.arrays import unmasked
from skdiffusion.inputs.encoding import Encoding
from skdiffusion.inputs.frames import is_frame, refuse_repeated_names
from skdiffusion.inputs.native import (
    as_pandas,
    is_labelled_array,
    like_native,
    native_of,
    stacked,
)
from skdiffusion.inputs.panels import (
    PanelColumns,
    alike,
    static_columns,
    with_statics,
)
from skdiffusion.inputs.series import recognise
from skdiffusion.inputs.times import TimeGrid, possible_periods, time_grid

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
    grid : TimeGrid or None
        The time grid, if times are known.
    kept : bool ndarray of shape (n_features,)
        Features that come back.
    indicated : bool ndarray of shape (n_features,)
        Features with missing values, which get an indicator if wanted.
    encoding : Encoding
        The real columns that stand for the features.
    static : bool ndarray of shape (n_columns,) or None
        Real columns that do not change within a series.
    layout : pair of lists or None
        Names of the panel columns and of all columns, where the former were columns in ``fit``.
    labels : LabelDraws, LabelChains or None
        What draws labels given the completed row, in series also given those before and after.
    statics : StaticDraws or None
        What draws static columns of series that miss them in all rows.
    doubts : Doubts or None
        What values of series are not believed.
    """

    kind: str
    length: int
    grid: TimeGrid | None
    kept: np.ndarray
    indicated: np.ndarray
    encoding: Encoding
    static: np.ndarray | None = None
    layout: tuple | None = None
    labels: object = None
    statics: object = None
    doubts: Doubts | None = None

    @property
    def step(self):
        """Step of the time grid in seconds, if times are known."""
        return None if self.grid is None else self.grid.seconds

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
        X, about = _opened(X, estimator)
        kind, form, parts = recognise(X, estimator.window_length, estimator.panel_columns)
        if kind == "series" and form in ("long", "list") and max(map(len, parts)) == 1:
            raise ValueError(
                "Every series of X has a single row: rows are a table, without panel_columns, "
                "window_length or an index of series and times."
            )
        for part in filter(is_frame, parts):
            refuse_repeated_names(part)
        warn_unread_index(parts, kind, timestamps)
        encoding = learn_encoding(parts)
        data = validated(estimator, X, kind, form, parts, encoding, reset=True)
        encoding = (encoding or Encoding.of_numbers(data.flat.shape[1])).of_values(data.flat)
        data = replace(data, **about)
        length = _window_rows(data, estimator.window_length)
        data = time_grid(data, timestamps, None, length)
        missing = np.isnan(data.flat)[:, encoding.first]
        kept = ~missing.all(axis=0) | estimator.keep_empty_features
        static = static_columns(data.rows, encoding.owner) if kind != "table" else None
        gaps = missing.any(axis=0)
        layout = data.layout()
        return cls(data.kind, length, data.grid, kept, gaps, encoding, static, layout), data

    def read(self, estimator, X, timestamps):
        """Read ``X`` as in ``fit``; return the data as SeriesInput."""
        X, about = _opened(X, estimator)
        length = self.length if self.kind == "series" else None
        kind, form, parts = recognise(X, length, estimator.panel_columns)
        kind = self._require_kind(estimator, kind, form, X)
        data = validated(estimator, X, kind, form, parts, self.encoding, reset=False)
        data = replace(data, **about)
        return time_grid(data, timestamps, self.grid, self.length)

    def require_length(self, data):
        """At least one of several series must fill a window."""
        longest = max(data.sizes)
        if longest < self.length:
            raise ValueError(
                f"window_length={self.length} is longer than the longest series of X "
                f"({longest} time steps): lower window_length."
            )

    def with_statics(self, data, past=False):
        """The data with static columns filled where their series, or its past, knows them."""
        if self.static is None or not self.static.any():
            return data
        parts = [with_statics(x, self.static, past) for x in data.rows]
        return data.with_flat(np.concatenate(parts))

    def settle(self, data, draws, asked, keys, past=False):
        """Draws of the cells ``asked`` as values of columns, static ones alike in a series."""
        columns = np.nonzero(asked)[1]
        if self.statics is not None and not past:
            draws = self.statics.redraw(data, draws, asked, keys)
        elif self.static is not None and self.static[columns].any():
            draws = alike(draws, data.rows, self.static, asked)
        draws = self.encoding.settle(draws, columns)
        if self.labels is None:
            return draws
        # Only series have a past.
        options = {"past": True} if past else {}
        return self.labels.redraw(data, draws, asked, keys, **options)

    def doubting(self, data):
        """This reader, which knows what values of ``data`` are not believed, and these cells (of
        ``data.flat``).
        """
        on_grid = list(data.on_grid())
        reader = replace(self, doubts=Doubts.learn([x for x, _ in on_grid]))
        doubted = zip(reader._doubted(on_grid), on_grid)
        return reader, np.concatenate([mask[real] for mask, (_, real) in doubted])

    def _doubted(self, on_grid):
        """What is not believed of series on their grid, of all of them in one pass."""
        sizes = [len(x) for x, _ in on_grid]
        number = np.repeat(np.arange(len(sizes)), sizes)
        doubted = self.doubts(np.concatenate([x for x, _ in on_grid]), number)
        return np.split(doubted, np.cumsum(sizes)[:-1])

    def windows(self, data, columns, past=False):
        """What a model sees of ``data``, as series cut into windows.

        What is not believed is neither shown nor asked for. To doubt a value takes those after it:
        with ``past`` all are believed.
        """

        def seen(x):
            z = torch.from_numpy(in_blocks(columns.forward, x, np.float32))
            return z, ~torch.isnan(z)

        if data.kind != "series":
            return WindowedSeries.stack(*seen(data.rows))
        triples, on_grid = [], list(data.on_grid())
        believing = self.doubts is None or past
        doubted = [None] * len(on_grid) if believing else self._doubted(on_grid)
        for (x, real), mask in zip(on_grid, doubted):
            values, observed = seen(x)
            wanted = ~observed & torch.from_numpy(real)[:, None]
            if mask is not None:
                observed &= ~torch.from_numpy(mask[:, columns.valid])
            triples.append((values, observed, wanted))
        times = data.grid_times()
        times = times and [torch.from_numpy(np.asarray(t, dtype=float)) for t in times]
        periods = possible_periods(data, self.length)
        joined = WindowedSeries.join(triples, self.length, times, periods)
        return replace(joined, first=torch.tensor([data.first])) if data.first else joined

    def with_panel_columns(self, names):
        """Names of features with those of the panel columns at their places."""
        if self.layout is None:
            return np.asarray(names, dtype=object)
        shown = {*names, *self.layout[0]}
        return np.array([name for name in self.layout[1] if name in shown], dtype=object)

    def keep(self, samples):
        """Features that come back, of each its number or the code of its category."""
        if isinstance(samples, np.ndarray):
            return self.encoding.decode(samples)[..., self.kept]
        return [self.keep(x) for x in samples]

    def write_draws(self, data, filled, names, dimension="draw", labels=None):
        """Draws in the user's form; where there are labels, a list of completed copies, and of an
        array of xarray one with a further dimension.
        """
        labelled = data.native is not None and all(map(is_labelled_array, data.native))
        labelled = labelled and data.form != "list"
        if not (self.encoding.has_labels or labelled):
            return data.restore_draws(self.keep(filled))
        copies = self.copies(data, filled, names)
        labels = range(len(copies)) if labels is None else labels
        return stacked(copies, dimension, labels) if labelled else copies

    def copies(self, data, filled, names):
        """Completed copies in the user's form, one for each draw."""
        n_draws = len(filled if isinstance(filled, np.ndarray) else filled[0])
        return [self.write(data, _draw_of(filled, i), names, False) for i in range(n_draws)]

    def require_labels(self):
        """Raise where there are no labels; else return True."""
        if not self.encoding.has_labels:
            raise AttributeError(
                "predict_proba is for columns of labels (text or categories), and X had none in "
                "fit: take predict_quantiles or sample for numbers."
            )
        return True

    def write_shares(self, data, filled, names):
        """Shares of the categories among draws, in frames like those given."""
        categories = [column.categories for column in self.encoding.columns]
        kept = list(zip(names, np.flatnonzero(self.kept)))
        which = [(name, i, j) for i, (name, j) in enumerate(kept) if categories[j] is not None]
        keys = [(name, label) for name, _, j in which for label in categories[j]]

        def of(draws):
            shares = [
                (draws[..., i, None] == np.arange(len(categories[j]))).mean(0) for _, i, j in which
            ]
            return np.concatenate(shares, axis=-1)

        codes = self.keep(filled)
        is_array = isinstance(codes, np.ndarray)
        out = data.restore(of(codes) if is_array else [of(x) for x in codes])
        return data.write_shares(out, keys)

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
            missing = np.isnan(data.parts[0])[:, self.encoding.first]
            indicators = missing[:, self.indicated].astype(out.dtype)
            out = np.concatenate([out, indicators], axis=1)
        if data.frames is None:
            return out
        frames = out if data.form == "list" else [out]
        frames = [
            self._frame(frame, x, names, np.isnan(given)[:, self.encoding.first])
            for frame, x, given in zip(data.given, frames, data.parts)
        ]
        if data.outer is not None:
            frames = [data.outer[0].restored(frames[0], data.outer[1])]
        if data.native is not None:
            frames = [like_native(*pair) for pair in zip(frames, data.native)]
        return frames if data.form == "list" else frames[0]

    def _frame(self, given, values, names, missing):
        """A frame like the given one: its index, its columns, their types."""
        kept = np.flatnonzero(self.kept)
        labels = given.columns[kept]
        # Numbers and tuples are no names to scikit-learn, which makes up x0, x1, ...
        if len(names) == len(kept) and not all(isinstance(label, str) for label in labels):
            names = labels
        frame = type(given)(values, index=given.index, columns=names)
        for i, j in enumerate(kept):
            column = given.iloc[:, j]
            frame.isetitem(i, self.encoding.filled(column, j, values[:, i], missing[:, j]))
        return frame

    def _require_kind(self, estimator, kind, form, X):
        """Compare the form of ``X`` with that seen in ``fit``; samples may serve as series."""
        name = type(estimator).__name__
        if form == "3-D array" and self.kind == "series":
            return "series"
        if kind != self.kind:
            raise ValueError(
                f"X is of the form {FORMS[kind]}, but {name} was fitted on "
                f"{FORMS[self.kind]}: reshape X or fit again."
            )
        n_times = np.asarray(X).shape[1] if kind == "panel" else None
        if kind == "panel" and n_times != self.length:
            raise ValueError(
                f"X has samples of {n_times} time steps, but {name} was "
                f"fitted on samples of {self.length}: set window_length before fit to "
                "impute samples of any length."
            )
        return kind


def _opened(X, estimator):
    """``X`` as arrays and pandas frames without panel columns, and what there is to restore."""
    native, X = native_of(X), as_pandas(unmasked(X, estimator.missing_values))
    if estimator.panel_columns is None:
        return X, {"native": native}
    panel = PanelColumns(estimator.panel_columns)
    return panel.indexed(X), {"native": native, "outer": (panel, X)}


def _window_rows(data, window_length):
    """Number of time steps of a window."""
    if data.kind != "series":
        if data.kind == "panel" and len(data.rows) < 2:
            raise ValueError("X has n_samples=1, while a minimum of 2 samples is required.")
        return len(data.rows[0])
    return window_length or min(_LIST_WINDOW, min(len(x) for x in data.rows))


def _draw_of(filled, i):
    """One draw of all samples."""
    return filled[i] if isinstance(filled, np.ndarray) else [x[i] for x in filled]
