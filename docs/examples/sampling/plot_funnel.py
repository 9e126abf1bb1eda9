"""
A funnel: what the warning means, and what helps
================================================

In a hierarchical model the spread of a group is itself unknown, and the posterior becomes a funnel:
wide at one end, arbitrarily narrow at the other. No fixed step size fits both. The sampler notices
and warns; writing the model in other variables is the cure.

**What to see:** sampled as it stands, an end of the funnel is cut short, and ``fit`` warns; the
draws of the second form fill it.
"""

# %%
# Neal's funnel
# -------------
# The first column ``v``, a log-variance, is normal with standard deviation 3, and nine others are
# normal with standard deviation ``exp(v / 2)``.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

from skdiffusion import LangevinSampler


def funnel(x):
    v, others = x[:, 0], x[:, 1:]
    return -(v**2) / 18 - 0.5 * (others**2).sum(1) * (-v).exp() - 4.5 * v


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    plain = LangevinSampler(funnel, n_features=10, method="hmc", random_state=0).fit()
print(f"{len(caught)} warning(s): {str(caught[0].message)[:200] if caught else ''}")
as_it_stands = plain.sample(2000)

# %%
# The same density in other variables
# -----------------------------------
# Let ``others = exp(v / 2) * z`` with standard normal ``z``: in ``(v, z)`` the density is a plain
# normal one ("non-centred"). Draws are taken back afterwards.


def non_centred(x):
    v, z = x[:, 0], x[:, 1:]
    return -(v**2) / 18 - 0.5 * (z**2).sum(1)


sampler = LangevinSampler(non_centred, n_features=10, method="hmc", random_state=0).fit()
draws = sampler.sample(2000)
draws[:, 1:] *= np.exp(draws[:, :1] / 2)
for name, cloud in {"as it stands": as_it_stands, "non-centred": draws}.items():
    mean, sd = cloud[:, 0].mean(), cloud[:, 0].std()
    print(f"{name:13} log-variance: mean {mean:5.2f} (0), sd {sd:.2f} (3)")

# %%
# The picture
# -----------

figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
bins = np.linspace(-10, 10, 41)
axis.hist(as_it_stands[:, 0], bins, density=True, alpha=0.5, color="C3", label="as it stands")
axis.hist(draws[:, 0], bins, density=True, alpha=0.5, color="C0", label="non-centred")
axis.plot(bins, norm(0, 3).pdf(bins), "k", label="truth")
axis.set(xlabel="log-variance v", ylabel="density", title="The length of the funnel, sampled twice")
axis.legend()
plt.show()
