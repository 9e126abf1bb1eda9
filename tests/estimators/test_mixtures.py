"""Mixtures with shrunken covariances: scikit-learn's, their moments, the formula."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from skdiffusion.diffusion.analytic import em
from skdiffusion.diffusion.analytic.em import Components, Shape


def fit(X, start, shape):
    """Mixture of rows, whose parts are arrays."""
    start = Components(*map(torch.as_tensor, start)) if isinstance(start, tuple) else start
    start = start if isinstance(start, Components) else torch.as_tensor(start)
    return Arrays(*map(np.asarray, em.fit(torch.as_tensor(X), start, shape)))


class Arrays(NamedTuple):
    """Components as arrays."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def log_density(self, X):
        return Components(*map(torch.as_tensor, self)).log_density(torch.as_tensor(X)).numpy()


def three_groups(n=300, d=3, seed=0):
    """Rows of three normals with covariances of their own."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(3, d, d))
    label = rng.integers(0, 3, n)
    noise = rng.normal(size=(n, d))
    return np.einsum("nij,nj->ni", mixing[label], noise) + 3.0 * label[:, None], label


@pytest.fixture
def to_the_end(monkeypatch):
    """Iterate until nothing changes."""
    monkeypatch.setattr(em, "_TOL", 1e-12)
    monkeypatch.setattr(em, "_MAX_ITER", 2000)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("full", Shape(0, 1e-9)),
        ("tied", Shape(np.inf, 1e-9)),
        ("diag", Shape(0, 1e-9, diagonal=True)),
    ],
)
def test_limits_are_the_mixtures_of_scikit_learn(kind, shape, to_the_end):
    X, label = three_groups()
    ours = fit(X, label, shape)
    theirs = GaussianMixture(3, covariance_type=kind, reg_covar=1e-9, tol=1e-12, max_iter=2000)
    # The same maximum: theirs begins where ours has ended.
    theirs.means_init, theirs.weights_init = ours.means, ours.weights
    precisions = np.linalg.inv(ours.covariances)
    theirs.precisions_init = {
        "full": precisions,
        "tied": precisions[0],
        "diag": np.diagonal(precisions, axis1=1, axis2=2),
    }[kind]
    theirs.fit(X)
    np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-5)
    np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-5)
    np.testing.assert_allclose(ours.log_density(X), theirs.score_samples(X), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    trust=st.sampled_from([0.0, 0.3, 2.0, 50.0, np.inf]),
    k=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_mean_and_covariance_are_those_of_the_rows(trust, k, seed):
    """Whatever the trust in the average, ``sum_k w_k C_k`` stays."""
    X, _ = three_groups(60, 4, seed)
    label = np.random.default_rng(seed).integers(0, k, 60)
    mixture = fit(X, label, Shape(trust, 1e-4))
    mean = mixture.weights @ mixture.means
    away = mixture.means - mean
    within = np.einsum("k,kij->ij", mixture.weights, mixture.covariances)
    between = np.einsum("k,ki,kj->ij", mixture.weights, away, away)
    np.testing.assert_allclose(mean, X.mean(0), atol=1e-7)
    expected = np.cov(X.T, bias=True) + 1e-4 * np.eye(4)
    np.testing.assert_allclose(within + between, expected, atol=1e-6)


def test_small_components_are_drawn_further_to_the_average():
    X, _ = three_groups(300)
    label = np.repeat([0, 1], [280, 20])
    shares = torch.eye(2, dtype=torch.float64)[torch.as_tensor(label)]
    moments = em._moments([torch.as_tensor(X)], [shares])
    raw, shrunk = (em.maximised(moments, Shape(trust, 0.0)) for trust in (0.0, 2.0))
    counts, own = np.array([280.0, 20.0]), raw.covariances.numpy()
    doubt = 6 / (6 + counts)
    average = np.einsum("k,kij->ij", counts * doubt, own) / (counts * doubt).sum()
    expected = own + doubt[:, None, None] * (average - own)
    np.testing.assert_allclose(shrunk.covariances, expected, rtol=1e-9)


def test_parts_of_rows_change_nothing(monkeypatch):
    X, label = three_groups()
    whole = fit(X, label, Shape(1.0, 1e-3))
    monkeypatch.setattr(em, "_MAX_NUMBERS", 500)
    parts = fit(X, label, Shape(1.0, 1e-3))
    np.testing.assert_allclose(parts.covariances, whole.covariances, rtol=1e-9)
    np.testing.assert_allclose(parts.log_density(X), whole.log_density(X), rtol=1e-9)


def test_an_empty_component_does_no_harm():
    X, label = three_groups()
    mixture = fit(X, np.where(label == 1, 2, label), Shape(1.0, 1e-3))
    assert np.isfinite(mixture.log_density(X)).all()


def test_likelihood_rises_when_a_fit_goes_on():
    X, _ = three_groups()
    start = Arrays(np.full(3, 1 / 3), X[:3].copy(), np.tile(np.eye(3), (3, 1, 1)))
    once = fit(X, start, Shape(0.0, 1e-6))
    again = fit(X, once, Shape(0.0, 1e-6))
    first, second, third = (m.log_density(X).mean() for m in (start, once, again))
    assert first < second <= third + 1e-9
