"""Checks of what an imputer is given, part by part."""

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from skdiffusion._warn import warn
from skdiffusion.diffusion.solve import NORMAL_SPREADS, spread_of_normal
from skdiffusion.estimators._tables import container_of
from skdiffusion.inputs.encoding import Encoding
from skdiffusion.inputs.frames import (
    has_dates_as_text,
    has_times,
    hint_to_datetime,
    infinity_named,
    is_frame,
    numeric_frame,
)
from skdiffusion.inputs.panels import LongFrame, looks_long
from skdiffusion.inputs.series import SeriesInput, rows_of

# Standard deviations that half of a column is off only where its units are others.
_FAR = 10
# Columns that a message names.
_MOST_NAMED = 5
_HINT_WINDOW_LENGTH = (
    "X has a DatetimeIndex, but window_length is None: its rows are imputed as independent "
    "samples. Set window_length (for example 24 for hourly data) to use the order in time."
)
_TAKEN = {"table": "independent rows", "series": "one series"}
FORMS = {
    "table": "(n_samples, n_features), independent rows",
    "panel": "(n_samples, n_times, n_features)",
    "series": "(n_times, n_features) with window_length, a list of such, or a frame with a "
    "MultiIndex of series and times",
}


def warn_few_steps(denoiser, settings):
    """Warn of a solver that takes too few steps for the draws of a network to be right.

    Parameters
    ----------
    denoiser : ImputationDenoiser
        The denoiser.
    settings : Bunch
        Parameters of the imputer.
    """
    solver = denoiser.default_solver if settings.solver == "auto" else settings.solver
    n_steps = settings.n_steps or denoiser.default_steps
    spread = spread_of_normal(solver, tuple(denoiser.noise_levels(n_steps, solver)))
    if not NORMAL_SPREADS[0] < spread < NORMAL_SPREADS[1]:
        warn(
            f"n_steps={n_steps} are too few for solver={solver!r}: of a standard normal it would "
            f"draw with standard deviation {spread:.2g}, and bands are as wrong. Raise n_steps, or "
            "set solver='auto'."
        )


def learn_encoding(parts):
    """Encoding of frames; None for arrays, and for frames that validation will refuse."""
    if not all(is_frame(part) for part in parts) or len({part.shape[1] for part in parts}) > 1:
        return None
    return Encoding.learn(parts)


def validated(estimator, X, kind, form, parts, encoding, reset):
    """Validate every 2-D part and lay them out as samples."""
    frames = parts if all(is_frame(part) for part in parts) else None
    panel = LongFrame(X) if form == "long" else None
    if estimator.add_indicator and form in ("3-D array", "list"):
        raise ValueError("add_indicator=True works for a 2-D X only: set it to False.")
    fewest = 2 if reset and kind == "table" else 1
    labelled = encoding is not None and encoding.has_labels
    if labelled:
        _require_labels_possible(estimator, frames)
    parts = [
        _validated_part(estimator, part, encoding if labelled else None, reset and i == 0, fewest)
        for i, part in enumerate(parts)
    ]
    return SeriesInput(kind, form, rows_of(X, form, parts), frames, panel=panel)


def _require_labels_possible(estimator, frames):
    """Raise where labels were or are to be learnt, but cannot be."""
    if frames is None:
        raise ValueError("X must be a DataFrame with the columns and labels of fit.")
    if not np.isnan(estimator.missing_values):
        raise ValueError(
            f"missing_values={estimator.missing_values} is for columns of numbers, but X has "
            "labels: mark its gaps by NaN or None and leave missing_values=np.nan."
        )


def _validated_part(estimator, part, encoding, reset, fewest):
    """Validate one 2-D part; return floats with NaN where missing."""
    by_nan = bool(np.isnan(estimator.missing_values))
    checks = {
        "dtype": [np.float64, np.float32],
        "ensure_all_finite": "allow-nan" if by_nan else True,
        "ensure_min_samples": fewest,
    }
    if encoding is not None:
        validate_data(estimator, part, reset=reset, skip_check_array=True)
        if not encoding.labels.all():
            numeric_frame(part.loc[:, ~encoding.labels])
        with infinity_named(part):
            return check_array(encoding.encode(part), input_name="X", **checks)
    part = numeric_frame(part) if is_frame(part) else part
    if not by_nan:
        _require_no_nan(part, estimator.missing_values)
    with infinity_named(part):
        array = validate_data(estimator, part, reset=reset, **checks)
    return array if by_nan else np.where(array == estimator.missing_values, np.nan, array)


def _require_no_nan(part, placeholder):
    """Raise for NaN where another number stands for missing values."""
    values = np.asarray(part)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError(
            f"X contains NaN, but missing_values={placeholder} marks its gaps: set "
            f"missing_values=np.nan, or mark all gaps alike, X[np.isnan(X)] = "
            f"{placeholder}."
        )


def require_plain_output(estimator, data):
    """Raise for a frame asked of a 3-D array or a list."""
    container = container_of(estimator)
    if data.form in ("3-D array", "list") and container != "default":
        raise ValueError(
            f"set_output(transform={container!r}), or set_config(transform_output={container!r}), "
            "works for a 2-D X only: call set_output(transform='default') of the imputer; lists of "
            "frames come back as such anyway."
        )


def require_forecast(reader):
    """Raise where nothing follows on the last row, or where it could not be laid out."""
    if reader.kind != "series":
        raise ValueError(
            f"forecast is for series, but fit was given X of the form {FORMS[reader.kind]}: set "
            "window_length and fit again."
        )
    if reader.encoding.has_labels:
        raise ValueError(
            "forecast returns numbers, and X has columns of labels: append rows without values to "
            "X and call sample, which returns frames."
        )


def up_to_first_value(x):
    """The first rows of a series, as far as the first that has a value."""
    return x[: 1 + int((~np.isnan(x)).any(axis=1).argmax())]


def warn_empty(data, valid):
    """Say so when a sample offers nothing to condition on."""
    if isinstance(data.rows, np.ndarray):
        empty = int((np.isnan(data.rows).all(1) | ~valid).all(1).sum())
    else:
        empty = sum(bool(np.isnan(x[:, valid]).all()) for x in data.rows)
    if empty:
        warn(
            f"{empty} of {len(data.rows)} samples of X have no observed value: their draws "
            "are unconditional.",
        )


def warn_doubted(doubted, data, names):
    """Say what values are not believed, and how to have them filled.

    Parameters
    ----------
    doubted : bool ndarray of shape (n_rows, n_columns)
        Those of ``data.flat``.
    data : SeriesInput
        The series.
    names : sequence of length n_columns
        Names of the columns.
    """
    found = np.flatnonzero(doubted.any(axis=0))
    first = np.cumsum([0, *data.sizes])
    named = []
    for j in found[:_MOST_NAMED]:
        rows = np.flatnonzero(doubted[:, j])
        series = int(np.searchsorted(first, rows[0], side="right")) - 1
        place = f"row {rows[0] - first[series]}" + f" of series {series}" * (len(data.sizes) > 1)
        named.append(f"{len(rows)} of {names[j]} (first in {place})")
    more = f" and others of {len(found) - _MOST_NAMED} more columns" * (len(found) > _MOST_NAMED)
    warn(
        f"X has values far from all that is around them: {', '.join(named)}{more}. They are taken "
        "for wrong records: nothing is learnt from them, and they stay as they are. Set those that "
        "are wrong to NaN to have them filled."
    )


def warn_far(data, columns, names):
    """Name the columns that lie so far from what ``fit`` saw that their units must differ."""
    known = columns.scale > 0
    flat = data.flat
    for j in np.flatnonzero(known):
        seen = flat[~np.isnan(flat[:, j]), j]
        distance = np.abs(seen - columns.centre[j]) / columns.scale[j]
        if len(seen) and np.median(distance) > _FAR:
            warn(
                f"Column {names[j]} of X is around {np.median(seen):g}, but fit "
                f"has seen {columns.centre[j]:g} with standard deviation {columns.scale[j]:g}: "
                "give it in the units of fit, or fit again."
            )


def warn_unread_index(parts, kind, timestamps):
    """Say so where an index holds times or series that are not taken as such."""
    if not all(is_frame(part) for part in parts):
        return
    if kind == "table" and has_times(parts[0]):
        warn(_HINT_WINDOW_LENGTH)
    if timestamps is not None:
        return
    if len(parts) == 1 and not has_times(parts[0]) and (pair := looks_long(parts[0])):
        warn(
            f"Columns {pair[0]!r} and {pair[1]!r} of X look like series and times of a long table, "
            f"but are taken as features of {_TAKEN[kind]}: set panel_columns={pair!r}."
        )
    if not has_times(parts[0]) and has_dates_as_text(parts[0]):
        warn(hint_to_datetime(parts))
