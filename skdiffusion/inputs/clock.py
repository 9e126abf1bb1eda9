"""The clock that people live by: hours of the day where winter and summer differ by one."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Clock:
    """What turns seconds since the first row into seconds of one clock for all series and calls.

    Attributes
    ----------
    first : float
        What the clock says at the first row, in seconds from 1970; 0 for numbers.
    zone : tzinfo or None
        The time zone, whose days may have 23 or 25 hours.
    """

    first: float = 0.0
    zone: object = None

    @classmethod
    def of(cls, stamps, zone=None):
        """The clock of rows by their stamps, which are those of the zone, if there is one."""
        if stamps.dtype.kind != "M" or not len(stamps):
            return cls()
        return cls(float(stamps[0].astype("datetime64[s]").astype(np.int64)), zone)

    def __call__(self, times):
        """Seconds by the clock at ``times`` (n_rows,), seconds since the first row."""
        if self.zone is None:
            return self.first + times
        import pandas as pd

        shown = pd.Timestamp(self.first, unit="s")
        # Of an hour that comes twice the first one is meant.
        first = shown.tz_localize(self.zone, ambiguous=True).tz_convert("UTC")
        whole = np.floor(times).astype(np.int64).astype("timedelta64[s]")
        by_clock = (first + pd.TimedeltaIndex(whole)).tz_convert(self.zone).tz_localize(None)
        moved = (by_clock - shown) - pd.TimedeltaIndex(whole)
        return self.first + times + np.asarray(moved / pd.Timedelta(seconds=1))
