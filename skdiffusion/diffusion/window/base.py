"""The Gaussian over a window as the base of an imputer."""

import torch

from skdiffusion.diffusion.window.gaussian import WindowGaussian


class WindowBase:
    """What a window Gaussian says of windows, each given what is observed inside it alone.

    Parameters
    ----------
    gaussian : WindowGaussian
        Gaussian over the cells of a window.
    length, n_features : int
        Size of a window.
    """

    #: Its draws need a solver; rows beyond a window say nothing; conditioning is not kept.
    direct, margin, repeats = False, 0, 1

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

    def prepare(self, series):
        """Return the series: every window is conditioned by itself."""
        return series

    def given(self, series, rows, cells=None, pad=None):
        """What is known of windows; see :meth:`.statespace.base.SeriesGaussian.given`."""
        values, observed = series.values[rows], series.observed[rows]
        given = self.gaussian.condition(values.flatten(1), observed.flatten(1), cells, pad)
        mean, sd = (x.to(values.dtype).view_as(values) for x in (given.mean, given.sd))
        return mean, sd, given.covariance
