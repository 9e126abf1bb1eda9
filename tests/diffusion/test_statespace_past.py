"""Draws of a state space from the past alone, against the law of the filter's errors."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skdiffusion.diffusion.statespace import smoother
from skdiffusion.diffusion.statespace.kalman import StateSpace, filter_states
from skdiffusion.diffusion.statespace.smoother import draw_filtered

FALSE_ALARM = 1e-6
N_TIMES, N_DRAWS = 7, 20_000


def model():
    """Order 2, two states seen by three cells."""
    transition = torch.tensor([[0.6, 0.2, 0.1, -0.2], [-0.1, 0.5, 0.2, 0.1]]).double()
    innovation = torch.tensor([[0.5, 0.2], [0.2, 0.4]]).double()
    loadings = torch.tensor([[1.0, 0.0], [0.5, 1.0], [-0.3, 0.8]]).double()
    noise = torch.tensor([0.2, 0.5, 0.3]).double()
    initial = torch.eye(4).double() + 0.3
    return StateSpace(transition, innovation, loadings, noise, initial)


def observed():
    """Scattered gaps, a row without a value inside and two at the end."""
    seen = torch.rand((N_TIMES, 3), generator=torch.Generator().manual_seed(0)) < 0.6
    seen[3], seen[5:] = False, False
    return seen


def joint_states(space):
    """Covariance (T * n, T * n) of all states, by unrolling the recursion."""
    n, r = space.transition.shape[1], space.n_states
    forward = torch.zeros((n, n)).double()
    forward[:r] = space.transition
    forward[r:, : n - r] = torch.eye(n - r)
    new = torch.zeros((n, n)).double()
    new[:r, :r] = space.innovation
    blocks = [[None] * N_TIMES for _ in range(N_TIMES)]
    own = space.initial
    for t in range(N_TIMES):
        if t:
            own = forward @ own @ forward.T + new
        blocks[t][t], ahead = own, own
        for u in range(t + 1, N_TIMES):
            ahead = forward @ ahead
            blocks[u][t], blocks[t][u] = ahead, ahead.T
    return torch.cat([torch.cat(row, 1) for row in blocks], 0)


def error_covariance(space, seen):
    """Covariance of what the filter leaves over, which is linear in the values."""
    n, k = space.transition.shape[1], len(space.loadings)
    units = torch.eye(N_TIMES * k).double().view(-1, N_TIMES, k) * seen
    means, _ = filter_states(space, units, seen.expand(len(units), -1, -1))
    gain = means.flatten(1).T
    read = torch.zeros((k, n)).double()
    read[:, : space.n_states] = space.loadings
    read = torch.block_diag(*[read] * N_TIMES)
    left = torch.eye(N_TIMES * n) - gain @ read
    heard = gain @ torch.diag(space.noise.repeat(N_TIMES)) @ gain.T
    covariance = left @ joint_states(space) @ left.T + heard
    r = space.n_states
    kept = (torch.arange(N_TIMES)[:, None] * n + torch.arange(r)).flatten()
    return covariance[kept][:, kept]


def normals_of(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda t, size, last=False: torch.randn(
        (1, N_DRAWS, size), generator=generator, dtype=torch.float64
    )


def worst_error():
    """Largest errors of mean and joint covariance of draws over those allowed by chance."""
    space, seen = model(), observed()
    values = torch.randn((1, N_TIMES, 3), generator=torch.Generator().manual_seed(1)).double()
    values = values * seen
    draws, mean, _ = draw_filtered(space, values, seen[None], normals_of(2), normals_of(3))
    expected = error_covariance(space, seen)
    drawn, sd = draws[0].flatten(1), expected.diagonal().sqrt()
    level = norm.isf(FALSE_ALARM / len(sd) ** 2 / 4) / np.sqrt(N_DRAWS)
    of_mean = ((drawn.mean(0) - mean.flatten()) / sd).abs().max() / level
    chance = (torch.outer(sd, sd) ** 2 + expected**2).sqrt()
    of_covariance = ((torch.cov(drawn.T) - expected) / chance).abs().max() / level
    return float(max(of_mean, of_covariance))


def test_draws_have_the_joint_law_of_the_filter():
    assert worst_error() < 1


def test_noise_of_cells_left_out_is_seen(monkeypatch):
    """The law above has power."""
    true = smoother.draw_filtered

    def silent(space, values, seen, normals, seen_normals):
        return true(space, values, seen, normals, lambda *a, **k: 0 * seen_normals(*a, **k))

    monkeypatch.setitem(globals(), "draw_filtered", silent)
    assert worst_error() > 1


def test_the_filter_is_the_smoother_of_the_rows_so_far():
    space, seen = model(), observed()
    values = torch.randn((1, N_TIMES, 3), generator=torch.Generator().manual_seed(4)).double()
    means, covariances = filter_states(space, values * seen, seen[None])
    for t in range(N_TIMES):
        until = smoother.smooth(space, (values * seen)[:, : t + 1], seen[None, : t + 1])
        torch.testing.assert_close(means[:, t], until.mean[:, t])
        torch.testing.assert_close(covariances[:, t], until.covariance[:, t])


@pytest.mark.parametrize("row", [5, 6])
def test_beyond_the_last_value_past_and_both_agree(row):
    space, seen = model(), observed()
    values = torch.zeros((1, N_TIMES, 3)).double()
    past = draw_filtered(space, values, seen[None], normals_of(5), normals_of(6))
    last = torch.tensor([N_TIMES - 1])
    both = smoother.draw_states(space, values, seen[None], last, normals_of(7))
    torch.testing.assert_close(past[1][0, row], both[1][0, row])
    torch.testing.assert_close(past[2][0, row], both[2][0, row])
