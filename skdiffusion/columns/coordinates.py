"""The coordinates of a density model: discrete columns spread, standardised, mapped one by one.

The way takes numbers and codes ``x`` of a table to rows ``y`` in which a density is learnt,

    x --spread--> v --standardise--> u = (v - m) / c --map columns--> y ( --chain--> t ) ,

and adds up the log-determinant on the way, so that ``log p(x) = log p(y) + log_jacobian``. Its
inverse is the list reversed. The noise that spreads discrete columns comes from outside. A *chain*,
where there is one, maps each column given those before it; it has the methods of the column maps.
"""

import numpy as np

from skdiffusion.columns.discrete import snap, spread
from skdiffusion.columns.ends import put_on_ends
from skdiffusion.columns.marginals import Marginals

# Standard deviations: squares of what is further out must stay finite.
_FURTHEST = 1e100


class Coordinates:
    """All maps of a table to rows with their log-determinant.

    Parameters
    ----------
    discrete : dict of int to Grid or Category
        Discrete columns.
    mean, scale : ndarrays of shape (n_features,)
        Centre and scale of the columns, those of the discrete ones after spreading.
    marginals : Marginals, optional
        Maps of the standardised columns; None leaves them as they are.
    chain : object with forward, inverse and pull_back, optional
        Map of the rows that are left, in which a column may depend on others.
    ends : ndarray of shape (2, 2, n_features), optional
        Ends that draws reach exactly, see :func:`~skdiffusion.columns.ends.spiked_ends`.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.columns.coordinates import Coordinates
    >>> coordinates = Coordinates({}, np.array([1.0]), np.array([2.0]))
    >>> rows, log_jacobian = coordinates.forward(np.array([[5.0]]))
    >>> rows, log_jacobian.round(3), coordinates.inverse(rows)
    (array([[2.]]), array([-0.693]), array([[5.]]))
    """

    # Files of earlier versions have none.
    ends = None

    def __init__(self, discrete, mean, scale, marginals=None, chain=None, ends=None):
        self.discrete, self.mean, self.scale = discrete, mean, scale
        self.marginals = Marginals({}) if marginals is None else marginals
        self.chain, self.ends = chain, ends

    @property
    def of_columns(self):
        """The coordinates short of the chain, in which every column depends on itself alone."""
        return Coordinates(self.discrete, self.mean, self.scale, self.marginals, ends=self.ends)

    def forward(self, values, uniforms=None):
        """Map a table to rows.

        Parameters
        ----------
        values : float64 ndarray of shape (n_samples, n_features)
            Numbers, and codes of categories; NaN stays NaN.
        uniforms : ndarray of shape (n_samples, n_discrete), optional
            Uniforms in (0, 1) that spread the discrete columns, in the order of their numbers.
            None takes ``values`` as spread already.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features)
            Rows in the coordinates of the model.
        log_jacobian : ndarray of shape (n_samples,)
            What turns a log-density of the rows into one of the values; for categories, into the
            log of a probability. Of the columns that are there, where some are missing.
        """
        values = self._spread(values, uniforms)
        rows, log_jacobian = self.marginals.forward(self._standardised(values))
        volume = sum(column.log_volume(values[:, j]) for j, column in self.discrete.items())
        missing = np.isnan(values) @ np.log(self.scale)
        log_jacobian = log_jacobian - np.log(self.scale).sum() + volume + missing
        if self.chain is None:
            return rows, log_jacobian
        rows, more = self.chain.forward(rows)
        return rows, log_jacobian + more

    def inverse(self, rows, drawn=False):
        """Map rows back, discrete columns onto their values.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_features)
            Rows in the coordinates of the model.
        drawn : bool, default=False
            Whether they are draws, none of which may lie further beyond the data than draws do, nor
            beyond an end that many rows have; those next to such an end are put on it.

        Returns
        -------
        values : ndarray of shape (n_samples, n_features)
            Numbers, and codes of categories.
        """
        if self.chain is not None:
            rows = self.chain.inverse(rows)
        rows = self.marginals.inverse(rows)
        if drawn:
            rows = np.clip(rows, *self.marginals.limits(rows.shape[1]))
        values = snap(rows * self.scale + self.mean, self.discrete)
        return put_on_ends(values, self.ends) if drawn and self.ends is not None else values

    def pull_back(self, values, gradient, uniforms=None):
        """Gradient of the log-density by the values from that by the rows.

        Parameters
        ----------
        values : float64 ndarray of shape (n_samples, n_features)
            Numbers.
        gradient : ndarray of shape (n_samples, n_features)
            Gradient of the log-density of the rows.
        uniforms : ndarray of shape (n_samples, n_discrete), optional
            As in :meth:`forward`.

        Returns
        -------
        gradient : ndarray of shape (n_samples, n_features)
            By the chain rule, with the slope of the log-determinant.
        """
        standard = self._standardised(self._spread(values, uniforms))
        if self.chain is not None:
            gradient = self.chain.pull_back(self.marginals.forward(standard)[0], gradient)
        slope, log_jacobian_slope = self.marginals.slopes(standard)
        return (gradient * slope + log_jacobian_slope) / self.scale

    def _spread(self, values, uniforms):
        return values if uniforms is None else spread(values, self.discrete, uniforms)

    def _standardised(self, values):
        with np.errstate(over="ignore"):
            return np.clip((values - self.mean) / self.scale, -_FURTHEST, _FURTHEST)
