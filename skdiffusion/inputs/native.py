"""Frames of other libraries, read as pandas frames, and the way back.

Those of polars and pyarrow are read through narwhals; a DataArray of xarray has two dimensions, the
rows, such as times, and the columns.
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
        return _turned(X).to_pandas()
    frame = _narwhals().from_native(X, eager_only=True)
    return pd.DataFrame({name: _column(frame[name]) for name in frame.columns})


def native_of(X):
    """The frames of other libraries that were given, as a list, or None."""
    frames = list(X) if isinstance(X, (list, tuple)) else [X]
    return frames if frames and all(map(is_native, frames)) else None


def like_native(frame, given):
    """A complete pandas frame as one of the library and with the types of the given frame."""
    if _is_labelled_array(given):
        kept = _turned(given).isel({_turned(given).dims[1]: _places(frame, given)})
        return kept.copy(data=frame.to_numpy()).transpose(*given.dims)
    nw = _narwhals()
    given = nw.from_native(given, eager_only=True)
    types, library = given.schema, given.implementation
    first, *others = [
        nw.new_series(name, frame[name].tolist(), types.get(name), backend=library)
        for name in frame.columns
    ]
    # from_dict would take an enumeration for a category.
    return first.to_frame().with_columns(*others).to_native()


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
    """Whether ``X`` is of xarray; raises unless it is a DataArray of two dimensions."""
    if type(X).__module__.split(".")[0] != "xarray":
        return False
    if not hasattr(X, "dims") or hasattr(X, "data_vars"):
        raise ValueError("X is a Dataset of xarray: pass X.to_array().T or X.to_dataframe().")
    if X.ndim != 2:
        raise ValueError(
            f"X is a DataArray of the dimensions {X.dims}: one of two dimensions, rows or times "
            "and columns, is read; pass a list of such for several series, or X.to_numpy()."
        )
    return True


def _turned(X):
    """An array of xarray with its times, if only its second dimension has some, first."""
    kinds = [X[dim].dtype.kind if dim in X.coords else "" for dim in X.dims]
    return X.T if kinds[1] in "mM" and kinds[1] and kinds[0] not in ("m", "M") else X


def _places(frame, given):
    """Places of the columns of a frame among those of an array of xarray."""
    return _turned(given).to_pandas().columns.get_indexer(frame.columns)


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
