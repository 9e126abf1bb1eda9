r"""Columns with many values at one end: no rain, full visibility.

Such a column is a cut of something continuous. With ``F`` the distribution of its values and
``p(v)`` the share of value ``v``, it becomes the normal score of the middle of the value's
interval, :math:`z = \Phi^{-1}(F(v) - p(v) / 2)`, and every ``z`` beyond the inner edge of a spike's
interval comes back as exactly its value. Draws therefore have the spike with the probability that
the model gives it, and no value beyond it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

# Share of the values at an end from which they count as a spike there: fewer are a tail.
_SPIKE = 0.05
# Distinct values are thinned to so many.
_MOST_KNOTS = 200


@dataclass(frozen=True, eq=False)
class Score:
    """Normal scores of one column with a spike at one end or both.

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
    def learn(cls, u):
        """Learn from the observed values of a column; None if no end has a spike."""
        values, counts = np.unique(u, return_counts=True)
        share = counts / len(u)
        low, high = share[0] >= _SPIKE, share[-1] >= _SPIKE
        # Of two values, as of an indicator of a category, it matters which draw is the largest.
        if len(values) < 3 or not (low or high):
            return None
        above = np.cumsum(share)
        scores = ndtri(above - share / 2)
        edges = scores.copy()
        if low:
            edges[0] = ndtri(above[0])
        if high:
            edges[-1] = ndtri(1 - share[-1])
        kept = np.unique(np.linspace(0, len(values) - 1, _MOST_KNOTS).round().astype(int))
        return cls(values[kept], scores[kept], edges[kept])


@dataclass(frozen=True, eq=False)
class Spikes:
    """Column map that gives columns with a spike their scores, and others to another map.

    Attributes
    ----------
    others : column map
        For columns without a spike.
    scores : dict of int to Score
        For those with one, by number among the valid columns.
    """

    others: object
    scores: dict

    @classmethod
    def learn(cls, others, u):
        """Find the columns with a spike in standard units ``u`` (n_rows, n_valid)."""
        found = {k: Score.learn(x[~np.isnan(x)]) for k, x in enumerate(u.T)}
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
