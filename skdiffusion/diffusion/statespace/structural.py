r"""Structural models: a level, a slope and a season that move, and a damped rest, of every column.

A vector autoregression returns to a mean that stays, and so does the season of :mod:`.season`.
Sales, exports and temperatures of decades have neither: they grow, and their months change. A
column is then the sum of parts [1]_

.. math::

    z_t = \mu_t + \gamma_t + a_t + e_t, \quad
    \mu_{t+1} = \mu_t + \beta_t + \eta_t, \quad
    \beta_{t+1} = \delta \beta_t + \zeta_t, \quad
    a_{t+1} = \phi a_t + \xi_t,

with the season :math:`\gamma` a sum of waves whose amplitudes walk, each turned by
:math:`2 \pi j / m` a row. The few numbers of a column are those of the largest likelihood under
weak priors, found by a random search over all columns at once; a slope and a season stay only where
they pay. What drives levels and rests of two columns at once is learnt by expectation maximisation.

References
----------
.. [1] A. C. Harvey, "Forecasting, structural time series models and the Kalman filter", 1989,
   https://doi.org/10.1017/CBO9781107049994.
"""

import math
from dataclasses import dataclass, replace

import torch

from skdiffusion.diffusion.statespace.em import (
    LEAST_NOISE,
    products_of_innovations,
    products_of_steps,
)
from skdiffusion.diffusion.statespace.kalman import StateSpace, filter_states, log_likelihood
from skdiffusion.diffusion.statespace.smoother import smooth

# Waves of a season.
_MOST_WAVES = 6
# Logarithms of the variances of noise, level, slope, season and rest and of a wave at first, logits
# of phi and delta: what is believed beforehand, how firmly, and where the search ends. Short series
# look as if they came back to their mean; what comes back slowly is therefore taken for a level.
_CENTRE = torch.tensor([-4.0, -6.0, -11.0, -9.0, -4.0, -3.0, 0.0, 4.0]).double()
_WIDTH = torch.tensor([8.0, 6.0, 3.0, 4.0, 8.0, 4.0, 1.0, 1.0]).double()
_LOW = torch.tensor([math.log(LEAST_NOISE), -14.0, -18.0, -16.0, -9.2, -12.0, -2.0, 2.0]).double()
_HIGH = torch.tensor([1.0, 1.0, -4.0, -1.0, 1.0, 0.0, 4.6, 6.0]).double()
_NOISE, _LEVEL, _SLOPE, _SEASON, _REST, _WAVE, _PHI, _DELTA = range(8)
# Where the other parts of a larger model begin: nearly at rest, or moving, in all rows.
_MOVING = _CENTRE.repeat(6, 1)
_MOVING[:, _SLOPE] = torch.tensor([-15.0, -12.0, -9.0, -15.0, -12.0, -9.0])
_MOVING[:, _SEASON] = torch.tensor([-15.0, -12.0, -7.0, -7.0, -10.0, -10.0])
_MOVING[:, _WAVE] = torch.tensor([-11.0, -6.0, -6.0, -1.0, -1.0, -8.0])
# A level that was moved by what the other parts explain had better stand still beside them.
_STILL = {_NOISE: -4.0, _LEVEL: -8.0, _REST: -6.0}
_LOG_TURN = math.log(2 * math.pi)
# Where the search begins: all combinations of these.
_BEGINS = {_NOISE: (-6.0, -2.0), _LEVEL: (-9.0, -4.0), _REST: (-6.0, -2.0), _PHI: (0.0, 2.5)}
# Rounds of the search, of the best so many of all seen, each changed so often.
_ROUNDS, _ROUNDS_MORE, _BEST, _CHANGES, _STEP, _NARROWER = 7, 2, 4, 8, 2.0, 0.7
# Kinds of states (see :func:`_kinds`) that a column goes from and to, and the numbers that are new:
# a slope, waves beside what it has, and a slope that only shows where waves are taken out.
_GROWTH = (
    (0, 1, [_SLOPE]),
    (0, 2, [_SEASON, _WAVE]),
    (1, 3, [_SEASON, _WAVE]),
    (2, 3, [_SLOPE]),
)
# Rows that the numbers are searched on.
_MOST_ROWS = 1024
# Variances of a level and a slope before anything is seen.
_FIRST_LEVEL, _FIRST_SLOPE = 4.0, 0.01
# Steps of expectation maximisation that correlations get, and what keeps them inside -1 and 1.
_STEPS, _LEAST_SQUARE, _LEAST_EIGENVALUE = 4, 1e-12, 0.02
# Kinds of states.
_IS_REST, _IS_LEVEL, _IS_SLOPE, _IS_WAVE = range(4)


def fit_structural(pieces, period, generator, known=None):
    """Fit a structural model of every column, and what they have in common.

    Parameters
    ----------
    pieces : Pieces
        Standardised series.
    period : float
        Rows of the season, 0 for none.
    generator : torch.Generator
        Source of the search.
    known : list of (tensor of shape (8,), int), optional
        Numbers of every column and which states it has, from nearly the same series.

    Returns
    -------
    model : StateSpace
        Of as many states as all columns need together.
    known : list of (tensor of shape (8,), int)
        As above.
    """
    n_pieces, n_times, _ = pieces.values.shape
    few = slice(None, None, -(-n_pieces * n_times // _MOST_ROWS))
    values, observed = (x[few].permute(2, 0, 1).double() for x in (pieces.values, pieces.observed))
    kinds = _kinds(period)
    if known is None:
        known = _searched(values, observed, kinds, generator)
    else:
        known = _followed(known, values, observed, kinds, generator)
    model, kind = _joined([_Columns.of(theta[None], *kinds[i]) for theta, i in known])
    return _correlated(model, kind, pieces), known


def _kinds(period):
    """The states that a column may have beyond level and rest: waves (their angles) and a slope."""
    n_waves = min(_MOST_WAVES, int(period) // 2)
    waves = [2 * math.pi * j / period for j in range(1, n_waves + 1)]
    return [(w, slope) for w in ([], waves)[: 1 + bool(waves)] for slope in (False, True)]


@dataclass(frozen=True)
class _Columns:
    """Models of columns with the same kinds of states, which share no state.

    A state is a share ``own`` of what it was, a share ``other`` of what its ``partner`` was, and an
    innovation.

    Attributes
    ----------
    own, other, innovation, initial : tensors of shape (B, n)
        The shares, and variances of the innovations and of the first states.
    partner, kind : int64 tensors of shape (n,)
        Number of the other state, and what a state is.
    loading : tensor of shape (n,)
        1 for states that are parts of a value, 0 for others.
    noise : tensor of shape (B,)
        Variance of the noise.
    """

    own: torch.Tensor
    other: torch.Tensor
    innovation: torch.Tensor
    initial: torch.Tensor
    partner: torch.Tensor
    kind: torch.Tensor
    loading: torch.Tensor
    noise: torch.Tensor

    @classmethod
    def of(cls, theta, waves, slope):
        """Models with the numbers (B, 8)."""
        variance, (phi, delta) = theta[:, :_PHI].exp(), theta[:, _PHI:].sigmoid().T
        zero = torch.zeros_like(phi)
        rest = (
            phi,
            zero,
            variance[:, _REST],
            variance[:, _REST] / (1 - phi * phi),
            0,
            _IS_REST,
            1.0,
        )
        level = (
            zero + 1,
            zero + slope,
            variance[:, _LEVEL],
            zero + _FIRST_LEVEL,
            int(slope),
            _IS_LEVEL,
            1.0,
        )
        states = [rest, level]
        if slope:
            states.append(
                (delta, zero, variance[:, _SLOPE], zero + _FIRST_SLOPE, 0, _IS_SLOPE, 0.0)
            )
        for angle in waves:
            moves = variance[:, _SEASON], variance[:, _WAVE]
            for sign in (1, -1)[: _states(angle)]:
                turn = zero + math.cos(angle), zero + sign * math.sin(angle)
                states.append(
                    (*turn, *moves, sign * (_states(angle) - 1), _IS_WAVE, float(sign > 0))
                )
        *batched, step, kind, loading = zip(*states)
        partner = torch.arange(len(states)) + torch.tensor(step)
        batched = [torch.stack(x, 1) for x in batched]
        loading = torch.tensor(loading, dtype=theta.dtype)
        return cls(*batched, partner, torch.tensor(kind), loading, variance[:, _NOISE])

    def transitions(self):
        """What the states of each model (B, n, n) are a row later, without innovations."""
        eye = torch.eye(len(self.kind)).to(self.own)
        return self.own[..., None] * eye + self.other[..., None] * eye[self.partner]

    def likelihood(self, values, observed):
        """Log-likelihood (B,) of each model for its series (B, P, T)."""
        n_pieces, n_times = values.shape[1:]
        keeps, innovation, initial, loadings = self._apart(n_times)
        keeps, innovation, covariance, noise = (
            x.repeat_interleave(n_pieces, 0) for x in (keeps, innovation, initial, self.noise)
        )
        values, observed = (x.flatten(0, 1).T.contiguous() for x in (values, observed))
        squares, mean = keeps[:, :, None] * keeps[:, None], torch.zeros_like(keeps)
        errors, spreads = torch.empty((2, *values.shape), dtype=values.dtype)
        rows = zip(loadings, values, observed, errors, spreads)
        for t, (loading, value, seen, error, spread) in enumerate(rows):
            if t:
                mean *= keeps
                torch.addcmul(innovation, covariance, squares, out=covariance)
            side = covariance @ loading
            torch.add(side @ loading, noise, out=spread)
            torch.sub(value, mean @ loading, out=error)
            gain = side * (seen / spread)[:, None]
            mean.addcmul_(gain, error[:, None])
            covariance.addcmul_(gain[:, :, None], side[:, None], value=-1)
        losses = observed * (errors * errors / spreads + spreads.log() + _LOG_TURN)
        return -0.5 * losses.sum(0).view(-1, n_pieces).sum(1)

    def _apart(self, n_times):
        """The same models with states that do not touch each other, for a filter of few products.

        A wave that does not turn is seen through loadings that do; a level with all that its slope
        will add, ``level + slope / (1 - delta)``, walks, and what is not added yet dies away.

        Returns
        -------
        keeps : tensor of shape (B, n)
            Share of itself that a state keeps.
        innovation, initial : tensors of shape (B, n, n)
            Covariances.
        loadings : tensor of shape (n_times, n)
            Of each row.
        """
        turns = self.kind == _IS_WAVE
        angle = torch.where(turns, torch.atan2(self.other[0].abs(), self.own[0]), 0.0)
        angle = angle * torch.arange(n_times)[:, None]
        loadings = torch.where(turns & (self.loading == 0), angle.sin(), angle.cos())
        apart = torch.eye(len(turns)).to(self.own).repeat(len(self.own), 1, 1)
        for slope in torch.nonzero(self.kind == _IS_SLOPE)[:, 0]:
            ahead = 1 / (1 - self.own[:, slope])
            apart[:, slope - 1, slope], apart[:, slope, slope] = ahead, -ahead
        innovation, initial = (
            (apart * variance[:, None]) @ apart.mT for variance in (self.innovation, self.initial)
        )
        return torch.where(turns, 1.0, self.own), innovation, initial, loadings


def _states(angle):
    """States of a wave: one that turns by half a circle a row has no other phase."""
    return 1 if abs(angle - math.pi) < 1e-9 else 2


def _posterior(theta, values, observed, waves, slope):
    """Log-likelihood and prior (C, n) of numbers (C, n, 8) of columns (C, P, T)."""
    n, models = theta.shape[1], _Columns.of(theta.flatten(0, 1), waves, slope)
    found = models.likelihood(*(x.repeat_interleave(n, 0) for x in (values, observed)))
    prior = -0.5 * ((theta - _CENTRE) / _WIDTH).square().sum(-1)
    return found.view(theta.shape[:2]).nan_to_num(nan=-torch.inf) + prior


def _begins():
    """Numbers (n, 8) that a search without any begins from."""
    grid = torch.cartesian_prod(*[torch.tensor(b).double() for b in _BEGINS.values()])
    begins = _CENTRE.repeat(len(grid), 1)
    begins[:, list(_BEGINS)] = grid
    return begins


def _search(theta, values, observed, kind, generator, rounds):
    """Better numbers (C, 8) than some (C, n, 8) for columns (C, P, T), and how good they are."""
    height, step = _posterior(theta, values, observed, *kind), _STEP
    for _ in range(rounds):
        height, best = height.topk(min(_BEST, theta.shape[1]), 1)
        theta = theta.gather(1, best[..., None].expand(-1, -1, theta.shape[-1]))
        near = theta.repeat_interleave(_CHANGES * _BEST // theta.shape[1], 1)
        change = torch.randn(near.shape, generator=generator, dtype=near.dtype) * step
        change = change * (torch.rand(near.shape, generator=generator) < 0.5)
        near = torch.minimum(torch.maximum(near + change, _LOW), _HIGH)
        height = torch.cat([height, _posterior(near, values, observed, *kind)], 1)
        theta, step = torch.cat([theta, near], 1), step * _NARROWER
    height, best = height.max(1)
    return theta[torch.arange(len(theta)), best], height


def _searched(values, observed, kinds, generator):
    """Numbers of every column and its kind: the states that pay."""
    begins = _begins().repeat(len(values), 1, 1)
    best, height = _search(begins, values, observed, kinds[0], generator, _ROUNDS)
    chosen = torch.zeros(len(values), dtype=torch.int64)
    for of, to, new in _GROWTH:
        own = torch.nonzero(chosen == of)[:, 0]
        if to >= len(kinds) or not len(own):
            continue
        still = best[own]
        still[:, list(_STILL)] = torch.tensor(list(_STILL.values())).double()
        begins = torch.stack([best[own], still], 1).repeat_interleave(len(_MOVING), 1)
        begins[..., new] = _MOVING[:, new].repeat(2, 1)
        found = _search(begins, values[own], observed[own], kinds[to], generator, _ROUNDS)
        better = found[1] - len(new) > height[own]
        at = own[better]
        best[at], height[at], chosen[at] = found[0][better], found[1][better] - len(new), to
    return list(zip(best, chosen.tolist()))


def _followed(known, values, observed, kinds, generator):
    """The numbers of the same kinds on other series, from those of nearly the same."""
    found = list(known)
    for i, kind in enumerate(kinds):
        own = [k for k, (_, j) in enumerate(known) if j == i]
        if own:
            begins = torch.stack([known[k][0] for k in own])[:, None]
            theta, _ = _search(begins, values[own], observed[own], kind, generator, _ROUNDS_MORE)
            found = [(theta[own.index(k)], i) if k in own else x for k, x in enumerate(found)]
    return found


def _joined(columns):
    """The state space of all columns, each with its own states, and the kinds of these."""
    transitions = [column.transitions()[0] for column in columns]
    innovation, initial = (
        torch.diag(torch.cat([getattr(column, name)[0] for column in columns]))
        for name in ("innovation", "initial")
    )
    loadings = torch.block_diag(*[column.loading[None] for column in columns])
    noise = torch.cat([column.noise for column in columns])
    model = StateSpace(torch.block_diag(*transitions), innovation, loadings, noise, initial)
    return model, torch.cat([column.kind for column in columns])


def _correlated(model, kind, pieces):
    """The model with correlated innovations of levels and rests, where these pay."""
    driven = torch.nonzero((kind == _IS_REST) | (kind == _IS_LEVEL))[:, 0]
    n, data = len(driven), (pieces.values, pieces.observed)
    if n == 2:
        return model
    deviation, trial = model.innovation.diagonal()[driven].sqrt(), model
    filtered = filter_states(model, *data)
    alone = log_likelihood(model, *data, filtered)
    for _ in range(_STEPS):
        smoothed = smooth(trial, *data, filtered)
        products, _ = products_of_steps(smoothed, pieces.real, trial.n_states)
        squares = products_of_innovations(trial.transition, *products)
        innovation = model.innovation.clone()
        correlation = _correlation(squares[driven][:, driven])
        innovation[driven[:, None], driven] = correlation * deviation * deviation[:, None]
        trial = replace(model, innovation=innovation)
        filtered = filter_states(trial, *data)
    gain = log_likelihood(trial, *data, filtered) - alone
    return trial if gain > n * (n - 1) / 2 else model


def _correlation(covariance):
    """Correlations, none of which is so near to 1 that rounding would rule the filter."""
    root = covariance.diagonal().clamp(min=_LEAST_SQUARE).sqrt()
    values, vectors = torch.linalg.eigh(covariance / root / root[:, None])
    positive = (vectors * values.clamp(min=_LEAST_EIGENVALUE)) @ vectors.T
    root = positive.diagonal().sqrt()
    return positive / root / root[:, None]
