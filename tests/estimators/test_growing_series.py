"""Series that grow, whose seasons move, and whose steps are shares of what they are."""

import numpy as np
import pandas as pd
import pytest
import torch

from skdiffusion import CSDIImputer
from skdiffusion.columns.bend import Bend, bend
from skdiffusion.columns.columns import Columns
from skdiffusion.diffusion.statespace import fit as fit_module
from skdiffusion.estimators.imputation._base import _season
from skdiffusion.estimators.imputation._maps import bent_series


def passengers(n_years=12, seed=0):
    """Monthly numbers that double in some years, with months whose share of the year stays."""
    rng = np.random.default_rng(seed)
    month = np.arange(12 * n_years)
    growth = 0.01 * month + 0.02 * rng.normal(size=len(month)).cumsum()
    season = 0.2 * np.cos(2 * np.pi * month / 12) + 0.1 * np.sin(4 * np.pi * month / 12)
    numbers = 100 * np.exp(growth + season + 0.02 * rng.normal(size=len(month)))
    index = pd.date_range("1949-01-01", periods=len(month), freq="MS")
    return pd.DataFrame({"passengers": numbers}, index=index)


def test_a_year_ahead_is_found_better_than_by_the_last_one():
    """Twelve months: their growth and their shares, in bands that hold most of them."""
    errors, inside = [], []
    for seed in range(3):
        whole = passengers(seed=seed)
        past, truth = whole[:-12], whole["passengers"].to_numpy()[-12:]
        imputer = CSDIImputer(method="gaussian", window_length=12, random_state=0).fit(past)
        draws = imputer.forecast(past, 12, n_draws=200)[..., 0]
        low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=1)
        last = past["passengers"].to_numpy()[-12:]
        errors.append(np.abs(middle - truth).mean() / np.abs(last - truth).mean())
        inside.append(np.mean((low <= truth) & (truth <= high)))
    assert np.mean(errors) < 0.8
    assert np.mean(inside) > 0.7


def test_a_missing_year_is_filled_along_the_growth():
    whole = passengers()
    shown = whole.copy()
    shown.iloc[60:72] = np.nan
    filled = CSDIImputer(method="gaussian", window_length=12, random_state=0).fit_transform(shown)
    error = np.abs(np.asarray(filled)[60:72] / whole.to_numpy()[60:72] - 1)
    assert error.mean() < 0.05


@pytest.mark.parametrize(("freq", "rows"), [("MS", 12.0), ("QS", 4.0), ("D", 7.0), ("h", 24.0)])
def test_a_season_has_the_rows_that_the_calendar_gives_it(freq, rows):
    """Months have 28 to 31 days: the median month would make eleven and eight tenths a year."""
    index = pd.date_range("2001-01-01", periods=120, freq=freq)
    time = torch.as_tensor(np.asarray((index - index[0]) / pd.Timedelta(days=1)))
    days = {"MS": 365.25, "QS": 365.25, "D": 7.0, "h": 1.0}[freq]
    assert _season((days,), time, torch.ones(119, dtype=torch.bool)) == rows


def test_no_season_and_one_of_a_great_many_rows_do_not_move():
    time, neighbours = torch.arange(50.0).double(), torch.ones(49, dtype=torch.bool)
    assert _season((), time, neighbours) == 0.0
    assert _season((365.25,), time, neighbours) == 0.0
    assert _season((5.7,), time, neighbours) == 5.7


def logarithmic(x):
    """Whether the columns of a series get their logarithm."""
    columns = Columns.learn(x)
    z = bent_series(columns, x).forward(x)
    return [
        abs(np.corrcoef(np.log(column), mapped)[0, 1]) > 0.9999 for column, mapped in zip(x.T, z.T)
    ]


def test_columns_that_change_by_shares_get_their_logarithm_and_others_do_not():
    rng = np.random.default_rng(0)
    shares = 5 * np.exp(0.05 * rng.normal(size=(400, 1)).cumsum(0))
    sums = 100 + rng.normal(size=(400, 1)).cumsum(0)
    noise = rng.uniform(1.0, 4.0, size=(400, 1))
    assert logarithmic(np.hstack([shares, sums + 50, noise])) == [True, False, False]


def test_the_logarithm_goes_there_and_back_and_below_what_was_seen():
    rng = np.random.default_rng(1)
    x = 5 * np.exp(0.05 * rng.normal(size=(400, 1)).cumsum(0))
    u, zero = x / 10 - 1, np.array([-1.0])
    learnt = Bend.learn_series(u, zero)
    np.testing.assert_allclose(learnt.inverse(learnt.forward(u), np.array([0])), u, atol=1e-9)
    # Zero and less come later: they stay finite and in order.
    new = np.array([[-1.5], [-1.0], [-0.999], [0.0]])
    assert np.all(np.diff(bend(new, learnt.parameters)[:, 0]) > 0)


@pytest.mark.parametrize(
    ("freq", "zone"),
    [
        ("MS", None),
        ("ME", None),
        ("QS", None),
        ("B", None),
        ("h", None),
        ("B", "Europe/Berlin"),
        ("MS", "Europe/Berlin"),
    ],
)
def test_what_follows_is_what_is_drawn_for_empty_rows_whatever_the_calendar(freq, zone):
    """Months and weeks of work are no multiples of a second, and midnight of summer is an hour less
    away: their season must not drift.
    """
    rng = np.random.default_rng(0)
    index = pd.date_range("2001-01-31", periods=120, freq=freq, tz=zone)
    season = np.sin(2 * np.pi * index.dayofweek / 7) + np.cos(2 * np.pi * index.month / 12)
    past = pd.DataFrame({"a": season + 0.1 * rng.normal(size=120)}, index=index)
    imputer = CSDIImputer(method="gaussian", window_length=4, n_draws=3, random_state=0).fit(past)
    ahead = pd.date_range(index[-1], periods=21, freq=freq)[1:]
    empty = pd.concat([past, pd.DataFrame(np.nan, ahead, past.columns)])
    drawn, expected = imputer.forecast(past, 20), np.asarray(imputer.sample(empty)[-20:])
    if zone is None:
        np.testing.assert_array_equal(drawn, expected)
    # Where the clock changes after the last row, nobody has told the hour.
    np.testing.assert_allclose(drawn, expected, atol=0.01)


def test_what_follows_remembers_as_far_back_as_all_rows_do(monkeypatch):
    """A level that hardly moves beside a rest that wanders: five hundred rows do not tell it."""
    rng = np.random.default_rng(0)
    rest = np.zeros(900)
    for t in range(1, 900):
        rest[t] = 0.97 * rest[t - 1] + rng.normal()
    past = 2 * rest[:, None] + 0.01 * rng.normal(size=(900, 1)).cumsum(0)
    # Of the kinds that are compared the structural one is the last.
    monkeypatch.setattr(fit_module, "compare", lambda kinds, *_: (len(kinds) - 1, None))
    imputer = CSDIImputer(method="gaussian", window_length=8, n_draws=3, random_state=0).fit(past)
    drawn = imputer.sample(np.vstack([past, np.full((20, 1), np.nan)]))[-20:]
    np.testing.assert_array_equal(imputer.forecast(past, 20), drawn)
