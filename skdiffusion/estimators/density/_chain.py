"""The chain: a map of rows to independent normals, learnt column after column.

Rows ``y`` are first whitened along the order of the columns, ``r = L^{-1} (y[order] - m)`` with the
Cholesky root ``L`` of their covariance: straight-line dependence, however sharp, is gone, and what
is left of each column has unit variance. Then each ``r_j`` goes to its normal score under a mixture
whose parameters are a network of the columns before it, see :mod:`skdiffusion.diffusion.chain`. The
Jacobians of both are triangular, so that ``log p(y) = log p(t) + sum_j log dt_j/dr_j - log det L``.
"""

import math

import numpy as np
import torch

from skdiffusion._device import load_numpy_state, to_numpy_state
from skdiffusion._random import torch_generator
from skdiffusion.columns.marginals import LOG_ROOT_2PI
from skdiffusion.estimators.density._order import column_order
from skdiffusion.nn.conditionals import AverageConditionals, ColumnConditionals
from skdiffusion.training.chain import train_conditionals

_N_VIEWS, _WIDTH, _N_COMPONENTS = 3, 64, 8
# Networks whose densities are averaged.
_N_NETWORKS = 2
# What is added to the variances before whitening.
_RIDGE = 1e-4
# The networks see values no further out than this, in standard deviations.
_FURTHEST = 8.0
# Rows at once.
_CHUNK = 2000


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
    network : AverageConditionals
        The densities of the whitened columns, in double precision.
    """

    def __init__(self, order, mean, root, network):
        self.order, self.network = order, network
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
        return _views(rows[:, self.order] - self.mean, self.whitened(rows))

    def _scores(self, rows):
        """Scores and log-determinant of a tensor of rows."""
        r = self.whitened(rows)
        scores, log_density = self.network(self.views(rows)).scores(r.T)
        log_slopes = log_density + 0.5 * scores**2 + LOG_ROOT_2PI
        placed = torch.empty_like(r)
        placed[:, self.order] = scores.T
        return placed, log_slopes.sum(0) - self.root.diagonal().log().sum()

    def _log_factors(self, rows):
        """Logarithms of the factors at a tensor of rows."""
        r = self.whitened(rows)
        factors = torch.empty_like(r)
        log_density = self.network(self.views(rows)).log_density(r.T).T
        factors[:, self.order] = log_density - self.root.diagonal().log()
        return factors

    def _completed(self, rows, scores):
        """Rows, a column that is missing in the first getting its score."""
        y, scores = rows[:, self.order] - self.mean, scores[:, self.order]
        r = torch.zeros_like(y)
        for j, is_missing in enumerate(y[0].isnan().tolist()):
            if is_missing:
                before = _views(y[:, :j], r[:, :j])
                r[:, j] = self.network.column(j, before).values(scores[:, j])
                y[:, j] = r @ self.root[j]
            else:
                r[:, j] = (y[:, j] - r @ self.root[j]) / self.root[j, j]
        rows = torch.empty_like(y)
        rows[:, self.order] = y + self.mean
        return rows

    def __getstate__(self):
        """Numpy arrays in place of torch objects."""
        return {
            "order": self.order,
            "mean": self.mean.numpy(),
            "root": self.root.numpy(),
            "network": to_numpy_state(self.network),
        }

    def __setstate__(self, state):
        """Rebuild the network."""
        network = _untrained(len(state["order"]), torch_generator(0)).double()
        network = load_numpy_state(network, state["network"]).requires_grad_(False)
        self.__init__(state["order"], state["mean"], state["root"], network)


def _untrained(n_features, generator):
    """Networks before training."""
    sizes = n_features, _N_VIEWS, _WIDTH, _N_COMPONENTS
    return AverageConditionals(ColumnConditionals(*sizes, generator) for _ in range(_N_NETWORKS))


def _views(y, r):
    """Columns as they are, whitened, and as a share of the rows: ranks keep an end of a column."""
    shares = math.sqrt(3) * torch.erf(y / math.sqrt(2))
    return torch.stack([y.clamp(-_FURTHEST, _FURTHEST), r.clamp(-_FURTHEST, _FURTHEST), shares], 1)


def fit_chain(train, held_out, seed, course, progress=False, n_after=0):
    """Fit a chain.

    Parameters
    ----------
    train, held_out : ndarrays of shape (n_samples, n_features)
        Rows to learn from, and rows that say, column by column, when to stop.
    seed : int
        Seed of everything random.
    course : Course
        Time and file of the fit.
    progress : bool, default=False
        Show a progress bar.
    n_after : int, default=0
        Trainings that follow, which time is left for.

    Returns
    -------
    chain : Chain
        The chain.
    history : dict
        Training history, that of the networks one after the other.
    """
    order = column_order(train, seed % 2**31)
    mean = train[:, order].mean(0)
    covariance = np.cov(train[:, order].T).reshape(len(order), -1)
    root = np.linalg.cholesky(covariance + _RIDGE * np.eye(len(order)))
    generator = torch_generator(seed)
    network = _untrained(len(order), generator)
    chain = Chain(order, mean, root, network)
    sides = [
        (chain.views(rows).float(), chain.whitened(rows).float())
        for rows in map(torch.as_tensor, (train, held_out))
    ]
    histories = []
    course.expect(_N_NETWORKS + n_after)
    for one in network.networks:
        # The choice maps all rows twice, by all networks, in double precision.
        n_looks = 4 * (len(train) / len(held_out) + 1)
        course.set_aside(n_looks, torch.no_grad()(network.forward), sides[1][0])
        options = {"course": course, "progress": progress}
        histories.append(train_conditionals(one, sides, generator, **options))
    network.double().requires_grad_(False)
    return chain, {
        key: [value for history in histories for value in history[key]]
        for key in ("loss", "validation")
    }
