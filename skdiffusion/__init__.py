"""Diffusion models as ordinary scikit-learn estimators."""

from skdiffusion._version import __version__
from skdiffusion.estimators import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE

__all__ = ["CSDIImputer", "LangevinSampler", "MultipleImputation", "ScoreSDE", "__version__"]
