"""Seconds with one, two and the default number of threads, alone and beside other work.

Each of three small jobs runs in a fresh process for every setting: with ``OMP_NUM_THREADS`` 1 and
2, with nothing set, and with nothing set and the package's own limit switched off, which is how
it was before. All of this is done twice: alone, and beside two busy loops that the script starts.
The table goes to ``results/threads.md`` beside this script. Nothing else should run meanwhile.

    python docs/benchmarks/threads.py [--repeats 3]
"""

import argparse
import os
import platform
import subprocess
import sys
import time
import types
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results" / "threads.md"
# Seconds after which a process is stopped, and what is left of them after the imports: the jobs
# themselves take a few.
LIMIT, SHOWN = 60, 50
SETTINGS = {
    "1": {"OMP_NUM_THREADS": "1"},
    "2": {"OMP_NUM_THREADS": "2"},
    "default": {},
    "before": {},
}
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# ------------------------------------------------------------------ the jobs, in a process each


def langevin():
    """Fit and 4000 draws from 150 modes."""
    from skdiffusion import LangevinSampler
    from skdiffusion.datasets import make_gaussian_mixture

    mixture = make_gaussian_mixture(150, random_state=0)
    return lambda: LangevinSampler(mixture, random_state=0).fit().sample(4000)


def score_sde():
    """100 steps of training on 2000 rows of circles, 1000 log-densities and 2000 draws."""
    from sklearn.datasets import make_circles

    from skdiffusion import ScoreSDE

    X, _ = make_circles(2000, noise=0.05, factor=0.5, random_state=0)

    def job():
        model = ScoreSDE(base=None, max_iter=50, random_state=0).fit(X)
        model.score_samples(X[:1000])
        model.sample(2000)

    return job


def csdi_imputer():
    """5 steps of training on a month of weather, 18 columns, and 20 draws of a fifth of it."""
    import numpy as np

    from skdiffusion import CSDIImputer
    from skdiffusion.datasets import ampute, load_nyc_weather

    X, _ = ampute(np.asarray(load_nyc_weather().data)[:720], missing_rate=0.2, random_state=0)
    imputer = CSDIImputer(window_length=24, max_iter=5, n_draws=20, random_state=0)
    return lambda: imputer.fit(X).transform(X)


JOBS = {"LangevinSampler": langevin, "ScoreSDE": score_sde, "CSDIImputer": csdi_imputer}


def run_job(name, setting, repeats):
    """Print the seconds of every repeat of a job."""
    import warnings

    warnings.simplefilter("ignore")
    if setting == "before":
        without = types.ModuleType("skdiffusion._threads")
        without.one_thread = contextmanager(lambda: (yield))
        without.spread = lambda function, items: [function(item) for item in items]
        sys.modules["skdiffusion._threads"] = without
    job = JOBS[name]()
    for _ in range(repeats):
        begin = time.perf_counter()
        job()
        print(time.perf_counter() - begin, flush=True)


# ------------------------------------------------------------------ processes and the page


@contextmanager
def busy_loops(n_loops):
    """Processes that keep as many cores busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_loops)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds(name, setting, repeats):
    """Median seconds of a job in a process of its own, None if not even one was done in time."""
    environment = {key: value for key, value in os.environ.items() if key not in COUNTS}
    command = [sys.executable, __file__, "--job", name, setting, "--repeats", str(repeats)]
    try:
        done = subprocess.run(
            command,
            env=environment | SETTINGS[setting],
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        done.check_returncode()
        printed = done.stdout
    except subprocess.TimeoutExpired as expired:
        printed = (expired.stdout or b"").decode()
    found = [float(line) for line in printed.split()]
    return median(found) if found else None


def measure(repeats):
    """Yield job, whether it is beside busy loops, and seconds of each setting."""
    for beside in (False, True):
        with busy_loops(2) if beside else nullcontext():
            for name in JOBS:
                # What was slow needs no median: it only has to be seen.
                times = {s: seconds(name, s, 1 if s == "before" else repeats) for s in SETTINGS}
                yield name, beside, times


def cell(value):
    return f"> {SHOWN}" if value is None else f"{value:.2f}"


def ratio(above, below):
    """Ratio of two times, a bound where the upper one was stopped."""
    if below is None:
        return "-"
    return f"> {SHOWN / below:.0f}" if above is None else f"{above / below:.2f}"


def row(name, beside, times):
    """Line of the table."""
    best = min((times[s] for s in ("1", "2", "default") if times[s]), default=None)
    columns = [
        name,
        "two busy loops" if beside else "idle",
        *(cell(times[setting]) for setting in SETTINGS),
        ratio(times["default"], best),
        ratio(times["before"], times["default"]),
    ]
    return "| " + " | ".join(columns) + " |"


def page(rows, repeats):
    """Markdown page of the results."""
    import torch

    jobs = [f"* {name}: {job.__doc__}" for name, job in JOBS.items()]
    return "\n".join(
        [
            "# Threads: alone and beside other work",
            "",
            "Wall-clock seconds of three small jobs with `OMP_NUM_THREADS` 1 and 2 and with "
            f"nothing set, each in a fresh process; medians of {repeats} runs. In the column "
            "*before* nothing is set and the limit of one thread inside the package is switched "
            f"off; one run, stopped after {LIMIT} seconds, of which some ten are imports. "
            "*default / best* should not exceed 1.3; *before / default* says what the limit gains.",
            "",
            *jobs,
            "",
            "| job | machine | 1 thread | 2 threads | default | before | default / best "
            "| before / default |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "The report that led to the limit, on two cores beside other work: `LangevinSampler` "
            "on the 150 modes 1.1 s with one thread and 65.6 s with the default; "
            "`ScoreSDE().fit` on the 2000 rows 14 s and 456 s.",
            "",
            f"Written by `docs/benchmarks/threads.py` on {datetime.now(UTC):%Y-%m-%d}: "
            f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, load "
            f"average {LOAD:.1f} at the beginning.",
            "",
        ]
    )


LOAD = os.getloadavg()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--job", nargs=2, metavar=("NAME", "SETTING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(*options.job, options.repeats)
        return
    rows = []
    for name, beside, times in measure(options.repeats):
        rows.append(row(name, beside, times))
        print(rows[-1], flush=True)
        RESULTS.write_text(page(rows, options.repeats), encoding="utf-8")


if __name__ == "__main__":
    main()
