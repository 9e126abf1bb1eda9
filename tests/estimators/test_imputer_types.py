"""Types and labels of frames come back from the imputer as they went in."""

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer

GAUSSIAN = {"method": "gaussian", "n_draws": 9, "random_state": 0}
X = np.random.default_rng(0).normal(size=200)
WHOLE = np.round(5 * X).astype(int)
GROUP = np.digitize(X, [-0.7, 0.7])
FRUIT = np.array(["fig", "date", "kiwi"])[GROUP]
HIDDEN = np.random.default_rng(1).random(200) < 0.2

COLUMNS = {
    "Int64": pd.array(WHOLE, dtype="Int64"),
    "Int8": pd.array(WHOLE, dtype="Int8"),
    "UInt16": pd.array(WHOLE - WHOLE.min(), dtype="UInt16"),
    "boolean": pd.array(X > 0, dtype="boolean"),
    "bool as object": pd.Series(X > 0, dtype=object),
    "Float32": pd.array(X, dtype="Float32"),
    "Float64": pd.array(X, dtype="Float64"),
    "float32": pd.Series(X, dtype="float32"),
    "text": pd.Series(FRUIT),
    "text as object": pd.Series(FRUIT, dtype=object),
    "string": pd.Series(FRUIT, dtype="string"),
    "category": pd.Series(pd.Categorical(FRUIT)),
    "category of two": pd.Series(pd.Categorical(np.array(["u", "v"])[(X > 0).astype(int)])),
    "category of numbers": pd.Series(pd.Categorical(10 * GROUP)),
    "ordered": pd.Series(pd.Categorical(FRUIT, ["fig", "date", "kiwi"], ordered=True)),
    "unused category": pd.Series(pd.Categorical(FRUIT, ["date", "fig", "kiwi", "lime"])),
}
ARROW = {"int32[pyarrow]": WHOLE, "bool[pyarrow]": X > 0, "double[pyarrow]": X}


def frame_of(column):
    column = pd.Series(column).mask(HIDDEN)
    return pd.DataFrame({"x": X + 0.1 * np.sin(np.arange(200)), "c": column})


def column_named(name):
    if name not in ARROW:
        return COLUMNS[name]
    pytest.importorskip("pyarrow")
    return pd.array(ARROW[name], dtype=name)


@pytest.mark.parametrize("window_length", [None, 10])
@pytest.mark.parametrize("name", [*COLUMNS, *ARROW])
def test_a_column_comes_back_of_its_type(name, window_length):
    whole = pd.Series(column_named(name))
    frame = frame_of(whole)
    imputer = CSDIImputer(**GAUSSIAN, window_length=window_length).fit(frame)
    out = imputer.transform(frame)
    assert (out.dtypes == frame.dtypes).all()
    assert out.notna().all(axis=None)
    pd.testing.assert_series_equal(out["c"][~HIDDEN], frame["c"][~HIDDEN])
    if "loat" not in name and "double" not in name and window_length is None:
        assert set(out["c"]) <= set(range(-128, 128)) | set(whole)
        # The other column tells nearly all; guessing has less than a half of most types.
        wide = 1 if whole.dtype.kind in "iu" else 0
        right = (_codes(out["c"]) - _codes(whole)).abs() <= wide
        assert right[HIDDEN].mean() > 0.6


def _codes(column):
    order = {"fig": 0, "date": 1, "kiwi": 2, "lime": 3, "u": 0, "v": 1}
    return column.astype(object).map(lambda value: order.get(value, value)).astype(float)


def test_integers_of_numpy_marked_by_a_number_stay_integers():
    frame = pd.DataFrame({"x": X, "c": np.where(HIDDEN, -999, WHOLE)})
    out = CSDIImputer(**GAUSSIAN, missing_values=-999).fit(frame).transform(frame)
    assert out["c"].dtype == frame["c"].dtype
    assert (out["c"][~HIDDEN] == WHOLE[~HIDDEN]).all()
    assert (out["c"] != -999).all()


def test_columns_that_were_whole_in_fit_are_filled_with_whole_numbers():
    full = pd.DataFrame({"x": X, "n": WHOLE, "b": X > 0})
    gaps = full.astype({"n": float, "b": object}).mask(HIDDEN[:, None] & [False, True, True])
    imputer = CSDIImputer(**GAUSSIAN).fit(full)
    out = imputer.transform(gaps)
    assert (out["n"] % 1 == 0).all()
    assert set(out["b"]) == {False, True}
    draws = imputer.sample(gaps, 5)
    assert (draws[..., 1] % 1 == 0).all()
    assert set(np.unique(draws[..., 2])) == {0, 1}


def test_draws_stay_in_the_range_of_a_small_integer_type():
    frame = pd.DataFrame(
        {"x": 100 * X, "c": pd.array(np.clip(np.rint(100 * X), 0, 255), dtype="UInt8")}
    )
    frame.loc[HIDDEN, "c"] = pd.NA
    assert CSDIImputer(**GAUSSIAN).fit(frame).transform(frame)["c"].between(0, 255).all()


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]"])
def test_observed_integers_beyond_floats_are_untouched(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    keys = 1_700_000_000_123_456_789 + 1001 * np.arange(40)
    frame = pd.DataFrame({"key": pd.array(keys, dtype=dtype), "x": np.arange(40)})
    frame.loc[3, "key"] = pd.NA
    out = CSDIImputer(**GAUSSIAN).fit(frame).transform(frame)
    assert out["key"].drop(3).tolist() == np.delete(keys, 3).tolist()
    assert abs(int(out["key"][3]) - int(keys[3])) < 2000


def test_lists_of_frames_with_gaps_in_some():
    frame = frame_of(COLUMNS["category"]).assign(n=pd.array(WHOLE, dtype="Int64"))
    frame.loc[150:, "n"] = pd.NA
    parts = [frame[:100], frame[100:]]
    imputer = CSDIImputer(**GAUSSIAN, window_length=10).fit(parts)
    for given, out in zip(parts, imputer.transform(parts)):
        assert (out.dtypes == given.dtypes).all()
        assert out.notna().all(axis=None)
    draws = imputer.sample(parts, 3)
    assert [len(copy) for copy in draws] == [2, 2, 2]


def test_draws_with_labels_are_completed_copies_with_frequencies():
    frame = frame_of(COLUMNS["category"])
    frame["x"] = np.random.default_rng(2).normal(size=200)  # tells nothing
    imputer = CSDIImputer(**GAUSSIAN).fit(frame)
    draws = imputer.sample(frame, 100)
    assert len(draws) == 100
    assert all((copy.dtypes == frame.dtypes).all() for copy in draws)
    drawn = pd.concat([copy["c"][HIDDEN] for copy in draws]).value_counts(normalize=True)
    expected = frame["c"].value_counts(normalize=True)
    assert (drawn - expected).abs().max() < 0.1
    again = imputer.sample(frame, 100)
    pd.testing.assert_frame_equal(draws[7], again[7])


def test_a_network_takes_labels():
    frame = frame_of(COLUMNS["category"])
    imputer = CSDIImputer(max_iter=3, n_channels=8, n_draws=4, random_state=0).fit(frame)
    assert imputer.transform(frame)["c"].notna().all()


def test_a_category_that_fit_has_not_seen_is_named():
    frame = frame_of(COLUMNS["text"])
    imputer = CSDIImputer(**GAUSSIAN).fit(frame)
    frame.loc[5, "c"] = "lemon"
    with pytest.raises(ValueError, match=r"Column 'c' of X has the category 'lemon', which fit"):
        imputer.transform(frame)
    with pytest.raises(ValueError, match="must be a DataFrame with the columns and labels of fit"):
        imputer.transform(np.ones((3, 2)))


def test_text_and_numbers_in_one_column_are_named():
    frame = pd.DataFrame({"x": X, "size": pd.Series(["a", 1.5] * 100, dtype=object)})
    with pytest.raises(ValueError, match=r"Column 'size' of X mixes text and .*1\.5"):
        CSDIImputer(**GAUSSIAN).fit(frame)


def test_probabilities_are_the_shares_of_the_draws():
    frame = frame_of(COLUMNS["category"]).assign(o=frame_of(COLUMNS["ordered"])["c"][::-1].values)
    imputer = CSDIImputer(**GAUSSIAN).fit(frame)
    found, draws = imputer.predict_proba(frame), imputer.sample(frame)
    assert found.columns.get_level_values(0).unique().tolist() == ["c", "o"]
    assert found.index.equals(frame.index)
    np.testing.assert_allclose(found.T.groupby(level=0).sum(), 1)
    share = np.mean([copy["c"] == "kiwi" for copy in draws], axis=0)
    np.testing.assert_allclose(found["c", "kiwi"], share)
    assert set(found["o"][frame["o"].notna()].to_numpy().ravel()) == {0, 1}
    # Over many draws the category filled in is the likeliest.
    assert (found["c"].idxmax(axis=1)[HIDDEN] == imputer.transform(frame)["c"][HIDDEN]).all()


@pytest.mark.parametrize("window_length", [None, 10])
def test_probabilities_of_lists_and_without_labels(window_length):
    frame = frame_of(COLUMNS["text"])
    parts = [frame[:90], frame[90:]]
    found = CSDIImputer(**GAUSSIAN, window_length=10).fit(parts).predict_proba(parts)
    assert [len(part) for part in found] == [90, 110]
    numbers = CSDIImputer(**GAUSSIAN, window_length=window_length).fit(frame[["x"]])
    with pytest.raises(AttributeError, match="no attribute 'predict_proba'") as caught:
        numbers.predict_proba(frame[["x"]])
    assert "predict_proba is for columns of labels" in str(caught.value.__cause__)


def test_quantiles_beside_labels_are_frames():
    frame = frame_of(COLUMNS["ordered"]).assign(u=frame_of(COLUMNS["text"])["c"][::-1].values)
    frame["x"] = frame["x"].mask(HIDDEN)
    low, high = (
        CSDIImputer(**GAUSSIAN | {"n_draws": 19}).fit(frame).predict_quantiles(frame, [0.05, 0.95])
    )
    assert (low.dtypes == frame.dtypes).all()
    assert (low["x"][HIDDEN] < high["x"][HIDDEN]).all()
    assert (low["c"] <= high["c"]).all()
    assert (low["c"] < high["c"]).any()
    assert low["u"].equals(high["u"])


@pytest.mark.parametrize("dtype", [object, "category"])
def test_gaps_of_a_column_of_one_label_get_it(dtype):
    frame = frame_of(pd.Series(["fig"] * 200, dtype=dtype))
    filled = CSDIImputer(**GAUSSIAN).fit_transform(frame)["c"]
    assert (filled == "fig").all()


def test_a_placeholder_is_for_numbers():
    with pytest.raises(ValueError, match=r"missing_values=-1 is for columns of numbers"):
        CSDIImputer(**GAUSSIAN, missing_values=-1).fit(frame_of(COLUMNS["text"]))


def test_the_rest_of_the_interface_counts_features_not_real_columns():
    frame = frame_of(COLUMNS["category"]).assign(empty=np.nan)
    imputer = CSDIImputer(**GAUSSIAN, add_indicator=True)
    with pytest.warns(UserWarning, match=r"Features \['empty'\]"):
        imputer.fit(frame)
    assert imputer.n_features_in_ == len(imputer.mean_) == 3
    out = imputer.transform(frame)
    assert out.columns.tolist() == ["x", "c", "missingindicator_c", "missingindicator_empty"]
    assert (out["missingindicator_c"] == HIDDEN).all()


def curved(n=600):
    """A label that a straight line does not know: married in the middle of life."""
    rng = np.random.default_rng(0)
    age, other = rng.uniform(20, 70, n), rng.normal(size=n)
    p = 1 / (1 + np.exp((np.abs(age - 45) - 10) * 0.8))
    truth = np.where(rng.random(n) < p, "yes", "no")
    frame = pd.DataFrame({"age": age, "other": other, "married": truth})
    hidden = rng.random(n) < 0.3
    return frame.assign(married=frame["married"].mask(hidden)), truth, hidden, p


def test_labels_are_drawn_with_the_probabilities_that_the_row_gives():
    frame, truth, hidden, p = curved()
    found = CSDIImputer(**GAUSSIAN | {"n_draws": 50}).fit(frame).predict_proba(frame)
    error = found["married", "yes"][hidden] - p[hidden]
    # A Gaussian says about 0.4 everywhere: an error of 0.36.
    assert np.sqrt(np.mean(error**2)) < 0.2
    # Calibrated: half of those said to be so are so.
    assert (found["married", "yes"][hidden].mean() - (truth == "yes")[hidden].mean()) < 0.1


def test_draws_of_labels_depend_on_their_row_alone():
    frame, _, hidden, _ = curved(200)
    frame["age"] = frame["age"].mask(np.arange(200) % 3 == 0)
    imputer = CSDIImputer(**GAUSSIAN).fit(frame)
    draws = imputer.sample(frame, 4)
    some = np.flatnonzero(hidden)[3:9]
    for copy, alone in zip(draws, imputer.sample(frame.iloc[some[::-1]], 4)):
        pd.testing.assert_series_equal(copy["married"].iloc[some[::-1]], alone["married"])
    for copy, more in zip(draws, imputer.sample(frame, 9)):
        pd.testing.assert_frame_equal(copy, more)


def test_two_labels_of_a_row_are_drawn_together():
    rng = np.random.default_rng(0)
    first = np.array(["a", "b", "c"])[rng.integers(0, 3, 500)]
    same = np.where(rng.random(500) < 0.95, first, "a")
    frame = pd.DataFrame({"u": first, "v": same, "x": rng.normal(size=500)})
    frame.loc[:150, ["u", "v"]] = None
    draws = CSDIImputer(**GAUSSIAN).fit(frame).sample(frame, 9)
    agree = np.mean([(copy["u"] == copy["v"])[:150].mean() for copy in draws])
    assert agree > 0.85  # one by one it would be 0.33


# ------------------------------------------------------------------ floats that are whole numbers


def flags_and_counts(n=400):
    """Two columns of numbers that tell one of 0 and 1 and one of counts, all of them floats."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    flag = (x[:, 0] + 0.7 * rng.normal(size=n) > 1).astype(float)
    count = np.clip(np.rint(2 + x[:, 1] + rng.normal(size=n)), 0, None)
    full = np.c_[x, flag, count]
    return full, np.where(rng.random(full.shape) < 0.2, np.nan, full)


@pytest.mark.parametrize("window_length", [None, 8])
@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame])
def test_floats_of_a_few_whole_numbers_are_drawn_as_such(kind, window_length):
    full, gaps = flags_and_counts()
    imputer = CSDIImputer(method="gaussian", window_length=window_length, random_state=0)
    given = kind(gaps)
    draws = imputer.fit(given).sample(given)
    flags, counts = (draws[np.isnan(gaps[:, j])][..., j] for j in (2, 3))
    assert set(np.unique(flags)) == {0.0, 1.0}
    assert (counts == np.rint(counts)).all()
    assert counts.min() >= 0
    truth = full[np.isnan(gaps[:, 2]), 2]
    assert abs(flags.mean() - truth.mean()) < 0.1
    assert ((flags.mean(axis=1) - truth) ** 2).mean() < 0.7 * truth.var()


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame])
def test_a_median_of_flags_is_a_flag_and_a_mean_their_share(kind):
    _, gaps = flags_and_counts()
    given, gone = kind(gaps), np.isnan(gaps)
    imputer = CSDIImputer(method="gaussian", n_draws=4, random_state=0).fit(given)
    filled = np.asarray(imputer.transform(given))
    assert set(filled[gone[:, 2], 2]) == {0.0, 1.0}
    assert (filled[gone[:, 3], 3] % 1 == 0).all()
    shares = np.asarray(imputer.set_params(statistic="mean").transform(given))[gone[:, 2], 2]
    assert set(shares) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_few_or_broken_numbers_stay_numbers():
    """Ten rows of 0 and 1 say nothing, and halves are no counts."""
    rng = np.random.default_rng(0)
    few = np.c_[rng.normal(size=18), np.arange(18) % 2.0]
    halves = np.c_[rng.normal(size=200), rng.integers(0, 4, 200) / 2]
    for x in (few, halves):
        gaps = np.where(np.arange(len(x))[:, None] % 9 == [8, 0], np.nan, x)
        draws = CSDIImputer(method="gaussian", random_state=0).fit(gaps).sample(gaps)
        assert (draws[np.isnan(gaps[:, 1])][..., 1] % 0.5 > 0).any()


@pytest.mark.parametrize("values", [[1, 2], [-1, 0], [0, 2, 4], [7]])
def test_draws_of_a_few_whole_numbers_are_among_them(values):
    """Codes such as 1 and 2 for the sexes have no 0 and no 3."""
    rng = np.random.default_rng(0)
    full = np.c_[rng.normal(size=300), rng.choice(values, 300)]
    gaps = np.where(rng.random(full.shape) < 0.3, np.nan, full)
    draws = CSDIImputer(method="gaussian", random_state=0).fit(gaps).sample(gaps, n_draws=20)
    assert set(np.unique(draws[..., 1])) == set(values)
