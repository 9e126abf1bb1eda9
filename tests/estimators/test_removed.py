"""Removed parameters say what to use; everything else is as without the decorator."""

import inspect

import pytest
from sklearn.base import BaseEstimator, clone

from skdiffusion.estimators._removed import removed


class Model(BaseEstimator):
    @removed(tol="training stops by a fixed rule; leave it out")
    def __init__(self, target=None, *, max_iter=10):
        self.target = target
        self.max_iter = max_iter


def test_a_removed_parameter_says_what_to_do():
    with pytest.raises(TypeError, match="Model has no parameter tol: training stops by a fixed"):
        Model(tol=0.1)


def test_an_unknown_parameter_is_an_error_as_ever():
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_itr'"):
        Model(max_itr=1)


def test_the_real_signature_is_seen():
    assert list(inspect.signature(Model).parameters) == ["target", "max_iter"]
    assert Model("x", max_iter=2).get_params() == {"target": "x", "max_iter": 2}
    assert clone(Model("x").set_params(max_iter=3)).max_iter == 3
