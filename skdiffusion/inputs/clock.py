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
    start : Timestamp or None
        The first row in its time zone, whose days may have 23 or 25 hours; None without a zone.
    """

    first: float = 0.0
    start: object = None

    @classmethod
    def of(cls, stamps, start=None):
        """The clock of rows by their stamps, which are those of the zone of ``start``."""
        if stamps.dtype.kind != "M" or not len(stamps):
            return cls()
        return cls(float(stamps[0].astype("datetime64[s]").astype(np.int64)), start)

    def __call__(self, times):
        """Seconds by the clock at ``times`` (n_rows,), seconds since the first row."""
        if self.start is None:
            return self.first + times
        import pandas as pd

        passed = pd.TimedeltaIndex(np.floor(times).astype(np.int64).astype("timedelta64[s]"))
        by_clock = (self.start.tz_convert("UTC") + passed).tz_convert(self.start.tz)
        moved = by_clock.tz_localize(None) - self.start.tz_localize(None) - passed
        return self.first + times + np.asarray(moved / pd.Timedelta(seconds=1))
