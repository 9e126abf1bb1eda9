"""
Draw one column given the others
================================

A regression gives one number, a quantile regression two or three. With ``condition="value"``
:class:`~skdiffusion.ScoreSDE` gives draws of the target from its whole conditional density, of
whatever shape.

**What to see:** on the left of the picture the draws split into two branches, on the right their
spread grows; neither is what a mean and a standard deviation can say.
"""

# %%
# A target with two branches
# --------------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from skdiffusion import ScoreSDE
from skdiffusion.metrics import crps_loss


def make(n, seed):
    """Two branches that meet at 0, noise that grows with x."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, n)
    branch = rng.choice([-1, 1], n) * np.maximum(-x, 0)
    return x[:, None], (branch + np.sin(x) + 0.1 * np.exp(0.6 * x) * rng.normal(size=n))[:, None]


x, y = make(3000, seed=0)
x_new, y_new = make(1000, seed=1)

# %%
# Fit and draw
# ------------
# The names are the other way round from a regression: ``X`` is what is drawn, ``y`` what is given.

model = ScoreSDE(condition="value", max_iter=0, random_state=0).fit(y, x)
print(f"kept: {model.base_}")
n_draws = 50
draws = model.sample(n_draws * len(x_new), y=np.repeat(x_new, n_draws, axis=0))
draws = draws.reshape(len(x_new), n_draws)
print(f"log-density of new rows: {model.score(y_new, x_new):.2f} nats")

# %%
# Beside a normal distribution around a regression
# ------------------------------------------------

trees = HistGradientBoostingRegressor(random_state=0).fit(x[:2000], y[:2000, 0])
spread = (y[2000:, 0] - trees.predict(x[2000:])).std()
noise = np.random.default_rng(2).normal(size=draws.shape)
normal = trees.predict(x_new)[:, None] + spread * noise
for name, answer in {"ScoreSDE": draws, "boosted trees and one spread": normal}.items():
    print(f"{name:30} CRPS {crps_loss(y_new[:, 0], answer):.3f}")

# %%
# The picture
# -----------

grid = np.repeat(np.linspace(-3, 3, 120), 15)[:, None]
drawn = model.sample(len(grid), y=grid)
figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
axis.plot(x[:1200], y[:1200], ".", color="0.7", ms=4, label="data")
axis.plot(grid, drawn, ".", color="C0", ms=2.5, label="draws given x")
axis.set(xlabel="x, given", ylabel="y, drawn", title="Draws of y given x")
axis.legend(markerscale=3)
plt.show()
