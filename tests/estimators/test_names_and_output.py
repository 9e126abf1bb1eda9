"""Checks that scikit-learn runs on its own estimators but does not hand out with the others."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_get_feature_names_out_error,
    check_global_output_transform_pandas,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
)

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE

NAMES = [check_dataframe_column_names_consistency, check_param_validation]
OUTPUT = [
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_global_output_transform_pandas,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    check_get_feature_names_out_error,
]


def by_name(check):
    return check.__name__


@pytest.mark.parametrize("check", NAMES + OUTPUT, ids=by_name)
@pytest.mark.parametrize("method", ["gaussian", "diffusion"])
def test_of_the_imputer(method, check):
    check("CSDIImputer", CSDIImputer(method=method, max_iter=2, n_draws=3))


@pytest.mark.parametrize("check", NAMES, ids=by_name)
def test_of_multiple_imputation(check):
    estimator = MultipleImputation(CSDIImputer(method="gaussian"), LogisticRegression(), 2)
    check("MultipleImputation", estimator)


@pytest.mark.parametrize("check", NAMES + OUTPUT, ids=by_name)
def test_of_the_density(check):
    check("ScoreSDE", ScoreSDE(base="gaussian", marginals=None, max_iter=0, random_state=0))


@pytest.mark.parametrize("check", NAMES + OUTPUT, ids=by_name)
def test_of_the_sampler(check):
    check("LangevinSampler", LangevinSampler(max_iter=0, n_steps=3, random_state=0))
