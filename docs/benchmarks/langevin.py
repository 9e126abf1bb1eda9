"""LangevinSampler beside blackjax and plain torch: modes, throughput, hard targets.

Needs ``pip install skdiffusion blackjax``; about ten minutes on one core. The sections
``throughput``, ``modes`` and ``hard`` can be named as arguments. Both sides run in this process, on
one thread, in float32, and throughput is counted in CPU seconds. The tables are written to
``results/langevin.md`` beside this script.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import datetime
import functools
import math
import platform
import resource
import sys
import time
import warnings
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import torch

from skdiffusion.datasets import make_gaussian_mixture
from skdiffusion.estimators import LangevinSampler
from skdiffusion.metrics import (
    effective_sample_size,
    energy_distance,
    mode_coverage,
    mode_weight_error,
)

torch.set_num_threads(1)
MIXTURE = make_gaussian_mixture(150, random_state=0)
MEANS, WEIGHTS, VARIANCE = MIXTURE.means_, MIXTURE.weights_, MIXTURE.covariances_[0]
RESULTS = Path(__file__).parent / "results" / "langevin.md"
lines = []


def write(*text):
    """Print and keep a line of the report."""
    lines.extend(text)
    print(*text, sep="\n", flush=True)


def table(*header):
    write("", "| " + " | ".join(header) + " |", "|" + "---|" * len(header))


def row(*cells):
    write("| " + " | ".join(str(c) for c in cells) + " |")


def mean_sd(values, digits=3):
    """Mean and, of several values, standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def quietly(sampler, X=None):
    """Fit without the warnings that the table itself shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sampler.fit(X)


# ------------------------------------------------------------------ 150 modes


def exact(n, seed):
    rng = np.random.default_rng(seed)
    component = rng.choice(len(WEIGHTS), n, p=WEIGHTS)
    return MEANS[component] + math.sqrt(VARIANCE) * rng.normal(size=(n, 2))


@functools.cache
def shares():
    """Share of exact points that are labelled with each mode; modes overlap."""
    return np.bincount(MIXTURE.predict(exact(1_000_000, 99)), minlength=len(WEIGHTS)) / 1e6


def quality(x):
    """Energy distance of parts of 4000 points to 4000 exact ones, coverage, weight error."""
    label, reference = MIXTURE.predict(x), exact(4000, 12345)
    parts = [x[i : i + 4000] for i in range(0, len(x) - 3999, 4000)]
    return (
        np.mean([energy_distance(part, reference) for part in parts]),
        mode_coverage(label, shares()),
        mode_weight_error(label, shares()),
    )


def torch_mixture():
    """Log density alone, as a user would write it."""
    means, log_weights = torch.tensor(MEANS).float(), torch.tensor(WEIGHTS).log().float()

    def log_density(x):
        logits = x @ means.T / VARIANCE + (log_weights - means.square().sum(1) / (2 * VARIANCE))
        return torch.logsumexp(logits, 1) - x.square().sum(1) / (2 * VARIANCE)

    return log_density


def modes(n=10_000, n_seeds=5):
    write("", "## 150 modes", "")
    write(
        f"{n} chains from N(0, I), `make_gaussian_mixture(150, random_state=0)`; energy distance "
        "of 4000 draws to 4000 exact ones, whose own scatter is large; coverage is the share of "
        "modes with at least half of their share of exact draws; weights is the total variation "
        f"between both shares. Mean and standard deviation over {n_seeds} seeds; the other methods "
        "have one, and tempering runs 5000 chains, whose own floor is given."
    )
    table("sampler", "evaluations a chain", "energy distance", "coverage", "weights", "CPU s")

    def show(name, evaluations, draw, seeds):
        start = time.process_time()
        clouds = [draw(seed) for seed in seeds]
        cpu = (time.process_time() - start) / len(clouds)
        values = np.array([quality(x) for x in clouds])
        row(name, evaluations, *(mean_sd(v) for v in values.T), f"{cpu:.1f}")
        return values.mean(0)

    floor = show("exact draws (floor)", 0, lambda s: exact(n, 1000 + s), range(n_seeds))
    for method in ("auto", "mala", "ula"):
        sampler = quietly(LangevinSampler(MIXTURE, method=method, dtype="float32", random_state=0))
        levels = len(sampler.noise_levels_)
        evaluations = 2 * levels - 2 + 21 if method == "auto" else 1001
        name = "defaults (annealed)" if method == "auto" else f'method="{method}"'
        seeds = range(n_seeds if method == "auto" else 1)
        values = show(name, evaluations, lambda s, f=sampler: f.sample(n, random_state=s), seeds)
        if method == "auto":
            write_ratio = values[0] / floor[0], values[1] / floor[1]
    sampler = LangevinSampler(torch_mixture(), n_features=2, dtype="float32", random_state=0)
    quietly(sampler)
    evaluations = 501 * len(sampler.inverse_temperatures_)
    few = n // 2
    floor_few = show(f"exact draws, {few}", 0, lambda s: exact(few, 1000 + s), range(n_seeds))
    draw = lambda s: sampler.sample(few, random_state=s)  # noqa: E731
    values = show("log density alone, defaults (tempered)", evaluations, draw, range(1))
    write("")
    write(
        f"Defaults: energy distance {write_ratio[0]:.2f} x the floor, coverage "
        f"{write_ratio[1]:.3f} x the floor. Log density alone: coverage "
        f"{values[1] / floor_few[1]:.3f} x the floor."
    )


# ------------------------------------------------------------------ throughput


def jax_mixture():
    means, log_weights = jnp.asarray(MEANS, jnp.float32), jnp.log(jnp.asarray(WEIGHTS))

    def log_density(x):
        square = ((x - means) ** 2).sum(-1)
        return jax.scipy.special.logsumexp(log_weights - 0.5 * square / VARIANCE)

    return log_density


def blackjax_run(step, init, n, n_steps):
    """Seconds of CPU for a jitted scan over steps of vmapped chains, compilation left out."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(n, 2)), jnp.float32)

    @jax.jit
    def loop(key, x):
        def body(state, key):
            return jax.vmap(step)(jax.random.split(key, n), state), None

        state, _ = jax.lax.scan(body, jax.vmap(init)(x), jax.random.split(key, n_steps))
        return state

    run = loop.lower(jax.random.key(0), x).compile()
    return seconds(lambda: jax.block_until_ready(run(jax.random.key(0), x)))


def torch_run(n, n_steps, h):
    """Seconds of CPU for plain torch with autograd."""
    log_density, x = torch_mixture(), torch.randn(n, 2)

    def run():
        y = x
        for _ in range(n_steps):
            y = y.detach().requires_grad_(True)
            (g,) = torch.autograd.grad(log_density(y).sum(), y)
            y = y + h * g + math.sqrt(2 * h) * torch.randn_like(y)

    return seconds(run)


def seconds(function, repeats=3):
    """Least CPU time of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def arithmetic_floor():
    """Chain-steps per second if only products, exponentials and normals took time."""
    a, e = torch.randn(512, 512), torch.randn(1000, 150)
    z = torch.empty(2000)
    flops = 2 * 512**3 / seconds(lambda: torch.mm(a, a), 9)
    exponentials = e.numel() / seconds(lambda: torch.exp(e), 9)
    normals = z.numel() / seconds(lambda: z.normal_(), 9)
    return 1 / (2 * 2 * 150 * 2 / flops + 150 / exponentials + 2 / normals)


def throughput(n=10_000, n_steps=200):
    write("", "## Throughput", "")
    write(
        f"{n} chains, {n_steps} steps on the mixture of 150, thousands of chain-steps per CPU "
        "second, one thread, best of 3; the share is of what the products, exponentials and "
        "normals alone would allow on this machine at this moment."
    )
    floor = arithmetic_floor()
    log_density = jax_mixture()
    sgld = blackjax.sgld(lambda x, batch: jax.grad(log_density)(x))
    mala = blackjax.mala(log_density, 0.33)
    times = {}
    for method, h in (("ula", 0.02), ("mala", 0.33)):
        sampler = LangevinSampler(
            MIXTURE, method=method, step_size=h, n_steps=n_steps, dtype="float32", random_state=0
        )
        quietly(sampler)
        times[method, "skdiffusion, float32"] = seconds(lambda f=sampler: f.sample(n))
        sampler.set_params(dtype="float64")
        times[method, "skdiffusion, float64 (default)"] = seconds(lambda f=sampler: f.sample(n))
    times["ula", "blackjax, float32"] = blackjax_run(
        lambda k, x: sgld.step(k, x, None, 0.02), lambda x: x, n, n_steps
    )
    times["mala", "blackjax, float32"] = blackjax_run(
        lambda k, s: mala.step(k, s)[0], mala.init, n, n_steps
    )
    times["ula", "plain torch with autograd, float32"] = 4 * torch_run(n, n_steps // 4, 0.02)
    table("kernel", "implementation", "10³ chain-steps / CPU s", "x blackjax", "share of the floor")
    for (method, name), t in sorted(times.items(), key=lambda item: (item[0][0], item[1])):
        rate = n * n_steps / t
        ratio = times[method, "blackjax, float32"] / t
        row(method, name, f"{rate / 1e3:.0f}", f"{ratio:.2f}", f"{rate / floor:.2f}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sampler = LangevinSampler(
        MIXTURE, method="ula", step_size=0.02, n_steps=5, dtype="float32", random_state=0
    )
    x = quietly(sampler).sample(1_000_000)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    write("")
    write(
        f"A million chains: peak memory grew by {grown:.0f} MB over that of what ran before; "
        f"start, keys and draws themselves are {(3 * x.nbytes) / 2**20:.0f} MB, and one matrix of "
        f"all responsibilities would be {1e6 * 150 * 4 / 2**20:.0f} MB."
    )


# ------------------------------------------------------------------ hard targets

CONDITION = np.geomspace(1e-2, 1e2, 100)
GRID = np.stack(np.meshgrid(*[np.arange(-2, 3) * 5.0] * 2), -1).reshape(-1, 2)


def hard_targets():
    """Name, features, torch and jax log density, functions with known mean, their means and sds.

    The functions are the coordinates whose moments are known.
    """
    variances_t, variances_j = torch.tensor(CONDITION).float(), jnp.asarray(CONDITION)
    grid_t, grid_j = torch.tensor(GRID).float(), jnp.asarray(GRID)

    def funnel(x, xp):
        v, rest = x[..., 0], x[..., 1:]
        return -(v**2) / 18 - 4.5 * v - 0.5 * (rest**2).sum(-1) * xp.exp(-v)

    def banana(x, xp):
        return -0.5 * x[..., 0] ** 2 - 2 * (x[..., 1] - x[..., 0] ** 2) ** 2

    def student(x, xp):
        return -3.0 * xp.log1p(x**2 / 5).sum(-1)

    return [
        ("funnel", 10, lambda x: funnel(x, torch), lambda x: funnel(x, jnp), 0, 0.0, 3.0),
        ("banana", 2, lambda x: banana(x, torch), lambda x: banana(x, jnp), 1, 1.0, 1.5),
        (
            "Gaussian, condition 10⁴",
            100,
            lambda x: -0.5 * (x**2 / variances_t).sum(-1),
            lambda x: -0.5 * (x**2 / variances_j).sum(-1),
            99,
            0.0,
            10.0,
        ),
        (
            "grid of 25 modes",
            2,
            lambda x: torch.logsumexp(-8 * torch.cdist(x, grid_t) ** 2, -1),
            lambda x: jax.scipy.special.logsumexp(-8 * ((x - grid_j) ** 2).sum(-1)),
            0,
            0.0,
            math.sqrt(50 + 1 / 16),
        ),
        (
            "Student t, 5 degrees",
            10,
            lambda x: student(x, torch),
            lambda x: student(x, jnp),
            0,
            0.0,
            math.sqrt(5 / 3),
        ),
    ]


def ours(log_density, d, n_chains, n_draws, **parameters):
    """Draws (n_chains, n_draws, d) and gradients a draw."""
    sampler = LangevinSampler(
        log_density, n_features=d, n_chains=n_chains, dtype="float32", random_state=0, **parameters
    )
    x = quietly(sampler).sample(n_chains * n_draws)
    n_replicas = len(sampler.inverse_temperatures_)
    return x.reshape(n_draws, n_chains, d).transpose(1, 0, 2), n_replicas


def blackjax_mala(log_density, d, n_chains, n_draws, n_warm=1000):
    """MALA of blackjax with one step size, adapted to the acceptance 0.574 beforehand."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(n_chains, d)), jnp.float32)
    kernel, init = blackjax.mala.build_kernel(), blackjax.mala.init

    @jax.jit
    def loop(key, x):
        def step(state, key, h):
            keys = jax.random.split(key, n_chains)
            return jax.vmap(lambda k, s: kernel(k, s, log_density, h))(keys, state)

        def warm(carry, inputs):
            (state, log_h), (key, i) = carry, inputs
            state, info = step(state, key, jnp.exp(log_h))
            rate = jnp.nan_to_num(info.acceptance_rate).mean()
            return (state, log_h + 2 * (rate - 0.574) / jnp.sqrt(i + 1.0)), None

        state = jax.vmap(lambda x: init(x, log_density))(x)
        key, other = jax.random.split(key)
        steps = jax.random.split(key, n_warm), jnp.arange(n_warm)
        (state, log_h), _ = jax.lax.scan(warm, (state, jnp.log(0.01)), steps)

        def body(state, key):
            state, _ = step(state, key, jnp.exp(log_h))
            return state, state.position

        return jax.lax.scan(body, state, jax.random.split(other, n_draws))[1]

    return np.asarray(loop(jax.random.key(0), x)).transpose(1, 0, 2), 1


def blackjax_nuts(log_density, d, n_chains, n_draws, n_warm=1000):
    """NUTS of blackjax after window adaptation on the first chain."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(n_chains, d)), jnp.float32)
    warm = blackjax.window_adaptation(blackjax.nuts, log_density)
    (_, parameters), _ = warm.run(jax.random.key(1), x[0], num_steps=n_warm)
    nuts = blackjax.nuts(log_density, **parameters)

    @jax.jit
    def loop(key, x):
        def body(state, key):
            state, info = jax.vmap(nuts.step)(jax.random.split(key, n_chains), state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(body, jax.vmap(nuts.init)(x), jax.random.split(key, n_draws))[1]

    x, n_steps = loop(jax.random.key(0), x)
    return np.asarray(x).transpose(1, 0, 2), float(n_steps.mean())


def hard(n_chains=16, n_draws=500):
    write("", "## Hard targets", "")
    write(
        f"{n_chains} chains from N(0, I), 1000 steps of warm-up (500 for tempering), {n_draws} "
        "draws of each chain, float32. Mean and standard deviation of the coordinate named "
        "hardest; smallest bulk effective sample size over the coordinates, per thousand "
        "gradients after warm-up. An effective sample size means nothing where the moments are "
        "wrong."
    )
    table("target", "sampler", "mean (truth)", "sd (truth)", "ESS / 1000 gradients", "wall s")
    samplers = {
        "skdiffusion, log density alone (tempered)": (0, {}),
        "skdiffusion mala": (0, {"method": "mala"}),
        'skdiffusion mala, preconditioner="pilot"': (
            0,
            {"method": "mala", "preconditioner": "pilot"},
        ),
        "blackjax mala": (1, blackjax_mala),
        "blackjax nuts": (1, blackjax_nuts),
    }
    for name, d, in_torch, in_jax, k, mean, sd in hard_targets():
        for label, (peer, how) in samplers.items():
            if d > 50 and label.endswith("(tempered)"):
                continue
            start = time.perf_counter()
            if peer:
                x, gradients = how(in_jax, d, n_chains, n_draws)
            else:
                x, gradients = ours(in_torch, d, n_chains, n_draws, **how)
            wall = time.perf_counter() - start
            ess = np.min(effective_sample_size(x)) / (n_chains * n_draws * gradients) * 1000
            values = x[:, :, k]
            row(
                name,
                label,
                f"{values.mean():.2f} ({mean:g})",
                f"{values.std():.2f} ({sd:.3g})",
                f"{ess:.2f}",
                f"{wall:.0f}",
            )


def sections(text):
    """Heading and text of the sections of a report."""
    parts = text.split("\n## ")
    return {part.split("\n")[0]: part for part in parts[1:]}


def main(names):
    """Run the sections named, all by default, and keep the others of the last report."""
    known = {"throughput": throughput, "modes": modes, "hard": hard}
    kept = sections(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names or known:
        lines.clear()
        write("")
        known[name]()
        write(
            "",
            f"Written by `docs/benchmarks/langevin.py {name}` on {datetime.date.today()}: "
            f"{platform.machine()}, one thread, torch {torch.__version__}, jax {jax.__version__}, "
            f"blackjax {blackjax.__version__}, load average {os.getloadavg()[0]:.1f} at the end.",
        )
        kept |= sections("\n".join(lines) + "\n")
        RESULTS.parent.mkdir(exist_ok=True)
        body = "\n## ".join(["# LangevinSampler: measurements\n", *kept.values()])
        RESULTS.write_text(body, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
