"""The exact denoiser of a Gaussian over a window."""

from typing import NamedTuple

import torch
from torch import nn

from skdiffusion.diffusion.solve import log_levels


class Context(NamedTuple):
    """What is constant over draws and noise levels, for the target cells of each window."""

    location: torch.Tensor
    scale: torch.Tensor
    code: torch.Tensor
    eigenvalues: torch.Tensor
    eigenvectors: torch.Tensor
    present: torch.Tensor


class GaussianDenoiser(nn.Module):
    """The window Gaussian alone as an imputation denoiser: exact, nothing to train.

    Parameters
    ----------
    base : WindowGaussian
        Gaussian over the cells of a window.
    """

    def __init__(self, base):
        super().__init__()
        self.base = base

    def _apply(self, fn, recurse=True):
        """Move the Gaussian along with the module."""
        self.base = self.base.map(fn)
        return super()._apply(fn, recurse)

    def encode(self, values, observed, cells, pad):
        """Read windows once.

        Parameters
        ----------
        values : tensor of shape (B, L, K)
            Standardised values; unobserved cells are not read.
        observed : bool tensor of shape (B, L, K)
            Which cells are given.
        cells : int64 tensor of shape (B, N)
            Flat indices of the target cells.
        pad : bool tensor of shape (B, N)
            True where ``cells`` is padding.

        Returns
        -------
        context : Context
            Location and scale of each target and what :meth:`denoise` needs.
        """
        context, _, _ = self._encode(values, observed, cells, pad)
        return context

    def _encode(self, values, observed, cells, pad):
        """Return the context and the mean and standard deviation of every cell."""
        given = self.base.condition(values.flatten(1), observed.flatten(1), cells, pad)
        mean, sd = (x.to(values.dtype).view_as(values) for x in (given.mean, given.sd))
        code, mean, sd = self._heads(values, observed, mean, sd, cells)
        correlation = _correlation(given.covariance).to(values.dtype)
        eigenvalues, eigenvectors = torch.linalg.eigh(correlation)
        context = Context(
            mean.flatten(1).gather(1, cells),
            sd.flatten(1).gather(1, cells).masked_fill(pad, 1.0),
            code,
            eigenvalues.clamp(min=0.01)[:, None],
            eigenvectors,
            (~pad).to(values.dtype)[:, None],
        )
        return context, mean, sd

    def _heads(self, values, observed, mean, sd, cells):
        """Code of the targets, mean and standard deviation of every cell."""
        return None, mean, sd.clamp(min=0.01)

    def denoise(self, context, z, s):
        """Estimate the residuals behind noisy ones.

        Parameters
        ----------
        context : Context
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
        s = torch.as_tensor(s, dtype=z.dtype, device=z.device).expand(*z.shape[:2], 1)
        total = context.eigenvalues + s * s
        rotated = (z * context.present) @ context.eigenvectors
        shrunk = context.eigenvalues * rotated
        if context.code is not None:
            residual = self._residual(context, rotated / total.sqrt(), s) @ context.eigenvectors
            shrunk = shrunk + (context.eigenvalues * total).sqrt() * s * residual
        return (shrunk / total) @ context.eigenvectors.transpose(1, 2)

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
