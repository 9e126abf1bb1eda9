"""Scorers of densities and samplers, alone and behind other steps."""

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from skdiffusion import ScoreSDE
from skdiffusion.metrics import (
    get_scorer,
    get_scorer_names,
    log_likelihood_scorer,
    neg_nll_bound_scorer,
    neg_sliced_wasserstein_scorer,
    sliced_wasserstein,
)


@pytest.fixture(scope="module")
def rows():
    """Correlated columns of different units."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3)) * [1, 10, 1000] + [0, 5, 1e6]


def test_the_log_likelihood_is_the_mean_over_rows(rows):
    mixture = GaussianMixture().fit(rows)
    assert log_likelihood_scorer(mixture, rows) == pytest.approx(mixture.score(rows), rel=1e-12)
    kernel = KernelDensity(bandwidth=50).fit(rows)
    expected = kernel.score(rows) / len(rows)
    assert log_likelihood_scorer(kernel, rows) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "head",
    [
        StandardScaler(),
        MinMaxScaler(),
        RobustScaler(),
        PCA(whiten=True),
        make_pipeline(StandardScaler(), PCA()),
    ],
    ids=["standard", "minmax", "robust", "whitening", "two steps"],
)
def test_linear_steps_ahead_change_nothing(head, rows):
    """A full-covariance Gaussian fitted after a linear map is the Gaussian fitted before it."""
    # No floor under the variances, which would depend on the units.
    alone = GaussianMixture(reg_covar=0).fit(rows)
    behind = make_pipeline(head, GaussianMixture(reg_covar=0)).fit(rows)
    found = log_likelihood_scorer(behind, rows)
    assert found == pytest.approx(log_likelihood_scorer(alone, rows), abs=1e-6)
    assert behind.score(rows) != pytest.approx(found, abs=1)


def test_a_logarithm_ahead_gives_the_log_normal_density():
    X = np.exp(np.random.default_rng(1).normal(0.3, 0.7, size=(2000, 1)))
    model = make_pipeline(FunctionTransformer(np.log), GaussianMixture(reg_covar=0)).fit(X)
    z = np.log(X)
    expected = (norm.logpdf(z, z.mean(), z.std()) - z).mean()
    assert log_likelihood_scorer(model, X) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "head", [PowerTransformer(), QuantileTransformer(n_quantiles=20)], ids=["power", "quantile"]
)
def test_a_density_behind_a_nonlinear_step_integrates_to_one(head):
    X = np.random.default_rng(2).gamma(2.0, size=(500, 1))
    # 1 + z^2 / 2 keeps the latent density from vanishing where the quantile map ends.
    model = make_pipeline(head, KernelDensity(bandwidth=0.1)).fit(X)
    grid = np.linspace(X.min(), X.max(), 2001)[1:-1, None]
    density = [np.exp(log_likelihood_scorer(model, grid[i : i + 1])) for i in range(0, 1999, 10)]
    inside = trapezoid(density, grid[::10, 0])
    z = model[0].transform(np.array([[X.min()], [X.max()]]))
    fine = np.linspace(z[0], z[1], 2001)
    expected = trapezoid(np.exp(model[-1].score_samples(fine)), fine[:, 0])
    assert inside == pytest.approx(expected, abs=0.02)


@pytest.fixture(scope="module")
def models(rows):
    """A diffusion model alone and behind a scaler, fitted on a frame."""
    frame = pd.DataFrame(rows, columns=list("abc"))
    model = ScoreSDE(base="gaussian", max_iter=0, random_state=0)
    scaled = make_pipeline(StandardScaler(), ScoreSDE(base="gaussian", max_iter=0, random_state=0))
    return model.fit(frame), scaled.fit(frame), frame


def test_the_likelihood_of_a_diffusion_model_is_in_the_units_of_the_data(models):
    alone, scaled, X = models
    assert log_likelihood_scorer(alone, X) == pytest.approx(alone.score(X), rel=1e-12)
    assert log_likelihood_scorer(scaled, X) == pytest.approx(alone.score(X), abs=0.01)


def test_the_bound_of_a_diffusion_model_is_in_the_units_of_the_data(models):
    alone, scaled, X = models
    bound, error = alone.nll_bound(X, return_std=True)
    assert neg_nll_bound_scorer(alone, X) == pytest.approx(-bound.mean(), rel=1e-12)
    tolerance = 5 * np.hypot(*2 * [np.sqrt(np.square(error).sum()) / len(X)]) + 0.01
    assert neg_nll_bound_scorer(scaled, X) == pytest.approx(-bound.mean(), abs=tolerance)


def test_the_distance_of_a_sampler_is_in_the_units_of_the_data(models):
    alone, scaled, X = models
    drawn = alone.sample(len(X), random_state=0)
    assert neg_sliced_wasserstein_scorer(alone, X) == -sliced_wasserstein(X, drawn)
    drawn = scaled[0].inverse_transform(scaled[-1].sample(len(X), random_state=0))
    assert neg_sliced_wasserstein_scorer(scaled, X) == -sliced_wasserstein(X, drawn)
    mixture = GaussianMixture(random_state=3).fit(X)  # its sample returns labels, too
    expected = -sliced_wasserstein(X, mixture.sample(len(X))[0])
    assert neg_sliced_wasserstein_scorer(mixture, X) == expected


def test_likelihood_chooses_the_right_number_of_components():
    rng = np.random.default_rng(3)
    X = rng.permutation(np.concatenate([rng.normal(m, 0.3, size=(100, 2)) for m in (-3, 0, 3)]))
    pipe = make_pipeline(StandardScaler(), GaussianMixture(random_state=0))
    grid = {"gaussianmixture__n_components": [1, 3, 30], "standardscaler__with_std": [True, False]}
    search = GridSearchCV(pipe, grid, scoring=log_likelihood_scorer, cv=3).fit(X)
    assert search.best_params_["gaussianmixture__n_components"] == 3
    # The scaler is no longer an advantage of its own.
    pairs = search.cv_results_["mean_test_score"].reshape(3, 2)
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], atol=0.3)


@pytest.mark.parametrize("name", get_scorer_names())
def test_scorers_have_names_and_are_handed_out_as_copies(name):
    first, second = get_scorer(name), get_scorer(name)
    assert callable(first)
    if not name.startswith(("log_likelihood", "neg_nll", "neg_sliced")):
        assert first is not second


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"'neg_crsp' is no scorer.*neg_crps"):
        get_scorer("neg_crsp")
    with pytest.raises(TypeError, match="for several scorers take a dict"):
        get_scorer(["neg_crps", "neg_mae"])
    assert get_scorer(log_likelihood_scorer) is log_likelihood_scorer


def test_a_scorer_by_name_works_in_cross_validation(rows):
    by_name = cross_val_score(GaussianMixture(), rows, scoring=get_scorer("log_likelihood"), cv=3)
    np.testing.assert_allclose(by_name, cross_val_score(GaussianMixture(), rows, cv=3))


@pytest.mark.parametrize(
    ("scorer", "estimator", "error", "message"),
    [
        (log_likelihood_scorer, SimpleImputer(), TypeError, "SimpleImputer has no score_samples"),
        (neg_nll_bound_scorer, GaussianMixture(), TypeError, "GaussianMixture has no nll_bound"),
        (neg_sliced_wasserstein_scorer, SimpleImputer(), TypeError, "SimpleImputer has no sample"),
        (
            log_likelihood_scorer,
            make_pipeline(PCA(n_components=2), GaussianMixture()),
            ValueError,
            "turn 3 columns into 2",
        ),
        (
            log_likelihood_scorer,
            make_pipeline(Normalizer(), GaussianMixture()),
            ValueError,
            "onto fewer dimensions",
        ),
        (
            neg_sliced_wasserstein_scorer,
            make_pipeline(Normalizer(), GaussianMixture()),
            ValueError,
            "Normalizer ahead in the pipeline has no inverse_transform",
        ),
    ],
)
def test_wrong_use_is_explained(scorer, estimator, error, message, rows):
    with pytest.raises(error, match=message):
        scorer(estimator.fit(rows), rows)
