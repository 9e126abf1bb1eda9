"""Every formula of the theory on Gaussians and mixtures with exact scores."""

import math

import pytest
import torch

from skdiffusion.diffusion import likelihood
from skdiffusion.diffusion.analytic.build import gaussian, gaussian_mixture
from skdiffusion.diffusion.conditional import RowMixture
from skdiffusion.diffusion.likelihood.integral import GaussianRate
from skdiffusion.diffusion.sde import SDES

LEVELS = {"s_min": 1e-3, "s_max": 100.0}
RANGE = LEVELS | {"prior": gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])}
COVARIANCE = [[1.2, 0.6], [0.6, 0.7]]
GAUSSIAN = gaussian([0.0, 0.0], COVARIANCE)
MIXTURE = gaussian_mixture(
    [0.3, 0.7], [[-1.05, -0.28], [0.45, 0.12]], [[0.1, 0.4], [0.3, 0.2]], "diag"
)
BOTH = pytest.mark.parametrize("density", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])


def sample(density, n, seed=0):
    return density.sample(n, torch.Generator().manual_seed(seed))


def randomness(n, n_draws, seed=1, d=2):
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(n, n_draws, generator=generator, dtype=torch.float64)
    noise = lambda i: torch.randn(n, d, generator=generator, dtype=torch.float64)  # noqa: E731
    return uniforms, noise


@BOTH
def test_log_density_of_the_ode_is_exact(density):
    x = sample(density, 200)
    value, latent = likelihood.log_density(density.denoise_and_divergence, x, **RANGE, n_steps=80)
    wrong = value - density.log_density(x)
    assert wrong.abs().max() < 1e-3  # a row in the tail sees the prior's covariance
    assert float(wrong.abs().mean()) < 1e-4
    own = RANGE | {"prior": gaussian(x.mean(0), torch.cov(x.T))}
    value, _ = likelihood.log_density(density.denoise_and_divergence, x, **own, n_steps=80)
    torch.testing.assert_close(value, density.log_density(x), atol=2e-3, rtol=0)
    assert (latent / math.hypot(1, 100)).abs().max() < 6


def test_log_density_ratio_is_that_of_the_closed_forms():
    x = sample(MIXTURE, 200)

    def shares(z, s):
        model, reference = (part.denoise_and_divergence(z, s) for part in (MIXTURE, GAUSSIAN))
        return reference[0], model[0] - reference[0], model[1] - reference[1]

    exact = MIXTURE.log_density(x) - GAUSSIAN.log_density(x)
    for n_steps, tolerance in ((32, 2e-3), (16, 2e-2)):
        ratio = likelihood.log_density_ratio(
            shares, MIXTURE.denoise, x, **RANGE, reference=GAUSSIAN, n_steps=n_steps
        )
        torch.testing.assert_close(ratio, exact, atol=tolerance, rtol=0)


def test_log_density_ratio_begins_at_the_smallest_noise_level():
    """At a level that is not small the ends of the integral count, and the noisy densities do."""
    x, ends = sample(MIXTURE, 50), RANGE | {"s_min": 0.3}

    def shares(z, s):
        model, reference = (part.denoise_and_divergence(z, s) for part in (MIXTURE, GAUSSIAN))
        return reference[0], model[0] - reference[0], model[1] - reference[1]

    ratio = likelihood.log_density_ratio(
        shares, MIXTURE.denoise, x, **ends, reference=GAUSSIAN, n_steps=64
    )
    exact = MIXTURE.log_density(x, 0.3) - GAUSSIAN.log_density(x, 0.3)
    torch.testing.assert_close(ratio, exact, atol=5e-3, rtol=0)


def test_hutchinson_is_unbiased_with_its_standard_error():
    n, n_probes = 100, 40
    x = sample(MIXTURE, n)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (n_probes, n, 2), generator=generator, dtype=torch.float64) * 2 - 1

    def directional(z, s, v):
        denoised, _, (moved,) = MIXTURE.denoise_divergence_and_jvps(z, s, [v])
        return denoised, (v * moved).sum(1)

    divergence = likelihood.hutchinson(directional, signs)
    estimates, _ = likelihood.log_density(divergence, x, **RANGE, n_steps=40)
    error = estimates.std(1) / math.sqrt(n_probes)
    wrong = estimates.mean(1) - MIXTURE.log_density(x)
    assert (wrong.abs() / (error + 1e-3)).max() < 6
    assert float((wrong / (error + 1e-3)).square().mean()) < 1.5


@BOTH
def test_bound_is_tight_with_the_exact_score(density):
    """The bound of the exact model equals its negative log-likelihood for every row."""
    x = sample(density, 400)
    bound, error = likelihood.nll_bound(density.denoise, x, *randomness(400, 200), **RANGE)
    z = (bound + density.log_density(x)) / error
    assert z.abs().max() < 6.5
    assert abs(float(z.mean())) < 5 / math.sqrt(400)
    assert 0.75 < float(z.std()) < 1.3  # the standard error is right


def test_bound_leaves_no_gap_on_average():
    x = sample(MIXTURE, 4000)
    bound, _ = likelihood.nll_bound(MIXTURE.denoise, x, *randomness(4000, 100), **RANGE)
    gap = bound + MIXTURE.log_density(x)
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(4000)
    assert float(gap.std()) < 1.0


def test_a_wrong_model_has_a_bound_above_its_likelihood():
    """For a denoiser of another Gaussian the SDE model is that Gaussian, known exactly."""
    other = gaussian([0.0, 0.0], [[2.0, 0.0], [0.0, 0.5]])
    x = sample(GAUSSIAN, 300)
    bound, error = likelihood.nll_bound(other.denoise, x, *randomness(300, 100), **RANGE)
    z = (bound + other.log_density(x)) / error
    assert abs(float(z.mean())) < 5 / math.sqrt(300)
    # A denoiser that is the gradient of nothing is strictly worse than its own ODE and entropy.
    twisted = lambda z, s: other.denoise(z, s) + 0.2 * s[:, None] * z.flip(1).tanh()  # noqa: E731
    worse, _ = likelihood.nll_bound(twisted, x, *randomness(300, 100), **RANGE)
    assert float(worse.mean()) > -float(GAUSSIAN.log_density(x).mean())


@BOTH
def test_both_forms_of_the_bound_agree(density):
    x = sample(density, 300)
    denoising, a = likelihood.nll_bound(density.denoise, x, *randomness(300, 100), **RANGE)
    implicit, b = likelihood.implicit_nll_bound(
        density.denoise_and_divergence, x, *randomness(300, 100, seed=2), **RANGE
    )
    z = (denoising - implicit) / torch.hypot(a, b)
    assert abs(float(z.mean())) < 5 / math.sqrt(300)
    assert z.abs().max() < 6.5


def row_gaussian(n):
    """The correlated Gaussian as the prior of a conditional model holds it."""
    values, vectors = GAUSSIAN.eigenvalues, GAUSSIAN.eigenvectors.reshape(1, 2, 2)
    one = torch.zeros(n, 1, dtype=torch.float64)
    return RowMixture(one, one[:, :, None].expand(-1, 1, 2), values.reshape(1, 1, 2), vectors)


@pytest.mark.parametrize("form", ["denoising", "implicit"])
@pytest.mark.parametrize("density", [GAUSSIAN, row_gaussian(3)], ids=["one", "by row"])
def test_the_rate_of_a_gaussian_is_that_of_its_denoiser_and_its_integral_is_exact(density, form):
    x = torch.tensor([[0.3, -0.2], [3.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    rate, eps = GaussianRate(x, density), randomness(3, 2)[1](0)
    s = torch.tensor([0.02, 0.5, 6.0], dtype=torch.float64)
    z = x + s[:, None] * eps
    denoised, trace = density.denoise_and_divergence(z, s)
    expected = {
        "denoising": ((denoised - x) / s[:, None]).square().sum(1) - 2,
        "implicit": ((denoised - z) / s[:, None]).square().sum(1) - 2 * (2 - trace),
    }[form]
    torch.testing.assert_close(getattr(rate, form)(s, eps), expected)
    # All signs have the moments of normals up to the second, and rates are quadratic in these.
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)
    log_s = torch.linspace(*(math.log(s) for s in LEVELS.values()), 1001, dtype=torch.float64)
    means = torch.stack(
        [
            sum(getattr(rate, form)(s.exp().expand(3), e.expand(3, -1)) for e in signs) / 4
            for s in log_s
        ]
    )
    expected = torch.trapezoid(means, log_s, dim=0) + means[0] / 2
    torch.testing.assert_close(rate.integral(**LEVELS), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("bound", [likelihood.nll_bound, likelihood.implicit_nll_bound])
def test_the_bound_of_the_gaussian_of_the_prior_is_exact_with_two_draws(bound):
    x = sample(GAUSSIAN, 20)
    answer = {"nll_bound": GAUSSIAN.denoise}.get(bound.__name__, GAUSSIAN.denoise_and_divergence)
    value, error = bound(answer, x, *randomness(20, 2), **LEVELS, prior=GAUSSIAN)
    torch.testing.assert_close(value, -GAUSSIAN.log_density(x), atol=1e-4, rtol=0)
    assert error.max() < 1e-9


def test_errors_of_an_integral_cover_it_and_say_how_far_it_strays():
    """Of 2000 rows alike 92 to 98 % lie within 1.96 errors, whose squares average to the variance.

    One draw fewer in a stratum, levels drawn uniformly or a variance that pools strata would
    leave the band.
    """
    row = torch.tensor([[0.2, -0.4]], dtype=torch.float64).expand(2000, -1)
    bound, error = likelihood.nll_bound(MIXTURE.denoise, row, *randomness(2000, 128), **RANGE)
    off = bound + MIXTURE.log_density(row)
    assert abs(float(off.mean())) < 4 * float(off.std()) / math.sqrt(2000)
    assert 0.85 < float(error.square().mean() / off.var()) < 1.15
    assert 0.92 < float((off.abs() < 1.96 * error).double().mean()) < 0.98


def gaussian_kl(mean, covariance, other_mean, other_covariance):
    mean, other_mean, covariance, other_covariance = (
        torch.as_tensor(a, dtype=torch.float64)
        for a in (mean, other_mean, covariance, other_covariance)
    )
    shift = other_mean - mean
    solved = torch.linalg.solve(other_covariance, covariance)
    quadratic = shift @ torch.linalg.solve(other_covariance, shift)
    return 0.5 * float(torch.trace(solved) - len(mean) + quadratic - torch.logdet(solved))


def test_kl_bound_of_two_gaussians_is_their_divergence():
    """Between linear models the bound is an equality but for the prior."""
    other_covariance = [[2.0, -0.3], [-0.3, 0.9]]
    other = gaussian([0.5, 0.5], other_covariance)
    x = sample(GAUSSIAN, 4000)
    bound, error = likelihood.kl_bound(other.denoise, GAUSSIAN, x, *randomness(4000, 60), **RANGE)
    exact = gaussian_kl([0.0, 0.0], COVARIANCE, [0.5, 0.5], other_covariance)
    assert error < 0.02
    assert abs(bound - exact) < 5 * error + 1e-3
    loss, _ = likelihood.score_matching_loss(
        other.denoise, GAUSSIAN.denoise, x, *randomness(4000, 60), **LEVELS
    )
    assert abs(float(loss.mean()) - exact) < 5 * error + 1e-3


@BOTH
def test_entropy_formula(density):
    x = sample(density, 6000)
    value, error = likelihood.entropy(density.denoise, x, *randomness(6000, 60), **LEVELS)
    assert error < 0.02
    exact = -density.log_density(sample(density, 400000, seed=5)).mean()
    if density is GAUSSIAN:
        exact = 0.5 * torch.logdet(2 * math.pi * math.e * torch.tensor(COVARIANCE).double())
    assert abs(value - float(exact)) < 5 * error + 5e-3


@pytest.mark.parametrize("name", SDES)
def test_entropy_formula_in_time_is_the_one_in_noise_level(name):
    """H(p) = H(p_T) - 1/2 int (2 f d + g**2 E|grad log p_t|**2) dt for N(0, v), by quadrature."""
    sde, v = SDES[name](), torch.tensor(0.3, dtype=torch.float64)
    s = torch.logspace(-6, math.log10(0.99 * sde.max_noise_level), 4001, dtype=torch.float64)
    s = s[s >= float(sde.noise_level(torch.tensor(1e-12, dtype=torch.float64)))]
    t = sde.time(s)
    variance = sde.alpha(t) ** 2 * v + sde.sigma(t) ** 2
    rate = 2 * sde.drift(torch.ones_like(t), t) + sde.diffusion(t) ** 2 / variance
    last = 0.5 * torch.log(2 * math.pi * math.e * variance[-1])
    first = last - 0.5 * torch.trapezoid(rate, t)
    exact = 0.5 * torch.log(2 * math.pi * math.e * variance[0])
    torch.testing.assert_close(first, exact, atol=2e-3, rtol=0)


def test_prior_cross_entropy_agrees_with_monte_carlo():
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    noise = torch.randn(100000, 2, generator=torch.Generator().manual_seed(0)).double()
    values = -GAUSSIAN.log_density(x + 2.0 * noise, 2.0)
    exact = float(likelihood.prior_cross_entropy(x, GAUSSIAN, 2.0))
    assert abs(float(values.mean()) - exact) < 5 * float(values.std()) / math.sqrt(100000)


def test_odd_number_of_draws_is_refused():
    x = sample(GAUSSIAN, 3)
    with pytest.raises(ValueError, match="even"):
        likelihood.nll_bound(GAUSSIAN.denoise, x, *randomness(3, 5), **RANGE)
