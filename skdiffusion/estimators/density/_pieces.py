"""Rows of a table in pieces, as tensors of a model."""

import numpy as np
import torch

from skdiffusion.estimators._chunks import ROWS_OF_A_PIECE


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
    # The values of a frame may be read-only, of which torch warns.
    return torch.as_tensor(np.require(values, requirements="W")).to(model.device, torch.float64)
