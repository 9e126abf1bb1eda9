"""Scores of labels beside numbers: known values, the same answer for any number of draws."""

import numpy as np
import pandas as pd
import pytest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skdiffusion import CSDIImputer
from skdiffusion.datasets import ampute
from skdiffusion.metrics import crps_loss, get_scorer, make_imputation_scorer, neg_brier_scorer
from skdiffusion.metrics._labels import HeldOut, Labels, mixed_brier, mixed_crps

KINDS = Labels(["x", "c", "o"], np.array([0, 3, 4]), np.array([False, False, True]))


def held_out(truth, draws, labels=KINDS):
    truth = np.asarray(truth, float)
    return HeldOut(truth, np.asarray(draws, float), ~np.isnan(truth), labels)


def test_the_brier_score_is_that_of_the_shares_of_the_draws():
    rng = np.random.default_rng(0)
    truth, draws = rng.integers(0, 3, 40), rng.integers(0, 3, (40, 7))
    p = (draws[..., None] == np.arange(3)).mean(1)
    biased = np.square(p - np.eye(3)[truth]).sum(1)
    fair = biased - (p * (1 - p)).sum(1) / 6
    labels = Labels(["c"], np.array([3]), np.array([False]))
    found = mixed_brier(held_out(truth[:, None], draws[..., None], labels))
    assert found == pytest.approx(fair.mean())


@pytest.mark.parametrize("m", [2, 5, 40])
def test_the_brier_score_does_not_depend_on_the_number_of_draws(m):
    rng, p = np.random.default_rng(1), np.array([0.6, 0.3, 0.1])
    truth, draws = rng.choice(3, 20_000, p=p), rng.choice(3, (20_000, m), p=p)
    labels = Labels(["c"], np.array([3]), np.array([False]))
    found = mixed_brier(held_out(truth[:, None], draws[..., None], labels))
    # One minus the sum of squares, for the truth drawn from the forecast; five standard errors.
    assert found == pytest.approx(1 - np.square(p).sum(), abs=0.035 if m == 2 else 0.02)


def test_one_score_for_numbers_and_labels():
    truth = [[1.0, 0, 3], [np.nan, 2, np.nan]]
    draws = [[[2.0, 0, 0], [2.0, 0, 0]], [[9.0, 1, 9], [9.0, 1, 9]]]
    # A number 1 off, a label right, a label as wrong as can be, twice.
    assert mixed_crps(held_out(truth, draws)) == pytest.approx((1 + 0 + 1 + 1) / 4)
    near = [[[1.0, 0, 2], [1.0, 0, 2]], [[9.0, 2, 9], [9.0, 2, 9]]]
    assert mixed_crps(held_out(truth, near)) == pytest.approx(1 / 3 / 4)


def test_half_of_the_brier_score_is_the_crps_of_indicators_over_two():
    rng = np.random.default_rng(2)
    truth, draws = rng.integers(0, 3, 50), rng.integers(0, 3, (50, 9))
    labels = Labels(["c"], np.array([3]), np.array([False]))
    indicators = crps_loss(np.eye(3)[truth], np.eye(3)[draws]) * 3
    assert mixed_crps(held_out(truth[:, None], draws[..., None], labels)) == pytest.approx(
        indicators / 2
    )


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    group = np.digitize(x + 0.3 * rng.normal(size=300), [-0.7, 0.7])
    frame = pd.DataFrame(
        {
            "x": x,
            "fruit": np.array(["fig", "date", "kiwi"])[group],
            "size": pd.Categorical(np.array(["s", "m", "l"])[group], ["s", "m", "l"], ordered=True),
            "n": pd.array(rng.poisson(np.exp(x)), dtype="Int64"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.1)


@pytest.fixture(scope="module")
def imputer(table):
    return CSDIImputer(method="gaussian", n_draws=20, random_state=0).fit(table)


def test_scorers_take_labelled_tables(table, imputer):
    losses = ["crps", "brier", "mae", "rmse", "energy_score", "interval_coverage_90"]
    scale = table[["x", "n"]].astype(float).std()
    scores = make_imputation_scorer(losses, scale=scale, missing_rate=0.2)(imputer, table)
    assert -0.3 < scores["neg_crps"] < -0.05
    assert -0.6 < scores["neg_brier"] < -0.05
    assert scores["neg_mae"] > -1
    assert make_imputation_scorer(losses, scale=scale, missing_rate=0.2)(imputer, table) == scores
    plain = table.astype(object).where(table.notna(), np.nan)
    worse = neg_brier_scorer(SimpleImputer(strategy="most_frequent").fit(plain), plain)
    assert worse < 2 * scores["neg_brier"] / 1.2
    folds = cross_val_score(imputer, table, scoring=get_scorer("neg_brier"), cv=3)
    assert (folds > -0.8).all()


def test_the_target_of_another_step_is_no_truth_of_labels(table, imputer):
    scorer, target = make_imputation_scorer("brier", n_draws=5), np.arange(len(table))
    for y in (target, list(target), pd.Series(target)):
        assert scorer(imputer, table, y) == scorer(imputer, table)


def test_the_own_score_counts_labels_too(table, imputer):
    own = imputer.score(table)
    assert -0.35 < own < -0.1
    # Of the same cells and draws, by hand: the mean over cells of all columns.
    _, hidden = ampute(np.where(table.isna(), np.nan, 0.0), random_state=imputer._seed % 2**32)
    draws = imputer.sample(table.mask(hidden), 20, random_state=imputer._seed % 2**32)
    scores = []
    scale = dict(zip(table, imputer.scale_))
    for j, name in enumerate(table):
        rows = hidden[:, j]
        x = pd.concat([copy[name][rows] for copy in draws], axis=1)
        y = table[name][rows]
        if name == "fruit":
            p_right = x.eq(y, axis=0).mean(axis=1)
            agree = sum(np.square(x.eq(label).mean(axis=1)) for label in ("fig", "date", "kiwi"))
            scores.append(((1 - 2 * p_right + agree) - (1 - agree) / 19) / 2)
            continue
        if name == "size":
            x, y = x.apply(lambda c: c.cat.codes), y.cat.codes
        unit = 2 if name == "size" else scale[name]
        x, y = x.to_numpy(float) / unit, y.to_numpy(float) / unit
        scores.append([crps_loss(y[[i]], x[[i]]) for i in range(len(y))])
    assert own == pytest.approx(-np.mean(np.concatenate(scores)))


def test_lists_of_labelled_frames_are_scored(table):
    parts = [table[:150], table[150:]]
    model = CSDIImputer(method="gaussian", window_length=5, random_state=0).fit(parts)
    assert make_imputation_scorer("brier", n_draws=5)(model, parts) < 0
    assert model.score(parts) < 0


def test_errors_name_the_remedy(table, imputer):
    with pytest.raises(ValueError, match='"brier" is for cells of labels'):
        neg_brier_scorer(SimpleImputer().fit(table[["x"]]), table[["x"]])
    labels = table[["fruit", "size"]]
    model = CSDIImputer(method="gaussian", random_state=0).fit(labels)
    with pytest.raises(ValueError, match="no hidden cell is in a column of numbers"):
        make_imputation_scorer("mae")(model, labels)
    pipe = make_pipeline(FunctionTransformer(), imputer)
    with pytest.raises(ValueError, match=r"columns \['fruit', 'size'\] of X are labels, which"):
        neg_brier_scorer(pipe, table)
    with pytest.raises(ValueError, match=r"must name the columns of X.*\['n', 'x'\]"):
        make_imputation_scorer(scale=table[["n", "x"]].astype(float).std())(imputer, table)
