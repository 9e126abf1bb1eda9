"""Location by a Gaussian process: against scikit-learn's, and predictions that leave rows out."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor

from skdiffusion import ScoreSDE, load, save
from skdiffusion.estimators.density import _smooth
from skdiffusion.estimators.density._regression import Averaged, LocationScaleRegression
from skdiffusion.estimators.density._smooth import SmoothLocation, smooth_location

RNG = np.random.default_rng(0)
N = 60
CONDITION = RNG.normal(size=(N, 3))
TARGET = np.sin(CONDITION[:, 0]) + 0.5 * CONDITION[:, 1] + 0.1 * RNG.normal(size=N)
ALONE = np.arange(N)


def process_of(model, rows, target):
    """Process of scikit-learn with the letters of a model, of some rows."""
    known, mapped = (target[rows] - model.centre) / model.scale, model._mapped(CONDITION)[rows]
    return _smooth._process(known, mapped, _smooth._learnt(known, mapped))


@pytest.mark.parametrize("symmetric", [False, True])
def test_mean_is_that_of_the_process(symmetric):
    model = SmoothLocation(symmetric)
    model.fit(CONDITION, TARGET, ALONE, 0)
    new = RNG.normal(size=(20, 3))
    exact = process_of(model, model_order(), TARGET).predict(model._mapped(new))
    np.testing.assert_allclose(model.predict(new), model.centre + model.scale * exact, atol=1e-6)


def model_order():
    return _smooth._some_rows(ALONE, 0)


@pytest.mark.parametrize("groups", [ALONE, ALONE // 3])
def test_a_row_is_predicted_from_the_other_groups(groups):
    order = _smooth._some_rows(groups, 0)
    rows, target, groups = CONDITION[order], TARGET[order], groups[order]
    process = _smooth._process(target, rows, _smooth._learnt(target, rows))
    residuals = _smooth._residuals(process, groups)
    for group in (0, 7, 19):
        mine = groups == group
        others = GaussianProcessRegressor(process.kernel_, alpha=1e-8, optimizer=None)
        others.fit(rows[~mine], target[~mine])
        np.testing.assert_allclose(
            target[mine] - residuals[mine], others.predict(rows[mine]), atol=1e-7
        )


def test_few_rows_of_many_columns_are_predicted_as_badly_as_new_ones():
    """Twenty lengths fit thirty rows of noise, and predict none of it."""
    rng = np.random.default_rng(5)
    condition, noise = rng.normal(size=(40, 20)), rng.normal(size=40)
    predicted = SmoothLocation(False).fit(condition, noise, np.arange(40), 0)
    assert np.abs(predicted - noise).mean() > 0.9 * np.abs(noise - noise.mean()).mean()


def test_rows_beyond_the_affordable_are_predicted(monkeypatch):
    monkeypatch.setattr(_smooth, "_N_ROWS", 40)
    model = SmoothLocation(False)
    predicted = model.fit(CONDITION, TARGET, ALONE, 0)
    left = np.setdiff1d(ALONE, _smooth._some_rows(ALONE, 0))
    assert len(left) == 20
    np.testing.assert_array_equal(predicted[left], model.predict(CONDITION[left]))


def test_copies_of_a_row_do_not_tell_its_noise():
    copies = np.repeat(ALONE, 2)
    noise = np.random.default_rng(1).normal(size=N)
    predicted, _ = smooth_location(CONDITION[copies], noise[copies], copies, 0)
    assert np.mean((predicted - noise[copies]) ** 2) > 0.8 * noise.var()


def test_what_is_smooth_is_located_better_than_by_trees_alone():
    rng = np.random.default_rng(2)
    condition = rng.normal(size=(300, 4))
    target = condition @ [1.0, -2.0, 0.5, 0.0]
    regression = LocationScaleRegression()
    regression.fit(condition[:200], target[:200, None], np.arange(200), 0)
    found = regression.predict(condition[200:])[:, 0]
    trees = HistGradientBoostingRegressor().fit(condition[:200], target[:200])
    error = np.abs(found - target[200:]).mean()
    assert error < 0.02 * np.abs(trees.predict(condition[200:]) - target[200:]).mean()


def test_what_jumps_is_left_to_trees():
    rng = np.random.default_rng(3)
    condition = rng.normal(size=(400, 2))
    target = np.floor(3 * condition[:, :1])
    regression = LocationScaleRegression()
    regression.fit(condition, target, np.arange(400), 0)
    model = regression.locations_[0]
    share = model.share if isinstance(model, Averaged) else 1.0
    assert share >= 0.5
    assert not isinstance(model, SmoothLocation)


def test_sizes_of_many_orders_are_followed_by_their_logarithm():
    rng = np.random.default_rng(4)
    size = rng.lognormal(0, 2, 300)
    condition = ((size - size.mean()) / size.std())[:, None]
    _, model = smooth_location(condition, np.log(size), np.arange(300), 0)
    assert model.symmetric


def test_a_process_of_copies_only_is_no_error():
    condition = np.ones((30, 2))
    predicted, _ = smooth_location(condition, np.zeros(30), np.arange(30), 0)
    np.testing.assert_allclose(predicted, 0, atol=1e-8)


def test_it_is_saved_and_loaded(tmp_path):
    x = np.exp(CONDITION[:, :1]) + 0.1 * TARGET[:, None]
    model = ScoreSDE(condition="value", base="regression", max_iter=0, random_state=0)
    model.fit(x, np.exp(CONDITION))
    save(model, tmp_path / "model.skd")
    again = load(tmp_path / "model.skd")
    new = np.exp(CONDITION[:5])
    np.testing.assert_array_equal(
        model.sample(5, y=new, random_state=0), again.sample(5, y=new, random_state=0)
    )
