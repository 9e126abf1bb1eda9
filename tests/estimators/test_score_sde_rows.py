"""Weights, gaps in training rows, further training, solvers and image networks of ScoreSDE."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_digits, make_moons

from skdiffusion import ScoreSDE
from skdiffusion.diffusion.solve import STEPS
from skdiffusion.estimators.density._fitting import new_network
from skdiffusion.estimators.density._gaps import completed_copies, gaussian_of_incomplete
from skdiffusion.estimators.density._rows import grouped, repeated, split_groups

COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 1.5, 0.0], [0.3, 0.0, 0.7]])
MEAN = np.array([1.0, -2.0, 10.0])


def small(**kwargs):
    settings = {"base": "gaussian", "hidden_layer_sizes": (16,), "max_iter": 0, "random_state": 0}
    return ScoreSDE(**(settings | kwargs))


def rows(n=2000, seed=0):
    return np.random.default_rng(seed).multivariate_normal(MEAN, COVARIANCE, n)


def with_gaps(X, seed=0):
    """Missing at random: a gap in a column is likelier where the first column is large."""
    rng = np.random.default_rng(seed)
    X = X.copy()
    X[rng.random(len(X)) < 1 / (1 + np.exp(-2 * (X[:, 0] - 1))), 1] = np.nan
    X[rng.random(len(X)) < 0.2, 2] = np.nan
    return X


class TestWeights:
    @pytest.mark.parametrize("base", ["gaussian", "mixture"])
    def test_integer_weights_repeat_rows(self, base):
        X, rng = rows(40), np.random.default_rng(1)
        weight = rng.integers(0, 4, 40)
        order = rng.permutation(weight.sum())
        a = small(base=base, max_iter=3).fit(X, sample_weight=weight)
        b = small(base=base, max_iter=3).fit(X.repeat(weight, axis=0)[order])
        np.testing.assert_allclose(a.score_samples(X), b.score_samples(X), rtol=1e-9)
        np.testing.assert_array_equal(a.sample(5), b.sample(5))

    @pytest.mark.parametrize("base", ["kde", "mixture", "auto"])
    @pytest.mark.parametrize("n", [6, 40])
    def test_rows_that_repeat_do_not_narrow_the_density(self, base, n):
        """A twin of a row says nothing new: fresh rows are no less likely by much."""
        X, fresh = rows(n), rows(200, seed=1)
        once = small(base=base).fit(X).score(fresh)
        assert small(base=base).fit(X.repeat(5, axis=0)).score(fresh) > once - 1

    def test_real_weights_move_the_density(self):
        X = rows(3000)
        weight = np.exp(0.8 * (X[:, 0] - 1))  # tilts the mean by 0.8 times the first column of C
        model = small().fit(X, sample_weight=weight)
        tilted = MEAN + 0.8 * COVARIANCE[:, 0]
        assert np.abs(model.sample(4000).mean(0) - tilted).max() < 0.15
        np.testing.assert_allclose(
            model.score_samples(X[:9]), small().fit(X, None, 7 * weight).score_samples(X[:9])
        )

    def test_repeats_follow_the_weights(self):
        X = np.arange(4.0)[:, None]
        np.testing.assert_array_equal(repeated(X, np.array([1, 0, 2, 1]))[:, 0], [0, 2, 2, 3])
        many = repeated(X, np.array([0.1, 0.1, 0.1, 0.5]))[:, 0]
        np.testing.assert_array_equal(np.unique(many, return_counts=True)[1], [4, 4, 4, 20])

    def test_equal_rows_stay_on_one_side_of_the_split(self):
        X = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(float)
        X[5:9, 1] = np.nan
        X, groups = grouped(X)
        train, held_out = split_groups(X, groups, 3, 0)
        assert len(train) + len(held_out) == 200
        sides = [{row.tobytes() for row in side} for side in (train, held_out)]
        assert len(sides[1]) == 3
        assert not sides[0] & sides[1]

    @pytest.mark.parametrize(
        ("weight", "message"),
        [(np.zeros(50), "zero"), (-np.ones(50), "[Nn]egative"), (np.ones(3), "shape")],
    )
    def test_refusals(self, weight, message):
        with pytest.raises(ValueError, match=message):
            small().fit(rows(50), sample_weight=weight)


class TestGaps:
    def test_expectation_maximisation_finds_the_gaussian(self):
        """Complete rows alone are biased, as gaps depend on the first column."""
        X = with_gaps(rows(6000))
        density = gaussian_of_incomplete(X - MEAN)
        assert np.abs(density.mean().numpy()).max() < 0.1
        assert np.abs(density.covariances()[0].numpy() - COVARIANCE).max() < 0.12
        complete = X[~np.isnan(X).any(1)] - MEAN
        assert np.abs(complete.mean(0)).max() > 0.3

    def test_copies_keep_what_is_known_and_differ_where_it_is_not(self):
        X = with_gaps(rows(300)) - MEAN
        copies, groups = completed_copies(X, np.arange(300), 0)
        assert groups.tolist() == np.repeat(np.arange(300), 3).tolist()
        known = ~np.isnan(X[groups])
        np.testing.assert_array_equal(copies[known], X[groups][known])
        spread = copies.reshape(300, 3, 3).std(1)
        assert (spread[np.isnan(X)] > 0).all()

    @pytest.mark.parametrize("max_iter", [0, 20])
    def test_fit_with_gaps_is_nearly_that_without(self, max_iter):
        X, T = rows(1000), rows(1000, seed=1)
        model = small(handle_missing="impute", max_iter=max_iter).fit(with_gaps(X))
        exact = multivariate_normal(MEAN, COVARIANCE).logpdf(T)
        assert model.score(T) == pytest.approx(exact.mean(), abs=0.05)
        assert np.abs(model.sample(4000).mean(0) - MEAN).max() < 0.2

    def test_gaps_in_labels_and_counts(self):
        rng = np.random.default_rng(0)
        frame = pd.DataFrame({"town": rng.choice(["a", "b"], 300), "n": rng.poisson(3, 300)})
        frame["town"] = frame["town"].where(rng.random(300) < 0.8)
        model = small(handle_missing="impute").fit(frame)
        draws = model.sample(100)
        assert set(draws["town"]) == {"a", "b"}

    def test_bounds_still_need_complete_rows(self):
        X = with_gaps(rows(200))
        model = small(handle_missing="impute").fit(X)
        with pytest.raises(ValueError, match=r"contains NaN.*impute"):
            model.nll_bound(X)
        with pytest.raises(ValueError, match='handle_missing="impute"'):
            small().fit(X)
        X[:, 1] = np.nan
        with pytest.raises(ValueError, match=r"\[1\].*no value"):
            small(handle_missing="impute").fit(X)


class TestFurtherTraining:
    X = make_moons(500, noise=0.1, random_state=0)[0]

    def test_partial_fit_keeps_learning(self):
        model = small(max_iter=1, batch_size=32, hidden_layer_sizes=(64, 64)).fit(self.X)
        before, held = model.n_iter_, make_moons(300, noise=0.1, random_state=1)[0]
        start, scale = model.score(held), model.scale_
        for _ in range(20):
            model.partial_fit(self.X)
        assert model.n_iter_ == before + 20 * math.ceil(500 / 32)
        assert model.score(held) > start + 0.1
        np.testing.assert_array_equal(model.scale_, scale)

    def test_first_partial_fit_is_fit(self):
        a, b = small(max_iter=3).partial_fit(self.X), small(max_iter=3).fit(self.X)
        few = self.X[:20]
        np.testing.assert_array_equal(a.score_samples(few), b.score_samples(few))
        with pytest.raises(ValueError, match="features"):
            a.partial_fit(self.X[:, :1])

    def test_partial_fit_of_a_conditional_model_needs_y(self):
        model = small(condition="label").fit(self.X, self.X[:, 0] > 0)
        model.partial_fit(self.X, self.X[:, 0] > 0, sample_weight=np.arange(500))
        assert model.base_ == "gaussian + network"
        with pytest.raises(ValueError, match="pass y"):
            model.partial_fit(self.X)

    def test_warm_start_goes_on_where_the_last_fit_ended(self):
        settings = {"max_iter": 80, "hidden_layer_sizes": (64, 64)}
        cold = small(**settings).fit(self.X)
        warm = small(**settings, warm_start=True).fit(self.X)
        few = self.X[:20]
        np.testing.assert_array_equal(warm.score_samples(few), cold.score_samples(few))
        losses = [loss for _, loss in warm.history_["gaussian"]["validation"]]
        warm.fit(self.X)
        assert warm.history_["gaussian"]["validation"][0][1] < losses[0] - 0.1
        assert warm.history_["gaussian"]["validation"][0][1] < min(losses) + 1e-3
        with pytest.raises(ValueError, match="warm_start"):
            warm.set_params(hidden_layer_sizes=(8,)).fit(self.X)


@pytest.mark.parametrize("solver", [*STEPS, "adaptive"])
def test_every_solver_draws_a_gaussian(solver):
    """An untrained network leaves the base, so that draws have known moments."""
    model = small(solver=solver, n_steps=60).fit(rows())
    model.denoiser_.network = new_network(model, model._encoder, torch.Generator()).double()
    draws = model.sample(3000)
    error = np.abs(draws.mean(0) - MEAN) / np.sqrt(np.diag(COVARIANCE))
    assert error.max() < 0.13
    correlation = np.corrcoef(draws.T) - np.corrcoef(rows().T)
    assert np.abs(correlation).max() < 0.1
    assert np.abs(draws.var(0) / np.diag(COVARIANCE) - 1).max() < 0.3


def test_score_matching_loss_differs_between_models_as_their_bounds_do():
    """The part that depends on the data alone cancels: J_DSM - J_DSM' = KL - KL'."""
    X, T = rows(3000), rows(500, seed=1)
    model, shifted = small().fit(X), small().fit(X)
    shifted.denoiser_.base.origin += 0.5
    value, error = model.score_matching_loss(T, return_std=True)
    difference = shifted.score_matching_loss(T) - value
    bounds = shifted.nll_bound(T).mean() - model.nll_bound(T).mean()
    assert difference == pytest.approx(bounds, abs=1e-6)
    # Between Gaussians of one covariance the divergence is that of the shift.
    C = model.denoiser_.base.covariances()[0].numpy()
    shift = np.full(3, 0.5)
    assert difference == pytest.approx(0.5 * shift @ np.linalg.solve(C, shift), abs=0.25)
    scaled = small().fit(X * 100)
    assert scaled.score_matching_loss(T * 100) == pytest.approx(value, abs=1e-6 + 5 * error)


class SmallConvolution(torch.nn.Module):
    """Rows of 64 pixels as images of shape (n, 1, 8, 8) and back."""

    def __init__(self, n_features, generator):
        super().__init__()
        shapes = [(3, 8), (8, 1)]
        self.weights = torch.nn.ParameterList(
            0.1 * torch.randn(b, a, 3, 3, generator=generator) for a, b in shapes
        )
        torch.nn.init.zeros_(self.weights[-1])

    def forward(self, x, log_s, base_noise, condition=None):
        level = log_s[:, :, None, None].expand(-1, 1, 8, 8)
        images = [x.view(-1, 1, 8, 8), base_noise.view(-1, 1, 8, 8), level]
        hidden = torch.nn.functional.conv2d(torch.cat(images, 1), self.weights[0], padding=1)
        hidden = torch.nn.functional.silu(hidden)
        return torch.nn.functional.conv2d(hidden, self.weights[1], padding=1).flatten(1)


def test_a_convolution_as_network():
    images = load_digits().images[:300]  # (n, 8, 8)
    X = images.reshape(300, 64) + np.random.default_rng(0).random((300, 64))
    model = small(network=SmallConvolution, max_iter=5, n_steps=6, dequantize=False).fit(X)
    model.partial_fit(X)
    assert model.base_ == "gaussian + network"
    drawn = model.sample(4).reshape(4, 1, 8, 8)
    assert np.isfinite(drawn).all()
    assert np.isfinite(model.nll_bound(X[:4])).all()


class TestImpute:
    """Draws of any columns against the conditional of a mixture in closed form."""

    weights = np.array([0.4, 0.6])
    means = np.array([[-2.0, 0.0, 1.0], [2.0, 1.0, -1.0]])
    covariances = np.array([COVARIANCE, np.diag([0.5, 1.0, 0.3])])

    def draws(self, n, seed=0):
        rng = np.random.default_rng(seed)
        component = rng.choice(2, n, p=self.weights)
        sides = [
            rng.multivariate_normal(m, c, n)
            for m, c in zip(self.means, self.covariances, strict=True)
        ]
        return np.where(component[:, None] == 0, *sides)

    def distribution(self, row, column):
        """Distribution function of one missing column given all others, in closed form."""
        rest = [j for j in range(3) if j != column and not np.isnan(row[j])]
        weight, parts = [], []
        for w, m, c in zip(self.weights, self.means, self.covariances, strict=True):
            inner = c[np.ix_(rest, rest)]
            weight.append(w * multivariate_normal(m[rest], inner).pdf(row[rest]) if rest else w)
            gain = np.linalg.solve(inner, c[rest, column]) if rest else np.zeros(0)
            mean = m[column] + gain @ (row[rest] - m[rest])
            parts.append((mean, math.sqrt(c[column, column] - gain @ c[rest, column])))
        weight = np.array(weight) / sum(weight)
        return lambda x: sum(w * norm(*p).cdf(x) for w, p in zip(weight, parts, strict=True))

    @pytest.mark.parametrize("network", [False, True])
    @pytest.mark.parametrize("missing", [(0,), (1, 2), (0, 1, 2)], ids=str)
    def test_draws_follow_the_conditional(self, missing, network):
        model = self.model()
        if network:
            model.denoiser_.network = new_network(model, model._encoder, torch.Generator()).double()
        row = np.array([0.3, 0.5, 0.2])
        row[list(missing)] = np.nan
        n = 2000 if not network else 250
        draws = model.impute(row[None], n_draws=n)[0]
        for column in missing:
            p = np.sort(self.distribution(row, column)(draws[:, column]))
            distance = np.abs(p - (np.arange(n) + 0.5) / n).max()
            assert distance < 0.03 + 2.7 / math.sqrt(n)

    def model(self):
        if "_fitted" not in type(self).__dict__:
            settings = {"base": "mixture", "marginals": None}
            type(self)._fitted = small(**settings).fit(self.draws(2500))
        return copy.deepcopy(self._fitted)

    def test_rows_do_not_see_each_other(self):
        X = self.draws(40, seed=3)
        X[np.random.default_rng(0).random(X.shape) < 0.4] = np.nan
        model = self.model()
        together = model.impute(X, 3, random_state=1)
        order = np.random.default_rng(1).permutation(40)
        np.testing.assert_allclose(model.impute(X[order], 3, random_state=1), together[order])
        known = ~np.isnan(X)
        np.testing.assert_array_equal(together.transpose(1, 0, 2)[:, known], [X[known]] * 3)


@pytest.mark.parametrize("kind", ["constant", "survey"])
def test_copies_that_weights_make_stay_on_one_side(kind):
    """Rounded columns are spread by noise, in which copies of a row differ and yet are one row."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(600, 1))
    X = np.hstack([np.round(first, 1), np.round(4 * first + rng.normal(size=(600, 1))), first**2])
    X[:, 2] += 0.3 * rng.normal(size=600)
    weight = np.full(400, 0.5) if kind == "constant" else rng.uniform(0.5, 1.5, 400)
    plain = ScoreSDE(max_iter=0, random_state=0).fit(X[:400])
    weighted = ScoreSDE(max_iter=0, random_state=0).fit(X[:400], sample_weight=weight)
    assert abs(weighted.score(X[400:]) - plain.score(X[400:])) < 0.3
