"""Training of an imputer's network, and which of base, trees and network answers."""

import logging
from dataclasses import replace
from functools import partial

from sklearn.exceptions import ConvergenceWarning

from skdiffusion._device import memory_advice, resolve_device
from skdiffusion._warn import warn
from skdiffusion.estimators.imputation._judging import SHARE, warn_missed
from skdiffusion.estimators.imputation._row_trees import fit_row_trees, seconds_of_row_trees
from skdiffusion.estimators.imputation._trees import TreeDenoiser, fit_trees
from skdiffusion.training.imputation import train_imputer

_log = logging.getLogger(__name__)

# Default size of a training batch: so many windows or rows, fewer if they have many cells.
_LARGEST_BATCH, _LARGEST_TABLE_BATCH, _CELLS_PER_BATCH = 8, 256, 8192
# Windows of a batch at most, whatever was asked for, if there are not as many.
_MOST_WINDOWS = 512
# Share of the CRPS of held-out cells that trees must gain to be kept without trying a network: on
# years of weather and air quality the default network gained 2 % on the state space, or nothing.
_CLEAR_GAIN = 0.02
# What trees of series take of most cells, besides smoothing, where time is limited.
_SECONDS_OF_TREES = 10


def nothing_trained():
    """History of a model without training."""
    return {"loss": [], "validation": [], "best_step": 0}


def with_network(denoiser, judge, course, previous):
    """What predicts held-out cells best: a base, the same corrected by trees, or a network on it.

    The network is not trained where the trees gain so much that it would hardly gain more.

    Parameters
    ----------
    denoiser : ImputationDenoiser
        The network, not trained, or the base if there is none for such data.
    judge : Judge
        Windows, strategy and settings, and what the choice is by.
    course : Course
        Time and file of the fit.
    previous : ImputationDenoiser or None
        What answered before this fit; its trees are kept.

    Returns
    -------
    denoiser : ImputationDenoiser
        What is kept.
    history : dict
        As returned by :func:`skdiffusion.training.train`.
    """
    device, settings = resolve_device(judge.settings.device), judge.settings
    denoiser, windows = denoiser.to(device), judge.windows.to(device)
    judge, alone = replace(judge, windows=windows), denoiser.closed_form()
    history, judged, closed = nothing_trained(), {}, [denoiser]
    if alone is not None and (judge.can or denoiser.name == "gaussian"):
        room = course.has_room(_seconds_of_trees(alone.base, windows))
        trees = _corrected(alone, judge, previous) if room else None
        closed = [alone] if trees is None else [alone, trees]
    if judge.can and alone is not None:
        judged = {one: judge(one) for one in closed}
    if denoiser.name != "gaussian" and not _gains_enough(judged, alone):
        if judged:
            course.set_aside(SHARE, judge.try_share, denoiser)
        history = _train(denoiser, windows, judge.strategy, settings, judge.seed, course)
        _warn_useless(denoiser, history)
        if judged:
            judged[denoiser] = judge(denoiser)
    # Trees of tables whose base has seen all rows were judged by column.
    kept = min(judged, key=lambda one: judged[one].loss(judged[alone]), default=closed[-1])
    if judged:
        warn_missed(judged[kept])
    _log.info("trained the network for %d steps, kept: %s", len(history["loss"]), kept.name)
    return kept, history


def _gains_enough(judged, alone):
    """Whether what was judged is so much better than the base that no network is tried."""
    best = min((one.loss(judged[alone]) for one in judged.values()), default=1.0)
    return best < 1 - _CLEAR_GAIN


def _seconds_of_trees(base, windows):
    """What trees on a base take, roughly."""
    n_rows, n_columns = windows.series.values.shape
    if windows.series.length > 1:
        return _SECONDS_OF_TREES
    return seconds_of_row_trees(base, n_rows, n_columns)


def _corrected(alone, judge, previous):
    """The base corrected by trees, those of before if there are; None if there are none."""
    if isinstance(previous, TreeDenoiser):
        return previous
    fit = fit_row_trees
    if judge.windows.series.length > 1:
        fit = partial(fit_trees, as_missing=judge.as_missing)
    trees = fit(alone.base, judge.windows, judge.strategy, judge.seed)
    return None if trees is None else TreeDenoiser(alone.base, trees)


def _train(denoiser, windows, strategy, settings, seed, course):
    """Train ``denoiser`` in place; return the history."""
    series = windows.series
    n_cells = series.length * series.values.shape[1]
    most = _LARGEST_BATCH if series.length > 1 else _LARGEST_TABLE_BATCH
    with memory_advice("Too little memory to train: lower batch_size or n_channels."):
        return train_imputer(
            denoiser,
            series,
            windows.train,
            windows.held_out,
            strategy,
            batch_size=_batch_size(settings, len(windows.train), most, n_cells),
            seed=seed,
            n_steps=settings.max_iter,
            learning_rate=settings.learning_rate,
            course=course,
            progress=settings.verbose > 0,
            description="Learning",
        )


def _batch_size(settings, n_windows, most, n_cells):
    """Windows of a batch: as asked for, within what can be computed."""
    if settings.batch_size is None:
        return max(1, min(most, _CELLS_PER_BATCH // n_cells))
    return min(settings.batch_size, max(n_windows, _MOST_WINDOWS))


def _warn_useless(denoiser, history):
    """Say so if training led nowhere and there is no closed form to answer instead."""
    useless = history["validation"] and history["best_step"] == 0
    if useless and denoiser.closed_form() is None:
        warn(
            f"{len(history['loss'])} training steps did not lower the loss on held-out windows "
            "(see history_): raise max_iter or lower learning_rate.",
            ConvergenceWarning,
        )
