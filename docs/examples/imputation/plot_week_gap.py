"""
A week without values
=====================

What the base of :class:`~skdiffusion.CSDIImputer` does with a long gap: the smoother's middle, its
band, and draws that are paths. For a week in July no airport of New York reports anything. Look at
three things: near the ends of the gap the band is narrow, as the hours before and after tell; in
its middle it is as wide as July is varied, and the median keeps the rhythm of the day; and every
draw wanders like weather, which the median does not.
"""

# %%
# Two months, a gap of a week
# ---------------------------

import matplotlib.pyplot as plt
import numpy as np

from skdiffusion import CSDIImputer
from skdiffusion.datasets import load_nyc_weather

truth = load_nyc_weather(as_frame=True).data.loc["2013-06-10":"2013-08-10"]
visible = truth.copy()
gap = slice("2013-07-08", "2013-07-14")
visible.loc[gap] = np.nan

imputer = CSDIImputer(method="gaussian", window_length=24, n_draws=200, random_state=0).fit(visible)
draws = imputer.sample(visible)
column = list(truth).index("JFK_temp")
temperature = draws[:, :, column]

# %%
# In one picture
# --------------

low, middle, high = np.quantile(temperature, [0.05, 0.5, 0.95], axis=1)
shown = truth.loc["2013-07-06":"2013-07-16"].index
rows = truth.index.get_indexer(shown)
figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
axis.fill_between(shown, low[rows], high[rows], color="C0", alpha=0.25, label="90 % band")
axis.plot(shown, temperature[rows, :3], color="C0", lw=0.8, alpha=0.8)
axis.plot([], [], color="C0", lw=0.8, label="three draws")
axis.plot(shown, middle[rows], color="C0", lw=2, label="median")
axis.plot(shown, truth.loc[shown, "JFK_temp"], color="black", lw=1, label="hidden truth")
axis.set(ylabel="temperature at JFK (°F)", title="A week without a value")
axis.legend(ncols=4, loc="lower left")
figure.autofmt_xdate()
plt.show()

inside = (low <= truth["JFK_temp"]) & (truth["JFK_temp"] <= high)
print(f"hidden hours inside the band: {inside[gap].mean():.2f}")

# %%
# A question that only paths answer
# ---------------------------------
# How warm was the warmest hour of that week? The largest median is too low, since no single hour is
# the warmest in all draws; the largest value of each draw has the right spread.

week = truth.index.get_indexer(truth.loc[gap].index)
largest = temperature[week].max(axis=0)
low, high = np.quantile(largest, [0.05, 0.95])
print(f"largest median {middle[week].max():.1f}, truth {truth.loc[gap, 'JFK_temp'].max():.1f}")
print(f"largest values of draws: {low:.1f} to {high:.1f}")
