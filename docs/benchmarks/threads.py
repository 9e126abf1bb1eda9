"""Seconds with one, two and the default number of threads, alone and beside other work.

Each of some small jobs, one at least for every other benchmark here, runs in a fresh process for
every setting: with ``OMP_NUM_THREADS`` 1 and 2, with nothing set, and with nothing set and the
package's own limit switched off, which is how it was before. All of this is done twice: alone, and
beside two busy loops that the script starts. The last column compares what the jobs return with one
thread and with the default. The table goes to ``results/threads.md`` beside this script. Nothing
else should run meanwhile.

    python docs/benchmarks/threads.py [--repeats 3] [--jobs NAME ...]

With names of jobs only their rows are measured anew and the others kept; the page says when.
"""

import argparse
import json
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

import numpy as np

RESULTS = Path(__file__).parent / "results" / "threads.md"
# Seconds after which a process is stopped, and what is left of them after the imports: the jobs
# themselves take a few.
LIMIT, SHOWN = 30, 20
# Numbers of an answer that are compared.
ANSWERS = 500
SETTINGS = {
    "1": {"OMP_NUM_THREADS": "1"},
    "2": {"OMP_NUM_THREADS": "2"},
    "default": {},
    "before": {},
}
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# ------------------------------------------------------------------ the jobs, in a process each


def langevin():
    """Fit and 4000 draws from 150 modes (`langevin.py`)."""
    from skdiffusion import LangevinSampler
    from skdiffusion.datasets import make_gaussian_mixture

    mixture = make_gaussian_mixture(150, random_state=0)
    return lambda: LangevinSampler(mixture, random_state=0).fit().sample(4000)


def posterior():
    """Fit to a logistic regression, 1000 draws (`posteriors.py`, `langevin_alarms.py`)."""
    import torch
    from sklearn.datasets import load_breast_cancer

    from skdiffusion import LangevinSampler

    X, y = load_breast_cancer(return_X_y=True)
    X = torch.as_tensor((X - X.mean(0)) / X.std(0))[:, :5].double()
    y = torch.as_tensor(2.0 * y - 1).double()

    def log_density(beta):
        score = y * (beta @ X.T)
        return torch.nn.functional.logsigmoid(score).sum(1) - 0.5 * beta.square().sum(1)

    return lambda: LangevinSampler(log_density, n_features=5, random_state=0).fit().sample(1000)


def network():
    """100 steps of training on 2000 rows of circles, 1000 log-densities and 2000 draws."""
    from sklearn.datasets import make_circles

    from skdiffusion import ScoreSDE

    X, _ = make_circles(2000, noise=0.05, factor=0.5, random_state=0)

    def job():
        model = ScoreSDE(base=None, max_iter=50, random_state=0).fit(X)
        model.score_samples(X[:1000])
        return model.sample(2000)

    return job


def density():
    """Fit to 569 rows of 30 columns, densities, 1000 draws (`density.py`, `samples.py`)."""
    from sklearn.datasets import load_breast_cancer

    from skdiffusion import ScoreSDE

    X = load_breast_cancer().data

    def job():
        model = ScoreSDE(random_state=0).fit(X)
        model.sample(1000)
        return model.score_samples(X)

    return job


def larger_table():
    """Fit to 1200 rows with a sharp function of 4 columns, densities (`large_tables.py`)."""
    import numpy as np

    from skdiffusion import ScoreSDE

    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (1200, 5))
    X[:, 4] = np.sin(3 * X[:, 0]) * X[:, 1] + X[:, 2] ** 2 + 0.05 * rng.normal(size=1200)
    return lambda: ScoreSDE(max_iter=20, random_state=0).fit(X).score_samples(X[:500])


def conditional():
    """Fit of a column given ten others and its quantiles (`conditional_regression.py`)."""
    from sklearn.datasets import load_diabetes

    from skdiffusion import ScoreSDE

    X, y = (part[:150] for part in load_diabetes(return_X_y=True))
    return lambda: ScoreSDE(condition="value", random_state=0).fit(y[:, None], X).sample(150, X)


def series():
    """5 steps of training on a month of weather, 20 draws (`imputation.py`, `regimes.py`)."""
    from skdiffusion import CSDIImputer

    X = month_of_weather()
    imputer = CSDIImputer(window_length=24, max_iter=5, n_draws=20, random_state=0)
    return lambda: imputer.fit(X).transform(X)


def csdi_network():
    """2 steps of training of CSDI's network, 5 draws of a day (`csdi_published_weights.py`)."""
    from skdiffusion import CSDIImputer

    X = month_of_weather()[:240]
    imputer = CSDIImputer(
        network="csdi", window_length=24, max_iter=2, n_draws=5, n_steps=10, random_state=0
    )
    return lambda: imputer.fit(X).transform(X[:24])


def long_series():
    """Gaussian of 4000 rows of 10 columns, and 20 draws of a twentieth (`scaling.py`)."""
    import numpy as np

    from skdiffusion import CSDIImputer
    from skdiffusion.datasets import ampute

    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 10)).cumsum(0) * 0.1 + rng.normal(size=(4000, 10))
    X, _ = ampute(X, missing_rate=0.05, random_state=0)
    imputer = CSDIImputer(method="gaussian", n_draws=20, random_state=0)
    return lambda: imputer.fit(X).transform(X)


def mixed_table():
    """Fit to 569 rows of numbers and labels, 20 draws of a fifth (`mixed_tables.py`)."""
    import pandas as pd
    from sklearn.datasets import load_breast_cancer

    from skdiffusion import CSDIImputer
    from skdiffusion.datasets import ampute

    X, _ = ampute(load_breast_cancer().data[:, :10], missing_rate=0.2, random_state=0)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(10)])
    frame["x0"] = pd.cut(frame["x0"], 4, labels=["a", "b", "c", "d"])
    imputer = CSDIImputer(max_iter=20, n_draws=20, random_state=0)
    return lambda: imputer.fit(frame).transform(frame).drop(columns="x0")


def imputations():
    """10 imputations of 300 rows and the pooled regression (`multiple_imputation.py`)."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    from skdiffusion import CSDIImputer, MultipleImputation
    from skdiffusion.datasets import ampute

    rng = np.random.default_rng(0)
    X = rng.multivariate_normal(np.zeros(3), 0.5 * np.eye(3) + 0.5, 300)
    y = X.sum(1) + rng.normal(size=300)
    X, _ = ampute(X, missing_rate=0.3, random_state=0)
    imputer = CSDIImputer(method="gaussian")
    analysis = MultipleImputation(imputer, LinearRegression(), n_imputations=10, random_state=0)
    return lambda: analysis.fit(X, y).predict(np.nan_to_num(X))


def month_of_weather():
    """Hours of a month, 18 columns, a fifth of the cells hidden."""
    import numpy as np

    from skdiffusion.datasets import ampute, load_nyc_weather

    X = np.asarray(load_nyc_weather().data)[:720]
    return ampute(X, missing_rate=0.2, random_state=0)[0]


JOBS = {
    "LangevinSampler, mixture": langevin,
    "LangevinSampler, log density": posterior,
    "ScoreSDE, network": network,
    "ScoreSDE, small table": density,
    "ScoreSDE, larger table": larger_table,
    "ScoreSDE, one column": conditional,
    "CSDIImputer, series": series,
    "CSDIImputer, CSDI's network": csdi_network,
    "CSDIImputer, long series": long_series,
    "CSDIImputer, mixed table": mixed_table,
    "MultipleImputation": imputations,
}


def run_job(name, setting, repeats):
    """Print the seconds of every repeat of a job, and what it returned."""
    import warnings

    warnings.simplefilter("ignore")
    if setting == "before":
        without = types.ModuleType("skdiffusion._threads")
        without.one_thread = without.one_blas_thread = contextmanager(lambda: (yield))
        without.spread = lambda function, items, worth=True: [function(item) for item in items]
        sys.modules["skdiffusion._threads"] = without
    job = JOBS[name]()
    for _ in range(repeats):
        begin = time.perf_counter()
        answer = np.asarray(job(), dtype=float)
        seconds = time.perf_counter() - begin
        print(
            json.dumps({"seconds": seconds, "answer": answer.ravel()[:ANSWERS].tolist()}),
            flush=True,
        )


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


def measured(name, setting, repeats):
    """Median seconds of a job in a process of its own and its answer, None if none was in time."""
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
    found = [json.loads(line) for line in printed.splitlines()]
    if not found:
        return None, None
    return median(one["seconds"] for one in found), np.array(found[0]["answer"])


def measure(names, repeats):
    """Yield job, whether beside busy loops, seconds of each setting, how answers differ."""
    for beside in (False, True):
        with busy_loops(2) if beside else nullcontext():
            for name in names:
                # What was slow needs no median: it only has to be seen.
                runs = {s: measured(name, s, 1 if s == "before" else repeats) for s in SETTINGS}
                times = {setting: run[0] for setting, run in runs.items()}
                yield name, beside, times, difference(runs["1"][1], runs["default"][1])


def difference(one, other):
    """Largest difference of two answers in standard deviations of them."""
    if one is None or other is None:
        return "-"
    apart = np.nanmax(np.abs(one - other)) / max(np.nanstd(one), 1e-12)
    return f"{apart:.0e}" if apart else "0"


def cell(value):
    return f"> {SHOWN}" if value is None else f"{value:.2f}"


def ratio(above, below):
    """Ratio of two times, a bound where the upper one was stopped."""
    if below is None:
        return "-"
    return f"> {SHOWN / below:.0f}" if above is None else f"{above / below:.2f}"


def row(name, beside, times, apart):
    """Line of the table."""
    best = min((times[s] for s in ("1", "2", "default") if times[s]), default=None)
    columns = [
        name,
        "two busy loops" if beside else "idle",
        *(cell(times[setting]) for setting in SETTINGS),
        ratio(times["default"], best),
        ratio(times["before"], times["default"]),
        apart,
    ]
    return "| " + " | ".join(columns) + " |"


def kept_rows():
    """Rows of the page that is there, by job and machine."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {key(line): line for line in lines if line.startswith("| ") and key(line)[0] in JOBS}


def key(line):
    """Job and machine of a row."""
    return tuple(cell.strip() for cell in line.split("|")[1:3])


def page(rows, repeats, some):
    """Markdown page of the results; ``some`` are the jobs measured last, if not all."""
    import torch

    jobs = [f"* {name}: {job.__doc__}" for name, job in JOBS.items()]
    return "\n".join(
        [
            "# Threads: alone and beside other work",
            "",
            "Wall-clock seconds of small jobs with `OMP_NUM_THREADS` 1 and 2 and with "
            f"nothing set, each in a fresh process; medians of {repeats} runs. In the column "
            "*before* nothing is set and the limit of one thread inside the package is switched "
            f"off; one run, stopped after {LIMIT} seconds, of which some ten are imports. "
            "*default / best* should not exceed 1.3; *before / default* says what the limit gains. "
            "*answers apart* is the largest difference between what is returned with one thread "
            "and with the default, in standard deviations of it. Every other benchmark of these "
            "pages is here in a small form.",
            "",
            *jobs,
            "",
            "| job | machine | 1 thread | 2 threads | default | before | default / best "
            "| before / default | answers apart |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "The report that led to the limit, on two cores beside other work: `LangevinSampler` "
            "on the 150 modes 1.1 s with one thread and 65.6 s with the default; "
            "`ScoreSDE().fit` on the 2000 rows 14 s and 456 s.",
            "",
            *([f"Measured anew after the others: {', '.join(some)}.", ""] if some else []),
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
    parser.add_argument("--jobs", nargs="*", choices=JOBS, default=[], metavar="NAME")
    parser.add_argument("--job", nargs=2, metavar=("NAME", "SETTING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(*options.job, options.repeats)
        return
    rows = kept_rows() if options.jobs else {}
    for found in measure(options.jobs or JOBS, options.repeats):
        line = row(*found)
        rows[key(line)] = line
        print(line, flush=True)
        written = page(rows.values(), options.repeats, options.jobs)
        RESULTS.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
