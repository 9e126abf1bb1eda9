"""Pieces of series as a batch, and what of them is hidden to judge by."""

from dataclasses import dataclass

import torch

# Rows of a piece that EM takes as a series of its own: pieces are a batch, and what a piece loses
# at its ends is some correlation times, a fiftieth of it.
PIECE = 256
# Share of cells hidden to judge by, half of them in runs up to a day of hourly rows.
_HIDDEN_SHARE, _RUN = 0.1, 24
# A smaller share of missing cells does not say what gaps are like.
_HARDLY = 0.02
# Of more pieces so many are taken, evenly spread: EM uses fewer (see _CELLS).
_MOST_PIECES = 1024


@dataclass
class Pieces:
    """Pieces of series as a batch; the shorter ones are padded with rows that do not count.

    Attributes
    ----------
    values : float64 tensor of shape (B, T, K)
        0 where unobserved.
    observed : bool tensor of shape (B, T, K)
        What is known.
    real : bool tensor of shape (B, T)
        False for padding.
    """

    values: torch.Tensor
    observed: torch.Tensor
    real: torch.Tensor

    @classmethod
    def cut(cls, values, observed, offsets, size=PIECE):
        """Cut series that lie end to end, series ``i`` from row ``offsets[i]``, into pieces."""
        spans = [
            (first, min(first + size, end))
            for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist())
            for first in range(start, end, size)
        ]
        spans = spans[:: -(-len(spans) // _MOST_PIECES)]
        longest = max(end - first for first, end in spans)
        rows = torch.tensor([first for first, _ in spans])[:, None] + torch.arange(longest)
        real = rows < torch.tensor([end for _, end in spans])[:, None]
        rows = rows.clamp(max=len(values) - 1)
        seen = observed[rows] & real[..., None]
        return cls(torch.where(seen, values[rows].double(), 0.0), seen, real)

    def some(self, n, generator):
        """At most ``n`` pieces, drawn without replacement."""
        if len(self.values) <= n:
            return self
        return self._of(torch.randperm(len(self.values), generator=generator)[:n].sort().values)

    def first(self, n):
        """The first ``n`` pieces."""
        return self._of(slice(n))

    def without(self, hidden):
        """The same pieces, some of whose cells are missing as well."""
        return Pieces(self.values.masked_fill(hidden, 0.0), self.observed & ~hidden, self.real)

    def _of(self, chosen):
        return Pieces(self.values[chosen], self.observed[chosen], self.real[chosen])


def hide(observed, generator):
    """Cells to keep from the fit: half scattered, half in runs of a column."""
    n_times = observed.shape[1]
    scattered = torch.rand(observed.shape, generator=generator) < _HIDDEN_SHARE / 2
    length = min(_RUN, max(1, n_times // 4))
    starts = torch.rand(observed.shape, generator=generator) < _HIDDEN_SHARE / 2 / length
    return observed & (scattered | _runs(starts, length))


def _runs(begins, length):
    """Cells (B, T, K) within so many rows from a begin in their column."""
    count = torch.nn.functional.pad(begins.double().cumsum(1), (0, 0, length, 0))
    return count[:, length:] > count[:, :-length]


def has_gaps(observed, real):
    """Whether enough is missing to say what gaps are like."""
    return _share_missing(observed, real) > _HARDLY


def _share_missing(observed, real):
    """Share of the cells that are missing."""
    missing = int((~observed & real[..., None]).sum())
    return missing / (int(real.sum()) * observed.shape[2])


def hide_as_missing(observed, real, share, generator):
    """Cells to keep from the fit: the gaps of other rows, as long and in as many columns at once.

    Where next to nothing is missing, cells as of :func:`hide` and runs of whole rows.

    Parameters
    ----------
    observed : bool tensor of shape (B, T, K)
        What is known of pieces of series.
    real : bool tensor of shape (B, T)
        False for padding.
    share : float
        Share of the observed cells to hide, about.
    generator : torch.Generator
        Source of the choice.

    Returns
    -------
    hidden : bool tensor of shape (B, T, K)
        A subset of what is observed.
    """
    (n, n_times, _), part = observed.shape, _share_missing(observed, real)
    if part <= _HARDLY:
        length = min(_RUN, max(1, n_times // 4))
        begins = torch.rand((n, n_times), generator=generator) < share / 2 / length
        return hide(observed, generator) | (observed & _runs(begins[..., None], length))
    missing = ~observed & real[..., None]
    source = torch.randint(n, (n,), generator=generator)
    shift = torch.randint(n_times, (n,), generator=generator)
    row = torch.arange(n_times)
    gaps = missing[source[:, None], (row - shift[:, None]) % n_times]
    # Gaps that begin in a row are hidden together or not at all.
    begins = gaps & ~torch.nn.functional.pad(gaps[:, :-1], (0, 0, 1, 0))
    begun = torch.where(begins, row[:, None], 0).cummax(1).values
    kept = torch.rand((n, n_times), generator=generator) < share / part
    return observed & gaps & kept.gather(1, begun.flatten(1)).view_as(gaps)
