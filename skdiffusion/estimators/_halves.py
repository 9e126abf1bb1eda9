"""Models of the halves of the rows, and what each foretells of the half that it has not seen.

Only residuals on unseen rows are as large as those of new rows will be.
"""

import numpy as np


def cross_fitted(make, inputs, target, halves):
    """Fit a model to each half, and foretell the other one.

    Parameters
    ----------
    make : callable
        Gives an estimator that is not fitted.
    inputs : ndarray of shape (n_rows, n_inputs)
        What to foretell from.
    target : ndarray of shape (n_rows,)
        What to foretell.
    halves : pair of ndarrays
        Indices or masks of the rows of each half; every row is in one.

    Returns
    -------
    models : list of two estimators
        One of each half.
    foretold : ndarray of shape (n_rows,)
        What the model of the other half says of each row.
    """
    models = [make().fit(inputs[half], target[half]) for half in halves]
    foretold = np.empty(len(target))
    for model, half in zip(models[::-1], halves, strict=True):
        foretold[half] = model.predict(inputs[half])
    return models, foretold


def averaged(models, inputs):
    """Mean of what models foretell."""
    return np.mean([model.predict(inputs) for model in models], axis=0)
