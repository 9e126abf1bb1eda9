"""Tests and timings that need a GPU, in one command; says so where there is none.

Runs ``pytest -m gpu`` and times the estimators on the CPU and on the GPU in the same run, medians
of three after one to warm up. Writes ``docs/benchmarks/results/gpu.md`` where there is a GPU.

    python docs/benchmarks/gpu.py
"""

import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE

RESULTS = Path(__file__).parent / "results" / "gpu.md"
ROOT = Path(__file__).parents[2]


def make_table(n_rows, n_features=20):
    """Correlated rows."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_rows, n_features)) @ rng.normal(size=(n_features, n_features))


def works(device):
    """What is timed on a device, by name."""
    rows = make_table(4000)
    series = np.where(np.random.default_rng(1).random(rows.shape) < 0.1, np.nan, rows)
    density = ScoreSDE(base="gaussian", max_iter=500, device=device, random_state=0)
    imputer = CSDIImputer(window_length=24, max_iter=100, device=device, random_state=0)
    base = CSDIImputer(method="gaussian", window_length=24, device=device, random_state=0)
    sampler = LangevinSampler(lambda x: -0.5 * x.square().sum(1), device=device, random_state=0)
    return {
        "ScoreSDE fit, 500 steps": lambda: density.fit(rows),
        "ScoreSDE score 2000 rows": lambda: density.fit(rows).score_samples(rows[:2000]),
        "CSDIImputer fit, 100 steps": lambda: imputer.fit(series),
        "state space fit and transform": lambda: base.fit(series).transform(series),
        "LangevinSampler, 2000 draws": lambda: sampler.fit().sample(2000),
    }


def median_seconds(work):
    """Median of three runs after one."""
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def main():
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests")], check=False
    )
    if not torch.cuda.is_available():
        print("There is no GPU that torch can use: its tests were skipped, nothing was timed.")
        return
    warnings.simplefilter("ignore")
    on = {device: works(device) for device in ("cpu", "cuda")}
    body = []
    for name in on["cpu"]:
        cpu, gpu = (median_seconds(on[device][name]) for device in ("cpu", "cuda"))
        body.append(f"| {name} | {cpu:.2f} | {gpu:.2f} | {cpu / gpu:.1f} |")
        print(body[-1], flush=True)
    text = [
        "# On a GPU",
        "",
        f"Seconds of the clock, medians of three; tests marked gpu ended with {tests.returncode}.",
        "",
        "| work | CPU | GPU | ratio |",
        "|---|---|---|---|",
        *body,
        "",
        f"Written by `docs/benchmarks/gpu.py` on {time.strftime('%Y-%m-%d')}: "
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}.",
    ]
    RESULTS.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
