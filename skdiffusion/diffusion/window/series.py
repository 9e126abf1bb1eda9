"""Series cut into windows, and what overlapping windows say put together again.

A table row, a sample of a panel and a long series are all *series*: of 1, of L and of any number
of time steps. They are kept end to end in one array; a window is the number of its first row.
"""

from dataclasses import dataclass, replace

import torch


@dataclass
class WindowedSeries:
    """Series of standardised values, end to end, each at least one window long.

    Attributes
    ----------
    values : float32 tensor of shape (n_rows, n_features)
        0 where not observed.
    observed : bool tensor of shape (n_rows, n_features)
        Which values are known.
    wanted : bool tensor of shape (n_rows, n_features)
        Unobserved cells that are to be drawn; rows that only pad a short series have none.
    offsets : int64 tensor of shape (n_series + 1,)
        First row of every series, and the number of rows at the end.
    length : int
        Window length.
    time : float64 tensor of shape (n_rows,)
        Time of every row, for what comes back with the clock; its number where times are unknown.
    periods : tuple of float
        Periods with which something may come back, in the unit of the times.
    first : int64 tensor of shape (n_series,), optional
        For pieces of longer series, how many rows of the series stand before each.
    """

    values: torch.Tensor
    observed: torch.Tensor
    wanted: torch.Tensor
    offsets: torch.Tensor
    length: int
    time: torch.Tensor
    periods: tuple = ()
    first: torch.Tensor | None = None

    @classmethod
    def join(cls, series, length, times=None, periods=()):
        """Put series end to end, padding those shorter than a window.

        Parameters
        ----------
        series : list of (values, observed, wanted) triples
            Tensors of shape (n_times, n_features).
        length : int
            Window length.
        times : list of float64 tensors of shape (n_times,), optional
            Times of the rows of every series; by default their numbers.
        periods : tuple of float, default=()
            Periods with which something may come back.

        Returns
        -------
        joined : WindowedSeries
            On the CPU.
        """
        sizes = [max(len(values), length) for values, _, _ in series]
        offsets = torch.tensor([0] + sizes).cumsum(0)
        n_features = series[0][0].shape[1]
        joined = torch.zeros((int(offsets[-1]), n_features))
        observed, wanted = torch.zeros((2, *joined.shape), dtype=torch.bool)
        time = torch.zeros(len(joined), dtype=torch.float64)
        times = times or [torch.arange(len(x), dtype=torch.float64) for x, _, _ in series]
        for first, (x, seen, asked), at in zip(offsets.tolist(), series, times):
            rows = slice(first, first + len(x))
            joined[rows] = torch.where(seen, x, 0.0)
            observed[rows], wanted[rows], time[rows] = seen, asked, at
        return cls(joined, observed, wanted, offsets, length, time, periods)

    @classmethod
    def stack(cls, values, observed):
        """Take equally long samples, tensors of shape (n_samples, L, n_features), as series."""
        n_samples, length, _ = values.shape
        offsets = torch.arange(n_samples + 1, device=values.device) * length
        # Rows side by side in memory, whatever the order in which columns were chosen has left.
        values = torch.where(observed, values, 0.0).float().flatten(0, 1).contiguous()
        observed = observed.flatten(0, 1).contiguous()
        time = torch.arange(length, dtype=torch.float64, device=values.device).repeat(n_samples)
        return cls(values, observed, ~observed, offsets, length, time)

    def around(self, starts, margin):
        """Windows with ``margin`` rows on both sides as series of their own.

        Parameters
        ----------
        starts : int64 tensor of shape (B,)
            First rows of the windows.
        margin : int
            Rows to add on either side; where the series has none they are not observed.

        Returns
        -------
        apart : WindowedSeries
            Series of ``length + 2 * margin`` rows; window ``i`` begins ``margin`` rows into it.
        """
        starts = starts.to(self.values.device)
        reach = torch.arange(-margin, self.length + margin, device=starts.device)
        number, _, _ = self.place(starts)
        rows = starts[:, None] + reach
        inside = (rows >= self.offsets[number][:, None]) & (
            rows < self.offsets[number + 1][:, None]
        )
        rows = rows.clamp(0, len(self.values) - 1)
        observed = self.observed[rows] & inside[..., None]
        apart = WindowedSeries.stack(self.values[rows], observed)
        return replace(apart, length=self.length, time=self.time[rows.flatten()])

    def to(self, device):
        """Return the same series on another device."""
        names = ("values", "observed", "wanted", "offsets", "time")
        first = None if self.first is None else self.first.to(device)
        return replace(
            self, first=first, **{name: getattr(self, name).to(device) for name in names}
        )

    def place(self, rows):
        """Series number, row inside the series and length of the series, of rows."""
        number = torch.searchsorted(self.offsets, rows.contiguous(), right=True) - 1
        local, size = rows - self.offsets[number], self.offsets.diff()[number]
        if self.first is None:
            return number, local, size
        return number, local + self.first[number], size + self.first[number]

    def all_starts(self):
        """Every place where a window fits (int64 tensor)."""
        rows = torch.arange(len(self.values), device=self.values.device)
        _, local, size = self.place(rows)
        return rows[local + self.length <= size]

    def regular_starts(self, stride):
        """Windows ``stride`` rows apart that cover every row (int64 tensor)."""
        rows = self.all_starts()
        _, local, size = self.place(rows)
        return rows[(local % stride == 0) | (local + self.length == size)]

    def rows(self, starts):
        """Row numbers (B, L) of windows."""
        return starts[:, None] + torch.arange(self.length, device=starts.device)

    def address(self):
        """Series number and cell number inside its series, of every wanted cell."""
        row, feature = torch.nonzero(self.wanted, as_tuple=True)
        number, local, _ = self.place(row)
        return number, local * self.wanted.shape[1] + feature


def alike(sizes, fits):
    """Divide things into batches of like size, so that little of a batch is padding.

    Parameters
    ----------
    sizes : int64 tensor of shape (n,)
        Their sizes.
    fits : callable
        ``fits(count, smallest, largest)`` says whether a batch of so many may be one.

    Yields
    ------
    chosen : int64 tensor
        Numbers of those in a batch, the smallest first.
    """
    order = sizes.argsort(stable=True)
    ordered = sizes[order].tolist()
    i = 0
    while i < len(order):
        j = i + 1
        while j < len(order) and fits(j + 1 - i, ordered[i], ordered[j]):
            j += 1
        yield order[i:j]
        i = j


def taper(length):
    """Weights of the rows of a window in the average over overlapping windows.

    A cell is best known in the window where it has most neighbours on both sides.
    """
    place = torch.arange(length) + 0.5
    return (torch.minimum(place, length - place) / (length / 2)).square()


def nearest_observed(observed):
    """Rows of the observations about every cell in its column, which are its own if observed.

    Parameters
    ----------
    observed : bool tensor of shape (..., n_times, n_features)
        Which cells are observed.

    Returns
    -------
    last, following : int64 tensors of the same shape
        Up to the cell, -1 where there is none, and from it on, ``n_times`` where there is none.
    """
    n_times = observed.shape[-2]
    time = torch.arange(n_times, device=observed.device)[:, None]
    last = torch.where(observed, time, -1).cummax(-2).values
    following = torch.where(observed, time, n_times).flip(-2).cummin(-2).values.flip(-2)
    return last, following


def interpolate(values, observed):
    """Interpolate every column linearly in time, flat at the ends.

    Parameters
    ----------
    values : tensor of shape (..., n_times, n_features)
        Values; what stands at unobserved cells is not read.
    observed : bool tensor of the same shape
        Which cells are observed.

    Returns
    -------
    interpolated : tensor
        Completed values, 0 in a column without observations.
    before, after : tensors
        Steps to the last and to the next observation, infinite where there is none.
    """
    n_times = values.shape[-2]
    time = torch.arange(n_times, device=values.device)[:, None]
    last, following = nearest_observed(observed)
    before = torch.where(last >= 0, (time - last).to(values.dtype), torch.inf)
    after = torch.where(following < n_times, (following - time).to(values.dtype), torch.inf)
    left = values.gather(-2, last.clamp(min=0))
    right = values.gather(-2, following.clamp(max=n_times - 1))
    left, right = torch.where(last >= 0, left, right), torch.where(following < n_times, right, left)
    weight = torch.where(before + after == 0, 0.0, before / (before + after)).nan_to_num(0.5)
    filled = torch.where(
        torch.isinf(before) & torch.isinf(after), 0.0, left + weight * (right - left)
    )
    return torch.where(observed, values, filled), before, after
