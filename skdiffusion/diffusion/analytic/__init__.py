"""Densities whose noisy versions are known in closed form."""

from skdiffusion.diffusion.analytic.build import (
    from_arrays,
    gaussian,
    gaussian_mixture,
    kernel_density,
    marginal,
    union,
)
from skdiffusion.diffusion.analytic.mixture import Mixture

__all__ = [
    "Mixture",
    "from_arrays",
    "gaussian",
    "gaussian_mixture",
    "kernel_density",
    "marginal",
    "union",
]
