"""
Score a table on several processes
==================================

A table in chunks of Dask is scored chunk by chunk on the processes of a local cluster. The
log-densities are the same numbers that one process gives, and no process holds all rows.

Look at the right tail of the picture: the rows that the density finds least likely are those that
were spoilt.
"""

# %%
# A local cluster and a table in chunks
# -------------------------------------
# Two processes with a thread each; on a cluster of machines only the address in ``Client`` changes.
# The guard keeps a process that reads this file again from starting a cluster of its own.

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
from distributed import Client, LocalCluster

from skdiffusion import ScoreSDE


def make_table(n_rows):
    """Correlated rows, every thousandth of which has two columns from another row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 6)) @ rng.normal(size=(6, 6))
    X[::1000, :2] = X[500::1000, :2]
    return X


def score(X):
    """Fit to a sample of the rows, and score all of them."""
    model = ScoreSDE(base="mixture", max_iter=0, random_state=0)
    model.fit(X[:5000])
    scores = model.score_samples(X)
    print("lazily:", scores)
    return model, scores.compute()


if __name__ == "__main__":
    table = make_table(100_000)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        model, scores = score(da.from_array(table, chunks=(16_384, 6)))
    print("as in one process:", np.array_equal(scores, model.score_samples(table)))

    # %%
    # Which rows are odd
    # ------------------
    spoilt = np.zeros(len(table), dtype=bool)
    spoilt[::1000] = True
    least = np.argsort(scores)[: spoilt.sum()]
    print(f"of the {len(least)} least likely rows {spoilt[least].sum()} were spoilt")

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    bins = np.linspace(-scores.max(), -np.quantile(scores, 1e-4) + 10, 60)
    for name, rows in (("untouched", ~spoilt), ("spoilt", spoilt)):
        axes.hist(-scores[rows].clip(-bins[-1]), bins, density=True, alpha=0.6, label=name)
    axes.set(xlabel="negative log-density, nats", ylabel="share of rows a nat")
    axes.legend()
    plt.show()
