"""What a training table looks like: labels and their codes, grids, types of columns."""

import numpy as np

from skdiffusion.columns.discrete import Category, Grid, is_tied
from skdiffusion.inputs.arguments import finite_number
from skdiffusion.inputs.frames import holds_labels

# Categories that a message lists at most.
_MANY = 20


class Table:
    """What a training table looks like, and the way to numbers and codes and back.

    Parameters
    ----------
    dequantize : bool
        Whether columns of numbers with many ties are taken as grids.
    """

    def __init__(self, dequantize):
        self.dequantize = dequantize
        self.categories, self.dtypes, self.discrete = {}, None, {}

    def fit(self, X, codes, integer):
        """Learn the discrete columns of a table.

        Parameters
        ----------
        X : array-like or DataFrame
            The table as the user gave it.
        codes : float64 ndarray of shape (n_samples, n_features)
            Its numbers, and codes of categories.
        integer : bool ndarray of shape (n_features,)
            Columns of an integer type.

        Returns
        -------
        self : Table
            The fitted table.
        """
        self.dtypes = list(X.dtypes) if hasattr(X, "columns") else None
        for j, column in enumerate(codes.T):
            known = column[~np.isnan(column)]
            if j in self.categories:
                counts = np.bincount(known.astype(int), minlength=len(self.categories[j]))
                if (counts > 0).sum() > 1:
                    self.discrete[j] = Category((counts + 0.5) / (counts + 0.5).sum())
            elif self.dequantize and (integer[j] or is_tied(column)):
                self._learn_grid(j, np.unique(known))
        return self

    def learn_categories(self, X):
        """Remember the categories of every column of a frame that holds labels."""
        for j, name in enumerate(X.columns):
            if holds_labels(X[name]):
                self.categories[j] = categories_of(X[name])

    def codes(self, X):
        """Numbers of a frame, with codes for categories and NaN for what is missing."""
        columns = []
        for j, name in enumerate(X.columns):
            if j in self.categories:
                columns.append(self._codes_of(X[name], j))
            else:
                columns.append(X[name].to_numpy(dtype=np.float64, na_value=np.nan))
        return np.column_stack(columns)

    def code(self, j, value, name):
        """Number or code of one value of a column.

        Parameters
        ----------
        j : int
            Number of the column.
        value : object
            A label where the column has labels, else a number.
        name : str
            What the value is called in messages.

        Returns
        -------
        code : float
            The number, or the code of the label.
        """
        if j in self.categories:
            known = self.categories[j].tolist()
            if value not in known:
                raise ValueError(
                    f"{name} is {value!r}, which fit has not seen; it knows {some(known)}."
                )
            return float(known.index(value))
        number, grid = finite_number(value, name), self.discrete.get(j)
        if grid is not None and abs(grid.snap(number) - number) > 1e-6 * grid.width:
            raise ValueError(
                f"{name} is {value!r}, but the column goes from {grid.low:g} to {grid.high:g} in "
                f"steps of {grid.width:g}: such a row has no chance."
            )
        return number

    def restore(self, codes, names, as_frame):
        """The table of the user's kind; an array where it was one.

        Parameters
        ----------
        codes : float64 ndarray of shape (n_samples, n_features)
            Numbers and codes.
        names : array-like of str
            Names of the columns.
        as_frame : bool
            Whether a frame is wanted; a table with categories is one in any case.

        Returns
        -------
        X : ndarray or DataFrame
            The table.
        """
        if not (as_frame or self.categories):
            return codes
        import pandas as pd

        columns = {name: self._restored(codes[:, j], j) for j, name in enumerate(names)}
        return pd.DataFrame(columns)

    def _learn_grid(self, j, values):
        """Take a column as a grid where its values lie on one."""
        if len(values) < 2:
            return
        span = values[-1] - values[0]
        gaps = np.diff(values)
        width = gaps[gaps > 1e-9 * span].min()
        steps = (values - values[0]) / width
        if np.abs(steps - np.rint(steps)).max() < 0.01:
            self.discrete[j] = Grid(values, width)

    def _codes_of(self, column, j):
        """Codes of one column of labels."""
        import pandas as pd

        if self.categories[j].dtype == bool and column.dtype.kind in "iuf":
            # Booleans that were written as 0 and 1.
            values = column.to_numpy(dtype=float, na_value=np.nan)
            column = column.astype(object).mask(values == 0, False).mask(values == 1, True)
        codes = pd.Index(self.categories[j]).get_indexer(column).astype(float)
        unknown = (codes < 0) & ~column.isna().to_numpy()
        if unknown.any():
            raise ValueError(
                f"Column {column.name!r} of X has the category {column[unknown].tolist()[0]!r}, "
                f"which fit has not seen; it knows {some(self.categories[j])}: leave such rows out "
                "or fit with them."
            )
        return np.where(codes < 0, np.nan, codes)

    def _restored(self, codes, j):
        """One column in the type it had in training."""
        import pandas as pd

        dtype = None if self.dtypes is None else self.dtypes[j]
        if j not in self.categories:
            on_grid = j in self.discrete and dtype is not None
            whole = on_grid and not np.isnan(codes).any()
            # Types of pandas, such as Int64, are unknown to numpy.
            return pd.Series(codes).astype(dtype).array if whole else codes
        missing = np.isnan(codes)
        codes = np.where(missing, -1, codes).astype(int)
        if isinstance(dtype, pd.CategoricalDtype):
            return pd.Categorical.from_codes(codes, dtype=dtype)
        values = pd.Series(self.categories[j].take(codes), dtype=object)
        return (values.where(~missing) if missing.any() else values.astype(dtype)).array


def some(categories):
    """Categories as text, the first ones of many."""
    known = np.asarray(categories).tolist()
    return f"{known}" if len(known) <= _MANY else f"{known[:_MANY]} and {len(known) - _MANY} more"


def categories_of(column):
    """Categories of a column in their order, sorted where they have none."""
    if hasattr(column, "cat"):
        return np.asarray(column.cat.categories)
    values = column.dropna().unique()
    require_one_type(column)
    return np.asarray(sorted(values), dtype=object if column.dtype.kind != "b" else bool)


def require_one_type(column):
    """Refuse text and numbers in one column of a frame."""
    if column.dtype != "object" or not any(isinstance(value, str) for value in column):
        return
    other = [value for value in column.dropna() if not isinstance(value, str)]
    if other:
        raise ValueError(
            f"Column {column.name!r} of X mixes text and other values, such as {other[0]!r}: make "
            "it one type, for example by .astype(str), or correct the odd ones."
        )
