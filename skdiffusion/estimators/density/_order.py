"""The order of the columns of a chain: what the others foretell stands last."""

import heapq

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

# Rows that a regression is fitted to, and rows that it is judged on.
_N_ROWS, _N_TEST = 1500, 1000
# Of fewer rows no order is learnt.
_FEWEST = 50
_TREES = {"max_iter": 60, "max_leaf_nodes": 16, "early_stopping": False, "random_state": 0}


def column_order(rows, seed):
    """Order of the columns in which sharp functions of others come after their arguments.

    From the last place to the first, the column goes there that those which are left foretell
    best. Without a column the others are foretold no better: an old share of variance is a bound
    on the new one, so that few shares need to be computed again (lazy greedy selection [1]_).

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        Rows.
    seed : int
        Seed of the choice of rows.

    Returns
    -------
    order : int ndarray of shape (n_features,)
        Numbers of the columns.

    References
    ----------
    .. [1] M. Minoux, "Accelerated greedy algorithms for maximizing submodular set functions",
       Optimization Techniques 1978, https://doi.org/10.1007/BFb0006528.
    """
    if len(rows) < _FEWEST:
        return np.arange(rows.shape[1])
    chosen = np.random.default_rng(seed).permutation(len(rows))[: _N_ROWS + _N_TEST]
    cut = min(_N_ROWS, 2 * len(chosen) // 3)
    sides = rows[chosen[:cut]], rows[chosen[cut:]]
    left, last = list(range(rows.shape[1])), []
    # Shares are negative, as the heap gives the smallest first.
    heap = [(-_foretold(j, left, sides), j, len(left)) for j in left]
    heapq.heapify(heap)
    while heap:
        _, j, n_left = heapq.heappop(heap)
        if n_left == len(left):
            left.remove(j)
            last.append(j)
        else:
            heapq.heappush(heap, (-_foretold(j, left, sides), j, len(left)))
    return np.array(last[::-1])


def _foretold(j, columns, sides):
    """Share of the variance of a column that trees or a line foretell from the others."""
    others = [k for k in columns if k != j]
    if not others:
        return 0.0
    train, test = sides
    models = Ridge(), HistGradientBoostingRegressor(**_TREES)
    errors = [
        np.mean(
            (model.fit(train[:, others], train[:, j]).predict(test[:, others]) - test[:, j]) ** 2
        )
        for model in models
    ]
    return 1 - min(errors) / np.var(test[:, j])
