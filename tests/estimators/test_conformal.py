"""Adjusted quantiles keep the law of split conformal prediction, whatever the imputer."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.impute import SimpleImputer

from skdiffusion import CSDIImputer
from skdiffusion.datasets import ampute
from skdiffusion.estimators import ConformalImputer, conformalize
from skdiffusion.metrics import interval_coverage

N_DRAWS = 50


class Wrong:
    """Draws of missing cells, N(shift, scale^2) where N(0, 1) would be right."""

    def __init__(self, shift, scale):
        self.shift, self.scale = shift, scale

    def sample(self, X, n_draws, random_state=None):
        X = np.asarray(X, dtype=float)
        rng = np.random.default_rng(random_state)
        noise = rng.normal(size=(len(X), n_draws, *X.shape[1:]))
        return np.where(np.isnan(X)[:, None], self.shift + self.scale * noise, X[:, None])

    def transform(self, X):
        return self.sample(X, 1)[:, 0]


@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0, 0.2), (0.7, 0.5), (0, 5)])
def test_each_quantile_has_the_probability_of_its_rank(shift, scale):
    """With n cells the k-th score exceeds a new one with probability k / (n + 1), exactly."""
    n, n_repeats, rng = 39, 400, np.random.default_rng(0)
    wrong, below = Wrong(shift, scale), []
    gaps = np.full((25, 1), np.nan)
    for seed in range(n_repeats):
        draws = wrong.sample(np.full((n, 1), np.nan), N_DRAWS, 2 * seed)[..., 0]
        truth = rng.normal(size=n)
        conformal = ConformalImputer(wrong, truth, draws, np.zeros(n, int), 2 * seed + 1)
        q = conformal.predict_quantiles(gaps, [0.05, 0.62, 0.95])[..., 0]
        below.append((rng.normal(size=(25, 1)) < q).mean(axis=0))
    # The rank of 0.62 * 40 = 24.8 is the 25th: 25 / 40.
    exact = np.array([0.05, 0.625, 0.95])
    error = np.std(below, axis=0) / np.sqrt(n_repeats)
    assert (np.abs(np.mean(below, axis=0) - exact) < stats.norm.isf(5e-7) * error).all()


def test_a_miscalibrated_imputer_reaches_its_level_on_other_cells():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 2)) * [1, 100]
    hidden = np.where(rng.uniform(size=X.shape) < 0.5, np.nan, X)

    def coverage(q):
        cells = np.isnan(hidden[1500:])
        return ((q[:, 0] <= X[1500:]) & (X[1500:] <= q[:, 1]))[cells].mean()

    class Half(Wrong):
        def sample(self, X, n_draws, random_state=None):
            scaled = super().sample(X / [1, 100], n_draws, random_state)
            return scaled * [1, 100]

    imputer = Half(0, 0.5)
    conformal = conformalize(imputer, hidden[:1500], X[:1500])
    draws = imputer.sample(hidden[1500:], 99, 3)
    plain = interval_coverage(X[1500:], draws, level=0.9, mask=np.isnan(hidden[1500:]))
    assert plain < 0.65
    # About 1500 cells on either side: 5 standard errors are 0.05.
    assert coverage(conformal.predict_quantiles(hidden[1500:], [0.05, 0.95])) == pytest.approx(
        0.9, abs=0.05
    )


def test_features_are_adjusted_on_their_own_where_cells_suffice():
    rng = np.random.default_rng(2)
    features = np.repeat([0, 1, 2], [400, 400, 5])
    truth = rng.normal(size=805) * np.array([1, 4, 1])[features]
    draws = rng.normal(size=(805, N_DRAWS))
    conformal = ConformalImputer(Wrong(0, 1), truth, draws, features)
    width = np.diff(conformal.predict_quantiles(np.full((200, 3), np.nan), [0.05, 0.95]), axis=1)
    first, second, third = width.mean(axis=(0, 1))
    assert second / first == pytest.approx(4, rel=0.2)
    assert first < third < second  # the pooled adjustment


def test_observed_cells_repeat_their_value_and_quantiles_increase():
    X = np.random.default_rng(3).normal(size=(60, 4, 2))
    X[::2, 1] = np.nan
    truth = np.random.default_rng(4).normal(size=300)
    draws = Wrong(1, 0.1).sample(np.full((300, 1), np.nan), N_DRAWS, 0)[..., 0]
    conformal = ConformalImputer(Wrong(1, 0.1), truth, draws, np.arange(300) % 2)
    q = conformal.predict_quantiles(X, [0.9, 0.1, 0.5])
    assert q.shape == (60, 3, 4, 2)
    assert (q[:, 1] <= q[:, 2]).all()
    assert (q[:, 2] <= q[:, 0]).all()
    seen = ~np.isnan(X)
    for level in range(3):
        np.testing.assert_array_equal(q[:, level][seen], X[seen])
    again = pickle.loads(pickle.dumps(conformal)).predict_quantiles(X, [0.9, 0.1, 0.5])
    np.testing.assert_array_equal(again, q)


def test_a_fitted_imputer_is_calibrated_and_fills_as_before():
    rng = np.random.default_rng(5)
    X = rng.standard_exponential(size=(400, 1)) + 0.3 * rng.normal(size=(400, 3))
    imputer = CSDIImputer(method="gaussian", random_state=0).fit(X[:200])
    conformal = conformalize(imputer, X[200:], missing_rate=0.3)
    X[:100, 0] = np.nan
    np.testing.assert_array_equal(conformal.transform(X), imputer.transform(X))
    q = conformal.predict_quantiles(X[:100])
    assert (np.diff(q[:, :, 0], axis=1) > 0).all()


def test_a_placeholder_of_missing_cells_is_the_imputers():
    X = np.random.default_rng(7).normal(size=(400, 2)) + 10
    imputer = CSDIImputer(method="gaussian", missing_values=-1, random_state=0).fit(X[:200])
    conformal = conformalize(imputer, X[200:], missing_rate=0.3)
    gaps, with_nan = X[:50].copy(), X[:50].copy()
    gaps[:, 0], with_nan[:, 0] = -1, np.nan
    plain = CSDIImputer(method="gaussian", random_state=0).fit(X[:200])
    same = conformalize(plain, X[200:], missing_rate=0.3)
    np.testing.assert_allclose(
        conformal.predict_quantiles(gaps)[..., 1], same.predict_quantiles(with_nan)[..., 1]
    )
    assert (np.diff(conformal.predict_quantiles(gaps)[..., 0], axis=1) > 0).all()


def test_errors_name_the_remedy():
    X = np.random.default_rng(6).normal(size=(50, 2))
    with pytest.raises(ValueError, match="does not draw"):
        conformalize(SimpleImputer().fit(X), X)
    conformal = ConformalImputer(Wrong(0, 1), np.zeros(18), np.ones((18, 5)), np.zeros(18, int))
    for level in (0.05, 0.95):
        with pytest.raises(ValueError, match="at least 19 calibration cells, but there are 18"):
            conformal.predict_quantiles(X, [level])
    with pytest.raises(ValueError, match="list of series"):
        conformal.predict_quantiles([X, X[:3]])
    with pytest.raises(ValueError, match="strictly between"):
        conformal.predict_quantiles(X, [1.0])


def test_errors_of_a_parameter_name_conformalize():
    X = np.random.default_rng(0).normal(size=(20, 2))
    for name, value in (("missing_rate", 2), ("mechanism", "holes"), ("n_draws", 1)):
        with pytest.raises(ValueError, match=f"The '{name}' parameter of conformalize must be"):
            conformalize(Wrong(0, 1), X, **{name: value})


def labelled(n=500):
    rng = np.random.default_rng(7)
    x = rng.standard_exponential(n)
    columns = {"a": x + 0.3 * rng.normal(size=n), "text": np.where(x > 1, "u", "v"), "b": x > 0.5}
    return pd.DataFrame(columns | {"c": x + 0.3 * rng.normal(size=n)})


def test_numbers_beside_labels_are_calibrated():
    frame = labelled()
    gaps, hidden = ampute(frame, missing_rate=0.2, random_state=0)
    imputer = CSDIImputer(method="gaussian", random_state=0).fit(gaps[:200])
    conformal = conformalize(imputer, gaps[200:400], missing_rate=0.3)
    low, high = conformal.predict_quantiles(gaps[400:], [0.05, 0.95])
    gone = hidden[400:]
    for name, j in (("a", 0), ("c", 3)):
        truth = frame[name][400:][gone[:, j]]
        assert (low[name] <= high[name]).all()
        held = (low[name][gone[:, j]] <= truth) & (truth <= high[name][gone[:, j]])
        assert held.mean() > 0.8
    filled = imputer.transform(gaps[400:])
    pd.testing.assert_frame_equal(low[["text", "b"]], filled[["text", "b"]])


def test_labels_alone_have_no_intervals():
    frame = labelled()[["text", "b"]]
    imputer = CSDIImputer(method="gaussian", random_state=0).fit(frame)
    with pytest.raises(ValueError, match=r"no hidden cell is in a column of num.*predict_proba"):
        conformalize(imputer, frame)
