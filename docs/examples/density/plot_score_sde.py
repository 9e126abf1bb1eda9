"""
Learn a density and draw from it: two moons
===========================================

:class:`~skdiffusion.estimators.ScoreSDE` learns the density of two moons. We look at the
density, at the paths on which the probability-flow ODE carries normals to data, and at draws given
which of the two moons is wanted.

**What to see:** the density has both moons and next to nothing between them, and the paths from
noise to data bend late, when the noise is as small as the moons are thin.
"""

# %%
# Learn the density
# -----------------
# ``base="mixture"`` starts from a Gaussian mixture; a network learns what the mixture misses, and
# is kept where held-out rows gain by it beyond chance. ``condition="label"`` learns the density of
# each moon along with that of both.

import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

from skdiffusion import ScoreSDE
from skdiffusion.diffusion.solve import log_levels, solve

X, y = make_moons(1000, noise=0.07, random_state=0)
y = np.where(y == 0, "upper", "lower")
fresh, which = make_moons(300, noise=0.07, random_state=1)
model = ScoreSDE(
    base="mixture", marginals=None, condition="label", max_iter=300, random_state=0
).fit(X, y)
print(f"kept: {model.base_}; mean log-density of fresh rows {model.score(fresh):.3f}")
given = model.score(fresh, np.where(which == 0, "upper", "lower"))
print(f"given the moon {given:.3f}, up to log 2 = {np.log(2):.3f} more")

# %%
# From noise to data
# ------------------
# The solver walks down a list of noise levels. Divided by ``sqrt(1 + s**2)`` every point on the way
# has about unit variance, so that noise and data fit in one picture, in standardised columns.

levels = log_levels(60, 0.002, 80.0)
z = levels[0] * torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
path = [z / levels[0]]
for s, s_next in itertools.pairwise(levels):
    z = solve(model.denoiser_, z, [s, s_next], step="ddim")
    path.append(z / np.hypot(1, s_next))
path = torch.stack(path).numpy() * model.scale_ + model.mean_

# %%
# The density
# -----------

first, second = np.meshgrid(np.linspace(-1.5, 2.5, 60), np.linspace(-1, 1.5, 45))
density = np.exp(model.score_samples(np.column_stack([first.ravel(), second.ravel()])))
figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
axis.contourf(first, second, density.reshape(first.shape), levels=12, cmap="Blues")
axis.plot(*model.sample(200).T, ".", color="C1", ms=5)
axis.set(title="Density and draws", xlabel="first column", ylabel="second column")
plt.show()

# %%
# The way, and draws of one moon
# ------------------------------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axis in (left, right):
    axis.plot(*X[:500].T, ".", color="0.85", ms=3)
    axis.set(xlabel="first column")
left.plot(path[:, :, 0], path[:, :, 1], lw=0.8)
left.plot(*path[0].T, "x", color="0.4", ms=4)
left.plot(*path[-1].T, "o", color="k", ms=3)
left.set(title="From noise (x) to data (o)", ylabel="second column")
for label in model.classes_:
    right.plot(*model.sample(200, y=label).T, ".", ms=3, label=f'y="{label}"')
right.set(title="Draws given the moon")
right.legend()
plt.show()
