r"""A column given those before it: mixtures of logistic densities, and the way to normal scores.

The density of a row is a product over its columns,

.. math:: p(x) = \prod_j p(x_j \mid x_1, \ldots, x_{j-1}),

exact, and drawn from column after column. Here each factor is a mixture in one dimension,
``F(x) = sum_k w_k L((x - m_k) / s_k)`` with the logistic function ``L``, whose weights, means and
scales depend on the columns before. Tails fall like ``exp(-|x| / s)``, so that a row far from where
it was expected costs a likelihood no more than a line, where normal components would charge a
parabola.

The *normal score* ``t = Phi^{-1}(F(x))`` is N(0, 1) and independent of the columns before if the
factor is right, and ``log dt/dx = log f(x) - log phi(t)``. So the chain is also a map of rows to
independent normals whose Jacobian is triangular [1]_, and a density of the scores, of whatever
kind, becomes one of the rows.

References
----------
.. [1] G. Papamakarios, T. Pavlakou, I. Murray, "Masked autoregressive flow for density
   estimation", NeurIPS 2017, https://arxiv.org/abs/1705.07057.
"""

import math
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid, softplus

from skdiffusion.diffusion.analytic.noisy import LOG_2PI

_LOG_ROOT_2PI = 0.5 * LOG_2PI
# Scales of components, as logarithms: a thousandth of a column at least.
_LEAST, _LARGEST = -7.0, 3.0
# Every label has this probability more than a mixture gives it.
_LEAST_MASS = 1e-5
# Below this log-probability the normal distribution function is inverted by its asymptotic form
# and so many Newton steps.
_TAIL, _TAIL_STEPS = -6.0, 4
# Steps of the inverse at most: each at least halves the interval that holds the value.
_MAX_STEPS, _TOLERANCE = 60, 1e-12


class Components(NamedTuple):
    """Mixtures in one dimension, components along the last axis.

    Parameters
    ----------
    log_weights, means, log_scales : tensors
        Their parameters, of the same shape.
    """

    log_weights: torch.Tensor
    means: torch.Tensor
    log_scales: torch.Tensor

    def log_density(self, x):
        """Log-density of values.

        Parameters
        ----------
        x : tensor of the shape of the parameters without the last axis
            Values.

        Returns
        -------
        log_density : tensor of the shape of ``x``
            ``log f(x)``.
        """
        u = self._standard(x)
        terms = self.log_weights - u - 2 * softplus(-u) - self.log_scales.clamp(_LEAST, _LARGEST)
        return torch.logsumexp(terms, -1)

    def log_probabilities(self, x):
        """Logarithms of the probabilities below and above values.

        Parameters
        ----------
        x : tensor of the shape of the parameters without the last axis
            Values.

        Returns
        -------
        below, above : tensors of the shape of ``x``
            ``log F(x)`` and ``log (1 - F(x))``.
        """
        u = self._standard(x)
        below = torch.logsumexp(self.log_weights + logsigmoid(u), -1)
        return below, torch.logsumexp(self.log_weights + logsigmoid(-u), -1)

    def scores(self, x):
        """Normal scores of values.

        Parameters
        ----------
        x : tensor of the shape of the parameters without the last axis
            Values.

        Returns
        -------
        scores, log_density : tensors of the shape of ``x``
            ``t = Phi^{-1}(F(x))``, and ``log f(x)``; both can be differentiated.

        Examples
        --------
        >>> import torch
        >>> from skdiffusion.diffusion.chain import Components
        >>> one = Components(*torch.tensor([[0.0], [2.0], [0.0]]).double())
        >>> one.scores(torch.tensor(2.0).double())[1]
        tensor(-1.3863, dtype=torch.float64)
        """
        below, above = self.log_probabilities(x)
        left = below < above
        score = normal_quantile(torch.where(left, below, above))
        return torch.where(left, score, -score), self.log_density(x)

    def values(self, scores):
        """Values of normal scores, the inverse of :meth:`scores`.

        Parameters
        ----------
        scores : tensor of the shape of the parameters without the last axis
            Scores.

        Returns
        -------
        x : tensor of the shape of ``scores``
            Values.
        """
        logit = torch.special.log_ndtr(scores) - torch.special.log_ndtr(-scores)
        # The quantile of a mixture lies between the quantiles of its components.
        ends = self.means + torch.exp(self.log_scales.clamp(_LEAST, _LARGEST)) * logit[..., None]
        first = (self.log_weights.exp() * ends).sum(-1)
        found, todo = first.flatten().clone(), torch.arange(first.numel(), device=first.device)
        here = Components(*(part.reshape(-1, part.shape[-1]) for part in self))
        state = [one.flatten() for one in (first, ends.amin(-1), ends.amax(-1), logit)]
        for _ in range(_MAX_STEPS):
            ahead, low, high = here._step(*state)
            found[todo] = ahead
            # Most values take a few steps, the slowest of thousands all of them.
            moves = (ahead - state[0]).abs() >= _TOLERANCE
            if not moves.any():
                break
            todo, here = todo[moves], Components(*(part[moves] for part in here))
            state = [one[moves] for one in (ahead, low, high, state[3])]
        return found.view(first.shape)

    def _step(self, x, low, high, logit):
        """Values closer to where ``logit F`` is as wanted, and the interval that holds them."""
        below, above = self.log_probabilities(x)
        excess = below - above - logit
        low, high = torch.where(excess < 0, x, low), torch.where(excess > 0, x, high)
        # Newton's step for logit F, which is straight in the tails.
        ahead = x - excess * torch.exp(below + above - self.log_density(x))
        ahead = torch.where((ahead > low) & (ahead < high), ahead, (low + high) / 2)
        return torch.where(excess == 0, x, ahead), low, high

    def _standard(self, x):
        """Values in units of each component."""
        scales = torch.exp(-self.log_scales.clamp(_LEAST, _LARGEST))
        return (x[..., None] - self.means) * scales


class Cells:
    """Density of a column of labels: what a mixture says of the cell of each, N(0, 1) inside it.

    Parameters
    ----------
    components : Components
        Mixtures, of shape (n_samples, n_components).
    ends : tensor of shape (n_cells - 1,)
        Where one cell ends and the next begins.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.chain import Cells, Components
    >>> one = Components(*torch.zeros(3, 1, 1).double())
    >>> halves = Cells(one, torch.zeros(1).double())
    >>> halves.log_density(torch.zeros(1).double())
    tensor([-0.9189], dtype=torch.float64)
    """

    def __init__(self, components, ends):
        n_cells, wide = len(ends) + 1, Components(*(part[:, None] for part in components))
        below = wide.log_probabilities(ends.expand(len(wide.means), -1))[0].exp()
        edge = torch.zeros_like(below[:, :1])
        masses = torch.diff(below, dim=1, prepend=edge, append=edge + 1).clamp_min(0)
        self.masses = (masses + _LEAST_MASS) / (1 + n_cells * _LEAST_MASS)
        self.below = torch.cat([edge, self.masses.cumsum(1)], 1)
        self.above = torch.cat([self.masses.flip(1).cumsum(1).flip(1), edge], 1)
        side = torch.zeros_like(ends[:1])
        self.under = torch.cat([side, torch.special.ndtr(ends), side + 1])
        self.over = torch.cat([side + 1, torch.special.ndtr(-ends), side])
        self.ends = ends

    def log_density(self, x):
        """Log-density of values, of shape (n_samples,)."""
        cell = torch.searchsorted(self.ends, x.contiguous(), right=True)
        mass = self.masses.gather(1, cell[:, None])[:, 0]
        return mass.log() - 0.5 * x**2 - _LOG_ROOT_2PI - self._widths()[cell].log()

    def scores(self, x):
        """Normal scores of values and log-densities, as those of :class:`Components`."""
        cell = torch.searchsorted(self.ends, x.contiguous(), right=True)
        at = lambda table, places: table.gather(1, places[:, None])[:, 0]  # noqa: E731
        slope = at(self.masses, cell) / self._widths()[cell]
        low = at(self.below, cell) + slope * (torch.special.ndtr(x) - self.under[cell])
        high = at(self.above, cell + 1) + slope * (torch.special.ndtr(-x) - self.over[cell + 1])
        return _two_sided(low, high), self.log_density(x)

    def values(self, scores):
        """Values of normal scores, the inverse of :meth:`scores`."""
        low, high = torch.special.ndtr(scores), torch.special.ndtr(-scores)
        cell = (low[:, None] >= self.below[:, 1:-1]).sum(1)
        at = lambda table, places: table.gather(1, places[:, None])[:, 0]  # noqa: E731
        slope = self._widths()[cell] / at(self.masses, cell)
        low = self.under[cell] + slope * (low - at(self.below, cell))
        high = self.over[cell + 1] + slope * (high - at(self.above, cell + 1))
        edge = torch.full_like(self.ends[:1], math.inf)
        x = torch.maximum(_two_sided(low, high), torch.cat([-edge, self.ends])[cell])
        # The end belongs to the next cell.
        last = torch.nextafter(torch.cat([self.ends, edge]), -edge)
        return torch.minimum(x, last[cell])

    def _widths(self):
        """Probability of the cells under N(0, 1)."""
        return torch.where(
            self.under[1:] < 0.5, torch.diff(self.under), -torch.diff(self.over)
        ).clamp_min(1e-300)


def _two_sided(below, above):
    """Standard normal quantiles of probabilities below and above, whichever is smaller."""
    quantile = torch.special.ndtri(torch.minimum(below, above).clamp_min(1e-300))
    return torch.where(below < above, quantile, -quantile)


def factors(components, x, cells):
    """Log-densities of all columns.

    Parameters
    ----------
    components : Components
        Mixtures of the columns, of shape (n_features, n_samples, n_components).
    x : tensor of shape (n_features, n_samples)
        Values.
    cells : dict of int to tensor
        Where cells end, of columns of labels.

    Returns
    -------
    log_densities : tensor of shape (n_features, n_samples)
        See :class:`Components`, and :class:`Cells` for columns of labels.
    """
    values = components.log_density(x)
    if not cells:
        return values
    rows = list(values)
    for j, ends in cells.items():
        rows[j] = Cells(Components(*(part[j] for part in components)), ends).log_density(x[j])
    return torch.stack(rows)


def averaged(parts, log_weights):
    """Average of mixtures, which is the mixture of all their components.

    Parameters
    ----------
    parts : sequence of Components
        Mixtures of the same values.
    log_weights : sequence of tensors
        Logarithm of the weight of each, of a shape that goes with that of its components.

    Returns
    -------
    components : Components
        The mixture.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.chain import Components, averaged
    >>> one = Components(*torch.tensor([[0.0], [2.0], [0.0]]).double())
    >>> two = averaged([one, one], torch.tensor([0.25, 0.75]).double().log())
    >>> two.log_density(torch.tensor(2.0).double())
    tensor(-1.3863, dtype=torch.float64)
    """
    weighted = [
        part._replace(log_weights=part.log_weights + weight)
        for part, weight in zip(parts, log_weights, strict=True)
    ]
    return Components(*(torch.cat(part, -1) for part in zip(*weighted, strict=True)))


def normal_quantile(log_probability):
    """Quantile of N(0, 1) of a probability of at most one half, by its logarithm.

    Parameters
    ----------
    log_probability : tensor
        Logarithms of probabilities.

    Returns
    -------
    quantile : tensor
        ``t`` with ``log Phi(t) = log_probability``; it can be differentiated.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.chain import normal_quantile
    >>> t = torch.tensor([-40.0, -2.0, 0.0]).double()
    >>> normal_quantile(torch.special.log_ndtr(t))
    tensor([-40.,  -2.,   0.], dtype=torch.float64)
    """
    with torch.no_grad():
        far = (-2 * log_probability).clamp_min(-2 * _TAIL)
        guess = -torch.sqrt(far - torch.log(far) - 2 * _LOG_ROOT_2PI)
        near = torch.special.ndtri(torch.exp(log_probability))
        quantile = torch.where(log_probability < _TAIL, guess, near)
        for _ in range(_TAIL_STEPS):
            quantile = _newton(quantile, log_probability)
    # One more step carries the derivative.
    return _newton(quantile, log_probability)


def _newton(quantile, log_probability):
    """One Newton step towards the quantile."""
    value = torch.special.log_ndtr(quantile)
    log_slope = -0.5 * quantile**2 - _LOG_ROOT_2PI - value
    return quantile - (value - log_probability) * torch.exp(-log_slope)
