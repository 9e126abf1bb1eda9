"""The published weights of CSDI under its own chain and under solvers of few steps.

The network of the CSDI paper, with the weights its authors published for PhysioNet 2012 with 10 %
of the observations hidden, draws the first windows of the paper's first test fold: by the paper's
50 ancestral steps and by solvers with 12 evaluations of the network. All solvers see the
same windows; the noise of a draw is keyed by the window, so that they also start from the same
points. Judge a solver by its score *and* its coverage: bands that are too narrow or too wide can
hide behind a good median.

Needed in ``--data``: ``physionet2012_set_a.npz`` (``values``, and the ``mean`` and ``std`` the
paper standardises with) and ``physionet2012_split.npz`` (``test_fold0``, ``conditional_mask_10``
as packed bits and ``mask_shape``, from the paper's code with seed 1). ``--weights`` is
``save/pretrained/model.pth`` of the authors' repository. The chain on 64 windows with 20 draws
takes about 45 CPU-minutes; ``--cache`` keeps finished draws.
"""

import argparse
import json
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

from skdiffusion._random import normals, row_keys
from skdiffusion.diffusion.solve import solve
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.metrics import (
    crps_loss,
    interval_coverage,
    mean_absolute_error,
    root_mean_squared_error,
)
from skdiffusion.nn import load_csdi_checkpoint

CHAIN = "ancestral, 50 steps"
SOLVERS = {
    CHAIN: ("ancestral", 50),
    "dpmpp_2m_sde, 12 steps": ("dpmpp_2m_sde", 12),
    "dpmpp_2m, 12 steps": ("dpmpp_2m", 12),
    "ancestral, 12 steps": ("ancestral", 12),
}
RESULTS = Path(__file__).parent / "results"


def load_windows(folder, n_windows):
    """Standardised values (NaN where missing) and what the network may see of them."""
    panel = np.load(folder / "physionet2012_set_a.npz")
    split = np.load(folder / "physionet2012_split.npz")
    rows = split["test_fold0"][:n_windows]
    shape = tuple(split["mask_shape"])
    visible = np.unpackbits(split["conditional_mask_10"])[: np.prod(shape)].reshape(shape)
    values = (panel["values"][rows] - panel["mean"]) / panel["std"]
    return values.astype(np.float32), visible[rows].astype(bool)


def draw(network, values, visible, step, levels, n_draws, seed, device):
    """Draw all unobserved cells of each window, all draws of a window together."""
    keys = row_keys(np.where(visible, values, np.nan), seed)
    draws = np.zeros((len(values), n_draws, *values.shape[1:]), dtype=np.float32)
    for i, (window, seen) in enumerate(zip(values, visible)):
        observed = torch.from_numpy(seen)[None]
        series = WindowedSeries.stack(torch.from_numpy(window)[None], observed).to(device)
        cells = torch.nonzero(~observed.flatten()).T
        fresh = address_noise(keys[i], n_draws, cells[0], device)
        pad = torch.zeros_like(cells, dtype=torch.bool)
        rows = series.rows(series.offsets[:-1])
        context = network.encode(series, rows, cells.to(device), pad.to(device))
        z = solve(
            lambda z, s, context=context: network.denoise(context, z, s),
            levels[0] * fresh(0),
            levels,
            step=step,
            noise=lambda k, fresh=fresh: fresh(k + 1),
        )
        draws[i].reshape(n_draws, -1)[:, cells[0]] = z[0].cpu()
    return draws


def address_noise(key, n_draws, cells, device):
    """Return the function that gives the normals of a step for one window."""
    numbers = torch.arange(n_draws)[None, :, None]
    return lambda step: normals(key.view(1, 1, 1), numbers, step, cells[None, None]).to(device)


def paper_median(draws):
    """Median draw as in the paper's code: the lower of the two middle ones."""
    return np.sort(draws, axis=1)[:, (draws.shape[1] - 1) // 2]


MEASURES = {
    "fair CRPS": lambda y, x: crps_loss(y, x) / np.nanmean(np.abs(y)),
    "paper's CRPS": lambda y, x: crps_loss(y, x, method="quantile"),
    "MAE": lambda y, x: mean_absolute_error(y, paper_median(x)),
    "RMSE": lambda y, x: root_mean_squared_error(y, paper_median(x)),
    "50 %": lambda y, x: interval_coverage(y, x, level=0.5),
    "90 %": lambda y, x: interval_coverage(y, x, level=0.9),
}


def jackknife(statistic, n_windows):
    """Estimate over all windows and its standard error, leaving out one window at a time."""
    everything = np.arange(n_windows)
    left_out = [statistic(np.delete(everything, i)) for i in everything]
    variance = (n_windows - 1) * np.var(left_out)
    return float(statistic(everything)), float(np.sqrt(variance))


def measure(truth, draws, reference):
    """All measures of one solver, and its fair CRPS relative to that of the reference."""
    over = lambda f: jackknife(lambda rows: f(truth[rows], draws[rows]), len(truth))  # noqa: E731
    fair = MEASURES["fair CRPS"]
    ratio = lambda rows: fair(truth[rows], draws[rows]) / fair(truth[rows], reference[rows])  # noqa: E731
    result = {name: over(function) for name, function in MEASURES.items()}
    return result | {"to the chain": jackknife(ratio, len(truth))}


def cached_draws(name, make, cache):
    """Draws of a solver and the CPU-seconds they took, from the cache where it has them."""
    path = cache / f"{name.replace(' ', '_')}.npz" if cache else None
    if path and path.exists():
        stored = np.load(path)
        return stored["draws"], float(stored["seconds"])
    start = time.process_time()
    draws = make()
    seconds = time.process_time() - start
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, draws=draws, seconds=seconds)
    return draws, seconds


def table(results, facts):
    """Markdown page of the results."""
    names = ["fair CRPS", "to the chain", *list(MEASURES)[1:]]
    lines = [
        "# Published weights of CSDI, PhysioNet 2012, 10 % hidden",
        "",
        f"{facts['windows']} windows (the first of test fold 0), {facts['cells']} hidden cells, "
        f"{facts['draws']} draws, seed {facts['seed']}; standardised data. `fair CRPS` is divided "
        "by the mean size of the truth, the scale of the paper; `to the chain` is its ratio to "
        "that of the first row. `paper's CRPS` is inflated by few draws, alike in all rows. MAE "
        "and RMSE are those of the median draw. Coverage is corrected for the number of draws. "
        "± is one standard error, windows left out one at a time. Made by "
        "`docs/benchmarks/csdi_published_weights.py`.",
        "",
        "| solver | evaluations | " + " | ".join(names) + " | CPU-seconds |",
        "|---" * (len(names) + 3) + "|",
    ]
    for solver, result in results.items():
        cells = [f"{result[name][0]:.3f} ± {result[name][1]:.3f}" for name in names]
        tail = f"{result['seconds']:.0f}"
        lines.append(f"| {solver} | {result['evaluations']} | {' | '.join(cells)} | {tail} |")
    return "\n".join(lines) + "\n"


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the PhysioNet files")
    parser.add_argument("--weights", type=Path, required=True, help="published model.pth")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--draws", type=int, default=20, help="at least 19 for 90 %% coverage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--cache", type=Path, help="folder that keeps finished draws")
    parser.add_argument("--out", type=Path, default=RESULTS / "csdi_published_weights.json")
    return parser.parse_args()


@torch.inference_mode()
def main():
    """Draw, measure, print and store."""
    options = parse()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message='method="quantile"')
    values, visible = load_windows(options.data, options.windows)
    truth = np.where(visible, np.nan, values)
    network = load_csdi_checkpoint(options.weights).to(options.device)
    sizes = options.draws, options.seed
    results, reference = {}, None
    for name in options.only:
        step, n_steps = SOLVERS[name]
        levels = network.noise_levels(n_steps, step)
        make = partial(draw, network, values, visible, step, levels, *sizes, options.device)
        key = f"{name}, {options.windows} windows, {options.draws} draws, seed {options.seed}"
        draws, seconds = cached_draws(key, make, options.cache)
        reference = draws if reference is None else reference
        results[name] = measure(truth, draws, reference)
        results[name] |= {"evaluations": n_steps, "seconds": seconds}
    facts = {name: getattr(options, name) for name in ("windows", "draws", "seed")}
    facts["cells"] = int(np.isfinite(truth).sum())
    page = table(results, facts)
    print(page)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(page)


if __name__ == "__main__":
    main()
