"""Labels of a table, drawn given the completed row.

A Gaussian knows a category by indicators, whose draws do not have the shares that they should, and
by straight lines alone. Its draws of the *other* cells of a row are what they are; given these a
category is drawn anew from its probabilities,

    p(others, label | observed) = p(others | observed) p(label | others, observed),

by a multinomial regression, by boosted trees or by the mean of both, whichever gave held-out labels
the higher likelihood. Several labels of a row are drawn one after the other, as in a sweep of
Gibbs sampling.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from skdiffusion._random import normals
from skdiffusion._threads import one_blas_thread
from skdiffusion.columns.columns import Columns
from skdiffusion.inputs.encoding import Encoding

# Rows of all completed copies together.
_MOST_ROWS = 20_000
# Share of the known cells that decides between the models.
_HELD_OUT = 0.25
# Weight of the plain shares of the categories, so that none is impossible.
_FLOOR = 0.01
# Number of the stream of noise, which no step of a solver has, and numbers of cells held at once.
STREAM, CELLS = 2**20, 2**22


@dataclass(frozen=True, eq=False)
class LabelModel:
    """Probabilities of one label given the other columns of a row.

    Attributes
    ----------
    models : list of classifiers
        Their probabilities are averaged.
    shares : ndarray of shape (n_categories,)
        Shares of the categories.
    inputs : bool ndarray of shape (n_valid,)
        The columns that they are given.
    """

    models: list
    shares: np.ndarray
    inputs: np.ndarray

    def probabilities(self, z):
        """Probabilities (n_rows, n_categories) given what tells them (n_rows, n_inputs)."""
        if not self.models:
            return np.tile(self.shares, (len(z), 1))
        found = np.zeros((len(z), len(self.shares)))
        for model in self.models:
            p = model.predict_proba(z)
            found[:, model.classes_.astype(int)] += p / len(self.models)
        return (1 - _FLOOR) * found + _FLOOR * self.shares


@dataclass(frozen=True, eq=False)
class LabelDraws:
    """Draws the labels of a table anew.

    Attributes
    ----------
    columns : Columns
        From the units of the table to what models are given.
    encoding : Encoding
        What the features are.
    models : dict of int to LabelModel
        One for every feature of labels or booleans that could be learnt.
    """

    columns: Columns
    encoding: Encoding
    models: dict

    @classmethod
    def learn(cls, flat, copies, columns, encoding, wanted, seed):
        """Learn the probabilities of the labels of a table.

        Parameters
        ----------
        flat : ndarray of shape (n_rows, n_columns)
            The table, NaN where missing.
        copies : ndarray of shape (n_copies, n_rows, n_columns)
            Completed copies of it.
        columns : Columns
            Its columns.
        encoding : Encoding
            What the features are.
        wanted : iterable of (int, bool ndarray of shape (n_valid,))
            The features to learn and the columns that tell them.
        seed : int
            Fixes rows and trees.

        Returns
        -------
        labels : LabelDraws
            Fitted.
        """
        z, rng = columns.forward(copies), np.random.default_rng(seed)
        models = {}
        for j, inputs in wanted:
            known = np.flatnonzero(~np.isnan(flat[:, encoding.first[j]]))
            rows = rng.permutation(known)[: _MOST_ROWS // len(copies)]
            codes = label_codes(flat, encoding, j)[rows].astype(int)
            models[j] = fit_label_model(
                z[:, rows][..., inputs],
                codes,
                int(encoding.columns[j].most) + 1,
                inputs,
                seed,
            )
        return cls(columns, encoding, models)

    def redraw(self, data, draws, asked, keys):
        """Draw the labels anew.

        Parameters
        ----------
        data : SeriesInput
            A table, NaN where missing.
        draws : ndarray of shape (n_draws, n_asked)
            Draws of its cells ``asked``, row by row; those of labels are replaced.
        asked : bool ndarray of shape (n_rows, n_columns)
            Which cells were drawn.
        keys : int64 tensor of shape (n_rows,)
            Keys of the noise of the rows.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_asked)
            The same array.
        """
        flat, place = data.flat, np.full(asked.shape, -1)
        place[asked] = np.arange(asked.sum())
        first = self.encoding.first[list(self.models)]
        rows = np.flatnonzero(asked[:, first].any(axis=1))
        size = max(1, CELLS // (len(draws) * flat.shape[1]))
        for part in np.split(rows, np.arange(size, len(rows), size)):
            if len(part):
                self._redraw(flat[part], draws, place[part], keys[part])
        return draws

    def _redraw(self, flat, draws, place, keys):
        """Draw the labels of a few rows."""
        full, gaps = np.repeat(flat[None], len(draws), axis=0), place >= 0
        full[:, gaps] = draws[:, place[gaps]]
        number = torch.arange(len(draws))[:, None]
        for j, model in self.models.items():
            first, width = self.encoding.first[j], self.encoding.columns[j].width
            rows = np.flatnonzero(gaps[:, first])
            if not len(rows):
                continue
            z = self.columns.forward(full[:, rows])
            p = model.probabilities(z.reshape(-1, z.shape[-1])[:, model.inputs])
            cell = torch.full((len(rows),), j)
            uniform = ndtr(normals(keys[rows], number, STREAM, cell).numpy())
            below = np.cumsum(p, axis=1)[:, :-1].reshape(*uniform.shape, -1) < uniform[..., None]
            code = as_columns(below.sum(axis=-1), width)
            own = slice(first, first + width)
            full[:, rows, own] = code
            draws[:, place[rows, own]] = code


def label_codes(flat, encoding, j):
    """Numbers of the categories of one feature."""
    first, width = encoding.first[j], encoding.columns[j].width
    block = flat[:, first : first + width]
    return block[:, 0] if width == 1 else block.argmax(axis=1).astype(float)


def as_columns(codes, width):
    """Numbers of categories in the real columns that stand for them, along a new last axis."""
    codes = codes[..., None]
    return codes == np.arange(width) if width > 1 else codes


def fit_label_model(z, codes, n_categories, inputs, seed):
    """The model of one label from what tells it (n_copies, n_rows, n_inputs)."""
    n_held_out = int(_HELD_OUT * len(codes))
    shares = (np.bincount(codes, minlength=n_categories) + 0.5) / (len(codes) + n_categories / 2)
    if len(np.unique(codes)) < 2:
        return LabelModel([], shares, inputs)
    held_out, rest = slice(0, n_held_out), slice(n_held_out, None)
    choices = [[True, False], [False, True], [True, True]]
    if len(np.unique(codes[rest])) > 1:
        trial = _fitted(z[:, rest], codes[rest], seed)
        choices.sort(key=lambda c: _loss(trial, c, z[:, held_out], codes[held_out], shares, inputs))
    models = _fitted(z, codes, seed)
    return LabelModel([m for m, used in zip(models, choices[0]) if used], shares, inputs)


def _fitted(z, codes, seed):
    """Both classifiers."""
    x, y = z.reshape(-1, z.shape[-1]), np.tile(codes, len(z))
    leaf = max(5, min(20, len(codes) // 20)) * len(z)
    trees = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, min_samples_leaf=leaf, l2_regularization=1.0,
        early_stopping=False, random_state=seed % 2**32,
    )  # fmt: skip
    linear = LogisticRegression(max_iter=300)
    with one_blas_thread():
        linear.fit(x, y)
    return [linear, trees.fit(x, y)]


def _loss(models, used, z, codes, shares, inputs):
    """Mean negative log-probability of held-out labels."""
    model = LabelModel([m for m, wanted in zip(models, used) if wanted], shares, inputs)
    p = model.probabilities(z.reshape(-1, z.shape[-1]))
    return -np.log(p[np.arange(len(p)), np.tile(codes, len(z))]).mean()
