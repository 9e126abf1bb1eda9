"""
Find odd rows by their density
==============================

A row can be odd though each of its values is ordinary: a tall person of little weight, a full
throttle at low speed. :class:`~skdiffusion.ScoreSDE` gives every row a log-density; the rows with
the lowest are the ones to look at.

**What to see:** the planted rows lie inside the range of every single column, and still have the
lowest densities.
"""

# %%
# A table with twenty planted rows
# --------------------------------
# Breast cancer data of scikit-learn: thirty measurements of a tumour, many of which follow from
# others. A planted row takes half of its values from one patient and half from another, so that
# every column by itself looks as it should.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from skdiffusion import ScoreSDE

rng = np.random.default_rng(0)
data = load_breast_cancer()
rows = rng.permutation(data.data)
train, test, spare = rows[:400], rows[400:529], rows[529:569]
planted = np.where(rng.random(30) < 0.5, spare[:20], spare[20:])
new = np.vstack([test, planted])
is_planted = np.arange(len(new)) >= len(test)

# %%
# Learn from clean rows, score new ones
# -------------------------------------
# A threshold is a quantile of the scores of rows that were held out: one in fifty of them is called
# odd by mistake.

model = ScoreSDE(max_iter=0, random_state=0).fit(train[:320])
threshold = np.quantile(model.score_samples(train[320:]), 0.02)
scores = model.score_samples(new)
odd = scores < threshold
print(f"found: {odd[is_planted].sum()} of {is_planted.sum()} planted rows")
print(f"false alarms: {odd[~is_planted].sum()} of {(~is_planted).sum()} others")

# %%
# Beside two detectors of scikit-learn
# ------------------------------------
# The area under the ROC curve is the chance that a planted row is ranked below an ordinary one.

Z = StandardScaler().fit(train[:320])
forest = IsolationForest(random_state=0).fit(train[:320])
factor = LocalOutlierFactor(novelty=True).fit(Z.transform(train[:320]))
for name, score in {
    "ScoreSDE": scores,
    "IsolationForest": forest.score_samples(new),
    "LocalOutlierFactor": factor.score_samples(Z.transform(new)),
}.items():
    print(f"{name:20} area under the ROC curve {roc_auc_score(is_planted, -score):.2f}")

# %%
# The picture
# -----------

figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
low = threshold - 150
bins = np.linspace(low, scores.max(), 40)
for flag, color, label in ((False, "C0", "ordinary rows"), (True, "C3", "planted rows")):
    axis.hist(
        np.maximum(scores[is_planted == flag], low), bins, color=color, alpha=0.7, label=label
    )
axis.axvline(threshold, color="k", ls="--", label="threshold")
axis.set(
    xlabel="log-density of the row (nats); lower ones stand at the left edge",
    ylabel="rows",
    title="Odd combinations of ordinary values",
)
axis.legend(loc="upper left")
plt.show()
