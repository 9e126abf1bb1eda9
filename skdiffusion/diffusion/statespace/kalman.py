r"""A linear-Gaussian state space: filter, smoother, draws and covariances, linear in time.

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

*Smoother* [2]_. With :math:`J_t = V_{t|t} F' V_{t+1}^{-1}` the past given the future is
:math:`\xi_t = m_{t|t} + J_t (\xi_{t+1} - m_{t+1}) + u_t`, which gives means and covariances
backwards, and *draws* [3]_: only the oldest part of :math:`\xi_t` is new, the rest is known from
:math:`\xi_{t+1}`. It also gives the covariance of any two rows given *all* observations,
:math:`\mathrm{Cov}(\xi_t, \xi_{t+k}) = J_t J_{t+1} \cdots J_{t+k-1} \mathrm{Cov}(\xi_{t+k})`.

*Draws from the past alone.* The error of the filter follows :math:`\\epsilon_t = (I - G_t H)
(F \\epsilon_{t-1} + w_t) - G_t e_t` with its gain :math:`G_t`, whatever the values: walking it with
drawn ``w`` and ``e`` and adding the filtered means gives draws of every row given the rows so far,
which are one path where nothing is observed, by the argument of [4]_ for the smoother.

Covariances depend on what is missing and not on values; one pass serves any number of draws. The
cost of a row is the cube of ``n``, however long the series or a gap. Everything is float64.

References
----------
.. [1] R. E. Kalman, "A new approach to linear filtering and prediction problems", 1960,
   https://doi.org/10.1115/1.3662552.
.. [2] H. Rauch, F. Tung, C. Striebel, "Maximum likelihood estimates of linear dynamic systems",
   AIAA Journal 3, 1965, https://doi.org/10.2514/3.3166.
.. [3] C. Carter, R. Kohn, "On Gibbs sampling for state space models", Biometrika 81, 1994,
   https://doi.org/10.1093/biomet/81.3.541.
.. [4] J. Durbin, S. J. Koopman, "A simple and efficient simulation smoother for state space time
   series analysis", Biometrika 89, 2002, https://doi.org/10.1093/biomet/89.3.603.
"""

import math
from dataclasses import dataclass, fields

import torch

# What keeps predicted covariances invertible: variances are of order 1, rounding of order 1e-16.
_JITTER = 1e-9


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
        kept = mean.shape[-1] - self.n_states
        return torch.cat([mean @ self.transition.T, mean[..., :kept]], -1)

    def predict_covariance(self, covariance):
        """Covariance of the next state, and its covariance with this one, (..., n, n) each."""
        r, n = self.transition.shape
        cross = torch.cat([self.transition @ covariance, covariance[..., : n - r, :]], -2)
        top = cross[..., :r, :] @ self.transition.T + self.innovation
        side = cross[..., :r, : n - r]
        rows = torch.cat([top, side], -1)
        older = torch.cat([side.mT, covariance[..., : n - r, : n - r]], -1)
        return torch.cat([rows, older], -2), cross

    def cells(self, mean, covariance):
        """Mean and variance, without noise, of all cells from moments of states."""
        r, loadings = self.n_states, self.loadings
        if torch.equal(loadings, torch.eye(len(loadings), r).to(loadings)):
            variance = covariance.diagonal(dim1=-2, dim2=-1)[..., :r]
            return mean[..., :r], variance
        half = loadings @ covariance[..., :r, :r]
        return mean[..., :r] @ loadings.T, (half * loadings).sum(-1)

    def information(self, observed):
        """A root ``G`` with ``W = G G'`` of the information in the observed cells of rows."""
        weight = observed / self.noise.sqrt()
        return self.loadings.T * weight[..., None, :]


@dataclass
class Smoothed:
    """States of series given all their observations, and how neighbours depend on each other.

    Attributes
    ----------
    mean : float64 tensor of shape (B, T, n)
        Means of the states.
    covariance : float64 tensor of shape (B, T, n, n)
        Their covariances.
    gain : float64 tensor of shape (B, T, n, n)
        ``J``; the last one of each series is 0.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    gain: torch.Tensor


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
    n = model.transition.shape[1]
    means = values.new_empty((n_times, batch, n))
    covariances = values.new_empty((n_times, batch, n, n))
    mean, covariance = values.new_zeros((batch, n)), model.initial.expand(batch, n, n)
    for t in range(n_times):
        if t:
            mean = model.predict_mean(mean)
            covariance, _ = model.predict_covariance(covariance)
        mean, covariance = _update(model, mean, covariance, values[:, t], observed[:, t])
        means[t], covariances[t] = mean, covariance
    return means.transpose(0, 1), covariances.transpose(0, 1)


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


def _update(model, mean, covariance, values, observed):
    """Take in one row of every series."""
    r = model.n_states
    root = model.information(observed)
    seen = covariance[..., :r]
    if root.shape[-1] > r:
        root = _square_root(root)
    half = seen @ root
    inner = root.mT @ half[..., :r, :]
    inner.diagonal(dim1=-2, dim2=-1).add_(1.0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), half.mT, upper=False)
    covariance = covariance - white.mT @ white
    # What rounding leaves unsymmetric is never damped, and grows where A has a root beyond 1.
    covariance = 0.5 * (covariance + covariance.mT)
    residual = (values - mean[..., :r] @ model.loadings.T) * observed / model.noise
    mean = mean + (covariance[..., :r] @ (residual @ model.loadings)[..., None])[..., 0]
    return mean, covariance


def _square_root(root):
    """A square root of ``G G'`` for ``G`` with more columns than rows."""
    values, vectors = torch.linalg.eigh(root @ root.mT)
    return vectors * values.clamp(min=0).sqrt()[..., None, :]


def _back(model, covariance):
    """Gain ``J`` of one step back, and the predicted covariance that belongs to it."""
    predicted, cross = model.predict_covariance(covariance)
    stable = predicted.clone()
    stable.diagonal(dim1=-2, dim2=-1).add_(_JITTER)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(stable)).mT, predicted


def smooth(model, values, observed, filtered=None):
    """Give the states of series given all observations.

    Parameters
    ----------
    model, values, observed
        As for :func:`filter_states`.
    filtered : pair of tensors, optional
        What that returns, if it is known already; it is overwritten.

    Returns
    -------
    smoothed : Smoothed
        Moments and gains.
    """
    mean, covariance = filtered or filter_states(model, values, observed)
    gain = torch.zeros_like(covariance)
    for t in range(values.shape[1] - 2, -1, -1):
        back, predicted = _back(model, covariance[:, t])
        surprise = mean[:, t + 1] - model.predict_mean(mean[:, t])
        mean[:, t] += (back @ surprise[..., None])[..., 0]
        covariance[:, t] += back @ (covariance[:, t + 1] - predicted) @ back.mT
        gain[:, t] = back
    return Smoothed(mean, covariance, gain)


def draw_states(model, values, observed, last, normals):
    """Draw states of series given all observations, jointly over time.

    Parameters
    ----------
    model, values, observed
        As for :func:`filter_states`.
    last : int64 tensor of shape (B,)
        Last row of each series; later ones are padding, and what is drawn there has no meaning.
    normals : callable
        ``normals(t, size, last=False)`` gives standard normals of shape (B, n_draws, size) for
        row ``t``: ``n`` of them with ``last``, for the last row of a series, else ``r``.

    Returns
    -------
    states : tensor of shape (B, n_draws, T, r)
        Draws.
    mean : tensor of shape (B, T, r)
        Their expectation.
    covariance : tensor of shape (B, T, r, r)
        Their covariance, row by row.
    """
    means, covariances = filter_states(model, values, observed)
    (n_times, n), r = means.shape[1:], model.n_states
    draws = state = mean = covariance = None
    for t in range(n_times - 1, -1, -1):
        if t + 1 < n_times:
            back, predicted = _back(model, covariances[:, t])
            ahead = model.predict_mean(means[:, t])
            state = means[:, t : t + 1] + (state - ahead[:, None]) @ back.mT
            mean = means[:, t] + (back @ (mean - ahead)[..., None])[..., 0]
            # The newer parts of a state are parts of the next one: only the oldest is random.
            spread = covariances[:, t] - back @ predicted @ back.mT
            covariance = spread + back @ covariance @ back.mT
            state[..., n - r :] += normals(t, r) @ _root(spread[:, n - r :, n - r :]).mT
        if bool((last == t).any()) or t + 1 == n_times:
            begun = means[:, t : t + 1] + normals(t, n, last=True) @ _root(covariances[:, t]).mT
            ends = last == t
            if draws is None:
                state, mean, covariance = begun, means[:, t], covariances[:, t]
                draws = values.new_empty((n_times, *state.shape[:2], r))
            state = torch.where(ends[:, None, None], begun, state)
            mean = torch.where(ends[:, None], means[:, t], mean)
            covariance = torch.where(ends[:, None, None], covariances[:, t], covariance)
        draws[t], means[:, t], covariances[:, t] = state[..., :r], mean, covariance
    return draws.permute(1, 2, 0, 3), means[..., :r], covariances[..., :r, :r]


def draw_filtered(model, values, observed, normals, seen_normals):
    """Draw states of series, each row given the rows up to it and none that come later.

    Parameters
    ----------
    model, values, observed
        As for :func:`filter_states`.
    normals : callable
        ``normals(t, size, last=False)`` gives standard normals of shape (B, n_draws, size) for
        row ``t``: ``n`` of them with ``last``, for the first row, else ``r``.
    seen_normals : callable
        The same for the noise of the ``K`` cells of a row.

    Returns
    -------
    states : tensor of shape (B, n_draws, T, r)
        Draws; rows without a value go on from the row before.
    mean : tensor of shape (B, T, r)
        Their expectation.
    covariance : tensor of shape (B, T, r, r)
        Their covariance, row by row.
    """
    means, covariances = filter_states(model, values, observed)
    (n_times, n), r = means.shape[1:], model.n_states
    root = _root(model.innovation)
    error = normals(0, n, last=True) @ _root(model.initial).T
    draws = values.new_empty((n_times, *error.shape[:2], r))
    for t in range(n_times):
        if t:
            error = model.predict_mean(error)
            error[..., :r] += normals(t, r) @ root.T
        noise = model.noise.sqrt() * seen_normals(t, values.shape[2])
        heard = (error[..., :r] @ model.loadings.T + noise) * observed[:, t, None] / model.noise
        error = error - (heard @ model.loadings) @ covariances[:, t, :r]
        draws[t] = means[:, t, None, :r] + error[..., :r]
    return draws.permute(1, 2, 0, 3), means[..., :r], covariances[..., :r, :r]


def _root(covariance):
    """Cholesky factor of a batch of covariances that rounding may have made indefinite."""
    stable = covariance.clone()
    stable.diagonal(dim1=-2, dim2=-1).add_(_JITTER)
    return torch.linalg.cholesky(stable)


def window_covariance(covariance, gain, rows, times, loadings):
    """Covariances, given all observations, of some cells of windows, without their noise.

    Parameters
    ----------
    covariance, gain : tensors of shape (n_rows, n, n)
        Of :class:`Smoothed`, the rows of all series end to end.
    rows : int64 tensor of shape (B, L)
        Rows of each window, one after the other in one series.
    times : int64 tensor of shape (B, N)
        Place in the window of each of ``N`` targets.
    loadings : tensor of shape (B, N, n)
        What states each target is made of.

    Returns
    -------
    covariance : tensor of shape (B, N, N)
        Their covariances.
    """
    (batch, n_times), n_targets, n = rows.shape, times.shape[1], covariance.shape[-1]
    # Column j of ``ahead``: covariance of the state at this time with target j, which lies later.
    ahead = covariance.new_zeros((batch, n, n_targets))
    out = covariance.new_zeros((batch, n_targets, n_targets))
    for t in range(n_times - 1, -1, -1):
        if t + 1 < n_times:
            ahead = gain[rows[:, t]] @ ahead
        here = times == t
        own = torch.where(here[..., None], loadings, 0.0)
        ahead = torch.where(here[:, None], covariance[rows[:, t]] @ own.mT, ahead)
        out = torch.where(here[..., None], loadings @ ahead, out)
    return torch.where(times[..., None] <= times[:, None], out, out.mT)
