"""Displays of fitted estimators and their draws; matplotlib is imported when they are drawn."""

from skdiffusion.inspection._calibration import PITDisplay, ReliabilityDisplay
from skdiffusion.inspection._chains import TraceDisplay, TrajectoryDisplay
from skdiffusion.inspection._fit import DensityDisplay, LossCurveDisplay
from skdiffusion.inspection._imputation import ImputationDisplay

__all__ = [
    "DensityDisplay",
    "ImputationDisplay",
    "LossCurveDisplay",
    "PITDisplay",
    "ReliabilityDisplay",
    "TraceDisplay",
    "TrajectoryDisplay",
]
