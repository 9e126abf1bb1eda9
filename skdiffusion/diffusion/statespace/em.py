"""The steps of expectation maximisation for a state space with gaps [1]_, and where they begin.

References
----------
.. [1] R. Shumway, D. Stoffer, "An approach to time series smoothing and forecasting using the EM
   algorithm", Journal of Time Series Analysis 3, 1982,
   https://doi.org/10.1111/j.1467-9892.1982.tb00349.x.
"""

import math
from dataclasses import replace

import torch

from skdiffusion.diffusion.statespace.kalman import StateSpace

#: Floor of the noise: one percent of the standard deviation.
LEAST_NOISE = 1e-4
# Floor of the innovations, far below any noise.
_LEAST_INNOVATION = 1e-5
# The first guess; innovations of 0.15 to 0.3 make no difference.
_DAMPING, _FIRST_INNOVATION = 0.95, 0.15
# A small noise moves by a share of itself in a step; going on as far again and a half reaches in
# eight steps what takes twenty (weather year: held-out CRPS .107); whoever steps checks each one.
_HASTE = 1.5
# Rows' worth of pull of a regression towards the transition that completed its rows.
_PULL = 1e-2


def first_guess(pieces, noise, damping=_DAMPING):
    """A damped walk of every column, with innovations as dependent as the rows are.

    Unobserved cells count as 0, their mean, which shrinks what is known of rarely seen columns.
    """
    rows = pieces.values[pieces.real]
    eye = torch.eye(rows.shape[1], dtype=rows.dtype)
    covariance = rows.T @ rows / len(rows) + 0.1 * eye
    noise = torch.full((len(eye),), noise, dtype=rows.dtype)
    return StateSpace(
        damping * eye, _FIRST_INNOVATION * covariance, eye, noise, covariance + 0.05 * eye
    )


def raise_order(model):
    """The same model as one of an order more."""
    r, n = model.transition.shape
    more = torch.zeros((r, r), dtype=model.transition.dtype)
    covariance, cross = model.predict_covariance(model.initial)
    initial = torch.empty((n + r, n + r), dtype=more.dtype)
    initial[:n, :n], initial[:n, n:] = covariance, cross[:, n - r :]
    initial[n:, :n], initial[n:, n:] = cross[:, n - r :].T, model.initial[n - r :, n - r :]
    transition = torch.cat([model.transition, more], 1)
    initial = initial + 1e-6 * torch.eye(n + r, dtype=more.dtype)
    return replace(model, transition=transition, initial=initial)


def maximise(model, smoothed, pieces, observed, ridge):
    """One M step: the model under which the smoothed states are most likely.

    With an infinite ridge the transition stays as it is.
    """
    r, n = model.transition.shape
    mean, transition = smoothed.mean, model.transition
    products, count = products_of_steps(smoothed, pieces.real, r)
    (old, cross, _), eye = products, torch.eye(n, dtype=mean.dtype)
    if not math.isinf(ridge):
        pull = ridge * _DAMPING * torch.eye(r, n, dtype=mean.dtype)
        transition = torch.linalg.solve(old + ridge * eye, (cross + pull).T).T
    innovation = products_of_innovations(transition, *products) / count
    innovation = (innovation + innovation.T) / 2 + _LEAST_INNOVATION * torch.eye(r)
    initial = old / count + 1e-6 * eye
    noise = _noise(model, smoothed, pieces.values, observed)
    return replace(
        model, transition=transition, innovation=innovation, noise=noise, initial=initial
    )


def products_of_steps(smoothed, real, n_states):
    """Expected products of neighbouring rows of states, summed over all steps.

    Parameters
    ----------
    smoothed : Smoothed
        Moments of the states.
    real : bool tensor of shape (B, T)
        False for padding.
    n_states : int
        Number ``r`` of states in a row.

    Returns
    -------
    products : tuple of tensors of shapes (n, n), (r, n) and (r, r)
        Of the rows before, of what is new with them, and of what is new.
    count : tensor of shape ()
        Number of steps.
    """
    r, mean, covariance = n_states, smoothed.mean, smoothed.covariance
    step = (real[:, 1:] & real[:, :-1]).double()
    before, now = mean[:, :-1] * step[..., None], mean[:, 1:, :r]

    def sums(c):
        # Laid out as the loop over time left it: rows first.
        return torch.einsum("tb,tbij->ij", step.T, c.transpose(0, 1))

    old = torch.einsum("bti,btj->ij", before, mean[:, :-1]) + sums(covariance[:, :-1])
    across = covariance[:, 1:, :r] @ smoothed.gain[:, :-1].mT
    cross = torch.einsum("bti,btj->ij", now, before) + sums(across)
    weighted = now * step[..., None]
    new = torch.einsum("bti,btj->ij", weighted, now) + sums(covariance[:, 1:, :r, :r])
    return (old, cross, new), step.sum()


def products_of_innovations(transition, old, cross, new):
    """Expected products (r, r) of innovations from those of steps."""
    moved = transition @ cross.T
    return new - moved - moved.T + transition @ old @ transition.T


def _noise(model, smoothed, values, observed):
    """Noise of every column, with a hundredth of a cell at 1 against columns with few values."""
    mean, variance = model.cells(smoothed.mean, smoothed.covariance)
    error = ((values - mean).square() + variance) * observed
    n_cells = observed.sum((0, 1))
    noise = (error.sum((0, 1)) + 0.01) / (n_cells + 1)
    return (noise * (noise / model.noise) ** _HASTE).clamp(min=LEAST_NOISE)


def regressed(model, rows, real, order):
    """The autoregression of an order that completed rows have by least squares.

    Parameters
    ----------
    model : StateSpace
        What completed them; of this order or one less, with a state for every cell.
    rows : tensor of shape (B, T, K)
        The rows.
    real : bool tensor of shape (B, T)
        False for padding.
    order : int
        Order of the result.

    Returns
    -------
    model : StateSpace
        With the start and the noise of the given one.
    """
    base = raise_order(model) if model.order < order else model
    n_times, real = rows.shape[1], real[:, order:]
    past = torch.cat([rows[:, order - 1 - i : n_times - 1 - i] for i in range(order)], -1)[real]
    now, pull = rows[:, order:][real], _PULL * torch.eye(past.shape[1]).double()
    cross = past.T @ now + pull @ base.transition.T
    transition = torch.linalg.solve(past.T @ past + pull, cross).T
    left = now - past @ transition.T
    floor = _LEAST_INNOVATION * torch.eye(rows.shape[2]).double()
    innovation = left.T @ left / max(1, len(left)) + floor
    return replace(base, transition=transition, innovation=innovation)
