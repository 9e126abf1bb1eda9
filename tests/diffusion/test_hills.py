"""Hills of a log density, and jumps between them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import chisquare, kstest

from skdiffusion._random import ChainNoise, chain_keys
from skdiffusion.diffusion.langevin import MALA, Jumping, Plan, Tempered, jump, run, start
from skdiffusion.diffusion.target.hills import Hills, find_hills
from skdiffusion.diffusion.target.recognise import FunctionTarget

FALSE_ALARM = 1e-6
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-6.0, 0.0], [6.0, 2.0], [0.0, 9.0]], dtype=torch.float64)
ROOTS = torch.tensor(
    [[[1.0, 0.0], [0.5, 0.3]], [[0.2, 0.0], [0.0, 0.2]], [[2.0, 0.0], [-1.0, 0.5]]],
    dtype=torch.float64,
)


def log_density(x):
    """Three Gaussians far apart, up to a constant."""
    squares = torch.linalg.solve(ROOTS, (x[:, None] - MEANS)[..., None])[..., 0].square().sum(2)
    return (WEIGHTS.log() - 0.5 * squares - torch.linalg.slogdet(ROOTS)[1]).logsumexp(1)


def target(function=log_density, d=2):
    return FunctionTarget(function, d, torch.float64, torch.device("cpu"))


def noise_of(n_chains, d=2, seed=0):
    return ChainNoise(chain_keys(seed, 0, n_chains), d)


def exact_draws(n, seed=0):
    rng = np.random.default_rng(seed)
    part = torch.as_tensor(rng.choice(3, n, p=WEIGHTS.numpy()))
    normal = torch.as_tensor(rng.normal(size=(n, 2, 1)))
    return MEANS[part] + (ROOTS[part] @ normal)[..., 0]


def part_of(x):
    return (x[:, None] - MEANS).square().sum(2).argmin(1)


def assert_exact(x):
    """Shares of the hills, and the distances from their centres, each at half a false alarm."""
    part = part_of(x)
    count = torch.bincount(part, minlength=3).numpy()
    assert chisquare(count, WEIGHTS.numpy() * len(x)).pvalue > FALSE_ALARM / 2
    z = torch.linalg.solve(ROOTS[part], (x - MEANS[part])[..., None])[..., 0]
    assert kstest(z.square().sum(1).numpy(), stats.chi2(2).cdf).pvalue > FALSE_ALARM / 2


def test_hills_of_a_mixture_are_its_components():
    hills = find_hills(target(), MEANS.repeat(3, 1) + 0.1 * noise_of(9).normal(0))
    assert len(hills) == 3
    torch.testing.assert_close(hills.tops, MEANS, atol=0.1, rtol=0)
    covariances = ROOTS @ ROOTS.mT
    torch.testing.assert_close(hills.roots @ hills.roots.mT, covariances, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(hills.log_mass.softmax(0), WEIGHTS, atol=1e-3, rtol=0)
    assert hills.unseen == 0


def test_points_that_are_alone_on_their_hills_tell_of_others():
    hills = find_hills(target(), torch.cat([MEANS, MEANS[:1] + 0.1]))
    assert hills.unseen == 2 / 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: -0.5 * x[:, 0].square(),
        lambda x: -0.5 * (x.norm(dim=1) - 3).square(),
        lambda x: -x[:, 0].square() / 18 - 0.5 * x[:, 0] - 0.5 * x[:, 1].square() / x[:, 0].exp(),
    ],
    ids=["ridge", "ring", "funnel"],
)
def test_what_has_no_gaussian_top_is_no_hill(function):
    hills = find_hills(target(function), noise_of(16).normal(0))
    # The neck of a funnel is a hill of its own, and a small one.
    assert len(hills) <= 1


def test_the_density_of_proposals_is_that_of_their_draws():
    hills = Hills(torch.tensor([[0.0], [5.0]]), torch.tensor([[[1.0]], [[0.3]]]), torch.zeros(2))
    hills = hills.like(torch.zeros(1, dtype=torch.float64))
    grid = torch.linspace(-12, 17, 20_001, dtype=torch.float64)
    density = hills.log_density(grid[:, None]).exp()
    density = density / torch.trapezoid(density, grid)
    noise = noise_of(20_000, 1)
    x = hills.draw(noise.log_uniform(0).exp(), noise.normal(0))[:, 0]
    cumulated = torch.cumulative_trapezoid(density, grid)
    assert kstest(x, lambda v: np.interp(v, grid[1:], cumulated)).pvalue > FALSE_ALARM


def jumped(function=jump, n=20_000, n_jumps=5):
    hills = Hills(MEANS + 0.2, 1.3 * ROOTS, torch.tensor([0.0, 0.0, -2.0], dtype=torch.float64))
    noise, evaluate = noise_of(n), target().evaluate
    state, moved = start(exact_draws(n), evaluate), []
    for i in range(n_jumps):
        uniforms = noise.log_uniform(i), noise.log_uniform(i, 2)
        state, accepted = function(state, evaluate, hills, noise.normal(i), *uniforms)
        moved.append(float(accepted.double().mean()))
    return state, moved


def test_jumps_keep_the_density_and_the_test_sees_a_planted_bug():
    state, moved = jumped()
    assert min(moved) > 0.3
    assert_exact(state.position)
    torch.testing.assert_close(state.log_density, log_density(state.position))
    torch.testing.assert_close(state.gradient, target().evaluate(state.position)[1])

    def without_proposals(state, evaluate, hills, *noise):
        class Even(Hills):
            def log_density(self, x):
                return torch.zeros(len(x), dtype=x.dtype)

        return jump(state, evaluate, Even(hills.tops, hills.roots, hills.log_mass), *noise)

    with pytest.raises(AssertionError):
        assert_exact(jumped(without_proposals)[0].position)


@pytest.mark.parametrize(
    "kernel", [MALA(0.02), Tempered((1.0, 0.2), 20.0, (0.02, 0.1))], ids=["mala", "tempered"]
)
def test_a_kernel_that_jumps_shares_hills_out(kernel):
    n, law = 2000, target()
    hills = find_hills(law, MEANS)
    noise = ChainNoise(chain_keys(1, 0, kernel.n_replicas * n), 2)
    x = MEANS[:1].repeat(n, 1)
    draws, rate = run(law, Plan(Jumping(kernel, hills), 200), x, noise)
    count = torch.bincount(part_of(draws[0]), minlength=3).numpy()
    assert chisquare(count, WEIGHTS.numpy() * n).pvalue > FALSE_ALARM
    assert 0.1 < float(rate.mean()) < 1
    stays, _ = run(law, Plan(MALA(0.02), 200), x, noise_of(n, seed=1))
    assert (part_of(stays[0]) == 0).all()


def test_only_from_under_a_gaussian_a_jump_leads_away():
    """From a hill that nobody has seen jumps lead with a wide Gaussian, and not without."""
    hills = find_hills(target(), MEANS[:1] + torch.zeros(2, 1, dtype=torch.float64))
    x = MEANS[1:2] + 0.1 * noise_of(500).normal(3)
    evaluate = target(lambda x: log_density(x) - 5.0 * (part_of(x) == 1)).evaluate
    shares = []
    for some in (hills, hills.and_wide(torch.cat([x, MEANS]))):
        state, noise = start(x, evaluate), noise_of(500, seed=2)
        for i in range(20):
            uniforms = noise.log_uniform(i), noise.log_uniform(i, 2)
            state, _ = jump(state, evaluate, some, noise.normal(i), *uniforms)
        shares.append(float((part_of(state.position) == 1).double().mean()))
    assert shares[0] == 1
    assert shares[1] < 0.05
    assert math.isclose(float(hills.and_wide(x).weights.sum()), 1)
