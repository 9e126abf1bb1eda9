"""Labels beside numbers: they tell what they know, and spoil nothing where they know nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

from skdiffusion import CSDIImputer
from skdiffusion.estimators.imputation._shrinkage import shrinks
from skdiffusion.inputs.encoding import Encoding

RNG = np.random.default_rng(0)
N = 120
NUMBERS = RNG.multivariate_normal(np.zeros(4), 0.2 * np.eye(4) + 0.8, N)
HIDDEN = RNG.random(NUMBERS.shape) < 0.2
HIDDEN[HIDDEN.all(1)] = False


def error(extra):
    """Mean absolute error of hidden numbers beside some columns of labels."""
    frame = pd.DataFrame(np.where(HIDDEN, np.nan, NUMBERS), columns=list("abcd")).assign(**extra)
    filled = CSDIImputer(random_state=0).fit_transform(frame)
    return np.abs(filled[list("abcd")].to_numpy() - NUMBERS)[HIDDEN].mean()


@pytest.mark.parametrize("n_labels", [1, 6])
def test_labels_of_no_use_leave_numbers_as_they_are(n_labels):
    rng = np.random.default_rng(1)
    labels = {f"l{i}": rng.choice(list("pqrstuv"), N) for i in range(n_labels)}
    # With one shrinkage for all columns six labels make it a fifth larger.
    assert error(labels) < 1.1 * error({})


def test_names_of_rows_leave_numbers_as_they_are():
    assert error({"name": [f"row {i}" for i in range(N)]}) < 1.1 * error({})


def test_many_labels_of_few_rows_each_take_one_column():
    names = pd.DataFrame({"name": [f"n{i // 2}" for i in range(60)]})
    groups = pd.DataFrame({"group": [f"g{i % 15}" for i in range(60)]})
    assert Encoding.learn([names]).columns[0].width == 1
    assert Encoding.learn([groups]).columns[0].width == 15


def test_missing_names_are_filled_with_names_and_observed_ones_kept():
    frame = pd.DataFrame({"x": np.arange(60.0), "name": [f"n{i // 2:02d}" for i in range(60)]})
    gappy = frame.copy()
    gappy.loc[::7, "name"] = None
    imputer = CSDIImputer(random_state=0, max_iter=5).fit(gappy)
    filled = imputer.transform(gappy)
    assert set(filled["name"]) <= set(gappy["name"].dropna())
    assert (filled["name"] == frame["name"])[gappy["name"].notna()].all()
    shares = imputer.predict_proba(gappy)["name"]
    assert shares.shape[1] == gappy["name"].nunique()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def rows(x, rate=0.2):
    """A table with gaps, as what chooses the shrinkage sees it."""
    seen = np.random.default_rng(2).random(x.shape) > rate
    x = torch.from_numpy((x - x.mean(0)) / x.std(0))
    return x, torch.from_numpy(seen), torch.arange(x.shape[1])


def test_columns_that_are_sums_of_others_are_not_shrunk():
    parts = np.random.default_rng(3).normal(size=(100, 4))
    sums = parts @ np.random.default_rng(4).normal(size=(4, 4))
    assert shrinks(*rows(np.hstack([parts, sums]))) is None


def test_columns_that_tell_nothing_are_shrunk():
    values, seen, owner = rows(np.random.default_rng(5).normal(size=(60, 12)))
    assert shrinks(values, seen, owner) is owner


def test_a_network_is_not_tried_on_few_rows_and_trained_where_it_is_asked_for():
    x = np.where(HIDDEN, np.nan, NUMBERS)[:60]
    assert CSDIImputer(random_state=0).fit(x).history_["loss"] == []
    asked = CSDIImputer(random_state=0, max_iter=2, early_stopping=False).fit(x)
    assert asked.method_ == "diffusion"


def test_new_names_are_no_error_and_are_left_as_they_are():
    names = [f"n{i:02}" for i in range(0, 60, 2)]
    frame = pd.DataFrame({"name": names, "a": np.arange(30.0), "b": np.arange(30.0) ** 2})
    model = CSDIImputer(method="gaussian", random_state=0).fit(frame)
    new = pd.DataFrame({"name": ["n07", "aa", "zz"], "a": [3.0, np.nan, 2.0], "b": [np.nan, 1, 4]})
    filled = model.transform(new)
    assert filled["name"].tolist() == ["n07", "aa", "zz"]
    assert filled.notna().all(axis=None)
    codes = Encoding.learn([frame[["name"]]]).encode(new[["name"]])[:, 0]
    np.testing.assert_array_equal(codes, [3.5, -0.5, 29.5])


def test_a_new_name_of_another_type_is_refused_by_name():
    frame = pd.DataFrame({"name": [f"n{i:02}" for i in range(30)], "a": np.arange(30.0)})
    model = CSDIImputer(method="gaussian", random_state=0).fit(frame)
    new = pd.DataFrame({"name": pd.Series(["n01", 5], dtype=object), "a": [1.0, np.nan]})
    with pytest.raises(ValueError, match="Column 'name' of X has the category 5, which fit has"):
        model.transform(new)
