r"""Cells of labels beside cells of numbers: how they are read from frames, and how they score.

One score covers both. With a distance :math:`d` of values, draws :math:`X, X'` and a truth
:math:`y`, the kernel score

.. math:: \mathrm{E}\, d(X, y) - \tfrac12 \mathrm{E}\, d(X, X')

is the CRPS for :math:`d = |a - b|`; for :math:`d = 1[a \ne b]`, of categories, it is half of the
Brier score :math:`\sum_k (p_k - 1[y = k])^2`; and for :math:`d = |a - b| / (K - 1)`, of the numbers
of K ordered categories, it is their ranked probability score over K - 1. All are 0 for a sure and
right answer; those of labels are 1 for a sure and wrong one.
"""

from typing import NamedTuple

import numpy as np

from skdiffusion.inputs.encoding import Encoding, is_label
from skdiffusion.inputs.frames import is_frame
from skdiffusion.metrics._crps import crps_loss


class Labels(NamedTuple):
    """What the features of a labelled frame are.

    Attributes
    ----------
    names : list
        Names of the features.
    n_categories : int ndarray of shape (n_features,)
        Number of categories, 0 for numbers.
    ordered : bool ndarray of shape (n_features,)
        Whether they have an order.
    """

    names: list
    n_categories: np.ndarray
    ordered: np.ndarray

    @property
    def present(self):
        """Which features are labels."""
        return self.n_categories > 0


class HeldOut(NamedTuple):
    """Hidden cells and what an imputer says of them.

    Attributes
    ----------
    truth : ndarray of shape (n_samples, ...)
        True values; of labels the numbers of their categories.
    draws : ndarray of shape (n_samples, n_draws, ...)
        Draws in the units of ``X``; of labels the same.
    scored : bool ndarray of the shape of ``truth``
        The cells that count.
    labels : Labels or None
        What is a label; None for numbers alone.
    """

    truth: np.ndarray
    draws: np.ndarray
    scored: np.ndarray
    labels: Labels | None = None

    def of_numbers(self):
        """Truth, draws and the cells that count of columns of numbers; raises if there is none."""
        scored = self.scored
        if self.labels is not None:
            scored = scored & ~self.labels.present
        if not scored.any():
            raise ValueError("there is nothing to score: no hidden cell is in a column of numbers")
        return self.truth, self.draws, scored

    def in_units(self, unit):
        """The same with numbers divided by the unit of their feature."""
        if self.labels is not None:
            unit = np.where(self.labels.present, 1.0, unit)
        return self._replace(truth=self.truth / unit, draws=self.draws / unit)


def label_names(X):
    """Names of the columns of labels of a frame, or of the first of a list."""
    x = X[0] if isinstance(X, (list, tuple)) and len(X) else X
    return [name for name in x.columns if is_label(x[name])] if is_frame(x) else []


def label_codes(frames):
    """Codes of frames of the same columns, and what their features are.

    Parameters
    ----------
    frames : list of DataFrames
        Their categories are taken together.

    Returns
    -------
    codes : list of ndarrays of shape (n_rows, n_features)
        Numbers, and those of categories; NaN where missing.
    labels : Labels
        What is a label.
    """
    encoding = Encoding.learn(frames)
    codes = [encoding.decode(encoding.encode(frame)) for frame in frames]
    n = [0 if c.categories is None else max(1, len(c.categories)) for c in encoding.columns]
    ordered = np.array([bool(column.ordered) for column in encoding.columns])
    return codes, Labels(list(frames[0].columns), np.array(n), ordered)


def mixed_crps(held):
    """Mean kernel score of cells of numbers and labels."""
    if held.labels is None:
        return _crps(held.truth, held.draws, held.scored)
    each, weight = [], []
    for j in range(len(held.labels.names)):
        cells = held.scored[..., j]
        if not cells.any():
            continue
        y, x = held.truth[..., j], held.draws[..., j]
        n_categories = held.labels.n_categories[j]
        if n_categories and not held.labels.ordered[j]:
            each.append(_brier(y[cells], x[cells]) / 2)
        else:
            unit = max(1, n_categories - 1)
            each.append(_crps(y / unit, x / unit, cells))
        weight.append(cells.sum())
    return float(np.average(each, weights=weight))


def mixed_brier(held):
    """Mean Brier score of the cells of labels."""
    present = np.zeros(held.truth.shape[-1], bool) if held.labels is None else held.labels.present
    cells = held.scored & present
    if not cells.any():
        raise ValueError(
            'there is nothing to score: "brier" is for cells of labels, and none is hidden; '
            'score numbers by "crps"'
        )
    return _brier(held.truth[cells], np.moveaxis(held.draws, 1, -1)[cells])


def _crps(y, x, mask):
    """CRPS of draws, or the absolute error of one value."""
    return crps_loss(y, x, mask=mask, method="fair" if x.shape[1] > 1 else "ensemble")


def _brier(y, x):
    """Fair Brier score of draws (n_cells, n_draws): its expectation knows nothing of their number.

    With shares p of m draws, sum (p - e_y)^2 = 1 - 2 p_y + sum p^2, and sum p^2 is too large by
    (1 - sum p^2) / (m - 1).
    """
    m = x.shape[1]
    right = (x == y[:, None]).mean(axis=1)
    # Of m^2 pairs of draws, those that agree.
    x = np.sort(x, axis=1)
    change = np.concatenate([np.ones((len(x), 1), bool), x[:, 1:] != x[:, :-1]], axis=1)
    run = np.cumsum(change, axis=1) + m * np.arange(len(x))[:, None]
    counts = np.bincount(run.ravel() - 1, minlength=m * len(x)).reshape(len(x), m)
    agree = np.square(counts / m).sum(axis=1)
    excess = (1 - agree) / (m - 1) if m > 1 else 0.0
    return float(np.mean(1 - 2 * right + agree - excess))
