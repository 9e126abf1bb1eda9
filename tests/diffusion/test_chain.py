"""Mixtures of logistic densities in one dimension: normal scores, their slopes, their inverse."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_ndtr, ndtri_exp

from skdiffusion.diffusion.chain import Cells, Components, averaged, normal_quantile


@pytest.fixture
def components():
    """Two hundred mixtures of four components, narrow ones and wide ones."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(200, 4, generator=generator, dtype=torch.float64)  # noqa: E731
    return Components(torch.log_softmax(draw(), 1), 2 * draw(), draw() - 1)


def test_density_is_that_of_the_logistic_distribution(components):
    x = torch.linspace(-6, 6, 200, dtype=torch.float64)
    parts = stats.logistic(components.means.numpy(), components.log_scales.exp().numpy())
    weights = components.log_weights.exp().numpy()
    expected = (weights * parts.pdf(x.numpy()[:, None])).sum(1)
    np.testing.assert_allclose(components.log_density(x).exp(), expected, rtol=1e-7)
    below, above = components.log_probabilities(x)
    expected = (weights * parts.cdf(x.numpy()[:, None])).sum(1)
    np.testing.assert_allclose(below.exp(), expected, rtol=1e-7)
    np.testing.assert_allclose(below.exp() + above.exp(), 1, rtol=1e-12)


def test_scores_have_the_slope_that_the_density_says(components):
    """dt/dx = f(x) / phi(t), by automatic differentiation through the quantile."""
    x = torch.linspace(-30, 30, 200, dtype=torch.float64).requires_grad_()
    scores, log_density = components.scores(x)
    (slope,) = torch.autograd.grad(scores.sum(), x)
    expected = log_density.exp() / torch.exp(torch.distributions.Normal(0.0, 1.0).log_prob(scores))
    np.testing.assert_allclose(slope, expected.detach(), rtol=1e-8)


@pytest.mark.parametrize("reach", [1, 5, 30])
def test_values_are_the_inverse_of_scores(components, reach):
    """Far out, too, where a probability has no digits left."""
    t = torch.linspace(-reach, reach, 200, dtype=torch.float64)
    np.testing.assert_allclose(components.scores(components.values(t))[0], t, atol=1e-8)


def test_normal_quantile_is_scipys():
    t = np.concatenate([-np.logspace(-3, 3, 50), [0.0]])
    found = normal_quantile(torch.as_tensor(log_ndtr(t)))
    np.testing.assert_allclose(found, ndtri_exp(log_ndtr(t)), rtol=1e-12, atol=1e-15)


@pytest.fixture
def cells(components):
    return Cells(components, torch.tensor([-1.2, 0.1, 0.9], dtype=torch.float64))


def test_cells_have_the_probabilities_of_the_mixture(cells, components):
    ends = cells.ends.numpy()
    parts = stats.logistic(components.means.numpy(), components.log_scales.exp().numpy())
    weights = components.log_weights.exp().numpy()
    below = np.stack([(weights * parts.cdf(end)).sum(1) for end in ends], 1)
    expected = np.diff(below, prepend=0, append=1, axis=1)
    np.testing.assert_allclose(cells.masses, expected, atol=5e-5)
    np.testing.assert_allclose(cells.masses.sum(1), 1, rtol=1e-12)


def test_density_of_cells_is_that_of_their_scores(cells):
    """log f(x) = log phi(t) + log dt/dx, and N(0, 1) inside a cell but for a factor."""
    x = torch.linspace(-5, 5, 200, dtype=torch.float64).requires_grad_()
    scores, log_density = cells.scores(x)
    (slope,) = torch.autograd.grad(scores.sum(), x)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(scores) + slope.log()
    np.testing.assert_allclose(log_density.detach(), expected.detach(), atol=1e-7)
    np.testing.assert_allclose(log_density.detach(), cells.log_density(x).detach())


@pytest.mark.parametrize("reach", [1, 4, 7])
def test_values_of_cells_are_the_inverse_of_their_scores(cells, reach):
    t = torch.linspace(-reach, reach, 200, dtype=torch.float64)
    np.testing.assert_allclose(cells.scores(cells.values(t))[0], t, atol=1e-5)


def test_an_average_has_the_average_density(components):
    x = torch.linspace(-3, 3, 200, dtype=torch.float64)
    other = components._replace(means=components.means + 1)
    found = averaged([components, other], torch.tensor([0.3, 0.7]).double().log())
    expected = 0.3 * components.log_density(x).exp() + 0.7 * other.log_density(x).exp()
    np.testing.assert_allclose(found.log_density(x).exp(), expected, rtol=1e-6)


def test_a_value_of_a_score_does_not_wait_for_others_nor_depend_on_them():
    generator = torch.Generator().manual_seed(0)
    parts = 2 * torch.randn(3, 4000, 6, generator=generator, dtype=torch.float64)
    many = Components(parts[0].log_softmax(-1), 5 * parts[1], parts[2])
    scores = torch.randn(4000, generator=generator, dtype=torch.float64)
    values = many.values(scores)
    torch.testing.assert_close(many.scores(values)[0], scores, atol=1e-8, rtol=0)
    few = Components(*(part[:3] for part in many)).values(scores[:3])
    assert torch.equal(few, values[:3])
