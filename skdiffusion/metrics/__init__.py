"""Losses and diagnostics of predictions, draws and quantiles over the cells that count."""

from skdiffusion.metrics._calibration import interval_coverage, pit_values
from skdiffusion.metrics._crps import crps_loss, quantile_crps_loss
from skdiffusion.metrics._energy import energy_score
from skdiffusion.metrics._point import (
    mean_absolute_error,
    relative_squared_error,
    root_mean_squared_error,
)

__all__ = [
    "crps_loss",
    "energy_score",
    "interval_coverage",
    "mean_absolute_error",
    "pit_values",
    "quantile_crps_loss",
    "relative_squared_error",
    "root_mean_squared_error",
]
