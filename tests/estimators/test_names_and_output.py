"""Checks that scikit-learn runs on its own estimators but does not hand out with the others."""

import numpy as np
import pandas as pd
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


@pytest.mark.parametrize("labels", [[2020, 2021], [("sea", 1), ("land", 1)]])
@pytest.mark.parametrize("window_length", [1, 7])
def test_labels_that_are_no_names_come_back(labels, window_length):
    rows = np.random.default_rng(0).normal(size=(60, 2)).cumsum(0)
    rows[5, 0] = np.nan
    X = pd.DataFrame(rows)
    X.columns = pd.Index(labels)
    imputer = CSDIImputer(method="gaussian", window_length=window_length)
    pd.testing.assert_index_equal(imputer.fit_transform(X).columns, X.columns)
