"""Draws follow ``set_output`` as ``transform`` does: names, types and labels come back."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.linear_model import LinearRegression

from skdiffusion import CSDIImputer, LangevinSampler, MultipleImputation, ScoreSDE
from skdiffusion.metrics import get_scorer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3))
GAPS = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
GAPS[:, 0] = X[:, 0]
INDEX = pd.Index([f"row {i}" for i in range(90)])
FRAME = pd.DataFrame(GAPS, INDEX, ["a", "b", "c"])
WORDS = np.where(np.arange(90) % 5, np.where(X[:, 0] > 0, "high", "low"), None)
MIXED = FRAME.assign(k=pd.Categorical(WORDS), n=pd.array([1, 2, None] * 30, dtype="Int64"))


def imputer(container=None):
    model = CSDIImputer(method="gaussian", n_draws=5, random_state=0)
    return model if container is None else model.set_output(transform=container)


def density(**options):
    return ScoreSDE(base="gaussian", max_iter=0, random_state=0, **options)


@pytest.mark.parametrize("given", [FRAME, MIXED, FRAME.assign(n=MIXED["n"])])
def test_draws_of_an_imputer_are_frames_like_the_given_one(given):
    copies = imputer("pandas").fit(given).sample(given, n_draws=3)
    assert len(copies) == 3
    for copy in copies:
        pd.testing.assert_index_equal(copy.index, given.index)
        pd.testing.assert_series_equal(copy.dtypes, given.dtypes)
        pd.testing.assert_frame_equal(copy.where(given.notna()), given, check_dtype=False)
        assert not copy.isna().any(axis=None)


def test_the_draws_are_those_without_set_output():
    plain = imputer().fit(FRAME).sample(FRAME, n_draws=2)
    copies = imputer("pandas").fit(FRAME).sample(FRAME, n_draws=2)
    np.testing.assert_array_equal(np.stack(copies, axis=1), plain)
    of_array = imputer("pandas").fit(GAPS).sample(GAPS, n_draws=2)
    assert list(of_array[0].columns) == ["x0", "x1", "x2"]
    complete = density().fit(X)
    plain = complete.impute(GAPS, n_draws=2)
    np.testing.assert_array_equal(
        np.stack(complete.set_output(transform="pandas").impute(GAPS, n_draws=2), axis=1), plain
    )


@pytest.mark.parametrize("given", [FRAME, MIXED])
def test_draws_are_frames_of_polars_where_these_are_asked_for(given):
    copies = imputer("polars").fit(given).sample(given, n_draws=2)
    assert [type(copy) for copy in copies] == [pl.DataFrame] * 2
    assert copies[0].columns == list(given.columns)
    native = pl.DataFrame(GAPS, schema=["a", "b", "c"])
    copies = imputer("pandas").fit(native).sample(native, n_draws=2)
    np.testing.assert_array_equal(
        np.stack(copies, axis=1), imputer().fit(native).sample(native, n_draws=2)
    )
    assert isinstance(copies[0], pd.DataFrame)


def test_draws_of_a_sampler_are_frames():
    complete = pd.DataFrame(X, columns=["a", "b", "c"])
    sampler = LangevinSampler(random_state=0, n_steps=10).fit(complete)
    plain = sampler.sample(4)
    sampler.set_output(transform="pandas")
    pd.testing.assert_frame_equal(sampler.sample(4), pd.DataFrame(plain, columns=complete.columns))
    assert sampler.sample(4, return_trajectory=True)[1].shape[2] == 3


def test_what_uses_draws_takes_an_imputer_of_either_output():
    y = X.sum(1)
    for container in ("pandas", "polars"):
        for data in (GAPS, FRAME):
            pools = [
                MultipleImputation(model, LinearRegression(), 2, random_state=0).fit(data, y)
                for model in (imputer(), imputer(container))
            ]
            np.testing.assert_array_equal(pools[0].pooled_.estimate, pools[1].pooled_.estimate)
            scorer = get_scorer("neg_crps")
            assert scorer(imputer(container).fit(data), data) == scorer(imputer().fit(data), data)
    with sklearn.config_context(transform_output="pandas"):
        assert scorer(imputer().fit(GAPS), GAPS) == scorer(imputer("default").fit(GAPS), GAPS)


def test_panels_and_lists_stay_as_they_are():
    panel = np.where(RNG.random((12, 6, 2)) < 0.2, np.nan, RNG.normal(size=(12, 6, 2)))
    model = imputer("pandas")
    assert model.fit(panel).sample(panel, n_draws=2).shape == (12, 2, 6, 2)
