"""Grids of the calendar: months of whatever length, days of work."""

import numpy as np

# Days that the first or last working day of a month moves by at most, and those of a weekend.
_WEEKEND = 2


def same_day(day, n_months):
    """Days so many months after one, the last of a month after the last of one."""
    month = day.astype("datetime64[M]")
    months = month + n_months
    length = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")
    since = day - month.astype("datetime64[D]")
    is_last = (day + 1).astype("datetime64[M]") != month
    most = length - np.timedelta64(1, "D")
    return months.astype("datetime64[D]") + (most if is_last else np.minimum(since, most))


def calendar_unit(stamps):
    """Unit that the dates of all series count in."""
    if not all(s.dtype.kind == "M" for s in stamps) or sum(map(len, stamps)) < 3:
        return "second"
    stamps = [s for s in stamps if len(s) > 1]
    if not stamps:
        return "second"
    if all(map(_is_monthly, stamps)):
        return "month"
    # Some weekend must have been skipped for its absence to mean something.
    busy = all(map(_is_weekdays, stamps)) and max(map(_weekends, stamps)) >= 2
    return "business day" if busy else "second"


def _is_monthly(stamps):
    """Whether dates are one of a month at most, always about the same day of it."""
    if (np.diff(_months(stamps)) < 1).any():
        return False
    days = stamps.astype("datetime64[D]")
    since = (days - stamps.astype("datetime64[M]")).astype(int)
    left = ((stamps.astype("datetime64[M]") + 1).astype("datetime64[D]") - days).astype(int)
    return min(np.ptp(since), np.ptp(left)) <= _WEEKEND


def _is_weekdays(stamps):
    """Whether dates are one a day, mostly on consecutive ones, and never on a weekend."""
    days = stamps.astype("datetime64[D]")
    gaps = np.diff(days).astype(int)
    same_hour = (stamps - days == (stamps - days)[:1]).all()
    return bool(same_hour and np.is_busday(days).all() and np.median(gaps) == 1)


def _weekends(stamps):
    days = stamps.astype("datetime64[D]")
    return int((np.diff(days).astype(int) == 1 + _WEEKEND).sum())


def _months(stamps):
    return stamps.astype("datetime64[M]").astype(np.int64)


def _business_days(stamps):
    days = stamps.astype("datetime64[D]")
    return np.busday_count(days[0], days)


#: What numbers the rows of a calendar, by its unit.
COUNTS = {"month": _months, "business day": _business_days}
