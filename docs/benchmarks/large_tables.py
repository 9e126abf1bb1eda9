"""Held-out log-likelihood on tables of thousands of rows, and on sharp functions of known entropy.

Simulated tables have 10 000 rows to learn from and 5000 to be tested on, and their exact negative
log-likelihood is known: columns are uniform, and the last one is a function of the others with
normal noise. ``--data`` is a folder of tables ``<name>.csv.gz`` without a header; they are split
70/30, values on grids are spread uniformly over the width of the grid, for all methods alike, and
columns are standardised by their training rows. Without it only simulated tables are run.

Peers are scikit-learn's kernel estimate (bandwidth by cross-validation) and Gaussian mixture (size
and shape by BIC), and zuko's neural spline flow (5 transforms of 128 x 128, stopped early, the
seconds of ``--flow-seconds`` at most), which is skipped where zuko is not installed. Every result
is one line of JSON, on standard output and added to ``docs/benchmarks/results/large_tables.jsonl``:
negative log-likelihood in nats a row with its standard error over test rows, and CPU-seconds to fit
and to score the first 5000 test rows. From all lines, the last of each table, seed and method, the
script writes ``docs/benchmarks/results/large_tables.md``. ``--methods`` selects some of them.

    python docs/benchmarks/large_tables.py [--data FOLDER] [--seeds 1] [--methods ...] [table ...]
"""

import argparse
import importlib.util
import os
import platform
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from density import MixtureByBIC, NeuralSplineFlow, Scaled, dequantise, kernel_density
from records import keep_record, read_records

from skdiffusion import ScoreSDE

RESULTS = Path(__file__).parent / "results" / "large_tables.jsonl"
TABLES = ("pumadyn32nm", "parkinsons", "sml", "skillcraft")
N_TRAIN, N_TEST = 10_000, 5000
LABELS = (
    *("ScoreSDE", "chain alone", "mixture alone"),
    *("KernelDensity", "GaussianMixture", "NSF (zuko)"),
)
ON_MAPS = {None: "", "histogram": " on scores", "copula": " as copula"}


def smooth(u):
    """A function of eight columns, smooth and with products of them."""
    value = np.sin(2 * np.pi * u[:, 0] * u[:, 1]) + 4 * (u[:, 2] - 0.5) ** 2
    return value + u[:, 3] * u[:, 4] + np.cos(3 * u[:, 5]) + u[:, 6] * np.exp(-u[:, 7])


def linear(u):
    """A weighted sum of eight columns."""
    return u @ np.arange(1.0, 9.0) / 8


def kinked(u):
    """Corners and a step, in three of eight columns."""
    return np.abs(u[:, 0] - u[:, 1]) + (u[:, 2] > 0.5) + u[:, 3] * u[:, 4]


# Function and standard deviation of the noise.
FUNCTIONS = {
    "smooth .05": (smooth, 0.05),
    "smooth .2": (smooth, 0.2),
    "linear .02": (linear, 0.02),
    "kinked .05": (kinked, 0.05),
}


def simulated(name, n, rng):
    """Draw rows of a sharp function."""
    function, noise = FUNCTIONS[name]
    u = rng.random((n, 8))
    return np.column_stack([u, function(u) + noise * rng.normal(size=n)])


def rows(name, seed, folder):
    """Training and test rows, and what the best of all methods would have in the units of both."""
    rng = np.random.default_rng(seed)
    if name in FUNCTIONS:
        train, test = (simulated(name, n, rng) for n in (N_TRAIN, N_TEST))
        scale = train.std(0)
        noise = FUNCTIONS[name][1]
        truth = 0.5 * np.log(2 * np.pi * np.e * noise**2) - np.log(scale).sum()
    else:
        table = np.loadtxt(Path(folder) / f"{name}.csv.gz", delimiter=",")
        table = dequantise(table, np.random.default_rng(7))[rng.permutation(len(table))]
        n, truth = int(0.7 * len(table)), None
        train, test = table[:n], table[n:]
        varies = train.std(0) > 0
        train, test, scale = train[:, varies], test[:, varies], train.std(0)[varies]
    mean = train.mean(0)
    return (train - mean) / scale, (test - mean) / scale, truth


class LargeFlow(NeuralSplineFlow):
    """zuko's NSF as its authors would size it for ten thousand rows."""

    def __init__(self, name, seed, seconds):
        super().__init__(name, seed)
        self.seconds = seconds

    def fit(self, X):
        import zuko

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.flow = zuko.flows.NSF(X.shape[1], bins=8, transforms=5, hidden_features=(128, 128))
            self._train(torch.as_tensor(X, dtype=torch.float32), 300, 15, 256, 1e-4, self.seconds)
        return self


def methods(name, seed, flow_seconds):
    """Return what makes the estimators to compare, by name."""
    compared = {
        "ScoreSDE": lambda: ScoreSDE(random_state=seed),
        "chain alone": lambda: ScoreSDE(base="chain", max_iter=0, random_state=seed),
        "mixture alone": lambda: ScoreSDE(base="mixture", max_iter=0, random_state=seed),
        "KernelDensity": lambda: kernel_density(name, seed),
        "GaussianMixture": lambda: Scaled(MixtureByBIC(name, seed)),
    }
    if importlib.util.find_spec("zuko"):
        compared["NSF (zuko)"] = lambda: Scaled(LargeFlow(name, seed, flow_seconds))
    return compared


def run(name, seed, options):
    """Fit and test the methods on one table; print a line each."""
    train, test, truth = rows(name, seed, options.data)
    test = test[:N_TEST]
    for label, make in methods(name, seed, options.flow_seconds).items():
        if options.methods and label not in options.methods:
            continue
        begin = time.process_time()
        model = make().fit(train)
        fitted = time.process_time()
        values = -model.score_samples(test)
        result = {
            "table": name,
            "seed": seed,
            "model": label,
            "nll": round(float(values.mean()), 4),
            "standard_error": round(float(values.std() / len(values) ** 0.5), 4),
            "truth": None if truth is None else round(float(truth), 4),
            "fit_cpu_seconds": round(fitted - begin, 1),
            "score_cpu_seconds": round(time.process_time() - fitted, 1),
            "rows": [len(train), len(test), train.shape[1]],
        }
        if hasattr(model, "marginals_"):
            result["kept"] = model.base_ + ON_MAPS[model.marginals_]
        keep_record(result, RESULTS)


def write_table():
    """Write the table of all results."""
    records = {(r["table"], r["seed"], r["model"]): r for r in read_records(RESULTS)}
    labels = [label for label in LABELS if any(key[2] == label for key in records)]
    body = []
    for name in (*FUNCTIONS, *TABLES):
        groups = {
            label: [r for (a, _, b), r in sorted(records.items()) if (a, b) == (name, label)]
            for label in labels
        }
        groups = {label: group for label, group in groups.items() if group}
        if not groups:
            continue
        means = {label: np.mean([r["nll"] for r in group]) for label, group in groups.items()}
        best = min(means, key=means.get)
        first = next(iter(groups.values()))[0]
        truth = "" if first["truth"] is None else f"{first['truth']:.2f}"
        kept = ", ".join(dict.fromkeys(r["kept"] for r in groups.get("ScoreSDE", [])))
        n_train, n_test, d = first["rows"]
        cells = [cell(groups.get(label), label == best) for label in labels]
        shape = f"{name} ({d}), {n_train} / {n_test}, {len(next(iter(groups.values())))}"
        body.append(f"| {shape} | {truth} | " + " | ".join(cells) + f" | {kept} |")
    head = ["table (columns), rows to fit / test, seeds", "truth", *labels, "ScoreSDE kept"]
    text = [
        "# Densities of larger tables",
        "",
        "Held-out negative log-likelihood in nats a row of standardised columns ± its standard "
        "error over test rows; in brackets CPU-seconds to fit + to score the test rows. Lower is "
        "better, the best of a table is bold. The truth is known where the table is simulated: "
        "eight uniform columns and a function of them with normal noise of the standard deviation "
        "in its name. A dash is a method that was not run there. Other work kept the machine busy "
        "meanwhile. The settings of the chain were compared on the very test rows of smooth .05 "
        "and parkinsons, whose figures are therefore flattering; the other tables took no part.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *body,
        "",
        f"Written by `docs/benchmarks/large_tables.py` on {time.strftime('%Y-%m-%d')}: "
        f"{platform.machine()}, one thread, torch {torch.__version__}.",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")


def cell(group, bold):
    """Mean, standard error and seconds of one method on one table."""
    if not group:
        return "-"
    value = f"{np.mean([r['nll'] for r in group]):.2f}"
    error = np.linalg.norm([r["standard_error"] for r in group]) / len(group)
    fit, score = (np.mean([r[f"{k}_cpu_seconds"] for r in group]) for k in ("fit", "score"))
    return f"{f'**{value}**' if bold else value} ± {error:.2f} ({fit:.0f} + {score:.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=[*FUNCTIONS, *TABLES])
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--flow-seconds", type=float, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed in range(options.seeds):
        for name in options.tables:
            if name in FUNCTIONS or options.data is not None:
                run(name, seed, options)
    write_table()


if __name__ == "__main__":
    main()
