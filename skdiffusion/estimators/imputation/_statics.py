"""Static columns that are missing in all rows of a series, drawn as cells of a table of series.

A model of rows takes the rows of a series for so many pieces of evidence of what does not change
in it, such as age and sex, and is too sure by far. What one series tells of another is told by a
table with one row for each: its static columns, and the means of the others over its rows,

    p(others, static | observed) = p(others | observed) p(static | means of others, observed),

as labels are drawn given a completed row. The table gets the closed form that any table gets.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.utils import Bunch

from skdiffusion._random import branch_keys, row_keys
from skdiffusion.columns.columns import Columns
from skdiffusion.diffusion.statespace.judge import normal_crps
from skdiffusion.diffusion.window.base import WindowBase
from skdiffusion.diffusion.window.fit import completed_by, free_gaussian
from skdiffusion.diffusion.window.gaussian import WindowGaussian
from skdiffusion.estimators.imputation._labels import drawn, learn_labels
from skdiffusion.estimators.imputation._maps import better_mapped
from skdiffusion.estimators.imputation._model import Blueprint, ImputationModel
from skdiffusion.estimators.imputation._reading import SeriesReader
from skdiffusion.estimators.imputation._shrinkage import shrinks
from skdiffusion.inputs.encoding import ColumnCode, Encoding
from skdiffusion.inputs.series import SeriesInput

# Series from which static columns are learnt, and parts of them that are held out in turn.
_FEWEST_SERIES, _FOLDS = 8, 5
# Ridges, in variances of a column.
_RIDGES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
# A closed form needs no more.
_SETTINGS = Bunch(
    device="cpu", direction="both", solver="auto", n_steps=None, batch_size=None, verbose=0
)


@dataclass(frozen=True, eq=False)
class StaticDraws:
    """Draws static columns given the means of the others.

    Attributes
    ----------
    static : bool ndarray of shape (n_columns,)
        Real columns that do not change within a series.
    series_columns : Columns
        Columns of the rows of series.
    reader : SeriesReader
        The form of the table of series.
    columns : Columns
        Its columns.
    model : ImputationModel
        What draws its cells.
    """

    static: np.ndarray
    series_columns: Columns
    reader: SeriesReader
    columns: Columns
    model: ImputationModel

    @classmethod
    def learn(cls, reader, columns, model, data, settings, seed):
        """Learn from series; None where no column is static, or of few series.

        Parameters
        ----------
        reader : SeriesReader
            What has read them.
        columns : Columns
            Their columns.
        model : ImputationModel
            What draws the other cells.
        data : SeriesInput
            The series, with statics where they are known.
        settings : Bunch
            Parameters of the imputer.
        seed : int
            Fixes everything.
        """
        static = reader.static
        if static is None or not static.any() or len(data.rows) < _FEWEST_SERIES:
            return None
        full, asked = data.flat.copy(), np.isnan(data.flat) & columns.valid
        if asked.any():
            keys = row_keys(data.rows, seed)
            full[asked] = drawn(reader, columns, model, data, keys, 1, settings)[0]
        rows = _summaries(data.flat, full[None], [len(x) for x in data.rows], static, columns)
        return cls(static, columns, *_learn_table(rows[0], reader.encoding, static, columns, seed))

    def redraw(self, data, draws, asked, keys):
        """Draw the static columns anew, alike in all rows of a series.

        Parameters
        ----------
        data : SeriesInput
            The series, NaN where missing.
        draws : ndarray of shape (n_draws, n_asked)
            Draws of their cells ``asked``, row by row; those of static columns are replaced.
        asked : bool ndarray of shape (n_rows, n_columns)
            Which cells were drawn.
        keys : int64 tensor of shape (n_series,)
            Keys of the noise of the series.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_asked)
            The same array.
        """
        sizes = np.array([len(x) for x in data.rows])
        number, (row, column) = np.repeat(np.arange(len(sizes)), sizes), np.nonzero(asked)
        cells = np.flatnonzero(self.static[column])
        chosen, of = np.unique(number[row[cells]], return_inverse=True)
        if not len(chosen):
            return draws
        mine = np.isin(number, chosen)
        full, gaps = np.repeat(data.flat[mine][None], len(draws), axis=0), asked[mine]
        full[:, gaps] = draws[:, mine[row]]
        rows = _summaries(data.flat[mine], full, sizes[chosen], self.static, self.series_columns)
        filled = self._filled(rows, branch_keys(keys[chosen], len(draws)).T)
        draws[:, cells] = filled[:, of, np.cumsum(self.static)[column[cells]] - 1]
        return draws

    def _filled(self, rows, keys):
        """Complete rows (n_draws, n_series, n_columns) of the table, each by one draw."""
        flat, keys = rows.reshape(-1, rows.shape[-1]), keys.reshape(-1)
        table = _table(flat)
        asked = np.isnan(flat) & self.columns.valid
        draws = drawn(self.reader, self.columns, self.model, table, keys, 1, _SETTINGS)
        flat = flat.copy()
        flat[asked] = self.reader.settle(table, draws, asked, keys)[0]
        return flat.reshape(rows.shape)


def _summaries(flat, full, sizes, static, columns):
    """Rows of series: static columns, and means of what a model sees of the others.

    Parameters
    ----------
    flat : ndarray of shape (n_rows, n_columns)
        Series end to end, NaN where missing.
    full : ndarray of shape (n_copies, n_rows, n_columns)
        Completed copies of them.
    sizes : sequence of int
        Their numbers of rows.
    static : bool ndarray of shape (n_columns,)
        Real columns that do not change within a series.
    columns : Columns
        Their columns.

    Returns
    -------
    rows : ndarray of shape (n_copies, n_series, n_static + n_others)
        NaN where a static column is missing, or all of another one.
    """
    first, others = np.cumsum([0, *sizes])[:-1], ~static[columns.valid]
    z = np.add.reduceat(columns.forward(full)[..., others], first, axis=1)
    seen = np.logical_or.reduceat(~np.isnan(flat[:, columns.valid][:, others]), first)
    means = np.where(seen, z / np.asarray(sizes)[:, None], np.nan)
    known = np.broadcast_to(flat[first][:, static], (len(full), len(first), static.sum()))
    return np.concatenate([known, means], axis=-1)


def _learn_table(rows, encoding, static, columns, seed):
    """Reader, columns and model of the table of series."""
    n_others, table = rows.shape[1] - static.sum(), _table(rows)
    codes = [code for j, code in enumerate(encoding.columns) if static[encoding.first[j]]]
    encoding = Encoding([*codes, *[ColumnCode()] * n_others])
    every = np.ones(len(encoding.columns), dtype=bool)
    reader = SeriesReader("table", 1, None, every, ~every, encoding)
    low, high = (
        np.r_[np.broadcast_to(bound, static.shape)[static], np.full(n_others, unbounded)]
        for bound, unbounded in ((columns.low, -np.inf), (columns.high, np.inf))
    )
    columns = better_mapped(Columns.learn(rows).bounded(low, high), rows)
    own = torch.as_tensor(encoding.owner[columns.valid])
    series, is_static = reader.windows(table, columns), torch.arange(len(own)) < static.sum()
    gaussian = _fit(series.values.double(), series.observed, own, is_static)
    blueprint = Blueprint("gaussian", 1, len(own), {}, seed)
    model = ImputationModel(blueprint.build(WindowBase(gaussian, 1, len(own))), blueprint)
    labels = learn_labels(reader, columns, model, table, _SETTINGS, seed)
    return replace(reader, labels=labels), columns, model


def _fit(values, observed, owner, is_static):
    """Gaussian of the table, which foretells the static columns of series that are held out best.

    Against the many columns there are few series. A ridge, the variance that is added to the other
    columns, keeps what is told by chance from counting; and what is left of the variance of static
    columns, too small by itself, is made as large as the errors of the series held out.
    """
    fold, tried = torch.arange(len(values)) % _FOLDS, [[] for _ in _RIDGES]
    for i in range(_FOLDS):
        hidden = observed & (fold == i)[:, None] & is_static
        shown = observed & ~hidden
        gaussian = _gaussian(values, shown, owner)
        for errors, ridge in zip(tried, _RIDGES):
            mean, sd = completed_by(_wider(gaussian, ridge * ~is_static), values, shown)
            errors.append(torch.stack([(values - mean)[hidden], sd[hidden]]))
    tried = [torch.cat(errors, dim=1) for errors in tried]
    best = min(range(len(tried)), key=lambda k: float(normal_crps(*tried[k]).sum()))
    gaussian = _wider(_gaussian(values, observed, owner), _RIDGES[best] * ~is_static)
    error, sd = tried[best]
    excess = max(0.0, float((error / sd).square().mean()) - 1)
    sd = completed_by(gaussian, values, observed & ~is_static)[1]
    return _wider(gaussian, is_static * excess * sd.square().mean(0))


def _wider(gaussian, variances):
    """Gaussian with more variance in each cell."""
    return WindowGaussian(gaussian.mean, gaussian.covariance + variances.double().diag())


def _gaussian(values, observed, owner):
    """Gaussian of rows, shrunk where it foretells them better."""
    shrunk = shrinks(values, observed, owner)
    return free_gaussian(values[:, None], observed[:, None], shrunk)


def _table(rows):
    """Rows (n_rows, n_columns) as what a reader has read."""
    return SeriesInput("table", "table", rows[:, None])
