"""Displays of fitted estimators; matplotlib is imported when they are drawn."""

from skdiffusion.inspection._chains import TraceDisplay, TrajectoryDisplay

__all__ = ["TraceDisplay", "TrajectoryDisplay"]
