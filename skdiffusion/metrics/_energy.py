"""Energy score: the CRPS of whole rows, sensitive to the dependence between cells."""

import numpy as np
from scipy.spatial.distance import pdist

from skdiffusion.metrics._cells import checked_stack, require_finite, scored_cells


def energy_score(y_true, y_draws, *, mask=None, method="fair"):
    r"""Energy score of the draws of every row, averaged over the rows.

    The energy score is the multivariate form of the CRPS: draws that are right cell by cell but
    wrong in how the cells of a row move together score worse than coherent ones.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, ...)
        True values. NaN cells are not scored.
    y_draws : array-like of shape (n_samples, n_draws, ...)
        Draws for every row, the draws along axis 1.
    mask : array-like of bool of the shape of ``y_true``, default=None
        True for the cells to score; None scores every cell with a known truth.
    method : {"fair", "ensemble"}, default="fair"
        "fair" is unbiased and needs at least 2 draws; "ensemble" is the score of the empirical
        distribution of the draws, and of a point prediction when there is one draw.

    Returns
    -------
    score : float
        Mean over the rows with at least one scored cell, in the units of ``y_true``; smaller is
        better.

    Raises
    ------
    ValueError
        If shapes do not match, if no cell is left to score, if a scored cell has a draw that is
        not finite, or if ``method="fair"`` is given a single draw.

    See Also
    --------
    crps_loss : Scores every cell on its own.

    Notes
    -----
    For a row with :math:`d` scored cells :math:`y` and draws :math:`x_1, \dots, x_m` of them

    .. math:: \mathrm{ES} = \frac{1}{\sqrt d} \Big( \frac1m \sum_i \|x_i - y\|
              - \frac{1}{2 c} \sum_{i,j} \|x_i - x_j\| \Big),

    with Euclidean norms, :math:`c = m (m - 1)` for "fair" and :math:`c = m^2` for "ensemble".
    Dividing by :math:`\sqrt d` makes rows of different size comparable; a row of one cell has
    its CRPS. Cells of large units dominate: standardise first.

    The distances within one row need memory in proportion to
    :math:`m^2 + m d`; rows are visited one after the other.

    References
    ----------
    .. [1] T. Gneiting and A. E. Raftery, "Strictly proper scoring rules, prediction, and
       estimation", Journal of the American Statistical Association 102, 2007,
       https://doi.org/10.1198/016214506000001437.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import energy_score
    >>> y_true = np.zeros((1, 2))
    >>> y_draws = np.array([[[3.0, 4.0], [-3.0, -4.0], [3.0, -4.0]]])
    >>> round(energy_score(y_true, y_draws), 4)
    0.7071
    """
    if method not in ("fair", "ensemble"):
        raise ValueError(f'method must be "fair" or "ensemble", got {method!r}')
    y_true, scored = scored_cells(y_true, mask)
    y_draws = checked_stack(y_true, y_draws)
    m = y_draws.shape[1]
    if method == "fair" and m < 2:
        raise ValueError(
            'method="fair" needs at least 2 draws, got n_draws=1; draw more, or use '
            'method="ensemble" for a point prediction'
        )
    n_pairs = m * (m - 1) if method == "fair" else m**2
    rows = np.flatnonzero(scored.reshape(len(scored), -1).any(axis=1))
    return float(np.mean([_row_score(y_true[i], y_draws[i], scored[i], n_pairs) for i in rows]))


def _row_score(y, draws, scored, n_pairs):
    """Energy score of one row over its scored cells."""
    x = require_finite(draws[:, scored].astype(float), "y_draws") - y[scored]
    x = x.reshape(len(x), -1)
    distance_to_truth = np.sqrt(np.square(x).sum(axis=1)).mean()
    # pdist holds every pair once, the double sum twice: the half cancels.
    return (distance_to_truth - pdist(x).sum() / n_pairs) / np.sqrt(x.shape[1])
