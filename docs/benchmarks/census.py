"""Draws of a table of a census, mixed columns and 30 000 rows, judged as the field does.

The table is simulated, by a law stated here: age, sex, education in order, one of eight kinds of
work, hours with a spike at 40, capital gains that are zero for most, a marital status and an income
class, with interactions. Draws are judged, against 10 000 rows that no method has seen, by

* column shapes: one minus the distance of distribution functions (numbers) or of shares (labels),
  mean over columns;
* pair trends: the same of shares in a table of two columns, numbers cut at their quintiles, mean
  over pairs;
* detection: area under the curve of gradient boosting that tells draws from unseen rows, on other
  rows than it learnt from; 0.5 is best;
* use: area under the curve of gradient boosting that learns the income from draws, on unseen rows;
* privacy: share of draws that are nearer to a training row than to any of as many unseen ones; 0.5
  is best.

Peers: rows the method has not seen ("other rows", what can be reached), every column by itself,
columns in turn by decision trees whose leaves are drawn from (as synthpop does), and CTGAN and TVAE
with the settings that they come with (``pip install ctgan``), left out where that is missing.

    python docs/benchmarks/census.py [--rows 30000] [--seeds 1] [method ...]
"""

import argparse
import os
import platform
import time
import warnings
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from records import keep_record, read_records
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.tree import DecisionTreeClassifier

from skdiffusion import ScoreSDE

RESULTS = Path(__file__).parent / "results" / "census.jsonl"
N_TEST, N_DRAWS, N_NEAR = 10_000, 10_000, 3000
SCHOOL = ["none", "school", "college", "bachelor", "master", "PhD"]
WORK = ["clerk", "craft", "exec", "farm", "prof", "sales", "service", "tech"]
PEERS = ("CTGAN", "TVAE")
MEASURES = ("shapes", "pairs", "detection", "use", "privacy")


def census(n, rng):
    """Draw the table by its law."""
    age = np.floor(17 + 63 * rng.beta(1.6, 2.6, n))
    female = rng.random(n) < 0.45
    z = rng.normal(size=n) + 0.01 * (age - 40)
    school = np.digitize(z, [-1.6, -0.3, 0.5, 1.2, 1.9])
    pull = np.array([0.3, 0.8, 0.1, -1, -1, 0.3, 0.5, -0.5])
    gain = np.array([0.1, -0.5, 0.9, -0.3, 1.4, 0.2, -0.5, 0.6])
    odds = pull + np.outer(school - 2, gain)
    odds[:, 1] += 1.5 * ~female
    odds[:, 0] += 1.2 * female
    work = (odds + rng.gumbel(size=odds.shape)).argmax(1)
    single = rng.random(n) < 1 / (1 + np.exp(0.15 * (age - 28)))
    apart = ~single & (rng.random(n) < 0.1 + 0.004 * (age - 17))
    status = np.where(single, 0, np.where(apart, 1, 2))
    hours = np.rint(np.clip(42 + 3 * (work == 2) - 6 * female + 9 * rng.normal(size=n), 5, 99))
    hours = np.where(rng.random(n) < 0.45, 40, hours)
    score = -4.2 + 0.55 * school + 0.045 * (np.minimum(age, 55) - 30) + 1.6 * (status == 2)
    score = score + 0.04 * (hours - 40) + 0.5 * np.isin(work, [2, 4]) - 0.3 * female
    rich = rng.random(n) < 1 / (1 + np.exp(-score))
    gains = np.where(
        rng.random(n) < 0.04 + 0.15 * rich, np.rint(np.exp(8 + rich + 0.6 * rng.normal(size=n))), 0
    )
    weight = np.exp(12 + 0.5 * rng.normal(size=n) - 0.005 * age)
    as_labels = pd.Categorical.from_codes
    return pd.DataFrame(
        {
            "age": age.astype(int),
            "weight": weight,
            "education": as_labels(school, SCHOOL, ordered=True),
            "work": as_labels(work, WORK),
            "status": as_labels(status, ["single", "apart", "married"]),
            "sex": as_labels(female.astype(int), ["male", "female"]),
            "gains": gains.astype(int),
            "hours": hours.astype(int),
            "income": as_labels(rich.astype(int), ["<=50K", ">50K"]),
        }
    )


def coded(frame):
    """Numbers and codes of a table."""
    return np.column_stack(
        [c.cat.codes if c.dtype == "category" else c for _, c in frame.items()]
    ).astype(float)


class OtherRows:
    """Rows of the law itself."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, frame):
        return self

    def sample(self, n):
        return census(n, np.random.default_rng(900 + self.seed))


class Independent(OtherRows):
    """Every column drawn by itself."""

    def fit(self, frame):
        self.frame = frame
        return self

    def sample(self, n):
        rng = np.random.default_rng(self.seed)
        drawn = {c: self.frame[c].to_numpy()[rng.integers(0, len(self.frame), n)]
                 for c in self.frame}  # fmt: skip
        return pd.DataFrame(drawn).astype(self.frame.dtypes)


class TreesInTurn(OtherRows):
    """Columns in turn: a decision tree finds a leaf, of whose training rows one is drawn."""

    def fit(self, frame):
        self.frame, X = frame, coded(frame)
        self.X, self.trees = X, []
        for j in range(1, X.shape[1]):
            tree = DecisionTreeClassifier(min_samples_leaf=20, random_state=self.seed)
            ranks = np.unique(np.quantile(X[:, j], np.linspace(0, 1, 21)))
            tree.fit(X[:, :j], np.searchsorted(ranks, X[:, j]))
            self.trees.append((tree, tree.apply(X[:, :j])))
        return self

    def sample(self, n):
        rng = np.random.default_rng(self.seed)
        rows = np.empty((n, self.X.shape[1]))
        rows[:, 0] = rng.choice(self.X[:, 0], n)
        for j, (tree, leaves) in enumerate(self.trees, 1):
            order = np.argsort(leaves, kind="stable")
            here = tree.apply(rows[:, :j])
            first = np.searchsorted(leaves[order], here)
            last = np.searchsorted(leaves[order], here, side="right")
            chosen = first + (rng.random(n) * (last - first)).astype(int)
            rows[:, j] = self.X[order[chosen], j]
        columns = {}
        for j, (name, c) in enumerate(self.frame.items()):
            if c.dtype == "category":
                columns[name] = pd.Categorical.from_codes(rows[:, j].astype(int), dtype=c.dtype)
            else:
                columns[name] = rows[:, j].astype(c.dtype)
        return pd.DataFrame(columns)


class Networks(OtherRows):
    """CTGAN or TVAE of the package ``ctgan``, which wants to be told what is a label."""

    def __init__(self, name, seed):
        import ctgan

        torch.manual_seed(seed)
        self.model = getattr(ctgan, name)(enable_gpu=False)

    def fit(self, frame):
        self.dtypes = frame.dtypes
        labels = [name for name, dtype in frame.dtypes.items() if dtype == "category"]
        self.model.fit(frame.astype(dict.fromkeys(labels, str)), labels)
        return self

    def sample(self, n):
        return self.model.sample(n).astype(self.dtypes)


METHODS = {
    "ScoreSDE": lambda seed: ScoreSDE(random_state=seed),
    "ScoreSDE, closed form": lambda seed: ScoreSDE(max_iter=0, random_state=seed),
    "trees in turn": TreesInTurn,
    "CTGAN": partial(Networks, "CTGAN"),
    "TVAE": partial(Networks, "TVAE"),
    "columns alone": Independent,
    "other rows": OtherRows,
}


def cells(frame, edges):
    """Columns as small integers: labels, and numbers cut at the quintiles of unseen rows."""
    X = coded(frame)
    return np.column_stack(
        [np.searchsorted(e, x, side="right") if e is not None else x for e, x in zip(edges, X.T)]
    ).astype(int)


def share_distance(a, b):
    """Total variation between the shares of integers."""
    n = max(a.max(), b.max()) + 1
    shares = [np.bincount(x, minlength=n) / len(x) for x in (a, b)]
    return 0.5 * np.abs(shares[0] - shares[1]).sum()


def judge(draws, train, unseen):
    """All measures of draws."""
    rng = np.random.default_rng(0)
    D, T, U = map(coded, (draws, train, unseen))
    labels = [c.dtype == "category" for _, c in unseen.items()]
    edges = [None if label else np.unique(np.quantile(u, [0.2, 0.4, 0.6, 0.8]))
             for label, u in zip(labels, U.T)]  # fmt: skip
    d, u = cells(draws, edges), cells(unseen, edges)
    shapes = [
        share_distance(d[:, j], u[:, j]) if label else ks_2samp(D[:, j], U[:, j]).statistic
        for j, label in enumerate(labels)
    ]
    pairs = [
        share_distance(d[:, i] * 10 + d[:, j], u[:, i] * 10 + u[:, j])
        for i, j in combinations(range(len(labels)), 2)
    ]
    both, kind = np.vstack([D, U]), np.repeat([1, 0], [len(D), len(U)])
    order = rng.permutation(len(both))
    learn, test = order[: len(order) // 2], order[len(order) // 2 :]
    detector = HistGradientBoostingClassifier(random_state=0).fit(both[learn], kind[learn])
    user = HistGradientBoostingClassifier(random_state=0).fit(D[:, :-1], D[:, -1])
    scale = U.std(0)
    near = [
        NearestNeighbors(n_neighbors=1).fit(rows[:N_NEAR] / scale).kneighbors(D[:N_NEAR] / scale)[0]
        for rows in (T, U)
    ]
    ties = (near[0] < near[1]).mean() + 0.5 * (near[0] == near[1]).mean()
    return {
        "shapes": 1 - float(np.mean(shapes)),
        "pairs": 1 - float(np.mean(pairs)),
        "detection": roc_auc_score(kind[test], detector.predict_proba(both[test])[:, 1]),
        "use": roc_auc_score(U[:, -1], user.predict_proba(U[:, :-1])[:, 1]),
        "privacy": float(ties),
    }


def run(seed, n_rows, names):
    """Fit, draw and judge on one seed."""
    train = census(n_rows, np.random.default_rng(seed))
    unseen = census(N_TEST, np.random.default_rng(500 + seed))
    for label, make in METHODS.items():
        if label not in names if names else label in PEERS and not find_spec("ctgan"):
            continue
        begin = time.process_time()
        model = make(seed).fit(train)
        fitted = time.process_time()
        draws = model.sample(N_DRAWS)
        drawn = time.process_time()
        found = {k: round(float(v), 4) for k, v in judge(draws, train, unseen).items()}
        seconds = {"fit": round(fitted - begin, 1), "draw": round(drawn - fitted, 1)}
        kept = getattr(model, "base_", None)
        keep_record(
            {"model": label, "seed": seed, "rows": n_rows, "kept": kept} | found | seconds, RESULTS
        )


def write_table():
    """Write the page of all results."""
    records = {(r["model"], r["seed"]): r for r in read_records(RESULTS)}
    lines = []
    for label in METHODS:
        group = [r for (name, _), r in sorted(records.items()) if name == label]
        if group:
            values = [f"{np.mean([r[m] for r in group]):.3f}" for m in MEASURES]
            seconds = [f"{np.mean([r[k] for r in group]):.0f}" for k in ("fit", "draw")]
            kept = ", ".join(dict.fromkeys(r["kept"] for r in group if r["kept"]))
            lines.append(f"| {label} | " + " | ".join([*values, " + ".join(seconds), kept]) + " |")
    n_rows, seeds = next(iter(records.values()))["rows"], len({seed for _, seed in records})
    text = [
        "# Draws of a mixed table",
        "",
        f"A simulated census, {n_rows} rows to learn from, nine columns of numbers, counts, spikes "
        f"and labels, {seeds} seed(s). Shapes of columns and trends of pairs: one minus total "
        'variation, larger is better, "other rows" of the law itself are what can be reached. '
        "Detection: area under the curve of a classifier that tells draws from unseen rows, 0.5 is "
        "best. Use: area under the curve, on unseen rows, of a classifier of the income that has "
        "learnt from draws. Privacy: share of draws nearer to a training row than to an unseen "
        "one, 0.5 is best. CPU-seconds to fit + to draw 10 000. ForestDiffusion was not run.",
        "",
        "| model | shapes | pairs | detection | use | privacy | seconds | kept |",
        "|" + "---|" * 8,
        *lines,
        "",
        f"Written by `docs/benchmarks/census.py` on {time.strftime('%Y-%m-%d')}: "
        f"{platform.machine()}, one thread, torch {torch.__version__}. Other work kept the machine "
        "busy meanwhile.",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed in range(options.seeds):
        run(seed, options.rows, options.methods)
    write_table()


if __name__ == "__main__":
    main()
