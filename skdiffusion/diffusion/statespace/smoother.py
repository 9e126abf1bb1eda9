r"""Moments and draws of a linear-Gaussian state space given all observations, or the past alone.

Letters are those of :mod:`.kalman`.

*Smoother* [1]_. With :math:`J_t = V_{t|t} F' V_{t+1}^{-1}` the past given the future is
:math:`\xi_t = m_{t|t} + J_t (\xi_{t+1} - m_{t+1}) + u_t`, which gives means and covariances
backwards, and *draws* [2]_: only the oldest part of :math:`\xi_t` is new, the rest is known from
:math:`\xi_{t+1}`. It also gives the covariance of any two rows given *all* observations,
:math:`\mathrm{Cov}(\xi_t, \xi_{t+k}) = J_t J_{t+1} \cdots J_{t+k-1} \mathrm{Cov}(\xi_{t+k})`.

*Draws from the past alone.* The error of the filter follows :math:`\epsilon_t = (I - G_t H)
(F \epsilon_{t-1} + w_t) - G_t e_t` with its gain :math:`G_t`, whatever the values: walking it with
drawn ``w`` and ``e`` and adding the filtered means gives draws of every row given the rows so far,
which are one path where nothing is observed, by the argument of [3]_ for the smoother.

Gains ``J`` and the covariances of ``u`` depend on filtered covariances alone and are found for many
rows at once.

References
----------
.. [1] H. Rauch, F. Tung, C. Striebel, "Maximum likelihood estimates of linear dynamic systems",
   AIAA Journal 3, 1965, https://doi.org/10.2514/3.3166.
.. [2] C. Carter, R. Kohn, "On Gibbs sampling for state space models", Biometrika 81, 1994,
   https://doi.org/10.1093/biomet/81.3.541.
.. [3] J. Durbin, S. J. Koopman, "A simple and efficient simulation smoother for state space time
   series analysis", Biometrika 89, 2002, https://doi.org/10.1093/biomet/89.3.603.
"""

from dataclasses import dataclass

import torch

from skdiffusion.diffusion.statespace.kalman import blocks, filter_states

# What keeps predicted covariances invertible: variances are of order 1, rounding of order 1e-16.
_JITTER = 1e-9


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


def _steps_back(model, means, covariances):
    """Yield how the state of a row depends on the next one, from the last row but one backwards.

    Parameters
    ----------
    model : StateSpace
        The model.
    means, covariances : tensors of shapes (B, T, n) and (B, T, n, n)
        Filtered moments; those of rows that were yielded may be overwritten.

    Yields
    ------
    t : int
        The row.
    gain, offset, predicted : tensors of shapes (B, n, n), (B, n, 1) and (B, n, n)
        Given the next state, this one has the mean ``gain @ next + offset``; and the covariance of
        the next one, as it is predicted.
    """
    means, covariances = means.transpose(0, 1), covariances.transpose(0, 1)
    for rows in reversed(blocks(len(means) - 1, covariances[0].numel())):
        mean, covariance = means[rows], covariances[rows]
        predicted, cross = model.predict_covariance(covariance)
        gain = torch.cholesky_solve(cross, torch.linalg.cholesky(_stable(predicted))).mT
        offset = mean[..., None] - gain @ model.predict_mean(mean)[..., None]
        steps = zip(range(rows.start, rows.stop), gain, offset, predicted)
        yield from reversed(list(steps))


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
    means, covariances = filtered or filter_states(model, values, observed)
    gains = torch.zeros_like(covariances)
    mean, covariance = means[:, -1, :, None], covariances[:, -1]
    for t, gain, offset, predicted in _steps_back(model, means, covariances):
        mean = torch.baddbmm(offset, gain, mean)
        news = torch.bmm(gain, covariance - predicted)
        covariance = torch.baddbmm(covariances[:, t], news, gain.mT)
        means[:, t], covariances[:, t], gains[:, t] = mean[..., 0], covariance, gain
    return Smoothed(means, covariances, gains)


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
    (n_times, n), r, ends = means.shape[1:], model.n_states, set(last.tolist())
    begun = _begun(means[:, -1], covariances[:, -1], normals(n_times - 1, n, last=True))
    state, mean, covariance = begun
    draws = values.new_empty((n_times, *state.shape[:2], r))
    draws[-1] = state[..., :r]
    for t, gain, offset, predicted in _steps_back(model, means, covariances):
        spread = torch.baddbmm(covariances[:, t], torch.bmm(gain, predicted), gain.mT, alpha=-1)
        # The newer parts of a state are parts of the next one: only the oldest is random.
        state = torch.baddbmm(offset.mT, state, gain.mT)
        state[..., n - r :] += normals(t, r) @ _root(spread[:, n - r :, n - r :]).mT
        mean = torch.baddbmm(offset, gain, mean)
        covariance = torch.baddbmm(spread, torch.bmm(gain, covariance), gain.mT)
        if t in ends:
            begun = _begun(means[:, t], covariances[:, t], normals(t, n, last=True))
            here = (last == t)[:, None, None]
            now = zip(begun, (state, mean, covariance))
            state, mean, covariance = (torch.where(here, new, old) for new, old in now)
        draws[t], means[:, t], covariances[:, t] = state[..., :r], mean[..., 0], covariance
    return draws.permute(1, 2, 0, 3), means[..., :r], covariances[..., :r, :r]


def _begun(mean, covariance, normals):
    """Draws (B, n_draws, n) of the last state of series, its mean (B, n, 1) and covariance."""
    draws = mean[:, None] + normals @ _root(covariance).mT
    return draws, mean[..., None], covariance


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
    return torch.linalg.cholesky(_stable(covariance))


def _stable(covariance):
    """What has a Cholesky factor in place of such covariances."""
    stable = covariance.clone()
    stable.diagonal(dim1=-2, dim2=-1).add_(_JITTER)
    return stable


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
