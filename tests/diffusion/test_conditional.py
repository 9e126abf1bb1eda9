"""Conditional mixtures against Bayes' rule, quadrature and the mixtures of each class."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from skdiffusion.diffusion.analytic.build import (
    gaussian,
    gaussian_mixture,
    kernel_density,
    marginal,
)
from skdiffusion.diffusion.conditional import (
    ConditionalMixture,
    LocatedMixture,
    labelled_mixture,
    rebuild,
)


def densities():
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(80, 3)) @ rng.normal(size=(3, 3)) + 2, rng.normal(size=(70, 3))]
    for name in ("full", "tied", "diag", "spherical"):
        m = GaussianMixture(3, covariance_type=name, random_state=0).fit(X)
        yield name, gaussian_mixture(m.weights_, m.means_, m.covariances_, name)
    yield "one", gaussian([1.0, 2.0, 0.0], np.diag([1.0, 2.0, 3.0]) + 0.5)
    yield "kde", kernel_density(rng.normal(size=(40, 3)) + 1, 0.4)


DENSITIES = dict(densities())
ALL = pytest.mark.parametrize("name", DENSITIES)
MASKS = pytest.mark.parametrize("observed", [(0, 1, 0), (1, 0, 1)], ids=["one", "two"])


def points(n=6):
    return torch.as_tensor(np.random.default_rng(2).normal(size=(n, 3)) + 1)


@ALL
@MASKS
def test_conditional_times_marginal_is_the_joint(name, observed):
    joint, x = DENSITIES[name], points()
    observed = torch.tensor(observed, dtype=torch.bool)
    conditional = ConditionalMixture(joint, observed).given(x[:, observed])
    total = conditional.log_density(x[:, ~observed]) + marginal(joint, observed).log_density(
        x[:, observed]
    )
    torch.testing.assert_close(total, joint.log_density(x))


@ALL
def test_noisy_versions_of_a_conditional_match_autograd(name):
    x, s = points(), 0.7
    density = ConditionalMixture(DENSITIES[name], [True, False, False]).given(x[:, :1])
    z = x[:, 1:].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_density(z, s).sum(), z)
    torch.testing.assert_close(density.denoise(z, s), z + s**2 * gradient)
    denoised, jacobian = density.denoise_and_jacobian(z, s)
    columns = [
        torch.autograd.grad(density.denoise(z, s)[:, i].sum(), z, retain_graph=True)[0]
        for i in (0, 1)
    ]
    torch.testing.assert_close(jacobian, torch.stack(columns, 1))
    torch.testing.assert_close(
        density.denoise_and_divergence(z, s)[1], jacobian.diagonal(dim1=1, dim2=2).sum(1)
    )
    vector = torch.ones_like(z)
    _, _, (product,) = density.denoise_divergence_and_jvps(z, s, [vector])
    torch.testing.assert_close(product, jacobian.sum(2))
    torch.testing.assert_close(denoised, density.denoise(z, s))


@ALL
def test_conditional_draws_follow_the_density(name):
    """Against quadrature of the joint density over the missing feature."""
    joint, n = DENSITIES[name], 40000
    x = joint.sample(1, torch.Generator().manual_seed(3))
    observed = torch.tensor([True, False, True])
    generator = torch.Generator().manual_seed(4)
    uniforms = torch.rand(1, n, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, n, 1, generator=generator, dtype=torch.float64)
    density = ConditionalMixture(joint, observed).given(x[:, observed])
    draws = density.sample(uniforms, noise)[0, :, 0]
    grid = torch.linspace(-30, 40, 70001, dtype=torch.float64)
    line = x.expand(len(grid), 3).clone()
    line[:, 1] = grid
    weight = torch.softmax(joint.log_density(line), 0)
    mean = weight @ grid
    std = (weight @ (grid - mean) ** 2).sqrt()
    assert abs(draws.mean() - mean) < 5.3 * std / math.sqrt(n)
    assert abs(draws.std() / std - 1) < 0.05
    torch.testing.assert_close(density.mean()[0, 0], mean, rtol=1e-4, atol=1e-4)


def test_labelled_mixture_is_the_mixture_of_the_class():
    names, shares = ["full", "one", "diag"], [0.5, 0.2, 0.3]
    x, labels = points(), torch.tensor([0, 1, 2, 2, 1, 0])
    density = labelled_mixture([DENSITIES[name] for name in names], shares)
    given = density.given(torch.eye(3)[labels])
    for s in (0.0, 0.5):
        alone = torch.stack([DENSITIES[name].log_density(x, s) for name in names], 1)
        torch.testing.assert_close(
            given.log_density(x, s), alone[torch.arange(6), labels], rtol=1e-9, atol=1e-9
        )
        together = torch.logsumexp(alone + torch.tensor(shares).double().log(), 1)
        torch.testing.assert_close(density.given(None).log_density(x, s), together)
    single = density.float().given(torch.eye(3)[labels]).denoise(x.float(), 0.5)
    torch.testing.assert_close(single, given.denoise(x, 0.5).float(), rtol=1e-4, atol=1e-4)


def test_arrays_rebuild_the_densities():
    x = points()
    joint = DENSITIES["full"]
    for density, z, condition in (
        (ConditionalMixture(joint, [False, True, False]), x[:, [0, 2]], x[:, 1:2]),
        (labelled_mixture([joint, DENSITIES["kde"]], [1, 2]), x, torch.eye(2)[[0, 1, 0, 1, 1, 0]]),
        (joint, x, None),
    ):
        again = rebuild(**density.arrays())
        for given in (condition, None):
            expected = density.given(given).denoise(z, 0.3)
            torch.testing.assert_close(again.given(given).denoise(z, 0.3), expected)


@ALL
def test_located_mixture_is_the_shape_moved_and_stretched(name):
    """log p(x | c) = log p_u((x - m) / s) - d log s, at every noise level."""
    shape, x = DENSITIES[name], points()
    rng = np.random.default_rng(5)
    location = torch.as_tensor(rng.normal(size=(6, 3)))
    log_scale = torch.as_tensor(rng.normal(size=(6, 1)))
    condition = torch.cat([torch.full((6, 2), math.nan, dtype=x.dtype), location, log_scale], 1)
    density = LocatedMixture(shape, DENSITIES["one"])
    scale = log_scale.exp()
    for s in (0.0, 0.7):
        expected = shape.log_density((x - location) / scale, s / scale[:, 0]) - 3 * log_scale[:, 0]
        torch.testing.assert_close(density.given(condition).log_density(x, s), expected)
    expected = location + scale * shape.denoise((x - location) / scale, 0.7 / scale[:, 0])
    torch.testing.assert_close(density.given(condition).denoise(x, 0.7), expected)
    again = rebuild(**density.arrays())
    torch.testing.assert_close(again.given(condition).mean(), density.given(condition).mean())
    torch.testing.assert_close(again.given().log_density(x), DENSITIES["one"].log_density(x))


def test_draws_of_a_located_mixture_have_its_moments():
    n = 40000
    condition = torch.tensor([[2.0, -1.0, math.log(3.0)]], dtype=torch.float64)
    shape = gaussian([1.0, 0.0], [[1.0, 0.5], [0.5, 2.0]])
    generator = torch.Generator().manual_seed(6)
    noise = torch.randn(1, n, 2, generator=generator, dtype=torch.float64)
    density = LocatedMixture(shape, shape).given(condition)
    draws = density.sample(torch.full((1, n), 0.5, dtype=torch.float64), noise)[0].numpy()
    covariance = 9 * np.array([[1.0, 0.5], [0.5, 2.0]])
    error = 5.3 * np.sqrt(np.diag(covariance) / n)
    assert (np.abs(draws.mean(0) - [5.0, -1.0]) < error).all()
    np.testing.assert_allclose(np.cov(draws.T), covariance, rtol=0.06)
