"""A state space as the base of an imputer: what it says of the missing cells of series."""

import itertools
from dataclasses import dataclass, fields, replace

import torch

from skdiffusion.diffusion.statespace.kalman import StateSpace
from skdiffusion.diffusion.statespace.profile import Profile
from skdiffusion.diffusion.statespace.season import Season
from skdiffusion.diffusion.statespace.shape import Shape
from skdiffusion.diffusion.statespace.smoother import (
    draw_filtered,
    draw_states,
    smooth,
    window_covariance,
)
from skdiffusion.diffusion.window.series import alike

# Numbers in one array of covariances that are worked on together: 128 MB of float64.
_NUMBERS = 2**24
# Noises of a row, told apart.
_STATE, _END_STATE, _OWN_NOISE, _SEEN_NOISE = 0, 1, 2, 3
# Rows whose noise is made in one call.
_ROWS_AHEAD = 64
# A series is worked on in pieces of so many rows, side by side, each with so many more on both
# ends, after which nothing is left of where it began: filter, smoother and the draws backwards
# (whose noise belongs to a row, not to a piece) forget exponentially.
_PIECE, _FORGOTTEN = 2048, 256
# The same where levels and seasons move slowly: what a thousand rows ago tells is not nothing.
_FORGOTTEN_LEVELS = 4096


@dataclass
class SmoothedSeries:
    """Series and what the smoother says of them, all rows end to end.

    Attributes
    ----------
    values : float32 tensor of shape (n_rows, K)
        0 where not observed.
    observed : bool tensor of shape (n_rows, K)
        Which values are known.
    mean, sd : float32 tensors of shape (n_rows, K)
        Of every cell given all that is observed of its series.
    covariance, gain : float32 tensors of shape (n_rows, n, n) or None
        As in :class:`~skdiffusion.diffusion.statespace.smoother.Smoothed`.
    """

    values: torch.Tensor
    observed: torch.Tensor
    mean: torch.Tensor
    sd: torch.Tensor
    covariance: torch.Tensor
    gain: torch.Tensor


@dataclass(frozen=True)
class SeriesGaussian:
    """Gaussian over all cells of series of any length.

    Attributes
    ----------
    model : StateSpace
        Its parameters.
    shape : Shape
        Shape of the errors, which the draws have.
    season : Season
        Means that come back with the clock; the model says what is left of the values.
    profile : Profile
        Means by the time in a panel, which all of its series have.
    """

    model: StateSpace
    shape: Shape
    season: Season
    profile: Profile

    #: Draws need no solver; rows around a window say something of it; the smoother's answers for
    #: a batch of windows are dear enough to be shown several times in training.
    direct, causal, margin, repeats = True, True, 8, 4

    @property
    def n_features(self):
        """Number of columns."""
        return len(self.model.loadings)

    @property
    def forgotten(self):
        """Rows after which nothing is left of where a piece of a series began."""
        return _FORGOTTEN if self.model.n_states == self.n_features else _FORGOTTEN_LEVELS

    def __deepcopy__(self, memo):
        """Share the tensors: they are never changed."""
        return self

    def map(self, function):
        """Apply a function to every tensor; everything stays float64."""
        keep = lambda x: function(x).double()  # noqa: E731
        return SeriesGaussian(*(getattr(self, f.name).map(keep) for f in fields(self)))

    def arrays(self):
        """Return a dict of tensors from which :meth:`from_arrays` rebuilds the Gaussian."""
        model = {f.name: getattr(self.model, f.name) for f in fields(StateSpace)}
        season = {"periods": self.season.periods, "coefficients": self.season.coefficients}
        shape = {f.name: getattr(self.shape, f.name) for f in fields(Shape)}
        profile = {f.name: getattr(self.profile, f.name) for f in fields(Profile)}
        return {**model, **shape, **season, **profile}

    @classmethod
    def from_arrays(cls, periods, coefficients, **arrays):
        """Rebuild what :meth:`arrays` took apart; early files have no profile."""
        shape = Shape(**{f.name: arrays.pop(f.name) for f in fields(Shape)})
        profile = [arrays.pop(f.name, None) for f in fields(Profile)]
        profile = Profile.none(len(shape.heights)) if profile[0] is None else Profile(*profile)
        return cls(StateSpace(**arrays), shape, Season(periods, coefficients), profile)

    def means(self, time):
        """Means (..., K) of the columns at times (...), whatever is observed."""
        season = self.season(time)
        return season + self.profile(time) if len(self.profile.times) else season

    def plain(self):
        """The same with normal errors."""
        shape = Shape.normal(self.n_features)
        return replace(self, shape=shape.map(lambda x: x.to(self.model.noise.device)))

    def prepare(self, series):
        """Smooth series, each given all its observations.

        Parameters
        ----------
        series : WindowedSeries
            The series.

        Returns
        -------
        smoothed : SmoothedSeries
            Moments of every cell.
        """
        n, values = self.model.transition.shape[1], series.values
        mean, sd = torch.zeros_like(values), torch.zeros_like(values)
        covariance = values.new_zeros((len(values), n, n))
        gain = torch.zeros_like(covariance)
        for to, kept, smoothed, *moments in self._smoothed(series):
            mean[to], sd[to] = moments
            covariance[to] = smoothed.covariance[kept].float()
            gain[to] = smoothed.gain[kept].float()
        return SmoothedSeries(values, series.observed, mean, sd, covariance, gain)

    def moments(self, series):
        """Mean and deviation of every cell given all observations of its series.

        Parameters
        ----------
        series : WindowedSeries
            The series.

        Returns
        -------
        mean, sd : float32 tensors of shape (n_rows, K)
            As :meth:`prepare` has them, without what joins cells.
        """
        mean, sd = torch.zeros_like(series.values), torch.zeros_like(series.values)
        for to, _, _, *moments in self._smoothed(series):
            mean[to], sd[to] = moments
        return mean, sd

    def _smoothed(self, series):
        """Of each piece: rows to keep, which of those read they are, all that is known, moments."""
        for rows, real, kept in _batches(
            series, self.model.transition.shape[1] ** 2, self.forgotten
        ):
            seen, known = series.observed[rows] & real[..., None], self.means(series.time[rows])
            smoothed = smooth(self.model, (series.values[rows] - known) * seen, seen)
            mean, variance = self._cells(smoothed.mean, smoothed.covariance)
            mean, sd = (known + mean)[kept].float(), variance.sqrt()[kept].float()
            yield rows[kept], kept, smoothed, mean, sd

    def _cells(self, mean, covariance):
        """Mean and variance, noise included, of every cell (B, T, K)."""
        mean, variance = self.model.cells(mean, covariance)
        return mean, variance + self.model.noise

    def given(self, smoothed, rows, cells=None, pad=None):
        """What is known of windows.

        Parameters
        ----------
        smoothed : SmoothedSeries
            From :meth:`prepare`.
        rows : int64 tensor of shape (B, L)
            Rows of the windows.
        cells : int64 tensor of shape (B, N), optional
            Flat indices of the target cells.
        pad : bool tensor of shape (B, N), optional
            True where ``cells`` is padding.

        Returns
        -------
        mean, sd : tensors of shape (B, L, K)
            Of every cell.
        covariance : tensor of shape (B, N, N)
            Of the targets, None without ``cells``; padding is independent.
        """
        mean, sd = smoothed.mean[rows], smoothed.sd[rows]
        if cells is None:
            return mean, sd, None
        k = mean.shape[-1]
        more = smoothed.covariance.shape[-1] - self.model.n_states
        loadings = torch.nn.functional.pad(self.model.loadings, (0, more)).to(mean.dtype)
        covariance = window_covariance(
            smoothed.covariance, smoothed.gain, rows, cells // k, loadings[cells % k]
        )
        noise = self.model.noise.to(covariance.dtype)[cells % k]
        covariance = covariance + torch.diag_embed(noise)
        apart = pad[..., None] | pad[:, None]
        eye = torch.eye(cells.shape[1], dtype=covariance.dtype, device=covariance.device)
        return mean, sd, torch.where(apart, eye, covariance)

    def draw(self, series, normals, n_draws, past=False):
        """Draw the wanted cells of series jointly, without a solver.

        Parameters
        ----------
        series : WindowedSeries
            The series.
        normals : callable
            ``normals(number, place, kind, size)`` gives standard normals of shape
            (n_draws, len(number), size) for rows ``place`` of the series ``number``; ``kind``
            tells apart the noises of a row.
        n_draws : int
            Number of draws.
        past : bool, default=False
            Draw each row given the rows up to it alone.

        Returns
        -------
        draws : float32 tensor of shape (n_draws, n_wanted)
            In the order of ``torch.nonzero(series.wanted)``.
        """
        k, n = series.values.shape[1], self.model.transition.shape[1]
        out = series.values.new_empty((n_draws, int(series.wanted.sum())))
        rank = series.wanted.flatten().cumsum(0).view_as(series.wanted) - 1
        for rows, real, kept in _batches(series, n * n + n_draws * n, self.forgotten):
            seen = series.observed[rows] & real[..., None]
            known = self.means(series.time[rows])
            values = (series.values[rows] - known) * seen
            number, first, _ = series.place(rows[:, 0])
            noise = [
                _RowNoise(normals, number, first, n_draws, kind) for kind in (_STATE, _SEEN_NOISE)
            ]
            if past:
                states, mean, covariance = draw_filtered(self.model, values, seen, *noise)
            else:
                last = real.sum(1) - 1
                states, mean, covariance = draw_states(self.model, values, seen, last, noise[0])
            mean, variance = self._cells(mean, covariance)
            i, t, column = torch.nonzero(series.wanted[rows] & kept[..., None], as_tuple=True)
            mean, sd = mean[i, t, column], variance[i, t, column].sqrt()
            cells = (states[i, :, t] * self.model.loadings[column][:, None]).sum(-1).T
            own = normals(number[i], (first[i] + t) * k + column, _OWN_NOISE, 1)[..., 0]
            cells = cells + self.model.noise.sqrt()[column] * own
            drawn = mean + sd * self.shape((cells - mean) / sd, column, sd)
            out[:, rank[rows[i, t], column]] = (known[i, t, column] + drawn).float()
        return out


class _RowNoise:
    """Noise of one kind of the rows of pieces of series, made for many rows at once.

    The rows of piece ``b`` are those from ``first[b]`` on of series ``number[b]``.
    """

    def __init__(self, normals, number, first, n_draws, kind):
        self.normals, self.number, self.first, self.n_draws = normals, number, first, n_draws
        self.begin, self.kind = None, kind

    def __call__(self, t, size, last=False):
        """Standard normals (B, n_draws, size) of row ``t``, of the row at an end with ``last``."""
        if last:
            noise = self.normals(self.number, self.first + t, _END_STATE, size)
            return noise.transpose(0, 1).double()
        begin = t - t % _ROWS_AHEAD
        if begin != self.begin:
            self.begin, batch = begin, len(self.number)
            rows = begin + torch.arange(_ROWS_AHEAD, device=self.number.device)
            noise = self.normals(
                self.number.repeat_interleave(_ROWS_AHEAD),
                (self.first[:, None] + rows).flatten(),
                self.kind,
                size,
            )
            self.block = noise.view(self.n_draws, batch, _ROWS_AHEAD, size).transpose(0, 1).double()
        return self.block[:, :, t - begin]


def _batches(series, numbers_a_row, forgotten):
    """Row numbers (B, T) of pieces of like length, which are real and which are to be kept."""

    def fits(count, shortest, longest):
        return count * longest * numbers_a_row <= _NUMBERS and longest <= 1.25 * shortest

    first, last, begin, end = _pieces(series.offsets, forgotten).to(series.values.device)
    for batch in alike(last - first, fits):
        chosen = batch.sort().values
        time = torch.arange(int((last - first)[chosen].max()), device=first.device)
        rows = first[chosen][:, None] + time
        real = rows < last[chosen][:, None]
        kept = (rows >= begin[chosen][:, None]) & (rows < end[chosen][:, None])
        yield torch.where(real, rows, 0), real, kept


def _pieces(offsets, forgotten):
    """Rows (4, n_pieces) of pieces: the first and the end of what is read, and of what is kept."""
    pieces = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist()):
        n = max(1, round((stop - start) / _PIECE))
        cuts = [start + (stop - start) * i // n for i in range(n + 1)]
        for begin, end in itertools.pairwise(cuts):
            read = max(start, begin - forgotten), min(stop, end + forgotten)
            pieces.append((*read, begin, end))
    return torch.tensor(pieces).T
