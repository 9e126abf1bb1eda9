"""Seasons with sharp hours, walks in place of autoregressions, and gaps that are copied."""

import numpy as np
import pytest
import torch

from skdiffusion.diffusion.statespace import fit as fit_module
from skdiffusion.diffusion.statespace.fit import fit_state_space
from skdiffusion.diffusion.statespace.pieces import Pieces, has_gaps, hide_as_missing
from skdiffusion.diffusion.statespace.season import Season
from skdiffusion.diffusion.statespace.smoother import smooth

HOURS = torch.arange(60 * 24, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def wandering(n, damping, seed):
    """Autoregression of order 1, of deviation 1."""
    noise, x = np.random.default_rng(seed).normal(size=n), np.zeros(n)
    for i in range(1, n):
        x[i] = damping * x[i - 1] + np.sqrt(1 - damping**2) * noise[i]
    return x


def learnt(values, periods=(24.0,), seen=0.8, seed=1):
    x = torch.from_numpy(np.asarray(values))[:, None]
    observed = torch.rand(x.shape, generator=generator(seed)) < seen
    neighbours = torch.ones(len(x) - 1, dtype=torch.bool)
    return Season.learn(torch.where(observed, x, 0.0), observed, HOURS, neighbours, periods)


def test_hours_of_work_are_learnt_with_their_edges():
    """A day of hours that are open and shut has as many harmonics as fit into it."""
    profile = np.where((HOURS.numpy() % 24 >= 8) & (HOURS.numpy() % 24 < 18), 1.0, -1.0)
    season = learnt(profile + 0.3 * wandering(len(profile), 0.9, 0))
    left = season(HOURS)[:, 0].numpy() - profile
    assert season.coefficients.shape[1] == 24
    # Three harmonics, as all seasons had, leave a quarter of the deviation.
    assert np.sqrt(np.mean((left - left.mean()) ** 2)) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_smooth_series_are_given_no_more_harmonics_than_a_few(seed):
    """What is left of them depends on its neighbours: in sample more waves always seem to pay."""
    smooth = np.convolve(wandering(len(HOURS) + 4, 0.95, seed), np.ones(5) / 5, "valid")
    wave = np.cos(2 * np.pi * HOURS.numpy() / 24)
    assert learnt(smooth + wave).coefficients.shape[1] <= 12


def test_seasons_of_several_periods_add_up_whatever_their_harmonics():
    day = np.where(HOURS.numpy() % 24 < 12, 1.0, 0.0)
    week = np.cos(2 * np.pi * HOURS.numpy() / 168)
    season = learnt(day + week + 0.05 * wandering(len(day), 0.5, 3), (24.0, 168.0))
    assert season.periods.tolist() == [24.0, 168.0]
    left = season(HOURS)[:, 0].numpy() - day - week
    assert left.std() < 0.1
    parts = torch.cat([season(part) for part in HOURS.split(100)])
    torch.testing.assert_close(parts, season(HOURS))


def with_gaps(x, gap=25):
    """Standardised columns and which cells are known: whole rows are missing, a gap in four."""
    observed = np.ones(x.shape, dtype=bool)
    for first in range(40, len(x) - gap, 4 * gap):
        observed[first : first + gap] = False
    return torch.from_numpy((x - x.mean(0)) / x.std(0)), torch.from_numpy(observed)


def rates(n_times=276, seed=0):
    """Two walks and their difference, each now and for delivery in one and in three months."""
    rng = np.random.default_rng(seed)
    spot = rng.normal(size=(n_times, 2)).cumsum(0)
    spot = np.column_stack([spot, spot[:, 0] - spot[:, 1]])
    premium = np.column_stack([wandering(n_times, 0.95, seed + i) for i in range(3)])
    return np.column_stack([spot, spot + 0.02 * premium, spot + 0.06 * premium])


def gap_error(x, observed, **options):
    pieces = Pieces.cut(torch.where(observed, x, 0.0), observed, torch.tensor([0, len(x)]))
    model = fit_state_space(pieces, generator=generator(), **options).model
    smoothed = smooth(model, torch.where(observed, x, 0.0)[None].double(), observed[None])
    mean, _ = model.cells(smoothed.mean, smoothed.covariance)
    return float((mean[0] - x)[~observed].abs().mean()), model


def test_walks_are_filled_as_walks(monkeypatch):
    """An autoregression of nine columns has too few rows to know that nothing draws them back."""
    errors = np.zeros(2)
    for seed in range(3):
        x, observed = with_gaps(rates(150, seed))
        error, model = gap_error(x, observed)
        # Nothing draws the nine columns back to a mean.
        steady = torch.linalg.eigvals(model.transition).abs() > 1 - 1e-9
        assert int(steady.sum()) >= 9
        with monkeypatch.context() as patch:
            patch.setattr(fit_module, "_better", lambda best, pieces, *_: (best, pieces, None))
            errors += error, gap_error(x, observed)[0]
    assert errors[0] < errors[1]


def test_columns_that_come_back_are_no_walks():
    rng = np.random.default_rng(0)
    x = np.column_stack([wandering(600, 0.6, seed) for seed in range(4)])
    x = torch.from_numpy(x + 0.3 * rng.normal(size=x.shape))
    _, model = gap_error(*with_gaps(x.numpy()))
    assert float(model.transition[:, :4].diagonal().max()) < 0.9


def test_copied_gaps_are_as_long_and_as_wide_as_those_there_are():
    x, observed = with_gaps(rates(2000), gap=10)
    pieces = Pieces.cut(x, observed, torch.tensor([0, len(x)]))
    hidden = hide_as_missing(pieces.observed, pieces.real, 0.1, generator(2))
    assert not bool((hidden & ~pieces.observed).any())
    rows = hidden.all(2)
    assert torch.equal(rows, hidden.any(2))
    change = torch.nn.functional.pad(rows.int(), (1, 1)).diff(dim=1)
    lengths = (change == -1).nonzero()[:, 1] - (change == 1).nonzero()[:, 1]
    # A gap that falls on another one, or on an end, is cut.
    assert int(lengths.max()) == 10
    assert float((lengths == 10).double().mean()) > 0.5
    share = float(hidden.double().sum() / pieces.observed.double().sum())
    assert 0.03 < share < 0.2


def test_where_nothing_is_missing_rows_and_cells_are_hidden():
    observed = torch.ones(4, 200, 3, dtype=torch.bool)
    real = torch.ones(4, 200, dtype=torch.bool)
    assert not has_gaps(observed, real)
    hidden = hide_as_missing(observed, real, 0.15, generator(4))
    assert bool(hidden.all(2).any())
    assert bool((hidden.any(2) & ~hidden.all(2)).any())
    assert 0.08 < float(hidden.double().mean()) < 0.35


@pytest.mark.parametrize(("n_rows", "n_columns"), [(4, 3), (6, 1), (12, 8)])
def test_series_of_a_few_rows_are_filled(n_rows, n_columns):
    """More numbers than cells, and no cell that could be kept to judge by."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(n_rows, n_columns)).cumsum(0))
    error, model = gap_error(x, torch.from_numpy(rng.random(x.shape) > 0.5))
    assert np.isfinite(error)
    assert bool(torch.isfinite(model.innovation).all())
