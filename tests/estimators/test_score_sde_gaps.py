"""What is missing of rows, and how likely what is there: draws given values, marginal densities."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from skdiffusion import ScoreSDE

COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.0], [0.3, 0.0, 1.0]])


def skewed(n, seed=0):
    """Correlated columns, the last of which is skewed."""
    rows = np.random.default_rng(seed).multivariate_normal(np.ones(3), COVARIANCE, n)
    rows[:, 2] = np.exp(rows[:, 2])
    return rows


def integral(model, row, low, high, n=20_001):
    """Log of the density of a row with one gap, summed over the values that the gap may have."""
    grid = np.linspace(low, high, n)
    rows = np.repeat(row[None], n, axis=0)
    rows[:, np.isnan(row)] = grid[:, None]
    return np.log(np.exp(model.score_samples(rows)).sum() * (grid[1] - grid[0]))


GAPS = [
    (np.array([np.nan, 1.5, 3.0]), -5, 7),
    (np.array([0.0, np.nan, 2.0]), -5, 7),
    (np.array([0.5, 1.5, np.nan]), -60, 100),
]


@pytest.fixture(
    scope="module", params=["gaussian", "mixture", "histogram", "copula", "kde", "chain"]
)
def model(request):
    kind = request.param
    marginals = kind if kind in ("histogram", "copula") else None
    base = "mixture" if marginals else kind
    settings = {"max_iter": 0, "handle_missing": "impute", "random_state": 0}
    return ScoreSDE(base=base, marginals=marginals, **settings).fit(skewed(600))


@pytest.mark.parametrize(("row", "low", "high"), GAPS)
def test_density_of_what_is_observed_is_the_integral(model, row, low, high):
    """Exact in closed form; a chain's is an average over 400 candidates."""
    exact = model.base_ != "chain"
    expected = integral(model, row, low, high)
    (found,) = model.score_samples(row[None])
    assert found == pytest.approx(expected, abs=0.005 if exact else 0.1)


def test_rows_with_and_without_gaps_go_together(model):
    rows = np.vstack([skewed(3, seed=1), [row for row, *_ in GAPS], [[np.nan] * 3]])
    together = model.score_samples(rows)
    np.testing.assert_allclose(together[:3], model.score_samples(rows[:3]), rtol=1e-9)
    np.testing.assert_allclose(together[4:5], model.score_samples(rows[4:5]), rtol=1e-9)
    assert together[-1] == 0
    assert model.score(rows) == pytest.approx(together.mean())


def test_density_of_one_column_is_its_marginal():
    """A Gaussian in the user's units: N(1, 1) for the first column, up to sampling error."""
    X = np.random.default_rng(0).multivariate_normal(np.ones(3), COVARIANCE, 4000) * [1, 10, 1]
    model = ScoreSDE(base="gaussian", max_iter=0, marginals=None, handle_missing="impute").fit(X)
    rows = np.array([[2.0, np.nan, np.nan], [np.nan, 30.0, np.nan]])
    expected = stats.norm.logpdf([2.0, 30.0], [1.0, 10.0], [1.0, 10.0])
    np.testing.assert_allclose(model.score_samples(rows), expected, atol=0.1)


def test_shares_of_labels_are_marginal_probabilities():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.choice(["S", "L"], 2000, p=[0.3, 0.7])})
    frame["rent"] = rng.normal(size=2000) + 3 * (frame["size"] == "L")
    settings = {"base": "gaussian", "max_iter": 0, "marginals": None}
    model = ScoreSDE(**settings, handle_missing="impute", random_state=0).fit(frame)
    alone = pd.DataFrame({"size": ["S", "L"], "rent": [np.nan, np.nan]})
    # Labels are normal scores, of which the Gaussian has the right mean and variance.
    np.testing.assert_allclose(np.exp(model.score_samples(alone)), [0.3, 0.7], atol=0.02)


@pytest.mark.parametrize("base", ["mixture", "chain"])
def test_with_a_network_it_is_estimated(base):
    settings = {"max_iter": 30, "hidden_layer_sizes": (16,), "early_stopping": False}
    settings |= {"learning_rate": 1e-2, "handle_missing": "impute", "random_state": 0}
    model = ScoreSDE(base=base, marginals=None, **settings).fit(skewed(400))
    if model.model_.denoiser.network is None:
        model.partial_fit(skewed(400))
    for row, low, high in GAPS:
        found = model.score_samples(row[None])[0]
        assert found == pytest.approx(integral(model, row, low, high, 800), abs=0.2)


def test_gaps_are_refused_where_fit_refused_them_and_with_a_condition():
    row = np.array([[np.nan, 1.0, 2.0]])
    model = ScoreSDE(base="gaussian", max_iter=0).fit(skewed(100))
    with pytest.raises(ValueError, match="contains NaN"):
        model.score_samples(row)
    settings = {"base": "gaussian", "max_iter": 0, "handle_missing": "impute"}
    model = ScoreSDE(condition="value", **settings).fit(skewed(100), np.arange(100.0))
    assert np.isfinite(model.score_samples(row)).all()
    with pytest.raises(ValueError, match="leave y out"):
        model.score_samples(row, [5.0])


def test_draws_given_a_value_are_those_of_the_conditional_normal():
    """Mean m_u + C_uo (x - m_o), known; by name, by number and for several columns."""
    X = np.random.default_rng(0).multivariate_normal(np.ones(3), COVARIANCE, 5000)
    frame = pd.DataFrame(X, columns=list("abc"))
    model = ScoreSDE(base="gaussian", max_iter=0, marginals=None, random_state=0)
    model.set_output(transform="pandas").fit(frame)
    draws = model.sample(4000, given={"a": 2.0})
    assert (draws["a"] == 2.0).all()
    np.testing.assert_allclose(draws[["b", "c"]].mean(), [1.8, 1.3], atol=0.1)
    assert draws["b"].std() == pytest.approx(0.6, abs=0.05)
    pd.testing.assert_frame_equal(draws, model.sample(4000, given={0: 2.0}))
    both = model.sample(4000, given={"b": 1.0, "c": 2.0}, random_state=1)
    np.testing.assert_allclose(both["a"].mean(), 1.3, atol=0.1)


def test_draws_given_a_label():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.choice(["S", "L"], 1000), "rooms": rng.poisson(3, 1000)})
    frame["rent"] = 0.5 * rng.normal(size=1000) + 4 * (frame["size"] == "L")
    model = ScoreSDE(base="mixture", max_iter=0, random_state=0).fit(frame)
    for label, mean in (("S", 0), ("L", 4)):
        draws = model.sample(400, given={"size": label})
        assert draws.dtypes.equals(frame.dtypes)
        assert (draws["size"] == label).all()
        assert draws["rent"].mean() == pytest.approx(mean, abs=0.3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "XL"}, r"given\['size'\] is 'XL', which fit has not seen; it knows \['L', 'S'\]"),
        ({"colour": 1}, r"given names the column 'colour', but fit has seen \['size', 'rooms'\]"),
        ({2: 1}, "given names the column 2"),
        ({"rooms": 2.5}, r"given\['rooms'\] is 2.5, but the column goes from"),
        ({"rooms": "two"}, r"given\['rooms'\]='two' must be a finite number"),
        ({"rooms": 2, 1: 3}, "given has the column 'rooms' twice"),
        ({}, "must be a dict of values"),
        (3, "must be a dict of values"),
    ],
)
def test_what_is_given_must_be_known(given, message):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.choice(["S", "L"], 100), "rooms": rng.poisson(3, 100)})
    model = ScoreSDE(base="gaussian", max_iter=0).fit(frame)
    with pytest.raises(ValueError, match=message):
        model.sample(2, given=given)


def test_given_values_go_without_a_condition():
    model = ScoreSDE(base="gaussian", max_iter=0, condition="value", random_state=0)
    model.fit(skewed(100), np.arange(100.0))
    assert (model.sample(3, given={1: 0.5})[:, 1] == 0.5).all()
    with pytest.raises(ValueError, match="leave y out"):
        model.sample(3, 5.0, given={1: 0.5})
