"""Frames of polars and pyarrow, read through narwhals as pandas frames, and the way back."""

import numpy as np

_LIBRARIES = ("polars", "pyarrow")


def is_native(X):
    """Whether ``X`` is a frame of polars or a table of pyarrow."""
    library = type(X).__module__.split(".")[0]
    return library in _LIBRARIES and hasattr(X, "columns") and getattr(X, "shape", ())[1:] != ()


def as_pandas(X):
    """Frames of other libraries, alone or in a list, as pandas frames; the rest as it is."""
    if isinstance(X, (list, tuple)) and len(X) and all(map(is_native, X)):
        return [as_pandas(x) for x in X]
    if not is_native(X):
        return X
    import pandas as pd

    frame = _narwhals().from_native(X, eager_only=True)
    return pd.DataFrame({name: _column(frame[name]) for name in frame.columns})


def native_of(X):
    """The frames of other libraries that were given, as a list, or None."""
    frames = list(X) if isinstance(X, (list, tuple)) else [X]
    return frames if frames and all(map(is_native, frames)) else None


def like_native(frame, given):
    """A complete pandas frame as one of the library and with the types of the given frame."""
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
