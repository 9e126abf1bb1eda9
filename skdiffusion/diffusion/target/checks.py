"""Questions put to a target where chains are: what no trace of a chain can tell.

Letters. ``x`` are points, ``g`` the gradient of the log density ``p`` there. All of these hold for
any density that can be normalised and has no jumps, so that an answer that is off names a fault of
the target or of the draws, whatever the shape of the density.

* Stein's identity [1]_: ``E[-(x_j - c) g_j] = 1`` for every feature and any ``c``. Integration by
  parts gives it, and draws from elsewhere, jumps, walls and wrong gradients break it.
* Slopes by differences of the log density are those of the gradient, and a field is a gradient
  only where its Jacobian is symmetric.
* Along a ray a density that falls as ``r**-a`` can be normalised for ``a > 1`` and has a variance
  for ``a > 3``; on the rays of all directions together for ``a > d`` and ``a > d + 2``.

References
----------
.. [1] J. Gorham, L. Mackey, "Measuring sample quality with Stein's method", NeurIPS 2015,
   https://arxiv.org/abs/1506.03039.
"""

import math

import torch

# Widths of differences, the first at which two of them agree counts: small ones suit double
# precision and steep densities, large ones functions that compute in single precision.
_WIDTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
# Steps of the differences that show rounding, in units of the directions: so short that a smooth
# function changes by less than 10^-10 in the fourth difference, and long enough to move numbers of
# single precision that are a thousand times as large.
_SHORT = 1e-3
# Standard deviation of a fourth difference in units of that of its terms, the root of
# 1 + 16 + 36 + 16 + 1, and the median of the absolute value of a standard normal.
_FOURTH, _MEDIAN = 70**0.5, 0.6745
# Errors of a value that a difference must exceed to be no chance.
_SURE = 4.0
# How well differences must agree with each other to count, and how far gradients may be off.
_CLEAR, _OFF = 0.02, 0.1
# Nats up to which two sums along a segment must agree.
_EXACT = 0.1
# How far out tails are looked at, in units of the rays, and how much lower than a power of it the
# density may lie there, in nats: far below, no chain ever comes.
_FAR, _SLACK = 1e3, 10.0
# Where the slope of a tail is compared with the next value of it.
_FURTHER = 1.01
# A few units in the last place of double precision, and the part of a value by which it may change
# over them.
_LAST, _PART = 4e-15, 1e-9


def stein(x, gradient):
    """Terms of Stein's identity, whose expectation is 1.

    Parameters
    ----------
    x : tensor of shape (n_draws, n_chains, n_features)
        Draws.
    gradient : tensor of the same shape
        Gradients of the log density.

    Returns
    -------
    terms : tensor of shape (n_chains, n_features + 1)
        Averages over the draws of each chain, the last column over the features, too.
    """
    centre = x.flatten(0, 1).median(0).values
    terms = -((x - centre) * gradient).mean(0)
    return torch.cat([terms, terms.mean(1, keepdim=True)], 1)


def value_noise(function, x, direction):
    """Standard deviation of the rounding errors of a function of points.

    A smooth function has fourth differences next to nothing over short ways; what is seen there
    are errors that are independent from point to point [1]_.

    Parameters
    ----------
    function : callable
        ``function(x)`` of shape (n_points, ...).
    x, direction : tensor of shape (n_points, n_features)
        Points, and steps as long as the function varies there.

    Returns
    -------
    noise : float
        The median over the points; 0 where it is not finite at most of them.

    References
    ----------
    .. [1] J. Moré, S. Wild, "Estimating computational noise", SIAM J. Sci. Comput. 2011,
       https://doi.org/10.1137/100786125.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion.diffusion.target.checks import value_noise
    >>> x = torch.linspace(1, 2, 100, dtype=torch.float64)[:, None]
    >>> single = lambda x: (1000 + x.sum(1)).float().double()
    >>> value_noise(lambda x: x.sum(1), x, x) < 1e-14, 1e-5 < value_noise(single, x, x) < 1e-4
    (True, True)
    """
    values = torch.stack([function(x + _SHORT * k * direction) for k in range(5)])
    fourth = values.double().diff(n=4, dim=0).abs()
    fourth = fourth[torch.isfinite(fourth)]
    return float(fourth.median()) / (_MEDIAN * _FOURTH) if len(fourth) else 0.0


def rounded_away(target, x):
    """Whether log densities at points are more rounding than value.

    Parameters
    ----------
    target : Target
        Target with a log density.
    x : tensor of shape (n_points, n_features)
        Points.

    Returns
    -------
    rounded : bool tensor of shape (n_points,)
        Where values a few units in the last place of ``x`` apart differ by more than a nat, as
        those of sums of huge terms that cancel: what looks like a peak there is none.
    """
    if x.dtype != torch.float64 or target.is_single:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    with torch.no_grad():
        places = [x + k * _LAST * (1 + x.abs()) for k in range(5)]
        values = torch.stack([target.evaluate(place)[0] for place in places])
    error = values.amax(0) - values.amin(0)
    # A steep slope changes a value by a part of it that is no larger than that of the place.
    return torch.isfinite(values).all(0) & (error > 1.0) & (error > _PART * values[0].abs())


def wrong_slopes(target, x, noise=0.0):
    """Points at which the gradient is not the slope of the log density.

    Parameters
    ----------
    target : Target
        Target with a log density.
    x : tensor of shape (n_points, n_features)
        Points; the slope of point ``i`` is that along feature ``i % n_features``.
    noise : float, default=0.0
        Standard deviation of the errors of the log density.

    Returns
    -------
    wrong, clear : bool tensor of shape (n_points,)
        Where they differ, and where differences say what the slope is.
    """
    direction = _axes(x)
    gradient = target.evaluate(x)[1]
    slope = (gradient * direction).sum(1)
    least = 0.01 * gradient.norm(dim=1)
    value = lambda y: target.evaluate(y)[0]  # noqa: E731
    change = lambda w: value(x + w * direction) - value(x - w * direction)  # noqa: E731
    return _compare(lambda w: slope, least, change, noise)


def wrong_curls(target, x):
    """Points at which the Jacobian of a field is not symmetric: it is the gradient of nothing.

    Parameters
    ----------
    target : Target
        Target with at least two features.
    x : tensor of shape (n_points, n_features)
        Points.

    Returns
    -------
    wrong, clear : bool tensor of shape (n_points,)
        Where it is not symmetric, and where differences say what it is.
    """
    a, b = _axes(x), _axes(x).roll(1, 1)
    change = lambda v, w: target.gradient(x + w * v) - target.gradient(x - w * v)  # noqa: E731
    least = 0.01 * change(a, _SHORT).norm(dim=1) / (2 * _SHORT)
    other = lambda w: (change(a, w) * b).sum(1) / (2 * w)  # noqa: E731
    noise = value_noise(target.gradient, x, a)
    return _compare(other, least, lambda w: (change(b, w) * a).sum(1), noise)


def jumps(target, x, offset, n_parts=64):
    """Nats by which the log density changes along segments beyond what its gradient tells.

    Parameters
    ----------
    target : Target
        Target with a log density.
    x, offset : tensor of shape (n_segments, n_features)
        Beginnings of the segments, and the way to their ends.
    n_parts : int, default=64
        Points at which the gradient is summed up along a segment.

    Returns
    -------
    jump : tensor of shape (n_segments,)
        The excess; not a number where the sum is not exact enough to tell.
    """
    share = torch.linspace(0, 1, n_parts + 1).to(x)[:, None, None]
    points = (x + share * offset).flatten(0, 1)
    slope = (target.evaluate(points)[1].reshape(n_parts + 1, *x.shape) * offset).sum(2)
    fine, coarse = (torch.trapezoid(s, dim=0) / (len(s) - 1) for s in (slope, slope[::2]))
    excess = target.evaluate(x + offset)[0] - target.evaluate(x)[0] - fine
    told = torch.isfinite(excess) & ((fine - coarse).abs() < _EXACT)
    return excess.masked_fill(~told, math.nan)


def _axes(x):
    """One axis a point, in turn."""
    return torch.eye(x.shape[1]).to(x)[torch.arange(len(x), device=x.device) % x.shape[1]]


def _compare(slope, least, difference, noise):
    """Where central differences disagree with a slope, and where they tell.

    The slope may depend on the width; noise is the standard deviation of the errors of what the
    differences are taken of, by which two of them can agree by chance.
    """
    clear = torch.zeros_like(least, dtype=torch.bool)
    wrong = clear.clone()
    for width in _WIDTHS:
        known = slope(width)
        coarse, fine = difference(2 * width) / (4 * width), difference(width) / (2 * width)
        size = fine.abs() + known.abs() + least
        tells = torch.isfinite(size) & ((coarse - fine).abs() < _CLEAR * size) & ~clear
        tells &= _SURE * noise / width < _CLEAR * size
        wrong |= tells & ((fine - known).abs() > _OFF * size)
        clear |= tells
    return wrong, clear


def tail_powers(target, x, rays):
    """Powers by which a density falls along rays, far out.

    Parameters
    ----------
    target : Target
        Target with a log density.
    x : tensor of shape (n_points, n_features)
        Points where the density has mass.
    rays : tensor of shape (n_points, n_features)
        Directions, each as long as the density is wide there.

    Returns
    -------
    powers : tensor of shape (n_points,)
        ``a`` where the density falls as ``r**-a``; infinite where it falls faster than a power
        or is not known.
    """
    value, gradient = target.evaluate(x + _FAR * rays)
    power = -_FAR * (gradient * rays).sum(1)
    # Far out huge terms cancel in the value and not in the gradient, which then tells nothing.
    change = value - target.evaluate(x + _FURTHER * _FAR * rays)[0] - power * math.log(_FURTHER)
    told = change.abs() <= 1 + 0.5 * (power * math.log(_FURTHER)).abs()
    fall = target.evaluate(x)[0] - value
    is_power = told & torch.isfinite(power) & (fall < power.clamp(min=0) * math.log(_FAR) + _SLACK)
    return power.masked_fill(~is_power, math.inf)


def climb(target, x, level, n_steps=80):
    """Lead points uphill until the log density is as high as where chains are.

    Parameters
    ----------
    target : Target
        Target with a log density.
    x : tensor of shape (n_points, n_features)
        Points, anywhere.
    level : float
        Log density to reach.
    n_steps : int, default=80
        Steps along the gradient at most, each longer than the last one as long as it leads up.

    Returns
    -------
    x : tensor of shape (n_points, n_features)
        Where the climb ended.
    arrived : bool tensor of shape (n_points,)
        Which points reached the level: where a lower hill ends, hardly any mass is.
    """
    value, gradient = target.evaluate(x)
    length = 0.1 * (x - x.mean(0)).norm(dim=1, keepdim=True)
    for _ in range(n_steps):
        arrived = value >= level
        if arrived.all():
            break
        unit = torch.nan_to_num(gradient / gradient.norm(dim=1, keepdim=True))
        trial = x + length * unit
        new, slope = target.evaluate(trial)
        better = (new > value) & torch.isfinite(slope).all(1) & ~arrived
        x = torch.where(better[:, None], trial, x)
        gradient = torch.where(better[:, None], slope, gradient)
        value = torch.where(better, new, value)
        length = length * torch.where(better, 2.0, 0.25)[:, None]
    return x, value >= level
