"""Times as people keep them: each kind of clock is a regular grid of its own unit."""

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer
from skdiffusion.inputs.clock import Clock
from skdiffusion.inputs.times import TimeGrid, common_step, seconds

N = 120
YEAR = np.sin(np.pi * np.arange(N) / 6)[:, None] * [1, 2]
X = YEAR + 0.1 * np.random.default_rng(0).normal(size=(N, 2))
HIDDEN = np.zeros((N, 2), bool)
HIDDEN[10:16, 0] = HIDDEN[30:34] = HIDDEN[100:106] = True
MONTH, DAY = 30.436875, 86_400


def imputer(**options):
    return CSDIImputer(
        **{"method": "gaussian", "window_length": 12, "random_state": 0, "n_draws": 20, **options}
    )


def dates(freq, n=N):
    return pd.date_range("2000-01-01", periods=n, freq=freq)


CLOCKS = {
    "month starts": (dates("MS"), MONTH),
    "month ends": (dates("ME"), MONTH),
    "last working days": (dates("BME"), MONTH),
    "first working days": (dates("BMS"), MONTH),
    "the 15th": (dates("MS") + pd.Timedelta("14D"), MONTH),
    "quarters": (dates("QS"), 3 * MONTH),
    "quarter ends": (dates("QE"), 3 * MONTH),
    "years": (dates("YS"), 12 * MONTH),
    "working days": (dates("B"), 1),
    "days": (dates("D"), 1),
    "weeks": (dates("W"), 7),
    "hours": (dates("h"), 1 / 24),
    "hours with summer time": (dates("h").tz_localize("UTC").tz_convert("Europe/Paris"), 1 / 24),
    "month starts of a zone": (dates("MS").tz_localize("Europe/Paris"), MONTH),
    "month periods": (pd.period_range("2000", periods=N, freq="M"), MONTH),
    "quarter periods": (pd.period_range("2000", periods=N, freq="Q"), 3 * MONTH),
    "year periods": (pd.period_range("1900", periods=N, freq="Y"), 12 * MONTH),
    "seconds of a coarse unit": (dates("D").as_unit("s"), 1),
    "beyond 2262": (pd.DatetimeIndex(np.datetime64("2400-01-01") + np.arange(N)), 1),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_a_clock_is_a_regular_grid(name):
    index, days = CLOCKS[name]
    frame = pd.DataFrame(X, index, ["a", "b"]).mask(HIDDEN)
    fitted = imputer().fit(frame)
    assert fitted.time_step_ / DAY == pytest.approx(days)
    out = fitted.transform(frame)
    assert out.index.equals(frame.index)
    error = np.abs(out.to_numpy() - X)[HIDDEN].mean()
    assert error < 0.2  # 0.08 is what rows without times get
    assert fitted._reader.read(fitted, frame, None).slots is None


@pytest.mark.parametrize("name", CLOCKS)
def test_rows_left_out_leave_slots_free(name):
    index, days = CLOCKS[name]
    frame = pd.DataFrame(X, index, ["a", "b"]).drop(index[[7, 8, 50]])
    fitted = imputer().fit(frame)
    assert fitted.time_step_ / DAY == pytest.approx(days)
    slots = fitted._reader.read(fitted, frame, None).slots[0]
    np.testing.assert_array_equal(slots, np.delete(np.arange(N), [7, 8, 50]))


@pytest.mark.parametrize("unit", ["Y", "M", "D", "h", "s", "ms", "us", "ns"])
def test_any_unit_of_datetimes(unit):
    stamps = np.array("2000", f"datetime64[{unit}]") + np.arange(N)
    fitted = imputer().fit(X, timestamps=stamps)
    if unit not in "YM":
        assert fitted.time_step_ == pytest.approx(np.timedelta64(1, unit) / np.timedelta64(1, "s"))
    else:
        assert fitted.time_step_ / DAY == pytest.approx(MONTH * (12 if unit == "Y" else 1))


def test_dates_far_apart_do_not_wrap_around():
    stamps = np.array(["1000-01-01", "1500-01-01", "2500-01-01"], "datetime64[D]")
    elapsed = seconds(stamps, 3)
    assert (np.diff(elapsed) > 0).all()
    assert elapsed[2] / DAY == (stamps[2] - stamps[0]).astype(int)


def of_hours(hours):
    values = np.random.default_rng(0).normal(size=(len(hours), 2))
    return pd.DataFrame(values, pd.to_timedelta(list(hours), unit="h"))


def test_one_step_for_all_series_comes_from_all():
    parts = [of_hours([0, 1, 2, 4, 6]), of_hours(range(30))]
    assert imputer(window_length=4).fit(parts).time_step_ == 3600


@pytest.mark.parametrize("kind", [int, float])
def test_numbers_in_the_index_of_a_list_are_times(kind):
    hours = np.array([0, 1, 5, 6, 7, 20, 21, 22, 40], dtype=kind)
    parts = [of_hours(range(9)).set_axis(hours)] * 4
    fitted = imputer(window_length=4).fit(parts)
    assert fitted.time_step_ == 1
    np.testing.assert_array_equal(
        fitted._reader.read(fitted, parts, None).slots[0], [0, 1, 5, 6, 7, 20, 21, 22, 40]
    )  # gaps keep their length, up to a thousand slots
    counted = [part.set_axis(range(9)) for part in parts]
    assert imputer(window_length=4).fit(counted).time_step_ is None


def test_times_of_events_are_taken():
    rng = np.random.default_rng(0)
    seconds_ = 3600 * rng.exponential(size=300).cumsum()
    index = pd.Timestamp("2020") + pd.to_timedelta(seconds_, unit="s")
    values = np.sin(seconds_ / 2e4)[:, None] * [1, 2] + 0.05 * rng.normal(size=(300, 2))
    frame = pd.DataFrame(values, index, ["a", "b"])
    hidden = rng.random(frame.shape) < 0.2
    out = imputer(window_length=24).fit(frame.mask(hidden)).transform(frame.mask(hidden))
    assert out.index.equals(index)
    assert np.abs(out - frame).to_numpy()[hidden].mean() < 0.15


def test_rows_that_share_a_slot_take_the_next_free_ones():
    times = np.array([0, 1, 1.01, 1.02, 5, 6])
    slots = TimeGrid("second", 1.0).slots(times, times, longest=10)
    np.testing.assert_array_equal(slots, [0, 1, 2, 3, 5, 6])


def test_rows_much_denser_than_in_fit_are_refused():
    fitted = imputer().fit(pd.DataFrame(X, dates("D")))
    with pytest.raises(ValueError, match=r"Rows 0 and 1 are closer in time than half .* resample"):
        fitted.transform(pd.DataFrame(X, dates("min")))
    monthly = imputer().fit(pd.DataFrame(X, dates("MS")))
    with pytest.raises(ValueError, match=r"usual step of 1 months.*resample"):
        monthly.transform(pd.DataFrame(X, dates("D")))
    with pytest.raises(ValueError, match="numbers, but fit has seen dates, by months"):
        monthly.transform(X, timestamps=np.arange(N))


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ([np.arange(10.0)], 1),
        ([np.array([0, 2.0, 4, 7, 9])], 1),
        ([np.array([0, 2.0, 4, 8]), np.array([0, 3.0, 6])], 1),
        ([np.arange(50) + 0.1 * np.sin(np.arange(50))], 1),
        ([0.1 * np.array([0, 1, 2, 5, 6.0])], 0.1),
        ([np.array([3.0])], 1),
    ],
)
def test_the_common_step(times, step):
    assert common_step(times) == pytest.approx(step, rel=0.1)


def test_disorder_in_a_list_is_named_by_series_and_row():
    parts = [of_hours(range(20)), of_hours([0, 1, 2, 2, 3])]
    with pytest.raises(ValueError, match=r"index of X\[1\] repeats a time at row 3"):
        imputer(window_length=4).fit(parts)


def test_the_hour_of_the_day_is_that_of_the_clock_whenever_a_series_begins():
    hours = pd.date_range("2024", periods=24 * 20, freq="h")
    values = np.column_stack([3 * np.sin(2 * np.pi * hours.hour / 24), np.zeros(len(hours))])
    values = values + 0.3 * np.random.default_rng(0).normal(size=values.shape)
    frame = pd.DataFrame(values, hours, ["a", "b"])
    later = frame.iloc[6:200].copy()
    later.iloc[100:150, 0] = np.nan
    parts = [frame.iloc[k : k + 24 * 6] for k in (0, 7, 15, 100)]
    for fitted, given in (
        (imputer(window_length=24).fit(frame), later),
        (imputer(window_length=24).fit(parts), [later]),
    ):
        out = fitted.transform(given)
        out = out[0] if isinstance(out, list) else out
        # Out of phase the error is 2.6.
        assert np.abs(out["a"] - frame["a"].iloc[6:200]).iloc[100:150].mean() < 0.5


def test_a_season_has_the_same_phase_wherever_a_series_begins():
    t = pd.date_range("2024-01-01", periods=24 * 40, freq="h")
    rng = np.random.default_rng(0)
    y = np.sin(2 * np.pi * np.arange(len(t)) / 24)[:, None] * [1, 0.5]
    X = pd.DataFrame(y + 0.3 * rng.normal(size=y.shape), index=t, columns=["a", "b"])
    imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(X)
    gap = X.copy()
    gap.iloc[100:160, 0] = np.nan
    for later in (0, 7):
        filled = imputer.transform(gap.iloc[later:]).iloc[100 - later : 160 - later, 0]
        assert np.abs(filled - X.iloc[100:160, 0]).mean() < 0.35


def test_the_clock_of_a_zone_goes_on_by_its_hours():
    """Through both changes of a year, by pandas' own local times, whatever piece is asked."""
    index = pd.date_range("2022-03-20 05:30", periods=24 * 300, freq="h", tz="Europe/Berlin")
    local = index.tz_localize(None)
    clock = Clock.of(local.to_numpy(), index[0])
    passed = np.asarray((index - index[0]) / pd.Timedelta(seconds=1)) + 0.25
    expected = np.asarray((local - pd.Timestamp(0)) / pd.Timedelta(seconds=1)) + 0.25
    np.testing.assert_allclose(clock(passed), expected)
    np.testing.assert_allclose(clock(passed[5000:5010]), expected[5000:5010])
    np.testing.assert_allclose(Clock.of(local.to_numpy())(passed), passed + expected[0] - passed[0])


def test_a_series_may_begin_in_the_hour_that_comes_twice():
    """At the second half past two of the night of the change, an hour after the first."""
    index = pd.date_range("2022-10-30 01:30", periods=4, freq="h", tz="UTC")
    index = index.tz_convert("Europe/Berlin")
    clock = Clock.of(index.tz_localize(None).to_numpy(), index[0])
    np.testing.assert_allclose(np.diff(clock(3600.0 * np.arange(4))), 3600.0)


def test_a_day_in_summer_time_has_the_hours_of_the_clock():
    """Opening hours by the clock of a zone, learnt in winter and asked for after the change."""
    index = pd.date_range("2022-02-20", periods=24 * 42, freq="h", tz="Europe/Berlin")
    open_ = (index.hour >= 8) & (index.hour < 18)
    load = np.where(open_, 50.0, 10.0) + np.random.default_rng(0).normal(size=len(index))
    X = pd.DataFrame({"load": load}, index)
    past = X[index < pd.Timestamp("2022-03-27 12:00", tz="Europe/Berlin")]
    imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(past)
    middle = np.median(imputer.forecast(past, 48, n_draws=50), axis=1)[:, 0]
    truth = np.where(open_, 50.0, 10.0)[len(past) : len(past) + 48]
    assert np.abs(middle - truth).mean() < 3.0
