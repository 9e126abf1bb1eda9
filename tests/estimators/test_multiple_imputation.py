"""Rubin's rules against published numbers and by simulation; the meta-estimator that uses them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffusion import CSDIImputer, MultipleImputation, ScoreSDE
from skdiffusion.estimators import conformalize, pool_rubin

CHAINED = IterativeImputer(sample_posterior=True, max_iter=2)
GAUSSIAN = CSDIImputer(method="gaussian")


def with_moments(m, mean, variance):
    """Numbers with the given mean and sample variance."""
    x = np.arange(m, dtype=float)
    return mean + (x - x.mean()) / x.std(ddof=1) * np.sqrt(variance)


def test_published_example_of_ten_imputations():
    """Amos 21 user's guide, example 31: U 0.0233, B 0.0085, T 0.0326, s.e. 0.1807, 109 df."""
    pooled = pool_rubin(with_moments(10, 1.172, 0.0085), np.full(10, 0.0233))
    assert pooled.total == pytest.approx(0.0326, abs=1e-4)
    assert pooled.standard_error == pytest.approx(0.1807, abs=1e-4)
    assert pooled.estimate / pooled.standard_error == pytest.approx(6.49, abs=0.01)
    assert int(pooled.df) == 109


def test_five_imputations_with_a_tenth_more_variance_have_484_degrees_of_freedom():
    """The number that the manual of SAS PROC MIANALYZE warns with."""
    pooled = pool_rubin(with_moments(5, 0, 0.1 / 1.2), np.ones(5))
    assert pooled.relative_increase == pytest.approx(0.1)
    assert pooled.df == pytest.approx(484)
    assert pooled.fraction_missing == pytest.approx((0.1 + 2 / 487) / 1.1)


def test_small_sample_degrees_of_freedom_in_closed_form():
    pooled = pool_rubin(with_moments(5, 0, 0.1 / 1.2), np.ones(5), complete_df=30)
    observed = 30 * 31 / 33 / 1.1
    assert pooled.df == pytest.approx(1 / (1 / 484 + 1 / observed))
    half = stats.t.ppf(0.975, pooled.df) * np.sqrt(1.1)
    assert (pooled.low, pooled.high) == pytest.approx((-half, half))


def test_nothing_missing_is_the_complete_analysis():
    pooled = pool_rubin([[1.0, 0.0]] * 3, [[4.0, 0.0]] * 3, complete_df=10)
    np.testing.assert_allclose(pooled.total, [4, 0])
    np.testing.assert_array_equal(pooled.fraction_missing, 0)
    assert np.isinf(pool_rubin([1.0, 1.0], [4.0, 4.0]).df)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0]), "at least 2"),
        (([1.0, 2.0], [1.0]), "one shape"),
        (([1.0, 2.0], [1.0, -1.0]), "not negative"),
    ],
)
def test_wrong_estimates_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pool_rubin(*arguments)


def mean_of_half(n_sets, n, m, rng):
    """Mean of n normals, half of them lost: proper Bayesian copies, and the mean filled in."""
    seen = rng.normal(size=(n_sets, n // 2))
    k = seen.shape[1]
    average, variance = seen.mean(1), seen.var(1, ddof=1)
    sigma = np.sqrt((k - 1) * variance / rng.chisquare(k - 1, size=(m, n_sets)))
    centre = average + sigma / np.sqrt(k) * rng.normal(size=(m, n_sets))
    lost = centre[..., None] + sigma[..., None] * rng.normal(size=(m, n_sets, n - k))
    copies = np.concatenate([np.broadcast_to(seen, (m, n_sets, k)), lost], axis=-1)
    filled = np.concatenate([seen, np.repeat(average[:, None], n - k, 1)], axis=-1)
    return copies, filled


def test_pooled_intervals_cover_and_those_of_mean_imputation_do_not():
    n_sets, n = 8000, 40
    copies, filled = mean_of_half(n_sets, n, 20, np.random.default_rng(0))
    pooled = pool_rubin(copies.mean(-1), copies.var(-1, ddof=1) / n, complete_df=n - 1)
    # Five binomial standard errors are 0.012 here.
    assert 0.93 < np.mean((pooled.low < 0) & (pooled.high > 0)) < 0.97
    half = stats.t.ppf(0.975, n - 1) * filled.std(-1, ddof=1) / np.sqrt(n)
    assert np.mean(np.abs(filled.mean(-1)) < half) < 0.85


class Columnwise:
    """Draws missing cells from the normal distribution fitted to their column, and counts fits."""

    fits = []

    def fit(self, X):
        Columnwise.fits.append(X)
        self.moments = np.nanmean(X, 0), np.nanstd(X, 0)
        return self

    def transform(self, X):
        return self.sample(X, 1)[:, 0]

    def sample(self, X, n_draws, random_state=None):
        noise = np.random.default_rng(random_state).normal(size=(len(X), n_draws, X.shape[1]))
        mean, scale = self.moments
        return np.where(np.isnan(X)[:, None], mean + scale * noise, X[:, None])

    def get_params(self, deep=True):
        return {}

    def __sklearn_clone__(self):
        return Columnwise()


def mean_of_column(model, X, y):
    """Mean of the first column with its variance."""
    return [X[:, 0].mean()], [X[:, 0].var(ddof=1) / len(X)]


def coverage_of_a_mean(bootstrap, n_sets=150, n=50, m=5):
    """Share of intervals that hold the mean of a column of which four fifths are missing."""
    rng, inside = np.random.default_rng(2), 0
    for seed in range(n_sets):
        X = rng.normal(size=(n, 1))
        X[n // 5 :] = np.nan
        model = MultipleImputation(
            Columnwise(),
            LinearRegression(),
            m,
            estimates=mean_of_column,
            bootstrap=bootstrap,
            random_state=seed,
        )
        pooled = model.fit(X, rng.normal(size=n)).pooled_
        inside += int(pooled.low[0] < 0 < pooled.high[0])
    return inside / n_sets


def test_resampled_imputers_give_intervals_of_their_level_and_a_single_one_does_not():
    """The single imputer leaves out more than half of the variance; five binomial errors."""
    assert coverage_of_a_mean(bootstrap=True) == pytest.approx(0.95, abs=0.09)
    assert coverage_of_a_mean(bootstrap=False) < 0.84


def test_every_copy_has_an_imputer_of_its_own_rows(data):
    _, gaps, y = data
    gaps = gaps[:50].copy()
    gaps[1:, 0] = np.nan  # one known value, which every resample must keep
    for bootstrap, n_fits in ((True, 7), (False, 1)):
        Columnwise.fits = []
        model = MultipleImputation(
            Columnwise(), Ridge(), 7, bootstrap=bootstrap, random_state=0
        ).fit(gaps, y[:50])
        assert len(Columnwise.fits) == len(model.imputers_) == n_fits
        assert all(np.isfinite(fit[:, 0]).any() for fit in Columnwise.fits)
    np.testing.assert_array_equal(Columnwise.fits[0][:, :2], gaps)


@pytest.mark.slow
@pytest.mark.parametrize("imputer", [CHAINED, GAUSSIAN], ids=["chained", "csdi"])
def test_pooled_errors_have_the_size_they_are_given(imputer):
    """Errors over standard errors follow Student's t; as normal scores their mean square is 1."""
    truth, scores = [0, 1, -1], []
    for seed in range(160):
        rng = np.random.default_rng(seed)
        X = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=300)
        y = X @ truth[1:] + rng.normal(size=300)
        X[rng.uniform(size=X.shape) < 0.3] = np.nan
        model = MultipleImputation(imputer, LinearRegression(), 5, random_state=seed)
        pooled = model.fit(X, y).pooled_
        t = (pooled.estimate - truth) / pooled.standard_error
        scores.append(stats.norm.ppf(stats.t.cdf(t, pooled.df)))
    # The spread of the mean square of one table is about 1, so that 0.4 is five standard errors.
    # Without the variance between copies the mean is 1.6 (chained) and more.
    assert np.mean(np.square(scores)) == pytest.approx(1, abs=0.4)


@pytest.mark.slow
def test_a_learnt_density_draws_the_copies(data):
    _, gaps, y = data
    density = ScoreSDE(handle_missing="impute", base="gaussian", max_iter=5, early_stopping=False)
    model = MultipleImputation(density, LinearRegression(), 2, random_state=0)
    pooled = model.fit(gaps[:150], y[:150]).pooled_
    assert (pooled.between > 0).all()
    assert (np.abs(pooled.estimate - [2, 1, -1]) < 6 * pooled.standard_error).all()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    X = rng.multivariate_normal(np.zeros(2), [[1, 0.5], [0.5, 1]], size=400)
    y = X @ [1.0, -1.0] + 2 + 0.5 * rng.normal(size=400)
    gaps = np.where(rng.uniform(size=X.shape) < 0.25, np.nan, X)
    return X, gaps, y


@pytest.mark.parametrize("imputer", [CHAINED, GAUSSIAN], ids=["chained", "csdi"])
def test_coefficients_are_not_shrunk_by_filling_in(data, imputer):
    X, gaps, y = data
    model = MultipleImputation(imputer, LinearRegression(), 20, random_state=0).fit(gaps, y)
    pooled = model.pooled_
    assert (np.abs(pooled.estimate - [2, 1, -1]) < 6 * pooled.standard_error).all()
    complete = MultipleImputation(imputer, LinearRegression(), 5, random_state=0).fit(X, y).pooled_
    assert (pooled.standard_error > complete.standard_error).all()
    assert ((pooled.fraction_missing > 0.02) & (pooled.fraction_missing < 0.9)).all()


def test_complete_data_give_ordinary_least_squares(data):
    X, _, y = data
    model = MultipleImputation(GAUSSIAN, LinearRegression(), 3).fit(X, y)
    for column, feature in ((1, 0), (2, 1)):
        # A regression on what the other column leaves, by Frisch, Waugh and Lovell.
        other = np.c_[np.ones(len(X)), X[:, 1 - feature]]
        rest = [v - other @ np.linalg.lstsq(other, v)[0] for v in (X[:, feature], y)]
        fit = stats.linregress(*rest)
        error = fit.stderr * np.sqrt((len(X) - 2) / (len(X) - 3))
        assert model.pooled_.estimate[column] == pytest.approx(fit.slope)
        assert model.pooled_.standard_error[column] == pytest.approx(error)


def test_logistic_variance_is_that_of_a_two_by_two_table():
    """The variance of a log odds ratio is the sum of the inverse counts."""
    X, y = np.repeat([[0.0], [0.0], [1.0], [1.0]], [10, 20, 30, 15], axis=0), [0] * 10 + [1] * 20
    y = np.array([*y, *[0] * 30, *[1] * 15])
    logistic = LogisticRegression(C=np.inf, tol=1e-10)
    pooled = MultipleImputation(CHAINED, logistic, 2).fit(X, y).pooled_
    assert pooled.estimate[1] == pytest.approx(np.log(15 / 30 / (20 / 10)), abs=1e-4)
    assert pooled.total[1] == pytest.approx(1 / 10 + 1 / 20 + 1 / 30 + 1 / 15, rel=1e-4)


def test_probabilities_are_pooled_and_a_seed_fixes_them(data):
    _, gaps, y = data
    labels = np.where(y > 2, "high", "low")
    forest = RandomForestClassifier(5, random_state=0)
    model = MultipleImputation(GAUSSIAN, forest, 3, random_state=0).fit(gaps, labels)
    again = MultipleImputation(GAUSSIAN, forest, 3, random_state=0).fit(gaps, labels)
    probabilities = model.predict_proba(gaps)
    np.testing.assert_array_equal(probabilities, again.predict_proba(gaps))
    np.testing.assert_array_equal(model.predict(gaps), model.classes_[probabilities.argmax(1)])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert model.score(gaps, labels) > 0.8
    assert not hasattr(model, "pooled_")
    with pytest.raises(AttributeError, match=r"Pass estimates=.*LogisticRegression"):
        _ = model.pooled_


def test_own_estimates_are_pooled(data):
    X, _, y = data
    model = MultipleImputation(
        GAUSSIAN, Ridge(), 2, estimates=lambda e, X, y: ([e.coef_[0]], [0.25])
    ).fit(X, y)
    np.testing.assert_allclose(model.pooled_.standard_error, [0.5])


def test_errors_name_the_remedy(data):
    X, _, y = data
    with pytest.raises(ValueError, match="drop these rows"):
        MultipleImputation(GAUSSIAN, Ridge()).fit(X, np.where(y > 3, np.nan, y))
    with pytest.raises(ValueError, match="bootstrap=False"):
        MultipleImputation(CSDIImputer(window_length=4), Ridge()).fit(X, y)
    with pytest.raises(ValueError, match="sample_posterior=True"):
        MultipleImputation(SimpleImputer(), Ridge()).fit(X, y)
    with pytest.raises(ValueError, match=r"Pipeline, which is not supported.*scales the columns"):
        MultipleImputation(make_pipeline(StandardScaler(), GAUSSIAN), Ridge()).fit(X, y)
    with pytest.raises(TypeError, match="class CSDIImputer: pass an instance"):
        MultipleImputation(CSDIImputer, Ridge()).fit(X, y)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(town="Rome")
    with pytest.raises(
        ValueError, match=r"Columns \['town'\] of X are labels, which Ridge\(\) does"
    ):
        MultipleImputation(GAUSSIAN, Ridge()).fit(frame, y)


def test_conformalize_takes_the_imputer_alone(data):
    X = data[0]
    with pytest.raises(ValueError, match="Pipeline, which is not supported"):
        conformalize(make_pipeline(StandardScaler(), GAUSSIAN).fit(X), X)
    with pytest.raises(TypeError, match="pass an instance"):
        conformalize(CSDIImputer, X)


def test_columns_without_a_coefficient_of_their_own_are_named(data):
    X, _, y = data
    frame = pd.DataFrame(X, columns=["a", "b"])
    for more, names in (({"c": 7.1}, r"\['c'\]"), ({"c": 1 - 3 * X[:, 0]}, r"\['a', 'c'\]")):
        with pytest.warns(UserWarning, match=f"Columns {names} of X are constant or follow"):
            MultipleImputation(GAUSSIAN, LinearRegression(), 2).fit(frame.assign(**more), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultipleImputation(GAUSSIAN, LinearRegression(), 2).fit(frame, y)


def test_too_few_samples_to_pool_say_so(data):
    X, _, y = data
    model = MultipleImputation(GAUSSIAN, LinearRegression(), 2, bootstrap=False).fit(X[:3], y[:3])
    with pytest.raises(AttributeError, match="3 samples are no more than the 3 estimates"):
        _ = model.pooled_
    assert not hasattr(MultipleImputation(GAUSSIAN, LinearRegression()), "pooled_")
    assert "MultipleImputation" in model._repr_html_()
