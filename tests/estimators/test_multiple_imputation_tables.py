"""Multiple imputation of frames with text, of pipelines and of any analysis, with named results."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skdiffusion import CSDIImputer, MultipleImputation
from skdiffusion.estimators import pool_rubin

GAUSSIAN = CSDIImputer(method="gaussian")


def table(n=400, seed=0):
    rng = np.random.default_rng(seed)
    town = rng.choice(["Bonn", "Rome", "Oslo"], n)
    height = (town == "Rome") + rng.normal(size=n)
    frame = pd.DataFrame({"height": height, "town": town, "n": rng.poisson(2, n)})
    y = pd.Series(height - 2 * (town == "Oslo") + 0.5 * rng.normal(size=n), name="wealth")
    gaps = frame.mask(rng.random(frame.shape) < [0.2, 0.2, 0.0])
    return frame, gaps, y


def regression():
    prepare = make_column_transformer(
        (OneHotEncoder(categories=[["Bonn", "Oslo", "Rome"]], drop="first"), ["town"]),
        (StandardScaler(with_std=False), ["height"]),
        verbose_feature_names_out=False,
    )
    return make_pipeline(prepare, LinearRegression())


def test_a_pipeline_on_a_frame_with_text_is_pooled_by_name():
    _, gaps, y = table()
    model = MultipleImputation(GAUSSIAN, regression(), 8, random_state=0).fit(gaps, y)
    summary = model.summary()
    assert summary.index.tolist() == ["intercept", "town_Oslo", "town_Rome", "height"]
    truth = pd.Series({"town_Oslo": -2, "town_Rome": 0, "height": 1})
    error = (summary["estimate"] - truth).dropna() / summary["standard_error"]
    assert (error.dropna().abs() < 5).all()
    assert (summary.loc[["town_Oslo", "height"], "p_value"] < 1e-6).all()
    assert (summary["low"] < summary["estimate"]).all()
    assert (summary["fraction_missing"] > 0.02).all()
    prediction = model.predict(gaps)
    assert np.corrcoef(prediction, y)[0, 1] > 0.7
    again = MultipleImputation(GAUSSIAN, regression(), 8, random_state=0).fit(gaps, y)
    pd.testing.assert_frame_equal(again.summary(), summary)
    np.testing.assert_array_equal(again.predict(gaps), prediction)


def test_any_analysis_of_the_completed_frame():
    _, gaps, y = table()
    seen = []

    def means(copy):
        seen.append(copy)
        groups = copy.groupby("town")["wealth"]
        return groups.mean(), groups.std() / np.sqrt(groups.size())

    model = MultipleImputation(GAUSSIAN, means, 5, random_state=0).fit(gaps, y)
    assert [list(copy.columns) for copy in seen] == [["height", "town", "n", "wealth"]] * 5
    assert all(copy.notna().all(axis=None) for copy in seen)
    assert all((copy["n"] == gaps["n"]).all() and copy["n"].dtype == "int64" for copy in seen)
    summary = model.summary()
    assert summary.index.tolist() == ["Bonn", "Oslo", "Rome"]
    by_hand = pool_rubin(*zip(*[(m, s**2) for m, s in map(means, seen[:5])]))
    np.testing.assert_allclose(summary["standard_error"], by_hand.standard_error)
    assert not hasattr(model, "predict")
    alone = MultipleImputation(GAUSSIAN, lambda copy: ([copy["height"].mean()], [0.1]), 3)
    assert alone.fit(gaps).summary().index.tolist() == [0]


def test_results_of_statsmodels_are_pooled_with_their_degrees_of_freedom():
    api = pytest.importorskip("statsmodels.formula.api")
    frame, gaps, y = table()
    analysis = lambda copy: api.ols("wealth ~ height + C(town)", copy).fit()  # noqa: E731
    complete = MultipleImputation(GAUSSIAN, analysis, 2).fit(frame, y).summary()
    expected = analysis(frame.assign(wealth=y))
    np.testing.assert_allclose(complete["estimate"], expected.params)
    np.testing.assert_allclose(complete["standard_error"], expected.bse)
    # Barnard and Rubin's, without gaps: slightly fewer than those of the residuals.
    assert complete["df"].iloc[0] == pytest.approx(396 * 397 / 399)
    np.testing.assert_allclose(complete["p_value"], expected.pvalues, rtol=0.05, atol=1e-12)
    summary = MultipleImputation(GAUSSIAN, analysis, 5, random_state=0).fit(gaps, y).summary()
    assert list(summary.index) == list(expected.params.index)
    # Gaps cost what was in them; the residuals of one sample may be a little smaller without.
    ratio = summary["standard_error"] / complete["standard_error"]
    assert ratio.min() > 0.95
    assert ratio["height"] > 1.2


def test_classifiers_take_frames_with_text():
    _, gaps, y = table()
    label = np.where(y > 0, "rich", "poor")
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]), remainder="passthrough"
    )
    model = MultipleImputation(
        GAUSSIAN, make_pipeline(prepare, RandomForestClassifier(20, random_state=0)), 3,
        random_state=0,
    ).fit(gaps, label)  # fmt: skip
    assert model.score(gaps, label) > 0.8
    assert not hasattr(model, "pooled_")
    with pytest.raises(AttributeError, match="no variance of the coefficients"):
        model.summary()


def test_a_shift_of_what_was_filled_moves_the_estimates_by_the_share_missing():
    _, gaps, y = table()
    share = gaps["height"].isna().mean()

    def mean(copy):
        return {"mean": copy["height"].mean()}, {"mean": 0.05}

    plain = MultipleImputation(GAUSSIAN, mean, 4, random_state=0).fit(gaps, y)
    table_of = plain.sensitivity(gaps, y, column="height", shifts=[-1, 0, 2, np.square])
    estimate = table_of["estimate"]
    assert table_of.index.names == ["shift", "name"]
    assert estimate[0, "mean"] == pytest.approx(plain.summary().loc["mean", "estimate"])
    assert estimate[2, "mean"] - estimate[0, "mean"] == pytest.approx(2 * share)
    assert estimate[-1, "mean"] - estimate[0, "mean"] == pytest.approx(-share)
    assert estimate["square", "mean"] > estimate[0, "mean"]
    moved = MultipleImputation(GAUSSIAN, mean, 4, delta={"height": 2}, random_state=0)
    assert moved.fit(gaps, y).summary().loc["mean", "estimate"] == estimate[2, "mean"]


def test_shifts_of_arrays_labels_and_unknown_columns():
    _, gaps, y = table()
    X = gaps[["height", "n"]].to_numpy(dtype=float)
    model = MultipleImputation(GAUSSIAN, Ridge(), 2, delta={0: 1.0}, random_state=0).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    to_rome = lambda labels: labels.where(labels == "Bonn", "Rome")  # noqa: E731
    seen = []
    analysis = lambda copy: (seen.append(copy), ([0.0], [1.0]))[1]  # noqa: E731
    MultipleImputation(GAUSSIAN, analysis, 2, delta={"town": to_rome}).fit(gaps)
    assert all(set(copy["town"][gaps["town"].isna()]) <= {"Bonn", "Rome"} for copy in seen)
    with pytest.raises(ValueError, match="column 'town' holds labels: give a function"):
        MultipleImputation(GAUSSIAN, analysis, 2, delta={"town": 1}).fit(gaps)
    with pytest.raises(ValueError, match=r"delta names \['weight'\], which are no columns of X"):
        MultipleImputation(GAUSSIAN, analysis, 2, delta={"weight": 1}).fit(gaps)


def test_copies_with_other_columns_say_so():
    _, gaps, y = table()
    sizes = iter([1, 2, 2])
    analysis = lambda copy: (np.ones(k := next(sizes)), np.ones(k))  # noqa: E731
    model = MultipleImputation(GAUSSIAN, analysis, 3).fit(gaps, y)
    with pytest.raises(AttributeError, match=r"different numbers of estimates \(\[1, 2\]\)"):
        _ = model.pooled_
    with pytest.raises(TypeError, match="must return estimates and their standard errors"):
        MultipleImputation(GAUSSIAN, lambda copy: 3, 2).fit(gaps, y)


def test_p_values_are_those_of_students_t():
    pooled = pool_rubin([[2.0, 0.0]] * 3, [[1.0, 0.0]] * 3, complete_df=1e9)
    assert pooled.p_value == pytest.approx([0.0455003, 1])


def test_a_polars_frame_with_text():
    pl = pytest.importorskip("polars")
    _, gaps, y = table(150)
    frame = pl.from_pandas(gaps)
    model = MultipleImputation(GAUSSIAN, regression(), 2, random_state=0)
    expected = model.fit(gaps, y).summary()
    pd.testing.assert_frame_equal(model.fit(frame, y.to_numpy()).summary(), expected)


def test_a_logistic_regression_in_a_pipeline():
    _, gaps, y = table()
    scaled = make_pipeline(StandardScaler(), LogisticRegression(C=np.inf))
    model = MultipleImputation(GAUSSIAN, scaled, 10, random_state=0)
    summary = model.fit(gaps[["height", "n"]], (y > 0).astype(int)).summary()
    assert summary.index.tolist() == ["intercept", "height", "n"]
    assert summary.loc["height", "p_value"] < 1e-6
