"""Displays of fitted estimators and their draws; matplotlib is imported when they are drawn."""

from skdiffusion.inspection._calibration import PITDisplay, ReliabilityDisplay
from skdiffusion.inspection._chains import TraceDisplay, TrajectoryDisplay
from skdiffusion.inspection._density import DensityDisplay
from skdiffusion.inspection._imputation import ImputationDisplay
from skdiffusion.inspection._loss_curve import LossCurveDisplay

__all__ = [
    "DensityDisplay",
    "ImputationDisplay",
    "LossCurveDisplay",
    "PITDisplay",
    "ReliabilityDisplay",
    "TraceDisplay",
    "TrajectoryDisplay",
]
