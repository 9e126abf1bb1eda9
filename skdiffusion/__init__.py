"""Diffusion models as ordinary scikit-learn estimators."""

from skdiffusion._version import __version__
from skdiffusion.estimators import CSDIImputer

__all__ = ["CSDIImputer", "__version__"]
