"""Masked arrays and tensors as plain arrays."""

import numpy as np


def unmasked(X, placeholder=np.nan):
    """Masked arrays, or those in a list, with a placeholder in their masked cells; tensors as
    arrays.
    """
    if isinstance(X, np.ma.MaskedArray):
        if X.dtype.kind in "iub" and np.isnan(placeholder):
            X = X.astype(float)
        return X.data if X.dtype.kind in "mM" else X.filled(placeholder)
    if isinstance(X, (list, tuple)) and any(map(_is_masked_or_tensor, X)):
        return [unmasked(x, placeholder) for x in X]
    return detached(X)


def detached(X):
    """Array of a tensor of torch, which gives none while it is on a device or tracked."""
    if not hasattr(X, "requires_grad"):
        return X
    X = X.detach().cpu()
    # Types of half precision without a counterpart in numpy, such as bfloat16.
    half = X.is_floating_point() and X.element_size() <= 2
    return (X.float() if half else X).numpy()


def _is_masked_or_tensor(x):
    return isinstance(x, np.ma.MaskedArray) or hasattr(x, "requires_grad")
