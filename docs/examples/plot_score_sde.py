"""
A density, and the way from noise to data
=========================================

:class:`~skdiffusion.estimators.ScoreSDE` learns the density of two moons. We look at the
density, at the paths on which the probability-flow ODE carries normals to data, and at the bound on
the likelihood of each row next to its exact value.

Run as a script, it saves the picture under the name given as its argument, ``score_sde.png`` by
default.
"""

# %%
# Learn the density
# -----------------
# ``base="mixture"`` starts from a Gaussian mixture; the network learns what the mixture misses.

import itertools
import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

from skdiffusion import ScoreSDE
from skdiffusion.diffusion.solve import karras_levels, solve

X, _ = make_moons(2000, noise=0.07, random_state=0)
fresh, _ = make_moons(300, noise=0.07, random_state=1)
model = ScoreSDE(base="mixture", max_iter=1000, random_state=0).fit(X)
print(f"kept: {model.base_}; mean log-density of fresh rows {model.score(fresh):.3f}")

# %%
# From noise to data
# ------------------
# The solver walks down a list of noise levels. Divided by ``sqrt(1 + s**2)`` every point on the way
# has about unit variance, so that noise and data fit in one picture, in standardised columns.

levels = karras_levels(60, 0.002, 80.0)
z = levels[0] * torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
path = [z / levels[0]]
for s, s_next in itertools.pairwise(levels):
    z = solve(model.denoiser_, z, [s, s_next], step="ddim")
    path.append(z / np.hypot(1, s_next))
path = torch.stack(path).numpy() * model.scale_ + model.mean_

# %%
# A bound with error bars
# -----------------------
# The bound is for the model of the reverse SDE, the exact value for that of the ODE: they are
# different distributions with one denoiser, and the points need not lie on one side of the line.

bound, error = model.nll_bound(fresh, n_draws=128, return_std=True)
exact = -model.score_samples(fresh)
print(f"mean bound {bound.mean():.3f}, mean exact value {exact.mean():.3f}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
first, second = np.meshgrid(np.linspace(-1.5, 2.5, 80), np.linspace(-1, 1.5, 60))
density = np.exp(model.score_samples(np.column_stack([first.ravel(), second.ravel()])))
axes[0].contourf(first, second, density.reshape(first.shape), levels=12, cmap="Blues")
axes[0].plot(*model.sample(200).T, ".", color="C1", ms=2.5)
axes[0].set(title="Density and draws", xlabel="first column", ylabel="second column")
axes[1].plot(*X[:500].T, ".", color="0.85", ms=3)
axes[1].plot(path[:, :, 0], path[:, :, 1], lw=0.8)
axes[1].plot(*path[0].T, "x", color="0.4", ms=4)
axes[1].plot(*path[-1].T, "o", color="k", ms=3)
axes[1].set(title="From noise (x) to data (o)", xlabel="first column")
axes[2].errorbar(exact, bound, 2 * error, fmt=".", ms=3, lw=0.5)
axes[2].axline((0, 0), slope=1, color="0.5", lw=0.8)
axes[2].set(
    title="Bound and exact value, nats",
    xlabel="exact negative log-density, ODE",
    ylabel="bound, SDE (2 standard errors)",
)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "score_sde.png", dpi=150)
