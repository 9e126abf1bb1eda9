"""
Impute a table of numbers, counts and categories
================================================

Who smokes, who is married, how many children: tables of people mix numbers with categories, and all
of them have gaps. :class:`~skdiffusion.CSDIImputer` fills every column with values of its own kind
and says how sure it is: intervals for numbers, probabilities for categories.

**What to see:** the probability of being married, for people who did not tell, rises and falls with
age as the law does that made the table.
"""

# %%
# Six hundred people
# ------------------
# Education is ordered, region is not. People are married in the middle of life, which a straight
# line does not know. A quarter of the cells is lost.

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skdiffusion import CSDIImputer
from skdiffusion.metrics import make_imputation_scorer

rng, n = np.random.default_rng(0), 600
age = rng.uniform(20, 75, n)
education = np.digitize(rng.normal(size=n) - 0.01 * (age - 45), [-0.7, 0.7])
married = rng.random(n) < 1 / (1 + np.exp((np.abs(age - 48) - 14) / 2))
people = pd.DataFrame(
    {
        "age": age.round(1),
        "education": pd.Categorical.from_codes(
            education, ["school", "college", "university"], ordered=True
        ),
        "married": np.where(married, "yes", "no"),
        "income": np.exp(9.5 + 0.3 * education + 0.01 * age + 0.3 * rng.normal(size=n)).round(),
        "region": rng.choice(["north", "south", "islands"], n, p=[0.5, 0.4, 0.1]),
        "children": pd.array(rng.poisson(np.where(married, 1.8, 0.3)), dtype="Int64"),
    }
)
hidden = rng.random(people.shape) < 0.25
gaps = people.mask(hidden)
print(gaps.head())

# %%
# Every column filled with its like
# ---------------------------------
# Types come back as they went in, and bounds are kept.

imputer = CSDIImputer(method="gaussian", bounds={"age": (20, 75)}, random_state=0).fit(gaps)
completed = imputer.transform(gaps)
print(completed.head())
assert (completed.dtypes == gaps.dtypes).all()

# %%
# How sure is it?
# ---------------
# ``predict_proba`` has a column for every category. Among the people whose marriage was hidden and
# whose age is known, the probability follows the law that made the table.

chances = imputer.predict_proba(gaps)["married", "yes"]
asked = hidden[:, 2] & ~hidden[:, 0]
grid = np.linspace(20, 75, 200)
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.plot(grid, 1 / (1 + np.exp((np.abs(grid - 48) - 14) / 2)), color="0.5", label="the law")
truth = people["married"].eq("yes").to_numpy()
for value, marker, label in ((True, "o", "is married"), (False, "x", "is not")):
    chosen = asked & (truth == value)
    axis.plot(people["age"][chosen], chances[chosen], marker, ms=5, alpha=0.7, label=label)
axis.set(xlabel="age", ylabel="probability of being married")
axis.legend()
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "mixed_table.png", dpi=150)

# %%
# One score for all columns
# -------------------------
# The CRPS of numbers and half of the Brier score of categories are one kind of score, so that their
# mean can be taken; scorers have its sign changed. The truth is known here, so that nothing need be
# hidden again.

scale = people[["age", "income", "children"]].astype(float).std()
scorer = make_imputation_scorer(["crps", "brier", "interval_coverage_90"], scale=scale)
for name, value in scorer(imputer, gaps, people).items():
    print(f"{name}: {value:.3f}")
