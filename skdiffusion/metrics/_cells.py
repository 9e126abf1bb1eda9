"""Which cells are scored, and walking over their draws in bounded memory.

Letters: ``y`` the truth of any shape ``(n_samples, ...)``, ``m`` draws of every cell stored along
axis 1, ``(n_samples, m, ...)``. A cell is scored when the mask says so and its truth is known.
"""

import numpy as np

# Numbers held at once by the temporary arrays of a metric: 8 MB in float64.
CHUNK_NUMBERS = 2**20


def as_real(values, name):
    """Array of a real numeric dtype; object columns become float64, complex numbers are refused."""
    values = np.asarray(values)
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {values.dtype}")
    if values.dtype.kind in "fiub":
        return values
    try:
        return values.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error


def scored_cells(y_true, mask=None):
    """Return the truth as float64 and the boolean array of the cells that count."""
    y_true = as_real(y_true, "y_true").astype(float)
    if y_true.ndim == 0:
        raise ValueError("y_true must be an array of shape (n_samples, ...), got a single number")
    scored = ~np.isnan(y_true) & _checked_mask(mask, y_true.shape)
    if not scored.any():
        raise ValueError(
            "no cell left to score: every cell of y_true is NaN or excluded by mask; "
            "pass the true values as y_true and True in mask where they are to be scored"
        )
    if np.isinf(y_true[scored]).any():
        raise ValueError("y_true contains infinity; exclude these cells by mask")
    return y_true, scored


def _checked_mask(mask, shape):
    """Boolean mask of the given shape, all True for None."""
    if mask is None:
        return np.ones(shape, dtype=bool)
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise ValueError(f"mask must be boolean (True: score the cell), got dtype {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"mask has shape {mask.shape}, y_true has shape {shape}")
    return mask


def checked_stack(y_true, y_stack, name="y_draws", axis_name="n_draws"):
    """Array of shape ``(n_samples, m, ...)`` matching ``y_true`` of shape ``(n_samples, ...)``."""
    y_stack = as_real(y_stack, name)
    matches = (
        y_stack.ndim == y_true.ndim + 1
        and y_stack.shape[:1] + y_stack.shape[2:] == y_true.shape
        and y_stack.shape[1] > 0
    )
    if matches:
        return y_stack
    expected = ", ".join(map(str, (y_true.shape[0], axis_name) + y_true.shape[1:]))
    hint = (
        f"; one {axis_name[2:-1]} only: pass {name}[:, None]"
        if y_stack.shape == y_true.shape
        else ""
    )
    raise ValueError(f"{name} must have shape ({expected}), got {y_stack.shape}{hint}")


def checked_prediction(y_true, y_pred, scored):
    """Predictions of the shape of ``y_true``, finite where they are scored."""
    y_pred = as_real(y_pred, "y_pred")
    if y_pred.shape != y_true.shape:
        raise ValueError(
            f"y_pred has shape {y_pred.shape}, y_true has shape {y_true.shape}; reduce draws "
            "to one prediction first, for example by their median over axis 1"
        )
    return require_finite(y_pred[scored].astype(float), "y_pred")


def require_finite(values, name):
    """Return ``values``; raise if a scored one is NaN or infinite."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} contains NaN or infinity at cells that are scored; "
            "exclude these cells by mask or predict them"
        )
    return values


def cell_chunks(y_true, y_stack, scored, name="y_draws", numbers_per_cell=None):
    """Yield truths ``(k,)`` and stacks ``(k, m)`` in float64, ``k`` bounded by the memory limit."""
    by_cell = np.moveaxis(y_stack, 1, -1)
    cells = np.nonzero(scored)
    size = max(1, CHUNK_NUMBERS // (numbers_per_cell or y_stack.shape[1]))
    for first in range(0, len(cells[0]), size):
        chunk = tuple(index[first : first + size] for index in cells)
        yield y_true[chunk], require_finite(by_cell[chunk].astype(float), name)
