"""Intervals of an imputer, adjusted on cells whose truth is known.

Letters. ``y`` the truth of a cell, ``q`` a quantile of its draws, ``u`` their spread (standard
deviation). The calibration cells give :math:`e_i = (y_i - q_i) / u_i`; if they and a new cell are
exchangeable, the rank of the new :math:`e` among them is uniform, so that the k-th smallest of the
n exceeds it with probability at least :math:`k / (n + 1)`, whatever the imputer.
"""

import math

import numpy as np
from sklearn.utils._param_validation import validate_params

from skdiffusion.estimators.imputation._quantiles import least_draws, quantiles_of_draws
from skdiffusion.inputs.arguments import quantile_levels
from skdiffusion.inputs.encoding import is_boolean, is_label
from skdiffusion.inputs.imputers import (
    answers,
    completed_frames,
    drawing_method,
    missing_cells,
    require_imputer_alone,
    with_all_columns,
)
from skdiffusion.inputs.native import as_pandas, from_columns, is_native
from skdiffusion.inputs.panels import panel_indexed
from skdiffusion.metrics import make_imputation_scorer
from skdiffusion.metrics._imputation_scorer import HIDING_CONSTRAINTS
from skdiffusion.metrics._labels import label_names


@validate_params(HIDING_CONSTRAINTS, prefer_skip_nested_validation=False)
def conformalize(
    imputer,
    X,
    y=None,
    *,
    timestamps=None,
    missing_rate=0.1,
    mechanism="mcar",
    n_draws=100,
    random_state=0,
):
    """Make the quantiles of a fitted imputer reach their level, by split conformal prediction.

    Known cells of data that the imputer was not fitted on are hidden and drawn. From how the truth
    lies among the draws follows by how much each quantile must be moved.

    Parameters
    ----------
    imputer : estimator
        Fitted imputer with ``sample(X, n_draws, random_state=...)``, such as
        :class:`CSDIImputer`, or with ``sample_posterior=True``.
    X : array-like of shape (n_samples, n_features) or (n_samples, n_times, n_features)
        Data for calibration, which the imputer has not seen in ``fit``. In a frame with labels
        the columns of numbers are calibrated.
    y : array-like of the shape of ``X``, default=None
        Truth; the cells missing in ``X`` and known in ``y`` are used. Without it a share of the
        observed cells of ``X`` is hidden.
    timestamps : array-like of shape (n_times,), optional
        Times of the rows, for an imputer that takes them.
    missing_rate : float, default=0.1
        Share of the observed cells to hide.
    mechanism : {"mcar", "block", "tail", "feature"}, default="mcar"
        Which cells are hidden, see :func:`skdiffusion.datasets.ampute`: take what resembles the
        gaps that will have to be filled.
    n_draws : int, default=100
        Number of draws behind the quantiles.
    random_state : int, default=0
        Fixes the hidden cells and the draws.

    Returns
    -------
    conformal : ConformalImputer
        The imputer with adjusted ``predict_quantiles``.

    Raises
    ------
    ValueError
        If the imputer does not draw or is a pipeline, if ``y`` is a frame with other columns or
        rows than those of the frame ``X``, or if no cell is known to calibrate on.
    TypeError
        If the imputer is a class instead of an instance.

    Notes
    -----
    Each quantile is moved by a multiple of the spread of the cell's draws, the same multiple for
    all cells of a feature. The interval between an adjusted lower and upper quantile then holds
    a new cell with at least its nominal probability, averaged over cells: theorem 2 of [1]_, with
    the scores scaled. This needs cells that are exchangeable with those hidden: like gaps, like
    times. It is no promise for every single cell.

    References
    ----------
    .. [1] Y. Romano, E. Patterson, E. Candès, "Conformalized quantile regression", NeurIPS 2019,
       https://arxiv.org/abs/1905.03222.
    .. [2] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic learning in a random world", Springer,
       2005, section 4.5 (categories of their own, Mondrian), https://doi.org/10.1007/b106715.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion import CSDIImputer
    >>> from skdiffusion.estimators import conformalize
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_exponential(size=(600, 1)) + 0.5 * rng.normal(size=(600, 3))
    >>> imputer = CSDIImputer(method="gaussian", random_state=0).fit(X[:300])
    >>> conformal = conformalize(imputer, X[300:], missing_rate=0.3)
    >>> X[0, 0] = np.nan
    >>> conformal.predict_quantiles(X[:1], [0.05, 0.95]).shape
    (1, 2, 3)
    """
    require_imputer_alone(imputer)
    if drawing_method(imputer) is None and not getattr(imputer, "sample_posterior", False):
        raise ValueError(
            f"imputer={imputer!r} does not draw, so it has no intervals to adjust: take "
            "CSDIImputer, or IterativeImputer(sample_posterior=True)."
        )
    scorer = make_imputation_scorer(
        missing_rate=missing_rate, mechanism=mechanism, n_draws=n_draws, random_state=random_state
    )
    held = scorer.held_out(imputer, X, y, timestamps)
    truth, draws, scored = held.truth, held.draws, held.scored
    if held.labels is not None:
        scored = scored & _are_numbers(panel_indexed(as_pandas(X), _panel_of(imputer)))
        if not scored.any():
            raise ValueError(
                f"no hidden cell is in a column of numbers among {held.labels.names}: labels have "
                "no intervals. Give X columns of numbers with known cells; probabilities of labels "
                "are given by predict_proba of CSDIImputer."
            )
    cells = np.moveaxis(draws, 1, -1)[scored]
    return ConformalImputer(imputer, truth[scored], cells, np.nonzero(scored)[-1], random_state)


class ConformalImputer:
    """A fitted imputer whose quantiles were adjusted, made by :func:`conformalize`.

    Parameters
    ----------
    imputer : estimator
        Fitted imputer that draws.
    truth : ndarray of shape (n_cells,)
        True values of the calibration cells.
    draws : ndarray of shape (n_cells, n_draws)
        Draws of these cells.
    features : ndarray of int of shape (n_cells,)
        Feature of each cell.
    random_state : int, default=0
        Seed of the draws behind the quantiles.

    See Also
    --------
    conformalize : How to make one, with the theory.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion import CSDIImputer
    >>> from skdiffusion.estimators import conformalize
    >>> X = np.random.default_rng(0).normal(size=(400, 2))
    >>> imputer = CSDIImputer(method="gaussian", random_state=0).fit(X[:200])
    >>> conformalize(imputer, X[200:], missing_rate=0.4).transform(X[:3]).shape
    (3, 2)
    """

    def __init__(self, imputer, truth, draws, features, random_state=0):
        self.imputer = imputer
        self.truth, self.draws, self.features = truth, draws, features
        self.random_state = random_state

    def transform(self, X, *, timestamps=None):
        """Fill the gaps as the imputer does.

        Parameters
        ----------
        X : array-like
            Data of the form given to the imputer.
        timestamps : array-like of shape (n_times,), optional
            Times of the rows, for an imputer that takes them.

        Returns
        -------
        X_imputed : array-like
            What the imputer returns.
        """
        return self.imputer.transform(X, **_options(timestamps))

    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95), *, timestamps=None):
        """Adjusted quantiles of every missing cell.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_times, n_features)
            Data with gaps.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Levels between 0 and 1.
        timestamps : array-like of shape (n_times,), optional
            Times of the rows, for an imputer that takes them.

        Returns
        -------
        quantiles : ndarray of shape (n_samples, n_quantiles, ...)
            Increasing along axis 1; observed cells repeat their value. Without the features that
            the imputer drops. Where ``X`` has columns of labels, a list of frames, one for each
            level, in which labels are filled as by :meth:`transform`.

        Raises
        ------
        ValueError
            If there are too few calibration cells for a level: 19 for 0.05 and 0.95.
        """
        levels = quantile_levels(quantiles)
        if isinstance(X, (list, tuple)) and any(np.ndim(x) > 1 for x in X):
            raise ValueError("X is a list of series: stack those of one length to a 3-D array.")
        given, seed, options = X, self.random_state, _options(timestamps)
        X = panel_indexed(as_pandas(X), _panel_of(self.imputer))
        if label_names(X):
            return self._frames(given, X, levels, options)
        draws = np.asarray(answers(self.imputer, X, self.draws.shape[1], seed, options), float)
        draws = np.moveaxis(with_all_columns(draws, self.imputer, X), 1, -1)
        missing = missing_cells(self.imputer, X)
        if missing.shape != draws.shape[:-1]:
            raise ValueError(f"X has shape {missing.shape}, its draws have {draws.shape[:-1]}.")
        moved = self._moved(draws, missing, levels, np.arange(missing.shape[-1]))
        moved = moved[..., ~np.isnan(draws).reshape(-1, *draws.shape[-2:]).all(axis=(0, 2))]
        return np.moveaxis(moved, 0, 1)

    def _frames(self, given, X, levels, options):
        """Completed frames, one for each level, in which the columns of numbers have quantiles."""
        filled = as_pandas(self.imputer.transform(given, **options))
        own = np.flatnonzero(_are_numbers(X) & X.columns.isin(filled.columns))
        copies = completed_frames(self.imputer, X, self.draws.shape[1], self.random_state, options)
        draws = np.stack(
            [x.iloc[:, own].to_numpy(dtype=float, na_value=np.nan) for x in copies], axis=-1
        )
        moved = self._moved(draws, X.iloc[:, own].isna().to_numpy(), levels, own)
        names = X.columns[own]
        frames = [filled.assign(**dict(zip(names, values.T))) for values in moved]
        if not is_native(given):
            return frames
        return [from_columns({name: x[name].to_numpy() for name in x}, given) for x in frames]

    def _moved(self, draws, missing, levels, features):
        """Adjusted quantiles of draws (..., n_features, n_draws), ahead of their other axes."""
        n_features = 1 + max(np.max(features), np.max(self.features))
        shifts = np.array([self._shifts(level, n_features)[features] for level in levels])
        # Features are on the last axis of X: the middle ones, of time, are all alike.
        shifts = shifts.reshape(len(levels), *[1] * (missing.ndim - 1), -1)
        moved = quantiles_of_draws(draws, levels, axis=-1) + missing * _spread(draws) * shifts
        order = np.argsort(levels, kind="stable")
        moved[order] = np.sort(moved, axis=0)
        return moved

    def _shifts(self, level, n_features):
        """Multiple of the spread by which the quantile of each feature moves."""
        scores = (self.truth - quantiles_of_draws(self.draws, level, axis=-1)) / _spread(self.draws)
        pooled = _conformal_quantile(scores, level)
        if pooled is None:
            raise ValueError(
                f"quantile {level:g} takes at least {least_draws(level)} calibration cells, but "
                f"there are {len(scores)}: calibrate on more data or a larger missing_rate."
            )
        own = [_conformal_quantile(scores[self.features == k], level) for k in range(n_features)]
        return np.array([pooled if shift is None else shift for shift in own])


def _panel_of(imputer):
    """The panel columns of an imputer that has such."""
    return getattr(imputer, "panel_columns", None)


def _are_numbers(X):
    """Which columns of a frame, or of the first of a list, are neither labels nor booleans."""
    x = X[0] if isinstance(X, (list, tuple)) else X
    return np.array([not (is_label(x[name]) or is_boolean(x[name])) for name in x.columns])


def _options(timestamps):
    """Arguments for an imputer that takes times, none without them."""
    return {} if timestamps is None else {"timestamps": timestamps}


def _conformal_quantile(scores, level):
    """Order statistic that a new score exceeds, in either tail, no more often than it should."""
    n = len(scores)
    # The small shift undoes rounding where the level is reached exactly.
    upper = math.ceil(level * (n + 1) - 1e-9)
    k = upper if level >= 0.5 else math.floor(level * (n + 1) + 1e-9)
    return np.partition(scores, k - 1)[k - 1] if 1 <= k <= n else None


def _spread(draws):
    """Standard deviation of the draws; 1 where they all agree."""
    spread = draws.std(axis=-1)
    return np.where(spread > 0, spread, 1.0)
