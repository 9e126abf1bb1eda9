"""How an imputer learns: columns, windows, the Gaussian over a window, the network on top."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from skdiffusion._random import torch_generator
from skdiffusion._warn import warn
from skdiffusion.columns.columns import Columns
from skdiffusion.columns.standard import unresolved
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.estimators.imputation._base import (
    WIDEST,
    fit_base,
    is_enough,
    is_grouped,
    is_too_small,
    refit_alone,
)
from skdiffusion.estimators.imputation._choice import nothing_trained, with_network
from skdiffusion.estimators.imputation._judging import Judge
from skdiffusion.estimators.imputation._maps import bent_series, better_mapped
from skdiffusion.estimators.imputation._model import Blueprint, ImputationModel
from skdiffusion.estimators.imputation._validation import warn_doubted
from skdiffusion.inputs.arguments import require_arguments
from skdiffusion.inputs.bounds import column_bounds, require_inside
from skdiffusion.inputs.placeholders import warn_placeholders
from skdiffusion.training.imputation import hides_nothing
from skdiffusion.training.masking import (
    STRATEGIES,
    by_feature,
    pattern_targets,
    user_strategy,
)

_log = logging.getLogger(__name__)

# With fewer windows than this there is nothing to spare for validation.
_FEWEST_WINDOWS = 10
# A target strategy that hides nothing in so many windows, fewer if they are large, is refused.
_MOST_WINDOWS_TO_ASK, _FEWEST_WINDOWS_TO_ASK, _CELLS_TO_ASK = 512, 32, 500_000
# As in the published setting, 64 channels and 8 heads.
_CHANNELS_PER_HEAD = 8
# Above this many features "csdi" attends to 32 inducing points instead of all pairs.
_FULL_ATTENTION, _N_INDUCING = 128, 32


@dataclass(frozen=True, eq=False)
class Windows:
    """Series and which of their windows are for what.

    Attributes
    ----------
    series : WindowedSeries
        What the model sees.
    train, held_out : int64 tensors
        First rows of the windows to learn from and of those held out, which share no row.
    """

    series: WindowedSeries
    train: torch.Tensor
    held_out: torch.Tensor

    @property
    def few(self):
        """Whether there are too few to train a network and to check it."""
        return len(self.train) + len(self.held_out) < _FEWEST_WINDOWS

    def to(self, device):
        """Return the same windows of series on another device."""
        return replace(self, series=self.series.to(device))


def learn_columns(reader, data, settings, names):
    """Learn the columns, and what in series is not believed.

    It warns of columns that are empty, or not standardised as promised, and of values that can
    hardly be such.

    Parameters
    ----------
    reader : SeriesReader
        What has read the data.
    data : SeriesInput
        The data.
    settings : Bunch
        Parameters of the imputer.
    names : ndarray of shape (n_features,)
        Names or numbers of the features.

    Returns
    -------
    reader : SeriesReader
        The same with its doubts.
    columns : Columns
        The columns.
    """
    flat, encoding = data.flat, reader.encoding
    bounds, names = column_bounds(settings.bounds, names, encoding), names[encoding.owner]
    require_inside(flat, *bounds, names)
    warn_placeholders(flat, names, "set missing_values={value}, or make it NaN")
    # The paper's network gets the standardised values of the paper.
    plain = settings.method != "gaussian" and settings.network == "csdi"
    if reader.kind == "series" and not plain:
        reader, doubted = reader.doubting(data)
        if doubted.any():
            warn_doubted(doubted, data, names)
            flat = np.where(doubted, np.nan, flat)
    columns = Columns.learn(flat).bounded(*bounds)
    _warn_unresolved(flat, columns, names)
    if not settings.scale:
        _warn_unscaled(columns, names)
        columns = columns.unscaled()
    elif not plain:
        table = reader.kind == "table"
        columns = better_mapped(columns, flat) if table else bent_series(columns, flat)
    if not columns.valid.all():
        fate = "filled with 0" if settings.keep_empty_features else "dropped"
        warn(
            f"Features {names[~columns.valid].tolist()} have no observed value and are {fate}: "
            "see keep_empty_features.",
        )
    return reader, columns


def _warn_unresolved(flat, columns, names):
    """Name the columns that vary by less than double precision resolves."""
    valid = columns.valid
    if (columns.scale[valid] > 0).all():
        return
    lost = unresolved(flat[:, valid].astype(float), columns.scale[valid])
    if lost.any():
        warn(
            f"Features {names[valid][lost].tolist()} vary by less than double precision resolves "
            "at their size and are taken as constant: subtract their offset, or give them in other "
            "units.",
        )


def _warn_unscaled(columns, names):
    """Say so where ``scale=False`` meets data that are not standardised."""
    centre, scale = columns.centre, columns.scale
    off = (np.abs(centre) > 3) | (scale > 10) | ((scale > 0) & (scale < 0.1))
    if off.any():
        warn(
            f"Features {names[off].tolist()} are far from mean 0 and standard deviation 1, which "
            "scale=False expects: set scale=True.",
        )


def split_windows(series, settings, seed):
    """Divide the windows of series into those to learn from and those held out.

    Parameters
    ----------
    series : WindowedSeries
        What the model sees.
    settings : Bunch
        Parameters of the imputer.
    seed : int
        Fixes the choice.

    Returns
    -------
    windows : Windows
        None is held out without early stopping, for the closed form, or if there are few.
    """
    starts = series.all_starts()
    if not (settings.early_stopping and settings.method == "diffusion"):
        return Windows(series, starts, starts[:0])
    candidates = series.regular_starts(series.length)
    n_held_out = max(1, round(settings.validation_fraction * len(candidates)))
    if len(candidates) < _FEWEST_WINDOWS:
        return Windows(series, candidates, candidates[:0])
    order = torch.randperm(len(candidates), generator=torch_generator(seed))
    held_out = candidates[order[:n_held_out].sort().values]
    taken = torch.zeros(len(series.values) + 1, dtype=torch.int64)
    taken[series.rows(held_out).flatten() + 1] = 1
    before = taken.cumsum(0)
    starts = starts[before[starts + series.length] == before[starts]]
    if len(starts) == 0:
        raise ValueError(
            f"validation_fraction={settings.validation_fraction} leaves no window to learn from: "
            "lower it or set early_stopping=False."
        )
    return Windows(series, starts, held_out)


def fit_imputation_model(
    windows, columns, owner, settings, seed, course, *, stationary, previous=None
):
    """Fit the Gaussian over a window, train a network on it, keep what is better.

    Parameters
    ----------
    windows : Windows
        What to learn from.
    columns : Columns
        Their columns.
    owner : int ndarray of shape (n_columns,)
        The feature that each of them belongs to.
    settings : Bunch
        Parameters of the imputer.
    seed : int
        Fixes weights, masks and noise.
    course : Course
        Time and file of the fit.
    stationary : bool
        Whether a window may lie anywhere in time.
    previous : ImputationModel, optional
        Model to train further.

    Returns
    -------
    model : ImputationModel
        The fitted model.
    history : dict
        As returned by :func:`skdiffusion.training.train`.
    """
    strategy = _target_strategy(settings, windows.series.length, owner, columns.valid)
    course.require_data(windows.series.values, windows.series.observed, windows.train)
    own = torch.as_tensor(owner[columns.valid])
    few = previous is None and windows.few
    wide = settings.network != "csdi" and is_grouped(windows, stationary)
    past = settings.direction == "past"
    _require_series(settings, stationary)
    blueprint = _blueprint(windows.series, settings, seed, closed_form=few or wide or past)
    # Without validation a network is asked for.
    alone = blueprint.name != "csdi" and settings.early_stopping
    alone = alone and is_too_small(windows, len(own.unique()))
    everything = Windows(windows.series, windows.series.all_starts(), windows.held_out[:0])
    if previous is None:
        progress = settings.verbose > 0
        base = None
        if blueprint.name != "csdi":
            windows = everything if alone else windows
            base = fit_base(windows, stationary, own, seed, progress)
        _log.info("fitted the Gaussian of %d columns", windows.series.values.shape[1])
        if alone or is_enough(windows, base):
            # A network would add nothing, trees may; of its rows none is left to judge by.
            blueprint = replace(blueprint, name="gaussian", sizes={})
            windows = everything
        denoiser = blueprint.build(base)
    elif previous.name == "trees" and (alone or is_enough(windows, previous.denoiser.base)):
        return previous, nothing_trained()
    else:
        denoiser = previous.continued(blueprint)
    history = nothing_trained()
    if past:
        # The network sees both sides of a gap.
        return ImputationModel(denoiser, blueprint), history
    if settings.method == "diffusion" and few:
        warn(
            f"X has only {len(windows.train)} windows, too few to train a network and to check "
            "it: the Gaussian over the window is used alone.",
        )
    elif settings.method == "diffusion":
        if wide:
            warn(
                f"X has {windows.series.values.shape[1]} columns, more than the {WIDEST} for which "
                "the default network is made: state spaces of groups of columns are used, and "
                'trees on top. network="csdi" trains on any number.',
            )
        _require_targets(windows, strategy, settings, seed)
        judge = Judge(windows, columns, strategy, settings, seed)
        before = getattr(previous, "denoiser", None)
        denoiser, history = with_network(denoiser, judge, course, before)
    if denoiser.name == "gaussian" != blueprint.name:
        return _closed(refit_alone(denoiser.base, windows.series, own), blueprint), history
    if denoiser.name != blueprint.name:
        blueprint = replace(blueprint, name=denoiser.name, sizes={})
    return ImputationModel(denoiser, blueprint), history


def _closed(base, blueprint):
    """The model of a base alone."""
    blueprint = replace(blueprint, name="gaussian", sizes={})
    return ImputationModel(blueprint.build(base), blueprint)


def _require_series(settings, stationary):
    """Only series have a past, and only the state space can be asked for it."""
    if settings.direction != "past":
        return
    if not stationary:
        raise ValueError(
            'direction="past" is for series, and X is a table or a panel of whole windows: set '
            "window_length, or give a list of series or a long frame."
        )
    if settings.network == "csdi":
        raise ValueError(
            'direction="past" goes without a network, and network="csdi" has nothing else: '
            'take network="encoder".'
        )


def _blueprint(series, settings, seed, closed_form):
    """What the parameters ask for."""
    n_features = series.values.shape[1]
    name = "gaussian" if closed_form or settings.method == "gaussian" else settings.network
    sizes = {}
    if name != "gaussian":
        sizes = {"n_layers": settings.n_layers, "n_channels": settings.n_channels}
        sizes["n_heads"] = _n_heads(settings.n_channels)
    if name == "csdi" and n_features > _FULL_ATTENTION:
        sizes["n_inducing"] = _N_INDUCING
    return Blueprint(name, series.length, n_features, sizes, seed)


def _n_heads(n_channels):
    """A head for every 8 channels, or the next smaller number that divides them."""
    most = max(1, n_channels // _CHANNELS_PER_HEAD)
    return next(n for n in range(most, 0, -1) if n_channels % n == 0)


def _target_strategy(settings, length, owner, valid):
    """Target strategy as a function of observed masks, which hides features whole."""
    given = settings.target_strategy
    if callable(given):
        require_arguments(given, "target_strategy", "observed", "rng")
        strategy = user_strategy(given)
    elif isinstance(given, str):
        strategy = STRATEGIES[given]
    else:
        strategy = _pattern_strategy(given, length, np.unique(owner), np.unique(owner[valid]))
    return by_feature(strategy, torch.from_numpy(owner[valid]))


def _pattern_strategy(given, length, features, kept):
    """Strategy that hides the patterns that the user gave."""
    pattern = np.asarray(given, dtype=bool)
    pattern = pattern[None] if pattern.ndim == 2 else pattern
    if pattern.shape[1:] != (length, len(features)):
        raise ValueError(
            f"target_strategy has shape {np.shape(given)}; expected {(length, len(features))}, "
            "times and features of a window, or several such patterns."
        )
    return pattern_targets(torch.from_numpy(pattern[..., kept]))


def _require_targets(windows, strategy, settings, seed):
    """Raise for a strategy of the user's, or of past gaps, that leaves nothing to learn."""
    series, name = windows.series, settings.target_strategy
    # Those drawn at random hide something sooner or later; past gaps need gaps.
    named = isinstance(name, str)
    if named and not (name == "historical" and series.observed.all()):
        return
    n = _CELLS_TO_ASK // (series.length * series.values.shape[1])
    n = min(_MOST_WINDOWS_TO_ASK, max(_FEWEST_WINDOWS_TO_ASK, n))
    if hides_nothing(series, windows.train, strategy, n_windows=n, seed=seed):
        raise ValueError(
            f"target_strategy hides no observed cell of {n} windows of X, so that there is "
            'nothing to learn: hide some, or take target_strategy="block".'
        )
