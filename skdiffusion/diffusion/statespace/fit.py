"""Fitting a state space to series with gaps: steps of expectation maximisation and their choice.

A tenth of the observed cells is kept from the steps, half of them scattered and half in runs. What
the smoother says of these cells is out of sample at no cost: it stops the steps, chooses the order,
and shows what shape the errors have. Short series have no cell to spare (:mod:`.short`).

An autoregression of columns that grow together takes their common growth for dependence, and in a
long gap follows it to somewhere else: of exchange rates, a seventh of whose months are missing in
runs, the CRPS is 1.05 deviations, and .35 by a random walk. Where there are few cells for each of
its numbers it is therefore compared with a walk, both fitted anew without some more gaps.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch

from skdiffusion.diffusion.statespace.em import (
    LEAST_NOISE,
    first_guess,
    maximise,
    raise_order,
    regressed,
)
from skdiffusion.diffusion.statespace.kalman import StateSpace, smooth
from skdiffusion.diffusion.statespace.pieces import hide, hide_as_missing
from skdiffusion.diffusion.statespace.short import fit_short, fit_short_walk

# EM moves a small noise by a share of itself in a step; a wrong start stays wrong. From .005
# a simulated noise of .1 is still .011 at the end, and PhysioNet's held-out CRPS after three steps
# is .232 from .005 and .268 from .2. The best of some starts on some of the rows is taken.
_FIRST_NOISES = (0.005, 0.02, 0.07)
# Rows times the cube of the states for each start: a second of work.
_WORK_OF_STARTS = 1e7
# Rows of the gaps of all columns that tell how errors grow with distance: two days of hours.
_GAP = 48
# A step must lower the held-out CRPS by this share to be worth another one.
_GAIN = 1e-3
# So many steps are made in any case.
_FEWEST_STEPS = 4
# The mean CRPS of so many cells is within a tenth of itself; fewer would choose by chance.
_FEWEST_TO_JUDGE = 100
# An order costs eight times as much in every later call, so it must bring more.
_ORDER_GAIN = 5e-3
# A step then takes some seconds: all of 8760 rows of 18 columns, 970 windows of PhysioNet.
_WORK = 2e9
# Observed cells for each number of the transition, and in all, beyond which more bring little. With
# 100 000 rows of 20 columns the root mean squared error is .366 instead of .364, in 15 s, not 43.
_CELLS_A_NUMBER, _CELLS = 1000, 100_000
# An autoregression with fewer cells for each number, and so many cells in all, is compared with a
# walk, so often, each time without this share of the cells.
_FEW_CELLS_A_NUMBER, _CELLS_COMPARED, _N_COMPARED, _SHARE_COMPARED = 150, (1000, 40_000), 3, 0.15


@dataclass
class Fit:
    """A fitted model and what it says of cells that it did not see.

    Attributes
    ----------
    model : StateSpace
        The model.
    crps : float
        Mean CRPS of the hidden cells.
    error, deviation, column : tensors
        Of each hidden cell: error of the mean, predicted standard deviation, and its column.
    completed : tensor of shape (B, T, K)
        The values that were seen, and the smoother's means in place of the others.
    deep : tuple (error, deviation, column)
        The same of cells deep in gaps of all columns.
    n_gaps : int
        Number of these gaps.
    """

    model: StateSpace
    crps: float
    error: torch.Tensor
    deviation: torch.Tensor
    column: torch.Tensor
    completed: torch.Tensor
    deep: tuple = ()
    n_gaps: int = 0

    @property
    def surprise(self):
        """Mean negative log-density of the hidden cells, linear beyond three deviations.

        It sees a wrong spread, which the CRPS hardly does; far errors are the shape's matter.
        """
        z = (self.error / self.deviation).abs()
        return float((torch.where(z < 3, 0.5 * z * z, 3 * z - 4.5) + self.deviation.log()).mean())


def fit_state_space(
    pieces,
    *,
    generator,
    n_steps=10,
    ridge=10.0,
    max_order=2,
    work=_WORK,
    noises=_FIRST_NOISES,
    on_step=None,
):
    """Fit by expectation maximisation; order and number of steps by held-out cells.

    Parameters
    ----------
    pieces : Pieces
        Standardised series.
    generator : torch.Generator
        Source of what is hidden.
    n_steps : int, default=10
        Largest number of steps.
    ridge : float, default=10.0
        Rows' worth of pull of the transition towards a damped walk.
    max_order : int, default=2
        Largest order tried.
    work : float, default=2e9
        Work of a step, rows times the cube of the states; more pieces are left out.
    noises : sequence of float, default=(0.005, 0.02, 0.07)
        Noises to start from; the best on some of the rows is taken.
    on_step : callable, optional
        Called after every step, with the largest number of steps that there can be.

    Returns
    -------
    fit : Fit
        The best model and its errors.
    """
    most = n_steps * (1 + len(noises) * (len(noises) > 1)) + max(3, n_steps // 3) * (max_order - 1)
    done = (lambda: None) if on_step is None else partial(on_step, most)
    pieces = pieces.some(_affordable(pieces, 1, work), generator)
    options = {"n_steps": n_steps, "ridge": ridge, "done": done}
    regression = partial(_regression, max_order=max_order, work=work, noises=noises, **options)
    best, pieces = regression(pieces, generator)
    walk = partial(_walk, noises=noises, **{**options, "ridge": math.inf})
    if _walk_is_better(best.model, pieces, regression, walk, generator):
        best, pieces = walk(pieces, generator)
    deep, n_gaps = _deep_errors(best.model, pieces)
    return replace(best, deep=deep, n_gaps=n_gaps)


def _regression(pieces, generator, *, max_order, work, noises, **options):
    """Fit of a vector autoregression, and the pieces that it has seen."""
    hidden = hide(pieces.observed, generator)
    if int(hidden.sum()) < _FEWEST_TO_JUDGE:
        model = fit_short(pieces, max_order=max_order, noises=noises, **options)
        return _judged(model, pieces, hidden)[0], pieces
    start = _start(pieces, hidden, [first_guess(pieces, noise) for noise in noises], options)
    best = _best_of_steps(start, pieces, hidden, **options)
    best = _by_least_squares(best, pieces, hidden, 1)
    options["n_steps"] = max(3, options["n_steps"] // 3)
    return _of_higher_orders(best, pieces, hidden, max_order, work, options)


def _walk(pieces, generator, *, noises, **options):
    """Fit of a random walk of every column with dependent innovations, and the pieces."""
    hidden = hide(pieces.observed, generator)
    if int(hidden.sum()) < _FEWEST_TO_JUDGE:
        model = fit_short_walk(pieces, noises=noises, **options)
        return _judged(model, pieces, hidden)[0], pieces
    guesses = [first_guess(pieces, noise, damping=1.0) for noise in noises]
    start = _start(pieces, hidden, guesses, options)
    return _best_of_steps(start, pieces, hidden, **options), pieces


def _walk_is_better(model, pieces, regression, walk, generator):
    """Whether a walk fills gaps that both have not seen better than an autoregression."""
    n_cells, n_numbers = int(pieces.observed.sum()), model.transition.numel()
    if n_cells <= n_numbers + model.innovation.numel() // 2:
        # With as many numbers as cells nothing is left to judge by.
        return True
    fewest, most = _CELLS_COMPARED
    if not fewest <= n_cells <= min(most, _FEW_CELLS_A_NUMBER * n_numbers):
        return False
    errors = torch.zeros(2, dtype=torch.float64)
    regression = partial(regression, max_order=model.order)
    known = {"noises": [float(model.noise.median())], "done": lambda: None}
    for _ in range(_N_COMPARED):
        hidden = hide_as_missing(pieces.observed, pieces.real, _SHARE_COMPARED, generator)
        values, observed = pieces.values.masked_fill(hidden, 0.0), pieces.observed & ~hidden
        left = replace(pieces, values=values, observed=observed)
        for i, fit in enumerate((regression, walk)):
            found, _ = fit(left, generator, **known)
            errors[i] += _judged(found.model, pieces, hidden)[0].crps * int(hidden.sum())
    return bool(errors[1] < errors[0])


def _of_higher_orders(best, pieces, hidden, max_order, work, options):
    """The fit of the highest order that brings enough, and the pieces that it has seen."""
    for order in range(2, max_order + 1):
        fewer = _affordable(pieces, order, work)
        if fewer < len(pieces.values):
            pieces, hidden = pieces.first(fewer), hidden[:fewer]
            best, _ = _judged(best.model, pieces, hidden)
        found = _by_least_squares(best, pieces, hidden, order)
        raised = raise_order(best.model) if found is best else found.model
        trial = _best_of_steps(raised, pieces, hidden, **options)
        if not _clearly_better(trial, best, _ORDER_GAIN):
            break
        best = trial
    return best, pieces


def _deep_errors(model, pieces):
    """Errors deep in gaps of all columns, as of :class:`Fit`, and the number of gaps."""
    n_times = pieces.values.shape[1]
    length = min(_GAP, n_times // 5)
    gone, deep = torch.zeros((2, *pieces.values.shape), dtype=torch.bool)
    # One gap inside, known from both sides, and one at the end.
    for first in (n_times // 3, n_times - length):
        gone[:, first : first + length] = True
        deep[:, first + length // 4 : first + length - length // 4] = True
    fit, _ = _judged(model, pieces, pieces.observed & gone)
    kept = (deep & pieces.observed)[pieces.observed & gone]
    n_gaps = 2 * int((deep & pieces.observed).any(2).any(1).sum())
    return tuple(x[kept] for x in (fit.error, fit.deviation, fit.column)), n_gaps


def _by_least_squares(best, pieces, hidden, order):
    """The fit by regression of the completed rows on those before, or ``best`` if that is better.

    Expectation maximisation hardly moves where the noise is small beside what a step moves: series
    as smooth as a water level, which two rows tell nearly exactly, stay with the damped walk that
    they began with. Their completed rows are nearly exact as well, and a regression is at once
    where they belong. What gaps and noise do to it is left to the hidden cells.
    """
    model = regressed(best.model, best.completed, pieces.real, order)
    noises = [model.noise, torch.full_like(model.noise, LEAST_NOISE)]
    for noise in noises[int(torch.equal(*noises)) :]:
        trial, _ = _judged(replace(model, noise=noise), pieces, hidden)
        best = trial if _clearly_better(trial, best, _GAIN) else best
    return best


def _start(pieces, hidden, guesses, options):
    """The first model: of several guesses that which leads furthest on some of the rows."""
    if len(guesses) == 1:
        return guesses[0]
    some = _affordable(pieces, 1, _WORK_OF_STARTS)
    few, unseen = pieces.first(some), hidden[:some]
    fits = [_best_of_steps(guess, few, unseen, **options) for guess in guesses]
    return min(fits, key=lambda fit: fit.surprise).model


def _affordable(pieces, order, work):
    """Number of pieces whose smoothing costs no more than ``work``, four at least."""
    n_pieces, n_times, k = pieces.values.shape
    cells_a_piece = max(1.0, float(pieces.observed.sum()) / n_pieces)
    enough = max(_CELLS, _CELLS_A_NUMBER * k * k) / cells_a_piece
    return max(4, int(min(work / (n_times * (order * k) ** 3), enough)))


def _best_of_steps(model, pieces, hidden, n_steps, ridge, done):
    """EM until the hidden cells gain nothing more."""
    best, smoothed = _judged(model, pieces, hidden)
    lowest = best
    for i in range(n_steps):
        model = maximise(model, smoothed, pieces, pieces.observed & ~hidden, ridge)
        trial, smoothed = _judged(model, pieces, hidden)
        done()
        # A step makes the seen cells more likely, so that only a clear loss speaks against it: on
        # some hundred hidden cells the first one may well look worse, and the first guess stay.
        best = best if _clearly_better(lowest, trial) else trial
        enough = trial.crps > (1 - _GAIN) * lowest.crps
        lowest = min(lowest, trial, key=lambda fit: fit.crps)
        if enough and i + 1 >= _FEWEST_STEPS:
            break
    return best


def _clearly_better(one, other, gain=0.0):
    """Whether a fit has a lower CRPS by this share and by a standard error of the difference."""
    difference = normal_crps(other.error, other.deviation) - normal_crps(one.error, one.deviation)
    error = float(difference.std()) / math.sqrt(len(difference))
    return other.crps - one.crps > max(gain * other.crps, error)


def _judged(model, pieces, hidden):
    """Smooth without the hidden cells, and compare these with what the smoother says."""
    seen = pieces.observed & ~hidden
    smoothed = smooth(model, pieces.values * seen, seen)
    mean, variance = model.cells(smoothed.mean, smoothed.covariance)
    deviation = (variance + model.noise).sqrt()[hidden]
    error = (pieces.values - mean)[hidden]
    column = torch.nonzero(hidden)[:, -1]
    crps = float(normal_crps(error, deviation).mean())
    completed = torch.where(seen, pieces.values, mean)
    return Fit(model, crps, error, deviation, column, completed), smoothed


def normal_crps(error, deviation):
    """CRPS of normal distributions (Gneiting & Raftery 2007, equation 21, negated)."""
    z = error / deviation
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return deviation * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
