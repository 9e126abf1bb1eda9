"""Tables with integer, tied and categorical columns: round trips, shares, bounds."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from skdiffusion import ScoreSDE
from skdiffusion.columns.discrete import Category, Grid, snap, spread
from skdiffusion.inputs.table import Table


def small(**kwargs):
    settings = {"base": "gaussian", "hidden_layer_sizes": (16,), "max_iter": 0, "random_state": 0}
    return ScoreSDE(**(settings | kwargs))


def mixed(n=600, seed=0):
    """Income rises with the class; smokers are rare; children are counts."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["low", "mid", "high"], n, p=[0.5, 0.3, 0.2])
    level = pd.Series(group).map({"low": 0.0, "mid": 2.0, "high": 4.0}).to_numpy()
    return pd.DataFrame(
        {
            "income": level + rng.normal(size=n),
            "class": pd.Categorical(group, ["low", "mid", "high"], ordered=True),
            "town": rng.choice(["a", "b"], n),
            "smokes": rng.random(n) < 0.1,
            "children": rng.poisson(1.5, n),
        }
    )


@pytest.mark.parametrize("values", [np.arange(5.0), np.array([0.1, 0.2, 0.5, 1.3]) * 7 + 1e4])
def test_grid_spreads_over_cells_and_snaps_back(values):
    width = np.diff(values).min()
    grid = Grid(values, width)
    u = np.random.default_rng(0).random((1000, len(values)))
    spread = grid.spread(values, u)
    np.testing.assert_allclose(grid.snap(spread), np.broadcast_to(values, u.shape), rtol=1e-12)
    assert np.abs(spread - values).max() == pytest.approx(width / 2, rel=0.02)


def test_categories_become_standard_normal_and_come_back():
    shares = np.array([0.5, 0.05, 0.45])
    codes = np.random.default_rng(0).choice(3, 20000, p=shares).astype(float)
    scores = Category(shares).spread(codes, np.random.default_rng(1).random(20000))
    np.testing.assert_array_equal(Category(shares).snap(scores), codes)
    distance = np.abs(norm.cdf(np.sort(scores)) - (np.arange(20000) + 0.5) / 20000).max()
    assert distance < 2.7 / math.sqrt(20000)  # Kolmogorov's 1e-6
    # Where the density of the scores is N(0, 1), the probability is the share.
    bound = norm.logpdf(scores) + Category(shares).log_volume(scores)
    np.testing.assert_allclose(bound, np.log(shares[codes.astype(int)]))


def test_frames_come_back_as_they_went_in():
    frame = mixed(200)
    table = Table(True)
    table.learn_categories(frame)
    codes = table.codes(frame)
    table.fit(frame, codes, [t.kind in "iu" for t in frame.dtypes])
    uniforms = np.random.default_rng(0).random((len(codes), len(table.discrete)))
    values = spread(codes, table.discrete, uniforms)
    again = table.restore(snap(values, table.discrete), frame.columns, True)
    pd.testing.assert_frame_equal(again, frame)
    assert sorted(table.discrete) == [1, 2, 3, 4]


def test_sample_of_a_mixed_table_has_its_types_shares_and_dependence():
    frame = mixed(1500)
    model = small().fit(frame)
    draws = model.sample(4000)
    assert draws.dtypes.equals(frame.dtypes)
    for name in ("class", "town", "smokes"):
        expected = frame[name].value_counts(normalize=True)
        got = draws[name].value_counts(normalize=True).reindex(expected.index)
        assert np.abs(got - expected).max() < 0.06
    assert set(draws["children"]) <= set(range(frame["children"].max() + 1))
    assert draws["children"].mean() == pytest.approx(1.5, abs=0.15)
    means = draws.groupby("class", observed=True)["income"].mean()
    assert means["high"] - means["low"] > 2.5
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(model)).sample(4000), draws)


def test_impute_and_round_trip_of_a_mixed_table():
    frame = mixed(400)
    model = small().fit(frame)
    holes = frame.iloc[:60].copy()
    holes.loc[:29, "class"] = None
    holes.loc[20:, "income"] = np.nan
    filled = model.impute(holes)
    assert filled.dtypes.equals(frame.dtypes)
    assert not filled.isna().any().any()
    known = holes.notna().to_numpy()
    assert (filled.to_numpy()[known] == holes.to_numpy()[known]).all()
    high = frame.iloc[:60]["class"].to_numpy()[:20] == "high"
    draws = model.impute(holes.iloc[:20], n_draws=10)
    assert len(draws) == 10
    share = np.mean([np.asarray(draw["class"]) == "high" for draw in draws], axis=0)
    assert share[high].mean() > share[~high].mean() + 0.2
    back = model.inverse_transform(model.transform(frame))
    assert (back["class"] == frame["class"]).mean() > 0.99
    assert (back["children"] == frame["children"]).mean() > 0.99


def test_log_probability_of_categories_is_bounded_and_nearly_reached():
    """Two independent labels: sums over all combinations of exp(E log p) stay below one."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(["x", "y"], 3000, p=[0.8, 0.2]), "b": rng.random(3000)})
    frame["b"] = np.where(frame["b"] < 0.3, "u", "v")
    model = small(base="gaussian", marginals=None).fit(frame)
    truth = {"x": 0.8, "y": 0.2, "u": 0.3, "v": 0.7}
    many = pd.concat([frame.drop_duplicates()] * 200)
    bound = pd.Series(model.score_samples(many)).groupby([many["a"].values, many["b"].values])
    for (a, b), value in bound.mean().items():
        assert value == pytest.approx(math.log(truth[a] * truth[b]), abs=0.12)
    assert np.exp(bound.mean()).sum() <= 1 + 1e-3


def test_integer_and_tied_columns_come_back_on_their_grid():
    rng = np.random.default_rng(0)
    X = np.c_[np.round(rng.normal(size=400), 1), rng.normal(size=400)]
    draws = small().fit(X).sample(300)
    np.testing.assert_allclose(draws[:, 0], np.round(draws[:, 0], 1), atol=1e-9)
    assert len(np.unique(draws[:, 1])) == 300
    counts = pd.DataFrame({"n": rng.poisson(50, 200), "x": rng.normal(size=200)})
    model = small().fit(counts)
    assert model.sample(5).shape == (5, 2)
    draws = model.set_output(transform="pandas").sample(50)
    assert draws.dtypes.equals(counts.dtypes)
    # A uniform grid of width one: the density of the spread counts is their probability.
    assert model.score(counts) < 0
    off = small(dequantize=False)
    with pytest.warns(UserWarning, match=r"\[0\].*not spread over a grid"):
        assert off.fit(X).score(X) > small().fit(X).score(X)


def test_counts_of_a_nullable_type_come_back_in_it():
    counts = pd.array(np.random.default_rng(0).poisson(1.5, 300), dtype="Int64")
    frame = pd.DataFrame({"children": counts, "town": np.where(counts > 1, "a", "b")})
    drawn = small().fit(frame).sample(50)
    assert drawn.dtypes.equals(frame.dtypes)
    assert drawn["children"].isin(frame["children"]).all()


def test_a_zero_inflated_column_is_named():
    rng = np.random.default_rng(0)
    X = np.c_[np.where(rng.random(300) < 0.7, 0.0, rng.normal(size=300)), rng.normal(size=300)]
    with pytest.warns(UserWarning, match=r"\[0\].*not spread over a grid"):
        small().fit(X)


class TestRefusals:
    def test_unknown_category_is_named(self):
        frame = mixed(100)
        model = small(base="gaussian").fit(frame)
        other = frame.copy()
        other["town"] = "c"
        with pytest.raises(ValueError, match=r"'town'.*'c'.*not seen"):
            model.score_samples(other)

    def test_numbers_for_a_mixed_table(self):
        model = small(base="gaussian").fit(mixed(100))
        with pytest.raises(ValueError, match="must be a DataFrame"):
            model.score_samples(np.zeros((3, 5)))

    def test_missing_label(self):
        frame = mixed(100).astype({"town": object})
        frame.loc[3, "town"] = None
        with pytest.raises(ValueError, match="contains NaN"):
            small().fit(frame)

    def test_times(self):
        frame = mixed(100).assign(day=pd.date_range("2020", periods=100))
        with pytest.raises(TypeError, match=r"'day'.*turn them into numbers"):
            small().fit(frame)

    def test_a_single_label(self):
        with pytest.raises(ValueError, match=r"'town'.*constant"):
            small().fit(mixed(100).assign(town="a"))
