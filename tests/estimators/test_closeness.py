"""Bases given values whose draws are far from held-out rows are not kept."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdiffusion.diffusion.analytic import gaussian
from skdiffusion.diffusion.conditional import ConditionalMixture
from skdiffusion.estimators.density import _closeness
from skdiffusion.estimators.density._closeness import _energy, close_by


def candidate(base, held_out):
    return SimpleNamespace(fitted=base, rows=SimpleNamespace(held_out=held_out, n_features=1))


def held_out(n=4000):
    """x given y is N(y / 2, 3 / 4); both are N(0, 1)."""
    joint = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], n)
    return candidate_of(0.5), joint


def candidate_of(correlation):
    return ConditionalMixture(
        gaussian([0.0, 0.0], [[1.0, correlation], [correlation, 1.0]]), [False, True]
    )


@pytest.mark.parametrize("base", [gaussian([0.0], [[1.0]]), candidate_of(0.5)])
def test_energy_score_of_the_right_normal(base, monkeypatch):
    monkeypatch.setattr(_closeness, "_MOST_ROWS", 4000)
    _, rows = held_out()
    conditional = isinstance(base, ConditionalMixture)
    sd = 0.75**0.5 if conditional else 1.0
    # The CRPS of N(m, s^2) averaged over its own draws is s / sqrt(pi).
    assert _energy(candidate(base, rows), 0) == pytest.approx(sd / torch.pi**0.5, rel=0.03)


def test_what_is_far_is_left_out_and_what_is_near_is_kept():
    right, rows = held_out()
    near = candidate(candidate_of(0.3), rows)
    far = candidate(gaussian([0.0], [[9.0]]), rows)
    right = candidate(right, rows)
    values, labels = (settings(kind) for kind in ("value", "label"))
    assert close_by([far, near, right], values) == [near, right]
    assert close_by([far], values) == [far]
    assert close_by([far, near, right], labels) == [far, near, right]


def settings(kind):
    return SimpleNamespace(encoder=SimpleNamespace(kind=kind), seed=0)
