"""Supports: densities of variables that are positive, bounded, ordered or shares of a whole.

Chains need the whole space. A support maps free coordinates ``y`` one to one onto the points ``x``
that a density knows, and the density of ``y`` is ``p(x(y)) |dx/dy|``: with the logarithm of the
Jacobian added, chains in ``y`` sample ``p`` itself [1]_, and nobody has to rewrite it.

A support is called with ``y`` and returns ``x`` and the log-Jacobian of every row; ``inverse``
leads back, ``contains`` tells which rows are inside, and ``n_features`` and ``n_free`` count the
columns of ``x`` and of ``y``.

References
----------
.. [1] B. Carpenter et al., "Stan: a probabilistic programming language", Journal of Statistical
   Software 2017, https://doi.org/10.18637/jss.v076.i01.
"""

import dataclasses

import torch
from torch import distributions as td
from torch.nn.functional import logsigmoid

from skdiffusion.diffusion.target.targets import Target


@dataclasses.dataclass(frozen=True)
class Box:
    """Every feature in an interval of its own, open where a bound is infinite.

    Parameters
    ----------
    low, high : tuple of float
        Bounds of the features.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.target import Box
    >>> x, log_jacobian = Box((0.0, -1.0), (float("inf"), 1.0))(torch.zeros(1, 2))
    >>> x
    tensor([[1., 0.]])
    """

    low: tuple
    high: tuple

    @property
    def n_features(self):
        """Number of features."""
        return len(self.low)

    n_free = n_features

    def __call__(self, y):
        """Points and log-Jacobians of free coordinates."""
        low, high, above, below, both = self._kinds(y)
        sign = torch.where(below, -1.0, 1.0).to(y)
        # Zero where a map is not used, so that no gradient of it is infinite.
        exponent = torch.where(above | below, sign * y, 0.0)
        logit = torch.where(both, y, 0.0)
        edge = torch.where(above, low, high).nan_to_num(0.0, 0.0, 0.0)
        width = torch.where(both, high - low, 1.0)
        # Clamped, as a density is asked for points inside only.
        distance = exponent.exp().clamp_min(torch.finfo(y.dtype).tiny)
        share = logit.sigmoid().clamp(torch.finfo(y.dtype).tiny, 1 - torch.finfo(y.dtype).eps)
        x = torch.where(above | below, edge + sign * distance, y)
        x = torch.where(both, torch.where(both, low, 0.0) + width * share, x)
        slope = torch.where(both, width.log() + logsigmoid(logit) + logsigmoid(-logit), exponent)
        return x, slope.sum(1)

    def inverse(self, x):
        """Free coordinates of points."""
        low, high, above, below, both = self._kinds(x)
        y = torch.where(above, (x - low).log(), x)
        y = torch.where(below, -(high - x).log(), y)
        return torch.where(both, ((x - low) / (high - low)).logit(), y)

    def contains(self, x):
        """Whether points are inside."""
        low, high = self._kinds(x)[:2]
        return ((x > low) & (x < high)).all(1)

    def _kinds(self, x):
        """Bounds, and which features have one below, one above, or both."""
        low, high = (torch.tensor(bound).to(x) for bound in (self.low, self.high))
        has_low, has_high = torch.isfinite(low), torch.isfinite(high)
        return low, high, has_low & ~has_high, has_high & ~has_low, has_low & has_high


@dataclasses.dataclass(frozen=True)
class Ordered:
    """Features in increasing order.

    Parameters
    ----------
    n_features : int
        Number of features.
    """

    n_features: int

    @property
    def n_free(self):
        """Number of free coordinates."""
        return self.n_features

    def __call__(self, y):
        """Points and log-Jacobians of free coordinates."""
        gaps = y[:, 1:].exp()
        return torch.cat([y[:, :1], gaps], 1).cumsum(1), y[:, 1:].sum(1)

    def inverse(self, x):
        """Free coordinates of points."""
        return torch.cat([x[:, :1], x.diff(dim=1).log()], 1)

    def contains(self, x):
        """Whether points are in order."""
        return (x.diff(dim=1) > 0).all(1)


class Transformed:
    """What a transform of torch maps the whole space to.

    Parameters
    ----------
    transform : torch.distributions.transforms.Transform
        A bijection, as ``biject_to(constraint)``. For a simplex the density is that of all
        features but the last one, as in ``torch.distributions.Dirichlet``.
    n_features : int
        Number of features.
    """

    def __init__(self, transform, n_features):
        self._transform, self.n_features = transform, n_features
        self.n_free = transform.inverse_shape((n_features,))[0]

    def __call__(self, y):
        """Points and log-Jacobians of free coordinates."""
        x = self._transform(y)
        slope = self._transform.log_abs_det_jacobian(y, x)
        return x, slope.reshape(len(y), -1).sum(1)

    def inverse(self, x):
        """Free coordinates of points."""
        return self._transform.inv(x)

    def contains(self, x):
        """Whether points are inside."""
        return self._transform.codomain.check(x).reshape(len(x), -1).all(1)


class Blocks:
    """Blocks of features, each on a support of its own.

    Parameters
    ----------
    supports : sequence of object
        Supports of the blocks, in the order of the features.
    """

    def __init__(self, supports):
        self._supports = tuple(supports)
        self.n_features = sum(support.n_features for support in self._supports)
        self.n_free = sum(support.n_free for support in self._supports)

    def __call__(self, y):
        """Points and log-Jacobians of free coordinates."""
        parts = y.split([support.n_free for support in self._supports], 1)
        mapped = [support(part) for support, part in zip(self._supports, parts, strict=True)]
        return torch.cat([x for x, _ in mapped], 1), sum(slope for _, slope in mapped)

    def inverse(self, x):
        """Free coordinates of points."""
        return torch.cat([support.inverse(part) for support, part in self._parts(x)], 1)

    def contains(self, x):
        """Whether points are inside."""
        inside = [support.contains(part) for support, part in self._parts(x)]
        return torch.stack(inside).all(0)

    def _parts(self, x):
        """Supports with their columns."""
        parts = x.split([support.n_features for support in self._supports], 1)
        return zip(self._supports, parts, strict=True)


def support_of(constraint, n_features):
    """Support for a constraint or transform of torch, or None where it is no constraint.

    Parameters
    ----------
    constraint : torch constraint or transform
        Such as ``constraints.positive`` or ``constraints.simplex``, or a bijective transform from
        the whole space.
    n_features : int
        Number of features.

    Returns
    -------
    support : object or None
        The support.

    Raises
    ------
    NotImplementedError
        If torch knows no bijection to the constraint.
    """
    if isinstance(constraint, td.Transform):
        return Transformed(constraint, n_features)
    inner = constraint
    while hasattr(inner, "base_constraint"):
        inner = inner.base_constraint
    if isinstance(inner, type(td.constraints.real)):
        return None
    bounds = [getattr(inner, f"{side}_bound", None) for side in ("lower", "upper")]
    if bounds != [None, None] and not inner.is_discrete:
        inf = float("inf")
        sides = [default if b is None else b for b, default in zip(bounds, (-inf, inf))]
        spread = [torch.as_tensor(b).double().expand(n_features).tolist() for b in sides]
        return Box(*map(tuple, spread))
    return Transformed(td.biject_to(constraint), n_features)


class Supported(Target):
    """A density on a support, seen in free coordinates.

    Parameters
    ----------
    target : Target
        The density of ``x``.
    support : object
        Map from free coordinates, such as :class:`Box`.
    """

    def __init__(self, target, support):
        super().__init__(support.n_free)
        self._target, self._support = target, support
        self.has_log_density, self.stochastic = target.has_log_density, target.stochastic
        self.is_single = target.is_single

    @property
    def width(self):
        """That of the density."""
        return self._target.width

    def gradient(self, y):
        """Gradient of the log density of y."""
        return self._pull(y, lambda x: (None, self._target.gradient(x)))[1]

    def evaluate(self, y):
        """Log density of y, or None, and gradient."""
        return self._pull(y, self._target.evaluate)

    def at_step(self, step):
        """Gradient-only evaluation for one step."""
        return lambda y: self._pull(y, self._target.at_step(step))

    def _pull(self, y, evaluate):
        """Values of x brought to y, with the log-Jacobian."""
        with torch.enable_grad():
            y = y.detach().clone().requires_grad_(True)
            x, slope = self._support(y)
            value, gradient = evaluate(x.detach())
            (pulled,) = torch.autograd.grad([x, slope], y, [gradient, torch.ones_like(slope)])
        return None if value is None else value + slope.detach(), pulled
