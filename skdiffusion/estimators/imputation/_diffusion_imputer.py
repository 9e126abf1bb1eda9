"""What every imputer by diffusion does with its fitted model."""

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_feature_names,
    _check_feature_names_in,
    check_consistent_length,
    check_is_fitted,
)

from skdiffusion._device import DRAW_OFTEN, require_memory
from skdiffusion._random import draw_seed, row_keys, this_place
from skdiffusion._threads import one_thread
from skdiffusion._warn import warn
from skdiffusion.estimators._chunks import ROWS_OF_A_PIECE, by_chunks, fits_a_sample
from skdiffusion.estimators._portable import PortableEstimator
from skdiffusion.estimators.imputation._label_draws import drawn
from skdiffusion.estimators.imputation._quantiles import least_draws, quantiles_of_draws
from skdiffusion.estimators.imputation._reading import require_plain_output, warn_empty, warn_far
from skdiffusion.inputs.arguments import positive_int, quantile_levels
from skdiffusion.inputs.frames import is_frame
from skdiffusion.inputs.native import as_pandas
from skdiffusion.inputs.panels import panel_indexed
from skdiffusion.inputs.series import is_target
from skdiffusion.metrics import make_imputation_scorer
from skdiffusion.metrics._labels import mixed_crps

# Rows of tables and series in chunks that a fit learns from: see _base.py for what more would give.
_MOST_ROWS = 2**17


def _chunkwise(lead, frames=False):
    """Let a method take rows in chunks; ``lead`` gives the axis of its answer ahead of a row."""
    return by_chunks(
        lambda self, inner, given: (
            *lead(self, given),
            *inner,
            len(self.get_feature_names_out()),
        ),
        lambda self, X: self._rows_of_noise(X),
        lambda self: self._margin(),
        frames,
    )


class DiffusionImputer(TransformerMixin, PortableEstimator, ABC):
    """Base of imputers by diffusion: all that follows from four fitted objects.

    A subclass has the parameters and ``_fit``, which sets ``_reader`` (:class:`SeriesReader`: the
    form of the data), ``_columns`` (:class:`Columns`: their units), ``_model``
    (:class:`ImputationModel`: what draws) and ``_seed`` (of the noise of the draws).
    """

    @abstractmethod
    def _fit(self, X, timestamps, go_on):
        """Learn, or with ``go_on`` train the fitted model further; return the imputer."""

    @fits_a_sample(_MOST_ROWS, lambda self: self.window_length is not None)
    @one_thread()
    def fit(self, X, y=None, *, timestamps=None):
        """Learn the distribution of missing cells given observed ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), (n_samples, n_times, n_features), \
                (n_times, n_features) with ``window_length``, or list of 2-D arrays
            Data with missing values.
        y : Ignored
            Not used, present for the scikit-learn interface.
        timestamps : array-like of shape (n_times,), or list of such, optional
            Times of the rows, for irregular series; a DatetimeIndex is used by itself.

        Returns
        -------
        self : CSDIImputer
            The fitted imputer.
        """
        self._validate_params()
        return self._fit(X, timestamps, self.warm_start and hasattr(self, "_model"))

    def fit_transform(self, X, y=None, *, timestamps=None):
        """Fit, then fill the gaps of the same data.

        Parameters
        ----------
        X : array-like
            Data as for :meth:`fit`.
        y : Ignored
            Not used.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        X_imputed : ndarray, DataFrame or list
            As returned by :meth:`transform`.
        """
        return self.fit(X, y, timestamps=timestamps).transform(X, timestamps=timestamps)

    @one_thread()
    def partial_fit(self, X, y=None, *, timestamps=None):
        """Train ``max_iter`` more steps on ``X``; scales and the Gaussian stay as first fitted.

        A network that was dropped because it did not help on held-out windows starts anew.

        Parameters
        ----------
        X : array-like
            Data as for :meth:`fit`.
        y : Ignored
            Not used.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        self : CSDIImputer
            The fitted imputer.
        """
        self._validate_params()
        return self._fit(X, timestamps, hasattr(self, "_model"))

    @_chunkwise(lambda self, given: (), frames=True)
    @one_thread()
    def transform(self, X, *, timestamps=None):
        """Fill every missing cell with the median or mean of ``n_draws`` draws.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        X_imputed : ndarray, DataFrame or list
            ``X`` with its missing cells filled, in its own units; observed cells are bit for
            bit those of ``X``. A frame comes back as a frame.
        """
        data = self._read(X, timestamps)
        require_plain_output(self, data)
        statistic = np.median if self.statistic == "median" else np.mean

        def reduce(draws, columns):
            shares = self._reader.encoding.shares(columns)
            return np.where(shares, draws.mean(axis=0), statistic(draws, axis=0))

        filled = self._filled(data, reduce, self.n_draws)
        names = np.concatenate([self._names_of_features(), self._names_of_indicators()])
        return self._reader.write(data, filled, names, self.add_indicator)

    @_chunkwise(lambda self, given: (given["n_draws"] or self.n_draws,))
    @one_thread()
    def sample(self, X, n_draws=None, *, timestamps=None, random_state=None):
        """Draw completed copies of ``X``.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        n_draws : int, optional
            Number of draws, by default the parameter ``n_draws``.
        timestamps : array-like, optional
            As for :meth:`fit`.
        random_state : int, RandomState instance or None, default=None
            By default the draws are those behind :meth:`transform`.

        Returns
        -------
        draws : ndarray of shape (n_samples, n_draws, n_features), \
                (n_samples, n_draws, n_times, n_features) for panels, or list
            Joint draws in the units of ``X``; observed cells are the same in all of them. For
            one long series ``n_samples`` is its number of rows. Where ``X`` has columns of
            labels, a list of ``n_draws`` completed copies in the form of ``X``.
        """
        n_draws = self.n_draws if n_draws is None else positive_int(n_draws, "n_draws")
        data = self._read(X, timestamps)
        require_memory(n_draws * data.flat.size, f"n_draws={n_draws}", DRAW_OFTEN)
        filled = self._filled(data, lambda draws, columns: draws, n_draws, random_state)
        return self._reader.write_draws(data, filled, self._names_of_features())

    @_chunkwise(lambda self, given: np.shape(np.atleast_1d(given["quantiles"])))
    @one_thread()
    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95), *, timestamps=None):
        """Quantiles of every missing cell, from ``n_draws`` draws.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Levels between 0 and 1.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        quantiles : ndarray of shape (n_samples, n_quantiles, ...)
            Laid out as the draws of :meth:`sample`; observed cells repeat their value. Where ``X``
            has columns of labels, a list of frames, one for each level: of ordered categories the
            quantile is one of them, unordered ones have none and are the most frequent in all.
        """
        check_is_fitted(self)
        levels = quantile_levels(quantiles)
        needed = max(least_draws(level) for level in levels)
        if needed > self.n_draws:
            warn(
                f"n_draws={self.n_draws} draws cannot resolve the outermost of these quantiles: "
                f"set n_draws to {needed} or more.",
            )
        data = self._read(X, timestamps)

        def reduce(draws, columns):
            shares = self._reader.encoding.shares(columns)
            return np.where(shares, draws.mean(axis=0), quantiles_of_draws(draws, levels, axis=0))

        filled = self._filled(data, reduce, self.n_draws)
        return self._reader.write_draws(data, filled, self._names_of_features())

    @available_if(lambda self: self._reader.require_labels())
    @one_thread()
    def predict_proba(self, X, *, timestamps=None):
        """Probabilities of the categories of every cell of the columns of labels.

        Parameters
        ----------
        X : DataFrame or list of DataFrames
            Data of the form given to :meth:`fit`.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        probabilities : DataFrame or list of DataFrames
            Shares among ``n_draws`` draws, with the rows of ``X`` and a column ``(name, category)``
            for every category of every column of labels; ``probabilities["name"]`` are those of
            one. An observed category has probability 1.

        Raises
        ------
        AttributeError
            If there was no column of labels in ``fit``.
        """
        data = self._read(X, timestamps)
        filled = self._filled(data, lambda draws, columns: draws, self.n_draws)
        return self._reader.write_shares(data, filled, self._names_of_features())

    @one_thread()
    def score(self, X, y=None, *, timestamps=None):
        """Minus the continuous ranked probability score, in standard deviations of each feature.

        Labels count by the same score with a distance of 1 between categories, which is half of
        the Brier score, or of their places over the largest, where they are ordered; the mean is
        over all cells.

        Parameters
        ----------
        X : array-like
            Data of the form given to :meth:`fit`.
        y : array-like of the shape of ``X``, optional
            Truth; the cells missing in ``X`` and known in ``y`` are scored. Without it, 10 % of
            the observed cells are hidden, always the same for one ``random_state``, and scored.
            A 1-D ``y``, the target of a later step of a pipeline, is no truth and not used.
        timestamps : array-like, optional
            As for :meth:`fit`.

        Returns
        -------
        score : float
            Minus the mean CRPS (fair, from ``n_draws`` draws); higher is better.
        """
        if self.n_draws < 2:
            raise ValueError(f"n_draws={self.n_draws}: the score needs at least 2 draws.")
        check_is_fitted(self)
        X = panel_indexed(as_pandas(X), self.panel_columns)
        if is_frame(X):
            # Before anything is said of columns that are not those of the fit.
            _check_feature_names(self, X, reset=False)
        if y is not None and is_target(y):
            check_consistent_length(X, y)
        scorer = make_imputation_scorer(n_draws=self.n_draws, random_state=self._seed % 2**32)
        held = scorer.held_out(self, X, y, timestamps)
        # Constant features have no unit.
        counts = (self.scale_ > 0) | self._reader.encoding.labels
        held = held._replace(scored=held.scored & counts)
        if not held.scored.any():
            raise ValueError("There is nothing to score: the hidden features are constant.")
        return -mixed_crps(held.in_units(np.where(self.scale_ > 0, self.scale_, 1.0)))

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

    def _filled(self, data, reduce, n_draws, random_state=None):
        """Complete ``data``; ``reduce`` maps draws (n_draws, n_missing) and the column of each
        missing cell to what is filled in.
        """
        data = self._reader.with_statics(data)
        keys = row_keys(data.rows, self._seed if random_state is None else draw_seed(random_state))
        warn_empty(data, self._columns.valid)
        n_rows, out = sum(map(len, data.rows)), None
        for piece in data.pieces(ROWS_OF_A_PIECE, self._margin()):
            values = self._filled_piece(piece.data, reduce, n_draws, keys[piece.samples])
            if out is None:
                shape = (*values.shape[:-2], n_rows, values.shape[-1])
                out = np.empty(shape, dtype=values.dtype)
            out[..., piece.rows, :] = values[..., piece.own, :]
        return data.split(out)

    def _margin(self):
        """Rows around a piece of a series that say something of it; None where none is cut."""
        static = self._reader.static
        if self._reader.kind != "series" or (static is not None and static.any()):
            return None
        return self._model.reach(Bunch(**self.get_params(deep=False)))

    def _rows_of_noise(self, X):
        """Rows with gaps as they are read; all rows of a series."""
        rows = self._read(X, None).rows
        if self._reader.kind == "series":
            return rows[0]
        return rows[np.isnan(rows).any((1, 2))]

    def _filled_piece(self, data, reduce, n_draws, keys):
        """Complete a part of the data, all its rows end to end."""
        flat, valid = data.flat, self._columns.valid
        missing = np.isnan(flat)
        asked = missing & valid
        require_memory(n_draws * asked.sum(), f"n_draws={n_draws}", DRAW_OFTEN)
        of = np.nonzero(asked)[1]
        if asked.any():
            values = reduce(self._draw(data, asked, n_draws, keys), of)
        else:
            values = reduce(np.zeros((n_draws, 1)), np.zeros(1, dtype=int))[..., :0]
        out = np.broadcast_to(flat, (*values.shape[:-1], *flat.shape)).copy()
        out[..., asked] = values
        out[..., missing & ~valid] = 0.0
        return out

    def _draw(self, data, asked, n_draws, keys):
        """Draws (n_draws, n_asked) of the missing cells of valid columns, as values of these."""
        settings = Bunch(**self.get_params(deep=False))
        draws = drawn(self._reader, self._columns, self._model, data, keys, n_draws, settings)
        return self._reader.settle(data, draws, asked, keys)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(np.isnan(self.missing_values))
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_model")
