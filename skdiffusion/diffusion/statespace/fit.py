"""Fitting a state space to series with gaps: steps of expectation maximisation and their choice.

A tenth of the observed cells is kept from the steps, half of them scattered and half in runs. What
the smoother says of these cells is out of sample at no cost: it stops the steps, chooses the order,
and shows what shape the errors have. Short series have no cell to spare (:mod:`.short`).

An autoregression is one kind of model. Columns that walk and columns whose level and season move
have others, and which it is is found by comparison (:mod:`.compare`).
"""

import math
from dataclasses import replace
from functools import partial

import torch

from skdiffusion.diffusion.statespace.compare import compare
from skdiffusion.diffusion.statespace.em import (
    LEAST_NOISE,
    first_guess,
    maximise,
    raise_order,
    regressed,
)
from skdiffusion.diffusion.statespace.judge import clearly_better, judged
from skdiffusion.diffusion.statespace.pieces import hide
from skdiffusion.diffusion.statespace.short import fit_short, fit_short_walk
from skdiffusion.diffusion.statespace.structural import fit_structural

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
# Kinds of models are compared on so many cells; fewer cannot tell, and have the one that believes
# most beforehand, the structural model (on 146 ends of short public series the CRPS of an
# autoregression is 1.5 times that of AutoETS). A walk is compared where an autoregression has fewer
# cells for each of its numbers, and so many cells in all.
_FEWEST_COMPARED, _MOST_COMPARED = 30, 40_000
_FEW_CELLS_A_NUMBER, _FEWEST_FOR_A_WALK = 150, 1000
# Steps of each of these fits: from a known noise and order few are left to make.
_STEPS = 5
# States of a structural model, and of one whose smoothing, rows times the cube of the states, costs
# no more than a second: a dozen columns with twelve months each, of ten years.
_MOST_STATES, _MOST_STATES_OF_FEW_ROWS, _WORK_OF_FEW_ROWS = 96, 192, 6e8


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
    period=0.0,
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
    period : float, default=0.0
        Rows of a season that may move; 0 for none.

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
    best, pieces, unseen = _better(best, pieces, regression, walk, period, generator)
    if unseen is None:
        deep, n_gaps = _deep_errors(best.model, pieces)
        return replace(best, deep=deep, n_gaps=n_gaps)
    n_columns = pieces.values.shape[2]
    near, deep, n_gaps = unseen.split(best.deviation, best.column, n_columns)
    best = replace(best, deep=deep, n_gaps=n_gaps)
    if len(near[0]) < _FEWEST_TO_JUDGE:
        return best
    error, deviation, column = near
    return replace(best, error=error, deviation=deviation, column=column)


def _regression(pieces, generator, *, max_order, work, noises, thorough=True, **options):
    """Fit of a vector autoregression, and the pieces that it has seen."""
    hidden = hide(pieces.observed, generator)
    if int(hidden.sum()) < _FEWEST_TO_JUDGE:
        options |= {"max_order": max_order, "noises": noises, "thorough": thorough}
        model = fit_short(pieces, **options)
        return judged(model, pieces, hidden)[0], pieces
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
        return judged(model, pieces, hidden)[0], pieces
    guesses = [first_guess(pieces, noise, damping=1.0) for noise in noises]
    start = _start(pieces, hidden, guesses, options)
    return _best_of_steps(start, pieces, hidden, **options), pieces


def _better(best, pieces, regression, walk, period, generator):
    """The best of this fit, a walk and a structural model, its pieces and what it had not seen."""
    n_cells, n_numbers = int(pieces.observed.sum()), best.model.transition.numel()
    # With as many numbers as cells nothing is left to judge an autoregression by.
    hopeless = n_cells <= n_numbers + best.model.innovation.numel() // 2
    if n_cells > _MOST_COMPARED:
        return (*walk(pieces, generator), None) if hopeless else (best, pieces, None)
    known = {"noises": [float(best.model.noise.median())], "done": lambda: None, "n_steps": _STEPS}
    kinds = {}
    if not hopeless:
        again = partial(regression, max_order=best.model.order, thorough=False)
        kinds["regression"] = lambda x: again(x, generator, **known)[0].model
    if hopeless or _FEWEST_FOR_A_WALK <= n_cells <= _FEW_CELLS_A_NUMBER * n_numbers:
        kinds["walk"] = lambda x: walk(x, generator, **known)[0].model
    structural = _structural(pieces, period, generator)
    if structural is not None:
        kinds["structural"] = lambda x: fit_structural(x, period, generator, structural[1])[0]
    chosen, unseen = next(iter(kinds)), None
    if n_cells < _FEWEST_COMPARED:
        chosen = chosen if structural is None else "structural"
    elif len(kinds) > 1:
        number, unseen = compare(list(kinds.values()), pieces, generator)
        chosen = list(kinds)[number]
    if chosen == "structural":
        best, _ = judged(structural[0], pieces, hide(pieces.observed, generator))
    elif chosen == "walk":
        best, pieces = walk(pieces, generator)
    return best, pieces, unseen


def _structural(pieces, period, generator):
    """A structural model and what is known of it; None where it would be too large."""
    n_columns, most = pieces.values.shape[2], _most_states(pieces)
    if 2 * n_columns > most:
        return None
    try:
        found = fit_structural(pieces, period, generator)
    except torch.linalg.LinAlgError:
        # Numbers at the end of what they may be: the other kinds are safe.
        return None
    return found if found[0].n_states <= most else None


def _most_states(pieces):
    """States that a structural model of these may have."""
    affordable = int((_WORK_OF_FEW_ROWS / pieces.real.numel()) ** (1 / 3))
    return max(_MOST_STATES, min(_MOST_STATES_OF_FEW_ROWS, affordable))


def _of_higher_orders(best, pieces, hidden, max_order, work, options):
    """The fit of the highest order that brings enough, and the pieces that it has seen."""
    for order in range(2, max_order + 1):
        fewer = _affordable(pieces, order, work)
        if fewer < len(pieces.values):
            pieces, hidden = pieces.first(fewer), hidden[:fewer]
            best, _ = judged(best.model, pieces, hidden)
        found = _by_least_squares(best, pieces, hidden, order)
        raised = raise_order(best.model) if found is best else found.model
        trial = _best_of_steps(raised, pieces, hidden, **options)
        if not clearly_better(trial, best, _ORDER_GAIN):
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
    fit, _ = judged(model, pieces, pieces.observed & gone)
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
        trial, _ = judged(replace(model, noise=noise), pieces, hidden)
        best = trial if clearly_better(trial, best, _GAIN) else best
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
    best, smoothed = judged(model, pieces, hidden)
    lowest = best
    for i in range(n_steps):
        model = maximise(model, smoothed, pieces, pieces.observed & ~hidden, ridge)
        trial, smoothed = judged(model, pieces, hidden)
        done()
        # A step makes the seen cells more likely, so that only a clear loss speaks against it: on
        # some hundred hidden cells the first one may well look worse, and the first guess stay.
        best = best if clearly_better(lowest, trial) else trial
        enough = trial.crps > (1 - _GAIN) * lowest.crps
        lowest = min(lowest, trial, key=lambda fit: fit.crps)
        if enough and i + 1 >= _FEWEST_STEPS:
            break
    return best
