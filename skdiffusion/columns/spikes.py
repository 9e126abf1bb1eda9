r"""Columns by the normal scores of their values: those with many values at one end, or all.

No rain, full visibility: a column with such a spike is a cut of something continuous. With ``F``
the distribution of its values and ``p(v)`` the share of value ``v``, it becomes the normal score of
the middle of the value's interval, :math:`z = \Phi^{-1}(F(v) - p(v) / 2)`, and every ``z`` beyond
the inner edge of a spike's interval comes back as exactly its value. Draws therefore have the spike
with the probability that the model gives it, and no value beyond it.

Scores of *every* column with many values make a Gaussian a Gaussian copula [1]_. At an end without
a spike they go on as straight as the outermost twentieth of the values is.

References
----------
.. [1] H. Liu, J. Lafferty, L. Wasserman, "The nonparanormal: semiparametric estimation of high
   dimensional undirected graphs", Journal of Machine Learning Research 10, 2009.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

# Share of the values at an end from which they count as a spike there, and their number: fewer are
# a tail. Of twenty rows each value has this share.
_SPIKE, _FEWEST = 0.05, 4
# Distinct values are thinned to so many; without a spike there must be so many.
_MOST_KNOTS, _FEWEST_KNOTS = 200, 10
# Where the outermost twentieth begins, and how far beyond the end its slope is kept.
_END, _BEYOND = ndtri(0.95), 2.0


@dataclass(frozen=True, eq=False)
class Score:
    """Normal scores of one column.

    Attributes
    ----------
    values : ndarray of shape (n_knots,)
        Rising values.
    scores : ndarray of shape (n_knots,)
        Their normal scores.
    edges : ndarray of shape (n_knots,)
        The same, but for a spike the inner edge of its interval.
    """

    values: np.ndarray
    scores: np.ndarray
    edges: np.ndarray

    @classmethod
    def learn(cls, u, every=False):
        """Learn from the observed values of a column.

        Parameters
        ----------
        u : ndarray of shape (n_values,)
            The values.
        every : bool, default=False
            Whether many values are enough, and the ends go on.

        Returns
        -------
        score : Score or None
            None for a column without a spike, or with few values.
        """
        values, counts = np.unique(u, return_counts=True)
        share = counts / len(u)
        spike = (share >= _SPIKE) & (counts >= _FEWEST)
        low, high = spike[0], spike[-1]
        # Of two values, as of an indicator of a category, it matters which draw is the largest.
        fewest = 3 if low or high else _FEWEST_KNOTS
        if len(values) < fewest or not (low or high or every):
            return None
        above = np.cumsum(share)
        scores = ndtri(above - share / 2)
        edges = scores.copy()
        if low:
            edges[0] = ndtri(above[0])
        if high:
            edges[-1] = ndtri(1 - share[-1])
        kept = np.unique(np.linspace(0, len(values) - 1, _MOST_KNOTS).round().astype(int))
        knots = np.array([values, scores, edges])[:, kept]
        if every and not low:
            knots = -_longer(-knots[:, ::-1])[:, ::-1]
        if every and not high:
            knots = _longer(knots)
        return cls(*knots)


def _longer(knots):
    """Knots with one more beyond the last, where its slope leads, half of the range at most."""
    values, scores, _ = knots
    first = min(np.searchsorted(scores, _END), len(scores) - 2)
    slope = (values[-1] - values[first]) / (scores[-1] - scores[first])
    step = min(_BEYOND, np.ptp(values) / 2 / slope)
    more = knots[:, -1] + step * np.array([slope, 1.0, 1.0])
    return np.concatenate([knots, more[:, None]], axis=1)


@dataclass(frozen=True, eq=False)
class Spikes:
    """Column map that gives columns with a spike their scores, and others to another map.

    Attributes
    ----------
    others : column map
        For columns without scores.
    scores : dict of int to Score
        For those with scores, by number among the valid columns.
    """

    others: object
    scores: dict

    @classmethod
    def learn(cls, others, u, every=False):
        """Find the columns with a spike in standard units ``u`` (n_rows, n_valid).

        With ``every`` all columns with many values get scores.
        """
        found = {k: Score.learn(x[~np.isnan(x)], every) for k, x in enumerate(u.T)}
        return cls(others, {k: score for k, score in found.items() if score is not None})

    def forward(self, u):
        """Map standard units (..., n_valid) to what a model sees."""
        z = np.array(self.others.forward(u))
        for k, score in self.scores.items():
            z[..., k] = np.where(
                np.isnan(u[..., k]), np.nan, np.interp(u[..., k], score.values, score.scores)
            )
        return z

    def inverse(self, z, feature):
        """Map what a model says back; ``feature`` tells columns along the last axis."""
        u = np.array(self.others.inverse(z, feature))
        for k, score in self.scores.items():
            cells = feature == k
            u[..., cells] = np.interp(z[..., cells], score.edges, score.values)
        return u
