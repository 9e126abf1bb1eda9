"""LangevinSampler on ten posteriors of the kinds collected in posteriordb, beside blackjax NUTS.

Needs ``pip install skdiffusion blackjax``; about ten minutes on one core. Eight schools are the
published data; the others have the form of posteriordb's models, with data simulated here by the
law stated beside each. Densities are written once, for torch and jax alike, in free coordinates:
logarithms of what is positive, logits of shares, with the Jacobian. The reference is a long run
of blackjax NUTS in double precision with another seed, for the two hierarchies in centred form in
that without a funnel. Runs are recorded in
``results/posteriors.jsonl`` and not run again, the table is written to ``results/posteriors.md``.
A number as an argument is that of CPU seconds after which no further model begins; ``ours`` runs
the rows of skdiffusion again and keeps those of NUTS.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import datetime
import json
import platform
import sys
import time
import warnings
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from records import read_records

from skdiffusion.estimators import LangevinSampler
from skdiffusion.metrics import effective_sample_size, r_hat

torch.set_num_threads(1)
jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "posteriors.md"
RECORDS = RESULTS.with_suffix(".jsonl")
N_CHAINS, N_DRAWS = 100, 100
HOW = {"defaults ({})": {}, 'method="hmc"': {"method": "hmc"}}

# ------------------------------------------------------------------ densities


class Both:
    """Arrays and functions of torch or jax."""

    def __init__(self, xp):
        self.xp = xp

    def array(self, values):
        values = np.asarray(values, dtype=np.float64)
        return torch.tensor(values) if self.xp is torch else jnp.asarray(values)

    def log_sigmoid(self, z):
        return self.xp.minimum(z, 0 * z) - self.xp.log1p(self.xp.exp(-self.xp.abs(z)))

    def normal(self, x, mean, log_scale):
        """Log density of a normal, summed over the last axis."""
        return (-0.5 * ((x - mean) * self.xp.exp(-log_scale)) ** 2 - log_scale + 0 * x).sum(-1)

    def half_cauchy(self, log_x, scale):
        """Half-Cauchy prior of x, as a density of its logarithm."""
        return log_x - self.xp.log1p(self.xp.exp(2 * log_x) / scale**2)

    def half_normal(self, log_x, scale):
        """Half-normal prior of x, as a density of its logarithm."""
        return log_x - 0.5 * self.xp.exp(2 * log_x) / scale**2


SCHOOLS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def eight_schools_centred(b):
    y, sigma = map(b.array, SCHOOLS)

    def log_density(x):
        mu, log_tau, theta = x[..., 0], x[..., 1], x[..., 2:]
        prior = -0.5 * (mu / 5) ** 2 + b.half_cauchy(log_tau, 5.0)
        prior = prior + b.normal(theta, mu[..., None], log_tau[..., None])
        return prior - 0.5 * (((y - theta) / sigma) ** 2).sum(-1)

    return log_density, 10


def eight_schools_non_centred(b):
    y, sigma = map(b.array, SCHOOLS)

    def log_density(x):
        mu, log_tau, z = x[..., 0], x[..., 1], x[..., 2:]
        theta = mu[..., None] + b.xp.exp(log_tau)[..., None] * z
        prior = -0.5 * (mu / 5) ** 2 + b.half_cauchy(log_tau, 5.0) - 0.5 * (z**2).sum(-1)
        return prior - 0.5 * (((y - theta) / sigma) ** 2).sum(-1)

    return log_density, 10


def linear_regression(b):
    """Scores on the mother's IQ: y = 26 + 0.6 iq + N(0, 18), iq ~ N(100, 15), 200 rows."""
    rng = np.random.default_rng(1)
    iq = rng.normal(100, 15, 200)
    y, iq = b.array(26 + 0.6 * iq + rng.normal(0, 18, 200)), b.array(iq)

    def log_density(x):
        mean = x[..., :1] + x[..., 1:2] * iq
        return b.normal(y, mean, x[..., 2:]) + b.half_cauchy(x[..., 2], 2.5)

    return log_density, 3


def logistic_regression(b):
    """P(y = 1) = sigmoid(X (0.5, 1, -1, 0.3, 0)), 150 rows X of 1 and N(0, 1); N(0, 2) prior."""
    rng = np.random.default_rng(2)
    rows = np.column_stack([np.ones(150), rng.normal(size=(150, 4))])
    share = 1 / (1 + np.exp(-rows @ [0.5, 1, -1, 0.3, 0]))
    signed = b.array(np.where(rng.uniform(size=150) < share, 1, -1)[:, None] * rows)
    return lambda x: b.log_sigmoid(x @ signed.T).sum(-1) - 0.125 * (x**2).sum(-1), 5


def hierarchical_regression(b, centred=True):
    """Radon-like: y = a_j + 0.7 floor + N(0, 0.8), a_j ~ N(1.5, 0.4), 12 counties of 8 houses."""
    rng = np.random.default_rng(3)
    county, floor = np.arange(96) % 12, rng.integers(0, 2, 96)
    y = b.array(rng.normal(1.5, 0.4, 12)[county] + 0.7 * floor + rng.normal(0, 0.8, 96))
    member, floor = b.array(np.eye(12)[county]), b.array(floor)

    def log_density(x):
        log_tau, mu, slope, log_sigma, a = x[..., 1], x[..., 0], x[..., 2], x[..., 3], x[..., 4:]
        prior = -0.5 * (mu / 10) ** 2 - 0.5 * (slope / 10) ** 2
        prior = prior + b.half_normal(log_tau, 1.0) + b.half_normal(log_sigma, 1.0)
        if centred:
            prior = prior + b.normal(a, mu[..., None], log_tau[..., None])
        else:
            prior = prior - 0.5 * (a**2).sum(-1)
            a = mu[..., None] + b.xp.exp(log_tau)[..., None] * a
        mean = a @ member.T + slope[..., None] * floor
        return prior + b.normal(y, mean, log_sigma[..., None])

    return log_density, 16


def hierarchical_regression_non_centred(b):
    return hierarchical_regression(b, centred=False)


def hierarchical_logistic(b):
    """Shares p_j with logits N(-1, 0.7), 15 groups of 20 trials, non-centred."""
    rng = np.random.default_rng(4)
    share = 1 / (1 + np.exp(-rng.normal(-1, 0.7, 15)))
    wins = b.array(rng.binomial(20, share))

    def log_density(x):
        mu, log_tau, z = x[..., 0], x[..., 1], x[..., 2:]
        logit = mu[..., None] + b.xp.exp(log_tau)[..., None] * z
        prior = -0.5 * (mu / 2) ** 2 + b.half_normal(log_tau, 1.0) - 0.5 * (z**2).sum(-1)
        return prior + (wins * logit + 20 * b.log_sigmoid(-logit)).sum(-1)

    return log_density, 17


def gaussian_process(b):
    """Length ~ Gamma(25, 4), height ~ N+(0, 2), noise ~ N+(0, 1); 11 values sin + N(0, .3)."""
    rng = np.random.default_rng(5)
    t = np.linspace(-10, 10, 11)
    y = b.array(np.sin(t / 3) + 0.3 * rng.normal(size=11))
    square, eye = b.array((t[:, None] - t) ** 2), b.array(np.eye(11))

    def log_density(x):
        length, height, noise = (b.xp.exp(x[..., k]) for k in range(3))
        prior = 25 * x[..., 0] - 4 * length + b.half_normal(x[..., 1], 2.0)
        prior = prior + b.half_normal(x[..., 2], 1.0)
        near = b.xp.exp(-0.5 * square / length[..., None, None] ** 2)
        covariance = height[..., None, None] ** 2 * near
        covariance = covariance + (noise[..., None, None] ** 2 + 1e-10) * eye
        root = b.xp.linalg.cholesky(covariance)
        z = b.xp.linalg.solve(root, y + 0 * root[..., 0])
        logs = b.xp.log(b.xp.diagonal(root, 0, -2, -1)).sum(-1)
        return prior - 0.5 * (z**2).sum(-1) - logs

    return log_density, 3


def mixture(b):
    """0.3 N(-2, 1) + 0.7 N(2, 0.7), 200 values; means in order, N(0, 2); Beta(5, 5) share."""
    rng = np.random.default_rng(6)
    first = rng.uniform(size=200) < 0.3
    y = b.array(np.where(first, rng.normal(-2, 1, 200), rng.normal(2, 0.7, 200)))

    def log_density(x):
        low, high = x[..., 0], x[..., 0] + b.xp.exp(x[..., 1])
        prior = -(low**2 + high**2) / 8 + x[..., 1]
        prior = prior + b.half_normal(x[..., 2], 2.0) + b.half_normal(x[..., 3], 2.0)
        share, rest = b.log_sigmoid(x[..., 4]), b.log_sigmoid(-x[..., 4])
        prior = prior + 5 * share + 5 * rest
        parts = [
            w[..., None] - s[..., None] - 0.5 * ((y - m[..., None]) * b.xp.exp(-s)[..., None]) ** 2
            for w, m, s in ((share, low, x[..., 2]), (rest, high, x[..., 3]))
        ]
        return prior + b.xp.logaddexp(*parts).sum(-1)

    return log_density, 5


def poisson_regression(b):
    """Peregrine-like: log rate = 4 + 0.5 t - 0.3 t^2 - 0.2 t^3, 40 years t in (-1.5, 1.5)."""
    rng, t = np.random.default_rng(7), np.linspace(-1.5, 1.5, 40)
    powers = np.column_stack([t**k for k in range(4)])
    counts, powers = b.array(rng.poisson(np.exp(powers @ [4, 0.5, -0.3, -0.2]))), b.array(powers)

    def log_density(x):
        log_rate = x @ powers.T
        return (counts * log_rate - b.xp.exp(log_rate)).sum(-1) - 0.005 * (x**2).sum(-1)

    return log_density, 4


def autoregression(b):
    """AR(5) with coefficients (0.5, 0.2, 0, -0.2, 0.1) and unit noise, 200 values."""
    rng, y = np.random.default_rng(8), [0.0] * 5
    for _ in range(200):
        y.append(np.dot(y[-1:-6:-1], [0.5, 0.2, 0, -0.2, 0.1]) + rng.normal())
    lags = [[1.0, *(y[t - k] for k in range(1, 6))] for t in range(5, 205)]
    lags, y = b.array(lags), b.array(y[5:])

    def log_density(x):
        prior = -0.005 * (x[..., :6] ** 2).sum(-1) + b.half_cauchy(x[..., 6], 2.5)
        return prior + b.normal(y, x[..., :6] @ lags.T, x[..., 6:])

    return log_density, 7


MODELS = [
    eight_schools_centred,
    eight_schools_non_centred,
    linear_regression,
    logistic_regression,
    hierarchical_regression,
    hierarchical_logistic,
    gaussian_process,
    mixture,
    poisson_regression,
    autoregression,
]

# Models without the funnel, whose draws are those of the model once members are put together of a
# mean, the logarithm of a scale (the first two coordinates) and numbers in its units.
WITHOUT_FUNNEL = {
    eight_schools_centred: (eight_schools_non_centred, 2),
    hierarchical_regression: (hierarchical_regression_non_centred, 4),
}

# ------------------------------------------------------------------ samplers


def reference_draws(model):
    """A long run of NUTS."""
    free, n_others = WITHOUT_FUNNEL.get(model, (model, None))
    x = nuts(free, 8, 4000, seed=50)[0][:, 500:].copy()
    if n_others:
        x[..., n_others:] = x[..., :1] + np.exp(x[..., 1:2]) * x[..., n_others:]
    return x


def nuts(model, n_chains, n_draws, seed, n_warm=1000):
    """Draws, gradients a draw, gradients of the warm-up, CPU seconds of both without compiling."""
    log_density, d = model(Both(jnp))
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(n_chains, d)))
    warm = blackjax.window_adaptation(blackjax.nuts, log_density)
    adapt = jax.jit(lambda key: warm.run(key, x[0], num_steps=n_warm))
    adapt = adapt.lower(jax.random.key(100 + seed)).compile()
    start = time.process_time()
    (state, parameters), _ = jax.block_until_ready(adapt(jax.random.key(100 + seed)))
    seconds = [time.process_time() - start]
    kernel = blackjax.nuts(log_density, **parameters)

    @jax.jit
    def loop(keys, positions):
        def chain(start):
            def body(state, key):
                state, info = kernel.step(key, state)
                return state, (state.position, info.num_integration_steps)

            key, position = start
            keys = jax.random.split(key, n_draws)
            return jax.lax.scan(body, kernel.init(position), keys)[1]

        # One after the other: side by side every chain would wait for the longest trajectory.
        return jax.lax.map(chain, (keys, positions))

    # All chains go on from the end of the warm-up, apart after the draws that are left out.
    positions = jnp.tile(state.position, (n_chains, 1))
    keys = jax.random.split(jax.random.key(seed), n_chains)
    loop = loop.lower(keys, positions).compile()
    start = time.process_time()
    draws, n_steps = jax.block_until_ready(loop(keys, positions))
    seconds.append(time.process_time() - start)
    return np.asarray(draws), float(n_steps.mean()), seconds


def ours(model, seed, **parameters):
    """Draws, gradients a draw after the burn-in, CPU seconds of both calls, warnings, kernel."""
    log_density, d = model(Both(torch))
    calls = []

    def counted(x):
        calls.append(len(x))
        return log_density(x)

    sampler = LangevinSampler(
        counted, n_features=d, n_chains=N_CHAINS, random_state=seed, **parameters
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.process_time()
        sampler.fit()
        seconds = [time.process_time() - start]
        calls.clear()
        start = time.process_time()
        x = sampler.sample(N_CHAINS * N_DRAWS)
        seconds.append(time.process_time() - start)
    n_steps = {"hmc": 100, "tempered": 500, "mala": 1000}[sampler.method_]
    gradients = sum(calls) / (n_steps + N_DRAWS) / N_CHAINS
    draws = x.reshape(N_DRAWS, N_CHAINS, d).transpose(1, 0, 2)
    return draws, gradients, seconds, [str(w.message) for w in caught], sampler.method_


def error(x, reference):
    """Largest difference of means and of deviations, in standard errors of both runs."""
    worst = 0.0
    for power in (1, 2):
        a, b = (((r - reference.mean((0, 1))) ** power) for r in (x, reference))
        spread = [
            r.reshape(-1, r.shape[2]).std(0) / np.sqrt(effective_sample_size(r, "mean"))
            for r in (a, b)
        ]
        gap = np.abs(a.mean((0, 1)) - b.mean((0, 1)))
        worst = max(worst, float((gap / np.hypot(*spread)).max()))
    return worst


def compare(model, with_nuts):
    """Records of one posterior, one a sampler."""
    reference = reference_draws(model)
    runs = {}
    if with_nuts:
        draws, gradients, seconds = nuts(model, N_CHAINS, N_DRAWS + 20, seed=0)
        runs["blackjax nuts"] = draws[:, 20:], gradients, seconds, []
    for name, how in HOW.items():
        *found, method = ours(model, 0, **how)
        runs[f"skdiffusion, {name.format(method)}"] = found
    for name, (draws, gradients, seconds, texts) in runs.items():
        ess = float(np.min(effective_sample_size(draws)))
        yield {
            "posterior": model.__name__.replace("_", " "),
            "sampler": name,
            "error": round(error(draws, reference), 2),
            "ess_per_1000_gradients": 1000 * ess / (draws.shape[0] * draws.shape[1] * gradients),
            "ess_per_second": ess / sum(seconds),
            "seconds": [round(s, 2) for s in seconds],
            "warned": len(texts),
            "reference_r_hat": round(float(np.max(r_hat(reference))), 4),
        }


def page(records):
    """The table, and how often each sampler was the better one."""
    yield from ["# Posteriors", ""]
    yield (
        f"{N_CHAINS} chains of {N_DRAWS} draws each; error is the largest difference of a mean or "
        "second moment from the reference in standard errors of both (of up to 34 numbers a model, "
        "so that 3 is usual); smallest bulk effective sample size over the coordinates, per "
        "thousand gradients after warm-up and per CPU second with it, compiling of jax left out, "
        "chains of NUTS one after the other; CPU seconds of warm-up or `fit` and of the draws, in "
        "ours with the burn-in of every chain."
    )
    yield from ["", "| posterior | sampler | error | ESS / 1000 gradients | ESS / CPU s | CPU s |"]
    yield "|---|---|---|---|---|---|"
    for r in records:
        first, second = r["seconds"]
        warned = ", warned" if r["warned"] else ""
        yield (
            f"| {r['posterior']} | {r['sampler']} | {r['error']:.1f}{warned} | "
            f"{r['ess_per_1000_gradients']:.0f} | {r['ess_per_second']:.0f} | "
            f"{first:.1f} + {second:.1f} |"
        )
    nuts_of = {r["posterior"]: r for r in records if "nuts" in r["sampler"]}
    defaults = [r for r in records if "defaults" in r["sampler"]]
    for key, words in (("ess_per_1000_gradients", "gradient"), ("ess_per_second", "CPU second")):
        better = sum(r[key] >= nuts_of[r["posterior"]][key] for r in defaults)
        yield from ["", f"The defaults give at least as much as NUTS per {words} on "]
        yield f"{better} of {len(defaults)}."
    yield from ["", f"Written by `docs/benchmarks/posteriors.py` on {datetime.date.today()}:"]
    yield (
        f"{platform.machine()}, one thread, torch {torch.__version__}, jax {jax.__version__}, "
        f"blackjax {blackjax.__version__}."
    )


def main(arguments):
    again = "ours" in arguments
    limit = min([float(a) for a in arguments if a != "ours"], default=float("inf"))
    for model in MODELS:
        name, known = model.__name__.replace("_", " "), read_records(RECORDS)
        is_known = name in {r["posterior"] for r in known}
        if (is_known and not again) or time.process_time() > limit:
            continue
        found = list(compare(model, not is_known))
        old = [r for r in known if r["posterior"] != name or (is_known and "nuts" in r["sampler"])]
        lines = [json.dumps(record) for record in sorted(old + found, key=place)]
        RECORDS.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print("\n".join(map(str, found)), flush=True)
    RESULTS.write_text("\n".join(page(read_records(RECORDS))) + "\n", encoding="utf-8")


def place(record):
    """Where a record stands in the table."""
    names = [model.__name__.replace("_", " ") for model in MODELS]
    return names.index(record["posterior"]), "nuts" not in record["sampler"]


if __name__ == "__main__":
    main(sys.argv[1:])
