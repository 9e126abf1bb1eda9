"""
Sensitivity analysis for gaps that are not at random
====================================================

Every imputer takes it that what was observed explains why the rest is missing. Where people of high
income keep it to themselves *because* it is high, no data can show it. What can be told is how far
off the filled values would have to be before a conclusion changes:
:meth:`~skdiffusion.MultipleImputation.sensitivity`.

**What to see:** the effect of treatment on income shrinks as the incomes that people keep to
themselves are moved, and at the tipping point its interval takes in zero.
"""

# %%
# A trial with silent incomes
# ---------------------------
# The treated earn 0.5 more. Three in ten of the untreated, and one in ten of the treated, do not
# answer.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skdiffusion import CSDIImputer, MultipleImputation

rng, n = np.random.default_rng(0), 400
treated = rng.random(n) < 0.5
skill = rng.normal(size=n)
income = 3 + 0.5 * treated + 0.6 * skill + rng.normal(size=n)
people = pd.DataFrame({"skill": skill, "income": income})
silent = rng.random(n) < np.where(treated, 0.1, 0.3)
people.loc[silent, "income"] = np.nan
group = pd.Series(treated.astype(float), name="treated")

# %%
# The analysis is any function of a completed frame
# -------------------------------------------------
# Here a difference of means with its standard error. ``sensitivity`` does it again for every shift,
# which is added to the filled incomes and to nothing else.


def effect(copy):
    one, zero = (copy.loc[copy["treated"] == k, "income"] for k in (1, 0))
    error = np.sqrt(one.var() / len(one) + zero.var() / len(zero))
    return {"effect": one.mean() - zero.mean()}, {"effect": error}


model = MultipleImputation(CSDIImputer(method="gaussian"), effect, 20, random_state=0)
print(model.fit(people, group).summary().round(3).to_string())
shifts = np.linspace(0, 2.5, 11)
table = model.sensitivity(people, group, column="income", shifts=shifts)
table = table.xs("effect", level="name")
tipping = table.index[table["low"] <= 0].min()
print(f"the interval takes in zero from a shift of {tipping:.2f} on")

# %%
# The picture
# -----------
# Whoever doubts the conclusion has to claim that those who kept silent earn that much more than
# people of the same group and skill who answered.

figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
axis.fill_between(shifts, table["low"], table["high"], alpha=0.25, label="95 % interval")
axis.plot(shifts, table["estimate"], "o-", label="estimate")
axis.axhline(0, color="k", lw=0.8)
axis.axvline(tipping, color="C3", ls="--", label="tipping point")
axis.set(
    xlabel="added to every income that was filled in",
    ylabel="effect of treatment",
    title="How wrong must the filled values be?",
)
axis.legend()
plt.show()
