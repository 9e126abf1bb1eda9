"""Hiding observed cells on purpose, so that an imputation can be compared with the truth."""

import numpy as np
from sklearn.utils import check_array, check_random_state

from skdiffusion.inputs.frames import infinity_named, is_frame


def ampute(
    X,
    *,
    missing_rate=0.1,
    mechanism="mcar",
    block_length=24,
    n_block_features=1,
    random_state=None,
):
    """Hide a share of the observed cells.

    Parameters
    ----------
    X : array-like of shape (n_times, n_features) or (n_samples, n_times, n_features)
        One table or series, or a panel of series; NaN cells are missing already. A DataFrame may
        have columns of any type. Not changed.
    missing_rate : float, default=0.1
        Share of the observed cells to hide, in (0, 1).
    mechanism : {"mcar", "block", "tail", "feature"}, default="mcar"
        Which cells are hidden.

        - "mcar": single cells, missing completely at random; their number is
          ``round(missing_rate * n_observed)``.
        - "block": runs of ``block_length`` consecutive times in ``n_block_features`` random
          features, placed at random until the share is reached; it is exceeded by less than one
          block.
        - "tail": the last times of every series in all features, as in forecasting; the
          number of times is the one that comes nearest to the share. Nothing is random.
        - "feature": whole features of random samples of a panel; in a 2-D ``X``, whole features
          during random stretches of ``block_length`` rows. The number of them is the one that
          comes nearest to the share.
    block_length : int, default=24
        Length of the runs of "block", and of the stretches of "feature" for a 2-D ``X``.
    n_block_features : int, default=1
        Number of features that a run of "block" hides together.
    random_state : int, RandomState instance or None, default=None
        Randomness of the choice. An int gives the same cells at every call.

    Returns
    -------
    X_missing : ndarray or DataFrame of the shape of ``X``
        Copy with NaN in the hidden cells. A DataFrame stays a DataFrame, and its columns of
        labels, times and nullable types get the missing value of their type; integers of numpy
        become floats, booleans objects.
    hidden_mask : ndarray of bool of the shape of ``X``
        True for the hidden cells, all of them observed in ``X``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or if no cell or every observed cell would be hidden.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiffusion.datasets import ampute
    >>> X = np.arange(12.0).reshape(6, 2)
    >>> X_missing, hidden_mask = ampute(X, missing_rate=0.25, random_state=0)
    >>> int(hidden_mask.sum())
    3
    >>> bool(np.isnan(X_missing[hidden_mask]).all())
    True
    >>> ampute(X, missing_rate=0.25, mechanism="tail")[1].sum(axis=1)
    array([0, 0, 0, 0, 0, 2])
    """
    observed, values = _observed_cells(X)
    _check_parameters(observed, missing_rate, mechanism, block_length, n_block_features)
    n_hidden = round(missing_rate * observed.sum())
    if n_hidden == 0:
        raise ValueError(
            f"nothing would be hidden: X has {observed.sum()} observed cells; "
            f"give more rows or raise missing_rate={missing_rate}"
        )
    hidden = _chosen_cells(
        observed, n_hidden, mechanism, block_length, n_block_features, random_state
    )
    if hidden.sum() == observed.sum():
        raise ValueError(
            f'mechanism="{mechanism}" would hide every observed cell of X; lower missing_rate '
            "or block_length"
        )
    return _hide(X, values, hidden), hidden


def _observed_cells(X):
    """Mask of the observed cells, and the values where all are numbers.

    Labels and times of a frame are hidden by the missing value of their type.
    """
    others = [not _is_number(X.iloc[:, j]) for j in range(X.shape[1])] if is_frame(X) else []
    checked = X.loc[:, np.logical_not(others)] if any(others) else X
    values = None
    if not all(others) or not others:
        with infinity_named(checked):
            options = {"allow_nd": True, "ensure_all_finite": "allow-nan", "input_name": "X"}
            values = check_array(checked, **options)
    return (X.notna().to_numpy(), None) if any(others) else (~np.isnan(values), values)


def _is_number(column):
    """Whether a column has a type of numbers; booleans are of another."""
    return column.dtype.kind in "iuf"


def _check_parameters(values, missing_rate, mechanism, block_length, n_block_features):
    """Raise for a parameter out of its range."""
    if values.ndim > 3:
        raise ValueError(
            "X must have shape (n_times, n_features) or (n_samples, n_times, n_features), "
            f"got {values.shape}"
        )
    if not 0 < missing_rate < 1:
        raise ValueError(f"missing_rate must lie in (0, 1), got {missing_rate!r}")
    if mechanism not in ("mcar", "block", "tail", "feature"):
        raise ValueError(
            f'mechanism must be "mcar", "block", "tail" or "feature", got {mechanism!r}'
        )
    n_times, n_features = values.shape[-2:]
    bounds = {
        "block_length": (block_length, n_times),
        "n_block_features": (n_block_features, n_features),
    }
    for name, (value, largest) in bounds.items():
        if value < 1 or (mechanism == "block" and value > largest):
            raise ValueError(
                f"{name} must lie between 1 and {largest} for X of shape {values.shape}, "
                f"got {value}"
            )


def _chosen_cells(observed, n_hidden, mechanism, block_length, n_block_features, random_state):
    """Mask of the cells to hide; all of them observed."""
    rng = check_random_state(random_state)
    panel = observed.reshape((-1,) + observed.shape[-2:])
    if mechanism == "mcar":
        chosen = _single_cells(panel, n_hidden, rng)
    elif mechanism == "block":
        chosen = _blocks(panel, n_hidden, rng, block_length, n_block_features)
    elif mechanism == "tail":
        chosen = _tails(panel, n_hidden)
    else:
        stretch = block_length if observed.ndim == 2 else observed.shape[1]
        chosen = _whole_features(panel, n_hidden, rng, stretch)
    return chosen.reshape(observed.shape) & observed


def _single_cells(panel, n_hidden, rng):
    """Observed cells, each with the same probability."""
    chosen = np.zeros(panel.shape, dtype=bool)
    chosen.flat[rng.choice(np.flatnonzero(panel), n_hidden, replace=False)] = True
    return chosen


def _blocks(panel, n_hidden, rng, length, n_block_features):
    """Runs at random places until they hold enough observed cells."""
    n_series, n_times, n_features = panel.shape
    chosen = np.zeros(panel.shape, dtype=bool)
    n_chosen = 0
    while n_chosen < n_hidden:
        series, first = rng.randint(n_series), rng.randint(n_times - length + 1)
        features = rng.choice(n_features, n_block_features, replace=False)
        block = series, np.arange(first, first + length)[:, None], features
        n_chosen += np.count_nonzero(panel[block] & ~chosen[block])
        chosen[block] = True
    return chosen


def _tails(panel, n_hidden):
    """The last times of every series, as many as come nearest to the number wanted."""
    n_observed_since = panel.sum(axis=(0, 2))[::-1].cumsum()
    distance = np.where(n_observed_since > 0, np.abs(n_observed_since - n_hidden), np.inf)
    n_last = 1 + np.argmin(distance)
    chosen = np.zeros(panel.shape, dtype=bool)
    chosen[:, -n_last:] = True
    return chosen


def _whole_features(panel, n_hidden, rng, stretch):
    """Pairs of stretch and feature, as many as come nearest to the number wanted."""
    rows = panel.reshape(-1, panel.shape[-1])
    first_rows = np.arange(0, len(rows), stretch)
    n_observed = np.add.reduceat(rows, first_rows, axis=0, dtype=int)
    order = rng.permutation(np.flatnonzero(n_observed))
    n_pairs = 1 + np.argmin(np.abs(n_observed.flat[order].cumsum() - n_hidden))
    pairs = np.zeros(n_observed.shape, dtype=bool)
    pairs.flat[order[:n_pairs]] = True
    return np.repeat(pairs, np.diff(first_rows, append=len(rows)), axis=0)


def _hide(X, values, hidden):
    """Copy with NaN in the hidden cells, a DataFrame if ``X`` is one."""
    if hasattr(X, "iloc"):
        return X.mask(hidden)
    return np.where(hidden, np.nan, values)
