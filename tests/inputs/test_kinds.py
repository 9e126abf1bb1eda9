"""Kinds of arrays that no estimator may misread: masked ones, times, text among numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LinearRegression

from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE
from skdiffusion.estimators import MultipleImputation
from skdiffusion.metrics import make_imputation_scorer

IMPUTER = CSDIImputer(method="gaussian", n_draws=4, random_state=0)
DENSITY = ScoreSDE(max_iter=0, base="gaussian", random_state=0)
EVERY = {
    "imputer": IMPUTER,
    "density": DENSITY,
    "sampler": LangevinSampler(random_state=0, n_steps=2),
    "series": CSDIImputer(method="gaussian", window_length=5),
}
X = 10 + np.random.default_rng(0).normal(size=(60, 3))
HIDDEN = np.random.default_rng(1).random(X.shape) < 0.2
MASKED = np.ma.array(np.where(HIDDEN, -9999.0, X), mask=HIDDEN)
GAPS = np.where(HIDDEN, np.nan, X)


@pytest.mark.parametrize(
    ("masked", "plain", "options"),
    [
        (MASKED, GAPS, {}),
        (MASKED, GAPS, {"window_length": 5}),
        (MASKED, GAPS, {"missing_values": -7}),
        (MASKED.reshape(15, 4, 3), GAPS.reshape(15, 4, 3), {}),
        ([MASKED[:20], MASKED[20:]], [GAPS[:20], GAPS[20:]], {"window_length": 5}),
        (np.ma.array(MASKED.astype(int), mask=HIDDEN), np.where(HIDDEN, np.nan, X // 1), {}),
    ],
)
def test_the_mask_of_a_masked_array_is_missingness(masked, plain, options):
    imputer = CSDIImputer(method="gaussian", n_draws=4, random_state=0, **options)
    if "missing_values" in options:
        plain = np.nan_to_num(plain, nan=-7)
    got = imputer.fit(masked).transform(masked)
    expected = imputer.fit(plain).transform(plain)
    for a, b in zip(got, expected):
        assert not isinstance(a, np.ma.MaskedArray)
        np.testing.assert_array_equal(a, b)


def test_masks_are_honoured_beside_the_imputer():
    scorer = make_imputation_scorer(n_draws=4)
    assert scorer(IMPUTER.fit(GAPS), MASKED) == scorer(IMPUTER, GAPS)
    with pytest.raises(ValueError, match="contains NaN: ScoreSDE needs complete rows"):
        DENSITY.fit(MASKED)
    with pytest.raises(ValueError, match=r"contains NaN\. LangevinSampler"):
        EVERY["sampler"].fit(MASKED)
    target = X.sum(axis=1)
    fits = [
        MultipleImputation(IMPUTER, LinearRegression(), 2, random_state=0).fit(x, target)
        for x in (MASKED, GAPS)
    ]
    np.testing.assert_array_equal(*(fit.pooled_.estimate for fit in fits))


def test_an_array_masked_nowhere_is_an_array():
    np.testing.assert_array_equal(IMPUTER.fit(np.ma.array(X)).transform(np.ma.array(X)), X)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("unit", ["datetime64[D]", "datetime64[ns]", "timedelta64[s]"])
def test_arrays_of_times_are_refused(name, unit):
    times = np.arange(40).astype("int64").reshape(20, 2).astype(unit)
    # numpy turns nanoseconds into integers where they become objects.
    for given in (times, times.tolist())[: 1 if "ns" in unit else 2]:
        with pytest.raises(TypeError, match=r"Columns \[0, 1\] of X hold times.*timestamps"):
            EVERY[name].fit(given)


def test_panels_and_lists_of_times_are_refused():
    times = np.arange(240).astype("datetime64[h]")
    for given in (times.reshape(20, 4, 3), [times.reshape(80, 3)]):
        with pytest.raises(TypeError, match=r"Columns \[0, 1, 2\] of X hold times"):
            CSDIImputer(method="gaussian").fit(given)


@pytest.mark.parametrize("name", EVERY)
def test_text_among_numbers_is_named(name):
    mixed = X[:20].astype(object)
    mixed[3, 1] = "missing"
    with pytest.raises(ValueError, match=r"Columns \[1\] of X hold text \(could not convert"):
        EVERY[name].fit(mixed)


@pytest.mark.parametrize("estimator", [IMPUTER, DENSITY])
def test_text_and_numbers_in_a_column_of_a_frame_are_named(estimator):
    frame = pd.DataFrame({"x": X[:, 0], "size": pd.Series(["a", 1.5] * 30, dtype=object)})
    with pytest.raises(ValueError, match=r"Column 'size' of X mixes text and .*1\.5"):
        estimator.fit(frame)


@pytest.mark.parametrize("name", EVERY)
def test_sparse_is_refused_by_name(name):
    with pytest.raises(TypeError, match=r"dense data is required.*toarray"):
        EVERY[name].fit(sparse.eye(20).tocsr())


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", [None, object])
def test_columns_of_times_of_a_frame_are_refused(name, kind):
    frame = pd.DataFrame({"a": np.arange(20.0), "when": pd.date_range("2020", periods=20)})
    frame["when"] = frame["when"].astype(kind) if kind else frame["when"]
    message = r"\['when'\] of X hold times.*numbers.*drop.*index.*timestamps.*panel_columns"
    with pytest.raises(TypeError, match=message):
        EVERY[name].fit(frame)
