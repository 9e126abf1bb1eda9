"""What goes wrong, and what the user is told: parameter or column, and the remedy."""

import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from skdiffusion import CSDIImputer
from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.estimators.imputation import _choice
from skdiffusion.estimators.imputation import _model as _imputer_model
from skdiffusion.training import imputation

GAUSSIAN = {"method": "gaussian", "n_draws": 4, "random_state": 0}
NETWORK = {"max_iter": 3, "n_draws": 4, "n_channels": 8, "random_state": 0}
BOTH = pytest.mark.parametrize("options", [GAUSSIAN, NETWORK], ids=["gaussian", "network"])


def table(n=50, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) @ rng.standard_normal((3, 3))
    X[rng.random(X.shape) < missing] = np.nan
    X[:, 0] = np.where(np.isnan(X).all(axis=1), 1.0, X[:, 0])
    return X


def series(n=60, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2)).cumsum(axis=0)


def fills(X, options, **more):
    """Fit and transform; check the promise and return the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = np.asarray(CSDIImputer(**options, **more).fit(X).transform(X), dtype=float)
    given = np.asarray(X, dtype=float)
    seen = ~np.isnan(given)
    np.testing.assert_array_equal(out[seen], given[seen])
    assert np.isfinite(out).all()
    return out


# ------------------------------------------------------------------ values


@BOTH
@pytest.mark.parametrize("kind", ["table", "panel", "series", "list"])
def test_infinity_is_not_missing(options, kind):
    X = {"table": table(), "panel": np.ones((12, 4, 2)), "series": series(), "list": [series()]}[
        kind
    ]
    (X[0] if kind == "list" else X)[1, 1] = np.inf
    length = 5 if kind in ("series", "list") else None
    with pytest.raises(ValueError, match=r"contains infinity in the columns \[(0, )?1\]"):
        CSDIImputer(**options, window_length=length).fit(X)


def test_nan_beside_another_mark_of_missing_values_is_told_so():
    imputer = CSDIImputer(**GAUSSIAN, missing_values=-999)
    frame = pd.DataFrame(table())
    for X in (frame, frame.to_numpy()):
        with pytest.raises(ValueError, match=r"contains NaN, but missing_values=-999 marks"):
            imputer.fit(X)
    fitted = imputer.fit(frame.fillna(-999))
    with pytest.raises(ValueError, match=r"set missing_values=np\.nan"):
        fitted.transform(frame)


@BOTH
@pytest.mark.parametrize("named", [True, False])
def test_an_empty_column_is_dropped_or_kept(options, named):
    X = table()
    X[:, 1] = np.nan
    X[:, 0] = np.arange(50)
    X = pd.DataFrame(X, columns=["a", "b", "c"]) if named else X
    name = r"\['b'\]" if named else r"\[1\]"
    with pytest.warns(UserWarning, match=f"Features {name} .* dropped: see keep_empty_features"):
        imputer = CSDIImputer(**options).fit(X)
    assert imputer.transform(X).shape == (50, 2)
    with pytest.warns(UserWarning, match=f"Features {name} .* filled with 0"):
        imputer = CSDIImputer(**options, keep_empty_features=True).fit(X)
    assert (np.asarray(imputer.transform(X))[:, 1] == 0).all()


def test_nothing_observed_at_all():
    with pytest.raises(ValueError, match="X has no observed value: there is nothing to learn"):
        CSDIImputer(**GAUSSIAN).fit(np.full((5, 3), np.nan))


@BOTH
def test_a_column_may_vanish_after_fit(options):
    X = table()
    X[:, 0] = np.arange(50)
    imputer = CSDIImputer(**options).fit(X)
    X[:, 1] = np.nan
    out = imputer.transform(X)
    assert np.isfinite(out).all()
    assert out.shape == X.shape


@BOTH
@pytest.mark.parametrize("kind", ["table", "panel", "list"])
def test_an_empty_row_is_kept_with_a_warning(options, kind):
    if kind == "table":
        X, length = table(), None
    elif kind == "panel":
        X, length = np.random.default_rng(0).standard_normal((12, 4, 2)), None
    else:
        X, length = [series(30, seed) for seed in range(5)], 5
    X[2][:] = np.nan
    imputer = CSDIImputer(**options, window_length=length).fit(X)
    with pytest.warns(UserWarning, match=r"1 of \d+ samples of X have no observed value"):
        out = imputer.transform(X)
    assert len(out) == len(X)
    assert np.isfinite(out[2]).all()


@BOTH
def test_complete_data_train_and_come_back_untouched(options, monkeypatch):
    X = table(missing=0)
    imputer = CSDIImputer(**options).fit(X)
    monkeypatch.setattr(_imputer_model.ImputationModel, "draw", None)
    assert imputer.transform(X).tobytes() == X.tobytes()
    assert imputer.sample(X, 3).shape == (50, 3, 3)


@BOTH
def test_a_constant_column_is_exact(options):
    X = table()
    X[:, 0], X[:, 2] = np.arange(50), 0.1
    X[::3, 2] = np.nan
    out = fills(X, options)
    assert (out[:, 2] == 0.1).all()


@BOTH
def test_all_rows_equal(options):
    X = np.full((20, 3), 2.5)
    X[::3, 1] = np.nan
    assert (fills(X, options) == 2.5).all()


def test_a_constant_column_that_moves_later_disturbs_nobody():
    X = table()
    X[:, 0], X[:, 2] = np.arange(50), 7.0
    imputer = CSDIImputer(**{**NETWORK, "early_stopping": False}).fit(X)
    # The same key for the noise, so that only the value of the constant column differs.
    moved = np.where([False, False, True], 1e9, X)
    a, b = (np.median(imputer.sample(x, 300), axis=1)[:, 1] for x in (X, moved))
    assert np.abs(a - b).max() < 0.6 * np.nanstd(X[:, 1])


@BOTH
@pytest.mark.parametrize("scale", [1e300, 1e30, 1e-30, 1e-300])
def test_any_scale(options, scale):
    X = table() * scale
    assert 0.5 < np.std(fills(X, options) / scale) / np.nanstd(X / scale) < 1.5


@BOTH
def test_a_large_offset(options):
    X = table()
    out = fills(X + 1e9, options)
    assert 0.5 < out.std() / np.nanstd(X) < 1.5


@BOTH
def test_one_impossible_record_does_not_rule_the_scale(options):
    X = table()
    X[3, 1] = 1e300
    imputer = CSDIImputer(**options).fit(X)
    filled = imputer.transform(X)[np.isnan(X)]
    assert np.abs(filled).max() < 1000
    assert imputer.transform(X)[3, 1] == 1e300


def test_the_largest_floats_stay_finite():
    X = np.clip(table() * 1e37, -3e38, 3e38).astype(np.float32)
    assert CSDIImputer(**GAUSSIAN).fit(X).transform(X).dtype == np.float32
    fills(X, GAUSSIAN)
    fills(table() * 1e306, GAUSSIAN)


def test_unscaled_data_with_scale_off_warn():
    X = pd.DataFrame(table() * [1, 100, 1] + [0, 1000, 0], columns=["a", "b", "c"])
    with pytest.warns(UserWarning, match=r"\['b'\].*set scale=True"):
        imputer = CSDIImputer(**GAUSSIAN, scale=False).fit(X)
    filled = imputer.transform(X)["b"][X["b"].isna()]
    assert filled.between(0, 2000).all()


# ------------------------------------------------------------------ types and layouts


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", "object", ">f8"])
def test_other_types_are_converted(options, dtype):
    X = (10 * table(missing=0)).astype(dtype)
    out = CSDIImputer(**options).fit_transform(X)
    assert out.dtype == np.float64


@pytest.mark.parametrize("options", [GAUSSIAN])
def test_nullable_types(options):
    X = pd.DataFrame(
        {
            "i": pd.array([1, 2, None, 4] * 6, dtype="Int64"),
            "f": pd.array([1.5, None, 3, 4] * 6, dtype="Float32"),
            "o": pd.Series([1, 2.5, pd.NA, 4] * 6, dtype=object),
            "x": np.arange(24.0),
        }
    )
    out = CSDIImputer(**options).fit(X).transform(X)
    assert out.dtypes.astype(str).tolist() == ["Int64", "Float32", "float64", "float64"]
    assert out.notna().all(axis=None)
    assert X["o"].dtype == object


def test_columns_without_numbers_are_named():
    X = pd.DataFrame({"temp": [1.0, 2.0, 3.0], "wind_dir": [{}, {}, {}]})
    with pytest.raises(ValueError, match=r"Columns \['wind_dir'\] of X are not numeric: drop them"):
        CSDIImputer(**GAUSSIAN).fit(X)


def test_strings_complex_and_sparse_are_refused():
    imputer = CSDIImputer(**GAUSSIAN)
    with pytest.raises(ValueError, match="could not convert string to float"):
        imputer.fit(np.array([["a", "b"]] * 4))
    for X in (table() + 1j, np.ones((4, 5, 2)) + 1j):
        with pytest.raises(ValueError, match="Complex data not supported"):
            imputer.fit(X)
    with pytest.raises(TypeError, match=r"dense data is required.*toarray"):
        imputer.fit(sparse.eye(5).tocsr())


@pytest.mark.parametrize(
    "layout",
    [np.ndarray.tolist, np.asfortranarray, lambda X: X[::-1][::-1], lambda X: X.astype(">f8")],
)
def test_layouts_do_not_matter(layout):
    X = table()
    expected = CSDIImputer(**GAUSSIAN).fit_transform(X)
    np.testing.assert_allclose(
        CSDIImputer(**GAUSSIAN).fit_transform(layout(X)), expected, rtol=1e-5
    )


def test_read_only_input():
    X = table()
    X.flags.writeable = False
    fills(X, NETWORK)


# ------------------------------------------------------------------ shapes


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (table()[:1], "1 sample.* minimum of 2"),
        (np.ones((1, 5, 2)), "n_samples=1.* minimum of 2"),
        (np.empty((0, 3)), "0 sample.*minimum of 2"),
        (np.empty((4, 0)), "0 feature"),
        (pd.DataFrame(index=range(4)), "0 feature"),
        (np.empty((0, 5, 2)), r"shape \(0, 5, 2\): at least one value"),
        (np.ones(5), "Expected 2D array, got 1D.*\n*.*\n*Reshape"),
        (np.ones((2, 3, 4, 5)), r"4 dimensions; expected \(n_samples, n_features\)"),
        ([[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]], "list of 2-D arrays or frames"),
        ([np.ones((5, 2)), np.ones((5, 3))], "3 features, but CSDIImputer is expecting 2"),
        ([np.ones((5, 2)), np.ones((0, 2))], "0 sample"),
    ],
)
def test_shapes_that_cannot_be_meant(X, message):
    with pytest.raises(ValueError, match=message):
        CSDIImputer(**GAUSSIAN).fit(X)


def test_another_number_order_or_name_of_features():
    X = pd.DataFrame(table(), columns=["a", "b", "c"])
    imputer = CSDIImputer(**GAUSSIAN).fit(X)
    with pytest.raises(ValueError, match="X has 2 features, but CSDIImputer is expecting 3"):
        imputer.transform(X.to_numpy()[:, :2])
    for other in (X[["b", "a", "c"]], X.rename(columns={"a": "z"})):
        with pytest.raises(ValueError, match="feature names should match"):
            imputer.transform(other)


def test_another_form_or_length_than_in_fit():
    panel = np.random.default_rng(0).standard_normal((12, 4, 3))
    imputer = CSDIImputer(**GAUSSIAN).fit(panel)
    with pytest.raises(ValueError, match="independent rows, but CSDIImputer was fitted on"):
        imputer.transform(table())
    with pytest.raises(
        ValueError, match=r"6 time steps.* fitted on samples of 4: set window_length"
    ):
        imputer.transform(np.ones((2, 6, 3)))


@BOTH
@pytest.mark.parametrize("n", [1, 3, 200])
def test_a_series_of_any_length_after_fit(options, n):
    imputer = CSDIImputer(**options, window_length=5).fit(series())
    X = series(n, 1)
    X[0, 0] = X[n // 2] = np.nan
    X[-1, 1] = 0.5
    assert np.isfinite(imputer.transform(X)).all()
    panel = np.stack([X, X])
    assert imputer.transform(panel).shape == panel.shape


def test_windows_that_do_not_fit():
    with pytest.raises(ValueError, match=r"window_length=80 is longer than .*60 time steps"):
        CSDIImputer(**GAUSSIAN, window_length=80).fit(series())


@pytest.mark.parametrize("how", [{"add_indicator": True}, "pandas"])
def test_options_for_two_dimensions_are_refused_for_three(how):
    imputer = CSDIImputer(**GAUSSIAN, **(how if how != "pandas" else {}))
    imputer = imputer.set_output(transform="pandas") if how == "pandas" else imputer
    with pytest.raises(ValueError, match="works for a 2-D X only"):
        imputer.fit_transform(np.ones((12, 4, 2)))


# ------------------------------------------------------------------ times


def test_a_datetime_index_without_window_length_warns():
    X = pd.DataFrame(series(), index=pd.date_range("2024", periods=60, freq="h"))
    with pytest.warns(UserWarning, match=r"window_length is None.*Set window_length"):
        CSDIImputer(**GAUSSIAN).fit(X)


HOURS = pd.date_range("2024-01-01", periods=60, freq="h")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (HOURS[::-1], "timestamps goes back in time at row 1: sort X by time"),
        (
            HOURS.to_series().replace(HOURS[7], HOURS[6]),
            "repeats a time at row 7: aggregate or drop",
        ),
        (HOURS.to_series().replace(HOURS[7], pd.NaT), "missing value at row 7: drop the row"),
        (HOURS[:-1], r"shape \(59,\), but X has 60 rows"),
        (["yesterday"] * 60, "must be datetimes of one time zone or numbers"),
    ],
)
def test_times_that_make_no_grid(times, message):
    with pytest.raises(ValueError, match=message):
        CSDIImputer(**GAUSSIAN, window_length=6).fit(series(), timestamps=times)


def test_a_bad_index_is_called_the_index():
    X = pd.DataFrame(series(), index=HOURS[::-1])
    with pytest.raises(ValueError, match="index of X goes back in time"):
        CSDIImputer(**GAUSSIAN, window_length=6).fit(X)


@pytest.mark.parametrize("index", [HOURS.to_period("h"), HOURS - HOURS[0]])
def test_periods_and_durations_are_times_too(index):
    X = pd.DataFrame(series(), index=index).drop(index[20:23])
    assert CSDIImputer(**GAUSSIAN, window_length=6).fit(X).time_step_ == 3600


def test_mixed_time_zones_are_read_as_utc():
    utc = HOURS.tz_localize("UTC")
    mixed = [*utc[:30], *utc[30:].tz_convert("Asia/Kolkata")]
    imputer = CSDIImputer(**GAUSSIAN, window_length=6)
    assert imputer.fit(series(), timestamps=mixed).time_step_ == 3600


def test_times_for_a_table_are_refused():
    with pytest.raises(ValueError, match=r"timestamps need an order.*set window_length"):
        CSDIImputer(**GAUSSIAN).fit(series(), timestamps=HOURS)


def test_one_list_of_times_for_each_series():
    with pytest.raises(ValueError, match="timestamps has 1 entries for 2 series"):
        CSDIImputer(**GAUSSIAN, window_length=6).fit([series(), series()], timestamps=[HOURS])


# ------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_draws", 0),
        ("n_steps", 0),
        ("random_state", "a"),
        ("statistic", "mode"),
        ("window_length", 2.5),
        ("max_iter", -1),
        ("learning_rate", 0),
        ("solver", "euler"),
        ("target_strategy", "none"),
        ("missing_values", None),
        ("device", "cuda:99"),
        ("device", "gpu"),
        ("device", "meta"),
    ],
)
def test_wrong_parameters_are_named(name, value):
    with pytest.raises(InvalidParameterError, match=name):
        CSDIImputer(**{**GAUSSIAN, name: value}).fit(table())


def test_parameters_that_contradict_each_other():
    with pytest.raises(ValueError, match=r"target_strategy has shape \(2, 3\); expected \(1, 3\)"):
        CSDIImputer(target_strategy=np.ones((2, 3))).fit(table())
    with pytest.raises(ValueError, match=r"validation_fraction=0.99 leaves no window"):
        CSDIImputer(**NETWORK, validation_fraction=0.99).fit(table())


def test_a_target_strategy_that_returns_nonsense():
    for strategy in (lambda observed, rng: observed[0], lambda observed, rng: observed * 1.0):
        with pytest.raises(ValueError, match=r"target_strategy returned .* expected bool of shape"):
            CSDIImputer(**NETWORK, target_strategy=strategy).fit(table())


@pytest.mark.parametrize("method", ["transform", "sample", "predict_quantiles", "score"])
def test_unfitted(method):
    with pytest.raises(NotFittedError, match="Call 'fit'"):
        getattr(CSDIImputer(), method)(table())
    with pytest.raises(NotFittedError):
        CSDIImputer().get_feature_names_out()


@pytest.mark.parametrize("levels", [0, 1, [], [0.5, np.nan], [[0.5]]])
def test_quantiles_outside_the_open_interval(levels):
    imputer = CSDIImputer(**GAUSSIAN).fit(table())
    with pytest.raises(ValueError, match=r"quantiles=.*strictly between 0 and 1"):
        imputer.predict_quantiles(table(), levels)


@pytest.mark.parametrize("n_draws", [0, 2.5, True])
def test_numbers_of_draws(n_draws):
    with pytest.raises(ValueError, match=r"n_draws=.* must be a positive integer"):
        CSDIImputer(**GAUSSIAN).fit(table()).sample(table(), n_draws)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("network", ["encoder", "csdi"])
@pytest.mark.parametrize("n", [2, 6])
def test_too_little_data_for_a_network(network, n):
    X = table(n, missing=0)
    with pytest.warns(UserWarning, match="too few to train a network.*Gaussian"):
        imputer = CSDIImputer(**{**NETWORK, "network": network}).fit(X)
    assert imputer.method_ == "gaussian"
    X[0, 1] = np.nan
    assert np.isfinite(imputer.transform(X)).all()


def test_a_diverging_training_says_what_to_do(monkeypatch):
    def broken(*args, **options):
        return torch.tensor(np.nan, requires_grad=True)

    monkeypatch.setattr("skdiffusion.nn.encoder.EncoderDenoiser.loss", broken)
    imputer = CSDIImputer(**{**NETWORK, "early_stopping": False})
    with pytest.raises(FloatingPointError, match="loss is nan at step 1: lower learning_rate"):
        imputer.fit(table())
    with pytest.raises(NotFittedError):
        imputer.transform(table())


def test_a_network_without_a_gaussian_says_that_training_led_nowhere():
    imputer = CSDIImputer(**{**NETWORK, "network": "csdi", "learning_rate": 1e3})
    with pytest.warns(ConvergenceWarning, match=r"3 training steps did not lower.*lower learning"):
        imputer.fit(table())
    assert imputer.history_["best_step"] == 0


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_a_fit_that_ends_early_leaves_the_imputer_as_it_was(how, error, monkeypatch):
    def fail(*args, **options):
        raise error

    X = pd.DataFrame(table(), columns=["a", "b", "c"])
    imputer = CSDIImputer(**{**NETWORK, "early_stopping": False}).fit(X)
    before, filled = dict(vars(imputer)), imputer.transform(X)
    monkeypatch.setattr(imputation, "train", fail)
    # Another number of columns, and without names.
    other = table() if how == "partial_fit" else table()[:, :2]
    with pytest.raises(error):
        getattr(imputer, how)(other)
    assert all(vars(imputer)[name] is value for name, value in before.items())
    assert vars(imputer).keys() == before.keys()
    pd.testing.assert_frame_equal(imputer.transform(X), filled)


def test_a_first_fit_that_is_interrupted_leaves_the_imputer_unfitted(monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(imputation, "train", interrupt)
    imputer = CSDIImputer(**{**NETWORK, "early_stopping": False})
    with pytest.raises(KeyboardInterrupt):
        imputer.fit(table())
    with pytest.raises(NotFittedError):
        imputer.transform(table())


# ------------------------------------------------------------------ environment


def test_workers_of_joblib_give_the_same():
    X = table()
    imputer = CSDIImputer(**NETWORK).fit(X)
    out = Parallel(n_jobs=2)(delayed(imputer.transform)(X) for _ in range(2))
    for x in out:
        np.testing.assert_allclose(x, imputer.transform(X), atol=1e-5)


def test_threads_give_the_same():
    X = table()
    imputer = CSDIImputer(**NETWORK).fit(X)
    expected, results = imputer.sample(X), []
    threads = [threading.Thread(target=lambda: results.append(imputer.sample(X))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x in results:
        np.testing.assert_allclose(x, expected, atol=1e-5)


def test_the_device_is_found_anew(monkeypatch):
    imputer = CSDIImputer(**GAUSSIAN).fit(table()).set_params(device="cuda:99")
    with pytest.raises(InvalidParameterError, match=r'device.*Use device="auto"'):
        imputer.transform(table())


def test_a_full_device_is_answered_with_advice(monkeypatch):
    def full(*args, **options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    imputer = CSDIImputer(**GAUSSIAN).fit(table())
    monkeypatch.setattr(WindowBase, "draw", full)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r"lower batch_size or n_draws.*20 GiB"):
        imputer.transform(table())
    monkeypatch.undo()
    monkeypatch.setattr(_choice, "train_imputer", full)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="lower batch_size or n_channels"):
        CSDIImputer(**{**NETWORK, "early_stopping": False}).fit(table())


# ------------------------------------------------------------------ statistical traps


def test_scales_come_from_fit_alone():
    X = table()
    imputer = CSDIImputer(**GAUSSIAN).fit(X)
    mean, scale = imputer.mean_.copy(), imputer.scale_.copy()
    imputer.transform(100 + 50 * X)
    np.testing.assert_array_equal(imputer.mean_, mean)
    np.testing.assert_array_equal(imputer.scale_, scale)
    np.testing.assert_allclose(mean, np.nanmean(X, axis=0), rtol=1e-9)


def test_there_must_be_something_to_score():
    X = table(missing=0)
    imputer = CSDIImputer(**GAUSSIAN).fit(X)
    with pytest.raises(
        ValueError, match="nothing to score: no cell is missing in X and known in y"
    ):
        imputer.score(X, X)
    with pytest.raises(ValueError, match="nothing to score"):
        imputer.score(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match=r"y has shape \(49, 3\), but X has \(50, 3\)"):
        imputer.score(X, X[:-1])
    with pytest.raises(ValueError, match="n_draws=1: the score needs at least 2"):
        imputer.set_params(n_draws=1).score(X)


def test_scoring_never_shows_the_hidden_cells():
    X = table(200, missing=0)
    imputer = CSDIImputer(**{**GAUSSIAN, "n_draws": 20}).fit(X)
    # An imputer that saw the cells would score 0; two useless columns cannot be foretold.
    noise = np.random.default_rng(0).standard_normal((200, 2))
    assert CSDIImputer(**{**GAUSSIAN, "n_draws": 20}).fit(noise).score(noise) < -0.4
    assert imputer.score(X) < 0


def hide_nothing(observed, rng):
    return np.zeros(observed.shape, dtype=bool)


@pytest.mark.parametrize(
    "options",
    [
        {"target_strategy": hide_nothing},
        {"target_strategy": np.zeros((1, 3))},
        {"target_strategy": "historical"},
    ],
    ids=["callable", "pattern", "historical"],
)
def test_a_strategy_must_hide_something(options):
    with pytest.raises(ValueError, match="target_strategy hides no observed cell"):
        CSDIImputer(**NETWORK, **options).fit(table(missing=0))


@pytest.mark.parametrize("n_channels", [4, 10, 20, 28])
@pytest.mark.parametrize("network", ["encoder", "csdi"])
def test_any_width_has_heads_that_divide_it(n_channels, network):
    options = {**NETWORK, "n_channels": n_channels, "network": network, "n_steps": 1}
    assert np.isfinite(CSDIImputer(**options).fit(table()).transform(table())).all()


@pytest.mark.parametrize(
    "name", ["n_heads", "test_pattern", "stride", "ema_decay", "tol", "n_iter_no_change"]
)
def test_removed_parameters_say_what_to_do(name):
    with pytest.raises(TypeError, match=f"CSDIImputer has no parameter {name}: "):
        CSDIImputer(**{name: 1})


def test_training_that_gains_no_more_ends_early():
    options = {**NETWORK, "max_iter": 100, "learning_rate": 0.3}
    imputer = CSDIImputer(**options).fit(table(200))
    losses = [loss for _, loss in imputer.history_["validation"]]
    assert imputer.n_iter_ == 10 * (len(losses) - 1) < 100
    assert min(losses[-3:]) >= min(losses[1:-3])


# ------------------------------------------------------------------ times that are not read


def dated(index):
    return pd.DataFrame(series(), index=index, columns=["a", "b"])


DATES = pd.date_range("2024-01-01", periods=60, freq="h")


@pytest.mark.parametrize("length", [None, 6])
@pytest.mark.parametrize(
    "index",
    [
        DATES.astype(str),
        DATES.strftime("%d/%m/%Y %H:%M"),
        DATES.strftime("%Y-%m-%dT%H:%M"),
        [day.date() for day in DATES],
    ],
)
def test_dates_as_text_in_the_index_are_pointed_out(index, length):
    X = dated(index)
    with pytest.warns(UserWarning, match=r"set X.index = pd.to_datetime\(X.index\)"):
        CSDIImputer(**GAUSSIAN, window_length=length).fit(X)


@pytest.mark.parametrize("pattern", ["row {}", "{}", "A-1-{}", "1.{}", "10.1.1.{}"])
def test_ordinary_labels_are_not_taken_for_dates(pattern):
    fills(dated([pattern.format(i) for i in range(60)]), GAUSSIAN, window_length=6)
    fills(dated(None), GAUSSIAN, window_length=6)


def test_a_column_of_times_should_be_the_index():
    X = dated(None).assign(time=DATES)
    with pytest.raises(TypeError, match=r"\['time'\] of X hold times.*the index \(X.set_index\)"):
        CSDIImputer(**GAUSSIAN, window_length=6).fit(X)


def test_times_that_are_missing_after_fit_are_pointed_out():
    imputer = CSDIImputer(**GAUSSIAN, window_length=6).fit(dated(DATES))
    with pytest.warns(UserWarning, match="one time step apart; pass timestamps= or a Datetime"):
        imputer.transform(dated(None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imputer.transform(dated(DATES))
