"""Completing data by a fitted model, piece by piece: what all answers of an imputer share."""

from abc import ABC
from dataclasses import replace

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import Bunch
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
)

from skdiffusion._device import DRAW_OFTEN, require_memory
from skdiffusion._random import draw_seed, row_keys, this_place
from skdiffusion.estimators._chunks import ROWS_OF_A_PIECE
from skdiffusion.estimators._portable import PortableEstimator
from skdiffusion.estimators.imputation._labels import drawn
from skdiffusion.estimators.imputation._validation import (
    up_to_first_value,
    warn_empty,
    warn_far,
    warn_few_steps,
)


class FillingImputer(TransformerMixin, PortableEstimator, ABC):
    """Imputer of four fitted objects.

    They are ``_reader`` (:class:`SeriesReader`: the form of the data), ``_columns``
    (:class:`Columns`: their units), ``_model`` (:class:`ImputationModel`: what draws) and
    ``_seed`` (of the noise of the draws).
    """

    def get_feature_names_out(self, input_features=None):
        """Names of the output columns.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the features; by default those seen in ``fit``.

        Returns
        -------
        names : ndarray of str
            Kept features, panel columns among them at their places, then indicators.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        out = self._reader.with_panel_columns(names[self._reader.kept])
        return np.concatenate([out, self._names_of_indicators()]).astype(object)

    def _names_of_features(self):
        """Names of the features that come back, without indicators."""
        return _check_feature_names_in(self, None)[self._reader.kept].astype(object)

    def _names_of_indicators(self):
        """Names of the columns that say what was missing, if they are wanted."""
        wanted = self._reader.indicated & self.add_indicator
        return [f"missingindicator_{name}" for name in _check_feature_names_in(self, None)[wanted]]

    def _read(self, X, timestamps):
        """Read ``X``; the parameters may have been set since ``fit``."""
        check_is_fitted(self)
        self._validate_params()
        data = self._reader.read(self, X, timestamps)
        names = _check_feature_names_in(self, None)[self._reader.encoding.owner]
        warn_far(data, self._columns, names)
        return replace(data, first=this_place().first)

    def _keys(self, data, random_state=None):
        """Keys of the noise of every sample."""
        # What comes later must not change the draws of what came before, not even their noise.
        rows = [up_to_first_value(x) for x in data.rows] if self.direction == "past" else data.rows
        return row_keys(rows, self._seed if random_state is None else draw_seed(random_state))

    def _filled(self, data, reduce, n_draws, random_state=None, model=None, keys=None):
        """Complete ``data``; ``reduce`` maps draws (n_draws, n_missing) and the column of each
        missing cell to what is filled in. Another model than the fitted one may draw, with the
        noise of other samples.
        """
        model = self._model if model is None else model
        data = self._reader.with_statics(data, self.direction == "past")
        keys = self._keys(data, random_state) if keys is None else keys
        warn_empty(data, self._columns.valid)
        if model.solves and self.direction == "both":
            warn_few_steps(model.denoiser, Bunch(**self.get_params(deep=False)))
        n_rows, out = sum(map(len, data.rows)), None
        for piece in data.pieces(ROWS_OF_A_PIECE, self._margin(model)):
            values = self._filled_piece(piece.data, reduce, n_draws, keys[piece.samples], model)
            if out is None:
                shape = (*values.shape[:-2], n_rows, values.shape[-1])
                out = np.empty(shape, dtype=values.dtype)
            out[..., piece.rows, :] = values[..., piece.own, :]
        return data.split(out)

    def _margin(self, model=None):
        """Rows around a piece of a series that say something of it; None where none is cut."""
        static = self._reader.static
        if self._reader.kind != "series" or (static is not None and static.any()):
            return None
        model = self._model if model is None else model
        return model.reach(Bunch(**self.get_params(deep=False)))

    def _rows_of_noise(self, X):
        """Rows with gaps as they are read; all rows of a series."""
        rows = self._read(X, None).rows
        if self._reader.kind == "series":
            return rows[0]
        return rows[np.isnan(rows).any((1, 2))]

    def _filled_piece(self, data, reduce, n_draws, keys, model):
        """Complete a part of the data, all its rows end to end."""
        flat, valid = data.flat, self._columns.valid
        missing = np.isnan(flat)
        asked = missing & valid
        require_memory(n_draws * asked.sum(), f"n_draws={n_draws}", DRAW_OFTEN)
        of = np.nonzero(asked)[1]
        if asked.any():
            values = reduce(self._draw(data, asked, n_draws, keys, model), of)
        else:
            values = reduce(np.zeros((n_draws, 1)), np.zeros(1, dtype=int))[..., :0]
        out = np.broadcast_to(flat, (*values.shape[:-1], *flat.shape)).copy()
        out[..., asked] = values
        out[..., missing & ~valid] = 0.0
        return out

    def _draw(self, data, asked, n_draws, keys, model):
        """Draws (n_draws, n_asked) of the missing cells of valid columns, as values of these."""
        settings = Bunch(**self.get_params(deep=False))
        draws = drawn(self._reader, self._columns, model, data, keys, n_draws, settings)
        return self._reader.settle(data, draws, asked, keys, self.direction == "past")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(np.isnan(self.missing_values))
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_model")
