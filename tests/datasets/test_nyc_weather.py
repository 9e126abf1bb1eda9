"""The shipped weather series."""

import numpy as np
import pytest

from skdiffusion.datasets import load_nyc_weather


@pytest.fixture(scope="module")
def weather():
    return load_nyc_weather()


def test_shape_names_and_hours(weather):
    assert weather.data.shape == (8730, 18) == (len(weather.timestamps), len(weather.feature_names))
    assert weather.feature_names[0] == "EWR_temp"
    assert {name.split("_")[0] for name in weather.feature_names} == {"EWR", "JFK", "LGA"}
    assert set(np.diff(weather.timestamps)) == {np.timedelta64(3600, "s")}
    assert weather.timestamps[0] == np.datetime64("2013-01-01T06:00")
    assert "frame" not in weather


def test_the_impossible_wind_is_missing_and_everything_else_possible(weather):
    wind = weather.data[:, weather.feature_names.index("EWR_wind_speed")]
    hour = np.flatnonzero(weather.timestamps == np.datetime64("2013-02-12T08:00"))
    assert np.isnan(wind[hour]).all()
    assert np.nanmax(wind) < 45
    assert "1048.36 mph" in weather.DESCR


def test_natural_gaps(weather):
    missing = np.isnan(weather.data).mean(axis=0)
    pressure = np.array(["pressure" in name for name in weather.feature_names])
    assert missing[pressure].mean() == pytest.approx(0.107, abs=5e-4)
    assert missing[~pressure].max() < 0.0035
    assert np.isnan(weather.data).all(axis=1).sum() == 16


def test_hours_are_utc(weather):
    """In New York the coldest hour is before dawn: about 10 o'clock UTC."""
    temperature = weather.data[:, 0]
    hour = weather.timestamps.astype("datetime64[h]").astype(int) % 24
    mean = [np.nanmean(temperature[hour == h]) for h in range(24)]
    assert np.argmin(mean) in (9, 10, 11)


def test_as_frame():
    pandas = pytest.importorskip("pandas")
    weather = load_nyc_weather(as_frame=True)
    assert weather.data is weather.frame
    assert isinstance(weather.frame.index, pandas.DatetimeIndex)
    assert weather.frame.index.freq is not None
    assert weather.frame.index.tz is None
    np.testing.assert_array_equal(weather.frame.to_numpy(), load_nyc_weather().data)
    assert list(weather.frame.columns) == weather.feature_names


def test_the_rest_is_the_source(weather, research_data):
    pandas = pytest.importorskip("pandas")
    source = pandas.read_csv(research_data / "nyc_weather_3airports_2013.csv.gz", index_col=0)
    changed = ~np.isclose(source.to_numpy(), weather.data, equal_nan=True)
    assert changed.sum() == 1
    assert source.to_numpy()[changed] == pytest.approx(1048.36)
