"""Between the user's arrays and torch: devices, scales, time grids, state."""

from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import InvalidParameterError

_OUTLIER, _FENCE = 12.0, 50.0
# Fewer values than this between the outermost ones say nothing about the bulk.
_FEWEST = 8


def resolve_device(device):
    """Return the torch device of a ``device`` parameter; "auto" takes a GPU where there is one."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        # Gaussians need double precision, and results must come back.
        torch.empty(0, device=resolved, dtype=torch.float64).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InvalidParameterError(
            f"device={device!r} cannot be used on this machine ({str(error).splitlines()[0]}). "
            'Use device="auto" or "cpu".'
        ) from error
    return resolved


@contextmanager
def memory_advice(remedy):
    """Say what to do when the device runs out of memory."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise torch.cuda.OutOfMemoryError(f"{remedy} ({reason})") from error


@contextmanager
def infinity_named(X):
    """Say in which columns of X its infinity is, which scikit-learn does not."""
    try:
        yield
    except ValueError as error:
        columns = _infinite_columns(X) if "X contains infinity" in str(error) else []
        if not columns:
            raise
        raise ValueError(
            f"Input X contains infinity in the columns {columns}: correct these values, or mark "
            "them as missing (NaN) and impute them."
        ) from error


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


def positive_int(value, name):
    """Check a positive integer argument."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)


def column_moments(values):
    """Centre and scale of every column, neither ruled by a few impossible records.

    Values further from the rest than 50 standard deviations of the rest are pulled in to that
    distance, the rest being all but the outermost hundredth at both ends. Then, three times,
    values further than 12 standard deviations from the mean are pulled in.

    Parameters
    ----------
    values : float64 ndarray of shape (n_rows, n_features)
        NaN where missing; every column has at least one value.

    Returns
    -------
    mean, scale : ndarrays of shape (n_features,)
        ``scale`` is 0 for a column without spread.
    """
    fenced = _fenced(values)
    # Dividing by the largest value first keeps squares of 1e300 and of 1e-300 finite.
    largest = np.nanmax(np.abs(fenced), axis=0)
    unit = np.where(largest > 0, largest, 1.0)
    x = fenced / unit
    for _ in range(3):
        mean, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
        x = np.clip(x, mean - _OUTLIER * scale, mean + _OUTLIER * scale)
    tiny = 16 * np.finfo(float).eps * np.abs(mean)
    scale = np.where((scale <= tiny) | (scale * unit < np.finfo(float).tiny), 0.0, scale)
    constant = np.nanmin(values, axis=0) == np.nanmax(values, axis=0)
    mean = np.where(constant, np.nanmin(values, axis=0), mean * unit)
    return mean, np.where(constant, 0.0, scale * unit)


def _fenced(x):
    """Pull values far outside the bulk of their column in to its fence."""
    low, high = np.nanquantile(x, [0.01, 0.99], axis=0, method="closest_observation")
    n_inside = ((x > low) & (x < high)).sum(axis=0)
    inside = np.where((x > low) & (x < high) | (n_inside < _FEWEST), x, np.nan)
    largest = np.nanmax(np.abs(inside), axis=0)
    unit = np.where(largest > 0, largest, 1.0)
    centre, spread = np.nanmean(inside / unit, axis=0), np.nanstd(inside / unit, axis=0)
    with np.errstate(over="ignore"):
        reach = np.where((spread > 0) & (n_inside >= _FEWEST), _FENCE * spread, np.inf) * unit
        return np.clip(x, centre * unit - reach, centre * unit + reach)


def seconds(timestamps, n_rows, name="timestamps"):
    """Turn timestamps into float seconds; they must rise strictly.

    Parameters
    ----------
    timestamps : array-like of shape (n_rows,)
        Datetimes (time zones are converted to UTC) or numbers.
    n_rows : int
        Number of rows they belong to.
    name : str
        What to call them in messages.

    Returns
    -------
    times : float64 ndarray of shape (n_rows,)
        Seconds, or the numbers themselves.
    """
    timestamps = getattr(timestamps, "array", timestamps)
    if hasattr(timestamps, "to_timestamp"):
        timestamps = timestamps.to_timestamp()
    if getattr(timestamps, "tz", None) is not None:
        timestamps = timestamps.tz_convert("UTC").tz_localize(None)
    times = np.asarray(timestamps)
    if times.dtype.kind == "m":
        times = np.datetime64(0, "ns") + times
    if times.dtype.kind not in "Mifu":
        try:
            times = times.astype("datetime64[ns]")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} must be datetimes of one time zone or numbers, got dtype {times.dtype}."
            ) from error
    if times.shape != (n_rows,):
        raise ValueError(f"{name} has shape {times.shape}, but X has {n_rows} rows.")
    missing = np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times.astype(float))
    if missing.any():
        raise ValueError(
            f"{name} has a missing value at row {int(missing.argmax())}: drop the row."
        )
    if times.dtype.kind == "M":
        times = (times - times[:1]).astype("timedelta64[ns]").astype(np.int64) * 1e-9
    times = times.astype(float)
    steps = np.diff(times)
    if (steps < 0).any():
        row = int((steps < 0).argmax()) + 1
        raise ValueError(f"{name} goes back in time at row {row}: sort X by time first.")
    if (steps == 0).any():
        row = int((steps == 0).argmax()) + 1
        raise ValueError(
            f"{name} repeats a time at row {row}: aggregate or drop duplicated times first."
        )
    return times


def grid_slots(times, step, longest):
    """Place irregular times on a regular grid.

    Parameters
    ----------
    times : ndarray of shape (n_rows,)
        Strictly rising times.
    step : float
        Distance between the slots of the grid.
    longest : int
        Gaps longer than this many slots are shortened to it: no window spans them.

    Returns
    -------
    slots : int64 ndarray of shape (n_rows,)
        Strictly rising slot of each row, from 0.

    Raises
    ------
    ValueError
        If two rows fall into one slot.
    """
    nearest = np.rint((times - times[0]) / step)
    gaps = np.diff(nearest)
    if (gaps < 1).any():
        row = int((gaps < 1).argmax()) + 1
        raise ValueError(
            f"Rows {row - 1} and {row} are closer in time than half of the usual step of "
            f"{step:g}: resample X to a regular grid (for example frame.resample(...).mean())."
        )
    return np.concatenate([[0], np.cumsum(np.minimum(gaps, longest))]).astype(np.int64)


def grid_step(times):
    """Return the usual distance between times: the median, halved until no two rows collide."""
    step = float(np.median(np.diff(times)))
    for _ in range(4):
        if (np.diff(np.rint((times - times[0]) / step)) >= 1).all():
            break
        step /= 2
    return step


def to_numpy_state(module):
    """Return the weights of a module as numpy arrays, which every machine can unpickle."""
    return {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}


def load_numpy_state(module, state):
    """Put weights saved by :func:`to_numpy_state` into a module."""
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return module
