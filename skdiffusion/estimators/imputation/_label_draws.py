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

from skdiffusion._random import normals, row_keys
from skdiffusion.columns.columns import Columns
from skdiffusion.inputs.encoding import Encoding

# Completed copies to learn from, and rows of all of them together.
_N_COPIES, _MOST_ROWS = 5, 20_000
# Labels with fewer known cells, or with more categories, are left to the Gaussian.
_FEWEST, _MOST_CATEGORIES = 30, 30
# Share of the known cells that decides between the models.
_HELD_OUT = 0.25
# Weight of the plain shares of the categories, so that none is impossible.
_FLOOR = 0.01
# Number of the stream of noise, which no step of a solver has, and numbers of cells held at once.
_STREAM, _CELLS = 2**20, 2**22


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
        """Probabilities (n_rows, n_categories) given rows (n_rows, n_valid)."""
        found = np.zeros((len(z), len(self.shares)))
        for model in self.models:
            p = model.predict_proba(z[:, self.inputs])
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
    def learn(cls, flat, draw, columns, encoding, seed):
        """Learn the probabilities of the labels of a table.

        Parameters
        ----------
        flat : ndarray of shape (n_rows, n_columns)
            The table, NaN where missing.
        draw : callable
            ``draw(n_draws)`` returns draws (n_draws, n_missing) of its missing cells.
        columns : Columns
            Its columns.
        encoding : Encoding
            What the features are.
        seed : int
            Fixes rows and trees.

        Returns
        -------
        labels : LabelDraws or None
            None if there is no label that could be learnt.
        """
        wanted = [j for j, code in enumerate(encoding.columns) if code.kind in ("label", "boolean")]
        known = ~np.isnan(flat[:, encoding.first])
        wanted = [j for j in wanted if known[:, j].sum() >= _FEWEST]
        wanted = [j for j in wanted if len(np.unique(_codes(flat, encoding, j)[known[:, j]])) > 1]
        wanted = [j for j in wanted if encoding.columns[j].most < _MOST_CATEGORIES]
        inputs = {j: encoding.owner[columns.valid] != j for j in wanted}
        wanted = [j for j in wanted if inputs[j].any()]
        if not wanted:
            return None
        asked = np.isnan(flat) & columns.valid
        copies = np.repeat(flat[None], _N_COPIES, axis=0)
        if asked.any():
            copies[:, asked] = encoding.settle(draw(_N_COPIES), np.nonzero(asked)[1])
        z, rng = columns.forward(copies), np.random.default_rng(seed)
        models = {}
        for j in wanted:
            rows = rng.permutation(np.flatnonzero(known[:, j]))[: _MOST_ROWS // _N_COPIES]
            codes = _codes(flat, encoding, j)[rows].astype(int)
            models[j] = _fit(z[:, rows], codes, int(encoding.columns[j].most) + 1, inputs[j], seed)
        return cls(columns, encoding, models)

    def redraw(self, flat, draws, asked, keys):
        """Draw the labels anew.

        Parameters
        ----------
        flat : ndarray of shape (n_rows, n_columns)
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
        place = np.full(asked.shape, -1)
        place[asked] = np.arange(asked.sum())
        first = self.encoding.first[list(self.models)]
        rows = np.flatnonzero(asked[:, first].any(axis=1))
        size = max(1, _CELLS // (len(draws) * flat.shape[1]))
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
            p = model.probabilities(z.reshape(-1, z.shape[-1]))
            cell = torch.full((len(rows),), j)
            uniform = ndtr(normals(keys[rows], number, _STREAM, cell).numpy())
            below = np.cumsum(p, axis=1)[:, :-1].reshape(*uniform.shape, -1) < uniform[..., None]
            code = below.sum(axis=-1)[..., None]
            code = code == np.arange(width) if width > 1 else code
            own = slice(first, first + width)
            full[:, rows, own] = code
            draws[:, place[rows, own]] = code


def label_draws(reader, columns, model, data, settings, seed):
    """What draws the labels of a table anew, or None where there are none.

    Parameters
    ----------
    reader : SeriesReader
        The form of the data.
    columns : Columns
        Their units.
    model : ImputationModel
        What draws the other cells.
    data : SeriesInput
        The data of ``fit``.
    settings : Bunch
        Parameters of the imputer.
    seed : int
        Fixes everything.
    """
    if reader.kind != "table":
        return None
    keys = row_keys(data.rows, seed)
    draw = lambda n: drawn(reader, columns, model, data, keys, n, settings)  # noqa: E731
    return LabelDraws.learn(data.flat, draw, columns, reader.encoding, seed)


def drawn(reader, columns, model, data, keys, n_draws, settings):
    """Draws (n_draws, n_missing) of the missing cells of valid columns, in the units of X."""
    z = model.draw(reader.windows(data, columns), keys, n_draws, settings).cpu().numpy()
    feature = np.nonzero(np.isnan(data.flat[:, columns.valid]))[1]
    largest = np.finfo(data.flat.dtype).max
    return np.clip(columns.inverse(z, feature), -largest, largest)


def _codes(flat, encoding, j):
    """Numbers of the categories of one feature."""
    first, width = encoding.first[j], encoding.columns[j].width
    block = flat[:, first : first + width]
    return block[:, 0] if width == 1 else block.argmax(axis=1).astype(float)


def _fit(z, codes, n_categories, inputs, seed):
    """The model of one label from completed rows (n_copies, n_rows, n_valid)."""
    n_held_out = int(_HELD_OUT * len(codes))
    shares = (np.bincount(codes, minlength=n_categories) + 0.5) / (len(codes) + n_categories / 2)
    held_out, rest = slice(0, n_held_out), slice(n_held_out, None)
    choices = [[True, False], [False, True], [True, True]]
    if len(np.unique(codes[rest])) > 1:
        trial = _fitted(z[:, rest], codes[rest], inputs, seed)
        choices.sort(key=lambda c: _loss(trial, c, z[:, held_out], codes[held_out], shares, inputs))
    models = _fitted(z, codes, inputs, seed)
    return LabelModel([m for m, used in zip(models, choices[0]) if used], shares, inputs)


def _fitted(z, codes, inputs, seed):
    """Both classifiers."""
    x, y = z.reshape(-1, z.shape[-1])[:, inputs], np.tile(codes, len(z))
    leaf = max(5, min(20, len(codes) // 20)) * len(z)
    trees = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, min_samples_leaf=leaf, l2_regularization=1.0,
        early_stopping=False, random_state=seed % 2**32,
    )  # fmt: skip
    return [LogisticRegression(max_iter=300).fit(x, y), trees.fit(x, y)]


def _loss(models, used, z, codes, shares, inputs):
    """Mean negative log-probability of held-out labels."""
    model = LabelModel([m for m, wanted in zip(models, used) if wanted], shares, inputs)
    p = model.probabilities(z.reshape(-1, z.shape[-1]))
    return -np.log(p[np.arange(len(p)), np.tile(codes, len(z))]).mean()
