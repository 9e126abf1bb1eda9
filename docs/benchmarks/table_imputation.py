"""Filling tables of numbers, beside the imputers of scikit-learn.

Tables: *friedman*, 3000 rows of the first law of Friedman 1991 with noise of deviation 1; *wine*
and *diabetes* of scikit-learn; with ``--data`` *concrete*, *energy* and *power-plant* of a folder
``uci_regression`` of ``.npz`` files with an array ``data`` each, and *skillcraft* and *sml* of a
folder ``tables`` of ``.csv.gz`` files. Of each at most 6000 rows are taken by chance, columns are
standardised, and 10, 20 or 40 % of all cells are hidden, one by one. Everyone learns from what is
left and fills it.

* ``CSDIImputer`` with its defaults, and its mixture of Gaussians alone;
* ``KNNImputer``, ``IterativeImputer`` with its default and with boosted trees (4 rounds of
  ``HistGradientBoostingRegressor``), which is how people fill tables with trees in scikit-learn.

Measured are the error of the median of 30 draws, or of the one answer (MAE), the CRPS (fair; of one
answer its absolute error), both in standard deviations of the columns, the share of the cells in
the central 90 % band of the draws, corrected for their number, and CPU-seconds of fitting and
filling. Records go to ``results/table_imputation.jsonl``, the page to ``results/``.

    python docs/benchmarks/table_imputation.py [--data FOLDER] [--seeds 0 1 2]
"""

import argparse
import os
import time
import warnings
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from records import as_text, keep_record, read_records, versions
from sklearn.datasets import load_diabetes, load_wine, make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from skdiffusion import CSDIImputer
from skdiffusion.metrics import crps_loss

RESULTS = Path(__file__).parent / "results" / "table_imputation.jsonl"
MOST_ROWS, N_DRAWS, RATES = 6000, 30, (0.1, 0.2, 0.4)
OURS = "CSDIImputer, default"


def friedman():
    X, y = make_friedman1(3000, n_features=5, noise=1.0, random_state=0)
    return np.column_stack([X, y])


def tables(folder):
    """Names of the tables and what reads them."""
    found = {
        "friedman": friedman,
        "wine": lambda: load_wine().data,
        "diabetes": lambda: load_diabetes().data,
    }
    if folder is not None:
        for name in ("concrete", "energy", "power-plant"):
            path = folder / "uci_regression" / f"{name}.npz"
            found[name] = lambda path=path: np.load(path)["data"]
        for name in ("skillcraft", "sml"):
            path = folder / "tables" / f"{name}.csv.gz"
            found[name] = lambda path=path: pd.read_csv(path).select_dtypes("number").to_numpy()
    return found


def problem(X, rate, seed):
    """Standardised rows and which cells are hidden."""
    rng = np.random.default_rng(seed)
    X = np.asarray(X, dtype=float)[rng.permutation(len(X))[:MOST_ROWS]]
    X = X[:, X.std(axis=0) > 0]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X, rng.random(X.shape) < rate


def ours(**parameters):
    imputer = CSDIImputer(n_draws=N_DRAWS, random_state=0, device="cpu", **parameters)
    return lambda Z: imputer.fit(Z).sample(Z)


def once(imputer):
    return lambda Z: imputer.fit_transform(Z)[:, None]


def methods():
    """Names of the methods and what fills a table: draws (n_rows, n_draws, n_columns)."""
    trees = HistGradientBoostingRegressor(random_state=0)
    return {
        OURS: ours(),
        'CSDIImputer(method="gaussian")': ours(method="gaussian"),
        "KNNImputer": once(KNNImputer()),
        "IterativeImputer": once(IterativeImputer(random_state=0)),
        "IterativeImputer, boosted trees": once(
            IterativeImputer(trees, max_iter=4, random_state=0)
        ),
    }


def measured(fill, X, hidden):
    """What a method is worth on the hidden cells."""
    start = time.process_time()
    draws = fill(np.where(hidden, np.nan, X))
    seconds = time.process_time() - start
    mae = float(np.abs(np.median(draws, axis=1) - X)[hidden].mean())
    n_draws = draws.shape[1]
    if n_draws == 1:
        return {"crps": mae, "mae": mae, "inside": None, "seconds": seconds}
    # Between the i-th lowest and highest of n draws lies the share (n + 1 - 2 i) / (n + 1).
    i = max(1, round(0.05 * (n_draws + 1)))
    ordered, share = np.sort(draws, axis=1), (n_draws + 1 - 2 * i) / (n_draws + 1)
    inside = (ordered[:, i - 1] <= X) & (ordered[:, -i] >= X)
    crps = float(crps_loss(X, draws, mask=hidden))
    inside = float(inside[hidden].mean()) - share + 0.9
    return {"crps": crps, "mae": mae, "inside": inside, "seconds": seconds}


def page(records, seeds):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    lines = ["# Tables of numbers", "", about, ""]
    header = "| table | " + " | ".join(methods()) + " |"
    for what, title in (
        ("crps", "CRPS"),
        ("mae", "Error of the median"),
        ("inside", "Share of the cells in bands of 90 %"),
        ("seconds", "CPU-seconds"),
    ):
        for rate in RATES:
            lines += [f"## {title}, {rate:.0%} missing", "", header, "|---" * 6 + "|"]
            for name in dict.fromkeys(r["table"] for r in records):
                cells = []
                for method in methods():
                    one = [
                        r[what]
                        for r in records
                        if (r["table"], r["rate"], r["method"]) == (name, rate, method)
                    ]
                    some = one and None not in one
                    cells.append(
                        f"{median(one):.{1 if what == 'seconds' else 3}f}" if some else "-"
                    )
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
            lines.append("")
    used = as_text(versions("numpy", "torch", "scikit-learn"))
    lines.append(
        f"Seeds {seeds}, medians; a seed draws rows and gaps. Made by "
        f"`docs/benchmarks/table_imputation.py` with {used}."
    )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the tables that are not shipped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    records = read_records(RESULTS)
    known = {(r["table"], r["rate"], r["seed"], r["method"]) for r in records}
    for seed in options.seeds:
        for name, read in tables(options.data).items():
            for rate in RATES:
                X, hidden = problem(read(), rate, seed)
                for method, fill in methods().items():
                    if (name, rate, seed, method) not in known:
                        key = {"table": name, "rate": rate, "seed": seed, "method": method}
                        keep_record({**key, **measured(fill, X, hidden)}, RESULTS)
    records = read_records(RESULTS)
    RESULTS.with_suffix(".md").write_text(page(records, sorted({r["seed"] for r in records})))


if __name__ == "__main__":
    main()
