"""Frames of polars and pyarrow go in and come out as what they are."""

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer, ScoreSDE
from skdiffusion.estimators import conformalize
from skdiffusion.metrics import make_imputation_scorer

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

X = np.random.default_rng(0).normal(size=90)
GROUP = np.array(["lo", "mid", "hi"])[np.digitize(X, [-0.7, 0.7])]
HIDDEN = np.random.default_rng(1).random(90) < 0.2


def with_nulls(values):
    return [None if gone else value for value, gone in zip(values.tolist(), HIDDEN)]


def polars_frame():
    whole = np.round(5 * X).astype(int)
    return pl.DataFrame(
        {
            "x": X,
            "f": pl.Series(with_nulls(X), dtype=pl.Float32),
            "n": pl.Series(with_nulls(whole), dtype=pl.Int16),
            "b": with_nulls(X > 0),
            "s": with_nulls(GROUP),
            "c": pl.Series(with_nulls(GROUP), dtype=pl.Categorical),
            "e": pl.Series(with_nulls(GROUP), dtype=pl.Enum(["lo", "mid", "hi"])),
        }
    )


def imputer(**options):
    return CSDIImputer(method="gaussian", n_draws=5, random_state=0, **options)


@pytest.mark.parametrize("window_length", [None, 8])
def test_a_polars_frame_comes_back_as_one(window_length):
    frame = polars_frame()
    out = imputer(window_length=window_length).fit(frame).transform(frame)
    assert isinstance(out, pl.DataFrame)
    assert out.schema == frame.schema
    assert out.null_count().sum_horizontal().item() == 0
    seen = pl.Series(~HIDDEN)
    assert out.filter(seen).equals(frame.filter(seen))


def test_an_arrow_table_comes_back_as_one():
    table = polars_frame().drop("c", "e").to_arrow()
    out = imputer().fit(table).transform(table)
    assert isinstance(out, pa.Table)
    assert out.column_names == table.column_names
    assert out["n"].type == table["n"].type
    assert sum(column.null_count for column in out.columns) == 0


@pytest.mark.parametrize("lengths", [(45, 45), (30, 60)])
def test_lists_of_polars_frames_are_series(lengths):
    frame = polars_frame().select("x", "f")
    parts = [frame[: lengths[0]], frame[lengths[0] :]]
    out = imputer(window_length=8).fit(parts).transform(parts)
    assert [part.shape for part in out] == [(n, 2) for n in lengths]
    assert all(isinstance(part, pl.DataFrame) for part in out)


def test_draws_with_labels_are_polars_frames():
    frame = polars_frame()
    draws = imputer().fit(frame).sample(frame, 3)
    assert all(isinstance(copy, pl.DataFrame) and copy.schema == frame.schema for copy in draws)


def test_large_integers_are_untouched():
    keys = 1_700_000_000_123_456_789 + 1001 * np.arange(40)
    frame = pl.DataFrame({"key": [None, *keys[1:].tolist()], "x": np.arange(40.0)})
    out = imputer().fit(frame).transform(frame)
    assert out["key"][1:].to_list() == keys[1:].tolist()


def test_a_column_of_times_is_refused_with_a_hint():
    times = pd.date_range("2024", periods=90, freq="h").to_list()
    frame = polars_frame().select("x", "f").with_columns(pl.Series("time", times))
    with pytest.raises(TypeError, match=r"Columns \['time'\].*pass them as timestamps"):
        imputer(window_length=8).fit(frame)
    fitted = imputer(window_length=8).fit(frame.drop("time"), timestamps=frame["time"])
    assert fitted.time_step_ == 3600


def test_a_density_takes_polars_with_labels():
    frame = polars_frame().select("x", "s").drop_nulls()
    model = ScoreSDE(base="gaussian", max_iter=0, random_state=0).fit(frame)
    assert set(model.sample(20)["s"]) <= {"lo", "mid", "hi"}
    drawn = model.set_output(transform="polars").sample(20)
    assert isinstance(drawn, pl.DataFrame)
    assert drawn.schema == frame.schema


def test_probabilities_and_scores_of_polars_frames():
    frame = polars_frame()
    fitted = imputer().fit(frame)
    found = fitted.predict_proba(frame)
    assert isinstance(found, pl.DataFrame)
    np.testing.assert_allclose(found.select("e_lo", "e_mid", "e_hi").sum_horizontal(), 1)
    losses = make_imputation_scorer(["crps", "brier"], n_draws=5)(fitted, frame)
    assert -0.5 < losses["neg_brier"] <= 0
    assert fitted.score(frame) < 0
    numbers = polars_frame().select("x", "f")
    alike = pd.DataFrame({"x": X, "f": pd.array(numbers["f"].to_list(), dtype="Float32")})
    fitted = imputer().fit(alike)
    assert make_imputation_scorer(n_draws=5)(fitted, numbers) == pytest.approx(
        make_imputation_scorer(n_draws=5)(fitted, alike)
    )
    conformal = conformalize(fitted, numbers, missing_rate=0.4)
    np.testing.assert_array_equal(
        conformal.predict_quantiles(numbers, [0.2]), conformal.predict_quantiles(alike, [0.2])
    )
    conformal = conformalize(imputer().fit(frame), frame, missing_rate=0.4)
    (low,) = conformal.predict_quantiles(frame, [0.1])
    assert isinstance(low, pl.DataFrame)
    assert np.isfinite(low["x"].to_numpy()).all()
    assert set(low["e"]) <= {"lo", "mid", "hi"}


@pytest.mark.parametrize("turned", [False, True])
def test_an_array_of_xarray_comes_back_with_its_dimensions(turned):
    xr = pytest.importorskip("xarray")
    values = np.column_stack([np.sin(np.arange(90) / 4), np.cos(np.arange(90) / 4), np.zeros(90)])
    hours = pd.date_range("2024", periods=90, freq="2h")
    array = xr.DataArray(
        np.where(HIDDEN[:, None] & [True, False, False], np.nan, values),
        {"time": hours, "station": ["a", "b", "c"]}, ("time", "station"), attrs={"units": "m"},
    )  # fmt: skip
    array = array.T if turned else array
    fitted = imputer(window_length=8).fit(array)
    assert fitted.time_step_ == 7200
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    out = fitted.transform(array)
    assert out.dims == array.dims
    assert out.attrs == array.attrs
    assert bool(out.notnull().all())
    xr.testing.assert_equal(out.where(array.notnull()), array)
    assert float(np.abs(out.sel(station="a") - values[:, 0]).max()) < 0.3
    with pytest.raises(ValueError, match="two, rows or times and columns, or "):
        imputer().fit(array.expand_dims(["run", "level"]))
    with pytest.raises(ValueError, match="Dataset of xarray: pass"):
        imputer().fit(array.to_dataset(dim="station"))


@pytest.mark.parametrize(
    "dims", [("id", "time", "col"), ("id", "col", "time"), ("time", "id", "col")]
)
def test_series_times_and_columns_of_an_array_of_xarray(dims):
    xr = pytest.importorskip("xarray")
    hours = pd.date_range("2024", periods=60, freq="2h")
    wave = np.sin(np.arange(60) / 4 + np.arange(3)[:, None])
    values = np.stack([wave, 2 * wave, np.full_like(wave, np.nan)], axis=-1)
    seen = np.random.default_rng(0).random(values.shape) > 0.2
    array = xr.DataArray(
        np.where(seen, values, np.nan), {"time": hours, "id": ["u", "v", "w"], "col": list("abc")},
        ("id", "time", "col"), attrs={"units": "m"},
    )  # fmt: skip
    array = array.transpose(*dims)
    with pytest.warns(UserWarning, match=r"Features \['c'\]"):
        fitted = imputer(window_length=8).fit(array)
    assert fitted.time_step_ == 7200
    out = fitted.transform(array)
    assert out.dims == array.dims
    assert out.attrs == array.attrs
    kept = array.sel(col=["a", "b"])
    xr.testing.assert_equal(out.where(kept.notnull()), kept)
    error = np.abs(out.transpose("id", "time", "col").to_numpy() - values[..., :2])
    assert error.max() < 0.5
    draws = fitted.sample(array, 4)
    assert draws.dims == ("draw", *array.dims)
    band = fitted.predict_quantiles(array, [0.3, 0.7])
    assert band["quantile"].to_numpy().tolist() == [0.3, 0.7]
    assert bool((band.sel(quantile=0.3) <= band.sel(quantile=0.7)).all())
