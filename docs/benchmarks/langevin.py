"""LangevinSampler beside blackjax and plain torch: modes, throughput, hard targets.

Needs ``pip install skdiffusion blackjax``; about twenty minutes on one core. The sections
``throughput``, ``modes`` and ``hard`` can be named as arguments. Both sides run in this process, on
one thread, in float32 unless said otherwise, and throughput is counted in CPU seconds. The tables
are written to ``results/langevin.md`` beside this script.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import datetime
import functools
import math
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

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


def quality(x, seed):
    """Squared energy distances of parts of 4000 points to exact ones, coverage, weight error.

    The parts have references of their own, the same for every sampler.
    """
    label = MIXTURE.predict(x)
    parts = [x[i : i + 4000] for i in range(0, len(x) - 3999, 4000)]
    squares = [
        energy_distance(part, exact(4000, 10_000 + 100 * seed + i)) ** 2
        for i, part in enumerate(parts)
    ]
    return (
        np.mean(squares),
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


def modes(n=8_000, n_seeds=12):
    write("", "## 150 modes", "")
    write(
        f"{n} chains from N(0, I), `make_gaussian_mixture(150, random_state=0)`; energy distance "
        "of parts of 4000 draws to 4000 exact ones, the same exact ones for every sampler, root of "
        "the mean square; coverage is the share of modes with at least half of their share of "
        "exact draws; weights is the total variation between both shares. Means and standard "
        f"errors over {n_seeds} seeds for exact draws and defaults; plain chains have one seed, "
        "and tempering 4000 chains of one, with a floor of its own."
    )
    table("sampler", "evaluations a chain", "energy distance", "coverage", "weights", "CPU s")

    def show(name, evaluations, draw, seeds):
        start = time.process_time()
        clouds = [draw(seed) for seed in seeds]
        cpu = (time.process_time() - start) / len(clouds)
        values = np.array([quality(x, seed) for seed, x in zip(seeds, clouds, strict=True)])
        root = math.sqrt(values[:, 0].mean())
        spread = values.std(0, ddof=1) / math.sqrt(len(seeds)) if len(seeds) > 1 else np.zeros(3)
        spread[0] /= 2 * root
        means = [root, *values[:, 1:].mean(0)]
        cells = [
            f"{m:.3f} ± {e:.3f}" if e else f"{m:.3f}" for m, e in zip(means, spread, strict=True)
        ]
        row(name, evaluations, *cells, f"{cpu:.1f}")
        return values

    seeds = range(n_seeds)
    floor = show("exact draws (floor)", 0, lambda s: exact(n, 1000 + s), seeds)
    for method in ("auto", "mala", "ula"):
        sampler = quietly(LangevinSampler(MIXTURE, method=method, random_state=0))
        levels = len(sampler.noise_levels_)
        evaluations = 2 * levels - 2 + 21 if method == "auto" else 1001
        name = "defaults (annealed)" if method == "auto" else f'method="{method}"'
        used = seeds if method == "auto" else range(1)
        values = show(name, evaluations, lambda s, f=sampler: f.sample(n, random_state=s), used)
        if method == "auto":
            defaults = values
    sampler = LangevinSampler(torch_mixture(), n_features=2, dtype="float32", random_state=0)
    quietly(sampler)
    few, evaluations = 4000, 501 * len(sampler.inverse_temperatures_)
    floor_few = show(f"exact draws, {few}", 0, lambda s: exact(few, 1000 + s), seeds)
    draw = lambda s: sampler.sample(few, random_state=s)  # noqa: E731
    values = show("log density alone, defaults (tempered)", evaluations, draw, range(1))
    ratio, low, high = ratio_of_roots(defaults[:, 0], floor[:, 0])
    write("")
    write(
        f"Defaults: energy distance {ratio:.3f} x the floor (90 % interval {low:.3f} to "
        f"{high:.3f}, bootstrap over pairs of seeds), coverage "
        f"{defaults[:, 1].mean() / floor[:, 1].mean():.3f} x the floor. Log density alone: "
        f"coverage {values[:, 1].mean() / floor_few[:, 1].mean():.3f} x the floor."
    )


def ratio_of_roots(squares, floor):
    """Ratio of root mean squares of pairs, with an interval by bootstrap."""
    rows = np.random.default_rng(0).integers(len(squares), size=(2000, len(squares)))
    ratios = np.sqrt(squares[rows].mean(1) / floor[rows].mean(1))
    return math.sqrt(squares.mean() / floor.mean()), *np.quantile(ratios, [0.05, 0.95])


# ------------------------------------------------------------------ throughput


def jax_mixture():
    means, log_weights = jnp.asarray(MEANS, jnp.float32), jnp.log(jnp.asarray(WEIGHTS))

    def log_density(x):
        square = ((x - means) ** 2).sum(-1)
        return jax.scipy.special.logsumexp(log_weights - 0.5 * square / VARIANCE)

    return log_density


def blackjax_run(step, init, n, n_steps):
    """A jitted scan over steps of vmapped chains, compiled."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(n, 2)), jnp.float32)

    @jax.jit
    def loop(key, x):
        def body(state, key):
            return jax.vmap(step)(jax.random.split(key, n), state), None

        state, _ = jax.lax.scan(body, jax.vmap(init)(x), jax.random.split(key, n_steps))
        return state

    run = loop.lower(jax.random.key(0), x).compile()
    return lambda: jax.block_until_ready(run(jax.random.key(0), x))


def torch_run(n, n_steps, h):
    """Plain torch with autograd."""
    log_density, x = torch_mixture(), torch.randn(n, 2)

    def run():
        y = x
        for _ in range(n_steps):
            y = y.detach().requires_grad_(True)
            (g,) = torch.autograd.grad(log_density(y).sum(), y)
            y = y + h * g + math.sqrt(2 * h) * torch.randn_like(y)

    return run


def seconds(function, repeats=3):
    """Least CPU time of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def arithmetic_floor(exponential):
    """Chain-steps per second if only products, exponentials and normals took time."""
    a, e = torch.randn(512, 512), torch.randn(1000, 150)
    z = torch.empty(2000)
    flops = 2 * 512**3 / seconds(lambda: torch.mm(a, a), 9)
    exponentials = e.numel() / seconds(lambda: exponential(e), 9)
    normals = z.numel() / seconds(lambda: z.normal_(), 9)
    return 1 / (2 * 2 * 150 * 2 / flops + 150 / exponentials + 2 / normals)


def throughput(n=10_000, n_steps=50, repeats=5):
    write("", "## Throughput", "")
    write(
        f"{n} chains, {n_steps} steps on the mixture of 150, thousands of chain-steps per CPU "
        f"second, one thread, medians of {repeats} rounds in which every implementation takes its "
        "turn; the ratio to blackjax is the median of the ratios within a round; the share is of "
        "what the products, exponentials and normals alone would allow in single precision on "
        "this machine at this moment, with exponentials as `torch.exp` and as powers of two, "
        "`torch.exp2`, which the closed form uses."
    )
    log_density = jax_mixture()
    sgld = blackjax.sgld(lambda x, batch: jax.grad(log_density)(x))
    mala = blackjax.mala(log_density, 0.33)
    runs = {}
    for method, h in (("ula", 0.02), ("mala", 0.33)):
        for dtype in ("float32", "float64"):
            sampler = LangevinSampler(
                MIXTURE, method=method, step_size=h, n_steps=n_steps, dtype=dtype, random_state=0
            )
            quietly(sampler)
            name = f"skdiffusion, {dtype}{' (default)' if dtype == 'float32' else ''}"
            runs[method, name] = lambda f=sampler: f.sample(n)
    runs["ula", "blackjax, float32"] = blackjax_run(
        lambda k, x: sgld.step(k, x, None, 0.02), lambda x: x, n, n_steps
    )
    runs["mala", "blackjax, float32"] = blackjax_run(
        lambda k, s: mala.step(k, s)[0], mala.init, n, n_steps
    )
    runs["ula", "plain torch with autograd, float32"] = torch_run(n, n_steps, 0.02)
    rounds, floors = [], []
    for _ in range(repeats):
        rounds.append({key: seconds(run, 1) for key, run in runs.items()})
        floors.append([arithmetic_floor(exponential) for exponential in (torch.exp, torch.exp2)])
    table(
        "kernel",
        "implementation",
        "10³ chain-steps / CPU s",
        "x blackjax",
        "share of the floor, exp",
        "share of the floor, exp2",
    )
    for method, name in sorted(runs, key=lambda key: (key[0], rounds[0][key])):
        rates = np.array([n * n_steps / r[method, name] for r in rounds])
        ratios = [r[method, "blackjax, float32"] / r[method, name] for r in rounds]
        shares_of_floors = np.median(rates[:, None] / np.array(floors), axis=0)
        row(
            method,
            name,
            f"{np.median(rates) / 1e3:.0f}",
            f"{np.median(ratios):.2f}",
            *(f"{share:.2f}" for share in shares_of_floors),
        )
    small, large = (peak_memory(k) for k in (10_000, 1_000_000))
    write("")
    write(
        f"Peak memory of a process that draws 10⁴ chains, five steps each: {small:.0f} MB; a "
        f"million: {large:.0f} MB. Starts, keys and draws of a million are "
        f"{3 * 16 * 1e6 / 2**20:.0f} MB, and one matrix of all responsibilities would be "
        f"{1e6 * 150 * 4 / 2**20:.0f} MB."
    )


MEMORY = """
import re, sys, warnings
warnings.simplefilter("ignore")
from skdiffusion.datasets import make_gaussian_mixture
from skdiffusion import LangevinSampler
mixture = make_gaussian_mixture(150, random_state=0)
sampler = LangevinSampler(mixture, method="ula", step_size=0.02, n_steps=5, random_state=0)
sampler.fit().sample(int(sys.argv[1]))
# The resource module would count the peak of the parent process, too.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


def peak_memory(n):
    """Peak memory in MB of a process of its own."""
    command = [sys.executable, "-c", MEMORY, str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# ------------------------------------------------------------------ hard targets

CONDITION = np.geomspace(1e-2, 1e2, 100)
N_WARM = {"hmc": 100, "tempered": 500, "mala": 1000}
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


def ours(log_density, d, n_chains, n_draws, seed, **parameters):
    """Draws (n_chains, n_draws, d), gradients a draw, what fit took and whether it warned."""
    calls = []

    def counted(x):
        calls.append(len(x))
        return log_density(x)

    sampler = LangevinSampler(
        counted,
        n_features=d,
        n_chains=n_chains,
        dtype="float32",
        random_state=seed,
        **parameters,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sampler.fit()
    warned = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    calls.clear()
    x = sampler.sample(n_chains * n_draws)
    gradients = sum(calls) / n_chains / (N_WARM[sampler.method_] + n_draws)
    note = f"{sampler.method_}, warned" if warned else sampler.method_
    return x.reshape(n_draws, n_chains, d).transpose(1, 0, 2), gradients, note


def blackjax_mala(log_density, d, n_chains, n_draws, seed, n_warm=1000):
    """MALA of blackjax with one step size, adapted to the acceptance 0.574 beforehand."""
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(n_chains, d)), jnp.float32)
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

    return np.asarray(loop(jax.random.key(seed), x)).transpose(1, 0, 2), 1, None


def blackjax_nuts(log_density, d, n_chains, n_draws, seed, n_warm=1000):
    """NUTS of blackjax after window adaptation on the first chain."""
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(n_chains, d)), jnp.float32)
    warm = blackjax.window_adaptation(blackjax.nuts, log_density)
    (_, parameters), _ = warm.run(jax.random.key(100 + seed), x[0], num_steps=n_warm)
    nuts = blackjax.nuts(log_density, **parameters)

    @jax.jit
    def loop(key, x):
        def body(state, key):
            state, info = jax.vmap(nuts.step)(jax.random.split(key, n_chains), state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(body, jax.vmap(nuts.init)(x), jax.random.split(key, n_draws))[1]

    x, n_steps = loop(jax.random.key(seed), x)
    return np.asarray(x).transpose(1, 0, 2), float(n_steps.mean()), None


def hard(n_chains=32, n_draws=500, n_seeds=1):
    write("", "## Hard targets", "")
    write(
        f"{n_chains} chains from N(0, I), 1000 steps of warm-up (500 for tempering, 100 for "
        f"trajectories) after the trial runs of `fit` (NUTS: 1000 of window adaptation), {n_draws} "
        f"draws of each chain, float32; medians over {n_seeds} seed{'s' * (n_seeds > 1)}. Mean and "
        "sd of the hardest coordinate; smallest bulk effective sample size over the coordinates, "
        "per thousand gradients after warm-up, each temperature counted. It is void where the "
        "moments are wrong: the last column is what the sampler took and whether `fit` warned, "
        "seed by seed."
    )
    table("target", "sampler", "mean (truth)", "sd (truth)", "ESS / 1000 gradients", "took")
    samplers = {
        "skdiffusion, defaults": (0, {}),
        'skdiffusion, method="mala"': (0, {"method": "mala"}),
        "blackjax mala": (1, blackjax_mala),
        "blackjax nuts": (1, blackjax_nuts),
    }
    for name, d, in_torch, in_jax, k, mean, sd in hard_targets():
        for label, (peer, how) in samplers.items():
            results = []
            for seed in range(n_seeds):
                size = (d, n_chains, n_draws, seed)
                run = how(in_jax, *size) if peer else ours(in_torch, *size, **how)
                results.append(moments(run, k))
            middle = np.median([r[:3] for r in results], axis=0)
            row(
                name,
                label,
                f"{middle[0]:.2f} ({mean:g})",
                f"{middle[1]:.2f} ({sd:.3g})",
                f"{middle[2]:.2f}",
                "" if peer else "; ".join(r[3] for r in results),
            )


def moments(run, k):
    """Mean, standard deviation, effective sample size per thousand gradients, what it took."""
    x, gradients, took = run
    ess = np.min(effective_sample_size(x)) / (x.shape[0] * x.shape[1] * gradients) * 1000
    return x[:, :, k].mean(), x[:, :, k].std(), ess, took


def sections(text):
    """Heading and text of the sections of a report."""
    parts = text.split("\n## ")
    return {part.split("\n")[0]: part for part in parts[1:]}


def main(names):
    """Run the sections named, all by default, and keep the others of the last report."""
    known = {"throughput": throughput, "modes": modes, "hard": hard}
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
        # Read now: a run of another section may have written in the meantime.
        kept = sections(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        kept |= sections("\n".join(lines) + "\n")
        RESULTS.parent.mkdir(exist_ok=True)
        body = "\n## ".join(["# LangevinSampler: measurements\n", *kept.values()])
        RESULTS.write_text(body, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
