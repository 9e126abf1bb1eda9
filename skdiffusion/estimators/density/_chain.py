"""The chain: a map of rows to independent normals, learnt column after column.

Rows ``y`` are first whitened along the order of the columns, ``r = L^{-1} (y[order] - m)`` with the
Cholesky root ``L`` of their covariance: straight-line dependence, however sharp, is gone, and what
is left of each column has unit variance. Then each ``r_j`` goes to its normal score under a mixture
whose parameters depend on the columns before it, see :mod:`skdiffusion.diffusion.chain`. The
Jacobians of both are triangular, so that ``log p(y) = log p(t) + sum_j log dt_j/dr_j - log det L``.

Columns of labels come first, each a set of intervals of the normal distribution, of which only the
probabilities are learnt, see :class:`skdiffusion.diffusion.chain.Cells`.

The mixture is an average of those of small networks and of boosted trees; which of them a column
trusts, and how much, maximises the likelihood of held-out rows.
"""

import math
from functools import partial

import numpy as np
import torch
from scipy.special import logsumexp
from tqdm.auto import tqdm

from skdiffusion._device import load_numpy_state, to_numpy_state
from skdiffusion._random import torch_generator
from skdiffusion.columns.marginals import LOG_ROOT_2PI
from skdiffusion.diffusion.chain import Cells, Components, averaged, factors
from skdiffusion.estimators.density._bases import stacking_weights
from skdiffusion.estimators.density._column_trees import fit_trees
from skdiffusion.estimators.density._order import column_order
from skdiffusion.nn.conditionals import ColumnConditionals
from skdiffusion.training.chain import train_conditionals
from skdiffusion.training.course import Course

_N_VIEWS, _WIDTH, _N_COMPONENTS = 3, 64, 8
# Networks whose densities are averaged: from other starts they err in other places.
_N_NETWORKS = 2
# Weight of a density below which it is not worth its time.
_MIN_WEIGHT = 0.03
# Fewer rows teach trees nothing.
_MIN_TREE_ROWS = 200
# What is added to the variances before whitening, and how far out, in standard deviations, the
# networks see values.
_RIDGE, _FURTHEST = 1e-4, 8.0
# Rows that are learnt from, and held-out rows that are looked at, at most.
_MOST_ROWS, _MOST_HELD_OUT = 200_000, 5000
_CHUNK = 2000  # rows at once


class Chain:
    """Map of rows to independent normals.

    Parameters
    ----------
    order : int ndarray of shape (n_features,)
        Order of the columns.
    mean : ndarray of shape (n_features,)
        Centre of the columns, in that order.
    root : ndarray of shape (n_features, n_features)
        Cholesky root of their covariance.
    members : sequence of ColumnConditionals and TreeConditionals
        The densities of the whitened columns that are averaged, in double precision.
    log_weights : ndarray of shape (n_members, n_features)
        Logarithms of their weights for every column, in that order.
    cells : dict of int to ndarray
        Where the cells of labels end, by column; these columns are not whitened.
    """

    def __init__(self, order, mean, root, members, log_weights, cells):
        self.cells, places = cells, np.argsort(order)
        self.ends = {int(places[j]): torch.tensor(ends) for j, ends in cells.items()}
        self.order, self.members = order, members
        self.log_weights = torch.as_tensor(log_weights)
        self.mean, self.root = torch.as_tensor(mean), torch.as_tensor(root)

    def forward(self, rows):
        """Map rows to normal scores.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_features)
            Normal scores of the columns, each at the place of its column.
        log_jacobian : ndarray of shape (n_samples,)
            Log-determinant of the map.
        """
        with torch.no_grad():
            parts = [self._scores(part) for part in torch.as_tensor(rows).split(_CHUNK)]
        scores, log_jacobian = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return scores, log_jacobian

    def inverse(self, scores):
        """Map normal scores to rows, column after column.

        Parameters
        ----------
        scores : ndarray of shape (n_samples, n_features)
            Normal scores.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features)
            Rows.
        """
        scores = torch.as_tensor(scores)
        return self.completed(torch.full_like(scores, torch.nan), scores).numpy()

    def pull_back(self, rows, gradient):
        """Gradient of the log-density by the rows from that by the scores.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_features)
            Rows.
        gradient : ndarray of shape (n_samples, n_features)
            Gradient by the scores.

        Returns
        -------
        gradient : ndarray of shape (n_samples, n_features)
            By the chain rule, with the gradient of the log-determinant.
        """
        found = []
        for part, slope in zip(*(torch.as_tensor(a).split(_CHUNK) for a in (rows, gradient))):
            with torch.enable_grad():
                part = part.clone().requires_grad_()
                scores, log_jacobian = self._scores(part)
                total = (scores * slope).sum() + log_jacobian.sum()
            found.append(torch.autograd.grad(total, part)[0])
        return torch.cat(found).numpy()

    def log_factors(self, rows):
        """Log-density of every column given those before it.

        Parameters
        ----------
        rows : tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_factors : tensor of shape (n_samples, n_features)
            Logarithms of the factors of the density, each at the place of its column.
        """
        with torch.no_grad():
            return torch.cat([self._log_factors(part) for part in rows.split(_CHUNK)])

    def completed(self, rows, scores):
        """Fill gaps of rows in the order of the chain.

        Parameters
        ----------
        rows : tensor of shape (n_samples, n_features)
            Rows, NaN where missing; all rows miss the same columns.
        scores : tensor of shape (n_samples, n_features)
            Normal scores that the missing columns get.

        Returns
        -------
        rows : tensor of shape (n_samples, n_features)
            Rows without gaps.
        """
        parts = zip(rows.split(_CHUNK), scores.split(_CHUNK), strict=True)
        with torch.no_grad():
            return torch.cat([self._completed(*part) for part in parts])

    def whitened(self, rows):
        """Whitened columns, in the order of the chain, of a tensor of rows."""
        centred = (rows[:, self.order] - self.mean).T
        return torch.linalg.solve_triangular(self.root, centred, upper=False).T

    def views(self, rows):
        """What stands for the columns of a tensor of rows, in the order of the chain."""
        return self._views(rows[:, self.order] - self.mean, self.whitened(rows))

    def with_cells(self, cells):
        """The same chain with other ends of cells."""
        rest = self.mean.numpy(), self.root.numpy(), self.members, self.log_weights.numpy()
        return Chain(self.order, *rest, cells)

    def _views(self, y, r):
        """Views of the first columns, of labels the same for all values of a cell."""
        known = {j: ends for j, ends in self.ends.items() if j < y.shape[1]}
        if known:
            y, r = y.clone(), r.clone()
            for j, ends in known.items():
                y[:, j] = r[:, j] = _middles(ends)[torch.searchsorted(ends, y[:, j].contiguous())]
        return _views(y, r)

    def _scores(self, rows):
        """Scores and log-determinant of a tensor of rows."""
        r = self.whitened(rows)
        components = self._components(self.views(rows))
        scores, log_density = components.scores(r.T)
        if self.ends:
            scores, log_density = list(scores), list(log_density)
            for j, ends in self.ends.items():
                one = Cells(Components(*(part[j] for part in components)), ends)
                scores[j], log_density[j] = one.scores(r[:, j])
            scores, log_density = torch.stack(scores), torch.stack(log_density)
        log_slopes = log_density + 0.5 * scores**2 + LOG_ROOT_2PI
        placed = torch.empty_like(r)
        placed[:, self.order] = scores.T
        return placed, log_slopes.sum(0) - self.root.diagonal().log().sum()

    def _log_factors(self, rows):
        """Logarithms of the factors at a tensor of rows."""
        r = self.whitened(rows)
        placed = torch.empty_like(r)
        log_density = factors(self._components(self.views(rows)), r.T, self.ends).T
        placed[:, self.order] = log_density - self.root.diagonal().log()
        return placed

    def _completed(self, rows, scores):
        """Rows, a column that is missing in the first getting its score."""
        y, scores = rows[:, self.order] - self.mean, scores[:, self.order]
        r = torch.zeros_like(y)
        for j, is_missing in enumerate(y[0].isnan().tolist()):
            if is_missing:
                before = self._views(y[:, :j], r[:, :j])
                r[:, j] = self._column(j, before).values(scores[:, j])
                y[:, j] = r @ self.root[j]
            else:
                r[:, j] = (y[:, j] - r @ self.root[j]) / self.root[j, j]
        rows = torch.empty_like(y)
        rows[:, self.order] = y + self.mean
        return rows

    def _components(self, views):
        """Mixtures of all columns."""
        parts = [member(views) for member in self.members]
        return averaged(parts, self.log_weights[:, :, None, None])

    def _column(self, j, before):
        """Mixture of one column, of the members that count for it."""
        counts = self.log_weights[:, j].isfinite().tolist()
        members = [member for member, counted in zip(self.members, counts) if counted]
        parts = [member.column(j, before) for member in members]
        components = averaged(parts, self.log_weights[counts, j])
        return Cells(components, self.ends[j]) if j in self.ends else components

    def __getstate__(self):
        """Numpy arrays in place of torch objects."""
        return {
            "order": self.order,
            "mean": self.mean.numpy(),
            "root": self.root.numpy(),
            "members": [
                to_numpy_state(member) if isinstance(member, torch.nn.Module) else member
                for member in self.members
            ],
            "log_weights": self.log_weights.numpy(),
            "cells": self.cells,
        }

    def __setstate__(self, state):
        """Rebuild the networks."""
        members = [
            _rebuilt(member, len(state["order"])) if isinstance(member, dict) else member
            for member in state["members"]
        ]
        rest = members, state["log_weights"], state["cells"]
        self.__init__(state["order"], state["mean"], state["root"], *rest)


def _rebuilt(weights, n_features):
    """Network of stored weights."""
    network = load_numpy_state(_untrained(n_features, torch_generator(0)).double(), weights)
    return network.requires_grad_(False)


def _untrained(n_features, generator):
    """Network before training."""
    return ColumnConditionals(n_features, _N_VIEWS, _WIDTH, _N_COMPONENTS, generator)


def _views(y, r):
    """Columns as they are, whitened, and as a share of the rows: ranks keep an end of a column."""
    shares = math.sqrt(3) * torch.erf(y / math.sqrt(2))
    return torch.stack([y.clamp(-_FURTHEST, _FURTHEST), r.clamp(-_FURTHEST, _FURTHEST), shares], 1)


def _middles(ends):
    """A score in the middle of each cell."""
    edge = torch.zeros_like(ends[:1])
    shares = torch.cat([edge, torch.special.ndtr(ends), edge + 1])
    return torch.special.ndtri((shares[1:] + shares[:-1]) / 2)


def fit_chain(train, held_out, seed, course=None, progress=False, n_after=0, cells=None):
    """Fit a chain.

    Parameters
    ----------
    train, held_out : ndarrays of shape (n_samples, n_features)
        Rows to learn from, and rows that say, column by column, when to stop and what to trust.
    seed : int
        Seed of everything random.
    course : Course, optional
        Time and file of the fit.
    progress : bool, default=False
        Show a progress bar.
    n_after : int, default=0
        Trainings that follow, which time is left for.
    cells : dict of int to ndarray, optional
        Where the cells of labels end, by column.

    Returns
    -------
    chain : Chain
        The chain.
    history : dict
        Training history, that of the networks one after the other.
    """
    train, held_out = train[:_MOST_ROWS], held_out[:_MOST_HELD_OUT]
    cells, course = cells or {}, course or Course()
    order = column_order(train, seed % 2**31)
    # Labels first: how they hang together is then learnt with nothing in between.
    order = order[np.argsort(~np.isin(order, list(cells)), kind="stable")]
    mean, root = _whitening(train[:, order], np.isin(order, list(cells)))
    generator = torch_generator(seed)
    networks = [_untrained(len(order), generator) for _ in range(_N_NETWORKS)]
    chain = Chain(order, mean, root, networks, np.zeros((_N_NETWORKS, len(order))), cells)
    ends = {j: one.float() for j, one in chain.ends.items()}
    sides = [
        (chain.views(rows), chain.whitened(rows))
        for rows in map(torch.as_tensor, (train, held_out))
    ]
    single = [tuple(part.float() for part in side) for side in sides]
    histories = []
    course.expect(_N_NETWORKS + n_after)
    for one in networks:
        # The choice maps all rows twice, by all networks, in double precision.
        n_looks = 4 * _N_NETWORKS * (len(train) / len(held_out) + 1)
        course.set_aside(n_looks, torch.no_grad()(one.forward), single[1][0])
        options = {"course": course, "progress": progress, "cells": ends}
        histories.append(train_conditionals(one, single, generator, **options))
    members = [one.double().requires_grad_(False) for one in networks]
    if course.has_time():
        members += _fit_trees(sides[0], chain.root, seed % 2**31, progress)
    history = {
        key: [value for history in histories for value in history[key]]
        for key in ("loss", "validation")
    }
    return _stacked(chain, members, *sides[1]), history


def _whitening(rows, is_label):
    """Centre and root; labels, whose scores have noise in them, stay as they are."""
    mean, root = rows.mean(0), np.eye(rows.shape[1])
    mean[is_label] = 0
    free = np.flatnonzero(~is_label)
    if len(free):
        covariance = np.cov(rows[:, free].T).reshape(len(free), -1)
        factor = np.linalg.cholesky(covariance + _RIDGE * np.eye(len(free)))
        root[np.ix_(free, free)] = factor
    return mean, root


def _fit_trees(side, root, seed, progress):
    """Trees of the columns and of the whitened columns; none where there is too little to learn."""
    if len(side[0]) < _MIN_TREE_ROWS or len(root) < 2:
        return []
    fits = []
    for of_whitened in (False, True):
        show = partial(tqdm, desc="ScoreSDE, trees", disable=not progress)
        fits.append(fit_trees(*side, root, seed, of_whitened=of_whitened, show=show))
    return fits


def _stacked(chain, members, views, whitened):
    """The chain with the weights of its members that held-out rows like best."""
    with torch.no_grad():
        parts = [factors(one(views), whitened.T, chain.ends) for one in members]
    densities = np.stack([part.numpy() for part in parts])
    weights = np.stack([_column_weights(one) for one in densities.transpose(1, 2, 0)], 1)
    members = [
        one if isinstance(one, torch.nn.Module) else one.without(np.flatnonzero(weight == 0))
        for one, weight in zip(members, weights, strict=True)
    ]
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    mean, root = chain.mean.numpy(), chain.root.numpy()
    return Chain(chain.order, mean, root, members, log_weights, chain.cells)


def _column_weights(log_densities):
    """Weights of the members for one column; what has little is dropped."""
    networks = log_densities[:, :_N_NETWORKS]
    together = logsumexp(networks, axis=1) - math.log(networks.shape[1])
    share, *others = stacking_weights(np.column_stack([together, log_densities[:, _N_NETWORKS:]]))
    weights = np.array([share / networks.shape[1]] * networks.shape[1] + others)
    if share < _MIN_WEIGHT:
        weights[: networks.shape[1]] = 0
    weights[_N_NETWORKS:][weights[_N_NETWORKS:] < _MIN_WEIGHT] = 0
    return weights / weights.sum()
