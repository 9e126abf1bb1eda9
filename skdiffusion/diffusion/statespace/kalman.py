r"""A linear-Gaussian state space: filter and likelihood, linear in time.

Letters. ``x_t`` are the ``K`` cells of row ``t``, all standardised, any of them missing. A hidden
state ``f_t`` of ``r`` numbers follows a vector autoregression of order ``P``, and the cells see it
through loadings and noise of their own,

.. math::

    f_t = A \xi_{t-1} + w_t, \qquad \xi_t = (f_t, ..., f_{t-P+1}), \qquad x_t = H f_t + e_t,

with :math:`w \sim N(0, Q)` and :math:`e \sim N(0, \mathrm{diag}\,R)`; ``n = r P`` is the size of
:math:`\xi`, which starts from N(0, S). With a state for every cell ``H`` is the identity.

*Filter* [1]_. With the prediction :math:`N(m, V)` of :math:`\xi_t` and the information
:math:`W = H' R_o^{-1} H` of the observed cells ``o``, the filtered covariance is
:math:`V - V_{:r} M V_{r:}` with :math:`M = W^{1/2} (I + W^{1/2} V_{rr} W^{1/2})^{-1} W^{1/2}`. A
missing cell has information 0, so that rows with different gaps go through the same products.

What comes backwards stands in :mod:`.smoother`.

Covariances depend on what is missing and not on values; one pass serves any number of draws. The
cost of a row is the cube of ``n``, however long the series or a gap. Everything is float64.

References
----------
.. [1] R. E. Kalman, "A new approach to linear filtering and prediction problems", 1960,
   https://doi.org/10.1115/1.3662552.
"""

import math
from dataclasses import dataclass, fields

import torch

# Numbers in one array of matrices that belong to rows which are worked on together.
_NUMBERS = 2**16


@dataclass(frozen=True)
class StateSpace:
    """Parameters of a linear-Gaussian state space.

    Attributes
    ----------
    transition : float64 tensor of shape (r, r * order)
        ``A``.
    innovation : float64 tensor of shape (r, r)
        ``Q``.
    loadings : float64 tensor of shape (K, r)
        ``H``.
    noise : float64 tensor of shape (K,)
        ``R``, positive.
    initial : float64 tensor of shape (r * order, r * order)
        ``S``, covariance of the first state.
    """

    transition: torch.Tensor
    innovation: torch.Tensor
    loadings: torch.Tensor
    noise: torch.Tensor
    initial: torch.Tensor

    @property
    def n_states(self):
        """Number ``r`` of states in a row."""
        return len(self.transition)

    @property
    def order(self):
        """Order ``P`` of the autoregression."""
        return self.transition.shape[1] // self.n_states

    def map(self, function):
        """Apply a function to every tensor, for example to move them to a device."""
        return StateSpace(*(function(getattr(self, f.name)) for f in fields(self)))

    def predict_mean(self, mean):
        """Mean of the next state from that of this one, tensors of shape (..., n)."""
        new, kept = mean @ self.transition.T, mean.shape[-1] - self.n_states
        return torch.cat([new, mean[..., :kept]], -1) if kept else new

    def predict_covariance(self, covariance):
        """Covariance of the next state, and its covariance with this one, (..., n, n) each."""
        r, n = self.transition.shape
        cross = (covariance @ self.transition.T).mT
        top = self.innovation + cross @ self.transition.T
        if n == r:
            return top, cross
        side, kept = cross[..., : n - r], covariance[..., : n - r, :]
        rows, older = torch.cat([top, side], -1), torch.cat([side.mT, kept[..., : n - r]], -1)
        return torch.cat([rows, older], -2), torch.cat([cross, kept], -2)

    def cells(self, mean, covariance):
        """Mean and variance, without noise, of all cells from moments of states."""
        r, loadings = self.n_states, self.loadings
        if torch.equal(loadings, torch.eye(len(loadings), r).to(loadings)):
            variance = covariance.diagonal(dim1=-2, dim2=-1)[..., :r]
            return mean[..., :r], variance
        half = loadings @ covariance[..., :r, :r]
        return mean[..., :r] @ loadings.T, (half * loadings).sum(-1)


def filter_states(model, values, observed):
    """Run the filter over series of equal length.

    Parameters
    ----------
    model : StateSpace
        The model.
    values : float64 tensor of shape (B, T, K)
        Standardised values, 0 where unobserved.
    observed : bool tensor of shape (B, T, K)
        What is known.

    Returns
    -------
    mean : tensor of shape (B, T, n)
        Means of the states given the rows so far.
    covariance : tensor of shape (B, T, n, n)
        Their covariances.
    """
    batch, n_times, _ = values.shape
    r, n = model.transition.shape
    means = values.new_empty((n_times, batch, n))
    covariances = values.new_empty((n_times, batch, n, n))
    # Time comes first, which makes a row one block of memory.
    values, observed = values.transpose(0, 1), observed.transpose(0, 1)
    mean, covariance = values.new_zeros((batch, n)), None
    for rows in blocks(n_times, batch * n * max(n, values.shape[2])):
        covariance = _filter_covariances(model, covariance, observed[rows], covariances[rows])
        weights = observed[rows] / model.noise
        each = zip(values[rows], weights, covariances[rows], means[rows])
        for t, (value, weight, spread, out) in enumerate(each, rows.start):
            mean = model.predict_mean(mean) if t else mean
            error = torch.addmm(value, mean[:, :r], model.loadings.T, alpha=-1) * weight
            side = (error @ model.loadings)[..., None]
            mean = torch.baddbmm(mean[..., None], spread[..., :r], side)[..., 0]
            out.copy_(mean)
    return means.transpose(0, 1), covariances.transpose(0, 1)


def blocks(n_times, numbers_a_row):
    """Slices of neighbouring rows that are worked on together, within the memory of a few."""
    size = max(1, _NUMBERS // numbers_a_row)
    return [slice(t, min(t + size, n_times)) for t in range(0, n_times, size)]


def _filter_covariances(model, covariance, observed, out):
    """Filtered covariances of rows (T, B, K) after one whose own is given, or none at the start."""
    batch, r, n = observed.shape[1], *model.transition.shape
    eye = torch.eye(min(r, observed.shape[2])).to(out)
    for into, root in zip(out.unbind(), _information(model, observed).unbind()):
        if covariance is None:
            covariance = model.initial.expand(batch, n, n)
        else:
            covariance, _ = model.predict_covariance(covariance)
        half = torch.bmm(covariance[..., :r], root)
        inner = torch.linalg.cholesky(torch.baddbmm(eye, root.mT, half[:, :r]))
        white = torch.linalg.solve_triangular(inner, half.mT, upper=False)
        covariance = torch.baddbmm(covariance, white.mT, white, alpha=-1)
        # What rounding leaves unsymmetric is never damped, and grows where A has a root beyond 1.
        covariance = torch.add(covariance, covariance.mT, out=into).mul_(0.5)
    return covariance


def _information(model, observed):
    """Roots ``G`` with ``W = G G'`` of the information in the observed cells of rows."""
    root = model.loadings.T * (observed / model.noise.sqrt())[..., None, :]
    if root.shape[-1] <= model.n_states:
        return root
    values, vectors = torch.linalg.eigh(root @ root.mT)
    return vectors * values.clamp(min=0).sqrt()[..., None, :]


def log_likelihood(model, values, observed, filtered=None):
    """Log-density of what is observed: each row given the rows before it, summed.

    Parameters
    ----------
    model, values, observed
        As for :func:`filter_states`.
    filtered : pair of tensors, optional
        What that returns, if it is known already.

    Returns
    -------
    total : float
        In nats.
    """
    filtered, covariances = filtered or filter_states(model, values, observed)
    r, eye = model.n_states, torch.eye(values.shape[2], dtype=values.dtype)
    first = model.initial.expand(len(values), 1, *model.initial.shape)
    ahead = torch.cat([torch.zeros_like(filtered[:, :1]), model.predict_mean(filtered[:, :-1])], 1)
    spread = torch.cat([first, model.predict_covariance(covariances[:, :-1])[0]], 1)
    spread = model.loadings @ spread[..., :r, :r] @ model.loadings.T + torch.diag(model.noise)
    # Cells that are not observed are independent of the others, standard normal, and 0.
    spread = torch.where(observed[..., :, None] & observed[..., None, :], spread, eye)
    root = torch.linalg.cholesky(spread)
    residual = (values - ahead[..., :r] @ model.loadings.T) * observed
    white = torch.linalg.solve_triangular(root, residual[..., None], upper=False)
    log_volume = root.diagonal(dim1=-2, dim2=-1).log().sum()
    n_cells = int(observed.sum())
    return float(-0.5 * white.square().sum() - log_volume - 0.5 * n_cells * math.log(2 * math.pi))
