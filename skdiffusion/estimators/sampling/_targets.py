"""What users give as the target of a sampler, recognised and turned into a Target."""

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from skdiffusion.columns.discrete import Category
from skdiffusion.columns.standard import column_moments, unresolved
from skdiffusion.diffusion.analytic.build import gaussian_mixture
from skdiffusion.diffusion.target.recognise import FunctionTarget, from_distribution
from skdiffusion.diffusion.target.targets import (
    DenoiserTarget,
    EstimatorTarget,
    MixtureTarget,
    Target,
)
from skdiffusion.estimators.density._diffusion_density import DiffusionDensity
from skdiffusion.inputs.arguments import require_arguments
from skdiffusion.inputs.arrays import unmasked
from skdiffusion.inputs.frames import check_columns, dense_frame, infinity_named, is_frame

# Below a hundredth of a standard deviation a learnt score resolves nothing.
_SMALLEST_SCALE = 1e-2


def number_of_features(*, target, **found):
    """Number of features, from whatever tells it."""
    found = {**found, "target": _features_of(target)}
    found = {name: number for name, number in found.items() if number is not None}
    if not found:
        raise ValueError(
            "the number of features is unknown: pass n_features, X in fit, or an init array."
        )
    if len(set(found.values())) > 1:
        raise ValueError(f"the numbers of features differ: {found}")
    return next(iter(found.values()))


def _features_of(target):
    """Number of features a target knows of itself, or None."""
    if isinstance(target, torch.distributions.Distribution):
        event = tuple(target.event_shape)
        return event[0] if event else 1
    if isinstance(target, Target):
        return target.n_features
    return getattr(target, "n_features_in_", None)


def unfrozen(target):
    """The estimator inside a FrozenEstimator, which keeps it fitted when a sampler is cloned."""
    return target.estimator if isinstance(target, FrozenEstimator) else target


def check_target(target):
    """Refuse what cannot be a target, before anything else is asked of it."""
    if target is None or isinstance(target, Target | torch.distributions.Distribution):
        return
    if isinstance(target, type):
        raise TypeError(f"target is the class {target.__name__}: give an instance.")
    if isinstance(target, list | tuple) or hasattr(target, "__array__"):
        raise TypeError(
            f"target is an array ({type(target).__name__}): data go to fit(X), with target=None."
        )
    mixture_or_kernel = hasattr(target, "covariance_type") or hasattr(target, "bandwidth")
    is_density = mixture_or_kernel or hasattr(target, "log_density_gradient")
    if not (is_density or callable(target)):
        _refuse(target)
    if inspect.isroutine(target):
        require_arguments(target, "target", "x")
    if isinstance(target, BaseEstimator):
        check_is_fitted(
            target,
            msg="target %(name)s is not fitted: fit it first. A clone, as in cross_validate and "
            "GridSearchCV, loses what its parts have learnt: wrap the fitted target in "
            "sklearn.frozen.FrozenEstimator.",
        )


def validated(sampler, X, **kwargs):
    """Checked array; points to the imputer where X has missing values."""
    X = dense_frame(unmasked(X))
    if is_frame(X):
        check_columns(X)
    try:
        with infinity_named(X):
            # The values of a frame may be read-only, of which torch warns.
            return np.require(validate_data(sampler, X, **kwargs), requirements="W")
    except ValueError as error:
        if "contains NaN" not in str(error):
            raise
        raise ValueError(
            "Input X contains NaN. LangevinSampler does not accept missing values: impute "
            "first, for example with CSDIImputer or SimpleImputer."
        ) from error


def refuse_constant(X, names):
    """Refuse columns that have no density."""
    scale = column_moments(X)[1]
    if (lost := unresolved(X, scale)).any():
        raise ValueError(
            f"Columns {names[lost].tolist()} of X vary by less than double precision resolves at "
            "their size: subtract their offset, or give them in other units."
        )
    constant = np.flatnonzero(scale == 0)
    if len(constant):
        raise ValueError(
            f"column {names[constant].tolist()[0]!r} is constant, and the density of a constant is "
            "not bounded: drop the column."
        )


def can_score(sampler):
    """Whether the target gives log densities; the reason is in the error otherwise."""
    kind = getattr(sampler, "target_kind_", None)
    if kind in ("gradient", "minibatch"):
        raise AttributeError(
            "score_samples needs a log density, but the target gives only a gradient: return the "
            "log density, or the pair (log_density, gradient)."
        )
    return True


def _refuse_degenerate(target, weights, means, covariances, kind):
    """Refuse a mixture with components that are no densities."""
    known = np.nan_to_num(covariances, nan=0.0, posinf=0.0)
    if kind in ("full", "tied"):
        known = np.linalg.eigvalsh(known)
    narrowest = known.reshape(1 if kind == "tied" else len(means), -1).min(1)
    proper = (weights >= 0) & np.isfinite(means).all(1) & (narrowest > 0)
    if not proper.all():
        raise ValueError(
            f"Components {np.flatnonzero(~proper).tolist()} of target {type(target).__name__} are "
            "no densities: their weight is negative, a number in them is NaN or infinite, or their "
            "covariance has no inverse. Fit it again, for example with a larger reg_covar."
        )


def as_target(target, n_features, dtype, device, extent=None, support=None):
    """Recognise what the user gave; its points lie on a support, if there is one."""
    if isinstance(target, Target):
        return target
    if isinstance(target, torch.distributions.Distribution):
        return from_distribution(target, dtype, device, support)
    if hasattr(target, "covariance_type") and hasattr(target, "means_"):
        arrays = (target.weights_, target.means_, target.covariances_, target.covariance_type)
        _refuse_degenerate(target, *arrays)
        return MixtureTarget(gaussian_mixture(*arrays).to(device=device, dtype=dtype))
    if hasattr(target, "tree_"):
        return MixtureTarget(_kernel_density(target).to(device=device, dtype=dtype))
    parts = model_parts(target)
    if parts is not None:
        return _from_denoiser(parts.denoiser, dtype, device, extent)
    if hasattr(target, "log_density_gradient"):
        return EstimatorTarget(target, *units_of(target, n_features), *(extent or (None, None)))
    if callable(target):
        return FunctionTarget(target, n_features, dtype, device, support)
    return _refuse(target)


def _refuse(target):
    """Say what a target can be."""
    raise TypeError(
        f"target of type {type(target).__name__} is not understood: give a callable, a torch "
        "Distribution, a fitted GaussianMixture or KernelDensity, an estimator with "
        "log_density_gradient, or None."
    )


@dataclasses.dataclass(frozen=True)
class ModelParts:
    """What chains need of a fitted density model: they run in the coordinates of its rows."""

    denoiser: torch.nn.Module
    forward: Callable
    inverse: Callable


def model_parts(source):
    """Parts of a fitted density model, or None for any other source.

    The one place that looks inside an estimator: its denoiser, and the map of its columns and
    back, with NumPy arrays on both sides.
    """
    if not isinstance(source, DiffusionDensity):
        return None
    names = getattr(source, "feature_names_in_", range(source.n_features_in_))
    discrete = source.coordinates_.discrete
    labels = [names[j] for j in sorted(discrete) if isinstance(discrete[j], Category)]
    if labels:
        raise ValueError(
            f"target has label columns {[str(name) for name in labels]}, which have no gradient: "
            "fit it on columns of numbers, or draw with its method sample."
        )
    return ModelParts(
        source.denoiser_,
        lambda X: source.coordinates_.forward(X)[0],
        lambda u: source.coordinates_.inverse(np.asarray(u)),
    )


def _from_denoiser(denoiser, dtype, device, extent):
    """The learnt score in the model's coordinates, in closed form where a base was kept alone."""
    denoiser = copy.deepcopy(denoiser).to(device=device, dtype=dtype)
    if denoiser.network is None:
        return MixtureTarget(denoiser.base.given(None))
    reach, scale = extent
    return DenoiserTarget(denoiser, reach, max(scale, _SMALLEST_SCALE))


def _kernel_density(estimator):
    """Mixture of a fitted KernelDensity."""
    if estimator.kernel != "gaussian":
        raise ValueError(
            f"target KernelDensity has kernel={estimator.kernel!r}, which has no gradient "
            "everywhere: fit it with kernel='gaussian'."
        )
    points = np.array(estimator.tree_.data)
    weights = estimator.tree_.__getstate__()[-1]
    weights = np.ones(len(points)) if weights is None else np.array(weights)
    variances = np.full(len(points), estimator.bandwidth_**2)
    return gaussian_mixture(weights / weights.sum(), points, variances, "spherical")


def units_of(target, n_features):
    """Centre and units of the columns in which an estimator counts noise."""
    centre, unit = getattr(target, "mean_", 0.0), getattr(target, "scale_", 1.0)
    return tuple(np.broadcast_to(np.asarray(a, float), n_features) for a in (centre, unit))


def kind_of(target):
    """Word for a target in messages."""
    if isinstance(target, MixtureTarget):
        return "mixture"
    if isinstance(target, EstimatorTarget | DenoiserTarget):
        return "estimator"
    if target.stochastic:
        return "minibatch"
    return "log density" if target.has_log_density else "gradient"


def one_column_note(target):
    """One feature leaves open what a column of values is: it is read as a gradient."""
    a_gradient = isinstance(target, FunctionTarget) and not target.has_log_density
    if not (a_gradient and target.n_features == 1):
        return []
    return [
        "target returns shape (n_chains, 1). For one feature this is read as the "
        "gradient, and (n_chains,) as the log density: if it is the log density, "
        "return it without the last axis, for example with .sum(1)."
    ]


def extent_of(X):
    """Bound on the largest distance between rows, and the typical distance of neighbours."""
    centred = torch.as_tensor(X[:2000] - X.mean(0))
    reach = 2 * float(np.linalg.norm(X - X.mean(0), axis=1).max())
    distance = torch.cdist(centred, centred)
    distance.fill_diagonal_(math.inf)
    nearest = distance.amin(1)
    positive = nearest[nearest > 0]
    scale = float(positive.median()) if len(positive) else reach / 10
    return reach, scale / math.sqrt(X.shape[1])
