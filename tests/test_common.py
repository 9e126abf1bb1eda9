"""scikit-learn's own checks on every estimator; nothing is expected to fail."""

import pytest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion.diffusion import model
from skdiffusion.estimators.density import _regression

QUICK = {"hidden_layer_sizes": (16,), "max_iter": 2, "n_steps": 4, "random_state": 0}

ESTIMATORS = [
    CSDIImputer(max_iter=2, n_draws=3),
    CSDIImputer(method="gaussian", n_draws=3),
    CSDIImputer(network="csdi", max_iter=2, n_draws=3, n_layers=1, n_channels=8),
    LangevinSampler(max_iter=2, random_state=0),
    MultipleImputation(CSDIImputer(method="gaussian"), LogisticRegression(), 2),
    MultipleImputation(IterativeImputer(sample_posterior=True), LinearRegression(), 2),
    ScoreSDE(base="gaussian", **QUICK),
    ScoreSDE(base="gaussian", condition="label", **QUICK),
    ScoreSDE(base="mixture", condition="value", **QUICK),
    ScoreSDE(base="regression", condition="value", **QUICK),
    ScoreSDE(base="gaussian", handle_missing="impute", **QUICK),
]


@pytest.fixture(autouse=True)
def coarse_solvers_and_few_trees_of_score_models(monkeypatch):
    """What is checked does not depend on their accuracy."""
    for name in ("_SCORE_STEPS", "_MAP_STEPS"):
        monkeypatch.setattr(model, name, 4)
    monkeypatch.setattr(_regression, "_N_FOLDS", 2)
    monkeypatch.setattr(_regression, "_LOCATION", [{"max_iter": 20, "max_leaf_nodes": 4}])
    monkeypatch.setattr(_regression, "_SCALE", [{"max_iter": 20, "max_leaf_nodes": 4}])


@parametrize_with_checks(ESTIMATORS)
def test_sklearn_checks(estimator, check):
    check(estimator)
