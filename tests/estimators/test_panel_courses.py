"""Panels: what all series have in common, in an imputer and in multiple imputation."""

import warnings

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer, MultipleImputation, load, save
from skdiffusion.inputs.panels import panel_of
from skdiffusion.metrics import crps_loss

PANEL = {"method": "gaussian", "panel_columns": ("id", "t"), "random_state": 0}


def doses(n=16, n_times=11):
    """Concentrations after a dose: the same course, higher in some patients than in others."""
    rng = np.random.default_rng(0)
    t = np.tile([0, 1, 2, 3, 5, 7, 9, 12, 16, 20, 24][:n_times], n)
    height = np.repeat(np.exp(0.2 * rng.normal(size=n)), n_times)
    value = 10 * height * np.exp(-t / 8) * (1 - np.exp(-t / 1.0)) + 0.1 * rng.normal(size=len(t))
    weight = np.repeat(rng.normal(70, 10, n).round(1), n_times)
    return pd.DataFrame({"id": np.repeat(np.arange(n), n_times), "t": t, "c": value, "w": weight})


@pytest.fixture(scope="module")
def gaps():
    frame = doses()
    hidden = np.random.default_rng(1).random(len(frame)) < 0.3
    return frame, frame.assign(c=frame["c"].mask(hidden)), hidden


def test_the_peak_of_one_patient_is_filled_by_those_of_others(gaps):
    frame, given, hidden = gaps
    draws = CSDIImputer(**PANEL).fit(given).sample(given, n_draws=100)[hidden, :, 0]
    ours = crps_loss(frame["c"].to_numpy()[hidden, None], draws[..., None])
    lines = given.groupby("id")["c"].transform(lambda x: x.interpolate(limit_direction="both"))
    assert ours < 0.5 * np.abs(lines[hidden] - frame["c"][hidden]).mean()


def test_courses_are_kept_in_files(gaps, tmp_path):
    _, given, _ = gaps
    imputer = CSDIImputer(**PANEL).fit(given)
    save(imputer, tmp_path / "panel.skd")
    again = load(tmp_path / "panel.skd")
    pd.testing.assert_frame_equal(again.transform(given), imputer.transform(given))


def test_a_forecast_goes_on_with_the_course():
    """Half of the children are not seen in the last years, in which the others grow."""
    rng, n = np.random.default_rng(2), 20
    age = np.tile(np.arange(8.0, 15.0), n)
    height = 130 + np.repeat(6 * rng.normal(size=n), 7) + 5 * (age - 8) + rng.normal(size=7 * n)
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), 7), "t": age, "h": height})
    late = (frame["id"] < 10) & (frame["t"] > 11)
    given = frame.assign(h=frame["h"].mask(late))
    filled = CSDIImputer(**PANEL).fit(given).transform(given)
    assert np.abs(filled["h"] - frame["h"])[late].mean() < 2.5


# ------------------------------------------------------------------ multiple imputation


def analysed(given, imputer, bootstrap):
    seen = []

    def mean(copy):
        seen.append(copy)
        return {"mean": copy["c"].mean()}, {"mean": copy["c"].std() / np.sqrt(len(copy))}

    multiple = MultipleImputation(imputer, mean, 3, bootstrap=bootstrap, random_state=0)
    y = pd.Series(np.zeros(len(given)), given.index, name="y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        multiple.fit(given, y)
    return multiple, seen


@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.parametrize("form", ["columns", "index", "columns without times"])
def test_copies_of_a_panel_are_those_of_a_panel(gaps, form, bootstrap):
    """A weight that is missing in some rows of a patient is that of the other rows."""
    frame, given, _ = gaps
    given = given.assign(w=given["w"].mask(np.random.default_rng(3).random(len(given)) < 0.3))
    options = dict(PANEL)
    if form == "index":
        given, options = given.set_index(["id", "t"]), {**PANEL, "panel_columns": None}
    elif form == "columns without times":
        options["panel_columns"] = "id"
    multiple, copies = analysed(given, CSDIImputer(**options), bootstrap)
    for copy in copies:
        np.testing.assert_array_equal(copy["w"], frame["w"])
        assert copy.index.equals(given.index)
    assert 0 < multiple.pooled_.total[0] < 0.1


def test_resampled_series_are_whole(gaps):
    _, given, _ = gaps
    panel = panel_of(CSDIImputer(**PANEL), given)
    frame = panel.resampled(0)
    assert len(frame) == len(given)
    originals = [part.to_numpy() for part in panel.frames]
    groups = [part.to_numpy() for _, part in frame.groupby(level=0)]
    found = [[np.array_equal(x, y, equal_nan=True) for y in originals].index(True) for x in groups]
    assert len(groups) == 16
    assert 1 < len(set(found)) < 16


# ------------------------------------------------------------------ forms and times


def test_static_columns_of_an_array_are_those_of_their_series():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(40, 6, 3))
    X[..., 0] = np.repeat(rng.normal(size=40), 6).reshape(40, 6)
    gaps = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    known = ~np.isnan(gaps[..., 0]).all(1)
    out = CSDIImputer(method="gaussian", random_state=0).fit_transform(gaps)
    np.testing.assert_array_equal(out[known, :, 0], X[known, :, 0])


def test_one_row_of_each_series_is_a_table():
    frame = doses()[::11]
    with pytest.raises(ValueError, match="rows are a table, without panel_columns"):
        CSDIImputer(**PANEL).fit(frame)


def test_one_odd_pair_of_visits_makes_no_fine_grid():
    """Visits a year apart, give or take a month, and one pair of a week."""
    rng, parts = np.random.default_rng(5), []
    for k in range(40):
        day = np.arange(8) * 365.0 + rng.integers(-30, 30, 8)
        if k == 7:
            day = np.sort(np.r_[day, day[3] + 7])
        parts.append(pd.DataFrame({"id": k, "t": day, "x": rng.normal(size=len(day))}))
    frame = pd.concat(parts, ignore_index=True)
    assert CSDIImputer(**PANEL).fit(frame).time_step_ > 300


@pytest.mark.parametrize("spike", [0.1, 0.3, 1 / 3, 1e-7, 123.4])
@pytest.mark.parametrize("window_length", [None, 8])
def test_spikes_come_back_to_the_bit(spike, window_length):
    rng = np.random.default_rng(6)
    x = np.maximum(rng.normal(size=(300, 2)), 0.0) * 0.7 + spike
    gaps = np.where(rng.random(x.shape) < 0.2, np.nan, x)
    imputer = CSDIImputer(method="gaussian", window_length=window_length, random_state=0)
    draws = imputer.fit(gaps).sample(gaps, n_draws=20)[..., 0][np.isnan(gaps[:, 0])]
    at = np.isclose(draws, spike, rtol=1e-9)
    assert 0.3 < at.mean() < 0.7
    assert (draws[at] == spike).all()
