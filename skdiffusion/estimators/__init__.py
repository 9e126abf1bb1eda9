"""Estimators that follow the contract of scikit-learn."""

from skdiffusion.estimators.conformal import ConformalImputer, conformalize
from skdiffusion.estimators.csdi_imputer import CSDIImputer
from skdiffusion.estimators.langevin_sampler import LangevinSampler
from skdiffusion.estimators.multiple_imputation import MultipleImputation, pool_rubin
from skdiffusion.estimators.score_sde import ScoreSDE

__all__ = [
    "CSDIImputer",
    "ConformalImputer",
    "LangevinSampler",
    "MultipleImputation",
    "ScoreSDE",
    "conformalize",
    "pool_rubin",
]
