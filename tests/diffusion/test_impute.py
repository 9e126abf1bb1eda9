"""Joint draws through overlapping windows: an exact denoiser must give exact conditionals."""

import numpy as np
import pytest
import torch

from skdiffusion._random import normals, row_keys
from skdiffusion.diffusion.solve import log_levels
from skdiffusion.diffusion.window import draw as impute
from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.diffusion.window.denoiser import GaussianDenoiser
from skdiffusion.diffusion.window.draw import draw_missing
from skdiffusion.diffusion.window.gaussian import WindowGaussian
from skdiffusion.diffusion.window.series import WindowedSeries

RHO, LENGTH = 0.8, 16


def ar_covariance(n):
    step = np.arange(n)
    return RHO ** np.abs(step[:, None] - step)


def exact_model():
    covariance = torch.from_numpy(ar_covariance(LENGTH))
    gaussian = WindowGaussian(torch.zeros(LENGTH).double(), covariance)
    return GaussianDenoiser(WindowBase(gaussian, LENGTH, 1))


def one_gap(first, last, n=40):
    values = torch.full((n, 1), 0.5).double()
    values[first - 1], values[last] = 1.5, -1.0
    observed = torch.ones(n, 1, dtype=torch.bool)
    observed[first:last] = False
    return WindowedSeries.join([(values, observed, ~observed)], LENGTH)


def draw(series, n_draws, stride=8, n_steps=40, cells_per_batch=10**6, step="dpmpp_2m_sde"):
    keys = row_keys(series.values[:, 0].split(series.offsets.diff().tolist()), seed=0)
    number, cell = series.address()

    def noise(cells, step):
        return normals(keys[number[cells]], torch.arange(n_draws)[:, None], step, cell[cells])

    return draw_missing(
        exact_model(),
        series,
        noise,
        n_draws=n_draws,
        stride=stride,
        noise_levels=log_levels(n_steps, 0.02, 10.0),
        step=step,
        cells_per_batch=cells_per_batch,
    )


def closed_form(series):
    covariance = ar_covariance(len(series.values))
    o = series.observed[:, 0].numpy()
    gain = covariance[~o][:, o] @ np.linalg.inv(covariance[o][:, o])
    mean = gain @ series.values[:, 0].numpy()[o]
    return mean, covariance[~o][:, ~o] - gain @ covariance[o][:, ~o]


# One gap inside every window that sees it, one longer than what two windows share.
@pytest.mark.parametrize(("first", "last"), [(18, 22), (14, 27)])
def test_draws_have_the_closed_form_mean_and_covariance(first, last):
    series = one_gap(first, last)
    draws = draw(series, 4000, stride=4).double().numpy()
    mean, covariance = closed_form(series)
    sd = np.sqrt(np.diag(covariance))
    # Sampling error at 4000 draws, plus what 16-step windows and 40 solver steps may cost.
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / sd, 4.9 / np.sqrt(4000) + 0.1)
    error = (np.cov(draws.T) - covariance) / np.outer(sd, sd)
    np.testing.assert_array_less(np.abs(error), 4.9 * np.sqrt(2 / 4000) + 0.06)


def test_increments_cross_window_borders_with_the_spread_they_have_inside():
    series = one_gap(4, 36)
    draws = draw(series, 2000, stride=4).double().numpy()
    spread = np.diff(draws, axis=1).std(0)
    expected = np.sqrt(2 * (1 - RHO))
    assert np.abs(spread / expected - 1).max() < 0.15


def test_windows_drawn_apart_would_break_the_increments(monkeypatch):
    """The law above sees a planted fault: noisy states that windows do not share."""
    series = one_gap(4, 36)
    monkeypatch.setattr(impute, "taper", lambda n: torch.tensor([1e-9, *[1.0] * (n - 1)]))
    draws = draw(series, 500, stride=LENGTH).double().numpy()
    spread = np.diff(draws, axis=1).std(0)
    assert np.abs(spread / np.sqrt(2 * (1 - RHO)) - 1).max() > 0.15


def scattered(n=60):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(n, 1, generator=generator).double()
    observed = torch.rand(n, 1, generator=generator) > 0.3
    return values, observed


def test_memory_bound_changes_no_result():
    values, observed = scattered()
    series = WindowedSeries.join([(values, observed, ~observed)], LENGTH)
    whole, pieces = (draw(series, 5, n_steps=8, cells_per_batch=n) for n in (10**6, 20))
    torch.testing.assert_close(whole, pieces, rtol=0, atol=1e-5)


def test_a_series_is_drawn_alike_alone_and_among_others():
    parts = [scattered(n) for n in (60, 33, 20)]
    triples = [(x, o, ~o) for x, o in parts]
    together = draw(WindowedSeries.join(triples, LENGTH), 5, n_steps=8)
    first = 0
    for triple in triples:
        alone = draw(WindowedSeries.join([triple], LENGTH), 5, n_steps=8)
        torch.testing.assert_close(
            together[:, first : first + alone.shape[1]], alone, atol=1e-5, rtol=0
        )
        first += alone.shape[1]
    assert first == together.shape[1]


def test_unasked_cells_are_left_alone():
    values, observed = scattered()
    wanted = ~observed
    wanted[30:] = False
    series = WindowedSeries.join([(values, observed, wanted)], LENGTH)
    draws = draw(series, 3, n_steps=4)
    assert draws.shape == (3, int(wanted.sum()))
    assert draws.isfinite().all()


def test_progress_rises_to_one():
    values, observed = scattered()
    series = WindowedSeries.join([(values, observed, ~observed)], LENGTH)
    shares = []
    draw_missing(
        exact_model(),
        series,
        lambda cells, step: torch.zeros(2, len(cells)),
        n_draws=2,
        stride=8,
        noise_levels=log_levels(5, 0.02, 10.0),
        step="ddim",
        cells_per_batch=20,
        on_step=shares.append,
    )
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
