"""Estimators that follow the contract of scikit-learn."""

from skdiffusion.estimators.density.score_sde import ScoreSDE
from skdiffusion.estimators.imputation._pooling import pool_rubin
from skdiffusion.estimators.imputation.conformal import ConformalImputer, conformalize
from skdiffusion.estimators.imputation.csdi_imputer import CSDIImputer
from skdiffusion.estimators.imputation.multiple_imputation import MultipleImputation
from skdiffusion.estimators.sampling.langevin_sampler import LangevinSampler

__all__ = [
    "CSDIImputer",
    "ConformalImputer",
    "LangevinSampler",
    "MultipleImputation",
    "ScoreSDE",
    "conformalize",
    "pool_rubin",
]
