"""Losses and diagnostics of predictions, draws and quantiles over the cells that count."""

from skdiffusion.metrics._calibration import coverage_curve, interval_coverage, pit_values
from skdiffusion.metrics._crps import crps_loss, quantile_crps_loss
from skdiffusion.metrics._energy import energy_score
from skdiffusion.metrics._mcmc import (
    effective_sample_size,
    energy_distance,
    mode_coverage,
    mode_weight_error,
    nested_r_hat,
    r_hat,
)
from skdiffusion.metrics._point import (
    mean_absolute_error,
    relative_squared_error,
    root_mean_squared_error,
)

__all__ = [
    "coverage_curve",
    "crps_loss",
    "effective_sample_size",
    "energy_distance",
    "energy_score",
    "interval_coverage",
    "mean_absolute_error",
    "mode_coverage",
    "mode_weight_error",
    "nested_r_hat",
    "pit_values",
    "quantile_crps_loss",
    "r_hat",
    "relative_squared_error",
    "root_mean_squared_error",
]
