"""The losses behind the imputation scorers."""

import numpy as np

from skdiffusion.metrics._calibration import interval_coverage
from skdiffusion.metrics._crps import crps_loss
from skdiffusion.metrics._energy import energy_score
from skdiffusion.metrics._point import (
    mean_absolute_error,
    relative_squared_error,
    root_mean_squared_error,
)

# Below this the median of the draws is a noisy prediction.
FEW_DRAWS = 20


def _method(x):
    """Unbiased where there is more than one draw; of one value the CRPS is the absolute error."""
    return "fair" if x.shape[1] > 1 else "ensemble"


def _crps(y, x, mask):
    return crps_loss(y, x, mask=mask, method=_method(x))


def _energy(y, x, mask):
    return energy_score(y, x, mask=mask, method=_method(x))


def _mae(y, x, mask):
    return mean_absolute_error(y, np.median(x, axis=1), mask=mask)


def _rmse(y, x, mask):
    return root_mean_squared_error(y, x.mean(axis=1), mask=mask)


def _rse(y, x, mask):
    return relative_squared_error(y, x.mean(axis=1), mask=mask)


def _coverage_90(y, x, mask):
    if x.shape[1] == 1:
        raise ValueError(
            "interval_coverage_90 needs draws, but the imputer gives one value for a cell: take "
            "neg_mae or neg_crps, or an imputer that draws"
        )
    return interval_coverage(y, x, level=0.9, mask=mask)


LOSSES = {
    "crps": _crps,
    "mae": _mae,
    "rmse": _rmse,
    "rse": _rse,
    "energy_score": _energy,
    "interval_coverage_90": _coverage_90,
}
OF_A_STATISTIC = ("mae", "rmse", "rse")
