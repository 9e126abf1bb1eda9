"""What a conditional density is conditioned on: encoding of y, and the analytic base given y."""

from types import MappingProxyType

import numpy as np
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d
from tqdm.auto import tqdm

from skdiffusion._warn import warn
from skdiffusion.columns.standard import column_moments
from skdiffusion.diffusion.analytic.build import gaussian
from skdiffusion.diffusion.conditional import ConditionalMixture, LocatedMixture, labelled_mixture
from skdiffusion.estimators.density import _bases
from skdiffusion.estimators.density._regression import LocationScaleRegression
from skdiffusion.inputs.arguments import finite_number
from skdiffusion.inputs.arrays import unmasked
from skdiffusion.inputs.encoding import Encoding, is_label
from skdiffusion.inputs.frames import is_frame
from skdiffusion.inputs.native import as_pandas

# A column of more labels has indicators of the most frequent ones alone: 800 companies took more
# than 200 s. With 30 of 48 states or of 187 countries errors were half as large again or twice.
_MOST_INDICATORS = 200


class Labels:
    """Class labels, encoded one-hot."""

    kind, regression = "label", None

    def __init__(self, y):
        y = column_or_1d(y, warn=True)
        if _has_gaps(y):
            raise ValueError("y contains NaN, None or infinity: every row needs a label.")
        if y.dtype.kind == "f" and (y != np.rint(y)).any():
            raise ValueError(
                "continuous y was given with condition='label', which takes classes: use "
                "condition='value', or make the labels strings or integers."
            )
        try:
            self.classes = np.unique(y)
        except TypeError as error:
            kinds = sorted({type(label).__name__ for label in y})
            raise ValueError(
                f"y mixes labels of the types {kinds}, which have no order: make them one type, "
                "for example by y.astype(str)."
            ) from error
        self.n_columns = len(self.classes)

    def encode(self, y):
        """One-hot rows of labels that were seen in fit."""
        y = column_or_1d(y)
        known = np.isin(y, self.classes)
        if not known.all():
            raise ValueError(
                f"y has the label {y[~known].tolist()[0]!r}, which fit has not seen; it knows "
                f"{self.classes.tolist()}."
            )
        return np.eye(self.n_columns)[np.searchsorted(self.classes, y)]

    def fit_base(self, name, train, held_out, everything, seed, progress=False):
        """Mixtures of the training and of all rows, one for each class."""
        codes = tqdm(range(self.n_columns), desc="ScoreSDE, classes", disable=not progress)
        fits = [self._fit_class(name, k, train, held_out, everything, seed) for k in codes]
        shares = everything[:, -self.n_columns :].mean(0)
        return tuple(labelled_mixture(side, shares) for side in zip(*fits, strict=True))

    def _fit_class(self, name, k, train, held_out, everything, seed):
        """Densities of one class; of few rows, a Gaussian with the covariance inside classes."""
        parts = [_of_class(rows, k, self.n_columns) for rows in (train, held_out, everything)]
        mine, theirs, both = parts
        n_features = both.shape[1]
        if len(mine) < 2 * n_features + 5:
            own = gaussian(both.mean(0), _inner_covariance(everything, self.n_columns))
            return own, own
        if name == "gaussian":
            return _bases.fit_gaussian(mine), _bases.fit_gaussian(both)
        return _bases.fit_mixture(mine, theirs if len(theirs) > 4 else mine, both, seed)


class Values:
    """Real values, standardised; after ``regress`` with location and log-scale of the data.

    Columns of labels in a frame are indicators of their categories, but for the first of more
    than two, and of the most frequent where there are many; ordered ones are their numbers. Where a
    column has gaps, their cells are its mean, and one more column tells the rows of the gaps.
    """

    kind = "value"
    # Columns that had gaps in fit, and categories with indicators of their own where not all have
    # one; a model of an earlier version has neither.
    gappy, frequent = (), MappingProxyType({})

    def __init__(self, y):
        self.names, y = _names_of(y), as_pandas(unmasked(y))
        self.encoding = Encoding.learn([y]) if _holds_labels(y) else None
        self.frequent = {} if self.encoding is None else _frequent(self.encoding, y)
        y = self._check(y)
        y[:, np.isnan(y).all(axis=0)] = 0.0
        self.low, self.high = np.nanmin(y, axis=0), np.nanmax(y, axis=0)
        first = np.unique(self._owners(), return_index=True)[1]
        self.gappy = first[np.isnan(y[:, first]).any(axis=0)]
        self.mean, self.scale = _moments(self._with_gaps(y))
        if (self.scale == 0).all():
            raise ValueError(
                "y has a constant column and no other: there is nothing to condition on."
            )
        # What does not vary says nothing, also where it later does.
        self.scale[self.scale == 0] = np.inf
        self.n_values = self.n_columns = len(self.scale)
        self.regression = None

    def regress(self, rows, groups, seed, progress=False):
        """Learn location and scale of the data; return the rows with them as further columns."""
        x, encoded = rows[:, : -self.n_values], rows[:, -self.n_values :]
        self.regression = LocationScaleRegression()
        columns = self.regression.fit(encoded, x, groups, seed, progress)
        self.n_columns = self.n_values + columns.shape[1]
        return np.hstack([rows, columns])

    def encode(self, y):
        """Standardised values, one row of columns for each."""
        y = self._check(y)
        if y.shape[1] != len(self.low):
            raise ValueError(f"y has {y.shape[1]} columns, but fit has seen {len(self.low)}.")
        encoded = np.clip((self._with_gaps(y) - self.mean) / self.scale, -100, 100)
        encoded[np.isnan(encoded)] = 0.0
        if self.regression is None:
            return encoded
        return np.hstack([encoded, self.regression.predict(encoded)])

    def fit_base(self, name, train, held_out, everything, seed, progress=False):
        """Mixtures of X and y together, conditioned on y, or of what a regression leaves."""
        parts = train, held_out, everything
        if name == "regression":
            return self._fit_located(parts, seed, progress)
        train, held_out, everything = (self._without_regression(part) for part in parts)
        if name == "gaussian":
            fits = _bases.fit_gaussian(train), _bases.fit_gaussian(everything)
        else:
            fits = _bases.fit_mixture(train, held_out, everything, seed, progress)
        observed = np.arange(train.shape[1]) >= train.shape[1] - self.n_values
        return tuple(ConditionalMixture(joint, observed) for joint in fits)

    def _fit_located(self, parts, seed, progress):
        """Mixtures of the standardised residuals, moved and stretched by the condition."""
        data = [part[:, : -self.n_columns] for part in parts]
        location_scale = [part[:, -data[0].shape[1] - 1 :] for part in parts]
        residuals = [
            (x - where[:, :-1]) / np.exp(where[:, -1:])
            for x, where in zip(data, location_scale, strict=True)
        ]
        shapes = _bases.fit_mixture(*residuals, seed, progress)
        marginals = _bases.fit_mixture(*data, seed, progress)
        return tuple(map(LocatedMixture, shapes, marginals))

    def _without_regression(self, rows):
        """Data and standardised values alone."""
        return rows[:, : rows.shape[1] - self.n_columns + self.n_values]

    def warn_far(self, y):
        """Name the columns of ``y`` that lie beyond the training range by more than its width."""
        y = self._check(y)
        if y.shape[1] != len(self.low):
            return
        span = self.high - self.low
        far = ((y < self.low - span) | (y > self.high + span)).any(axis=0)
        for j in np.flatnonzero(far):
            name = int(j) if self.names is None else self.names[self._owners()[j]]
            warn(
                f"Column {name!r} of y goes from {np.nanmin(y[:, j]):g} to "
                f"{np.nanmax(y[:, j]):g}, but fit "
                f"has seen {self.low[j]:g} to {self.high[j]:g}: nothing is known out there."
            )

    def _check(self, y):
        names = _names_of(y)
        if self.names is not None and names is not None and names != self.names:
            if sorted(names) != sorted(self.names):
                raise ValueError(
                    f"y has the columns {names}, but fit has seen {self.names}: select and name "
                    "them as in fit."
                )
            y = y[self.names]
        y = self._numbers(as_pandas(unmasked(y)))
        checks = {"ensure_2d": False, "dtype": np.float64, "ensure_all_finite": "allow-nan"}
        y = check_array(y, copy=True, input_name="y", **checks)
        y = y.reshape(len(y), -1)
        empty = np.isnan(y).all(axis=1)
        if empty.any():
            raise ValueError(
                f"y contains NaN: row {empty.argmax()} has no value, but every row needs a "
                "condition: drop such rows of X and y, or fill them."
            )
        return y

    def _with_gaps(self, y):
        """Real columns, and one for every column that had gaps in fit: 1 where it has one."""
        return np.hstack([y, np.isnan(y[:, list(self.gappy)])])

    def _numbers(self, y):
        """Columns of labels as numbers."""
        if self.encoding is None:
            return y
        if not is_frame(y):
            raise ValueError("y must be a DataFrame with the columns and labels of fit.")
        try:
            encoded = self.encoding.encode(y)
        except ValueError as error:
            raise ValueError(str(error).replace(" of X ", " of y ", 1)) from error
        return np.hstack([self._of_column(encoded, j) for j in range(len(self.encoding.columns))])

    def _of_column(self, encoded, j):
        """Real columns that are used of one column.

        Of several indicators all but the first; of very many those of the most frequent labels,
        and the number of the label.
        """
        width = self.encoding.columns[j].width
        mine = encoded[:, self.encoding.first[j] :][:, :width]
        if j not in self.frequent:
            return mine[:, int(width > 1) :]
        return np.column_stack([mine @ np.arange(width), mine[:, self.frequent[j]]])

    def _owners(self):
        """Number of the column of ``y`` that each value belongs to."""
        if self.encoding is None:
            return np.arange(len(self.low))
        widths = [
            len(self.frequent[j]) + 1 if j in self.frequent else max(1, code.width - 1)
            for j, code in enumerate(self.encoding.columns)
        ]
        return np.repeat(np.arange(len(widths)), widths)


CONDITIONS = {"label": Labels, "value": Values}


def learn_condition(condition, base, y, n_rows):
    """Learn how y is encoded.

    Parameters
    ----------
    condition : {"label", "value"} or None
        What y is; None ignores it.
    base : str or None
        The base, for what does not go together.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), or None
        Condition of every row.
    n_rows : int
        Number of rows.

    Returns
    -------
    encoder : Labels, Values or None
        The encoder.
    encoded : ndarray of shape (n_samples, n_conditions)
        The encoded y, with no columns where it is ignored.
    """
    if base == "regression" and condition != "value":
        raise ValueError('base="regression" requires condition="value".')
    if condition is None:
        return None, np.empty((n_rows, 0))
    if y is None:
        raise ValueError(
            f"condition={condition!r} requires y to be passed, but the target y is None."
        )
    encoder = CONDITIONS[condition](y)
    encoded = encoder.encode(y)
    check_consistent_length(encoded, np.empty(n_rows))
    return encoder, encoded


def encoded_rows(encoder, y, n_rows):
    """Encoded y of a call, one row for each; None without a condition."""
    if y is None or encoder is None:
        return None
    if _names_of(y) is None:
        y = np.asarray(unmasked(y))
        y = y[None] if y.ndim == 0 else y
    encoded = encoder.encode(y)
    if isinstance(encoder, Values):
        encoder.warn_far(y)
    if len(encoded) not in (1, n_rows):
        raise ValueError(f"y has {len(encoded)} rows, but {n_rows} are needed.")
    return np.resize(encoded, (n_rows, encoded.shape[1]))


def checked_guidance(guidance, y, encoder):
    """Guidance of a call, refused where there is nothing to guide by."""
    guidance = finite_number(guidance, "guidance")
    if guidance < 0:
        raise ValueError(f"guidance={guidance!r} must not be negative.")
    if encoder is None and (y is not None or guidance != 1):
        raise ValueError(
            'The model knows no condition: set condition="label" or "value" before fit, or '
            "call sample without y and guidance."
        )
    if y is None and guidance != 1:
        raise ValueError(
            f"guidance={guidance!r} pushes draws towards a condition, but y is None: pass y "
            "or leave guidance at 1."
        )
    return guidance


def _frequent(encoding, y):
    """Most frequent categories of columns that have too many for an indicator each."""
    indicators = encoding.encode(y)
    counts = {
        j: np.nansum(indicators[:, first : first + code.width], axis=0)
        for j, (first, code) in enumerate(zip(encoding.first, encoding.columns, strict=True))
        if code.width > _MOST_INDICATORS
    }
    return {j: np.sort(np.argsort(-n, kind="stable")[:_MOST_INDICATORS]) for j, n in counts.items()}


def _moments(y):
    """Centre and scale of the distinct rows: a weight of two and a row given twice are the same."""
    distinct = np.unique(np.nan_to_num(y, nan=np.inf), axis=0)
    return column_moments(np.where(np.isinf(distinct), np.nan, distinct))


def _names_of(y):
    """Names of the columns of a frame, None where there are none."""
    names = list(getattr(y, "columns", []))
    return names if names and all(isinstance(name, str) for name in names) else None


def _holds_labels(y):
    """Whether a frame has columns of labels."""
    return is_frame(y) and any(is_label(y.iloc[:, j]) for j in range(y.shape[1]))


def _has_gaps(y):
    """Whether some row has no label."""
    if y.dtype.kind == "f":
        return not np.isfinite(y).all()
    if y.dtype.kind != "O":
        return False
    return any(label is None or is_pandas_na(label) or is_scalar_nan(label) for label in y)


def _of_class(rows, k, n_classes):
    """Data of the rows of class k."""
    return rows[rows[:, k - n_classes] == 1, : rows.shape[1] - n_classes]


def _inner_covariance(rows, n_classes):
    """Covariance around the means of the classes, averaged over the classes."""
    x, labels = rows[:, :-n_classes], rows[:, -n_classes:]
    means = (labels.T @ x) / labels.sum(0)[:, None]
    centred = x - labels @ means
    n_features = x.shape[1]
    return centred.T @ centred / max(1, len(x) - n_classes) + 1e-3 * np.eye(n_features)
