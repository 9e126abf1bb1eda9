"""Noise of rows, which depends on what is in a row and not on its place or the other rows."""

import torch
from scipy.special import ndtr

from skdiffusion._device import require_memory
from skdiffusion._random import draw_seed, normals, row_keys

# Numbers of the streams: levels and normals of a bound, and what spreads discrete columns.
_LEVELS, _NOISE, _SPREADING = 0, 1, 2


def spreading(codes, discrete, seed):
    """Uniforms for discrete columns that depend on a row's content alone, not on its place.

    Parameters
    ----------
    codes : float64 ndarray of shape (n_samples, n_features)
        Numbers and codes.
    discrete : dict of int to Grid or Category
        The discrete columns.
    seed : int
        Seed of the noise.

    Returns
    -------
    uniforms : ndarray of shape (n_samples, n_discrete) or None
        Uniforms in (0, 1) in the order of the columns; None where none is discrete.
    """
    if not discrete:
        return None
    keys = row_keys(codes, seed)[:, None]
    columns = torch.tensor(sorted(discrete))
    return ndtr(normals(keys, 0, _SPREADING, columns, torch.float64).numpy())


def noise_keys(rows, n_draws, random_state):
    """Keys of noise that depends on a row's content only, not on its place."""
    require_memory(n_draws * len(rows), f"n_draws={n_draws}", "lower it, or pass fewer rows")
    return row_keys(rows.cpu().numpy(), draw_seed(random_state))


def noise_of(keys, n_draws, rows):
    """Uniforms (n_samples, n_draws) and function of the normals of rows with these keys."""
    keys, cells = keys[:, None], torch.arange(rows.shape[1])
    levels = normals(keys, torch.arange(n_draws), _LEVELS, 0, torch.float64)

    def noise(i):
        return normals(keys, i, _NOISE, cells, torch.float64).to(rows)

    return torch.special.ndtr(levels).to(rows), noise
