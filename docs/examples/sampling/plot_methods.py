"""
Compare the sampling methods on two targets
===========================================

``"mala"`` takes single steps, ``"hmc"`` trajectories, ``"tempered"`` runs hot replicas beside the
chains. Which of them is right depends on the target.

**What to see:** chains without tempering share four modes out as their starts lie, a quarter to
each, where one of them holds seven tenths of the mass. ``fit`` warns of that. A spread that is
somewhat too small, as in the long arms of a banana, is not always noticed: ask a second method.
"""

# %%
# Two targets
# -----------
# A banana, whose second column has standard deviation 1.5, and four unequal modes.

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

from skdiffusion import LangevinSampler

corners = torch.tensor([[-6.0, -6.0], [-6.0, 6.0], [6.0, -6.0], [6.0, 6.0]], dtype=torch.float64)
shares = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)


def banana(x):
    return -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - x[:, 0] ** 2) ** 2


def four_modes(x):
    distance = torch.cdist(x, corners.to(x.dtype))
    return torch.logsumexp(shares.to(x.dtype).log() - 0.5 * distance**2, 1)


# Target and true standard deviation of the second column.
targets = {"banana": (banana, 1.5), "four modes": (four_modes, np.sqrt(1 + 12**2 * 0.2 * 0.8))}

# %%
# The same run for every method
# -----------------------------

clouds = {}
print(f"{'':13}{'':10}sd of the second column / truth   CPU-s   warned")
for name, (target, truth) in targets.items():
    for method in ("mala", "hmc", "tempered"):
        begin = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sampler = LangevinSampler(target, n_features=2, method=method, random_state=0).fit()
        clouds[name, method] = sampler.sample(1000)
        ratio = clouds[name, method][:, 1].std() / truth
        seconds = time.process_time() - begin
        print(f"{name:13}{method:10}{ratio:31.2f}{seconds:8.1f}   {'yes' if caught else 'no'}")

# %%
# The picture
# -----------
# The four modes, and the share of the draws that each method has in the largest.

figure, axes = plt.subplots(1, 3, figsize=(8, 3.4), sharex=True, sharey=True, layout="constrained")
for axis, method in zip(axes, ("mala", "hmc", "tempered"), strict=True):
    cloud = clouds["four modes", method]
    axis.plot(*cloud.T, ".", ms=2)
    largest = (cloud < 0).all(axis=1).mean()
    axis.set_title(f"{method}: {largest:.0%} (70 %)", fontsize=13)
    axis.add_patch(plt.Rectangle((-10, -10), 9.5, 9.5, fill=False, color="C3"))
plt.show()
