"""Kinds of inputs that were misread once, each with its siblings: they work, or say what to do."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import OneHotEncoder

from skdiffusion import CSDIImputer, MultipleImputation, ScoreSDE
from skdiffusion.estimators import conformalize
from skdiffusion.estimators.density import _conditions
from skdiffusion.metrics import get_scorer, make_imputation_scorer

N = 120
X = np.random.default_rng(0).normal(size=(N, 2))
HIDDEN = np.random.default_rng(1).random((N, 2)) < 0.2
FRAME = pd.DataFrame(X, columns=["a", "b"])
GAPS = FRAME.mask(HIDDEN)
WORD = np.where(X[:, 0] > 0, "high", "low")


def imputer(**options):
    return CSDIImputer(method="gaussian", n_draws=20, random_state=0, **options)


def density(**options):
    return ScoreSDE(base="gaussian", max_iter=0, random_state=0, **options)


# What stands beside X.


def test_conformal_quantiles_follow_dropped_columns_and_times():
    wide = GAPS.assign(empty=np.nan)[["empty", "a", "b"]]
    with pytest.warns(UserWarning, match=r"Features \['empty'\]"):
        fitted = imputer().fit(wide)
    found = conformalize(fitted, wide, missing_rate=0.4).predict_quantiles(wide, [0.1, 0.9])
    assert found.shape == (N, 2, 2)
    np.testing.assert_array_equal(found[:, 0][~HIDDEN], X[~HIDDEN])
    assert (found[:, 0] < found[:, 1])[HIDDEN].all()
    times = np.arange(N) * 3600.0
    fitted = imputer(window_length=8).fit(X, timestamps=times)
    conformal = conformalize(fitted, X, timestamps=times, missing_rate=0.4)
    assert conformal.predict_quantiles(GAPS.to_numpy(), [0.5], timestamps=times).shape == (N, 1, 2)
    assert conformal.transform(GAPS.to_numpy(), timestamps=times).shape == X.shape
    long = GAPS.assign(id=np.repeat([0, 1], N // 2), t=np.tile(np.arange(N // 2), 2))
    fitted = imputer(panel_columns=("id", "t")).fit(long)
    found = conformalize(fitted, long, missing_rate=0.4).predict_quantiles(long, [0.2, 0.8])
    assert found.shape == (N, 2, 2)


def test_a_pattern_to_hide_is_matched_by_name():
    hide = pd.DataFrame({"b": [False, True] * 4, "a": [False, False] * 4})
    options = {"window_length": 8, "max_iter": 3, "n_channels": 8, "n_draws": 2, "random_state": 0}
    by_name = CSDIImputer(target_strategy=hide, **options).fit(FRAME)
    by_place = CSDIImputer(target_strategy=hide[["a", "b"]].to_numpy(), **options).fit(FRAME)
    assert by_name.history_["loss"] == by_place.history_["loss"]
    with pytest.raises(ValueError, match=r"target_strategy has the columns \['b', 'c'\], but X"):
        CSDIImputer(target_strategy=hide.rename(columns={"a": "c"}), **options).fit(FRAME)


@pytest.mark.parametrize("fit", [
    lambda weight: density().fit(FRAME, sample_weight=weight),
    lambda y: density(condition="value").fit(FRAME, y),
    lambda y: MultipleImputation(imputer(), LinearRegression(), 2, random_state=0).fit(GAPS, y),
])  # fmt: skip
def test_rows_in_another_order_beside_a_frame_are_named(fit):
    beside = pd.Series(np.arange(1.0, N + 1))
    with pytest.raises(ValueError, match=r"has the rows of X in another order: take .*\.loc\["):
        fit(beside[::-1])
    fit(beside)
    fit(beside.set_axis(np.arange(N) + 1000))  # an index of other rows says nothing


def test_categories_are_conditions():
    beside = pd.DataFrame(
        {
            "word": WORD,
            "size": pd.Categorical(np.array(list("xyz"))[np.arange(N) % 3]),
            "b": X[:, 1],
        }
    )
    model = density(condition="value").fit(FRAME[["a"]], beside)
    high = pd.DataFrame({"word": ["high"], "size": ["x"], "b": [0.0]})
    low = high.assign(word="low")[["b", "size", "word"]]
    assert model.sample(200, y=high).mean() > 0.3
    assert model.sample(200, y=low).mean() < -0.3
    with pytest.raises(ValueError, match="Column 'word' of y has the category 'middle'"):
        model.sample(2, y=high.assign(word="middle"))
    nothing = beside.copy()
    nothing.iloc[5] = np.nan
    with pytest.raises(ValueError, match="y contains NaN: row 5 has no value"):
        model.fit(FRAME[["a"]], nothing)


def test_a_condition_of_very_many_labels_stays_narrow(monkeypatch):
    """A thousand rows of 200 shops, of which 20 have most rows."""
    monkeypatch.setattr(_conditions, "_MOST_INDICATORS", 30)
    rng = np.random.default_rng(0)
    shop = np.where(rng.random(1000) < 0.5, rng.integers(0, 20, 1000), rng.integers(0, 200, 1000))
    sales = np.where(shop < 10, 5.0, 0.0) + 0.1 * rng.normal(size=1000)
    beside = pd.DataFrame({"shop": [f"s{k:03}" for k in shop], "b": rng.normal(size=1000)})
    assert beside["shop"].nunique() > 150
    model = ScoreSDE(base="regression", condition="value", max_iter=0, random_state=0)
    model.fit(sales[:, None], beside)
    # Thirty indicators, the number of the shop, b, location and scale.
    assert model._encoder.n_columns == 34
    new = pd.DataFrame({"shop": ["s003", "s015", "s100"], "b": 0.0})
    draws = model.sample(300, y=new.loc[np.repeat([0, 1, 2], 100)]).reshape(3, 100)
    np.testing.assert_allclose(draws.mean(1), [5, 0, 0], atol=0.3)


# Types and frames.


@pytest.mark.parametrize("window_length", [None, 8])
def test_text_and_dictionaries_of_pyarrow_are_labels(window_length):
    pa = pytest.importorskip("pyarrow")
    text = pd.Series(pd.array(WORD, dtype=pd.ArrowDtype(pa.string())))
    names = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(WORD).dictionary_encode()))
    frame = pd.DataFrame({"a": X[:, 0], "text": text, "names": names})
    gaps = frame.mask(np.random.default_rng(2).random(frame.shape) < 0.2)
    out = imputer(window_length=window_length).fit(gaps).transform(gaps)
    assert (out.dtypes == gaps.dtypes).all()
    assert out.notna().all(axis=None)
    assert (out["text"] == WORD).mean() > 0.9 or window_length
    days = frame.assign(text=pd.array([None] * N, dtype=pd.ArrowDtype(pa.date32())))
    with pytest.raises(TypeError, match=r"Columns \['text'\] of X hold times"):
        imputer().fit(days)


def test_sparse_columns_are_numbers_with_gaps():
    sparse = FRAME.assign(c=pd.arrays.SparseArray(np.where(HIDDEN[:, 0], np.nan, X[:, 0])))
    for frame in (sparse, sparse[["c"]]):
        out = imputer().fit(frame).transform(frame)
        assert (out.dtypes == frame.dtypes).all()
        assert out.notna().all(axis=None)
    zeros = pd.DataFrame({"z": pd.arrays.SparseArray(np.maximum(X[:, 0], 0.0), fill_value=0.0)})
    assert density().fit(zeros.assign(a=X[:, 1])).sample(3).shape == (3, 2)
    assert density().fit(zeros).sample(3).shape == (3, 1)
    MultipleImputation(imputer(), LinearRegression(), 2).fit(sparse, X[:, 1])


def test_booleans_that_come_back_as_numbers():
    frame = FRAME.assign(yes=X[:, 0] > 0)
    model = density().fit(frame)
    expected = model.score_samples(frame[:5])
    for dtype in (int, float, "Int64"):
        np.testing.assert_array_equal(
            model.score_samples(frame[:5].astype({"yes": dtype})), expected
        )
    with pytest.raises(ValueError, match="Column 'yes' of X has the category 2"):
        model.score_samples(frame[:5].assign(yes=2))
    gaps = frame.astype({"yes": float}).mask(np.arange(N)[:, None] % 5 == [9, 9, 0])
    assert set(imputer().fit(frame).transform(gaps)["yes"]) == {0, 1}


def test_frames_that_are_not_read_say_how_to_be():
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    for estimator in (imputer(), density()):
        with pytest.raises(TypeError, match=r"X is a LazyFrame.*pass X\.collect\(\)"):
            estimator.fit(pl.from_pandas(FRAME).lazy())
        with pytest.raises(TypeError, match="X is a RecordBatch: pass a table"):
            estimator.fit(pa.RecordBatch.from_pandas(FRAME))

    class Frame:
        columns, dtypes, shape = ["a", "b"], ["f8", "f8"], X.shape

        def __array__(self, dtype=None, copy=None):
            return X

    with pytest.raises(TypeError, match="pass one of pandas, polars or pyarrow, or an array"):
        imputer().fit(Frame())


@pytest.mark.parametrize("dates", [False, True])
def test_a_long_table_that_is_taken_for_something_else_warns(dates):
    long = pd.DataFrame(
        {"id": np.repeat(list("uvw"), 40), "t": np.tile(np.arange(40), 3), "x": X[:, 0]}
    )
    if dates:
        long["t"] = pd.Timestamp("2024") + pd.to_timedelta(long["t"], unit="D")
        with pytest.raises(TypeError, match=r"panel_columns=\('series', 'time'\)"):
            imputer().fit(long)
        return
    for window_length in (None, 8):
        with pytest.warns(UserWarning, match=r"set panel_columns=\('id', 't'\)"):
            imputer(window_length=window_length).fit(long)


@pytest.mark.filterwarnings("error")
def test_tables_that_only_look_a_bit_long_do_not_warn():
    rng = np.random.default_rng(0)
    age, town = rng.integers(20, 60, N), rng.choice(list("abc"), N)
    for frame in (
        pd.DataFrame({"town": town, "age": age, "x": X[:, 0]}),
        pd.DataFrame({"town": np.sort(town), "age": np.arange(N), "x": X[:, 0]}),
        pd.DataFrame({"town": town, "age": age, "x": X[:, 0]}).sort_values(["town", "age"]),
    ):
        imputer().fit(frame)
    panel = pd.DataFrame(
        {"id": np.repeat(list("uvw"), 40), "t": np.tile(np.arange(40), 3), "x": X[:, 0]}
    )
    imputer(panel_columns=("id", "t")).fit(panel)


def test_frames_asked_of_panels_and_lists_by_the_global_setting():
    import sklearn

    with sklearn.config_context(transform_output="pandas"):
        fitted = imputer().fit(X.reshape(-1, 5, 2))
        with pytest.raises(ValueError, match=r"set_config.*call set_output\(transform='default'\)"):
            fitted.transform(X.reshape(-1, 5, 2))
        assert fitted.set_output(transform="default").transform(X.reshape(-1, 5, 2)).ndim == 3


# Transformers of columns, and estimates.


def test_a_column_transformer_draws_nothing_and_says_so():
    frame = GAPS.assign(word=WORD)
    parts = make_column_transformer((imputer(), ["a", "b"]), (OneHotEncoder(), ["word"]))
    with pytest.raises(
        ValueError, match="ColumnTransformer, which is not supported, as it hands on"
    ):
        MultipleImputation(parts, LinearRegression(), 2).fit(frame, X[:, 0])
    for scorer in (get_scorer("neg_crps"), make_imputation_scorer("mae")):
        with pytest.raises(TypeError, match="ColumnTransformer hands on neither draws nor columns"):
            scorer(parts.fit(frame), frame)


def test_estimates_of_copies_are_pooled_by_name():
    turns = iter([["a", "b"], ["b", "a"], ["a", "b"]])
    model = MultipleImputation(
        imputer(), lambda copy: ({k: {"a": 1.0, "b": 5.0}[k] for k in next(turns)}, [0.1, 0.1]), 3
    ).fit(GAPS)
    assert model.summary()["estimate"].to_dict() == {"a": 1.0, "b": 5.0}
    turns = iter([["a", "b"], ["a", "c"]])
    model = MultipleImputation(
        imputer(), lambda copy: (dict.fromkeys(next(turns), 1.0), [0.1, 0.1]), 2
    ).fit(GAPS)
    with pytest.raises(AttributeError, match=r"the estimates \['b', 'c'\] are not there in every"):
        model.summary()


def test_results_of_several_equations_have_names_of_pairs():
    api = pytest.importorskip("statsmodels.formula.api")
    group = np.digitize(X[:, 0] + np.random.default_rng(3).normal(size=N), [-0.7, 0.7])
    model = MultipleImputation(
        imputer(), lambda copy: api.mnlogit("y ~ a", copy).fit(disp=0), 2, random_state=0
    ).fit(GAPS, pd.Series(group, name="y"))
    expected = api.mnlogit("y ~ a", FRAME.assign(y=group)).fit(disp=0).params
    table = model.summary()
    assert len(table) == expected.size
    for row, column in (("a", 0), ("a", 1), ("Intercept", 1)):
        assert table["estimate"][(row, column)] == pytest.approx(expected.loc[row, column], abs=0.6)
