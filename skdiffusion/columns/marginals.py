"""Columns one at a time: smooth monotone maps that make each of them nearly normal.

A column with distribution function ``F`` and density ``f`` is mapped to ``y = Phi^{-1}(F(x))``, so
that ``log |dy/dx| = log f(x) - log phi(y)``. Spikes, gaps, grids of values and hard ends of a
column, which a mixture of normals cannot follow, are then in ``F``, and what is left to learn is
how the columns hang together.

``f`` is a histogram with bins of unequal width, a density tree in one dimension [1]_: the range of
the data is cut where the cut gains most log-likelihood, again and again, while a cut gains more
than a fixed number of nats. Beyond the data lie tails ``P(beyond by u) = t (1 + u / tau)**-2``,
which joins the map of the last bin without a gap in ``F``.

A mixture fitted to the mapped rows has columns that are nearly, not quite, normal. The map can
therefore be aimed at a mixture: ``y = G^{-1}(F(x))`` with the distribution function ``G`` of the
column under that mixture. Then draws have exactly the histograms as columns, and of the mixture
only the copula counts [2]_,

    log p(x) = log p_y(y) + sum_j [log f_j(x_j) - log g_j(y_j)].

A mixture in the original units is a good target too: ``y`` is then close to ``x``, smoothed.

References
----------
.. [1] P. Ram, A. Gray, "Density estimation trees", KDD 2011,
   https://doi.org/10.1145/2020408.2020507.
.. [2] A. Tewari, M. Giering, A. Raghunathan, "Parametric characterization of multimodal
   distributions with non-Gaussian modes", ICDM workshops 2011,
   https://doi.org/10.1109/ICDMW.2011.135.
"""

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from skdiffusion.columns.spline import MonotoneSpline

# Gain in nats that pays for a cut: the best of some hundred places gains log(100) = 4.6 by chance
# at most. Rows of a bin at least: one would be a peak of its own.
_MIN_GAIN, _MIN_ROWS = 4.0, 2
# Rows' worth of mass in each tail: half of a row is the median rank of a new extreme. The power 2
# keeps the mean of a tail finite and its density above that of any exponential one.
_TAIL_ROWS, _TAIL_POWER = 0.5, 2.0
# Draws go so many units of a tail beyond its beginning: a hundredth of its mass is further out.
_FURTHEST_DRAW = 10.0
LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)
# Knots of the map to a mixture: so many standard deviations about each component, so many at most,
# so far apart in normal scores at least.
_KNOTS, _MAX_KNOTS, _MIN_GAP = np.linspace(-5, 5, 11), 400, 1e-6
# Between components far apart the slope would vanish; exp(-30) is above what float64 resolves.
_MIN_LOG_SLOPE = -30.0


class Histogram:
    """Density of one column: bins of unequal width and heavy tails.

    Parameters
    ----------
    values : ndarray of shape (n_samples,)
        The column.
    """

    def __init__(self, values):
        values = np.sort(values)
        self.knots, counts = _cut(values)
        widths, total = np.diff(self.knots), len(values) + 2 * _TAIL_ROWS
        self.tail = _TAIL_ROWS / total
        self.density = counts / total / widths
        self.cumulative = self.tail + np.append(0.0, np.cumsum(counts / total))
        # A tail starts with the density of the mean distance between the rows of its bin.
        self.reach = _TAIL_POWER * (widths / counts)[[0, -1]]

    def forward(self, x):
        """Normal scores of values, and the slope and log-density that belong to them.

        Parameters
        ----------
        x : ndarray of shape (n_samples,)
            Values.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            ``Phi^{-1}(F(x))``.
        log_density : ndarray of shape (n_samples,)
            ``log f(x)``.
        log_density_slope : ndarray of shape (n_samples,)
            ``d log f / dx``, which is zero inside the bins.
        """
        bins = np.clip(np.searchsorted(self.knots, x, side="right") - 1, 0, len(self.density) - 1)
        y = ndtri(self.cumulative[bins] + (x - self.knots[bins]) * self.density[bins])
        log_density = np.log(self.density[bins])
        slope = np.zeros_like(y)
        for sign, knot, reach in zip((-1, 1), self.knots[[0, -1]], self.reach, strict=True):
            out = sign * (x - knot) > 0
            far = 1 + sign * (x[out] - knot) / reach
            y[out] = -sign * ndtri(self.tail * far**-_TAIL_POWER)
            peak = np.log(self.tail * _TAIL_POWER / reach)
            log_density[out] = peak - (_TAIL_POWER + 1) * np.log(far)
            slope[out] = -sign * (_TAIL_POWER + 1) / (reach * far)
        return y, log_density, slope

    def inverse(self, y):
        """Values of normal scores.

        Parameters
        ----------
        y : ndarray of shape (n_samples,)
            Normal scores.

        Returns
        -------
        x : ndarray of shape (n_samples,)
            ``F^{-1}(Phi(y))``.
        """
        p = ndtr(y)
        bins = np.searchsorted(self.cumulative, p, side="right") - 1
        bins = np.clip(bins, 0, len(self.density) - 1)
        x = self.knots[bins] + (p - self.cumulative[bins]) / self.density[bins]
        for sign, knot, reach in zip((-1, 1), self.knots[[0, -1]], self.reach, strict=True):
            beyond = np.maximum(ndtr(-sign * y), 1e-300)
            out = beyond < self.tail
            far = (beyond[out] / self.tail) ** (-1 / _TAIL_POWER)
            x[out] = knot + sign * reach * (far - 1)
        return x


class Marginals:
    """One map a column; columns without one stay as they are.

    Parameters
    ----------
    histograms : dict of int to Histogram
        Distribution functions by column.
    targets : dict of int to MonotoneSpline, optional
        Maps from the columns of a density to normal scores; columns without one become normal.
    """

    def __init__(self, histograms, targets=None):
        self.histograms = histograms
        self.targets = {} if targets is None else targets

    def aimed_at(self, density):
        """Return the maps that give the columns the distribution that they have under a density.

        Parameters
        ----------
        density : Mixture
            Mixture of the mapped rows.

        Returns
        -------
        marginals : Marginals
            The maps.
        """
        weights, means, deviations = (part.cpu().numpy() for part in density.marginals())
        targets = {
            j: _normal_scores(weights, means[:, j], deviations[:, j]) for j in self.histograms
        }
        return Marginals(self.histograms, targets)

    def forward(self, rows):
        """Map rows; missing values stay missing.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        latent : ndarray of shape (n_samples, n_features)
            Mapped rows.
        log_jacobian : ndarray of shape (n_samples,)
            Log-determinant of the map at the rows; of the columns that are there.
        """
        latent, log_jacobian = rows.copy(), np.zeros(len(rows))
        for column in self.histograms:
            latent[:, column], log_slope, _ = self._map(column, rows[:, column])
            log_jacobian += np.where(np.isnan(rows[:, column]), 0.0, log_slope)
        return latent, log_jacobian

    def slopes(self, rows):
        """Derivatives of the map and of the log-determinant.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        slope : ndarray of shape (n_samples, n_features)
            ``dy/dx`` of every column.
        log_jacobian_slope : ndarray of shape (n_samples, n_features)
            Gradient of the log-determinant.
        """
        slope, log_jacobian_slope = np.ones_like(rows), np.zeros_like(rows)
        for column in self.histograms:
            _, log_slope, log_jacobian_slope[:, column] = self._map(column, rows[:, column])
            slope[:, column] = np.exp(log_slope)
        return slope, log_jacobian_slope

    def inverse(self, latent):
        """Map latent rows back.

        Parameters
        ----------
        latent : ndarray of shape (n_samples, n_features)
            Mapped rows.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features)
            Rows.
        """
        rows = latent.copy()
        for column, histogram in self.histograms.items():
            y = latent[:, column]
            if column in self.targets:
                y = self.targets[column].forward(y)[0]
            rows[:, column] = histogram.inverse(y)
        return rows

    def limits(self, n_features):
        """Least and largest values (2, n_features) that draws of the columns may have.

        A tail that a density has for rows from far out, a model of columns that depend on each
        other draws from too often: its scores of 8 are no rarer than e^-8, and their values a
        million times as far out as the data.
        """
        limits = np.array([[-np.inf], [np.inf]]).repeat(n_features, 1)
        for column, histogram in self.histograms.items():
            beyond = (_FURTHEST_DRAW - 1) * histogram.reach
            limits[:, column] = histogram.knots[[0, -1]] + [-beyond[0], beyond[1]]
        return limits

    def _map(self, column, x):
        """Mapped values of a column, the log of the map's slope and the derivative of that log."""
        y, log_density, change = self.histograms[column].forward(x)
        log_slope = log_density + 0.5 * y**2 + LOG_ROOT_2PI
        change = change + y * np.exp(log_slope)
        if column not in self.targets:
            return y, log_slope, change
        target = self.targets[column]
        y = target.inverse(y)
        _, back, back_change = target.forward(y)
        log_slope = log_slope - back
        return y, log_slope, change - back_change * np.exp(log_slope)


def fit_marginals(rows, columns):
    """Fit a map to some columns.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        Rows.
    columns : iterable of int
        Columns to map.

    Returns
    -------
    marginals : Marginals
        The maps.
    """
    return Marginals({j: Histogram(rows[~np.isnan(rows[:, j]), j]) for j in columns})


def _cut(values):
    """Ends of the bins of sorted values, and how many values each has."""
    knots = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    ends, todo = [0], [(0, len(values))]
    while todo:
        start, stop = todo.pop()
        middle = _best_cut(knots, start, stop)
        if middle is None:
            ends.append(stop)
        else:
            todo += [(middle, stop), (start, middle)]
    ends = np.array(ends)
    return knots[ends], np.diff(ends)


def _best_cut(knots, start, stop):
    """Index of the cut of a bin that gains most log-likelihood; None where none gains enough."""
    cuts = np.arange(start + _MIN_ROWS, stop - _MIN_ROWS + 1)
    left, right = knots[cuts] - knots[start], knots[stop] - knots[cuts]
    cuts = cuts[(left > 0) & (right > 0)]
    if not len(cuts):
        return None
    gain = np.zeros(len(cuts))
    for a, b in ((start, cuts), (cuts, stop)):
        gain += (b - a) * np.log((b - a) / (knots[b] - knots[a]))
    gain -= (stop - start) * np.log((stop - start) / (knots[stop] - knots[start]))
    best = int(gain.argmax())
    return int(cuts[best]) if gain[best] > _MIN_GAIN else None


def _normal_scores(weights, means, deviations):
    """Map from values of a mixture in one dimension to normal scores, ``Phi^{-1}(G(y))``."""
    y = np.unique(means[:, None] + deviations[:, None] * _KNOTS)
    y = y[np.linspace(0, len(y) - 1, min(len(y), _MAX_KNOTS)).astype(int)]
    u = (y[:, None] - means) / deviations
    below, above = ndtr(u) @ weights, ndtr(-u) @ weights
    # Each tail from its own side, where it does not round to one.
    z = np.where(below < above, ndtri(np.maximum(below, 1e-300)), -ndtri(np.maximum(above, 1e-300)))
    log_density = logsumexp(-0.5 * u**2 - np.log(deviations), axis=1, b=weights)
    kept = _apart(z)
    slope = np.exp(np.maximum(log_density + 0.5 * z**2, _MIN_LOG_SLOPE))
    return MonotoneSpline(y[kept], z[kept], slope[kept])


def _apart(values):
    """Indices of increasing values that are far enough from the one kept before."""
    kept = [0]
    for i, value in enumerate(values):
        if value > values[kept[-1]] + _MIN_GAP:
            kept.append(i)
    return np.array(kept)
