"""Fitting a density model: from a table to what is stored, and further training on new rows."""

import math
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight, check_consistent_length

from skdiffusion._device import resolve_device, to_numpy_state
from skdiffusion._random import draw_seed, torch_generator
from skdiffusion.columns.coordinates import Coordinates
from skdiffusion.columns.discrete import Category, spread
from skdiffusion.columns.ends import spiked_ends
from skdiffusion.diffusion.conditional import copied
from skdiffusion.diffusion.denoiser import Denoiser
from skdiffusion.diffusion.loss import law_and_weight
from skdiffusion.diffusion.model import DensityModel
from skdiffusion.estimators.density._choice import Choice, Settings
from skdiffusion.estimators.density._conditions import encoded_rows, learn_condition
from skdiffusion.estimators.density._gaps import completed_copies
from skdiffusion.estimators.density._reader import (
    TableReader,
    column_names,
    tied_columns,
)
from skdiffusion.estimators.density._row_noise import spreading
from skdiffusion.estimators.density._rows import grouped, repeated, split_rows, standardised
from skdiffusion.estimators.density._selection import MAX_LEVEL, choose, require_consistent
from skdiffusion.inputs.arguments import layer_sizes, require_arguments, require_same_order
from skdiffusion.inputs.placeholders import warn_placeholders
from skdiffusion.nn.mlp import residual_network
from skdiffusion.training.density import Recipe, train_residual

# Rows of a batch: more say nothing that so many do not, and need not fit into the memory.
_LARGEST_BATCH = 2**16
# Rows that are learnt from at most, ten thousand of which are held out: a chain's training sees 1.3
# million rows, so that it meets each of 200 000 six times, and the errors of histograms and
# mixtures of so many are far below those of their form.
_MOST_ROWS = 210_000
# A regression on the condition has an ensemble of trees for each column.
_MIN_REGRESSION_ROWS, _MAX_REGRESSION_FEATURES = 50, 8

# Share of the rows that must be different for copies to be those that weights make.
_DISTINCT = 0.5


@dataclass(frozen=True)
class Fitted:
    """What a fit learnt.

    Parameters
    ----------
    reader : TableReader
        What the table looks like.
    encoder : Labels, Values or None
        What the condition looks like.
    coordinates : Coordinates
        The way from the table to rows.
    choice : Choice
        The density of the rows.
    """

    reader: TableReader
    encoder: Any
    coordinates: Coordinates
    choice: Choice


def fit_density(estimator, X, y, sample_weight, course):
    """Fit a density model; ``estimator`` gives the parameters and gets the names of the columns."""
    device, seed = resolve_device(estimator.device), course.seed(estimator.random_state)
    layer_sizes(estimator.hidden_layer_sizes)
    reader = TableReader(estimator.dequantize)
    allow_nan = estimator.handle_missing == "impute"
    codes = reader.learn(estimator, X, allow_nan, ensure_min_samples=2)
    if y is not None and estimator.condition is not None:
        check_consistent_length(codes, y)
    for name, beside in (("y", y), ("sample_weight", sample_weight)):
        require_same_order(X, beside, name)
    if sample_weight is not None:
        codes, y, sample_weight = _weighted(codes, y, sample_weight)
    encoder, condition = learn_condition(estimator.condition, estimator.base, y, len(codes))
    require_consistent(estimator.base, estimator.marginals, encoder)
    codes, condition, sample_weight = _at_most(_MOST_ROWS, seed, codes, condition, sample_weight)
    joined, groups = _joined(codes, condition, sample_weight, reader.table.discrete, seed)
    course.require_data(joined, groups)
    d, names = codes.shape[1], column_names(estimator)
    warn_placeholders(codes, names, "make it NaN and set handle_missing='impute'")
    tied = tied_columns(joined[:, :d], groups, names)
    mean, scale, data = standardised(joined[:, :d], names, tied)
    rows = np.hstack([data, joined[:, d:]])
    if np.isnan(rows).any():
        rows, groups = completed_copies(rows, groups, seed)
    if _regresses(estimator, len(rows), d):
        rows = encoder.regress(rows, groups, seed % 2**31, bool(estimator.verbose))
    rows = split_rows(rows, groups, d, estimator.validation_fraction, seed)
    cells = {
        j: (column.inner_ends - mean[j]) / scale[j]
        for j, column in reader.table.discrete.items()
        if isinstance(column, Category)
    }
    choice = choose(rows, _settings(estimator, encoder, seed, device, course, cells))
    course.close()
    discrete = reader.table.discrete
    ends = spiked_ends(codes, set(range(d)) - set(discrete) - set(reader.table.categories))
    maps = choice.mapped.marginals, choice.kept.chain
    coordinates = Coordinates(discrete, mean, scale, *maps, ends)
    return Fitted(reader, encoder, coordinates, choice)


def train_further(estimator, rows, encoder, course):
    """Train the network of a fitted estimator once over new rows, or one on its base.

    Parameters
    ----------
    estimator : ScoreSDE
        The estimator, which stays what it was.
    rows : ndarray of shape (n_samples, n_features + n_conditions)
        Rows in the coordinates of the model, joined with their condition.
    encoder : Labels, Values or None
        The condition.
    course : Course
        Time of the training.

    Returns
    -------
    base : str
        Name of the base.
    history : dict
        What the training was like.
    model : DensityModel
        The new model.
    """
    generator = torch_generator(draw_seed(estimator.random_state) + estimator.n_iter_)
    kept, name = estimator.model_, base_name(estimator.base_)
    base, network = kept.denoiser.base, deepcopy(kept.denoiser.network)
    if network is None:
        network = new_network(estimator, encoder, generator)
    denoiser = Denoiser(copied(base), network).to(kept.device).float().requires_grad_(True)
    model = DensityModel(denoiser, kept.prior, kept.s_min, kept.s_max)
    n_steps = math.ceil(len(rows) / estimator.batch_size)
    recipe = _recipe(estimator, course)
    history = train_residual(model, rows, recipe, generator, name=name, n_steps=n_steps)
    course.close()
    denoiser = Denoiser(base, network).to(kept.device).double().requires_grad_(False)
    return name, history, DensityModel(denoiser, kept.prior, kept.s_min, kept.s_max)


def further_rows(codes, y, sample_weight, encoder, coordinates, seed):
    """Rows of a later batch in the coordinates of the model, joined with their condition."""
    if encoder is not None and y is None:
        raise ValueError("The model is conditional: pass y.")
    condition = encoded_rows(encoder, y, len(codes))
    joined = codes if condition is None else np.hstack([codes, condition])
    if sample_weight is not None:
        joined = repeated(joined, _check_sample_weight(sample_weight, codes))
    codes, condition = np.split(joined, [codes.shape[1]], axis=1)
    uniforms = spreading(codes, coordinates.discrete, seed)
    return np.hstack([coordinates.forward(codes, uniforms)[0], condition])


def new_network(estimator, encoder, generator):
    """Untrained network by the parameters of an estimator."""
    n_conditions = 0 if encoder is None else encoder.n_columns
    shape = estimator.n_features_in_, layer_sizes(estimator.hidden_layer_sizes), n_conditions
    if estimator.network is not None:
        require_arguments(estimator.network, "network", "n_features", "generator")
    return residual_network(estimator.network, *shape, generator)


def _settings(estimator, encoder, seed, device, course, cells):
    """What of the parameters decides on the model."""
    return Settings(
        base=estimator.base,
        marginals=estimator.marginals,
        encoder=encoder,
        max_iter=estimator.max_iter,
        own_network=estimator.network is not None,
        make_network=partial(new_network, estimator, encoder),
        recipe=_recipe(estimator, course),
        start=_kept_network(estimator) if estimator.warm_start else None,
        max_level=min(MAX_LEVEL, getattr(estimator.noise_law, "max_noise_level", MAX_LEVEL)),
        seed=seed,
        device=device,
        cells=cells,
    )


def _recipe(estimator, course):
    """How networks are trained."""
    law, weight = law_and_weight(estimator.noise_law)
    return Recipe(
        law=law,
        weight=weight,
        batch_size=min(estimator.batch_size, _LARGEST_BATCH),
        learning_rate=estimator.learning_rate,
        early_stopping=estimator.early_stopping,
        progress=bool(estimator.verbose),
        course=course,
    )


def _regresses(estimator, n_rows, n_features):
    """Whether boosted trees learn location and scale given the condition."""
    affordable = n_rows >= _MIN_REGRESSION_ROWS and n_features <= _MAX_REGRESSION_FEATURES
    return estimator.base == "regression" or (
        estimator.base == "auto" and estimator.condition == "value" and affordable
    )


def _kept_network(estimator):
    """Base and weights of the network of an earlier fit, or None."""
    model = getattr(estimator, "model_", None)
    if model is None or model.denoiser.network is None:
        return None
    return base_name(estimator.base_), to_numpy_state(model.denoiser.network)


def base_name(label):
    """Base of a label of a candidate, which may name a network too."""
    return label.removesuffix(" + network")


def _joined(codes, condition, weight, discrete, seed):
    """Rows without ties joined with their condition, and their groups."""
    d, joined = codes.shape[1], np.hstack([codes, condition])
    copies = None
    if weight is not None:
        joined, copies = grouped(repeated(joined, weight))
        if copies[-1] + 1 < _DISTINCT * len(codes):
            # A table of few different rows has its repeats on both sides.
            copies = None
    values, condition = np.split(joined, [d], axis=1)
    if discrete:
        values = spread(values, discrete, spreading(values, discrete, seed))
    rows = np.hstack([values, condition])
    # What spreads discrete columns makes copies of a row differ, which weigh it all the same.
    return grouped(rows) if copies is None else (rows, copies)


def _weighted(codes, y, sample_weight):
    """Rows that count, their y and their weights."""
    weight = _check_sample_weight(sample_weight, codes, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("sample_weight is zero for all rows: nothing is left to fit.")
    kept = np.flatnonzero(weight > 0)
    if y is not None:
        y = y.iloc[kept] if hasattr(y, "iloc") else np.asarray(y)[kept]
    return codes[kept], y, weight[kept]


def _at_most(most, seed, *parts):
    """Parts of a table, of rows drawn at random where there are more than so many."""
    n_rows = len(parts[0])
    if n_rows <= most:
        return parts
    places = np.sort(np.random.default_rng(seed).choice(n_rows, most, replace=False))
    return tuple(None if part is None else part[places] for part in parts)
