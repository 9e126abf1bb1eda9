"""Scorers of imputers: what is hidden, what is measured, and the estimators they take."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PowerTransformer, StandardScaler

from skdiffusion import CSDIImputer
from skdiffusion.datasets import ampute
from skdiffusion.metrics import (
    crps_loss,
    energy_score,
    get_scorer,
    interval_coverage,
    interval_coverage_90_scorer,
    make_imputation_scorer,
    mean_absolute_error,
    neg_crps_scorer,
    neg_mae_scorer,
    neg_rmse_scorer,
    relative_squared_error,
    root_mean_squared_error,
)


@pytest.fixture
def table():
    """Positive columns that share a factor, a tenth missing."""
    rng = np.random.default_rng(0)
    X = np.exp(rng.normal(size=(150, 1)) * 0.5 + 0.2 * rng.normal(size=(150, 4)))
    X[rng.uniform(size=X.shape) < 0.1] = np.nan
    return X


LOG = FunctionTransformer(np.log, np.exp, feature_names_out="one-to-one", check_inverse=False)


def gaussian(**parameters):
    """An imputer that draws, quick to fit."""
    return CSDIImputer(method="gaussian", random_state=0, **parameters)


class Shifted(TransformerMixin, BaseEstimator):
    """Imputer whose draws are known: the truth plus a number for each draw."""

    def __init__(self, truth, shifts):
        self.truth = truth
        self.shifts = shifts

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def sample(self, X, n_draws, *, random_state=None):
        """Complete copies."""
        self.asked = X, n_draws, random_state
        return np.stack([np.asarray(self.truth) + s for s in self.shifts], axis=1)


@pytest.mark.filterwarnings("ignore:.*no observed value")
def test_the_measures_are_those_of_the_cells_that_ampute_hides(table):
    X, hidden = ampute(table, missing_rate=0.2, random_state=3)
    imputer = gaussian().fit(table)
    draws = imputer.sample(X, n_draws=25, random_state=3)
    losses = ["crps", "mae", "rmse", "rse", "energy_score", "interval_coverage_90"]
    scorer = make_imputation_scorer(losses, missing_rate=0.2, n_draws=25, random_state=3)
    assert scorer(imputer, table) == {
        "neg_crps": -crps_loss(table, draws, mask=hidden),
        "neg_mae": -mean_absolute_error(table, np.median(draws, axis=1), mask=hidden),
        "neg_rmse": -root_mean_squared_error(table, draws.mean(axis=1), mask=hidden),
        "neg_rse": -relative_squared_error(table, draws.mean(axis=1), mask=hidden),
        "neg_energy_score": -energy_score(table, draws, mask=hidden),
        "interval_coverage_90": interval_coverage(table, draws, level=0.9, mask=hidden),
    }


def test_known_draws_give_known_scores(table):
    truth = np.nan_to_num(table)
    imputer = Shifted(truth, [-1.0, 0.0, 2.0] * 10).fit(table)
    scorer = make_imputation_scorer(["mae", "rmse"], n_draws=30)
    scores = scorer(imputer, table)
    assert scores["neg_mae"] == pytest.approx(0, abs=1e-12)
    assert scores["neg_rmse"] == pytest.approx(-1 / 3)
    asked, n_draws, random_state = imputer.asked
    assert (n_draws, random_state) == (30, 0)
    np.testing.assert_array_equal(asked, ampute(table, random_state=0)[0])


def test_cells_known_in_y_are_the_truth(table):
    X = np.where(np.isnan(table), np.nan, table)
    truth = np.nan_to_num(table, nan=5.0)
    truth[np.argwhere(np.isnan(X))[0][0]] = np.nan  # unknown in y, too: not scored
    filled = SimpleImputer().fit(X)
    mask = np.isnan(X) & ~np.isnan(truth)
    expected = mean_absolute_error(truth, filled.transform(X), mask=mask)
    assert neg_mae_scorer(filled, X, truth) == -expected
    assert neg_crps_scorer(filled, X, truth) == pytest.approx(-expected, rel=1e-12)


def test_the_target_of_another_step_is_no_truth(table):
    imputer = SimpleImputer().fit(table)
    for y in (np.arange(150), list(range(150)), pd.Series(range(150))):
        assert neg_crps_scorer(imputer, table, y) == neg_crps_scorer(imputer, table)


@pytest.mark.parametrize("imputer", [KNNImputer(), SimpleImputer(), IterativeImputer()])
def test_the_crps_of_one_value_is_its_absolute_error(imputer, table):
    imputer.fit(table)
    assert neg_crps_scorer(imputer, table) == pytest.approx(
        neg_mae_scorer(imputer, table), rel=1e-12
    )
    with pytest.raises(ValueError, match="one value for a cell"):
        interval_coverage_90_scorer(imputer, table)


def test_an_imputer_that_samples_its_posterior_is_scored_by_draws(table):
    table = table[:60, :3]
    imputer = IterativeImputer(sample_posterior=True, max_iter=3, random_state=0).fit(table)
    score = neg_crps_scorer(imputer, table)
    assert score > neg_mae_scorer(imputer, table)
    assert neg_crps_scorer(imputer, table) == score  # its state is left where it was
    assert interval_coverage_90_scorer(imputer, table) == pytest.approx(0.9, abs=0.3)


@pytest.mark.parametrize("fitted_on", ["array", "frame"])
@pytest.mark.parametrize("imputer", [KNNImputer(), gaussian()], ids=["one value", "draws"])
def test_a_pipeline_is_scored_in_the_units_of_the_data(imputer, fitted_on, table, recwarn):
    X = table if fitted_on == "array" else pd.DataFrame(table, columns=list("abcd"))
    head = make_pipeline(LOG, PowerTransformer())
    pipe = make_pipeline(head, "passthrough", StandardScaler(), clone(imputer)).fit(X)
    # By hand: hide, take the steps one after the other, draw, and back.
    masked, hidden = ampute(table, random_state=0)
    logs = head[-1].transform(np.log(masked))
    given = pipe[2].transform(logs)
    model = pipe[-1]
    draws = (
        model.sample(given, n_draws=20, random_state=0)
        if hasattr(model, "sample")
        else model.transform(given)[:, None]
    )
    back = [
        np.exp(head[-1].inverse_transform(pipe[2].inverse_transform(draws[:, j])))
        for j in range(draws.shape[1])
    ]
    recwarn.clear()
    expected = -mean_absolute_error(table, np.median(back, axis=0), mask=hidden)
    assert neg_mae_scorer(pipe, X) == pytest.approx(expected, rel=1e-9)
    assert not [w for w in recwarn if "feature names" in str(w.message)]


def test_searches_and_nested_pipelines_are_unwrapped(table):
    inner = make_pipeline(StandardScaler(), KNNImputer())
    search = GridSearchCV(inner, {"knnimputer__n_neighbors": [3]}, scoring=neg_mae_scorer, cv=2)
    nested = make_pipeline(LOG, search).fit(table)
    by_hand = clone(inner).set_params(knnimputer__n_neighbors=3)
    plain = make_pipeline(LOG, *[s for _, s in by_hand.steps])
    assert neg_mae_scorer(nested, table) == neg_mae_scorer(plain.fit(table), table)


def test_all_candidates_are_asked_the_same_question(table):
    """The hidden cells are those of the fold, whatever the candidate and its own seed."""
    questions = []

    class Recording(Shifted):
        def sample(self, X, n_draws, *, random_state=None):
            questions.append(X)
            return np.repeat(np.nan_to_num(X)[:, None], n_draws, axis=1)

    grid = {"shifts": [0, 1, 2]}
    GridSearchCV(Recording(None, 0), grid, scoring=neg_crps_scorer, cv=2, refit=False).fit(table)
    by_fold = [questions[i::2] for i in range(2)]
    for same in by_fold:
        assert len(same) == 3
        np.testing.assert_array_equal(same[0], same[1])
        np.testing.assert_array_equal(same[0], same[2])
    assert np.isnan(by_fold[0][0]).sum() > np.isnan(table[: len(by_fold[0][0])]).sum()


def test_several_measures_in_a_dict_or_from_the_same_draws(table):
    one_by_one = {name: get_scorer(name) for name in ("neg_crps", "neg_mae", "neg_rmse")}
    together = make_imputation_scorer(["crps", "mae", "rmse"])
    results = [cross_validate(gaussian(), table, scoring=s, cv=3) for s in (one_by_one, together)]
    for name in one_by_one:
        np.testing.assert_array_equal(results[0][f"test_{name}"], results[1][f"test_{name}"])


def test_two_processes_give_the_same_as_one(table):
    grid = {"statistic": ["mean", "median"]}
    searches = [
        GridSearchCV(gaussian(), grid, scoring=neg_crps_scorer, cv=2, n_jobs=n, refit=False)
        for n in (1, 2)
    ]
    one, two = [s.fit(table).cv_results_["mean_test_score"] for s in searches]
    np.testing.assert_array_equal(one, two)


def test_scorers_clone_and_pickle(table):
    imputer = KNNImputer().fit(table)
    scorer = make_imputation_scorer("rmse", scale=[1, 2, 3, 4], random_state=7)
    expected = scorer(imputer, table)
    for again in (pickle.loads(pickle.dumps(scorer)), clone(scorer)):
        assert again(imputer, table) == expected
    assert "loss='rmse'" in repr(scorer)


@pytest.fixture(scope="module")
def series():
    """Two noisy waves of 240 hours with gaps."""
    rng = np.random.default_rng(1)
    wave = np.sin(np.arange(240) / 4)
    X = np.stack([wave, -wave], axis=1) + 0.2 * rng.normal(size=(240, 2))
    X[rng.uniform(size=X.shape) < 0.1] = np.nan
    index = pd.date_range("2024-01-01", periods=240, freq="h")
    return pd.DataFrame(X, index=index, columns=["a", "b"])


def test_panels(series):
    X = series.to_numpy().reshape(20, 12, 2)
    scores = cross_validate(gaussian(), X, scoring=neg_crps_scorer, cv=KFold(2))["test_score"]
    by_hand = gaussian().fit(X[10:])
    masked, hidden = ampute(X[:10], random_state=0)
    draws = by_hand.sample(masked, n_draws=20, random_state=0)
    assert scores[0] == pytest.approx(-crps_loss(X[:10], draws, mask=hidden), rel=1e-9)


def test_lists_of_series_of_any_length(series):
    values = series.to_numpy()
    X = [values[:50], values[50:130], values[130:], np.full((6, 2), np.nan)]
    imputer = gaussian(window_length=12).fit(X)
    with pytest.warns(UserWarning, match="no observed value"):
        score = neg_mae_scorer(imputer, X)
    assert -0.5 < score < -0.05
    truth = [np.nan_to_num(x) for x in X[:3]]
    assert neg_mae_scorer(imputer, X[:3], truth) < 0
    frames = [series[:120], series[120:]]
    assert neg_mae_scorer(gaussian(window_length=12).fit(frames), frames) < 0


def test_one_long_series_with_dates_and_with_timestamps(series):
    X = series.drop(series.index[[30, 31, 77, 150]])  # an irregular grid
    imputer = gaussian(window_length=12).fit(X)
    masked, hidden = ampute(X, random_state=0)
    draws = imputer.sample(masked, n_draws=20, random_state=0)
    expected = -crps_loss(X, draws, mask=hidden)
    assert neg_crps_scorer(imputer, X) == expected
    times = X.index.to_numpy()
    values = X.to_numpy()
    bare = gaussian(window_length=12).fit(values, timestamps=times)
    assert neg_crps_scorer(bare, values, timestamps=times) == pytest.approx(expected)
    assert neg_crps_scorer(bare, values) != pytest.approx(expected)


def test_timestamps_are_routed(series):
    X = series.drop(series.index[[30, 31, 77, 150]])
    expected = cross_validate(gaussian(window_length=12), X, scoring=neg_crps_scorer, cv=2)
    with sklearn.config_context(enable_metadata_routing=True):
        imputer = gaussian(window_length=12).set_fit_request(timestamps=True)
        scorer = get_scorer("neg_crps").set_score_request(timestamps=True)
        pipe = make_pipeline(imputer.set_transform_request(timestamps=True))
        options = {"params": {"timestamps": X.index.to_numpy()}, "cv": 2}
        for estimator in (imputer, pipe):
            for scoring in (scorer, {"crps": scorer}):
                found = cross_validate(estimator, X.to_numpy(), scoring=scoring, **options)
                key = "test_crps" if isinstance(scoring, dict) else "test_score"
                np.testing.assert_allclose(found[key], expected["test_score"])
        with pytest.raises(ValueError, match="timestamps"):
            cross_validate(imputer, X.to_numpy(), scoring=neg_crps_scorer, **options)


def test_the_gaps_can_be_runs(series):
    X = series.to_numpy()
    runs = {"mechanism": "block", "block_length": 20, "n_block_features": 2, "missing_rate": 0.3}
    masked, hidden = ampute(X, random_state=5, **runs)
    imputer = SimpleImputer().fit(X)
    expected = -mean_absolute_error(X, imputer.transform(masked), mask=hidden)
    assert make_imputation_scorer("mae", random_state=5, **runs)(imputer, X) == expected


def test_scale_counts_features_of_different_units_alike(table):
    units = np.array([1.0, 10.0, 100.0, 1000.0])
    # A column's mean does not depend on its units.
    plain = neg_mae_scorer(SimpleImputer().fit(table), table)
    scorer = make_imputation_scorer("mae", scale=units)
    large = SimpleImputer().fit(table * units)
    assert scorer(large, table * units) == pytest.approx(plain)
    assert neg_mae_scorer(large, table * units) < 10 * plain


def test_a_number_may_stand_for_missing(table):
    marked = np.nan_to_num(table, nan=-1.0)
    expected = neg_mae_scorer(SimpleImputer().fit(table), table)
    for X in (marked, pd.DataFrame(marked, columns=list("abcd"))):
        assert neg_mae_scorer(SimpleImputer(missing_values=-1).fit(X), X) == expected
    assert not np.isnan(marked).any()


@pytest.mark.filterwarnings("ignore:(Features|Skipping features)")
def test_dropped_features_and_indicators(table):
    empty = np.insert(table, 2, np.nan, axis=1)
    expected = neg_mae_scorer(SimpleImputer().fit(table), table)
    # The imputers have never seen a value of the third column, which y knows.
    truth = np.insert(table, 2, 1.0, axis=1)
    masked = np.insert(ampute(table, random_state=0)[0], 2, np.nan, axis=1)
    for imputer in (SimpleImputer(), SimpleImputer(add_indicator=True)):
        assert neg_mae_scorer(imputer.fit(empty), masked, truth) == pytest.approx(expected)
    for imputer in (KNNImputer(), gaussian()):
        assert np.isfinite(neg_mae_scorer(imputer.fit(empty), masked, truth))
    only_third = np.where(np.isnan(empty), np.nan, truth)
    with pytest.raises(ValueError, match="KNNImputer drops the features"):
        neg_mae_scorer(KNNImputer().fit(empty), only_third, truth)


def test_an_own_loss_is_negated(table):
    def largest_error(y_true, y_draws, mask):
        return np.abs(y_true - np.median(y_draws, axis=1))[mask].max()

    imputer = SimpleImputer().fit(table)
    masked, hidden = ampute(table, random_state=0)
    expected = -largest_error(table, imputer.transform(masked)[:, None], hidden)
    assert make_imputation_scorer(largest_error)(imputer, table) == expected
    scores = make_imputation_scorer([largest_error, "mae"])(imputer, table)
    assert scores["neg_largest_error"] == expected


def test_few_draws_warn_where_they_bias(table):
    imputer = gaussian().fit(table)
    with pytest.warns(UserWarning, match="n_draws=5"):
        make_imputation_scorer("mae", n_draws=5)(imputer, table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_imputation_scorer("crps", n_draws=5)(imputer, table)
        neg_rmse_scorer(imputer, table)
        neg_mae_scorer(SimpleImputer().fit(table), table)


def test_data_and_imputer_are_left_alone(table):
    before = table.copy()
    table.flags.writeable = False
    imputer = make_pipeline(StandardScaler(), gaussian()).fit(table)
    frozen = pickle.dumps(imputer)
    neg_crps_scorer(imputer, table)
    np.testing.assert_array_equal(table, before)
    assert pickle.dumps(imputer) == frozen


@pytest.mark.parametrize(
    ("estimator", "X", "y", "error", "message"),
    [
        (SimpleImputer(), np.ones((9, 2)), np.ones((9, 2)), ValueError, "nothing to score"),
        (SimpleImputer(), np.ones((9, 2)), np.ones((9, 3)), ValueError, r"y has shape \(9, 3\)"),
        (SimpleImputer(), np.ones((2, 2)), None, ValueError, "raise missing_rate"),
        (StandardScaler(), np.ones((9, 2)), None, ValueError, "unfilled: it is no imputer"),
        (GaussianMixture(), np.eye(9), None, TypeError, "GaussianMixture is no imputer"),
        (
            make_pipeline(FunctionTransformer(), SimpleImputer(), LinearRegression()),
            np.eye(9),
            None,
            TypeError,
            "last step",
        ),
    ],
)
def test_wrong_use_is_explained(estimator, X, y, error, message):
    estimator.fit(X, np.arange(len(X)))
    with pytest.raises(error, match=message):
        neg_mae_scorer(estimator, X, y)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ([1, 2], r"for each of the 4 columns \['a', 'b', 'c', 'd'\] of X, got \[1, 2\]"),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, "one number for each of the 4 columns"),
        ([1, 0, 1, np.inf], r"not for the columns \['b', 'd'\]"),
        (pd.Series([1, 1, 1, 1], index=list("abdc")), r"take scale\[X.columns\]"),
    ],
)
def test_a_scale_of_other_columns_is_told_which(table, scale, message):
    frame = pd.DataFrame(table, columns=list("abcd"))
    with pytest.raises(ValueError, match=message):
        make_imputation_scorer("mae", scale=scale)(KNNImputer().fit(frame), frame)


def test_too_few_rows_to_hide_cells_in_are_told_so(table):
    with pytest.raises(ValueError, match="give more rows or raise missing_rate"):
        neg_mae_scorer(KNNImputer().fit(table), table[:1])


def test_a_step_without_inverse_is_named(table):
    class OneWay(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return X

    with pytest.raises(ValueError, match="OneWay ahead in the pipeline has no inverse_transform"):
        neg_mae_scorer(make_pipeline(OneWay(), SimpleImputer()).fit(table), table)


@pytest.mark.parametrize("ahead", [SimpleImputer(), gaussian()], ids=["simple", "csdi"])
def test_an_imputer_ahead_of_the_imputer_is_named(table, ahead):
    pipe = make_pipeline(ahead, StandardScaler(), gaussian()).fit(table)
    message = f"{type(ahead).__name__} ahead in the pipeline leaves no gaps for CSDIImputer"
    with pytest.raises(ValueError, match=message):
        neg_crps_scorer(pipe, table)
    mark = np.nan_to_num(table, nan=-9.0)
    pipe = make_pipeline(StandardScaler(), gaussian(missing_values=-9.0)).fit(mark)
    with pytest.raises(ValueError, match=r"leaves no gaps \(missing_values=-9.0\)"):
        neg_crps_scorer(pipe, mark)


def test_draws_out_of_the_range_of_a_step_are_explained(table):
    square = FunctionTransformer(np.square, np.sqrt, check_inverse=False)
    pipe = make_pipeline(square, Shifted(np.nan_to_num(table), [-9.0, 9.0])).fit(table)
    with pytest.raises(ValueError, match="NaN after inverse_transform of FunctionTransformer"):
        neg_crps_scorer(pipe, table)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "crsp"},
        {"loss": ["crps", "best"]},
        {"loss": []},
        {"missing_rate": 1.0},
        {"mechanism": "mar"},
        {"n_draws": 1},
        {"random_state": None},
    ],
)
def test_wrong_parameters_are_refused_when_made(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_imputation_scorer(**wrong)


def test_a_frame_of_the_truth_must_have_the_columns_and_rows_of_X(table):
    X = pd.DataFrame(table, columns=list("abcd"))
    truth = X.fillna(1.0)
    own = gaussian().fit(X)
    for score in (
        lambda y: neg_mae_scorer(SimpleImputer().fit(X), X, y),
        lambda y: own.score(X, y),
    ):
        assert np.isfinite(score(truth))
        with pytest.raises(ValueError, match=r"columns of y must be those of X.*\['d', 'c'"):
            score(truth[list("dcba")])
        with pytest.raises(ValueError, match="index of y must be that of X"):
            score(truth[::-1])
    with pytest.raises(ValueError, match="index of y"):
        neg_mae_scorer(gaussian(window_length=5).fit([X]), [X], [truth[::-1]])
