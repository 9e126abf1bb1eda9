"""Any regressor or classifier on several completed copies of the data, pooled."""

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._atomic import all_or_nothing
from skdiffusion.estimators.imputation._copies import (
    Copies,
    beside,
    check_parts,
    fitted_on,
    free_names,
    is_classifying,
    known_cells,
    read_table,
    shifted,
)
from skdiffusion.estimators.imputation._estimates import (
    by_formula,
    from_function,
    no_formula,
    pooled_results,
    read_result,
    table_of,
    warn_collinear,
)
from skdiffusion.inputs.frames import infinity_named, is_frame


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
    estimator : estimator or callable
        Regressor, or classifier with ``predict_proba``; a pipeline with a ColumnTransformer gets
        frames where ``X`` is one. Or any analysis: a function of a completed copy, ``y`` as its
        last column, that returns estimates and standard errors (Series or dicts for their names),
        or results of statsmodels; then there is no :meth:`predict`.
    n_imputations : int, default=20
        Number of completed copies.
    estimates : "auto" or callable, default="auto"
        What to pool. "auto" pools intercept and coefficients of a LinearRegression (one target)
        and of an unpenalised LogisticRegression (two classes, ``C=np.inf``), alone or as the last
        step of a pipeline; other estimators are pooled in their predictions only. A callable
        ``(estimator, X, y) -> (estimates, variances)`` returns two 1-D arrays.
    bootstrap : bool, default=True
        Fit the imputer for every copy on rows drawn with replacement, so that the copies differ
        by what is not known of its parameters, too. Without it intervals are too short. False
        fits an imputer that has ``sample`` once, which saves time where the table is so large
        that its parameters are known well, and suits rows that are steps in time.
    delta : dict, optional
        For some columns by name (or number, in an array) what is added to their filled cells, or a
        function of these, for gaps that do not come at random; see :meth:`sensitivity`.
    random_state : int, RandomState instance or None, default=None
        Seed of resampling and draws, in place of the imputer's own.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted estimators, one for each copy.
    imputers_ : list of estimators
        The fitted imputers, one for each copy, or a single one.
    pooled_ : Bunch
        What :func:`pool_rubin` returns, and ``names``: the intercept first, then one entry for
        each column that the regression sees, or what a function names; present if there is
        something to pool. :meth:`summary` is the same as a table.
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
    .. [1] Rubin 1987, "Multiple Imputation for Nonresponse in Surveys", doi:10.1002/9780470316696.
    .. [2] J. Honaker, G. King, "What to do about missing values in time-series cross-section
       data", American J. Political Science 54, 2010, https://doi.org/10.1111/j.1540-5907.2010.00447.x.

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
    >>> model.summary().index.tolist()
    ['intercept', 'x0', 'x1']
    """

    _parameter_constraints: dict = {
        "imputer": [HasMethods(["fit", "transform"])],
        "estimator": [HasMethods(["fit", "predict"]), callable],
        "n_imputations": [Interval(Integral, 2, None, closed="left")],
        "estimates": [StrOptions({"auto"}), callable],
        "bootstrap": ["boolean"],
        "delta": [dict, None],
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
        delta=None,
        random_state=None,
    ):
        self.imputer = imputer
        self.estimator = estimator
        self.n_imputations = n_imputations
        self.estimates = estimates
        self.bootstrap = bootstrap
        self.delta = delta
        self.random_state = random_state

    def fit(self, X, y=None):
        """Complete ``X`` several times, fit the estimator on each copy, and pool.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Data with missing values as NaN. A frame may hold text and categories, where the
            imputer takes them; every copy of it is a frame.
        y : array-like of shape (n_samples,)
            Targets, none missing. For a function as ``estimator`` it may be left out; with it the
            function gets a frame with ``y`` as its last column.

        Returns
        -------
        self : MultipleImputation
            The fitted estimator.

        Raises
        ------
        ValueError
            If ``y`` has missing values, if the imputer does not take the columns of ``X``, if it
            cannot draw or is a pipeline, or if ``delta`` names a column that is not there.
        TypeError
            If the imputer is a class instead of an instance, or a function returns no estimates.
        """
        self._validate_params()
        check_parts(self.imputer, self.estimator, self.bootstrap)
        with all_or_nothing(self):
            self._fit(X, y)
        return self

    def _fit(self, X, y):
        vars(self).pop("_pooled", None)
        X, y = read_table(self, X, y, function=self._is_function())
        if self._is_classifier():
            check_classification_targets(y)
            self.classes_ = np.unique(y)
        rng = check_random_state(self.random_state)
        seeds = rng.randint(2**31 - 1, size=(self.n_imputations, 3)).tolist()
        data = self._beside(X, y)
        with infinity_named(X):
            self._copies = Copies(self.imputer, seeds, self.bootstrap).fit(data)
        self.imputers_ = self._copies.imputers
        copies = self._completed(data, X, self.delta)
        self.estimators_, results = self._analyse(copies, y)
        self._pooled = pooled_results(results)
        if self.estimators_ and self.estimates == "auto" and not isinstance(self._pooled, str):
            warn_collinear(self.estimators_[0], copies[0])

    @property
    def pooled_(self):
        """Pooled estimates, as :func:`pool_rubin` returns them, and their ``names``."""
        check_is_fitted(self, "_pooled")
        if isinstance(self._pooled, str):
            raise AttributeError(self._pooled)
        return self._pooled

    def summary(self):
        """Table of the pooled estimates.

        Returns
        -------
        table : DataFrame
            A row for each estimate, by name: ``estimate``, ``standard_error``, degrees of freedom
            ``df``, the 95 % interval from ``low`` to ``high``, ``p_value`` of the t test of 0, and
            ``fraction_missing``, the share of the information that the gaps took.

        Raises
        ------
        AttributeError
            If there is nothing to pool, with the reason.
        """
        return table_of(self.pooled_)

    def sensitivity(self, X, y=None, *, column, shifts):
        """Pooled estimates if the filled cells of a column were larger or smaller than drawn.

        Draws assume that what was observed explains why the rest is missing. Where the missing
        values may differ for a reason that nothing observed shows, this tells by how much they
        would have to, for a conclusion to change: the tipping point.

        Parameters
        ----------
        X, y : array-like or DataFrame
            The data of :meth:`fit`.
        column : str or int
            Name, or number in an array, of the column whose filled cells are moved.
        shifts : sequence of float or callable
            What is added to them, one analysis for each; or functions of the filled cells. They
            come on top of ``delta`` for other columns and in place of it for this one.

        Returns
        -------
        table : DataFrame
            The rows of :meth:`summary` for every shift; the index has the levels ``shift`` (the
            name of a function) and ``name``.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.linear_model import LinearRegression
        >>> from skdiffusion import CSDIImputer, MultipleImputation
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 1))
        >>> y = X[:, 0] + rng.normal(size=200)
        >>> X[:60] = np.nan
        >>> model = MultipleImputation(
        ...     CSDIImputer(method="gaussian"), LinearRegression(), 5, random_state=0
        ... ).fit(X, y)
        >>> table = model.sensitivity(X, y, column=0, shifts=[0, 1, 2])
        >>> table.loc[(2, "x0"), "estimate"] < table.loc[(0, "x0"), "estimate"]
        np.True_
        """
        check_is_fitted(self, "_pooled")
        X, y = read_table(self, X, y, function=self._is_function(), reset=False)
        data, tables = self._beside(X, y), {}
        for shift in shifts:
            delta = {**(self.delta or {}), column: shift}
            _, results = self._analyse(self._completed(data, X, delta), y)
            pooled = pooled_results(results)
            if isinstance(pooled, str):
                raise AttributeError(pooled)
            tables[getattr(shift, "__name__", shift)] = table_of(pooled)
        import pandas as pd

        return pd.concat(tables, names=["shift", "name"])

    @available_if(_estimator_has("predict"))
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
        if self._is_classifier():
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

    @available_if(_estimator_has("predict"))
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
        loss = accuracy_score if self._is_classifier() else r2_score
        return loss(y, self.predict(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        if hasattr(self.estimator, "predict"):
            inner = get_tags(self.estimator)
            tags.estimator_type = inner.estimator_type
            tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
            tags.target_tags.required = True
        return tags

    def _is_classifier(self):
        return is_classifying(self.estimator)

    def _is_function(self):
        """Whether ``estimator`` is a function of completed copies."""
        return not hasattr(self.estimator, "fit")

    def _beside(self, X, y):
        """``X`` with columns that stand for ``y``, missing where it is None."""
        if self._is_function():
            return X
        names = ["y"]
        if self._is_classifier():
            names = [f"y_{label}" for label in self.classes_[: max(1, len(self.classes_) - 1)]]
            values = None if y is None else y[:, None] == self.classes_[: len(names)]
        else:
            values = None if y is None else y[:, None]
        values = np.full((len(X), len(names)), np.nan) if y is None else values.astype(float)
        return beside(X, values, free_names(X, names))

    def _completed(self, data, X, delta):
        """Completed copies of ``X``, the first columns of ``data``."""
        missing = ~known_cells(X)
        if not missing.any():
            copies = [X] * len(self._copies.seeds)
        else:
            n = X.shape[1]
            copies = [c.iloc[:, :n] if is_frame(c) else c[:, :n] for c in self._copies.draw(data)]
        return shifted(copies, missing, delta)

    def _analyse(self, copies, y):
        """Fitted estimators, and :class:`Estimates` of every copy or the reason for none."""
        if self._is_function():
            return [], [read_result(self.estimator(copy)) for copy in copies]
        fitted = [fitted_on(self.estimator, copy, y) for copy in copies]
        own = callable(self.estimates)
        of = from_function(self.estimates) if own else by_formula(self.estimator, y)
        if of is None:
            return fitted, no_formula(self.estimator)
        return fitted, [of(model, copy, y) for model, copy in zip(fitted, copies, strict=True)]

    def _mean(self, method, X):
        """Mean over the copies of what the estimators say."""
        check_is_fitted(self)
        X, _ = read_table(self, X, None, function=False, reset=False)
        copies = self._completed(self._beside(X, None), X, self.delta)
        parts = zip(self.estimators_, copies, strict=True)
        return np.mean([getattr(fitted, method)(copy) for fitted, copy in parts], axis=0)
