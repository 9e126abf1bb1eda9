"""
Sample a posterior with positive parameters
===========================================

Shape and rate of a gamma distribution, given 200 values: write the log posterior in the parameters
you think in, say that both are positive with ``bounds``, and
:class:`~skdiffusion.LangevinSampler` does the change of variables.

**What to see:** the draws follow the exact contours, which in two dimensions a grid can give.
"""

# %%
# The log posterior, in torch
# ---------------------------
# One row for each chain; the constant does not matter. Priors are exponential with mean 1. With one
# mode ``method="hmc"`` is the quickest; the default would look for further ones, at a higher price.

import matplotlib.pyplot as plt
import numpy as np
import torch

from skdiffusion import LangevinSampler

values = torch.tensor(np.random.default_rng(0).gamma(3.0, 0.5, size=200))


def log_posterior(x):
    shape, rate = x[:, :1], x[:, 1:]
    likelihood = shape * rate.log() - shape.lgamma() + (shape - 1) * values.log() - rate * values
    return likelihood.sum(1) - shape[:, 0] - rate[:, 0]


sampler = LangevinSampler(
    log_posterior, bounds=[(0, None), (0, None)], method="hmc", random_state=0
).fit()
draws = sampler.sample(2000)
print(f"method {sampler.method_}, nested R-hat {sampler.nested_rhat_.max():.3f}")

# %%
# Beside the exact answer
# -----------------------

shape, rate = np.meshgrid(np.linspace(1.9, 4.3, 300), np.linspace(1.2, 3.1, 300))
points = torch.tensor(np.column_stack([shape.ravel(), rate.ravel()]))
density = log_posterior(points).numpy().reshape(shape.shape)
density = np.exp(density - density.max())
weight = density / density.sum()
for name, axis, column in (("shape", shape, 0), ("rate", rate, 1)):
    mean = (weight * axis).sum()
    sd = np.sqrt((weight * (axis - mean) ** 2).sum())
    print(
        f"{name}: mean {draws[:, column].mean():.2f} (exact {mean:.2f}), "
        f"sd {draws[:, column].std():.2f} (exact {sd:.2f})"
    )

# %%
# The picture
# -----------

figure, axis = plt.subplots(figsize=(6.5, 4.8), layout="constrained")
axis.plot(*draws.T, ".", color="C0", ms=3, alpha=0.5, label="2000 draws")
axis.contour(shape, rate, density, levels=[0.05, 0.3, 0.7], colors="k", linewidths=1)
axis.set(xlabel="shape", ylabel="rate", title="Posterior of a gamma distribution, exact contours")
axis.legend(loc="upper left", markerscale=3)
plt.show()
