"""LangevinSampler: the contract of scikit-learn, known answers, and honest failure."""

import math
import pickle
import sys
import types
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from torch import distributions as td

from skdiffusion.datasets import make_gaussian_mixture
from skdiffusion.diffusion.target.recognise import FunctionTarget
from skdiffusion.diffusion.target.targets import MinibatchPosterior, MixtureTarget
from skdiffusion.estimators import LangevinSampler, ScoreSDE
from skdiffusion.estimators.sampling import _running
from skdiffusion.metrics import energy_distance, mode_coverage, mode_weight_error

COVARIANCE = np.array([[2.0, 1.2], [1.2, 1.0]])
PRECISION = torch.tensor(np.linalg.inv(COVARIANCE))
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)


def log_density(x):
    centred = x - MEAN
    return -0.5 * ((centred @ PRECISION) * centred).sum(1)


def gradient(x):
    return -(x - MEAN) @ PRECISION


def both(x):
    return log_density(x), gradient(x)


def two_modes(x):
    """Modes at -6 and 6 with weights 1/4 and 3/4."""
    left, right = (-2 * (x[:, 0] - m) ** 2 for m in (-6.0, 6.0))
    return torch.logaddexp(left, right + math.log(3)) - 2 * x[:, 1] ** 2


def data(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(-3, 1, (n // 2, 2)), rng.normal(4, 0.5, (n - n // 2, 2))])


def fitted(target, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LangevinSampler(target, n_features=2, random_state=0, **parameters).fit()


def assert_gaussian(X, alarm=1e-6, slack=0.0):
    """Independent draws of the Gaussian above; slack for the bias of unadjusted methods."""
    z = np.linalg.solve(np.linalg.cholesky(COVARIANCE), (X - MEAN.numpy()).T)
    n = z.shape[1]
    quantile = stats.norm.isf(alarm / 10)
    assert np.all(np.abs(z.mean(1)) < quantile / math.sqrt(n) + slack)
    assert np.all(np.abs(z.var(1) - 1) < quantile * math.sqrt(2 / n) + slack)
    assert abs((z[0] * z[1]).mean()) < quantile / math.sqrt(n) + slack


# ------------------------------------------------------------------ known answers


@pytest.mark.parametrize(
    ("method", "slack"),
    [("mala", 0.0), ("tempered", 0.0), ("hmc", 0.0), ("ula", 0.06), ("underdamped", 0.06)],
)
def test_every_method_samples_a_gaussian(method, slack):
    parameters = {"n_steps": {"mala": 150, "tempered": 150, "hmc": 50}.get(method, 300)}
    assert_gaussian(fitted(log_density, method=method, **parameters).sample(3000), slack=slack)


def test_ula_is_wider_by_its_known_bias():
    sampler = fitted(gradient, method="ula", step_size=0.2, n_steps=200)
    x = sampler.sample(20_000)
    known = COVARIANCE @ np.linalg.inv(np.eye(2) - 0.1 * PRECISION.numpy())
    np.testing.assert_allclose(np.cov(x.T), known, rtol=0.05)


def test_temperature_zero_climbs_to_the_mode():
    sampler = fitted(gradient, method="ula", temperature=0, step_size=0.1, n_steps=500)
    np.testing.assert_allclose(sampler.sample(5), np.tile(MEAN, (5, 1)), atol=1e-6)


@pytest.mark.parametrize("preconditioner", ["pilot", np.array([1e4, 1.0])])
def test_preconditioning_makes_scales_equal(preconditioner):
    wide = lambda x: -0.5 * (x[:, 0] / 100) ** 2 - 0.5 * (x[:, 1] - 3) ** 2  # noqa: E731
    plain = fitted(wide, method="mala", n_steps=200, preconditioner=None)
    if isinstance(preconditioner, str):
        init = lambda n, rng: rng.normal(size=(n, 2)) * [100, 1]  # noqa: E731
    else:
        init = "normal"
    sampler = fitted(wide, method="mala", n_steps=100, preconditioner=preconditioner, init=init)
    x = sampler.sample(3000)
    assert sampler.ess_.min() > 3 * np.nanmin(plain.ess_)
    np.testing.assert_allclose(x.std(0), [100, 1], rtol=0.1)
    np.testing.assert_allclose(x.mean(0) / [100, 1], [0, 3], atol=0.1)
    np.testing.assert_allclose(sampler.score_samples(x[:5]), wide(torch.tensor(x[:5])), rtol=1e-6)
    expected = np.stack([-x[:5, 0] / 1e4, -(x[:5, 1] - 3)], 1)
    np.testing.assert_allclose(sampler.log_density_gradient(x[:5]), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", ["mala", "tempered"])
def test_trial_runs_make_an_oblong_target_round(method):
    variances = torch.tensor(np.geomspace(1e-2, 1e2, 10))
    rotation = torch.tensor(stats.ortho_group.rvs(10, random_state=0))
    precision = rotation / variances @ rotation.T
    target = lambda x: -0.5 * ((x @ precision) * x).sum(1)  # noqa: E731
    parameters = {"method": method, "n_features": 10, "n_steps": 150, "random_state": 0}
    sampler = LangevinSampler(target, **parameters).fit()
    z = sampler.sample(1500) @ rotation.numpy() / np.sqrt(variances.numpy())
    quantile = stats.norm.isf(1e-6 / 40)
    assert np.abs(z.mean(0)).max() < quantile / math.sqrt(1500)
    assert np.abs(z.var(0) - 1).max() < quantile * math.sqrt(2 / 1500)


def test_a_round_target_keeps_its_coordinates():
    sampler = fitted(lambda x: -x.square().sum(1), n_steps=50)
    np.testing.assert_array_equal(sampler.scale_, np.ones(2))
    np.testing.assert_array_equal(sampler.mean_, np.zeros(2))


def test_chains_begin_where_the_draws_of_trial_runs_are():
    """A lower hill of a narrow target, no deviation of a standard normal off, holds no chain."""

    def narrow(x):
        low = -25 - 50 * (x - math.sqrt(0.5)).square().sum(1)
        return torch.logaddexp(-50 * x.square().sum(1), low)

    sampler = fitted(narrow)
    assert (sampler.sample(2000) < 0.6).all()
    np.testing.assert_allclose(sampler.scale_, 0.1, rtol=0.3)


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.1]])
@pytest.mark.parametrize("scales", [[1.0, 1.0], [1.0, 0.1]])
def test_hills_of_any_width_get_their_shares(weights, scales):
    weights, scales = (torch.tensor(v, dtype=torch.float64) for v in (weights, scales))
    tops = torch.tensor([[0.0, 0.0], [3.0, 3.0]], dtype=torch.float64)

    def hills(x):
        squares = ((x[:, None] - tops) / scales[:, None]).square().sum(2)
        return (weights.log() - 2 * scales.log() - 0.5 * squares).logsumexp(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = fitted(hills)
        x = sampler.sample(4000)
    share = (x.sum(1) > 6 - 6 * float(scales[1])).mean()
    exact = stats.norm(6, math.sqrt(2) * float(scales[1])).sf(6 - 6 * float(scales[1]))
    exact = float(weights[1]) * exact + float(weights[0]) * stats.norm(0, math.sqrt(2)).sf(
        6 - 6 * float(scales[1])
    )
    # Draws of 4000 chains are independent: five standard errors.
    assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / 4000)


def test_all_modes_of_a_grid_are_found_from_the_log_density_alone():
    tops = torch.cartesian_prod(*[torch.arange(-10.0, 11.0, 5.0, dtype=torch.float64)] * 2)
    target = lambda x: -8 * (x[:, None] - tops).square().sum(2)  # noqa: E731
    x = fitted(lambda x: target(x).logsumexp(1)).sample(4000)
    count = np.bincount(target(torch.tensor(x)).argmax(1).numpy(), minlength=25)
    assert stats.chisquare(count).pvalue > 1e-6


def test_coefficients_of_a_log_link_are_found_from_the_origin():
    """A Poisson regression on raw columns, where all but tiny coefficients overflow."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([np.ones(300), rng.uniform(20_000, 90_000, 300), rng.normal(50, 9, 300)])
    y = rng.poisson(np.exp(rows @ [0.5, 1e-5, 0.01]))
    given, counts = torch.tensor(rows), torch.tensor(y)

    def poisson(b):
        rate = b @ given.T
        return (counts * rate - rate.exp()).sum(1)

    sampler = LangevinSampler(poisson, n_features=3, random_state=0).fit()
    x, maximum = sampler.sample(2000), np.zeros(3)
    for _ in range(30):
        rate = np.exp(rows @ maximum)
        covariance = np.linalg.inv((rows.T * rate) @ rows)
        maximum += np.clip(covariance @ rows.T @ (y - rate), -1, 1)
    deviation = np.sqrt(np.diag(covariance))
    assert (np.abs(x.mean(0) - maximum) < 0.2 * deviation).all()
    np.testing.assert_allclose(x.std(0), deviation, rtol=0.1)


def test_defaults_find_150_modes_in_200_evaluations(monkeypatch):
    mixture = make_gaussian_mixture(150, random_state=0)
    sampler = LangevinSampler(mixture, random_state=0).fit()
    assert sampler.method_ == "annealed"
    calls = []
    inner = MixtureTarget
    for name in ("gradient", "evaluate", "score"):
        original = getattr(inner, name)
        monkeypatch.setattr(
            inner, name, lambda self, *a, f=original: (calls.append(len(a[0])), f(self, *a))[1]
        )
    x = sampler.sample(8000)
    assert sum(calls) / 8000 <= 200
    # scikit-learn returns draws sorted by component.
    exact = np.random.default_rng(0).permutation(
        mixture.set_params(random_state=1).sample(12_000)[0]
    )
    exact, reference = exact[:8000], exact[8000:]
    floors = [energy_distance(part, reference) for part in np.split(exact, 4)]
    distances = [energy_distance(part, reference) for part in np.split(x, 4)]
    assert np.mean(distances) < 1.15 * np.mean(floors)
    coverage = [mode_coverage(mixture.predict(a), mixture.weights_) for a in (x, exact)]
    error = [mode_weight_error(mixture.predict(a), mixture.weights_) for a in (x, exact)]
    assert coverage[0] > coverage[1] - 0.03
    assert error[0] < 1.2 * error[1]


def test_log_density_alone_is_enough_for_25_modes():
    mixture = make_gaussian_mixture(25, random_state=3)
    means = torch.tensor(mixture.means_)

    def function(x):
        logits = torch.tensor(mixture.weights_).log() - 2 * torch.cdist(x, means) ** 2
        return torch.logsumexp(logits, 1)

    sampler = fitted(function, n_steps=250)
    assert sampler.method_ == "tempered"
    x = sampler.sample(400)
    exact = mixture.sample(400)[0]
    coverage = [mode_coverage(mixture.predict(a), mixture.weights_) for a in (x, exact)]
    assert coverage[0] >= 0.9 * coverage[1]


def test_data_are_learned():
    X = data(400) * [1.0, 1000.0]
    sampler = LangevinSampler(max_iter=0, random_state=0).fit(X)
    assert sampler.target_kind_ == "mixture"
    draws = sampler.sample(2000)
    scaled = [a / X.std(0) for a in (draws, X, data(400, seed=1) * [1.0, 1000.0])]
    assert energy_distance(scaled[0], scaled[1]) < 1.5 * energy_distance(scaled[2], scaled[1])
    held_out = data(400, seed=2) * [1.0, 1000.0]
    gaussian = stats.multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(held_out).mean()
    assert sampler.score(held_out) > gaussian + 0.5
    known = sampler.score_model_.score_samples(held_out)
    np.testing.assert_allclose(sampler.score_samples(held_out), known, rtol=1e-9)


def test_a_network_learns_the_noisy_score():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 500)
    X = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.normal(size=(500, 2))
    sampler = LangevinSampler(max_iter=300, random_state=0)
    # A base too plain for a bow leaves the network something to learn.
    sampler._learn = lambda X: ScoreSDE(base="gaussian", max_iter=300, random_state=0).fit(X)
    sampler.fit(X)
    assert sampler.target_kind_ == "estimator"
    assert sampler.dtype_ == "float32"
    model = sampler.score_model_
    assert "network" in model.base_
    draws, gaussian = sampler.sample(500), rng.multivariate_normal(X.mean(0), np.cov(X.T), 500)
    assert energy_distance(draws, X) < 0.5 * energy_distance(gaussian, X)
    np.testing.assert_allclose(
        sampler.log_density_gradient(X, 0.3), model.log_density_gradient(X, 0.3), rtol=1e-9
    )
    np.testing.assert_allclose(sampler.score_samples(X[:50]), model.score_samples(X[:50]))
    again = pickle.loads(pickle.dumps(clone(sampler).set_params(target=model).fit()))
    assert energy_distance(again.sample(500), X) < 0.5 * energy_distance(gaussian, X)
    np.testing.assert_allclose(again.score_samples(X[:50]), model.score_samples(X[:50]))


def test_minibatches_reach_the_posterior():
    rows = torch.tensor(np.random.default_rng(0).normal(2.0, 1.0, (400, 1)))
    likelihood = lambda x, rows: -0.5 * (x - rows.T).square().sum(1)  # noqa: E731
    prior = lambda x: -0.5 * x.square().sum(1) / 100  # noqa: E731
    target = MinibatchPosterior(likelihood, prior, rows, n_features=1, batch_size=100)
    sampler = LangevinSampler(target, step_size=1e-4, n_steps=400, random_state=0).fit()
    assert sampler.method_ == "ula"
    x = sampler.sample(4000)
    mean = float(rows.sum()) / (400 + 0.01)
    assert abs(x.mean() - mean) < 0.05
    assert x.std() == pytest.approx(1 / math.sqrt(400.01), rel=0.1)


# ------------------------------------------------------------------ targets


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_fitted_mixtures_keep_their_density(covariance_type):
    X = data()
    for kind in (GaussianMixture, BayesianGaussianMixture):
        mixture = kind(n_components=3, covariance_type=covariance_type, random_state=0).fit(X)
        sampler = LangevinSampler(mixture, random_state=0).fit()
        if kind is GaussianMixture:
            known = mixture.score_samples(X)
            np.testing.assert_allclose(sampler.score_samples(X), known, rtol=1e-9)
        np.testing.assert_allclose(sampler.sample(2000).mean(0), X.mean(0), atol=0.5)


def test_noisy_gradient_is_that_of_the_wider_mixture():
    X = data()
    mixture = GaussianMixture(2, random_state=0).fit(X)
    wider = clone(mixture).fit(X)
    wider.covariances_ = mixture.covariances_ + 4 * np.eye(2)
    wider.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(wider.covariances_))
    sampler = LangevinSampler(mixture, random_state=0).fit()
    step = 1e-5
    for level, density in ((0.0, mixture), (2.0, wider)):
        differences = [
            (density.score_samples(X + step * e) - density.score_samples(X - step * e)) / (2 * step)
            for e in np.eye(2)
        ]
        np.testing.assert_allclose(
            sampler.log_density_gradient(X, level), np.stack(differences, 1), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("weights", [None, np.linspace(0.1, 2, 200)])
def test_kernel_density_keeps_its_density(weights):
    X = data()
    kde = KernelDensity(bandwidth=0.4).fit(X, sample_weight=weights)
    sampler = LangevinSampler(kde, random_state=0).fit()
    np.testing.assert_allclose(sampler.score_samples(X), kde.score_samples(X), rtol=1e-8)


@pytest.mark.parametrize(
    ("distribution", "method"),
    [
        (td.MultivariateNormal(MEAN, torch.tensor(COVARIANCE)), "annealed"),
        (td.Independent(td.Normal(MEAN.float(), torch.tensor([1.0, 2.0])), 1), "annealed"),
        (td.Independent(td.StudentT(torch.tensor([5.0, 5.0])), 1), "hmc"),
        (td.Laplace(torch.tensor(0.0), torch.tensor(1.0)), "hmc"),
    ],
)
def test_torch_distributions(distribution, method):
    sampler = LangevinSampler(distribution, random_state=0).fit()
    assert sampler.method_ == method
    x = torch.tensor(sampler.sample(5))
    known = distribution.log_prob(x if distribution.event_shape else x[:, 0])
    np.testing.assert_allclose(sampler.score_samples(x.numpy()), known, rtol=1e-5)


def targets():
    """Every kind of target that gives a log density."""
    X = data()
    kinds = {"callable": log_density, "pair": both}
    kinds["distribution"] = td.MultivariateNormal(MEAN, torch.tensor(COVARIANCE))
    kinds["other distribution"] = td.Independent(td.StudentT(torch.tensor([5.0, 5.0])), 1)
    for kind in ("full", "tied", "diag", "spherical"):
        kinds[kind] = GaussianMixture(2, covariance_type=kind, random_state=0).fit(X)
    kinds["kernel density"] = KernelDensity(bandwidth=0.5).fit(X)
    kinds["score model"] = ScoreSDE(base="mixture", max_iter=0, random_state=0).fit(X)
    return kinds | {"none": None}


@pytest.mark.parametrize("name", targets())
def test_the_gradient_is_that_of_the_log_density(name):
    X, step = data(), 1e-5
    sampler = LangevinSampler(targets()[name], n_steps=5, max_iter=0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sampler.fit(X)
    value = sampler.score_samples(X)
    assert value.shape == (len(X),)
    assert sampler.score(X) == pytest.approx(value.mean())
    ahead, behind = (
        np.stack([sampler.score_samples(X + s * e) for e in np.eye(2)], 1) for s in (step, -step)
    )
    known = (ahead - behind) / (2 * step)
    # A score model answers at a noise of a thousandth.
    rtol = 1e-2 if name in ("score model", "none") else 1e-3
    np.testing.assert_allclose(sampler.log_density_gradient(X), known, rtol=rtol, atol=rtol)


def test_a_score_model_with_mapped_columns_or_conditions_is_a_target():
    rng = np.random.default_rng(0)
    X = np.stack([rng.exponential(size=1000), rng.normal(size=1000)], 1)
    model = ScoreSDE(base="mixture", marginals="histogram", max_iter=0, random_state=0).fit(X)
    sampler = LangevinSampler(model, random_state=0).fit()
    draws = sampler.sample(1000)
    assert energy_distance(draws, X) < 2 * energy_distance(model.sample(1000), X)
    np.testing.assert_allclose(sampler.score_samples(X), model.score_samples(X))
    np.testing.assert_allclose(sampler.log_density_gradient(X), model.log_density_gradient(X))
    conditional = ScoreSDE(condition="label", max_iter=0, random_state=0).fit(X, X[:, 0] > 1)
    draws = LangevinSampler(conditional, random_state=0).fit().sample(1000)
    assert energy_distance(draws, X) < 2 * energy_distance(conditional.sample(1000), X)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_callables_of_either_precision(dtype):
    matrix = PRECISION.float()
    fixed = lambda x: -0.5 * ((x @ matrix) * x).sum(1)  # noqa: E731
    centres = torch.zeros((1, 2), dtype=torch.float64)
    distance = lambda x: -(torch.cdist(x, centres)[:, 0] ** 2)  # noqa: E731
    assert np.isfinite(fitted(distance, method="ula", dtype=dtype, n_steps=5).sample(9)).all()
    x = fitted(fixed, method="mala", dtype=dtype, n_steps=50).sample(500)
    assert np.cov(x.T)[0, 0] == pytest.approx(2, rel=0.3)


def test_log_density_gradient_and_pair_give_the_same_chains():
    a, b = (fitted(f, method="mala", n_steps=20).sample(20) for f in (log_density, both))
    np.testing.assert_allclose(a, b, rtol=1e-8)
    a, b = (fitted(f, method="ula", n_steps=20, step_size=0.1).sample(20) for f in (gradient, both))
    np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.parametrize("inner_target", ["mixture", None])
def test_an_estimator_with_a_noisy_score_is_a_target(inner_target):
    X = data() * [1.0, 50.0] + [100.0, 0.0]
    mixture = GaussianMixture(2, random_state=0).fit(X)
    inner = LangevinSampler(mixture if inner_target else None, max_iter=0, random_state=0).fit(X)
    sampler = LangevinSampler(inner, random_state=0).fit(X)
    assert (sampler.method_, sampler.target_kind_) == ("annealed", "estimator")
    draws = [a.sample(1000, random_state=3) / X.std(0) for a in (inner, sampler)]
    assert energy_distance(*draws) < 0.15
    np.testing.assert_allclose(sampler.score_samples(X), inner.score_samples(X))
    np.testing.assert_allclose(
        sampler.log_density_gradient(X, 0.3), inner.log_density_gradient(X, 0.3)
    )
    with pytest.raises(ValueError, match="pass X to fit"):
        LangevinSampler(inner).fit()


def frozen_targets():
    X = np.exp(np.random.default_rng(0).normal(size=(400, 2)))
    model = ScoreSDE(base="mixture", marginals="histogram", max_iter=0, random_state=0).fit(X)
    mixture = GaussianMixture(2, random_state=0).fit(X)
    return X, {"model": model, "mixture": mixture, "kernels": KernelDensity(bandwidth=0.3).fit(X)}


@pytest.mark.parametrize("name", frozen_targets()[1])
def test_a_frozen_target_survives_clone_and_search(name):
    X, targets = frozen_targets()
    target = targets[name]
    plain = LangevinSampler(target, random_state=0).fit()
    frozen = clone(LangevinSampler(FrozenEstimator(target), random_state=0)).fit()
    assert frozen.target_kind_ == plain.target_kind_
    np.testing.assert_array_equal(frozen.sample(50), plain.sample(50))
    np.testing.assert_array_equal(frozen.score_samples(X[:9]), plain.score_samples(X[:9]))
    again = pickle.loads(pickle.dumps(frozen))
    np.testing.assert_allclose(again.transform(X[:9]), plain.transform(X[:9]), rtol=1e-9)
    search = GridSearchCV(frozen, {"noise_levels": [10, 20]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    with pytest.raises(NotFittedError, match=r"is not fitted.*FrozenEstimator"):
        clone(LangevinSampler(target)).fit()


def test_a_score_model_is_a_target():
    X = data(300) * [1.0, 50.0]
    model = ScoreSDE(base="mixture", max_iter=1, random_state=0).fit(X)
    sampler = LangevinSampler(model, noise_levels=40, random_state=0).fit(X)
    draws = [a.sample(500) / X.std(0) for a in (model, sampler)]
    assert energy_distance(*draws) < 0.2


# ------------------------------------------------------------------ reproducible, whatever the cut


@pytest.mark.parametrize("method", ["ula", "mala", "underdamped", "tempered", "annealed"])
def test_chains_do_not_depend_on_blocks(method, monkeypatch):
    mixture = make_gaussian_mixture(4, random_state=0)
    sampler = fitted(mixture, method=method, n_steps=15, noise_levels=12)
    whole = sampler.sample(150, return_trajectory=True)
    monkeypatch.setattr(_running, "block_size", lambda *_: 37)
    parts = sampler.sample(150, return_trajectory=True)
    # Single precision, whose products round by the number of chains beside.
    close = {"rtol": 1e-6, "atol": 1e-5}
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, **close)
    np.testing.assert_allclose(sampler.sample(40), whole[0][:40], **close)


def test_progress_bar(capsys):
    sampler = fitted(log_density, n_steps=3)
    capsys.readouterr()
    sampler.sample(2)
    assert not capsys.readouterr().err
    sampler.set_params(verbose=1).sample(2)
    assert "LangevinSampler: 100%" in capsys.readouterr().err


def test_seeds():
    sampler = fitted(log_density, method="mala", n_steps=5)
    np.testing.assert_array_equal(sampler.sample(9), sampler.sample(9))
    assert not np.array_equal(sampler.sample(9), sampler.sample(9, random_state=1))
    free = clone(sampler).set_params(random_state=None).fit()
    assert not np.array_equal(free.sample(9), free.sample(9))
    x = np.zeros((6, 2))
    np.testing.assert_array_equal(free.transform(x), free.transform(x))
    assert len(np.unique(free.transform(x), axis=0)) == 6


def test_global_generators_and_input_are_left_alone():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    X = data()
    copy = X.copy()
    sampler = LangevinSampler(max_iter=0, random_state=0).fit(X)
    sampler.transform(X)
    sampler.sample(3)
    np.testing.assert_array_equal(X, copy)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_trajectory_and_thinning():
    parameters = {"method": "mala", "n_steps": 10, "thin": 5, "preconditioner": None}
    sampler = fitted(log_density, n_chains=4, init=[[3.0, 3.0]], **parameters)
    draws, path = sampler.sample(12, return_trajectory=True)
    assert draws.shape == (12, 2)
    assert path.shape == (1 + 4, 4, 2)
    np.testing.assert_array_equal(path[0], np.full((4, 2), 3.0))
    np.testing.assert_array_equal(path[2:].reshape(-1, 2), draws)


def test_init():
    X = data()
    counts = []

    def init(n_chains, rng):
        counts.append(n_chains)
        return rng.normal(size=(n_chains, 2))

    fitted(log_density, init=init, n_steps=2).sample(7)
    assert counts[-1] == 7
    start = LangevinSampler(
        log_density, init="data", n_steps=2, preconditioner=None, random_state=0
    ).fit(X)
    path = start.sample(50, return_trajectory=True)[1]
    assert {tuple(row) for row in path[0]} <= {tuple(row) for row in X}


def test_pandas_pipeline_pickle_and_cross_validation():
    X = pd.DataFrame(data(), columns=["a", "b"])
    sampler = LangevinSampler(max_iter=0, random_state=0).set_output(transform="pandas").fit(X)
    moved = sampler.transform(X)
    assert list(moved.columns) == ["a", "b"]
    again = pickle.loads(pickle.dumps(sampler))
    pd.testing.assert_frame_equal(again.transform(X), moved)
    assert "torch" not in repr({k: type(v) for k, v in vars(sampler).items()})
    pipeline = make_pipeline(StandardScaler(), LangevinSampler(max_iter=0, random_state=0)).fit(X)
    assert pipeline.transform(X).shape == X.shape
    assert np.isfinite(cross_val_score(LangevinSampler(max_iter=0), X, cv=3)).all()


# ------------------------------------------------------------------ diagnostics


@pytest.mark.parametrize("method", ["mala", "ula", "underdamped"])
def test_chains_that_miss_modes_are_reported(method):
    mixture = make_gaussian_mixture(10, random_state=0)
    with pytest.warns(ConvergenceWarning, match="disagree after 50 steps.*annealed"):
        sampler = LangevinSampler(mixture, method=method, n_steps=50, random_state=0).fit()
    assert sampler.nested_rhat_.max() > 1.1
    with pytest.warns(ConvergenceWarning, match="tempered"):
        LangevinSampler(
            two_modes, method="mala", n_steps=50, init=[[6.0, 0.0]], random_state=0
        ).fit(np.array([[-6.0, 0.0], [6, 0]]))


def test_good_chains_pass_quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = LangevinSampler(log_density, n_features=2, method="mala", random_state=0).fit()
        LangevinSampler(two_modes, n_features=2, random_state=0).fit()
        LangevinSampler(max_iter=0, random_state=0).fit(data())
    assert abs(sampler.acceptance_rate_ - 0.574) < 0.04
    assert sampler.nested_rhat_.max() < 1.1
    assert 0 < sampler.ess_.min() <= 2000
    assert 0 < sampler.ess_tail_.min() <= 2000
    assert sampler.energy_nested_rhat_ < 1.1


def test_the_energy_tells_of_tails_that_were_not_reached():
    options = {"n_features": 10, "n_steps": 100, "preconditioner": None, "random_state": 0}
    with pytest.warns(ConvergenceWarning, match="of the energy is|of feature . is"):
        sampler = LangevinSampler(funnel, method="tempered", **options).fit()
    assert sampler.energy_nested_rhat_ > 1.1


def funnel(x):
    """Neal's: features exp(v / 2) wide after v, the first one, with deviation 3."""
    v, rest = x[:, 0], x[:, 1:]
    return -(v**2) / 18 - 0.5 * rest.shape[1] * v - 0.5 * rest.square().sum(1) * v.neg().exp()


@pytest.mark.parametrize("method", ["auto", "hmc"])
def test_a_regression_on_a_predictor_far_from_0_is_sampled(method):
    """Intercept and slope, of correlation -0.99, have a t distribution of 198 degrees."""
    rng = np.random.default_rng(1)
    x = rng.normal(100, 15, 200)
    rows, values = np.column_stack([np.ones(200), x]), 26 + 0.6 * x + rng.normal(0, 18, 200)
    expected, square = np.linalg.lstsq(rows, values)[:2]
    sd = np.sqrt(np.diag(np.linalg.inv(rows.T @ rows)) * square / 196)
    rows, values = torch.tensor(rows), torch.tensor(values)

    def log_posterior(b):
        left = (values - b[:, :2] @ rows.T).square().sum(1)
        return -0.5 * left * (-2 * b[:, 2]).exp() - 200 * b[:, 2]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = LangevinSampler(log_posterior, n_features=3, method=method, random_state=0).fit()
        draws = sampler.sample(2000)[:, :2]
    assert sampler.method_ == "hmc"
    assert (np.abs(draws.mean(0) - expected) < 5 * sd / math.sqrt(2000)).all()
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.08)


@pytest.mark.parametrize("distance", [5.0, 40.0])
def test_one_chain_in_fifty_elsewhere_is_seen_before_trajectories_are_taken(distance):
    def uneven(x):
        other = -0.5 * (x[:, 0] - distance) ** 2 - 0.5 * x[:, 1:].square().sum(1)
        return torch.logaddexp(other + math.log(0.02), -0.5 * x.square().sum(1) + math.log(0.98))

    sampler = LangevinSampler(uneven, n_features=2, random_state=0).fit()
    share = (sampler.sample(2000)[:, 0] > distance / 2).mean()
    assert 0.005 < share < 0.045


@pytest.mark.parametrize("method", ["auto", "hmc", "mala"])
def test_a_funnel_is_straightened(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = LangevinSampler(funnel, n_features=10, method=method, random_state=0).fit()
        x = sampler.sample(2000)
    # Independent draws: five per cent are three standard errors of a deviation.
    scaled = x[:, 1:] * np.exp(-x[:, :1] / 2)
    assert abs(x[:, 0].std() / 3 - 1) < 0.08
    assert abs(x[:, 0].mean()) < 5 * 3 / math.sqrt(2000)
    assert abs(scaled.std() - 1) < 5 / math.sqrt(2 * 9 * 2000)
    assert not hasattr(sampler, "scale_")
    inside = sampler.score_samples(x[:5]) - funnel(torch.tensor(x[:5])).numpy()
    np.testing.assert_allclose(inside, inside[0], atol=1e-9)
    np.testing.assert_allclose(
        sampler.log_density_gradient(x[:5])[:, 1:], -scaled[:5] * np.exp(-x[:5, :1] / 2)
    )


@pytest.mark.parametrize("n_features", [2, 5])
def test_the_neck_of_a_funnel_is_no_hilltop(n_features):
    """Its highest point is where its width is e^-9, far from all mass."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = LangevinSampler(funnel, n_features=n_features, random_state=0).fit()
    neck = sampler.sample(2000)[:, 0]
    assert abs(neck.std() / 3 - 1) < 0.08
    assert abs(neck.mean()) < 5 * 3 / math.sqrt(2000)


@pytest.mark.parametrize("method", ["ula", "mala"])
def test_single_precision_keeps_the_150_modes(method):
    """Chains that start at exact draws stay at their law."""
    mixture = make_gaussian_mixture(150, random_state=0)
    exact = mixture.sample(30_000)[0]
    sampler = LangevinSampler(mixture, method=method, n_steps=40, init=exact, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert sampler.set_params(step_size=0.005).fit().dtype_ == "float32"
    x = sampler.sample(30_000)
    for moment in (lambda x: x, np.square):
        a, b = moment(x), moment(exact)
        # Start and end are pairs; the steps of ULA widen a mode by 1 %.
        error = (a - b).std(0) / math.sqrt(len(x))
        slack = 0.01 * 0.25 if method == "ula" else 0.0
        assert np.all(np.abs((a - b).mean(0)) < stats.norm.isf(1e-6 / 8) * error + slack)


def test_double_precision_where_single_would_show():
    mixture = make_gaussian_mixture(3, random_state=0)
    mixture.means_ = mixture.means_ + 1e6
    assert LangevinSampler(mixture, random_state=0).fit().dtype_ == "float64"
    assert fitted(log_density, n_steps=2).dtype_ == "float64"


def test_export_to_arviz():
    pytest.importorskip("arviz_base")
    sampler = fitted(log_density, method="mala", n_steps=10)
    tree = sampler.to_inference_data(n_chains=3, n_draws=20)
    x = np.asarray(tree["posterior"]["x"])
    assert x.shape == (3, 20, 2)
    np.testing.assert_allclose(x[:, 0], sampler.sample(3))
    lp = np.asarray(tree["sample_stats"]["lp"])
    np.testing.assert_allclose(lp[1], log_density(torch.tensor(x[1])), rtol=1e-9)
    np.testing.assert_array_equal(np.asarray(tree["sample_stats"]["energy"]), -lp)


def test_export_to_either_generation_of_arviz(monkeypatch):
    """Before version 1 groups are arguments of from_dict, since then one dictionary."""
    before, since = types.ModuleType("arviz"), types.ModuleType("arviz")
    before.from_dict = lambda posterior=None, *, sample_stats=None: (posterior, sample_stats)
    since.from_dict = lambda data, *, name=None: (data["posterior"], data["sample_stats"])
    sampler = fitted(log_density, method="mala", n_steps=10)
    for module in (before, since):
        monkeypatch.setitem(sys.modules, "arviz", module)
        posterior, stats_ = sampler.to_inference_data(n_chains=3, n_draws=20)
        assert posterior["x"].shape == (3, 20, 2)
        assert stats_["lp"].shape == (3, 20)
    monkeypatch.setitem(sys.modules, "arviz", None)
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ImportError, match="pip install arviz"):
        sampler.to_inference_data(n_chains=2, n_draws=5)


# ------------------------------------------------------------------ supports and stuck chains


@pytest.mark.parametrize("method", ["mala", "tempered"])
def test_chains_walk_home_out_of_a_light_tail(method):
    starts = 3 * np.random.default_rng(0).normal(size=(1500, 1))
    log_gamma = lambda x: (3 * x - torch.exp(x)).sum(1)  # noqa: E731
    sampler = LangevinSampler(log_gamma, init=starts, method=method, n_steps=300, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = sampler.fit().sample(1500)
    assert (x != starts).all()
    mean, sd = float(torch.digamma(torch.tensor(3.0))), math.sqrt(math.pi**2 / 6 - 1.25)
    assert abs(x.mean() - mean) < 5 * sd / math.sqrt(1500)
    assert x.std() == pytest.approx(sd, rel=0.1)


def test_a_posterior_in_log_parameters_is_right_by_default():
    """Gamma(shape, rate) from 200 values; the moments are those of a grid."""
    values = torch.tensor(np.random.default_rng(0).gamma(3.0, 2.0, 200))

    def log_posterior(u):
        a, b = u[:, :1].exp(), u[:, 1:].exp()
        terms = a * b.log() - a.lgamma() + (a - 1) * values.log() - b * values
        return terms.sum(1) - a[:, 0] - b[:, 0] + u.sum(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = LangevinSampler(log_posterior, n_features=2, random_state=0).fit()
    shape, rate = np.exp(sampler.sample(500)).T
    assert shape.mean() == pytest.approx(3.0, abs=0.06)
    assert rate.mean() == pytest.approx(0.52, abs=0.015)
    assert sampler.nested_rhat_.max() < 1.05


def positive_part(x):
    """Gamma of shape 3; not a number left of zero."""
    return (2 * torch.log(x) - x).sum(1)


@pytest.mark.parametrize("init", ["normal", lambda n, rng: rng.uniform(0.5, 6, size=(n, 1))])
@pytest.mark.parametrize("method", ["mala", "tempered"])
def test_a_target_that_is_not_finite_everywhere(init, method):
    options = {"n_features": 1, "init": init, "method": method, "random_state": 0}
    sampler = LangevinSampler(positive_part, n_steps=300, **options).fit()
    x = sampler.sample(1500)
    assert x.min() > 0
    assert abs(x.mean() - 3) < 5 * math.sqrt(3 / 1500)
    assert x.std() == pytest.approx(math.sqrt(3), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mala", "tempered", "underdamped", "hmc"])
def test_bounds_sample_in_the_users_coordinates(method):
    """Gamma, a normal between -1 and 1, a Dirichlet, and a normal that is free."""

    def log_posterior(x):
        shares = td.Dirichlet(torch.tensor([1.0, 2.0, 3.0]).double()).log_prob(x[:, 2:5])
        normal = -0.5 * x[:, 1].square() - 0.5 * (x[:, 5] - 7).square()
        return 2 * x[:, 0].log() - x[:, 0] + normal + shares

    bounds = [(0, None), (-1, 1), ("simplex", 3), None]
    sampler = LangevinSampler(log_posterior, bounds=bounds, method=method, random_state=0)
    x = sampler.set_params(n_steps=50 if method == "hmc" else 400).fit().sample(2000)
    assert sampler.n_features_in_ == 6
    assert sampler.rhat_.shape == (6,)
    mean = [3, 0, 1 / 6, 2 / 6, 3 / 6, 7]
    shares = np.sqrt(np.array([5, 8, 9]) / 36 / 7)
    sd = np.array([math.sqrt(3), stats.truncnorm(-1, 1).std(), *shares, 1])
    slack = 0.1 if method == "underdamped" else 0.0
    assert np.all(np.abs(x.mean(0) - mean) < (5 / math.sqrt(2000) + slack) * sd)
    np.testing.assert_allclose(x.std(0), sd, rtol=0.15 if method == "underdamped" else 0.1)
    np.testing.assert_allclose(x[:, 2:5].sum(1), 1)
    rows = torch.tensor(x[:9])
    np.testing.assert_allclose(sampler.score_samples(x[:9]), log_posterior(rows), rtol=1e-9)
    known = [2 / x[:9, 0] - 1, -x[:9, 1]]
    np.testing.assert_allclose(sampler.log_density_gradient(x[:9])[:, :2].T, known, rtol=1e-6)
    rows[0, 0] = -1
    assert np.isneginf(sampler.score_samples(rows.numpy())[0])
    with pytest.raises(ValueError, match="1 of 9 points lie outside bounds, first row 0"):
        sampler.transform(rows.numpy())
    assert sampler.transform(x[:9]).shape == (9, 6)


def test_a_posterior_of_positive_parameters():
    values = torch.tensor(np.random.default_rng(0).gamma(3.0, 2.0, 200))

    def log_posterior(x):
        a, b = x[:, :1], x[:, 1:]
        terms = a * b.log() - a.lgamma() + (a - 1) * values.log() - b * values
        return terms.sum(1) - a[:, 0] - b[:, 0]

    sampler = LangevinSampler(log_posterior, n_features=2, bounds="positive", random_state=0)
    shape, rate = sampler.fit().sample(500).T
    assert shape.mean() == pytest.approx(3.0, abs=0.06)
    assert rate.mean() == pytest.approx(0.52, abs=0.015)


@pytest.mark.parametrize(
    ("distribution", "mean"),
    [
        (td.Gamma(torch.tensor(3.0), torch.tensor(1.0)), [3.0]),
        (td.Beta(torch.tensor(2.0), torch.tensor(3.0)), [0.4]),
        (td.Dirichlet(torch.tensor([1.0, 2.0, 3.0])), [1 / 6, 2 / 6, 3 / 6]),
        (td.Independent(td.Exponential(torch.tensor([1.0, 2.0])), 1), [1.0, 0.5]),
    ],
)
def test_distributions_bring_their_bounds(distribution, mean):
    sampler = LangevinSampler(distribution, method="mala", n_steps=300, random_state=0).fit()
    x = sampler.sample(3000)
    np.testing.assert_allclose(x.mean(0), mean, rtol=0.1)
    again = pickle.loads(pickle.dumps(sampler))
    np.testing.assert_array_equal(again.transform(x[:5]), sampler.transform(x[:5]))


def test_ordered_features():
    target = lambda x: -0.5 * x.square().sum(1)  # noqa: E731
    sampler = LangevinSampler(target, n_features=3, bounds="ordered", random_state=0).fit()
    x = sampler.sample(2000)
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(x.mean(0), [-0.846, 0, 0.846], atol=0.1)


def test_chains_that_start_outside_walk_in_or_are_refused():
    near = LangevinSampler(positive_part, init=[[-0.1], [2.0]], method="mala", random_state=0)
    assert near.fit().sample(40).min() > 0
    far = LangevinSampler(positive_part, init=[[-1e6], [2.0]], method="mala", random_state=0)
    with pytest.raises(FloatingPointError, match=r"found no other place.*give bounds, or an init"):
        far.fit()
    with pytest.raises(FloatingPointError, match=r"walk across the border.*method='mala'"):
        LangevinSampler(positive_part, n_features=1, method="ula", random_state=0).fit()


@pytest.mark.parametrize("method", ["ula", "mala", "hmc", "tempered"])
def test_a_log_density_of_flat_pieces_has_a_step_size(method):
    """Its curvature is zero nearly everywhere; the step must not be infinite."""
    laplace = lambda x: -x.abs().sum(1)  # noqa: E731
    sampler = LangevinSampler(laplace, n_features=3, method=method, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = sampler.set_params(n_steps=300).fit().sample(2000)
    np.testing.assert_allclose(x.std(0), math.sqrt(2), rtol=0.12)


def test_stuck_chains_are_reported():
    needle = lambda x: torch.logaddexp(  # noqa: E731
        -0.5 * x.square().sum(1), 30 - 0.5 * ((x - 50) / 1e-6).square().sum(1)
    )
    starts = np.concatenate([np.zeros((15, 1)), np.full((1, 1), 50.0)])
    options = {"method": "mala", "preconditioner": None, "step_size": 0.5, "n_steps": 100}
    sampler = LangevinSampler(needle, init=starts, random_state=0, **options)
    with pytest.warns(ConvergenceWarning, match=r"^8 of 256 chains took fewer than one step"):
        sampler.fit()
    with pytest.warns(ConvergenceWarning, match=r"^2 of 32 chains .* at \[50"):
        sampler.sample(32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.transform(np.zeros((20, 1)))


# ------------------------------------------------------------------ honest failure


def nan_gradient(x):
    return torch.where(x[:, :1] > -9, torch.nan, 0.0) * x


def nan_init(n_chains, rng):
    return np.full((n_chains, 2), np.nan)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"noise_levels": [0.1, 1.0]}, ValueError, "strictly decreasing"),
        ({"noise_levels": [1.0, 0.0]}, ValueError, "noise_levels must be positive"),
        ({"n_steps": 0}, InvalidParameterError, "n_steps"),
        ({"step_size": -1.0}, InvalidParameterError, "step_size"),
        ({"method": "nuts"}, InvalidParameterError, "method"),
        ({"device": "cuda:9"}, InvalidParameterError, "cuda:9"),
        ({"random_state": "a"}, InvalidParameterError, "random_state"),
        ({"temperature": 2.0}, ValueError, "method='ula' only"),
        ({"target": GaussianMixture()}, NotFittedError, "GaussianMixture"),
        ({"target": KernelDensity()}, NotFittedError, "KernelDensity"),
        ({"target": ScoreSDE()}, NotFittedError, "ScoreSDE"),
        ({"target": KernelDensity(kernel="tophat").fit(data())}, ValueError, "kernel='tophat'"),
        ({"target": td.Poisson(3.0), "fit": None}, ValueError, "mapped to the whole space"),
        ({"target": log_density, "bounds": [(0, 1)]}, ValueError, "'bounds': 1"),
        ({"target": log_density, "bounds": [(1, 0), None]}, ValueError, "low < high"),
        ({"target": log_density, "bounds": [1, 2]}, ValueError, r"one pair \(low, high\)"),
        ({"target": log_density, "bounds": "round"}, InvalidParameterError, "bounds"),
        ({"target": log_density, "bounds": [("round", 2)]}, ValueError, "knows the words"),
        (
            {"target": log_density, "bounds": "positive"},
            ValueError,
            r"of 128 points lie outside bounds, first row \d",
        ),
        ({"bounds": "positive"}, ValueError, "with an estimator or data"),
        ({"target": td.Normal(torch.zeros(2), 1.0), "fit": None}, ValueError, "batch_shape"),
        ({"target": 3.0}, TypeError, "type float is not understood"),
        ({"target": lambda x: x.sum(1).detach()}, ValueError, "cannot be differentiated"),
        ({"target": lambda x: x[:, :1]}, ValueError, r"returned shape \(3, 1\)"),
        ({"target": lambda x: x.sum()}, ValueError, "one for every row"),
        ({"target": lambda x: -(x - x.mean(0)).square().sum(1)}, ValueError, "independent of"),
        ({"target": lambda x: 3.0}, TypeError, "torch tensor, got float"),
        ({"target": nan_gradient, "method": "ula"}, FloatingPointError, "at the start of"),
        ({"target": lambda x: 9 * x**3, "method": "ula"}, FloatingPointError, "at step .* first"),
        ({"target": gradient, "method": "mala"}, ValueError, "needs a log density"),
        ({"target": log_density, "method": "annealed"}, ValueError, "needs a noisy score"),
        ({"target": log_density, "init": np.zeros((3, 5))}, ValueError, "numbers of features"),
        ({"target": log_density, "init": "data", "fit": None}, ValueError, "pass X to fit"),
        ({"target": log_density, "preconditioner": -np.eye(2)}, ValueError, "positive definite"),
        ({"target": log_density, "preconditioner": np.ones(3)}, ValueError, "preconditioner"),
        ({"target": nan_gradient, "method": "ula"}, FloatingPointError, "is target right"),
        ({"target": data(), "fit": None}, TypeError, r"data go to fit\(X\)"),
        ({"target": pd.DataFrame(data()), "fit": None}, TypeError, r"data go to fit\(X\)"),
        ({"target": GaussianMixture(), "fit": None}, NotFittedError, "GaussianMixture"),
        ({"target": KernelDensity(), "fit": None}, NotFittedError, "KernelDensity"),
        ({"target": ScoreSDE(), "fit": None}, NotFittedError, "ScoreSDE"),
        ({"target": LinearRegression(), "fit": None}, TypeError, "LinearRegression is not"),
        ({"target": GaussianMixture, "fit": None}, TypeError, "class GaussianMixture: give an"),
        ({"target": log_density, "init": [[np.nan, 0.0]]}, ValueError, "init contains NaN"),
        ({"target": log_density, "init": nan_init}, ValueError, "init returned NaN"),
        ({"target": log_density, "preconditioner": [np.nan, 1]}, ValueError, "contains NaN"),
        ({"fit": None}, ValueError, "no target and no data"),
        ({"target": log_density, "fit": None}, ValueError, "pass n_features"),
    ],
)
def test_errors_name_the_parameter_and_the_remedy(parameters, error, words):
    parameters = dict(parameters)
    X = parameters.pop("fit", data())
    with pytest.raises(error, match=words):
        LangevinSampler(**parameters).fit(X)


@pytest.mark.parametrize("name", ["steps_per_level", "n_temperatures", "friction"])
def test_removed_parameters_say_what_to_use(name):
    with pytest.raises(TypeError, match=f"LangevinSampler has no parameter {name}: .*"):
        LangevinSampler(**{name: 3})
    assert name not in LangevinSampler().get_params()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_fit_that_fails_leaves_the_sampler_as_it_was(error):
    broken = [False]

    def target(x):
        if broken[0]:
            raise error("stop")
        return log_density(x)

    sampler = fitted(target, method="mala", n_steps=20)
    before, draws = dict(vars(sampler)), sampler.sample(5)
    broken[0] = True
    with pytest.raises(error):
        sampler.fit(pd.DataFrame(data(), columns=["a", "b"]))
    broken[0] = False
    assert vars(sampler) == before
    np.testing.assert_array_equal(sampler.sample(5), draws)
    fresh = LangevinSampler(lambda x: x.log().sum(1) * torch.nan, n_features=2)
    with pytest.raises(FloatingPointError):
        fresh.fit()
    with pytest.raises(NotFittedError):
        fresh.sample()


def test_another_fit_forgets_what_the_last_one_learnt():
    sampler = LangevinSampler(max_iter=0, random_state=0).fit(data())
    sampler.set_params(target=log_density, n_features=2, method="mala").fit()
    assert not hasattr(sampler, "score_model_")
    assert not hasattr(sampler, "n_iter_")


@pytest.mark.parametrize(
    "target",
    [
        lambda x: x.square().sum(1).neg().exp(),
        lambda x: 0.5 * x.square().sum(1),
        lambda x: 0 * x.sum(1),
    ],
    ids=["density", "sign", "flat"],
)
def test_targets_that_hold_nothing_back_are_reported(target):
    options = {"n_features": 2, "random_state": 0}
    with pytest.warns(ConvergenceWarning, match=r"run away.*\*log\* density.*right sign"):
        LangevinSampler(target, method="ula", n_steps=100, **options).fit()


def test_wide_targets_do_not_run_away():
    wide = lambda x: -0.5 * (x / 1000).square().sum(1)  # noqa: E731
    heavy = lambda x: -torch.log1p(x.square()).sum(1)  # noqa: E731
    apart = lambda x: torch.logsumexp(  # noqa: E731
        torch.stack([-0.5 * (x - m).square().sum(1) for m in (-400.0, 400.0)]), 0
    )
    options = {"n_features": 2, "preconditioner": None, "random_state": 0, "method": "ula"}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Chains run away")
        for target in (wide, heavy, apart):
            LangevinSampler(target, n_steps=200, **options).fit()


def test_one_column_of_values_is_announced_as_a_gradient():
    with pytest.warns(UserWarning, match="read as the gradient, and .* log density"):
        LangevinSampler(lambda x: -x, method="ula", n_steps=2, n_features=1, random_state=0).fit()


def test_divergence_names_step_and_level():
    class Wrong(LangevinSampler):
        def log_density_gradient(self, X, noise_level=0.0):
            return np.full(np.shape(X), np.nan if noise_level < 1 else 0.0)

    inner = Wrong(max_iter=0, random_state=0).fit(data())
    with pytest.raises(FloatingPointError, match=r"at step \d+ at noise level 0\.6.*chain 0"):
        LangevinSampler(inner, noise_levels=[4.0, 2.0, 0.6, 0.5, 0.1]).fit(data())


def test_errors_of_data():
    sampler = LangevinSampler(max_iter=0, random_state=0).fit(data())
    with pytest.raises(ValueError, match="CSDIImputer"):
        sampler.transform([[np.nan, 1.0]])
    with pytest.raises(ValueError, match=r"contains infinity in the columns \[0\]"):
        LangevinSampler().fit([[np.inf, 1.0], [2, 3]])
    with pytest.raises(ValueError, match="contains NaN"):
        LangevinSampler().fit([[np.nan, 1.0], [2, 3]])
    with pytest.raises(ValueError, match="column 'b' is constant"):
        LangevinSampler().fit(pd.DataFrame({"a": [1.0, 2, 3], "b": 1.0}))
    with pytest.raises(ValueError, match="column 0 is constant"):
        LangevinSampler().fit([[1.0, 1], [1, 2], [1, 3]])
    with pytest.raises(ValueError, match="n_samples"):
        sampler.sample(0)
    with pytest.raises(ValueError, match="noise_level"):
        sampler.log_density_gradient(data(), -1.0)
    with pytest.raises(ValueError, match="needs a noisy score"):
        fitted(log_density, method="mala", n_steps=2).log_density_gradient(data(), 1.0)
    with pytest.raises(NotFittedError):
        LangevinSampler().sample()
    assert not hasattr(fitted(gradient, n_steps=2), "score_samples")


def test_a_gradient_alone_warns():
    with pytest.warns(UserWarning, match="do not cross between modes"):
        LangevinSampler(gradient, n_features=2, n_steps=200, random_state=0).fit()


def test_function_target_names_the_function():
    def my_density(x):
        return x.new_zeros(7)

    with pytest.raises(ValueError, match="my_density"):
        FunctionTarget(my_density, 2, torch.float64, torch.device("cpu"))


def test_a_full_device_is_answered_with_advice(monkeypatch):
    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    sampler = LangevinSampler(lambda x: -x.square().sum(1) / 2, n_features=2).fit()
    monkeypatch.setattr(_running, "run", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"lower n_chains or n_samples.*20 GiB"):
        sampler.sample(5)
