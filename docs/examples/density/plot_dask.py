"""
Score a table on several processes
==================================

A table in chunks of Dask is scored chunk by chunk on the processes of a local cluster. The
log-densities are bit for bit those that one process gives, and no process holds all rows.

Look at the right tail of the picture: the rows that the density finds least likely are those that
were spoilt.
"""

# %%
# A table, some rows of which are spoilt
# --------------------------------------
# Six columns follow two hidden ones; every thousandth row has two columns of another row.

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
from distributed import Client, LocalCluster

from skdiffusion import ScoreSDE

rng = np.random.default_rng(0)
table = rng.normal(size=(100_000, 2)) @ rng.normal(size=(2, 6))
table += 0.2 * rng.normal(size=table.shape)
spoilt = np.zeros(len(table), dtype=bool)
spoilt[::1000] = True
table[spoilt, :2] = table[500::1000, :2]
model = ScoreSDE(base="mixture", max_iter=0, random_state=0).fit(table[:5000])

# %%
# Scores from two processes
# -------------------------
# On a cluster of machines only the address in ``Client`` changes. The guard keeps processes that
# read this file again from starting clusters of their own.


def score_on_cluster(table):
    """Log-densities of all rows, computed on two processes with one thread each."""
    chunks = da.from_array(table, chunks=(16_384, 6))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        return model.score_samples(chunks).compute()


def show(scores):
    """Histograms of the scores of spoilt rows and of the others."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    bins = np.linspace(-scores.max(), 40, 60)
    for name, rows in (("untouched", ~spoilt), ("spoilt", spoilt)):
        axes.hist((-scores[rows]).clip(max=40), bins, density=True, alpha=0.6, label=name)
    axes.set(xlabel="negative log-density, nats (40 stands for more)", ylabel="share of rows a nat")
    axes.legend()
    return figure


if __name__ == "__main__":
    scores = score_on_cluster(table)
    print("as in one process:", np.array_equal(scores, model.score_samples(table)))
    least = np.argsort(scores)[: spoilt.sum()]
    print(f"of the {len(least)} least likely rows {spoilt[least].sum()} were spoilt")
    show(scores)
