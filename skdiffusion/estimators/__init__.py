"""The scikit-learn estimators."""

from skdiffusion.estimators.csdi_imputer import CSDIImputer
from skdiffusion.estimators.score_sde import ScoreSDE

__all__ = ["CSDIImputer", "ScoreSDE"]
