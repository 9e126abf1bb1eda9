"""Kernels: laws that hold exactly, or that a false alarm breaks once in a million runs."""

import importlib
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion._random import ChainNoise, chain_keys
from skdiffusion.diffusion.langevin import (
    HMC,
    KERNELS,
    MALA,
    Annealed,
    Bridge,
    Chains,
    Divergence,
    Info,
    Plan,
    State,
    Swaps,
    adapt,
    anneal,
    autograd,
    choose,
    equal_rejections,
    hmc,
    mala,
    minibatch_gradient,
    relax,
    run,
    start,
    tempered,
    truncated,
    tuning,
    ula,
    underdamped,
)
from skdiffusion.diffusion.langevin.hmc import van_der_corput
from skdiffusion.diffusion.target.targets import Target

hmc_module = importlib.import_module("skdiffusion.diffusion.langevin.hmc")
FALSE_ALARM = 1e-6
PRECISION = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
COVARIANCE = torch.linalg.inv(PRECISION)


def gaussian(x):
    """Correlated Gaussian with condition number 7."""
    push = x @ PRECISION
    return -0.5 * (x * push).sum(1), -push


def banana(x):
    """Curved density, exp(-x^2/2 - (y - x^2)^2)."""
    bend = x[:, 1] - x[:, 0] ** 2
    return (
        -0.5 * x[:, 0] ** 2 - bend**2,
        torch.stack([-x[:, 0] + 4 * bend * x[:, 0], -2 * bend], 1),
    )


def noise_of(n_chains, n_features, seed=0):
    return ChainNoise(chain_keys(seed, 0, n_chains), n_features)


def stationary_covariance(kernel, n_state):
    """Covariance left unchanged by a linear kernel, from its response to unit vectors.

    ``kernel(x, eps)`` maps (n, n_state) and (n, 2) to (n, n_state).
    """
    eye, zero = torch.eye(n_state, dtype=torch.float64), torch.zeros(n_state, 2).double()
    a = kernel(eye, zero).T
    b = kernel(torch.zeros(2, n_state).double(), torch.eye(2, dtype=torch.float64)).T
    system = torch.eye(n_state**2, dtype=torch.float64) - torch.kron(a, a)
    return torch.linalg.solve(system, (b @ b.T).reshape(-1)).reshape(n_state, n_state)


def assert_moments(x, mean, covariance, alarm=FALSE_ALARM):
    """Test mean and covariance of independent Gaussian rows, each at a shared false alarm."""
    z = np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(x) - mean).T)
    d, n = z.shape
    n_tests = d + d * (d + 1) // 2
    quantile = stats.norm.isf(alarm / n_tests / 2)
    assert np.all(np.abs(z.mean(1)) * math.sqrt(n) < quantile)
    squares = (z**2).sum(1)
    low, high = stats.chi2.ppf([alarm / n_tests / 2, 1 - alarm / n_tests / 2], n)
    assert np.all((squares > low) & (squares < high))
    products = z[0] * z[1]
    assert abs(products.mean()) * math.sqrt(n) < quantile * 1.1


def linear(step):
    """Position-only kernel from a step of the form used by ``stationary_covariance``."""
    return lambda x, eps: step(start(x, gaussian), eps)[0].position


@pytest.mark.parametrize("step_size", [0.01, 0.1, 0.5])
def test_ula_has_its_known_bias(step_size):
    left = stationary_covariance(linear(lambda s, e: ula(s, gaussian, step_size, e)), 2)
    eye = torch.eye(2, dtype=torch.float64)
    known = COVARIANCE @ torch.linalg.inv(eye - step_size / 2 * PRECISION)
    torch.testing.assert_close(left, known, rtol=1e-11, atol=0)


def test_ula_at_a_temperature_samples_the_power():
    left = stationary_covariance(linear(lambda s, e: ula(s, gaussian, 1e-6, e, 3.0)), 2)
    torch.testing.assert_close(left, 3 * COVARIANCE, rtol=1e-5, atol=0)
    state = ula(start(torch.ones(1, 2).double(), gaussian), gaussian, 0.1, torch.ones(1, 2), 0.0)[0]
    torch.testing.assert_close(state.position, 1 - 0.1 * torch.ones(1, 2).double() @ PRECISION)


@pytest.mark.parametrize("step_size", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("friction", [0.5, 3.0])
def test_baoab_is_exact_in_position_and_of_second_order_in_velocity(step_size, friction):
    def kernel(x, eps):
        state = start(x[:, :2], gaussian, x[:, 2:])
        state = underdamped(state, gaussian, step_size, eps, friction)[0]
        return torch.cat([state.position, state.velocity], 1)

    left = stationary_covariance(kernel, 4)
    torch.testing.assert_close(left[:2, :2], COVARIANCE, rtol=1e-10, atol=1e-10)
    velocity = torch.eye(2, dtype=torch.float64) - step_size**2 / 4 * PRECISION
    torch.testing.assert_close(left[2:, 2:], velocity, rtol=1e-10, atol=1e-10)


def test_baoab_is_of_second_order_on_a_pendulum():
    pendulum = lambda x: (None, -torch.sin(x))  # noqa: E731

    def end(step_size):
        one = torch.ones(1, 1).double()
        state = start(one, pendulum, one)
        for _ in range(round(4 / step_size)):
            state, _ = underdamped(state, pendulum, step_size, 0 * one, friction=0.0)
        return torch.cat([state.position, state.velocity])

    exact = end(0.001)
    coarse, fine = (end(h) - exact for h in (0.1, 0.05))
    torch.testing.assert_close(coarse / fine, torch.full((2, 1), 4.0).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.9])
def test_relax_keeps_the_gaussian_it_is_made_for(ratio):
    s, scale = 2.0, 0.7
    variance = s**2 + scale**2
    kernel = lambda z, eps: relax(-z / variance, z, s, scale, ratio, eps)  # noqa: E731
    left = stationary_covariance(kernel, 2)
    torch.testing.assert_close(left, variance * torch.eye(2).double(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("density", [gaussian, banana])
def test_mala_is_in_detailed_balance(density):
    noise = noise_of(500, 2)
    x, h = noise.normal(0), 0.05
    y = x + 0.3 * noise.normal(1)

    def flow(x, y):
        """Density at x times the probability to go from x to y."""
        state = start(x, density)
        eps = (y - x - h * truncated(state.gradient, h)) / math.sqrt(2 * h)
        info = mala(state, density, h, eps, torch.zeros(len(x)).double())[1]
        return state.log_density - eps.square().sum(1) / 2 + info.acceptance.log()

    there, back = flow(x, y), flow(y, x)
    possible = torch.isfinite(there) & torch.isfinite(back)
    assert possible.sum() > 490
    torch.testing.assert_close(there[possible], back[possible], rtol=1e-10, atol=1e-10)


def run_mala(kernel, n_chains=40_000, n_steps=30, step_size=0.6):
    noise = noise_of(n_chains, 2, seed=3)
    exact = noise.normal(10**6) @ torch.linalg.cholesky(COVARIANCE).T
    state = start(exact, gaussian)
    for i in range(n_steps):
        state, info = kernel(state, gaussian, step_size, noise.normal(i), noise.log_uniform(i))
    return state, info


def test_mala_leaves_a_gaussian_unchanged_and_the_test_sees_a_planted_bug():
    state, info = run_mala(mala)
    assert_moments(state.position, 0.0, COVARIANCE.numpy())
    assert 0.3 < float(info.accepted.double().mean()) < 0.95
    torch.testing.assert_close(state.gradient, gaussian(state.position)[1])
    torch.testing.assert_close(state.log_density, gaussian(state.position)[0])

    def without_proposal_ratio(state, evaluate, step_size, noise, log_uniform):
        proposal = ula(state, evaluate, step_size, noise)[0]
        accepted = log_uniform < proposal.log_density - state.log_density
        mixed = [
            torch.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(proposal[:3], state[:3])
        ]
        return State(*mixed), None

    with pytest.raises(AssertionError):
        assert_moments(run_mala(without_proposal_ratio)[0].position, 0.0, COVARIANCE.numpy())


def test_the_drift_is_truncated_in_far_tails_only():
    x = noise_of(1000, 2, seed=1).normal(0) @ torch.linalg.cholesky(COVARIANCE).T
    gradient, h = gaussian(x)[1], 0.3
    assert torch.equal(truncated(gradient, h), gradient)
    longest = 2 * math.sqrt(2 * h * 2)
    drift = h * truncated(1e9 * gradient, h)
    torch.testing.assert_close(drift.norm(dim=1), torch.full((1000,), longest).double())
    assert torch.equal(truncated(0 * gradient, h), 0 * gradient)


def test_mala_refuses_proposals_that_are_not_finite():
    evaluate = lambda x: (torch.where(x[:, 0] > 0, torch.nan, 0.0), torch.zeros_like(x))  # noqa: E731
    state = start(-torch.ones(4, 2).double(), evaluate)
    noise = torch.tensor([[10.0, 0], [-1, 0], [10, 1], [0, 0]], dtype=torch.float64)
    state, info = mala(state, evaluate, 0.5, noise, torch.full((4,), -50.0).double())
    assert info.accepted.tolist() == [False, True, False, True]
    assert torch.isfinite(state.position).all()
    assert info.acceptance[0] == 0


def test_adaptation_reaches_the_target_acceptance():
    noise, step_size = noise_of(500, 2, seed=5), 1e-4
    state = start(noise.normal(10**6), gaussian)
    rates = []
    for i in range(200):
        state, info = mala(state, gaussian, step_size, noise.normal(i), noise.log_uniform(i))
        rates.append(float(info.acceptance.mean()))
        step_size = adapt(step_size, rates[-1], i)
    assert abs(np.mean(rates[-50:]) - 0.574) < 0.02


def test_tempering_leaves_every_temperature_unchanged():
    n, radius = 30_000, 3.0
    beta = torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64)
    noise = noise_of(3 * n, 2, seed=7)
    eye = torch.eye(2, dtype=torch.float64)
    covariances = [torch.linalg.inv(b * PRECISION + (1 - b) / radius**2 * eye) for b in beta]
    roots = [torch.linalg.cholesky(c).T for c in covariances]
    exact = [x @ root for x, root in zip(noise.normal(10**6).chunk(3), roots)]
    bridge = Bridge(gaussian, beta, radius)
    state = start(torch.cat(exact), bridge)
    for i in range(30):
        swaps = noise.log_uniform(i, 2), noise.log_uniform(i, 3)
        state, info = tempered(state, bridge, 0.5, noise.normal(i), noise.log_uniform(i), swaps)
        assert 0.2 < float(info.swap_acceptance.nanmean()) < 0.99
    for x, covariance in zip(state.position.chunk(3), covariances):
        assert_moments(x, 0.0, covariance.numpy())
    log_density, gradient = bridge(state.position)
    torch.testing.assert_close(state.log_density, log_density)
    torch.testing.assert_close(state.gradient, gradient)


def test_tempering_crosses_where_a_single_chain_stays():
    def two_modes(x):
        return autograd(
            lambda x: torch.logaddexp(-2 * (x - 6).square().sum(1), -2 * (x + 6).square().sum(1)), x
        )

    n, beta = 400, torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    noise, bridge = noise_of(3 * n, 1, seed=9), Bridge(two_modes, beta, 20.0)
    state = start(6 + 0 * noise.normal(0), bridge)
    step = (0.3 / beta).repeat_interleave(n)[:, None]
    for i in range(300):
        swaps = noise.log_uniform(i, 2), noise.log_uniform(i, 3)
        state, _ = tempered(state, bridge, step, noise.normal(i), noise.log_uniform(i), swaps)
    share = float((state.position[:n] > 0).double().mean())
    assert abs(share - 0.5) < 5 * math.sqrt(0.25 / n)


def test_annealing_shares_out_the_modes():
    means, weights = torch.tensor([-30.0, 0.0, 20.0]).double(), torch.tensor([0.2, 0.3, 0.5])

    def score(z, s):
        log_weights = weights.double().log() - (z - means) ** 2 / (2 * (1 + s**2))
        return (torch.softmax(log_weights, 1) @ means[:, None] - z) / (1 + s**2)

    n, noise = 60_000, noise_of(60_000, 1, seed=11)
    levels = [*np.geomspace(100, 0.1, 80), 0.0]
    calls = []
    record = lambda i, s, z: calls.append((i, s))  # noqa: E731
    z = 100 * noise.normal(10**6)
    z = anneal(score, z, levels, noise.normal, scale=1.0, record=record)[:, 0]
    nearest = (z[:, None] - means).abs().argmin(1)
    share = torch.bincount(nearest) / n
    quantile = stats.norm.isf(FALSE_ALARM / 6)
    assert torch.all(
        (share - weights).abs() < quantile * (weights * (1 - weights) / n).sqrt() + 5e-3
    )
    spread = float((z - means[nearest]).var())
    # The last step to level 0 shrinks the modes by 0.1**2.
    assert abs(spread - 0.99) < quantile * math.sqrt(2 / n) + 0.01
    assert calls[0] == (0, levels[1])
    assert calls[-1] == (79, 0.0)


def test_minibatch_gradient_is_unbiased():
    data = torch.arange(6.0).double()[:, None]
    likelihood = lambda x, rows: -0.5 * (x[:, None] - rows).square().sum((1, 2))  # noqa: E731
    prior = lambda x: -0.5 * x.square().sum(1)  # noqa: E731
    x = torch.tensor([[0.3], [-2.0]], dtype=torch.float64)
    pairs = torch.combinations(torch.arange(6), 2)
    mean = sum(minibatch_gradient(likelihood, prior, data, p)(x)[1] for p in pairs) / len(pairs)
    torch.testing.assert_close(mean, -x + (data.T - x).sum(1, keepdim=True))


def test_sgld_spreads_as_ula_around_its_minibatches():
    data = torch.tensor([-1.0, 1.0, 2.0, 4.0], dtype=torch.float64)[:, None]
    likelihood = lambda x, rows: -0.5 * (x[:, None] - rows).square().sum((1, 2))  # noqa: E731
    prior = lambda x: 0 * x[:, 0]  # noqa: E731
    h, k, n = 0.1, 4.0, 20_000
    noise = noise_of(n, 1, seed=13)
    generator = torch.Generator().manual_seed(0)
    evaluate = lambda: minibatch_gradient(  # noqa: E731
        likelihood, prior, data, torch.randint(4, (1,), generator=generator)
    )
    within = []
    state = start(data.mean() + 0 * noise.normal(0), evaluate())
    for i in range(4000 // 20):
        state, _ = ula(state, evaluate(), h, noise.normal(i))
        within.append(float(state.position.var()))
    # All chains share the minibatch, so it moves their mean; around it they spread as ULA does.
    known = 2 * h / (1 - (1 - h * k) ** 2)
    assert abs(np.mean(within[50:]) / known - 1) < 0.02


def test_the_worth_of_a_step_does_not_depend_on_the_unit():
    """For an autoregression a step is worth (1 - phi) / (1 + phi) draws, whatever its scale."""
    noise = np.random.default_rng(0).normal(size=(16, 4000))
    x = np.stack(list(itertools.accumulate(noise, lambda a, b: 0.5 * a + 0.75**0.5 * b)))
    for scale in (1e-3, 1.0, 1e3):
        worth = tuning._worth(torch.as_tensor(scale * x)[:, :, None])
        assert worth == pytest.approx(1 / 3, abs=0.02)


def test_chains_that_are_lost_are_counted_and_the_first_is_named():
    x = torch.zeros(5, 2, dtype=torch.float64)
    chains = Chains(Normal(2), MALA(step_size=0.1), x, noise_of(5, 2))
    chains.prepare()
    chains.state.position[[2, 4]] = torch.nan
    with pytest.raises(Divergence, match=r"2 of 5 chains are not finite.*, first chain 2: lower"):
        chains.step()


def test_noise_does_not_depend_on_the_block_and_is_normal():
    whole = noise_of(1000, 3)
    part = ChainNoise(chain_keys(0, 300, 340), 3)
    for step in (0, 5, 77):
        assert torch.equal(part.normal(step), whole.normal(step)[300:340])
        assert torch.equal(part.log_uniform(step), whole.log_uniform(step)[300:340])
    values = torch.stack([whole.normal(i) for i in range(200)]).numpy()
    assert stats.kstest(values[:, :, :2].ravel(), "norm").pvalue > FALSE_ALARM
    lagged = (values[1:] * values[:-1]).mean() * math.sqrt(values[1:].size)
    across = (values[:, 1:] * values[:, :-1]).mean() * math.sqrt(values[:, 1:].size)
    pairs = (values[..., 0] * values[..., 1]).mean() * math.sqrt(values[..., 0].size)
    assert max(abs(lagged), abs(across), abs(pairs)) < stats.norm.isf(FALSE_ALARM / 6)
    uniforms = torch.stack([whole.log_uniform(i) for i in range(200)]).exp().numpy()
    assert stats.kstest(uniforms.ravel(), "uniform").pvalue > FALSE_ALARM
    assert not np.array_equal(uniforms[0], whole.log_uniform(0, 2).exp())


class Normal(Target):
    """The standard normal, as much of it as a kernel may need."""

    has_log_density, has_noisy_score, reach, scale = True, True, 4.0, 1.0

    def gradient(self, x):
        return -x

    def evaluate(self, x):
        return -0.5 * x.square().sum(1), -x

    def score(self, z, s):
        return -z / (1 + s**2)


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_brings_what_the_loop_asks(name):
    target, noise = Normal(2), noise_of(2000, 2, seed=15)
    x = 3 + noise.normal(10**6)
    kernel = KERNELS[name].suited(target, x, noise_levels="auto", temperature=1.0)
    kernel = kernel.guess(1.0)
    assert kernel.needs in ("gradient", "log_density", "noisy_score")
    assert kernel.with_step_size(kernel.step_size) == kernel
    noise = noise_of(2000 * kernel.n_replicas, 2, seed=15)
    seen = []
    plan = Plan(kernel, 200, thin=3)
    draws, acceptance = run(
        target, plan, x, noise, n_draws=2, record=lambda i, x, a: seen.append(i)
    )
    assert seen[1:] == sorted(seen[1:])
    assert len(seen) == 1 + plan.total_steps(2)
    assert draws.shape == (2, 2000, 2)
    assert (acceptance is None) == (kernel.target_acceptance is None)
    slack = 0.1 if name == "ula" else 0.0
    variance = draws[-1].var(0)
    assert torch.all((variance - 1).abs() < stats.norm.isf(FALSE_ALARM) * math.sqrt(1e-3) + slack)


@pytest.mark.parametrize("density", [gaussian, banana])
def test_hmc_can_be_reversed_and_its_acceptance_is_that_of_the_energy(density):
    noise = noise_of(300, 2, seed=2)
    x, velocity, h = noise.normal(0), noise.normal(1), 0.2
    always = torch.full((300,), -1e9).double()
    state = start(x, density)
    end, info = hmc(state, density, h, velocity, always, 3)
    # The velocity at the end is found by the way back, which must lead to the start.
    half = lambda g: h / 2 * truncated(g, h**2 / 2)  # noqa: E731
    position, v = x, velocity
    for _ in range(3):
        v = v + half(density(position)[1])
        position = position + h * v
        v = v + half(density(position)[1])
    moved = info.accepted
    assert moved.sum() > 290
    torch.testing.assert_close(end.position[moved], position[moved])
    back, there = hmc(start(position, density), density, h, -v, always, 3)
    torch.testing.assert_close(back.position[moved], x[moved])
    energy = density(position)[0] - density(x)[0] + (velocity**2 - v**2).sum(1) / 2
    torch.testing.assert_close(info.acceptance, energy.clamp(max=0).exp())
    torch.testing.assert_close(there.acceptance, (-energy).clamp(max=0).exp())


def test_hmc_leaves_a_gaussian_unchanged_and_the_test_sees_a_planted_bug():
    kernel = lambda *args: hmc(*args, 3)  # noqa: E731
    assert_moments(run_mala(kernel, step_size=0.9)[0].position, 0.0, COVARIANCE.numpy())

    def without_test(state, evaluate, step_size, noise, log_uniform):
        return hmc(state, evaluate, step_size, noise, log_uniform - 1e9, 3)

    state = run_mala(without_test, step_size=0.9)[0]
    with pytest.raises(AssertionError):
        assert_moments(state.position, 0.0, COVARIANCE.numpy())


def test_lengths_of_trajectories_are_spread_evenly():
    numbers = np.array([van_der_corput(i) for i in range(1, 64)])
    np.testing.assert_allclose(np.sort(numbers), np.arange(1, 64) / 64)
    kernel = HMC(0.1, 4)
    lengths = np.ceil(2 * 4 * numbers)
    assert (lengths.min(), lengths.max()) == (1, 8)
    assert abs(lengths.mean() - kernel.cost) < 0.1


def test_long_trajectories_are_chosen_for_an_oblong_target():
    def oblong(ratio):
        target = Normal(2)
        variance = torch.tensor([1.0, ratio**2])
        target.evaluate = lambda x: (-0.5 * (x.square() / variance).sum(1), -x / variance)
        return target

    noise = noise_of(128, 2, seed=4)
    chosen = [
        choose(oblong(ratio), HMC(1.0), noise.normal(10**6), noise)[0].n_leapfrog
        for ratio in (1.0, 30.0)
    ]
    assert chosen[0] <= 2
    assert chosen[1] >= 16


def test_a_ladder_is_followed_by_steps_that_suit_the_target():
    target = Normal(2)
    assert isinstance(Annealed.suited(target, None).after, MALA)
    target.has_log_density = False
    kernel = Annealed.suited(target, None, noise_levels=[3.0, 1.0])
    assert (kernel.noise_levels, kernel.needs) == ((3.0, 1.0, 0.0), "noisy_score")
    assert kernel.target_acceptance is None
    assert kernel.default_steps == 0


# ------------------------------------------------------------------ steps in parts, ladders


def wedge(x):
    """Two features, the second one exp(1.5 v) wide at the height v of the first."""
    v, y = x[:, 0], x[:, 1]
    scaled = y * (-1.5 * v).exp()
    return (
        -0.5 * v**2 - 1.5 * v - 0.5 * scaled**2,
        torch.stack([-v - 1.5 + 1.5 * scaled**2, -scaled * (-1.5 * v).exp()], 1),
    )


def after_trajectories(kernel, n_chains=20_000, n_steps=8, step_size=1.0):
    """Heights and scaled widths of chains that start at exact draws of the wedge."""
    noise = noise_of(n_chains, 2, seed=21)
    exact = noise.normal(10**6)
    exact[:, 1] *= (1.5 * exact[:, 0]).exp()
    state, moved = start(exact, wedge), 0.0
    for i in range(n_steps):
        state, info = kernel(state, wedge, step_size, noise.normal(i), noise.log_uniform(i))
        moved += float(info.accepted.double().mean()) / n_steps
    x = state.position.numpy()
    return np.stack([x[:, 0], x[:, 1] * np.exp(-1.5 * x[:, 0])], 1), moved


def test_steps_in_parts_keep_the_density_and_the_test_sees_a_planted_bug(monkeypatch):
    kernel = lambda *args: hmc(*args, 3, tolerance=0.5)  # noqa: E731
    x, moved = after_trajectories(kernel)
    assert moved > 0.3
    for column in x.T:
        assert stats.kstest(column, "norm").pvalue > FALSE_ALARM
    # Without the look at the way back.
    never = lambda state, velocity, *rest: torch.zeros(len(velocity), dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr(hmc_module, "_shortcut", never)
    x, _ = after_trajectories(kernel)
    assert min(stats.kstest(column, "norm").pvalue for column in x.T) < FALSE_ALARM


def test_steps_in_parts_reach_where_whole_steps_are_refused():
    whole, parts = (
        after_trajectories(lambda *args, t=t: hmc(*args, 3, tolerance=t))[1]
        for t in (math.inf, 1.0)
    )
    assert parts > 1.5 * whole


def test_steps_are_whole_where_the_energy_is_kept():
    noise = noise_of(500, 2, seed=22)
    state = start(noise.normal(0), gaussian)
    uniform = noise.log_uniform(1)
    plain, local = (
        hmc(state, gaussian, 0.3, noise.normal(1), uniform, 4, tolerance)
        for tolerance in (math.inf, 2.0)
    )
    assert torch.equal(plain[0].position, local[0].position)
    assert local[1].evaluations == 4


def test_round_trips_are_counted():
    swaps = Swaps(3)

    def step(*pairs):
        swapped = torch.tensor([[[pairs[0]], [pairs[1]]]])
        acceptance = torch.where(swapped, 0.9, math.nan)
        swaps(Info(swap_acceptance=acceptance, swapped=swapped))

    for pairs in [(False, False), (True, False), (False, True), (False, True), (True, False)]:
        step(*pairs)
    assert swaps.round_trips == 1
    torch.testing.assert_close(
        swaps.rejections, torch.tensor([0.1, 0.1]).double(), rtol=1e-6, atol=0
    )
    assert swaps.barrier == pytest.approx(0.2)


def test_a_spaced_ladder_refuses_equally_often():
    """Rejections of two Gaussians of one centre depend on the ratio of their temperatures only."""
    n = 4000
    noise = noise_of(12 * n, 2, seed=23)
    betas, rejections = [1.0, 0.9, 0.05, 0.01], None
    for _ in range(3):
        if rejections is not None:
            betas = equal_rejections(betas, rejections, 6)
        beta = torch.tensor(betas, dtype=torch.float64)
        bridge, swaps = Bridge(gaussian, beta, 1e6), Swaps(len(betas))
        x = noise.normal(0)[: n * len(betas)] @ torch.linalg.cholesky(COVARIANCE).T
        state = start(x / beta.repeat_interleave(n)[:, None].sqrt(), bridge)
        for i in range(1, 5):
            normal = noise.normal(i)[: len(x)]
            uniform, *swaps_at = (noise.log_uniform(i, k)[: len(x)] for k in (1, 2, 3))
            step = (0.5 / beta).repeat_interleave(n)[:, None]
            state, info = tempered(state, bridge, step, normal, uniform, swaps_at)
            swaps(info)
        rejections = swaps.rejections.tolist()
    assert max(rejections) - min(rejections) < 0.05
    np.testing.assert_allclose(np.diff(np.log(betas)), np.log(0.01) / 5, rtol=0.15)
