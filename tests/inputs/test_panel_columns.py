"""A plain long frame whose columns name series and times, and columns that do not change in one."""

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer
from skdiffusion.metrics import make_imputation_scorer

LENGTHS = {"ann": 40, "bob": 25, "cy": 30, "di": 12}
PANEL = ("patient", "hour")


def imputer(**options):
    return CSDIImputer(method="gaussian", n_draws=5, random_state=0, **options)


def long_frame():
    """Four patients, rows of all of them interleaved, each with an age and a ward of its own."""
    rng, parts = np.random.default_rng(0), []
    for k, (name, n) in enumerate(LENGTHS.items()):
        hours = np.delete(np.arange(n + 2), [3, 9])
        parts.append(
            pd.DataFrame(
                {
                    "patient": name,
                    "pulse": 10 * k + np.sin(hours / 4) + 0.1 * rng.normal(size=n),
                    "hour": hours,
                    "age": 30.5 + 10 * k,
                    "ward": "ab"[k % 2],
                    "beats": pd.array(rng.poisson(70, n), dtype="Int64"),
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    values = ["pulse", "age", "ward", "beats"]
    frame[values] = frame[values].mask(rng.random((len(frame), 4)) < 0.2)
    return frame.iloc[np.argsort(frame["hour"], kind="stable")]


def test_what_goes_in_comes_out_in_the_same_form():
    frame = long_frame()
    fitted = imputer(panel_columns=PANEL, window_length=8).fit(frame)
    assert fitted.feature_names_in_.tolist() == ["pulse", "age", "ward", "beats"]
    assert fitted.time_step_ == 1
    out = fitted.transform(frame)
    assert out.columns.equals(frame.columns)
    assert out.index.equals(frame.index)
    assert (out.dtypes == frame.dtypes).all()
    assert out.notna().all(axis=None)
    pd.testing.assert_frame_equal(out.where(frame.notna()), frame.where(frame.notna(), np.nan))
    assert fitted.get_feature_names_out().tolist() == list(frame.columns)
    assert fitted.set_output(transform="pandas").transform(frame).equals(out)
    indexed = frame.set_index(list(PANEL))
    beside = imputer(window_length=8).fit(indexed).transform(indexed)
    np.testing.assert_array_equal(beside["pulse"], out["pulse"])


def test_columns_of_a_series_that_do_not_change_are_filled_alike():
    frame = long_frame()
    frame.loc[frame["patient"] == "di", ["age", "ward"]] = np.nan
    fitted = imputer(panel_columns=PANEL).fit(frame)
    out = fitted.transform(frame)
    assert (out.groupby("patient")[["age", "ward"]].nunique() == 1).all(axis=None)
    for k, name in enumerate(["ann", "bob", "cy"]):
        mine = out[out["patient"] == name]
        assert set(mine["age"]) == {30.5 + 10 * k}
        assert set(mine["ward"]) == {"ab"[k % 2]}
    for copy in fitted.sample(frame, 4):
        assert (copy.groupby("patient")[["age", "ward"]].nunique() == 1).all(axis=None)
    assert out["pulse"].groupby(out["patient"]).nunique().min() > 5


def test_rows_without_times_are_one_step_apart():
    frame = long_frame().drop(columns="hour")
    out = imputer(panel_columns="patient").fit(frame).transform(frame)
    assert out.columns.equals(frame.columns)
    alone = frame[frame["patient"] == "bob"].drop(columns="patient")
    parts = [part.drop(columns="patient") for _, part in frame.groupby("patient", sort=False)]
    expected = imputer().fit(parts).transform([alone])[0]
    np.testing.assert_array_equal(out[out["patient"] == "bob"]["pulse"], expected["pulse"])


def test_scores_indicators_and_probabilities_leave_the_panel_columns_out():
    frame = long_frame()
    fitted = imputer(panel_columns=PANEL, add_indicator=True).fit(frame)
    assert fitted.score(frame) < 0
    assert make_imputation_scorer(["crps", "brier"], n_draws=4)(fitted, frame)["neg_brier"] <= 0
    out = fitted.transform(frame)
    assert out.columns[-4:].tolist() == [f"missingindicator_{n}" for n in fitted.feature_names_in_]
    assert fitted.predict_proba(frame).index.equals(frame.index)
    numbers = frame.drop(columns="ward")
    fitted = imputer(panel_columns=PANEL).fit(numbers)
    assert fitted.sample(numbers, 3).shape == (len(frame), 3, 3)
    assert make_imputation_scorer("mae")(fitted, numbers) < 0


def test_a_long_polars_frame():
    pl = pytest.importorskip("polars")
    frame = pl.from_pandas(long_frame())
    out = imputer(panel_columns=PANEL).fit(frame).transform(frame)
    assert out.schema == frame.schema
    assert out["patient"].equals(frame["patient"])
    assert out.null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("patient", "day"), r"panel_columns names \['day'\], which are no columns of X"),
        (("a", "b", "c"), "must be the name of the column of the series, or a pair"),
    ],
)
def test_errors_name_the_columns(columns, message):
    with pytest.raises(ValueError, match=message):
        imputer(panel_columns=columns).fit(long_frame())
    with pytest.raises(ValueError, match="give X as a DataFrame"):
        imputer(panel_columns="patient").fit(np.ones((5, 3)))
    frame = long_frame()
    frame.loc[7, "patient"] = None
    with pytest.raises(ValueError, match="Column 'patient', named in panel_columns, has no value"):
        imputer(panel_columns=PANEL).fit(frame)


@pytest.mark.parametrize("kind", [str, int, "category"])
def test_two_columns_of_series_are_no_pair_of_series_and_time(kind):
    frame = pd.DataFrame(
        {"ward": ["x"] * 30 + ["y"] * 30, "bed": ([1] * 10 + [2] * 10 + [3] * 10) * 2}
    )
    frame["bed"] = frame["bed"].astype(kind)
    frame["v"] = np.random.default_rng(0).normal(size=60)
    imputer = CSDIImputer(method="gaussian", panel_columns=["ward", "bed"])
    with pytest.raises(
        ValueError, match=r"'bed' as their times.*panel_columns=\(\['ward', 'bed'\]"
    ):
        imputer.fit(frame)
    assert len(imputer.set_params(panel_columns=(["ward", "bed"], None)).fit_transform(frame)) == 60
