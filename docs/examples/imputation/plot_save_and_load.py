"""
Save a fitted imputer and use it on new data
============================================

Fit once, write the model to a file, and fill what comes in later, in another process or on another
machine: :func:`skdiffusion.save` and :func:`skdiffusion.load`.

**What to see:** the loaded imputer gives the same numbers, bit for bit, and fills a month that was
not there when it was fitted.
"""

# %%
# Fit in spring, save
# -------------------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import skdiffusion
from skdiffusion.datasets import ampute, load_nyc_weather

weather = load_nyc_weather(as_frame=True).frame.filter(regex="temp|dewp|humid")
spring, june = weather["2013-03":"2013-05"], weather["2013-06-01":"2013-06-14"]
imputer = skdiffusion.CSDIImputer(method="gaussian", window_length=24, random_state=0).fit(spring)
path = Path(tempfile.mkdtemp()) / "weather.skdiffusion"
skdiffusion.save(imputer, path)
print(f"{path.stat().st_size / 1000:.0f} kB")

# %%
# Load, and fill
# --------------
# No code is in the file and none is run: it can be passed on.

again = skdiffusion.load(path)
gaps, hidden = ampute(
    june, missing_rate=0.1, mechanism="block", block_length=24, n_block_features=3, random_state=0
)
print(
    "the same, bit for bit:", bool((again.transform(gaps) == imputer.transform(gaps)).all().all())
)
low, middle, high = np.moveaxis(again.predict_quantiles(gaps, [0.05, 0.5, 0.95]), 1, 0)
inside = ((low <= june) & (june <= high)).to_numpy()[hidden].mean()
print(f"hidden values of June inside the 90 % band: {inside:.2f}")

# %%
# The picture
# -----------

most = int(hidden.sum(axis=0).argmax())
name = june.columns[most]
figure, axis = plt.subplots(figsize=(7.5, 4), layout="constrained")
axis.fill_between(june.index, low[:, most], high[:, most], alpha=0.3, label="90 % band")
axis.plot(gaps[name], color="0.3", lw=1, label="observed")
axis.plot(june[name].where(hidden[:, most]), "x", color="C3", ms=4, label="hidden truth")
axis.set(ylabel=name, title="June, filled by a model that was loaded from a file")
axis.legend(ncols=3, loc="upper left")
axis.tick_params(axis="x", labelrotation=30)
plt.show()
