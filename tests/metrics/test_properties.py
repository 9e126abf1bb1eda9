"""Laws of the losses over generated data: propriety, invariances, the case of one draw."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.impute import SimpleImputer

from skdiffusion.metrics import (
    crps_loss,
    energy_score,
    get_scorer,
    mean_absolute_error,
    quantile_crps_loss,
    root_mean_squared_error,
)

reals = st.floats(-100, 100).map(lambda v: round(v, 4))
few = settings(max_examples=60, deadline=None)


def points(n_features):
    return st.integers(1, 8).flatmap(lambda n: arrays(float, (n, n_features), elements=reals))


def repeated(y, draws):
    """The same draws as the forecast for every truth."""
    return np.broadcast_to(draws, (len(y), *draws.shape))


clouds = st.integers(1, 3).flatmap(lambda d: st.tuples(points(d), points(d)))


@few
@given(st.tuples(points(1), points(1)))
def test_the_true_distribution_has_the_best_expected_crps(pair):
    """The truth is one of its own points with equal chances: the expectation is a plain mean."""
    truth, other = (x[:, 0] for x in pair)
    own, another = (
        crps_loss(truth, repeated(truth, draws), method="ensemble") for draws in (truth, other)
    )
    assert own <= another + 1e-9


@few
@given(clouds)
def test_the_true_distribution_has_the_best_expected_energy_score(pair):
    truth, other = pair
    own, another = (
        energy_score(truth, repeated(truth, draws), method="ensemble") for draws in (truth, other)
    )
    assert own <= another + 1e-9


@few
@given(points(1), arrays(float, 3, elements=reals))
def test_the_true_quantiles_have_the_best_expected_loss(truth, other):
    y = truth[:, 0]
    assume(np.abs(y).sum() > 0)
    levels = [0.1, 0.5, 0.9]
    own = np.quantile(y, levels, method="inverted_cdf")
    losses = [quantile_crps_loss(y, repeated(y, q), levels) for q in (own, other)]
    assert losses[0] <= losses[1] + 1e-9


@few
@given(points(1), reals)
def test_absolute_errors_ask_for_the_median_and_squared_ones_for_the_mean(truth, other):
    y = truth[:, 0]
    for error, best in ((mean_absolute_error, np.median), (root_mean_squared_error, np.mean)):
        own, another = (error(y, np.full(len(y), value)) for value in (best(y), other))
        assert own <= another + 1e-9


@few
@given(st.integers(1, 5).flatmap(lambda n: arrays(float, (2, n), elements=reals)))
def test_the_score_of_one_draw_is_its_absolute_error(pair):
    y, x = pair
    expected = pytest.approx(mean_absolute_error(y, x), rel=1e-12, abs=1e-12)
    assert crps_loss(y, x[:, None], method="ensemble") == expected
    # Rows of one cell, and equal draws: a distribution without spread.
    assert energy_score(y[:, None], x[:, None, None], method="ensemble") == expected
    assert crps_loss(y, np.repeat(x[:, None], 7, axis=1)) == expected


@few
@given(clouds, st.floats(0.01, 100), st.floats(-50, 50))
def test_the_energy_score_follows_units_and_ignores_origin_and_order(pair, scale, shift):
    truth, draws = pair
    score = energy_score(truth, repeated(truth, draws), method="ensemble")
    moved = repeated(truth, scale * draws[::-1] + shift)
    found = energy_score(scale * truth + shift, moved, method="ensemble")
    assert found == pytest.approx(scale * score, rel=1e-6, abs=1e-6)


@few
@given(
    arrays(float, (12, 2), elements=reals),
    st.sampled_from(["neg_crps", "neg_mae", "neg_rmse", "neg_energy_score"]),
    st.floats(0.01, 100),
)
def test_scores_are_in_the_units_of_the_data(X, name, unit):
    scorer, imputer = get_scorer(name), SimpleImputer()
    score = scorer(imputer.fit(X), X)
    found = scorer(imputer.fit(unit * X), unit * X)
    assert found == pytest.approx(unit * score, rel=1e-6, abs=1e-6)
