"""What users give as bounds of a target, read as a support."""

import numpy as np
from torch.distributions import Transform, constraints

from skdiffusion.diffusion.target.supports import Blocks, Box, Ordered, support_of

WORDS = {
    "positive": lambda n: Box((0.0,) * n, (np.inf,) * n),
    "ordered": Ordered,
    "simplex": lambda n: support_of(constraints.simplex, n),
}


def number_of_bounds(bounds):
    """Number of features that bounds tell, or None."""
    if bounds is None or isinstance(bounds, str | constraints.Constraint | Transform):
        return None
    return sum(part[1] if _is_block(part) else 1 for part in bounds)


def _is_block(part):
    """Whether an entry of bounds is a block of features and not a pair."""
    kinds = str | constraints.Constraint | Transform
    return isinstance(part, tuple | list) and len(part) == 2 and isinstance(part[0], kinds)


def read_bounds(bounds, target, n_features):
    """Support that bounds describe, or that a distribution of torch has of itself.

    Parameters
    ----------
    bounds : None, str, sequence, or constraint or transform of torch
        As the parameter of the sampler.
    target : object
        What the user gave.
    n_features : int
        Number of features.

    Returns
    -------
    support : object or None
        The support; None for the whole space.
    """
    if number_of_bounds(bounds) is None:
        bounds = getattr(target, "support", None) if bounds is None else bounds
        return _support(bounds, n_features)
    if not any(_is_block(part) for part in bounds):
        return _box(bounds)
    parts = [_support(*part) if _is_block(part) else _box([part]) for part in bounds]
    sizes = [part[1] if _is_block(part) else 1 for part in bounds]
    free = [(-np.inf,), (np.inf,)]
    return Blocks(
        Box(*(side * n for side in free)) if part is None else part
        for part, n in zip(parts, sizes, strict=True)
    )


def _support(kind, n_features):
    """Support of some features, by a word, a constraint or a transform."""
    if isinstance(kind, str) and kind in WORDS:
        return WORDS[kind](n_features)
    if isinstance(kind, str):
        raise ValueError(f"bounds knows the words {sorted(WORDS)}, got {kind!r}")
    if not isinstance(kind, constraints.Constraint | Transform):
        return None
    try:
        return support_of(kind, n_features)
    except NotImplementedError as error:
        raise ValueError(
            f"the support {kind} cannot be mapped to the whole space, in which Langevin chains "
            "run: give bounds with such a map, or another target."
        ) from error


def _box(bounds):
    """Box of pairs, where None is no bound."""
    try:
        pairs = [(None, None) if pair is None else tuple(pair) for pair in bounds]
        low = tuple(-np.inf if a is None else float(a) for a, _ in pairs)
        high = tuple(np.inf if b is None else float(b) for _, b in pairs)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "bounds must have one pair (low, high) for every feature, None where there is none, "
            f"or blocks such as ('simplex', 3); got {bounds!r}"
        ) from error
    if not np.all(np.array(low) < np.array(high)):
        raise ValueError(f"bounds must have low < high in every pair, got {bounds!r}")
    return None if np.isinf([*low, *high]).all() else Box(low, high)
