"""Draws keep the bounds that are given, and those that the data show."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from skdiffusion import CSDIImputer
from skdiffusion.metrics import crps_loss

GAUSSIAN = {"method": "gaussian", "n_draws": 30, "random_state": 0}


def table(n=300):
    rng = np.random.default_rng(0)
    z = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "z": z,
            "age": 18 + 62 * norm.cdf(1.3 * z + 0.6 * rng.normal(size=n)),
            "level": 3 + z + 0.3 * rng.normal(size=n),
            "n": pd.array(np.clip(np.rint(3 + 2 * z), 1, 6), dtype="Int64"),
        }
    )
    hidden = rng.random(frame.shape) < [0, 0.3, 0.3, 0.3]
    return frame, frame.mask(hidden), hidden


@pytest.mark.parametrize("options", [{}, {"method": "diffusion", "max_iter": 5}])
def test_no_draw_lies_outside_and_the_score_is_no_worse(options):
    frame, gaps, hidden = table()
    bounds = {"age": (18, 80), "level": (None, 5.0), "n": (0.5, 6)}
    gaps["level"] = gaps["level"].mask(gaps["level"] > 5)
    free = CSDIImputer(**(GAUSSIAN | options)).fit(gaps).sample(gaps)
    kept = CSDIImputer(**(GAUSSIAN | options), bounds=bounds).fit(gaps)
    draws = kept.sample(gaps)
    assert free[..., 1].max() > 80
    assert 18 <= draws[..., 1].min() <= draws[..., 1].max() <= 80
    assert draws[..., 2].max() <= 5
    assert set(np.unique(draws[..., 3])) == {1, 2, 3, 4, 5, 6}
    truth = frame.to_numpy(dtype=float)[:, [1]]
    age = hidden[:, [1]]
    scores = [crps_loss(truth, x[..., [1]], mask=age) for x in (draws, free)]
    assert scores[0] <= scores[1] + (0.01 if options else 1e-9)


def test_one_pair_is_for_all_columns_of_numbers():
    _, gaps, _ = table()
    gaps["town"] = "a"
    draws = CSDIImputer(**GAUSSIAN, bounds=(-4, 200)).fit(gaps).sample(gaps, 3)
    assert all(copy[["z", "age", "level"]].min(axis=None) >= -4 for copy in draws)
    values = np.where(np.random.default_rng(1).random((50, 2)) < 0.2, np.nan, 0.9)
    draws = CSDIImputer(**GAUSSIAN, bounds={1: (0.0, 0.95)}).fit(values).sample(values)
    assert draws[..., 1].max() <= 0.95


@pytest.mark.parametrize("whole", [1, 100])
def test_shares_and_percentages_are_found(whole):
    rng = np.random.default_rng(0)
    z = rng.normal(size=400)
    x = np.clip(whole * (0.6 + 0.3 * z + 0.1 * rng.normal(size=400)), 0, whole)
    X = np.column_stack([z, np.where(rng.random(400) < 0.3, np.nan, x)])
    draws = CSDIImputer(**GAUSSIAN).fit(X).sample(X)
    assert draws[..., 1].min() >= 0
    assert draws[..., 1].max() <= whole


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"agee": (0, 1)}, r"bounds names 'agee', which is no column of X: it has \['z', 'age'"),
        ({"age": (5, 1)}, r"bounds of column 'age' are \(5, 1\): give a pair"),
        ({"age": 3}, r"bounds of column 'age' are 3: give a pair"),
        ((1, 2, 3), r"are \(1, 2, 3\): give a pair"),
        ({"town": (0, 1)}, "bounds names 'town', a column of labels"),
        ({"age": (0, 60)}, r"Column age of X has \d+ values outside of its bounds \(0, 60\), such"),
    ],
)
def test_errors_name_the_column(bounds, message):
    _, gaps, _ = table()
    with pytest.raises(ValueError, match=message):
        CSDIImputer(**GAUSSIAN, bounds=bounds).fit(gaps.assign(town="a"))
