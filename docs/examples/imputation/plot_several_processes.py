"""
Fill a table in several processes
=================================

The draws of a row depend on the row and on ``random_state``, not on the rows beside it. So a table
can be cut, filled in several processes or on several machines, and put together again.

**What to see:** all points on the diagonal: two processes with eight pieces give the numbers of one
call, up to the rounding of single precision.
"""

# %%
# Fit once
# --------

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed

from skdiffusion import CSDIImputer

rng = np.random.default_rng(0)
mixing = rng.normal(size=(3, 6))
X = rng.normal(size=(4000, 3)) @ mixing + 0.3 * rng.normal(size=(4000, 6))
X[rng.random(X.shape) < 0.2] = np.nan
imputer = CSDIImputer(method="gaussian", random_state=0).fit(X)

# %%
# Fill in pieces
# --------------
# Each process has its own copy of the imputer. In place of joblib's own processes
# ``joblib.parallel_config("dask")`` takes the workers of a Dask cluster.

whole = imputer.sample(X, n_draws=20)
pieces = np.array_split(X, 8)
parts = Parallel(n_jobs=2)(delayed(imputer.sample)(piece, n_draws=20) for piece in pieces)
together = np.concatenate(parts)
print(f"largest difference: {np.abs(together - whole).max():.1e}")

# %%
# Of one long series the rows are not independent: pieces that overlap by some hundred rows are as
# good as the whole, and not the same to the bit.
#
# The picture
# -----------

gaps = np.isnan(X).nonzero()
figure, axis = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
axis.plot(whole[gaps[0], 0, gaps[1]], together[gaps[0], 0, gaps[1]], ".", ms=3)
axis.axline((0, 0), slope=1, color="0.5", lw=0.8)
axis.set(
    xlabel="drawn in one call",
    ylabel="drawn in eight pieces by two processes",
    title="The first draw of every missing cell",
)
plt.show()
