"""Displays of gaps, calibration, densities and losses show the numbers they are given."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skdiffusion import CSDIImputer
from skdiffusion.inspection import (
    DensityDisplay,
    ImputationDisplay,
    LossCurveDisplay,
    PITDisplay,
    ReliabilityDisplay,
)


@pytest.fixture(autouse=True)
def no_window():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.fixture
def gap():
    """A frame with a gap of three hours in its second column, and draws 0 to 18 there."""
    index = pd.date_range("2020-01-01", periods=10, freq="h", name="time")
    X = pd.DataFrame({"wind": np.arange(10.0), "rain (mm)": np.arange(10.0) + 100}, index=index)
    truth = X.copy()
    X.iloc[4:7, 1] = np.nan
    draws = np.repeat(truth.to_numpy()[:, None], 19, axis=1)
    draws[4:7, :, 1] = np.arange(19)
    return X, draws, truth


def test_bands_are_quantiles_in_the_gap_and_close_on_the_data(gap):
    X, draws, truth = gap
    display = ImputationDisplay.from_draws(X, draws, "rain (mm)", truth=truth).plot()
    # Order statistics 1 and 19 of 19 draws enclose 90 %.
    corners = display.bands_[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0)
    assert corners[:, 1].max() == pytest.approx(107)
    np.testing.assert_array_equal(
        display.median_.get_ydata(), [np.nan] * 3 + [103, 9, 9, 9, 107] + [np.nan] * 2
    )
    np.testing.assert_array_equal(display.observed_.get_ydata(), X["rain (mm)"])
    shown = display.truth_.get_ydata()
    np.testing.assert_array_equal(shown[4:7], [104, 105, 106])
    assert np.isnan(np.delete(shown, [4, 5, 6])).all()
    assert display.ax_.get_ylabel() == "rain (mm)"
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[:3] == ["90 % band", "50 % band", "median of the draws"]


def test_rows_choose_a_part_and_an_estimator_draws(gap):
    X = gap[0]
    X = pd.concat([X] * 4).reset_index(drop=True)
    imputer = CSDIImputer(method="gaussian", window_length=5, random_state=0).fit(X)
    display = ImputationDisplay.from_estimator(imputer, X, 1, rows=slice(2, 9), n_draws=9).plot()
    np.testing.assert_array_equal(display.times, np.arange(2, 9))
    np.testing.assert_array_equal(display.draws, imputer.sample(X, 9)[2:9, :, 1])
    assert display.truth_ is None


def test_pit_bars_are_the_shares_of_places():
    y_draws = np.tile(np.arange(9.0), (10, 1))
    display = PITDisplay.from_draws(np.arange(10) - 0.5, y_draws).plot(n_bins=10)
    np.testing.assert_allclose([bar.get_height() for bar in display.bars_], 1)
    low = PITDisplay.from_draws(np.full(10, -1.0), y_draws).plot(n_bins=10)
    np.testing.assert_allclose([bar.get_height() for bar in low.bars_], [10, *[0] * 9])


def test_reliability_is_the_coverage_of_intervals_and_quantiles():
    values = (np.arange(1000) + 0.5) / 1000
    levels = np.linspace(0, 1, 101)
    for kind in ("intervals", "quantiles"):
        line = ReliabilityDisplay(values).plot(kind=kind).line_
        np.testing.assert_allclose(line.get_xdata(), levels)
        np.testing.assert_allclose(line.get_ydata(), levels, atol=2e-3)
    # Draws half as wide as the truth: |z| < 0.5 z_p.
    rng = np.random.default_rng(0)
    y_draws = 0.5 * rng.normal(size=(4000, 99))
    narrow = ReliabilityDisplay.from_draws(rng.normal(size=4000), y_draws).plot().line_
    exact = 2 * stats.norm.cdf(0.5 * stats.norm.isf((1 - 0.8) / 2)) - 1
    assert narrow.get_ydata()[80] == pytest.approx(exact, abs=0.05)


def test_two_curves_share_one_diagonal():
    values = np.random.default_rng(0).uniform(size=50)
    first = ReliabilityDisplay(values, name="a").plot()
    ReliabilityDisplay(values, name="b").plot(first.ax_)
    assert [line.get_label() for line in first.ax_.lines] == ["perfect calibration", "a", "b"]


def test_calibration_of_an_estimator_hides_cells():
    X = np.random.default_rng(0).normal(size=(300, 3))
    imputer = CSDIImputer(method="gaussian", random_state=0).fit(X)
    display = PITDisplay.from_estimator(imputer, X, missing_rate=0.2, n_draws=19)
    assert len(display.values) == pytest.approx(180, abs=2)
    assert stats.kstest(display.values, "uniform").pvalue > 1e-6


def test_density_on_a_grid_is_that_of_the_estimator():
    X = np.random.default_rng(0).normal(size=(300, 2)) * [1, 5]
    mixture = GaussianMixture(random_state=0).fit(X)
    display = DensityDisplay.from_estimator(mixture, X, (1, 0), n_cells=20).plot()
    x, y = ((edge[3] + edge[4]) / 2 for edge in display.edges)
    exact = np.exp(mixture.score_samples([[y, x]])[0])
    assert display.mesh_.get_array()[3, 3] == pytest.approx(exact)
    assert display.ax_.get_xlabel() == "feature 1"
    np.testing.assert_array_equal(display.points_.get_offsets(), X[:, [1, 0]])


@pytest.mark.parametrize("estimator", [GaussianMixture(), KernelDensity(bandwidth=0.3)])
def test_density_of_a_pair_of_many_features_is_that_of_draws(estimator):
    X = np.random.default_rng(0).normal(size=(500, 3))
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    display = DensityDisplay.from_estimator(estimator.fit(X), frame, ("a", "c"), n_cells=10)
    area = np.diff(display.edges[0])[:, None] * np.diff(display.edges[1])
    assert (display.density * area).sum() == pytest.approx(1, abs=0.05)
    assert display.names == ("a", "c")


def test_counted_draws_integrate_to_one():
    display = DensityDisplay.from_draws(np.random.default_rng(0).normal(size=(500, 2)))
    area = np.diff(display.edges[0])[:, None] * np.diff(display.edges[1])
    assert (display.density * area).sum() == pytest.approx(1)


def test_loss_curve_shows_the_history():
    history = {"loss": [4.0, 2, 1], "validation": [(1, 3.0), (3, 2.0)], "best_step": 3}
    display = LossCurveDisplay(history).plot()
    np.testing.assert_array_equal(display.line_.get_xydata(), [[1, 4], [2, 2], [3, 1]])
    np.testing.assert_array_equal(display.validation_.get_xydata(), [[1, 3], [3, 2]])
    # Of a hundred steps two are averaged, and the average stands at the later one.
    display = LossCurveDisplay(history | {"loss": np.arange(100.0), "validation": []}).plot()
    np.testing.assert_allclose(display.line_.get_xydata()[0], [2, 0.5])
    assert display.validation_ is None


def test_loss_curve_of_an_estimator():
    X = np.random.default_rng(0).normal(size=(60, 2))
    small = {"n_layers": 1, "n_channels": 8, "early_stopping": False}
    imputer = CSDIImputer(max_iter=3, **small, random_state=0).fit(X)
    display = LossCurveDisplay.from_estimator(imputer).plot()
    np.testing.assert_allclose(display.line_.get_ydata(), imputer.history_["loss"])
    with pytest.raises(ValueError, match="closed form"):
        LossCurveDisplay.from_estimator(CSDIImputer(method="gaussian").fit(X))


def test_wrong_input_is_named(gap):
    X, draws, _ = gap
    with pytest.raises(ValueError, match="feature='snow'"):
        ImputationDisplay.from_draws(X, draws, "snow")
    with pytest.raises(ValueError, match="draws has 9 rows"):
        ImputationDisplay(np.zeros(10), np.zeros((9, 5)))
    with pytest.raises(ValueError, match="from_draws picks one feature"):
        ImputationDisplay(np.zeros((10, 2)), np.zeros((10, 5)))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        PITDisplay([2.0])
    with pytest.raises(ValueError, match="kind must be"):
        ReliabilityDisplay([0.5]).plot(kind="pit")
    with pytest.raises(ValueError, match="features has"):
        DensityDisplay.from_draws(np.zeros((4, 2)), (0, 2))
    with pytest.raises(ValueError, match="density has shape"):
        DensityDisplay(([0, 1], [0, 1]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="must have the keys"):
        LossCurveDisplay({"loss": [1.0]})
