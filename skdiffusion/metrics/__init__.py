"""Losses and diagnostics of predictions, draws and quantiles over the cells that count; scorers."""

from skdiffusion.metrics._calibration import coverage_curve, interval_coverage, pit_values
from skdiffusion.metrics._chains import effective_sample_size, nested_r_hat, r_hat
from skdiffusion.metrics._clouds import energy_distance, mode_coverage, mode_weight_error
from skdiffusion.metrics._crps import crps_loss, quantile_crps_loss
from skdiffusion.metrics._density_scorers import (
    get_scorer,
    get_scorer_names,
    log_likelihood_scorer,
    neg_nll_bound_scorer,
    neg_sliced_wasserstein_scorer,
)
from skdiffusion.metrics._energy import energy_score
from skdiffusion.metrics._imputation_scorer import (
    interval_coverage_90_scorer,
    make_imputation_scorer,
    neg_brier_scorer,
    neg_crps_scorer,
    neg_energy_score_scorer,
    neg_mae_scorer,
    neg_rmse_scorer,
    neg_rse_scorer,
)
from skdiffusion.metrics._point import (
    mean_absolute_error,
    relative_squared_error,
    root_mean_squared_error,
)
from skdiffusion.metrics._sliced_wasserstein import sliced_wasserstein

__all__ = [
    "coverage_curve",
    "crps_loss",
    "effective_sample_size",
    "energy_distance",
    "energy_score",
    "get_scorer",
    "get_scorer_names",
    "interval_coverage",
    "interval_coverage_90_scorer",
    "log_likelihood_scorer",
    "make_imputation_scorer",
    "mean_absolute_error",
    "mode_coverage",
    "mode_weight_error",
    "neg_brier_scorer",
    "neg_crps_scorer",
    "neg_energy_score_scorer",
    "neg_mae_scorer",
    "neg_nll_bound_scorer",
    "neg_rmse_scorer",
    "neg_rse_scorer",
    "neg_sliced_wasserstein_scorer",
    "nested_r_hat",
    "pit_values",
    "quantile_crps_loss",
    "r_hat",
    "relative_squared_error",
    "root_mean_squared_error",
    "sliced_wasserstein",
]
