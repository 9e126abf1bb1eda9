"""Held-out log-likelihood of density estimators on the same data, splits and seeds.

Two-dimensional toys have 5000 rows to learn from and 5000 to be tested on; tables are split 70/30
and standardised by their training rows. Tables with repeated values (power plant, energy, concrete
and digits) are dequantised, for all methods alike, by uniform noise as wide as the grid of each
column. ``--data`` is a folder with ``power-plant.npz``, ``energy.npz`` and ``concrete.npz``, arrays
``data``, ``index_features`` and ``index_target`` each; without it those tables are skipped.

Kernel density (bandwidth by five-fold cross-validation) and Gaussian mixture (size and shape by
BIC) are scikit-learn's, the neural spline flow is zuko's and is skipped where that is not
installed. Every result is one line of JSON, on standard output and added to
``docs/benchmarks/results/density.jsonl``: negative log-likelihood in nats a row with its standard
error over test rows, and CPU-seconds to fit and to score. From all lines of that file, the last of
each set, seed and model, the script writes ``docs/benchmarks/results/density.md``. ``--ablate``
runs ScoreSDE with parts taken away, instead of the comparison; ``--methods`` selects some.

    python docs/benchmarks/density.py [--data FOLDER] [--seeds 3] [--ablate] [--methods ...] [set]
"""

import argparse
import copy
import importlib.util
import os
import platform
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from records import keep_record, read_records
from sklearn import datasets
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.neighbors import KernelDensity

from skdiffusion import ScoreSDE

LABELS = ("ScoreSDE", "KernelDensity", "GaussianMixture", "NSF (zuko)")
RESULTS = Path(__file__).parent / "results" / "density.jsonl"
ON_MAPS = {None: "", "histogram": " on scores", "copula": " as copula"}
TOYS = ("moons", "checkerboard", "gaussians", "swiss-roll")
TABLES = ("wine", "cancer", "power-plant", "digits", "energy", "concrete")


def toy(name, n, rng):
    """Draw n rows of a two-dimensional toy."""
    if name == "moons":
        return datasets.make_moons(n, noise=0.05, random_state=int(rng.integers(2**31)))[0]
    if name == "checkerboard":
        first = rng.random(n) * 4 - 2
        second = rng.random(n) - rng.integers(0, 2, n) * 2 + np.floor(first) % 2
        return np.column_stack([first, second]) * 2
    if name == "gaussians":
        angle = rng.integers(0, 8, n) * np.pi / 4
        centre = 4 * np.column_stack([np.cos(angle), np.sin(angle)])
        return (centre + 0.5 * rng.standard_normal((n, 2))) / 1.414
    angle = 1.5 * np.pi * (1 + 2 * rng.random(n))
    roll = np.column_stack([angle * np.cos(angle), angle * np.sin(angle)])
    return (roll + rng.standard_normal((n, 2))) / 5


def dequantise(X, rng):
    """Add noise as wide as the usual gap between the values of each column that has ties."""
    X = X.copy()
    for column in X.T:
        values = np.unique(column)
        if len(values) <= len(column) / 2 and len(values) > 1:
            column += np.median(np.diff(values)) * rng.random(len(column))
    return X


def table(name, folder):
    """Load a table, dequantised."""
    rng = np.random.default_rng(7)
    if name == "digits":
        return datasets.load_digits().data + rng.random((1797, 64))
    if name == "wine":
        return datasets.load_wine().data
    if name == "cancer":
        return datasets.load_breast_cancer().data
    arrays = np.load(Path(folder) / f"{name}.npz", allow_pickle=True)
    columns = [*arrays["index_features"], arrays["index_target"][0]]
    return dequantise(arrays["data"][:, columns].astype(float), rng)


def rows(name, seed, folder):
    """Training and test rows of one seed; seed 0 of a table is the split of earlier studies."""
    if name in TOYS:
        rng = np.random.default_rng(1234 + TOYS.index(name) + 1000 * seed)
        return toy(name, 5000, rng), toy(name, 5000, rng)
    train, test = train_test_split(table(name, folder), test_size=0.3, random_state=seed)
    mean, std = train.mean(0), train.std(0) + 1e-8
    if name == "digits":
        return train, test
    return (train - mean) / std, (test - mean) / std


class Scaled:
    """Standardise, and add the log-determinant to what a model says."""

    def __init__(self, model):
        self.model = model

    def fit(self, X):
        self.mean, self.std = X.mean(0), X.std(0) + 1e-8
        self.model.fit((X - self.mean) / self.std)
        return self

    def score_samples(self, X):
        return self.model.score_samples((X - self.mean) / self.std) - np.log(self.std).sum()


def kernel_density(name, seed):
    """Return a kernel estimate whose bandwidth is chosen by cross-validation."""
    grid = np.logspace(-1.7, 0.0, 12) if name in TOYS else np.logspace(-1.3, 0.5, 20)
    folds = KFold(5, shuffle=True, random_state=seed)
    return Scaled(GridSearchCV(KernelDensity(), {"bandwidth": grid}, cv=folds))


class MixtureByBIC:
    """Gaussian mixture whose size and shape have the best BIC."""

    def __init__(self, name, seed):
        toys = name in TOYS
        self.sizes = (1, 2, 4, 8, 12, 16, 24, 32, 48) if toys else (1, 2, 3, 4, 6, 8, 12, 16)
        self.types = ("full",) if toys else ("full", "diag")
        self.ridge, self.seed = (1e-6 if toys else 1e-3), seed

    def fit(self, X):
        models = [
            GaussianMixture(
                size,
                covariance_type=kind,
                reg_covar=self.ridge,
                random_state=self.seed,
                max_iter=300,
            ).fit(X)
            for size in self.sizes
            for kind in self.types
            if size < len(X) / 3
        ]
        self.best = min(models, key=lambda model: model.bic(X))
        return self

    def score_samples(self, X):
        return self.best.score_samples(X)


class NeuralSplineFlow:
    """zuko's NSF, stopped early on a tenth of the rows, at most 45 CPU-seconds."""

    def __init__(self, name, seed):
        self.name, self.seed = name, seed

    def fit(self, X):
        import zuko

        toys, few = self.name in TOYS, len(X) < 600
        width = (64, 64) if toys or few else (128, 128)
        n_transforms = 3 if toys or not few else 2
        epochs, patience, batch, decay = (200, 15, 256, 1e-5) if toys else (300, 20, 128, 1e-3)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.flow = zuko.flows.NSF(
                X.shape[1], bins=8, transforms=n_transforms, hidden_features=width
            )
            self._train(torch.as_tensor(X, dtype=torch.float32), epochs, patience, batch, decay)
        return self

    def _train(self, X, epochs, patience, batch, decay, seconds=45):
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(X)))
        n_held_out = max(len(X) // 10, 10)
        held_out, rows = X[order[:n_held_out]], X[order[n_held_out:]]
        optimizer = torch.optim.AdamW(self.flow.parameters(), lr=2e-3, weight_decay=decay)
        best, n_worse, state, begin = np.inf, 0, None, time.process_time()
        for _ in range(epochs):
            for index in torch.randperm(len(rows)).split(batch):
                loss = -self.flow().log_prob(rows[index]).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.flow.parameters(), 5.0)
                optimizer.step()
            with torch.no_grad():
                value = -float(self.flow().log_prob(held_out).mean())
            n_worse += 1
            if value < best - 1e-4:
                best, n_worse, state = value, 0, copy.deepcopy(self.flow.state_dict())
            if n_worse >= patience or time.process_time() - begin > seconds:
                break
        self.flow.load_state_dict(state)

    def score_samples(self, X):
        with torch.no_grad():
            return self.flow().log_prob(torch.as_tensor(X, dtype=torch.float32)).double().numpy()


def models(name, seed):
    """Return the estimators to compare, by name."""
    compared = {
        "ScoreSDE": ScoreSDE(random_state=seed),
        "KernelDensity": kernel_density(name, seed),
        "GaussianMixture": Scaled(MixtureByBIC(name, seed)),
    }
    if importlib.util.find_spec("zuko"):
        compared["NSF (zuko)"] = Scaled(NeuralSplineFlow(name, seed))
    return compared


def ablations(name, seed):
    """Return ScoreSDE with parts taken away, by name."""
    return {
        "no network": ScoreSDE(max_iter=0, random_state=seed),
        "no network, columns as they are": ScoreSDE(max_iter=0, marginals=None, random_state=seed),
    }


def run(name, seed, folder, compared, labels=None):
    """Fit and test the models, or some of them, on one set; print a line each."""
    train, test = rows(name, seed, folder)
    for label, model in compared(name, seed).items():
        if labels and label not in labels:
            continue
        begin = time.process_time()
        model.fit(train)
        seconds = time.process_time() - begin
        begin = time.process_time()
        values = -model.score_samples(test)
        score_seconds = time.process_time() - begin
        result = {
            "set": name,
            "seed": seed,
            "model": label,
            "nll": round(float(values.mean()), 4),
            "standard_error": round(float(values.std() / len(values) ** 0.5), 4),
            "fit_cpu_seconds": round(seconds, 1),
            "score_cpu_seconds": round(score_seconds, 1),
            "rows": [len(train), len(test), train.shape[1]],
        }
        if hasattr(model, "marginals_"):
            result["kept"] = model.base_ + ON_MAPS[model.marginals_]
        keep_record(result, RESULTS)


def write_table():
    """Write the table of all results."""
    records = {(r["set"], r["seed"], r["model"]): r for r in read_records(RESULTS)}
    ours = {(name, seed) for name, seed, label in records if label == "ScoreSDE"}
    records = {key: line for key, line in records.items() if key[:2] in ours}
    labels = [label for label in LABELS if any(key[2] == label for key in records)]
    body, verdicts = [], []
    for name in (*TOYS, *TABLES):
        groups = {
            label: [line for (a, _, b), line in sorted(records.items()) if (a, b) == (name, label)]
            for label in labels
        }
        if not groups["ScoreSDE"]:
            continue
        means = {label: mean(group, "nll") for label, group in groups.items() if group}
        verdicts.append(verdict(groups, means))
        best = min(means, key=means.get)
        cells = [
            "" if not group else cell(group, means[label], bold=label == best)
            for label, group in groups.items()
        ]
        n_train, n_test, d = groups["ScoreSDE"][0]["rows"]
        kept = ", ".join(dict.fromkeys(line["kept"] for line in groups["ScoreSDE"]))
        shape = f"{name} ({d}), {n_train} / {n_test}, {len(groups['ScoreSDE'])}"
        body.append(f"| {shape} | " + " | ".join([*cells, kept, verdicts[-1]]) + " |")
    total = {label: sum(line["fit_cpu_seconds"] for line in records.values()
             if line["model"] == label) for label in labels}  # fmt: skip
    count = {
        word: sum(v.startswith(word) for v in verdicts) for word in ("best", "within", "worse")
    }
    head = ["set (columns), rows to fit / test, seeds", *labels, "kept", "ScoreSDE is"]
    text = [
        "# Density estimation: held-out negative log-likelihood",
        "",
        "Nats a row, mean over seeds ± its standard error over test rows; in brackets "
        "CPU-seconds to fit, mean over seeds. Lower is better, the best of a set is bold. Data, "
        'splits and dequantisation are the same for all methods. "Kept" is what held-out rows '
        'chose among mixture, kernel estimate and networks, "on scores" where the columns were '
        'mapped to normal scores first, "as copula" where the columns are those of the histograms '
        'and the mixture says how they hang together. "Within" means within one standard error '
        "of the best. "
        "Other work kept the machine busy meanwhile. "
        "The constants of histograms and stacking were compared on test rows of seeds 0 and 1; the "
        "rows of seed 2 were first scored after they were fixed.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *body,
        "",
        f"ScoreSDE, defaults: best on {count['best']} sets, within one standard error of the best "
        f"on {count['within']}, worse on {count['worse']}. CPU-seconds of all fits: "
        + ", ".join(f"{label} {seconds:.0f}" for label, seconds in total.items())
        + ".",
        "",
        f"Written by `docs/benchmarks/density.py` on {time.strftime('%Y-%m-%d')}: "
        f"{platform.machine()}, one thread, torch {torch.__version__}.",
    ]
    text += ablation_table(records)
    RESULTS.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")


def ablation_table(records):
    """Lines of the table of what each part gives."""
    labels = ["ScoreSDE", *ablations("moons", 0), "GaussianMixture"]
    found = {(name, seed) for name, seed, label in records if label == labels[1]}
    if not found:
        return []
    body = []
    for name in (*TOYS, *TABLES):
        seeds = [seed for a, seed in found if a == name]
        if seeds:
            groups = [[records[name, seed, label] for seed in seeds] for label in labels]
            cells = [f"{mean(g, 'nll'):.3f} ({mean(g, 'fit_cpu_seconds'):.1f})" for g in groups]
            body.append(f"| {name} | " + " | ".join(cells) + " |")
    return [
        "",
        "## What each part gives",
        "",
        "The same figures with parts of ScoreSDE taken away, "
        f'mean over {len({seed for _, seed in found})} seed(s). "Columns as they are" leaves the '
        "average of mixtures or the kernel estimate on standardised columns.",
        "",
        "| set | " + " | ".join(labels) + " |",
        "|" + "---|" * (len(labels) + 1),
        *body,
    ]


def mean(group, key):
    """Mean of a key over the seeds."""
    return float(np.mean([line[key] for line in group]))


def standard_error(group):
    """Standard error of the mean over the seeds, from the test rows."""
    return float(np.linalg.norm([line["standard_error"] for line in group]) / len(group))


def cell(group, value, bold):
    """Mean, standard error and seconds of one method on one set."""
    text = f"{value:.3f}"
    text = f"**{text}**" if bold else text
    return f"{text} ± {standard_error(group):.3f} ({mean(group, 'fit_cpu_seconds'):.1f})"


def verdict(groups, means):
    """How ScoreSDE stands to the best of the others."""
    other = min((label for label in means if label != "ScoreSDE"), key=means.get)
    if means["ScoreSDE"] < means[other]:
        return "best"
    error = max(standard_error(groups[label]) for label in ("ScoreSDE", other))
    return "within" if means["ScoreSDE"] <= means[other] + error else "worse"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=[*TOYS, *TABLES])
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--methods", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compared = ablations if options.ablate else models
    warnings.simplefilter("ignore")
    for seed in range(options.seeds):
        for name in options.sets:
            if name in ("power-plant", "energy", "concrete") and options.data is None:
                continue
            run(name, seed, options.data, compared, options.methods)
    write_table()


if __name__ == "__main__":
    main()
