"""Closed-form noisy densities against scikit-learn, autograd and quadrature."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skdiffusion.diffusion.analytic.build import (
    from_arrays,
    gaussian,
    gaussian_mixture,
    kernel_density,
    union,
)
from skdiffusion.diffusion.analytic.fused import Fused
from skdiffusion.diffusion.analytic.kinds import SharedMixture

TYPES = ["full", "tied", "diag", "spherical"]
LEVELS = [0.0, 0.3, 5.0]


def fitted(covariance_type, n_components=3):
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(80, 3)) @ rng.normal(size=(3, 3)) + 4, rng.normal(size=(70, 3))]
    return GaussianMixture(n_components, covariance_type=covariance_type, random_state=0).fit(X), X


def densities():
    for name in TYPES:
        m, _ = fitted(name)
        yield name, gaussian_mixture(m.weights_, m.means_, m.covariances_, name)
    yield "one", gaussian([1.0, 2.0, 0.0], np.diag([1.0, 2.0, 3.0]) + 0.5)
    yield "kde", kernel_density(np.random.default_rng(1).normal(size=(40, 3)) + 1, 0.4)
    yield (
        "isotropic",
        gaussian_mixture([0.3, 0.7], [[0, 0, 1.0], [2, 1, 1]], [0.5, 0.5], "spherical"),
    )
    m, _ = fitted("diag")
    parts = [
        gaussian([1.0, 2.0, 0.0], np.diag([1.0, 2.0, 3.0]) + 0.5),
        gaussian_mixture(m.weights_, m.means_, m.covariances_, "diag"),
    ]
    yield "union", union([1.0, 3.0], parts)


DENSITIES = dict(densities())


def points(n=6):
    return torch.as_tensor(np.random.default_rng(2).normal(size=(n, 3)) * 2 + 1)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("s", LEVELS)
def test_log_density_is_that_of_scikit_learn_with_inflated_covariances(covariance_type, s):
    m, X = fitted(covariance_type)
    density = gaussian_mixture(m.weights_, m.means_, m.covariances_, covariance_type)
    identity = np.eye(3) if covariance_type in ("full", "tied") else 1.0
    m.covariances_ = m.covariances_ + s**2 * identity
    if covariance_type == "full":
        m.precisions_cholesky_ = np.stack(
            [np.linalg.cholesky(np.linalg.inv(c)) for c in m.covariances_]
        )
    elif covariance_type == "tied":
        m.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(m.covariances_))
    else:
        m.precisions_cholesky_ = m.covariances_**-0.5
    np.testing.assert_allclose(
        density.log_density(torch.as_tensor(X), s), m.score_samples(X), atol=1e-9
    )


def test_union_is_the_average_of_densities():
    parts = [DENSITIES[name] for name in ("full", "diag", "one", "isotropic")]
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    for s in LEVELS:
        each = torch.stack([density.log_density(points(), s) for density in parts], 1)
        expected = torch.logsumexp(each + torch.as_tensor(weights).log(), 1)
        ours = union(5 * weights, parts).log_density(points(), s)
        np.testing.assert_allclose(ours, expected, atol=1e-10)


def test_kernel_density_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    X, T = rng.normal(size=(50, 4)), rng.normal(size=(20, 4))
    ours = kernel_density(X, 0.3).log_density(torch.as_tensor(T))
    theirs = KernelDensity(bandwidth=0.3, rtol=1e-10).fit(X).score_samples(T)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("s", [0.0, 0.7])
def test_leaving_one_out_is_the_density_of_the_others(s):
    X = np.random.default_rng(0).normal(size=(30, 2))
    z = torch.as_tensor(X) + 0.1
    index = torch.arange(30)
    full = kernel_density(X, 0.3)
    level = torch.full((30,), s, dtype=torch.float64)
    for i in (0, 7, 29):
        rest = kernel_density(np.delete(X, i, 0), 0.3)
        row = slice(i, i + 1)
        torch.testing.assert_close(
            full.log_density(z, level, index)[row], rest.log_density(z[row], s)
        )
        torch.testing.assert_close(full.denoise(z, level, index)[row], rest.denoise(z[row], s))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_leaving_a_component_out_is_the_mixture_of_the_others(covariance_type):
    m, _ = fitted(covariance_type)
    z, index = points(3), torch.arange(3)
    level = torch.full((3,), 0.3, dtype=torch.float64)
    density = gaussian_mixture(m.weights_, m.means_, m.covariances_, covariance_type)
    left = density.log_density(z, level, index), density.log_density_gradient(z, level, index)
    for i in range(3):
        others = np.delete(np.arange(3), i)
        covariances = m.covariances_ if covariance_type == "tied" else m.covariances_[others]
        rest = gaussian_mixture(m.weights_[others], m.means_[others], covariances, covariance_type)
        row = slice(i, i + 1)
        torch.testing.assert_close(left[0][row], rest.log_density(z[row], 0.3))
        torch.testing.assert_close(left[1][row], rest.log_density_gradient(z[row], 0.3))


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("s", LEVELS)
def test_gradient_jacobian_and_divergence_match_autograd(name, s):
    density = DENSITIES[name]
    z = points().requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_density(z, s).sum(), z)
    torch.testing.assert_close(density.log_density_gradient(z, s), gradient)
    torch.testing.assert_close(density.denoise(z, s), z + s**2 * gradient)
    value, again = density.log_density_and_gradient(z, s)
    torch.testing.assert_close(value, density.log_density(z, s))
    torch.testing.assert_close(again, gradient)
    denoised, jacobian = density.denoise_and_jacobian(z, s)
    expected = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda y: density.denoise(y[None], s)[0], row)
            for row in z.detach()
        ]
    )
    torch.testing.assert_close(jacobian, expected)
    also_denoised, divergence = density.denoise_and_divergence(z, s)
    torch.testing.assert_close(divergence, expected.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(denoised, density.denoise(z, s))
    torch.testing.assert_close(also_denoised, denoised)
    vector = points(12)[6:]
    _, _, (product,) = density.denoise_divergence_and_jvps(z, s, [vector])
    torch.testing.assert_close(product, torch.einsum("nij,nj->ni", expected, vector))


@pytest.mark.parametrize("name", DENSITIES)
def test_one_level_a_row_equals_one_level_at_a_time(name):
    density, z = DENSITIES[name], points()
    s = torch.linspace(0.01, 3, len(z), dtype=torch.float64)
    for method in ("log_density", "denoise", "log_density_gradient"):
        together = getattr(density, method)(z, s)
        alone = torch.cat([getattr(density, method)(z[i : i + 1], float(s[i])) for i in range(6)])
        torch.testing.assert_close(together, alone)
    together = density.denoise_and_jacobian(z, s)[1]
    alone = torch.cat(
        [density.denoise_and_jacobian(z[i : i + 1], float(s[i]))[1] for i in range(6)]
    )
    torch.testing.assert_close(together, alone)


def test_denoiser_is_the_posterior_mean_by_quadrature():
    density = gaussian_mixture([0.2, 0.8], [[-1.0], [2.0]], [[0.3], [1.5]], "diag")
    x = torch.linspace(-15, 15, 20001, dtype=torch.float64)
    prior = density.log_density(x[:, None]).exp()
    assert float(torch.trapezoid(prior, x)) == pytest.approx(1, abs=1e-9)
    for z, s in ((0.5, 0.4), (-3.0, 2.0)):
        joint = prior * torch.exp(-0.5 * ((z - x) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        marginal = torch.trapezoid(joint, x)
        point = torch.tensor([[z]], dtype=torch.float64)
        torch.testing.assert_close(density.log_density(point, s)[0], marginal.log())
        torch.testing.assert_close(
            density.denoise(point, s)[0, 0], torch.trapezoid(x * joint, x) / marginal
        )


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_have_the_moments_of_the_density(name):
    density = DENSITIES[name]
    n = 40000
    x = density.sample(n, torch.Generator().manual_seed(0))
    mean = density.log_weights.exp() @ density.means
    error = (x.mean(0) - mean).abs() / (x.std(0) / math.sqrt(n))
    assert error.max() < 5.3  # two-sided 1e-7 a comparison
    # At a level far above the data the denoiser's Jacobian is the covariance over s**2.
    s = 1e4
    covariance = density.denoise_and_jacobian(x[:10], s)[1].mean(0) * s**2
    scale = torch.outer(x.std(0), x.std(0))
    assert ((covariance - torch.cov(x.T)).abs() / scale).max() < 0.05


def test_far_points_stay_finite_and_float32_follows_float64():
    density = DENSITIES["kde"]
    far = torch.full((1, 3), 1e4, dtype=torch.float64)
    for value in density.log_density_and_gradient(far):
        assert torch.isfinite(value).all()
    z = points()
    single = kernel_density(np.random.default_rng(1).normal(size=(40, 3)) + 1, 0.4).float()
    torch.testing.assert_close(
        single.denoise(z.float(), 0.2).double(), density.denoise(z, 0.2), atol=1e-4, rtol=1e-4
    )


def test_unknown_covariance_type_is_refused():
    with pytest.raises(ValueError, match="covariance_type must be"):
        gaussian_mixture([1.0], [[0.0]], [[1.0]], "round")


def test_arrays_rebuild_the_density():
    for density in DENSITIES.values():
        again = from_arrays(**density.arrays())
        torch.testing.assert_close(again.denoise(points(), 0.3), density.denoise(points(), 0.3))


@pytest.mark.parametrize("s", [0.0, 0.7])
@pytest.mark.parametrize(
    ("name", "mixture"), [(n, m) for n, m in densities() if isinstance(m, SharedMixture)]
)
def test_fused_products_give_the_same_value_and_gradient(name, mixture, s):
    z = 3 * torch.randn((200, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Far points, too, where all shares underflow.
    z[:5] *= 1e3
    value, gradient = mixture.double().log_density_and_gradient(z, s)
    fused = Fused(mixture.double(), s)(z)
    torch.testing.assert_close(fused[0], value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fused[1], gradient, rtol=1e-10, atol=1e-10)
