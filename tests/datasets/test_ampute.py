"""Hiding cells: only observed ones, as many as asked, in the shape of the mechanism."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiffusion.datasets import ampute

MECHANISMS = ("mcar", "block", "tail", "feature")


@pytest.fixture
def panel():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 48, 6))
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    return X


@pytest.fixture
def series(panel):
    return panel.reshape(-1, 6)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("shape", ["panel", "series"])
def test_hides_a_share_of_the_observed_cells_only(mechanism, shape, request):
    X = request.getfixturevalue(shape)
    before = X.copy()
    X_missing, hidden = ampute(X, missing_rate=0.3, mechanism=mechanism, random_state=0)
    np.testing.assert_array_equal(X, before)
    assert not np.isnan(X[hidden]).any()
    np.testing.assert_array_equal(np.isnan(X_missing), np.isnan(X) | hidden)
    np.testing.assert_array_equal(X_missing[~hidden], X[~hidden])
    assert hidden.sum() / (~np.isnan(X)).sum() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_an_int_fixes_the_cells(panel, mechanism):
    first, second, other = (
        ampute(panel, mechanism=mechanism, random_state=seed)[1] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (mechanism == "tail") == np.array_equal(first, other)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(0, 2**31 - 1))
def test_mcar_hides_the_exact_number(n_cells, missing_rate, seed):
    n_hidden = round(missing_rate * n_cells)
    X = np.arange(float(n_cells))[:, None]
    if n_hidden in (0, n_cells):
        with pytest.raises(ValueError, match="would"):
            ampute(X, missing_rate=missing_rate, random_state=seed)
    else:
        assert ampute(X, missing_rate=missing_rate, random_state=seed)[1].sum() == n_hidden


def test_mcar_hides_every_cell_equally_often():
    X = np.ones((4, 5))
    X[0, 0] = np.nan
    hidden = sum(ampute(X, missing_rate=0.3, random_state=seed)[1] for seed in range(2000))
    assert hidden[0, 0] == 0
    # 6 of 19 cells each time; six standard deviations of a binomial count.
    np.testing.assert_allclose(hidden.ravel()[1:], 2000 * 6 / 19, atol=6 * np.sqrt(2000 * 0.216))


def test_blocks_are_runs_of_the_given_length_in_the_given_number_of_features():
    hidden = ampute(
        np.zeros((500, 8)),
        missing_rate=0.001,
        mechanism="block",
        block_length=12,
        n_block_features=3,
        random_state=0,
    )[1]
    assert hidden.sum() == 36
    assert sorted(hidden.sum(axis=0)) == [0, 0, 0, 0, 0, 12, 12, 12]
    rows = np.flatnonzero(hidden.any(axis=1))
    np.testing.assert_array_equal(rows, np.arange(rows[0], rows[0] + 12))


def test_blocks_reach_both_ends_of_a_series():
    options = {"missing_rate": 0.1, "mechanism": "block", "random_state": 0}
    whole_series = ampute(np.zeros((20, 5, 2)), block_length=5, **options)[1].all(axis=1)
    assert whole_series.sum() == 4
    hidden = ampute(np.zeros((200, 6, 1)), block_length=5, **options)[1]
    assert hidden[:, 0].any()
    assert hidden[:, -1].any()


@pytest.mark.parametrize("missing_rate", [0.05, 0.5, 0.9])
def test_blocks_exceed_the_share_by_less_than_one_block(panel, missing_rate):
    n_observed = (~np.isnan(panel)).sum()
    hidden = ampute(panel, missing_rate=missing_rate, mechanism="block", random_state=0)[1]
    assert 0 <= hidden.sum() - round(missing_rate * n_observed) < 24


def test_blocks_stay_within_their_series(panel):
    full = np.zeros_like(panel)
    hidden = ampute(full, missing_rate=0.01, mechanism="block", random_state=0)[1]
    per_series = hidden.sum(axis=1)
    assert set(per_series[per_series > 0]) <= set(range(24, 49))


def test_tail_hides_the_last_times_of_every_series(panel):
    hidden = ampute(np.zeros_like(panel), missing_rate=0.25, mechanism="tail")[1]
    assert hidden[:, -12:].all()
    assert not hidden[:, :-12].any()


def test_tail_looks_past_missing_last_rows():
    X = np.ones((10, 2))
    X[-3:] = np.nan
    hidden = ampute(X, missing_rate=0.1, mechanism="tail")[1]
    np.testing.assert_array_equal(np.flatnonzero(hidden.any(axis=1)), [6])


def test_feature_hides_whole_features_of_samples(panel):
    hidden = ampute(panel, missing_rate=0.3, mechanism="feature", random_state=0)[1]
    observed = ~np.isnan(panel)
    whole = (hidden == observed).all(axis=1)
    none = ~hidden.any(axis=1)
    assert (whole | none).all()
    assert 0.2 < whole.mean() < 0.4


def test_feature_hides_columns_for_stretches_of_a_series():
    X = np.zeros((100, 5))
    hidden = ampute(X, missing_rate=0.3, mechanism="feature", block_length=24, random_state=0)[1]
    for first in range(0, 100, 24):
        stretch = hidden[first : first + 24]
        assert (stretch.all(axis=0) | ~stretch.any(axis=0)).all()


def test_a_frame_stays_a_frame():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(
        {"a": np.arange(20), "b": np.arange(20.0)},
        index=pandas.date_range("2013-01-01", periods=20, freq="h"),
    )
    before = X.copy()
    X_missing, hidden = ampute(X, missing_rate=0.2, random_state=0)
    pandas.testing.assert_frame_equal(X, before)
    assert X_missing.index.equals(X.index)
    assert list(X_missing.columns) == ["a", "b"]
    np.testing.assert_array_equal(X_missing.isna().to_numpy(), hidden)


@pytest.mark.parametrize(("dtype", "expected"), [(np.float32, np.float32), (int, np.float64)])
def test_dtype_of_the_result(dtype, expected):
    assert ampute(np.ones((20, 3), dtype=dtype), random_state=0)[0].dtype == expected


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (np.ones((9, 2)), {"missing_rate": 0.0}, r"missing_rate must lie in \(0, 1\)"),
        (np.ones((9, 2)), {"missing_rate": 1.0}, r"missing_rate must lie in \(0, 1\)"),
        (np.ones((9, 2)), {"missing_rate": 0.01}, "nothing would be hidden: X has 18 observed"),
        (np.full((9, 2), np.nan), {}, "nothing would be hidden: X has 0 observed"),
        (np.ones((9, 2)), {"missing_rate": 0.99}, "would hide every observed cell"),
        (np.ones((9, 2)), {"mechanism": "mar"}, "mechanism must be"),
        (np.ones((9, 2)), {"mechanism": "block"}, "block_length must lie between 1 and 9"),
        (
            np.ones((9, 2)),
            {"mechanism": "block", "block_length": 3, "n_block_features": 3},
            "n_block_features must lie between 1 and 2",
        ),
        (np.ones((9, 2)), {"mechanism": "feature", "block_length": 0}, "block_length must lie"),
        (np.ones((2, 2, 2, 2)), {}, r"X must have shape \(n_times, n_features\)"),
        (np.ones(9), {}, "Expected 2D array"),
        (np.full((9, 2), np.inf), {}, "infinity"),
    ],
)
def test_wrong_input_is_named(X, options, message):
    with pytest.raises(ValueError, match=message):
        ampute(X, random_state=0, **options)


def test_columns_of_any_type_get_the_missing_value_of_their_type():
    x = np.random.default_rng(0).normal(size=200)
    text = np.where(x > 0, "u", "v")
    kinds = {
        "object": pd.Series(text, dtype=object),
        "category": pd.Series(text, dtype="category"),
        "string": pd.Series(text, dtype="string"),
        "boolean": pd.Series(x > 0, dtype="boolean"),
        "Int64": pd.Series(np.rint(x).astype(int), dtype="Int64"),
        "datetime64[ns]": pd.Series(pd.date_range("2020", periods=200)).astype("datetime64[ns]"),
        "float64": pd.Series(x),
    }
    frame = pd.DataFrame(kinds | {"whole": np.rint(x).astype(int)})
    before = frame.copy()
    given, hidden = ampute(frame, missing_rate=0.2, random_state=0)
    pd.testing.assert_frame_equal(frame, before)
    np.testing.assert_array_equal(given.isna(), hidden)
    assert hidden.sum() == round(0.2 * frame.size)
    assert [str(given[name].dtype) for name in kinds] == list(kinds)
    assert given["whole"].dtype == float
    for name in frame:
        kept = ~hidden[:, frame.columns.get_loc(name)]
        assert (given[name][kept] == frame[name][kept]).all()


def test_a_frame_of_labels_alone_is_taken():
    frame = pd.DataFrame({"text": list("abcd") * 10, "more": list("uv") * 20})
    given, hidden = ampute(frame, missing_rate=0.25, random_state=0)
    assert given.isna().to_numpy().sum() == hidden.sum() == 20
