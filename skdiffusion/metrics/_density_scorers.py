"""Scorers of densities and samplers, and the scorers by name."""

import copy
import inspect

import numpy as np

from skdiffusion.metrics._imputation_scorer import (
    interval_coverage_90_scorer,
    neg_brier_scorer,
    neg_crps_scorer,
    neg_energy_score_scorer,
    neg_mae_scorer,
    neg_rmse_scorer,
    neg_rse_scorer,
)
from skdiffusion.metrics._sliced_wasserstein import sliced_wasserstein
from skdiffusion.metrics._steps import log_jacobian, require_inverse, restored, transformed, unwrap


def log_likelihood_scorer(estimator, X, y=None):
    r"""Score a density by the mean log-likelihood of held-out rows.

    Parameters
    ----------
    estimator : estimator
        Fitted density with ``score_samples``, or a pipeline or search that ends with one.
    X : array-like of shape (n_samples, n_features)
        Rows that were not used to fit.
    y : None
        Not used.

    Returns
    -------
    score : float
        Mean log-density in nats, in the units of ``X``; higher is better.

    Raises
    ------
    TypeError
        If the estimator has no ``score_samples``.
    ValueError
        If the steps ahead in a pipeline do not map all columns one to one.

    See Also
    --------
    neg_nll_bound_scorer : Score by the bound instead.

    Notes
    -----
    A pipeline's own ``score_samples`` is the density of what the model sees, which a change of
    units shifts: candidates with other scalers cannot be compared by it. Here

    .. math:: \log p(x) = \log p_z(z(x)) + \log |\det \partial z / \partial x|,

    with the Jacobian of the steps ahead by central differences, which takes two transforms a
    column. Unlike ``KernelDensity.score`` it is a mean over the rows, not a sum.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skdiffusion.metrics import log_likelihood_scorer
    >>> X = 1000 * np.random.default_rng(0).normal(size=(300, 2))
    >>> alone = GaussianMixture().fit(X)
    >>> scaled = make_pipeline(StandardScaler(), GaussianMixture()).fit(X)
    >>> round(log_likelihood_scorer(alone, X), 3) == round(log_likelihood_scorer(scaled, X), 3)
    True
    """
    steps, model = unwrap(estimator)
    log_density = _method(model, "score_samples")(transformed(steps, X))
    return float(np.mean(log_density + log_jacobian(steps, X)))


def neg_nll_bound_scorer(estimator, X, y=None):
    """Score a diffusion model by the bound on the likelihood of held-out rows.

    The bound is that of the SDE model and cheaper than the likelihood of the ODE model, which is
    another distribution. It is not a likelihood: do not compare it with that of other densities.

    Parameters
    ----------
    estimator : estimator
        Fitted model with ``nll_bound`` (:class:`~skdiffusion.estimators.ScoreSDE`), or a pipeline
        or search that ends with one.
    X : array-like of shape (n_samples, n_features)
        Rows that were not used to fit.
    y : None
        Not used.

    Returns
    -------
    score : float
        Minus the mean bound in nats, in the units of ``X``; higher is better.

    Raises
    ------
    TypeError
        If the estimator has no ``nll_bound``.
    ValueError
        If the steps ahead in a pipeline do not map all columns one to one.

    See Also
    --------
    log_likelihood_scorer : Score by the likelihood; how steps ahead are accounted for.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion import ScoreSDE
    >>> from skdiffusion.metrics import neg_nll_bound_scorer
    >>> X = np.random.default_rng(0).normal(size=(300, 2))
    >>> model = ScoreSDE(base="gaussian", max_iter=0, random_state=0).fit(X[:200])
    >>> round(neg_nll_bound_scorer(model, X[200:]))
    -3
    """
    steps, model = unwrap(estimator)
    bound = _method(model, "nll_bound")(transformed(steps, X))
    return float(np.mean(log_jacobian(steps, X) - bound))


def neg_sliced_wasserstein_scorer(estimator, X, y=None):
    """Score a sampler by the distance between its draws and held-out rows.

    Parameters
    ----------
    estimator : estimator
        Fitted model with ``sample(n_samples)``, or a pipeline or search that ends with one.
    X : array-like of shape (n_samples, n_features)
        Rows that were not used to fit; as many are drawn.
    y : None
        Not used.

    Returns
    -------
    score : float
        Minus :func:`sliced_wasserstein`, in the units of ``X``; higher is better. Even exact
        draws do not reach 0.

    Raises
    ------
    TypeError
        If the estimator has no ``sample(n_samples)``.

    See Also
    --------
    log_likelihood_scorer : Judges densities with less noise, where there is a density.

    Notes
    -----
    Draws are made with ``random_state=0`` where ``sample`` takes one, so that all candidates see
    the same noise. Features of large units rule the distance: scale ``X`` first.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KernelDensity
    >>> from skdiffusion.metrics import neg_sliced_wasserstein_scorer
    >>> X = np.random.default_rng(0).normal(size=(400, 2))
    >>> narrow, wide = (KernelDensity(bandwidth=h).fit(X[:200]) for h in (0.1, 3.0))
    >>> scores = [neg_sliced_wasserstein_scorer(model, X[200:]) for model in (narrow, wide)]
    >>> scores[0] > scores[1]
    True
    """
    steps, model = unwrap(estimator)
    require_inverse(steps)
    sample = _method(model, "sample")
    arguments = inspect.signature(sample).parameters
    if "n_samples" not in arguments:
        raise TypeError(f"{type(model).__name__}.sample does not take n_samples")
    seed = {"random_state": 0} if "random_state" in arguments else {}
    rows = sample(n_samples=len(X), **seed)
    # Mixtures return their labels, too.
    rows = rows[0] if isinstance(rows, tuple) else rows
    return -sliced_wasserstein(X, restored(steps, rows, X))


def _method(model, name):
    """Return a method of the model; say so if it lacks it."""
    if isinstance(model, type):
        raise TypeError(f"the estimator is the class {model.__name__}: pass an instance")
    if not hasattr(model, name):
        raise TypeError(f"{type(model).__name__} has no {name}, which this scorer needs")
    return getattr(model, name)


_SCORERS = {
    "neg_brier": neg_brier_scorer,
    "neg_crps": neg_crps_scorer,
    "neg_mae": neg_mae_scorer,
    "neg_rmse": neg_rmse_scorer,
    "neg_rse": neg_rse_scorer,
    "neg_energy_score": neg_energy_score_scorer,
    "interval_coverage_90": interval_coverage_90_scorer,
    "log_likelihood": log_likelihood_scorer,
    "neg_nll_bound": neg_nll_bound_scorer,
    "neg_sliced_wasserstein": neg_sliced_wasserstein_scorer,
}


def get_scorer(name):
    """Return a scorer by its name.

    scikit-learn's own list of names is closed, so ``scoring="neg_crps"`` is not understood there:
    pass ``scoring=get_scorer("neg_crps")``.

    Parameters
    ----------
    name : str or callable
        One of :func:`get_scorer_names`; a scorer itself is returned as it is.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None)``, higher being better; a copy, whose metadata requests may
        be set.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If it is no name, such as a list of names.

    See Also
    --------
    make_imputation_scorer : Scorers of imputers with other gaps or numbers of draws.

    Examples
    --------
    >>> from sklearn.impute import SimpleImputer
    >>> from sklearn.model_selection import cross_val_score
    >>> from skdiffusion.metrics import get_scorer
    >>> X = [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]] * 3
    >>> cross_val_score(SimpleImputer(), X, scoring=get_scorer("neg_crps"), cv=2)
    array([-0., -0.])
    """
    if callable(name):
        return name
    if not isinstance(name, str):
        raise TypeError(
            f"name must be a string or a scorer, got {name!r}; for several scorers take a dict, "
            "{name: get_scorer(name) for name in names}"
        )
    if name not in _SCORERS:
        raise ValueError(f"{name!r} is no scorer of skdiffusion; take one of {get_scorer_names()}")
    return copy.deepcopy(_SCORERS[name])


def get_scorer_names():
    """Return the names that :func:`get_scorer` knows.

    Returns
    -------
    names : list of str
        In alphabetical order.

    Examples
    --------
    >>> from skdiffusion.metrics import get_scorer_names
    >>> "neg_crps" in get_scorer_names()
    True
    """
    return sorted(_SCORERS)
