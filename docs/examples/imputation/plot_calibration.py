"""
Check intervals, and make them hold (conformal)
===============================================

An interval of 50 % should hold the truth half of the time. We look whether those of a fitted
imputer do, on hours of weather it has never seen, and on rows for which its model is wrong. There
:func:`~skdiffusion.estimators.conformalize` puts right what the model gets wrong.

**What to see:** on the weather what the intervals hold is near what they promise. Where a device
has worn the line is off the diagonal, and the points of the adjusted intervals lie on it.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# Half a year to fit, two months to check
# ---------------------------------------
# One cell in ten is hidden in two months that the imputer has not seen. ``interval_coverage`` and
# the displays take the draws and the truth, and look at the hidden cells only.

import matplotlib.pyplot as plt
import numpy as np

from skdiffusion import CSDIImputer
from skdiffusion.datasets import ampute, load_nyc_weather
from skdiffusion.estimators import conformalize
from skdiffusion.inspection import PITDisplay, ReliabilityDisplay
from skdiffusion.metrics import interval_coverage

weather = load_nyc_weather(as_frame=True).frame
imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0)
imputer.fit(weather[:"2013-06"])
season = weather["2013-10":"2013-11"]
given, hidden = ampute(season, missing_rate=0.1, random_state=0)
draws = imputer.sample(given, n_draws=99)
for level in (0.5, 0.9):
    print(f"{level:.0%}: {interval_coverage(season, draws, level=level, mask=hidden):.1%} inside")

# %%
# A histogram of the places of the truth among its draws is flat if the draws are right.

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
PITDisplay.from_draws(season, draws, mask=hidden).plot(axis)
plt.show()

# %%
# A device that has worn
# ----------------------
# In the rows that come after the fit, one in two spreads three times as wide as before, and the
# imputer's intervals are too narrow. Cells that are hidden in rows kept for the purpose tell by how
# much each quantile must be moved.

rng = np.random.default_rng(0)
n = 3000
spread = np.where(np.arange(n) < n // 3, 1, rng.choice([1, 3], n))[:, None]
X = spread * (rng.standard_normal((n, 1)) + 0.3 * rng.standard_normal((n, 5)))
fitting, calibration, new = np.split(X, 3)
imputer = CSDIImputer(method="gaussian", random_state=0).fit(fitting)
conformal = conformalize(imputer, calibration, missing_rate=0.2)
given, hidden = ampute(new, missing_rate=0.2, random_state=0)
draws = imputer.sample(given, n_draws=99)

levels = np.linspace(0.1, 0.9, 9)
ends = np.concatenate([(1 - levels) / 2, (1 + levels) / 2])
low, high = np.split(conformal.predict_quantiles(given, ends), 2, axis=1)
inside = (low <= new[:, None]) & (new[:, None] <= high)
covered = [np.mean(of_level[hidden]) for of_level in np.moveaxis(inside, 1, 0)]

figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
ReliabilityDisplay.from_draws(new, draws, mask=hidden, name="CSDIImputer").plot(axis)
axis.plot(levels, covered, "o", color="C1", ms=8, label="after conformalize")
axis.legend(loc="lower right")
plt.show()

# %%
# What it costs, or saves
# -----------------------
# The promise is an average over cells: it holds for calm and wild rows together, not for each kind.

wild = spread[-len(new) :, 0] > 1
for level, lower, upper in zip(levels, low.swapaxes(0, 1), high.swapaxes(0, 1)):
    if round(level, 1) == 0.5:
        within = (lower <= new) & (new <= upper)
        for name, rows in {"all rows": wild | ~wild, "calm": ~wild, "wild": wild}.items():
            share = within[hidden & rows[:, None]].mean()
            print(f"50 % interval, {name:8}: {share:.0%} inside")
