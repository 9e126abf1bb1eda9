"""Any imputer, asked for draws or for one answer."""

import copy
import inspect
from numbers import Real

import numpy as np
from sklearn.utils import check_random_state

from skdiffusion.inputs.panels import PanelColumns
from skdiffusion.inputs.series import cell_values, each_series, is_list_of_series, one_frame


def placeholder_of(imputer):
    """The number that stands for a missing cell, NaN for those that use NaN or NA."""
    value = getattr(imputer, "missing_values", np.nan)
    return value if isinstance(value, Real) else np.nan


def missing_cells(imputer, x):
    """Mask of the cells of one array or frame that count as missing for an imputer."""
    return np.isnan(cell_values(with_nan(x, placeholder_of(imputer))))


def with_nan(x, placeholder):
    """NaN instead of the placeholder."""
    if np.isnan(placeholder):
        return x
    if hasattr(x, "iloc"):
        return x.mask(x == placeholder)
    return np.where(np.equal(x, placeholder), np.nan, x)


def without_nan(x, placeholder):
    """The placeholder instead of NaN."""
    if np.isnan(placeholder):
        return x
    return x.fillna(placeholder) if hasattr(x, "iloc") else np.where(np.isnan(x), placeholder, x)


def drawing_method(imputer):
    """The method that draws completed copies, or None."""
    for name in ("sample", "impute"):
        method = getattr(imputer, name, None)
        # A density's sample(n_samples) is another thing.
        if method is not None and "n_draws" in inspect.signature(method).parameters:
            return method
    return None


def require_transform(imputer):
    """Raise for an estimator that cannot fill gaps in any way."""
    if isinstance(imputer, type):
        raise TypeError(f"imputer is the class {imputer.__name__}: pass an instance.")
    if hasattr(imputer, "transformers"):
        raise TypeError(
            f"{type(imputer).__name__} hands on neither draws nor columns in their order, and "
            "cannot be scored: score the imputer by itself, on the columns that it is given"
        )
    if drawing_method(imputer) is None and not hasattr(imputer, "transform"):
        raise TypeError(
            f"{type(imputer).__name__} is no imputer: it has neither sample(X, n_draws) nor "
            "transform(X); the imputer must be the last step of its pipeline"
        )


def require_imputer_alone(imputer):
    """Raise for a class, and for a pipeline, which hands on no draws."""
    if isinstance(imputer, type):
        raise TypeError(f"imputer is the class {imputer.__name__}: pass an instance.")
    if hasattr(imputer, "steps") or hasattr(imputer, "transformers"):
        raise ValueError(
            f"imputer is a {type(imputer).__name__}, which is not supported, as it hands on no "
            "draws: pass the imputer alone; CSDIImputer scales the columns inside and takes text "
            "and categories as they are."
        )


def answers(imputer, X, n_draws, seed, options=None):
    """What the imputer fills in: draws along axis 1, one for those that know one value only."""
    if isinstance(imputer, type):
        raise TypeError(f"imputer is the class {imputer.__name__}: pass an instance.")
    options, method = options or {}, drawing_method(_with_plain_output(imputer))
    if method is not None:
        return method(X, n_draws=n_draws, random_state=seed, **options)
    require_transform(imputer)
    if not getattr(imputer, "sample_posterior", False):
        return each_series(imputer.transform(X, **options), lambda x: np.asarray(x)[:, None])
    # Its transform draws from a state that it carries along; the caller's stays where it is.
    imputer = copy.copy(imputer)
    imputer.random_state_ = check_random_state(seed)
    return np.stack([np.asarray(imputer.transform(X)) for _ in range(n_draws)], axis=1)


def _with_plain_output(imputer):
    """The imputer as it is without ``set_output``: the users of its draws take arrays."""
    if not hasattr(imputer, "set_output"):
        return imputer
    plain = copy.copy(imputer)
    # A copy shares the dict that set_output writes to.
    vars(plain).pop("_sklearn_output_config", None)
    return plain.set_output(transform="default")


def completed_frames(imputer, X, n_draws, seed, options=None):
    """Completed copies of a frame, or of a list of frames end to end, each as one frame.

    Parameters
    ----------
    imputer : estimator
        Fitted; it draws, or fills in one value.
    X : DataFrame or list of DataFrames
        Data with gaps.
    n_draws : int
        Number of copies, where it draws.
    seed : int
        Seed of the draws.
    options : dict, optional
        Further arguments of the method that draws.

    Returns
    -------
    copies : list of DataFrames
        With the columns of ``X``; NaN in those that the imputer drops.
    """
    given = answers(imputer, X, n_draws, seed, options)
    if drawing_method(imputer) is not None and not isinstance(given, np.ndarray):
        copies = [one_frame(copy) for copy in given]
    else:
        draws = np.concatenate(given) if isinstance(given, list) else given
        names = _names_out(imputer, one_frame(X).columns)
        kind = type(one_frame(X))
        copies = [kind(draws[:, i], columns=names) for i in range(draws.shape[1])]
        copies = [copy.infer_objects() for copy in copies]
    frame = one_frame(X)
    copies = [copy.set_axis(frame.index).reindex(columns=frame.columns) for copy in copies]
    panel = getattr(imputer, "panel_columns", None)
    for name in set(PanelColumns(panel).names) & set(frame.columns) if panel else ():
        for completed in copies:
            completed[name] = frame[name]
    return copies


def _names_out(imputer, names):
    """Names of the columns that an imputer returns."""
    if not hasattr(imputer, "get_feature_names_out"):
        return names
    names = getattr(imputer, "feature_names_in_", list(names))
    return [name for name in imputer.get_feature_names_out(names) if name in set(names)]


def with_all_columns(draws, imputer, X):
    """Draws of every feature that went in, NaN for those that the imputer drops."""
    n_features = (
        X[0] if is_list_of_series(X) else X if hasattr(X, "shape") else np.asarray(X)
    ).shape[-1]
    if not hasattr(imputer, "get_feature_names_out"):
        return draws
    names = getattr(imputer, "feature_names_in_", [f"x{k}" for k in range(n_features)])
    out = [name for name in imputer.get_feature_names_out(names) if name in set(names)]
    place = {name: k for k, name in enumerate(out)}
    full = np.full((*draws.shape[:-1], n_features), np.nan)
    kept = [k for k, name in enumerate(names) if name in place]
    full[..., kept] = draws[..., [place[names[k]] for k in kept]]
    return full
