"""Times of rows: time stamps as seconds, the regular grid behind them, the slot of each row."""

from dataclasses import replace

import numpy as np

from skdiffusion._warn import warn
from skdiffusion.inputs.frames import has_times

# The day, the week and the year, in seconds, and how often a series must see them.
_PERIODS = ((86_400.0, 3), (604_800.0, 4), (31_556_952.0, 2))


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


def time_grid(data, timestamps, step, longest):
    """Place the rows of series on a regular time grid, if times are known.

    Parameters
    ----------
    data : SeriesInput
        The series.
    timestamps : array-like, list of array-likes or None
        Times of the rows; by default those of a DatetimeIndex.
    step : float or None
        Step of the grid learnt in ``fit``.
    longest : int
        Longest gap kept, in steps.

    Returns
    -------
    data : SeriesInput
        With slots and step.
    """
    if data.kind == "table":
        if timestamps is not None:
            raise ValueError(
                "timestamps need an order in time, but the rows of a 2-D X are independent "
                "samples: set window_length to treat X as one long series."
            )
        return data
    times = _times(data, timestamps)
    if times is None:
        if step is not None and data.kind == "series":
            warn(
                "X has no times, but had them in fit: its rows are taken as one time step apart; "
                "pass timestamps= or a DatetimeIndex as in fit.",
            )
        return data
    step = step or min((grid_step(t) for t in times if len(t) > 1), default=1.0)
    slots = [grid_slots(t, step, longest) for t in times]
    if all(slot[-1] == len(slot) - 1 for slot in slots):
        return replace(data, step=step, times=times)
    if data.kind == "panel":
        raise ValueError(
            "The time steps of a 3-D X must be equally spaced: give the samples as a list of "
            "2-D arrays with timestamps and set window_length."
        )
    return replace(data, slots=slots, step=step, times=times)


def possible_periods(data, length):
    """Periods that series may have a season of, in seconds, or in rows where times are unknown.

    Parameters
    ----------
    data : SeriesInput
        The series on their grid.
    length : int
        Rows of a window, which is taken for a period where times are unknown.

    Returns
    -------
    periods : tuple of float
        Those that the longest series sees often enough, in four rows or more.
    """
    if data.times is None:
        return (float(length),) if 4 <= length <= max(data.sizes) / 3 else ()
    span = max(times[-1] - times[0] for times in data.times)
    return tuple(period for period, n in _PERIODS if n * period <= span and period >= 4 * data.step)


def _times(data, timestamps):
    """Seconds of the rows of every sample, or None if rows are all that is known."""
    name = "timestamps"
    if timestamps is None and data.frames is not None and all(map(has_times, data.frames)):
        name, timestamps = "The index of X", [frame.index for frame in data.frames]
        timestamps = timestamps if data.form == "list" else timestamps[0]
    if timestamps is None:
        return None
    sizes = [len(x) for x in data.rows]
    if data.form != "list":
        # All samples of a 3-D array share their times.
        return [seconds(timestamps, sizes[0], name)] * len(sizes)
    if len(timestamps) != len(sizes):
        raise ValueError(f"timestamps has {len(timestamps)} entries for {len(sizes)} series of X.")
    return [seconds(t, n, f"{name}[{i}]") for i, (t, n) in enumerate(zip(timestamps, sizes))]
