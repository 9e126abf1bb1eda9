"""scikit-learn's own checks on every estimator; nothing is expected to fail."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiffusion import CSDIImputer

ESTIMATORS = [
    CSDIImputer(max_iter=2, n_draws=3),
    CSDIImputer(method="gaussian", n_draws=3),
    CSDIImputer(network="csdi", max_iter=2, n_draws=3, n_layers=1, n_channels=8),
]


@parametrize_with_checks(ESTIMATORS)
def test_sklearn_checks(estimator, check):
    check(estimator)
