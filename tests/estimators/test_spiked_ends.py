"""Columns of which many rows have the least or the largest value, such as no rain: their draws."""

import pickle

import numpy as np
import pytest

import skdiffusion
from skdiffusion import ScoreSDE
from skdiffusion.columns.ends import spiked_ends
from skdiffusion.estimators.density import _fitting


def small(**kwargs):
    settings = {"base": "mixture", "hidden_layer_sizes": (16,), "max_iter": 0, "random_state": 0}
    return ScoreSDE(**(settings | kwargs))


def rain(n=1000, sign=1.0, end=0.0):
    """A column that tells another one: none in a third of the rows, else positive."""
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=n)
    amount = np.exp(0.5 * cloud + 0.5 * rng.normal(size=n))
    return np.c_[cloud, end + sign * np.where(cloud + rng.normal(size=n) > -0.75, amount, 0.0)]


def require_like(drawn, X, sign=1.0, end=0.0, atol=0.04):
    """As many rows at the end as in the data, none beyond, and the others as in the data."""
    dry = drawn[:, 1] == end
    assert (sign * (drawn[:, 1] - end) >= 0).all()
    assert abs(dry.mean() - (X[:, 1] == end).mean()) < atol
    assert np.corrcoef(drawn[:, 0], dry)[0, 1] < -0.4
    levels = [0.1, 0.5, 0.9]
    wet = np.quantile(drawn[~dry, 1], levels), np.quantile(X[X[:, 1] != end, 1], levels)
    np.testing.assert_allclose(*wet, rtol=0.2)


def test_by_default_the_end_is_drawn_as_often_as_in_the_data():
    X = rain()
    require_like(ScoreSDE(max_iter=100, random_state=0).fit(X).sample(2000, random_state=1), X)


@pytest.mark.parametrize("end", [0.0, 0.1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("marginals", [None, "histogram", "copula"])
def test_an_end_is_drawn_as_often_as_in_the_data(marginals, sign, end):
    X = rain(sign=sign, end=end)
    model = small(marginals=marginals).fit(X)
    require_like(model.sample(2000, random_state=1), X, sign, end)


def test_gaps_are_filled_with_the_end_too():
    X = rain()
    model = small().fit(X)
    holes = np.where([False, True], np.nan, X)
    drawn = model.impute(holes, n_draws=3, random_state=1)
    require_like(drawn.reshape(-1, 2), X)
    np.testing.assert_array_equal(drawn[:, 0, 0], X[:, 0])
    # What was observed stays, next to an end or not.
    given = np.array([[np.nan, 1e-9], [np.nan, -1e-9]])
    np.testing.assert_array_equal(model.impute(given)[:, 1], given[:, 1])
    dry = model.sample(500, given={0: -2.0}, random_state=0)
    assert (dry[:, 1] >= 0).all()
    assert (dry[:, 1] == 0).mean() > 0.7


def test_the_density_is_what_it_was(monkeypatch):
    X = rain()
    model = small().fit(X)
    monkeypatch.setattr(_fitting, "spiked_ends", lambda values, columns: None)
    without = small().fit(X)
    for name in ("score_samples", "transform", "log_density_gradient"):
        np.testing.assert_array_equal(getattr(model, name)(X), getattr(without, name)(X))
    rows = model.transform(X[:5])
    np.testing.assert_array_equal(model.inverse_transform(rows), without.inverse_transform(rows))
    drawn = model.sample(500), without.sample(500)
    wet = drawn[0][:, 1] > 0
    np.testing.assert_array_equal(drawn[0][wet], drawn[1][wet])
    assert (drawn[1][:, 1] < 0).any()
    assert not model.coordinates_.discrete


def test_ends_are_kept_in_files(tmp_path):
    model = small().fit(rain())
    skdiffusion.save(model, tmp_path / "model")
    for kept in (skdiffusion.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(kept.sample(50), model.sample(50))


def test_what_is_an_end():
    rng = np.random.default_rng(0)
    x = rng.exponential(size=400)
    many, few = np.where(np.arange(400) < 30, 0.0, x), np.where(np.arange(400) < 19, 0.0, x)
    both, near = np.where(x > 2, 2.0, many), np.where(np.arange(400) == 40, 1e-12, many)
    repeats = np.where(np.arange(400) < 30, 0.0, rng.integers(1, 100, 400) / 7)
    gaps = np.where(np.arange(400) > 370, np.nan, many)
    table = np.column_stack([many, few, both, near, repeats, gaps, np.zeros(400), many])
    (low, below), (high, above) = spiked_ends(table, range(7))
    zero, none = [True, False, True, True, False, True, False, False], np.isinf
    np.testing.assert_array_equal(low == 0, zero)
    np.testing.assert_array_equal(none(low), np.logical_not(zero))
    np.testing.assert_array_equal(high == 2, np.arange(8) == 2)
    assert none(high[np.arange(8) != 2]).all()
    assert 1.9 < above[2] < 2
    # One odd record next to the end does not bring the end's reach to nothing.
    assert ((below > 1e-4) & (below < 0.02))[zero].all()
