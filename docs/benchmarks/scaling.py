"""Seconds and memory over the number of rows, in one process and on workers of a local cluster.

Data are made in a folder for temporary files: 20 columns, a tenth of the cells of the imputer's
missing. Part "memory" runs the estimators on a memory-mapped array, each size in a process of its
own: CPU-seconds, and the largest memory that is not the mapped file, beyond that after the imports.
Part "workers" runs them on chunks of 81 920 rows through Dask, on one worker process and on two
with one thread and 2 GiB each, the answers summed where they are computed: seconds of the clock and
of the processors, and the largest resident memory of a worker. On a machine with other work the
clock says little; both are of the same run. Results are lines of JSON in
``docs/benchmarks/results/scaling.jsonl``; the page is made of all of them.

    python docs/benchmarks/scaling.py [--parts memory workers] [--rows 10000 100000]
"""

import argparse
import functools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from records import keep_record, read_records

from skdiffusion import CSDIImputer, ScoreSDE

RESULTS = Path(__file__).parent / "results" / "scaling.jsonl"
N_FEATURES, BLOCK, CHUNK, N_DRAWS = 20, 10_000, 10 * 2**13, 20
MB = 2**20
LABELS = {
    "table": "CSDIImputer, a table",
    "series": "CSDIImputer, one series",
    "density": "ScoreSDE, a Gaussian",
}


def data(kind, n_rows):
    """Path of a file with rows, made where it is not there."""
    path = Path(tempfile.gettempdir()) / f"skdiffusion_{kind}_{n_rows}.npy"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(N_FEATURES, N_FEATURES)) / N_FEATURES**0.5
    X = np.lib.format.open_memmap(path, "w+", dtype=float, shape=(n_rows, N_FEATURES))
    state = np.zeros(N_FEATURES)
    for first in range(0, n_rows, BLOCK):
        x = rng.normal(size=(min(BLOCK, n_rows - first), N_FEATURES)) @ mixing
        if kind == "series":
            for row in x:
                row += 0.9 * state
                state = row.copy()
            x += 0.3 * rng.normal(size=x.shape)
        if kind != "density":
            x[rng.random(x.shape) < 0.1] = np.nan
        X[first : first + len(x)] = x
    X.flush()
    return path


def estimator(kind):
    """An estimator without a network, and the method that is timed."""
    if kind == "density":
        return ScoreSDE(base="gaussian", max_iter=0, random_state=0), "score_samples"
    length = 24 if kind == "series" else None
    imputer = CSDIImputer(method="gaussian", window_length=length, n_draws=N_DRAWS, random_state=0)
    return imputer, "transform"


class Peak:
    """Largest memory of this process that is no mapped file, in MB, while the block runs."""

    def __enter__(self):
        self.peak, self.running = 0.0, True
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()
        return self

    def watch(self):
        """Look a hundred times a second."""
        while self.running:
            self.peak = max(self.peak, anonymous())
            time.sleep(0.01)

    def __exit__(self, *_):
        self.running = False
        self.watcher.join()


def anonymous():
    """Memory of this process that is no mapped file, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def child(kind, n_rows):
    """Measure one estimator on one size; print a line."""
    X, base = np.load(data(kind, n_rows), mmap_mode="r"), anonymous()
    model, method = estimator(kind)
    record = {"part": "memory", "kind": kind, "rows": n_rows}
    # A density is fitted to the sample that it takes of chunks.
    steps = {"fit": lambda: model.fit(chunked(X) if kind == "density" else X)}
    steps[method] = lambda: getattr(model, method)(X)
    for name, step in steps.items():
        begin = time.process_time()
        with Peak() as watch:
            step()
        name = "answer" if name == method else name
        record[f"{name}_seconds"] = round(time.process_time() - begin, 1)
        record[f"{name}_mb"] = round(watch.peak - base)
    print(json.dumps(record))


def chunked(X):
    """Chunks of a memory-mapped array, each read where it is worked on."""
    import dask
    import dask.array as da

    path, n = X.filename, len(X)
    parts = [(a, min(a + CHUNK, n)) for a in range(0, n, CHUNK)]
    read = dask.delayed(rows_of)
    return da.concatenate(
        [da.from_delayed(read(str(path), a, b), (b - a, X.shape[1]), float) for a, b in parts]
    )


def rows_of(path, begin, end):
    """Some rows of a file."""
    return np.array(np.load(path, mmap_mode="r")[begin:end])


def usage():
    """CPU-seconds and largest memory of a worker."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def on_workers(kind, n_rows, n_workers):
    """Measure one estimator on chunks."""
    from distributed import Client, LocalCluster

    X = chunked(np.load(data(kind, n_rows), mmap_mode="r"))
    model, method = estimator(kind)
    model.fit(np.load(data(kind, 20_000)))
    options = {"n_workers": n_workers, "threads_per_worker": 1, "memory_limit": "2GiB"}
    with (
        LocalCluster(**options, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # Imports are not part of the work.
        getattr(model, method)(X[:CHUNK]).sum().compute()
        before, begin = client.run(usage), time.perf_counter()
        total = float(getattr(model, method)(X).sum().compute())
        seconds, after = time.perf_counter() - begin, client.run(usage)
    cpu = sum(after[key][0] - before[key][0] for key in after)
    record = {"part": "workers", "kind": kind, "rows": n_rows, "workers": n_workers}
    record |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
    peak = round(max(mb for _, mb in after.values()))
    keep_record(record | {"worker_mb": peak, "sum": total}, RESULTS)


def latest(part):
    """The last record of every setting of a part."""
    found = {}
    for record in read_records(RESULTS):
        if record["part"] == part:
            found[record["kind"], record["rows"], record.get("workers")] = record
    order = {kind: i for i, kind in enumerate(LABELS)}
    return [found[key] for key in sorted(found, key=lambda k: (order[k[0]], k[1], k[2] or 0))]


def write_page():
    """Write the page of all results."""
    text = [
        "# Seconds and memory over the number of rows",
        "",
        f"{N_FEATURES} columns of float64, {N_DRAWS} draws a missing cell, no network. One process "
        "on a memory-mapped array: CPU-seconds, and MB beyond the mapped file and the imports (the "
        "answer, as large as the data, included). The density learns from the rows that it takes "
        "of chunks (65 536 at most).",
        "",
        "| | rows | data, MB | fit, s | fit, MB | answer, s | answer, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in latest("memory"):
        size = r["rows"] * N_FEATURES * 8 / MB
        text.append(
            f"| {LABELS[r['kind']]} | {r['rows']:,} | {size:.1f} | {r['fit_seconds']} | "
            f"{r['fit_mb']} | {r['answer_seconds']} | {r['answer_mb']} |"
        )
    text += [
        "",
        "On workers of a local cluster, one thread and at most 2 GiB each, chunks of 81 920 rows; "
        "largest resident memory of a worker, imports (some 400 MB) included. CPU-seconds are "
        "those of all workers; other work kept both cores of the machine busy, so that the clock "
        "says less than they do.",
        "",
        "| | rows | workers | clock, s | CPU-seconds | a worker, MB |",
        "|---|---|---|---|---|---|",
    ]
    for r in latest("workers"):
        text.append(
            f"| {LABELS[r['kind']]} | {r['rows']:,} | {r['workers']} | {r['seconds']} | "
            f"{r['cpu_seconds']} | {r['worker_mb']} |"
        )
    text += [
        "",
        f"Written by `docs/benchmarks/scaling.py` on {time.strftime('%Y-%m-%d')}: "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}.",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=["memory", "workers"])
    parser.add_argument("--kinds", nargs="*", default=list(LABELS))
    parser.add_argument("--rows", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    for kind in options.kinds:
        for n_rows in options.rows:
            if "memory" in options.parts:
                command = [sys.executable, __file__, "--child", kind, str(n_rows)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                keep_record(json.loads(done.stdout.splitlines()[-1]), RESULTS)
            if "workers" in options.parts:
                for run in [functools.partial(on_workers, kind, n_rows, k) for k in (1, 2)]:
                    run()
    write_page()


if __name__ == "__main__":
    main()
