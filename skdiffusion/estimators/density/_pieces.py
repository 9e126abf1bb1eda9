"""Rows of a table in pieces, as tensors of a model, and the noise that belongs to them."""

import numpy as np
import torch

from skdiffusion._device import require_memory
from skdiffusion._random import draw_seed, normals, row_keys
from skdiffusion.estimators._chunks import ROWS_OF_A_PIECE

# Numbers of the streams of noise of a bound.
_LEVELS, _NOISE = 0, 1


def pieces_of(coordinates, codes, uniforms):
    """Slices of a table, their rows in the coordinates of the model, and the log-determinants."""
    for i in range(0, len(codes), ROWS_OF_A_PIECE):
        piece = slice(i, i + ROWS_OF_A_PIECE)
        noise = None if uniforms is None else uniforms[piece]
        yield piece, *coordinates.forward(codes[piece], noise)


def is_noisy(density):
    """Whether the answers of some rows have noise."""
    return bool(density.coordinates_.discrete) or density.__sklearn_tags__().input_tags.allow_nan


def with_noise(codes, density):
    """Rows whose answers have noise: all where columns are discrete, else those with gaps."""
    return codes if density.coordinates_.discrete else codes[np.isnan(codes).any(axis=1)]


def tensor_for(values, model):
    """Float64 tensor on the device of a model."""
    return torch.as_tensor(values).to(model.device, torch.float64)


def row_noise(rows, n_draws, random_state):
    """Uniforms and normals that depend on a row's content only, not on its place."""
    require_memory(n_draws * len(rows), f"n_draws={n_draws}", "lower it, or pass fewer rows")
    keys = row_keys(rows.cpu().numpy(), draw_seed(random_state))[:, None]
    levels = normals(keys, torch.arange(n_draws), _LEVELS, 0, torch.float64)
    cells = torch.arange(rows.shape[1])

    def noise(i):
        return normals(keys, i, _NOISE, cells, torch.float64).to(rows)

    return torch.special.ndtr(levels).to(rows), noise
