"""
Bound the likelihood of a diffusion model
=========================================

The likelihood of a diffusion that runs backwards with noise is not known, but an upper bound on its
negative logarithm is, row by row. :meth:`~skdiffusion.estimators.ScoreSDE.nll_bound` estimates it
with a standard error. Here the data come from a density that we can write down, so that the bound,
the exact likelihood of the model without noise and the truth can stand side by side.

**What to see:** more draws shrink the error bars of the bound, within which its mean stays; it lies
above the truth by what the learnt score gets wrong.
"""

# %%
# Data with a known density
# -------------------------
# A curved band: the second column is normal around the square of the first.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

from skdiffusion import ScoreSDE


def draw(n, seed):
    """Rows of the band and their true negative log-density."""
    first, noise = np.random.default_rng(seed).normal(size=(2, n))
    X = np.column_stack([first, first**2 + 0.3 * noise])
    return X, -norm.logpdf(first) - norm(0, 0.3).logpdf(0.3 * noise)


X, _ = draw(2000, seed=0)
fresh, truth = draw(200, seed=1)

# %%
# Two likelihoods, one denoiser
# -----------------------------
# A Gaussian is a poor start for a band, so that the network has something to learn. The bound is
# for the model of the reverse SDE, ``score_samples`` for that of the probability-flow ODE. They
# share the denoiser, and where it is not exact they differ: single points may lie on either side
# of the line.

models = {
    law: ScoreSDE(base="gaussian", marginals=None, noise_law=law, max_iter=800, random_state=0).fit(
        X
    )
    for law in ("lognormal", "loguniform")
}
print(f"truth {truth.mean():.3f} nats a row")
for law, model in models.items():
    exact, bound = -model.score(fresh), model.nll_bound(fresh).mean()
    print(f"{law}: kept {model.base_}, exact {exact:.3f}, bound {bound:.3f}")

# %%
# How many draws
# --------------
# Draws are stratified over the noise levels, and the part of the noise whose mean is known is
# subtracted. The bound is unbiased for any number of draws; its error falls with their root. What
# remains above the truth is what the learnt score gets wrong at some noise level: the log-uniform
# law of noise levels trains the bound itself, the log-normal law the levels that decide the shape.

numbers = [16, 32, 64, 128]
means = {law: [] for law in models}
errors = {law: [] for law in models}
for law, model in models.items():
    for n_draws in numbers:
        values, spread = model.nll_bound(fresh, n_draws=n_draws, return_std=True)
        means[law].append(values.mean())
        errors[law].append(np.sqrt((spread**2).sum()) / len(fresh))
        print(f"{law}, {n_draws:3d} draws: {means[law][-1]:.3f} +- {errors[law][-1]:.3f}")

# %%
# The mean of all rows
# --------------------

figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
for i, law in enumerate(models):
    label = f"bound, {law} law"
    axis.errorbar(numbers, means[law], 2 * np.array(errors[law]), fmt="o-", ms=5, label=label)
    value = -models[law].score(fresh)
    axis.axhline(value, color=f"C{i}", ls="--", lw=1, label=f"exact (ODE), {law} law")
axis.axhline(truth.mean(), color="k", lw=0.8, label="truth")
axis.set(
    title="Bound and exact value, 2 standard errors",
    xlabel="draws a row",
    ylabel="negative log-density, nats a row",
    xscale="log",
    xticks=numbers,
    xticklabels=numbers,
)
axis.minorticks_off()
axis.set_ylim(1.1, None)
axis.legend(loc="lower right", ncols=2, fontsize="small")
plt.show()

# %%
# Row by row
# ----------

bound, error = models["loguniform"].nll_bound(fresh, n_draws=64, return_std=True)
exact = -models["loguniform"].score_samples(fresh)
figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
axis.errorbar(exact, bound, 2 * error, fmt=".", ms=4, lw=0.6, label="a row, 2 standard errors")
axis.axline((2, 2), slope=1, color="0.5", lw=0.8, label="bound = exact value")
axis.set(
    title="Each of 200 rows, log-uniform law",
    xlabel="exact negative log-density of the ODE model, nats",
    ylabel="bound for the SDE model, nats",
)
axis.legend(loc="upper left")
plt.show()
