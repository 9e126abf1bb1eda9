"""
Impute a panel of patients in one long table
============================================

Measurements of many patients usually come as one long table: a row for each visit, a column that
says whose it is and one that says when. Series differ in length and level, sensors fail for hours,
and age is the same in all rows of a patient. ``panel_columns`` is all that
:class:`~skdiffusion.CSDIImputer` has to be told.

**What to see:** while the pulse is lost, the band follows the level of this patient and the wave
that the temperature shows.
"""

# %%
# Thirty patients
# ---------------
# Pulse and temperature rise and fall together around the level of each patient.

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skdiffusion import CSDIImputer

rng, parts = np.random.default_rng(0), []
for patient in range(30):
    n = rng.integers(30, 90)
    age, wave = rng.integers(20, 90), np.zeros(n)
    for t in range(1, n):
        wave[t] = 0.9 * wave[t - 1] + 0.45 * rng.normal()
    parts.append(
        pd.DataFrame(
            {
                "patient": f"P{patient:02d}",
                "hour": np.arange(n),
                "age": float(age),
                "pulse": 65 + 0.2 * age + 6 * wave + rng.normal(size=n),
                "temperature": 36.8 + 0.4 * wave + 0.05 * rng.normal(size=n),
            }
        )
    )
visits = pd.concat(parts, ignore_index=True)

# %%
# A tenth of the cells is lost, and for eight hours of every patient the pulse as well.

gaps, measured = visits.copy(), ["age", "pulse", "temperature"]
lost = rng.random((len(visits), 3)) < 0.1
for _, rows in visits.groupby("patient").groups.items():
    first = rng.integers(0, len(rows) - 8)
    lost[rows[first : first + 8], 1] = True
gaps[measured] = visits[measured].mask(lost)
print(gaps.head())

# %%
# What goes in comes out
# ----------------------
# The same rows, the same columns; the age of a patient is one number in all rows.

imputer = CSDIImputer(
    method="gaussian", panel_columns=("patient", "hour"), window_length=24, random_state=0
).fit(gaps)
completed = imputer.transform(gaps)
print(completed.head())
assert (completed["age"] == visits["age"]).all()
for column, cells in zip(measured[1:], lost.T[1:]):
    error = (completed[column] - visits[column])[cells].abs().mean()
    print(f"{column}: mean error {error:.2f}, standard deviation {visits[column].std():.2f}")

# %%
# The band of one patient
# -----------------------

low, high = imputer.predict_quantiles(gaps, [0.05, 0.95])[..., 1].T
mine = (visits["patient"] == "P04").to_numpy()
hour, gone = visits["hour"][mine], lost[mine, 1]
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
axis.fill_between(hour, low[mine], high[mine], color="C0", alpha=0.3, label="90 % band")
axis.plot(hour, gaps["pulse"][mine], "o-", ms=3, color="0.3", label="observed")
axis.plot(hour[gone], visits["pulse"][mine][gone], "x", color="C3", label="hidden truth")
axis.set(xlabel="hour", ylabel="pulse", title="Patient P04")
axis.legend()
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "panel.png", dpi=150)
