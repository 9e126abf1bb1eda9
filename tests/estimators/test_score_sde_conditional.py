"""Conditional ScoreSDE: against closed-form conditionals, and what a pipeline may pass as y."""

import math
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import make_moons
from sklearn.model_selection import cross_val_score

from skdiffusion import ScoreSDE
from skdiffusion.diffusion.analytic import gaussian
from skdiffusion.estimators.density._fitting import new_network
from skdiffusion.estimators.density._regression import _believed
from skdiffusion.metrics import interval_coverage


def small(**kwargs):
    settings = {"base": "gaussian", "hidden_layer_sizes": (16,), "max_iter": 0, "random_state": 0}
    return ScoreSDE(**(settings | kwargs))


MEANS = {"left": [-2.0, 0.0], "right": [2.0, 1.0]}
COVARIANCES = {"left": [[1.0, 0.6], [0.6, 1.0]], "right": [[0.3, 0.0], [0.0, 2.0]]}


def labelled(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.3, "left", "right")
    draws = {k: rng.multivariate_normal(MEANS[k], COVARIANCES[k], n) for k in MEANS}
    return np.where((y == "left")[:, None], draws["left"], draws["right"]), y


def log_density_given(X, label):
    return multivariate_normal(MEANS[label], COVARIANCES[label]).logpdf(X)


def valued(n=4000, seed=0):
    """x given y is N((y, -y / 2), S) with correlated S."""
    rng = np.random.default_rng(seed)
    y = rng.normal(5, 3, n)
    noise = rng.multivariate_normal([0, 0], [[0.5, 0.3], [0.3, 0.4]], n)
    return np.c_[y, -y / 2] + noise, y


@pytest.mark.parametrize("base", ["gaussian", "mixture"])
def test_density_given_a_label_is_that_of_the_class(base):
    model = small(condition="label", base=base).fit(*labelled())
    assert model.classes_.tolist() == ["left", "right"]
    X, y = labelled(400, seed=1)
    exact = np.where(y == "left", log_density_given(X, "left"), log_density_given(X, "right"))
    values = model.score_samples(X, y)
    assert np.abs(values - exact).mean() < 0.1
    assert model.score(X, y) == pytest.approx(exact.mean(), abs=0.03)
    together = np.logaddexp(
        log_density_given(X, "left") + math.log(0.3), log_density_given(X, "right") + math.log(0.7)
    )
    assert np.abs(model.score_samples(X) - together).mean() < 0.08


def test_density_given_a_value_is_the_gaussian_regression():
    model = small(condition="value").fit(*valued())
    X, y = valued(400, seed=1)
    exact = multivariate_normal([0, 0], [[0.5, 0.3], [0.3, 0.4]]).logpdf(X - np.c_[y, -y / 2])
    assert np.abs(model.score_samples(X, y) - exact).mean() < 0.05
    draws = model.sample(4000, y=8.0)
    error = np.abs(draws.mean(0) - [8, -4]) / np.sqrt([0.5, 0.4])
    assert error.max() < 0.1
    assert np.abs(np.cov(draws.T) - [[0.5, 0.3], [0.3, 0.4]]).max() < 0.06
    each = model.sample(400, y=y)
    assert np.corrcoef(each[:, 0], y)[0, 1] > 0.95


def test_solver_and_closed_form_draw_the_same_conditional():
    """An untrained network leaves the base, through which the solver must find its way."""
    model = small(condition="label").fit(*labelled())
    closed = model.sample(4000, y="left")
    model.denoiser_.network = new_network(model, model._encoder, torch.Generator()).double()
    solved = model.sample(4000, y="left")
    assert np.abs(closed.mean(0) - solved.mean(0)).max() < 0.12
    assert np.abs(np.cov(closed.T) - np.cov(solved.T)).max() < 0.15
    X, y = labelled(50, seed=1)
    alone = small(condition="label").fit(*labelled())
    np.testing.assert_allclose(model.score_samples(X, y), alone.score_samples(X, y), atol=0.01)


def test_network_learns_what_the_conditional_base_cannot():
    """x given y is N(sin(y), 0.1**2), far from a joint Gaussian."""
    rng = np.random.default_rng(0)
    y = rng.uniform(-3, 3, 3000)
    X = np.sin(y)[:, None] + 0.1 * rng.normal(size=(3000, 1))
    model = small(condition="value", max_iter=600, hidden_layer_sizes=(64, 64)).fit(X, y)
    assert model.base_ == "gaussian + network"
    exact = norm(np.sin(y[:300]), 0.1).logpdf(X[:300, 0])
    base = small(condition="value").fit(X, y)
    assert base.score(X[:300], y[:300]) < exact.mean() - 1
    assert model.score(X[:300], y[:300]) > exact.mean() - 0.25
    draws = model.sample(500, y=1.0)
    assert draws.mean() == pytest.approx(math.sin(1.0), abs=0.06)
    bound, error = model.nll_bound(X[:300], y[:300], return_std=True)
    assert -bound.mean() < exact.mean() + 5 * error.mean() / math.sqrt(300) + 0.1
    assert model.score(X[:300]) < model.score(X[:300], y[:300]) - 0.5


def uneven(n, seed):
    """x given y is N(2 sign(y1 y2), 0.2**2) for negative y1, with variance 1 else."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(-2, 2, (n, 2))
    location, scale = 2 * np.sign(y.prod(1)), np.where(y[:, 0] > 0, 1.0, 0.2)
    return (location + scale * rng.normal(size=n))[:, None], y, norm(location, scale)


@pytest.mark.slow
def test_regression_base_finds_location_and_scale():
    model = small(condition="value", base="regression").fit(*uneven(600, 0)[:2])
    X, y, law = uneven(500, 1)
    # Trees cost some 0.3 nats at the steps; not knowing which rows scatter 0.25 more.
    assert law.logpdf(X[:, 0]).mean() - model.score(X, y) < 0.4
    draws = model.sample(1000, y=[[-1.0, 1.0]])
    assert draws.mean() == pytest.approx(-2, abs=0.15)
    assert draws.std() == pytest.approx(0.2, abs=0.15)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.sample(3, y=y[:3]), model.sample(3, y=y[:3]))
    np.testing.assert_array_equal(model.sample(3), again.sample(3))


@pytest.mark.slow
def test_scale_is_that_of_new_rows():
    """Trees fit the training rows closely; the width must be what new rows need."""
    rng = np.random.default_rng(0)
    y, X = rng.normal(size=(2, 200, 3))
    model = small(condition="value", base="regression").fit(X[:, :1], y)
    y, X = rng.normal(size=(2, 200, 3))
    draws = model.sample(20000, y=np.repeat(y, 100, axis=0)).reshape(200, 100)
    assert interval_coverage(X[:, 0], draws) == pytest.approx(0.9, abs=0.11)


def with_gaps(n=2000, seed=0):
    """x is N(2 b, 0.3^2), b is N(0, 1) and missing in a third of the rows; c tells nothing."""
    rng = np.random.default_rng(seed)
    b, c = rng.normal(size=(2, n))
    x = 2 * b + 0.3 * rng.normal(size=n)
    y = np.c_[b, c, np.full(n, np.nan)]
    y[rng.random(n) < 1 / 3, 0] = np.nan
    return x[:, None], y


@pytest.mark.parametrize("base", ["mixture", "regression"])
def test_a_gap_in_the_condition_leaves_what_the_other_columns_say(base):
    X, y = with_gaps()
    model = small(condition="value", base=base).fit(X, y)
    known, gap = np.array([[1.0, 0.0, np.nan]]), np.array([[np.nan, 0.0, np.nan]])
    draws = model.sample(4000, y=known)
    assert draws.mean() == pytest.approx(2.0, abs=0.15)
    assert draws.std() == pytest.approx(0.3, abs=0.1)
    draws = model.sample(4000, y=gap)
    assert draws.mean() == pytest.approx(0.0, abs=0.2)
    assert draws.std() == pytest.approx((4 + 0.09) ** 0.5, abs=0.2)
    rows = model.score_samples(np.array([[2.0], [2.0]]), np.vstack([known, gap]))
    exact = norm([2.0, 0.0], [0.3, 4.09**0.5]).logpdf(2.0)
    np.testing.assert_allclose(rows, exact, atol=0.25)


def test_that_a_value_is_missing_is_a_condition_too():
    X, y = with_gaps()
    X[np.isnan(y[:, 0])] += 9.0
    model = small(condition="value", base="regression").fit(X, y)
    assert model.sample(2000, y=[[np.nan, 0.0, 0.0]]).mean() == pytest.approx(9.0, abs=0.3)
    # A gap where fit has seen none is the mean of its column.
    assert model.sample(2000, y=[[1.0, np.nan, 0.0]]).mean() == pytest.approx(2.0, abs=0.3)


@pytest.mark.filterwarnings("ignore:Column 2 of y")
def test_a_constant_column_of_the_condition_says_nothing():
    X, y = with_gaps()
    y[:, 2] = 7.0
    model = small(condition="value", base="regression", max_iter=20).fit(X, y)
    draws = [model.sample(50, y=[[1.0, 0.0, k]], random_state=0) for k in (7.0, -1e6, np.nan)]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])


def test_scale_that_trees_guess_is_not_believed():
    """Every other row has a twin, from which it is known: by chance in the test rows as well."""
    rng = np.random.default_rng(0)
    residual = np.where(rng.random(400) < 0.5, 1e-3, 1.0) * np.abs(rng.normal(size=400))
    guess = np.log(np.where(rng.random(400) < 0.5, 1e-3, 1.0))
    assert _believed(guess - guess.mean(), residual) == 0
    scale = np.exp(rng.normal(size=400))
    residual = scale * np.abs(rng.normal(size=400))
    assert _believed(np.log(scale) - np.log(scale).mean(), residual) == 1


def test_a_base_that_knows_no_condition_is_drawn_from():
    model = small(condition="value", base="gaussian").fit(*valued(100))
    model.model_.denoiser.base = gaussian(torch.zeros(2), torch.eye(2))
    draws = model.sample(3000, y=[5.0])
    assert np.abs(np.cov(((draws - draws.mean(0)) / draws.std(0)).T)[0, 1]) < 0.1


def test_guidance_moves_draws_away_from_the_other_classes():
    model = small(condition="label").fit(*labelled())
    free = model.sample(2000, y="left", guidance=0.0)
    plain = model.sample(2000, y="left", guidance=1.0)
    pushed = model.sample(2000, y="left", guidance=3.0)
    assert free[:, 0].mean() == pytest.approx(0.3 * -2 + 0.7 * 2, abs=0.2)
    assert plain[:, 0].mean() == pytest.approx(-2, abs=0.12)
    assert pushed[:, 0].mean() < -2.1
    assert pushed[:, 0].std() < plain[:, 0].std()


def test_without_condition_y_changes_nothing():
    X, y = labelled(200)
    np.testing.assert_array_equal(
        small().fit(X, y).score_samples(X), small().fit(X).score_samples(X)
    )
    assert np.isfinite(cross_val_score(small(), X, y, cv=2)).all()
    assert np.isfinite(cross_val_score(small(condition="label"), X, y, cv=2)).all()


@pytest.mark.parametrize(
    "y", [np.array([True, False] * 50), np.array([3, 7] * 50), np.array(["a", "b"] * 50, object)]
)
def test_labels_of_any_kind(y):
    X = make_moons(100, noise=0.1, random_state=0)[0]
    model = small(condition="label").fit(X, y)
    assert model.sample(2, y=y[:2]).shape == (2, 2)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.sample(5, y=y[0]), again.sample(5, y=y[0]))


def test_a_class_of_one_row_borrows_the_spread_of_the_others():
    X, y = labelled(300)
    y = y.copy()
    y[0] = "rare"
    model = small(condition="label", base="mixture").fit(X, y)
    assert np.isfinite(model.score_samples(X, y)).all()
    draws = model.sample(200, y="rare")
    assert np.abs(draws.mean(0) - X[0]).max() < 0.5


class TestRefusals:
    X, y = labelled(60)

    def test_y_is_needed(self):
        with pytest.raises(ValueError, match="requires y to be passed"):
            small(condition="label").fit(self.X)

    def test_unknown_label(self):
        model = small(condition="label").fit(self.X, self.y)
        with pytest.raises(ValueError, match=r"middle.*has not seen"):
            model.sample(3, y="middle")

    def test_lengths(self):
        with pytest.raises(ValueError, match="inconsistent"):
            small(condition="label").fit(self.X, self.y[:-1])
        model = small(condition="value").fit(self.X, self.X[:, 0])
        with pytest.raises(ValueError, match="2 rows, but 3"):
            model.sample(3, y=[1.0, 2.0])
        with pytest.raises(ValueError, match="2 columns"):
            model.score_samples(self.X, self.X)

    @pytest.mark.parametrize("condition", ["label", "value"])
    def test_missing_y(self, condition):
        y = self.X[:, 0].copy()
        y[2] = np.nan
        with pytest.raises(ValueError, match=r"y contains NaN"):
            small(condition=condition).fit(self.X, y)

    def test_constant_value(self):
        with pytest.raises(ValueError, match="y has a constant column"):
            small(condition="value").fit(self.X, np.ones(60))

    @pytest.mark.parametrize("condition", [None, "label"])
    def test_regression_needs_values(self, condition):
        with pytest.raises(ValueError, match='requires condition="value"'):
            small(condition=condition, base="regression").fit(self.X, self.y)

    def test_kernel_base(self):
        with pytest.raises(ValueError, match="no conditional form"):
            small(condition="label", base="kde").fit(self.X, self.y)
