"""Frames: which columns hold numbers, labels, times or infinity, and their names in messages."""

import datetime
import re
import sys
import warnings
from contextlib import contextmanager

import numpy as np

# Columns that a message names.
_MOST_LISTED = 10


# How numpy says that the cells of a table are lists or other objects.
_NO_NUMBERS = ("float() argument must be", "setting an array element with a sequence")


@contextmanager
def infinity_named(X):
    """Say in which columns of X its infinity, its text or its times are; scikit-learn does not."""
    if not hasattr(X, "iloc") and not hasattr(X, "nnz"):
        _refuse_what_is_no_table(X)
        refuse_time_array(X)
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        if any(start in text for start in _NO_NUMBERS) and (columns := _text_columns(X)):
            raise TypeError(
                f"Columns {listed(columns)} of X hold objects that are no numbers ({text}): turn "
                "them into numbers or drop them."
            ) from error
        if "X contains infinity" in text and (columns := _infinite_columns(X)):
            raise ValueError(
                f"Input X contains infinity in the columns {listed(columns)}: correct these "
                "values, or mark them as missing (NaN) and impute them."
            ) from error
        if "could not convert string" in text and (columns := _text_columns(X)):
            remedy = "pass a DataFrame with the text in columns of its own"
            remedy = "turn them into numbers" if hasattr(X, "iloc") else remedy
            raise ValueError(
                f"Columns {listed(columns)} of X hold text ({text}): correct or drop them, or "
                f"{remedy}."
            ) from error
        raise


def listed(names):
    """Names in a message, of many the first few."""
    few = names if len(names) <= _MOST_LISTED else names[: _MOST_LISTED - 1]
    more = len(names) - len(few)
    return str(list(few)) + (f" and {more} more" if more else "")


def _refuse_what_is_no_table(X):
    """Refuse mappings, text, structured arrays and rows of unequal length."""
    if isinstance(X, dict) or getattr(getattr(X, "dtype", None), "names", None):
        raise TypeError(
            f"X is a {'dict' if isinstance(X, dict) else 'structured array'}: pass "
            "pandas.DataFrame(X)."
        )
    if isinstance(X, set | frozenset) or hasattr(X, "__next__"):
        raise TypeError(f"X is a {type(X).__name__}: pass a table of numbers.")
    if isinstance(X, str):
        raise ValueError(f"X is the text {X!r}: pass a table of numbers.")
    if isinstance(X, list | tuple) and len({_length(row) for row in X}) > 1:
        raise ValueError("The rows of X are of unequal length: each needs a value a column.")


def _length(row):
    """Number of values of a row, None for a single number."""
    return len(row) if hasattr(row, "__len__") else None


def refuse_time_array(X):
    """Refuse arrays, or lists of rows, that hold datetimes or durations."""
    try:
        X = np.asarray(X)
    except ValueError:
        return
    if X.dtype.kind in "mM" or (X.dtype.kind == "O" and X.ndim == 2):
        refuse_times(dict(enumerate(X.T if X.ndim == 2 else X.reshape(-1, X.shape[-1]).T)))


def _text_columns(X):
    """Names or numbers of the columns with text that is no number."""
    if hasattr(X, "iloc"):
        columns = {name: X.iloc[:, j] for j, name in enumerate(X.columns)}
    else:
        X = np.asarray(X)
        columns = dict(enumerate(X.T)) if X.ndim == 2 else {}
    return [name for name, column in columns.items() if not _reads_as_numbers(column)]


def _reads_as_numbers(column):
    try:
        np.asarray(column, dtype=float)
    except (TypeError, ValueError):
        return False
    return True


def _infinite_columns(X):
    """Names or numbers of the columns of a table that hold infinity."""
    if hasattr(X, "iloc"):
        columns = {name: X.iloc[:, j] for j, name in enumerate(X.columns)}
    else:
        columns = dict(enumerate(np.asarray(X).T))
    return [name for name, column in columns.items() if _holds_infinity(column)]


def _holds_infinity(column):
    """Whether a column can be read as numbers and one of them is infinite."""
    try:
        return bool(np.isinf(np.asarray(column, dtype=float)).any())
    except (TypeError, ValueError):
        return False


# Dates and times written out: a number, a separator, a number, and again.
_DATE_AS_TEXT = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?![\d./-])")


def is_frame(X):
    """Whether ``X`` is a pandas DataFrame, without importing pandas."""
    return "pandas" in sys.modules and isinstance(X, sys.modules["pandas"].DataFrame)


def has_times(frame):
    """Whether the index of a frame holds times."""
    return hasattr(frame.index, "to_timestamp") or getattr(frame.index.dtype, "kind", "O") in "mM"


def has_dates_as_text(frame):
    """Whether the first labels of the index are dates that are not read as such yet."""
    labels = list(frame.index.get_level_values(-1)[:3])
    if not labels or not all(isinstance(x, (str, datetime.date)) for x in labels):
        return False
    texts = [x for x in labels if isinstance(x, str)]
    if not all(_DATE_AS_TEXT.match(x) for x in texts):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = sys.modules["pandas"].to_datetime(labels, errors="coerce", format="mixed")
    return bool(read.notna().all())


def without_zones(times, name):
    """Dates among objects in UTC and without a time zone; they must all have one, or none."""
    # What is not equal to itself is missing.
    dated = [row for row, t in enumerate(times) if hasattr(t, "tzinfo") and t == t]
    aware = [row for row in dated if times[row].tzinfo is not None]
    if not aware:
        return times
    if len(aware) < len(dated):
        others = sorted(set(dated) - set(aware))
        raise ValueError(
            f"{name} has times with a time zone and times without, as in the rows {aware[0]} and "
            f"{others[0]}: give all of them the zone that they are of (tz_localize), or pass "
            "pd.to_datetime(times, utc=True), which takes those without for UTC."
        )
    times = np.array([t if t == t else None for t in times], dtype=object)
    for row in aware:
        times[row] = times[row].astimezone(datetime.UTC).replace(tzinfo=None)
    return times


def hint_to_datetime(frames):
    """How dates that are text or objects in the index become times, in words."""
    pd = sys.modules["pandas"]
    try:
        pd.to_datetime([label for f in frames for label in f.index.get_level_values(-1)])
        options = ""
    except (TypeError, ValueError):
        # Several ways to write dates, or several time zones.
        options = ", format='mixed', utc=True"
    return (
        "The index of X, or its column of times, holds dates as text or objects, which are not "
        f"read as times: set X.index = pd.to_datetime(X.index{options}), or do so for the column."
    )


def numeric_frame(frame):
    """Return the frame with object columns as floats; name the columns that hold no numbers."""
    if frame.shape[1] == 0:
        raise ValueError("X has 0 feature(s) while a minimum of 1 is required.")
    refuse_times({name: frame.iloc[:, i] for i, name in enumerate(frame.columns)})
    wrong = [name for i, name in enumerate(frame.columns) if not _is_numeric(frame.iloc[:, i])]
    if wrong:
        raise ValueError(
            f"Columns {wrong} of X are not numeric: drop them, or encode them (for example with "
            "OrdinalEncoder)."
        )
    frame = dense_frame(frame)
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


def require_rows(X, fewest):
    """Raise for a frame of fewer rows."""
    if len(X) < fewest:
        raise ValueError(
            f"Found array with {len(X)} sample(s) (shape={X.shape}) while a minimum of {fewest} "
            "is required."
        )


_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


def check_columns(X):
    """Refuse frames with names that repeat, and columns of times."""
    refuse_repeated_names(X)
    refuse_times({name: X[name] for name in X.columns})


def refuse_repeated_names(X):
    """Refuse frames with names that repeat."""
    repeated = X.columns[X.columns.duplicated()].unique().tolist()
    if repeated:
        raise ValueError(f"column names repeat: {repeated}. Rename or drop columns of X.")


def refuse_times(columns):
    """Refuse columns, by name, of dates, times of day or durations, whatever their type."""
    times = [name for name, column in columns.items() if _holds_times(column)]
    if times:
        raise TypeError(
            f"Columns {times} of X hold times: turn them into numbers (for example the days since "
            "the first, or the hour of the day) or drop them. Times of the rows of a series are no "
            "columns: make them the index (X.set_index), or pass them as timestamps; in a long "
            "table of several series name them in panel_columns=('series', 'time')."
        )


def holds_labels(column):
    """Whether a column of a frame holds labels, not numbers."""
    if column.dtype == "object":
        return any(isinstance(value, str) for value in column)
    if hasattr(column, "cat") or column.dtype.kind == "b" or column.dtype == "string":
        return True
    # Of pyarrow: text, and dictionaries, which are its categories.
    return hasattr(column.dtype, "pyarrow_dtype") and (
        column.dtype.type is str or hasattr(column.dtype.pyarrow_dtype, "value_type")
    )


def is_sparse(column):
    """Whether a column of a frame is of a sparse type."""
    return hasattr(column.dtype, "fill_value") and hasattr(column.dtype, "subtype")


def dense_frame(X):
    """A pandas frame without sparse columns; anything else as it is."""
    if not is_frame(X):
        return X
    sparse = [j for j in range(X.shape[1]) if is_sparse(X.iloc[:, j])]
    X = X.copy() if sparse else X
    for j in sparse:
        X.isetitem(j, X.iloc[:, j].sparse.to_dense())
    return X


def _holds_times(column):
    """Whether a column has a type of times, or values that are times."""
    if column.dtype == "object":
        return any(isinstance(value, _TIMES) for value in column)
    return column.dtype.kind in "mM"
