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
   estimation", NeurIPS 2017.
"""

import math
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid, softplus

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
# Scales of components, as logarithms: a thousandth of a column at least.
_LEAST, _LARGEST = -7.0, 3.0
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
        low, high = ends.amin(-1), ends.amax(-1)
        x = (self.log_weights.exp() * ends).sum(-1)
        for _ in range(_MAX_STEPS):
            below, above = self.log_probabilities(x)
            excess = below - above - logit
            low, high = torch.where(excess < 0, x, low), torch.where(excess > 0, x, high)
            # Newton's step for logit F, which is straight in the tails.
            ahead = x - excess * torch.exp(below + above - self.log_density(x))
            ahead = torch.where((ahead > low) & (ahead < high), ahead, (low + high) / 2)
            moved = (ahead - x).abs().max() if x.numel() else 0.0
            x = torch.where(excess == 0, x, ahead)
            if moved < _TOLERANCE:
                break
        return x

    def _standard(self, x):
        """Values in units of each component."""
        scales = torch.exp(-self.log_scales.clamp(_LEAST, _LARGEST))
        return (x[..., None] - self.means) * scales


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
