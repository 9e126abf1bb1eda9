"""Whether correlations of a table are shrunk, by how its Gaussian foretells cells that are hidden.

Where columns tell each other exactly, as sums or lags of others do, shrinking each correlation a
little undoes it; where most tell nothing, their noise is all that is left without.
"""

import torch

from skdiffusion.diffusion.statespace.judge import normal_crps
from skdiffusion.diffusion.window.fit import completed_by, free_gaussian

# With more rows correlations are what they are; more cells cost too much.
_MOST_ROWS, _MOST_CELLS = 1000, 64
# Share of the features of a row that is hidden, and how often.
_HIDDEN, _MASKS = 0.2, 2


def shrinks(values, observed, owner):
    """Choose between a shrunk and a plain covariance for the rows of a table.

    Parameters
    ----------
    values : float64 tensor of shape (n_rows, n_cells)
        Values in standard units, anything where not observed.
    observed : bool tensor of the same shape
        Which values are observed.
    owner : int64 tensor of shape (n_cells,)
        The feature that each cell belongs to.

    Returns
    -------
    owner : tensor or None
        As given if covariances are to be shrunk, None if not.
    """
    n_rows, n_cells = values.shape
    if n_rows > _MOST_ROWS or not 1 < n_cells <= _MOST_CELLS:
        return owner
    losses = [0.0, 0.0]
    for hidden in hide_features(observed, owner, _HIDDEN, _MASKS, torch.Generator().manual_seed(0)):
        for i, own in enumerate((owner, None)):
            losses[i] += _loss(values, observed & ~hidden, hidden, own)
    return None if losses[1] < losses[0] else owner


def hide_features(observed, owner, share, n_masks, generator):
    """Cells (n_masks, n_rows, n_cells) to hide: of every row a share of its features."""
    features, place = owner.unique(return_inverse=True)
    chance = torch.rand(n_masks, len(observed), len(features), generator=generator)
    return observed & (chance < share)[..., place]


def _loss(values, shown, hidden, owner):
    """Sum of the CRPS of hidden cells by the Gaussian of what is shown."""
    gaussian = free_gaussian(values[:, None], shown[:, None], owner)
    mean, sd = completed_by(gaussian, values, shown)
    return float(normal_crps((values - mean)[hidden], sd[hidden]).sum())
