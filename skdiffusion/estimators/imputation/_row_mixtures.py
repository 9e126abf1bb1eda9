"""Mixtures of Gaussians of rows with gaps: how many components a table gets.

Covariances are shrunk towards the mean of all of them, as those of a few rows would be singular
[1]_. How many components there are is decided by the CRPS of cells hidden in rows held out: a
density of the rows would reward components that sit on values which are repeated.

References
----------
.. [1] C. Fraley, A. Raftery, "Bayesian regularization for normal mixture estimation and model-based
   clustering", Journal of Classification 24, 2007, https://doi.org/10.1007/s00357-007-0004-5.
"""

from functools import partial

import torch

from skdiffusion._random import torch_generator
from skdiffusion._threads import spread
from skdiffusion.diffusion.analytic import em
from skdiffusion.diffusion.window.fit import NUGGET, free_gaussian
from skdiffusion.diffusion.window.mixture import RowMixture
from skdiffusion.estimators._clusters import clusters
from skdiffusion.estimators.imputation._shrinkage import hide_features, shrinks

# Numbers of components that are tried while they gain, each of so many rows. Two clusters may be
# too few to gain where four are enough.
_SIZES, _ROWS_OF_COMPONENT = (2, 4, 8, 16, 32, 64), 8
# With fewer rows there is nothing to hold out; with more cells in a row the covariances of
# components cost more than they tell.
_FEWEST_ROWS, _MOST_CELLS = 80, 64
# Rows that decide, and rows that the mixture is then learnt from.
_ROWS_TO_DECIDE, ROWS_TO_LEARN = 2048, 8192
# Two quarters of the rows are held out in turn.
_PARTS, _N_HELD_OUT = 4, 2
# How often, and what share of its features, is hidden in a row held out, and how much more
# components must gain.
_MASKS, _HIDDEN, _GAIN = 3, 0.3, 0.01
# Passes of EM at most, fewer where it only decides, and starts of k-means.
_N_PASSES, _N_TRIAL_PASSES, _N_STARTS = 20, 10, 4
# Cells times columns from which two workers gain: 600 rows of 10 columns take as long with one.
WORK = 60_000


def best_mixture(values, observed, owner, seed):
    """Mixture of rows if it predicts hidden cells better than their Gaussian, or None.

    Parameters
    ----------
    values : tensor of shape (n_rows, n_cells)
        Values in standard units, anything where not observed.
    observed : bool tensor of the same shape
        Which values are observed.
    owner : int64 tensor of shape (n_cells,)
        The feature that each cell belongs to; the cells of one are hidden together.
    seed : int
        Seed of the choice of rows, of what is hidden in them and of first guesses.

    Returns
    -------
    mixture : RowMixture or None
        The mixture.
    """
    n_rows, n_cells = values.shape
    if n_rows < _FEWEST_ROWS or not 1 < n_cells <= _MOST_CELLS:
        return None
    rows = torch.randperm(n_rows, generator=torch_generator(seed))[:ROWS_TO_LEARN]
    values, observed = values[rows].double(), observed[rows]
    # Of constant columns few rows differ: no components, and nothing to hold out.
    if int(_numbers(values, observed).max()) + 1 < _SIZES[0] * _ROWS_OF_COMPONENT:
        return None
    shrunk = shrinks(values, observed, owner)
    trial = Trial(values[:_ROWS_TO_DECIDE], observed[:_ROWS_TO_DECIDE], owner, shrunk, seed)
    size = _best_size(trial, n_rows // _ROWS_OF_COMPONENT)
    if size == 1:
        return None
    gaussian = free_gaussian(values[:, None], observed[:, None], shrunk)
    return fit_mixture(values, observed, gaussian, size, seed)


def _best_size(trial, most):
    """Number of components that predicts hidden cells best."""
    size, best = 1, trial.loss(1)
    for n_components in _SIZES:
        if n_components > most:
            break
        loss = trial.loss(n_components)
        if loss < (1 - _GAIN) * best:
            size, best = n_components, loss
        elif n_components > _SIZES[0]:
            break
    return size


class Trial:
    """Fits to a part of the rows, and how they predict cells hidden in the others.

    Parameters
    ----------
    values, observed, owner, seed
        As for :func:`best_mixture`.
    shrunk : tensor or None
        As of :func:`.shrinks`.
    """

    def __init__(self, values, observed, owner, shrunk, seed):
        self.values, self.observed, self.seed, self.shrunk = values, observed, seed, shrunk
        generator = torch_generator(seed + 1)
        # What stands for a label is drawn anew, whatever a mixture says of it, and does not count.
        counts = more_than_two(values, observed)
        self.hidden = hide_features(observed, owner, _HIDDEN, _MASKS, generator)
        self.scored = counts if bool(counts.any()) else torch.ones_like(counts)
        # Rows that are there twice, as in a bootstrap sample, are held out together.
        part = torch.randint(_PARTS, (len(values),), generator=generator)
        part = part[_numbers(values, observed)]
        parts = [torch.nonzero(part == i)[:, 0] for i in range(_N_HELD_OUT)]
        self.parts = [rows for rows in parts if len(rows)]
        self.worth = values.numel() * values.shape[1] > WORK
        self.gaussians = spread(self._gaussian, self.parts, self.worth)

    def loss(self, n_components):
        """Mean CRPS of the hidden cells under a number of components."""
        of_part = partial(self._losses, n_components)
        losses = spread(of_part, list(zip(self.parts, self.gaussians)), self.worth)
        return sum(float(loss.sum()) for loss in losses) / max(sum(map(len, losses)), 1)

    def _losses(self, n_components, held_out):
        """CRPS of each cell hidden in rows held out; they come with the Gaussian of the others."""
        part, gaussian = held_out
        rest = self._rest(part)
        data = self.values[rest], self.observed[rest], gaussian
        mixture = fit_mixture(*data, n_components, self.seed, n_passes=_N_TRIAL_PASSES)
        return torch.cat([self._crps(mixture, part, hidden) for hidden in self.hidden])

    def _gaussian(self, part):
        rest = self._rest(part)
        return free_gaussian(self.values[rest][:, None], self.observed[rest][:, None], self.shrunk)

    def _rest(self, part):
        rest = torch.ones(len(self.values), dtype=torch.bool)
        rest[part] = False
        return rest

    def _crps(self, mixture, part, hidden):
        """CRPS of each hidden cell of some rows."""
        found = []
        for rows in part.split(mixture.rows_at_once):
            given = mixture.parts(self.values[rows], self.observed[rows] & ~hidden[rows])
            row, cell = torch.nonzero(hidden[rows] & self.scored).T
            deviation = given.variance.clamp(min=NUGGET).sqrt()
            components = given.mean[row, :, cell], deviation[row, :, cell]
            found.append(
                mixture_crps(self.values[rows][row, cell], given.weights[row], *components)
            )
        return torch.cat(found)


def _numbers(values, observed):
    """Number of every row, the same for rows that are equal."""
    shown = torch.cat([torch.where(observed, values, 0.0), observed], 1)
    return shown.unique(dim=0, return_inverse=True)[1]


def more_than_two(values, observed):
    """Which columns have more than two different values."""
    pairs = zip(values.T, observed.T)
    return torch.tensor([len(x[seen].unique()) > 2 for x, seen in pairs])


def fit_mixture(values, observed, gaussian, n_components, seed, n_passes=_N_PASSES):
    """Fit a mixture of Gaussians to rows with gaps, by EM.

    Parameters
    ----------
    values : float64 tensor of shape (n_rows, n_cells)
        Values in standard units, anything where not observed.
    observed : bool tensor of the same shape
        Which values are observed.
    gaussian : WindowGaussian
        Gaussian of the rows: it fills them for a first guess, and is the mixture of one component.
    n_components : int
        Number of components.
    seed : int
        Seed of the first guess.
    n_passes : int, default=20
        Passes of EM at most.

    Returns
    -------
    mixture : RowMixture
        The mixture.
    """
    one = RowMixture.of_one(gaussian)
    if n_components == 1:
        return one
    # As if there were so many more rows with the mean covariance.
    shape = em.Shape((values.shape[1] + 2) / values.shape[1], NUGGET)
    filled = torch.cat([part.mean[:, 0] for part in one.batches(values, observed)])
    nearest = torch.as_tensor(clusters(filled.numpy(), n_components, seed, _N_STARTS))
    near = torch.nn.functional.one_hot(nearest.long(), n_components).double()
    # A row belongs to the others a little: a cluster of one row must not be the last word.
    near = 0.9 * near + 0.1 / n_components
    second = torch.einsum("nk,np,nq->kpq", near, filled, filled)
    start = em.maximised(em.Moments(near.sum(0), near.T @ filled, second), shape)
    expect = partial(_expected, values=values, observed=observed)
    return RowMixture(*em.climb(start, expect, shape, n_passes))


def _expected(components, values, observed):
    """Moments of rows with gaps under such components."""
    return RowMixture(*components).expect(values, observed)


def mixture_crps(y, weights, means, deviations):
    """CRPS of mixtures of normal distributions.

    Parameters
    ----------
    y : tensor of shape (n,)
        True values.
    weights, means, deviations : tensors of shape (n, n_components)
        The mixtures.

    Returns
    -------
    crps : tensor of shape (n,)
        ``E|X - y| - E|X - X'| / 2``, which is exact.
    """
    to_truth = (weights * _absolute(means - y[:, None], deviations)).sum(1)
    apart = means[:, :, None] - means[:, None]
    spread = (deviations[:, :, None].square() + deviations[:, None].square()).sqrt()
    pairs = weights[:, :, None] * weights[:, None] * _absolute(apart, spread)
    return to_truth - 0.5 * pairs.sum((1, 2))


def _absolute(mean, deviation):
    """Mean absolute value of normal distributions."""
    z = mean / deviation
    density = torch.exp(-0.5 * z.square()) * (2 / torch.pi) ** 0.5
    return deviation * density + mean * (2 * torch.special.ndtr(z) - 1)
