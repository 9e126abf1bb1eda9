"""Seconds and memory of ScoreSDE over rows and columns.

Each size is a process of its own: normal columns, half of which are smooth functions of the others
with noise. Measured are CPU-seconds of ``fit``, of ``score_samples`` of 5000 new rows and of
``sample`` of 100 000, the largest memory of the process beyond that of the table, and the
negative log-likelihood of the new rows in nats a row and column. With ``--closed`` networks are
left out (``max_iter=0``), which leaves the chain out as well.

Every size is one line of ``docs/benchmarks/results/sizes.jsonl``; the page is ``sizes.md``.

    python docs/benchmarks/sizes.py [--rows 10000 100000 ...] [--columns 20 ...] [--closed]
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from records import keep_record, read_records

from skdiffusion import ScoreSDE

RESULTS = Path(__file__).parent / "results" / "sizes.jsonl"
N_TEST, N_DRAWS = 5000, 100_000


def table(n_rows, n_columns, seed):
    """Normal columns, and functions of three of them each."""
    rng = np.random.default_rng(seed)
    n = n_columns // 2
    z = rng.normal(size=(n_rows, n_columns - n))
    weights = np.random.default_rng(0).normal(size=(n, 3))
    places = np.random.default_rng(1).integers(0, z.shape[1], (n, 3))
    inner = np.stack([z[:, place] @ weight for place, weight in zip(places, weights)], 1)
    return np.hstack([z, np.tanh(inner) + 0.1 * rng.normal(size=inner.shape)])


def megabytes():
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(n_rows, n_columns, closed):
    """Measure one size."""
    torch.set_num_threads(1)
    X, new = table(n_rows, n_columns, 2), table(N_TEST, n_columns, 3)
    before, begin = megabytes(), time.process_time()
    model = ScoreSDE(max_iter=0 if closed else 4000, random_state=0).fit(X)
    fitted = time.process_time()
    fit_memory = megabytes() - before
    nll = -model.score(new)
    scored = time.process_time()
    model.sample(N_DRAWS)
    result = {
        "rows": n_rows,
        "columns": n_columns,
        "closed": closed,
        "fit_cpu_seconds": round(fitted - begin, 1),
        "score_cpu_seconds": round(scored - fitted, 1),
        "sample_cpu_seconds": round(time.process_time() - scored, 1),
        "fit_megabytes": round(fit_memory),
        "megabytes": round(megabytes() - before),
        "table_megabytes": round(X.nbytes / 2**20),
        "nll": round(nll / n_columns, 4),
        "kept": model.base_,
    }
    keep_record(result, RESULTS)


def write_table():
    """Write the page of all results."""
    records = {(r["columns"], r["rows"], r["closed"]): r for r in read_records(RESULTS)}
    lines = []
    for key in sorted(records):
        r = records[key]
        what = "closed form" if r["closed"] else "defaults"
        lines.append(
            f"| {r['rows']:,} x {r['columns']} | {what} | {r['kept']} | {r['fit_cpu_seconds']:.0f} "
            f"| {r['score_cpu_seconds']:.1f} | {r['sample_cpu_seconds']:.1f} "
            f"| {r['table_megabytes']} | {r['fit_megabytes']} | {r['megabytes']} "
            f"| {r['nll']:.3f} |"
        )
    text = [
        "# Time and memory over rows and columns",
        "",
        "Normal columns, half of which are functions of three others with noise. CPU-seconds to "
        "fit, to score 5000 rows and to draw 100 000; megabytes of the table, beyond it at most in "
        "fit, and in all three; negative log-likelihood of new rows in nats a row and column. "
        '"Closed form" leaves networks and chain out (`max_iter=0`).',
        "",
        "| size | settings | kept | fit | score | draw | table, MB | fit, MB | all, MB | nll |",
        "|" + "---|" * 10,
        *lines,
        "",
        f"Written by `docs/benchmarks/sizes.py` on {time.strftime('%Y-%m-%d')}: "
        f"{platform.machine()}, one thread, torch {torch.__version__}. Other work kept the machine "
        "busy meanwhile.",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--columns", type=int, nargs="*", default=[20])
    parser.add_argument("--closed", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run(options.rows[0], options.columns[0], options.closed)
    for n_rows in options.rows:
        for n_columns in options.columns:
            size = ["--rows", str(n_rows), "--columns", str(n_columns), "--one"]
            more = ["--closed"] if options.closed else []
            subprocess.run([sys.executable, __file__, *size, *more], check=True)
    write_table()


if __name__ == "__main__":
    main()
