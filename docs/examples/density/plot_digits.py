"""
Complete the missing half of images
===================================

The lower half of a digit is hidden; :class:`~skdiffusion.ScoreSDE` draws it given the upper half.
Several draws show what the upper half leaves open.

**What to see:** draws of one digit agree where the upper half decides and differ where it does
not: the top of a 3 may go on as a 2 or a 7.
"""

# %%
# 64 pixels are 64 columns
# ------------------------
# Pixels that never change have no density and are left out. ``max_iter=0`` keeps to the closed
# form, which is what held-out rows prefer on these 1797 images
# (:doc:`benchmarks </benchmarks/index>`).

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skdiffusion import ScoreSDE

digits = load_digits()
train, test, train_label, label = train_test_split(
    digits.data, digits.target, test_size=300, random_state=0
)
varied = np.ptp(train, axis=0) > 0
model = ScoreSDE(max_iter=0, random_state=0).fit(train[:, varied])

# %%
# Hide and draw
# -------------

shown = [int(np.flatnonzero(label == k)[0]) for k in (0, 2, 3, 5, 7, 9)]
given = test.copy()
given[:, 32:] = np.nan
draws = np.zeros((len(shown), 4, 64))
draws[..., varied] = model.impute(given[shown][:, varied], n_draws=4)

# %%
# Does a classifier still read them?
# ----------------------------------
# A hundred hidden digits, each filled twenty times; the probability of a digit is its share among
# the draws. Beside it the mean of each pixel in place of what is hidden. The log loss also asks
# whether the classifier knows when it cannot know.

n_draws, n_images = 20, 100
classifier = KNeighborsClassifier(5).fit(train, train_label)
filled = np.zeros((n_images, n_draws, 64))
filled[..., varied] = model.impute(given[:n_images][:, varied], n_draws=n_draws)
votes = classifier.predict_proba(filled.reshape(-1, 64)).reshape(n_images, n_draws, 10)
means = np.where(np.isnan(given[:n_images]), train.mean(axis=0), given[:n_images])
answers = {
    "nothing hidden": classifier.predict_proba(test[:n_images]),
    "vote of 20 draws": votes.mean(axis=1),
    "mean filled in": classifier.predict_proba(means),
}
for name, probability in answers.items():
    right = (probability.argmax(axis=1) == label[:n_images]).mean()
    probability = 0.99 * probability + 0.001  # No probability of a digit is exactly 0.
    loss = log_loss(label[:n_images], probability, labels=range(10))
    print(f"{name:17} {right:.2f} read correctly, log loss {loss:.2f}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(len(shown), 6, figsize=(6, 6.2), layout="constrained")
for row, i, drawn in zip(axes, shown, draws, strict=True):
    for axis, image in zip(row, [test[i], given[i], *drawn], strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
titles = ["truth", "given", "draw 1", "draw 2", "draw 3", "draw 4"]
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title)
plt.show()
