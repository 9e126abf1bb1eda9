"""Newton's steps to the top of a log density: tops and Hessians known in closed form."""

import numpy as np
import pytest
import torch

from skdiffusion.diffusion.target.hilltop import hilltop
from skdiffusion.diffusion.target.recognise import FunctionTarget


def target(function, n_features):
    return FunctionTarget(function, n_features, torch.float64, "cpu")


def begin(n_features, scale=1.0, n=16):
    return scale * torch.randn(n, n_features, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("condition", [1.0, 1e6, 1e10])
def test_a_gaussian_of_any_condition_is_found_where_it_is(condition):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    sizes = np.geomspace(1, condition, 4)
    precision = torch.from_numpy(turn @ np.diag(1 / sizes) @ turn.T)
    mean = torch.tensor([500.0, -3.0, 0.0, 20.0]).double()
    law = target(lambda x: -0.5 * ((x - mean) @ precision * (x - mean)).sum(-1), 4)
    top, root = hilltop(law, begin(4))

    whitened = turn.T @ (root @ root.T).numpy() @ turn / np.sqrt(np.outer(sizes, sizes))
    np.testing.assert_allclose(whitened, np.eye(4), atol=1e-3)
    apart = top - mean
    assert float(apart @ precision @ apart) < 1e-4


def test_the_top_of_a_regression_on_raw_columns_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    year = rng.uniform(1950, 2010, 200)
    rows = np.column_stack([np.ones(200), year, year * (rng.random(200) < 0.5)])
    y = rows @ [-60.0, 0.04, 0.001] + rng.normal(0, 0.7, 200)
    X, answers = torch.from_numpy(rows), torch.from_numpy(y)

    def log_density(x):
        left = answers - x[:, :3] @ X.T
        return -200 * x[:, 3] - 0.5 * left.square().sum(1) * torch.exp(-2 * x[:, 3])

    top, root = hilltop(target(log_density, 4), begin(4))
    best, square = np.linalg.lstsq(rows, y, rcond=None)[:2]
    np.testing.assert_allclose(top[:3].numpy(), best, rtol=1e-4)
    np.testing.assert_allclose(float(top[3]), 0.5 * np.log(square[0] / 200), atol=1e-4)
    known = np.linalg.inv(rows.T @ rows) * square[0] / 200
    found = (root @ root.T)[:3, :3].numpy()
    np.testing.assert_allclose(np.sqrt(np.diag(found)), np.sqrt(np.diag(known)), rtol=1e-3)
    # The curvature of the log scale is twice the number of rows.
    np.testing.assert_allclose(float((root @ root.T)[3, 3]), 1 / 400, rtol=1e-3)


def two_hills(x):
    return torch.logaddexp(-0.5 * (x - 3).square().sum(-1), -0.5 * (x + 3).square().sum(-1))


def scales(x):
    """Eight schools without data: higher and higher, and narrower, for smaller scales."""
    return -4 * x[:, 0] - 0.5 * (x[:, 1:].square().sum(1) * torch.exp(-x[:, 0]))


@pytest.mark.parametrize("function", [two_hills, scales, lambda x: -x.abs().sum(-1)])
def test_no_single_hill_has_no_top(function):
    assert hilltop(target(function, 3), begin(3)) == (None, None)


def test_a_lower_hill_that_is_far_lower_counts_for_nothing():
    def hills(x):
        low = -30 - 0.5 * (x + 6).square().sum(-1)
        return torch.logaddexp(-0.5 * (x - 2).square().sum(-1), low)

    top, _ = hilltop(target(hills, 2), torch.cat([begin(2), begin(2, n=4) - 6]))
    np.testing.assert_allclose(top.numpy(), [2, 2], atol=0.05)
