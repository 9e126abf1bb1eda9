"""The training loop: what it keeps, when it stops, what it says when the loss breaks."""

import math

import pytest
import torch
from torch import nn

from skdiffusion.training._loop import train


class Point(nn.Module):
    """One weight, to be moved to a target."""

    def __init__(self, start=5.0):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([start]))


def fit(module, loss=None, **options):
    options = {"n_steps": 200, "learning_rate": 0.1, "weight_decay": 0.0, **options}
    return train(module, loss or (lambda step: (module.x - 2).square().sum()), **options)


def test_the_minimum_is_found():
    module = Point()
    history = fit(module, n_steps=400)
    assert float(module.x.detach()) == pytest.approx(2.0, abs=0.05)
    assert len(history["loss"]) == 400
    assert history["loss"][-1] < 1e-3 * history["loss"][0]


def test_the_best_weights_are_kept_not_the_last():
    module = Point()
    # The held-out optimum, 4, is passed on the way to the training optimum, 2.
    history = fit(module, validate=lambda m: (m.x - 4).square().sum(), n_evaluations=20)
    steps, values = zip(*history["validation"])
    assert 0 < history["best_step"] < 200
    assert history["best_step"] == steps[values.index(min(values))]
    assert (float(module.x.detach()) - 4) ** 2 == pytest.approx(min(values), rel=1e-5)


def test_training_that_only_harms_leaves_the_module_as_it_was():
    module = Point()
    history = fit(module, validate=lambda m: -m.x.sum())
    assert history["best_step"] == 0
    assert float(module.x.detach()) == 5.0


def test_without_validation_the_averaged_weights_are_kept():
    module, seen = Point(), []

    def loss(step):
        seen.append(float(module.x.detach()))
        return (module.x - 2).square().sum()

    fit(module, loss, n_steps=20, ema_decay=0.9)
    # The average lags behind the weights, which fall from 5 towards 2.
    assert seen[-1] < float(module.x.detach()) < 5.0


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_counts_validations_without_gain(patience):
    module = Point()
    history = fit(module, validate=lambda m: 1.0, n_evaluations=10, patience=patience)
    assert len(history["validation"]) == 1 + patience
    assert len(history["loss"]) == 20 * patience


def test_gains_below_tol_do_not_count():
    values = iter([1.0, 0.95, 0.9, 0.5, 0.49])
    history = fit(Point(), validate=lambda m: next(values), n_evaluations=4, tol=0.2)
    assert history["best_step"] == 150


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_loss_names_step_and_remedy(value):
    module = Point()
    loss = lambda step: module.x.sum() * (value if step == 3 else 1.0)  # noqa: E731
    with pytest.raises(FloatingPointError, match=r"at step 4: lower learning_rate"):
        fit(module, loss)


def test_large_gradients_are_clipped():
    module = Point()
    fit(module, lambda step: 1e20 * module.x.square().sum(), n_steps=5)
    assert module.x.isfinite().all()


def test_frozen_weights_stay():
    module = nn.ModuleList([Point(), Point()])
    module[1].requires_grad_(False)
    train(module, lambda step: module[0].x.square().sum(), n_steps=30, learning_rate=0.1)
    assert float(module[1].x) == 5.0
    assert float(module[0].x.detach()) < 5.0
