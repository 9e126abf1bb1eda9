"""Windows of series: their Gaussian, its denoiser, and draws of their missing cells."""

from skdiffusion.diffusion.window.denoiser import Context, GaussianDenoiser, ImputationDenoiser
from skdiffusion.diffusion.window.draw import draw_missing
from skdiffusion.diffusion.window.fit import block_toeplitz, free_gaussian
from skdiffusion.diffusion.window.gaussian import (
    Conditional,
    WindowGaussian,
    identity_on,
    pick,
    submatrix,
)
from skdiffusion.diffusion.window.series import WindowedSeries, interpolate, taper

__all__ = [
    "Conditional",
    "Context",
    "GaussianDenoiser",
    "ImputationDenoiser",
    "WindowGaussian",
    "WindowedSeries",
    "block_toeplitz",
    "draw_missing",
    "free_gaussian",
    "identity_on",
    "interpolate",
    "pick",
    "submatrix",
    "taper",
]
