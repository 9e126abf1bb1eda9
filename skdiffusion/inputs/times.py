"""Times of rows: time stamps as seconds, the regular grid behind them, the slot of each row."""

from dataclasses import dataclass, replace

import numpy as np

from skdiffusion._warn import warn
from skdiffusion.inputs.calendar import COUNTS, calendar_unit, same_day
from skdiffusion.inputs.clock import Clock
from skdiffusion.inputs.frames import has_times, without_zones

# Slots that are kept of a gap without rows: over more, a state space forgets what came before.
_LONGEST_GAP = 1000
_DAY = 86_400.0
# The day, the week and the year, in seconds, and how often a series must see them.
_PERIODS = ((_DAY, 3), (604_800.0, 4), (31_556_952.0, 2))
# Mean lengths of the units of grids, in seconds: a year of 365.2425 days; the other is unknown.
_SECONDS = {"second": 1.0, "month": 2_629_746.0, "business day": _DAY, "number": 1.0}
# A common step finer than this share of the usual one is the resolution of a clock, no step.
_FINEST = 16
# Halvings of the usual step before times are taken as events; a sixteenth of it as above.
_HALVINGS = 4
# Share of the rows that may take the next free slot: one odd pair of visits must not make the grid
# of all patients eight times as fine.
_COLLIDE = 0.02
# Days within which 64-bit nanoseconds do not wrap around (292 years).
_NANOSECONDS_HOLD = 100_000


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
    times = as_stamps(timestamps, name)
    if times.shape != (n_rows,):
        raise ValueError(f"{name} has shape {times.shape}, but X has {n_rows} rows.")
    missing = np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times.astype(float))
    if missing.any():
        raise ValueError(
            f"{name} has a missing value at row {int(missing.argmax())}: drop the row."
        )
    if times.dtype.kind == "M":
        times = _elapsed(times)
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


def as_stamps(timestamps, name, zone="UTC"):
    """Timestamps as an array of datetime64 or numbers; of a zone in UTC, or by its own clock."""
    timestamps = getattr(timestamps, "array", timestamps)
    if hasattr(timestamps, "to_timestamp"):
        timestamps = timestamps.to_timestamp()
    if getattr(timestamps, "tz", None) is not None:
        timestamps = timestamps.tz_convert(zone) if zone else timestamps
        timestamps = timestamps.tz_localize(None)
    times = np.asarray(timestamps)
    if times.dtype.kind == "O":
        times = without_zones(times, name)
    if times.dtype.kind == "m":
        times = np.datetime64(0, np.datetime_data(times.dtype)[0]) + times
    if times.dtype.kind not in "Mifu":
        try:
            # Nanoseconds would wrap around beyond the year 2262.
            times = times.astype("datetime64[us]")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} must be datetimes of one time zone or numbers, got dtype {times.dtype}."
            ) from error
    return times


def _elapsed(stamps):
    """Seconds since the first of datetimes of any unit."""
    if np.datetime_data(stamps.dtype)[0] in "YM":
        stamps = stamps.astype("datetime64[D]")
    elapsed = stamps - stamps[:1]
    if len(elapsed) and np.abs(elapsed / np.timedelta64(1, "D")).max() > _NANOSECONDS_HOLD:
        return elapsed / np.timedelta64(1, "s")
    return elapsed.astype("timedelta64[ns]").astype(np.int64) * 1e-9


@dataclass(frozen=True)
class TimeGrid:
    """The regular grid behind the rows of series.

    Attributes
    ----------
    unit : {"second", "month", "business day", "number"}
        What it counts: seconds, calendar months of whatever length, days from Monday to Friday,
        or the numbers of an index, whose unit is not known.
    step : float
        Distance of two slots in this unit.
    """

    unit: str
    step: float

    @property
    def seconds(self):
        """Mean length of a step in seconds; for numbers, in their own unit."""
        return self.step * _SECONDS[self.unit]

    @classmethod
    def learn(cls, stamps, times, numbered):
        """Find the grid of several series.

        Parameters
        ----------
        stamps : list of ndarrays
            Datetimes by the clock of their zone, or numbers.
        times : list of ndarrays
            The same as seconds or numbers.
        numbered : bool
            Whether they are numbers of an index.
        """
        unit = "number" if numbered else calendar_unit(stamps)
        if unit in COUNTS:
            ticks = [COUNTS[unit](s) for s in stamps]
            return cls(unit, float(np.gcd.reduce(np.concatenate([np.diff(t) for t in ticks]))))
        return cls(unit, common_step(times))

    def slots(self, stamps, times, longest):
        """Slot of every row of a series, from 0 and strictly rising.

        Rows that share a slot take the next free ones.

        Parameters
        ----------
        stamps : ndarray of shape (n_rows,)
            Datetimes by the clock of their zone, or numbers.
        times : ndarray of shape (n_rows,)
            The same as seconds or numbers.
        longest : int
            Gaps longer than this many slots are shortened to it: no window spans them.

        Raises
        ------
        ValueError
            If rows are so close in time that they would be moved by more than ``longest`` slots.
        """
        ticks = COUNTS[self.unit](stamps) if self.unit in COUNTS else times
        nearest = np.rint((ticks - ticks[0]) / self.step)
        free = np.maximum.accumulate(nearest - np.arange(len(nearest))) + np.arange(len(nearest))
        if (free - nearest).max() > longest:
            row = int((np.diff(nearest) < 1).argmax()) + 1
            raise ValueError(
                f"Rows {row - 1} and {row} are closer in time than half of the usual step of "
                f"{self.step:g} {self.unit}s, and so are many that follow: resample X to the "
                "steps of fit (for example frame.resample(...).mean()) or fit again."
            )
        gaps = np.minimum(np.diff(free), max(longest, _LONGEST_GAP))
        return np.concatenate([[0], np.cumsum(gaps)]).astype(np.int64)

    def ahead(self, first, elapsed, n_steps):
        """Seconds from a row to those that follow it.

        Parameters
        ----------
        first : float
            First row of the series, in seconds from 1970 by the clock of its zone.
        elapsed : float
            Seconds from there to the row.
        n_steps : int
            Number of rows that follow.

        Returns
        -------
        ahead : float64 ndarray of shape (n_steps,)
            Months and days of work have the lengths that the calendar gives them.
        """
        steps = self.step * np.arange(1, n_steps + 1)
        if self.unit not in COUNTS:
            return steps * _SECONDS[self.unit]
        # Rows of a calendar have one time of day; an hour of summer time must not make it the day
        # before.
        day = np.datetime64(round((first - first % _DAY + elapsed) / _DAY), "D")
        counted = steps.round().astype(int)
        if self.unit == "business day":
            days = np.busday_offset(day, counted, roll="backward")
        else:
            days = same_day(day, counted)
        return (days - day).astype("timedelta64[s]").astype(float)


def common_step(times):
    """One step for several series: the greatest that all gaps are multiples of.

    Where there is none, as for times that jitter, the median gap, halved until hardly any two rows
    collide; where a few halves do not do, as for events, half of the median gap.

    Parameters
    ----------
    times : list of ndarrays
        Strictly rising times.

    Returns
    -------
    step : float
        The step.
    """
    gaps = np.concatenate([np.diff(t) for t in times])
    if not len(gaps):
        return 1.0
    step = usual = float(np.median(gaps))
    if (common := _greatest_divisor(gaps, usual)) is not None:
        return common
    for _ in range(_HALVINGS):
        collide = [np.diff(np.rint((t - t[0]) / step)) < 1 for t in times]
        if np.concatenate(collide).mean() <= _COLLIDE:
            return step
        step /= 2
    return usual / 2


def _greatest_divisor(gaps, usual):
    """Greatest number that all gaps are multiples of, None where it is much below the usual."""
    divisor, tolerance = usual, 1e-6 * usual
    for gap in np.unique(gaps):
        a, b = gap, divisor
        while b > tolerance:
            a, b = b, abs(a - b * np.rint(a / b))
        divisor = a
        if divisor < usual / _FINEST:
            return None
    # Euclid's steps add up their rounding, which would move the last of many rows.
    return usual / np.rint(usual / divisor) if divisor < (1 - 1e-9) * usual else usual


def time_grid(data, timestamps, grid, longest):
    """Place the rows of series on a regular time grid, if times are known.

    Parameters
    ----------
    data : SeriesInput
        The series.
    timestamps : array-like, list of array-likes or None
        Times of the rows; by default those of a DatetimeIndex.
    grid : TimeGrid or None
        The grid learnt in ``fit``.
    longest : int
        Longest gap kept, in steps.

    Returns
    -------
    data : SeriesInput
        With slots and grid.
    """
    if data.kind == "table":
        if timestamps is not None:
            raise ValueError(
                "timestamps need an order in time, but the rows of a 2-D X are independent "
                "samples: set window_length to treat X as one long series."
            )
        return data
    given = _given_times(data, timestamps, grid)
    if given is None:
        if grid is not None and data.kind == "series":
            warn(
                "X has no times, but had them in fit: its rows are taken as one time step apart; "
                "pass timestamps= or a DatetimeIndex as in fit.",
            )
        return data
    stamps, times, numbered, starts = given
    if grid is None:
        grid = TimeGrid.learn(stamps, times, numbered)
    if grid.unit in COUNTS and any(s.dtype.kind != "M" for s in stamps):
        raise ValueError(f"The times of X are numbers, but fit has seen dates, by {grid.unit}s.")
    slots = [grid.slots(s, t, longest) for s, t in zip(stamps, times)]
    data = replace(data, grid=grid, times=times, clocks=list(map(Clock.of, stamps, starts)))
    if all(slot[-1] == len(slot) - 1 for slot in slots):
        return data
    if data.kind == "panel":
        raise ValueError(
            "The time steps of a 3-D X must be equally spaced: give the samples as a list of "
            "2-D arrays with timestamps and set window_length."
        )
    return replace(data, slots=slots)


def possible_periods(data, length):
    """Periods that series may have a season of, in seconds or in the unit of an index of numbers.

    Rows without times have none: nothing says that two series start at the same hour.

    Parameters
    ----------
    data : SeriesInput
        The series on their grid.
    length : int
        Rows of a window, which is taken for a period where the times are numbers.

    Returns
    -------
    periods : tuple of float
        Those that the longest series sees often enough, in four rows or more.
    """
    if data.times is None:
        return ()
    if data.grid.unit == "number":
        return (length * data.grid.step,) if 4 <= length <= max(data.sizes) / 3 else ()
    # Two years of months are two years, though the last one begins a month before they end, and
    # whatever the lengths of the months.
    span = max(times[-1] - times[0] for times in data.times) + 1.5 * data.grid.seconds
    return tuple(
        period for period, n in _PERIODS if n * period <= span and period >= 4 * data.grid.seconds
    )


def _given_times(data, timestamps, grid):
    """Stamps and seconds of the rows of every sample, whether they are the numbers of an index,
    and its first time in a time zone; None if rows are all that is known.
    """
    name, numbered = "timestamps", False
    if timestamps is None and data.frames is not None:
        name, timestamps = "The index of X", [frame.index for frame in data.frames]
        numbered = _is_numbered(data, grid)
        if not (numbered or all(map(has_times, data.frames))):
            return None
        timestamps = timestamps if data.form in ("list", "long") else timestamps[0]
    elif timestamps is not None and data.form == "long":
        stamps = as_stamps(timestamps, name, None)
        if len(stamps) != len(data.panel.frame):
            raise ValueError(
                f"timestamps has shape {stamps.shape}, but X has {len(data.panel.frame)} rows."
            )
        timestamps = [stamps[rows] for rows in data.panel.rows]
    if timestamps is None:
        return None
    sizes = [len(x) for x in data.rows]
    if data.form not in ("list", "long"):
        # All samples of a 3-D array share their times.
        times = [seconds(timestamps, sizes[0], name)] * len(sizes)
        stamps = [as_stamps(timestamps, name, None)] * len(sizes)
        return stamps, times, numbered, [_start(timestamps)] * len(sizes)
    if len(timestamps) != len(sizes):
        raise ValueError(f"timestamps has {len(timestamps)} entries for {len(sizes)} series of X.")
    of = range(len(sizes)) if data.panel is None else data.panel.names
    names = [f"{name}[{label!r}]" for label in of]
    times = [seconds(*each) for each in zip(timestamps, sizes, names)]
    stamps = [as_stamps(t, name, None) for t in timestamps]
    return stamps, times, numbered, list(map(_start, timestamps))


def _start(timestamps):
    """The first of timestamps that have a time zone; None for others."""
    timestamps = getattr(timestamps, "array", timestamps)
    has_zone = getattr(timestamps, "tz", None) is not None and len(timestamps)
    return timestamps[0] if has_zone else None


def _is_numbered(data, grid):
    """Whether the index of every frame of a list holds times as numbers, not numbers of rows."""
    indexes = [frame.index for frame in data.frames]
    if data.form not in ("list", "long") or any(index.nlevels > 1 for index in indexes):
        return False
    if any(index.dtype.kind not in "iuf" for index in indexes):
        return False
    if grid is not None:
        return grid.unit == "number"
    counted = all((np.diff(index.to_numpy()) == 1).all() for index in indexes)
    rising = data.form == "long" or all(index.is_monotonic_increasing for index in indexes)
    return not counted and rising
