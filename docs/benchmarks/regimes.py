"""The imputer where much is missing, where only the past is known, and beyond the end.

Each regime hides cells of a year of hourly weather (three airports, 18 columns, shipped) or of
PM2.5 at 12 stations in Beijing (in ``--data``), and everyone fills the same cells:

* *cells*: 30, 50 and 70 % of the cells of all columns, one by one;
* *hours*: half and two thirds of the hours without any value, of four columns (wind speed,
  pressure, temperature and dew point of one airport), the remaining rows with their times;
* *past*: 20 % of the cells, each filled from the hours up to its own alone;
* *ahead*: the 24 hours after each of 20 days of the last two months, from the 30 days before;
  learnt from the ten months before those.

``CSDIImputer`` runs with its defaults and with its Gaussian alone. The peers are what people use:
linear interpolation, the last value, the value of the same hour of the day before (seasonal naive),
and scikit-learn's IterativeImputer with draws from its posterior, on the hour, the one before and,
where the future is known, the one after. Where a row has no value it knows the mean alone.

Each result is a line of JSON in ``--out``, not computed again where it is there; ``--table`` writes
the page. One thread and CPU-seconds are for comparison: set ``OMP_NUM_THREADS=1``.

    python docs/benchmarks/regimes.py --seeds 0 1 2
"""

import argparse
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from records import as_text, keep_record, read_records, versions
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

from skdiffusion import CSDIImputer
from skdiffusion.datasets import load_nyc_weather
from skdiffusion.metrics import crps_loss, interval_coverage

RESULTS = Path(__file__).parent / "results"
HOURS, N_DRAWS, N_CHAINED = 24, 100, 10
N_LEARNT, N_ORIGINS, N_BEFORE = 300, 20, 30  # days
FOUR = ["JFK_wind_speed", "JFK_pressure", "JFK_temp", "JFK_dewp"]


# ------------------------------------------------------------------ data and regimes


def load(dataset, folder):
    """Frame of a year of hours in standard deviations of its columns."""
    if dataset == "weather":
        frame = load_nyc_weather(as_frame=True).data
    else:
        path = folder / "beijing_pm25_12stations_2016-03_2017-02.csv.gz"
        frame = pd.read_csv(path, index_col=0, parse_dates=True)
    # Hours that no file has are rows without values, so that 24 rows are a day.
    return ((frame - frame.mean()) / frame.std()).asfreq("h")


def cells(share):
    """Regime that hides single cells."""

    def hide(frame, rng):
        return frame, rng.random(frame.shape) < share

    return hide


def hours(share):
    """Regime that drops whole rows of four columns."""

    def hide(frame, rng):
        few = frame.iloc[:, :4] if not set(FOUR) <= set(frame) else frame[FOUR]
        gone = rng.random(len(few)) < share
        return few, np.broadcast_to(gone[:, None], few.shape)

    return hide


REGIMES = {
    "cells 30 %": cells(0.3),
    "cells 50 %": cells(0.5),
    "cells 70 %": cells(0.7),
    "hours 50 %": hours(0.5),
    "hours 67 %": hours(2 / 3),
    "past 20 %": cells(0.2),
    "ahead 24 h": None,
}


# ------------------------------------------------------------------ methods


def ours(method, regime, seed):
    """CSDIImputer, of one direction where only the past counts."""
    direction = "past" if regime.startswith("past") else "both"
    return CSDIImputer(
        method=method,
        direction=direction,
        window_length=HOURS,
        n_draws=N_DRAWS,
        random_state=seed,
        device="cpu",
    )


def fill_ours(method, regime, seed):
    """Draws (n_rows, n_draws, n_columns) of everything."""
    return lambda visible: ours(method, regime, seed).fit(visible).sample(visible)


def with_lags(x, lags):
    """Columns of the hour and of the hours at the other lags side by side."""
    return np.hstack([pd.DataFrame(x).shift(lag).to_numpy() for lag in lags])


def chained(lags):
    """IterativeImputer with draws, on rows with their neighbours."""

    def of(regime, seed):
        def fill(visible):
            rows = with_lags(visible.to_numpy(), lags)
            imputer = IterativeImputer(
                sample_posterior=True, keep_empty_features=True, random_state=seed
            ).fit(rows)
            k = visible.shape[1]
            return np.stack([imputer.transform(rows)[:, :k] for _ in range(N_CHAINED)], axis=1)

        return fill

    return of


def straight_lines(regime, seed):
    """Linear interpolation."""
    return lambda visible: visible.interpolate("time", limit_direction="both").to_numpy()[:, None]


def last_value(regime, seed):
    """The last value that was there."""
    return lambda visible: visible.ffill().fillna(0.0).to_numpy()[:, None]


def same_hour(regime, seed):
    """The value of the same hour of the last day that has one."""

    def fill(visible):
        filled = visible.groupby(visible.index.hour).ffill()
        return filled.fillna(visible.ffill()).fillna(0.0).to_numpy()[:, None]

    return fill


METHODS = {
    "**CSDIImputer, default**": lambda regime, seed: fill_ours("diffusion", regime, seed),
    'CSDIImputer(method="gaussian")': lambda regime, seed: fill_ours("gaussian", regime, seed),
    "IterativeImputer, lag and lead": chained((0, 1, -1)),
    "IterativeImputer, lag": chained((0, 1)),
    "linear interpolation": straight_lines,
    "last value": last_value,
    "same hour of the day before": same_hour,
}
PAST_ONLY = {"IterativeImputer, lag", "last value", "same hour of the day before"}
PLAIN = set(METHODS) - PAST_ONLY
# With direction="past", and in forecasts, there is no network: the default is the Gaussian.
_GAUSSIAN = 'CSDIImputer(method="gaussian")'
OF_REGIME = {
    "past": PAST_ONLY | {_GAUSSIAN},
    "ahead": {_GAUSSIAN, "last value", "same hour of the day before"},
}


def methods_of(regime):
    """Names of the methods that a regime is for."""
    wanted = OF_REGIME.get(regime.split()[0], PLAIN)
    return [name for name in METHODS if name in wanted]


# ------------------------------------------------------------------ runs


def scores(truth, draws, hidden):
    """CRPS, MAE and coverage of hidden cells, of draws (n_rows, n_draws, n_columns)."""
    wanted = hidden & ~np.isnan(truth)
    row, column = np.nonzero(wanted)
    y, sample = truth[wanted][:, None], draws[row, :, column][..., None]
    middle = np.median(sample, axis=1)
    found = {"mae": float(np.abs(middle - y).mean())}
    found["crps"] = found["mae"]
    if sample.shape[1] > 1:
        found["crps"] = float(crps_loss(y, sample))
    if sample.shape[1] >= N_DRAWS:
        for level in (0.5, 0.9):
            found[f"band {level}"] = float(interval_coverage(y, sample, level=level))
    return found


def filled(frame, regime, method, seed):
    """Scores and seconds of one method in a regime that hides cells."""
    frame, hidden = REGIMES[regime](frame, np.random.default_rng(seed))
    visible = frame.mask(hidden)
    if regime.startswith("hours") and not method.startswith(("IterativeImputer", "linear")):
        # The rows without values are not there: their times are asked for afterwards.
        visible = visible[~hidden.all(axis=1)].reindex(frame.index)
    begin = time.process_time()
    draws = METHODS[method](regime, seed)(visible)
    return scores(frame.to_numpy(), draws, hidden), time.process_time() - begin


def ahead(frame, method, seed):
    """Scores and seconds of the day after each of several days."""
    days = len(frame) // HOURS
    origins = np.linspace(N_LEARNT + 1, days - 1, N_ORIGINS).astype(int)
    begin = time.process_time()
    if "CSDI" in method:
        kind = "gaussian" if "gaussian" in method else "diffusion"
        model = ours(kind, "ahead", seed).fit(frame.iloc[: N_LEARNT * HOURS])
    truths, answers = [], []
    for day in origins:
        known = frame.iloc[(day - N_BEFORE) * HOURS : day * HOURS]
        truths.append(frame.iloc[day * HOURS : (day + 1) * HOURS])
        if "CSDI" in method:
            answers.append(model.forecast(known, HOURS))
        else:
            longer = known.reindex(known.index.append(truths[-1].index))
            answers.append(METHODS[method]("ahead", seed)(longer)[-HOURS:])
    truth, draws = np.concatenate([t.to_numpy() for t in truths]), np.concatenate(answers)
    return scores(truth, draws, np.ones(truth.shape, bool)), time.process_time() - begin


def run(options):
    """Run what is asked for and not there yet."""
    frame = load(options.dataset, options.data)
    for seed in options.seeds:
        for regime in options.regimes:
            for method in methods_of(regime):
                if options.fast and method.startswith("**"):
                    continue
                about = {"dataset": options.dataset, "seed": seed, "regime": regime}
                about["method"] = method
                done = [{k: r[k] for k in about} for r in read_records(options.out)]
                if about in done or (regime.startswith("ahead") and seed and "CSDI" not in method):
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found, seconds = (
                        ahead(frame, method, seed)
                        if regime.startswith("ahead")
                        else filled(frame, regime, method, seed)
                    )
                used = versions("scikit-learn", "torch", "pandas")
                keep_record({**about, **found, "seconds": seconds, "versions": used}, options.out)


# ------------------------------------------------------------------ page


def spread(values, digits=3):
    """Median of the runs and, of several, the smallest and the largest."""
    if not values:
        return "-"
    text = [f"{v:.{digits}f}" for v in (median(values), min(values), max(values))]
    return text[0] if len(values) == 1 else f"{text[0]} ({text[1]}-{text[2]})"


def table(records):
    """Lines of the table of one regime."""
    names = [name for name in METHODS if name in {r["method"] for r in records}]
    lines = [
        "| method | runs | CRPS | MAE | 50 % band | 90 % band | CPU-seconds |",
        "|" + "---|" * 7,
    ]
    for name in names:
        own = [r for r in records if r["method"] == name]
        columns = [spread([r[k] for r in own if k in r]) for k in ("crps", "mae")]
        columns += [spread([r[k] for r in own if k in r], 2) for k in ("band 0.5", "band 0.9")]
        columns.append(spread([r["seconds"] for r in own], 1))
        lines.append(f"| {name} | {len(own)} | " + " | ".join(columns) + " |")
    return lines


def losses(records):
    """Sentences on where a peer is better than the best of ours."""
    by_case = {}
    for r in records:
        crps = by_case.setdefault((r["dataset"], r["regime"]), {})
        crps.setdefault(r["method"], []).append(r["crps"])
    for (dataset, regime), crps in by_case.items():
        of = {name: median(values) for name, values in crps.items()}
        mine = [value for name, value in of.items() if "CSDI" in name]
        best = min((name for name in of if "CSDI" not in name), key=of.get, default=None)
        if mine and best and of[best] < min(mine):
            yield f"{dataset}, {regime} ({best} {of[best]:.3f}, ours {min(mine):.3f})"


def page(records):
    """Markdown page of the results."""
    lines = ["# Imputation by regime: much missing, only the past, beyond the end", ""]
    lines += __doc__.split("\n\n", 1)[1].split("\n\nEach result")[0].splitlines()
    lines += [
        "",
        "Errors are in standard deviations of the columns. Medians of the runs (smallest-largest): "
        "a run draws what is hidden. 100 draws, 10 of IterativeImputer; the CRPS of a method "
        "without draws is its MAE. Bands are corrected for the number of draws.",
        "",
        "Where a peer has the lower CRPS: " + ("; ".join(losses(records)) or "nowhere here") + ".",
        "",
    ]
    for dataset in ("weather", "beijing"):
        for regime in REGIMES:
            here = [r for r in records if (r["dataset"], r["regime"]) == (dataset, regime)]
            if here:
                lines += [f"## {dataset.capitalize()}: {regime}", "", *table(here), ""]
    used = as_text(records[-1]["versions"])
    lines += [f"Made by `docs/benchmarks/regimes.py` with {used}.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the Beijing file")
    parser.add_argument("--dataset", choices=["weather", "beijing"], default="weather")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES))
    parser.add_argument("--fast", action="store_true", help="without the default's networks")
    parser.add_argument("--out", type=Path, default=RESULTS / "regimes.jsonl")
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    if not options.table:
        run(options)
    text = page(read_records(options.out))
    (RESULTS / "regimes.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
