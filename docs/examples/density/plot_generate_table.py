"""
Generate synthetic rows of a mixed table
========================================

:class:`~skdiffusion.estimators.ScoreSDE` learns the density of the wine data: eleven measurements,
two whole numbers and the cultivar, a category. It draws new rows of the same types, and fills in
columns of rows it has not seen, whether they are numbers or categories.

**What to see:** drawn cultivars have the alcohol of their kind, and correlations of the drawn rows
lie on the diagonal.
"""

# %%
# Learn and draw
# --------------
# The cultivar becomes an interval of the normal distribution for each category, whole numbers are
# spread over their grid; both come back as they went in. 178 rows are few: what wins on held-out
# rows may well be the base alone. ``held_out_score_`` says what each candidate was worth.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from skdiffusion import ScoreSDE

wine = load_wine(as_frame=True)
table = wine.data.astype({"magnesium": int, "proline": int})
table["cultivar"] = wine.target.map(dict(enumerate("ABC"))).astype("category")
train, test = train_test_split(table, test_size=0.3, random_state=0)
model = ScoreSDE(max_iter=300, random_state=0).fit(train)
print(f"kept: {model.base_}")
for name, value in model.held_out_score_.items():
    print(f"  {name:20s} {value:8.3f} nats a row")
draws = model.sample(1000, random_state=0)
print(draws[["alcohol", "magnesium", "proline", "cultivar"]].head())

# %%
# Any columns given the others
# ----------------------------
# Hide colour, hue and cultivar of the test wines and draw them back 40 times; the 80 % interval
# should hold about 80 % of the hidden numbers, and most draws should name the right cultivar.

hidden = test.copy()
columns = ["color_intensity", "hue"]
hidden[columns] = np.nan
hidden["cultivar"] = None
filled = model.impute(hidden.astype({"cultivar": train["cultivar"].dtype}), 40, random_state=0)
for column in columns:
    low, high = np.quantile([draw[column] for draw in filled], [0.1, 0.9], axis=0)
    inside = ((low <= test[column]) & (test[column] <= high)).mean()
    print(f"{column}: {inside:.2f} of the hidden values in the 80 % interval")
right = np.mean([np.asarray(draw["cultivar"]) == np.asarray(test["cultivar"]) for draw in filled])
print(f"cultivar: {right:.2f} of the draws are right")

# %%
# Does a drawn wine look like its cultivar?
# -----------------------------------------

figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
bins = np.linspace(train["alcohol"].min(), train["alcohol"].max(), 16)
for i, cultivar in enumerate("ABC"):
    for table, style in ((train, {"alpha": 0.3}), (draws, {"histtype": "step", "lw": 2})):
        alcohol = table.loc[table["cultivar"] == cultivar, "alcohol"]
        share = np.full(len(alcohol), 1 / len(alcohol))
        label = f"cultivar {cultivar}" if table is draws else None
        axis.hist(alcohol, bins, weights=share, color=f"C{i}", label=label, **style)
axis.set(
    title="Alcohol by cultivar", xlabel="alcohol, % (filled: data, line: drawn)", ylabel="share"
)
axis.legend()
plt.show()

# %%
# Shares and correlations
# -----------------------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
place = np.arange(3)
for name, table, shift in (("data", train, -0.2), ("drawn", draws, 0.2)):
    shares = table["cultivar"].value_counts(normalize=True).reindex(list("ABC"))
    left.bar(place + shift, shares, 0.4, label=name)
left.set(title="Cultivars", xticks=place, xticklabels=list("ABC"), ylabel="share of the rows")
left.legend()
numbers = wine.data.columns
pairs = np.triu_indices(len(numbers), 1)
right.plot(train[numbers].corr().to_numpy()[pairs], draws[numbers].corr().to_numpy()[pairs], ".")
right.axline((0, 0), slope=1, color="0.5", lw=0.8)
right.set(
    title="Pairs of numerical columns",
    xlabel="correlation in the data",
    ylabel="correlation in the draws",
)
plt.show()
