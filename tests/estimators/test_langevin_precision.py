"""The commonest job, a regression of a few hundred rows: its price, and single precision."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skdiffusion.diffusion.target.noncentred import NonCentred
from skdiffusion.estimators import LangevinSampler
from skdiffusion.estimators.sampling._alarms import slow_funnel
from skdiffusion.estimators.sampling._diagnosis import Diagnosis


class LogisticPosterior:
    """Log posterior of coefficients with a prior N(0, 1), which counts what it is asked."""

    def __init__(self, dtype):
        rows, y = load_breast_cancer(return_X_y=True)
        rows = StandardScaler().fit_transform(rows)[:, :4]
        rows = np.column_stack([np.ones(len(rows)), rows])
        self._rows, self._y = torch.tensor(rows, dtype=dtype), torch.tensor(y, dtype=dtype)
        self.n_calls, self.n_points = 0, 0

    def __call__(self, w):
        self.n_calls, self.n_points = self.n_calls + 1, self.n_points + len(w)
        z = w @ self._rows.T
        likelihood = (self._y * z - torch.nn.functional.softplus(z)).sum(1)
        return likelihood - 0.5 * w.square().sum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_logistic_regression_is_cheap_and_right_in_either_precision(dtype):
    posterior = LogisticPosterior(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = LangevinSampler(posterior, n_features=5, random_state=0).fit()
        assert posterior.n_calls < 1500
        assert posterior.n_points < 220_000
        draws = sampler.sample(4000)
    assert sampler.method_ == "hmc"
    noise = sampler.diagnostics_["log_density_noise"]
    assert 1e-6 < noise < 1e-3 if dtype == torch.float32 else noise < 1e-10
    # Of draws of any density the mean of the gradient is 0, and that of -x g is 1.
    exact = LangevinSampler(LogisticPosterior(torch.float64), n_features=5, random_state=0).fit()
    gradient = exact.log_density_gradient(draws)
    error = gradient.std(0) / np.sqrt(len(draws))
    assert (np.abs(gradient.mean(0)) < 4.5 * error).all()
    stein = -(draws - draws.mean(0)) * gradient
    np.testing.assert_allclose(stein.mean(0), 1, atol=4.5 * stein.std(0).max() / len(draws) ** 0.5)


@pytest.mark.parametrize("offset", [0.0, 3e7])
def test_rounding_that_decides_about_steps_is_told_once_with_its_remedy(offset):
    """Numbers of single precision about 3e7 are whole and even: errors have a deviation of 0.58."""

    def normal(x):
        return (-0.5 * x.square().sum(1)).float() - offset

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LangevinSampler(normal, n_features=4, random_state=0).fit()
    told = [str(w.message) for w in caught if "rounding errors" in str(w.message)]
    assert len(told) == (offset > 0)
    assert all("as float64" in text for text in told)


def found(rhat):
    """Diagnosis of chains of which one feature is slow."""
    rhats = np.array([1.0, rhat, 1.0])
    return dataclasses.replace(Diagnosis.empty(3), rhat=rhats)


@pytest.mark.parametrize(("rhat", "is_told"), [(1.03, False), (1.2, True)])
def test_slow_chains_in_a_funnel_are_told_with_the_non_centred_form(rhat, is_told):
    slopes = torch.zeros(3, 3)
    slopes[2, 1] = 1.0
    funnel = NonCentred(torch.zeros(3), 0 * slopes, slopes, torch.zeros(3))
    assert slow_funnel(found(rhat), None) is None
    text = slow_funnel(found(rhat), funnel)
    assert (text is not None) == is_told
    if is_told:
        assert "features [2] follows features [1]" in text
        assert "non-centred form" in text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_centred_form_of_a_hierarchy_is_told(seed):
    """Twelve groups of eight values: chains do not reach the neck, as runs of NUTS do not."""
    rng = np.random.default_rng(3)
    group, covariate = np.arange(96) % 12, torch.tensor(rng.integers(0, 2, 96))
    centres = rng.normal(1.5, 0.4, 12)[group]
    y = torch.tensor(rng.normal(centres + 0.7 * covariate.numpy(), 0.8))

    def log_posterior(x):
        mu, log_tau, slope, log_sigma, a = x[:, 0], x[:, 1], x[:, 2], x[:, 3], x[:, 4:]
        prior = -0.005 * (mu.square() + slope.square()) + log_tau + log_sigma
        prior = prior - 0.5 * ((2 * log_tau).exp() + (2 * log_sigma).exp()) - 12 * log_tau
        prior = prior - 0.5 * ((a - mu[:, None]) / log_tau[:, None].exp()).square().sum(1)
        left = y - a[:, group] - slope[:, None] * covariate
        return prior - 96 * log_sigma - 0.5 * (left / log_sigma[:, None].exp()).square().sum(1)

    with pytest.warns(ConvergenceWarning, match="non-centred form"):
        LangevinSampler(log_posterior, n_features=16, method="hmc", random_state=seed).fit()
