"""The base plus residual network, and the loss it is trained with."""

import math

import pytest
import torch

from skdiffusion.diffusion.analytic.build import gaussian, gaussian_mixture
from skdiffusion.diffusion.denoiser import Denoiser
from skdiffusion.diffusion.loss import (
    NOISE_LAWS,
    denoising_loss,
    law_and_weight,
    loguniform_law,
    noise_weight,
    stratified_uniforms,
    uniform_law,
)
from skdiffusion.diffusion.sde import VPSDE, SubVPSDE
from skdiffusion.nn.mlp import ResidualMLP

BASE = gaussian_mixture([0.4, 0.6], [[0.0, 1.0], [1.0, -1.0]], [[0.5, 1.0], [1.0, 0.2]], "diag")


def trained_denoiser(n_conditions=0):
    """A denoiser whose network is not zero."""
    generator = torch.Generator().manual_seed(0)
    network = ResidualMLP(2, (16, 16), n_conditions=n_conditions, generator=generator).double()
    torch.nn.init.normal_(network.output.weight, generator=generator)
    return Denoiser(BASE, network)


def points(n=5):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_untrained_denoiser_is_the_base():
    network = ResidualMLP(2, (8,), generator=torch.Generator().manual_seed(0)).double()
    z = points()
    torch.testing.assert_close(Denoiser(BASE, network)(z, 0.3), BASE.denoise(z, 0.3))


@pytest.mark.parametrize("s", [0.02, 0.7, 30.0])
def test_network_is_preconditioned(s):
    """The inputs of Karras et al., and at small noise their output; 1 / s of it at large noise."""
    z = points()
    network = trained_denoiser().network
    denoiser = Denoiser(gaussian([0.0, 0.0], torch.eye(2)), network)
    log_s = torch.full((5, 1), math.log(s), dtype=torch.float64)
    output = network(z / math.sqrt(1 + s**2), log_s, z * s / (1 + s**2))
    expected = z / (1 + s**2) + s / (1 + s**2) * output
    torch.testing.assert_close(denoiser(z, s), expected)


def test_shares_add_up_exactly_and_from_estimates():
    denoiser, z = trained_denoiser(), points()
    (base, trace), (residual, change) = denoiser.shares(z, 0.4)
    torch.testing.assert_close((base, trace), BASE.denoise_and_divergence(z, 0.4))
    torch.testing.assert_close(base + residual, denoiser(z, 0.4))
    axes = torch.eye(2, dtype=torch.float64)[:, None]
    forms = denoiser.shares(z, 0.4, directions=axes)[1][1]
    assert change.abs().min() > 1e-3
    torch.testing.assert_close(forms.sum(1), change)


@pytest.mark.parametrize("s", [0.05, 1.0])
def test_traces_and_quadratic_forms_match_autograd(s):
    denoiser, z = trained_denoiser(), points()
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda y: denoiser(y[None], s)[0], row) for row in z]
    )
    (denoised, own), (residual, change) = denoiser.shares(z, s)
    torch.testing.assert_close(denoised + residual, denoiser(z, s))
    torch.testing.assert_close(own + change, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    direction = points(10)[5:]
    (denoised, _), (residual, form) = denoiser.shares(z, s, directions=direction[None])
    torch.testing.assert_close(denoised + residual, denoiser(z, s))
    learnt = jacobian - BASE.denoise_and_jacobian(z, s)[1]
    expected = torch.einsum("ni,nij,nj->n", direction, learnt, direction)
    torch.testing.assert_close(form[:, 0], expected)
    signs = torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]], dtype=torch.float64)
    (_, alone), (_, estimates) = denoiser.shares(z, s, directions=signs)
    torch.testing.assert_close(estimates.mean(1), change)
    torch.testing.assert_close(alone, BASE.denoise_and_divergence(z, s)[1])


def test_condition_of_nan_is_no_condition():
    denoiser, z = trained_denoiser(n_conditions=1), points()
    nan = torch.full((5, 1), math.nan, dtype=torch.float64)
    zero = torch.zeros(5, 1, dtype=torch.float64)
    torch.testing.assert_close(denoiser(z, 0.5, nan), denoiser(z, 0.5))
    assert not torch.allclose(denoiser(z, 0.5, zero), denoiser(z, 0.5))


def test_network_is_fixed_by_its_generator_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    make = lambda: ResidualMLP(3, (8, 8), generator=torch.Generator().manual_seed(3))  # noqa: E731
    for a, b in zip(make().state_dict().values(), make().state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


def test_likelihood_weighting_with_importance_sampling_is_the_loguniform_law():
    """g(t)**2 / sigma(t)**2 dt, the weight of the noise error in time, is 2 dlog s."""
    for sde in (VPSDE(), SubVPSDE()):
        t = torch.linspace(0.05, 1, 7, dtype=torch.float64)
        weight = sde.diffusion(t) ** 2 / sde.sigma(t) ** 2
        h = 1e-5
        slope = (sde.noise_level(t + h).log() - sde.noise_level(t - h).log()) / (2 * h)
        torch.testing.assert_close(weight, 2 * slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("noise_law", [*NOISE_LAWS, VPSDE()])
def test_laws_stay_in_range_and_rise(noise_law):
    law, weight = law_and_weight(noise_law)
    s = law(torch.linspace(1e-6, 1 - 1e-6, 200), 1e-3, 50.0)
    assert (s.diff() >= 0).all()
    assert s.min() >= 1e-3 * (1 - 1e-5)
    assert s.max() <= 50 * (1 + 1e-5)
    assert (weight(s) > 0).all()


def test_laws_have_their_quantiles():
    u = torch.tensor([0.25, 0.5], dtype=torch.float64)
    expected = torch.tensor([0.01**0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(loguniform_law(u, 0.01, 100.0), expected)
    middle = uniform_law(u, 1e-3, VPSDE().max_noise_level, VPSDE())
    torch.testing.assert_close(VPSDE().time(middle), u, rtol=1e-3, atol=1e-4)


def test_stratified_uniforms_visit_every_stratum():
    u = stratified_uniforms(100, torch.Generator().manual_seed(0))
    assert torch.equal((100 * u).floor().sort().values, torch.arange(100.0))
    assert not torch.equal(u, u.sort().values)


def test_denoising_loss_of_the_optimum_is_its_posterior_variance():
    generator = torch.Generator().manual_seed(0)
    normal = lambda: torch.randn(200000, 1, generator=generator, dtype=torch.float64)  # noqa: E731
    s = torch.full((200000,), 0.5, dtype=torch.float64)
    density = gaussian([0.0], [[1.0]])
    loss = denoising_loss(density.denoise, normal(), s, normal(), noise_weight)
    posterior_variance = 0.25 / 1.25
    assert float(loss.mean()) == pytest.approx(posterior_variance / 0.25, rel=0.02)
