"""The whole imputer on series from a known model: its bands are nominal, its draws nearly best."""

import numpy as np
import pytest
import torch

from skdiffusion import CSDIImputer
from skdiffusion.diffusion.statespace.fit import fit_state_space
from skdiffusion.diffusion.statespace.judge import normal_crps
from skdiffusion.diffusion.statespace.kalman import StateSpace
from skdiffusion.diffusion.statespace.pieces import Pieces
from skdiffusion.diffusion.statespace.smoother import smooth
from skdiffusion.metrics import crps_loss

# Some forty fits.
pytestmark = pytest.mark.slow

TRANSITION = np.array([[0.9, 0.1, 0.0], [-0.1, 0.85, 0.1], [0.0, 0.0, 0.8]])
INNOVATION = 0.2 * np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.0], [0.3, 0.0, 1.0]])
NOISE = np.array([0.02, 0.05, 0.1])
N_TIMES, N_DRAWS, N_SETS = 1000, 99, 6


def simulate(seed, n_times=N_TIMES):
    """Rows of a vector autoregression of three columns, seen with noise."""
    rng = np.random.default_rng(seed)
    shocks = rng.multivariate_normal(np.zeros(3), INNOVATION, n_times + 100)
    state, rows = np.zeros(3), []
    for shock in shocks:
        state = TRANSITION @ state + shock
        rows.append(state)
    return np.array(rows[100:]) + rng.normal(size=(n_times, 3)) * np.sqrt(NOISE)


def true_model():
    covariance = np.eye(3)
    for _ in range(500):
        covariance = TRANSITION @ covariance @ TRANSITION.T + INNOVATION
    arrays = TRANSITION, INNOVATION, np.eye(3), NOISE, covariance
    return StateSpace(*(torch.from_numpy(x) for x in arrays))


def scattered(rng, shape=(N_TIMES, 3), share=0.2):
    return rng.random(shape) < share


def blocks(rng):
    """Runs of 12 rows of a column."""
    hidden = np.zeros((N_TIMES, 3), dtype=bool)
    for start, column in zip(rng.integers(0, N_TIMES - 12, 45), rng.integers(0, 3, 45)):
        hidden[start : start + 12, column] = True
    return hidden


def everything(rng):
    """Runs of 8 rows of all columns."""
    hidden = np.zeros((N_TIMES, 3), dtype=bool)
    for start in rng.integers(0, N_TIMES - 8, 20):
        hidden[start : start + 8] = True
    return hidden


def removed(rng):
    """Scattered cells, in rows of which two fifths are not there."""
    return scattered(rng)


PATTERNS = {f.__name__: f for f in (scattered, blocks, everything, removed)}


def draw(X, timestamps=None, **options):
    imputer = CSDIImputer(
        method="gaussian", window_length=24, n_draws=N_DRAWS, random_state=0, **options
    )
    return imputer.fit(X, timestamps=timestamps).sample(X, timestamps=timestamps)


def mean_crps(truth, draws, hidden):
    return float(crps_loss(truth, draws, mask=hidden, method="fair"))


def best_crps(truth, seen, hidden):
    """Mean CRPS of the Kalman smoother that knows the model."""
    model, seen = true_model(), torch.from_numpy(seen)[None]
    smoothed = smooth(model, torch.from_numpy(truth)[None] * seen, seen)
    mean, variance = model.cells(smoothed.mean, smoothed.covariance)
    crps = normal_crps(torch.from_numpy(truth)[None] - mean, (variance + model.noise).sqrt())
    return float(crps[0][torch.from_numpy(hidden)].mean())


def square_of_errors(model, truth, hidden):
    """Mean square of the errors of hidden cells in standard deviations."""
    smoothed = smooth(model, truth * ~hidden, ~hidden)
    mean, variance = model.cells(smoothed.mean, smoothed.covariance)
    return float(((truth - mean).square() / (variance + model.noise))[hidden].mean())


def one_set(pattern, seed):
    """Ranks of the truth among the draws; CRPS of the draws and of the best smoother."""
    truth, rng = simulate(seed), np.random.default_rng(1000 + seed)
    hidden, there = PATTERNS[pattern](rng), np.ones(N_TIMES, dtype=bool)
    if pattern == "removed":
        there = rng.random(N_TIMES) > 0.4
        hidden &= there[:, None]
    X = np.where(hidden, np.nan, truth)[there]
    times = 3600 * np.flatnonzero(there) if pattern == "removed" else None
    draws = draw(X, times)
    ranks = (draws < truth[there][:, None]).sum(1)[hidden[there]]
    found = mean_crps(truth[there], draws, hidden[there])
    return ranks, found, best_crps(truth, there[:, None] & ~hidden, hidden)


@pytest.fixture(scope="module", params=PATTERNS)
def sets(request):
    return [one_set(request.param, seed) for seed in range(N_SETS)]


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_bands_hold_what_they_promise(sets, level):
    # Of 99 draws, ranks 25 to 74 are half and ranks 5 to 94 are nine tenths of a hundred.
    edge = round(50 * (1 - level))
    covered = [np.mean((ranks >= edge) & (ranks < 100 - edge)) for ranks, _, _ in sets]
    # Cells of a series are dependent, so that the spread of independent sets tells the error.
    error = np.std(covered, ddof=1) / np.sqrt(N_SETS)
    assert abs(np.mean(covered) - level) < 4 * error + 0.01


def test_draws_are_nearly_those_of_the_true_model(sets):
    found, best = np.sum([(found, best) for _, found, best in sets], axis=0)
    assert 0.98 < found / best < 1.05


def test_the_spread_of_scattered_cells_is_that_of_their_errors():
    """Errors of the fitted smoother on fresh series, in its own standard deviations."""
    fresh = torch.from_numpy(np.stack([simulate(500 + seed, 500) for seed in range(8)]))
    hidden = torch.from_numpy(scattered(np.random.default_rng(3), fresh.shape))
    squares = []
    for seed in range(N_SETS):
        values, generator = torch.from_numpy(simulate(seed)), torch.Generator().manual_seed(seed)
        observed = torch.rand(values.shape, generator=generator) > 0.2
        pieces = Pieces.cut(values, observed, torch.tensor([0, N_TIMES]))
        model = fit_state_space(pieces, generator=generator).model
        squares.append(square_of_errors(model, fresh, hidden))
    assert abs(square_of_errors(true_model(), fresh, hidden) - 1) < 0.03
    assert abs(np.mean(squares) - 1) < 0.08


@pytest.mark.parametrize("share", [0.5, 0.67])
def test_times_never_make_it_worse_than_no_times(share):
    ratios = []
    for seed in range(4):
        truth, rng = simulate(seed), np.random.default_rng(2000 + seed)
        there = rng.random(N_TIMES) > share
        truth, hidden = truth[there], scattered(rng)[there]
        X = np.where(hidden, np.nan, truth)
        times = 3600 * np.flatnonzero(there)
        ratios.append(mean_crps(truth, draw(X, times), hidden) / mean_crps(truth, draw(X), hidden))
    assert max(ratios) < 1.01
    assert np.mean(ratios) < 0.99
