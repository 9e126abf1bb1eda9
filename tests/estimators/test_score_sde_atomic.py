"""A fit that fails or is interrupted leaves the estimator as it was."""

import pickle

import numpy as np
import pandas as pd
import pytest

from skdiffusion import ScoreSDE
from skdiffusion.estimators.density import _fitting, _selection

ROWS = np.random.default_rng(0).normal(size=(80, 2))
OTHER = pd.DataFrame(np.random.default_rng(1).normal(size=(60, 3)), columns=["a", "b", "c"])
# One place for each stage of a fit: reading, standardising, choosing, training, putting together.
STAGES = {
    (_fitting, "tied_columns"): "reading",
    (_fitting, "standardised"): "standardising",
    (_fitting, "choose"): "choosing",
    (_selection, "train_residual"): "training",
    (_selection, "held_out_ratios"): "judging",
    (_fitting, "Coordinates"): "storing",
}


def small(**kwargs):
    settings = {"base": "gaussian", "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
    return ScoreSDE(**(settings | kwargs))


def fail(error, original, late):
    """The function, which fails before or after it has done its work."""

    def broken(*args, **kwargs):
        if late:
            original(*args, **kwargs)
        raise error

    return broken


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("place", STAGES, ids=STAGES.values())
def test_a_failed_fit_changes_nothing(place, error, late, monkeypatch):
    module, name = place
    fresh, fitted = small(), small(warm_start=True).fit(ROWS)
    before = [pickle.dumps(model) for model in (fresh, fitted)]
    scores = fitted.score_samples(ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail(error, getattr(module, name), late))
        for model, X in ((fresh, ROWS), (fitted, OTHER), (fitted, ROWS)):
            with pytest.raises(type(error)):
                model.fit(X)
    assert [pickle.dumps(model) for model in (fresh, fitted)] == before
    np.testing.assert_array_equal(fitted.score_samples(ROWS), scores)
    assert not hasattr(fitted, "feature_names_in_")


class StopsAt:
    """Attribute that interrupts its own assignment, as a signal between two of them would."""

    def __set__(self, instance, value):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["base_", "held_out_score_", "n_iter_", "_proposal"])
def test_an_interrupt_between_two_assignments_changes_nothing(name):
    broken = type("Broken", (ScoreSDE,), {name: StopsAt()})
    fitted = small().fit(ROWS)
    before = pickle.dumps(fitted)
    fitted.__class__ = broken
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(OTHER)
    fitted.__class__ = ScoreSDE
    assert pickle.dumps(fitted) == before


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("network", [False, True])
def test_a_failed_partial_fit_changes_nothing(network, error, monkeypatch):
    model = small(max_iter=0).fit(ROWS)
    if network:
        model.partial_fit(ROWS)
    before = pickle.dumps(model)
    monkeypatch.setattr(_fitting, "train_residual", fail(error, _fitting.train_residual, True))
    with pytest.raises(type(error)):
        model.partial_fit(ROWS)
    assert pickle.dumps(model) == before


def test_pickles_do_not_grow_when_fit_goes_on():
    model = small(base=None, max_iter=20, warm_start=True).fit(ROWS)
    size = len(pickle.dumps(model))
    assert len(pickle.dumps(model.fit(ROWS))) <= size + 100
    assert len([name for name in vars(model) if name.startswith("_")]) <= 4
