"""The scikit-learn estimators."""

from skdiffusion.estimators.csdi_imputer import CSDIImputer

__all__ = ["CSDIImputer"]
