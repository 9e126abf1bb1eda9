r"""Expectation maximisation of Gaussian mixtures, of complete rows and of rows with gaps.

Letters. A pass weighs the components of each row, ``r_ik`` (E), and takes the moments that follow
(M): with ``n_k = sum_i r_ik``, component ``k`` has the mean and covariance ``S_k`` of its rows. Of
a row with gaps the moments are expected ones, given what is observed. Where ``n_k`` is not much
larger than the number of columns ``S_k`` is mostly noise. Adding a ridge calms it, and makes every
column too wide and every correlation too small; so here, as in regularised discriminant analysis
[1]_,

.. math::

    C_k = (1 - a_k) S_k + a_k W + \mathrm{ridge} \cdot I, \qquad a_k = n_0 / (n_0 + n_k),

where ``n_0`` rows' worth of trust goes to ``W``, the average of the ``S_k`` weighted by
``n_k a_k``. With these weights ``sum_k n_k C_k = sum_k n_k S_k`` but for the ridge: mean and
covariance of the mixture remain those of the rows whatever ``n_0``.

References
----------
.. [1] J. Friedman, "Regularized discriminant analysis", JASA 1989,
   https://doi.org/10.1080/01621459.1989.10478752.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

# Passes at most, and the gain in nats a row that ends them: a hundredth of the differences between
# mixtures of neighbouring sizes.
_MAX_ITER, _TOL = 100, 1e-3
# Numbers in the largest array: rows go through in parts where there are many.
_MAX_NUMBERS = 2_000_000


@dataclass(frozen=True)
class Shape:
    """What the covariances of a mixture may be.

    Parameters
    ----------
    trust : float
        Trust in the average covariance, in rows a column: ``n_0`` over the number of columns.
        Infinite for one covariance shared by all components.
    ridge : float
        Added to all variances.
    diagonal : bool, default=False
        No covariances between columns within a component.
    """

    trust: float
    ridge: float
    diagonal: bool = False


class Moments(NamedTuple):
    """What a pass sums up.

    Attributes
    ----------
    count : tensor of shape (n_components,)
        Rows' worth of each component.
    total : tensor of shape (n_components, n_features)
        Sums of their rows.
    second : tensor of shape (n_components, n_features, n_features)
        Sums of the products of these.
    log_density : float
        Mean log-density of the rows in nats, up to a constant.
    """

    count: torch.Tensor
    total: torch.Tensor
    second: torch.Tensor
    log_density: float = math.nan


class Components(NamedTuple):
    """Components of a mixture.

    Attributes
    ----------
    weights : float64 tensor of shape (n_components,)
        Weights.
    means : float64 tensor of shape (n_components, n_features)
        Means.
    covariances : float64 tensor of shape (n_components, n_features, n_features)
        Covariances.
    """

    weights: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor

    def log_density(self, rows):
        """Logarithm of the density.

        Parameters
        ----------
        rows : float64 tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_density : tensor of shape (n_samples,)
            Log density in nats.
        """
        joint = self._joint()
        return torch.cat([torch.logsumexp(joint(part), 1) for part in self._split(rows)])

    def expect(self, rows):
        """Moments of complete rows.

        Parameters
        ----------
        rows : float64 tensor of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        moments : Moments
            With every row shared among the components by how well each explains it.
        """
        joint, values = self._joint(), 0.0
        shares, parts = [], self._split(rows)
        for part in parts:
            found = joint(part)
            total = torch.logsumexp(found, 1, keepdim=True)
            values += float(total.sum())
            shares.append(torch.exp(found - total))
        return _moments(parts, shares)._replace(log_density=values / len(rows))

    def _split(self, rows):
        return _parts(rows, len(self.weights))

    def _joint(self):
        """Return the function from rows to the log of weight times density of each component."""
        k, d = self.means.shape
        factor = torch.linalg.cholesky(self.covariances)
        eye = torch.eye(d, dtype=factor.dtype).expand(k, d, d)
        whitening = torch.linalg.solve_triangular(factor, eye, upper=False)
        # Components last: their sums over features are then sums of long vectors.
        shift = (whitening @ self.means[:, :, None])[:, :, 0].T.reshape(-1)
        whitening = whitening.permute(2, 1, 0).reshape(d, d * k)
        log_determinant = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
        offset = self.weights.log() - log_determinant - 0.5 * d * math.log(2 * math.pi)

        def joint(rows):
            white = (rows @ whitening).sub_(shift).square_()
            return offset - 0.5 * white.view(-1, d, k).sum(1)

        return joint


def fit(rows, start, shape):
    """Fit a mixture to complete rows.

    Parameters
    ----------
    rows : float64 tensor of shape (n_samples, n_features)
        Rows.
    start : int64 tensor of shape (n_samples,) or Components
        Component that each row starts in, or the mixture to go on from.
    shape : Shape
        What the covariances may be.

    Returns
    -------
    components : Components
        The mixture, when the mean log-likelihood rises by less than 0.001 a pass.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.analytic.em import Shape, fit
    >>> rows = torch.tensor([[-1.0], [-1.2], [1.0], [1.2]], dtype=torch.float64)
    >>> fit(rows, torch.tensor([0, 0, 1, 1]), Shape(0, 1e-4)).means.ravel().round(decimals=3)
    tensor([-1.1000,  1.1000], dtype=torch.float64)
    """
    if not isinstance(start, Components):
        shares = torch.nn.functional.one_hot(start).double()
        parts = _parts(rows, shares.shape[1])
        start = maximised(_moments(parts, shares.tensor_split(len(parts))), shape)
    return climb(start, lambda components: components.expect(rows), shape, _MAX_ITER, _TOL)


def climb(components, expect, shape, max_iter, tol=-math.inf):
    """Passes of expectation and maximisation.

    Parameters
    ----------
    components : Components
        The mixture to begin with.
    expect : callable
        From components to :class:`Moments`.
    shape : Shape
        What the covariances may be.
    max_iter : int
        Passes at most.
    tol : float, default=-inf
        Gain in nats a row that ends them. With gaps small gains go on for long and add up.

    Returns
    -------
    components : Components
        The mixture.
    """
    last = -math.inf
    for _ in range(max_iter):
        moments = expect(components)
        components = maximised(moments, shape)
        if moments.log_density - last < tol:
            break
        last = moments.log_density
    return components


def maximised(moments, shape):
    """Components of given moments.

    Parameters
    ----------
    moments : Moments
        What a pass has summed up.
    shape : Shape
        What the covariances may be.

    Returns
    -------
    components : Components
        Those that maximise the expected likelihood, but for what the shape asks.
    """
    # A component that has lost all its rows keeps a mean, and a weight of nearly nothing.
    count = moments.count + 1e-10
    means = moments.total / count[:, None]
    covariances = moments.second / count[:, None, None] - means[:, :, None] * means[:, None]
    d = means.shape[1]
    if shape.diagonal:
        covariances = covariances * torch.eye(d, dtype=means.dtype)
    if shape.trust > 0:
        doubt = 1 / (1 + count / (shape.trust * d))
        pooled = torch.einsum("k,kij->ij", count * doubt, covariances) / (count @ doubt)
        covariances = covariances + doubt[:, None, None] * (pooled - covariances)
    covariances = covariances + shape.ridge * torch.eye(d, dtype=means.dtype)
    return Components(count / count.sum(), means, covariances)


def _parts(rows, n_components):
    """Rows in parts that fit in memory with one copy for each component."""
    return rows.tensor_split(math.ceil(rows.numel() * n_components / _MAX_NUMBERS))


def _moments(parts, shares):
    """Moments of complete rows with given shares of the components."""
    d, k = parts[0].shape[1], shares[0].shape[1]
    count, total, second = (
        torch.zeros(*n, dtype=torch.float64) for n in ((k,), (k, d), (k * d, d))
    )
    for rows, share in zip(parts, shares, strict=True):
        count += share.sum(0)
        total += share.T @ rows
        second += (share[:, :, None] * rows[:, None]).flatten(1).T @ rows
    return Moments(count, total, second.view(k, d, d))
