"""scikit-learn's own checks on every estimator; nothing is expected to fail."""

from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation

ESTIMATORS = [
    CSDIImputer(max_iter=2, n_draws=3),
    CSDIImputer(method="gaussian", n_draws=3),
    CSDIImputer(network="csdi", max_iter=2, n_draws=3, n_layers=1, n_channels=8),
    LangevinSampler(max_iter=2, random_state=0),
    MultipleImputation(CSDIImputer(method="gaussian"), LogisticRegression(), 2),
    MultipleImputation(IterativeImputer(sample_posterior=True), LinearRegression(), 2),
]


@parametrize_with_checks(ESTIMATORS)
def test_sklearn_checks(estimator, check):
    check(estimator)
