"""
Impute monthly series
=====================

Months have 28 to 31 days, and still a year is twelve rows: with a ``DatetimeIndex`` of one date a
month :class:`~skdiffusion.CSDIImputer` counts months. Two related series of fifteen years have
single gaps, a year in which one of them stopped, and half a year without any; the last year is
missing in one of them, which is a forecast that the other helps with.

**What to see:** bands are narrow where the other series is known, and wide in the half year in
which both are missing.
"""

# %%
# Two series
# ----------
# A season, a slow wave that both share, and noise.

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skdiffusion import CSDIImputer

rng, n = np.random.default_rng(1), 180
months = pd.date_range("2008-01-01", periods=n, freq="MS")
season = np.sin(2 * np.pi * np.arange(n) / 12)
wave = np.zeros(n)
for t in range(1, n):
    wave[t] = 0.92 * wave[t - 1] + 0.3 * rng.normal()
truth = pd.DataFrame(
    {
        "guests": 100 + 25 * season + 12 * wave + 3 * rng.normal(size=n),
        "flights": 40 + 8 * season + 6 * wave + 1.5 * rng.normal(size=n),
    },
    index=months,
)
hidden = rng.random((n, 2)) < 0.05
hidden[60:72, 0] = True
hidden[110:116] = True
hidden[-12:, 0] = True
gaps = truth.mask(hidden)

# %%
# A window of twelve months is twelve rows
# ----------------------------------------

imputer = CSDIImputer(method="gaussian", window_length=12, random_state=0).fit(gaps)
print(f"step: {imputer.time_step_ / 86400:.1f} days on average")
completed = imputer.transform(gaps)
low, high = np.moveaxis(imputer.predict_quantiles(gaps, [0.05, 0.95]), 1, 0)
inside = (low <= truth) & (truth <= high)
print(f"hidden months inside the 90 % band: {inside.to_numpy()[hidden].mean():.2f}")

# %%
# In one picture
# --------------

figure, axes = plt.subplots(2, 1, figsize=(9, 5.5), sharex=True, layout="constrained")
for k, (axis, name) in enumerate(zip(axes, truth)):
    axis.fill_between(months, low[:, k], high[:, k], color="C0", alpha=0.3, label="90 % band")
    axis.plot(gaps[name], color="0.3", lw=1, label="observed")
    axis.plot(truth[name][hidden[:, k]], "x", color="C3", ms=4, label="hidden truth")
    axis.set_ylabel(name)
axes[0].legend(ncols=3, loc="upper left")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "monthly.png", dpi=150)
