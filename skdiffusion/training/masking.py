"""Target strategies: which observed cells are hidden and become the training targets.

Self-supervision (CSDI, section 4.3): of the cells that are observed, some are hidden and the
network is asked for them, so that no complete data are ever needed. Every strategy is a function
``strategy(observed, generator, pool)`` of the bool masks of a batch of windows (B, L, K) and of
``pool``, the observed masks of all training windows (a callable that draws some); it returns the
bool mask of the targets, a subset of ``observed``.
"""

import numpy as np
import torch


def user_strategy(function):
    """Wrap a target strategy of the user's and check what it returns."""

    def strategy(observed, generator, pool=None):
        seed = int(torch.randint(2**31, (1,), generator=generator))
        hidden = np.asarray(function(observed.numpy().copy(), np.random.default_rng(seed)))
        if hidden.shape != observed.shape or hidden.dtype != bool:
            raise ValueError(
                f"target_strategy returned {hidden.dtype} of shape {hidden.shape}; expected bool "
                f"of shape {tuple(observed.shape)}."
            )
        return observed & torch.from_numpy(hidden)

    return strategy


def random_targets(observed, generator, pool=None):
    """Hide a share of the cells, the share drawn from U(0, 1) for each window."""
    return observed & (
        _uniform(observed.shape, generator) < _uniform((len(observed), 1, 1), generator)
    )


def historical_targets(observed, generator, pool):
    """Hide what another window of the training data misses."""
    return observed & ~pool(len(observed))


def mix_targets(observed, generator, pool):
    """Half of the windows at random, half by another window's gaps."""
    heads = _uniform((len(observed), 1, 1), generator) < 0.5
    return torch.where(
        heads, random_targets(observed, generator), historical_targets(observed, generator, pool)
    )


def feature_targets(observed, generator, pool=None):
    """Hide whole features: at least one, at most half of them."""
    _, _, n_features = observed.shape
    return observed & _columns(observed, max(1, n_features // 2), generator)


def block_targets(observed, generator, pool=None):
    """Half of the windows scattered cells, half runs of time steps in a few features.

    This is how sensors fail: single readings get lost, or a device is silent for hours. It is
    the default of the imputer.
    """
    batch, length, n_features = observed.shape
    uniform = lambda: _uniform((batch, 1, 1), generator)  # noqa: E731
    few = 0.02 + 0.4 * uniform()
    share = torch.where(uniform() < 0.8, few, uniform())
    scattered = _uniform(observed.shape, generator) < share
    if length == 1:
        return observed & scattered
    lengths = (3 + uniform() * (min(length, 30) - 2)).floor()
    starts = ((length - lengths + 1 + length // 2) * uniform()).floor() - length // 4
    time = torch.arange(length)[None, :, None]
    run = (time >= starts) & (time < starts + lengths)
    blocks = run & _columns(observed, max(1, n_features // 3), generator)
    blocks = blocks | (_uniform(observed.shape, generator) < 0.12)
    return observed & torch.where(uniform() < 0.5, blocks, scattered)


def by_feature(strategy, owner):
    """Let a strategy hide features whole, each of which may stand in several columns.

    The columns of one category tell each other's values, so that one hidden alone teaches nothing.

    Parameters
    ----------
    strategy : callable
        A target strategy, which sees one column for each feature.
    owner : int64 tensor of shape (K,)
        The feature that each column belongs to, rising.

    Returns
    -------
    strategy : callable
        A target strategy of all columns.
    """
    _, place, count = owner.unique_consecutive(return_inverse=True, return_counts=True)
    first = count.cumsum(0) - count
    if len(first) == len(owner):
        return strategy

    def whole(observed, generator, pool=None):
        of_features = lambda n: pool(n)[..., first]  # noqa: E731
        return strategy(observed[..., first], generator, of_features)[..., place]

    return whole


def pattern_targets(patterns):
    """Return the strategy that hides given patterns, one drawn for each window.

    Parameters
    ----------
    patterns : bool tensor of shape (n_patterns, L, K)
        True where a cell is to be hidden.

    Returns
    -------
    strategy : callable
        A target strategy.
    """

    def strategy(observed, generator, pool=None):
        return (
            observed & patterns[torch.randint(len(patterns), (len(observed),), generator=generator)]
        )

    return strategy


STRATEGIES = {
    "random": random_targets,
    "historical": historical_targets,
    "mix": mix_targets,
    "feature": feature_targets,
    "block": block_targets,
}


def _uniform(shape, generator):
    """Uniform numbers."""
    return torch.rand(shape, generator=generator)


def _columns(observed, most, generator):
    """Choose 1 to ``most`` features for each window, as a mask (B, 1, K)."""
    batch, _, n_features = observed.shape
    count = torch.randint(1, most + 1, (batch, 1, 1), generator=generator)
    rank = _uniform((batch, 1, n_features), generator).argsort(-1).argsort(-1)
    return rank < count
