"""Searches and cross-validation of scikit-learn over the estimators, by the package's scorers."""

import numpy as np
import pytest
from joblib import parallel_config
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE
from skdiffusion.metrics import (
    log_likelihood_scorer,
    make_imputation_scorer,
    neg_crps_scorer,
    neg_nll_bound_scorer,
    neg_sliced_wasserstein_scorer,
)


@pytest.fixture(scope="module")
def series():
    """Two long waves of different phase, noisy and with gaps."""
    rng = np.random.default_rng(0)
    t = np.arange(480)[:, None]
    X = np.sin(t / 4 + [0.0, 1.0]) + 0.2 * rng.normal(size=(480, 2))
    X[rng.uniform(size=X.shape) < 0.05] = np.nan
    return X


@pytest.fixture(scope="module")
def moons():
    """Two half circles."""
    from sklearn.datasets import make_moons

    return make_moons(400, noise=0.05, random_state=0)[0]


def test_a_search_over_one_long_series_finds_that_it_is_one(series):
    """Runs of 12 hours: independent rows (no window) see nothing there, a series its waves."""
    imputer = CSDIImputer(method="gaussian", random_state=0)
    scorer = make_imputation_scorer(mechanism="block", block_length=12, n_block_features=2)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), imputer),
        {"csdiimputer__window_length": [None, 24]},
        scoring=scorer,
        cv=TimeSeriesSplit(3, gap=24),
    ).fit(series)
    assert search.best_params_ == {"csdiimputer__window_length": 24}
    assert search.score(series) == scorer(search.best_estimator_, series)


@pytest.mark.filterwarnings("ignore:.*no observed value")
def test_cross_validation_of_a_table_and_of_a_panel(series):
    panel = series.reshape(40, 12, 2)
    for X in (series, panel):
        imputer = CSDIImputer(max_iter=5, early_stopping=False, random_state=0)
        results = cross_validate(imputer, X, scoring=neg_crps_scorer, cv=2, error_score="raise")
        assert results["test_score"].shape == (2,)
        assert (results["test_score"] > -0.8).all()
        again = cross_validate(imputer, X, scoring=neg_crps_scorer, cv=2)
        np.testing.assert_array_equal(results["test_score"], again["test_score"])


def test_halving_gives_more_steps_to_the_better(series):
    panel = series.reshape(40, 12, 2)
    search = HalvingGridSearchCV(
        CSDIImputer(early_stopping=False, random_state=0),
        {"n_channels": [4, 8]},
        resource="max_iter",
        min_resources=2,
        max_resources=4,
        factor=2,
        scoring=neg_crps_scorer,
        cv=2,
        refit=True,
        random_state=0,
    ).fit(panel)
    assert search.n_resources_ == [2, 4]
    assert search.n_candidates_ == [2, 1]
    assert search.best_estimator_.n_iter_ == 4
    assert np.isfinite(search.best_score_)


@pytest.mark.parametrize("scorer", [log_likelihood_scorer, neg_nll_bound_scorer])
def test_likelihood_and_bound_choose_the_base_of_a_density(scorer, moons):
    search = GridSearchCV(
        ScoreSDE(max_iter=0, random_state=0),
        {"base": ["gaussian", "mixture"]},
        scoring=scorer,
        cv=KFold(3),
    ).fit(moons)
    assert search.best_params_ == {"base": "mixture"}


@pytest.mark.slow
def test_distance_to_held_out_rows_chooses_the_temperature_of_a_sampler():
    """Cold chains gather at the mode, where the density is highest but hardly a row lies."""
    X = np.random.default_rng(1).normal(size=(300, 3)) @ np.triu(np.ones((3, 3)))
    search = GridSearchCV(
        LangevinSampler(method="ula", n_steps=200, random_state=0),
        {"temperature": [0.0, 0.1, 1.0]},
        scoring=neg_sliced_wasserstein_scorer,
        cv=2,
    ).fit(X)
    assert search.best_params_ == {"temperature": 1.0}
    by_density = search.set_params(scoring=log_likelihood_scorer).fit(X)
    # All three have the same target: the density cannot tell samplers apart.
    assert np.ptp(by_density.cv_results_["mean_test_score"]) == 0


@pytest.mark.parametrize(("length", "stride"), [(24, 24), (24, 12), (24, 5), (24, 1)])
def test_a_gap_keeps_overlapping_windows_apart(length, stride):
    """The user guide's rule: leave out as many windows as share rows with the next fold."""
    rows = sliding_window_view(np.arange(600), length)[::stride]
    shared = {
        gap: [
            len(np.intersect1d(rows[train], rows[test]))
            for train, test in TimeSeriesSplit(4, gap=gap).split(rows)
        ]
        for gap in (0, -(-length // stride) - 1)
    }
    *_, apart = shared.values()
    assert not any(apart)
    assert any(shared[0]) == (stride < length)


def test_dask_gives_the_same_as_one_process(series):
    distributed = pytest.importorskip("distributed")
    panel = series.reshape(40, 12, 2)
    search = GridSearchCV(
        make_pipeline(CSDIImputer(max_iter=5, early_stopping=False, random_state=0)),
        {"csdiimputer__n_channels": [8, 16]},
        scoring=neg_crps_scorer,
        cv=2,
    )
    serial = search.fit(panel).cv_results_
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        parallel_config("dask"),
    ):
        # A worker that imports torch in the middle of a task may miss its heartbeats.
        client.run(__import__, "skdiffusion")
        parallel = search.fit(panel).cv_results_
    for key in ("split0_test_score", "split1_test_score"):
        np.testing.assert_allclose(parallel[key], serial[key], rtol=1e-6)
