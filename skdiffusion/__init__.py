"""Diffusion models as ordinary scikit-learn estimators."""

from skdiffusion._version import __version__
from skdiffusion.estimators import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion.persistence import load, save, trusted_types

__all__ = [
    "CSDIImputer",
    "LangevinSampler",
    "MultipleImputation",
    "ScoreSDE",
    "__version__",
    "load",
    "save",
    "trusted_types",
]
