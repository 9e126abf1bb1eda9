"""Tables of few rows and many columns: widths of what a density draws."""

import numpy as np
import pytest
import torch

from skdiffusion import ScoreSDE
from skdiffusion.diffusion.analytic import em
from skdiffusion.estimators.density._bases import Stack, fit_stack
from skdiffusion.metrics import interval_coverage


def wide(n, seed, d=16):
    """Rows of 16 columns with a variance of about one, which five factors rule."""
    factors = np.random.default_rng(9).normal(size=(5, d)) / 2.4
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)) @ factors + 0.3 * rng.normal(size=(n, d))


def one_gaussian(n, ridge=1e-4):
    """A stack of one Gaussian of so many rows."""
    shape, rows = em.Shape(0, ridge), torch.as_tensor(wide(n, 0))
    mixture = em.fit(rows, torch.zeros(n, dtype=torch.int64), shape)
    return Stack(np.ones(1), [shape], [mixture])


def test_intervals_of_few_rows_hold_what_they_should():
    held = []
    for seed in range(3):
        model = ScoreSDE(max_iter=0, random_state=0).fit(wide(70, seed))
        X = wide(300, seed + 50)
        hidden = np.random.default_rng(0).random(X.shape) < 0.3
        draws = model.impute(np.where(hidden, np.nan, X), 60)
        held.append(interval_coverage(X, draws, mask=hidden))
    # 0.84 where covariances are as they are fitted.
    assert 0.86 < np.mean(held) < 0.92


def test_covariances_of_few_rows_are_widened_and_those_of_many_are_not():
    others = wide(100, 1)
    few = one_gaussian(40).widened(others)
    assert few.widening >= 1.35
    assert one_gaussian(3000).widened(others).widening == 1
    rows = torch.as_tensor(wide(2000, 2))
    gain = few.density.log_density(rows).mean() - one_gaussian(40).density.log_density(rows).mean()
    assert gain > 1
    assert few.refitted(wide(50, 0)).widening == few.widening


def test_a_wrong_record_does_not_widen_all():
    others = wide(100, 1)
    others[0] = 50.0
    assert one_gaussian(3000).widened(others).widening == 1


@pytest.mark.parametrize(("n", "d"), [(200, 2), (4000, 3)])
def test_other_tables_stay_as_they_are(n, d, monkeypatch):
    monkeypatch.setattr(Stack, "widened", lambda self, held_out: pytest.fail("was widened"))
    assert fit_stack(wide(n, 0, d), wide(100, 1, d), 0).widening == 1
