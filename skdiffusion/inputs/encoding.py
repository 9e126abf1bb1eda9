"""Columns of a frame as real columns, and filled real columns as what they were.

A column of numbers is itself; one of an integer type or of booleans is rounded after drawing, and
so is one of floats that holds a few whole numbers alone, each of them often. An ordered category is
its code. An unordered one of k > 2 categories is k columns of 0 and 1, of which a draw takes the
largest; one of two is a single column. So is one of nearly as many categories as rows, such as a
name or a date in words: nothing could be learnt of so many columns, and they would cost the cube of
their number. An array has numbers only.
"""

from dataclasses import dataclass

import numpy as np

from skdiffusion.columns.discrete import has_few_values
from skdiffusion.inputs.frames import holds_labels, is_sparse
from skdiffusion.inputs.table import categories_of, some

# Labels of more categories, with fewer rows each, are a single column.
_MANY, _FEW_ROWS = 10, 3
# More flags are rounded, without a classifier for each, which takes a quarter of a second.
_MOST_FLAGS = 50


@dataclass(frozen=True, eq=False)
class ColumnCode:
    """How one column of a frame is written as real columns.

    Attributes
    ----------
    kind : {"real", "whole", "boolean", "label", "count", "flag"}
        What draws are taken for. Counts and flags are whole numbers, or 0 and 1, in a column of
        floats, which can hold the mean of draws.
    categories : ndarray or None
        The categories of a column of labels.
    ordered : bool
        Whether they have an order.
    names : bool
        Whether they are many, each of few rows.
    values : ndarray or None
        The whole numbers that a column of counts holds, rising: draws are among them.
    """

    kind: str = "real"
    categories: np.ndarray | None = None
    ordered: bool = False
    names: bool = False
    values: np.ndarray | None = None

    @property
    def width(self):
        """Number of real columns."""
        if self.categories is None or self.is_numbered:
            return 1
        return 1 if len(self.categories) <= 2 else len(self.categories)

    @property
    def is_numbered(self):
        """Whether a category is its number."""
        return self.ordered or self.names

    @property
    def most(self):
        """Largest code; infinite for numbers."""
        if self.kind in ("boolean", "flag"):
            return 1
        return np.inf if self.categories is None else len(self.categories) - 1


class Encoding:
    """What the columns of frames are, learnt in ``fit``.

    Parameters
    ----------
    columns : list of ColumnCode
        One for every feature.
    """

    def __init__(self, columns):
        self.columns = columns
        widths = [column.width for column in columns]
        self.owner = np.repeat(np.arange(len(columns)), widths)
        self.first = np.cumsum([0, *widths])[:-1]

    @classmethod
    def learn(cls, frames):
        """Encoding of the columns of frames that belong together."""
        return cls([_code_of([frame.iloc[:, j] for frame in frames]) for j in _columns(frames)])

    @classmethod
    def of_numbers(cls, n_features):
        """Encoding of an array."""
        return cls([ColumnCode()] * n_features)

    def of_values(self, flat):
        """The same where columns of floats are counts or flags by their values.

        A column of 0 and 1 with a gap is one of floats: numpy has no integers with gaps.
        """
        columns = list(self.columns)
        given = flat[:, self.first].T
        found = [j for j, code in enumerate(columns) if code.kind == "real" and _counts(given[j])]
        flags = [j for j in found if np.nanmin(given[j]) == 0 and np.nanmax(given[j]) == 1]
        for j in found:
            is_flag = j in flags and len(flags) <= _MOST_FLAGS
            known = np.unique(given[j][~np.isnan(given[j])])
            columns[j] = ColumnCode("flag") if is_flag else ColumnCode("count", values=known)
        return Encoding(columns)

    @property
    def has_labels(self):
        """Whether some column holds labels."""
        return any(column.kind == "label" for column in self.columns)

    @property
    def labels(self):
        """Which features hold labels, as a bool array."""
        return np.array([column.kind == "label" for column in self.columns])

    def of_features(self, values):
        """What is known of the real columns by feature, NaN for labels."""
        return np.where(self.labels, np.nan, values[self.first])

    def encode(self, frame):
        """Real columns of a frame, NaN where missing."""
        parts = [self._encoded(frame.iloc[:, j], code) for j, code in enumerate(self.columns)]
        return np.concatenate(parts, axis=1)

    def settle(self, draws, columns):
        """Draws as values that the columns can have.

        Parameters
        ----------
        draws : ndarray of shape (n_draws, n_cells)
            Draws of cells, row by row.
        columns : int ndarray of shape (n_cells,)
            The real column of each cell.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_cells)
            Whole numbers where only those can be; 1 for the category drawn and 0 for the others.
        """
        for j, code in enumerate(self.columns):
            cells = np.flatnonzero(self.owner[columns] == j)
            if code.kind == "real" or not len(cells):
                continue
            values = draws[:, cells]
            if code.width > 1:
                draws[:, cells] = _largest(values, code.width)
            elif code.values is not None:
                draws[:, cells] = _nearest(values, code.values)
            else:
                draws[:, cells] = _clipped(np.rint(values), code.most)
        return draws

    def statistic(self, draws, columns, median):
        """Median or mean of draws (n_draws, n_cells), which are those of :meth:`settle`.

        Unordered labels have their shares among the draws; a median of whole numbers is one.
        """
        mean = draws.mean(axis=0)
        if not median:
            return mean
        whole = np.array([code.kind != "real" for code in self.columns])[self.owner[columns]]
        middle = np.median(draws, axis=0)
        return np.where(self.shares(columns), mean, np.where(whole, np.rint(middle), middle))

    def shares(self, columns):
        """Which real columns are averaged over draws, as they stand for a share of them."""
        nominal = [code.kind == "label" and not code.is_numbered for code in self.columns]
        return np.array(nominal)[self.owner[columns]]

    def decode(self, values):
        """One number for every feature: itself, or the code of its category."""
        if not self.has_labels:
            return values
        parts = []
        for first, code in zip(self.first, self.columns):
            mine = values[..., first : first + code.width]
            if code.width > 1:
                mine = np.where(np.isnan(mine[..., :1]), np.nan, mine.argmax(-1)[..., None])
            elif code.kind == "label":
                mine = _clipped(np.rint(mine), code.most)
            parts.append(mine)
        return np.concatenate(parts, axis=-1)

    def filled(self, column, j, values, missing):
        """A column with its gaps filled, of the type it had; what was observed is untouched.

        Parameters
        ----------
        column : Series
            The column as the user gave it.
        j : int
            Its number.
        values : float ndarray of shape (n_rows,)
            What :meth:`decode` returns for it.
        missing : bool ndarray of shape (n_rows,)
            Which cells are gaps.

        Returns
        -------
        column : Series or ndarray
            The completed column.
        """
        if not missing.any():
            return column
        if is_sparse(column):
            dense = self.filled(column.sparse.to_dense(), j, values, missing)
            return dense.astype(column.dtype)
        if self.columns[j].kind == "label":
            fill = self.columns[j].categories[values[missing].astype(int)]
        else:
            whole = self.columns[j].kind in ("whole", "boolean")
            fill = _of_type(np.rint(values) if whole else values, column)[missing]
            if column.dtype.kind == "O" and fill.dtype.kind == "f":
                return values
        out = column.copy()
        out.iloc[np.flatnonzero(missing)] = fill
        return out

    def _encoded(self, column, code):
        """Real columns of one column."""
        if code.kind != "label":
            return column.to_numpy(dtype=float, na_value=np.nan)[:, None]
        codes = _label_codes(column, code)
        if code.width == 1:
            return codes[:, None]
        one_hot = (codes[:, None] == np.arange(code.width)).astype(float)
        return np.where(np.isnan(codes)[:, None], np.nan, one_hot)


def _counts(values):
    """Whether numbers are a few whole ones, each often."""
    known = values[~np.isnan(values)]
    return has_few_values(known) and bool((known == np.rint(known)).all())


def is_boolean(column):
    """Whether a column holds booleans, also as objects with gaps between them."""
    if column.dtype.kind != "O":
        return column.dtype.kind == "b"
    known = column.dropna()
    return len(known) > 0 and all(isinstance(value, (bool, np.bool_)) for value in known)


def is_label(column):
    """Whether a column holds text or categories: labels that are no booleans."""
    return holds_labels(column) and not is_boolean(column)


def _columns(frames):
    return range(frames[0].shape[1])


def _code_of(columns):
    """How columns that stand for one feature are written."""
    if any(map(is_label, columns)):
        return _label_code(columns)
    if all(map(is_boolean, columns)):
        return ColumnCode("boolean")
    return ColumnCode("whole" if all(c.dtype.kind in "iu" for c in columns) else "real")


def _label_code(columns):
    """Code of a column of labels, which may be spread over several frames."""
    import pandas as pd

    if not all(c.dtype == columns[0].dtype for c in columns) or len(columns) > 1:
        joined = pd.concat(columns, ignore_index=True)
    else:
        joined = columns[0]
    n_known, n_present = joined.count(), joined.nunique()
    names = n_present > _MANY and n_known < _FEW_ROWS * n_present
    ordered = getattr(joined.dtype, "ordered", False)
    return ColumnCode("label", categories_of(joined), ordered, bool(names))


def _label_codes(column, code):
    """Number of the category of every cell, NaN where missing.

    A new name is between the two that it would stand between: most rows have a name of their own.
    """
    import pandas as pd

    categories = code.categories
    codes = pd.Index(categories).get_indexer(column).astype(float)
    missing = column.isna().to_numpy()
    unknown = (codes < 0) & ~missing
    if unknown.any() and _sort_between(column[unknown], code):
        codes[unknown] = np.searchsorted(categories, column[unknown].to_numpy(object)) - 0.5
    elif unknown.any():
        raise ValueError(
            f"Column {column.name!r} of X has the category {column[unknown].tolist()[0]!r}, "
            f"which fit has not seen; it knows {some(categories)}: make the cell a gap (None), or "
            "fit with such rows."
        )
    return np.where(missing, np.nan, codes)


def _sort_between(names, code):
    """Whether new names have a place among those of ``fit``: these are sorted and of one type."""
    types = {type(name) for name in [*names, *code.categories]}
    ordered = (code.categories[:-1] <= code.categories[1:]).all() if len(types) == 1 else False
    return code.names and bool(ordered)


def _nearest(draws, values):
    """The nearest of rising values to each draw."""
    return values[np.searchsorted((values[1:] + values[:-1]) / 2, draws)]


def _clipped(codes, most):
    return codes if np.isinf(most) else np.clip(codes, 0, max(most, 0))


def _largest(values, width):
    """1 in place of the largest of every ``width`` columns, 0 elsewhere."""
    by_cell = values.reshape(len(values), -1, width)
    winner = by_cell.argmax(-1)[..., None] == np.arange(width)
    return winner.astype(values.dtype).reshape(values.shape)


def _of_type(values, column):
    """Real values as those of a column's type."""
    if is_boolean(column):
        return values > 0.5
    if column.dtype.kind not in "iu":
        return values.astype(_numpy_type(column.dtype)) if column.dtype.kind == "f" else values
    dtype = _numpy_type(column.dtype)
    limits = np.iinfo(dtype)
    # The largest 64-bit integers are rounded up on their way to float64.
    high = np.nextafter(float(limits.max), 0) if limits.bits == 64 else limits.max
    return np.clip(np.rint(values), limits.min, high).astype(dtype)


def _numpy_type(dtype):
    """The numpy type of a pandas type: of numpy, nullable or of pyarrow."""
    return np.dtype(getattr(dtype, "numpy_dtype", dtype))
