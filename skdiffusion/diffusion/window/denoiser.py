"""What every imputation denoiser offers, and the exact one of a Gaussian over a window.

Letters. A batch has ``B`` windows of ``L`` time steps and ``K`` features and asks for ``N``
target cells of each, of which it takes ``M`` draws. The denoiser works in the coordinate
``z = r + s eps`` of the residuals ``r = (y - location) / scale`` of the targets ``y``.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import nn

from skdiffusion.diffusion.solve import log_levels
from skdiffusion.diffusion.window.draw import draw_missing


class ImputationDenoiser(nn.Module, ABC):
    """Denoiser of the missing cells of windows, given the observed ones.

    Drawing and training go the same way: :meth:`prepare` reads the series once, :meth:`encode`
    (for draws) or :meth:`loss` (for training) then takes windows of them by their row numbers.

    Attributes
    ----------
    name : str
        Name of the kind of denoiser.
    default_solver : str
        Step of :func:`skdiffusion.diffusion.solve.solve` that suits it.
    default_steps : int
        Number of such steps.
    margin : int
        Rows around a window that training shows, as they would be there in a series.
    repeats : int
        How often training shows a prepared window.
    """

    name: str
    default_solver = "dpmpp_2m_sde"
    default_steps: int
    margin = 0
    repeats = 1

    def prepare(self, series):
        """Read series once, before any of their windows is encoded.

        Parameters
        ----------
        series : WindowedSeries
            The series as they are shown: what is to be predicted is not observed.

        Returns
        -------
        prepared : object
            Whatever :meth:`encode` and :meth:`loss` want to know; here the series themselves.
        """
        return series

    @abstractmethod
    def encode(self, prepared, rows, cells, pad):
        """Read windows once for all draws and noise levels.

        Parameters
        ----------
        prepared : object
            From :meth:`prepare`.
        rows : int64 tensor of shape (B, L)
            Row numbers of the windows in the series.
        cells : int64 tensor of shape (B, N)
            Flat indices ``time * K + feature`` of the target cells in their window.
        pad : bool tensor of shape (B, N)
            True where ``cells`` is padding.

        Returns
        -------
        context : object
            Argument of :meth:`denoise`; its ``location`` and ``scale`` (B, N) are origin and unit
            of the residuals.
        """

    @abstractmethod
    def denoise(self, context, z, s):
        """Estimate the residuals behind noisy ones.

        Parameters
        ----------
        context : object
            From :meth:`encode`.
        z : tensor of shape (B, M, N)
            ``M`` noisy draws of the residuals of ``N`` targets.
        s : float or tensor of shape (B, M, 1)
            Noise level.

        Returns
        -------
        denoised : tensor of shape (B, M, N)
            The denoiser D(z, s).
        """

    @abstractmethod
    def noise_levels(self, n_steps, solver):
        """Noise levels for a solver.

        Parameters
        ----------
        n_steps : int
            Number of steps, at least 1.
        solver : str
            Name of a step of the module ``skdiffusion.diffusion.solve``.

        Returns
        -------
        levels : list of float
            ``n_steps`` decreasing levels, then 0.
        """

    def loss(self, prepared, rows, values, targets, generator):
        """Training loss of a batch of windows.

        Parameters
        ----------
        prepared : object
            From :meth:`prepare`, for series in which the targets are not observed.
        rows : int64 tensor of shape (B, L)
            Row numbers of the windows in the series.
        values : tensor of shape (B, L, K)
            Their standardised values, anything where unknown.
        targets : bool tensor of shape (B, L, K)
            The known cells that are hidden.
        generator : torch.Generator
            Source of noise and noise levels.

        Returns
        -------
        loss : tensor
            Scalar.

        Raises
        ------
        NotImplementedError
            If there is nothing to train.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to train.")

    def held_out_loss(self, prepared, rows, values, targets, generator):
        """Loss on held-out windows, of the arguments of :meth:`loss`; by default the same."""
        return self.loss(prepared, rows, values, targets, generator)

    def closed_form(self):
        """Return the denoiser without its network, None if there is none."""
        return None

    def draw(self, series, normals, n_draws, **options):
        """Draw the wanted cells of series.

        Parameters
        ----------
        series : WindowedSeries
            The series, on the device of the denoiser.
        normals : callable
            ``normals(number, place, kind, size)`` gives standard normals of shape
            (n_draws, len(number), size) for the places of the series ``number``; ``kind`` tells
            apart the noises of a place.
        n_draws : int
            Number of draws.
        **options
            Passed to :func:`skdiffusion.diffusion.window.draw.draw_missing`.

        Returns
        -------
        draws : float32 tensor of shape (n_draws, n_wanted)
            In the order of ``torch.nonzero(series.wanted)``.
        """
        number, cell = series.address()

        def noise(cells, step):
            return normals(number[cells], cell[cells], step, 1)[..., 0]

        return draw_missing(self, series, noise, n_draws=n_draws, **options)


class Context(NamedTuple):
    """What is constant over draws and noise levels, for the target cells of each window."""

    location: torch.Tensor
    scale: torch.Tensor
    code: torch.Tensor
    eigenvalues: torch.Tensor
    eigenvectors: torch.Tensor
    present: torch.Tensor


class GaussianDenoiser(ImputationDenoiser):
    """A Gaussian alone as an imputation denoiser: exact, nothing to train.

    Parameters
    ----------
    base : WindowBase or SeriesGaussian
        Gaussian over the cells of a window, or of whole series.
    """

    name = "gaussian"
    default_steps = 8

    def __init__(self, base):
        super().__init__()
        self.base, self.margin, self.repeats = base, base.margin, base.repeats

    def prepare(self, series):
        """Read series once; see :meth:`ImputationDenoiser.prepare`."""
        return self.base.prepare(series)

    def draw(self, series, normals, n_draws, **options):
        """Draw the wanted cells of series; see :meth:`ImputationDenoiser.draw`."""
        if self._is_exact() and self.base.direct:
            return self.base.draw(series, normals, n_draws)
        return super().draw(series, normals, n_draws, **options)

    def _is_exact(self):
        """Whether nothing was learnt on top of the Gaussian."""
        return True

    def _apply(self, fn, recurse=True):
        """Move the Gaussian along with the module."""
        self.base = self.base.map(fn)
        return super()._apply(fn, recurse)

    def closed_form(self):
        """Return the Gaussian alone."""
        return GaussianDenoiser(self.base)

    def encode(self, prepared, rows, cells, pad):
        """Read windows once; see :meth:`ImputationDenoiser.encode`."""
        context, _, _ = self._encode(prepared, rows, cells, pad)
        return context

    def _encode(self, prepared, rows, cells, pad):
        """Return the context and the mean and standard deviation of every cell."""
        mean, sd, covariance = self.base.given(prepared, rows, cells, pad)
        code, mean, sd = self._heads(prepared, rows, mean, sd, cells)
        correlation = _correlation(covariance).to(mean.dtype)
        eigenvalues, eigenvectors = torch.linalg.eigh(correlation)
        context = Context(
            mean.flatten(1).gather(1, cells),
            sd.flatten(1).gather(1, cells).masked_fill(pad, 1.0),
            code,
            eigenvalues.clamp(min=0.01)[:, None],
            eigenvectors,
            (~pad).to(mean.dtype)[:, None],
        )
        return context, mean, sd

    def _heads(self, prepared, rows, mean, sd, cells):
        """Code of the targets, mean and standard deviation of every cell."""
        return None, mean, sd.clamp(min=0.01)

    def denoise(self, context, z, s):
        """Estimate the residuals behind noisy ones; see :meth:`ImputationDenoiser.denoise`."""
        s = torch.as_tensor(s, dtype=z.dtype, device=z.device).expand(*z.shape[:2], 1)
        rotated = (z * context.present) @ context.eigenvectors
        total = context.eigenvalues + s * s
        shrunk = self._numerator(context, rotated, total, s)
        return (shrunk / total) @ context.eigenvectors.transpose(1, 2)

    def _numerator(self, context, rotated, total, s):
        """Denoised residuals in the basis of the targets, times ``total``."""
        return context.eigenvalues * rotated

    def noise_levels(self, n_steps, solver):
        """Noise levels for ``n_steps`` steps: residuals have unit size, so 10 is pure noise.

        Levels equally spaced in log s: with 8 steps the draws of a standard normal then have
        standard deviation 1.04; with the levels of Karras et al. it would be 1.12.
        """
        return log_levels(n_steps, 0.02, 10.0)


def _correlation(covariance):
    """Scale a batch of covariances to unit diagonal."""
    sd = torch.diagonal(covariance, dim1=1, dim2=2).clamp(min=1e-6).sqrt()
    return covariance / sd[:, :, None] / sd[:, None]
