"""
Compare the sampling methods on three targets
=============================================

``"mala"`` takes single steps, ``"hmc"`` trajectories, ``"tempered"`` runs hot replicas beside the
chains. Which of them is right depends on the target.

**What to see:** trajectories do best where one bent or stretched mode is all there is; of several
modes only tempering finds all; where a method fails, ``fit`` says so.
"""

# %%
# Three targets
# -------------

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

from skdiffusion import LangevinSampler

scales = torch.tensor(np.geomspace(0.1, 10, 10))
corners = torch.tensor([[-6.0, -6.0], [-6.0, 6.0], [6.0, -6.0], [6.0, 6.0]], dtype=torch.float64)


def stretched(x):
    return -0.5 * ((x / scales) ** 2).sum(1)


def banana(x):
    return -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - x[:, 0] ** 2) ** 2


def four_modes(x):
    return torch.logsumexp(-0.5 * torch.cdist(x, corners.to(x.dtype)) ** 2, 1)


# Target, number of features, true standard deviation of the last one.
targets = {
    "stretched normal": (stretched, 10, 10.0),
    "banana": (banana, 2, 1.5),
    "four modes": (four_modes, 2, np.sqrt(37)),
}

# %%
# The same run for every method
# -----------------------------

clouds = {}
print(f"{'':18}{'':10}sd of the last column / truth   CPU-s   warned")
for name, (target, n_features, truth) in targets.items():
    for method in ("mala", "hmc", "tempered"):
        begin = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sampler = LangevinSampler(
                target, n_features=n_features, method=method, random_state=0
            ).fit()
        clouds[name, method] = sampler.sample(1000)
        ratio = clouds[name, method][:, -1].std() / truth
        seconds = time.process_time() - begin
        print(f"{name:18}{method:10}{ratio:29.2f}{seconds:8.1f}   {'yes' if caught else 'no'}")

# %%
# The picture
# -----------
# The four modes, and what each method finds of them.

figure, axes = plt.subplots(1, 3, figsize=(8, 3.2), sharex=True, sharey=True, layout="constrained")
for axis, method in zip(axes, ("mala", "hmc", "tempered"), strict=True):
    axis.plot(*clouds["four modes", method].T, ".", ms=2)
    axis.plot(*corners.T, "x", color="C3", ms=10)
    axis.set_title(method, fontsize=15)
plt.show()
