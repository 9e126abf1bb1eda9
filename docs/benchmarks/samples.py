"""Draws of density models beside held-out rows: how close, how real, how fast.

The ten sets, splits and dequantisation of ``density.py``. Every model draws sets of as many rows
as the test set has. Columns are standardised by the training rows, and each set of draws is
compared with the test rows by

* the sliced Wasserstein distance (200 directions, the same for all models), of twenty sets;
* C2ST, the accuracy of a gradient-boosting classifier that tells draws from test rows, five-fold
  cross-validation, at most 2000 rows of each: 0.5 is perfect; of the first five sets;
* copies, the share of draws whose nearest real row is a training row, among as many training as
  test rows: 0.5 for new rows, 1 for a model that repeats its training rows; of the first five.

The same of random training rows in place of draws is the floor (its copies are 1 by construction).
Seconds are CPU-seconds of one thread, to fit and to draw one such set.

ScoreSDE has its defaults. Gaussian mixture (BIC) and zuko's NSF are those of ``density.py``.
ForestDiffusion has its defaults, but for two sets of many columns, where fewer noise levels and
repetitions of the rows than its usual 50 and 100 let it finish within the hour. NSF and
ForestDiffusion are skipped where they are not installed.

Each result is appended to ``--out`` as a line of JSON; what the file has is not computed again.
The table goes to ``results/samples.md``.

    python docs/benchmarks/samples.py [--data FOLDER] [--seeds 1] [--out FILE] [set ...]
"""

import argparse
import importlib.util
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from density import TABLES, TOYS, MixtureByBIC, NeuralSplineFlow, Scaled, rows
from records import as_text, keep_record, read_records, versions
from scipy.stats import sem
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors

from skdiffusion import ScoreSDE
from skdiffusion.metrics import sliced_wasserstein

N_SETS_OF_DRAWS = 20
N_CLASSIFIED = 5  # The classifier is slow, and sure of its answer with fewer sets.
PACKAGES = ("scikit-learn", "numpy", "torch", "zuko", "ForestDiffusion")
FLOOR = "training rows (floor)"
LABELS = ("ScoreSDE", "GaussianMixture", "NSF (zuko)", "ForestDiffusion")
RESULTS = Path(__file__).parent / "results"
USUAL_FOREST = (50, 100)  # Noise levels and repetitions of the rows.
REDUCED_FOREST = {"cancer": (10, 5), "digits": (10, 5)}


class ScaledSampler(Scaled):
    """Standardise, and bring draws back."""

    def draw(self, n, seed):
        return self._draw(n, seed) * self.std + self.mean


class Mixture(ScaledSampler):
    def __init__(self, name, seed):
        super().__init__(MixtureByBIC(name, seed))

    def _draw(self, n, seed):
        draws = self.model.best.set_params(random_state=seed).sample(n)[0]
        # They come component by component, and the classifier may look at a part of them.
        return np.random.default_rng(seed).permutation(draws)


class Flow(ScaledSampler):
    def __init__(self, name, seed):
        super().__init__(NeuralSplineFlow(name, seed))

    def _draw(self, n, seed):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.model.flow().sample((n,)).double().numpy()


class Ours:
    def __init__(self, name, seed):
        self.model = ScoreSDE(random_state=seed)

    def fit(self, X):
        self.model.fit(X)
        self.kept = self.model.base_
        return self

    def draw(self, n, seed):
        return self.model.sample(n, random_state=seed)


class Forest:
    def __init__(self, name, seed):
        n_levels, n_copies = REDUCED_FOREST.get(name, USUAL_FOREST)
        self.settings = {"n_t": n_levels, "duplicate_K": n_copies}
        self.kept = f"n_t={n_levels}, duplicate_K={n_copies}"
        self.seed = seed

    def fit(self, X):
        from ForestDiffusion import ForestDiffusionModel

        self.model = ForestDiffusionModel(X.copy(), n_jobs=1, seed=self.seed, **self.settings)
        return self

    def draw(self, n, seed):
        np.random.seed(seed)  # noqa: NPY002  It draws from the global generator.
        return self.model.generate(batch_size=n)


def methods():
    """Return constructors of the compared models, by name."""
    compared = {"ScoreSDE": Ours, "GaussianMixture": Mixture}
    if importlib.util.find_spec("zuko"):
        compared["NSF (zuko)"] = Flow
    if importlib.util.find_spec("ForestDiffusion"):
        compared["ForestDiffusion"] = Forest
    return compared


def two_sample_accuracy(draws, test, n_most=2000):
    """Accuracy of a classifier that tells draws from test rows."""
    both = np.concatenate([draws[:n_most], test[:n_most]])
    label = np.repeat([0, 1], [min(n_most, len(draws)), min(n_most, len(test))])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    classifier = HistGradientBoostingClassifier(max_iter=60, random_state=0)
    return cross_val_score(classifier, both, label, cv=folds).mean()


def share_of_copies(draws, train, test):
    """Share of draws that are nearer to a training row than to any test row."""
    train = train[np.random.default_rng(0).permutation(len(train))[: len(test)]]
    to_train, to_test = (
        NearestNeighbors(n_neighbors=1).fit(real).kneighbors(draws)[0] for real in (train, test)
    )
    return np.mean(to_train < to_test)


def compare(draws, train, test):
    """Scores of sets of draws, in standard deviations of the training rows."""
    mean, std = train.mean(0), train.std(0) + 1e-8
    train, test = (train - mean) / std, (test - mean) / std
    draws = [(part - mean) / std for part in draws]
    few = draws[:N_CLASSIFIED]
    scores = {
        "sliced_wasserstein": [sliced_wasserstein(x, test, n_projections=200) for x in draws],
        "c2st": [two_sample_accuracy(x, test) for x in few],
        "copies": [share_of_copies(x, train, test) for x in few],
    }
    return {name: [round(float(v), 4) for v in values] for name, values in scores.items()}


def floor(train, test):
    """Sets of random training rows, scored as if they were draws."""
    rng = np.random.default_rng(0)
    parts = [train[rng.permutation(len(train))[: len(test)]] for _ in range(N_SETS_OF_DRAWS)]
    return compare(parts, train, test)


def run(name, seed, method, folder):
    """Fit, draw and compare one model on one set."""
    train, test = rows(name, seed, folder)
    result = {"set": name, "seed": seed, "model": method}
    if method == FLOOR:
        return result | floor(train, test)
    begin = time.process_time()
    model = methods()[method](name, seed).fit(train)
    fitted = time.process_time()
    draws = [model.draw(len(test), 100 + i) for i in range(N_SETS_OF_DRAWS)]
    result["fit_cpu_seconds"] = round(fitted - begin, 2)
    result["draw_cpu_seconds"] = round((time.process_time() - fitted) / N_SETS_OF_DRAWS, 3)
    if hasattr(model, "kept"):
        result["kept"] = model.kept
    return result | compare(draws, train, test)


# ------------------------------------------------------------------ page


def of(records, name, method):
    return [r for r in records if r["set"] == name and r["model"] == method]


def distances(records, name, labels, key):
    """Floor by seed, and score above it with the standard error over draws, by model and seed."""
    floors = {r["seed"]: np.mean(r[key]) for r in of(records, name, FLOOR)}
    above = {
        model: {
            # A distance below the floor of its seed is chance, not merit.
            r["seed"]: (max(np.mean(r[key]) - floors[r["seed"]], 0.0), sem(r[key]))
            for r in of(records, name, model)
        }
        for model in labels
    }
    return floors, above


def beats(one, other):
    """Whether a model is closer than another by more than one standard error.

    The difference is taken on the seeds that both have; its error is that between seeds, or that
    between sets of draws where there is one seed only.
    """
    seeds = one.keys() & other.keys()
    if not seeds:
        return False
    gains = [other[s][0] - one[s][0] for s in seeds]
    errors = [np.hypot(one[s][1], other[s][1]) for s in seeds]
    return np.mean(gains) > (sem(gains) if len(gains) > 1 else errors[0])


def quality_table(records, names, labels, key):
    """One row a set, one column a model, and how often each is closest."""
    lines = ["| set | " + " | ".join([FLOOR, *labels]) + " |", "|---" * (len(labels) + 2) + "|"]
    alone, shared = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    for name in names:
        floors, above = distances(records, name, labels, key)
        run = [m for m in labels if above[m]]
        closest = [m for m in run if not any(beats(above[k], above[m]) for k in run if k != m)]
        for model in closest:
            (alone if len(closest) == 1 else shared)[model] += 1
        cells = [quality(of(records, name, m), key, floors, m in closest) for m in labels]
        lines.append(f"| {name} | {np.mean(list(floors.values())):.3f} | {' | '.join(cells)} |")
    counts = [f"{alone[m]} alone, {shared[m]} shared" for m in labels]
    return [*lines, f"| closest on | | {' | '.join(counts)} |"]


def quality(group, key, floors, bold):
    """Mean over the seeds of one model on one set."""
    if not group:
        return "-"
    text = f"{np.mean([np.mean(r[key]) for r in group]):.3f}"
    text = f"**{text}**" if bold else text
    seeds = [str(r["seed"]) for r in group]
    return text if len(group) == len(floors) else f"{text} (seed {', '.join(seeds)})"


def plain_table(records, names, labels, text):
    """One row a set, one column a model, text of the records of each."""
    lines = ["| set | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
    for name in names:
        groups = [of(records, name, m) for m in labels]
        cells = [text(group) if group else "-" for group in groups]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def seconds(records):
    """Fit and draw."""
    fit = np.median([r["fit_cpu_seconds"] for r in records])
    draw = np.median([r["draw_cpu_seconds"] for r in records])
    return f"{fit:.1f} + {draw:.2f}"


def speed_ratios(records, names):
    """How many times faster than ForestDiffusion."""
    total = lambda name, model: np.median(  # noqa: E731
        [r["fit_cpu_seconds"] + r["draw_cpu_seconds"] for r in of(records, name, model)]
    )
    both = [n for n in names if of(records, n, "ForestDiffusion") and of(records, n, "ScoreSDE")]
    return {name: total(name, "ForestDiffusion") / total(name, "ScoreSDE") for name in both}


def page(records):
    """Markdown of everything measured."""
    names = [n for n in (*TOYS, *TABLES) if of(records, n, FLOOR)]
    labels = [m for m in LABELS if any(of(records, n, m) for n in names)]
    lines = ["# Draws: how close to held-out rows", "", *intro(records, names)]
    for title, key in (
        ("Sliced Wasserstein distance", "sliced_wasserstein"),
        ("Accuracy of a classifier (C2ST)", "c2st"),
    ):
        lines += ["", f"## {title}", "", *quality_table(records, names, labels, key)]
    copies = lambda group: f"{np.mean([r['copies'] for r in group]):.2f}"  # noqa: E731
    lines += ["", "## Copies", "", *plain_table(records, names, labels, copies)]
    lines += ["", "## CPU-seconds, fit + draw", "", *plain_table(records, names, labels, seconds)]
    ratios = speed_ratios(records, names)
    if ratios:
        text = ", ".join(f"{name} {ratio:.0f}" for name, ratio in ratios.items())
        lines += ["", f"ForestDiffusion takes this many times the seconds of ScoreSDE: {text}."]
    kept = lambda group: ", ".join(r.get("kept", "-") for r in group)  # noqa: E731
    shown = [m for m in labels if m in ("ScoreSDE", "ForestDiffusion")]
    lines += ["", "## What ScoreSDE kept, settings of ForestDiffusion", ""]
    return "\n".join([*lines, *plain_table(records, names, shown, kept), ""])


def intro(records, names):
    """What the page shows."""
    seeds = {name: [str(r["seed"]) for r in of(records, name, FLOOR)] for name in names}
    return [
        "Seeds: " + "; ".join(f"{name} {', '.join(found)}" for name, found in seeds.items()) + ".",
        f"Sets of draws of each fit, as large as the test set: {N_SETS_OF_DRAWS} for the sliced",
        f"Wasserstein distance, {N_CLASSIFIED} for the rest; means over sets and seeds. Smaller is",
        "better. The floor is what random training rows score in place of draws. Bold is closest",
        "to it: no other model is closer by more than one standard error of the difference, on the",
        "seeds that both have (error between seeds; between sets of draws where they share one",
        "seed). All at or below the floor count as equal. Copies: the share of draws that are",
        "nearer to a training row than to any of as many test rows; 0.5 is right, 1 is a model",
        "that repeats its training rows. CPU-seconds of one thread, medians over seeds. Where",
        "ForestDiffusion has fewer noise levels or repetitions than its usual n_t=50,",
        "duplicate_K=100, its times are no comparison at equal quality: they grow with both. A",
        "cell with a dash has not been run.",
        "",
        f"Made by `docs/benchmarks/samples.py` with {as_text(versions(*PACKAGES))}.",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=[*TOYS, *TABLES])
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=[FLOOR, *methods()])
    parser.add_argument("--out", type=Path, default=RESULTS / "samples.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    done = {(r["set"], r["seed"], r["model"]) for r in read_records(options.out)}
    for seed in range(options.seeds):
        for name in options.sets:
            if name in ("power-plant", "energy", "concrete") and options.data is None:
                continue
            for method in options.models:
                if (name, seed, method) in done:
                    continue
                record = run(name, seed, method, options.data)
                keep_record(record, options.out)
    (RESULTS / "samples.md").write_text(page(read_records(options.out)))


if __name__ == "__main__":
    main()
