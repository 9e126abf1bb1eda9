"""Diffusion models as ordinary scikit-learn estimators."""

from skdiffusion._version import __version__

__all__ = ["__version__"]
