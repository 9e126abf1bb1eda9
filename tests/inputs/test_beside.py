"""What stands beside X is matched by name, and what lies far outside the training data warns."""

import warnings

import numpy as np
import pandas as pd
import pytest

from skdiffusion import CSDIImputer, ScoreSDE

RNG = np.random.default_rng(0)
F = pd.DataFrame(RNG.normal(size=(200, 2)) * [1, 10], columns=["u", "v"])
Y = (F @ [1.0, 0.3]).to_numpy()[:, None] + 0.1 * RNG.normal(size=(200, 1))


def density(**options):
    return ScoreSDE(
        condition="value", base="gaussian", max_iter=0, hidden_layer_sizes=(8,), random_state=0,
        **options,
    )  # fmt: skip


CALLS = {
    "score_samples": lambda m, given: m.score_samples(Y[:3], given[:3]),
    "sample": lambda m, given: m.sample(3, y=given[:3]),
    "nll_bound": lambda m, given: m.nll_bound(Y[:3], given[:3], n_draws=2),
    "partial_fit": lambda m, given: m.partial_fit(Y, given).score_samples(Y[:3], F[:3]),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_a_condition_is_matched_by_name(call, weighted):
    weight = np.ones(200) if weighted else None
    fit = lambda: density().fit(Y, F, sample_weight=weight)  # noqa: E731
    expected = CALLS[call](fit(), F)
    np.testing.assert_array_equal(CALLS[call](fit(), F[["v", "u"]]), expected)
    np.testing.assert_array_equal(CALLS[call](fit(), F.to_numpy()), expected)
    for other in (F.rename(columns={"u": "other"}), F[["u"]], F.assign(more=1.0)):
        with pytest.raises(ValueError, match=r"y has the columns .*fit has seen \['u', 'v'\]"):
            CALLS[call](fit(), other)


def test_conditions_far_outside_training_are_named_with_their_range():
    model = density().fit(Y, F)
    with pytest.warns(UserWarning, match=r"Column 'v' of y goes from .* to 1e\+06, but fit has"):
        model.sample(1, y=F[:1].assign(v=1e6))
    with pytest.warns(UserWarning, match="Column 0 of y"):
        density().fit(Y, F.to_numpy()).sample(1, y=[[-1e6, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(1, y=[[F["u"].max() + 1, 0.0]])


@pytest.mark.parametrize("window_length", [None, 10])
def test_columns_in_other_units_than_in_fit_are_named(window_length):
    X = pd.DataFrame(RNG.normal(size=(100, 3)), columns=["a", "b", "c"])
    X.iloc[::7, 1] = np.nan
    imputer = CSDIImputer(method="gaussian", n_draws=3, window_length=window_length).fit(X)
    with pytest.warns(UserWarning, match=r"Column b of X is around 100\d.*units of fit"):
        imputer.transform(X.assign(b=10 * X["b"] + 1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imputer.transform(X.assign(b=3 * X["b"] + 1))
