"""A smooth increasing function through given points, with its inverse in closed form."""

import numpy as np


class MonotoneSpline:
    """Piecewise rational-quadratic function with given values and slopes [1]_.

    It is increasing and once continuously differentiable, and continues along straight lines
    beyond its knots.

    Parameters
    ----------
    x, y : ndarrays of shape (n_knots,)
        Knots and values there, both increasing; two at least.
    slope : ndarray of shape (n_knots,)
        Positive slopes there.

    References
    ----------
    .. [1] J. Gregory, R. Delbourgo, "Piecewise rational quadratic interpolation to monotonic
       data", IMA Journal of Numerical Analysis 1982, https://doi.org/10.1093/imanum/2.2.123.
    """

    def __init__(self, x, y, slope):
        self.x, self.y, self.slope = x, y, slope

    def forward(self, x):
        """Values, and the logarithm of the slope with its derivative.

        Parameters
        ----------
        x : ndarray of shape (n_samples,)
            Points.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Values.
        log_slope : ndarray of shape (n_samples,)
            ``log dy/dx``.
        log_slope_slope : ndarray of shape (n_samples,)
            ``d log(dy/dx) / dx``.
        """
        i, width, mean, left, right = self._pieces(self.x, x)
        t = np.clip((x - self.x[i]) / width, 0, 1)
        bend = left + right - 2 * mean
        below = mean + bend * t * (1 - t)
        above = right * t**2 + 2 * mean * t * (1 - t) + left * (1 - t) ** 2
        y = self.y[i] + width * mean * t * (mean * t + left * (1 - t)) / below
        log_slope = 2 * np.log(mean) + np.log(above) - 2 * np.log(below)
        rise = 2 * (right * t + mean * (1 - 2 * t) - left * (1 - t)) / above
        inside = (rise - 2 * bend * (1 - 2 * t) / below) / width
        beyond = x - np.clip(x, self.x[0], self.x[-1])
        y += beyond * np.where(beyond < 0, self.slope[0], self.slope[-1])
        return y, log_slope, np.where(beyond == 0, inside, 0.0)

    def inverse(self, y):
        """Points with given values.

        Parameters
        ----------
        y : ndarray of shape (n_samples,)
            Values.

        Returns
        -------
        x : ndarray of shape (n_samples,)
            Points.
        """
        i, width, mean, left, right = self._pieces(self.y, y)
        inside = np.clip(y, self.y[0], self.y[-1])
        height = (inside - self.y[i]) / width
        bend = left + right - 2 * mean
        a = mean * (mean - left) + height * bend
        b = mean * left - height * bend
        c = -mean * height
        # The root in [0, 1] of a t^2 + b t + c, in the form without cancellation; a > 0 if b < 0.
        root = np.sqrt(np.maximum(b**2 - 4 * a * c, 0))
        rising = b >= 0
        t = np.where(rising, -2 * c, root - b) / np.where(rising, b + root, 2 * a)
        beyond = y - inside
        return self.x[i] + width * t + beyond / np.where(beyond < 0, self.slope[0], self.slope[-1])

    def _pieces(self, knots, points):
        """Piece of each point: its index, width, mean slope and slopes at the ends."""
        i = np.clip(np.searchsorted(knots, points, side="right") - 1, 0, len(knots) - 2)
        width = np.diff(self.x)[i]
        return i, width, np.diff(self.y)[i] / width, self.slope[i], self.slope[i + 1]
