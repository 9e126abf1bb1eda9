"""A frame in long form, whose index names series and times, is a list of series."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer
from skdiffusion.inputs.clock import Clock
from skdiffusion.inputs.series import SeriesInput, recognise
from skdiffusion.inputs.times import TimeGrid
from skdiffusion.metrics import make_imputation_scorer

LENGTHS = {"ann": 40, "bob": 25, "cy": 30}
START = pd.Timestamp("2024-01-01")


def imputer(**options):
    return CSDIImputer(method="gaussian", n_draws=5, random_state=0, **options)


def long_frame(times="hours", levels=1):
    """Three patients with gaps, rows of all of them interleaved."""
    rng, parts = np.random.default_rng(0), []
    for k, (name, n) in enumerate(LENGTHS.items()):
        hours = np.delete(np.arange(n + 2), [3, 9])
        values = np.sin(hours / 4)[:, None] * [1, 2] + 0.1 * rng.normal(size=(n, 2))
        clock = START + pd.to_timedelta(hours, unit="h") if times == "stamps" else hours
        keys = [[name] * n, clock] if levels == 1 else [["ward"] * n, [k] * n, clock]
        index = pd.MultiIndex.from_arrays(keys)
        parts.append(pd.DataFrame(values, index, ["pulse", "temp"]))
    frame = pd.concat(parts)
    frame = frame.mask(rng.random(frame.shape) < 0.2)
    by_time = np.argsort(frame.index.get_level_values(-1), kind="stable")
    return frame.iloc[by_time]


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("times", ["hours", "stamps"])
@pytest.mark.parametrize("window_length", [None, 8])
def test_a_long_frame_is_the_list_of_its_series(levels, times, window_length):
    frame = long_frame(times, levels)
    groups = frame.groupby(level=list(range(levels)), sort=False)
    parts = [part.droplevel(list(range(levels))) for _, part in groups]
    fitted = imputer(window_length=window_length).fit(frame)
    beside = imputer(window_length=window_length).fit(parts)
    assert fitted.time_step_ == beside.time_step_ == (3600 if times == "stamps" else 1)
    out = fitted.transform(frame)
    assert out.index.equals(frame.index)
    assert out.notna().all(axis=None)
    pd.testing.assert_frame_equal(out.where(frame.notna()), frame)
    expected = pd.concat(beside.transform(parts), keys=[key for key, _ in groups])
    np.testing.assert_array_equal(out.loc[expected.index], expected)
    draws = fitted.sample(frame, 3)
    assert draws.shape == (len(frame), 3, 2)
    first = np.array([key[:levels] == frame.index[0][:levels] for key in frame.index])
    np.testing.assert_array_equal(draws[first], beside.sample(parts, 3)[0])


def test_series_are_kept_apart():
    frame = long_frame()
    fitted = imputer(window_length=8).fit(frame)
    alone = frame.loc[["bob"]]
    pd.testing.assert_frame_equal(fitted.transform(frame).loc[["bob"]], fitted.transform(alone))


def test_types_labels_and_indicators_come_back_in_long_form():
    frame = long_frame().assign(ward=np.array(["a", "b"])[np.arange(95) % 2])
    frame["beats"] = frame["pulse"].mul(10).round().astype("Int64")
    frame.iloc[5, 2] = None
    fitted = imputer(window_length=8, add_indicator=True).fit(frame)
    out = fitted.transform(frame)
    assert (out.dtypes[:4] == frame.dtypes).all()
    assert out["missingindicator_ward"].tolist() == [i == 5 for i in range(95)]
    assert all(copy.index.equals(frame.index) for copy in fitted.sample(frame, 2))


def test_scores_of_a_long_frame():
    frame = long_frame()
    assert make_imputation_scorer(n_draws=4)(imputer(window_length=8).fit(frame), frame) > -0.5


def test_times_beside_a_long_frame():
    frame = long_frame()
    stamps = START + pd.to_timedelta(frame.index.get_level_values(-1), unit="h")
    fitted = imputer(window_length=8).fit(frame, timestamps=stamps)
    assert fitted.time_step_ == 3600
    with pytest.raises(ValueError, match=r"shape \(94,\), but X has 95 rows"):
        fitted.transform(frame, timestamps=stamps[:-1])


def test_disorder_is_named_by_series_and_row():
    frame = long_frame()
    twice = pd.concat([frame, frame.loc[["bob"]].iloc[[-1]]])
    with pytest.raises(ValueError, match=r"index of X\['bob'\] repeats a time at row 25"):
        imputer(window_length=8).fit(twice)
    with pytest.raises(ValueError, match=r"index of X\['ann'\] goes back in time at row 1"):
        imputer(window_length=8).fit(frame[::-1])


def test_a_table_whose_index_names_its_rows_stays_a_table():
    keys = pd.MultiIndex.from_product([range(10), list("abc")])
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), keys, ["u", "v"])
    table.iloc[3, 1] = np.nan
    assert imputer().fit(table).window_length_ == 1


@pytest.mark.parametrize("shape", [(1, 4, 2), (3, 1, 2), (3, 4, 1)])
def test_a_panel_may_have_one_of_a_kind_and_not_none(shape):
    assert recognise(np.zeros(shape), None)[0] == "panel"
    with pytest.raises(ValueError, match="at least one value"):
        recognise(np.zeros(np.where(np.array(shape) == 1, 0, shape)), None)


def test_rows_beyond_the_end_follow_on_the_last_time_and_place():
    rows = [np.zeros((3, 2)), np.zeros((2, 2))]
    times, slots = [np.array([0.0, 60.0, 240.0]), np.array([0.0, 120.0])], [[0, 1, 4], [0, 2]]
    data = SeriesInput("series", "list", rows, None, times=times, slots=[*map(np.array, slots)])
    data = replace(data, grid=TimeGrid("second", 60.0), clocks=[Clock(), Clock()])
    longer = data.extended(2)
    assert [len(x) for x in longer.rows] == [5, 4]
    np.testing.assert_array_equal(longer.times[0], [0, 60, 240, 300, 360])
    np.testing.assert_array_equal(longer.times[1], [0, 120, 180, 240])
    assert [x.tolist() for x in longer.slots] == [[0, 1, 4, 5, 6], [0, 2, 3, 4]]
