"""Do the draws spread as the truth does? Coverage of intervals and ranks of the truth.

Both rest on one fact: if the truth and the m draws are exchangeable, the rank of the truth among
them is uniform on its m + 1 places. The interval between the j-th smallest and the j-th largest
draw then holds the truth with probability (m + 1 - 2 j) / (m + 1), for any distribution.
"""

import math

import numpy as np
from sklearn.utils import check_random_state

from skdiffusion.metrics._cells import cell_chunks, checked_stack, scored_cells


def interval_coverage(y_true, y_draws, *, level=0.9, mask=None, corrected=True):
    r"""Share of scored cells whose truth lies in the central interval of the draws.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, ...)
        True values. NaN cells are not scored.
    y_draws : array-like of shape (n_samples, n_draws, ...)
        Draws for every cell, the draws along axis 1.
    level : float, default=0.9
        Nominal probability of the interval, in (0, 1).
    mask : array-like of bool of the shape of ``y_true``, default=None
        True for the cells to score; None scores every cell with a known truth.
    corrected : bool, default=True
        If True, a perfect sampler covers exactly ``level`` in expectation, whatever the number
        of draws. If False, the interval lies between two empirical quantiles of the draws
        (:func:`numpy.quantile`), which is too narrow: with ``level=0.9`` a perfect sampler
        covers about 0.81 with 20 draws and 0.75 with 10.

    Returns
    -------
    coverage : float
        Share of covered cells, in [0, 1]. Ties of the truth with a bound count as covered.

    Raises
    ------
    ValueError
        If shapes do not match, if no cell is left to score, if a scored cell has a draw that is
        not finite, or if there are too few draws to reach ``level`` with ``corrected=True``
        (0.9 takes 19 draws).

    See Also
    --------
    pit_values : The whole calibration instead of one level.

    Notes
    -----
    With :math:`m` draws the interval :math:`[x_{(j)}, x_{(m + 1 - j)}]` between order statistics
    has probability :math:`c_j = (m + 1 - 2 j) / (m + 1)`. The corrected coverage mixes the
    coverages of the two neighbouring intervals with :math:`c_{j+1} \le \text{level} \le c_j`
    with the weights that make the mixture of :math:`c_j` and :math:`c_{j+1}` equal to the level.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import interval_coverage
    >>> rng = np.random.default_rng(0)
    >>> y_true, y_draws = rng.normal(size=4000), rng.normal(size=(4000, 20))
    >>> round(interval_coverage(y_true, y_draws, level=0.9), 2)
    0.9
    >>> round(interval_coverage(y_true, y_draws, level=0.9, corrected=False), 2)
    0.81
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level!r}")
    y_true, scored = scored_cells(y_true, mask)
    y_draws = checked_stack(y_true, y_draws)
    chunks = cell_chunks(y_true, y_draws, scored)
    if not corrected:
        covered = sum(_between_quantiles(y, x, level).sum() for y, x in chunks)
        return float(covered / scored.sum())
    depths = _interval_depths(y_draws.shape[1], level)
    covered = sum(_between_order_statistics(y, x, depths) for y, x in chunks)
    return float(covered / scored.sum())


def coverage_curve(y_true, y_draws, levels, *, mask=None):
    """Coverage of the central interval of the draws at several nominal levels.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, ...)
        True values. NaN cells are not scored.
    y_draws : array-like of shape (n_samples, n_draws, ...)
        Draws for every cell, the draws along axis 1.
    levels : array-like of shape (n_levels,)
        Nominal probabilities, in (0, 1).
    mask : array-like of bool of the shape of ``y_true``, default=None
        True for the cells to score; None scores every cell with a known truth.

    Returns
    -------
    coverage : ndarray of shape (n_levels,)
        Share of covered cells; equal to ``levels`` for a perfect sampler.

    Raises
    ------
    ValueError
        As :func:`interval_coverage` does.

    See Also
    --------
    interval_coverage : One level, and how it is corrected for few draws.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import coverage_curve
    >>> rng = np.random.default_rng(0)
    >>> y_true, too_narrow = rng.normal(size=4000), 0.5 * rng.normal(size=(4000, 99))
    >>> coverage_curve(y_true, too_narrow, [0.5, 0.9]).round(1)
    array([0.3, 0.6])
    """
    return np.array([interval_coverage(y_true, y_draws, level=p, mask=mask) for p in levels])


def _between_quantiles(y, x, level):
    """Whether each truth lies between the empirical quantiles of its draws."""
    low, high = np.quantile(x, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return (low <= y) & (y <= high)


def _interval_depths(m, level):
    """Two neighbouring depths j and their weights: ``[(j, w), (j + 1, 1 - w)]``."""
    # The small shift undoes rounding where the level is reached exactly, as 0.9 by 19 draws.
    j = math.floor((m + 1) * (1 - level) / 2 + 1e-9)
    if j < 1:
        needed = math.ceil(2 / (1 - level) - 1e-9) - 1
        raise ValueError(
            f"level={level} cannot be reached with n_draws={m}: draw at least {needed}, "
            "or lower level"
        )
    outer = (m + 1 - 2 * j) / (m + 1)
    inner = max(0.0, (m - 1 - 2 * j) / (m + 1))  # past the median the interval is empty
    weight = (level - inner) / (outer - inner)
    return [(j, weight), (j + 1, 1 - weight)]


def _between_order_statistics(y, x, depths):
    """Weighted number of truths between the order statistics of the given depths."""
    x = np.sort(x, axis=1)
    m = x.shape[1]
    return sum(
        weight * np.count_nonzero((x[:, j - 1] <= y) & (y <= x[:, m - j]))
        for j, weight in depths
        if j <= m
    )


def pit_values(y_true, y_draws, *, mask=None, random_state=None):
    r"""Probability integral transform of the truth under the draws, by randomised ranks.

    If the truth and the draws come from the same distribution, the values are exactly uniform on
    (0, 1) for any number of draws. A histogram in the shape of a U means that the draws are too
    narrow, a hump that they are too wide, a slope that they are biased.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, ...)
        True values. NaN cells are not scored.
    y_draws : array-like of shape (n_samples, n_draws, ...)
        Draws for every cell, the draws along axis 1.
    mask : array-like of bool of the shape of ``y_true``, default=None
        True for the cells to score; None scores every cell with a known truth.
    random_state : int, RandomState instance or None, default=None
        Randomness inside the place of the truth and among ties. An int gives the same values at
        every call.

    Returns
    -------
    values : ndarray of shape (n_scored_cells,)
        One value in (0, 1) for every scored cell, in the order of ``y_true[mask]``.

    See Also
    --------
    interval_coverage : One level of calibration as a single number.

    Notes
    -----
    With :math:`m` draws and :math:`V` uniform on (0, 1)

    .. math:: u = \frac{\#\{x_i < y\} + V\,(1 + \#\{x_i = y\})}{m + 1}.

    References
    ----------
    .. [1] C. Czado, T. Gneiting and L. Held, "Predictive model assessment for count data",
       Biometrics 65, 2009, https://doi.org/10.1111/j.1541-0420.2009.01191.x.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.metrics import pit_values
    >>> y_draws = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    >>> np.floor(4 * pit_values([-1.0, 1.5], y_draws, random_state=0))
    array([0., 2.])
    """
    y_true, scored = scored_cells(y_true, mask)
    y_draws = checked_stack(y_true, y_draws)
    chunks = cell_chunks(y_true, y_draws, scored)
    below, ties = np.concatenate([_rank(y, x) for y, x in chunks], axis=1)
    # 1 - [0, 1) and the guard keep the value inside the open interval.
    place = 1 - check_random_state(random_state).uniform(size=len(below))
    return np.minimum((below + place * (1 + ties)) / (y_draws.shape[1] + 1), 1 - 2**-53)


def _rank(y, x):
    """Number of draws below and equal to each truth, shape ``(2, n_cells)``."""
    return np.stack([(x < y[:, None]).sum(axis=1), (x == y[:, None]).sum(axis=1)])
