"""What can go wrong beside estimators: in metrics, scorers, displays, loaders and the wrapper."""

import numpy as np
import pytest
import test_failures as table
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression

from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE, datasets, inspection, metrics
from skdiffusion.datasets._beijing import _in_period
from skdiffusion.estimators import conformalize, pool_rubin

X, GAPS, Y = table.X, table.GAPS, table.Y
INFINITE = table.with_value(np.inf)
DRAWS = np.random.default_rng(0).normal(size=(80, 20, 3))
HOLED = np.where(np.abs(DRAWS) > 3, np.nan, DRAWS)
TEXT = np.full(X.shape, "a")
TIMES = np.arange("2013-03-01", "2013-04-01", dtype="M8[h]").astype("M8[s]")
LINE = LinearRegression().fit(X, Y)
pytestmark = pytest.mark.filterwarnings("ignore")

OF_DRAWS = ["crps_loss", "energy_score", "interval_coverage", "pit_values"]
OF_POINTS = ["mean_absolute_error", "root_mean_squared_error", "relative_squared_error"]
BAD_TRUTH = {
    "all missing": (np.full_like(X, np.nan), "no cell left to score"),
    "infinity": (INFINITE, "y_true contains infinity"),
    "text": (TEXT, "y_true must hold numbers"),
    "complex": (X + 1j, "Complex data not supported: y_true"),
}


@pytest.mark.parametrize("kind", BAD_TRUTH)
@pytest.mark.parametrize("name", OF_DRAWS + OF_POINTS)
def test_bad_truths_are_named(name, kind):
    truth, message = BAD_TRUTH[kind]
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(truth, DRAWS if name in OF_DRAWS else X)


@pytest.mark.parametrize("name", OF_DRAWS)
def test_bad_draws_are_named(name):
    metric = getattr(metrics, name)
    for draws, message in [
        (HOLED, "y_draws contains NaN"),
        (DRAWS[:, :, :2], r"must have shape \(80, n_draws, 3\)"),
        (DRAWS[:, :0], r"got \(80, 0, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric(X, draws)


SCORERS = metrics.get_scorer_names()


def of_scorer(name):
    """What a scorer is for: an estimator and data."""
    of_density = name in ("log_likelihood", "neg_nll_bound", "neg_sliced_wasserstein")
    return ("density", X) if of_density else ("imputer", GAPS)


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_name_what_they_cannot_score(name):
    scorer, (kind, data) = metrics.get_scorer(name), of_scorer(name)
    model = table.fitted(kind)
    for arguments, error, message in [
        ((model, INFINITE), ValueError, r"infinity in the columns \[1\]|X must be a finite array"),
        ((model, data[:, :2]), ValueError, "X has 2 features|X has 3 features, but Y has 2"),
        ((model, data[:0]), ValueError, "0 sample|finite array|n_samples=0"),
        ((clone(model), data), NotFittedError, "not fitted"),
        ((LINE, X), TypeError, "LinearRegression (is no imputer|has no)"),
        ((type(model), data), TypeError, "is the class .*pass an instance"),
    ]:
        with pytest.raises(error, match=message):
            scorer(*arguments)


SHOWN = {
    "ranks of text": (lambda: inspection.PITDisplay(["a"]), "values must hold numbers"),
    "ranks with gaps": (lambda: inspection.PITDisplay([0.1, np.nan]), "values must be"),
    "no ranks": (lambda: inspection.ReliabilityDisplay([]), "values is empty"),
    "no bars": (lambda: inspection.PITDisplay([0.1]).plot(n_bins=0), "n_bins=0 must be"),
    "half a bar": (lambda: inspection.PITDisplay([0.1]).plot(n_bins=2.5), "n_bins=2.5 must be"),
    "a kind": (lambda: inspection.ReliabilityDisplay([0.1]).plot(kind="x"), "kind must be"),
    "draws with gaps": (lambda: inspection.PITDisplay.from_draws(X, HOLED), "y_draws contains NaN"),
    "a line that draws nothing": (
        lambda: inspection.PITDisplay.from_estimator(LINE, X), "no imputer",
    ),
    "no history": (lambda: inspection.LossCurveDisplay(None), "must be a dict"),
    "no keys": (lambda: inspection.LossCurveDisplay({}), "must have the keys"),
    "history of a line": (
        lambda: inspection.LossCurveDisplay.from_estimator(LINE), "has no history_",
    ),
    "history of a base": (
        lambda: inspection.LossCurveDisplay.from_estimator(table.fitted("density")), "closed form",
    ),
    "losses that are none": (
        lambda: inspection.LossCurveDisplay(
            {"loss": [np.nan], "validation": [], "best_step": 0}
        ).plot(),
        "'loss'.* contains NaN",
    ),
    "density with gaps": (
        lambda: inspection.DensityDisplay.from_estimator(table.fitted("density"), GAPS),
        "X contains NaN",
    ),
    "density of one axis": (
        lambda: inspection.DensityDisplay.from_estimator(table.fitted("density"), Y), "n_features",
    ),
    "density of one feature": (
        lambda: inspection.DensityDisplay.from_draws(X, (0, 0)), "two features",
    ),
    "density of a line": (
        lambda: inspection.DensityDisplay.from_estimator(LINE, X), "has no sample",
    ),
    "density of text": (lambda: inspection.DensityDisplay.from_draws(TEXT), "must hold numbers"),
    "density of nothing": (lambda: inspection.DensityDisplay.from_draws(X[:0]), "draws is empty"),
    "density without cells": (
        lambda: inspection.DensityDisplay.from_draws(X, n_cells=0), "n_cells=0",
    ),
    "paths of two axes": (lambda: inspection.TrajectoryDisplay(X), "trajectory must have shape"),
    "paths with gaps": (lambda: inspection.TrajectoryDisplay(HOLED), "trajectory contains NaN"),
    "a feature as a number": (
        lambda: inspection.TrajectoryDisplay(DRAWS, features=0), "two features",
    ),
    "names of features": (
        lambda: inspection.TrajectoryDisplay(DRAWS, features="ab"), "two features",
    ),
    "no moments": (lambda: inspection.TrajectoryDisplay(DRAWS).plot(0), "n_moments=0"),
    "paths of a density": (
        lambda: inspection.TrajectoryDisplay.from_estimator(table.fitted("density")), "no chains",
    ),
    "no path": (lambda: inspection.TraceDisplay(DRAWS[:0]), "trajectory is empty"),
    "half a feature": (lambda: inspection.TraceDisplay(DRAWS, feature=0.5), "feature=0.5 is none"),
    "a far feature": (lambda: inspection.TraceDisplay(DRAWS, feature=9), "feature=9 is none"),
    "infinite paths": (
        lambda: inspection.TraceDisplay(np.where(DRAWS > 2, np.inf, DRAWS)), "infinity",
    ),
    "gaps unfilled": (
        lambda: inspection.ImputationDisplay(GAPS[:, 0], np.full((80, 5), np.nan)), "in the gaps",
    ),
    "gaps of no draws": (
        lambda: inspection.ImputationDisplay(GAPS[:, 0], DRAWS[:, :0, 0]), "draws is empty",
    ),
    "gaps beside infinity": (
        lambda: inspection.ImputationDisplay(INFINITE[:, 1], DRAWS[:, :, 0]), "observed contains",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHOWN)
def test_displays_name_what_they_cannot_show(kind):
    call, message = SHOWN[kind]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize(
    ("display", "estimator"),
    [
        (inspection.PITDisplay, CSDIImputer()),
        (inspection.ImputationDisplay, CSDIImputer()),
        (inspection.DensityDisplay, ScoreSDE()),
        (inspection.TraceDisplay, LangevinSampler()),
        (inspection.TrajectoryDisplay, LangevinSampler()),
    ],
)
def test_displays_need_fitted_estimators(display, estimator):
    chains = isinstance(estimator, LangevinSampler)
    with pytest.raises(NotFittedError):
        display.from_estimator(estimator, *([] if chains else [X]))
    with pytest.raises(TypeError, match=r"class"):
        display.from_estimator(type(estimator), *([] if chains else [X]))


FETCHED = {
    "physionet2012": (datasets.fetch_physionet2012, "set-a.tar.gz"),
    "beijing_air_quality": (
        datasets.fetch_beijing_air_quality, "beijing+multi+site+air+quality+data.zip",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FETCHED)
def test_loaders_name_what_is_not_there_or_broken(name, tmp_path):
    fetch, file = FETCHED[name]
    with pytest.raises(OSError, match=r"not found; set download_if_missing=True"):
        fetch(data_home=tmp_path, download_if_missing=False)
    with pytest.raises(TypeError, match="data_home=3 must be the path"):
        fetch(data_home=3)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"data_home leads to .*file, which is no folder"):
        fetch(data_home=tmp_path / "file")
    path = tmp_path / name / file
    path.mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="is a folder, but should be a file"):
        fetch(data_home=tmp_path)
    path.rmdir()
    path.write_bytes(b"x")
    with pytest.raises(OSError, match=r"is corrupt .* delete it"):
        fetch(data_home=tmp_path)


MADE = {
    "a start that is none": (lambda: _in_period(TIMES, "x", None), "start='x' must be a time"),
    "an end that is none": (lambda: _in_period(TIMES, None, 3), "end=3 must be a time"),
    "an end before the start": (
        lambda: _in_period(TIMES, "2013-03-20", "2013-03-10"), "no hour between",
    ),
    "no components": (lambda: datasets.make_gaussian_mixture(0), "n_components=0 must be"),
    "half a component": (lambda: datasets.make_gaussian_mixture(2.5), "n_components=2.5 must be"),
    "a variable": (lambda: datasets.fetch_beijing_air_quality(variable="x"), "variable must be"),
    "gaps in infinity": (lambda: datasets.ampute(INFINITE), r"infinity in the columns \[1\]"),
    "all gaps": (lambda: datasets.ampute(X, missing_rate=2), "missing_rate must lie"),
    "a mechanism": (lambda: datasets.ampute(X, mechanism="x"), "mechanism must be"),
    "many columns": (
        lambda: CSDIImputer().fit(np.full((9, 40), np.inf)), r"columns \[0, .* 8\] and 31 more:",
    ),
    "intervals of a class": (lambda: conformalize(CSDIImputer, X), "pass an instance"),
    "intervals of infinity": (
        lambda: conformalize(table.fitted("imputer"), INFINITE), r"infinity in the columns \[1\]",
    ),
    "intervals of few cells": (
        lambda: conformalize(table.fitted("imputer"), X[:9]).predict_quantiles(GAPS, [0.01]),
        "takes at least 99 calibration cells",
    ),
    "levels of text": (
        lambda: table.fitted("imputer").predict_quantiles(GAPS, "a"), "quantiles='a' must be",
    ),
    "nothing to pool": (lambda: pool_rubin([[1.0]], [[1.0]]), "at least 2 imputations"),
    "gaps to pool": (lambda: pool_rubin([[1.0], [np.nan]], [[1.0], [1.0]]), "must be finite"),
    "variances below zero": (lambda: pool_rubin([[1.0], [2.0]], [[-1.0], [1.0]]), "not negative"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_what_cannot_be_made_is_named(kind):
    call, message = MADE[kind]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


SCALES = st.sampled_from([1e-30, 1e-12, 1e-3, 1.0, 1e5, 1e18, 1e30])
FORMS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "big-endian": lambda x: x.astype(">f8"),
    "single": lambda x: x.astype(np.float32),
    "objects": lambda x: x.astype(object),
    "lists": lambda x: x.tolist(),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    scale=SCALES,
    offset=st.sampled_from([0.0, -3.0, 1e4]),
    form=st.sampled_from(sorted(FORMS)),
    rate=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_gaps_are_filled_whatever_the_units_and_the_form(scale, offset, form, rate):
    """Filled cells lie where the columns lie, and observed ones are what they were."""
    data = np.where(np.random.default_rng(1).random(X.shape) < rate, np.nan, scale * (X + offset))
    data[0] = scale * (X[0] + offset)
    given_data = FORMS[form](data)
    filled = np.asarray(CSDIImputer(**table.CLOSED).fit(given_data).transform(given_data), float)
    seen, known = np.asarray(given_data, dtype=float), ~np.isnan(data)
    np.testing.assert_array_equal(filled[known], seen[known])
    assert np.isfinite(filled).all()
    centred = filled / scale - offset
    # Eight standard deviations, and what single precision keeps of the offset.
    assert np.abs(centred).max() < 8 * X.std() + 1e-6 * abs(offset)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(scale=SCALES, offset=st.sampled_from([0.0, 1e4]), form=st.sampled_from(sorted(FORMS)))
def test_densities_follow_the_units_whatever_the_form(scale, offset, form):
    """log p(scale x) = log p(x) - d log scale."""
    moved = FORMS[form](scale * (X + offset))
    found = ScoreSDE(**table.BASE).fit(moved).score_samples(moved)
    expected = table.fitted("density").score_samples(X) - 3 * np.log(scale)
    # Single precision keeps 1e-3 of a unit beside an offset of 1e4.
    np.testing.assert_allclose(found, expected, atol=0.05 if form == "single" else 1e-5)
