"""Labels that are drawn anew: which ones, and by what law in tables and in series."""

import logging

import numpy as np
from tqdm.auto import tqdm

from skdiffusion._random import row_keys
from skdiffusion.estimators.imputation._label_chains import LabelChains
from skdiffusion.estimators.imputation._label_draws import LabelDraws, label_codes
from skdiffusion.inputs.times import possible_periods

_log = logging.getLogger(__name__)

# Completed copies to learn from.
_N_COPIES = 5
# Labels with fewer known cells, or with more categories, are left to the Gaussian.
_FEWEST, _MOST_CATEGORIES = 30, 30


def learn_labels(reader, columns, model, data, settings, seed):
    """What draws labels anew, or None where there are none.

    Parameters
    ----------
    reader : SeriesReader
        The form of the data.
    columns : Columns
        Their units.
    model : ImputationModel
        What draws the other cells.
    data : SeriesInput
        The data of ``fit``.
    settings : Bunch
        Parameters of the imputer.
    seed : int
        Fixes everything.

    Returns
    -------
    labels : LabelDraws, LabelChains or None
        The laws.
    """
    inputs = _learnable(reader, columns, data.flat) if reader.kind != "panel" else {}
    if not inputs:
        return None
    flat, keys, encoding = data.flat, row_keys(data.rows, seed), reader.encoding
    asked = np.isnan(flat) & columns.valid
    copies = np.repeat(flat[None], _N_COPIES, axis=0)
    if asked.any():
        draws = drawn(reader, columns, model, data, keys, _N_COPIES, settings)
        copies[:, asked] = reader.settle(data, draws, asked, keys)
    bar = tqdm(inputs.items(), "Learning labels", disable=settings.verbose == 0, leave=False)
    if reader.kind == "table":
        labels = LabelDraws.learn(flat, copies, columns, encoding, bar, seed)
    else:
        periods = possible_periods(data, reader.length)
        labels = LabelChains.learn(data, copies, columns, encoding, periods, bar, seed)
    _log.info("learnt the labels of %d columns", len(inputs))
    return labels


def drawn(reader, columns, model, data, keys, n_draws, settings):
    """Draws (n_draws, n_missing) of the missing cells of valid columns, in the units of X."""
    windows = reader.windows(data, columns, settings.direction == "past")
    z = model.draw(windows, keys, n_draws, settings).cpu().numpy()
    feature = np.nonzero(np.isnan(data.flat[:, columns.valid]))[1]
    largest = np.finfo(data.flat.dtype).max
    return np.clip(columns.inverse(z, feature), -largest, largest)


def _learnable(reader, columns, flat):
    """Features whose labels can be learnt, and for each the columns that tell it."""
    encoding, found = reader.encoding, {}
    for j, code in enumerate(encoding.columns):
        first = encoding.first[j]
        if code.kind not in ("label", "boolean", "flag") or code.most >= _MOST_CATEGORIES:
            continue
        if reader.static is not None and reader.static[first]:
            continue
        known = ~np.isnan(flat[:, first])
        inputs = encoding.owner[columns.valid] != j
        several = len(np.unique(label_codes(flat, encoding, j)[known])) > 1
        if known.sum() >= _FEWEST and several and (inputs.any() or reader.kind == "series"):
            found[j] = inputs
    return found
