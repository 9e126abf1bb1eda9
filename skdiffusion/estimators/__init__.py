"""Estimators that follow the contract of scikit-learn."""

from skdiffusion.estimators.csdi_imputer import CSDIImputer
from skdiffusion.estimators.langevin_sampler import LangevinSampler
from skdiffusion.estimators.score_sde import ScoreSDE

__all__ = ["CSDIImputer", "LangevinSampler", "ScoreSDE"]
