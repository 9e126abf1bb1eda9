"""The Gaussian over a window as the base of an imputer."""

import torch

from skdiffusion.diffusion.window.gaussian import WindowGaussian, pick
from skdiffusion.diffusion.window.series import alike

# Numbers in one array of covariances or draws that are worked on together: 32 MB of float64.
_NUMBERS = 2**22
# What keeps covariances positive where rounding would not: a thousandth of a standard deviation.
_JITTER = 1e-6


class WindowBase:
    """What a window Gaussian says of windows, each given what is observed inside it alone.

    Parameters
    ----------
    gaussian : WindowGaussian
        Gaussian over the cells of a window.
    length, n_features : int
        Size of a window.
    """

    #: Draws need no solver; there is no past; rows beyond a window say nothing; conditioning is not
    #: kept.
    direct, causal, margin, repeats = True, False, 0, 1

    def __init__(self, gaussian, length, n_features):
        self.gaussian, self.length, self.n_features = gaussian, length, n_features

    def __deepcopy__(self, memo):
        """Share the matrices: they are never changed."""
        return self

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return WindowBase(self.gaussian.map(function), self.length, self.n_features)

    def arrays(self):
        """Return a dict of tensors from which :meth:`from_arrays` rebuilds the base."""
        return {
            "mean": self.gaussian.mean,
            "covariance": self.gaussian.covariance,
            "size": torch.tensor([self.length, self.n_features]),
        }

    @classmethod
    def from_arrays(cls, mean, covariance, size):
        """Rebuild what :meth:`arrays` took apart."""
        length, n_features = size.tolist()
        return cls(WindowGaussian(mean, covariance), length, n_features)

    def plain(self):
        """The same with normal errors, which it has."""
        return self

    def prepare(self, series):
        """Return the series: every window is conditioned by itself."""
        return series

    def given(self, series, rows, cells=None, pad=None):
        """What is known of windows; see :meth:`.statespace.base.SeriesGaussian.given`."""
        values, observed = series.values[rows], series.observed[rows]
        given = self.gaussian.condition(values.flatten(1), observed.flatten(1), cells, pad)
        mean, sd = (x.to(values.dtype).view_as(values) for x in (given.mean, given.sd))
        return mean, sd, given.covariance

    def draw(self, series, normals, n_draws):
        """Draw the wanted cells of series of one window each, jointly and without a solver.

        See :meth:`.statespace.base.SeriesGaussian.draw`.
        """
        wanted = series.wanted.view(len(series.offsets) - 1, -1)
        rank = wanted.flatten().cumsum(0).view_as(wanted) - 1
        out = series.values.new_empty((n_draws, int(wanted.sum())))

        def fits(count, smallest, largest):
            return count * largest * max(largest, n_draws) <= _NUMBERS

        gappy = torch.nonzero(wanted.any(1))[:, 0]
        for batch in alike(wanted[gappy].sum(1), fits):
            windows = gappy[batch].sort().values
            cells, pad = pick(wanted[windows])
            rows = series.offsets[windows][:, None] + torch.arange(self.length, device=pad.device)
            mean, _, covariance = self.given(series, rows, cells, pad)
            covariance.diagonal(dim1=1, dim2=2).add_(_JITTER)
            number = windows.repeat_interleave(cells.shape[1])
            noise = normals(number, cells.flatten(), 0, 1)[..., 0].view(n_draws, *cells.shape)
            root = torch.linalg.cholesky(covariance.double())
            drawn = torch.einsum("bij,mbj->mbi", root, noise.double())
            drawn = drawn + mean.flatten(1).gather(1, cells)
            out[:, rank[windows].gather(1, cells)[~pad]] = drawn[:, ~pad].to(out.dtype)
        return out
