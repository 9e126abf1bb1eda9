r"""The top of a hill of a log density, and the shape of the hill there.

Newton's steps for ``-log p`` do not depend on the coordinates: a regression on raw columns, whose
posterior is a thousand times longer in one direction than in another and lies far from 0, is as
easy for them as one on standardised columns. The Hessian is taken by differences of the gradient,
and its negative eigenvalues count by their size, so that saddles are left [1]_. At the top its
inverse is the covariance of Laplace's approximation.

References
----------
.. [1] Y. Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional
   non-convex optimization", NeurIPS 2014, https://arxiv.org/abs/1406.2572.
"""

import torch

from skdiffusion.diffusion.target.checks import rounded_away

# Steps at most. A scale that is wrong by a factor of e^10 takes some ten.
_N_STEPS = 40
# Lengths tried in units of Newton's step.
_LENGTHS = 2.0 ** torch.tensor([3.0, 2, 1, 0, -1, -2, -4, -6, -9, -12], dtype=torch.float64)
# Width of differences, in units of the place, where gradients are of double and single precision.
_WIDTH, _SINGLE_WIDTH = 1e-5, 1e-3
# Height in nats below the top at which a point has arrived.
_ARRIVED = 1e-3
# Squared distance, in deviations of Laplace's approximation, up to which tops are one.
_SAME = 0.1
# Share of the points that must lead to the top, and how far below it others may be, in nats, that
# come to rest elsewhere or nowhere: far out densities have plateaus without mass.
_MOST, _LOW = 0.5, 10.0
# Points about a top that a single way leads to, and how much faster or slower than from that of a
# Gaussian a density may fall to them.
_N_AROUND, _AS_WIDE = 32, 4.0
# Smallest curvature in units of the largest, both of coordinates of unit curvature.
_FLAT = 1e-12


def hilltop(target, x):
    """The hill that points lead up to.

    Parameters
    ----------
    target : Target
        Target with a log density.
    x : float64 tensor of shape (n_points, n_features)
        Where to begin.

    Returns
    -------
    top : tensor of shape (n_features,)
        Its top; None where points come to rest at several places, or at none.
    root : tensor of shape (n_features, n_features)
        ``L`` with ``L L'`` the inverse of minus the Hessian there; None without a top.

    Notes
    -----
    Where fewer than half of the points come to rest the way from the origin decides: in a
    regression with a log link on raw columns any other coefficients overflow, or fit nothing.
    """
    with torch.no_grad():
        ways = led_up(target, x)
        if bool(ways[2].double().mean() < _MOST):
            top, root = _agreed(target, *led_up(target, torch.zeros_like(x[:1])))
            return (top, root) if _is_as_wide(target, top, root) else (None, None)
        return _agreed(target, *ways)


def _is_as_wide(target, top, root):
    """Whether a density falls from its top as a Gaussian of this shape, about, and is no edge."""
    if top is None:
        return False
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn((_N_AROUND, len(top)), generator=generator, dtype=top.dtype).to(top)
    height = target.evaluate(torch.cat([top[None], top + normal @ root.T]))[0]
    fall = (height[0] - height[1:]) / (0.5 * normal.square().sum(1))
    return bool(1 / _AS_WIDE < fall.median() < _AS_WIDE)


def led_up(target, x):
    """Lead points up by Newton's steps.

    Parameters
    ----------
    target, x : object
        As for :func:`hilltop`.

    Returns
    -------
    x : tensor of shape (n_points, n_features)
        Where they ended.
    height : tensor of shape (n_points,)
        Log density one step before.
    arrived : bool tensor of shape (n_points,)
        Which are at a top, and not at an accident of rounding.
    """
    x, climbing = x.clone(), torch.ones(len(x), dtype=torch.bool, device=x.device)
    height = torch.full_like(x[:, 0], -torch.inf)
    with torch.no_grad():
        for _ in range(_N_STEPS):
            moved, height[climbing], arrived = _step(target, x[climbing])
            x[climbing] = moved
            climbing[climbing.clone()] = ~arrived
            if not bool(climbing.any()):
                break
        arrived = ~climbing & ~rounded_away(target, x)
    return x, height, arrived


def _step(target, x):
    """Points after a step, how high they were before it, and which of them had arrived."""
    value, gradient = target.evaluate(x)
    sizes, axes = _curvatures(target, x)
    slope = (axes.mT @ gradient[..., None])[..., 0]
    step = slope / sizes.abs().clamp(min=_FLAT)
    arrived = ((slope * step).sum(1) < 2 * _ARRIVED) & (sizes > _FLAT).all(1)
    return _best_on_way(target, x, value, (axes @ step[..., None])[..., 0]), value, arrived


def _curvatures(target, x):
    """Eigenvalues and, as columns, axes of minus the Hessian, in coordinates of unit curvature."""
    (n, d), eye = x.shape, torch.eye(x.shape[1]).to(x)
    width = (_SINGLE_WIDTH if target.is_single else _WIDTH) * (1 + x.abs())
    # Central differences: along a ridge, curvature is what is left of much larger ones.
    sides = torch.stack([x[:, None] + sign * width[..., None] * eye for sign in (1, -1)])
    up, down = target.evaluate(sides.reshape(2 * n * d, d))[1].reshape(2, n, d, d)
    hessian = ((down - up) / (2 * width[..., None])).nan_to_num(0.0, 0.0, 0.0)
    hessian = 0.5 * (hessian + hessian.mT)
    unit = hessian.diagonal(dim1=1, dim2=2).abs().clamp(min=1e-300).rsqrt()
    sizes, axes = torch.linalg.eigh(unit[:, None] * hessian * unit[..., None])
    return sizes, unit[..., None] * axes


def _best_on_way(target, x, value, step):
    """The highest point on the way of a step, or where it began."""
    lengths = _LENGTHS.to(x)
    trial = x + lengths[:, None, None] * step
    found = target.evaluate(trial.flatten(0, 1))[0].reshape(trial.shape[:2])
    best, i = torch.where(torch.isfinite(found), found, -torch.inf).max(0)
    moved = trial[i, torch.arange(len(x), device=x.device)]
    return torch.where((best > value)[:, None], moved, x)


def _agreed(target, x, height, arrived):
    """Top and root of the highest hill, if most points lead there and no other is near as high."""
    if not bool(arrived.any()):
        return None, None
    top = x[torch.where(arrived, height, -torch.inf).argmax()]
    root = shape_at(target, top)
    if root is None:
        return None, None
    same = arrived & is_at(x, top, root)
    rivals = ~same & (height > height[same].max() - _LOW)
    if bool(same.double().mean() < _MOST) or bool(rivals.any()):
        return None, None
    return top, root


def is_at(x, top, root):
    """Whether points are at a top, for a hill of this shape."""
    return torch.linalg.solve(root, (x - top).T).square().sum(0) < _SAME


def shape_at(target, top, flat=_FLAT):
    """Shape of a hill at its top.

    Parameters
    ----------
    target : Target
        Target with a log density.
    top : tensor of shape (n_features,)
        The top.
    flat : float, default=1e-12
        Smallest curvature in units of the largest, both of coordinates of unit curvature.

    Returns
    -------
    root : tensor of shape (n_features, n_features) or None
        ``L`` with ``L L'`` the inverse of minus the Hessian; None where it is flat or no top.
    """
    sizes, axes = _curvatures(target, top[None])
    return axes[0] * sizes[0].rsqrt() if bool((sizes[0] > flat).all()) else None
