"""Scorers of imputers: hide cells that are known, let the imputer fill them, compare."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.metadata_routing import UNUSED

from skdiffusion._warn import warn
from skdiffusion.datasets import ampute
from skdiffusion.inputs.arrays import unmasked
from skdiffusion.inputs.frames import is_frame
from skdiffusion.inputs.imputers import (
    answers,
    completed_frames,
    missing_cells,
    placeholder_of,
    require_transform,
    with_all_columns,
    with_nan,
    without_nan,
)
from skdiffusion.inputs.native import as_pandas
from skdiffusion.inputs.panels import panel_indexed
from skdiffusion.inputs.series import (
    cell_values,
    each_series,
    end_to_end,
    flattened,
    is_list_of_series,
    is_target,
    one_frame,
    require_alike,
)
from skdiffusion.metrics._labels import HeldOut, label_codes, label_names
from skdiffusion.metrics._losses import FEW_DRAWS, LOSSES, OF_A_STATISTIC
from skdiffusion.metrics._steps import require_inverse, require_no_steps, restored, unwrap
from skdiffusion.metrics._units import units_of


class ImputationScorer(BaseEstimator):
    """Scorer of imputers, made by :func:`make_imputation_scorer`."""

    # The first argument of a scorer is the estimator, which nobody routes.
    __metadata_request__score = {"estimator": UNUSED}

    def __init__(
        self, loss, missing_rate, mechanism, block_length, n_block_features, n_draws, scale,
        random_state,
    ):  # fmt: skip
        self.loss = loss
        self.missing_rate = missing_rate
        self.mechanism = mechanism
        self.block_length = block_length
        self.n_block_features = n_block_features
        self.n_draws = n_draws
        self.scale = scale
        self.random_state = random_state

    def __call__(self, estimator, X, y=None, *, timestamps=None):
        """Score a fitted imputer; what scikit-learn calls."""
        return self.score(estimator, X, y, timestamps=timestamps)

    def score(self, estimator, X, y=None, *, timestamps=None):
        """Return the score, higher being better, or a dict of scores for a list of losses."""
        panel = getattr(unwrap(estimator)[1], "panel_columns", None)
        unit = units_of(self.scale, panel_indexed(as_pandas(X), panel))
        return self._measure(self.held_out(estimator, X, y, timestamps).in_units(unit))

    def held_out(self, estimator, X, y=None, timestamps=None):
        """Truth and draws in the units of ``X``, and the mask of the cells that count."""
        steps, imputer = unwrap(estimator)
        panel = getattr(imputer, "panel_columns", None)
        X = panel_indexed(as_pandas(X), panel)
        y = as_pandas(y) if y is None or is_target(y) else panel_indexed(as_pandas(y), panel)
        if label_names(X):
            require_no_steps(steps, label_names(X))
            return self._held_out_labels(imputer, X, y, timestamps)
        placeholder = placeholder_of(imputer)
        X = each_series(unmasked(X, placeholder), lambda x: with_nan(x, placeholder))
        X, truth = self._question(X, y, placeholder)
        scored = np.isnan(flattened(X)) & ~np.isnan(truth)
        _require_cells(scored)
        draws = self._draw(
            steps, imputer, each_series(X, lambda x: without_nan(x, placeholder)), timestamps
        )
        kept = ~np.isnan(draws).all(axis=tuple(range(draws.ndim - 1)))
        scored &= kept
        _require_filled(draws, scored, steps, imputer)
        return HeldOut(truth, draws, scored)

    def _held_out_labels(self, imputer, X, y, timestamps):
        """The same for frames with columns of labels, which count by the numbers of categories."""
        truth = X if y is None or is_target(y) else y
        require_alike(X, truth)
        X = self._hide(X) if truth is X else X
        options = {} if timestamps is None else {"timestamps": timestamps}
        copies = completed_frames(imputer, X, self.n_draws, self.random_state, options)
        (truth, *draws), labels = label_codes([one_frame(truth), *copies])
        draws = np.stack(draws, axis=1)
        scored = one_frame(X).isna().to_numpy() & ~np.isnan(truth)
        _require_cells(scored)
        scored &= ~np.isnan(draws).all(axis=(0, 1))
        _require_filled(draws, scored, [], imputer)
        return HeldOut(truth, draws, scored, labels)

    def _question(self, X, y, placeholder):
        """``X`` with the cells hidden, and the truth as an array, series laid end to end."""
        if y is None or is_target(y):
            return self._hide(X), flattened(X)
        require_alike(X, y)
        truth = flattened(each_series(y, lambda x: with_nan(x, placeholder)))
        given = flattened(X)
        if truth.shape != given.shape:
            raise ValueError(
                f"y has shape {truth.shape}, but X has {given.shape}: y must be the truth, of the "
                "shape of X, or a 1-D target, which is not used"
            )
        return X, truth

    def _hide(self, X):
        """``X`` with a share of its observed cells missing, the same ones at every call."""
        random_states = check_random_state(self.random_state)
        # A single array takes the seed itself, as ampute does when called by hand.
        state = random_states if is_list_of_series(X) else self.random_state
        return each_series(X, lambda x: self._ampute(x, state))

    def _ampute(self, x, random_state):
        # What is hidden depends on the gaps alone.
        missing = x.isna().to_numpy() if label_names(x) else np.isnan(cell_values(x))
        if missing.all():
            return x
        _, hidden = ampute(
            np.where(missing, np.nan, 0.0),
            missing_rate=self.missing_rate,
            mechanism=self.mechanism,
            block_length=self.block_length,
            n_block_features=self.n_block_features,
            random_state=random_state,
        )
        return x.mask(hidden) if is_frame(x) else np.where(hidden, np.nan, cell_values(x))

    def _draw(self, steps, imputer, X, timestamps):
        """Draws in the units of ``X``, (n_samples, n_draws, ...), series laid end to end."""
        given = _as_given(steps, imputer, X)
        require_inverse(steps)
        options = {} if timestamps is None else {"timestamps": timestamps}
        answer = answers(imputer, given, self.n_draws, self.random_state, options)
        answer = each_series(
            answer, lambda x: with_all_columns(np.asarray(x, float), imputer, given)
        )
        if not steps:
            return end_to_end(answer)
        n_draws = (answer[0] if is_list_of_series(answer) else answer).shape[1]
        copies = (each_series(answer, lambda x, j=j: x[:, j]) for j in range(n_draws))
        return np.stack([flattened(restored(steps, values, X)) for values in copies], axis=1)

    def _measure(self, held):
        """One score, or several from the same draws."""
        if isinstance(self.loss, (list, tuple)):
            return dict(self._scored(loss, held) for loss in self.loss)
        return self._scored(self.loss, held)[1]

    def _scored(self, loss, held):
        """Name and value of a score."""
        n_draws = held.draws.shape[1]
        if loss in OF_A_STATISTIC and 1 < n_draws < FEW_DRAWS:
            warn(
                f"n_draws={n_draws}: the median and mean of so few draws are noisy, which "
                f'makes "{loss}" too large; draw at least {FEW_DRAWS}, or score by "crps"',
            )
        if callable(loss):
            truth, draws, scored = held.of_numbers()
            value = float(loss(truth, draws, mask=scored))
        else:
            value = float(LOSSES[loss](held))
        name = getattr(loss, "__name__", type(loss).__name__) if callable(loss) else loss
        return (name, value) if loss == "interval_coverage_90" else (f"neg_{name}", -value)


def _as_given(steps, imputer, X):
    """``X`` as the imputer sees it: the steps ahead must leave it its gaps."""
    require_transform(imputer)
    for step in steps:
        X = step.transform(X)
        if not any(missing_cells(imputer, x).any() for x in (X if is_list_of_series(X) else [X])):
            placeholder = placeholder_of(imputer)
            gaps = "gaps" if np.isnan(placeholder) else f"gaps (missing_values={placeholder})"
            raise ValueError(
                f"{type(step).__name__} ahead in the pipeline leaves no {gaps} for "
                f"{type(imputer).__name__}, the last step, which is what is scored: keep one "
                "imputer, as the last step, behind steps that pass NaN on"
            )
    return X


def _require_cells(scored):
    if not scored.any():
        raise ValueError(
            "there is nothing to score: no cell is missing in X and known in y; leave y out to "
            "have observed cells of X hidden"
        )


def _require_filled(draws, scored, steps, imputer):
    """Raise if cells that count came back empty."""
    name = type(imputer).__name__
    if not scored.any():
        raise ValueError(f"there is nothing to score: {name} drops the features with hidden cells")
    if not np.isnan(np.moveaxis(draws, 1, -1)[scored]).any():
        return
    if not steps:
        raise ValueError(f"{name} leaves missing cells unfilled: it is no imputer")
    ahead = ", ".join(type(step).__name__ for step in steps)
    raise ValueError(
        f"cells filled by {name} are NaN after inverse_transform of {ahead}: a draw lies outside "
        "the range of the transformer; take one that is defined everywhere, such as StandardScaler"
    )


# Of whatever hides cells and draws them.
HIDING_CONSTRAINTS = {
    "missing_rate": [Interval(Real, 0, 1, closed="neither")],
    "mechanism": [StrOptions({"mcar", "block", "tail", "feature"})],
    "n_draws": [Interval(Integral, 2, None, closed="left")],
    "random_state": [Interval(Integral, 0, 2**32 - 1, closed="both")],
}


@validate_params(
    {
        "loss": [StrOptions(set(LOSSES)), callable, list, tuple],
        "block_length": [Interval(Integral, 1, None, closed="left")],
        "n_block_features": [Interval(Integral, 1, None, closed="left")],
        "scale": ["array-like", None],
    }
    | HIDING_CONSTRAINTS,
    prefer_skip_nested_validation=True,
)
def make_imputation_scorer(
    loss="crps",
    *,
    missing_rate=0.1,
    mechanism="mcar",
    block_length=24,
    n_block_features=1,
    n_draws=20,
    scale=None,
    random_state=0,
):
    """Make a scorer of imputers for ``cross_validate``, ``GridSearchCV`` and their like.

    The scorer hides observed cells of the data it is given, lets the fitted imputer fill them,
    and measures the error there. Nothing is fitted again. As the hidden cells and the noise of
    the draws depend on ``random_state`` and the data alone, all candidates of a search are asked
    the same question, and their differences are less noisy than their scores.

    Parameters
    ----------
    loss : str, callable or list of these, default="crps"
        What to measure.

        - "crps": :func:`crps_loss`, unbiased for any number of draws; of labels, see below.
        - "brier": Brier score of the cells of labels, unbiased for any number of draws.
        - "mae": :func:`mean_absolute_error` of the median of the draws.
        - "rmse", "rse": :func:`root_mean_squared_error` and :func:`relative_squared_error` of
          the mean of the draws.
        - "energy_score": :func:`energy_score`; coherence of the hidden cells of a sample.
        - "interval_coverage_90": :func:`interval_coverage` of the 90 % interval. 0.9 is right,
          more is not better: watch it beside another loss, do not search for its maximum.
        - a callable ``loss(y_true, y_draws, mask=...)`` of the form of these functions.

        A list measures all of them on the same draws, and the scorer returns a dict.
    missing_rate : float, default=0.1
        Share of the observed cells to hide.
    mechanism : {"mcar", "block", "tail", "feature"}, default="mcar"
        Which cells are hidden, see :func:`skdiffusion.datasets.ampute`: take what resembles the
        gaps that will have to be filled.
    block_length : int, default=24
        Length of the runs of ``mechanism="block"``.
    n_block_features : int, default=1
        Number of features that a run hides together.
    n_draws : int, default=20
        Number of draws, for imputers that draw.
    scale : array-like of shape (n_features,), default=None
        Errors are divided by it, feature by feature, so that features of different units count
        alike; for example the standard deviations of the columns. None keeps the units of ``X``.
    random_state : int, default=0
        Fixes the hidden cells and the draws.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None, *, timestamps=None)`` returns the score, for which higher
        is better: losses have their sign changed.

    Raises
    ------
    ValueError
        When made, if a parameter is out of its range; when called, if there is nothing to score,
        if ``y`` or ``scale`` has other columns than the frame ``X``, or if a step ahead in a
        pipeline fills the gaps or has no ``inverse_transform``.

    See Also
    --------
    get_scorer : Scorers by name, with the defaults.

    Notes
    -----
    **The truth.** With a ``y`` of the shape of ``X`` nothing is hidden: the cells that are
    missing in ``X`` and known in ``y`` are scored. A 1-D ``y``, the target of another step, is
    not used.

    **Any imputer.** Draws come from ``sample(X, n_draws=..., random_state=...)`` or ``impute``
    of the same form (:class:`~skdiffusion.estimators.CSDIImputer`,
    :class:`~skdiffusion.estimators.ScoreSDE`), from repeated calls of ``transform`` where
    ``sample_posterior=True`` (:class:`sklearn.impute.IterativeImputer`), and else ``transform``
    gives the one value that is known: its CRPS is its absolute error.

    **Pipelines.** The imputer is the last step; the draws go back through ``inverse_transform``
    of the steps ahead and are compared in the units of ``X``.

    **Labels.** Where the frame ``X`` has columns of text or categories, "crps" is the mean over
    all cells of E d(X, y) - E d(X, X') / 2, the CRPS with a distance d: of numbers that of their
    values, over ``scale``; of labels 1 for any two categories, which gives half of the Brier score,
    and for ordered ones the difference of their places over the largest. The other losses count
    cells of numbers alone, and "brier" those of labels.

    **Metadata routing.** ``scorer.set_score_request(timestamps=True)`` asks for ``timestamps``,
    which are handed on to the imputer.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.impute import KNNImputer
    >>> from sklearn.model_selection import cross_val_score
    >>> from skdiffusion.metrics import make_imputation_scorer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 1)) + 0.1 * rng.normal(size=(200, 4))
    >>> scorer = make_imputation_scorer("mae", missing_rate=0.2)
    >>> cross_val_score(KNNImputer(), X, scoring=scorer, cv=3).round(1)
    array([-0.1, -0.1, -0.1])
    """
    several = isinstance(loss, (list, tuple))
    if several and not loss:
        raise ValueError(f"loss is empty: name at least one of {sorted(LOSSES)}")
    for name in loss if several else ():
        if not callable(name) and name not in LOSSES:
            raise ValueError(f"loss has {name!r}, which is none of {sorted(LOSSES)}")
    return ImputationScorer(
        loss, missing_rate, mechanism, block_length, n_block_features, n_draws, scale, random_state
    )


neg_brier_scorer = make_imputation_scorer("brier")
neg_crps_scorer = make_imputation_scorer("crps")
neg_mae_scorer = make_imputation_scorer("mae")
neg_rmse_scorer = make_imputation_scorer("rmse")
neg_rse_scorer = make_imputation_scorer("rse")
neg_energy_score_scorer = make_imputation_scorer("energy_score")
interval_coverage_90_scorer = make_imputation_scorer("interval_coverage_90")
