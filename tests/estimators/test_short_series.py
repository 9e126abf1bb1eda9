"""Series of few rows: seasons of two years, trends of a dozen, and nothing clipped to what was."""

import numpy as np
import pandas as pd
import pytest
import torch

from skdiffusion import CSDIImputer
from skdiffusion.columns.spikes import Score
from skdiffusion.diffusion.statespace import fit as fit_module
from skdiffusion.diffusion.statespace import structural
from skdiffusion.diffusion.statespace.fit import fit_state_space
from skdiffusion.diffusion.statespace.pieces import Pieces


def frame(values, freq="MS"):
    """Columns as a frame with times."""
    values = np.asarray(values, dtype=float).reshape(len(values), -1)
    index = pd.date_range("2012-01-01", periods=len(values), freq=freq)
    return pd.DataFrame(values, index, [f"y{j}" for j in range(values.shape[1])])


def ahead(past, n, window=12, n_draws=100):
    """Draws (n, n_draws, n_columns) of the rows that follow."""
    imputer = CSDIImputer(method="gaussian", window_length=window, random_state=0)
    return imputer.fit(past).forecast(past, n, n_draws=n_draws)


def months(n_rows, n_columns=1, seed=0, noise=1.0):
    """A line and months of their own for every column."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_rows)[:, None]
    shares = 8 * rng.normal(size=(12, n_columns))
    return 100 + 0.5 * t + shares[t[:, 0] % 12] + noise * rng.normal(size=(n_rows, n_columns))


def error_to_last_year(n_rows, n_columns=1, seed=0):
    """Error of the medians of a year ahead over that of the same months of the last one."""
    whole = months(n_rows + 12, n_columns, seed)
    past, truth = frame(whole[:-12]), whole[-12:]
    middle = np.median(ahead(past, 12), axis=1)
    return np.abs(middle - truth).mean() / np.abs(whole[-24:-12] - truth).mean()


@pytest.mark.parametrize(("n_rows", "most"), [(36, 0.6), (48, 0.6), (60, 0.6)])
def test_a_few_years_of_months_go_on_with_their_growth(n_rows, most):
    """Last year's months are 6 too low; a forecast that returns to the mean is 13 off."""
    assert np.mean([error_to_last_year(n_rows, seed=seed) for seed in range(3)]) < most


def test_a_season_is_known_from_two_years():
    """The second one begins and ends eleven months apart."""
    month = 2 * np.pi * np.arange(36) / 12
    wave = 10 * np.cos(month) + 5 * np.sin(2 * month)
    noisy = wave + 0.5 * np.random.default_rng(0).normal(size=36)
    middle = np.median(ahead(frame(noisy[:24]), 12), axis=1)[:, 0]
    assert np.abs(middle - wave[24:]).mean() < 2.0


def test_columns_with_months_of_their_own_are_forecast_together():
    """Eight of them, each with up to fourteen states."""
    assert error_to_last_year(72, 8) < 0.7


@pytest.mark.parametrize("n_rows", [12, 15, 20])
def test_what_grows_goes_beyond_its_largest_value(n_rows):
    """Of so few rows each value is a twentieth of all, and no spike."""
    t = np.arange(n_rows)
    line = 3.0 * t + 0.3 * np.random.default_rng(1).normal(size=n_rows)
    draws = ahead(frame(line, "YS"), 3, window=6)[..., 0]
    assert np.median(draws[-1]) > line.max()


def test_a_spike_is_more_than_a_few_equal_values():
    rising = np.arange(10.0)
    assert Score.learn(np.repeat(rising, 2)) is None
    assert Score.learn(np.repeat([0.0, *rising], 2)) is not None
    assert Score.learn(np.concatenate([np.zeros(4), rising[1:]])) is not None


def test_a_slope_is_found_beside_waves_that_hide_it():
    """One that adds to a year half of what its months differ by."""
    t = np.arange(96)
    x = 0.05 * t + 2 * np.cos(2 * np.pi * t / 12) + np.sin(4 * np.pi * t / 12)
    x = x + 0.2 * np.random.default_rng(0).normal(size=96)
    x = torch.as_tensor((x - x.mean()) / x.std())[:, None]
    pieces = Pieces.cut(x, torch.ones((96, 1), dtype=torch.bool), torch.tensor([0, 96]), 96)
    _, known = structural.fit_structural(pieces, 12, torch.Generator().manual_seed(0))
    waves, slope = structural._kinds(12)[known[0][1]]
    assert waves
    assert slope


def test_too_few_cells_to_compare_have_the_model_that_believes_most(monkeypatch):
    def never(*_):
        raise AssertionError("compared")

    monkeypatch.setattr(fit_module, "compare", never)
    x = torch.as_tensor(months(24)) / 10
    pieces = Pieces.cut(x - x.mean(), torch.ones_like(x, dtype=torch.bool), torch.tensor([0, 24]))
    fit = fit_state_space(pieces, generator=torch.Generator().manual_seed(0), period=12.0)
    assert fit.model.n_states > 1
