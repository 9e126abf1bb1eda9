"""Coordinates in which a target is round, from trial draws or from the top of its hill."""

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf

from skdiffusion._random import ChainNoise, chain_keys
from skdiffusion.diffusion.langevin.tuning import roundness
from skdiffusion.diffusion.target.hilltop import hilltop
from skdiffusion.estimators.sampling._climbing import MOST_TO_CLIMB, N_CLIMBERS
from skdiffusion.estimators.sampling._coordinates import START, finite
from skdiffusion.estimators.sampling._funnels import find_non_centred
from skdiffusion.estimators.sampling._plan import N_PILOT

# A covariance is kept where it makes the target this much rounder: less is within its error.
_LEAST_GAIN = 2
# Widths, in units of Laplace's approximation, of the points about a hilltop where chains begin.
_WIDTHS = (0.5, 1.0, 2.0)
# Standard deviations of a Gaussian in one median of absolute deviations.
_OF_MAD = 1.4826
# Factor by which variances differ from those of the run before, and squares of means, where a run
# has found nothing new; and the independent draws that one chain of it is worth.
_SETTLED, _WORTH = 3.0, 4


def kept_coordinates(coordinates, first, clouds, settings, device):
    """Coordinates found, or the first ones where those do not make the target rounder.

    Parameters
    ----------
    coordinates, first : ChainCoordinates
        Coordinates found by trial runs, and those before any.
    clouds : ndarray of shape (n_draws, n_chains, n_features)
        Draws in free coordinates.
    settings : Settings
        What the user asked for: a covariance of a pilot run is kept anyhow.
    device : torch.device
        Where to evaluate.
    """
    if settings.preconditioner != "pilot" and not _is_rounder(
        coordinates, first, clouds[-1], device
    ):
        return _centred(first, clouds, device)
    return coordinates


def at_hilltop(coordinates, y, seed, device):
    """Coordinates of Laplace's approximation where they are rounder, and points about its top.

    Trial runs find what shape a density has from where their chains are, a factor of 100 a run; a
    posterior of raw columns is far off, and longer by more than that in one direction. The highest
    point of a funnel is its neck, that of two modes in the narrower one, and there is hardly any
    mass about either: coordinates of unit curvature do not make such a target rounder.
    """
    target = coordinates.target(torch.float64, device)
    if coordinates.n_free > MOST_TO_CLIMB or not target.has_log_density:
        return coordinates, y
    top, root = hilltop(target, points_in(coordinates, y, device)[:N_CLIMBERS])
    if top is None:
        return coordinates, y
    shift, root = coordinates.free(top[None])[0], coordinates.factor @ root.cpu().numpy()
    before = roundness(target, points_in(coordinates, y, device))
    first, coordinates = coordinates, coordinates.moved(shift, root)
    target = coordinates.target(torch.float64, device)
    noise = ChainNoise(chain_keys(seed, 0, len(y), device), coordinates.n_free)
    u, normal = torch.zeros(y.shape, dtype=torch.float64, device=device), noise.normal(START)
    for width in _WIDTHS:
        # Wider where that is inside the support.
        u = torch.where(finite(target, width * normal)[:, None], width * normal, u)
    if not roundness(target, u) < before / _LEAST_GAIN:
        return first, y
    return coordinates, coordinates.free(u)


def points_in(coordinates, y, device):
    """Points given in free coordinates."""
    u = coordinates.from_free(y.reshape(-1, y.shape[-1]), torch.float64, device)
    return u.reshape(y.shape)


def rounder(coordinates, cloud, last, device):
    """Coordinates with the covariance of points, and without funnels where that is a gain."""
    plain = coordinates.moved(cloud.mean(0), _shrunk_root(cloud, coordinates.factor))
    stretch = find_non_centred(cloud, len(last))
    if stretch is None:
        return plain
    straight = stretch.inverse(torch.as_tensor(cloud)).numpy()
    root = _shrunk_root(straight, np.diag(straight.std(0)))
    stretched = coordinates.moved(straight.mean(0), root, stretch)
    plainly, better = (
        roundness(c.target(torch.float64, device), c.from_free(last, torch.float64, device))
        for c in (plain, stretched)
    )
    return stretched if better < plainly / _LEAST_GAIN else plain


def is_standard(draws):
    """Whether draws have about the mean and the covariance of a standard Gaussian."""
    u = draws.flatten(0, 1)
    error = min((u.shape[1] / (_WORTH * N_PILOT)) ** 0.5, 0.9)
    variances = torch.linalg.eigvalsh(torch.cov(u.T).reshape(u.shape[1], -1))
    low, high = (1 - error) ** 2 / _SETTLED, (1 + error) ** 2 * _SETTLED
    known = (variances > low) & (variances < high)
    return bool(known.all() and (u.mean(0).square() < _SETTLED).all())


def _is_rounder(coordinates, first, y, device):
    """Whether the target is rounder in coordinates than it was in the first ones, beyond error."""
    before, after = (
        roundness(c.target(torch.float64, device), points_in(c, y, device))
        for c in (first, coordinates)
    )
    return after < before / _LEAST_GAIN


def _centred(first, clouds, device):
    """The first coordinates, about the middle of draws and as wide where they are none of these.

    Chains begin at standard normals, and where draws are not, modes hold them that no draw is in.
    One number for all axes does not stretch the target, and medians do not follow tails. The
    middle is that of pairs of draws [1]_: of two modes it is between them.

    References
    ----------
    .. [1] J. Hodges, E. Lehmann, "Estimates of location based on rank tests", Annals of
       Mathematical Statistics 1963, https://doi.org/10.1214/aoms/1177704172.
    """
    u = points_in(first, clouds, device)
    if is_standard(u):
        return first
    u = u.flatten(0, 1)
    centre = (0.5 * (u + u.roll(len(u) // 3, 0))).median(0).values
    width = float(_OF_MAD * (u - centre).abs().median(0).values.amin())
    if not 0 < width < np.inf:
        return first
    return first.moved(first.free(centre[None])[0], width * first.factor)


def _shrunk_root(cloud, factor):
    """Cholesky factor of the covariance of points, shrunk in the coordinates of a factor."""
    u = np.linalg.solve(factor, (cloud - cloud.mean(0)).T).T
    scale = np.maximum(u.std(0), 1e-9 * u.std() + 1e-300)
    correlation, _ = ledoit_wolf(u / scale, assume_centered=True)
    # The product is the factor of the covariance, where that itself may be singular by rounding.
    return factor @ (scale[:, None] * np.linalg.cholesky(correlation))
