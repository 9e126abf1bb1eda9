"""The losses behind the imputation scorers."""

import numpy as np

from skdiffusion.metrics._calibration import interval_coverage
from skdiffusion.metrics._energy import energy_score
from skdiffusion.metrics._labels import mixed_brier, mixed_crps
from skdiffusion.metrics._point import (
    mean_absolute_error,
    relative_squared_error,
    root_mean_squared_error,
)

# Below this the median of the draws is a noisy prediction.
FEW_DRAWS = 20


def _energy(held):
    y, x, mask = held.of_numbers()
    return energy_score(y, x, mask=mask, method="fair" if x.shape[1] > 1 else "ensemble")


def _mae(held):
    y, x, mask = held.of_numbers()
    return mean_absolute_error(y, np.median(x, axis=1), mask=mask)


def _rmse(held):
    y, x, mask = held.of_numbers()
    return root_mean_squared_error(y, x.mean(axis=1), mask=mask)


def _rse(held):
    y, x, mask = held.of_numbers()
    return relative_squared_error(y, x.mean(axis=1), mask=mask)


def _coverage_90(held):
    y, x, mask = held.of_numbers()
    if x.shape[1] == 1:
        raise ValueError(
            "interval_coverage_90 needs draws, but the imputer gives one value for a cell: take "
            "neg_mae or neg_crps, or an imputer that draws"
        )
    return interval_coverage(y, x, level=0.9, mask=mask)


# Of hidden cells, see :class:`skdiffusion.metrics._labels.HeldOut`.
LOSSES = {
    "crps": mixed_crps,
    "brier": mixed_brier,
    "mae": _mae,
    "rmse": _rmse,
    "rse": _rse,
    "energy_score": _energy,
    "interval_coverage_90": _coverage_90,
}
OF_A_STATISTIC = ("mae", "rmse", "rse")
