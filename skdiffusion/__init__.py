"""Diffusion models as ordinary scikit-learn estimators."""

from skdiffusion._version import __version__
from skdiffusion.estimators import CSDIImputer, ScoreSDE

__all__ = ["CSDIImputer", "ScoreSDE", "__version__"]
