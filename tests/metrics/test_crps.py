"""CRPS: against properscoring, scoringrules, closed forms, and as a proper score."""

import tracemalloc
import warnings

import numpy as np
import properscoring
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from skdiffusion.metrics import crps_loss, mean_absolute_error, quantile_crps_loss
from skdiffusion.metrics._crps import QUANTILE_LEVELS

GAUSSIAN_CRPS = 1 / np.sqrt(np.pi)  # expected score of a perfect standard normal forecast


@pytest.fixture
def panel():
    """Truth, draws and a mask of a small panel (samples, times, features)."""
    rng = np.random.default_rng(0)
    y_true = rng.normal(size=(6, 5, 3))
    y_draws = rng.normal(size=(6, 25, 5, 3)) * 1.5 + 0.2
    return y_true, y_draws, rng.uniform(size=y_true.shape) < 0.4


def cells(y_true, y_draws, mask):
    return y_true[mask], np.moveaxis(y_draws, 1, -1)[mask]


def test_ensemble_is_properscoring(panel):
    y, x = cells(*panel)
    expected = properscoring.crps_ensemble(y, x).mean()
    y_true, y_draws, mask = panel
    assert crps_loss(y_true, y_draws, mask=mask, method="ensemble") == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize(("method", "estimator"), [("fair", "fair"), ("ensemble", "nrg")])
def test_agrees_with_scoringrules(panel, method, estimator):
    y, x = cells(*panel)
    expected = scoringrules.crps_ensemble(y, x, estimator=estimator).mean()
    y_true, y_draws, mask = panel
    assert crps_loss(y_true, y_draws, mask=mask, method=method) == pytest.approx(
        expected, rel=1e-10
    )


def test_fair_is_the_double_sum(panel):
    y, x = cells(*panel)
    m = x.shape[1]
    pairs = np.abs(x[:, :, None] - x[:, None, :]).sum(axis=(1, 2)) / (2 * m * (m - 1))
    expected = (np.abs(x - y[:, None]).mean(axis=1) - pairs).mean()
    y_true, y_draws, mask = panel
    assert crps_loss(y_true, y_draws, mask=mask) == pytest.approx(expected, rel=1e-12)


def test_many_draws_give_the_closed_form_of_a_gaussian():
    rng = np.random.default_rng(1)
    y_true = np.array([-0.7, 0.3, 2.0])
    y_draws = 0.5 + 1.3 * rng.normal(size=(3, 200_000))
    expected = properscoring.crps_gaussian(y_true, mu=0.5, sig=1.3).mean()
    # Standard error of the mean of 2e5 draws is about 0.002.
    assert crps_loss(y_true, y_draws) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("m", [2, 5, 50])
def test_fair_is_unbiased_and_ensemble_is_not(m):
    rng = np.random.default_rng(2)
    n = 200_000 // m
    y_true, y_draws = rng.normal(size=n), rng.normal(size=(n, m))
    tolerance = 5 * 1.0 / np.sqrt(n)  # five standard errors, spread of one score below 1
    assert crps_loss(y_true, y_draws) == pytest.approx(GAUSSIAN_CRPS, abs=tolerance)
    inflated = GAUSSIAN_CRPS * (1 + 1 / m)
    ensemble = crps_loss(y_true, y_draws, method="ensemble")
    assert ensemble == pytest.approx(inflated, abs=tolerance)


def test_one_draw_is_the_absolute_error():
    rng = np.random.default_rng(3)
    y_true, y_pred = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    mask = rng.uniform(size=(4, 6)) < 0.5
    loss = crps_loss(y_true, y_pred[:, None], mask=mask, method="ensemble")
    assert loss == pytest.approx(mean_absolute_error(y_true, y_pred, mask=mask), rel=1e-12)


def paper_metric(y, x):
    """The CSDI paper's metric, level by level."""
    total = 0.0
    for q in np.arange(0.05, 1.0, 0.05):
        prediction = np.quantile(x, q, axis=1)
        total += 2 * np.abs((prediction - y) * ((y <= prediction) - q)).sum() / np.abs(y).sum()
    return total / 19


def test_quantile_method_is_the_papers_metric(panel):
    y_true, y_draws, mask = panel
    loss = crps_loss(y_true, y_draws, mask=mask, method="quantile")
    assert loss == pytest.approx(paper_metric(*cells(*panel)), rel=1e-12)


def test_quantile_method_equals_the_loss_of_the_quantiles(panel):
    y_true, y_draws, mask = panel
    y_quantiles = np.moveaxis(np.quantile(y_draws, QUANTILE_LEVELS, axis=1), 0, 1)
    from_quantiles = quantile_crps_loss(y_true, y_quantiles, QUANTILE_LEVELS, mask=mask)
    assert from_quantiles == pytest.approx(
        crps_loss(y_true, y_draws, mask=mask, method="quantile"), rel=1e-12
    )


def test_quantile_loss_agrees_with_scoringrules(panel):
    y, x = cells(*panel)
    y_quantiles = np.quantile(x, QUANTILE_LEVELS, axis=1).T
    expected = scoringrules.crps_quantile(y, y_quantiles, QUANTILE_LEVELS).sum() / np.abs(y).sum()
    assert quantile_crps_loss(y, y_quantiles, QUANTILE_LEVELS) == pytest.approx(expected)


def test_nineteen_levels_of_a_gaussian_exceed_its_crps():
    rng = np.random.default_rng(4)
    y_true = rng.normal(size=200_000)
    y_quantiles = np.broadcast_to(norm.ppf(QUANTILE_LEVELS), (len(y_true), 19))
    loss = quantile_crps_loss(y_true, y_quantiles, QUANTILE_LEVELS) * np.abs(y_true).mean()
    assert loss / GAUSSIAN_CRPS == pytest.approx(1.048, abs=0.01)


def test_few_draws_warn_for_the_quantile_method_only(panel):
    y_true, y_draws, _ = panel
    with pytest.warns(UserWarning, match="n_draws=19"):
        crps_loss(y_true, y_draws[:, :19], method="quantile")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crps_loss(y_true, y_draws[:, :20], method="quantile")
        crps_loss(y_true, y_draws[:, :5])


def test_unscored_cells_do_not_count(panel):
    y_true, y_draws, mask = panel
    loss = crps_loss(y_true, y_draws, mask=mask)
    hidden_truth = np.where(mask, y_true, np.nan)
    assert crps_loss(hidden_truth, y_draws) == loss
    garbage = np.where(mask[:, None], y_draws, np.nan)
    assert crps_loss(y_true, garbage, mask=mask) == loss


def test_a_large_offset_keeps_the_digits():
    rng = np.random.default_rng(5)
    y_true, y_draws = rng.integers(0, 9, 50), rng.integers(0, 9, (50, 30))
    offset = 10**9
    assert crps_loss(y_true + offset, y_draws + offset) == crps_loss(y_true, y_draws)


def test_chunks_do_not_change_the_result(panel, monkeypatch):
    y_true, y_draws, mask = panel
    whole = [crps_loss(y_true, y_draws, mask=mask, method=m) for m in METHODS]
    monkeypatch.setattr("skdiffusion.metrics._cells.CHUNK_NUMBERS", 60)
    parts = [crps_loss(y_true, y_draws, mask=mask, method=m) for m in METHODS]
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


METHODS = ("fair", "ensemble", "quantile")


@pytest.mark.parametrize(("method", "n_cells"), [("fair", 10**5), ("ensemble", 2000)])
def test_memory_is_bounded(method, n_cells):
    rng = np.random.default_rng(6)
    y_true = rng.normal(size=n_cells)
    y_draws = rng.normal(size=(n_cells, 100)).astype(np.float32)
    tracemalloc.start()
    crps_loss(y_true, y_draws, method=method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # all pairs of 2000 x 100 would take 160 MB


reals = st.floats(-1e3, 1e3).map(lambda v: round(v, 6))
samples = st.tuples(st.integers(1, 6), st.integers(2, 8)).flatmap(
    lambda shape: st.tuples(
        arrays(float, shape[0], elements=reals), arrays(float, shape, elements=reals)
    )
)


@settings(max_examples=60, deadline=None)
@given(samples, st.floats(0.01, 100), st.floats(-100, 100))
def test_shift_scale_and_order_of_draws(sample, scale, shift):
    y_true, y_draws = sample
    for method in ("fair", "ensemble"):
        loss = crps_loss(y_true, y_draws, method=method)
        moved = crps_loss(scale * y_true + shift, scale * y_draws + shift, method=method)
        assert moved == pytest.approx(scale * loss, rel=1e-6, abs=1e-6)
        mirrored = crps_loss(-y_true, -y_draws[:, ::-1], method=method)
        assert mirrored == pytest.approx(loss, rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(samples)
def test_ensemble_lies_between_zero_and_the_mean_absolute_error(sample):
    y_true, y_draws = sample
    loss = crps_loss(y_true, y_draws, method="ensemble")
    assert -1e-9 <= loss <= np.abs(y_draws - y_true[:, None]).mean() + 1e-9
    assert crps_loss(y_true, y_draws) <= loss + 1e-9


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x + 0.5, lambda x: 1.6 * x, lambda x: 0.5 * x, np.abs],
    ids=["biased", "wide", "narrow", "folded"],
)
@pytest.mark.parametrize("method", METHODS)
def test_the_true_distribution_scores_best(wrong, method):
    rng = np.random.default_rng(7)
    y_true, y_draws = rng.normal(size=2000), rng.normal(size=(2000, 40))
    # Each wrong forecast costs at least 7 % in expectation, about eight times the sampling error.
    assert crps_loss(y_true, y_draws, method=method) < crps_loss(
        y_true, wrong(y_draws), method=method
    )


@pytest.mark.parametrize(
    ("y_true", "y_draws", "options", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], {}, r"must have shape \(2, n_draws\).*y_draws\[:, None\]"),
        ([[1.0], [2.0]], np.zeros((2, 1, 3)), {}, r"\(2, n_draws, 1\)"),
        ([1.0, 2.0], np.zeros((2, 0)), {}, "n_draws"),
        ([1.0, 2.0], np.zeros((2, 1)), {}, "at least 2 draws.*ensemble"),
        ([np.nan, np.nan], np.zeros((2, 3)), {}, "no cell left"),
        ([1.0, 2.0], np.zeros((2, 3)), {"mask": np.zeros(2, bool)}, "no cell left"),
        ([1.0, 2.0], np.zeros((2, 3)), {"mask": np.ones(3, bool)}, "mask has shape"),
        ([1.0, 2.0], np.zeros((2, 3)), {"mask": np.ones(2)}, "mask must be boolean"),
        ([1.0, 2.0], np.full((2, 3), np.nan), {}, "y_draws contains NaN"),
        ([1.0, np.inf], np.zeros((2, 3)), {}, "y_true contains infinity"),
        ([1.0, 2.0], np.zeros((2, 3), complex), {}, "Complex"),
        (3.0, np.zeros(3), {}, "single number"),
        ([1.0, 2.0], np.zeros((2, 3)), {"method": "best"}, '"fair", "ensemble" or "quantile"'),
        ([0.0, 0.0], np.zeros((2, 30)), {"method": "quantile"}, "divides by"),
    ],
)
def test_wrong_input_is_named(y_true, y_draws, options, message):
    with pytest.raises(ValueError, match=message):
        crps_loss(y_true, y_draws, **options)


@pytest.mark.parametrize(
    ("levels", "message"), [([0.1, 0.5], "3 on axis 1"), ([0.0, 0.5, 1.0], r"in \(0, 1\)")]
)
def test_wrong_levels_are_named(levels, message):
    with pytest.raises(ValueError, match=message):
        quantile_crps_loss([1.0, 2.0], np.zeros((2, 3)), levels)


def test_arguments_are_left_alone(panel):
    y_true, y_draws, mask = panel
    copies = [a.copy() for a in panel]
    for array in panel:
        array.flags.writeable = False
    for method in METHODS:
        crps_loss(y_true, y_draws, mask=mask, method=method)
    for array, copy in zip(panel, copies):
        np.testing.assert_array_equal(array, copy)
