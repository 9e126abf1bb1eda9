"""Wrong records in series, and numbers that stand for missing values."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiffusion import CSDIImputer, ScoreSDE
from skdiffusion.columns.doubts import Doubts

HOURS = np.arange(960)
# A day of hours whose noise is a hundredth of its wave.
SMOOTH = np.sin(2 * np.pi * HOURS / 24) + 0.02 * np.random.default_rng(0).normal(size=960)
GAUSSIAN = {"method": "gaussian", "window_length": 24, "random_state": 0}


def with_errors(x, rows, size):
    dirty = x.copy()
    dirty[rows] += size
    return dirty


def doubted_rows(x):
    return np.flatnonzero(Doubts.learn([x[:, None]])(x[:, None])).tolist()


def filled(frame, hidden):
    """Errors and widths of intervals in hidden cells of a clean series filled from ``frame``."""
    given_ = frame.mask(hidden[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imputer = CSDIImputer(**GAUSSIAN).fit(given_)
    draws = imputer.sample(given_, n_draws=100)[hidden, :, 0]
    width = np.subtract(*np.quantile(draws, [0.95, 0.05], axis=1))
    return np.abs(np.median(draws, axis=1) - SMOOTH[hidden]).mean(), width.mean()


@pytest.fixture(scope="module")
def hidden():
    hidden = np.random.default_rng(1).random(960) < 0.2
    hidden[500:524] = True
    return hidden


@pytest.fixture(scope="module")
def dirty(hidden):
    """One reading in a hundred is wrong by four to fourteen deviations of the column."""
    rng = np.random.default_rng(2)
    wrong = ~hidden & (rng.random(960) < 0.01)
    sizes = rng.choice([-1, 1], 960) * rng.uniform(2.5, 10.0, 960)
    return wrong, with_errors(SMOOTH, wrong, sizes[wrong])


# ------------------------------------------------------------------ which values


def test_single_and_double_errors_are_found_and_nothing_else():
    rows = [100, 101, 300, 500, 777]
    assert doubted_rows(with_errors(SMOOTH, rows, 2.0)) == rows


def test_a_step_to_another_level_is_no_error():
    step = SMOOTH + 10.0 * (HOURS >= 480)
    assert doubted_rows(step) == []


def test_a_peak_that_goes_on_is_no_error():
    flood = SMOOTH.copy()
    flood[400:430] += 8 * np.exp(-np.arange(30) / 8)
    assert doubted_rows(flood) == []


@pytest.mark.parametrize("law", ["normal", "laplace", "standard_t", "lognormal"])
def test_long_tails_are_not_errors(law):
    """Of 40 000 honest values none is doubted that a Gaussian, or a Laplace, would not forbid."""
    rng = np.random.default_rng(3)
    draw = {
        "normal": lambda n: rng.normal(size=n),
        "laplace": lambda n: rng.laplace(size=n),
        "standard_t": lambda n: rng.standard_t(4, size=n),
        "lognormal": lambda n: np.exp(0.5 * rng.normal(size=n)),
    }[law]
    x = draw((10_000, 4))
    # P(|t_4| > 20) is 4e-5.
    assert Doubts.learn([x])(x).sum() <= (6 if law == "standard_t" else 1)


@pytest.mark.parametrize("rate", [0.1, 0.3, 1.0, 3.0])
def test_counts_are_not_errors(rate):
    x = np.random.default_rng(6).poisson(rate, size=(5000, 2)).astype(float)
    assert not Doubts.learn([x])(x).any()


def test_rare_rain_is_no_error():
    rng = np.random.default_rng(4)
    rain = np.where(rng.random(5000) < 0.1, rng.gamma(0.7, 3.0, 5000), 0.0)
    assert len(doubted_rows(rain)) == 0


def test_values_beside_gaps_are_judged_by_the_side_that_is_near(hidden):
    x = SMOOTH.copy()
    x[hidden] = np.nan
    x[200:260] = np.nan
    assert doubted_rows(x) == []
    beside = np.flatnonzero(~np.isnan(x))
    row = beside[np.searchsorted(beside, 260)]
    assert doubted_rows(with_errors(x, [row], 5.0)) == [row]


def test_sparse_series_are_not_judged_by_how_dense_ones_move():
    doubts = Doubts.learn([SMOOTH[:, None]])
    sparse = np.full_like(SMOOTH, np.nan)
    sparse[::11] = SMOOTH[::11]
    assert not doubts(sparse[:, None]).any()


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-30, 1e30),
    offset=st.floats(-1e3, 1e3),
    rows=st.sets(st.integers(10, 900).map(lambda i: i - i % 10), max_size=8),
)
def test_units_and_direction_of_time_do_not_matter(scale, offset, rows):
    x = with_errors(SMOOTH, sorted(rows), 2.0)
    assert doubted_rows((x + offset) * scale) == sorted(rows)
    assert doubted_rows(-x[::-1]) == sorted(959 - row for row in rows)


# ------------------------------------------------------------------ what they do


def test_wrong_records_do_not_rule_a_model(hidden, dirty):
    index = pd.date_range("2026-01-01", periods=960, freq="h")
    clean, of_errors = (pd.DataFrame({"y": x}, index) for x in (SMOOTH, dirty[1]))
    error, width = filled(clean, hidden)
    error_then, width_then = filled(of_errors, hidden)
    assert error_then < 1.3 * error
    assert width_then < 1.3 * width


def test_the_user_is_told_where_they_are_and_they_come_back(hidden, dirty):
    x = np.where(hidden, np.nan, dirty[1])[:, None]
    first = np.flatnonzero(dirty[0])[0]
    with pytest.warns(UserWarning, match=rf"of 0 \(first in row {first}\)"):
        imputer = CSDIImputer(**GAUSSIAN).fit(x)
    out = imputer.transform(x)
    np.testing.assert_array_equal(out[~hidden], x[~hidden])
    assert np.isfinite(out).all()


def test_what_is_doubted_tells_nothing_of_its_neighbours():
    x = SMOOTH.copy()
    x[[399, 401]] = np.nan
    frames = [with_errors(x, [400], size)[:, None] for size in (3.0, 30.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (CSDIImputer(**GAUSSIAN).fit(frame).transform(frame) for frame in frames)
    # The noise of the draws is another one; a believed value of 30 would pull them up by tens.
    np.testing.assert_allclose(one[[399, 401]], other[[399, 401]], atol=0.1)


def test_the_past_alone_doubts_nothing():
    """Whether a value is an error shows in what follows, which must not matter then."""
    x = with_errors(SMOOTH, [700], 2.0)[:, None]
    x[701] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imputer = CSDIImputer(**GAUSSIAN, direction="past").fit(x)
    later = x.copy()
    later[702:] = 0.0
    assert imputer.transform(x)[701] == imputer.transform(later)[701]


def test_several_series_name_theirs():
    parts = [SMOOTH[:480, None], with_errors(SMOOTH[480:], [50], 2.0)[:, None]]
    with pytest.warns(UserWarning, match=re.escape("1 of 0 (first in row 50 of series 1)")):
        CSDIImputer(**GAUSSIAN).fit(parts)


# ------------------------------------------------------------------ stand-ins


def table_with(value, n=20):
    table = np.random.default_rng(5).uniform(0.0, 40.0, size=(300, 2))
    table[:n, 1] = value
    return pd.DataFrame(table, columns=["a", "level"])


@pytest.mark.parametrize("value", [-999.0, -1.0e4, 999.0, 99999.0])
def test_stand_ins_for_missing_values_are_named(value):
    frame = table_with(value)
    match = rf"{value:g} stands far from all other values of X: 20 times in level"
    with pytest.warns(UserWarning, match=re.escape(match).replace("\\ ", " ")):
        CSDIImputer(method="gaussian", random_state=0).fit(frame)
    with pytest.warns(UserWarning, match="handle_missing='impute'"):
        ScoreSDE(max_iter=0, random_state=0).fit(frame)


def test_what_the_message_says_helps():
    frame = table_with(-999.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imputer = CSDIImputer(method="gaussian", missing_values=-999, random_state=0).fit(frame)
    assert imputer.transform(frame)["level"].between(0, 40).all()


@pytest.mark.parametrize("value", [0.0, -1.0, 41.0, 100.0])
def test_values_that_may_well_be_such_are_not(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CSDIImputer(method="gaussian", random_state=0).fit(table_with(value))


def test_one_far_value_is_an_outlier_and_no_stand_in():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CSDIImputer(method="gaussian", random_state=0).fit(table_with(-999.0, n=1))
