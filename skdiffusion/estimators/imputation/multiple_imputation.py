"""Any regressor or classifier on several completed copies of the data, pooled."""

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skdiffusion._warn import warn
from skdiffusion.estimators._atomic import all_or_nothing
from skdiffusion.estimators.imputation._pooling import collinear, pool_rubin, variance_formula
from skdiffusion.inputs.frames import infinity_named, is_frame, numeric_frame
from skdiffusion.inputs.imputers import answers, drawing_method, require_imputer_alone
from skdiffusion.inputs.series import unmasked


def _estimator_has(method):
    return lambda self: hasattr(self.estimator, method)


class MultipleImputation(MetaEstimatorMixin, BaseEstimator):
    """A regressor or classifier fitted on several completed copies of ``X``, and pooled.

    One filled-in copy pretends that the filled cells were measured: intervals come out too
    narrow. Several copies, drawn from the distribution of the missing cells, differ by what is
    not known; predictions are averaged over them, and coefficients are pooled by Rubin's rules.

    Parameters
    ----------
    imputer : estimator
        What draws the missing cells: it has ``sample(X, n_draws, random_state=...)``, as
        :class:`CSDIImputer`, or such an ``impute``, as :class:`ScoreSDE` with
        ``handle_missing="impute"``, or ``sample_posterior=True``, as
        :class:`sklearn.impute.IterativeImputer`.
    estimator : estimator
        Regressor, or classifier with ``predict_proba``.
    n_imputations : int, default=20
        Number of completed copies.
    estimates : "auto" or callable, default="auto"
        What to pool. "auto" pools intercept and coefficients of a LinearRegression (ordinary
        least squares, one target) and of an unpenalised LogisticRegression (two classes,
        ``C=np.inf``); other estimators are pooled in their predictions only. A callable
        ``(estimator, X, y) -> (estimates, variances)`` gets a fitted estimator and its copy, and
        returns two 1-D arrays.
    bootstrap : bool, default=True
        Fit the imputer for every copy on rows drawn with replacement, so that the copies differ
        by what is not known of its parameters, too. Without it intervals are too short. False
        fits an imputer that has ``sample`` once, which saves time where the table is so large
        that its parameters are known well, and suits rows that are steps in time.
    random_state : int, RandomState instance or None, default=None
        Seed of resampling and draws, in place of the imputer's own.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted estimators, one for each copy.
    imputers_ : list of estimators
        The fitted imputers, one for each copy, or a single one.
    pooled_ : Bunch
        What :func:`pool_rubin` returns, intercept first, then one entry for each column of
        ``X``; present if there is something to pool.
    classes_ : ndarray of shape (n_classes,)
        The classes, for a classifier.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, if ``X`` was a frame.

    See Also
    --------
    pool_rubin : The pooling alone, for estimates from anywhere.

    Notes
    -----
    In ``fit`` the imputer sees ``y`` beside ``X``: without it, filled cells would be unrelated to
    ``y`` and the coefficients too small. When predicting, ``y`` counts as missing.

    Rubin's rules need *proper* imputations: copies that also vary as the parameters of the imputer
    do under new data. Fitting on resampled rows does this for any imputer [2]_. A bias of the
    draws goes into the estimates, whatever is resampled.

    References
    ----------
    .. [1] D. B. Rubin, "Multiple Imputation for Nonresponse in Surveys", Wiley, 1987.
    .. [2] J. Honaker, G. King, "What to do about missing values in time-series cross-section
       data", American Journal of Political Science 54, 2010 (imputation by EM with
       bootstrapping).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from skdiffusion import CSDIImputer, MultipleImputation
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = X.sum(axis=1) + rng.normal(size=200)
    >>> X[rng.uniform(size=X.shape) < 0.3] = np.nan
    >>> model = MultipleImputation(
    ...     CSDIImputer(method="gaussian"), LinearRegression(), n_imputations=5, random_state=0
    ... ).fit(X, y)
    >>> model.predict(X).shape, model.pooled_.standard_error.shape
    ((200,), (3,))
    """

    _parameter_constraints: dict = {
        "imputer": [HasMethods(["fit", "transform"])],
        "estimator": [HasMethods(["fit", "predict"])],
        "n_imputations": [Interval(Integral, 2, None, closed="left")],
        "estimates": [StrOptions({"auto"}), callable],
        "bootstrap": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        imputer,
        estimator,
        n_imputations=20,
        *,
        estimates="auto",
        bootstrap=True,
        random_state=None,
    ):
        self.imputer = imputer
        self.estimator = estimator
        self.n_imputations = n_imputations
        self.estimates = estimates
        self.bootstrap = bootstrap
        self.random_state = random_state

    def fit(self, X, y):
        """Complete ``X`` several times, fit the estimator on each copy, and pool.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data with missing values as NaN.
        y : array-like of shape (n_samples,)
            Targets, none missing.

        Returns
        -------
        self : MultipleImputation
            The fitted estimator.

        Raises
        ------
        ValueError
            If ``y`` has missing values, if a column of the frame ``X`` holds no numbers, or if
            the imputer cannot draw or is a pipeline.
        TypeError
            If the imputer is a class instead of an instance.
        """
        self._validate_params()
        self._check_parts()
        _check_target(y)
        with all_or_nothing(self):
            self._fit(X, y)
        return self

    def _fit(self, X, y):
        """Fit all of it."""
        options = {"dtype": float, "ensure_all_finite": "allow-nan", "ensure_min_samples": 2}
        with infinity_named(X):
            X, y = validate_data(self, _numeric(X), y, **options)
        vars(self).pop("_pooled", None)
        beside = self._learn_target(y)
        rng = check_random_state(self.random_state)
        # Of every copy the seeds of resampling, fitting and drawing.
        self._seeds = rng.randint(2**31 - 1, size=(self.n_imputations, 3)).tolist()
        data = np.column_stack([X, beside])
        self.imputers_ = self._fit_imputers(data)
        copies = self._copies(data)
        self.estimators_ = [clone(self.estimator).fit(copy, y) for copy in copies]
        self._pool(copies, y)

    @property
    def pooled_(self):
        """Pooled estimates, as :func:`pool_rubin` returns them."""
        check_is_fitted(self, "estimators_")
        if "_pooled" not in vars(self):
            raise AttributeError(self._not_pooled)
        return self._pooled

    def predict(self, X):
        """Mean prediction over the copies; for a classifier the class of the largest mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data; missing values as NaN are drawn, once for each copy.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Predictions or classes.
        """
        check_is_fitted(self)
        if is_classifier(self.estimator):
            return self.classes_[self.predict_proba(X).argmax(axis=1)]
        return self._mean("predict", X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Mean class probabilities over the copies.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data as for :meth:`predict`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        return self._mean("predict_proba", X)

    def score(self, X, y):
        """Coefficient of determination, or accuracy of a classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data as for :meth:`predict`.
        y : array-like of shape (n_samples,)
            True targets.

        Returns
        -------
        score : float
            Higher is better.
        """
        loss = accuracy_score if is_classifier(self.estimator) else r2_score
        return loss(y, self.predict(X))

    def __sklearn_tags__(self):
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True
        return tags

    def _check_parts(self):
        """Raise unless the imputer draws and a classifier gives probabilities."""
        require_imputer_alone(self.imputer)
        if not (self._samples() or getattr(self.imputer, "sample_posterior", False)):
            raise ValueError(
                f"imputer={self.imputer!r} fills every copy alike: take CSDIImputer, or "
                "IterativeImputer(sample_posterior=True)."
            )
        if self.bootstrap and getattr(self.imputer, "window_length", None) is not None:
            raise ValueError(
                "bootstrap=True resamples rows, but with window_length they are steps in time: "
                "set bootstrap=False."
            )
        if is_classifier(self.estimator) and not hasattr(self.estimator, "predict_proba"):
            raise ValueError(
                f"estimator={self.estimator!r} has no predict_proba to pool: wrap it in "
                "CalibratedClassifierCV."
            )

    def _learn_target(self, y):
        """Columns that stand for ``y`` beside ``X``."""
        if not is_classifier(self.estimator):
            self._n_beside = 1
            return np.asarray(y, dtype=float)[:, None]
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        self._n_beside = max(1, len(self.classes_) - 1)
        return (y[:, None] == self.classes_[: self._n_beside]).astype(float)

    def _samples(self):
        """Whether one fitted imputer draws as many copies as asked for."""
        return drawing_method(self.imputer) is not None

    def _fit_imputers(self, data):
        """One imputer for each copy, or a single one that draws them all."""
        single = self._samples() and not self.bootstrap
        return [self._fit_imputer(data, *seeds) for seeds in self._seeds[: 1 if single else None]]

    def _fit_imputer(self, data, row_seed, seed, _):
        """Fit an imputer with its own seed, on resampled rows if wanted."""
        imputer = clone(self.imputer)
        if "random_state" in imputer.get_params(deep=False):
            imputer.set_params(random_state=seed)
        return imputer.fit(_resampled(data, row_seed) if self.bootstrap else data)

    def _copies(self, data):
        """Completed copies of the columns of ``X``."""
        if not np.isnan(data[:, : self.n_features_in_]).any():
            return [data[:, : self.n_features_in_]] * len(self._seeds)
        each = len(self._seeds) // len(self.imputers_)
        draws = [
            answers(imputer, data, each, seed)
            for imputer, (*_, seed) in zip(self.imputers_, self._seeds)
        ]
        copies = np.moveaxis(np.concatenate(draws, axis=1), 1, 0)
        return list(copies[:, :, : -self._n_beside])

    def _mean(self, method, X):
        """Mean over the copies of what the estimators say."""
        check_is_fitted(self)
        with infinity_named(X):
            X = validate_data(
                self, _numeric(X), reset=False, dtype=float, ensure_all_finite="allow-nan"
            )
        data = np.column_stack([X, np.full((len(X), self._n_beside), np.nan)])
        parts = zip(self.estimators_, self._copies(data), strict=True)
        return np.mean([getattr(fitted, method)(copy) for fitted, copy in parts], axis=0)

    def _pool(self, copies, y):
        """Set ``pooled_`` if the estimates have variances."""
        of = self.estimates if callable(self.estimates) else variance_formula(self.estimator, y)
        self._not_pooled = (
            f"pooled_ is missing: no variance of the coefficients of {self.estimator!r} is known, "
            "so only its predictions are pooled. Pass estimates=, a function that returns "
            "estimates and variances, or take LinearRegression or, for two classes, "
            "LogisticRegression(C=np.inf)."
        )
        if of is None:
            return
        pairs = zip(self.estimators_, copies, strict=True)
        found = [of(fitted, copy, y) for fitted, copy in pairs]
        estimates, variances = (np.array(part) for part in zip(*found, strict=True))
        df = len(y) - estimates.shape[1]
        if df <= 0:
            self._not_pooled = (
                f"pooled_ is missing: {len(y)} samples are no more than the "
                f"{estimates.shape[1]} estimates; give more samples or fewer columns."
            )
            return
        if not callable(self.estimates):
            self._warn_collinear(copies[0])
        self._pooled = pool_rubin(estimates, variances, complete_df=df)

    def _warn_collinear(self, X):
        """Name the columns that have no coefficient of their own."""
        which = collinear(X, self.estimator.fit_intercept)
        if which.any():
            names = getattr(self, "feature_names_in_", np.arange(X.shape[1]))[which].tolist()
            warn(
                f"Columns {names} of X are constant or follow from each other: their coefficients "
                "are not determined and those in pooled_ mean nothing; drop such columns.",
            )


def _numeric(X):
    """A frame with its columns as numbers; raises for those that are none. No masks."""
    return numeric_frame(X) if is_frame(X) else unmasked(X)


def _resampled(data, seed):
    """Rows drawn with replacement; a column that has values in ``data`` keeps some."""
    rng, known = check_random_state(seed), ~np.isnan(data)
    rows = rng.randint(len(data), size=len(data))
    for k in np.flatnonzero(known.any(axis=0) & ~known[rows].any(axis=0)):
        rows[k % len(rows)] = rng.choice(np.flatnonzero(known[:, k]))
    return data[rows]


def _check_target(y):
    """Raise for missing targets, and say what to do."""
    values = np.asarray(y, dtype=object).ravel() if y is not None else np.array([])
    n_missing = sum(isinstance(v, float | np.floating) and np.isnan(v) for v in values)
    if n_missing:
        raise ValueError(
            f"y contains NaN, {n_missing} of {len(values)}: drop these rows. They say nothing "
            "about y given X; use predict for them."
        )
