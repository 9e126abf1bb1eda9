"""Funnels straightened: the map is one to one, and draws of known funnels give the known map."""

import numpy as np
import pytest
import torch

from skdiffusion.diffusion.target import Supported
from skdiffusion.diffusion.target.noncentred import NonCentred
from skdiffusion.diffusion.target.targets import Target
from skdiffusion.estimators.sampling._funnels import find_non_centred


def a_map():
    rng = np.random.default_rng(0)
    members = np.array([0, 0, 1, 1, 1])[:, None] * np.array([1, 1, 0, 0, 0])
    location, log_scale = (members * rng.normal(size=(5, 5)) for _ in range(2))
    return NonCentred(members[:, 0] * rng.normal(size=5), location, log_scale, rng.normal(size=5))


def test_the_map_is_one_to_one_and_its_jacobian_right():
    change = a_map()
    z = torch.randn((20, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, log_jacobian = change(z)
    torch.testing.assert_close(change.inverse(y), z)
    assert torch.equal(y[:, :2], z[:, :2])
    for row, known in zip(z, log_jacobian):
        jacobian = torch.autograd.functional.jacobian(lambda r: change(r[None])[0][0], row)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], known)


def test_a_straightened_gaussian_in_a_funnel_is_a_gaussian():
    change = a_map()

    class Funnel(Target):
        has_log_density = True

        def evaluate(self, y):
            y = y.requires_grad_(True)
            with torch.enable_grad():
                z = change.inverse(y)
                value = -0.5 * z.square().sum(1) - change(z)[1]
                return value.detach(), torch.autograd.grad(value.sum(), y)[0]

    z = torch.randn((20, 5), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, gradient = Supported(Funnel(5), change).evaluate(z)
    torch.testing.assert_close(value, -0.5 * z.square().sum(1))
    torch.testing.assert_close(gradient, -z)


@pytest.mark.parametrize("seed", range(3))
def test_draws_of_a_funnel_give_its_slopes(seed):
    rng = np.random.default_rng(seed)
    v = 2 * rng.normal(size=400)
    y = np.column_stack([v, np.exp(v / 2)[:, None] * rng.normal(size=(400, 6))])
    found = find_non_centred(y, 400)
    # Of the likeliest slope: 1 / (sd(v) sqrt(2 n)).
    np.testing.assert_allclose(found.log_scale[1:, 0], 0.5, atol=5 / (2 * np.sqrt(800)))
    assert not found.log_scale[0].any()
    # A centre that is 0 is not estimated: in the neck any error is many scales.
    assert not found.offset.any()
    assert not found.location.any()


@pytest.mark.parametrize("seed", range(3))
def test_draws_of_a_hierarchy_give_its_non_centred_form(seed):
    rng = np.random.default_rng(seed)
    mu, log_tau = 3 * rng.normal(size=600), rng.normal(size=600)
    theta = mu[:, None] + np.exp(log_tau)[:, None] * rng.normal(size=(600, 8))
    found = find_non_centred(np.column_stack([theta, mu, log_tau]), 600)
    np.testing.assert_allclose(found.location[:8, 8], 1.0, atol=0.1)
    np.testing.assert_allclose(found.log_scale[:8, 9], 1.0, atol=5 / np.sqrt(1200))
    assert not found.log_scale[8:].any()


def test_nothing_is_found_where_no_scale_follows_another():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 10))
    assert find_non_centred(x @ rng.normal(size=(10, 10)), 300) is None
    assert find_non_centred(x[:, :1], 300) is None
    assert find_non_centred(x * np.r_[np.zeros(1), np.ones(9)], 300) is None
    assert find_non_centred(rng.standard_t(5, size=(300, 10)), 300) is None
