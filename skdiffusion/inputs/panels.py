"""Frames of several series in long form: series and times in the index, or in columns."""

import numpy as np
from sklearn.utils import check_random_state

from skdiffusion.inputs.frames import is_frame

# A table may be one in long form if it has more rows than this, and at most this share of them are
# the first of a series.
_FEWEST_ROWS, _MOST_STARTS = 12, 0.34
# So often must values of a column come again in their series for it to count as static.
_SEEN_AGAIN = 10


class LongFrame:
    """A frame of several series, told apart by all levels of its index but the last.

    Parameters
    ----------
    frame : DataFrame
        Its rows may lie in any order; those of a series rise in time.

    Attributes
    ----------
    frames : list of DataFrames
        One a series, with the last level of the index as its own.
    names : list
        What they are called.
    """

    def __init__(self, frame):
        levels = list(range(frame.index.nlevels - 1))
        groups = frame.groupby(level=levels, sort=False, observed=True, dropna=False)
        places = groups.ngroup().to_numpy()
        order = np.argsort(places, kind="stable")
        self.frame, self._back = frame, np.argsort(order)
        ends = np.cumsum(np.bincount(places))
        self.rows = np.split(order, ends[:-1])
        self.frames = [frame.iloc[rows].droplevel(levels) for rows in self.rows]
        labels = [tuple(map(_plain, frame.index[rows[0]][:-1])) for rows in self.rows]
        self.names = [label[0] if len(label) == 1 else label for label in labels]

    @classmethod
    def recognise(cls, X, window_length):
        """The frame as one of several series, or None where it is a table or one series."""
        if not is_frame(X) or X.index.nlevels < 2 or 0 in X.shape:
            return None
        if window_length is None and X.index.get_level_values(-1).dtype.kind not in "mMiuf":
            return None
        panel = cls(X)
        return panel if window_length or max(map(len, panel.rows)) > 1 else None

    def resampled(self, seed):
        """Frame of as many of its series, drawn with replacement and told apart by numbers."""
        rng = check_random_state(seed)
        chosen = [self.rows[i] for i in rng.randint(len(self.rows), size=len(self.rows))]
        frame = self.frame.iloc[np.concatenate(chosen)]
        levels = [frame.index.get_level_values(i) for i in range(frame.index.nlevels)]
        levels[0] = np.repeat(np.arange(len(chosen)), list(map(len, chosen)))
        return frame.set_axis(type(frame.index).from_arrays(levels, names=frame.index.names))

    def in_order(self, values):
        """Rows laid end to end along axis -2, in the order of the frame."""
        return values[..., self._back, :]


def _plain(label):
    """A label as Python's own numbers print it."""
    return label.item() if isinstance(label, np.number) else label


def looks_long(frame):
    """Names of columns that look like the series and the times of a long table, or None.

    Times rise from row to row, but start anew with every series. A few columns of a table that
    was sorted do so by chance at most where there are few rows.
    """
    whole = {name: frame[name] for name in frame.columns if _counts(frame[name])}
    for time, column in whole.items():
        steps = np.diff(column.to_numpy(dtype=float))
        if not 0 < (steps <= 0).sum() <= _MOST_STARTS * len(steps):
            continue
        starts = np.r_[0, np.flatnonzero(steps <= 0) + 1]
        for name in frame.columns:
            if name != time and _marks(frame[name], starts, len(steps)):
                return name, time
    return None


def _counts(column):
    """Whether a column could hold times: whole numbers without gaps, or dates."""
    if column.dtype.kind not in "iu" or column.isna().any():
        return False
    return len(column) > _FEWEST_ROWS


def _marks(column, starts, n_steps):
    """Whether a column has one value from each start to the next, and another one then."""
    if column.isna().any():
        return False
    codes = column.factorize()[0]
    changes = np.flatnonzero(np.diff(codes)) + 1
    return np.array_equal(changes, starts[1:]) and codes.max() + 1 == len(starts)


class PanelColumns:
    """Columns of a plain long frame that name its series and their times.

    Parameters
    ----------
    columns : str or pair
        The column of the series, or a pair of that (or a list of several) and the column of the
        times. Without times the rows of a series are one step apart, in their order.

    Attributes
    ----------
    names : list
        All of them, the times last.
    """

    def __init__(self, columns):
        pair = (columns, None) if isinstance(columns, str) else tuple(columns)
        if len(pair) != 2:
            raise ValueError(
                f"panel_columns={columns!r} must be the name of the column of the series, or a "
                "pair of that and of the column of their times; several columns that name a series "
                "together are a list in the pair: (['ward', 'bed'], 'hour'), or None for no times."
            )
        self.series, self.time = [pair[0]] if isinstance(pair[0], str) else list(pair[0]), pair[1]
        self.names = [*self.series, *([] if self.time is None else [self.time])]

    def indexed(self, X):
        """The frame with these columns as its index; one that has them there stays as it is."""
        if not is_frame(X):
            raise ValueError("panel_columns names columns of a frame: give X as a DataFrame.")
        if X.index.nlevels > 1 and not set(self.names) & set(X.columns):
            return X
        lost = [name for name in self.names if name not in X.columns]
        if lost:
            raise ValueError(f"panel_columns names {lost}, which are no columns of X.")
        gaps = X[self.names].isna().to_numpy()
        if gaps.any():
            row, j = np.argwhere(gaps)[0]
            raise ValueError(
                f"Column {self.names[j]!r}, named in panel_columns, has no value in row {row}: "
                "fill it in or drop the row."
            )
        if self.time is not None:
            self._refuse_repeated(X)
            return X.set_index(self.names)
        number = X.groupby(self.series, sort=False, observed=True).cumcount()
        return X.set_index([*(X[name] for name in self.series), number]).drop(columns=self.names)

    def _refuse_repeated(self, X):
        """Refuse times that repeat in a series: often the second column names series, too."""
        again = np.flatnonzero(X.duplicated(self.names))
        if not len(again):
            return
        series, time = self.series if len(self.series) > 1 else self.series[0], self.time
        labels = [_plain(X[name].iloc[again[0]]) for name in self.series]
        raise ValueError(
            f"panel_columns reads {series!r} as what names the series and {time!r} as their times, "
            f"but {time!r} is {_plain(X[time].iloc[again[0]])!r} once more in row {again[0]}, in "
            f"the series {labels if len(labels) > 1 else labels[0]!r}: aggregate or drop rows of "
            f"equal times. If {time!r} is no time, but names series as well, set "
            f"panel_columns=({self.names!r}, None)."
        )

    def restored(self, frame, X):
        """A frame of features with the index and, at their places, the columns of ``X``."""
        if not set(self.names) & set(X.columns):
            return frame
        out = frame.set_axis(X.index)
        for name in sorted(self.names, key=list(X.columns).index):
            before = list(X.columns[: list(X.columns).index(name)])
            place = sum(column in before for column in out.columns)
            out.insert(place, name, X[name])
        return out


def panel_indexed(X, columns):
    """A long frame with its panel columns as index; anything else, or without any, as it is."""
    return X if columns is None else PanelColumns(columns).indexed(X)


def panel_of(imputer, X):
    """A frame as the series of an imputer that takes it for such; None otherwise."""
    if not (is_frame(X) and hasattr(imputer, "panel_columns")):
        return None
    return LongFrame.recognise(panel_indexed(X, imputer.panel_columns), imputer.window_length)


def static_columns(parts, owner):
    """Columns that do not change within a series, such as age and sex.

    Parameters
    ----------
    parts : list of ndarrays of shape (n_times, n_columns)
        Series, NaN where missing.
    owner : int ndarray of shape (n_columns,)
        The feature that each column belongs to; all of its columns are static, or none.

    Returns
    -------
    static : bool ndarray of shape (n_columns,)
        Constant within every series, not over all of them, and seen often enough to say so.
    """
    if len(parts) < 2:
        return np.zeros(parts[0].shape[1], dtype=bool)
    counts = np.array([(~np.isnan(x)).sum(axis=0) for x in parts])
    low = np.array([_edge(np.fmin, x) for x in parts])
    high = np.array([_edge(np.fmax, x) for x in parts])
    again = np.maximum(counts - 1, 0)
    seen = (again.sum(axis=0) >= _SEEN_AGAIN) & ((again > 0).sum(axis=0) >= 2)
    alike = ((low == high) | (counts == 0)).all(axis=0)
    static = seen & alike
    changes = _edge(np.fmin, low) < _edge(np.fmax, high)
    of_feature = [(static | ~changes)[owner == j].all() & static[owner == j].any() for j in owner]
    varies = [changes[owner == j].any() for j in owner]
    return np.array(of_feature) & np.array(varies)


def with_statics(x, static, past):
    """A series with the gaps of its static columns filled by their value, where it is known.

    With ``past`` it is known from the row on that tells it.
    """
    x = x.copy()
    known = x[:, static]
    value = np.fmin.accumulate(known, axis=0) if past else _edge(np.fmin, known)
    x[:, static] = np.where(np.isnan(x[:, static]), value, x[:, static])
    return x


def alike(draws, parts, static, asked):
    """Draws of cells ``asked``, those of a static column in all rows of a series as in the first.

    Parameters
    ----------
    draws : ndarray of shape (n_draws, n_asked)
        Row by row; changed.
    parts : sequence of ndarrays
        Series.
    static : bool ndarray of shape (n_columns,)
        Columns that do not change within a series.
    asked : bool ndarray of shape (n_rows, n_columns)
        Cells of the series end to end.

    Returns
    -------
    draws : ndarray of shape (n_draws, n_asked)
        The same array.
    """
    rows, columns = np.nonzero(asked)
    number = np.repeat(np.arange(len(parts)), [len(x) for x in parts])
    cells = np.flatnonzero(static[columns])
    key = number[rows[cells]] * len(static) + columns[cells]
    _, first, of = np.unique(key, return_index=True, return_inverse=True)
    draws[:, cells] = draws[:, cells[first[of]]]
    return draws


def _edge(ufunc, x):
    """Smallest or largest value of every column, NaN for one without any."""
    return ufunc.reduce(x, axis=0)
