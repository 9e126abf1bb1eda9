"""Mixtures of Gaussians of rows with gaps: expectation maximisation, and how many components.

Every pass weighs the components by how well they explain what is observed of a row, and replaces
their second moments by the expectation given these cells (E), as for a single Gaussian. Their
covariances are then shrunk towards the mean of all of them (M), as those of a few rows would be
singular [1]_. How many there are is decided by the CRPS of cells hidden in rows held out: a density
of the rows would reward components that sit on values which are repeated.

References
----------
.. [1] C. Fraley, A. Raftery, "Bayesian regularization for normal mixture estimation and model-based
   clustering", Journal of Classification 24, 2007, https://doi.org/10.1007/s00357-007-0004-5.
"""

import torch

from skdiffusion.diffusion.window.fit import NUGGET, free_gaussian
from skdiffusion.diffusion.window.mixture import RowMixture

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
# Passes of EM, fewer where it only decides, and of k-means, the best of whose starts it gets.
_N_PASSES, _N_TRIAL_PASSES, _N_KMEANS, _N_STARTS = 20, 10, 10, 4


def best_mixture(values, observed, owner, generator):
    """Mixture of rows if it predicts hidden cells better than their Gaussian, or None.

    Parameters
    ----------
    values : tensor of shape (n_rows, n_cells)
        Values in standard units, anything where not observed.
    observed : bool tensor of the same shape
        Which values are observed.
    owner : int64 tensor of shape (n_cells,)
        The feature that each cell belongs to; the cells of one are hidden together.
    generator : torch.Generator
        Source of the choice of rows, of what is hidden in them and of first guesses.

    Returns
    -------
    mixture : RowMixture or None
        The mixture.
    """
    n_rows, n_cells = values.shape
    if n_rows < _FEWEST_ROWS or not 1 < n_cells <= _MOST_CELLS:
        return None
    rows = torch.randperm(n_rows, generator=generator)[:ROWS_TO_LEARN]
    values, observed = values[rows].double(), observed[rows]
    trial = Trial(values[:_ROWS_TO_DECIDE], observed[:_ROWS_TO_DECIDE], owner, generator)
    size = _best_size(trial, n_rows // _ROWS_OF_COMPONENT)
    if size == 1:
        return None
    gaussian = free_gaussian(values[:, None], observed[:, None])
    return fit_mixture(values, observed, gaussian, size, generator)


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
    values, observed, owner, generator
        As for :func:`best_mixture`.
    """

    def __init__(self, values, observed, owner, generator):
        self.values, self.observed, self.generator = values, observed, generator
        features, place = owner.unique(return_inverse=True)
        share = torch.rand(_MASKS, len(values), len(features), generator=generator)
        # What stands for a label is drawn anew, whatever a mixture says of it, and does not count.
        counts = _more_than_two(values, observed)
        self.hidden = observed & (share < _HIDDEN)[..., place]
        self.scored = counts if bool(counts.any()) else torch.ones_like(counts)
        # Rows that are there twice, as in a bootstrap sample, are held out together.
        shown = torch.cat([torch.where(observed, values, 0.0), observed], 1)
        number = shown.unique(dim=0, return_inverse=True)[1]
        part = torch.randint(_PARTS, (len(values),), generator=generator)[number]
        self.parts = [torch.nonzero(part == i)[:, 0] for i in range(_N_HELD_OUT)]
        self.gaussians = [self._gaussian(part) for part in self.parts]

    def loss(self, n_components):
        """Mean CRPS of the hidden cells under a number of components."""
        total, count = 0.0, 0
        for part, gaussian in zip(self.parts, self.gaussians):
            rest = self._rest(part)
            shape = gaussian, n_components, self.generator
            data = self.values[rest], self.observed[rest]
            mixture = fit_mixture(*data, *shape, n_passes=_N_TRIAL_PASSES)
            for hidden in self.hidden:
                loss = self._crps(mixture, part, hidden)
                total, count = total + float(loss.sum()), count + len(loss)
        return total / max(count, 1)

    def _gaussian(self, part):
        rest = self._rest(part)
        return free_gaussian(self.values[rest][:, None], self.observed[rest][:, None])

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


def _more_than_two(values, observed):
    """Which columns have more than two different values."""
    pairs = zip(values.T, observed.T)
    return torch.tensor([len(x[seen].unique()) > 2 for x, seen in pairs])


def fit_mixture(values, observed, gaussian, n_components, generator, n_passes=_N_PASSES):
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
    generator : torch.Generator
        Source of the first guess.
    n_passes : int, default=20
        Passes of EM.

    Returns
    -------
    mixture : RowMixture
        The mixture.
    """
    one = RowMixture(
        torch.ones(1, dtype=torch.float64), gaussian.mean[None], gaussian.covariance[None]
    )
    if n_components == 1:
        return one
    filled = torch.cat([part.mean[:, 0] for part in _parts(one, values, observed)])
    nearest = _clusters(filled, n_components, generator)
    near = torch.nn.functional.one_hot(nearest, n_components).double()
    # A row belongs to the others a little: a cluster of one row must not be the last word.
    near = 0.9 * near + 0.1 / n_components
    second = torch.einsum("nk,np,nq->kpq", near, filled, filled)
    mixture = _maximised(near.sum(0), near.T @ filled, second)
    for _ in range(n_passes):
        mixture = _maximised(*_expected(mixture, values, observed))
    return mixture


def _parts(mixture, values, observed):
    """What components say of rows, some at a time."""
    size = mixture.rows_at_once
    return (mixture.parts(*part) for part in zip(values.split(size), observed.split(size)))


def _expected(mixture, values, observed):
    """Numbers of rows of the components, sums of their values and of the products of these."""
    count, total, second = (torch.zeros_like(x) for x in mixture.arrays().values())
    for part in _parts(mixture, values, observed):
        weights = part.weights
        count += weights.sum(0)
        weighted = weights[..., None] * part.mean
        total += weighted.sum(0)
        second += weighted.permute(1, 2, 0) @ part.mean.transpose(0, 1)
        within = (weights[..., None, None] * part.covariance).transpose(0, 1).flatten(1)
        place = part.missing[:, :, None] * second.shape[2] + part.missing[:, None]
        second.flatten(1).index_add_(1, place.flatten(), within)
    return count, total, second


def _maximised(count, total, second):
    """Mixture of such moments, its covariances shrunk towards their mean."""
    n_cells = total.shape[1]
    known = count.clamp(min=1e-9)
    means = total / known[:, None]
    scatter = second - known[:, None, None] * means[:, :, None] * means[:, None]
    # As if there were so many more rows with the mean covariance.
    more = n_cells + 2
    pooled = scatter.sum(0) / count.sum()
    covariances = (scatter + more * pooled) / (count + more)[:, None, None]
    covariances = covariances + NUGGET * torch.eye(n_cells, dtype=covariances.dtype)
    return RowMixture((count + 1) / (count + 1).sum(), means, covariances)


def _clusters(x, n_clusters, generator):
    """Number of the nearest of so many centres of each row, by k-means from several starts."""
    starts = [_k_means(x, n_clusters, generator) for _ in range(_N_STARTS)]
    return min((torch.cdist(x, centres).min(1) for centres in starts), key=_inertia).indices


def _inertia(nearest):
    return float(nearest.values.square().sum())


def _k_means(x, n_clusters, generator):
    """Centres of clusters of rows."""
    centres = x[torch.randint(len(x), (1,), generator=generator)]
    for _ in range(n_clusters - 1):
        # The next first centre is likely to be far from those before.
        far = torch.cdist(x, centres).min(1).values.square() + 1e-12
        centres = torch.cat([centres, x[torch.multinomial(far, 1, generator=generator)]])
    for _ in range(_N_KMEANS):
        nearest = torch.cdist(x, centres).argmin(1)
        near = torch.nn.functional.one_hot(nearest, n_clusters).to(x.dtype)
        count = near.sum(0)[:, None]
        centres = torch.where(count > 0, near.T @ x / count.clamp(min=1), centres)
    return centres


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
