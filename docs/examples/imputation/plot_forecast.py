"""
Forecast by filling a trailing gap
==================================

A forecast is a gap with one end. Append rows of NaN for the hours to come, and
:class:`~skdiffusion.CSDIImputer` fills them with paths that are equally likely given the past.

**What to see:** the band is narrow at first and widens to the usual spread of the hour of the day;
single draws are whole paths, not noise around the median.
"""

# %%
# Eight weeks of weather, and two days to come
# --------------------------------------------
# The last two days are taken away from all columns. Times are in the index, so that the daily
# course is known to the model.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skdiffusion import CSDIImputer
from skdiffusion.datasets import load_nyc_weather
from skdiffusion.metrics import crps_loss

columns = ["JFK_temp", "JFK_dewp", "LGA_temp", "LGA_dewp"]
weather = load_nyc_weather(as_frame=True).frame[columns]
past, future = weather["2013-05-01":"2013-06-25"], weather["2013-06-26":"2013-06-27"]
to_come = pd.DataFrame(np.nan, index=future.index, columns=columns)
extended = pd.concat([past, to_come])

# %%
# Fit to the past, fill what is empty
# -----------------------------------
# The closed form is enough for four columns. The draws of one path belong together: the chance that
# it gets warmer than 85 °F at any hour of the two days is counted over paths.

imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(past)
paths = imputer.sample(extended, n_draws=200)[len(past) :]
hottest = paths[:, :, columns.index("JFK_temp")].max(axis=0)
print(f"chance of more than 85 °F at JFK within two days: {(hottest > 85).mean():.0%}")
print(f"it reached {future['JFK_temp'].max():.0f} °F")

# %%
# Against two simple forecasts
# ----------------------------
# The CRPS of one value is its absolute error, so that forecasts with and without draws can stand in
# one table. One stretch of two days proves nothing; forty of them, a day apart, say a little more.

scale = past.std().to_numpy()
rows = []
for day in pd.date_range("2013-07-01", periods=40, freq="D"):
    truth = weather[day : day + pd.Timedelta(hours=47)]
    before = weather[day - pd.Timedelta(days=14) : day - pd.Timedelta(hours=1)]
    empty = pd.DataFrame(np.nan, index=truth.index, columns=columns)
    draws = imputer.sample(pd.concat([before, empty]), n_draws=50)[len(before) :]
    known = truth.notna().to_numpy()
    last_day = before.shift(freq="24h").reindex(truth.index)
    last_day = last_day.fillna(before.shift(freq="48h").reindex(truth.index)).ffill().bfill()
    last_hour = np.broadcast_to(before.ffill().iloc[-1].to_numpy(), truth.shape)
    forecasts = {
        "CSDIImputer": draws / scale,
        "the same hour of the last day": last_day.to_numpy()[:, None] / scale,
        "the last hour": last_hour[:, None] / scale,
    }
    target, row = truth.to_numpy() / scale, {}
    for name, forecast in forecasts.items():
        kind = "fair" if forecast.shape[1] > 1 else "ensemble"
        row[name] = crps_loss(target, forecast, mask=known, method=kind)
    rows.append(row)
print(pd.DataFrame(rows).mean().to_string(float_format="CRPS {:.3f}".format))

# %%
# The picture
# -----------

low, middle, high = np.quantile(paths[:, :, 0], [0.05, 0.5, 0.95], axis=1)
figure, axis = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
axis.fill_between(future.index, low, high, color="C0", alpha=0.25, label="90 % band")
axis.plot(future.index, paths[:, :3, 0], color="C0", lw=0.8, alpha=0.7)
axis.plot(future.index, middle, color="C0", lw=2, label="median of the draws")
axis.plot(past.index[-72:], past["JFK_temp"][-72:], color="0.3", label="past")
axis.plot(future.index, future["JFK_temp"], "x", color="C3", ms=5, label="what came")
axis.set(ylabel="temperature at JFK (°F)", title="Two days ahead: band, and three of 200 paths")
axis.legend(loc="upper left", ncols=2)
axis.tick_params(axis="x", labelrotation=30)
plt.show()
