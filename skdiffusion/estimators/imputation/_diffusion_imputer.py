"""What every imputer by diffusion does with its fitted model."""

from abc import abstractmethod

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_feature_names,
    check_consistent_length,
    check_is_fitted,
)

from skdiffusion._device import DRAW_OFTEN, require_memory
from skdiffusion._threads import one_thread
from skdiffusion._warn import warn
from skdiffusion.estimators._chunks import by_chunks, fits_a_sample
from skdiffusion.estimators._tables import as_table, container_of
from skdiffusion.estimators.imputation._filling import FillingImputer
from skdiffusion.estimators.imputation._quantiles import least_draws, quantiles_of_draws
from skdiffusion.estimators.imputation._validation import require_forecast, require_plain_output
from skdiffusion.inputs.arguments import positive_int, quantile_levels
from skdiffusion.inputs.frames import is_frame
from skdiffusion.inputs.native import as_pandas
from skdiffusion.inputs.panels import panel_indexed
from skdiffusion.inputs.series import is_target
from skdiffusion.metrics import make_imputation_scorer
from skdiffusion.metrics._labels import mixed_crps
from skdiffusion.training.course import Course

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


class DiffusionImputer(FillingImputer):
    """Base of imputers by diffusion: what is asked of them. A subclass has the parameters."""

    @abstractmethod
    def _fit(self, X, timestamps, go_on, course):
        """Learn, or with ``go_on`` train the fitted model further; return the imputer."""

    @fits_a_sample(_MOST_ROWS, lambda self: self.window_length is not None)
    @one_thread()
    def fit(self, X, y=None, *, timestamps=None, checkpoint=None, resume=False):
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
        checkpoint : str or path-like, optional
            File that the state of training is written to, every 30 seconds at most, and where
            Ctrl-C or SIGTERM end it. Delete it when the fitted imputer is saved.
        resume : bool, default=False
            Whether to go on from that file where it is there: the result is that of a fit without
            a break. Parameters and data must be the same.

        Returns
        -------
        self : CSDIImputer
            The fitted imputer.
        """
        self._validate_params()
        course = Course.of(self, checkpoint, resume)
        return self._fit(X, timestamps, self.warm_start and hasattr(self, "_model"), course)

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

        A network that was dropped because it did not help on held-out windows starts anew. Trees of
        a table of 8192 rows or fewer stay as they are, and nothing is trained.

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
        return self._fit(X, timestamps, hasattr(self, "_model"), Course(self.max_time))

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

        def reduce(draws, columns):
            return self._reader.encoding.statistic(draws, columns, self.statistic == "median")

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
            labels, a list of ``n_draws`` completed copies in the form of ``X``, and after
            ``set_output`` a list of frames; of a DataArray of xarray, one with the dimension
            ``draw`` ahead.
        """
        n_draws = self.n_draws if n_draws is None else positive_int(n_draws, "n_draws")
        data = self._read(X, timestamps)
        require_memory(n_draws * data.flat.size, f"n_draws={n_draws}", DRAW_OFTEN)
        filled = self._filled(data, lambda draws, columns: draws, n_draws, random_state)
        names = self._names_of_features()
        if container_of(self) == "default" or data.form in ("3-D array", "list"):
            return self._reader.write_draws(data, filled, names)
        return [as_table(copy, self, names) for copy in self._reader.copies(data, filled, names)]

    @one_thread()
    def forecast(self, X, n_steps=1, n_draws=None, *, timestamps=None, random_state=None):
        """Draw what follows on the last row of series.

        Parameters
        ----------
        X : array-like
            Series of the form given to :meth:`fit`; cells in them may be missing.
        n_steps : int, default=1
            Number of rows to draw, one time step apart from the last one on.
        n_draws : int, optional
            Number of draws, by default the parameter ``n_draws``.
        timestamps : array-like, optional
            As for :meth:`fit`.
        random_state : int, RandomState instance or None, default=None
            By default the randomness of the estimator.

        Returns
        -------
        draws : ndarray of shape (n_steps, n_draws, n_features), or list of such
            Joint draws in the units of ``X``, laid out as those of :meth:`sample`; for several
            series (a list, a long frame) a list in their order, for a 3-D ``X`` an array of shape
            (n_samples, n_draws, n_steps, n_features).

        Raises
        ------
        ValueError
            If the imputer was fitted on a table or on samples that are whole windows, or if there
            are columns of labels.

        Notes
        -----
        It is what :meth:`sample` draws, without a network, for rows without values that are
        appended to ``X``. Networks learn gaps that have two ends: on hourly weather their bands of
        a day ahead hold less of the truth than those of the state space.
        """
        n_steps = positive_int(n_steps, "n_steps")
        n_draws = self.n_draws if n_draws is None else positive_int(n_draws, "n_draws")
        data = self._read(X, timestamps)
        require_forecast(self._reader)
        data = data.extended(n_steps)
        model = self._model.without_network()
        # The draws are those of the whole series, of which only the last rows are needed.
        keys, data = self._keys(data, random_state), data.ending(n_steps, self._margin(model))
        filled = self._filled(data, lambda draws, columns: draws, n_draws, model=model, keys=keys)
        tails = [self._reader.keep(x)[:, -n_steps:].swapaxes(0, 1) for x in data.samples(filled)]
        if data.form == "3-D array":
            return np.stack(tails).swapaxes(1, 2)
        return tails[0] if data.form == "series" else tails

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
            Of a DataArray of xarray, one with the dimension ``quantile`` ahead.
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
        names = self._names_of_features()
        return self._reader.write_draws(data, filled, names, "quantile", levels)

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
