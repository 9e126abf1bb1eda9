"""The encoder on a Gaussian base: what it is before training, and how it is judged."""

import numpy as np
import pytest
import scoringrules
import torch

from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.diffusion.window.denoiser import GaussianDenoiser
from skdiffusion.diffusion.window.gaussian import WindowGaussian
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.nn.encoder import EncoderDenoiser

LENGTH, N_FEATURES = 4, 3


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def base():
    factor = torch.randn(12, 12, generator=rng(), dtype=torch.float64)
    covariance = factor @ factor.T / 12 + 0.3 * torch.eye(12, dtype=torch.float64)
    mean = torch.randn(12, generator=rng(1), dtype=torch.float64)
    return WindowBase(WindowGaussian(mean, covariance), LENGTH, N_FEATURES)


@pytest.fixture
def untrained(base):
    return EncoderDenoiser(base, LENGTH, N_FEATURES, n_channels=8, n_heads=2, generator=rng())


def windows(seed=2):
    values = torch.randn(6, LENGTH, N_FEATURES, generator=rng(seed))
    observed = torch.rand(values.shape, generator=rng(seed + 1)) < 0.5
    targets = ~observed & (torch.rand(values.shape, generator=rng(seed + 2)) < 0.5)
    return values, observed, targets


def shown(values, observed):
    """The windows as series of their own, and their rows."""
    series = WindowedSeries.stack(values, observed)
    return series, series.rows(series.offsets[:-1])


def test_untrained_it_denoises_as_the_gaussian(base, untrained):
    values, observed, _ = windows()
    cells = torch.nonzero(~observed[0].flatten())[:, 0][None]
    pad = torch.zeros_like(cells, dtype=torch.bool)
    asked = *shown(values[:1], observed[:1]), cells, pad
    z = torch.randn(1, 5, cells.shape[1], generator=rng(7))
    answers = [
        model.denoise(model.encode(*asked), z, 0.7) for model in (untrained, GaussianDenoiser(base))
    ]
    torch.testing.assert_close(*answers)


def test_the_held_out_loss_is_the_crps_of_the_conditional_normals(base, untrained):
    values, observed, targets = windows()
    with torch.no_grad():
        loss = float(untrained.held_out_loss(*shown(values, observed), values, targets))
    given = base.gaussian.condition(values.flatten(1), observed.flatten(1))
    hidden = targets.flatten(1).numpy()
    truth, mean, sd = (
        x.numpy()[hidden].astype(float) for x in (values.flatten(1), given.mean, given.sd)
    )
    assert loss == pytest.approx(np.mean(scoringrules.crps_normal(truth, mean, sd)), rel=1e-5)


def test_the_held_out_loss_of_no_target_is_zero(untrained):
    values, observed, targets = windows()
    assert untrained.held_out_loss(*shown(values, observed), values, targets & False) == 0


def test_training_lowers_both_losses(base, untrained):
    # The true mean differs from the Gaussian's by a constant, which the heads can learn.
    values, observed, targets = windows()
    values = values + 3
    before = float(untrained.held_out_loss(*shown(values, observed), values, targets).detach())
    optimizer = torch.optim.Adam(untrained.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        untrained.loss(*shown(values, observed), values, targets, rng(step)).backward()
        optimizer.step()
    assert (
        float(untrained.held_out_loss(*shown(values, observed), values, targets).detach())
        < 0.5 * before
    )
