"""Frames of other libraries, read as pandas frames, and the way back.

Those of polars and pyarrow are read through narwhals. A DataArray of xarray has two dimensions, the
rows, such as times, and the columns; or three, those of series ahead, and is then a long frame.
"""

import numpy as np

_LIBRARIES = ("polars", "pyarrow")


def is_native(X):
    """Whether ``X`` is a frame of polars, a table of pyarrow or an array of xarray."""
    library = type(X).__module__.split(".")[0]
    if library == "xarray":
        return True
    two_dimensional = hasattr(X, "columns") and getattr(X, "shape", ())[1:] != ()
    return library in _LIBRARIES and two_dimensional and type(X).__name__ != "RecordBatch"


def as_pandas(X):
    """Frames of other libraries, alone or in a list, as pandas frames; the rest as it is."""
    if isinstance(X, (list, tuple)) and len(X) and all(map(is_native, X)):
        return [as_pandas(x) for x in X]
    if not is_native(X):
        _refuse_unread(X)
        return X
    import pandas as pd

    if _is_labelled_array(X):
        return _frame_of(X)
    frame = _narwhals().from_native(X, eager_only=True)
    return pd.DataFrame({name: _column(frame[name]) for name in frame.columns})


def native_of(X):
    """The frames of other libraries that were given, as a list, or None."""
    frames = list(X) if isinstance(X, (list, tuple)) else [X]
    return frames if frames and all(map(is_native, frames)) else None


def like_native(frame, given):
    """A complete pandas frame as one of the library and with the types of the given frame."""
    if _is_labelled_array(given):
        turned = _turned(given)
        kept = turned.isel({turned.dims[-1]: _labels(turned, -1).get_indexer(frame.columns)})
        return kept.copy(data=frame.to_numpy().reshape(kept.shape)).transpose(*given.dims)
    nw = _narwhals()
    given = nw.from_native(given, eager_only=True)
    types, library = given.schema, given.implementation
    first, *others = [
        nw.new_series(name, frame[name].tolist(), types.get(name), backend=library)
        for name in frame.columns
    ]
    # from_dict would take an enumeration for a category.
    return first.to_frame().with_columns(*others).to_native()


def is_labelled_array(X):
    """Whether ``X`` is a DataArray of xarray."""
    return type(X).__module__.split(".")[0] == "xarray" and hasattr(X, "dims")


def stacked(arrays, dimension, labels):
    """Arrays of xarray along a new first dimension with labels."""
    from xarray import concat

    return concat(arrays, dimension).assign_coords({dimension: list(labels)})


def from_columns(columns, given):
    """Columns of numbers as a frame of the library of the given one."""
    nw = _narwhals()
    library = nw.from_native(given, eager_only=True).implementation
    columns = {name: values.tolist() for name, values in columns.items()}
    return nw.from_dict(columns, backend=library).to_native()


def as_polars(frame):
    """A pandas frame as one of polars."""
    columns = {name: frame[name].tolist() for name in frame.columns}
    return _narwhals().from_dict(columns, backend="polars").to_native()


def _is_labelled_array(X):
    """Whether ``X`` is of xarray; raises unless it is a DataArray of two or three dimensions."""
    if type(X).__module__.split(".")[0] != "xarray":
        return False
    if not hasattr(X, "dims") or hasattr(X, "data_vars"):
        raise ValueError("X is a Dataset of xarray: pass X.to_array().T or X.to_dataframe().")
    if X.ndim not in (2, 3):
        raise ValueError(
            f"X is a DataArray of the dimensions {X.dims}: two, rows or times and columns, or "
            "three, series, times and columns, are read; stack or select the others."
        )
    return True


def _turned(X):
    """An array of xarray with its times ahead of its columns, and series ahead of both."""
    kinds = {dim: X[dim].dtype.kind if dim in X.coords else "" for dim in X.dims}
    times = [dim for dim in X.dims if kinds[dim] in ("m", "M")] or [
        d for d in X.dims if d == "time"
    ]
    time = times[0] if times else X.dims[-2]
    others = [dim for dim in X.dims if dim != time]
    return X.transpose(*others[:-1], time, others[-1])


def _labels(turned, axis):
    """Labels of one dimension, numbers where it has none."""
    import pandas as pd

    dim = turned.dims[axis]
    return turned.indexes[dim] if dim in turned.indexes else pd.RangeIndex(turned.sizes[dim])


def _frame_of(X):
    """A frame of the values; of three dimensions one in long form."""
    import pandas as pd

    turned = _turned(X)
    if X.ndim == 2:
        return turned.to_pandas()
    index = pd.MultiIndex.from_product([_labels(turned, 0), _labels(turned, 1)])
    values = turned.to_numpy().reshape(len(index), -1)
    return pd.DataFrame(values, index, _labels(turned, 2))


def _refuse_unread(X):
    """Raise for frames that are read lazily, in batches, or by a library not known here."""
    library, kind = type(X).__module__.split(".")[0], type(X).__name__
    if kind == "LazyFrame":
        raise TypeError("X is a LazyFrame, which holds no data yet: pass X.collect().")
    if kind == "RecordBatch":
        raise TypeError("X is a RecordBatch: pass a table, pyarrow.Table.from_batches([X]).")
    # Subclasses of pandas frames, such as those of geopandas, are read as these.
    if not hasattr(X, "iloc") and hasattr(X, "columns") and hasattr(X, "dtypes"):
        raise TypeError(
            f"X is a frame of {library}: pass one of pandas, polars or pyarrow, or an array."
        )


def _narwhals():
    try:
        import narwhals
    except ImportError as error:
        raise ImportError(
            "Frames of polars and pyarrow are read by narwhals: pip install narwhals, or pass a "
            "pandas frame."
        ) from error
    return narwhals


def _column(series):
    """One column as a pandas array of the same kind, which knows what is missing."""
    import pandas as pd

    dtype = series.dtype
    if dtype.is_temporal():
        return pd.Series(series.to_list())
    if dtype.is_float():
        return series.to_numpy()
    if dtype.is_integer():
        # Not through floats, which end at 2**53.
        missing = series.is_null().to_numpy()
        return pd.arrays.IntegerArray(np.array(series.fill_null(0).to_numpy()), missing)
    nw = _narwhals()
    if dtype == nw.Boolean:
        return pd.array(series.to_list(), dtype="boolean")
    if dtype == nw.Categorical or dtype == nw.Enum:
        return pd.Categorical(series.to_list(), getattr(dtype, "categories", None))
    return pd.Series(series.to_list(), dtype=object)
