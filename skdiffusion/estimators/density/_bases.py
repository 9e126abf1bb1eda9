"""Fit the analytic base of a density to standardised rows."""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from skdiffusion.diffusion.analytic import em
from skdiffusion.diffusion.analytic.build import gaussian, gaussian_mixture, kernel_density, union
from skdiffusion.diffusion.analytic.em import Shape
from skdiffusion.estimators._clusters import clusters

# Steps of about a half more: the average over neighbours makes up for sizes in between. Held-out
# likelihood ends the list early on all but clouds of many clusters.
_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48)
# Where rows are few, averages over starting points of the mixtures pay.
_N_SEEDS, _MANY_ROWS = 3, 3000
# Weight in the average below which a mixture is not worth its time.
_MIN_WEIGHT = 0.03
# What covariances of few rows are multiplied by, as held-out rows like best: they follow what is
# chance in the rows, and are too narrow for others.
_WIDENINGS = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
# Steps of the weights at most: what thousands of rows say stands by then.
_MOST_STEPS = 1000
# Rows that sizes and shapes are compared on, and rows that mixtures are fitted to, at most: the
# errors of means and covariances are then far below those of the form of a mixture.
_SEARCH_ROWS, _FIT_ROWS = 10_000, 50_000
# Rows whose densities are evaluated at once.
_CHUNK = 500
# Turns between aiming the maps of the columns and fitting the mixtures to the mapped rows: more
# gained nothing on the training rows, and all rows go on from where these have ended.
_COPULA_TURNS = (2, 1)
# In standard deviations of a column, a quarter apart: from where only ties are neighbours, with the
# most rows allowed, to one normal distribution for all. A bandwidth off by an eighth costs nothing.
_BANDWIDTHS = np.logspace(-1.9, 0.1, 21)
# A kernel estimate has nothing to say in more columns, and costs one exponential a row and point.
MAX_KDE_FEATURES, MAX_KDE_ROWS = 15, 20_000


def fit_unit(n_features):
    """N(0, I), under which the denoiser is the usual preconditioned network."""
    return gaussian(np.zeros(n_features), np.eye(n_features))


def fit_gaussian(rows):
    """Gaussian with the moments of the rows."""
    covariance = np.cov(rows.T).reshape(rows.shape[1], -1)
    return gaussian(rows.mean(0), covariance + 1e-6 * np.eye(rows.shape[1]))


class Stack:
    """Weighted average of Gaussian mixtures.

    Parameters
    ----------
    weights : ndarray of shape (n_mixtures,)
        Weights.
    shapes : sequence of Shape
        What the covariances of each mixture may be.
    mixtures : sequence of Components
        The mixtures.
    widening : float, default=1
        What their covariances are multiplied by.
    """

    def __init__(self, weights, shapes, mixtures, widening=1.0):
        self.weights, self.shapes, self.mixtures = weights, shapes, mixtures
        self.widening = widening

    @cached_property
    def density(self):
        """The average, with its closed-form noisy versions."""
        densities = [
            gaussian_mixture(weights, means, self.widening * covariances)
            for weights, means, covariances in self.mixtures
        ]
        return union(self.weights, densities)

    def widened(self, held_out):
        """Return the average with covariances as wide as held-out rows like best.

        A row that is far out gains no more by width than one in the middle loses: one wrong record
        would widen all.
        """
        rows, parts = torch.as_tensor(held_out), (self.weights, self.shapes, self.mixtures)
        tried = [Stack(*parts, widening) for widening in _WIDENINGS]
        values = [log_densities(stack.density, rows, None) for stack in tried]
        most = 0.5 * rows.shape[1] * np.log(_WIDENINGS)
        gains = [
            float((value - values[0]).clamp(max=bound).mean())
            for value, bound in zip(values, most, strict=True)
        ]
        return tried[int(np.argmax(gains))]

    def refitted(self, rows):
        """Return the average of the mixtures after going on with their fits on other rows."""
        rows = torch.as_tensor(_thinned(rows))
        both = zip(self.mixtures, self.shapes, strict=True)
        mixtures = [em.fit(rows, mixture, shape) for mixture, shape in both]
        return Stack(self.weights, self.shapes, mixtures, self.widening)


def fit_stack(train, held_out, seed, sketched=False, progress=False):
    """Stack Gaussian mixtures of many sizes and shapes; a sketch has one start.

    Each mixture is fitted to the training rows; the weights of their average maximise the
    held-out likelihood [1]_. What has little weight is dropped.

    References
    ----------
    .. [1] P. Smyth, D. Wolpert, "Linearly combining density estimators via stacking", Machine
       Learning 1999, https://doi.org/10.1023/A:1007511322260.
    """
    few = train[:_SEARCH_ROWS]
    n_starts = 1 if sketched or len(few) >= _MANY_ROWS else _N_SEEDS
    tried = _candidates(few, held_out, seed, n_starts, progress)
    weights, kept = _useful(tried)
    shapes, mixtures, _ = zip(*(tried[i] for i in kept), strict=True)
    stack = Stack(weights[kept], shapes, mixtures)
    if len(few) < _MANY_ROWS and few.shape[1] > 2:
        stack = stack.widened(held_out)
    return stack if len(few) == len(train) else stack.refitted(train)


def fit_stacks(train, held_out, everything, seed, sketched=False, progress=False):
    """Return the stack of mixtures of the training rows and that of all rows."""
    stack = fit_stack(train, held_out, seed, sketched, progress)
    return stack, stack.refitted(everything)


def fit_mixture(train, held_out, everything, seed, progress=False):
    """Return the densities of :func:`fit_stacks`."""
    stacks = fit_stacks(train, held_out, everything, seed, progress=progress)
    return tuple(stack.density for stack in stacks)


def fit_copulas(histograms, stack, parts):
    """Aim the maps of the columns at a stack of mixtures and refit it to the rows, in turns.

    Parameters
    ----------
    histograms : pair of Marginals
        Distribution functions of the columns: of training rows and of all rows.
    stack : Stack
        Mixtures of the training rows that are not mapped.
    parts : pair of ndarray of shape (n_samples, n_features)
        Training rows and all rows, not mapped.

    Returns
    -------
    maps : list of Marginals
        Maps aimed at the stacks, of training rows and of all rows.
    stacks : list of Stack
        Stacks, each fitted to rows that were mapped by aiming at the stack before it.
    """
    maps, stacks = [], []
    for columns, rows, n_turns in zip(histograms, parts, _COPULA_TURNS, strict=True):
        for _ in range(n_turns):
            stack = stack.refitted(columns.aimed_at(stack.density).forward(rows)[0])
        maps.append(columns.aimed_at(stack.density))
        stacks.append(stack)
    return maps, stacks


def stacking_weights(log_densities):
    """Weights of an average of densities with the best likelihood, by expectation maximisation.

    It begins at equal weights and takes one step a row, a thousand at most: where rows are few,
    that keeps it from betting on few densities.

    Parameters
    ----------
    log_densities : ndarray of shape (n_samples, n_densities)
        Held-out log-densities.

    Returns
    -------
    weights : ndarray of shape (n_densities,)
        Weights that sum to one.
    """
    n_rows, n_densities = log_densities.shape
    relative = np.exp(log_densities - log_densities.max(1, keepdims=True))
    weights = np.full(n_densities, 1 / n_densities)
    for _ in range(min(n_rows, _MOST_STEPS)):
        # The best density of a row may have lost its weight.
        together = np.maximum(relative @ weights, 1e-300)
        weights = weights * (relative.T @ (1 / together)) / n_rows
    return weights


def log_densities(base, x, condition):
    """Log-densities of rows, part by part: each row takes the numbers of all components.

    Parameters
    ----------
    base : Mixture, ConditionalMixture, LabelledMixture or LocatedMixture
        The density.
    x : tensor of shape (n_samples, n_features)
        Rows.
    condition : tensor of shape (n_samples, n_conditions) or None
        What they are conditioned on.

    Returns
    -------
    log_densities : tensor of shape (n_samples,)
        Log-densities in nats.
    """
    parts = x.split(_CHUNK)
    conditions = [None] * len(parts) if condition is None else condition.split(_CHUNK)
    pairs = zip(parts, conditions, strict=True)
    return torch.cat([base.given(one).log_density(part) for part, one in pairs])


def _thinned(rows):
    """Evenly chosen rows, where there are more than a mixture needs."""
    return rows[:: math.ceil(len(rows) / _FIT_ROWS)]


class _Tried(NamedTuple):
    """A mixture that may be averaged, its shape, and its log-densities of the held-out rows."""

    shape: Shape
    mixture: em.Components
    held_out: np.ndarray


def _useful(tried):
    """Weights of mixtures in their average, and the numbers of those that are worth their time."""
    weights = stacking_weights(np.column_stack([one.held_out for one in tried]))
    return weights, np.flatnonzero(weights > min(_MIN_WEIGHT, weights.max() / 2))


def _candidates(train, held_out, seed, n_starts, progress):
    """Mixtures of all shapes; sizes grow until the held-out likelihood falls twice.

    Shapes that the average of the first start has no use for are not started again.
    """
    tried, shapes = [], _shapes(*train.shape)
    sizes = _mixture_sizes(*_distinct(train).shape)
    rows, others = torch.as_tensor(train), torch.as_tensor(held_out)
    for start in range(n_starts):
        labels = {}
        for shape in tqdm(shapes, desc="ScoreSDE, mixtures", disable=not progress):
            n_worse, last = 0, -math.inf
            for size in sizes:
                if size not in labels:
                    labels[size] = torch.as_tensor(clusters(train, size, seed + start))
                mixture = em.fit(rows, labels[size].long(), shape)
                tried.append(_Tried(shape, mixture, mixture.log_density(others).numpy()))
                score = tried[-1].held_out.mean()
                n_worse = n_worse + 1 if score < last else 0
                last = score
                if n_worse == 2:
                    break
        if start == 0 and n_starts > 1:
            useful = {tried[i].shape for i in _useful(tried)[1]}
            shapes = [shape for shape in shapes if shape in useful]
    return tried


def _distinct(rows):
    """Rows without repeats, in their order where there are none."""
    unique = np.unique(rows, axis=0)
    return rows if len(unique) == len(rows) else unique


def fit_kde(train, everything):
    """Kernel estimates of the training and of all rows, by leave-one-out likelihood."""
    # A row that is left out must not have a twin that is not: the narrowest kernel would win.
    bandwidth = _leave_one_out_bandwidth(_distinct(train))
    # The best bandwidth falls as n**(-1 / (d + 4)).
    shrunk = bandwidth * (len(train) / len(everything)) ** (1 / (train.shape[1] + 4))
    return kernel_density(train, bandwidth), kernel_density(everything, shrunk)


def _shapes(n_rows, n_features):
    """Shapes of covariances worth trying.

    The ridge is what held-out likelihood prefers between 1e-4, for tables with narrow directions,
    and 1e-2. Where rows are few, covariances that lean on their average are tried as well, with a
    ridge of 1e-1 too: there are directions of many columns that are narrow by chance.
    """
    if n_features <= 2:
        return [Shape(0, 1e-6)]
    if n_rows >= _MANY_ROWS:
        return [Shape(0, 1e-4), Shape(0, 1e-2), Shape(0, 1e-2, diagonal=True)]
    own = [Shape(0, 1e-3), Shape(0, 1e-2), Shape(0, 1e-2, diagonal=True)]
    return [*own, Shape(2, 1e-4), Shape(2, 1e-1), Shape(math.inf, 1e-4)]


def _mixture_sizes(n_rows, n_features):
    """Numbers of components that distinct rows can carry: three each, 20 000 numbers in all."""
    return [k for k in _SIZES if k == 1 or (3 * k < n_rows and k * n_features**2 < 40_000)]


def _leave_one_out_bandwidth(rows, n_probes=1000):
    """Bandwidth with the best leave-one-out likelihood on a subset of the rows."""
    points = torch.as_tensor(rows)
    probes = np.linspace(0, len(rows) - 1, min(len(rows), n_probes)).astype(int)
    scores = np.zeros(len(_BANDWIDTHS))
    for chunk in np.array_split(probes, max(1, len(probes) // 250)):
        chosen = torch.as_tensor(chunk)
        for i, bandwidth in enumerate(_BANDWIDTHS):
            density = kernel_density(points, bandwidth).float()
            values = density.log_density(points[chosen].float(), 0.0, leave_out=chosen)
            scores[i] += float(values.double().sum())
    return float(_BANDWIDTHS[scores.argmax()])
