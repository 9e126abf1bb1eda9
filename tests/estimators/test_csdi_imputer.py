"""What CSDIImputer promises on real gaps, beyond scikit-learn's common checks."""

import copy
import hashlib
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffusion import CSDIImputer
from skdiffusion.diffusion.solve import STEPS
from skdiffusion.diffusion.statespace import base as _base
from skdiffusion.diffusion.window import denoiser as _denoiser
from skdiffusion.estimators.imputation import _base as _imputer_base
from skdiffusion.estimators.imputation import _judging

FAST = {"max_iter": 15, "n_draws": 4, "n_channels": 8, "random_state": 0}
# Without validation the network stays in charge, however little it has learnt.
NETWORK = {**FAST, "early_stopping": False}
# 1e-5 standard deviations of the walks below.
CLOSE = 1e-4
GAUSSIAN = {"method": "gaussian", "n_draws": 4, "random_state": 0}


def random_walk(n_times, seed, n_features=3, missing=0.15):
    """AR(1) series that share a shock, with scattered gaps and one run."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n_times, n_features))
    for t in range(1, n_times):
        x[t] = 0.9 * x[t - 1] + rng.standard_normal() + 0.5 * rng.standard_normal(n_features)
    x = 10 + 3 * x
    x[rng.random(x.shape) < missing] = np.nan
    x[n_times // 3 : n_times // 3 + 5, 0] = np.nan
    return x


def table():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 4))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 0] = np.where(np.isnan(x[:, 0]), 0.5, x[:, 0])
    return x


KINDS = {
    "table": (table(), {}),
    "panel": (np.stack([random_walk(8, seed) for seed in range(14)]), {}),
    "series": (random_walk(110, 0), {"window_length": 10}),
    "list": ([random_walk(n, n) for n in (40, 25, 33, 7)], {"window_length": 10}),
}


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    """Data of each kind and an imputer whose network fills it."""
    X, options = KINDS[request.param]
    return X, CSDIImputer(**NETWORK, **options).fit(X)


@pytest.fixture
def frame():
    index = pd.date_range("2024-01-01", periods=60, freq="h", name="hour")
    X = pd.DataFrame(random_walk(60, 5), index=index, columns=["a", "b", "c"])
    return X.astype({"b": np.float32})


def parts(X):
    return X if isinstance(X, list) else [X]


def digest(X):
    return [hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() for x in parts(X)]


# ------------------------------------------------------------------ the answer


def test_gaps_are_filled_and_nothing_else_is_touched(fitted):
    X, imputer = fitted
    before = digest(X)
    out = imputer.transform(X)
    assert digest(X) == before
    for x, y in zip(parts(X), parts(out)):
        seen = ~np.isnan(x)
        assert np.isfinite(y).all()
        assert y[seen].tobytes() == x[seen].tobytes()


def test_draws_differ_where_missing_only_and_their_median_is_the_answer(fitted):
    X, imputer = fitted
    out, draws = parts(imputer.transform(X)), imputer.sample(X)
    draws = draws if isinstance(X, list) else [draws]
    for x, y, z in zip(parts(X), out, draws):
        assert z.shape == (len(x), 4, *x.shape[1:])
        np.testing.assert_array_equal(np.median(z, axis=1), y)
        spread = np.ptp(z, axis=1)
        assert ((spread > 0) == np.isnan(x)).all()


def test_quantiles_are_ordered_and_laid_out_as_draws(fitted):
    X, imputer = fitted
    levels = imputer.set_params(n_draws=19).predict_quantiles(X, [0.1, 0.5, 0.9])
    imputer.set_params(n_draws=4)
    for x, q in zip(parts(X), levels if isinstance(X, list) else [levels]):
        assert q.shape == (len(x), 3, *x.shape[1:])
        assert (np.diff(q, axis=1) >= 0).all()
        assert ((q[:, 0] < q[:, 2]) == np.isnan(x)).all()


def test_quantile_levels_count_draws():
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**{**GAUSSIAN, "n_draws": 9}).fit(X)
    draws = np.sort(imputer.sample(X), axis=1)
    # The m-th of 9 draws is the quantile m / 10.
    quantiles = imputer.predict_quantiles(X, [0.1, 0.3, 0.9])
    np.testing.assert_allclose(quantiles, draws[:, [0, 2, 8]], rtol=1e-12)
    with pytest.warns(UserWarning, match="n_draws=9 .* set n_draws to 19"):
        imputer.predict_quantiles(X, [0.05, 0.5])


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_the_statistic_of_the_draws_is_filled_in(statistic):
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**GAUSSIAN, statistic=statistic).fit(X)
    expected = getattr(np, statistic)(imputer.sample(X), axis=1)
    np.testing.assert_allclose(imputer.transform(X), expected, rtol=1e-12)


def test_results_follow_the_units_of_the_data():
    X, _ = KINDS["table"]
    many = {**GAUSSIAN, "n_draws": 500, "statistic": "mean"}
    a, b = (CSDIImputer(**many).fit(x).transform(x) for x in (X, 1e6 + 250.0 * X))
    # Other content, other noise: equal up to the sampling error of two means of 500 draws.
    error = np.abs((b - 1e6) / 250.0 - a) / np.nanstd(X, axis=0)
    assert error.max() < 4.9 * np.sqrt(2 / 500)


# ------------------------------------------------------------------ one row, one result


def take(X, order):
    return [X[i] for i in order] if isinstance(X, list) else X[order]


def test_a_row_is_drawn_alike_alone_in_a_batch_and_in_another_order(fitted):
    X, imputer = fitted
    if imputer.window_length is not None and not isinstance(X, list):
        pytest.skip("one long series has no other rows")
    whole, n = imputer.sample(X), len(X)
    order = np.random.default_rng(0).permutation(n)
    shuffled = imputer.sample(take(X, order))
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place], whole[i], atol=CLOSE)
    for i in (0, n // 2, n - 1):
        alone = imputer.sample(take(X, [i]))
        np.testing.assert_allclose(alone[0], whole[i], atol=CLOSE)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_panel_of_many_samples_is_filled_by_its_gaussian(order):
    X = np.random.default_rng(0).standard_normal((300, 3, 2)).cumsum(axis=1)
    gaps = np.asarray(
        np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X), order=order
    )
    filled = CSDIImputer(**GAUSSIAN).fit_transform(gaps)
    np.testing.assert_array_equal(filled[~np.isnan(gaps)], gaps[~np.isnan(gaps)])
    # What a walk was before and after says more than the mean of its column.
    gone = np.isnan(gaps)
    mean = np.broadcast_to(np.nanmean(gaps, axis=0), X.shape)
    assert np.abs(filled - X)[gone].mean() < 0.9 * np.abs(mean - X)[gone].mean()


def same_draws(X, a, b):
    for x, y in zip(a if isinstance(X, list) else [a], b if isinstance(X, list) else [b]):
        np.testing.assert_allclose(x, y, atol=CLOSE)


def test_draws_do_not_depend_on_memory_or_threads(fitted, monkeypatch):
    X, imputer = fitted
    whole = imputer.sample(X)
    asked, draw = [], _denoiser.draw_missing
    monkeypatch.setattr(
        _denoiser,
        "draw_missing",
        lambda *a, **k: draw(*a, **{**k, "cells_per_batch": asked.append(1) or 30}),
    )
    # One series is smoothed after the other.
    monkeypatch.setattr(_base, "_NUMBERS", 1)
    same_draws(X, imputer.sample(X), whole)
    assert asked == [1]
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        same_draws(
            X,
            imputer.sample(X, 1),
            [x[:, :1] for x in whole] if isinstance(X, list) else whole[:, :1],
        )
    finally:
        torch.set_num_threads(n_threads)


def test_the_first_draws_do_not_depend_on_how_many_follow(fitted):
    X, imputer = fitted
    few, many = imputer.sample(X, 2), imputer.sample(X, 5)
    same_draws(X, few, [x[:, :2] for x in many] if isinstance(X, list) else many[:, :2])


def test_equal_rows_get_different_draws_and_no_noise_is_shared():
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**GAUSSIAN).fit(X)
    row = np.array([[0.3, np.nan, 0.1, np.nan]])
    twice = imputer.sample(np.repeat(row, 2, axis=0))
    assert not (twice[0] == twice[1])[:, [1, 3]].any()
    # Rows of nearly equal content: their errors must not move together.
    rows = np.repeat(row, 300, axis=0)
    rows[:, 0] += 1e-6 * np.arange(300)
    draws = imputer.sample(rows, 20)[:, :, 1]
    errors = draws - draws.mean()
    ratio = errors.mean(0).var() / (errors.var() / 300)
    assert 0.2 < ratio < 3.5


def test_a_repeated_series_in_a_list_is_drawn_anew():
    X, options = KINDS["list"]
    imputer = CSDIImputer(**GAUSSIAN, **options).fit(X)
    first, second = imputer.sample([X[0], X[0]])
    gaps = np.isnan(X[0])
    assert (first != second)[:, 0][gaps].all()


# ------------------------------------------------------------------ randomness


def test_an_int_fixes_everything_and_global_generators_rest():
    X, options = KINDS["series"]
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    states = np.random.get_state()[1].copy(), torch.get_rng_state().clone()  # noqa: NPY002
    first, second = (CSDIImputer(**FAST, **options).fit(X) for _ in range(2))
    np.testing.assert_array_equal(first.sample(X), second.sample(X))
    np.testing.assert_array_equal(first.transform(X), first.transform(X))
    assert (np.random.get_state()[1] == states[0]).all()  # noqa: NPY002
    assert torch.get_rng_state().equal(states[1])


def test_random_state_of_sample_changes_the_draws():
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**GAUSSIAN).fit(X)
    a, b = imputer.sample(X, random_state=1), imputer.sample(X, random_state=2)
    gaps = np.isnan(X)[:, None] & np.ones((1, 4, 1), dtype=bool)
    assert (a != b)[gaps].all()
    np.testing.assert_array_equal(a, imputer.sample(X, random_state=1))
    other = CSDIImputer(**{**GAUSSIAN, "random_state": 5}).fit(X).sample(X)
    assert (imputer.sample(X) != other)[gaps].all()


def test_no_random_state_works_and_differs_between_fits():
    X, _ = KINDS["table"]
    imputers = [CSDIImputer(**{**GAUSSIAN, "random_state": None}).fit(X) for _ in range(2)]
    a, b = (imputer.transform(X) for imputer in imputers)
    assert (a != b)[np.isnan(X)].all()
    np.testing.assert_array_equal(a, imputers[0].transform(X))


# ------------------------------------------------------------------ frames and names


def test_frames_keep_index_columns_and_float_types(frame):
    frame["n"] = np.arange(60) + 2**60
    imputer = CSDIImputer(**GAUSSIAN, window_length=8).fit(frame)
    before = pd.util.hash_pandas_object(frame).to_numpy()
    out = imputer.transform(frame)
    assert (pd.util.hash_pandas_object(frame).to_numpy() == before).all()
    assert out.index.equals(frame.index)
    assert out.index.name == "hour"
    pd.testing.assert_series_equal(out.dtypes, frame.dtypes)
    pd.testing.assert_series_equal(out["n"], frame["n"])
    seen = frame.notna()
    assert out.where(seen).equals(frame)
    assert out.notna().all(axis=None)


def test_imputed_integers_are_rounded():
    X = pd.DataFrame({"a": [1, 2, -9, 4] * 6, "b": np.arange(24.0)})
    imputer = CSDIImputer(**GAUSSIAN, missing_values=-9).fit(X)
    out = imputer.transform(X)
    assert out["a"].dtype == X["a"].dtype
    draws = CSDIImputer(**GAUSSIAN, missing_values=-9).fit(X.to_numpy()).transform(X.to_numpy())
    assert (np.abs(out["a"] - draws[:, 0]) < 1).all()


@pytest.mark.parametrize("with_frame", [True, False])
def test_set_output_pandas(frame, with_frame):
    X = frame if with_frame else frame.to_numpy()
    imputer = CSDIImputer(**GAUSSIAN, window_length=8, add_indicator=True)
    out = imputer.set_output(transform="pandas").fit_transform(X)
    assert isinstance(out, pd.DataFrame)
    names = ["a", "b", "c"] if with_frame else ["x0", "x1", "x2"]
    assert list(out) == names + [f"missingindicator_{name}" for name in names]
    np.testing.assert_array_equal(out.iloc[:, 3:], frame.isna())


def test_names_of_kept_and_indicated_features():
    X = pd.DataFrame(table(), columns=list("abcd"))
    X["d"] = np.nan
    for keep, names in [(False, list("abc")), (True, list("abcd"))]:
        imputer = CSDIImputer(**GAUSSIAN, keep_empty_features=keep, add_indicator=True)
        with pytest.warns(UserWarning, match=r"\['d'\].*keep_empty_features"):
            out = imputer.fit(X).transform(X)
        expected = names + ["missingindicator_b", "missingindicator_c", "missingindicator_d"]
        assert imputer.get_feature_names_out().tolist() == expected
        assert list(out) == expected
        assert imputer.sample(X).shape == (60, 4, len(names))
    assert (out["d"] == 0).all()


def test_lists_of_frames_come_back_as_frames(frame):
    X = [frame.iloc[:30], frame.iloc[35:]]
    out = CSDIImputer(**GAUSSIAN, window_length=8).fit(X).transform(X)
    for x, y in zip(X, out):
        assert y.index.equals(x.index)
        assert y.notna().all(axis=None)


# ------------------------------------------------------------------ times


def numbers_of(imputer):
    return imputer._model.base_arrays()[1]


def test_removed_rows_are_like_rows_without_values(frame):
    """Same model; the same conditional distribution of the cells both can be asked for."""
    holes = frame.copy()
    holes.iloc[[7, 20, 21, 22, 48]] = np.nan
    removed = holes.dropna(how="all")
    with_nan, without = (
        CSDIImputer(**{**GAUSSIAN, "n_draws": 2000, "statistic": "mean"}, window_length=8).fit(X)
        for X in (holes, removed)
    )
    assert with_nan.time_step_ == without.time_step_ == 3600
    model = numbers_of(without)
    assert model.keys() == numbers_of(with_nan).keys()
    for name, array in numbers_of(with_nan).items():
        np.testing.assert_allclose(array, model[name], rtol=1e-6, atol=1e-9, err_msg=name)
    a, b = with_nan.transform(holes).loc[removed.index], without.transform(removed)
    sd = without.sample(removed).std(axis=1)
    error = np.abs(a - b) / np.where(sd > 0, sd, 1)
    assert error.to_numpy().max() < 4.9 * np.sqrt(2 / 2000) + 0.02
    # Taking the rows as equally spaced gives something else.
    plain = removed.reset_index(drop=True)
    c = CSDIImputer(**GAUSSIAN, window_length=8).fit(plain)
    other = numbers_of(c)["transition"]
    same_order = other.shape == model["transition"].shape
    assert not same_order or np.abs(other - model["transition"]).max() > 1e-3


def test_timestamps_are_a_datetime_index():
    X = random_walk(60, 5)[np.r_[:20, 23:60]]
    index = pd.date_range("2024-01-01", periods=60, freq="h")[np.r_[:20, 23:60]]
    imputer = CSDIImputer(**GAUSSIAN, window_length=8)
    framed = imputer.fit(pd.DataFrame(X, index=index)).transform(pd.DataFrame(X, index=index))
    hours = np.r_[:20, 23:60] * 3600
    for times in (
        index,
        hours,
        index.tz_localize("Europe/Paris"),
        pd.Series(index),
        index.to_numpy(),
    ):
        out = imputer.fit(X, timestamps=times).transform(X, timestamps=times)
        # The clock of a zone counts other seconds, which are rounded otherwise.
        np.testing.assert_allclose(out, framed, rtol=1e-12)


def test_long_holes_are_cheap():
    X = random_walk(60, 5)
    times = np.r_[:30, 10**9 : 10**9 + 30]
    imputer = CSDIImputer(**GAUSSIAN, window_length=8).fit(X, timestamps=times)
    assert np.isfinite(imputer.transform(X, timestamps=times)).all()


def test_timestamps_are_routed_through_a_pipeline(frame):
    X, times = frame.to_numpy(), frame.index.delete(slice(20, 23))
    X = np.delete(X, slice(20, 23), axis=0)
    imputer = CSDIImputer(**GAUSSIAN, window_length=8)
    expected = imputer.fit_transform(X, timestamps=times)
    with config_context(enable_metadata_routing=True):
        step = (
            clone(imputer).set_fit_request(timestamps=True).set_transform_request(timestamps=True)
        )
        step.set_score_request(timestamps=True)
        pipeline = make_pipeline(step, StandardScaler())
        out = pipeline.fit_transform(X, timestamps=times)
        again = pipeline.transform(X, timestamps=times)
    np.testing.assert_allclose(pipeline[-1].inverse_transform(out), expected)
    np.testing.assert_array_equal(out, again)


# ------------------------------------------------------------------ copies and files


def test_copies_give_the_same_draws(fitted, tmp_path):
    X, imputer = fitted
    whole = imputer.sample(X)
    joblib.dump(imputer, tmp_path / "imputer.joblib")
    copies = [
        copy.deepcopy(imputer),
        pickle.loads(pickle.dumps(imputer)),
        joblib.load(tmp_path / "imputer.joblib"),
    ]
    for other in copies:
        same_draws(X, other.sample(X), whole)
    assert not hasattr(clone(imputer), "history_")


def test_state_is_numpy(fitted):
    assert b"torch" not in pickle.dumps(fitted[1])


@pytest.mark.parametrize("options", [NETWORK, GAUSSIAN])
def test_skops_needs_no_trust_but_in_the_package(options):
    skops = pytest.importorskip("skops.io")
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**options).fit(X)
    data = skops.dumps(imputer)
    types = skops.get_untrusted_types(data=data)
    assert all(name.startswith("skdiffusion.") for name in types)
    np.testing.assert_array_equal(
        skops.loads(data, trusted=types).transform(X), imputer.transform(X)
    )


def test_a_fitted_grid_search_is_reproducible_and_pickles():
    X, options = KINDS["series"]
    search = GridSearchCV(CSDIImputer(**GAUSSIAN, **options), {"n_draws": [4, 10]}, cv=2)
    first, second = (clone(search).fit(X).cv_results_["mean_test_score"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()
    assert first[0] != first[1]
    search.fit(X)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.transform(X), search.transform(X))


def test_memory_mapped_read_only_input(tmp_path):
    X, options = KINDS["series"]
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    imputer = CSDIImputer(**FAST, **options)
    np.testing.assert_array_equal(imputer.fit_transform(mapped), imputer.fit_transform(X))


# ------------------------------------------------------------------ learning


@pytest.mark.parametrize("network", ["encoder", "csdi"])
@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
def test_training_goes_on(network, how):
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**{**NETWORK, "network": network}, n_layers=1).fit(X)
    before = {name: w.copy() for name, w in imputer._model.weights().items()}
    mean, draws = imputer.mean_.copy(), imputer.sample(X)
    if how == "partial_fit":
        imputer.partial_fit(X)
    else:
        imputer.set_params(warm_start=True).fit(X)
    assert any((imputer._model.weights()[name] != w).any() for name, w in before.items())
    np.testing.assert_array_equal(imputer.mean_, mean)
    assert np.abs(imputer.sample(X) - draws)[np.isnan(X)[:, None].repeat(4, 1)].max() > 0
    # One step of a tiny rate from there is nearly nothing: it did not start anew.
    now = {name: w.copy() for name, w in imputer._model.weights().items()}
    imputer.set_params(max_iter=1, learning_rate=1e-7).partial_fit(X)
    for name, w in now.items():
        np.testing.assert_allclose(imputer._model.weights()[name], w, atol=1e-5)


def test_partial_fit_alone_fits_and_a_small_batch_keeps_the_network():
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**NETWORK).partial_fit(X)
    assert imputer.partial_fit(X[:5]).method_ == "diffusion"
    assert imputer.n_iter_ == 15


def test_going_on_with_another_network_is_refused():
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**NETWORK).fit(X).set_params(n_layers=3)
    with pytest.raises(ValueError, match=r"n_layers.*warm_start=False"):
        imputer.partial_fit(X)
    assert np.isfinite(imputer.transform(X)).all()


def test_a_network_continues_from_a_gaussian():
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**GAUSSIAN).fit(X)
    imputer.set_params(method="diffusion", max_iter=5, early_stopping=False).partial_fit(X)
    assert imputer.method_ == "diffusion"


@pytest.mark.parametrize("kind", ["table", "series"])
def test_of_a_network_that_only_harms_nothing_is_left(kind, monkeypatch):
    """Then the windows that were held out to judge it belong to the Gaussian as well."""
    X, options = KINDS[kind]
    # Else none is trained on so few rows.
    monkeypatch.setattr(_imputer_base, "_FEWEST_ROWS", 0)
    seen = []

    def judged(judge, denoiser, share=1):
        seen.append(denoiser.name)
        return _judging.Judged(float(denoiser.name != "gaussian"), 1.0, 0)

    monkeypatch.setattr(_judging.Judge, "__call__", judged)
    imputer = CSDIImputer(**FAST, **options).fit(X)
    alone = CSDIImputer(**GAUSSIAN, **options).fit(X)
    assert "encoder" in seen
    assert imputer.method_ == "gaussian"
    np.testing.assert_array_equal(imputer.sample(X), alone.sample(X))


@pytest.mark.parametrize("strategy", ["random", "historical", "mix", "feature", "pattern"])
@pytest.mark.parametrize("kind", ["table", "series"])
def test_every_strategy_trains(strategy, kind):
    X, options = KINDS[kind]
    shape = (options.get("window_length", 1), X.shape[1])
    pattern = np.random.default_rng(0).random(shape) < 0.5
    strategy = pattern if strategy == "pattern" else strategy
    imputer = CSDIImputer(**{**FAST, "max_iter": 2}, **options, target_strategy=strategy)
    assert np.isfinite(imputer.fit_transform(X)).all()


@pytest.mark.parametrize("solver", sorted(STEPS))
@pytest.mark.parametrize("n_steps", [1, 3])
def test_every_solver_draws(solver, n_steps):
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**GAUSSIAN, solver=solver, n_steps=n_steps).fit(X)
    assert np.isfinite(imputer.transform(X)).all()


def test_gaussian_draws_have_the_closed_form_moments():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((800, 2)) @ np.array([[2.0, 1.0], [0.0, 1.0]])
    X[:100, 1] = np.nan
    imputer = CSDIImputer(method="gaussian", n_steps=60, random_state=0).fit(X)
    draws = imputer.sample(X[:100], 200)[:, :, 1]
    residual = draws - 0.5 * X[:100, :1]
    # Regression of x1 on x0: slope 1/2, residual variance 1.
    assert residual.mean() == pytest.approx(0, abs=0.15)
    assert residual.std() == pytest.approx(1, abs=0.1)


# ------------------------------------------------------------------ score


def test_score_is_minus_the_crps_of_the_truth():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((300, 2)) @ np.array([[3.0, 2.0], [0.0, 1.0]])
    X = truth.copy()
    X[::3, 1] = np.nan
    imputer = CSDIImputer(**{**GAUSSIAN, "n_draws": 100}).fit(X)
    # CRPS of a calibrated normal forecast: sd / sqrt(pi), here sd = 1 in units of sqrt(5).
    assert -imputer.score(X, truth) == pytest.approx(1 / np.sqrt(np.pi) / np.sqrt(5), rel=0.25)
    assert imputer.score(X, truth + [0, 50]) < -10


def test_score_hides_cells_itself(fitted):
    X, imputer = fitted
    score = imputer.score(X)
    assert -5 < score < -0.01
    assert imputer.score(X) == score


def test_the_truth_of_a_list_is_a_list():
    X, options = KINDS["list"]
    truth = [np.where(np.isnan(x), 10.0, x) for x in X]
    assert -10 < CSDIImputer(**GAUSSIAN, **options).fit(X).score(X, truth) < -0.01


def test_the_placeholder_is_no_truth():
    X, _ = KINDS["table"]
    marked, truth = np.nan_to_num(X, nan=-999.0), np.where(np.isnan(X), 0.0, X)
    truth[np.isnan(X)[:, 1], 1] = np.nan
    scores = [
        CSDIImputer(**GAUSSIAN, missing_values=mark).fit(x).score(x, np.nan_to_num(truth, nan=mark))
        for x, mark in [(X, np.nan), (marked, -999.0)]
    ]
    assert scores[0] == pytest.approx(scores[1])


def test_score_ignores_the_target_of_a_pipeline():
    X, _ = KINDS["table"]
    imputer = CSDIImputer(**GAUSSIAN).fit(X)
    assert imputer.score(X, np.arange(60)) == imputer.score(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        imputer.score(X, np.arange(59))


# ------------------------------------------------------------------ stitching


def test_increments_cross_window_borders_with_the_spread_they_have_inside():
    rng = np.random.default_rng(0)
    x = np.zeros((600, 1))
    for t in range(1, 600):
        x[t] = 0.9 * x[t - 1] + rng.standard_normal()
    X = x.copy()
    X[300:345] = np.nan
    imputer = CSDIImputer(**{**NETWORK, "n_draws": 400}, window_length=12, n_steps=30).fit(X)
    steps = np.diff(imputer.sample(X)[300:345, :, 0], axis=0).std(axis=1)
    borders = np.zeros(len(steps), dtype=bool)
    borders[[i - 301 for i in range(301, 345) if i % 6 == 0]] = True
    assert steps[borders].mean() / steps[~borders].mean() == pytest.approx(1, abs=0.1)
    assert steps.max() / steps.min() < 1.35
    assert steps.mean() == pytest.approx(np.diff(x[:, 0]).std(), rel=0.2)


# ------------------------------------------------------------------ published weights


def test_published_weights_fill_a_panel(research_data):
    path = research_data / "csdi_pretrained" / "model.pth"
    if not path.exists():
        pytest.skip("the published checkpoint is absent")
    mean, scale = np.arange(35.0), np.full(35, 2.0)
    imputer = CSDIImputer.from_published_weights(
        path, mean=mean, scale=scale, window_length=48, n_draws=2, n_steps=2, random_state=0
    )
    rng = np.random.default_rng(0)
    X = mean + scale * rng.standard_normal((1, 48, 35))
    X[:, :, 3] = np.nan
    out = imputer.transform(X)
    assert np.isfinite(out).all()
    assert sum(w.size for w in imputer._model.weights().values()) == 414_065
    again = pickle.loads(pickle.dumps(imputer)).transform(X)
    np.testing.assert_allclose(again, out, atol=CLOSE)
    with pytest.raises(ValueError, match=r"mean and scale must have shape \(35,\)"):
        CSDIImputer.from_published_weights(path, mean=mean[1:], scale=scale, window_length=48)
