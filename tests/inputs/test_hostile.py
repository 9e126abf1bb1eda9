"""Inputs that nobody means to give: they work, or what is said names them and the remedy."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE

RNG = np.random.default_rng(0)
N = 120
X = RNG.normal(size=(N, 3))
X[:, 2] += X[:, 0]
GAPS = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
GAPS[:, 0] = X[:, 0]
Y = X.sum(1) + RNG.normal(size=N)
NAMES = ["a", "b", "c"]


def imputer(**options):
    return CSDIImputer(method="gaussian", n_draws=5, random_state=0, **options)


def density(**options):
    return ScoreSDE(base="gaussian", max_iter=0, random_state=0, **options)


def pooled(regression=None):
    return MultipleImputation(imputer(), regression or LinearRegression(), 3, random_state=0)


# Numbers at the end of the range.


def test_coefficients_beyond_double_precision_are_not_pooled_and_predictions_are_made():
    model = pooled().fit(GAPS * [1, 1e-300, 1], Y)
    assert np.isfinite(model.predict(GAPS * [1, 1e-300, 1])).all()
    with pytest.raises(AttributeError, match=r"\['intercept', 'x1'\].*not finite.*other units"):
        model.pooled_  # noqa: B018


@pytest.mark.parametrize("ahead", [False, True])
def test_a_regression_on_subnormal_columns_is_refused_by_name(ahead):
    # Its coefficients were infinite, and every prediction NaN.
    steps = (FunctionTransformer(), LinearRegression())
    model = pooled(make_pipeline(*steps) if ahead else steps[1])
    with pytest.raises(ValueError, match=r"columns \['x0', 'x1', 'x2'\].*other units"):
        model.fit(GAPS * 1e-310, Y)


@pytest.mark.parametrize("scale", [1e-9, 1e-150, 1e9])
def test_columns_that_least_squares_leaves_out_are_named(scale):
    units = np.array([1, scale, 1])
    named = r"\['x1'\]" if scale < 1 else r"\['x0', 'x2'\]"
    with pytest.warns(
        UserWarning, match=f"no coefficients for the columns {named}.*StandardScaler"
    ):
        pooled().fit(GAPS * units, Y)


def test_the_remedy_for_columns_left_out_gives_their_coefficients(recwarn):
    scaled = make_pipeline(StandardScaler(), LinearRegression())
    found, wanted = pooled(scaled).fit(GAPS * [1, 1e-9, 1], Y), pooled(scaled).fit(GAPS, Y)
    assert not recwarn.list
    # Draws are others in other units.
    difference = np.abs(found.pooled_.estimate - wanted.pooled_.estimate)
    assert (difference < wanted.pooled_.standard_error).all()
    assert (found.pooled_.estimate[1:] > 5 * found.pooled_.standard_error[1:]).all()


# Tensors.


@pytest.mark.parametrize("kind", ["tracked", "bfloat16", "list"])
def test_tensors_are_read_as_arrays(kind):
    values = torch.tensor(GAPS)
    if kind == "bfloat16":
        values = values.bfloat16()
    plain = values.float().numpy() if kind == "bfloat16" else GAPS
    tensor = values.requires_grad_()
    if kind == "list":
        found = imputer().fit([tensor, tensor]).transform([tensor, tensor])
        wanted = imputer().fit([plain, plain]).transform([plain, plain])
        np.testing.assert_array_equal(found, wanted)
        return
    np.testing.assert_array_equal(
        imputer().fit(tensor).transform(tensor), imputer().fit(plain).transform(plain)
    )
    found = density(handle_missing="impute").fit(tensor).impute(tensor)
    np.testing.assert_array_equal(found, density(handle_missing="impute").fit(plain).impute(plain))
    assert tensor.requires_grad


def test_tracked_tensors_are_read_wherever_data_go():
    tracked, targets = torch.tensor(X, requires_grad=True), torch.tensor(Y, requires_grad=True)
    starts = LangevinSampler(init=X, random_state=0, n_steps=5).fit(X).sample(3)
    found = LangevinSampler(init=tracked, random_state=0, n_steps=5).fit(tracked).sample(3)
    np.testing.assert_array_equal(found, starts)
    assert density().fit(tracked).score(tracked) == density().fit(X).score(X)
    wanted = density(condition="value").fit(X, Y[:, None]).score(X, Y[:, None])
    assert density(condition="value").fit(tracked, targets[:, None]).score(X, targets[:, None]) == (
        wanted
    )
    found = pooled().fit(GAPS, targets).pooled_.estimate
    np.testing.assert_array_equal(found, pooled().fit(GAPS, Y).pooled_.estimate)


# Times of which only some have a zone.

NAIVE = pd.date_range("2020-03-01", periods=N, freq="h")
MIXED = list(NAIVE[:60]) + list(NAIVE[60:].tz_localize("UTC"))


def test_times_with_and_without_a_zone_are_refused_by_row():
    with pytest.raises(
        ValueError, match=r"timestamps has times .* in the rows 60 and 0: .*utc=True"
    ):
        imputer(window_length=12).fit(GAPS, timestamps=MIXED)
    zones = list(NAIVE[:60].tz_localize("UTC")) + list(
        NAIVE[60:].tz_localize("UTC").tz_convert("Asia/Tokyo")
    )
    assert imputer(window_length=12).fit(GAPS, timestamps=zones).time_step_ == 3600
    with pytest.raises(ValueError, match="missing value at row 5: drop the row"):
        imputer(window_length=12).fit(GAPS, timestamps=[*zones[:5], pd.NaT, *zones[6:]])


@pytest.mark.parametrize("index", ["frame", "levels", "columns"])
@pytest.mark.parametrize("kind", ["stamps", "text", "plain text"])
def test_the_remedy_for_an_index_of_objects_helps(index, kind):
    times = {"stamps": MIXED, "text": list(map(str, MIXED)), "plain text": list(map(str, NAIVE))}
    frame, times = pd.DataFrame(GAPS, columns=NAMES), times[kind]
    options, read = {}, "" if kind == "plain text" else ", format='mixed', utc=True"
    if index == "frame":
        frame.index = pd.Index(times, dtype=object)
    elif index == "levels":
        frame.index = pd.MultiIndex.from_arrays([np.repeat([0, 1], N // 2), times])
    else:
        frame = frame.assign(id=np.repeat([0, 1], N // 2), t=times)
        options["panel_columns"] = ("id", "t")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        imputer(**options).fit(frame)
    (text,) = [str(w.message) for w in said if "not read as times" in str(w.message)]
    assert f"pd.to_datetime(X.index{read})" in text
    options = {} if kind == "plain text" else {"format": "mixed", "utc": True}
    assert pd.to_datetime(times, **options).diff().max() == pd.Timedelta(hours=1)


# Rows without any value, and rows that repeat.


def test_rows_without_any_value_are_drawn_from_the_density():
    model = density().fit(X)
    draws = model.impute(np.full((1500, 3), np.nan))
    for j in range(3):
        law = stats.norm(X[:, j].mean(), X[:, j].std())
        assert stats.kstest(draws[:, j], law.cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(draws.T), np.corrcoef(X.T), atol=0.1)


@pytest.mark.parametrize("max_iter", [0, 40])
def test_a_kernel_estimate_of_repeated_rows_is_that_of_the_rows(max_iter):
    fresh = np.random.default_rng(5).normal(size=(500, 2)) @ [[1, 1], [0, 1]]
    rows = np.random.default_rng(6).normal(size=(60, 2)) @ [[1, 1], [0, 1]]
    options = {"base": "kde", "hidden_layer_sizes": (16,), "marginals": None, "random_state": 0}
    once = ScoreSDE(max_iter=0, **options).fit(rows).score(fresh)
    often = ScoreSDE(max_iter=max_iter, **options).fit(np.repeat(rows, 5, axis=0)).score(fresh)
    assert often == pytest.approx(once, abs=0.05 if max_iter else 1e-9)


@pytest.mark.parametrize("n_distinct", [1, 2, 17])
def test_tables_of_few_different_rows_are_filled_with_what_they_hold(n_distinct):
    rows = 5.0 + np.repeat(X[:n_distinct, :1], 400 // n_distinct, axis=0) * [1, -1, 2]
    hidden = RNG.random(rows.shape) < 0.2
    hidden[:, 0] = False
    filled = imputer().fit(np.where(hidden, np.nan, rows)).transform(np.where(hidden, np.nan, rows))
    # The columns follow from each other, but for a hundredth of their spread.
    assert np.abs(filled - rows).max() < 0.1 * max(1e-3, rows.std())


def test_a_column_of_three_values_is_named_however_few_its_different_rows():
    for n_features in (1, 2):
        few = np.random.default_rng(0).choice([0.1, 0.5, np.pi], size=(300, n_features))
        with pytest.warns(UserWarning, match="repeat more than half"):
            density().fit(few)


def test_copies_say_the_same_thing_once():
    model = pooled().set_params(n_imputations=6).fit(GAPS, Y)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.predict(10 * GAPS + 1000)
    texts = [str(w.message) for w in said]
    assert sorted(text[:12] for text in texts) == [f"Column x{j} of" for j in range(3)]
    assert {w.filename for w in said} == {__file__}


def test_training_that_leaves_the_numbers_says_so():
    network = {"base": None, "hidden_layer_sizes": (16,), "max_iter": 60, "random_state": 0}
    start = ScoreSDE(**network | {"max_iter": 0}).fit(X)
    with pytest.warns(ConvergenceWarning, match=r"not finite from step 3 on.* of step 0"):
        found = ScoreSDE(learning_rate=1e3, **network).fit(X)
    assert found.score(X) == pytest.approx(start.score(X), abs=1e-3)


@pytest.mark.parametrize("form", ["array", "frame"])
def test_a_column_without_values_is_refused_by_multiple_imputation(form):
    # An imputer drops it, and y would take its place among the columns that predict y.
    empty = np.c_[GAPS, np.full(N, np.nan)]
    empty = pd.DataFrame(empty, columns=[*NAMES, "d"]) if form == "frame" else empty
    with pytest.raises(
        ValueError, match=r"Columns \['d'\]" if form == "frame" else r"Columns \[3\]"
    ):
        pooled().fit(empty, Y)


@pytest.mark.parametrize("cell", [[1], {}, pd.Interval(0, 1), pd.Period("2020")])
@pytest.mark.parametrize("new", [density, lambda: LangevinSampler(n_steps=5), imputer])
def test_cells_that_are_no_numbers_are_named(new, cell):
    with pytest.raises((TypeError, ValueError), match=r"Columns \['a'\] of X"):
        new().fit(pd.DataFrame({"a": [cell] * N, "b": X[:, 0]}))


def test_rows_that_lie_in_a_plane_are_said_to():
    with pytest.warns(UserWarning, match="20 rows for 30 columns: they lie in a plane"):
        density().fit(np.random.default_rng(0).normal(size=(20, 30)))


@pytest.mark.parametrize("new", [density, lambda: LangevinSampler(n_steps=5), imputer, pooled])
@pytest.mark.parametrize("data", [{1, 2}, iter([])])
def test_what_is_no_table_is_refused_by_its_kind(new, data):
    with pytest.raises((TypeError, ValueError), match=r"X is a (set|list_iterator)|X has no chunk"):
        new().fit(data, *([Y] if new is pooled else []))


def test_read_only_data_warn_of_nothing(recwarn):
    frozen = X.copy()
    frozen.flags.writeable = False
    model = density().fit(frozen)
    model.inverse_transform(model.transform(frozen))
    once = model.transform(frozen)
    once.flags.writeable = False
    np.testing.assert_allclose(model.inverse_transform(once), X, atol=1e-4)
    LangevinSampler(random_state=0, n_steps=5).fit(frozen).transform(frozen)
    imputer().fit(frozen).transform(frozen)
    assert not [w for w in recwarn.list if "writable" in str(w.message)]


def test_text_in_a_frame_gets_a_remedy_that_a_frame_can_follow():
    frame = pd.DataFrame({"a": X[:, 0], "town": ["Rome", "Oslo"] * (N // 2)})
    with pytest.raises(ValueError, match=r"Columns \['town'\] .* or turn them into numbers"):
        LangevinSampler().fit(frame)
