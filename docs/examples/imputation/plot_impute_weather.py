"""
Fill the gaps of hourly weather
===============================

Three New York airports report six quantities every hour. Some records are missing. We hide more
of them, single hours as well as whole days of some sensors, fill all gaps with
:class:`~skdiffusion.estimators.CSDIImputer`, and compare with three usual methods on the values
that we hid.

**What to see:** a day without a sensor is filled from the other sensors, with a band that is narrow
where they tell the value, and that never says that the wind blows at less than nothing.

Run as a script, it saves the picture under the name given as its argument, ``impute_weather.png``
by default.
"""

# %%
# Four months with gaps, and more of them
# ---------------------------------------
# Every tenth day or so three sensors fail together for 24 hours; of what is left, one value in ten
# is hidden. The hidden values are the truth to compare with; no method sees them.

import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from skdiffusion import CSDIImputer
from skdiffusion.datasets import ampute, load_nyc_weather
from skdiffusion.inspection import ImputationDisplay
from skdiffusion.metrics import (
    crps_loss,
    interval_coverage,
    mean_absolute_error,
    root_mean_squared_error,
)

N_DRAWS = 20
weather = load_nyc_weather(as_frame=True).frame["2013-04":"2013-07"]
n_hours, n_sensors = weather.shape
visible, in_failed_days = ampute(
    weather,
    missing_rate=0.01,
    mechanism="block",
    block_length=24,
    n_block_features=3,
    random_state=1,
)
visible, single_hours = ampute(visible, missing_rate=0.1, mechanism="mcar", random_state=0)
print(f"{n_hours} hours, {n_sensors} columns")
print(f"hidden: {single_hours.sum()} single hours, {in_failed_days.sum()} in failed days")

# %%
# Four ways to fill them
# ----------------------
# Each returns its draws as an array ``(n_hours, n_draws, n_columns)``; a method that knows only one
# answer returns one draw. ``CSDIImputer`` is given the values as they are, so that it sees that
# winds and humidities are never negative. ``method="gaussian"`` keeps to the closed form, which is
# as good as the network on these data and takes a quarter of the time
# (:doc:`benchmarks </benchmarks/index>`). The others get standardised columns, which the neighbours
# of ``KNNImputer`` need.

mean, std = visible.mean().to_numpy(), visible.std().to_numpy()


def interpolate_in_time(X):
    return X.interpolate("time", limit_direction="both").to_numpy()[:, None]


def nearest_rows(X):
    return KNNImputer().fit_transform((X - mean) / std)[:, None] * std + mean


def chained_regressions(X):
    # It sees rows only; the hours before and after, as more columns, are what helps it most.
    Z = (X - mean) / std
    lagged = np.column_stack([Z, Z.shift(1), Z.shift(-1)])
    imputer = IterativeImputer(sample_posterior=True, random_state=0).fit(lagged)
    draws = [imputer.transform(lagged)[:, :n_sensors] for _ in range(N_DRAWS)]
    return np.stack(draws, axis=1) * std + mean


def diffusion(X):
    imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(X)
    return np.asarray(imputer.sample(X, n_draws=N_DRAWS))


methods = {
    "linear interpolation": interpolate_in_time,
    "KNNImputer": nearest_rows,
    "IterativeImputer, 3 hours": chained_regressions,
    "CSDIImputer": diffusion,
}
draws, seconds = {}, {}
for name, method in methods.items():
    begin = time.process_time()
    draws[name] = method(visible)
    seconds[name] = time.process_time() - begin

# %%
# How well?
# ---------
# MAE and RMSE judge one answer, the median of the draws. CRPS judges all draws: it rewards being
# close *and* being honest about the doubt; of a single answer it is the MAE. Coverage is the share
# of hidden values inside the 90 % band, corrected for the number of draws, and 0.90 is right.
# Errors are in standard deviations of the column. CPU seconds count fitting and drawing.

truth = weather.to_numpy() / std


def scores(draws, mask):
    draws = draws / std
    answer = np.median(draws, axis=1)
    mae = mean_absolute_error(truth, answer, mask=mask)
    row = {"MAE": mae, "RMSE": root_mean_squared_error(truth, answer, mask=mask), "CRPS": mae}
    if draws.shape[1] > 1:
        row["CRPS"] = crps_loss(truth, draws, mask=mask)
        row["90 % coverage"] = interval_coverage(truth, draws, level=0.9, mask=mask)
    return row


for title, mask in {"single hours": single_hours, "whole days": in_failed_days}.items():
    table = pd.DataFrame({name: scores(draws[name], mask) for name in methods}).T
    table["CPU seconds"] = pd.Series(seconds)
    print(f"\n{title}, {mask.sum()} hidden values")
    print(table.to_string(float_format="{:.3f}".format, na_rep="-"))

# %%
# What a filled gap looks like
# ----------------------------
# Two of the failed days. The band is narrow where the other sensors and the hours around tell the
# value, and wide where they do not.

SENSORS = {"JFK_temp": "JFK\ntemperature (°F)", "LGA_wind_speed": "LaGuardia\nwind speed (mph)"}
figure, axes = plt.subplots(len(SENSORS), figsize=(8.5, 5.4), layout="constrained")
for axis, (sensor, label) in zip(axes, SENSORS.items(), strict=True):
    start = np.flatnonzero(in_failed_days[:, weather.columns.get_loc(sensor)])[0]
    rows = slice(max(start - 30, 0), start + 24 + 30)
    display = ImputationDisplay.from_draws(
        visible, draws["CSDIImputer"], sensor, rows=rows, truth=weather
    )
    display.plot(axis)
    gaps = np.isfinite(display.median_.get_ydata())
    linear = visible[sensor].interpolate("time")[rows].where(gaps)
    axis.plot(linear, ":", color="0.5", label="linear interpolation")
    axis.set_ylabel(label)
    axis.get_legend().remove()
figure.suptitle("A sensor fails for a day: what CSDIImputer fills in, and what was true")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "impute_weather.png", dpi=150)
