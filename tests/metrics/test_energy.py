"""Energy score: against scoringrules and the CRPS, and its sensitivity to dependence."""

import numpy as np
import pytest
import scoringrules

from skdiffusion.metrics import crps_loss, energy_score


@pytest.fixture
def rows():
    """Truth and draws of rows of four cells."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 4)), rng.normal(size=(8, 12, 4)) * 1.2


@pytest.mark.parametrize(("method", "estimator"), [("fair", "fair"), ("ensemble", "nrg")])
def test_agrees_with_scoringrules(rows, method, estimator):
    y_true, y_draws = rows
    expected = scoringrules.es_ensemble(y_true, y_draws, estimator=estimator).mean() / np.sqrt(4)
    assert energy_score(y_true, y_draws, method=method) == pytest.approx(expected, rel=1e-10)


def test_only_scored_cells_count_and_empty_rows_are_left_out(rows):
    y_true, y_draws = rows
    mask = np.zeros(y_true.shape, dtype=bool)
    mask[:3, [0, 2]] = True
    spoiled = np.where(mask[:, None], y_draws, np.nan)
    expected = energy_score(y_true[:3][:, [0, 2]], y_draws[:3][:, :, [0, 2]])
    assert energy_score(y_true, spoiled, mask=mask) == pytest.approx(expected, rel=1e-12)


def test_rows_of_one_cell_have_their_crps(rows):
    y_true, y_draws = rows
    for method in ("fair", "ensemble"):
        assert energy_score(y_true[:, :1], y_draws[..., :1], method=method) == pytest.approx(
            crps_loss(y_true[:, :1], y_draws[..., :1], method=method), rel=1e-10
        )


def test_the_shape_of_a_row_does_not_matter(rows):
    y_true, y_draws = rows
    panel = energy_score(y_true.reshape(8, 2, 2), y_draws.reshape(8, 12, 2, 2))
    assert panel == pytest.approx(energy_score(y_true, y_draws), rel=1e-12)


def test_rotation_invariance(rows):
    y_true, y_draws = rows
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    assert energy_score(y_true @ rotation, y_draws @ rotation) == pytest.approx(
        energy_score(y_true, y_draws), rel=1e-10
    )


def test_one_draw_is_the_root_mean_squared_error_of_the_row():
    assert energy_score([[0.0, 0.0]], [[[3.0, 4.0]]], method="ensemble") == pytest.approx(
        np.sqrt(12.5)
    )


def test_incoherent_draws_score_worse_though_every_cell_is_right():
    rng = np.random.default_rng(2)
    common = rng.normal(size=(1500, 1)) * np.ones(6)
    coherent = rng.normal(size=(1500, 30, 1)) * np.ones(6)
    incoherent = rng.normal(size=(1500, 30, 6))
    assert energy_score(common, coherent) < 0.95 * energy_score(common, incoherent)
    assert crps_loss(common, coherent) == pytest.approx(crps_loss(common, incoherent), rel=0.05)


def test_wrong_input_is_named(rows):
    y_true, y_draws = rows
    with pytest.raises(ValueError, match=r"at least 2 draws.*ensemble"):
        energy_score(y_true, y_draws[:, :1])
    with pytest.raises(ValueError, match='"fair" or "ensemble"'):
        energy_score(y_true, y_draws, method="quantile")
    with pytest.raises(ValueError, match="y_draws contains NaN"):
        energy_score(y_true, np.full_like(y_draws, np.nan))
    with pytest.raises(ValueError, match=r"\(8, n_draws, 4\)"):
        energy_score(y_true, y_true)
