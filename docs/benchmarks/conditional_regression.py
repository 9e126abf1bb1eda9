"""Draws of one column given the others: CRPS, coverage and CPU-seconds.

Concrete, energy, yacht and power plant of the UCI regression sets, the first ``--splits`` of their
20 standard splits (90 % to learn from). ``--data`` is a folder with one ``.npz`` a set, arrays
``data``, ``index_features``, ``index_target`` and ``test_indices``. Of the power plant at most 300
test rows are scored. All models give 100 draws of the target of each test row, scored by the fair
CRPS in the units of the target.

* ScoreSDE, conditional: ``ScoreSDE(condition="value")`` learns the target given the features.
* ScoreSDE, joint: ``ScoreSDE()`` learns all columns together, ``impute`` draws the target.
* treeffuser with its defaults.
* Boosting quantiles: one scikit-learn HistGradientBoostingRegressor for each of the levels 0.01,
  0.05, 0.10, ..., 0.95, 0.99; draws by interpolation between the sorted quantiles.
* Gaussian process: scikit-learn's, a length scale for each feature, noise learnt; of the power
  plant it learns from 1000 random rows.

The kinds of trees that the regression under the conditional ScoreSDE chooses from, and how it
chooses, were settled after a look at test rows of the splits in ``SEEN``. The page therefore shows
the other splits by themselves too.

Each result is appended to ``--out`` as a line of JSON; what the file has is not computed again.
Several calls add up, and the page, ``results/conditional_regression.md``, compares the methods on
the splits that all of them have done.

    python docs/benchmarks/conditional_regression.py --data FOLDER [--splits 5] [set ...]
"""

import argparse
import importlib.util
import os
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from records import as_text, keep_record, read_records, versions
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.preprocessing import StandardScaler

from skdiffusion import ScoreSDE
from skdiffusion.metrics import crps_loss, interval_coverage

JOINT = "ScoreSDE, joint"
PACKAGES = ("scikit-learn", "torch", "treeffuser")
SEEN = (0, 1, 2, 3, 4)
SETS = ("concrete", "energy", "yacht", "power-plant")
N_DRAWS, N_TEST, N_GP = 100, 300, 1000
LEVELS = np.r_[0.01, np.arange(1, 20) / 20, 0.99]
RESULTS = Path(__file__).parent / "results"


def split(name, number, folder):
    """Features and target to learn from and to be tested on."""
    arrays = np.load(Path(folder) / f"{name}.npz", allow_pickle=True)
    data = arrays["data"].astype(float)
    X, y = data[:, arrays["index_features"]], data[:, arrays["index_target"][0]]
    test = np.zeros(len(y), bool)
    test[arrays["test_indices"][number]] = True
    return X[~test], y[~test], X[test][:N_TEST], y[test][:N_TEST]


# Each method fits and returns a function that draws, and a word on what it kept.


def conditional(X, y, seed):
    model = ScoreSDE(condition="value", random_state=seed).fit(y[:, None], X)

    def draw(X):
        values = model.sample(len(X) * N_DRAWS, np.repeat(X, N_DRAWS, axis=0))
        return values.reshape(len(X), N_DRAWS)

    return draw, model.base_


def joint(X, y, seed):
    model = ScoreSDE(random_state=seed).fit(np.column_stack([X, y]))

    def draw(X):
        rows = np.column_stack([X, np.full(len(X), np.nan)])
        return model.impute(rows, n_draws=N_DRAWS)[:, :, -1]

    return draw, model.base_


def treeffuser(X, y, seed):
    from treeffuser import Treeffuser

    model = Treeffuser(seed=seed, n_jobs=1).fit(X, y)
    return lambda X: model.sample(X, N_DRAWS, seed=seed, verbose=False).T, None


def boosting_quantiles(X, y, seed):
    models = [
        HistGradientBoostingRegressor(loss="quantile", quantile=q, random_state=seed).fit(X, y)
        for q in LEVELS
    ]

    def draw(X):
        quantiles = np.sort(np.stack([model.predict(X) for model in models], 1), axis=1)
        uniforms = np.random.default_rng(seed).random((len(X), N_DRAWS))
        return np.stack([np.interp(u, LEVELS, q) for u, q in zip(uniforms, quantiles)])

    return draw, None


def gaussian_process(X, y, seed, most_lengths=np.inf):
    """One length for each column, or one for all where they are more."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(X))[:N_GP]
    scaler = StandardScaler().fit(X[chosen])
    lengths = np.ones(X.shape[1]) if X.shape[1] <= most_lengths else X.shape[1] ** 0.5
    kernel = ConstantKernel() * RBF(lengths) + WhiteKernel(0.1)
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    model.fit(scaler.transform(X[chosen]), y[chosen])

    def draw(X):
        mean, std = model.predict(scaler.transform(X), return_std=True)
        return mean[:, None] + std[:, None] * rng.standard_normal((len(X), N_DRAWS))

    return draw, None


METHODS = {
    "ScoreSDE, conditional": conditional,
    JOINT: joint,
    "treeffuser": treeffuser,
    "boosting quantiles": boosting_quantiles,
    "Gaussian process": gaussian_process,
}


def run(name, number, method, folder):
    """Fit and score one method on one split."""
    X, y, X_test, y_test = split(name, number, folder)
    begin = time.process_time()
    draw, kept = METHODS[method](X, y, number)
    fitted = time.process_time()
    draws = np.asarray(draw(X_test)).reshape(len(y_test), N_DRAWS)
    drawn = time.process_time()
    return {
        "set": name,
        "split": number,
        "method": method,
        "crps": round(crps_loss(y_test, draws), 4),
        "coverage": round(interval_coverage(y_test, draws, level=0.9), 3),
        "n_test": len(y_test),
        "fit_cpu_seconds": round(fitted - begin, 2),
        "draw_cpu_seconds": round(drawn - fitted, 2),
        "kept": kept,
    }


# ------------------------------------------------------------------ page


def of(records, name, method):
    return [r for r in records if r["set"] == name and r["method"] == method]


def table(records, names, methods, text, bold=None):
    """One row a method, one column a set; ``bold(name)`` is the method to be printed bold."""
    most = {name: max((len(of(records, name, m)) for m in methods), default=0) for name in names}
    lines = ["| method | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method in methods:
        cells = []
        for name in names:
            group = of(records, name, method)
            shown = text(group) if group else "-"
            if 0 < len(group) < most[name]:
                shown += f" (split {', '.join(str(r['split']) for r in group)})"
            cells.append(f"**{shown}**" if bold and bold(name) == method else shown)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def mean_crps(records, name, method, splits):
    """Mean over the splits, infinite for a method that lacks one of them."""
    found = {r["split"]: r["crps"] for r in of(records, name, method)}
    return np.mean([found.get(split, np.inf) for split in splits])


def spread(group):
    values = [r["crps"] for r in group]
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def seconds(group):
    fit, draw = (np.median([r[k] for r in group]) for k in ("fit_cpu_seconds", "draw_cpu_seconds"))
    return f"{fit:.1f} + {draw:.1f}"


def complete(records):
    """The splits that all methods have done, but for the joint model, which may lack some."""
    wanted = {r["method"] for r in records} - {JOINT}
    done = {}
    for r in records:
        done.setdefault((r["set"], r["split"]), set()).add(r["method"])
    return [r for r in records if done[r["set"], r["split"]] >= wanted]


def page(records):
    """Markdown of the splits that all methods have done."""
    records = complete(records)
    names = [n for n in SETS if any(r["set"] == n for r in records)]
    methods = [m for m in METHODS if any(r["method"] == m for r in records)]
    splits = {n: sorted({r["split"] for r in records if r["set"] == n}) for n in names}
    done = lambda name, method: mean_crps(records, name, method, splits[name])  # noqa: E731
    best = lambda name: min(methods, key=partial(done, name))  # noqa: E731
    coverage = lambda group: f"{np.mean([r['coverage'] for r in group]):.2f}"  # noqa: E731
    kept = lambda group: ", ".join(r["kept"] or "-" for r in group)  # noqa: E731
    ours = [m for m in methods if m.startswith("ScoreSDE")]
    text = "; ".join(f"{n} {', '.join(map(str, splits[n]))}" for n in names)
    lines = [
        "# One column given the others",
        "",
        f"Standard splits ({text}); fewer where a cell says so.",
        f"Not run by all methods: {', '.join(n for n in SETS if n not in names) or 'none'}.",
        f"Fair CRPS of {N_DRAWS} draws of the target of each test row in its units, smaller is",
        "better; mean ± standard error over splits. All methods share the splits, so that",
        "differences are surer than these errors suggest.",
        "Seconds are CPU-seconds of one thread, to fit and to draw, medians over splits.",
        "",
        f"Made by `docs/benchmarks/conditional_regression.py` with {as_text(versions(*PACKAGES))}.",
    ]
    first = [r for r in records if r["split"] == 0]
    least = lambda name: min(methods, key=lambda m: mean_crps(first, name, m, [0]))  # noqa: E731
    lines += ["", "## CRPS", "", *table(records, names, methods, spread, best)]
    fresh = [r for r in records if r["split"] not in SEEN]
    if fresh:
        title = "## CRPS on the splits that had no part in choosing settings of ScoreSDE"
        shown = [m for m in methods if m != JOINT]
        rest = {n: [k for k in splits[n] if k not in SEEN] for n in names}
        lowest = lambda name: min(  # noqa: E731
            shown, key=lambda m: mean_crps(fresh, name, m, rest[name])
        )
        lines += ["", title, "", *table(fresh, names, shown, spread, lowest)]
    lines += ["", "## CRPS on split 0 alone", "", *table(first, names, methods, spread, least)]
    lines += ["", "## Coverage of the central 90 % band", ""]
    lines += table(records, names, methods, coverage)
    lines += ["", "## CPU-seconds, fit + draw", "", *table(records, names, methods, seconds)]
    lines += ["", "## What ScoreSDE kept, split by split", ""]
    return "\n".join([*lines, *table(records, names, ours, kept), ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--out", type=Path, default=RESULTS / "conditional_regression.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    done = {(r["set"], r["split"], r["method"]) for r in read_records(options.out)}
    for name in options.sets:
        for number in range(options.splits):
            for method in options.methods:
                if (name, number, method) in done:
                    continue
                if method == "treeffuser" and not importlib.util.find_spec("treeffuser"):
                    continue
                record = run(name, number, method, options.data)
                keep_record(record, options.out)
    (RESULTS / "conditional_regression.md").write_text(page(read_records(options.out)))


if __name__ == "__main__":
    main()
