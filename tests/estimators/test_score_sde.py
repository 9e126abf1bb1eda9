"""ScoreSDE: exact where the answer is known, honest where it must refuse."""

import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffusion import ScoreSDE
from skdiffusion.diffusion import VPSDE, likelihood
from skdiffusion.diffusion.sde import SDES
from skdiffusion.estimators.density._fitting import new_network
from skdiffusion.estimators.density._gaps import log_ratios, log_weights


def small(**kwargs):
    """A model that trains in a fraction of a second."""
    settings = {
        "base": "gaussian",
        "marginals": None,
        "hidden_layer_sizes": (16,),
        "max_iter": 30,
        "random_state": 0,
    }
    return ScoreSDE(**(settings | kwargs))


def correlated(n=2000, seed=0):
    """Gaussian rows of mean (10, -3) and correlation 0.8."""
    root = np.array([[2.0, 0.0], [0.4, 0.3]])
    return np.random.default_rng(seed).normal(size=(n, 2)) @ root.T + [10.0, -3.0]


def log_density_of_correlated(X):
    root = np.array([[2.0, 0.0], [0.4, 0.3]])
    white = np.linalg.solve(root, (X - [10.0, -3.0]).T)
    return -0.5 * (white**2).sum(0) - math.log(2 * math.pi) - math.log(0.6)


@pytest.fixture(scope="module")
def moons():
    return make_moons(600, noise=0.1, random_state=0)[0]


@pytest.fixture(scope="module")
def trained(moons):
    """A model with a network that moved away from its base."""
    return small(
        base="gaussian", hidden_layer_sizes=(64, 64), max_iter=400, early_stopping=False
    ).fit(moons)


def test_network_improves_on_its_base(trained, moons):
    assert trained.base_ == "gaussian + network"
    alone = small(max_iter=0).fit(moons)
    fresh = make_moons(500, noise=0.1, random_state=1)[0]
    assert trained.score(fresh) > alone.score(fresh) + 0.3


def test_scores_are_those_of_the_ode_with_the_exact_trace(trained, moons):
    """The whole density in many fine steps, none of it in closed form, within a hundredth."""
    model, rows = trained.model_, torch.as_tensor(trained.coordinates_.forward(moons[:100])[0])

    def divergence(z, s):
        (denoised, trace), (residual, change) = model.denoiser.shares(z, s)
        return denoised + residual, trace + change

    levels = {"s_min": model.s_min, "s_max": model.s_max, "n_steps": 200}
    exact, _ = likelihood.log_density(divergence, rows, prior=model.prior, **levels)
    wrong = model.log_density(rows) - exact
    assert wrong.abs().max() < 0.01
    assert wrong.abs().mean() < 0.002


def test_base_alone_is_the_gaussian_in_the_units_of_the_user():
    X = correlated(20000)
    model = small(max_iter=0).fit(X)
    T = correlated(200, seed=1)
    assert model.base_ == "gaussian"
    np.testing.assert_allclose(model.score_samples(T), log_density_of_correlated(T), atol=0.1)
    assert model.score(T) == pytest.approx(log_density_of_correlated(T).mean(), abs=0.02)


def test_mixture_base_is_scikit_learns_mixture():
    X = make_moons(400, noise=0.1, random_state=0)[0]
    model = small(base="mixture", max_iter=0).fit(X)
    theirs = GaussianMixture(1).fit((X - model.mean_) / model.scale_)
    density = model.denoiser_.base
    theirs.weights_ = density.arrays()["weights"].numpy()
    theirs.means_ = density.arrays()["means"].numpy()
    covariances = density.covariances().numpy()
    theirs.precisions_cholesky_ = np.stack(
        [np.linalg.cholesky(np.linalg.inv(c)) for c in covariances]
    )
    expected = theirs.score_samples((X - model.mean_) / model.scale_)
    jacobian = np.log(model.scale_).sum()
    np.testing.assert_allclose(model.score_samples(X), expected - jacobian, atol=1e-4)


def test_untrained_network_equals_the_base_through_the_ode():
    """The network starts at zero, so that the ratio of model and base must be one."""
    X = correlated(500)
    model = small(base="mixture", max_iter=0).fit(X)
    exact = model.score_samples(X)
    model.denoiser_.network = new_network(model, model._encoder, torch.Generator()).double()
    np.testing.assert_allclose(model.score_samples(X), exact, atol=1e-5)
    assert model.score(X) == pytest.approx(exact.mean(), abs=1e-3)


@pytest.mark.parametrize("base", ["gaussian", None])
@pytest.mark.parametrize("condition", [None, "value"])
def test_score_is_the_likelihood_along_the_ode(base, condition, moons):
    """The ratio to the base in forty steps against the density itself in two hundred."""
    size = moons[:, :1] ** 2
    model = small(
        base=base, condition=condition, max_iter=200, hidden_layer_sizes=(32,), learning_rate=1e-2
    ).fit(moons, size)
    assert model.denoiser_.network is not None
    x = model._rows(moons[:100])[0]
    given = None if condition is None else model._encode(size[:100], 100)
    density = model.model_.given(given)

    def divergence(z, s):
        own = None if given is None else given[: len(z)]
        base, network = model.denoiser_.shares(z, s, own)
        return base[0] + network[0], base[1] + network[1]

    direct, _ = likelihood.log_density(
        divergence,
        x,
        prior=density.terminal,
        s_min=density.s_min,
        s_max=density.s_max,
        n_steps=200,
    )
    error = density.log_density(x) - direct
    assert float(error.abs().max()) < 0.02
    assert float(error.mean().abs()) < 2e-3


@pytest.fixture(scope="module")
def on_a_grid(trained):
    """Log-density of the trained model on a grid, and the area of a cell."""
    axes = np.linspace(-2.2, 3.2, 55), np.linspace(-1.6, 2.1, 45)
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    return trained.score_samples(grid), (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])


def test_density_integrates_to_one(on_a_grid):
    log_density, cell = on_a_grid
    assert np.exp(log_density).sum() * cell == pytest.approx(1, abs=0.03)


def test_samples_have_the_entropy_of_the_density(trained, on_a_grid):
    log_density, cell = on_a_grid
    entropy = -(np.exp(log_density) * log_density).sum() * cell
    values = trained.score_samples(trained.sample(1000, random_state=1))
    assert -values.mean() == pytest.approx(entropy, abs=0.04 + 5 * values.std() / 1000**0.5)


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m", "dpmpp_2m_sde", "predictor_corrector"])
def test_samples_have_the_moments_of_the_data(trained, solver, moons):
    draws = clone(trained).set_params(solver=solver)
    draws.__setstate__(trained.__getstate__() | {"solver": solver})
    draws = draws.sample(1000, random_state=1)
    assert np.abs(draws.mean(0) - moons.mean(0)).max() < 0.15
    assert np.abs(draws.std(0) / moons.std(0) - 1).max() < 0.15


def test_draws_are_fixed_by_the_seed_and_leave_global_generators_alone(trained):
    states = lambda: (repr(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: E731, NPY002
    before = states()
    a, b = trained.sample(5, random_state=3), trained.sample(5, random_state=3)
    c = trained.sample(5, random_state=4)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).min() > 0
    assert states() == before


def test_round_trip_of_transform(trained, moons):
    latent = trained.transform(moons)
    np.testing.assert_allclose(trained.inverse_transform(latent), moons, atol=1e-4)
    assert np.abs(latent.mean(0)).max() < 0.25
    assert np.abs(np.cov(latent.T) - np.eye(2)).max() < 0.35


def test_gradient_is_that_of_the_density(trained):
    x, h, level = np.array([[0.3, 0.4]]), 1e-4, 0.3
    X = (x - trained.mean_) / trained.scale_
    ours = trained.log_density_gradient(x, level)
    base = trained.denoiser_(torch.as_tensor(X), level)
    expected = (base.numpy() - X) / level**2 / trained.scale_
    np.testing.assert_allclose(ours, expected)
    alone = small(max_iter=0).fit(correlated())
    x = np.array([[11.0, -3.2]])
    steps = np.eye(2) * h
    numeric = [
        (alone.score_samples(x + e) - alone.score_samples(x - e))[0] / (2 * h) for e in steps
    ]
    np.testing.assert_allclose(alone.log_density_gradient(x)[0], numeric, rtol=1e-3)


def test_bound_of_the_exact_model_is_its_negative_log_likelihood():
    X = correlated(300)
    X[::2] += [8.0, 3.0]
    model = small(base="mixture", max_iter=0).fit(X)
    bound, error = model.nll_bound(X, n_draws=200, return_std=True)
    z = (bound + model.score_samples(X)) / error
    assert abs(z.mean()) < 5 / math.sqrt(300)
    assert 0.75 < z.std() < 1.3
    np.testing.assert_allclose(model.nll_bound(X[50:60], n_draws=200), bound[50:60], rtol=1e-9)


def test_entropy_and_divergence_of_a_gaussian():
    X = correlated(4000)
    exact = 1 + math.log(2 * math.pi) + math.log(0.6)
    model = small(max_iter=0).fit(X)
    T = correlated(3000, seed=2)
    entropy, error = model.entropy(T, return_std=True)
    assert abs(entropy - exact) < 5 * error + 0.02
    bound, error = model.kl_bound(T, exact, return_std=True)
    assert abs(bound) < 5 * error + 0.02


def test_impute_draws_from_the_conditional():
    X = correlated(5000)
    model = small(max_iter=0).fit(X)
    row = np.array([[12.0, np.nan]])
    draws = model.impute(row, n_draws=4000)[0]
    assert (draws[:, 0] == 12.0).all()
    slope = 0.4 * 2.0 / 4.0
    assert draws[:, 1].mean() == pytest.approx(-3 + slope * 2, abs=0.03)
    assert draws[:, 1].std() == pytest.approx(0.3, abs=0.03)


def test_impute_with_a_network_matches_the_conditional_of_its_own_density(trained):
    """Against the density of the model on a grid of the missing value."""
    grid = np.linspace(-1.6, 2.1, 400)
    points = np.c_[np.full(400, 0.5), grid]
    weight = np.exp(trained.score_samples(points))
    weight /= weight.sum()
    draws = trained.impute(np.array([[0.5, np.nan]] * 16), n_draws=20)[:, :, 1]
    distribution = np.cumsum(weight)
    uniform = np.sort(np.interp(draws.ravel(), grid, distribution))
    distance = np.abs(uniform - (np.arange(320) + 0.5) / 320).max()
    assert distance < 0.15
    base = small(max_iter=0).fit(make_moons(600, noise=0.1, random_state=0)[0])
    wrong = base.impute(np.array([[0.5, np.nan]] * 16), n_draws=20)[:, :, 1]
    uniform = np.sort(np.interp(wrong.ravel(), grid, distribution))
    assert np.abs(uniform - (np.arange(320) + 0.5) / 320).max() > 1.5 * distance


@pytest.mark.parametrize("base", ["gaussian", None])
def test_weights_of_candidates_are_the_ratio_of_the_densities(base, moons):
    """Twelve steps for the weights against forty for the density, constants of a row apart."""
    model = small(base=base, max_iter=200, hidden_layer_sizes=(32,)).fit(moons)
    x, proposal = model._rows(moons[:200])[0], model._proposal
    weights = log_ratios(model.model_, proposal, x[None])[0]
    exact = model.model_.log_density(x) - (proposal or model.model_.base).log_density(x)
    assert float(exact.std()) > 0.1
    error = weights - exact
    assert float((error - error.mean()).abs().median()) < 0.05


def test_a_part_of_the_candidates_is_weighed_where_it_is_enough(trained):
    row = torch.zeros(2, 50, 2, dtype=torch.float64)
    row[1] = 3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    easy, hard = log_weights(trained.model_, trained._proposal, row)
    assert easy.isfinite().sum() == 20
    assert hard.isfinite().all()


def test_impute_of_a_row_does_not_depend_on_the_others(trained):
    rows = np.array([[0.5, np.nan], [np.nan, 0.2], [0.1, 0.9], [np.nan, np.nan]])
    together = trained.impute(rows, 3)
    assert together.shape == (4, 3, 2)
    assert np.isfinite(together).all()
    np.testing.assert_array_equal(together[2], rows[[2, 2, 2]])
    np.testing.assert_allclose(together[1:2], trained.impute(rows[1:2], 3))
    assert trained.impute(rows).shape == rows.shape


def test_auto_keeps_the_candidate_with_the_best_held_out_score(moons):
    few = ScoreSDE(max_iter=20, random_state=0).fit(moons[:200])
    assert set(few.held_out_score_) == {"unit", "mixture", "kde"}
    assert few.base_ == max(few.held_out_score_, key=few.held_out_score_.get)
    assert few.n_iter_ == 0
    rows = make_moons(1000, noise=0.1, random_state=0)[0]
    many = ScoreSDE(hidden_layer_sizes=(16,), max_iter=20, random_state=0).fit(rows)
    assert many.n_iter_ > 0
    bare = many.base_.split()[0]
    assert f"{bare} + network" in many.held_out_score_
    assert many.held_out_score_[many.base_] >= many.held_out_score_[bare]


@pytest.mark.parametrize("base", ["kde", None])
def test_other_bases(moons, base):
    model = small(base=base).fit(moons)
    assert np.isfinite(model.score_samples(moons)).all()
    assert np.isfinite(model.sample(10)).all()
    assert np.isfinite(model.impute([[np.nan, 0.1]], 5)).all()


@pytest.mark.parametrize("sde", [*(family() for family in SDES.values()), VPSDE(beta_max=10.0)])
def test_every_process_trains(sde, moons):
    model = small(noise_law=sde, max_iter=10).fit(moons)
    assert np.isfinite(model.score(moons))


def test_levels_end_with_the_process(moons):
    assert small(noise_law=SDES["ve"](), max_iter=0).fit(moons).model_.s_max == pytest.approx(50)
    assert small(max_iter=0).fit(moons).model_.s_max == 80.0


@pytest.mark.parametrize(
    ("gone", "instead"),
    [({"sde": "vp"}, "noise_law"), ({"tol": 0.1}, "0.001"), ({"ema_decay": 0.9}, "0.995")],
)
def test_parameters_that_are_gone_say_what_to_use(gone, instead):
    with pytest.raises(TypeError, match=f"no parameter {next(iter(gone))}: .*{instead}"):
        ScoreSDE(**gone)


def test_likelihood_weighting_trains(moons):
    model = small(noise_law="loguniform").fit(moons)
    assert np.isfinite(model.score(moons))


def test_pickles_hold_numpy_and_give_the_same_answers(trained, moons):
    again = pickle.loads(pickle.dumps(trained))
    np.testing.assert_array_equal(
        again.score_samples(moons[:20]), trained.score_samples(moons[:20])
    )
    state = trained.__getstate__()
    assert not any(isinstance(value, torch.Tensor | torch.nn.Module) for value in state.values())


def test_same_seed_same_model_and_clone():
    X = correlated(200)
    a = small().fit(X)
    np.testing.assert_array_equal(a.score_samples(X), clone(a).fit(X).score_samples(X))


def test_grid_search_and_pipeline(moons):
    grid = {"base": ["gaussian", "mixture"], "noise_law": ["lognormal", "loguniform"]}
    search = GridSearchCV(small(max_iter=0), grid, cv=2).fit(moons)
    assert search.best_params_["base"] == "mixture"
    pipeline = make_pipeline(StandardScaler(), small()).fit(moons)
    assert pipeline.transform(moons).shape == moons.shape


def test_frames_keep_their_names_and_set_output(moons):
    frame = pd.DataFrame(moons, columns=["a", "b"])
    model = small(max_iter=0).fit(frame).set_output(transform="pandas")
    assert list(model.transform(frame).columns) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(frame[["b", "a"]])


def test_wide_rows_use_the_estimated_trace():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 40)) @ rng.normal(size=(40, 40))
    model = small(max_iter=0).fit(X)
    exact = model.score_samples(X[:4])
    model.denoiser_.network = new_network(model, model._encoder, torch.Generator()).double()
    estimated = model.score_samples(X[:4])
    np.testing.assert_allclose(estimated[:2], model.score_samples(X[:2]), rtol=1e-9)
    np.testing.assert_allclose(estimated, exact, atol=0.05)


@pytest.mark.parametrize(
    ("shift", "scale"), [(0.0, 1e30), (0.0, 1e-30), (1e9, 1.0)], ids=["huge", "tiny", "offset"]
)
def test_units_do_not_matter(shift, scale):
    X = correlated(300)
    expected = small().fit(X).score(X) - 2 * math.log(scale)
    assert small().fit(X * scale + shift).score(X * scale + shift) == pytest.approx(
        expected, abs=1e-3
    )


class TestRefusals:
    X = correlated(60)

    def test_missing_values_name_the_remedy(self):
        X = self.X.copy()
        X[3, 1] = np.nan
        with pytest.raises(ValueError, match=r"contains NaN.*[Ii]mpute"):
            small().fit(X)

    def test_infinity(self):
        X = self.X.copy()
        X[3, 1] = np.inf
        with pytest.raises(ValueError, match="infinity"):
            small().fit(X)

    def test_constant_column_is_named(self):
        frame = pd.DataFrame(self.X, columns=["a", "b"]).assign(c=1.0)
        with pytest.raises(ValueError, match=r"'c'.*constant.*drop"):
            small().fit(frame)

    def test_one_sample(self):
        with pytest.raises(ValueError, match="minimum of 2"):
            small().fit(self.X[:1])

    def test_discrete_columns_warn(self):
        X = np.c_[self.X[:, 0], np.arange(60) % 5]
        with pytest.warns(UserWarning, match=r"\[1\].*dequantise"):
            small(max_iter=0, dequantize=False).fit(X)

    def test_outlier_warns_and_stays_finite(self):
        X = self.X.copy()
        X[0, 0] = 1e300
        with pytest.warns(UserWarning, match="far outside"):
            model = small().fit(X)
        assert np.isfinite(model.score_samples(X)).all()
        assert np.isfinite(model.sample(20)).all()

    def test_unfitted(self):
        for method in ("score_samples", "nll_bound", "transform", "impute", "entropy"):
            with pytest.raises(NotFittedError):
                getattr(small(), method)(self.X)
        with pytest.raises(NotFittedError):
            small().sample()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"noise_law": "vpx"},
            {"base": "spline"},
            {"n_steps": 0},
            {"max_iter": -1},
            {"learning_rate": 0.0},
            {"validation_fraction": 1.5},
            {"random_state": "a"},
            {"device": "cuda:9"},
            {"solver": "rk99"},
        ],
        ids=str,
    )
    def test_wrong_parameters(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            small(**wrong).fit(self.X)

    def test_wrong_call_arguments(self):
        model = small(max_iter=0).fit(self.X)
        with pytest.raises(ValueError, match="even"):
            model.nll_bound(self.X, n_draws=3)
        with pytest.raises(ValueError, match="n_samples"):
            model.sample(0)
        with pytest.raises(ValueError, match="n_draws"):
            model.impute(self.X, n_draws=0)
        with pytest.raises(ValueError, match="noise_level"):
            model.log_density_gradient(self.X, 0.0)
        with pytest.raises(ValueError, match="features"):
            model.score_samples(self.X[:, :1])

    def test_exploding_training_stops_with_advice(self):
        with pytest.raises(FloatingPointError, match="learning_rate"):
            small(learning_rate=1e30, max_iter=50, base=None).fit(self.X)

    def test_caller_keeps_its_array(self):
        X = self.X.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = small().fit(X)
        model.impute(X)
        np.testing.assert_array_equal(X, self.X)


def test_impute_of_a_bare_base_draws_from_that_base(moons):
    """Without a network the draws are the base's own, also where that base is N(0, I)."""
    model = small(base=None, max_iter=0).fit(moons)
    assert model.base_ == "unit"
    draws = model.impute([[0.0, np.nan]], 4000)[0, :, 1]
    assert draws.mean() == pytest.approx(model.mean_[1], abs=0.05)
    assert draws.std() == pytest.approx(model.scale_[1], rel=0.07)
    assert abs(((draws - draws.mean()) ** 3).mean() / draws.std() ** 3) < 0.2
