"""Errors of point predictions: against scikit-learn's own on the scored cells."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from skdiffusion.metrics import mean_absolute_error, relative_squared_error, root_mean_squared_error

ERRORS = (mean_absolute_error, root_mean_squared_error, relative_squared_error)


@pytest.fixture
def panel():
    """Truth with gaps, prediction with NaN where it is not scored, and the mask."""
    rng = np.random.default_rng(0)
    y_true = rng.normal(size=(7, 5, 3)) * [1.0, 10.0, 3.0] + [0.0, 500.0, -2.0]
    y_pred = y_true + rng.normal(size=y_true.shape)
    mask = rng.uniform(size=y_true.shape) < 0.6
    y_true[0, 0] = np.nan
    return y_true, np.where(mask, y_pred, np.nan), mask


def test_masked_errors_are_scikit_learns_on_the_scored_cells(panel):
    y_true, y_pred, mask = panel
    scored = mask & ~np.isnan(y_true)
    y, prediction = y_true[scored], y_pred[scored]
    assert mean_absolute_error(y_true, y_pred, mask=mask) == pytest.approx(
        sklearn_metrics.mean_absolute_error(y, prediction)
    )
    assert root_mean_squared_error(y_true, y_pred, mask=mask) == pytest.approx(
        sklearn_metrics.root_mean_squared_error(y, prediction)
    )


def test_relative_squared_error_is_one_minus_variance_weighted_r2():
    rng = np.random.default_rng(1)
    y_true = rng.normal(size=(40, 3)) * [1.0, 5.0, 2.0] + [0.0, 100.0, 3.0]
    y_pred = y_true + rng.normal(size=y_true.shape)
    expected = 1 - sklearn_metrics.r2_score(y_true, y_pred, multioutput="variance_weighted")
    assert relative_squared_error(y_true, y_pred) == pytest.approx(expected)
    assert relative_squared_error(y_true[:, 0], y_pred[:, 0]) == pytest.approx(
        1 - sklearn_metrics.r2_score(y_true[:, 0], y_pred[:, 0])
    )


def test_feature_means_of_the_scored_cells_have_relative_error_one(panel):
    y_true, _, mask = panel
    scored = mask & ~np.isnan(y_true)
    means = np.nanmean(np.where(scored, y_true, np.nan), axis=(0, 1))
    y_pred = np.broadcast_to(means, y_true.shape)
    assert relative_squared_error(y_true, y_pred, mask=mask) == pytest.approx(1.0)


@pytest.mark.parametrize("error", ERRORS)
def test_wrong_input_is_named(error):
    y_true = np.arange(6.0).reshape(3, 2)
    with pytest.raises(ValueError, match=r"y_pred has shape.*median"):
        error(y_true, np.zeros((3, 5, 2)))
    with pytest.raises(ValueError, match="y_pred contains NaN"):
        error(y_true, np.full_like(y_true, np.nan))
    with pytest.raises(ValueError, match="no cell left"):
        error(np.full_like(y_true, np.nan), y_true)


def test_constant_truth_has_no_relative_error():
    with pytest.raises(ValueError, match=r"constant.*root_mean_squared_error"):
        relative_squared_error(np.ones((3, 2)), np.zeros((3, 2)))
