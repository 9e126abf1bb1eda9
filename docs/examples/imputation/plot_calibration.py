"""
Check intervals, and make them hold (conformal)
===============================================

An interval of 50 % should hold the truth half of the time. We look whether those of a fitted
imputer do, on hours of weather it has never seen, and let
:func:`~skdiffusion.estimators.conformalize` put right what is wrong.

**What to see:** on the curve of coverage the points of the adjusted intervals lie on the diagonal,
whether or not the line of the model does.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# Half a year to fit, a season to calibrate, a season to check
# ------------------------------------------------------------
# One cell in ten is hidden in the last season. The closed-form imputer is fast, but it takes the
# weather as Gaussian: calm hours and storms have one spread.

import matplotlib.pyplot as plt
import numpy as np

from skdiffusion import CSDIImputer
from skdiffusion.datasets import ampute, load_nyc_weather
from skdiffusion.estimators import conformalize
from skdiffusion.inspection import PITDisplay, ReliabilityDisplay

weather = load_nyc_weather(as_frame=True).frame
fitting = weather[:"2013-06"]
calibration, season = weather["2013-07":"2013-09"], weather["2013-10":]
imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(fitting)
given, hidden = ampute(season, missing_rate=0.1, random_state=0)
draws = imputer.sample(given, n_draws=99)

# %%
# Where does the truth lie among its draws?
# -----------------------------------------
# First: a histogram of the places of the truth among its draws, which is flat if they are right; a
# hump in the middle means that most intervals are too wide. Second: the same, level by level, and
# what the adjusted intervals hold.

conformal = conformalize(imputer, calibration)
levels = np.linspace(0.1, 0.9, 9)
ends = np.concatenate([(1 - levels) / 2, (1 + levels) / 2])
low, high = np.split(conformal.predict_quantiles(given, ends), 2, axis=1)
truth = season.to_numpy()[:, None]
covered = [
    np.mean(inside[hidden]) for inside in np.moveaxis((low <= truth) & (truth <= high), 1, 0)
]

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
PITDisplay.from_draws(season, draws, mask=hidden).plot(axis)
plt.show()

# %%

figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
ReliabilityDisplay.from_draws(season, draws, mask=hidden, name="CSDIImputer").plot(axis)
axis.plot(levels, covered, "o", color="C1", ms=8, label="after conformalize")
axis.legend(loc="lower right")
plt.show()

# %%
# What the promise costs, or saves
# --------------------------------

half = {
    "CSDIImputer": np.quantile(draws, [0.25, 0.75], axis=1, method="weibull"),
    "after conformalize": np.moveaxis(conformal.predict_quantiles(given, [0.25, 0.75]), 1, 0),
}
scale = weather.std().to_numpy()
for name, (lower, upper) in half.items():
    inside = ((lower <= season) & (season <= upper)).to_numpy()[hidden].mean()
    width = ((upper - lower) / scale)[hidden].mean()
    print(f"{name:20}{inside:.0%} inside, mean width {width:.2f} standard deviations")
