"""Trees on a state space: what they see, what they correct, and what they must leave alone."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import skdiffusion
from skdiffusion import CSDIImputer
from skdiffusion._random import normals
from skdiffusion.diffusion.statespace.shape import Shape
from skdiffusion.diffusion.window import WindowedSeries
from skdiffusion.estimators.imputation import _judging
from skdiffusion.estimators.imputation._fitting import Windows
from skdiffusion.estimators.imputation._stretches import hidden_stretches, misses_stretches
from skdiffusion.estimators.imputation._trees import TreeDenoiser, Trees, seen_from
from skdiffusion.metrics import crps_loss


def walk(n, seed):
    """Values that come back to 0 slowly, of deviation 1."""
    noise, x = np.random.default_rng(seed).normal(size=n), np.zeros(n)
    for i in range(1, n):
        x[i] = 0.95 * x[i - 1] + np.sqrt(1 - 0.95**2) * noise[i]
    return x


def loud_and_calm(n=4000, seed=0):
    """A walk, and readings of it that err by .05 where a third column is 0 and by 1 where it is 1;
    and which cells of the readings are hidden.
    """
    rng = np.random.default_rng(seed + 100)
    state, loud = walk(n, seed), (walk(n, seed + 1) > 0).astype(float)
    level = loud + 0.01 * rng.normal(size=n)
    readings = state + np.where(loud > 0, 1.0, 0.05) * rng.normal(size=n)
    hidden = np.zeros((n, 3), dtype=bool)
    hidden[:, 1] = rng.random(n) < 0.2
    return np.column_stack([state, readings, level]), hidden, loud > 0


@pytest.fixture(scope="module")
def fitted():
    X, hidden, _ = loud_and_calm()
    shown = np.where(hidden, np.nan, X)
    return CSDIImputer(window_length=24, random_state=0).fit(shown), shown


class Constant:
    """Trees that say the same of all cells."""

    def __init__(self, value):
        self.value = value

    def predict(self, inputs):
        return np.full(len(inputs), self.value)


def test_errors_that_depend_on_a_column_get_bands_that_do(fitted):
    imputer, shown = fitted
    X, hidden, loud = loud_and_calm()
    assert imputer.method_ == "trees"
    alone = CSDIImputer(window_length=24, method="gaussian", random_state=0).fit(shown)
    losses = {}
    for name, one in {"trees": imputer, "gaussian": alone}.items():
        draws = one.sample(shown, n_draws=200).swapaxes(0, 1)[:, hidden]
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside = (low <= X[hidden]) & (X[hidden] <= high)
        parts = loud[np.nonzero(hidden)[0]]
        losses[name] = crps_loss(X[hidden], draws.T, method="fair")
        coverage = inside[parts].mean(), inside[~parts].mean()
        if name == "trees":
            # 400 cells each: three standard errors of .015, and as much for what was learnt.
            assert min(coverage) > 0.8
            width = np.median((high - low)[parts]) / np.median((high - low)[~parts])
            assert width > 5
        else:
            # One width for all is too narrow in the loud hours, or far too wide in the calm ones.
            assert coverage[1] > 0.98 or coverage[0] < 0.8
    # Who knows state and noise has the CRPS of normal laws, their deviation over the root of pi.
    floor = np.where(loud, 1.0, 0.05)[np.nonzero(hidden)[0]].mean() / np.sqrt(np.pi)
    assert losses["trees"] < 1.1 * floor < losses["gaussian"]


def test_a_curve_is_followed():
    """The square of a column has no straight line in it."""
    rng, x = np.random.default_rng(0), walk(2000, 5)
    X = np.column_stack([x, x**2 + 0.05 * rng.normal(size=2000)])
    hidden = np.zeros(X.shape, dtype=bool)
    hidden[:, 1] = np.repeat(rng.random(100) < 0.2, 20)
    shown = np.where(hidden, np.nan, X)
    fits = {
        method: CSDIImputer(window_length=24, method=method, random_state=0).fit(shown)
        for method in ("diffusion", "gaussian")
    }
    assert fits["diffusion"].method_ == "trees"
    errors = [np.abs(one.transform(shown) - X)[hidden].mean() for one in fits.values()]
    assert errors[0] < 0.6 * errors[1]


def test_what_is_linear_is_left_to_the_state_space(monkeypatch):
    """Of independent errors of one size trees know no better than their state space."""
    x = walk(2000, 7)
    X = np.column_stack([x, 0.5 * x]) + 0.3 * np.random.default_rng(0).normal(size=(2000, 2))
    seen = {}

    def spy(self, denoiser, share=1):
        found = judge(self, denoiser, share)
        seen[denoiser.name] = found.crps
        return found

    judge = _judging.Judge.__call__
    monkeypatch.setattr(_judging.Judge, "__call__", spy)
    CSDIImputer(window_length=24, max_iter=1, random_state=0).fit(X)
    assert seen["trees"] == pytest.approx(seen["gaussian"], rel=0.03)


def noise(number, place, kind, size):
    key = torch.arange(4)[number].repeat_interleave(size)
    cell = (place[:, None] * size + torch.arange(size)).flatten()
    return normals(key, torch.arange(30)[:, None], kind, cell).unflatten(1, (len(number), size))


def gappy(base_features, n=120, seed=0):
    """Two series of standardised values with cells to draw."""
    rng = np.random.default_rng(seed)
    parts = []
    for size in (n, n // 2):
        values = torch.from_numpy(rng.normal(size=(size, base_features)))
        observed = torch.from_numpy(rng.random(values.shape) < 0.7)
        parts.append((values.float(), observed, ~observed))
    return WindowedSeries.join(parts, 24)


def test_trees_that_know_nothing_change_no_draw(fitted):
    denoiser = fitted[0]._model.denoiser
    series, plain = gappy(3), Shape.normal(3)
    nothing = TreeDenoiser(denoiser.base, Trees(Constant(0.0), Constant(1.0), plain))
    expected = replace(denoiser.base, shape=plain)
    found = nothing.draw(series, noise, 30)
    torch.testing.assert_close(found, expected.draw(series, noise, 30), atol=1e-4, rtol=1e-4)
    # Location and scale are in predicted deviations, and moments of the draws say so.
    moved = TreeDenoiser(denoiser.base, Trees(Constant(2.0), Constant(3.0**0.5), plain))
    row, column = torch.nonzero(series.wanted, as_tuple=True)
    _, mean, sd = seen_from(denoiser.base.moments(series), series, row, column)
    twice = (moved.draw(series, noise, 30) - mean) / sd
    torch.testing.assert_close(twice, 2 + 3 * (found - mean) / sd, atol=1e-3, rtol=1e-3)


def test_inputs_are_what_a_loop_over_the_cells_sees(fitted):
    base, series = fitted[0]._model.denoiser.base, gappy(3, n=60)
    means, sds = base.moments(series)
    row, column = torch.nonzero(series.wanted, as_tuple=True)
    inputs, mean, _ = seen_from((means, sds), series, row, column)
    offsets = series.offsets.tolist()
    for i in range(0, len(row), 7):
        t, k = int(row[i]), int(column[i])
        first, end = (0, offsets[1]) if t < offsets[1] else (offsets[1], offsets[2])
        m = float(means[t, k])
        before = [u for u in range(first, t) if series.observed[u, k]]
        after = [u for u in range(t + 1, end) if series.observed[u, k]]
        expected = [k, m, float(sds[t, k])]
        expected += [t - before[-1] if before else 257, after[0] - t if after else 257]
        for u in (before[-1:], after[:1]):
            expected.append(float(series.values[u[0], k]) - m if u else np.nan)
        expected += [float(means[min(max(t + s, first), end - 1), k]) - m for s in (-3, -1, 1, 3)]
        expected += means[t].tolist()
        np.testing.assert_allclose(inputs[i], expected, atol=1e-5)
        assert float(mean[i]) == pytest.approx(m)


def test_draws_do_not_depend_on_what_else_is_in_the_call():
    parts = [loud_and_calm(300, seed)[0] for seed in range(12)]
    for seed, part in enumerate(parts):
        part[np.random.default_rng(seed).random(part.shape) < 0.2] = np.nan
    imputer = CSDIImputer(random_state=0, n_draws=5).fit(parts)
    assert imputer.method_ == "trees"
    alone, together = imputer.sample(parts[2:3])[0], imputer.sample(parts)[2]
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_files_and_pickles_hold_the_trees(fitted, tmp_path):
    imputer, shown = fitted
    expected = imputer.sample(shown[:200], n_draws=3)
    skdiffusion.save(imputer, tmp_path / "imputer")
    for again in (skdiffusion.load(tmp_path / "imputer"), pickle.loads(pickle.dumps(imputer))):
        np.testing.assert_array_equal(again.sample(shown[:200], n_draws=3), expected)
        assert again.method_ == "trees"


def test_trees_stay_when_training_goes_on(fitted):
    imputer, shown = pickle.loads(pickle.dumps(fitted[0])), fitted[1]
    trees = imputer._model.denoiser.trees
    imputer.partial_fit(shown[:600])
    assert imputer._model.denoiser.trees is trees


def test_the_future_is_forecast_by_the_state_space(fitted):
    imputer, shown = fitted
    alone = imputer._model.without_network()
    assert alone.name == "gaussian"
    assert np.isfinite(imputer.forecast(shown, 5)).all()


def test_stretches_copy_gaps_and_want_the_windows_held_out_alone():
    values = torch.from_numpy(np.column_stack([walk(2000, 0), walk(2000, 1)])).float()
    observed = torch.ones(2000, 2, dtype=torch.bool)
    for first in range(50, 2000, 200):
        observed[first : first + 30] = False  # 30 whole rows: longer than a window
    series = WindowedSeries.join([(values, observed, ~observed)], 24)
    windows = Windows(series, torch.arange(1000), torch.tensor([1200, 1600]))
    assert misses_stretches(windows)
    asked = torch.zeros(2000, dtype=torch.bool)
    asked[series.rows(windows.held_out)] = True
    for held_out in (True, False):
        generator = torch.Generator().manual_seed(3)
        shown, truth, _ = hidden_stretches(windows, None, generator, held_out=held_out)
        rows = shown.time.long()  # no times were given: they count rows
        hidden = observed[rows] & ~shown.observed
        assert hidden.any()
        assert bool((hidden.all(1) == hidden.any(1)).all())
        assert torch.equal(shown.wanted, hidden & (asked[rows] == held_out)[:, None])
        assert torch.equal(truth[hidden], values[rows][hidden])
        assert not shown.values[hidden].any()


def test_series_without_gaps_have_none_to_copy():
    values, observed = torch.randn(500, 2), torch.ones(500, 2, dtype=torch.bool)
    series = WindowedSeries.join([(values, observed, ~observed)], 24)
    assert not misses_stretches(Windows(series, torch.arange(100), torch.tensor([200])))


def test_what_gains_in_one_kind_of_gaps_and_loses_in_another_gains_nothing():
    base = _judging.Judged(0.3, 0.9, 1000, (0.1, 0.5))
    either = _judging.Judged(0.25, 0.9, 1000, (0.05, 0.51))
    both = _judging.Judged(0.28, 0.9, 1000, (0.09, 0.49))
    assert either.crps < both.crps
    assert base.loss(base) == 1.0
    assert both.loss(base) < 1.0 < either.loss(base)
